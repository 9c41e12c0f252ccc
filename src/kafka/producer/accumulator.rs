//! Records wait here until they leave, and batches until they are acknowledged. Pure.
//!
//! ```text
//!             append                full, linger over,          poll_sendings
//!   record ----------> open batch -- flush or pressure --> ready ------------> in flight (one per partition)
//!                                                            ^                    |
//!                                                            +-- retry, backoff --+--> written
//!                                                            |                    +--> refused
//!                                                            +--> expired (delivery timeout)
//! ```
//!
//! One batch of a partition is in flight at a time: order holds through every retry without further thought, and
//! what became of a batch decides the sequence numbers of the next (see [`sequence`](super::sequence)). While it is
//! away, the next batch fills.
//!
//! Order of calls: [`append`](Accumulator::append) at any time; the driver loops over
//! [`poll_expired`](Accumulator::poll_expired), [`poll_sendings`](Accumulator::poll_sendings), and sleeps until
//! [`poll_timeout`](Accumulator::poll_timeout), an append, or an answer for [`handle_answer`](Accumulator::handle_answer).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::completion::{Completion, Promise, Written};
use super::partitioner::{Facts, Partitioning, TopicPartitioner};
use super::record::Record;
use super::sequence::{Sequences, Stamp};
use crate::codec::compression::Compression;
use crate::codec::record_batch::{BatchBuilder, BatchOptions, restamp};
use crate::kafka::errors;
use crate::{Error, ErrorKind, NodeId, Partition, ProducerEpoch, ProducerId, Result, Timestamp, Topic};

/// Answer codes with a meaning of their own here.
mod code {
    pub(super) const UNKNOWN_SERVER_ERROR: i16 = -1;
    pub(super) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub(super) const NOT_LEADER: i16 = 6;
    pub(super) const REQUEST_TIMED_OUT: i16 = 7;
    pub(super) const MESSAGE_TOO_LARGE: i16 = 10;
    pub(super) const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    pub(super) const OUT_OF_ORDER_SEQUENCE: i16 = 45;
    pub(super) const DUPLICATE_SEQUENCE: i16 = 46;
    pub(super) const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub(super) const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
    pub(super) const STORAGE_ERROR: i16 = 56;
    pub(super) const UNKNOWN_PRODUCER_ID: i16 = 59;
}

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Builders kept for their buffers.
const SPARE_BUILDERS: usize = 16;

/// What the machine needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) linger: Duration,
    pub(crate) batch_size: usize,
    pub(crate) max_request_size: usize,
    pub(crate) compression: Compression,
    pub(crate) level: Option<i32>,
    pub(crate) delivery_timeout: Duration,
    pub(crate) partitioning: Partitioning,
}

/// A batch, from its first record to its outcome.
#[derive(Debug)]
struct Batch {
    /// Empty again once the batch is sealed; kept to be used for another.
    builder: BatchBuilder,
    /// The bytes on the wire and what they are stamped with.
    sealed: Option<(Bytes, Stamp)>,
    records: u32,
    /// Uncompressed size on the wire.
    size: usize,
    /// Bytes of the buffer that are free again once it is resolved.
    reserved: usize,
    created: Instant,
    deadline: Instant,
    stamp: Option<Stamp>,
    attempts: u32,
    /// Whether an attempt that is over may have been written.
    unsure: bool,
    promise: Promise,
    last_error: Option<Error>,
}

impl Batch {
    /// Its index in the batch, or `None` where the batch is full.
    fn push<'h>(
        &mut self,
        timestamp: Timestamp,
        record: &Record,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
        reserved: usize,
    ) -> Result<Option<u32>> {
        match self.builder.push(timestamp, record.key.as_deref(), record.value.as_deref(), headers) {
            Ok(()) => {
                let index = self.records;
                self.records += 1;
                self.reserved = self.reserved.saturating_add(reserved);
                self.size = self.builder.size();
                Ok(Some(index))
            }
            Err(e) if matches!(e.kind(), ErrorKind::Full | ErrorKind::TooLarge) => Ok(None),
            Err(e) => Err(e.context(format!("record for topic {}", record.topic))),
        }
    }

    fn resolve(self, outcome: Result<Written>) -> Resolved {
        Resolved { reserved: self.reserved, promise: self.promise, outcome }
    }
}

/// A batch on its way, in the hands of the driver.
#[derive(Debug)]
pub(crate) struct Sending {
    queue: usize,
    pub(crate) topic: Topic,
    pub(crate) partition: Partition,
    batch: Batch,
}

impl Sending {
    /// The bytes to send: closes the batch the first time (compression, checksum), and gives the same ones again
    /// after that, unless it was stamped anew.
    pub(crate) fn seal(&mut self) -> Result<Bytes> {
        let batch = &mut self.batch;
        let stamp = batch.stamp.ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("a batch of topic {} has no sequence", self.topic))
        })?;
        let bytes = match batch.sealed.take() {
            Some((bytes, with)) if with == stamp => bytes,
            Some((bytes, _)) => restamp(bytes, stamp.id, stamp.epoch, stamp.base)?,
            None => {
                batch.builder.set_producer(stamp.id, stamp.epoch, stamp.base);
                batch.builder.finish()?
            }
        };
        batch.sealed = Some((bytes.clone(), stamp));
        Ok(bytes)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.batch.deadline
    }

    /// Takes note that the request is about to leave: from here on, not knowing is possible.
    pub(crate) fn leaving(&mut self) {
        self.batch.promise.unsure = true;
    }
}

/// What came of a sending.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The broker's code, 0 for none, and where the batch was written.
    Broker { code: i16, written: Written, message: Option<String> },
    /// No answer. Ambiguous in the error means that the batch may have been written.
    Failed(Error),
}

/// A batch that has its outcome: release `reserved`, then tell.
#[derive(Debug)]
#[must_use]
pub(crate) struct Resolved {
    pub(crate) reserved: usize,
    promise: Promise,
    outcome: Result<Written>,
}

impl Resolved {
    pub(crate) fn tell(self) {
        self.promise.resolve(self.outcome);
    }
}

/// What [`Accumulator::append`] did.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) completion: Arc<Completion>,
    pub(crate) index: u32,
    /// Whether the driver has something new to look at: a batch that is full, or the first record of one.
    pub(crate) wake: bool,
}

#[derive(Debug)]
struct Queue {
    topic: Topic,
    partition: Partition,
    sequences: Sequences,
    ready: VecDeque<Batch>,
    open: Option<Batch>,
    in_flight: Option<Arc<Completion>>,
    not_before: Option<Instant>,
}

#[derive(Debug, Default)]
struct TopicState {
    partitioner: TopicPartitioner,
    queues: Vec<Option<usize>>,
}

/// What leaves now.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// One request for each broker.
    pub(crate) requests: Vec<(NodeId, Vec<Sending>)>,
    /// Topics with batches that are ready but have no leader.
    pub(crate) leaderless: Vec<Topic>,
}

/// The producer's records.
#[derive(Debug)]
pub(crate) struct Accumulator {
    settings: Settings,
    id: ProducerId,
    epoch: ProducerEpoch,
    topics: HashMap<Topic, TopicState>,
    queues: Vec<Queue>,
    /// Where the next request begins to collect, so that no partition starves.
    turn: usize,
    /// How many want everything to leave at once.
    hurried: usize,
    spare: Vec<BatchBuilder>,
}

impl Accumulator {
    pub(crate) fn new(settings: Settings, id: ProducerId, epoch: ProducerEpoch) -> Self {
        Self {
            settings,
            id,
            epoch,
            topics: HashMap::new(),
            queues: Vec::new(),
            turn: 0,
            hurried: 0,
            spare: Vec::new(),
        }
    }

    /// Another producer id, after [`needs_identity`](Self::needs_identity).
    pub(crate) fn handle_identity(&mut self, id: ProducerId, epoch: ProducerEpoch) {
        (self.id, self.epoch) = (id, epoch);
        for queue in self.queues.iter_mut().filter(|q| q.sequences.is_exhausted()) {
            queue.sequences = Sequences::new(id, epoch);
        }
    }

    /// Whether a partition has used up the epochs of its producer id.
    pub(crate) fn needs_identity(&self) -> bool {
        self.queues.iter().any(|q| q.sequences.is_exhausted())
    }

    /// Everything leaves without lingering while more are hurried than not.
    pub(crate) fn hurry(&mut self) {
        self.hurried += 1;
    }

    /// Ends one [`hurry`](Self::hurry).
    pub(crate) fn calm(&mut self) {
        self.hurried = self.hurried.saturating_sub(1);
    }

    /// Puts a record into the batch of its partition. `reserved` bytes of the buffer are its own until then.
    ///
    /// # Errors
    /// `NotFound` for a partition that the topic does not have, `TooLarge` for a record over the limit. Nothing changed.
    pub(crate) fn append(
        &mut self,
        record: &Record,
        partitions: usize,
        reserved: usize,
        timestamp: Timestamp,
        now: Instant,
        draw: impl FnOnce() -> u64,
    ) -> Result<Appended> {
        let topic = self.topics.entry(record.topic.clone()).or_default();
        let partition = match (record.partition, &record.key) {
            (Some(p), _) => match usize::try_from(p.0) {
                Ok(n) if n < partitions => n,
                _ => {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!(
                            "topic {} has no partition {p}; it has {partitions} partitions, from 0",
                            record.topic
                        ),
                    ));
                }
            },
            (None, key) => {
                let facts = Facts {
                    topic: &record.topic,
                    key: key.as_deref(),
                    value: record.value.as_deref(),
                    partitions,
                };
                let (slots, queues) = (&topic.queues, &self.queues);
                let queued = |partition: usize| {
                    let queue = slots.get(partition).copied().flatten().and_then(|at| queues.get(at));
                    Some(queue.map_or(0, |q| (q.ready.len() + usize::from(q.in_flight.is_some())) as u32))
                };
                topic.partitioner.partition(&self.settings.partitioning, facts, queued, draw)?
            }
        };
        if topic.queues.len() <= partition {
            topic.queues.resize(partitions.max(partition + 1), None);
        }
        let Some(slot) = topic.queues.get_mut(partition) else {
            return Err(Error::new(ErrorKind::Internal, "a partition without a queue"));
        };
        let index = match *slot {
            Some(index) => index,
            None => {
                self.queues.push(Queue {
                    topic: record.topic.clone(),
                    partition: Partition(partition as i32),
                    sequences: Sequences::new(self.id, self.epoch),
                    ready: VecDeque::new(),
                    open: None,
                    in_flight: None,
                    not_before: None,
                });
                *slot.insert(self.queues.len() - 1)
            }
        };
        let Some(queue) = self.queues.get_mut(index) else {
            return Err(Error::new(ErrorKind::Internal, "a queue that is not there"));
        };
        let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        if let Some(batch) = &mut queue.open {
            if let Some(at) = batch.push(timestamp, record, headers.clone(), reserved)? {
                let completion = Arc::clone(batch.promise.completion());
                return Ok(Appended { completion, index: at, wake: self.hurried > 0 });
            }
            queue.ready.extend(queue.open.take());
            topic.partitioner.handle_closed(partition, self.settings.batch_size);
        }
        // A record over the batch size has a batch of its own.
        let max_bytes = self.settings.batch_size.max(reserved).min(self.settings.max_request_size);
        let spare = self.spare.pop().filter(|b| b.options().max_bytes == max_bytes);
        let builder = spare.unwrap_or_else(|| {
            BatchBuilder::new(BatchOptions {
                compression: self.settings.compression,
                level: self.settings.level,
                max_bytes,
                ..BatchOptions::default()
            })
        });
        let mut batch = Batch {
            builder,
            sealed: None,
            records: 0,
            size: 0,
            reserved: 0,
            created: now,
            deadline: now + self.settings.delivery_timeout,
            stamp: None,
            attempts: 0,
            unsure: false,
            promise: Promise::new(queue.topic.clone(), queue.partition),
            last_error: None,
        };
        let Some(index) = batch.push(timestamp, record, headers, reserved)? else {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "record for topic {} takes about {reserved} bytes; the limit is {} (max_request_size)",
                    record.topic, self.settings.max_request_size
                ),
            ));
        };
        let completion = Arc::clone(batch.promise.completion());
        queue.open = Some(batch);
        // The driver wakes for the first record of a batch: its linger begins, and the batch before it is full.
        Ok(Appended { completion, index, wake: true })
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.queues.iter().all(|q| q.open.is_none() && q.ready.is_empty() && q.in_flight.is_none())
    }

    /// The outcomes that everything queued so far waits for.
    pub(crate) fn pending(&self) -> Vec<Arc<Completion>> {
        let mut all = Vec::new();
        for q in &self.queues {
            all.extend(q.in_flight.iter().map(Arc::clone));
            all.extend(q.ready.iter().chain(&q.open).map(|b| Arc::clone(b.promise.completion())));
        }
        all
    }

    /// The topics that have records here.
    pub(crate) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<Topic> = self.topics.keys().cloned().collect();
        topics.sort();
        topics
    }

    /// What leaves now: of each partition at most one batch, to its leader; a broker for which `free` is false gets
    /// nothing this time.
    pub(crate) fn poll_sendings(
        &mut self,
        now: Instant,
        leader: impl Fn(&Topic, Partition) -> Option<NodeId>,
        free: impl Fn(NodeId) -> bool,
    ) -> Plan {
        let mut plan = Plan::default();
        let mut sizes: HashMap<NodeId, usize> = HashMap::new();
        let count = self.queues.len();
        self.turn = (self.turn + 1).checked_rem(count).unwrap_or(0);
        for step in 0..count {
            let index = (self.turn + step) % count;
            let Some(queue) = self.queues.get_mut(index) else { continue };
            let due = queue.due(now, self.settings.linger, self.hurried > 0);
            if queue.in_flight.is_some() || due.is_none_or(|at| at > now) || queue.sequences.is_exhausted() {
                continue;
            }
            let Some(node) = leader(&queue.topic, queue.partition) else {
                if !plan.leaderless.contains(&queue.topic) {
                    plan.leaderless.push(queue.topic.clone());
                }
                continue;
            };
            if !free(node) {
                continue;
            }
            let size = queue.ready.front().or(queue.open.as_ref()).map_or(0, |b| b.size);
            let sum = sizes.entry(node).or_default();
            if *sum > 0 && *sum + size > self.settings.max_request_size {
                continue;
            }
            let Some(mut batch) = queue.ready.pop_front().or_else(|| queue.open.take()) else { continue };
            if let (None, Some(topic)) = (&batch.stamp, self.topics.get_mut(&queue.topic)) {
                let partition = usize::try_from(queue.partition.0).unwrap_or(0);
                topic.partitioner.handle_closed(partition, self.settings.batch_size);
            }
            if batch.stamp.is_none() {
                batch.stamp = queue.sequences.assign(batch.records);
            }
            *sum += size;
            batch.attempts += 1;
            queue.in_flight = Some(Arc::clone(batch.promise.completion()));
            let sending =
                Sending { queue: index, topic: queue.topic.clone(), partition: queue.partition, batch };
            match plan.requests.iter_mut().find(|(n, _)| *n == node) {
                Some((_, list)) => list.push(sending),
                None => plan.requests.push((node, vec![sending])),
            }
        }
        plan
    }

    /// When to poll again without anything happening.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.queues
            .iter()
            .filter(|q| q.in_flight.is_none())
            .flat_map(|q| {
                let expiry = q.ready.front().or(q.open.as_ref()).map(|b| b.deadline);
                [q.due(now, self.settings.linger, self.hurried > 0), expiry]
            })
            .flatten()
            .min()
    }

    /// Batches whose delivery timeout is over and that are not in flight.
    pub(crate) fn poll_expired(&mut self, now: Instant) -> Vec<Resolved> {
        let mut out = Vec::new();
        for queue in self.queues.iter_mut().filter(|q| q.in_flight.is_none()) {
            while queue.ready.front().or(queue.open.as_ref()).is_some_and(|b| b.deadline <= now) {
                let Some(batch) = queue.ready.pop_front().or_else(|| queue.open.take()) else { break };
                let error = expired(&queue.topic, queue.partition, &batch, self.settings.delivery_timeout);
                out.push(queue.give_up(batch, error));
            }
        }
        out
    }

    /// Takes a sending back with what came of it. `Some` if it has its outcome, and whether leaders are to be asked
    /// for anew.
    pub(crate) fn handle_answer(
        &mut self,
        sending: Sending,
        answer: Answer,
        now: Instant,
    ) -> (Option<Resolved>, bool) {
        let Sending { queue, topic, partition, mut batch } = sending;
        let timeout = self.settings.delivery_timeout;
        let Some(queue) = self.queues.get_mut(queue) else {
            return (None, false);
        };
        queue.in_flight = None;
        let (error, refresh) = match answer {
            Answer::Broker { code: 0 | code::DUPLICATE_SEQUENCE, written, .. } => {
                let Batch { builder, sealed, reserved, promise, .. } = batch;
                drop(sealed);
                if self.spare.len() < SPARE_BUILDERS && builder.is_empty() {
                    self.spare.push(builder);
                }
                return (Some(Resolved { reserved, promise, outcome: Ok(written) }), false);
            }
            Answer::Broker { code, message, .. } => {
                let mut e = errors::broker(code, format!("produce to topic {topic} partition {partition}"));
                if let Some(message) = message {
                    e = e.with_source(message);
                }
                match code {
                    // The broker lost our sequence, or somebody has our id at a higher epoch (KIP-360).
                    code::OUT_OF_ORDER_SEQUENCE
                    | code::UNKNOWN_PRODUCER_ID
                    | code::INVALID_PRODUCER_EPOCH
                    | code::INVALID_PRODUCER_ID_MAPPING => {
                        queue.sequences.bump();
                        if batch.unsure {
                            // An earlier attempt may have been written; a new number would write it twice.
                            return (Some(batch.resolve(Err(e.ambiguous()))), false);
                        }
                        tracing::warn!(%topic, %partition, error = %e, "beginning a new producer epoch");
                        batch.stamp = None;
                    }
                    // Perhaps written at the leader, and not known at the others: a broker that loses a partition while
                    // a batch waits for its replicas (Kafka's `DelayedProduce`) answers as one that never led it.
                    code::UNKNOWN_SERVER_ERROR
                    | code::UNKNOWN_TOPIC_OR_PARTITION
                    | code::NOT_LEADER
                    | code::REQUEST_TIMED_OUT
                    | code::NOT_ENOUGH_REPLICAS_AFTER_APPEND
                    | code::STORAGE_ERROR => batch.unsure = true,
                    code::MESSAGE_TOO_LARGE => {
                        e = e.context(format!(
                            "a batch of {} records and {} bytes",
                            batch.records, batch.size
                        ));
                    }
                    _ => {}
                }
                let again = e.is_retryable() || errors::wants_refresh(code) || batch.stamp.is_none();
                let refresh = errors::wants_refresh(code);
                if !again {
                    return (Some(queue.give_up(batch, e)), refresh);
                }
                (e, refresh)
            }
            Answer::Failed(e) => {
                batch.unsure |= e.is_ambiguous();
                // With the same sequence, sending again is safe whatever happened.
                let again = e.is_retryable() || e.kind() == ErrorKind::Malformed;
                if !again {
                    return (Some(queue.give_up(batch, e)), true);
                }
                (e, true)
            }
        };
        tracing::debug!(%topic, %partition, attempt = batch.attempts, error = %error.report(), "sending again");
        batch.promise.unsure = batch.unsure;
        batch.last_error = Some(error);
        if batch.deadline <= now {
            let error = expired(&topic, partition, &batch, timeout);
            return (Some(queue.give_up(batch, error)), refresh);
        }
        let pause = RETRY_MIN.saturating_mul(1 << batch.attempts.saturating_sub(1).min(10)).min(RETRY_MAX);
        queue.not_before = Some(now + pause);
        queue.ready.push_front(batch);
        (None, refresh)
    }

    /// Gives up everything that is not in flight.
    pub(crate) fn fail_all(&mut self, error: &Error) -> Vec<Resolved> {
        let mut out = Vec::new();
        for queue in &mut self.queues {
            while let Some(batch) = queue.ready.pop_front().or_else(|| queue.open.take()) {
                out.push(queue.give_up(batch, error.duplicate()));
            }
        }
        out
    }
}

impl Queue {
    /// When its first batch may leave; `None` without one.
    fn due(&self, now: Instant, linger: Duration, hurried: bool) -> Option<Instant> {
        let at = match (self.ready.front(), &self.open) {
            (Some(_), _) => now,
            (None, Some(open)) => {
                if hurried {
                    now
                } else {
                    open.created + linger
                }
            }
            (None, None) => return None,
        };
        Some(self.not_before.map_or(at, |not_before| not_before.max(at)))
    }

    /// Fails a batch, and sets the sequence for those behind it.
    fn give_up(&mut self, batch: Batch, error: Error) -> Resolved {
        if let Some(stamp) = batch.stamp {
            if batch.unsure {
                self.sequences.bump();
            } else {
                self.sequences.rollback(stamp);
            }
        }
        let error = if batch.unsure { error.ambiguous() } else { error };
        batch.resolve(Err(error))
    }
}

fn expired(topic: &Topic, partition: Partition, batch: &Batch, timeout: Duration) -> Error {
    let what = format!(
        "{} records for topic {topic} partition {partition} were not acknowledged within {timeout:?} \
         (delivery_timeout), after {} attempts",
        batch.records, batch.attempts
    );
    match &batch.last_error {
        Some(e) if e.kind() == ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, what).with_source(e.report())
        }
        Some(e) => Error::new(ErrorKind::Timeout, what).with_source(e.report()),
        None => Error::new(ErrorKind::Timeout, what),
    }
}

#[cfg(test)]
mod tests;
