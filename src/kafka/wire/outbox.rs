//! Frames that reach the stream past the messenger, so that record bytes are not copied on their way.
//!
//! The messenger takes a request as one `Vec` and would have all record bytes copied into it. A request with records
//! is written as a [`Parts`] instead: encoded bytes, and record bytes that are only pointed to. The frame made of
//! them is posted here, and the messenger gets a ticket in its place:
//!
//! ```text
//! call       -- request --> parts -- post --> outbox --------- take ---------> stream: length and frame, unlike
//!                                \-- ticket --> messenger (its turn) -- ticket --/   a ticket's of ten bytes
//! ```
//! The messenger keeps what it is there for: whose turn it is, and whose answer comes. The stream takes a frame in the
//! same poll in which it meets the ticket, so a call that is dropped either had no turn, and its frame is taken back, or
//! the stream has the frame whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};

/// Record bytes below this are copied: that costs less than a piece of their own.
pub(crate) const COPIED: usize = 1024;
/// Frames are told from tickets by their first two bytes, the key of a request: none is negative.
const MARK: [u8; 2] = [0xff, 0xff];
/// A ticket's size: the mark and a number.
pub(crate) const TICKET: usize = 2 + 8;

/// A request that is being written.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// What is encoded.
    pub(crate) head: Vec<u8>,
    /// What stands between: where in `head`, and the bytes.
    pieces: Vec<(usize, Bytes)>,
}

impl Parts {
    /// A request whose first bytes are written.
    pub(crate) fn new(head: Vec<u8>) -> Self {
        Self { head, pieces: Vec::new() }
    }

    /// Appends bytes, by copying them only if they are few.
    pub(crate) fn push(&mut self, bytes: &Bytes) {
        if bytes.len() < COPIED {
            self.head.extend_from_slice(bytes);
        } else {
            self.pieces.push((self.head.len(), bytes.clone()));
        }
    }

    /// Is there anything that was not copied?
    pub(crate) fn has_pieces(&self) -> bool {
        !self.pieces.is_empty()
    }
}

/// A whole frame without its length, in pieces.
#[derive(Debug)]
pub(crate) struct Frame {
    len: u32,
    pub(crate) chunks: VecDeque<Bytes>,
}

impl Frame {
    /// # Errors
    /// The size of a frame that is too large for its length of four bytes.
    pub(crate) fn new(parts: Parts) -> Result<Self, usize> {
        let mut head = Bytes::from(parts.head);
        let mut chunks = VecDeque::with_capacity(2 * parts.pieces.len() + 1);
        let (mut at, mut len) = (0, 0usize);
        for (place, piece) in parts.pieces {
            let before = head.split_to((place - at).min(head.len()));
            at = place;
            chunks.extend([before, piece].into_iter().filter(|chunk| chunk.has_remaining()));
        }
        chunks.extend(Some(head).filter(Bytes::has_remaining));
        for chunk in &chunks {
            len = len.saturating_add(chunk.len());
        }
        match u32::try_from(len) {
            Ok(len) if i32::try_from(len).is_ok() => Ok(Self { len, chunks }),
            _ => Err(len),
        }
    }

    /// The length that goes before the frame.
    pub(crate) fn length(&self) -> [u8; 4] {
        self.len.to_be_bytes()
    }
}

/// The frames of one connection that wait for their turn: as many as there are calls that wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    frames: BTreeMap<u64, Frame>,
    last: u64,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a frame until its turn. Returns its number, which is never 0.
    pub(crate) fn post(&self, frame: Frame) -> u64 {
        let mut waiting = self.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.frames.insert(number, frame);
        number
    }

    /// Takes a frame out: its turn has come, or its call is gone.
    pub(crate) fn take(&self, number: u64) -> Option<Frame> {
        self.lock().frames.remove(&number)
    }

    /// How many frames wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().frames.len()
    }
}

/// What the messenger is given in place of frame `number`.
pub(crate) fn ticket(number: u64) -> Vec<u8> {
    let mut ticket = Vec::with_capacity(TICKET);
    ticket.extend_from_slice(&MARK);
    ticket.extend_from_slice(&number.to_be_bytes());
    ticket
}

/// The number on a ticket; `None` for the beginning of a frame.
pub(crate) fn read_ticket(bytes: &[u8]) -> Option<u64> {
    bytes.strip_prefix(&MARK)?.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(frame: &Frame) -> Vec<u8> {
        frame.chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect()
    }

    #[test]
    fn a_frame_is_its_parts_in_order_and_large_ones_are_not_copied() {
        let large = Bytes::from(vec![7; COPIED]);
        let mut parts = Parts::new(b"head".to_vec());
        parts.push(&Bytes::from_static(b"small"));
        assert!(!parts.has_pieces());
        parts.push(&large);
        parts.push(&large);
        parts.head.extend_from_slice(b"between");
        parts.push(&large);
        let frame = Frame::new(parts).unwrap();
        let expected = [&b"headsmall"[..], &large, &large, b"between", &large].concat();
        assert_eq!(joined(&frame), expected);
        assert_eq!(frame.length(), u32::try_from(expected.len()).unwrap().to_be_bytes());
        assert_eq!(frame.chunks.iter().filter(|chunk| chunk.as_ptr() == large.as_ptr()).count(), 3);
    }

    #[test]
    fn a_frame_over_two_gigabytes_is_refused() {
        // The same piece again and again: no such memory is needed.
        let large = Bytes::from(vec![0; 1 << 20]);
        let mut parts = Parts::new(Vec::new());
        for _ in 0..2048 {
            parts.push(&large);
        }
        assert_eq!(Frame::new(parts).unwrap_err(), 1 << 31);
    }

    #[test]
    fn a_ticket_is_told_from_every_frame() {
        assert_eq!(read_ticket(&ticket(77)), Some(77));
        assert_eq!(ticket(1).len(), TICKET);
        assert_eq!(read_ticket(&[0, 0, 0, 9, 0, 0, 0, 1, 0, 0]), None, "ten bytes of a request");
        assert_eq!(read_ticket(&[0xff, 0xff, 0]), None);
    }

    #[test]
    fn a_frame_is_handed_out_once() {
        let outbox = Outbox::default();
        let frame = || Frame::new(Parts::new(b"x".to_vec())).unwrap();
        let (a, b) = (outbox.post(frame()), outbox.post(frame()));
        assert!(a != b && a != 0 && b != 0);
        assert!(outbox.take(a).is_some() && outbox.take(a).is_none());
        assert_eq!(outbox.len(), 1);
    }
}
