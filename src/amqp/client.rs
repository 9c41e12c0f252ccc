//! The entry: a connection and what can be asked of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::connection::{Handle, Settings, connect};
use super::topology::{Control, bind};
use super::{ExchangeBuilder, ExchangeKind, Publisher, QueueBuilder, Url};
use crate::{Error, ErrorKind, Result};

/// What all that is made from one client shares.
pub(super) struct Shared {
    pub(super) handle: Handle,
    pub(super) control: Control,
    publisher: OnceCell<Publisher>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("address", &self.handle.link().address()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The publisher of all queues.
    pub(super) async fn publisher(&self) -> Result<&Publisher> {
        self.publisher.get_or_try_init(|| Publisher::open(&self.handle)).await
    }
}

/// A connection to RabbitMQ. Cheap to clone; the connection closes when the last clone and everything made from it
/// is gone, or with [`Client::close`].
///
/// It does not connect again by itself: when the connection is lost every operation fails with
/// [`ErrorKind::Disconnected`], [`Client::closed`] resolves, and the application makes another client.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.0.handle.link().address())
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects with the default settings; see [`ClientBuilder`].
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Self> {
        Self::builder(url).connect().await
    }

    /// Starts a connection with settings of its own. The URL is looked at by [`ClientBuilder::connect`].
    #[must_use]
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder {
            url: url.to_owned(),
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(30),
            name: None,
            max_message_size: 16 << 20,
            window_messages: 4096,
            window_bytes: 32 << 20,
        }
    }

    pub(super) fn from_shared(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// `host:port` of the broker.
    #[must_use]
    pub fn address(&self) -> &str {
        self.0.handle.link().address()
    }

    /// A queue to declare or check.
    pub fn queue(&self, name: impl Into<String>) -> QueueBuilder {
        QueueBuilder::new(Arc::clone(&self.0), name.into())
    }

    /// An exchange to declare.
    pub fn exchange(&self, name: impl Into<String>, kind: ExchangeKind) -> ExchangeBuilder {
        ExchangeBuilder::new(self.0.control.clone(), name.into(), kind)
    }

    /// Binds a queue to an exchange. Done again it changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if either is missing, [`ErrorKind::Denied`] without the right, [`ErrorKind::Config`] or
    /// [`ErrorKind::TooLarge`] for a bad name, and those of a lost connection.
    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<()> {
        bind(&self.0.control, queue, exchange, routing_key).await
    }

    /// A publisher with a channel and a window of its own. Its clones share them.
    ///
    /// # Errors
    /// [`ErrorKind::Disconnected`] or [`ErrorKind::Closed`] if the connection is gone; [`ErrorKind::Unavailable`] if it
    /// has used up its channels.
    pub async fn publisher(&self) -> Result<Publisher> {
        Publisher::open(&self.0.handle).await
    }

    /// Whether the connection stands, as far as is known: a peer that went silent is noticed after two heartbeats.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.handle.link().check().is_ok()
    }

    /// Waits until the connection is gone and says why: [`ErrorKind::Closed`] after [`Client::close`]. Cancel safe.
    pub async fn closed(&self) -> Error {
        self.0.handle.link().dead().await
    }

    /// Lets publishes on their way be confirmed and settlements be sent, then closes the connection. Consumers end
    /// with [`ErrorKind::Closed`]; deliveries in hand go back to their queues. Closed again it does nothing.
    ///
    /// Dropped before it resolves, the close still happens.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if that takes longer than the operation timeout; [`ErrorKind::Disconnected`] if the connection
    /// was lost before. It is gone all the same.
    pub async fn close(&self) -> Result<()> {
        self.0.handle.close().await
    }
}

/// Settings of a connection.
#[derive(Clone)]
pub struct ClientBuilder {
    url: String,
    heartbeat: Duration,
    connect_timeout: Duration,
    operation_timeout: Duration,
    name: Option<String>,
    max_message_size: usize,
    window_messages: usize,
    window_bytes: usize,
}

/// Without the URL, which holds a password.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("heartbeat", &self.heartbeat)
            .field("connect_timeout", &self.connect_timeout)
            .field("operation_timeout", &self.operation_timeout)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Sets how often the two sides show that they live, in whole seconds: 2 s to 65,535 s, default 10 s. The broker
    /// may ask for less. A peer that is silent for two of them is taken for lost.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// Sets the limit for connecting, from the name look-up to the opened virtual host. Default 10 s, more than 0.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets the limit for every operation: an answer, a confirm, room in the publish window. Default 30 s, more than
    /// 0. An answer that does not come ends the connection, because AMQP cannot tell a late answer from the next one;
    /// a confirm that does not come fails its publish only.
    #[must_use]
    pub fn operation_timeout(mut self, limit: Duration) -> Self {
        self.operation_timeout = limit;
        self
    }

    /// Sets the connection's name in the broker's listings. Default: one made by the library.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the largest body that is published, in bytes. Default 16 MiB. The broker has its own limit (128 MiB until
    /// RabbitMQ 3.13, 16 MiB since 4.0).
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Sets how much a publisher may have queued or unconfirmed: messages (default 4,096) and bytes of their bodies
    /// (default 32 MiB), both more than 0. Beyond that [`Publisher::enqueue`] waits. A body that is larger than the
    /// whole window has it to itself. Worst memory: twice the bytes, and about 0.5 KiB a message with the properties
    /// beside it.
    #[must_use]
    pub fn publish_window(mut self, messages: usize, bytes: usize) -> Self {
        self.window_messages = messages;
        self.window_bytes = bytes;
        self
    }

    /// Connects.
    ///
    /// Dropped before it resolves, nothing is left open.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a bad URL or setting; [`ErrorKind::Connect`] if the host is not found, nothing listens,
    /// or something else than RabbitMQ does; [`ErrorKind::Denied`] for bad credentials or no right to the virtual host;
    /// [`ErrorKind::NotFound`] for a missing virtual host; [`ErrorKind::Unsupported`] for `amqps`, another AMQP version
    /// or settings of the broker that cannot be used; [`ErrorKind::Timeout`] after the connect timeout.
    pub async fn connect(self) -> Result<Client> {
        let handle = connect(self.check()?).await?;
        let control = Control::start(handle.clone());
        Ok(Client(Arc::new(Shared { handle, control, publisher: OnceCell::new() })))
    }

    fn check(self) -> Result<Settings> {
        let config = |why: String| Err(Error::new(ErrorKind::Config, why));
        let url = Url::parse(&self.url)?;
        if url.is_tls() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "TLS to RabbitMQ (amqps://) is not in this build; use amqp:// and the plain port",
            ));
        }
        let seconds = self.heartbeat.as_secs();
        let heartbeat = match u16::try_from(seconds) {
            Ok(heartbeat) if heartbeat >= 2 => heartbeat,
            _ => return config(format!("the heartbeat is {:?}; expected 2 s to 65535 s", self.heartbeat)),
        };
        for (name, limit) in
            [("connect timeout", self.connect_timeout), ("operation timeout", self.operation_timeout)]
        {
            if limit.is_zero() {
                return config(format!("the {name} is 0; expected more"));
            }
        }
        if self.window_messages == 0 || self.window_bytes == 0 {
            return config("the publish window is 0; expected at least one message and one byte".to_owned());
        }
        Ok(Settings {
            url,
            heartbeat,
            connect_timeout: self.connect_timeout,
            operation_timeout: self.operation_timeout,
            name: self.name,
            max_message_size: self.max_message_size,
            // What the semaphores can count.
            window_messages: self.window_messages.min(u32::MAX as usize >> 4),
            window_bytes: self.window_bytes.min(u32::MAX as usize >> 4),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_range_is_refused_by_name() {
        let check = |b: ClientBuilder| b.check().unwrap_err();
        let b = || Client::builder("amqp://h");
        assert!(check(b().heartbeat(Duration::from_millis(1900))).to_string().contains("1.9s; expected 2 s"));
        assert!(check(b().operation_timeout(Duration::ZERO)).to_string().contains("operation timeout is 0"));
        assert!(check(b().publish_window(0, 1)).to_string().contains("window"));
        let e = check(Client::builder("amqps://u:secret@h"));
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().contains("TLS") && !e.to_string().contains("secret"));
        assert!(!format!("{:?}", Client::builder("amqp://u:secret@h")).contains("secret"));
    }
}
