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
//!
//! A member of a group is given partitions and loses them as time goes by: [`expect`](Book::expect) takes one in, and once
//! its offset is known [`handle_position`](Book::handle_position) lets it be read. [`release`](Book::release) stops handing it
//! out at once; when what is in hand is settled, or the time for that is up, [`poll_released`](Book::poll_released) names
//! it, the driver commits, and [`finish`](Book::finish) makes every receipt of it stale. [`lose`](Book::lose) does so at
//! once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Instant;

use bytes::Bytes;

use super::health::Ailment;
use super::{Isolation, PartitionPosition};
use crate::codec::record_batch::{BatchView, Records, SharedRecord};
use crate::delivery::{Commit, Outcome};
use crate::kafka::offsets::Place;
use crate::{Error, LeaderEpoch, NodeId, Offset, Partition, ProducerId, Result, Topic};

mod part;

pub(crate) use part::HeldBatch;
use part::{By, Chunk, PARTITION_BYTES, Part, PartNext, State};

/// The receipt of a delivery.
pub(crate) type Receipt = crate::delivery::Receipt<Offset>;

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

/// A record in hand.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) part: usize,
    pub(crate) receipt: Receipt,
    pub(crate) attempt: u32,
    pub(crate) content: SharedRecord,
}

/// What the reader gets.
#[derive(Debug)]
pub(crate) enum Next {
    /// A record, of this topic and partition.
    Record(Topic, Partition, Held),
    /// A batch, of this topic and partition.
    Batch(Topic, Partition, Box<HeldBatch>),
    /// Decompress this, outside of the lock, and give it to [`Book::handle_opened`].
    Open(Compressed),
    /// Something went wrong; reading goes on with the rest.
    Fault(Error),
    /// Nothing now; perhaps at this time.
    Wait(Option<Instant>),
    /// Nothing any more.
    Ended,
}

/// A batch that is to be decompressed.
#[derive(Debug)]
pub(crate) struct Compressed {
    part: usize,
    term: u64,
    batch: BatchView,
}

impl Compressed {
    /// Its size as it is on the wire.
    pub(crate) fn stored(&self) -> usize {
        self.batch.as_bytes().len()
    }

    pub(crate) fn open(self, max_batch_bytes: usize) -> Opened {
        let records = self.batch.records(max_batch_bytes);
        Opened { part: self.part, term: self.term, base: self.batch.base_offset(), records }
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Opened {
    part: usize,
    term: u64,
    base: Offset,
    records: Result<Records>,
}

#[derive(Debug)]
struct Waiting<T>(Instant, u64, T);

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl<T> Eq for Waiting<T> {}
impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Waiting<T> {
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
    /// The leader epoch as this client knows it: the broker refuses another (KIP-320).
    pub(crate) leader_epoch: LeaderEpoch,
    /// The leader epoch of the batch before the offset: the broker tells where the log parted from it.
    pub(crate) last_epoch: LeaderEpoch,
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
    /// The replica that the broker would rather be asked (KIP-392).
    pub(crate) preferred: Option<NodeId>,
}

/// Who leads a partition, and in which epoch.
pub(crate) type Leader = (NodeId, LeaderEpoch);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Book {
    settings: Settings,
    /// A partition keeps its place here for ever, so that a receipt finds it, or finds that it is stale.
    parts: Vec<Part>,
    indices: HashMap<Place, usize>,
    /// Whether partitions may come later.
    open: bool,
    /// Nothing is handed out from here on: others may own the partitions.
    lease: Option<Instant>,
    turn: usize,
    /// The broker that is fetched from first the next time, or the next one after it.
    next_node: NodeId,
    waiting: BinaryHeap<Reverse<Waiting<Held>>>,
    waiting_batches: BinaryHeap<Reverse<Waiting<Box<HeldBatch>>>>,
    counter: u64,
    /// Records handed out or waiting to be handed out again.
    unsettled: usize,
    reserved: usize,
    faults: VecDeque<Error>,
    /// Whether the reader found nothing the last time: then it is to be woken when there is room again.
    waits: bool,
    closed: bool,
}

impl Book {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            parts: Vec::new(),
            indices: HashMap::new(),
            open: false,
            lease: None,
            turn: 0,
            next_node: NodeId(0),
            waiting: BinaryHeap::new(),
            waiting_batches: BinaryHeap::new(),
            counter: 0,
            unsettled: 0,
            reserved: 0,
            faults: VecDeque::new(),
            waits: false,
            closed: false,
        }
    }

    /// A book whose partitions come and go: it does not end for want of them.
    pub(crate) fn open(settings: Settings) -> Self {
        Self { open: true, ..Self::new(settings) }
    }

    /// Adds a partition that is read from `start`; `metadata` is what was committed beside it.
    pub(crate) fn assign(&mut self, place: Place, start: Offset, metadata: Option<&str>) {
        self.expect(std::slice::from_ref(&place));
        if let Some((part, term, _)) = self.finding().into_iter().find(|(_, _, p)| *p == place) {
            self.handle_position(part, term, start, metadata);
        }
    }

    /// These are to be read once their offsets are known.
    pub(crate) fn expect(&mut self, places: &[Place]) {
        for place in places {
            let index = *self.indices.entry(place.clone()).or_insert(self.parts.len());
            match self.parts.get_mut(index) {
                Some(part) => self.unsettled = self.unsettled.saturating_sub(part.expect()),
                None => self.parts.push(Part::new(place.clone())),
            }
        }
    }

    /// The partitions whose offsets are to be found, each with the number of its assignment.
    pub(crate) fn finding(&self) -> Vec<(usize, u64, Place)> {
        let finding = self.parts.iter().enumerate().filter(|(_, p)| p.state == State::Finding);
        finding.map(|(i, p)| (i, p.term, p.place())).collect()
    }

    /// Where a partition begins; `metadata` is what was committed beside the offset.
    pub(crate) fn handle_position(&mut self, part: usize, term: u64, start: Offset, metadata: Option<&str>) {
        if let Some(part) = self.finding_part(part, term) {
            part.begin(start, metadata);
        }
    }

    /// A partition has no offset to begin at.
    pub(crate) fn handle_no_position(&mut self, part: usize, term: u64, error: Error) {
        if let Some(part) = self.finding_part(part, term) {
            part.stop(error);
        }
    }

    fn finding_part(&mut self, part: usize, term: u64) -> Option<&mut Part> {
        self.parts.get_mut(part).filter(|p| p.term == term && p.state == State::Finding)
    }

    /// Until when partitions may be handed out; `None` for ever. Whether that is news.
    pub(crate) fn handle_lease(&mut self, lease: Option<Instant>) -> bool {
        std::mem::replace(&mut self.lease, lease) != lease
    }

    /// No partition comes any more: once what is in hand is settled, the reader is at the end.
    pub(crate) fn handle_end(&mut self) {
        self.open = false;
    }

    /// Hands out nothing more of these. What is in hand has until then to be settled.
    pub(crate) fn release(&mut self, places: &[Place], until: Instant) {
        let mut released = BTreeSet::new();
        for index in places.iter().filter_map(|place| self.indices.get(place)) {
            if let Some(part) = self.parts.get_mut(*index).filter(|p| p.state != State::Gone) {
                part.release(until);
                released.insert(*index);
            }
        }
        self.drop_waiting(&released);
    }

    fn drop_waiting(&mut self, parts: &BTreeSet<usize>) {
        self.waiting.retain(|Reverse(w)| !parts.contains(&w.2.part));
        self.waiting_batches.retain(|Reverse(w)| !parts.contains(&w.2.part));
    }

    /// Those of the released that may go: settled, or out of time. Commit what they have, then [`finish`](Self::finish).
    pub(crate) fn poll_released(&self, now: Instant) -> Vec<Place> {
        let ready = |p: &&Part| match p.state {
            State::Releasing { until } => p.tracker.in_hand() == 0 || until <= now,
            _ => false,
        };
        self.parts.iter().filter(ready).map(Part::place).collect()
    }

    /// Whether the last one in hand of a partition that is to go has been settled.
    pub(crate) fn is_released(&self, part: usize) -> bool {
        let part = self.parts.get(part);
        part.is_some_and(|p| matches!(p.state, State::Releasing { .. }) && p.tracker.in_hand() == 0)
    }

    /// When the time of the first of the released is up.
    pub(crate) fn poll_release_timeout(&self) -> Option<Instant> {
        let until = |p: &Part| match p.state {
            State::Releasing { until } => Some(until),
            _ => None,
        };
        self.parts.iter().filter_map(until).min()
    }

    /// These are released: every receipt is stale. Returns how many deliveries were still in hand.
    pub(crate) fn finish(&mut self, places: &[Place]) -> usize {
        let mut in_hand = 0;
        for index in places.iter().filter_map(|place| self.indices.get(place)) {
            if let Some(part) =
                self.parts.get_mut(*index).filter(|p| matches!(p.state, State::Releasing { .. }))
            {
                in_hand += part.tracker.in_hand();
                self.unsettled = self.unsettled.saturating_sub(part.leave());
            }
        }
        in_hand
    }

    /// These belong to somebody else: nothing of them is handed out, settled or committed any more.
    pub(crate) fn lose(&mut self, places: &[Place]) {
        let mut lost = BTreeSet::new();
        for index in places.iter().filter_map(|place| self.indices.get(place)) {
            if let Some(part) = self.parts.get_mut(*index).filter(|p| p.state != State::Gone) {
                self.unsettled = self.unsettled.saturating_sub(part.leave());
                lost.insert(*index);
            }
        }
        self.drop_waiting(&lost);
    }

    /// The next thing for the reader, record by record, and whether the driver has room for more by it.
    pub(crate) fn poll_next(&mut self, now: Instant) -> (Next, bool) {
        if let Some(next) = self.poll_first(now) {
            return (next, false);
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
        let due = self.waiting.peek().map(|Reverse(w)| w.0);
        self.poll_parts(By::Record, due)
    }

    /// The same, batch by batch.
    pub(crate) fn poll_next_batch(&mut self, now: Instant) -> (Next, bool) {
        if let Some(next) = self.poll_first(now) {
            return (next, false);
        }
        while self.waiting_batches.peek().is_some_and(|Reverse(w)| w.0 <= now) {
            let Some(Reverse(Waiting(_, _, mut held))) = self.waiting_batches.pop() else { break };
            let Some(part) = self.parts.get_mut(held.part) else { continue };
            held.count = part.tracker.take_again_range(held.assignment, held.range.clone());
            if held.count > 0 {
                held.attempt = held.attempt.saturating_add(1);
                return (Next::Batch(part.topic.clone(), part.partition, held), false);
            }
        }
        let due = self.waiting_batches.peek().map(|Reverse(w)| w.0);
        self.poll_parts(By::Batch, due)
    }

    /// What goes before all records.
    fn poll_first(&mut self, now: Instant) -> Option<Next> {
        if self.closed {
            return Some(Next::Ended);
        }
        if let Some(fault) = self.faults.pop_front() {
            return Some(Next::Fault(fault));
        }
        self.lease.is_some_and(|until| until <= now).then_some(Next::Wait(None))
    }

    fn poll_parts(&mut self, by: By, due: Option<Instant>) -> (Next, bool) {
        let mut freed = false;
        self.waits = false;
        if self.unsettled < self.settings.max_in_hand {
            for step in 0..self.parts.len() {
                let index = (self.turn + step) % self.parts.len();
                let Some(part) = self.parts.get_mut(index) else { continue };
                let next = loop {
                    match part.next(by, self.settings.max_batch_bytes, &mut freed) {
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
                        let held = Held { part: index, receipt, attempt: 1, content };
                        return (Next::Record(part.topic.clone(), part.partition, held), freed);
                    }
                    PartNext::Batch(mut held) => {
                        self.turn = index + 1;
                        self.unsettled += held.count;
                        held.part = index;
                        return (Next::Batch(part.topic.clone(), part.partition, Box::new(held)), freed);
                    }
                    PartNext::Open(batch) => {
                        self.turn = index;
                        return (Next::Open(Compressed { part: index, term: part.term, batch }), freed);
                    }
                    PartNext::Fault(e) => return (Next::Fault(e), freed),
                    PartNext::Restarted(_) | PartNext::Nothing => {}
                }
            }
        }
        let ended = |p: &Part| match p.state {
            State::Stopped => p.chunks.is_empty(),
            state => state == State::Gone,
        };
        if !self.open && self.unsettled == 0 && self.parts.iter().all(ended) {
            return (Next::Ended, freed);
        }
        self.waits = true;
        (Next::Wait(due), freed)
    }

    /// Whether the reader waits for what a settled delivery makes room for.
    pub(crate) fn reader_waits(&self) -> bool {
        self.waits
    }

    /// Whether the reader has to know the time: for leases, and for what comes again.
    pub(crate) fn wants_time(&self) -> bool {
        self.lease.is_some() || !self.waiting.is_empty() || !self.waiting_batches.is_empty()
    }

    /// A batch has been decompressed, or cannot be.
    pub(crate) fn handle_opened(&mut self, opened: Opened) {
        let Some(part) = self.parts.get_mut(opened.part) else { return };
        // Revoked, sought elsewhere, closed meanwhile: of no interest.
        if part.term != opened.term || !part.opens(opened.base) {
            return;
        }
        let mut freed = false;
        if let Some(e) = part.open(opened.records, &mut freed) {
            self.handle_trouble(e);
        }
    }

    /// Stops or starts handing out these partitions, and fetching them. Gives back those that are not assigned.
    pub(crate) fn pause(&mut self, places: &[Place], paused: bool) -> Vec<Place> {
        let mut unknown = Vec::new();
        for place in places {
            match self.assigned_part(place) {
                Some(part) => part.paused = paused,
                None => unknown.push(place.clone()),
            }
        }
        unknown
    }

    /// The paused partitions.
    pub(crate) fn paused(&self) -> Vec<Place> {
        self.assigned().filter(|p| p.paused).map(Part::place).collect()
    }

    /// Reads a partition from another offset on: what is in hand of it is stale. `false` if it is not assigned.
    pub(crate) fn seek(&mut self, place: &Place, to: Offset) -> bool {
        let Some(index) = self.indices.get(place).copied() else { return false };
        let Some(part) = self.assigned_part(place) else { return false };
        let dropped = part.seek(to);
        self.unsettled = self.unsettled.saturating_sub(dropped);
        self.drop_waiting(&BTreeSet::from([index]));
        true
    }

    /// A partition that is read, and not about to go.
    fn assigned_part(&mut self, place: &Place) -> Option<&mut Part> {
        let part = self.parts.get_mut(*self.indices.get(place)?)?;
        (!matches!(part.state, State::Gone | State::Releasing { .. })).then_some(part)
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
    pub(crate) fn give_back(&mut self, held: Held, due: Instant) -> Outcome {
        let Some(p) = self.parts.get_mut(held.part) else { return Outcome::Unknown };
        let outcome = p.tracker.give_back(held.receipt);
        let releasing = matches!(p.state, State::Releasing { .. });
        if outcome == Outcome::Done && !self.closed && !releasing {
            self.counter += 1;
            self.waiting.push(Reverse(Waiting(due, self.counter, held)));
        }
        outcome
    }

    /// Settles those of a batch up to this offset; how many became settled by it, or `None` if the batch is stale.
    pub(crate) fn ack_batch(&mut self, held: &HeldBatch, range: RangeInclusive<Offset>) -> Option<usize> {
        let part = self.parts.get_mut(held.part)?;
        if !part.tracker.is_assigned() || part.tracker.assignment() != held.assignment {
            return None;
        }
        let count = part.tracker.ack_range(held.assignment, range);
        self.unsettled = self.unsettled.saturating_sub(count);
        Some(count)
    }

    /// Takes a batch back, to be handed out again at `due`. Whether it was this assignment's.
    pub(crate) fn give_back_batch(&mut self, held: Box<HeldBatch>, due: Instant) -> bool {
        let Some(part) = self.parts.get_mut(held.part) else { return false };
        let count = part.tracker.give_back_range(held.assignment, held.range.clone());
        let releasing = matches!(part.state, State::Releasing { .. });
        if count > 0 && !self.closed && !releasing {
            self.counter += 1;
            self.waiting_batches.push(Reverse(Waiting(due, self.counter, held)));
        }
        count > 0
    }

    /// What to fetch now: one request for each broker that is free.
    pub(crate) fn poll_fetch(
        &mut self,
        now: Instant,
        leader: impl Fn(&Topic, Partition) -> Option<Leader>,
        free: impl Fn(NodeId) -> bool,
    ) -> (Vec<Fetch>, Vec<Topic>) {
        let mut asks: BTreeMap<NodeId, Vec<Ask>> = BTreeMap::new();
        let mut leaderless = Vec::new();
        if self.closed {
            return (Vec::new(), leaderless);
        }
        for (index, part) in self.parts.iter_mut().enumerate() {
            part.look(false, now);
            let resting = part.not_before.is_some_and(|at| at > now);
            let idle = part.in_flight || part.paused || resting || part.buffered >= PARTITION_BYTES;
            if part.state != State::Fetching || idle {
                continue;
            }
            let Some((leads, leader_epoch)) = leader(&part.topic, part.partition) else {
                part.look(true, now);
                if !leaderless.contains(&part.topic) {
                    leaderless.push(part.topic.clone());
                }
                continue;
            };
            let node = part.replica(now).unwrap_or(leads);
            if free(node) {
                asks.entry(node).or_default().push(Ask {
                    part: index,
                    place: (part.topic.clone(), part.partition),
                    offset: part.fetch_offset,
                    max_bytes: part.max_bytes,
                    leader_epoch,
                    last_epoch: part.last_epoch,
                });
            }
        }
        let mut fetches = Vec::new();
        if asks.is_empty() {
            return (fetches, leaderless);
        }
        // Each broker has its share, so that those with nothing new, whose answers take long, leave room for the others;
        // and another one begins each time, so that all have their turn where the shares are too small.
        let brokers: BTreeSet<NodeId> =
            self.assigned().filter_map(|p| leader(&p.topic, p.partition)).map(|(node, _)| node).collect();
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
            if let Some(node) = fetched.preferred {
                part.prefer(node, now);
            }
            part.take_in(fetched, isolation, now);
        }
    }

    /// The partition cannot be fetched now; try again after a pause.
    pub(crate) fn handle_retry(&mut self, ask: &Ask, now: Instant) {
        if let Some(part) = self.parts.get_mut(ask.part) {
            part.forget_replica();
            part.rest(now);
        }
    }

    /// Nothing new: the broker left the partition out.
    pub(crate) fn handle_nothing(&mut self, ask: &Ask) {
        if let Some(part) = self.parts.get_mut(ask.part) {
            part.handle_nothing();
        }
    }

    /// The offset is not in the log. A replica that is not the leader may just be behind: then the leader is asked.
    pub(crate) fn handle_lost(&mut self, ask: &Ask) {
        if let Some(part) = self.parts.get_mut(ask.part).filter(|p| p.state == State::Fetching)
            && part.fetch_offset == ask.offset
            && !part.forget_replica()
        {
            part.state = State::OutOfRange;
        }
    }

    /// The log was cut back under what was read: it parted from it at this offset (KIP-320). What follows is new.
    pub(crate) fn handle_truncated(&mut self, ask: &Ask, to: Offset) {
        let Some(part) = self.parts.get_mut(ask.part).filter(|p| p.state == State::Fetching) else { return };
        if part.fetch_offset == ask.offset {
            part.truncate(to);
        }
    }

    /// The partitions that wait for another offset.
    pub(crate) fn lost(&self) -> Vec<(usize, Place, Offset)> {
        let lost = self.parts.iter().enumerate().filter(|(_, p)| p.state == State::OutOfRange);
        lost.map(|(i, p)| (i, (p.topic.clone(), p.partition), p.fetch_offset)).collect()
    }

    /// The offset from which a partition goes on.
    pub(crate) fn handle_reset(&mut self, part: usize, to: Offset) {
        let Some(part) = self.parts.get_mut(part).filter(|p| p.state == State::OutOfRange) else { return };
        let chunk = if to >= part.fetch_offset { Chunk::Gap(to) } else { Chunk::Restart(to) };
        part.go_on(chunk, to);
    }

    /// The partition cannot go on: behind what was fetched stands this error.
    pub(crate) fn handle_fault(&mut self, part: usize, error: Error) {
        if let Some(part) = self.parts.get_mut(part) {
            part.stop(error);
        }
    }

    /// A record in hand makes no sense: the partition stops, and the reader is told at once.
    pub(crate) fn handle_damage(&mut self, held: &HeldBatch, error: Error) {
        let Some(part) = self.parts.get_mut(held.part) else { return };
        if part.tracker.is_assigned() && part.tracker.assignment() == held.assignment {
            // In nobody's hands, and not to come again.
            let count = part.tracker.give_back_range(held.assignment, held.range.clone());
            self.unsettled = self.unsettled.saturating_sub(count);
            part.forget();
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
        self.waiting_batches.clear();
        for part in &mut self.parts {
            part.forget();
        }
    }

    /// Every receipt is stale from here on.
    pub(crate) fn revoke(&mut self) {
        for part in &mut self.parts {
            part.leave();
        }
        self.unsettled = 0;
    }

    pub(crate) fn topics(&self) -> Vec<Topic> {
        let mut topics: Vec<Topic> = self.assigned().map(|p| p.topic.clone()).collect();
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
        self.assigned().map(position).collect()
    }

    fn assigned(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|p| p.state != State::Gone)
    }

    /// What is wrong with the partitions, and since when where that is known.
    pub(crate) fn ailments(&self) -> Vec<(Ailment, Option<Instant>)> {
        self.assigned().flat_map(Part::ailments).collect()
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled
    }
}

#[cfg(test)]
mod tests;
