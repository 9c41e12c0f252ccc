//! A channel as its owning task sees it: RPCs with a time limit, and how the channel ended.
//!
//! The library tells what the broker sends on its own accord by a callback. The callback never waits: it settles
//! confirms in place, keeps the reason of an end, and its drop means that the channel is gone.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amqprs::callbacks::ChannelCallback;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, Nack, Return};
use async_trait::async_trait;
use tokio::sync::watch;

use super::confirms::UnknownTag;
use super::connection::{Link, RpcError};
use super::error::Reply;
use super::publisher::InFlight;
use crate::{Error, ErrorKind, Result};

/// What a publisher's channel reports its confirms to.
pub(super) type Confirming = Arc<InFlight>;

/// What is known of a channel's end.
#[derive(Debug, Clone, Default)]
struct Fate {
    /// The broker closed it and said why.
    closed: Option<Reply>,
    /// The broker cancelled its consumer.
    cancelled: bool,
    /// Nothing comes any more.
    ended: bool,
}

/// A view of a channel's end that outlives the channel.
#[derive(Debug, Clone)]
pub(super) struct Ending(watch::Receiver<Fate>, Link);

impl Ending {
    /// Whether the channel is gone.
    pub(super) fn is_ended(&self) -> bool {
        self.0.borrow().ended || self.1.death().is_some()
    }

    /// Waits until the channel is gone. Cancel safe.
    pub(super) async fn ended(&self) {
        let mut fate = self.0.clone();
        tokio::select! {
            // An error means that the callback is gone, and with it the channel.
            _ = fate.wait_for(|fate| fate.ended) => {}
            _ = self.1.dead() => {}
        }
    }

    /// Whether the broker cancelled the channel's consumer.
    pub(super) fn is_cancelled(&self) -> bool {
        self.0.borrow().cancelled
    }

    /// Why the broker closed it, if it did.
    pub(super) fn reply(&self) -> Option<Reply> {
        self.0.borrow().closed.clone()
    }

    /// The error for what was going on when it ended.
    pub(super) fn error(&self, doing: &str) -> Error {
        if let Some(reply) = self.reply() {
            return reply.to_error(doing);
        }
        // A client that closes ends its channels first.
        match self.1.check() {
            Err(e) => e.context(doing),
            Ok(()) => Error::new(
                ErrorKind::Disconnected,
                format!("{doing}: the channel to RabbitMQ at {} ended", self.1.address()),
            ),
        }
    }
}

/// An open channel. Held by one task; closed by its drop.
pub(super) struct Channel {
    raw: amqprs::channel::Channel,
    ending: Ending,
    link: Link,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("id", &self.raw.channel_id()).finish_non_exhaustive()
    }
}

impl Channel {
    /// The library's channel, for a call whose future goes into [`Channel::rpc`].
    pub(super) fn raw(&self) -> &amqprs::channel::Channel {
        &self.raw
    }

    pub(super) fn ending(&self) -> &Ending {
        &self.ending
    }

    /// Runs one call to its end; see [`Link::rpc`]. An error for which the broker closed the channel is the broker's;
    /// the channel is of no use then.
    pub(super) async fn rpc<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, amqprs::error::Error>>,
    ) -> Result<T> {
        match self.link.rpc(doing, call).await {
            Ok(answer) => Ok(answer),
            Err(RpcError::Dead(e)) => Err(e.ambiguous()),
            Err(RpcError::Refused(e)) => match self.ending.reply() {
                // The broker refused the call: it did nothing.
                Some(reply) => Err(reply.to_error(doing)),
                None => Err(self.ending.error(doing).with_source(e).ambiguous()),
            },
        }
    }

    /// Closes it and waits for the broker's answer.
    pub(super) async fn close(self) {
        if !self.ending.is_ended() {
            let _ = self.rpc("closing a channel", self.raw.clone().close()).await;
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.link.channel_dropped();
    }
}

/// The callback of one channel.
pub(super) struct ChannelEvents {
    link: Link,
    fate: watch::Sender<Fate>,
    confirming: Option<Confirming>,
}

impl ChannelEvents {
    /// The callback and the channel that it is for.
    pub(super) fn new(
        link: Link,
        raw: amqprs::channel::Channel,
        confirming: Option<Confirming>,
    ) -> (Self, Channel) {
        let (fate, seen) = watch::channel(Fate::default());
        link.channel_opened();
        let channel = Channel { raw, ending: Ending(seen, link.clone()), link: link.clone() };
        (Self { link, fate, confirming }, channel)
    }

    /// Whether the channel is to be in confirm mode.
    pub(super) fn confirms(&self) -> bool {
        self.confirming.is_some()
    }

    fn out_of_step(&self, e: UnknownTag) {
        self.link.kill(Error::new(
            ErrorKind::Malformed,
            format!(
                "RabbitMQ at {} confirmed publish {} of {}; the connection is given up",
                self.link.address(),
                e.tag,
                e.last
            ),
        ));
    }
}

type Raw = amqprs::channel::Channel;

#[async_trait]
impl ChannelCallback for ChannelEvents {
    async fn close(&mut self, _: &Raw, close: CloseChannel) -> Result<(), amqprs::error::Error> {
        let reply = Reply { code: close.reply_code(), text: close.reply_text().clone() };
        tracing::debug!(code = reply.code, text = reply.text, "RabbitMQ closed a channel");
        self.link.channel_lost();
        self.fate.send_modify(|fate| fate.closed = Some(reply));
        Ok(())
    }

    async fn cancel(&mut self, _: &Raw, cancel: Cancel) -> Result<(), amqprs::error::Error> {
        tracing::debug!(consumer = cancel.consumer_tag().as_str(), "RabbitMQ cancelled a consumer");
        self.fate.send_modify(|fate| fate.cancelled = true);
        Ok(())
    }

    async fn flow(&mut self, _: &Raw, active: bool) -> Result<bool, amqprs::error::Error> {
        // RabbitMQ never asks for it; the answer repeats the demand (AMQP 0-9-1 section 1.5.2.3).
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Raw, ack: Ack) {
        if let Some(confirming) = &self.confirming
            && let Err(e) = confirming.handle_ack(ack.delivery_tag(), ack.mutiple())
        {
            self.out_of_step(e);
        }
    }

    async fn publish_nack(&mut self, _: &Raw, nack: Nack) {
        if let Some(confirming) = &self.confirming
            && let Err(e) = confirming.handle_nack(nack.delivery_tag(), nack.multiple())
        {
            self.out_of_step(e);
        }
    }

    async fn publish_return(&mut self, _: &Raw, ret: Return, properties: BasicProperties, _: Vec<u8>) {
        if let Some(confirming) = &self.confirming {
            confirming.handle_return(&ret, &properties);
        }
    }
}

impl Drop for ChannelEvents {
    fn drop(&mut self) {
        self.fate.send_modify(|fate| fate.ended = true);
    }
}

/// Locks what no holder can leave half-changed: a poisoned lock is as good as another.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
