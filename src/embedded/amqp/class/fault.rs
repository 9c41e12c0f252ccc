//! Carries out what a fault rule wants of a request.
//!
//! Some actions come instead of the work or before it ([`before`]); the others are about its answer ([`After`]): they are
//! prepared by marking where the output stands, and done once the answer, or the close that answers it, is written. A publish
//! is worked when its last frame came, so that its fault waits for that ([`at_work`]).

use std::borrow::Cow;

use super::{Cx, Failure};
use crate::NodeId;
use crate::embedded::amqp::broker::{Refusal, ShortStr};
use crate::embedded::amqp::channel::Channel;
use crate::embedded::amqp::connection::Decided;
use crate::embedded::amqp::machine::{Cancel, Death};
use crate::embedded::amqp::output::{Gate, Mark, Outbox};
use crate::embedded::amqp::wire::Short;
use crate::embedded::amqp::wire::method::Request;
use crate::embedded::faults::{Action, Decision, Facts, Kind};

/// What is to be done with the answer of the request in hand.
#[derive(Debug)]
pub(in crate::embedded::amqp) struct After {
    mark: Mark,
    decision: Decision,
}

/// What is left to do of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mended {
    Work,
    /// It is dropped, and refused where it would be confirmed.
    Refuse,
}

/// Asks for a fault and does what comes before the work. Whether the request is to be worked.
pub(super) fn before(
    cx: &mut Cx<'_>,
    mut channel: Option<&mut Channel>,
    request: &Request<'_>,
) -> Result<bool, Failure> {
    if cx.link.decided.take().is_some() {
        return Ok(true);
    }
    let (class, method) = request.id();
    let kind = Kind::Amqp(class, method);
    let places = if cx.core.faults.wants_places(kind) { places(request) } else { Vec::new() };
    let places: Vec<&str> = places.iter().map(AsRef::as_ref).collect();
    let facts = Facts {
        node: NodeId(0),
        connection: cx.link.id,
        client_id: cx.link.name.as_deref(),
        kind,
        places: &places,
    };
    let Some(decision) = cx.core.faults.decide(&facts, cx.now) else { return Ok(true) };
    if let (Request::BasicPublish(_), Some(channel)) = (request, channel.as_deref_mut())
        && waits(&decision.action)
    {
        channel.fault = Some(decision);
        return Ok(true);
    }
    let number = channel.as_ref().map(|channel| channel.number);
    match &decision.action {
        Action::DropRequest => {
            cx.link.reset = true;
            return Ok(false);
        }
        Action::Stall(by) => {
            cx.link.stalled = cx.now.checked_add(*by);
            cx.link.decided = Some(Decided);
            let mark = cx.link.out.mark();
            if let Some(until) = cx.link.stalled {
                cx.link.out.gate(mark, Gate::Until(until));
            }
            return Ok(false);
        }
        Action::Kill => {
            cx.core.death = Some(Death::ForGood);
            return Ok(false);
        }
        Action::Restart(after) => {
            cx.core.death = Some(Death::Until(cx.now.checked_add(*after)));
            return Ok(false);
        }
        Action::CloseChannel(code, text) => {
            let mut failure = Failure::from(Refusal { code: *code, text: text.clone() });
            failure.channel = number;
            failure.forced = true;
            return Err(failure);
        }
        Action::CloseConnection(code, text) => {
            let mut failure = Failure::from(Refusal { code: *code, text: text.clone() });
            // No channel at all: the connection goes.
            failure.forced = true;
            failure.whole = true;
            return Err(failure);
        }
        Action::Block(reason, by) => {
            cx.link.alarm = cx.now.checked_add(*by).map(|until| (ShortStr::from(reason.as_str()), until));
        }
        Action::CancelConsumers => {
            let id = channel.as_ref().map(|channel| (cx.channel_id(channel), channel.vhost));
            if let Some((id, vhost)) = id {
                cx.core.cancels.push(match queue(request) {
                    Some(queue) => Cancel::Queue(vhost, ShortStr::new(queue.0)),
                    None => Cancel::Channel(id),
                });
            }
        }
        _ => {
            if let Some(channel) = channel {
                channel.flush_confirms(cx.link);
            }
            at_work(cx, decision);
        }
    }
    Ok(true)
}

/// Whether the action is about the work and its answer, so that a publish meets it with its last frame.
fn waits(action: &Action) -> bool {
    matches!(
        action,
        Action::Delay(_)
            | Action::DropAnswer
            | Action::CutAnswer(_)
            | Action::Hold(_)
            | Action::AnswerTwice
            | Action::Nack
    )
}

/// The request is worked now: what is to be done with its answer is done from here on.
pub(super) fn at_work(cx: &mut Cx<'_>, decision: Decision) -> Mended {
    if decision.action == Action::Nack {
        return Mended::Refuse;
    }
    let mark = cx.link.out.mark();
    if let Action::Hold(_) = decision.action {
        cx.core.held.insert(decision.id, cx.link.id);
    }
    cx.link.after = Some(After { mark, decision });
    Mended::Work
}

impl After {
    /// The answer is written.
    pub(in crate::embedded::amqp) fn carry_out(self, out: &mut Outbox, now: std::time::Instant) {
        match self.decision.action {
            Action::Delay(by) => {
                if let Some(until) = now.checked_add(by) {
                    out.gate(self.mark, Gate::Until(until));
                }
            }
            Action::Hold(_) => out.gate(self.mark, Gate::Held(self.decision.id)),
            Action::DropAnswer => out.cut_after(self.mark, 0),
            Action::CutAnswer(at) => out.cut_after(self.mark, at as u64),
            Action::AnswerTwice => out.repeat(self.mark),
            // One node has no other from which it could be isolated; the rest is Kafka's.
            _ => {}
        }
    }
}

/// The queue that a request names.
fn queue<'a>(request: &Request<'a>) -> Option<Short<'a>> {
    let name = match request {
        Request::QueueDeclare(m) => m.queue,
        Request::QueueBind(m) => m.queue,
        Request::QueueUnbind(m) => m.queue,
        Request::QueuePurge(m) => m.queue,
        Request::QueueDelete(m) => m.queue,
        Request::BasicGet(m) => m.queue,
        Request::BasicConsume(m) => m.queue,
        // The default exchange leads to the queue of this name.
        Request::BasicPublish(m) if m.exchange.0.is_empty() => m.routing_key,
        _ => return None,
    };
    Some(name).filter(|name| !name.0.is_empty())
}

/// The queues, exchanges and routing keys that a request names.
fn places<'a>(request: &Request<'a>) -> Vec<Cow<'a, str>> {
    let names: [Option<Short<'a>>; 3] = match request {
        Request::BasicPublish(m) => [Some(m.exchange), Some(m.routing_key), None],
        Request::ExchangeDeclare(m) => [Some(m.exchange), None, None],
        Request::ExchangeDelete(m) => [Some(m.exchange), None, None],
        Request::ExchangeBind(m) => [Some(m.source), Some(m.destination), Some(m.routing_key)],
        Request::ExchangeUnbind(m) => [Some(m.source), Some(m.destination), Some(m.routing_key)],
        Request::QueueBind(m) => [Some(m.queue), Some(m.exchange), Some(m.routing_key)],
        Request::QueueUnbind(m) => [Some(m.queue), Some(m.exchange), Some(m.routing_key)],
        other => [queue(other), None, None],
    };
    names.into_iter().flatten().filter(|name| !name.0.is_empty()).map(Short::lossy).collect()
}
