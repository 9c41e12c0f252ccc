//! What leaves on a stream.
//!
//! Of each frame the messenger writes the length, then the frame, then it flushes:
//!
//! ```text
//! length --4 bytes--> body --a ticket--> the frame is taken from the outbox, and its own length goes before it
//!                          --else------> joined with its length; a large one goes straight to the socket
//! ```
//! What is joined or taken leaves at the flush, in one write where the socket takes pieces.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use super::connect::Io;
use super::outbox::{Outbox, TICKET, read_ticket};

/// Bytes kept back until the flush; larger writes go straight to the socket behind what was kept. Also the size of
/// the writes to a stream that takes no pieces.
const JOIN: usize = 32 * 1024;
/// Pieces in one write.
const PIECES: usize = 64;

/// The sending side of a stream.
#[derive(Debug)]
pub(crate) struct Output {
    outbox: Outbox,
    place: Place,
    /// The first to leave: bytes from `written` on.
    joined: Vec<u8>,
    written: usize,
    /// What leaves behind them.
    chunks: VecDeque<Bytes>,
}

/// Where in the messenger's frames the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In a length, of which so many bytes are known.
    Length([u8; 4], usize),
    /// At the beginning of a frame of this length, which was not passed on yet.
    Begin([u8; 4]),
    /// In a frame, so many bytes before its end.
    Inside(usize),
}

const START: Place = Place::Length([0; 4], 0);

impl Output {
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self { outbox, place: START, joined: Vec::with_capacity(1024), written: 0, chunks: VecDeque::new() }
    }

    /// Takes some of the messenger's bytes, and returns how many.
    ///
    /// # Errors
    /// Those of `io`, and a ticket without a frame: nothing of it has left.
    pub(crate) fn poll_put(
        &mut self,
        io: &mut dyn Io,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.place {
            Place::Length(mut length, known) => {
                let mut taken = 0;
                for (to, from) in length.iter_mut().skip(known).zip(data) {
                    *to = *from;
                    taken += 1;
                }
                self.place = match known + taken {
                    4 if length == [0; 4] => {
                        self.joined.extend_from_slice(&length);
                        START
                    }
                    4 => Place::Begin(length),
                    known => Place::Length(length, known),
                };
                Poll::Ready(Ok(taken))
            }
            Place::Begin(length) => {
                let left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if left == TICKET
                    && let Some(number) = read_ticket(data)
                {
                    // What was taken before leaves first.
                    ready!(self.poll_drain(io, cx))?;
                    let Some(frame) = self.outbox.take(number) else {
                        return Poll::Ready(Err(io::Error::other("the frame of a request is missing")));
                    };
                    self.joined.extend_from_slice(&frame.length());
                    self.chunks = frame.chunks;
                    self.place = START;
                    return Poll::Ready(Ok(data.len()));
                }
                self.joined.extend_from_slice(&length);
                self.place = Place::Inside(left);
                self.poll_body(io, cx, data, left)
            }
            Place::Inside(left) => self.poll_body(io, cx, data, left),
        }
    }

    fn poll_body(
        &mut self,
        io: &mut dyn Io,
        cx: &mut Context<'_>,
        data: &[u8],
        left: usize,
    ) -> Poll<io::Result<usize>> {
        let data = data.get(..left).unwrap_or(data);
        let taken = ready!(self.poll_join(io, cx, data))?;
        self.place = match left.saturating_sub(taken) {
            0 => START,
            left => Place::Inside(left),
        };
        Poll::Ready(Ok(taken))
    }

    fn poll_join(&mut self, io: &mut dyn Io, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.chunks.is_empty() {
            ready!(self.poll_drain(io, cx))?;
        }
        if self.joined.len() + data.len() <= JOIN {
            self.joined.extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        loop {
            let kept = self.joined.get(self.written..).unwrap_or_default();
            let both = [IoSlice::new(kept), IoSlice::new(data)];
            let kept_len = kept.len();
            let n = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &both))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n.min(kept_len));
            if n > kept_len {
                return Poll::Ready(Ok(n - kept_len));
            }
        }
    }

    /// Writes what was kept back.
    ///
    /// # Errors
    /// Those of `io`.
    pub(crate) fn poll_drain(&mut self, io: &mut dyn Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let takes_pieces = io.is_write_vectored();
        while self.written < self.joined.len() || !self.chunks.is_empty() {
            if !takes_pieces && self.written == 0 {
                self.join_chunks();
            }
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let kept = self.joined.get(self.written..).filter(|kept| !kept.is_empty());
            let waiting = kept.into_iter().chain(self.chunks.iter().map(|chunk| &**chunk));
            let mut count = 0;
            for (piece, bytes) in pieces.iter_mut().zip(waiting) {
                *piece = IoSlice::new(bytes);
                count += 1;
            }
            let pieces = pieces.get(..count).unwrap_or_default();
            let n = ready!(Pin::new(&mut *io).poll_write_vectored(cx, pieces))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(n);
        }
        Poll::Ready(Ok(()))
    }

    /// For a stream that takes no pieces: small ones are copied together, a large one leaves as it is.
    fn join_chunks(&mut self) {
        while let Some(chunk) = self.chunks.front_mut() {
            let room = JOIN.saturating_sub(self.joined.len());
            if room == 0 || (self.joined.is_empty() && chunk.len() >= JOIN) {
                break;
            }
            let part = chunk.split_to(room.min(chunk.len()));
            self.joined.extend_from_slice(&part);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    /// `n` bytes have left.
    fn advance(&mut self, mut n: usize) {
        let kept = n.min(self.joined.len() - self.written);
        self.written += kept;
        n -= kept;
        if self.written == self.joined.len() {
            self.joined.clear();
            self.written = 0;
        }
        while let Some(chunk) = self.chunks.front_mut().filter(|_| n > 0) {
            let part = n.min(chunk.len());
            chunk.advance(part);
            n -= part;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests;
