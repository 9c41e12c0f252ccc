//! TxnOffsetCommit (28), versions 0 to 5 (KIP-98, KIP-447; KIP-890: version 4 may answer TRANSACTION_ABORTABLE, version
//! 5 adds the group to the transaction itself).
//!
//! The offsets are staged; they count when the transaction commits. Until then OffsetFetch with `require_stable` is
//! answered UNSTABLE_OFFSET_COMMIT.

use std::ops::RangeInclusive;

use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Asker, Committed, Moment, own};
use crate::embedded::kafka::transactions::producer;

impl Api for TxnOffsetCommitRequest {
    const SERVED: RangeInclusive<i16> = 0..=5;
    const SHAPE: &'static [Field] = &[
        always(Shape::Text),
        always(Shape::Text),
        always(Shape::Fixed(8)),
        always(Shape::Fixed(2)),
        since(3, Shape::Fixed(4)),
        since(3, Shape::Text),
        since(3, Shape::Text),
        always(Shape::Structs(&[
            always(Shape::Text),
            always(Shape::Structs(&[
                always(Shape::Fixed(4)),
                always(Shape::Fixed(8)),
                since(2, Shape::Fixed(4)),
                always(Shape::Text),
            ])),
        ])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<TxnOffsetCommitResponse> {
        let mut offers = Vec::new();
        let mut topics = Vec::new();
        for topic in &self.topics {
            let name = own(&topic.name);
            let mut partitions = Vec::new();
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
                TxnOffsetCommitResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        let producer_id = self.producer_id.0;
        let producer = producer(self.producer_id, self.producer_epoch);
        let asker = Asker {
            generation: if context.version >= 3 { self.generation_id } else { -1 },
            member: self.member_id.clone(),
            instance: self.group_instance_id.clone(),
            version: context.version,
            transactional: true,
        };
        let at = Moment { node: context.node, now: context.now };
        let done = cluster.check_group(context, &self.group_id).and_then(|()| {
            let (id, group) = (&self.transactional_id, &self.group_id);
            cluster.transactions.verify_group(id, producer, group, context.version, context.now)?;
            cluster.groups.stage_offsets(group, &asker, producer_id, offers, at)
        });
        Reply::Now(match done {
            Ok(()) => TxnOffsetCommitResponse::default().with_topics(topics),
            Err(code) => self.refuse(code, context.version),
        })
    }

    fn refuse(&self, code: Code, _version: i16) -> TxnOffsetCommitResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| answer(p.partition_index, Some(code)));
            TxnOffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        TxnOffsetCommitResponse::default().with_topics(topics.collect())
    }
}

fn answer(partition: i32, error: Option<Code>) -> TxnOffsetCommitResponsePartition {
    TxnOffsetCommitResponsePartition::default()
        .with_partition_index(partition)
        .with_error_code(error.map_or(0, |code| code.code()))
}
