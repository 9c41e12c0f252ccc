//! The applications of a run: writers that send, readers that settle and come and go. All they do is drawn from the seed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use muslin::embedded::Kafka;
use muslin::embedded::sim::Network;
use muslin::kafka::{At, Client, Consumer, Delivery, Record, Reset, StartAt};
use muslin::{Error, ErrorKind, Partition, Result, Topic};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::history::{Committed, Got, History, Outcome, Sent};
use super::random::Random;
use super::tap::{Tap, Watch};

pub const TOPIC: &str = "storm";

/// How long a call may fail in passing before that counts as an error of its own.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// How a run is laid out.
#[derive(Debug, Clone)]
pub struct Layout {
    pub seed: u64,
    pub brokers: u16,
    pub partitions: i32,
    pub writers: usize,
    /// The cluster's level of `transaction.version`.
    pub transaction_version: i16,
    /// For each group, the partitions of each of its readers.
    pub groups: Vec<Vec<Vec<i32>>>,
}

impl Layout {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, "layout");
        let partitions = random.range(1, 4) as i32;
        let groups = (0..random.range(1, 2))
            .map(|_| {
                let readers = random.range(1, 2.min(partitions as u64)) as i32;
                (0..readers).map(|r| (0..partitions).filter(|p| p % readers == r).collect()).collect()
            })
            .collect();
        Self {
            seed,
            brokers: random.pick(&[1, 2, 3, 3, 3]),
            partitions,
            writers: random.range(1, 3) as usize,
            transaction_version: 2,
            groups,
        }
    }

    /// For [`producers`](super::producers): nobody reads.
    pub fn of_producers(seed: u64) -> Self {
        let mut random = Random::new(seed, "layout of producers");
        Self {
            seed,
            brokers: random.pick(&[1, 2, 3, 3, 3]),
            partitions: random.pick(&[1, 2, 3, 6, 12]),
            writers: random.range(1, 3) as usize,
            transaction_version: 2,
            groups: Vec::new(),
        }
    }

    /// For [`transactions`](super::transactions): both protocols.
    pub fn of_transactions(seed: u64) -> Self {
        let mut random = Random::new(seed, "layout of transactions");
        Self {
            seed,
            brokers: random.pick(&[1, 2, 3, 3, 3]),
            partitions: random.pick(&[1, 2, 3, 6]),
            writers: random.range(1, 3) as usize,
            transaction_version: random.pick(&[1, 2]),
            groups: Vec::new(),
        }
    }

    /// The hosts of the clients.
    pub fn hosts(&self) -> Vec<String> {
        let writers = (0..self.writers).map(|w| format!("writer-{w}"));
        let readers = self
            .groups
            .iter()
            .enumerate()
            .flat_map(|(g, readers)| (0..readers.len()).map(move |r| format!("reader-{g}-{r}")));
        writers.chain(readers).collect()
    }
}

/// What all applications of a run share.
#[derive(Debug)]
pub struct Run {
    pub layout: Layout,
    pub network: Network,
    pub kafka: Kafka,
    history: Mutex<History>,
    watches: Mutex<Vec<Arc<Watch>>>,
    consumers: AtomicUsize,
    /// The ends of the partitions, once nothing is written any more.
    ends: Mutex<Option<Vec<i64>>>,
    /// The readers have all they want.
    pub done: AtomicBool,
}

impl Run {
    pub fn new(layout: Layout, network: Network, kafka: Kafka) -> Arc<Self> {
        let mut history = History::default();
        for group in 0..layout.groups.len() {
            history.settled.insert(group, BTreeSet::new());
        }
        Arc::new(Self {
            layout,
            network,
            kafka,
            history: Mutex::new(history),
            watches: Mutex::default(),
            consumers: AtomicUsize::new(0),
            ends: Mutex::new(None),
            done: AtomicBool::new(false),
        })
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap()
    }

    /// Takes in what the watches over the clients' wires have found.
    pub fn collect(&self) {
        for watch in self.watches.lock().unwrap().iter() {
            self.history().notes.append(&mut watch.found());
        }
    }

    /// A producer on this host is closed, perhaps before its answers have come.
    pub fn closes(&self, host: &str, within: Duration) {
        self.watches.lock().unwrap().iter().for_each(|watch| watch.close(host, within));
    }

    pub fn note(&self, what: String) {
        let at = self.network.elapsed();
        self.history().notes.push(format!("at {at:?}: {what}"));
    }

    /// The lowest offset that a group has not settled.
    fn unsettled_from(&self, group: usize, partition: i32) -> i64 {
        let history = self.history();
        let settled = &history.settled[&group];
        let mut offset = 0;
        for (_, next) in settled.range((partition, 0)..(partition + 1, 0)) {
            if *next != offset {
                break;
            }
            offset += 1;
        }
        offset
    }

    fn has_all(&self, group: usize, partitions: &[i32]) -> bool {
        let ends = self.ends.lock().unwrap();
        let Some(ends) = ends.as_ref() else { return false };
        partitions.iter().all(|p| self.unsettled_from(group, *p) >= ends[*p as usize])
    }

    /// A client on a host, whatever it takes.
    pub async fn client(&self, host: &str, random: &mut Random) -> Option<Client> {
        let connect = random.millis(500, 5000);
        let request = random.millis(500, 10_000);
        let seed = random.next();
        let watch = Watch::new(host, self.network.clone());
        self.watches.lock().unwrap().push(Arc::clone(&watch));
        self.patiently("a connection", || {
            let network = self.network.clone();
            Client::builder(self.kafka.bootstrap())
                .connector(Tap::new(network.connector(host), Arc::clone(&watch)))
                .client_id(host)
                .connect_timeout(connect)
                .request_timeout(request)
                .seed(seed)
                .wall_clock(move || network.wall())
                .connect()
        })
        .await
    }

    /// Repeats a call that fails in passing. One that fails for good, or for too long, is noted.
    pub async fn patiently<T, F>(&self, what: &str, mut call: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T>>,
    {
        let begin = self.network.elapsed();
        loop {
            match call().await {
                Ok(value) => return Some(value),
                Err(e) if !passing(&e) => {
                    self.note(format!("{what} failed for good: {:?}: {}", e.kind(), e.report()));
                    return None;
                }
                Err(e) if self.network.elapsed() - begin > PATIENCE => {
                    self.note(format!("{what} still fails after {PATIENCE:?}: {}", e.report()));
                    return None;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

/// Whether an error may come of the faults that strike. A topic may be unknown to a broker in passing.
fn passing(e: &Error) -> bool {
    e.is_retryable()
        || matches!(e.kind(), ErrorKind::Connect | ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::NotFound)
        || e.kind() == ErrorKind::Disconnected
        // An answer to InitProducerId and its like that was made up by a fault.
        || e.kind() == ErrorKind::Fenced
}

/// A writer: sends its records over the time of the storm, and waits for what became of each.
pub async fn writer(run: Arc<Run>, index: usize) {
    let host = format!("writer-{index}");
    let mut random = Random::new(run.layout.seed, &host);
    tokio::time::sleep(random.millis(0, 3000)).await;
    let delivery_timeout = random.millis(2000, 30_000);
    run.history().delivery_timeout.insert(index, delivery_timeout);
    let keys = random.range(0, 5);
    let mut left = random.range(30, 120);
    // Records come in bursts, and the bursts over most of the storm.
    let burst = random.pick(&[1, 4, 20]);
    let pause = 32_000 * burst / left;
    let mut number = 0;
    let mut producers = 0;
    let mut outcomes = JoinSet::new();
    let Some(client) = run.client(&host, &mut random).await else { return };
    while left > 0 {
        // Mostly one producer for all; sometimes another after a while.
        let share = if random.percent(25) { random.range(1, left) } else { left };
        left -= share;
        let (linger, batch, memory) =
            (random.millis(0, 50), random.pick(&[1024, 4096, 65_536]), random.pick(&[1 << 20, 32 << 20]));
        let built = run.patiently("a producer", || {
            client
                .producer()
                .linger(linger)
                .batch_size(batch)
                .max_request_size(1 << 20)
                .buffer_memory(memory)
                .delivery_timeout(delivery_timeout)
                .build()
        });
        let Some(producer) = built.await else { return };
        producers += 1;
        for _ in 0..share {
            let id = format!("{host}/{number}");
            number += 1;
            let size = if random.percent(80) { random.range(0, 100) } else { random.range(0, 3000) };
            let value = format!("{id}|{}", "x".repeat(size as usize));
            let mut record = Record::to(TOPIC).expect("a topic's name").value(value);
            record = match (keys, random.percent(70)) {
                (0, _) => record,
                (_, true) => record.key(format!("{host}-key-{}", random.range(1, keys))),
                (_, false) => {
                    record.partition(Partition(random.range(0, run.layout.partitions as u64 - 1) as i32))
                }
            };
            let queued = producer.enqueue(record).await;
            let at = run.network.elapsed();
            let (partition, outcome) = match &queued {
                Ok(queued) => (queued.partition().0, None),
                Err(e) if e.is_ambiguous() => {
                    run.note(format!("enqueue of {id} says that it may be written: {}", e.report()));
                    (-1, Some((at, Outcome::Unknown(e.kind(), e.report()))))
                }
                Err(e) => (-1, Some((at, Outcome::Failed(e.kind(), e.report())))),
            };
            let place = {
                let mut history = run.history();
                history.sent.push(Sent { id, producer: producers, sender: index, partition, at, outcome });
                history.sent.len() - 1
            };
            if let Ok(queued) = queued {
                let run = Arc::clone(&run);
                outcomes.spawn(async move {
                    let outcome = match queued.await {
                        Ok(placed) => {
                            Outcome::Stored { partition: placed.partition.0, offset: placed.offset.0 }
                        }
                        Err(e) if e.is_ambiguous() => Outcome::Unknown(e.kind(), e.report()),
                        Err(e) => Outcome::Failed(e.kind(), e.report()),
                    };
                    let at = run.network.elapsed();
                    run.history().sent[place].outcome = Some((at, outcome));
                });
            }
            if random.range(1, burst) == 1 {
                tokio::time::sleep(random.millis(0, 2 * pause)).await;
            }
        }
        match random.range(0, 3) {
            0 => drop(producer.flush().await),
            1 => {
                let deadline = random.millis(0, 3000);
                run.history().closed.insert((index, producers));
                run.closes(&host, deadline);
                drop(producer.close(deadline).await);
            }
            2 => drop(producer.close(2 * delivery_timeout).await),
            _ => {}
        }
    }
    let limit = delivery_timeout + Duration::from_secs(60);
    let all = async { while outcomes.join_next().await.is_some() {} };
    if timeout(limit, all).await.is_err() {
        run.note(format!("{host}: outcomes did not come within {limit:?}"));
    }
}

/// A reader of a group: settles the records of its partitions until it has them all. Its consumers come and go.
pub async fn reader(run: Arc<Run>, group: usize, index: usize) {
    let host = format!("reader-{group}-{index}");
    let partitions = run.layout.groups[group][index].clone();
    let mut random = Random::new(run.layout.seed, &host);
    tokio::time::sleep(random.millis(0, 3000)).await;
    let commit_interval = random.millis(50, 5000);
    let max_in_hand = random.pick(&[1, 3, 50, 1000]);
    while !run.has_all(group, &partitions) {
        let Some(client) = run.client(&host, &mut random).await else { return };
        let built = run.patiently("a consumer", || {
            let builder = client.simple_consumer().group(format!("group-{group}")).reset(Reset::Earliest);
            let builder = partitions.iter().fold(builder, |b, p| b.partition(TOPIC, Partition(*p)));
            builder.commit_interval(commit_interval).max_in_hand(max_in_hand).build()
        });
        let Some(consumer) = built.await else { return };
        let patience = random.range(0, 4).min(max_in_hand as u64 - 1) as usize;
        read(&run, group, &partitions, consumer, patience, &mut random).await;
    }
}

/// The life of one consumer, which keeps up to `patience` deliveries in hand.
async fn read(
    run: &Run,
    group: usize,
    partitions: &[i32],
    mut consumer: Consumer,
    patience: usize,
    random: &mut Random,
) {
    let number = run.consumers.fetch_add(1, Ordering::Relaxed);
    let mut life = if random.percent(60) { random.range(1, 60) } else { u64::MAX };
    let mut in_hand: Vec<Delivery> = Vec::new();
    while life > 0 {
        if run.has_all(group, partitions) {
            break;
        }
        let wait = if in_hand.is_empty() { 1000 } else { 200 };
        let next = timeout(Duration::from_millis(wait), consumer.next()).await;
        match next {
            Err(_) => {}
            Ok(None) => break,
            Ok(Some(Err(e))) => {
                if !passing(&e) {
                    run.note(format!("group {group} consumer {number}: {:?}: {}", e.kind(), e.report()));
                }
                break;
            }
            Ok(Some(Ok(delivery))) => {
                life -= 1;
                let id =
                    delivery.value().map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
                run.history().got.push(Got {
                    group,
                    consumer: number,
                    partition: delivery.partition().0,
                    offset: delivery.offset().0,
                    id: id.split('|').next().unwrap_or_default().to_owned(),
                    attempt: delivery.attempt(),
                });
                in_hand.push(delivery);
            }
        }
        // Settled in any order, and now and then given back.
        while in_hand.len() > patience || (next_is_slow(random) && !in_hand.is_empty()) {
            let at = (random.next() % in_hand.len() as u64) as usize;
            let delivery = in_hand.swap_remove(at);
            match random.range(0, 99) {
                0..=3 => delivery.nack(random.millis(0, 2000)),
                4 | 5 => drop(delivery),
                _ => {
                    let place = (delivery.partition().0, delivery.offset().0);
                    run.history().settled.get_mut(&group).unwrap().insert(place);
                    delivery.ack();
                }
            }
        }
        if random.percent(10) {
            tokio::time::sleep(random.millis(1, 300)).await;
        }
    }
    drop(in_hand);
    match random.range(0, 2) {
        // What is not committed comes again, or is committed by the next consumer.
        0 => drop(timeout(Duration::from_secs(300), consumer.close(random.millis(1, 5000))).await),
        1 => {
            if timeout(Duration::from_secs(300), consumer.close(Duration::from_secs(60))).await.is_err() {
                run.note(format!("group {group} consumer {number}: close hangs"));
            }
        }
        _ => drop(consumer),
    }
}

fn next_is_slow(random: &mut Random) -> bool {
    random.percent(20)
}

/// Asks now and then what a group has committed.
pub async fn auditor(run: Arc<Run>, group: usize) {
    let host = "auditor";
    let mut random = Random::new(run.layout.seed, &format!("auditor-{group}"));
    let Some(client) = run.client(host, &mut random).await else { return };
    let topic = Topic::new(TOPIC).expect("a topic's name");
    while !run.done.load(Ordering::Relaxed) {
        tokio::time::sleep(random.millis(200, 4000)).await;
        let Ok(committed) = client.committed(&format!("group-{group}"), &topic).await else { continue };
        for (partition, offset) in committed {
            let unsettled_from = run.unsettled_from(group, partition.0);
            let seen = Committed { group, partition: partition.0, offset: offset.0, unsettled_from };
            run.history().committed.push(seen);
        }
    }
}

/// Reads the whole log, over a network without faults.
pub async fn read_log(run: &Run) {
    let mut random = Random::new(run.layout.seed, "checker");
    let Some(client) = run.client("checker", &mut random).await else { return };
    let topic = Topic::new(TOPIC).expect("a topic's name");
    let Some(ends) = run.patiently("the ends of the log", || client.offsets(&topic, At::Latest)).await else {
        return;
    };
    let ends: Vec<i64> =
        (0..run.layout.partitions).map(|p| ends.get(&Partition(p)).map_or(0, |o| o.0)).collect();
    let built = run.patiently("the checker", || {
        client.simple_consumer().topics([TOPIC]).start(StartAt::Earliest).build()
    });
    let Some(mut consumer) = built.await else { return };
    let wanted: i64 = ends.iter().sum();
    let mut log = vec![Vec::new(); ends.len()];
    for _ in 0..wanted {
        match timeout(Duration::from_secs(60), consumer.next()).await {
            Ok(Some(Ok(delivery))) => {
                let id =
                    delivery.value().map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
                let id = id.split('|').next().unwrap_or_default().to_owned();
                log[delivery.partition().0 as usize].push((delivery.offset().0, id));
                delivery.ack();
            }
            other => {
                run.note(format!("the log cannot be read to its ends {ends:?}: {other:?}"));
                break;
            }
        }
    }
    run.history().log = (0..).zip(log).collect();
    *run.ends.lock().unwrap() = Some(ends);
}
