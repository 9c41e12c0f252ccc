//! Drives the accumulator: sends what is ready, feeds back what came of it.
#![allow(
    clippy::disallowed_methods,
    reason = "this file drives the machine: it reads the clock, sleeps and spawns"
)]

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::accumulator::{Accumulator, Answer, Resolved, Sending};
use super::completion::Written;
use crate::kafka::client::{Client, lock, topic_name};
use crate::kafka::errors;
use crate::{
    Error, ErrorKind, NodeId, Offset, Partition, ProducerEpoch, ProducerId, Result, Timestamp, Topic,
};

/// Requests on their way to one broker; the next ones wait in their batches.
const MAX_IN_FLIGHT: usize = 5;
/// A quiet producer asks for its topics' leaders and partitions this often.
const METADATA_AGE: Duration = Duration::from_secs(300);

/// What the producer's clones and its driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) accumulator: Mutex<Accumulator>,
    pub(crate) memory: Semaphore,
    pub(crate) wake: Notify,
    /// No record is taken any more; the driver ends when nothing is left.
    pub(crate) closing: AtomicBool,
    /// What is left is given up, in flight or not.
    pub(crate) abort: AtomicBool,
    /// The driver has ended.
    pub(crate) ended: AtomicBool,
    pub(crate) end: Notify,
    pub(crate) create_topics: bool,
}

impl Shared {
    pub(crate) fn resolve(&self, resolved: impl IntoIterator<Item = Resolved>) {
        for r in resolved {
            self.memory.add_permits(r.reserved);
            r.tell();
        }
    }
}

/// Asks for a producer id (KIP-98).
pub(crate) async fn init_producer_id(client: &Client) -> Result<(ProducerId, ProducerEpoch)> {
    let inner = &client.inner;
    let deadline = Instant::now() + inner.settings.request_timeout;
    loop {
        let nodes: Vec<NodeId> = inner.cluster().nodes().map(|(node, _)| node).collect();
        let mut last = Error::new(ErrorKind::Unavailable, "no Kafka broker is known");
        for node in nodes {
            let answer = async {
                let request = InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(i32::MAX)
                    .with_producer_id((-1).into())
                    .with_producer_epoch(-1);
                inner.link(node).await?.call(request).await
            };
            match answer.await {
                Ok(a) if a.error_code == 0 => {
                    return Ok((ProducerId(a.producer_id.0), ProducerEpoch(a.producer_epoch)));
                }
                Ok(a) => last = errors::broker(a.error_code, "a producer id"),
                Err(e) => last = e,
            }
            if !last.is_retryable() {
                return Err(last);
            }
        }
        if Instant::now() >= deadline {
            return Err(last);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Makes sure that everything has its outcome when the driver ends, however it ends.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let stopped = Error::new(ErrorKind::Closed, "the Kafka producer has stopped");
        self.0.closing.store(true, Ordering::Release);
        let left = lock(&self.0.accumulator).fail_all(&stopped);
        self.0.resolve(left);
        self.0.memory.close();
        self.0.ended.store(true, Ordering::Release);
        self.0.end.notify_waiters();
    }
}

enum Event {
    Answers(NodeId, Vec<(Sending, Answer)>),
    Refreshed,
    Identity(Result<(ProducerId, ProducerEpoch)>),
    Woken,
}

/// The driver of one producer. Ends when the producer was closed and nothing is left.
pub(crate) async fn run(shared: Arc<Shared>) {
    let guard = EndGuard(Arc::clone(&shared));
    let mut calls = FuturesUnordered::new();
    let mut in_flight: HashMap<NodeId, usize> = HashMap::new();
    let mut refresh = None;
    let mut identity = None;
    let mut refresh_at = Instant::now() + METADATA_AGE;
    loop {
        if shared.abort.load(Ordering::Acquire) {
            break;
        }
        // Read before the machine is looked at: what is appended after that look has seen it too and is refused.
        let closing = shared.closing.load(Ordering::Acquire);
        let now = Instant::now();
        let (plan, expired, timeout, idle, needs_identity) = {
            let mut machine = lock(&shared.accumulator);
            let expired = machine.poll_expired(now.into_std());
            let cluster = shared.client.inner.cluster();
            let plan = machine.poll_sendings(
                now.into_std(),
                |topic, partition| cluster.leader(topic, partition),
                |node| in_flight.get(&node).is_none_or(|n| *n < MAX_IN_FLIGHT),
            );
            drop(cluster);
            (plan, expired, machine.poll_timeout(now.into_std()), machine.is_idle(), machine.needs_identity())
        };
        shared.resolve(expired);
        for (node, sendings) in plan.requests {
            *in_flight.entry(node).or_default() += 1;
            calls.push(send(&shared, node, sendings));
        }
        let aged = now >= refresh_at;
        if refresh.is_none() && (!plan.leaderless.is_empty() || aged) {
            let topics = if aged { lock(&shared.accumulator).topics() } else { plan.leaderless.clone() };
            refresh_at = now + METADATA_AGE;
            refresh = Some(Box::pin(ask(&shared, topics)));
        }
        if identity.is_none() && needs_identity {
            identity = Some(Box::pin(init_producer_id(&shared.client)));
        }
        if idle && calls.is_empty() && closing {
            break;
        }
        // Batches that are ready but cannot leave (no leader, broker busy) wait for an event or a short while.
        let sleep_until = match timeout.map(Instant::from_std) {
            Some(at) if at <= now => now + Duration::from_millis(20),
            Some(at) => at.min(refresh_at),
            None => refresh_at,
        };
        // In one order always, so that a run can be repeated; what is seldom stands first, so that it never starves.
        let event = tokio::select! {
            biased;
            () = until(&mut refresh) => Event::Refreshed,
            result = until(&mut identity) => Event::Identity(result),
            Some((node, answers)) = calls.next(), if !calls.is_empty() => Event::Answers(node, answers),
            () = shared.wake.notified() => Event::Woken,
            () = tokio::time::sleep_until(sleep_until) => Event::Woken,
        };
        match event {
            Event::Answers(node, answers) => {
                if let Some(n) = in_flight.get_mut(&node) {
                    *n = n.saturating_sub(1);
                }
                let now = Instant::now().into_std();
                let mut stale: Vec<Topic> = Vec::new();
                let mut resolved = Vec::new();
                {
                    let mut machine = lock(&shared.accumulator);
                    for (sending, answer) in answers {
                        let topic = sending.topic.clone();
                        let (done, old_view) = machine.handle_answer(sending, answer, now);
                        resolved.extend(done);
                        if old_view && !stale.contains(&topic) {
                            stale.push(topic);
                        }
                    }
                }
                shared.resolve(resolved);
                if !stale.is_empty() && refresh.is_none() {
                    refresh = Some(Box::pin(ask(&shared, stale)));
                }
            }
            Event::Refreshed => refresh = None,
            Event::Identity(result) => {
                identity = None;
                match result {
                    Ok((id, epoch)) => lock(&shared.accumulator).handle_identity(id, epoch),
                    Err(e) => tracing::warn!(error = %e.report(), "no new producer id; asking again"),
                }
            }
            Event::Woken => {}
        }
    }
    // What is in flight is dropped before the guard tells the rest.
    drop(calls);
    drop(guard);
}

/// Waits for a future that may not be there; for ever without one.
async fn until<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn ask(shared: &Shared, topics: Vec<Topic>) {
    if let Err(e) = shared.client.inner.refresh(&topics, shared.create_topics).await {
        tracing::debug!(error = %e.report(), "metadata could not be refreshed");
    }
}

/// One produce request, and what came of each batch in it.
async fn send(shared: &Shared, node: NodeId, mut sendings: Vec<Sending>) -> (NodeId, Vec<(Sending, Answer)>) {
    let inner = &shared.client.inner;
    let mut answers = Vec::with_capacity(sendings.len());
    let mut topics: BTreeMap<Topic, Vec<PartitionProduceData>> = BTreeMap::new();
    let mut i = 0;
    while let Some(sending) = sendings.get_mut(i) {
        match sending.seal() {
            Ok(bytes) => {
                let data =
                    PartitionProduceData::default().with_index(sending.partition.0).with_records(Some(bytes));
                topics.entry(sending.topic.clone()).or_default().push(data);
                i += 1;
            }
            Err(e) => answers.push((sendings.swap_remove(i), Answer::Failed(e.retryable(false)))),
        }
    }
    if sendings.is_empty() {
        return (node, answers);
    }
    // No longer than the first of its batches has.
    let end = sendings.iter().map(Sending::deadline).min().map_or_else(Instant::now, Instant::from_std);
    let link = match tokio::time::timeout_at(end, inner.link(node)).await {
        Ok(Ok(link)) => link,
        failed => {
            let e = match failed {
                Ok(Err(e)) => e,
                _ => Error::new(ErrorKind::Timeout, format!("no connection to Kafka broker {node}")),
            };
            answers.extend(sendings.into_iter().map(|s| (s, Answer::Failed(e.duplicate()))));
            return (node, answers);
        }
    };
    let left = end.saturating_duration_since(Instant::now());
    let limit = inner.settings.request_timeout.min(left).max(Duration::from_millis(1));
    let request = ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(-1)
        .with_timeout_ms(i32::try_from(limit.as_millis()).unwrap_or(i32::MAX))
        .with_topic_data(
            topics
                .into_iter()
                .map(|(topic, data)| {
                    TopicProduceData::default().with_name(topic_name(&topic)).with_partition_data(data)
                })
                .collect(),
        );
    sendings.iter_mut().for_each(Sending::leaving);
    match link.call_within(request, limit).await {
        Err(e) => answers.extend(sendings.into_iter().map(|s| (s, Answer::Failed(e.duplicate())))),
        Ok(answer) => {
            let mut told: HashMap<(Topic, Partition), Answer> = HashMap::new();
            for t in answer.responses {
                let Ok(topic) = Topic::new(t.name.0.as_str()) else { continue };
                for p in t.partition_responses {
                    let append_time = (p.log_append_time_ms >= 0).then_some(Timestamp(p.log_append_time_ms));
                    let written = Written { base_offset: Offset(p.base_offset), append_time };
                    let message = p.error_message.map(|m| m.as_str().to_owned());
                    let answer = Answer::Broker { code: p.error_code, written, message };
                    told.insert((topic.clone(), Partition(p.index)), answer);
                }
            }
            for sending in sendings {
                let answer = told.remove(&(sending.topic.clone(), sending.partition)).unwrap_or_else(|| {
                    Answer::Failed(
                        Error::new(
                            ErrorKind::Malformed,
                            format!(
                                "the answer of broker {node} leaves out topic {} partition {}",
                                sending.topic, sending.partition
                            ),
                        )
                        .ambiguous(),
                    )
                });
                answers.push((sending, answer));
            }
        }
    }
    (node, answers)
}
