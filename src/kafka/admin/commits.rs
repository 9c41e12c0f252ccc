//! What groups have committed, asked of each coordinator for many at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest};

use super::spread::{certain, judge, named};
use crate::kafka::client::{Inner, text};
use crate::kafka::group::Coordinated;
use crate::kafka::offsets::{Interned, Place};
use crate::kafka::wire::Link;
use crate::kafka::wire::api::admin::FetchOffsets;
use crate::{Error, NodeId, Offset, Partition, Result, Topic};

/// How many groups one request names: each brings all its partitions.
const GROUPS: usize = 32;

/// Committed offsets of a group, and the errors of partitions that were refused.
pub(in crate::kafka) type Commits = (Vec<(Place, Offset)>, Vec<Error>);

impl Inner {
    /// All that these groups have committed; `known` are their coordinators as far as they are known. A group that is not
    /// there has committed nothing. Offsets of transactions that are still open are not waited for.
    pub(in crate::kafka) async fn commits(
        &self,
        names: Vec<String>,
        known: HashMap<String, NodeId>,
        patience: Duration,
    ) -> HashMap<String, Result<Commits>> {
        let told =
            self.at_coordinators(Coordinated::Group, names, known, GROUPS, patience, fetch_commits).await;
        told.into_iter().map(|(name, commits)| (name, commits.map_err(certain))).collect()
    }
}

/// The committed offsets of these groups, in one request where the broker can.
async fn fetch_commits(link: Arc<Link>, names: Vec<String>) -> Result<HashMap<String, Result<Commits>>> {
    let mut topics = Interned::default();
    if link.version::<FetchOffsets>().is_some() {
        let groups = names.iter().map(|name| {
            OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(text(name)))
                .with_member_epoch(-1)
                .with_topics(None)
        });
        let request = OffsetFetchRequest::default().with_groups(groups.collect());
        let answer = link.call(FetchOffsets(request)).await?;
        let mut all = HashMap::new();
        for group in answer.groups {
            let name = group.group_id.0.as_str().to_owned();
            let read = judge(group.error_code, || format!("group {name}")).map(|()| {
                let mut commits = Commits::default();
                for t in group.topics {
                    let Some(topic) = topics.get(t.name.0.as_str()) else { continue };
                    for p in t.partitions {
                        commit(
                            &mut commits,
                            &name,
                            &topic,
                            p.partition_index,
                            p.committed_offset,
                            p.error_code,
                        );
                    }
                }
                commits
            });
            all.insert(name, read);
        }
        return Ok(all);
    }
    // Kafka before 3.0: one after the other.
    let mut all = HashMap::new();
    for name in names {
        let request = OffsetFetchRequest::default().with_group_id(GroupId(text(&name))).with_topics(None);
        let answer = link.call(request).await?;
        let read = judge(answer.error_code, || format!("group {name}")).map(|()| {
            let mut commits = Commits::default();
            for t in answer.topics {
                let Some(topic) = topics.get(t.name.0.as_str()) else { continue };
                for p in t.partitions {
                    commit(&mut commits, &name, &topic, p.partition_index, p.committed_offset, p.error_code);
                }
            }
            commits
        });
        all.insert(name, read);
    }
    Ok(all)
}

fn commit(commits: &mut Commits, group: &str, topic: &Topic, partition: i32, offset: i64, code: i16) {
    let place = (topic.clone(), Partition(partition));
    match judge(code, || format!("group {group}: committed offset of {}", named(&place))) {
        Ok(()) if offset >= 0 => commits.0.push((place, Offset(offset))),
        Ok(()) => {}
        Err(e) => commits.1.push(e),
    }
}
