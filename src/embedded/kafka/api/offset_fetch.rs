//! OffsetFetch (9), versions 1 to 9 (KIP-447, KIP-709, KIP-848).
//!
//! Differences: version 10 (topic ids) is not spoken. A group, topic or partition that is not there has no offset:
//! -1 without an error, as the real broker says.

use std::ops::RangeInclusive;

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Asker, Coordinated, Offsets};

impl Api for OffsetFetchRequest {
    const SERVED: RangeInclusive<i16> = 1..=9;
    const SHAPE: &'static [Field] = &[
        Field { from: 1, to: 7, shape: Shape::Text },
        Field { from: 1, to: 7, shape: Shape::Structs(TOPIC) },
        since(
            8,
            Shape::Structs(&[
                always(Shape::Text),
                since(9, Shape::Text),
                since(9, Shape::Fixed(4)),
                always(Shape::Structs(TOPIC)),
            ]),
        ),
        since(7, Shape::Fixed(1)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<OffsetFetchResponse> {
        let mut asker = Asker { generation: -1, version: context.version, ..Asker::default() };
        if context.version < 8 {
            let wanted = self.topics.as_ref().map(|topics| {
                topics.iter().map(|t| (t.name.0.clone(), t.partition_indexes.clone())).collect()
            });
            return Reply::Now(
                match fetch(cluster, context, &self.group_id, &asker, wanted, self.require_stable) {
                    Ok(found) => {
                        OffsetFetchResponse::default().with_topics(found.into_iter().map(old_topic).collect())
                    }
                    Err(code) => self.refuse(code, context.version),
                },
            );
        }
        let groups = self
            .groups
            .iter()
            .map(|group| {
                asker.member = group.member_id.clone().unwrap_or_default();
                asker.generation = if context.version >= 9 { group.member_epoch } else { -1 };
                let wanted = group.topics.as_ref().map(|topics| {
                    topics.iter().map(|t| (t.name.0.clone(), t.partition_indexes.clone())).collect()
                });
                let response = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
                match fetch(cluster, context, &group.group_id, &asker, wanted, self.require_stable) {
                    Ok(found) => response.with_topics(found.into_iter().map(new_topic).collect()),
                    Err(code) => response.with_error_code(code.code()),
                }
            })
            .collect();
        Reply::Now(OffsetFetchResponse::default().with_groups(groups))
    }

    fn refuse(&self, code: Code, version: i16) -> OffsetFetchResponse {
        if version >= 8 {
            let groups = self.groups.iter().map(|group| {
                OffsetFetchResponseGroup::default()
                    .with_group_id(group.group_id.clone())
                    .with_error_code(code.code())
            });
            return OffsetFetchResponse::default().with_groups(groups.collect());
        }
        let topics = match version {
            // Version 1 has no place for an error beside the partitions.
            1 => self.topics.iter().flatten().map(|t| {
                let partitions = t.partition_indexes.iter().map(|p| Found::none(*p, Some(code)));
                old_topic((t.name.0.clone(), partitions.collect()))
            }),
            _ => {
                return OffsetFetchResponse::default().with_error_code(code.code());
            }
        };
        OffsetFetchResponse::default().with_topics(topics.collect())
    }
}

const TOPIC: &[Field] = &[always(Shape::Text), always(Shape::Values(4))];

type Wanted = Vec<(StrBytes, Vec<i32>)>;

struct Found {
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: StrBytes,
    error: Option<Code>,
}

impl Found {
    fn none(partition: i32, error: Option<Code>) -> Self {
        Self { partition, offset: -1, leader_epoch: -1, metadata: StrBytes::default(), error }
    }
}

fn fetch(
    cluster: &Cluster,
    context: &Context,
    group: &StrBytes,
    asker: &Asker,
    wanted: Option<Wanted>,
    stable: bool,
) -> Result<Vec<(StrBytes, Vec<Found>)>, Code> {
    cluster.check_coordinator(context, Coordinated::Group, group)?;
    let offsets = cluster.groups.offsets(group, asker)?;
    let wanted = match (wanted, offsets) {
        (Some(wanted), _) => wanted,
        (None, None) => return Ok(Vec::new()),
        (None, Some(offsets)) => offsets.topics().map(|(t, p)| (t.clone(), p.collect())).collect(),
    };
    let found = wanted.into_iter().map(|(topic, partitions)| {
        let found = partitions.into_iter().map(|p| look(offsets, &topic, p, stable)).collect();
        (topic, found)
    });
    Ok(found.collect())
}

fn look(offsets: Option<&Offsets>, topic: &StrBytes, partition: i32, stable: bool) -> Found {
    let Some(offsets) = offsets else { return Found::none(partition, None) };
    if stable && offsets.is_unstable(topic, partition) {
        return Found::none(partition, Some(Code::UnstableOffsetCommit));
    }
    offsets.get(topic, partition).map_or_else(
        || Found::none(partition, None),
        |c| Found {
            partition,
            offset: c.offset,
            leader_epoch: c.leader_epoch,
            metadata: c.metadata.clone(),
            error: None,
        },
    )
}

fn old_topic((name, found): (StrBytes, Vec<Found>)) -> OffsetFetchResponseTopic {
    let partitions = found.into_iter().map(|f| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(f.partition)
            .with_committed_offset(f.offset)
            .with_committed_leader_epoch(f.leader_epoch)
            .with_metadata(Some(f.metadata))
            .with_error_code(f.error.map_or(0, |code| code.code()))
    });
    OffsetFetchResponseTopic::default().with_name(TopicName(name)).with_partitions(partitions.collect())
}

fn new_topic((name, found): (StrBytes, Vec<Found>)) -> OffsetFetchResponseTopics {
    let partitions = found.into_iter().map(|f| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(f.partition)
            .with_committed_offset(f.offset)
            .with_committed_leader_epoch(f.leader_epoch)
            .with_metadata(Some(f.metadata))
            .with_error_code(f.error.map_or(0, |code| code.code()))
    });
    OffsetFetchResponseTopics::default().with_name(TopicName(name)).with_partitions(partitions.collect())
}
