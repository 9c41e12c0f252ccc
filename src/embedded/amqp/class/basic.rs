//! Class `basic` (AMQP 0-9-1 section 1.8), with RabbitMQ's `basic.nack`.
//!
//! | method | here |
//! |---|---|
//! | publish | `immediate` is refused (540), as RabbitMQ does since 3.0 |
//! | consume | `no_local` is taken and has no effect, as with RabbitMQ |
//! | consume | at most 10,000 on a channel (530, as RabbitMQ where `consumer_max_per_channel` is set) |
//! | qos | `prefetch_size` must be 0 (540); not global: for consumers to come, and the global one is lifted |
//! | recover | with requeue only (540) |
//! | ack, nack, reject | an unknown tag ends the channel (406) |

use bytes::Bytes;

use super::fault::{self, Mended};
use super::{Cx, Failure, arguments, queue_name};
use crate::embedded::amqp::broker::{Consume, Message, Refusal, Settle, ShortStr};
use crate::embedded::amqp::channel::{Channel, Consumer, Unacked};
use crate::embedded::amqp::content::{self, Incoming};
use crate::embedded::amqp::wire::method::basic::{
    self, Ack, Cancel, CancelOk, ConsumeOk, Get, GetEmpty, GetOk, Nack, Publish, Qos, QosOk, RecoverOk,
    Reject,
};
use crate::embedded::amqp::wire::{Flags, Properties, Short};

/// The most consumers of a channel; some 400 bytes each.
const MAX_CONSUMERS: usize = 10_000;

/// The method; the message follows.
pub(super) fn publish(channel: &mut Channel, m: Publish<'_>) {
    let fault = channel.fault.take();
    channel.incoming = Some(Incoming {
        exchange: channel.last.exchange(m.exchange.0),
        routing_key: channel.last.routing_key(m.routing_key.0),
        mandatory: m.flags.has(Publish::MANDATORY),
        immediate: m.flags.has(Publish::IMMEDIATE),
        fault,
        header: None,
    });
}

/// The whole message is here.
pub(in crate::embedded::amqp) fn published(
    cx: &mut Cx<'_>,
    channel: &mut Channel,
    incoming: Incoming,
    body: Bytes,
) -> Result<(), Failure> {
    let mut refuse = false;
    if let Some(decision) = incoming.fault {
        channel.flush_confirms(cx.link);
        match fault::at_work(cx, decision) {
            Mended::Work => {}
            Mended::Refuse => refuse = true,
        }
    }
    if incoming.immediate {
        return Err(Refusal::not_implemented("immediate=true").into());
    }
    let properties = incoming.header.map(|header| header.properties).unwrap_or_default();
    let exchange = incoming.exchange.clone();
    let read = check_user(cx, &properties)
        .and_then(|()| Ok(Message::new(incoming.exchange, incoming.routing_key, properties, body)?));
    let message = match read {
        Ok(message) => message,
        Err(failure) => {
            // RabbitMQ looks at the exchange first.
            if !exchange.is_empty() {
                cx.core.broker.check_exchange(channel.vhost, &exchange)?;
            }
            return Err(failure);
        }
    };
    if let Some(tx) = &mut channel.transaction {
        if !message.exchange.is_empty() {
            cx.core.broker.check_exchange(channel.vhost, &message.exchange)?;
        }
        // The rest of a message is about so much.
        let bytes = 200 + message.properties.len() + message.body.len();
        tx.bytes += bytes;
        cx.core.unfinished += bytes;
        tx.publishes.push((message, incoming.mandatory));
        return cx.core.check_unfinished();
    }
    let accepted = !refuse && put(cx, channel, message, incoming.mandatory)?;
    let Some(confirms) = &mut channel.confirms else { return Ok(()) };
    if accepted {
        confirms.published += 1;
        cx.link.confirms_due = true;
    } else {
        channel.flush_confirms(cx.link);
        let Some(confirms) = &mut channel.confirms else { return Ok(()) };
        confirms.published += 1;
        confirms.answered = confirms.published;
        let nack = Nack { delivery: confirms.published, flags: Flags(0) };
        cx.link.send(channel.number, &nack);
    }
    Ok(())
}

/// Routes a message; returns it to its publisher if it must be routed and cannot. Whether the queues took it.
pub(super) fn put(
    cx: &mut Cx<'_>,
    channel: &Channel,
    message: Message,
    mandatory: bool,
) -> Result<bool, Failure> {
    let copy = mandatory.then(|| {
        let Message { exchange, routing_key, properties, body, .. } = &message;
        (exchange.clone(), routing_key.clone(), properties.clone(), body.clone())
    });
    let published = cx.core.broker.publish(channel.vhost, message, cx.now)?;
    if let Some((exchange, routing_key, properties, body)) = copy
        && !published.routed
    {
        let text = Short(b"NO_ROUTE");
        let returned =
            basic::Return { code: 312, text, exchange: Short(&exchange), routing_key: Short(&routing_key) };
        content::write(&mut cx.link.out, channel.number, cx.link.frame_max, &returned, &properties, &body);
    }
    Ok(published.accepted)
}

/// A message may name the user who sent it, and nobody else.
fn check_user(cx: &Cx<'_>, properties: &[u8]) -> Result<(), Failure> {
    const USER_ID: u8 = 1 << 4;
    if properties.get(1).is_none_or(|flags| flags & USER_ID == 0) {
        return Ok(());
    }
    let Ok(Properties { user_id: Some(named), .. }) = Properties::parse(properties) else { return Ok(()) };
    if named.0 == cx.link.user.as_bytes() {
        return Ok(());
    }
    let text =
        format!("user_id property set to '{}' but authenticated user was '{}'", named.lossy(), cx.link.user);
    Err(Refusal::precondition_failed(text).into())
}

pub(super) fn get(cx: &mut Cx<'_>, channel: &mut Channel, m: Get<'_>) -> Result<(), Failure> {
    let by = cx.channel_id(channel);
    let name = queue_name(channel, m.queue)?;
    let no_ack = m.flags.has(Get::NO_ACK);
    let Some(fetched) = cx.core.broker.get(channel.vhost, name, no_ack, by, cx.now)? else {
        cx.link.send(channel.number, &GetEmpty { reserved: Short(b"") });
        return Ok(());
    };
    channel.delivered += 1;
    let delivery = fetched.delivery;
    if let Some(held) = delivery.held {
        channel.unsettled.push(channel.delivered, Unacked { held, consumer: None });
    }
    let message = &delivery.message;
    let got = GetOk {
        delivery: channel.delivered,
        redelivered: Flags(u8::from(delivery.redelivered)),
        exchange: Short(&message.exchange),
        routing_key: Short(&message.routing_key),
        messages: fetched.remaining,
    };
    content::write(
        &mut cx.link.out,
        channel.number,
        cx.link.frame_max,
        &got,
        &message.properties,
        &message.body,
    );
    Ok(())
}

pub(super) fn consume(cx: &mut Cx<'_>, channel: &mut Channel, m: basic::Consume<'_>) -> Result<(), Failure> {
    if channel.tags.contains_key(m.tag.0) {
        let text = format!("attempt to reuse consumer tag '{}'", m.tag.lossy());
        return Err(Refusal::not_allowed(text).into());
    }
    if channel.consumers.len() >= MAX_CONSUMERS {
        let text = format!("reached maximum ({MAX_CONSUMERS}) of consumers per channel");
        return Err(Refusal::not_allowed(text).into());
    }
    let tag = if m.tag.0.is_empty() { cx.core.consumer_tag() } else { ShortStr::new(m.tag.0) };
    let no_ack = m.flags.has(basic::Consume::NO_ACK);
    let queue = ShortStr::new(queue_name(channel, m.queue)?);
    let mut consumer =
        Consumer { tag: tag.clone(), queue, no_ack, prefetch: channel.prefetch, in_flight: 0, ready: false };
    consumer.ready = channel.is_ready(&consumer, cx.link.congested);
    let consume = Consume {
        queue: &consumer.queue,
        channel: cx.channel_id(channel),
        no_ack,
        exclusive: m.flags.has(basic::Consume::EXCLUSIVE),
        arguments: arguments(m.arguments)?,
        ready: consumer.ready,
    };
    let key = cx.core.broker.add_consumer(channel.vhost, &consume, cx.now)?;
    channel.consumers.insert(key, consumer);
    cx.answer(channel, m.flags.has(basic::Consume::NO_WAIT), &ConsumeOk { tag: Short(&tag) });
    channel.tags.insert(tag, key);
    Ok(())
}

pub(super) fn cancel(cx: &mut Cx<'_>, channel: &mut Channel, m: Cancel<'_>) {
    channel.cancel(&mut cx.core.broker, m.tag.0, cx.now);
    cx.answer(channel, m.flags.has(Cancel::NO_WAIT), &CancelOk { tag: m.tag });
}

pub(super) fn qos(cx: &mut Cx<'_>, channel: &mut Channel, m: Qos) -> Result<(), Failure> {
    if m.prefetch_size != 0 {
        return Err(Refusal::not_implemented(format_args!("prefetch_size!=0 ({})", m.prefetch_size)).into());
    }
    if m.global.has(1) {
        channel.global_prefetch = m.prefetch_count;
    } else {
        channel.prefetch = m.prefetch_count;
        channel.global_prefetch = 0;
    }
    channel.refresh(&mut cx.core.broker, cx.link.congested);
    cx.link.send(channel.number, &QosOk {});
    Ok(())
}

pub(super) fn ack(cx: &mut Cx<'_>, channel: &mut Channel, m: Ack) -> Result<(), Failure> {
    settle(cx, channel, m.delivery, m.multiple.has(1), Settle::Ack)
}

pub(super) fn nack(cx: &mut Cx<'_>, channel: &mut Channel, m: Nack) -> Result<(), Failure> {
    let how = if m.flags.has(2) { Settle::Requeue } else { Settle::Reject };
    settle(cx, channel, m.delivery, m.flags.has(1), how)
}

pub(super) fn reject(cx: &mut Cx<'_>, channel: &mut Channel, m: Reject) -> Result<(), Failure> {
    let how = if m.requeue.has(1) { Settle::Requeue } else { Settle::Reject };
    settle(cx, channel, m.delivery, false, how)
}

fn settle(
    cx: &mut Cx<'_>,
    channel: &mut Channel,
    tag: u64,
    multiple: bool,
    how: Settle,
) -> Result<(), Failure> {
    let unknown = || Failure::from(Refusal::precondition_failed(format_args!("unknown delivery tag {tag}")));
    if let Some(tx) = &mut channel.transaction {
        let taken = if multiple {
            channel.unsettled.take_through(tag)
        } else {
            channel.unsettled.take(tag).map(|unacked| vec![(tag, unacked)])
        };
        tx.settled.push((how, taken.ok_or_else(unknown)?));
        return Ok(());
    }
    let congested = cx.link.congested;
    if multiple {
        let taken = channel.unsettled.take_through(tag).ok_or_else(unknown)?;
        let taken = taken.into_iter().map(|(_, unacked)| unacked);
        channel.settle(&mut cx.core.broker, taken, how, congested, cx.now);
    } else {
        let unacked = channel.unsettled.take(tag).ok_or_else(unknown)?;
        channel.settle(&mut cx.core.broker, [unacked], how, congested, cx.now);
    }
    Ok(())
}

pub(super) fn recover(
    cx: &mut Cx<'_>,
    channel: &mut Channel,
    requeue: Flags,
    answer: bool,
) -> Result<(), Failure> {
    if !requeue.has(1) {
        return Err(Refusal::not_implemented("requeue=false").into());
    }
    let taken = channel.unsettled.take_all().into_iter().map(|(_, unacked)| unacked);
    channel.settle(&mut cx.core.broker, taken, Settle::Requeue, cx.link.congested, cx.now);
    if answer {
        cx.link.send(channel.number, &RecoverOk {});
    }
    Ok(())
}
