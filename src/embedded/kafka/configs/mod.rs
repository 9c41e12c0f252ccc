//! The configuration of topics (and, in `broker`, of brokers): names, kinds, defaults and synonyms as in Apache Kafka 4.3, and what of it has effect.
//!
//! Effective: `cleanup.policy`, `compression.type` (`producer` only; others are kept and shown, the batches stay as
//! their producers packed them), `delete.retention.ms`, `max.message.bytes`, `message.timestamp.*`,
//! `min.cleanable.dirty.ratio`, `min.compaction.lag.ms`, `min.insync.replicas`, `retention.bytes`, `retention.ms`,
//! `segment.bytes` (as a batch's limit), `unclean.leader.election.enable`. All others are checked, kept and shown.

pub(crate) mod broker;

use std::collections::BTreeMap;

/// What values a configuration takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Boolean,
    Int(i64),
    Long(i64),
    /// From 0 to 1.
    Ratio,
    Text(&'static [&'static str]),
    List(&'static [&'static str]),
}

impl Kind {
    /// `ConfigType` of DescribeConfigs.
    pub(crate) fn number(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::Text(_) => 2,
            Self::Int(_) => 3,
            Self::Long(_) => 5,
            Self::Ratio => 6,
            Self::List(_) => 7,
        }
    }
}

/// A configuration of topics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) kind: Kind,
    /// The broker's configuration of the same meaning; empty where DescribeConfigs shows none.
    pub(crate) synonym: &'static str,
}

const fn known(name: &'static str, default: &'static str, kind: Kind, synonym: &'static str) -> Known {
    Known { name, default, kind, synonym }
}

const ANY: &[&str] = &[];
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// All configurations of topics, by name.
#[rustfmt::skip]
pub(crate) const TOPIC: &[Known] = &[
    known("cleanup.policy", "delete", Kind::List(&["compact", "delete"]), "log.cleanup.policy"),
    known("compression.gzip.level", "-1", Kind::Int(-1), "compression.gzip.level"),
    known("compression.lz4.level", "9", Kind::Int(1), "compression.lz4.level"),
    known("compression.type", "producer", Kind::Text(CODECS), "compression.type"),
    known("compression.zstd.level", "3", Kind::Int(-131_072), "compression.zstd.level"),
    known("delete.retention.ms", "86400000", Kind::Long(0), "log.cleaner.delete.retention.ms"),
    known("file.delete.delay.ms", "60000", Kind::Long(0), "log.segment.delete.delay.ms"),
    known("flush.messages", "9223372036854775807", Kind::Long(1), "log.flush.interval.messages"),
    known("flush.ms", "9223372036854775807", Kind::Long(0), ""),
    known("follower.replication.throttled.replicas", "", Kind::List(ANY), ""),
    known("index.interval.bytes", "4096", Kind::Int(0), "log.index.interval.bytes"),
    known("leader.replication.throttled.replicas", "", Kind::List(ANY), ""),
    known("local.retention.bytes", "-2", Kind::Long(-2), "log.local.retention.bytes"),
    known("local.retention.ms", "-2", Kind::Long(-2), "log.local.retention.ms"),
    known("max.compaction.lag.ms", "9223372036854775807", Kind::Long(1), "log.cleaner.max.compaction.lag.ms"),
    known("max.message.bytes", "1048588", Kind::Int(0), "message.max.bytes"),
    known("message.timestamp.after.max.ms", "3600000", Kind::Long(0), "log.message.timestamp.after.max.ms"),
    known("message.timestamp.before.max.ms", "9223372036854775807", Kind::Long(0), "log.message.timestamp.before.max.ms"),
    known("message.timestamp.type", "CreateTime", Kind::Text(&["CreateTime", "LogAppendTime"]), "log.message.timestamp.type"),
    known("min.cleanable.dirty.ratio", "0.5", Kind::Ratio, "log.cleaner.min.cleanable.ratio"),
    known("min.compaction.lag.ms", "0", Kind::Long(0), "log.cleaner.min.compaction.lag.ms"),
    known("min.insync.replicas", "1", Kind::Int(1), "min.insync.replicas"),
    known("preallocate", "false", Kind::Boolean, "log.preallocate"),
    known("remote.log.copy.disable", "false", Kind::Boolean, ""),
    known("remote.log.delete.on.disable", "false", Kind::Boolean, ""),
    known("remote.storage.enable", "false", Kind::Boolean, ""),
    known("retention.bytes", "-1", Kind::Long(-1), "log.retention.bytes"),
    known("retention.ms", "604800000", Kind::Long(-1), ""),
    known("segment.bytes", "1073741824", Kind::Int(1_048_576), "log.segment.bytes"),
    known("segment.index.bytes", "10485760", Kind::Int(4), "log.index.size.max.bytes"),
    known("segment.jitter.ms", "0", Kind::Long(0), ""),
    known("segment.ms", "604800000", Kind::Long(1), ""),
    known("unclean.leader.election.enable", "false", Kind::Boolean, "unclean.leader.election.enable"),
];

/// The configuration of this name.
pub(crate) fn topic_config(name: &str) -> Option<&'static Known> {
    TOPIC.binary_search_by(|known| known.name.cmp(name)).ok().and_then(|i| TOPIC.get(i))
}

/// Does the value fit?
///
/// # Errors
/// As the real broker words it.
pub(crate) fn check(known: &Known, value: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("Invalid value {value} for configuration {}: {why}", known.name));
    let number = |least: i64, most: i64, kind: &str| match value.trim().parse::<i64>() {
        Ok(n) if n < least => bad(&format!("Value must be at least {least}")),
        Ok(n) if n > most => bad(&format!("Not a number of type {kind}")),
        Ok(_) => Ok(()),
        Err(_) => bad(&format!("Not a number of type {kind}")),
    };
    match known.kind {
        Kind::Boolean if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => Ok(()),
        Kind::Boolean => bad("Expected value to be either true or false"),
        Kind::Int(least) => number(least, i64::from(i32::MAX), "INT"),
        Kind::Long(least) => number(least, i64::MAX, "LONG"),
        Kind::Ratio => match value.trim().parse::<f64>() {
            Ok(n) if (0.0..=1.0).contains(&n) => Ok(()),
            Ok(n) if n < 0.0 => bad("Value must be at least 0"),
            Ok(_) => bad("Value must be no more than 1"),
            Err(_) => bad("Not a number of type DOUBLE"),
        },
        Kind::Text(choices) if choices.contains(&value) => Ok(()),
        Kind::Text(choices) => bad(&format!("String must be one of: {}", choices.join(", "))),
        Kind::List([]) => Ok(()),
        Kind::List(choices) => {
            if list(value).all(|item| choices.contains(&item)) {
                Ok(())
            } else {
                bad(&format!("String must be one of: {}", choices.join(", ")))
            }
        }
    }
}

/// The items of a list.
pub(crate) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// A topic's configuration.
#[derive(Debug, Clone)]
pub(crate) struct TopicConfig {
    /// What was set for this topic.
    set: BTreeMap<&'static str, String>,
    pub(crate) compact: bool,
    pub(crate) delete: bool,
    pub(crate) retention_ms: i64,
    pub(crate) retention_bytes: i64,
    pub(crate) delete_retention_ms: i64,
    pub(crate) min_compaction_lag_ms: i64,
    pub(crate) min_dirty_ratio: f64,
    pub(crate) max_message_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) append_time: bool,
    pub(crate) before_max_ms: i64,
    pub(crate) after_max_ms: i64,
    pub(crate) min_insync: usize,
    pub(crate) unclean_election: bool,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::from_set(BTreeMap::new())
    }
}

impl TopicConfig {
    /// The configuration with these values, all others being the defaults.
    ///
    /// # Errors
    /// A name that is not known, or a value that does not fit, in the real broker's words.
    pub(crate) fn new<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut set = BTreeMap::new();
        for (name, value) in values {
            let known = topic_config(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?;
            check(known, value)?;
            set.insert(known.name, value.to_owned());
        }
        Ok(Self::from_set(set))
    }

    /// What was set, by name.
    pub(crate) fn set(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.set.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The value that was set.
    pub(crate) fn get_set(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(String::as_str)
    }

    /// The value that counts.
    pub(crate) fn get(&self, known: &Known) -> &str {
        self.get_set(known.name).unwrap_or(known.default)
    }

    fn from_set(set: BTreeMap<&'static str, String>) -> Self {
        let text = |name: &str| -> String {
            let default = || topic_config(name).map_or("", |known| known.default);
            set.get(name).map_or_else(default, String::as_str).to_owned()
        };
        let long = |name: &str| text(name).trim().parse::<i64>().unwrap_or(0);
        let size = |name: &str| u64::try_from(long(name)).unwrap_or(0);
        Self {
            compact: list(&text("cleanup.policy")).any(|policy| policy == "compact"),
            delete: list(&text("cleanup.policy")).any(|policy| policy == "delete"),
            retention_ms: long("retention.ms"),
            retention_bytes: long("retention.bytes"),
            delete_retention_ms: long("delete.retention.ms"),
            min_compaction_lag_ms: long("min.compaction.lag.ms"),
            min_dirty_ratio: text("min.cleanable.dirty.ratio").trim().parse().unwrap_or(0.5),
            max_message_bytes: size("max.message.bytes"),
            segment_bytes: size("segment.bytes"),
            append_time: text("message.timestamp.type") == "LogAppendTime",
            before_max_ms: long("message.timestamp.before.max.ms"),
            after_max_ms: long("message.timestamp.after.max.ms"),
            min_insync: usize::try_from(long("min.insync.replicas")).unwrap_or(1),
            unclean_election: text("unclean.leader.election.enable").eq_ignore_ascii_case("true"),
            set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_fits_and_the_table_is_in_order() {
        for known in TOPIC {
            assert_eq!(check(known, known.default), Ok(()), "{}", known.name);
            assert_eq!(topic_config(known.name).map(|found| found.name), Some(known.name));
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_in_the_real_brokers_words() {
        let refused = |name, value| TopicConfig::new([(name, value)]).unwrap_err();
        assert_eq!(refused("nope", "1"), "Unknown topic config name: nope");
        assert_eq!(
            refused("retention.ms", "-5"),
            "Invalid value -5 for configuration retention.ms: Value must be at least -1"
        );
        assert_eq!(
            refused("retention.ms", "soon"),
            "Invalid value soon for configuration retention.ms: Not a number of type LONG"
        );
        assert!(refused("cleanup.policy", "delete,shred").contains("String must be one of: compact, delete"));
        let both = TopicConfig::new([("cleanup.policy", "compact,delete")]).unwrap();
        assert!(both.compact && both.delete);
    }
}
