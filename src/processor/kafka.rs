//! Kafka under the engine: a consumer as a source, a topic for dead letters.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::dead_letter::{DeadLetters, Obituary};
use super::handler::BoxFuture;
use super::message::{Message, Origin};
use super::source::{Delivery, Source};
use crate::kafka::{self, Consumer, Producer, Record};
use crate::{Result, Topic};

/// A consumer as a source.
#[derive(Debug)]
pub struct KafkaSource {
    consumer: Consumer,
    group: Option<Arc<str>>,
}

impl KafkaSource {
    /// A consumer as a source; `group` is named in dead letters.
    #[must_use]
    pub fn new(consumer: Consumer, group: Option<&str>) -> Self {
        Self { consumer, group: group.map(Arc::from) }
    }
}

/// A record in hand, from a [`KafkaSource`].
#[derive(Debug)]
pub struct KafkaDelivery {
    inner: kafka::Delivery,
    group: Option<Arc<str>>,
}

impl Source for KafkaSource {
    type Delivery = KafkaDelivery;

    async fn next(&mut self) -> Option<Result<KafkaDelivery>> {
        let inner = self.consumer.next().await?;
        Some(inner.map(|inner| KafkaDelivery { inner, group: self.group.clone() }))
    }

    async fn close(self, limit: Duration) -> Result<()> {
        self.consumer.close(limit).await
    }
}

impl Delivery for KafkaDelivery {
    fn message(&self) -> Message {
        let record = &self.inner;
        let headers = record
            .headers()
            .map(|(name, value)| (name.into_owned(), value.map(Bytes::copy_from_slice)))
            .collect();
        let origin = Origin::Kafka {
            topic: record.topic().clone(),
            partition: record.partition(),
            offset: record.offset(),
            timestamp: record.timestamp(),
            group: self.group.clone(),
        };
        Message::new(origin, record.key_bytes(), record.value_bytes(), headers, None)
    }

    fn ack(self) {
        self.inner.ack();
    }
}

/// A topic for dead letters. Key, value and headers of the original stay as they were; the headers of
/// [`crate::delivery::dead_letter`] are added behind them.
#[derive(Debug, Clone)]
pub struct KafkaDeadLetters {
    producer: Producer,
    topic: Topic,
}

impl KafkaDeadLetters {
    /// Dead letters to that topic, by that producer.
    #[must_use]
    pub fn to(producer: Producer, topic: Topic) -> Self {
        Self { producer, topic }
    }
}

impl DeadLetters<KafkaDelivery> for KafkaDeadLetters {
    fn publish(&self, delivery: &KafkaDelivery, obituary: &Obituary) -> BoxFuture<Result<()>> {
        let mut record = Record::to_topic(self.topic.clone());
        if let Some(key) = delivery.inner.key_bytes() {
            record = record.key(key);
        }
        if let Some(value) = delivery.inner.value_bytes() {
            record = record.value(value);
        }
        for (name, value) in obituary.kept_headers() {
            record = record.header(name.clone(), value.clone());
        }
        for (name, value) in obituary.headers() {
            record = record.header(name, Some(Bytes::from(value)));
        }
        let producer = self.producer.clone();
        Box::pin(async move { producer.send(record).await.map(drop) })
    }

    fn name(&self) -> String {
        format!("topic {}", self.topic)
    }
}
