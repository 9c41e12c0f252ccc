//! DeleteRecords (21), versions 0 to 2 (KIP-107): records below an offset go; -1 means the high watermark.
//!
//! A topic that is only compacted refuses it with POLICY_VIOLATION. The batch that holds the new first offset stays
//! whole, and readers skip what is before, as with the real broker.

use std::ops::RangeInclusive;

use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::list_offsets::leader_of;
use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::topics::is_internal;

impl Api for DeleteRecordsRequest {
    const SERVED: RangeInclusive<i16> = 0..=2;
    const SHAPE: &'static [Field] = &[
        always(Shape::Structs(&[
            always(Shape::Text),
            always(Shape::Structs(&[always(Shape::Fixed(4 + 8))])),
        ])),
        always(Shape::Fixed(4)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DeleteRecordsResponse> {
        let mut topics = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let answer =
                    DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
                let deleted = delete(cluster, context, &topic.name, asked.partition_index, asked.offset);
                partitions.push(match deleted {
                    Ok(start) => answer.with_low_watermark(start),
                    Err(code) => answer.with_low_watermark(-1).with_error_code(code.code()),
                });
            }
            topics.push(
                DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions),
            );
        }
        Reply::Now(DeleteRecordsResponse::default().with_topics(topics))
    }

    fn refuse(&self, code: Code, _version: i16) -> DeleteRecordsResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(asked.partition_index)
                    .with_low_watermark(-1)
                    .with_error_code(code.code())
            });
            DeleteRecordsTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        DeleteRecordsResponse::default().with_topics(topics.collect())
    }
}

fn delete(
    cluster: &mut Cluster,
    context: &Context,
    topic: &str,
    number: i32,
    offset: i64,
) -> Result<i64, Code> {
    if is_internal(topic) {
        return Err(Code::InvalidTopicException);
    }
    let partition = leader_of(cluster.topics.partition(topic, number), context, -1)?;
    let offset = if offset == -1 { partition.log.high_watermark() } else { offset };
    if !(0..=partition.log.high_watermark()).contains(&offset) {
        return Err(Code::OffsetOutOfRange);
    }
    let deleted = cluster.topics.change(topic, number, |partition, config| {
        if config.compact && !config.delete {
            return Err(Code::PolicyViolation);
        }
        partition.log.delete_before(offset);
        Ok(partition.log.log_start())
    });
    let start = deleted.unwrap_or(Err(Code::UnknownTopicOrPartition))?;
    cluster.wake_fetches(topic, number, None, context.now);
    Ok(start)
}
