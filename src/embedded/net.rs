//! The thin part: listeners, streams and the clock around a [`Machine`].
//!
//! ```text
//! listener -> stream -> read buffer -> handle_input --+
//!                       write queue <- poll_output  <-+-- one machine behind a lock, held for one input at a time
//! timer task ------------------------> handle_timeout +
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "this file drives sockets: it reads the clock, sleeps and spawns"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use super::machine::{Clock, ConnectionId, Machine, Need, Output};
use super::sim;
use crate::{NodeId, Timestamp};

/// Connections of one listener at once; one more is closed at once.
const MAX_CONNECTIONS: usize = 4096;
/// Bytes of one connection's output that wait here for the socket.
const WRITE_AHEAD: usize = 256 * 1024;
/// The least room that is made for a read, and the most that a paused connection may send ahead.
const READ_ROOM: usize = 8 * 1024;
const READ_AHEAD: usize = 64 * 1024;
/// The most that is reserved at once for a frame in progress, however long it claims to be.
const READ_STEP: usize = 1024 * 1024;
/// Slices given to one write.
const SLICES: usize = 32;

/// What went over a broker's connections since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Connections that clients made.
    pub connections: u64,
    /// Of these, those that are open now.
    pub open: u64,
    /// Bytes that clients sent.
    pub bytes_in: u64,
    /// Bytes that were sent to clients.
    pub bytes_out: u64,
}

#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    closed: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// A machine and the tasks around it. Dropped, it stops them all.
#[derive(Debug)]
pub(crate) struct Driver<M> {
    shared: Arc<Shared<M>>,
    tasks: Mutex<Vec<Abort>>,
}

#[derive(Debug)]
struct Abort(JoinHandle<()>);
impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Shared<M> {
    state: Mutex<State<M>>,
    timer: Notify,
    counters: Counters,
}

#[derive(Debug)]
struct State<M> {
    machine: M,
    connections: BTreeMap<ConnectionId, Arc<Notify>>,
    next: u64,
    skew: Duration,
    /// What the timer task sleeps until.
    armed: Option<Instant>,
}

impl<M: Machine> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the machine an input, then passes on what follows from it.
    fn with<R>(&self, input: impl FnOnce(&mut M, Instant) -> R) -> R {
        self.step(&mut self.lock(), input)
    }

    fn step<R>(&self, state: &mut State<M>, input: impl FnOnce(&mut M, Instant) -> R) -> R {
        let now = tokio::time::Instant::now().into_std() + state.skew;
        let result = input(&mut state.machine, now);
        while let Some(connection) = state.machine.poll_wake() {
            if let Some(notify) = state.connections.get(&connection) {
                notify.notify_one();
            }
        }
        let due = state.machine.poll_timeout();
        if due.is_some_and(|due| state.armed.is_none_or(|armed| due < armed)) {
            self.timer.notify_one();
        }
        result
    }
}

impl<M: Machine> Driver<M> {
    /// Puts the machine to work. Must be called within a tokio runtime.
    pub(crate) fn new(machine: M) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                machine,
                connections: BTreeMap::new(),
                next: 1,
                skew: Duration::ZERO,
                armed: None,
            }),
            timer: Notify::new(),
            counters: Counters::default(),
        });
        let timer = Abort(tokio::spawn(run_timer(shared.clone())));
        Self { shared, tasks: Mutex::new(vec![timer]) }
    }

    /// Serves the clients of a listener as those of `node`.
    pub(crate) fn listen(&self, listener: TcpListener, node: NodeId) {
        let task = Abort(tokio::spawn(accept(self.shared.clone(), listener, node)));
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Serves those who connect over a simulated network as clients of `node`.
    pub(crate) fn listen_on(&self, listener: sim::Listener, node: NodeId) {
        let task = Abort(tokio::spawn(accept_on(self.shared.clone(), listener, node)));
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Serves one stream as a connection to `node` until either side ends it. Dropping the future cuts the connection.
    #[cfg(test)]
    pub(crate) fn serve<S>(
        &self,
        stream: S,
        node: NodeId,
        peer: SocketAddr,
    ) -> impl Future<Output = ()> + Send + use<M, S>
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        serve(self.shared.clone(), stream, node, peer)
    }

    /// What went over the connections so far.
    pub(crate) fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { opened, closed, bytes_in, bytes_out } = &self.shared.counters;
        let (closed, connections) = (read(closed), read(opened));
        Traffic {
            connections,
            open: connections.saturating_sub(closed),
            bytes_in: read(bytes_in),
            bytes_out: read(bytes_out),
        }
    }

    /// Looks at the machine, or gives it an input of another kind.
    pub(crate) fn with<R>(&self, input: impl FnOnce(&mut M, Instant) -> R) -> R {
        self.shared.with(input)
    }

    /// Lets so much time pass at once: everything that falls due on the way is done.
    pub(crate) fn advance(&self, by: Duration) {
        let mut state = self.shared.lock();
        let begin = tokio::time::Instant::now().into_std() + state.skew;
        let end = begin + by;
        let base = state.skew;
        // Step by step, so that what follows from one timer sees the time at which that one was due.
        while let Some(due) = state.machine.poll_timeout().filter(|due| *due <= end) {
            state.skew = base + due.saturating_duration_since(begin);
            let before = state.machine.poll_timeout();
            self.shared.step(&mut state, |machine, now| machine.handle_timeout(now));
            if state.machine.poll_timeout() == before {
                break;
            }
        }
        state.skew = base + by;
        self.shared.step(&mut state, |machine, now| machine.handle_timeout(now));
        self.shared.timer.notify_one();
    }
}

/// A listener on 127.0.0.1; port 0 lets the system pick.
pub(crate) async fn bind(port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Both clocks, read now.
pub(crate) fn clock() -> Clock {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Clock {
        at: tokio::time::Instant::now().into_std(),
        wall: Timestamp(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
    }
}

async fn run_timer<M: Machine>(shared: Arc<Shared<M>>) {
    loop {
        let due = {
            let mut state = shared.lock();
            // The machine's time runs ahead of the runtime's by the skew.
            let due = state.machine.poll_timeout();
            state.armed = due;
            due.map(|due| due.checked_sub(state.skew).unwrap_or(due))
        };
        match due {
            None => shared.timer.notified().await,
            Some(due) => {
                tokio::select! {
                    biased;
                    () = shared.timer.notified() => continue,
                    () = tokio::time::sleep_until(due.into()) => {}
                }
                shared.with(|machine, now| machine.handle_timeout(now));
            }
        }
    }
}

async fn accept<M: Machine>(shared: Arc<Shared<M>>, listener: TcpListener, node: NodeId) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if connections.len() >= MAX_CONNECTIONS || !shared.lock().machine.accepts(node) {
                        let _ = stream.set_zero_linger();
                        continue;
                    }
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(shared.clone(), stream, node, peer));
                }
                // Out of descriptors, most likely: those of others come free.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn accept_on<M: Machine>(shared: Arc<Shared<M>>, mut listener: sim::Listener, node: NodeId) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            incoming = listener.accept() => {
                let Some(incoming) = incoming else { return };
                if connections.len() < MAX_CONNECTIONS
                    && shared.lock().machine.accepts(node)
                    && let Some((stream, peer)) = incoming.accept()
                {
                    connections.spawn(serve(shared.clone(), stream, node, peer));
                }
            }
        }
    }
}

/// Says farewell to the machine, also when the task is aborted.
struct Opened<M: Machine> {
    shared: Arc<Shared<M>>,
    connection: ConnectionId,
}

impl<M: Machine> Drop for Opened<M> {
    fn drop(&mut self) {
        count(&self.shared.counters.closed, 1);
        let mut state = self.shared.lock();
        state.connections.remove(&self.connection);
        self.shared.step(&mut state, |machine, now| machine.handle_close(self.connection, now));
    }
}

async fn serve<M: Machine, S>(shared: Arc<Shared<M>>, stream: S, node: NodeId, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let notify = Arc::new(Notify::new());
    count(&shared.counters.opened, 1);
    let connection = {
        let mut state = shared.lock();
        let connection = ConnectionId(state.next);
        state.next += 1;
        state.connections.insert(connection, notify.clone());
        shared.step(&mut state, |machine, now| machine.handle_open(connection, node, peer, now));
        connection
    };
    let opened = Opened { shared, connection };
    let shared = &opened.shared;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut input = BytesMut::new();
    let mut need = Need::default();
    let mut queue = Queue::default();
    let mut closing = false;
    loop {
        if !closing && queue.size < WRITE_AHEAD {
            // One lock for all that the socket may take.
            let reset = shared.with(|machine, _| {
                while queue.size < WRITE_AHEAD {
                    match machine.poll_output(connection) {
                        Output::Bytes(bytes) => queue.push(bytes),
                        Output::Pending => break,
                        Output::Close => {
                            closing = true;
                            break;
                        }
                        Output::Reset => return true,
                    }
                }
                false
            });
            if reset {
                return;
            }
        } else if shared.lock().machine.is_cut(connection) {
            return;
        }
        if closing && queue.size == 0 {
            let _ = writer.shutdown().await;
            return;
        }
        let wanted = if need.paused { READ_AHEAD } else { READ_AHEAD.max(input.len() + need.reserve) };
        let reading = !closing && input.len() < wanted;
        if reading {
            input.reserve(need.reserve.clamp(READ_ROOM, READ_STEP));
        }
        tokio::select! {
            biased;
            written = queue.write(&mut writer), if queue.size > 0 => match written {
                Ok(n) => count(&shared.counters.bytes_out, n),
                Err(_) => return,
            },
            read = reader.read_buf(&mut input), if reading => match read {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    count(&shared.counters.bytes_in, n);
                    need = shared.with(|machine, now| machine.handle_input(connection, &mut input, now));
                }
            },
            () = notify.notified() => if need.paused {
                need = shared.with(|machine, now| machine.handle_input(connection, &mut input, now));
            },
        }
    }
}

/// Bytes on their way to one socket.
#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    size: usize,
}

impl Queue {
    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.size += bytes.len();
            self.chunks.push_back(bytes);
        }
    }

    /// Writes once; how much. Cancel safe: what was not written stays.
    async fn write<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> io::Result<usize> {
        let written = {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            writer.write_vectored(slices.get(..used).unwrap_or_default()).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.size -= written.min(self.size);
        let mut left = written;
        while left > 0 {
            let Some(front) = self.chunks.front_mut() else { break };
            if front.len() <= left {
                left -= front.len();
                self.chunks.pop_front();
            } else {
                front.advance(left);
                left = 0;
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
