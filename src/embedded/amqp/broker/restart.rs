//! The broker is killed and comes up again.

use std::time::Instant;

use super::Broker;
use super::api::QueueKey;

impl Broker {
    /// What is durable survives: queues and exchanges that are declared so, bindings between such, and in them the
    /// messages that are persistent; in a quorum queue all are. What was delivered and not settled is ready again, in
    /// its place. Consumers and exclusive queues are gone without an event: so are their connections. A
    /// [`Held`](super::Held) or a consumer's key from before does nothing; keys of virtual hosts stay.
    pub(crate) fn restart(&mut self, now: Instant) {
        // Consumers go first, so that nobody is told.
        let consumers: Vec<_> = self.consumers.iter().map(|(key, _)| key).collect();
        for key in consumers {
            self.consumers.remove(key);
        }
        let keys: Vec<QueueKey> = self.queues.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self.queues.get(key).is_some_and(|queue| queue.durable) {
                self.recover_queue(key, now);
            } else {
                self.remove_queue(key);
            }
        }
        let transient: Vec<_> =
            self.exchanges.iter().filter(|(_, e)| !e.durable).map(|(key, _)| key).collect();
        for key in transient {
            self.remove_exchange(key);
        }
        self.exclusive.clear();
        self.events.clear();
        self.dead.clear();
        self.check_memory();
    }

    fn recover_queue(&mut self, key: QueueKey, now: Instant) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.consumers.clear();
        queue.rotation = super::consumers::Rotation::default();
        queue.single_active = None;
        queue.active = false;
        self.active.retain(|active| *active != key);
        while let Some(item) = queue.outstanding.pop_oldest() {
            let mut entry = item.entry;
            entry.redelivered = true;
            if queue.options.quorum {
                entry.returns = entry.returns.saturating_add(1);
            }
            queue.ready.restore(entry);
        }
        if !queue.options.quorum {
            for entry in queue.ready.retain(|entry| entry.message.persistent) {
                self.memory.used = self.memory.used.saturating_sub(entry.message.release());
            }
        }
        queue.touch(now);
        self.set_timer(key);
    }
}
