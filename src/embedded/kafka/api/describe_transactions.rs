//! DescribeTransactions (65), version 0 (KIP-664).
//!
//! A group whose offsets are part of the transaction shows as its partition of `__consumer_offsets`, as in the real
//! broker.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::transactions::{Touched, offsets_partition};

impl Api for DescribeTransactionsRequest {
    const SERVED: RangeInclusive<i16> = 0..=0;
    // Each id is a string: an array of structs of one field, without the structs' tags.
    const SHAPE: &'static [Field] = &[always(Shape::Texts)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DescribeTransactionsResponse> {
        let states = self.transactional_ids.iter().map(|id| describe(cluster, context, id));
        Reply::Now(DescribeTransactionsResponse::default().with_transaction_states(states.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> DescribeTransactionsResponse {
        let states = self.transactional_ids.iter().map(|id| refused(id, code));
        DescribeTransactionsResponse::default().with_transaction_states(states.collect())
    }
}

fn refused(id: &TransactionalId, code: Code) -> TransactionState {
    TransactionState::default().with_transactional_id(id.clone()).with_error_code(code.code())
}

fn describe(cluster: &Cluster, context: &Context, id: &TransactionalId) -> TransactionState {
    if id.is_empty() {
        return refused(id, Code::InvalidRequest);
    }
    if let Err(code) = cluster.check_transaction_coordinator(context.node, id) {
        return refused(id, code);
    }
    let Some(transaction) = cluster.transactions.get(id) else {
        return refused(id, Code::TransactionalIdNotFound);
    };
    let (producer, epoch) = transaction.producer();
    TransactionState::default()
        .with_transactional_id(id.clone())
        .with_transaction_state(StrBytes::from_static_str(transaction.state().name()))
        .with_transaction_timeout_ms(i32::try_from(transaction.timeout().as_millis()).unwrap_or(i32::MAX))
        .with_transaction_start_time_ms(transaction.started().map_or(-1, |at| cluster.wall(at).0))
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(epoch.0)
        .with_topics(topics(transaction.touched()))
}

fn topics(touched: &Touched) -> Vec<TopicData> {
    let mut topics: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for (topic, n) in &touched.partitions {
        topics.entry(topic).or_default().insert(*n);
    }
    for group in &touched.groups {
        topics.entry("__consumer_offsets").or_default().insert(offsets_partition(group));
    }
    topics
        .into_iter()
        .map(|(topic, partitions)| {
            TopicData::default()
                .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partitions(partitions.into_iter().collect())
        })
        .collect()
}
