//! CreatePartitions (37), versions 0 to 3: a topic gets more partitions, placed by the cluster or by assignment.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::NodeId;
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::creation::check_assignment;
use crate::embedded::kafka::log::Refusal;
use crate::embedded::kafka::topics::Partition;

impl Api for CreatePartitionsRequest {
    const SERVED: RangeInclusive<i16> = 0..=3;
    const SHAPE: &'static [Field] = &[
        always(Shape::Structs(&[
            always(Shape::Text),
            always(Shape::Fixed(4)),
            always(Shape::Structs(&[always(Shape::Values(4))])),
        ])),
        always(Shape::Fixed(4 + 1)),
    ];

    fn handle(self, cluster: &mut Cluster, _context: &Context) -> Reply<CreatePartitionsResponse> {
        let mut times = BTreeMap::<_, usize>::new();
        for topic in &self.topics {
            *times.entry(topic.name.0.clone()).or_default() += 1;
        }
        let results = self.topics.iter().map(|topic| {
            let extended = if times.get(&topic.name.0) == Some(&1) {
                extend(cluster, topic, !self.validate_only)
            } else {
                Err(Refusal::new(Code::InvalidRequest, "Duplicate topic name."))
            };
            let answer = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
            match extended {
                Ok(()) => answer,
                Err(refusal) => answer
                    .with_error_code(refusal.code.code())
                    .with_error_message(Some(refusal.message.into())),
            }
        });
        Reply::Now(CreatePartitionsResponse::default().with_results(results.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> CreatePartitionsResponse {
        let results = self.topics.iter().map(|topic| {
            CreatePartitionsTopicResult::default().with_name(topic.name.clone()).with_error_code(code.code())
        });
        CreatePartitionsResponse::default().with_results(results.collect())
    }
}

fn extend(cluster: &mut Cluster, topic: &CreatePartitionsTopic, really: bool) -> Result<(), Refusal> {
    let name = &*topic.name;
    let Some(state) = cluster.topics.get(name) else {
        return Err(Refusal::new(
            Code::UnknownTopicOrPartition,
            "This server does not host this topic-partition.",
        ));
    };
    let there = i32::try_from(state.partitions.len()).unwrap_or(i32::MAX);
    let invalid = |why: String| Err(Refusal::new(Code::InvalidPartitions, why));
    if topic.count == there {
        return invalid(format!("Topic already has {there} partition(s)."));
    }
    if topic.count < there {
        return invalid(format!(
            "The topic {name} currently has {there} partition(s); {} would not be an increase.",
            topic.count
        ));
    }
    let more = topic.count - there;
    let replicas = state.partitions.first().map_or(1, |partition| partition.replicas.len());
    let up = cluster.up();
    let placed = match &topic.assignments {
        None => {
            let replicas = i16::try_from(replicas).unwrap_or(i16::MAX);
            cluster.place(there, more, replicas, &up)?
        }
        Some(assignments) => {
            if i32::try_from(assignments.len()) != Ok(more) {
                return Err(Refusal::new(
                    Code::InvalidReplicaAssignment,
                    format!(
                        "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                        assignments.len()
                    ),
                ));
            }
            let nodes: Vec<_> = cluster.nodes.keys().copied().collect();
            let named = (0..).zip(assignments).map(|(number, assignment)| {
                (number, assignment.broker_ids.iter().map(|id| NodeId(id.0)).collect())
            });
            check_assignment(named, &nodes)?
        }
    };
    if !cluster.topics.has_room(placed.len()) {
        return Err(Refusal::new(Code::PolicyViolation, "the embedded cluster has too many partitions"));
    }
    if really {
        let partitions = placed.into_iter().map(|replicas| Partition::new(replicas, &up)).collect();
        cluster.topics.extend(name, partitions);
    }
    Ok(())
}
