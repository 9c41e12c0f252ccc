#![allow(clippy::disallowed_methods, reason = "runs the connection: sockets, tasks and time limits")]
//! One connection and the task that owns it.
//!
//! ```text
//!            connect                  Close, or the last Handle dropped
//!   (none) ──────────► open ─────────────────────────────► closing ──► dead(Closed)
//!                       │                                     │
//!                       │ server's close, socket lost,        │ no answer in time
//!                       │ heartbeats missed, an RPC timed out │
//!                       └──────────────► dead(why) ◄──────────┘
//! ```
//!
//! `dead` is final and its reason is kept: every waiter sees it through [`Link::dead`]. The signal that the library's
//! reader has ended, for whatever reason and even by a panic, is that it drops the connection callback; its
//! `is_open()` is no proof of life.
//!
//! The task opens every channel itself, because a cancelled `open_channel` makes the library panic. It counts the
//! channels that the broker closed, because the library never uses their numbers again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::security::SecurityCredentials;
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Url;
use super::channel::{Channel, ChannelEvents, Confirming};
use super::error::Reply;
use super::frames::MAX_FRAME;
use super::probe::{dial, probe};
use super::relay::{Relay, Verdict};
use crate::{Error, ErrorKind, Result};

/// How long a close of a connection that is already given up may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Channel numbers that are kept back when the limit is checked, for channels that are still closing.
const SPARE_CHANNELS: u32 = 16;
/// The smallest frame limit that a broker may set (AMQP 0-9-1 section 4.2.3).
const MIN_FRAME: u32 = 4096;

/// Checked settings.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) url: Url,
    pub(super) heartbeat: u16,
    pub(super) connect_timeout: Duration,
    pub(super) operation_timeout: Duration,
    pub(super) name: Option<String>,
    pub(super) max_message_size: usize,
    pub(super) window_messages: usize,
    pub(super) window_bytes: usize,
}

/// The state of a connection, shared by all that works over it. Does not keep it open.
#[derive(Debug, Clone)]
pub(super) struct Link(Arc<LinkState>);

#[derive(Debug)]
struct LinkState {
    settings: Settings,
    address: String,
    frame_max: u32,
    dead: watch::Sender<Option<Arc<Error>>>,
    closing: watch::Sender<bool>,
    /// Each task that owns a channel holds a receiver until it has ended.
    owners: watch::Sender<()>,
    /// Channels that hold a number now.
    channels: AtomicU32,
    /// Channels that the broker closed; their numbers are lost.
    lost_channels: AtomicU32,
}

impl Link {
    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// `host:port`, for messages.
    pub(super) fn address(&self) -> &str {
        &self.0.address
    }

    /// The largest payload of a frame: the broker's limit less header and end byte.
    pub(super) fn max_payload(&self) -> usize {
        (self.0.frame_max as usize).saturating_sub(8)
    }

    /// Ends the link for `why`; only the first reason counts.
    pub(super) fn kill(&self, why: Error) {
        self.0.dead.send_if_modified(|dead| {
            let first = dead.is_none();
            if first {
                *dead = Some(Arc::new(why));
            }
            first
        });
    }

    /// Why it is dead, if it is.
    pub(super) fn death(&self) -> Option<Error> {
        self.0.dead.borrow().as_ref().map(|e| e.duplicate())
    }

    /// `Ok` while it is not known to be dead or closing.
    pub(super) fn check(&self) -> Result<()> {
        match self.death() {
            Some(e) => Err(e),
            None if *self.0.closing.borrow() => Err(self.closed_error()),
            None => Ok(()),
        }
    }

    /// Waits for its end. Cancel safe.
    pub(super) async fn dead(&self) -> Error {
        let mut dead = self.0.dead.subscribe();
        match dead.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(e)) => e.duplicate(),
            // The sender lives in `self`.
            Ok(None) | Err(_) => self.lost_error(),
        }
    }

    /// Waits until the client wants to close. Cancel safe.
    pub(super) async fn closing(&self) {
        let mut closing = self.0.closing.subscribe();
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// A token that the close of the client waits for.
    pub(super) fn owner(&self) -> watch::Receiver<()> {
        self.0.owners.subscribe()
    }

    pub(super) fn closed_error(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("the connection to RabbitMQ at {} was closed", self.address()))
    }

    fn lost_error(&self) -> Error {
        Error::new(
            ErrorKind::Disconnected,
            format!("the connection to RabbitMQ at {} was lost", self.address()),
        )
    }

    pub(super) fn channel_opened(&self) {
        self.0.channels.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn channel_dropped(&self) {
        self.0.channels.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn channel_lost(&self) {
        self.0.lost_channels.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs one RPC of the library to its end. On the time limit the connection is given up, because the answer may
    /// still come and nobody would be there to take it.
    ///
    /// Must be awaited in a task that nobody cancels. Whether the call may have had an effect is for the caller to say.
    pub(super) async fn rpc<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, amqprs::error::Error>>,
    ) -> Result<T, RpcError> {
        let limit = self.settings().operation_timeout;
        tokio::select! {
            biased;
            answer = timeout(limit, call) => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(e)) => Err(RpcError::Refused(e)),
                Err(_) => {
                    let e = Error::new(ErrorKind::Timeout, format!(
                        "{doing}: RabbitMQ at {} did not answer within {limit:?}; the connection is given up",
                        self.address()
                    ));
                    self.kill(e.duplicate());
                    Err(RpcError::Dead(e))
                }
            },
            e = self.dead() => Err(RpcError::Dead(e.context(doing))),
        }
    }
}

/// How an RPC failed.
pub(super) enum RpcError {
    /// The library's error: the channel or the connection ended meanwhile.
    Refused(amqprs::error::Error),
    /// The connection is gone.
    Dead(Error),
}

/// What the connection's task can be asked for.
enum Command {
    Open { confirming: Option<Confirming>, reply: oneshot::Sender<Result<Channel>> },
    Close { reply: oneshot::Sender<Result<()>> },
}

/// Keeps the connection open; it closes when the last handle is dropped.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    link: Link,
    commands: mpsc::Sender<Command>,
}

impl Handle {
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Opens a channel, in confirm mode if `confirming` is given. Cancel safe: an unwanted channel is closed again.
    pub(super) async fn open_channel(&self, confirming: Option<Confirming>) -> Result<Channel> {
        self.ask(|reply| Command::Open { confirming, reply }).await
    }

    /// Lets all owners finish, then closes. Cancel safe: the close goes on.
    pub(super) async fn close(&self) -> Result<()> {
        if let Some(e) = self.link.death() {
            return if e.kind() == ErrorKind::Closed { Ok(()) } else { Err(e) };
        }
        self.link.0.closing.send_replace(true);
        match self.ask(|reply| Command::Close { reply }).await {
            Err(e) if e.kind() == ErrorKind::Closed => Ok(()),
            other => other,
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).await.is_err() {
            return Err(self.link.dead().await);
        }
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(self.link.dead().await),
        }
    }
}

/// Tells the link what the broker says about the connection. Its drop means that the library's reader has ended.
struct ConnectionEvents {
    link: Link,
    verdict: Verdict,
}

#[async_trait]
impl amqprs::callbacks::ConnectionCallback for ConnectionEvents {
    async fn close(&mut self, _: &Connection, close: amqprs::Close) -> Result<(), amqprs::error::Error> {
        let reply = Reply { code: close.reply_code(), text: close.reply_text().clone() };
        let doing = format!("the connection to RabbitMQ at {} was closed", self.link.address());
        self.link.kill(reply.to_error(&doing));
        Ok(())
    }

    async fn blocked(&mut self, _: &Connection, reason: String) {
        tracing::warn!(address = self.link.address(), reason, "RabbitMQ blocks publishing");
    }

    async fn unblocked(&mut self, _: &Connection) {
        tracing::info!(address = self.link.address(), "RabbitMQ takes publishes again");
    }

    async fn secret_updated(&mut self, _: &Connection) {}
}

impl Drop for ConnectionEvents {
    fn drop(&mut self) {
        self.link.kill(self.verdict.get().unwrap_or_else(|| self.link.lost_error()));
    }
}

/// Connects and starts the owning task.
///
/// # Errors
/// As [`super::ClientBuilder::connect`].
pub(super) async fn connect(settings: Settings) -> Result<Handle> {
    let url = settings.url.clone();
    let address = url.address();
    let (connection, relay) = match timeout(settings.connect_timeout, open(&settings)).await {
        Ok(opened) => opened?,
        Err(_) => {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "no AMQP connection to {address} within {:?} (connect_timeout); check that the address is right and \
                     that a firewall lets it through",
                    settings.connect_timeout
                ),
            ));
        }
    };
    let give_up = |e: Error| {
        tokio::spawn(timeout(LAST_WORDS, connection.clone().close()));
        Err(e)
    };
    if connection.heartbeat() < 2 {
        return give_up(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{address} asks for a heartbeat of {} s; at least 2 s are needed",
                connection.heartbeat()
            ),
        ));
    }
    if !(MIN_FRAME..=MAX_FRAME as u32).contains(&connection.frame_max()) {
        return give_up(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{address} sets a frame limit of {} bytes; expected {MIN_FRAME} to {MAX_FRAME}",
                connection.frame_max()
            ),
        ));
    }
    let link = Link(Arc::new(LinkState {
        settings,
        address,
        frame_max: connection.frame_max(),
        dead: watch::channel(None).0,
        closing: watch::channel(false).0,
        owners: watch::channel(()).0,
        channels: AtomicU32::new(0),
        lost_channels: AtomicU32::new(0),
    }));
    if let Err(e) = connection
        .register_callback(ConnectionEvents { link: link.clone(), verdict: relay.verdict().clone() })
        .await
    {
        return give_up(link.lost_error().with_source(e));
    }
    // The bound only holds callers back: each waits for its answer.
    let (commands, inbox) = mpsc::channel(16);
    tokio::spawn(run(link.clone(), connection, relay, inbox));
    Ok(Handle { link, commands })
}

/// The handshake, through a relay.
async fn open(settings: &Settings) -> Result<(Connection, Relay)> {
    let url = &settings.url;
    let relay = Relay::start(dial(url).await?, url.address()).await?;
    let mut arguments = OpenConnectionArguments::default();
    arguments
        .host("127.0.0.1")
        .port(relay.port())
        .virtual_host(url.vhost())
        .credentials(SecurityCredentials::new_plain(url.user(), url.password()))
        .heartbeat(settings.heartbeat);
    let name = settings.name.clone().unwrap_or_else(|| format!("muslin-{}", uuid::Uuid::new_v4().simple()));
    arguments.connection_name(&name);
    // In a task of its own, for the case that a strange peer makes the library panic all the same.
    let mut opening = Abort(tokio::spawn(async move { Connection::open(&arguments).await }));
    let failure = match (&mut opening.0).await {
        Ok(Ok(connection)) => return Ok((connection, relay)),
        Ok(Err(e)) => e,
        Err(_) => {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!("{} answers AMQP's handshake with something else", url.address()),
            ));
        }
    };
    if let Some(e) = relay.verdict().get() {
        return Err(e);
    }
    if let Some(reply) = Reply::find(&failure.to_string()) {
        return Err(reply.to_error(&format!("opening virtual host {:?} at {}", url.vhost(), url.address())));
    }
    probe(url).await?;
    Err(Error::new(ErrorKind::Connect, format!("the AMQP handshake with {} failed", url.address()))
        .with_source(failure))
}

/// A task that does not outlive its waiter.
struct Abort<T>(JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The owning task.
async fn run(link: Link, connection: Connection, relay: Relay, mut inbox: mpsc::Receiver<Command>) {
    // The library's own signals come by the callback; this is for the case that they do not.
    let mut check = interval(Duration::from_secs(u64::from(connection.heartbeat().max(2))));
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = link.dead() => break,
            command = inbox.recv() => match command {
                Some(Command::Open { confirming, reply }) => {
                    let channel = open_channel(&link, &connection, confirming).await;
                    // A caller that went away drops the channel, which closes it.
                    let _ = reply.send(channel);
                }
                Some(Command::Close { reply }) => {
                    let _ = reply.send(shut(&link, connection.clone()).await);
                    break;
                }
                None => {
                    let _ = shut(&link, connection.clone()).await;
                    break;
                }
            },
            _ = check.tick() => if !connection.is_open() {
                link.kill(link.lost_error());
            },
        }
    }
    // For a connection that is given up while the socket still stands; at once if it does not.
    let _ = timeout(LAST_WORDS, connection.close()).await;
    // What is left of the library's tasks ends with its socket.
    drop(relay);
}

/// Waits for the channels' owners, then closes.
async fn shut(link: &Link, connection: Connection) -> Result<()> {
    link.0.closing.send_replace(true);
    let limit = link.settings().operation_timeout;
    let patient = async {
        link.0.owners.closed().await;
        connection.close().await
    };
    let closed = timeout(limit, patient).await;
    let result = match closed {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(link.death().unwrap_or_else(|| link.lost_error().with_source(e))),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            format!("RabbitMQ at {} did not answer the close within {limit:?}", link.address()),
        )),
    };
    link.kill(link.closed_error());
    result
}

async fn open_channel(
    link: &Link,
    connection: &Connection,
    confirming: Option<Confirming>,
) -> Result<Channel> {
    let lost = link.0.lost_channels.load(Ordering::Relaxed);
    let open = link.0.channels.load(Ordering::Relaxed);
    let most = match connection.channel_max() {
        0 => u32::from(u16::MAX),
        most => u32::from(most),
    };
    if lost + open + SPARE_CHANNELS > most {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "the connection to {} has used up its {most} channels ({lost} of them closed by RabbitMQ after an \
                 error): close the client and connect again",
                link.address()
            ),
        ));
    }
    let failed = |e: RpcError| match e {
        RpcError::Dead(e) => e,
        RpcError::Refused(e) => {
            link.death().unwrap_or_else(|| link.lost_error().with_source(e)).context("opening a channel")
        }
    };
    let raw = link.rpc("opening a channel", connection.open_channel(None)).await.map_err(failed)?;
    let (events, channel) = ChannelEvents::new(link.clone(), raw.clone(), confirming);
    let confirm = events.confirms();
    raw.register_callback(events).await.map_err(|e| failed(RpcError::Refused(e)))?;
    if confirm {
        link.rpc("asking for confirms", raw.confirm_select(Default::default())).await.map_err(failed)?;
    }
    Ok(channel)
}
