//! Groups: listed, described, deleted; committed offsets deleted.
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it reads the clock and sleeps")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest,
    OffsetDeleteRequest,
};
use tokio::time::Instant;

use super::Admin;
use super::group::{GroupDescription, GroupKind, GroupState, ListedGroup};
use super::spread::{bounded, certain, judge, left_out};
use crate::kafka::client::{Inner, lock, text, topic_name};
use crate::kafka::group::Coordinated;
use crate::{Error, ErrorKind, NodeId, Partition, Result, Topic};

/// How many groups one request describes. Each brings all its members.
const GROUPS: usize = 32;
/// What a string's length in a request can say.
const LONGEST_NAME: usize = 32_767;
const PAUSE: Duration = Duration::from_millis(100);
const GROUP_ID_NOT_FOUND: i16 = 69;

impl Admin {
    /// How long what passes by itself is asked for again.
    fn patience(&self) -> Duration {
        self.client.inner.settings.request_timeout
    }

    /// All groups that the user may see, by name: asked of every broker, which each list those that they coordinate.
    ///
    /// Memory: all of them at once, about 150 bytes each.
    ///
    /// # Errors
    /// Errors of the connection to any one of the brokers: without its groups the list would not be all.
    pub async fn groups(&self) -> Result<Vec<ListedGroup>> {
        let (groups, failed) = self.client.inner.list_groups(self.patience()).await?;
        match failed.into_iter().next() {
            Some(e) => Err(e),
            None => Ok(groups),
        }
    }

    /// A group's state and members, of either protocol.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it is not there; [`ErrorKind::Denied`] without the right Describe on the group; errors
    /// of the connection.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        let mut told = self.describe_groups([group]).await?;
        told.pop().unwrap_or_else(|| Err(left_out(format_args!("group {group}"))))
    }

    /// Several groups, in the order in which they were named; one that cannot be described does not hold up the others. One
    /// request for each 32 of a coordinator.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty name. In the list: as [`describe_group`](Self::describe_group).
    pub async fn describe_groups<G: AsRef<str>>(
        &self,
        groups: impl IntoIterator<Item = G>,
    ) -> Result<Vec<Result<GroupDescription>>> {
        let names = names(groups)?;
        let mut told =
            self.client.inner.describe_groups(names.clone(), HashMap::new(), self.patience()).await;
        let told =
            |name: &String| told.remove(name).unwrap_or_else(|| Err(left_out(format_args!("group {name}"))));
        Ok(names.iter().map(told).collect())
    }
}

impl Admin {
    /// Deletes a group and its committed offsets.
    ///
    /// # Errors
    /// As in the list of [`delete_groups`](Self::delete_groups).
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let mut done = self.delete_groups([group]).await?;
        done.pop().unwrap_or_else(|| Err(left_out(format_args!("group {group}"))))
    }

    /// Deletes groups and their committed offsets, one request for each 32 of a coordinator; the outcomes in the order in
    /// which they were named. One that cannot be deleted does not hold up the others.
    ///
    /// A deletion whose answer was lost is asked for again, until the request timeout; that the group is not there then is
    /// its success.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty name. In the list: [`ErrorKind::NotFound`] where a group is not there;
    /// [`ErrorKind::Conflict`] while it has members; [`ErrorKind::Denied`] without the right Delete on it; errors of the
    /// connection: [`Error::is_ambiguous`] tells whether it may have been deleted.
    pub async fn delete_groups<G: AsRef<str>>(
        &self,
        groups: impl IntoIterator<Item = G>,
    ) -> Result<Vec<Result<()>>> {
        let names = names(groups)?;
        let asked: Mutex<HashSet<String>> = Mutex::default();
        let inner = &self.client.inner;
        let mut done = inner
            .at_coordinators(
                Coordinated::Group,
                names.clone(),
                HashMap::new(),
                GROUPS,
                self.patience(),
                |link, names| {
                    let asked = &asked;
                    async move {
                        // Those whose last answer did not come.
                        let lost: HashSet<String> = {
                            let mut asked = lock(asked);
                            names.iter().filter(|name| !asked.insert((*name).clone())).cloned().collect()
                        };
                        let ids = names.iter().map(|name| GroupId(text(name))).collect();
                        let answer = link.call(DeleteGroupsRequest::default().with_groups_names(ids)).await?;
                        let mut asked = lock(asked);
                        let read = answer.results.iter().map(|result| {
                            let name = result.group_id.0.as_str().to_owned();
                            asked.remove(&name);
                            let done = match result.error_code {
                                GROUP_ID_NOT_FOUND if lost.contains(&name) => Ok(()),
                                code => judge(code, || format!("delete group {name}")),
                            };
                            (name, done)
                        });
                        Ok(read.collect())
                    }
                },
            )
            .await;
        let done = |name: &String| {
            done.remove(name)
                .unwrap_or_else(|| Err(left_out(format_args!("group {name}")).ambiguous()))
                .map_err(|e| if e.message().contains(name.as_str()) { e } else { e.context(name) })
        };
        Ok(names.iter().map(done).collect())
    }

    /// Deletes what a group has committed for these partitions (KIP-496, Kafka 2.4). Where nothing is committed, nothing
    /// happens.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while members of the group read the topic; [`ErrorKind::NotFound`] where the group or the
    /// topic is not there; [`ErrorKind::Denied`]; errors of the connection: [`Error::is_ambiguous`] tells whether they may
    /// have been deleted. All are tried, and the first that is refused is named.
    pub async fn delete_offsets(&self, group: &str, partitions: &[(Topic, Partition)]) -> Result<()> {
        let mut topics: BTreeMap<&Topic, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for (topic, partition) in partitions {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(partition.0);
            topics.entry(topic).or_default().push(partition);
        }
        if topics.is_empty() {
            return Ok(());
        }
        let topics = topics.into_iter().map(|(topic, partitions)| {
            OffsetDeleteRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
        });
        let request =
            OffsetDeleteRequest::default().with_group_id(GroupId(text(group))).with_topics(topics.collect());
        let what = format!("delete offsets of group {group}");
        let mut done = self
            .client
            .inner
            .at_coordinators(
                Coordinated::Group,
                names([group])?,
                HashMap::new(),
                1,
                self.patience(),
                |link, names| {
                    let (request, what) = (request.clone(), &what);
                    async move {
                        let answer = link.call(request).await?;
                        let mut done = judge(answer.error_code, || what.clone());
                        for t in &answer.topics {
                            for p in t.partitions.iter().filter(|_| answer.error_code == 0) {
                                let (topic, n) = (t.name.0.as_str(), p.partition_index);
                                let one =
                                    judge(p.error_code, || format!("{what}: topic {topic} partition {n}"));
                                done = done.and(one);
                            }
                        }
                        Ok(names.into_iter().zip([done]).collect())
                    }
                },
            )
            .await;
        done.remove(group).unwrap_or_else(|| Err(left_out(&what)))
    }
}

/// Names of groups; each once.
pub(in crate::kafka) fn names<G: AsRef<str>>(groups: impl IntoIterator<Item = G>) -> Result<Vec<String>> {
    let (mut names, mut seen) = (Vec::new(), HashSet::new());
    for group in groups {
        let group = group.as_ref();
        if group.is_empty() {
            return Err(Error::new(ErrorKind::Config, "the group's name is empty; give it one"));
        }
        if group.len() > LONGEST_NAME {
            let why = format!("a group's name of {} bytes; at most {LONGEST_NAME} are possible", group.len());
            return Err(Error::new(ErrorKind::Config, why));
        }
        if seen.insert(group.to_owned()) {
            names.push(group.to_owned());
        }
    }
    Ok(names)
}

impl Inner {
    /// All groups by name, and the errors of brokers whose groups are not among them.
    pub(in crate::kafka) async fn list_groups(
        &self,
        patience: Duration,
    ) -> Result<(Vec<ListedGroup>, Vec<Error>)> {
        self.refresh(&[], false).await?;
        let nodes: Vec<NodeId> = self.cluster().nodes().map(|(node, _)| node).collect();
        Ok(self.list_groups_at(nodes, patience).await)
    }

    /// The groups that these brokers coordinate.
    pub(in crate::kafka) async fn list_groups_at(
        &self,
        nodes: Vec<NodeId>,
        patience: Duration,
    ) -> (Vec<ListedGroup>, Vec<Error>) {
        let mut groups = BTreeMap::new();
        let mut failed = Vec::new();
        for (node, listed) in
            bounded(nodes.into_iter().map(|n| self.list_groups_of(n, patience)).collect()).await
        {
            match listed {
                Ok(listed) => groups.extend(listed.into_iter().map(|g| (g.group.clone(), g))),
                Err(e) => failed.push(e.context(format!("list the groups of broker {node}"))),
            }
        }
        (groups.into_values().collect(), failed)
    }

    async fn list_groups_of(&self, node: NodeId, patience: Duration) -> (NodeId, Result<Vec<ListedGroup>>) {
        let deadline = Instant::now() + patience;
        loop {
            // Without filters: older brokers know none.
            let asked = async {
                let answer = self.link(node).await?.call(ListGroupsRequest::default()).await?;
                judge(answer.error_code, || format!("broker {node}"))?;
                Ok::<_, Error>(answer.groups.iter().map(|group| ListedGroup::read(group, node)).collect())
            };
            match asked.await {
                Err(e) if e.is_retryable() && Instant::now() < deadline => {
                    tracing::debug!(%node, error = %e.report(), "listing a broker's groups again");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(e) => return (node, Err(certain(e))),
                Ok(groups) => return (node, Ok(groups)),
            }
        }
    }

    /// Describes groups by name; `known` are their coordinators as far as they are known.
    ///
    /// All are asked for as classic groups first. A group of the newer protocol answers that it is none, as one that is not
    /// there does, and both are asked for as the newer kind: that says which.
    pub(in crate::kafka) async fn describe_groups(
        &self,
        names: Vec<String>,
        known: HashMap<String, NodeId>,
        patience: Duration,
    ) -> HashMap<String, Result<GroupDescription>> {
        let classic = self.at_coordinators(
            Coordinated::Group,
            names,
            known.clone(),
            GROUPS,
            patience,
            |link, names| async move {
                let ids = names.iter().map(|name| GroupId(text(name))).collect();
                let answer = link.call(DescribeGroupsRequest::default().with_groups(ids)).await?;
                let read = answer.groups.iter().map(|group| {
                    let name = group.group_id.0.as_str().to_owned();
                    let told = match group.error_code {
                        GROUP_ID_NOT_FOUND => Ok(None),
                        code => judge(code, || format!("describe group {name}"))
                            .map(|()| Some(GroupDescription::of_classic(group))),
                    };
                    (name, told)
                });
                Ok(read.collect())
            },
        );
        let mut done = HashMap::new();
        let mut newer = Vec::new();
        for (name, told) in classic.await {
            match told {
                // A dead group is one that is not there, or none of these.
                Ok(Some(told)) if told.state != GroupState::Dead => drop(done.insert(name, Ok(told))),
                Ok(_) => newer.push(name),
                Err(e) => drop(done.insert(name, Err(certain(e)))),
            }
        }
        if newer.is_empty() {
            return done;
        }
        let consumer = self.at_coordinators(
            Coordinated::Group,
            newer,
            known,
            GROUPS,
            patience,
            |link, names| async move {
                let missing = |name: &String| {
                    let e = "it is not there, or no group of consumers; check the group's name";
                    (
                        name.clone(),
                        Err(Error::new(ErrorKind::NotFound, format!("describe group {name}: {e}"))),
                    )
                };
                if link.version::<ConsumerGroupDescribeRequest>().is_none() {
                    return Ok(names.iter().map(missing).collect());
                }
                let ids = names.iter().map(|name| GroupId(text(name))).collect();
                let answer = link.call(ConsumerGroupDescribeRequest::default().with_group_ids(ids)).await?;
                let read = answer.groups.iter().map(|group| {
                    let name = group.group_id.0.as_str().to_owned();
                    match group.error_code {
                        GROUP_ID_NOT_FOUND => missing(&name),
                        code => {
                            let told = judge(code, || format!("describe group {name}"))
                                .map(|()| GroupDescription::of_consumer(group));
                            (name, told)
                        }
                    }
                });
                Ok(read.collect())
            },
        );
        done.extend(consumer.await.into_iter().map(|(name, told)| (name, told.map_err(certain))));
        done
    }
}

impl ListedGroup {
    /// Whether its lag can be told: its offsets are committed ones, of consumers.
    pub(in crate::kafka) fn has_offsets(&self) -> bool {
        match self.kind {
            GroupKind::Classic | GroupKind::Unknown => {
                matches!(self.protocol_type.as_str(), "consumer" | "")
            }
            GroupKind::Consumer | GroupKind::Streams => true,
            GroupKind::Share => false,
        }
    }
}
