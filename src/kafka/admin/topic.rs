//! What is asked of a topic, and what is told of one.

use uuid::Uuid;

use super::super::client::{text, topic_name};
use crate::{Error, ErrorKind, LeaderEpoch, NodeId, Partition, Result, Topic};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;

/// A topic to be created. What is not said is the brokers' default.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct NewTopic {
    pub(super) topic: Topic,
    pub(super) partitions: i32,
    pub(super) replication: i16,
    pub(super) configs: Vec<(String, String)>,
}

impl NewTopic {
    /// A topic of this name.
    pub fn new(topic: Topic) -> Self {
        Self { topic, partitions: -1, replication: -1, configs: Vec::new() }
    }

    /// How many partitions, from 1. Default -1: `num.partitions` of the brokers (KIP-464, Kafka 2.4 and later).
    pub fn partitions(mut self, n: i32) -> Self {
        self.partitions = n;
        self
    }

    /// How many brokers hold each partition, from 1. Default -1: `default.replication.factor` of the brokers (KIP-464).
    pub fn replication(mut self, n: i16) -> Self {
        self.replication = n;
        self
    }

    /// A setting of the topic, such as `retention.ms`. The last value of a name holds.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.configs.retain(|(other, _)| *other != name);
        self.configs.push((name, value.into()));
        self
    }

    /// What it is, for messages: `create topic t (3 partitions, 2 replicas)`.
    pub(super) fn what(&self) -> String {
        let count = |n: i64, noun: &str| match n {
            -1 => format!("{noun}s by default"),
            1 => format!("1 {noun}"),
            n => format!("{n} {noun}s"),
        };
        format!(
            "create topic {} ({}, {})",
            self.topic,
            count(self.partitions.into(), "partition"),
            count(self.replication.into(), "replica")
        )
    }

    /// Refuses numbers that no broker takes.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |name: &str, n: i64| {
            Err(Error::new(
                ErrorKind::Config,
                format!("{}: {name} is {n}; expected 1 or more, or -1 for the brokers' default", self.what()),
            ))
        };
        if self.partitions < -1 || self.partitions == 0 {
            return wrong("the number of partitions", self.partitions.into());
        }
        if self.replication < -1 || self.replication == 0 {
            return wrong("the number of replicas", self.replication.into());
        }
        Ok(())
    }

    pub(super) fn request(&self) -> CreatableTopic {
        let config = |(name, value): &(String, String)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        CreatableTopic::default()
            .with_name(topic_name(&self.topic))
            .with_num_partitions(self.partitions)
            .with_replication_factor(self.replication)
            .with_configs(self.configs.iter().map(config).collect())
    }
}

/// A topic that was created, or that would be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedTopic {
    /// The topic.
    pub topic: Topic,
    /// How many partitions it has; `None` where the broker does not tell (before Kafka 2.4, or without the right to
    /// describe its settings).
    pub partitions: Option<i32>,
    /// How many brokers hold each partition; `None` as above.
    pub replication: Option<i16>,
    /// The broker's answer was lost and the topic was found there as it was asked for, where it was not before. Somebody
    /// else may have created it at the same moment.
    pub answer_lost: bool,
}

/// A topic as the brokers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// The topic.
    pub topic: Topic,
    /// Whether it is one of Kafka's own, such as `__consumer_offsets`.
    pub internal: bool,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
    pub(super) id: Uuid,
}

/// A partition as the brokers tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// The partition.
    pub partition: Partition,
    /// The broker that leads it; `None` while there is none.
    pub leader: Option<NodeId>,
    /// How often the leader has changed; -1 where the broker does not tell.
    pub leader_epoch: LeaderEpoch,
    /// The brokers that hold it; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Those that are in sync with the leader.
    pub in_sync: Vec<NodeId>,
    /// Those that are not there.
    pub offline: Vec<NodeId>,
}

impl TopicDescription {
    /// How many brokers hold its first partition; 0 for a topic without partitions.
    #[must_use]
    pub fn replication(&self) -> usize {
        self.partitions.first().map_or(0, |p| p.replicas.len())
    }

    /// From a Metadata answer; `None` for a name that is none.
    pub(super) fn read(topic: &MetadataResponseTopic) -> Option<Self> {
        let name = Topic::new(topic.name.as_ref()?.0.as_str()).ok()?;
        let nodes = |ids: &[kafka_protocol::messages::BrokerId]| ids.iter().map(|id| NodeId(id.0)).collect();
        let mut partitions: Vec<_> = topic
            .partitions
            .iter()
            .map(|p| PartitionDescription {
                partition: Partition(p.partition_index),
                leader: (p.leader_id.0 >= 0).then_some(NodeId(p.leader_id.0)),
                leader_epoch: LeaderEpoch(p.leader_epoch),
                replicas: nodes(&p.replica_nodes),
                in_sync: nodes(&p.isr_nodes),
                offline: nodes(&p.offline_replicas),
            })
            .collect();
        partitions.sort_by_key(|p| p.partition);
        Some(Self { topic: name, internal: topic.is_internal, partitions, id: topic.topic_id })
    }
}

/// A setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicConfig {
    /// Its name, such as `retention.ms`.
    pub name: String,
    /// Its value; `None` where it is not told, or where there is none.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// It cannot be changed.
    pub read_only: bool,
    /// Its value is kept secret.
    pub sensitive: bool,
}

/// Where the value of a setting comes from (KIP-226).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigSource {
    /// The topic itself.
    Topic,
    /// A setting of one broker that was changed while it ran.
    Broker,
    /// A setting of all brokers that was changed while they ran.
    Cluster,
    /// The broker's file.
    File,
    /// Nobody: it is Kafka's default.
    Default,
    /// Somewhere that this client does not know.
    Unknown,
}

impl ConfigSource {
    pub(super) const fn from_code(code: i8) -> Self {
        match code {
            1 => Self::Topic,
            2 => Self::Broker,
            3 => Self::Cluster,
            4 => Self::File,
            5 => Self::Default,
            _ => Self::Unknown,
        }
    }

    /// As a lower-case word, for logs and JSON. Stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Broker => "broker",
            Self::Cluster => "cluster",
            Self::File => "file",
            Self::Default => "default",
            Self::Unknown => "unknown",
        }
    }
}

/// A change of a topic's settings; what is not named stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigChange {
    /// Gives a setting a value.
    Set {
        /// Its name, such as `retention.ms`.
        name: String,
        /// Its value.
        value: String,
    },
    /// Takes the topic's own value away, so that the brokers' holds.
    Reset {
        /// Its name.
        name: String,
    },
}

impl ConfigChange {
    /// [`Set`](Self::Set).
    pub fn set(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Set { name: name.into(), value: value.into() }
    }

    /// [`Reset`](Self::Reset).
    pub fn reset(name: impl Into<String>) -> Self {
        Self::Reset { name: name.into() }
    }

    /// The setting's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Set { name, .. } | Self::Reset { name } => name,
        }
    }
}
