//! An embedded RabbitMQ: AMQP 0-9-1 as RabbitMQ 3.10 speaks it.
//!
//! ```no_run
//! # async fn example() -> muslin::Result<()> {
//! let rabbit = muslin::embedded::Rabbit::builder().queue("tasks").start().await?;
//! println!("{}", rabbit.url()); // amqp://guest:guest@127.0.0.1:41235
//! # Ok(()) }
//! ```
//!
//! ```text
//! machine       pure: all connections around one broker; timers, alarms, what is unsent
//! connection    pure: one client: the handshake, frames, errors, heartbeats
//! channel       pure: consumers and their prefetch, unsettled deliveries, confirms, transactions
//! class         one file per class of methods, and what faults do to them
//! content       messages in frames      output  unsent bytes      unsettled  deliveries by tag
//! broker        pure: vhosts, exchanges, routing, queues, messages; knows no wire
//! wire          pure: frames, methods, properties, tables
//! ```
//!
//! # What differs from the real one
//!
//! * Where the real broker waits three seconds before it closes the socket of a client that it does not trust, this one
//!   closes at once. A limit that a client may not have in `tune-ok` is refused by 530, as 4.x does.
//! * A message of more than the largest size is refused (406) when its header comes, not when it is complete.
//! * Arguments nested deeper than 32 are refused (501). Headers of a message may nest as deep as they like: they are
//!   passed on as they are.
//! * Messages that are not complete or not committed may not take more memory than the memory alarm's limit: 506.
//! * A connection that does not read what it asked for is not read from either, beyond 4 MiB.
//! * There are no permissions within a virtual host, no policies and no plugins; no direct reply-to.

pub(crate) mod broker;
mod channel;
mod class;
mod connection;
mod content;
mod machine;
mod output;
#[cfg(test)]
mod simulation;
mod unsettled;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use self::broker::{QueueDeclare, User};
use self::machine::{Server, Settings};
use super::faults::Faults;
use super::machine::ConnectionId;
use super::net::{self, Driver, Traffic};
use crate::{Error, ErrorKind, NodeId, Result};

/// The settings of an embedded RabbitMQ.
#[derive(Debug, Clone)]
#[must_use]
pub struct RabbitBuilder {
    port: u16,
    queues: Vec<String>,
    /// The first user that was named.
    user: Option<(String, String)>,
    settings: Settings,
    faults: Faults,
}

impl RabbitBuilder {
    /// The port on 127.0.0.1. Default 0: the system picks one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// A virtual host besides `/`. May be called again.
    pub fn vhost(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.settings.broker.vhosts.contains(&name) {
            self.settings.broker.vhosts.push(name);
        }
        self
    }

    /// A user with access to every virtual host, besides `guest` with password `guest`. May be called again; the first
    /// one stands in [`Rabbit::url`].
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        let (name, password) = (name.into(), password.into());
        self.user.get_or_insert_with(|| (name.clone(), password.clone()));
        self.settings.broker.users.insert(name, User { password, vhosts: None });
        self
    }

    /// A durable queue without arguments that is there from the beginning, in the virtual host `/`. May be called again.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.queues.push(name.into());
        self
    }

    /// Bytes of messages at which publishers are blocked (`connection.blocked`), until there are less than seven eighths of
    /// it. Default 256 MiB. The most memory: this, 64 KiB of input and 5 MiB of output per connection, and once more this
    /// for messages that are not complete.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.settings.broker.memory_limit = bytes;
        self
    }

    /// How long a delivery may stay unsettled before its channel is closed (406). Default 30 minutes; `None`: for ever.
    pub fn consumer_timeout(mut self, limit: Option<Duration>) -> Self {
        self.settings.broker.consumer_timeout = limit;
        self
    }

    /// The heartbeat that is proposed to clients, in seconds; 0: none. Default 60.
    pub fn heartbeat(mut self, seconds: u16) -> Self {
        self.settings.heartbeat = seconds;
        self
    }

    /// The largest body in bytes. Default 128 MiB, as RabbitMQ 3.10.
    pub fn max_message_size(mut self, bytes: u64) -> Self {
        self.settings.max_message_size = bytes;
        self
    }

    /// What goes wrong, and when. Default: nothing.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Starts the broker on 127.0.0.1, on tasks of the current tokio runtime.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`]: a queue cannot have its name.
    /// - [`ErrorKind::Connect`]: the port is taken.
    pub async fn start(self) -> Result<Rabbit> {
        let port = self.port;
        let (listener, address) = net::bind(port)
            .await
            .map_err(|e| Error::new(ErrorKind::Connect, format!("cannot listen on 127.0.0.1:{port}: {e}")))?;
        let clock = net::clock();
        let mut server = Server::new(self.settings, self.faults, clock);
        for name in &self.queues {
            server
                .change(clock.at, |broker| {
                    let vhost = broker.find_vhost(b"/")?;
                    let declare =
                        QueueDeclare { name: name.as_bytes(), durable: true, ..QueueDeclare::default() };
                    broker.declare_queue(vhost, &declare, NOBODY, clock.at)
                })
                .map_err(|refusal| {
                    Error::new(ErrorKind::Config, format!("queue {name:?}: {}", refusal.text))
                })?;
        }
        let driver = Driver::new(server);
        driver.listen(listener, NodeId(0));
        let (user, password) = self.user.unwrap_or_else(|| ("guest".to_owned(), "guest".to_owned()));
        Ok(Rabbit { driver, address, user, password })
    }
}

/// Who acts where no connection does; the driver's numbers begin with 1.
const NOBODY: ConnectionId = ConnectionId(0);

/// A RabbitMQ in this process. Dropped, it stops.
#[derive(Debug)]
pub struct Rabbit {
    driver: Driver<Server>,
    address: SocketAddr,
    user: String,
    password: String,
}

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueState {
    /// Messages that wait to be delivered.
    pub messages: u64,
    /// Messages that were delivered and are not settled.
    pub unsettled: u64,
    /// Its consumers.
    pub consumers: u64,
}

/// A client's connection, seen from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionState {
    /// Its number; later ones have larger numbers.
    pub id: ConnectionId,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Who logged in.
    pub user: String,
    /// The virtual host that is open.
    pub vhost: String,
    /// The client's name for it, or for itself.
    pub name: Option<String>,
    /// Open channels.
    pub channels: usize,
    /// Consumers on all its channels.
    pub consumers: usize,
    /// Deliveries that are not settled.
    pub unsettled: usize,
    /// Whether it published and is not read because publishers are blocked.
    pub blocked: bool,
}

impl Rabbit {
    /// The settings, with their defaults.
    pub fn builder() -> RabbitBuilder {
        RabbitBuilder {
            port: 0,
            queues: Vec::new(),
            user: None,
            settings: Settings::default(),
            faults: Faults::default(),
        }
    }

    /// The URL for clients, of the virtual host `/`: `amqp://guest:guest@127.0.0.1:41235`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://{}:{}@{}", escaped(&self.user), escaped(&self.password), self.address)
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A queue of the virtual host `/`; `None` if there is none of this name.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<QueueState> {
        self.queue_in("/", name)
    }

    /// A queue of a virtual host; `None` if there is none of this name.
    #[must_use]
    pub fn queue_in(&self, vhost: &str, name: &str) -> Option<QueueState> {
        self.driver.with(|server, _| {
            let broker = server.broker();
            let vhost = broker.find_vhost(vhost.as_bytes()).ok()?;
            let depth = broker.queue_depth(vhost, name.as_bytes())?;
            Some(QueueState { messages: depth.ready, unsettled: depth.unsettled, consumers: depth.consumers })
        })
    }

    /// The connections that have finished the handshake, the oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionState> {
        self.driver.with(|server, _| server.connections().filter_map(connection::Connection::state).collect())
    }

    /// What went over its connections so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.driver.traffic()
    }

    /// Lets so much time pass at once for the broker: messages and queues expire, heartbeats fall due, deliveries time out.
    pub fn advance(&self, by: Duration) {
        self.driver.advance(by);
    }

    /// Blocks publishers, as the real broker does when memory or disk run low: each that publishes from now on is told
    /// `connection.blocked` with this reason, if it wants to know, and is not read from.
    pub fn block(&self, reason: &str) {
        self.driver.with(|server, _| server.set_blocked(Some(reason)));
    }

    /// Ends [`block`](Self::block).
    pub fn unblock(&self) {
        self.driver.with(|server, _| server.set_blocked(None));
    }

    /// Closes every connection as an operator does it (320 CONNECTION_FORCED with this reason). How many there were.
    pub fn close_connections(&self, reason: &str) -> usize {
        self.driver.with(|server, now| server.close(|_| true, reason, now))
    }

    /// Closes one connection in the same way. Whether it was there.
    pub fn close_connection(&self, id: ConnectionId, reason: &str) -> bool {
        self.driver.with(|server, now| server.close(|connection| connection.link.id == id, reason, now)) > 0
    }

    /// Cuts every connection without a word. How many there were.
    pub fn cut_connections(&self) -> usize {
        self.driver.with(|server, _| server.cut(|_| true))
    }

    /// Kills the broker: every connection is cut, what is not durable or not persistent is lost, and no connection is taken
    /// until [`restart`](Self::restart).
    pub fn kill(&self) {
        self.driver.with(|server, now| server.die(None, now));
    }

    /// Kills the broker if it lives, and starts it again.
    pub fn restart(&self) {
        self.driver.with(|server, now| {
            if server.is_alive() {
                server.die(None, now);
            }
            server.revive();
        });
    }

    /// Looks at the faults or changes them: adds or removes rules, releases what is held, reads what happened.
    pub fn faults<R>(&self, look: impl FnOnce(&mut Faults) -> R) -> R {
        self.driver.with(|server, _| server.faults(look))
    }
}

/// User or password in a URL (RFC 3986 section 2.1).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A door for the fuzz targets; no part of the API.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use bytes::BytesMut;

    use super::super::faults::Faults;
    use super::super::machine::{Clock, ConnectionId, Machine, Output};
    use super::machine::{Server, Settings};

    /// The machine, and clients of it.
    #[derive(Debug)]
    pub struct Fuzzed {
        server: Server,
        now: Instant,
        clients: BTreeMap<u64, BytesMut>,
    }

    impl Fuzzed {
        /// A broker that blocks publishers at this many bytes of messages.
        #[must_use]
        pub fn new(now: Instant, memory_limit: u64) -> Self {
            let mut settings = Settings::default();
            settings.broker.memory_limit = memory_limit;
            settings.broker.max_queues = 100;
            settings.broker.max_exchanges = 100;
            settings.broker.max_bindings = 200;
            let clock = Clock { at: now, wall: crate::Timestamp(1_700_000_000_000) };
            Self { server: Server::new(settings, Faults::default(), clock), now, clients: BTreeMap::new() }
        }

        /// Gives a client's bytes to the broker; a client that is not there connects first. What the broker answers.
        pub fn feed(&mut self, client: u64, bytes: &[u8]) -> usize {
            let id = ConnectionId(client);
            let input = self.clients.entry(client).or_insert_with(|| {
                let peer = ([127, 0, 0, 1], 1).into();
                self.server.handle_open(id, crate::NodeId(0), peer, self.now);
                BytesMut::new()
            });
            input.extend_from_slice(bytes);
            self.server.handle_input(id, input, self.now);
            self.settle()
        }

        /// A client is gone.
        pub fn vanish(&mut self, client: u64) -> usize {
            if self.clients.remove(&client).is_some() {
                self.server.handle_close(ConnectionId(client), self.now);
            }
            self.settle()
        }

        /// Time passes.
        pub fn advance(&mut self, by: Duration) -> usize {
            self.now += by;
            self.server.handle_timeout(self.now);
            self.settle()
        }

        /// Takes all output; how many bytes there were.
        fn settle(&mut self) -> usize {
            let mut bytes = 0;
            while let Some(id) = self.server.poll_wake() {
                loop {
                    match self.server.poll_output(id) {
                        Output::Bytes(chunk) => bytes += chunk.len(),
                        Output::Pending => break,
                        Output::Close | Output::Reset => {
                            if self.clients.remove(&id.0).is_some() {
                                self.server.handle_close(id, self.now);
                            }
                            break;
                        }
                    }
                }
                if let Some(input) = self.clients.get_mut(&id.0) {
                    self.server.handle_input(id, input, self.now);
                }
            }
            bytes
        }
    }
}
