//! Transactions and producer ids, through requests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse,
    ProduceRequest, ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::{Init, Part, TransactionSettings, Transactions};
use crate::codec::record_batch::{BatchBuilder, BatchOptions};
use crate::embedded::kafka::bed::Bed;
use crate::embedded::kafka::cluster::Settings;
use crate::embedded::machine::ConnectionId;
use crate::{NodeId, ProducerEpoch, Sequence, Topic};

const NONE: i16 = 0;
const NOT_COORDINATOR: i16 = 16;
const POLICY_VIOLATION: i16 = 44;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
const CONCURRENT_TRANSACTIONS: i16 = 51;
const PRODUCER_FENCED: i16 = 90;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One broker with topic `t` of three partitions.
fn bed(settings: Settings) -> (Bed, ConnectionId) {
    let mut bed = Bed::new(1, settings);
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 3).unwrap();
    let c = bed.connect(1);
    (bed, c)
}

fn init_request(id: Option<&str>, expected: (i64, i16)) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(id.map(|id| TransactionalId(text(id))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(expected.0))
        .with_producer_epoch(expected.1)
}

fn init(bed: &mut Bed, c: ConnectionId, id: &str) -> InitProducerIdResponse {
    bed.call(c, 5, &init_request(Some(id), (-1, -1)))
}

fn who(response: &InitProducerIdResponse) -> (i64, i16) {
    assert_eq!(response.error_code, NONE);
    (response.producer_id.0, response.producer_epoch)
}

fn add(bed: &mut Bed, c: ConnectionId, id: &str, producer: (i64, i16), n: i32) -> i16 {
    let topic = AddPartitionsToTxnTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![n]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(TransactionalId(text(id)))
        .with_v3_and_below_producer_id(ProducerId(producer.0))
        .with_v3_and_below_producer_epoch(producer.1)
        .with_v3_and_below_topics(vec![topic]);
    let response = bed.call(c, 3, &request);
    response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
}

fn end(
    bed: &mut Bed,
    c: ConnectionId,
    v: i16,
    id: &str,
    producer: (i64, i16),
    commit: bool,
) -> EndTxnResponse {
    let request = EndTxnRequest::default()
        .with_transactional_id(TransactionalId(text(id)))
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_committed(commit);
    bed.call(c, v, &request)
}

#[test]
fn an_idempotent_producer_gets_an_id_of_its_own_at_epoch_0() {
    let (mut bed, c) = bed(Settings::default());
    for version in 0..=5 {
        let expected = if version >= 3 { (-1, -1) } else { (0, 0) };
        let mut request = init_request(None, expected);
        if version < 3 {
            request = InitProducerIdRequest::default().with_transactional_id(None);
        }
        let answer = bed.call(c, version, &request);
        assert_eq!(who(&answer), (i64::from(version), 0));
    }
}

#[test]
fn a_transactional_id_keeps_its_producer_and_raises_the_epoch() {
    let (mut bed, c) = bed(Settings::default());
    let first = who(&init(&mut bed, c, "x"));
    assert_eq!(who(&init(&mut bed, c, "x")), (first.0, first.1 + 1));
    assert_ne!(who(&init(&mut bed, c, "y")).0, first.0);
}

#[test]
fn a_client_meets_concurrent_transactions_while_markers_are_held_back() {
    let delay = Duration::from_secs(2);
    let transactions = TransactionSettings { marker_delay: delay, ..TransactionSettings::default() };
    let (mut bed, c) = bed(Settings { transactions, ..Settings::default() });
    let producer = who(&init(&mut bed, c, "x"));
    assert_eq!(add(&mut bed, c, "x", producer, 0), NONE);
    let ended = end(&mut bed, c, 5, "x", producer, true);
    assert_eq!((ended.error_code, ended.producer_epoch), (NONE, producer.1 + 1));
    let next = (producer.0, producer.1 + 1);
    assert_eq!(add(&mut bed, c, "x", next, 1), CONCURRENT_TRANSACTIONS);
    assert_eq!(init(&mut bed, c, "x").error_code, CONCURRENT_TRANSACTIONS);
    bed.advance(delay - Duration::from_millis(1));
    assert_eq!(add(&mut bed, c, "x", next, 1), CONCURRENT_TRANSACTIONS);
    bed.advance(Duration::from_millis(1));
    assert_eq!(add(&mut bed, c, "x", next, 1), NONE);
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let (mut bed, c) = bed(Settings::default());
    let producer = who(&init(&mut bed, c, "x"));
    assert_eq!(add(&mut bed, c, "x", producer, 0), NONE);
    bed.advance(Duration::from_millis(59_999));
    assert_eq!(add(&mut bed, c, "x", producer, 1), NONE, "adding does not begin it anew");
    bed.advance(Duration::from_millis(1));
    for (version, code) in [(1, INVALID_PRODUCER_EPOCH), (4, PRODUCER_FENCED)] {
        assert_eq!(end(&mut bed, c, version, "x", producer, true).error_code, code);
    }
    assert_eq!(add(&mut bed, c, "x", producer, 0), PRODUCER_FENCED);
}

#[test]
fn an_idle_transactional_id_is_forgotten_and_an_open_one_is_not() {
    let expiry = Duration::from_secs(3600);
    let transactions = TransactionSettings { expiry, ..TransactionSettings::default() };
    let (mut bed, c) = bed(Settings { transactions, ..Settings::default() });
    let idle = who(&init(&mut bed, c, "idle"));
    bed.advance(expiry - Duration::from_secs(1));
    let open = who(&init(&mut bed, c, "open"));
    assert_eq!(add(&mut bed, c, "open", open, 0), NONE);
    bed.advance(Duration::from_secs(1));
    assert_eq!(end(&mut bed, c, 4, "idle", idle, true).error_code, INVALID_PRODUCER_ID_MAPPING);
    assert_ne!(who(&init(&mut bed, c, "idle")).0, idle.0, "a new producer id");
    assert_eq!(end(&mut bed, c, 4, "open", open, true).error_code, NONE);
}

#[test]
fn an_exhausted_epoch_leads_to_a_new_producer_id() {
    let mut transactions = Transactions::new(TransactionSettings::default());
    let now = Bed::new(1, Settings::default()).now;
    let init = |transactions: &mut Transactions, expected| {
        let init = Init { transactional_id: "x", timeout_ms: 60_000, expected };
        transactions.init(init, now).unwrap()
    };
    let first = init(&mut transactions, None);
    let mut last = first;
    while last.1.0 < i16::MAX - 1 {
        last = init(&mut transactions, None);
        assert_eq!(last.0, first.0);
    }
    // By an end: the client never sees the largest epoch.
    let mut copy = transactions.clone();
    copy.add("x", last, &[Part::Group("g")], now).unwrap();
    let next = copy.end("x", last, true, true, now).unwrap();
    assert_ne!(next.0, first.0);
    assert_eq!(next.1, ProducerEpoch(0));
    let markers = copy.poll_markers(now).unwrap();
    assert_eq!(markers.producer, (first.0, ProducerEpoch(i16::MAX)));
    copy.complete("x", now);
    assert_eq!(copy.end("x", last, true, true, now), Ok(next), "a repeated end");
    assert_eq!(copy.add("x", next, &[Part::Group("g")], now), Ok(()));
    // By InitProducerId, also when its answer was lost.
    let next = init(&mut transactions, Some(last));
    assert_ne!(next.0, first.0);
    assert_eq!(next.1, ProducerEpoch(0));
    assert_eq!(init(&mut transactions, Some(last)), next);
}

#[test]
fn limits_are_refused_clearly() {
    let transactions = TransactionSettings { max_ids: 2, max_parts: 2, ..TransactionSettings::default() };
    let (mut bed, c) = bed(Settings { transactions, ..Settings::default() });
    let producer = who(&init(&mut bed, c, "a"));
    init(&mut bed, c, "b");
    assert_eq!(init(&mut bed, c, "c").error_code, POLICY_VIOLATION);
    assert_eq!(
        [0, 1, 2, 0].map(|n| add(&mut bed, c, "a", producer, n)),
        [NONE, NONE, POLICY_VIOLATION, NONE]
    );
    assert_eq!(who(&init(&mut bed, c, "b")).1, 1, "a known id is served");
}

#[test]
fn markers_wait_for_a_leader_that_is_away_and_not_for_a_topic_that_is_gone() {
    let mut bed = Bed::new(2, Settings::default());
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 3).unwrap();
    let home = (1..=2).find(|n| bed.cluster.check_transaction_coordinator(NodeId(*n), "x").is_ok()).unwrap();
    let c = bed.connect(home);
    let other = bed.connect(3 - home);
    let refused = bed.call(other, 5, &init_request(Some("x"), (-1, -1)));
    assert_eq!(refused.error_code, NOT_COORDINATOR);
    let producer = who(&init(&mut bed, c, "x"));
    assert_eq!(add(&mut bed, c, "x", producer, 0), NONE);
    bed.cluster.topics.change("t", 0, |partition, _| partition.leader = None).unwrap();
    assert_eq!(end(&mut bed, c, 4, "x", producer, true).error_code, NONE);
    bed.advance(Duration::from_secs(5));
    assert_eq!(add(&mut bed, c, "x", producer, 1), CONCURRENT_TRANSACTIONS);
    bed.cluster.topics.change("t", 0, |partition, _| partition.leader = Some(NodeId(1))).unwrap();
    bed.advance(Duration::from_secs(1));
    assert_eq!(bed.cluster.topics.partition("t", 0).unwrap().log.end(), 1, "the marker");
    assert_eq!(add(&mut bed, c, "x", producer, 1), NONE);
    bed.cluster.delete_topic("t", bed.now);
    assert_eq!(end(&mut bed, c, 4, "x", producer, true).error_code, NONE);
    assert_eq!(init(&mut bed, c, "x").error_code, NONE);
}

#[test]
fn wrong_timeouts_are_refused() {
    let (mut bed, c) = bed(Settings::default());
    for (timeout, code) in
        [(0, INVALID_TRANSACTION_TIMEOUT), (900_001, INVALID_TRANSACTION_TIMEOUT), (900_000, NONE)]
    {
        let request = init_request(Some("x"), (-1, -1)).with_transaction_timeout_ms(timeout);
        assert_eq!(bed.call(c, 4, &request).error_code, code);
    }
    assert_eq!(end(&mut bed, c, 4, "x", (0, 0), true).error_code, INVALID_TXN_STATE);
}

// ---- A naive model ----

/// What a producer does: several of them with one transactional id, none of which knows of the others.
#[derive(Debug, Clone)]
enum Step {
    Init {
        client: usize,
    },
    /// A write of one record to a partition, with Produce v12 or, added before, v11.
    Write {
        client: usize,
        partition: i32,
        newer: bool,
    },
    End {
        client: usize,
        commit: bool,
        newer: bool,
    },
    Wait {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..3usize;
    let step = prop_oneof![
        2 => client.clone().prop_map(|client| Step::Init { client }),
        6 => (client.clone(), 0..3, any::<bool>())
            .prop_map(|(client, partition, newer)| Step::Write { client, partition, newer }),
        4 => (client, any::<bool>(), any::<bool>())
            .prop_map(|(client, commit, newer)| Step::End { client, commit, newer }),
        1 => (1..50u64).prop_map(|seconds| Step::Wait { seconds }),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Debug, Default, Clone)]
struct Client {
    producer: Option<(i64, i16)>,
    /// The next sequence, by partition.
    sequences: BTreeMap<i32, i32>,
}

/// One transactional id as one would write it on a napkin.
#[derive(Debug, Default)]
struct Model {
    owner: Option<usize>,
    /// What is written in the open transaction, and when it began.
    open: Vec<(i32, u64)>,
    begun: Option<Duration>,
    committed: BTreeMap<i32, Vec<u64>>,
    aborted: u64,
}

impl Model {
    fn end(&mut self, commit: bool) {
        for (partition, value) in self.open.drain(..) {
            match commit {
                true => self.committed.entry(partition).or_default().push(value),
                false => self.aborted += 1,
            }
        }
        self.begun = None;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Readers of committed records see what was committed by a producer that was not fenced, and nothing else.
    #[test]
    fn committed_readers_see_what_the_owner_committed(steps in steps()) {
        let (mut bed, c) = bed(Settings::default());
        let begin = bed.now;
        let mut clients = vec![Client::default(); 3];
        let mut model = Model::default();
        let mut value = 0;
        for step in steps {
            let elapsed = bed.now - begin;
            match step {
                Step::Init { client } => {
                    let mut answer = init(&mut bed, c, "x");
                    if model.begun.is_some() {
                        prop_assert_eq!(answer.error_code, CONCURRENT_TRANSACTIONS);
                        model.end(false);
                        answer = init(&mut bed, c, "x");
                    }
                    clients[client] = Client { producer: Some(who(&answer)), ..Client::default() };
                    model.owner = Some(client);
                }
                Step::Write { client, partition, newer } => {
                    let state = &mut clients[client];
                    let Some(producer) = state.producer else { continue };
                    let owns = model.owner == Some(client);
                    let sequence = state.sequences.entry(partition).or_default();
                    let mut code = NONE;
                    if !newer {
                        code = add(&mut bed, c, "x", producer, partition);
                        prop_assert_eq!(code == NONE, owns, "add: {}", code);
                        if owns {
                            model.begun.get_or_insert(elapsed);
                        }
                    }
                    if code == NONE {
                        value += 1;
                        let version = if newer { 12 } else { 11 };
                        code = write(&mut bed, c, version, producer, partition, *sequence, value);
                        prop_assert_eq!(code == NONE, owns, "write: {}", code);
                    }
                    if code == NONE {
                        *sequence += 1;
                        model.begun.get_or_insert(elapsed);
                        model.open.push((partition, value));
                    } else {
                        prop_assert!([INVALID_PRODUCER_EPOCH, PRODUCER_FENCED].contains(&code), "{}", code);
                    }
                }
                Step::End { client, commit, newer } => {
                    let state = &mut clients[client];
                    let Some(producer) = state.producer else { continue };
                    let version = if newer { 5 } else { 4 };
                    let before = model.begun.is_some();
                    let answer = end(&mut bed, c, version, "x", producer, commit);
                    if model.owner != Some(client) {
                        // The real broker takes a late end of the producer before for a repeated one; it changes
                        // nothing.
                        prop_assert!(answer.error_code != NONE || newer, "{answer:?}");
                        continue;
                    }
                    if before {
                        prop_assert_eq!(answer.error_code, NONE);
                        model.end(commit);
                    }
                    if newer && answer.error_code == NONE {
                        let next = (answer.producer_id.0, answer.producer_epoch);
                        prop_assert!(next == (producer.0, producer.1 + 1), "{answer:?}");
                        *state = Client { producer: Some(next), ..Client::default() };
                    }
                }
                Step::Wait { seconds } => {
                    bed.advance(Duration::from_secs(seconds));
                    let elapsed = bed.now - begin;
                    if model.begun.is_some_and(|begun| elapsed >= begun + Duration::from_secs(60)) {
                        model.end(false);
                        model.owner = None;
                    }
                }
            }
            check(&bed, &model)?;
        }
    }
}

/// What a reader of committed records sees, as it would work it out of the log.
fn check(bed: &Bed, model: &Model) -> Result<(), TestCaseError> {
    for n in 0..3 {
        let log = &bed.cluster.topics.partition("t", n).unwrap().log;
        let stable = log.last_stable_offset();
        let mut aborted: Vec<_> = log.aborted(0, stable).map(|a| (a.producer_id, a.first_offset)).collect();
        aborted.sort_by_key(|(_, first)| *first);
        let mut aborting = BTreeSet::new();
        let mut seen = Vec::new();
        for batch in log.batches().take_while(|batch| batch.last_offset < stable) {
            while aborted.first().is_some_and(|(_, first)| *first <= batch.base_offset) {
                aborting.insert(aborted.remove(0).0);
            }
            if batch.is_control() {
                aborting.remove(&batch.producer_id());
            } else if !aborting.contains(&batch.producer_id()) {
                let (_, records) = batch.read().unwrap();
                for record in records.iter() {
                    let value = record.unwrap().value().unwrap();
                    seen.push(u64::from_be_bytes(value.try_into().unwrap()));
                }
            }
        }
        let committed = model.committed.get(&n).cloned().unwrap_or_default();
        // One producer at a time: nothing stays open behind what was committed.
        prop_assert_eq!(seen, committed, "partition {}", n);
        let open = model.open.iter().any(|(partition, _)| *partition == n);
        prop_assert_eq!(stable < log.end(), open, "partition {}", n);
    }
    Ok(())
}

fn write(
    bed: &mut Bed,
    c: ConnectionId,
    v: i16,
    producer: (i64, i16),
    n: i32,
    sequence: i32,
    value: u64,
) -> i16 {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: crate::ProducerId(producer.0),
        producer_epoch: ProducerEpoch(producer.1),
        base_sequence: Sequence(sequence),
        transactional: true,
        ..BatchOptions::default()
    });
    let none: [(&str, Option<&[u8]>); 0] = [];
    let at = bed.cluster.wall(bed.now);
    builder.push(at, None, Some(&value.to_be_bytes()), none).unwrap();
    let data = PartitionProduceData::default().with_index(n).with_records(Some(builder.finish().unwrap()));
    let topic = TopicProduceData::default().with_name(TopicName(text("t"))).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(text("x"))))
        .with_acks(-1)
        .with_topic_data(vec![topic]);
    bed.call(c, v, &request).responses[0].partition_responses[0].error_code
}
