//! JoinGroup (11), versions 0 to 9 (KIP-62, KIP-345, KIP-394, KIP-559, KIP-800, KIP-814).
//!
//! Difference: a join of a consumer group (KIP-848) that has members is refused with INCONSISTENT_GROUP_PROTOCOL; the
//! real broker lets both kinds be members of one group while a user upgrades.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Join, Joined, Moment, own};

impl Api for JoinGroupRequest {
    const SERVED: RangeInclusive<i16> = 0..=9;
    const SHAPE: &'static [Field] = &[
        always(Shape::Text),
        always(Shape::Fixed(4)),
        since(1, Shape::Fixed(4)),
        always(Shape::Text),
        since(5, Shape::Text),
        always(Shape::Text),
        always(Shape::Structs(&[always(Shape::Text), always(Shape::Bytes)])),
        since(8, Shape::Text),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<JoinGroupResponse> {
        if let Err(code) = cluster.check_group(context, &self.group_id) {
            return Reply::Now(self.refuse(code, context.version));
        }
        let (client_id, client_host) = cluster.client(context);
        let session_timeout = millis(self.session_timeout_ms);
        let rebalance_timeout =
            if context.version >= 1 { millis(self.rebalance_timeout_ms) } else { session_timeout };
        let instance = self.group_instance_id.as_ref().map(own);
        let fresh = cluster.member_id(instance.as_ref().unwrap_or(&client_id));
        if let Some(reason) = self.reason.as_ref().filter(|reason| !reason.is_empty()) {
            tracing::debug!(group = %self.group_id.0, member = %self.member_id, %reason, "a member joins");
        }
        let join = Join {
            connection: context.connection,
            member: own(&self.member_id),
            instance,
            protocol_type: own(&self.protocol_type),
            protocols: self
                .protocols
                .iter()
                .map(|p| (own(&p.name), Bytes::copy_from_slice(&p.metadata)))
                .collect(),
            session_timeout,
            rebalance_timeout,
            client_id,
            client_host,
            fresh,
            needs_id: context.version >= 4,
            can_skip: context.version >= 9,
        };
        cluster.groups.join(&self.group_id, join, Moment { node: context.node, now: context.now });
        cluster.answer_groups();
        Reply::Later
    }

    fn refuse(&self, code: Code, version: i16) -> JoinGroupResponse {
        response(Joined::refused(self.member_id.clone(), code), version)
    }
}

/// A time in milliseconds; none where it is negative.
pub(super) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// The answer on the wire.
pub(in crate::embedded::kafka) fn response(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|m| {
        JoinGroupResponseMember::default()
            .with_member_id(m.id)
            .with_group_instance_id(m.instance.filter(|_| version >= 5))
            .with_metadata(m.metadata)
    });
    // Before version 7 there is no null for the protocol.
    let protocol = if version >= 7 { joined.protocol } else { Some(joined.protocol.unwrap_or_default()) };
    JoinGroupResponse::default()
        .with_error_code(joined.error.map_or(0, |code| code.code()))
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.filter(|_| version >= 7))
        .with_protocol_name(protocol)
        .with_leader(joined.leader)
        .with_skip_assignment(joined.skip)
        .with_member_id(joined.member)
        .with_members(members.collect())
}

impl Cluster {
    /// The client's id, and its address as the real broker writes it.
    pub(super) fn client(&mut self, context: &Context) -> (StrBytes, StrBytes) {
        let id = context.client_id.as_ref().map(own).unwrap_or_default();
        let host = self.connection(context.connection).map(|c| format!("/{}", c.peer.ip()));
        (id, StrBytes::from_string(host.unwrap_or_default()))
    }

    /// An id for a new member: the client's (or the instance's) and a random UUID.
    fn member_id(&mut self, prefix: &StrBytes) -> StrBytes {
        let id = uuid::Builder::from_random_bytes(
            (u128::from(self.draw()) << 64 | u128::from(self.draw())).to_be_bytes(),
        );
        StrBytes::from_string(format!("{}-{}", prefix.as_str(), id.into_uuid()))
    }
}
