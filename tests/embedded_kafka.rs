//! Our own client on the embedded Kafka cluster.

use muslin::embedded;
use muslin::kafka::{Client, Record};

#[tokio::test]
async fn a_client_connects_to_an_embedded_cluster() {
    let kafka = embedded::Kafka::builder().brokers(3).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    client.close().await.unwrap();
}

#[tokio::test]
async fn what_a_producer_sent_a_consumer_reads() {
    let kafka = embedded::Kafka::builder().brokers(3).topic("orders", 3).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    let producer = client.producer().build().await.unwrap();
    for i in 0..300 {
        let record = Record::to("orders").unwrap().key(format!("k{i}")).value(format!("v{i}"));
        producer.send(record).await.unwrap();
    }
    let mut consumer = client.consumer().group("readers").topics(["orders"]).build().await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 300 {
        let delivery = consumer.next().await.unwrap().unwrap();
        seen.insert(String::from_utf8(delivery.value().unwrap().to_vec()).unwrap());
        delivery.ack();
    }
    assert_eq!(seen, (0..300).map(|i| format!("v{i}")).collect());
    client.close().await.unwrap();
}
