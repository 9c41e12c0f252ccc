use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A time to count from: the tracker only compares.
#[allow(clippy::disallowed_methods, reason = "a test needs some instant; nothing waits")]
fn zero() -> Instant {
    static ZERO: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *ZERO.get_or_init(Instant::now)
}

fn at(seconds: u64) -> Instant {
    zero() + Duration::from_secs(seconds)
}

type Settled = Vec<(u64, Verdict<u16>)>;

fn ack(c: &mut Confirms<u64, u8, u16>, tag: u64, multiple: bool) -> (Settled, bool) {
    let mut out = Vec::new();
    let ok = c.handle_ack(tag, multiple, |w, v| out.push((w, v))).is_ok();
    (out, ok)
}

fn published(n: u64) -> Confirms<u64, u8, u16> {
    let mut c = Confirms::new();
    for i in 1..=n {
        assert_eq!(c.handle_publish(at(i), Some(7), i), i);
    }
    c
}

#[test]
fn a_multiple_ack_settles_all_up_to_it_once() {
    let mut c = published(5);
    assert_eq!(ack(&mut c, 2, false).0, [(2, Verdict::Confirmed)]);
    assert_eq!(
        ack(&mut c, 4, true).0,
        [(1, Verdict::Confirmed), (3, Verdict::Confirmed), (4, Verdict::Confirmed)]
    );
    assert_eq!(ack(&mut c, 4, true), (vec![], true));
    assert_eq!(ack(&mut c, 0, true).0, [(5, Verdict::Confirmed)]);
    assert_eq!(c.len(), 0);
}

#[test]
fn a_confirm_of_something_never_published_is_an_error_and_settles_nothing() {
    let mut c = published(1);
    assert_eq!(c.handle_ack(2, true, |_, _| unreachable!()), Err(UnknownTag { tag: 2, last: 1 }));
    assert_eq!(c.handle_nack(0, false, |_, _| unreachable!()), Err(UnknownTag { tag: 0, last: 1 }));
    assert_eq!(c.len(), 1);
}

#[test]
fn returns_of_equal_messages_go_to_the_publishes_in_their_order() {
    let mut c = published(3);
    assert!(c.handle_return(&7, 312) && c.handle_return(&7, 313));
    assert!(!c.handle_return(&8, 312), "nobody published this");
    assert_eq!(
        ack(&mut c, 3, true).0,
        [(1, Verdict::Returned(312)), (2, Verdict::Returned(313)), (3, Verdict::Confirmed)]
    );
}

#[test]
fn a_return_that_comes_out_of_order_is_still_matched() {
    let mut c = Confirms::<u64, u8, u16>::new();
    c.handle_publish(at(0), Some(1), 1);
    c.handle_publish(at(0), Some(2), 2);
    assert!(c.handle_return(&2, 312) && c.handle_return(&1, 312));
    assert!(!c.handle_return(&1, 312), "it was returned already");
}

#[test]
fn a_late_publish_expires_once_and_can_still_be_confirmed() {
    let mut c = published(3);
    let mut late = Vec::new();
    c.handle_timeout(at(2), |w| late.push(*w));
    c.handle_timeout(at(2), |w| late.push(*w));
    assert_eq!(late, [1, 2]);
    assert_eq!(ack(&mut c, 1, false).0, [(1, Verdict::Confirmed)]);
    c.handle_timeout(at(9), |w| late.push(*w));
    assert_eq!(late, [1, 2, 3]);
}

#[test]
fn a_stuck_publish_does_not_make_the_tracker_grow() {
    let mut c = published(1);
    for i in 2..10_000 {
        c.handle_publish(at(i), None, i);
        ack(&mut c, i, false);
    }
    assert_eq!(c.len(), 1);
}

#[derive(Debug, Clone)]
enum Op {
    Publish(Option<u8>),
    Return(u8),
    Ack(u64, bool),
    Nack(u64, bool),
    Expire(u64),
    End,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => proptest::option::of(0u8..4).prop_map(Op::Publish),
        2 => (0u8..5).prop_map(Op::Return),
        4 => (0u64..40, any::<bool>()).prop_map(|(t, m)| Op::Ack(t, m)),
        2 => (0u64..40, any::<bool>()).prop_map(|(t, m)| Op::Nack(t, m)),
        1 => (0u64..60).prop_map(Op::Expire),
        1 => Just(Op::End),
    ]
}

/// Keeps everything and searches everything.
#[derive(Default)]
struct Model {
    all: Vec<ModelEntry>,
    searched_to: usize,
}

struct ModelEntry {
    key: Option<u8>,
    sent: u64,
    open: bool,
    returned: Option<u16>,
    expired: bool,
}

impl Model {
    fn return_(&mut self, key: u8, reason: u16) -> bool {
        let fits = |e: &ModelEntry| e.open && e.returned.is_none() && e.key == Some(key);
        let after = (self.searched_to..self.all.len()).find(|i| fits(&self.all[*i]));
        let found = after.or_else(|| (0..self.searched_to.min(self.all.len())).find(|i| fits(&self.all[*i])));
        if let Some(i) = found {
            self.all[i].returned = Some(reason);
            self.searched_to = i + 1;
        }
        found.is_some()
    }

    fn settle(&mut self, tag: u64, multiple: bool, otherwise: &Verdict<u16>) -> Option<Settled> {
        let n = self.all.len() as u64;
        if tag > n || (tag == 0 && !multiple) {
            return None;
        }
        let range = match (tag, multiple) {
            (0, true) => 1..=n,
            (_, true) => 1..=tag,
            (_, false) => tag..=tag,
        };
        let mut out = Vec::new();
        for t in range {
            let e = &mut self.all[t as usize - 1];
            if std::mem::take(&mut e.open) {
                out.push((t, e.returned.map_or(otherwise.clone(), Verdict::Returned)));
            }
        }
        Some(out)
    }
}

proptest! {
    #[test]
    fn it_does_what_a_tracker_that_keeps_everything_does(ops in proptest::collection::vec(op(), 0..80)) {
        let (mut c, mut m) = (Confirms::<u64, u8, u16>::new(), Model::default());
        for (clock, op) in ops.into_iter().enumerate() {
            let clock = clock as u64;
            match op {
                Op::Publish(key) => {
                    let tag = m.all.len() as u64 + 1;
                    prop_assert_eq!(c.handle_publish(at(clock), key, tag), tag);
                    m.all.push(ModelEntry { key, sent: clock, open: true, returned: None, expired: false });
                }
                Op::Return(key) => prop_assert_eq!(c.handle_return(&key, 312), m.return_(key, 312)),
                Op::Ack(tag, multiple) => {
                    let mut out = Vec::new();
                    let ok = c.handle_ack(tag, multiple, |w, v| out.push((w, v))).is_ok();
                    prop_assert_eq!(ok.then_some(out), m.settle(tag, multiple, &Verdict::Confirmed));
                }
                Op::Nack(tag, multiple) => {
                    let mut out = Vec::new();
                    let ok = c.handle_nack(tag, multiple, |w, v| out.push((w, v))).is_ok();
                    prop_assert_eq!(ok.then_some(out), m.settle(tag, multiple, &Verdict::Refused));
                }
                Op::Expire(cutoff) => {
                    let mut out = Vec::new();
                    c.handle_timeout(at(cutoff), |w| out.push(*w));
                    let want: Vec<u64> = (1..).zip(&mut m.all)
                        .filter(|(_, e)| e.open && !e.expired && e.sent <= cutoff)
                        .map(|(t, e)| { e.expired = true; t })
                        .collect();
                    prop_assert_eq!(out, want);
                }
                Op::End => {
                    let out: Vec<u64> = c.handle_end().map(|(w, _)| w).collect();
                    let want: Vec<u64> = (1..).zip(&mut m.all)
                        .filter_map(|(t, e)| std::mem::take(&mut e.open).then_some(t))
                        .collect();
                    prop_assert_eq!(out, want);
                }
            }
            prop_assert_eq!(c.len(), m.all.iter().filter(|e| e.open).count());
        }
    }
}
