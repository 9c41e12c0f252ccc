//! Fetches that wait for records: found by partition when something is appended, by time when it runs out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use kafka_protocol::messages::FetchRequest;

use super::{Ask, attempt};
use crate::Topic;
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::machine::ConnectionId;

#[derive(Debug)]
struct Entry {
    ask: Ask,
    deadline: Instant,
    /// Bytes that must be appended before there can be enough.
    missing: u64,
}

/// All fetches that wait, at most one of each connection.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    entries: BTreeMap<ConnectionId, Entry>,
    by_partition: BTreeMap<Topic, BTreeMap<i32, BTreeSet<ConnectionId>>>,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
}

impl Waiting {
    /// When the first one has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(super) fn wait(&mut self, connection: ConnectionId, ask: Ask, deadline: Instant, missing: u64) {
        self.remove(connection);
        for target in &ask.targets {
            if let Some(topic) = &target.topic {
                let partitions = self.by_partition.entry(topic.clone()).or_default();
                partitions.entry(target.partition).or_default().insert(connection);
            }
        }
        self.deadlines.insert((deadline, connection));
        self.entries.insert(connection, Entry { ask, deadline, missing });
    }

    /// The connection waits no more.
    pub(crate) fn remove(&mut self, connection: ConnectionId) -> Option<Ask> {
        let entry = self.entries.remove(&connection)?;
        self.deadlines.remove(&(entry.deadline, connection));
        for target in &entry.ask.targets {
            let Some(topic) = &target.topic else { continue };
            let Some(partitions) = self.by_partition.get_mut(topic) else { continue };
            if let Some(waiting) = partitions.get_mut(&target.partition) {
                waiting.remove(&connection);
                if waiting.is_empty() {
                    partitions.remove(&target.partition);
                }
            }
            if partitions.is_empty() {
                self.by_partition.remove(topic);
            }
        }
        Some(entry.ask)
    }

    /// Those that may have enough now. `bytes` were appended; `None`: something else changed.
    fn touched(&mut self, topic: &str, partition: i32, bytes: Option<u64>) -> Vec<ConnectionId> {
        let Some(waiting) = self.by_partition.get(topic).and_then(|partitions| partitions.get(&partition))
        else {
            return Vec::new();
        };
        let entries = &mut self.entries;
        let ready = waiting.iter().filter(|connection| match (entries.get_mut(connection), bytes) {
            (Some(entry), Some(bytes)) => {
                entry.missing = entry.missing.saturating_sub(bytes);
                entry.missing == 0
            }
            (Some(_), None) => true,
            (None, _) => false,
        });
        ready.copied().collect()
    }
}

impl Cluster {
    /// Something changed in a partition: `bytes` were appended, or (`None`) its leader, its stable offset, its start.
    /// Fetches that wait for it are answered where there is enough.
    pub(crate) fn wake_fetches(&mut self, topic: &str, partition: i32, bytes: Option<u64>, now: Instant) {
        let _ = now;
        for connection in self.fetches.touched(topic, partition, bytes) {
            self.try_fetch(connection, false);
        }
    }

    /// Answers the fetches that waited long enough.
    pub(crate) fn end_fetches(&mut self, now: Instant) {
        while let Some((_, connection)) = self.fetches.deadlines.first().filter(|(at, _)| *at <= now).copied()
        {
            self.try_fetch(connection, true);
        }
    }

    fn try_fetch(&mut self, connection: ConnectionId, must: bool) {
        let Some(entry) = self.fetches.entries.get(&connection) else { return };
        match attempt(self, &entry.ask, must) {
            Ok(ready) => {
                let Some(ask) = self.fetches.remove(connection) else { return };
                let body = ready.settle(self, &ask);
                self.answer_encoded::<FetchRequest>(connection, body);
            }
            Err(missing) => {
                if let Some(entry) = self.fetches.entries.get_mut(&connection) {
                    entry.missing = missing;
                }
            }
        }
    }
}
