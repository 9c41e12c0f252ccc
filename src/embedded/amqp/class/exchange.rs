//! Class `exchange` (AMQP 0-9-1 section 1.6), with RabbitMQ's bindings between exchanges.

use super::{Cx, Failure, arguments};
use crate::embedded::amqp::broker::{BindingSpec, ExchangeDeclare};
use crate::embedded::amqp::channel::Channel;
use crate::embedded::amqp::wire::method::exchange::{
    Bind, BindOk, Declare, DeclareOk, Delete, DeleteOk, Unbind, UnbindOk,
};

pub(super) fn declare(cx: &mut Cx<'_>, channel: &Channel, m: Declare<'_>) -> Result<(), Failure> {
    if m.flags.has(Declare::PASSIVE) {
        cx.core.broker.check_exchange(channel.vhost, m.exchange.0)?;
    } else {
        let declare = ExchangeDeclare {
            name: m.exchange.0,
            kind: m.kind.0,
            durable: m.flags.has(Declare::DURABLE),
            auto_delete: m.flags.has(Declare::AUTO_DELETE),
            internal: m.flags.has(Declare::INTERNAL),
            arguments: arguments(m.arguments)?,
        };
        cx.core.broker.declare_exchange(channel.vhost, &declare)?;
    }
    cx.answer(channel, m.flags.has(Declare::NO_WAIT), &DeclareOk {});
    Ok(())
}

pub(super) fn delete(cx: &mut Cx<'_>, channel: &Channel, m: Delete<'_>) -> Result<(), Failure> {
    cx.core.broker.delete_exchange(channel.vhost, m.exchange.0, m.flags.has(Delete::IF_UNUSED))?;
    cx.answer(channel, m.flags.has(Delete::NO_WAIT), &DeleteOk {});
    Ok(())
}

pub(super) fn bind(cx: &mut Cx<'_>, channel: &Channel, m: Bind<'_>) -> Result<(), Failure> {
    let binding = BindingSpec {
        source: m.source.0,
        destination: m.destination.0,
        routing_key: m.routing_key.0,
        arguments: arguments(m.arguments)?,
    };
    cx.core.broker.bind_exchange(channel.vhost, &binding)?;
    cx.answer(channel, m.flags.has(Bind::NO_WAIT), &BindOk {});
    Ok(())
}

pub(super) fn unbind(cx: &mut Cx<'_>, channel: &Channel, m: Unbind<'_>) -> Result<(), Failure> {
    let binding = BindingSpec {
        source: m.source.0,
        destination: m.destination.0,
        routing_key: m.routing_key.0,
        arguments: arguments(m.arguments)?,
    };
    cx.core.broker.unbind_exchange(channel.vhost, &binding)?;
    cx.answer(channel, m.flags.has(Unbind::NO_WAIT), &UnbindOk {});
    Ok(())
}
