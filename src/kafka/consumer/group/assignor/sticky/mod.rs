//! `sticky` and `cooperative-sticky`: as balanced as can be, and what may stay stays.
//!
//! ```text
//! equal      all members read the same topics: quotas
//! unequal    they do not: partitions move as long as that makes it more even
//! movements  PURE: what moved between whom, so that nothing moves in circles
//! ```

mod equal;
mod movements;
mod unequal;

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::{BufMut, Bytes, BytesMut};

use super::layout::{Assigned, Layout, Racks};
use super::{Assignor, Member};
use crate::kafka::consumer::group::protocol::{Reader, put_places};
use crate::kafka::offsets::Place;

/// No generation: that of a member that never had one.
const NONE: i32 = -1;

/// What becomes of a partition whose owner is not in its racks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Far {
    /// It may go to a member that is nearer.
    Moves,
    /// Its owner may keep it.
    Stays,
}

pub(super) fn assign(layout: &Layout<'_>, assignor: Assignor) -> Assigned {
    let claims = Claims::new(layout, assignor);
    let everybody: Vec<usize> = (0..layout.members.len()).collect();
    let racks = Racks::new(layout).filter(|racks| racks.matter(&everybody, 0..layout.total()));
    let assign = |far| {
        if are_equal(layout) {
            equal::assign(layout, racks.as_ref(), far, &claims)
        } else {
            let assigned = unequal::assign(layout, racks.as_ref(), far, &claims);
            let moving = find_moving(layout, &assigned);
            (assigned, moving)
        }
    };
    let (mut assigned, moving) = match &racks {
        // A partition without an owner may be one withheld for its rack in the round before: that must come to an end.
        Some(_) if assignor.is_cooperative() && claims.held() < layout.total() => assign(Far::Stays),
        Some(racks) if assignor.is_cooperative() => {
            let (moved, kept) = (assign(Far::Moves), assign(Far::Stays));
            if racks.count_near(&moved.0) > racks.count_near(&kept.0) { moved } else { kept }
        }
        _ => assign(Far::Moves),
    };
    if assignor.is_cooperative() {
        for partitions in &mut assigned {
            partitions.retain(|p| !moving.contains(p));
        }
    }
    assigned
}

/// The user data of `sticky` (version 1): an assignment and its generation.
pub(super) fn user_data(owned: &[Place], generation: i32) -> Bytes {
    let mut out = BytesMut::new();
    put_places(&mut out, owned);
    out.put_i32(generation);
    out.freeze()
}

/// What a member says it had, and in which generation, where it tells one. What makes no sense counts as nothing.
pub(super) fn told(member: &Member, assignor: Assignor) -> (Vec<Place>, Option<i32>) {
    let subscription = &member.subscription;
    let user_data = subscription.user_data.clone().filter(|bytes| !bytes.is_empty());
    if assignor.is_cooperative() {
        let generation = subscription.generation.filter(|generation| *generation >= 0);
        // Before version 2 of the subscription, it stood in the user data.
        let in_user_data = || {
            let mut reader = Reader { bytes: subscription.user_data.clone()?, what: "user data" };
            Some(reader.i32("generation").unwrap_or(NONE))
        };
        return (subscription.owned.clone(), generation.or_else(in_user_data));
    }
    // An eager member lets go of all before it joins: what it had stands in the user data alone.
    let Some(bytes) = user_data else { return (Vec::new(), None) };
    let mut reader = Reader { bytes, what: "user data" };
    match reader.places("partitions") {
        // Version 0 has no generation.
        Ok(places) => (places, reader.i32("generation").ok()),
        Err(_) => (Vec::new(), Some(NONE)),
    }
}

/// Who owned what, as the members tell it.
#[derive(Debug)]
struct Claims {
    /// What each member owned for all that is known: claims of an older generation give way.
    owned: Assigned,
    /// Partitions that several members claim for the same generation: they are nobody's.
    disputed: HashSet<usize>,
    /// What each member told, and of which generation.
    told: Vec<(Vec<usize>, Option<i32>)>,
    /// The highest generation told.
    newest: i32,
}

impl Claims {
    fn new(layout: &Layout<'_>, assignor: Assignor) -> Self {
        let told: Vec<(Vec<usize>, Option<i32>)> = layout
            .members
            .iter()
            .map(|member| {
                let (places, generation) = told(member, assignor);
                let mut seen = HashSet::new();
                let found = places
                    .iter()
                    .filter_map(|place| layout.find(place))
                    .filter(|p| seen.insert(*p))
                    .collect();
                (found, generation)
            })
            .collect();
        let generation = |member: usize| told[member].1.unwrap_or(NONE);
        let mut owners: HashMap<usize, usize> = HashMap::new();
        let mut held: HashSet<usize> = HashSet::new();
        let mut disputed = HashSet::new();
        for member in &layout.walk {
            for p in &told[*member].0 {
                let Some(other) = owners.insert(*p, *member) else {
                    held.insert(*p);
                    continue;
                };
                match generation(*member).cmp(&generation(other)) {
                    std::cmp::Ordering::Less => {
                        owners.insert(*p, other);
                    }
                    std::cmp::Ordering::Equal => {
                        disputed.insert(*p);
                        held.remove(p);
                    }
                    std::cmp::Ordering::Greater => {
                        held.insert(*p);
                    }
                }
            }
        }
        let mut owned = vec![Vec::new(); layout.members.len()];
        for p in held {
            if let Some(owner) = owners.get(&p) {
                owned[*owner].push(p);
            }
        }
        let newest = told.iter().map(|(_, generation)| generation.unwrap_or(NONE)).fold(NONE, i32::max);
        Self { owned, disputed, told, newest }
    }

    /// How many partitions have an owner.
    fn held(&self) -> usize {
        self.owned.iter().map(Vec::len).sum()
    }
}

/// Whether all members read the same topics.
fn are_equal(layout: &Layout<'_>) -> bool {
    let mut topics = layout.members.iter().map(|m| m.subscription.topics.iter().collect::<BTreeSet<_>>());
    let first = topics.next();
    topics.all(|other| Some(other) == first)
}

/// The partitions that go to one member while another still owns them.
fn find_moving(layout: &Layout<'_>, assigned: &Assigned) -> HashSet<usize> {
    let mut added = HashSet::new();
    let mut revoked = HashSet::new();
    for (member, partitions) in layout.members.iter().zip(assigned) {
        let owned: HashSet<usize> =
            member.subscription.owned.iter().filter_map(|place| layout.find(place)).collect();
        let partitions: HashSet<usize> = partitions.iter().copied().collect();
        added.extend(partitions.difference(&owned).copied());
        revoked.extend(owned.difference(&partitions).copied());
    }
    added.intersection(&revoked).copied().collect()
}
