//! Dead letters: where messages go that cannot be worked, and what is written about their end.

use super::handler::BoxFuture;
use super::message::{Message, Origin};
use crate::delivery::dead_letter as headers;
use crate::delivery::{DeadLetter, Reason};
use crate::{Result, Timestamp};

/// Why and how a message died.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Obituary {
    /// The message.
    pub message: Message,
    /// Why it is given up.
    pub reason: Reason,
    /// The class of the error: an [`crate::ErrorKind`] as a word, `panic`, or `timeout`.
    pub error_class: &'static str,
    /// The last error with its causes.
    pub error_message: String,
    /// How often its handler was started; 0 if it never was.
    pub attempts: u32,
    /// When it failed first.
    pub first_failure: Timestamp,
    /// When it failed last.
    pub last_failure: Timestamp,
}

impl Obituary {
    /// The headers to be added to the original's own ([`crate::delivery::dead_letter`] lists them).
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let origin = match self.message.origin() {
            Origin::Kafka { topic, partition, offset, timestamp, group } => crate::delivery::Origin::Kafka {
                topic: topic.as_str(),
                partition: *partition,
                offset: *offset,
                timestamp: *timestamp,
                group: group.as_deref(),
            },
            Origin::Amqp { queue, exchange, routing_key, .. } => {
                crate::delivery::Origin::Amqp { exchange, routing_key, queue }
            }
            Origin::Memory { .. } => {
                crate::delivery::Origin::Amqp { exchange: "", routing_key: "memory", queue: "memory" }
            }
        };
        let letter = DeadLetter {
            origin,
            reason: self.reason,
            error_class: self.error_class,
            error_message: &self.error_message,
            attempts: self.attempts,
            first_failure: self.first_failure,
            last_failure: self.last_failure,
        };
        letter.headers().into_iter().map(|(name, value)| (name, value.into_owned())).collect()
    }

    /// The original's headers as a dead letter keeps them: all, but for those of an earlier death.
    pub fn kept_headers(&self) -> impl Iterator<Item = &super::message::Header> {
        self.message.headers().iter().filter(|(name, _)| !headers::is_dead_letter_header(name))
    }
}

/// A destination for dead letters of a source whose deliveries are `D`.
pub trait DeadLetters<D>: Send + Sync + 'static {
    /// Publishes the original untouched, with the headers of `obituary` added, and resolves once the broker
    /// confirmed it. Only then is the original acknowledged.
    ///
    /// # Errors
    /// A retryable error ([`crate::Error::is_retryable`]) is tried again with backoff for as long as it takes; meanwhile
    /// the message holds its slot and its key. Any other ends the run: the message is not acknowledged and not lost.
    fn publish(&self, delivery: &D, obituary: &Obituary) -> BoxFuture<Result<()>>;

    /// The destination's name, for logs.
    fn name(&self) -> String;
}
