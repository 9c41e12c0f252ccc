//! What the Java client wrote and assigned: `tests/data/README.md` says how the file was made.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Buf;

use super::*;
use crate::kafka::consumer::group::protocol::Assignment;

const RACKS: [&str; 3] = ["r0", "r1", "r2"];

/// One rebalance of a group.
struct Round {
    assignor: Assignor,
    topics: BTreeMap<Topic, TopicShape>,
    members: Vec<Member>,
    subscriptions: Vec<Bytes>,
    assignments: Vec<Bytes>,
}

fn text(bytes: &mut Bytes) -> String {
    let length = bytes.get_u8().into();
    String::from_utf8(bytes.split_to(length).to_vec()).unwrap()
}

fn blob(bytes: &mut Bytes) -> Bytes {
    let length = bytes.get_u16().into();
    bytes.split_to(length)
}

fn round(bytes: &mut Bytes) -> Round {
    let assignor = Assignor::ALL[usize::from(bytes.get_u8())];
    let mut topics = BTreeMap::new();
    for _ in 0..bytes.get_u8() {
        let name = topic(&text(bytes));
        let masks: Vec<u8> = (0..bytes.get_u8()).map(|_| bytes.get_u8()).collect();
        let racks = |mask: &u8| (0..3).filter(|r| mask >> r & 1 == 1).map(|r| RACKS[r].to_owned()).collect();
        topics.insert(name, TopicShape { partitions: masks.len(), racks: masks.iter().map(racks).collect() });
    }
    let mut round =
        Round { assignor, topics, members: Vec::new(), subscriptions: Vec::new(), assignments: Vec::new() };
    for _ in 0..bytes.get_u8() {
        let id = text(bytes);
        let instance = Some(text(bytes)).filter(|instance| !instance.is_empty());
        round.subscriptions.push(blob(bytes));
        round.assignments.push(blob(bytes));
        let subscription = Subscription::decode(round.subscriptions.last().unwrap().clone()).unwrap();
        round.members.push(Member { id, instance, subscription });
    }
    round
}

fn rounds() -> Vec<Round> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/assignors/rounds.bin");
    let mut bytes = Bytes::from(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    std::iter::from_fn(|| bytes.has_remaining().then(|| round(&mut bytes))).collect()
}

fn places_of(assignment: &Bytes) -> Vec<Place> {
    let mut places = Assignment::decode(assignment.clone()).unwrap().partitions;
    places.sort();
    places
}

/// Whether a member owns a partition that has no replica in its rack.
fn owns_far(round: &Round, member: &Member) -> bool {
    let Some(rack) = &member.subscription.rack else { return false };
    member.subscription.owned.iter().any(|(topic, p)| {
        let racks =
            round.topics.get(topic).and_then(|shape| shape.racks.get(usize::try_from(p.get()).unwrap()));
        racks.is_some_and(|racks| !racks.contains(rack))
    })
}

#[test]
fn every_member_gets_what_java_gives_it() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (n, round) in rounds().iter().enumerate() {
        let assigned = round.assignor.assign(&round.members, &round.topics);
        let java: BTreeMap<String, Vec<Place>> = round
            .members
            .iter()
            .zip(&round.assignments)
            .map(|(m, bytes)| (m.id.clone(), places_of(bytes)))
            .collect();
        let racked = round.members.iter().any(|m| m.subscription.rack.is_some());
        if assigned != java {
            // What Java would move for its rack alone.
            let far = round.assignor.is_cooperative() && round.members.iter().any(|m| owns_far(round, m));
            assert!(far, "round {n}, {:?}: {assigned:?}, Java {java:?}", round.assignor);
            *seen.entry("kept though far").or_default() += 1;
        }
        let given: usize = java.values().map(Vec::len).sum();
        let wanted = |topic: &&Topic| round.members.iter().any(|m| m.subscription.topics.contains(topic));
        let total: usize =
            round.topics.keys().filter(wanted).map(|topic| round.topics[topic].partitions).sum();
        let generations: BTreeSet<_> =
            round.members.iter().map(|m| sticky::told(m, round.assignor).1).collect();
        let topics: BTreeSet<_> = round.members.iter().map(|m| &m.subscription.topics).collect();
        for (what, is) in [
            (round.assignor.name(), true),
            ("unequal subscriptions", topics.len() > 1),
            ("racks", racked),
            ("several generations", generations.iter().flatten().filter(|g| **g >= 0).count() > 1),
            ("static members", round.members.iter().any(|m| m.instance.is_some())),
            ("withheld partitions", given < total),
        ] {
            *seen.entry(what).or_default() += usize::from(is);
        }
    }
    let differing = seen.remove("kept though far").unwrap_or_default();
    assert!(differing < 10, "{differing} of {seen:?}");
    assert!(seen.len() == 9 && seen.values().all(|rounds| *rounds >= 20), "{seen:?}");
}

#[test]
fn subscriptions_and_assignments_are_written_byte_by_byte_as_java_does() {
    let mut seen = BTreeMap::new();
    for round in rounds() {
        for (bytes, member) in round.subscriptions.iter().zip(&round.members) {
            let subscription = &member.subscription;
            let version = usize::from(bytes[1]);
            *seen.entry(version).or_insert(0) += 1;
            // A version is the next one cut short: by the rack (null: two bytes), then by the generation.
            let mut written = subscription.encode();
            written.truncate(written.len() - [6, 6, 2, 0][version]);
            assert_eq!(written[2..], bytes[2..], "{subscription:?}");
        }
        for bytes in &round.assignments {
            assert_eq!(Assignment::decode(bytes.clone()).unwrap().encode(), bytes);
        }
    }
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn user_data_is_written_as_java_does() {
    let mut seen = [0; 2];
    for round in
        rounds().iter().filter(|r| matches!(r.assignor, Assignor::Sticky | Assignor::CooperativeSticky))
    {
        for member in &round.members {
            let bytes = member.subscription.user_data.clone();
            let (told, generation) = sticky::told(member, round.assignor);
            let generation = generation.unwrap_or(-1);
            let ours = round.assignor.user_data(&told, generation);
            assert_eq!(ours, bytes, "{told:?} {generation}");
            seen[usize::from(round.assignor.is_cooperative())] += usize::from(bytes.is_some());
        }
    }
    assert!(seen.iter().all(|n| *n > 50), "{seen:?}");
}
