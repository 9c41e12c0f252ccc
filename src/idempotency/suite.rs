//! What every store must do, run on each of them by [`conformance!`](self::conformance). A store under test is
//! opened by a function of its retention and its largest outcome.
#![allow(clippy::disallowed_methods, reason = "tests spawn tasks")]

mod model;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Claim, Counts, Fingerprint, Lease, State, Store};
use crate::{ErrorKind, Timestamp};

pub(super) use model::{RETENTION, operations, replay};

/// A store, and what must live as long as it does (its directory).
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    pub(super) _keep: Option<tempfile::TempDir>,
}

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LEASE: Duration = Duration::from_millis(1000);

/// Writes one `#[test]` for each case, run on the stores that `$open: fn(Duration, usize) -> Opened` makes.
macro_rules! conformance {
    ($open:path) => {
        $crate::idempotency::suite::conformance! { $open:
            one_of_many_tasks_holds_a_key
            many_keys_are_held_at_once
            a_duplicate_gets_the_recorded_outcome
            a_held_key_tells_until_when
            a_lease_that_ran_out_is_taken_over
            a_late_holder_changes_nothing
            a_lease_that_ran_out_unseen_still_completes
            an_extended_lease_ends_later_and_never_earlier
            a_released_key_is_free_at_once
            calls_may_be_repeated_by_the_same_lease
            a_key_with_another_payload_is_refused
            a_crash_between_claim_and_complete_blocks_no_longer_than_the_lease
            a_clock_that_steps_back_lets_nobody_in
            a_completed_key_is_dropped_after_its_retention
            a_key_in_progress_is_never_dropped_by_retention
            a_purge_drops_what_was_completed_before
            limits_are_errors_that_name_them
            a_dropped_future_leaves_the_store_usable
        }
    };
    ($open:path: $($case:ident)*) => {$(
        #[test]
        fn $case() {
            $crate::idempotency::suite::run(|retention, outcome| $open(retention, outcome), |open| {
                ::std::boxed::Box::pin($crate::idempotency::suite::$case(open))
            });
        }
    )*};
}
pub(super) use conformance;

pub(super) type Open = fn(Duration, usize) -> Opened;

/// Runs a case on a runtime with several threads.
pub(super) fn run(open: Open, case: fn(Open) -> super::BoxFuture<'static, ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap().block_on(case(open));
}

fn at(ms: i64) -> Timestamp {
    Timestamp(1_700_000_000_000 + ms)
}

fn print(text: &str) -> Fingerprint {
    Fingerprint::of(text.as_bytes())
}

async fn claim(store: &dyn Store, key: &str, ms: i64) -> Claim {
    store.claim(key, print(key), LEASE, at(ms)).await.unwrap()
}

async fn hold(store: &dyn Store, key: &str, ms: i64) -> Lease {
    match claim(store, key, ms).await {
        Claim::Claimed(lease) => lease,
        other => panic!("{key} is not free at {ms}: {other:?}"),
    }
}

fn outcome(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn done(text: &'static str, ms: i64) -> Claim {
    Claim::Done { outcome: outcome(text), at: at(ms) }
}

pub(super) async fn one_of_many_tasks_holds_a_key(open: Open) {
    let opened = open(DAY, 64);
    for round in 0..20 {
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let store = Arc::clone(&opened.store);
                tokio::spawn(async move { claim(&*store, &format!("k{round}"), 0).await })
            })
            .collect();
        let mut leases = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Claim::Claimed(lease) => leases.push(lease),
                Claim::Held { until } => assert_eq!(until, at(1000)),
                Claim::Done { .. } => panic!("nobody completed it"),
            }
        }
        assert_eq!(leases.len(), 1, "holders of one key");
    }
}

pub(super) async fn many_keys_are_held_at_once(open: Open) {
    let opened = open(DAY, 64);
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let store = Arc::clone(&opened.store);
            tokio::spawn(async move {
                let lease = hold(&*store, &format!("k{n}"), 0).await;
                store.complete(&lease, Bytes::from(n.to_string()), at(1)).await.unwrap();
                lease.token()
            })
        })
        .collect();
    let mut tokens = std::collections::BTreeSet::new();
    for task in tasks {
        tokens.insert(task.await.unwrap());
    }
    assert_eq!(tokens.len(), 200, "no token is granted twice");
    for n in 0..200 {
        let expected = Claim::Done { outcome: Bytes::from(n.to_string()), at: at(1) };
        assert_eq!(claim(&*opened.store, &format!("k{n}"), 2).await, expected);
    }
    assert_eq!(opened.store.counts().await.unwrap(), Counts { in_progress: 0, completed: 200 });
}

pub(super) async fn a_duplicate_gets_the_recorded_outcome(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let lease = hold(store, "k", 0).await;
    store.complete(&lease, outcome("paid"), at(10)).await.unwrap();
    for ms in [10, 1000, 100_000] {
        assert_eq!(claim(store, "k", ms).await, done("paid", 10));
    }
    let state = store.get("k").await.unwrap();
    let expected = State::Done { token: lease.token(), outcome: outcome("paid"), at: at(10), takeovers: 0 };
    assert_eq!(state, Some(expected));
    // An empty outcome is one too.
    let lease = hold(store, "empty", 100_000).await;
    store.complete(&lease, Bytes::new(), at(100_001)).await.unwrap();
    assert_eq!(claim(store, "empty", 100_002).await, done("", 100_001));
}

pub(super) async fn a_held_key_tells_until_when(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    assert_eq!(store.get("k").await.unwrap(), None);
    let lease = hold(store, "k", 0).await;
    assert_eq!((lease.key(), lease.until(), lease.takeovers()), ("k", at(1000), 0));
    assert_eq!(claim(store, "k", 999).await, Claim::Held { until: at(1000) });
    let state = State::InProgress { token: lease.token(), until: at(1000), takeovers: 0 };
    assert_eq!(store.get("k").await.unwrap(), Some(state));
    assert_eq!(store.counts().await.unwrap(), Counts { in_progress: 1, completed: 0 });
}

pub(super) async fn a_lease_that_ran_out_is_taken_over(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let first = hold(store, "k", 0).await;
    let second = hold(store, "k", 1000).await;
    let third = hold(store, "k", 5000).await;
    assert!(first.token() < second.token() && second.token() < third.token());
    assert_eq!((first.takeovers(), second.takeovers(), third.takeovers()), (0, 1, 2));
    store.complete(&third, outcome("x"), at(5001)).await.unwrap();
    assert_eq!(claim(store, "k", 5001).await, done("x", 5001));
}

pub(super) async fn a_late_holder_changes_nothing(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let late = hold(store, "k", 0).await;
    let holder = hold(store, "k", 1000).await;
    let fenced = |kind: ErrorKind| assert_eq!(kind, ErrorKind::Fenced);
    let late_calls = async || {
        let e = store.complete(&late, outcome("late"), at(1001)).await.unwrap_err();
        assert!(e.message().contains("\"k\"") && !e.is_retryable() && !e.is_ambiguous(), "{e}");
        fenced(e.kind());
        fenced(store.release(&late).await.unwrap_err().kind());
        fenced(store.extend(&late, LEASE, at(1001)).await.unwrap_err().kind());
    };
    late_calls().await;
    assert_eq!(claim(store, "k", 1001).await, Claim::Held { until: holder.until() });
    store.complete(&holder, outcome("holder"), at(1002)).await.unwrap();
    late_calls().await;
    assert_eq!(claim(store, "k", 1003).await, done("holder", 1002));
    // Nor when the key is free again.
    let other = hold(store, "j", 0).await;
    let second = hold(store, "j", 3000).await;
    store.release(&second).await.unwrap();
    fenced(store.complete(&other, outcome("late"), at(3001)).await.unwrap_err().kind());
    fenced(store.extend(&other, LEASE, at(3001)).await.unwrap_err().kind());
    let _free = hold(store, "j", 3001).await;
}

pub(super) async fn a_lease_that_ran_out_unseen_still_completes(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let lease = hold(store, "k", 0).await;
    store.complete(&lease, outcome("late but alone"), at(90_000)).await.unwrap();
    assert_eq!(claim(store, "k", 90_001).await, done("late but alone", 90_000));
    let lease = hold(store, "j", 90_001).await;
    let lease = store.extend(&lease, LEASE, at(99_000)).await.unwrap();
    assert_eq!(claim(store, "j", 99_999).await, Claim::Held { until: lease.until() });
}

pub(super) async fn an_extended_lease_ends_later_and_never_earlier(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let lease = hold(store, "k", 0).await;
    let longer = store.extend(&lease, LEASE, at(900)).await.unwrap();
    assert_eq!((longer.until(), longer.token()), (at(1900), lease.token()));
    let same = store.extend(&longer, Duration::from_millis(10), at(901)).await.unwrap();
    assert_eq!(same.until(), at(1900));
    assert_eq!(claim(store, "k", 1899).await, Claim::Held { until: at(1900) });
    // The lease as it was before is as good: the token counts.
    store.complete(&lease, outcome("x"), at(1950)).await.unwrap();
    assert_eq!(store.extend(&lease, LEASE, at(1951)).await.unwrap_err().kind(), ErrorKind::Fenced);
}

pub(super) async fn a_released_key_is_free_at_once(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let lease = hold(store, "k", 0).await;
    store.release(&lease).await.unwrap();
    assert_eq!(store.get("k").await.unwrap(), None);
    // With any payload.
    let next = store.claim("k", print("another"), LEASE, at(1)).await.unwrap().lease().unwrap();
    assert!(next.token() > lease.token() && next.takeovers() == 0);
    assert_eq!(store.release(&lease).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(store.counts().await.unwrap(), Counts { in_progress: 1, completed: 0 });
}

pub(super) async fn calls_may_be_repeated_by_the_same_lease(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let lease = hold(store, "k", 0).await;
    store.complete(&lease, outcome("first"), at(1)).await.unwrap();
    store.complete(&lease, outcome("second"), at(2)).await.unwrap();
    assert_eq!(claim(store, "k", 3).await, done("first", 1));
    assert_eq!(store.release(&lease).await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(claim(store, "k", 3).await, done("first", 1));
    let lease = hold(store, "j", 3).await;
    store.release(&lease).await.unwrap();
    store.release(&lease).await.unwrap();
}

pub(super) async fn a_key_with_another_payload_is_refused(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let refused = async |ms: i64| {
        let e = store.claim("k", print("other"), LEASE, at(ms)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PayloadMismatch);
        let (mine, theirs) = (print("k").to_string(), print("other").to_string());
        assert!(
            e.message().contains("\"k\"") && e.message().contains(&mine) && e.message().contains(&theirs),
            "{e}"
        );
        assert!(!e.is_retryable() && !e.is_ambiguous());
    };
    let lease = hold(store, "k", 0).await;
    refused(1).await;
    // Also when the lease has run out: its holder may have had a part of the effect.
    refused(2000).await;
    store.complete(&lease, outcome("x"), at(2000)).await.unwrap();
    refused(2001).await;
    assert_eq!(claim(store, "k", 2001).await, done("x", 2000));
}

pub(super) async fn a_crash_between_claim_and_complete_blocks_no_longer_than_the_lease(open: Open) {
    let opened = open(DAY, 64);
    let store = Arc::clone(&opened.store);
    let holder = tokio::spawn(async move {
        let _lease = hold(&*store, "k", 0).await;
        std::future::pending::<()>().await;
    });
    while opened.store.counts().await.unwrap().in_progress == 0 {
        tokio::task::yield_now().await;
    }
    holder.abort();
    assert!(holder.await.unwrap_err().is_cancelled());
    assert_eq!(claim(&*opened.store, "k", 999).await, Claim::Held { until: at(1000) });
    let lease = hold(&*opened.store, "k", 1000).await;
    assert_eq!(lease.takeovers(), 1, "the next holder knows that somebody was here");
}

pub(super) async fn a_clock_that_steps_back_lets_nobody_in(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let lease = hold(store, "k", 10_000).await;
    assert_eq!(claim(store, "k", -1_000_000).await, Claim::Held { until: at(11_000) });
    // An extension under the earlier time shortens nothing.
    assert_eq!(store.extend(&lease, LEASE, at(-1_000_000)).await.unwrap().until(), at(11_000));
    // A lease granted under the earlier time holds when the clock is right again.
    let other = hold(store, "j", -1_000_000).await;
    assert_eq!(claim(store, "j", 10_999).await, Claim::Held { until: at(11_000) });
    // A completion under the earlier time starts its retention now.
    store.complete(&other, outcome("x"), at(-1_000_000)).await.unwrap();
    assert_eq!(claim(store, "j", 10_999).await, done("x", 10_999));
    let _taken = hold(store, "k", 11_000).await;
}

pub(super) async fn a_completed_key_is_dropped_after_its_retention(open: Open) {
    let opened = open(Duration::from_secs(60), 64);
    let store = &*opened.store;
    for n in 0..100 {
        let lease = hold(store, &format!("k{n}"), n).await;
        store.complete(&lease, outcome("x"), at(n)).await.unwrap();
    }
    assert_eq!(claim(store, "k0", 59_999).await, done("x", 0));
    let again =
        store.claim("k0", print("another payload"), LEASE, at(60_000)).await.unwrap().lease().unwrap();
    assert_eq!(again.takeovers(), 0);
    assert_eq!(claim(store, "k99", 60_000).await, done("x", 99));
    // The others go by and by, as new keys come.
    for n in 0..40 {
        let _lease = hold(store, &format!("new{n}"), 70_000).await;
    }
    assert_eq!(store.counts().await.unwrap(), Counts { in_progress: 41, completed: 0 });
}

pub(super) async fn a_key_in_progress_is_never_dropped_by_retention(open: Open) {
    let opened = open(Duration::from_millis(10), 64);
    let store = &*opened.store;
    let lease = hold(store, "k", 0).await;
    for n in 0..20 {
        let _other = hold(store, &format!("j{n}"), 1_000_000).await;
    }
    assert_eq!(store.purge(at(2_000_000)).await.unwrap(), 0);
    // The payload is still compared, and the holder may still complete.
    let e = store.claim("k", print("other"), LEASE, at(1_000_000)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PayloadMismatch);
    store.complete(&lease, outcome("x"), at(1_000_000)).await.unwrap();
    assert_eq!(claim(store, "k", 1_000_009).await, done("x", 1_000_000));
}

pub(super) async fn a_purge_drops_what_was_completed_before(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    for n in 0..10 {
        let lease = hold(store, &format!("k{n}"), n).await;
        store.complete(&lease, outcome("x"), at(n)).await.unwrap();
    }
    let _held = hold(store, "held", 10).await;
    assert_eq!(store.purge(at(4)).await.unwrap(), 4);
    assert_eq!(store.purge(at(4)).await.unwrap(), 0);
    assert_eq!(store.counts().await.unwrap(), Counts { in_progress: 1, completed: 6 });
    assert_eq!(claim(store, "k4", 11).await, done("x", 4));
    let _free = hold(store, "k3", 11).await;
}

pub(super) async fn limits_are_errors_that_name_them(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    let e = store.claim("", print(""), LEASE, at(0)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    let e = store.claim(&"k".repeat(513), print(""), LEASE, at(0)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::TooLarge && e.message().contains("limit of 512"), "{e}");
    let long = "k".repeat(512);
    let lease = hold(store, &long, 0).await;
    let e = store.complete(&lease, Bytes::from(vec![0; 65]), at(1)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::TooLarge && e.message().contains("limit of 64"), "{e}");
    assert_eq!(claim(store, &long, 1).await, Claim::Held { until: at(1000) });
    store.complete(&lease, Bytes::from(vec![0; 64]), at(1)).await.unwrap();
    // A lease of no length is the shortest there is, and the longest does not overflow.
    let _short = store.claim("s", print("s"), Duration::ZERO, at(0)).await.unwrap();
    assert_eq!(store.claim("s", print("s"), LEASE, at(1)).await.unwrap(), Claim::Held { until: at(2) });
    let lease = store.claim("l", print("l"), Duration::MAX, at(1)).await.unwrap().lease().unwrap();
    assert_eq!(lease.until(), Timestamp(i64::MAX));
}

pub(super) async fn a_dropped_future_leaves_the_store_usable(open: Open) {
    let opened = open(DAY, 64);
    let store = &*opened.store;
    for n in 0..50 {
        let (key, ms) = (format!("k{n}"), n * 10_000);
        let mut call = store.claim(&key, print(&key), LEASE, at(ms));
        if n % 2 == 0 {
            // Polled once, so that the request may be on its way.
            let waker = std::task::Waker::noop();
            let _ = call.as_mut().poll(&mut std::task::Context::from_waker(waker));
        }
        drop(call);
        // Whether or not it claimed, the key is free when its lease has ended.
        let lease = hold(store, &key, ms + 1000).await;
        store.complete(&lease, outcome("x"), at(ms + 1000)).await.unwrap();
        assert_eq!(claim(store, &key, ms + 1001).await, done("x", ms + 1000));
    }
}
