//! What is due when: messages that expire, queues that nobody uses, deliveries that nobody settles.
//!
//! Each queue has at most one timer, the earliest of its three. A timer that turns out to be early (its message was
//! delivered meanwhile) is set again when it fires, so that a busy queue does not set one for each message.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Broker;
use super::api::{Event, QueueKey};
use super::messages::AtExpiry;
use super::refusal::Refusal;

impl Broker {
    /// How long deliveries of a queue may stay unsettled.
    fn consumer_timeout(&self, key: QueueKey) -> Option<Duration> {
        let timeout = self.queues.get(key)?.options.consumer_timeout.or(self.settings.consumer_timeout)?;
        // With no time at all each delivery would be late for ever.
        Some(timeout.max(Duration::from_millis(1)))
    }

    /// Sets a queue's timer if it is to fire earlier than it would.
    pub(super) fn set_timer(&mut self, key: QueueKey) {
        let timeout = self.consumer_timeout(key);
        let Some(queue) = self.queues.get_mut(key) else { return };
        let message = queue.ready.front().and_then(|entry| entry.expires);
        let delivery = match (queue.outstanding.oldest(), timeout) {
            (Some((_, _, item)), Some(timeout)) => item.since.checked_add(timeout),
            _ => None,
        };
        let Some(at) = [message, queue.expires, delivery].into_iter().flatten().min() else { return };
        if let Some(set) = queue.timer {
            if set <= at {
                return;
            }
            self.timers.remove(&(set, key));
        }
        queue.timer = Some(at);
        self.timers.insert((at, key));
    }

    /// When [`Broker::handle_timeout`] is next wanted.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does all that is due by `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, key)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(queue) = self.queues.get_mut(key) {
                queue.timer = None;
            }
            self.handle_due(key, now);
        }
        self.carry_dead_letters(now);
        self.check_memory();
    }

    fn handle_due(&mut self, key: QueueKey, now: Instant) {
        if self.queues.get(key).is_some_and(|queue| queue.expires.is_some_and(|at| at <= now)) {
            self.remove_queue(key);
            return;
        }
        // Those that a consumer waits for are delivered before anything else happens, so these here stay.
        self.expire(key, now, AtExpiry::Drop);
        if let Some(timeout) = self.consumer_timeout(key)
            && let Some(queue) = self.queues.get_mut(key)
        {
            let mut late = BTreeSet::new();
            while let Some((_, _, item)) = queue.outstanding.oldest()
                && item.since.checked_add(timeout).is_some_and(|at| at <= now)
            {
                late.insert(item.channel);
                queue.outstanding.restart_oldest(now);
            }
            for channel in late {
                let refusal = Refusal::precondition_failed(format_args!(
                    "delivery acknowledgement on channel {} timed out. Timeout value used: {} ms. This timeout value \
                     can be configured, see consumers doc guide to learn more",
                    channel.channel,
                    timeout.as_millis()
                ));
                self.events.push_back(Event::ConsumerTimeout { channel, refusal });
            }
        }
        self.set_timer(key);
    }
}
