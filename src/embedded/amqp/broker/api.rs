//! What goes into the broker and comes out of it, apart from messages.

use std::sync::Arc;

use super::consumers::Consumer;
use super::exchange::Exchange;
use super::message::Message;
use super::name::ShortStr;
use super::queue::Queue;
use super::slab::Key;
use super::vhost::Vhost;
use crate::amqp::Table;
use crate::embedded::ConnectionId;

/// A virtual host that a connection has opened.
pub(crate) type VhostKey = Key<Vhost>;
/// A queue, as long as it exists.
pub(crate) type QueueKey = Key<Queue>;
/// An exchange, as long as it exists.
pub(super) type ExchangeKey = Key<Exchange>;
/// A consumer, until it is removed or cancelled.
pub(crate) type ConsumerKey = Key<Consumer>;

/// A channel of a connection. The broker only hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelId {
    pub(crate) connection: ConnectionId,
    pub(crate) channel: u16,
}

/// `exchange.declare`, not passive.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExchangeDeclare<'a> {
    pub(crate) name: &'a [u8],
    /// `direct`, `fanout`, `topic` or `headers`.
    pub(crate) kind: &'a [u8],
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: Table,
}

/// `queue.declare`, not passive.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueueDeclare<'a> {
    /// Empty: the broker makes one up.
    pub(crate) name: &'a [u8],
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: Table,
}

/// A queue as `queue.declare-ok` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueOk {
    pub(crate) name: ShortStr,
    /// Ready to be delivered.
    pub(crate) messages: u32,
    pub(crate) consumers: u32,
}

/// A binding to be made or taken away: from an exchange to a queue or to another exchange.
#[derive(Debug, Clone, Default)]
pub(crate) struct BindingSpec<'a> {
    pub(crate) source: &'a [u8],
    pub(crate) destination: &'a [u8],
    pub(crate) routing_key: &'a [u8],
    pub(crate) arguments: Table,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    /// Whether some queue was to get it; if not and it is mandatory, it is returned (312 NO_ROUTE).
    pub(crate) routed: bool,
    /// To be confirmed by `basic.ack`, or else by `basic.nack`: a full queue refused it.
    pub(crate) accepted: bool,
}

/// `basic.consume`.
#[derive(Debug, Clone)]
pub(crate) struct Consume<'a> {
    pub(crate) queue: &'a [u8],
    pub(crate) channel: ChannelId,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    pub(crate) arguments: Table,
    /// Whether it can take a message at once; see [`Broker::set_ready`](super::Broker::set_ready).
    pub(crate) ready: bool,
}

/// Names a delivered message that the broker keeps until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Held {
    pub(super) queue: QueueKey,
    pub(super) slot: u32,
    pub(super) serial: u32,
}

/// A message on its way to a client.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// Exchange, routing key, properties and body as they are to be sent.
    pub(crate) message: Arc<Message>,
    pub(crate) redelivered: bool,
    /// What to settle it by; `None` where no acknowledgement is wanted.
    pub(crate) held: Option<Held>,
}

/// What `basic.get` found.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) delivery: Delivery,
    /// Ready messages left in the queue.
    pub(crate) remaining: u32,
}

/// What happens to a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settle {
    /// It is done (`basic.ack`).
    Ack,
    /// Back to its place in the queue (`basic.reject` and `basic.nack` with requeue, `basic.recover`, a channel's end).
    Requeue,
    /// Dead-lettered or dropped (`basic.reject` and `basic.nack` without requeue).
    Reject,
}

/// What the broker wants done. See [`Broker::poll_event`](super::Broker::poll_event).
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Send `basic.deliver`.
    Deliver { consumer: ConsumerKey, channel: ChannelId, delivery: Delivery },
    /// The consumer is gone with its queue: send `basic.cancel` to clients that know it (`consumer_cancel_notify`).
    Cancelled { consumer: ConsumerKey, channel: ChannelId },
    /// A delivery was not settled in time: close the channel with this refusal.
    ConsumerTimeout { channel: ChannelId, refusal: super::Refusal },
    /// The memory alarm was set (`connection.blocked`, publishers are not read) or cleared (`connection.unblocked`).
    Memory { alarm: bool },
}
