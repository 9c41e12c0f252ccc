//! Who leads what, and when to ask again. Pure.
//!
//! A view is only as good as its last answer, and answers may come from a broker that lags behind: a partition's
//! leader is replaced only by one of the same or a higher leader epoch (KIP-320), unless the topic was made anew
//! (another topic id, KIP-516) or the broker tells no epochs. A broker that refuses a request because it is not the
//! leader may name the right one (KIP-951); its word counts as an answer's would, if its epoch is newer.
//!
//! Asking is rationed: after an answer the next question waits [`MIN_WAIT`], and longer, up to [`MAX_WAIT`], each time
//! that an answer did not bring what was missing.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::wire::Address;
use crate::{LeaderEpoch, NodeId, Partition, Topic};

/// The shortest time between two questions.
pub(crate) const MIN_WAIT: Duration = Duration::from_millis(50);
/// The longest time between two questions while something is missing.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(1);

/// One partition as a metadata answer tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionView {
    pub(crate) leader: Option<NodeId>,
    pub(crate) epoch: LeaderEpoch,
}

/// One topic as a metadata answer tells it.
#[derive(Debug, Clone)]
pub(crate) struct TopicUpdate {
    pub(crate) topic: Topic,
    pub(crate) id: Uuid,
    /// The broker's error code, 0 for none.
    pub(crate) error: i16,
    pub(crate) partitions: Vec<(Partition, PartitionView)>,
}

/// What is known of a topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicView {
    id: Uuid,
    /// The error code of the last answer, 0 for none.
    pub(crate) error: i16,
    /// By partition number, without gaps.
    pub(crate) partitions: Vec<PartitionView>,
}

/// The client's view of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    brokers: BTreeMap<NodeId, Address>,
    topics: HashMap<Topic, TopicView>,
    asked: Option<Instant>,
    fruitless: u32,
    generation: u64,
    failures: u64,
    /// Counts what was taken in, from answers to questions and to other requests.
    changes: u64,
}

impl Cluster {
    /// Takes an answer. `brokers` replaces the known ones unless it is empty.
    pub(crate) fn handle_metadata(
        &mut self,
        brokers: BTreeMap<NodeId, Address>,
        topics: Vec<TopicUpdate>,
        now: Instant,
    ) {
        if !brokers.is_empty() {
            self.brokers = brokers;
        }
        let mut missing = false;
        for update in topics {
            missing |= update.error != 0 || update.partitions.iter().any(|(_, p)| p.leader.is_none());
            self.handle_topic(update);
        }
        self.asked = Some(now);
        self.fruitless = if missing { self.fruitless.saturating_add(1) } else { 0 };
        self.generation += 1;
        self.changes += 1;
    }

    fn handle_topic(&mut self, update: TopicUpdate) {
        let view = self.topics.entry(update.topic).or_insert_with(|| TopicView {
            id: update.id,
            error: 0,
            partitions: Vec::new(),
        });
        view.error = update.error;
        if update.error != 0 && update.partitions.is_empty() {
            // A passing error keeps what was known; the caller sees the error beside it.
            return;
        }
        let anew = view.id != update.id && !update.id.is_nil();
        if anew {
            view.id = update.id;
            view.partitions.clear();
        }
        let mut fresh = update.partitions;
        fresh.sort_by_key(|(partition, _)| *partition);
        for (partition, new) in fresh {
            let Ok(index) = usize::try_from(partition.0) else { continue };
            let count = view.partitions.len();
            match view.partitions.get_mut(index) {
                Some(known) if new.epoch == LeaderEpoch::UNKNOWN || new.epoch >= known.epoch => *known = new,
                Some(_) => {}
                // Partitions are numbered from 0 without gaps; one that leaves a gap makes no sense.
                None if index == count => view.partitions.push(new),
                None => {}
            }
        }
    }

    /// A question failed.
    pub(crate) fn handle_failure(&mut self, now: Instant) {
        self.asked = Some(now);
        self.fruitless = self.fruitless.saturating_add(1);
        self.failures += 1;
    }

    /// Adds a broker that another answer named (a group's coordinator).
    pub(crate) fn handle_broker(&mut self, node: NodeId, address: Address) {
        self.brokers.insert(node, address);
    }

    /// Takes the leader that a broker named when it was not the leader itself (KIP-951), if its epoch is newer than the
    /// known one. Its address must be known: [`handle_broker`](Self::handle_broker) comes first.
    ///
    /// Returns whether the view now has that leader, so that asking for metadata would bring nothing.
    pub(crate) fn handle_leader(
        &mut self,
        topic: &Topic,
        partition: Partition,
        node: NodeId,
        epoch: LeaderEpoch,
    ) -> bool {
        let named = PartitionView { leader: Some(node), epoch };
        let known = usize::try_from(partition.0)
            .ok()
            .and_then(|index| self.topics.get_mut(topic)?.partitions.get_mut(index));
        let Some(known) = known.filter(|_| self.brokers.contains_key(&node)) else { return false };
        // An unknown epoch (-1) is never newer.
        let newer = epoch > known.epoch;
        if newer {
            *known = named;
        }
        let taken = *known == named;
        self.changes += u64::from(newer);
        taken
    }

    /// When the next question may be asked.
    pub(crate) fn poll_ask(&self) -> Option<Instant> {
        let wait = MIN_WAIT.saturating_mul(1 << self.fruitless.min(10)).min(MAX_WAIT);
        self.asked.map(|at| at + wait)
    }

    /// Counts answers: a waiter sees by it whether somebody else asked meanwhile.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Goes up with whatever may have changed a leader.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// How many questions were asked so far.
    pub(crate) fn questions(&self) -> u64 {
        self.generation + self.failures
    }

    pub(crate) fn topic(&self, topic: &Topic) -> Option<&TopicView> {
        self.topics.get(topic)
    }

    pub(crate) fn partition(&self, topic: &Topic, partition: Partition) -> Option<PartitionView> {
        let index = usize::try_from(partition.0).ok()?;
        self.topics.get(topic)?.partitions.get(index).copied()
    }

    /// The leader, if one is known.
    pub(crate) fn leader(&self, topic: &Topic, partition: Partition) -> Option<NodeId> {
        self.partition(topic, partition)?.leader
    }

    pub(crate) fn address(&self, node: NodeId) -> Option<&Address> {
        self.brokers.get(&node)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (NodeId, &Address)> {
        self.brokers.iter().map(|(node, address)| (*node, address))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a start for the test's own clock")]
mod tests {
    use super::*;

    fn topic() -> Topic {
        Topic::new("t").unwrap()
    }

    fn update(id: u128, partitions: &[(i32, i32, i32)]) -> TopicUpdate {
        TopicUpdate {
            topic: topic(),
            id: Uuid::from_u128(id),
            error: 0,
            partitions: partitions
                .iter()
                .map(|&(p, leader, epoch)| {
                    let leader = (leader >= 0).then_some(NodeId(leader));
                    (Partition(p), PartitionView { leader, epoch: LeaderEpoch(epoch) })
                })
                .collect(),
        }
    }

    fn feed(cluster: &mut Cluster, update: TopicUpdate) {
        cluster.handle_metadata(BTreeMap::new(), vec![update], Instant::now());
    }

    #[test]
    fn an_answer_from_a_lagging_broker_does_not_bring_an_old_leader_back() {
        let mut c = Cluster::default();
        feed(&mut c, update(1, &[(1, 2, 6), (0, 1, 5)]));
        feed(&mut c, update(1, &[(0, 9, 4), (1, 3, 7)]));
        assert_eq!(c.leader(&topic(), Partition(0)), Some(NodeId(1)));
        assert_eq!(c.leader(&topic(), Partition(1)), Some(NodeId(3)));
        feed(&mut c, update(1, &[(0, 8, -1)]));
        assert_eq!(c.leader(&topic(), Partition(0)), Some(NodeId(8)), "a broker without epochs is believed");
    }

    #[test]
    fn a_topic_made_anew_starts_over_with_its_epochs() {
        let mut c = Cluster::default();
        feed(&mut c, update(1, &[(0, 1, 50), (1, 1, 50)]));
        feed(&mut c, update(2, &[(0, 2, 0)]));
        assert_eq!(c.leader(&topic(), Partition(0)), Some(NodeId(2)));
        assert_eq!(c.topic(&topic()).unwrap().partitions.len(), 1);
    }

    #[test]
    fn a_passing_error_keeps_what_was_known() {
        let mut c = Cluster::default();
        feed(&mut c, update(1, &[(0, 1, 1)]));
        feed(&mut c, TopicUpdate { error: 5, partitions: vec![], ..update(0, &[]) });
        assert_eq!(c.leader(&topic(), Partition(0)), Some(NodeId(1)));
        assert_eq!(c.topic(&topic()).unwrap().error, 5);
    }

    #[test]
    fn numbers_that_make_no_sense_are_left_out() {
        let mut c = Cluster::default();
        feed(&mut c, update(1, &[(-3, 1, 1), (0, 1, 1), (i32::MAX, 1, 1)]));
        assert_eq!(c.topic(&topic()).unwrap().partitions.len(), 1);
    }

    fn address(port: u16) -> Address {
        Address { host: "h".to_owned(), port }
    }

    #[test]
    fn a_leader_named_in_a_refusal_is_taken_if_its_epoch_is_newer() {
        let mut c = Cluster::default();
        feed(&mut c, update(1, &[(0, 1, 5), (1, -1, 3)]));
        let at = |p| (topic(), Partition(p));
        let mut named = |(t, p): (Topic, Partition), node, epoch| {
            let taken = c.handle_leader(&t, p, NodeId(node), LeaderEpoch(epoch));
            (taken, c.leader(&t, p))
        };
        assert_eq!(named(at(0), 2, 6), (false, Some(NodeId(1))), "an address is missing");
        c.handle_broker(NodeId(2), address(2));
        c.handle_broker(NodeId(3), address(3));
        let mut named = |(t, p): (Topic, Partition), node, epoch| {
            let taken = c.handle_leader(&t, p, NodeId(node), LeaderEpoch(epoch));
            (taken, c.leader(&t, p))
        };
        assert_eq!(
            named(at(0), 2, 5),
            (false, Some(NodeId(1))),
            "two leaders of one epoch: the known one stays"
        );
        assert_eq!(named(at(0), 2, -1), (false, Some(NodeId(1))), "a leader without an epoch");
        assert_eq!(named(at(0), 2, 6), (true, Some(NodeId(2))));
        assert_eq!(named(at(0), 2, 6), (true, Some(NodeId(2))), "said twice");
        assert_eq!(named(at(0), 3, 4), (false, Some(NodeId(2))), "a broker that lags behind");
        assert_eq!(named(at(1), 3, 4), (true, Some(NodeId(3))), "a partition without a leader gets one");
        assert_eq!(named(at(2), 3, 9), (false, None), "a partition that is not known");
        assert_eq!(named(at(-1), 3, 9), (false, None));
        assert_eq!(named((Topic::new("other").unwrap(), Partition(0)), 3, 9), (false, None));
        // An older answer does not bring the old leader back; a newer one counts again.
        feed(&mut c, update(1, &[(0, 1, 5)]));
        assert_eq!(c.leader(&topic(), Partition(0)), Some(NodeId(2)));
        feed(&mut c, update(1, &[(0, 3, 7)]));
        assert_eq!(c.leader(&topic(), Partition(0)), Some(NodeId(3)));
    }

    #[test]
    fn questions_are_rationed_and_the_wait_grows_while_something_is_missing() {
        let mut c = Cluster::default();
        assert_eq!(c.poll_ask(), None, "the first may be asked at once");
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..8 {
            c.handle_metadata(BTreeMap::new(), vec![update(1, &[(0, -1, 1)])], now);
            let at = c.poll_ask().unwrap();
            waits.push(at - now);
            now = at;
        }
        assert!(waits.is_sorted() && waits[0] > MIN_WAIT && waits[7] == MAX_WAIT, "{waits:?}");
        c.handle_metadata(BTreeMap::new(), vec![update(1, &[(0, 1, 2)])], now);
        assert_eq!(c.poll_ask().unwrap() - now, MIN_WAIT);
    }
}
