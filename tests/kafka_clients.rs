//! Producer and consumer against a real broker: what is written comes back, once, in order, also after a restart.
#![cfg(feature = "kafka")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};
use muslin::codec::compression::Compression;
use muslin::kafka::{At, Client, Consumer, Delivery, Isolation, Record, Reset, StartAt};
use muslin::{ErrorKind, Offset, Partition, Timestamp, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An hour ago, in milliseconds: older records could be removed by the topic's retention.
fn recent() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis() as i64 - 3_600_000
}

async fn client() -> Client {
    Client::builder(common::kafka()).client_id("muslin-tests").connect().await.unwrap()
}

async fn new_topic(client: &Client, prefix: &str, partitions: i32) -> Topic {
    let topic = Topic::new(common::unique(prefix)).unwrap();
    client.create_topic(&topic, partitions, 1).await.unwrap();
    topic
}

async fn next(consumer: &mut Consumer) -> Delivery {
    tokio::time::timeout(Duration::from_secs(20), consumer.next())
        .await
        .expect("a delivery within 20 s")
        .expect("the consumer goes on")
        .unwrap()
}

/// Writes `n` records with the values 0..n into partition 0.
async fn fill(client: &Client, topic: &Topic, n: u32) {
    let producer = client.producer().build().await.unwrap();
    for i in 0..n {
        let record = Record::to_topic(topic.clone()).partition(Partition(0)).value(i.to_string());
        drop(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    producer.close(Duration::from_secs(10)).await.unwrap();
}

fn number(delivery: &Delivery) -> u32 {
    std::str::from_utf8(delivery.value().unwrap()).unwrap().parse().unwrap()
}

#[tokio::test]
async fn null_and_empty_fields_and_doubled_headers_come_back_as_they_were_with_every_codec() {
    let client = client().await;
    let bytes = |s: &'static str| Bytes::from_static(s.as_bytes());
    let base = recent();
    for codec in Compression::ALL.into_iter().filter(|c| c.is_available()) {
        let topic = new_topic(&client, codec.name(), 1).await;
        let producer = client.producer().compression(codec).build().await.unwrap();
        let record = |n: i64| Record::to_topic(topic.clone()).timestamp(Timestamp(base + n));
        let sent = [
            record(0),
            record(1).key("").value(""),
            record(2).key("k").value("v".repeat(5000)),
            record(3)
                .key("k")
                .header("h", Some(bytes("1")))
                .header("h", None)
                .header("", Some(bytes("")))
                .header("h", Some(bytes("1"))),
        ];
        let mut queued = Vec::new();
        for record in sent.clone() {
            queued.push(producer.enqueue(record).await.unwrap());
        }
        for (n, q) in (0i64..).zip(queued) {
            let placed = q.await.unwrap();
            assert_eq!((placed.offset, placed.timestamp), (Offset(n), Timestamp(base + n)));
        }
        let mut consumer = client.simple_consumer().topics([topic.as_str()]).build().await.unwrap();
        for n in 0i64..4 {
            let d = next(&mut consumer).await;
            assert_eq!((d.offset(), d.attempt()), (Offset(n), 1), "{codec}");
            assert_eq!(d.timestamp(), Timestamp(base + n));
            let headers: Vec<_> = d.headers().collect();
            let (key, value) = (d.key(), d.value().map(|v| v.len()));
            match n {
                0 => assert_eq!((key, value), (None, None)),
                1 => assert_eq!((key, value), (Some(&b""[..]), Some(0))),
                2 => assert_eq!((key, value), (Some(&b"k"[..]), Some(5000))),
                _ => {
                    let one = Some(&b"1"[..]);
                    let expected = [("h", one), ("h", None), ("", Some(&b""[..])), ("h", one)];
                    assert_eq!(headers, expected.map(|(name, value)| (name.into(), value)));
                }
            }
            d.ack();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_records_arrive_once_and_in_order() {
    const N: u32 = 100_000;
    let client = client().await;
    let topic = new_topic(&client, "many", 4).await;
    let producer = client.producer().compression(Compression::Lz4).build().await.unwrap();
    let began = Instant::now();
    let mut queued = Vec::with_capacity(N as usize);
    for i in 0..N {
        let key = format!("key-{}", i % 500);
        let record = Record::to_topic(topic.clone()).key(key).value(i.to_string());
        queued.push(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    let mut places = BTreeSet::new();
    for q in queued {
        let placed = q.await.unwrap();
        assert!(places.insert((placed.partition, placed.offset)), "one place for two records");
    }
    println!("produced {N} in {:?}", began.elapsed());
    let began = Instant::now();
    let mut consumer =
        client.simple_consumer().group(common::unique("g")).topics([topic.as_str()]).build().await.unwrap();
    let mut seen = BTreeSet::new();
    let mut last: HashMap<Bytes, u32> = HashMap::new();
    let mut partition_of: HashMap<Bytes, Partition> = HashMap::new();
    let mut ends: BTreeMap<Partition, Offset> = BTreeMap::new();
    for _ in 0..N {
        let d = next(&mut consumer).await;
        let (n, key) = (number(&d), d.key_bytes().unwrap());
        assert!(seen.insert(n), "{n} came twice");
        assert!(last.insert(key.clone(), n).is_none_or(|before| before < n), "{n} is out of order");
        assert_eq!(*partition_of.entry(key).or_insert(d.partition()), d.partition());
        let end = ends.entry(d.partition()).or_insert(Offset(0));
        assert_eq!(d.offset(), *end, "offsets follow each other");
        *end = end.next();
        d.ack();
    }
    println!("consumed {N} in {:?}", began.elapsed());
    assert_eq!(seen.len(), N as usize);
    consumer.commit().await.unwrap();
    assert_eq!(client.offsets(&topic, At::Latest).await.unwrap(), ends);
    assert!(consumer.positions().iter().all(|p| p.settled == p.position && Some(p.position) == p.end));
    assert_eq!(consumer.in_hand(), 0);
}

#[tokio::test]
async fn after_a_restart_only_what_was_not_settled_comes_again() {
    let client = client().await;
    let topic = new_topic(&client, "resume", 1).await;
    let group = common::unique("g");
    fill(&client, &topic, 100).await;
    let build = || client.simple_consumer().group(group.as_str()).topics([topic.as_str()]).build();
    let mut consumer = build().await.unwrap();
    let mut unsettled = Vec::new();
    for _ in 0..60 {
        let d = next(&mut consumer).await;
        if [10, 11, 40].contains(&number(&d)) { unsettled.push(d) } else { d.ack() }
    }
    consumer.commit().await.unwrap();
    let committed = client.committed(&group, &topic).await.unwrap();
    assert_eq!(committed[&Partition(0)], Offset(10), "never past what is not settled");
    // As a crash: nothing more is settled or committed.
    consumer.close(Duration::from_secs(5)).await.unwrap();
    drop(unsettled);

    let mut consumer = build().await.unwrap();
    let mut again = Vec::new();
    for _ in 0..43 {
        let d = next(&mut consumer).await;
        again.push(number(&d));
        d.ack();
    }
    let expected: Vec<u32> = [10, 11, 40].into_iter().chain(60..100).collect();
    assert_eq!(again, expected);
    consumer.close(Duration::from_secs(5)).await.unwrap();
    assert_eq!(client.committed(&group, &topic).await.unwrap()[&Partition(0)], Offset(100));

    client.delete_group(&group).await.unwrap();
    assert!(client.committed(&group, &topic).await.unwrap().is_empty());
    assert_eq!(client.delete_group(&group).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_given_back_comes_again_and_holds_the_commit() {
    let client = client().await;
    let topic = new_topic(&client, "again", 1).await;
    let group = common::unique("g");
    fill(&client, &topic, 5).await;
    let mut consumer =
        client.simple_consumer().group(group.as_str()).topics([topic.as_str()]).build().await.unwrap();
    let first = next(&mut consumer).await;
    let began = Instant::now();
    first.nack(Duration::from_millis(300));
    drop(next(&mut consumer).await);
    for n in 2..5 {
        let d = next(&mut consumer).await;
        assert_eq!(number(&d), n);
        d.ack();
    }
    consumer.commit().await.unwrap();
    assert_eq!(client.committed(&group, &topic).await.unwrap()[&Partition(0)], Offset(0));
    let dropped = next(&mut consumer).await;
    assert_eq!((number(&dropped), dropped.attempt()), (1, 2));
    dropped.ack();
    let nacked = next(&mut consumer).await;
    assert_eq!((number(&nacked), nacked.attempt()), (0, 2));
    assert!(began.elapsed() >= Duration::from_millis(300));
    nacked.ack();
    consumer.close(Duration::from_secs(5)).await.unwrap();
    assert_eq!(client.committed(&group, &topic).await.unwrap()[&Partition(0)], Offset(5));
}

#[tokio::test]
async fn times_without_end_are_taken_as_very_long() {
    let client = Client::builder(common::kafka()).request_timeout(Duration::MAX).connect().await.unwrap();
    let topic = new_topic(&client, "endless", 1).await;
    let builder = client.producer().linger(Duration::from_millis(1)).delivery_timeout(Duration::MAX);
    let producer = builder.max_block(Duration::MAX).build().await.unwrap();
    producer.send(Record::to_topic(topic.clone()).value("0")).await.unwrap();
    producer.close(Duration::MAX).await.unwrap();
    let builder = client.simple_consumer().group(common::unique("g")).topics([topic.as_str()]);
    let mut consumer = builder.commit_interval(Duration::MAX).build().await.unwrap();
    next(&mut consumer).await.nack(Duration::MAX);
    assert_eq!(consumer.in_hand(), 1);
    assert!(tokio::time::timeout(Duration::from_millis(300), consumer.next()).await.is_err());
    consumer.close(Duration::MAX).await.unwrap();
}

#[tokio::test]
async fn no_more_than_the_limit_is_in_hand() {
    let client = client().await;
    let topic = new_topic(&client, "limit", 1).await;
    fill(&client, &topic, 20).await;
    let mut consumer =
        client.simple_consumer().topics([topic.as_str()]).max_in_hand(3).build().await.unwrap();
    let mut hand = Vec::new();
    for _ in 0..3 {
        hand.push(next(&mut consumer).await);
    }
    assert!(tokio::time::timeout(Duration::from_millis(300), consumer.next()).await.is_err());
    hand.pop().unwrap().ack();
    assert_eq!(number(&next(&mut consumer).await), 3);
}

#[tokio::test]
async fn reading_starts_where_it_is_told_to() {
    let client = client().await;
    let topic = new_topic(&client, "start", 1).await;
    let producer = client.producer().build().await.unwrap();
    let base = recent();
    for n in 0..10i64 {
        let record =
            Record::to_topic(topic.clone()).timestamp(Timestamp(base + 1000 * (n + 1))).value(n.to_string());
        producer.send(record).await.unwrap();
    }
    let first = async |start: StartAt, reset: Reset| {
        let mut consumer = client
            .simple_consumer()
            .topics([topic.as_str()])
            .start(start)
            .reset(reset)
            .build()
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(3), consumer.next()).await.ok().flatten()
    };
    let got = first(StartAt::Earliest, Reset::Error).await.unwrap().unwrap();
    assert_eq!(number(&got), 0);
    let got = first(StartAt::Offset(Offset(4)), Reset::Error).await.unwrap().unwrap();
    assert_eq!(number(&got), 4);
    let got = first(StartAt::Timestamp(Timestamp(base + 6500)), Reset::Error).await.unwrap().unwrap();
    assert_eq!(number(&got), 6);
    assert!(first(StartAt::Latest, Reset::Error).await.is_none(), "nothing comes after the end");
    assert!(first(StartAt::Timestamp(Timestamp(base + 99_000)), Reset::Error).await.is_none());
    // Out of the log's range.
    let got = first(StartAt::Offset(Offset(5000)), Reset::Earliest).await.unwrap().unwrap();
    assert_eq!(number(&got), 0);
    let error = first(StartAt::Offset(Offset(5000)), Reset::Error).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for word in [topic.as_str(), "partition 0", "5000"] {
        assert!(error.report().contains(word), "{error}");
    }
    let by_time = client.offsets(&topic, At::Timestamp(Timestamp(base + 3000))).await.unwrap();
    assert_eq!(by_time[&Partition(0)], Offset(2));
}

#[tokio::test]
async fn records_without_a_key_spread_over_the_partitions() {
    let client = client().await;
    let topic = new_topic(&client, "spread", 4).await;
    let producer = client.producer().batch_size(1024).build().await.unwrap();
    for i in 0..20_000u32 {
        drop(producer.enqueue(Record::to_topic(topic.clone()).value(i.to_string())).await.unwrap());
    }
    producer.close(Duration::from_secs(10)).await.unwrap();
    let ends = client.offsets(&topic, At::Latest).await.unwrap();
    assert_eq!(ends.values().map(|o| o.get()).sum::<i64>(), 20_000);
    assert!(ends.values().all(|o| o.get() > 1000), "{ends:?}");
}

#[tokio::test]
async fn a_full_buffer_holds_back_and_a_closed_producer_refuses() {
    let client = client().await;
    let topic = new_topic(&client, "small", 1).await;
    let producer = client
        .producer()
        .buffer_memory(64 << 10)
        .max_request_size(32 << 10)
        .batch_size(16 << 10)
        .linger(Duration::from_secs(30))
        .delivery_timeout(Duration::from_secs(60))
        .build()
        .await
        .unwrap();
    // Four times what the buffer holds, and a linger that alone would never let it leave.
    let mut queued = Vec::new();
    for _ in 0..256 {
        let record = Record::to_topic(topic.clone()).value(vec![1; 1000]);
        queued.push(producer.enqueue(record).await.unwrap());
    }
    producer.close(Duration::from_secs(10)).await.unwrap();
    for q in queued {
        q.await.unwrap();
    }
    let error = producer.enqueue(Record::to_topic(topic.clone()).value("late")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    producer.close(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test]
async fn a_topic_may_be_created_by_producing_but_never_by_asking() {
    let client = client().await;
    let topic = Topic::new(common::unique("auto")).unwrap();
    let producer = client.producer().allow_auto_create(false).build().await.unwrap();
    let error = producer.send(Record::to_topic(topic.clone()).value("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(topic.as_str()));
    let producer = client.producer().build().await.unwrap();
    match producer.send(Record::to_topic(topic.clone()).value("x")).await {
        Ok(placed) => assert_eq!(placed.offset, Offset(0)),
        // A broker that does not create topics on demand.
        Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
    }
}

/// A plain request of a version with plain headers over a connection of its own, as another client would send it.
/// The answer's body, behind its header.
async fn call(stream: &mut TcpStream, key: ApiKey, version: i16, request: &impl Encodable) -> Bytes {
    let mut body = bytes::BytesMut::new();
    let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
    header.encode(&mut body, 1).unwrap();
    request.encode(&mut body, version).unwrap();
    stream.write_u32(body.len() as u32).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut answer).await.unwrap();
    Bytes::from(answer).slice(4..)
}

/// Joins a group as its only member, over a connection that must stay open.
async fn join(group: &str) -> TcpStream {
    use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
    use kafka_protocol::messages::{GroupId, JoinGroupRequest};

    let protocol = JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    let mut stream = TcpStream::connect(common::kafka()).await.unwrap();
    let answer = call(&mut stream, ApiKey::JoinGroup, 2, &request).await;
    assert_eq!(&answer[4..6], [0, 0], "the join was refused");
    stream
}

/// One transaction with these values in partition 0, committed or not.
async fn transaction(topic: &Topic, id: &str, values: &[&str], commit: bool) {
    use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{
        AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest,
        InitProducerIdResponse, ProduceRequest, ProduceResponse, TopicName, TransactionalId,
    };
    use kafka_protocol::protocol::Decodable;
    use muslin::codec::record_batch::{BatchBuilder, BatchOptions};
    use muslin::{ProducerEpoch, ProducerId, Sequence};

    let text = |s: &str| StrBytes::from_string(s.to_owned());
    let (txn, name) = (TransactionalId(text(id)), TopicName(text(topic.as_str())));
    let mut stream = TcpStream::connect(common::kafka()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let (pid, epoch) = loop {
        // The first question makes the broker create its transaction log; it is there a moment later.
        let find = FindCoordinatorRequest::default().with_key(text(id)).with_key_type(1);
        call(&mut stream, ApiKey::FindCoordinator, 1, &find).await;
        let init = InitProducerIdRequest::default()
            .with_transactional_id(Some(txn.clone()))
            .with_transaction_timeout_ms(60_000);
        let mut answer = call(&mut stream, ApiKey::InitProducerId, 1, &init).await;
        let answer = InitProducerIdResponse::decode(&mut answer, 1).unwrap();
        if answer.error_code == 0 {
            break (answer.producer_id, answer.producer_epoch);
        }
        assert!(Instant::now() < deadline, "no producer id: {}", answer.error_code);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let add = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(txn.clone())
        .with_v3_and_below_producer_id(pid)
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(vec![
            AddPartitionsToTxnTopic::default().with_name(name.clone()).with_partitions(vec![0]),
        ]);
    let answer = call(&mut stream, ApiKey::AddPartitionsToTxn, 1, &add).await;
    assert_eq!(answer[answer.len() - 2..], [0, 0], "the partition was not added");
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: ProducerId(pid.0),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(0),
        transactional: true,
        ..BatchOptions::default()
    });
    for value in values {
        builder.push(Timestamp(recent()), None, Some(value.as_bytes()), []).unwrap();
    }
    let data = PartitionProduceData::default().with_index(0).with_records(Some(builder.finish().unwrap()));
    let produce = ProduceRequest::default()
        .with_transactional_id(Some(txn.clone()))
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![TopicProduceData::default().with_name(name).with_partition_data(vec![data])]);
    let mut answer = call(&mut stream, ApiKey::Produce, 7, &produce).await;
    let answer = ProduceResponse::decode(&mut answer, 7).unwrap();
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let end = EndTxnRequest::default()
        .with_transactional_id(txn)
        .with_producer_id(pid)
        .with_producer_epoch(epoch)
        .with_committed(commit);
    let answer = call(&mut stream, ApiKey::EndTxn, 1, &end).await;
    assert_eq!(answer[4..6], [0, 0], "the transaction was not ended");
}

#[tokio::test]
async fn aborted_records_are_left_out_and_the_commit_steps_over_markers() {
    let client = client().await;
    let topic = new_topic(&client, "transactions", 1).await;
    let id = common::unique("txn");
    transaction(&topic, &id, &["1", "2"], true).await;
    transaction(&topic, &id, &["3", "4", "5"], false).await;
    let producer = client.producer().build().await.unwrap();
    producer.send(Record::to_topic(topic.clone()).value("6")).await.unwrap();
    transaction(&topic, &id, &["7"], true).await;
    let read = async |isolation: Isolation, n: usize| {
        let group = common::unique("g");
        let mut consumer = client
            .simple_consumer()
            .group(group.as_str())
            .topics([topic.as_str()])
            .isolation(isolation)
            .build()
            .await
            .unwrap();
        let mut values = Vec::new();
        for _ in 0..n {
            let d = next(&mut consumer).await;
            values.push(number(&d));
            d.ack();
        }
        let more = tokio::time::timeout(Duration::from_millis(800), consumer.next()).await;
        assert!(more.is_err(), "nothing more comes");
        consumer.close(Duration::from_secs(5)).await.unwrap();
        let end = client.offsets(&topic, At::Latest).await.unwrap();
        assert_eq!(client.committed(&group, &topic).await.unwrap(), end, "the last marker is behind us");
        values
    };
    assert_eq!(read(Isolation::ReadCommitted, 4).await, [1, 2, 6, 7]);
    assert_eq!(read(Isolation::ReadUncommitted, 7).await, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_group_with_active_members_refuses_a_commit_from_outside_and_says_so() {
    let client = client().await;
    let topic = new_topic(&client, "members", 1).await;
    let group = common::unique("g");
    fill(&client, &topic, 3).await;
    let mut consumer = client
        .simple_consumer()
        .group(group.as_str())
        .topics([topic.as_str()])
        .commit_interval(Duration::from_secs(600))
        .build()
        .await
        .unwrap();
    next(&mut consumer).await.ack();
    let member = join(&group).await;
    let error = consumer.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    for word in [group.as_str(), "active members", topic.as_str()] {
        assert!(error.report().contains(word), "{}", error.report());
    }
    let error = client.delete_group(&group).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    drop(member);
}

#[tokio::test]
async fn every_call_can_be_spawned_as_a_task() {
    fn crosses(future: impl Future + Send) {
        drop(future);
    }
    let client = client().await;
    let topic = Topic::new("any").unwrap();
    let record = || Record::to_topic(topic.clone());
    crosses(Client::builder("a").connect());
    crosses(client.topic(&topic));
    crosses(client.create_topic(&topic, 1, 1));
    crosses(client.delete_topic(&topic));
    crosses(client.offsets(&topic, At::Latest));
    crosses(client.committed("g", &topic));
    crosses(client.delete_group("g"));
    crosses(client.producer().build());
    crosses(client.simple_consumer().build());
    let producer = client.producer().build().await.unwrap();
    crosses(producer.enqueue(record()));
    crosses(producer.send(record()));
    crosses(producer.flush());
    crosses(producer.close(Duration::ZERO));
    let topic = new_topic(&client, "spawned", 1).await;
    let mut consumer = client.simple_consumer().topics([topic.as_str()]).build().await.unwrap();
    crosses(consumer.next());
    crosses(consumer.commit());
    crosses(consumer.close(Duration::ZERO));
}
