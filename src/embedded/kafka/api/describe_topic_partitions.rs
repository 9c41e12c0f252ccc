//! DescribeTopicPartitions (75), version 0 (KIP-966): topics in the order of their names, page by page.
//!
//! At most 2,000 partitions an answer (`max.request.partition.size.limit`). Eligible leaders are not tracked: both of
//! their lists are empty.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::metadata::TOPIC_OPERATIONS;
use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::NodeId;
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::creation::check_name;
use crate::embedded::kafka::topics::{Partition, is_internal};

const MOST: usize = 2_000;

impl Api for DescribeTopicPartitionsRequest {
    const SERVED: RangeInclusive<i16> = 0..=0;
    const SHAPE: &'static [Field] = &[
        always(Shape::Structs(&[always(Shape::Text)])),
        always(Shape::Fixed(4)),
        always(Shape::Maybe(&[always(Shape::Text), always(Shape::Fixed(4))])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DescribeTopicPartitionsResponse> {
        let all = self.topics.is_empty();
        let names: BTreeSet<StrBytes> = if all {
            let names = cluster.topics.iter().map(|(topic, _)| topic.as_str().to_owned().into());
            names.collect()
        } else {
            self.topics.iter().map(|topic| topic.name.0.clone()).collect()
        };
        let (from, mut skip) = match &self.cursor {
            Some(cursor) => match usize::try_from(cursor.partition_index) {
                Ok(skip) => (cursor.topic_name.0.clone(), skip),
                Err(_) => return Reply::Now(self.refuse(Code::InvalidRequest, context.version)),
            },
            None => (StrBytes::default(), 0),
        };
        let mut left = usize::try_from(self.response_partition_limit).unwrap_or(MOST).clamp(1, MOST);
        let mut response = DescribeTopicPartitionsResponse::default();
        let up = cluster.up();
        for name in names.into_iter().filter(|name| **name >= *from) {
            let first = if name == from { std::mem::take(&mut skip) } else { 0 };
            let answer =
                DescribeTopicPartitionsResponseTopic::default().with_name(Some(TopicName(name.clone())));
            let Some(state) = cluster.topics.get(&name) else {
                let bad = check_name(&name).is_err();
                let code = if bad { Code::InvalidTopicException } else { Code::UnknownTopicOrPartition };
                response.topics.push(answer.with_error_code(code.code()));
                continue;
            };
            let next = |partition: usize| {
                let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                Cursor::default().with_topic_name(TopicName(name.clone())).with_partition_index(partition)
            };
            if left == 0 {
                response.next_cursor = Some(next(first));
                break;
            }
            let partitions = (0..).zip(&state.partitions).skip(first).take(left);
            let partitions: Vec<_> =
                partitions.map(|(number, partition)| describe(number, partition, &up)).collect();
            left -= partitions.len();
            let end = first + partitions.len();
            response.topics.push(
                answer
                    .with_topic_id(state.id)
                    .with_is_internal(is_internal(&name))
                    .with_partitions(partitions)
                    .with_topic_authorized_operations(TOPIC_OPERATIONS),
            );
            if end < state.partitions.len() {
                response.next_cursor = Some(next(end));
                break;
            }
        }
        Reply::Now(response)
    }

    fn refuse(&self, code: Code, _version: i16) -> DescribeTopicPartitionsResponse {
        let topics = self.topics.iter().map(|topic| {
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic.name.clone()))
                .with_error_code(code.code())
        });
        DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
    }
}

fn describe(number: i32, partition: &Partition, up: &[NodeId]) -> DescribeTopicPartitionsResponsePartition {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| BrokerId(node.0)).collect::<Vec<_>>();
    let offline = partition.replicas.iter().filter(|node| !up.contains(node));
    let code = if partition.leader.is_some() { 0 } else { Code::LeaderNotAvailable.code() };
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(code)
        .with_partition_index(number)
        .with_leader_id(BrokerId(partition.leader.map_or(-1, |leader| leader.0)))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.isr))
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(offline.map(|node| BrokerId(node.0)).collect())
}
