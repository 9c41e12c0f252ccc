//! The state of an embedded RabbitMQ: virtual hosts, users, exchanges, bindings, queues and messages. Pure: it knows no
//! wire, no channel and no socket.
//!
//! # Order of calls
//!
//! Any operation or [`Broker::handle_timeout`], then [`Broker::poll_event`] until it is empty, before the next operation:
//! a message that a waiting consumer takes at once never counts against a queue's limits. [`Broker::poll_timeout`] says when
//! `handle_timeout` is next wanted.
//!
//! # Who keeps what
//!
//! A channel keeps its consumers' [`ConsumerKey`]s, counts prefetch, and keeps the [`Held`] of each delivery by its delivery
//! tag. When it ends it calls [`Broker::remove_consumer`] for each consumer and [`Broker::settle`] with
//! [`Settle::Requeue`] for each delivery that is left; the connection then calls [`Broker::release_connection`], which takes its
//! exclusive queues away. A key or a `Held` of something that is gone does nothing.
//!
//! Flow: a consumer is ready or not ([`Broker::set_ready`]): free prefetch of its own and of its channel, `channel.flow`, and
//! room in the connection's output. `poll_event` gives one delivery at a time, so that the channel can say "not ready any
//! more" before the next is picked.

mod api;
mod arguments;
mod bindings;
mod consumers;
mod dead_letter;
mod exchange;
mod headers;
mod memory;
mod message;
mod messages;
mod name;
mod queue;
mod ready;
mod refusal;
mod restart;
mod routing;
mod settings;
mod slab;
mod targets;
mod timers;
mod topic;
mod unsettled;
mod vhost;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

pub(crate) use api::{
    BindingSpec, ChannelId, Consume, ConsumerKey, Delivery, Event, ExchangeDeclare, Held, QueueDeclare,
    Settle, VhostKey,
};
pub(crate) use message::Message;
pub(crate) use name::ShortStr;
pub(crate) use refusal::Refusal;
pub(crate) use settings::{Settings, User};

use api::QueueKey;
use slab::Slab;

use crate::embedded::ConnectionId;
use crate::embedded::machine::Clock;
use crate::random::SplitMix64;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Broker {
    settings: Settings,
    clock: Clock,
    vhosts: Slab<vhost::Vhost>,
    vhost_names: BTreeMap<ShortStr, VhostKey>,
    exchanges: Slab<exchange::Exchange>,
    queues: Slab<queue::Queue>,
    consumers: Slab<consumers::Consumer>,
    /// The exclusive queues of each connection that has some.
    exclusive: BTreeMap<ConnectionId, BTreeSet<QueueKey>>,
    /// What is to be told, besides deliveries.
    events: VecDeque<Event>,
    /// Queues that may have something to deliver, each once.
    active: VecDeque<QueueKey>,
    /// At most one for each queue.
    timers: BTreeSet<(Instant, QueueKey)>,
    /// Dead letters that are not routed yet; empty between operations.
    dead: VecDeque<dead_letter::DeadLetter>,
    memory: memory::Memory,
    random: SplitMix64,
    route: routing::Route,
}

impl Broker {
    /// A broker with its virtual hosts and nothing in them.
    pub(crate) fn new(settings: Settings, clock: Clock) -> Self {
        let vhosts = settings.vhosts.clone();
        let mut broker = Self {
            random: SplitMix64::new(settings.seed),
            settings,
            clock,
            vhosts: Slab::new(),
            vhost_names: BTreeMap::new(),
            exchanges: Slab::new(),
            queues: Slab::new(),
            consumers: Slab::new(),
            exclusive: BTreeMap::new(),
            events: VecDeque::new(),
            active: VecDeque::new(),
            timers: BTreeSet::new(),
            dead: VecDeque::new(),
            memory: memory::Memory::default(),
            route: routing::Route::default(),
        };
        for vhost in vhosts {
            broker.add_vhost(&vhost);
        }
        broker.check_memory();
        broker
    }
}

#[cfg(test)]
mod tests;
