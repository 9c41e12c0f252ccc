//! DescribeLogDirs (35), versions 1 to 4: one directory, `/embedded`, with what the broker has of each partition.
//!
//! The total and usable bytes (KIP-827) are the memory limit of the cluster and what is left of it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;

impl Api for DescribeLogDirsRequest {
    const SERVED: RangeInclusive<i16> = 1..=4;
    const SHAPE: &'static [Field] =
        &[always(Shape::Structs(&[always(Shape::Text), always(Shape::Values(4))]))];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DescribeLogDirsResponse> {
        let asked: Option<BTreeMap<_, _>> = self
            .topics
            .as_ref()
            .map(|topics| topics.iter().map(|topic| (&*topic.topic.0, &topic.partitions)).collect());
        let topics = cluster.topics.iter().filter_map(|(topic, state)| {
            let wanted = match &asked {
                Some(asked) => Some(*asked.get(topic.as_str())?),
                None => None,
            };
            let partitions: Vec<_> = (0..)
                .zip(&state.partitions)
                .filter(|(number, partition)| {
                    partition.replicas.contains(&context.node)
                        && wanted.is_none_or(|wanted| wanted.contains(number))
                })
                .map(|(number, partition)| {
                    DescribeLogDirsPartition::default()
                        .with_partition_index(number)
                        .with_partition_size(i64::try_from(partition.log.bytes()).unwrap_or(i64::MAX))
                })
                .collect();
            let name = TopicName(topic.as_str().to_owned().into());
            (!partitions.is_empty())
                .then(|| DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions))
        });
        let limit = cluster.settings.memory_limit;
        let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let result = DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_static_str("/embedded"))
            .with_topics(topics.collect())
            .with_total_bytes(bytes(limit))
            .with_usable_bytes(bytes(limit.saturating_sub(cluster.topics.held())));
        Reply::Now(DescribeLogDirsResponse::default().with_results(vec![result]))
    }

    fn refuse(&self, code: Code, version: i16) -> DescribeLogDirsResponse {
        if version >= 3 {
            return DescribeLogDirsResponse::default().with_error_code(code.code());
        }
        let result = DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_static_str("/embedded"))
            .with_error_code(code.code());
        DescribeLogDirsResponse::default().with_results(vec![result])
    }
}
