//! The outcome of a batch, shared by its records.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
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
struct State {
    outcome: Option<Result<Written>>,
    wakers: Vec<Waker>,
}

/// What the records of a batch wait on.
#[derive(Debug)]
pub(crate) struct Completion {
    topic: Topic,
    partition: Partition,
    state: Mutex<State>,
}

impl Completion {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Written>> {
        let mut state = lock(&self.state);
        match &state.outcome {
            Some(Ok(written)) => Poll::Ready(Ok(*written)),
            Some(Err(e)) => Poll::Ready(Err(e.duplicate())),
            None => {
                // One waker for each task: the records of a batch are mostly awaited by one.
                if !state.wakers.iter().any(|w| w.will_wake(cx.waker())) {
                    state.wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// The outcome, for those that wait for a batch as a whole.
    pub(crate) async fn wait(&self) -> Result<Written> {
        std::future::poll_fn(|cx| self.poll(cx)).await
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
        let state = Mutex::new(State { outcome: None, wakers: Vec::new() });
        let completion = Arc::new(Completion { topic, partition, state });
        Self { completion, resolved: false, unsure: false }
    }

    pub(crate) fn completion(&self) -> &Arc<Completion> {
        &self.completion
    }

    /// Tells every record of the batch.
    pub(crate) fn resolve(mut self, outcome: Result<Written>) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Result<Written>) {
        if std::mem::replace(&mut self.resolved, true) {
            return;
        }
        let wakers = {
            let mut state = lock(&self.completion.state);
            state.outcome = Some(outcome);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.resolved {
            let e = Error::new(
                ErrorKind::Closed,
                "the Kafka producer was stopped before the record was acknowledged",
            );
            self.tell(Err(if self.unsure { e.ambiguous() } else { e }));
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
    pub(crate) completion: Arc<Completion>,
    pub(crate) index: u32,
    pub(crate) timestamp: Timestamp,
}

impl Queued {
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.completion.poll(cx).map_ok(|written| Placed {
            topic: self.completion.topic.clone(),
            partition: self.completion.partition,
            // A duplicate of long ago is acknowledged without its offset.
            offset: if written.base_offset.0 < 0 {
                written.base_offset
            } else {
                Offset(written.base_offset.0.saturating_add(i64::from(self.index)))
            },
            timestamp: written.append_time.unwrap_or(self.timestamp),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_record_of_a_batch_gets_its_own_offset() {
        let promise = Promise::new(Topic::new("t").unwrap(), Partition(4));
        let queued =
            |index| Queued { completion: Arc::clone(promise.completion()), index, timestamp: Timestamp(9) };
        let (a, b) = (queued(0), queued(1));
        promise.resolve(Ok(Written { base_offset: Offset(40), append_time: None }));
        assert_eq!(a.await.unwrap().offset, Offset(40));
        let b = b.await.unwrap();
        assert_eq!((b.offset, b.partition, b.timestamp), (Offset(41), Partition(4), Timestamp(9)));
    }

    #[tokio::test]
    async fn a_promise_that_is_dropped_tells_whether_it_is_sure() {
        for unsure in [false, true] {
            let mut promise = Promise::new(Topic::new("t").unwrap(), Partition(0));
            promise.unsure = unsure;
            let waiting =
                Queued { completion: Arc::clone(promise.completion()), index: 0, timestamp: Timestamp(0) };
            let (outcome, ()) = tokio::join!(waiting, async { drop(promise) });
            let e = outcome.unwrap_err();
            assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Closed, unsure));
        }
    }
}
