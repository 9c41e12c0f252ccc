//! What a batch of JSON events costs to compress and to read back, by codec and level, and how small it gets.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark is no library")]

use std::fmt::Write;
use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use muslin::codec::compression::{Compression, compress, decompress};

const SIZE: usize = 128 * 1024;

/// Events of some 170 B whose fields vary as real ones do; the same at every run.
fn events() -> String {
    let (mut text, mut x, mut n) = (String::new(), 1_u64, 0_u64);
    while text.len() < SIZE {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        n += 1;
        let (minute, second, milli) = (n % 60, (x >> 20) % 60, (x >> 30) % 1000);
        let (order, total, customer) = (x % 10_000, (x >> 13) % 100_000, (x >> 40) % 5000);
        writeln!(
            text,
            r#"{{"event_id":"{x:016x}","event_type":"order.created","occurred_at":"2026-11-24T21:{minute:02}:{second:02}.{milli:03}Z","data":{{"order":"order-{order}","total":{total},"customer":"c{customer}"}}}}"#
        )
        .unwrap();
    }
    text.truncate(SIZE);
    text
}

fn codecs(c: &mut Criterion) {
    let text = events();
    let mut group = c.benchmark_group("compression");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(20);
    for (codec, level) in [
        (Compression::Gzip, None),
        (Compression::Gzip, Some(1)),
        (Compression::Snappy, None),
        (Compression::Lz4, None),
        (Compression::Zstd, None),
        (Compression::Zstd, Some(3)),
        (Compression::Zstd, Some(5)),
    ] {
        let name = level.map_or_else(|| codec.to_string(), |level| format!("{codec}-{level}"));
        let mut out = BytesMut::new();
        compress(codec, level, text.as_bytes(), &mut out).unwrap();
        let packed = out.freeze();
        println!("{name}: {:.2} to 1", SIZE as f64 / packed.len() as f64);
        group.bench_function(format!("{name}/compress"), |b| {
            b.iter(|| {
                let mut out = BytesMut::new();
                compress(codec, level, black_box(text.as_bytes()), &mut out).unwrap();
                out
            });
        });
        group.bench_function(format!("{name}/decompress"), |b| {
            b.iter(|| decompress(codec, black_box(&packed), SIZE).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, codecs);
criterion_main!(benches);
