//! Drives the accumulator: sends what is ready, feeds back what came of it.
#![allow(
    clippy::disallowed_methods,
    reason = "this file drives the machine: it reads the clock, sleeps and spawns"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::messages::InitProducerIdRequest;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::accumulator::{Accumulator, Answer, Resolved, Sending};
use super::request::{read_answer, write_request};
use super::transaction::{Protocol, Transactions};
use super::watch::Watch;
use crate::codec::record_batch::Pieces;
use crate::kafka::client::{Client, lock};
use crate::kafka::errors;
use crate::{Error, ErrorKind, NodeId, Partition, ProducerEpoch, ProducerId, Result, Topic};

/// From this many bytes on, batches are compressed beside the reactor: some 50 us of work.
const COMPRESS_BESIDE: usize = 16 << 10;

/// What the producer's clones and its driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) accumulator: Mutex<Accumulator>,
    /// Those that wait for room stand here, one after the other.
    pub(crate) door: tokio::sync::Mutex<()>,
    /// There may be room for the first of them.
    pub(crate) room: Notify,
    pub(crate) wake: Notify,
    /// What is left is given up, in flight or not.
    pub(crate) abort: AtomicBool,
    /// The driver has ended.
    pub(crate) ended: AtomicBool,
    pub(crate) end: Notify,
    pub(crate) create_topics: bool,
    /// -1 for all in-sync replicas, 1 for the leader alone.
    pub(crate) acks: i16,
    pub(crate) watch: Watch,
    /// Of a transactional producer.
    pub(crate) transaction: Option<Arc<Transactions>>,
}

impl Shared {
    pub(crate) fn resolve(&self, resolved: Vec<Resolved>) {
        if resolved.is_empty() {
            return;
        }
        self.room.notify_one();
        self.watch.resolved(&resolved);
        if let Some(transaction) = &self.transaction {
            transaction.handle_resolved(&resolved);
        }
        resolved.into_iter().for_each(Resolved::tell);
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
        let left = {
            let mut machine = lock(&self.0.accumulator);
            machine.close();
            machine.fail_all(&stopped)
        };
        self.0.resolve(left);
        self.0.ended.store(true, Ordering::Release);
        self.0.room.notify_one();
        self.0.end.notify_waiters();
    }
}

/// What came of one request.
struct Done {
    node: NodeId,
    answers: Vec<(Sending, Answer)>,
    /// How long the broker wants to be spared.
    throttle: Duration,
    /// Partitions whose new leader the answer named.
    learned: Vec<(Topic, Partition)>,
}

enum Event {
    Done(Done),
    Refreshed,
    Identity(Result<(ProducerId, ProducerEpoch)>),
    Woken,
}

/// The driver of one producer. Ends when the producer was closed and nothing is left.
pub(crate) async fn run(shared: Arc<Shared>) {
    let guard = EndGuard(Arc::clone(&shared));
    let mut calls = FuturesUnordered::new();
    let mut turns: HashMap<NodeId, Arc<tokio::sync::Mutex<()>>> = HashMap::new();
    let mut refresh = None;
    let mut identity = None;
    let mut stale: BTreeSet<Topic> = BTreeSet::new();
    let mut seen = 0;
    let age = shared.client.inner.metadata_max_age;
    let mut refresh_at = Instant::now() + age;
    loop {
        if shared.abort.load(Ordering::Acquire) {
            break;
        }
        let now = Instant::now();
        let (plan, expired, additions, timeout, ended, needs_identity) = {
            let mut machine = lock(&shared.accumulator);
            seen = take_leaders(&shared, &mut machine, seen, now);
            let expired = machine.poll_expired(now.into_std());
            let plan = machine.poll_sendings(now.into_std());
            stale.extend(machine.leaderless());
            if refresh.is_none() && now >= refresh_at {
                refresh_at = now + age;
                stale.extend(machine.topics().cloned());
            }
            let ended = machine.is_closed() && machine.is_idle();
            let additions = machine.poll_additions();
            let needs_identity = machine.needs_identity() && shared.transaction.is_none();
            (plan, expired, additions, machine.poll_timeout(now.into_std()), ended, needs_identity)
        };
        shared.resolve(expired);
        if let Some(transaction) = &shared.transaction {
            transaction.handle_additions(additions);
        }
        if ended {
            break;
        }
        for (node, sendings) in plan.requests {
            let turn = Arc::clone(turns.entry(node).or_default());
            calls.push(send(&shared, node, turn, sendings));
        }
        if refresh.is_none() && !stale.is_empty() {
            refresh = Some(Box::pin(ask(&shared, std::mem::take(&mut stale))));
        }
        if identity.is_none() && needs_identity {
            identity = Some(Box::pin(init_producer_id(&shared.client)));
        }
        // A question on its way wakes the driver by itself.
        let aged = if refresh.is_some() { now + age } else { refresh_at };
        let sleep_until = timeout.map_or(aged, |at| Instant::from_std(at).min(aged));
        // In one order always, so that a run can be repeated; what is seldom stands first, so that it never starves.
        let event = tokio::select! {
            biased;
            () = until(&mut refresh) => Event::Refreshed,
            result = until(&mut identity) => Event::Identity(result),
            Some(done) = calls.next(), if !calls.is_empty() => Event::Done(done),
            () = shared.wake.notified() => Event::Woken,
            () = tokio::time::sleep_until(sleep_until) => Event::Woken,
        };
        match event {
            Event::Done(first) => {
                // Others that are there already are taken along, as many as can be on their way.
                let mut done = vec![first];
                while let Some(Some(next)) = calls.next().now_or_never() {
                    done.push(next);
                }
                let now = Instant::now().into_std();
                let mut resolved = Vec::new();
                {
                    let mut machine = lock(&shared.accumulator);
                    for Done { node, answers, throttle, learned } in done {
                        if !throttle.is_zero() {
                            machine.handle_throttle(node, now + throttle);
                        }
                        let chance = shared.client.inner.nature.draw();
                        let outcomes = machine.handle_answers(node, answers, now, chance);
                        let unknown = outcomes.stale.into_iter().filter(|at| !learned.contains(at));
                        stale.extend(unknown.map(|(topic, _)| topic));
                        resolved.extend(outcomes.resolved);
                    }
                }
                shared.resolve(resolved);
            }
            Event::Refreshed => refresh = None,
            Event::Identity(result) => {
                identity = None;
                match result {
                    Ok((id, epoch)) => {
                        let now = Instant::now().into_std();
                        lock(&shared.accumulator).handle_identity(id, epoch, now);
                    }
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

/// Tells the machine of leaders and partitions, where the client has heard something since.
fn take_leaders(shared: &Shared, machine: &mut Accumulator, seen: u64, now: Instant) -> u64 {
    let cluster = shared.client.inner.cluster();
    let changes = cluster.changes();
    if changes != seen {
        let topics: Vec<Topic> = machine.topics().cloned().collect();
        for topic in topics {
            if let Some(view) = cluster.topic(&topic) {
                machine.handle_topic(&topic, view.partitions.iter().map(|p| p.leader), now.into_std());
            }
        }
    }
    changes
}

/// Waits for a future that may not be there; for ever without one.
async fn until<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn ask(shared: &Shared, topics: BTreeSet<Topic>) {
    let topics: Vec<Topic> = topics.into_iter().collect();
    if let Err(e) = shared.client.inner.refresh(&topics, shared.create_topics).await {
        tracing::debug!(error = %e.report(), "metadata could not be refreshed");
    }
}

fn timed_out(node: NodeId) -> Error {
    Error::new(ErrorKind::Timeout, format!("no connection to Kafka broker {node}"))
}

type Sealed = Vec<(Sending, Result<Pieces>)>;

fn seal(sendings: Vec<Sending>) -> Sealed {
    let seal = |mut sending: Sending| {
        let pieces = sending.seal();
        (sending, pieces)
    };
    sendings.into_iter().map(seal).collect()
}

/// One produce request, and what came of each batch in it. Requests with one `turn` leave in the order in which these
/// futures are first polled.
async fn send(
    shared: &Shared,
    node: NodeId,
    turn: Arc<tokio::sync::Mutex<()>>,
    sendings: Vec<Sending>,
) -> Done {
    let inner = &shared.client.inner;
    let work: usize = sendings.iter().map(Sending::to_compress).sum();
    // No longer than the first of its batches has.
    let end = sendings.iter().map(Sending::deadline).min().map_or_else(Instant::now, Instant::from_std);
    // Begun before the turn has come: the batches of several requests are compressed side by side.
    let beside = work >= COMPRESS_BESIDE && !inner.nature.is_seeded();
    let (turn, sealed) = if beside {
        let task = tokio::task::spawn_blocking(move || seal(sendings));
        let turn = tokio::time::timeout_at(end, turn.lock()).await;
        match task.await {
            Ok(sealed) => (turn, sealed),
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    } else {
        (tokio::time::timeout_at(end, turn.lock()).await, seal(sendings))
    };
    let mut done = Done {
        node,
        answers: Vec::with_capacity(sealed.len()),
        throttle: Duration::ZERO,
        learned: Vec::new(),
    };
    let mut parts: BTreeMap<Topic, Vec<(Sending, Pieces)>> = BTreeMap::new();
    for (sending, pieces) in sealed {
        match pieces {
            Ok(pieces) => parts.entry(sending.topic.clone()).or_default().push((sending, pieces)),
            Err(e) => done.answers.push((sending, Answer::Failed(e.retryable(false)))),
        }
    }
    if parts.is_empty() {
        return done;
    }
    let link = async {
        let turn = turn.map_err(|_| timed_out(node))?;
        let link = tokio::time::timeout_at(end, inner.link(node)).await.map_err(|_| timed_out(node))??;
        Ok((turn, link))
    };
    let (turn, link) = match link.await {
        Ok(ready) => ready,
        Err(e) => {
            let e: Error = e;
            let sendings = parts.into_values().flatten().map(|(s, _)| s);
            done.answers.extend(sendings.map(|s| (s, Answer::Failed(e.duplicate()))));
            return done;
        }
    };
    let left = end.saturating_duration_since(Instant::now());
    let limit = inner.settings.request_timeout.min(left).max(Duration::from_millis(1));
    let transaction = shared.transaction.as_deref();
    let (request, mut sendings) = write_request(shared.acks, transaction.map(Transactions::id), limit, parts);
    sendings.iter_mut().for_each(Sending::leaving);
    let watched = shared.watch.begin(node, &sendings, Instant::now());
    // From version 12 on the write alone adds its partition to the transaction.
    let below_12 = transaction.is_some_and(|t| t.protocol() == Protocol::V1);
    let call = async {
        if below_12 {
            link.call_capped::<_, 11>(request, limit).await
        } else {
            link.call_within(request, limit).await
        }
    };
    tokio::pin!(call);
    // The first look at it puts the request in line for the connection; then it is the next one's turn.
    let first = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
    drop(turn);
    let answer = match first {
        std::task::Poll::Ready(answer) => answer,
        std::task::Poll::Pending => call.await,
    };
    let unsealed = done.answers.len();
    match answer {
        Err(e) => done.answers.extend(sendings.into_iter().map(|s| (s, Answer::Failed(e.duplicate())))),
        Ok(answer) => {
            done.learned = inner.learn_leaders(&answer);
            done.throttle = Duration::from_millis(u64::try_from(answer.throttle_time_ms).unwrap_or(0));
            read_answer(node, answer, sendings, &mut done.answers);
        }
    }
    watched.end(done.answers.get(unsealed..).unwrap_or_default(), Instant::now());
    done
}
