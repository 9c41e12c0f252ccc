//! librdkafka through rust-rdkafka's `BaseProducer`: delivery reports in a callback, polled by the thread that sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use peers::{Args, Run, die, librdkafka};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

#[derive(Default)]
struct Outcomes {
    sent: AtomicU64,
    failed: AtomicU64,
}

impl Outcomes {
    fn all(&self) -> u64 {
        self.sent.load(Relaxed) + self.failed.load(Relaxed)
    }
}

struct Reports(Arc<Outcomes>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.0.sent.fetch_add(1, Relaxed),
            Err((e, _)) => {
                eprintln!("{e}");
                self.0.failed.fetch_add(1, Relaxed)
            }
        };
    }
}

fn main() {
    let args = Args::parse();
    let outcomes = Arc::new(Outcomes::default());
    let producer: BaseProducer<Reports> =
        librdkafka(&args).create_with_context(Reports(Arc::clone(&outcomes))).unwrap_or_else(|e| die(e));
    let asked = producer.client().fetch_metadata(Some(&args.topic), Duration::from_secs(10));
    asked.unwrap_or_else(|e| die(e));
    let (pool, topic, count) = (args.pool(), args.topic.clone(), args.count);
    let awaited = args.op == "latency";
    let mut run = Run::start(args);
    for (n, (key, value)) in (0..count).zip(pool.iter().cycle()) {
        let began = Instant::now();
        let mut record = BaseRecord::to(&topic).key(&key[..]).payload(&value[..]);
        while let Err((e, back)) = producer.send(record) {
            if e != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                die(e);
            }
            producer.poll(Duration::from_millis(5));
            record = back;
        }
        if awaited {
            // A poll with a timeout would use all of it up, whatever came: the shortest wait is to ask without one.
            while outcomes.all() <= n {
                producer.poll(Duration::ZERO);
            }
            run.waited(began.elapsed());
        } else if n % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap_or_else(|e| die(e));
    run.end("rdkafka-base", outcomes.sent.load(Relaxed), outcomes.failed.load(Relaxed))
}
