//! OffsetDelete (47), version 0 (KIP-496).

use std::ops::RangeInclusive;

use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;

impl Api for OffsetDeleteRequest {
    const SERVED: RangeInclusive<i16> = 0..=0;
    const SHAPE: &'static [Field] = &[
        always(Shape::Text),
        always(Shape::Structs(&[always(Shape::Text), always(Shape::Structs(&[always(Shape::Fixed(4))]))])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<OffsetDeleteResponse> {
        let places: Vec<(StrBytes, i32)> = self
            .topics
            .iter()
            .flat_map(|t| t.partitions.iter().map(|p| (t.name.0.clone(), p.partition_index)))
            .collect();
        let done = cluster
            .check_group(context, &self.group_id)
            .and_then(|()| cluster.groups.delete_offsets(&self.group_id, &places));
        let results = match done {
            Ok(results) => results,
            Err(code) => return Reply::Now(self.refuse(code, context.version)),
        };
        let mut results = places.iter().zip(results).map(|((topic, _), result)| {
            let known = cluster.topics.get(topic).is_some();
            result.err().or((!known).then_some(Code::UnknownTopicOrPartition))
        });
        let topics = self.topics.iter().map(|t| {
            let partitions = t.partitions.iter().map(|p| {
                let error = results.next().flatten();
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(error.map_or(0, |code| code.code()))
            });
            OffsetDeleteResponseTopic::default()
                .with_name(t.name.clone())
                .with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        Reply::Now(OffsetDeleteResponse::default().with_topics(topics))
    }

    fn refuse(&self, code: Code, _version: i16) -> OffsetDeleteResponse {
        OffsetDeleteResponse::default().with_error_code(code.code())
    }
}
