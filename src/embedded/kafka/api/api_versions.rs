//! ApiVersions (18), versions 0 to 4 (KIP-35, KIP-511, KIP-584).
//!
//! A version that is not known is answered in version 0 with UNSUPPORTED_VERSION and the list. From version 3 on the
//! client says who it is; a name that is no name is INVALID_REQUEST.
//!
//! Features as Apache Kafka 4.3 announces them, of which clients look at `transaction.version` (2: KIP-890) and
//! `group.version` (1: KIP-848). Not announced, for it is not spoken: share groups, Streams groups, eligible leader
//! replicas.

use std::ops::RangeInclusive;

use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, SERVED, Shape, since};
use crate::embedded::kafka::cluster::Cluster;

/// Name, lowest and highest level served, level in force.
const FEATURES: [(&str, i16, i16, i16); 4] = [
    ("group.version", 0, 1, 1),
    ("kraft.version", 0, 1, 1),
    ("metadata.version", 7, 30, 30),
    ("transaction.version", 0, 2, 2),
];

impl Api for ApiVersionsRequest {
    const SERVED: RangeInclusive<i16> = 0..=4;
    const SHAPE: &'static [Field] = &[since(3, Shape::Text), since(3, Shape::Text)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<ApiVersionsResponse> {
        let named = |name: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
            let ends = [name.bytes().next(), name.bytes().last()];
            name.bytes().all(inner)
                && ends.into_iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
        };
        if context.version >= 3
            && !(named(&self.client_software_name) && named(&self.client_software_version))
        {
            return Reply::Now(ApiVersionsResponse::default().with_error_code(Code::InvalidRequest.code()));
        }
        if let Some(state) = cluster.connection(context.connection) {
            state.session.handle_versions();
        }
        let response = ApiVersionsResponse::default().with_api_keys(keys());
        Reply::Now(features(response, context.version, cluster.settings.transaction_version))
    }

    fn refuse(&self, code: Code, _version: i16) -> ApiVersionsResponse {
        ApiVersionsResponse::default().with_error_code(code.code()).with_api_keys(keys())
    }
}

fn keys() -> Vec<ApiVersion> {
    let mut keys = SERVED.to_vec();
    // Produce is announced from version 0 on, though it is served from 3: older librdkafka looks for it (KAFKA-18659).
    keys.iter_mut().filter(|(key, ..)| *key == ApiKey::Produce as i16).for_each(|(_, min, _)| *min = 0);
    keys.sort_unstable();
    keys.into_iter()
        .map(|(key, min, max)| {
            ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
        })
        .collect()
}

fn features(response: ApiVersionsResponse, version: i16, transactions: i16) -> ApiVersionsResponse {
    if version < 3 {
        return response;
    }
    // Before version 4 a feature that may be off cannot be told (KIP-1022).
    let supported =
        FEATURES.iter().filter(|(_, min, _, _)| version >= 4 || *min > 0).map(|(name, min, max, _)| {
            SupportedFeatureKey::default()
                .with_name(StrBytes::from_static_str(name))
                .with_min_version(*min)
                .with_max_version(*max)
        });
    // A level of 0 is as good as no feature, and not told.
    let level = |name: &str, level: i16| if name == "transaction.version" { transactions } else { level };
    let finalized = FEATURES.iter().map(|(name, _, _, l)| (*name, level(name, *l)));
    let finalized = finalized.filter(|(_, level)| *level > 0).map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_min_version_level(level)
            .with_max_version_level(level)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features(finalized.collect())
        .with_finalized_features_epoch(1)
}
