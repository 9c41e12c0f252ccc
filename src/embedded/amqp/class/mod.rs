//! What each method does, a file per class.
//!
//! A request on a channel comes through [`work`]: the order of frames is checked, faults are asked, then the class has it.

pub(super) mod access;
pub(super) mod basic;
pub(super) mod channel;
pub(super) mod confirm;
pub(super) mod connection;
pub(super) mod exchange;
mod fault;
pub(super) mod queue;
pub(super) mod tx;

use std::time::Instant;

use super::broker::{ChannelId, Refusal};
use super::channel::Channel;
use super::connection::Link;
use super::machine::Core;
use super::wire::method::{Method, Request};
use super::wire::{RawTable, Short, table};
use crate::amqp::Table;

pub(super) use fault::After;

/// What a handler may touch besides its channel.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) core: &'a mut Core,
    pub(super) link: &'a mut Link,
    pub(super) now: Instant,
}

impl Cx<'_> {
    pub(super) fn channel_id(&self, channel: &Channel) -> ChannelId {
        ChannelId { connection: self.link.id, channel: channel.number }
    }

    /// Answers, unless the client does not want an answer.
    fn answer<'m, M: Method<'m>>(&mut self, channel: &Channel, no_wait: bool, method: &M) {
        if !no_wait {
            self.link.send(channel.number, method);
        }
    }
}

/// A request that ends its channel or its connection.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) refusal: Refusal,
    /// The method that was refused; `(0, 0)` where none is named.
    pub(super) method: Option<(u16, u16)>,
    /// The channel that is closed, if the refusal does not end the connection.
    pub(super) channel: Option<u16>,
    /// Closes the channel, or with `whole` the connection, whatever the code.
    pub(super) forced: bool,
    pub(super) whole: bool,
}

impl Failure {
    pub(super) fn new(code: u16, text: String) -> Self {
        Self::from(Refusal { code, text })
    }

    /// Names the method, unless one is named already.
    pub(super) fn of_method(mut self, id: (u16, u16)) -> Self {
        self.method.get_or_insert(id);
        self
    }

    pub(super) fn on_channel(mut self, number: u16) -> Self {
        self.channel.get_or_insert(number);
        self
    }

    /// The channel that is to be closed; `None`: the connection.
    pub(super) fn closes(&self) -> Option<u16> {
        self.channel.filter(|_| !self.whole && (self.forced || !self.refusal.ends_connection()))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, method: None, channel: None, forced: false, whole: false }
    }
}

/// What becomes of the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It stays.
    Stays,
    /// Its number is free again.
    Forget,
}

/// Works a request on a channel. `fresh`: the channel was made for it.
pub(super) fn work(
    cx: &mut Cx<'_>,
    channel: &mut Channel,
    request: Request<'_>,
    fresh: bool,
) -> Result<Outcome, Failure> {
    if channel.closing {
        return Ok(match request {
            Request::ChannelCloseOk(_) => Outcome::Forget,
            Request::ChannelClose(_) => {
                cx.link.send(channel.number, &super::wire::method::channel::CloseOk {});
                Outcome::Stays
            }
            _ => Outcome::Stays,
        });
    }
    let number = channel.number;
    let result = in_order(channel).and_then(|()| {
        if !cx.core.faults.is_empty() && !fault::before(cx, Some(channel), &request)? {
            return Ok(Outcome::Stays);
        }
        dispatch(cx, channel, request, fresh)
    });
    result.map_err(|e| e.of_method(request.id()).on_channel(number))
}

/// No method may come between the frames of a publish.
fn in_order(channel: &Channel) -> Result<(), Failure> {
    let Some(incoming) = &channel.incoming else { return Ok(()) };
    let text = match incoming.header {
        None => "expected content header for class 60, got non content header frame instead",
        Some(_) => "expected content body, got non content body frame instead",
    };
    Err(Failure::new(505, format!("UNEXPECTED_FRAME - {text}"))
        .of_method(super::wire::method::basic::Publish::ID))
}

fn dispatch(
    cx: &mut Cx<'_>,
    channel: &mut Channel,
    request: Request<'_>,
    fresh: bool,
) -> Result<Outcome, Failure> {
    match request {
        Request::BasicPublish(m) => basic::publish(channel, m),
        Request::BasicAck(m) => basic::ack(cx, channel, m)?,
        Request::BasicNack(m) => basic::nack(cx, channel, m)?,
        Request::BasicReject(m) => basic::reject(cx, channel, m)?,
        Request::BasicGet(m) => basic::get(cx, channel, m)?,
        Request::BasicQos(m) => basic::qos(cx, channel, m)?,
        Request::BasicConsume(m) => basic::consume(cx, channel, m)?,
        Request::BasicCancel(m) => basic::cancel(cx, channel, m),
        // Nobody waits for it.
        Request::BasicCancelOk(_) => {}
        Request::BasicRecoverAsync(m) => basic::recover(cx, channel, m.requeue, false)?,
        Request::BasicRecover(m) => basic::recover(cx, channel, m.requeue, true)?,
        Request::ChannelOpen(_) => channel::open(cx, channel, fresh)?,
        Request::ChannelFlow(m) => channel::flow(cx, channel, m)?,
        Request::ChannelClose(_) => {
            channel::close(cx, channel);
            return Ok(Outcome::Forget);
        }
        Request::AccessTicket(_) => access::request(cx, channel),
        Request::ExchangeDeclare(m) => exchange::declare(cx, channel, m)?,
        Request::ExchangeDelete(m) => exchange::delete(cx, channel, m)?,
        Request::ExchangeBind(m) => exchange::bind(cx, channel, m)?,
        Request::ExchangeUnbind(m) => exchange::unbind(cx, channel, m)?,
        Request::QueueDeclare(m) => queue::declare(cx, channel, m)?,
        Request::QueueBind(m) => queue::bind(cx, channel, m)?,
        Request::QueueUnbind(m) => queue::unbind(cx, channel, m)?,
        Request::QueuePurge(m) => queue::purge(cx, channel, m)?,
        Request::QueueDelete(m) => queue::delete(cx, channel, m)?,
        Request::ConfirmSelect(m) => confirm::select(cx, channel, m)?,
        Request::TxSelect(_) => tx::select(cx, channel)?,
        Request::TxCommit(_) => tx::commit(cx, channel)?,
        Request::TxRollback(_) => tx::rollback(cx, channel)?,
        Request::ConnectionStartOk(_)
        | Request::ConnectionSecureOk(_)
        | Request::ConnectionTuneOk(_)
        | Request::ConnectionOpen(_)
        | Request::ConnectionClose(_)
        | Request::ConnectionCloseOk(_)
        | Request::ConnectionUpdateSecret(_)
        | Request::ChannelFlowOk(_)
        | Request::ChannelCloseOk(_) => return Err(Refusal::command_invalid("unimplemented method").into()),
    }
    Ok(Outcome::Stays)
}

/// Arguments of a declare, a bind or a consume.
fn arguments(raw: RawTable<'_>) -> Result<Table, Failure> {
    table::decode(raw.0).map_err(|_| {
        let most = crate::amqp::MAX_DEPTH;
        Failure::new(501, format!("FRAME_ERROR - arguments that are broken, or nested deeper than {most}"))
    })
}

/// An empty name of a queue means the one that this channel declared last.
fn queue_name<'a>(channel: &'a Channel, name: Short<'a>) -> Result<&'a [u8], Failure> {
    match (name.0, &*channel.last_queue) {
        (b"", b"") => Err(Refusal::not_found("no previously declared queue").into()),
        (b"", last) => Ok(last),
        (name, _) => Ok(name),
    }
}
