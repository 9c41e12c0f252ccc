//! A queue: declaring it, publishing to it, looking at it.

use super::client::not_yet;
use super::{ConsumeBuilder, Delivery, Message, Queued, Value};
use crate::Result;

/// A queue to declare or check: plain and durable unless said otherwise.
#[derive(Debug, Clone)]
#[must_use = "nothing is declared until `declare` is awaited"]
pub struct QueueBuilder(pub(super) ());

impl QueueBuilder {
    /// Asks for a replicated quorum queue (`x-queue-type`).
    pub fn quorum(self) -> Self {
        self
    }

    /// Sets an argument.
    pub fn argument(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let _ = (name.into(), value.into());
        self
    }

    /// Only checks that the queue exists, with whatever arguments.
    pub fn passive(self) -> Self {
        self
    }

    /// Declares, and if the queue exists with other arguments takes it as it is.
    pub fn join(self) -> Self {
        self
    }

    /// Does it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] if it exists with other arguments; [`crate::ErrorKind::NotFound`] for a passive one that
    /// is missing.
    pub async fn declare(self) -> Result<Queue> {
        not_yet()
    }
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depth {
    /// Messages that wait, without those delivered and not yet acknowledged.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// A queue that exists. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue(());

impl Queue {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        ""
    }

    /// Publishes to it by the default exchange and waits for the confirm. Mandatory: a queue deleted meanwhile is an
    /// error.
    ///
    /// # Errors
    /// As [`super::Publisher::publish`].
    pub async fn publish(&self, message: Message) -> Result<()> {
        self.enqueue(message).await?.await
    }

    /// As [`super::Publisher::enqueue`], to this queue.
    ///
    /// # Errors
    /// As [`super::Publisher::enqueue`].
    pub async fn enqueue(&self, message: Message) -> Result<Queued> {
        let _ = message;
        not_yet()
    }

    /// Takes one message if there is one.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if the queue is gone.
    pub async fn get(&self) -> Result<Option<Delivery>> {
        not_yet()
    }

    /// Starts to consume.
    #[must_use]
    pub fn consume(&self) -> ConsumeBuilder {
        ConsumeBuilder(())
    }

    /// How full it is.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if the queue is gone.
    pub async fn depth(&self) -> Result<Depth> {
        not_yet()
    }

    /// Drops what waits in it; says how many.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if the queue is gone.
    pub async fn purge(&self) -> Result<u32> {
        not_yet()
    }

    /// Deletes it with all that waits in it; says how many.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Denied`] without the right to.
    pub async fn delete(&self) -> Result<u32> {
        not_yet()
    }
}
