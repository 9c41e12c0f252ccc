//! Produce: what a leader checks, and in which words it refuses.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;

use crate::peer::{Peer, Writer, batch, compare, produce};

/// Notes the answer for the one partition asked, without times.
fn produced(peer: &mut Peer, what: &str, v: i16, request: &ProduceRequest) {
    let answer = peer.try_call(v, request);
    let Some(mut answer) = answer else {
        peer.note(&format!("{what} v{v}"), "closed");
        return peer.reconnect();
    };
    let partition = &mut answer.responses[0].partition_responses[0];
    if partition.error_code == 87 {
        // The real broker tells it for some of the reasons.
        partition.log_start_offset = -1;
    }
    // Texts name the classes and files of the one who wrote them.
    partition.error_message = None;
    for record in &mut partition.record_errors {
        record.batch_index_error_message = None;
    }
    peer.note(&format!("{what} v{v}"), &format!("{partition:?}"));
}

fn plain(records: usize) -> Option<Bytes> {
    Some(batch(Writer::default(), records))
}

/// A batch with some bytes changed; the checksum is made right again where `seal`.
fn bent(at: usize, bytes: &[u8], seal: bool) -> Option<Bytes> {
    let mut whole = BytesMut::from(&batch(Writer::default(), 2)[..]);
    whole[at..at + bytes.len()].copy_from_slice(bytes);
    if seal {
        let crc = crc32c(&whole[21..]);
        whole[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    Some(whole.freeze())
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn a_batch_is_taken_or_refused_alike() {
    compare(|peer| {
        let topic = peer.topic(2, &[]);
        let missing = peer.name("missing");
        for v in 3..=12 {
            produced(peer, "good", v, &produce(&topic, 0, None, plain(2)));
            produced(peer, "no such partition", v, &produce(&topic, 7, None, plain(1)));
            produced(peer, "partition -1", v, &produce(&topic, -1, None, plain(1)));
        }
        produced(peer, "no such topic", 12, &produce(&missing, 0, None, plain(1)));
        for name in ["", "no/topic", ".", &"x".repeat(250)] {
            produced(peer, &format!("topic {name:.9}"), 12, &produce(name, 0, None, plain(1)));
        }
        // The real broker makes the internal topic when a group is first asked for.
        let group = peer.name("group");
        peer.coordinator(0, &group);
        produced(peer, "internal", 12, &produce("__consumer_offsets", 0, None, plain(1)));
        for acks in [-2, 2, i16::MAX] {
            produced(peer, &format!("acks {acks}"), 12, &produce(&topic, 0, None, plain(1)).with_acks(acks));
        }
        produced(peer, "acks 1", 12, &produce(&topic, 0, None, plain(1)).with_acks(1));
        let good = batch(Writer::default(), 2);
        // Left out where the real broker fails with UNKNOWN_SERVER_ERROR, or reads a batch that is refused here.
        for (what, records) in [
            ("nothing", Some(Bytes::new())),
            ("a byte", Some(Bytes::from_static(&[0]))),
            ("a part", Some(good.slice(..good.len() - 1))),
            ("two batches", Some([good.clone(), good.clone()].concat().into())),
            ("checksum", bent(18, &[0], false)),
            ("magic 1", bent(16, &[1], false)),
            ("length too small", bent(8, &1i32.to_be_bytes(), true)),
            ("negative length", bent(8, &(-1i32).to_be_bytes(), true)),
            ("no records announced", bent(57, &0i32.to_be_bytes(), true)),
            ("too many announced", bent(57, &3i32.to_be_bytes(), true)),
            ("too few announced", bent(57, &1i32.to_be_bytes(), true)),
            ("last offset", bent(23, &5i32.to_be_bytes(), true)),
            ("base offset", bent(0, &7i64.to_be_bytes(), true)),
            ("control", bent(21, &[0, 0x20], true)),
            ("reserved bits", bent(21, &[0xff, 0x80], true)),
            ("append time", bent(21, &[0, 8], true)),
        ] {
            produced(peer, what, 12, &produce(&topic, 1, None, records));
        }
        let end = end(peer, &topic);
        peer.note("in the end", &end.to_string());
    });
}

fn end(peer: &mut Peer, topic: &str) -> i64 {
    peer.call(7, &crate::peer::list_offsets(topic, 0, -1)).topics[0].partitions[0].offset
}

#[test]
fn topics_by_id_are_found_or_refused_alike() {
    compare(|peer| {
        let topic = peer.topic(1, &[]);
        let id = peer.topic_id(&topic);
        for (what, id, n) in [
            ("known", id, 0),
            ("known, partition 1", id, 1),
            ("unknown", uuid::Uuid::from_u128(7), 0),
            ("nil", uuid::Uuid::nil(), 0),
        ] {
            let mut request = produce("", n, None, plain(1));
            request.topic_data[0].topic_id = id;
            produced(peer, what, 13, &request);
        }
    });
}

#[test]
fn a_topics_settings_are_kept_alike() {
    compare(|peer| {
        let small = peer.topic(1, &[("max.message.bytes", "100")]);
        produced(peer, "fits", 12, &produce(&small, 0, None, plain(1)));
        produced(peer, "too large", 12, &produce(&small, 0, None, plain(9)));
        let stamped = peer.topic(1, &[("message.timestamp.type", "LogAppendTime")]);
        let answer = peer.call(12, &produce(&stamped, 0, None, plain(1)));
        let at = answer.responses[0].partition_responses[0].log_append_time_ms;
        peer.note("append time", &at.signum().to_string());
        let compacted = peer.topic(1, &[("cleanup.policy", "compact")]);
        produced(peer, "with keys", 12, &produce(&compacted, 0, None, plain(1)));
        let strict = peer.topic(1, &[("message.timestamp.before.max.ms", "1000")]);
        produced(peer, "in time", 12, &produce(&strict, 0, None, plain(1)));
        let safe = peer.topic(1, &[("min.insync.replicas", "2")]);
        produced(peer, "too few replicas", 12, &produce(&safe, 0, None, plain(1)));
        produced(peer, "too few replicas, acks 1", 12, &produce(&safe, 0, None, plain(1)).with_acks(1));
    });
}

#[test]
fn sequences_are_checked_alike() {
    compare(|peer| {
        let topic = peer.topic(3, &[]);
        let new =
            InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1000);
        let mut id = -1;
        peer.wait("producer id", |peer| {
            let answer = peer.call(4, &new);
            id = answer.producer_id.0;
            answer.error_code == 0
        });
        for (v, n) in [(11, 0), (12, 1)] {
            let step = |peer: &mut Peer, what: &str, epoch: i16, sequence: i32, records: usize| {
                let writer = Writer { producer: Some((id, epoch)), sequence, transactional: false };
                produced(peer, what, v, &produce(&topic, n, None, Some(batch(writer, records))));
            };
            step(peer, "first, not at 0", 0, 5, 1);
            step(peer, "next", 0, 6, 2);
            step(peer, "again", 0, 6, 2);
            step(peer, "the one before again", 0, 5, 1);
            step(peer, "a part of it", 0, 6, 1);
            step(peer, "a gap", 0, 9, 1);
            step(peer, "backwards", 0, 0, 1);
            for sequence in 8..14 {
                step(peer, "on", 0, sequence, 1);
            }
            step(peer, "six ago", 0, 8, 1);
            step(peer, "five ago", 0, 9, 1);
            step(peer, "newer epoch, not at 0", 1, 3, 1);
            step(peer, "newer epoch", 1, 0, 1);
            step(peer, "older epoch", 0, 14, 1);
            step(peer, "wrong epoch", -1, 0, 1);
            step(peer, "no sequence", 1, -1, 1);
            step(peer, "much newer", 9, 0, 1);
            step(peer, "near the end", 10, 0, 1);
        }
        // After the largest sequence comes 0.
        let step = |peer: &mut Peer, what: &str, sequence: i32, records: usize| {
            let writer = Writer { producer: Some((id, 0)), sequence, transactional: false };
            produced(peer, what, 11, &produce(&topic, 2, None, Some(batch(writer, records))));
        };
        step(peer, "at the end", i32::MAX - 1, 1);
        step(peer, "over the end", i32::MAX, 3);
        step(peer, "after the end", 2, 1);
        step(peer, "again", i32::MAX, 3);
    });
}

#[test]
fn no_answer_is_awaited_with_acks_0() {
    compare(|peer| {
        let topic = peer.topic(1, &[]);
        // The next answer that comes is the next request's.
        let mut quiet = |n: i32| {
            let request = produce(&topic, n, None, plain(1)).with_acks(0);
            peer.send(12, &request);
            let next = peer.try_call(2, &ApiVersionsRequest::default());
            peer.note(&format!("acks 0 to {n}"), if next.is_some() { "goes on" } else { "closed" });
            peer.reconnect();
        };
        quiet(0);
        quiet(7);
        let end = end(peer, &topic);
        peer.note("in the end", &end.to_string());
    });
}
