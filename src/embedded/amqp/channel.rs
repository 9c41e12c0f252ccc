//! One channel: its consumers, what it delivered and is not settled, its confirms or its transaction. Pure.
//!
//! ```text
//!              channel.open                    close of the client
//!   (nothing) ─────────────► running ─────────────────────────────► (nothing)
//!                               │ a refusal: channel.close is sent      ▲
//!                               ▼                                       │ channel.close-ok
//!                            closing: all but close and close-ok is ignored
//! ```
//!
//! # Prefetch
//!
//! A consumer is ready while it has fewer unsettled deliveries than the prefetch that was in force when it began, the channel
//! has fewer than its global one, and the connection's output has room. The broker is told whenever that changes, and asks
//! for one message at a time.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::broker::{Broker, ConsumerKey, Delivery, Held, Message, Settle, ShortStr, VhostKey};
use super::connection::Link;
use super::content::{self, Incoming};
use super::unsettled::Unsettled;
use super::wire::method::{self, basic};
use super::wire::{Flags, Short};
use crate::embedded::faults::Decision;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) vhost: VhostKey,
    /// `channel.close` was sent, and not answered yet.
    pub(super) closing: bool,
    /// What is to go wrong with the publish whose method is in hand.
    pub(super) fault: Option<Decision>,
    /// The publish in progress.
    pub(super) incoming: Option<Incoming>,
    pub(super) consumers: BTreeMap<ConsumerKey, Consumer>,
    pub(super) tags: BTreeMap<ShortStr, ConsumerKey>,
    pub(super) unsettled: Unsettled<Unacked>,
    /// The tag of the last delivery.
    pub(super) delivered: u64,
    /// Prefetch of consumers to come (`basic.qos` not global); 0: no limit.
    pub(super) prefetch: u16,
    /// Prefetch of the channel (`basic.qos` global); 0: no limit.
    pub(super) global_prefetch: u16,
    /// Unsettled deliveries to consumers.
    in_flight: u32,
    pub(super) confirms: Option<Confirms>,
    pub(super) transaction: Option<Transaction>,
    /// The queue declared last, which an empty name means.
    pub(super) last_queue: ShortStr,
    /// What the last publish was: the next one mostly goes the same way.
    pub(super) last: LastPublish,
}

/// Texts of the last publish, shared with the next one where they are equal.
#[derive(Debug, Default)]
pub(super) struct LastPublish {
    pub(super) exchange: ShortStr,
    pub(super) routing_key: ShortStr,
    pub(super) properties: Bytes,
}

impl LastPublish {
    pub(super) fn exchange(&mut self, name: &[u8]) -> ShortStr {
        same(&mut self.exchange, name)
    }

    pub(super) fn routing_key(&mut self, key: &[u8]) -> ShortStr {
        same(&mut self.routing_key, key)
    }

    pub(super) fn properties(&mut self, raw: &[u8]) -> Bytes {
        if self.properties != raw {
            self.properties = Bytes::copy_from_slice(raw);
        }
        self.properties.clone()
    }
}

fn same(last: &mut ShortStr, bytes: &[u8]) -> ShortStr {
    if **last != *bytes {
        *last = ShortStr::new(bytes);
    }
    last.clone()
}

/// `basic.consume` of this channel.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) tag: ShortStr,
    pub(super) queue: ShortStr,
    pub(super) no_ack: bool,
    pub(super) prefetch: u16,
    pub(super) in_flight: u32,
    /// As the broker was told.
    pub(super) ready: bool,
}

/// A delivery that is to be settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unacked {
    pub(super) held: Held,
    /// `None` for `basic.get`.
    pub(super) consumer: Option<ConsumerKey>,
}

/// Publisher confirms: each publish has a number, and all up to `answered` were confirmed or refused.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    pub(super) published: u64,
    pub(super) answered: u64,
}

/// What `tx.commit` will do.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) publishes: Vec<(Message, bool)>,
    pub(super) settled: Vec<(Settle, Vec<(u64, Unacked)>)>,
    /// Bytes of the messages in `publishes`.
    pub(super) bytes: usize,
}

impl Channel {
    pub(super) fn new(number: u16, vhost: VhostKey) -> Self {
        Self {
            number,
            vhost,
            closing: false,
            fault: None,
            incoming: None,
            consumers: BTreeMap::new(),
            tags: BTreeMap::new(),
            unsettled: Unsettled::default(),
            delivered: 0,
            prefetch: 0,
            global_prefetch: 0,
            in_flight: 0,
            confirms: None,
            transaction: None,
            last_queue: ShortStr::default(),
            last: LastPublish::default(),
        }
    }

    /// Bytes that are kept here for messages that are not complete or not committed.
    pub(super) fn unfinished(&self) -> usize {
        let body = self.incoming.as_ref().and_then(|i| i.header.as_ref()).map_or(0, |h| h.body.capacity());
        body + self.transaction.as_ref().map_or(0, |tx| tx.bytes)
    }

    fn wants(consumer: &Consumer, global: bool, congested: bool) -> bool {
        !congested
            && (consumer.no_ack
                || (!global && (consumer.prefetch == 0 || consumer.in_flight < u32::from(consumer.prefetch))))
    }

    /// Whether a consumer to be added can take a message.
    pub(super) fn is_ready(&self, consumer: &Consumer, congested: bool) -> bool {
        Self::wants(consumer, self.is_full(), congested)
    }

    /// Whether the channel's own prefetch is used up.
    fn is_full(&self) -> bool {
        self.global_prefetch != 0 && self.in_flight >= u32::from(self.global_prefetch)
    }

    /// Tells the broker which consumers are ready, where that has changed.
    pub(super) fn refresh(&mut self, broker: &mut Broker, congested: bool) {
        let full = self.is_full();
        for (key, consumer) in &mut self.consumers {
            let ready = Self::wants(consumer, full, congested);
            if ready != consumer.ready {
                consumer.ready = ready;
                broker.set_ready(*key, ready);
            }
        }
    }

    /// The same for one consumer.
    #[inline]
    fn refresh_one(&mut self, key: ConsumerKey, broker: &mut Broker, congested: bool) {
        let full = self.is_full();
        if let Some(consumer) = self.consumers.get_mut(&key) {
            let ready = Self::wants(consumer, full, congested);
            if ready != consumer.ready {
                consumer.ready = ready;
                broker.set_ready(key, ready);
            }
        }
    }

    /// Writes `basic.deliver`. Hands the delivery back if there is no such consumer.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        broker: &mut Broker,
        link: &mut Link,
        key: ConsumerKey,
        delivery: Delivery,
    ) -> Result<(), Delivery> {
        let was_full = self.is_full();
        let Some(consumer) = self.consumers.get_mut(&key) else { return Err(delivery) };
        self.delivered += 1;
        if let Some(held) = delivery.held {
            self.unsettled.push(self.delivered, Unacked { held, consumer: Some(key) });
            consumer.in_flight += 1;
            self.in_flight += 1;
        }
        let message = &delivery.message;
        let deliver = basic::Deliver {
            tag: Short(&consumer.tag),
            delivery: self.delivered,
            redelivered: Flags(u8::from(delivery.redelivered)),
            exchange: Short(&message.exchange),
            routing_key: Short(&message.routing_key),
        };
        content::write(
            &mut link.out,
            self.number,
            link.frame_max,
            &deliver,
            &message.properties,
            &message.body,
        );
        if self.is_full() == was_full {
            self.refresh_one(key, broker, link.congested);
        } else {
            self.refresh(broker, link.congested);
        }
        Ok(())
    }

    /// Settles deliveries that were taken out of `unsettled`.
    pub(super) fn settle(
        &mut self,
        broker: &mut Broker,
        taken: impl IntoIterator<Item = Unacked>,
        how: Settle,
        congested: bool,
        now: Instant,
    ) {
        let was_full = self.is_full();
        let mut last = None;
        for Unacked { held, consumer } in taken {
            broker.settle(held, how, now);
            let Some(key) = consumer else { continue };
            self.in_flight = self.in_flight.saturating_sub(1);
            if let Some(consumer) = self.consumers.get_mut(&key) {
                consumer.in_flight = consumer.in_flight.saturating_sub(1);
            }
            if let Some(before) = last.replace(key).filter(|before| *before != key) {
                self.refresh_one(before, broker, congested);
            }
        }
        if was_full != self.is_full() {
            self.refresh(broker, congested);
        } else if let Some(key) = last {
            self.refresh_one(key, broker, congested);
        }
    }

    /// Takes a consumer off the broker.
    pub(super) fn cancel(&mut self, broker: &mut Broker, tag: &[u8], now: Instant) -> bool {
        let Some(key) = self.tags.remove(tag) else { return false };
        self.consumers.remove(&key);
        broker.remove_consumer(key, now);
        true
    }

    /// A consumer that the broker has dropped. Its tag.
    pub(super) fn forget(&mut self, key: ConsumerKey) -> Option<ShortStr> {
        let consumer = self.consumers.remove(&key)?;
        self.tags.remove(&consumer.tag);
        Some(consumer.tag)
    }

    /// The end: consumers go, what is unsettled goes back to its queues, oldest first.
    pub(super) fn release(&mut self, broker: &mut Broker, now: Instant) {
        for key in std::mem::take(&mut self.consumers).into_keys() {
            broker.remove_consumer(key, now);
        }
        self.tags.clear();
        let mut left = self.unsettled.take_all();
        if let Some(tx) = self.transaction.take() {
            left.extend(tx.settled.into_iter().flat_map(|(_, settled)| settled));
            left.sort_by_key(|(tag, _)| *tag);
        }
        for (_, unacked) in left {
            broker.settle(unacked.held, Settle::Requeue, now);
        }
        self.in_flight = 0;
        self.incoming = None;
        self.confirms = None;
    }

    /// Confirms what was accepted and is not confirmed yet: by one frame.
    pub(super) fn flush_confirms(&mut self, link: &mut Link) {
        let Some(confirms) = &mut self.confirms else { return };
        let open = confirms.published - confirms.answered;
        if open > 0 && !self.closing {
            confirms.answered = confirms.published;
            let ack = basic::Ack { delivery: confirms.published, multiple: Flags(u8::from(open > 1)) };
            method::frame(link.out.tail(), self.number, &ack);
        }
    }
}
