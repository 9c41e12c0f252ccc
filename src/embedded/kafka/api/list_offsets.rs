//! ListOffsets (2), versions 1 to 10.
//!
//! -2 earliest, -1 latest (the last stable offset with read_committed), -3 the record with the largest timestamp
//! (from version 7), -4 earliest on the broker's own disk (from version 8, the same as earliest), -5 latest tiered
//! (from version 9: never one), else the first record that is not older than the time. The leader alone answers.

use std::ops::RangeInclusive;

use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::topics::Partition;

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

impl Api for ListOffsetsRequest {
    const SERVED: RangeInclusive<i16> = 1..=10;
    const SHAPE: &'static [Field] = &[
        always(Shape::Fixed(4)),
        since(2, Shape::Fixed(1)),
        always(Shape::Structs(&[
            always(Shape::Text),
            always(Shape::Structs(&[
                always(Shape::Fixed(4)),
                since(4, Shape::Fixed(4)),
                always(Shape::Fixed(8)),
            ])),
        ])),
        since(10, Shape::Fixed(4)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<ListOffsetsResponse> {
        let committed = self.isolation_level == 1;
        let topics = self.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let answer =
                    ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
                let found = leader_of(
                    cluster.topics.partition(&topic.name, asked.partition_index),
                    context,
                    asked.current_leader_epoch,
                )
                .and_then(|partition| find(partition, asked.timestamp, committed, context.version));
                match found {
                    Ok((offset, timestamp, epoch)) => answer
                        .with_offset(offset)
                        .with_timestamp(timestamp)
                        .with_leader_epoch(if context.version >= 4 { epoch } else { -1 }),
                    Err(code) => answer
                        .with_error_code(code.code())
                        .with_offset(-1)
                        .with_timestamp(-1)
                        .with_leader_epoch(-1),
                }
            });
            let partitions = partitions.collect();
            ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
        });
        Reply::Now(ListOffsetsResponse::default().with_topics(topics.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> ListOffsetsResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(asked.partition_index)
                    .with_error_code(code.code())
                    .with_offset(-1)
                    .with_timestamp(-1)
                    .with_leader_epoch(-1)
            });
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }
}

/// The partition, where the broker that was asked leads it in the epoch that the client knows (-1: any).
///
/// # Errors
/// UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH (KIP-320).
pub(super) fn leader_of<'a>(
    partition: Option<&'a Partition>,
    context: &Context,
    epoch: i32,
) -> Result<&'a Partition, Code> {
    let partition = partition.ok_or(Code::UnknownTopicOrPartition)?;
    check_epoch(partition, epoch)?;
    if partition.leader == Some(context.node) { Ok(partition) } else { Err(Code::NotLeaderOrFollower) }
}

/// Is the client's epoch the current one?
///
/// # Errors
/// FENCED_LEADER_EPOCH for an older one, UNKNOWN_LEADER_EPOCH for one from the future.
pub(super) fn check_epoch(partition: &Partition, epoch: i32) -> Result<(), Code> {
    match epoch {
        -1 => Ok(()),
        old if old < partition.leader_epoch => Err(Code::FencedLeaderEpoch),
        new if new > partition.leader_epoch => Err(Code::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

fn find(
    partition: &Partition,
    timestamp: i64,
    committed: bool,
    version: i16,
) -> Result<(i64, i64, i32), Code> {
    const NONE: (i64, i64, i32) = (-1, -1, -1);
    let log = &partition.log;
    let until = if committed { log.last_stable_offset() } else { log.high_watermark() };
    let lowest = match timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        _ => 1,
    };
    if version < lowest {
        return Err(Code::UnsupportedVersion);
    }
    Ok(match timestamp {
        EARLIEST | EARLIEST_LOCAL => {
            (log.log_start(), -1, log.epochs().at(log.log_start()).unwrap_or(partition.leader_epoch))
        }
        LATEST => (until, -1, partition.leader_epoch),
        MAX_TIMESTAMP => log.max_timestamp().filter(|(offset, ..)| *offset < until).unwrap_or(NONE),
        LATEST_TIERED => NONE,
        time if time < 0 => return Err(Code::UnsupportedVersion),
        time => log.find_time(time, until).unwrap_or(NONE),
    })
}
