//! Class `confirm` (RabbitMQ): publisher confirms. Publishes that came together are confirmed together by one
//! `basic.ack` with `multiple`; one that a full queue refused gets a `basic.nack` of its own.

use super::{Cx, Failure};
use crate::embedded::amqp::broker::Refusal;
use crate::embedded::amqp::channel::{Channel, Confirms};
use crate::embedded::amqp::wire::method::confirm::{Select, SelectOk};

pub(super) fn select(cx: &mut Cx<'_>, channel: &mut Channel, select: Select) -> Result<(), Failure> {
    if channel.transaction.is_some() {
        return Err(Refusal::precondition_failed("cannot switch from tx to confirm mode").into());
    }
    channel.confirms.get_or_insert_with(Confirms::default);
    cx.answer(channel, select.no_wait.has(1), &SelectOk {});
    Ok(())
}
