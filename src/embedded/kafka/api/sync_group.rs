//! SyncGroup (14), versions 0 to 5 (KIP-345, KIP-559).

use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Moment, Sync, Synced, own};

impl Api for SyncGroupRequest {
    const SERVED: RangeInclusive<i16> = 0..=5;
    const SHAPE: &'static [Field] = &[
        always(Shape::Text),
        always(Shape::Fixed(4)),
        always(Shape::Text),
        since(3, Shape::Text),
        since(5, Shape::Text),
        since(5, Shape::Text),
        always(Shape::Structs(&[always(Shape::Text), always(Shape::Bytes)])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<SyncGroupResponse> {
        if let Err(code) = cluster.check_group(context, &self.group_id) {
            return Reply::Now(self.refuse(code, context.version));
        }
        if context.version >= 5 && (self.protocol_type.is_none() || self.protocol_name.is_none()) {
            return Reply::Now(self.refuse(Code::InconsistentGroupProtocol, context.version));
        }
        let sync = Sync {
            connection: context.connection,
            generation: self.generation_id,
            member: own(&self.member_id),
            instance: self.group_instance_id.as_ref().map(own),
            protocol_type: self.protocol_type.as_ref().map(own),
            protocol: self.protocol_name.as_ref().map(own),
            assignments: self
                .assignments
                .iter()
                .map(|a| (own(&a.member_id), Bytes::copy_from_slice(&a.assignment)))
                .collect(),
        };
        cluster.groups.sync(&self.group_id, sync, Moment { node: context.node, now: context.now });
        cluster.answer_groups();
        Reply::Later
    }

    fn refuse(&self, code: Code, version: i16) -> SyncGroupResponse {
        response(Synced::refused(code), version)
    }
}

/// The answer on the wire.
pub(in crate::embedded::kafka) fn response(synced: Synced, version: i16) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_error_code(synced.error.map_or(0, |code| code.code()))
        .with_protocol_type(synced.protocol_type.filter(|_| version >= 5))
        .with_protocol_name(synced.protocol.filter(|_| version >= 5))
        .with_assignment(synced.assignment)
}
