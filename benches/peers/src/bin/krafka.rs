//! krafka: pure Rust on tokio, a handle for each record.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use krafka::producer::{Acks, DeliveryHandle};
use krafka::{Compression, Kafka, Record};
use peers::{Args, BATCH, Run, WINDOW, die};

#[derive(Default)]
struct Outcomes {
    sent: u64,
    failed: u64,
}

impl Outcomes {
    async fn settle(&mut self, queued: DeliveryHandle) {
        match queued.await {
            Ok(_) => self.sent += 1,
            Err(e) => {
                eprintln!("{e}");
                self.failed += 1;
            }
        }
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let codec = match args.codec.as_str() {
        "none" => Compression::None,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        codec => die(format!("no codec `{codec}` here")),
    };
    let kafka = Kafka::builder(&args.kafka).connect().await.unwrap_or_else(|e| die(e));
    let producer = kafka
        .producer()
        .acks(Acks::All)
        .idempotent(true)
        .linger(args.linger())
        .batch_size(BATCH)
        .compression(codec)
        .compression_level(args.level)
        .metrics_push(false)
        .build()
        .await
        .unwrap_or_else(|e| die(e));
    producer.partitions_for(&args.topic).await.unwrap_or_else(|e| die(e));
    let (pool, topic, count) = (args.pool(), args.topic.clone(), args.count);
    let awaited = args.op == "latency";
    let mut outcomes = Outcomes::default();
    let mut window = VecDeque::with_capacity(WINDOW);
    let mut run = Run::start(args);
    for (_, (key, value)) in (0..count).zip(pool.iter().cycle()) {
        let began = Instant::now();
        let record = Record::new(&topic, value.clone()).key(key.clone());
        let queued = producer.enqueue(record).await.unwrap_or_else(|e| die(e));
        if awaited {
            outcomes.settle(queued).await;
            run.waited(began.elapsed());
            continue;
        }
        if window.len() == WINDOW
            && let Some(oldest) = window.pop_front()
        {
            outcomes.settle(oldest).await;
        }
        window.push_back(queued);
    }
    // What is queued leaves without lingering; each record tells its own outcome below.
    let _ = tokio::time::timeout(Duration::from_secs(60), producer.flush()).await;
    for queued in window {
        outcomes.settle(queued).await;
    }
    run.end("krafka", outcomes.sent, outcomes.failed)
}
