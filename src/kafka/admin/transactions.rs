//! Transactions: listed, described, ended from outside (KIP-664, Kafka 3.0).
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it sleeps")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_transactions_response::TransactionState as Told;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, InitProducerIdRequest, ListTransactionsRequest,
    ProducerId as WireId, TransactionalId, WriteTxnMarkersRequest,
};

use super::Admin;
use super::spread::{bounded, certain, judge, judge_leader, left_out, named};
use crate::kafka::client::{text, topic_name};
use crate::kafka::group::Coordinated;
use crate::kafka::offsets::Place;
use crate::kafka::wire::Link;
use crate::{Error, ErrorKind, NodeId, Offset, Partition, ProducerId, Result, Timestamp, Topic};

/// How many ids one request describes.
const TOGETHER: usize = 100;

/// What a transactional id is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransactionState {
    /// It has no transaction.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// It is being committed.
    PrepareCommit,
    /// It is being aborted.
    PrepareAbort,
    /// It is being aborted because its producer was fenced.
    PrepareEpochFence,
    /// The last one was committed.
    CompleteCommit,
    /// The last one was aborted.
    CompleteAbort,
    /// The id is being forgotten.
    Dead,
    /// None of these.
    Unknown,
}

impl TransactionState {
    fn read(name: &str) -> Self {
        match name {
            "Empty" => Self::Empty,
            "Ongoing" => Self::Ongoing,
            "PrepareCommit" => Self::PrepareCommit,
            "PrepareAbort" => Self::PrepareAbort,
            "PrepareEpochFence" => Self::PrepareEpochFence,
            "CompleteCommit" => Self::CompleteCommit,
            "CompleteAbort" => Self::CompleteAbort,
            "Dead" => Self::Dead,
            _ => Self::Unknown,
        }
    }

    /// As a lower-case word, for logs and JSON. Stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Ongoing => "ongoing",
            Self::PrepareCommit => "prepare_commit",
            Self::PrepareAbort => "prepare_abort",
            Self::PrepareEpochFence => "prepare_epoch_fence",
            Self::CompleteCommit => "complete_commit",
            Self::CompleteAbort => "complete_abort",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
        }
    }
}

/// A transactional id as its coordinator lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedTransaction {
    /// The id.
    pub transactional_id: String,
    /// Its producer.
    pub producer: ProducerId,
    /// What it is doing.
    pub state: TransactionState,
    /// The broker that coordinates it.
    pub coordinator: NodeId,
}

/// A transactional id and its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionDescription {
    /// The id.
    pub transactional_id: String,
    /// What it is doing.
    pub state: TransactionState,
    /// Its producer, and which incarnation of it may write.
    pub producer: ProducerId,
    /// The producer's epoch.
    pub epoch: i16,
    /// After this the coordinator aborts.
    pub timeout: Duration,
    /// When it began; `None` where none is open.
    pub started: Option<Timestamp>,
    /// The partitions that it has written to; commits of a group stand as partitions of `__consumer_offsets`.
    pub partitions: BTreeMap<Topic, Vec<Partition>>,
}

/// A producer that a partition's leader remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActiveProducer {
    /// Its id.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: i32,
    /// The number of its last record.
    pub last_sequence: i32,
    /// The time of its last batch; -1 for none.
    pub last_timestamp: Timestamp,
    /// Which incarnation of the coordinator ended its last transaction; -1 for none.
    pub coordinator_epoch: i32,
    /// The first record of its transaction in this partition; `None` where none is open.
    pub transaction_start: Option<Offset>,
}

impl Admin {
    /// All transactional ids that the user may see, by id: asked of every broker, which each list those that they coordinate.
    ///
    /// Memory: all of them at once, about 100 bytes each.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] by a broker before Kafka 3.0; errors of the connection to any one of the brokers: without
    /// its ids the list would not be all.
    pub async fn transactions(&self) -> Result<Vec<ListedTransaction>> {
        let inner = &self.client.inner;
        inner.refresh(&[], false).await?;
        let nodes: Vec<NodeId> = inner.cluster().nodes().map(|(node, _)| node).collect();
        let mut all = BTreeMap::new();
        for listed in bounded(nodes.into_iter().map(|node| self.transactions_of(node)).collect()).await {
            all.extend(listed?.into_iter().map(|t| (t.transactional_id.clone(), t)));
        }
        Ok(all.into_values().collect())
    }

    async fn transactions_of(&self, node: NodeId) -> Result<Vec<ListedTransaction>> {
        let what = format!("list the transactions of broker {node}");
        let asked = async || -> Result<Vec<ListedTransaction>> {
            let link = self.client.inner.link(node).await?;
            let answer = link.call(ListTransactionsRequest::default().with_duration_filter(-1)).await?;
            judge(answer.error_code, || format!("broker {node}"))?;
            let listed = answer.transaction_states.iter().map(|t| ListedTransaction {
                transactional_id: t.transactional_id.0.as_str().to_owned(),
                producer: ProducerId(t.producer_id.0),
                state: TransactionState::read(&t.transaction_state),
                coordinator: node,
            });
            Ok(listed.collect())
        };
        // A coordinator that is loading is soon there, a connection that broke is made anew.
        for _ in 0..20 {
            match asked().await {
                Err(e) if e.is_retryable() => tokio::time::sleep(Duration::from_millis(100)).await,
                told => return told.map_err(|e| certain(e).context(&what)),
            }
        }
        asked().await.map_err(|e| certain(e).context(what))
    }

    /// A transactional id's state and what its transaction has written to.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where no coordinator knows it; [`ErrorKind::Denied`] without the right Describe on it;
    /// [`ErrorKind::Unsupported`] before Kafka 3.0; errors of the connection.
    pub async fn describe_transaction(&self, transactional_id: &str) -> Result<TransactionDescription> {
        let inner = &self.client.inner;
        let patience = inner.settings.request_timeout;
        let ids = vec![id(transactional_id)?];
        let mut told = inner
            .at_coordinators(
                Coordinated::Transaction,
                ids,
                HashMap::new(),
                TOGETHER,
                patience,
                |link, ids| async move {
                    let ids = ids.iter().map(|id| TransactionalId(text(id))).collect();
                    let answer =
                        link.call(DescribeTransactionsRequest::default().with_transactional_ids(ids)).await?;
                    let read = answer.transaction_states.iter().map(|t| {
                        let id = t.transactional_id.0.as_str().to_owned();
                        let told = judge(t.error_code, || format!("describe transactional id {id}"));
                        (id, told.map(|()| described(t)))
                    });
                    Ok(read.collect())
                },
            )
            .await;
        told.remove(transactional_id)
            .unwrap_or_else(|| Err(left_out(format_args!("transactional id {transactional_id}"))))
            .map_err(certain)
    }

    /// The producers that the leader of a partition remembers, by id; those with an open transaction tell where it began.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the partition is not there; [`ErrorKind::Denied`] without the right Read on the topic;
    /// [`ErrorKind::Unsupported`] before Kafka 2.8; errors of the connection.
    pub async fn producers(&self, topic: &Topic, partition: Partition) -> Result<Vec<ActiveProducer>> {
        let inner = &self.client.inner;
        let asked = vec![((topic.clone(), partition), ())];
        let told = inner
            .at_leaders(asked, 1, inner.settings.request_timeout, |link, asked| async move {
                let mut told = Vec::new();
                for (place, ()) in asked {
                    let producers = producers_at(&link, &place).await?;
                    told.push((place, (), producers));
                }
                Ok(told)
            })
            .await;
        let told = told.into_iter().next().map(|(_, (), told)| told);
        told.unwrap_or_else(|| Err(left_out(format_args!("topic {topic} partition {partition}"))))
            .map_err(|e| certain(e).context("describe producers"))
    }

    /// Aborts the open transaction of a transactional id, whoever holds it: its producer is fenced and learns so at its next
    /// request. Without an open transaction it only fences. Gives back when the coordinator has aborted.
    ///
    /// It may be done twice, and is where an answer was lost.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] without the right Write on the id; [`ErrorKind::Unavailable`] where the transaction is still
    /// being ended after the request timeout; errors of the connection: [`Error::is_ambiguous`] tells whether it may have
    /// been aborted.
    pub async fn abort_transaction(&self, transactional_id: &str) -> Result<()> {
        let inner = &self.client.inner;
        let patience = inner.settings.request_timeout;
        let ids = vec![id(transactional_id)?];
        // What a producer that takes the id next says counts; it must only be within transaction.max.timeout.ms.
        const TIMEOUT_MS: i32 = 60_000;
        let mut done = inner
            .at_coordinators(
                Coordinated::Transaction,
                ids,
                HashMap::new(),
                1,
                patience,
                |link, ids| async move {
                    let mut done = HashMap::new();
                    for id in ids {
                        let request = InitProducerIdRequest::default()
                            .with_transactional_id(Some(TransactionalId(text(&id))))
                            .with_transaction_timeout_ms(TIMEOUT_MS)
                            .with_producer_id(WireId(-1))
                            .with_producer_epoch(-1);
                        let answer = link.call(request).await?;
                        let aborted = judge(answer.error_code, || {
                            format!("abort the transaction of transactional id {id}")
                        });
                        done.insert(id, aborted);
                    }
                    Ok(done)
                },
            )
            .await;
        done.remove(transactional_id)
            .unwrap_or_else(|| Err(left_out(format_args!("transactional id {transactional_id}"))))
    }

    /// Ends a transaction that hangs: one that a partition's leader has as open, and whose coordinator knows nothing of it any
    /// more. Readers of committed records wait before it for ever. It is named by its first offset there, as
    /// [`producers`](Self::producers) tells it; its records in this partition become aborted ones.
    ///
    /// **Danger**: a transaction that its coordinator still knows must not be ended so, as its other partitions would be
    /// committed: look with [`transactions`](Self::transactions) whether an id has this producer, and use
    /// [`abort_transaction`](Self::abort_transaction) then.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where no open transaction begins at this offset; [`ErrorKind::Denied`] without the right Alter
    /// on the cluster; [`ErrorKind::Unsupported`] before Kafka 3.0; errors of the connection: [`Error::is_ambiguous`] tells
    /// whether it may have been ended.
    pub async fn abort_hanging(&self, topic: &Topic, partition: Partition, start: Offset) -> Result<()> {
        let inner = &self.client.inner;
        // Whether a marker was sent: that the transaction is gone then is its end.
        let sent = AtomicBool::new(false);
        let asked = vec![((topic.clone(), partition), ())];
        let done = inner
            .at_leaders(asked, 1, inner.settings.request_timeout, |link, asked| {
                let sent = &sent;
                async move {
                    let mut done = Vec::new();
                    for (place, ()) in asked {
                        let ended = end(&link, &place, start, sent).await?;
                        done.push((place, (), ended));
                    }
                    Ok(done)
                }
            })
            .await;
        let done = done.into_iter().next().map(|(_, (), done)| done);
        let what = format!("abort the transaction that begins at offset {start}");
        done.unwrap_or_else(|| Err(left_out(format_args!("topic {topic} partition {partition}"))))
            .map_err(|e| if sent.load(Ordering::Relaxed) { e } else { certain(e) })
            .map_err(|e| e.context(what))
    }
}

fn id(transactional_id: &str) -> Result<String> {
    if transactional_id.is_empty() {
        return Err(Error::new(ErrorKind::Config, "the transactional id is empty; give one"));
    }
    Ok(transactional_id.to_owned())
}

fn described(told: &Told) -> TransactionDescription {
    let mut partitions: BTreeMap<Topic, Vec<Partition>> = BTreeMap::new();
    for t in &told.topics {
        let Ok(topic) = Topic::new(t.topic.0.as_str()) else { continue };
        partitions.entry(topic).or_default().extend(t.partitions.iter().copied().map(Partition));
    }
    partitions.values_mut().for_each(|partitions| partitions.sort_unstable());
    TransactionDescription {
        transactional_id: told.transactional_id.0.as_str().to_owned(),
        state: TransactionState::read(&told.transaction_state),
        producer: ProducerId(told.producer_id.0),
        epoch: told.producer_epoch,
        timeout: Duration::from_millis(u64::try_from(told.transaction_timeout_ms).unwrap_or(0)),
        started: (told.transaction_start_time_ms >= 0).then_some(Timestamp(told.transaction_start_time_ms)),
        partitions,
    }
}

async fn producers_at(link: &Arc<Link>, place: &Place) -> Result<Result<Vec<ActiveProducer>>> {
    let topic =
        TopicRequest::default().with_name(topic_name(&place.0)).with_partition_indexes(vec![place.1.0]);
    let answer = link.call(DescribeProducersRequest::default().with_topics(vec![topic])).await?;
    let Some(told) = answer.topics.first().and_then(|t| t.partitions.first()) else {
        return Ok(Err(left_out(named(place))));
    };
    let mut producers: Vec<_> = told
        .active_producers
        .iter()
        .map(|p| ActiveProducer {
            producer: ProducerId(p.producer_id.0),
            epoch: p.producer_epoch,
            last_sequence: p.last_sequence,
            last_timestamp: Timestamp(p.last_timestamp),
            coordinator_epoch: p.coordinator_epoch,
            transaction_start: (p.current_txn_start_offset >= 0)
                .then_some(Offset(p.current_txn_start_offset)),
        })
        .collect();
    producers.sort_by_key(|p| p.producer);
    Ok(judge_leader(told.error_code, || named(place)).map(|()| producers))
}

async fn end(link: &Arc<Link>, place: &Place, start: Offset, sent: &AtomicBool) -> Result<Result<()>> {
    let producers = match producers_at(link, place).await? {
        Ok(producers) => producers,
        Err(e) => return Ok(Err(e)),
    };
    let Some(open) = producers.into_iter().find(|p| p.transaction_start == Some(start)) else {
        if sent.load(Ordering::Relaxed) {
            return Ok(Ok(()));
        }
        let why = format!("{}: no open transaction begins there", named(place));
        return Ok(Err(Error::new(ErrorKind::NotFound, why)));
    };
    let topic = WritableTxnMarkerTopic::default()
        .with_name(topic_name(&place.0))
        .with_partition_indexes(vec![place.1.0]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(WireId(open.producer.0))
        .with_producer_epoch(i16::try_from(open.epoch).unwrap_or(i16::MAX))
        .with_transaction_result(false)
        // -1 for a transaction that is its producer's first here: no marker was ever written.
        .with_coordinator_epoch(open.coordinator_epoch.max(0))
        .with_topics(vec![topic]);
    sent.store(true, Ordering::Relaxed);
    let answer = link.call(WriteTxnMarkersRequest::default().with_markers(vec![marker])).await?;
    let told = answer.markers.first().and_then(|m| m.topics.first()).and_then(|t| t.partitions.first());
    Ok(match told {
        Some(p) => judge_leader(p.error_code, || named(place)),
        None => Err(left_out(named(place)).ambiguous()),
    })
}
