//! IncrementalAlterConfigs (44), versions 0 and 1 (KIP-339): set, delete, and add to or take from a list.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::alter_configs::{Values, alter, default_of, null_value};
use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::configs::list;
use crate::embedded::kafka::log::Refusal;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl Api for IncrementalAlterConfigsRequest {
    const SERVED: RangeInclusive<i16> = 0..=1;
    const SHAPE: &'static [Field] = &[
        always(Shape::Structs(&[
            always(Shape::Fixed(1)),
            always(Shape::Text),
            always(Shape::Structs(&[always(Shape::Text), always(Shape::Fixed(1)), always(Shape::Text)])),
        ])),
        always(Shape::Fixed(1)),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<IncrementalAlterConfigsResponse> {
        let responses = self.resources.iter().map(|resource| {
            let altered = alter(
                cluster,
                context,
                (resource.resource_type, &resource.resource_name),
                !self.validate_only,
                |values| change(values, resource.resource_type, &resource.configs),
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
        Reply::Now(IncrementalAlterConfigsResponse::default().with_responses(responses.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> IncrementalAlterConfigsResponse {
        let responses = self.resources.iter().map(|resource| {
            AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_error_code(code.code())
        });
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
    }
}

fn change(values: &mut Values, kind: i8, configs: &[AlterableConfig]) -> Result<(), Refusal> {
    let mut names = BTreeSet::new();
    if let Some(twice) = configs.iter().find(|config| !names.insert(&*config.name)) {
        let why = format!("Error due to duplicate config keys: {}", twice.name);
        return Err(Refusal::new(Code::InvalidRequest, why));
    }
    for config in configs {
        let name = &*config.name;
        let value = || config.value.as_deref().ok_or_else(|| null_value(name));
        match config.config_operation {
            SET => {
                values.insert(name.to_owned(), value()?.to_owned());
            }
            DELETE => {
                values.remove(name);
            }
            operation @ (APPEND | SUBTRACT) => {
                let verb = if operation == APPEND { "APPEND" } else { "SUBTRACT" };
                let Some((default, true)) = default_of(kind, name) else {
                    let why = format!("Can't {verb} to key {name} because its type is not LIST.");
                    return Err(Refusal::new(Code::InvalidConfig, why));
                };
                let now = values.get(name).map_or(default, String::as_str);
                let mut items: Vec<_> = list(now).collect();
                for item in list(value()?) {
                    let there = items.iter().position(|other| *other == item);
                    match (operation == APPEND, there) {
                        (true, None) => items.push(item),
                        (false, Some(at)) => {
                            items.remove(at);
                        }
                        _ => {}
                    }
                }
                let joined = items.join(",");
                values.insert(name.to_owned(), joined);
            }
            other => {
                let why = format!("Unknown operation type code {other}");
                return Err(Refusal::new(Code::InvalidRequest, why));
            }
        }
    }
    Ok(())
}
