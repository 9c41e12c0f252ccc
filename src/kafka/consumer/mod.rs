//! The consumer: partitions assigned by hand, every delivery settled on its own.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};

/// Where a partition is read from when the consumer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// The group's committed offset; where there is none, as [`Reset`] says. Needs a group.
    #[default]
    Stored,
    /// The first offset that is still there.
    Earliest,
    /// The end: only what comes later.
    Latest,
    /// This offset in every partition.
    Offset(Offset),
    /// The first record at or after this time.
    Timestamp(Timestamp),
}

/// What happens where there is no stored offset, or the offset is no longer in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reset {
    /// Read from the first offset that is still there.
    #[default]
    Earliest,
    /// Skip to the end.
    Latest,
    /// Stop the partition with an error.
    Error,
}

/// Which records of transactions are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// All records, those of open and aborted transactions too.
    ReadUncommitted,
    /// Only records of committed transactions, and those outside of any.
    #[default]
    ReadCommitted,
}

impl Isolation {
    /// As the wire carries it (KIP-98).
    pub(crate) const fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// How far a partition was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionPosition {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// The offset of the next record to be handed out.
    pub position: Offset,
    /// Everything below is settled: what a commit would write.
    pub settled: Offset,
    /// The end of the log as of the last fetch; `None` before the first.
    pub end: Option<Offset>,
}

/// The settings of a [`Consumer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ConsumerBuilder {
    client: super::Client,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: super::Client) -> Self {
        Self { client }
    }

    /// The group whose committed offsets are used.
    pub fn group(self, _group: impl Into<String>) -> Self {
        self
    }
    /// All partitions of these topics.
    pub fn topics<T: AsRef<str>>(self, _topics: impl IntoIterator<Item = T>) -> Self {
        self
    }
    /// One partition.
    pub fn partition(self, _topic: impl AsRef<str>, _partition: impl Into<Partition>) -> Self {
        self
    }
    /// Where to start. Default [`StartAt::Stored`] with a group.
    pub fn start(self, _start: StartAt) -> Self {
        self
    }
    /// What to do without a valid offset.
    pub fn reset(self, _reset: Reset) -> Self {
        self
    }
    /// Which records of transactions are seen.
    pub fn isolation(self, _isolation: Isolation) -> Self {
        self
    }
    /// How often settled offsets are committed. Default 5 s.
    pub fn commit_interval(self, _interval: Duration) -> Self {
        self
    }
    /// How many deliveries may be unsettled at once. Default 1,000.
    pub fn max_in_hand(self, _n: usize) -> Self {
        self
    }
    /// Resolves partitions and positions and starts to fetch.
    ///
    /// # Errors
    /// See the kinds.
    pub async fn build(self) -> Result<Consumer> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
}

/// A consumer.
#[derive(Debug)]
pub struct Consumer {}

impl Consumer {
    /// The next delivery; `None` after [`close`](Self::close) or when every partition has stopped.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        None
    }
    /// Commits what is settled.
    ///
    /// # Errors
    /// See the kinds.
    pub async fn commit(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// Stops fetching, commits what is settled and ends.
    ///
    /// # Errors
    /// The last commit failed.
    pub async fn close(self, _deadline: Duration) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// How far every partition was read.
    #[must_use]
    pub fn positions(&self) -> Vec<PartitionPosition> {
        Vec::new()
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery>;
    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

/// A record in hand, to be settled once.
#[derive(Debug)]
#[must_use = "a delivery that is dropped comes again"]
pub struct Delivery {
    topic: Topic,
    partition: Partition,
    offset: Offset,
    timestamp: Timestamp,
    key: Option<Bytes>,
    value: Option<Bytes>,
    attempt: u32,
}

impl Delivery {
    /// The topic it was read from.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }
    /// The partition it was read from.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.partition
    }
    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }
    /// Its timestamp.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
    /// Its key; `None` is a null key.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.key.as_ref()
    }
    /// Its value; `None` is a null value (a tombstone).
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        self.value.as_ref()
    }
    /// Its headers in order, duplicates kept.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers { rest: [].iter() }
    }
    /// How often this process has handed it out: 1 the first time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
    /// Done: it counts as settled and will be committed once all before it are. Never waits.
    pub fn ack(self) {}
    /// Not done: it comes again in this process after `delay`.
    pub fn nack(self, _delay: Duration) {}
}

/// The headers of a [`Delivery`] in order: name, and value or null.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: std::slice::Iter<'a, (String, Option<Bytes>)>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);
    fn next(&mut self) -> Option<Self::Item> {
        self.rest.next().map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}
