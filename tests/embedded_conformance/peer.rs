//! One connection that speaks raw requests, and what it saw.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use muslin::codec::record_batch::{BatchBuilder, BatchOptions};
use muslin::{ProducerEpoch, ProducerId as Id, Sequence, Timestamp};

use crate::common;

/// The longest wait for anything.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection to a broker, real or embedded.
pub(crate) struct Peer {
    address: String,
    stream: TcpStream,
    correlation: i32,
    /// What was seen: a label, and what stood there.
    seen: Vec<(String, String)>,
    /// Names of this run, and what stands for them.
    names: Vec<(String, String)>,
    producers: Vec<i64>,
}

/// Runs a scenario on a fresh embedded broker and on the real one, and compares what was seen.
pub(crate) fn compare(scenario: impl Fn(&mut Peer)) {
    compare_on(muslin::embedded::Kafka::builder(), &common::kafka(), scenario);
}

/// The same with another embedded broker, and another address of the real one.
pub(crate) fn compare_on(embedded: muslin::embedded::KafkaBuilder, real: &str, scenario: impl Fn(&mut Peer)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let kafka = runtime.block_on(embedded.start()).unwrap();
    let seen = [kafka.bootstrap(), real.to_owned()].map(|address| {
        let mut peer = Peer::connect(&address);
        scenario(&mut peer);
        peer.seen
    });
    let [ours, theirs] = seen;
    let mut differ = Vec::new();
    for i in 0..ours.len().max(theirs.len()) {
        let (ours, theirs) = (ours.get(i), theirs.get(i));
        if ours != theirs {
            let show = |side: Option<&(String, String)>| {
                side.map_or("nothing".to_owned(), |(label, what)| format!("{label}: {what}"))
            };
            differ.push(format!("  embedded {}\n  real     {}", show(ours), show(theirs)));
        }
    }
    assert!(!ours.is_empty(), "a scenario that sees nothing");
    assert!(differ.is_empty(), "{} of {} answers differ:\n{}", differ.len(), ours.len(), differ.join("\n\n"));
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Peer {
    pub(crate) fn connect(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            stream: open(address),
            correlation: 0,
            seen: Vec::new(),
            names: Vec::new(),
            producers: Vec::new(),
        }
    }

    /// A new connection in the place of the old one.
    pub(crate) fn reconnect(&mut self) {
        self.stream = open(&self.address);
    }

    fn frame<R: Request>(&mut self, version: i16, request: &R) -> BytesMut {
        self.correlation += 1;
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&R::KEY.to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&self.correlation.to_be_bytes());
        frame.extend_from_slice(&[0, 3, b'r', b'a', b'w']);
        if R::header_version(version) >= 2 {
            frame.extend_from_slice(&[0]);
        }
        request.encode(&mut frame, version).unwrap();
        frame
    }

    /// Sends a request and awaits nothing.
    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) {
        let frame = self.frame(version, request);
        let size = u32::try_from(frame.len()).unwrap().to_be_bytes();
        self.stream.write_all(&[&size, &frame[..]].concat()).unwrap();
    }

    /// Sends a request and takes its answer; `None` where the broker closes the connection instead.
    pub(crate) fn try_call<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        let frame = self.frame(version, request);
        let mut answer = self.exchange(&frame)?;
        assert_eq!(answer.get_i32(), self.correlation);
        if R::Response::header_version(version) >= 1 {
            assert_eq!(answer.get_u8(), 0);
        }
        let response = R::Response::decode(&mut answer, version).unwrap();
        assert!(answer.is_empty(), "{} bytes too many in an answer of {}", answer.len(), R::KEY);
        Some(response)
    }

    /// Sends a frame and takes the next one; `None` where the broker closes the connection.
    pub(crate) fn exchange(&mut self, frame: &[u8]) -> Option<Bytes> {
        let size = u32::try_from(frame.len()).unwrap().to_be_bytes();
        self.stream.write_all(&[&size, frame].concat()).ok()?;
        let mut size = [0; 4];
        match self.stream.read_exact(&mut size) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("{} gave no answer within {LIMIT:?}, after {:?}", self.address, self.seen.last())
            }
            Err(_) => return None,
        }
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut answer).unwrap();
        Some(answer.into())
    }

    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_call(version, request)
            .unwrap_or_else(|| panic!("{} closed the connection on API {} v{version}", self.address, R::KEY))
    }

    /// Sends a request, takes the answer and notes all of it, or that the connection was closed.
    pub(crate) fn see<R: Request>(&mut self, what: &str, version: i16, request: &R) -> Option<R::Response>
    where
        R::Response: std::fmt::Debug,
    {
        let response = self.try_call(version, request);
        let shown = response.as_ref().map_or("closed".to_owned(), |response| format!("{response:?}"));
        self.note(&format!("{what} v{version}"), &shown);
        if response.is_none() {
            self.reconnect();
        }
        response
    }

    /// Notes something.
    pub(crate) fn note(&mut self, label: &str, what: &str) {
        let mut what = what.to_owned();
        for (name, stand_in) in &self.names {
            what = what.replace(name, stand_in);
        }
        for noise in [", unknown_tagged_fields: {}", " unknown_tagged_fields: {}"] {
            what = what.replace(noise, "");
        }
        what = cut_numbers(&what, "throttle_time_ms: ", |_| "*".to_owned());
        what = cut_numbers(&what, "log_append_time_ms: ", |at| {
            let shown = if at < 0 { "none" } else { "some" };
            format!("log_append_time_ms: {shown}")
        });
        let producers = &mut self.producers;
        what = cut_numbers(&what, "producer_id: ", |id| {
            if id < 0 {
                return format!("producer_id: {id}");
            }
            let at = producers.iter().position(|known| *known == id).unwrap_or_else(|| {
                producers.push(id);
                producers.len() - 1
            });
            format!("producer_id: #{at}")
        });
        self.seen.push((label.to_owned(), what));
    }

    /// A name of its own for each run; the notes show the short one.
    pub(crate) fn name(&mut self, short: &str) -> String {
        let name = common::unique(short);
        self.names.push((name.clone(), short.to_owned()));
        name
    }

    /// Something that is shown as another text in the notes.
    pub(crate) fn stands_for(&mut self, what: &str, stand_in: &str) {
        self.names.push((what.to_owned(), stand_in.to_owned()));
    }

    /// A new topic, once it has a leader.
    pub(crate) fn topic(&mut self, partitions: i32, configs: &[(&str, &str)]) -> String {
        let name = self.name("topic");
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(&name)))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer = self.call(7, &request);
        assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
        self.wait("a leader for the new topic", |peer| {
            let request = list_offsets(&name, 0, -1);
            peer.call(7, &request).topics[0].partitions[0].error_code == 0
        });
        name
    }

    /// The id of a topic.
    pub(crate) fn topic_id(&mut self, topic: &str) -> uuid::Uuid {
        let asked = metadata_request::MetadataRequestTopic::default().with_name(Some(TopicName(text(topic))));
        let answer = self.call(12, &MetadataRequest::default().with_topics(Some(vec![asked])));
        let id = answer.topics[0].topic_id;
        self.stands_for(&id.to_string(), "topic-id");
        id
    }

    /// Asks until it is so.
    pub(crate) fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            let seen = self.seen.get(self.seen.len().saturating_sub(3)..);
            assert!(begin.elapsed() < LIMIT, "no {what} at {}, after {seen:?}", self.address);
            sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the coordinator of a group (0) or a transactional id (1), and until it has loaded what it coordinates: on a
    /// broker that was never asked before, that takes a moment.
    pub(crate) fn coordinator(&mut self, kind: i8, key: &str) {
        let request =
            FindCoordinatorRequest::default().with_key_type(kind).with_coordinator_keys(vec![text(key)]);
        self.wait("coordinator", |peer| peer.call(4, &request).coordinators[0].error_code == 0);
        self.wait("coordinator that is loaded", |peer| {
            let code = if kind == 0 {
                let request =
                    OffsetFetchRequest::default().with_group_id(GroupId(text(key))).with_topics(None);
                peer.call(7, &request).error_code
            } else {
                let request = DescribeTransactionsRequest::default()
                    .with_transactional_ids(vec![TransactionalId(text(key))]);
                peer.call(0, &request).transaction_states[0].error_code
            };
            // COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR
            !(14..=16).contains(&code)
        });
    }
}

fn open(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Replaces each `head` and the number behind it.
fn cut_numbers(text: &str, head: &str, mut with: impl FnMut(i64) -> String) -> String {
    let mut parts = text.split(head);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(part.len());
        out.push_str(&with(part[..end].parse().unwrap()));
        out.push_str(&part[end..]);
    }
    out
}

/// Who writes a batch, and as what.
#[derive(Clone, Copy, Default)]
pub(crate) struct Writer {
    pub(crate) producer: Option<(i64, i16)>,
    pub(crate) sequence: i32,
    pub(crate) transactional: bool,
}

/// A batch of so many small records.
pub(crate) fn batch(writer: Writer, records: usize) -> Bytes {
    let (id, epoch) = writer.producer.unwrap_or((-1, -1));
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: Id(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(if id < 0 { -1 } else { writer.sequence }),
        transactional: writer.transactional,
        ..BatchOptions::default()
    });
    for i in 0..records {
        let none: [(&str, Option<&[u8]>); 0] = [];
        builder.push(later(), Some(b"key"), Some(format!("value {i}").as_bytes()), none).unwrap();
    }
    builder.finish().unwrap()
}

/// A time of its own for each record, about now.
fn later() -> Timestamp {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let last = LAST.update(Ordering::Relaxed, Ordering::Relaxed, |last| now.max(last + 1));
    Timestamp(now.max(last + 1))
}

pub(crate) fn produce(
    topic: &str,
    partition: i32,
    id: Option<&str>,
    records: Option<Bytes>,
) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let data = PartitionProduceData::default().with_index(partition).with_records(records);
    ProduceRequest::default()
        .with_transactional_id(id.map(|id| TransactionalId(text(id))))
        .with_acks(-1)
        .with_timeout_ms(5000)
        .with_topic_data(vec![
            TopicProduceData::default().with_name(TopicName(text(topic))).with_partition_data(vec![data]),
        ])
}

pub(crate) fn list_offsets(topic: &str, partition: i32, timestamp: i64) -> ListOffsetsRequest {
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let partition = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
        ListOffsetsTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]),
    ])
}
