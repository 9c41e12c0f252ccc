//! What is given to a producer.

use std::borrow::Cow;

use bytes::Bytes;

use crate::{Partition, Result, Timestamp, Topic};

/// The bytes of a key or a value on their way into a batch: borrowed for that long, or owned.
///
/// Made from `&str`, `&[u8]`, `String`, `Vec<u8>`, [`Bytes`] and references to them. Borrowing costs least: nothing is
/// allocated and no count is touched. A value of at least half a batch that is owned is not copied either: the batch holds
/// it (and all memory behind it) until it is acknowledged, unless it is compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload<'a>(Held<'a>);

#[derive(Debug, Clone)]
enum Held<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl PartialEq for Held<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Held<'_> {}

impl Held<'_> {
    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

macro_rules! payload_from {
    ($($from:ty: $bytes:ident => $held:expr;)*) => {$(
        impl<'a> From<$from> for Payload<'a> {
            #[inline]
            fn from($bytes: $from) -> Self {
                Self($held)
            }
        }
    )*};
}

payload_from! {
    &'a [u8]: bytes => Held::Borrowed(bytes);
    &'a str: text => Held::Borrowed(text.as_bytes());
    &'a String: text => Held::Borrowed(text.as_bytes());
    &'a Vec<u8>: bytes => Held::Borrowed(bytes);
    &'a Bytes: bytes => Held::Borrowed(bytes);
    Bytes: bytes => Held::Owned(bytes);
    Vec<u8>: bytes => Held::Owned(bytes.into());
    String: text => Held::Owned(text.into());
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Held::Borrowed(bytes))
    }
}

/// A record on its way to a topic.
///
/// Key and value are `None` until set: a null key spreads over the partitions, a null value is a tombstone in a
/// compacted topic. Topic, key and value may be borrowed: they are copied once, into the batch, before
/// [`enqueue`](super::Producer::enqueue) is done.
///
/// ```no_run
/// # async fn f(producer: muslin::kafka::Producer) -> muslin::Result<()> {
/// use muslin::Topic;
/// use muslin::kafka::Record;
///
/// let topic = Topic::new("orders")?;
/// let (id, json) = (String::from("o-1"), br#"{"sum":3}"#);
/// producer.send(Record::to_topic(&topic).key(&id).value(json)).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    topic: Cow<'a, Topic>,
    pub(crate) partition: Option<Partition>,
    key: Option<Payload<'a>>,
    value: Option<Payload<'a>>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
    pub(crate) timestamp: Option<Timestamp>,
}

impl<'a> Record<'a> {
    /// A record for the topic with this name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) where the name breaks Kafka's rules (see [`Topic::new`]).
    pub fn to(topic: impl AsRef<str>) -> Result<Self> {
        Ok(Self::to_topic(Topic::new(topic)?))
    }

    /// A record for a topic whose name was checked before. Costs no allocation.
    #[inline]
    #[must_use]
    pub fn to_topic(topic: impl Into<Cow<'a, Topic>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        }
    }

    /// The key. Records of one key go to one partition (murmur2, as the Java client places them) and keep their order.
    #[inline]
    #[must_use]
    pub fn key(mut self, key: impl Into<Payload<'a>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The value.
    #[inline]
    #[must_use]
    pub fn value(mut self, value: impl Into<Payload<'a>>) -> Self {
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

    /// The creation time in milliseconds since the epoch. Default: the moment of `enqueue`; on Linux up to a
    /// tick of the kernel's clock before it (10 ms at most).
    #[must_use]
    pub fn timestamp(mut self, timestamp: impl Into<Timestamp>) -> Self {
        self.timestamp = Some(timestamp.into());
        self
    }

    /// The topic.
    #[inline]
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    #[inline]
    pub(crate) fn key_bytes(&self) -> Option<&[u8]> {
        self.key.as_ref().map(|k| k.0.as_slice())
    }

    /// The value, where it may be shared.
    #[inline]
    pub(crate) fn shared_value(&self) -> Option<&Bytes> {
        match &self.value {
            Some(Payload(Held::Owned(bytes))) => Some(bytes),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn value_bytes(&self) -> Option<&[u8]> {
        self.value.as_ref().map(|v| v.0.as_slice())
    }
}
