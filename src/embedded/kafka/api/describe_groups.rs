//! DescribeGroups (15), versions 0 to 6: classic groups (KIP-345, KIP-430, KIP-1043 for version 6).
//!
//! Authorized operations are not told: everyone may do everything here (the field stays at "not asked for").

use std::ops::RangeInclusive;

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Classic, Coordinated, Members, State};

impl Api for DescribeGroupsRequest {
    const SERVED: RangeInclusive<i16> = 0..=6;
    const SHAPE: &'static [Field] = &[always(Shape::Texts), since(3, Shape::Fixed(1))];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DescribeGroupsResponse> {
        let groups = self.groups.iter().map(|id| {
            if let Err(code) = cluster.check_coordinator(context, Coordinated::Group, id) {
                return refused(id, code, context.version);
            }
            match cluster.groups.get(id).map(|group| &group.members) {
                Some(Members::Classic(classic)) => described(id, classic, context.version),
                Some(Members::Consumer(_)) => dead(id, "is not a classic group.", context.version),
                None => dead(id, "not found.", context.version),
            }
        });
        Reply::Now(DescribeGroupsResponse::default().with_groups(groups.collect()))
    }

    fn refuse(&self, code: Code, version: i16) -> DescribeGroupsResponse {
        let groups = self.groups.iter().map(|id| refused(id, code, version));
        DescribeGroupsResponse::default().with_groups(groups.collect())
    }
}

fn refused(id: &GroupId, code: Code, version: i16) -> DescribedGroup {
    let message = Some(StrBytes::from_string(code.to_string())).filter(|_| version >= 6);
    DescribedGroup::default()
        .with_group_id(id.clone())
        .with_error_code(code.code())
        .with_error_message(message)
        .with_authorized_operations(i32::MIN)
}

/// A group that is not there: an error from version 6 on, before that a dead group.
fn dead(id: &GroupId, why: &str, version: i16) -> DescribedGroup {
    let group = DescribedGroup::default()
        .with_group_id(id.clone())
        .with_group_state(StrBytes::from_static_str("Dead"))
        .with_authorized_operations(i32::MIN);
    if version < 6 {
        return group;
    }
    group
        .with_error_code(Code::GroupIdNotFound.code())
        .with_error_message(Some(StrBytes::from_string(format!("Group {} {why}", id.0))))
}

fn described(id: &GroupId, classic: &Classic, version: i16) -> DescribedGroup {
    // What members said is told only while it stands.
    let protocol = classic.protocol().filter(|_| classic.state() == State::Stable);
    let members = classic.members().map(|(member_id, m)| {
        DescribedGroupMember::default()
            .with_member_id(member_id.clone())
            .with_group_instance_id(m.instance.clone().filter(|_| version >= 4))
            .with_client_id(m.client_id.clone())
            .with_client_host(m.client_host.clone())
            .with_member_metadata(protocol.map(|p| m.metadata(p)).unwrap_or_default())
            .with_member_assignment(m.assignment.clone())
    });
    DescribedGroup::default()
        .with_group_id(id.clone())
        .with_group_state(StrBytes::from_static_str(classic.state().name()))
        .with_protocol_type(classic.protocol_type().cloned().unwrap_or_default())
        .with_protocol_data(protocol.cloned().unwrap_or_default())
        .with_members(members.collect())
        .with_authorized_operations(i32::MIN)
}
