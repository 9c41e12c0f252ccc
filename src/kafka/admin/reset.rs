//! A group's committed offsets set to others: planned first, then done.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use std::time::Duration;

use super::Admin;
use super::spread::{left_out, named};
use crate::kafka::client::{Client, TOPIC_WAIT};
use crate::kafka::consumer::Isolation;
use crate::kafka::group::Committed;
use crate::kafka::offsets::{At, Place};
use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};

/// Where a group's committed offsets are set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// The first offset that is still in the log: all comes again.
    Earliest,
    /// The end: what waits is skipped.
    Latest,
    /// The first record at or after this time; the end where there is none.
    Timestamp(Timestamp),
    /// The first record that is not older than this, by this machine's clock; the end where there is none.
    Ago(Duration),
    /// So many offsets ahead of what is committed, or behind it where negative; at most to the ends of the log. Offsets are
    /// not dense: it may be fewer records.
    Shift(i64),
    /// This offset in every partition; where it is not in the log, the nearest that is.
    Exact(Offset),
}

/// Which offsets are to be set. Nothing happens before [`OffsetPlan::execute`].
#[derive(Debug, Clone)]
#[must_use]
pub struct OffsetReset {
    client: Client,
    group: String,
    to: ResetTo,
    topics: Vec<Topic>,
    partitions: Vec<Place>,
}

/// One partition of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetMove {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: Partition,
    /// What is committed now; `None` for nothing.
    pub from: Option<Offset>,
    /// What will be.
    pub to: Offset,
}

/// What a reset will do.
#[derive(Debug, Clone)]
pub struct OffsetPlan {
    client: Client,
    group: String,
    moves: Vec<OffsetMove>,
}

impl Admin {
    /// Plans to set a group's committed offsets. It must have no members then: they would go on from where they are and
    /// overwrite what was set.
    ///
    /// ```no_run
    /// # async fn example(client: muslin::kafka::Client) -> muslin::Result<()> {
    /// use muslin::{Topic, kafka::ResetTo};
    ///
    /// let topic = Topic::new("orders")?;
    /// let plan = client.admin().reset_offsets("billing", ResetTo::Earliest).topic(&topic).plan().await?;
    /// for m in plan.moves() {
    ///     println!("{} {}: {:?} -> {}", m.topic, m.partition, m.from, m.to);
    /// }
    /// plan.execute().await?;
    /// # Ok(()) }
    /// ```
    pub fn reset_offsets(&self, group: impl Into<String>, to: ResetTo) -> OffsetReset {
        OffsetReset {
            client: self.client.clone(),
            group: group.into(),
            to,
            topics: Vec::new(),
            partitions: Vec::new(),
        }
    }

    /// Refuses a group that has members. One that is not there has none.
    async fn check_idle(&self, group: &str, what: &str) -> Result<()> {
        let told = match self.describe_group(group).await {
            Ok(told) => told,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.context(what)),
        };
        if !told.is_active() {
            return Ok(());
        }
        let count = match told.members.len() {
            1 => "a member".to_owned(),
            n => format!("{n} members"),
        };
        Err(Error::new(
            ErrorKind::Conflict,
            format!("{what}: the group has {count} (it is {}); stop them first", told.state.as_str()),
        ))
    }
}

impl OffsetReset {
    /// All partitions of this topic. May be called again. Default: what the group has committed.
    pub fn topic(mut self, topic: &Topic) -> Self {
        self.topics.push(topic.clone());
        self
    }

    /// One partition. May be called again.
    pub fn partition(mut self, topic: &Topic, partition: impl Into<Partition>) -> Self {
        self.partitions.push((topic.clone(), partition.into()));
        self
    }

    /// Looks what would be done, and does nothing. Cancel safe.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`] while the group has members.
    /// - [`ErrorKind::NotFound`] where the group has committed nothing and no topic is named, or a topic or partition is not
    ///   there; [`ErrorKind::Config`] for a shift of a partition in which nothing is committed.
    /// - [`ErrorKind::Denied`]; errors of the connection.
    ///
    /// Each names the group, and the partition where it is about one.
    pub async fn plan(self) -> Result<OffsetPlan> {
        let what = format!("reset the offsets of group {}", self.group);
        let admin = self.client.admin();
        admin.check_idle(&self.group, &what).await?;
        let inner = &self.client.inner;
        let patience = inner.settings.request_timeout;
        let named_group = || format_args!("group {}", self.group).to_string();
        let mut commits = inner.commits(vec![self.group.clone()], HashMap::new(), patience).await;
        let (commits, refused) =
            commits.remove(&self.group).unwrap_or_else(|| Err(left_out(named_group())))?;
        let from: BTreeMap<Place, Offset> = commits.into_iter().collect();
        let mut places: BTreeSet<Place> = self.partitions.iter().cloned().collect();
        for topic in &self.topics {
            let count = inner.topic(topic, false, TOPIC_WAIT).await.map_err(|e| e.context(&what))?.len();
            places.extend((0i32..).take(count).map(|n| (topic.clone(), Partition(n))));
        }
        if self.topics.is_empty() && self.partitions.is_empty() {
            // What cannot be seen could not be set either.
            if let Some(e) = refused.into_iter().next() {
                return Err(e.context(&what));
            }
            if from.is_empty() {
                let why = "it has committed nothing; name the topics, or check the group's name";
                return Err(Error::new(ErrorKind::NotFound, format!("{what}: {why}")));
            }
            places.extend(from.keys().cloned());
        }
        let places: Vec<Place> = places.into_iter().collect();
        let list = async |at: At| -> Result<HashMap<Place, Option<Offset>>> {
            let told = inner.list_each(places.clone(), at, Isolation::ReadUncommitted, patience).await;
            told.into_iter()
                .map(|(place, offset)| match offset {
                    Ok(offset) => Ok((place, offset)),
                    Err(e) => Err(e.context(&what)),
                })
                .collect()
        };
        let (starts, ends) = (list(At::Earliest).await?, list(At::Latest).await?);
        let at = match self.to {
            ResetTo::Timestamp(time) => Some(time),
            ResetTo::Ago(age) => {
                let ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                Some(Timestamp(inner.nature.wall().0.saturating_sub(ms).max(0)))
            }
            ResetTo::Earliest | ResetTo::Latest | ResetTo::Shift(_) | ResetTo::Exact(_) => None,
        };
        let by_time = match at {
            Some(time) => list(At::Timestamp(time)).await?,
            None => HashMap::new(),
        };
        let mut moves = Vec::with_capacity(places.len());
        for place in &places {
            let bound = |of: &HashMap<Place, Option<Offset>>| {
                of.get(place).copied().flatten().ok_or_else(|| left_out(named(place)).context(&what))
            };
            let (start, end, from) = (bound(&starts)?, bound(&ends)?, from.get(place).copied());
            let found = by_time.get(place).copied().flatten();
            let to = target(self.to, from, found, start, end).ok_or_else(|| {
                let why = "nothing is committed that could be shifted";
                Error::new(ErrorKind::Config, format!("{what}: {}: {why}", named(place)))
            })?;
            moves.push(OffsetMove { topic: place.0.clone(), partition: place.1, from, to });
        }
        Ok(OffsetPlan { client: self.client.clone(), group: self.group.clone(), moves })
    }
}

/// Where a partition's offset goes, within the log; `None` where there is nothing to shift.
fn target(
    to: ResetTo,
    from: Option<Offset>,
    by_time: Option<Offset>,
    start: Offset,
    end: Offset,
) -> Option<Offset> {
    let wanted = match to {
        ResetTo::Earliest => start,
        ResetTo::Latest => end,
        ResetTo::Timestamp(_) | ResetTo::Ago(_) => by_time.unwrap_or(end),
        ResetTo::Shift(by) => Offset(from?.0.saturating_add(by)),
        ResetTo::Exact(offset) => offset,
    };
    // The end first: a log that was cut back meanwhile may have it before its start.
    Some(wanted.min(end).max(start))
}

impl OffsetPlan {
    /// The group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// What will be set, by topic and partition.
    #[must_use]
    pub fn moves(&self) -> &[OffsetMove] {
        &self.moves
    }

    /// Commits the offsets of the plan. What the group has committed since is overwritten. Metadata beside the offsets goes.
    ///
    /// Cancel safe in so far as the plan can be executed again; offsets may have been set.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where the group has members again; [`ErrorKind::Denied`]; errors of the connection. All
    /// partitions are tried, and the first that is refused is named; others may have been set.
    pub async fn execute(&self) -> Result<()> {
        let what = format!("reset the offsets of group {}", self.group);
        self.client.admin().check_idle(&self.group, &what).await?;
        let entries: Vec<(Place, Committed)> = self
            .moves
            .iter()
            .map(|m| {
                let committed = Committed { offset: m.to, metadata: String::new() };
                ((m.topic.clone(), m.partition), committed)
            })
            .collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.client.inner.commit_outside(&self.group, &entries).await.map_err(|e| e.context(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_lies_within_the_log() {
        let to = |to, from: Option<i64>, time: Option<i64>| {
            target(to, from.map(Offset), time.map(Offset), Offset(10), Offset(20)).map(Offset::get)
        };
        assert_eq!(to(ResetTo::Earliest, Some(15), None), Some(10));
        assert_eq!(to(ResetTo::Latest, None, None), Some(20));
        assert_eq!(to(ResetTo::Timestamp(Timestamp(1)), None, Some(12)), Some(12));
        assert_eq!(to(ResetTo::Ago(Duration::ZERO), None, None), Some(20));
        assert_eq!(to(ResetTo::Shift(-3), Some(15), None), Some(12));
        assert_eq!(to(ResetTo::Shift(-30), Some(15), None), Some(10));
        assert_eq!(to(ResetTo::Shift(i64::MAX), Some(15), None), Some(20));
        assert_eq!(to(ResetTo::Shift(1), None, None), None);
        assert_eq!(to(ResetTo::Exact(Offset(3)), Some(15), None), Some(10));
        assert_eq!(to(ResetTo::Exact(Offset(17)), None, None), Some(17));
    }
}
