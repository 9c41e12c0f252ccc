//! From nothing to the first answer: the embedded brokers in this process, and `muslin serve` as a process.
//!
//! `cargo bench --bench embedded`. Kafka: start, connect, Metadata asked and answered. RabbitMQ: start, connect, the
//! protocol header sent and `connection.start` read. The process: started, until its ready file is there.
#![allow(missing_docs, reason = "criterion's macros make items without")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark reads the clock and fails by a panic"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use muslin::embedded::{Kafka, Rabbit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Metadata of all topics, version 1, correlation 7, no client id.
const METADATA: &[u8] = b"\0\0\0\x0e\0\x03\0\x01\0\0\0\x07\xff\xff\xff\xff\xff\xff";

async fn kafka(brokers: u16) {
    let kafka = Kafka::builder().brokers(brokers).topic("orders", 3).start().await.unwrap();
    let mut stream = TcpStream::connect(kafka.addresses()[0]).await.unwrap();
    stream.write_all(METADATA).await.unwrap();
    let size = stream.read_u32().await.unwrap();
    assert_eq!(stream.read_u32().await.unwrap(), 7);
    let mut answer = vec![0; size as usize - 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert!(answer.windows(6).any(|name| name == b"orders"), "the topic is not in the answer");
}

async fn rabbit() {
    let rabbit = Rabbit::builder().queue("mail").start().await.unwrap();
    let mut stream = TcpStream::connect(rabbit.address()).await.unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    let mut head = [0; 11];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!((head[0], &head[7..]), (1, &[0, 10, 0, 10][..]), "a method frame with connection.start");
}

/// Starts the process, waits for its ready file, and ends it outside of the measured time.
fn process(binary: &str, rounds: u64) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let start = Instant::now();
        let mut child = Command::new(binary)
            .args(["serve", "--ready-file"])
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !ready.exists() {
            std::thread::sleep(Duration::from_micros(50));
        }
        total += start.elapsed();
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_file(&ready).unwrap();
    }
    total
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = c.benchmark_group("first answer");
    group.bench_function("kafka, 1 broker", |b| b.iter(|| runtime.block_on(kafka(1))));
    group.bench_function("kafka, 3 brokers", |b| b.iter(|| runtime.block_on(kafka(3))));
    group.bench_function("rabbitmq", |b| b.iter(|| runtime.block_on(rabbit())));
    if let Some(binary) = option_env!("CARGO_BIN_EXE_muslin") {
        group.sample_size(20);
        group.bench_function("process to ready file", |b| b.iter_custom(|rounds| process(binary, rounds)));
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
