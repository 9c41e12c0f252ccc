//! Three brokers, a client, and a run of numbered records whose outcomes are compared with the log.

use std::collections::BTreeMap;
use std::time::Duration;

use muslin::embedded::Kafka;
use muslin::embedded::faults::{Action, Faults, Met, Rule};
use muslin::embedded::sim::Network;
use muslin::kafka::{At, Client, Placed, Producer, ProducerBuilder, Record};
use muslin::{Error, ErrorKind, Offset, Partition, Result, Topic};
use tokio::time::Instant;

pub const SECOND: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a producer tries.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(8);
/// The records of one run.
pub const RECORDS: usize = 24;
/// How many of them a batch takes.
pub const BATCH: usize = 3;
/// No request is on its way any more after so long, whatever the faults were.
const QUIET: Duration = Duration::from_secs(300);

pub fn topic() -> Topic {
    Topic::new("t").unwrap()
}

pub fn rule(action: Action) -> Rule {
    Rule::new("Produce", action).unwrap().topic("t").name("struck")
}

/// Three brokers, the topic `t` with one partition, and a client.
pub struct Bed {
    pub network: Network,
    pub kafka: Kafka,
    pub client: Client,
}

impl Bed {
    pub async fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let network = Network::new(7);
        let faults = rules.into_iter().try_fold(Faults::new(1), Faults::with).unwrap();
        let kafka = Kafka::builder().brokers(3).topic("t", 1).faults(faults).start_on(&network).unwrap();
        let wall = network.clone();
        let client = Client::builder(kafka.bootstrap())
            .connector(network.connector("client"))
            .wall_clock(move || wall.wall())
            .seed(7)
            .request_timeout(REQUEST_TIMEOUT)
            .connect()
            .await
            .unwrap();
        Self { network, kafka, client }
    }

    /// A producer with small batches, so that several of the partition are under way.
    pub fn builder(&self) -> ProducerBuilder {
        let builder = self.client.producer().linger(Duration::ZERO).batch_size(1024);
        builder.delivery_timeout(DELIVERY_TIMEOUT)
    }

    pub async fn producer(&self) -> Producer {
        self.builder().build().await.unwrap()
    }

    /// Sends the records of a run, a few at once and a few apart, and waits for every outcome.
    pub async fn run(&self) -> Run {
        let producer = self.producer().await;
        let mut tasks = Vec::new();
        for n in 0..RECORDS {
            tasks.push(send(&producer, n).await);
            if n % 7 == 6 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        let mut outcomes = Vec::new();
        for (n, task) in tasks.into_iter().enumerate() {
            outcomes.push(task.await.unwrap_or_else(|e| panic!("record {n}: {e}")));
        }
        self.end(outcomes).await
    }

    /// Lets everything that is late arrive, and reads the log.
    pub async fn end(&self, outcomes: Vec<(Duration, Result<Placed>)>) -> Run {
        let met = self.kafka.faults(|f| f.met().cloned().collect());
        self.kafka.faults(Faults::clear);
        self.network.unblock_all();
        tokio::time::sleep(QUIET).await;
        Run { outcomes, met, log: self.log("t").await }
    }

    /// The numbers in the log of partition 0, by offset.
    pub async fn log(&self, topic: &str) -> BTreeMap<i64, usize> {
        let wall = self.network.clone();
        let reader = Client::builder(self.kafka.bootstrap())
            .client_id("reader")
            .connector(self.network.connector("reader"))
            .wall_clock(move || wall.wall())
            .connect()
            .await
            .unwrap();
        let ends = reader.offsets(&Topic::new(topic).unwrap(), At::Latest).await.unwrap();
        let mut consumer = reader.simple_consumer().topics([topic]).build().await.unwrap();
        let mut log = BTreeMap::new();
        for _ in 0..ends[&Partition(0)].get() {
            let next = tokio::time::timeout(60 * SECOND, consumer.next()).await;
            let delivery = next.expect("a record of the log does not come").unwrap().unwrap();
            log.insert(delivery.offset().get(), number(delivery.value().unwrap()));
            delivery.ack();
        }
        log
    }

    pub async fn leader(&self) -> muslin::NodeId {
        self.client.topic(&topic()).await.unwrap().partitions[0].leader.unwrap()
    }
}

fn number(value: &[u8]) -> usize {
    std::str::from_utf8(value).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// The n-th record: its number and a filling, so that [`BATCH`] of them make a batch.
pub fn record(n: usize) -> Record<'static> {
    Record::to_topic(topic()).partition(Partition(0)).key("k").value(format!("{n} {}", "x".repeat(300)))
}

type Outcome = tokio::task::JoinHandle<(Duration, Result<Placed>)>;

/// Enqueues a record; its outcome, and how long it took.
pub async fn send(producer: &Producer, n: usize) -> Outcome {
    let queued = producer.enqueue(record(n)).await.unwrap();
    let begin = Instant::now();
    tokio::spawn(async move {
        let outcome = tokio::time::timeout(QUIET, queued).await;
        (begin.elapsed(), outcome.unwrap_or_else(|_| panic!("record {n} never had an outcome")))
    })
}

/// What came of a run.
pub struct Run {
    pub outcomes: Vec<(Duration, Result<Placed>)>,
    pub met: Vec<Met>,
    pub log: BTreeMap<i64, usize>,
}

impl Run {
    pub fn failures(&self) -> Vec<(usize, &Error)> {
        let all = self.outcomes.iter().enumerate();
        all.filter_map(|(n, (_, outcome))| outcome.as_ref().err().map(|e| (n, e))).collect()
    }

    /// How often this record is in the log.
    pub fn stored(&self, n: usize) -> usize {
        self.log.values().filter(|stored| **stored == n).count()
    }

    /// What must hold whatever happened: what is `Ok` is there once and where it was said to be, what surely failed is not,
    /// what is ambiguous is there at most once, in the order in which it was sent, within the delivery timeout.
    pub fn check(&self, what: &str) {
        assert!(!self.met.is_empty(), "{what}: nothing was struck");
        let order: Vec<usize> = self.log.values().copied().collect();
        assert!(order.windows(2).all(|w| w[0] < w[1]), "{what}: out of order or twice: {order:?}");
        for (n, (took, outcome)) in self.outcomes.iter().enumerate() {
            let what = format!("{what}, record {n}");
            assert!(*took <= DELIVERY_TIMEOUT + SECOND / 10, "{what}: {took:?} until {outcome:?}");
            match outcome {
                Ok(placed) => {
                    assert_eq!(self.stored(n), 1, "{what}: acknowledged");
                    // A duplicate of long ago is acknowledged without its offset.
                    if placed.offset >= Offset(0) {
                        assert_eq!(self.log.get(&placed.offset.get()), Some(&n), "{what}: {placed:?}");
                    }
                }
                Err(e) if e.is_ambiguous() => assert!(self.stored(n) <= 1, "{what}: {}", e.report()),
                Err(e) => assert_eq!(self.stored(n), 0, "{what} surely failed: {}", e.report()),
            }
            if let Err(e) = outcome {
                let text = e.report();
                assert!(
                    text.contains("topic t") && text.contains("partition 0"),
                    "{what}: neither topic nor partition in {text:?}"
                );
            }
        }
    }

    /// Every record is there.
    pub fn check_whole(&self, what: &str) {
        self.check(what);
        let failures: Vec<_> = self.failures().iter().map(|(n, e)| format!("{n}: {}", e.report())).collect();
        assert!(failures.is_empty(), "{what}: {failures:?}");
        let log: Vec<usize> = self.log.values().copied().collect();
        assert_eq!(log, (0..RECORDS).collect::<Vec<_>>(), "{what}");
    }

    /// Nothing was written, and everybody was told so by an error of this kind, sure or not.
    pub fn check_failed(&self, what: &str, kind: ErrorKind, ambiguous: bool) {
        self.check(what);
        assert_eq!(self.failures().len(), RECORDS, "{what}");
        let (_, first) = self.failures()[0];
        assert_eq!((first.kind(), first.is_ambiguous()), (kind, ambiguous), "{what}: {}", first.report());
        for (n, e) in self.failures() {
            // What waited behind the first was never tried itself.
            let waited = kind == ErrorKind::NotFound && e.kind() == ErrorKind::Timeout;
            assert!(e.kind() == kind || waited, "{what}, record {n}: {}", e.report());
        }
    }
}
