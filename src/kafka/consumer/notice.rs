//! What an application is told of its partitions coming and going.

use std::time::Duration;

use tokio::sync::broadcast;

use crate::{Partition, Topic};

/// How many notices wait for a slow listener before the oldest are dropped.
const WAITING: usize = 256;

/// What has happened to the partitions of a member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rebalance {
    /// These are this member's now; reading begins where the group has committed.
    Assigned(Vec<(Topic, Partition)>),
    /// These are to go: nothing more of them is handed out. What is in hand may be settled for so long; then what is
    /// settled is committed, and they go.
    Revoking {
        /// Which.
        partitions: Vec<(Topic, Partition)>,
        /// The settle timeout.
        settle_within: Duration,
    },
    /// These have gone, their settled offsets committed. To settle a delivery of theirs changes nothing any more.
    Revoked {
        /// Which.
        partitions: Vec<(Topic, Partition)>,
        /// How many deliveries were still in hand: they come again to the next owner.
        unsettled: usize,
    },
    /// The group has moved on without this member, which was silent for too long: these belong to others already, and
    /// nothing of them is committed. What was settled since the last commit comes again to their next owners.
    Lost(Vec<(Topic, Partition)>),
}

/// The notices of one consumer, from [`Consumer::rebalances`](super::Consumer::rebalances).
#[derive(Debug)]
pub struct Rebalances {
    receiver: broadcast::Receiver<Rebalance>,
}

impl Rebalances {
    /// The next notice; waits for one. `None` once the consumer is closed. A listener that is more than 256 notices
    /// behind misses the oldest, and the log says so. Cancel safe.
    pub async fn next(&mut self) -> Option<Rebalance> {
        loop {
            match self.receiver.recv().await {
                Ok(notice) => return Some(notice),
                Err(broadcast::error::RecvError::Closed) => return None,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "notices of rebalances were not listened to in time");
                }
            }
        }
    }
}

/// Tells the listeners.
#[derive(Debug)]
pub(crate) struct Notices {
    sender: broadcast::Sender<Rebalance>,
}

impl Notices {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::Sender::new(WAITING) }
    }

    pub(crate) fn tell(&self, notices: Vec<Rebalance>) {
        for notice in notices {
            tracing::debug!(?notice, "rebalance");
            // Nobody listens: nothing to do.
            let _ = self.sender.send(notice);
        }
    }

    pub(crate) fn listen(&self) -> Rebalances {
        Rebalances { receiver: self.sender.subscribe() }
    }
}
