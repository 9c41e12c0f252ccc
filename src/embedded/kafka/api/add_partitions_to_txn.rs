//! AddPartitionsToTxn (24), versions 0 to 5 (KIP-98, KIP-890).
//!
//! All partitions are added, or none: where one does not exist, the others are answered OPERATION_NOT_ATTEMPTED. From
//! version 4 on it is what brokers send each other: several transactions, and `verify_only`. PRODUCER_FENCED is
//! INVALID_PRODUCER_EPOCH before version 2.

use std::ops::RangeInclusive;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::transactions::{Part, Producer, fenced_by_version, producer};

const TOPICS: Shape = Shape::Structs(&[always(Shape::Text), always(Shape::Values(4))]);

impl Api for AddPartitionsToTxnRequest {
    const SERVED: RangeInclusive<i16> = 0..=5;
    const SHAPE: &'static [Field] = &[
        since(4, Shape::Structs(&[always(Shape::Text), always(Shape::Fixed(8 + 2 + 1)), always(TOPICS)])),
        Field { from: 0, to: 3, shape: Shape::Text },
        Field { from: 0, to: 3, shape: Shape::Fixed(8 + 2) },
        Field { from: 0, to: 3, shape: TOPICS },
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<AddPartitionsToTxnResponse> {
        if context.version < 4 {
            let who = producer(self.v3_and_below_producer_id, self.v3_and_below_producer_epoch);
            let id = &self.v3_and_below_transactional_id;
            let results = add(cluster, context, id, who, false, &self.v3_and_below_topics);
            return Reply::Now(
                AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results),
            );
        }
        let results = self.transactions.iter().map(|t| {
            let who = producer(t.producer_id, t.producer_epoch);
            let results = add(cluster, context, &t.transactional_id, who, t.verify_only, &t.topics);
            AddPartitionsToTxnResult::default()
                .with_transactional_id(t.transactional_id.clone())
                .with_topic_results(results)
        });
        Reply::Now(AddPartitionsToTxnResponse::default().with_results_by_transaction(results.collect()))
    }

    fn refuse(&self, code: Code, version: i16) -> AddPartitionsToTxnResponse {
        let response = AddPartitionsToTxnResponse::default();
        if version < 4 {
            let results = results(&self.v3_and_below_topics, |_, _| code.code());
            response.with_results_by_topic_v3_and_below(results)
        } else {
            response.with_error_code(code.code())
        }
    }
}

fn add(
    cluster: &mut Cluster,
    context: &Context,
    id: &str,
    producer: Producer,
    verify_only: bool,
    topics: &[AddPartitionsToTxnTopic],
) -> Vec<AddPartitionsToTxnTopicResult> {
    let missing = |topic: &str, n: i32| cluster.topics.partition(topic, n).is_none();
    if topics.iter().any(|t| t.partitions.iter().any(|n| missing(&t.name, *n))) {
        return results(topics, |topic, n| match missing(topic, n) {
            true => Code::UnknownTopicOrPartition.code(),
            false => Code::OperationNotAttempted.code(),
        });
    }
    let code = |result: Result<(), Code>| {
        result.map_or_else(|code| fenced_by_version(code, context.version, 2).code(), |()| 0)
    };
    let coordinated = cluster.check_transaction_coordinator(context.node, id);
    if coordinated.is_err() {
        return results(topics, |_, _| code(coordinated));
    }
    if verify_only {
        return results(topics, |topic, n| {
            code(cluster.transactions.check(id, producer, Part::Partition(topic, n)))
        });
    }
    let parts: Vec<_> = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|n| Part::Partition(&topic.name, *n)))
        .collect();
    let result = cluster.transactions.add(id, producer, &parts, context.now);
    results(topics, |_, _| code(result))
}

fn results(
    topics: &[AddPartitionsToTxnTopic],
    code: impl Fn(&str, i32) -> i16,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let partition = |topic: &str, n: i32| {
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(n)
            .with_partition_error_code(code(topic, n))
    };
    topics
        .iter()
        .map(|topic| {
            AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(
                topic.partitions.iter().map(|n| partition(&topic.name, *n)).collect(),
            )
        })
        .collect()
}
