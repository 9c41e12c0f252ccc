//! OffsetCommit (8), versions 2 to 9 (KIP-211, KIP-320, KIP-345, KIP-848).
//!
//! Differences: version 10 (topic ids) is not spoken; a partition that does not exist is refused with
//! UNKNOWN_TOPIC_OR_PARTITION, where the real broker looks at the topic only; `retention_time_ms` (versions 2 to 4) is
//! ignored, as the real broker's `offsets.retention.minutes` rules since 2.1.

use std::ops::RangeInclusive;

use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Asker, Committed, Coordinated, Moment, Offered, own};

impl Api for OffsetCommitRequest {
    const SERVED: RangeInclusive<i16> = 2..=9;
    const SHAPE: &'static [Field] = &[
        always(Shape::Text),
        always(Shape::Fixed(4)),
        always(Shape::Text),
        since(7, Shape::Text),
        Field { from: 2, to: 4, shape: Shape::Fixed(8) },
        always(Shape::Structs(&[
            always(Shape::Text),
            always(Shape::Structs(&[
                always(Shape::Fixed(4)),
                always(Shape::Fixed(8)),
                since(6, Shape::Fixed(4)),
                always(Shape::Text),
            ])),
        ])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<OffsetCommitResponse> {
        // A group without a name may have offsets, as in the real broker.
        if let Err(code) = cluster.check_coordinator(context, Coordinated::Group, &self.group_id) {
            return Reply::Now(self.refuse(code, context.version));
        }
        let asker = Asker {
            generation: self.generation_id_or_member_epoch,
            member: self.member_id.clone(),
            instance: self.group_instance_id.clone(),
            version: context.version,
            transactional: false,
        };
        let mut offers = Vec::new();
        let mut topics = Vec::new();
        for topic in &self.topics {
            let mut partitions = Vec::new();
            let name = own(&topic.name);
            for p in &topic.partitions {
                let committed = Committed {
                    offset: p.committed_offset,
                    leader_epoch: p.committed_leader_epoch,
                    metadata: p.committed_metadata.as_ref().map(own).unwrap_or_default(),
                    at: context.now,
                };
                let error = cluster.offer(&mut offers, &name, p.partition_index, committed).err();
                partitions.push(answer(p.partition_index, error));
            }
            topics.push(
                OffsetCommitResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        let at = Moment { node: context.node, now: context.now };
        match cluster.groups.commit(&self.group_id, &asker, offers, at) {
            Ok(refused) => {
                for t in &mut topics {
                    for p in &mut t.partitions {
                        if refused.iter().any(|(topic, n)| *topic == *t.name && *n == p.partition_index) {
                            p.error_code = Code::StaleMemberEpoch.code();
                        }
                    }
                }
                Reply::Now(OffsetCommitResponse::default().with_topics(topics))
            }
            Err(code) => Reply::Now(self.refuse(code, context.version)),
        }
    }

    fn refuse(&self, code: Code, _version: i16) -> OffsetCommitResponse {
        let topics = self
            .topics
            .iter()
            .map(|topic| {
                OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(
                    topic.partitions.iter().map(|p| answer(p.partition_index, Some(code))).collect(),
                )
            })
            .collect();
        OffsetCommitResponse::default().with_topics(topics)
    }
}

fn answer(partition: i32, error: Option<Code>) -> OffsetCommitResponsePartition {
    OffsetCommitResponsePartition::default()
        .with_partition_index(partition)
        .with_error_code(error.map_or(0, |code| code.code()))
}

impl Cluster {
    /// Refuses a request about a group that has no name, or that another broker coordinates.
    pub(super) fn check_group(&self, context: &Context, group: &StrBytes) -> Result<(), Code> {
        if group.is_empty() {
            return Err(Code::InvalidGroupId);
        }
        self.check_coordinator(context, Coordinated::Group, group)
    }

    /// Adds an offset to those that a group is offered, unless it is refused by itself.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION, OFFSET_METADATA_TOO_LARGE.
    pub(super) fn offer(
        &self,
        offers: &mut Vec<Offered>,
        topic: &StrBytes,
        partition: i32,
        committed: Committed,
    ) -> Result<(), Code> {
        if !self.has_partition(topic, partition) {
            return Err(Code::UnknownTopicOrPartition);
        }
        if committed.metadata.len() > self.groups.settings.max_metadata {
            return Err(Code::OffsetMetadataTooLarge);
        }
        offers.push(Offered { topic: topic.clone(), partition, committed });
        Ok(())
    }

    /// Is there such a partition?
    pub(super) fn has_partition(&self, topic: &str, partition: i32) -> bool {
        self.topics.partition(topic, partition).is_some()
    }
}
