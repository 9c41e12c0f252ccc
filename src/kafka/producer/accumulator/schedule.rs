//! When partitions are looked at: who is ready for which broker, who lingers, whose time has come. Nothing here walks
//! over all partitions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Instant;

use crate::NodeId;

/// Requests on their way to one broker; the next ones wait in their batches.
pub(super) const MAX_REQUESTS: usize = 5;

/// One broker.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Requests on their way.
    pub(super) in_flight: usize,
    /// The partitions with a batch that may leave now, in turn. One whose leader changed may still stand here.
    pub(super) ready: VecDeque<usize>,
    /// The partitions whose open batch waits for more records.
    lingering: Vec<usize>,
    /// The broker asked to be spared until then (KIP-219).
    pub(super) muted_until: Option<Instant>,
}

impl Node {
    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.in_flight < MAX_REQUESTS && self.muted_until.is_none_or(|at| at <= now)
    }
}

/// The brokers, and the timers of the partitions.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Until when the driver sleeps: it must be woken for what is earlier.
    asleep_until: Option<Instant>,
}

impl Schedule {
    /// Whether nothing is on its way to the broker.
    pub(super) fn is_idle(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_none_or(|n| n.in_flight == 0)
    }

    /// The partition has a batch for the broker. Whether the driver can do something about it now.
    pub(super) fn list(&mut self, queue: usize, node: NodeId) -> bool {
        let node = self.nodes.entry(node).or_default();
        node.ready.push_back(queue);
        node.in_flight < MAX_REQUESTS
    }

    pub(super) fn linger(&mut self, queue: usize, node: NodeId) {
        self.nodes.entry(node).or_default().lingering.push(queue);
    }

    /// The partitions that wait no longer, as the broker has nothing else to do.
    pub(super) fn take_lingering(&mut self, node: NodeId) -> Vec<usize> {
        self.nodes.get_mut(&node).map(|n| std::mem::take(&mut n.lingering)).unwrap_or_default()
    }

    /// All of them.
    pub(super) fn take_all_lingering(&mut self) -> Vec<usize> {
        self.nodes.values_mut().flat_map(|n| std::mem::take(&mut n.lingering)).collect()
    }

    /// Looks at the partition at that time. Whether the driver sleeps longer than that.
    pub(super) fn set_timer(&mut self, queue: usize, at: Instant) -> bool {
        self.timers.push(Reverse((at, queue)));
        self.asleep_until.is_none_or(|until| at < until)
    }

    /// A partition whose time has come, and the time.
    pub(super) fn poll_timer(&mut self, now: Instant) -> Option<(Instant, usize)> {
        let Reverse(first) = *self.timers.peek()?;
        if first.0 > now {
            return None;
        }
        self.timers.pop();
        Some(first)
    }

    /// When something is to be done without anything happening.
    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let spared = self.nodes.values().filter(|n| !n.ready.is_empty()).filter_map(|n| n.muted_until);
        self.asleep_until = spared.filter(|at| *at > now).chain(timer).min();
        self.asleep_until
    }
}
