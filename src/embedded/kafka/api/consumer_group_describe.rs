//! ConsumerGroupDescribe (69), versions 0 and 1 (KIP-848, KIP-1099 for the member's type).
//!
//! Authorized operations are not told: everyone may do everything here (the field stays at "not asked for").

use std::ops::RangeInclusive;

use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::consumer_group_heartbeat::by_topic;
use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Consumer, Members};

impl Api for ConsumerGroupDescribeRequest {
    const SERVED: RangeInclusive<i16> = 0..=1;
    const SHAPE: &'static [Field] = &[always(Shape::Texts), always(Shape::Fixed(1))];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<ConsumerGroupDescribeResponse> {
        let groups = self.group_ids.iter().map(|id| {
            if let Err(code) = cluster.check_group(context, id) {
                return refused(id, code, code.to_string());
            }
            match cluster.groups.get(id).map(|group| &group.members) {
                Some(Members::Consumer(consumer)) => described(cluster, id, consumer, context.version),
                Some(Members::Classic(_)) => {
                    refused(id, Code::GroupIdNotFound, format!("Group {} is not a consumer group.", id.0))
                }
                None => refused(id, Code::GroupIdNotFound, format!("Group {} not found.", id.0)),
            }
        });
        Reply::Now(ConsumerGroupDescribeResponse::default().with_groups(groups.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> ConsumerGroupDescribeResponse {
        let groups = self.group_ids.iter().map(|id| refused(id, code, code.to_string()));
        ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
    }
}

fn refused(id: &GroupId, code: Code, why: String) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(id.clone())
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(why)))
        .with_authorized_operations(i32::MIN)
}

fn described(cluster: &Cluster, id: &GroupId, consumer: &Consumer, version: i16) -> DescribedGroup {
    let members = consumer.members().map(|(member_id, m)| {
        Member::default()
            .with_member_id(member_id.clone())
            .with_instance_id(m.instance.clone())
            .with_rack_id(m.rack.clone())
            .with_member_epoch(m.epoch)
            .with_client_id(m.client_id.clone())
            .with_client_host(m.client_host.clone())
            .with_subscribed_topic_names(m.names.iter().map(|name| TopicName(name.clone())).collect())
            // Where there is none, the real broker says an empty one.
            .with_subscribed_topic_regex(Some(m.regex.clone().unwrap_or_default()))
            .with_assignment(assignment(cluster, m.owned()))
            .with_target_assignment(assignment(cluster, consumer.target(member_id)))
            // A member of the consumer's protocol; version 0 does not tell.
            .with_member_type(if version >= 1 { 1 } else { -1 })
    });
    DescribedGroup::default()
        .with_group_id(id.clone())
        .with_group_state(StrBytes::from_static_str(consumer.state()))
        .with_group_epoch(consumer.epoch())
        .with_assignment_epoch(consumer.target_epoch())
        .with_assignor_name(StrBytes::from_static_str(consumer.assignor().name()))
        .with_members(members.collect())
        .with_authorized_operations(i32::MIN)
}

fn assignment(cluster: &Cluster, places: impl Iterator<Item = (Uuid, i32)>) -> Assignment {
    let topics = by_topic(places).filter_map(|(id, partitions)| {
        let name = cluster.topics.name_of(id)?;
        Some(
            TopicPartitions::default()
                .with_topic_id(id)
                .with_topic_name(TopicName(StrBytes::from_string(name.as_str().to_owned())))
                .with_partitions(partitions),
        )
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
