//! A batch in the application's hands.
#![allow(clippy::disallowed_methods, reason = "a batch that is given back reads the clock for its backoff")]

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Instant;

use super::Consumer;
use super::book::HeldBatch;
use super::delivery::backoff;
use super::driver::Shared;
use crate::codec::record_batch::{Iter, Record};
use crate::kafka::client::{LONGEST, lock};
use crate::{Error, Offset, Partition, Result, Topic};

/// The records of one partition that were written together, in order, to be settled together or by ranges.
///
/// Records are looked at where they stand: nothing is copied, and nothing is allocated for a record. The batch keeps the
/// memory of one fetched answer alive (of its own records where they were compressed); to keep one record for longer, copy
/// what is wanted of it (`Bytes::copy_from_slice`).
///
/// Dropped without being settled, what is left of it is given back: it comes again in this process after a backoff (100 ms,
/// doubling with each attempt up to 30 s).
#[must_use = "a batch that is dropped comes again"]
pub struct Batch {
    topic: Topic,
    partition: Partition,
    // Taken when it is settled.
    held: Option<Box<HeldBatch>>,
    /// A record that makes no sense was come upon.
    damaged: AtomicBool,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("range", &self.held.as_ref().map(|h| &h.range))
            .finish_non_exhaustive()
    }
}

impl Batch {
    pub(super) fn new(topic: Topic, partition: Partition, held: Box<HeldBatch>, shared: Arc<Shared>) -> Self {
        Self { topic, partition, held: Some(held), damaged: AtomicBool::new(false), shared }
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

    /// How many records are left to be settled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.as_ref().map_or(0, |h| h.count)
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offset of the first record that is left; `None` where none is.
    #[must_use]
    pub fn first_offset(&self) -> Option<Offset> {
        self.held.as_ref().filter(|h| h.count > 0).map(|h| *h.range.start())
    }

    /// The offset of the last record; `None` where none is left.
    #[must_use]
    pub fn last_offset(&self) -> Option<Offset> {
        self.held.as_ref().filter(|h| h.count > 0).map(|h| *h.range.end())
    }

    /// How often this process has handed it out: 1 the first time.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.held.as_ref().map_or(0, |h| h.attempt)
    }

    /// The records that are left, in order.
    ///
    /// An error is a record that makes no sense, though the batch's checksum is right: its writer was wrong. It ends the
    /// records; settle those before it ([`ack_through`](Self::ack_through)), and the partition stops there with this error
    /// when the batch goes.
    pub fn records(&self) -> BatchRecords<'_> {
        let held = self.held.as_deref();
        BatchRecords { records: held.map(|h| h.records.iter()), held, damaged: &self.damaged }
    }

    /// All of it is done. Never waits. After the partition went to another member, or the consumer was closed, it changes
    /// nothing, and the log says so.
    pub fn ack(mut self) {
        if let Some(held) = self.held.take() {
            let range = held.range.clone();
            self.settle(&held, range);
        }
    }

    /// Done up to this offset, which is included; the rest is left in hand.
    pub fn ack_through(&mut self, offset: Offset) {
        let Some(mut held) = self.held.take() else { return };
        let end = offset.min(*held.range.end());
        if end < *held.range.start() {
            self.held = Some(held);
            return;
        }
        let settled = self.settle(&held, *held.range.start()..=end);
        if end == *held.range.end() {
            return;
        }
        held.count = held.count.saturating_sub(settled);
        held.done.retain(|done| *done > end);
        held.range = Offset(end.0 + 1)..=*held.range.end();
        self.held = Some(held);
    }

    /// What is left is not done: it comes again in this process after `delay`. Until then it holds up commits of what is
    /// behind it, and counts as in hand.
    pub fn nack(mut self, delay: Duration) {
        if let Some(held) = self.held.take() {
            self.give_back(held, delay);
        }
    }

    fn settle(&self, held: &HeldBatch, range: std::ops::RangeInclusive<Offset>) -> usize {
        let (settled, released, waits) = {
            let mut book = lock(&self.shared.book);
            (book.ack_batch(held, range), book.is_released(held.part), book.reader_waits())
        };
        self.shared.tell_released(released);
        match settled {
            Some(_) if waits => self.shared.reader.wake(),
            Some(_) => {}
            None => self.tell_stale(held),
        }
        settled.unwrap_or(0)
    }

    fn give_back(&self, held: Box<HeldBatch>, delay: Duration) {
        let part = held.part;
        let due = Instant::now() + delay.min(LONGEST);
        if self.damaged.load(Ordering::Relaxed)
            && let Some(Err(e)) = held.records.iter().find(Result::is_err)
        {
            // To hand it out again would bring the same error again, for ever.
            let e = e.context(format!(
                "topic {} partition {} from offset {}: reading stopped there",
                self.topic,
                self.partition,
                held.range.start()
            ));
            lock(&self.shared.book).handle_damage(&held, e);
            self.shared.reader.wake();
            return;
        }
        let (first, assignment) = (*held.range.start(), held.assignment);
        let (back, released) = {
            let mut book = lock(&self.shared.book);
            (book.give_back_batch(held, due.into_std()), book.is_released(part))
        };
        self.shared.tell_released(released);
        if back {
            self.shared.reader.wake();
        } else {
            tracing::debug!(topic = %self.topic, partition = %self.partition, %first, %assignment,
                "a batch of an assignment that has ended was given back; it changes nothing");
        }
    }

    fn tell_stale(&self, held: &HeldBatch) {
        tracing::debug!(
            topic = %self.topic, partition = %self.partition, first = %held.range.start(), assignment = %held.assignment,
            "a batch of an assignment that has ended was settled; it changes nothing"
        );
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let delay = backoff(held.attempt);
            self.give_back(held, delay);
        }
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Result<Record<'a>>;
    type IntoIter = BatchRecords<'a>;

    fn into_iter(self) -> BatchRecords<'a> {
        self.records()
    }
}

/// The records of a [`Batch`], in order.
#[derive(Debug)]
pub struct BatchRecords<'a> {
    records: Option<Iter<'a>>,
    held: Option<&'a HeldBatch>,
    damaged: &'a AtomicBool,
}

impl<'a> Iterator for BatchRecords<'a> {
    type Item = Result<Record<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let held = self.held?;
        loop {
            match self.records.as_mut()?.next()? {
                Ok(record) if record.offset() < *held.range.start() => {}
                Ok(record) if record.offset() > *held.range.end() => return None,
                Ok(record) if !held.done.is_empty() && held.done.binary_search(&record.offset()).is_ok() => {}
                Ok(record) => return Some(Ok(record)),
                Err(e) => {
                    self.damaged.store(true, Ordering::Relaxed);
                    return Some(Err(e));
                }
            }
        }
    }
}

/// A consumer's partitions read batch by batch, from [`Consumer::batches`].
#[derive(Debug)]
pub struct Batches<'a> {
    pub(super) consumer: &'a mut Consumer,
}

impl Batches<'_> {
    /// The next batch; waits for one. `None` and errors as with [`Consumer::next`]. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Batch, Error>> {
        poll_fn(|cx| self.consumer.poll_batch(cx)).await
    }
}

impl Stream for Batches<'_> {
    type Item = Result<Batch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().consumer.poll_batch(cx)
    }
}
