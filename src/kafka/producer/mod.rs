//! The producer: idempotent, acknowledged by all in-sync replicas, batched.

mod record;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

pub use record::Record;

use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};

/// Where a record was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// The record's offset.
    pub offset: Offset,
    /// The record's timestamp: the broker's where the topic keeps append times, the record's own otherwise.
    pub timestamp: Timestamp,
}

/// The settings of a [`Producer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ProducerBuilder {
    client: super::Client,
}

impl ProducerBuilder {
    pub(crate) fn new(client: super::Client) -> Self {
        Self { client }
    }

    /// How long a batch waits for more records. Default 5 ms.
    pub fn linger(self, _linger: Duration) -> Self {
        self
    }
    /// The size of a batch in bytes before compression. Default 128 KiB.
    pub fn batch_size(self, _bytes: usize) -> Self {
        self
    }
    /// All memory for records that are not acknowledged. Default 32 MiB.
    pub fn buffer_memory(self, _bytes: usize) -> Self {
        self
    }
    /// From `enqueue` to the outcome. Default 120 s.
    pub fn delivery_timeout(self, _timeout: Duration) -> Self {
        self
    }
    /// Checks the settings and asks the broker for a producer id.
    ///
    /// # Errors
    /// The cluster cannot be reached.
    pub async fn build(self) -> Result<Producer> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
}

/// A producer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Producer {}

impl Producer {
    /// Puts a record into its batch.
    ///
    /// # Errors
    /// See the kinds.
    pub async fn enqueue(&self, _record: Record) -> Result<Queued> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// [`enqueue`](Self::enqueue) and wait for the outcome.
    ///
    /// # Errors
    /// As `enqueue`, and the outcome's.
    pub async fn send(&self, record: Record) -> Result<Placed> {
        self.enqueue(record).await?.await
    }
    /// Sends all that is queued and waits for it.
    ///
    /// # Errors
    /// The first failure among the records.
    pub async fn flush(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// Flushes and stops.
    ///
    /// # Errors
    /// Records were left at the deadline.
    pub async fn close(&self, _deadline: Duration) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
}

/// The outcome of one record, to be awaited.
#[derive(Debug)]
#[must_use = "a record that is not awaited may fail unseen"]
pub struct Queued {}

impl Future for Queued {
    type Output = Result<Placed>;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(Error::new(ErrorKind::Internal, "not built yet")))
    }
}
