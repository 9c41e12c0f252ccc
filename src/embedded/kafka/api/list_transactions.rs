//! ListTransactions (66), versions 0 to 2 (KIP-664, KIP-994, KIP-1152).
//!
//! Lists what this broker coordinates, by name. The filter by duration keeps those that ran longer; one that has not
//! begun counts as begun before all time, as in the real broker. The pattern of version 2 is a regular expression that
//! must match the whole id.

use std::ops::RangeInclusive;
use std::time::Instant;

use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::pattern::whole;
use crate::embedded::kafka::transactions::{State, Transaction};

impl Api for ListTransactionsRequest {
    const SERVED: RangeInclusive<i16> = 0..=2;
    const SHAPE: &'static [Field] =
        &[always(Shape::Texts), always(Shape::Values(8)), since(1, Shape::Fixed(8)), since(2, Shape::Text)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<ListTransactionsResponse> {
        let pattern = match self.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty()) {
            None => None,
            Some(pattern) => match whole(pattern) {
                Some(pattern) => Some(pattern),
                None => return Reply::Now(self.refuse(Code::InvalidRegularExpression, context.version)),
            },
        };
        let (known, unknown): (Vec<_>, Vec<_>) =
            self.state_filters.iter().cloned().partition(|name| State::NAMES.contains(&&**name));
        let wanted = |id: &str, t: &Transaction| {
            let duration = if context.version >= 1 { self.duration_filter } else { -1 };
            cluster.check_transaction_coordinator(context.node, id).is_ok()
                && (self.producer_id_filters.is_empty()
                    || self.producer_id_filters.contains(&ProducerId(t.producer().0.0)))
                && (self.state_filters.is_empty() || known.iter().any(|name| **name == *t.state().name()))
                && (duration < 0 || t.started().is_none_or(|at| lasted(at, context.now) > duration))
                && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
        };
        let states = cluster.transactions.iter().filter(|(id, t)| wanted(id, t)).map(|(id, t)| {
            TransactionState::default()
                .with_transactional_id(TransactionalId(StrBytes::from_string(id.to_owned())))
                .with_producer_id(ProducerId(t.producer().0.0))
                .with_transaction_state(StrBytes::from_static_str(t.state().name()))
        });
        Reply::Now(
            ListTransactionsResponse::default()
                .with_transaction_states(states.collect())
                .with_unknown_state_filters(unknown),
        )
    }

    fn refuse(&self, code: Code, _version: i16) -> ListTransactionsResponse {
        ListTransactionsResponse::default().with_error_code(code.code())
    }
}

fn lasted(since: Instant, now: Instant) -> i64 {
    i64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(i64::MAX)
}
