//! The outcome of a batch, shared by its records.
//!
//! ```text
//!             resolve
//!   waiting ---------> written | failed        read without a lock, for good
//!      |      split
//!      +-------------> two others, each with its part of the records
//! ```

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use super::Placed;
use crate::kafka::client::lock;
use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};

/// Where a batch was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) base_offset: Offset,
    /// The broker's time, where the topic keeps append times.
    pub(crate) append_time: Option<Timestamp>,
}

#[derive(Debug)]
enum Outcome {
    Told(Result<Written>),
    /// The records from `at` on went into `rest`, those before it into `first`.
    Split {
        at: u32,
        first: Arc<Completion>,
        rest: Arc<Completion>,
    },
}

/// What the records of a batch wait on.
#[derive(Debug)]
pub(crate) struct Completion {
    topic: Topic,
    partition: Partition,
    outcome: OnceLock<Outcome>,
    /// One place for each that waits: as many as the batch has records, and those that flush.
    wakers: Mutex<Vec<Waker>>,
}

/// The place of one that waits among the wakers, counted from 1; small, as every record has one.
type Place = Option<NonZeroU32>;

impl Completion {
    pub(crate) fn topic(&self) -> &Topic {
        &self.topic
    }

    /// The outcome of the batch, or where it went on.
    fn poll(&self, place: &mut Place, cx: &Context<'_>) -> Poll<&Outcome> {
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        let mut wakers = lock(&self.wakers);
        // Whoever resolves sets the outcome first and takes the wakers then: seen here, or woken.
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome);
        }
        match place.and_then(|at| wakers.get_mut(at.get() as usize - 1)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                wakers.push(cx.waker().clone());
                *place = u32::try_from(wakers.len()).ok().and_then(NonZeroU32::new);
            }
        }
        Poll::Pending
    }

    fn settle(&self, outcome: Outcome) {
        // A promise resolves once, and it alone gets here.
        let _ = self.outcome.set(outcome);
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The first failure of a batch, all its parts included.
    pub(crate) async fn settled(self: Arc<Self>) -> Result<()> {
        let (mut open, mut told) = (vec![self], Ok(()));
        while let Some(completion) = open.pop() {
            let mut place = None;
            let parts = std::future::poll_fn(|cx| {
                completion.poll(&mut place, cx).map(|outcome| match outcome {
                    Outcome::Told(Ok(_)) => None,
                    Outcome::Told(Err(e)) => {
                        if told.is_ok() {
                            told = Err(e.duplicate());
                        }
                        None
                    }
                    Outcome::Split { first, rest, .. } => Some([Arc::clone(rest), Arc::clone(first)]),
                })
            })
            .await;
            open.extend(parts.into_iter().flatten());
        }
        told
    }
}

/// The side that resolves a [`Completion`]: once, and also when it is dropped.
#[derive(Debug)]
pub(crate) struct Promise {
    completion: Arc<Completion>,
    resolved: bool,
    /// Whether the batch may have been written, should the promise be dropped.
    pub(crate) unsure: bool,
}

impl Promise {
    pub(crate) fn new(topic: Topic, partition: Partition) -> Self {
        let completion = Completion { topic, partition, outcome: OnceLock::new(), wakers: Mutex::default() };
        Self { completion: Arc::new(completion), resolved: false, unsure: false }
    }

    pub(crate) fn completion(&self) -> &Arc<Completion> {
        &self.completion
    }

    /// Tells every record of the batch.
    pub(crate) fn resolve(mut self, outcome: Result<Written>) {
        self.settle(Outcome::Told(outcome));
    }

    /// Two promises in place of this one: for the records before `at`, and for those from there on.
    pub(crate) fn split(mut self, at: u32) -> [Self; 2] {
        let part = || Self::new(self.completion.topic.clone(), self.completion.partition);
        let parts = [part(), part()];
        let [first, rest] = parts.each_ref().map(|p| Arc::clone(&p.completion));
        self.settle(Outcome::Split { at, first, rest });
        parts
    }

    fn settle(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.resolved, true) {
            self.completion.settle(outcome);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.resolved {
            let e = Error::new(
                ErrorKind::Closed,
                "the Kafka producer was stopped before the record was acknowledged",
            );
            self.settle(Outcome::Told(Err(if self.unsure { e.ambiguous() } else { e })));
        }
    }
}

/// The outcome of one record, to be awaited. It resolves exactly once, within the delivery timeout (and the time of
/// one scheduling), also when the producer is closed or its runtime ends.
///
/// It costs no allocation of its own: the records of a batch share one. Cancel safe: dropping it changes nothing, the
/// record is sent all the same.
#[derive(Debug)]
#[must_use = "a record whose outcome is not awaited may fail unseen"]
pub struct Queued {
    completion: Arc<Completion>,
    index: u32,
    timestamp: Timestamp,
    place: Place,
}

impl Queued {
    pub(crate) fn new(completion: Arc<Completion>, index: u32, timestamp: Timestamp) -> Self {
        Self { completion, index, timestamp, place: None }
    }

    /// The topic that the record goes to.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.completion.topic
    }

    /// The partition that was chosen.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.completion.partition
    }
}

impl Future for Queued {
    type Output = Result<Placed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = &mut *self;
            let (index, completion) = match this.completion.poll(&mut this.place, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Outcome::Told(Err(e))) => return Poll::Ready(Err(e.duplicate())),
                Poll::Ready(Outcome::Told(Ok(written))) => {
                    return Poll::Ready(Ok(Placed {
                        partition: this.completion.partition,
                        // A duplicate of long ago is acknowledged without its offset.
                        offset: if written.base_offset.0 < 0 {
                            written.base_offset
                        } else {
                            Offset(written.base_offset.0.saturating_add(i64::from(this.index)))
                        },
                        timestamp: written.append_time.unwrap_or(this.timestamp),
                    }));
                }
                Poll::Ready(Outcome::Split { at, first, rest }) => match this.index.checked_sub(*at) {
                    Some(index) => (index, Arc::clone(rest)),
                    None => (this.index, Arc::clone(first)),
                },
            };
            (this.index, this.completion, this.place) = (index, completion, None);
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tasks that wait")]
mod tests {
    use super::*;

    fn promise() -> Promise {
        Promise::new(Topic::new("t").unwrap(), Partition(4))
    }

    fn queued(promise: &Promise, index: u32) -> Queued {
        Queued::new(Arc::clone(promise.completion()), index, Timestamp(9))
    }

    fn written(base: i64) -> Result<Written> {
        Ok(Written { base_offset: Offset(base), append_time: None })
    }

    #[tokio::test]
    async fn every_record_of_a_batch_gets_its_own_offset() {
        let promise = promise();
        let (a, b) = (queued(&promise, 0), queued(&promise, 1));
        promise.resolve(written(40));
        assert_eq!(a.await.unwrap().offset, Offset(40));
        let b = b.await.unwrap();
        assert_eq!((b.offset, b.partition, b.timestamp), (Offset(41), Partition(4), Timestamp(9)));
    }

    #[tokio::test]
    async fn a_promise_that_is_dropped_tells_whether_it_is_sure() {
        for unsure in [false, true] {
            let mut promise = promise();
            promise.unsure = unsure;
            let waiting = queued(&promise, 0);
            let (outcome, ()) = tokio::join!(waiting, async { drop(promise) });
            let e = outcome.unwrap_err();
            assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Closed, unsure));
        }
    }

    #[tokio::test]
    async fn the_records_of_a_split_batch_follow_their_part_also_while_they_wait() {
        let promise = promise();
        let early: Vec<_> = (0..6).map(|i| tokio::spawn(queued(&promise, i))).collect();
        let flushed = tokio::spawn(Arc::clone(promise.completion()).settled());
        tokio::task::yield_now().await;
        let late = queued(&promise, 4);
        let [first, rest] = promise.split(2);
        tokio::task::yield_now().await;
        let [second, third] = rest.split(3);
        first.resolve(written(10));
        third.resolve(Err(Error::new(ErrorKind::TooLarge, "third")));
        assert!(!flushed.is_finished());
        second.resolve(written(20));
        let mut offsets = Vec::new();
        for record in early {
            offsets.push(record.await.unwrap().map(|placed| placed.offset.0).map_err(|e| e.kind()));
        }
        assert_eq!(offsets, [Ok(10), Ok(11), Ok(20), Ok(21), Ok(22), Err(ErrorKind::TooLarge)]);
        assert_eq!(late.await.unwrap().offset, Offset(22));
        assert_eq!(flushed.await.unwrap().unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[tokio::test]
    async fn those_that_wait_take_a_place_each_however_often_they_look() {
        let promise = promise();
        let mut record = queued(&promise, 0);
        for _ in 0..3 {
            let look = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut record).poll(cx).is_pending()));
            assert!(look.await);
        }
        assert_eq!(lock(&promise.completion().wakers).len(), 1);
    }
}
