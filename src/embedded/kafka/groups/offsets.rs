//! A group's committed offsets, and those that wait for a transaction's end.
//!
//! ```text
//! commit --------------------------------> committed      the later of the two wins, by the order in which
//! stage --> pending --complete(commit)---> committed      commits and stagings came, not by the end of the
//!              |                                          transaction
//!              +-----complete(abort)-----> gone
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::protocol::StrBytes;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded::kafka) struct Committed {
    pub(in crate::embedded::kafka) offset: i64,
    pub(in crate::embedded::kafka) leader_epoch: i32,
    pub(in crate::embedded::kafka) metadata: StrBytes,
    /// When it was committed.
    pub(in crate::embedded::kafka) at: Instant,
}

/// Memory of an offset beside its metadata and its topic's name, roughly.
const OVERHEAD: usize = 128;

impl Committed {
    fn bytes(&self) -> usize {
        OVERHEAD + self.metadata.len()
    }
}

/// A value and its place in the order of commits.
#[derive(Debug, Clone)]
struct Ordered {
    order: u64,
    committed: Committed,
}

type ByPartition = BTreeMap<StrBytes, BTreeMap<i32, Ordered>>;

/// All offsets of one group.
#[derive(Debug, Default)]
pub(in crate::embedded::kafka) struct Offsets {
    committed: ByPartition,
    /// By producer id.
    pending: BTreeMap<i64, ByPartition>,
    order: u64,
    bytes: usize,
}

fn put(map: &mut ByPartition, topic: StrBytes, partition: i32, value: Ordered) -> (usize, usize) {
    let added = value.committed.bytes();
    let partitions = map.entry(topic).or_default();
    let removed = match partitions.get(&partition) {
        Some(there) if there.order > value.order => return (0, 0),
        Some(there) => there.committed.bytes(),
        None => 0,
    };
    partitions.insert(partition, value);
    (added, removed)
}

fn size(map: &ByPartition) -> usize {
    map.values().flat_map(BTreeMap::values).map(|o| o.committed.bytes()).sum()
}

impl Offsets {
    /// Commits an offset.
    pub(super) fn commit(&mut self, topic: StrBytes, partition: i32, committed: Committed) {
        self.order += 1;
        let value = Ordered { order: self.order, committed };
        let (added, removed) = put(&mut self.committed, topic, partition, value);
        self.bytes = self.bytes + added - removed;
    }

    /// Keeps an offset until the producer's transaction ends.
    pub(super) fn stage(&mut self, producer: i64, topic: StrBytes, partition: i32, committed: Committed) {
        self.order += 1;
        let value = Ordered { order: self.order, committed };
        let (added, removed) = put(self.pending.entry(producer).or_default(), topic, partition, value);
        self.bytes = self.bytes + added - removed;
    }

    /// A producer's transaction ended. Was anything kept for it?
    pub(super) fn complete(&mut self, producer: i64, commit: bool) -> bool {
        let Some(pending) = self.pending.remove(&producer) else { return false };
        self.bytes -= size(&pending);
        if commit {
            for (topic, partitions) in pending {
                for (partition, value) in partitions {
                    let (added, removed) = put(&mut self.committed, topic.clone(), partition, value);
                    self.bytes = self.bytes + added - removed;
                }
            }
        }
        true
    }

    pub(in crate::embedded::kafka) fn get(&self, topic: &StrBytes, partition: i32) -> Option<&Committed> {
        Some(&self.committed.get(topic)?.get(&partition)?.committed)
    }

    /// Does a transaction in progress hold an offset for this partition?
    pub(in crate::embedded::kafka) fn is_unstable(&self, topic: &StrBytes, partition: i32) -> bool {
        self.pending.values().any(|p| p.get(topic).is_some_and(|p| p.contains_key(&partition)))
    }

    /// All committed offsets, by topic.
    pub(in crate::embedded::kafka) fn topics(
        &self,
    ) -> impl Iterator<Item = (&StrBytes, impl Iterator<Item = i32>)> {
        self.committed.iter().map(|(topic, partitions)| (topic, partitions.keys().copied()))
    }

    /// Removes one. Was it there?
    pub(super) fn remove(&mut self, topic: &StrBytes, partition: i32) -> bool {
        let mut freed = 0;
        let mut found = false;
        for map in std::iter::once(&mut self.committed).chain(self.pending.values_mut()) {
            let Some(partitions) = map.get_mut(topic) else { continue };
            if let Some(gone) = partitions.remove(&partition) {
                freed += gone.committed.bytes();
                found = true;
            }
            if partitions.is_empty() {
                map.remove(topic);
            }
        }
        self.bytes -= freed;
        self.pending.retain(|_, map| !map.is_empty());
        found
    }

    /// Removes all of a topic.
    pub(super) fn remove_topic(&mut self, topic: &StrBytes) {
        for map in std::iter::once(&mut self.committed).chain(self.pending.values_mut()) {
            if let Some(gone) = map.remove(topic) {
                self.bytes -= gone.values().map(|o| o.committed.bytes()).sum::<usize>();
            }
        }
        self.pending.retain(|_, map| !map.is_empty());
    }

    /// Removes what was committed longer than `retention` ago, counted for each from the later of its commit and
    /// `since`, except of topics that are `kept` and of partitions that a transaction holds.
    pub(super) fn expire(
        &mut self,
        retention: Duration,
        since: Option<Instant>,
        now: Instant,
        kept: impl Fn(&StrBytes) -> bool,
    ) {
        let due = |at: Instant| {
            let from = since.map_or(at, |since| since.max(at));
            now.saturating_duration_since(from) >= retention
        };
        let mut gone = Vec::new();
        for (topic, partitions) in self.committed.iter().filter(|(topic, _)| !kept(topic)) {
            let old = partitions.iter().filter(|(_, o)| due(o.committed.at)).map(|(p, _)| *p);
            gone.extend(old.filter(|p| !self.is_unstable(topic, *p)).map(|p| (topic.clone(), p)));
        }
        for (topic, partition) in gone {
            self.remove(&topic, partition);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }

    /// Memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
