//! ConsumerGroupHeartbeat (68), versions 0 and 1 (KIP-848; version 1: regular expressions, ids made by the client).
//!
//! Differences: a classic group that has members is not upgraded while it runs: GROUP_ID_NOT_FOUND, as the real broker
//! answers under `group.consumer.migration.policy=disabled`. Regular expressions are those of Rust's regex crate: RE2's,
//! without Unicode tables beyond letter case and Perl classes.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::join_group::millis;
use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Assignor, Beat, LEAVE, LEAVE_STATIC, Moment, Refused, own};

impl Api for ConsumerGroupHeartbeatRequest {
    const SERVED: RangeInclusive<i16> = 0..=1;
    const SHAPE: &'static [Field] = &[
        always(Shape::Text),
        always(Shape::Text),
        always(Shape::Fixed(4)),
        always(Shape::Text),
        always(Shape::Text),
        always(Shape::Fixed(4)),
        always(Shape::Texts),
        since(1, Shape::Text),
        always(Shape::Text),
        always(Shape::Structs(&[always(Shape::Fixed(16)), always(Shape::Values(4))])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<ConsumerGroupHeartbeatResponse> {
        match self.beat(cluster, context) {
            Ok(response) => Reply::Now(response),
            Err(refused) => Reply::Now(
                ConsumerGroupHeartbeatResponse::default()
                    .with_error_code(refused.code.code())
                    .with_error_message(Some(StrBytes::from_string(refused.why))),
            ),
        }
    }

    fn refuse(&self, code: Code, _version: i16) -> ConsumerGroupHeartbeatResponse {
        ConsumerGroupHeartbeatResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(code.to_string())))
    }
}

trait Heartbeat {
    fn beat(
        &self,
        cluster: &mut Cluster,
        context: &Context,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refused>;
    fn check(&self, version: i16) -> Result<Option<Assignor>, Refused>;
}

impl Heartbeat for ConsumerGroupHeartbeatRequest {
    fn beat(
        &self,
        cluster: &mut Cluster,
        context: &Context,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refused> {
        let assignor = self.check(context.version)?;
        cluster.check_group(context, &self.group_id).map_err(|code| Refused::new(code, code.to_string()))?;
        let (client_id, client_host) = cluster.client(context);
        // Only version 0 may come without an id.
        let member = if self.member_id.is_empty() {
            let id = (u128::from(cluster.draw()) << 64 | u128::from(cluster.draw())).to_be_bytes();
            StrBytes::from_string(uuid::Builder::from_random_bytes(id).into_uuid().to_string())
        } else {
            own(&self.member_id)
        };
        let names = self.subscribed_topic_names.as_ref();
        let owned = self.topic_partitions.as_ref().map(|topics| {
            topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.topic_id, *p))).collect()
        });
        let beat = Beat {
            group: own(&self.group_id),
            member,
            epoch: self.member_epoch,
            instance: self.instance_id.as_ref().map(own),
            rack: self.rack_id.as_ref().map(own),
            rebalance_timeout: (self.rebalance_timeout_ms >= 0).then(|| millis(self.rebalance_timeout_ms)),
            names: names.map(|names| names.iter().map(|name| own(name)).collect()),
            regex: self.subscribed_topic_regex.as_ref().map(own),
            assignor,
            owned,
            client_id,
            client_host,
        };
        let at = Moment { node: context.node, now: context.now };
        let beaten = cluster.groups.beat(&self.group_id, beat, &cluster.topics, at)?;
        let interval = cluster.groups.settings.consumer_heartbeat_interval.as_millis();
        Ok(ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(beaten.member))
            .with_member_epoch(beaten.epoch)
            .with_heartbeat_interval_ms(if beaten.epoch < 0 {
                0
            } else {
                i32::try_from(interval).unwrap_or(i32::MAX)
            })
            .with_assignment(beaten.assignment.map(|places| {
                Assignment::default().with_topic_partitions(
                    by_topic(places.into_iter())
                        .map(|(id, partitions)| {
                            TopicPartitions::default().with_topic_id(id).with_partitions(partitions)
                        })
                        .collect(),
                )
            })))
    }

    fn check(&self, version: i16) -> Result<Option<Assignor>, Refused> {
        let wrong = |why: &str| Err(Refused::new(Code::InvalidRequest, why));
        let empty = |text: &Option<StrBytes>| text.as_ref().is_some_and(|t| t.is_empty());
        let joins = self.member_epoch == 0;
        if self.member_id.is_empty() && (version >= 1 || !joins) {
            return wrong("MemberId can't be empty.");
        }
        if self.group_id.is_empty() {
            return wrong("GroupId can't be empty.");
        }
        if empty(&self.instance_id) {
            return wrong("InstanceId can't be empty.");
        }
        if empty(&self.rack_id) {
            return wrong("RackId can't be empty.");
        }
        if joins {
            if self.rebalance_timeout_ms == -1 {
                return wrong("RebalanceTimeoutMs must be provided in first request.");
            }
            if self.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return wrong("TopicPartitions must be empty when (re-)joining.");
            }
            if self.subscribed_topic_names.is_none() && self.subscribed_topic_regex.is_none() {
                return wrong(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
        } else if self.member_epoch == LEAVE_STATIC && self.instance_id.is_none() {
            return wrong("InstanceId can't be null.");
        } else if self.member_epoch < LEAVE_STATIC {
            return wrong("MemberEpoch is invalid.");
        }
        if self.member_epoch <= LEAVE {
            return Ok(None);
        }
        self.server_assignor.as_ref().map_or(Ok(None), |name| match Assignor::parse(name) {
            Some(assignor) => Ok(Some(assignor)),
            None => Err(Refused::new(
                Code::UnsupportedAssignor,
                format!(
                    "ServerAssignor {} is not supported. Supported assignors: uniform, range.",
                    name.as_str()
                ),
            )),
        })
    }
}

/// Partitions by their topic.
pub(super) fn by_topic(places: impl Iterator<Item = (Uuid, i32)>) -> impl Iterator<Item = (Uuid, Vec<i32>)> {
    let mut topics: Vec<(Uuid, Vec<i32>)> = Vec::new();
    for (topic, partition) in places.collect::<BTreeSet<_>>() {
        match topics.last_mut() {
            Some((last, partitions)) if *last == topic => partitions.push(partition),
            _ => topics.push((topic, vec![partition])),
        }
    }
    topics.into_iter()
}
