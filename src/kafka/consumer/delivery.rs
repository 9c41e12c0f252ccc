//! A record in the application's hands.
#![allow(
    clippy::disallowed_methods,
    reason = "a delivery that is given back reads the clock for its backoff"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::book::Held;
use super::driver::Shared;
use crate::codec::record_batch::{Headers, SharedRecord};
use crate::delivery::Outcome;
use crate::kafka::client::{LONGEST, lock};
use crate::{Offset, Partition, Timestamp, Topic};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A record in hand, to be settled once: [`ack`](Self::ack) or [`nack`](Self::nack).
///
/// Dropped without either, it is given back: it comes again in this process after a backoff (100 ms, doubling with
/// each attempt up to 30 s), and nothing behind it is committed over it. Key, value and header values share the memory
/// of the fetched batch, which lives as long as one of them does.
#[derive(Debug)]
#[must_use = "a delivery that is dropped comes again"]
pub struct Delivery {
    topic: Topic,
    partition: Partition,
    // Taken when it is settled.
    held: Option<Held>,
    shared: Arc<Shared>,
}

static NOTHING: SharedRecord = SharedRecord::NOTHING;

impl Delivery {
    pub(crate) fn new(topic: Topic, partition: Partition, held: Held, shared: Arc<Shared>) -> Self {
        Self { topic, partition, held: Some(held), shared }
    }

    #[inline]
    fn content(&self) -> &SharedRecord {
        self.held.as_ref().map_or(&NOTHING, |held| &held.content)
    }

    /// The topic it was read from.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The partition it was read from.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.content().offset()
    }

    /// Its timestamp: the writer's, or the broker's where the topic keeps append times.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.content().timestamp()
    }

    /// Its key; `None` is a null key, which is not the same as an empty one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.content().key()
    }

    /// [`key`](Self::key) as a handle on the batch's memory, without a copy.
    #[must_use]
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.content().key_bytes()
    }

    /// Its value; `None` is a null value (a tombstone in a compacted topic).
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.content().value()
    }

    /// [`value`](Self::value) as a handle on the batch's memory, without a copy.
    #[must_use]
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.content().value_bytes()
    }

    /// Its headers in order, duplicates kept. Names that are no UTF-8 are shown with replacement characters.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        self.content().headers()
    }

    /// How often this process has handed it out: 1 the first time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.held.as_ref().map_or(0, |held| held.attempt)
    }

    /// Done: it counts as settled, and is committed once everything before it is. Never waits. After the consumer was
    /// closed it changes nothing, and the log says so.
    pub fn ack(mut self) {
        let Some(held) = self.held.take() else { return };
        let (outcome, released, waits) = {
            let mut book = lock(&self.shared.book);
            let outcome = book.ack(held.part, held.receipt);
            (outcome, book.is_released(held.part), book.reader_waits())
        };
        self.shared.tell_released(released);
        match outcome {
            Outcome::Done if waits => self.shared.reader.wake(),
            Outcome::Done => {}
            outcome => self.tell_stale(outcome, held.content.offset()),
        }
    }

    /// Not done: it comes again in this process after `delay`. Until then it holds up commits of what is behind it,
    /// and counts as in hand.
    pub fn nack(mut self, delay: Duration) {
        if let Some(held) = self.held.take() {
            self.give_back(held, delay);
        }
    }

    fn give_back(&self, held: Held, delay: Duration) {
        let offset = held.content.offset();
        let due = Instant::now() + delay.min(LONGEST);
        let part = held.part;
        let (outcome, released) = {
            let mut book = lock(&self.shared.book);
            (book.give_back(held, due.into_std()), book.is_released(part))
        };
        self.shared.tell_released(released);
        match outcome {
            Outcome::Done => self.shared.reader.wake(),
            outcome => self.tell_stale(outcome, offset),
        }
    }

    fn tell_stale(&self, outcome: Outcome, offset: Offset) {
        tracing::debug!(
            topic = %self.topic, partition = %self.partition, %offset, ?outcome,
            "a delivery of an assignment that has ended was settled; it changes nothing"
        );
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let delay = backoff(held.attempt);
            self.give_back(held, delay);
        }
    }
}

/// How long until what was dropped comes again.
pub(super) fn backoff(attempt: u32) -> Duration {
    let exponent = attempt.saturating_sub(1).min(16);
    BACKOFF_MIN.saturating_mul(1 << exponent).min(BACKOFF_MAX)
}
