//! AlterPartitionReassignments (45), versions 0 and 1 (KIP-455): other replicas, which have all records at once.
//!
//! So there is never a reassignment in progress that could be cancelled (null replicas).

use std::ops::RangeInclusive;

use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::NodeId;
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::creation::check_assignment;
use crate::embedded::kafka::log::Refusal;

impl Api for AlterPartitionReassignmentsRequest {
    const SERVED: RangeInclusive<i16> = 0..=1;
    const SHAPE: &'static [Field] = &[
        always(Shape::Fixed(4)),
        since(1, Shape::Fixed(1)),
        always(Shape::Structs(&[
            always(Shape::Text),
            always(Shape::Structs(&[always(Shape::Fixed(4)), always(Shape::Values(4))])),
        ])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<AlterPartitionReassignmentsResponse> {
        let mut responses = Vec::new();
        for topic in &self.topics {
            let partitions = topic.partitions.iter().map(|partition| {
                let replicas = partition
                    .replicas
                    .as_ref()
                    .map(|replicas| replicas.iter().map(|id| NodeId(id.0)).collect::<Vec<_>>());
                let allow = context.version < 1 || self.allow_replication_factor_change;
                let assigned =
                    assign(cluster, context, &topic.name, partition.partition_index, replicas, allow);
                let answer =
                    ReassignablePartitionResponse::default().with_partition_index(partition.partition_index);
                match assigned {
                    Ok(()) => answer,
                    Err(refusal) => answer
                        .with_error_code(refusal.code.code())
                        .with_error_message(Some(refusal.message.into())),
                }
            });
            let partitions = partitions.collect();
            responses.push(
                ReassignableTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        let mut response = AlterPartitionReassignmentsResponse::default().with_responses(responses);
        if context.version >= 1 {
            response.allow_replication_factor_change = self.allow_replication_factor_change;
        }
        Reply::Now(response)
    }

    fn refuse(&self, code: Code, _version: i16) -> AlterPartitionReassignmentsResponse {
        AlterPartitionReassignmentsResponse::default().with_error_code(code.code())
    }
}

fn assign(
    cluster: &mut Cluster,
    context: &Context,
    topic: &str,
    number: i32,
    replicas: Option<Vec<NodeId>>,
    allow_other_factor: bool,
) -> Result<(), Refusal> {
    let Some(partition) = cluster.topics.partition(topic, number) else {
        let why = "This server does not host this topic-partition.";
        return Err(Refusal::new(Code::UnknownTopicOrPartition, why));
    };
    let Some(replicas) = replicas else {
        return Err(Refusal::new(
            Code::NoReassignmentInProgress,
            "No partition reassignment is in progress.",
        ));
    };
    if !allow_other_factor && replicas.len() != partition.replicas.len() {
        let why = "The replication factor is changed but this is not allowed.";
        return Err(Refusal::new(Code::InvalidReplicationFactor, why));
    }
    let nodes: Vec<_> = cluster.nodes.keys().copied().collect();
    check_assignment([(0, replicas.clone())], &nodes)?;
    let up = cluster.up();
    cluster.topics.change(topic, number, |partition, _| {
        partition.isr = replicas.iter().copied().filter(|node| up.contains(node)).collect();
        if partition.isr.is_empty() {
            partition.isr.clone_from(&replicas);
        }
        if !partition.leader.is_some_and(|leader| replicas.contains(&leader)) {
            // The election that follows finds the leader.
            partition.leader = None;
        }
        partition.replicas = replicas;
    });
    cluster.elect_all(context.now);
    Ok(())
}
