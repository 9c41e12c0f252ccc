//! Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::*;
use muslin::codec::record_batch::BatchList;
use uuid::Uuid;

use crate::peer::{Peer, Writer, batch, compare, list_offsets, produce, text};

/// A topic with three batches of two records in partition 0.
fn filled(peer: &mut Peer, partitions: i32) -> String {
    let topic = peer.topic(partitions, &[]);
    for _ in 0..3 {
        let answer = peer.call(12, &produce(&topic, 0, None, Some(batch(Writer::default(), 2))));
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    }
    topic
}

#[derive(Clone, Copy)]
struct Place<'a> {
    topic: &'a str,
    id: Uuid,
    n: i32,
    offset: i64,
    epoch: i32,
    max_bytes: i32,
}

fn fetch(v: i16, place: Place<'_>) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(place.n)
        .with_fetch_offset(place.offset)
        .with_current_leader_epoch(if v >= 9 { place.epoch } else { -1 })
        .with_log_start_offset(-1)
        .with_partition_max_bytes(place.max_bytes);
    let mut topic = FetchTopic::default().with_partitions(vec![partition]);
    if v >= 13 {
        topic.topic_id = place.id;
    } else {
        topic.topic = TopicName(text(place.topic));
    }
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(1 << 20)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Notes an answer: of the records their length alone, of the session that there is one.
fn fetched(peer: &mut Peer, what: &str, v: i16, request: &FetchRequest) -> Option<FetchResponse> {
    let answer = peer.try_call(v, request);
    let Some(answer) = answer else {
        peer.note(&format!("{what} v{v}"), "closed");
        peer.reconnect();
        return None;
    };
    let mut shown = answer.clone();
    shown.session_id = shown.session_id.signum();
    shown.node_endpoints.clear();
    let mut lengths = Vec::new();
    for partition in shown.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
        // The real broker may send a part of the last batch; whole ones are counted.
        let whole = |records: bytes::Bytes| BatchList::new(records).filter(Result::is_ok).count();
        lengths.push(partition.records.take().map_or(0, whole));
        partition.records = None;
        // Nobody follows a partition without other replicas.
        partition.current_leader.leader_id = BrokerId(partition.current_leader.leader_id.0.signum());
    }
    peer.note(&format!("{what} v{v}"), &format!("{shown:?} with {lengths:?} batches"));
    Some(answer)
}

#[test]
fn a_fetch_is_answered_alike() {
    compare(|peer| {
        let topic = filled(peer, 2);
        let id = peer.topic_id(&topic);
        let place = Place { topic: &topic, id, n: 0, offset: 0, epoch: -1, max_bytes: 1 << 20 };
        for v in 4..=17 {
            fetched(peer, "all", v, &fetch(v, place));
            fetched(peer, "from the middle of a batch", v, &fetch(v, Place { offset: 3, ..place }));
            fetched(peer, "the end", v, &fetch(v, Place { offset: 6, ..place }));
            fetched(peer, "beyond the end", v, &fetch(v, Place { offset: 7, ..place }));
            fetched(peer, "before the start", v, &fetch(v, Place { offset: -1, ..place }));
            fetched(peer, "no such partition", v, &fetch(v, Place { n: 2, ..place }));
            fetched(
                peer,
                "no such topic",
                v,
                &fetch(v, Place { topic: "no-such", id: Uuid::from_u128(7), ..place }),
            );
            fetched(peer, "newer epoch", v, &fetch(v, Place { epoch: 5, ..place }));
            fetched(peer, "this epoch", v, &fetch(v, Place { epoch: 0, ..place }));
        }
        for max_bytes in [0, 1, 100, 200, 300] {
            fetched(peer, &format!("{max_bytes} bytes"), 16, &fetch(16, Place { max_bytes, ..place }));
            let request = fetch(16, place).with_max_bytes(max_bytes);
            fetched(peer, &format!("{max_bytes} bytes altogether"), 16, &request);
        }
        fetched(peer, "nil id", 16, &fetch(16, Place { id: Uuid::nil(), ..place }));
        fetched(peer, "isolated", 16, &fetch(16, place).with_isolation_level(1));
        fetched(peer, "nothing", 16, &fetch(16, place).with_topics(Vec::new()));
    });
}

#[test]
fn fetch_sessions_go_alike() {
    compare(|peer| {
        let topic = filled(peer, 2);
        let id = peer.topic_id(&topic);
        let place = Place { topic: &topic, id, n: 0, offset: 0, epoch: -1, max_bytes: 1 << 20 };
        let begin = fetch(16, place).with_session_epoch(0);
        for (what, session, epoch) in
            [("unknown", 7, 1), ("unknown, first", 7, 0), ("unknown, last", 7, -1), ("none", 0, 1)]
        {
            fetched(peer, what, 16, &begin.clone().with_session_id(session).with_session_epoch(epoch));
        }
        let session = fetched(peer, "begun", 16, &begin).unwrap().session_id;
        let next = |epoch: i32| {
            begin.clone().with_session_id(session).with_session_epoch(epoch).with_topics(Vec::new())
        };
        fetched(peer, "next", 16, &next(1));
        fetched(peer, "wrong epoch", 16, &next(1));
        fetched(peer, "wrong epoch", 16, &next(7));
        fetched(peer, "moved", 16, &next(2).with_topics(fetch(16, Place { offset: 6, ..place }).topics));
        fetched(peer, "still there", 16, &next(3));
        peer.call(12, &produce(&topic, 0, None, Some(batch(Writer::default(), 2))));
        fetched(peer, "something new", 16, &next(4));
        fetched(peer, "something new still", 16, &next(5));
        fetched(peer, "one more", 16, &next(6).with_topics(fetch(16, Place { n: 1, ..place }).topics));
        let forgotten = ForgottenTopic::default().with_topic_id(id).with_partitions(vec![0]);
        fetched(peer, "forgotten", 16, &next(7).with_forgotten_topics_data(vec![forgotten]));
        fetched(
            peer,
            "unknown partition",
            16,
            &next(8).with_topics(fetch(16, Place { n: 5, ..place }).topics),
        );
        fetched(peer, "unknown partition again", 16, &next(9));
        fetched(peer, "closed", 16, &next(-1));
        fetched(peer, "after that", 16, &next(10));
    });
}

#[test]
fn offsets_are_listed_alike() {
    compare(|peer| {
        let topic = filled(peer, 2);
        let listed = |peer: &mut Peer, what: &str, v: i16, request: &ListOffsetsRequest| {
            let answer = peer.try_call(v, request);
            let Some(mut answer) = answer else {
                peer.note(&format!("{what} v{v}"), "closed");
                return peer.reconnect();
            };
            for partition in &mut answer.topics[0].partitions {
                partition.timestamp = partition.timestamp.signum();
            }
            peer.note(&format!("{what} v{v}"), &format!("{answer:?}"));
        };
        for v in 1..=10 {
            for timestamp in [-1, -2, -3, -4, -5, -6, -7, 0, i64::MAX] {
                listed(peer, &format!("at {timestamp}"), v, &list_offsets(&topic, 0, timestamp));
            }
            listed(peer, "of nothing, max", v, &list_offsets(&topic, 1, -3));
            listed(peer, "of nothing, at 0", v, &list_offsets(&topic, 1, 0));
            listed(peer, "no such partition", v, &list_offsets(&topic, 2, -1));
            listed(peer, "no such topic", v, &list_offsets("no-such", 0, -1));
            if v >= 4 {
                for epoch in [0, 1] {
                    let mut request = list_offsets(&topic, 0, -1);
                    request.topics[0].partitions[0].current_leader_epoch = epoch;
                    listed(peer, &format!("in epoch {epoch}"), v, &request);
                }
            }
        }
    });
}

#[test]
fn epochs_end_alike() {
    compare(|peer| {
        let topic = filled(peer, 1);
        let asked = |topic: &str, n: i32, current: i32, epoch: i32| {
            let partition = OffsetForLeaderPartition::default()
                .with_partition(n)
                .with_current_leader_epoch(current)
                .with_leader_epoch(epoch);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(TopicName(text(topic)))
                .with_partitions(vec![partition]);
            OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
        };
        for v in 2..=4 {
            for (current, epoch) in [(-1, 0), (0, 0), (0, 1), (0, -1), (1, 0), (-1, 7), (-2, -2)] {
                peer.see(&format!("epoch {epoch} in {current}"), v, &asked(&topic, 0, current, epoch));
            }
            peer.see("no such partition", v, &asked(&topic, 1, -1, 0));
            peer.see("no such topic", v, &asked("no-such", 0, -1, 0));
        }
    });
}

#[test]
fn records_are_deleted_alike() {
    compare(|peer| {
        let topic = filled(peer, 1);
        let asked = |topic: &str, n: i32, offset: i64| {
            let partition = DeleteRecordsPartition::default().with_partition_index(n).with_offset(offset);
            let topic = DeleteRecordsTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000)
        };
        for v in 0..=2 {
            for offset in [7, -2, 0, i64::from(v) + 1, 1, 0] {
                peer.see(&format!("before {offset}"), v, &asked(&topic, 0, offset));
            }
            peer.see("no such partition", v, &asked(&topic, 1, 0));
            peer.see("no such topic", v, &asked("no-such", 0, 0));
        }
        peer.see("start", 7, &list_offsets(&topic, 0, -2));
        peer.see("all", 2, &asked(&topic, 0, -1));
        let answer = peer.call(7, &list_offsets(&topic, 0, -2));
        peer.note("start", &format!("{}", answer.topics[0].partitions[0].offset));
    });
}
