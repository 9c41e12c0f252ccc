//! Kafka: from the tracker to a commit, and back from a commit's metadata.

use super::super::offset_map::{self, OffsetMap, Restored};
use super::{AckTracker, Assignment, Limits, Position};
use crate::Offset;

/// A commit that is due: see [`AckTracker::poll_commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The offset to commit: the next to read.
    pub offset: Offset,
    /// The metadata to commit beside it: what beyond the offset is done already. Empty if nothing is.
    pub metadata: String,
    assignment: Assignment,
    revision: u64,
}

impl AckTracker<Offset> {
    /// A tracker for a partition that is read from `start`.
    #[must_use]
    pub fn for_offsets(assignment: Assignment, start: Offset, limits: Limits) -> Self {
        Self::new(assignment, start, limits, false)
    }

    /// Takes what was done beyond the committed offset from the metadata that was committed with it. To be called
    /// before the first [`receive`](Self::receive) of an assignment that starts at the committed offset. Metadata of
    /// other programs, of another offset or damaged is ignored, and the answer says so: then the records come again.
    ///
    /// Not to be called when the log was truncated below what was read (KIP-320): other records may stand at these
    /// offsets now.
    pub fn restore(&mut self, metadata: &str) -> Restored {
        if !self.assigned || !self.slots.is_empty() {
            return Restored::Late;
        }
        self.restored.clear();
        match OffsetMap::decode(self.next(), metadata) {
            Ok(map) => {
                self.restored =
                    map.ranges().map(|range| (range.start().rank(), range.end().rank())).collect();
                Restored::Map { offsets: map.len() }
            }
            Err(why) => why,
        }
    }

    /// Whether the restored map says that an offset not yet received was done before. [`receive`](Self::receive)
    /// answers the same with [`Received::Skip`](super::Received::Skip).
    #[must_use]
    pub fn should_skip(&self, offset: Offset) -> bool {
        let rank = offset.rank();
        let after = self.restored.partition_point(|&(start, _)| start <= rank);
        let range = after.checked_sub(1).and_then(|index| self.restored.get(index));
        range.is_some_and(|&(_, last)| rank <= last)
    }

    /// The commit that is due, if anything was settled since the last one that [`handle_committed`](Self::handle_committed)
    /// took. Reads the ring up to the last settled one, or to where the metadata is full.
    #[must_use]
    pub fn poll_commit(&self) -> Option<Commit> {
        if !self.assigned || self.revision == self.committed {
            return None;
        }
        Some(Commit {
            offset: self.watermark(),
            metadata: self.export(),
            assignment: self.assignment,
            revision: self.revision,
        })
    }

    /// Takes note that the broker has taken a commit. One of an older assignment, or older than the last, changes nothing.
    pub fn handle_committed(&mut self, commit: &Commit) {
        if self.assigned && commit.assignment == self.assignment && commit.revision > self.committed {
            self.committed = commit.revision.min(self.revision);
        }
    }

    /// Ends the assignment and gives the last commit, if one is due. Every receipt is stale from here on, and what is
    /// unsettled comes again to whoever reads the partition next.
    pub fn revoke(&mut self) -> Option<Commit> {
        let last = self.poll_commit();
        self.next = self.watermark_rank();
        self.clear();
        last
    }

    /// The metadata of a commit at the watermark: the settled ones beyond it, and what a restart restored and is not
    /// received yet.
    fn export(&self) -> String {
        if self.limits.metadata_len == 0 || (self.held_up() == 0 && self.restored.is_empty()) {
            return String::new();
        }
        let mut encoder = offset_map::Encoder::new(self.watermark(), self.limits.metadata_len);
        let mut run: Option<(u64, u64)> = None;
        let mut left = self.held_up();
        for slot in &self.slots {
            if left == 0 {
                break;
            }
            if slot.state.is_settled() {
                left -= 1;
                // A gap between two settled ones is no record and will never be one: it joins them.
                run = Some((run.map_or(slot.rank, |(start, _)| start), slot.rank));
            } else if let Some((start, last)) = run.take()
                && !encoder.push(start, last)
            {
                return encoder.finish();
            }
        }
        // Of a restored range that was received in part, the rest.
        let rest = self.restored.iter().map(|&(start, last)| (start.max(self.next), last));
        for (start, last) in run.into_iter().chain(rest) {
            if start <= last && !encoder.push(start, last) {
                break;
            }
        }
        encoder.finish()
    }
}
