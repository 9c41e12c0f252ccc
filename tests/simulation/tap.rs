//! Listens in on a client's wire: does it go by the newest leaders that it was told of?

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{
    FetchRequest, MetadataResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion};
use muslin::embedded::sim::{Connector, Network};
use muslin::kafka::{Connect, Connecting, Io};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::workload::TOPIC;

/// A request that was begun before the answer was read may leave so much later.
const GRACE: Duration = Duration::from_millis(20);

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;

/// What one client was told.
#[derive(Debug)]
pub struct Watch {
    host: String,
    network: Network,
    /// Partition: leader epoch, leader, and when that was first told.
    told: Mutex<BTreeMap<i32, (i32, i32, Duration)>>,
    found: Mutex<Vec<String>>,
    /// Until then a producer may be given up that does not read the answers to what it has sent.
    closing: Mutex<Duration>,
    /// Questions for metadata. The client asks one at a time: with the next one it has given up the one before.
    questions: AtomicU64,
}

impl Watch {
    pub fn new(host: &str, network: Network) -> Arc<Self> {
        Arc::new(Self {
            host: host.to_owned(),
            network,
            told: Mutex::default(),
            found: Mutex::default(),
            closing: Mutex::default(),
            questions: AtomicU64::new(0),
        })
    }

    /// Where this is the client's host, answers to what its producers send in this time may go unread.
    pub fn close(&self, host: &str, within: Duration) {
        if self.host == host {
            let mut closing = self.closing.lock().unwrap();
            *closing = (*closing).max(self.network.elapsed() + within);
        }
    }

    /// What was found so far, once.
    pub fn found(&self) -> Vec<String> {
        std::mem::take(&mut self.found.lock().unwrap())
    }

    fn told(&self, partition: i32, epoch: i32, leader: i32) {
        let mut told = self.told.lock().unwrap();
        let known = told.get(&partition).copied();
        if known.is_none_or(|(e, l, _)| epoch > e || (epoch == e && leader != l)) {
            told.insert(partition, (epoch, leader, self.network.elapsed()));
        }
    }

    fn asked(&self, what: &str, partition: i32, node: i32, ready: Duration, begun: Duration) {
        let now = self.network.elapsed();
        let Some((epoch, leader, at)) = self.told.lock().unwrap().get(&partition).copied() else { return };
        // Who waits for a connection to be ready has chosen it before.
        if leader >= 0 && leader != node && ready < at && begun > at + GRACE {
            self.found.lock().unwrap().push(format!(
                "at {now:?}: {} sent a {what} of partition {partition} to broker {node}; it was told at {at:?} that {leader} \
                 leads it (epoch {epoch})",
                self.host
            ));
        }
    }
}

/// A connector whose streams are listened in on.
#[derive(Debug)]
pub struct Tap {
    inner: Connector,
    watch: Arc<Watch>,
}

impl Tap {
    pub fn new(inner: Connector, watch: Arc<Watch>) -> Self {
        Self { inner, watch }
    }
}

impl Connect for Tap {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let inner = self.inner.connect(host, port).await?;
            let node = host.strip_prefix("kafka-").and_then(|n| n.parse().ok()).unwrap_or(-1);
            let watch = Arc::clone(&self.watch);
            let stream = Tapped {
                inner,
                watch,
                node,
                ready: None,
                blocked: None,
                there: BytesMut::new(),
                back: BytesMut::new(),
                asked: HashMap::new(),
            };
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

struct Asked {
    key: i16,
    version: i16,
    /// Of how many questions it is the last.
    question: u64,
    at: Duration,
}

struct Tapped {
    inner: Box<dyn Io>,
    watch: Arc<Watch>,
    node: i32,
    /// When its first request after the greeting left.
    ready: Option<Duration>,
    /// Since when the stream took no bytes, and the moment at which it did again: what leaves in that moment was begun before.
    blocked: Option<(Duration, Option<Duration>)>,
    there: BytesMut,
    back: BytesMut,
    /// Requests whose answer tells of leaders, without one yet, by their correlation id.
    asked: HashMap<i32, Asked>,
}

fn frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let size = usize::try_from(i32::from_be_bytes(*buffer.first_chunk()?)).ok()?;
    if buffer.len() < 4 + size {
        return None;
    }
    buffer.advance(4);
    Some(buffer.split_to(size).freeze())
}

impl Tapped {
    fn sent(&mut self, data: &[u8]) {
        self.there.extend_from_slice(data);
        while let Some(mut frame) = frame(&mut self.there) {
            let mut head = frame.clone();
            let (key, version) = (head.get_i16(), head.get_i16());
            if key != API_VERSIONS {
                self.ready.get_or_insert_with(|| self.watch.network.elapsed());
            }
            let ready = self.ready.unwrap_or_default();
            let begun = self.blocked.map_or_else(|| self.watch.network.elapsed(), |(since, _)| since);
            if matches!(key, METADATA | PRODUCE) {
                let questions = &self.watch.questions;
                let question = questions.fetch_add(u64::from(key == METADATA), Ordering::Relaxed) + 1;
                let at = self.watch.network.elapsed();
                self.asked.insert(head.get_i32(), Asked { key, version, question, at });
            }
            match key {
                PRODUCE => {
                    RequestHeader::decode(&mut frame, ProduceRequest::header_version(version)).unwrap();
                    let request = ProduceRequest::decode(&mut frame, version).unwrap();
                    let data = request.topic_data.iter().filter(|t| t.name.as_str() == TOPIC);
                    for partition in data.flat_map(|t| &t.partition_data) {
                        self.watch.asked("produce", partition.index, self.node, ready, begun);
                    }
                }
                FETCH => {
                    RequestHeader::decode(&mut frame, FetchRequest::header_version(version)).unwrap();
                    let request = FetchRequest::decode(&mut frame, version).unwrap();
                    let topics = request.topics.iter().filter(|t| t.topic.as_str() == TOPIC);
                    for partition in topics.flat_map(|t| &t.partitions) {
                        self.watch.asked("fetch", partition.partition, self.node, ready, begun);
                    }
                }
                _ => {}
            }
        }
    }

    fn got(&mut self, data: &[u8]) {
        self.back.extend_from_slice(data);
        while let Some(mut frame) = frame(&mut self.back) {
            let Some(correlation) = frame.first_chunk().map(|b| i32::from_be_bytes(*b)) else { continue };
            let Some(Asked { key, version, question, at }) = self.asked.remove(&correlation) else {
                continue;
            };
            if key == PRODUCE {
                // A refusal may name the leader (KIP-951).
                ResponseHeader::decode(&mut frame, ProduceResponse::header_version(version)).unwrap();
                let answer = ProduceResponse::decode(&mut frame, version).unwrap();
                let topics = answer.responses.iter().filter(|t| t.name.as_str() == TOPIC);
                for p in topics.flat_map(|t| &t.partition_responses) {
                    let leader = &p.current_leader;
                    if leader.leader_id.0 >= 0 {
                        // Perhaps nobody reads it: then this leader and the one before are as good.
                        let unread = at <= *self.watch.closing.lock().unwrap();
                        let named = if unread { -1 } else { leader.leader_id.0 };
                        self.watch.told(p.index, leader.leader_epoch, named);
                    }
                }
                continue;
            }
            ResponseHeader::decode(&mut frame, MetadataResponse::header_version(version)).unwrap();
            let answer = MetadataResponse::decode(&mut frame, version).unwrap();
            let topics =
                answer.topics.iter().filter(|t| t.name.as_ref().is_some_and(|n| n.as_str() == TOPIC));
            // Nobody reads the late answer to a question that was given up: then this leader and the one before are as good.
            let unread = question < self.watch.questions.load(Ordering::Relaxed);
            for p in topics.flat_map(|t| &t.partitions) {
                let named = if unread { -1 } else { p.leader_id.0 };
                self.watch.told(p.partition_index, p.leader_epoch, named);
            }
        }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, out);
        if result.is_ready() && out.filled().len() > before {
            let data = out.filled()[before..].to_vec();
            this.got(&data);
        }
        result
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(cx, data);
        let now = this.watch.network.elapsed();
        this.blocked =
            match (this.blocked.filter(|(_, until)| until.is_none_or(|until| until == now)), &result) {
                (Some((since, _)), Poll::Pending) => Some((since, None)),
                (None, Poll::Pending) => Some((now, None)),
                (blocked, Poll::Ready(_)) => blocked.map(|(since, _)| (since, Some(now))),
            };
        if let Poll::Ready(Ok(n)) = &result {
            this.sent(&data[..*n]);
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
