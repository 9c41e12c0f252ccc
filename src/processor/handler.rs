//! What a handler is, what it may answer, and how its failures are classed.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::Message;
use crate::delivery::Reason;
use crate::{Error, ErrorKind};

/// A future on the heap, as the engine runs it.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// What is to become of a message whose handling failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Try again after a backoff; when the attempts are used up, as [`Class::Reject`].
    Retry,
    /// It will never work: to the dead letters now. Without any, [`super::WithoutDeadLetter`] decides.
    Reject,
    /// It does not matter: done, with a line in the log.
    Ignore,
    /// Nothing can go on: the message is given back and the run ends with the error.
    Stop,
}

impl Class {
    /// The class as a lower-case word, for logs and headers. Stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Ignore => "ignore",
            Self::Stop => "stop",
        }
    }
}

/// Why a handler failed, and what is to become of the message.
///
/// `?` makes one out of every error, of [`Class::Retry`]; the other classes are asked for by name:
///
/// ```
/// use muslin::processor::HandlerError;
///
/// async fn handle(body: &str) -> Result<(), HandlerError> {
///     let amount: i64 = body.trim().parse().map_err(HandlerError::reject)?; // never better: dead letter
///     if amount == 0 {
///         return Err(HandlerError::ignore("nothing to book"));
///     }
///     std::fs::read("rates.json")?; // may be there next time: retry
///     Ok(())
/// }
/// # let _ = handle("1");
/// ```
pub struct HandlerError {
    class: Class,
    message: String,
    /// The word for the error in a dead letter's headers.
    word: &'static str,
    /// Why it becomes a dead letter, where the class alone does not tell.
    reason: Option<Reason>,
}

impl HandlerError {
    /// An error of that class.
    #[must_use]
    pub fn new(class: Class, why: impl fmt::Display) -> Self {
        Self { class, message: why.to_string(), word: ErrorKind::Handler.as_str(), reason: None }
    }

    /// Try again after a backoff.
    #[must_use]
    pub fn retry(why: impl fmt::Display) -> Self {
        Self::new(Class::Retry, why)
    }

    /// It will never work: to the dead letters now.
    #[must_use]
    pub fn reject(why: impl fmt::Display) -> Self {
        Self::new(Class::Reject, why)
    }

    /// It does not matter: done.
    #[must_use]
    pub fn ignore(why: impl fmt::Display) -> Self {
        Self::new(Class::Ignore, why)
    }

    /// Nothing can go on: end the run.
    #[must_use]
    pub fn stop(why: impl fmt::Display) -> Self {
        Self::new(Class::Stop, why)
    }

    /// The same with the reason that a dead letter of it names.
    pub(crate) fn because(mut self, reason: Reason, word: &'static str) -> Self {
        (self.reason, self.word) = (Some(reason), word);
        self
    }

    #[cfg(any(feature = "kafka", feature = "amqp"))]
    pub(crate) fn with_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    pub(crate) fn reason(&self) -> Option<Reason> {
        self.reason
    }

    pub(crate) fn word(&self) -> &'static str {
        self.word
    }

    /// What is to become of the message.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// Why, with the causes, on one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError").field("class", &self.class).field("message", &self.message).finish()
    }
}

// Not a `std::error::Error` itself: it could not be made from every error then.
impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(e) = cause {
            let text = e.to_string();
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = e.source();
        }
        let word =
            (&error as &dyn Any).downcast_ref::<Error>().map_or(ErrorKind::Handler, Error::kind).as_str();
        Self { class: Class::Retry, message, word, reason: None }
    }
}

/// What a handler leaves behind when it succeeds: nothing, or some bytes that the idempotency store keeps and that a
/// duplicate gets to see. Keep it small; it stays in the store as long as the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome(pub Bytes);

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::default()
    }
}
impl From<Bytes> for Outcome {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}
impl From<Vec<u8>> for Outcome {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}
impl From<String> for Outcome {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// What handling one message gives.
pub type HandlerResult = Result<Outcome, HandlerError>;

/// One try at a message: called with the number of the try, from 1.
pub type Work = Arc<dyn Fn(u32) -> BoxFuture<HandlerResult> + Send + Sync>;

/// What is to be done with a message, decided before anything is done.
pub enum Plan {
    /// Work on it, once per `key` if there is a key and a store.
    Work {
        /// The idempotency key, if the message has one.
        key: Option<String>,
        /// The work.
        work: Work,
    },
    /// No work: the message is what the error says, by its class. [`Class::Retry`] stands for [`Class::Reject`] here,
    /// as nothing would change.
    Settle(HandlerError),
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work { key, .. } => f.debug_struct("Work").field("key", key).finish_non_exhaustive(),
            Self::Settle(why) => f.debug_tuple("Settle").field(why).finish(),
        }
    }
}

/// Decides what to do with each message. Every `Fn(Message) -> impl Future<Output = Result<T, HandlerError>>` is one;
/// the key of such a handler is the message's [`Message::id`].
pub trait Handler: Send + Sync + 'static {
    /// Looks at a message once, when it arrives, and says what to do. Runs on the engine's own task: it must be quick
    /// and must not block.
    fn plan(&self, message: &Message) -> Plan;
}

impl<F, Fut, T> Handler for F
where
    F: Fn(Message) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = Result<T, HandlerError>> + Send + 'static,
    T: Into<Outcome>,
{
    fn plan(&self, message: &Message) -> Plan {
        let (handler, message) = (self.clone(), message.clone());
        Plan::Work {
            key: message.id().map(str::to_owned),
            work: Arc::new(move |attempt| {
                let run = handler(message.at_attempt(attempt));
                Box::pin(async move { run.await.map(Into::into) })
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_mark_makes_a_retry_with_all_causes_in_its_message() {
        fn fails() -> Result<(), HandlerError> {
            let io = std::io::Error::other("disk on fire");
            Err(crate::Error::new(crate::ErrorKind::Storage, "cannot save").with_source(io))?;
            Ok(())
        }
        let e = fails().unwrap_err();
        assert_eq!((e.class(), e.message()), (Class::Retry, "cannot save: disk on fire"));
    }
}
