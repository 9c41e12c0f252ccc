//! What can be set about an embedded RabbitMQ's state.

use std::collections::BTreeMap;
use std::time::Duration;

/// How the broker behaves. The defaults are RabbitMQ's, but for the limits on memory and on objects.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The virtual hosts. Default: `/`.
    pub(crate) vhosts: Vec<String>,
    /// Who may log in. Default: `guest` with password `guest` and access to every virtual host.
    pub(crate) users: BTreeMap<String, User>,
    /// The memory alarm: bytes of messages (body, properties, 200 for the rest; one that stands in several queues
    /// counts once) at which publishers are to be blocked; cleared below seven eighths of it. Default 256 MiB. What is
    /// already read is still taken, so the most that is held is this and one read buffer per publishing connection.
    pub(crate) memory_limit: u64,
    /// How long a delivery may stay unsettled before its channel is closed (`consumer_timeout`); a queue's
    /// `x-consumer-timeout` goes before. `None`: for ever. Default: 30 minutes.
    pub(crate) consumer_timeout: Option<Duration>,
    /// How often a quorum queue gives a message back before it is dead-lettered or dropped, where the queue does not
    /// say (`x-delivery-limit`). `None`: without limit, as before RabbitMQ 4.0. Default: 20.
    pub(crate) delivery_limit: Option<u32>,
    /// Whether an `x-death` header that a client publishes counts as the message's history, as before RabbitMQ 4.0.
    /// Default: no.
    pub(crate) trust_published_deaths: bool,
    /// The most queues of one virtual host (`max-queues`). Default 50,000, some 1 KiB each when empty.
    pub(crate) max_queues: usize,
    /// The most exchanges of one virtual host. Default 10,000, some 500 bytes each.
    pub(crate) max_exchanges: usize,
    /// The most bindings of one virtual host. Default 200,000, some 300 bytes each, and their arguments.
    pub(crate) max_bindings: usize,
    /// Where made-up queue names come from: the same seed gives the same names. Default 0.
    pub(crate) seed: u64,
}

/// Someone who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) password: String,
    /// The virtual hosts in which everything is allowed; the others are closed. `None`: all of them.
    pub(crate) vhosts: Option<Vec<String>>,
}

impl Default for Settings {
    fn default() -> Self {
        let guest = User { password: "guest".into(), vhosts: None };
        Self {
            vhosts: vec!["/".into()],
            users: [("guest".to_owned(), guest)].into(),
            memory_limit: 256 << 20,
            consumer_timeout: Some(Duration::from_secs(30 * 60)),
            delivery_limit: Some(20),
            trust_published_deaths: false,
            max_queues: 50_000,
            max_exchanges: 10_000,
            max_bindings: 200_000,
            seed: 0,
        }
    }
}
