//! Any bytes as what the members of a group tell its leader, and what the leader tells them: refused, or read in memory that
//! follows their length and written so that they read the same. What was read is assigned: every partition to one member that
//! wants it, or under the cooperative protocol to none yet.
//!
//! The input: one byte names the assignor; then members, each with a byte for its length.
#![no_main]

use std::collections::BTreeSet;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use muslin::kafka::Assignor;
use muslin::kafka::consumer::fuzzing::{assign, assignment, subscription};
use muslin_fuzz::peak_of;

const ASSIGNORS: [Assignor; 4] =
    [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky, Assignor::CooperativeSticky];

fuzz_target!(|data: &[u8]| {
    let Some((which, mut rest)) = data.split_first() else { return };
    let mut members = Vec::new();
    while let Some((length, tail)) = rest.split_first() {
        let (member, after) = tail.split_at(tail.len().min(usize::from(*length)));
        members.push(Bytes::copy_from_slice(member));
        rest = after;
    }
    // The whole too: longer than a byte can say.
    let whole = Bytes::copy_from_slice(data.get(1..).unwrap_or_default());
    for bytes in members.iter().chain([&whole]) {
        for read in [subscription, assignment] {
            let (written, peak) = peak_of(|| read(bytes.clone()));
            assert!(peak <= 64 * bytes.len() + 2048, "{peak} bytes for {}", bytes.len());
            match written {
                Err(error) => assert!(!error.to_string().is_empty()),
                Ok(written) => assert_eq!(read(written.clone()).unwrap(), written),
            }
        }
    }
    // The most of a real group's order; what is quadratic would show as a timeout before.
    if members.len() > 200 {
        return;
    }
    let assignor = ASSIGNORS[usize::from(*which) % ASSIGNORS.len()];
    let assigned = assign(assignor, &members);
    let wanted: BTreeSet<_> = assigned.iter().flat_map(|(topics, _)| topics).collect();
    let mut given = BTreeSet::new();
    for (topics, places) in &assigned {
        for place in places {
            assert!(topics.contains(&place.0), "{place:?} is not wanted there");
            assert!(given.insert(place), "{place:?} is given twice");
        }
    }
    assert!(assignor.is_cooperative() || given.len() == 4 * wanted.len());
});
