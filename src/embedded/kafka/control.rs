//! What a test does to a running cluster: brokers die and come back, leaders move, logs are cleaned; and what it asks.

use std::time::Duration;

use super::Kafka;
use super::api::Code;
use super::configs::TopicConfig;
use super::topics::Partition as State;
use crate::{Error, ErrorKind, LeaderEpoch, NodeId, Offset, Partition, Result, Topic};

impl Kafka {
    /// Creates a topic, replicated on up to three brokers.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: it exists.
    /// - [`ErrorKind::Config`]: the number of partitions is below 1 or above 10,000.
    pub fn create_topic(&self, topic: &Topic, partitions: i32) -> Result<()> {
        self.driver.with(|cluster, _| cluster.create_topic(topic, partitions))
    }

    /// Kills a broker: its connections are cut, new ones are refused, other replicas in the ISR lead what it led. Its
    /// records stay; see [`restart`](Self::restart). Killing a dead one changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such broker.
    pub fn kill(&self, node: NodeId) -> Result<()> {
        self.check(node)?;
        self.driver.with(|cluster, now| cluster.kill(node, now));
        Ok(())
    }

    /// Starts a killed broker again, at the same address. It gets at once what it missed, and leads again what nobody
    /// else could lead; leaders that moved away stay where they are.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such broker.
    pub fn restart(&self, node: NodeId) -> Result<()> {
        self.check(node)?;
        self.driver.with(|cluster, now| cluster.revive(node, now));
        Ok(())
    }

    /// Cuts a broker off: its connections stay, but no byte passes either way, as when a cable is pulled. New
    /// connections open and hang. The others lead what it led. See [`heal`](Self::heal).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such broker.
    pub fn isolate(&self, node: NodeId) -> Result<()> {
        self.check(node)?;
        self.driver.with(|cluster, now| cluster.isolate(node, now));
        Ok(())
    }

    /// Ends [`isolate`](Self::isolate): the broker's connections go on, and what waited in them is answered.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such broker.
    pub fn heal(&self, node: NodeId) -> Result<()> {
        self.check(node)?;
        self.driver.with(|cluster, now| cluster.rejoin(node, now));
        Ok(())
    }

    /// Makes another replica the leader of a partition, in a new epoch. Nothing is lost.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such topic or partition.
    /// - [`ErrorKind::Config`]: the broker is no replica of it, or is not up.
    pub fn move_leader(&self, topic: &str, partition: Partition, to: NodeId) -> Result<()> {
        self.move_leader_losing(topic, partition, to, 0)
    }

    /// The same by an unclean election: the new leader lacks the last `records` offsets, with the whole batches that
    /// hold them. Clients find out by the epoch (KIP-320).
    ///
    /// # Errors
    /// As [`move_leader`](Self::move_leader).
    pub fn move_leader_losing(
        &self,
        topic: &str,
        partition: Partition,
        to: NodeId,
        records: u32,
    ) -> Result<()> {
        let moved = self
            .driver
            .with(|cluster, now| cluster.move_leader(topic, partition.0, to, i64::from(records), now));
        moved.map_err(|code| match code {
            Code::ReplicaNotAvailable => Error::new(
                ErrorKind::Config,
                format!("broker {to} cannot lead {topic}-{partition}: it is no replica, or not up"),
            ),
            _ => unknown(topic, partition),
        })
    }

    /// Who leads a partition; `None` while nobody can.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such topic or partition.
    pub fn leader(&self, topic: &str, partition: Partition) -> Result<Option<NodeId>> {
        self.look(topic, partition, |state| state.leader)
    }

    /// How often the leader of a partition has changed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such topic or partition.
    pub fn leader_epoch(&self, topic: &str, partition: Partition) -> Result<LeaderEpoch> {
        self.look(topic, partition, |state| LeaderEpoch(state.leader_epoch))
    }

    /// The brokers that have all of a partition (ISR), in the order of its replicas.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such topic or partition.
    pub fn in_sync(&self, topic: &str, partition: Partition) -> Result<Vec<NodeId>> {
        self.look(topic, partition, |state| state.isr.clone())
    }

    /// The offset of a partition's next record.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such topic or partition.
    pub fn end_offset(&self, topic: &str, partition: Partition) -> Result<Offset> {
        self.look(topic, partition, |state| Offset(state.log.end()))
    }

    /// What readers of committed records may read up to: below the end while a transaction is open.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such topic or partition.
    pub fn last_stable_offset(&self, topic: &str, partition: Partition) -> Result<Offset> {
        self.look(topic, partition, |state| Offset(state.log.last_stable_offset()))
    }

    /// The first offset of a partition that can be read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]: there is no such topic or partition.
    pub fn start_offset(&self, topic: &str, partition: Partition) -> Result<Offset> {
        self.look(topic, partition, |state| Offset(state.log.log_start()))
    }

    /// From now on the markers of ended transactions are held back for so long: until then their producers meet
    /// CONCURRENT_TRANSACTIONS, and readers of committed records wait. Zero, the default, writes them at once.
    pub fn delay_transaction_markers(&self, delay: Duration) {
        self.driver.with(|cluster, _| cluster.transactions.set_marker_delay(delay));
    }

    /// Deletes at once what `retention.ms` and `retention.bytes` no longer keep, in all topics with
    /// `cleanup.policy=delete`; by itself it happens every five minutes. Gives the number of partitions that lost
    /// records. Whole batches go, oldest first; what belongs to an open transaction stays.
    pub fn run_retention(&self) -> usize {
        self.driver.with(|cluster, now| cluster.run_retention(now))
    }

    /// Compacts a topic at once, however little of it is new: of each key the last record stays, and offsets get gaps.
    /// By itself it happens every five minutes once `min.cleanable.dirty.ratio` of the topic is new. Gives the number
    /// of partitions that lost records. Tombstones go `delete.retention.ms` after they were first seen.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such topic.
    /// - [`ErrorKind::Config`]: its `cleanup.policy` has no `compact`.
    pub fn compact(&self, topic: &str) -> Result<usize> {
        self.driver.with(|cluster, now| {
            let state = cluster.topics.get(topic).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("the cluster has no topic {topic}"))
            })?;
            if !state.config.compact {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("topic {topic} is not compacted; set cleanup.policy=compact"),
                ));
            }
            Ok(cluster.compact(Some(topic), true, now))
        })
    }

    /// Changes the configuration of a topic: sets a value, or gives it its default back (`None`).
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such topic.
    /// - [`ErrorKind::Config`]: there is no such configuration, or the value does not fit; in the real broker's words.
    pub fn set_topic_config(&self, topic: &str, name: &str, value: Option<&str>) -> Result<()> {
        self.driver.with(|cluster, _| {
            let state = cluster.topics.get_mut(topic).ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("the cluster has no topic {topic}"))
            })?;
            let kept = state.config.set().filter(|(other, _)| *other != name);
            let mut values: Vec<(&str, &str)> = kept.collect();
            values.extend(value.map(|value| (name, value)));
            let config = TopicConfig::new(values).map_err(|why| Error::new(ErrorKind::Config, why))?;
            state.config = config;
            Ok(())
        })
    }

    /// Bytes that the records of all partitions take, counted as for
    /// [`memory_limit`](super::KafkaBuilder::memory_limit).
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.driver.with(|cluster, _| cluster.topics.held())
    }

    fn look<R>(&self, topic: &str, partition: Partition, read: impl FnOnce(&State) -> R) -> Result<R> {
        let found = self.driver.with(|cluster, _| cluster.topics.partition(topic, partition.0).map(read));
        found.ok_or_else(|| unknown(topic, partition))
    }

    fn check(&self, node: NodeId) -> Result<()> {
        if self.driver.with(|cluster, _| cluster.nodes.contains_key(&node)) {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::NotFound, format!("the cluster has no broker {node}")))
        }
    }
}

fn unknown(topic: &str, partition: Partition) -> Error {
    Error::new(ErrorKind::NotFound, format!("the cluster has no partition {topic}-{partition}"))
}
