//! The entry: a connection and what can be asked of it.

use std::time::Duration;

use super::{ExchangeBuilder, ExchangeKind, Publisher, QueueBuilder};
use crate::{Error, ErrorKind, Result};

pub(super) fn not_yet<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Internal, "not built yet"))
}

/// A connection to RabbitMQ. Cheap to clone; the connection closes when the last clone and everything made from it
/// is gone, or with [`Client::close`].
#[derive(Debug, Clone)]
pub struct Client(());

impl Client {
    /// Connects with the default settings; see [`ClientBuilder`].
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// Starts a connection with settings of its own.
    #[must_use]
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder { url: url.to_owned() }
    }

    /// A queue to declare or check.
    #[must_use]
    pub fn queue(&self, name: impl Into<String>) -> QueueBuilder {
        let _ = name.into();
        QueueBuilder(())
    }

    /// An exchange to declare.
    #[must_use]
    pub fn exchange(&self, name: impl Into<String>, kind: ExchangeKind) -> ExchangeBuilder {
        let _ = (name.into(), kind);
        ExchangeBuilder(())
    }

    /// Binds a queue to an exchange. Done again it changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if either is missing.
    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<()> {
        let _ = (queue, exchange, routing_key);
        not_yet()
    }

    /// A publisher with a channel of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`] or [`ErrorKind::Closed`] if the connection is gone.
    pub async fn publisher(&self) -> Result<Publisher> {
        not_yet()
    }

    /// Whether the connection stands, as far as is known.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        false
    }

    /// Waits until the connection is gone and says why. Cancel safe.
    pub async fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, "not built yet")
    }

    /// Sends what acknowledgements wait, then closes the connection.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the broker does not answer; the connection is gone all the same.
    pub async fn close(&self) -> Result<()> {
        not_yet()
    }
}

/// Settings of a connection.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    url: String,
}

impl ClientBuilder {
    /// Sets how often the two sides show that they live. Default 10 s, least 2 s.
    #[must_use]
    pub fn heartbeat(self, every: Duration) -> Self {
        let _ = every;
        self
    }

    /// Sets the limit for connecting, from the name look-up to the opened virtual host. Default 10 s.
    #[must_use]
    pub fn connect_timeout(self, limit: Duration) -> Self {
        let _ = limit;
        self
    }

    /// Sets the limit for every operation. Default 30 s.
    #[must_use]
    pub fn operation_timeout(self, limit: Duration) -> Self {
        let _ = limit;
        self
    }

    /// Sets the connection's name in the broker's listings.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        let _ = name.into();
        self
    }

    /// Sets the largest body that is published, in bytes. Default 16 MiB.
    #[must_use]
    pub fn max_message_size(self, bytes: usize) -> Self {
        let _ = bytes;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], [`ErrorKind::Connect`], [`ErrorKind::Denied`], [`ErrorKind::NotFound`],
    /// [`ErrorKind::Timeout`], [`ErrorKind::Unsupported`].
    pub async fn connect(self) -> Result<Client> {
        super::Url::parse(&self.url)?;
        not_yet()
    }
}
