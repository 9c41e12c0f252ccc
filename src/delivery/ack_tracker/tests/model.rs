//! Random operations on the tracker and on a naive model of it, which must agree after each.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    /// Reads the next record of the log; the log grows by one after `gap` missing offsets where it ends.
    Receive {
        gap: u8,
        bytes: u8,
    },
    /// Reads so many records at the end of the log, without a gap.
    ReceiveRun {
        count: u8,
        bytes: u8,
    },
    Behind(u8),
    SkipTo(u8),
    Ack(usize),
    Discard(usize),
    GiveBack(usize),
    TakeAgain(usize),
    AckOld(usize),
    AckUnknown(u8),
    AckPosition(u8),
    AckRange(u8, u8),
    GiveBackRange(u8, u8),
    TakeAgainRange(u8, u8),
    Commit {
        answered: bool,
    },
    /// Ends the assignment and reads on from the last commit, which the broker took or not.
    Rebalance {
        answered: bool,
    },
    /// As if the process was killed: nothing is committed.
    Crash,
    PollAck,
}

fn op() -> impl Strategy<Value = Op> {
    let any_receipt = any::<usize>();
    prop_oneof![
        10 => (prop_oneof![4 => Just(0u8), 1 => 1u8..5], 0u8..20).prop_map(|(gap, bytes)| Op::Receive { gap, bytes }),
        2 => (0u8..12, 0u8..20).prop_map(|(count, bytes)| Op::ReceiveRun { count, bytes }),
        8 => any_receipt.prop_map(Op::Ack),
        1 => any_receipt.prop_map(Op::Discard),
        2 => any_receipt.prop_map(Op::GiveBack),
        2 => any_receipt.prop_map(Op::TakeAgain),
        1 => any_receipt.prop_map(Op::AckOld),
        1 => any::<u8>().prop_map(Op::AckUnknown),
        1 => any::<u8>().prop_map(Op::AckPosition),
        1 => (any::<u8>(), 0u8..12).prop_map(|(at, len)| Op::AckRange(at, len)),
        1 => (any::<u8>(), 0u8..12).prop_map(|(at, len)| Op::GiveBackRange(at, len)),
        1 => (any::<u8>(), 0u8..12).prop_map(|(at, len)| Op::TakeAgainRange(at, len)),
        1 => any::<u8>().prop_map(Op::Behind),
        1 => (0u8..6).prop_map(Op::SkipTo),
        2 => any::<bool>().prop_map(|answered| Op::Commit { answered }),
        1 => any::<bool>().prop_map(|answered| Op::Rebalance { answered }),
        1 => Just(Op::Crash),
        2 => Just(Op::PollAck),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    InHand,
    Returned,
    Settled,
}

/// Everything that was received under one assignment, in a map.
#[derive(Debug, Default)]
struct Model {
    received: BTreeMap<u64, (Held, u64)>,
    next: u64,
}

impl Model {
    fn unsettled(&self) -> impl Iterator<Item = (&u64, &(Held, u64))> {
        self.received.iter().filter(|(_, (held, _))| *held != Held::Settled)
    }

    fn watermark(&self) -> u64 {
        self.unsettled().next().map_or(self.next, |(rank, _)| *rank)
    }

    fn outstanding(&self) -> usize {
        self.received.range(self.watermark()..).count()
    }

    fn bytes(&self) -> u64 {
        self.unsettled().map(|(_, (_, bytes))| bytes).sum()
    }

    fn count(&self, which: Held) -> usize {
        self.received.values().filter(|(held, _)| *held == which).count()
    }

    fn has_room(&self, limits: &Limits) -> bool {
        self.outstanding() < limits.max_outstanding && self.bytes() < limits.max_bytes
    }

    fn settle(&mut self, rank: u64) -> Outcome {
        match self.received.get_mut(&rank) {
            None => Outcome::Unknown,
            Some((Held::Settled, _)) => Outcome::Already,
            Some((held, _)) => {
                *held = Held::Settled;
                Outcome::Done
            }
        }
    }

    fn hold(&mut self, rank: u64, from: Held, to: Held) -> Outcome {
        match self.received.get_mut(&rank) {
            Some((held, _)) if *held == from => {
                *held = to;
                Outcome::Done
            }
            Some(_) => Outcome::Already,
            None => Outcome::Unknown,
        }
    }
}

fn check<P: Position>(tracker: &AckTracker<P>, model: &Model) {
    assert_eq!(tracker.watermark().rank(), model.watermark());
    assert_eq!(tracker.next().rank(), model.next);
    assert_eq!(tracker.outstanding(), model.outstanding());
    assert_eq!(tracker.bytes(), model.bytes());
    assert_eq!(tracker.in_hand(), model.count(Held::InHand));
    assert_eq!(tracker.returned(), model.count(Held::Returned));
    assert_eq!(tracker.has_room(), model.has_room(&tracker.limits));
    assert_eq!(tracker.is_idle(), model.unsettled().next().is_none());
}

fn pick<P: Copy>(receipts: &[Receipt<P>], at: usize) -> Option<Receipt<P>> {
    receipts.get(at.checked_rem(receipts.len())?).copied()
}

/// The operations that offsets and tags have in common. `false` if it is none of them.
fn common<P: Position>(
    op: &Op,
    tracker: &mut AckTracker<P>,
    model: &mut Model,
    receipts: &[Receipt<P>],
    old: &[Receipt<P>],
) -> bool {
    match *op {
        Op::Behind(back) => {
            let rank = model.next.saturating_sub(1 + u64::from(back));
            let next = P::from_rank(model.next);
            assert_eq!(tracker.receive(P::from_rank(rank), 1), Received::Behind { next });
        }
        Op::SkipTo(by) => {
            model.next += u64::from(by);
            tracker.skip_to(P::from_rank(model.next));
        }
        Op::Ack(at) => {
            if let Some(receipt) = pick(receipts, at) {
                assert_eq!(tracker.ack(receipt), model.settle(receipt.position.rank()));
            }
        }
        Op::GiveBack(at) => {
            if let Some(receipt) = pick(receipts, at) {
                let expected = model.hold(receipt.position.rank(), Held::InHand, Held::Returned);
                assert_eq!(tracker.give_back(receipt), expected);
            }
        }
        Op::TakeAgain(at) => {
            if let Some(receipt) = pick(receipts, at) {
                let expected = model.hold(receipt.position.rank(), Held::Returned, Held::InHand);
                assert_eq!(tracker.take_again(receipt), expected);
            }
        }
        Op::AckOld(at) => {
            if let Some(receipt) = pick(old, at) {
                assert_eq!(tracker.ack(receipt), Outcome::Stale);
                assert_eq!(tracker.give_back(receipt), Outcome::Stale);
                assert_eq!(tracker.take_again(receipt), Outcome::Stale);
            }
        }
        Op::AckUnknown(by) => {
            let position = P::from_rank(model.next + u64::from(by));
            let slot = tracker.first + tracker.slots.len() as u64 + u64::from(by);
            let receipt = Receipt { assignment: tracker.assignment, slot, position };
            assert_eq!(tracker.ack(receipt), Outcome::Unknown);
            assert_eq!(tracker.ack_position(tracker.assignment, position), Outcome::Unknown);
        }
        Op::AckPosition(back) => {
            let rank = model.next.saturating_sub(1 + u64::from(back % 24));
            let expected = if rank < model.watermark() { Outcome::Already } else { model.settle(rank) };
            assert_eq!(tracker.ack_position(tracker.assignment, P::from_rank(rank)), expected);
        }
        Op::AckRange(back, len) => {
            let from = model.next.saturating_sub(u64::from(back % 24));
            let to = from + u64::from(len);
            let ranks: Vec<u64> = model.received.range(from..=to).map(|(rank, _)| *rank).collect();
            let expected = ranks.into_iter().filter(|&rank| model.settle(rank) == Outcome::Done).count();
            let range = P::from_rank(from)..=P::from_rank(to);
            assert_eq!(tracker.ack_range(tracker.assignment, range), expected);
        }
        Op::GiveBackRange(back, len) | Op::TakeAgainRange(back, len) => {
            let from = model.next.saturating_sub(u64::from(back % 24));
            let to = from + u64::from(len);
            let ranks: Vec<u64> = model.received.range(from..=to).map(|(rank, _)| *rank).collect();
            let gives = matches!(op, Op::GiveBackRange(..));
            let (is, becomes) =
                if gives { (Held::InHand, Held::Returned) } else { (Held::Returned, Held::InHand) };
            let held = ranks.into_iter().filter(|&rank| model.hold(rank, is, becomes) == Outcome::Done);
            let expected = held.count();
            let range = P::from_rank(from)..=P::from_rank(to);
            let older = Assignment(tracker.assignment.0 - 1);
            assert_eq!(tracker.give_back_range(older, range.clone()), 0);
            assert_eq!(tracker.take_again_range(older, range.clone()), 0);
            let present = tracker.assignment;
            let count = if gives {
                tracker.give_back_range(present, range)
            } else {
                tracker.take_again_range(present, range)
            };
            assert_eq!(count, expected);
        }
        _ => return false,
    }
    true
}

/// A Kafka partition and what its group committed.
struct Log {
    offsets: BTreeSet<i64>,
    end: i64,
    committed: (Offset, String),
    /// Settled under any assignment.
    done: BTreeSet<i64>,
}

impl Log {
    fn read(&mut self, from: i64, gap: u8) -> i64 {
        if let Some(&offset) = self.offsets.range(from..).next() {
            return offset;
        }
        let offset = self.end.max(from) + i64::from(gap);
        self.offsets.insert(offset);
        self.end = offset + 1;
        offset
    }
}

fn receive_offset(
    tracker: &mut AckTracker<Offset>,
    model: &mut Model,
    log: &mut Log,
    receipts: &mut Vec<Receipt<Offset>>,
    (gap, bytes): (u8, u8),
) {
    let offset = Offset(log.read(Offset::from_rank(model.next).0, gap));
    let skip = tracker.should_skip(offset);
    let room = model.has_room(&tracker.limits);
    match tracker.receive(offset, usize::from(bytes)) {
        Received::Full => {
            assert!(!room);
            return;
        }
        Received::Fresh(receipt) => {
            assert!(room && !skip);
            receipts.push(receipt);
            model.received.insert(offset.rank(), (Held::InHand, u64::from(bytes)));
        }
        Received::Skip => {
            assert!(room && skip);
            assert!(log.done.contains(&offset.0), "{offset} is skipped and was never settled");
            model.received.insert(offset.rank(), (Held::Settled, 0));
        }
        other => panic!("{offset}: {other:?}"),
    }
    model.next = offset.rank() + 1;
}

/// A run at the end of the log is taken whole, or not at all.
fn receive_run(tracker: &mut AckTracker<Offset>, model: &mut Model, log: &mut Log, count: u8, bytes: u8) {
    let first = Offset::from_rank(model.next).0;
    let at_end = log.offsets.range(first..).next().is_none();
    let restored = !tracker.restored.is_empty();
    let room = model.has_room(&tracker.limits);
    if !at_end {
        return;
    }
    let taken = tracker.receive_run(Offset(first), usize::from(count), usize::from(bytes));
    assert_eq!(taken, room && !restored && count > 0);
    if !taken {
        return;
    }
    for n in 0..count {
        let offset = first + i64::from(n);
        log.offsets.insert(offset);
        let bytes = if n == 0 { u64::from(bytes) } else { 0 };
        model.received.insert(Offset(offset).rank(), (Held::InHand, bytes));
        model.next = Offset(offset).rank() + 1;
    }
    let next = Offset::from_rank(model.next);
    assert!(!tracker.receive_run(Offset(next.0 - 1), 2, 0), "behind");
}

fn note_done(log: &mut Log, model: &Model) {
    for (rank, (held, _)) in &model.received {
        if *held == Held::Settled {
            log.done.insert(Offset::from_rank(*rank).0);
        }
    }
}

fn take_commit(log: &mut Log, commit: &Commit, model: &Model, limits: &Limits) {
    assert_eq!(commit.offset.rank(), model.watermark());
    assert!(commit.metadata.len() <= limits.metadata_len);
    for offset in log.offsets.range(log.committed.0.0..commit.offset.0) {
        assert!(log.done.contains(offset), "{offset} is committed and was never settled");
    }
    assert!(commit.offset >= log.committed.0, "the commit moved back");
    log.committed = (commit.offset, commit.metadata.clone());
}

fn run_offsets(start: i64, limits: Limits, ops: &[Op]) {
    let mut tracker = AckTracker::for_offsets(FIRST, Offset(start), limits);
    let mut model = Model { next: Offset(start).rank(), ..Model::default() };
    let mut log = Log {
        offsets: BTreeSet::new(),
        end: start,
        committed: (Offset(start), String::new()),
        done: BTreeSet::new(),
    };
    let (mut receipts, mut old) = (Vec::new(), Vec::new());
    for op in ops {
        match *op {
            Op::Receive { gap, bytes } => {
                receive_offset(&mut tracker, &mut model, &mut log, &mut receipts, (gap, bytes));
            }
            Op::ReceiveRun { count, bytes } => {
                receive_run(&mut tracker, &mut model, &mut log, count, bytes);
            }
            // Only what is not in the log may be passed over.
            Op::SkipTo(_) if log.offsets.range(Offset::from_rank(model.next).0..).next().is_some() => {}
            Op::Discard(at) => {
                if let Some(receipt) = pick(&receipts, at) {
                    assert_eq!(tracker.discard(receipt), model.settle(receipt.position.rank()));
                }
            }
            Op::Commit { answered } => {
                note_done(&mut log, &model);
                if let Some(commit) = tracker.poll_commit() {
                    take_commit(&mut log, &commit, &model, &limits);
                    if answered {
                        tracker.handle_committed(&commit);
                        assert_eq!(tracker.poll_commit(), None);
                    }
                }
            }
            Op::Rebalance { .. } | Op::Crash => {
                note_done(&mut log, &model);
                let commit = tracker.revoke();
                if let (Some(commit), Op::Rebalance { answered: true }) = (commit, op) {
                    take_commit(&mut log, &commit, &model, &limits);
                }
                old.append(&mut receipts);
                let next = tracker.assignment().next();
                if matches!(op, Op::Crash) {
                    tracker = AckTracker::for_offsets(next, log.committed.0, limits);
                } else {
                    tracker.reassign(next, log.committed.0).unwrap();
                }
                let restored = tracker.restore(&log.committed.1);
                assert!(matches!(restored, Restored::Map { .. } | Restored::Empty), "{restored:?}");
                model = Model { next: log.committed.0.rank(), ..Model::default() };
            }
            Op::PollAck => {}
            _ => assert!(common(op, &mut tracker, &mut model, &receipts, &old)),
        }
        log.end = log.end.max(Offset::from_rank(model.next).0);
        check(&tracker, &model);
    }
    // Nothing is lost: whoever reads to the end gets all that was never settled.
    while Offset::from_rank(model.next).0 < log.end
        && log.offsets.range(Offset::from_rank(model.next).0..).next().is_some()
    {
        let before = model.next;
        receive_offset(&mut tracker, &mut model, &mut log, &mut receipts, (0, 1));
        if model.next == before {
            tracker.ack_range(tracker.assignment(), Offset(i64::MIN)..=Offset(i64::MAX - 1));
            model.received.values_mut().for_each(|(held, _)| *held = Held::Settled);
        }
    }
    tracker.ack_range(tracker.assignment(), Offset(i64::MIN)..=Offset(i64::MAX - 1));
    model.received.values_mut().for_each(|(held, _)| *held = Held::Settled);
    check(&tracker, &model);
    note_done(&mut log, &model);
    assert!(log.offsets.iter().all(|offset| log.done.contains(offset)), "a record was lost");
}

/// What RabbitMQ holds unacknowledged on a channel. It closes the channel on a tag that it does not hold.
fn broker_ack(unacked: &mut BTreeSet<u64>, ack: Ack) -> Vec<u64> {
    assert!(unacked.contains(&ack.tag.0), "unknown delivery tag {}", ack.tag);
    let from = if ack.multiple { 0 } else { ack.tag.0 };
    let acked: Vec<u64> = unacked.range(from..=ack.tag.0).copied().collect();
    unacked.retain(|tag| !acked.contains(tag));
    acked
}

fn run_tags(limits: Limits, ops: &[Op]) {
    let mut tracker = AckTracker::for_tags(FIRST, limits);
    let mut model = Model { next: 1, ..Model::default() };
    let mut unacked = BTreeSet::new();
    let (mut receipts, mut old) = (Vec::new(), Vec::new());
    for op in ops.iter().chain([&Op::PollAck]) {
        match *op {
            Op::Receive { bytes, .. } => {
                let tag = DeliveryTag(model.next);
                match tracker.receive(tag, usize::from(bytes)) {
                    Received::Fresh(receipt) => {
                        receipts.push(receipt);
                        model.received.insert(tag.0, (Held::InHand, u64::from(bytes)));
                        unacked.insert(tag.0);
                        model.next += 1;
                    }
                    Received::Full => assert!(!model.has_room(&limits)),
                    other => panic!("{other:?}"),
                }
            }
            Op::Discard(at) => {
                if let Some(receipt) = pick(&receipts, at) {
                    let outcome = tracker.discard(receipt);
                    assert_eq!(outcome, model.settle(receipt.position.0));
                    if outcome == Outcome::Done {
                        assert!(unacked.remove(&receipt.position.0));
                    }
                }
            }
            Op::PollAck => {
                while let Some(ack) = tracker.poll_ack() {
                    for tag in broker_ack(&mut unacked, ack) {
                        assert_eq!(model.received[&tag].0, Held::Settled, "{tag} is acknowledged unsettled");
                    }
                }
                let unsettled: BTreeSet<u64> = model.unsettled().map(|(tag, _)| *tag).collect();
                assert_eq!(unacked, unsettled, "the broker holds what is unsettled, and nothing else");
            }
            Op::Rebalance { .. } | Op::Crash => {
                tracker.revoke();
                old.append(&mut receipts);
                tracker.reassign(tracker.assignment().next(), DeliveryTag(1)).unwrap();
                model = Model { next: 1, ..Model::default() };
                unacked.clear();
            }
            Op::Commit { .. } | Op::ReceiveRun { .. } => {}
            _ => assert!(common(op, &mut tracker, &mut model, &receipts, &old)),
        }
        check(&tracker, &model);
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let metadata = prop_oneof![3 => Just(4096usize), 1 => 0usize..40];
    (1usize..40, 1u64..200, metadata).prop_map(|(slots, bytes, metadata)| {
        Limits::default().max_outstanding(slots).max_bytes(bytes).metadata_len(metadata)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn offsets_agree_with_the_model_and_no_record_is_lost(
        start in prop_oneof![Just(0i64), 0i64..1_000_000_000_000],
        limits in limits(),
        ops in prop::collection::vec(op(), 0..60),
    ) {
        run_offsets(start, limits, &ops);
    }

    #[test]
    fn tags_agree_with_the_model_and_the_broker_keeps_what_is_unsettled(
        limits in limits(),
        ops in prop::collection::vec(op(), 0..60),
    ) {
        run_tags(limits, &ops);
    }
}
