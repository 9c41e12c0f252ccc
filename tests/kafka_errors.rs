//! What a user reads when something is wrong: each error by its kind, by its words, and within the stated time.
#![cfg(feature = "kafka")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
mod common;

use std::time::{Duration, Instant};

use muslin::kafka::{At, Client, Record};
use muslin::{Error, ErrorKind, Partition, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TIMEOUT: Duration = Duration::from_millis(1500);

/// Connects, expects a failure, and checks that it came within the connect timeout.
async fn refused(bootstrap: &str) -> Error {
    let began = Instant::now();
    let error = Client::builder(bootstrap).connect_timeout(TIMEOUT).connect().await.unwrap_err();
    let took = began.elapsed();
    assert!(took < TIMEOUT * 2, "{took:?} for {error}");
    error
}

/// A server that answers every connection with `answer` after its first bytes, then closes it if `close`.
async fn server(answer: &'static [u8], close: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 64];
                let _ = stream.read(&mut first).await;
                let _ = stream.write_all(answer).await;
                if !close {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            });
        }
    });
    address
}

#[track_caller]
fn says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let report = error.report();
    assert_eq!(error.kind(), kind, "{report}");
    for word in words {
        assert!(report.contains(word), "{word:?} is not in: {report}");
    }
}

#[tokio::test]
async fn a_closed_port_is_named_with_the_refusal() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    says(&refused(&free).await, ErrorKind::Connect, &[&free, "refused", "check the port"]);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let error = refused("no-such-broker.invalid:9092").await;
    says(&error, ErrorKind::Connect, &["no-such-broker.invalid:9092"]);
}

#[tokio::test]
async fn a_web_server_is_recognised_at_once() {
    let address = server(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", false).await;
    says(&refused(&address).await, ErrorKind::Connect, &[&address, "HTTP server", "Kafka listener"]);
}

#[tokio::test]
async fn a_tls_listener_that_sends_an_alert_is_recognised_at_once() {
    let address = server(b"\x15\x03\x03\x00\x02\x02\x50", true).await;
    says(&refused(&address).await, ErrorKind::Connect, &[&address, "TLS", "PLAINTEXT"]);
}

#[tokio::test]
async fn a_listener_that_closes_at_once_is_told_with_what_may_be_there() {
    let address = server(b"", true).await;
    says(&refused(&address).await, ErrorKind::Connect, &[&address, "closed the connection", "TLS or SASL"]);
}

#[tokio::test]
async fn a_listener_that_wants_sasl_is_told_by_its_hanging_up_on_the_first_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Refuses version 3 of ApiVersions (KIP-511), answers version 0, closes on anything else.
            for correlation in [0u8, 1] {
                let mut request = vec![0; stream.read_u32().await.unwrap() as usize];
                stream.read_exact(&mut request).await.unwrap();
                let mut answer = vec![0, 0, 0, correlation, 0, if correlation == 0 { 35 } else { 0 }];
                // One api: Metadata, 0 to 12.
                answer.extend_from_slice(&[0, 0, 0, 1, 0, 3, 0, 0, 0, 12]);
                stream.write_u32(answer.len() as u32).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
            let _ = stream.read_u32().await;
        }
    });
    says(&refused(&address).await, ErrorKind::Connect, &[&address, "SASL", "PLAINTEXT"]);
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_after_the_connect_timeout() {
    let address = server(b"", false).await;
    says(
        &refused(&address).await,
        ErrorKind::Connect,
        &[&address, "no answer within 1.5s", "connect_timeout"],
    );
}

#[tokio::test]
async fn a_server_with_a_protocol_of_its_own_is_told_by_its_first_bytes() {
    let address = server(b"-ERR unknown command\r\n", false).await;
    says(&refused(&address).await, ErrorKind::Connect, &[&address, "-ERR"]);
}

#[tokio::test]
async fn every_bootstrap_address_is_tried_and_all_failures_are_listed() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let web = server(b"HTTP/1.1 400 Bad Request\r\n\r\n", false).await;
    let error = refused(&format!("{free},{web}")).await;
    says(&error, ErrorKind::Connect, &[&free, "refused", &web, "HTTP"]);
    let both = format!("{free},{web},{}", common::kafka());
    Client::builder(both).connect_timeout(TIMEOUT).connect().await.expect("the last address serves");
}

#[tokio::test]
async fn an_address_that_cannot_be_one_is_a_config_error() {
    says(&refused("kafka://a:1").await, ErrorKind::Config, &["kafka://a:1", "scheme"]);
    says(&refused("a:99999").await, ErrorKind::Config, &["99999", "65535"]);
}

#[tokio::test]
async fn a_missing_topic_is_not_found_and_not_created() {
    let client = Client::builder(common::kafka()).connect().await.unwrap();
    let topic = Topic::new(common::unique("missing")).unwrap();
    let began = Instant::now();
    says(
        &client.topic(&topic).await.unwrap_err(),
        ErrorKind::NotFound,
        &[topic.as_str(), "create the topic"],
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    says(&client.offsets(&topic, At::Latest).await.unwrap_err(), ErrorKind::NotFound, &[topic.as_str()]);
    let error = client.simple_consumer().topics([topic.as_str()]).build().await.unwrap_err();
    says(&error, ErrorKind::NotFound, &[topic.as_str()]);
    says(&client.delete_topic(&topic).await.unwrap_err(), ErrorKind::NotFound, &[topic.as_str()]);
}

#[tokio::test]
async fn a_topic_is_created_once_and_deleted() {
    let client = Client::builder(common::kafka()).connect().await.unwrap();
    let topic = Topic::new(common::unique("made")).unwrap();
    client.create_topic(&topic, 3, 1).await.unwrap();
    assert_eq!(client.topic(&topic).await.unwrap().partitions.len(), 3);
    says(&client.create_topic(&topic, 3, 1).await.unwrap_err(), ErrorKind::Conflict, &[topic.as_str()]);
    assert_eq!(client.offsets(&topic, At::Latest).await.unwrap().len(), 3);
    client.delete_topic(&topic).await.unwrap();
    let other = Topic::new(common::unique("made")).unwrap();
    let error = client.create_topic(&other, 1, 99).await.unwrap_err();
    says(&error, ErrorKind::Config, &[other.as_str(), "99"]);
}

#[tokio::test]
async fn a_client_that_was_closed_says_so() {
    let client = Client::builder(common::kafka()).connect().await.unwrap();
    client.close().await.unwrap();
    let error = client.topic(&Topic::new("any").unwrap()).await.unwrap_err();
    says(&error, ErrorKind::Closed, &["closed"]);
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_with_topic_and_sizes() {
    let client = Client::builder(common::kafka()).connect().await.unwrap();
    let topic = Topic::new(common::unique("large")).unwrap();
    client.create_topic(&topic, 1, 1).await.unwrap();
    // Over the producer's own limit: nothing is sent.
    let producer = client.producer().build().await.unwrap();
    let record = Record::to_topic(topic.clone()).value(vec![7; 2 << 20]);
    let error = producer.send(record).await.unwrap_err();
    says(&error, ErrorKind::TooLarge, &[topic.as_str(), "1048576", "2097"]);
    assert!(!error.is_ambiguous());
    // Over the broker's: the producer lives on, and so does the order of its sequence numbers.
    let producer = client.producer().max_request_size(4 << 20).build().await.unwrap();
    producer.send(Record::to_topic(topic.clone()).value("before")).await.unwrap();
    let record = Record::to_topic(topic.clone()).value(vec![7; 2 << 20]);
    let error = producer.send(record).await.unwrap_err();
    says(&error, ErrorKind::TooLarge, &[topic.as_str(), "max.message.bytes", "2097"]);
    assert!(!error.is_ambiguous());
    let placed = producer.send(Record::to_topic(topic.clone()).value("after")).await.unwrap();
    assert_eq!(placed.offset.get(), 1);
}

#[tokio::test]
async fn a_partition_that_does_not_exist_is_not_found() {
    let client = Client::builder(common::kafka()).connect().await.unwrap();
    let topic = Topic::new(common::unique("few")).unwrap();
    client.create_topic(&topic, 2, 1).await.unwrap();
    let producer = client.producer().build().await.unwrap();
    let record = Record::to_topic(topic.clone()).partition(Partition(2)).value("x");
    let error = producer.send(record).await.unwrap_err();
    says(&error, ErrorKind::NotFound, &[topic.as_str(), "partition 2", "2 partitions"]);
    let error = client.simple_consumer().partition(topic.as_str(), Partition(9)).build().await.unwrap_err();
    says(&error, ErrorKind::NotFound, &[topic.as_str(), "partition 9"]);
}
