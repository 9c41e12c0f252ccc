//! Events become tasks, and each task is worked once: the whole way over real brokers.
#![cfg(all(feature = "kafka", feature = "amqp"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(clippy::disallowed_methods, reason = "tests sleep and spawn")]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::unique;
use muslin::events::{Consumer, Event, Publish, Publisher, topic_of};
use muslin::idempotency::MemoryStore;
use muslin::processor::{HandlerError, RetryPolicy};
use muslin::tasks::{Enqueue, Queue, Task, Worker};
use muslin::{amqp, kafka};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u64,
}

/// Ends a run once `done` says so; fails loudly if that never comes.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..1200 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not done within 60 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_events_become_tasks_and_each_is_worked_once_although_some_are_sent_twice() {
    const EVENTS: u64 = 2000;
    let kafka = kafka::Client::builder(common::kafka()).connect().await.unwrap();
    let rabbit = amqp::Client::connect(&common::amqp()).await.unwrap();
    let event_type = unique("order.created");
    kafka.create_topic(&topic_of(&event_type).unwrap(), 4, 1).await.unwrap();
    let queue = Queue::declare(&rabbit, unique("tasks")).await.unwrap();

    // Every twentieth event is published twice with one id.
    let events = Publisher::new(kafka.producer().build().await.unwrap());
    let mut queued = Vec::new();
    let mut doubles = 0;
    for number in 0..EVENTS {
        let copies = if number % 20 == 0 { 2 } else { 1 };
        doubles += copies - 1;
        for _ in 0..copies {
            let event = Publish::new(&event_type, &Order { number })
                .unwrap()
                .key(format!("order-{}", number % 100))
                .id(format!("id-{number}"))
                .unwrap()
                .occurred_at("2026-01-02T03:04:05Z")
                .unwrap();
            queued.push(events.enqueue(event).await.unwrap().1);
        }
    }
    for placed in queued {
        placed.await.unwrap();
    }

    // A task for each event. Every 25th is put twice: its handler fails after the first time.
    let order: Arc<Mutex<HashMap<String, Vec<u64>>>> = Arc::default();
    let (seen, to) = (order.clone(), queue.clone());
    let consumer = Consumer::builder(&kafka, &unique("billing"))
        .on(&event_type, move |event: Event<Order>| {
            let (seen, to) = (seen.clone(), to.clone());
            async move {
                to.send(Enqueue::new("order.bill", &event.data)?.id(event.id.clone())?).await?;
                if event.data.number.is_multiple_of(25) && event.message.attempt() == 1 {
                    return Err(HandlerError::retry("after the effect"));
                }
                let key = String::from_utf8(event.message.key().unwrap().to_vec())?;
                seen.lock().unwrap().entry(key).or_default().push(event.data.number);
                Ok(())
            }
        })
        .concurrency(64)
        .retry(RetryPolicy::builder().initial(Duration::from_millis(5)).build().unwrap())
        .once(Arc::new(MemoryStore::new()));
    let watch = consumer.watch();
    let summary = consumer.run(until(move || watch.summary().settled() == EVENTS + doubles)).await.unwrap();
    assert_eq!((summary.handled, summary.duplicates), (EVENTS, doubles));
    assert_eq!(summary.retried, EVENTS / 25);
    for (key, numbers) in order.lock().unwrap().iter() {
        assert!(numbers.is_sorted(), "{key} lost its order: {numbers:?}");
    }

    let effects: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let book = effects.clone();
    let worker = Worker::new(queue.clone())
        .on("order.bill", move |task: Task<Order>| {
            let book = book.clone();
            async move {
                *book.lock().unwrap().entry(task.id.unwrap_or_default()).or_default() += 1;
                Ok::<(), HandlerError>(())
            }
        })
        .concurrency(8)
        .once(Arc::new(MemoryStore::new()));
    let watch = worker.watch();
    let put = EVENTS + EVENTS / 25;
    let summary = worker.run(until(move || watch.summary().settled() == put)).await.unwrap();
    assert_eq!((summary.handled, summary.duplicates), (EVENTS, EVENTS / 25));
    let effects = effects.lock().unwrap().clone();
    assert_eq!(effects.len() as u64, EVENTS);
    assert!(effects.values().all(|n| *n == 1));
    assert_eq!(queue.inner().depth().await.unwrap().messages, 0);
    queue.inner().delete().await.unwrap();
}

#[tokio::test]
async fn a_second_consumer_of_the_group_goes_on_where_the_first_one_stopped() {
    let kafka = kafka::Client::builder(common::kafka()).connect().await.unwrap();
    let (event_type, group) = (unique("step"), unique("walkers"));
    kafka.create_topic(&topic_of(&event_type).unwrap(), 2, 1).await.unwrap();
    let events = Publisher::new(kafka.producer().build().await.unwrap());
    let counted = Arc::new(AtomicU64::new(0));
    for round in 1..=2u64 {
        for number in 0..10 {
            events.publish(&event_type, Some("k"), &Order { number }).await.unwrap();
        }
        let (count, enough) = (counted.clone(), Arc::new(Notify::new()));
        let told = enough.clone();
        let consumer = Consumer::builder(&kafka, &group).on(&event_type, move |_: Event<Order>| {
            let (count, told) = (count.clone(), told.clone());
            async move {
                if count.fetch_add(1, Ordering::SeqCst) + 1 == round * 10 {
                    told.notify_one();
                }
                Ok::<(), HandlerError>(())
            }
        });
        let limit = Duration::from_secs(30);
        let summary = tokio::time::timeout(limit, consumer.run(async move { enough.notified().await })).await;
        assert_eq!(summary.unwrap().unwrap().handled, 10, "round {round}");
    }
    assert_eq!(counted.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn a_consumer_without_its_topic_or_without_handlers_says_what_is_missing() {
    let kafka = kafka::Client::builder(common::kafka()).connect().await.unwrap();
    let nowhere = unique("nowhere");
    let e = Consumer::builder(&kafka, "g")
        .on(&nowhere, |_: Event<Order>| async { Ok::<(), HandlerError>(()) })
        .run(std::future::pending())
        .await
        .unwrap_err();
    assert_eq!(e.kind(), muslin::ErrorKind::NotFound);
    assert!(e.to_string().contains(&format!("events.{nowhere}")), "{e}");
    let e = Consumer::builder(&kafka, "g").run(std::future::pending()).await.unwrap_err();
    assert_eq!(e.kind(), muslin::ErrorKind::Config);
    let e = Consumer::builder(&kafka, "g")
        .on("two words", |_: Event<Order>| async { Ok::<(), HandlerError>(()) })
        .run(std::future::pending())
        .await
        .unwrap_err();
    assert!(e.to_string().contains("two words"), "{e}");
}
