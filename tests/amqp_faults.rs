//! The RabbitMQ client when things go wrong: strange peers, lost connections, cancelled calls, closed channels.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]
#![allow(clippy::print_stdout, reason = "counts are for the reader of the log")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks and start tasks")]

mod common;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muslin::amqp::{Client, Deliveries, Delivery, ExchangeKind, Message, Queue, Url, Value};
use muslin::{Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(15);

async fn within<T>(what: &str, f: impl Future<Output = T>) -> T {
    timeout(LONG, f).await.unwrap_or_else(|_| panic!("{what} did not end within {LONG:?}"))
}

async fn next(deliveries: &mut Deliveries) -> Delivery {
    within("the next delivery", deliveries.next()).await.unwrap().unwrap()
}

/// The test broker's URL with another address and virtual host.
fn url_at(address: &str) -> String {
    let url = common::amqp();
    let parsed = Url::parse(&url).unwrap();
    url.replace(&parsed.address(), address)
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    Frozen,
    Cut,
}

/// Stands between client and broker.
struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, seen) = watch::channel(Mode::Pass);
        let broker = Url::parse(&common::amqp()).unwrap().address();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&broker).await else { continue };
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                tokio::spawn(pump(client_in, server_out, seen.clone()));
                tokio::spawn(pump(server_in, client_out, seen.clone()));
            }
        });
        Self { address, mode }
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    fn url(&self) -> String {
        url_at(&self.address.to_string())
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = tokio::select! {
            n = from.read(&mut buffer) => n.unwrap_or(0),
            _ = mode.wait_for(|m| *m == Mode::Cut) => return,
        };
        if n == 0 || mode.wait_for(|m| *m != Mode::Frozen).await.is_err() {
            return;
        }
        if *mode.borrow() == Mode::Cut || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// Something that listens and is no broker: says `says` after `waits`, then closes or holds the connection.
async fn stranger(says: &'static [u8], hold: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut greeting = [0; 8];
                let _ = socket.read(&mut greeting).await;
                let _ = socket.write_all(says).await;
                if hold {
                    sleep(Duration::from_secs(60)).await;
                }
            });
        }
    });
    address
}

async fn refused(url: &str) -> Error {
    let begin = Instant::now();
    let connecting = Client::builder(url).connect_timeout(Duration::from_secs(5)).connect();
    let e = within("connecting", connecting).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(9), "it took {:?}", begin.elapsed());
    assert!(!e.report().contains("alice-secret"), "{}", e.report());
    e
}

#[tokio::test]
async fn a_peer_that_is_no_broker_is_told_for_what_it_is() {
    let cases: [(&[u8], bool, ErrorKind, &str); 7] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false, ErrorKind::Connect, "HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", true, ErrorKind::Connect, "HTTP"),
        (&[0x15, 3, 1, 0, 2, 2, 22], false, ErrorKind::Connect, "TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", true, ErrorKind::Connect, "SSH-2.0"),
        (b"AMQP\0\x01\0\0", false, ErrorKind::Unsupported, "0-9-1"),
        (b"", false, ErrorKind::Connect, "without an answer"),
        (b"", true, ErrorKind::Timeout, "within 5s"),
    ];
    for (says, hold, kind, words) in cases {
        let address = stranger(says, hold).await;
        let e = refused(&url_at(&address)).await;
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(words) && e.to_string().contains(&address), "{e}");
    }
}

#[tokio::test]
async fn garbage_that_looks_like_frames_ends_in_an_error() {
    let endless: &'static [u8] = Box::leak(vec![1u8; 8 << 20].into_boxed_slice());
    // A method that nobody knows, in a sound frame; then frames without sense.
    let unknown: &[u8] = &[1, 0, 0, 0, 0, 0, 4, 0, 99, 0, 99, 0xCE];
    for says in [unknown, endless] {
        let e = refused(&url_at(&stranger(says, true).await)).await;
        assert!(matches!(e.kind(), ErrorKind::Connect | ErrorKind::Malformed | ErrorKind::Timeout), "{e:?}");
    }
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_a_connect_error_that_names_it() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let e = refused(&url_at(&port.to_string())).await;
    assert_eq!(e.kind(), ErrorKind::Connect);
    assert!(e.to_string().contains(&port.to_string()) && e.to_string().contains("nothing listens"), "{e}");
    let e = refused("amqp://u:p@no-such-host.invalid/").await;
    assert_eq!(e.kind(), ErrorKind::Connect);
    assert!(e.to_string().contains("no-such-host.invalid"), "{e}");
}

#[tokio::test]
async fn bad_credentials_are_denied_and_a_missing_vhost_is_not_found() {
    let broker = Url::parse(&common::amqp()).unwrap().address();
    let e = refused(&format!("amqp://alice:wrong@{broker}/")).await;
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(e.to_string().contains("alice") && !e.report().contains("wrong"), "{}", e.report());
    let there = common::amqp();
    let e = refused(&format!("{}/nope%2Fhere", there.trim_end_matches('/'))).await;
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    assert!(e.to_string().contains("nope/here"), "{e}");
    assert_eq!(refused("amqp://h/%zz").await.kind(), ErrorKind::Config);
    assert_eq!(refused("amqps://h/").await.kind(), ErrorKind::Unsupported);
}

/// A durable queue through a connection of its own, so that it outlives the one under test.
async fn durable_queue(prefix: &str) -> (Client, Queue) {
    let client = Client::connect(&common::amqp()).await.unwrap();
    let queue = client.queue(common::unique(prefix)).declare().await.unwrap();
    (client, queue)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_while_publishing_resolves_every_future_and_loses_nothing_confirmed() {
    let (_watcher, seen) = durable_queue("cut-publish").await;
    for cut_after in [1, 300, 900] {
        let proxy = Proxy::start().await;
        let client = Client::connect(&proxy.url()).await.unwrap();
        let queue = client.queue(seen.name()).declare().await.unwrap();
        let mut waiting = HashMap::new();
        let mut unsent = 0;
        for i in 0..1000 {
            let body = format!("{cut_after}:{i}");
            match within("enqueue", queue.enqueue(Message::new(body.clone()))).await {
                Ok(queued) => {
                    waiting.insert(body, queued);
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}");
                    assert!(!e.is_ambiguous(), "{e}");
                    unsent += 1;
                }
            }
            if i == cut_after {
                proxy.set(Mode::Cut);
            }
        }
        let mut confirmed = HashSet::new();
        let mut ambiguous = 0;
        for (body, queued) in waiting {
            match within("a confirm", queued).await {
                Ok(()) => {
                    confirmed.insert(Bytes::from(body));
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}");
                    ambiguous += u32::from(e.is_ambiguous());
                }
            }
        }
        assert_eq!(within("closed", client.closed()).await.kind(), ErrorKind::Disconnected);
        assert!(!client.is_connected());
        let e = queue.depth().await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Disconnected);
        println!(
            "cut after {cut_after}: {} confirmed, {ambiguous} ambiguous, {unsent} unsent",
            confirmed.len()
        );
        while let Some(delivery) = seen.get().await.unwrap() {
            confirmed.remove(delivery.body());
            delivery.ack();
        }
        assert!(confirmed.is_empty(), "confirmed and not there: {confirmed:?}");
    }
    seen.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_while_consuming_ends_in_an_error_and_the_rest_comes_again() {
    let (_watcher, seen) = durable_queue("cut-consume").await;
    for i in 0..20 {
        seen.publish(Message::new(i.to_string())).await.unwrap();
    }
    let proxy = Proxy::start().await;
    let client = Client::connect(&proxy.url()).await.unwrap();
    let queue = client.queue(seen.name()).passive().declare().await.unwrap();
    let mut deliveries = queue.consume().prefetch(10).start().await.unwrap();
    let mut hand = Vec::new();
    for _ in 0..5 {
        hand.push(next(&mut deliveries).await);
    }
    let kept: HashSet<Bytes> = hand.iter().map(|d| d.body().clone()).collect();
    proxy.set(Mode::Cut);
    // Some were received before the cut and not taken: they are not given out any more.
    within("closed", client.closed()).await;
    let e = within("next", deliveries.next()).await.unwrap().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}");
    assert!(deliveries.next().await.is_none());
    for delivery in hand {
        delivery.ack();
    }
    let mut again = seen.consume().prefetch(20).start().await.unwrap();
    let mut redelivered = HashSet::new();
    for _ in 0..20 {
        let delivery = next(&mut again).await;
        if delivery.redelivered() {
            redelivered.insert(delivery.body().clone());
        }
        delivery.ack();
    }
    assert!(redelivered.is_superset(&kept), "{redelivered:?} lacks some of {kept:?}");
    seen.delete().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up_after_two_heartbeats() {
    let proxy = Proxy::start().await;
    let client = Client::builder(&proxy.url()).heartbeat(Duration::from_secs(2)).connect().await.unwrap();
    let queue = client.queue(common::unique("silent")).exclusive().declare().await.unwrap();
    queue.publish(Message::new("first")).await.unwrap();
    let mut deliveries = queue.consume().start().await.unwrap();
    next(&mut deliveries).await.ack();
    proxy.set(Mode::Frozen);
    let begin = Instant::now();
    let publish = queue.publish(Message::new("x"));
    let (published, delivered) = tokio::join!(within("publish", publish), within("next", deliveries.next()));
    let e = published.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected, "{e}");
    assert!(e.is_ambiguous());
    assert_eq!(delivered.unwrap().unwrap_err().kind(), ErrorKind::Disconnected);
    assert!(begin.elapsed() < Duration::from_secs(12), "it took {:?}", begin.elapsed());
}

#[tokio::test]
async fn an_answer_that_does_not_come_fails_the_call_and_gives_the_connection_up() {
    let proxy = Proxy::start().await;
    let client =
        Client::builder(&proxy.url()).operation_timeout(Duration::from_secs(1)).connect().await.unwrap();
    let queue = client.queue(common::unique("frozen")).exclusive().declare().await.unwrap();
    proxy.set(Mode::Frozen);
    let begin = Instant::now();
    let e = queue.depth().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout);
    assert!(e.is_ambiguous());
    assert!(e.to_string().contains(queue.name()) && e.to_string().contains("1s"), "{e}");
    assert!(begin.elapsed() < Duration::from_secs(6));
    assert_eq!(within("closed", client.closed()).await.kind(), ErrorKind::Timeout);
    assert!(queue.publish(Message::new("x")).await.is_err());
}

#[tokio::test]
async fn a_confirm_that_does_not_come_fails_its_publish_alone() {
    let proxy = Proxy::start().await;
    let client = Client::builder(&proxy.url())
        .operation_timeout(Duration::from_secs(1))
        .publish_window(1, 1 << 20)
        .connect()
        .await
        .unwrap();
    let queue = client.queue(common::unique("late")).exclusive().declare().await.unwrap();
    queue.publish(Message::new("sound")).await.unwrap();
    proxy.set(Mode::Frozen);
    let first = queue.enqueue(Message::new("late")).await.unwrap();
    // The window has room for one only.
    let e = within("the second", queue.enqueue(Message::new("waits"))).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Full, "{e}");
    assert!(!e.is_ambiguous());
    let e = within("the first", first).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout, "{e}");
    assert!(e.is_ambiguous());
    assert!(client.is_connected());
    // It comes after all, makes room, and the publisher goes on.
    proxy.set(Mode::Pass);
    within("the third", queue.publish(Message::new("on"))).await.unwrap();
    assert_eq!(queue.depth().await.unwrap().messages, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_of_every_sort_leave_the_client_sound() {
    let client = Client::connect(&common::amqp()).await.unwrap();
    let queue = client.queue(common::unique("cancelled")).exclusive().declare().await.unwrap();
    for i in 0..10 {
        queue.publish(Message::new(i.to_string())).await.unwrap();
    }
    let mut tasks = Vec::new();
    for i in 0..120u64 {
        let (client, queue) = (client.clone(), queue.clone());
        tasks.push(tokio::spawn(async move {
            let limit = Duration::from_micros(i * 37 % 3000);
            match i % 6 {
                0 => drop(timeout(limit, client.publisher()).await),
                1 => drop(timeout(limit, client.queue(queue.name()).exclusive().declare()).await),
                2 => drop(timeout(limit, queue.get()).await),
                3 => drop(timeout(limit, queue.consume().start()).await),
                4 => drop(timeout(limit, queue.depth()).await),
                _ => drop(timeout(limit, client.bind(queue.name(), "amq.topic", "k")).await),
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(client.is_connected());
    // Whatever was half-way taken has been given back.
    let mut deliveries = queue.consume().prefetch(10).start().await.unwrap();
    let mut bodies = HashSet::new();
    for _ in 0..10 {
        let delivery = next(&mut deliveries).await;
        bodies.insert(delivery.body().clone());
        delivery.ack();
    }
    assert_eq!(bodies.len(), 10);
    within("close", client.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_declares_take_their_turns() {
    let client = Client::connect(&common::amqp()).await.unwrap();
    let mut tasks = Vec::new();
    for i in 0..64 {
        let client = client.clone();
        let name = common::unique("turn");
        tasks.push(tokio::spawn(async move {
            // Half of them fail and take the channel down.
            if i % 2 == 0 {
                client.queue(&name).exclusive().declare().await.map(|q| assert_eq!(q.name(), name))
            } else {
                let e = client.queue(&name).passive().declare().await.unwrap_err();
                assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
                assert!(e.to_string().contains(&name), "another's error: {e}");
                Ok(())
            }
        }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_connection_whose_channels_are_used_up_says_so() {
    let client = Client::connect(&common::amqp()).await.unwrap();
    let missing = common::unique("missing");
    let begin = Instant::now();
    let mut failures = 0;
    let e = loop {
        let e = client.queue(&missing).passive().declare().await.unwrap_err();
        if e.kind() != ErrorKind::NotFound {
            break e;
        }
        failures += 1;
        assert!(failures < 70_000);
    };
    println!("{failures} channels closed by the broker in {:?}", begin.elapsed());
    assert!(failures > 1000);
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
    assert!(e.to_string().contains("connect again"), "{e}");
    assert!(client.is_connected());
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_close_lets_what_is_on_its_way_arrive() {
    let (_watcher, seen) = durable_queue("close").await;
    for i in 0..50 {
        seen.publish(Message::new(i.to_string())).await.unwrap();
    }
    let client = Client::connect(&common::amqp()).await.unwrap();
    let queue = client.queue(seen.name()).declare().await.unwrap();
    let mut deliveries = queue.consume().start().await.unwrap();
    for _ in 0..50 {
        next(&mut deliveries).await.ack();
    }
    let mut waiting = Vec::new();
    for i in 0..500 {
        waiting.push(queue.enqueue(Message::new(i.to_string())).await.unwrap());
    }
    // The consumer receives some of them; what nobody took goes back.
    let waiter = tokio::spawn({
        let idle = client.queue(common::unique("idle")).exclusive().declare().await.unwrap();
        let mut deliveries = idle.consume().start().await.unwrap();
        async move { deliveries.next().await }
    });
    client.close().await.unwrap();
    let end = within("a consumer that waits", waiter).await.unwrap().unwrap().unwrap_err();
    assert_eq!(end.kind(), ErrorKind::Closed, "{end}");
    for queued in waiting {
        within("a confirm", queued).await.unwrap();
    }
    assert_eq!(seen.depth().await.unwrap().messages, 500);
    let end = loop {
        match within("next", deliveries.next()).await {
            Some(Ok(_)) => {}
            Some(Err(e)) => break e,
            None => panic!("silence"),
        }
    };
    assert_eq!(end.kind(), ErrorKind::Closed, "{end}");
    assert_eq!(client.closed().await.kind(), ErrorKind::Closed);
    for e in [
        queue.publish(Message::new("x")).await.unwrap_err(),
        queue.depth().await.unwrap_err(),
        queue.get().await.unwrap_err(),
        client.publisher().await.unwrap_err(),
    ] {
        assert_eq!(e.kind(), ErrorKind::Closed, "{e}");
    }
    client.close().await.unwrap();
    seen.delete().await.unwrap();
}

#[tokio::test]
async fn no_task_is_left_behind_by_closed_dropped_or_lost_connections() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for round in 0..6 {
        let proxy = Proxy::start().await;
        let with_proxy = tasks();
        let client = Client::connect(&proxy.url()).await.unwrap();
        let queue = client.queue(common::unique("leak")).exclusive().declare().await.unwrap();
        let publisher = client.publisher().await.unwrap();
        publisher.publish("", queue.name(), Message::new("x")).await.unwrap();
        queue.publish(Message::new("y")).await.unwrap();
        let got = queue.get().await.unwrap().unwrap();
        let mut deliveries = queue.consume().start().await.unwrap();
        let delivery = next(&mut deliveries).await;
        let _ = client.queue(common::unique("none")).passive().declare().await.unwrap_err();
        assert!(tasks() > with_proxy);
        match round % 3 {
            0 => client.close().await.unwrap(),
            1 => proxy.set(Mode::Cut),
            _ => {}
        }
        drop((client, queue, publisher, got, deliveries, delivery));
        // The proxy's three tasks go with its sockets, but for the listener.
        let end = Instant::now() + LONG;
        while tasks() > with_proxy {
            assert!(Instant::now() < end, "{} tasks are left of round {round}", tasks() - with_proxy);
            sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(tasks() <= before + 6, "only the proxies' listeners may be left");
}

/// Just enough of AMQP to publish what no decent client would.
struct Rude(TcpStream);

impl Rude {
    async fn connect() -> Self {
        let url = common::amqp();
        let login = url.split_once("://").unwrap().1.split_once('@').unwrap().0.replace(':', "\0");
        let mut this = Self(TcpStream::connect(Url::parse(&url).unwrap().address()).await.unwrap());
        this.0.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        this.expect(10, 10).await;
        let mut start_ok = vec![0, 10, 0, 11, 0, 0, 0, 0, 5];
        start_ok.extend_from_slice(b"PLAIN");
        start_ok.extend_from_slice(&(login.len() as u32 + 1).to_be_bytes());
        start_ok.push(0);
        start_ok.extend_from_slice(login.as_bytes());
        start_ok.extend_from_slice(b"\x05en_US");
        this.frame(1, 0, &start_ok).await;
        this.expect(10, 30).await;
        this.frame(1, 0, &[0, 10, 0, 31, 0, 10, 0, 2, 0, 0, 0, 0]).await;
        this.frame(1, 0, b"\0\x0a\0\x28\x01/\0\0").await;
        this.expect(10, 41).await;
        this.frame(1, 1, &[0, 20, 0, 10, 0]).await;
        this.expect(20, 11).await;
        this
    }

    async fn frame(&mut self, kind: u8, channel: u8, payload: &[u8]) {
        let mut out = vec![kind, 0, channel];
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
        out.push(0xCE);
        self.0.write_all(&out).await.unwrap();
    }

    async fn expect(&mut self, class: u8, method: u8) {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes(head[3..].try_into().unwrap()) as usize;
        let mut payload = vec![0; size + 1];
        self.0.read_exact(&mut payload).await.unwrap();
        assert_eq!(payload[..4], [0, class, 0, method], "{}", String::from_utf8_lossy(&payload));
    }

    async fn publish(&mut self, exchange: &str, key: &[u8], headers: &[u8], body: &[u8]) {
        let mut publish = vec![0, 60, 0, 40, 0, 0, exchange.len() as u8];
        publish.extend_from_slice(exchange.as_bytes());
        publish.push(key.len() as u8);
        publish.extend_from_slice(key);
        publish.push(0);
        self.frame(1, 1, &publish).await;
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&(body.len() as u64).to_be_bytes());
        header.extend_from_slice(&[0x20, 0]);
        header.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        header.extend_from_slice(headers);
        self.frame(2, 1, &header).await;
        self.frame(3, 1, body).await;
    }

    /// Waits until the broker has taken all of it.
    async fn close(mut self) {
        self.frame(1, 1, &[0, 20, 0, 40, 0, 200, 0, 0, 0, 0, 0]).await;
        self.expect(20, 41).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_messages_are_delivered_without_harm() {
    let client = Client::connect(&common::amqp()).await.unwrap();
    let exchange = common::unique("hostile");
    client.exchange(&exchange, ExchangeKind::Fanout).auto_delete().declare().await.unwrap();
    let queue = client.queue(common::unique("hostile")).exclusive().declare().await.unwrap();
    client.bind(queue.name(), &exchange, "").await.unwrap();

    // Lists in lists, as deep as a frame allows: a decoder that recurses runs out of stack.
    let mut deep = b"t\x01".to_vec();
    for _ in 0..25_000 {
        let mut outer = Vec::with_capacity(5 + deep.len());
        outer.push(b'A');
        outer.extend_from_slice(&(deep.len() as u32).to_be_bytes());
        outer.extend_from_slice(&deep);
        deep = outer;
    }
    deep.splice(0..0, *b"\x01d");
    let mut rude = Rude::connect().await;
    rude.publish(&exchange, b"k", &deep, b"deep").await;
    rude.publish(&exchange, b"k", b"\x01tS\0\0\0\x02\xff\xfe", b"text").await;
    rude.publish(&exchange, b"\xffkey", b"\x02\xe9nt\x01", b"names").await;
    rude.close().await;

    let mut deliveries = queue.consume().start().await.unwrap();
    let got = next(&mut deliveries).await;
    assert_eq!(got.body(), "deep");
    assert!(got.headers().is_empty());
    got.ack();
    let got = next(&mut deliveries).await;
    assert_eq!(got.body(), "text");
    assert_eq!(got.header("t"), Some(&Value::Bytes(Bytes::from_static(b"\xff\xfe"))));
    // Given back and got: the other way by which messages come.
    got.nack(true);
    deliveries.cancel().await.unwrap();
    let mut bodies = HashSet::new();
    for _ in 0..2 {
        let got = within("get", queue.get()).await.unwrap().unwrap();
        if got.body() == "names" {
            assert_eq!(got.routing_key(), "?key");
            assert_eq!(got.header("?n"), Some(&Value::Bool(true)));
        }
        bodies.insert(got.body().clone());
        got.ack();
    }
    assert_eq!(bodies, HashSet::from(["text".into(), "names".into()]));
    assert!(client.is_connected());
}
