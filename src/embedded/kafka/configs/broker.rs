//! The configuration of brokers: the part of Apache Kafka 4.3's that clients ask for.
//!
//! What may be changed while a broker runs is checked, kept and shown; none of it changes what the brokers do, except
//! in what they show. What the cluster was started with is shown as its static configuration.

use std::collections::BTreeMap;

use super::{Kind, Known, known};
use crate::NodeId;
use crate::embedded::kafka::cluster::{Cluster, Node};

const ANY: &[&str] = &[];

/// Configurations that may be changed while a broker runs, by name.
#[rustfmt::skip]
pub(crate) const DYNAMIC: &[Known] = &[
    known("compression.type", "producer", Kind::Text(super::CODECS), ""),
    known("group.consumer.assignment.interval.ms", "1000", Kind::Int(0), ""),
    known("log.cleaner.backoff.ms", "15000", Kind::Long(0), ""),
    known("log.cleaner.delete.retention.ms", "86400000", Kind::Long(0), ""),
    known("log.cleaner.max.compaction.lag.ms", "9223372036854775807", Kind::Long(1), ""),
    known("log.cleaner.min.cleanable.ratio", "0.5", Kind::Ratio, ""),
    known("log.cleaner.min.compaction.lag.ms", "0", Kind::Long(0), ""),
    known("log.cleaner.threads", "1", Kind::Int(0), ""),
    known("log.cleanup.policy", "delete", Kind::List(&["compact", "delete"]), ""),
    known("log.flush.interval.messages", "9223372036854775807", Kind::Long(1), ""),
    known("log.index.interval.bytes", "4096", Kind::Int(0), ""),
    known("log.index.size.max.bytes", "10485760", Kind::Int(4), ""),
    known("log.message.timestamp.after.max.ms", "3600000", Kind::Long(0), ""),
    known("log.message.timestamp.before.max.ms", "9223372036854775807", Kind::Long(0), ""),
    known("log.message.timestamp.type", "CreateTime", Kind::Text(&["CreateTime", "LogAppendTime"]), ""),
    known("log.preallocate", "false", Kind::Boolean, ""),
    known("log.retention.bytes", "-1", Kind::Long(-1), ""),
    known("log.retention.ms", "604800000", Kind::Long(-1), ""),
    known("log.roll.ms", "604800000", Kind::Long(1), ""),
    known("log.segment.bytes", "1073741824", Kind::Int(1_048_576), ""),
    known("log.segment.delete.delay.ms", "60000", Kind::Long(0), ""),
    known("max.connections", "2147483647", Kind::Int(0), ""),
    known("max.connections.per.ip", "2147483647", Kind::Int(0), ""),
    known("message.max.bytes", "1048588", Kind::Int(0), ""),
    known("min.insync.replicas", "1", Kind::Int(1), ""),
    known("num.io.threads", "8", Kind::Int(1), ""),
    known("num.network.threads", "3", Kind::Int(1), ""),
    known("num.replica.fetchers", "1", Kind::Int(1), ""),
    known("producer.id.expiration.ms", "86400000", Kind::Int(1), ""),
    known("unclean.leader.election.enable", "false", Kind::Boolean, ""),
];

/// Configurations that a broker is started with, by name; what the cluster's settings decide stands in [`fixed`].
#[rustfmt::skip]
const STATIC: &[Known] = &[
    known("auto.leader.rebalance.enable", "false", Kind::Boolean, ""),
    known("delete.topic.enable", "true", Kind::Boolean, ""),
    known("fetch.max.bytes", "57671680", Kind::Int(1024), ""),
    known("group.coordinator.rebalance.protocols", "classic,consumer", Kind::List(ANY), ""),
    known("log.cleaner.enable", "true", Kind::Boolean, ""),
    known("log.dirs", "/embedded", Kind::Text(ANY), ""),
    known("log.retention.check.interval.ms", "300000", Kind::Long(1), ""),
    known("log.retention.hours", "168", Kind::Int(-1), ""),
    known("max.incremental.fetch.session.cache.slots", "1000", Kind::Int(0), ""),
    known("max.request.partition.size.limit", "2000", Kind::Int(1), ""),
    known("offset.metadata.max.bytes", "4096", Kind::Int(0), ""),
    known("process.roles", "broker,controller", Kind::List(ANY), ""),
    known("transaction.max.timeout.ms", "900000", Kind::Int(1), ""),
];

/// What was changed while the brokers run: by broker, and (`None`) for all that have nothing of their own.
pub(crate) type Changed = BTreeMap<Option<NodeId>, BTreeMap<&'static str, String>>;

/// The configuration of this name, where it may be changed.
pub(crate) fn dynamic(name: &str) -> Option<&'static Known> {
    DYNAMIC.iter().find(|known| known.name == name)
}

/// Is there a configuration of this name that cannot be changed?
pub(crate) fn is_fixed(name: &str) -> bool {
    STATIC.iter().any(|known| known.name == name)
        || matches!(name, "auto.create.topics.enable" | "default.replication.factor" | "num.partitions")
        || matches!(name, "advertised.listeners" | "broker.id" | "broker.rack" | "node.id")
        || name == "socket.request.max.bytes"
}

/// What a broker was started with: name, value, kind, and whether it is the default.
pub(crate) fn fixed(cluster: &Cluster, node: &Node) -> Vec<(&'static str, Option<String>, Kind, bool)> {
    let settings = &cluster.settings;
    let id = node.id.to_string();
    let mut all: Vec<_> =
        STATIC.iter().map(|known| (known.name, Some(known.default.to_owned()), known.kind, true)).collect();
    all.extend([
        (
            "advertised.listeners",
            Some(format!("PLAINTEXT://{}:{}", node.host, node.port)),
            Kind::List(ANY),
            false,
        ),
        (
            "auto.create.topics.enable",
            Some(settings.auto_create_topics.to_string()),
            Kind::Boolean,
            settings.auto_create_topics,
        ),
        ("broker.id", Some(id.clone()), Kind::Int(-1), false),
        ("broker.rack", node.rack.clone(), Kind::Text(ANY), node.rack.is_none()),
        (
            "default.replication.factor",
            Some(cluster.nodes.len().clamp(1, 3).to_string()),
            Kind::Int(1),
            cluster.nodes.len() == 1,
        ),
        ("node.id", Some(id), Kind::Int(0), false),
        (
            "num.partitions",
            Some(settings.default_partitions.to_string()),
            Kind::Int(1),
            settings.default_partitions == 1,
        ),
        ("socket.request.max.bytes", Some(settings.max_request_bytes.to_string()), Kind::Int(1), true),
    ]);
    all.sort_unstable_by_key(|(name, ..)| *name);
    all
}
