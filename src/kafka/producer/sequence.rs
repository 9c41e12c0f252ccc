//! Sequence numbers of one partition (KIP-98, KIP-360). Pure.
//!
//! The broker takes a producer's batches of a partition only in sequence, and recognises one that it has. So a batch
//! keeps its numbers through every retry. Three things can come of it:
//!
//! ```text
//!              written -------------------------------------> the next numbers follow
//! assign() --- surely not written, the last on its way -----> rollback(): the next batch takes the same numbers
//!              surely not written with others behind it,
//!              or nobody knows -----------------------------> bump(): a new epoch from 0; what is late of the old
//!                                                             one is fenced
//! ```
//!
//! A transaction's batches are of one epoch, which its coordinator gives: nothing is bumped here then. Without idempotence
//! there are no numbers.

use crate::{ProducerEpoch, ProducerId, Sequence};

/// What a batch is stamped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    pub(crate) base: Sequence,
}

impl Stamp {
    /// Whether both are of one epoch.
    pub(crate) fn is_like(self, other: Self) -> bool {
        (self.id, self.epoch) == (other.id, other.epoch)
    }

    /// The stamp of the records from `n` on.
    pub(crate) fn skip(self, n: u32) -> Self {
        if self.base == Sequence::NONE { self } else { Self { base: self.base.plus(n), ..self } }
    }
}

/// The state of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sequences {
    next: Stamp,
    /// The epochs of this id are used up: nothing new may be sent until another id came.
    exhausted: bool,
}

/// The stamp of batches without numbers.
const NONE: Stamp = Stamp { id: ProducerId::NONE, epoch: ProducerEpoch::NONE, base: Sequence::NONE };

impl Sequences {
    pub(crate) fn new(id: ProducerId, epoch: ProducerEpoch) -> Self {
        Self { next: Stamp { id, epoch, base: Sequence(0) }, exhausted: false }
    }

    /// No numbers: a producer without idempotence.
    pub(crate) fn off() -> Self {
        Self { next: NONE, exhausted: false }
    }

    fn are_kept(&self) -> bool {
        self.next.id != ProducerId::NONE
    }

    /// Whether the stamp is of the current epoch.
    pub(crate) fn is_current(&self, stamp: Stamp) -> bool {
        stamp.is_like(self.next)
    }

    /// Numbers for a batch of `n` records; `None` while another producer id is needed.
    pub(crate) fn assign(&mut self, n: u32) -> Option<Stamp> {
        if self.exhausted {
            return None;
        }
        let stamp = self.next;
        if self.are_kept() {
            self.next.base = stamp.base.plus(n);
        }
        Some(stamp)
    }

    /// The batch with this stamp, the last assigned, was surely not written.
    pub(crate) fn rollback(&mut self, stamp: Stamp) {
        if self.is_current(stamp) {
            self.next.base = stamp.base;
        }
    }

    /// Nobody knows what was written: begin a new epoch. The broker takes any higher epoch that begins at 0, also
    /// without being asked for it; each partition keeps its own.
    pub(crate) fn bump(&mut self) {
        if !self.are_kept() {
            return;
        }
        match self.next.epoch.0.checked_add(1) {
            // The highest is kept for the broker, as the Java client does.
            Some(epoch) if epoch < i16::MAX => {
                self.next = Stamp { epoch: ProducerEpoch(epoch), base: Sequence(0), ..self.next };
            }
            _ => self.exhausted = true,
        }
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Sequences {
        Sequences::new(ProducerId(7), ProducerEpoch(0))
    }

    #[test]
    fn numbers_follow_each_other_and_wrap() {
        let mut s = fresh();
        assert_eq!(s.assign(i32::MAX as u32).unwrap().base, Sequence(0));
        assert_eq!(s.assign(2).unwrap().base, Sequence(i32::MAX));
        assert_eq!(s.assign(1).unwrap().base, Sequence(1));
    }

    #[test]
    fn a_batch_that_was_not_written_leaves_no_gap() {
        let mut s = fresh();
        s.assign(5);
        let refused = s.assign(3).unwrap();
        s.rollback(refused);
        assert_eq!(s.assign(1).unwrap().base, Sequence(5));
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_old_stamps_change_nothing() {
        let mut s = fresh();
        let old = s.assign(5).unwrap();
        s.bump();
        s.rollback(old);
        let stamp = s.assign(1).unwrap();
        assert_eq!((stamp.epoch, stamp.base), (ProducerEpoch(1), Sequence(0)));
    }

    #[test]
    fn without_idempotence_every_batch_goes_without_numbers() {
        let mut s = Sequences::off();
        for _ in 0..3 {
            assert_eq!(s.assign(5), Some(NONE));
            s.bump();
        }
    }

    #[test]
    fn used_up_epochs_wait_for_another_producer_id() {
        let mut s = Sequences::new(ProducerId(7), ProducerEpoch(i16::MAX - 1));
        s.bump();
        assert!(s.is_exhausted());
        assert_eq!(s.assign(1), None);
    }
}
