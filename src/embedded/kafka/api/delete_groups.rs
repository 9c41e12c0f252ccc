//! DeleteGroups (42), versions 0 to 2 (KIP-229).

use std::ops::RangeInclusive;

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::groups::Coordinated;

impl Api for DeleteGroupsRequest {
    const SERVED: RangeInclusive<i16> = 0..=2;
    const SHAPE: &'static [Field] = &[always(Shape::Texts)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<DeleteGroupsResponse> {
        let results = self.groups_names.iter().map(|group| {
            let here = cluster.check_coordinator(context, Coordinated::Group, group);
            let done = here.and_then(|()| cluster.groups.delete(group));
            result(group, done.err())
        });
        Reply::Now(DeleteGroupsResponse::default().with_results(results.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> DeleteGroupsResponse {
        let results = self.groups_names.iter().map(|group| result(group, Some(code)));
        DeleteGroupsResponse::default().with_results(results.collect())
    }
}

fn result(group: &GroupId, error: Option<Code>) -> DeletableGroupResult {
    DeletableGroupResult::default()
        .with_group_id(group.clone())
        .with_error_code(error.map_or(0, |code| code.code()))
}
