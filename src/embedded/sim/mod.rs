//! A network in memory, drawn from a seed: latency, bandwidth, partitions, cuts, and a hash over all that crossed it.
//!
//! ```no_run
//! # async fn example() -> muslin::Result<()> {
//! use muslin::embedded::{Kafka, sim::Network};
//! use muslin::kafka::Client;
//!
//! let network = Network::new(42);
//! let kafka = Kafka::builder().brokers(3).topic("orders", 3).start_on(&network)?;
//! let wall = network.clone();
//! let client = Client::builder(kafka.bootstrap())
//!     .connector(network.connector("client"))
//!     .wall_clock(move || wall.wall())
//!     .seed(42)
//!     .connect()
//!     .await?;
//! network.block("client", "kafka-2"); // what the client sends to broker 2 waits from now on
//! # Ok(()) }
//! ```
//!
//! Hosts have names. A broker of an embedded cluster is `kafka-1`, `kafka-2` and so on; a client has the name that its
//! connector was made with. Every setting is for one way, from one host to another: a link can be slow or cut off one
//! way alone.
//!
//! The network sleeps on tokio's clock and spawns nothing of its own, so that it does as well in a runtime whose time is
//! paused (`tokio::test(start_paused = true)`): then hours of virtual time pass in a moment. On a `current_thread` runtime
//! whose time is paused, with a client that has a [seed](crate::kafka::ClientBuilder::seed) and a
//! [clock](crate::kafka::ClientBuilder::wall_clock), the same seed gives the same run, byte by byte:
//! [`Network::trace`] is the same.
//!
//! ```text
//! connector.connect() --latency--> listener (a broker's accept loop) --latency--> stream | refused
//! stream: write -> way (segments, each with the time of its arrival) -> read
//! ```
//!
//! What it leaves out: packets are not lost, doubled or reordered within a connection (TCP mends that; a blocked way is
//! what its retries look like from above), and a connection that is blocked for ever never ends by itself.
#![allow(clippy::disallowed_methods, reason = "this file stands for sockets: it reads the clock and sleeps")]

mod state;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::state::{Conn, State};
pub use self::state::{Event, Quality};
pub(crate) use self::stream::Stream;
use crate::Timestamp;
use crate::kafka::{Connect, Connecting, Io};

/// Connections that wait to be taken by one listener.
const BACKLOG: usize = 1024;

/// A network in memory. Cheap to clone; all clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Network").field("connections", &state.open()).finish_non_exhaustive()
    }
}

impl Network {
    /// A network without hosts, whose ways take from 0.1 to 1 ms. Must be called within a tokio runtime: its time begins
    /// now.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(State::new(seed, Instant::now())) }))
    }

    /// Opens streams from this host: for [`ClientBuilder::connector`](crate::kafka::ClientBuilder::connector).
    #[must_use]
    pub fn connector(&self, host: impl Into<String>) -> Connector {
        Connector { network: self.clone(), host: host.into() }
    }

    /// What every way is like that has no quality of its own. It holds for what is sent from now on.
    pub fn set_default_quality(&self, quality: Quality) {
        self.0.lock().default = quality;
    }

    /// What the way from one host to another is like. It holds for what is sent from now on.
    pub fn set_quality(&self, from: &str, to: &str, quality: Quality) {
        let mut state = self.0.lock();
        let way = (state.host(from), state.host(to));
        state.qualities.insert(way, quality);
    }

    /// The way from one host to another is as all others again.
    pub fn reset_quality(&self, from: &str, to: &str) {
        let mut state = self.0.lock();
        let way = (state.host(from), state.host(to));
        state.qualities.remove(&way);
    }

    /// What one host sends to the other does not arrive until [`unblock`](Self::unblock); then all of it does. The other way
    /// goes on. Connections that are being opened wait too.
    pub fn block(&self, from: &str, to: &str) {
        let mut state = self.0.lock();
        let way = (state.host(from), state.host(to));
        state.blocked.insert(way);
    }

    /// Ends [`block`](Self::block).
    pub fn unblock(&self, from: &str, to: &str) {
        let mut state = self.0.lock();
        let way = (state.host(from), state.host(to));
        state.blocked.remove(&way);
        state.wake_all();
    }

    /// Unblocks every way.
    pub fn unblock_all(&self) {
        let mut state = self.0.lock();
        state.blocked.clear();
        state.wake_all();
    }

    /// Cuts all connections that this host has to others or others to it; what was on its way is lost. How many there were.
    pub fn cut(&self, host: &str) -> usize {
        let mut state = self.0.lock();
        let host = state.host(host);
        state.cut(|conn| conn.hosts.contains(&host))
    }

    /// Cuts the connections from a client's host to a broker's; what was on its way is lost. How many there were.
    pub fn cut_between(&self, from: &str, to: &str) -> usize {
        let mut state = self.0.lock();
        let hosts = [state.host(from), state.host(to)];
        state.cut(|conn| conn.hosts == hosts)
    }

    /// The connections between a client's host and a broker's break when so many more bytes have crossed them from `from` to
    /// `to`: exactly these bytes arrive. How many connections there were.
    pub fn cut_after(&self, from: &str, to: &str, bytes: u64) -> usize {
        let mut state = self.0.lock();
        let way = (state.host(from), state.host(to));
        state.cut_after(way, bytes)
    }

    /// A number over everything that was sent, connected and ended so far, and when: two runs with the same one did the same.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.0.lock().trace
    }

    /// The time since the network was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        let state = self.0.lock();
        Instant::now().saturating_duration_since(state.start)
    }

    /// The time of day on this network: [`Kafka::WALL`](crate::embedded::Kafka::WALL) when it was made. A client whose
    /// records have no timestamps of their own takes it as its [clock](crate::kafka::ClientBuilder::wall_clock): the
    /// brokers refuse timestamps that are far from theirs.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        let since = i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp(super::Kafka::WALL.0.saturating_add(since))
    }

    /// How many connections were opened, and how many bytes were sent, both ways together.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.opened, state.bytes)
    }

    /// Keeps the first so many events, to be read with [`events`](Self::events). Default 0. Memory: about 64 bytes each.
    pub fn record_events(&self, limit: usize) {
        self.0.lock().limit = limit;
    }

    /// What happened, as far as it was recorded: for finding where two runs part.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().events.clone()
    }

    /// A host that takes connections on a port. A second one under the same name and port replaces the first.
    pub(crate) fn listen(&self, host: &str, port: u16) -> Listener {
        let (sender, incoming) = mpsc::channel(BACKLOG);
        let mut state = self.0.lock();
        let host = state.host(host);
        state.listeners.insert((host, port), sender);
        Listener { incoming }
    }
}

/// Opens streams from one host of a [`Network`].
#[derive(Debug, Clone)]
pub struct Connector {
    network: Network,
    host: String,
}

impl Connect for Connector {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let stream = connect(&self.network.0, &self.host, host, port).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

async fn connect(shared: &Arc<Shared>, from: &str, to: &str, port: u16) -> std::io::Result<Stream> {
    let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let (there, back, peer) = {
        let mut state = shared.lock();
        let (from, to) = (state.host(from), state.host(to));
        let peer = state.next_peer(from);
        ((from, to), (to, from), peer)
    };
    pass(shared, there).await;
    let listener = shared.lock().listeners.get(&(there.1, port)).cloned();
    let Some(listener) = listener else {
        pass(shared, back).await;
        return Err(refused());
    };
    let (reply, taken) = oneshot::channel();
    let incoming = Incoming { shared: Arc::clone(shared), hosts: [there.0, there.1], peer, reply };
    let sent = listener.try_send(incoming).is_ok();
    let stream = if sent { taken.await.ok() } else { None };
    pass(shared, back).await;
    stream.ok_or_else(refused)
}

/// Waits as long as a packet takes on this way, and while the way is blocked.
async fn pass(shared: &Shared, way: (u32, u32)) {
    let at = {
        let mut state = shared.lock();
        let latency = state.latency(way);
        Instant::now() + latency
    };
    tokio::time::sleep_until(at).await;
    std::future::poll_fn(|cx| shared.lock().poll_way(way, cx)).await;
}

/// A host's side where connections arrive.
#[derive(Debug)]
pub(crate) struct Listener {
    incoming: mpsc::Receiver<Incoming>,
}

impl Listener {
    /// The next connection that somebody wants. `None` when another listener took its place.
    pub(crate) async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }
}

/// A connection that somebody wants. Dropped, it is refused.
#[derive(Debug)]
pub(crate) struct Incoming {
    shared: Arc<Shared>,
    hosts: [u32; 2],
    peer: SocketAddr,
    reply: oneshot::Sender<Stream>,
}

impl Incoming {
    /// Takes it: the server's end, and who is at the other. `None` where the other has gone meanwhile.
    pub(crate) fn accept(self) -> Option<(Stream, SocketAddr)> {
        let number = {
            let mut state = self.shared.lock();
            state.open_conn(Conn::new(self.hosts))
        };
        let near = Stream::new(Arc::clone(&self.shared), number, 1);
        let far = Stream::new(self.shared, number, 0);
        self.reply.send(far).ok().map(|()| (near, self.peer))
    }
}

#[cfg(test)]
mod tests;
