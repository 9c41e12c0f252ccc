//! Which broker coordinates a group or a transactional id.
//!
//! The real broker keeps both in partitions of inner topics and the partition's leader coordinates. Here each key goes
//! to the alive broker with the highest hash of (key, broker): when a broker dies, only its own keys move; when it is
//! back, they return. A key may also be moved by hand.

use std::collections::BTreeMap;

use kafka_protocol::protocol::StrBytes;

use crate::NodeId;

/// What is coordinated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::embedded::kafka) enum Coordinated {
    /// A group, by its id.
    Group,
    /// A transactional producer, by its transactional id.
    Transaction,
}

/// Keys that were moved by hand, at most [`MOVED`](Self::MOVED) of them.
#[derive(Debug, Default)]
pub(in crate::embedded::kafka) struct Coordinators {
    moved: BTreeMap<(Coordinated, StrBytes), NodeId>,
}

impl Coordinators {
    /// Keys that may be moved by hand.
    pub(in crate::embedded::kafka) const MOVED: usize = 10_000;

    /// The coordinator of `key` among the brokers that are alive; `None` where none is.
    pub(in crate::embedded::kafka) fn find(
        &self,
        kind: Coordinated,
        key: &StrBytes,
        mut alive: impl Iterator<Item = NodeId> + Clone,
    ) -> Option<NodeId> {
        if !self.moved.is_empty()
            && let Some(node) = self.moved.get(&(kind, key.clone()))
            && alive.clone().any(|n| n == *node)
        {
            return Some(*node);
        }
        let first = alive.next()?;
        let seed = hash(kind, key);
        let weight = |node: NodeId| mix(seed ^ mix(u64::from(node.0.unsigned_abs())));
        Some(alive.fold(first, |best, node| if weight(node) > weight(best) { node } else { best }))
    }

    /// Moves a key to a broker; while that broker is dead, the hash decides. `false` where too many were moved.
    pub(in crate::embedded::kafka) fn move_to(
        &mut self,
        kind: Coordinated,
        key: StrBytes,
        node: NodeId,
    ) -> bool {
        if self.moved.len() >= Self::MOVED && !self.moved.contains_key(&(kind, key.clone())) {
            return false;
        }
        self.moved.insert((kind, key), node);
        true
    }
}

/// FNV-1a.
fn hash(kind: Coordinated, key: &str) -> u64 {
    let first = match kind {
        Coordinated::Group => 0,
        Coordinated::Transaction => 1,
    };
    let bytes = std::iter::once(first).chain(key.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The finish of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> StrBytes {
        StrBytes::from_string(format!("group-{n}"))
    }

    fn find(c: &Coordinators, n: usize, alive: &[i32]) -> i32 {
        c.find(Coordinated::Group, &key(n), alive.iter().map(|n| NodeId(*n))).unwrap().0
    }

    #[test]
    fn every_broker_coordinates_some_groups_and_a_death_moves_only_its_own() {
        let c = Coordinators::default();
        let mut counts = [0; 4];
        for n in 0..300 {
            let before = find(&c, n, &[1, 2, 3]);
            counts[usize::try_from(before).unwrap()] += 1;
            let after = find(&c, n, &[1, 3]);
            assert!(after == before || before == 2, "group {n} moved from {before} to {after}");
            assert_ne!(after, 2);
        }
        assert!(counts[1..].iter().all(|n| *n > 60), "{counts:?}");
    }

    #[test]
    fn a_key_moved_by_hand_stays_there_while_that_broker_lives() {
        let mut c = Coordinators::default();
        let from = find(&c, 1, &[1, 2, 3]);
        let to = from % 3 + 1;
        assert!(c.move_to(Coordinated::Group, key(1), NodeId(to)));
        assert_eq!(find(&c, 1, &[1, 2, 3]), to);
        let others: Vec<i32> = (1..=3).filter(|n| *n != to).collect();
        assert_ne!(find(&c, 1, &others), to);
        assert_eq!(c.find(Coordinated::Group, &key(1), std::iter::empty()), None);
    }
}
