//! A cluster of three brokers, a topic of twelve partitions, and members that count what they read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muslin::embedded::Kafka;
use muslin::embedded::faults::Faults;
use muslin::embedded::sim::Network;
use muslin::kafka::{Client, ConsumerBuilder, Group, GroupProtocol, Record};
use muslin::{Offset, Partition};
use tokio::time::Instant;

use crate::member::{Acked, Worker};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const TOPIC: &str = "t";
pub(crate) const PARTITIONS: i32 = 12;
pub(crate) const GROUP: &str = "g";
pub(crate) const BOTH: [GroupProtocol; 2] = [GroupProtocol::Classic, GroupProtocol::Consumer];

pub(crate) struct Bed {
    pub(crate) network: Network,
    pub(crate) kafka: Kafka,
    pub(crate) client: Client,
    /// How often each record was acknowledged.
    pub(crate) acked: Acked,
}

impl Bed {
    pub(crate) async fn new(faults: Faults) -> Self {
        let network = Network::new(7);
        let kafka =
            Kafka::builder().brokers(3).topic(TOPIC, PARTITIONS).faults(faults).start_on(&network).unwrap();
        let client = connect(&network, &kafka, "client").await;
        Self { network, kafka, client, acked: Acked::default() }
    }

    /// Another process, so to speak: with connections of its own.
    pub(crate) async fn client(&self, name: &str) -> Client {
        connect(&self.network, &self.kafka, name).await
    }

    /// Sends so many records to each partition.
    pub(crate) async fn fill(&self, each: usize) {
        let producer = self.client.producer().build().await.unwrap();
        let mut queued = Vec::new();
        for n in 0..each {
            for partition in 0..PARTITIONS {
                let record = Record::to(TOPIC).unwrap().partition(Partition(partition)).value(format!("{n}"));
                queued.push(producer.enqueue(record).await.unwrap());
            }
        }
        for placed in queued {
            placed.await.unwrap();
        }
        producer.close(SECOND * 30).await.unwrap();
    }

    pub(crate) fn builder(&self, protocol: GroupProtocol) -> ConsumerBuilder<Group> {
        member(&self.client, protocol)
    }

    /// A member that acknowledges all that it gets.
    pub(crate) async fn join(&self, protocol: GroupProtocol) -> Worker {
        Worker::start(self.builder(protocol).build().await.unwrap(), Arc::clone(&self.acked), Duration::ZERO)
    }

    pub(crate) fn count(&self) -> usize {
        self.acked.lock().unwrap().len()
    }

    /// How many acks were for records that were acknowledged before.
    pub(crate) fn repeated(&self) -> usize {
        self.acked.lock().unwrap().values().map(|n| *n as usize - 1).sum()
    }

    /// Waits until so many different records were acknowledged, at most five minutes.
    pub(crate) async fn until_acked(&self, count: usize) {
        let deadline = Instant::now() + 300 * SECOND;
        while self.count() < count {
            assert!(Instant::now() < deadline, "{} of {count} acknowledged", self.count());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the group has committed, by partition.
    pub(crate) async fn committed(&self) -> BTreeMap<Partition, Offset> {
        self.client.committed(GROUP, &muslin::Topic::new(TOPIC).unwrap()).await.unwrap()
    }
}

async fn connect(network: &Network, kafka: &Kafka, name: &str) -> Client {
    let wall = network.clone();
    Client::builder(kafka.bootstrap())
        .client_id(name)
        .connector(network.connector(name))
        .wall_clock(move || wall.wall())
        .request_timeout(10 * SECOND)
        .metadata_max_age(20 * SECOND)
        .connect()
        .await
        .unwrap()
}

pub(crate) fn member(client: &Client, protocol: GroupProtocol) -> ConsumerBuilder<Group> {
    client.consumer(GROUP).topics([TOPIC]).protocol(protocol)
}
