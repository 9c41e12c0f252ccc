//! Batches that the Java client, librdkafka and franz-go wrote, as a broker stored them: every record is read exactly.
//! `tests/data/README.md` says how the files were made.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails the test")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use muslin::codec::compression::{Compression, decompress};
use muslin::codec::record_batch::{BatchList, BatchView, ControlKind};
use muslin::{ErrorKind, Offset, ProducerId, Sequence, Timestamp};
use serde::Deserialize;

/// Where the records of a batch begin.
const PAYLOAD: usize = 61;
const LIMIT: usize = 1 << 20;

/// A record as `records.json` has it: bytes in hex, null where the record has null.
#[derive(Deserialize)]
struct Written {
    timestamp: i64,
    key: Option<String>,
    value: Option<String>,
    #[serde(default = "one")]
    repeat: usize,
    headers: Vec<(String, Option<String>)>,
}

fn one() -> usize {
    1
}

#[derive(Debug, PartialEq, Eq, Clone)]
struct Content {
    timestamp: Timestamp,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn written() -> Vec<Content> {
    let json = std::fs::read(data().join("records.json")).unwrap();
    let records: Vec<Written> = serde_json::from_slice(&json).unwrap();
    records
        .into_iter()
        .map(|r| Content {
            timestamp: Timestamp(r.timestamp),
            key: r.key.as_deref().map(unhex),
            value: r.value.as_deref().map(|value| unhex(value).repeat(r.repeat)),
            headers: r.headers.into_iter().map(|(name, value)| (name, value.as_deref().map(unhex))).collect(),
        })
        .collect()
}

fn batches(name: &str) -> Vec<BatchView> {
    let path = data().join("batches").join(name).with_extension("bin");
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut list = BatchList::new(bytes.into());
    let batches: Vec<_> =
        list.by_ref().map(|batch| batch.unwrap_or_else(|e| panic!("{name}: {}", e.report()))).collect();
    assert_eq!(list.truncated(), None, "{name}");
    batches
}

/// The records of application batches, after a check that their offsets go on without a gap.
fn contents(name: &str, batches: &[BatchView]) -> Vec<Content> {
    let mut next = Offset(0);
    let mut contents = Vec::new();
    for batch in batches {
        assert_eq!(batch.base_offset(), next, "{name}");
        let records = batch.records(LIMIT).unwrap_or_else(|e| panic!("{name}: {}", e.report()));
        assert_eq!(records.len() as u32, batch.record_count(), "{name}");
        for record in &records {
            let record = record.unwrap_or_else(|e| panic!("{name}: {}", e.report()));
            assert_eq!(record.offset(), next, "{name}");
            next = next.next();
            if !batch.is_control() {
                contents.push(Content {
                    timestamp: record.timestamp(),
                    key: record.key().map(<[u8]>::to_vec),
                    value: record.value().map(<[u8]>::to_vec),
                    headers: record
                        .headers()
                        .map(|(name, value)| (name.into_owned(), value.map(<[u8]>::to_vec)))
                        .collect(),
                });
            }
        }
        assert_eq!(batch.next_offset(), next, "{name}");
    }
    contents
}

fn assert_same(name: &str, read: &[Content], written: &[Content]) {
    assert_eq!(read.len(), written.len(), "{name}: count of records");
    for (i, (read, written)) in read.iter().zip(written).enumerate() {
        assert!(read == written, "{name}: record {i} is {read:?}, written was {written:?}");
    }
}

#[test]
fn every_client_in_every_codec_is_read_exactly() {
    let written = written();
    for client in ["java", "librdkafka", "franz-go"] {
        for codec in Compression::ALL {
            let name = format!("{client}-{codec}");
            let batches = batches(&name);
            assert_same(&name, &contents(&name, &batches), &written);
            for batch in &batches {
                assert_eq!(batch.compression(), codec, "{name}");
                assert!(!batch.is_transactional() && !batch.is_control(), "{name}");
                assert_eq!(batch.append_time(), None, "{name}");
                // Java and franz-go are idempotent by default, librdkafka is not.
                assert_eq!(batch.producer_id() == ProducerId::NONE, client == "librdkafka", "{name}");
                let latest = batch.records(LIMIT).unwrap().iter().map(|r| r.unwrap().timestamp()).max();
                assert_eq!(Some(batch.max_timestamp()), latest, "{name}");
            }
        }
    }
}

#[test]
fn sequences_of_an_idempotent_producer_go_on_from_batch_to_batch() {
    for name in ["java-none", "franz-go-zstd", "librdkafka-idempotent"] {
        let batches = batches(name);
        assert_same(name, &contents(name, &batches), &written());
        let mut next = Sequence(0);
        for batch in &batches {
            assert_eq!(batch.producer_id(), batches[0].producer_id(), "{name}");
            assert!(batch.producer_id().get() >= 0 && batch.producer_epoch().get() >= 0, "{name}");
            assert_eq!(batch.base_sequence(), next, "{name}");
            next = next.plus(batch.record_count());
        }
        assert!(batches.len() >= 2, "{name}");
    }
}

#[test]
fn a_producer_without_idempotence_has_no_id_and_no_sequence() {
    let name = "java-plain";
    let batches = batches(name);
    assert_same(name, &contents(name, &batches), &written());
    for batch in &batches {
        assert_eq!((batch.producer_id(), batch.base_sequence()), (ProducerId::NONE, Sequence::NONE));
    }
}

#[test]
fn with_append_time_every_record_has_the_brokers_time() {
    let name = "java-append-time";
    let batches = batches(name);
    let mut expected = written();
    let times: Vec<_> = batches
        .iter()
        .flat_map(|batch| std::iter::repeat_n(batch.append_time().unwrap(), batch.record_count() as usize))
        .collect();
    for (record, time) in expected.iter_mut().zip(times) {
        // The broker appended long after the records' own times.
        assert!(time > record.timestamp);
        record.timestamp = time;
    }
    assert_same(name, &contents(name, &batches), &expected);
}

#[test]
fn transactions_end_in_a_control_batch_that_says_how() {
    let written = written();
    // franz-go leaves a batch as it is where compression would not make it smaller.
    for (name, codec) in
        [("java-transactions", Compression::Zstd), ("franz-go-transactions", Compression::None)]
    {
        let batches = batches(name);
        assert_same(name, &contents(name, &batches), &written[..5]);
        assert!(batches.iter().all(BatchView::is_transactional), "{name}");
        let mut markers = Vec::new();
        let mut records = 0;
        for batch in &batches {
            assert_eq!(batch.producer_id(), batches[0].producer_id(), "{name}");
            if batch.is_control() {
                assert_eq!(batch.compression(), Compression::None, "{name}");
                for record in &batch.records(LIMIT).unwrap() {
                    markers.push((records, record.unwrap().control_marker().unwrap().kind));
                }
            } else {
                assert_eq!(batch.compression(), codec, "{name}");
                records += batch.record_count();
            }
        }
        assert_eq!(markers, [(3, ControlKind::Commit), (5, ControlKind::Abort)], "{name}");
    }
}

/// The checksum is over the compressed bytes: damage is found before a decompressor sees it. Without the checksum some
/// of the damage would have come out as other records, since raw snappy, lz4 as Kafka's clients write it and zstd
/// without its checksum do not check themselves.
#[test]
fn damage_in_compressed_bytes_is_corrupt_before_any_decompressor_is_asked() {
    for client in ["java", "librdkafka", "franz-go"] {
        for codec in Compression::ALL {
            let name = format!("{client}-{codec}");
            let whole = batches(&name).remove(0);
            let plain = whole.records(LIMIT).unwrap();
            let stored = whole.as_bytes();
            let step = if codec == Compression::None { 97 } else { 3 };
            let mut deceived = 0;
            for at in (PAYLOAD..stored.len()).step_by(step) {
                for bit in [0, 4] {
                    let mut damaged = stored.to_vec();
                    damaged[at] ^= 1 << bit;
                    let damaged = Bytes::from(damaged);
                    let e = BatchView::parse(damaged.clone()).unwrap_err();
                    assert_eq!(e.kind(), ErrorKind::Corrupt, "{name} byte {at}: {e}");
                    let alone = decompress(codec, &damaged.slice(PAYLOAD..), LIMIT);
                    deceived += usize::from(alone.is_ok_and(|out| out != plain.as_bytes()));
                }
            }
            if matches!(codec, Compression::Snappy | Compression::Lz4) && client == "java" {
                assert!(deceived > 0, "{name}: the decompressor alone would have found all damage");
            }
        }
    }
}
