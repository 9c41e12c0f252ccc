//! Members, topics and partitions by number: members in the order of their ids, topics in that of their names, the
//! partitions of all topics one after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::{Member, TopicShape, hash_order};
use crate::kafka::offsets::Place;
use crate::{Partition, Topic};

/// The partitions of each member.
pub(super) type Assigned = Vec<Vec<usize>>;

#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) members: Vec<&'a Member>,
    /// The members as Java walks through them.
    pub(super) walk: Vec<usize>,
    /// The topics that exist and have a reader.
    pub(super) topics: Vec<&'a Topic>,
    /// Each member's topics, sorted.
    pub(super) reads: Vec<Vec<usize>>,
    /// Each topic's members, sorted.
    pub(super) readers: Vec<Vec<usize>>,
    /// The first partition of each topic, and the end.
    firsts: Vec<usize>,
    /// The topic of each partition.
    topic_of: Vec<usize>,
    numbers: HashMap<&'a Topic, usize>,
    shapes: Vec<&'a TopicShape>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(members: &'a [Member], topics: &'a BTreeMap<Topic, TopicShape>) -> Self {
        let walk = hash_order::walk(members.iter().map(|m| m.id.as_str()));
        let mut ranked: Vec<usize> = (0..members.len()).collect();
        ranked.sort_by(|a, b| hash_order::compare(&members[*a].id, &members[*b].id));
        let mut rank = vec![0; members.len()];
        for (at, member) in ranked.iter().enumerate() {
            rank[*member] = at;
        }
        let members: Vec<&Member> = ranked.iter().map(|n| &members[*n]).collect();
        let read: BTreeSet<&Topic> = members.iter().flat_map(|m| &m.subscription.topics).collect();
        let (topics, shapes): (Vec<&Topic>, Vec<&TopicShape>) =
            topics.iter().filter(|(topic, shape)| shape.partitions > 0 && read.contains(topic)).unzip();
        let numbers: HashMap<&Topic, usize> =
            topics.iter().enumerate().map(|(n, topic)| (*topic, n)).collect();
        let mut readers = vec![Vec::new(); topics.len()];
        let mut reads = Vec::with_capacity(members.len());
        for (number, member) in members.iter().enumerate() {
            let of: BTreeSet<usize> =
                member.subscription.topics.iter().filter_map(|topic| numbers.get(topic).copied()).collect();
            for topic in &of {
                readers[*topic].push(number);
            }
            reads.push(of.into_iter().collect());
        }
        let mut firsts = vec![0];
        let mut topic_of = Vec::new();
        for (topic, shape) in shapes.iter().enumerate() {
            topic_of.resize(topic_of.len() + shape.partitions, topic);
            firsts.push(topic_of.len());
        }
        let walk = walk.into_iter().map(|n| rank[n]).collect();
        Self { members, walk, topics, reads, readers, firsts, topic_of, numbers, shapes }
    }

    /// How many partitions there are.
    pub(super) fn total(&self) -> usize {
        self.topic_of.len()
    }

    pub(super) fn topic(&self, partition: usize) -> usize {
        self.topic_of[partition]
    }

    pub(super) fn partitions(&self, topic: usize) -> Range<usize> {
        self.firsts[topic]..self.firsts[topic + 1]
    }

    /// The number of a partition within its topic.
    pub(super) fn within(&self, partition: usize) -> usize {
        partition - self.firsts[self.topic_of[partition]]
    }

    pub(super) fn does_read(&self, member: usize, topic: usize) -> bool {
        self.reads[member].binary_search(&topic).is_ok()
    }

    /// The number of a partition; `None` if it does not exist or nobody reads its topic.
    pub(super) fn find(&self, (topic, partition): &Place) -> Option<usize> {
        let partitions = self.partitions(*self.numbers.get(topic)?);
        let at = partitions.start.checked_add(usize::try_from(partition.get()).ok()?)?;
        partitions.contains(&at).then_some(at)
    }

    /// Members in the order in which `range` and `roundrobin` serve them: static ones go first.
    pub(super) fn by_instance(&self, members: &[usize]) -> Vec<usize> {
        let mut sorted = members.to_vec();
        sorted.sort_by(|a, b| match (&self.members[*a].instance, &self.members[*b].instance) {
            (Some(a), Some(b)) => hash_order::compare(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        sorted
    }

    pub(super) fn name(&self, assigned: Assigned) -> BTreeMap<String, Vec<Place>> {
        let named = self.members.iter().zip(assigned).map(|(member, mut partitions)| {
            partitions.sort_unstable();
            let place = |p: usize| {
                let within = i32::try_from(self.within(p)).unwrap_or(i32::MAX);
                (self.topics[self.topic(p)].clone(), Partition(within))
            };
            (member.id.clone(), partitions.into_iter().map(place).collect())
        });
        named.collect()
    }
}

/// Racks by number.
#[derive(Debug)]
pub(super) struct Racks {
    members: Vec<Option<usize>>,
    /// Sorted.
    partitions: Vec<Vec<usize>>,
}

impl Racks {
    /// `None` where no member tells its rack.
    pub(super) fn new(layout: &Layout<'_>) -> Option<Self> {
        let mut numbers = HashMap::new();
        let members: Vec<Option<usize>> = layout
            .members
            .iter()
            .map(|m| {
                let rack = m.subscription.rack.as_deref().filter(|rack| !rack.is_empty())?;
                let next = numbers.len();
                Some(*numbers.entry(rack).or_insert(next))
            })
            .collect();
        if numbers.is_empty() {
            return None;
        }
        let mut partitions = Vec::with_capacity(layout.total());
        for p in 0..layout.total() {
            let named =
                layout.shapes[layout.topic(p)].racks.get(layout.within(p)).map_or(&[][..], Vec::as_slice);
            let mut racks = Vec::with_capacity(named.len());
            for rack in named {
                let next = numbers.len();
                racks.push(*numbers.entry(rack.as_str()).or_insert(next));
            }
            racks.sort_unstable();
            racks.dedup();
            partitions.push(racks);
        }
        Some(Self { members, partitions })
    }

    /// Whether it matters which of the members reads which of the partitions: some have a replica near a member, and not
    /// all have replicas in all racks.
    pub(super) fn matter(&self, members: &[usize], partitions: Range<usize>) -> bool {
        let near: BTreeSet<usize> = members.iter().filter_map(|m| self.members[*m]).collect();
        let all: BTreeSet<usize> = self.partitions[partitions.clone()].iter().flatten().copied().collect();
        !near.is_disjoint(&all) && self.partitions[partitions].iter().any(|racks| racks.len() != all.len())
    }

    pub(super) fn has_rack(&self, member: usize) -> bool {
        self.members[member].is_some()
    }

    /// Whether the member tells its rack, and the partition has a replica there.
    pub(super) fn is_near(&self, member: usize, partition: usize) -> bool {
        self.members[member].is_some_and(|rack| self.partitions[partition].binary_search(&rack).is_ok())
    }

    /// Whether the member tells its rack, and the partition has no replica there.
    pub(super) fn is_far(&self, member: usize, partition: usize) -> bool {
        self.has_rack(member) && !self.is_near(member, partition)
    }

    /// How many partitions are with a member in one of their racks.
    pub(super) fn count_near(&self, assigned: &Assigned) -> usize {
        let of = |(member, partitions): (usize, &Vec<usize>)| {
            partitions.iter().filter(|p| self.is_near(member, **p)).count()
        };
        assigned.iter().enumerate().map(of).sum()
    }

    /// How many members are in a partition's racks.
    pub(super) fn near_count(&self) -> Vec<usize> {
        let mut by_rack: HashMap<usize, usize> = HashMap::new();
        for rack in self.members.iter().flatten() {
            *by_rack.entry(*rack).or_default() += 1;
        }
        let of = |racks: &Vec<usize>| racks.iter().filter_map(|rack| by_rack.get(rack)).sum();
        self.partitions.iter().map(of).collect()
    }
}
