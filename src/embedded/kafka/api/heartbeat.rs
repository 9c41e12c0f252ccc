//! Heartbeat (12), versions 0 to 4 (KIP-345).

use std::ops::RangeInclusive;

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::{Asker, Moment};

impl Api for HeartbeatRequest {
    const SERVED: RangeInclusive<i16> = 0..=4;
    const SHAPE: &'static [Field] =
        &[always(Shape::Text), always(Shape::Fixed(4)), always(Shape::Text), since(3, Shape::Text)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<HeartbeatResponse> {
        let done = cluster.check_group(context, &self.group_id).and_then(|()| {
            let asker = Asker {
                generation: self.generation_id,
                member: self.member_id.clone(),
                instance: self.group_instance_id.clone(),
                version: context.version,
                transactional: false,
            };
            cluster.groups.heartbeat(&self.group_id, &asker, Moment { node: context.node, now: context.now })
        });
        Reply::Now(match done {
            Ok(()) => HeartbeatResponse::default(),
            Err(code) => self.refuse(code, context.version),
        })
    }

    fn refuse(&self, code: Code, _version: i16) -> HeartbeatResponse {
        HeartbeatResponse::default().with_error_code(code.code())
    }
}
