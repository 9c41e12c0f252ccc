//! DescribeCluster (60), versions 0 to 2. Controllers are not told of (MISMATCHED_ENDPOINT_TYPE, as a broker says).

use std::ops::RangeInclusive;

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::metadata::CLUSTER_OPERATIONS;
use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;

const BROKERS: i8 = 1;

impl Api for DescribeClusterRequest {
    const SERVED: RangeInclusive<i16> = 0..=2;
    const SHAPE: &'static [Field] =
        &[always(Shape::Fixed(1)), since(1, Shape::Fixed(1)), since(2, Shape::Fixed(1))];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DescribeClusterResponse> {
        if self.endpoint_type != BROKERS {
            let refused = self.refuse(Code::MismatchedEndpointType, context.version);
            let why = StrBytes::from_static_str(
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
            );
            return Reply::Now(refused.with_error_message(Some(why)));
        }
        let brokers = cluster.nodes.values().filter(|node| node.is_up() || self.include_fenced_brokers);
        let brokers = brokers.map(|node| {
            let broker = DescribeClusterBroker::default()
                .with_broker_id(BrokerId(node.id.0))
                .with_host(node.host.clone().into())
                .with_port(i32::from(node.port))
                .with_rack(node.rack.clone().map(Into::into));
            // Only version 2 can say it.
            broker.with_is_fenced(context.version >= 2 && !node.is_up())
        });
        let mut response = DescribeClusterResponse::default()
            .with_cluster_id(cluster.id.clone())
            .with_controller_id(BrokerId(cluster.up().first().map_or(-1, |node| node.0)))
            .with_brokers(brokers.collect());
        if self.include_cluster_authorized_operations {
            response.cluster_authorized_operations = CLUSTER_OPERATIONS;
        }
        Reply::Now(response)
    }

    fn refuse(&self, code: Code, _version: i16) -> DescribeClusterResponse {
        DescribeClusterResponse::default().with_error_code(code.code()).with_controller_id(BrokerId(-1))
    }
}
