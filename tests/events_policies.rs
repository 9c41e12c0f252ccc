//! What becomes of records that are no proper events.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(clippy::disallowed_methods, reason = "tests sleep")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::unique;
use muslin::events::{Consumer, ConsumerBuilder, Event, Policy, topic_of};
use muslin::kafka::{Client, Record, StartAt};
use muslin::processor::{HandlerError, Summary, Watch};
use muslin::{ErrorKind, Result, Topic};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Order {
    number: u64,
}

/// An event between the bad ones, and each kind of bad one.
fn records(topic: &Topic, event_type: &str) -> Vec<Record<'static>> {
    let good = |number: u64| {
        format!(
            r#"{{"event_id":"e{number}","event_type":"{event_type}","occurred_at":"2026-01-02T03:04:05+00:00","data":{{"number":{number}}},"more":1}}"#
        )
    };
    let unknown = good(90).replace(event_type, "something.else");
    let values = [
        Some(good(1)),
        Some(unknown),
        Some("<xml/>".to_owned()),
        Some(good(2)),
        None,
        Some(r#"{"event_id":"x","event_type":"t","data":{}}"#.to_owned()),
        Some(good(91).replace("\"number\":91", "\"number\":\"many\"")),
        Some(good(3)),
    ];
    let record = |value: Option<String>| {
        let record = Record::to_topic(topic.clone())
            .key("k")
            .header("own", Some(Bytes::from_static(b"1")))
            .header("own", None)
            .header("muslin-dlq-reason", Some(Bytes::from_static(b"of an earlier death")));
        match value {
            Some(value) => record.value(value),
            None => record,
        }
    };
    values.into_iter().map(record).collect()
}

struct Setting {
    kafka: Client,
    event_type: String,
    seen: Arc<Mutex<Vec<u64>>>,
}

impl Setting {
    async fn new() -> Self {
        let kafka = Client::builder(common::kafka()).connect().await.unwrap();
        let event_type = unique("order.created");
        let topic = topic_of(&event_type).unwrap();
        kafka.create_topic(&topic, 1, 1).await.unwrap();
        let producer = kafka.producer().build().await.unwrap();
        for record in records(&topic, &event_type) {
            producer.send(record).await.unwrap();
        }
        Self { kafka, event_type, seen: Arc::default() }
    }

    fn consumer(&self) -> ConsumerBuilder {
        let seen = self.seen.clone();
        Consumer::builder(&self.kafka, &unique("g")).on(&self.event_type, move |event: Event<Order>| {
            seen.lock().unwrap().push(event.data.number);
            async { Ok::<(), HandlerError>(()) }
        })
    }

    fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().clone()
    }
}

async fn run(consumer: ConsumerBuilder, settled: u64) -> Result<Summary> {
    let watch: Watch = consumer.watch();
    consumer
        .run(async move {
            for _ in 0..600 {
                if watch.summary().settled() == settled {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
}

#[tokio::test]
async fn bad_records_become_dead_letters_untouched_with_their_reasons_and_block_nothing() {
    let s = Setting::new().await;
    let letters = Topic::new(unique("dlq")).unwrap();
    s.kafka.create_topic(&letters, 1, 1).await.unwrap();
    let summary = run(s.consumer().dead_letter(letters.as_str()), 8).await.unwrap();
    assert_eq!((summary.handled, summary.dead_lettered, summary.retried), (3, 5, 0));
    assert_eq!(s.seen(), [1, 2, 3]);

    let topic = topic_of(&s.event_type).unwrap();
    let originals = {
        let mut all = Vec::new();
        let mut reader = s
            .kafka
            .simple_consumer()
            .topics([topic.as_str()])
            .start(StartAt::Earliest)
            .build()
            .await
            .unwrap();
        for _ in 0..8 {
            all.push(reader.next().await.unwrap().unwrap().value_bytes());
        }
        all
    };
    let mut reader =
        s.kafka.simple_consumer().topics([letters.as_str()]).start(StartAt::Earliest).build().await.unwrap();
    let mut got = Vec::new();
    for _ in 0..5 {
        let letter = reader.next().await.unwrap().unwrap();
        let header = |name: &str| {
            let values: Vec<_> = letter.headers().filter(|(n, _)| *n == name).map(|(_, v)| v).collect();
            assert_eq!(values.len(), 1, "{name}: {values:?}");
            String::from_utf8(values[0].unwrap().to_vec()).unwrap()
        };
        assert_eq!(letter.key().unwrap(), b"k");
        let own: Vec<_> = letter.headers().filter(|(n, _)| *n == "own").map(|(_, v)| v).collect();
        assert_eq!(own, [Some(&b"1"[..]), None], "own headers stay, in order, null and all");
        assert_eq!(header("muslin-dlq-original-topic"), topic.as_str());
        let offset: usize = header("muslin-dlq-original-offset").parse().unwrap();
        assert_eq!(letter.value_bytes(), originals[offset], "the value is untouched");
        got.push((offset, header("muslin-dlq-reason"), header("muslin-dlq-error-class")));
    }
    got.sort();
    let expected = [
        (1, "unknown_type", "unknown_type"),
        (2, "not_json", "not_json"),
        (4, "not_json", "not_json"),
        (5, "bad_field", "missing_field"),
        (6, "bad_field", "bad_data"),
    ];
    assert_eq!(got, expected.map(|(o, r, c)| (o, r.to_owned(), c.to_owned())));
}

#[tokio::test]
async fn each_policy_can_skip() {
    let s = Setting::new().await;
    let consumer = s
        .consumer()
        .unknown_type(Policy::Skip)
        .not_json(Policy::Skip)
        .missing_field(Policy::Skip)
        .bad_data(Policy::Skip);
    let summary = run(consumer, 8).await.unwrap();
    assert_eq!((summary.handled, summary.skipped), (3, 5));
    assert_eq!(s.seen(), [1, 2, 3]);
}

#[tokio::test]
async fn a_policy_that_stops_names_the_place_and_commits_nothing_past_it() {
    let s = Setting::new().await;
    let consumer = s.consumer().unknown_type(Policy::Skip).not_json(Policy::Stop);
    let e = run(consumer, 8).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Handler);
    assert!(e.to_string().contains(&format!("events.{}[0]@2: not JSON", s.event_type)), "{e}");
}

#[tokio::test]
async fn without_dead_letters_a_bad_record_stops_the_run_rather_than_being_lost() {
    let s = Setting::new().await;
    let group = unique("g");
    let start = || {
        Consumer::builder(&s.kafka, &group)
            .on(&s.event_type, |_: Event<Order>| async { Ok::<(), HandlerError>(()) })
    };
    let e = run(start(), 8).await.unwrap_err();
    assert!(e.to_string().contains("[0]@1"), "{e}");
    // Started again, it stands before the same record.
    let e = run(start(), 8).await.unwrap_err();
    assert!(e.to_string().contains("[0]@1"), "{e}");
    let committed = s.kafka.committed(&group, &topic_of(&s.event_type).unwrap()).await.unwrap();
    assert!(committed.values().all(|offset| offset.get() <= 1), "{committed:?}");
}
