use super::super::offset_map::Restored;
use super::*;
use crate::{DeliveryTag, Offset};

mod bugs;
mod model;

const FIRST: Assignment = Assignment(1);

fn offsets(start: i64) -> AckTracker<Offset> {
    AckTracker::for_offsets(FIRST, Offset(start), Limits::default())
}

fn tags() -> AckTracker<DeliveryTag> {
    AckTracker::for_tags(FIRST, Limits::default())
}

#[track_caller]
fn fresh<P: Position>(tracker: &mut AckTracker<P>, position: P) -> Receipt<P> {
    match tracker.receive(position, 1) {
        Received::Fresh(receipt) => receipt,
        other => panic!("{position} is not fresh: {other:?}"),
    }
}

fn receive_all(tracker: &mut AckTracker<Offset>, range: std::ops::Range<i64>) -> Vec<Receipt<Offset>> {
    range.map(|offset| fresh(tracker, Offset(offset))).collect()
}

/// Reads again from a commit, as another process does.
fn restart(commit: &Commit) -> AckTracker<Offset> {
    let mut tracker = AckTracker::for_offsets(Assignment(9), commit.offset, Limits::default());
    let _ = tracker.restore(&commit.metadata);
    tracker
}

#[test]
fn the_watermark_waits_for_the_oldest_unsettled() {
    let mut t = offsets(10);
    let r = receive_all(&mut t, 10..14);
    assert_eq!(t.ack(r[2]), Outcome::Done);
    assert_eq!(t.ack(r[1]), Outcome::Done);
    assert_eq!((t.watermark(), t.held_up(), t.in_hand()), (Offset(10), 2, 2));
    assert_eq!(t.ack(r[0]), Outcome::Done);
    assert_eq!((t.watermark(), t.held_up()), (Offset(13), 0));
    assert_eq!(t.ack(r[3]), Outcome::Done);
    assert_eq!((t.watermark(), t.is_idle(), t.bytes()), (Offset(14), true, 0));
}

#[test]
fn once_all_is_settled_the_commit_is_the_last_received_plus_one() {
    let mut t = offsets(0);
    let a = fresh(&mut t, Offset(5));
    let b = fresh(&mut t, Offset(90));
    assert_eq!(t.ack(b), Outcome::Done);
    assert_eq!(t.ack(a), Outcome::Done);
    assert_eq!(t.poll_commit().unwrap().offset, Offset(91));
}

#[test]
fn nothing_settled_means_no_commit() {
    let mut t = offsets(7);
    assert_eq!(t.poll_commit(), None);
    let r = fresh(&mut t, Offset(7));
    assert_eq!(t.poll_commit(), None);
    assert_eq!(t.give_back(r), Outcome::Done);
    assert_eq!(t.poll_commit(), None);
}

#[test]
fn a_commit_that_failed_is_due_again_and_one_that_passed_is_not() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..2);
    let _ = t.ack(r[0]);
    let commit = t.poll_commit().unwrap();
    assert_eq!(t.poll_commit().as_ref(), Some(&commit));
    // Settled while the commit was under way: due once more.
    let _ = t.ack(r[1]);
    t.handle_committed(&commit);
    let second = t.poll_commit().unwrap();
    assert_eq!(second.offset, Offset(2));
    t.handle_committed(&second);
    assert_eq!(t.poll_commit(), None);
    // An answer that overtook another one does not take it back.
    t.handle_committed(&commit);
    assert_eq!(t.poll_commit(), None);
}

#[test]
fn a_position_that_is_not_ahead_changes_nothing() {
    let mut t = offsets(10);
    let r = receive_all(&mut t, 10..12);
    for behind in [i64::MIN, -1, 0, 9, 10, 11] {
        assert_eq!(t.receive(Offset(behind), 1), Received::Behind { next: Offset(12) });
    }
    assert_eq!(t.receive(Offset(i64::MAX), 1), Received::Behind { next: Offset(12) });
    assert_eq!((t.outstanding(), t.bytes()), (2, 2));
    assert_eq!(t.ack(r[0]), Outcome::Done);
}

#[test]
fn acks_that_are_repeated_or_unknown_change_nothing() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..3);
    let _ = t.ack(r[1]);
    assert_eq!(t.ack(r[1]), Outcome::Already);
    let _ = t.ack(r[0]);
    assert_eq!(t.ack(r[0]), Outcome::Already);
    assert_eq!(t.give_back(r[1]), Outcome::Already);
    let never = Receipt { assignment: FIRST, slot: 77, position: Offset(3) };
    assert_eq!(t.ack(never), Outcome::Unknown);
    let other = Receipt { assignment: FIRST, slot: 2, position: Offset(99) };
    assert_eq!(t.ack(other), Outcome::Unknown);
    assert_eq!((t.watermark(), t.in_hand(), t.bytes()), (Offset(2), 1, 1));
}

#[test]
fn acks_by_position_find_their_slot_with_and_without_gaps() {
    let mut t = offsets(0);
    for offset in [0, 1, 2, 10, 11, 500] {
        let _ = fresh(&mut t, Offset(offset));
    }
    assert_eq!(t.ack_position(FIRST, Offset(11)), Outcome::Done);
    assert_eq!(t.ack_position(FIRST, Offset(11)), Outcome::Already);
    assert_eq!(t.ack_position(FIRST, Offset(5)), Outcome::Unknown);
    assert_eq!(t.ack_position(FIRST, Offset(501)), Outcome::Unknown);
    assert_eq!(t.ack_position(Assignment(0), Offset(0)), Outcome::Stale);
    assert_eq!(t.ack_position(FIRST, Offset(0)), Outcome::Done);
    assert_eq!(t.ack_position(FIRST, Offset(0)), Outcome::Already);
    assert!(t.is_settled(Offset(11)) && t.is_settled(Offset(0)) && !t.is_settled(Offset(1)));
    assert_eq!((t.watermark(), t.held_up()), (Offset(1), 1));
}

#[test]
fn a_batch_is_acknowledged_by_its_range() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..10);
    let _ = t.ack(r[4]);
    assert_eq!(t.ack_range(FIRST, Offset(3)..=Offset(6)), 3);
    assert_eq!((t.watermark(), t.held_up()), (Offset(0), 4));
    assert_eq!(t.ack_range(FIRST, Offset(-5)..=Offset(2)), 3);
    assert_eq!(t.watermark(), Offset(7));
    assert_eq!(t.ack_range(Assignment(7), Offset(0)..=Offset(99)), 0);
    #[allow(clippy::reversed_empty_ranges, reason = "an empty range is the case under test")]
    let none = Offset(9)..=Offset(8);
    assert_eq!(t.ack_range(FIRST, none), 0);
    assert_eq!(t.ack_range(FIRST, Offset(0)..=Offset(i64::MAX)), 3);
    assert!(t.is_idle());
}

#[test]
fn one_given_back_holds_the_watermark_until_it_is_taken_again_and_settled() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..2);
    assert_eq!(t.give_back(r[0]), Outcome::Done);
    assert_eq!(t.give_back(r[0]), Outcome::Already);
    let _ = t.ack(r[1]);
    assert_eq!((t.watermark(), t.in_hand(), t.returned()), (Offset(0), 0, 1));
    assert_eq!(t.take_again(r[0]), Outcome::Done);
    assert_eq!(t.take_again(r[0]), Outcome::Already);
    assert_eq!(t.ack(r[0]), Outcome::Done);
    assert_eq!(t.take_again(r[0]), Outcome::Already);
    assert_eq!((t.watermark(), t.in_hand(), t.returned()), (Offset(2), 0, 0));
}

#[test]
fn one_that_never_ends_stops_the_flow_at_the_limit() {
    let mut t = AckTracker::for_offsets(FIRST, Offset(0), Limits::default().max_outstanding(4));
    let r = receive_all(&mut t, 0..4);
    assert_eq!(t.receive(Offset(4), 1), Received::Full);
    for receipt in &r[1..] {
        assert_eq!(t.ack(*receipt), Outcome::Done);
    }
    assert!(!t.has_room(), "the oldest holds up the rest");
    assert_eq!(t.oldest_unsettled(), Some(Offset(0)));
    let _ = t.ack(r[0]);
    assert!(t.has_room());
    let _ = fresh(&mut t, Offset(4));
}

#[test]
fn the_limit_in_bytes_lets_a_single_large_one_through() {
    let mut t = AckTracker::for_offsets(FIRST, Offset(0), Limits::default().max_bytes(100));
    let Received::Fresh(large) = t.receive(Offset(0), 5_000) else { panic!("must fit alone") };
    assert_eq!(t.receive(Offset(1), 1), Received::Full);
    let _ = t.ack(large);
    assert_eq!(t.bytes(), 0);
    let small = fresh(&mut t, Offset(1));
    let _ = fresh(&mut t, Offset(2));
    let _ = t.ack(small);
    assert_eq!(t.bytes(), 1);
}

#[test]
fn an_older_assignment_cannot_be_taken_up_again() {
    let mut t = offsets(0);
    t.reassign(Assignment(5), Offset(3)).unwrap();
    for old in [1, 4, 5] {
        let e = t.reassign(Assignment(old), Offset(0)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Fenced);
    }
    assert_eq!((t.assignment(), t.watermark()), (Assignment(5), Offset(3)));
}

#[test]
fn what_was_done_beyond_the_commit_is_skipped_after_a_restart() {
    let mut t = offsets(100);
    let r = receive_all(&mut t, 100..110);
    for i in [2, 3, 4, 8] {
        let _ = t.ack(r[i]);
    }
    let mut again = restart(&t.poll_commit().unwrap());
    let skipped: Vec<i64> = (100..112).filter(|&o| again.should_skip(Offset(o))).collect();
    assert_eq!(skipped, [102, 103, 104, 108]);
    let mut redone = Vec::new();
    for offset in 100..110 {
        match again.receive(Offset(offset), 1) {
            Received::Fresh(receipt) => redone.push(receipt),
            Received::Skip => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(redone.iter().map(|r| r.position().0).collect::<Vec<_>>(), [100, 101, 105, 106, 107, 109]);
    for receipt in redone {
        let _ = again.ack(receipt);
    }
    assert_eq!(again.watermark(), Offset(110));
}

#[test]
fn a_second_restart_remembers_what_the_first_one_knew() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..1000);
    for receipt in &r[500..900] {
        let _ = t.ack(*receipt);
    }
    let mut second = restart(&t.poll_commit().unwrap());
    // It gets only as far as the middle of the completed ones before it ends, too.
    let zero = fresh(&mut second, Offset(0));
    for offset in 1..600 {
        let _ = second.receive(Offset(offset), 1);
    }
    let _ = second.ack(zero);
    let third = restart(&second.poll_commit().unwrap());
    assert_eq!(third.watermark(), Offset(1));
    assert!((1..1000).all(|o| third.should_skip(Offset(o)) == (500..900).contains(&o)));
}

#[test]
fn a_map_cannot_be_restored_into_an_assignment_that_has_begun() {
    let mut t = offsets(0);
    let _ = fresh(&mut t, Offset(0));
    assert_eq!(t.restore(""), Restored::Late);
    let _ = t.revoke();
    assert_eq!(t.restore(""), Restored::Late);
}

#[test]
fn tags_that_are_settled_in_order_are_acknowledged_in_one_frame() {
    let mut t = tags();
    let r: Vec<_> = (1..=5).map(|tag| fresh(&mut t, DeliveryTag(tag))).collect();
    let _ = t.ack(r[1]);
    let _ = t.ack(r[0]);
    let _ = t.ack(r[2]);
    let _ = t.ack(r[4]);
    assert_eq!(t.poll_ack(), Some(Ack { tag: DeliveryTag(3), multiple: true }));
    assert_eq!(t.poll_ack(), Some(Ack { tag: DeliveryTag(5), multiple: false }));
    assert_eq!(t.poll_ack(), None);
    let _ = t.ack(r[3]);
    assert_eq!(t.poll_ack(), Some(Ack { tag: DeliveryTag(4), multiple: false }));
    assert_eq!(t.poll_ack(), None);
}

#[test]
fn a_multiple_ack_never_names_a_tag_that_the_broker_no_longer_holds() {
    let mut t = tags();
    let r: Vec<_> = (1..=4).map(|tag| fresh(&mut t, DeliveryTag(tag))).collect();
    // 4 is acknowledged alone, 3 is rejected: the highest that the broker holds is 2.
    let _ = t.ack(r[3]);
    assert_eq!(t.poll_ack(), Some(Ack { tag: DeliveryTag(4), multiple: false }));
    assert_eq!(t.discard(r[2]), Outcome::Done);
    let _ = t.ack(r[1]);
    let _ = t.ack(r[0]);
    assert_eq!(t.poll_ack(), Some(Ack { tag: DeliveryTag(2), multiple: true }));
    assert_eq!(t.poll_ack(), None);
    assert!(t.is_idle());
}

#[test]
fn acks_that_nobody_polls_take_no_more_memory_than_the_ring() {
    let mut t = tags();
    for pair in 0..10_000 {
        let a = fresh(&mut t, DeliveryTag(2 * pair + 1));
        let b = fresh(&mut t, DeliveryTag(2 * pair + 2));
        let _ = t.ack(b);
        let _ = t.ack(a);
    }
    assert!(t.alone.as_ref().unwrap().len() < 64);
    assert_eq!(t.poll_ack(), Some(Ack { tag: DeliveryTag(20_000), multiple: true }));
    assert_eq!(t.poll_ack(), None);
}

#[test]
fn the_ring_gives_memory_back_after_a_burst() {
    let mut t = AckTracker::for_offsets(FIRST, Offset(0), Limits::default().max_outstanding(1 << 20));
    let r = receive_all(&mut t, 0..200_000);
    assert!(t.slots.capacity() <= 2 * 200_000 + 16 && size_of::<Slot>() == 16);
    for receipt in r {
        let _ = t.ack(receipt);
    }
    assert!(t.slots.capacity() <= 2048, "{}", t.slots.capacity());
}
