//! What holds for every group.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

type Assigned = BTreeMap<String, Vec<Place>>;

const TOPICS: [&str; 5] = ["t", "orders", "a.b", "Z_1", "s"];
const STICKY: [Assignor; 2] = [Assignor::Sticky, Assignor::CooperativeSticky];

/// A group and its topics.
#[derive(Debug, Clone)]
struct Group {
    members: Vec<Member>,
    topics: BTreeMap<Topic, TopicShape>,
}

impl Group {
    fn assign(&self, assignor: Assignor) -> Assigned {
        assignor.assign(&self.members, &self.topics)
    }

    /// All members know what they got.
    fn take(&mut self, assignor: Assignor, assigned: &Assigned, generation: i32) {
        for member in &mut self.members {
            own(member, assignor, &assigned[&member.id], generation);
        }
    }

    /// The members that read a topic.
    fn readers(&self, topic: &Topic) -> usize {
        self.members.iter().filter(|m| m.subscription.topics.contains(topic)).count()
    }

    /// All partitions that somebody reads.
    fn places(&self) -> BTreeSet<Place> {
        let read = self.topics.iter().filter(|(topic, _)| self.readers(topic) > 0);
        read.flat_map(|(topic, shape)| (0i32..).take(shape.partitions).map(|n| (topic.clone(), Partition(n))))
            .collect()
    }
}

/// What a member tells that owns these.
fn own(member: &mut Member, assignor: Assignor, owned: &[Place], generation: i32) {
    member.subscription.user_data = assignor.user_data(owned, generation);
    member.subscription.generation = Some(generation);
    member.subscription.owned = if assignor.is_cooperative() { owned.to_vec() } else { Vec::new() };
}

fn topics(racked: bool) -> impl Strategy<Value = BTreeMap<Topic, TopicShape>> {
    let rack = proptest::sample::select(vec!["r0", "r1", "r2"]).prop_map(str::to_owned);
    let replicas = proptest::collection::vec(rack, usize::from(racked)..=2 * usize::from(racked));
    let shape = proptest::collection::vec(replicas, 0..9)
        .prop_map(|racks| TopicShape { partitions: racks.len(), racks });
    proptest::collection::btree_map(proptest::sample::select(&TOPICS[..]).prop_map(topic), shape, 1..5)
}

fn members(equal: bool, racked: bool) -> impl Strategy<Value = Vec<Member>> {
    let read = proptest::sample::subsequence(&TOPICS[..], if equal { 5..=5 } else { 0..=5 });
    let instance = proptest::option::weighted(0.3, "[a-z]{3}");
    let rack = proptest::option::weighted(0.8, "r[0-2]").prop_map(move |rack| rack.filter(|_| racked));
    let member = (read, instance, rack).prop_map(|(read, instance, rack)| {
        let mut member = member("", &read);
        member.instance = instance;
        member.subscription.rack = rack;
        member
    });
    proptest::collection::btree_map("[a-zé]{1,3}", member, 1..9)
        .prop_map(|members| members.into_iter().map(|(id, member)| Member { id, ..member }).collect())
}

prop_compose! {
    fn group_of(equal: bool, racked: bool)(members in members(equal, racked).prop_shuffle(), topics in topics(racked)) -> Group {
        Group { members, topics }
    }
}

fn group() -> impl Strategy<Value = Group> {
    (any::<bool>(), any::<bool>()).prop_flat_map(|(equal, racked)| group_of(equal, racked))
}

/// Members that say they own whatever, in any generation.
fn troubled(assignor: Assignor, racked: bool) -> impl Strategy<Value = Group> {
    let claim = (0usize..9, proptest::sample::select(&TOPICS[..]), 0i32..9);
    let claims = proptest::collection::vec(claim, 0..30);
    let generations = proptest::collection::vec(-1i32..4, 9);
    let group = any::<bool>().prop_flat_map(move |equal| group_of(equal, racked));
    (group, claims, generations).prop_map(move |(mut group, claims, generations)| {
        for (n, member) in group.members.iter_mut().enumerate() {
            let of = claims.iter().filter(|claim| claim.0 == n);
            let owned: Vec<Place> = of.map(|(_, name, p)| (topic(name), Partition(*p))).collect();
            own(member, assignor, &owned, generations[n]);
        }
        group
    })
}

/// Every partition at most once, to a member that reads it.
fn check_valid(group: &Group, assigned: &Assigned) -> Result<BTreeSet<Place>, TestCaseError> {
    let mut given = BTreeSet::new();
    prop_assert_eq!(assigned.len(), group.members.len());
    for member in &group.members {
        for place in &assigned[&member.id] {
            prop_assert!(
                member.subscription.topics.contains(&place.0),
                "{} does not read {place:?}",
                member.id
            );
            prop_assert!(given.insert(place.clone()), "{place:?} is given twice");
        }
    }
    prop_assert!(given.is_subset(&group.places()));
    Ok(given)
}

/// No member could have one of another's partitions so that it gets more even.
fn check_even(group: &Group, assigned: &Assigned) -> Result<(), TestCaseError> {
    for member in &group.members {
        let size = assigned[&member.id].len();
        for (other, places) in assigned {
            let has = places.iter().any(|(topic, _)| member.subscription.topics.contains(topic));
            prop_assert!(
                !has || places.len() <= size + 1,
                "{other} has {}, {} has {size}",
                places.len(),
                member.id
            );
        }
    }
    Ok(())
}

fn sizes(assigned: &Assigned) -> (usize, usize) {
    let sizes = || assigned.values().map(Vec::len);
    (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0))
}

fn set(places: &[Place]) -> BTreeSet<&Place> {
    places.iter().collect()
}

proptest! {
    #[test]
    fn every_partition_goes_to_one_member_that_reads_it(group in group()) {
        for assignor in Assignor::ALL {
            let assigned = group.assign(assignor);
            prop_assert_eq!(check_valid(&group, &assigned)?, group.places());
            prop_assert_eq!(&group.assign(assignor), &assigned, "the same for the same input");
        }
    }

    #[test]
    fn members_that_read_the_same_get_as_much_give_or_take_one(group in group_of(true, true)) {
        for assignor in [Assignor::RoundRobin, Assignor::Sticky, Assignor::CooperativeSticky] {
            let (least, most) = sizes(&group.assign(assignor));
            prop_assert!(most - least <= 1, "{assignor:?}: {least} to {most}");
        }
    }

    #[test]
    fn range_gives_each_reader_as_much_of_a_topic_give_or_take_one(group in group()) {
        let assigned = group.assign(Assignor::Range);
        for topic in group.topics.keys() {
            let readers = group.members.iter().filter(|m| m.subscription.topics.contains(topic));
            let got: Vec<usize> =
                readers.map(|m| assigned[&m.id].iter().filter(|place| place.0 == *topic).count()).collect();
            prop_assert!(got.iter().max().unwrap_or(&0) - got.iter().min().unwrap_or(&0) <= 1, "{topic}: {got:?}");
        }
    }

    #[test]
    fn racks_cost_no_balance(group in group_of(true, true)) {
        let mut blind = group.clone();
        blind.members.iter_mut().for_each(|m| m.subscription.rack = None);
        for assignor in STICKY {
            prop_assert_eq!(sizes(&group.assign(assignor)), sizes(&blind.assign(assignor)));
        }
    }

    #[test]
    fn unequal_subscriptions_are_as_even_as_can_be(group in group_of(false, false)) {
        for assignor in STICKY {
            check_even(&group, &group.assign(assignor))?;
        }
    }

    #[test]
    fn nothing_moves_where_nothing_changed(equal in any::<bool>(), group in group_of(false, false), all in group_of(true, false)) {
        for assignor in STICKY {
            let mut group = if equal { all.clone() } else { group.clone() };
            let assigned = group.assign(assignor);
            group.take(assignor, &assigned, 1);
            prop_assert_eq!(group.assign(assignor), assigned);
        }
    }

    #[test]
    fn a_leaver_moves_only_its_own(group in group_of(true, false), who in any::<prop::sample::Index>()) {
        for assignor in STICKY {
            let mut group = group.clone();
            let before = group.assign(assignor);
            group.take(assignor, &before, 1);
            group.members.remove(who.index(group.members.len()));
            let after = group.assign(assignor);
            for (id, places) in &after {
                prop_assert!(set(places).is_superset(&set(&before[id])), "{id} lost something");
            }
            prop_assert_eq!(check_valid(&group, &after)?, group.places());
        }
    }

    #[test]
    fn a_joiner_takes_only_its_share(group in group_of(true, false)) {
        for assignor in STICKY {
            let mut group = group.clone();
            let Some(joiner) = group.members.pop().filter(|_| !group.members.is_empty()) else { return Ok(()) };
            let before = group.assign(assignor);
            group.take(assignor, &before, 1);
            group.members.push(joiner.clone());
            let after = group.assign(assignor);
            for (id, places) in before {
                prop_assert!(set(&places).is_superset(&set(&after[&id])), "{id} got something");
            }
            let given = check_valid(&group, &after)?;
            if !assignor.is_cooperative() {
                prop_assert_eq!(given, group.places());
                prop_assert!(sizes(&after).1 - sizes(&after).0 <= 1);
            } else {
                prop_assert_eq!(&after[&joiner.id], &[], "its share is not let go yet");
            }
        }
    }

    #[test]
    fn whatever_the_members_claim_sticky_gives_every_partition_once(group in any::<bool>().prop_flat_map(|racked| troubled(Assignor::Sticky, racked))) {
        let assigned = group.assign(Assignor::Sticky);
        prop_assert_eq!(check_valid(&group, &assigned)?, group.places());
    }

    #[test]
    fn nothing_is_given_to_a_new_owner_before_the_old_one_let_go(
        group in any::<bool>().prop_flat_map(|racked| troubled(Assignor::CooperativeSticky, racked)),
    ) {
        let assigned = group.assign(Assignor::CooperativeSticky);
        let given = check_valid(&group, &assigned)?;
        let mut claimed: HashMap<&Place, BTreeSet<&str>> = HashMap::new();
        for member in &group.members {
            for place in &member.subscription.owned {
                claimed.entry(place).or_default().insert(&member.id);
            }
        }
        for (id, places) in &assigned {
            for place in places {
                let owners = claimed.get(place);
                prop_assert!(owners.is_none_or(|owners| owners.contains(id.as_str())), "{place:?} is another's");
            }
        }
        // What nobody claims is given at once.
        for place in group.places() {
            prop_assert!(claimed.contains_key(&place) || given.contains(&place), "{place:?} is given to nobody");
        }
    }

    #[test]
    fn cooperative_rounds_settle_soon(group in any::<bool>().prop_flat_map(|racked| troubled(Assignor::CooperativeSticky, racked))) {
        let mut group = group;
        // Members join again as long as one of them had to let go of something.
        for generation in 4..8 {
            let assigned = group.assign(Assignor::CooperativeSticky);
            let kept = group.members.iter().all(|m| set(&assigned[&m.id]).is_superset(&set(&m.subscription.owned)));
            group.take(Assignor::CooperativeSticky, &assigned, generation);
            if !kept {
                continue;
            }
            prop_assert_eq!(check_valid(&group, &assigned)?, group.places());
            if group.members.iter().all(|m| m.subscription.rack.is_none()) {
                check_even(&group, &assigned)?;
                prop_assert_eq!(group.assign(Assignor::CooperativeSticky), assigned);
            }
            return Ok(());
        }
        prop_assert!(false, "four rounds, and still something moves");
    }

    #[test]
    fn user_data_comes_back(owned in proptest::collection::btree_set((0usize..5, 0i32..99), 0..20), generation in 0..=i32::MAX) {
        let owned: Vec<Place> = owned.into_iter().map(|(n, p)| (topic(TOPICS[n]), Partition(p))).collect();
        for assignor in STICKY {
            let mut member = member("m", &TOPICS);
            member.subscription.user_data = assignor.user_data(&owned, generation);
            let wanted = if assignor.is_cooperative() { Vec::new() } else { owned.clone() };
            prop_assert_eq!(sticky::told(&member, assignor), (wanted, Some(generation)));
        }
    }

    #[test]
    fn user_data_that_makes_no_sense_counts_as_none(bytes in proptest::collection::vec(any::<u8>(), 0..40), group in group()) {
        for assignor in STICKY {
            let mut group = group.clone();
            group.members[0].subscription.user_data = Some(bytes.clone().into());
            prop_assert_eq!(check_valid(&group, &group.assign(assignor))?, group.places());
        }
    }
}

#[test]
fn sticky_reads_user_data_without_a_generation() {
    let mut member = member("m", &["t"]);
    let bytes = Assignor::Sticky.user_data(&places(&[("t", 1), ("t", 2)]), 7).unwrap();
    member.subscription.user_data = Some(bytes.slice(..bytes.len() - 4));
    assert_eq!(sticky::told(&member, Assignor::Sticky), (places(&[("t", 1), ("t", 2)]), None));
    assert_eq!(Assignor::Sticky.user_data(&[], -1), None, "it was never assigned anything");
    assert_eq!(Assignor::CooperativeSticky.user_data(&[], -1).as_deref(), Some(&[0xff; 4][..]));
    assert_eq!(Assignor::Range.user_data(&places(&[("t", 1)]), 7), None);
}

#[test]
fn ten_thousand_partitions_are_spread_over_a_hundred_members() {
    let names: Vec<String> = (0..100).map(|n| format!("topic-{n}")).collect();
    let topics: BTreeMap<Topic, TopicShape> = names
        .iter()
        .map(|name| {
            let racks = (0..100).map(|p| vec![format!("r{}", p % 3)]).collect();
            (topic(name), TopicShape { partitions: 100, racks })
        })
        .collect();
    for (equal, racked) in [(true, false), (true, true), (false, false), (false, true)] {
        let members = (0..100).map(|n| {
            let read: Vec<&str> = names
                .iter()
                .enumerate()
                .filter(|(t, _)| equal || (t * 7 + n) % 3 > 0)
                .map(|(_, t)| t.as_str())
                .collect();
            let mut member = member(&format!("member-{n}"), &read);
            member.subscription.rack = racked.then(|| format!("r{}", n % 3));
            member
        });
        let mut group = Group { members: members.collect(), topics: topics.clone() };
        for assignor in Assignor::ALL {
            let assigned = group.assign(assignor);
            assert_eq!(check_valid(&group, &assigned).unwrap().len(), 10_000);
            group.take(assignor, &assigned, 1);
            // Half of them leave, and one comes.
            let mut half = Group { members: group.members.split_at(49).0.to_vec(), topics: topics.clone() };
            half.members.push(Member { id: "new".to_owned(), ..group.members[99].clone() });
            own(&mut half.members[49], assignor, &[], -1);
            check_valid(&half, &half.assign(assignor)).unwrap();
        }
    }
}
