mod properties;
mod vectors;

use crate::Partition;

use super::*;

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn places(list: &[(&str, i32)]) -> Vec<Place> {
    list.iter().map(|(name, n)| (topic(name), Partition(*n))).collect()
}

fn shapes(list: &[(&str, usize)]) -> BTreeMap<Topic, TopicShape> {
    list.iter().map(|(name, n)| (topic(name), TopicShape { partitions: *n, racks: Vec::new() })).collect()
}

fn member(id: &str, topics: &[&str]) -> Member {
    let subscription =
        Subscription { topics: topics.iter().map(|t| topic(t)).collect(), ..Default::default() };
    Member { id: id.to_owned(), instance: None, subscription }
}

#[test]
fn names_are_those_of_java_and_found_again() {
    let names = Assignor::ALL.map(Assignor::name);
    assert_eq!(names, ["range", "roundrobin", "sticky", "cooperative-sticky"]);
    for assignor in Assignor::ALL {
        assert_eq!(Assignor::from_name(assignor.name()), Some(assignor));
        assert_eq!(assignor.is_cooperative(), assignor == Assignor::CooperativeSticky);
    }
    assert_eq!(Assignor::from_name("uniform"), None);
}

#[test]
fn a_member_that_reads_nothing_gets_nothing_and_unknown_topics_are_passed_over() {
    let members = [member("a", &[]), member("b", &["t", "ghost"]), member("c", &["t"])];
    for assignor in Assignor::ALL {
        let assigned = assignor.assign(&members, &shapes(&[("t", 4), ("nobody", 3), ("empty", 0)]));
        let counts: Vec<_> = assigned.iter().map(|(id, got)| (id.as_str(), got.len())).collect();
        assert_eq!(counts, [("a", 0), ("b", 2), ("c", 2)], "{assignor:?}");
        assert!(assignor.assign(&[], &shapes(&[("t", 4)])).is_empty());
        assert_eq!(assignor.assign(&members, &BTreeMap::new()).len(), 3);
    }
}

#[test]
fn range_gives_runs_and_round_robin_deals() {
    let members = [member("b", &["s", "t"]), member("a", &["s", "t"])];
    let topics = shapes(&[("s", 3), ("t", 3)]);
    let range = Assignor::Range.assign(&members, &topics);
    assert_eq!(range["a"], places(&[("s", 0), ("s", 1), ("t", 0), ("t", 1)]));
    assert_eq!(range["b"], places(&[("s", 2), ("t", 2)]));
    let dealt = Assignor::RoundRobin.assign(&members, &topics);
    assert_eq!(dealt["a"], places(&[("s", 0), ("s", 2), ("t", 1)]));
    assert_eq!(dealt["b"], places(&[("s", 1), ("t", 0), ("t", 2)]));
}

#[test]
fn what_moves_from_a_living_owner_is_withheld_for_one_round() {
    let mut old = member("a", &["t"]);
    old.subscription.owned = places(&[("t", 0), ("t", 1), ("t", 2), ("t", 3)]);
    old.subscription.generation = Some(1);
    let mut members = [old, member("b", &["t"])];
    let topics = shapes(&[("t", 4)]);
    let assigned = Assignor::CooperativeSticky.assign(&members, &topics);
    assert_eq!(assigned["a"], places(&[("t", 0), ("t", 1)]));
    assert_eq!(assigned["b"], []);
    members[0].subscription.owned = assigned["a"].clone();
    members[0].subscription.generation = Some(2);
    let assigned = Assignor::CooperativeSticky.assign(&members, &topics);
    assert_eq!(assigned["a"], places(&[("t", 0), ("t", 1)]));
    assert_eq!(assigned["b"], places(&[("t", 2), ("t", 3)]));
}

#[test]
fn partitions_go_to_members_in_their_racks() {
    let racks = ["r0", "r1", "r1", "r0", "r0", "r1"].map(|rack| vec![rack.to_owned()]).to_vec();
    let topics = BTreeMap::from([(topic("t"), TopicShape { partitions: 6, racks })]);
    let members = ["r0", "r1"].map(|rack| {
        let mut member = member(&format!("in-{rack}"), &["t"]);
        member.subscription.rack = Some(rack.to_owned());
        member
    });
    for assignor in [Assignor::Range, Assignor::Sticky, Assignor::CooperativeSticky] {
        let assigned = assignor.assign(&members, &topics);
        assert_eq!(assigned["in-r0"], places(&[("t", 0), ("t", 3), ("t", 4)]), "{assignor:?}");
        assert_eq!(assigned["in-r1"], places(&[("t", 1), ("t", 2), ("t", 5)]), "{assignor:?}");
    }
    // They move for it, and stay where nobody is nearer.
    let mut members = members.to_vec();
    members[0].subscription.owned = places(&[("t", 0), ("t", 1), ("t", 3)]);
    members[0].subscription.generation = Some(1);
    members[1].subscription.owned = places(&[("t", 2), ("t", 4), ("t", 5)]);
    members[1].subscription.generation = Some(1);
    let assigned = Assignor::CooperativeSticky.assign(&members, &topics);
    assert_eq!(assigned["in-r0"], places(&[("t", 0), ("t", 3)]));
    members[1].subscription.rack = Some("r0".to_owned());
    let assigned = Assignor::CooperativeSticky.assign(&members, &topics);
    assert_eq!(assigned["in-r0"], members[0].subscription.owned);
}
