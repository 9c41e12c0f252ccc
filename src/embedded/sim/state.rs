//! What a network knows: hosts, ways, connections, the trace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Incoming;
use crate::random::mix;

/// Bytes of one way of a connection that may be under way; more waits at the writer.
pub(super) const WINDOW: usize = 256 * 1024;

/// What a way from one host to another is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// The shortest time that a packet takes.
    pub least: Duration,
    /// The longest time that a packet takes. Each is drawn anew; order is kept.
    pub most: Duration,
    /// Bytes a second that a connection can send, or 0 for no limit.
    pub bandwidth: u64,
}

impl Default for Quality {
    fn default() -> Self {
        Self { least: Duration::from_micros(100), most: Duration::from_millis(1), bandwidth: 0 }
    }
}

/// Something that happened on a [`Network`](super::Network).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, since the network was made.
    pub at: Duration,
    /// The connection, numbered in the order in which they were opened.
    pub connection: u64,
    /// Whether it went from the client to the broker.
    pub to_broker: bool,
    /// `open`, `send`, `read`, `end`, `cut`.
    pub what: &'static str,
    /// How many bytes.
    pub bytes: usize,
    /// A checksum of the bytes.
    pub checksum: u64,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// What is under way, with the time of its arrival.
    pub(super) segments: VecDeque<(Instant, Bytes)>,
    pub(super) queued: usize,
    /// Bytes sent so far.
    pub(super) sent: u64,
    /// The connection breaks when so many bytes were sent.
    pub(super) cut_at: Option<u64>,
    /// When the last segment arrives.
    last: Option<Instant>,
    /// When the line is free for the next segment.
    free: Option<Instant>,
    /// The writer will write no more; when the reader learns of it.
    pub(super) end: Option<Instant>,
    /// Nobody reads any more.
    pub(super) deaf: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// A connection: way 0 is the client's, way 1 the server's.
#[derive(Debug)]
pub(super) struct Conn {
    /// The client's host and the server's.
    pub(super) hosts: [u32; 2],
    pub(super) ways: [Way; 2],
    /// Cut: no side writes; what arrived before can still be read.
    pub(super) broken: bool,
    dropped: u8,
}

impl Conn {
    pub(super) fn new(hosts: [u32; 2]) -> Self {
        Self { hosts, ways: Default::default(), broken: false, dropped: 0 }
    }

    fn wake(&mut self) {
        for way in &mut self.ways {
            [way.reader.take(), way.writer.take()].into_iter().flatten().for_each(Waker::wake);
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct State {
    pub(super) start: Instant,
    random: u64,
    hosts: Vec<String>,
    peers: u16,
    pub(super) default: Quality,
    pub(super) qualities: BTreeMap<(u32, u32), Quality>,
    pub(super) blocked: BTreeSet<(u32, u32)>,
    pub(super) listeners: BTreeMap<(u32, u16), mpsc::Sender<Incoming>>,
    pub(super) conns: BTreeMap<u64, Conn>,
    waiting: Vec<Waker>,
    pub(super) opened: u64,
    pub(super) bytes: u64,
    pub(super) trace: u64,
    pub(super) events: Vec<Event>,
    pub(super) limit: usize,
}

impl State {
    pub(super) fn new(seed: u64, start: Instant) -> Self {
        Self {
            start,
            random: mix(seed),
            hosts: Vec::new(),
            peers: 0,
            default: Quality::default(),
            qualities: BTreeMap::new(),
            blocked: BTreeSet::new(),
            listeners: BTreeMap::new(),
            conns: BTreeMap::new(),
            waiting: Vec::new(),
            opened: 0,
            bytes: 0,
            trace: mix(seed ^ 1),
            events: Vec::new(),
            limit: 0,
        }
    }

    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(1);
        mix(self.random)
    }

    /// The number of a host's name.
    pub(super) fn host(&mut self, name: &str) -> u32 {
        let known = self.hosts.iter().position(|h| h == name);
        let index = known.unwrap_or_else(|| {
            self.hosts.push(name.to_owned());
            self.hosts.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// An address for the next connection of a host.
    pub(super) fn next_peer(&mut self, host: u32) -> SocketAddr {
        self.peers = self.peers.wrapping_add(1);
        let [.., c, d] = host.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(10, 0, c, d), 1024 + self.peers % 60_000))
    }

    fn quality(&self, way: (u32, u32)) -> Quality {
        self.qualities.get(&way).copied().unwrap_or(self.default)
    }

    /// How long a packet takes on this way, drawn.
    pub(super) fn latency(&mut self, way: (u32, u32)) -> Duration {
        let Quality { least, most, .. } = self.quality(way);
        let spread = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
        least + Duration::from_nanos(self.draw() % spread.saturating_add(1).max(1))
    }

    /// Ready while the way is not blocked.
    pub(super) fn poll_way(&mut self, way: (u32, u32), cx: &mut Context<'_>) -> Poll<()> {
        if self.blocked.contains(&way) {
            self.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    pub(super) fn wake_all(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
        self.conns.values_mut().for_each(Conn::wake);
    }

    pub(super) fn open(&self) -> usize {
        self.conns.len()
    }

    pub(super) fn open_conn(&mut self, conn: Conn) -> u64 {
        self.opened += 1;
        let number = self.opened;
        self.conns.insert(number, conn);
        self.note(number, 0, "open", &[]);
        number
    }

    /// Puts something that happened into the trace.
    pub(super) fn note(&mut self, connection: u64, way: usize, what: &'static str, data: &[u8]) {
        let at = Instant::now().saturating_duration_since(self.start);
        let sum = if data.is_empty() { 0 } else { checksum(CrcAlgorithm::Crc64Nvme, data) };
        let word = what.bytes().fold(0u64, |w, b| (w << 8) | u64::from(b));
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        for part in [nanos, connection * 2 + way as u64, word, data.len() as u64, sum] {
            self.trace = mix(self.trace ^ part);
        }
        if self.events.len() < self.limit {
            self.events.push(Event {
                at,
                connection,
                to_broker: way == 0,
                what,
                bytes: data.len(),
                checksum: sum,
            });
        }
    }

    /// Cuts connections at once; what is under way is lost.
    pub(super) fn cut(&mut self, which: impl Fn(&Conn) -> bool) -> usize {
        let numbers: Vec<u64> =
            self.conns.iter().filter(|(_, c)| !c.broken && which(c)).map(|(n, _)| *n).collect();
        for number in &numbers {
            if let Some(conn) = self.conns.get_mut(number) {
                conn.broken = true;
                for way in &mut conn.ways {
                    way.segments.clear();
                    way.queued = 0;
                }
                conn.wake();
            }
            self.note(*number, 0, "cut", &[]);
        }
        numbers.len()
    }

    pub(super) fn cut_after(&mut self, (from, to): (u32, u32), bytes: u64) -> usize {
        let mut count = 0;
        for conn in self.conns.values_mut().filter(|c| !c.broken) {
            let side = match conn.hosts {
                [client, server] if (client, server) == (from, to) => 0,
                [client, server] if (server, client) == (from, to) => 1,
                _ => continue,
            };
            if let Some(way) = conn.ways.get_mut(side) {
                way.cut_at = Some(way.sent.saturating_add(bytes.max(1)));
                count += 1;
            }
        }
        count
    }

    /// The hosts of a way of a connection.
    fn hosts_of(conn: &Conn, side: usize) -> (u32, u32) {
        let [client, server] = conn.hosts;
        if side == 0 { (client, server) } else { (server, client) }
    }

    /// Whether what this side of a connection sends is blocked.
    pub(super) fn is_blocked(&self, number: u64, side: usize) -> bool {
        !self.blocked.is_empty()
            && self.conns.get(&number).is_some_and(|c| self.blocked.contains(&Self::hosts_of(c, side)))
    }

    /// Takes bytes of a writer on their way; how many. The connection must be there and have room.
    pub(super) fn send(&mut self, number: u64, side: usize, data: &[u8]) -> usize {
        let now = Instant::now();
        let Some(hosts) = self.conns.get(&number).map(|c| Self::hosts_of(c, side)) else { return 0 };
        let latency = self.latency(hosts);
        let bandwidth = self.quality(hosts).bandwidth;
        let Some(conn) = self.conns.get_mut(&number) else { return 0 };
        let Some(way) = conn.ways.get_mut(side) else { return 0 };
        let left = way
            .cut_at
            .map_or(usize::MAX, |at| usize::try_from(at.saturating_sub(way.sent)).unwrap_or(usize::MAX));
        let n = data.len().min(WINDOW.saturating_sub(way.queued)).min(left);
        let data = data.get(..n).unwrap_or_default();
        let begin = way.free.map_or(now, |free| free.max(now));
        let nanos = (n as u64).saturating_mul(1_000_000_000).checked_div(bandwidth).unwrap_or(0);
        let free = begin + Duration::from_nanos(nanos);
        let mut at = free + latency;
        if let Some(last) = way.last {
            at = at.max(last);
        }
        way.free = Some(free);
        way.last = Some(at);
        way.sent += n as u64;
        if !way.deaf {
            way.queued += n;
            way.segments.push_back((at, Bytes::copy_from_slice(data)));
        }
        if let Some(waker) = way.reader.take() {
            waker.wake();
        }
        let cut = way.cut_at.is_some_and(|at| way.sent >= at);
        if cut {
            conn.broken = true;
            conn.wake();
        }
        self.bytes += n as u64;
        self.note(number, side, "send", data);
        if cut {
            self.note(number, side, "cut", &[]);
        }
        n
    }

    /// A side writes no more; `gone` if it reads no more either.
    pub(super) fn end(&mut self, number: u64, side: usize, gone: bool) {
        let now = Instant::now();
        let Some(hosts) = self.conns.get(&number).map(|c| Self::hosts_of(c, side)) else { return };
        let latency = self.latency(hosts);
        let Some(conn) = self.conns.get_mut(&number) else { return };
        let mut news = false;
        for (index, way) in conn.ways.iter_mut().enumerate() {
            if index == side {
                if way.end.is_none() {
                    let at = now + latency;
                    way.end = Some(way.last.map_or(at, |last| last.max(at)));
                    news = true;
                }
            } else if gone {
                way.deaf = true;
                way.segments.clear();
                way.queued = 0;
            }
        }
        conn.wake();
        if gone {
            conn.dropped += 1;
            if conn.dropped >= 2 {
                self.conns.remove(&number);
            }
        }
        if news {
            self.note(number, side, "end", &[]);
        }
    }
}
