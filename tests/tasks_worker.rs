//! Workers against a real broker: what becomes of messages that are no proper tasks, and of a lost connection.
#![cfg(feature = "amqp")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(clippy::disallowed_methods, reason = "tests sleep and spawn")]

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::unique;
use muslin::ErrorKind;
use muslin::amqp::{Client, Delivery, Message};
use muslin::idempotency::MemoryStore;
use muslin::processor::{HandlerError, RetryPolicy};
use muslin::tasks::{Enqueue, Policy, Queue, RawTask, Reconnect, Task, Worker, run_reconnecting};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast};

type Handled = Result<(), HandlerError>;

#[derive(Debug, Deserialize)]
struct Email {
    to: String,
}

async fn until(done: impl Fn() -> bool) {
    for _ in 0..1200 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not done within 60 s");
}

fn header<'d>(delivery: &'d Delivery, name: &str) -> &'d str {
    delivery.header(name).and_then(|v| v.as_str()).unwrap_or_default()
}

#[tokio::test]
async fn bad_messages_become_dead_letters_untouched_with_their_reasons_and_block_nothing() {
    let rabbit = Client::connect(&common::amqp()).await.unwrap();
    let queue = Queue::declare(&rabbit, unique("emails")).await.unwrap();
    let dead = unique("emails.dead");
    let put = |body: &str| {
        let message = Message::new(body.to_owned()).message_id(unique("m")).header("own", 7i32).priority(3);
        let queue = queue.inner().clone();
        async move { queue.publish(message).await.unwrap() }
    };
    put(r#"{"type":"email.send","data":{"to":"a"}}"#).await;
    put(r#"{"type":"email.burn","data":{}}"#).await;
    put("no json").await;
    put(r#"{"data":{}}"#).await;
    put(r#"{"type":"email.send","data":{"to":5}}"#).await;
    put(r#"{"type":"email.send","data":{"to":"fails"}}"#).await;
    put(r#"{"type":"email.send","data":{"to":"b"}}"#).await;

    let sent: Arc<Mutex<Vec<String>>> = Arc::default();
    let to = sent.clone();
    let worker = Worker::new(queue.clone())
        .on("email.send", move |task: Task<Email>| {
            let to = to.clone();
            async move {
                if task.data.to == "fails" {
                    Err(std::io::Error::other("mailbox full"))?;
                }
                to.lock().unwrap().push(task.data.to);
                Ok::<(), HandlerError>(())
            }
        })
        .retry(RetryPolicy::builder().initial(Duration::from_millis(5)).attempts(3).build().unwrap())
        .dead_letter(&dead);
    let watch = worker.watch();
    let summary = worker.run(until(move || watch.summary().settled() == 7)).await.unwrap();
    assert_eq!((summary.handled, summary.dead_lettered, summary.retried), (2, 5, 2));
    assert_eq!(*sent.lock().unwrap(), ["a", "b"]);

    let letters = rabbit.queue(&dead).declare().await.unwrap();
    let mut got = BTreeSet::new();
    while let Some(letter) = letters.get().await.unwrap() {
        assert_eq!(header(&letter, "muslin-dlq-original-queue"), queue.name());
        assert_eq!(letter.header("own").and_then(|v| v.as_i64()), Some(7));
        assert_eq!(letter.properties().priority, Some(3));
        assert!(letter.properties().message_id.as_deref().unwrap().starts_with("m-"));
        let body = String::from_utf8(letter.body().to_vec()).unwrap();
        got.insert((
            body,
            header(&letter, "muslin-dlq-reason").to_owned(),
            header(&letter, "muslin-dlq-attempts").to_owned(),
        ));
        letter.ack();
    }
    let expected = [
        ("no json", "not_json", "0"),
        (r#"{"data":{}}"#, "bad_field", "0"),
        (r#"{"type":"email.burn","data":{}}"#, "unknown_type", "0"),
        (r#"{"type":"email.send","data":{"to":"fails"}}"#, "retries_exhausted", "3"),
        (r#"{"type":"email.send","data":{"to":5}}"#, "bad_field", "1"),
    ];
    assert_eq!(got, expected.map(|(b, r, n)| (b.to_owned(), r.to_owned(), n.to_owned())).into());
    letters.delete().await.unwrap();
    queue.inner().delete().await.unwrap();
}

#[tokio::test]
async fn a_policy_skips_and_one_that_stops_leaves_the_message_in_its_queue() {
    let rabbit = Client::connect(&common::amqp()).await.unwrap();
    let queue = Queue::declare(&rabbit, unique("tasks")).await.unwrap();
    queue.enqueue("unknown", &1).await.unwrap();
    queue.inner().publish(Message::new("no json")).await.unwrap();
    let worker = Worker::new(queue.clone())
        .on_raw("known", async |_: RawTask| -> Handled { Ok(()) })
        .unknown_type(Policy::Skip)
        .not_json(Policy::Stop);
    let e = worker.run(std::future::pending()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Handler);
    assert!(e.to_string().contains(queue.name()) && e.to_string().contains("not JSON"), "{e}");
    let left = queue.inner().get().await.unwrap().unwrap();
    assert_eq!((&left.body()[..], left.redelivered()), (&b"no json"[..], true));
    left.ack();
    queue.inner().delete().await.unwrap();
}

#[tokio::test]
async fn tasks_without_an_id_are_worked_each_time_and_those_with_one_once() {
    let rabbit = Client::connect(&common::amqp()).await.unwrap();
    let queue = Queue::declare(&rabbit, unique("tasks")).await.unwrap();
    for _ in 0..3 {
        // The client names every message; an empty name is one that says nothing.
        let bare = Message::new(r#"{"type":"t","data":1}"#).message_id("");
        queue.inner().publish(bare).await.unwrap();
        queue.send(Enqueue::new("t", &1).unwrap().id("same").unwrap()).await.unwrap();
    }
    let worker = Worker::new(queue.clone())
        .on_any(async |_: RawTask| -> Handled { Ok(()) })
        .once(Arc::new(MemoryStore::new()));
    let watch = worker.watch();
    let summary = worker.run(until(move || watch.summary().settled() == 6)).await.unwrap();
    assert_eq!((summary.handled, summary.duplicates), (4, 2));
    queue.inner().delete().await.unwrap();
}

#[tokio::test]
async fn while_a_worker_drains_what_it_gave_back_is_there_for_others() {
    let rabbit = Client::connect(&common::amqp()).await.unwrap();
    let queue = Queue::declare(&rabbit, unique("tasks")).await.unwrap();
    for n in 0..10 {
        queue.enqueue("t", &n).await.unwrap();
    }
    let (started, stop, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (s, g) = (started.clone(), go_on.clone());
    let worker = Worker::new(queue.clone()).concurrency(1).prefetch(10).on_any(move |_: RawTask| {
        let (started, go_on) = (s.clone(), g.clone());
        async move {
            started.notify_one();
            go_on.notified().await;
            Ok::<(), HandlerError>(())
        }
    });
    let stopped = stop.clone();
    let run = tokio::spawn(worker.run(async move { stopped.notified().await }));
    started.notified().await;
    stop.notify_one();
    // The first task still runs, and the other nine are back.
    let depth = queue.inner().clone();
    let mut waiting = 0;
    for _ in 0..200 {
        waiting = depth.depth().await.unwrap().messages;
        if waiting == 9 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(waiting, 9);
    go_on.notify_one();
    let summary = run.await.unwrap().unwrap();
    // Those that were still under way to the worker go back unseen and count nowhere.
    assert_eq!(summary.handled, 1);
    assert_eq!(depth.depth().await.unwrap().messages, 9);
    queue.inner().delete().await.unwrap();
}

#[tokio::test]
async fn a_worker_without_handlers_or_with_a_prefetch_that_is_too_small_says_so() {
    let rabbit = Client::connect(&common::amqp()).await.unwrap();
    let queue = Queue::declare(&rabbit, unique("tasks")).await.unwrap();
    let e = Worker::new(queue.clone()).run(std::future::pending()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    let worker = Worker::new(queue.clone())
        .on_any(async |_: RawTask| -> Handled { Ok(()) })
        .concurrency(10)
        .prefetch(5);
    let e = worker.run(std::future::pending()).await.unwrap_err();
    assert!(e.to_string().contains("prefetch is 5"), "{e}");
    queue.inner().delete().await.unwrap();
}

/// Passes bytes on to the broker; a word on `cut` breaks all connections.
async fn proxy(to: String) -> (u16, broadcast::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, _) = broadcast::channel(1);
    let cuts = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let (to, mut cut) = (to.clone(), cuts.subscribe());
            tokio::spawn(async move {
                let Ok(mut there) = TcpStream::connect(to).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                    _ = cut.recv() => {}
                }
            });
        }
    });
    (port, cut)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_goes_on_after_lost_connections_and_works_every_task_once() {
    const TASKS: u64 = 300;
    let rabbit = Client::connect(&common::amqp()).await.unwrap();
    let queue = Queue::declare(&rabbit, unique("tasks")).await.unwrap();
    for n in 0..TASKS {
        queue.send(Enqueue::new("count", &n).unwrap().id(format!("t{n}")).unwrap()).await.unwrap();
    }
    let url = common::amqp();
    let address = url.rsplit('@').next().unwrap().split('/').next().unwrap().to_owned();
    let (port, cut) = proxy(address.clone()).await;
    let url = url.replace(&address, &format!("127.0.0.1:{port}"));

    let effects: Arc<Mutex<Vec<u64>>> = Arc::default();
    let connections = Arc::new(AtomicU64::new(0));
    let done = Arc::new(Notify::new());
    let store = Arc::new(MemoryStore::new());
    let (book, told, name, made) =
        (effects.clone(), done.clone(), queue.name().to_owned(), connections.clone());
    let build = move |client: Client| {
        let (book, told, name, store) = (book.clone(), told.clone(), name.clone(), store.clone());
        made.fetch_add(1, Ordering::SeqCst);
        async move {
            let worker = Worker::new(Queue::declare(&client, name).await?)
                .concurrency(4)
                .once(store)
                .drain(Duration::from_secs(5));
            Ok(worker.on("count", move |task: Task<u64>| {
                let (book, told) = (book.clone(), told.clone());
                async move {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    let mut book = book.lock().unwrap();
                    book.push(task.data);
                    if book.len() as u64 == TASKS {
                        told.notify_one();
                    }
                    Ok::<(), HandlerError>(())
                }
            }))
        }
    };
    let cutter = effects.clone();
    tokio::spawn(async move {
        for at in [50, 150] {
            while cutter.lock().unwrap().len() < at {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cut.send(()).unwrap();
        }
    });
    let connect = || Client::connect(&url);
    // After the last effect the duplicates of the cut are still to be acknowledged.
    let depth = queue.inner().clone();
    let stop = async move {
        done.notified().await;
        while depth.depth().await.unwrap().messages > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let run = run_reconnecting(Reconnect::default(), connect, build, stop);
    let summary = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 3);
    let mut numbers = effects.lock().unwrap().clone();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..TASKS).collect::<Vec<_>>(), "each effect once");
    assert_eq!(summary.handled, TASKS);
    assert_eq!(queue.inner().depth().await.unwrap().messages, 0);
    queue.inner().delete().await.unwrap();
}

#[tokio::test]
async fn a_wrong_address_is_told_at_once_and_not_tried_for_ever() {
    let build = async |client: Client| Ok(Worker::new(Queue::declare(&client, "x").await?));
    let connect = async || Client::connect("amqp://127.0.0.1:1/").await;
    let e = run_reconnecting(Reconnect::default(), connect, build, std::future::pending()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect);
}
