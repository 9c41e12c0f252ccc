//! The control channel: declaring, binding, looking. One task owns it and does one thing after the other; after an
//! error that made the broker close it, the next request opens another.

use std::fmt;
use std::pin::Pin;

use amqprs::channel::{ExchangeDeclareArguments, QueueBindArguments};
use tokio::sync::{mpsc, oneshot};

use super::channel::Channel;
use super::connection::{Handle, Link};
use super::convert::table_to_wire;
use super::{Table, Value};
use crate::{Error, ErrorKind, Result};

/// How many requests may wait; each holds its arguments, so a few KiB.
const WAITING: usize = 64;

type Work =
    Box<dyn for<'a> FnOnce(Result<&'a Channel>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> + Send>;

/// Callers' side of the control channel.
#[derive(Clone)]
pub(super) struct Control {
    work: mpsc::Sender<Work>,
    link: Link,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Starts the owner. It opens its channel when it is first needed.
    pub(super) fn start(handle: Handle) -> Self {
        let link = handle.link().clone();
        let (work, inbox) = mpsc::channel(WAITING);
        spawn_owner(handle, inbox);
        Self { work, link }
    }

    /// Runs one call on the control channel. It goes on to its end when the caller is dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        doing: String,
        call: impl FnOnce(amqprs::channel::Channel) -> Call<T> + Send + 'static,
    ) -> Result<T> {
        self.link.check()?;
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |channel| {
            Box::pin(async move {
                let done = match channel {
                    Ok(channel) => channel.rpc(&doing, call(channel.raw().clone())).await,
                    Err(e) => Err(e.context(doing)),
                };
                let _ = reply.send(done);
            })
        });
        if self.work.send(work).await.is_err() {
            return Err(self.gone());
        }
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn gone(&self) -> Error {
        self.link.death().unwrap_or_else(|| self.link.closed_error())
    }
}

/// A call of the library on its way.
pub(super) type Call<T> = Pin<Box<dyn Future<Output = Result<T, amqprs::error::Error>> + Send>>;

#[allow(clippy::disallowed_methods, reason = "starts the task that owns the control channel")]
fn spawn_owner(handle: Handle, inbox: mpsc::Receiver<Work>) {
    tokio::spawn(own(handle, inbox));
}

async fn own(handle: Handle, mut inbox: mpsc::Receiver<Work>) {
    let link = handle.link().clone();
    let _owner = link.owner();
    let mut channel: Option<Channel> = None;
    loop {
        let work = tokio::select! {
            biased;
            _ = link.dead() => break,
            () = link.closing() => break,
            work = inbox.recv() => match work {
                Some(work) => work,
                None => break,
            },
        };
        if channel.as_ref().is_some_and(|c| c.ending().is_ended()) {
            channel = None;
        }
        let open = match channel.take() {
            Some(open) => Ok(open),
            None => handle.open_channel(None).await,
        };
        match open {
            Ok(open) => work(Ok(channel.insert(open))).await,
            Err(e) => work(Err(e)).await,
        }
    }
    inbox.close();
    while let Some(work) = inbox.recv().await {
        work(Err(link.death().unwrap_or_else(|| link.closed_error()))).await;
    }
    if let Some(channel) = channel {
        channel.close().await;
    }
}

/// Refuses a name that AMQP cannot carry.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    if name.len() > usize::from(u8::MAX) {
        let head: String = name.chars().take(40).collect();
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the {what} {head:?}... has {} bytes; 255 is the most", name.len()),
        ));
    }
    Ok(())
}

/// Refuses an empty name too.
pub(super) fn check_given_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::new(ErrorKind::Config, format!("the {what} has no name")));
    }
    check_name(what, name)
}

/// The arguments as the library has them, if they fit a frame.
pub(super) fn arguments_to_wire(link: &Link, arguments: &Table) -> Result<amqprs::FieldTable> {
    arguments.check(0, &"the arguments")?;
    let size = arguments.wire_size();
    // Two names and the fixed fields stand beside them.
    let most = link.max_payload().saturating_sub(1024);
    if size > most {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the arguments take {size} bytes; RabbitMQ's frame leaves {most} for them"),
        ));
    }
    table_to_wire(arguments)
}

/// How an exchange routes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeKind {
    /// To the queues bound with the message's routing key.
    Direct,
    /// To every bound queue.
    Fanout,
    /// By patterns over the words of the routing key: `*` for one, `#` for any number.
    Topic,
    /// By headers.
    Headers,
    /// A plugin's kind by its name.
    Other(String),
}

impl ExchangeKind {
    fn as_str(&self) -> &str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::Other(name) => name,
        }
    }
}

/// An exchange to declare: durable unless said otherwise.
#[derive(Debug, Clone)]
#[must_use = "nothing is declared until `declare` is awaited"]
pub struct ExchangeBuilder {
    control: Control,
    name: String,
    kind: ExchangeKind,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: Table,
}

impl ExchangeBuilder {
    pub(super) fn new(control: Control, name: String, kind: ExchangeKind) -> Self {
        Self {
            control,
            name,
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Table::new(),
        }
    }

    /// Lets the exchange survive a broker's restart. The default.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Lets the exchange go with the broker's restart.
    pub fn transient(mut self) -> Self {
        self.durable = false;
        self
    }

    /// Lets the broker delete it when its last binding goes.
    pub fn auto_delete(mut self) -> Self {
        self.auto_delete = true;
        self
    }

    /// Takes messages from other exchanges only.
    pub fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    /// Sets an argument.
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Declares the exchange. Done again with the same settings it changes nothing. Dropped before it resolves, the
    /// exchange may be declared or not.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it exists with other settings, with both sides' words; [`ErrorKind::Denied`] without the
    /// right; [`ErrorKind::Config`] or [`ErrorKind::TooLarge`] for a bad name or argument.
    pub async fn declare(self) -> Result<()> {
        check_given_name("exchange", &self.name)?;
        check_name("exchange kind", self.kind.as_str())?;
        let mut arguments = ExchangeDeclareArguments::new(&self.name, self.kind.as_str());
        arguments
            .durable(self.durable)
            .auto_delete(self.auto_delete)
            .internal(self.internal)
            .arguments(arguments_to_wire(&self.control.link, &self.arguments)?);
        let doing = format!("declaring exchange {:?}", self.name);
        self.control.run(doing, move |c| Box::pin(async move { c.exchange_declare(arguments).await })).await
    }
}

/// Binds a queue to an exchange.
pub(super) async fn bind(control: &Control, queue: &str, exchange: &str, routing_key: &str) -> Result<()> {
    check_given_name("queue", queue)?;
    check_given_name("exchange", exchange)?;
    check_name("routing key", routing_key)?;
    let doing = format!("binding queue {queue:?} to exchange {exchange:?}");
    let arguments = QueueBindArguments::new(queue, exchange, routing_key);
    control.run(doing, move |c| Box::pin(async move { c.queue_bind(arguments).await })).await
}
