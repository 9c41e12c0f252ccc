//! Consumers of queues, and whose turn it is.
//!
//! Those that can take a message stand in the queue's rotation: the highest priority (`x-priority`) first, within it one
//! after the other. With `x-single-active-consumer` only one takes part: of those with the highest priority the one that
//! came first; the next one follows when it is gone.

use std::collections::VecDeque;
use std::time::Instant;

use super::Broker;
use super::api::{ChannelId, Consume, ConsumerKey, QueueKey, VhostKey};
use super::arguments;
use super::queue::Queue;
use super::refusal::Refusal;

/// A consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(super) queue: QueueKey,
    pub(super) channel: ChannelId,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) priority: i64,
    pub(super) ready: bool,
}

/// The consumers of one queue that can take a message now, in the order in which they get one.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// By priority, the highest first; no level is empty.
    levels: Vec<(i64, VecDeque<ConsumerKey>)>,
}

impl Rotation {
    pub(super) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    pub(super) fn add(&mut self, priority: i64, consumer: ConsumerKey) {
        match self.levels.binary_search_by(|(p, _)| priority.cmp(p)) {
            Ok(at) => {
                if let Some((_, level)) = self.levels.get_mut(at) {
                    level.push_back(consumer);
                }
            }
            Err(at) => self.levels.insert(at, (priority, [consumer].into())),
        }
    }

    pub(super) fn remove(&mut self, priority: i64, consumer: ConsumerKey) {
        let Ok(at) = self.levels.binary_search_by(|(p, _)| priority.cmp(p)) else { return };
        let Some((_, level)) = self.levels.get_mut(at) else { return };
        // One that stops has usually just had its turn, so it stands last.
        if let Some(place) = level.iter().rposition(|c| *c == consumer) {
            level.remove(place);
        }
        if level.is_empty() {
            self.levels.remove(at);
        }
    }

    /// Whose turn it is; it then stands last among those of its priority.
    pub(super) fn next(&mut self) -> Option<ConsumerKey> {
        let (_, level) = self.levels.first_mut()?;
        let consumer = level.pop_front()?;
        level.push_back(consumer);
        Some(consumer)
    }
}

impl Queue {
    /// Whether a consumer takes part at all.
    fn serves(&self, consumer: ConsumerKey) -> bool {
        !self.options.single_active || self.single_active == Some(consumer)
    }
}

impl Broker {
    /// `basic.consume`.
    ///
    /// # Errors
    /// 404 where the queue does not exist, 405 for another connection's exclusive queue, 403 where another consumer is
    /// exclusive or this one would be and is not alone, 406 for arguments that are not as they should be.
    pub(crate) fn add_consumer(
        &mut self,
        vhost: VhostKey,
        consume: &Consume<'_>,
        now: Instant,
    ) -> Result<ConsumerKey, Refusal> {
        let queue_key = self.queue_key(vhost, consume.queue, consume.channel.connection)?;
        let host = self.vhosts.get(vhost);
        let thing = match host {
            Some(host) => host.queue(consume.queue),
            None => return Err(Refusal::not_allowed("no such vhost")),
        };
        let gone = || Refusal::not_found(format_args!("no {thing}"));
        let queue = self.queues.get_mut(queue_key).ok_or_else(gone)?;
        let priority = arguments::consumer_priority(&thing, queue.options.quorum, &consume.arguments)?;
        // Quorum queues do not know exclusive consumers.
        let alone = |key: &ConsumerKey| self.consumers.get(*key).is_some_and(|c| c.exclusive);
        if !queue.options.quorum
            && (queue.consumers.iter().any(alone) || (consume.exclusive && !queue.consumers.is_empty()))
        {
            return Err(Refusal::access_refused(format_args!("{thing} in exclusive use")));
        }
        let consumer = Consumer {
            queue: queue_key,
            channel: consume.channel,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            priority,
            ready: consume.ready,
        };
        let key = self.consumers.insert_with(|_| consumer);
        queue.consumers.push(key);
        queue.touch(now);
        if queue.options.single_active && queue.single_active.is_none() {
            queue.single_active = Some(key);
        }
        if consume.ready && queue.serves(key) {
            queue.rotation.add(priority, key);
            self.activate(queue_key);
        }
        Ok(key)
    }

    /// Whether a consumer can take a message: it has free prefetch of its own and of its channel, the channel's flow is
    /// on, and there is room in the connection's output. Cheap; call it when it changes.
    pub(crate) fn set_ready(&mut self, key: ConsumerKey, ready: bool) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        if consumer.ready == ready {
            return;
        }
        consumer.ready = ready;
        let (queue_key, priority) = (consumer.queue, consumer.priority);
        let Some(queue) = self.queues.get_mut(queue_key) else { return };
        if !queue.serves(key) {
            return;
        }
        if ready {
            queue.rotation.add(priority, key);
            self.activate(queue_key);
        } else {
            queue.rotation.remove(priority, key);
        }
    }

    /// `basic.cancel`, or the end of the channel. What the consumer has unsettled stays with the channel. An auto-delete
    /// queue goes with its last consumer.
    pub(crate) fn remove_consumer(&mut self, key: ConsumerKey, now: Instant) {
        let Some(gone) = self.consumers.remove(key) else { return };
        let Some(queue) = self.queues.get_mut(gone.queue) else { return };
        queue.consumers.retain(|consumer| *consumer != key);
        queue.rotation.remove(gone.priority, key);
        if queue.consumers.is_empty() && queue.auto_delete {
            self.remove_queue(gone.queue);
            return;
        }
        queue.touch(now);
        if queue.single_active == Some(key) {
            let consumers = &self.consumers;
            let priority = |key: &ConsumerKey| consumers.get(*key).map_or(i64::MIN, |c| c.priority);
            // Of those that are equal `max_by_key` gives the last, so from the back.
            let next = queue.consumers.iter().rev().max_by_key(|key| priority(key)).copied();
            queue.single_active = next;
            if let Some(key) = next
                && let Some(consumer) = self.consumers.get(key)
                && consumer.ready
            {
                queue.rotation.add(consumer.priority, key);
                self.activate(gone.queue);
            }
        }
        self.set_timer(gone.queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::ConnectionId;
    use crate::embedded::amqp::broker::slab::Slab;

    fn keys(n: usize) -> Vec<ConsumerKey> {
        let mut slab = Slab::new();
        let channel = ChannelId { connection: ConnectionId(0), channel: 1 };
        let consumer = |_| Consumer {
            queue: QueueKey::MIN,
            channel,
            no_ack: false,
            exclusive: false,
            priority: 0,
            ready: true,
        };
        (0..n).map(|_| slab.insert_with(consumer)).collect()
    }

    #[test]
    fn the_highest_priority_is_served_first_and_equals_take_turns() {
        let keys = keys(4);
        let mut rotation = Rotation::default();
        for (key, priority) in keys.iter().zip([0, 10, 10, -5]) {
            rotation.add(priority, *key);
        }
        let turns = |r: &mut Rotation, n| (0..n).map(|_| r.next().unwrap()).collect::<Vec<_>>();
        assert_eq!(turns(&mut rotation, 4), [keys[1], keys[2], keys[1], keys[2]]);
        rotation.remove(10, keys[2]);
        assert_eq!(turns(&mut rotation, 2), [keys[1], keys[1]]);
        rotation.remove(10, keys[1]);
        assert_eq!(turns(&mut rotation, 2), [keys[0], keys[0]]);
        rotation.remove(0, keys[0]);
        rotation.add(10, keys[1]);
        assert_eq!(turns(&mut rotation, 1), [keys[1]]);
        rotation.remove(10, keys[1]);
        rotation.remove(-5, keys[3]);
        assert!(rotation.is_empty());
        assert_eq!(rotation.next(), None);
    }
}
