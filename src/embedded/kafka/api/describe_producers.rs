//! DescribeProducers (61), version 0 (KIP-664).
//!
//! The producers that a partition's leader remembers, by producer id.

use std::ops::RangeInclusive;

use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::Topic;
use crate::embedded::kafka::cluster::Cluster;

impl Api for DescribeProducersRequest {
    const SERVED: RangeInclusive<i16> = 0..=0;
    const SHAPE: &'static [Field] =
        &[always(Shape::Structs(&[always(Shape::Text), always(Shape::Values(4))]))];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DescribeProducersResponse> {
        Reply::Now(self.answer(|topic, n| describe(cluster, context, topic, n)))
    }

    fn refuse(&self, code: Code, _version: i16) -> DescribeProducersResponse {
        self.answer(|_, n| refused(n, code))
    }
}

trait Answer {
    fn answer(&self, partition: impl Fn(&str, i32) -> PartitionResponse) -> DescribeProducersResponse;
}

impl Answer for DescribeProducersRequest {
    fn answer(&self, partition: impl Fn(&str, i32) -> PartitionResponse) -> DescribeProducersResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter().map(|n| partition(&topic.name, *n));
            TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        DescribeProducersResponse::default().with_topics(topics.collect())
    }
}

fn refused(n: i32, code: Code) -> PartitionResponse {
    PartitionResponse::default()
        .with_partition_index(n)
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(code.to_string())))
}

/// For some refusals the real broker has no words.
fn silently_refused(n: i32, code: Code) -> PartitionResponse {
    refused(n, code).with_error_message(None)
}

fn describe(cluster: &Cluster, context: &Context, topic: &str, n: i32) -> PartitionResponse {
    if Topic::new(topic).is_err() {
        return refused(n, Code::InvalidTopicException);
    }
    if cluster.topics.get(topic).is_none() {
        return refused(n, Code::UnknownTopicOrPartition);
    }
    let Some(partition) = cluster.topics.partition(topic, n) else {
        return silently_refused(n, Code::UnknownTopicOrPartition);
    };
    if partition.leader != Some(context.node) {
        return silently_refused(n, Code::NotLeaderOrFollower);
    }
    let producers = partition.log.producers().iter().map(|(id, producer)| {
        ProducerState::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(i32::from(producer.epoch))
            .with_last_sequence(producer.last_sequence())
            .with_last_timestamp(producer.last_timestamp)
            .with_coordinator_epoch(producer.coordinator_epoch)
            .with_current_txn_start_offset(producer.open_since.unwrap_or(-1))
    });
    PartitionResponse::default().with_partition_index(n).with_active_producers(producers.collect())
}
