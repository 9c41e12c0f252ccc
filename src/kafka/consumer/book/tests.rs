#![allow(clippy::disallowed_methods, reason = "a start for the test's own clock")]

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::BytesMut;
use proptest::prelude::*;

use super::part::CORRUPT_RETRIES;
use super::*;
use crate::codec::record_batch::{BatchBuilder, BatchOptions};
use crate::{ErrorKind, Timestamp};

const NODE: NodeId = NodeId(1);

fn topic() -> Topic {
    Topic::new("orders").unwrap()
}

fn book(max_in_hand: usize) -> Book {
    let mut book = Book::new(Settings {
        isolation: Isolation::ReadCommitted,
        max_in_hand,
        prefetch_bytes: 8 << 20,
        max_batch_bytes: 1 << 20,
    });
    book.assign((topic(), Partition(0)), Offset(0), None);
    book
}

fn batch(base: i64, values: &[&str]) -> Bytes {
    let mut b = BatchBuilder::new(BatchOptions { base_offset: Offset(base), ..BatchOptions::default() });
    for value in values {
        b.push(Timestamp(0), None, Some(value.as_bytes()), []).unwrap();
    }
    b.finish().unwrap()
}

fn fetch(book: &mut Book, now: Instant) -> Option<Fetch> {
    book.poll_fetch(now, |_, _| Some((NODE, LeaderEpoch(0))), |_| true).0.pop()
}

/// Fetches and answers with `records`.
fn feed(book: &mut Book, records: Bytes, now: Instant) -> Offset {
    let fetch = fetch(book, now).expect("a fetch is due");
    book.handle_returned(&fetch);
    let fetched = Fetched { records, aborted: Vec::new(), end: Offset(100), preferred: None };
    book.handle_fetched(&fetch.asks[0], fetched, now);
    fetch.asks[0].offset
}

fn read(book: &mut Book, now: Instant) -> Held {
    match book.poll_next(now).0 {
        Next::Record(_, _, held) => held,
        other => panic!("no record but {other:?}"),
    }
}

fn fault(book: &mut Book, now: Instant) -> Error {
    match book.poll_next(now).0 {
        Next::Fault(e) => e,
        other => panic!("no fault but {other:?}"),
    }
}

fn committed(book: &Book) -> Option<Offset> {
    book.poll_commit().first().map(|(_, _, commit)| commit.offset)
}

#[test]
fn a_fetch_from_inside_a_batch_hands_out_only_what_was_asked_for() {
    let now = Instant::now();
    let mut b = Book::new(book(10).settings);
    b.assign((topic(), Partition(0)), Offset(2), None);
    feed(&mut b, batch(0, &["0", "1", "2", "3"]), now);
    assert_eq!(read(&mut b, now).content.offset(), Offset(2));
    assert_eq!(read(&mut b, now).content.offset(), Offset(3));
    assert!(matches!(b.poll_next(now).0, Next::Wait(None)));
    assert_eq!(fetch(&mut b, now).unwrap().asks[0].offset, Offset(4));
}

/// Partition `n` of these many, led by broker `n`, each fetched from by a request of its own.
fn spread(partitions: i32, prefetch_bytes: usize) -> Book {
    let mut book = Book::new(Settings { prefetch_bytes, ..book(10).settings });
    for n in 0..partitions {
        book.assign((topic(), Partition(n)), Offset(0), None);
    }
    book
}

#[test]
fn brokers_with_nothing_new_do_not_keep_the_others_from_being_read() {
    let now = Instant::now();
    let mut b = spread(5, 32 << 20);
    let (fetches, _) = b.poll_fetch(now, |_, p| Some((NodeId(p.0), LeaderEpoch(0))), |_| true);
    let nodes: Vec<i32> = fetches.iter().map(|f| f.node.0).collect();
    assert_eq!(nodes, [0, 1, 2, 3, 4], "each is asked at once, whatever the others' answers wait for");
    assert!(fetches.iter().map(|f| f.max_bytes).sum::<usize>() <= 32 << 20);
}

#[test]
fn brokers_have_their_turn_where_the_memory_is_small() {
    let now = Instant::now();
    let mut b = spread(5, 3);
    let mut asked = BTreeSet::new();
    for _ in 0..5 {
        let (fetches, _) = b.poll_fetch(now, |_, p| Some((NodeId(p.0), LeaderEpoch(0))), |_| true);
        assert!(!fetches.is_empty());
        for fetch in &fetches {
            asked.insert(fetch.node);
            b.handle_returned(fetch);
        }
    }
    assert_eq!(asked.len(), 5);
}

#[test]
fn the_commit_waits_for_the_oldest_in_hand() {
    let now = Instant::now();
    let mut b = book(10);
    feed(&mut b, batch(0, &["0", "1", "2"]), now);
    let held: Vec<_> = (0..3).map(|_| read(&mut b, now)).collect();
    assert_eq!(b.ack(0, held[1].receipt), Outcome::Done);
    assert_eq!(b.ack(0, held[2].receipt), Outcome::Done);
    assert_eq!(b.ack(0, held[2].receipt), Outcome::Already);
    assert_eq!(committed(&b).unwrap_or(Offset(0)), Offset(0));
    assert_eq!(b.ack(0, held[0].receipt), Outcome::Done);
    assert_eq!(committed(&b), Some(Offset(3)));
    assert_eq!(b.unsettled(), 0);
}

#[test]
fn what_is_given_back_comes_again_when_it_is_due_and_counts_as_in_hand() {
    let now = Instant::now();
    let mut b = book(1);
    feed(&mut b, batch(0, &["0", "1"]), now);
    let held = read(&mut b, now);
    let due = now + Duration::from_secs(3);
    assert_eq!(b.give_back(held, due), Outcome::Done);
    assert!(matches!(b.poll_next(now).0, Next::Wait(Some(at)) if at == due), "the limit is 1");
    let again = read(&mut b, due);
    assert_eq!((again.content.offset(), again.attempt), (Offset(0), 2));
    let _ = b.ack(0, again.receipt);
    assert_eq!(read(&mut b, due).content.offset(), Offset(1));
}

#[test]
fn a_damaged_batch_is_fetched_again_and_then_stops_its_partition_with_its_place() {
    let mut now = Instant::now();
    let mut b = book(10);
    let mut bytes = BytesMut::from(&batch(0, &["good"])[..]);
    let mut damaged = BytesMut::from(&batch(1, &["bad"])[..]);
    let last = damaged.len() - 2;
    damaged[last] ^= 1;
    bytes.extend_from_slice(&damaged);
    let bytes = bytes.freeze();
    assert_eq!(feed(&mut b, bytes.clone(), now), Offset(0));
    let good = read(&mut b, now);
    assert_eq!(good.content.value(), Some(&b"good"[..]));
    for _ in 0..CORRUPT_RETRIES {
        assert!(matches!(b.poll_next(now).0, Next::Wait(None)));
        now = b.poll_timeout(now).expect("it rests before it is fetched again");
        assert_eq!(feed(&mut b, bytes.clone(), now), Offset(1));
    }
    let e = fault(&mut b, now);
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    for word in ["orders", "partition 0", "offset 1"] {
        assert!(e.to_string().contains(word), "{e}");
    }
    now += Duration::from_secs(60);
    assert!(fetch(&mut b, now).is_none(), "the partition has stopped");
    assert!(matches!(b.poll_next(now).0, Next::Wait(None)), "one is in hand");
    let _ = b.ack(0, good.receipt);
    assert!(matches!(b.poll_next(now).0, Next::Ended));
    assert_eq!(committed(&b), Some(Offset(1)), "never past the damage");
}

#[test]
fn a_fault_stands_behind_what_was_fetched_before_it_and_other_partitions_go_on() {
    let now = Instant::now();
    let mut b = book(10);
    b.assign((topic(), Partition(1)), Offset(0), None);
    let fetch = fetch(&mut b, now).unwrap();
    assert_eq!(fetch.asks.len(), 2);
    b.handle_returned(&fetch);
    let fetched =
        |base| Fetched { records: batch(base, &["x"]), aborted: Vec::new(), end: Offset(1), preferred: None };
    b.handle_fetched(&fetch.asks[0], fetched(0), now);
    b.handle_fault(fetch.asks[0].part, Error::new(ErrorKind::Denied, "no right"));
    b.handle_fetched(&fetch.asks[1], fetched(0), now);
    let (mut records, mut faults) = (0, 0);
    for _ in 0..3 {
        match b.poll_next(now).0 {
            Next::Record(..) => records += 1,
            Next::Fault(e) => {
                assert_eq!(e.kind(), ErrorKind::Denied);
                faults += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((records, faults), (2, 1));
    let again = b.poll_fetch(now, |_, _| Some((NODE, LeaderEpoch(0))), |_| true).0.pop().unwrap();
    assert_eq!(again.asks.iter().map(|a| a.place.1).collect::<Vec<_>>(), [Partition(1)]);
}

#[test]
fn a_lost_offset_goes_on_where_the_reset_says_and_an_old_answer_is_ignored() {
    let now = Instant::now();
    let mut b = book(10);
    let first = fetch(&mut b, now).unwrap();
    b.handle_returned(&first);
    b.handle_lost(&first.asks[0]);
    assert_eq!(b.lost().len(), 1);
    assert!(fetch(&mut b, now).is_none(), "not before there is another offset");
    // Retention has removed the head of the log: a gap, in which nothing is in hand.
    b.handle_reset(0, Offset(50));
    let second = fetch(&mut b, now).unwrap();
    assert_eq!(second.asks[0].offset, Offset(50));
    b.handle_fetched(
        &first.asks[0],
        Fetched { records: batch(0, &["old"]), aborted: Vec::new(), end: Offset(1), preferred: None },
        now,
    );
    b.handle_returned(&second);
    b.handle_fetched(
        &second.asks[0],
        Fetched { records: batch(50, &["new"]), aborted: Vec::new(), end: Offset(51), preferred: None },
        now,
    );
    let held = read(&mut b, now);
    assert_eq!(held.content.offset(), Offset(50));
    let _ = b.ack(0, held.receipt);
    // The log was cut back: what was in hand before is of another log.
    let third = fetch(&mut b, now).unwrap();
    b.handle_returned(&third);
    b.handle_lost(&third.asks[0]);
    b.handle_reset(0, Offset(10));
    feed(&mut b, batch(10, &["anew"]), now);
    let anew = read(&mut b, now);
    assert_eq!(anew.content.offset(), Offset(10));
    assert_eq!(b.ack(0, held.receipt), Outcome::Stale);
    assert_eq!(b.unsettled(), 1);
}

#[test]
fn nothing_more_is_fetched_than_may_be_held() {
    let now = Instant::now();
    let mut b = book(10);
    b.settings.prefetch_bytes = 3 << 20;
    for n in 1..6 {
        b.assign((topic(), Partition(n)), Offset(0), None);
    }
    let value = "x".repeat(700 << 10);
    let fetch = fetch(&mut b, now).unwrap();
    assert!(fetch.max_bytes <= 3 << 20);
    assert!(
        b.poll_fetch(now, |_, _| Some((NODE, LeaderEpoch(0))), |_| true).0.is_empty(),
        "all are in flight"
    );
    b.handle_returned(&fetch);
    for ask in &fetch.asks[..4] {
        let fetched =
            Fetched { records: batch(0, &[&value]), aborted: Vec::new(), end: Offset(9), preferred: None };
        b.handle_fetched(ask, fetched, now);
    }
    assert!(
        b.poll_fetch(now, |_, _| Some((NODE, LeaderEpoch(0))), |_| true).0.is_empty(),
        "2.8 of 3 MiB are held"
    );
    let mut freed = false;
    for _ in 0..4 {
        freed |= matches!(b.poll_next(now), (Next::Record(..), _));
    }
    while b.poll_next(now).1 {}
    assert!(freed && !b.poll_fetch(now, |_, _| Some((NODE, LeaderEpoch(0))), |_| true).0.is_empty());
}

#[test]
fn after_the_end_receipts_are_stale_and_nothing_is_handed_out() {
    let now = Instant::now();
    let mut b = book(10);
    feed(&mut b, batch(0, &["0", "1"]), now);
    let (a, c) = (read(&mut b, now), read(&mut b, now));
    b.close();
    assert_eq!(b.ack(0, a.receipt), Outcome::Done, "what is settled before the last commit counts");
    assert_eq!(committed(&b), Some(Offset(1)));
    b.revoke();
    assert_eq!(b.give_back(c, now), Outcome::Stale);
    assert!(matches!(b.poll_next(now).0, Next::Ended));
}

#[derive(Debug, Clone)]
enum Step {
    /// A batch of so many records behind a gap of so many offsets; or the gap alone, as a marker's.
    Fetch {
        records: usize,
        gap: i64,
    },
    Next,
    Ack(usize),
    GiveBack(usize, u64),
    Wait(u64),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..6, 0i64..4).prop_map(|(records, gap)| Step::Fetch { records, gap }),
        8 => Just(Step::Next),
        6 => any::<usize>().prop_map(Step::Ack),
        2 => (any::<usize>(), 0u64..500).prop_map(|(n, ms)| Step::GiveBack(n, ms)),
        2 => (1u64..300).prop_map(Step::Wait),
        2 => Just(Step::Commit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Every record is handed out in order the first time and again only after it was given back; a commit stands
    /// just above the settled ones; at the end everything is settled and committed.
    #[test]
    fn what_is_handed_out_and_committed_agrees_with_a_plain_list(
        steps in prop::collection::vec(step(), 1..150),
        limit in 1usize..8,
    ) {
        let mut now = Instant::now();
        let mut b = book(limit);
        let mut log_end = 0i64;
        let mut log: Vec<Offset> = Vec::new();
        let mut handed = 0usize;
        let mut hand: Vec<Held> = Vec::new();
        let mut away: Vec<(Instant, Offset)> = Vec::new();
        let mut settled: BTreeSet<Offset> = BTreeSet::new();
        let mut sent = Offset(0);
        let end = std::iter::repeat_n([Step::Wait(1000), Step::Next, Step::Ack(0)], 900).flatten();
        for step in steps.into_iter().chain(end).chain([Step::Commit]) {
            match step {
                Step::Fetch { records, gap } => {
                    let Some(fetch) = fetch(&mut b, now) else { continue };
                    b.handle_returned(&fetch);
                    prop_assert_eq!(fetch.asks[0].offset, Offset(log_end));
                    let first = log_end + gap;
                    let bytes = if records == 0 { Bytes::new() } else { batch(first, &vec!["v"; records]) };
                    if records > 0 {
                        log.extend((first..first + records as i64).map(Offset));
                        log_end = first + records as i64;
                    }
                    let fetched = Fetched { records: bytes, aborted: Vec::new(), end: Offset(log_end), preferred: None };
                    b.handle_fetched(&fetch.asks[0], fetched, now);
                }
                Step::Next => match b.poll_next(now).0 {
                    Next::Record(_, _, held) => {
                        let offset = held.content.offset();
                        if held.attempt == 1 {
                            prop_assert_eq!(Some(&offset), log.get(handed), "in order");
                            handed += 1;
                        } else {
                            let at = away.iter().position(|(due, o)| *o == offset && *due <= now);
                            prop_assert!(at.is_some(), "not due again");
                            away.remove(at.unwrap());
                        }
                        hand.push(held);
                        prop_assert!(hand.len() + away.len() <= limit, "over the limit");
                    }
                    Next::Wait(due) => {
                        prop_assert_eq!(due, away.iter().map(|(due, _)| *due).min());
                        let full = hand.len() + away.len() >= limit;
                        prop_assert!(full || handed == log.len(), "there is something to hand out");
                    }
                    other => prop_assert!(false, "{other:?}"),
                },
                Step::Ack(n) => if !hand.is_empty() {
                    let held = hand.swap_remove(n % hand.len());
                    prop_assert_eq!(b.ack(0, held.receipt), Outcome::Done);
                    settled.insert(held.content.offset());
                },
                Step::GiveBack(n, ms) => if !hand.is_empty() {
                    let held = hand.swap_remove(n % hand.len());
                    let due = now + Duration::from_millis(ms);
                    away.push((due, held.content.offset()));
                    prop_assert_eq!(b.give_back(held, due), Outcome::Done);
                },
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Commit => {
                    for (part, _, commit) in b.poll_commit() {
                        let below = log.iter().take(handed).filter(|o| **o < commit.offset);
                        prop_assert!(below.into_iter().all(|o| settled.contains(o)), "past an unsettled one");
                        prop_assert!(commit.offset >= sent, "never backwards");
                        sent = commit.offset;
                        b.handle_committed(part, &commit);
                    }
                }
            }
        }
        prop_assert_eq!(settled.len(), log.len());
        prop_assert_eq!(b.unsettled(), 0);
        prop_assert_eq!(sent, Offset(log_end));
        prop_assert!(b.poll_commit().is_empty());
    }
}
