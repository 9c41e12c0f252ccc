#![allow(
    clippy::disallowed_methods,
    reason = "owns a channel: a task, time limits and the time of each publish"
)]
//! Confirmed publishing: a window of unconfirmed messages over one channel in confirm mode.
//!
//! ```text
//! enqueue ─ checks ─ waits for room in the window ─► queue ─► owner ─ numbers it, sends it ─► unconfirmed
//!                                                                                                │
//!                        Ok ◄─ confirm ──────────────────────────────────────────────────────────┤
//!                        Rejected ◄─ return or nack ─────────────────────────────────────────────┤
//!                        Timeout, ambiguous ◄─ no confirm in time (its room stays taken) ────────┤
//!                        the end's reason, ambiguous ◄─ channel or connection ends ──────────────┘
//! ```
//!
//! The owner alone publishes on the channel, so the broker's numbers and [`Confirms`]'s agree. Confirms are settled in
//! the library's callback, without a detour by the owner. When the broker closes the channel (a missing exchange, for
//! one) the owner opens another for the next message.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use amqprs::channel::BasicPublishArguments;
use amqprs::{BasicProperties, Return};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Message;
use super::channel::{Channel, Ending, lock};
use super::confirms::{Confirms, UnknownTag, Verdict};
use super::connection::{Handle, Link};
use super::convert::properties_to_wire;
use super::topology::check_name;
use crate::{Error, ErrorKind, Result};

/// Publishes taken from the queue in one go before the owner looks at anything else.
const BATCH: usize = 64;

/// What tells one publish from another when the broker returns it. Two that are equal in all of it are the same
/// message to their publisher too, so it does not matter which of them a return is taken for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    exchange: String,
    routing_key: String,
    message_id: String,
}

/// The broker's reason for a return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Returned {
    code: u16,
    text: String,
    exchange: String,
    routing_key: String,
}

/// Who waits for a confirm, and the room in the window that the message takes.
#[derive(Debug)]
pub(super) struct Waiter {
    reply: Option<oneshot::Sender<Result<()>>>,
    _room: [OwnedSemaphorePermit; 2],
}

impl Waiter {
    fn settle(&mut self, result: Result<()>) {
        if let Some(reply) = self.reply.take() {
            // Whoever does not wait any more does not want to know.
            let _ = reply.send(result);
        }
    }
}

/// The unconfirmed publishes of one channel, shared by its owner and the library's callback.
pub(super) struct InFlight {
    confirms: Mutex<Confirms<Waiter, Sent, Returned>>,
    /// Told when the last one is settled.
    idle: Notify,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("unconfirmed", &lock(&self.confirms).len()).finish()
    }
}

impl InFlight {
    fn new() -> Self {
        Self { confirms: Mutex::new(Confirms::new()), idle: Notify::new() }
    }

    fn is_empty(&self) -> bool {
        lock(&self.confirms).len() == 0
    }

    pub(super) fn handle_ack(&self, tag: u64, multiple: bool) -> Result<(), UnknownTag> {
        let mut confirms = lock(&self.confirms);
        confirms.handle_ack(tag, multiple, conclude)?;
        self.tell_idle(confirms.len());
        Ok(())
    }

    pub(super) fn handle_nack(&self, tag: u64, multiple: bool) -> Result<(), UnknownTag> {
        let mut confirms = lock(&self.confirms);
        confirms.handle_nack(tag, multiple, conclude)?;
        self.tell_idle(confirms.len());
        Ok(())
    }

    pub(super) fn handle_return(&self, ret: &Return, properties: &BasicProperties) {
        let key = Sent {
            exchange: ret.exchange().clone(),
            routing_key: ret.routing_key().clone(),
            message_id: properties.message_id().cloned().unwrap_or_default(),
        };
        let reason = Returned {
            code: ret.reply_code(),
            text: ret.reply_text().clone(),
            exchange: key.exchange.clone(),
            routing_key: key.routing_key.clone(),
        };
        if !lock(&self.confirms).handle_return(&key, reason) {
            tracing::warn!(?key, "RabbitMQ returned a message that is not in flight");
        }
    }

    fn tell_idle(&self, unconfirmed: usize) {
        if unconfirmed == 0 {
            self.idle.notify_one();
        }
    }

    /// Tells those who waited too long. Their messages keep their room: the broker may still hold them.
    fn expire(&self, now: Instant, limit: Duration) {
        let Some(cutoff) = now.checked_sub(limit) else { return };
        lock(&self.confirms).handle_timeout(cutoff, |waiter| {
            let e = Error::new(
                ErrorKind::Timeout,
                format!("RabbitMQ did not confirm the message within {limit:?}"),
            );
            waiter.settle(Err(e.ambiguous()));
        });
    }

    /// The channel is gone. All that is unconfirmed may be in its queue or not, except a single message that the
    /// broker closed the channel for.
    fn end(&self, ending: &Ending) {
        let mut confirms = lock(&self.confirms);
        let reply = ending.reply();
        let culprit = reply.as_ref().and_then(|reply| exchange_in(&reply.text));
        let blamed = |sent: &Sent| culprit.is_none_or(|name| name == sent.exchange);
        let suspects = confirms.keys().flatten().filter(|sent| blamed(sent)).count();
        for (mut waiter, sent) in confirms.handle_end() {
            let suspect = sent.as_ref().is_none_or(blamed);
            let e = match &reply {
                Some(reply) if suspect && (suspects == 1 || culprit.is_some()) => {
                    let e = reply.to_error("publishing");
                    if suspects == 1 { e } else { e.ambiguous() }
                }
                Some(reply) => Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "RabbitMQ closed the channel for a message near this one: {} {}",
                        reply.code, reply.text
                    ),
                )
                .ambiguous(),
                None => ending.error("waiting for the confirm").ambiguous(),
            };
            waiter.settle(Err(e));
        }
    }
}

fn conclude(mut waiter: Waiter, verdict: Verdict<Returned>) {
    waiter.settle(match verdict {
        Verdict::Confirmed => Ok(()),
        Verdict::Returned(Returned { code, text, exchange, routing_key }) => {
            let whereto = if exchange.is_empty() {
                format!("there is no queue {routing_key:?}")
            } else {
                format!("exchange {exchange:?} has no queue for the routing key {routing_key:?}")
            };
            Err(Error::new(
                ErrorKind::Rejected,
                format!("RabbitMQ returned the message: {code} {text}; {whereto}"),
            ))
        }
        Verdict::Refused => Err(Error::new(
            ErrorKind::Rejected,
            "RabbitMQ refused the message (basic.nack): the queue is full or its leader could not store it",
        )
        .retryable(true)),
    });
}

/// The exchange that the broker's words name, as in `no exchange 'x' in vhost '/'`.
fn exchange_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("exchange '")?;
    rest.split_once("' in vhost").map(|(name, _)| name)
}

struct Command {
    message: Message,
    mandatory: bool,
    sent: Sent,
    waiter: Waiter,
}

/// Publishes with confirms. Cheap to clone; clones share a channel and a window.
///
/// # Memory
/// At most the window: by default 4,096 messages and 32 MiB of bodies that are queued or unconfirmed, and as much
/// again while they wait for the socket. See [`super::ClientBuilder::publish_window`].
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    mandatory: bool,
}

struct Shared {
    link: Link,
    /// Unbounded, and never longer than the window: each entry holds its room.
    queue: mpsc::UnboundedSender<Command>,
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    id_prefix: String,
    next_id: AtomicU64,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("mandatory", &self.mandatory)
            .field("room", &self.shared.messages.available_permits())
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Opens a channel in confirm mode and starts its owner.
    pub(super) async fn open(handle: &Handle) -> Result<Self> {
        let link = handle.link().clone();
        link.check()?;
        let in_flight = Arc::new(InFlight::new());
        let channel = handle.open_channel(Some(Arc::clone(&in_flight))).await?;
        let (queue, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            queue,
            messages: Arc::new(Semaphore::new(link.settings().window_messages)),
            bytes: Arc::new(Semaphore::new(link.settings().window_bytes)),
            id_prefix: uuid::Uuid::new_v4().simple().to_string(),
            next_id: AtomicU64::new(1),
            link,
        });
        let owner = Owner {
            link: shared.link.clone(),
            handle: handle.clone(),
            channel: Some((channel, in_flight)),
            limit: shared.link.settings().operation_timeout,
        };
        tokio::spawn(owner.run(inbox));
        Ok(Self { shared, mandatory: true })
    }

    /// The same publisher with the `mandatory` flag set or not. With it, the default, a message that no queue takes is
    /// an error; without it the broker drops such a message and confirms it.
    #[must_use]
    pub fn mandatory(&self, mandatory: bool) -> Self {
        Self { shared: Arc::clone(&self.shared), mandatory }
    }

    /// Publishes and waits for the confirm: [`Publisher::enqueue`] and the await of what it returns.
    ///
    /// Dropped before it resolves, the message may be sent or not.
    ///
    /// # Errors
    /// As [`Publisher::enqueue`] and [`Queued`].
    pub async fn publish(&self, exchange: &str, routing_key: &str, message: Message) -> Result<()> {
        self.enqueue(exchange, routing_key, message).await?.await
    }

    /// Waits for room in the window and puts the message in order behind those before it. What it returns resolves on
    /// the confirm, so that many can be on their way at once. A message without a message id gets one.
    ///
    /// Cancel safe: dropped before it resolves, nothing is sent.
    ///
    /// # Errors
    /// What is known before the message leaves, never ambiguous: [`ErrorKind::TooLarge`] for a body over
    /// [`super::ClientBuilder::max_message_size`], properties that do not fit a frame, or a name over 255 bytes;
    /// [`ErrorKind::Config`] for a bad expiration; [`ErrorKind::Full`] if the window stays full for the operation
    /// timeout; [`ErrorKind::Disconnected`] or [`ErrorKind::Closed`] if the connection is gone.
    pub async fn enqueue(&self, exchange: &str, routing_key: &str, mut message: Message) -> Result<Queued> {
        let shared = &*self.shared;
        shared.link.check()?;
        self.check(exchange, routing_key, &message)?;
        let message_id = match &message.properties().message_id {
            Some(id) => id.clone(),
            None => {
                let n = shared.next_id.fetch_add(1, Ordering::Relaxed);
                let id = format!("{}-{n:x}", shared.id_prefix);
                message.properties_mut().message_id = Some(id.clone());
                id
            }
        };
        let room = self.room(message.body().len()).await?;
        let (reply, answer) = oneshot::channel();
        let command = Command {
            message,
            mandatory: self.mandatory,
            sent: Sent { exchange: exchange.to_owned(), routing_key: routing_key.to_owned(), message_id },
            waiter: Waiter { reply: Some(reply), _room: room },
        };
        match shared.queue.send(command) {
            Ok(()) => Ok(Queued { answer, link: shared.link.clone() }),
            Err(_) => Err(shared.gone()),
        }
    }

    fn check(&self, exchange: &str, routing_key: &str, message: &Message) -> Result<()> {
        check_name("exchange", exchange)?;
        check_name("routing key", routing_key)?;
        let settings = self.shared.link.settings();
        let size = message.body().len();
        if size > settings.max_message_size {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the message's body has {size} bytes; the limit (max_message_size) is {}",
                    settings.max_message_size
                ),
            ));
        }
        message.properties().check()?;
        let header = message.properties().wire_size();
        let most = self.shared.link.max_payload();
        if header > most {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the message's properties and headers take {header} bytes; RabbitMQ's frame holds {most}"
                ),
            ));
        }
        Ok(())
    }

    /// Room for one message of `size` bytes.
    async fn room(&self, size: usize) -> Result<[OwnedSemaphorePermit; 2]> {
        let settings = self.shared.link.settings();
        // A body larger than the whole window takes all of it.
        let size = u32::try_from(size.min(settings.window_bytes)).unwrap_or(u32::MAX);
        let take = async {
            let message = Arc::clone(&self.shared.messages).acquire_owned().await?;
            let bytes = Arc::clone(&self.shared.bytes).acquire_many_owned(size).await?;
            Ok::<_, tokio::sync::AcquireError>([message, bytes])
        };
        tokio::select! {
            biased;
            taken = timeout(settings.operation_timeout, take) => match taken {
                Ok(Ok(room)) => Ok(room),
                Ok(Err(_)) => Err(self.shared.gone()),
                Err(_) => Err(Error::new(ErrorKind::Full, format!(
                    "the publish window ({} messages, {} bytes) stayed full for {:?}: RabbitMQ confirms nothing",
                    settings.window_messages, settings.window_bytes, settings.operation_timeout
                ))),
            },
            e = self.shared.link.dead() => Err(e),
        }
    }
}

impl Shared {
    fn gone(&self) -> Error {
        self.link.death().unwrap_or_else(|| self.link.closed_error())
    }
}

/// A message on its way; resolves when the broker confirmed it. Dropping it changes nothing about the message.
///
/// # Errors
/// [`ErrorKind::Rejected`] if the broker returned the message (mandatory, and no queue took it) or refused it (a nack;
/// retryable), [`ErrorKind::NotFound`] if the exchange is missing. These are certain. Ambiguous, see
/// [`Error::is_ambiguous`]: [`ErrorKind::Timeout`] without a confirm within the operation timeout,
/// [`ErrorKind::Disconnected`] when the connection was lost first, [`ErrorKind::Unavailable`] when the broker closed the
/// channel for another message.
#[must_use = "whether the broker took the message is known only when this is awaited"]
pub struct Queued {
    answer: oneshot::Receiver<Result<()>>,
    link: Link,
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queued").finish_non_exhaustive()
    }
}

impl Future for Queued {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        // The owner answers all; its runtime may have been shut down under it.
        Poll::Ready(answer.unwrap_or_else(|_| {
            Err(self.link.death().unwrap_or_else(|| self.link.closed_error()).ambiguous())
        }))
    }
}

struct Owner {
    link: Link,
    handle: Handle,
    channel: Option<(Channel, Arc<InFlight>)>,
    limit: Duration,
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let _owner = self.link.owner();
        let link = self.link.clone();
        let dead = link.dead();
        let closing = link.closing();
        tokio::pin!(dead, closing);
        let mut is_closing = false;
        // Set once nothing more can come: when waiting for confirms ends.
        let mut last_call: Option<Instant> = None;
        let mut tick = interval((self.limit / 4).clamp(Duration::from_millis(10), Duration::from_secs(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (ending, in_flight) = match &self.channel {
                Some((channel, in_flight)) => (Some(channel.ending().clone()), Some(Arc::clone(in_flight))),
                None => (None, None),
            };
            if let Some(until) = last_call
                && (in_flight.as_ref().is_none_or(|f| f.is_empty()) || Instant::now() >= until)
            {
                break;
            }
            tokio::select! {
                biased;
                _ = &mut dead => break,
                () = wait_end(ending.as_ref()) => self.end_channel(),
                () = &mut closing, if !is_closing => {
                    is_closing = true;
                    // What is queued is still sent.
                    inbox.close();
                }
                command = inbox.recv(), if last_call.is_none() => match command {
                    Some(command) => {
                        self.publish(command).await;
                        for _ in 1..BATCH {
                            let Ok(command) = inbox.try_recv() else { break };
                            self.publish(command).await;
                        }
                    }
                    None => last_call = Some(Instant::now() + self.limit),
                },
                () = wait_idle(in_flight.as_deref()), if last_call.is_some() => {}
                _ = tick.tick() => if let Some(in_flight) = &in_flight {
                    in_flight.expire(Instant::now(), self.limit);
                },
            }
        }
        self.end_with(&mut inbox).await;
    }

    /// Answers whoever still waits and closes the channel.
    async fn end_with(&mut self, inbox: &mut mpsc::UnboundedReceiver<Command>) {
        inbox.close();
        while let Ok(mut command) = inbox.try_recv() {
            let e = self.link.death().unwrap_or_else(|| self.link.closed_error());
            command.waiter.settle(Err(e.context("the message was not sent")));
        }
        if let Some((channel, in_flight)) = self.channel.take() {
            let ending = channel.ending().clone();
            channel.close().await;
            in_flight.end(&ending);
        }
    }

    fn end_channel(&mut self) {
        if let Some((channel, in_flight)) = self.channel.take() {
            in_flight.end(channel.ending());
        }
    }

    /// Sends one message, on a new channel if the last one ended.
    async fn publish(&mut self, command: Command) {
        let Command { message, mandatory, sent, mut waiter } = command;
        if self.channel.as_ref().is_some_and(|(channel, _)| channel.ending().is_ended()) {
            self.end_channel();
        }
        let (channel, in_flight) = match &self.channel {
            Some(open) => open,
            None => {
                let in_flight = Arc::new(InFlight::new());
                match self.handle.open_channel(Some(Arc::clone(&in_flight))).await {
                    Ok(channel) => self.channel.insert((channel, in_flight)),
                    Err(e) => return waiter.settle(Err(e.context("the message was not sent"))),
                }
            }
        };
        let (body, properties) = message.into_parts();
        let properties = match properties_to_wire(&properties) {
            Ok(properties) => properties,
            Err(e) => return waiter.settle(Err(e)),
        };
        let arguments =
            BasicPublishArguments::new(&sent.exchange, &sent.routing_key).mandatory(mandatory).finish();
        lock(&in_flight.confirms).handle_publish(Instant::now(), Some(sent), waiter);
        let send = channel.raw().basic_publish(properties, Vec::from(body), arguments);
        match timeout(self.limit, send).await {
            Ok(Ok(())) => {}
            // The library's writer is gone; the link will say why.
            Ok(Err(e)) => tracing::debug!(error = %e, "a publish could not be sent"),
            Err(_) => self.link.kill(Error::new(
                ErrorKind::Timeout,
                format!(
                    "RabbitMQ at {} took no message for {:?}; the connection is given up",
                    self.link.address(),
                    self.limit
                ),
            )),
        }
    }
}

async fn wait_end(ending: Option<&Ending>) {
    match ending {
        Some(ending) => ending.ended().await,
        None => std::future::pending().await,
    }
}

async fn wait_idle(in_flight: Option<&InFlight>) {
    match in_flight {
        Some(in_flight) => in_flight.idle.notified().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_at_fault_is_read_from_the_brokers_words() {
        assert_eq!(exchange_in("NOT_FOUND - no exchange 'a.b' in vhost '/'"), Some("a.b"));
        assert_eq!(
            exchange_in("ACCESS_REFUSED - write access to exchange 'x' in vhost '/' refused for user 'u'"),
            Some("x")
        );
        assert_eq!(exchange_in("PRECONDITION_FAILED - message too large"), None);
    }
}
