//! EndTxn (26), versions 0 to 5 (KIP-98, KIP-360, KIP-890).
//!
//! From version 5 on every end raises the epoch, and the answer tells with which producer the client goes on.
//! PRODUCER_FENCED is INVALID_PRODUCER_EPOCH before version 2.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::transactions::{fenced_by_version, producer};

impl Api for EndTxnRequest {
    const SERVED: RangeInclusive<i16> = 0..=5;
    const SHAPE: &'static [Field] = &[always(Shape::Text), always(Shape::Fixed(8 + 2 + 1))];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<EndTxnResponse> {
        let who = producer(self.producer_id, self.producer_epoch);
        let id = &self.transactional_id;
        let bumps = context.version >= 5;
        let result = cluster
            .check_transaction_coordinator(context.node, id)
            .and_then(|()| cluster.transactions.end(id, who, self.committed, bumps, context.now));
        cluster.write_markers(context.now);
        Reply::Now(match result {
            Ok((id, epoch)) if bumps => {
                EndTxnResponse::default().with_producer_id(ProducerId(id.0)).with_producer_epoch(epoch.0)
            }
            Ok(_) => EndTxnResponse::default(),
            Err(code) => self.refuse(fenced_by_version(code, context.version, 2), context.version),
        })
    }

    fn refuse(&self, code: Code, _version: i16) -> EndTxnResponse {
        EndTxnResponse::default()
            .with_error_code(code.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    }
}
