//! Topics by name and id, their partitions, and who leads them.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::configs::TopicConfig;
use super::log::PartitionLog;
use crate::{NodeId, Topic};

/// Partitions of all topics together. One more is refused.
pub(crate) const MOST_PARTITIONS: usize = 100_000;

/// A partition: who has it, and its records.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    /// Who is to have it; the first is preferred as leader.
    pub(crate) replicas: Vec<NodeId>,
    /// Which of them have all of it.
    pub(crate) isr: Vec<NodeId>,
    /// `None` where no broker that may lead it is up.
    pub(crate) leader: Option<NodeId>,
    /// Counts the leaders.
    pub(crate) leader_epoch: i32,
    /// The leader before, and its epoch: what a broker that lags behind tells.
    pub(crate) before: Option<(NodeId, i32)>,
    pub(crate) log: PartitionLog,
}

impl Partition {
    /// An empty one, led by its first replica that is among `up`.
    pub(crate) fn new(replicas: Vec<NodeId>, up: &[NodeId]) -> Self {
        let mut isr: Vec<_> = replicas.iter().copied().filter(|node| up.contains(node)).collect();
        let leader = isr.first().copied();
        if isr.is_empty() {
            isr.clone_from(&replicas);
        }
        let mut log = PartitionLog::default();
        log.begin_epoch(0);
        Self { replicas, isr, leader, leader_epoch: 0, before: None, log }
    }
}

/// A topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicState {
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    /// By number.
    pub(crate) partitions: Vec<Partition>,
}

impl TopicState {
    pub(crate) fn partition(&self, partition: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    fn held(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.log.held()).sum()
    }
}

/// Is it one of the brokers' own topics?
pub(crate) fn is_internal(topic: &str) -> bool {
    matches!(topic, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

/// All topics.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_name: BTreeMap<Topic, TopicState>,
    by_id: HashMap<Uuid, Topic>,
    held: u64,
    partitions: usize,
    version: u64,
}

impl Topics {
    /// Counts the topics that came, went or grew.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// All topics by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Topic, &TopicState)> {
        self.by_name.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(crate) fn get(&self, topic: &str) -> Option<&TopicState> {
        self.by_name.get(topic)
    }

    /// The topic with its name as it is shared.
    pub(crate) fn entry(&self, topic: &str) -> Option<(&Topic, &TopicState)> {
        self.by_name.get_key_value(topic)
    }

    pub(crate) fn get_mut(&mut self, topic: &str) -> Option<&mut TopicState> {
        self.by_name.get_mut(topic)
    }

    /// The name of the topic with this id.
    pub(crate) fn name_of(&self, id: Uuid) -> Option<&Topic> {
        self.by_id.get(&id)
    }

    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.by_name.get(topic)?.partition(partition)
    }

    /// Changes a partition. What it holds more or less is counted.
    pub(crate) fn change<R>(
        &mut self,
        topic: &str,
        partition: i32,
        change: impl FnOnce(&mut Partition, &TopicConfig) -> R,
    ) -> Option<R> {
        let state = self.by_name.get_mut(topic)?;
        let partition = state.partitions.get_mut(usize::try_from(partition).ok()?)?;
        let before = partition.log.held();
        let result = change(partition, &state.config);
        self.held = (self.held - before.min(self.held)).saturating_add(partition.log.held());
        Some(result)
    }

    /// Changes every partition, in order.
    pub(crate) fn change_all(&mut self, mut change: impl FnMut(&Topic, i32, &mut Partition, &TopicConfig)) {
        for (topic, state) in &mut self.by_name {
            for (number, partition) in (0..).zip(&mut state.partitions) {
                let before = partition.log.held();
                change(topic, number, partition, &state.config);
                self.held = (self.held - before.min(self.held)).saturating_add(partition.log.held());
            }
        }
    }

    /// Bytes of all logs, with what each batch costs beside them.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// May so many partitions be added?
    pub(crate) fn has_room(&self, partitions: usize) -> bool {
        self.partitions.saturating_add(partitions) <= MOST_PARTITIONS
    }

    /// Adds a topic; one of that name must not be there.
    pub(crate) fn insert(&mut self, topic: Topic, state: TopicState) {
        self.version += 1;
        self.partitions += state.partitions.len();
        self.by_id.insert(state.id, topic.clone());
        self.by_name.insert(topic, state);
    }

    /// Adds partitions to a topic.
    pub(crate) fn extend(&mut self, topic: &str, partitions: Vec<Partition>) {
        if let Some(state) = self.by_name.get_mut(topic) {
            self.version += 1;
            self.partitions += partitions.len();
            state.partitions.extend(partitions);
        }
    }

    /// Removes a topic with its records.
    pub(crate) fn remove(&mut self, topic: &str) -> Option<TopicState> {
        let state = self.by_name.remove(topic)?;
        self.by_id.remove(&state.id);
        self.held = self.held.saturating_sub(state.held());
        self.version += 1;
        self.partitions -= state.partitions.len();
        Some(state)
    }
}
