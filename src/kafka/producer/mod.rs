//! The producer: idempotent, acknowledged by all in-sync replicas, batched.
//!
//! ```text
//! enqueue --room?--> accumulator (pure: batches per partition) <--> sender (one task) <--> brokers
//!    |                    partitioner, sequence: pure                request: pure
//!    +--> Queued  <------ completion: one per batch
//! ```
//!
//! A record that resolves `Ok` is on all in-sync replicas. Retries carry the batch's sequence numbers, so nothing is
//! written twice by this producer, and order holds within a partition. An error says by
//! [`is_ambiguous`](Error::is_ambiguous) whether the record may be written all the same.

mod accumulator;
mod builder;
mod completion;
mod partitioner;
mod record;
mod request;
mod sender;
mod sequence;
mod transaction;
mod watch;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

pub use builder::{Acks, ProducerBuilder};
pub use completion::Queued;
pub use partitioner::{Partitioner, Partitioning};
pub use record::{Payload, Record};
pub use transaction::{
    GroupMetadata, Transaction, TransactionEnd, TransactionalProducer, TransactionalProducerBuilder,
};

use self::accumulator::Append;
use self::builder::Traces;
use self::sender::Shared;
use super::client::{TOPIC_CREATE_WAIT, lock};
use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};

/// Where a record was written in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: Partition,
    /// The record's offset; `-1` in the rare case that the broker recognised a retry of a batch so old that it no
    /// longer knew its offset.
    pub offset: Offset,
    /// The record's timestamp: the broker's where the topic keeps append times, the record's own otherwise.
    pub timestamp: Timestamp,
}

/// A producer. Cheap to clone; when the last clone is dropped, what is queued is still sent.
#[derive(Debug, Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    buffer_memory: usize,
    max_block: Duration,
    traces: Traces,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut machine = lock(&self.shared.accumulator);
        machine.close();
        machine.hurry(now().into_std());
        drop(machine);
        self.shared.wake.notify_one();
    }
}

/// While it lives, nothing lingers.
struct Hurry<'a>(&'a Shared);

impl<'a> Hurry<'a> {
    fn new(shared: &'a Shared) -> Self {
        lock(&shared.accumulator).hurry(now().into_std());
        shared.wake.notify_one();
        Self(shared)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        lock(&self.0.accumulator).calm();
    }
}

/// While it lives, nobody goes before those that wait for room.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        lock(&shared.accumulator).waiting += 1;
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut machine = lock(&self.0.accumulator);
        machine.waiting = machine.waiting.saturating_sub(1);
    }
}

#[allow(clippy::disallowed_methods, reason = "the moment of an enqueue")]
fn now() -> Instant {
    Instant::now()
}

impl Producer {
    /// Puts a record into the batch of its partition and returns its outcome to be awaited.
    ///
    /// It waits only for the topic's partitions the first time, and for room in the buffer. Records that one task
    /// enqueues one after the other keep their order within a partition. Cancel safe: dropped before it is done, the
    /// record is not queued.
    ///
    /// # Errors
    /// Nothing was sent after any of these.
    /// - [`ErrorKind::NotFound`]: the topic is not there and was not created within 5 s, or has no such partition.
    /// - [`ErrorKind::TooLarge`]: the record is over the maximum request size; the message names topic and sizes.
    /// - [`ErrorKind::Full`]: the buffer stayed full for `max_block`.
    /// - [`ErrorKind::Closed`]: the producer was closed.
    #[inline]
    pub fn enqueue<'a>(&'a self, record: Record<'a>) -> Enqueue<'a> {
        Enqueue(Step::New(self, record))
    }

    /// The rest of an [`enqueue`](Self::enqueue) that is not done at once.
    #[cold]
    fn wait<'a>(&'a self, record: Record<'a>, timestamp: Timestamp, first: Result<Tried>) -> Waits<'a> {
        Box::pin(async move {
            let (mut tried, mut asked) = (first, false);
            loop {
                match tried {
                    Ok(Tried::Done(queued)) => return Ok(queued),
                    Ok(Tried::Full) => return self.wait_for_room(&record, timestamp).await,
                    Ok(Tried::UnknownTopic) => self.look_up(record.topic()).await?,
                    // The topic may have grown.
                    Err(e) if e.kind() == ErrorKind::NotFound && !asked => {
                        asked = true;
                        self.look_again(record.topic()).await;
                    }
                    Err(e) => return Err(e),
                }
                tried = self.try_append(&record, timestamp, false);
            }
        })
    }

    fn try_append(&self, record: &Record<'_>, timestamp: Timestamp, in_turn: bool) -> Result<Tried> {
        let shared = &*self.handle.shared;
        let nature = &shared.client.inner.nature;
        let appended = lock(&shared.accumulator).append(
            record,
            in_turn,
            timestamp,
            || now().into_std(),
            || nature.draw(),
        )?;
        Ok(match appended {
            Append::Done { completion, index, wake } => {
                if wake {
                    shared.wake.notify_one();
                }
                Tried::Done(Queued::new(completion, index, timestamp))
            }
            Append::Full => Tried::Full,
            Append::UnknownTopic => Tried::UnknownTopic,
            Append::Closed => return Err(closed()),
        })
    }

    /// The partitions of a topic, for the first record to it.
    #[cold]
    async fn look_up(&self, topic: &Topic) -> Result<()> {
        let shared = &*self.handle.shared;
        let wait = TOPIC_CREATE_WAIT.min(self.handle.max_block);
        let known = shared.client.inner.cluster().topic(topic).map(|t| t.partitions.clone());
        let partitions = match known.filter(|p| !p.is_empty()) {
            Some(partitions) => partitions,
            None => shared.client.inner.topic(topic, shared.create_topics, wait).await?,
        };
        let leaders = partitions.iter().map(|p| p.leader);
        lock(&shared.accumulator).handle_topic(topic, leaders, now().into_std());
        Ok(())
    }

    /// The partitions of a topic, asked for anew; what was known stays where nobody answers.
    #[cold]
    async fn look_again(&self, topic: &Topic) {
        let inner = &self.handle.shared.client.inner;
        if let Err(e) = inner.refresh(std::slice::from_ref(topic), false).await {
            tracing::debug!(%topic, error = %e.report(), "the partitions could not be asked for");
        }
        let known = inner.cluster().topic(topic).map(|t| t.partitions.clone()).unwrap_or_default();
        let leaders = known.iter().map(|p| p.leader);
        lock(&self.handle.shared.accumulator).handle_topic(topic, leaders, now().into_std());
    }

    /// Those that wait do it in the order in which they came.
    #[cold]
    async fn wait_for_room(&self, record: &Record<'_>, timestamp: Timestamp) -> Result<Queued> {
        let shared = &*self.handle.shared;
        let _waiting = Waiting::new(shared);
        let waited = async {
            let _first = shared.door.lock().await;
            loop {
                match self.try_append(record, timestamp, true)? {
                    Tried::Done(queued) => return Ok(queued),
                    Tried::Full => {
                        let _hurry = Hurry::new(shared);
                        shared.room.notified().await;
                    }
                    Tried::UnknownTopic => self.look_up(record.topic()).await?,
                }
            }
        };
        match tokio::time::timeout(self.handle.max_block, waited).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(
                ErrorKind::Full,
                format!(
                    "the producer's buffer of {} bytes stayed full for {:?} (buffer_memory, max_block); the record for \
                     topic {} was not sent",
                    self.handle.buffer_memory,
                    self.handle.max_block,
                    record.topic()
                ),
            )),
        }
    }

    /// [`enqueue`](Self::enqueue), then wait until the record is acknowledged by all in-sync replicas.
    ///
    /// Dropped before it is done, the record may or may not be sent.
    ///
    /// # Errors
    /// As `enqueue`; then [`ErrorKind::Timeout`] after the delivery timeout, or what the broker refused it for.
    pub async fn send(&self, record: Record<'_>) -> Result<Placed> {
        self.enqueue(record).await?.await
    }

    /// Sends everything that is queued, without lingering, and waits for its outcome: at most the delivery timeout.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The first failure; each record's [`Queued`] tells its own.
    pub async fn flush(&self) -> Result<()> {
        let shared = &*self.handle.shared;
        let _hurry = Hurry::new(shared);
        let pending = lock(&shared.accumulator).pending();
        let mut first = Ok(());
        for completion in pending {
            first = first.and(completion.settled().await);
        }
        first
    }

    /// Takes no more records, sends what is queued, and ends the sending task. All clones are closed with it.
    ///
    /// Cancel safe: dropped, the producer goes on closing without a deadline. A second call waits for the first.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] where records were left at the deadline; they resolve with [`ErrorKind::Closed`],
    /// ambiguous where they may be written. Failures of records before that are told by their [`Queued`] alone.
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        let shared = &*self.handle.shared;
        lock(&shared.accumulator).close();
        let hurry = Hurry::new(shared);
        if tokio::time::timeout(deadline, self.ended()).await.is_ok() {
            return Ok(());
        }
        let left = lock(&shared.accumulator).unresolved();
        shared.abort.store(true, Ordering::Release);
        shared.wake.notify_one();
        drop(hurry);
        self.ended().await;
        Err(Error::new(
            ErrorKind::Timeout,
            format!("the producer was closed with {left} batches not acknowledged after {deadline:?}"),
        ))
    }

    async fn ended(&self) {
        let shared = &*self.handle.shared;
        loop {
            let end = shared.end.notified();
            tokio::pin!(end);
            end.as_mut().enable();
            if shared.ended.load(Ordering::Acquire) {
                return;
            }
            end.await;
        }
    }
}

/// A record on its way into its batch; returned by [`Producer::enqueue`].
#[must_use = "a record is not queued before this is awaited"]
pub struct Enqueue<'a>(Step<'a>);

type Waits<'a> = Pin<Box<dyn Future<Output = Result<Queued>> + Send + 'a>>;

enum Step<'a> {
    New(&'a Producer, Record<'a>),
    Waits(Waits<'a>),
    Over,
}

impl Future for Enqueue<'_> {
    type Output = Result<Queued>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let step = &mut self.get_mut().0;
        if let Step::New(producer, record) = step {
            let handle = &*producer.handle;
            handle.traces.stamp(record);
            let timestamp = record.timestamp.unwrap_or_else(|| handle.shared.client.inner.nature.wall());
            // The usual record is done here: nothing of it moves, and nothing is allocated.
            match producer.try_append(record, timestamp, false) {
                Ok(Tried::Done(queued)) => {
                    *step = Step::Over;
                    return Poll::Ready(Ok(queued));
                }
                tried => {
                    if let Step::New(producer, record) = std::mem::replace(step, Step::Over) {
                        *step = Step::Waits(producer.wait(record, timestamp, tried));
                    }
                }
            }
        }
        match step {
            Step::Waits(waits) => waits.as_mut().poll(cx),
            _ => Poll::Pending,
        }
    }
}

impl fmt::Debug for Enqueue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enqueue").finish_non_exhaustive()
    }
}

/// What came of putting a record into its batch.
enum Tried {
    Done(Queued),
    Full,
    UnknownTopic,
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the Kafka producer was closed")
}
