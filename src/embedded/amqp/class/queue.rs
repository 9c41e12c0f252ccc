//! Class `queue` (AMQP 0-9-1 section 1.7). An empty name means the queue that the channel declared last; with it, an empty
//! routing key of a binding means that queue's name.

use super::{Cx, Failure, arguments, queue_name};
use crate::embedded::amqp::broker::{BindingSpec, QueueDeclare};
use crate::embedded::amqp::channel::Channel;
use crate::embedded::amqp::wire::Short;
use crate::embedded::amqp::wire::method::queue::{
    Bind, BindOk, Declare, DeclareOk, Delete, DeleteOk, Purge, PurgeOk, Unbind, UnbindOk,
};

pub(super) fn declare(cx: &mut Cx<'_>, channel: &mut Channel, m: Declare<'_>) -> Result<(), Failure> {
    let by = cx.link.id;
    let ok = if m.flags.has(Declare::PASSIVE) {
        cx.core.broker.check_queue(channel.vhost, m.queue.0, by, cx.now)?
    } else {
        let declare = QueueDeclare {
            name: m.queue.0,
            durable: m.flags.has(Declare::DURABLE),
            exclusive: m.flags.has(Declare::EXCLUSIVE),
            auto_delete: m.flags.has(Declare::AUTO_DELETE),
            arguments: arguments(m.arguments)?,
        };
        cx.core.broker.declare_queue(channel.vhost, &declare, by, cx.now)?
    };
    let answer = DeclareOk { queue: Short(&ok.name), messages: ok.messages, consumers: ok.consumers };
    cx.answer(channel, m.flags.has(Declare::NO_WAIT), &answer);
    channel.last_queue = ok.name;
    Ok(())
}

/// The queue and the routing key that a binding means.
fn names<'a>(
    channel: &'a Channel,
    queue: Short<'a>,
    key: Short<'a>,
) -> Result<(&'a [u8], &'a [u8]), Failure> {
    let name = queue_name(channel, queue)?;
    let key = if queue.0.is_empty() && key.0.is_empty() { name } else { key.0 };
    Ok((name, key))
}

pub(super) fn bind(cx: &mut Cx<'_>, channel: &Channel, m: Bind<'_>) -> Result<(), Failure> {
    let (destination, routing_key) = names(channel, m.queue, m.routing_key)?;
    let arguments = arguments(m.arguments)?;
    let binding = BindingSpec { source: m.exchange.0, destination, routing_key, arguments };
    cx.core.broker.bind_queue(channel.vhost, &binding, cx.link.id)?;
    cx.answer(channel, m.flags.has(Bind::NO_WAIT), &BindOk {});
    Ok(())
}

pub(super) fn unbind(cx: &mut Cx<'_>, channel: &Channel, m: Unbind<'_>) -> Result<(), Failure> {
    let (destination, routing_key) = names(channel, m.queue, m.routing_key)?;
    let arguments = arguments(m.arguments)?;
    let binding = BindingSpec { source: m.exchange.0, destination, routing_key, arguments };
    cx.core.broker.unbind_queue(channel.vhost, &binding, cx.link.id)?;
    cx.answer(channel, false, &UnbindOk {});
    Ok(())
}

pub(super) fn purge(cx: &mut Cx<'_>, channel: &Channel, m: Purge<'_>) -> Result<(), Failure> {
    let name = queue_name(channel, m.queue)?;
    let messages = cx.core.broker.purge_queue(channel.vhost, name, cx.link.id)?;
    cx.answer(channel, m.flags.has(Purge::NO_WAIT), &PurgeOk { messages });
    Ok(())
}

pub(super) fn delete(cx: &mut Cx<'_>, channel: &Channel, m: Delete<'_>) -> Result<(), Failure> {
    let name = queue_name(channel, m.queue)?;
    let (unused, empty) = (m.flags.has(Delete::IF_UNUSED), m.flags.has(Delete::IF_EMPTY));
    let messages = cx.core.broker.delete_queue(channel.vhost, name, unused, empty, cx.link.id)?;
    cx.answer(channel, m.flags.has(Delete::NO_WAIT), &DeleteOk { messages });
    Ok(())
}
