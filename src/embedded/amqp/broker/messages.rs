//! Messages on their way: published, placed in queues, fetched, delivered, settled.

use std::sync::Arc;
use std::time::Instant;

use super::Broker;
use super::api::{ChannelId, Delivery, Event, Fetched, Held, Published, QueueKey, Settle, VhostKey};
use super::arguments::Overflow;
use super::dead_letter::Reason;
use super::message::Message;
use super::queue::{Queue, count};
use super::ready::Entry;
use super::refusal::Refusal;
use super::unsettled::Unsettled;
use crate::amqp::Value;

/// How the moment of expiry itself counts: a message with no time at all can still be handed to a consumer that waits
/// for it, but not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtExpiry {
    Deliver,
    Drop,
}

impl Entry {
    fn is_expired(&self, now: Instant, at_expiry: AtExpiry) -> bool {
        self.expires.is_some_and(|at| match at_expiry {
            AtExpiry::Deliver => at < now,
            AtExpiry::Drop => at <= now,
        })
    }
}

impl Queue {
    /// Whether it holds more than it may, or would with `more` messages of `more_bytes`.
    fn is_over(&self, more: u64, more_bytes: u64) -> bool {
        let options = &self.options;
        options.max_length.is_some_and(|most| self.ready.len() as u64 + more > most)
            || options.max_bytes.is_some_and(|most| self.ready.bytes() + more_bytes > most)
    }

    const fn is_limited(&self) -> bool {
        self.options.max_length.is_some() || self.options.max_bytes.is_some()
    }
}

impl Broker {
    /// `basic.publish`, to the message's exchange by its routing key.
    ///
    /// # Errors
    /// 404 where the exchange does not exist, 403 where it is internal.
    pub(crate) fn publish(
        &mut self,
        vhost: VhostKey,
        message: Message,
        now: Instant,
    ) -> Result<Published, Refusal> {
        if !message.exchange.is_empty() {
            let key = self.exchange_key(vhost, &message.exchange)?;
            if self.exchanges.get(key).is_some_and(|exchange| exchange.internal) {
                let thing = self.vhost(vhost)?.exchange(&message.exchange);
                return Err(Refusal::access_refused(format_args!("cannot publish to internal {thing}")));
            }
        }
        let exchange = message.exchange.clone();
        self.find_queues(vhost, &exchange, &message);
        let routed = !self.route.queues.is_empty();
        let accepted = self.place(message, now);
        if !self.dead.is_empty() {
            self.carry_dead_letters(now);
        }
        Ok(Published { routed, accepted })
    }

    /// Puts a message into the queues in `self.route`; `false` if one of them refused it.
    pub(super) fn place(&mut self, message: Message, now: Instant) -> bool {
        let queues = std::mem::take(&mut self.route.queues);
        let mut accepted = true;
        if let Some((last, others)) = queues.split_last() {
            let message = Arc::new(message);
            for key in others {
                accepted &= self.place_in(*key, Arc::clone(&message), now);
            }
            accepted &= self.place_in(*last, message, now);
        }
        self.route.queues = queues;
        accepted
    }

    fn place_in(&mut self, key: QueueKey, message: Arc<Message>, now: Instant) -> bool {
        let Some(queue) = self.queues.get_mut(key) else { return true };
        if queue.options.overflow != Overflow::DropHead && queue.is_over(1, message.body.len() as u64) {
            if queue.options.overflow == Overflow::RejectPublishDlx {
                self.bury(key, message, Reason::MaxLength);
            }
            return false;
        }
        let ttl = match (queue.options.ttl, message.ttl) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let expires = ttl.and_then(|ttl| now.checked_add(ttl));
        let seq = queue.next_seq;
        queue.next_seq += 1;
        self.memory.used += message.hold();
        let priority = message.priority.min(queue.options.max_priority);
        queue.ready.push(Entry { message, seq, expires, returns: 0, redelivered: false, priority });
        if queue.rotation.is_empty() {
            let limited = queue.is_limited();
            if limited {
                self.trim(key);
            }
            if expires.is_some() {
                self.set_timer(key);
            }
        } else {
            self.activate(key);
        }
        self.check_memory();
        true
    }

    /// Drops from the head what is too much.
    fn trim(&mut self, key: QueueKey) {
        let mut dropped = false;
        while let Some(queue) = self.queues.get_mut(key)
            && queue.is_over(0, 0)
            && let Some(entry) = queue.ready.pop()
        {
            self.discard(key, entry, Reason::MaxLength);
            dropped = true;
        }
        if dropped {
            // Another message stands first now, which may expire earlier.
            self.set_timer(key);
        }
    }

    /// Drops from the head what is expired.
    pub(super) fn expire(&mut self, key: QueueKey, now: Instant, at_expiry: AtExpiry) {
        while let Some(queue) = self.queues.get_mut(key)
            && queue.ready.front().is_some_and(|entry| entry.is_expired(now, at_expiry))
            && let Some(entry) = queue.ready.pop()
        {
            self.discard(key, entry, Reason::Expired);
        }
    }

    fn discard(&mut self, key: QueueKey, entry: Entry, why: Reason) {
        self.memory.used = self.memory.used.saturating_sub(entry.message.release());
        self.bury(key, entry.message, why);
    }

    /// The queue may have something to deliver.
    pub(super) fn activate(&mut self, key: QueueKey) {
        if let Some(queue) = self.queues.get_mut(key)
            && !queue.active
            && !queue.ready.is_empty()
        {
            queue.active = true;
            self.active.push_back(key);
        }
    }

    /// `basic.get`; `None` where no message is ready.
    ///
    /// # Errors
    /// 404 where the queue does not exist, 405 for another connection's exclusive queue, and for a quorum queue with a
    /// single active consumer.
    pub(crate) fn get(
        &mut self,
        vhost: VhostKey,
        queue: &[u8],
        no_ack: bool,
        by: ChannelId,
        now: Instant,
    ) -> Result<Option<Fetched>, Refusal> {
        let key = self.queue_key(vhost, queue, by.connection)?;
        if self.queues.get(key).is_some_and(|q| q.options.quorum && q.options.single_active) {
            let thing = self.vhost(vhost)?.queue(queue);
            return Err(Refusal::resource_locked(format_args!(
                "cannot obtain access to locked {thing}. basic.get operations are not supported by quorum queues with \
                 single active consumer"
            )));
        }
        self.expire(key, now, AtExpiry::Drop);
        let fetched = self.queues.get_mut(key).and_then(|queue| {
            queue.touch(now);
            queue.ready.pop()
        });
        // Those behind it that have expired are not counted.
        self.expire(key, now, AtExpiry::Drop);
        let remaining = self.queues.get(key).map_or(0, |queue| count(queue.ready.len()));
        let fetched = fetched.map(|entry| {
            let delivery = self.hand_out(key, entry, (!no_ack).then_some(by), now);
            Fetched { delivery, remaining }
        });
        self.set_timer(key);
        self.carry_dead_letters(now);
        self.check_memory();
        Ok(fetched)
    }

    /// Gives an entry of a queue to a channel, which is to settle it, or to nobody.
    fn hand_out(&mut self, key: QueueKey, entry: Entry, to: Option<ChannelId>, now: Instant) -> Delivery {
        let message = if entry.returns > 0 {
            let times = i64::from(entry.returns);
            Arc::new(entry.message.with_headers(&[("x-delivery-count", Value::I64(times))]))
        } else {
            Arc::clone(&entry.message)
        };
        let redelivered = entry.redelivered;
        let held = match (to, self.queues.get_mut(key)) {
            (Some(channel), Some(queue)) => {
                let (slot, serial) = queue.outstanding.insert(Unsettled { entry, channel, since: now });
                Some(Held { queue: key, slot, serial })
            }
            _ => {
                self.memory.used = self.memory.used.saturating_sub(entry.message.release());
                None
            }
        };
        Delivery { message, redelivered, held }
    }

    /// The next thing to do. Ask until there is none after each operation: a message that a waiting consumer takes at
    /// once never counts against a queue's limits. Deliveries come one at a time and to consumers that are ready; say
    /// so by [`Broker::set_ready`] before asking again if one no longer is.
    #[inline]
    pub(crate) fn poll_event(&mut self, now: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let key = *self.active.front()?;
            if let Some(event) = self.deliver_from(key, now) {
                // Queues take turns too.
                if self.active.len() > 1 {
                    self.active.rotate_left(1);
                }
                return Some(event);
            }
            self.active.pop_front();
            if let Some(queue) = self.queues.get_mut(key) {
                queue.active = false;
            }
            self.trim(key);
            self.set_timer(key);
            self.carry_dead_letters(now);
            self.check_memory();
        }
    }

    fn deliver_from(&mut self, key: QueueKey, now: Instant) -> Option<Event> {
        let queue = self.queues.get_mut(key)?;
        if queue.ready.front()?.is_expired(now, AtExpiry::Deliver) {
            self.expire(key, now, AtExpiry::Deliver);
        }
        let queue = self.queues.get_mut(key)?;
        queue.ready.front()?;
        let consumer_key = queue.rotation.next()?;
        let consumer = self.consumers.get(consumer_key)?;
        let channel = consumer.channel;
        let to = (!consumer.no_ack).then_some(channel);
        let entry = queue.ready.pop()?;
        let unset = queue.timer.is_none();
        let delivery = self.hand_out(key, entry, to, now);
        if unset && to.is_some() {
            self.set_timer(key);
        }
        self.check_memory();
        Some(Event::Deliver { consumer: consumer_key, channel, delivery })
    }

    /// What becomes of a delivered message. Does nothing if it is settled already or its queue is gone.
    pub(crate) fn settle(&mut self, held: Held, how: Settle, now: Instant) {
        let key = held.queue;
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(Unsettled { mut entry, .. }) = queue.outstanding.remove(held.slot, held.serial) else {
            return;
        };
        match how {
            Settle::Ack => self.memory.used = self.memory.used.saturating_sub(entry.message.release()),
            Settle::Reject => self.discard(key, entry, Reason::Rejected),
            Settle::Requeue => {
                entry.redelivered = true;
                if queue.options.quorum {
                    entry.returns = entry.returns.saturating_add(1);
                    let most = queue.options.delivery_limit.or(self.settings.delivery_limit);
                    if most.is_some_and(|most| entry.returns > most) {
                        self.discard(key, entry, Reason::DeliveryLimit);
                        self.carry_dead_letters(now);
                        self.check_memory();
                        return;
                    }
                }
                let expires = entry.expires.is_some();
                queue.ready.restore(entry);
                // As RabbitMQ: a full queue drops its head before anybody gets it again.
                self.trim(key);
                self.activate(key);
                if expires {
                    self.set_timer(key);
                }
            }
        }
        if !self.dead.is_empty() {
            self.carry_dead_letters(now);
        }
        self.check_memory();
    }
}
