//! How far groups are behind: in records, in time, and whether they get anywhere.
//!
//! ```no_run
//! # async fn example(client: muslin::kafka::Client) -> muslin::Result<()> {
//! use std::time::Duration;
//!
//! for p in client.lag().group("billing").once().await?.partitions {
//!     println!("{} {} {}: {:?} records, {:?} ms, {}", p.group, p.topic, p.partition, p.lag, p.lag_ms, p.state.as_str());
//! }
//! let mut watch = client.lag().watch(Duration::from_secs(30))?;
//! loop {
//!     let pass = watch.next().await?;
//!     println!("{} partitions", pass.partitions.len());
//! }
//! # }
//! ```
//!
//! ```text
//! every broker: which groups --> coordinators: what is committed, who is a member --> leaders: the ends --> leaders: the
//!                                (32 groups a request)                                (5,000 partitions)    oldest records
//! ```
//! A pass uses the one connection to each broker that the client has anyway, with at most 16 requests on their way in all.
//! A broker, group or partition that cannot be asked stands in [`LagPass::failures`], and the others are told. What may pass by
//! itself, as a leader that moves, is asked for again for 3 s at each step; a broker that does not answer takes the client's
//! request timeout, its groups and partitions alone.
//!
//! What the figures are:
//! - The commits are read before the ends, so that no lag is negative. A group that commits meanwhile has less than is told.
//! - **Lag in records** is the end less the commit, as Kafka's own tools have it. Offsets are not dense: compaction and the
//!   ends of transactions count although nobody is given them.
//! - **The end** is the high watermark, or with [`Isolation::ReadCommitted`] the last stable offset, up to which readers of
//!   committed records come while a transaction is open.
//! - **Lag in time** is the age of the oldest record that is not committed, by this machine's clock and the record's
//!   timestamp, as its producer or its broker set it. The record is fetched: the first from the commit on that an application
//!   would be given, past what compaction and transactions leave. Where none is left the lag in time is 0. Where the commit
//!   is no longer in the log, it is the first record that is.
//! - **The state** is judged by the looks within a window (`judge` has the rules). One pass alone cannot tell a reader that
//!   moves from one that does not.
//!
//! Memory: a pass holds one entry for each partition of each group, about 150 bytes, with the answers that are being read:
//! for 32 groups their committed offsets, about 100 bytes each; and at most 16 answers of 1 MiB, or of one batch where that
//! is larger, with one batch decompressed. A watch keeps about 250 bytes more for each entry, whatever its window.

mod judge;
mod oldest;
mod pass;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::admin::names;
use super::client::{Client, LONGEST};
use super::consumer::Isolation;
use super::offsets::Place;
use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};
use judge::{Course, Look};
use oldest::Oldest;

/// How a group fares in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LagState {
    /// No record waits, or the reader is at least as fast as its producers.
    KeepsUp,
    /// Records wait, and it is not seen that they become fewer.
    Behind,
    /// Records have waited for a whole window in which nothing was committed.
    Stalled,
    /// Records wait and no member of the group reads them.
    Stopped,
    /// Nothing was committed, and nothing was ever written.
    Empty,
    /// It cannot be told: nothing was committed, or the end is not known, or the commit is beyond it.
    Unknown,
}

impl LagState {
    /// As a lower-case word, for logs and JSON. Stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeepsUp => "keeps_up",
            Self::Behind => "behind",
            Self::Stalled => "stalled",
            Self::Stopped => "stopped",
            Self::Empty => "empty",
            Self::Unknown => "unknown",
        }
    }
}

/// A group's lag in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionLag {
    /// The group.
    pub group: Arc<str>,
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// What the group has committed; `None` where a member has the partition and nothing is committed.
    pub committed: Option<Offset>,
    /// The log's end; `None` where it could not be asked.
    pub end: Option<Offset>,
    /// The end less the commit; 0 where the commit is beyond the end, `None` where one of them is not known.
    pub lag: Option<u64>,
    /// The timestamp of the oldest record that is not committed; `None` where there is none or it is not known.
    pub oldest: Option<Timestamp>,
    /// The age of that record in milliseconds, 0 where no record waits; `None` where it is not known.
    pub lag_ms: Option<u64>,
    /// How the group fares.
    pub state: LagState,
    /// The member that has the partition; `None` for none, or where it is not told.
    pub member: Option<Arc<str>>,
}

/// What one pass over groups found.
#[derive(Debug)]
#[non_exhaustive]
pub struct LagPass {
    /// When it began, by this machine's clock.
    pub at: Timestamp,
    /// By group, topic and partition.
    pub partitions: Vec<PartitionLag>,
    /// What could not be asked; each names its group, partition or broker.
    pub failures: Vec<Error>,
}

/// When a lag is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagAlert {
    /// Above so many records; where no record waits it is none, whatever the offsets say.
    Records(u64),
    /// Above such an age. A waiting record of unknown age is above any.
    Age(Duration),
}

impl LagAlert {
    /// Whether this lag is too much. One that is not known at all is not.
    #[must_use]
    pub fn is_over(self, lag: &PartitionLag) -> bool {
        // Between the commit and the end stand markers alone.
        let drained = lag.lag_ms == Some(0) && lag.oldest.is_none();
        let records = if drained { 0 } else { lag.lag.unwrap_or(0) };
        match self {
            Self::Records(most) => records > most,
            Self::Age(most) => match lag.lag_ms {
                Some(ms) => u128::from(ms) > most.as_millis(),
                None => records > 0,
            },
        }
    }
}

impl LagPass {
    /// Where the lag is too much.
    pub fn over(&self, alert: LagAlert) -> impl Iterator<Item = &PartitionLag> {
        self.partitions.iter().filter(move |lag| alert.is_over(lag))
    }
}

impl Client {
    /// Asks how far groups are behind.
    pub fn lag(&self) -> LagBuilder {
        LagBuilder {
            client: self.clone(),
            groups: Vec::new(),
            isolation: Isolation::ReadUncommitted,
            times: true,
            window: None,
        }
    }
}

/// What is asked of groups' lag.
#[derive(Debug, Clone)]
#[must_use]
pub struct LagBuilder {
    client: Client,
    groups: Vec<String>,
    isolation: Isolation,
    times: bool,
    window: Option<Duration>,
}

impl LagBuilder {
    /// One group. May be called again. Default: all groups of consumers that the user may see.
    pub fn group(self, group: impl AsRef<str>) -> Self {
        self.groups([group])
    }

    /// These groups, added to those named before.
    pub fn groups<G: AsRef<str>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.groups.extend(groups.into_iter().map(|g| g.as_ref().to_owned()));
        self
    }

    /// Which end counts: with [`Isolation::ReadCommitted`] the one that readers of committed records come to. Default
    /// [`Isolation::ReadUncommitted`], as Kafka's own tools.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Whether the lag in time is looked for. Default true. Without it no records are fetched, and what only transaction
    /// markers are left of counts as waiting.
    pub fn times(mut self, times: bool) -> Self {
        self.times = times;
        self
    }

    /// For a watch: the looks by which a state is judged. Default ten times the interval; at least twice the interval. A
    /// stalled consumer shows within two windows.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = Some(window);
        self
    }

    /// One pass over the groups. Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty group name; errors of the connection where no broker can be asked. What could be
    /// asked in part stands in the pass, with [`LagPass::failures`].
    pub async fn once(self) -> Result<LagPass> {
        // A window of one look.
        self.watching(Duration::ZERO, Duration::MAX)?.pass().await
    }

    /// Passes over the groups again and again, this far apart, judged by what was seen within the window.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty group name, an interval of zero, or a window shorter than two intervals.
    pub fn watch(self, interval: Duration) -> Result<LagWatch> {
        let interval = interval.min(LONGEST);
        if interval.is_zero() {
            return Err(Error::new(
                ErrorKind::Config,
                "the interval of the lag's watch is zero; give a time",
            ));
        }
        let window = self.window.unwrap_or(interval.saturating_mul(10)).min(LONGEST);
        if window < interval.saturating_mul(2) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the window of {window:?} holds less than two intervals of {interval:?}"),
            ));
        }
        self.watching(interval, window)
    }

    fn watching(self, interval: Duration, window: Duration) -> Result<LagWatch> {
        let groups = names(&self.groups)?;
        Ok(LagWatch {
            groups: (!groups.is_empty()).then_some(groups),
            client: self.client,
            isolation: self.isolation,
            times: self.times,
            interval,
            window,
            due: None,
            courses: HashMap::new(),
            ages: HashMap::new(),
        })
    }
}

/// Looks at groups' lag again and again.
#[derive(Debug)]
pub struct LagWatch {
    client: Client,
    /// `None` for all.
    groups: Option<Vec<String>>,
    isolation: Isolation,
    times: bool,
    interval: Duration,
    window: Duration,
    due: Option<Instant>,
    courses: HashMap<(Arc<str>, Place), Course>,
    /// The times of the oldest records at the last pass, by the commit before them: a commit that stands costs no fetch.
    ages: HashMap<(Place, Offset), Timestamp>,
}

impl LagWatch {
    /// The next pass: the first at once, the others an interval after the one before began, or at once where that took
    /// longer.
    ///
    /// Cancel safe: dropped while it waits, the next call goes on waiting; dropped in the middle of a pass, the next call
    /// begins it again.
    ///
    /// # Errors
    /// Errors of the connection where no broker can be asked: the next call tries again after the interval, and what was
    /// seen before still counts.
    pub async fn next(&mut self) -> Result<LagPass> {
        if let Some(due) = self.due {
            tokio::time::sleep_until(due).await;
        }
        let began = pass::now();
        let pass = self.pass().await;
        self.due = Some(began + self.interval);
        pass
    }

    async fn pass(&mut self) -> Result<LagPass> {
        let at = self.client.inner.nature.wall();
        let began = pass::now();
        let asked =
            pass::Asked { groups: self.groups.as_deref(), isolation: self.isolation, times: self.times };
        let seen = pass::run(&self.client.inner, &asked, &self.ages).await?;
        let now = began.into_std();
        let wall = self.client.inner.nature.wall();
        let (mut courses, mut ages) = (HashMap::new(), HashMap::new());
        let mut partitions = Vec::with_capacity(seen.partitions.len());
        for s in seen.partitions {
            let key = (Arc::clone(&s.group), s.place);
            let mut course = self.courses.get(&key).copied().unwrap_or_default();
            let drained = s.oldest == Some(Oldest::Nothing);
            let look = Look { committed: s.committed, end: s.end, drained, reader: s.reader };
            let state = course.handle_look(look, now, self.window);
            let (group, place) = key;
            let lag = match (s.committed, s.end) {
                (Some(committed), Some(end)) => {
                    Some(u64::try_from(end.0.saturating_sub(committed.0)).unwrap_or(0))
                }
                _ => None,
            };
            let oldest = match s.oldest {
                Some(Oldest::Record(time)) => time,
                _ => None,
            };
            if let (Some(committed), Some(time)) = (s.committed, oldest) {
                ages.insert((place.clone(), committed), time);
            }
            let lag_ms = match lag {
                Some(0) => Some(0),
                Some(_) if drained => Some(0),
                _ => oldest.map(|time| u64::try_from(wall.0.saturating_sub(time.0)).unwrap_or(0)),
            };
            partitions.push(PartitionLag {
                group: Arc::clone(&group),
                topic: place.0.clone(),
                partition: place.1,
                committed: s.committed,
                end: s.end,
                lag,
                oldest,
                lag_ms,
                state,
                member: s.member,
            });
            courses.insert((group, place), course);
        }
        // Where a group could not be asked, what was seen of it before still counts.
        for (key, course) in self.courses.drain() {
            if seen.unasked.contains(&key.0) || seen.all_unsure {
                courses.entry(key).or_insert(course);
            }
        }
        (self.courses, self.ages) = (courses, ages);
        partitions.sort_by(|a, b| (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition)));
        Ok(LagPass { at, partitions, failures: seen.failures })
    }
}

#[cfg(test)]
mod tests;
