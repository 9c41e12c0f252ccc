//! CreateTopics (19), versions 2 to 7.
//!
//! Partitions and replicas by number or by assignment, configuration, `validate_only`. From version 5 the answer has
//! the topic's configuration (KIP-525). A replication factor of -1 means up to three, as many as there are brokers
//! (the real default is 1: a cluster of several is asked for in tests that lose one). Topics are there when it is
//! answered, so `timeout_ms` has no effect. Any broker answers, where the real one passes it on to its controller.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::NodeId;
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::configs::{TOPIC, TopicConfig};
use crate::embedded::kafka::creation::{check_assignment, check_name};
use crate::embedded::kafka::log::Refusal;

impl Api for CreateTopicsRequest {
    const SERVED: RangeInclusive<i16> = 2..=7;
    const SHAPE: &'static [Field] = &[
        always(Shape::Structs(&[
            always(Shape::Text),
            always(Shape::Fixed(4 + 2)),
            always(Shape::Structs(&[always(Shape::Fixed(4)), always(Shape::Values(4))])),
            always(Shape::Structs(&[always(Shape::Text), always(Shape::Text)])),
        ])),
        always(Shape::Fixed(4 + 1)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<CreateTopicsResponse> {
        let mut times = BTreeMap::<_, usize>::new();
        for topic in &self.topics {
            *times.entry(topic.name.0.clone()).or_default() += 1;
        }
        let mut topics = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let once = times.get(&topic.name.0) == Some(&1);
            let result = if once {
                create(cluster, topic, !self.validate_only)
            } else {
                Err(Refusal::new(Code::InvalidRequest, "Duplicate topic name."))
            };
            let answer = CreatableTopicResult::default().with_name(topic.name.clone());
            topics.push(match result {
                Ok((partitions, replicas, config)) => {
                    let id = cluster.topics.get(&topic.name).map(|state| state.id).unwrap_or_default();
                    let configs = (context.version >= 5).then(|| describe(&config));
                    answer
                        .with_topic_id(id)
                        .with_num_partitions(partitions)
                        .with_replication_factor(replicas)
                        .with_configs(configs)
                }
                Err(refusal) => answer
                    .with_error_code(refusal.code.code())
                    .with_error_message(Some(refusal.message.into()))
                    .with_num_partitions(-1)
                    .with_replication_factor(-1)
                    .with_configs((context.version >= 5).then(Vec::new)),
            });
        }
        Reply::Now(CreateTopicsResponse::default().with_topics(topics))
    }

    fn refuse(&self, code: Code, _version: i16) -> CreateTopicsResponse {
        let topics = self.topics.iter().map(|topic| {
            CreatableTopicResult::default().with_name(topic.name.clone()).with_error_code(code.code())
        });
        CreateTopicsResponse::default().with_topics(topics.collect())
    }
}

type Created = (i32, i16, TopicConfig);

fn create(cluster: &mut Cluster, topic: &CreatableTopic, really: bool) -> Result<Created, Refusal> {
    check_name(&topic.name)?;
    if cluster.topics.get(&topic.name).is_some() {
        let why = format!("Topic '{}' already exists.", &*topic.name.0);
        return Err(Refusal::new(Code::TopicAlreadyExists, why));
    }
    let mut values = Vec::new();
    for config in &topic.configs {
        match &config.value {
            Some(value) => values.push((&*config.name, &**value)),
            None => {
                let why = format!("Null value not supported for topic configs: {}", config.name);
                return Err(Refusal::new(Code::InvalidConfig, why));
            }
        }
    }
    let config =
        || TopicConfig::new(values.iter().copied()).map_err(|why| Refusal::new(Code::InvalidConfig, why));
    let assignment = if topic.assignments.is_empty() {
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            return Err(Refusal::new(
                Code::InvalidReplicationFactor,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            ));
        }
        if topic.num_partitions < -1 || topic.num_partitions == 0 {
            return Err(Refusal::new(
                Code::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.",
            ));
        }
        cluster.create(&topic.name, topic.num_partitions, topic.replication_factor, config()?, really)?
    } else {
        if topic.replication_factor != -1 {
            return Err(Refusal::new(
                Code::InvalidRequest,
                "A manual partition assignment was specified, but replication factor was not set to -1.",
            ));
        }
        if topic.num_partitions != -1 {
            return Err(Refusal::new(
                Code::InvalidRequest,
                "A manual partition assignment was specified, but numPartitions was not set to -1.",
            ));
        }
        let nodes: Vec<_> = cluster.nodes.keys().copied().collect();
        let named = topic.assignments.iter().map(|assignment| {
            (assignment.partition_index, assignment.broker_ids.iter().map(|id| NodeId(id.0)).collect())
        });
        let assignment = check_assignment(named, &nodes)?;
        cluster.create_assigned(&topic.name, assignment.clone(), config()?, really)?;
        assignment
    };
    let partitions = i32::try_from(assignment.len()).unwrap_or(i32::MAX);
    let replicas = assignment.first().map_or(0, Vec::len);
    Ok((partitions, i16::try_from(replicas).unwrap_or(i16::MAX), config()?))
}

fn describe(config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    const OF_THE_TOPIC: i8 = 1;
    const DEFAULT: i8 = 5;
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    TOPIC
        .iter()
        .map(|known| {
            let set = config.get_set(known.name).is_some();
            CreatableTopicConfigs::default()
                .with_name(text(known.name))
                .with_value(Some(text(config.get(known))))
                .with_config_source(if set { OF_THE_TOPIC } else { DEFAULT })
        })
        .collect()
}
