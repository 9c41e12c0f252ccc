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
mod name;
mod refusal;
mod settings;
mod slab;

mod message;

// skeleton
mod consumers {
    #[derive(Debug)]
    pub(crate) struct Consumer;
}
mod exchange {
    #[derive(Debug)]
    pub(crate) struct Exchange;
}
mod queue {
    #[derive(Debug)]
    pub(crate) struct Queue;
}
mod vhost {
    #[derive(Debug)]
    pub(crate) struct Vhost;
}

use std::time::Instant;

pub(crate) use api::{
    BindingSpec, Cancelled, ChannelId, Consume, ConsumerKey, Delivery, Event, ExchangeDeclare, Fetched, Held,
    Published, QueueDeclare, QueueOk, Settle, VhostKey,
};
pub(crate) use message::Message;
pub(crate) use name::ShortStr;
pub(crate) use refusal::Refusal;
pub(crate) use settings::{Settings, User};

use crate::embedded::ConnectionId;
use crate::embedded::machine::Clock;

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) ready: u64,
    pub(crate) unsettled: u64,
    pub(crate) consumers: u64,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Broker {
    settings: Settings,
    clock: Clock,
}

#[allow(unused_variables)]
impl Broker {
    pub(crate) fn new(settings: Settings, clock: Clock) -> Self {
        Self { settings, clock }
    }

    /// Whether a login is right (PLAIN). A wrong one gets `ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN...`
    /// from the connection.
    pub(crate) fn login(&self, user: &[u8], password: &[u8]) -> bool {
        false
    }

    /// Opens a virtual host (`connection.open`).
    ///
    /// # Errors
    /// 530 NOT_ALLOWED where it does not exist or the user has no access.
    pub(crate) fn open_vhost(&self, user: &[u8], vhost: &[u8]) -> Result<VhostKey, Refusal> {
        Err(Refusal::not_allowed(""))
    }

    /// TEMP
    pub(crate) fn find_vhost(&self, name: &[u8]) -> Result<VhostKey, Refusal> {
        Err(Refusal::not_allowed(""))
    }
    /// TEMP
    pub(crate) fn queue_depth(&self, vhost: VhostKey, name: &[u8]) -> Option<Depth> {
        None
    }

    pub(crate) fn declare_exchange(
        &mut self,
        vhost: VhostKey,
        declare: &ExchangeDeclare<'_>,
    ) -> Result<(), Refusal> {
        Ok(())
    }
    /// `exchange.declare`, passive.
    pub(crate) fn check_exchange(&self, vhost: VhostKey, name: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }
    pub(crate) fn delete_exchange(
        &mut self,
        vhost: VhostKey,
        name: &[u8],
        if_unused: bool,
    ) -> Result<(), Refusal> {
        Ok(())
    }
    pub(crate) fn bind_exchange(
        &mut self,
        vhost: VhostKey,
        binding: &BindingSpec<'_>,
    ) -> Result<(), Refusal> {
        Ok(())
    }
    pub(crate) fn unbind_exchange(
        &mut self,
        vhost: VhostKey,
        binding: &BindingSpec<'_>,
    ) -> Result<(), Refusal> {
        Ok(())
    }

    pub(crate) fn declare_queue(
        &mut self,
        vhost: VhostKey,
        declare: &QueueDeclare<'_>,
        by: ConnectionId,
        now: Instant,
    ) -> Result<QueueOk, Refusal> {
        Err(Refusal::not_allowed(""))
    }
    /// `queue.declare`, passive.
    pub(crate) fn check_queue(
        &mut self,
        vhost: VhostKey,
        name: &[u8],
        by: ConnectionId,
        now: Instant,
    ) -> Result<QueueOk, Refusal> {
        Err(Refusal::not_allowed(""))
    }
    pub(crate) fn bind_queue(
        &mut self,
        vhost: VhostKey,
        binding: &BindingSpec<'_>,
        by: ConnectionId,
    ) -> Result<(), Refusal> {
        Ok(())
    }
    pub(crate) fn unbind_queue(
        &mut self,
        vhost: VhostKey,
        binding: &BindingSpec<'_>,
        by: ConnectionId,
    ) -> Result<(), Refusal> {
        Ok(())
    }
    /// How many messages went.
    pub(crate) fn purge_queue(
        &mut self,
        vhost: VhostKey,
        name: &[u8],
        by: ConnectionId,
        now: Instant,
    ) -> Result<u32, Refusal> {
        Ok(0)
    }
    /// How many messages went with it; a queue that does not exist is no error (0).
    pub(crate) fn delete_queue(
        &mut self,
        vhost: VhostKey,
        name: &[u8],
        if_unused: bool,
        if_empty: bool,
        by: ConnectionId,
        now: Instant,
    ) -> Result<u32, Refusal> {
        Ok(0)
    }

    /// `basic.publish` to the message's exchange by its routing key.
    ///
    /// # Errors
    /// 404 where the exchange does not exist, 403 where it is internal.
    pub(crate) fn publish(
        &mut self,
        vhost: VhostKey,
        message: Message,
        now: Instant,
    ) -> Result<Published, Refusal> {
        Ok(Published { routed: false, accepted: true })
    }
    /// `basic.get`; `None` where the queue is empty.
    pub(crate) fn get(
        &mut self,
        vhost: VhostKey,
        queue: &[u8],
        no_ack: bool,
        by: ChannelId,
        now: Instant,
    ) -> Result<Option<Fetched>, Refusal> {
        Ok(None)
    }
    /// What becomes of a delivered message.
    pub(crate) fn settle(&mut self, held: Held, how: Settle, now: Instant) {}

    pub(crate) fn add_consumer(
        &mut self,
        vhost: VhostKey,
        consume: &Consume<'_>,
        now: Instant,
    ) -> Result<ConsumerKey, Refusal> {
        Err(Refusal::not_allowed(""))
    }
    /// Whether a consumer can take a message. Idempotent and cheap; call it when it changes.
    pub(crate) fn set_ready(&mut self, consumer: ConsumerKey, ready: bool) {}
    /// `basic.cancel`, or the end of the channel. What it has unsettled stays with the channel.
    pub(crate) fn remove_consumer(&mut self, consumer: ConsumerKey, now: Instant) {}
    /// The connection is gone: its exclusive queues are deleted.
    pub(crate) fn release_connection(&mut self, connection: ConnectionId, now: Instant) {}

    /// The next thing to do; see [`Event`].
    pub(crate) fn poll_event(&mut self, now: Instant) -> Option<Event> {
        None
    }
    /// When [`Broker::handle_timeout`] is next wanted.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    /// Does all that is due: messages and queues expire, deliveries time out.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {}
    /// Whether publishers are to be blocked for want of memory.
    pub(crate) fn memory_alarm(&self) -> bool {
        false
    }

    /// The broker was killed and comes up again: all that is not durable or not persistent is gone, and so are consumers;
    /// what was delivered and not settled is ready again. Keys of consumers and [`Held`]s from before do nothing; vhost keys stay.
    pub(crate) fn restart(&mut self, now: Instant) {}
}
