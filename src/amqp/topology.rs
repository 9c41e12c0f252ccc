//! Exchanges and bindings.

use super::Value;
use super::client::not_yet;
use crate::Result;

/// How an exchange routes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeKind {
    /// By the whole routing key.
    Direct,
    /// To every bound queue.
    Fanout,
    /// By patterns of words.
    Topic,
    /// By headers.
    Headers,
    /// A plugin's kind by its name.
    Other(String),
}

/// An exchange to declare.
#[derive(Debug, Clone)]
#[must_use = "nothing is declared until `declare` is awaited"]
pub struct ExchangeBuilder(pub(super) ());

impl ExchangeBuilder {
    /// Lets the exchange survive a broker's restart. The default.
    pub fn durable(self) -> Self {
        self
    }

    /// Sets an argument.
    pub fn argument(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let _ = (name.into(), value.into());
        self
    }

    /// Declares the exchange. Done again with the same settings it changes nothing.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] if it exists otherwise.
    pub async fn declare(self) -> Result<()> {
        not_yet()
    }
}
