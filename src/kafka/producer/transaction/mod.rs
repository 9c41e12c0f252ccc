//! Transactions: records to several partitions and offsets of a consumer, all of them or none.
//!
//! ```text
//! producer     the public side: the producer and its open transaction
//! state        what they, the sender and the driver share
//! driver       one task: sends the machine's requests to the coordinators
//! machine      pure: the transactional id's state, which request is next
//! meaning      pure: what an answer's code means for it
//! ```

mod driver;
mod machine;
mod meaning;
mod producer;
mod state;

pub use producer::{Transaction, TransactionEnd, TransactionalProducer, TransactionalProducerBuilder};
pub(crate) use state::Transactions;

use crate::{LeaderEpoch, Offset, Partition, ProducerEpoch, ProducerId, Topic};

/// A producer id and its epoch.
pub(crate) type Identity = (ProducerId, ProducerEpoch);

/// A partition of a topic.
pub(crate) type Place = (Topic, Partition);

/// What the cluster's transactions are like (its feature `transaction.version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Partitions and groups are added by requests of their own; the epoch stays at an end (KIP-98).
    V1,
    /// Records and offsets add their partitions and groups; every end raises the epoch (KIP-890).
    V2,
}

/// An offset that is committed with a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committing {
    pub(crate) offset: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) metadata: String,
}

/// Whose offsets are committed with a transaction, and as which member (KIP-447): the coordinator refuses those of a
/// member that the group has moved on from, so that no record is processed by two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadata {
    group: String,
    generation: i32,
    member: String,
    instance: Option<String>,
}

impl GroupMetadata {
    /// A group without membership: nobody else is held off from committing its offsets.
    pub fn new(group: impl Into<String>) -> Self {
        Self { group: group.into(), generation: -1, member: String::new(), instance: None }
    }

    /// As this member of this generation (or member epoch, KIP-848).
    #[must_use]
    pub fn member(mut self, id: impl Into<String>, generation: i32) -> Self {
        self.member = id.into();
        self.generation = generation;
        self
    }

    /// As this static member (KIP-345).
    #[must_use]
    pub fn instance(mut self, id: impl Into<String>) -> Self {
        self.instance = Some(id.into());
        self
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }
}
