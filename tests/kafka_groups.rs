//! Members of a group on a real broker, by both protocols.
#![cfg(feature = "kafka")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
mod common;
#[path = "common/member.rs"]
mod member;

use std::sync::Arc;
use std::time::{Duration, Instant};

use member::{Acked, Worker, until_shared};
use muslin::kafka::{Client, ConsumerBuilder, Group, GroupProtocol, Record};
use muslin::{Partition, Topic};

const PARTITIONS: i32 = 12;
const ALL: usize = PARTITIONS as usize;

/// A topic, a group, and what was read.
struct Bed {
    client: Client,
    topic: Topic,
    group: String,
    protocol: GroupProtocol,
    acked: Acked,
}

impl Bed {
    async fn new(protocol: GroupProtocol) -> Self {
        let client = client().await;
        let topic = Topic::new(common::unique("groups")).unwrap();
        client.create_topic(&topic, PARTITIONS, 1).await.unwrap();
        Self { client, topic, group: common::unique("g"), protocol, acked: Acked::default() }
    }

    async fn fill(&self, each: usize) {
        let producer = self.client.producer().build().await.unwrap();
        for n in 0..each {
            for partition in 0..PARTITIONS {
                let record = Record::to_topic(self.topic.clone()).partition(Partition(partition));
                drop(producer.enqueue(record.value(n.to_string())).await.unwrap());
            }
        }
        producer.flush().await.unwrap();
        producer.close(Duration::from_secs(10)).await.unwrap();
    }

    fn builder(&self, client: &Client) -> ConsumerBuilder<Group> {
        let builder = client.consumer(self.group.as_str()).topics([self.topic.as_str()]);
        builder.protocol(self.protocol).commit_interval(Duration::from_millis(200))
    }

    async fn join(&self) -> Worker {
        // Each with connections of its own, as another process has them.
        let consumer = self.builder(&client().await).build().await.unwrap();
        Worker::start(consumer, Arc::clone(&self.acked), Duration::ZERO)
    }

    async fn until_acked(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let acked = self.acked.lock().unwrap().len();
            if acked >= count {
                return;
            }
            assert!(Instant::now() < deadline, "{acked} of {count} acknowledged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn repeated(&self) -> usize {
        self.acked.lock().unwrap().values().map(|n| *n as usize - 1).sum()
    }
}

async fn client() -> Client {
    Client::builder(common::kafka()).client_id("muslin-tests").connect().await.unwrap()
}

async fn members_share_and_leave(protocol: GroupProtocol) {
    let bed = Bed::new(protocol).await;
    bed.fill(50).await;
    let first = bed.join().await;
    bed.until_acked(50 * ALL).await;
    let (second, third) = (bed.join().await, bed.join().await);
    until_shared(&[&first, &second, &third], ALL).await;
    bed.fill(50).await;
    bed.until_acked(100 * ALL).await;
    second.close().await;
    until_shared(&[&first, &third], ALL).await;
    bed.fill(50).await;
    bed.until_acked(150 * ALL).await;
    first.close().await;
    third.close().await;
    assert_eq!(bed.repeated(), 0, "in good order nothing comes twice");
    let committed = bed.client.committed(&bed.group, &bed.topic).await.unwrap();
    assert!(committed.len() == ALL && committed.values().all(|o| o.0 == 150), "{committed:?}");
}

#[tokio::test]
async fn members_of_the_classic_protocol_share_and_leave() {
    members_share_and_leave(GroupProtocol::Classic).await;
}

#[tokio::test]
async fn members_of_the_newer_protocol_share_and_leave() {
    members_share_and_leave(GroupProtocol::Consumer).await;
}
