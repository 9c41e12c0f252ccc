//! Consuming with manual acknowledgement.
//!
//! ```text
//! library's dispatcher ──► deliveries (at most `prefetch` unsettled) ──► next() ──► Delivery
//!                                                                                  │ ack, nack, drop
//!                          frames ◄── owner (receiver.rs) ◄── settlements ◄────────┘
//! ```
//!
//! `next` ends with an error when the broker cancels the consumer, closes the channel, or the connection is lost: never
//! with silence. What was received and not taken by then is dropped, because the broker gives it out again.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use amqprs::channel::ConsumerMessage;
use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};

use super::channel::Ending;
use super::connection::Handle;
use super::convert::message_from_wire;
use super::receiver::{Command, Receiver, Settlements, Subscription};
use super::{Message, Properties, Table, Value};
use crate::{DeliveryTag, Error, ErrorKind, Result};

/// A consumer to start.
#[derive(Debug, Clone)]
#[must_use = "nothing is consumed until `start` is awaited"]
pub struct ConsumeBuilder {
    handle: Handle,
    queue: String,
    prefetch: u16,
    exclusive: bool,
    arguments: Table,
}

impl ConsumeBuilder {
    pub(super) fn new(handle: Handle, queue: String) -> Self {
        Self { handle, queue, prefetch: 200, exclusive: false, arguments: Table::new() }
    }

    /// Sets how many deliveries may be unsettled at once: 1 to 65,535, default 200. The broker sends no more until one
    /// is settled, so this also bounds the memory: `prefetch` times the largest message.
    pub fn prefetch(mut self, deliveries: u16) -> Self {
        self.prefetch = deliveries;
        self
    }

    /// Allows no other consumer on the queue.
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Sets an argument, such as `x-priority`.
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Opens a channel and starts the consumer on it. Cancel safe: what was started is stopped again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the queue is gone, [`ErrorKind::Denied`] if it is another's exclusive one,
    /// [`ErrorKind::Config`] for a prefetch of 0, and those of a lost connection.
    pub async fn start(self) -> Result<Deliveries> {
        if self.prefetch == 0 {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "a prefetch of 0 lets RabbitMQ send the whole of queue {:?} at once; expected 1 to 65535",
                    self.queue
                ),
            ));
        }
        let doing = format!("consuming queue {:?}", self.queue);
        let arguments = super::topology::arguments_to_wire(self.handle.link(), &self.arguments)?;
        let receiver = Receiver::open(self.handle).await.map_err(|e| e.context(&doing))?;
        let ending = receiver.ending().clone();
        let (settlements, started) =
            receiver.consume(doing.clone(), self.queue, self.prefetch, self.exclusive, arguments);
        let subscription = started.await.unwrap_or_else(|_| Err(ending.error(&doing)))?;
        Ok(Deliveries {
            ended: end(ending.clone()),
            ending,
            settlements,
            subscription: Some(subscription),
            doing,
        })
    }
}

type End = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

fn end(ending: Ending) -> End {
    Box::pin(async move { ending.ended().await })
}

/// The deliveries of a consumer, as a method and as a [`Stream`].
///
/// Dropped, it stops the consumer and gives back what was not taken; deliveries in hand can still be settled.
pub struct Deliveries {
    /// Before the subscription is looked at: what is left of a dead channel is not given out.
    ended: End,
    ending: Ending,
    settlements: Settlements,
    /// `None` once the end was reported.
    subscription: Option<Subscription>,
    doing: String,
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("doing", &self.doing).finish_non_exhaustive()
    }
}

impl Deliveries {
    /// The next delivery. After an error always `None`. Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the broker cancelled the consumer because the queue was deleted or lost its node;
    /// [`ErrorKind::Timeout`] when a delivery was in hand for longer than the broker's `consumer_timeout`;
    /// [`ErrorKind::Disconnected`] or [`ErrorKind::Closed`] when the connection is gone. What is unsettled comes again.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Stops the broker from sending more and gives back what was received and not taken by [`Deliveries::next`].
    /// Deliveries in hand can still be settled. Dropped before it resolves, it still happens.
    ///
    /// # Errors
    /// Those of a lost connection; what was unsettled comes again then.
    pub async fn cancel(mut self) -> Result<()> {
        let Some(subscription) = self.subscription.take() else { return Ok(()) };
        let (reply, answer) = oneshot::channel();
        self.settlements.send(Command::Cancel { subscription, reply: Some(reply) });
        answer.await.unwrap_or_else(|_| Err(self.ending.error(&self.doing)))
    }

    fn delivery(&self, message: ConsumerMessage) -> Option<Delivery> {
        // The library sets all three.
        let (deliver, properties, body) = (message.deliver?, message.basic_properties?, message.content?);
        Some(Delivery {
            message: message_from_wire(body, &properties),
            tag: DeliveryTag(deliver.delivery_tag()),
            redelivered: deliver.redelivered(),
            exchange: deliver.exchange().clone(),
            routing_key: deliver.routing_key().clone(),
            settlements: Some(self.settlements.clone()),
        })
    }

    fn end_reason(&self) -> Error {
        if self.ending.is_cancelled() && !self.ending.is_ended() {
            return Error::new(
                ErrorKind::NotFound,
                format!(
                    "{}: RabbitMQ cancelled the consumer: the queue was deleted, or its node is gone",
                    self.doing
                ),
            );
        }
        self.ending.error(&self.doing)
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            let Some(subscription) = &mut this.subscription else { return Poll::Ready(None) };
            let next = match this.ending.is_ended() {
                true => None,
                false => match subscription.messages.poll_recv(cx) {
                    Poll::Ready(next) => next,
                    Poll::Pending => match this.ended.as_mut().poll(cx) {
                        Poll::Ready(()) => None,
                        Poll::Pending => return Poll::Pending,
                    },
                },
            };
            match next {
                Some(message) => {
                    if let Some(delivery) = this.delivery(message) {
                        return Poll::Ready(Some(Ok(delivery)));
                    }
                }
                None => {
                    this.subscription = None;
                    return Poll::Ready(Some(Err(this.end_reason())));
                }
            }
        }
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            self.settlements.send(Command::Cancel { subscription, reply: None });
        }
    }
}

/// A message in hand. Dropped unsettled it is given back to the queue and comes again.
#[must_use = "a delivery that is dropped goes back to the queue"]
pub struct Delivery {
    message: Message,
    tag: DeliveryTag,
    redelivered: bool,
    exchange: String,
    routing_key: String,
    /// `None` once settled.
    settlements: Option<Settlements>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("tag", &self.tag)
            .field("redelivered", &self.redelivered)
            .field("routing_key", &self.routing_key)
            .field("bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// A delivery that was asked for.
    pub(super) fn got(
        (ok, properties, body): (amqprs::GetOk, amqprs::BasicProperties, Vec<u8>),
        settlements: Settlements,
    ) -> Self {
        Self {
            message: message_from_wire(body, &properties),
            tag: DeliveryTag(ok.delivery_tag()),
            redelivered: ok.redelivered(),
            exchange: ok.exchange().clone(),
            routing_key: ok.routing_key().clone(),
            settlements: Some(settlements),
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        self.message.body()
    }

    /// What travelled with the body.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        self.message.properties()
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &Table {
        &self.message.properties().headers
    }

    /// One header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.headers().get(name)
    }

    /// Body and properties, as they would be published again.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Its number on its channel.
    #[must_use]
    pub fn tag(&self) -> DeliveryTag {
        self.tag
    }

    /// Whether it was delivered before, here or elsewhere, and not settled for good.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// The exchange it was published to; empty for the default one.
    #[must_use]
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The routing key it was published with.
    #[must_use]
    pub fn routing_key(&self) -> &str {
        &self.routing_key
    }

    /// It is done: the broker forgets it. Never waits. On a channel that is gone it changes nothing, and says so in
    /// the log: the message comes again.
    pub fn ack(mut self) {
        if let Some(settlements) = self.settlements.take() {
            settlements.send(Command::Ack { tag: self.tag.get() });
        }
    }

    /// It is not done: back to the queue, or with `requeue` false to the queue's dead letter exchange, or dropped if
    /// it has none. Never waits; on a channel that is gone it changes nothing.
    pub fn nack(mut self, requeue: bool) {
        if let Some(settlements) = self.settlements.take() {
            settlements.send(Command::Nack { tag: self.tag.get(), requeue });
        }
    }

    /// As [`Delivery::nack`] without requeue.
    pub fn reject(self) {
        self.nack(false);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settlements) = self.settlements.take() {
            settlements.send(Command::Nack { tag: self.tag.get(), requeue: true });
        }
    }
}

/// Gives back what a stopped consumer received and nobody took.
pub(super) fn untaken(messages: &mut mpsc::UnboundedReceiver<ConsumerMessage>) -> Option<u64> {
    loop {
        let message = messages.try_recv().ok()?;
        if let Some(deliver) = message.deliver {
            return Some(deliver.delivery_tag());
        }
    }
}
