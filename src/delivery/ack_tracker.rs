//! The ack tracker: from acknowledgements in any order to the one position that may be committed.
//!
//! One tracker stands for one Kafka partition ([`AckTracker::for_offsets`]) or one AMQP channel
//! ([`AckTracker::for_tags`]). Positions are received in ascending order, with gaps where the log has none (compaction,
//! transaction markers). Each one received takes a slot in a ring, in the order of arrival:
//!
//! ```text
//!              ack                                   the ring, oldest first
//!   InHand ----------------> Settled       +---+---+---+---+---+---+
//!    |  ^                      ^           | H | S | S | R | S | H |      next
//!    |  | take_again           |           +---+---+---+---+---+---+
//!    v  |                      |             ^                       ^
//!   Returned ------------------+             watermark               next receive
//!           (give_back)   ack
//! ```
//!
//! The slots that are settled at the head of the ring leave it. The *watermark* is the position of the slot at the
//! head, and the next position to read where the ring is empty. So it moves only over settled ones, and after
//! everything is settled it is the last received plus one: what Kafka calls the committed offset.
//!
//! # Order of calls
//!
//! 1. [`for_offsets`](AckTracker::for_offsets), then [`restore`](AckTracker::restore) with the metadata found beside
//!    the committed offset.
//! 2. For each record read: [`has_room`](AckTracker::has_room), then [`receive`](AckTracker::receive), which hands out
//!    a [`Receipt`]. For what the log holds but no record is delivered for: [`skip_to`](AckTracker::skip_to).
//! 3. In any order: [`ack`](AckTracker::ack), [`give_back`](AckTracker::give_back) and
//!    [`take_again`](AckTracker::take_again), by receipt.
//! 4. At intervals [`poll_commit`](AckTracker::poll_commit), and [`handle_committed`](AckTracker::handle_committed)
//!    once the broker took it. A commit that failed needs no call: the next poll gives it again.
//!    AMQP: [`poll_ack`](AckTracker::poll_ack) until it gives `None`.
//! 5. On a rebalance or a seek: [`revoke`](AckTracker::revoke), which gives the last commit, and perhaps later
//!    [`reassign`](AckTracker::reassign).
//!
//! Calls out of this order, twice, or with receipts of an older assignment change nothing and say so in what they
//! return. None of them panics.
//!
//! # Cost
//!
//! `receive`, `ack` by receipt and the watermark are O(1) amortised, whatever the order. Memory is 16 bytes a slot; the
//! ring doubles when it is full and halves when nearly empty, so at most 32 bytes for each of
//! [`Limits::max_outstanding`]. With tags, another 8 bytes (at most 32) for each acknowledged out of order and not
//! yet polled. Records themselves are not held here.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use crate::{Error, ErrorKind, Result};

mod offsets;
mod tags;
mod types;

pub use offsets::Commit;
pub use tags::Ack;
pub use types::{Assignment, Limits, Outcome, Position, Receipt, Received};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Handed out and not settled.
    InHand,
    /// Given back by its holder; it has to be handed out again.
    Returned,
    /// Settled by an ack.
    Settled,
    /// Settled, and nobody has to be told: reported alone, rejected, or done before a restart.
    Told,
}

impl State {
    fn is_settled(self) -> bool {
        matches!(self, Self::Settled | Self::Told)
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    rank: u64,
    bytes: u32,
    state: State,
}

/// Tracks what was received and what of it is settled; see the [module](self).
#[derive(Debug)]
pub struct AckTracker<P> {
    limits: Limits,
    assignment: Assignment,
    assigned: bool,
    slots: VecDeque<Slot>,
    /// The number of the slot at the head. Counts on for ever, so that a number is never used again.
    first: u64,
    /// The lowest rank that may be received.
    next: u64,
    in_hand: usize,
    returned: usize,
    bytes: u64,
    /// What was done before a restart and is not received yet.
    restored: VecDeque<(u64, u64)>,
    /// Counts what a commit would show; `committed` is the count the broker has.
    revision: u64,
    committed: u64,
    /// Tags only: the highest tag that left the ring and must be acknowledged, and how many did.
    passed: Option<(u64, usize)>,
    /// Tags only: slots settled behind an unsettled one, to be acknowledged alone.
    alone: Option<VecDeque<u64>>,
    position: std::marker::PhantomData<P>,
}

impl<P: Position> AckTracker<P> {
    fn new(assignment: Assignment, start: P, limits: Limits, alone: bool) -> Self {
        Self {
            limits,
            assignment,
            assigned: true,
            slots: VecDeque::new(),
            first: 0,
            next: start.rank(),
            in_hand: 0,
            returned: 0,
            bytes: 0,
            restored: VecDeque::new(),
            revision: 0,
            committed: 0,
            passed: None,
            alone: alone.then(VecDeque::new),
            position: std::marker::PhantomData,
        }
    }

    /// The present assignment; the last one after [`revoke`](Self::revoke).
    #[must_use]
    pub fn assignment(&self) -> Assignment {
        self.assignment
    }

    /// Whether there is an assignment.
    #[must_use]
    pub fn is_assigned(&self) -> bool {
        self.assigned
    }

    /// The lowest position that is not known to be settled: what may be committed.
    #[must_use]
    pub fn watermark(&self) -> P {
        P::from_rank(self.watermark_rank())
    }

    fn watermark_rank(&self) -> u64 {
        self.slots.front().map_or(self.next, |slot| slot.rank)
    }

    /// The position after the last one received.
    #[must_use]
    pub fn next(&self) -> P {
        P::from_rank(self.next)
    }

    /// Slots from the oldest unsettled one to the newest received.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.slots.len()
    }

    /// How many are handed out and not settled.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.in_hand
    }

    /// How many were given back and wait to be handed out again.
    #[must_use]
    pub fn returned(&self) -> usize {
        self.returned
    }

    /// How many are settled beyond the watermark: what the oldest unsettled one holds up.
    #[must_use]
    pub fn held_up(&self) -> usize {
        self.slots.len().saturating_sub(self.in_hand).saturating_sub(self.returned)
    }

    /// Bytes of the unsettled ones.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest one that is not settled, as a log line or a health check names it.
    #[must_use]
    pub fn oldest_unsettled(&self) -> Option<P> {
        self.slots.front().map(|slot| P::from_rank(slot.rank))
    }

    /// Whether everything received is settled.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether [`receive`](Self::receive) would take another one. While it would not, keep polling the broker and
    /// committing, and stop reading: acks, redeliveries and commits need no room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.assigned && self.slots.len() < self.limits.max_outstanding && self.bytes < self.limits.max_bytes
    }

    /// Takes note of a position that was read, with the bytes it holds in memory until it is settled.
    pub fn receive(&mut self, position: P, bytes: usize) -> Received<P> {
        if !self.assigned {
            return Received::Revoked;
        }
        let rank = position.rank();
        // The last number of all has none after it; no broker gets there.
        if rank < self.next || rank == u64::MAX {
            return Received::Behind { next: self.next() };
        }
        if !self.has_room() {
            return Received::Full;
        }
        self.next = rank + 1;
        while self.restored.front().is_some_and(|&(_, last)| last < rank) {
            self.restored.pop_front();
        }
        if self.restored.front().is_some_and(|&(start, last)| start <= rank && rank <= last) {
            if self.slots.is_empty() {
                self.revision += 1;
            } else {
                self.slots.push_back(Slot { rank, bytes: 0, state: State::Told });
            }
            return Received::Skip;
        }
        let slot = self.first.wrapping_add(self.slots.len() as u64);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.slots.push_back(Slot { rank, bytes, state: State::InHand });
        self.in_hand += 1;
        self.bytes += u64::from(bytes);
        Received::Fresh(Receipt { assignment: self.assignment, slot, position })
    }

    /// [`receive`](Self::receive) for `count` positions without a gap from `first` on, which are handed out together, with the
    /// bytes that all of them hold; the first one counts for these. Whether they were taken: all or none are.
    ///
    /// None are where there is no room for one, where the first lies behind [`next`](Self::next), and while a restored map
    /// is to be looked at: then each is to be received by itself. A run may pass the limit of slots, as a large record may
    /// pass that of bytes. O(count).
    pub fn receive_run(&mut self, first: P, count: usize, bytes: usize) -> bool {
        let rank = first.rank();
        let end = rank.checked_add(count as u64);
        if count == 0 || !self.has_room() || rank < self.next || !self.restored.is_empty() {
            return false;
        }
        let Some(end) = end else { return false };
        let mut bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes += u64::from(bytes);
        self.slots.extend((rank..end).map(|rank| Slot {
            rank,
            bytes: std::mem::take(&mut bytes),
            state: State::InHand,
        }));
        self.in_hand += count;
        self.next = end;
        true
    }

    /// Takes note that the log was read up to `next` (exclusive) and holds no other record to deliver below it:
    /// transaction markers, aborted records, a compacted tail. The watermark follows once all before is settled.
    /// A `next` that is not ahead changes nothing.
    pub fn skip_to(&mut self, next: P) {
        let next = next.rank();
        if !self.assigned || next <= self.next {
            return;
        }
        self.next = next;
        while self.restored.front().is_some_and(|&(_, last)| last < next) {
            self.restored.pop_front();
        }
        if self.slots.is_empty() {
            self.revision += 1;
        }
    }

    /// Settles one. It may be in hand or given back.
    pub fn ack(&mut self, receipt: Receipt<P>) -> Outcome {
        self.settle_receipt(receipt, State::Settled)
    }

    /// Settles one of which the broker was told already: a tag that was rejected or negatively acknowledged. As
    /// [`ack`](Self::ack), but no [`poll_ack`](AckTracker::poll_ack) follows from it. The frame that tells the broker
    /// must leave before the acks that are polled later.
    pub fn discard(&mut self, receipt: Receipt<P>) -> Outcome {
        self.settle_receipt(receipt, State::Told)
    }

    /// Takes one back from its holder, unsettled: it holds the watermark until it is taken again and settled.
    pub fn give_back(&mut self, receipt: Receipt<P>) -> Outcome {
        self.hold(receipt, State::InHand, State::Returned)
    }

    /// Hands out again what was given back, under the same receipt. Needs no room. [`Outcome::Already`] if it is in hand
    /// or was settled meanwhile: then do not hand it out.
    pub fn take_again(&mut self, receipt: Receipt<P>) -> Outcome {
        self.hold(receipt, State::Returned, State::InHand)
    }

    /// Settles all that was received from the first to the last position of a range, and says how many became settled
    /// by it. O(log n) to find the range and O(1) for each in it. 0 for another assignment than the present.
    pub fn ack_range(&mut self, assignment: Assignment, range: RangeInclusive<P>) -> usize {
        if !self.assigned || assignment != self.assignment || range.is_empty() {
            return 0;
        }
        let (start, end) = (range.start().rank(), range.end().rank());
        let low = self.slots.partition_point(|slot| slot.rank < start);
        let high = self.slots.partition_point(|slot| slot.rank <= end);
        let count = (low..high).filter(|&index| self.mark(index, State::Settled, low > 0)).count();
        self.advance();
        count
    }

    /// [`give_back`](Self::give_back) for all in hand from the first to the last position of a range; how many they were.
    /// 0 for another assignment than the present.
    pub fn give_back_range(&mut self, assignment: Assignment, range: RangeInclusive<P>) -> usize {
        let count = self.hold_range(assignment, range, State::InHand, State::Returned);
        self.in_hand -= count;
        self.returned += count;
        count
    }

    /// [`take_again`](Self::take_again) for all that were given back from the first to the last position of a range; how many
    /// they were. 0 for another assignment than the present.
    pub fn take_again_range(&mut self, assignment: Assignment, range: RangeInclusive<P>) -> usize {
        let count = self.hold_range(assignment, range, State::Returned, State::InHand);
        self.returned -= count;
        self.in_hand += count;
        count
    }

    fn hold_range(
        &mut self,
        assignment: Assignment,
        range: RangeInclusive<P>,
        from: State,
        to: State,
    ) -> usize {
        if !self.assigned || assignment != self.assignment || range.is_empty() {
            return 0;
        }
        let (start, end) = (range.start().rank(), range.end().rank());
        let low = self.slots.partition_point(|slot| slot.rank < start);
        let high = self.slots.partition_point(|slot| slot.rank <= end);
        let held = self.slots.range_mut(low..high).filter(|slot| slot.state == from);
        held.map(|slot| slot.state = to).count()
    }

    /// Settles one by its position, where no receipt is at hand. O(1) where the received positions have no gaps,
    /// O(log n) otherwise. [`Outcome::Already`] for all below the watermark.
    pub fn ack_position(&mut self, assignment: Assignment, position: P) -> Outcome {
        if !self.assigned || assignment != self.assignment {
            return Outcome::Stale;
        }
        let rank = position.rank();
        if rank < self.watermark_rank() {
            return Outcome::Already;
        }
        match self.find(rank) {
            Some(index) => self.settle(index, State::Settled),
            None => Outcome::Unknown,
        }
    }

    /// Whether the position was received and settled, or lies below the watermark.
    #[must_use]
    pub fn is_settled(&self, position: P) -> bool {
        let rank = position.rank();
        rank < self.watermark_rank()
            || self.find(rank).and_then(|i| self.slots.get(i)).is_some_and(|slot| slot.state.is_settled())
    }

    /// Starts over under a newer assignment: nothing is outstanding, every older receipt is stale.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] if the assignment is not newer than the present one; nothing changed.
    pub fn reassign(&mut self, assignment: Assignment, start: P) -> Result<()> {
        if assignment <= self.assignment {
            return Err(Error::new(
                ErrorKind::Fenced,
                format!(
                    "assignment {assignment} is not newer than {}, the one that is tracked",
                    self.assignment
                ),
            ));
        }
        self.clear();
        self.assignment = assignment;
        self.assigned = true;
        self.next = start.rank();
        Ok(())
    }

    fn clear(&mut self) {
        self.first = self.first.wrapping_add(self.slots.len() as u64);
        self.slots = VecDeque::new();
        self.restored = VecDeque::new();
        self.in_hand = 0;
        self.returned = 0;
        self.bytes = 0;
        self.committed = self.revision;
        self.passed = None;
        if let Some(alone) = &mut self.alone {
            *alone = VecDeque::new();
        }
        self.assigned = false;
    }

    /// The index of the slot of a receipt, or why there is none.
    fn index(&self, receipt: &Receipt<P>) -> Result<usize, Outcome> {
        if !self.assigned || receipt.assignment != self.assignment {
            return Err(Outcome::Stale);
        }
        let Some(index) = receipt.slot.checked_sub(self.first) else { return Err(Outcome::Already) };
        match usize::try_from(index).ok().and_then(|i| Some((i, self.slots.get(i)?))) {
            Some((index, slot)) if slot.rank == receipt.position.rank() => Ok(index),
            _ => Err(Outcome::Unknown),
        }
    }

    fn find(&self, rank: u64) -> Option<usize> {
        let first = self.slots.front()?;
        // Without gaps the distance is the index; with gaps the index is lower than that.
        let guess = usize::try_from(rank.checked_sub(first.rank)?).unwrap_or(usize::MAX);
        match self.slots.get(guess) {
            Some(slot) if slot.rank == rank => Some(guess),
            _ => self.slots.binary_search_by_key(&rank, |slot| slot.rank).ok(),
        }
    }

    fn settle_receipt(&mut self, receipt: Receipt<P>, to: State) -> Outcome {
        match self.index(&receipt) {
            Ok(index) => self.settle(index, to),
            Err(outcome) => outcome,
        }
    }

    fn settle(&mut self, index: usize, to: State) -> Outcome {
        if !self.mark(index, to, index > 0) {
            return Outcome::Already;
        }
        if index == 0 {
            self.advance();
        }
        Outcome::Done
    }

    /// Marks a slot settled. `alone` says that the head stays where it is.
    fn mark(&mut self, index: usize, to: State, alone: bool) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        match slot.state {
            State::InHand => self.in_hand -= 1,
            State::Returned => self.returned -= 1,
            State::Settled | State::Told => return false,
        }
        slot.state = to;
        self.bytes = self.bytes.saturating_sub(u64::from(slot.bytes));
        self.revision += 1;
        if let (true, State::Settled, Some(list)) = (alone, to, &mut self.alone) {
            // Those that left the ring meanwhile are covered by `passed`. Each slot is listed once, so that the
            // list stays within a multiple of the ring even if nobody polls.
            if list.len() > 2 * self.slots.len() + 16 {
                let first = self.first;
                list.retain(|&slot| slot >= first);
            }
            list.push_back(self.first.wrapping_add(index as u64));
        }
        true
    }

    /// Lets the settled ones at the head leave the ring.
    fn advance(&mut self) {
        while let Some(slot) = self.slots.front().filter(|slot| slot.state.is_settled()) {
            if self.alone.is_some() && slot.state == State::Settled {
                let count = self.passed.map_or(0, |(_, count)| count);
                self.passed = Some((slot.rank, count + 1));
            }
            self.slots.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        let capacity = self.slots.capacity();
        if capacity > 1024 && self.slots.len() < capacity / 8 {
            self.slots.shrink_to(capacity / 2);
        }
    }

    fn hold(&mut self, receipt: Receipt<P>, from: State, to: State) -> Outcome {
        let index = match self.index(&receipt) {
            Ok(index) => index,
            Err(outcome) => return outcome,
        };
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.state == from) else {
            return Outcome::Already;
        };
        slot.state = to;
        if to == State::Returned {
            self.in_hand -= 1;
            self.returned += 1;
        } else {
            self.returned -= 1;
            self.in_hand += 1;
        }
        Outcome::Done
    }
}

#[cfg(test)]
mod tests;
