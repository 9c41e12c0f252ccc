//! The byte stream below rskafka's messenger.
//!
//! The messenger writes a frame's length apart from the frame; here both leave in one packet, at its flush, and frames
//! with record bytes come past it ([`Output`]). It reads in small pieces; here reads are buffered. And it has no way to be
//! closed while requests wait on it; a [`Switch`] breaks the stream under it, which fails every waiting request at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::connect::Io;
use super::frame::{Fault, Watch};
use super::outbox::Outbox;
use super::output::Output;

/// The read buffer; larger reads go straight from the socket.
const READ_BUFFER: usize = 16 * 1024;

/// Breaks a stream from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switch(Arc<SwitchState>);

#[derive(Debug, Default)]
struct SwitchState {
    broken: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
    calls: Notify,
}

impl Switch {
    /// From now on every read and write fails; those that wait are woken.
    pub(crate) fn break_stream(&self) {
        self.0.broken.store(true, Ordering::Release);
        self.0.reader.wake();
        self.0.writer.wake();
        self.0.calls.notify_waiters();
    }

    /// Waits until the stream is broken. Those that wait are woken in the order in which they came; the messenger would
    /// wake them in the random order of its map, and no run could be repeated.
    pub(crate) async fn broken(&self) {
        let call = self.0.calls.notified();
        tokio::pin!(call);
        call.as_mut().enable();
        if !self.is_broken() {
            call.await;
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Acquire)
    }
}

/// A stream to a broker with joined writes and buffered, watched reads.
pub(crate) struct WireStream {
    io: Box<dyn Io>,
    switch: Switch,
    watch: Watch,
    // Bytes `read_from..read_to` were read from the socket and not handed out.
    read: Box<[u8]>,
    read_from: usize,
    read_to: usize,
    output: Output,
}

impl std::fmt::Debug for WireStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireStream").field("watch", &self.watch).finish_non_exhaustive()
    }
}

impl WireStream {
    pub(crate) fn new(io: Box<dyn Io>, max_frame: usize, switch: Switch, outbox: Outbox) -> Self {
        Self {
            io,
            switch,
            watch: Watch::new(max_frame),
            read: vec![0; READ_BUFFER].into_boxed_slice(),
            read_from: 0,
            read_to: 0,
            output: Output::new(outbox),
        }
    }

    fn broken(&mut self) -> Option<io::Error> {
        self.switch.is_broken().then(|| fault(Fault::Broken))
    }
}

fn fault(fault: Fault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

impl AsyncRead for WireStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.switch.0.reader.register(cx.waker());
        if let Some(e) = this.broken() {
            return Poll::Ready(Err(e));
        }
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = out.filled().len();
        let result = this.poll_fill(cx, out, before);
        if let Poll::Ready(ended) = &result
            && (ended.is_err() || out.filled().len() == before)
        {
            // The peer is gone: whoever looks at the link next opens another instead of sending into this one.
            this.switch.break_stream();
        }
        result
    }
}

impl WireStream {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        before: usize,
    ) -> Poll<io::Result<()>> {
        let this = self;
        if this.read_from == this.read_to {
            if out.remaining() >= READ_BUFFER {
                ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
            } else {
                let mut buffer = ReadBuf::new(&mut this.read);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer))?;
                (this.read_from, this.read_to) = (0, buffer.filled().len());
            }
        }
        if this.read_from < this.read_to {
            let n = out.remaining().min(this.read_to - this.read_from);
            if let Some(bytes) = this.read.get(this.read_from..this.read_from + n) {
                out.put_slice(bytes);
            }
            this.read_from += n;
        }
        let got = out.filled().get(before..).unwrap_or_default();
        if got.is_empty() && this.watch.is_fresh() {
            return Poll::Ready(Err(fault(Fault::ClosedAtOnce)));
        }
        Poll::Ready(this.watch.handle_bytes(got).map_err(fault))
    }
}

impl AsyncWrite for WireStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.switch.0.writer.register(cx.waker());
        if let Some(e) = this.broken() {
            return Poll::Ready(Err(e));
        }
        let written = this.output.poll_put(&mut *this.io, cx, data);
        this.broken_by(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.switch.0.writer.register(cx.waker());
        if let Some(e) = this.broken() {
            return Poll::Ready(Err(e));
        }
        let flushed = match this.output.poll_drain(&mut *this.io, cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.io).poll_flush(cx),
            other => other,
        };
        this.broken_by(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.output.poll_drain(&mut *this.io, cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl WireStream {
    /// A write that failed: the peer is gone.
    fn broken_by<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Err(_))) {
            self.switch.break_stream();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn length_and_frame_leave_together_at_the_flush() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut stream = WireStream::new(Box::new(near), 1 << 20, Switch::default(), Outbox::default());
        stream.write_all(&5i32.to_be_bytes()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut got = [0; 64];
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), far.read(&mut got)).await;
        assert!(early.is_err(), "nothing leaves before the flush");
        stream.flush().await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 9);
    }

    #[tokio::test]
    async fn a_large_frame_arrives_whole_and_in_order() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut stream = WireStream::new(Box::new(near), 1 << 20, Switch::default(), Outbox::default());
        let body: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        let sent = body.clone();
        let writer = async move {
            stream.write_all(b"head").await.unwrap();
            stream.write_all(&sent).await.unwrap();
            stream.flush().await.unwrap();
        };
        let mut got = vec![0; body.len() + 4];
        let (_, read) = tokio::join!(writer, far.read_exact(&mut got));
        read.unwrap();
        assert_eq!(&got[..4], b"head");
        assert!(got[4..] == body[..]);
    }

    #[tokio::test]
    async fn the_switch_wakes_a_read_that_waits() {
        let (near, _far) = tokio::io::duplex(64);
        let switch = Switch::default();
        let mut stream = WireStream::new(Box::new(near), 1 << 20, switch.clone(), Outbox::default());
        let mut byte = [0; 1];
        let (read, ()) = tokio::join!(stream.read_exact(&mut byte), async { switch.break_stream() });
        assert_eq!(read.unwrap_err().get_ref().unwrap().to_string(), Fault::Broken.to_string());
    }
}
