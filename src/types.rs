//! The field's nouns as types, so that an offset is never taken for a delivery tag.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use crate::{Error, ErrorKind, Result};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The bare number, as the wire carries it.
            #[must_use]
            pub const fn get(self) -> $int {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$int> for $name {
            fn from(n: $int) -> Self {
                Self(n)
            }
        }
    };
}

number! {
    /// The place of a record in a Kafka partition's log. Not dense: compaction and transaction markers leave gaps.
    Offset(i64)
}
number! {
    /// The number of a partition within its Kafka topic, from 0.
    Partition(i32)
}
number! {
    /// How often the leader of a partition has changed (KIP-320); `-1` where it is not known.
    LeaderEpoch(i32)
}
number! {
    /// A Kafka broker's `node.id`.
    NodeId(i32)
}
number! {
    /// What identifies an idempotent Kafka producer to the broker (KIP-98); `-1` for none.
    ProducerId(i64)
}
number! {
    /// Which incarnation of a Kafka producer id is speaking (KIP-98); an older one is fenced; `-1` for none.
    ProducerEpoch(i16)
}
number! {
    /// The number of a producer's first record in a batch, per partition (KIP-98); wraps at `i32::MAX`; `-1` for none.
    Sequence(i32)
}
number! {
    /// The number of a message on one AMQP channel: of a delivery to be acknowledged, or of a publish to be confirmed.
    DeliveryTag(u64)
}
number! {
    /// Milliseconds since 1970-01-01T00:00:00Z; `-1` for none.
    Timestamp(i64)
}

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl ProducerId {
    /// No producer id: the batch is not idempotent.
    pub const NONE: Self = Self(-1);
}
impl ProducerEpoch {
    /// No producer epoch.
    pub const NONE: Self = Self(-1);
}
impl Sequence {
    /// No sequence.
    pub const NONE: Self = Self(-1);

    /// The sequence `n` records later; after `i32::MAX` comes 0 (KIP-98).
    #[must_use]
    pub const fn plus(self, n: u32) -> Self {
        // In 64 bits neither operand can overflow; the remainder fits 31 bits.
        Self(((self.0 as i64 + n as i64) % (i32::MAX as i64 + 1)) as i32)
    }
}
impl LeaderEpoch {
    /// Not known.
    pub const UNKNOWN: Self = Self(-1);
}
impl Timestamp {
    /// No timestamp.
    pub const NONE: Self = Self(-1);
}

/// The name of a Kafka topic: 1 to 249 of the characters `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
///
/// Cheap to clone: the text is shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks the name as a Kafka broker does.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the topic and the rule it breaks.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        let bad = |why: &str| Err(Error::new(ErrorKind::Config, format!("topic name {name:?} {why}")));
        if name.is_empty() {
            return bad("is empty");
        }
        if name.len() > 249 {
            return bad("is longer than 249 characters");
        }
        if name == "." || name == ".." {
            return bad("is reserved");
        }
        match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            Some(c) => bad(&format!("has the character {c:?}; allowed are a-z A-Z 0-9 . _ -")),
            None => Ok(Self(name.into())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Topic> for Cow<'_, Topic> {
    #[inline]
    fn from(topic: Topic) -> Self {
        Cow::Owned(topic)
    }
}

impl<'a> From<&'a Topic> for Cow<'a, Topic> {
    #[inline]
    fn from(topic: &'a Topic) -> Self {
        Cow::Borrowed(topic)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_wraps_to_zero_after_its_largest() {
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 1).plus(3), Sequence(1));
        assert_eq!(Sequence(5).plus(0), Sequence(5));
    }

    #[test]
    fn a_bad_topic_name_is_refused_with_its_reason() {
        for (name, why) in [("", "empty"), ("..", "reserved"), ("a b", "' '"), (&"x".repeat(250), "249")] {
            let e = Topic::new(name).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            assert!(e.to_string().contains(why), "{e}");
        }
        assert_eq!(Topic::new("events.order.created").unwrap().as_str(), "events.order.created");
    }
}
