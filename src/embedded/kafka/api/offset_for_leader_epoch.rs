//! OffsetForLeaderEpoch (23), versions 2 to 4 (KIP-101, KIP-320): where the records of an epoch end.

use std::ops::RangeInclusive;

use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::list_offsets::leader_of;
use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;

impl Api for OffsetForLeaderEpochRequest {
    const SERVED: RangeInclusive<i16> = 2..=4;
    const SHAPE: &'static [Field] = &[
        since(3, Shape::Fixed(4)),
        always(Shape::Structs(&[
            always(Shape::Text),
            always(Shape::Structs(&[always(Shape::Fixed(4 + 4 + 4))])),
        ])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<OffsetForLeaderEpochResponse> {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let partition = cluster.topics.partition(&topic.topic, asked.partition);
                let answer = EpochEndOffset::default().with_partition(asked.partition);
                match leader_of(partition, context, asked.current_leader_epoch) {
                    Ok(partition) => {
                        let log = &partition.log;
                        let (epoch, end) =
                            log.epochs().end_of(asked.leader_epoch, log.end()).unwrap_or((-1, -1));
                        answer.with_leader_epoch(epoch).with_end_offset(end)
                    }
                    Err(code) => failed(answer, code),
                }
            });
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions.collect())
        });
        Reply::Now(OffsetForLeaderEpochResponse::default().with_topics(topics.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> OffsetForLeaderEpochResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|asked| failed(EpochEndOffset::default().with_partition(asked.partition), code));
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions.collect())
        });
        OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
    }
}

fn failed(answer: EpochEndOffset, code: Code) -> EpochEndOffset {
    answer.with_error_code(code.code()).with_leader_epoch(-1).with_end_offset(-1)
}
