//! Queues: what one is, declared, purged and deleted.
//!
//! ```text
//!            ┌──────────────── requeue ─────────────────┐
//!            ▼                                          │
//! place ─► ready ─► delivered, not settled ─► ack ─► gone
//!            │                     │
//!            │ expired, too many   │ reject, too many returns
//!            └──────────┬──────────┘
//!                       ▼
//!             dead letter exchange, or gone
//! ```
//!
//! As RabbitMQ 3.10 to 4.x; where they differ: an exclusive queue counts as not durable, as since 4.0. A quorum queue
//! writes `x-delivery-count` from the second delivery on, as since 4.0; 3.10 writes 0 on the first. Each return counts
//! towards its delivery limit: a requeue by the client, the end of the channel, a restart. Messages expire at the head
//! of the queue only, as in RabbitMQ. The priorities of quorum queues (normal and high, since 4.0) are left out, and so
//! are streams.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Broker;
use super::api::{ConsumerKey, Event, ExchangeKey, QueueDeclare, QueueKey, QueueOk, VhostKey};
use super::arguments::{self, Options};
use super::consumers::Rotation;
use super::exchange::not_reserved;
use super::name::ShortStr;
use super::ready::Ready;
use super::refusal::{Refusal, Thing};
use super::targets::Target;
use super::unsettled::Outstanding;
use crate::amqp::Table;
use crate::embedded::ConnectionId;
use crate::random::id_text;

/// A queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(super) vhost: VhostKey,
    pub(super) name: ShortStr,
    pub(super) durable: bool,
    /// The only connection that may use it, and with which it goes.
    pub(super) owner: Option<ConnectionId>,
    pub(super) auto_delete: bool,
    pub(super) arguments: Table,
    pub(super) options: Options,
    pub(super) ready: Ready,
    pub(super) outstanding: Outstanding,
    /// All consumers in the order of their arrival.
    pub(super) consumers: Vec<ConsumerKey>,
    /// Those that can take a message now.
    pub(super) rotation: Rotation,
    /// The only one that gets messages, with `x-single-active-consumer`.
    pub(super) single_active: Option<ConsumerKey>,
    /// The place in the order of arrival of the next message.
    pub(super) next_seq: u64,
    /// When it goes if nobody uses it until then (`x-expires`).
    pub(super) expires: Option<Instant>,
    /// Exchanges with bindings that end here, and how many.
    pub(super) sources: BTreeMap<ExchangeKey, usize>,
    /// Whether it stands in the broker's list of queues that may have something to deliver.
    pub(super) active: bool,
    /// When the broker's timer for it is set.
    pub(super) timer: Option<Instant>,
}

impl Queue {
    /// Somebody uses it: `x-expires` starts anew, or stops while there are consumers.
    pub(super) fn touch(&mut self, now: Instant) {
        self.expires = match self.options.expires {
            Some(after) if self.consumers.is_empty() => now.checked_add(after),
            _ => None,
        };
    }

    fn ok(&self) -> QueueOk {
        QueueOk {
            name: self.name.clone(),
            messages: count(self.ready.len()),
            consumers: count(self.consumers.len()),
        }
    }
}

/// A count as the wire carries it.
pub(super) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// # Errors
/// 405 for another connection's exclusive queue.
fn not_locked(thing: &Thing<'_>, owner: Option<ConnectionId>, by: ConnectionId) -> Result<(), Refusal> {
    if owner.is_none_or(|owner| owner == by) { Ok(()) } else { Err(locked(thing)) }
}

fn locked(thing: &Thing<'_>) -> Refusal {
    Refusal::resource_locked(format_args!(
        "cannot obtain exclusive access to locked {thing}. It could be originally declared on another connection or \
         the exclusive property value does not match that of the original declaration."
    ))
}

impl Broker {
    /// A queue that `by` may use.
    ///
    /// # Errors
    /// 404 where it does not exist, 405 for another connection's exclusive queue.
    pub(super) fn queue_key(
        &self,
        vhost: VhostKey,
        name: &[u8],
        by: ConnectionId,
    ) -> Result<QueueKey, Refusal> {
        let host = self.vhost(vhost)?;
        let thing = host.queue(name);
        let missing = || Refusal::not_found(format_args!("no {thing}"));
        let key = host.queues.get(name).copied().ok_or_else(missing)?;
        let queue = self.queues.get(key).ok_or_else(missing)?;
        not_locked(&thing, queue.owner, by)?;
        Ok(key)
    }

    /// `queue.declare`, not passive, by a connection that would own the queue if it is exclusive.
    ///
    /// # Errors
    /// 406 where the queue is there with other properties, for arguments that are not as they should be, for a quorum
    /// queue that is not durable, exclusive, auto-delete or without name, and at the limit on queues; 405 for another
    /// connection's exclusive queue; 403 for a name under `amq.`.
    pub(crate) fn declare_queue(
        &mut self,
        vhost: VhostKey,
        declare: &QueueDeclare<'_>,
        by: ConnectionId,
        now: Instant,
    ) -> Result<QueueOk, Refusal> {
        let made_up;
        let mut name = declare.name;
        if name.is_empty() {
            let host = self.vhost(vhost)?;
            if arguments::is_quorum(&host.queue(name), &declare.arguments)? {
                let why = "Cannot declare a server-named queue for type rabbit_quorum_queue";
                return Err(Refusal::precondition_failed(why));
            }
            made_up = self.make_up_name();
            name = made_up.as_bytes();
        } else {
            not_reserved("queue", name)?;
        }
        let durable = declare.durable && !declare.exclusive;
        let host = self.vhost(vhost)?;
        let thing = host.queue(name);
        if let Some(key) = host.queues.get(name).copied()
            && let Some(queue) = self.queues.get(key)
        {
            not_locked(&thing, queue.owner, by)?;
            if declare.exclusive != queue.owner.is_some() {
                return Err(locked(&thing));
            }
            arguments::same(&thing, "durable", queue.durable, durable)?;
            arguments::same(&thing, "auto_delete", queue.auto_delete, declare.auto_delete)?;
            arguments::same_arguments(&thing, queue.options.quorum, &queue.arguments, &declare.arguments)?;
            return Ok(self.use_queue(key, now).unwrap_or(QueueOk {
                name: name.into(),
                messages: 0,
                consumers: 0,
            }));
        }
        let options = arguments::read(&thing, &declare.arguments)?;
        if options.quorum {
            let wrong = [
                (declare.auto_delete, "auto-delete"),
                (declare.exclusive, "exclusive-owner"),
                (!declare.durable, "non-durable"),
            ];
            if let Some((_, property)) = wrong.into_iter().find(|(wrong, _)| *wrong) {
                let why = format_args!("invalid property '{property}' for {thing}");
                return Err(Refusal::precondition_failed(why));
            }
        }
        let most = self.settings.max_queues;
        if host.queues.len() >= most {
            return Err(Refusal::precondition_failed(format_args!(
                "cannot declare {thing}: queue limit in vhost '{}' ({most}) is reached",
                host.name
            )));
        }

        let name = ShortStr::new(name);
        let mut queue = Queue {
            vhost,
            name: name.clone(),
            durable,
            owner: declare.exclusive.then_some(by),
            auto_delete: declare.auto_delete,
            arguments: declare.arguments.clone(),
            options,
            ready: Ready::new(),
            outstanding: Outstanding::new(),
            consumers: Vec::new(),
            rotation: Rotation::default(),
            single_active: None,
            next_seq: 0,
            expires: None,
            sources: BTreeMap::new(),
            active: false,
            timer: None,
        };
        queue.touch(now);
        let ok = queue.ok();
        let key = self.queues.insert_with(|_| queue);
        if let Some(host) = self.vhosts.get_mut(vhost) {
            host.queues.insert(name, key);
        }
        if declare.exclusive {
            self.exclusive.entry(by).or_default().insert(key);
        }
        self.set_timer(key);
        Ok(ok)
    }

    fn use_queue(&mut self, key: QueueKey, now: Instant) -> Option<QueueOk> {
        let queue = self.queues.get_mut(key)?;
        queue.touch(now);
        let ok = queue.ok();
        self.set_timer(key);
        Some(ok)
    }

    /// A name that nobody else has.
    fn make_up_name(&mut self) -> String {
        format!("amq.gen-{}", id_text(self.random.draw(), self.random.draw()))
    }

    /// `queue.declare`, passive.
    ///
    /// # Errors
    /// 404 where it does not exist, 405 for another connection's exclusive queue.
    pub(crate) fn check_queue(
        &mut self,
        vhost: VhostKey,
        name: &[u8],
        by: ConnectionId,
        now: Instant,
    ) -> Result<QueueOk, Refusal> {
        let key = self.queue_key(vhost, name, by)?;
        Ok(self.use_queue(key, now).unwrap_or(QueueOk { name: name.into(), messages: 0, consumers: 0 }))
    }

    /// `queue.purge`: drops what is ready and says how many that were. Not dead-lettered.
    ///
    /// # Errors
    /// 404 where it does not exist, 405 for another connection's exclusive queue.
    pub(crate) fn purge_queue(
        &mut self,
        vhost: VhostKey,
        name: &[u8],
        by: ConnectionId,
    ) -> Result<u32, Refusal> {
        let key = self.queue_key(vhost, name, by)?;
        let Some(queue) = self.queues.get_mut(key) else { return Ok(0) };
        let ready = std::mem::replace(&mut queue.ready, Ready::new());
        for entry in ready.iter() {
            self.memory.used = self.memory.used.saturating_sub(entry.message.release());
        }
        self.check_memory();
        Ok(count(ready.len()))
    }

    /// `queue.delete`: takes a queue away and says how many messages were ready. One that does not exist is no error.
    ///
    /// # Errors
    /// 405 for another connection's exclusive queue; 406 where it has consumers or messages and must not; 540 if that is
    /// asked of a quorum queue.
    pub(crate) fn delete_queue(
        &mut self,
        vhost: VhostKey,
        name: &[u8],
        if_unused: bool,
        if_empty: bool,
        by: ConnectionId,
    ) -> Result<u32, Refusal> {
        let host = self.vhost(vhost)?;
        if !host.queues.contains_key(name) {
            return Ok(0);
        }
        let key = self.queue_key(vhost, name, by)?;
        let Some(queue) = self.queues.get(key) else { return Ok(0) };
        let thing = host.queue(name);
        if queue.options.quorum && (if_unused || if_empty) {
            let flag = if if_unused { "if-unused" } else { "if-empty" };
            return Err(Refusal::not_implemented(format_args!(
                "cannot delete {thing}. queue.delete operations with {flag} flag set are not supported by quorum queues"
            )));
        }
        if if_unused && !queue.consumers.is_empty() {
            return Err(Refusal::precondition_failed(format_args!("{thing} in use")));
        }
        if if_empty && !queue.ready.is_empty() {
            return Err(Refusal::precondition_failed(format_args!("{thing} not empty")));
        }
        Ok(self.remove_queue(key))
    }

    /// Takes a queue away with its messages, consumers and bindings. Says how many messages were ready.
    pub(super) fn remove_queue(&mut self, key: QueueKey) -> u32 {
        let Some(mut queue) = self.queues.remove(key) else { return 0 };
        if let Some(vhost) = self.vhosts.get_mut(queue.vhost) {
            vhost.queues.remove(&queue.name);
        }
        if let Some(owner) = queue.owner
            && let Some(owned) = self.exclusive.get_mut(&owner)
        {
            owned.remove(&key);
            if owned.is_empty() {
                self.exclusive.remove(&owner);
            }
        }
        if let Some(at) = queue.timer {
            self.timers.remove(&(at, key));
        }
        if queue.active {
            self.active.retain(|active| *active != key);
        }
        for entry in queue.ready.iter().chain(queue.outstanding.iter().map(|item| &item.entry)) {
            self.memory.used = self.memory.used.saturating_sub(entry.message.release());
        }
        for consumer in std::mem::take(&mut queue.consumers) {
            if let Some(gone) = self.consumers.remove(consumer) {
                self.events.push_back(Event::Cancelled { consumer, channel: gone.channel });
            }
        }
        self.remove_bindings_to(Target::Queue(key), queue.sources.into_keys());
        self.check_memory();
        count(queue.ready.len())
    }

    /// The connection is gone: its exclusive queues are deleted. Its channels have taken away their consumers and
    /// settled their deliveries before.
    pub(crate) fn release_connection(&mut self, connection: ConnectionId) {
        for key in self.exclusive.remove(&connection).unwrap_or_default() {
            self.remove_queue(key);
        }
    }
}
