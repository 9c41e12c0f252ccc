//! Applications that do nothing but produce, and make it hard: several producers on one client, every codec, records with and without
//! keys, buffers that are too small, calls that are given up half-way, and flushes, closes and drops at odd moments.

use std::sync::Arc;
use std::time::Duration;

use muslin::codec::compression::Compression;
use muslin::kafka::{Client, Partitioning, Producer, ProducerBuilder, Record};
use muslin::{ErrorKind, Partition, Result};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::history::{Outcome, Sent};
use super::random::Random;
use super::workload::{Run, TOPIC};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// A client, and the producers on it.
pub async fn host(run: Arc<Run>, index: usize) {
    let host = format!("writer-{index}");
    let mut random = Random::new(run.layout.seed, &format!("producers on {host}"));
    let delivery_timeout = random.millis(2000, 30_000);
    run.history().delivery_timeout.insert(index, delivery_timeout);
    tokio::time::sleep(random.millis(0, 3000)).await;
    let Some(client) = run.client(&host, &mut random).await else { return };
    let mut lines = JoinSet::new();
    for number in 0..random.range(1, 3) {
        let line = Line {
            random: Random::new(run.layout.seed, &format!("line {number} on {host}")),
            run: Arc::clone(&run),
            client: client.clone(),
            index,
            number,
            delivery_timeout,
            outcomes: JoinSet::new(),
        };
        lines.spawn(line.send());
    }
    drop(client);
    while let Some(line) = lines.join_next().await {
        line.unwrap();
    }
}

/// One producer after the other.
struct Line {
    random: Random,
    run: Arc<Run>,
    client: Client,
    index: usize,
    number: u64,
    delivery_timeout: Duration,
    outcomes: JoinSet<()>,
}

impl Line {
    async fn send(mut self) {
        let mut left = self.random.range(40, 250);
        // Mostly in bursts that fill batches and buffers; the whole over most of the storm.
        let burst = self.random.pick(&[1, 10, 40, 100]);
        let pause = 30_000 * burst / left;
        let keys = self.random.range(0, 6);
        let mut sent = 0;
        let mut producers = self.number * 1000;
        while left > 0 {
            let share = if self.random.percent(40) { self.random.range(1, left) } else { left };
            left -= share;
            producers += 1;
            let Some((producer, limit)) = self.build().await else { return };
            let ending = self.random.range(0, 5);
            // One that is closed while records still come.
            let last = if ending == 5 { self.random.range(0, share) } else { share };
            for n in 0..share {
                if n == last {
                    let (producer, deadline) = (producer.clone(), self.random.millis(0, 2000));
                    self.closed(producers, deadline);
                    self.outcomes.spawn(async move { drop(producer.close(deadline).await) });
                }
                self.record(&producer, producers, sent, keys, limit).await;
                sent += 1;
                self.oddity(&producer);
                if self.random.range(1, burst) == 1 {
                    tokio::time::sleep(self.random.millis(0, 2 * pause)).await;
                }
            }
            match ending {
                0 => drop(producer.flush().await),
                1 => {
                    let deadline = self.random.millis(0, 3000);
                    self.closed(producers, deadline);
                    drop(producer.close(deadline).await);
                }
                2 => drop(producer.close(2 * self.delivery_timeout).await),
                // Given up half-way: it goes on closing.
                3 => {
                    drop(timeout(self.random.millis(0, 500), producer.close(self.delivery_timeout * 2)).await)
                }
                // Dropped: what is queued is still sent.
                _ => {}
            }
        }
        let limit = self.delivery_timeout + Duration::from_secs(60);
        let all = async { while self.outcomes.join_next().await.is_some() {} };
        if timeout(limit, all).await.is_err() {
            let what =
                format!("writer-{} line {}: outcomes did not come within {limit:?}", self.index, self.number);
            self.run.note(what);
        }
    }

    fn closed(&self, producer: u64, deadline: Duration) {
        self.run.history().closed.insert((self.index, producer));
        self.run.closes(&format!("writer-{}", self.index), deadline);
    }

    /// A producer with settings of its own, and the size of its largest record.
    async fn build(&mut self) -> Option<(Producer, usize)> {
        let random = &mut self.random;
        let largest = random.pick(&[4 << 10, 64 << 10, 1 << 20]);
        let codec = random.pick(&CODECS);
        let level = match codec {
            Compression::Gzip if random.percent(50) => Some(random.range(0, 9) as i32),
            Compression::Zstd if random.percent(50) => Some(random.range(1, 9) as i32),
            _ => None,
        };
        let partitioning = random.pick(&[
            Partitioning::Adaptive,
            Partitioning::Adaptive,
            Partitioning::Sticky,
            Partitioning::RoundRobin,
            Partitioning::Random,
            Partitioning::ConsistentRandom,
        ]);
        let (linger, batch) = (random.millis(0, 60), random.pick(&[1024, 2048, 4096]));
        let memory = largest * random.pick(&[1, 2, 16]);
        let block = random.millis(50, 20_000);
        let settings = |client: &Client| -> ProducerBuilder {
            let mut builder = client.producer().linger(linger).batch_size(batch).max_request_size(largest);
            builder = builder.buffer_memory(memory).max_block(block).compression(codec);
            if let Some(level) = level {
                builder = builder.compression_level(level);
            }
            builder.partitioner(partitioning.clone()).delivery_timeout(self.delivery_timeout)
        };
        let producer = self.run.patiently("a producer", || settings(&self.client).build()).await?;
        Some((producer, largest))
    }

    fn draw(&mut self, id: &str, keys: u64, largest: usize) -> Record<'static> {
        let random = &mut self.random;
        let size = match random.range(0, 99) {
            0..=69 => random.range(0, 150),
            70..=97 => random.range(0, 3000),
            // Perhaps over the limit.
            _ => random.range(0, largest as u64 + 100),
        };
        let mut value = format!("{id}|");
        // Compressible or not.
        let step = if random.percent(50) { 16 } else { 0 };
        while (value.len() as u64) < size {
            match step {
                0 => value.push_str("all alike, "),
                _ => value.push_str(&format!("{:016x}", random.next())),
            }
        }
        let mut record = Record::to(TOPIC).expect("a topic's name").value(value);
        if random.percent(20) {
            record = record.header("n", random.percent(50).then(|| id.to_owned().into()));
        }
        match random.range(0, 9) {
            0..=5 if keys > 0 => record.key(format!("{}-key-{}", self.index, random.range(1, keys))),
            6 => record.partition(Partition(random.range(0, self.run.layout.partitions as u64 - 1) as i32)),
            _ => record,
        }
    }

    /// Enqueues a record, now and then without the patience to wait for it, and watches for its outcome.
    async fn record(&mut self, producer: &Producer, producers: u64, n: u64, keys: u64, largest: usize) {
        let id = format!("{}/{}/{n}", self.index, self.number);
        let record = self.draw(&id, keys, largest);
        let queued = if self.random.percent(5) {
            let patience = self.random.millis(0, 300);
            // Given up before it is done, it is not queued.
            timeout(patience, producer.enqueue(record)).await.ok()
        } else {
            Some(producer.enqueue(record).await)
        };
        let at = self.run.network.elapsed();
        let (partition, outcome) = match &queued {
            Some(Ok(queued)) => (queued.partition().0, None),
            Some(Err(e)) if e.is_ambiguous() => {
                self.run.note(format!("enqueue of {id} says that it may be written: {}", e.report()));
                (-1, Some(Outcome::Unknown(e.kind(), e.report())))
            }
            Some(Err(e)) => (-1, Some(Outcome::Failed(e.kind(), e.report()))),
            None => (-1, Some(Outcome::Failed(ErrorKind::Timeout, "given up by the caller".to_owned()))),
        };
        let place = {
            let mut history = self.run.history();
            let outcome = outcome.map(|outcome| (at, outcome));
            history.sent.push(Sent { id, producer: producers, sender: self.index, partition, at, outcome });
            history.sent.len() - 1
        };
        if let Some(Ok(queued)) = queued {
            let run = Arc::clone(&self.run);
            self.outcomes.spawn(async move {
                let outcome = outcome_of(queued.await);
                let at = run.network.elapsed();
                run.history().sent[place].outcome = Some((at, outcome));
            });
        }
    }

    /// Now and then a flush, awaited by nobody, by another task, or not to its end.
    fn oddity(&mut self, producer: &Producer) {
        if !self.random.percent(3) {
            return;
        }
        let producer = producer.clone();
        let patience = self.random.millis(0, 2000);
        self.outcomes.spawn(async move { drop(timeout(patience, producer.flush()).await) });
    }
}

fn outcome_of(result: Result<muslin::kafka::Placed>) -> Outcome {
    match result {
        Ok(placed) => Outcome::Stored { partition: placed.partition.0, offset: placed.offset.0 },
        Err(e) if e.is_ambiguous() => Outcome::Unknown(e.kind(), e.report()),
        Err(e) => Outcome::Failed(e.kind(), e.report()),
    }
}
