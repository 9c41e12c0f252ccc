//! Our own client, and hostile bytes, on the embedded Kafka cluster.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test waits, and fails by a panic")]

use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::{ProduceRequest, TopicName, produce_request};
use kafka_protocol::protocol::Encodable;
use muslin::codec::record_batch::{BatchBuilder, BatchOptions};
use muslin::kafka::{Client, Record};
use muslin::{ErrorKind, LeaderEpoch, Offset, Partition, Timestamp, embedded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
    let mut consumer = client.simple_consumer().group("readers").topics(["orders"]).build().await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 300 {
        let delivery = consumer.next().await.unwrap().unwrap();
        seen.insert(String::from_utf8(delivery.value().unwrap().to_vec()).unwrap());
        delivery.ack();
    }
    assert_eq!(seen, (0..300).map(|i| format!("v{i}")).collect());
    client.close().await.unwrap();
}

/// Sends all of `values` to a topic, one after the other.
async fn send(client: &Client, topic: &str, values: impl IntoIterator<Item = String>) {
    let producer = client.producer().build().await.unwrap();
    for value in values {
        producer.send(Record::to(topic).unwrap().key("k").value(value)).await.unwrap();
    }
    producer.close(Duration::from_secs(10)).await.unwrap();
}

/// Reads so many values of a topic from its beginning.
async fn read(client: &Client, topic: &str, group: &str, count: usize) -> Vec<String> {
    let mut consumer = client.simple_consumer().group(group).topics([topic]).build().await.unwrap();
    let mut values = Vec::new();
    while values.len() < count {
        let delivery = consumer.next().await.unwrap().unwrap();
        values.push(String::from_utf8(delivery.value().unwrap().to_vec()).unwrap());
        delivery.ack();
    }
    values
}

fn numbered(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|i| format!("v{i}")).collect()
}

#[tokio::test]
async fn a_client_goes_on_when_a_broker_dies_and_comes_back() {
    let kafka = embedded::Kafka::builder().brokers(3).topic("t", 1).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    send(&client, "t", numbered(0, 10)).await;
    let leader = kafka.leader("t", Partition(0)).unwrap().unwrap();
    kafka.kill(leader).unwrap();
    let next = kafka.leader("t", Partition(0)).unwrap().unwrap();
    assert_ne!(next, leader);
    assert_eq!(kafka.leader_epoch("t", Partition(0)).unwrap(), LeaderEpoch(1));
    assert_eq!(kafka.in_sync("t", Partition(0)).unwrap().len(), 2);
    send(&client, "t", numbered(10, 20)).await;
    kafka.restart(leader).unwrap();
    kafka.move_leader("t", Partition(0), leader).unwrap();
    send(&client, "t", numbered(20, 30)).await;
    assert_eq!(read(&client, "t", "readers", 30).await, numbered(0, 30));
    assert_eq!(kafka.end_offset("t", Partition(0)).unwrap(), Offset(30));
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_client_goes_on_when_its_broker_is_cut_off() {
    let kafka = embedded::Kafka::builder().brokers(3).topic("t", 1).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).request_timeout(Duration::from_secs(1));
    let client = client.connect_timeout(Duration::from_secs(1)).connect().await.unwrap();
    send(&client, "t", numbered(0, 5)).await;
    let leader = kafka.leader("t", Partition(0)).unwrap().unwrap();
    kafka.isolate(leader).unwrap();
    send(&client, "t", numbered(5, 10)).await;
    kafka.heal(leader).unwrap();
    assert_eq!(read(&client, "t", "readers", 10).await, numbered(0, 10));
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_last_record_of_a_key() {
    let kafka = embedded::Kafka::builder().topic("t", 1).start().await.unwrap();
    assert_eq!(kafka.compact("t").unwrap_err().kind(), ErrorKind::Config);
    kafka.set_topic_config("t", "cleanup.policy", Some("compact")).unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    send(&client, "t", numbered(0, 5)).await;
    assert_eq!(kafka.compact("t").unwrap(), 1);
    assert_eq!(kafka.end_offset("t", Partition(0)).unwrap(), Offset(5));
    assert_eq!(read(&client, "t", "readers", 1).await, ["v4"]);
    let producer = client.producer().build().await.unwrap();
    let refused = producer.send(Record::to("t").unwrap().value("no key")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    client.close().await.unwrap();
}

#[tokio::test]
async fn retention_deletes_what_is_too_old_and_makes_room() {
    let kafka = embedded::Kafka::builder().topic("t", 1).memory_limit(20_000).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    let producer = client.producer().build().await.unwrap();
    let record = || Record::to("t").unwrap().value(vec![b'x'; 1_000]);
    let mut sent = 0;
    let refused = loop {
        match producer.send(record()).await {
            Ok(_) => sent += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Rejected, "{refused}");
    assert!((10..20).contains(&sent), "{sent}");
    kafka.advance(Duration::from_secs(8 * 24 * 3600));
    assert_eq!(kafka.stored_bytes(), 0, "a week is kept");
    assert_eq!(kafka.start_offset("t", Partition(0)).unwrap(), Offset(sent));
    let producer = client.producer().build().await.unwrap();
    producer.send(record().timestamp(Timestamp(i64::MAX / 2))).await.unwrap_err();
    producer.send(record()).await.unwrap();
    client.close().await.unwrap();
}

/// Pages that the process has in memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// What a hostile client sends: noise, half a frame, a length beyond all bounds, a sound header with noise behind it.
fn hostile(seed: u64) -> Vec<u8> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut bytes = Vec::new();
    match seed % 5 {
        0 => bytes.extend((0..draw() % 2_000).map(|_| draw() as u8)),
        1 => bytes.extend([0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 9]),
        2 => bytes.extend([5, 0, 0, 0, 0, 0, 0, 9]),
        3 => bytes.extend([0, 0, 1, 0, 0, (draw() % 80) as u8, 0, (draw() % 14) as u8, 0, 0, 0, 1, 0]),
        _ => {
            let body: Vec<u8> =
                (0..200).map(|_| if draw() % 3 == 0 { 0xff } else { draw() as u8 % 4 }).collect();
            bytes.extend((11 + body.len() as u32).to_be_bytes());
            bytes.extend([0, (draw() % 76) as u8, 0, (draw() % 14) as u8, 0, 0, 0, 1, 0, 1, b'x']);
            bytes.extend(body);
        }
    }
    bytes
}

async fn attack(address: std::net::SocketAddr, seeds: std::ops::Range<u64>) {
    let mut open = Vec::new();
    for seed in seeds {
        let Ok(mut stream) = TcpStream::connect(address).await else { continue };
        let _ = stream.write_all(&hostile(seed)).await;
        open.push(stream);
        if open.len() == 100 {
            // Time for the broker to read what was sent.
            tokio::time::sleep(Duration::from_millis(20)).await;
            open.clear();
        }
    }
}

#[tokio::test]
async fn a_thousand_hostile_connections_leave_it_serving_and_its_memory_where_it_was() {
    let kafka = embedded::Kafka::builder().brokers(2).topic("t", 1).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    send(&client, "t", numbered(0, 5)).await;
    attack(kafka.addresses()[0], 0..1_000).await;
    let before = resident();
    attack(kafka.addresses()[0], 1_000..3_000).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more after 2,000 connections");
    send(&client, "t", numbered(5, 10)).await;
    assert_eq!(read(&client, "t", "readers", 10).await, numbered(0, 10));
    client.close().await.unwrap();
}

/// One request to produce: garbage to partition 0, a sound batch to partition 1.
fn mostly_garbage(garbage: usize) -> BytesMut {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch
        .push(Timestamp(1_700_000_000_000), None, Some(b"v"), std::iter::empty::<(&str, Option<&[u8]>)>())
        .unwrap();
    let partition = |index, records| {
        produce_request::PartitionProduceData::default().with_index(index).with_records(Some(records))
    };
    let topic =
        produce_request::TopicProduceData::default().with_name(TopicName("t".into())).with_partition_data(
            vec![partition(0, vec![0; garbage].into()), partition(1, batch.finish().unwrap())],
        );
    let request = ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(-1)
        .with_timeout_ms(1_000)
        .with_topic_data(vec![topic]);
    let mut bytes = BytesMut::from(&[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b'x', 0][..]);
    request.encode(&mut bytes, 9).unwrap();
    let size = u32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&size.to_be_bytes());
    bytes
}

#[tokio::test]
async fn a_small_batch_keeps_no_large_request_in_memory() {
    let kafka = embedded::Kafka::builder().topic("t", 2).start().await.unwrap();
    let mut stream = TcpStream::connect(kafka.addresses()[0]).await.unwrap();
    let request = mostly_garbage(4 << 20);
    let before = resident();
    for _ in 0..40 {
        stream.write_all(&request).await.unwrap();
        let size = stream.read_u32().await.unwrap();
        let mut answer = vec![0; size as usize];
        stream.read_exact(&mut answer).await.unwrap();
    }
    assert_eq!(kafka.end_offset("t", Partition(0)).unwrap(), Offset(0), "garbage is refused");
    assert_eq!(kafka.end_offset("t", Partition(1)).unwrap(), Offset(40));
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for 40 small batches");
}
