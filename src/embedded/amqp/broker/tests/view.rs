//! What there is, in full.

use super::*;
use crate::embedded::amqp::broker::queue::Queue;
use crate::embedded::amqp::broker::targets::Target;

/// A queue as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QueueView {
    pub(super) name: String,
    pub(super) durable: bool,
    pub(super) exclusive: bool,
    pub(super) auto_delete: bool,
    pub(super) arguments: Table,
    /// Ready to be delivered.
    pub(super) messages_ready: usize,
    /// Delivered and not settled.
    pub(super) messages_unacknowledged: usize,
    /// Bytes of the bodies of both.
    pub(super) message_bytes: u64,
    pub(super) consumers: usize,
}

/// An exchange as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ExchangeView {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) internal: bool,
    pub(super) arguments: Table,
}

/// A binding as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BindingView {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) routing_key: String,
}

impl Queue {
    fn view(&self) -> QueueView {
        QueueView {
            name: self.name.text(),
            durable: self.durable,
            exclusive: self.owner.is_some(),
            auto_delete: self.auto_delete,
            arguments: self.arguments.clone(),
            messages_ready: self.ready.len(),
            messages_unacknowledged: self.outstanding.len(),
            message_bytes: {
                let outstanding = self.outstanding.iter().map(|item| item.entry.message.body.len() as u64);
                self.ready.bytes() + outstanding.sum::<u64>()
            },
            consumers: self.consumers.len(),
        }
    }
}

impl Broker {
    /// Whether publishers are to be blocked for want of memory.
    pub(super) fn memory_alarm(&self) -> bool {
        self.memory.alarm
    }

    /// Bytes of all messages that stand in queues, as the limit counts them.
    pub(super) fn memory_used(&self) -> u64 {
        self.memory.used
    }

    /// Another limit; 0 blocks publishers whatever there is.
    pub(super) fn set_memory_limit(&mut self, limit: u64) {
        self.settings.memory_limit = limit;
        self.check_memory();
    }

    /// One queue.
    pub(super) fn queue(&self, vhost: VhostKey, name: &[u8]) -> Option<QueueView> {
        let key = self.vhosts.get(vhost)?.queues.get(name)?;
        self.queues.get(*key).map(Queue::view)
    }

    /// All queues of a virtual host in the order of their names.
    pub(super) fn queues(&self, vhost: VhostKey) -> Vec<QueueView> {
        let here = self.queues.iter().filter(|(_, queue)| queue.vhost == vhost);
        let mut queues: Vec<_> = here.map(|(_, queue)| queue.view()).collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        queues
    }

    /// All exchanges of a virtual host in the order of their names, without the default one.
    pub(super) fn exchanges(&self, vhost: VhostKey) -> Vec<ExchangeView> {
        let here = self.exchanges.iter().filter(|(_, exchange)| exchange.vhost == vhost);
        let mut exchanges: Vec<_> = here
            .map(|(_, exchange)| ExchangeView {
                name: exchange.name.text(),
                kind: exchange.router.kind(),
                durable: exchange.durable,
                auto_delete: exchange.auto_delete,
                internal: exchange.internal,
                arguments: exchange.arguments.clone(),
            })
            .collect();
        exchanges.sort_by(|a, b| a.name.cmp(&b.name));
        exchanges
    }

    /// All bindings of a virtual host in the order of their sources, without those to the default exchange.
    pub(super) fn bindings(&self, vhost: VhostKey) -> Vec<BindingView> {
        let here = self.exchanges.iter().filter(|(_, exchange)| exchange.vhost == vhost);
        let mut out = Vec::new();
        for (_, exchange) in here {
            for id in &exchange.bindings {
                let destination = match id.target {
                    Target::Queue(key) => self.queues.get(key).map(|queue| &queue.name),
                    Target::Exchange(key) => self.exchanges.get(key).map(|exchange| &exchange.name),
                };
                out.push(BindingView {
                    source: exchange.name.text(),
                    destination: destination.map(ShortStr::text).unwrap_or_default(),
                    routing_key: id.key.text(),
                });
            }
        }
        let key = |b: &BindingView| (b.source.clone(), b.destination.clone(), b.routing_key.clone());
        out.sort_by_cached_key(key);
        out
    }
}
