//! Records wait here until they leave, and batches until they are acknowledged. Pure.
//!
//! ```text
//! answers    what a broker's answer means for a batch
//! batch      one batch: filled, sealed, split, resolved
//! queue      the batches of one partition: what may leave, and what one's fate means for the others
//! schedule   which partitions are ready for which broker, and when to look at the others
//!
//!             append                full, due, or its           poll_sendings
//!   record ----------> open batch -- broker is idle ---> ready -----------------> in flight
//!                                                          ^                        |
//!                                                          +-- retry, backoff ------+--> written
//!                                                          +-- two halves ----------+--> refused
//!                                                          +--> expired (delivery timeout)
//! ```
//!
//! A batch waits for more records only while its broker has something to do: where nothing is in flight, it leaves at
//! once; else when it is full, when its linger is over, or when the broker has answered everything.
//!
//! Order of calls: [`append`](Accumulator::append) at any time; the driver loops over
//! [`poll_expired`](Accumulator::poll_expired), [`poll_sendings`](Accumulator::poll_sendings), and sleeps until
//! [`poll_timeout`](Accumulator::poll_timeout), a wake, or what [`handle_answers`](Accumulator::handle_answers) takes.

mod answers;
mod batch;
mod queue;
mod schedule;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::batch::Batch;
pub(crate) use self::batch::{Answer, Resolved, Sending};
use self::queue::Queue;
use self::schedule::Schedule;
use super::completion::{Completion, Promise};
use super::partitioner::{Facts, Partitioning, TopicPartitioner};
use super::record::Record;
use super::sequence::Sequences;
use crate::codec::compression::Compression;
use crate::codec::record_batch::{BatchBuilder, BatchOptions};
use crate::{Error, ErrorKind, NodeId, Partition, ProducerEpoch, ProducerId, Result, Timestamp, Topic};

/// Answer codes with a meaning of their own here.
mod code {
    pub(super) const UNKNOWN_SERVER_ERROR: i16 = -1;
    pub(super) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub(super) const NOT_LEADER: i16 = 6;
    pub(super) const REQUEST_TIMED_OUT: i16 = 7;
    pub(super) const MESSAGE_TOO_LARGE: i16 = 10;
    pub(super) const RECORD_LIST_TOO_LARGE: i16 = 18;
    pub(super) const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
    pub(super) const OUT_OF_ORDER_SEQUENCE: i16 = 45;
    pub(super) const DUPLICATE_SEQUENCE: i16 = 46;
    pub(super) const INVALID_PRODUCER_EPOCH: i16 = 47;
    pub(super) const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
    pub(super) const STORAGE_ERROR: i16 = 56;
    pub(super) const UNKNOWN_PRODUCER_ID: i16 = 59;
}

/// Builders kept for their buffers, at most.
const SPARE_BUILDERS: usize = 1024;

/// What the machine needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) linger: Duration,
    pub(crate) batch_size: usize,
    pub(crate) max_request_size: usize,
    pub(crate) buffer_memory: usize,
    pub(crate) compression: Compression,
    pub(crate) level: Option<i32>,
    pub(crate) delivery_timeout: Duration,
    /// The pause before the second attempt, and the longest one.
    pub(crate) retry_backoff: (Duration, Duration),
    pub(crate) partitioning: Partitioning,
    /// Batches of one partition on their way; 1 to 5.
    pub(crate) max_in_flight: usize,
    /// Whether batches are numbered, so that the broker recognises one that comes again.
    pub(crate) idempotent: bool,
    /// Whether batches belong to transactions: their epochs are the coordinator's to give.
    pub(crate) transactional: bool,
}

/// What [`Accumulator::append`] did.
#[derive(Debug)]
pub(crate) enum Append {
    /// The record is in a batch.
    Done {
        completion: Arc<Completion>,
        index: u32,
        /// Whether the driver has something to do now.
        wake: bool,
    },
    /// The buffer has no room, or others wait for it already.
    Full,
    /// The topic's partitions are not known.
    UnknownTopic,
    /// No record is taken any more.
    Closed,
}

#[derive(Debug)]
struct TopicState {
    topic: Topic,
    partitioner: TopicPartitioner,
    /// The leaders of all partitions.
    leaders: Vec<Option<NodeId>>,
    queues: Vec<Option<usize>>,
    /// Batches of more bytes were found too large by the broker.
    limit: usize,
}

/// What leaves now.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Requests, in the order in which they leave.
    pub(crate) requests: Vec<(NodeId, Vec<Sending>)>,
}

/// What came of answers.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Batches that have their outcome.
    pub(crate) resolved: Vec<Resolved>,
    /// Partitions whose leader is to be asked for anew.
    pub(crate) stale: Vec<(Topic, Partition)>,
    /// Builders of batches that were written, and what each took.
    empty: Vec<(BatchBuilder, usize)>,
}

/// The producer's records.
#[derive(Debug)]
pub(crate) struct Accumulator {
    settings: Settings,
    id: ProducerId,
    epoch: ProducerEpoch,
    names: HashMap<Topic, usize>,
    topics: Vec<TopicState>,
    /// The topic of the record before: mostly it is the next one's too.
    last_topic: usize,
    queues: Vec<Queue>,
    schedule: Schedule,
    /// Topics with batches that could leave but for their leader.
    leaderless: BTreeSet<usize>,
    /// Bytes of records without an outcome.
    used: usize,
    /// Batches without an outcome.
    unresolved: usize,
    /// How many wait for room.
    pub(crate) waiting: usize,
    /// How many want everything to leave at once.
    hurried: usize,
    closed: bool,
    /// Whether a partition has used up its epochs.
    exhausted: bool,
    /// A transaction's partitions leave nothing before its coordinator knows them.
    registration: bool,
    additions: BTreeSet<usize>,
    /// Builders for their buffers, with what each took, and the sum of that.
    spare: Vec<(BatchBuilder, usize)>,
    spare_bytes: usize,
}

impl Accumulator {
    pub(crate) fn new(settings: Settings, id: ProducerId, epoch: ProducerEpoch) -> Self {
        Self {
            settings,
            id,
            epoch,
            names: HashMap::new(),
            topics: Vec::new(),
            last_topic: 0,
            queues: Vec::new(),
            schedule: Schedule::default(),
            leaderless: BTreeSet::new(),
            used: 0,
            unresolved: 0,
            waiting: 0,
            hurried: 0,
            closed: false,
            exhausted: false,
            registration: false,
            additions: BTreeSet::new(),
            spare: Vec::new(),
            spare_bytes: 0,
        }
    }

    fn sequences(&self) -> Sequences {
        if self.settings.idempotent { Sequences::new(self.id, self.epoch) } else { Sequences::off() }
    }

    /// Another producer id or epoch: after [`needs_identity`](Self::needs_identity) for the partitions that have used up
    /// theirs; between transactions for all of them, where it differs.
    pub(crate) fn handle_identity(&mut self, id: ProducerId, epoch: ProducerEpoch, now: Instant) {
        let all = self.settings.transactional && (self.id, self.epoch) != (id, epoch);
        (self.id, self.epoch) = (id, epoch);
        self.exhausted = false;
        let sequences = self.sequences();
        for at in 0..self.queues.len() {
            if let Some(queue) = self.queues.get_mut(at).filter(|q| all || q.is_exhausted()) {
                queue.renew(sequences);
                self.evaluate(at, now);
            }
        }
    }

    /// Whether a partition has used up the epochs of its producer id.
    pub(crate) fn needs_identity(&self) -> bool {
        self.exhausted
    }

    /// A transaction begins: whether its coordinator must be told of a partition before a batch of it may leave.
    pub(crate) fn set_registration(&mut self, required: bool) {
        self.registration = required;
        self.additions.clear();
        self.queues.iter_mut().for_each(|q| q.added = false);
    }

    /// The partitions that wait for their transaction's coordinator.
    pub(crate) fn poll_additions(&mut self) -> Vec<(Topic, Partition)> {
        let waiting = std::mem::take(&mut self.additions);
        waiting
            .into_iter()
            .filter_map(|at| self.queues.get(at).map(|q| (q.topic.clone(), q.partition)))
            .collect()
    }

    /// The coordinator knows of these.
    pub(crate) fn handle_added(&mut self, added: &[(Topic, Partition)], now: Instant) {
        for (topic, partition) in added {
            let slot = self
                .names
                .get(topic)
                .and_then(|at| self.topics.get(*at))
                .and_then(|t| t.queues.get(usize::try_from(partition.0).ok()?).copied().flatten());
            if let Some(at) = slot {
                if let Some(queue) = self.queues.get_mut(at) {
                    queue.added = true;
                }
                self.evaluate(at, now);
            }
        }
    }

    /// Everything leaves without lingering while more are hurried than not.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.hurried += 1;
        for at in self.schedule.take_all_lingering() {
            self.stop_lingering(at, now);
        }
    }

    /// Ends one [`hurry`](Self::hurry).
    pub(crate) fn calm(&mut self) {
        self.hurried = self.hurried.saturating_sub(1);
    }

    /// Takes no more records.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The partitions of a topic, from 0 without gaps, and their leaders. The first time, records for it may be appended
    /// from then on.
    pub(crate) fn handle_topic(
        &mut self,
        topic: &Topic,
        leaders: impl ExactSizeIterator<Item = Option<NodeId>>,
        now: Instant,
    ) {
        if leaders.len() == 0 {
            return;
        }
        let at = match self.names.get(topic) {
            Some(at) => *at,
            None => {
                self.topics.push(TopicState {
                    topic: topic.clone(),
                    partitioner: TopicPartitioner::default(),
                    leaders: Vec::new(),
                    queues: Vec::new(),
                    limit: usize::MAX,
                });
                self.names.insert(topic.clone(), self.topics.len() - 1);
                self.topics.len() - 1
            }
        };
        let Some(state) = self.topics.get_mut(at) else { return };
        state.leaders.clear();
        state.leaders.extend(leaders);
        let stuck = self.leaderless.remove(&at);
        let mut moved = Vec::new();
        for (slot, partition) in state.queues.iter().zip(0..) {
            let leader = state.leaders.get(partition).copied().flatten();
            if let Some(queue) = slot.and_then(|at| self.queues.get_mut(at))
                && (queue.set_leader(leader) || stuck)
            {
                moved.extend(*slot);
            }
        }
        moved.into_iter().for_each(|at| {
            self.evaluate(at, now);
        });
    }

    /// The topics that have records here, or had.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().map(|t| &t.topic)
    }

    /// The topics with batches that could leave but for their leader.
    pub(crate) fn leaderless(&self) -> Vec<Topic> {
        self.leaderless.iter().filter_map(|at| self.topics.get(*at)).map(|t| t.topic.clone()).collect()
    }

    /// Puts a record into the batch of its partition. `in_turn`: the caller has waited for room, and is the next.
    ///
    /// # Errors
    /// `NotFound` for a partition that the topic does not have, `TooLarge` for a record over the limit. Nothing changed.
    pub(crate) fn append(
        &mut self,
        record: &Record<'_>,
        in_turn: bool,
        timestamp: Timestamp,
        now: impl FnOnce() -> Instant,
        draw: impl FnOnce() -> u64,
    ) -> Result<Append> {
        if self.closed {
            return Ok(Append::Closed);
        }
        let topic_at = match self.topics.get(self.last_topic) {
            Some(last) if last.topic == *record.topic() => self.last_topic,
            _ => match self.names.get(record.topic()) {
                Some(at) => *at,
                None => return Ok(Append::UnknownTopic),
            },
        };
        self.last_topic = topic_at;
        let bound = BatchBuilder::upper_bound(
            record.key_bytes(),
            record.value_bytes(),
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())),
        );
        // The bound may be above the exact size by less than a header; what is near the limit is judged exactly.
        if bound > self.settings.max_request_size.saturating_add(64) {
            return Err(self.too_large(record, bound));
        }
        if (self.waiting > 0 && !in_turn)
            || (self.used > 0 && self.used + bound > self.settings.buffer_memory)
        {
            return Ok(Append::Full);
        }
        let Some(topic) = self.topics.get_mut(topic_at) else { return Ok(Append::UnknownTopic) };
        let queues = &self.queues;
        let partition = choose(topic, record, &self.settings.partitioning, queues, draw)?;
        let at = match topic.queues.get(partition).copied().flatten() {
            Some(at) => at,
            None => self.add_queue(topic_at, partition),
        };
        let (Some(queue), Some(topic)) = (self.queues.get_mut(at), self.topics.get_mut(topic_at)) else {
            return Err(Error::new(ErrorKind::Internal, "a queue that is not there"));
        };
        if let Some(batch) = &mut queue.open {
            if batch.size < topic.limit
                && let Some((index, grown)) = batch.push(timestamp, record)?
            {
                self.used += grown;
                queue.given += 1;
                let completion = Arc::clone(batch.completion());
                return Ok(Append::Done { completion, index, wake: false });
            }
            queue.last_size = batch.size;
            queue.ready.extend(queue.open.take());
            topic.partitioner.handle_closed(partition, self.settings.batch_size);
        }
        // A record over the batch size has a batch of its own.
        let max_bytes = self.settings.batch_size.max(bound).min(self.settings.max_request_size);
        let now = now();
        let usual = max_bytes == self.settings.batch_size;
        let builder = match self.spare.pop_if(|_| usual) {
            Some((builder, bytes)) => {
                self.spare_bytes -= bytes;
                builder
            }
            // Room for a batch like the one before, so that it need not grow.
            None => self.settings.builder(max_bytes, queue.last_size),
        };
        let promise = Promise::new(queue.topic.clone(), queue.partition);
        let deadline = now + self.settings.delivery_timeout;
        let mut batch = Batch::new(builder, promise, queue.given, now, deadline);
        let pushed = batch.push(timestamp, record);
        let Ok(Some((index, grown))) = pushed else {
            // The batch before it is full all the same; the driver comes to it by its timer.
            self.evaluate(at, now);
            return Err(pushed.err().unwrap_or_else(|| self.too_large(record, bound)));
        };
        self.used += grown;
        self.unresolved += 1;
        queue.given += 1;
        let completion = Arc::clone(batch.completion());
        queue.open = Some(batch);
        let wake = self.evaluate(at, now);
        Ok(Append::Done { completion, index, wake })
    }

    #[cold]
    fn too_large(&self, record: &Record<'_>, bytes: usize) -> Error {
        Error::new(
            ErrorKind::TooLarge,
            format!(
                "record for topic {} takes about {bytes} bytes; the limit is {} (max_request_size); nothing was sent",
                record.topic(),
                self.settings.max_request_size
            ),
        )
    }

    #[cold]
    fn add_queue(&mut self, topic_at: usize, partition: usize) -> usize {
        let at = self.queues.len();
        let sequences = self.sequences();
        if let Some(topic) = self.topics.get_mut(topic_at) {
            if topic.queues.len() <= partition {
                topic.queues.resize(topic.leaders.len().max(partition + 1), None);
            }
            if let Some(slot) = topic.queues.get_mut(partition) {
                *slot = Some(at);
            }
            let place = (topic.topic.clone(), topic_at, Partition(partition as i32));
            let most = if self.settings.idempotent { self.settings.max_in_flight } else { 1 };
            let mut queue = Queue::new(place, sequences, most, self.settings.transactional);
            queue.set_leader(topic.leaders.get(partition).copied().flatten());
            self.queues.push(queue);
        }
        at
    }

    /// Looks at a partition: lists it where a batch may leave, sets a timer where one may later. Whether the driver
    /// is to be woken for it.
    fn evaluate(&mut self, at: usize, now: Instant) -> bool {
        let Some(queue) = self.queues.get_mut(at) else { return false };
        let Some(first) = queue.first() else { return false };
        let mut timer = first.deadline;
        let created = first.created;
        let mut wake = false;
        if self.registration && !queue.added {
            wake = self.additions.insert(at);
        } else if queue.may_leave() {
            let idle = queue.leader.is_none_or(|node| self.schedule.is_idle(node));
            let lingers = queue.ready.is_empty() && self.hurried == 0 && !idle;
            let mut due = if lingers { created + self.settings.linger } else { now };
            due = queue.not_before.map_or(due, |at| at.max(due));
            match queue.leader {
                None if due <= now => wake = self.leaderless.insert(queue.topic_at),
                Some(node) if due <= now => {
                    if queue.listed != Some(node) {
                        queue.listed = Some(node);
                        wake = self.schedule.list(at, node);
                    }
                }
                leader => {
                    timer = timer.min(due);
                    if let Some(node) = leader.filter(|_| lingers && !queue.lingering) {
                        queue.lingering = true;
                        self.schedule.linger(at, node);
                    }
                }
            }
        } else if queue.is_exhausted() {
            self.exhausted = true;
            wake = true;
        }
        if queue.timer.is_none_or(|set| timer < set) {
            queue.timer = Some(timer);
            wake |= self.schedule.set_timer(at, timer);
        }
        wake
    }

    fn stop_lingering(&mut self, at: usize, now: Instant) {
        if let Some(queue) = self.queues.get_mut(at) {
            queue.lingering = false;
        }
        self.evaluate(at, now);
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.unresolved == 0
    }

    /// Batches without an outcome.
    pub(crate) fn unresolved(&self) -> usize {
        self.unresolved
    }

    /// The outcomes that everything queued so far waits for.
    pub(crate) fn pending(&self) -> Vec<Arc<Completion>> {
        self.queues.iter().flat_map(Queue::pending).map(Arc::clone).collect()
    }

    /// Requests that leave now, each with at most one batch of a partition, to its leader. After
    /// [`poll_expired`](Self::poll_expired), which looks at the partitions whose time has come.
    pub(crate) fn poll_sendings(&mut self, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let nodes: Vec<NodeId> = self.schedule.nodes.keys().copied().collect();
        for id in nodes {
            while let Some(sendings) = self.poll_request(id, now) {
                plan.requests.push((id, sendings));
            }
        }
        plan
    }

    fn poll_request(&mut self, id: NodeId, now: Instant) -> Option<Vec<Sending>> {
        let node = self.schedule.nodes.get(&id).filter(|n| n.is_free(now))?;
        let mut sendings = Vec::new();
        let mut sum = 0;
        let mut later = Vec::new();
        for _ in 0..node.ready.len() {
            let Some(at) = self.schedule.nodes.get_mut(&id).and_then(|n| n.ready.pop_front()) else { break };
            let Some(queue) = self.queues.get_mut(at).filter(|q| q.listed == Some(id)) else { continue };
            if !queue.may_leave() {
                queue.listed = None;
                continue;
            }
            let size = queue.first().map_or(0, |b| b.size);
            if sum > 0 && sum + size > self.settings.max_request_size {
                later.push(at);
                continue;
            }
            queue.listed = None;
            let was_open = queue.ready.is_empty();
            let Some(batch) = queue.take() else { continue };
            if was_open && let Some(topic) = self.topics.get_mut(queue.topic_at) {
                let partition = usize::try_from(queue.partition.0).unwrap_or(0);
                topic.partitioner.handle_closed(partition, self.settings.batch_size);
            }
            sum += size;
            sendings.push((at, batch));
        }
        let node = self.schedule.nodes.get_mut(&id)?;
        for at in later.into_iter().rev() {
            node.ready.push_front(at);
        }
        if sendings.is_empty() {
            return None;
        }
        node.in_flight += 1;
        let mut request = Vec::with_capacity(sendings.len());
        for (at, batch) in sendings {
            self.evaluate(at, now);
            if let Some(queue) = self.queues.get(at) {
                request.push(Sending {
                    queue: at,
                    topic: queue.topic.clone(),
                    partition: queue.partition,
                    batch,
                });
            }
        }
        Some(request)
    }

    /// When to poll again without anything happening.
    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        self.schedule.poll_timeout(now)
    }

    /// Looks at the partitions whose time has come. Gives out the batches whose delivery timeout is over and that are not
    /// in flight.
    pub(crate) fn poll_expired(&mut self, now: Instant) -> Vec<Resolved> {
        let mut out = Vec::new();
        while let Some((time, at)) = self.schedule.poll_timer(now) {
            let Some(queue) = self.queues.get_mut(at).filter(|q| q.timer == Some(time)) else { continue };
            queue.timer = None;
            while queue.first().is_some_and(|b| b.deadline <= now) {
                let Some(batch) = queue.ready.pop_front().or_else(|| queue.open.take()) else { break };
                let error = expired(&queue.topic, queue.partition, &batch, self.settings.delivery_timeout);
                out.push(queue.give_up(batch, error));
            }
            self.evaluate(at, now);
        }
        self.release(&out);
        out
    }

    fn release(&mut self, resolved: &[Resolved]) {
        for r in resolved {
            self.used = self.used.saturating_sub(r.held);
            self.unresolved = self.unresolved.saturating_sub(1);
        }
    }

    /// Keeps a builder for its buffer: what is kept and what records take stay within the buffer memory together.
    fn keep(&mut self, builder: BatchBuilder, bytes: usize) {
        let usual = builder.options().max_bytes == self.settings.batch_size && builder.is_empty();
        let room = self.settings.buffer_memory.saturating_sub(self.used);
        if usual && self.spare.len() < SPARE_BUILDERS && self.spare_bytes + bytes <= room {
            self.spare_bytes += bytes;
            self.spare.push((builder, bytes));
        }
    }

    /// Gives up everything that is not in flight.
    pub(crate) fn fail_all(&mut self, error: &Error) -> Vec<Resolved> {
        let mut out = Vec::new();
        for queue in &mut self.queues {
            // From the back: what never left has no numbers that others would miss.
            let open = queue.open.take();
            while let Some(batch) = queue.ready.pop_back() {
                out.push(queue.give_up(batch, error.duplicate()));
            }
            out.extend(open.map(|batch| queue.give_up(batch, error.duplicate())));
        }
        self.release(&out);
        out
    }
}

/// The partition of a record.
fn choose(
    topic: &mut TopicState,
    record: &Record<'_>,
    partitioning: &Partitioning,
    queues: &[Queue],
    draw: impl FnOnce() -> u64,
) -> Result<usize> {
    let partitions = topic.leaders.len();
    if let Some(p) = record.partition {
        return usize::try_from(p.0).ok().filter(|n| *n < partitions).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "topic {} has no partition {p}; it has {partitions} partitions, from 0",
                    record.topic()
                ),
            )
        });
    }
    let facts =
        Facts { topic: record.topic(), key: record.key_bytes(), value: record.value_bytes(), partitions };
    let (slots, leaders) = (&topic.queues, &topic.leaders);
    let queued = |partition: usize| {
        leaders.get(partition).copied().flatten()?;
        let queue = slots.get(partition).copied().flatten().and_then(|at| queues.get(at));
        Some(queue.map_or(0, |q| q.unanswered() as u32))
    };
    topic.partitioner.partition(partitioning, facts, queued, draw)
}

impl Settings {
    fn builder(&self, max_bytes: usize, initial_capacity: usize) -> BatchBuilder {
        BatchBuilder::new(BatchOptions {
            initial_capacity,
            compression: self.compression,
            level: self.level,
            max_bytes,
            transactional: self.transactional,
            ..BatchOptions::default()
        })
    }

    /// The pause after this many attempts: doubled each time, a fifth more or less by chance (KIP-580).
    fn pause(&self, attempts: u32, chance: u64) -> Duration {
        let (min, max) = self.retry_backoff;
        let pause = min.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(max);
        pause.mul_f64(0.8 + (chance % 4096) as f64 / 10_240.0)
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
