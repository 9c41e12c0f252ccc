//! The engine over a source in memory, in paused time.
#![allow(clippy::disallowed_methods, reason = "tests sleep and read the paused clock")]

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use super::*;
use crate::idempotency::{self, Claim, Counts, Fingerprint, Lease, MemoryStore, State, Store};
use crate::{Error, ErrorKind, Result, Timestamp};

type Handled = Result<(), HandlerError>;
/// A dead letter: its value and why it died.
type Letter = (Option<Bytes>, Obituary);

/// Dead letters in memory; away while `away` is above 0, which counts down.
#[derive(Clone, Default)]
struct Letters {
    got: Arc<Mutex<Vec<Letter>>>,
    away: Arc<AtomicUsize>,
    refuse: bool,
}

impl DeadLetters<MemoryDelivery> for Letters {
    fn publish(&self, delivery: &MemoryDelivery, obituary: &Obituary) -> BoxFuture<Result<()>> {
        if self.refuse {
            return Box::pin(async { Err(Error::new(ErrorKind::NotFound, "no such topic")) });
        }
        if self.away.load(Ordering::SeqCst) > 0 {
            self.away.fetch_sub(1, Ordering::SeqCst);
            return Box::pin(async { Err(Error::new(ErrorKind::Disconnected, "away")) });
        }
        self.got.lock().unwrap().push((delivery.message().value().cloned(), obituary.clone()));
        Box::pin(async { Ok(()) })
    }

    fn name(&self) -> String {
        "the letters".into()
    }
}

fn quick() -> RetryPolicy {
    RetryPolicy::builder().initial(Duration::from_millis(50)).attempts(3).build().unwrap()
}

fn text(message: &Message) -> String {
    String::from_utf8(message.value().unwrap().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_key_keeps_its_order_at_concurrency_64() {
    let (source, ledger) = MemorySource::new();
    for i in 0..2000 {
        ledger.push(Some(&format!("k{}", i % 37)), &i.to_string(), None);
    }
    ledger.end();
    let seen: Arc<Mutex<HashMap<Bytes, Vec<u64>>>> = Arc::default();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (s, n, m) = (seen.clone(), now.clone(), most.clone());
    let handler = move |message: Message| {
        let (seen, now, most) = (s.clone(), n.clone(), m.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let number: u64 = text(&message).parse().unwrap();
            sleep(Duration::from_millis(number * 7 % 13)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            // Some fail at first: the retry must not let the next one of its key pass.
            if number.is_multiple_of(11) && message.attempt() == 1 {
                return Err(HandlerError::retry("not yet"));
            }
            seen.lock().unwrap().entry(message.key().unwrap().clone()).or_default().push(number);
            Ok(())
        }
    };
    let summary =
        Processor::new(source).concurrency(64).retry(quick()).run(handler, pending()).await.unwrap();
    assert_eq!((summary.handled, summary.retried), (2000, 182));
    assert!((30..=64).contains(&most.load(Ordering::SeqCst)), "{most:?} at once");
    for (key, numbers) in seen.lock().unwrap().iter() {
        assert!(numbers.is_sorted(), "{key:?}: {numbers:?}");
    }
    assert_eq!(ledger.acked().len(), 2000);
}

#[tokio::test(start_paused = true)]
async fn by_partition_all_run_in_order_and_unordered_ones_do_not_wait() {
    for (order, took) in [(Order::ByPartition, 100), (Order::Unordered, 10)] {
        let (source, ledger) = MemorySource::new();
        for _ in 0..10 {
            ledger.push(Some("same"), "x", None);
        }
        ledger.end();
        let began = Instant::now();
        let handler = async |_: Message| -> Handled {
            sleep(Duration::from_millis(10)).await;
            Ok(())
        };
        Processor::new(source).order(order).run(handler, pending()).await.unwrap();
        assert_eq!(began.elapsed().as_millis(), took, "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn poison_goes_to_the_dead_letters_with_its_reasons_and_does_not_block() {
    let (source, ledger) = MemorySource::new();
    for i in 0..20 {
        ledger.push(Some("k"), &i.to_string(), None);
    }
    ledger.end();
    let letters = Letters::default();
    let handler = async |message: Message| -> Handled {
        match text(&message).as_str() {
            "3" => Err(HandlerError::reject("never")),
            "5" => Err(std::io::Error::other("disk on fire"))?,
            "7" => Err(HandlerError::ignore("who cares")),
            "9" => panic!("at the {}", "disco"),
            _ => Ok(()),
        }
    };
    let summary = Processor::new(source)
        .retry(quick())
        .dead_letter(letters.clone())
        .run(handler, pending())
        .await
        .unwrap();
    assert_eq!((summary.handled, summary.dead_lettered, summary.skipped), (16, 3, 1));
    assert_eq!(ledger.acked(), (0..20).collect::<Vec<_>>());
    let got = letters.got.lock().unwrap();
    let facts: Vec<_> = got
        .iter()
        .map(|(value, o)| {
            (value.clone().unwrap(), o.reason, o.error_class, o.error_message.as_str(), o.attempts)
        })
        .collect();
    assert_eq!(
        facts,
        [
            ("3".into(), Reason::NotRetryable, "handler", "never", 1),
            ("5".into(), Reason::RetriesExhausted, "handler", "disk on fire", 3),
            ("9".into(), Reason::RetriesExhausted, "panic", "the handler panicked: at the disco", 3),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_over_its_time_is_ended_and_tried_again() {
    let (source, ledger) = MemorySource::new();
    ledger.push(None, "slow", None);
    ledger.push(None, "slow once", None);
    ledger.end();
    let letters = Letters::default();
    let handler = async |message: Message| -> Handled {
        if text(&message) == "slow" || message.attempt() == 1 {
            sleep(Duration::from_secs(3600)).await;
        }
        Ok(())
    };
    let began = Instant::now();
    let summary = Processor::new(source)
        .retry(quick())
        .timeout(Duration::from_secs(2))
        .dead_letter(letters.clone())
        .run(handler, pending())
        .await
        .unwrap();
    assert_eq!((summary.handled, summary.dead_lettered), (1, 1));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let got = letters.got.lock().unwrap();
    assert_eq!((got[0].1.reason, got[0].1.error_class, got[0].1.attempts), (Reason::TimedOut, "timeout", 3));
}

#[tokio::test(start_paused = true)]
async fn without_dead_letters_the_run_stops_and_names_the_message() {
    let (source, ledger) = MemorySource::new();
    for value in ["fine", "bad", "never seen"] {
        ledger.push(Some("k"), value, None);
    }
    let handler = async |message: Message| -> Handled {
        if text(&message) == "bad" { Err(HandlerError::reject("no such order")) } else { Ok(()) }
    };
    let processor = Processor::new(source);
    let watch = processor.watch();
    let e = processor.run(handler, pending()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Handler);
    assert!(e.to_string().starts_with("item 1: no such order"), "{e}");
    assert_eq!(ledger.acked(), [0]);
    let summary = watch.summary();
    assert_eq!((summary.handled, summary.failed, summary.given_back), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn by_the_skip_policy_a_hopeless_message_is_acknowledged_and_the_next_one_runs() {
    let (source, ledger) = MemorySource::new();
    ledger.push(Some("k"), "bad", None);
    ledger.push(Some("k"), "fine", None);
    ledger.end();
    let handler = async |message: Message| -> Handled {
        if text(&message) == "bad" { Err(HandlerError::retry("no")) } else { Ok(()) }
    };
    let summary = Processor::new(source)
        .retry(quick())
        .without_dead_letter(WithoutDeadLetter::Skip)
        .run(handler, pending())
        .await
        .unwrap();
    assert_eq!((summary.handled, summary.skipped, summary.retried), (1, 1, 2));
    assert_eq!(ledger.acked(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_skipped_and_gets_the_recorded_outcome() {
    let (source, ledger) = MemorySource::new();
    // Twice in hand at once, and once more later.
    ledger.push(None, "pay", Some("id-1"));
    ledger.push(None, "pay", Some("id-1"));
    ledger.push(None, "other", Some("id-2"));
    let runs = Arc::new(AtomicUsize::new(0));
    let outcomes: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let (r, o, l) = (runs.clone(), outcomes.clone(), ledger.clone());
    let handler = move |message: Message| {
        let (runs, ledger) = (r.clone(), l.clone());
        async move {
            sleep(Duration::from_millis(500)).await;
            if runs.fetch_add(1, Ordering::SeqCst) == 1 {
                ledger.push(None, "pay", Some("id-1"));
                ledger.end();
            }
            Ok::<_, HandlerError>(format!("receipt of {}", text(&message)))
        }
    };
    let summary = Processor::new(source)
        .once(Arc::new(MemoryStore::new()))
        .on_duplicate(move |_, outcome| o.lock().unwrap().push(outcome.clone()))
        .run(handler, pending())
        .await
        .unwrap();
    assert_eq!((summary.handled, summary.duplicates), (2, 2));
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(*outcomes.lock().unwrap(), ["receipt of pay", "receipt of pay"]);
    assert_eq!(ledger.acked().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn one_id_with_two_bodies_is_a_dead_letter_that_says_so() {
    let (source, ledger) = MemorySource::new();
    ledger.push(Some("k"), "pay 5", Some("id-1"));
    ledger.push(Some("k"), "pay 6", Some("id-1"));
    ledger.end();
    let letters = Letters::default();
    let summary = Processor::new(source)
        .once(Arc::new(MemoryStore::new()))
        .dead_letter(letters.clone())
        .run(async |_: Message| -> Handled { Ok(()) }, pending())
        .await
        .unwrap();
    assert_eq!((summary.handled, summary.dead_lettered), (1, 1));
    let got = letters.got.lock().unwrap();
    assert_eq!((got[0].1.reason, got[0].1.attempts), (Reason::PayloadMismatch, 0));
}

/// A store that can be taken away.
#[derive(Debug, Default)]
struct Flaky {
    inner: MemoryStore,
    away: std::sync::atomic::AtomicBool,
    asked: AtomicUsize,
}

impl Flaky {
    fn answers(&self) -> Result<()> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Storage, "the disk is gone"));
        }
        Ok(())
    }
}

impl Store for Flaky {
    fn claim<'a>(
        &'a self,
        key: &'a str,
        print: Fingerprint,
        lease: Duration,
        now: Timestamp,
    ) -> idempotency::BoxFuture<'a, Result<Claim>> {
        Box::pin(async move {
            self.answers()?;
            self.inner.claim(key, print, lease, now).await
        })
    }
    fn complete<'a>(
        &'a self,
        lease: &'a Lease,
        out: Bytes,
        now: Timestamp,
    ) -> idempotency::BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.answers()?;
            self.inner.complete(lease, out, now).await
        })
    }
    fn release<'a>(&'a self, lease: &'a Lease) -> idempotency::BoxFuture<'a, Result<()>> {
        self.inner.release(lease)
    }
    fn extend<'a>(
        &'a self,
        lease: &'a Lease,
        by: Duration,
        now: Timestamp,
    ) -> idempotency::BoxFuture<'a, Result<Lease>> {
        self.inner.extend(lease, by, now)
    }
    fn get<'a>(&'a self, key: &'a str) -> idempotency::BoxFuture<'a, Result<Option<State>>> {
        self.inner.get(key)
    }
    fn purge<'a>(&'a self, before: Timestamp) -> idempotency::BoxFuture<'a, Result<u64>> {
        self.inner.purge(before)
    }
    fn counts(&self) -> idempotency::BoxFuture<'_, Result<Counts>> {
        self.inner.counts()
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_stops_the_intake_and_lets_nothing_through() {
    let (source, ledger) = MemorySource::new();
    for i in 0..500 {
        ledger.push(None, "x", Some(&i.to_string()));
    }
    ledger.end();
    let store = Arc::new(Flaky::default());
    store.away.store(true, Ordering::SeqCst);
    let runs = Arc::new(AtomicUsize::new(0));
    let r = runs.clone();
    let processor = Processor::new(source).concurrency(4).once(store.clone());
    let watch = processor.watch();
    let handler = move |_: Message| {
        let runs = r.clone();
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            Ok::<(), HandlerError>(())
        }
    };
    let run = tokio::spawn(processor.run(handler, pending()));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert!(watch.progress().store_away);
    assert!(ledger.taken() <= 5, "{} taken", ledger.taken());
    assert!(store.asked.load(Ordering::SeqCst) < 40, "it is probed, not hammered: {:?}", store.asked);
    store.away.store(false, Ordering::SeqCst);
    let summary = run.await.unwrap().unwrap();
    assert_eq!((summary.handled, runs.load(Ordering::SeqCst)), (500, 500));
}

#[tokio::test(start_paused = true)]
async fn an_effect_whose_key_cannot_be_completed_is_not_acknowledged_until_it_can() {
    let (source, ledger) = MemorySource::new();
    ledger.push(None, "x", Some("id"));
    ledger.end();
    let store = Arc::new(Flaky::default());
    let s = store.clone();
    let handler = move |_: Message| {
        let store = s.clone();
        async move {
            store.away.store(true, Ordering::SeqCst);
            Ok::<(), HandlerError>(())
        }
    };
    let run = tokio::spawn(Processor::new(source).once(store.clone()).run(handler, pending()));
    sleep(Duration::from_secs(20)).await;
    assert!(ledger.acked().is_empty());
    store.away.store(false, Ordering::SeqCst);
    assert_eq!(run.await.unwrap().unwrap().handled, 1);
    assert_eq!(ledger.acked(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_kept_while_a_long_handler_runs() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let began = Instant::now();
    let clock = move || Timestamp(i64::try_from(began.elapsed().as_millis()).unwrap());
    let runs = Arc::new(AtomicUsize::new(0));
    let start = |wait: u64| {
        let (source, ledger) = MemorySource::new();
        ledger.push(None, "x", Some("id"));
        ledger.end();
        let (store, runs) = (store.clone(), runs.clone());
        tokio::spawn(async move {
            sleep(Duration::from_secs(wait)).await;
            let handler = move |_: Message| {
                let runs = runs.clone();
                async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    sleep(Duration::from_secs(100)).await;
                    Ok::<(), HandlerError>(())
                }
            };
            Processor::new(source)
                .once(store)
                .lease(Duration::from_secs(3))
                .clock(clock)
                .run(handler, pending())
                .await
        })
    };
    // Two processors with the same message: the second one waits far longer than a lease lasts.
    let (first, second) = (start(0), start(1));
    assert_eq!(first.await.unwrap().unwrap().handled, 1);
    assert_eq!(second.await.unwrap().unwrap().duplicates, 1);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_are_away_are_tried_again_and_nothing_is_lost() {
    let (source, ledger) = MemorySource::new();
    ledger.push(Some("a"), "bad", None);
    ledger.push(Some("b"), "fine", None);
    ledger.end();
    let letters = Letters { away: Arc::new(AtomicUsize::new(5)), ..Letters::default() };
    let handler = async |message: Message| -> Handled {
        if text(&message) == "bad" { Err(HandlerError::reject("no")) } else { Ok(()) }
    };
    let summary = Processor::new(source).dead_letter(letters.clone()).run(handler, pending()).await.unwrap();
    assert_eq!((summary.handled, summary.dead_lettered), (1, 1));
    assert_eq!(ledger.acked(), [1, 0]);
    assert_eq!(letters.got.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_refused_ends_the_run_with_both_names() {
    let (source, ledger) = MemorySource::new();
    ledger.push(None, "bad", None);
    let letters = Letters { refuse: true, ..Letters::default() };
    let handler = async |_: Message| -> Handled { Err(HandlerError::reject("no")) };
    let e = Processor::new(source).dead_letter(letters).run(handler, pending()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("item 0") && e.to_string().contains("the letters"), "{e}");
    assert_eq!((ledger.acked().len(), ledger.given_back().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_runs_gives_back_the_rest_and_ends_in_time() {
    let (source, ledger) = MemorySource::new();
    for i in 0..10 {
        ledger.push(None, &i.to_string(), None);
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let handler = async |message: Message| -> Handled {
        // Number 1 takes longer than the drain.
        sleep(Duration::from_secs(if text(&message) == "1" { 3600 } else { 4 })).await;
        Ok(())
    };
    let processor = Processor::new(source).concurrency(2).in_hand(4).drain(Duration::from_secs(10));
    let run = tokio::spawn(processor.run(handler, async move { drop(stopped.await) }));
    sleep(Duration::from_secs(1)).await;
    let asked = Instant::now();
    stop.send(()).unwrap();
    let summary = run.await.unwrap().unwrap();
    assert_eq!(asked.elapsed(), Duration::from_secs(10));
    assert_eq!((summary.handled, summary.given_back), (1, 3));
    assert_eq!(ledger.acked(), [0]);
    assert_eq!(ledger.given_back().len(), 3);
    assert_eq!(ledger.taken(), 4, "nothing was taken after the stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_does_not_hold_up_the_end() {
    let (source, ledger) = MemorySource::new();
    ledger.push(None, "x", None);
    let started = Arc::new(Notify::new());
    let release = Arc::new(std::sync::Barrier::new(2));
    let (s, r) = (started.clone(), release.clone());
    let handler = move |_: Message| {
        let (started, release) = (s.clone(), r.clone());
        async move {
            started.notify_one();
            release.wait();
            Ok::<(), HandlerError>(())
        }
    };
    let processor = Processor::new(source).drain(Duration::from_millis(50));
    let summary = processor.run(handler, async move { started.notified().await }).await.unwrap();
    assert_eq!(summary.given_back, 1);
    assert!(ledger.acked().is_empty());
    release.wait();
}

#[tokio::test]
async fn a_setting_out_of_its_range_is_named_before_anything_is_taken() {
    let run = async |change: fn(Processor<MemorySource>) -> Processor<MemorySource>| {
        let (source, ledger) = MemorySource::new();
        ledger.push(None, "x", None);
        let handler = async |_: Message| -> Handled { Ok(()) };
        let e = change(Processor::new(source)).run(handler, pending()).await.unwrap_err();
        assert_eq!((e.kind(), ledger.taken()), (ErrorKind::Config, 0));
        e.to_string()
    };
    assert!(run(|p| p.concurrency(0)).await.contains("concurrency is 0"));
    assert!(run(|p| p.concurrency(8).in_hand(4)).await.contains("in_hand is 4"));
    assert!(run(|p| p.lease(Duration::ZERO)).await.contains("lease"));
    assert!(run(|p| p.timeout(Duration::ZERO)).await.contains("timeout"));
}
