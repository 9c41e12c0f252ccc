#![allow(clippy::disallowed_methods, reason = "moves bytes between two sockets")]
//! Stands between the library and the broker, inside this process.
//!
//! ```text
//! amqprs ◄──── loopback socket ────► relay ◄──── the broker's socket ────► RabbitMQ
//!                                      └ frames.rs: what comes in is checked and mended
//! ```
//!
//! The library dials by itself, so it is given a loopback port that takes one connection. In exchange for that hop: no
//! frame reaches the library unchecked, a peer that is no broker is known by its first bytes, and a connection that is
//! given up ends at once, also when the library's writer is stuck in a full socket.
//!
//! The port takes the first that connects and is closed then. Another local program that gets there first reaches
//! RabbitMQ's greeting and no more; the client's own connect then fails.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::frames::{HEAD, Step, inspect};
use super::probe::recognise;
use crate::{Error, ErrorKind, Result};

/// Bytes read in one go, each way.
const CHUNK: usize = 64 * 1024;
/// How long one direction may go on when the other has ended.
const LINGER: Duration = Duration::from_secs(1);

/// Why the relay ended the connection, if it did.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict(Arc<OnceLock<Error>>);

impl Verdict {
    pub(super) fn get(&self) -> Option<Error> {
        self.0.get().map(Error::duplicate)
    }
}

/// A running relay. Dropped, it closes both sockets.
#[derive(Debug)]
pub(super) struct Relay {
    task: JoinHandle<()>,
    port: u16,
    verdict: Verdict,
}

impl Relay {
    /// Starts one before `broker`, whose `address` is for messages.
    pub(super) async fn start(broker: TcpStream, address: String) -> Result<Self> {
        let local = |e: std::io::Error| {
            Error::new(
                ErrorKind::Connect,
                "no socket on the loopback interface, which AMQP needs in this crate",
            )
            .with_source(e)
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(local)?;
        let port = listener.local_addr().map_err(local)?.port();
        broker.set_nodelay(true).map_err(local)?;
        let verdict = Verdict::default();
        let task = tokio::spawn(run(listener, broker, address, verdict.clone()));
        Ok(Self { task, port, verdict })
    }

    /// The loopback port for the library.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: TcpListener, broker: TcpStream, address: String, verdict: Verdict) {
    let Ok((library, _)) = listener.accept().await else { return };
    drop(listener);
    let _ = library.set_nodelay(true);
    let (from_library, to_library) = library.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let out = pass(from_library, to_broker);
    let back = check(from_broker, to_library, &address, &verdict);
    tokio::pin!(out, back);
    tokio::select! {
        () = &mut out => drop(timeout(LINGER, back).await),
        () = &mut back => drop(timeout(LINGER, out).await),
    }
}

/// From the library to the broker: as it is, many small writes as one.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                if to.write_all(buffer.get(..n).unwrap_or_default()).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown().await;
}

/// From the broker to the library: frame by frame.
async fn check(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, address: &str, verdict: &Verdict) {
    if let Err(e) = check_frames(&mut from, &mut to, address).await {
        let _ = verdict.0.set(e);
    }
    let _ = to.shutdown().await;
}

async fn check_frames(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, address: &str) -> Result<()> {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    let mut greeted = false;
    loop {
        // A frame is at most MAX_FRAME, so the buffer stays below that and a chunk.
        buffer.reserve(CHUNK);
        let ended = matches!(from.read_buf(&mut buffer).await, Ok(0) | Err(_));
        if !greeted && (ended || buffer.len() >= HEAD) {
            recognise(address, buffer.get(..HEAD).unwrap_or(&buffer))?;
            greeted = true;
        }
        let mut sound = 0;
        loop {
            let rest = buffer.get_mut(sound..).unwrap_or_default();
            match inspect(rest).map_err(|e| e.context(address))? {
                Step::Incomplete => break,
                Step::Pass(len) => sound += len,
                Step::Replace { len, with } => {
                    tracing::warn!(
                        address,
                        "a message's headers are broken or nested too deep: it is delivered without them"
                    );
                    let before = buffer.split_to(sound);
                    buffer.advance(len);
                    sound = 0;
                    if to.write_all(&before).await.is_err() || to.write_all(&with).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        if sound > 0 && to.write_all(&buffer.split_to(sound)).await.is_err() {
            return Ok(());
        }
        if ended {
            return Ok(());
        }
    }
}
