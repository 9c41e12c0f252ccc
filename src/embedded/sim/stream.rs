//! One end of a connection.
#![allow(clippy::disallowed_methods, reason = "this file stands for a socket: it reads the clock and sleeps")]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Shared;
use super::state::WINDOW;

/// One end of a connection of a [`Network`](super::Network). Dropped, the other end reads what was sent, then the end.
#[derive(Debug)]
pub(crate) struct Stream {
    shared: Arc<Shared>,
    number: u64,
    /// 0 is the client's.
    side: usize,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, number: u64, side: usize) -> Self {
        Self { shared, number, side, sleep: None }
    }

    /// Ready at that time; the reader is woken then.
    fn poll_until(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        let ready = sleep.as_mut().poll(cx);
        if ready.is_ready() {
            self.sleep = None;
        }
        ready
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// What a read came upon.
enum Found {
    Read,
    Nothing,
    Until(Instant),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let found = {
                let mut state = this.shared.lock();
                let now = Instant::now();
                let from = 1 - this.side;
                let blocked = state.is_blocked(this.number, from);
                let Some(conn) = state.conns.get_mut(&this.number) else { return Poll::Ready(Err(reset())) };
                let broken = conn.broken;
                let Some(way) = conn.ways.get_mut(from) else { return Poll::Ready(Err(reset())) };
                let mut taken = 0;
                let mut next = None;
                while !blocked && out.remaining() > 0 {
                    match way.segments.front_mut() {
                        Some((at, _)) if *at > now => {
                            next = Some(*at);
                            break;
                        }
                        Some((_, bytes)) => {
                            let n = bytes.len().min(out.remaining());
                            out.put_slice(bytes.get(..n).unwrap_or_default());
                            bytes.advance(n);
                            taken += n;
                            if bytes.is_empty() {
                                way.segments.pop_front();
                            }
                        }
                        None => break,
                    }
                }
                way.queued = way.queued.saturating_sub(taken);
                let found = if taken > 0 {
                    if let Some(waker) = way.writer.take() {
                        waker.wake();
                    }
                    Found::Read
                } else if way.segments.is_empty() && broken {
                    return Poll::Ready(Err(reset()));
                } else if blocked {
                    Found::Nothing
                } else if let Some(at) = next {
                    Found::Until(at)
                } else {
                    match way.end {
                        Some(at) if at <= now => return Poll::Ready(Ok(())),
                        Some(at) => Found::Until(at),
                        None => Found::Nothing,
                    }
                };
                if !matches!(found, Found::Read) {
                    way.reader = Some(cx.waker().clone());
                }
                if taken > 0 {
                    let filled = out.filled();
                    let bytes = filled.get(filled.len() - taken..).unwrap_or_default();
                    state.note(this.number, from, "read", bytes);
                }
                found
            };
            match found {
                Found::Read => return Poll::Ready(Ok(())),
                Found::Nothing => return Poll::Pending,
                Found::Until(at) => {
                    if this.poll_until(at, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = this.shared.lock();
        let now = Instant::now();
        let Some(conn) = state.conns.get_mut(&this.number) else { return Poll::Ready(Err(reset())) };
        if conn.broken {
            return Poll::Ready(Err(reset()));
        }
        // The other side is gone and this side has had the time to learn it.
        let told = conn.ways.get(1 - this.side).is_some_and(|w| w.end.is_some_and(|at| at <= now));
        let Some(way) = conn.ways.get_mut(this.side) else { return Poll::Ready(Err(reset())) };
        if way.end.is_some() || (way.deaf && told) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if way.queued >= WINDOW {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(state.send(this.number, this.side, data)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One segment, as one system call makes one.
        let mut data = Vec::with_capacity(slices.iter().map(|s| s.len()).sum::<usize>().min(WINDOW));
        for slice in slices {
            let n = slice.len().min(WINDOW - data.len());
            data.extend_from_slice(slice.get(..n).unwrap_or_default());
        }
        self.poll_write(cx, &data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().end(self.number, self.side, false);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().end(self.number, self.side, true);
    }
}
