//! Building and reading record batches, as multiples of what the bytes alone cost.
//!
//! Every case runs beside its floor on the same bytes: to build, copying them and computing their CRC-32C; to read,
//! adding them up and computing their CRC-32C. kafka-protocol's codec runs beside both. A table of the multiples,
//! from each case's fastest sample, ends the run. Numbers and how to run: `benches/README.md`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark reads the clock, prints, and may stop"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records as peer;
use muslin::Timestamp;
use muslin::codec::record_batch::{BatchBuilder, BatchOptions, BatchView};

/// Key and value of a record together; the key has 16 bytes.
const SIZES: [(&str, usize); 2] = [("100 B", 100), ("1 KB", 1024)];
const KEY_LEN: usize = 16;
/// Content of a batch, about: a few of the Java client's default `batch.size`, and within a core's own cache.
const BATCH_LEN: usize = 64 * 1024;

/// The nanoseconds of one iteration in the fastest sample, by case.
type Fastest = RefCell<BTreeMap<(String, &'static str), f64>>;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .without_plots()
        .configure_from_args();
    let fastest = Fastest::default();
    for (name, size) in SIZES {
        build(&mut criterion, &fastest, name, size);
        read(&mut criterion, &fastest, name, size);
    }
    criterion.final_summary();
    table(&fastest.borrow());
}

/// Bytes that differ from one another.
fn content(len: usize) -> Vec<u8> {
    (0_u32..).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).take(len).collect()
}

fn records(content: &[u8], size: usize) -> impl Iterator<Item = (&[u8], &[u8])> {
    content.chunks_exact(size).map(|record| record.split_at(KEY_LEN))
}

fn run(
    criterion: &mut Criterion,
    fastest: &Fastest,
    group: &str,
    len: usize,
    case: &'static str,
    mut iteration: impl FnMut(),
) {
    let mut criterion_group = criterion.benchmark_group(group);
    criterion_group.throughput(Throughput::Bytes(len as u64));
    criterion_group.bench_function(case, |b| {
        b.iter_custom(|iterations| {
            let start = Instant::now();
            for _ in 0..iterations {
                iteration();
            }
            let took = start.elapsed();
            let each = took.as_nanos() as f64 / iterations as f64;
            let mut fastest = fastest.borrow_mut();
            let best = fastest.entry((group.to_owned(), case)).or_insert(each);
            *best = best.min(each);
            took
        });
    });
}

fn batch(content: &[u8], size: usize, builder: &mut BatchBuilder) -> Bytes {
    for (key, value) in records(content, size) {
        builder.push(Timestamp(1_700_000_000_000), Some(key), Some(value), []).unwrap();
    }
    builder.finish().unwrap()
}

fn build(criterion: &mut Criterion, fastest: &Fastest, name: &str, size: usize) {
    let group = format!("build {name}");
    let content = content(BATCH_LEN / size * size);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let wire = batch(&content, size, &mut builder);
    let len = wire.len();

    let mut copy = BytesMut::new();
    run(criterion, fastest, &group, len, "floor", || {
        copy.clear();
        copy.extend_from_slice(black_box(&wire));
        black_box(crc_fast::crc32_iscsi(&copy));
    });
    run(criterion, fastest, &group, len, "muslin", || {
        black_box(batch(black_box(&content), size, &mut builder));
    });

    let peers = |content: &Bytes| -> Vec<peer::Record> {
        let record = |(i, at)| peer::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: peer::TimestampType::Creation,
            offset: i,
            sequence: i as i32 - 1,
            timestamp: 1_700_000_000_000,
            key: Some(content.slice(at..at + KEY_LEN)),
            value: Some(content.slice(at + KEY_LEN..at + size)),
            headers: IndexMap::new(),
        };
        (0..).zip((0..content.len()).step_by(size)).map(record).collect()
    };
    let shared = Bytes::from(content.clone());
    let made = peers(&shared);
    let options = peer::RecordEncodeOptions { version: 2, compression: peer::Compression::None };
    let mut out = BytesMut::new();
    peer::RecordBatchEncoder::encode(&mut out, &made, &options).unwrap();
    assert_eq!(out.len(), len, "the two codecs build the same batch");
    run(criterion, fastest, &group, len, "kafka-protocol", || {
        out.clear();
        peer::RecordBatchEncoder::encode(&mut out, black_box(&made), &options).unwrap();
        black_box(&out);
    });
    run(criterion, fastest, &group, len, "kafka-protocol, with its records", || {
        out.clear();
        let made = peers(black_box(&shared));
        peer::RecordBatchEncoder::encode(&mut out, &made, &options).unwrap();
        black_box(&out);
    });
}

fn read(criterion: &mut Criterion, fastest: &Fastest, name: &str, size: usize) {
    let group = format!("read {name}");
    let content = content(BATCH_LEN / size * size);
    let wire = batch(&content, size, &mut BatchBuilder::new(BatchOptions::default()));
    let len = wire.len();

    run(criterion, fastest, &group, len, "floor", || {
        let bytes = black_box(&wire);
        black_box(crc_fast::crc32_iscsi(bytes));
        black_box(sum(bytes));
    });
    run(criterion, fastest, &group, len, "muslin", || {
        let view = BatchView::parse(black_box(&wire).clone()).unwrap();
        for record in &view.records(0).unwrap() {
            let record = record.unwrap();
            black_box((record.key(), record.value()));
        }
    });
    run(criterion, fastest, &group, len, "muslin, every byte read", || {
        let view = BatchView::parse(black_box(&wire).clone()).unwrap();
        let mut total = 0;
        for record in &view.records(0).unwrap() {
            let record = record.unwrap();
            total += sum(record.key().unwrap_or_default()) + sum(record.value().unwrap_or_default());
        }
        black_box(total);
    });
    run(criterion, fastest, &group, len, "kafka-protocol", || {
        let mut bytes = black_box(&wire).clone();
        black_box(peer::RecordBatchDecoder::decode(&mut bytes).unwrap());
    });
}

/// Reads every byte, eight at a time.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().fold(0_u64, |sum, &word| sum.wrapping_add(u64::from_le_bytes(word)));
    rest.iter().fold(words, |sum, &byte| sum.wrapping_add(byte.into()))
}

fn table(fastest: &BTreeMap<(String, &'static str), f64>) {
    if fastest.is_empty() {
        return;
    }
    println!("\n{:<14} {:<33} {:>12} {:>9} {:>16}", "batch", "case", "time", "x floor", "x kafka-protocol");
    for ((group, case), time) in fastest {
        let of = |other| fastest.get(&(group.clone(), other)).map_or(f64::NAN, |o| *o);
        println!(
            "{group:<14} {case:<33} {:>9.2} µs {:>9.2} {:>15.1}x",
            time / 1e3,
            time / of("floor"),
            of("kafka-protocol") / time
        );
    }
}
