//! An embedded Kafka cluster of 1..n brokers, as Apache Kafka 4.3 behaves.
//!
//! ```text
//! cluster       pure: nodes, connections, the request loop, timers
//! connection    pure: one client's stream: frames, the request in progress, unsent output
//! transactions  pure: the transaction coordinator, producer ids
//! groups        pure: coordinators, members, committed offsets
//! api           one file per API key: versions, behaviour, what is left out
//! ```

mod api;
#[cfg(test)]
mod bed;
mod cluster;
mod connection;
mod groups;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use cluster::{Cluster, Settings};

use super::net::{self, Driver, Traffic};
use crate::{Error, ErrorKind, NodeId, Result, Topic};

/// The settings of an embedded Kafka cluster.
#[derive(Debug, Clone)]
#[must_use]
pub struct KafkaBuilder {
    brokers: u16,
    port: u16,
    topics: Vec<(String, i32)>,
    settings: Settings,
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

    /// Starts the brokers on 127.0.0.1, on tasks of the current tokio runtime.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`]: a setting is wrong; the message names it.
    /// - [`ErrorKind::Connect`]: a port is taken.
    pub async fn start(self) -> Result<Kafka> {
        if !(1..=100).contains(&self.brokers) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("brokers is {}; expected 1 to 100", self.brokers),
            ));
        }
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
        let mut cluster = Cluster::new(self.settings, nodes, net::clock());
        for (name, partitions) in &self.topics {
            cluster.create_topic(&Topic::new(name)?, *partitions)?;
        }
        let driver = Driver::new(cluster);
        let mut addresses = Vec::new();
        for (listener, node, address) in listeners {
            driver.listen(listener, node);
            addresses.push(address);
        }
        Ok(Kafka { driver, addresses })
    }
}

/// A Kafka cluster in this process. Dropped, it stops.
#[derive(Debug)]
pub struct Kafka {
    driver: Driver<Cluster>,
    addresses: Vec<SocketAddr>,
}

impl Kafka {
    /// The settings, with their defaults.
    pub fn builder() -> KafkaBuilder {
        KafkaBuilder { brokers: 1, port: 0, topics: Vec::new(), settings: Settings::default() }
    }

    /// The brokers' addresses as clients want them: `127.0.0.1:41234,127.0.0.1:41235`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// The brokers' addresses, in the order of their numbers.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What went over the brokers' connections so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.driver.traffic()
    }

    /// Lets so much time pass at once for the brokers: sessions expire, retention falls due, transactions time out.
    pub fn advance(&self, by: Duration) {
        self.driver.advance(by);
    }
}
