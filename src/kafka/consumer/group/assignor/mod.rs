//! How the leader of a classic group spreads the partitions of the members' topics over them. Pure, and the same for the
//! same input.
//!
//! ```text
//! layout        members, topics and partitions by number, racks
//! range, round_robin
//! sticky        who owned what; equal subscriptions, unequal ones; what is withheld until its owner let go
//! hash_order    the orders in which Java walks through its hash maps
//! ```
//!
//! Each gives what the Java client's assignor of that name gives, member by member, so that it does not matter which
//! client leads a group: `tests/data/assignors` has what Java gave. Where Java's outcome depends on the order of a hash
//! map, that order is followed. It is left where Java's result would be wrong:
//!
//! - A partition that does not exist (its topic was made anew with fewer) is nobody's, whoever claims it.
//! - A member that reads no topics gets nothing. Java gives it partitions if it comes first and the others agree.
//! - A topic or a partition that a member names twice counts once.
//! - Claims to the same partition are weighed by the generations that the assignor goes by. Java weighs the earlier
//!   claimant by a field that members of older versions do not have.
//! - A partition does not go back to a former owner that does not read its topic any more.
//! - `cooperative-sticky` takes a partition from an owner that is not in its racks only where all partitions have owners, and
//!   only if more of them get near a member by it. Java takes all of those in every round, and some groups never rest.
//! - Members with unequal subscriptions: partitions go back and forth at most as often as there are partitions. Of Java it
//!   is not known that it always comes to an end.
//!
//! Topics that are not known are passed over.

mod hash_order;
mod layout;
mod range;
mod round_robin;
mod sticky;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::protocol::Subscription;
use crate::Topic;
use crate::kafka::offsets::Place;
use layout::Layout;

/// How a classic group spreads its partitions over its members. One of them, the leader, does it for all; the group uses
/// an assignor that every member offers.
///
/// All but [`RoundRobin`](Self::RoundRobin) prefer to place a partition with a member in the rack of one of its replicas,
/// where racks are known and not all partitions are in all of them (KIP-881). Balance goes first.
///
/// Memory while assigning: about a hundred bytes a partition and what the members' subscriptions take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Assignor {
    /// `range`: of each topic, every member gets a run of neighbours; the same numbers of all topics, where those have
    /// equally many partitions and readers. Members that come first get more. Eager: a rebalance takes all partitions
    /// from all members first.
    Range,
    /// `roundrobin`: all partitions of all topics are dealt out in turn. Eager.
    RoundRobin,
    /// `sticky`: as balanced as can be, and what may stay stays (KIP-54, KIP-341). Eager: all members pause all the same.
    Sticky,
    /// `cooperative-sticky`: as `sticky`, but members keep reading through a rebalance what stays theirs; what moves is
    /// given out in the next one, when its owner has let go of it (KIP-429).
    CooperativeSticky,
}

impl Assignor {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Range, Self::RoundRobin, Self::Sticky, Self::CooperativeSticky];

    /// The name that the members of a group agree on: Java's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
            Self::Sticky => "sticky",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// The assignor of that name. `None` where there is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// Whether members keep their partitions through a rebalance.
    #[must_use]
    pub const fn is_cooperative(self) -> bool {
        matches!(self, Self::CooperativeSticky)
    }

    /// What a member tells the leader beside its subscription: its last assignment, and the generation of it, -1 without.
    pub(crate) fn user_data(self, owned: &[Place], generation: i32) -> Option<Bytes> {
        match self {
            Self::Range | Self::RoundRobin => None,
            Self::Sticky => (generation >= 0).then(|| sticky::user_data(owned, generation)),
            Self::CooperativeSticky => Some(Bytes::copy_from_slice(&generation.to_be_bytes())),
        }
    }

    /// Who gets what: every member is named, its partitions are sorted.
    pub(crate) fn assign(
        self,
        members: &[Member],
        topics: &BTreeMap<Topic, TopicShape>,
    ) -> BTreeMap<String, Vec<Place>> {
        let layout = Layout::new(members, topics);
        let assigned = match self {
            Self::Range => range::assign(&layout),
            Self::RoundRobin => round_robin::assign(&layout),
            Self::Sticky | Self::CooperativeSticky => sticky::assign(&layout, self),
        };
        layout.name(assigned)
    }
}

/// A member, as the coordinator tells the leader of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    /// The instance of a static member (KIP-345).
    pub(crate) instance: Option<String>,
    pub(crate) subscription: Subscription,
}

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TopicShape {
    pub(crate) partitions: usize,
    /// The racks of each partition's replicas; empty where none is known.
    pub(crate) racks: Vec<Vec<String>>,
}

#[cfg(test)]
mod tests;
