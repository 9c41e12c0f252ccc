#![allow(clippy::disallowed_methods, reason = "owns a channel: a task and time limits")]
//! The task that owns a channel on which messages are received, by a consumer or one by one.
//!
//! It takes settlements from [`super::Delivery`] and turns them into frames, acknowledgements joined by [`Settler`].
//! It ends when the channel ends, when the client closes (settling what came before), or when nobody can send it
//! anything more; the close of the channel then gives back what is unsettled.

use amqprs::channel::{
    BasicAckArguments, BasicCancelArguments, BasicConsumeArguments, BasicGetArguments, BasicNackArguments,
    BasicQosArguments, ConsumerMessage,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Delivery;
use super::channel::{Channel, Ending};
use super::connection::{Handle, Link};
use super::consumer::untaken;
use super::settle::Settler;
use crate::{Error, ErrorKind, Result};

/// Commands taken in one go before acknowledgements are sent.
const BATCH: usize = 256;

/// A running consumer.
#[derive(Debug)]
pub(super) struct Subscription {
    tag: String,
    /// The library's queue is unbounded; the prefetch bounds it.
    pub(super) messages: mpsc::UnboundedReceiver<ConsumerMessage>,
}

/// What the owner is asked to do.
pub(super) enum Command {
    Ack { tag: u64 },
    Nack { tag: u64, requeue: bool },
    Cancel { subscription: Subscription, reply: Option<oneshot::Sender<Result<()>>> },
    Get { queue: String, reply: oneshot::Sender<Result<Option<Delivery>>> },
}

/// Callers' side of the owner.
///
/// Unbounded, and bounded all the same: each delivery is settled once, and no more are in hand than the prefetch or
/// the callers of `get` allow.
#[derive(Debug, Clone)]
pub(super) struct Settlements(mpsc::UnboundedSender<Command>);

impl Settlements {
    /// Never waits. If the channel is gone the command changes nothing, and that is logged.
    pub(super) fn send(&self, command: Command) {
        if let Err(mpsc::error::SendError(command)) = self.0.send(command) {
            stale(&command);
        }
    }

    /// Whether the channel is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Says in the log that a settlement came too late.
fn stale(command: &Command) {
    match command {
        Command::Ack { tag } => {
            tracing::warn!(
                tag,
                "an acknowledgement came after its channel had ended: the message comes again"
            );
        }
        Command::Nack { tag, .. } => {
            tracing::debug!(tag, "a refusal came after its channel had ended: the message comes again");
        }
        Command::Cancel { .. } | Command::Get { .. } => {}
    }
}

/// A channel to receive on, before its task starts.
#[derive(Debug)]
pub(super) struct Receiver {
    channel: Channel,
    handle: Handle,
    sender: mpsc::UnboundedSender<Command>,
    inbox: mpsc::UnboundedReceiver<Command>,
}

struct Consume {
    doing: String,
    prefetch: u16,
    arguments: BasicConsumeArguments,
    started: oneshot::Sender<Result<Subscription>>,
}

impl Receiver {
    pub(super) async fn open(handle: Handle) -> Result<Self> {
        handle.link().check()?;
        let channel = handle.open_channel(None).await?;
        let (sender, inbox) = mpsc::unbounded_channel();
        Ok(Self { channel, handle, sender, inbox })
    }

    pub(super) fn ending(&self) -> &Ending {
        self.channel.ending()
    }

    /// Starts the owner and a consumer.
    pub(super) fn consume(
        self,
        doing: String,
        queue: String,
        prefetch: u16,
        exclusive: bool,
        arguments: amqprs::FieldTable,
    ) -> (Settlements, oneshot::Receiver<Result<Subscription>>) {
        let (started, answer) = oneshot::channel();
        // A tag of our own: with the broker's the library would have to hold back what comes before it is known.
        let tag = format!("muslin-{}", uuid::Uuid::new_v4().simple());
        let arguments = BasicConsumeArguments::new(&queue, &tag)
            .manual_ack(true)
            .exclusive(exclusive)
            .arguments(arguments)
            .finish();
        let settlements = self.start(Some(Consume { doing, prefetch, arguments, started }));
        (settlements, answer)
    }

    /// Starts the owner without a consumer, for [`Command::Get`].
    pub(super) fn get(self) -> Settlements {
        self.start(None)
    }

    fn start(self, consume: Option<Consume>) -> Settlements {
        let Self { channel, handle, sender, inbox } = self;
        let owner = Owner {
            link: handle.link().clone(),
            _handle: handle,
            channel,
            settler: Settler::new(),
            own: sender.downgrade(),
        };
        tokio::spawn(owner.run(inbox, consume));
        Settlements(sender)
    }
}

struct Owner {
    link: Link,
    /// Keeps the connection open while deliveries are in hand.
    _handle: Handle,
    channel: Channel,
    settler: Settler,
    /// For the deliveries that are got; weak, so that the owner ends when nobody else can send.
    own: mpsc::WeakUnboundedSender<Command>,
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>, consume: Option<Consume>) {
        let _owner = self.link.owner();
        let ending = self.channel.ending().clone();
        let link = self.link.clone();
        let ended = ending.ended();
        let closing = link.closing();
        tokio::pin!(ended, closing);
        if let Some(consume) = consume {
            self.start_consumer(consume).await;
        }
        loop {
            tokio::select! {
                biased;
                () = &mut ended => break,
                command = inbox.recv() => match command {
                    Some(command) => {
                        self.handle(command).await;
                        for _ in 1..BATCH {
                            let Ok(command) = inbox.try_recv() else { break };
                            self.handle(command).await;
                        }
                        self.send_acks().await;
                    }
                    None => break,
                },
                // After the inbox: what was settled before the close counts.
                () = &mut closing => break,
            }
        }
        // Later settlements are refused and logged by their senders, these here.
        inbox.close();
        while let Ok(command) = inbox.try_recv() {
            self.refuse(command, &ending);
        }
        self.channel.close().await;
    }

    fn refuse(&self, command: Command, ending: &Ending) {
        let why = |doing: &str| match ending.is_ended() {
            true => ending.error(doing),
            false => self.link.closed_error().context(doing),
        };
        stale(&command);
        match command {
            Command::Ack { .. } | Command::Nack { .. } | Command::Cancel { reply: None, .. } => {}
            Command::Cancel { reply: Some(reply), .. } => {
                let _ = reply.send(Err(why("cancelling a consumer")));
            }
            Command::Get { queue, reply } => {
                let _ = reply.send(Err(why(&format!("getting from queue {queue:?}"))));
            }
        }
    }

    async fn start_consumer(&self, consume: Consume) {
        let Consume { doing, prefetch, arguments, started } = consume;
        let start = async {
            let raw = self.channel.raw();
            self.channel.rpc(&doing, raw.basic_qos(BasicQosArguments::new(0, prefetch, false))).await?;
            let (tag, messages) = self.channel.rpc(&doing, raw.basic_consume_rx(arguments)).await?;
            Ok(Subscription { tag, messages })
        };
        // A caller that went away drops the settlements' sender too, which ends this task.
        let _ = started.send(start.await);
    }

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Ack { tag } => self.settler.handle_ack(tag),
            Command::Nack { tag, requeue } => self.nack(tag, requeue).await,
            Command::Cancel { subscription: Subscription { tag, mut messages }, reply } => {
                let doing = "cancelling a consumer";
                let cancel = BasicCancelArguments::new(&tag);
                let done = if self.channel.ending().is_cancelled() {
                    Ok(())
                } else {
                    self.channel.rpc(doing, self.channel.raw().basic_cancel(cancel)).await.map(drop)
                };
                while let Some(tag) = untaken(&mut messages) {
                    self.nack(tag, true).await;
                }
                if let Some(reply) = reply {
                    let _ = reply.send(done);
                }
            }
            Command::Get { queue, reply } => {
                // Acknowledgements first: a loop of get and ack must see its own effect.
                self.send_acks().await;
                let doing = format!("getting from queue {queue:?}");
                let got = self
                    .channel
                    .rpc(&doing, self.channel.raw().basic_get(BasicGetArguments::new(&queue)))
                    .await;
                let got = got.map(|got| {
                    // The one who asked holds a sender.
                    got.and_then(|got| Some(Delivery::got(got, Settlements(self.own.upgrade()?))))
                });
                // Dropped by a caller that went away, a delivery gives itself back.
                let _ = reply.send(got);
            }
        }
    }

    async fn nack(&mut self, tag: u64, requeue: bool) {
        self.send_acks().await;
        self.settler.handle_other(tag);
        let nack = BasicNackArguments::new(tag, false, requeue);
        self.send("a refusal", self.channel.raw().basic_nack(nack)).await;
    }

    async fn send_acks(&mut self) {
        while let Some(ack) = self.settler.poll_ack() {
            let arguments = BasicAckArguments::new(ack.tag, ack.multiple);
            self.send("an acknowledgement", self.channel.raw().basic_ack(arguments)).await;
        }
    }

    /// Hands a frame to the library's writer, which takes it at once unless the socket is stuck.
    async fn send(&self, what: &str, call: impl Future<Output = Result<(), amqprs::error::Error>>) {
        let limit = self.link.settings().operation_timeout;
        match timeout(limit, call).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "{what} could not be sent: the message comes again"),
            Err(_) => self.link.kill(Error::new(
                ErrorKind::Timeout,
                format!(
                    "RabbitMQ at {} took nothing for {limit:?}; the connection is given up",
                    self.link.address()
                ),
            )),
        }
    }
}
