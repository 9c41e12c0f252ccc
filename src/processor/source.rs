//! Where messages come from: one small trait over both brokers, and a source in memory for tests.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::message::{Header, Message, Origin};
use crate::Result;

/// A stream of deliveries that are settled one by one.
pub trait Source: Send + 'static {
    /// What it hands out.
    type Delivery: Delivery;

    /// The next delivery; `None` once there is none and never will be. An error ends the run, so a source deals itself
    /// with whatever passes. Must be cancel safe: the engine drops the future whenever something else happens.
    fn next(&mut self) -> impl Future<Output = Option<Result<Self::Delivery>>> + Send;

    /// The run is stopping: nothing more will be taken, so nothing more need be fetched, and what was fetched may go
    /// elsewhere. Deliveries in hand are still settled. May be called again. Does nothing unless a source has a use for
    /// it. Never waits.
    fn stop(&mut self) {}

    /// Makes what was settled stick (commits, sends acknowledgements) and ends, within `limit`. By then every delivery
    /// is settled or given back.
    fn close(self, limit: Duration) -> impl Future<Output = Result<()>> + Send;
}

/// A message in hand, to be settled exactly once. Dropped it is given back: it comes again, here or elsewhere.
pub trait Delivery: Send + 'static {
    /// What handlers see. Called once.
    fn message(&self) -> Message;

    /// It is done. Never waits.
    fn ack(self);
}

/// A source in memory, for tests of handlers and of the engine: what is pushed is delivered in order, what is dropped
/// unsettled is not delivered again, and [`Ledger`] tells what became of it.
#[derive(Debug)]
pub struct MemorySource {
    ledger: Ledger,
}

/// The other end of a [`MemorySource`]: pushes items and tells what became of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Message>,
    pushed: u64,
    taken: u64,
    ended: bool,
    acked: Vec<u64>,
    given_back: Vec<u64>,
}

impl MemorySource {
    /// An empty source and its ledger.
    #[must_use]
    pub fn new() -> (Self, Ledger) {
        let ledger = Ledger::default();
        (Self { ledger: ledger.clone() }, ledger)
    }
}

impl Ledger {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts an item at the end; returns its number, from 0.
    pub fn push(&self, key: Option<&str>, value: &str, id: Option<&str>) -> u64 {
        self.push_parts(key.map(|k| k.to_owned().into()), Some(value.to_owned().into()), Vec::new(), id)
    }

    /// Puts an item with all its parts at the end; returns its number.
    pub fn push_parts(
        &self,
        key: Option<Bytes>,
        value: Option<Bytes>,
        headers: Vec<Header>,
        id: Option<&str>,
    ) -> u64 {
        let number = self.with(|s| {
            let number = s.pushed;
            s.pushed += 1;
            let origin = Origin::Memory { number };
            s.waiting.push_back(Message::new(origin, key, value, headers, id.map(str::to_owned)));
            number
        });
        self.shared.changed.notify_one();
        number
    }

    /// No more will be pushed: the source ends once it is empty.
    pub fn end(&self) {
        self.with(|s| s.ended = true);
        self.shared.changed.notify_one();
    }

    /// How many items were taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.with(|s| s.taken)
    }

    /// The numbers of the items that were acknowledged, in that order.
    #[must_use]
    pub fn acked(&self) -> Vec<u64> {
        self.with(|s| s.acked.clone())
    }

    /// The numbers of the items that were dropped unsettled, in that order.
    #[must_use]
    pub fn given_back(&self) -> Vec<u64> {
        self.with(|s| s.given_back.clone())
    }
}

impl Source for MemorySource {
    type Delivery = MemoryDelivery;

    async fn next(&mut self) -> Option<Result<MemoryDelivery>> {
        loop {
            let (message, ended) = self.ledger.with(|s| {
                let message = s.waiting.pop_front();
                s.taken += u64::from(message.is_some());
                (message, s.ended)
            });
            if let Some(message) = message {
                return Some(Ok(MemoryDelivery { message, ledger: self.ledger.clone(), acked: false }));
            }
            if ended {
                return None;
            }
            self.ledger.shared.changed.notified().await;
        }
    }

    async fn close(self, _: Duration) -> Result<()> {
        Ok(())
    }
}

/// An item of a [`MemorySource`].
#[derive(Debug)]
pub struct MemoryDelivery {
    message: Message,
    ledger: Ledger,
    acked: bool,
}

impl MemoryDelivery {
    fn number(&self) -> u64 {
        match self.message.origin() {
            Origin::Memory { number } => *number,
            Origin::Kafka { .. } | Origin::Amqp { .. } => 0,
        }
    }
}

impl Delivery for MemoryDelivery {
    fn message(&self) -> Message {
        self.message.clone()
    }

    fn ack(mut self) {
        self.acked = true;
        let number = self.number();
        self.ledger.with(|s| s.acked.push(number));
    }
}

impl Drop for MemoryDelivery {
    fn drop(&mut self) {
        if !self.acked {
            let number = self.number();
            self.ledger.with(|s| s.given_back.push(number));
        }
    }
}
