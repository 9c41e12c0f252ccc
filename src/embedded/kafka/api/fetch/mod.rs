//! Fetch (1), versions 4 to 18.
//!
//! Sessions (KIP-227). Whole batches only, at least one (KIP-74); waiting fetches are woken by what is appended; read_committed ends at the
//! last stable offset and names aborted transactions; diverging epochs (KIP-595) and the current leader (KIP-951) are
//! told; followers answer from version 11 on, and name themselves preferred by rack where the cluster is told to
//! (KIP-392). The request's `max_bytes` is capped at 55 MiB, as `fetch.max.bytes` of the real broker.
//!
//! Left out: quotas (throttle time is 0); a follower's own fetch (replica id of 0 or more) is answered like a consumer's.

mod encode;
mod sessions;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::list_offsets::check_epoch;
use super::{Api, Code, Context, Field, Reply, Shape, always, since};
use crate::embedded::kafka::cluster::{Cluster, LONGEST_WAIT};
use crate::embedded::kafka::log::Slice;
use crate::embedded::kafka::topics::Partition;
use crate::{NodeId, Topic};
use encode::{Answer, Endpoint, PartitionAnswer, TopicAnswer};
pub(crate) use sessions::AllSessions;
use sessions::{Mode, Told};
pub(crate) use waiting::Waiting;

/// `fetch.max.bytes` of a broker.
const MAX_BYTES: u64 = 55 * 1024 * 1024;

impl Api for FetchRequest {
    const SERVED: RangeInclusive<i16> = 4..=18;
    const SHAPE: &'static [Field] = &[
        Field { from: 0, to: 14, shape: Shape::Fixed(4) },
        always(Shape::Fixed(4 + 4 + 4 + 1)),
        since(7, Shape::Fixed(4 + 4)),
        always(Shape::Structs(&[
            Field { from: 0, to: 12, shape: Shape::Text },
            since(13, Shape::Fixed(16)),
            always(Shape::Structs(&[
                always(Shape::Fixed(4)),
                since(9, Shape::Fixed(4)),
                always(Shape::Fixed(8)),
                since(12, Shape::Fixed(4)),
                since(5, Shape::Fixed(8)),
                always(Shape::Fixed(4)),
                since(17, Shape::Tags(&[(0, since(17, Shape::Fixed(16))), (1, since(18, Shape::Fixed(8)))])),
            ])),
        ])),
        since(
            7,
            Shape::Structs(&[
                Field { from: 0, to: 12, shape: Shape::Text },
                since(13, Shape::Fixed(16)),
                always(Shape::Values(4)),
            ]),
        ),
        since(11, Shape::Text),
        since(12, Shape::Tags(&[(0, since(12, Shape::Text)), (1, since(15, REPLICA_STATE))])),
    ];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<FetchResponse> {
        let version = context.version;
        let random = if self.session_epoch == 0 { cluster.draw() } else { 0 };
        let sessions = cluster.sessions.entry(context.node).or_default();
        let (mode, targets) = match sessions.open(&self, version, &cluster.topics, random, context.now) {
            Ok(opened) => opened,
            Err(code) => return Reply::Now(self.refuse(code, version)),
        };
        let ask = Ask {
            node: context.node,
            version,
            mode,
            committed: self.isolation_level == 1,
            min_bytes: u64::try_from(self.min_bytes).unwrap_or(0),
            max_bytes: u64::try_from(self.max_bytes).unwrap_or(0).min(MAX_BYTES),
            rack: StrBytes::from_string(self.rack_id.to_string()),
            targets,
        };
        let wait = u64::try_from(self.max_wait_ms).map_or(Duration::ZERO, Duration::from_millis);
        match attempt(cluster, &ask, wait.is_zero()) {
            Ok(answer) => Reply::Encoded(answer.settle(cluster, &ask)),
            Err(missing) => {
                let deadline = context.now + wait.min(LONGEST_WAIT);
                cluster.fetches.wait(context.connection, ask, deadline, missing);
                Reply::Later
            }
        }
    }

    fn refuse(&self, code: Code, version: i16) -> FetchResponse {
        if version >= 7 {
            return FetchResponse::default().with_error_code(code.code());
        }
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                PartitionData::default()
                    .with_partition_index(partition.partition)
                    .with_error_code(code.code())
                    .with_high_watermark(-1)
                    .with_records(Some(Bytes::new()))
            });
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions.collect())
        });
        FetchResponse::default().with_responses(topics.collect())
    }
}

const REPLICA_STATE: Shape = Shape::Struct(&[always(Shape::Fixed(4 + 8))]);

/// A partition that is fetched.
#[derive(Debug, Clone)]
struct Target {
    /// `None` where there is no topic of this name or id.
    topic: Option<Topic>,
    /// The name as it was asked for; empty from version 13.
    asked: StrBytes,
    id: Uuid,
    partition: i32,
    offset: i64,
    max_bytes: u64,
    /// The leader epoch that the client knows; -1: any.
    epoch: i32,
    /// The epoch of the record before `offset`; -1 where the client does not say.
    last_epoch: i32,
}

/// What is asked for, until it is answered.
#[derive(Debug)]
pub(crate) struct Ask {
    node: NodeId,
    version: i16,
    mode: Mode,
    committed: bool,
    min_bytes: u64,
    max_bytes: u64,
    rack: StrBytes,
    targets: Vec<Target>,
}

/// What is there of one partition.
enum Found<'a> {
    Records(&'a Partition, Slice),
    /// The client's log has taken another way: until where it agrees with this one (KIP-595).
    Diverging(&'a Partition, i32, i64),
    /// Another replica is nearer (KIP-392).
    Elsewhere(&'a Partition, NodeId),
    Error(Code, Option<&'a Partition>),
}

/// An answer, and what its session is to remember of it: for each partition that it tells of, its place among the
/// targets, what it says, and whether there are records.
struct Ready {
    body: Vec<Bytes>,
    told: Vec<(usize, Option<Told>, bool)>,
}

impl Ready {
    /// Lets the session know what is told, and gives the body.
    fn settle(self, cluster: &mut Cluster, ask: &Ask) -> Vec<Bytes> {
        if let Some(sessions) = cluster.sessions.get_mut(&ask.node) {
            for (index, told, records) in self.told {
                if let Some(target) = ask.targets.get(index) {
                    sessions.told(ask.mode, target, told, records);
                }
            }
        }
        self.body
    }
}

/// Answers, where there is enough, an error, or it `must`; else says how many bytes are missing.
fn attempt(cluster: &Cluster, ask: &Ask, must: bool) -> Result<Ready, u64> {
    let mut left = ask.max_bytes;
    let mut bytes = 0;
    let mut at_once = must || ask.targets.is_empty();
    let mut found = Vec::with_capacity(ask.targets.len());
    for target in &ask.targets {
        let one = look(cluster, ask, target, left, bytes == 0);
        match &one {
            Found::Records(_, slice) => {
                bytes += slice.bytes;
                left = left.saturating_sub(slice.bytes);
            }
            _ => at_once = true,
        }
        found.push(one);
    }
    if !at_once && bytes < ask.min_bytes {
        return Err(ask.min_bytes - bytes);
    }
    let sessions = cluster.sessions.get(&ask.node);
    let mut answer = Answer { session_id: ask.mode.id(), ..Answer::default() };
    let mut leaders = BTreeSet::new();
    let mut all_told = Vec::new();
    for (index, (target, found)) in ask.targets.iter().zip(found).enumerate() {
        let partition = partition_answer(ask, target, found, &mut leaders);
        if ask.mode.id() != 0 {
            let told = Told { high_watermark: partition.high_watermark, log_start: partition.log_start };
            let settled = partition.error == 0 && partition.diverging.is_none() && partition.preferred == -1;
            let records = partition.records.is_some();
            let must = records || !settled;
            if !sessions.is_none_or(|sessions| sessions.is_news(ask.mode, target, told, must)) {
                continue;
            }
            all_told.push((index, settled.then_some(told), records));
        }
        match answer.topics.last_mut() {
            Some(topic) if topic.name == &*target.asked && topic.id == target.id => {
                topic.partitions.push(partition)
            }
            _ => answer.topics.push(TopicAnswer {
                name: &target.asked,
                id: target.id,
                partitions: vec![partition],
            }),
        }
    }
    answer.endpoints = leaders
        .iter()
        .filter_map(|id| cluster.nodes.get(id))
        .map(|node| Endpoint {
            node: node.id.0,
            host: node.host.clone(),
            port: i32::from(node.port),
            rack: node.rack.clone().map(Into::into),
        })
        .collect();
    Ok(Ready { body: encode::encode(&answer, ask.version), told: all_told })
}

fn look<'a>(cluster: &'a Cluster, ask: &Ask, target: &Target, left: u64, first: bool) -> Found<'a> {
    let Some(topic) = &target.topic else {
        let code = if ask.version >= 13 { Code::UnknownTopicId } else { Code::UnknownTopicOrPartition };
        return Found::Error(code, None);
    };
    let Some(partition) = cluster.topics.partition(topic.as_str(), target.partition) else {
        return Found::Error(Code::UnknownTopicOrPartition, None);
    };
    let failed = |code| Found::Error(code, Some(partition));
    if let Err(code) = check_epoch(partition, target.epoch) {
        return failed(code);
    }
    let leads = partition.leader == Some(ask.node);
    if !leads && (ask.version < 11 || !partition.isr.contains(&ask.node) || partition.leader.is_none()) {
        return failed(Code::NotLeaderOrFollower);
    }
    let log = &partition.log;
    if target.last_epoch >= 0 {
        match log.epochs().end_of(target.last_epoch, log.end()) {
            None => return failed(Code::OffsetOutOfRange),
            Some(_) if target.offset < log.log_start() => return failed(Code::OffsetOutOfRange),
            Some((epoch, end)) if epoch < target.last_epoch || end < target.offset => {
                return Found::Diverging(partition, epoch, end);
            }
            Some(_) => {}
        }
    }
    if !(log.log_start()..=log.end()).contains(&target.offset) {
        return failed(Code::OffsetOutOfRange);
    }
    if leads && let Some(nearer) = nearer_replica(cluster, partition, &ask.rack) {
        return Found::Elsewhere(partition, nearer);
    }
    let until = if ask.committed { log.last_stable_offset() } else { log.high_watermark() };
    let most = target.max_bytes.min(left);
    Found::Records(partition, log.read(target.offset, until, most, first))
}

/// The replica in the client's rack, where the leader is in another (`RackAwareReplicaSelector`).
fn nearer_replica(cluster: &Cluster, partition: &Partition, rack: &str) -> Option<NodeId> {
    if rack.is_empty() || cluster.settings.racks.is_empty() {
        return None;
    }
    let in_rack = |id: &&NodeId| {
        cluster.nodes.get(id).is_some_and(|node| node.is_up() && node.rack.as_deref() == Some(rack))
    };
    let nearer = partition.isr.iter().filter(in_rack).collect::<Vec<_>>();
    if nearer.iter().any(|id| partition.leader == Some(**id)) {
        return None;
    }
    nearer.first().map(|id| **id)
}

fn partition_answer<'a>(
    ask: &Ask,
    target: &Target,
    found: Found<'a>,
    leaders: &mut BTreeSet<NodeId>,
) -> PartitionAnswer<'a> {
    let mut answer = PartitionAnswer {
        index: target.partition,
        error: 0,
        high_watermark: -1,
        last_stable: -1,
        log_start: -1,
        diverging: None,
        current_leader: None,
        aborted: None,
        preferred: -1,
        records: None,
    };
    let partition = match found {
        Found::Error(code, partition) => {
            answer.error = code.code();
            // A partition that is not there is answered before anything was read: the list is empty, not null.
            answer.aborted = partition.is_none().then(Vec::new);
            let moved = matches!(code, Code::NotLeaderOrFollower | Code::FencedLeaderEpoch);
            if let Some(partition) = partition.filter(|_| moved && ask.version >= 16) {
                leaders.extend(partition.leader);
                let leader = partition.leader.map_or(-1, |leader| leader.0);
                answer.current_leader = Some((leader, partition.leader_epoch));
            }
            return answer;
        }
        Found::Records(partition, slice) => {
            if ask.committed {
                let last =
                    partition.log.slice(&slice).last().map_or(target.offset, |batch| batch.next_offset());
                let aborted = partition.log.aborted(target.offset, last);
                answer.aborted = Some(aborted.map(|a| (a.producer_id, a.first_offset)).collect());
            }
            answer.records = (slice.batches > 0).then_some((&partition.log, slice));
            partition
        }
        Found::Diverging(partition, epoch, end) => {
            answer.diverging = Some((epoch, end));
            partition
        }
        Found::Elsewhere(partition, nearer) => {
            answer.preferred = nearer.0;
            partition
        }
    };
    answer.high_watermark = partition.log.high_watermark();
    answer.last_stable = partition.log.last_stable_offset();
    answer.log_start = partition.log.log_start();
    answer
}
