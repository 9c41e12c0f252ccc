//! A group's coordinator, and its committed offsets without being a member.
//!
//! A commit with generation -1 and no member id is taken by the coordinator only while the group has no members
//! (Kafka's "simple consumer"); otherwise the answer is an [`ErrorKind::Conflict`].
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it reads the clock and sleeps")]

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    DeleteGroupsRequest, FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest,
};
use tokio::time::Instant;

use super::client::{Client, Inner, lock, text, topic_name};
use super::consumer::Identity;
use super::errors;
use super::offsets::Place;
use super::wire::{Address, Link};
use crate::{Error, ErrorKind, LeaderEpoch, NodeId, Offset, Partition, Result, Topic};

const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What a group has committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: Offset,
    pub(crate) metadata: String,
}

/// What a coordinator is for, as FindCoordinator numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coordinated {
    Group = 0,
    Transaction = 1,
}

/// What a request to a coordinator came to.
enum Answer<T> {
    Done(T),
    /// Ask who the coordinator is, then again.
    Moved(Error),
}

impl Client {
    /// The committed offsets of a group in a topic; partitions without one are absent. A group that does not exist
    /// has none. Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty group name; [`ErrorKind::Denied`]; the coordinator does not answer within
    /// the request timeout.
    pub async fn committed(&self, group: &str, topic: &Topic) -> Result<BTreeMap<Partition, Offset>> {
        let found = self.inner.fetch_committed(group, Wanted::Topic(topic)).await?;
        Ok(found.into_iter().map(|((_, partition), c)| (partition, c.offset)).collect())
    }

    /// Deletes a group and its committed offsets. Cancel safe, though the group may be gone all the same.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it is not there; [`ErrorKind::Conflict`] while it has members;
    /// [`ErrorKind::Denied`].
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        self.inner
            .with_coordinator(group, async |link| {
                let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
                let answer = link.call(request).await?;
                let code = answer.results.first().map_or(0, |r| r.error_code);
                judge(code, || format!("group {group}"))
                    .map(|moved| moved.map_or(Answer::Done(()), Answer::Moved))
            })
            .await
    }
}

/// Which committed offsets are asked for.
pub(crate) enum Wanted<'a> {
    Topic(&'a Topic),
    Places(&'a [Place]),
}

impl Inner {
    /// Runs a request at the group's coordinator, finding it anew where it moved or its connection broke.
    ///
    /// Only for requests that may run twice.
    async fn with_coordinator<T, F>(&self, group: &str, run: impl Fn(Arc<Link>) -> F) -> Result<T>
    where
        F: Future<Output = Result<Answer<T>>>,
    {
        if group.is_empty() {
            return Err(Error::new(ErrorKind::Config, "the group's name is empty; give it one"));
        }
        let deadline = Instant::now() + self.settings.request_timeout;
        loop {
            let answer = async {
                let node = self.coordinator(group).await?;
                run(self.link(node).await?).await
            };
            let e = match answer.await {
                Ok(Answer::Done(value)) => return Ok(value),
                Ok(Answer::Moved(e)) => e,
                Err(e) if e.is_retryable() => e,
                Err(e) => return Err(e),
            };
            self.forget_coordinator(group);
            if Instant::now() >= deadline {
                return Err(e);
            }
            tracing::debug!(group, error = %e.report(), "asking the group's coordinator again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The group's coordinator, as it is known; asked for where it is not.
    pub(crate) async fn coordinator(&self, group: &str) -> Result<NodeId> {
        if let Some(node) = lock(&self.coordinators).get(group) {
            return Ok(*node);
        }
        let found = self.find_coordinator(Coordinated::Group, group).await?;
        lock(&self.coordinators).insert(group.to_owned(), found);
        Ok(found)
    }

    /// Asks who the coordinator is, any broker that answers.
    pub(crate) async fn find_coordinator(&self, of: Coordinated, name: &str) -> Result<NodeId> {
        let what = match of {
            Coordinated::Group => format!("group {name}"),
            Coordinated::Transaction => format!("transactional id {name}"),
        };
        // A broker that stays silent must not hold up the question for as long as a request may take: often it is the
        // coordinator that was.
        let limit = self.settings.connect_timeout;
        let mut last = None;
        for node in self.brokers_to_ask() {
            let answer = async {
                let link = self.link(node).await?;
                let request = FindCoordinatorRequest::default().with_key(text(name)).with_key_type(of as i8);
                link.call_within(request, limit).await
            };
            let answer = match tokio::time::timeout(limit, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(e)) => {
                    last = Some(e);
                    continue;
                }
                Err(_) => {
                    let e = format!("{what}: broker {node} did not name its coordinator within {limit:?}");
                    last = Some(Error::new(ErrorKind::Timeout, e));
                    continue;
                }
            };
            if answer.error_code != 0 {
                return Err(errors::broker(answer.error_code, format!("{what}: its coordinator")));
            }
            let found = NodeId(answer.node_id.0);
            let Ok(port) = u16::try_from(answer.port) else {
                return Err(Error::new(
                    ErrorKind::Malformed,
                    format!("{what}: its coordinator has the port {}", answer.port),
                ));
            };
            if self.cluster().address(found).is_none() {
                self.cluster().handle_broker(found, Address { host: answer.host.as_str().to_owned(), port });
            }
            return Ok(found);
        }
        // A question does nothing: what it was asked for is not in doubt where its answer is lost.
        Err(match last {
            Some(e) => Error::new(e.kind(), e.report()).retryable(e.is_retryable()),
            None => Error::new(ErrorKind::Unavailable, "no Kafka broker is known"),
        })
    }

    /// The committed offsets of a group; partitions without one are absent.
    pub(crate) async fn fetch_committed(
        &self,
        group: &str,
        wanted: Wanted<'_>,
    ) -> Result<HashMap<Place, Committed>> {
        let mut topics: BTreeMap<&Topic, Vec<i32>> = BTreeMap::new();
        match wanted {
            Wanted::Topic(topic) => {
                let count = self.topic(topic, false, super::client::TOPIC_WAIT).await?.len();
                topics.insert(topic, (0..).take(count).collect());
            }
            Wanted::Places(places) => {
                for (topic, partition) in places {
                    topics.entry(topic).or_default().push(partition.0);
                }
            }
        }
        let topics: Vec<_> = topics
            .into_iter()
            .map(|(t, p)| {
                OffsetFetchRequestTopic::default().with_name(topic_name(t)).with_partition_indexes(p)
            })
            .collect();
        self.with_coordinator(group, |link| {
            let request = OffsetFetchRequest::default()
                .with_group_id(GroupId(text(group)))
                .with_topics(Some(topics.clone()))
                .with_require_stable(true);
            async move {
                let answer = link.call(request).await?;
                if let Some(moved) = judge(answer.error_code, || format!("group {group}"))? {
                    return Ok(Answer::Moved(moved));
                }
                let mut found = HashMap::new();
                for t in answer.topics {
                    let Ok(topic) = Topic::new(t.name.0.as_str()) else { continue };
                    for p in t.partitions {
                        let partition = Partition(p.partition_index);
                        let what = || {
                            format!("group {group}: committed offset of topic {topic} partition {partition}")
                        };
                        if let Some(moved) = judge(p.error_code, what)? {
                            return Ok(Answer::Moved(moved));
                        }
                        if p.committed_offset >= 0 {
                            let metadata = p.metadata.map(|m| m.as_str().to_owned()).unwrap_or_default();
                            let offset = Offset(p.committed_offset);
                            found.insert((topic.clone(), partition), Committed { offset, metadata });
                        }
                    }
                }
                Ok(Answer::Done(found))
            }
        })
        .await
    }

    /// Commits offsets of a group, once: as this member, or without membership. Gives each partition's code; one that the
    /// answer leaves out counts as to be tried again.
    ///
    /// # Errors
    /// The coordinator is not known or did not answer; then it is looked for the next time.
    pub(crate) async fn commit(
        &self,
        group: &str,
        identity: Option<&Identity>,
        entries: &[(Place, Committed)],
    ) -> Result<Vec<i16>> {
        let mut topics: BTreeMap<&Topic, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for ((topic, partition), committed) in entries {
            topics.entry(topic).or_default().push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition.0)
                    .with_committed_offset(committed.offset.0)
                    .with_committed_leader_epoch(LeaderEpoch::UNKNOWN.0)
                    .with_committed_metadata(Some(text(&committed.metadata))),
            );
        }
        let topics = topics
            .into_iter()
            .map(|(t, p)| OffsetCommitRequestTopic::default().with_name(topic_name(t)).with_partitions(p));
        let mut request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_retention_time_ms(-1)
            .with_topics(topics.collect());
        let answer = async {
            let node = self.coordinator(group).await?;
            let link = self.link(node).await?;
            if let Some(identity) = identity {
                request = request
                    .with_generation_id_or_member_epoch(identity.epoch)
                    .with_member_id(text(&identity.member));
                // Versions without a place for it refuse a name.
                if link.version::<OffsetCommitRequest>().is_some_and(|version| version >= 7) {
                    request = request.with_group_instance_id(identity.instance.as_deref().map(text));
                }
            }
            link.call(request).await
        };
        let answer = answer.await.inspect_err(|_| self.forget_coordinator(group))?;
        let mut codes: HashMap<(&str, i32), i16> = HashMap::new();
        for t in &answer.topics {
            codes.extend(t.partitions.iter().map(|p| ((t.name.0.as_str(), p.partition_index), p.error_code)));
        }
        if codes.values().any(|code| errors::wants_coordinator(*code)) {
            self.forget_coordinator(group);
        }
        let code = |(topic, partition): &Place| codes.get(&(topic.as_str(), partition.0)).copied();
        Ok(entries
            .iter()
            .map(|(place, _)| code(place).unwrap_or(errors::COORDINATOR_NOT_AVAILABLE))
            .collect())
    }

    /// Commits offsets of a group without being its member. Tried again for as long as a request may take; the first that
    /// is refused is the error.
    pub(crate) async fn commit_outside(&self, group: &str, entries: &[(Place, Committed)]) -> Result<()> {
        let deadline = Instant::now() + self.settings.request_timeout;
        loop {
            let e = match self.commit(group, None, entries).await {
                Ok(codes) => {
                    let mut again = None;
                    for (((topic, partition), _), code) in entries.iter().zip(codes) {
                        let what = || format!("group {group}: commit of topic {topic} partition {partition}");
                        again = again.or(judge(code, what)?);
                    }
                    match again {
                        None => return Ok(()),
                        Some(e) => e,
                    }
                }
                Err(e) if e.is_retryable() => e,
                Err(e) => return Err(e),
            };
            if Instant::now() >= deadline {
                return Err(e);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The next question for the coordinator is asked of whoever it is then.
    pub(crate) fn forget_coordinator(&self, group: &str) {
        lock(&self.coordinators).remove(group);
    }
}

/// `None` for no error, the error inside where the request is to be repeated.
fn judge(code: i16, what: impl FnOnce() -> String) -> Result<Option<Error>> {
    if code == 0 {
        return Ok(None);
    }
    let e = errors::broker(code, what());
    if errors::wants_coordinator(code) || e.is_retryable() { Ok(Some(e)) } else { Err(e) }
}
