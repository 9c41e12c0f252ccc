//! AlterConfigs (33), versions 0 to 2: what is named is set, what is not named goes back to its default.
//!
//! Topics and brokers. What of it has effect stands in `configs`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::describe_configs::{BROKER_RESOURCE, TOPIC_RESOURCE, named_broker};
use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::configs::{Kind, TopicConfig, broker, check, topic_config};
use crate::embedded::kafka::log::Refusal;

impl Api for AlterConfigsRequest {
    const SERVED: RangeInclusive<i16> = 0..=2;
    const SHAPE: &'static [Field] = &[
        always(Shape::Structs(&[
            always(Shape::Fixed(1)),
            always(Shape::Text),
            always(Shape::Structs(&[always(Shape::Text), always(Shape::Text)])),
        ])),
        always(Shape::Fixed(1)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<AlterConfigsResponse> {
        let responses = self.resources.iter().map(|resource| {
            let changes = resource.configs.iter().map(|config| (&*config.name, config.value.as_deref()));
            let altered = alter(
                cluster,
                context,
                (resource.resource_type, &resource.resource_name),
                !self.validate_only,
                |values| {
                    values.clear();
                    for (name, value) in changes {
                        let value = value.ok_or_else(|| null_value(name))?;
                        values.insert(name.to_owned(), value.to_owned());
                    }
                    Ok(())
                },
            );
            let answer = AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            match altered {
                Ok(()) => answer,
                Err(refusal) => answer
                    .with_error_code(refusal.code.code())
                    .with_error_message(Some(refusal.message.into())),
            }
        });
        Reply::Now(AlterConfigsResponse::default().with_responses(responses.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> AlterConfigsResponse {
        let responses = self.resources.iter().map(|resource| {
            AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_error_code(code.code())
        });
        AlterConfigsResponse::default().with_responses(responses.collect())
    }
}

pub(super) fn null_value(name: &str) -> Refusal {
    Refusal::new(Code::InvalidRequest, format!("Null value not supported for : {name}"))
}

/// What is set for a resource, by name.
pub(super) type Values = BTreeMap<String, String>;

/// Changes what is set for a resource; where `really` is false it is only checked.
///
/// # Errors
/// As the request is answered.
pub(super) fn alter(
    cluster: &mut Cluster,
    context: &Context,
    (kind, name): (i8, &str),
    really: bool,
    change: impl FnOnce(&mut Values) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let invalid = |why: String| Refusal::new(Code::InvalidConfig, why);
    match kind {
        TOPIC_RESOURCE => {
            let Some(state) = cluster.topics.get_mut(name) else {
                let why = format!("The topic '{name}' does not exist.");
                return Err(Refusal::new(Code::UnknownTopicOrPartition, why));
            };
            let mut values: Values =
                state.config.set().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            change(&mut values)?;
            let pairs = values.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let config = TopicConfig::new(pairs).map_err(invalid)?;
            if really {
                state.config = config;
            }
            Ok(())
        }
        BROKER_RESOURCE => {
            let named = named_broker(context.node, name)?;
            let set = cluster.broker_configs.get(&named);
            let mut values: Values =
                set.into_iter().flatten().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            change(&mut values)?;
            let mut checked = BTreeMap::new();
            for (name, value) in values {
                let Some(known) = broker::dynamic(&name) else {
                    let why = if broker::is_fixed(&name) {
                        format!("Cannot update these configs dynamically: Set({name})")
                    } else {
                        format!("Unknown broker config name: {name}")
                    };
                    return Err(Refusal::new(Code::InvalidRequest, why));
                };
                check(known, &value).map_err(invalid)?;
                checked.insert(known.name, value);
            }
            if really {
                cluster.broker_configs.insert(named, checked);
            }
            Ok(())
        }
        other => Err(Refusal::new(Code::InvalidRequest, format!("Unsupported resource type: {other}"))),
    }
}

/// The value that holds where nothing is set, and whether it is a list.
pub(super) fn default_of(kind: i8, name: &str) -> Option<(&'static str, bool)> {
    let known = if kind == TOPIC_RESOURCE { topic_config(name) } else { broker::dynamic(name) }?;
    Some((known.default, matches!(known.kind, Kind::List(_))))
}
