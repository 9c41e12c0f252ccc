//! A log against a naive model of it, and what a producer meets.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Appended, PartitionLog, Policy, Refusal, Rules};
use crate::codec::compression::Compression;
use crate::codec::record_batch::{BatchBuilder, BatchOptions, BatchView};
use crate::embedded::kafka::api::Code;
use crate::{ProducerEpoch, ProducerId, Sequence, Timestamp};

const NOW: Timestamp = Timestamp(1_000_000);

const RULES: Rules = Rules {
    max_message_bytes: 1 << 20,
    segment_bytes: 1 << 30,
    append_time: false,
    before_max_ms: i64::MAX,
    after_max_ms: 3_600_000,
    compacted: false,
    zstd: true,
    starts_at_zero: false,
};

const POLICY: Policy =
    Policy { retention_ms: -1, retention_bytes: -1, delete_retention_ms: 1_000, min_compaction_lag_ms: 0 };

/// Key, value, time.
type Record<'a> = (Option<&'a str>, Option<&'a str>, i64);

fn build(options: BatchOptions, records: &[Record<'_>]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (key, value, time) in records {
        builder
            .push(Timestamp(*time), key.map(str::as_bytes), value.map(str::as_bytes), [("h", None)])
            .unwrap();
    }
    builder.finish().unwrap()
}

fn plain(records: &[Record<'_>]) -> Bytes {
    build(BatchOptions::default(), records)
}

fn of_producer(id: i64, epoch: i16, sequence: i32, records: usize, transactional: bool) -> Bytes {
    let options = BatchOptions {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        transactional,
        ..BatchOptions::default()
    };
    build(options, &vec![(Some("k"), Some("v"), 1); records])
}

fn append(log: &mut PartitionLog, batch: &Bytes) -> Result<Appended, Refusal> {
    log.append(batch, &RULES, 0, NOW)
}

fn code(result: Result<Appended, Refusal>) -> Code {
    result.unwrap_err().code
}

fn marker(log: &mut PartitionLog, id: i64, epoch: i16, commit: bool) -> i64 {
    log.append_marker(ProducerId(id), ProducerEpoch(epoch), commit, 0, 0, NOW).unwrap()
}

/// What a reader gets from `offset` on: offset, key, value, time.
fn read(log: &PartitionLog, offset: i64) -> Vec<(i64, Option<String>, Option<String>, i64)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let slice = log.read(offset, log.high_watermark(), u64::MAX, true);
    let mut all = Vec::new();
    for batch in log.slice(&slice) {
        let view = BatchView::parse(batch.to_bytes()).unwrap();
        assert_eq!(view.base_offset().0, batch.base_offset);
        assert_eq!(view.last_offset().0, batch.last_offset);
        if view.is_control() {
            continue;
        }
        for record in &view.records(1 << 20).unwrap() {
            let record = record.unwrap();
            if record.offset().0 >= offset {
                all.push((
                    record.offset().0,
                    record.key().map(text),
                    record.value().map(text),
                    record.timestamp().0,
                ));
            }
        }
    }
    all
}

#[derive(Debug, Clone)]
enum Step {
    /// Records by key, value or tombstone, time; the codec.
    Append(Vec<(u8, bool, i64)>, Compression),
    DeleteBefore(u8),
    TruncateTo(u8),
    Compact,
    Retain(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let record = (0..6u8, proptest::bool::weighted(0.8), 0..1_000i64);
    let codec = prop_oneof![Just(Compression::None), Just(Compression::Lz4)];
    prop_oneof![
        6 => (proptest::collection::vec(record, 1..5), codec).prop_map(|(r, c)| Step::Append(r, c)),
        1 => any::<u8>().prop_map(Step::DeleteBefore),
        1 => any::<u8>().prop_map(Step::TruncateTo),
        2 => Just(Step::Compact),
        1 => any::<u8>().prop_map(Step::Retain),
    ]
}

type Held = (i64, Option<String>, Option<String>, i64);

/// The log as a list of batches, each a list of records.
#[derive(Debug, Default)]
struct Model {
    batches: Vec<(i64, i64, Vec<Held>)>,
    start: i64,
    end: i64,
    values: usize,
}

impl Model {
    fn records(&self) -> impl Iterator<Item = &Held> {
        self.batches.iter().flat_map(|(_, _, records)| records)
    }

    fn delete_before(&mut self, offset: i64) {
        self.start = self.start.max(offset.min(self.end));
        let start = self.start;
        self.batches.retain(|(_, last, _)| *last >= start);
    }

    fn truncate_to(&mut self, offset: i64) {
        let offset = offset.max(self.start);
        if offset >= self.end {
            return;
        }
        self.end = offset;
        for (base, last, _) in &self.batches {
            if *last >= offset {
                self.end = self.end.min((*base).max(self.start));
            }
        }
        self.batches.retain(|(_, last, _)| *last < offset);
    }

    fn compact(&mut self) {
        let mut last = BTreeMap::new();
        for (offset, key, ..) in self.records() {
            last.insert(key.clone(), *offset);
        }
        for (_, _, records) in &mut self.batches {
            records.retain(|(offset, key, ..)| last.get(key) == Some(offset));
        }
        self.batches.retain(|(_, _, records)| !records.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_log_reads_as_its_model(steps in proptest::collection::vec(step(), 1..40)) {
        let mut log = PartitionLog::default();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Append(records, compression) => {
                    let mut held = Vec::new();
                    for (i, (key, value, time)) in (0..).zip(&records) {
                        model.values += 1;
                        let value = value.then(|| format!("v{}", model.values));
                        held.push((model.end + i, Some(format!("k{key}")), value, *time));
                    }
                    let parts: Vec<Record<'_>> =
                        held.iter().map(|(_, key, value, time)| (key.as_deref(), value.as_deref(), *time)).collect();
                    let bytes = build(BatchOptions { compression, ..BatchOptions::default() }, &parts);
                    let appended = append(&mut log, &bytes).unwrap();
                    prop_assert_eq!(appended.base_offset, model.end);
                    let last = model.end + held.len() as i64 - 1;
                    model.batches.push((model.end, last, held));
                    model.end = last + 1;
                }
                Step::DeleteBefore(n) => {
                    let offset = model.end * i64::from(n) / 300;
                    log.delete_before(offset);
                    model.delete_before(offset);
                }
                Step::TruncateTo(n) => {
                    let offset = model.end * i64::from(n) / 200;
                    log.truncate_to(offset);
                    model.truncate_to(offset);
                }
                Step::Compact => {
                    log.compact(&POLICY, NOW);
                    model.compact();
                }
                Step::Retain(n) => {
                    let keep = i64::from(n) * 4;
                    log.retain(&Policy { retention_bytes: keep, ..POLICY }, NOW);
                    let size: u64 = log.batches().map(|batch| batch.size()).sum();
                    let first = log.batches().next().map_or(0, |batch| batch.size());
                    prop_assert!(size <= keep as u64 || size - first < keep as u64);
                    model.delete_before(log.log_start());
                }
            }
            prop_assert_eq!((log.log_start(), log.end()), (model.start, model.end));
            let sizes: u64 = log.batches().map(|batch| batch.size()).sum();
            prop_assert_eq!(log.bytes(), sizes);
            let held: u64 = log.batches().map(|batch| batch.size() + super::batch::OVERHEAD).sum();
            prop_assert_eq!(log.held(), held);
            for offset in [model.start, model.start + 1, (model.start + model.end) / 2, model.end] {
                let expected: Vec<_> = model.records().filter(|(at, ..)| *at >= offset).cloned().collect();
                prop_assert_eq!(read(&log, offset), expected, "from {}", offset);
                prop_assert_eq!(
                    log.available(offset, model.end),
                    log.batches().filter(|batch| batch.last_offset >= offset).map(|batch| batch.size()).sum::<u64>()
                );
            }
            for time in [0, 250, 500, 999] {
                let expected = model.records().find(|(at, _, _, t)| *t >= time && *at >= model.start);
                let found = log.find_time(time, model.end).map(|(offset, t, _)| (offset, t));
                prop_assert_eq!(found, expected.map(|(offset, _, _, t)| (*offset, *t)), "from time {}", time);
            }
        }
    }

    /// Whatever the limit: whole batches, within it, at least one where that is wanted.
    #[test]
    fn a_read_keeps_its_limit(sizes in proptest::collection::vec(1..60usize, 1..12), limit in 0..1_500u64, from in 0..12i64) {
        let mut log = PartitionLog::default();
        for size in &sizes {
            append(&mut log, &plain(&[(None, Some(&"x".repeat(*size)), 1)])).unwrap();
        }
        let from = from.min(log.end());
        let mut expected = 0;
        for batch in log.batches().filter(|batch| batch.last_offset >= from) {
            if expected + batch.size() > limit {
                break;
            }
            expected += batch.size();
        }
        prop_assert_eq!(log.read(from, log.end(), limit, false).bytes, expected);
        let first = log.batches().find(|batch| batch.last_offset >= from).map_or(0, |batch| batch.size());
        prop_assert_eq!(log.read(from, log.end(), limit, true).bytes, expected.max(first));
    }
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_offset_as_long_as_five_are_remembered() {
    let mut log = PartitionLog::default();
    for sequence in 0..6 {
        let appended = append(&mut log, &of_producer(7, 0, sequence * 2, 2, false)).unwrap();
        assert_eq!((appended.base_offset, appended.duplicate), (i64::from(sequence) * 2, false));
    }
    for sequence in 1..6 {
        let again = append(&mut log, &of_producer(7, 0, sequence * 2, 2, false)).unwrap();
        assert_eq!((again.base_offset, again.duplicate), (i64::from(sequence) * 2, true));
    }
    assert_eq!(code(append(&mut log, &of_producer(7, 0, 0, 2, false))), Code::OutOfOrderSequenceNumber);
    let other_count = of_producer(7, 0, 10, 1, false);
    assert_eq!(code(append(&mut log, &other_count)), Code::OutOfOrderSequenceNumber, "not the same batch");
    assert_eq!(log.end(), 12);
}

#[test]
fn a_sequence_must_follow_and_wraps_to_zero() {
    let mut log = PartitionLog::default();
    append(&mut log, &of_producer(7, 0, i32::MAX - 1, 2, false)).unwrap();
    assert_eq!(code(append(&mut log, &of_producer(7, 0, 5, 1, false))), Code::OutOfOrderSequenceNumber);
    append(&mut log, &of_producer(7, 0, 0, 1, false)).unwrap();
    append(&mut log, &of_producer(7, 0, 1, 1, false)).unwrap();
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
    let mut log = PartitionLog::default();
    append(&mut log, &of_producer(7, 3, 40, 1, false)).unwrap();
    assert_eq!(code(append(&mut log, &of_producer(7, 4, 41, 1, false))), Code::OutOfOrderSequenceNumber);
    append(&mut log, &of_producer(7, 4, 0, 1, false)).unwrap();
    assert_eq!(code(append(&mut log, &of_producer(7, 3, 41, 1, false))), Code::InvalidProducerEpoch);
}

#[test]
fn a_transactional_producer_that_is_not_known_starts_at_zero_where_the_protocol_asks_it() {
    let rules = Rules { starts_at_zero: true, ..RULES };
    let mut log = PartitionLog::default();
    let refused = log.append(&of_producer(7, 0, 3, 1, true), &rules, 0, NOW);
    assert_eq!(code(refused), Code::OutOfOrderSequenceNumber);
    log.append(&of_producer(8, 0, 3, 1, false), &rules, 0, NOW).unwrap();
}

#[test]
fn a_producer_that_was_silent_for_long_is_forgotten() {
    let mut log = PartitionLog::default();
    append(&mut log, &of_producer(7, 0, 0, 1, false)).unwrap();
    append(&mut log, &of_producer(8, 0, 0, 1, true)).unwrap();
    log.producers_mut().expire(100);
    append(&mut log, &of_producer(7, 0, 9, 1, false)).unwrap();
    let open = append(&mut log, &of_producer(8, 0, 9, 1, true));
    assert_eq!(code(open), Code::OutOfOrderSequenceNumber, "one with an open transaction is kept");
}

#[test]
fn an_open_transaction_holds_the_stable_offset_and_an_aborted_one_is_told() {
    let mut log = PartitionLog::default();
    append(&mut log, &plain(&[(None, Some("a"), 1)])).unwrap();
    append(&mut log, &of_producer(7, 0, 0, 2, true)).unwrap();
    append(&mut log, &of_producer(8, 0, 0, 1, true)).unwrap();
    assert_eq!((log.last_stable_offset(), log.high_watermark()), (1, 4));
    assert_eq!(marker(&mut log, 7, 0, false), 4);
    assert_eq!(log.last_stable_offset(), 3, "the other one is open");
    assert_eq!(marker(&mut log, 8, 0, true), 5);
    assert_eq!(log.last_stable_offset(), 6);
    let told =
        |from, until| log.aborted(from, until).map(|a| (a.producer_id, a.first_offset)).collect::<Vec<_>>();
    assert_eq!(told(0, 6), [(7, 1)]);
    assert_eq!(told(4, 6), [(7, 1)], "its marker is still to come");
    assert_eq!(told(5, 6), []);
    assert_eq!(told(0, 1), []);
}

#[test]
fn a_marker_of_an_old_epoch_or_coordinator_is_refused() {
    let mut log = PartitionLog::default();
    append(&mut log, &of_producer(7, 2, 0, 1, true)).unwrap();
    let mut end = |epoch, coordinator| {
        log.append_marker(ProducerId(7), ProducerEpoch(epoch), true, coordinator, 0, NOW)
    };
    assert_eq!(end(1, 5).unwrap_err().code, Code::InvalidProducerEpoch);
    assert_eq!(end(3, 5), Ok(1));
    assert_eq!(end(3, 4).unwrap_err().code, Code::TransactionCoordinatorFenced);
    let old = append(&mut log, &of_producer(7, 2, 1, 1, true));
    assert_eq!(code(old), Code::InvalidProducerEpoch, "the marker raised the epoch");
    append(&mut log, &of_producer(7, 3, 0, 1, true)).unwrap();
}

#[test]
fn a_lost_tail_brings_back_what_was_known_before_it() {
    let mut log = PartitionLog::default();
    append(&mut log, &of_producer(7, 0, 0, 1, true)).unwrap();
    marker(&mut log, 7, 0, false);
    append(&mut log, &of_producer(7, 0, 1, 1, true)).unwrap();
    marker(&mut log, 7, 0, false);
    log.truncate_to(3);
    assert_eq!(log.last_stable_offset(), 2, "the second transaction is open again");
    assert_eq!(log.aborted(0, 3).count(), 1);
    assert!(append(&mut log, &of_producer(7, 0, 1, 1, true)).unwrap().duplicate);
    append(&mut log, &of_producer(7, 0, 2, 1, true)).unwrap();
}

#[test]
fn what_a_topic_does_not_take_is_refused_with_its_code() {
    let mut log = PartitionLog::default();
    let record = (None, Some("v"), NOW.0);
    let good = plain(&[record]);
    let mut bad = |bytes: Vec<u8>, rules: Rules| log.append(&bytes.into(), &rules, 0, NOW).unwrap_err();
    let broken = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        bytes
    };
    assert_eq!(bad(broken(65, 9), RULES).code, Code::CorruptMessage, "the checksum");
    assert_eq!(bad(broken(16, 1), RULES).code, Code::InvalidRecord, "an old format");
    assert_eq!(bad(broken(11, 3), RULES).code, Code::CorruptMessage, "a length below the header's");
    assert_eq!(bad(broken(7, 9), RULES).code, Code::InvalidRecord, "a base offset");
    assert_eq!(bad(Vec::new(), RULES).code, Code::InvalidRecord, "nothing");
    assert_eq!(bad([&good[..], &good[..]].concat(), RULES).code, Code::InvalidRecord, "two batches");
    assert_eq!(bad(good[..good.len() - 1].to_vec(), RULES).code, Code::InvalidRecord, "cut short");
    assert_eq!(bad(good.to_vec(), Rules { max_message_bytes: 60, ..RULES }).code, Code::MessageTooLarge);
    assert_eq!(bad(good.to_vec(), Rules { segment_bytes: 60, ..RULES }).code, Code::RecordListTooLarge);
    let control = BatchOptions { control: true, ..BatchOptions::default() };
    assert_eq!(bad(build(control, &[record]).to_vec(), RULES).code, Code::InvalidRecord);
    let zstd = build(BatchOptions { compression: Compression::Zstd, ..BatchOptions::default() }, &[record]);
    let old = Rules { zstd: false, ..RULES };
    assert_eq!(bad(zstd.to_vec(), old).code, Code::UnsupportedCompressionType);
    let late = plain(&[(None, Some("v"), NOW.0), (None, Some("v"), NOW.0 + 3_600_001)]);
    let refused = bad(late.to_vec(), RULES);
    assert_eq!((refused.code, refused.records[0].0), (Code::InvalidTimestamp, 1));
    let early = Rules { before_max_ms: 10, ..RULES };
    assert_eq!(bad(plain(&[(None, Some("v"), NOW.0 - 11)]).to_vec(), early).code, Code::InvalidTimestamp);
    let compacted = Rules { compacted: true, ..RULES };
    let keyless = plain(&[(Some("k"), Some("v"), 1), (None, Some("v"), 1)]);
    let refused = bad(keyless.to_vec(), compacted);
    assert_eq!((refused.code, refused.records[0].0), (Code::InvalidRecord, 1));
    assert_eq!(log.end(), 0, "nothing was appended");
}

#[test]
fn with_append_time_every_record_has_the_brokers_time() {
    let mut log = PartitionLog::default();
    let rules = Rules { append_time: true, ..RULES };
    let appended = log.append(&plain(&[(None, Some("v"), 5)]), &rules, 0, NOW).unwrap();
    assert_eq!(appended.append_time, NOW.0);
    assert_eq!(read(&log, 0)[0].3, NOW.0, "and the checksum fits");
    assert_eq!(log.find_time(NOW.0, 1), Some((0, NOW.0, 0)));
}

#[test]
fn the_record_with_the_largest_time_is_found() {
    let mut log = PartitionLog::default();
    append(&mut log, &plain(&[(None, Some("a"), 5), (None, Some("b"), 90), (None, Some("c"), 7)])).unwrap();
    append(&mut log, &plain(&[(None, Some("d"), 90), (None, Some("e"), 20)])).unwrap();
    assert_eq!(log.max_timestamp(), Some((1, 90, 0)));
    log.delete_before(3);
    assert_eq!(log.max_timestamp(), Some((3, 90, 0)));
    log.delete_before(5);
    assert_eq!(log.max_timestamp(), None);
}

#[test]
fn retention_by_time_stops_at_the_first_batch_that_is_young_enough() {
    let mut log = PartitionLog::default();
    for time in [100, 300, 50, 900] {
        append(&mut log, &plain(&[(None, Some("v"), time)])).unwrap();
    }
    assert!(log.retain(&Policy { retention_ms: 500, ..POLICY }, Timestamp(750)));
    assert_eq!(log.log_start(), 1, "300 is young enough, and holds what is behind it");
    assert!(!log.retain(&Policy { retention_ms: 500, ..POLICY }, Timestamp(750)));
    assert!(log.retain(&Policy { retention_ms: 500, ..POLICY }, Timestamp(10_000)));
    assert_eq!((log.log_start(), log.end(), log.held()), (4, 4, 0));
}

#[test]
fn tombstones_stay_for_a_while_after_they_were_seen() {
    let mut log = PartitionLog::default();
    append(&mut log, &plain(&[(Some("a"), Some("1"), 1), (Some("b"), Some("2"), 1)])).unwrap();
    append(&mut log, &plain(&[(Some("a"), None, 2)])).unwrap();
    assert!(log.compact(&POLICY, Timestamp(10_000)));
    let keys = |log: &PartitionLog| read(log, 0).iter().map(|(at, ..)| *at).collect::<Vec<_>>();
    assert_eq!(keys(&log), [1, 2]);
    assert_eq!(read(&log, 2)[0].3, 2, "its time is what it was");
    assert!(!log.compact(&POLICY, Timestamp(10_999)));
    assert_eq!(keys(&log), [1, 2]);
    assert!(log.compact(&POLICY, Timestamp(11_000)));
    assert_eq!(keys(&log), [1]);
    assert_eq!(log.end(), 3, "the end stays");
}

#[test]
fn compaction_removes_what_was_aborted_and_then_its_marker() {
    let mut log = PartitionLog::default();
    append(&mut log, &of_producer(7, 0, 0, 2, true)).unwrap();
    marker(&mut log, 7, 0, false);
    append(&mut log, &of_producer(7, 0, 2, 1, true)).unwrap();
    marker(&mut log, 7, 0, true);
    append(&mut log, &of_producer(8, 0, 0, 1, true)).unwrap();
    log.compact(&POLICY, Timestamp(0));
    let batches = |log: &PartitionLog| {
        log.batches().map(|b| (b.base_offset, b.is_control(), b.record_count())).collect::<Vec<_>>()
    };
    let open = (5, false, 1);
    assert_eq!(batches(&log), [(2, true, 1), (3, false, 1), (4, true, 1), open]);
    assert_eq!(log.aborted(0, 6).count(), 1, "while its marker is there, so is the transaction");
    log.compact(&POLICY, Timestamp(2_000));
    assert_eq!(batches(&log), [(3, false, 1), (4, true, 1), open], "a marker with records before it stays");
    assert_eq!(log.aborted(0, 6).count(), 0);
    assert_eq!(log.last_stable_offset(), 5);
}

#[test]
fn the_last_batch_of_a_producer_stays_without_records() {
    let mut log = PartitionLog::default();
    append(&mut log, &of_producer(7, 0, 0, 3, false)).unwrap();
    append(&mut log, &of_producer(8, 0, 0, 1, false)).unwrap();
    assert!(log.compact(&POLICY, NOW));
    let first = log.batches().next().unwrap();
    assert_eq!((first.base_offset, first.last_offset, first.record_count()), (0, 2, 0));
    let view = BatchView::parse(first.to_bytes()).unwrap();
    assert_eq!(view.base_sequence(), Sequence(0));
    assert_eq!(read(&log, 0).len(), 1);
    log.truncate_to(3);
    append(&mut log, &of_producer(7, 0, 3, 1, false)).unwrap();
}
