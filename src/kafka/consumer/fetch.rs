//! Fetch requests, and what their answers mean.
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it reads the clock")]

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use tokio::time::Instant;

use super::book::{Ask, Fetch, Fetched};
use super::driver::Shared;
use super::session::{ENDED, Plan, Session};
use super::{Isolation, Reset};
use crate::kafka::client::{OwnLane, lock, text, topic_name};
use crate::kafka::errors;
use crate::kafka::offsets::Place;
use crate::{Error, ErrorKind, LeaderEpoch, NodeId, Offset, Partition, ProducerId, Result, Topic};

const OFFSET_OUT_OF_RANGE: i16 = 1;
/// How long a broker may hold a fetch back when there is nothing to read.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// Asks a broker, as the session's plan says.
pub(super) async fn call(
    shared: &Shared,
    lane: &OwnLane,
    fetch: Fetch,
    plan: Plan,
) -> (Fetch, Result<FetchResponse>) {
    // The broker may hold it back so long before the answer is due.
    let limit = shared.client.inner.settings.request_timeout.saturating_add(MAX_WAIT);
    let answer = async {
        let link = lane.link(fetch.node).await?;
        let version = link.version::<FetchRequest>().unwrap_or(0);
        link.call_within(request(shared, &fetch, &plan, version), limit).await
    };
    let answer = answer.await;
    (fetch, answer)
}

/// The request in this version; what older ones have no place for stays out.
fn request(shared: &Shared, fetch: &Fetch, plan: &Plan, version: i16) -> FetchRequest {
    let mut topics: BTreeMap<&Topic, Vec<FetchPartition>> = BTreeMap::new();
    for ask in plan.named.iter().filter_map(|at| fetch.asks.get(*at)) {
        let last_epoch = if version >= 12 { ask.last_epoch } else { LeaderEpoch::UNKNOWN };
        topics.entry(&ask.place.0).or_default().push(
            FetchPartition::default()
                .with_partition(ask.place.1.0)
                .with_current_leader_epoch(ask.leader_epoch.0)
                .with_last_fetched_epoch(last_epoch.0)
                .with_fetch_offset(ask.offset.0)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(i32::try_from(ask.max_bytes).unwrap_or(i32::MAX)),
        );
    }
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| {
            FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions)
        })
        .collect();
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(MAX_WAIT.as_millis()).unwrap_or(500))
        .with_min_bytes(1)
        .with_max_bytes(i32::try_from(fetch.max_bytes).unwrap_or(i32::MAX))
        .with_isolation_level(shared.isolation.code())
        .with_topics(topics);
    if version < 7 {
        return request.with_session_epoch(-1);
    }
    let mut forgotten: BTreeMap<&Topic, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in &plan.forgotten {
        forgotten.entry(topic).or_default().push(partition.0);
    }
    let forgotten = forgotten
        .into_iter()
        .map(|(t, p)| ForgottenTopic::default().with_topic(topic_name(t)).with_partitions(p));
    let rack = shared.rack.as_deref().filter(|_| version >= 11).unwrap_or_default();
    request
        .with_session_id(plan.id)
        .with_session_epoch(plan.epoch)
        .with_forgotten_topics_data(forgotten.collect())
        .with_rack_id(text(rack))
}

/// Takes an answer apart; returns the topics whose leaders are to be asked for.
pub(super) fn handle(
    shared: &Shared,
    fetch: &Fetch,
    answer: Result<FetchResponse>,
    session: &mut Session,
) -> Vec<Topic> {
    let now = Instant::now().into_std();
    let mut book = lock(&shared.book);
    book.handle_returned(fetch);
    let mut stale: Vec<Topic> = Vec::new();
    let mut note = |topic: &Topic| {
        if !stale.contains(topic) {
            stale.push(topic.clone());
        }
    };
    let answer = match answer {
        Ok(answer) if answer.error_code == 0 => {
            session.handle_answer(answer.session_id);
            answer
        }
        // The session is gone: at once under a new one. A broker that says so where there was none has failed.
        Ok(answer) if session.is_held() && ENDED.contains(&answer.error_code) => {
            session.reset();
            return stale;
        }
        failed => {
            session.reset();
            let e = match failed {
                Ok(answer) => errors::broker(answer.error_code, "fetch"),
                Err(e) => e,
            };
            for ask in &fetch.asks {
                note(&ask.place.0);
                // The client was closed, or the broker speaks another protocol: waiting changes nothing.
                if matches!(e.kind(), ErrorKind::Closed | ErrorKind::Unsupported | ErrorKind::Denied) {
                    book.handle_fault(ask.part, e.duplicate());
                } else {
                    book.handle_retry(ask, now);
                }
            }
            tracing::debug!(node = %fetch.node, error = %e.report(), "fetch failed");
            return stale;
        }
    };
    let mut left: BTreeMap<Place, &Ask> = fetch.asks.iter().map(|ask| (ask.place.clone(), ask)).collect();
    for t in answer.responses {
        let Ok(topic) = Topic::new(t.topic.0.as_str()) else { continue };
        for p in t.partitions {
            let Some(ask) = left.remove(&(topic.clone(), Partition(p.partition_index))) else { continue };
            let diverging = &p.diverging_epoch;
            match p.error_code {
                0 if diverging.end_offset >= 0 => {
                    let to = Offset(diverging.end_offset);
                    if shared.reset == Reset::Error && to < ask.offset {
                        book.handle_fault(ask.part, truncated(ask, to));
                    } else {
                        book.handle_truncated(ask, to);
                    }
                }
                0 => {
                    let aborted = p.aborted_transactions.unwrap_or_default();
                    let end = match shared.isolation {
                        Isolation::ReadCommitted => p.last_stable_offset,
                        Isolation::ReadUncommitted => p.high_watermark,
                    };
                    let fetched = Fetched {
                        records: p.records.unwrap_or_default(),
                        aborted: aborted
                            .iter()
                            .map(|a| (Offset(a.first_offset), ProducerId(a.producer_id.0)))
                            .collect(),
                        end: Offset(end),
                        preferred: Some(p.preferred_read_replica.0).filter(|n| *n >= 0).map(NodeId),
                    };
                    book.handle_fetched(ask, fetched, now);
                }
                OFFSET_OUT_OF_RANGE => book.handle_lost(ask),
                code => {
                    let (topic, partition) = &ask.place;
                    let e = errors::broker(
                        code,
                        format!("fetch of topic {topic} partition {partition} at offset {}", ask.offset),
                    );
                    if errors::wants_refresh(code) {
                        note(topic);
                        book.handle_retry(ask, now);
                    } else if e.is_retryable() {
                        book.handle_retry(ask, now);
                    } else {
                        book.handle_fault(ask.part, e);
                    }
                }
            }
        }
    }
    // Under a session the broker leaves out what has nothing new. Otherwise: ask again, not in a hurry.
    for ask in left.into_values() {
        if session.is_held() {
            book.handle_nothing(ask);
        } else {
            book.handle_retry(ask, now);
        }
    }
    stale
}

/// The log was cut back, and the reset policy is to stop.
fn truncated(ask: &Ask, to: Offset) -> Error {
    let (topic, partition) = &ask.place;
    Error::new(
        ErrorKind::Conflict,
        format!(
            "topic {topic} partition {partition}: the log was cut back to offset {to} under what was read up to {}, and \
             the reset policy is to stop; seek to where reading shall go on, or choose another policy",
            ask.offset
        ),
    )
}
