//! Retention, compaction and forgotten producers, of all partitions: on demand, and every five minutes
//! (`log.retention.check.interval.ms`).
//!
//! By the timer, a compacted topic is compacted once `min.cleanable.dirty.ratio` of it is new.

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::configs::TopicConfig;
use super::log::Policy;

const INTERVAL: Duration = Duration::from_secs(300);
/// `producer.id.expiration.ms`.
const PRODUCER_EXPIRY_MS: i64 = 24 * 3600 * 1000;

fn policy(config: &TopicConfig) -> Policy {
    Policy {
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        delete_retention_ms: config.delete_retention_ms,
        min_compaction_lag_ms: config.min_compaction_lag_ms,
    }
}

impl Cluster {
    /// When the logs are looked through next.
    pub(super) fn next_cleaning(&self) -> Option<Instant> {
        (!self.topics.is_empty()).then_some(self.cleaned + INTERVAL)
    }

    /// Looks through the logs where it is time to.
    pub(super) fn clean_due(&mut self, now: Instant) {
        if self.next_cleaning().is_none_or(|due| due > now) {
            return;
        }
        self.cleaned = now;
        let expired = self.wall(now).0.saturating_sub(PRODUCER_EXPIRY_MS);
        self.topics.change_all(|_, _, partition, _| partition.log.producers_mut().expire(expired));
        self.run_retention(now);
        self.compact(None, false, now);
    }

    /// Deletes what `retention.ms` and `retention.bytes` no longer keep, of topics with `cleanup.policy=delete`. Gives
    /// the number of partitions that lost records.
    pub(crate) fn run_retention(&mut self, now: Instant) -> usize {
        let wall = self.wall(now);
        let mut changed = Vec::new();
        self.topics.change_all(|topic, number, partition, config| {
            if config.delete && partition.log.retain(&policy(config), wall) {
                changed.push((topic.clone(), number));
            }
        });
        for (topic, number) in &changed {
            self.wake_fetches(topic.as_str(), *number, None, now);
        }
        changed.len()
    }

    /// Compacts topics with `cleanup.policy=compact`: the one named or all, however little of it is new where `all` is
    /// true. Gives the number of partitions that lost records.
    pub(crate) fn compact(&mut self, topic: Option<&str>, all: bool, now: Instant) -> usize {
        let wall = self.wall(now);
        let mut changed = 0;
        self.topics.change_all(|name, _, partition, config| {
            let wanted = config.compact && topic.is_none_or(|topic| topic == name.as_str());
            if wanted && (all || partition.log.dirty_ratio() > config.min_dirty_ratio) {
                changed += usize::from(partition.log.compact(&policy(config), wall));
            }
        });
        changed
    }
}
