//! DescribeConfigs (32), versions 1 to 4: topics and brokers.
//!
//! A broker answers for itself; with an empty name it tells what was changed for all. Names, values, sources and
//! synonyms are the real broker's; documentation is left out (null). Groups, client metrics and loggers are refused
//! with INVALID_REQUEST.

use std::ops::RangeInclusive;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::NodeId;
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::configs::{Known, TOPIC, TopicConfig, broker};
use crate::embedded::kafka::log::Refusal;

pub(super) const TOPIC_RESOURCE: i8 = 2;
pub(super) const BROKER_RESOURCE: i8 = 4;

/// Where a value comes from (`ConfigSource`).
mod source {
    pub(super) const TOPIC: i8 = 1;
    pub(super) const BROKER: i8 = 2;
    pub(super) const ALL_BROKERS: i8 = 3;
    pub(super) const STATIC: i8 = 4;
    pub(super) const DEFAULT: i8 = 5;
}

impl Api for DescribeConfigsRequest {
    const SERVED: RangeInclusive<i16> = 1..=4;
    const SHAPE: &'static [Field] = &[
        always(Shape::Structs(&[always(Shape::Fixed(1)), always(Shape::Text), always(Shape::Texts)])),
        always(Shape::Fixed(1)),
        since(3, Shape::Fixed(1)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DescribeConfigsResponse> {
        let results = self.resources.iter().map(|resource| {
            let described = match resource.resource_type {
                TOPIC_RESOURCE => topic(cluster, &resource.resource_name),
                BROKER_RESOURCE => of_broker(cluster, context.node, &resource.resource_name),
                other => {
                    Err(Refusal::new(Code::InvalidRequest, format!("Unsupported resource type: {other}")))
                }
            };
            let answer = result(resource);
            match described {
                Ok(mut configs) => {
                    if let Some(keys) = &resource.configuration_keys {
                        configs.retain(|config| keys.contains(&config.name));
                    }
                    if !self.include_synonyms {
                        configs.iter_mut().for_each(|config| config.synonyms.clear());
                    }
                    answer.with_configs(configs)
                }
                Err(refusal) => answer
                    .with_error_code(refusal.code.code())
                    .with_error_message(Some(refusal.message.into())),
            }
        });
        Reply::Now(DescribeConfigsResponse::default().with_results(results.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> DescribeConfigsResponse {
        let results = self.resources.iter().map(|resource| result(resource).with_error_code(code.code()));
        DescribeConfigsResponse::default().with_results(results.collect())
    }
}

fn result(resource: &DescribeConfigsResource) -> DescribeConfigsResult {
    DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Synonyms from the nearest to the farthest; the nearest decides.
fn entry(name: &str, kind: i8, synonyms: Vec<(&str, Option<String>, i8)>) -> DescribeConfigsResourceResult {
    let (value, from) =
        synonyms.first().map_or((None, source::DEFAULT), |(_, value, from)| (value.clone(), *from));
    let synonyms = synonyms.into_iter().filter(|(name, ..)| !name.is_empty()).map(|(name, value, from)| {
        DescribeConfigsSynonym::default()
            .with_name(text(name))
            .with_value(value.map(Into::into))
            .with_source(from)
    });
    DescribeConfigsResourceResult::default()
        .with_name(text(name))
        .with_value(value.map(Into::into))
        .with_config_source(from)
        .with_synonyms(synonyms.collect())
        .with_config_type(kind)
}

fn topic(cluster: &Cluster, name: &str) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let unknown = || Refusal::new(Code::UnknownTopicOrPartition, "");
    let config = &cluster.topics.get(name).ok_or_else(unknown)?.config;
    Ok(TOPIC.iter().map(|known| topic_entry(known, config)).collect())
}

fn topic_entry(known: &Known, config: &TopicConfig) -> DescribeConfigsResourceResult {
    let mut synonyms = Vec::new();
    if let Some(value) = config.get_set(known.name) {
        synonyms.push((known.name, Some(value.to_owned()), source::TOPIC));
    }
    synonyms.push((known.synonym, Some(known.default.to_owned()), source::DEFAULT));
    entry(known.name, known.kind.number(), synonyms)
}

/// The broker that a resource names; `None`: all of them.
///
/// # Errors
/// INVALID_REQUEST for another one than was asked.
pub(super) fn named_broker(node: NodeId, name: &str) -> Result<Option<NodeId>, Refusal> {
    if name.is_empty() {
        return Ok(None);
    }
    let id = name.parse().map_err(|_| {
        Refusal::new(Code::InvalidRequest, format!("Broker id must be an integer, but it is: {name}"))
    })?;
    if NodeId(id) == node {
        Ok(Some(node))
    } else {
        let why = format!("Unexpected broker id, expected {node} or empty string, but received {name}");
        Err(Refusal::new(Code::InvalidRequest, why))
    }
}

fn of_broker(
    cluster: &Cluster,
    node: NodeId,
    name: &str,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let named = named_broker(node, name)?;
    let of_all = cluster.broker_configs.get(&None);
    let for_all = |known: &Known| of_all.and_then(|set| set.get(known.name)).cloned();
    let Some(state) = named.and_then(|id| cluster.nodes.get(&id)) else {
        let changed = broker::DYNAMIC.iter().filter_map(|known| {
            let value = for_all(known)?;
            Some(entry(known.name, known.kind.number(), vec![(known.name, Some(value), source::ALL_BROKERS)]))
        });
        return Ok(changed.collect());
    };
    let own = cluster.broker_configs.get(&named);
    let mut entries: Vec<_> = broker::fixed(cluster, state)
        .into_iter()
        .map(|(name, value, kind, default)| {
            let from = if default { source::DEFAULT } else { source::STATIC };
            let synonyms = if value.is_some() { vec![(name, value, from)] } else { vec![("", None, from)] };
            entry(name, kind.number(), synonyms).with_read_only(true)
        })
        .collect();
    entries.extend(broker::DYNAMIC.iter().map(|known| {
        let mut synonyms = Vec::new();
        if let Some(value) = own.and_then(|set| set.get(known.name)) {
            synonyms.push((known.name, Some(value.clone()), source::BROKER));
        }
        if let Some(value) = for_all(known) {
            synonyms.push((known.name, Some(value), source::ALL_BROKERS));
        }
        synonyms.push((known.name, Some(known.default.to_owned()), source::DEFAULT));
        entry(known.name, known.kind.number(), synonyms)
    }));
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
