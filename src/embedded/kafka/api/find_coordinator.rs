//! FindCoordinator (10), versions 0 to 6 (KIP-98, KIP-699; KIP-890 for version 5, KIP-932 for 6).
//!
//! Groups (type 0) and transactional ids (type 1); share coordinators (type 2) are not spoken: INVALID_REQUEST, as the
//! real broker answers without share groups. Which broker it is stands
//! in `groups/coordinator.rs`; any broker may be asked.

use std::ops::RangeInclusive;

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, since};
use crate::NodeId;
use crate::embedded::kafka::cluster::{Cluster, Node};
use crate::embedded::kafka::groups::Coordinated;

impl Api for FindCoordinatorRequest {
    const SERVED: RangeInclusive<i16> = 0..=6;
    const SHAPE: &'static [Field] =
        &[Field { from: 0, to: 3, shape: Shape::Text }, since(1, Shape::Fixed(1)), since(4, Shape::Texts)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<FindCoordinatorResponse> {
        if context.version >= 4 {
            let coordinators = self
                .coordinator_keys
                .iter()
                .map(|key| found(key, cluster.find(self.key_type, key)))
                .collect();
            return Reply::Now(FindCoordinatorResponse::default().with_coordinators(coordinators));
        }
        let response = FindCoordinatorResponse::default();
        Reply::Now(match cluster.find(self.key_type, &self.key) {
            Ok(node) => response
                .with_node_id(BrokerId(node.id.0))
                .with_host(node.host.clone().into())
                .with_port(i32::from(node.port)),
            Err(code) => self.refuse(code, context.version),
        })
    }

    fn refuse(&self, code: Code, version: i16) -> FindCoordinatorResponse {
        let response = FindCoordinatorResponse::default();
        if version >= 4 {
            return response
                .with_coordinators(self.coordinator_keys.iter().map(|key| found(key, Err(code))).collect());
        }
        response
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(code.to_string())))
            .with_node_id(BrokerId(-1))
            .with_port(-1)
    }
}

fn found(key: &StrBytes, node: Result<&Node, Code>) -> Coordinator {
    let coordinator = Coordinator::default().with_key(key.clone());
    match node {
        Ok(node) => coordinator
            .with_node_id(BrokerId(node.id.0))
            .with_host(node.host.clone().into())
            .with_port(i32::from(node.port)),
        Err(code) => coordinator
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(code.to_string())))
            .with_node_id(BrokerId(-1))
            .with_port(-1),
    }
}

impl Cluster {
    /// The coordinator of a group or a transactional id; `None` while no broker is alive.
    pub(in crate::embedded::kafka) fn coordinator(
        &self,
        kind: Coordinated,
        key: &StrBytes,
    ) -> Option<NodeId> {
        let up = self.nodes.values().filter(|node| node.is_up()).map(|node| node.id);
        self.coordinators.find(kind, key, up)
    }

    /// Refuses a request that came to another broker than the coordinator.
    pub(super) fn check_coordinator(
        &self,
        context: &Context,
        kind: Coordinated,
        key: &StrBytes,
    ) -> Result<(), Code> {
        if self.coordinator(kind, key) == Some(context.node) { Ok(()) } else { Err(Code::NotCoordinator) }
    }

    fn find(&self, key_type: i8, key: &StrBytes) -> Result<&Node, Code> {
        let kind = match key_type {
            0 => Coordinated::Group,
            1 => Coordinated::Transaction,
            _ => return Err(Code::InvalidRequest),
        };
        let node = self.coordinator(kind, key).and_then(|node| self.nodes.get(&node));
        node.ok_or(Code::CoordinatorNotAvailable)
    }
}
