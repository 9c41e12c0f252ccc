//! The unsent output of one connection.
//!
//! Small frames are written one behind the other into one buffer and leave as one chunk; a large body leaves as it is,
//! without a copy.

use std::collections::VecDeque;

use std::time::Instant;

use bytes::{Bytes, BytesMut};

/// From this size on a payload goes out as a chunk of its own instead of being copied.
pub(super) const CHUNKED: usize = 8 * 1024;
/// A buffer of small frames that is larger than this is closed and a new one begun.
const SEAL: usize = 128 * 1024;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Bytes>,
    /// Bytes in `chunks`.
    queued: usize,
    tail: BytesMut,
    /// Bytes that left.
    given: u64,
    /// Nothing leaves beyond this many bytes: the connection is to be cut there.
    cut: Option<u64>,
    /// Nothing leaves beyond the first of these until it is opened.
    gates: VecDeque<(u64, Gate)>,
}

/// What keeps output back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Until this time.
    Until(Instant),
    /// Until the answer of this fault is released.
    Held(u64),
}

/// A place in the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// Bytes from the beginning of the connection.
    written: u64,
    chunks: usize,
}

impl Outbox {
    /// Where frames are appended.
    #[inline]
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        if self.tail.len() > SEAL {
            self.seal();
        }
        &mut self.tail
    }

    /// Appends bytes without a copy where they are many.
    #[inline]
    pub(super) fn push(&mut self, bytes: Bytes) {
        if bytes.len() < CHUNKED {
            self.tail().extend_from_slice(&bytes);
            return;
        }
        self.seal();
        self.queued += bytes.len();
        self.chunks.push_back(bytes);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.queued += self.tail.len();
            self.chunks.push_back(self.tail.split().freeze());
        }
    }

    /// Bytes that were not asked for yet.
    #[inline]
    pub(super) fn unsent(&self) -> usize {
        self.queued + self.tail.len()
    }

    /// Whether all that may leave has left, and what is behind it is to be cut off.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_some_and(|cut| self.given >= cut)
    }

    /// The next chunk.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let limit = self.limit();
        if limit == Some(0) {
            return None;
        }
        if self.chunks.is_empty() {
            self.seal();
        }
        let front = self.chunks.front_mut()?;
        let chunk = match limit {
            Some(limit) if limit < front.len() => front.split_to(limit),
            _ => self.chunks.pop_front()?,
        };
        self.queued -= chunk.len();
        self.given += chunk.len() as u64;
        Some(chunk)
    }

    /// How many bytes may leave now, if not all.
    fn limit(&self) -> Option<usize> {
        let gate = self.gates.front().map(|(place, _)| *place);
        let end = match (self.cut, gate) {
            (Some(cut), Some(gate)) => cut.min(gate),
            (cut, gate) => cut.or(gate)?,
        };
        Some(usize::try_from(end.saturating_sub(self.given)).unwrap_or(usize::MAX))
    }

    /// Keeps back all that is written behind `mark`.
    pub(super) fn gate(&mut self, mark: Mark, gate: Gate) {
        self.gates.push_back((mark.written, gate));
    }

    /// When the next gate opens by itself.
    pub(super) fn next_gate(&self) -> Option<Instant> {
        self.gates
            .iter()
            .filter_map(|(_, gate)| match gate {
                Gate::Until(at) => Some(*at),
                Gate::Held(_) => None,
            })
            .min()
    }

    /// Opens the gates that `open` is true for.
    pub(super) fn open(&mut self, open: impl Fn(Gate) -> bool) {
        self.gates.retain(|(_, gate)| !open(*gate));
    }

    /// The faults whose answers are kept back.
    pub(super) fn held(&self) -> impl Iterator<Item = u64> {
        self.gates.iter().filter_map(|(_, gate)| match gate {
            Gate::Held(id) => Some(*id),
            Gate::Until(_) => None,
        })
    }

    /// Drops all that is unsent.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.queued = 0;
        self.tail.clear();
    }

    /// The place behind all that was written.
    pub(super) fn mark(&mut self) -> Mark {
        self.seal();
        Mark { written: self.given + self.unsent() as u64, chunks: self.chunks.len() }
    }

    /// Lets `bytes` bytes of what was written since `mark` leave, and no more.
    pub(super) fn cut_after(&mut self, mark: Mark, bytes: u64) {
        self.cut = Some(mark.written.saturating_add(bytes).min(self.given + self.unsent() as u64));
    }

    /// Writes once more what was written since `mark`, of which nothing has left.
    pub(super) fn repeat(&mut self, mark: Mark) {
        self.seal();
        let again: Vec<Bytes> = self.chunks.iter().skip(mark.chunks).cloned().collect();
        for chunk in again {
            self.queued += chunk.len();
            self.chunks.push_back(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(out: &mut Outbox) -> Vec<Bytes> {
        std::iter::from_fn(|| out.take()).collect()
    }

    #[test]
    fn small_frames_leave_as_one_chunk_and_a_large_body_leaves_uncopied() {
        let mut out = Outbox::default();
        let body = Bytes::from(vec![7; CHUNKED]);
        out.tail().extend_from_slice(b"ab");
        out.tail().extend_from_slice(b"cd");
        out.push(body.clone());
        out.push(Bytes::from_static(b"e"));
        assert_eq!(out.unsent(), 5 + CHUNKED);
        let chunks = all(&mut out);
        assert_eq!(chunks, [Bytes::from_static(b"abcd"), body.clone(), Bytes::from_static(b"e")]);
        assert_eq!(chunks[1].as_ptr(), body.as_ptr());
        assert_eq!(out.unsent(), 0);
    }

    #[test]
    fn what_was_written_since_a_mark_can_be_cut_or_repeated() {
        let mut out = Outbox::default();
        out.tail().extend_from_slice(b"before");
        let mark = out.mark();
        out.tail().extend_from_slice(b"answer");
        out.repeat(mark);
        assert_eq!(all(&mut out).concat(), b"beforeansweranswer");
        let mark = out.mark();
        out.gate(mark, Gate::Held(7));
        out.tail().extend_from_slice(b"answer");
        assert_eq!((out.take(), out.held().collect::<Vec<_>>()), (None, vec![7]));
        out.open(|gate| gate == Gate::Held(7));
        assert_eq!(all(&mut out).concat(), b"answer");
        let mark = out.mark();
        out.tail().extend_from_slice(b"answer");
        out.cut_after(mark, 2);
        assert!(!out.is_cut());
        assert_eq!(all(&mut out).concat(), b"an");
        assert!(out.is_cut());
    }
}
