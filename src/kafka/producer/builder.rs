//! The settings of a producer, and their checks.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::accumulator::{Accumulator, Settings};
use super::sender::{self, Shared};
use super::transaction::{TransactionalProducerBuilder, Transactions};
use super::watch::Watch;
use super::{Handle, Partitioning, Producer, Record};
use crate::codec::compression::Compression;
use crate::kafka::client::{Client, LONGEST};
use crate::observe::{Metrics, Sink, TraceParent};
use crate::{Error, ErrorKind, ProducerEpoch, ProducerId, Result};

/// Which replicas have a record before the broker acknowledges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Acks {
    /// All that are in sync, at least `min.insync.replicas` of the topic. The default.
    #[default]
    All,
    /// The leader alone: a record that it acknowledged is lost if it dies before the others have it. Only without
    /// [`idempotence`](ProducerBuilder::idempotence).
    Leader,
}

impl FromStr for Acks {
    type Err = Error;

    /// `all` or `-1`; `1`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for anything else, also for `0`: without an acknowledgement no outcome could be told.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" | "-1" => Ok(Self::All),
            "1" => Ok(Self::Leader),
            "0" => Err(Error::new(
                ErrorKind::Config,
                "acks is 0; every record has an outcome here, so it must be all (-1) or 1",
            )),
            _ => Err(Error::new(ErrorKind::Config, format!("acks is {text:?}; it must be all (-1) or 1"))),
        }
    }
}

impl fmt::Display for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Leader => "1",
        })
    }
}

/// Tells which trace the caller is in.
#[derive(Clone, Default)]
pub(super) struct Traces(Option<Arc<dyn Fn() -> Option<TraceParent> + Send + Sync>>);

impl Traces {
    /// Adds the header, where it is asked for and not there.
    #[inline]
    pub(super) fn stamp(&self, record: &mut Record<'_>) {
        if let Some(current) = &self.0
            && !record.headers.iter().any(|(name, _)| name == TraceParent::HEADER)
            && let Some(parent) = current()
        {
            record.headers.push((TraceParent::HEADER.to_owned(), Some(parent.to_string().into())));
        }
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "given" } else { "none" })
    }
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
    retry_backoff: (Duration, Duration),
    acks: Acks,
    idempotence: bool,
    max_in_flight: usize,
    create_topics: bool,
    partitioning: Partitioning,
    metrics: Sink,
    traces: Traces,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            linger: Duration::from_millis(5),
            batch_size: 128 << 10,
            max_request_size: 1 << 20,
            buffer_memory: 8 << 20,
            max_block: Duration::from_secs(60),
            compression: Compression::None,
            level: None,
            delivery_timeout: Duration::from_secs(120),
            retry_backoff: (Duration::from_millis(100), Duration::from_secs(1)),
            acks: Acks::All,
            idempotence: true,
            max_in_flight: 5,
            create_topics: true,
            partitioning: Partitioning::default(),
            metrics: Sink::default(),
            traces: Traces::default(),
        }
    }

    /// How long a batch waits for more records while its broker has others to answer. Default 5 ms; 0 sends at once.
    ///
    /// Where nothing is in flight to the broker, nothing waits: a record that is awaited by itself leaves at once, and
    /// under load the batches fill while the ones before are away. A batch that is full, a [`flush`](Producer::flush) and
    /// a full buffer do not wait either.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// The size of a batch in bytes before compression. Default 128 KiB, from 1 KiB to the maximum request size. A
    /// larger record has a batch of its own. A batch that the broker finds too large (`max.message.bytes` of the topic) is
    /// sent again in halves, and the topic's next ones are made smaller.
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

    /// All records that are not acknowledged, in bytes. Default 8 MiB (67 ms of a gigabit link), at least the maximum
    /// request size; more helps where brokers are far away, or where batches of hundreds of partitions are to be full.
    ///
    /// Memory: buffers that wait to be used again count with the records. At worst twice this, as buffers have few
    /// sizes, and with compression once more where everything is compressed at once. It is kept until the producer is
    /// dropped.
    pub fn buffer_memory(mut self, bytes: usize) -> Self {
        self.buffer_memory = bytes;
        self
    }

    /// How long [`enqueue`](Producer::enqueue) waits for room in the buffer, and at most 5 s of it for a topic that is new to
    /// it and the request that asks for it. Default 60 s.
    pub fn max_block(mut self, wait: Duration) -> Self {
        self.max_block = wait;
        self
    }

    /// The codec of the batches. Default none. Batches of 16 KiB and more are compressed on the runtime's threads for
    /// blocking work.
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

    /// The pause before a batch is sent a second time, and the longest one: it doubles with each attempt, a fifth more or
    /// less by chance (KIP-580). Default 100 ms and 1 s, as in the Java client.
    pub fn retry_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.retry_backoff = (first, longest);
        self
    }

    /// Which replicas have a record before it counts as written. Default all.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// Whether the broker recognises a batch that is sent again (KIP-98). Default `true`. Without it a retry may write
    /// records twice, and one batch of a partition is in flight at a time, so that order holds.
    pub fn idempotence(mut self, idempotence: bool) -> Self {
        self.idempotence = idempotence;
        self
    }

    /// Batches of one partition that are on their way at the same time. Default 5, from 1 to 5: a broker remembers so
    /// many. Order holds with any.
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.max_in_flight = batches;
        self
    }

    /// Whether asking for a topic may create it, where the broker allows that too (`auto.create.topics.enable`).
    /// Default `true`, as in the Java client.
    pub fn allow_auto_create(mut self, allow: bool) -> Self {
        self.create_topics = allow;
        self
    }

    /// How the partition of a record is chosen that names none: a [`Partitioning`], or a rule of one's own (a
    /// [`Partitioner`](super::Partitioner), a closure). Default [`Partitioning::Adaptive`], as in the Java client.
    pub fn partitioner(mut self, partitioning: impl Into<Partitioning>) -> Self {
        self.partitioning = partitioning.into();
        self
    }

    /// Where the producer's figures go; their names stand in [`observe`](crate::observe). Default: nowhere.
    pub fn metrics(mut self, metrics: impl Metrics) -> Self {
        self.metrics = Sink::new(metrics);
        self
    }

    /// Gives every record the trace that it belongs to, as the header `traceparent` (W3C Trace Context): `current` is
    /// asked at each [`enqueue`](Producer::enqueue) of a record that has no such header, and answers with the context of
    /// the tracing library in use, or `None` outside of a trace. Default: no header.
    pub fn traceparent(mut self, current: impl Fn() -> Option<TraceParent> + Send + Sync + 'static) -> Self {
        self.traces = Traces(Some(Arc::new(current)));
        self
    }

    /// Checks the settings, asks the broker for a producer id and starts the sending task on the current runtime.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] names the setting and its range, or the two that contradict each other;
    /// [`ErrorKind::Unsupported`] for a codec whose feature is off; [`ErrorKind::Denied`]; no broker answers within the
    /// request timeout.
    pub async fn build(self) -> Result<Producer> {
        self.check()?;
        let (id, epoch) = if self.idempotence {
            sender::init_producer_id(&self.client).await?
        } else {
            (ProducerId::NONE, ProducerEpoch::NONE)
        };
        Ok(self.start(id, epoch, None))
    }

    /// A producer of transactions with this transactional id and these settings.
    pub fn transactional(self, id: impl Into<String>) -> TransactionalProducerBuilder {
        TransactionalProducerBuilder::new(self, id.into())
    }

    /// How long a caller waits for room, and for the coordinator of transactions.
    pub(super) fn longest_block(&self) -> Duration {
        self.max_block.min(LONGEST)
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.idempotence
    }

    pub(super) fn check(&self) -> Result<()> {
        let config = |text: String| Err(Error::new(ErrorKind::Config, text));
        let range = |name: &str, unit: &str, n: usize, min: usize, max: usize| {
            if (min..=max).contains(&n) {
                return Ok(());
            }
            let text = format!("{name} is {n}{unit}; it must be from {min} to {max}");
            Err(Error::new(ErrorKind::Config, text))
        };
        range("max_request_size", " bytes", self.max_request_size, 1 << 10, 1 << 30)?;
        range("batch_size", " bytes", self.batch_size, 1 << 10, self.max_request_size)?;
        range("buffer_memory", " bytes", self.buffer_memory, self.max_request_size, u32::MAX as usize)?;
        range("max_in_flight", "", self.max_in_flight, 1, 5)?;
        if self.delivery_timeout <= self.linger {
            return config(format!(
                "delivery_timeout ({:?}) must be longer than linger ({:?})",
                self.delivery_timeout, self.linger
            ));
        }
        let (first, longest) = self.retry_backoff;
        if first > longest {
            return config(format!(
                "retry_backoff begins with {first:?}, above its longest pause of {longest:?}"
            ));
        }
        if self.idempotence && self.acks != Acks::All {
            return config(format!(
                "acks is {} and idempotence is on; idempotence needs acks=all: set acks to all, or idempotence to false",
                self.acks
            ));
        }
        self.compression.check(self.level)
    }

    /// Starts the sending task; the settings were checked.
    pub(super) fn start(
        self,
        id: ProducerId,
        epoch: ProducerEpoch,
        transaction: Option<Arc<Transactions>>,
    ) -> Producer {
        let settings = Settings {
            linger: self.linger.min(LONGEST),
            batch_size: self.batch_size,
            max_request_size: self.max_request_size,
            buffer_memory: self.buffer_memory,
            compression: self.compression,
            level: self.level,
            delivery_timeout: self.delivery_timeout.min(LONGEST),
            retry_backoff: (self.retry_backoff.0.min(LONGEST), self.retry_backoff.1.min(LONGEST)),
            partitioning: self.partitioning,
            max_in_flight: self.max_in_flight,
            idempotent: self.idempotence,
            transactional: transaction.is_some(),
        };
        let shared = Arc::new(Shared {
            client: self.client,
            accumulator: Mutex::new(Accumulator::new(settings, id, epoch)),
            door: tokio::sync::Mutex::default(),
            room: Notify::new(),
            wake: Notify::new(),
            abort: false.into(),
            ended: false.into(),
            end: Notify::new(),
            create_topics: self.create_topics,
            acks: if self.acks == Acks::All { -1 } else { 1 },
            watch: Watch { sink: self.metrics, batch_size: self.batch_size },
            transaction,
        });
        spawn(Arc::clone(&shared));
        let handle = Handle {
            shared,
            buffer_memory: self.buffer_memory,
            max_block: self.max_block.min(LONGEST),
            traces: self.traces,
        };
        Producer { handle: Arc::new(handle) }
    }
}

#[allow(clippy::disallowed_methods, reason = "the sending task")]
fn spawn(shared: Arc<Shared>) {
    tokio::spawn(sender::run(shared));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_are_read_in_the_spellings_of_other_clients() {
        assert_eq!("all".parse::<Acks>().unwrap(), Acks::All);
        assert_eq!("-1".parse::<Acks>().unwrap(), Acks::All);
        assert_eq!("1".parse::<Acks>().unwrap(), Acks::Leader);
        for (text, word) in [("0", "outcome"), ("2", "\"2\"")] {
            let e = text.parse::<Acks>().unwrap_err();
            assert!(e.to_string().contains(word) && e.kind() == ErrorKind::Config, "{e}");
        }
    }
}
