//! The cluster: its brokers, its controller, its name.

use kafka_protocol::messages::DescribeClusterRequest;

use super::Admin;
use super::drive::Refusal;
use crate::{NodeId, Result};

/// A cluster as one of its brokers tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterDescription {
    /// The id that it was given when it was made.
    pub id: String,
    /// The broker to which changes may be sent as if it were the controller: with KRaft any of them, as they pass them on;
    /// `None` while there is none.
    pub controller: Option<NodeId>,
    /// The brokers, by number.
    pub brokers: Vec<BrokerDescription>,
}

/// A broker as the cluster tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerDescription {
    /// Its number.
    pub node: NodeId,
    /// The host that it advertises.
    pub host: String,
    /// The port that it advertises.
    pub port: i32,
    /// Its rack, where it has one.
    pub rack: Option<String>,
    /// It is known and shut out at the moment (KIP-1073, Kafka 4.0; older ones are not told of then).
    pub fenced: bool,
}

impl Admin {
    /// The cluster's brokers with their racks, its controller and its id (KIP-700, Kafka 2.8).
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) by an older broker; errors of the connection.
    pub async fn cluster(&self) -> Result<ClusterDescription> {
        const BROKERS: i8 = 1;
        let what = "describe the cluster";
        let request = DescribeClusterRequest::default().with_endpoint_type(BROKERS);
        let mut told = self
            .read(what, request, |answer| {
                Refusal::check(
                    answer.error_code,
                    answer.error_message.as_deref(),
                    what,
                    "Describe on the cluster",
                )?;
                let broker =
                    |b: &kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker| {
                        BrokerDescription {
                            node: NodeId(b.broker_id.0),
                            host: b.host.as_str().to_owned(),
                            port: b.port,
                            rack: b.rack.as_ref().map(|r| r.as_str().to_owned()),
                            fenced: b.is_fenced,
                        }
                    };
                Ok(ClusterDescription {
                    id: answer.cluster_id.as_str().to_owned(),
                    controller: (answer.controller_id.0 >= 0).then_some(NodeId(answer.controller_id.0)),
                    brokers: answer.brokers.iter().map(broker).collect(),
                })
            })
            .await?;
        told.brokers.sort_by_key(|b| b.node);
        Ok(told)
    }
}
