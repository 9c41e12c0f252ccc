//! InitProducerId (22), versions 0 to 5 (KIP-98, KIP-360, KIP-890).
//!
//! Without a transactional id: a new producer id at epoch 0. With one: the id's producer at the next epoch; an open
//! transaction is aborted first, its producer fenced and the caller told CONCURRENT_TRANSACTIONS, as by the real broker.
//! PRODUCER_FENCED is INVALID_PRODUCER_EPOCH before version 4. Left out: two-phase commit (version 6, KIP-939).

use std::ops::RangeInclusive;

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::transactions::{Init, Producer, fenced_by_version, producer};
use crate::{ProducerEpoch, ProducerId as Id};

impl Api for InitProducerIdRequest {
    const SERVED: RangeInclusive<i16> = 0..=5;
    const SHAPE: &'static [Field] =
        &[always(Shape::Text), always(Shape::Fixed(4)), since(3, Shape::Fixed(8 + 2))];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<InitProducerIdResponse> {
        let result = match (self.producer_id.0, self.producer_epoch) {
            (-1, -1) => Ok(None),
            (-1, _) | (_, -1) => Err(Code::InvalidRequest),
            (_, epoch) => Ok(Some(producer(self.producer_id, epoch))),
        }
        .and_then(|expected| match &self.transactional_id {
            None => Ok((cluster.transactions.new_producer_id(), ProducerEpoch(0))),
            Some(id) => {
                cluster.check_transaction_coordinator(context.node, id)?;
                let init = Init { transactional_id: id, timeout_ms: self.transaction_timeout_ms, expected };
                let result = cluster.transactions.init(init, context.now);
                cluster.write_markers(context.now);
                result
            }
        })
        .map_err(|code| fenced_by_version(code, context.version, 4));
        Reply::Now(response(result))
    }

    fn refuse(&self, code: Code, _version: i16) -> InitProducerIdResponse {
        response(Err(code))
    }
}

fn response(result: Result<Producer, Code>) -> InitProducerIdResponse {
    let (code, (Id(id), ProducerEpoch(epoch))) = match result {
        Ok(producer) => (0, producer),
        Err(code) => (code.code(), (Id::NONE, ProducerEpoch::NONE)),
    };
    InitProducerIdResponse::default()
        .with_error_code(code)
        .with_producer_id(ProducerId(id))
        .with_producer_epoch(epoch)
}
