//! ElectLeaders (43), versions 0 to 2 (KIP-183, KIP-460): the preferred leader, or any replica that is up.

use std::ops::RangeInclusive;

use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::nodes::set_leader;

const PREFERRED: i8 = 0;

impl Api for ElectLeadersRequest {
    const SERVED: RangeInclusive<i16> = 0..=2;
    const SHAPE: &'static [Field] = &[
        since(1, Shape::Fixed(1)),
        always(Shape::Structs(&[always(Shape::Text), always(Shape::Values(4))])),
        always(Shape::Fixed(4)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<ElectLeadersResponse> {
        let preferred = self.election_type == PREFERRED;
        let named: Vec<(StrBytes, Vec<i32>)> = match &self.topic_partitions {
            Some(topics) => {
                topics.iter().map(|topic| (topic.topic.0.clone(), topic.partitions.clone())).collect()
            }
            None => cluster
                .topics
                .iter()
                .map(|(topic, state)| {
                    let numbers = (0..).zip(&state.partitions).map(|(number, _)| number);
                    (topic.as_str().to_owned().into(), numbers.collect())
                })
                .collect(),
        };
        let mut results = Vec::new();
        for (topic, numbers) in named {
            let mut partitions = Vec::new();
            for number in numbers {
                let result = elect(cluster, context, &topic, number, preferred);
                // Of all partitions, only those are told of that had something to elect.
                if self.topic_partitions.is_none() && result == Err(Code::ElectionNotNeeded) {
                    continue;
                }
                partitions.push(answer(number, result.err()));
            }
            if !partitions.is_empty() {
                results.push(
                    ReplicaElectionResult::default()
                        .with_topic(TopicName(topic))
                        .with_partition_result(partitions),
                );
            }
        }
        Reply::Now(ElectLeadersResponse::default().with_replica_election_results(results))
    }

    fn refuse(&self, code: Code, version: i16) -> ElectLeadersResponse {
        if version >= 1 {
            return ElectLeadersResponse::default().with_error_code(code.code());
        }
        let results = self.topic_partitions.iter().flatten().map(|topic| {
            let partitions = topic.partitions.iter().map(|number| answer(*number, Some(code)));
            ReplicaElectionResult::default()
                .with_topic(topic.topic.clone())
                .with_partition_result(partitions.collect())
        });
        ElectLeadersResponse::default().with_replica_election_results(results.collect())
    }
}

fn answer(number: i32, code: Option<Code>) -> PartitionResult {
    let answer = PartitionResult::default().with_partition_id(number);
    match code {
        Some(code) => {
            answer.with_error_code(code.code()).with_error_message(Some(format!("{code:?}").into()))
        }
        None => answer,
    }
}

fn elect(
    cluster: &mut Cluster,
    context: &Context,
    topic: &str,
    number: i32,
    preferred: bool,
) -> Result<(), Code> {
    let up = cluster.up();
    let elected = cluster.topics.change(topic, number, |partition, _| {
        if preferred {
            let first = partition.replicas.first().copied();
            if partition.leader == first {
                return Err(Code::ElectionNotNeeded);
            }
            if !first.is_some_and(|first| partition.isr.contains(&first) && up.contains(&first)) {
                return Err(Code::PreferredLeaderNotAvailable);
            }
            set_leader(partition, first);
            return Ok(());
        }
        if partition.leader.is_some() {
            return Err(Code::ElectionNotNeeded);
        }
        partition.isr = partition.replicas.iter().copied().filter(|node| up.contains(node)).collect();
        let Some(first) = partition.isr.first().copied() else {
            partition.isr.clone_from(&partition.replicas);
            return Err(Code::EligibleLeadersNotAvailable);
        };
        set_leader(partition, Some(first));
        Ok(())
    });
    elected.unwrap_or(Err(Code::UnknownTopicOrPartition))?;
    cluster.wake_fetches(topic, number, None, context.now);
    Ok(())
}
