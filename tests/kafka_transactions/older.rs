//! The scenes on a real broker that speaks the older protocol alone: one whose `transaction.version` is 0, as that of a cluster that was
//! raised from Kafka 3 and never told to go on.

use std::time::Duration;

use muslin::kafka::{Client, Isolation, Record, TransactionEnd};
use muslin::{ErrorKind, Topic};

use crate::{common, scenes};

/// Stopped when the test ends, however it ends.
struct Broker {
    bootstrap: String,
}

impl Broker {
    fn start() -> Self {
        let out = common::brokers_sh(&["up", "kafka-v1"]);
        let line = out.lines().find_map(|l| l.strip_prefix("export KAFKA_V1_BOOTSTRAP="));
        Self { bootstrap: line.expect("no address of the broker").to_owned() }
    }

    async fn topic(&self, client: &Client) -> Topic {
        let topic = Topic::new(common::unique("older")).unwrap();
        client.create_topic(&topic, scenes::PARTITIONS, 1).await.unwrap();
        topic
    }

    /// The epoch of the id's producer, as Kafka's own tool tells it.
    fn epoch(&self, id: &str) -> i16 {
        let class = "org.apache.kafka.tools.TransactionsCommand";
        let server = ["--bootstrap-server", &self.bootstrap, "describe", "--transactional-id", id];
        let out = common::brokers_sh(&[&["kafka", class][..], &server].concat());
        let mut lines = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let column = lines.next().unwrap().iter().position(|name| *name == "ProducerEpoch").unwrap();
        lines.next().unwrap()[column].parse().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        common::brokers_sh(&["down", "kafka-v1"]);
    }
}

/// One test for all: they share a broker of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_protocol_keeps_its_promises_on_a_real_broker() {
    let broker = tokio::task::spawn_blocking(Broker::start).await.unwrap();
    let client = Client::builder(&broker.bootstrap).connect().await.unwrap();

    let topic = broker.topic(&client).await;
    scenes::committed_is_read_and_aborted_is_not(&client, &topic, "committed").await;
    // What the scene wrote, and the last record of each of its two readers in each partition.
    let committed: Vec<String> = (0..200).filter(|n| n / 10 % 10 != 9).map(|n| n.to_string()).collect();
    let count = committed.len() + 2 * scenes::PARTITIONS as usize;
    let args = ["--isolation-level", "read_committed"];
    let printed =
        common::console_consumer(&broker.bootstrap, topic.as_str(), count, &args, Duration::from_secs(120));
    let mut read: Vec<&str> = printed.lines().filter(|value| !value.starts_with("last")).collect();
    read.sort_by_key(|value| value.parse::<u32>().unwrap());
    assert_eq!(read, committed, "read by the Java client");

    // It was the older protocol: the epoch stays at a commit.
    let mut producer = scenes::producer(&client, "epochs").await;
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let transaction = producer.begin().await.unwrap();
        transaction.send(Record::to_topic(topic.clone()).value("0")).await.unwrap();
        transaction.commit().await.unwrap();
        epochs.push(broker.epoch("epochs"));
    }
    assert_eq!(epochs[0], epochs[1], "epochs after two commits");

    let topic = broker.topic(&client).await;
    scenes::offsets_count_with_their_transaction(&client, &topic, "offsets", "group").await;
    let topic = broker.topic(&client).await;
    scenes::the_newer_producer_fences_the_older(&client, &topic, "fenced").await;
    let topic = broker.topic(&client).await;
    scenes::dropping_aborts(&client, &topic, "dropped").await;
    let topic = broker.topic(&client).await;
    open_too_long(&client, &topic).await;
}

/// The broker refuses a producer whose transaction it aborted as it refuses one that was replaced (Kafka 4.3, in the older
/// protocol): the producer ends, its error names both, and nothing of the transaction counts.
async fn open_too_long(client: &Client, topic: &Topic) {
    let record = |value: &str| Record::to_topic(topic.clone()).partition(0).value(value.to_owned());
    let build = || client.transactional_producer("late").transaction_timeout(Duration::from_secs(1)).build();
    let mut producer = build().await.unwrap();
    let transaction = producer.begin().await.unwrap();
    transaction.send(record("1")).await.unwrap();
    // This broker looks every second for those that are open too long.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let e = transaction.commit().await.unwrap_err();
    assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Fenced, false), "{}", e.report());
    assert!(e.report().contains("transaction_timeout"), "{}", e.report());
    assert_eq!(producer.last_end(), Some(TransactionEnd::Aborted));
    assert_eq!(producer.begin().await.unwrap_err().kind(), ErrorKind::Fenced);
    let mut producer = build().await.unwrap();
    let transaction = producer.begin().await.unwrap();
    transaction.send(record("2")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(scenes::read(client, topic, Isolation::ReadCommitted).await, ["2"]);
}
