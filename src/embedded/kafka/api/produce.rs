//! Produce (0), versions 3 to 13.
//!
//! Checks and their order as Apache Kafka 4.3. `acks=0` is never answered; where it fails the connection ends, as the
//! real broker does. `acks=all` needs `min.insync.replicas`; followers have at once what the leader has, so it waits
//! for nobody and `timeout_ms` has no effect. From version 10 a wrong leader is answered with the right one (KIP-951).
//!
//! At the memory limit a producer gets POLICY_VIOLATION, which is not retriable, with a message that names the limit.
//! The real broker has no such limit; it says KAFKA_STORAGE_ERROR when its disk is full.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{BrokerId, ProduceRequest, ProduceResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::log::{Appended, Refusal, Rules};
use crate::embedded::kafka::topics::is_internal;
use crate::embedded::machine::Output;
use crate::{NodeId, Topic};

/// A batch that is a smaller part of its request than this is copied out of it.
const KEPT: usize = 8;

impl Api for ProduceRequest {
    const SERVED: RangeInclusive<i16> = 3..=13;
    const SHAPE: &'static [Field] = &[
        always(Shape::Text),
        always(Shape::Fixed(2 + 4)),
        always(Shape::Structs(&[
            Field { from: 0, to: 12, shape: Shape::Text },
            since(13, Shape::Fixed(16)),
            always(Shape::Structs(&[always(Shape::Fixed(4)), always(Shape::Bytes)])),
        ])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<ProduceResponse> {
        if !matches!(self.acks, -1..=1) {
            return Reply::Now(self.refuse(Code::InvalidRequiredAcks, context.version));
        }
        let (acks, mut failed) = (self.acks, false);
        let mut leaders = BTreeSet::new();
        let mut responses = Vec::with_capacity(self.topic_data.len());
        let transactional_id = self.transactional_id.as_ref().map(|id| id.as_str());
        for data in self.topic_data {
            let found = if context.version >= 13 {
                cluster.topics.name_of(data.topic_id).ok_or(Code::UnknownTopicId)
            } else {
                cluster.topics.entry(&data.name).map(|(name, _)| name).ok_or(Code::UnknownTopicOrPartition)
            };
            let found = found.cloned();
            let mut partitions = Vec::with_capacity(data.partition_data.len());
            for PartitionProduceData { index, records, .. } in data.partition_data {
                let appended = match &found {
                    _ if is_internal(&data.name) => Err(Refusal::new(
                        Code::InvalidTopicException,
                        format!("Cannot append to internal topic {}", data.name.as_str()),
                    )),
                    Ok(topic) => append(cluster, context, transactional_id, acks, topic, index, records),
                    Err(code) => Err(Refusal::new(*code, "")),
                };
                let mut answer = PartitionProduceResponse::default().with_index(index);
                match appended {
                    Ok((appended, log_start)) => {
                        answer = answer
                            .with_base_offset(appended.base_offset)
                            .with_log_append_time_ms(appended.append_time)
                            .with_log_start_offset(log_start);
                    }
                    Err(refusal) => {
                        failed = true;
                        answer = refuse_partition(answer, &refusal);
                        // What the producer's state refuses is told with the log's start, as by the real broker.
                        if matches!(
                            refusal.code,
                            Code::OutOfOrderSequenceNumber
                                | Code::InvalidProducerEpoch
                                | Code::UnknownProducerId
                        ) && let Ok(topic) = &found
                            && let Some(partition) = cluster.topics.partition(topic.as_str(), index)
                        {
                            answer.log_start_offset = partition.log.log_start();
                        }
                        if refusal.code == Code::NotLeaderOrFollower
                            && context.version >= 10
                            && let Ok(topic) = &found
                            && let Some(partition) = cluster.topics.partition(topic.as_str(), index)
                        {
                            leaders.extend(partition.leader);
                            answer.current_leader = LeaderIdAndEpoch::default()
                                .with_leader_id(BrokerId(partition.leader.map_or(-1, |leader| leader.0)))
                                .with_leader_epoch(partition.leader_epoch);
                        }
                    }
                }
                partitions.push(answer);
            }
            responses.push(
                TopicProduceResponse::default()
                    .with_name(data.name)
                    .with_topic_id(data.topic_id)
                    .with_partition_responses(partitions),
            );
        }
        if acks == 0 {
            if failed {
                tracing::debug!(connection = ?context.connection, "a produce with acks=0 failed; the connection ends");
                cluster.end(context.connection, Output::Close);
            }
            return Reply::Never;
        }
        Reply::Now(
            ProduceResponse::default()
                .with_responses(responses)
                .with_node_endpoints(endpoints(cluster, &leaders)),
        )
    }

    fn refuse(&self, code: Code, version: i16) -> ProduceResponse {
        let _ = version;
        let refusal = Refusal::new(code, "");
        let topics = self.topic_data.iter().map(|topic| {
            let partitions = topic.partition_data.iter().map(|data| {
                refuse_partition(PartitionProduceResponse::default().with_index(data.index), &refusal)
            });
            TopicProduceResponse::default()
                .with_name(topic.name.clone())
                .with_topic_id(topic.topic_id)
                .with_partition_responses(partitions.collect())
        });
        ProduceResponse::default().with_responses(topics.collect())
    }
}

fn refuse_partition(answer: PartitionProduceResponse, refusal: &Refusal) -> PartitionProduceResponse {
    let records = refusal.records.iter().map(|(index, message)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(*index)
            .with_batch_index_error_message(Some(message.clone().into()))
    });
    answer
        .with_error_code(refusal.code.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
        .with_record_errors(records.collect())
        .with_error_message((!refusal.message.is_empty()).then(|| refusal.message.clone().into()))
}

fn endpoints(cluster: &Cluster, leaders: &BTreeSet<NodeId>) -> Vec<NodeEndpoint> {
    leaders
        .iter()
        .filter_map(|id| cluster.nodes.get(id))
        .map(|node| {
            NodeEndpoint::default()
                .with_node_id(BrokerId(node.id.0))
                .with_host(node.host.clone().into())
                .with_port(i32::from(node.port))
                .with_rack(node.rack.clone().map(Into::into))
        })
        .collect()
}

/// One partition's batch: who may append it where is asked here, what it may be by the log.
fn append(
    cluster: &mut Cluster,
    context: &Context,
    transactional_id: Option<&str>,
    acks: i16,
    topic: &Topic,
    index: i32,
    records: Option<Bytes>,
) -> Result<(Appended, i64), Refusal> {
    let name = topic.as_str();
    let Some(records) = records else {
        return Err(Refusal::new(Code::InvalidRecord, "Produce request partition with null records"));
    };
    let Some(state) = cluster.topics.get(name) else {
        return Err(Refusal::new(Code::UnknownTopicOrPartition, ""));
    };
    let Some(partition) = state.partition(index) else {
        return Err(Refusal::new(Code::UnknownTopicOrPartition, ""));
    };
    if partition.leader != Some(context.node) {
        return Err(Refusal::new(Code::NotLeaderOrFollower, ""));
    }
    let config = &state.config;
    let least = config.min_insync.min(partition.replicas.len());
    if acks == -1 && partition.isr.len() < least {
        return Err(Refusal::new(
            Code::NotEnoughReplicas,
            format!(
                "The size of the current ISR is insufficient to satisfy the min.isr requirement of {} for partition {name}-{index}",
                least
            ),
        ));
    }
    let limit = cluster.settings.memory_limit;
    if cluster.topics.held().saturating_add(records.len() as u64) > limit {
        return Err(Refusal::new(
            Code::PolicyViolation,
            format!(
                "the embedded cluster holds {} of at most {limit} bytes of records",
                cluster.topics.held()
            ),
        ));
    }
    let rules = Rules {
        max_message_bytes: config.max_message_bytes,
        segment_bytes: config.segment_bytes,
        append_time: config.append_time,
        before_max_ms: config.before_max_ms,
        after_max_ms: config.after_max_ms,
        compacted: config.compact,
        zstd: context.version >= 7,
        starts_at_zero: context.version >= 12,
    };
    let place = (name, index);
    cluster.verify_batch(transactional_id, place, &records, context.version, context.now).map_err(
        |code| {
            let text = match code {
                Code::InvalidTxnState => "Partition was not added to the transaction",
                _ => "",
            };
            Refusal::new(code, text)
        },
    )?;
    // What is stored must not keep a much larger request in memory, of which the rest was refused or is deleted first.
    let records =
        if records.len() < context.size / KEPT { Bytes::copy_from_slice(&records) } else { records };
    let wall = cluster.wall(context.now);
    let appended = cluster.topics.change(name, index, |partition, _| {
        let appended = partition.log.append(&records, &rules, partition.leader_epoch, wall);
        appended.map(|appended| (appended, partition.log.log_start()))
    });
    let (appended, log_start) =
        appended.unwrap_or_else(|| Err(Refusal::new(Code::UnknownTopicOrPartition, "")))?;
    if !appended.duplicate {
        cluster.wake_fetches(name, index, Some(records.len() as u64), context.now);
    }
    Ok((appended, log_start))
}
