use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    EndTxnRequest, EndTxnResponse, FetchRequest, MetadataRequest, ProduceRequest, ProduceResponse,
    RequestHeader, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::kafka::wire::{Connecting, Io, Produce};

/// Answers every ApiVersions request with `answer`, every Produce and EndTxn request with an empty answer. What it was
/// sent comes out of the channel.
#[derive(Debug)]
struct Broker {
    answer: ApiVersionsResponse,
    seen: mpsc::UnboundedSender<Seen>,
    /// A permit for each frame that it reads.
    turns: Arc<Semaphore>,
}

#[derive(Debug, PartialEq)]
struct Seen {
    key: i16,
    version: i16,
    records: Vec<bytes::Bytes>,
}

impl Connect for Broker {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> Connecting<'a> {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(serve(far, self.answer.clone(), self.seen.clone(), Arc::clone(&self.turns)));
        Box::pin(async move { Ok(Box::new(near) as Box<dyn Io>) })
    }
}

async fn serve(
    mut stream: DuplexStream,
    answer: ApiVersionsResponse,
    seen: mpsc::UnboundedSender<Seen>,
    turns: Arc<Semaphore>,
) {
    loop {
        turns.acquire().await.unwrap().forget();
        let Ok(length) = stream.read_u32().await else { return };
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.unwrap();
        let mut body = bytes::Bytes::from(frame);
        let version = body.get(2..4).map(|mut v| v.get_i16()).unwrap();
        let flexible = [(0, 9), (18, 3), (26, 3)];
        let key = body.get(..2).map(|mut k| k.get_i16()).unwrap();
        let flexible = flexible.iter().any(|(k, from)| *k == key && version >= *from);
        let header = RequestHeader::decode(&mut body, if flexible { 2 } else { 1 }).unwrap();
        let mut out = BytesMut::new();
        out.put_i32(header.correlation_id);
        if flexible && key != 18 {
            out.put_u8(0);
        }
        let mut records = Vec::new();
        match key {
            18 => answer.encode(&mut out, version).unwrap(),
            0 => {
                let request = ProduceRequest::decode(&mut body, version).unwrap();
                assert!(body.is_empty());
                let data = request.topic_data.into_iter().flat_map(|topic| topic.partition_data);
                records.extend(data.filter_map(|data| data.records));
                ProduceResponse::default().encode(&mut out, version).unwrap();
            }
            _ => EndTxnResponse::default().encode(&mut out, version).unwrap(),
        }
        seen.send(Seen { key, version, records }).unwrap();
        // The client may have left.
        let _ = stream.write_u32(out.len().try_into().unwrap()).await;
        let _ = stream.write_all(&out).await;
    }
}

fn key(key: i16, min: i16, max: i16) -> ApiVersion {
    ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
}

async fn open(answer: ApiVersionsResponse) -> (Link, mpsc::UnboundedReceiver<Seen>) {
    open_gated(answer, Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))).await
}

async fn open_gated(
    answer: ApiVersionsResponse,
    turns: Arc<Semaphore>,
) -> (Link, mpsc::UnboundedReceiver<Seen>) {
    let (seen, sent) = mpsc::unbounded_channel();
    let settings = LinkSettings {
        client_id: "test".into(),
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        max_response_size: 1 << 20,
        connector: Arc::new(Broker { answer, seen, turns }),
    };
    let link = Link::open(&Address { host: "h".to_owned(), port: 1 }, &settings).await.unwrap();
    (link, sent)
}

fn kafka() -> ApiVersionsResponse {
    let level = |name, level| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_max_version_level(level)
            .with_min_version_level(level)
    };
    ApiVersionsResponse::default()
        .with_api_keys(vec![key(18, 0, 4), key(0, 3, 13), key(26, 0, 5), key(28, 0, 4), key(1, 17, 20)])
        .with_finalized_features(vec![level("group.version", 1), level("transaction.version", 2)])
        .with_finalized_features_epoch(4)
}

#[tokio::test]
async fn the_version_spoken_is_the_highest_shared_one_and_a_cap_stays_below_it() {
    let (link, mut sent) = open(kafka()).await;
    assert_eq!(link.version::<Produce>(), Some(12), "this client's highest");
    assert_eq!(link.version::<TxnOffsetCommitRequest>(), Some(4), "the broker's highest");
    assert_eq!(link.version::<MetadataRequest>(), None, "not spoken there");
    assert_eq!(link.version::<FetchRequest>(), None, "none is shared");

    link.call(EndTxnRequest::default()).await.unwrap();
    let limit = Duration::from_secs(10);
    link.call_capped::<_, 4>(EndTxnRequest::default(), limit).await.unwrap();
    link.call_capped::<_, 9>(EndTxnRequest::default(), limit).await.unwrap();
    let e = link.call_capped::<_, 11>(FetchRequest::default(), limit).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    drop(link);
    let mut seen = Vec::new();
    while let Some(request) = sent.recv().await {
        seen.push((request.key, request.version));
    }
    assert_eq!(seen, [(18, 3), (26, 5), (26, 4), (26, 5)]);
}

#[tokio::test]
async fn a_finalized_feature_has_its_level() {
    let (link, _sent) = open(kafka()).await;
    assert_eq!(link.feature("transaction.version"), Some(2));
    assert_eq!(link.feature("group.version"), Some(1));
    assert_eq!(link.feature("share.version"), None);
    let (link, _sent) = open(kafka().with_finalized_features_epoch(-1)).await;
    assert_eq!(link.feature("transaction.version"), None, "the broker does not know them yet");
}

fn records(fill: u8, size: usize) -> bytes::Bytes {
    bytes::Bytes::from((0..size).map(|i| (i as u8) ^ fill).collect::<Vec<_>>())
}

fn produce(all: &[bytes::Bytes]) -> Produce {
    let data = all
        .iter()
        .map(|records| PartitionProduceData::default().with_records(Some(records.clone())))
        .collect();
    let topic = TopicProduceData::default().with_partition_data(data);
    ProduceRequest::default().with_topic_data(vec![topic]).into()
}

#[tokio::test]
async fn requests_with_records_and_without_arrive_whole_in_the_order_of_their_first_polls() {
    let (link, mut sent) = open(kafka()).await;
    let mut calls = futures_util::stream::FuturesOrdered::new();
    let mut expected = Vec::new();
    let limit = Duration::from_secs(10);
    for (fill, sizes) in (1..).zip([&[10_000, 5, 2_000][..], &[], &[100], &[300_000, 0], &[1_024; 70], &[9]])
    {
        let all: Vec<_> = sizes.iter().map(|size| records(fill, *size)).collect();
        let (link, request) = (&link, produce(&all));
        let call: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = if fill % 2 == 0 {
            Box::pin(async move { link.call_capped::<_, 8>(request, limit).await.map(drop) })
        } else {
            Box::pin(async move { link.call(request).await.map(drop) })
        };
        calls.push_back(call);
        expected.push(Seen { key: 0, version: if fill % 2 == 0 { 8 } else { 12 }, records: all });
        calls.push_back(Box::pin(async move { link.call(EndTxnRequest::default()).await.map(drop) }));
        expected.push(Seen { key: 26, version: 5, records: vec![] });
    }
    while let Some(answer) = futures_util::StreamExt::next(&mut calls).await {
        answer.unwrap();
    }
    drop(calls);
    assert_eq!(link.outbox.len(), 0);
    drop(link);
    assert_eq!(sent.recv().await.unwrap().key, 18);
    for (n, expected) in expected.into_iter().enumerate() {
        assert!(sent.recv().await.unwrap() == expected, "request {n}");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_no_half_frame_and_no_records_behind() {
    let turns = Arc::new(Semaphore::new(1));
    let (link, mut sent) = open_gated(kafka(), Arc::clone(&turns)).await;
    assert_eq!(sent.recv().await.unwrap().key, 18);
    let kept = [records(1, 100_000)];
    let gone = [records(2, 100_000)];
    let next = [records(3, 100_000)];
    {
        // The broker reads nothing: the first is half written, the second waits for its turn.
        let half = link.call(produce(&kept));
        let waits = link.call(produce(&gone));
        let both = async { tokio::join!(half, waits) };
        assert!(timeout(Duration::from_millis(50), both).await.is_err());
    }
    assert_eq!(link.outbox.len(), 0, "what had no turn is forgotten");
    assert!(link.is_open());
    turns.add_permits(2);
    link.call(produce(&next)).await.unwrap();
    assert!(sent.recv().await.unwrap().records == kept, "what had begun is written to its end");
    assert!(sent.recv().await.unwrap().records == next);
}

#[tokio::test]
async fn a_closed_link_fails_what_is_half_written_and_forgets_what_waits() {
    let (link, _sent) = open_gated(kafka(), Arc::new(Semaphore::new(1))).await;
    let all = [records(1, 100_000)];
    let (a, b, ()) = tokio::join!(link.call(produce(&all)), link.call(produce(&all)), async {
        tokio::task::yield_now().await;
        link.close();
    });
    assert_eq!(a.unwrap_err().kind(), ErrorKind::Disconnected);
    assert_eq!(b.unwrap_err().kind(), ErrorKind::Disconnected);
    assert_eq!(link.outbox.len(), 0);
}
