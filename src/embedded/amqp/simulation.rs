//! The client's pure machines against the broker's, without a socket: confirms of publishes, joined acknowledgements,
//! and the whole embedded RabbitMQ between them, on one thread, in virtual time.
//!
//! ```text
//! publisher (amqp::confirms) ──┐                    ┌── broker, connections, channels (machine::Server)
//!                              ├─ links: delays, ───┤
//! consumer (amqp::settle) ─────┘  pieces, cuts      └── killed and restarted, blocked
//! ```
//!
//! Everything that happens by chance is drawn from one seed: the same seed gives the same trace. What holds whatever
//! happens:
//!
//! * what was confirmed is delivered at least once, over cut links and restarts of the broker;
//! * what was returned or refused is not delivered, unless it was sent more than once;
//! * nothing is delivered more often than publishes, requeues and cuts explain;
//! * the broker never finds fault with a frame: no unknown delivery tag, no closed channel;
//! * the client never finds fault with a confirm;
//! * in the end nothing is left: all is confirmed or returned, and the queues are empty.

#![allow(clippy::disallowed_methods, reason = "a test needs some moment to start from")]

mod consumer;
mod publisher;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use self::consumer::Consumer;
use self::publisher::Publisher;
use super::machine::{Server, Settings};
use crate::embedded::faults::Faults;
use crate::embedded::machine::{Clock, ConnectionId, Machine, Output};
use crate::random::SplitMix64;
use crate::{NodeId, Timestamp};

/// Chances from a seed.
#[derive(Debug, Clone)]
struct Chance(SplitMix64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.draw()
    }

    /// From 0 to `below`, without it.
    fn below(&mut self, below: u64) -> u64 {
        self.next() % below.max(1)
    }

    /// Once in `n` times.
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn millis(&mut self, below: u64) -> Duration {
        Duration::from_micros(self.below(below * 1000))
    }
}

/// One direction of a link: pieces that arrive in order, each at its time.
#[derive(Debug, Default)]
struct Pipe(VecDeque<(Instant, Bytes)>);

impl Pipe {
    /// Sends bytes, in pieces as a network makes them.
    fn send(&mut self, mut bytes: Bytes, now: Instant, slow: u64, chance: &mut Chance) {
        while !bytes.is_empty() {
            let size = if chance.one_in(3) { 1 + chance.below(40) as usize } else { bytes.len() };
            let piece = bytes.split_to(size.min(bytes.len()));
            let last = self.0.back().map_or(now, |(at, _)| *at);
            self.0.push_back((last.max(now + chance.millis(slow)), piece));
        }
    }

    fn due(&mut self, now: Instant) -> Option<Bytes> {
        if self.0.front()?.0 > now {
            return None;
        }
        self.0.pop_front().map(|(_, piece)| piece)
    }
}

#[derive(Debug)]
struct Link {
    to_server: Pipe,
    to_client: Pipe,
    /// What the server has not taken yet.
    input: BytesMut,
    paused: bool,
}

/// A client's side of its connection.
trait Client {
    /// The connection it has.
    fn connection(&self) -> Option<ConnectionId>;
    /// It is connected anew.
    fn handle_open(&mut self, connection: ConnectionId);
    /// Bytes from the broker. What is to be sent is appended to `out`.
    fn handle_bytes(&mut self, bytes: &[u8], now: Instant, out: &mut BytesMut, trace: &mut Trace);
    /// The connection is gone.
    fn handle_cut(&mut self, now: Instant);
    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant, out: &mut BytesMut, trace: &mut Trace);
    fn poll_timeout(&self) -> Option<Instant>;
    fn is_done(&self) -> bool;
}

/// What happened to each message, and a hash over the order of it all.
#[derive(Debug, Default)]
struct Trace {
    hash: DefaultHasher,
    messages: BTreeMap<u64, Fate>,
    restarts: u32,
    consumer_cuts: u32,
}

#[derive(Debug, Default, Clone)]
struct Fate {
    published: u32,
    confirmed: bool,
    returned: u32,
    refused: u32,
    delivered: u32,
    requeued: u32,
    rejected: u32,
}

impl Trace {
    fn note(&mut self, what: &str, message: u64) -> &mut Fate {
        (what, message).hash(&mut self.hash);
        self.messages.entry(message).or_default()
    }
}

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy)]
struct Plan {
    messages: u64,
    window: usize,
    prefetch: u16,
    cuts: bool,
    restarts: bool,
    blocks: bool,
    /// Milliseconds that a piece takes at most.
    slow: u64,
}

impl Plan {
    fn draw(chance: &mut Chance) -> Self {
        let calm = chance.one_in(4);
        Self {
            messages: 50 + chance.below(250),
            window: 1 + chance.below(64) as usize,
            prefetch: 1 + chance.below(32) as u16,
            cuts: !calm && !chance.one_in(3),
            restarts: !calm && chance.one_in(2),
            blocks: chance.one_in(3),
            slow: 1 + chance.below(40),
        }
    }
}

struct World {
    now: Instant,
    start: Instant,
    chance: Chance,
    plan: Plan,
    server: Server,
    links: BTreeMap<ConnectionId, Link>,
    connections: u64,
    publisher: Publisher,
    consumer: Consumer,
    trace: Trace,
    /// When the next thing goes wrong.
    trouble: Option<Instant>,
}

impl World {
    fn new(seed: u64) -> Self {
        let start = Instant::now();
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance);
        let mut settings = Settings::default();
        settings.broker.seed = chance.next();
        let clock = Clock { at: start, wall: Timestamp(1_700_000_000_000) };
        let server = Server::new(settings, Faults::default(), clock);
        Self {
            now: start,
            start,
            server,
            links: BTreeMap::new(),
            connections: 0,
            publisher: Publisher::new(plan.messages, plan.window, chance.next()),
            consumer: Consumer::new(plan.prefetch, chance.next()),
            trace: Trace::default(),
            trouble: Some(start + Duration::from_millis(100)),
            chance,
            plan,
        }
    }

    /// Runs until nothing is left to do, and looks at what is left then.
    fn run(mut self) -> u64 {
        // Half an hour of trouble at most, then all must come to rest.
        let end = self.start + Duration::from_secs(1900);
        while !self.is_done() {
            assert!(self.now < end, "stuck: {:?} {:?} {:?}", self.plan, self.publisher, self.consumer);
            self.connect_clients();
            let next = self.next_time();
            self.now = self.now.max(next);
            self.deliver();
            self.clients_time();
            self.server.handle_timeout(self.now);
            self.pump();
            self.make_trouble();
        }
        self.check();
        (self.now - self.start).hash(&mut self.trace.hash);
        self.trace.hash.finish()
    }

    fn is_done(&self) -> bool {
        self.publisher.is_done()
            && self.consumer.is_done()
            && self.depth().is_some_and(|depth| depth == (0, 0))
    }

    fn depth(&self) -> Option<(u64, u64)> {
        let broker = self.server.broker();
        let vhost = broker.find_vhost(b"/").ok()?;
        let mut sum = (0, 0);
        for queue in wire::QUEUES {
            let depth = broker.queue_depth(vhost, queue.as_bytes())?;
            sum = (sum.0 + depth.ready, sum.1 + depth.unsettled);
        }
        Some(sum)
    }

    fn connect_clients(&mut self) {
        if !self.server.accepts(NodeId(0)) {
            return;
        }
        let clients: [&mut dyn Client; 2] = [&mut self.publisher, &mut self.consumer];
        for client in clients {
            if client.connection().is_some() {
                continue;
            }
            self.connections += 1;
            let id = ConnectionId(self.connections);
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            self.server.handle_open(id, NodeId(0), peer, self.now);
            let mut link = Link {
                to_server: Pipe::default(),
                to_client: Pipe::default(),
                input: BytesMut::new(),
                paused: false,
            };
            let hello = Bytes::from_static(&super::wire::frame::PROTOCOL);
            link.to_server.send(hello, self.now, self.plan.slow, &mut self.chance);
            self.links.insert(id, link);
            client.handle_open(id);
        }
    }

    fn next_time(&self) -> Instant {
        let pipes = self.links.values().flat_map(|link| {
            let to_server = if link.paused { None } else { link.to_server.0.front() };
            [to_server, link.to_client.0.front()].into_iter().flatten().map(|(at, _)| *at)
        });
        let timers = [
            self.server.poll_timeout(),
            self.publisher.poll_timeout(),
            self.consumer.poll_timeout(),
            self.trouble,
        ];
        // A broker that is down is asked again later.
        let later = self.now + Duration::from_secs(1);
        pipes.chain(timers.into_iter().flatten()).min().unwrap_or(later).min(later)
    }

    /// Lets arrive what is due.
    fn deliver(&mut self) {
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            self.feed_server(id);
            while let Some(piece) = self.links.get_mut(&id).and_then(|link| link.to_client.due(self.now)) {
                let mut out = BytesMut::new();
                let client: &mut dyn Client = if self.publisher.connection() == Some(id) {
                    &mut self.publisher
                } else {
                    &mut self.consumer
                };
                client.handle_bytes(&piece, self.now, &mut out, &mut self.trace);
                self.send(id, out);
            }
        }
    }

    fn feed_server(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.paused {
            return;
        }
        let mut fed = false;
        while let Some(piece) = link.to_server.due(self.now) {
            link.input.extend_from_slice(&piece);
            fed = true;
        }
        if fed {
            let need = self.server.handle_input(id, &mut link.input, self.now);
            link.paused = need.paused;
        }
    }

    fn send(&mut self, id: ConnectionId, bytes: BytesMut) {
        if let Some(link) = self.links.get_mut(&id) {
            link.to_server.send(bytes.freeze(), self.now, self.plan.slow, &mut self.chance);
        }
    }

    fn clients_time(&mut self) {
        for publisher in [true, false] {
            let client: &mut dyn Client = if publisher { &mut self.publisher } else { &mut self.consumer };
            if client.poll_timeout().is_none_or(|at| at > self.now) {
                continue;
            }
            let mut out = BytesMut::new();
            client.handle_timeout(self.now, &mut out, &mut self.trace);
            if let Some(id) = client.connection() {
                self.send(id, out);
            }
        }
    }

    /// Takes what the server has to say onto the links.
    fn pump(&mut self) {
        while let Some(id) = self.server.poll_wake() {
            if let Some(link) = self.links.get_mut(&id)
                && link.paused
            {
                let need = self.server.handle_input(id, &mut link.input, self.now);
                link.paused = need.paused;
            }
            loop {
                match self.server.poll_output(id) {
                    Output::Bytes(bytes) => {
                        if let Some(link) = self.links.get_mut(&id) {
                            link.to_client.send(bytes, self.now, self.plan.slow, &mut self.chance);
                        }
                    }
                    Output::Pending => break,
                    Output::Close => panic!("the broker closed a connection: {:?}", self.plan),
                    Output::Reset => {
                        self.cut(id);
                        break;
                    }
                }
            }
        }
    }

    /// The link is gone with all that is on it.
    fn cut(&mut self, id: ConnectionId) {
        if self.links.remove(&id).is_none() {
            return;
        }
        self.trace.note("cut", id.0);
        self.server.handle_close(id, self.now);
        if self.publisher.connection() == Some(id) {
            self.publisher.handle_cut(self.now);
        } else {
            self.trace.consumer_cuts += 1;
            self.consumer.handle_cut(self.now);
        }
    }

    fn make_trouble(&mut self) {
        if self.trouble.is_none_or(|at| at > self.now) {
            return;
        }
        let peace = self.now > self.start + Duration::from_secs(1800);
        self.server.set_blocked(None);
        self.trouble = None;
        if !peace && (self.plan.cuts || self.plan.restarts || self.plan.blocks) {
            self.trouble = Some(self.now + Duration::from_millis(20) + self.chance.millis(2_000));
        }
        if peace {
            self.pump();
            return;
        }
        match self.chance.below(4) {
            0 | 1 if self.plan.cuts => {
                let ids: Vec<_> = self.links.keys().copied().collect();
                if let Some(id) = ids.get(self.chance.below(ids.len() as u64) as usize) {
                    self.cut(*id);
                }
            }
            2 if self.plan.restarts => {
                self.trace.note("restart", 0);
                self.trace.restarts += 1;
                let back = self.now + self.chance.millis(500);
                self.server.die(Some(back), self.now);
            }
            3 if self.plan.blocks => self.server.set_blocked(Some("for a while")),
            _ => {}
        }
        self.pump();
    }

    /// What holds whatever happened.
    fn check(&self) {
        let plan = &self.plan;
        assert_eq!(self.trace.messages.keys().filter(|n| **n > 0).count() as u64, plan.messages, "{plan:?}");
        for (n, fate) in self.trace.messages.iter().filter(|(n, _)| **n > 0) {
            let told = format!("message {n}: {fate:?}; {plan:?}, {} restarts", self.trace.restarts);
            assert!(fate.confirmed || fate.returned > 0, "nobody knows what became of it: {told}");
            if fate.confirmed {
                assert!(fate.delivered > 0, "lost: {told}");
            }
            if wire::is_unroutable(*n) {
                assert!(!fate.confirmed && fate.delivered == 0, "no queue could take it: {told}");
            } else {
                assert_eq!(fate.returned, 0, "a queue could take it: {told}");
            }
            let again = fate.requeued + self.trace.consumer_cuts;
            // Each publish may leave one message, unless it was refused or returned; a dead letter is one more.
            let copies = fate.published - fate.refused - fate.returned;
            assert!(fate.delivered <= (copies + fate.rejected) + again, "too often: {told}");
            if self.trace.consumer_cuts == 0 && fate.published == 1 && fate.confirmed {
                assert_eq!(fate.delivered, 1 + fate.requeued + fate.rejected, "not as often: {told}");
            }
        }
    }
}

fn run(seed: u64) -> u64 {
    let outcome = std::panic::catch_unwind(|| World::new(seed).run());
    outcome.unwrap_or_else(|_| panic!("seed {seed} fails; run it alone to see why"))
}

/// How many seeds a run of the tests takes; `MUSLIN_SEEDS` sets another number.
fn seeds() -> u64 {
    std::env::var("MUSLIN_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

#[test]
fn whatever_happens_nothing_confirmed_is_lost_and_nothing_comes_without_reason() {
    for seed in 0..seeds() {
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 14, 159] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(3), run(4));
}
