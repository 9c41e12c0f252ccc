//! The Kafka client.
//!
//! ```no_run
//! # async fn example() -> muslin::Result<()> {
//! use muslin::kafka::{Client, Record};
//!
//! let client = Client::builder("127.0.0.1:9092").connect().await?;
//! let producer = client.producer().build().await?;
//! let placed = producer.send(Record::to("greetings")?.key("k").value("hello")).await?;
//! println!("partition {} offset {}", placed.partition, placed.offset);
//!
//! let mut consumer = client.consumer("readers").topics(["greetings"]).build().await?;
//! while let Some(delivery) = consumer.next().await {
//!     let delivery = delivery?;
//!     println!("{:?}", delivery.value());
//!     delivery.ack();
//! }
//! # Ok(()) }
//! ```
//!
//! ```text
//! client      one cluster: bootstrap, metadata, a connection per broker
//! admin       topics: listed, described, created, changed, deleted; what a lost answer left behind; groups and their offsets, records,
//!             the cluster, transactions, users, rights
//! lag         how far groups are behind, in records and in time, and whether they get anywhere
//! producer    idempotent, acks=all, batched; `enqueue` keeps order, `Queued` resolves exactly once
//! consumer    a member of a group by either protocol, or with partitions assigned by hand; deliveries and batches
//! group       a group's coordinator and committed offsets
//! offsets     first, last and by time
//! nature      the time of day and chance, both can be given
//! cluster     pure: who leads what, when to ask again
//! wire        one connection: framing, versions, timeouts; all that touches rskafka
//! ```

pub mod admin;
mod client;
mod cluster;
pub mod consumer;
mod errors;
mod group;
pub mod lag;
mod nature;
mod offsets;
pub mod producer;
mod wire;

#[doc(no_inline)]
pub use crate::codec::record_batch::Headers;
pub use admin::{
    Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, ActiveProducer, Admin,
    BrokerDescription, ClusterDescription, ConfigChange, ConfigSource, CreatedTopic, GroupDescription,
    GroupKind, GroupState, ListedGroup, ListedTransaction, MemberDescription, NewTopic, OffsetMove,
    OffsetPlan, OffsetReset, PartitionDescription, ResetTo, ScramMechanism, ScramUser, TopicConfig,
    TopicDescription, TransactionDescription, TransactionState,
};
pub use client::{Client, ClientBuilder, PartitionInfo, TopicInfo};
pub use consumer::{
    Ailment, Assignor, Batch, BatchRecords, Batches, ByHand, Complaint, Consumer, ConsumerBuilder, Delivery,
    Group, GroupProtocol, Health, Isolation, PartitionPosition, Rebalance, Rebalances, Reset, StartAt,
};
pub use lag::{LagAlert, LagBuilder, LagPass, LagState, LagWatch, PartitionLag};
pub use offsets::At;
pub use producer::{
    Acks, Enqueue, GroupMetadata, Partitioner, Partitioning, Payload, Placed, Producer, ProducerBuilder,
    Queued, Record, Transaction, TransactionEnd, TransactionalProducer, TransactionalProducerBuilder,
};
pub(crate) use wire::shape;
pub use wire::{Connect, Connecting, Io};
