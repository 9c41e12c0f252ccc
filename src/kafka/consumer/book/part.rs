//! One partition of the book: what was fetched of it, in log order, and what of it is settled. Pure.
//!
//! ```text
//!   Gone --expect--> Finding --offset--> Fetching <--offset-- OutOfRange
//!    ^                  |                 |  |  \____________/^
//!    |                  v                 v  +--fault--> Stopped
//!    +---finish---- Releasing <-----------+----------------+        any --lose--> Gone
//! ```

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::{Fetched, Receipt};
use crate::codec::compression::Compression;
use crate::codec::record_batch::{BatchList, BatchView, Cursor, Records, SharedRecord};
use crate::delivery::{AckTracker, Assignment, Limits, Received};
use crate::kafka::consumer::Isolation;
use crate::kafka::consumer::health::Ailment;
use crate::kafka::consumer::isolation::Aborted;
use crate::kafka::offsets::Place;
use crate::{Error, ErrorKind, LeaderEpoch, NodeId, Offset, Partition, Result, Topic};

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How often a batch that does not check out is fetched again before it counts as damaged at the broker.
pub(super) const CORRUPT_RETRIES: u32 = 2;
/// How many records may be settled beyond one that is not: at most 8 MiB a partition, where that many are.
const MAX_OUTSTANDING: usize = 1 << 18;
/// For how long a replica that the leader named is asked before the leader is asked again.
const REPLICA_FOR: Duration = Duration::from_secs(300);
/// A partition with this much fetched is not fetched further.
pub(super) const PARTITION_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) enum Chunk {
    Batch(BatchView),
    Open(Cursor, Offset),
    /// The log holds nothing for the application below this offset.
    Gap(Offset),
    /// The log was cut back: what is at this offset and after it is new.
    Restart(Offset),
    Fault(Error),
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum State {
    /// Not assigned.
    Gone,
    /// The driver looks for the offset at which it begins.
    Finding,
    Fetching,
    /// The offset is not in the log; the driver finds another.
    OutOfRange,
    /// A fault stands in line, or was handed out.
    Stopped,
    /// It is to go: nothing is handed out, and what is in hand may be settled until then.
    Releasing {
        until: Instant,
    },
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) topic: Topic,
    pub(super) partition: Partition,
    pub(super) tracker: AckTracker<Offset>,
    pub(super) state: State,
    /// Counts assignments: what was asked for an older one is of no interest.
    pub(super) term: u64,
    /// Handed out and fetched no more until it is resumed.
    pub(super) paused: bool,
    pub(super) in_flight: bool,
    pub(super) fetch_offset: Offset,
    /// The leader epoch of the batch before it.
    pub(super) last_epoch: LeaderEpoch,
    /// The replica to ask in place of the leader, and for how long.
    replica: Option<(NodeId, Instant)>,
    pub(super) chunks: VecDeque<(usize, Chunk)>,
    pub(super) buffered: usize,
    pub(super) end: Option<Offset>,
    pub(super) not_before: Option<Instant>,
    failures: u32,
    /// Since when it cannot be fetched.
    failing: Option<Instant>,
    /// The watermark as it was, and since when; `None` where nothing waits.
    still: Option<(Offset, Instant)>,
    /// Since when it has been seen stopped.
    halted: Option<Instant>,
    corrupt: u32,
    pub(super) max_bytes: usize,
}

pub(super) enum PartNext {
    Record(Receipt, SharedRecord),
    Batch(HeldBatch),
    /// To be decompressed by the caller, outside of the lock.
    Open(BatchView),
    Fault(Error),
    /// So many unsettled ones are of no concern any more.
    Restarted(usize),
    Nothing,
}

/// Which way the partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Record,
    Batch,
}

/// The records of one batch in hand; those within the range that were not done before.
#[derive(Debug, Clone)]
pub(crate) struct HeldBatch {
    pub(crate) part: usize,
    pub(crate) assignment: Assignment,
    pub(crate) records: Records,
    pub(crate) range: RangeInclusive<Offset>,
    /// How many.
    pub(crate) count: usize,
    /// Offsets within the range that were done before a restart, ascending.
    pub(crate) done: Vec<Offset>,
    pub(crate) attempt: u32,
}

impl Part {
    /// Assigned, its offset not known yet.
    pub(super) fn new((topic, partition): Place) -> Self {
        let limits = Limits::default().max_outstanding(MAX_OUTSTANDING);
        let mut tracker = AckTracker::for_offsets(Assignment(0), Offset(0), limits);
        let _ = tracker.revoke();
        Self {
            topic,
            partition,
            tracker,
            state: State::Finding,
            term: 1,
            paused: false,
            in_flight: false,
            fetch_offset: Offset(0),
            last_epoch: LeaderEpoch::UNKNOWN,
            replica: None,
            chunks: VecDeque::new(),
            buffered: 0,
            end: None,
            not_before: None,
            failures: 0,
            failing: None,
            still: None,
            halted: None,
            corrupt: 0,
            max_bytes: PARTITION_BYTES,
        }
    }

    pub(super) fn place(&self) -> Place {
        (self.topic.clone(), self.partition)
    }

    /// Assigned anew. Returns how many unsettled ones are of no concern any more.
    pub(super) fn expect(&mut self) -> usize {
        let dropped = self.leave();
        self.term += 1;
        self.state = State::Finding;
        self.paused = false;
        self.end = None;
        self.not_before = None;
        self.failures = 0;
        self.failing = None;
        self.still = None;
        self.corrupt = 0;
        self.max_bytes = PARTITION_BYTES;
        self.replica = None;
        dropped
    }

    /// Reads from here.
    pub(super) fn begin(&mut self, start: Offset, metadata: Option<&str>) {
        let assignment = self.tracker.assignment().next();
        if let Err(e) = self.tracker.reassign(assignment, start) {
            return self.stop(e);
        }
        if let Some(metadata) = metadata.filter(|m| !m.is_empty()) {
            let restored = self.tracker.restore(metadata);
            tracing::debug!(topic = %self.topic, partition = %self.partition, ?restored, "commit metadata");
        }
        self.fetch_offset = start;
        self.last_epoch = LeaderEpoch::UNKNOWN;
        self.state = State::Fetching;
    }

    /// The log goes on elsewhere, behind what was fetched.
    pub(super) fn go_on(&mut self, chunk: Chunk, to: Offset) {
        self.chunks.push_back((0, chunk));
        self.fetch_offset = to;
        self.last_epoch = LeaderEpoch::UNKNOWN;
        self.state = State::Fetching;
    }

    /// What was fetched from this offset on is not in the log any more.
    pub(super) fn truncate(&mut self, to: Offset) {
        if to >= self.fetch_offset {
            // Nothing of what was read is gone.
            self.last_epoch = LeaderEpoch::UNKNOWN;
            return;
        }
        tracing::warn!(topic = %self.topic, partition = %self.partition, from = %self.fetch_offset, %to, "the log was cut back under what was read: reading goes on from where it parted");
        self.forget();
        self.go_on(Chunk::Restart(to), to);
    }

    /// The replica to ask, where it is not the leader.
    pub(super) fn replica(&self, now: Instant) -> Option<NodeId> {
        self.replica.filter(|(_, until)| *until > now).map(|(node, _)| node)
    }

    pub(super) fn prefer(&mut self, node: NodeId, now: Instant) {
        self.replica = Some((node, now + REPLICA_FOR));
    }

    /// Whether one was asked.
    pub(super) fn forget_replica(&mut self) -> bool {
        self.replica.take().is_some()
    }

    pub(super) fn handle_nothing(&mut self) {
        self.failures = 0;
        self.failing = None;
        self.not_before = None;
    }

    /// Takes note of whether the watermark moves while there is something to settle, or a leader is missing.
    pub(super) fn look(&mut self, leaderless: bool, now: Instant) {
        if leaderless {
            self.failing.get_or_insert(now);
        }
        self.halted = (self.state == State::Stopped).then(|| self.halted.unwrap_or(now));
        let at = self.tracker.watermark();
        let waits = self.state == State::Fetching && !self.paused && self.end.is_some_and(|end| at < end);
        self.still = match self.still {
            _ if !waits => None,
            Some((before, since)) if before == at => Some((at, since)),
            _ => Some((at, now)),
        };
    }

    /// What is wrong with it, and since when.
    pub(super) fn ailments(&self) -> impl Iterator<Item = (Ailment, Option<Instant>)> {
        let place = || (self.topic.clone(), self.partition);
        let failing = self.failing.map(|since| {
            let (topic, partition) = place();
            (Ailment::Unreachable(topic, partition), Some(since))
        });
        let still = self.still.map(|(at, since)| {
            let (topic, partition) = place();
            (Ailment::NoProgress(topic, partition, at), Some(since))
        });
        let stopped = (self.state == State::Stopped).then(|| {
            let (topic, partition) = place();
            (Ailment::Stopped(topic, partition), self.halted)
        });
        failing.into_iter().chain(still).chain(stopped)
    }

    /// Goes on from another offset. Returns how many unsettled ones are of no concern any more.
    pub(super) fn seek(&mut self, to: Offset) -> usize {
        let paused = self.paused;
        let dropped = self.expect();
        self.paused = paused;
        self.begin(to, None);
        dropped
    }

    /// Hands out nothing more.
    pub(super) fn release(&mut self, until: Instant) {
        self.forget();
        self.state = State::Releasing { until };
    }

    /// Not assigned any more. Returns how many unsettled ones are of no concern any more.
    pub(super) fn leave(&mut self) -> usize {
        let dropped = self.tracker.in_hand() + self.tracker.returned();
        let _ = self.tracker.revoke();
        self.forget();
        self.state = State::Gone;
        dropped
    }

    /// Forgets what was fetched and not handed out.
    pub(super) fn forget(&mut self) {
        self.chunks.clear();
        self.buffered = 0;
    }

    pub(super) fn next(&mut self, by: By, max_batch_bytes: usize, freed: &mut bool) -> PartNext {
        if self.paused {
            return PartNext::Nothing;
        }
        while let Some((_, chunk)) = self.chunks.front_mut() {
            match chunk {
                Chunk::Batch(batch) if batch.compression() != Compression::None => {
                    return PartNext::Open(batch.clone());
                }
                Chunk::Batch(batch) => {
                    let opened = batch.records(max_batch_bytes);
                    if let Some(e) = self.open(opened, freed) {
                        return PartNext::Fault(e);
                    }
                }
                Chunk::Open(..) if !self.tracker.has_room() => return PartNext::Nothing,
                Chunk::Open(cursor, next) if by == By::Record => {
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
                                return PartNext::Record(receipt, record.share_all());
                            }
                        }
                    }
                }
                Chunk::Open(cursor, next) => {
                    let (records, next) = (cursor.records().clone(), *next);
                    match self.take_batch(records, next, freed) {
                        Ok(Some(held)) => return PartNext::Batch(held),
                        Ok(None) => {}
                        Err(e) => {
                            let at = self.tracker.next();
                            let e = self.at(e, at);
                            return self.fail(e, freed);
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

    /// The first batch has been decompressed, or cannot be; then the error is to be told.
    pub(super) fn open(&mut self, opened: Result<Records>, freed: &mut bool) -> Option<Error> {
        let Some((_, chunk @ Chunk::Batch(_))) = self.chunks.front_mut() else { return None };
        let Chunk::Batch(batch) = &*chunk else { return None };
        let (at, next) = (batch.base_offset(), batch.next_offset());
        match opened {
            Ok(records) => {
                *chunk = Chunk::Open(records.into_cursor(), next);
                None
            }
            Err(e) => {
                let e = self.at(e, at);
                match self.fail(e, freed) {
                    PartNext::Fault(e) => Some(e),
                    _ => None,
                }
            }
        }
    }

    /// Whether the first batch is this one, and waits to be decompressed.
    pub(super) fn opens(&self, base: Offset) -> bool {
        matches!(self.chunks.front(), Some((_, Chunk::Batch(batch))) if batch.base_offset() == base)
    }

    /// Takes what is left of a batch in hand, as far as there is room for it.
    fn take_batch(&mut self, records: Records, next: Offset, freed: &mut bool) -> Result<Option<HeldBatch>> {
        let count = records.len();
        let first = Offset(next.0.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)));
        let held = |range, count, done, tracker: &AckTracker<Offset>| HeldBatch {
            part: 0,
            assignment: tracker.assignment(),
            records: records.clone(),
            range,
            count,
            done,
            attempt: 1,
        };
        // The usual batch: as many records as offsets, all of them new.
        if records.base_offset() == first && self.tracker.receive_run(first, count, records.as_bytes().len())
        {
            let held = held(first..=Offset(next.0 - 1), count, Vec::new(), &self.tracker);
            self.drop_front(freed);
            return Ok(Some(held));
        }
        let mut range: Option<(Offset, Offset)> = None;
        let (mut count, mut done) = (0, Vec::new());
        for record in &records {
            let record = record?;
            if record.offset() < self.tracker.next() {
                continue;
            }
            let size = record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len);
            let offset = record.offset();
            match self.tracker.receive(offset, size) {
                Received::Fresh(_) => count += 1,
                Received::Skip => done.push(offset),
                _ => {
                    // No room: the rest stays for the next time.
                    return Ok(range.map(|(from, to)| held(from..=to, count, done, &self.tracker)));
                }
            }
            range = Some((range.map_or(offset, |(from, _)| from), offset));
        }
        self.tracker.skip_to(next);
        self.drop_front(freed);
        Ok(range.filter(|_| count > 0).map(|(from, to)| held(from..=to, count, done, &self.tracker)))
    }

    fn drop_front(&mut self, freed: &mut bool) {
        if let Some((size, _)) = self.chunks.pop_front() {
            self.buffered = self.buffered.saturating_sub(size);
            *freed = true;
        }
    }

    fn fail(&mut self, e: Error, freed: &mut bool) -> PartNext {
        self.state = State::Stopped;
        self.forget();
        *freed = true;
        PartNext::Fault(e)
    }

    pub(super) fn stop(&mut self, e: Error) {
        if matches!(self.state, State::Finding | State::Fetching | State::OutOfRange) {
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

    pub(super) fn rest(&mut self, now: Instant) {
        let pause = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.failing.get_or_insert(now);
        self.not_before = Some(now + pause);
    }

    pub(super) fn take_in(&mut self, fetched: Fetched, isolation: Isolation, now: Instant) {
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
            let epoch = match &batch {
                Ok(batch) | Err(batch) => batch.leader_epoch(),
            };
            let (bytes, next, chunk) = match batch {
                Ok(batch) => (batch.as_bytes().len(), batch.next_offset(), Chunk::Batch(batch)),
                Err(left_out) => (0, left_out.next_offset(), Chunk::Gap(left_out.next_offset())),
            };
            self.fetch_offset = next;
            self.last_epoch = epoch;
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
        self.handle_nothing();
    }
}
