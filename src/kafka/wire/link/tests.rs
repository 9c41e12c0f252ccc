use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey};
use kafka_protocol::messages::{
    EndTxnRequest, FetchRequest, MetadataRequest, ProduceRequest, RequestHeader, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::*;
use crate::kafka::wire::{Connecting, Io};

/// Answers every ApiVersions request with `answer`, and every EndTxn request with nothing but its head. What it was
/// sent comes out of the channel: key and version.
#[derive(Debug)]
struct Broker {
    answer: ApiVersionsResponse,
    seen: mpsc::UnboundedSender<(i16, i16)>,
}

impl Connect for Broker {
    fn connect<'a>(&'a self, _: &'a str, _: u16) -> Connecting<'a> {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(serve(far, self.answer.clone(), self.seen.clone()));
        Box::pin(async move { Ok(Box::new(near) as Box<dyn Io>) })
    }
}

async fn serve(
    mut stream: DuplexStream,
    answer: ApiVersionsResponse,
    seen: mpsc::UnboundedSender<(i16, i16)>,
) {
    while let Ok(length) = stream.read_u32().await {
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.unwrap();
        let mut body = bytes::Bytes::from(frame);
        let version = body.get(2..4).map(|mut v| v.get_i16()).unwrap();
        let header = RequestHeader::decode(&mut body, 1).unwrap();
        seen.send((header.request_api_key, version)).unwrap();
        let mut out = BytesMut::new();
        out.put_i32(header.correlation_id);
        match header.request_api_key {
            18 => answer.encode(&mut out, version).unwrap(),
            key => {
                assert_eq!(key, 26);
                // Version 3 on has tagged fields in the head.
                out.put_u8(0);
                kafka_protocol::messages::EndTxnResponse::default().encode(&mut out, version).unwrap();
            }
        }
        stream.write_u32(out.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&out).await.unwrap();
    }
}

fn key(key: i16, min: i16, max: i16) -> ApiVersion {
    ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max)
}

async fn open(answer: ApiVersionsResponse) -> (Link, mpsc::UnboundedReceiver<(i16, i16)>) {
    let (seen, sent) = mpsc::unbounded_channel();
    let settings = LinkSettings {
        client_id: "test".into(),
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        max_response_size: 1 << 20,
        connector: Arc::new(Broker { answer, seen }),
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
    assert_eq!(link.version::<ProduceRequest>(), Some(12), "this client's highest");
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
        seen.push(request);
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
