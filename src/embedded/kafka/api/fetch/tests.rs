//! Fetch: its answer's bytes, its sessions, its waits.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ProduceRequest, ProducerId, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;

use super::encode::{Answer, Endpoint, PartitionAnswer, TopicAnswer, encode};
use crate::codec::record_batch::{BatchBuilder, BatchList, BatchOptions};
use crate::embedded::kafka::bed::Bed;
use crate::embedded::kafka::cluster::Settings;
use crate::embedded::kafka::log::{PartitionLog, Rules};
use crate::embedded::machine::ConnectionId;
use crate::{Timestamp, Topic};

const RULES: Rules = Rules {
    max_message_bytes: 1 << 20,
    segment_bytes: 1 << 30,
    append_time: false,
    before_max_ms: i64::MAX,
    after_max_ms: i64::MAX,
    compacted: false,
    zstd: true,
    starts_at_zero: false,
};

fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for value in values {
        builder.push(Timestamp(1), None, Some(value.as_bytes()), []).unwrap();
    }
    builder.finish().unwrap()
}

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

#[derive(Debug, Clone)]
struct One {
    index: i32,
    error: i16,
    numbers: [i64; 3],
    diverging: Option<(i32, i64)>,
    leader: Option<(i32, i32)>,
    aborted: Option<Vec<(i64, i64)>>,
    preferred: i32,
    /// Sizes of the values of the batches.
    batches: Vec<usize>,
}

fn one() -> impl Strategy<Value = One> {
    (
        any::<i32>(),
        any::<i16>(),
        any::<[i64; 3]>(),
        proptest::option::of(any::<(i32, i64)>()),
        proptest::option::of((0..9i32, any::<i32>())),
        proptest::option::of(proptest::collection::vec(any::<(i64, i64)>(), 0..3)),
        any::<i32>(),
        proptest::collection::vec(prop_oneof![0..40usize, 400..700usize], 0..5),
    )
        .prop_map(|(index, error, numbers, diverging, leader, aborted, preferred, batches)| One {
            index,
            error,
            numbers,
            diverging: diverging.filter(|d| *d != (-1, -1)),
            leader: leader.filter(|l| *l != (-1, -1)),
            aborted,
            preferred,
            batches,
        })
}

proptest! {
    #[test]
    fn an_answer_is_written_as_kafka_protocol_writes_it(
        topics in proptest::collection::vec(("[a-z]{1,200}", any::<u128>(), proptest::collection::vec(one(), 0..4)), 0..4),
        version in 4i16..=18,
        error in any::<i16>(),
        session in any::<i32>(),
        racks in proptest::collection::vec(proptest::option::of("[a-z]{0,9}"), 0..3),
    ) {
        let logs: Vec<Vec<PartitionLog>> = topics.iter().map(|(_, _, partitions)| {
            partitions.iter().map(|one| {
                let mut log = PartitionLog::default();
                for size in &one.batches {
                    log.append(&batch(&[&"x".repeat(*size)]), &RULES, 3, Timestamp(9)).unwrap();
                }
                log
            }).collect()
        }).collect();
        let mut answer = Answer { error, session_id: session, ..Answer::default() };
        let mut expected = FetchResponse::default();
        if version >= 7 {
            expected = expected.with_error_code(error).with_session_id(session);
        }
        for ((topic, id, partitions), logs) in topics.iter().zip(&logs) {
            let id = Uuid::from_u128(*id);
            let mut theirs = FetchableTopicResponse::default();
            theirs = if version >= 13 { theirs.with_topic_id(id) } else { theirs.with_topic(name(topic)) };
            let mut ours = TopicAnswer { name: topic, id, partitions: Vec::new() };
            for (one, log) in partitions.iter().zip(logs) {
                let slice = log.read(0, i64::MAX, u64::MAX, true);
                let records = (slice.batches > 0).then_some((log, slice));
                ours.partitions.push(PartitionAnswer {
                    index: one.index,
                    error: one.error,
                    high_watermark: one.numbers[0],
                    last_stable: one.numbers[1],
                    log_start: one.numbers[2],
                    diverging: one.diverging,
                    current_leader: one.leader,
                    aborted: one.aborted.clone(),
                    preferred: one.preferred,
                    records,
                });
                let all: Vec<u8> = log.batches().flat_map(|batch| batch.to_bytes()).collect();
                let mut data = PartitionData::default()
                    .with_partition_index(one.index)
                    .with_error_code(one.error)
                    .with_high_watermark(one.numbers[0])
                    .with_last_stable_offset(one.numbers[1])
                    .with_log_start_offset(one.numbers[2])
                    .with_records(Some(all.into()));
                data.aborted_transactions = one.aborted.as_ref().map(|aborted| aborted.iter().map(|(p, f)| {
                    AbortedTransaction::default().with_producer_id(ProducerId(*p)).with_first_offset(*f)
                }).collect());
                if version >= 11 {
                    data.preferred_read_replica = BrokerId(one.preferred);
                }
                if version >= 12 {
                    if let Some((epoch, end)) = one.diverging {
                        data.diverging_epoch = EpochEndOffset::default().with_epoch(epoch).with_end_offset(end);
                    }
                    if let Some((leader, epoch)) = one.leader {
                        data.current_leader =
                            LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch);
                    }
                }
                theirs.partitions.push(data);
            }
            answer.topics.push(ours);
            expected.responses.push(theirs);
        }
        if version >= 16 {
            for (i, rack) in (0..).zip(&racks) {
                let rack = rack.clone().map(StrBytes::from_string);
                answer.endpoints.push(Endpoint { node: i, host: format!("h{i}"), port: 9092 + i, rack: rack.clone() });
                expected.node_endpoints.push(
                    NodeEndpoint::default()
                        .with_node_id(BrokerId(i))
                        .with_host(format!("h{i}").into())
                        .with_port(9092 + i)
                        .with_rack(rack),
                );
            }
        }
        let ours: Vec<u8> = encode(&answer, version).concat();
        let mut theirs = BytesMut::new();
        expected.encode(&mut theirs, version).unwrap();
        prop_assert_eq!(ours, theirs.to_vec());
    }
}

fn bed(partitions: i32) -> Bed {
    let mut bed = Bed::new(1, Settings::default());
    bed.cluster.create_topic(&Topic::new("t").unwrap(), partitions).unwrap();
    bed
}

fn produce(bed: &mut Bed, c: ConnectionId, partition: i32, values: &[&str]) -> i64 {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch(values)));
    let topic = TopicProduceData::default().with_name(name("t")).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
    let answer = bed.call(c, 9, &request);
    let answer = &answer.responses[0].partition_responses[0];
    assert_eq!(answer.error_code, 0);
    answer.base_offset
}

fn at(partition: i32, offset: i64) -> FetchPartition {
    FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
}

fn fetch(partitions: Vec<FetchPartition>) -> FetchRequest {
    let topics = match partitions.is_empty() {
        true => vec![],
        false => vec![FetchTopic::default().with_topic(name("t")).with_partitions(partitions)],
    };
    FetchRequest::default().with_max_bytes(1 << 20).with_min_bytes(1).with_topics(topics)
}

/// Partition, error, values.
fn told(answer: &FetchResponse) -> Vec<(i32, i16, Vec<String>)> {
    let mut all = Vec::new();
    for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
        let mut values = Vec::new();
        for view in BatchList::new(partition.records.clone().unwrap_or_default()) {
            for record in &view.unwrap().records(1 << 20).unwrap() {
                values.push(String::from_utf8(record.unwrap().value().unwrap().to_vec()).unwrap());
            }
        }
        all.push((partition.partition_index, partition.error_code, values));
    }
    all
}

fn values(list: &[&str]) -> Vec<String> {
    list.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn a_fetch_waits_until_something_is_appended() {
    let mut bed = bed(2);
    let (reader, writer) = (bed.connect(1), bed.connect(1));
    let waits = bed.send(reader, 11, &fetch(vec![at(0, 0), at(1, 0)]).with_max_wait_ms(500));
    assert_eq!(bed.answer::<FetchRequest>(reader, 11, waits), None);
    produce(&mut bed, writer, 1, &["a"]);
    let answer = bed.answer::<FetchRequest>(reader, 11, waits).unwrap();
    assert_eq!(told(&answer), [(0, 0, vec![]), (1, 0, values(&["a"]))]);
}

#[test]
fn a_fetch_waits_for_as_many_bytes_as_it_wants_and_no_longer_than_it_says() {
    let mut bed = bed(1);
    let (reader, writer) = (bed.connect(1), bed.connect(1));
    let size = batch(&["a"]).len() as i32;
    let two = fetch(vec![at(0, 0)]).with_max_wait_ms(500).with_min_bytes(2 * size);
    let waits = bed.send(reader, 11, &two);
    produce(&mut bed, writer, 0, &["a"]);
    assert_eq!(bed.answer::<FetchRequest>(reader, 11, waits), None, "one of two");
    produce(&mut bed, writer, 0, &["b"]);
    let answer = bed.answer::<FetchRequest>(reader, 11, waits).unwrap();
    assert_eq!(told(&answer), [(0, 0, values(&["a", "b"]))]);

    let waits = bed.send(reader, 11, &fetch(vec![at(0, 2)]).with_max_wait_ms(500));
    bed.advance(Duration::from_millis(499));
    assert_eq!(bed.answer::<FetchRequest>(reader, 11, waits), None);
    bed.advance(Duration::from_millis(1));
    let answer = bed.answer::<FetchRequest>(reader, 11, waits).unwrap();
    assert_eq!(told(&answer), [(0, 0, vec![])]);
}

#[test]
fn a_fetch_that_waits_is_answered_when_its_topic_is_deleted_or_its_leader_moves() {
    let mut bed = Bed::new(2, Settings::default());
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 1).unwrap();
    let reader = bed.connect(1);
    let waits = bed.send(reader, 10, &fetch(vec![at(0, 0)]).with_max_wait_ms(60_000));
    let now = bed.now;
    bed.cluster.move_leader("t", 0, crate::NodeId(2), 0, now).unwrap();
    let answer = bed.answer::<FetchRequest>(reader, 10, waits).unwrap();
    assert_eq!(told(&answer), [(0, 6, vec![])], "NOT_LEADER_OR_FOLLOWER");
    let reader = bed.connect(2);
    let waits = bed.send(reader, 10, &fetch(vec![at(0, 0)]).with_max_wait_ms(60_000));
    bed.cluster.delete_topic("t", now);
    let answer = bed.answer::<FetchRequest>(reader, 10, waits).unwrap();
    assert_eq!(told(&answer), [(0, 3, vec![])], "UNKNOWN_TOPIC_OR_PARTITION");
}

#[test]
fn at_least_one_batch_comes_however_small_the_limits_are() {
    let mut bed = bed(2);
    let c = bed.connect(1);
    for partition in [0, 1] {
        produce(&mut bed, c, partition, &["first", "batch"]);
        produce(&mut bed, c, partition, &["second"]);
    }
    let small = |partition| at(partition, 0).with_partition_max_bytes(1);
    let answer = bed.call(c, 11, &fetch(vec![small(0), small(1)]));
    assert_eq!(told(&answer), [(0, 0, values(&["first", "batch"])), (1, 0, vec![])]);
    let size = batch(&["first", "batch"]).len() as i32;
    let answer = bed.call(c, 11, &fetch(vec![at(0, 0), at(1, 0)]).with_max_bytes(size));
    assert_eq!(told(&answer), [(0, 0, values(&["first", "batch"])), (1, 0, vec![])]);
}

#[test]
fn an_offset_out_of_the_log_is_refused_and_an_old_epoch_is_fenced() {
    let mut bed = bed(1);
    let c = bed.connect(1);
    produce(&mut bed, c, 0, &["a"]);
    for offset in [-1, 2] {
        let answer = bed.call(c, 11, &fetch(vec![at(0, offset)]));
        assert_eq!(told(&answer), [(0, 1, vec![])], "OFFSET_OUT_OF_RANGE");
    }
    let now = bed.now;
    bed.cluster.move_leader("t", 0, crate::NodeId(1), 0, now).unwrap();
    let epoch = |epoch| fetch(vec![at(0, 0).with_current_leader_epoch(epoch)]);
    assert_eq!(told(&bed.call(c, 11, &epoch(0))), [(0, 74, vec![])], "FENCED_LEADER_EPOCH");
    assert_eq!(told(&bed.call(c, 11, &epoch(2))), [(0, 75, vec![])], "UNKNOWN_LEADER_EPOCH");
    assert_eq!(told(&bed.call(c, 11, &epoch(1))), [(0, 0, values(&["a"]))]);
}

#[test]
fn a_client_ahead_of_a_lost_tail_is_told_where_the_logs_part() {
    let mut bed = Bed::new(2, Settings::default());
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 1).unwrap();
    let c = bed.connect(1);
    produce(&mut bed, c, 0, &["a"]);
    produce(&mut bed, c, 0, &["lost"]);
    let now = bed.now;
    bed.cluster.move_leader("t", 0, crate::NodeId(2), 1, now).unwrap();
    let c = bed.connect(2);
    let answer = bed.call(c, 12, &fetch(vec![at(0, 2).with_last_fetched_epoch(0)]));
    let partition = &answer.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.diverging_epoch.epoch), (0, 0));
    assert_eq!(partition.diverging_epoch.end_offset, 1);
}

#[test]
fn a_session_tells_what_changed_and_nothing_else() {
    let mut bed = bed(3);
    let c = bed.connect(1);
    let open = fetch(vec![at(0, 0), at(1, 0), at(2, 0)]).with_session_epoch(0);
    let answer = bed.call(c, 11, &open);
    let id = answer.session_id;
    assert!(id > 0);
    assert_eq!(told(&answer).len(), 3);
    let mut epoch = 0;
    let mut next = |partitions: Vec<FetchPartition>| {
        epoch += 1;
        fetch(partitions).with_session_id(id).with_session_epoch(epoch)
    };
    assert_eq!(told(&bed.call(c, 11, &next(vec![]))), [], "nothing changed");
    produce(&mut bed, c, 1, &["a"]);
    assert_eq!(told(&bed.call(c, 11, &next(vec![]))), [(1, 0, values(&["a"]))]);
    assert_eq!(told(&bed.call(c, 11, &next(vec![at(1, 1)]))), [], "the client has gone on");
    let mut forget = next(vec![]);
    forget.forgotten_topics_data =
        vec![ForgottenTopic::default().with_topic(name("t")).with_partitions(vec![1])];
    bed.call(c, 11, &forget);
    produce(&mut bed, c, 1, &["b"]);
    produce(&mut bed, c, 2, &["c"]);
    assert_eq!(told(&bed.call(c, 11, &next(vec![]))), [(2, 0, values(&["c"]))], "1 is forgotten");
    let old = fetch(vec![]).with_session_id(id).with_session_epoch(1);
    assert_eq!(bed.call(c, 11, &old).error_code, 71, "INVALID_FETCH_SESSION_EPOCH");
    bed.call(c, 11, &fetch(vec![at(0, 0)]).with_session_id(id).with_session_epoch(-1));
    assert_eq!(bed.call(c, 11, &next(vec![])).error_code, 70, "FETCH_SESSION_ID_NOT_FOUND");
}

#[test]
fn a_broker_keeps_a_bounded_number_of_sessions() {
    let mut bed = bed(2);
    let c = bed.connect(1);
    let open = fetch(vec![at(0, 0), at(1, 0)]).with_session_epoch(0);
    for _ in 0..1_000 {
        assert!(bed.call(c, 11, &open).session_id > 0);
    }
    assert_eq!(bed.call(c, 11, &open).session_id, 0, "all were used a moment ago");
    assert_eq!(bed.cluster.sessions[&crate::NodeId(1)].size(), (1_000, 2_000));
    bed.advance(Duration::from_secs(121));
    assert!(bed.call(c, 11, &open).session_id > 0, "an idle one makes room");
    assert_eq!(bed.cluster.sessions[&crate::NodeId(1)].size(), (1_000, 2_000));
}

#[derive(Debug, Clone)]
enum Step {
    Produce(i32),
    Add(i32),
    Forget(i32),
    Truncate(i32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4i32).prop_map(Step::Produce),
        2 => (0..4i32).prop_map(Step::Add),
        1 => (0..4i32).prop_map(Step::Forget),
        1 => (0..4i32).prop_map(Step::Truncate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A client that keeps what a session told it knows what full fetches would have told it.
    #[test]
    fn a_session_and_full_fetches_read_the_same(steps in proptest::collection::vec(step(), 1..40)) {
        let mut bed = bed(4);
        let (c, d) = (bed.connect(1), bed.connect(1));
        let answer = bed.call(c, 11, &fetch(vec![at(0, 0)]).with_session_epoch(0));
        let (id, mut epoch) = (answer.session_id, 1);
        // Position and log start, as a client holds them, of each partition of the session.
        let mut held = std::collections::BTreeMap::from([(0, (0i64, 0i64))]);
        let mut read = std::collections::BTreeMap::<i32, Vec<String>>::new();
        let mut count = 0;
        for step in steps {
            let mut request = fetch(vec![]);
            match step {
                Step::Produce(partition) => {
                    count += 1;
                    produce(&mut bed, d, partition, &[&format!("v{count}")]);
                }
                Step::Add(partition) => {
                    let (position, _) = *held.entry(partition).or_insert_with(|| {
                        (read.get(&partition).map_or(0, |values: &Vec<String>| values.len() as i64), -1)
                    });
                    request = fetch(vec![at(partition, position)]);
                }
                Step::Forget(partition) => {
                    if held.len() > 1 && held.remove(&partition).is_some() {
                        request.forgotten_topics_data =
                            vec![ForgottenTopic::default().with_topic(name("t")).with_partitions(vec![partition])];
                    }
                }
                Step::Truncate(partition) => {
                    bed.cluster.topics.change("t", partition, |partition, _| {
                        let end = partition.log.end();
                        partition.log.delete_before(end);
                    });
                }
            }
            // Until nothing more comes: positions are told as they move.
            for _ in 0..3 {
                let answer = bed.call(c, 11, &request.clone().with_session_id(id).with_session_epoch(epoch));
                prop_assert_eq!((answer.error_code, answer.session_id), (0, id));
                epoch += 1;
                let mut moved = Vec::new();
                for data in answer.responses.iter().flat_map(|topic| &topic.partitions) {
                    let Some((position, start)) = held.get_mut(&data.partition_index) else {
                        return Err(TestCaseError::fail("told of a partition that is not in the session"));
                    };
                    if data.error_code == 1 {
                        let log = &bed.cluster.topics.partition("t", data.partition_index).unwrap().log;
                        *position = log.log_start();
                        moved.push(at(data.partition_index, *position));
                        continue;
                    }
                    *start = data.log_start_offset;
                    for view in BatchList::new(data.records.clone().unwrap_or_default()) {
                        let view = view.unwrap();
                        for record in &view.records(1 << 20).unwrap() {
                            let record = record.unwrap();
                            if record.offset().0 >= *position {
                                let value = String::from_utf8(record.value().unwrap().to_vec()).unwrap();
                                read.entry(data.partition_index).or_default().push(value);
                                *position = record.offset().0 + 1;
                            }
                        }
                        moved.push(at(data.partition_index, *position));
                    }
                }
                request = fetch(moved);
            }
            for (partition, (position, start)) in &held {
                let log = &bed.cluster.topics.partition("t", *partition).unwrap().log;
                prop_assert_eq!(*position, log.end(), "partition {}", partition);
                prop_assert_eq!(*start, log.log_start(), "partition {}", partition);
            }
        }
    }
}
