//! Three real brokers that are killed, frozen and restarted under load: every record that was acknowledged is there once, where it
//! was said to be, and each key keeps its order.
//!
//! The test starts and ends its own cluster (`scripts/brokers.sh`). `MUSLIN_RECORDS` is the number of records of all drills together,
//! 100,000 where it is not set; `scripts/soak-producer.sh` runs the million.
#![cfg(feature = "kafka")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test waits, fails by a panic, and tells counts to the reader of the log"
)]
mod common;

use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, RequestHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use muslin::kafka::{At, Client, Queued, Record};
use muslin::{NodeId, Partition, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const PARTITIONS: i32 = 6;
const KEYS: u32 = 1009;
/// Shorter than the default, so that a frozen broker is left soon.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// What a slow machine may need to elect a leader or to bring a broker back.
const PATIENCE: Duration = Duration::from_secs(150);

fn brokers_sh(args: &[&str]) -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/brokers.sh");
    let out = Command::new(script).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "brokers.sh {args:?} ended with {}: {said}", out.status);
    String::from_utf8(out.stdout).unwrap()
}

/// Three brokers, replication 3, of which two must have a record. Stopped when the test ends, however it ends.
struct Cluster {
    bootstrap: String,
}

impl Cluster {
    fn start() -> Self {
        let out = brokers_sh(&["up", "kafka-cluster"]);
        let line = out.lines().find_map(|l| l.strip_prefix("export KAFKA_CLUSTER_BOOTSTRAP="));
        Self { bootstrap: line.expect("no address of the cluster").to_owned() }
    }

    async fn client(&self) -> Client {
        let client = Client::builder(&self.bootstrap);
        client.request_timeout(REQUEST_TIMEOUT).connect().await.unwrap()
    }

    /// Does this to a node: kill, stop, start, freeze, thaw.
    async fn node(&self, node: NodeId, action: &'static str) {
        let call = move || brokers_sh(&["node", "kafka-cluster", &node.to_string(), action]);
        tokio::task::spawn_blocking(call).await.unwrap();
    }

    /// The leader of partition 0 and the least number of replicas in sync, as any broker that answers tells them.
    async fn look(&self, topic: &Topic) -> Option<(NodeId, usize)> {
        for address in self.bootstrap.split(',') {
            if let Ok(Some(seen)) = tokio::time::timeout(Duration::from_secs(2), ask(address, topic)).await {
                return Some(seen);
            }
        }
        None
    }

    /// Waits until somebody leads the partition, this node or any other.
    async fn led_by_another(&self, topic: &Topic, than: NodeId) {
        self.until(topic, "another leader", |leader, _| leader != than).await;
    }

    /// Waits until every replica has caught up.
    async fn in_sync(&self, topic: &Topic) {
        self.until(topic, "three replicas in sync", |_, isr| isr == 3).await;
    }

    async fn until(&self, topic: &Topic, what: &str, done: impl Fn(NodeId, usize) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = self.look(topic).await;
            if seen.is_some_and(|(leader, isr)| done(leader, isr)) {
                return;
            }
            assert!(Instant::now() < end, "waited for {what} in vain: {seen:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        brokers_sh(&["down", "kafka-cluster"]);
    }
}

/// Metadata by hand: what replicas are in sync is no part of what the client tells.
async fn ask(address: &str, topic: &Topic) -> Option<(NodeId, usize)> {
    const VERSION: i16 = 4;
    let name = TopicName(StrBytes::from(topic.as_str().to_owned()));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name))]));
    let header = RequestHeader::default()
        .with_request_api_key(ApiKey::Metadata as i16)
        .with_request_api_version(VERSION)
        .with_client_id(Some(StrBytes::from_static_str("watcher")));
    let mut body = BytesMut::new();
    header.encode(&mut body, 1).unwrap();
    request.encode(&mut body, VERSION).unwrap();
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(body.len()).unwrap());
    frame.extend_from_slice(&body);
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(&frame).await.ok()?;
    let mut answer = vec![0; usize::try_from(stream.read_i32().await.ok()?).unwrap()];
    stream.read_exact(&mut answer).await.ok()?;
    let answer = MetadataResponse::decode(&mut &answer[4..], VERSION).ok()?;
    let partitions = &answer.topics.first()?.partitions;
    if partitions.len() != PARTITIONS as usize || partitions.iter().any(|p| p.leader_id.0 < 0) {
        return None;
    }
    let first = partitions.iter().find(|p| p.partition_index == 0)?;
    Some((NodeId(first.leader_id.0), partitions.iter().map(|p| p.isr_nodes.len()).min()?))
}

/// How far the load is, and how far it may go until the drill's next step.
#[derive(Debug)]
struct Load {
    total: u32,
    steps: u32,
    sent: AtomicU32,
    step: AtomicU32,
    over: AtomicBool,
}

impl Load {
    fn new(total: u32, steps: u32) -> Arc<Self> {
        let (sent, step, over) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        Arc::new(Self { total, steps, sent, step, over })
    }

    fn share(&self, step: u32) -> u32 {
        self.total / (self.steps + 1) * step
    }

    /// Waits until the load has had its share before the next step: each step meets records on their way.
    async fn next_step(&self) {
        let step = self.step.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(step <= self.steps, "the drill has more steps than it said");
        while self.sent.load(Ordering::SeqCst) < self.share(step) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the load may go on at full speed; if not, a record now and then.
    fn is_free(&self) -> bool {
        let step = self.step.load(Ordering::SeqCst);
        let sent = self.sent.load(Ordering::SeqCst);
        self.over.load(Ordering::SeqCst) || sent < self.share(step + 1).min(self.total - 1)
    }
}

fn key(n: u32) -> String {
    format!("key-{}", n % KEYS)
}

/// Sends the records at the drill's pace; what became of each is told in `outcomes`.
async fn send(client: Client, topic: Topic, load: Arc<Load>, outcomes: mpsc::UnboundedSender<(u32, Queued)>) {
    let producer = client.producer().delivery_timeout(PATIENCE).max_block(PATIENCE).build().await.unwrap();
    for n in 0..load.total {
        if !load.is_free() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The last one waits for the end of the drill.
        while n + 1 == load.total && !load.over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let value = format!("{n} {n:080}");
        let record = Record::to_topic(topic.clone()).key(key(n)).value(value);
        let queued = producer.enqueue(record).await.unwrap_or_else(|e| panic!("record {n}: {}", e.report()));
        outcomes.send((n, queued)).unwrap();
        load.sent.store(n + 1, Ordering::SeqCst);
    }
    producer.close(PATIENCE).await.unwrap();
}

/// Runs a drill under load, then compares what was acknowledged with what is there.
async fn run<F: Future<Output = ()>>(
    cluster: &Cluster,
    name: &str,
    total: u32,
    steps: u32,
    drill: impl FnOnce(Topic, Arc<Load>) -> F,
) {
    let begin = Instant::now();
    let client = cluster.client().await;
    let topic = Topic::new(common::unique(name)).unwrap();
    client.create_topic(&topic, PARTITIONS, 3).await.unwrap();
    cluster.in_sync(&topic).await;
    let load = Load::new(total, steps);
    let (tell, mut told) = mpsc::unbounded_channel::<(u32, Queued)>();
    let sending = tokio::spawn(send(client.clone(), topic.clone(), Arc::clone(&load), tell));
    let collecting = tokio::spawn(async move {
        let mut placed = Vec::new();
        while let Some((n, queued)) = told.recv().await {
            let at = queued.await.unwrap_or_else(|e| panic!("record {n}: {}", e.report()));
            assert_eq!(placed.len(), n as usize);
            placed.push((at.partition, at.offset.get()));
        }
        placed
    });
    drill(topic.clone(), Arc::clone(&load)).await;
    assert_eq!(load.step.load(Ordering::SeqCst), steps, "the drill has fewer steps than it said");
    load.over.store(true, Ordering::SeqCst);
    sending.await.unwrap();
    let placed = collecting.await.unwrap();
    let sent = begin.elapsed();
    cluster.in_sync(&topic).await;
    let unknown = compare(&cluster.client().await, &topic, &placed).await;
    println!(
        "{name}: {total} records acknowledged in {:.0} s, each read back once and in its key's order in {:.0} s; \
         {unknown} acknowledged as duplicates without an offset",
        sent.as_secs_f64(),
        (begin.elapsed() - sent).as_secs_f64()
    );
}

/// Every record once, at its place, in its key's order, and nothing else. How many were acknowledged without an offset.
async fn compare(client: &Client, topic: &Topic, placed: &[(Partition, i64)]) -> usize {
    let ends = client.offsets(topic, At::Latest).await.unwrap();
    let stored: i64 = ends.values().map(|o| o.get()).sum();
    assert_eq!(stored, placed.len() as i64, "records in the log");
    let mut consumer = client.consumer().topics([topic.as_str()]).build().await.unwrap();
    let mut found = vec![false; placed.len()];
    let mut last = vec![None::<u32>; KEYS as usize];
    let mut unknown = 0;
    for seen in 0..placed.len() {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
        let d = next.unwrap_or_else(|_| panic!("only {seen} records are read")).unwrap().unwrap();
        let value = std::str::from_utf8(d.value().unwrap()).unwrap();
        let n: u32 = value.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(value, format!("{n} {n:080}"));
        assert_eq!(d.key().map(|k| &k[..]), Some(key(n).as_bytes()), "record {n}");
        assert!(!std::mem::replace(&mut found[n as usize], true), "record {n} is there twice");
        let (partition, offset) = placed[n as usize];
        assert_eq!(d.partition(), partition, "record {n}");
        if offset < 0 {
            unknown += 1;
        } else {
            assert_eq!(d.offset().get(), offset, "record {n} in partition {partition}");
        }
        let before = last[(n % KEYS) as usize].replace(n);
        assert!(before.is_none_or(|before| before < n), "record {n} stands behind {before:?} of its key");
        d.ack();
    }
    unknown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_frozen_and_restarted_brokers_cost_no_record_and_double_none() {
    let total = std::env::var("MUSLIN_RECORDS").map_or(100_000, |n| {
        n.parse().unwrap_or_else(|_| panic!("MUSLIN_RECORDS is {n:?}; it must be a number of records"))
    });
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let cluster = &cluster;
    let share = total / 3;

    run(cluster, "leader-killed", share, 4, async |topic, load| {
        for _ in 0..2 {
            load.next_step().await;
            let (leader, _) = cluster.look(&topic).await.expect("no leader");
            cluster.node(leader, "kill").await;
            cluster.led_by_another(&topic, leader).await;
            load.next_step().await;
            cluster.node(leader, "start").await;
            cluster.in_sync(&topic).await;
        }
    })
    .await;

    run(cluster, "leader-frozen", share, 4, async |topic, load| {
        for _ in 0..2 {
            load.next_step().await;
            let (leader, _) = cluster.look(&topic).await.expect("no leader");
            cluster.node(leader, "freeze").await;
            cluster.led_by_another(&topic, leader).await;
            load.next_step().await;
            // It wakes with requests before it that were given up and sent elsewhere.
            tokio::time::sleep(2 * REQUEST_TIMEOUT).await;
            cluster.node(leader, "thaw").await;
            cluster.in_sync(&topic).await;
        }
    })
    .await;

    run(cluster, "rolling-restart", total - 2 * share, 6, async |topic, load| {
        for node in [1, 2, 3].map(NodeId) {
            load.next_step().await;
            cluster.node(node, "stop").await;
            load.next_step().await;
            cluster.node(node, "start").await;
            cluster.in_sync(&topic).await;
        }
    })
    .await;
}
