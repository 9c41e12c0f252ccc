//! A network that cuts, stalls and swallows answers: nothing is lost, nothing is doubled, and everything resolves.
#![cfg(feature = "kafka")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
mod common;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use muslin::kafka::{Client, Connect, Connecting, Io, Record, StartAt};
use muslin::{ErrorKind, Partition, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const PASS: u8 = 0;
/// Nothing moves.
const STALL: u8 = 1;
/// Requests reach the broker, answers get lost.
const SWALLOW: u8 = 2;
/// New connections are closed at once.
const REFUSE: u8 = 3;

#[derive(Debug, Default)]
struct Faults {
    mode: AtomicU8,
    cut: Notify,
    connections: AtomicUsize,
}

impl Faults {
    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    /// Cuts every connection.
    fn cut(&self) {
        self.cut.notify_waiters();
    }
}

/// A TCP proxy in the client's way to every broker.
#[derive(Debug)]
struct Proxy(Arc<Faults>);

impl Connect for Proxy {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let near = TcpStream::connect(listener.local_addr()?).await?;
            near.set_nodelay(true)?;
            let (far, _) = listener.accept().await?;
            let broker = TcpStream::connect((host, port)).await?;
            self.0.connections.fetch_add(1, Ordering::SeqCst);
            let faults = Arc::clone(&self.0);
            tokio::spawn(async move {
                if faults.mode.load(Ordering::SeqCst) == REFUSE {
                    return;
                }
                let (from_client, to_client) = far.into_split();
                let (from_broker, to_broker) = broker.into_split();
                tokio::select! {
                    () = faults.cut.notified() => {}
                    () = pump(from_client, to_broker, &faults, false) => {}
                    () = pump(from_broker, to_client, &faults, true) => {}
                }
            });
            Ok(Box::new(near) as Box<dyn Io>)
        })
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    faults: &Faults,
    answers: bool,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        while faults.mode.load(Ordering::SeqCst) == STALL {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if answers && faults.mode.load(Ordering::SeqCst) == SWALLOW {
            continue;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

async fn through_faults() -> (Client, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let client = Client::builder(common::kafka())
        .connector(Proxy(Arc::clone(&faults)))
        .connect_timeout(Duration::from_secs(2))
        .request_timeout(Duration::from_secs(2))
        .connect()
        .await
        .unwrap();
    (client, faults)
}

async fn new_topic(client: &Client, partitions: i32) -> Topic {
    let topic = Topic::new(common::unique("faults")).unwrap();
    client.create_topic(&topic, partitions, 1).await.unwrap();
    topic
}

/// Reads the topic on a sound network to its end, and returns the values by partition in order.
async fn read_back(topic: &Topic) -> HashMap<Partition, Vec<u32>> {
    let client = Client::builder(common::kafka()).connect().await.unwrap();
    let total: i64 =
        client.offsets(topic, muslin::kafka::At::Latest).await.unwrap().values().map(|o| o.get()).sum();
    let mut consumer = client.simple_consumer().topics([topic.as_str()]).build().await.unwrap();
    let mut out: HashMap<Partition, Vec<u32>> = HashMap::new();
    for _ in 0..total {
        let d =
            tokio::time::timeout(Duration::from_secs(10), consumer.next()).await.unwrap().unwrap().unwrap();
        let value = std::str::from_utf8(d.value().unwrap()).unwrap().parse().unwrap();
        out.entry(d.partition()).or_default().push(value);
        d.ack();
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_cuts_stalls_and_lost_answers_every_record_is_written_once_and_in_order() {
    const N: u32 = 20_000;
    let (client, faults) = through_faults().await;
    let topic = new_topic(&client, 3).await;
    let producer = client.producer().batch_size(8 << 10).build().await.unwrap();
    let disturb = tokio::spawn({
        let faults = Arc::clone(&faults);
        async move {
            for round in 0..12u64 {
                tokio::time::sleep(Duration::from_millis(100 + 37 * (round % 4))).await;
                match round % 3 {
                    0 => faults.cut(),
                    1 => {
                        faults.set(SWALLOW);
                        tokio::time::sleep(Duration::from_millis(150)).await;
                        faults.cut();
                        faults.set(PASS);
                    }
                    _ => {
                        faults.set(STALL);
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        faults.set(PASS);
                    }
                }
            }
        }
    });
    let mut queued = Vec::new();
    for i in 0..N {
        let record =
            Record::to_topic(topic.clone()).partition(Partition((i % 3) as i32)).value(i.to_string());
        queued.push(producer.enqueue(record).await.unwrap());
        if i % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
    }
    for (i, q) in queued.into_iter().enumerate() {
        q.await.unwrap_or_else(|e| panic!("record {i}: {}", e.report()));
    }
    disturb.await.unwrap();
    let connections = faults.connections.load(Ordering::SeqCst);
    assert!(connections > 6, "the faults were felt: {connections} connections");
    let found = read_back(&topic).await;
    for (partition, values) in &found {
        let expected: Vec<u32> = (0..N).filter(|i| i % 3 == partition.get() as u32).collect();
        assert_eq!(values.len(), expected.len(), "partition {partition}");
        assert!(*values == expected, "partition {partition} is out of order or doubled");
    }
}

#[tokio::test]
async fn when_no_broker_answers_every_record_resolves_within_its_delivery_timeout() {
    let (client, faults) = through_faults().await;
    let topic = new_topic(&client, 2).await;
    let timeout = Duration::from_secs(3);
    let producer = client.producer().delivery_timeout(timeout).build().await.unwrap();
    producer.send(Record::to_topic(topic.clone()).value("0")).await.unwrap();
    // Some are on their way when answers stop, some are queued after.
    faults.set(SWALLOW);
    let began = Instant::now();
    let mut queued = Vec::new();
    for i in 0..200u32 {
        let record =
            Record::to_topic(topic.clone()).partition(Partition((i % 2) as i32)).value(i.to_string());
        queued.push(producer.enqueue(record).await.unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut unsure = 0;
    for q in queued {
        let e = q.await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Timeout, "{}", e.report());
        assert!(
            e.report().contains(topic.as_str()) && e.report().contains("delivery_timeout"),
            "{}",
            e.report()
        );
        unsure += u32::from(e.is_ambiguous());
    }
    let took = began.elapsed();
    assert!(took < timeout + Duration::from_secs(2), "{took:?}");
    assert!(unsure > 0, "those that left may be written");
    // The network heals: the same producer goes on, with what is sure.
    faults.cut();
    faults.set(PASS);
    let placed =
        producer.send(Record::to_topic(topic.clone()).partition(Partition(0)).value("777")).await.unwrap();
    let found = read_back(&topic).await;
    let values = &found[&placed.partition];
    assert_eq!(values.iter().filter(|v| **v == 777).count(), 1);
    let unique: BTreeSet<_> = values.iter().filter(|v| **v != 0).collect();
    assert_eq!(unique.len(), values.iter().filter(|v| **v != 0).count(), "nothing is doubled");
}

#[tokio::test]
async fn a_producer_closed_without_a_network_resolves_everything_at_its_deadline() {
    let (client, faults) = through_faults().await;
    let topic = new_topic(&client, 1).await;
    let producer = client.producer().build().await.unwrap();
    producer.send(Record::to_topic(topic.clone()).value("0")).await.unwrap();
    faults.set(REFUSE);
    faults.cut();
    let mut queued = Vec::new();
    for i in 0..100u32 {
        queued.push(producer.enqueue(Record::to_topic(topic.clone()).value(i.to_string())).await.unwrap());
    }
    let began = Instant::now();
    let error = producer.close(Duration::from_millis(800)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    for q in queued {
        assert_eq!(q.await.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[tokio::test]
async fn a_consumer_reads_on_through_cuts_and_stalls_without_loss_or_doubles() {
    let (client, faults) = through_faults().await;
    let topic = new_topic(&client, 2).await;
    let producer = client.producer().build().await.unwrap();
    for i in 0..3000u32 {
        drop(
            producer
                .enqueue(Record::to_topic(topic.clone()).key(i.to_string()).value(i.to_string()))
                .await
                .unwrap(),
        );
    }
    producer.flush().await.unwrap();
    let group = common::unique("g");
    let mut consumer = client
        .simple_consumer()
        .group(group.as_str())
        .topics([topic.as_str()])
        .commit_interval(Duration::from_millis(50))
        .prefetch_bytes(4096)
        .build()
        .await
        .unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 3000 {
        let d =
            tokio::time::timeout(Duration::from_secs(15), consumer.next()).await.unwrap().unwrap().unwrap();
        let value: u32 = std::str::from_utf8(d.value().unwrap()).unwrap().parse().unwrap();
        assert!(seen.insert(value), "{value} came twice");
        d.ack();
        match seen.len() {
            500 | 1500 | 2200 => faults.cut(),
            1000 => {
                faults.set(STALL);
                tokio::time::sleep(Duration::from_millis(300)).await;
                faults.set(PASS);
            }
            _ => {}
        }
    }
    consumer.close(Duration::from_secs(10)).await.unwrap();
    let committed = client.committed(&group, &topic).await.unwrap();
    assert_eq!(committed.values().map(|o| o.get()).sum::<i64>(), 3000);
}

/// Lets the bootstrap through once; what the brokers advertise cannot be reached.
#[derive(Debug, Default)]
struct OnlyOnce(AtomicUsize);

impl Connect for OnlyOnce {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            if self.0.fetch_add(1, Ordering::SeqCst) > 0 {
                return Err(io::Error::new(io::ErrorKind::HostUnreachable, "no route"));
            }
            Ok(Box::new(TcpStream::connect((host, port)).await?) as Box<dyn Io>)
        })
    }
}

#[tokio::test]
async fn an_advertised_address_that_cannot_be_reached_is_named() {
    let client = Client::builder(common::kafka())
        .connector(OnlyOnce::default())
        .connect_timeout(Duration::from_secs(1))
        .request_timeout(Duration::from_secs(1))
        .connect()
        .await
        .unwrap();
    let error = client.producer().build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    for word in ["advertise", "no route", ":"] {
        assert!(error.report().contains(word), "{}", error.report());
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced_unseen() {
    let (client, faults) = through_faults().await;
    let topic = new_topic(&client, 1).await;
    faults.cut();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Not a request that is sent twice: it must not meet the dead connection.
    let other = Topic::new(common::unique("faults")).unwrap();
    client.create_topic(&other, 1, 1).await.unwrap();
    client.delete_topic(&topic).await.unwrap();
}

/// The API key of a fetch request.
const FETCH: i16 = 1;

/// Swallows every answer on a connection from the first fetch on: as a broker that has no record to give, for ever.
#[derive(Debug)]
struct FetchWaits(Arc<AtomicUsize>);

impl Connect for FetchWaits {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let broker = TcpStream::connect((host, port)).await?;
            let fetches = Arc::clone(&self.0);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = tokio::io::split(far);
                let (mut from_broker, mut to_broker) = broker.into_split();
                let answers =
                    tokio::spawn(async move { tokio::io::copy(&mut from_broker, &mut to_client).await });
                while let Ok(length) = from_client.read_i32().await {
                    let mut body = vec![0; usize::try_from(length).unwrap()];
                    from_client.read_exact(&mut body).await.unwrap();
                    if i16::from_be_bytes([body[0], body[1]]) == FETCH {
                        fetches.fetch_add(1, Ordering::SeqCst);
                        answers.abort();
                        std::future::pending::<()>().await;
                    }
                    to_broker.write_i32(length).await.unwrap();
                    to_broker.write_all(&body).await.unwrap();
                }
            });
            Ok(Box::new(near) as Box<dyn Io>)
        })
    }
}

#[tokio::test]
async fn a_fetch_that_waits_holds_up_no_other_request_of_its_client() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let client =
        Client::builder(common::kafka()).connector(FetchWaits(Arc::clone(&fetches))).connect().await.unwrap();
    let topic = new_topic(&client, 1).await;
    let consumer =
        client.simple_consumer().topics([topic.as_str()]).start(StartAt::Earliest).build().await.unwrap();
    for _ in 0..300 {
        if fetches.load(Ordering::SeqCst) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(fetches.load(Ordering::SeqCst) > 0, "the consumer did not fetch");
    let producer = client.producer().delivery_timeout(Duration::from_secs(10)).build().await.unwrap();
    producer.send(Record::to_topic(topic.clone()).value("v")).await.unwrap();
    client.delete_topic(&topic).await.unwrap();
    drop(consumer);
}
