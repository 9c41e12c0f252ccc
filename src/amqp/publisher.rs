//! Confirmed publishing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Message;
use super::client::not_yet;
use crate::Result;

/// Publishes with confirms. Cheap to clone; clones share a channel.
#[derive(Debug, Clone)]
pub struct Publisher(());

impl Publisher {
    /// The same publisher with the `mandatory` flag set or not: with it (the default) a message that no queue takes
    /// is an error.
    #[must_use]
    pub fn mandatory(&self, mandatory: bool) -> Self {
        let _ = mandatory;
        self.clone()
    }

    /// Publishes and waits for the confirm.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Rejected`] if the broker returned or refused it.
    pub async fn publish(&self, exchange: &str, routing_key: &str, message: Message) -> Result<()> {
        self.enqueue(exchange, routing_key, message).await?.await
    }

    /// Waits for room in the window and puts the message in order; what it returns resolves on the confirm.
    ///
    /// # Errors
    /// What is known before the message leaves; never ambiguous.
    pub async fn enqueue(&self, exchange: &str, routing_key: &str, message: Message) -> Result<Queued> {
        let _ = (exchange, routing_key, message);
        not_yet()
    }
}

/// A message on its way; resolves when the broker confirmed it.
#[derive(Debug)]
#[must_use = "whether the broker took the message is known only when this is awaited"]
pub struct Queued(());

impl Future for Queued {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(not_yet())
    }
}
