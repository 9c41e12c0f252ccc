//! LeaveGroup (13), versions 0 to 5 (KIP-345 for many at once, KIP-800 for reasons).

use std::ops::RangeInclusive;

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::Moment;

impl Api for LeaveGroupRequest {
    const SERVED: RangeInclusive<i16> = 0..=5;
    const SHAPE: &'static [Field] = &[
        always(Shape::Text),
        Field { from: 0, to: 2, shape: Shape::Text },
        since(3, Shape::Structs(&[always(Shape::Text), always(Shape::Text), since(5, Shape::Text)])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<LeaveGroupResponse> {
        if let Err(code) = cluster.check_group(context, &self.group_id) {
            return Reply::Now(self.refuse(code, context.version));
        }
        let members: Vec<_> = if context.version >= 3 {
            self.members.iter().map(|m| (m.member_id.clone(), m.group_instance_id.clone())).collect()
        } else {
            vec![(self.member_id.clone(), None)]
        };
        let at = Moment { node: context.node, now: context.now };
        let results = cluster.groups.leave(&self.group_id, &members, at);
        cluster.answer_groups();
        if context.version < 3 {
            return Reply::Now(match results.into_iter().next() {
                Some(Err(code)) => self.refuse(code, context.version),
                _ => LeaveGroupResponse::default(),
            });
        }
        let members = members.into_iter().zip(results).map(|((id, instance), result)| {
            MemberResponse::default()
                .with_member_id(id)
                .with_group_instance_id(instance)
                .with_error_code(result.err().map_or(0, |code| code.code()))
        });
        Reply::Now(LeaveGroupResponse::default().with_members(members.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> LeaveGroupResponse {
        LeaveGroupResponse::default().with_error_code(code.code())
    }
}
