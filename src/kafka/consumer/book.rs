//! The consumer's partitions: what is fetched, what is in hand, what is settled. Pure.
//!
//! ```text
//!   fetch answer --> chunks (batches, gaps, faults, in log order) --poll_next--> in hand --ack--> settled
//!                                                                                 |   ^
//!                                                                       give_back |   | due
//!                                                                                 v   |
//!                                                                              waiting again
//! ```
//!
//! A batch is decompressed when its first record is asked for, not before. A fault stands in line behind what was
//! fetched before it: everything readable is handed out first, then the fault, and the partition stops.
//!
//! Order of calls: the reader calls [`poll_next`](Book::poll_next) and settles; the driver calls
//! [`poll_fetch`](Book::poll_fetch), feeds [`handle_fetched`](Book::handle_fetched) and its like, and commits what
//! [`poll_commit`](Book::poll_commit) gives.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::isolation::Aborted;
use super::{Isolation, PartitionPosition};
use crate::codec::record_batch::{BatchList, BatchView, Cursor, Record};
use crate::delivery::{AckTracker, Assignment, Commit, Limits, Outcome, Received};
use crate::kafka::offsets::Place;
use crate::{Error, ErrorKind, NodeId, Offset, Partition, ProducerId, Timestamp, Topic};

/// The receipt of a delivery.
pub(crate) type Receipt = crate::delivery::Receipt<Offset>;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How often a batch that does not check out is fetched again before it counts as damaged at the broker.
const CORRUPT_RETRIES: u32 = 2;
/// A partition with this much fetched is not fetched further.
const PARTITION_BYTES: usize = 1 << 20;
/// The most bytes asked for at once.
const FETCH_BYTES: usize = 16 << 20;

/// What the machine needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) isolation: Isolation,
    pub(crate) max_in_hand: usize,
    pub(crate) prefetch_bytes: usize,
    pub(crate) max_batch_bytes: usize,
}

/// A record as it is handed out.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) offset: Offset,
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
}

/// A record in hand.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) part: usize,
    pub(crate) receipt: Receipt,
    pub(crate) attempt: u32,
    pub(crate) content: Content,
}

/// What the reader gets.
#[derive(Debug)]
pub(crate) enum Next {
    /// A record, of this topic and partition.
    Record(Topic, Partition, Box<Held>),
    /// Something went wrong; reading goes on with the rest.
    Fault(Error),
    /// Nothing now; perhaps at this time.
    Wait(Option<Instant>),
    /// Nothing any more.
    Ended,
}

#[derive(Debug)]
enum Chunk {
    Batch(BatchView),
    Open(Cursor, Offset),
    /// The log holds nothing for the application below this offset.
    Gap(Offset),
    /// The log was cut back: what is at this offset and after it is new.
    Restart(Offset),
    Fault(Error),
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Fetching,
    /// The offset is not in the log; the driver finds another.
    Lost,
    /// A fault stands in line, or was handed out.
    Stopped,
}

#[derive(Debug)]
struct Part {
    topic: Topic,
    partition: Partition,
    tracker: AckTracker<Offset>,
    state: State,
    in_flight: bool,
    fetch_offset: Offset,
    chunks: VecDeque<(usize, Chunk)>,
    buffered: usize,
    end: Option<Offset>,
    not_before: Option<Instant>,
    failures: u32,
    corrupt: u32,
    max_bytes: usize,
}

#[derive(Debug)]
struct Waiting(Instant, u64, Box<Held>);

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// One partition of a fetch request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) part: usize,
    pub(crate) place: Place,
    pub(crate) offset: Offset,
    pub(crate) max_bytes: usize,
}

/// A fetch request to one broker.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) node: NodeId,
    pub(crate) asks: Vec<Ask>,
    pub(crate) max_bytes: usize,
}

/// One partition of a fetch answer.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) records: Bytes,
    pub(crate) aborted: Vec<(Offset, ProducerId)>,
    pub(crate) end: Offset,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Book {
    settings: Settings,
    parts: Vec<Part>,
    turn: usize,
    /// The broker that is fetched from first the next time, or the next one after it.
    next_node: NodeId,
    waiting: BinaryHeap<Reverse<Waiting>>,
    counter: u64,
    /// Records handed out or waiting to be handed out again.
    unsettled: usize,
    reserved: usize,
    faults: VecDeque<Error>,
    closed: bool,
}

impl Book {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            parts: Vec::new(),
            turn: 0,
            next_node: NodeId(0),
            waiting: BinaryHeap::new(),
            counter: 0,
            unsettled: 0,
            reserved: 0,
            faults: VecDeque::new(),
            closed: false,
        }
    }

    /// Adds a partition that is read from `start`; `metadata` is what was committed beside it.
    pub(crate) fn assign(&mut self, place: Place, start: Offset, metadata: Option<&str>) {
        let limits = Limits::default();
        let mut tracker = AckTracker::for_offsets(Assignment(1), start, limits);
        if let Some(metadata) = metadata.filter(|m| !m.is_empty()) {
            let restored = tracker.restore(metadata);
            tracing::debug!(topic = %place.0, partition = %place.1, ?restored, "commit metadata");
        }
        self.parts.push(Part {
            topic: place.0,
            partition: place.1,
            tracker,
            state: State::Fetching,
            in_flight: false,
            fetch_offset: start,
            chunks: VecDeque::new(),
            buffered: 0,
            end: None,
            not_before: None,
            failures: 0,
            corrupt: 0,
            max_bytes: PARTITION_BYTES,
        });
    }

    /// The next thing for the reader, and whether the driver has room for more by it.
    pub(crate) fn poll_next(&mut self, now: Instant) -> (Next, bool) {
        if self.closed {
            return (Next::Ended, false);
        }
        while self.waiting.peek().is_some_and(|Reverse(w)| w.0 <= now) {
            let Some(Reverse(Waiting(_, _, mut held))) = self.waiting.pop() else { break };
            let Some(part) = self.parts.get_mut(held.part) else { continue };
            // Of an older assignment, or settled meanwhile: not again.
            if part.tracker.take_again(held.receipt) == Outcome::Done {
                held.attempt = held.attempt.saturating_add(1);
                return (Next::Record(part.topic.clone(), part.partition, held), false);
            }
        }
        if let Some(fault) = self.faults.pop_front() {
            return (Next::Fault(fault), false);
        }
        let mut freed = false;
        if self.unsettled < self.settings.max_in_hand {
            for step in 0..self.parts.len() {
                let index = (self.turn + step) % self.parts.len();
                let Some(part) = self.parts.get_mut(index) else { continue };
                let next = loop {
                    match part.next(self.settings.max_batch_bytes, &mut freed) {
                        PartNext::Restarted(dropped) => {
                            self.unsettled = self.unsettled.saturating_sub(dropped);
                        }
                        next => break next,
                    }
                };
                match next {
                    PartNext::Record(receipt, content) => {
                        // Stay with a partition for its batch: its memory is warm, and it is freed sooner. After it
                        // the others have their turn.
                        self.turn = if freed { index + 1 } else { index };
                        self.unsettled += 1;
                        let held = Box::new(Held { part: index, receipt, attempt: 1, content });
                        return (Next::Record(part.topic.clone(), part.partition, held), freed);
                    }
                    PartNext::Fault(e) => return (Next::Fault(e), freed),
                    PartNext::Restarted(_) | PartNext::Nothing => {}
                }
            }
        }
        let stopped = self.parts.iter().all(|p| p.state == State::Stopped && p.chunks.is_empty());
        if stopped && self.unsettled == 0 {
            return (Next::Ended, freed);
        }
        (Next::Wait(self.waiting.peek().map(|Reverse(w)| w.0)), freed)
    }

    /// Settles one. Whether the reader has room by it.
    pub(crate) fn ack(&mut self, part: usize, receipt: Receipt) -> Outcome {
        let Some(p) = self.parts.get_mut(part) else { return Outcome::Unknown };
        let outcome = p.tracker.ack(receipt);
        if outcome == Outcome::Done {
            self.unsettled = self.unsettled.saturating_sub(1);
        }
        outcome
    }

    /// Takes one back, to be handed out again at `due`.
    pub(crate) fn give_back(&mut self, held: Box<Held>, due: Instant) -> Outcome {
        let Some(p) = self.parts.get_mut(held.part) else { return Outcome::Unknown };
        let outcome = p.tracker.give_back(held.receipt);
        if outcome == Outcome::Done && !self.closed {
            self.counter += 1;
            self.waiting.push(Reverse(Waiting(due, self.counter, held)));
        }
        outcome
    }

    /// What to fetch now: one request for each broker that is free.
    pub(crate) fn poll_fetch(
        &mut self,
        now: Instant,
        leader: impl Fn(&Topic, Partition) -> Option<NodeId>,
        free: impl Fn(NodeId) -> bool,
    ) -> (Vec<Fetch>, Vec<Topic>) {
        let mut asks: BTreeMap<NodeId, Vec<Ask>> = BTreeMap::new();
        let mut leaderless = Vec::new();
        if self.closed {
            return (Vec::new(), leaderless);
        }
        for (index, part) in self.parts.iter_mut().enumerate() {
            let resting = part.not_before.is_some_and(|at| at > now);
            if part.state != State::Fetching || part.in_flight || resting || part.buffered >= PARTITION_BYTES
            {
                continue;
            }
            match leader(&part.topic, part.partition) {
                Some(node) if free(node) => asks.entry(node).or_default().push(Ask {
                    part: index,
                    place: (part.topic.clone(), part.partition),
                    offset: part.fetch_offset,
                    max_bytes: part.max_bytes,
                }),
                Some(_) => {}
                None if leaderless.contains(&part.topic) => {}
                None => leaderless.push(part.topic.clone()),
            }
        }
        let mut fetches = Vec::new();
        if asks.is_empty() {
            return (fetches, leaderless);
        }
        // Each broker has its share, so that those with nothing new, whose answers take long, leave room for the others;
        // and another one begins each time, so that all have their turn where the shares are too small.
        let brokers: BTreeSet<NodeId> =
            self.parts.iter().filter_map(|p| leader(&p.topic, p.partition)).collect();
        let share = self.settings.prefetch_bytes / brokers.len().max(1);
        let first = asks.split_off(&self.next_node);
        for (node, asks) in first.into_iter().chain(asks) {
            let used = self.parts.iter().map(|p| p.buffered).sum::<usize>() + self.reserved;
            let room = self.settings.prefetch_bytes.saturating_sub(used);
            // A little room is not worth a request; the reader makes more.
            if room < PARTITION_BYTES.min(self.settings.prefetch_bytes / 4).min(share).max(1) {
                break;
            }
            let max_bytes = room.min(FETCH_BYTES).min(share.max(1));
            self.next_node = NodeId(node.0.saturating_add(1));
            self.reserved += max_bytes;
            for ask in &asks {
                if let Some(part) = self.parts.get_mut(ask.part) {
                    part.in_flight = true;
                }
            }
            fetches.push(Fetch { node, asks, max_bytes });
        }
        (fetches, leaderless)
    }

    /// When to poll for fetches again without anything happening.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.parts.iter().filter(|p| !p.in_flight).filter_map(|p| p.not_before).filter(|at| *at > now).min()
    }

    /// A request has come back, with or without an answer: its room is free again.
    pub(crate) fn handle_returned(&mut self, fetch: &Fetch) {
        self.reserved = self.reserved.saturating_sub(fetch.max_bytes);
        for ask in &fetch.asks {
            if let Some(part) = self.parts.get_mut(ask.part) {
                part.in_flight = false;
            }
        }
    }

    /// Takes in one partition's part of an answer.
    pub(crate) fn handle_fetched(&mut self, ask: &Ask, fetched: Fetched, now: Instant) {
        let isolation = self.settings.isolation;
        let Some(part) = self.parts.get_mut(ask.part) else { return };
        // An answer to another question: the partition was reset meanwhile.
        if part.state == State::Fetching && part.fetch_offset == ask.offset {
            part.end = Some(fetched.end);
            part.take_in(fetched, isolation, now);
        }
    }

    /// The partition cannot be fetched now; try again after a pause.
    pub(crate) fn handle_retry(&mut self, ask: &Ask, now: Instant) {
        if let Some(part) = self.parts.get_mut(ask.part) {
            part.rest(now);
        }
    }

    /// The offset is not in the log.
    pub(crate) fn handle_lost(&mut self, ask: &Ask) {
        if let Some(part) = self.parts.get_mut(ask.part).filter(|p| p.state == State::Fetching) {
            part.state = State::Lost;
        }
    }

    /// The partitions that wait for another offset.
    pub(crate) fn lost(&self) -> Vec<(usize, Place, Offset)> {
        let lost = self.parts.iter().enumerate().filter(|(_, p)| p.state == State::Lost);
        lost.map(|(i, p)| (i, (p.topic.clone(), p.partition), p.fetch_offset)).collect()
    }

    /// The offset from which a partition goes on.
    pub(crate) fn handle_reset(&mut self, part: usize, to: Offset) {
        let Some(part) = self.parts.get_mut(part).filter(|p| p.state == State::Lost) else { return };
        let chunk = if to >= part.fetch_offset { Chunk::Gap(to) } else { Chunk::Restart(to) };
        part.chunks.push_back((0, chunk));
        part.fetch_offset = to;
        part.state = State::Fetching;
    }

    /// The partition cannot go on: behind what was fetched stands this error.
    pub(crate) fn handle_fault(&mut self, part: usize, error: Error) {
        if let Some(part) = self.parts.get_mut(part) {
            part.stop(error);
        }
    }

    /// Something that belongs to no partition went wrong: told at the next read.
    pub(crate) fn handle_trouble(&mut self, error: Error) {
        // Bounded: a reader that does not read learns of the first ones.
        if self.faults.len() < 16 {
            self.faults.push_back(error);
        }
    }

    /// The commits that are due.
    pub(crate) fn poll_commit(&self) -> Vec<(usize, Place, Commit)> {
        let due = |(i, p): (usize, &Part)| {
            let commit = p.tracker.poll_commit()?;
            Some((i, (p.topic.clone(), p.partition), commit))
        };
        self.parts.iter().enumerate().filter_map(due).collect()
    }

    /// The broker has taken a commit.
    pub(crate) fn handle_committed(&mut self, part: usize, commit: &Commit) {
        if let Some(part) = self.parts.get_mut(part) {
            part.tracker.handle_committed(commit);
        }
    }

    /// Hands out nothing more and forgets what is fetched. What is in hand can still be settled and committed.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
        for part in &mut self.parts {
            part.chunks.clear();
            part.buffered = 0;
        }
    }

    /// Every receipt is stale from here on.
    pub(crate) fn revoke(&mut self) {
        for part in &mut self.parts {
            let _ = part.tracker.revoke();
        }
        self.unsettled = 0;
    }

    pub(crate) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<Topic> = self.parts.iter().map(|p| p.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        topics
    }

    pub(crate) fn positions(&self) -> Vec<PartitionPosition> {
        let position = |p: &Part| PartitionPosition {
            topic: p.topic.clone(),
            partition: p.partition,
            position: p.tracker.next(),
            settled: p.tracker.watermark(),
            end: p.end,
        };
        self.parts.iter().map(position).collect()
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled
    }
}

enum PartNext {
    Record(Receipt, Content),
    Fault(Error),
    /// So many unsettled ones are of no concern any more.
    Restarted(usize),
    Nothing,
}

impl Part {
    fn next(&mut self, max_batch_bytes: usize, freed: &mut bool) -> PartNext {
        while let Some((_, chunk)) = self.chunks.front_mut() {
            match chunk {
                Chunk::Batch(batch) => {
                    let next = batch.next_offset();
                    match batch.records(max_batch_bytes) {
                        Ok(records) => *chunk = Chunk::Open(records.into_cursor(), next),
                        Err(e) => {
                            let at = batch.base_offset();
                            let e = self.at(e, at);
                            return self.fail(e, freed);
                        }
                    }
                }
                Chunk::Open(cursor, next) => {
                    if !self.tracker.has_room() {
                        return PartNext::Nothing;
                    }
                    let next = *next;
                    match cursor.next() {
                        None => {
                            self.tracker.skip_to(next);
                            self.drop_front(freed);
                        }
                        Some(Err(e)) => {
                            let at = self.tracker.next();
                            let e = self.at(e, at);
                            return self.fail(e, freed);
                        }
                        Some(Ok(record)) => {
                            let size =
                                record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len);
                            // Behind: the fetch began inside of the batch. Skip: done before a restart.
                            if let Received::Fresh(receipt) = self.tracker.receive(record.offset(), size) {
                                return PartNext::Record(receipt, Content::of(&record));
                            }
                        }
                    }
                }
                Chunk::Gap(next) => {
                    let next = *next;
                    self.tracker.skip_to(next);
                    self.drop_front(freed);
                }
                Chunk::Restart(to) => {
                    let to = *to;
                    let dropped = self.tracker.in_hand() + self.tracker.returned();
                    let assignment = self.tracker.assignment().next();
                    let _ = self.tracker.revoke();
                    let again = self.tracker.reassign(assignment, to);
                    self.drop_front(freed);
                    if let Err(e) = again {
                        return PartNext::Fault(e);
                    }
                    return PartNext::Restarted(dropped);
                }
                Chunk::Fault(_) => {
                    if let Some((_, Chunk::Fault(e))) = self.chunks.pop_front() {
                        return PartNext::Fault(e);
                    }
                }
            }
        }
        PartNext::Nothing
    }

    fn drop_front(&mut self, freed: &mut bool) {
        if let Some((size, _)) = self.chunks.pop_front() {
            self.buffered = self.buffered.saturating_sub(size);
            *freed = true;
        }
    }

    fn fail(&mut self, e: Error, freed: &mut bool) -> PartNext {
        self.state = State::Stopped;
        self.chunks.clear();
        self.buffered = 0;
        *freed = true;
        PartNext::Fault(e)
    }

    fn stop(&mut self, e: Error) {
        if self.state != State::Stopped {
            self.state = State::Stopped;
            self.chunks.push_back((0, Chunk::Fault(e)));
        }
    }

    fn at(&self, e: Error, offset: Offset) -> Error {
        e.context(format!(
            "topic {} partition {} at offset {offset}: reading stopped there",
            self.topic, self.partition
        ))
    }

    fn rest(&mut self, now: Instant) {
        let pause = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
    }

    fn take_in(&mut self, fetched: Fetched, isolation: Isolation, now: Instant) {
        let size = fetched.records.len();
        let mut aborted = Aborted::new(match isolation {
            Isolation::ReadCommitted => fetched.aborted,
            Isolation::ReadUncommitted => Vec::new(),
        });
        let mut list = BatchList::new(fetched.records);
        let mut any = false;
        for item in list.by_ref() {
            let batch = match item.and_then(|batch| Ok((aborted.admits(&batch)?, batch))) {
                Ok((admitted, batch)) => {
                    // A fetch from inside a batch brings the whole of it; one from before is of no use.
                    if batch.next_offset() <= self.fetch_offset {
                        any = true;
                        continue;
                    }
                    admitted.then_some(batch.clone()).ok_or(batch)
                }
                Err(e) => {
                    self.corrupt += 1;
                    if self.corrupt <= CORRUPT_RETRIES {
                        tracing::warn!(topic = %self.topic, partition = %self.partition, error = %e.report(), "fetching again");
                        self.rest(now);
                    } else {
                        let e = self.at(e, self.fetch_offset);
                        self.stop(e);
                    }
                    return;
                }
            };
            any = true;
            let (bytes, next, chunk) = match batch {
                Ok(batch) => (batch.as_bytes().len(), batch.next_offset(), Chunk::Batch(batch)),
                Err(left_out) => (0, left_out.next_offset(), Chunk::Gap(left_out.next_offset())),
            };
            self.fetch_offset = next;
            self.buffered += bytes;
            self.corrupt = 0;
            self.chunks.push_back((bytes, chunk));
        }
        if !any && size > 0 {
            // The broker cut the first batch: it is larger than what was asked for.
            let needed = list.truncated().and_then(|t| t.needed).unwrap_or(0);
            if self.max_bytes >= (1 << 30) {
                let e = Error::new(ErrorKind::TooLarge, format!("a batch takes {needed} bytes"));
                let e = self.at(e, self.fetch_offset);
                return self.stop(e);
            }
            self.max_bytes = self.max_bytes.saturating_mul(2);
            return self.rest(now);
        }
        self.failures = 0;
        self.not_before = None;
    }
}

impl Content {
    fn of(record: &Record<'_>) -> Self {
        Self {
            offset: record.offset(),
            timestamp: record.timestamp(),
            key: record.key_bytes(),
            value: record.value_bytes(),
            headers: record
                .headers()
                .map(|(name, value)| (name.into_owned(), value.map(|v| record.share(v))))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
