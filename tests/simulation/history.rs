//! What happened in a run, as the applications on top of the client saw it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muslin::ErrorKind;

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
    /// What went wrong that needs no checker: calls that hang, errors that must not be.
    pub notes: Vec<String>,
}
