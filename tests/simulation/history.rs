//! What happened in a run, as the applications on top of the client saw it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muslin::ErrorKind;
use muslin::kafka::TransactionEnd;

/// What a producer was told of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is on the broker, there.
    Stored { partition: i32, offset: i64 },
    /// It is certain that it was not written. With the error's kind and text.
    Failed(ErrorKind, String),
    /// It may have been written.
    Unknown(ErrorKind, String),
}

/// A record that an application gave to a producer.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its value begins with it; no other record has it.
    pub id: String,
    /// Which of its sender's producers it was given to.
    pub producer: u64,
    /// Who sent it. What a sender sends to a partition through one producer keeps its order.
    pub sender: usize,
    /// The partition that was chosen.
    pub partition: i32,
    pub at: Duration,
    /// What came of it, and when.
    pub outcome: Option<(Duration, Outcome)>,
}

/// A record that a reader got.
#[derive(Debug, Clone)]
pub struct Got {
    pub group: usize,
    /// Which of the group's consumers, counted from the first: a new one begins at what is committed.
    pub consumer: usize,
    pub partition: i32,
    pub offset: i64,
    pub id: String,
    /// How often this consumer has handed it out, as it says itself.
    pub attempt: u32,
}

/// What a group's committed offset was at some moment.
#[derive(Debug, Clone)]
pub struct Committed {
    pub group: usize,
    pub partition: i32,
    pub offset: i64,
    /// The lowest offset that the group's readers had not settled before this was asked, or the end of the log.
    pub unsettled_from: i64,
}

/// What an application was told of the end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Commit said Ok.
    Committed,
    /// Commit failed, and said that nothing of it counts.
    Failed(String),
    /// It was aborted or dropped.
    Aborted,
    /// Commit failed and could not tell, or was given up half-way.
    Unknown(String),
}

/// A transaction.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub id: String,
    /// Which producer it was of; its transactions stand in their order.
    pub producer: String,
    /// The records that were queued: partition, id, and the offset that was acknowledged.
    pub records: Vec<(i32, String, Option<i64>)>,
    /// Records of which it was said that they failed.
    pub lost: Vec<String>,
    /// Records that enqueue refused.
    pub refused: Vec<String>,
    /// The offsets that were taken for the group named as the producer: partition and offset.
    pub offsets: Vec<(i32, i64)>,
    /// Offsets of which nobody knows whether they were taken.
    pub unsure_offsets: Vec<(i32, i64)>,
    pub end: Option<End>,
    /// What `last_end` said of it once it was over.
    pub last_end: Option<TransactionEnd>,
}

/// A whole run.
#[derive(Debug, Default)]
pub struct History {
    /// The time from a record's enqueue within which its outcome must be there.
    pub delivery_timeout: BTreeMap<usize, Duration>,
    pub sent: Vec<Sent>,
    /// The producers that were closed with records in them: sender and producer.
    pub closed: BTreeSet<(usize, u64)>,
    /// What brokers refused batches with, for good.
    pub refused: BTreeSet<String>,
    pub got: Vec<Got>,
    pub committed: Vec<Committed>,
    /// The log at the end: partition, then offset and id.
    pub log: BTreeMap<i32, Vec<(i64, String)>>,
    /// What each group has settled.
    pub settled: BTreeMap<usize, BTreeSet<(i32, i64)>>,
    pub transactions: Vec<Transaction>,
    /// What a group named as a producer had committed, at some moment: group, partition, offset; and at the end.
    pub seen_offsets: BTreeSet<(String, i32, i64)>,
    pub last_offsets: BTreeMap<(String, i32), i64>,
    /// What went wrong that needs no checker: calls that hang, errors that must not be.
    pub notes: Vec<String>,
}

impl Transaction {
    /// For the summary.
    pub fn told(&self) -> &'static str {
        match &self.end {
            None => "without end",
            Some(End::Committed) => "committed",
            Some(End::Failed(_)) => "failed",
            Some(End::Aborted) => "aborted",
            Some(End::Unknown(_)) => "unknown",
        }
    }

    /// Whether its records must be there; `None` where nobody can know.
    pub fn counts(&self) -> Option<bool> {
        match (&self.end, self.last_end) {
            (Some(End::Committed), _) => Some(true),
            (Some(End::Failed(_) | End::Aborted), _) => Some(false),
            (_, Some(TransactionEnd::Committed)) => Some(true),
            (_, Some(TransactionEnd::Aborted)) => Some(false),
            _ => None,
        }
    }
}
