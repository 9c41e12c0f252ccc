//! Bugs that other trackers had, one test each.

use super::*;

#[test]
fn an_entry_of_an_old_assignment_does_not_swallow_a_fresh_record_after_a_rebalance() {
    let mut t = offsets(100);
    let old = receive_all(&mut t, 100..105);
    let _ = t.ack(old[3]);
    let _ = t.revoke();
    t.reassign(Assignment(2), Offset(100)).unwrap();
    // 103 was settled under the old assignment and its commit was lost: it is a record like any other now.
    let new = receive_all(&mut t, 100..105);
    for receipt in &old {
        assert_eq!(t.ack(*receipt), Outcome::Stale);
        assert_eq!(t.give_back(*receipt), Outcome::Stale);
        assert_eq!(t.take_again(*receipt), Outcome::Stale);
        assert_eq!(t.discard(*receipt), Outcome::Stale);
    }
    assert_eq!((t.watermark(), t.in_hand(), t.poll_commit()), (Offset(100), 5, None));
    assert_eq!(t.ack(new[0]), Outcome::Done);
    assert_eq!(t.watermark(), Offset(101));
}

#[test]
fn what_was_settled_before_a_revoke_is_in_the_last_commit() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..6);
    let _ = t.ack(r[0]);
    let _ = t.ack(r[4]);
    let last = t.revoke().unwrap();
    assert_eq!(last.offset, Offset(1));
    assert!(restart(&last).should_skip(Offset(4)));
    assert_eq!(t.revoke(), None);
    assert_eq!(t.receive(Offset(6), 1), Received::Revoked);
    assert!(!t.has_room());
}

#[test]
fn what_was_in_hand_at_a_revoke_comes_again() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..3);
    let _ = t.ack(r[0]);
    let last = t.revoke().unwrap();
    // The handler ends after the revoke: too late, and it must not show in any commit.
    assert_eq!(t.ack(r[1]), Outcome::Stale);
    assert_eq!(t.poll_commit(), None);
    let mut next = restart(&last);
    let again = receive_all(&mut next, 1..3);
    assert_eq!(again.len(), 2);
}

#[test]
fn the_answer_to_a_commit_of_an_old_assignment_does_not_count_for_the_new_one() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..2);
    let _ = t.ack(r[0]);
    let old = t.poll_commit().unwrap();
    let _ = t.revoke();
    t.reassign(Assignment(2), Offset(0)).unwrap();
    let r = receive_all(&mut t, 0..2);
    let _ = t.ack(r[0]);
    t.handle_committed(&old);
    assert_eq!(t.poll_commit().unwrap().offset, Offset(1));
}

#[test]
fn the_answer_to_a_commit_of_a_tracker_that_is_gone_does_not_count_for_its_successor() {
    let mut gone = offsets(0);
    for receipt in receive_all(&mut gone, 0..9) {
        let _ = gone.ack(receipt);
    }
    let old = gone.poll_commit().unwrap();
    let mut t = AckTracker::for_offsets(Assignment(2), Offset(0), Limits::default());
    let r = receive_all(&mut t, 0..2);
    let _ = t.ack(r[0]);
    t.handle_committed(&old);
    assert_eq!(t.poll_commit().unwrap().offset, Offset(1));
}

#[test]
fn the_map_of_an_old_assignment_does_not_swallow_records_of_a_new_one() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..10);
    let _ = t.ack(r[5]);
    let mut t = restart(&t.poll_commit().unwrap());
    assert!(t.should_skip(Offset(5)));
    // The group's offsets were reset by hand: everything shall be read again.
    let _ = t.revoke();
    t.reassign(Assignment(10), Offset(0)).unwrap();
    assert!(!t.should_skip(Offset(5)));
    assert_eq!(receive_all(&mut t, 0..10).len(), 10);
}

#[test]
fn completion_out_of_order_does_not_commit_past_unfinished_work() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..100);
    for receipt in r[1..].iter().rev() {
        let _ = t.ack(*receipt);
        assert_eq!(t.poll_commit().unwrap().offset, Offset(0));
    }
}

#[test]
fn a_failed_record_is_not_skipped_when_the_next_one_commits() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..2);
    assert_eq!(t.give_back(r[0]), Outcome::Done);
    let _ = t.ack(r[1]);
    let commit = t.poll_commit().unwrap();
    assert_eq!(commit.offset, Offset(0));
    let mut again = restart(&commit);
    let _ = fresh(&mut again, Offset(0));
    assert_eq!(again.receive(Offset(1), 1), Received::Skip);
}

#[test]
fn a_commit_under_way_does_not_mark_a_failing_record_done() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..2);
    let _ = t.ack(r[0]);
    let commit = t.poll_commit().unwrap();
    let _ = t.give_back(r[1]);
    t.handle_committed(&commit);
    assert_eq!((commit.offset, t.watermark(), t.poll_commit()), (Offset(1), Offset(1), None));
}

#[test]
fn a_full_tracker_still_settles_redelivers_and_commits() {
    // Poll and commit must not wait for each other.
    let mut t = AckTracker::for_offsets(FIRST, Offset(0), Limits::default().max_outstanding(2));
    let r = receive_all(&mut t, 0..2);
    assert!(!t.has_room());
    assert_eq!(t.give_back(r[0]), Outcome::Done);
    assert_eq!(t.take_again(r[0]), Outcome::Done);
    assert_eq!(t.ack(r[0]), Outcome::Done);
    assert_eq!(t.poll_commit().unwrap().offset, Offset(1));
    assert!(t.has_room());
}

#[test]
fn a_drain_ends_although_nothing_more_is_received() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..3);
    t.skip_to(Offset(10));
    for receipt in r {
        let _ = t.ack(receipt);
    }
    assert!(t.is_idle());
    let last = t.poll_commit().unwrap();
    t.handle_committed(&last);
    assert_eq!((last.offset, t.revoke()), (Offset(10), None));
}

#[test]
fn frequent_rebalances_never_move_the_commit_back_or_ahead() {
    let mut committed = (Offset(0), String::new());
    let mut t = offsets(0);
    let mut done = std::collections::BTreeSet::new();
    for round in 2..200 {
        let _ = t.restore(&committed.1);
        let mut held = Vec::new();
        for offset in committed.0.0..committed.0.0 + 20 {
            match t.receive(Offset(offset), 1) {
                Received::Fresh(receipt) => held.push(receipt),
                Received::Skip => assert!(done.contains(&offset), "{offset} was skipped and never done"),
                other => panic!("{other:?}"),
            }
        }
        // Some of them end before the next rebalance, others do not.
        for (at, receipt) in held.into_iter().enumerate() {
            if at % 3 == round % 3 {
                assert_eq!(t.ack(receipt), Outcome::Done);
                assert!(done.insert(receipt.position().0), "done twice without need");
            }
        }
        let commit = t.revoke().unwrap();
        assert!(commit.offset >= committed.0);
        assert!((committed.0.0..commit.offset.0).all(|offset| done.contains(&offset)));
        committed = (commit.offset, commit.metadata);
        t.reassign(Assignment(round as u64), committed.0).unwrap();
    }
    assert!(committed.0 > Offset(500), "{:?}", committed.0);
}

#[test]
fn metadata_that_does_not_fit_is_cut_from_the_far_end_and_never_wrong() {
    let mut t = AckTracker::for_offsets(FIRST, Offset(0), Limits::default().max_outstanding(200_000));
    let mut left = Vec::new();
    for receipt in receive_all(&mut t, 0..100_000) {
        // No pattern that either form could hold: 100,000 bits are more than 4,096 characters.
        let mixed = (receipt.position().0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61;
        if receipt.position().0 > 0 && mixed < 4 {
            let _ = t.ack(receipt);
        } else {
            left.push(receipt.position().0);
        }
    }
    let commit = t.poll_commit().unwrap();
    assert!(commit.metadata.len() <= 4096 && commit.metadata.len() > 4000, "{}", commit.metadata.len());
    assert!(commit.metadata.is_ascii());
    let again = restart(&commit);
    let kept = (0..100_000).filter(|&o| again.should_skip(Offset(o))).count();
    assert!(kept > 10_000, "{kept}");
    assert!(left.iter().all(|&offset| !again.should_skip(Offset(offset))), "an unfinished one is skipped");
    let last = (0..100_000).rfind(|&o| again.should_skip(Offset(o))).unwrap();
    let (below, done) = (0..last)
        .filter(|o| left.binary_search(o).is_err())
        .fold((0, 0), |(n, done), o| (n + 1, done + usize::from(again.should_skip(Offset(o)))));
    assert_eq!(below, done, "only the far end is cut");
}

#[test]
fn compacted_gaps_do_not_hold_the_watermark() {
    let mut t = offsets(0);
    let r: Vec<_> = [3, 4, 40, 1_000_000_000_000].map(|o| fresh(&mut t, Offset(o))).into();
    assert_eq!(t.watermark(), Offset(3));
    for receipt in r {
        let _ = t.ack(receipt);
    }
    assert_eq!(t.watermark(), Offset(1_000_000_000_001));
    assert_eq!(t.outstanding(), 0);
}

#[test]
fn a_gap_between_done_records_costs_no_run_of_its_own() {
    // Every second offset is a transaction marker.
    let mut t = offsets(0);
    let r: Vec<_> = (0..1000).map(|n| fresh(&mut t, Offset(2 * n))).collect();
    for receipt in &r[1..] {
        let _ = t.ack(*receipt);
    }
    let commit = t.poll_commit().unwrap();
    assert!(commit.metadata.len() < 24, "{}", commit.metadata);
    let again = restart(&commit);
    assert!((1..1000).all(|n| again.should_skip(Offset(2 * n))));
}

#[test]
fn a_transaction_marker_at_the_end_does_not_leave_a_lag_of_one() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..3);
    t.skip_to(Offset(4));
    for receipt in r {
        let _ = t.ack(receipt);
    }
    assert_eq!(t.poll_commit().unwrap().offset, Offset(4));
    // And where nothing is outstanding, markers alone move it.
    t.skip_to(Offset(6));
    t.skip_to(Offset(5));
    assert_eq!(t.poll_commit().unwrap().offset, Offset(6));
    let _ = fresh(&mut t, Offset(6));
}

#[test]
fn a_log_that_was_reset_to_an_earlier_offset_is_not_swallowed() {
    let mut t = offsets(1000);
    let old = fresh(&mut t, Offset(1000));
    // The topic was made anew. The tracker says that these are behind; it does not count them as done.
    assert_eq!(t.receive(Offset(0), 1), Received::Behind { next: Offset(1001) });
    t.reassign(Assignment(2), Offset(0)).unwrap();
    let r = fresh(&mut t, Offset(0));
    assert_eq!(t.ack(old), Outcome::Stale);
    let _ = t.ack(r);
    assert_eq!(t.poll_commit().unwrap().offset, Offset(1));
}

#[test]
fn retention_that_removed_the_committed_offset_does_not_stop_the_restore() {
    let mut t = offsets(0);
    let r = receive_all(&mut t, 0..10);
    for receipt in &r[5..8] {
        let _ = t.ack(*receipt);
    }
    let mut again = restart(&t.poll_commit().unwrap());
    // 0 to 5 are gone from the log.
    assert_eq!(again.receive(Offset(6), 1), Received::Skip);
    assert_eq!(again.watermark(), Offset(7));
    assert_eq!(again.receive(Offset(7), 1), Received::Skip);
    let _ = fresh(&mut again, Offset(8));
}

#[test]
fn metadata_of_another_program_is_ignored() {
    for text in ["", "NO_METADATA", "{\"a\":1}", "mu2:AAAA", "ünïcode", "mu1:", "mu1:!!!!", "mu1:AAAA"] {
        let mut t = offsets(5);
        assert!(!matches!(t.restore(text), Restored::Map { .. }), "{text:?}");
        let _ = fresh(&mut t, Offset(5));
    }
}

#[test]
fn a_map_copied_beside_another_offset_is_ignored() {
    // Mirroring tools translate the offset and copy the metadata.
    let mut t = offsets(100);
    let r = receive_all(&mut t, 100..110);
    let _ = t.ack(r[5]);
    let commit = t.poll_commit().unwrap();
    let mut mirrored = AckTracker::for_offsets(FIRST, Offset(40), Limits::default());
    assert_eq!(mirrored.restore(&commit.metadata), Restored::OtherOffset { base: Offset(100) });
    assert_eq!(receive_all(&mut mirrored, 40..50).len(), 10);
}

#[test]
fn an_ack_after_a_reconnect_is_stale_and_acknowledges_nothing() {
    let mut t = tags();
    let old = fresh(&mut t, DeliveryTag(1));
    let _ = fresh(&mut t, DeliveryTag(2));
    t.revoke();
    t.reassign(Assignment(2), DeliveryTag(1)).unwrap();
    // The new channel counts from 1 again: the same tag is another message.
    let new = fresh(&mut t, DeliveryTag(1));
    assert_eq!(t.ack(old), Outcome::Stale);
    assert_eq!(t.poll_ack(), None);
    assert_eq!(t.ack(new), Outcome::Done);
    assert_eq!(t.poll_ack(), Some(Ack { tag: DeliveryTag(1), multiple: false }));
}

#[test]
fn acks_that_were_due_at_a_reconnect_are_not_sent_on_the_new_channel() {
    let mut t = tags();
    let r: Vec<_> = (1..=3).map(|tag| fresh(&mut t, DeliveryTag(tag))).collect();
    let _ = t.ack(r[0]);
    let _ = t.ack(r[2]);
    t.revoke();
    t.reassign(Assignment(2), DeliveryTag(1)).unwrap();
    assert_eq!(t.poll_ack(), None);
}
