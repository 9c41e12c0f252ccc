//! Dead letters: where messages go that cannot be worked, and what is written about their end.

use super::handler::BoxFuture;
use super::message::Message;
use crate::{Result, Timestamp};

/// Why and how a message died.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Obituary {
    /// The message.
    pub message: Message,
    /// The error's class as a word: `retry` (its attempts ran out), `reject`, `timeout`, `panic`, or the name of the policy that
    /// put it here (`not_json`, ...).
    pub class: String,
    /// The last error with its causes.
    pub reason: String,
    /// How often its handler was started; 0 if it never was.
    pub attempts: u32,
    /// When it failed first.
    pub first_failure: Timestamp,
    /// When it failed last.
    pub last_failure: Timestamp,
}

/// A destination for dead letters of a source whose deliveries are `D`.
pub trait DeadLetters<D>: Send + Sync + 'static {
    /// Publishes the original untouched, with the facts of `obituary` in headers, and resolves once the broker
    /// confirmed it. Only then is the original acknowledged.
    ///
    /// # Errors
    /// A retryable error ([`crate::Error::is_retryable`]) is tried again with backoff for as long as it takes. Any other ends
    /// the run: the message is not acknowledged and not lost.
    fn publish(&self, delivery: &D, obituary: &Obituary) -> BoxFuture<Result<()>>;

    /// The destination's name, for logs.
    fn name(&self) -> String;
}
