//! Consuming with manual acknowledgement.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;

use super::client::not_yet;
use super::{Message, Properties, Table, Value};
use crate::{DeliveryTag, Result};

/// A consumer to start.
#[derive(Debug, Clone)]
#[must_use = "nothing is consumed until `start` is awaited"]
pub struct ConsumeBuilder(pub(super) ());

impl ConsumeBuilder {
    /// Sets how many deliveries may be unsettled at once. Default 200.
    pub fn prefetch(self, deliveries: u16) -> Self {
        let _ = deliveries;
        self
    }

    /// Starts the consumer.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if the queue is gone.
    pub async fn start(self) -> Result<Deliveries> {
        not_yet()
    }
}

/// The deliveries of a consumer.
#[derive(Debug)]
pub struct Deliveries(());

impl Deliveries {
    /// The next delivery. After an error, or once cancelled and empty, `None`. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        None
    }

    /// Stops the broker from sending more and gives back what was received and not yet taken by `next`. Deliveries in
    /// hand can still be settled.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Disconnected`] if the connection is gone.
    pub async fn cancel(self) -> Result<()> {
        not_yet()
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

/// A message in hand. Dropped unsettled it is given back to the queue.
#[derive(Debug)]
#[must_use = "a delivery that is dropped goes back to the queue"]
pub struct Delivery {
    message: Message,
    tag: DeliveryTag,
    redelivered: bool,
    exchange: String,
    routing_key: String,
}

impl Delivery {
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

    /// Whether it was delivered before, here or elsewhere.
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

    /// It is done. Never waits.
    pub fn ack(self) {}

    /// It is not done: back to the queue, or with `requeue` false to the queue's dead letter exchange if it has one.
    /// Never waits.
    pub fn nack(self, requeue: bool) {
        let _ = requeue;
    }

    /// As [`Delivery::nack`] without requeue.
    pub fn reject(self) {
        self.nack(false);
    }
}
