//! The coordinator's own assignors (KIP-848): `uniform`, sticky and even over all partitions, and `range`, a stretch of
//! each topic for each member.
//!
//! Both give every partition of every subscribed topic to exactly one member that subscribes to it.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

/// A partition of a topic.
pub(super) type Place = (Uuid, i32);
/// What a member has or is to have.
pub(super) type Assignment = BTreeSet<Place>;

/// An assignor of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::embedded::kafka) enum Assignor {
    /// The default.
    #[default]
    Uniform,
    /// As the client's range assignor.
    Range,
}

impl Assignor {
    /// By its name.
    pub(in crate::embedded::kafka) fn parse(name: &str) -> Option<Self> {
        match name {
            "uniform" => Some(Self::Uniform),
            "range" => Some(Self::Range),
            _ => None,
        }
    }

    /// Its name on the wire.
    pub(in crate::embedded::kafka) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }
}

/// A member as an assignor sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Subscriber {
    pub(super) instance: Option<StrBytes>,
    pub(super) topics: BTreeSet<Uuid>,
    /// Its target until now.
    pub(super) had: Assignment,
}

/// Assigns the partitions of `topics` (with their number).
pub(super) fn assign(
    assignor: Assignor,
    members: &BTreeMap<StrBytes, Subscriber>,
    topics: &BTreeMap<Uuid, i32>,
) -> BTreeMap<StrBytes, Assignment> {
    match assignor {
        Assignor::Range => range(members, topics),
        Assignor::Uniform => uniform(members, topics),
    }
}

fn range(
    members: &BTreeMap<StrBytes, Subscriber>,
    topics: &BTreeMap<Uuid, i32>,
) -> BTreeMap<StrBytes, Assignment> {
    let mut out: BTreeMap<StrBytes, Assignment> =
        members.keys().map(|id| (id.clone(), Assignment::new())).collect();
    // Static members first, by their instance id, so that a member that comes back gets the same stretch.
    let mut order: Vec<(&StrBytes, &Subscriber)> = members.iter().collect();
    order.sort_by_key(|(id, m)| (m.instance.is_none(), m.instance.clone(), (*id).clone()));
    for (topic, count) in topics {
        let subscribers: Vec<&StrBytes> =
            order.iter().filter(|(_, m)| m.topics.contains(topic)).map(|(id, _)| *id).collect();
        let Ok(n) = i32::try_from(subscribers.len()) else { continue };
        if n == 0 {
            continue;
        }
        let (each, extra) = (count / n, count % n);
        let mut next = 0;
        for (i, id) in (0..).zip(subscribers) {
            let take = each + i32::from(i < extra);
            if let Some(mine) = out.get_mut(id) {
                mine.extend((next..next + take).map(|p| (*topic, p)));
            }
            next += take;
        }
    }
    out
}

/// How much each member has, and in that order.
struct Loads<'a> {
    of: BTreeMap<&'a StrBytes, usize>,
    order: BTreeSet<(usize, &'a StrBytes)>,
}

impl<'a> Loads<'a> {
    fn new(assignment: impl Iterator<Item = (&'a StrBytes, usize)>) -> Self {
        let of: BTreeMap<_, _> = assignment.collect();
        let order = of.iter().map(|(id, n)| (*n, *id)).collect();
        Self { of, order }
    }

    fn get(&self, id: &StrBytes) -> usize {
        self.of.get(id).copied().unwrap_or_default()
    }

    fn set(&mut self, id: &'a StrBytes, load: usize) {
        if let Some(old) = self.of.insert(id, load) {
            self.order.remove(&(old, id));
        }
        self.order.insert((load, id));
    }

    fn least(&self, mut may: impl FnMut(&StrBytes) -> bool) -> Option<&'a StrBytes> {
        self.order.iter().map(|(_, id)| *id).find(|id| may(id))
    }

    fn smallest(&self) -> usize {
        self.order.first().map_or(0, |(load, _)| *load)
    }
}

/// Everyone keeps what it had; what is free goes to who has least; then partitions move from who has more to who has
/// at least two fewer, until none can.
fn uniform(
    members: &BTreeMap<StrBytes, Subscriber>,
    topics: &BTreeMap<Uuid, i32>,
) -> BTreeMap<StrBytes, Assignment> {
    let subscribes = |id: &StrBytes, topic: &Uuid| members.get(id).is_some_and(|m| m.topics.contains(topic));
    let mut owners: BTreeMap<Place, &StrBytes> = BTreeMap::new();
    for (id, member) in members {
        for place in &member.had {
            let there = topics.get(&place.0).is_some_and(|count| (0..*count).contains(&place.1));
            if there && member.topics.contains(&place.0) {
                owners.entry(*place).or_insert(id);
            }
        }
    }
    let mut out: BTreeMap<&StrBytes, Assignment> = members.keys().map(|id| (id, Assignment::new())).collect();
    for (place, id) in &owners {
        out.entry(*id).or_default().insert(*place);
    }
    let mut loads = Loads::new(out.iter().map(|(id, a)| (*id, a.len())));
    for (topic, count) in topics {
        for place in (0..*count).map(|p| (*topic, p)).filter(|place| !owners.contains_key(place)) {
            let Some(id) = loads.least(|id| subscribes(id, topic)) else { break };
            out.entry(id).or_default().insert(place);
            loads.set(id, loads.get(id) + 1);
        }
    }
    loop {
        let mut moved = false;
        let order: Vec<&StrBytes> = loads.order.iter().rev().map(|(_, id)| *id).collect();
        for from in order {
            let places: Vec<Place> = out.get(from).into_iter().flatten().copied().collect();
            // From the end, as those that were given last.
            for place in places.into_iter().rev() {
                let load = loads.get(from);
                if loads.smallest() + 2 > load {
                    break;
                }
                let Some(to) = loads.least(|id| subscribes(id, &place.0)) else { continue };
                if loads.get(to) + 2 > load {
                    continue;
                }
                out.entry(from).or_default().remove(&place);
                out.entry(to).or_default().insert(place);
                loads.set(from, load - 1);
                loads.set(to, loads.get(to) + 1);
                moved = true;
            }
        }
        if !moved {
            return out.into_iter().map(|(id, a)| (id.clone(), a)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(n: u128) -> Uuid {
        Uuid::from_u128(n + 1)
    }

    fn id(n: usize) -> StrBytes {
        StrBytes::from_string(format!("member-{n}"))
    }

    fn group(members: usize, topics: &[u128]) -> BTreeMap<StrBytes, Subscriber> {
        let topics: BTreeSet<Uuid> = topics.iter().map(|t| topic(*t)).collect();
        (0..members)
            .map(|n| (id(n), Subscriber { topics: topics.clone(), ..Subscriber::default() }))
            .collect()
    }

    fn sizes(assignment: &BTreeMap<StrBytes, Assignment>) -> Vec<usize> {
        assignment.values().map(BTreeSet::len).collect()
    }

    #[test]
    fn range_gives_each_member_a_stretch_of_each_topic() {
        let members = group(2, &[0, 1]);
        let out = assign(Assignor::Range, &members, &BTreeMap::from([(topic(0), 3), (topic(1), 3)]));
        let first: Vec<i32> = out[&id(0)].iter().map(|p| p.1).collect();
        let second: Vec<i32> = out[&id(1)].iter().map(|p| p.1).collect();
        assert_eq!((first, second), (vec![0, 1, 0, 1], vec![2, 2]));
    }

    #[test]
    fn uniform_is_even_over_topics_and_moves_no_more_than_it_must() {
        let mut members = group(2, &[0, 1]);
        let topics = BTreeMap::from([(topic(0), 3), (topic(1), 3)]);
        let before = assign(Assignor::Uniform, &members, &topics);
        assert_eq!(sizes(&before), [3, 3]);
        for (id, m) in &mut members {
            m.had.clone_from(&before[id]);
        }
        members
            .insert(id(2), Subscriber { topics: topics.keys().copied().collect(), ..Subscriber::default() });
        let after = assign(Assignor::Uniform, &members, &topics);
        assert_eq!(sizes(&after), [2, 2, 2]);
        for n in 0..2 {
            assert!(after[&id(n)].is_subset(&before[&id(n)]), "a partition moved between those that stayed");
        }
    }

    proptest! {
        #[test]
        fn every_partition_goes_to_exactly_one_subscriber_and_uniform_cannot_be_evened(
            topics in prop::collection::vec(1..9i32, 1..5),
            wishes in prop::collection::vec((prop::bits::u8::masked(0xf), prop::collection::vec((0..5u128, 0..9i32), 0..6)), 0..7),
            uniform: bool,
        ) {
            let counts: BTreeMap<Uuid, i32> = (0..).zip(&topics).map(|(t, n)| (topic(t), *n)).collect();
            let members: BTreeMap<StrBytes, Subscriber> = wishes.iter().enumerate().map(|(n, (mask, had))| {
                let topics = (0..4u128).filter(|t| mask & (1 << t) != 0).map(topic).collect();
                let had = had.iter().map(|(t, p)| (topic(*t), *p)).collect();
                (id(n), Subscriber { topics, had, instance: None })
            }).collect();
            let assignor = if uniform { Assignor::Uniform } else { Assignor::Range };
            let out = assign(assignor, &members, &counts);
            let mut owners: BTreeMap<Place, &StrBytes> = BTreeMap::new();
            for (id, places) in &out {
                for place in places {
                    prop_assert!(members[id].topics.contains(&place.0));
                    prop_assert!(owners.insert(*place, id).is_none(), "{place:?} is given twice");
                }
            }
            for (topic, n) in &counts {
                let wanted = members.values().any(|m| m.topics.contains(topic));
                let given = (0..*n).filter(|p| owners.contains_key(&(*topic, *p))).count();
                prop_assert_eq!(given, if wanted { usize::try_from(*n).unwrap() } else { 0 });
            }
            if uniform {
                for (place, from) in &owners {
                    for (to, m) in &members {
                        let helps = m.topics.contains(&place.0) && out[to].len() + 2 <= out[*from].len();
                        prop_assert!(!helps, "{place:?} should move from {from} to {to}");
                    }
                }
            }
        }
    }
}
