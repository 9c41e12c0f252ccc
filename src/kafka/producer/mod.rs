//! The producer: idempotent, acknowledged by all in-sync replicas, batched.
//!
//! ```text
//! enqueue --memory--> accumulator (pure: batches per partition) <--> sender (one task) <--> brokers
//!    |                     partitioner, sequence: pure
//!    +--> Queued  <------- completion: one per batch
//! ```
//!
//! A record that resolves `Ok` is on all in-sync replicas. Retries carry the batch's sequence numbers, so nothing is
//! written twice by this producer, and order holds within a partition. An error says by
//! [`is_ambiguous`](Error::is_ambiguous) whether the record may be written all the same.

mod accumulator;
mod completion;
mod partitioner;
mod record;
mod sender;
mod sequence;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub use completion::Queued;
pub use partitioner::{Partitioner, Partitioning};
pub use record::Record;

use self::accumulator::{Accumulator, Settings};
use self::sender::Shared;
use super::client::{Client, LONGEST, TOPIC_CREATE_WAIT, lock};
use crate::codec::compression::Compression;
use crate::codec::record_batch::BatchBuilder;
use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};

/// Where a record was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// The record's offset; `-1` in the rare case that the broker recognised a retry of a batch so old that it no
    /// longer knew its offset.
    pub offset: Offset,
    /// The record's timestamp: the broker's where the topic keeps append times, the record's own otherwise.
    pub timestamp: Timestamp,
}

/// The settings of a [`Producer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ProducerBuilder {
    client: Client,
    linger: Duration,
    batch_size: usize,
    max_request_size: usize,
    buffer_memory: usize,
    max_block: Duration,
    compression: Compression,
    level: Option<i32>,
    delivery_timeout: Duration,
    create_topics: bool,
    partitioning: Partitioning,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            linger: Duration::from_millis(5),
            batch_size: 128 << 10,
            max_request_size: 1 << 20,
            buffer_memory: 32 << 20,
            max_block: Duration::from_secs(60),
            compression: Compression::None,
            level: None,
            delivery_timeout: Duration::from_secs(120),
            create_topics: true,
            partitioning: Partitioning::default(),
        }
    }

    /// How long a batch waits for more records before it leaves. Default 5 ms; 0 sends at once. A batch that is full,
    /// a [`flush`](Producer::flush) and a full buffer do not wait.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// The size of a batch in bytes before compression. Default 128 KiB, from 1 KiB to the maximum request size. A
    /// larger record has a batch of its own. Keep it below the topic's `max.message.bytes`: a batch that the broker finds
    /// too large fails with all its records, it is not split.
    pub fn batch_size(mut self, bytes: usize) -> Self {
        self.batch_size = bytes;
        self
    }

    /// The largest record, and the largest sum of batches in one request, in bytes before compression. Default 1 MiB,
    /// as the broker's `max.message.bytes`.
    pub fn max_request_size(mut self, bytes: usize) -> Self {
        self.max_request_size = bytes;
        self
    }

    /// All records that are not acknowledged, in bytes. Default 32 MiB, at least the maximum request size. Memory: at
    /// worst twice this, as buffers grow by doubling, and a third time while everything is compressed at once.
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.buffer_memory = bytes;
        self
    }

    /// How long [`enqueue`](Producer::enqueue) waits for room in the buffer. Default 60 s.
    pub fn max_block(mut self, wait: Duration) -> Self {
        self.max_block = wait;
        self
    }

    /// The codec of the batches. Default none.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The codec's level. Default the codec's own.
    pub fn compression_level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }

    /// From the first record of a batch to its outcome, retries included. Default 120 s. Within this time a record is
    /// sent again after every error that may pass.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Whether asking for a topic may create it, where the broker allows that too (`auto.create.topics.enable`).
    /// Default `true`, as in the Java client.
    pub fn allow_auto_create(mut self, allow: bool) -> Self {
        self.create_topics = allow;
        self
    }

    /// How the partition of a record is chosen that names none: a [`Partitioning`], or a rule of one's own (a
    /// [`Partitioner`], a closure). Default [`Partitioning::Adaptive`], as in the Java client.
    pub fn partitioner(mut self, partitioning: impl Into<Partitioning>) -> Self {
        self.partitioning = partitioning.into();
        self
    }

    /// Checks the settings, asks the broker for a producer id and starts the sending task on the current runtime.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] names the setting and its range; [`ErrorKind::Unsupported`] for a codec whose feature is
    /// off; [`ErrorKind::Denied`]; no broker answers within the request timeout.
    pub async fn build(self) -> Result<Producer> {
        let range = |name: &str, n: usize, min: usize, max: usize| {
            if (min..=max).contains(&n) {
                return Ok(());
            }
            let text = format!("{name} is {n} bytes; it must be from {min} to {max}");
            Err(Error::new(ErrorKind::Config, text))
        };
        range("max_request_size", self.max_request_size, 1 << 10, 1 << 30)?;
        range("batch_size", self.batch_size, 1 << 10, self.max_request_size)?;
        range("buffer_memory", self.buffer_memory, self.max_request_size, u32::MAX as usize)?;
        if self.delivery_timeout <= self.linger {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "delivery_timeout ({:?}) must be longer than linger ({:?})",
                    self.delivery_timeout, self.linger
                ),
            ));
        }
        self.compression.check(self.level)?;
        let (id, epoch) = sender::init_producer_id(&self.client).await?;
        let settings = Settings {
            linger: self.linger.min(LONGEST),
            batch_size: self.batch_size,
            max_request_size: self.max_request_size,
            compression: self.compression,
            level: self.level,
            delivery_timeout: self.delivery_timeout.min(LONGEST),
            partitioning: self.partitioning,
        };
        let shared = Arc::new(Shared {
            client: self.client,
            accumulator: Mutex::new(Accumulator::new(settings, id, epoch)),
            memory: Semaphore::new(self.buffer_memory),
            wake: Notify::new(),
            closing: false.into(),
            abort: false.into(),
            ended: false.into(),
            end: Notify::new(),
            create_topics: self.create_topics,
        });
        spawn(Arc::clone(&shared));
        Ok(Producer {
            handle: Arc::new(Handle {
                shared,
                buffer_memory: self.buffer_memory,
                max_block: self.max_block,
                max_request_size: self.max_request_size,
            }),
        })
    }
}

#[allow(clippy::disallowed_methods, reason = "the sending task")]
fn spawn(shared: Arc<Shared>) {
    tokio::spawn(sender::run(shared));
}

#[allow(clippy::disallowed_methods, reason = "the moment of an enqueue")]
fn now() -> Instant {
    Instant::now()
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
    max_request_size: usize,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        lock(&self.shared.accumulator).hurry();
        self.shared.wake.notify_one();
    }
}

/// While it lives, nothing lingers.
struct Hurry<'a>(&'a Shared);

impl<'a> Hurry<'a> {
    fn new(shared: &'a Shared) -> Self {
        lock(&shared.accumulator).hurry();
        shared.wake.notify_one();
        Self(shared)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        lock(&self.0.accumulator).calm();
    }
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
    pub async fn enqueue(&self, record: Record) -> Result<Queued> {
        let shared = &*self.handle.shared;
        self.check_open()?;
        let known = shared.client.inner.cluster().partition_count(&record.topic);
        let partitions = match known {
            Some(n) => n,
            None => {
                let wait = TOPIC_CREATE_WAIT.min(self.handle.max_block);
                shared.client.inner.topic(&record.topic, shared.create_topics, wait).await?.len()
            }
        };
        let reserved = BatchBuilder::upper_bound(
            record.key.as_deref(),
            record.value.as_deref(),
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())),
        );
        // The bound may be above the exact size by less than a header; what is near the limit is judged exactly.
        if reserved > self.handle.max_request_size.saturating_add(64) {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "record for topic {} takes about {reserved} bytes; the limit is {} (max_request_size)",
                    record.topic, self.handle.max_request_size
                ),
            ));
        }
        let permits = u32::try_from(reserved.min(self.handle.buffer_memory)).unwrap_or(u32::MAX);
        let permit = match shared.memory.try_acquire_many(permits) {
            Ok(permit) => permit,
            Err(tokio::sync::TryAcquireError::Closed) => return Err(closed()),
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                let _hurry = Hurry::new(shared);
                match tokio::time::timeout(self.handle.max_block, shared.memory.acquire_many(permits)).await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) => return Err(closed()),
                    Err(_) => {
                        return Err(Error::new(
                            ErrorKind::Full,
                            format!(
                                "the producer's buffer of {} bytes stayed full for {:?} (buffer_memory, max_block)",
                                self.handle.buffer_memory, self.handle.max_block
                            ),
                        ));
                    }
                }
            }
        };
        let now = now();
        let nature = &shared.client.inner.nature;
        let timestamp = record.timestamp.unwrap_or_else(|| nature.wall());
        let appended = {
            let mut accumulator = lock(&shared.accumulator);
            // Under the lock: a record that enters after the driver's last look would never leave.
            self.check_open()?;
            accumulator
                .append(&record, partitions, permits as usize, timestamp, now.into_std(), || nature.draw())?
        };
        // The accumulator gives it back with the batch's outcome.
        permit.forget();
        if appended.wake {
            shared.wake.notify_one();
        }
        Ok(Queued { completion: appended.completion, index: appended.index, timestamp })
    }

    /// [`enqueue`](Self::enqueue), then wait until the record is acknowledged by all in-sync replicas.
    ///
    /// Dropped before it is done, the record may or may not be sent.
    ///
    /// # Errors
    /// As `enqueue`; then [`ErrorKind::Timeout`] after the delivery timeout, or what the broker refused it for.
    pub async fn send(&self, record: Record) -> Result<Placed> {
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
            if let Err(e) = completion.wait().await {
                first = first.and(Err(e));
            }
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
        shared.closing.store(true, Ordering::Release);
        let hurry = Hurry::new(shared);
        if tokio::time::timeout(deadline, self.ended()).await.is_ok() {
            return Ok(());
        }
        let left = lock(&shared.accumulator).pending().len();
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

    fn check_open(&self) -> Result<()> {
        if self.handle.shared.closing.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the Kafka producer was closed")
}
