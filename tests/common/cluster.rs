//! Three real brokers of the test's own, and a load that waits for each step of a drill on them. Not a part of `common`: only the
//! drills need it.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse,
    RequestHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use muslin::kafka::Client;
use muslin::{NodeId, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::brokers_sh;

/// Both shorter than the defaults, so that a frozen broker is left soon: it still takes connections, and says nothing.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What a slow machine may need to elect a leader or to bring a broker back.
pub const PATIENCE: Duration = Duration::from_secs(150);
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// A number that the environment may set.
pub fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name)
        .map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name} is {n:?}; it must be a number")))
}

/// Three brokers, replication 3, of which two must have a record. Stopped when the test ends, however it ends.
pub struct Cluster {
    pub bootstrap: String,
}

impl Cluster {
    pub fn start() -> Self {
        let out = brokers_sh(&["up", "kafka-cluster"]);
        let line = out.lines().find_map(|l| l.strip_prefix("export KAFKA_CLUSTER_BOOTSTRAP="));
        Self { bootstrap: line.expect("no address of the cluster").to_owned() }
    }

    pub async fn client(&self) -> Client {
        let client = Client::builder(&self.bootstrap).connect_timeout(CONNECT_TIMEOUT);
        client.request_timeout(REQUEST_TIMEOUT).connect().await.unwrap()
    }

    /// Does this to a node: kill, stop, start, freeze, thaw.
    pub async fn node(&self, node: NodeId, action: &'static str) {
        self.ask_node(node, action).await;
    }

    /// A node's process, for a signal that must come at once: the script takes its time.
    pub async fn process(&self, node: NodeId) -> Process {
        Process(self.ask_node(node, "pid").await.trim().to_owned())
    }

    async fn ask_node(&self, node: NodeId, action: &'static str) -> String {
        let call = move || brokers_sh(&["node", "kafka-cluster", &node.to_string(), action]);
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    /// Changes a feature while the cluster runs: `upgrade` or `downgrade`, `NAME=LEVEL`.
    pub async fn feature(&self, change: &'static str, feature: &'static str) {
        let bootstrap = self.bootstrap.clone();
        let class = "org.apache.kafka.tools.FeatureCommand";
        let call = move || {
            brokers_sh(&["kafka", class, "--bootstrap-server", &bootstrap, change, "--feature", feature])
        };
        tokio::task::spawn_blocking(call).await.unwrap();
    }

    /// The leader of partition 0 and the least number of replicas in sync, as any broker that answers tells them.
    pub async fn look(&self, topic: &Topic) -> Option<(NodeId, usize)> {
        let name = TopicName(StrBytes::from(topic.as_str().to_owned()));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name))]));
        self.any(async |address| {
            let answer: MetadataResponse = ask(address, ApiKey::Metadata, 4, &request).await?;
            let partitions = &answer.topics.first()?.partitions;
            if partitions.iter().any(|p| p.leader_id.0 < 0) {
                return None;
            }
            let first = partitions.iter().find(|p| p.partition_index == 0)?;
            Some((NodeId(first.leader_id.0), partitions.iter().map(|p| p.isr_nodes.len()).min()?))
        })
        .await
    }

    /// Who coordinates the transactional id, as any broker that answers tells it.
    pub async fn coordinator(&self, id: &str) -> NodeId {
        let request =
            FindCoordinatorRequest::default().with_key(StrBytes::from(id.to_owned())).with_key_type(1);
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.any(async |address| {
                let answer: FindCoordinatorResponse =
                    ask(address, ApiKey::FindCoordinator, 1, &request).await?;
                (answer.error_code == 0).then_some(NodeId(answer.node_id.0))
            });
            if let Some(node) = found.await {
                return node;
            }
            assert!(Instant::now() < end, "nobody coordinates {id}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the first broker says that answers in time; a frozen one does not.
    async fn any<T>(&self, mut ask: impl AsyncFnMut(&str) -> Option<T>) -> Option<T> {
        for address in self.bootstrap.split(',') {
            if let Ok(Some(seen)) = tokio::time::timeout(Duration::from_secs(2), ask(address)).await {
                return Some(seen);
            }
        }
        None
    }

    /// Waits until somebody leads the partition, any node but this one.
    pub async fn led_by_another(&self, topic: &Topic, than: NodeId) {
        self.until(topic, "another leader", |leader, _| leader != than).await;
    }

    /// Waits until every replica has caught up.
    pub async fn in_sync(&self, topic: &Topic) {
        self.until(topic, "three replicas in sync", |_, isr| isr == 3).await;
    }

    async fn until(&self, topic: &Topic, what: &str, done: impl Fn(NodeId, usize) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = self.look(topic).await;
            if seen.is_some_and(|(leader, isr)| done(leader, isr)) {
                return;
            }
            assert!(Instant::now() < end, "waited for {what} of {topic} in vain: {seen:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        brokers_sh(&["down", "kafka-cluster"]);
    }
}

/// A node's process.
#[derive(Debug, Clone)]
pub struct Process(String);

impl Process {
    /// STOP, CONT or KILL.
    pub async fn signal(&self, signal: &str) {
        // Bash has a kill of its own; a machine need not.
        let kill = format!("kill -s {signal} {}", self.0);
        let status = tokio::process::Command::new("bash").args(["-c", &kill]).status().await.unwrap();
        assert!(status.success(), "{signal} could not be sent to process {}", self.0);
    }
}

/// Asks a broker by hand what the client does not tell: replicas in sync, coordinators. For versions with plain headers.
async fn ask<A: Decodable>(address: &str, key: ApiKey, version: i16, request: &impl Encodable) -> Option<A> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_client_id(Some(StrBytes::from_static_str("watcher")));
    let mut body = BytesMut::new();
    header.encode(&mut body, 1).unwrap();
    request.encode(&mut body, version).unwrap();
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(body.len()).unwrap());
    frame.extend_from_slice(&body);
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(&frame).await.ok()?;
    let mut answer = vec![0; usize::try_from(stream.read_i32().await.ok()?).unwrap()];
    stream.read_exact(&mut answer).await.ok()?;
    A::decode(&mut &answer[4..], version).ok()
}

/// How far the load is, and how far it may go until the drill's next step.
#[derive(Debug)]
pub struct Load {
    pub total: u32,
    steps: u32,
    sent: AtomicU32,
    step: AtomicU32,
    over: AtomicBool,
}

impl Load {
    pub fn new(total: u32, steps: u32) -> Arc<Self> {
        let (sent, step, over) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        Arc::new(Self { total, steps, sent, step, over })
    }

    fn share(&self, step: u32) -> u32 {
        self.total / (self.steps + 1) * step
    }

    /// One record more.
    pub fn count(&self) {
        self.sent.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until the load has had its share before the next step: each step meets records on their way.
    pub async fn next_step(&self) {
        let step = self.step.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(step <= self.steps, "the drill has more steps than it said");
        while self.sent.load(Ordering::SeqCst) < self.share(step) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The drill is done: what is left is sent at full speed.
    pub fn finish(&self) {
        assert_eq!(self.step.load(Ordering::SeqCst), self.steps, "the drill has fewer steps than it said");
        self.over.store(true, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Waits until the drill is done.
    pub async fn until_over(&self) {
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits a moment where the load has had its share: then it only trickles.
    pub async fn pace(&self) {
        let (step, sent) = (self.step.load(Ordering::SeqCst), self.sent.load(Ordering::SeqCst));
        if !self.is_over() && sent >= self.share(step + 1).min(self.total - 1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
