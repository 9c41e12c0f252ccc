//! librdkafka through rust-rdkafka's `FutureProducer`: a future for each record.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use peers::{Args, Run, WINDOW, die, librdkafka};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

#[derive(Default)]
struct Outcomes {
    sent: u64,
    failed: u64,
}

impl Outcomes {
    async fn settle(&mut self, queued: DeliveryFuture) {
        match queued.await {
            Ok(Ok(_)) => self.sent += 1,
            Ok(Err((e, _))) => {
                eprintln!("{e}");
                self.failed += 1;
            }
            Err(_) => die("the producer dropped a record"),
        }
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let producer: FutureProducer = librdkafka(&args).create().unwrap_or_else(|e| die(e));
    let asked = producer.client().fetch_metadata(Some(&args.topic), Duration::from_secs(10));
    asked.unwrap_or_else(|e| die(e));
    let (pool, topic, count) = (args.pool(), args.topic.clone(), args.count);
    let awaited = args.op == "latency";
    let mut outcomes = Outcomes::default();
    let mut window = VecDeque::with_capacity(WINDOW);
    let mut run = Run::start(args);
    for (_, (key, value)) in (0..count).zip(pool.iter().cycle()) {
        let began = Instant::now();
        let mut record = FutureRecord::to(&topic).key(&key[..]).payload(&value[..]);
        let queued = loop {
            match producer.send_result(record) {
                Ok(queued) => break queued,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    match window.pop_front() {
                        Some(oldest) => outcomes.settle(oldest).await,
                        None => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                }
                Err((e, _)) => die(e),
            }
        };
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
    for queued in window {
        outcomes.settle(queued).await;
    }
    run.end("rdkafka-future", outcomes.sent, outcomes.failed)
}
