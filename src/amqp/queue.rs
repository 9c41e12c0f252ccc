//! A queue: declaring it, publishing to it, looking at it.

use std::sync::Arc;

use amqprs::channel::{QueueDeclareArguments, QueueDeleteArguments, QueuePurgeArguments};
use tokio::sync::{Mutex, oneshot};

use super::client::Shared;
use super::receiver::{Command, Receiver, Settlements};
use super::topology::{arguments_to_wire, check_given_name};
use super::{ConsumeBuilder, Delivery, Message, Queued, Table, Value};
use crate::{Error, ErrorKind, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Declare,
    Passive,
    Join,
}

/// A queue to declare or check: plain (no arguments) and durable unless said otherwise, as programs that declare it the
/// plain way expect it.
#[derive(Debug, Clone)]
#[must_use = "nothing is declared until `declare` is awaited"]
pub struct QueueBuilder {
    shared: Arc<Shared>,
    name: String,
    mode: Mode,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: Table,
}

impl QueueBuilder {
    pub(super) fn new(shared: Arc<Shared>, name: String) -> Self {
        Self {
            shared,
            name,
            mode: Mode::Declare,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Table::new(),
        }
    }

    /// Asks for a replicated quorum queue (`x-queue-type`).
    pub fn quorum(self) -> Self {
        self.argument("x-queue-type", "quorum")
    }

    /// Sends what is rejected, expired or over a limit to `exchange` with `routing_key`
    /// (`x-dead-letter-exchange`, `x-dead-letter-routing-key`). The default exchange `""` with a queue's name sends it
    /// to that queue.
    pub fn dead_letter(self, exchange: impl Into<String>, routing_key: impl Into<String>) -> Self {
        self.argument("x-dead-letter-exchange", exchange.into())
            .argument("x-dead-letter-routing-key", routing_key.into())
    }

    /// Limits how often a quorum queue delivers a message again before it is dead-lettered or dropped
    /// (`x-delivery-limit`).
    pub fn delivery_limit(self, redeliveries: u32) -> Self {
        self.argument("x-delivery-limit", i64::from(redeliveries))
    }

    /// Sets an argument, replacing one of the same name.
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Lets the queue go with the broker's restart.
    pub fn transient(mut self) -> Self {
        self.durable = false;
        self
    }

    /// Ties the queue to this connection: nobody else may use it, and it goes with it.
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Lets the broker delete it when its last consumer goes.
    pub fn auto_delete(mut self) -> Self {
        self.auto_delete = true;
        self
    }

    /// Only checks that the queue exists, with whatever arguments; declares nothing.
    pub fn passive(mut self) -> Self {
        self.mode = Mode::Passive;
        self
    }

    /// Declares it, and if it exists with other arguments takes it as it is.
    pub fn join(mut self) -> Self {
        self.mode = Mode::Join;
        self
    }

    /// Does it. Done again with the same settings it changes nothing. Dropped before it resolves, the queue may be
    /// declared or not.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it exists with other arguments, with both sides' words, or is another connection's
    /// exclusive one; [`ErrorKind::NotFound`] for a passive one that is missing; [`ErrorKind::Denied`] without the right;
    /// [`ErrorKind::Config`] or [`ErrorKind::TooLarge`] for a bad name or argument; those of a lost connection.
    pub async fn declare(self) -> Result<Queue> {
        check_given_name("queue", &self.name)?;
        let link = self.shared.handle.link();
        let mut arguments = QueueDeclareArguments::new(&self.name);
        arguments
            .durable(self.durable)
            .exclusive(self.exclusive)
            .auto_delete(self.auto_delete)
            .passive(self.mode == Mode::Passive)
            .arguments(arguments_to_wire(link, &self.arguments)?);
        let verb = if self.mode == Mode::Passive { "checking" } else { "declaring" };
        match declare(&self.shared, format!("{verb} queue {:?}", self.name), arguments).await {
            Err(e) if self.mode == Mode::Join && e.kind() == ErrorKind::Conflict => {
                check(&self.shared, &self.name).await?;
            }
            declared => {
                declared?;
            }
        }
        Ok(Queue(Arc::new(Inner { shared: self.shared, name: self.name, getter: Mutex::new(None) })))
    }
}

async fn declare(shared: &Shared, doing: String, arguments: QueueDeclareArguments) -> Result<Depth> {
    let declared =
        shared.control.run(doing, move |c| Box::pin(async move { c.queue_declare(arguments).await })).await?;
    let (messages, consumers) = declared.map_or((0, 0), |(_, messages, consumers)| (messages, consumers));
    Ok(Depth { messages, consumers })
}

/// A passive declare.
async fn check(shared: &Shared, name: &str) -> Result<Depth> {
    let arguments = QueueDeclareArguments::new(name).passive(true).finish();
    declare(shared, format!("checking queue {name:?}"), arguments).await
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

/// A queue that existed when it was declared or checked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    name: String,
    /// The channel for [`Queue::get`], opened when it is first needed and again after an end.
    getter: Mutex<Option<Settlements>>,
}

impl Queue {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The client it came from.
    #[must_use]
    pub fn client(&self) -> super::Client {
        super::Client::from_shared(Arc::clone(&self.0.shared))
    }

    /// Publishes to it by the default exchange and waits for the confirm. Mandatory: a queue that was deleted meanwhile
    /// is an error, not a silent loss.
    ///
    /// All queues of a client share one publisher, so one channel and one window.
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
        self.0.shared.publisher().await?.enqueue("", &self.0.name, message).await
    }

    /// Takes one message if there is one. For a look or a drain; [`Queue::consume`] is the fast way.
    ///
    /// Cancel safe: a message that was on its way goes back to the queue.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the queue is gone; those of a lost connection.
    pub async fn get(&self) -> Result<Option<Delivery>> {
        let settlements = self.getter().await?;
        let (reply, answer) = oneshot::channel();
        settlements.send(Command::Get { queue: self.0.name.clone(), reply });
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(self.lost()),
        }
    }

    async fn getter(&self) -> Result<Settlements> {
        let mut getter = self.0.getter.lock().await;
        match &*getter {
            Some(open) if !open.is_closed() => Ok(open.clone()),
            _ => {
                let open = Receiver::open(self.0.shared.handle.clone()).await?.get();
                *getter = Some(open.clone());
                Ok(open)
            }
        }
    }

    fn lost(&self) -> Error {
        let link = self.0.shared.handle.link();
        link.death().unwrap_or_else(|| {
            Error::new(
                ErrorKind::Disconnected,
                format!("getting from queue {:?}: the channel to {} ended", self.0.name, link.address()),
            )
        })
    }

    /// Starts to consume.
    pub fn consume(&self) -> ConsumeBuilder {
        ConsumeBuilder::new(self.0.shared.handle.clone(), self.0.name.clone())
    }

    /// How full it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the queue is gone; those of a lost connection.
    pub async fn depth(&self) -> Result<Depth> {
        check(&self.0.shared, &self.0.name).await
    }

    /// Drops what waits in it, without what is delivered and unsettled; says how many.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the queue is gone; those of a lost connection, ambiguous.
    pub async fn purge(&self) -> Result<u32> {
        let arguments = QueuePurgeArguments::new(&self.0.name);
        let doing = format!("purging queue {:?}", self.0.name);
        let purged = self
            .0
            .shared
            .control
            .run(doing, move |c| Box::pin(async move { c.queue_purge(arguments).await }))
            .await?;
        Ok(purged.unwrap_or(0))
    }

    /// Deletes it with all that waits in it; says how many that were. A queue that is gone already is no error
    /// (RabbitMQ).
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] without the right; those of a lost connection, ambiguous.
    pub async fn delete(&self) -> Result<u32> {
        let arguments = QueueDeleteArguments::new(&self.0.name);
        let doing = format!("deleting queue {:?}", self.0.name);
        let deleted = self
            .0
            .shared
            .control
            .run(doing, move |c| Box::pin(async move { c.queue_delete(arguments).await }))
            .await?;
        Ok(deleted.unwrap_or(0))
    }
}
