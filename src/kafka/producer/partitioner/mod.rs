//! Which partition a record goes to. Pure.
//!
//! ```text
//! mod      the setting, and the state that a topic keeps for it
//! hash     keys: murmur2 as Java, CRC32 as librdkafka
//! sticky   records without a key: one partition for a while, then another
//! ```
//!
//! A partition that the record names itself goes before all of this.

mod hash;
mod sticky;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use self::hash::{by_crc32, by_murmur2};
use self::sticky::Sticky;
use crate::{Error, ErrorKind, Partition, Result, Topic};

/// Chooses partitions by a rule of the user's own.
///
/// A closure `Fn(&Topic, Option<&[u8]>, Option<&[u8]>, i32) -> Partition` is one.
///
/// ```
/// use muslin::{Partition, Topic};
/// use muslin::kafka::Partitioning;
///
/// // Orders from abroad have the last partition to themselves.
/// let rule = |_topic: &Topic, key: Option<&[u8]>, _value: Option<&[u8]>, partitions: i32| match key {
///     Some(key) if key.starts_with(b"abroad-") => Partition(partitions - 1),
///     Some(key) => Partition(key.first().map_or(0, |b| i32::from(*b) % (partitions - 1).max(1))),
///     None => Partition(0),
/// };
/// let partitioning = Partitioning::custom(rule);
/// # assert_eq!(partitioning.to_string(), "custom");
/// ```
pub trait Partitioner: Send + Sync {
    /// The partition of a record, from 0 to `partitions - 1`; `partitions` is at least 1, and grows when the topic does.
    ///
    /// It is asked once for each record that names no partition, under the producer's lock: it must be quick and must
    /// not use the producer. A number that the topic does not have fails the record with
    /// [`ErrorKind::NotFound`], which names the topic and the number; nothing was written then.
    fn partition(
        &self,
        topic: &Topic,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        partitions: i32,
    ) -> Partition;
}

impl<F> Partitioner for F
where
    F: Fn(&Topic, Option<&[u8]>, Option<&[u8]>, i32) -> Partition + Send + Sync,
{
    fn partition(
        &self,
        topic: &Topic,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        partitions: i32,
    ) -> Partition {
        self(topic, key, value, partitions)
    }
}

/// How the partition of a record is chosen that names none.
///
/// To move from another client and keep each key on its partition: [`Adaptive`](Self::Adaptive) or
/// [`Sticky`](Self::Sticky) for the Java client, franz-go, kafka-python and KafkaJS, and
/// [`ConsistentRandom`](Self::ConsistentRandom) for what is built on librdkafka (confluent-kafka for Python, Go and
/// .NET, rdkafka) with its default. Growing a topic moves keys with every one of them.
///
/// "Sticky" is: all to one partition until a batch of it closes and it got the bytes of a batch, 16 KiB at most, then to another.
///
/// Memory: none for a topic, but 8 bytes a partition for `Adaptive`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Partitioning {
    /// Keys by murmur2; records without a key are sticky, and partitions with shorter queues get more turns (KIP-794).
    /// The default, as in the Java client. An empty key is a key.
    #[default]
    Adaptive,
    /// Keys by murmur2; records without a key are sticky, each partition with as many turns (KIP-480).
    Sticky,
    /// One partition after the other, whatever the key: the Java client's `RoundRobinPartitioner`. Small batches, and no
    /// order for a key.
    RoundRobin,
    /// Each record anywhere, whatever the key: librdkafka's `random`. Small batches, and no order for a key.
    Random,
    /// Keys by CRC32; without a key all to one partition: librdkafka's `consistent`. An empty key is none.
    Consistent,
    /// Keys by CRC32; without a key sticky: librdkafka's default, `consistent_random`. An empty key is none.
    ConsistentRandom,
    /// Keys by murmur2; without a key all to the partition of the empty key: librdkafka's `murmur2`.
    Murmur2,
    /// A rule of the user's own; see [`Partitioner`].
    Custom(Arc<dyn Partitioner>),
}

impl Partitioning {
    /// The names that [`FromStr`] takes. `murmur2_random`, librdkafka's name for what the Java client does, is
    /// [`Sticky`](Self::Sticky).
    pub const NAMES: &'static [&'static str] = &[
        "adaptive",
        "sticky",
        "round_robin",
        "random",
        "consistent",
        "consistent_random",
        "murmur2",
        "murmur2_random",
    ];

    /// A rule of the user's own.
    #[must_use]
    pub fn custom(partitioner: impl Partitioner + 'static) -> Self {
        Self::Custom(Arc::new(partitioner))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Sticky => "sticky",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::Consistent => "consistent",
            Self::ConsistentRandom => "consistent_random",
            Self::Murmur2 => "murmur2",
            Self::Custom(_) => "custom",
        }
    }
}

impl<P: Partitioner + 'static> From<P> for Partitioning {
    fn from(partitioner: P) -> Self {
        Self::custom(partitioner)
    }
}

impl FromStr for Partitioning {
    type Err = Error;

    /// One of [`NAMES`](Self::NAMES), or the Java client's class `RoundRobinPartitioner`, with or without its package.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] lists the names.
    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "adaptive" => Self::Adaptive,
            "sticky" | "murmur2_random" => Self::Sticky,
            "round_robin"
            | "RoundRobinPartitioner"
            | "org.apache.kafka.clients.producer.RoundRobinPartitioner" => Self::RoundRobin,
            "random" => Self::Random,
            "consistent" => Self::Consistent,
            "consistent_random" => Self::ConsistentRandom,
            "murmur2" => Self::Murmur2,
            _ => {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("there is no partitioner {name:?}; it must be one of {}", Self::NAMES.join(", ")),
                ));
            }
        })
    }
}

impl fmt::Display for Partitioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Partitioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The least that a record takes in its batch besides key and value: seven numbers of a byte or more.
const AROUND: usize = 7;

/// What the choice looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// At least 1.
    pub(crate) partitions: usize,
}

/// What one topic remembers between records.
#[derive(Debug, Default)]
pub(crate) struct TopicPartitioner {
    sticky: Sticky,
    /// The partition that comes next in the round.
    next: usize,
}

impl TopicPartitioner {
    /// The partition of a record that names none.
    ///
    /// `queued` tells a partition's batches that are not answered, `None` for one without a leader; `draw` gives a random
    /// number. Both are asked only where they are needed.
    ///
    /// # Errors
    /// `NotFound` where the user's own rule names a partition that the topic does not have.
    pub(crate) fn partition(
        &mut self,
        by: &Partitioning,
        facts: Facts<'_>,
        queued: impl FnMut(usize) -> Option<u32>,
        draw: impl FnOnce() -> u64,
    ) -> Result<usize> {
        let Facts { topic, key, value, partitions } = facts;
        let bytes =
            key.map_or(0, <[u8]>::len).saturating_add(value.map_or(0, <[u8]>::len)).saturating_add(AROUND);
        let filled = key.filter(|key| !key.is_empty());
        Ok(match by {
            Partitioning::Adaptive => match key {
                Some(key) => by_murmur2(key, partitions),
                None => self.sticky.adaptive(bytes, partitions, queued, draw),
            },
            Partitioning::Sticky => match key {
                Some(key) => by_murmur2(key, partitions),
                None => self.sticky.uniform(bytes, partitions, draw),
            },
            Partitioning::ConsistentRandom => match filled {
                Some(key) => by_crc32(key, partitions),
                None => self.sticky.uniform(bytes, partitions, draw),
            },
            Partitioning::Consistent => by_crc32(key.unwrap_or_default(), partitions),
            Partitioning::Murmur2 => by_murmur2(key.unwrap_or_default(), partitions),
            Partitioning::RoundRobin => {
                let partition = self.next.checked_rem(partitions).unwrap_or(0);
                self.next = partition + 1;
                partition
            }
            Partitioning::Random => (draw() % partitions.max(1) as u64) as usize,
            Partitioning::Custom(rule) => {
                let count = i32::try_from(partitions).unwrap_or(i32::MAX);
                let chosen = rule.partition(topic, key, value, count);
                match usize::try_from(chosen.0) {
                    Ok(partition) if partition < partitions => partition,
                    _ => {
                        return Err(Error::new(
                            ErrorKind::NotFound,
                            format!(
                                "the partitioner chose partition {chosen} for a record of topic {topic}, which has \
                                 {partitions}, from 0; nothing was written"
                            ),
                        ));
                    }
                }
            }
        })
    }

    /// A batch of this partition, of `batch_size` bytes at most, closed.
    pub(crate) fn handle_closed(&mut self, partition: usize, batch_size: usize) {
        self.sticky.handle_closed(partition, batch_size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where `records` keys go, one after the other, with a batch that closes after each.
    fn places(by: &Partitioning, keys: &[Option<&[u8]>], partitions: usize) -> Vec<usize> {
        let topic = Topic::new("t").unwrap();
        let mut state = TopicPartitioner::default();
        let value = vec![0; sticky::TURN];
        let mut draws = 0u64;
        keys.iter()
            .map(|key| {
                let facts = Facts { topic: &topic, key: *key, value: Some(&value), partitions };
                let draw = || {
                    draws = draws.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    draws
                };
                let p = state.partition(by, facts, |_| Some(0), draw).unwrap();
                state.handle_closed(p, usize::MAX);
                p
            })
            .collect()
    }

    fn by(name: &str) -> Partitioning {
        name.parse().unwrap()
    }

    fn distinct(places: &[usize]) -> usize {
        places.iter().collect::<std::collections::BTreeSet<_>>().len()
    }

    #[test]
    fn a_key_keeps_its_partition_by_every_rule_that_looks_at_keys() {
        let keys = [Some(&b"abc"[..]); 30];
        // abc: murmur2 479470107, CRC32 0x352441c2.
        for (names, place) in [
            (&["adaptive", "sticky", "murmur2", "murmur2_random"][..], 479_470_107 % 7),
            (&["consistent", "consistent_random"][..], 0x3524_41c2 % 7),
        ] {
            for name in names {
                assert_eq!(places(&by(name), &keys, 7), vec![place; 30], "{name}");
            }
        }
        for name in ["round_robin", "random"] {
            assert_eq!(distinct(&places(&by(name), &keys, 7)), 7, "{name}");
        }
    }

    #[test]
    fn records_without_a_key_go_around_or_stand_still_as_the_name_says() {
        for (name, null, empty) in [
            ("adaptive", 7, 1),
            ("sticky", 7, 1),
            ("murmur2_random", 7, 1),
            ("murmur2", 1, 1),
            ("consistent", 1, 1),
            ("consistent_random", 7, 7),
            ("round_robin", 7, 7),
            ("random", 7, 7),
        ] {
            assert_eq!(distinct(&places(&by(name), &[None; 100], 7)), null, "{name}: null");
            assert_eq!(distinct(&places(&by(name), &[Some(&b""[..]); 100], 7)), empty, "{name}: empty");
        }
        assert_eq!(places(&by("consistent"), &[None], 7), [0], "as librdkafka: the CRC32 of nothing is 0");
    }

    #[test]
    fn the_round_goes_on_when_the_topic_grows_or_shrinks() {
        assert_eq!(places(&by("round_robin"), &[None; 5], 3), [0, 1, 2, 0, 1]);
        let topic = Topic::new("t").unwrap();
        let mut state = TopicPartitioner::default();
        let mut next = |partitions| {
            let facts = Facts { topic: &topic, key: None, value: None, partitions };
            state.partition(&Partitioning::RoundRobin, facts, |_| None, || 0).unwrap()
        };
        assert_eq!([next(2), next(3), next(3), next(1), next(4)], [0, 1, 2, 0, 1]);
    }

    #[test]
    fn a_rule_of_ones_own_sees_the_record_and_its_nonsense_is_an_error() {
        let rule = Partitioning::from(|topic: &Topic, key: Option<&[u8]>, value: Option<&[u8]>, n: i32| {
            assert_eq!((topic.as_str(), value, n), ("t", Some(&b"v"[..]), 3));
            Partition(key.map_or(-1, |k| k.len() as i32))
        });
        let topic = Topic::new("t").unwrap();
        let place = |key| {
            let facts = Facts { topic: &topic, key, value: Some(b"v"), partitions: 3 };
            TopicPartitioner::default().partition(&rule, facts, |_| None, || 0)
        };
        assert_eq!(place(Some(b"kk")).unwrap(), 2);
        for key in [None, Some(&b"kkk"[..])] {
            let e = place(key).unwrap_err();
            assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::NotFound, false));
            assert!(e.message().contains("topic t") && e.message().contains("nothing was written"), "{e}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_told_which_there_are() {
        for name in Partitioning::NAMES {
            assert!(name.parse::<Partitioning>().is_ok(), "{name}");
        }
        let e = "fnv1a".parse::<Partitioning>().unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.message().contains("consistent_random"), "{e}");
    }
}
