//! Metadata (3), versions 0 to 13.
//!
//! A topic that is asked for by name is created where the request (from version 4) and the cluster allow it. That
//! request is answered with UNKNOWN_TOPIC_OR_PARTITION, as by the real broker, and the next one with the topic.
//! The controller named is the broker with the lowest number, where the real one names any.

use std::ops::RangeInclusive;

use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Api, Code, Context, Field, Reply, Shape, since};
use crate::Topic;
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::configs::TopicConfig;
use crate::embedded::kafka::creation::check_name;
use crate::embedded::kafka::topics::{TopicState, is_internal};

/// What an authorizer that allows everything says: bits by `AclOperation`.
pub(super) const TOPIC_OPERATIONS: i32 = 0x0df8;
pub(super) const CLUSTER_OPERATIONS: i32 = 0x1fa0;
/// Operations were not asked for.
pub(super) const NOT_ASKED: i32 = i32::MIN;

impl Api for MetadataRequest {
    const SERVED: RangeInclusive<i16> = 0..=13;
    const SHAPE: &'static [Field] = &[
        Field {
            from: 0,
            to: i16::MAX,
            shape: Shape::Structs(&[since(10, Shape::Fixed(16)), since(0, Shape::Text)]),
        },
        since(4, Shape::Fixed(1)),
        Field { from: 8, to: 10, shape: Shape::Fixed(1) },
        since(8, Shape::Fixed(1)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<MetadataResponse> {
        let version = context.version;
        let create = cluster.settings.auto_create_topics && (version < 4 || self.allow_auto_topic_creation);
        let operations = if self.include_topic_authorized_operations { TOPIC_OPERATIONS } else { NOT_ASKED };
        let asked = self.topics.filter(|topics| version > 0 || !topics.is_empty());
        let mut topics = Vec::new();
        match asked {
            None => {
                for (topic, state) in cluster.topics.iter() {
                    topics.push(describe(cluster, topic, state, operations));
                }
            }
            Some(asked) => {
                for topic in asked {
                    topics.push(match topic.name {
                        Some(name) if topic.topic_id.is_nil() => by_name(cluster, &name, create, operations),
                        name => by_id(cluster, topic.topic_id, name, version, operations),
                    });
                }
            }
        }
        let brokers = cluster.nodes.values().filter(|node| node.is_up()).map(|node| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(node.id.0))
                .with_host(node.host.clone().into())
                .with_port(i32::from(node.port))
                .with_rack(node.rack.clone().map(Into::into))
        });
        let mut response = MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(cluster.id.clone()))
            .with_controller_id(BrokerId(cluster.up().first().map_or(-1, |node| node.0)))
            .with_topics(topics);
        if self.include_cluster_authorized_operations {
            response.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
        Reply::Now(response)
    }

    fn refuse(&self, code: Code, version: i16) -> MetadataResponse {
        let topics = self.topics.iter().flatten().map(|topic| {
            let name = topic.name.clone().or_else(|| (version < 12).then(TopicName::default));
            MetadataResponseTopic::default()
                .with_error_code(code.code())
                .with_name(name)
                .with_topic_id(topic.topic_id)
        });
        let mut response = MetadataResponse::default().with_topics(topics.collect());
        if version >= 13 {
            response.error_code = code.code();
        }
        response
    }
}

fn failed(code: Code, name: Option<TopicName>, id: Uuid) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(code.code()).with_name(name).with_topic_id(id)
}

fn by_name(cluster: &mut Cluster, name: &TopicName, create: bool, operations: i32) -> MetadataResponseTopic {
    if cluster.topics.get(name).is_none() {
        if check_name(name).is_err() {
            return failed(Code::InvalidTopicException, Some(name.clone()), Uuid::nil());
        }
        if create && !is_internal(name) {
            // Where it cannot be created, the next question is answered like this one.
            let _ = cluster.create(name, -1, -1, TopicConfig::default(), true);
        }
        return failed(Code::UnknownTopicOrPartition, Some(name.clone()), Uuid::nil());
    }
    match cluster.topics.entry(name) {
        Some((topic, state)) => describe(cluster, topic, state, operations),
        None => failed(Code::UnknownTopicOrPartition, Some(name.clone()), Uuid::nil()),
    }
}

fn by_id(
    cluster: &Cluster,
    id: Uuid,
    name: Option<TopicName>,
    version: i16,
    operations: i32,
) -> MetadataResponseTopic {
    let name = name.or_else(|| (version < 12).then(TopicName::default));
    if id.is_nil() || version < 12 {
        return failed(Code::InvalidRequest, name, id);
    }
    match cluster.topics.name_of(id).and_then(|topic| cluster.topics.entry(topic.as_str())) {
        Some((topic, state)) => describe(cluster, topic, state, operations),
        None => failed(Code::UnknownTopicId, name, id),
    }
}

fn describe(cluster: &Cluster, topic: &Topic, state: &TopicState, operations: i32) -> MetadataResponseTopic {
    let up = cluster.up();
    let ids = |nodes: &[crate::NodeId]| nodes.iter().map(|node| BrokerId(node.0)).collect::<Vec<_>>();
    let partitions = (0..).zip(&state.partitions).map(|(number, partition)| {
        let offline = partition.replicas.iter().filter(|node| !up.contains(node));
        let code = if partition.leader.is_some() { 0 } else { Code::LeaderNotAvailable.code() };
        MetadataResponsePartition::default()
            .with_error_code(code)
            .with_partition_index(number)
            .with_leader_id(BrokerId(partition.leader.map_or(-1, |leader| leader.0)))
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
            .with_offline_replicas(offline.map(|node| BrokerId(node.0)).collect())
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.as_str().to_owned()))))
        .with_topic_id(state.id)
        .with_is_internal(is_internal(topic.as_str()))
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(operations)
}
