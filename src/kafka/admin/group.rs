//! What is told of groups.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, TopicName, consumer_group_describe_response as consumer,
    describe_groups_response as classic, list_groups_response,
};
use kafka_protocol::protocol::Decodable;

use crate::kafka::shape::{Field, Shape, always, check};
use crate::{NodeId, Partition, Topic};

/// What a group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupState {
    /// It has no members; its committed offsets are kept.
    Empty,
    /// Its members have what they are to have.
    Stable,
    /// Its members are being called together (classic groups).
    PreparingRebalance,
    /// Its leader assigns (classic groups).
    CompletingRebalance,
    /// The coordinator assigns (KIP-848).
    Assigning,
    /// Members give and take what was assigned (KIP-848).
    Reconciling,
    /// It is gone.
    Dead,
    /// The broker does not tell (before Kafka 2.6), or it is none of these.
    Unknown,
}

impl GroupState {
    pub(super) fn read(name: &str) -> Self {
        // Spelt `CompletingRebalance` and `Completing-Rebalance` over time.
        let name: String = name.chars().filter(char::is_ascii_alphabetic).collect();
        match name.to_ascii_lowercase().as_str() {
            "empty" => Self::Empty,
            "stable" => Self::Stable,
            "preparingrebalance" => Self::PreparingRebalance,
            "completingrebalance" => Self::CompletingRebalance,
            "assigning" => Self::Assigning,
            "reconciling" => Self::Reconciling,
            "dead" => Self::Dead,
            _ => Self::Unknown,
        }
    }

    /// As a lower-case word, for logs and JSON. Stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Stable => "stable",
            Self::PreparingRebalance => "preparing_rebalance",
            Self::CompletingRebalance => "completing_rebalance",
            Self::Assigning => "assigning",
            Self::Reconciling => "reconciling",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        }
    }
}

/// The protocol by which a group's members find together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupKind {
    /// The classic protocol; also a group that only has committed offsets.
    Classic,
    /// The newer consumer protocol (KIP-848).
    Consumer,
    /// A share group (KIP-932).
    Share,
    /// A group of Kafka Streams (KIP-1071).
    Streams,
    /// The broker does not tell (before Kafka 3.8), or it is none of these.
    Unknown,
}

impl GroupKind {
    fn read(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "classic" => Self::Classic,
            "consumer" => Self::Consumer,
            "share" => Self::Share,
            "streams" => Self::Streams,
            _ => Self::Unknown,
        }
    }

    /// As a lower-case word, for logs and JSON. Stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Consumer => "consumer",
            Self::Share => "share",
            Self::Streams => "streams",
            Self::Unknown => "unknown",
        }
    }
}

/// A group as its coordinator lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedGroup {
    /// Its name.
    pub group: String,
    /// What it is doing.
    pub state: GroupState,
    /// How its members find together.
    pub kind: GroupKind,
    /// What its members are: `consumer`, or `connect` for workers of Kafka Connect; empty where it never had members and
    /// only has committed offsets.
    pub protocol_type: String,
    /// The broker that coordinates it.
    pub coordinator: NodeId,
}

impl ListedGroup {
    pub(super) fn read(group: &list_groups_response::ListedGroup, coordinator: NodeId) -> Self {
        Self {
            group: group.group_id.0.as_str().to_owned(),
            state: GroupState::read(&group.group_state),
            kind: GroupKind::read(&group.group_type),
            protocol_type: group.protocol_type.as_str().to_owned(),
            coordinator,
        }
    }
}

/// A group and its members.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// What it is doing.
    pub state: GroupState,
    /// How its members find together.
    pub kind: GroupKind,
    /// What its members are, as in [`ListedGroup::protocol_type`].
    pub protocol_type: String,
    /// How partitions are assigned, such as `range` or `uniform`; empty where nothing is assigned at the moment.
    pub assignor: String,
    /// How often what it reads or who is in it has changed; `None` for classic groups, whose brokers do not tell.
    pub epoch: Option<i32>,
    /// Its members, by id.
    pub members: Vec<MemberDescription>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberDescription {
    /// Its id.
    pub member: String,
    /// The name that it keeps over restarts (`group.instance.id`), where it has one.
    pub instance: Option<String>,
    /// The `client.id` of its connection.
    pub client: String,
    /// Where it connects from, such as `/10.0.0.7`.
    pub host: String,
    /// The rack that it named; `None` for none, and for classic groups.
    pub rack: Option<String>,
    /// What it was given. For a classic group only while the group is stable.
    pub assigned: BTreeMap<Topic, Vec<Partition>>,
    /// What it is to have once all have given and taken (KIP-848); `None` for classic groups.
    pub target: Option<BTreeMap<Topic, Vec<Partition>>>,
}

impl GroupDescription {
    /// Whether it has members.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.members.is_empty() || !matches!(self.state, GroupState::Empty | GroupState::Dead)
    }

    pub(super) fn of_classic(group: &classic::DescribedGroup) -> Self {
        let members = group.members.iter().map(|m| MemberDescription {
            member: m.member_id.as_str().to_owned(),
            instance: m.group_instance_id.as_ref().map(|i| i.as_str().to_owned()),
            client: m.client_id.as_str().to_owned(),
            host: m.client_host.as_str().to_owned(),
            rack: None,
            assigned: if &*group.protocol_type == "consumer" {
                read_assignment(&m.member_assignment)
            } else {
                BTreeMap::new()
            },
            target: None,
        });
        Self {
            group: group.group_id.0.as_str().to_owned(),
            state: GroupState::read(&group.group_state),
            kind: GroupKind::Classic,
            protocol_type: group.protocol_type.as_str().to_owned(),
            assignor: group.protocol_data.as_str().to_owned(),
            epoch: None,
            members: sorted(members),
        }
    }

    pub(super) fn of_consumer(group: &consumer::DescribedGroup) -> Self {
        let assigned = |a: &consumer::Assignment| {
            collect(a.topic_partitions.iter().map(|t| (&t.topic_name, &t.partitions[..])))
        };
        let members = group.members.iter().map(|m| MemberDescription {
            member: m.member_id.as_str().to_owned(),
            instance: m.instance_id.as_ref().map(|i| i.as_str().to_owned()),
            client: m.client_id.as_str().to_owned(),
            host: m.client_host.as_str().to_owned(),
            rack: m.rack_id.as_ref().map(|r| r.as_str().to_owned()),
            assigned: assigned(&m.assignment),
            target: Some(assigned(&m.target_assignment)),
        });
        Self {
            group: group.group_id.0.as_str().to_owned(),
            state: GroupState::read(&group.group_state),
            kind: GroupKind::Consumer,
            protocol_type: "consumer".to_owned(),
            assignor: group.assignor_name.as_str().to_owned(),
            epoch: Some(group.group_epoch),
            members: sorted(members),
        }
    }
}

fn sorted(members: impl Iterator<Item = MemberDescription>) -> Vec<MemberDescription> {
    let mut members: Vec<_> = members.collect();
    members.sort_by(|a, b| a.member.cmp(&b.member));
    members
}

fn collect<'a>(topics: impl Iterator<Item = (&'a TopicName, &'a [i32])>) -> BTreeMap<Topic, Vec<Partition>> {
    let mut all: BTreeMap<Topic, Vec<Partition>> = BTreeMap::new();
    for (name, partitions) in topics {
        let Ok(topic) = Topic::new(name.0.as_str()) else { continue };
        all.entry(topic).or_default().extend(partitions.iter().copied().map(Partition));
    }
    for partitions in all.values_mut() {
        partitions.sort_unstable();
        partitions.dedup();
    }
    all
}

/// What a classic member was given (`ConsumerProtocolAssignment`). Its leader wrote it, whoever that is: what makes no sense
/// is nothing.
fn read_assignment(bytes: &Bytes) -> BTreeMap<Topic, Vec<Partition>> {
    const ASSIGNMENT: &[Field] =
        &[always(Shape::Structs(&[always(Shape::Text), always(Shape::Values(4))])), always(Shape::Bytes)];
    let mut bytes = bytes.clone();
    let Ok(version) = bytes.try_get_i16() else { return BTreeMap::new() };
    // Later versions add behind what is known, as the protocol promises.
    let version = version.clamp(0, 3);
    if check(&bytes, version, false, ASSIGNMENT).is_err() {
        return BTreeMap::new();
    }
    match ConsumerProtocolAssignment::decode(&mut bytes, version) {
        Ok(read) => collect(read.assigned_partitions.iter().map(|t| (&t.topic, &t.partitions[..]))),
        Err(_) => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use proptest::prelude::*;

    fn written(version: i16) -> Vec<u8> {
        let topic = TopicPartition::default()
            .with_topic(TopicName(StrBytes::from_static_str("orders")))
            .with_partitions(vec![3, 1]);
        let mut out = version.to_be_bytes().to_vec();
        let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![topic]);
        assignment.encode(&mut out, version.min(3)).unwrap();
        out
    }

    #[test]
    fn an_assignment_is_read_in_every_version_and_with_more_behind_it() {
        let expected = BTreeMap::from([(Topic::new("orders").unwrap(), vec![Partition(1), Partition(3)])]);
        for version in 0..=4 {
            let mut bytes = written(version);
            assert_eq!(read_assignment(&bytes.clone().into()), expected, "{version}");
            bytes.extend_from_slice(b"more");
            assert_eq!(read_assignment(&bytes.into()), expected, "{version}");
        }
    }

    #[test]
    fn states_are_read_as_brokers_spell_them() {
        for (name, state) in [
            ("Stable", GroupState::Stable),
            ("PreparingRebalance", GroupState::PreparingRebalance),
            ("RECONCILING", GroupState::Reconciling),
            ("NotReady", GroupState::Unknown),
            ("", GroupState::Unknown),
        ] {
            assert_eq!(GroupState::read(name), state, "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_assignment_of_any_bytes_is_something_or_nothing(
            at in 0usize..40, damage in prop::collection::vec(any::<u8>(), 0..8), cut in 0usize..40
        ) {
            let mut bytes = written(1);
            for (byte, new) in bytes.iter_mut().skip(at).zip(&damage) {
                *byte = *new;
            }
            bytes.truncate(cut);
            read_assignment(&bytes.into());
        }
    }
}
