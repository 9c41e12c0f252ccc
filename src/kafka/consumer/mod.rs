//! The consumer: partitions assigned by hand, every delivery settled on its own.
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
mod delivery;
mod driver;
pub(super) mod isolation;

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

pub use delivery::{Delivery, Headers};

use self::book::{Book, Next, Settings};
use self::driver::Shared;
use super::client::{Client, LONGEST, TOPIC_WAIT, lock};
use super::group::Wanted;
use super::offsets::{At, Place};
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

/// The settings of a [`Consumer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ConsumerBuilder {
    client: Client,
    group: Option<String>,
    topics: Vec<String>,
    partitions: Vec<(String, Partition)>,
    start: Option<StartAt>,
    reset: Reset,
    isolation: Isolation,
    commit_interval: Duration,
    max_in_hand: usize,
    prefetch_bytes: usize,
    max_batch_bytes: usize,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            group: None,
            topics: Vec::new(),
            partitions: Vec::new(),
            start: None,
            reset: Reset::default(),
            isolation: Isolation::default(),
            commit_interval: Duration::from_secs(5),
            max_in_hand: 1000,
            prefetch_bytes: 32 << 20,
            max_batch_bytes: 128 << 20,
        }
    }

    /// The group whose committed offsets are used. The consumer is not its member: two consumers of one group read the
    /// same partitions unless you give them different ones. Without a group nothing is committed.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// All partitions that these topics have at the start. Added to what was named before.
    pub fn topics<T: AsRef<str>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(|t| t.as_ref().to_owned()));
        self
    }

    /// One partition. Added to what was named before.
    pub fn partition(mut self, topic: impl AsRef<str>, partition: impl Into<Partition>) -> Self {
        self.partitions.push((topic.as_ref().to_owned(), partition.into()));
        self
    }

    /// Where to start. Default [`StartAt::Stored`] with a group, otherwise as the [`Reset`] policy says.
    pub fn start(mut self, start: StartAt) -> Self {
        self.start = Some(start);
        self
    }

    /// What to do without a valid offset. Default [`Reset::Earliest`].
    pub fn reset(mut self, reset: Reset) -> Self {
        self.reset = reset;
        self
    }

    /// Which records of transactions are seen. Default [`Isolation::ReadCommitted`].
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How often settled offsets are committed. Default 5 s, at least 1 ms. After a crash, at most what was settled
    /// in this time comes again.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = interval;
        self
    }

    /// How many deliveries may be unsettled at once, those that wait to come again included. Default 1,000, at least
    /// 1. Memory: each keeps the batch alive from which it was read.
    pub fn max_in_hand(mut self, n: usize) -> Self {
        self.max_in_hand = n;
        self
    }

    /// How much may be fetched ahead, in bytes as they are on the wire. Default 32 MiB. Memory: this, and one batch
    /// for each broker more where a batch is larger than its share.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// The largest batch after decompression, in bytes. Default 128 MiB. A larger one stops its partition with
    /// [`ErrorKind::TooLarge`]. Memory: one decompressed batch for each partition that is being read.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.max_batch_bytes = bytes;
        self
    }

    /// Resolves partitions and positions, then starts to fetch in a task of the current runtime. Never creates a topic.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`]: nothing to read was named, a topic's name breaks the rules, `Stored` without a group.
    /// - [`ErrorKind::NotFound`]: a topic (within 2 s) or partition is not there; no offset is stored and the policy is
    ///   [`Reset::Error`].
    /// - [`ErrorKind::Denied`], and errors of the connection.
    pub async fn build(self) -> Result<Consumer> {
        let config = |text: &str| Err(Error::new(ErrorKind::Config, text));
        if self.topics.is_empty() && self.partitions.is_empty() {
            return config("the consumer has nothing to read; name topics or partitions");
        }
        if self.max_in_hand == 0 {
            return config("max_in_hand is 0; it must be at least 1");
        }
        if self.prefetch_bytes == 0 {
            return config("prefetch_bytes is 0; give at least some kilobytes");
        }
        if self.group.as_deref() == Some("") {
            return config("the group's name is empty; give it one, or leave the group out");
        }
        let start = match (self.start, &self.group) {
            (Some(StartAt::Stored), None) => {
                return config("StartAt::Stored needs a group; name one, or start elsewhere");
            }
            (Some(start), _) => Some(start),
            (None, Some(_)) => Some(StartAt::Stored),
            (None, None) => None,
        };
        let places = self.places().await?;
        let starts = self.starts(start, &places).await?;
        let mut book = Book::new(Settings {
            isolation: self.isolation,
            max_in_hand: self.max_in_hand,
            prefetch_bytes: self.prefetch_bytes,
            max_batch_bytes: self.max_batch_bytes,
        });
        for (place, offset, metadata) in starts {
            book.assign(place, offset, metadata.as_deref());
        }
        let shared = Arc::new(Shared {
            client: self.client,
            book: Mutex::new(book),
            reader: AtomicWaker::new(),
            work: Notify::new(),
            stop: false.into(),
            group: self.group,
            reset: self.reset,
            isolation: self.isolation,
            commit_interval: self.commit_interval.clamp(Duration::from_millis(1), LONGEST),
            committing: tokio::sync::Mutex::new(()),
        });
        let driver = spawn(Arc::clone(&shared));
        Ok(Consumer { shared, sleep: None, driver: Some(driver) })
    }

    async fn places(&self) -> Result<Vec<Place>> {
        let mut places: Vec<Place> = Vec::new();
        for name in &self.topics {
            let topic = Topic::new(name)?;
            let count = self.client.inner.topic(&topic, false, TOPIC_WAIT).await?.len();
            places.extend((0i32..).take(count).map(|n| (topic.clone(), Partition(n))));
        }
        for (name, partition) in &self.partitions {
            let topic = Topic::new(name)?;
            let count = self.client.inner.topic(&topic, false, TOPIC_WAIT).await?.len();
            if !usize::try_from(partition.0).is_ok_and(|n| n < count) {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("topic {topic} has no partition {partition}; it has {count} partitions, from 0"),
                ));
            }
            places.push((topic, *partition));
        }
        places.sort();
        places.dedup();
        Ok(places)
    }

    /// Each partition with its first offset and the metadata that was committed beside it.
    async fn starts(
        &self,
        start: Option<StartAt>,
        places: &[Place],
    ) -> Result<Vec<(Place, Offset, Option<String>)>> {
        let inner = &self.client.inner;
        let reset = match self.reset {
            Reset::Earliest | Reset::Error => At::Earliest,
            Reset::Latest => At::Latest,
        };
        let at = match start {
            Some(StartAt::Offset(offset)) => {
                if offset.0 < 0 {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!("start offset {offset} is negative; the first is 0"),
                    ));
                }
                return Ok(places.iter().map(|place| (place.clone(), offset, None)).collect());
            }
            Some(StartAt::Earliest) => At::Earliest,
            Some(StartAt::Latest) => At::Latest,
            Some(StartAt::Timestamp(t)) => At::Timestamp(t),
            Some(StartAt::Stored) | None => reset,
        };
        let mut out = Vec::with_capacity(places.len());
        let mut missing = places.to_vec();
        if let (Some(StartAt::Stored), Some(group)) = (start, &self.group) {
            let mut stored = inner.fetch_committed(group, Wanted::Places(places)).await?;
            missing.retain(|place| match stored.remove(place) {
                Some(committed) => {
                    out.push((place.clone(), committed.offset, Some(committed.metadata)));
                    false
                }
                None => true,
            });
            if let (Reset::Error, Some((topic, partition))) = (self.reset, missing.first()) {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "group {group} has no committed offset for topic {topic} partition {partition}, and the \
                         reset policy is to stop; commit one or choose another policy"
                    ),
                ));
            }
        }
        if !missing.is_empty() {
            let found = inner.list_offsets(missing, at, self.isolation).await?;
            out.extend(found.into_iter().map(|(place, offset)| (place, offset, None)));
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }
}

#[allow(clippy::disallowed_methods, reason = "the fetching task")]
fn spawn(shared: Arc<Shared>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(driver::run(shared))
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
