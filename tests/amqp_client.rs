//! The RabbitMQ client against a real broker: publishing, consuming, queues.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]
#![allow(clippy::disallowed_methods, reason = "tests read clocks and start tasks")]
#![allow(clippy::print_stdout, reason = "measurements are for the reader of the log")]

mod common;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muslin::ErrorKind;
use muslin::amqp::{Client, Deliveries, Delivery, ExchangeKind, Message, Queue, Table, Value};
use tokio::time::timeout;

async fn client() -> Client {
    Client::builder(&common::amqp()).operation_timeout(Duration::from_secs(20)).connect().await.unwrap()
}

/// A queue of this test's own, gone with the connection.
async fn queue(client: &Client, prefix: &str) -> Queue {
    client.queue(common::unique(prefix)).exclusive().declare().await.unwrap()
}

async fn next(deliveries: &mut Deliveries) -> Delivery {
    timeout(Duration::from_secs(10), deliveries.next()).await.expect("no delivery came").unwrap().unwrap()
}

/// Asserts that nothing is delivered for a while.
async fn nothing(deliveries: &mut Deliveries) {
    if let Ok(more) = timeout(Duration::from_millis(300), deliveries.next()).await {
        panic!("nothing should come: {more:?}");
    }
}

async fn depth_becomes(queue: &Queue, messages: u32) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let depth = queue.depth().await.unwrap();
        if depth.messages == messages {
            return;
        }
        assert!(Instant::now() < end, "the queue holds {depth:?}; expected {messages} messages");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// CPU time of this process, user and system, in clock ticks of 10 ms.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_confirmed_messages_arrive_once_and_in_order() {
    const COUNT: usize = 20_000;
    let client = client().await;
    let queue = queue(&client, "many").await;
    let (begin, ticks) = (Instant::now(), cpu_ticks());
    let mut waiting = Vec::new();
    for i in 0..COUNT {
        waiting.push(queue.enqueue(Message::new(i.to_string())).await.unwrap());
    }
    for queued in waiting {
        queued.await.unwrap();
    }
    println!(
        "{COUNT} confirmed publishes: {:?}, {} ms of CPU in this process",
        begin.elapsed(),
        (cpu_ticks() - ticks) * 10
    );
    assert_eq!(queue.depth().await.unwrap().messages, COUNT as u32);
    let (begin, ticks) = (Instant::now(), cpu_ticks());
    let mut deliveries = queue.consume().prefetch(500).start().await.unwrap();
    for i in 0..COUNT {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.body(), &Bytes::from(i.to_string()));
        assert_eq!(delivery.properties().persistent, Some(true));
        delivery.ack();
    }
    println!("{COUNT} deliveries: {:?}, {} ms of CPU", begin.elapsed(), (cpu_ticks() - ticks) * 10);
    nothing(&mut deliveries).await;
    deliveries.cancel().await.unwrap();
    assert_eq!(queue.depth().await.unwrap().messages, 0);
    client.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishers_lose_and_double_nothing() {
    let client = client().await;
    let queue = queue(&client, "concurrent").await;
    let mut tasks = Vec::new();
    for p in 0..8 {
        let queue = queue.clone();
        let own = client.publisher().await.unwrap();
        tasks.push(tokio::spawn(async move {
            for i in 0..250 {
                let message = Message::new(format!("{p}:{i}"));
                if i % 2 == 0 {
                    queue.publish(message).await.unwrap();
                } else {
                    own.publish("", queue.name(), message).await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let mut deliveries = queue.consume().start().await.unwrap();
    let mut seen = HashSet::new();
    for _ in 0..2000 {
        let delivery = next(&mut deliveries).await;
        assert!(seen.insert(delivery.body().clone()), "twice: {:?}", delivery.body());
        delivery.ack();
    }
    nothing(&mut deliveries).await;
}

#[tokio::test]
async fn a_message_that_no_queue_takes_is_rejected_with_the_brokers_reason() {
    let client = client().await;
    let publisher = client.publisher().await.unwrap();
    let missing = common::unique("missing");
    let e = publisher.publish("", &missing, Message::new("x")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Rejected);
    assert!(e.to_string().contains("312 NO_ROUTE") && e.to_string().contains(&missing), "{e}");
    assert!(!e.is_ambiguous() && !e.is_retryable());
    // Without the flag the broker drops it and confirms.
    publisher.mandatory(false).publish("", &missing, Message::new("x")).await.unwrap();
    let queue = queue(&client, "deleted").await;
    queue.publish(Message::new("x")).await.unwrap();
    assert_eq!(queue.delete().await.unwrap(), 1);
    assert_eq!(queue.publish(Message::new("x")).await.unwrap_err().kind(), ErrorKind::Rejected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returns_among_many_confirms_reach_the_right_publish() {
    let client = client().await;
    let queue = queue(&client, "mixed").await;
    let publisher = client.publisher().await.unwrap();
    let missing = common::unique("missing");
    let mut waiting = Vec::new();
    for i in 0..2000 {
        let key = if i % 3 == 0 { missing.as_str() } else { queue.name() };
        waiting.push(publisher.enqueue("", key, Message::new("x")).await.unwrap());
    }
    for (i, queued) in waiting.into_iter().enumerate() {
        match queued.await {
            Ok(()) => assert_ne!(i % 3, 0, "publish {i} was not returned"),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Rejected, "{e}");
                assert_eq!(i % 3, 0, "publish {i}: {e}");
            }
        }
    }
}

#[tokio::test]
async fn a_full_queue_that_refuses_is_a_retryable_rejection() {
    let client = client().await;
    let queue = client
        .queue(common::unique("full"))
        .exclusive()
        .argument("x-max-length", 1i32)
        .argument("x-overflow", "reject-publish")
        .declare()
        .await
        .unwrap();
    queue.publish(Message::new("fits")).await.unwrap();
    let e = queue.publish(Message::new("does not")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Rejected);
    assert!(e.to_string().contains("nack") && e.is_retryable() && !e.is_ambiguous(), "{e:?}");
    assert_eq!(queue.purge().await.unwrap(), 1);
    queue.publish(Message::new("fits again")).await.unwrap();
}

#[tokio::test]
async fn a_missing_exchange_fails_its_publish_and_the_publisher_goes_on() {
    let client = client().await;
    let queue = queue(&client, "goes-on").await;
    let publisher = client.publisher().await.unwrap();
    let missing = common::unique("exchange");
    for _ in 0..3 {
        let e = publisher.publish(&missing, "key", Message::new("x")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        assert!(e.to_string().contains(&missing) && !e.is_ambiguous(), "{e:?}");
        publisher.publish("", queue.name(), Message::new("y")).await.unwrap();
    }
    assert_eq!(queue.depth().await.unwrap().messages, 3);
}

#[tokio::test]
async fn exchanges_route_by_their_bindings() {
    let client = client().await;
    let exchange = common::unique("topic");
    client.exchange(&exchange, ExchangeKind::Topic).auto_delete().declare().await.unwrap();
    let queue = queue(&client, "bound").await;
    client.bind(queue.name(), &exchange, "order.*").await.unwrap();
    client.bind(queue.name(), &exchange, "order.*").await.unwrap();
    let publisher = client.publisher().await.unwrap();
    publisher.publish(&exchange, "order.created", Message::new("in")).await.unwrap();
    let e = publisher.publish(&exchange, "other", Message::new("out")).await.unwrap_err();
    assert!(e.to_string().contains(&exchange), "{e}");
    let got = queue.get().await.unwrap().unwrap();
    assert_eq!((got.exchange(), got.routing_key()), (exchange.as_str(), "order.created"));
    got.ack();
    let e = client.bind(queue.name(), &common::unique("none"), "k").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    let e = client.exchange(&exchange, ExchangeKind::Fanout).auto_delete().declare().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    assert!(e.to_string().contains("'type'"), "{e}");
}

#[tokio::test]
async fn no_more_than_the_prefetch_is_in_hand() {
    let client = client().await;
    let queue = queue(&client, "prefetch").await;
    for i in 0..10 {
        queue.publish(Message::new(i.to_string())).await.unwrap();
    }
    let mut deliveries = queue.consume().prefetch(3).start().await.unwrap();
    let mut hand =
        vec![next(&mut deliveries).await, next(&mut deliveries).await, next(&mut deliveries).await];
    nothing(&mut deliveries).await;
    assert_eq!(queue.depth().await.unwrap().messages, 7);
    hand.remove(1).ack();
    assert_eq!(next(&mut deliveries).await.body(), "3");
    let e = queue.consume().prefetch(0).start().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_marked_as_redelivered() {
    let client = client().await;
    let queue = queue(&client, "again").await;
    for body in ["nacked", "dropped", "rejected", "acked"] {
        queue.publish(Message::new(body)).await.unwrap();
    }
    let mut deliveries = queue.consume().prefetch(4).start().await.unwrap();
    for _ in 0..4 {
        let delivery = next(&mut deliveries).await;
        assert!(!delivery.redelivered());
        match &delivery.body()[..] {
            b"nacked" => delivery.nack(true),
            b"dropped" => drop(delivery),
            b"rejected" => delivery.reject(),
            _ => delivery.ack(),
        }
    }
    let mut again = HashSet::new();
    for _ in 0..2 {
        let delivery = next(&mut deliveries).await;
        assert!(delivery.redelivered());
        again.insert(delivery.body().clone());
        delivery.ack();
    }
    assert_eq!(again, HashSet::from(["nacked".into(), "dropped".into()]));
    nothing(&mut deliveries).await;
}

#[tokio::test]
async fn a_cancelled_or_dropped_consumer_gives_back_what_was_not_taken() {
    let client = client().await;
    let queue = queue(&client, "given-back").await;
    for i in 0..20 {
        queue.publish(Message::new(i.to_string())).await.unwrap();
    }
    let mut deliveries = queue.consume().prefetch(10).start().await.unwrap();
    let first = next(&mut deliveries).await;
    deliveries.cancel().await.unwrap();
    depth_becomes(&queue, 19).await;
    assert_eq!(queue.depth().await.unwrap().consumers, 0);
    first.ack();
    let mut deliveries = queue.consume().prefetch(10).start().await.unwrap();
    let second = next(&mut deliveries).await;
    drop(deliveries);
    depth_becomes(&queue, 18).await;
    drop(second);
    depth_becomes(&queue, 19).await;
}

#[tokio::test]
async fn a_deleted_queue_ends_its_consumer_with_an_error() {
    let client = client().await;
    let queue = queue(&client, "cancelled").await;
    queue.publish(Message::new("x")).await.unwrap();
    let mut deliveries = queue.consume().start().await.unwrap();
    let hand = next(&mut deliveries).await;
    queue.delete().await.unwrap();
    let e = timeout(Duration::from_secs(10), deliveries.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains(queue.name()) && e.to_string().contains("cancelled"), "{e}");
    assert!(deliveries.next().await.is_none());
    drop(hand);
    let e = queue.consume().start().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    assert!(client.is_connected());
}

#[tokio::test]
async fn get_takes_one_message_and_gives_it_back_unless_it_is_settled() {
    let client = client().await;
    let queue = queue(&client, "get").await;
    assert!(queue.get().await.unwrap().is_none());
    queue.publish(Message::new("")).await.unwrap();
    let got = queue.get().await.unwrap().unwrap();
    assert!(got.body().is_empty() && !got.redelivered());
    assert!(queue.get().await.unwrap().is_none());
    drop(got);
    let got = queue.get().await.unwrap().unwrap();
    assert!(got.redelivered());
    got.ack();
    assert!(queue.get().await.unwrap().is_none());
    queue.delete().await.unwrap();
    for _ in 0..2 {
        assert_eq!(queue.get().await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_large_body_crosses_in_many_frames() {
    let client = client().await;
    let queue = queue(&client, "large").await;
    let body: Vec<u8> = (0..3_000_001u32).map(|i| (i % 251) as u8).collect();
    queue.publish(Message::new(body.clone())).await.unwrap();
    assert_eq!(queue.get().await.unwrap().unwrap().body(), &body);
}

#[tokio::test]
async fn headers_of_every_type_and_all_properties_arrive_as_sent() {
    let client = client().await;
    let queue = queue(&client, "headers").await;
    let inner: Table = [("k", Value::from("v")), ("n", Value::Null)].into_iter().collect();
    let message = Message::new("body")
        .header("null", Value::Null)
        .header("bool", true)
        .header("i8", -8i8)
        .header("u8", 200u8)
        .header("i16", -1600i16)
        .header("u16", 60_000u16)
        .header("i32", -32i32)
        .header("u32", 4_000_000_000u32)
        .header("i64", i64::MIN)
        .header("f32", 1.5f32)
        .header("f64", -2.5f64)
        .header("decimal", Value::Decimal { scale: 2, value: -314 })
        .header("text", "tëxt")
        .header("empty", "")
        .header("bytes", Bytes::from_static(&[0, 255, 128]))
        .header("timestamp", Value::Timestamp(1_700_000_000))
        .header("array", vec![Value::from(1i32), Value::from(inner.clone()), Value::Array(vec![])])
        .header("table", inner)
        .content_type("text/plain")
        .content_encoding("identity")
        .correlation_id("c")
        .reply_to("r")
        .message_id("m")
        .kind("t")
        .app_id("a")
        .user_id("alice")
        .priority(7)
        .timestamp(1_700_000_001)
        .expiration(Duration::from_secs(60));
    queue.publish(message.clone()).await.unwrap();
    let got = queue.get().await.unwrap().unwrap();
    assert_eq!(got.message(), &message);
}

#[tokio::test]
async fn a_message_without_an_id_gets_one_and_keeps_a_given_one() {
    let client = client().await;
    let queue = queue(&client, "ids").await;
    let mut ids = HashSet::new();
    for _ in 0..3 {
        queue.publish(Message::new("x")).await.unwrap();
        let got = queue.get().await.unwrap().unwrap();
        assert!(ids.insert(got.properties().message_id.clone().unwrap()));
        got.ack();
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_it_is_sent() {
    let client = Client::builder(&common::amqp()).max_message_size(1000).connect().await.unwrap();
    let queue = queue(&client, "limits").await;
    let refused = async |m: Message| queue.publish(m).await.unwrap_err();
    let e = refused(Message::new(vec![0; 1001])).await;
    assert_eq!(e.kind(), ErrorKind::TooLarge);
    assert!(e.to_string().contains("1001") && e.to_string().contains("max_message_size"), "{e}");
    let e = refused(Message::new("").header("n".repeat(256), 1i32)).await;
    assert_eq!(e.kind(), ErrorKind::TooLarge, "{e}");
    let e = refused(Message::new("").header("big", "x".repeat(200_000))).await;
    assert!(e.to_string().contains("frame"), "{e}");
    let long = "q".repeat(256);
    for e in [
        client.queue(&long).declare().await.unwrap_err(),
        client.publisher().await.unwrap().publish("", &long, Message::new("")).await.unwrap_err(),
        client.bind(&long, "amq.topic", "k").await.unwrap_err(),
    ] {
        assert_eq!(e.kind(), ErrorKind::TooLarge);
        assert!(e.to_string().contains("256 bytes; 255"), "{e}");
    }
    assert_eq!(client.queue("").declare().await.unwrap_err().kind(), ErrorKind::Config);
    // The largest that fits its frame does.
    let filler = "x".repeat(131_072 - 8 - 14 - 4 - (1 + 1 + 1 + 4) - 1 - (1 + 2));
    queue.publish(Message::new("").message_id("id").header("f", filler)).await.unwrap();
    queue.publish(Message::new(vec![0; 1000])).await.unwrap();
    assert_eq!(queue.depth().await.unwrap().messages, 2);
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_a_conflict_that_names_them() {
    let client = client().await;
    let name = common::unique("conflict");
    client.queue(&name).exclusive().argument("x-max-length", 5i32).declare().await.unwrap();
    let e = client.queue(&name).exclusive().declare().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict);
    let text = e.to_string();
    assert!(text.contains("x-max-length") && text.contains('5') && text.contains(&name), "{text}");
    assert!(text.contains("none") || text.contains("received"), "both sides are named: {text}");
    let joined = client.queue(&name).exclusive().join().declare().await.unwrap();
    joined.publish(Message::new("x")).await.unwrap();
    client.queue(&name).passive().declare().await.unwrap();
    let e = client.queue(common::unique("none")).passive().declare().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    // Another connection's exclusive queue.
    let other = self::client().await;
    let e = other.queue(&name).declare().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Conflict, "{e}");
}

#[tokio::test]
async fn a_quorum_queue_works_and_counts_deliveries() {
    let client = client().await;
    let dead = queue(&client, "dead").await;
    let queue = client
        .queue(common::unique("quorum"))
        .quorum()
        .delivery_limit(1)
        .dead_letter("", dead.name())
        .declare()
        .await
        .unwrap();
    queue.publish(Message::new("poison")).await.unwrap();
    let mut deliveries = queue.consume().start().await.unwrap();
    next(&mut deliveries).await.nack(true);
    next(&mut deliveries).await.nack(true);
    depth_becomes(&dead, 1).await;
    let letter = dead.get().await.unwrap().unwrap();
    let deaths = letter.header("x-death").and_then(Value::as_array).unwrap();
    assert_eq!(deaths[0].as_table().unwrap().get("reason").and_then(Value::as_str), Some("delivery_limit"));
    queue.delete().await.unwrap();
}
