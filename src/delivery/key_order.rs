//! Which item may run now, so that items of one key never overtake each other.
//!
//! An item joins the *lane* of its key. At most one item of a lane runs at a time; the others wait behind it in the
//! order of their submission. Lanes that can run take turns: each runs one item, then goes to the end of the line, so a
//! hot key does not starve the others.
//!
//! ```text
//!          submit              poll_ready              complete, nothing behind
//!   (none) ------> Ready ------------------> Running -------------------------> (none)
//!                    ^                        |   |
//!                    |  complete, more behind |   | retry_at(due)
//!                    +------------------------+   v
//!                    +------------------------- Waiting
//!                         poll_ready, due <= now
//! ```
//!
//! An item that failed and shall be tried again goes back to the *head* of its lane: the lane waits until it is due and
//! nothing of the key overtakes it. Other lanes run on.
//!
//! What counts as one lane is set by [`Order`], and by the [`Scope`] that the caller gives with each item: one for each
//! assignment of a partition. So the same key in two topics makes two lanes, and a revoked partition can be taken out.
//!
//! # Cost and memory
//!
//! Each call is O(log n) in the number of lanes. The number of items, queued, waiting and running together, is bounded by
//! `capacity`; a lane takes about 200 bytes plus its items, and is gone with its last item. Keys are not held: a
//! lane knows the 64-bit hash of its key. Two keys with the same hash share a lane, which orders them needlessly and
//! does no other harm.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

/// Within what items keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Items of one scope with the same key. Items without a key have no order. The default.
    #[default]
    ByKey,
    /// All items of one scope.
    ByPartition,
    /// None: every item runs as soon as there is a free place.
    Unordered,
}

/// What a key is unique in: one assignment of one partition, or one queue. The caller numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub u64);

/// The lane of an item that runs. To be given back with [`KeyOrder::complete`] or [`KeyOrder::retry_at`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    lane: LaneId,
    run: u64,
}

impl Ticket {
    /// The scope of the item.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.lane.0
    }
}

/// What became of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Completed<T> {
    /// The place is free, and the next item of the lane, if any, may run.
    Done,
    /// The place is free; the item's scope was removed while it ran. A retried item is given back: it is not queued.
    Removed(Option<T>),
    /// No such item runs: the ticket was used before. Nothing changed; a retried item is given back.
    Unknown(Option<T>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Within {
    Key(u64),
    Whole,
    /// An item without order has a lane of its own.
    Alone(u64),
}

type LaneId = (Scope, Within);

#[derive(Debug)]
struct Lane<T> {
    state: LaneState,
    /// `None` while it runs.
    head: Option<T>,
    /// Does not allocate while empty, as most lanes are.
    rest: VecDeque<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    Ready { turn: u64 },
    Running { run: u64 },
    Waiting { due: Instant, turn: u64 },
}

/// The scheduler; see the [module](self). `T` is what the caller wants back when the item may run.
#[derive(Debug)]
pub struct KeyOrder<T> {
    order: Order,
    capacity: usize,
    concurrency: usize,
    lanes: BTreeMap<LaneId, Lane<T>>,
    /// Lanes that may run, by turn.
    ready: BTreeMap<u64, LaneId>,
    /// Lanes that wait, by due time, then by turn.
    waiting: BTreeMap<(Instant, u64), LaneId>,
    /// Items that run although their scope was removed.
    removed: BTreeSet<u64>,
    /// All but the running ones.
    queued: usize,
    running: usize,
    /// Numbers turns, runs and lanes.
    counter: u64,
}

impl<T> KeyOrder<T> {
    /// A scheduler that runs up to `concurrency` items at once and holds up to `capacity`, the running ones included.
    /// 0 counts as 1, and a capacity below the concurrency as the concurrency.
    #[must_use]
    pub fn new(order: Order, concurrency: usize, capacity: usize) -> Self {
        let concurrency = concurrency.max(1);
        Self {
            order,
            capacity: capacity.max(concurrency),
            concurrency,
            lanes: BTreeMap::new(),
            ready: BTreeMap::new(),
            waiting: BTreeMap::new(),
            removed: BTreeSet::new(),
            queued: 0,
            running: 0,
            counter: 0,
        }
    }

    /// Items held: queued, waiting and running.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queued + self.running
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items that run, those of removed scopes included.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Items that do not run: behind another one, waiting for their time, or for a free place.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Lanes whose head may run now, as far as the last [`poll_ready`](Self::poll_ready) knows.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Lanes whose head waits for its time.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether [`submit`](Self::submit) would take another item.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.len() < self.capacity
    }

    /// Puts an item behind those of its lane. [`poll_ready`](Self::poll_ready) hands it out when it may run.
    ///
    /// # Errors
    /// The item itself if there is no room; nothing changed.
    pub fn submit(&mut self, scope: Scope, key: Option<&[u8]>, item: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(item);
        }
        let within = match (self.order, key) {
            (Order::ByKey, Some(key)) => Within::Key(hash(key)),
            (Order::ByPartition, _) => Within::Whole,
            (Order::ByKey, None) | (Order::Unordered, _) => Within::Alone(self.count()),
        };
        let id = (scope, within);
        self.queued += 1;
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.rest.push_back(item);
        } else {
            let turn = self.count();
            let lane = Lane { state: LaneState::Ready { turn }, head: Some(item), rest: VecDeque::new() };
            self.lanes.insert(id, lane);
            self.ready.insert(turn, id);
        }
        Ok(())
    }

    /// The next item that may run now. The lanes take turns in the order in which they joined the line; one that waited
    /// and is due at `now` keeps the turn it had when it was put back.
    /// `None` if no lane can run, or `concurrency` items run.
    pub fn poll_ready(&mut self, now: Instant) -> Option<(Ticket, T)> {
        if self.running >= self.concurrency {
            return None;
        }
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, turn), id) = entry.remove_entry();
            self.set_ready(id, turn);
        }
        while let Some((_, id)) = self.ready.pop_first() {
            let run = self.count();
            // A lane in the line is there and has a head; a lane without would only lose its turn.
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let Some(item) = lane.head.take() else { continue };
            lane.state = LaneState::Running { run };
            self.queued -= 1;
            self.running += 1;
            return Some((Ticket { lane: id, run }, item));
        }
        None
    }

    /// When the next waiting lane is due: the time to call [`poll_ready`](Self::poll_ready) again at the latest.
    #[must_use]
    pub fn poll_next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// An item has run to its end: it is settled, or given up. The next of its lane may run.
    pub fn complete(&mut self, ticket: Ticket) -> Completed<T> {
        match self.end_run(ticket) {
            Some(true) => {}
            Some(false) => return Completed::Removed(None),
            None => return Completed::Unknown(None),
        }
        let turn = self.count();
        if let Some(lane) = self.lanes.get_mut(&ticket.lane) {
            lane.head = lane.rest.pop_front();
            if lane.head.is_some() {
                self.set_ready(ticket.lane, turn);
            } else {
                self.lanes.remove(&ticket.lane);
            }
        }
        Completed::Done
    }

    /// An item has run and shall run again at `due`. It goes to the head of its lane, which waits until then.
    pub fn retry_at(&mut self, ticket: Ticket, item: T, due: Instant) -> Completed<T> {
        match self.end_run(ticket) {
            Some(true) => {}
            Some(false) => return Completed::Removed(Some(item)),
            None => return Completed::Unknown(Some(item)),
        }
        let turn = self.count();
        if let Some(lane) = self.lanes.get_mut(&ticket.lane) {
            lane.head = Some(item);
            lane.state = LaneState::Waiting { due, turn };
            self.waiting.insert((due, turn), ticket.lane);
            self.queued += 1;
        }
        Completed::Done
    }

    /// Takes all items of a scope out that do not run, in the order of each lane, for a partition that was revoked.
    /// Those that run go on and free their place when they end.
    pub fn remove(&mut self, scope: Scope) -> Vec<T> {
        let range = (scope, Within::Key(0))..=(scope, Within::Alone(u64::MAX));
        let ids: Vec<LaneId> = self.lanes.range(range).map(|(id, _)| *id).collect();
        self.take_out(ids)
    }

    /// Takes all items out that do not run, for a stop.
    pub fn remove_all(&mut self) -> Vec<T> {
        let ids = self.lanes.keys().copied().collect();
        self.take_out(ids)
    }

    fn take_out(&mut self, ids: Vec<LaneId>) -> Vec<T> {
        let mut items = Vec::new();
        for id in ids {
            let Some(lane) = self.lanes.remove(&id) else { continue };
            match lane.state {
                LaneState::Ready { turn } => {
                    self.ready.remove(&turn);
                }
                LaneState::Running { run } => {
                    self.removed.insert(run);
                }
                LaneState::Waiting { due, turn } => {
                    self.waiting.remove(&(due, turn));
                }
            }
            items.extend(lane.head);
            items.extend(lane.rest);
        }
        self.queued = self.queued.saturating_sub(items.len());
        items
    }

    /// Frees the place of a ticket: `Some(true)` if its lane goes on, `Some(false)` if it was removed, `None` if no
    /// such item runs.
    fn end_run(&mut self, ticket: Ticket) -> Option<bool> {
        let state = self.lanes.get(&ticket.lane).map(|lane| lane.state);
        let goes_on = state == Some(LaneState::Running { run: ticket.run });
        if !goes_on && !self.removed.remove(&ticket.run) {
            return None;
        }
        self.running -= 1;
        Some(goes_on)
    }

    fn set_ready(&mut self, id: LaneId, turn: u64) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.state = LaneState::Ready { turn };
            self.ready.insert(turn, id);
        }
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

/// Without a random seed: which keys share a lane by chance does not change from run to run.
fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
