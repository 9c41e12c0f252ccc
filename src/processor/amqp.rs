//! RabbitMQ under the engine: a queue as a source, a queue for dead letters.
#![allow(clippy::disallowed_methods, reason = "IO: cancelling a consumer goes on beside the drain")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::dead_letter::{DeadLetters, Obituary};
use super::handler::BoxFuture;
use super::message::{Header, Message, Origin};
use super::source::{Delivery, Source};
use crate::amqp::{self, Deliveries, Queue, Value};
use crate::{Error, ErrorKind, Result};

/// A queue as a source. It ends with an error when the connection or the consumer is lost; what was in hand then is
/// delivered again by the broker.
#[derive(Debug)]
pub struct QueueSource {
    consumer: Consumer,
    queue: Arc<str>,
}

#[derive(Debug)]
enum Consumer {
    Runs(Deliveries),
    /// Being cancelled, so that what is given back goes to other workers and not to this one again.
    Cancelled(JoinHandle<Result<()>>),
    /// Between the two.
    Gone,
}

impl QueueSource {
    /// Starts to consume. `prefetch` bounds how many messages may be in hand, here and under way.
    ///
    /// # Errors
    /// As [`amqp::ConsumeBuilder::start`].
    pub async fn start(queue: &Queue, prefetch: u16) -> Result<Self> {
        let deliveries = queue.consume().prefetch(prefetch).start().await?;
        Ok(Self { consumer: Consumer::Runs(deliveries), queue: queue.name().into() })
    }
}

/// A message in hand, from a [`QueueSource`].
#[derive(Debug)]
pub struct QueueDelivery {
    inner: amqp::Delivery,
    queue: Arc<str>,
}

impl QueueDelivery {
    /// The delivery as the client gave it.
    pub fn inner(&self) -> &amqp::Delivery {
        &self.inner
    }
}

impl Source for QueueSource {
    type Delivery = QueueDelivery;

    async fn next(&mut self) -> Option<Result<QueueDelivery>> {
        let Consumer::Runs(deliveries) = &mut self.consumer else { return None };
        match deliveries.next().await {
            Some(Ok(inner)) => Some(Ok(QueueDelivery { inner, queue: Arc::clone(&self.queue) })),
            Some(Err(error)) => Some(Err(error)),
            // A queue has no end: a consumer that stops was stopped.
            None => Some(Err(Error::new(
                ErrorKind::Disconnected,
                format!("queue {}: the consumer ended", self.queue),
            ))),
        }
    }

    fn stop(&mut self) {
        self.consumer = match std::mem::replace(&mut self.consumer, Consumer::Gone) {
            Consumer::Runs(deliveries) => Consumer::Cancelled(tokio::spawn(deliveries.cancel())),
            other => other,
        };
    }

    async fn close(mut self, limit: Duration) -> Result<()> {
        self.stop();
        let Consumer::Cancelled(cancelled) = self.consumer else { return Ok(()) };
        match tokio::time::timeout(limit, cancelled).await {
            Ok(Ok(Ok(()))) => Ok(()),
            // Then the broker takes back what is not acknowledged, which is what closing is for.
            Ok(Ok(Err(error))) if matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Closed) => {
                tracing::debug!(queue = %self.queue, error = %error.report(), "the connection was gone already");
                Ok(())
            }
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(broken)) => Err(Error::new(
                ErrorKind::Internal,
                format!("queue {}: cancelling the consumer broke off", self.queue),
            )
            .with_source(broken)),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("queue {}: the consumer was not cancelled within {limit:?}", self.queue),
            )),
        }
    }
}

impl Delivery for QueueDelivery {
    fn message(&self) -> Message {
        let headers = self.inner.headers().iter().map(|(name, value)| header(name, value)).collect();
        let origin = Origin::Amqp {
            queue: Arc::clone(&self.queue),
            exchange: self.inner.exchange().to_owned(),
            routing_key: self.inner.routing_key().to_owned(),
            tag: self.inner.tag(),
            redelivered: self.inner.redelivered(),
        };
        let id = self.inner.properties().message_id.clone().filter(|id| !id.is_empty());
        Message::new(origin, None, Some(self.inner.body().clone()), headers, id)
    }

    fn ack(self) {
        self.inner.ack();
    }
}

/// A typed header as text; one of no text form as its debug form.
fn header(name: &str, value: &Value) -> Header {
    let text = match (value.as_str(), value.as_i64(), value.as_bool()) {
        (Some(text), _, _) => text.to_owned(),
        (None, Some(number), _) => number.to_string(),
        (None, None, Some(flag)) => flag.to_string(),
        (None, None, None) => format!("{value:?}"),
    };
    (name.to_owned(), Some(Bytes::from(text)))
}

/// A queue for dead letters. The original's body and properties stay as they were, its headers get those of
/// [`crate::delivery::dead_letter`] added.
#[derive(Debug, Clone)]
pub struct AmqpDeadLetters {
    queue: Queue,
}

impl AmqpDeadLetters {
    /// Dead letters to that queue.
    #[must_use]
    pub fn to(queue: Queue) -> Self {
        Self { queue }
    }
}

impl DeadLetters<QueueDelivery> for AmqpDeadLetters {
    fn publish(&self, delivery: &QueueDelivery, obituary: &Obituary) -> BoxFuture<Result<()>> {
        let mut message = delivery.inner.message().clone();
        let properties = message.properties_mut();
        let old: Vec<String> = properties
            .headers
            .iter()
            .map(|(name, _)| name.to_owned())
            .filter(|name| crate::delivery::dead_letter::is_dead_letter_header(name))
            .collect();
        for name in old {
            properties.headers.remove(&name);
        }
        for (name, value) in obituary.headers() {
            properties.headers.insert(name, value);
        }
        // It is to be kept until somebody looks at it, whatever its sender asked for, and the broker refuses
        // another user's name than our own.
        properties.expiration = None;
        properties.user_id = None;
        properties.persistent = Some(true);
        let queue = self.queue.clone();
        Box::pin(async move { queue.publish(message).await })
    }

    fn name(&self) -> String {
        format!("queue {}", self.queue.name())
    }
}
