//! What goes into a tracker and comes out of it, for offsets and tags alike.

use std::fmt;

use super::super::offset_map;
#[cfg(doc)]
use super::AckTracker;
use crate::{DeliveryTag, Offset};

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Offset {}
    impl Sealed for crate::DeliveryTag {}
}

/// What a tracker counts: [`Offset`] or [`DeliveryTag`]. Sealed.
pub trait Position: Copy + Ord + fmt::Debug + fmt::Display + sealed::Sealed {
    /// The position as an unsigned number of the same order.
    fn rank(self) -> u64;
    /// The position of a rank.
    fn from_rank(rank: u64) -> Self;
}

const SIGN: u64 = 1 << 63;

impl Position for Offset {
    fn rank(self) -> u64 {
        self.0.cast_unsigned() ^ SIGN
    }

    fn from_rank(rank: u64) -> Self {
        Self((rank ^ SIGN).cast_signed())
    }
}

impl Position for DeliveryTag {
    fn rank(self) -> u64 {
        self.0
    }

    fn from_rank(rank: u64) -> Self {
        Self(rank)
    }
}

/// Which assignment of a partition, or which connection, a receipt belongs to.
///
/// The caller counts them up, never reuses one for the same partition or channel, and takes a new one for a seek
/// too: whatever was in hand before it must not touch what comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment(pub u64);

impl Assignment {
    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How much one tracker lets be outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Slots from the oldest unsettled one to the newest received, settled ones between them included: so one
    /// delivery that never ends stops the flow after this many, not after the memory. Default 65,536: at most 2 MiB.
    pub max_outstanding: usize,
    /// Bytes of the unsettled ones, as told to [`AckTracker::receive`]. The one that passes the limit is still taken,
    /// so that a single large record cannot block for ever. Default 64 MiB.
    pub max_bytes: u64,
    /// Length of a commit's metadata, in characters (all ASCII). Default 4,096, the default of the broker's
    /// `offset.metadata.max.bytes`. 0 turns the export off.
    pub metadata_len: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_outstanding: 65_536, max_bytes: 64 << 20, metadata_len: offset_map::MAX_LEN }
    }
}

impl Limits {
    /// Sets [`max_outstanding`](Self::max_outstanding); 0 counts as 1.
    #[must_use]
    pub fn max_outstanding(mut self, slots: usize) -> Self {
        self.max_outstanding = slots.max(1);
        self
    }

    /// Sets [`max_bytes`](Self::max_bytes); 0 counts as 1, one delivery at a time.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes.max(1);
        self
    }

    /// Sets [`metadata_len`](Self::metadata_len).
    #[must_use]
    pub fn metadata_len(mut self, characters: usize) -> Self {
        self.metadata_len = characters;
        self
    }
}

/// The proof that a position was received under an assignment. Needed to settle it in O(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt<P> {
    pub(super) assignment: Assignment,
    pub(super) slot: u64,
    pub(super) position: P,
}

impl<P: Position> Receipt<P> {
    /// The assignment under which it was received.
    #[must_use]
    pub fn assignment(&self) -> Assignment {
        self.assignment
    }

    /// What was received.
    #[must_use]
    pub fn position(&self) -> P {
        self.position
    }
}

/// The answer of [`AckTracker::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Received<P> {
    /// New: hand it out.
    Fresh(Receipt<P>),
    /// Completed before a restart, says the restored map: do not hand it out. Counted as settled.
    Skip,
    /// Not after the last one received: nothing changed. A fetch may begin inside a batch, so single ones are no
    /// fault; drop them. If the log was reset to an earlier offset, [`AckTracker::reassign`] first.
    Behind {
        /// The position that is expected next, or any after it.
        next: P,
    },
    /// No room: nothing changed. Offer it again when [`AckTracker::has_room`].
    Full,
    /// There is no assignment: nothing changed.
    Revoked,
}

/// What became of a receipt that was acknowledged, given back or taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The state changed as asked.
    Done,
    /// It was so before; nothing changed.
    Already,
    /// The receipt is of an older assignment or connection; nothing changed. Worth a line in the log.
    Stale,
    /// No such position was received; nothing changed.
    Unknown,
}
