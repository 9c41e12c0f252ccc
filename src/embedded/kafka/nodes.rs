//! Brokers: where replicas are placed, who leads, and what happens when one is killed, cut off, or comes back.
//!
//! ```text
//!          kill                              restart
//! Up ----------------> Down (connections cut) ------> Up: its replicas join the ISR again
//!  | isolate                                   heal
//!  +-------> Cut off (connections hang, no byte passes) ---> Up, on the same connections
//!
//! On the way down a broker leaves every ISR but those where it is the last, and each partition that it led gets
//! the first replica of the ISR that is up, else none (or any that is up, with unclean.leader.election.enable).
//! ```
//!
//! This happens at once, where the real cluster notices a dead broker after its session timeout (9 s).

use std::time::Instant;

use super::api::Code;
use super::cluster::Cluster;
use super::log::Refusal;
use super::topics::Partition;
use crate::{NodeId, ProducerEpoch, ProducerId};

impl Cluster {
    /// Brokers that are up and reached by the others, by number.
    pub(crate) fn up(&self) -> Vec<NodeId> {
        self.nodes.values().filter(|node| node.is_up()).map(|node| node.id).collect()
    }

    /// A broker dies: its connections are cut, others lead what it led.
    pub(crate) fn kill(&mut self, node: NodeId, now: Instant) {
        if let Some(state) = self.nodes.get_mut(&node) {
            state.alive = false;
            state.isolated = false;
            self.end_all(node);
            self.sessions.remove(&node);
            self.elect_all(now);
        }
    }

    /// A killed broker comes back, with what it had and what it missed.
    pub(crate) fn revive(&mut self, node: NodeId, now: Instant) {
        if let Some(state) = self.nodes.get_mut(&node) {
            state.alive = true;
            self.elect_all(now);
        }
    }

    /// A broker is cut off: no byte passes its connections, others lead what it led.
    pub(crate) fn isolate(&mut self, node: NodeId, now: Instant) {
        if let Some(state) = self.nodes.get_mut(&node).filter(|state| state.alive) {
            state.isolated = true;
            self.cut_off(node, true);
            self.elect_all(now);
        }
    }

    /// A broker that was cut off is reached again, over the same connections.
    pub(crate) fn rejoin(&mut self, node: NodeId, now: Instant) {
        if let Some(state) = self.nodes.get_mut(&node) {
            state.isolated = false;
            self.cut_off(node, false);
            self.elect_all(now);
        }
    }

    /// Another replica leads a partition. With `lost` above 0, the new leader lacks so many of the last records, as
    /// after an unclean election: they are gone.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION; REPLICA_NOT_AVAILABLE where that broker is no replica, or not up.
    pub(crate) fn move_leader(
        &mut self,
        topic: &str,
        partition: i32,
        to: NodeId,
        lost: i64,
        now: Instant,
    ) -> Result<(), Code> {
        let up = self.up();
        let moved = self.topics.change(topic, partition, |partition, _| {
            if !partition.replicas.contains(&to) || !up.contains(&to) {
                return Err(Code::ReplicaNotAvailable);
            }
            if lost > 0 {
                partition.log.truncate_to(partition.log.end().saturating_sub(lost));
            }
            set_leader(partition, Some(to));
            Ok(())
        });
        moved.unwrap_or(Err(Code::UnknownTopicOrPartition))?;
        self.wake_fetches(topic, partition, None, now);
        Ok(())
    }

    /// All partitions of a topic are led by `to`, or each by the replica after its leader. Where there is no other, the
    /// leader begins a new epoch.
    pub(crate) fn move_leaders(&mut self, topic: &str, to: Option<NodeId>, now: Instant) {
        let Some(state) = self.topics.get(topic) else { return };
        let targets: Vec<_> = (0..)
            .zip(&state.partitions)
            .filter_map(|(number, partition)| {
                let isr = &partition.isr;
                let at = isr.iter().position(|node| Some(*node) == partition.leader)?;
                let next = isr.iter().cycle().nth(at + 1).copied();
                to.filter(|to| isr.contains(to)).or(next).map(|to| (number, to))
            })
            .collect();
        for (number, to) in targets {
            // Both are in the ISR of this moment.
            let _ = self.move_leader(topic, number, to, 0, now);
        }
    }

    /// Ends a producer's transaction in a partition: writes the marker and wakes who waits for it. Gives its offset.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION; LEADER_NOT_AVAILABLE while no broker leads it; else as
    /// [`PartitionLog::append_marker`](super::log::PartitionLog::append_marker).
    #[expect(clippy::too_many_arguments, reason = "a marker has these fields")]
    pub(crate) fn append_marker(
        &mut self,
        topic: &str,
        partition: i32,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        commit: bool,
        coordinator_epoch: i32,
        now: Instant,
    ) -> Result<i64, Refusal> {
        let wall = self.wall(now);
        let unknown = || Refusal::new(Code::UnknownTopicOrPartition, "");
        let appended = self.topics.change(topic, partition, |partition, _| {
            if partition.leader.is_none() {
                return Err(Refusal::new(Code::LeaderNotAvailable, ""));
            }
            let leader_epoch = partition.leader_epoch;
            partition.log.append_marker(producer_id, epoch, commit, coordinator_epoch, leader_epoch, wall)
        });
        let offset = appended.unwrap_or_else(|| Err(unknown()))?;
        self.wake_fetches(topic, partition, None, now);
        Ok(offset)
    }

    /// Gives each partition the leader that it should have, now that brokers came or went.
    pub(crate) fn elect_all(&mut self, now: Instant) {
        let up = self.up();
        let mut changed = Vec::new();
        self.topics.change_all(|topic, number, partition, config| {
            if elect(partition, &up, config.unclean_election) {
                changed.push((topic.clone(), number));
            }
        });
        for (topic, number) in changed {
            self.wake_fetches(topic.as_str(), number, None, now);
        }
        self.handle_coordinators_changed(now);
    }
}

/// Brings a partition's ISR and leader into line with the brokers that are up. True where the leader changed.
fn elect(partition: &mut Partition, up: &[NodeId], unclean: bool) -> bool {
    let is_up = |node: &NodeId| up.contains(node);
    if partition.isr.iter().any(is_up) {
        // Followers that are up have at once what the leader has.
        partition.isr = partition.replicas.iter().copied().filter(is_up).collect();
    } else if unclean && partition.replicas.iter().any(is_up) {
        partition.isr = partition.replicas.iter().copied().filter(is_up).collect();
    } else {
        // The last ones that were in step are waited for.
        return partition.leader.take().is_some_and(|_| {
            partition.leader_epoch += 1;
            true
        });
    }
    if partition.leader.is_some_and(|leader| is_up(&leader)) {
        return false;
    }
    set_leader(partition, partition.isr.first().copied());
    true
}

/// A new leader begins an epoch of its own.
pub(crate) fn set_leader(partition: &mut Partition, leader: Option<NodeId>) {
    partition.before = partition.leader.map(|node| (node, partition.leader_epoch)).or(partition.before);
    partition.leader = leader;
    partition.leader_epoch += 1;
    partition.log.begin_epoch(partition.leader_epoch);
}

#[cfg(test)]
mod tests;
