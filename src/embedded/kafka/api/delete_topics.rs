//! DeleteTopics (20), versions 1 to 6: by name, and from version 6 by id (KIP-516).
//!
//! The topic is gone when it is answered, with its records and the fetches that wait for them.

use std::ops::RangeInclusive;

use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;

impl Api for DeleteTopicsRequest {
    const SERVED: RangeInclusive<i16> = 1..=6;
    const SHAPE: &'static [Field] = &[
        since(6, Shape::Structs(&[always(Shape::Text), always(Shape::Fixed(16))])),
        Field { from: 0, to: 5, shape: Shape::Texts },
        always(Shape::Fixed(4)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DeleteTopicsResponse> {
        let mut responses = Vec::new();
        for name in &self.topic_names {
            let deleted = cluster.delete_topic(name, context.now);
            let answer = DeletableTopicResult::default().with_name(Some(name.clone()));
            responses.push(if deleted { answer } else { failed(answer, Code::UnknownTopicOrPartition) });
        }
        for topic in &self.topics {
            let answer = DeletableTopicResult::default().with_topic_id(topic.topic_id);
            responses.push(match &topic.name {
                Some(name) if topic.topic_id.is_nil() => {
                    let id = cluster.topics.get(name).map(|state| state.id).unwrap_or_default();
                    let answer = answer.with_name(Some(name.clone())).with_topic_id(id);
                    if cluster.delete_topic(name, context.now) {
                        answer
                    } else {
                        failed(answer, Code::UnknownTopicOrPartition)
                    }
                }
                Some(name) => failed(answer.with_name(Some(name.clone())), Code::InvalidRequest),
                None if topic.topic_id.is_nil() => failed(answer, Code::InvalidRequest),
                None => match cluster.topics.name_of(topic.topic_id).cloned() {
                    Some(name) => {
                        cluster.delete_topic(name.as_str(), context.now);
                        answer.with_name(Some(TopicName(StrBytes::from_string(name.as_str().to_owned()))))
                    }
                    None => failed(answer, Code::UnknownTopicId),
                },
            });
        }
        Reply::Now(DeleteTopicsResponse::default().with_responses(responses))
    }

    fn refuse(&self, code: Code, _version: i16) -> DeleteTopicsResponse {
        let by_name = self
            .topic_names
            .iter()
            .map(|name| failed(DeletableTopicResult::default().with_name(Some(name.clone())), code));
        let by_id = self.topics.iter().map(|topic| {
            let answer = DeletableTopicResult::default().with_name(topic.name.clone());
            failed(answer.with_topic_id(topic.topic_id), code)
        });
        DeleteTopicsResponse::default().with_responses(by_name.chain(by_id).collect())
    }
}

fn failed(answer: DeletableTopicResult, code: Code) -> DeletableTopicResult {
    let message = match code {
        Code::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        Code::UnknownTopicId => "This server does not host this topic ID.",
        Code::InvalidRequest => "You may not specify both topic name and topic id.",
        _ => "",
    };
    answer
        .with_error_code(code.code())
        .with_error_message((!message.is_empty()).then(|| StrBytes::from_static_str(message)))
}
