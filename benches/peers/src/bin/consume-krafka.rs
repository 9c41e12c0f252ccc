//! krafka: pure Rust on tokio, a vector of records for each poll.

use krafka::Kafka;
use krafka::consumer::{AutoOffsetReset, ConsumerRebalanceListener, TopicPartition};
use peers::{Args, Clock, PATIENCE, Reading, die};

struct Assigned(Clock);

impl ConsumerRebalanceListener for Assigned {
    async fn on_partitions_assigned(&self, partitions: &[TopicPartition]) {
        if !partitions.is_empty() {
            self.0.start();
        }
    }

    async fn on_partitions_revoked(&self, _: &[TopicPartition]) {}
}

#[tokio::main]
async fn main() {
    let mut reading = Reading::new(Args::consumer());
    let kafka = Kafka::builder(reading.source().0).connect().await.unwrap_or_else(|e| die(e));
    let consumer = kafka
        .consumer(reading.group())
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .rebalance_listener(Assigned(reading.clock()))
        .metrics_push(false)
        .build()
        .await
        .unwrap_or_else(|e| die(e));
    consumer.subscribe([reading.source().1]).await.unwrap_or_else(|e| die(e));
    let mut done = false;
    while !done {
        let records = consumer.poll(PATIENCE).await.unwrap_or_else(|e| die(e));
        if records.is_empty() {
            die("no record comes");
        }
        for record in records {
            done = reading.record(record.key.as_deref(), record.value.as_deref());
        }
    }
    reading.end("krafka");
    consumer.close().await.unwrap_or_else(|e| die(e));
}
