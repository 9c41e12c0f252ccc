//! What there is: for tests, for a person who looks, and for statistics.

use super::Broker;
use super::api::VhostKey;
use super::queue::Queue;
use super::refusal::Refusal;
use super::targets::Target;
use crate::amqp::Table;

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) ready: u64,
    pub(crate) unsettled: u64,
    pub(crate) consumers: u64,
}

/// A queue as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueueView {
    pub(crate) name: String,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: Table,
    /// Ready to be delivered.
    pub(crate) messages_ready: usize,
    /// Delivered and not settled.
    pub(crate) messages_unacknowledged: usize,
    /// Bytes of the bodies of both.
    pub(crate) message_bytes: u64,
    pub(crate) consumers: usize,
}

/// An exchange as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExchangeView {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: Table,
}

/// A binding as it is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BindingView {
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) to_exchange: bool,
    pub(crate) routing_key: String,
    pub(crate) arguments: Table,
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
            message_bytes: self.ready.bytes() + self.outstanding.bytes(),
            consumers: self.consumers.len(),
        }
    }
}

impl Broker {
    /// A virtual host by its name, without asking who may open it.
    ///
    /// # Errors
    /// 530 NOT_ALLOWED where it does not exist.
    pub(crate) fn find_vhost(&self, name: &[u8]) -> Result<VhostKey, Refusal> {
        let missing =
            || Refusal::not_allowed(format_args!("vhost {} not found", String::from_utf8_lossy(name)));
        self.vhost_names.get(name).copied().ok_or_else(missing)
    }

    /// What one queue holds.
    pub(crate) fn queue_depth(&self, vhost: VhostKey, name: &[u8]) -> Option<Depth> {
        let key = self.vhosts.get(vhost)?.queues.get(name)?;
        let queue = self.queues.get(*key)?;
        Some(Depth {
            ready: queue.ready.len() as u64,
            unsettled: queue.outstanding.len() as u64,
            consumers: queue.consumers.len() as u64,
        })
    }

    /// One queue.
    pub(crate) fn queue(&self, vhost: VhostKey, name: &[u8]) -> Option<QueueView> {
        let key = self.vhosts.get(vhost)?.queues.get(name)?;
        self.queues.get(*key).map(Queue::view)
    }

    /// All queues of a virtual host in the order of their names.
    pub(crate) fn queues(&self, vhost: VhostKey) -> Vec<QueueView> {
        let here = self.queues.iter().filter(|(_, queue)| queue.vhost == vhost);
        let mut queues: Vec<_> = here.map(|(_, queue)| queue.view()).collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        queues
    }

    /// All exchanges of a virtual host in the order of their names, without the default one.
    pub(crate) fn exchanges(&self, vhost: VhostKey) -> Vec<ExchangeView> {
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
    pub(crate) fn bindings(&self, vhost: VhostKey) -> Vec<BindingView> {
        let here = self.exchanges.iter().filter(|(_, exchange)| exchange.vhost == vhost);
        let mut out = Vec::new();
        for (_, exchange) in here {
            for (id, binding) in &exchange.bindings {
                let destination = match id.target {
                    Target::Queue(key) => self.queues.get(key).map(|queue| &queue.name),
                    Target::Exchange(key) => self.exchanges.get(key).map(|exchange| &exchange.name),
                };
                out.push(BindingView {
                    source: exchange.name.text(),
                    destination: destination.map(super::ShortStr::text).unwrap_or_default(),
                    to_exchange: matches!(id.target, Target::Exchange(_)),
                    routing_key: id.key.text(),
                    arguments: binding.arguments.clone(),
                });
            }
        }
        let key = |b: &BindingView| (b.source.clone(), b.destination.clone(), b.routing_key.clone());
        out.sort_by_cached_key(key);
        out
    }

    /// The messages that are ready in a queue, in the order in which they would be delivered; they stay there.
    pub(crate) fn peek(&self, vhost: VhostKey, name: &[u8]) -> Vec<std::sync::Arc<super::Message>> {
        let key = self.vhosts.get(vhost).and_then(|host| host.queues.get(name));
        let queue = key.and_then(|key| self.queues.get(*key));
        queue.map(|q| q.ready.iter().map(|entry| entry.message.clone()).collect()).unwrap_or_default()
    }
}
