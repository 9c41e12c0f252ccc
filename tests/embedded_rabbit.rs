//! Our own client, and hostile bytes, on the embedded RabbitMQ over TCP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test drives sockets, waits for them, and fails by a panic"
)]

use std::time::{Duration, Instant};

use muslin::ErrorKind;
use muslin::amqp::{Client, Message};
use muslin::embedded::Rabbit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn client(rabbit: &Rabbit) -> Client {
    Client::connect(&rabbit.url()).await.unwrap()
}

/// Waits until it is so.
#[track_caller]
fn soon(what: &str, is: impl Fn() -> bool) -> impl Future<Output = ()> {
    let what = what.to_owned();
    async move {
        let end = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < end, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn what_is_published_is_confirmed_and_consumed() {
    let rabbit = Rabbit::builder().queue("tasks").start().await.unwrap();
    let client = client(&rabbit).await;
    let queue = client.queue("tasks").declare().await.unwrap();
    for i in 0..300 {
        queue.publish(Message::new(format!("m{i}"))).await.unwrap();
    }
    assert_eq!(queue.depth().await.unwrap().messages, 300);
    let mut deliveries = queue.consume().prefetch(20).start().await.unwrap();
    for i in 0..300 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        assert_eq!(delivery.body(), format!("m{i}").as_bytes());
        delivery.ack();
    }
    soon("all acknowledged", || rabbit.queue("tasks").is_some_and(|q| q.messages + q.unsettled == 0)).await;
    client.close().await.unwrap();
    soon("connection gone", || rabbit.connections().is_empty()).await;
}

#[tokio::test]
async fn bodies_of_any_size_come_as_they_were() {
    let rabbit = Rabbit::builder().queue("q").start().await.unwrap();
    let client = client(&rabbit).await;
    let queue = client.queue("q").declare().await.unwrap();
    let mut deliveries = queue.consume().prefetch(10).start().await.unwrap();
    for size in [0, 1, 5_000, 131_064, 131_065, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|n: u32| n as u8).collect();
        queue.publish(Message::new(body.clone()).header("size", i64::from(size))).await.unwrap();
        let delivery = deliveries.next().await.unwrap().unwrap();
        assert!(delivery.body() == &body, "{size} bytes");
        assert_eq!(delivery.header("size").unwrap().as_i64(), Some(size.into()));
        delivery.ack();
    }
}

#[tokio::test]
async fn a_mandatory_message_without_a_queue_is_rejected() {
    let rabbit = Rabbit::builder().start().await.unwrap();
    let client = client(&rabbit).await;
    let publisher = client.publisher().await.unwrap().mandatory(true);
    let e = publisher.publish("", "nowhere", Message::new("hi")).await.unwrap_err();
    assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Rejected, false), "{e}");
}

#[tokio::test]
async fn a_rejected_message_goes_to_its_dead_letter_queue() {
    let rabbit = Rabbit::builder().queue("dead").start().await.unwrap();
    let client = client(&rabbit).await;
    let queue = client.queue("work").dead_letter("", "dead").declare().await.unwrap();
    queue.publish(Message::new("poison").header("kept", "yes")).await.unwrap();
    let delivery = queue.get().await.unwrap().unwrap();
    delivery.reject();
    let dead = client.queue("dead").declare().await.unwrap();
    soon("dead letter", || rabbit.queue("dead").is_some_and(|q| q.messages == 1)).await;
    let delivery = dead.get().await.unwrap().unwrap();
    assert_eq!(delivery.body(), "poison");
    assert_eq!(delivery.header("kept").unwrap().as_str(), Some("yes"));
    let deaths = delivery.header("x-death").unwrap().as_array().unwrap();
    let death = deaths[0].as_table().unwrap();
    assert_eq!(death.get("reason").unwrap().as_str(), Some("rejected"));
    assert_eq!(death.get("queue").unwrap().as_str(), Some("work"));
    delivery.ack();
}

#[tokio::test]
async fn prefetch_bounds_what_is_in_hand() {
    let rabbit = Rabbit::builder().queue("q").start().await.unwrap();
    let client = client(&rabbit).await;
    let queue = client.queue("q").declare().await.unwrap();
    for _ in 0..10 {
        queue.publish(Message::new("x")).await.unwrap();
    }
    let mut deliveries = queue.consume().prefetch(3).start().await.unwrap();
    let first = deliveries.next().await.unwrap().unwrap();
    soon("three in hand", || rabbit.queue("q").is_some_and(|q| (q.messages, q.unsettled) == (7, 3))).await;
    first.ack();
    soon("three again", || rabbit.queue("q").is_some_and(|q| (q.messages, q.unsettled) == (6, 3))).await;
    deliveries.cancel().await.unwrap();
    soon("given back", || rabbit.queue("q").is_some_and(|q| (q.messages, q.consumers) == (9, 0))).await;
}

#[tokio::test]
async fn a_consumer_learns_that_its_queue_is_gone() {
    let rabbit = Rabbit::builder().queue("q").start().await.unwrap();
    let client = client(&rabbit).await;
    let queue = client.queue("q").declare().await.unwrap();
    let mut deliveries = queue.consume().start().await.unwrap();
    queue.delete().await.unwrap();
    let e = deliveries.next().await.unwrap().unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::Closed | ErrorKind::NotFound | ErrorKind::Unavailable), "{e}");
}

#[tokio::test]
async fn durable_messages_outlive_a_restart() {
    let rabbit = Rabbit::builder().queue("q").start().await.unwrap();
    let before = client(&rabbit).await;
    let queue = before.queue("q").declare().await.unwrap();
    queue.publish(Message::new("kept")).await.unwrap();
    queue.publish(Message::new("lost").transient()).await.unwrap();
    rabbit.restart();
    assert_eq!(before.closed().await.kind(), ErrorKind::Disconnected);
    let after = client(&rabbit).await;
    let queue = after.queue("q").declare().await.unwrap();
    let delivery = queue.get().await.unwrap().unwrap();
    assert_eq!(delivery.body(), "kept");
    delivery.ack();
    assert!(queue.get().await.unwrap().is_none());
}

#[tokio::test]
async fn a_killed_broker_takes_nobody_until_it_is_started_again() {
    let rabbit = Rabbit::builder().start().await.unwrap();
    let before = client(&rabbit).await;
    rabbit.kill();
    before.closed().await;
    assert!(Client::connect(&rabbit.url()).await.is_err());
    rabbit.restart();
    client(&rabbit).await;
}

#[tokio::test]
async fn blocked_publishers_wait_and_go_on() {
    let rabbit = Rabbit::builder().queue("q").start().await.unwrap();
    let client = client(&rabbit).await;
    let queue = client.queue("q").declare().await.unwrap();
    rabbit.block("low on disk");
    let publish = tokio::spawn(async move { queue.publish(Message::new("waits")).await });
    soon("blocked", || rabbit.connections().iter().any(|c| c.blocked)).await;
    assert_eq!(rabbit.queue("q").unwrap().messages, 0);
    rabbit.unblock();
    publish.await.unwrap().unwrap();
    assert_eq!(rabbit.queue("q").unwrap().messages, 1);
}

#[tokio::test]
async fn logins_and_virtual_hosts_are_asked_for() {
    let rabbit = Rabbit::builder().vhost("other").user("a b", "p/w").start().await.unwrap();
    assert!(rabbit.url().starts_with("amqp://a%20b:p%2Fw@127.0.0.1:"), "{}", rabbit.url());
    client(&rabbit).await;
    let at = rabbit.address();
    Client::connect(&format!("amqp://guest:guest@{at}/other")).await.unwrap();
    let e = Client::connect(&format!("amqp://guest:wrong@{at}/")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
    let e = Client::connect(&format!("amqp://guest:guest@{at}/nope")).await.unwrap_err();
    assert!(matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Denied), "{e}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let rabbit = Rabbit::builder().start().await.unwrap();
    let port = rabbit.address().port();
    let e = Rabbit::builder().port(port).start().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect);
    assert!(e.to_string().contains(&format!("127.0.0.1:{port}")), "{e}");
    drop(rabbit);
    // Dropped is stopped.
    let end = Instant::now() + Duration::from_secs(10);
    while Rabbit::builder().port(port).start().await.is_err() {
        assert!(Instant::now() < end, "the port stays taken");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Numbers that look random, the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let n = self.next() % most;
        (0..n).map(|_| self.next() as u8).collect()
    }
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut out = vec![1];
    out.extend(channel.to_be_bytes());
    out.extend((arguments.len() as u32 + 4).to_be_bytes());
    out.extend(class.to_be_bytes());
    out.extend(method.to_be_bytes());
    out.extend(arguments);
    out.push(0xce);
    out
}

/// What a client sends up to an open channel.
fn handshake() -> Vec<u8> {
    let login = [&[0; 4][..], &short("PLAIN"), &[0, 0, 0, 12], b"\0guest\0guest", &short("en_US")].concat();
    [
        b"AMQP\0\0\x09\x01".to_vec(),
        method(0, 10, 11, &login),
        method(0, 10, 31, &[7, 255, 0, 2, 0, 0, 0, 0]),
        method(0, 10, 40, &[&short("/")[..], &[0, 0]].concat()),
        method(1, 20, 10, &[0]),
    ]
    .concat()
}

/// One hostile client: garbage, half a frame, a length that is too large, a message that never ends.
fn hostile(random: &mut Random) -> Vec<u8> {
    let mut out = match random.next() % 4 {
        0 => Vec::new(),
        1 => b"AMQP\0\0\x09\x01".to_vec(),
        _ => handshake(),
    };
    match random.next() % 6 {
        0 => out.extend(random.bytes(2000)),
        1 => out.extend([1, 0, 1, 255, 255, 255, 255]),
        2 => {
            let mut frame = method(1, 50, 10, &random.bytes(60));
            frame.truncate(frame.len() / 2);
            out.extend(frame);
        }
        3 => {
            // A publish of 100 MiB, of which a little comes.
            out.extend(method(1, 60, 40, &[0, 0, 0, 1, b'q', 0]));
            out.extend([2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 6, 64, 0, 0, 0, 0, 0xce]);
            out.extend([3, 0, 1, 0, 1, 0, 0]);
            out.extend(vec![7; 40_000]);
        }
        4 => {
            for _ in 0..20 {
                let (class, number) = (random.next() % 10 * 10, random.next() % 13 * 10);
                let arguments = random.bytes(40);
                out.extend(method(1, class as u16, number as u16, &arguments));
            }
        }
        _ => {
            // Headers nested some thousand deep.
            let mut value = b"t\x01".to_vec();
            for _ in 0..3000 {
                value = [&b"A"[..], &(value.len() as u32).to_be_bytes(), &value].concat();
            }
            let table = [&b"\x01n"[..], &value].concat();
            let arguments = [&(table.len() as u32).to_be_bytes()[..], &table].concat();
            out.extend(method(1, 50, 10, &[&[0, 0, 1, b'd', 0][..], &arguments].concat()));
        }
    }
    out
}

#[tokio::test]
async fn a_thousand_hostile_clients_leave_it_serving_with_memory_where_it_was() {
    let rabbit = Rabbit::builder().queue("q").start().await.unwrap();
    let mut random = Random(0x5eed);
    let mut before = 0;
    for round in 0..5 {
        let mut open = Vec::new();
        for _ in 0..250 {
            let mut stream = TcpStream::connect(rabbit.address()).await.unwrap();
            let _ = stream.write_all(&hostile(&mut random)).await;
            if random.next().is_multiple_of(2) {
                open.push(stream);
            }
        }
        // Some read what they are told, and all vanish.
        for stream in &mut open {
            let mut answer = [0; 64];
            let _ = tokio::time::timeout(Duration::from_millis(2), stream.read(&mut answer)).await;
        }
        drop(open);
        let client = client(&rabbit).await;
        let queue = client.queue("q").declare().await.unwrap();
        queue.publish(Message::new("still here")).await.unwrap();
        queue.get().await.unwrap().unwrap().ack();
        client.close().await.unwrap();
        soon("all gone", || rabbit.connections().is_empty()).await;
        if round == 0 {
            before = resident();
        }
    }
    let after = resident();
    assert!(after < before + (8 << 20), "{before} bytes, then {after}");
}

#[tokio::test]
async fn the_first_answer_is_there_at_once() {
    let begin = Instant::now();
    let rabbit = Rabbit::builder().start().await.unwrap();
    let mut stream = TcpStream::connect(rabbit.address()).await.unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    let mut start = [0; 11];
    stream.read_exact(&mut start).await.unwrap();
    let took = begin.elapsed();
    assert_eq!(start[..3], [1, 0, 0]);
    assert_eq!(start[7..], [0, 10, 0, 10]);
    // 10 ms is the aim; a busy machine gets more.
    assert!(took < Duration::from_millis(500), "{took:?}");
}
