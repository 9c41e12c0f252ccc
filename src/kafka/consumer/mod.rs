//! The consumer: a member of a group or with partitions assigned by hand, every delivery settled on its own.
//!
//! ```text
//! brokers <--fetch-- driver (one task) --> book (pure: partitions, ack trackers) --> next() --> Delivery
//!    ^                                        ^                                                    |
//!    +------commit (watermark, metadata)------+----------------- ack / nack / drop ----------------+
//! ```
//!
//! An offset is committed only when every record below it that was received is settled. What is settled beyond it
//! travels in the commit's metadata, so that a restart repeats little (see
//! [`offset_map`](crate::delivery::offset_map)).

mod book;
mod builder;
mod commit;
mod delivery;
mod driver;
mod group;
mod health;
pub(super) mod isolation;
mod notice;

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::{Instant, Sleep};

pub use builder::{ByHand, ConsumerBuilder, Group};
pub use delivery::{Delivery, Headers};
pub(crate) use group::Identity;
pub use group::{Assignor, GroupProtocol};
pub use notice::{Rebalance, Rebalances};

use self::book::Next;
use self::driver::Shared;
use super::client::lock;
use super::offsets::Place;
use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};

/// Where a partition is read from when the consumer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The group's committed offset; where there is none, as [`Reset`] says. Needs a group.
    Stored,
    /// The first offset that is still there.
    Earliest,
    /// The end: only what comes later.
    Latest,
    /// This offset in every partition.
    Offset(Offset),
    /// The first record at or after this time.
    Timestamp(Timestamp),
}

/// What happens where there is no stored offset, or the offset is no longer in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reset {
    /// Read from the first offset that is still there: nothing is skipped, much may come again.
    #[default]
    Earliest,
    /// Skip to the end: what was written meanwhile is never seen.
    Latest,
    /// Stop the partition with an error; without a stored offset, the consumer does not start.
    Error,
}

/// Which records of transactions are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// All records, those of open and aborted transactions too.
    ReadUncommitted,
    /// Only records of committed transactions, and those outside of any. Reading stops before the first open
    /// transaction.
    #[default]
    ReadCommitted,
}

impl Isolation {
    /// As the wire carries it (KIP-98).
    pub(crate) const fn code(self) -> i8 {
        match self {
            Self::ReadUncommitted => 0,
            Self::ReadCommitted => 1,
        }
    }
}

/// How far a partition was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionPosition {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// The offset of the next record to be handed out for the first time.
    pub position: Offset,
    /// Everything below is settled: what a commit would write.
    pub settled: Offset,
    /// The end of what can be read, as of the last fetch; `None` before the first.
    pub end: Option<Offset>,
}

#[allow(clippy::disallowed_methods, reason = "the fetching task")]
fn spawn(shared: Arc<Shared>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(driver::run(shared))
}

#[allow(clippy::disallowed_methods, reason = "the task of the membership")]
fn spawn_member(shared: Arc<Shared>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(group::driver::run(shared))
}

fn no_stored_offset(group: &str, (topic, partition): &Place) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "group {group} has no committed offset for topic {topic} partition {partition}, and the reset policy is to \
             stop; commit one or choose another policy"
        ),
    )
}

#[allow(clippy::disallowed_methods, reason = "the reader looks for deliveries that are due again")]
fn now() -> Instant {
    Instant::now()
}

/// A consumer. Deliveries come from [`next`](Self::next) or through [`Stream`]; they may be settled in any order, from
/// any task.
///
/// Dropped without [`close`](Self::close), it commits once more in the background what was settled by then.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    sleep: Option<Pin<Box<Sleep>>>,
    driver: Option<tokio::task::JoinHandle<()>>,
    /// The task of the membership.
    member: Option<tokio::task::JoinHandle<()>>,
    /// Listens from the beginning on, until somebody takes it.
    rebalances: Option<Rebalances>,
}

impl Consumer {
    /// The next delivery; waits for one. `None` when every partition has stopped and nothing is in hand.
    ///
    /// An error names what went wrong and where: a damaged batch, an offset out of range, a commit that is refused. It
    /// stops at most the partition that it names; the next call goes on with the others.
    ///
    /// Cancel safe: dropped before it is done, nothing is taken.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        std::future::poll_fn(|cx| self.poll_delivery(cx)).await
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        // Before the look: what changes after it wakes this task.
        self.shared.reader.register(cx.waker());
        loop {
            let (next, freed) = lock(&self.shared.book).poll_next(now().into_std());
            if freed {
                self.shared.work.notify_one();
            }
            match next {
                Next::Record(topic, partition, held) => {
                    let delivery = Delivery::new(topic, partition, held, Arc::clone(&self.shared));
                    return Poll::Ready(Some(Ok(delivery)));
                }
                Next::Fault(e) => return Poll::Ready(Some(Err(e))),
                Next::Ended => return Poll::Ready(None),
                Next::Wait(None) => {
                    self.sleep = None;
                    return Poll::Pending;
                }
                Next::Wait(Some(at)) => {
                    let at = Instant::from_std(at);
                    let sleep = self.sleep.get_or_insert_with(|| sleep_until(at));
                    if sleep.deadline() != at {
                        sleep.as_mut().reset(at);
                    }
                    match sleep.as_mut().poll(cx) {
                        Poll::Ready(()) => self.sleep = None,
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }

    /// Commits what is settled and not committed yet. Without a group it does nothing.
    ///
    /// Cancel safe, though the commit may have been made.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where the group has active members; [`ErrorKind::Denied`]; the coordinator does not answer
    /// within the request timeout.
    pub async fn commit(&self) -> Result<()> {
        self.shared.commit().await
    }

    /// Hands out nothing more, commits what is settled, and ends. What is in hand and not settled comes again to
    /// whoever reads the partition next. To drain, settle what is in hand first.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), for the last commit; [`ErrorKind::Timeout`] at the deadline.
    pub async fn close(mut self, deadline: Duration) -> Result<()> {
        lock(&self.shared.book).close();
        let end = async {
            let committed = self.shared.commit().await;
            self.shared.stop.store(true, Ordering::Release);
            self.shared.work.notify_one();
            if let Some(driver) = self.driver.as_mut() {
                // A panic of the driver was told by the runtime.
                let _ = driver.await;
            }
            if let Some(member) = self.member.as_mut() {
                let _ = member.await;
            }
            committed
        };
        match timeout(deadline, end).await {
            Some(result) => result,
            None => Err(Error::new(
                ErrorKind::Timeout,
                format!("the consumer's last commit was not answered within {deadline:?}"),
            )
            .ambiguous()),
        }
    }

    /// What happens to this consumer's partitions. The first call gives all notices since the consumer was built, a later
    /// one those from then on. A consumer whose partitions are assigned by hand has none.
    pub fn rebalances(&mut self) -> Rebalances {
        self.rebalances.take().unwrap_or_else(|| self.shared.notices.listen())
    }

    /// How far every partition was read, by topic and partition.
    #[must_use]
    pub fn positions(&self) -> Vec<PartitionPosition> {
        lock(&self.shared.book).positions()
    }

    /// How many deliveries are unsettled, those that wait to come again included.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        lock(&self.shared.book).unsettled()
    }

    /// The topics that are read.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        lock(&self.shared.book).topics()
    }
}

#[allow(clippy::disallowed_methods, reason = "the reader waits for deliveries that are due again")]
fn sleep_until(at: Instant) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep_until(at))
}

async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

impl Drop for Consumer {
    fn drop(&mut self) {
        lock(&self.shared.book).close();
        self.shared.stop.store(true, Ordering::Release);
        self.shared.work.notify_one();
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_delivery(cx)
    }
}
