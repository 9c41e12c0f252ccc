//! Bindings: from an exchange to a queue, or to another exchange.
//!
//! A binding is the same as another if both ends, the routing key and the arguments are. Taking away one that does not
//! exist, or whose ends do not exist, is no error. An auto-delete exchange goes with the last binding that starts at it.

use super::Broker;
use super::api::{BindingSpec, ExchangeKey, VhostKey};
use super::exchange::not_default;
use super::headers::Pattern;
use super::name::ShortStr;
use super::refusal::Refusal;
use super::targets::Target;
use crate::amqp::Table;
use crate::embedded::ConnectionId;

/// What tells the bindings of one exchange apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BindingId {
    pub(super) target: Target,
    pub(super) key: ShortStr,
    /// The arguments, written out: tables have no order of their own.
    arguments: String,
}

impl BindingId {
    fn new(target: Target, key: &[u8], arguments: &Table) -> Self {
        let arguments = if arguments.is_empty() { String::new() } else { format!("{arguments:?}") };
        Self { target, key: ShortStr::new(key), arguments }
    }

    /// Before all others that lead to a target.
    fn first(target: Target) -> Self {
        Self { target, key: ShortStr::default(), arguments: String::new() }
    }
}

impl Broker {
    /// `queue.bind`.
    ///
    /// # Errors
    /// 404 where an end does not exist, 405 for another connection's exclusive queue, 403 for the default exchange, 406
    /// for an `x-match` that a headers exchange does not know, and at the limit on bindings.
    pub(crate) fn bind_queue(
        &mut self,
        vhost: VhostKey,
        binding: &BindingSpec<'_>,
        by: ConnectionId,
    ) -> Result<(), Refusal> {
        not_default(binding.source)?;
        let source = self.exchange_key(vhost, binding.source)?;
        let queue = self.queue_key(vhost, binding.destination, by)?;
        self.bind(vhost, source, Target::Queue(queue), binding)
    }

    /// `exchange.bind`.
    ///
    /// # Errors
    /// As [`Broker::bind_queue`].
    pub(crate) fn bind_exchange(
        &mut self,
        vhost: VhostKey,
        binding: &BindingSpec<'_>,
    ) -> Result<(), Refusal> {
        not_default(binding.source)?;
        not_default(binding.destination)?;
        let source = self.exchange_key(vhost, binding.source)?;
        let destination = self.exchange_key(vhost, binding.destination)?;
        self.bind(vhost, source, Target::Exchange(destination), binding)
    }

    fn bind(
        &mut self,
        vhost: VhostKey,
        source: ExchangeKey,
        target: Target,
        binding: &BindingSpec<'_>,
    ) -> Result<(), Refusal> {
        let most = self.settings.max_bindings;
        let pattern = Pattern::new(&binding.arguments);
        let Some(exchange) = self.exchanges.get_mut(source) else { return Ok(()) };
        // The other types do not look at the arguments, so that anything may stand there.
        let pattern = match (exchange.router.kind(), pattern) {
            ("headers", Err(refusal)) => return Err(refusal),
            (_, Ok(pattern)) => pattern,
            (_, Err(_)) => Pattern::new(&Table::new())?,
        };
        let id = BindingId::new(target, binding.routing_key, &binding.arguments);
        if exchange.bindings.contains(&id) {
            return Ok(());
        }
        let Some(host) = self.vhosts.get_mut(vhost) else { return Ok(()) };
        if host.bindings >= most {
            let thing = host.exchange(binding.source);
            let why = format_args!("cannot bind to {thing}: the limit of {most} bindings is reached");
            return Err(Refusal::precondition_failed(why));
        }
        host.bindings += 1;
        exchange.router.add(&id, pattern);
        exchange.bindings.insert(id);
        let sources = match target {
            Target::Queue(key) => self.queues.get_mut(key).map(|queue| &mut queue.sources),
            Target::Exchange(key) => self.exchanges.get_mut(key).map(|exchange| &mut exchange.sources),
        };
        if let Some(sources) = sources {
            *sources.entry(source).or_insert(0) += 1;
        }
        Ok(())
    }

    /// `queue.unbind`.
    ///
    /// # Errors
    /// 405 for another connection's exclusive queue, 403 for the default exchange.
    pub(crate) fn unbind_queue(
        &mut self,
        vhost: VhostKey,
        binding: &BindingSpec<'_>,
        by: ConnectionId,
    ) -> Result<(), Refusal> {
        not_default(binding.source)?;
        let Ok(source) = self.exchange_key(vhost, binding.source) else { return Ok(()) };
        if !self.vhost(vhost)?.queues.contains_key(binding.destination) {
            return Ok(());
        }
        let queue = self.queue_key(vhost, binding.destination, by)?;
        self.unbind(source, Target::Queue(queue), binding);
        Ok(())
    }

    /// `exchange.unbind`.
    ///
    /// # Errors
    /// 403 for the default exchange.
    pub(crate) fn unbind_exchange(
        &mut self,
        vhost: VhostKey,
        binding: &BindingSpec<'_>,
    ) -> Result<(), Refusal> {
        not_default(binding.source)?;
        not_default(binding.destination)?;
        if let Ok(source) = self.exchange_key(vhost, binding.source)
            && let Ok(destination) = self.exchange_key(vhost, binding.destination)
        {
            self.unbind(source, Target::Exchange(destination), binding);
        }
        Ok(())
    }

    fn unbind(&mut self, source: ExchangeKey, target: Target, binding: &BindingSpec<'_>) {
        let id = BindingId::new(target, binding.routing_key, &binding.arguments);
        if self.remove_binding(source, &id) {
            self.forget_source(target, source);
            self.delete_if_bare(source);
        }
    }

    fn remove_binding(&mut self, source: ExchangeKey, id: &BindingId) -> bool {
        let Some(exchange) = self.exchanges.get_mut(source) else { return false };
        if !exchange.bindings.remove(id) {
            return false;
        }
        exchange.router.remove(id);
        if let Some(vhost) = self.vhosts.get_mut(exchange.vhost) {
            vhost.bindings = vhost.bindings.saturating_sub(1);
        }
        true
    }

    /// A binding from `source` to `target` is gone: the target's side of it.
    pub(super) fn forget_source(&mut self, target: Target, source: ExchangeKey) {
        let sources = match target {
            Target::Queue(key) => self.queues.get_mut(key).map(|queue| &mut queue.sources),
            Target::Exchange(key) => self.exchanges.get_mut(key).map(|exchange| &mut exchange.sources),
        };
        let Some(sources) = sources else { return };
        if let Some(bindings) = sources.get_mut(&source) {
            *bindings -= 1;
            if *bindings == 0 {
                sources.remove(&source);
            }
        }
    }

    /// A target is gone: so are the bindings that lead to it from `sources`.
    pub(super) fn remove_bindings_to(&mut self, target: Target, sources: impl Iterator<Item = ExchangeKey>) {
        for source in sources {
            let Some(exchange) = self.exchanges.get(source) else { continue };
            let from_first = exchange.bindings.range(BindingId::first(target)..);
            let ids: Vec<_> = from_first.take_while(|id| id.target == target).cloned().collect();
            for id in ids {
                self.remove_binding(source, &id);
            }
            self.delete_if_bare(source);
        }
    }

    /// An auto-delete exchange goes with its last binding. Only called after one was taken away.
    fn delete_if_bare(&mut self, key: ExchangeKey) {
        if self.exchanges.get(key).is_some_and(|e| e.auto_delete && e.bindings.is_empty()) {
            self.remove_exchange(key);
        }
    }
}
