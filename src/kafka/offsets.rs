//! Offsets of partitions: the first, the end, by time.
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it reads the clock and sleeps")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};
use tokio::time::Instant;

use super::admin::spread::{certain, judge_leader, left_out, named};
use super::client::{Client, Inner, TOPIC_WAIT, topic_name};
use super::consumer::Isolation;
use super::errors;
use super::wire::Link;
use crate::{Error, ErrorKind, NodeId, Offset, Partition, Result, Timestamp, Topic};

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The first that is still in the log.
    Earliest,
    /// The end: the offset that the next record will get.
    Latest,
    /// The first record at or after this time; the end where there is none.
    Timestamp(Timestamp),
}

/// A partition with its topic.
pub(crate) type Place = (Topic, Partition);

/// How many partitions one request names.
const TOGETHER: usize = 5000;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Client {
    /// The offsets of all partitions of a topic, asked of their leaders. Never creates the topic. Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the topic is not there; [`ErrorKind::Denied`]; [`ErrorKind::Timeout`] or
    /// [`ErrorKind::Unavailable`] where a leader does not answer within the request timeout.
    pub async fn offsets(&self, topic: &Topic, at: At) -> Result<BTreeMap<Partition, Offset>> {
        let count = self.inner.topic(topic, false, TOPIC_WAIT).await?.len();
        let places = (0i32..).take(count).map(|n| (topic.clone(), Partition(n))).collect();
        let found = self.inner.list_offsets(places, at, Isolation::ReadUncommitted).await?;
        Ok(found.into_iter().map(|((_, partition), offset)| (partition, offset)).collect())
    }
}

impl Inner {
    /// The offsets of these partitions. With [`Isolation::ReadCommitted`] the end is the last stable offset.
    pub(crate) async fn list_offsets(
        &self,
        places: Vec<Place>,
        at: At,
        isolation: Isolation,
    ) -> Result<HashMap<Place, Offset>> {
        let (mut found, late) = self.list_offsets_raw(places, at, isolation).await?;
        if !late.is_empty() {
            // No record that late: the end, so that what comes next is read.
            let (ends, _) = Box::pin(self.list_offsets_raw(late, At::Latest, isolation)).await?;
            found.extend(ends);
        }
        Ok(found)
    }

    /// The offsets of these partitions, each with an outcome of its own: that one is not there does not hold up the others.
    /// `None` where no record is at or after the timestamp.
    pub(crate) async fn list_each(
        &self,
        places: Vec<Place>,
        at: At,
        isolation: Isolation,
        patience: Duration,
    ) -> Vec<(Place, Result<Option<Offset>>)> {
        let asked = places.into_iter().map(|place| (place, ())).collect();
        let list = |link, asked| list(link, asked, at, isolation);
        let told = self.at_leaders(asked, TOGETHER, patience, list).await;
        told.into_iter().map(|(place, (), offset)| (place, offset.map_err(certain))).collect()
    }

    /// The offsets found, and the partitions that have none for the timestamp.
    async fn list_offsets_raw(
        &self,
        mut left: Vec<Place>,
        at: At,
        isolation: Isolation,
    ) -> Result<(HashMap<Place, Offset>, Vec<Place>)> {
        let deadline = Instant::now() + self.settings.request_timeout;
        let mut found = HashMap::new();
        let mut none = Vec::new();
        let mut last: Option<Error> = None;
        while !left.is_empty() {
            let mut by_leader: BTreeMap<NodeId, Vec<Place>> = BTreeMap::new();
            let mut again = Vec::new();
            for place in left {
                match self.cluster().leader(&place.0, place.1) {
                    Some(node) => by_leader.entry(node).or_default().push(place),
                    None => again.push(place),
                }
            }
            for (node, places) in by_leader {
                let answer = async {
                    let link = self.link(node).await?;
                    link.call(request(&places, at, isolation)).await
                };
                let answer = match answer.await {
                    Ok(answer) => answer,
                    Err(e) if e.is_retryable() => {
                        last = Some(e);
                        again.extend(places);
                        continue;
                    }
                    Err(e) => return Err(e),
                };
                let mut told: HashMap<Place, (i16, i64)> = HashMap::new();
                for t in answer.topics {
                    let Ok(topic) = Topic::new(t.name.0.as_str()) else { continue };
                    for p in t.partitions {
                        told.insert((topic.clone(), Partition(p.partition_index)), (p.error_code, p.offset));
                    }
                }
                for place in places {
                    match told.get(&place) {
                        Some((0, offset)) if *offset >= 0 => {
                            found.insert(place, Offset(*offset));
                        }
                        Some((0, _)) => none.push(place),
                        Some((code, _)) => {
                            let e = errors::broker(*code, format!("topic {} partition {}", place.0, place.1));
                            if !(e.is_retryable() || errors::wants_refresh(*code)) {
                                return Err(e);
                            }
                            last = Some(e);
                            again.push(place);
                        }
                        None => again.push(place),
                    }
                }
            }
            left = again;
            if let Some((topic, partition)) = left.first() {
                if Instant::now() >= deadline {
                    return Err(last.unwrap_or_else(|| {
                        Error::new(
                            ErrorKind::Unavailable,
                            format!("topic {topic} partition {partition} has no leader that answers"),
                        )
                    }));
                }
                tokio::time::sleep(RETRY_PAUSE).await;
                let mut topics: Vec<Topic> = left.iter().map(|(topic, _)| topic.clone()).collect();
                topics.sort();
                topics.dedup();
                if let Err(e) = self.refresh(&topics, false).await {
                    last = Some(e);
                }
            }
        }
        Ok((found, none))
    }
}

/// One request, its answer by partition.
async fn list(
    link: Arc<Link>,
    asked: Vec<(Place, ())>,
    at: At,
    isolation: Isolation,
) -> Result<Vec<(Place, (), Result<Option<Offset>>)>> {
    let places: Vec<Place> = asked.into_iter().map(|(place, ())| place).collect();
    let answer = link.call(request(&places, at, isolation)).await?;
    let mut told: HashMap<Place, (i16, i64)> = HashMap::with_capacity(places.len());
    let mut topics = Interned::default();
    for t in answer.topics {
        let Some(topic) = topics.get(t.name.0.as_str()) else { continue };
        for p in t.partitions {
            told.insert((topic.clone(), Partition(p.partition_index)), (p.error_code, p.offset));
        }
    }
    let outcome = |place: Place| {
        let read = match told.get(&place) {
            None => Err(left_out(named(&place)).retryable(true)),
            Some((code, offset)) => {
                judge_leader(*code, || named(&place)).map(|()| (*offset >= 0).then_some(Offset(*offset)))
            }
        };
        (place, (), read)
    };
    Ok(places.into_iter().map(outcome).collect())
}

/// Topics by name: thousands of partitions share the text.
#[derive(Debug, Default)]
pub(crate) struct Interned(HashSet<Topic>);

impl Interned {
    /// The topic of this name; `None` for a name that is none.
    pub(crate) fn get(&mut self, name: &str) -> Option<Topic> {
        if let Some(known) = self.0.get(name) {
            return Some(known.clone());
        }
        let topic = Topic::new(name).ok()?;
        self.0.insert(topic.clone());
        Some(topic)
    }
}

fn request(places: &[Place], at: At, isolation: Isolation) -> ListOffsetsRequest {
    // KIP-79: -1 asks for the end, -2 for the first.
    let timestamp = match at {
        At::Earliest => -2,
        At::Latest => -1,
        At::Timestamp(t) => t.0.max(0),
    };
    let mut topics: BTreeMap<&Topic, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (topic, partition) in places {
        topics.entry(topic).or_default().push(
            ListOffsetsPartition::default()
                .with_partition_index(partition.0)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp),
        );
    }
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation.code())
        .with_topics(
            topics
                .into_iter()
                .map(|(t, p)| ListOffsetsTopic::default().with_name(topic_name(t)).with_partitions(p))
                .collect(),
        )
}
