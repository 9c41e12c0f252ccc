//! ListPartitionReassignments (46), version 0 (KIP-455): none is ever in progress, since replicas have all records at
//! once.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;

impl Api for ListPartitionReassignmentsRequest {
    const SERVED: RangeInclusive<i16> = 0..=0;
    const SHAPE: &'static [Field] =
        &[always(Shape::Fixed(4)), always(Shape::Structs(&[always(Shape::Text), always(Shape::Values(4))]))];

    fn handle(self, _cluster: &mut Cluster, _context: &Context) -> Reply<ListPartitionReassignmentsResponse> {
        Reply::Now(ListPartitionReassignmentsResponse::default())
    }

    fn refuse(&self, code: Code, _version: i16) -> ListPartitionReassignmentsResponse {
        ListPartitionReassignmentsResponse::default().with_error_code(code.code())
    }
}
