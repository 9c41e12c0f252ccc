//! What a handler gets to see of a record or a task: one shape for both brokers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{DeliveryTag, Offset, Partition, Timestamp, Topic};

/// Where a message came from: its place, as logs and dead letters name it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A record of a Kafka topic.
    Kafka {
        /// The topic.
        topic: Topic,
        /// The partition within it.
        partition: Partition,
        /// The record's place in the partition.
        offset: Offset,
        /// The record's time, as its producer or the broker set it.
        timestamp: Timestamp,
        /// The consumer group that read it, if it was read for one.
        group: Option<Arc<str>>,
    },
    /// A message of a RabbitMQ queue.
    Amqp {
        /// The queue it was taken from.
        queue: Arc<str>,
        /// The exchange it was published to; empty for the default one.
        exchange: String,
        /// The routing key it was published with.
        routing_key: String,
        /// Its number on the consumer's channel.
        tag: DeliveryTag,
        /// Whether it was delivered before, here or elsewhere.
        redelivered: bool,
    },
    /// An item of a [`super::MemorySource`].
    Memory {
        /// Its number, from 0.
        number: u64,
    },
}

impl fmt::Display for Origin {
    /// `topic[partition]@offset`, or `queue NAME, delivery N`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka { topic, partition, offset, .. } => write!(f, "{topic}[{partition}]@{offset}"),
            Self::Amqp { queue, tag, redelivered, .. } => {
                write!(f, "queue {queue}, delivery {tag}{}", if *redelivered { " (again)" } else { "" })
            }
            Self::Memory { number } => write!(f, "item {number}"),
        }
    }
}

/// A header: its name, and its value where it has one.
pub type Header = (String, Option<Bytes>);

/// A message as a handler sees it. Cheap to clone: the parts are shared, and key and value are slices of what was
/// received.
#[derive(Debug, Clone)]
pub struct Message {
    inner: Arc<Inner>,
    attempt: u32,
}

#[derive(Debug)]
struct Inner {
    origin: Origin,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<Header>,
    id: Option<String>,
}

impl Message {
    /// A message from its parts. For a [`super::Source`] of one's own and for tests of handlers.
    #[must_use]
    pub fn new(
        origin: Origin,
        key: Option<Bytes>,
        value: Option<Bytes>,
        headers: Vec<Header>,
        id: Option<String>,
    ) -> Self {
        Self { inner: Arc::new(Inner { origin, key, value, headers, id }), attempt: 1 }
    }

    /// The same message as its `attempt`th try sees it.
    #[must_use]
    pub(crate) fn at_attempt(&self, attempt: u32) -> Self {
        Self { inner: Arc::clone(&self.inner), attempt }
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.inner.origin
    }

    /// The record's key; `None` for a null key and for every RabbitMQ message.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.inner.key.as_ref()
    }

    /// The record's value or the message's body; `None` for a null value (a tombstone).
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        self.inner.value.as_ref()
    }

    /// The headers in order, duplicates kept. RabbitMQ's typed values stand as text.
    #[must_use]
    pub fn headers(&self) -> &[Header] {
        &self.inner.headers
    }

    /// The value of the last header of that name, as Kafka's clients take it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers().iter().rev().find(|(n, _)| n == name).and_then(|(_, v)| v.as_ref())
    }

    /// The id its sender gave it: RabbitMQ's `message_id`; Kafka has none.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.inner.id.as_deref()
    }

    /// Which try this is, from 1, counted in this process.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Bytes that it holds: key, value and headers.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers: usize =
            self.inner.headers.iter().map(|(n, v)| n.len() + v.as_ref().map_or(0, Bytes::len)).sum();
        self.inner.key.as_ref().map_or(0, Bytes::len)
            + self.inner.value.as_ref().map_or(0, Bytes::len)
            + headers
    }
}
