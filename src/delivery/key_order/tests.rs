#![allow(clippy::disallowed_methods, reason = "the tests need one instant to count from")]

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const A: Scope = Scope(1);
const B: Scope = Scope(2);

fn now() -> Instant {
    Instant::now()
}

fn by_key(concurrency: usize) -> KeyOrder<u32> {
    KeyOrder::new(Order::ByKey, concurrency, 100)
}

#[track_caller]
fn run(order: &mut KeyOrder<u32>, at: Instant) -> (Ticket, u32) {
    order.poll_ready(at).expect("an item that may run")
}

/// All that may run at once.
fn run_all(order: &mut KeyOrder<u32>, at: Instant) -> Vec<u32> {
    std::iter::from_fn(|| order.poll_ready(at)).map(|(_, item)| item).collect()
}

#[test]
fn items_of_one_key_run_one_after_the_other_and_other_keys_run_beside_them() {
    let (t, mut o) = (now(), by_key(10));
    for (key, item) in [("x", 1), ("x", 2), ("y", 3), ("x", 4)] {
        o.submit(A, Some(key.as_bytes()), item).unwrap();
    }
    let (x, first) = run(&mut o, t);
    let (_, third) = run(&mut o, t);
    assert_eq!((first, third, o.poll_ready(t)), (1, 3, None));
    assert_eq!(o.complete(x), Completed::Done);
    let (x, second) = run(&mut o, t);
    assert_eq!((second, o.poll_ready(t)), (2, None));
    assert_eq!(o.complete(x), Completed::Done);
    assert_eq!(run(&mut o, t).1, 4);
}

#[test]
fn items_without_a_key_have_no_order() {
    let (t, mut o) = (now(), by_key(10));
    for item in 1..=3 {
        o.submit(A, None, item).unwrap();
    }
    assert_eq!(run_all(&mut o, t), [1, 2, 3]);
}

#[test]
fn an_empty_key_is_a_key() {
    let (t, mut o) = (now(), by_key(10));
    o.submit(A, Some(b""), 1).unwrap();
    o.submit(A, Some(b""), 2).unwrap();
    assert_eq!(run_all(&mut o, t), [1]);
}

#[test]
fn the_same_key_in_two_topics_is_two_keys() {
    let (t, mut o) = (now(), by_key(10));
    o.submit(A, Some(b"k"), 1).unwrap();
    o.submit(B, Some(b"k"), 2).unwrap();
    assert_eq!(run_all(&mut o, t), [1, 2]);
}

#[test]
fn by_partition_everything_of_a_scope_is_in_order_with_or_without_a_key() {
    let (t, mut o) = (now(), KeyOrder::new(Order::ByPartition, 10, 100));
    o.submit(A, Some(b"k"), 1).unwrap();
    o.submit(A, None, 2).unwrap();
    o.submit(B, None, 3).unwrap();
    assert_eq!(run_all(&mut o, t), [1, 3]);
}

#[test]
fn unordered_items_run_as_places_are_free() {
    let (t, mut o) = (now(), KeyOrder::new(Order::Unordered, 2, 100));
    for item in 1..=3 {
        o.submit(A, Some(b"k"), item).unwrap();
    }
    let (first, _) = run(&mut o, t);
    let (_, second) = run(&mut o, t);
    assert_eq!((second, o.poll_ready(t)), (2, None));
    assert_eq!(o.complete(first), Completed::Done);
    assert_eq!(run(&mut o, t).1, 3);
}

#[test]
fn a_hot_key_does_not_starve_the_others() {
    let (t, mut o) = (now(), by_key(1));
    for item in 0..50 {
        o.submit(A, Some(b"hot"), item).unwrap();
    }
    o.submit(A, Some(b"cold"), 100).unwrap();
    let (hot, _) = run(&mut o, t);
    let _ = o.complete(hot);
    assert_eq!(run(&mut o, t).1, 100, "the cold key's turn comes after one hot item");
}

#[test]
fn what_does_not_fit_is_given_back_and_room_comes_with_completion() {
    let (t, mut o) = (now(), KeyOrder::new(Order::ByKey, 1, 2));
    o.submit(A, Some(b"k"), 1).unwrap();
    o.submit(A, Some(b"k"), 2).unwrap();
    assert_eq!((o.submit(A, Some(b"l"), 3), o.has_room()), (Err(3), false));
    let (ticket, _) = run(&mut o, t);
    assert!(!o.has_room(), "a running item keeps its place");
    let _ = o.complete(ticket);
    o.submit(A, Some(b"l"), 3).unwrap();
    assert_eq!(o.len(), 2);
}

#[test]
fn a_retry_keeps_its_place_at_the_head_of_its_key_until_it_is_due() {
    let (t, mut o) = (now(), by_key(10));
    for (key, item) in [("x", 1), ("x", 2), ("y", 3)] {
        o.submit(A, Some(key.as_bytes()), item).unwrap();
    }
    let (x, _) = run(&mut o, t);
    let due = t + Duration::from_secs(5);
    assert_eq!(o.retry_at(x, 1, due), Completed::Done);
    assert_eq!(run(&mut o, t).1, 3, "another key runs on");
    assert_eq!((o.poll_ready(t), o.poll_next_due(), o.waiting()), (None, Some(due), 1));
    assert_eq!(o.poll_ready(due - Duration::from_millis(1)), None);
    let (x, first) = run(&mut o, due);
    assert_eq!((first, o.poll_next_due(), o.poll_ready(due)), (1, None, None));
    let _ = o.complete(x);
    assert_eq!(run(&mut o, due).1, 2);
}

#[test]
fn retries_count_against_the_capacity() {
    // So a retry queue cannot grow without bound.
    let (t, mut o) = (now(), KeyOrder::new(Order::Unordered, 4, 4));
    for item in 0..4 {
        o.submit(A, None, item).unwrap();
    }
    for _ in 0..4 {
        let (ticket, item) = run(&mut o, t);
        let _ = o.retry_at(ticket, item, t + Duration::from_secs(60));
    }
    assert_eq!((o.submit(A, None, 9), o.len(), o.running()), (Err(9), 4, 0));
}

#[test]
fn a_ticket_counts_once() {
    let (t, mut o) = (now(), by_key(10));
    o.submit(A, Some(b"x"), 1).unwrap();
    o.submit(A, Some(b"x"), 2).unwrap();
    let (used, _) = run(&mut o, t);
    assert_eq!(o.complete(used), Completed::Done);
    let (_, second) = run(&mut o, t);
    assert_eq!(o.complete(used), Completed::Unknown(None));
    assert_eq!(o.retry_at(used, 1, t), Completed::Unknown(Some(1)));
    assert_eq!((second, o.running()), (2, 1));
}

#[test]
fn a_revoked_partition_is_taken_out_and_the_others_stay() {
    let (t, mut o) = (now(), by_key(10));
    for (scope, key, item) in [(A, "x", 1), (A, "x", 2), (A, "y", 3), (B, "x", 4), (B, "x", 5)] {
        o.submit(scope, Some(key.as_bytes()), item).unwrap();
    }
    let (running, _) = run(&mut o, t);
    let mut out = o.remove(A);
    out.sort_unstable();
    assert_eq!((out, o.len(), o.running()), (vec![2, 3], 3, 1));
    // The partition comes back: its items do not wait for the one that still runs, and that one frees its place only.
    o.submit(A, Some(b"x"), 6).unwrap();
    assert_eq!(run(&mut o, t).1, 4);
    let (_, sixth) = run(&mut o, t);
    assert_eq!((sixth, o.running()), (6, 3));
    assert_eq!(o.retry_at(running, 1, t), Completed::Removed(Some(1)));
    assert_eq!(o.complete(running), Completed::Unknown(None));
    assert_eq!(o.running(), 2);
}

#[test]
fn a_waiting_item_of_a_revoked_partition_never_comes_due() {
    let (t, mut o) = (now(), by_key(10));
    o.submit(A, Some(b"x"), 1).unwrap();
    let (ticket, item) = run(&mut o, t);
    let _ = o.retry_at(ticket, item, t);
    assert_eq!(o.remove(A), [1]);
    assert_eq!((o.poll_next_due(), o.poll_ready(t), o.is_empty()), (None, None, true));
}

#[derive(Debug, Clone)]
enum Op {
    Submit { scope: u8, key: Option<u8> },
    Poll,
    Complete(usize),
    Retry { at: usize, delay: u8 },
    Used(usize),
    Sleep(u8),
    Remove(u8),
    RemoveAll,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0u8..3, prop::option::weighted(0.8, 0u8..4)).prop_map(|(scope, key)| Op::Submit { scope, key }),
        8 => Just(Op::Poll),
        5 => any::<usize>().prop_map(Op::Complete),
        3 => (any::<usize>(), 0u8..20).prop_map(|(at, delay)| Op::Retry { at, delay }),
        1 => any::<usize>().prop_map(Op::Used),
        3 => (0u8..10).prop_map(Op::Sleep),
        1 => (0u8..3).prop_map(Op::Remove),
        1 => Just(Op::RemoveAll),
    ]
}

/// Where an item is, as the one who submitted it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Queued,
    Running,
    /// It runs, and its scope was removed.
    Orphan,
    Waiting(Instant),
}

/// Every item that is held, in the order of submission, and what it must not overtake.
#[derive(Debug, Default)]
struct Model {
    items: BTreeMap<u32, (u8, Option<u8>, Is)>,
}

impl Model {
    /// Whether two items share a lane; each with itself.
    fn same(order: Order, a: (u32, u8, Option<u8>), b: (u32, u8, Option<u8>)) -> bool {
        a.0 == b.0
            || a.1 == b.1
                && match order {
                    Order::ByKey => a.2.is_some() && a.2 == b.2,
                    Order::ByPartition => true,
                    Order::Unordered => false,
                }
    }

    /// Whether an item may start: it is the oldest of its lane, nothing of the lane runs, and it is due.
    fn may_run(&self, order: Order, item: u32, at: Instant) -> bool {
        let Some(&(scope, key, is)) = self.items.get(&item) else { return false };
        let is_next = match is {
            Is::Queued => true,
            Is::Waiting(due) => due <= at,
            Is::Running | Is::Orphan => false,
        };
        is_next
            && self.items.range(..item).all(|(&other, &(s, k, is))| {
                is == Is::Orphan || !Self::same(order, (item, scope, key), (other, s, k))
            })
            && self.items.iter().all(|(&other, &(s, k, is))| {
                is != Is::Running || !Self::same(order, (item, scope, key), (other, s, k))
            })
    }

    fn remove(&mut self, scope: Option<u8>) -> Vec<u32> {
        let mut out = Vec::new();
        self.items.retain(|&item, (s, _, is)| {
            if scope.is_some_and(|scope| scope != *s) {
                return true;
            }
            if matches!(is, Is::Running | Is::Orphan) {
                *is = Is::Orphan;
                return true;
            }
            out.push(item);
            false
        });
        out
    }
}

fn check(o: &KeyOrder<u32>, model: &Model) {
    let count = |f: fn(Is) -> bool| model.items.values().filter(|(_, _, is)| f(*is)).count();
    assert_eq!(o.len(), model.items.len());
    assert_eq!(o.running(), count(|is| matches!(is, Is::Running | Is::Orphan)));
    assert!(o.running() <= o.concurrency && o.len() <= o.capacity);
    // The books hold nothing but what is there.
    let heads = o.lanes.values().filter(|lane| lane.head.is_some()).count();
    assert_eq!(o.ready.len() + o.waiting.len(), heads);
    assert_eq!(o.removed.len(), count(|is| is == Is::Orphan));
    assert!(o.lanes.len() <= o.len());
}

fn run_ops(order: Order, concurrency: usize, capacity: usize, ops: &[Op]) {
    let mut o = KeyOrder::new(order, concurrency, capacity);
    let mut model = Model::default();
    let (mut at, mut counter) = (now(), 0u32);
    let (mut running, mut used): (Vec<(Ticket, u32)>, Vec<Ticket>) = (Vec::new(), Vec::new());
    for op in ops {
        match *op {
            Op::Submit { scope, key } => {
                counter += 1;
                let room = model.items.len() < capacity.max(concurrency);
                let bytes = key.map(|key| [key]);
                let result = o.submit(Scope(scope.into()), bytes.as_ref().map(|key| &key[..]), counter);
                assert_eq!(result, if room { Ok(()) } else { Err(counter) });
                if room {
                    model.items.insert(counter, (scope, key, Is::Queued));
                }
            }
            Op::Poll => match o.poll_ready(at) {
                Some((ticket, item)) => {
                    assert!(model.may_run(order, item, at), "{item} must not run yet");
                    assert!(running.len() < concurrency);
                    model.items.get_mut(&item).unwrap().2 = Is::Running;
                    running.push((ticket, item));
                }
                None => {
                    let could = model.items.keys().any(|&item| model.may_run(order, item, at));
                    assert!(!could || running.len() >= concurrency, "an item could run and does not");
                }
            },
            Op::Complete(n) if !running.is_empty() => {
                let (ticket, item) = running.swap_remove(n % running.len());
                let (_, _, is) = model.items.remove(&item).unwrap();
                let expected = if is == Is::Orphan { Completed::Removed(None) } else { Completed::Done };
                assert_eq!(o.complete(ticket), expected);
                used.push(ticket);
            }
            Op::Retry { at: n, delay } if !running.is_empty() => {
                let (ticket, item) = running.swap_remove(n % running.len());
                let due = at + Duration::from_millis(delay.into());
                let is = &mut model.items.get_mut(&item).unwrap().2;
                if *is == Is::Orphan {
                    assert_eq!(o.retry_at(ticket, item, due), Completed::Removed(Some(item)));
                    model.items.remove(&item);
                } else {
                    *is = Is::Waiting(due);
                    assert_eq!(o.retry_at(ticket, item, due), Completed::Done);
                }
                used.push(ticket);
            }
            Op::Used(n) if !used.is_empty() => {
                assert_eq!(o.complete(used[n % used.len()]), Completed::Unknown(None));
            }
            Op::Complete(_) | Op::Retry { .. } | Op::Used(_) => {}
            Op::Sleep(ms) => at += Duration::from_millis(ms.into()),
            Op::Remove(scope) => {
                let mut out = o.remove(Scope(scope.into()));
                out.sort_unstable();
                assert_eq!(out, model.remove(Some(scope)));
            }
            Op::RemoveAll => {
                let mut out = o.remove_all();
                out.sort_unstable();
                assert_eq!(out, model.remove(None));
            }
        }
        check(&o, &model);
    }
    // Nothing is lost: it all runs in the end, and the driver is told when to come back.
    while !o.is_empty() {
        for (ticket, item) in running.drain(..) {
            let _ = o.complete(ticket);
            model.items.remove(&item);
        }
        if let Some((ticket, item)) = o.poll_ready(at) {
            assert!(model.may_run(order, item, at));
            model.items.get_mut(&item).unwrap().2 = Is::Running;
            running.push((ticket, item));
        } else if !o.is_empty() {
            at = o.poll_next_due().expect("held, not running, not ready: it must be waiting");
        }
    }
    assert!(model.items.is_empty() && o.lanes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn no_key_is_overtaken_nothing_is_lost_and_nothing_runs_twice(
        order in prop_oneof![3 => Just(Order::ByKey), 1 => Just(Order::ByPartition), 1 => Just(Order::Unordered)],
        concurrency in 1usize..6,
        capacity in 1usize..24,
        ops in prop::collection::vec(op(), 0..60),
    ) {
        run_ops(order, concurrency, capacity, &ops);
    }
}
