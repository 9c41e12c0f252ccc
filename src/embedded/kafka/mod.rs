//! An embedded Kafka cluster of 1..n brokers, as Apache Kafka 4.3 behaves.
//!
//! ```text
//! cluster       pure: nodes, connections, the request loop, timers
//! carry         pure: carries out faults on requests
//! connection    pure: one client's stream: frames, the request in progress, unsent output
//! topics        pure: topics and their configuration; creation: how they come and go
//! log           pure: a partition's records; cleaning: retention and compaction of all of them
//! nodes         pure: brokers that die, are cut off and come back; who leads what
//! control       what a test does to the cluster
//! security      pure: users, logins
//! transactions  pure: the transaction coordinator, producer ids
//! groups        pure: coordinators, members, committed offsets
//! api           one file per API key: versions, behaviour, what is left out
//! ```

mod api;
#[cfg(test)]
mod bed;
mod carry;
mod cleaning;
mod cluster;
mod configs;
mod connection;
mod control;
mod creation;
mod groups;
mod log;
mod nodes;
mod pattern;
mod security;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use cluster::{Cluster, Settings};

use super::faults::Faults;
use super::machine::Clock;
use super::net::{self, Driver, Traffic};
use super::sim::Network;
use crate::{Error, ErrorKind, NodeId, Result, Timestamp, Topic};

/// The settings of an embedded Kafka cluster.
#[derive(Debug, Clone)]
#[must_use]
pub struct KafkaBuilder {
    brokers: u16,
    port: u16,
    topics: Vec<(String, i32)>,
    settings: Settings,
    faults: Faults,
}

impl KafkaBuilder {
    /// How many brokers. Default 1; at most 100. They are numbered from 1.
    pub fn brokers(mut self, n: u16) -> Self {
        self.brokers = n;
        self
    }

    /// The first broker's port; the others take the ports after it. Default 0: the system picks each.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// A topic that is there from the beginning, replicated on up to three brokers. May be called again.
    pub fn topic(mut self, name: impl Into<String>, partitions: i32) -> Self {
        self.topics.push((name.into(), partitions));
        self
    }

    /// Are topics created by being asked for? Default true, as the real broker.
    pub fn auto_create_topics(mut self, yes: bool) -> Self {
        self.settings.auto_create_topics = yes;
        self
    }

    /// Partitions of a topic that does not say how many. Default 1.
    pub fn default_partitions(mut self, n: i32) -> Self {
        self.settings.default_partitions = n;
        self
    }

    /// Bytes of records that all partitions keep together. Default 1 GiB. Beyond it a producer is refused with
    /// POLICY_VIOLATION, which is not retried, until records are deleted. Each batch counts its bytes and 128 more.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.memory_limit = bytes;
        self
    }

    /// The brokers' racks, in the order of their numbers; with fewer racks than brokers they repeat. Clients that name
    /// a rack are sent to the replica there (KIP-392). Default: none.
    pub fn racks<S: Into<String>>(mut self, racks: impl IntoIterator<Item = S>) -> Self {
        self.settings.racks = racks.into_iter().map(Into::into).collect();
        self
    }

    /// A user that may log in with PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. May be called again; the last password of a
    /// name holds. It demands nothing: see [`require_sasl`](Self::require_sasl).
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.settings.security.users.push((name.into(), password.into()));
        self
    }

    /// Every connection has to log in. Default: none has to, and none can.
    pub fn require_sasl(mut self) -> Self {
        self.settings.security.required = true;
        self
    }

    /// How long a login holds; a client has to log in again before (KIP-368). Default: as long as its connection.
    pub fn session_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.security.session_lifetime = Some(lifetime);
        self
    }

    /// How long the markers of an ended transaction are held back: until then its producer meets
    /// CONCURRENT_TRANSACTIONS, and readers of committed records wait. Default zero.
    pub fn transaction_marker_delay(mut self, delay: Duration) -> Self {
        self.settings.transactions.marker_delay = delay;
        self
    }

    /// The level of the feature `transaction.version` that the brokers tell: 2 (KIP-890 part 2), 1 or 0, with which clients
    /// add partitions by requests of their own. Default 2, as a new cluster of Kafka 4. Requests of both kinds are
    /// served with any.
    pub fn transaction_version(mut self, level: i16) -> Self {
        self.settings.transaction_version = level;
        self
    }

    /// When an idle transactional id is forgotten. Default 7 days, as `transactional.id.expiration.ms`.
    pub fn transactional_id_expiry(mut self, expiry: Duration) -> Self {
        self.settings.transactions.expiry = expiry;
        self
    }

    /// The seed of every random choice of the brokers: ids of topics, members, producers. Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// The faults that are in force from the beginning. Default: none.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Starts the brokers on a simulated network, as hosts `kafka-1`, `kafka-2` and so on with the port 9092, on tasks of
    /// the current tokio runtime. Their wall clock begins at a fixed time, [`Kafka::WALL`].
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: a setting is wrong; the message names it.
    pub fn start_on(self, network: &Network) -> Result<Kafka> {
        self.check()?;
        let names = (1..=self.brokers).map(|n| (NodeId(i32::from(n)), format!("kafka-{n}"), 9092));
        let nodes: Vec<(NodeId, String, u16)> = names.collect();
        let bootstrap =
            nodes.iter().map(|(_, host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",");
        let clock = Clock { wall: Kafka::WALL, ..net::clock() };
        let driver = Driver::new(self.cluster(nodes.clone(), clock)?);
        for (node, host, port) in nodes {
            driver.listen_on(network.listen(&host, port), node);
        }
        Ok(Kafka { driver, addresses: Vec::new(), bootstrap })
    }

    fn check(&self) -> Result<()> {
        if !(1..=100).contains(&self.brokers) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("brokers is {}; expected 1 to 100", self.brokers),
            ));
        }
        let level = self.settings.transaction_version;
        if !(0..=2).contains(&level) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("transaction_version is {level}; expected 0 to 2"),
            ));
        }
        Ok(())
    }

    fn cluster(self, nodes: Vec<(NodeId, String, u16)>, clock: Clock) -> Result<Cluster> {
        let mut cluster = Cluster::new(self.settings, nodes, clock);
        for (name, partitions) in &self.topics {
            cluster.create_topic(&Topic::new(name)?, *partitions)?;
        }
        cluster.set_faults(self.faults, clock.at);
        Ok(cluster)
    }

    /// Starts the brokers on 127.0.0.1, on tasks of the current tokio runtime.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`]: a setting is wrong; the message names it.
    /// - [`ErrorKind::Connect`]: a port is taken.
    pub async fn start(self) -> Result<Kafka> {
        self.check()?;
        let mut listeners = Vec::new();
        let mut nodes = Vec::new();
        for i in 0..self.brokers {
            let port = match self.port {
                0 => 0,
                first => first.checked_add(i).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Config,
                        format!("port {first} leaves no room for {} brokers", self.brokers),
                    )
                })?,
            };
            let (listener, address) = net::bind(port).await.map_err(|e| {
                Error::new(ErrorKind::Connect, format!("cannot listen on 127.0.0.1:{port}: {e}"))
            })?;
            let node = NodeId(i32::from(i) + 1);
            nodes.push((node, address.ip().to_string(), address.port()));
            listeners.push((listener, node, address));
        }
        let driver = Driver::new(self.cluster(nodes, net::clock())?);
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for (listener, node, address) in listeners {
            driver.listen(listener, node);
            addresses.push(address);
        }
        let bootstrap = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(Kafka { driver, addresses, bootstrap })
    }
}

/// A Kafka cluster in this process. Dropped, it stops.
#[derive(Debug)]
pub struct Kafka {
    driver: Driver<Cluster>,
    addresses: Vec<SocketAddr>,
    bootstrap: String,
}

impl Kafka {
    /// Where the wall clock of brokers on a simulated network begins: 2023-11-14T22:13:20Z.
    pub const WALL: Timestamp = Timestamp(1_700_000_000_000);

    /// The settings, with their defaults.
    pub fn builder() -> KafkaBuilder {
        KafkaBuilder {
            brokers: 1,
            port: 0,
            topics: Vec::new(),
            settings: Settings::default(),
            faults: Faults::default(),
        }
    }

    /// The brokers' addresses as clients want them: `127.0.0.1:41234,127.0.0.1:41235`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    /// The brokers' addresses, in the order of their numbers. On a simulated network there are none.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What went over the brokers' connections so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.driver.traffic()
    }

    /// Looks at the faults in force or changes them: adds rules, releases what is held, asks what happened.
    ///
    /// ```no_run
    /// # fn example(kafka: &muslin::embedded::Kafka) -> muslin::Result<()> {
    /// use muslin::embedded::faults::{Action, Rule};
    ///
    /// kafka.faults(|faults| faults.add(Rule::new("Produce", Action::DropAnswer)?.nth(1)))?;
    /// let met = kafka.faults(|faults| faults.met().cloned().collect::<Vec<_>>());
    /// # Ok(()) }
    /// ```
    pub fn faults<T>(&self, with: impl FnOnce(&mut Faults) -> T) -> T {
        self.driver.with(|cluster, _| cluster.faults(with))
    }

    /// Lets so much time pass at once for the brokers: sessions expire, retention falls due, transactions time out.
    pub fn advance(&self, by: Duration) {
        self.driver.advance(by);
    }
}

/// A door for the fuzz targets; no part of the API.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    use std::net::Ipv4Addr;
    use std::time::{Duration, Instant};

    use bytes::BytesMut;

    use super::{Cluster, Settings};
    use crate::embedded::machine::{Clock, ConnectionId, Machine, Output};
    use crate::{NodeId, Timestamp, Topic};

    /// The machine, and clients of it.
    #[derive(Debug)]
    pub struct Fuzzed {
        cluster: Cluster,
        now: Instant,
        clients: [Option<(ConnectionId, BytesMut)>; 4],
        next: u64,
    }

    impl Fuzzed {
        /// Two brokers that keep this many bytes of records, with the topics `t` and `u` of two partitions.
        #[must_use]
        pub fn new(now: Instant, memory_limit: u64) -> Self {
            let settings = Settings {
                memory_limit,
                max_request_bytes: 1 << 16,
                racks: vec!["a".to_owned(), "b".to_owned()],
                ..Settings::default()
            };
            let nodes = (1..=2).map(|n| (NodeId(n), format!("b{n}"), 9092)).collect();
            let mut cluster = Cluster::new(settings, nodes, Clock { at: now, wall: Timestamp(1 << 40) });
            for name in ["t", "u"] {
                let topic = Topic::new(name).and_then(|topic| cluster.create_topic(&topic, 2));
                assert!(topic.is_ok());
            }
            Self { cluster, now, clients: [None, None, None, None], next: 1 }
        }

        /// A client sends; the number of bytes that it is sent.
        pub fn feed(&mut self, client: usize, bytes: &[u8]) -> usize {
            let Some(slot) = self.clients.get_mut(client) else { return 0 };
            let (connection, input) = slot.get_or_insert_with(|| {
                let connection = ConnectionId(self.next);
                self.next += 1;
                let node = NodeId(i32::try_from(client % 2).unwrap_or(0) + 1);
                self.cluster.handle_open(connection, node, (Ipv4Addr::LOCALHOST, 1).into(), self.now);
                (connection, BytesMut::new())
            });
            input.extend_from_slice(bytes);
            self.cluster.handle_input(*connection, input, self.now);
            self.drain()
        }

        /// A client is gone.
        pub fn vanish(&mut self, client: usize) -> usize {
            if let Some((connection, _)) = self.clients.get_mut(client).and_then(Option::take) {
                self.cluster.handle_close(connection, self.now);
            }
            self.drain()
        }

        /// Time passes.
        ///
        /// # Panics
        /// When the machine's timers do not come to rest.
        pub fn advance(&mut self, by: Duration) -> usize {
            self.now += by;
            for _ in 0..10_000 {
                match self.cluster.poll_timeout() {
                    Some(due) if due <= self.now => self.cluster.handle_timeout(self.now),
                    _ => return self.drain(),
                }
            }
            unreachable!("the machine's timers do not come to rest");
        }

        /// A broker dies, hangs or comes back, a leader moves, logs are cleaned.
        pub fn disturb(&mut self, what: u8) -> usize {
            let node = NodeId(1 + i32::from(what & 1));
            match what >> 1 & 7 {
                0 => self.cluster.kill(node, self.now),
                1 => self.cluster.isolate(node, self.now),
                2 => self.cluster.rejoin(node, self.now),
                3 => drop(self.cluster.move_leader("t", 0, node, i64::from(what >> 4), self.now)),
                4 => drop(self.cluster.compact(None, true, self.now)),
                5 => drop(self.cluster.run_retention(self.now)),
                _ => self.cluster.revive(node, self.now),
            }
            self.drain()
        }

        fn drain(&mut self) -> usize {
            while self.cluster.poll_wake().is_some() {}
            let mut sent = 0;
            for slot in &mut self.clients {
                let Some((connection, input)) = slot else { continue };
                loop {
                    match self.cluster.poll_output(*connection) {
                        Output::Bytes(bytes) => sent += bytes.len(),
                        Output::Pending => {
                            // Frames that were held back until now.
                            let before = input.len();
                            self.cluster.handle_input(*connection, input, self.now);
                            if input.len() == before {
                                break;
                            }
                        }
                        Output::Close | Output::Reset => {
                            self.cluster.handle_close(*connection, self.now);
                            *slot = None;
                            break;
                        }
                    }
                }
            }
            sent
        }
    }
}
