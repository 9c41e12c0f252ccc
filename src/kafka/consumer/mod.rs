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

mod batch;
mod book;
mod builder;
mod commit;
mod delivery;
mod driver;
mod fetch;
mod group;
mod health;
pub(super) mod isolation;
mod notice;
mod session;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::{Instant, Sleep};

pub use batch::{Batch, BatchRecords, Batches};
pub use builder::{ByHand, ConsumerBuilder, Group};
pub use delivery::Delivery;
pub(crate) use group::Identity;
#[cfg(fuzzing)]
#[doc(hidden)]
pub use group::fuzzing;
pub use group::{Assignor, GroupProtocol};
pub use health::{Ailment, Complaint, Health};
pub use notice::{Rebalance, Rebalances};

use self::book::{Book, Next, Opened};
use self::driver::Shared;
use super::client::lock;
use super::offsets::{At, Place};
use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};

/// The reader looks at the clock once in so many records.
const LOOKS: u8 = 16;
/// A batch of this many bytes on the wire and more is decompressed on a thread for that.
const LARGE: usize = 256 << 10;

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
///
/// A log that was cut back under what was read (an unclean election, KIP-320) is read on from where it parted, with a
/// warning; only [`Reset::Error`] stops there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reset {
    /// Read from the first offset that is still there: nothing is skipped, much may come again.
    #[default]
    Earliest,
    /// Skip to the end: what was written meanwhile is never seen.
    Latest,
    /// Read from the first record at or after this time; from the end where there is none.
    Timestamp(Timestamp),
    /// Read what was written in the last so long (KIP-1106), by the client's time of day.
    Duration(Duration),
    /// Stop the partition with an error; without a stored offset, the consumer does not start.
    Error,
}

impl Reset {
    /// Where to look, at this time of day; `None`: nowhere, it is an error.
    pub(crate) fn at(self, now: Timestamp) -> Option<At> {
        match self {
            Self::Earliest => Some(At::Earliest),
            Self::Latest => Some(At::Latest),
            Self::Timestamp(time) => Some(At::Timestamp(time)),
            Self::Duration(ago) => {
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Some(At::Timestamp(Timestamp(now.0.saturating_sub(ago).max(0))))
            }
            Self::Error => None,
        }
    }
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

fn not_assigned((topic, partition): &Place) -> Error {
    let e = format!("topic {topic} partition {partition} is not assigned to this consumer");
    Error::new(ErrorKind::NotFound, e)
}

#[allow(clippy::disallowed_methods, reason = "large batches are decompressed off the reactor")]
fn spawn_blocking(open: impl FnOnce() -> Opened + Send + 'static) -> tokio::task::JoinHandle<Opened> {
    tokio::task::spawn_blocking(open)
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
    /// The time as it was, and how many looks ago, modulo [`LOOKS`].
    now: std::time::Instant,
    looks: u8,
    driver: Option<tokio::task::JoinHandle<()>>,
    /// The task of the membership.
    member: Option<tokio::task::JoinHandle<()>>,
    /// A large batch that is being decompressed off the reactor.
    opening: Option<tokio::task::JoinHandle<Opened>>,
    /// Listens from the beginning on, until somebody takes it.
    rebalances: Option<Rebalances>,
}

impl Consumer {
    fn new(
        shared: Arc<Shared>,
        driver: tokio::task::JoinHandle<()>,
        member: Option<tokio::task::JoinHandle<()>>,
        rebalances: Option<Rebalances>,
    ) -> Self {
        let now = now().into_std();
        let driver = Some(driver);
        Self { shared, sleep: None, now, looks: 0, driver, member, opening: None, rebalances }
    }

    /// The next delivery; waits for one. `None` when every partition has stopped and nothing is in hand.
    ///
    /// An error names what went wrong and where: a damaged batch, an offset out of range, a commit that is refused. It
    /// stops at most the partition that it names; the next call goes on with the others.
    ///
    /// Cancel safe: dropped before it is done, nothing is taken.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        std::future::poll_fn(|cx| self.poll_delivery(cx)).await
    }

    /// The partitions read batch by batch: the cheapest way. A consumer is read in one of the two ways: what was given back
    /// by one comes again by the same one alone.
    pub fn batches(&mut self) -> Batches<'_> {
        Batches { consumer: self }
    }

    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        let next = ready!(self.poll_book(cx, Book::poll_next));
        Poll::Ready(match next {
            Next::Record(topic, partition, held) => {
                Some(Ok(Delivery::new(topic, partition, held, Arc::clone(&self.shared))))
            }
            Next::Fault(e) => Some(Err(e)),
            _ => None,
        })
    }

    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Batch>>> {
        let next = ready!(self.poll_book(cx, Book::poll_next_batch));
        Poll::Ready(match next {
            Next::Batch(topic, partition, held) => {
                Some(Ok(Batch::new(topic, partition, held, Arc::clone(&self.shared))))
            }
            Next::Fault(e) => Some(Err(e)),
            _ => None,
        })
    }

    fn poll_book(
        &mut self,
        cx: &mut Context<'_>,
        look: fn(&mut Book, std::time::Instant) -> (Next, bool),
    ) -> Poll<Next> {
        let mut registered = false;
        loop {
            if let Some(opening) = &mut self.opening {
                let opened = ready!(Pin::new(opening).poll(cx));
                self.opening = None;
                // A task that was not run, as the runtime ends, leaves the batch as it is.
                if let Ok(opened) = opened {
                    lock(&self.shared.book).handle_opened(opened);
                }
            }
            let (next, freed) = {
                let mut book = lock(&self.shared.book);
                if book.wants_time() && (self.looks == 0 || registered) {
                    self.now = now().into_std();
                }
                self.looks = (self.looks + 1) % LOOKS;
                look(&mut book, self.now)
            };
            if freed {
                self.shared.work.notify_one();
            }
            if matches!(next, Next::Wait(_)) && !registered {
                // What changes after this wakes the task; what changed before it is seen by another look.
                self.shared.reader.register(cx.waker());
                registered = true;
                continue;
            }
            match next {
                Next::Open(compressed) => {
                    let limit = self.shared.max_batch_bytes;
                    if compressed.stored() < LARGE || self.shared.client.inner.nature.is_seeded() {
                        let opened = compressed.open(limit);
                        lock(&self.shared.book).handle_opened(opened);
                    } else {
                        self.opening = Some(spawn_blocking(move || compressed.open(limit)));
                    }
                }
                Next::Wait(None) => {
                    self.sleep = None;
                    self.looks = 0;
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
                        Poll::Pending => {
                            self.looks = 0;
                            return Poll::Pending;
                        }
                    }
                }
                next => return Poll::Ready(next),
            }
        }
    }

    /// Hands out nothing more of these partitions, and fetches nothing of them, until they are [resumed](Self::resume). What
    /// is in hand stays so, and what was fetched before is kept. A partition that goes and comes again is not paused any more.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for one that is not assigned to this consumer; the others are paused.
    pub fn pause<'p>(&self, partitions: impl IntoIterator<Item = (&'p Topic, Partition)>) -> Result<()> {
        self.set_paused(partitions, true)
    }

    /// Goes on with paused partitions.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for one that is not assigned to this consumer; the others go on.
    pub fn resume<'p>(&self, partitions: impl IntoIterator<Item = (&'p Topic, Partition)>) -> Result<()> {
        self.set_paused(partitions, false)
    }

    fn set_paused<'p>(
        &self,
        partitions: impl IntoIterator<Item = (&'p Topic, Partition)>,
        paused: bool,
    ) -> Result<()> {
        let places: Vec<Place> = partitions.into_iter().map(|(t, p)| (t.clone(), p)).collect();
        let unknown = lock(&self.shared.book).pause(&places, paused);
        self.shared.reader.wake();
        self.shared.work.notify_one();
        match unknown.first() {
            None => Ok(()),
            Some(place) => Err(not_assigned(place)),
        }
    }

    /// The partitions that are paused.
    #[must_use]
    pub fn paused(&self) -> Vec<(Topic, Partition)> {
        lock(&self.shared.book).paused()
    }

    /// Reads a partition from this offset on. What is in hand of it is stale: to settle it changes nothing. The next commit
    /// is of the new place, also where that is further back. It starts a partition anew that was stopped by an error.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it is not assigned to this consumer; [`ErrorKind::Config`] for a negative offset. An
    /// offset that is not in the log is found out by the next fetch: then the reset policy holds.
    pub fn seek(&self, topic: &Topic, partition: Partition, offset: Offset) -> Result<()> {
        if offset.0 < 0 {
            let e =
                format!("topic {topic} partition {partition}: offset {offset} is negative; the first is 0");
            return Err(Error::new(ErrorKind::Config, e));
        }
        let place = (topic.clone(), partition);
        let known = lock(&self.shared.book).seek(&place, offset);
        self.shared.reader.wake();
        self.shared.work.notify_one();
        if known { Ok(()) } else { Err(not_assigned(&place)) }
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

    /// What is wrong with this consumer, and since when: no place in the group, a coordinator or a leader that does not
    /// answer, a partition that stopped, a partition with records on which nothing moves. It looks at what is known, and
    /// asks no broker; what it knows is as old as the last fetch, half a second on a quiet topic.
    #[must_use]
    pub fn health(&self) -> Health {
        let now = now();
        let mut complaints = Vec::new();
        let mut add = |ailment, since: Instant| {
            complaints.push(Complaint { ailment, lasting: now.saturating_duration_since(since) });
        };
        if let Some(member) = &self.shared.member {
            let (standing, since) = *lock(&member.standing);
            match standing {
                group::Standing::Ended => add(Ailment::Ended, since),
                group::Standing::Out => add(Ailment::NotInGroup, since),
                group::Standing::Changing | group::Standing::In => {}
            }
        }
        if let Some((since, e)) = self.shared.trouble.get() {
            add(Ailment::Coordinator(e), since);
        }
        for (ailment, since) in lock(&self.shared.book).ailments() {
            add(ailment, since.map_or(now, Instant::from_std));
        }
        complaints.sort_by_key(|c| std::cmp::Reverse(c.lasting));
        Health { complaints }
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
