//! ListGroups (16), versions 0 to 5 (KIP-518 for states, KIP-848 for types): the groups that the broker coordinates.

use std::ops::RangeInclusive;

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Coordinated, Group, Members};

impl Api for ListGroupsRequest {
    const SERVED: RangeInclusive<i16> = 0..=5;
    const SHAPE: &'static [Field] = &[since(4, Shape::Texts), since(5, Shape::Texts)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<ListGroupsResponse> {
        // As the real broker: names in any case, unknown ones match nothing.
        let passes = |filter: &[StrBytes], name: &str| {
            filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(name))
        };
        let groups = cluster.groups.iter().filter(|(id, group)| {
            cluster.coordinator(Coordinated::Group, id) == Some(context.node)
                && passes(&self.states_filter, group.state())
                && passes(&self.types_filter, group.kind())
        });
        let groups = groups.map(|(id, group)| listed(id, group, context.version));
        Reply::Now(ListGroupsResponse::default().with_groups(groups.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> ListGroupsResponse {
        ListGroupsResponse::default().with_error_code(code.code())
    }
}

fn listed(id: &StrBytes, group: &Group, version: i16) -> ListedGroup {
    let protocol_type = match &group.members {
        Members::Classic(classic) => classic.protocol_type().cloned().unwrap_or_default(),
        Members::Consumer(_) => StrBytes::from_static_str("consumer"),
    };
    let since = |from: i16, text: &'static str| {
        if version >= from { StrBytes::from_static_str(text) } else { StrBytes::default() }
    };
    ListedGroup::default()
        .with_group_id(GroupId(id.clone()))
        .with_protocol_type(protocol_type)
        .with_group_state(since(4, group.state()))
        .with_group_type(since(5, group.kind()))
}
