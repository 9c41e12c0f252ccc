//! What a change wants of a topic, and whether a look at the topic shows that it was made. Pure.
//!
//! An answer can be lost after the work. Then the topic is looked at:
//!
//! | change | made | not made: sent again | refused for certain | not known |
//! |---|---|---|---|---|
//! | create | there, with the partitions, replicas and settings asked for | not there | the same as before (by its id) | there otherwise |
//! | add partitions | has so many | has fewer | the same, and had as many before | has more |
//! | delete | not there, or another of the same name | there, the same | | no ids are told |
//! | alter settings | | always: the same change made twice is the same | | |

use crate::ErrorKind;

use super::topic::{ConfigSource, NewTopic, TopicConfig, TopicDescription};

/// What a change wants.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim<'a> {
    Create(&'a NewTopic),
    Grow(i32),
    Delete,
    Alter,
}

/// A topic before a change.
#[derive(Debug)]
pub(super) enum Before {
    /// It could not be seen.
    Unknown,
    Absent,
    There(TopicDescription),
}

/// What a look after a lost answer shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Made,
    NotMade,
    /// No broker can have taken it: why.
    Refused(ErrorKind, String),
    /// It does not show: why.
    Unclear(String),
}

impl Aim<'_> {
    /// The right that the change needs.
    pub(super) const fn right(self) -> &'static str {
        match self {
            Self::Create(_) => "Create on the topic or on the cluster",
            Self::Grow(_) => "Alter on the topic",
            Self::Delete => "Delete on the topic",
            Self::Alter => "AlterConfigs on the topic",
        }
    }

    /// What did not happen when it failed for certain.
    pub(super) const fn undone(self) -> &'static str {
        match self {
            Self::Create(_) => "nothing was created",
            Self::Grow(_) => "no partition was added",
            Self::Delete => "nothing was deleted",
            Self::Alter => "no setting was changed",
        }
    }

    /// What may have happened when the answer was lost.
    pub(super) const fn unknown(self) -> &'static str {
        match self {
            Self::Create(_) => "it is not known whether the topic was created, or will be",
            Self::Grow(_) => "it is not known whether the partitions were added, or will be",
            Self::Delete => "it is not known whether the topic was deleted, or will be",
            Self::Alter => "it is not known whether the settings were changed, or will be",
        }
    }

    /// Whether the topic's settings are needed to judge.
    pub(super) fn needs_configs(self) -> bool {
        matches!(self, Self::Create(new) if !new.configs.is_empty())
    }

    /// Judges by the topic as it is now; `configs` where they are needed and could be had.
    pub(super) fn seen(
        self,
        before: &Before,
        now: Option<&TopicDescription>,
        configs: Option<&[TopicConfig]>,
    ) -> Seen {
        match self {
            Self::Create(new) => match (before, now) {
                (_, None) => Seen::NotMade,
                (Before::There(old), Some(now)) if same(old, now) == Some(true) => {
                    Seen::Refused(ErrorKind::Conflict, "the topic was there before".to_owned())
                }
                (Before::There(old), Some(now)) if same(old, now).is_none() => {
                    Seen::Unclear("a topic of this name was there before".to_owned())
                }
                (_, Some(now)) => as_asked(new, now, configs),
            },
            Self::Grow(to) => {
                let count = |topic: &TopicDescription| topic.partitions.len();
                let to = usize::try_from(to).unwrap_or(0);
                match (before, now) {
                    (_, None) => Seen::Unclear("the topic is not there".to_owned()),
                    (Before::There(old), Some(now)) if count(old) >= to && same(old, now) == Some(true) => {
                        let why = format!("the topic had {} partitions before", count(old));
                        Seen::Refused(ErrorKind::Config, why)
                    }
                    (Before::There(old), Some(now)) if count(old) >= to && same(old, now).is_none() => {
                        Seen::Unclear(format!("the topic had {} partitions before", count(old)))
                    }
                    (_, Some(now)) if count(now) == to => Seen::Made,
                    (_, Some(now)) if count(now) < to => Seen::NotMade,
                    (_, Some(now)) => Seen::Unclear(format!("it has {} partitions now", count(now))),
                }
            }
            Self::Delete => match (before, now) {
                (Before::Absent, None) => Seen::Unclear("it was not there before".to_owned()),
                (_, None) => Seen::Made,
                (Before::There(old), Some(now)) if !old.id.is_nil() && !now.id.is_nil() => {
                    if old.id == now.id { Seen::NotMade } else { Seen::Made }
                }
                // A second request could delete what somebody has made anew.
                (_, Some(_)) => Seen::Unclear("a topic of this name is there".to_owned()),
            },
            Self::Alter => Seen::NotMade,
        }
    }
}

/// Whether both are one topic; `None` where the brokers tell no ids (before Kafka 2.8).
fn same(a: &TopicDescription, b: &TopicDescription) -> Option<bool> {
    (!a.id.is_nil() && !b.id.is_nil()).then_some(a.id == b.id)
}

/// Whether a topic is there as it was asked for.
fn as_asked(new: &NewTopic, now: &TopicDescription, configs: Option<&[TopicConfig]>) -> Seen {
    let (partitions, replicas) = (now.partitions.len(), now.replication());
    if new.partitions != -1 && usize::try_from(new.partitions) != Ok(partitions) {
        return Seen::Unclear(format!("it is there with {partitions} partitions"));
    }
    if new.replication != -1 && usize::try_from(new.replication) != Ok(replicas) {
        return Seen::Unclear(format!("it is there with {replicas} replicas"));
    }
    if new.configs.is_empty() {
        return Seen::Made;
    }
    let Some(configs) = configs else {
        return Seen::Unclear("it is there, and its settings could not be seen".to_owned());
    };
    for (name, value) in &new.configs {
        let there = configs.iter().find(|c| c.name == *name && c.source == ConfigSource::Topic);
        if there.and_then(|c| c.value.as_ref()) != Some(value) {
            return Seen::Unclear(format!("it is there with another `{name}`"));
        }
    }
    Seen::Made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::admin::topic::PartitionDescription;
    use crate::{LeaderEpoch, NodeId, Partition, Topic};
    use uuid::Uuid;

    fn topic(id: u128, partitions: i32, replicas: i32) -> TopicDescription {
        let partition = |n| PartitionDescription {
            partition: Partition(n),
            leader: Some(NodeId(1)),
            leader_epoch: LeaderEpoch(0),
            replicas: (1..=replicas).map(NodeId).collect(),
            in_sync: vec![NodeId(1)],
            offline: vec![],
        };
        TopicDescription {
            topic: Topic::new("t").unwrap(),
            internal: false,
            partitions: (0..partitions).map(partition).collect(),
            id: Uuid::from_u128(id),
        }
    }

    fn config(name: &str, value: &str, source: ConfigSource) -> TopicConfig {
        let (name, value) = (name.to_owned(), Some(value.to_owned()));
        TopicConfig { name, value, source, read_only: false, sensitive: false }
    }

    fn unclear(seen: Seen, why: &str) {
        match seen {
            Seen::Unclear(text) => assert!(text.contains(why), "{text}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_creation_is_made_when_the_topic_is_there_as_asked_and_was_not_before() {
        let new = NewTopic::new(Topic::new("t").unwrap());
        let aim = Aim::Create(&new);
        assert_eq!(aim.seen(&Before::Absent, None, None), Seen::NotMade);
        assert_eq!(aim.seen(&Before::Absent, Some(&topic(1, 7, 2)), None), Seen::Made);
        assert_eq!(aim.seen(&Before::Unknown, Some(&topic(1, 7, 2)), None), Seen::Made);
        let refused = aim.seen(&Before::There(topic(1, 7, 2)), Some(&topic(1, 7, 2)), None);
        assert!(matches!(refused, Seen::Refused(ErrorKind::Conflict, _)), "{refused:?}");
        assert_eq!(aim.seen(&Before::There(topic(1, 7, 2)), Some(&topic(2, 7, 2)), None), Seen::Made);
        unclear(aim.seen(&Before::There(topic(0, 7, 2)), Some(&topic(0, 7, 2)), None), "before");
        let new = new.partitions(3).replication(2);
        let aim = Aim::Create(&new);
        assert_eq!(aim.seen(&Before::Absent, Some(&topic(1, 3, 2)), None), Seen::Made);
        unclear(aim.seen(&Before::Absent, Some(&topic(1, 2, 2)), None), "2 partitions");
        unclear(aim.seen(&Before::Absent, Some(&topic(1, 3, 1)), None), "1 replicas");
    }

    #[test]
    fn a_creation_with_settings_is_made_when_the_topic_has_them_itself() {
        let new = NewTopic::new(Topic::new("t").unwrap()).config("retention.ms", "5");
        let aim = Aim::Create(&new);
        let now = topic(1, 1, 1);
        let seen = |configs: Option<&[TopicConfig]>| aim.seen(&Before::Absent, Some(&now), configs);
        assert!(aim.needs_configs());
        unclear(seen(None), "could not be seen");
        assert_eq!(seen(Some(&[config("retention.ms", "5", ConfigSource::Topic)])), Seen::Made);
        unclear(seen(Some(&[config("retention.ms", "5", ConfigSource::Default)])), "retention.ms");
        unclear(seen(Some(&[config("retention.ms", "6", ConfigSource::Topic)])), "retention.ms");
        unclear(seen(Some(&[])), "retention.ms");
    }

    #[test]
    fn a_growth_is_made_when_there_are_so_many_and_were_fewer() {
        let aim = Aim::Grow(4);
        let before = || Before::There(topic(1, 2, 1));
        assert_eq!(aim.seen(&before(), Some(&topic(1, 4, 1)), None), Seen::Made);
        assert_eq!(aim.seen(&before(), Some(&topic(1, 3, 1)), None), Seen::NotMade);
        unclear(aim.seen(&before(), Some(&topic(1, 5, 1)), None), "5 partitions now");
        unclear(aim.seen(&before(), None, None), "not there");
        let refused = aim.seen(&Before::There(topic(1, 4, 1)), Some(&topic(1, 4, 1)), None);
        assert!(matches!(refused, Seen::Refused(ErrorKind::Config, _)), "{refused:?}");
        unclear(aim.seen(&Before::There(topic(0, 4, 1)), Some(&topic(0, 4, 1)), None), "4 partitions before");
    }

    #[test]
    fn a_deletion_is_never_sent_again_for_another_topic_of_the_same_name() {
        let before = || Before::There(topic(1, 1, 1));
        assert_eq!(Aim::Delete.seen(&before(), None, None), Seen::Made);
        assert_eq!(Aim::Delete.seen(&before(), Some(&topic(1, 1, 1)), None), Seen::NotMade);
        assert_eq!(Aim::Delete.seen(&before(), Some(&topic(2, 1, 1)), None), Seen::Made);
        unclear(Aim::Delete.seen(&before(), Some(&topic(0, 1, 1)), None), "is there");
        unclear(Aim::Delete.seen(&Before::Unknown, Some(&topic(1, 1, 1)), None), "is there");
        unclear(Aim::Delete.seen(&Before::Absent, None, None), "not there before");
    }
}
