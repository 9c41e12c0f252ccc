//! Metadata (3), versions 0 to 13.

use std::ops::RangeInclusive;

use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};

use super::{Api, Code, Context, Field, Reply, Shape, since};
use crate::embedded::kafka::cluster::Cluster;

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

    fn handle(self, cluster: &mut Cluster, _context: &Context) -> Reply<MetadataResponse> {
        let brokers = cluster
            .nodes
            .values()
            .filter(|node| node.alive)
            .map(|node| {
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(node.id.0))
                    .with_host(node.host.clone().into())
                    .with_port(i32::from(node.port))
            })
            .collect();
        Reply::Now(MetadataResponse::default().with_brokers(brokers))
    }

    fn refuse(&self, _code: Code, _version: i16) -> MetadataResponse {
        MetadataResponse::default()
    }
}
