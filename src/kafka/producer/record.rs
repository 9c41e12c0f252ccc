//! What is given to a producer.

use bytes::Bytes;

use crate::{Partition, Result, Timestamp, Topic};

/// A record on its way to a topic.
///
/// Key and value are `None` until set: a null key spreads over the partitions, a null value is a tombstone in a
/// compacted topic. `Bytes` are taken without a copy until the record enters its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub(crate) topic: Topic,
    pub(crate) partition: Option<Partition>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
    pub(crate) timestamp: Option<Timestamp>,
}

impl Record {
    /// A record for the topic with this name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) where the name breaks Kafka's rules (see [`Topic::new`]).
    pub fn to(topic: impl AsRef<str>) -> Result<Self> {
        Ok(Self::to_topic(Topic::new(topic)?))
    }

    /// A record for a topic whose name was checked before. Costs no allocation.
    #[must_use]
    pub fn to_topic(topic: Topic) -> Self {
        Self { topic, partition: None, key: None, value: None, headers: Vec::new(), timestamp: None }
    }

    /// The key. Records of one key go to one partition (murmur2, as the Java client places them) and keep their order.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a header. Order and duplicates are kept; `None` is a null value, which is not the same as an empty one.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: Option<Bytes>) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// The partition, instead of the one that key or stickiness would choose.
    #[must_use]
    pub fn partition(mut self, partition: impl Into<Partition>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// The creation time in milliseconds since the epoch. Default: the moment of `enqueue`.
    #[must_use]
    pub fn timestamp(mut self, timestamp: impl Into<Timestamp>) -> Self {
        self.timestamp = Some(timestamp.into());
        self
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }
}
