//! Drives the machine: sends its requests to the coordinators, feeds back what came of them.
#![allow(clippy::disallowed_methods, reason = "this file drives the machine: it reads the clock and sleeps")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, GroupId, InitProducerIdRequest,
    ProducerId as WireId, TransactionalId, TxnOffsetCommitRequest,
};
use tokio::time::Instant;

use super::machine::{Answer, Call, Request};
use super::state::Transactions;
use super::{Committing, GroupMetadata, Identity, Place, Protocol};
use crate::kafka::client::{lock, text, topic_name};
use crate::kafka::group::Coordinated;
use crate::kafka::producer::sender::Shared;
use crate::kafka::wire::{Link, Produce};
use crate::{Error, ErrorKind, NodeId, Partition, ProducerEpoch, ProducerId, Result, Topic};

/// How often what came back is given up, while a transaction is being aborted.
const GIVE_UP_AGAIN: Duration = Duration::from_millis(20);

/// The coordinators that were found.
#[derive(Debug, Default)]
struct Known {
    transaction: Option<NodeId>,
    groups: HashMap<String, NodeId>,
}

/// Makes sure that nobody waits for ever when the driver ends, however it ends.
struct EndGuard(Arc<Transactions>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
        let mut inner = self.0.lock();
        inner.gone = true;
        inner.waiting.clear();
        drop(inner);
        self.0.changed.notify_waiters();
    }
}

/// The driver of one transactional producer. Ends when the producer was closed and no transaction is left.
pub(super) async fn run(shared: Arc<Shared>, state: Arc<Transactions>, timeout: Duration) {
    let _guard = EndGuard(Arc::clone(&state));
    let known = tokio::sync::Mutex::new(Known::default());
    let mut call = None;
    let mut hurrying = false;
    loop {
        if state.abort.load(Ordering::Acquire) {
            break;
        }
        // Read before the machine is looked at: what is begun after that look is refused.
        let closing = state.closing.load(Ordering::Acquire);
        let now = Instant::now();
        let (next, giving_up, ending, resting, at) = {
            let mut inner = state.lock();
            // Under the lock: no record comes after the end of its transaction.
            let drained = lock(&shared.accumulator).is_idle();
            let next = inner.machine.poll_request(now.into_std(), drained);
            state.pump(&mut inner, &shared.accumulator, now);
            let machine = &inner.machine;
            (next, machine.giving_up(), machine.is_ending(), machine.is_resting(), machine.poll_timeout())
        };
        if hurrying != ending {
            hurrying = ending;
            let mut accumulator = lock(&shared.accumulator);
            if ending { accumulator.hurry(now.into_std()) } else { accumulator.calm() }
        }
        // The sender has what the events brought.
        shared.wake.notify_one();
        let mut at = at.map(Instant::from_std);
        if let Some(e) = giving_up {
            let (left, idle) = {
                let mut accumulator = lock(&shared.accumulator);
                (accumulator.fail_all(&e), accumulator.is_idle())
            };
            shared.resolve(left);
            // What is on its way may come back to be sent again.
            if !idle {
                at = Some(at.map_or(now + GIVE_UP_AGAIN, |at| at.min(now + GIVE_UP_AGAIN)));
            }
        }
        if let Some(next) = next {
            call = Some(Box::pin(run_call(&shared, &state, &known, next, timeout)));
        }
        if closing && resting && call.is_none() {
            break;
        }
        let sleep = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let answered = async {
            match &mut call {
                Some(call) => call.await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            biased;
            answer = answered => Some(answer),
            () = state.wake.notified() => None,
            () = sleep => None,
        };
        if let Some(answer) = answer {
            call = None;
            let now = Instant::now();
            let mut inner = state.lock();
            inner.machine.handle_answer(answer, now.into_std());
            state.pump(&mut inner, &shared.accumulator, now);
        }
    }
}

async fn run_call(
    shared: &Shared,
    state: &Transactions,
    known: &tokio::sync::Mutex<Known>,
    Call { request, anew }: Call,
    timeout: Duration,
) -> Answer {
    let mut known = known.lock().await;
    let link = match find(shared, state.id(), &mut known, &request, anew).await {
        Ok(link) => link,
        Err(e) => return Answer::Failed(e),
    };
    if !matches!(request, Request::Offsets(..)) {
        state.lock().machine.handle_protocol(protocol(&link));
    }
    send(&link, state.id(), request, shared.client.inner.settings.request_timeout, timeout)
        .await
        .unwrap_or_else(Answer::Failed)
}

/// Version 2 where the cluster has it and this broker speaks all of it.
fn protocol(link: &Link) -> Protocol {
    let level = link.feature("transaction.version").unwrap_or(0);
    let speaks = link.version::<EndTxnRequest>() >= Some(5)
        && link.version::<TxnOffsetCommitRequest>() >= Some(5)
        && link.version::<Produce>() >= Some(12);
    if level >= 2 && speaks { Protocol::V2 } else { Protocol::V1 }
}

/// The connection to the request's coordinator.
async fn find(
    shared: &Shared,
    id: &str,
    known: &mut Known,
    request: &Request,
    anew: bool,
) -> Result<Arc<Link>> {
    let inner = &shared.client.inner;
    let node = match request {
        Request::Offsets(_, _, group, _) => {
            let group = group.group();
            match known.groups.get(group).copied().filter(|_| !anew) {
                Some(node) => node,
                None => {
                    known.groups.clear();
                    let node = inner.find_coordinator(Coordinated::Group, group).await?;
                    known.groups.insert(group.to_owned(), node);
                    node
                }
            }
        }
        _ => match known.transaction.filter(|_| !anew) {
            Some(node) => node,
            None => {
                let node = inner.find_coordinator(Coordinated::Transaction, id).await?;
                known.transaction = Some(node);
                node
            }
        },
    };
    inner.link(node).await
}

fn wire(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

/// Sends a request and reads its answer; an error is a request without one.
async fn send(link: &Link, id: &str, request: Request, limit: Duration, timeout: Duration) -> Result<Answer> {
    match request {
        Request::Init(expected) => {
            if link.version::<InitProducerIdRequest>() < Some(3) {
                let e = "transactions need Kafka 2.5 or later: this broker cannot raise a producer's epoch (KIP-360)";
                return Err(Error::new(ErrorKind::Unsupported, e));
            }
            let (ProducerId(producer), ProducerEpoch(epoch)) =
                expected.unwrap_or((ProducerId::NONE, ProducerEpoch::NONE));
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(wire(id)))
                .with_transaction_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
                .with_producer_id(WireId(producer))
                .with_producer_epoch(epoch);
            let a = link.call_within(request, limit).await?;
            if a.error_code != 0 {
                return Ok(Answer::Code(a.error_code));
            }
            identity(a.producer_id, a.producer_epoch)
        }
        Request::Partitions((producer, epoch), places) => {
            let mut topics: BTreeMap<Topic, Vec<i32>> = BTreeMap::new();
            for (topic, partition) in places {
                topics.entry(topic).or_default().push(partition.0);
            }
            let topics = topics.into_iter().map(|(topic, partitions)| {
                AddPartitionsToTxnTopic::default().with_name(topic_name(&topic)).with_partitions(partitions)
            });
            let request = AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(wire(id))
                .with_v3_and_below_producer_id(WireId(producer.0))
                .with_v3_and_below_producer_epoch(epoch.0)
                .with_v3_and_below_topics(topics.collect());
            let a = link.call_within(request, limit).await?;
            let codes = a.results_by_topic_v3_and_below.into_iter().flat_map(|t| {
                let topic = Topic::new(t.name.0.as_str()).ok();
                t.results_by_partition.into_iter().filter_map(move |p| {
                    Some(((topic.clone()?, Partition(p.partition_index)), p.partition_error_code))
                })
            });
            Ok(Answer::Codes(codes.collect()))
        }
        Request::Group((producer, epoch), group) => {
            let request = AddOffsetsToTxnRequest::default()
                .with_transactional_id(wire(id))
                .with_producer_id(WireId(producer.0))
                .with_producer_epoch(epoch.0)
                .with_group_id(GroupId(text(&group)));
            Ok(Answer::Code(link.call_within(request, limit).await?.error_code))
        }
        Request::Offsets(identity, protocol, group, entries) => {
            send_offsets(link, id, identity, protocol, &group, entries, limit).await
        }
        Request::End { identity: (producer, epoch), protocol, commit } => {
            let request = EndTxnRequest::default()
                .with_transactional_id(wire(id))
                .with_producer_id(WireId(producer.0))
                .with_producer_epoch(epoch.0)
                .with_committed(commit);
            let a = match protocol {
                Protocol::V1 => link.call_capped::<_, 4>(request, limit).await?,
                Protocol::V2 => link.call_within(request, limit).await?,
            };
            if a.error_code == 0 && protocol == Protocol::V2 && a.producer_id.0 >= 0 {
                return identity(a.producer_id, a.producer_epoch);
            }
            Ok(Answer::Code(a.error_code))
        }
    }
}

fn identity(id: WireId, epoch: i16) -> Result<Answer> {
    if id.0 < 0 || epoch < 0 {
        let e = format!("the answer makes no sense: producer id {} with epoch {epoch}", id.0);
        return Err(Error::new(ErrorKind::Malformed, e).ambiguous());
    }
    Ok(Answer::Identity((ProducerId(id.0), ProducerEpoch(epoch))))
}

async fn send_offsets(
    link: &Link,
    id: &str,
    (producer, epoch): Identity,
    protocol: Protocol,
    group: &GroupMetadata,
    entries: Vec<(Place, Committing)>,
    limit: Duration,
) -> Result<Answer> {
    let mut topics: BTreeMap<&Topic, Vec<TxnOffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), c) in &entries {
        topics.entry(topic).or_default().push(
            TxnOffsetCommitRequestPartition::default()
                .with_partition_index(partition.0)
                .with_committed_offset(c.offset.0)
                .with_committed_leader_epoch(c.leader_epoch.0)
                .with_committed_metadata(Some(text(&c.metadata))),
        );
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TxnOffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
    });
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(wire(id))
        .with_group_id(GroupId(text(&group.group)))
        .with_producer_id(WireId(producer.0))
        .with_producer_epoch(epoch.0)
        .with_generation_id(group.generation)
        .with_member_id(text(&group.member))
        .with_group_instance_id(group.instance.as_deref().map(text))
        .with_topics(topics.collect());
    let a = match protocol {
        Protocol::V1 => link.call_capped::<_, 4>(request, limit).await?,
        Protocol::V2 => link.call_within(request, limit).await?,
    };
    let told: HashMap<Place, i16> = a
        .topics
        .into_iter()
        .filter_map(|t| Some((Topic::new(t.name.0.as_str()).ok()?, t.partitions)))
        .flat_map(|(topic, partitions)| {
            partitions.into_iter().map(move |p| ((topic.clone(), Partition(p.partition_index)), p.error_code))
        })
        .collect();
    let codes = entries.into_iter().map(|(place, _)| {
        let code = told.get(&place).copied();
        code.map(|code| (place.clone(), code)).ok_or_else(|| {
            let e = format!("the answer leaves out topic {} partition {}", place.0, place.1);
            Error::new(ErrorKind::Malformed, e).ambiguous()
        })
    });
    Ok(Answer::Codes(codes.collect::<Result<_>>()?))
}
