//! The batches of one partition: which may leave, and what the fate of one means for the others.
//!
//! ```text
//!   open --full or due--> ready --take()--> flying (five at most) --> written, refused
//!                           ^                 |
//!                           +---- requeue() --+    in the order of their records
//! ```
//!
//! Several batches are in flight as long as all goes well. Rules keep the order and every record once:
//!
//! 1. Until the leader took a batch under the current epoch, and again after an answer was lost, one batch is in flight:
//!    a broker that knows nothing of a producer takes any first number, also that of the second batch while the first is
//!    refused.
//! 2. A batch that is sent again goes before all behind it.
//! 3. A batch of a new epoch leaves only when none of the old one is away.
//! 4. A batch that surely was not written, with others behind it on their way: they cannot have been written either, as
//!    the broker takes them only in sequence. All of them get a new epoch, so that what is late is fenced.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::batch::{Batch, Resolved};
use crate::kafka::producer::completion::Completion;
use crate::kafka::producer::sequence::{Sequences, Stamp};
use crate::{Error, NodeId, Partition, Topic};

/// What is known of a batch that is on its way.
#[derive(Debug)]
struct Flight {
    ordinal: u64,
    stamp: Stamp,
    /// It cannot be written by this attempt or any before: the one before it surely was not.
    void: bool,
    completion: Arc<Completion>,
}

/// A batch that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Landed {
    /// Every batch before it has its outcome.
    pub(super) oldest: bool,
    pub(super) void: bool,
}

/// How many batches of a partition a broker recognises when they come again: no more may be in flight.
pub(super) const MAX_FLYING: usize = 5;

/// So often a batch follows its leader at once.
const AT_ONCE: u32 = 4;

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) topic: Topic,
    pub(super) topic_at: usize,
    pub(super) partition: Partition,
    pub(super) leader: Option<NodeId>,
    pub(super) ready: VecDeque<Batch>,
    pub(super) open: Option<Batch>,
    pub(super) not_before: Option<Instant>,
    /// The transaction's coordinator knows the partition.
    pub(super) added: bool,
    /// Whose list of ready partitions it stands in.
    pub(super) listed: Option<NodeId>,
    pub(super) lingering: bool,
    /// The earliest of its timers.
    pub(super) timer: Option<Instant>,
    /// Records given so far.
    pub(super) given: u64,
    /// What the last batch took.
    pub(super) last_size: usize,
    sequences: Sequences,
    flying: VecDeque<Flight>,
    /// The leader took a batch under the current epoch.
    proven: bool,
    /// How many may be in flight.
    most: usize,
    /// Epochs are the transaction coordinator's to give.
    transactional: bool,
}

impl Queue {
    pub(super) fn new(
        (topic, topic_at, partition): (Topic, usize, Partition),
        sequences: Sequences,
        most: usize,
        transactional: bool,
    ) -> Self {
        Self {
            topic,
            topic_at,
            partition,
            leader: None,
            ready: VecDeque::new(),
            open: None,
            not_before: None,
            added: false,
            listed: None,
            lingering: false,
            timer: None,
            given: 0,
            last_size: 0,
            sequences,
            flying: VecDeque::new(),
            proven: false,
            most: most.clamp(1, MAX_FLYING),
            transactional,
        }
    }

    /// The batch that leaves next.
    pub(super) fn first(&self) -> Option<&Batch> {
        self.ready.front().or(self.open.as_ref())
    }

    /// Batches that are not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.ready.len() + self.flying.len()
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.sequences.is_exhausted()
    }

    /// Another producer id or epoch for what has no number yet.
    pub(super) fn renew(&mut self, sequences: Sequences) {
        self.sequences = sequences;
        self.proven = false;
    }

    pub(super) fn set_leader(&mut self, leader: Option<NodeId>) -> bool {
        let changed = self.leader != leader;
        if changed {
            self.leader = leader;
            self.proven = false;
            self.listed = None;
            // The pause was for the old one (KIP-951); where leaders come and go, it holds.
            if self.ready.front().is_none_or(|b| b.attempts < AT_ONCE) {
                self.not_before = None;
            }
        }
        changed
    }

    /// Whether its first batch may leave as far as order goes.
    pub(super) fn may_leave(&self) -> bool {
        let Some(first) = self.first() else { return false };
        let fresh = first.stamp.is_none();
        if fresh && self.sequences.is_exhausted() {
            return false;
        }
        let (Some(oldest), Some(newest)) = (self.flying.front(), self.flying.back()) else { return true };
        if self.flying.len() >= self.most {
            return false;
        }
        if first.ordinal < oldest.ordinal {
            return first.stamp.is_some_and(|s| self.flying.iter().all(|f| s.is_like(f.stamp)));
        }
        let current = |stamp| self.sequences.is_current(stamp);
        first.ordinal > newest.ordinal
            && self.proven
            && first.stamp.is_none_or(current)
            && self.flying.iter().all(|f| current(f.stamp))
    }

    /// Takes the first batch, on its way from now on. Only after [`may_leave`](Self::may_leave).
    pub(super) fn take(&mut self) -> Option<Batch> {
        let mut batch = match self.ready.pop_front() {
            Some(batch) => batch,
            None => {
                let batch = self.open.take()?;
                self.last_size = batch.size;
                batch
            }
        };
        let stamp = match batch.stamp {
            Some(stamp) => stamp,
            None => *batch.stamp.insert(self.sequences.assign(batch.records)?),
        };
        batch.attempts += 1;
        let at = self.flying.partition_point(|f| f.ordinal < batch.ordinal);
        self.flying.insert(
            at,
            Flight { ordinal: batch.ordinal, stamp, void: false, completion: Arc::clone(batch.completion()) },
        );
        Some(batch)
    }

    /// A batch came back.
    pub(super) fn land(&mut self, batch: &Batch) -> Landed {
        let at = self.flying.partition_point(|f| f.ordinal < batch.ordinal);
        let void = self.flying.remove(at).is_some_and(|f| f.void);
        let waits_before = self.ready.front().is_some_and(|b| b.ordinal < batch.ordinal);
        Landed { oldest: at == 0 && !waits_before, void }
    }

    /// The broker has it.
    pub(super) fn handle_written(&mut self, batch: &Batch) {
        if self.is_current(batch) {
            self.proven = true;
        }
        // One that waits to be sent again keeps its pause.
        if self.ready.front().is_none_or(|b| b.attempts == 0) {
            self.not_before = None;
        }
    }

    /// Nobody knows what the broker did.
    pub(super) fn handle_lost(&mut self) {
        self.proven = false;
    }

    /// Whether its numbers are of the current epoch.
    pub(super) fn is_current(&self, batch: &Batch) -> bool {
        batch.stamp.is_some_and(|s| self.sequences.is_current(s))
    }

    /// To be sent again, in its place.
    pub(super) fn requeue(&mut self, mut batch: Batch, void: bool) {
        if void {
            batch.unsure = false;
        }
        if !batch.unsure && !self.is_current(&batch) {
            batch.stamp = None;
        }
        batch.promise.unsure = batch.unsure;
        let at = self.ready.partition_point(|b| b.ordinal < batch.ordinal);
        self.ready.insert(at, batch);
    }

    /// The broker lost the sequence while this batch, the oldest, was surely not written: a new epoch for it.
    pub(super) fn restart(&mut self, mut batch: Batch) {
        self.sequences.bump();
        self.proven = false;
        batch.stamp = None;
        self.unstamp();
        self.requeue(batch, false);
    }

    /// Fails a batch, and sets the numbers for those behind it.
    pub(super) fn give_up(&mut self, batch: Batch, error: Error) -> Resolved {
        if let Some(stamp) = batch.stamp.filter(|_| !self.transactional) {
            let behind = self.ready.iter().any(|b| b.stamp.is_some() && b.ordinal > batch.ordinal)
                || self.flying.iter().any(|f| f.ordinal > batch.ordinal);
            if batch.unsure {
                self.sequences.bump();
                self.proven = false;
                self.unstamp();
            } else if !behind {
                self.sequences.rollback(stamp);
            } else if self.sequences.is_current(stamp) {
                self.sequences.bump();
                self.proven = false;
                for b in self.ready.iter_mut().filter(|b| b.ordinal > batch.ordinal) {
                    b.unsure = false;
                    b.promise.unsure = false;
                }
                for f in self.flying.iter_mut().filter(|f| f.ordinal > batch.ordinal) {
                    f.void = true;
                }
                self.unstamp();
            }
        }
        let error = if batch.unsure { error.ambiguous() } else { error };
        batch.resolve(Err(error))
    }

    /// Batches of an old epoch that surely were not written get new numbers.
    fn unstamp(&mut self) {
        let sequences = self.sequences;
        for b in &mut self.ready {
            if !b.unsure && b.stamp.is_some_and(|s| !sequences.is_current(s)) {
                b.stamp = None;
            }
        }
    }

    /// What everything given so far waits for.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Arc<Completion>> {
        let waiting = self.ready.iter().chain(&self.open).map(Batch::completion);
        self.flying.iter().map(|f| &f.completion).chain(waiting)
    }
}
