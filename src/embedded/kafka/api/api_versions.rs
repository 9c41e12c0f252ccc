//! ApiVersions (18), versions 0 to 4 (KIP-35, KIP-511, KIP-584).
//!
//! A version that is not known is answered in version 0 with UNSUPPORTED_VERSION and the list.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::{Api, Code, Context, Field, Reply, SERVED, Shape, since};
use crate::embedded::kafka::cluster::Cluster;
use std::ops::RangeInclusive;

impl Api for ApiVersionsRequest {
    const SERVED: RangeInclusive<i16> = 0..=4;
    const SHAPE: &'static [Field] = &[since(3, Shape::Text), since(3, Shape::Text)];

    fn handle(self, _cluster: &mut Cluster, _context: &Context) -> Reply<ApiVersionsResponse> {
        Reply::Now(ApiVersionsResponse::default().with_api_keys(keys()))
    }

    fn refuse(&self, code: Code, _version: i16) -> ApiVersionsResponse {
        ApiVersionsResponse::default().with_error_code(code.code()).with_api_keys(keys())
    }
}

fn keys() -> Vec<ApiVersion> {
    SERVED
        .iter()
        .map(|(key, min, max)| {
            ApiVersion::default().with_api_key(*key).with_min_version(*min).with_max_version(*max)
        })
        .collect()
}
