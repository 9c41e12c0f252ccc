//! AddOffsetsToTxn (25), versions 0 to 4 (KIP-98, KIP-360, KIP-890).
//!
//! Announces that offsets of a group follow with TxnOffsetCommit. PRODUCER_FENCED is INVALID_PRODUCER_EPOCH before
//! version 2.

use std::ops::RangeInclusive;

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::transactions::{Part, fenced_by_version, producer};

impl Api for AddOffsetsToTxnRequest {
    const SERVED: RangeInclusive<i16> = 0..=4;
    const SHAPE: &'static [Field] = &[always(Shape::Text), always(Shape::Fixed(8 + 2)), always(Shape::Text)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<AddOffsetsToTxnResponse> {
        let producer = producer(self.producer_id, self.producer_epoch);
        let id = &self.transactional_id;
        let parts = [Part::Group(&self.group_id)];
        let result = cluster
            .check_transaction_coordinator(context.node, id)
            .and_then(|()| cluster.transactions.add(id, producer, &parts, context.now));
        let code = result.map_or_else(|code| fenced_by_version(code, context.version, 2).code(), |()| 0);
        Reply::Now(AddOffsetsToTxnResponse::default().with_error_code(code))
    }

    fn refuse(&self, code: Code, _version: i16) -> AddOffsetsToTxnResponse {
        AddOffsetsToTxnResponse::default().with_error_code(code.code())
    }
}
