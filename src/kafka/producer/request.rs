//! Batches as a produce request, and its answer as an answer to each. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use super::accumulator::{Answer, Sending};
use super::completion::Written;
use crate::codec::record_batch::Pieces;
use crate::kafka::client::{text, topic_name};
use crate::kafka::wire::Produce;
use crate::{Error, ErrorKind, NodeId, Offset, Timestamp, Topic};

/// The request, and its batches in the order in which they stand in it.
pub(super) fn write_request(
    acks: i16,
    transactional_id: Option<&str>,
    limit: Duration,
    parts: BTreeMap<Topic, Vec<(Sending, Pieces)>>,
) -> (Produce, Vec<Sending>) {
    let (mut sendings, mut behind) = (Vec::new(), Vec::new());
    let mut topics = Vec::with_capacity(parts.len());
    for (topic, batches) in parts {
        let mut data = Vec::with_capacity(batches.len());
        for (sending, pieces) in batches {
            let (first, rest) = pieces.into_parts();
            data.push(
                PartitionProduceData::default().with_index(sending.partition.0).with_records(Some(first)),
            );
            behind.push(rest);
            sendings.push(sending);
        }
        topics.push(TopicProduceData::default().with_name(topic_name(&topic)).with_partition_data(data));
    }
    let request = ProduceRequest::default()
        .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
        .with_acks(acks)
        .with_timeout_ms(i32::try_from(limit.as_millis()).unwrap_or(i32::MAX))
        .with_topic_data(topics);
    (Produce { request, behind }, sendings)
}

/// A topic's name, and what the broker said of one of its partitions.
type Told = (StrBytes, PartitionProduceResponse);

/// What the broker said of each batch. Brokers answer in the order of the request; another order is read too.
pub(super) fn read_answer(
    node: NodeId,
    answer: ProduceResponse,
    sendings: Vec<Sending>,
    out: &mut Vec<(Sending, Answer)>,
) {
    let mut told = answer.responses.into_iter().flat_map(|topic| {
        let name = topic.name.0;
        topic.partition_responses.into_iter().map(move |p| (name.clone(), p))
    });
    let mut others: Vec<Option<Told>> = Vec::new();
    for sending in sendings {
        let mine =
            |(name, p): &Told| p.index == sending.partition.0 && name.as_str() == sending.topic.as_str();
        let kept = others.iter_mut().find(|o| o.as_ref().is_some_and(mine));
        let mut found = kept.and_then(Option::take);
        while found.is_none() {
            match told.next() {
                Some(next) if mine(&next) => found = Some(next),
                Some(other) => others.push(Some(other)),
                None => break,
            }
        }
        let answer = match found {
            Some((_, p)) => {
                let append_time = (p.log_append_time_ms >= 0).then_some(Timestamp(p.log_append_time_ms));
                Answer::Broker {
                    code: p.error_code,
                    written: Written { base_offset: Offset(p.base_offset), append_time },
                    message: p.error_message.map(|m| m.as_str().to_owned()),
                }
            }
            None => {
                let what = format!(
                    "the answer of broker {node} leaves out topic {} partition {}",
                    sending.topic, sending.partition
                );
                Answer::Failed(Error::new(ErrorKind::Malformed, what).ambiguous())
            }
        };
        out.push((sending, answer));
    }
}
