//! Sequences of operations on a tracker of offsets beside a naive model: a list of what was received.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use muslin::Offset;
use muslin::delivery::ack_tracker::{AckTracker, Assignment, Limits, Outcome, Receipt, Received};

#[derive(Debug, Arbitrary)]
enum Op {
    Receive { gap: u8, bytes: u8 },
    Again { back: u8 },
    Ack { which: u16 },
    GiveBack { which: u16 },
    TakeAgain { which: u16 },
    AckRange { from: u8, len: u8 },
    AckPosition { at: u8 },
    SkipTo { gap: u8 },
    Commit { taken: bool },
    Restart { forget: u8 },
    Revoke,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    InHand,
    Returned,
    Settled,
}

struct Model {
    assignment: u64,
    assigned: bool,
    start: i64,
    next: i64,
    /// Everything received under this assignment.
    received: Vec<(i64, State, u64)>,
    /// Every receipt ever given, with its assignment.
    receipts: Vec<(u64, i64, Receipt<Offset>)>,
}

impl Model {
    fn watermark(&self) -> i64 {
        self.received.iter().find(|r| r.1 != State::Settled).map_or(self.next, |r| r.0)
    }
    fn outstanding(&self) -> usize {
        let watermark = self.watermark();
        self.received.iter().filter(|r| r.0 >= watermark).count()
    }
    fn count(&self, state: State) -> usize {
        self.received.iter().filter(|r| r.1 == state).count()
    }
    fn bytes(&self) -> u64 {
        self.received.iter().filter(|r| r.1 != State::Settled).map(|r| r.2).sum()
    }
    fn change(&mut self, assignment: u64, at: i64, from: &[State], to: State) -> Outcome {
        if !self.assigned || assignment != self.assignment {
            return Outcome::Stale;
        }
        let received = self.received.iter_mut().find(|r| r.0 == at).unwrap();
        if from.contains(&received.1) {
            received.1 = to;
            Outcome::Done
        } else {
            Outcome::Already
        }
    }
}

const SLOTS: usize = 24;
const BYTES: u64 = 2000;

fuzz_target!(|ops: Vec<Op>| {
    let limits = Limits::default().max_outstanding(SLOTS).max_bytes(BYTES);
    let mut tracker = AckTracker::for_offsets(Assignment(1), Offset(0), limits);
    let mut model =
        Model { assignment: 1, assigned: true, start: 0, next: 0, received: vec![], receipts: vec![] };

    for op in ops {
        match op {
            Op::Receive { gap, bytes } => {
                receive(&mut tracker, &mut model, i64::from(gap % 4), u64::from(bytes))
            }
            Op::Again { back } => {
                let at = model.next - 1 - i64::from(back);
                if at >= 0 && model.assigned {
                    assert!(
                        matches!(tracker.receive(Offset(at), 1), Received::Behind { next } if next.get() == model.next)
                    );
                }
            }
            Op::Ack { which } | Op::GiveBack { which } | Op::TakeAgain { which } => {
                if model.receipts.is_empty() {
                    continue;
                }
                let (assignment, at, receipt) = model.receipts[usize::from(which) % model.receipts.len()];
                let (got, expected) = match op {
                    Op::Ack { .. } => (
                        tracker.ack(receipt),
                        model.change(assignment, at, &[State::InHand, State::Returned], State::Settled),
                    ),
                    Op::GiveBack { .. } => (
                        tracker.give_back(receipt),
                        model.change(assignment, at, &[State::InHand], State::Returned),
                    ),
                    _ => (
                        tracker.take_again(receipt),
                        model.change(assignment, at, &[State::Returned], State::InHand),
                    ),
                };
                assert_eq!(got, expected, "{op:?} of offset {at}");
            }
            Op::AckRange { from, len } => {
                let from = model.start + i64::from(from);
                let range = Offset(from)..=Offset(from + i64::from(len));
                let mut expected = 0;
                if model.assigned {
                    for r in &mut model.received {
                        if range.contains(&Offset(r.0)) && r.1 != State::Settled {
                            r.1 = State::Settled;
                            expected += 1;
                        }
                    }
                }
                assert_eq!(tracker.ack_range(Assignment(model.assignment), range), expected);
            }
            Op::AckPosition { at } => {
                let at = model.start + i64::from(at);
                let expected = if !model.assigned {
                    Outcome::Stale
                } else if at < model.watermark() {
                    Outcome::Already
                } else if model.received.iter().any(|r| r.0 == at) {
                    model.change(model.assignment, at, &[State::InHand, State::Returned], State::Settled)
                } else {
                    Outcome::Unknown
                };
                assert_eq!(tracker.ack_position(Assignment(model.assignment), Offset(at)), expected);
                assert_eq!(tracker.ack_position(Assignment(0), Offset(at)), Outcome::Stale);
            }
            Op::SkipTo { gap } => {
                if model.assigned {
                    tracker.skip_to(Offset(model.next + i64::from(gap % 8)));
                    model.next += i64::from(gap % 8);
                }
            }
            Op::Commit { taken } => {
                if let Some(commit) = tracker.poll_commit() {
                    assert_eq!(commit.offset.get(), model.watermark());
                    assert!(commit.metadata.len() <= limits.metadata_len);
                    if taken {
                        tracker.handle_committed(&commit);
                        assert!(tracker.poll_commit().is_none(), "the same commit is due twice");
                    }
                }
            }
            Op::Restart { forget } => restart(&mut tracker, &mut model, limits, forget),
            Op::Revoke => {
                let last = tracker.revoke();
                if let Some(last) = last {
                    assert_eq!(last.offset.get(), model.watermark());
                }
                model.next = model.watermark();
                model.received.clear();
                model.assigned = false;
            }
        }
        check(&tracker, &model);
    }
});

fn receive(tracker: &mut AckTracker<Offset>, model: &mut Model, gap: i64, bytes: u64) {
    let at = model.next + gap;
    let received = tracker.receive(Offset(at), bytes as usize);
    if !model.assigned {
        assert!(matches!(received, Received::Revoked));
    } else if model.outstanding() >= SLOTS || model.bytes() >= BYTES {
        assert!(matches!(received, Received::Full));
    } else {
        let Received::Fresh(receipt) = received else { panic!("{received:?} at {at}") };
        model.received.push((at, State::InHand, bytes));
        model.receipts.push((model.assignment, at, receipt));
        model.next = at + 1;
    }
}

/// Another process takes over from the last commit and reads the log again: what it is told to skip was settled, and
/// what was not settled is handed out.
fn restart(tracker: &mut AckTracker<Offset>, model: &mut Model, limits: Limits, forget: u8) {
    let Some(commit) = tracker.poll_commit() else { return };
    let mut next = AckTracker::for_offsets(Assignment(model.assignment + 1), commit.offset, limits);
    let metadata = if forget % 4 == 0 { "" } else { &commit.metadata };
    let _ = next.restore(metadata);
    let old = std::mem::take(&mut model.received);
    model.assignment += 1;
    model.start = commit.offset.get();
    model.next = commit.offset.get();
    model.assigned = true;
    for (at, state, bytes) in old.into_iter().filter(|r| r.0 >= commit.offset.get()) {
        match next.receive(Offset(at), bytes as usize) {
            Received::Skip => {
                assert_eq!(state, State::Settled, "offset {at} was never settled and is skipped");
                model.received.push((at, State::Settled, 0));
            }
            Received::Fresh(receipt) => {
                assert!(
                    state != State::Settled || forget % 4 == 0 || metadata.is_empty(),
                    "offset {at} was settled"
                );
                model.received.push((at, State::InHand, bytes));
                model.receipts.push((model.assignment, at, receipt));
            }
            Received::Full => break,
            other => panic!("{other:?} at {at}"),
        }
        model.next = at + 1;
    }
    *tracker = next;
}

fn check(tracker: &AckTracker<Offset>, model: &Model) {
    assert_eq!(tracker.is_assigned(), model.assigned);
    assert_eq!(tracker.watermark().get(), model.watermark());
    assert_eq!(tracker.next().get(), model.next);
    assert_eq!(tracker.outstanding(), model.outstanding());
    assert_eq!(tracker.in_hand(), model.count(State::InHand));
    assert_eq!(tracker.returned(), model.count(State::Returned));
    assert_eq!(tracker.bytes(), model.bytes());
    assert!(tracker.outstanding() <= SLOTS);
    for r in &model.received {
        assert_eq!(tracker.is_settled(Offset(r.0)), r.1 == State::Settled, "offset {}", r.0);
    }
}
