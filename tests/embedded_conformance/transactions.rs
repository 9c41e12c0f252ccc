//! Transactions and producer ids.

use std::thread::sleep;
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::*;

use crate::peer::{Peer, Writer, batch, compare, list_offsets, produce, text};

const CONCURRENT_TRANSACTIONS: i16 = 51;

fn init_request(id: &str, timeout_ms: i32, expected: (i64, i16)) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text(id))))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id(ProducerId(expected.0))
        .with_producer_epoch(expected.1)
}

/// InitProducerId, asked again while the last transaction is being ended.
fn init_as(
    peer: &mut Peer,
    what: &str,
    v: i16,
    id: &str,
    timeout_ms: i32,
    expected: (i64, i16),
) -> (i64, i16) {
    let request = init_request(id, timeout_ms, expected);
    let mut answer = peer.call(v, &request);
    peer.wait("end of the last transaction", |peer| {
        if answer.error_code == CONCURRENT_TRANSACTIONS {
            answer = peer.call(v, &request);
        }
        answer.error_code != CONCURRENT_TRANSACTIONS
    });
    peer.note(&format!("{what} v{v}"), &format!("{answer:?}"));
    (answer.producer_id.0, answer.producer_epoch)
}

fn init(peer: &mut Peer, id: &str) -> (i64, i16) {
    peer.coordinator(1, id);
    init_as(peer, "init", 5, id, 60_000, (-1, -1))
}

fn topic_partitions(topic: &str, partitions: &[i32]) -> AddPartitionsToTxnTopic {
    AddPartitionsToTxnTopic::default().with_name(TopicName(text(topic))).with_partitions(partitions.to_vec())
}

fn add_request(id: &str, producer: (i64, i16), topic: &str, partitions: &[i32]) -> AddPartitionsToTxnRequest {
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(TransactionalId(text(id)))
        .with_v3_and_below_producer_id(ProducerId(producer.0))
        .with_v3_and_below_producer_epoch(producer.1)
        .with_v3_and_below_topics(vec![topic_partitions(topic, partitions)])
}

fn verify_request(
    id: &str,
    producer: (i64, i16),
    topic: &str,
    n: i32,
    only: bool,
) -> AddPartitionsToTxnRequest {
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(TransactionalId(text(id)))
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_verify_only(only)
        .with_topics(vec![topic_partitions(topic, &[n])]);
    AddPartitionsToTxnRequest::default().with_transactions(vec![transaction])
}

fn end_request(id: &str, producer: (i64, i16), commit: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(TransactionalId(text(id)))
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_committed(commit)
}

fn describe_request(id: &str) -> DescribeTransactionsRequest {
    DescribeTransactionsRequest::default().with_transactional_ids(vec![TransactionalId(text(id))])
}

/// Waits until the markers are written, and notes what became of the transaction.
fn settled(peer: &mut Peer, what: &str, id: &str) {
    peer.wait("end of the transaction", |peer| {
        let state = peer.call(0, &describe_request(id)).transaction_states[0].transaction_state.clone();
        !state.starts_with("Prepare")
    });
    described(peer, what, id);
}

fn described(peer: &mut Peer, what: &str, id: &str) {
    let mut answer = peer.call(0, &describe_request(id));
    for state in &mut answer.transaction_states {
        // A time; whether there is one is compared.
        state.transaction_start_time_ms = state.transaction_start_time_ms.signum();
        state.topics.iter_mut().for_each(|topic| topic.partitions.sort_unstable());
        if state.error_code != 0 {
            peer.note(what, &state.error_code.to_string());
            return;
        }
    }
    peer.note(&format!("{what}: described"), &format!("{answer:?}"));
}

/// Produces and notes the error alone: texts differ in the names of classes.
fn produced(peer: &mut Peer, what: &str, v: i16, topic: &str, n: i32, id: Option<&str>, writer: Writer) {
    let answer = peer.call(v, &produce(topic, n, id, Some(batch(writer, 1))));
    let partition = &answer.responses[0].partition_responses[0];
    peer.note(&format!("{what} v{v}"), &format!("{} at {}", partition.error_code, partition.base_offset));
}

#[test]
fn a_producer_id_is_given_or_refused_alike() {
    compare(|peer| {
        let id = peer.name("x");
        peer.coordinator(1, &id);
        for v in 0..=5 {
            peer.see("empty id", v, &init_request("", 1000, (-1, -1)));
        }
        for timeout in [0, -1, i32::MIN, i32::MAX, 900_001] {
            peer.see(&format!("timeout {timeout}"), 5, &init_request(&id, timeout, (-1, -1)));
        }
        for expected in [(-1, 3), (3, -1), (-2, 0), (0, -2), (i64::MAX, i16::MAX)] {
            peer.see(&format!("expected {expected:?}"), 4, &init_request(&id, 1000, expected));
        }
        for v in 0..=5 {
            peer.see("again", v, &init_request(&id, 900_000, (-1, -1)));
        }
        let (producer, epoch) = init(peer, &id);
        // KIP-360: the producer says who it believes to be.
        for expected in [
            (producer, epoch),
            (producer, epoch),
            (producer, epoch - 1),
            (producer, epoch + 1),
            (producer + 1, epoch),
        ] {
            for v in [3, 4, 5] {
                let from_last = (expected.0 - producer, expected.1 - epoch);
                peer.see(
                    &format!("expected {from_last:?} from the last"),
                    v,
                    &init_request(&id, 1000, expected),
                );
            }
        }
        described(peer, "in the end", &id);
    });
}

#[test]
fn partitions_are_added_or_refused_alike() {
    compare(|peer| {
        let topic = peer.topic(3, &[]);
        let (id, unknown) = (peer.name("x"), peer.name("unknown"));
        let missing = peer.name("missing");
        let (producer, epoch) = init(peer, &id);
        for v in 0..=3 {
            peer.see("unknown id", v, &add_request(&unknown, (producer, epoch), &topic, &[0]));
            peer.see("empty id", v, &add_request("", (producer, epoch), &topic, &[0]));
            peer.see("another's producer id", v, &add_request(&id, (producer + 1, epoch), &topic, &[0]));
            peer.see("newer epoch", v, &add_request(&id, (producer, epoch + 1), &topic, &[0]));
            let mut answer = peer.call(v, &add_request(&id, (producer, epoch), &topic, &[0, 3]));
            // The real broker's come in no order.
            let results = &mut answer.results_by_topic_v3_and_below[0].results_by_partition;
            results.sort_by_key(|result| result.partition_index);
            peer.note(&format!("no such partition v{v}"), &format!("{answer:?}"));
            peer.see("no such topic", v, &add_request(&id, (producer, epoch), &missing, &[0]));
        }
        described(peer, "none added", &id);
        let (producer, epoch) = init(peer, &id);
        for v in 0..=3 {
            peer.see("older epoch", v, &add_request(&id, (producer, epoch - 1), &topic, &[0]));
            peer.see("added", v, &add_request(&id, (producer, epoch), &topic, &[0, 1]));
        }
        described(peer, "two added", &id);
        for v in [4, 5] {
            for n in [0, 2, 3] {
                peer.see(
                    &format!("verified {n}"),
                    v,
                    &verify_request(&id, (producer, epoch), &topic, n, true),
                );
            }
            peer.see("verified, older", v, &verify_request(&id, (producer, epoch - 1), &topic, 0, true));
            peer.see("verified, unknown", v, &verify_request(&unknown, (producer, epoch), &topic, 0, true));
            peer.see("verified, empty", v, &verify_request("", (producer, epoch), &topic, 0, true));
            peer.see("added by a broker", v, &verify_request(&id, (producer, epoch), &topic, 2, false));
        }
        described(peer, "three added", &id);
    });
}

#[test]
fn offsets_are_announced_or_refused_alike() {
    compare(|peer| {
        let (id, group) = (peer.name("x"), peer.name("group"));
        let (producer, epoch) = init(peer, &id);
        peer.coordinator(0, &group);
        let request = |id: &str, producer: i64, epoch: i16| {
            AddOffsetsToTxnRequest::default()
                .with_transactional_id(TransactionalId(text(id)))
                .with_producer_id(ProducerId(producer))
                .with_producer_epoch(epoch)
                .with_group_id(GroupId(text(&group)))
        };
        for v in 0..=4 {
            peer.see("unknown id", v, &request("no such id", producer, epoch));
            peer.see("empty id", v, &request("", producer, epoch));
            peer.see("another's producer id", v, &request(&id, producer + 1, epoch));
            peer.see("newer epoch", v, &request(&id, producer, epoch + 1));
            peer.see("announced", v, &request(&id, producer, epoch));
        }
        let topics = peer.call(0, &describe_request(&id)).transaction_states[0].topics.clone();
        let topics: Vec<_> = topics.iter().map(|t| (t.topic.to_string(), t.partitions.len())).collect();
        peer.note("described", &format!("{topics:?}"));
    });
}

#[test]
fn transactions_of_version_1_end_or_are_refused_alike() {
    compare(|peer| {
        let topic = peer.topic(1, &[]);
        let id = peer.name("x");
        for v in [0, 1, 2, 3, 4] {
            let (producer, epoch) = init(peer, &id);
            for commit in [true, false] {
                peer.see("unknown id", v, &end_request("no such id", (producer, epoch), commit));
                peer.see("empty id", v, &end_request("", (producer, epoch), commit));
                peer.see("another's producer id", v, &end_request(&id, (producer + 1, epoch), commit));
                peer.see("newer epoch", v, &end_request(&id, (producer, epoch + 1), commit));
                peer.see("nothing to end", v, &end_request(&id, (producer, epoch), commit));
            }
        }
        for commit in [true, false] {
            let (producer, epoch) = init(peer, &id);
            for older in [1, 2, 4] {
                peer.see("older epoch", older, &end_request(&id, (producer, epoch - 1), commit));
            }
            peer.call(3, &add_request(&id, (producer, epoch), &topic, &[0]));
            peer.see("ended", 4, &end_request(&id, (producer, epoch), commit));
            settled(peer, "ended", &id);
            for again in [commit, !commit] {
                peer.see("ended again", 4, &end_request(&id, (producer, epoch), again));
            }
            // The next one by the same producer.
            peer.see("next", 3, &add_request(&id, (producer, epoch), &topic, &[0]));
            peer.see("next ended", 4, &end_request(&id, (producer, epoch), !commit));
            settled(peer, "next ended", &id);
        }
    });
}

#[test]
fn transactions_of_version_2_end_or_are_refused_alike() {
    compare(|peer| {
        let topic = peer.topic(1, &[]);
        let id = peer.name("x");
        let (producer, epoch) = init(peer, &id);
        for commit in [true, false] {
            peer.see("unknown id", 5, &end_request("no such id", (producer, epoch), commit));
            peer.see("empty id", 5, &end_request("", (producer, epoch), commit));
            peer.see("another's producer id", 5, &end_request(&id, (producer + 1, epoch), commit));
            peer.see("newer epoch", 5, &end_request(&id, (producer, epoch + 1), commit));
        }
        peer.see("commit of nothing", 5, &end_request(&id, (producer, epoch), true));
        peer.see("abort of nothing", 5, &end_request(&id, (producer, epoch), false));
        settled(peer, "abort of nothing", &id);
        for commit in [true, false, true, false] {
            let (producer, epoch) = init(peer, &id);
            let writer = Writer { producer: Some((producer, epoch)), sequence: 0, transactional: true };
            produced(peer, "produced", 12, &topic, 0, Some(&id), writer);
            described(peer, "produced", &id);
            peer.see("ended", 5, &end_request(&id, (producer, epoch), commit));
            settled(peer, "ended", &id);
            for again in [commit, !commit] {
                peer.see("repeated", 5, &end_request(&id, (producer, epoch), again));
            }
            peer.see("older", 5, &end_request(&id, (producer, epoch - 1), commit));
            peer.see("commit of nothing after", 5, &end_request(&id, (producer, epoch + 1), true));
            peer.see("abort of nothing after", 5, &end_request(&id, (producer, epoch + 1), false));
            settled(peer, "abort of nothing after", &id);
            // The next transaction goes on with the raised epoch.
            let writer = Writer { producer: Some((producer, epoch + 2)), sequence: 0, transactional: true };
            produced(peer, "next", 12, &topic, 0, Some(&id), writer);
            let late = Writer { producer: Some((producer, epoch)), sequence: 1, transactional: true };
            produced(peer, "late", 12, &topic, 0, Some(&id), late);
            peer.see("next ended", 5, &end_request(&id, (producer, epoch + 2), commit));
            settled(peer, "next ended", &id);
        }
        // A client of version 1 comes after one of version 2, and the other way round.
        let (producer, epoch) = init(peer, &id);
        peer.see("added", 3, &add_request(&id, (producer, epoch), &topic, &[0]));
        peer.see("ended by version 2", 5, &end_request(&id, (producer, epoch), true));
        settled(peer, "ended by version 2", &id);
        peer.see("then by version 1", 4, &end_request(&id, (producer, epoch + 1), true));
        peer.see("then by version 1, other", 4, &end_request(&id, (producer, epoch + 1), false));
    });
}

#[test]
fn an_older_producer_is_fenced_alike() {
    compare(|peer| {
        let topic = peer.topic(1, &[]);
        let id = peer.name("x");
        for v in [3, 5] {
            let old = init(peer, &id);
            let writer = Writer { producer: Some(old), sequence: 0, transactional: true };
            if v == 3 {
                peer.see("added", 3, &add_request(&id, old, &topic, &[0]));
                produced(peer, "old writes", 11, &topic, 0, Some(&id), writer);
            } else {
                produced(peer, "old writes", 12, &topic, 0, Some(&id), writer);
            }
            let refused = peer.call(v, &init_request(&id, 60_000, (-1, -1)));
            peer.note("another comes", &format!("{refused:?}"));
            settled(peer, "fenced", &id);
            let new = init_as(peer, "another comes again", v, &id, 60_000, (-1, -1));
            peer.note("epochs", &format!("{}", new.1 - old.1));
            let late = Writer { sequence: 1, ..writer };
            for v in [10, 11, 12] {
                produced(peer, "old writes more", v, &topic, 0, Some(&id), late);
            }
            for v in [1, 2, 3] {
                peer.see("old adds", v, &add_request(&id, old, &topic, &[0]));
            }
            for v in [1, 2, 4, 5] {
                peer.see("old ends", v, &end_request(&id, old, true));
            }
            for v in [3, 4, 5] {
                peer.see("old begins", v, &init_request(&id, 60_000, old));
            }
        }
    });
}

#[test]
fn versions_1_and_2_mix_alike() {
    compare(|peer| {
        let topic = peer.topic(1, &[]);
        let id = peer.name("x");
        for (adds, ends, late) in [(3, 4, 5), (3, 5, 4), (12, 4, 5), (12, 5, 4), (3, 5, 5), (12, 4, 4)] {
            for commit in [true, false] {
                let old = init(peer, &id);
                let new = init(peer, &id);
                if adds == 3 {
                    peer.see("added", 3, &add_request(&id, new, &topic, &[0]));
                } else {
                    let writer = Writer { producer: Some(new), sequence: 0, transactional: true };
                    produced(peer, "produced", 12, &topic, 0, Some(&id), writer);
                }
                peer.see("ended", ends, &end_request(&id, new, commit));
                settled(peer, "ended", &id);
                for again in [commit, !commit] {
                    peer.see("older ends", late, &end_request(&id, old, again));
                    peer.see("same ends", late, &end_request(&id, new, again));
                    settled(peer, "same ended", &id);
                }
            }
        }
    });
}

#[test]
fn a_transaction_times_out_alike() {
    compare(|peer| {
        let topic = peer.topic(1, &[]);
        let id = peer.name("x");
        peer.coordinator(1, &id);
        let old = init_as(peer, "init", 5, &id, 300, (-1, -1));
        let writer = Writer { producer: Some(old), sequence: 0, transactional: true };
        produced(peer, "produced", 12, &topic, 0, Some(&id), writer);
        peer.wait("abort", |peer| {
            peer.call(0, &describe_request(&id)).transaction_states[0]
                .transaction_state
                .starts_with("CompleteAbort")
        });
        described(peer, "timed out", &id);
        produced(peer, "late", 12, &topic, 0, Some(&id), Writer { sequence: 1, ..writer });
        for v in [1, 4, 5] {
            for commit in [true, false] {
                peer.see("late end", v, &end_request(&id, old, commit));
            }
        }
        // The answer to the end was lost, says the producer, and begins anew (KIP-360).
        peer.see("begins anew", 5, &init_request(&id, 60_000, old));
        peer.see("begins anew without", 5, &init_request(&id, 60_000, (-1, -1)));
    });
}

#[test]
fn transactional_batches_are_taken_or_refused_alike() {
    compare(|peer| {
        let topic = peer.topic(4, &[]);
        let id = peer.name("x");
        let producer = init(peer, &id);
        let writer = Writer { producer: Some(producer), sequence: 0, transactional: true };
        for v in [3, 7, 9, 10, 11] {
            produced(peer, "not added", v, &topic, 0, Some(&id), writer);
        }
        produced(peer, "without an id", 12, &topic, 0, None, writer);
        produced(peer, "of an unknown id", 12, &topic, 0, Some("no such id"), writer);
        produced(
            peer,
            "not transactional",
            12,
            &topic,
            3,
            Some(&id),
            Writer { transactional: false, ..writer },
        );
        let another = Writer { producer: Some((producer.0 + 1, producer.1)), ..writer };
        let newer = Writer { producer: Some((producer.0, producer.1 + 1)), ..writer };
        for v in [9, 11, 12] {
            produced(peer, "another's producer id", v, &topic, 0, Some(&id), another);
            produced(peer, "newer epoch", v, &topic, 0, Some(&id), newer);
        }
        described(peer, "nothing written", &id);
        produced(peer, "added by itself", 12, &topic, 0, Some(&id), writer);
        produced(peer, "once more", 12, &topic, 0, Some(&id), writer);
        produced(peer, "a gap", 12, &topic, 0, Some(&id), Writer { sequence: 5, ..writer });
        produced(
            peer,
            "first with a later sequence",
            12,
            &topic,
            1,
            Some(&id),
            Writer { sequence: 5, ..writer },
        );
        described(peer, "written", &id);
        // What readers see before and after.
        for (step, commit) in [(1, false), (2, true)] {
            offsets(peer, "open", &topic);
            let producer = (producer.0, producer.1 + step - 1);
            peer.see("ended", 5, &end_request(&id, producer, commit));
            settled(peer, "ended", &id);
            offsets(peer, "ended", &topic);
            let next =
                Writer { producer: Some((producer.0, producer.1 + 1)), sequence: 0, transactional: true };
            produced(peer, "next", 12, &topic, 0, Some(&id), next);
        }
        producers(peer, "in the end", &topic, &[0, 1, 2, 9]);
    });
}

fn offsets(peer: &mut Peer, what: &str, topic: &str) {
    for isolation in [0, 1] {
        let request = list_offsets(topic, 0, -1).with_isolation_level(isolation);
        peer.see(&format!("{what}: latest at isolation {isolation}"), 7, &request);
    }
}

fn producers(peer: &mut Peer, what: &str, topic: &str, partitions: &[i32]) {
    use describe_producers_request::TopicRequest;
    let asked = |topic: &str| {
        let asked = TopicRequest::default()
            .with_name(TopicName(text(topic)))
            .with_partition_indexes(partitions.to_vec());
        DescribeProducersRequest::default().with_topics(vec![asked])
    };
    let mut answer = peer.call(0, &asked(topic));
    for partition in &mut answer.topics[0].partitions {
        partition.error_message = partition.error_message.take().map(|_| text("told"));
        for producer in &mut partition.active_producers {
            producer.last_timestamp = producer.last_timestamp.signum();
            // Counts the times that the coordinator's partition was loaded.
            producer.coordinator_epoch = producer.coordinator_epoch.signum();
        }
    }
    peer.note(&format!("{what}: producers"), &format!("{answer:?}"));
    for topic in ["no-such", "no such"] {
        let mut answer = peer.call(0, &asked(topic));
        let partition = &mut answer.topics[0].partitions[0];
        partition.error_message = partition.error_message.take().map(|_| text("told"));
        peer.note(&format!("producers of {topic}"), &format!("{:?}", answer.topics[0].partitions[0]));
    }
}

#[test]
fn transactions_are_listed_and_described_alike() {
    compare(|peer| {
        let topic = peer.topic(2, &[]);
        let prefix = peer.name("list");
        let mut ids = Vec::new();
        for (n, end) in [None, Some(true), Some(false), None].into_iter().enumerate() {
            let id = format!("{prefix}-{n}");
            let producer = init(peer, &id);
            if n > 0 {
                peer.call(3, &add_request(&id, producer, &topic, &[1, 0]));
            }
            if let Some(commit) = end {
                peer.call(5, &end_request(&id, producer, commit));
            }
            settled(peer, "made", &id);
            ids.push(ProducerId(producer.0));
        }
        let listed = |peer: &mut Peer, what: &str, v: i16, request: ListTransactionsRequest| {
            let mut answer = peer.call(v, &request.with_producer_id_filters(ids.clone()));
            answer.transaction_states.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
            peer.note(&format!("{what} v{v}"), &format!("{answer:?}"));
        };
        let all = ListTransactionsRequest::default;
        for v in 0..=2 {
            listed(peer, "all", v, all());
            for state in ["Ongoing", "CompleteCommit", "ongoing", "Dead", "PrepareEpochFence", "Nonsense"] {
                listed(peer, state, v, all().with_state_filters(vec![text(state)]));
            }
            listed(peer, "two", v, all().with_state_filters(vec![text("Empty"), text("Nonsense")]));
        }
        for duration in [-1, 0, 100_000] {
            sleep(Duration::from_millis(5));
            listed(peer, &format!("longer than {duration}"), 1, all().with_duration_filter(duration));
        }
        for pattern in [".*-2", "list", "list.*", "[", "", "(a)\\1"] {
            listed(
                peer,
                pattern,
                2,
                all().with_transactional_id_pattern(Some(text(pattern))).with_duration_filter(-1),
            );
        }
        for id in ["", "no such id"] {
            described(peer, &format!("{id:?}"), id);
        }
    });
}
