use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::super::outbox::{COPIED, Frame, Parts, ticket};
use super::*;

/// A socket that takes at most so many bytes at a time, and between them none.
#[derive(Debug)]
struct Slow {
    step: usize,
    pieces: bool,
    wait: bool,
    got: Vec<u8>,
    /// The largest number of bytes offered in one write.
    offered: usize,
}

impl Slow {
    fn take(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.wait = !self.wait;
        if self.wait {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut left = self.step;
        for piece in pieces {
            let n = left.min(piece.len());
            self.got.extend_from_slice(&piece[..n]);
            left -= n;
        }
        self.offered = self.offered.max(pieces.iter().map(|piece| piece.len()).sum());
        Poll::Ready(Ok(self.step - left))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().take(cx, &[IoSlice::new(data)])
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.pieces {
            return this.take(cx, pieces);
        }
        // As a stream does that takes no pieces.
        let first = pieces.iter().position(|piece| !piece.is_empty()).unwrap_or_default();
        this.take(cx, pieces.get(first..=first).unwrap_or_default())
    }
    fn is_write_vectored(&self) -> bool {
        self.pieces
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Slow {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

async fn put(output: &mut Output, io: &mut dyn Io, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let n = std::future::poll_fn(|cx| output.poll_put(io, cx, data)).await?;
        data = &data[n..];
    }
    Ok(())
}

/// As the messenger does: the length, the frame, the flush.
async fn send(output: &mut Output, io: &mut dyn Io, frame: &[u8]) -> io::Result<()> {
    put(output, io, &u32::try_from(frame.len()).unwrap().to_be_bytes()).await?;
    put(output, io, frame).await?;
    std::future::poll_fn(|cx| output.poll_drain(io, cx)).await
}

fn frame(sizes: &[usize], fill: u8) -> (Parts, Vec<u8>) {
    let mut parts = Parts::new(vec![0, 0, fill]);
    let mut whole = vec![0, 0, fill];
    for size in sizes {
        parts.head.extend_from_slice(b"between");
        whole.extend_from_slice(b"between");
        let piece: Vec<u8> = (0..*size).map(|i| (i as u8).wrapping_mul(31).wrapping_add(fill)).collect();
        parts.push(&Bytes::from(piece.clone()));
        whole.extend_from_slice(&piece);
    }
    (parts, whole)
}

fn framed(whole: &[u8]) -> Vec<u8> {
    [&u32::try_from(whole.len()).unwrap().to_be_bytes()[..], whole].concat()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn frames_leave_whole_and_in_order_however_small_the_steps(
        frames in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(prop_oneof![0..40usize, 1_000..3_000usize, 30_000..40_000usize], 0..4)),
            1..5,
        ),
        step in prop_oneof![5..60usize, 60..5_000usize, Just(1 << 20)],
        pieces: bool,
    ) {
        run(async {
            let outbox = Outbox::default();
            let mut output = Output::new(outbox.clone());
            let mut io = Slow { step, pieces, wait: false, got: Vec::new(), offered: 0 };
            let mut expected = Vec::new();
            for ((past, sizes), fill) in frames.iter().zip(1..) {
                let (parts, whole) = frame(sizes, fill);
                if *past {
                    let number = outbox.post(Frame::new(parts).unwrap());
                    send(&mut output, &mut io, &ticket(number)).await.unwrap();
                } else {
                    send(&mut output, &mut io, &whole).await.unwrap();
                }
                expected.extend(framed(&whole));
                assert!(io.got == expected, "after the flush all has left");
            }
            assert_eq!(outbox.len(), 0);
        });
    }
}

#[test]
fn a_frame_of_pieces_leaves_in_one_write_without_a_copy() {
    run(async {
        let outbox = Outbox::default();
        let mut output = Output::new(outbox.clone());
        let mut io = Slow { step: 1 << 20, pieces: true, wait: true, got: Vec::new(), offered: 0 };
        let (parts, whole) = frame(&[100_000, 200_000], 1);
        let number = outbox.post(Frame::new(parts).unwrap());
        send(&mut output, &mut io, &ticket(number)).await.unwrap();
        assert_eq!(io.offered, whole.len() + 4, "length and frame were offered together");
        assert!(output.joined.capacity() < 2_000, "no record byte went through the buffer");
    });
}

#[test]
fn small_pieces_leave_together_on_a_stream_that_takes_no_pieces() {
    run(async {
        let outbox = Outbox::default();
        let mut output = Output::new(outbox.clone());
        let mut io = Slow { step: 1 << 20, pieces: false, wait: true, got: Vec::new(), offered: 0 };
        let (parts, whole) = frame(&[COPIED; 9], 1);
        let number = outbox.post(Frame::new(parts).unwrap());
        send(&mut output, &mut io, &ticket(number)).await.unwrap();
        assert_eq!(io.offered, whole.len() + 4);
        assert!(io.got == framed(&whole));
    });
}

#[test]
fn a_ticket_without_a_frame_is_an_error_before_anything_has_left() {
    run(async {
        let outbox = Outbox::default();
        let mut output = Output::new(outbox.clone());
        let mut io = Slow { step: 1 << 20, pieces: true, wait: true, got: Vec::new(), offered: 0 };
        let number = outbox.post(Frame::new(frame(&[5_000], 1).0).unwrap());
        drop(outbox.take(number));
        send(&mut output, &mut io, &ticket(number)).await.unwrap_err();
        assert!(io.got.is_empty());
    });
}

#[test]
fn an_ordinary_frame_of_a_tickets_size_stays_one() {
    run(async {
        let mut output = Output::new(Outbox::default());
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = near;
        let frame = [0, 18, 0, 0, 0, 0, 0, 1, 0, 0];
        send(&mut output, &mut near, &frame).await.unwrap();
        send(&mut output, &mut near, &[]).await.unwrap();
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [&framed(&frame)[..], &[0; 4]].concat());
    });
}
