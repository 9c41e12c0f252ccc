#![allow(clippy::disallowed_methods, reason = "a start for the test's own clock")]

use proptest::prelude::*;

use super::*;
use crate::codec::record_batch::BatchList;

const OFFSET_OUT_OF_RANGE: i16 = 1;
/// What a broker may answer of a batch that it has appended.
const AFTER_APPEND: &[i16] = &[
    code::UNKNOWN_SERVER_ERROR,
    code::UNKNOWN_TOPIC_OR_PARTITION,
    code::NOT_LEADER,
    code::REQUEST_TIMED_OUT,
    code::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    code::STORAGE_ERROR,
];
const NODE: NodeId = NodeId(1);

fn settings() -> Settings {
    Settings {
        linger: Duration::from_millis(5),
        batch_size: 1 << 10,
        max_request_size: 4 << 10,
        compression: Compression::None,
        level: None,
        delivery_timeout: Duration::from_secs(30),
        partitioning: Partitioning::default(),
    }
}

fn machine() -> Accumulator {
    Accumulator::new(settings(), ProducerId(7), ProducerEpoch(0))
}

fn topic() -> Topic {
    Topic::new("t").unwrap()
}

fn append(a: &mut Accumulator, partition: i32, value: &str, now: Instant) -> Arc<Completion> {
    let record = Record::to_topic(topic()).partition(partition).value(value.to_owned());
    let size = BatchBuilder::upper_bound(None, Some(value.as_bytes()), []);
    a.append(&record, 4, size, Timestamp(0), now, || 0).unwrap().completion
}

fn sendings(a: &mut Accumulator, now: Instant) -> Vec<Sending> {
    a.poll_sendings(now, |_, _| Some(NODE), |_| true).requests.into_iter().flat_map(|(_, s)| s).collect()
}

fn written(base: i64) -> Answer {
    Answer::Broker {
        code: 0,
        written: Written { base_offset: Offset(base), append_time: None },
        message: None,
    }
}

fn refused(code: i16) -> Answer {
    Answer::Broker { code, written: Written { base_offset: Offset(-1), append_time: None }, message: None }
}

use crate::Offset;

#[test]
fn a_batch_leaves_when_its_linger_is_over_and_not_before() {
    let (mut a, start) = (machine(), Instant::now());
    append(&mut a, 0, "x", start);
    assert!(sendings(&mut a, start).is_empty());
    let due = a.poll_timeout(start).unwrap();
    assert_eq!(due, start + Duration::from_millis(5));
    assert_eq!(sendings(&mut a, due).len(), 1);
    assert!(!a.is_idle(), "it is in flight");
}

#[test]
fn a_full_batch_and_a_hurry_do_not_linger() {
    let (mut a, now) = (machine(), Instant::now());
    append(&mut a, 0, &"x".repeat(700), now);
    append(&mut a, 0, &"y".repeat(700), now);
    assert_eq!(sendings(&mut a, now).len(), 1, "the first is full; the second lingers");
    append(&mut a, 1, "z", now);
    a.hurry();
    assert_eq!(sendings(&mut a, now).len(), 1, "one of a partition is in flight at a time");
    a.calm();
}

#[test]
fn a_record_over_the_limit_is_refused_and_changes_nothing() {
    let (mut a, now) = (machine(), Instant::now());
    let value = "x".repeat(5000);
    let record = Record::to_topic(topic()).partition(0).value(value);
    let e = a.append(&record, 4, 5100, Timestamp(0), now, || 0).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TooLarge);
    assert!(e.to_string().contains('t') && e.to_string().contains("4096"), "{e}");
    assert!(a.is_idle());
}

#[test]
fn without_a_leader_nothing_leaves_and_the_topic_is_named() {
    let (mut a, now) = (machine(), Instant::now());
    append(&mut a, 0, "x", now);
    a.hurry();
    let plan = a.poll_sendings(now, |_, _| None, |_| true);
    assert!(plan.requests.is_empty());
    assert_eq!(plan.leaderless, [topic()]);
}

#[test]
fn an_expired_batch_that_never_left_is_surely_not_written() {
    let (mut a, start) = (machine(), Instant::now());
    append(&mut a, 0, "x", start);
    let late = start + settings().delivery_timeout;
    let expired = a.poll_expired(late);
    assert_eq!(expired.len(), 1);
    let e = expired.into_iter().next().unwrap().outcome.unwrap_err();
    assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Timeout, false));
    assert!(a.is_idle());
}

#[test]
fn a_lost_answer_keeps_bytes_and_sequence_for_the_next_attempt() {
    let (mut a, mut now) = (machine(), Instant::now());
    append(&mut a, 0, "x", now);
    a.hurry();
    let mut first = sendings(&mut a, now).remove(0);
    let bytes = first.seal().unwrap();
    let lost = Error::new(ErrorKind::Disconnected, "cut").ambiguous();
    let (resolved, refresh) = a.handle_answer(first, Answer::Failed(lost), now);
    assert!(resolved.is_none() && refresh);
    assert!(sendings(&mut a, now).is_empty(), "it rests before the next attempt");
    now = a.poll_timeout(now).unwrap();
    let mut again = sendings(&mut a, now).remove(0);
    assert_eq!(again.seal().unwrap(), bytes);
}

#[test]
fn a_lost_sequence_on_a_first_attempt_begins_a_new_epoch_and_is_sent_again() {
    let (mut a, mut now) = (machine(), Instant::now());
    a.hurry();
    append(&mut a, 0, "x", now);
    let mut s = sendings(&mut a, now).remove(0);
    s.seal().unwrap();
    let (resolved, _) = a.handle_answer(s, refused(code::OUT_OF_ORDER_SEQUENCE), now);
    assert!(resolved.is_none());
    now = a.poll_timeout(now).unwrap();
    let mut again = sendings(&mut a, now).remove(0);
    let view = BatchList::new(again.seal().unwrap()).next().unwrap().unwrap();
    assert_eq!((view.producer_epoch(), view.base_sequence().0), (ProducerEpoch(1), 0));
    // After an attempt that may have been written, a new number could write it twice: it fails instead.
    let (none, _) =
        a.handle_answer(again, Answer::Failed(Error::new(ErrorKind::Timeout, "slow").ambiguous()), now);
    assert!(none.is_none());
    now = a.poll_timeout(now).unwrap();
    let third = sendings(&mut a, now).remove(0);
    let (resolved, _) = a.handle_answer(third, refused(code::UNKNOWN_PRODUCER_ID), now);
    assert!(resolved.unwrap().outcome.unwrap_err().is_ambiguous());
    assert!(a.is_idle());
}

#[test]
fn a_refused_batch_leaves_no_gap_in_the_sequence() {
    let (mut a, now) = (machine(), Instant::now());
    a.hurry();
    append(&mut a, 0, "x", now);
    let s = sendings(&mut a, now).remove(0);
    let (resolved, refresh) = a.handle_answer(s, refused(code::MESSAGE_TOO_LARGE), now);
    let e = resolved.unwrap().outcome.unwrap_err();
    assert_eq!((e.kind(), e.is_ambiguous(), refresh), (ErrorKind::TooLarge, false, false));
    append(&mut a, 0, "y", now);
    let mut s = sendings(&mut a, now).remove(0);
    let view = BatchList::new(s.seal().unwrap()).next().unwrap().unwrap();
    assert_eq!(view.base_sequence().0, 0);
    let (resolved, _) = a.handle_answer(s, refused(OFFSET_OUT_OF_RANGE), now);
    assert_eq!(resolved.unwrap().outcome.unwrap_err().kind(), ErrorKind::Broker);
}

#[test]
fn a_batch_whose_leader_went_after_the_append_is_ambiguous_and_its_numbers_are_not_used_again() {
    for &code in AFTER_APPEND {
        let (mut a, now) = (machine(), Instant::now());
        let mut log = Log::default();
        a.hurry();
        append(&mut a, 0, "x", now);
        let mut s = sendings(&mut a, now).remove(0);
        log.append(s.seal().unwrap());
        // No leader comes until the delivery timeout.
        let late = now + settings().delivery_timeout;
        let resolved = a.handle_answer(s, refused(code), late).0.unwrap();
        assert!(resolved.outcome.unwrap_err().is_ambiguous(), "{code}");
        // Under the old numbers the broker would take the next record for this one, and it would be nowhere.
        append(&mut a, 0, "y", late);
        let mut s = sendings(&mut a, late).remove(0);
        log.append(s.seal().unwrap());
        assert_eq!(log.values, ["x", "y"], "{code}");
    }
}

/// A broker's partition: takes batches in sequence, recognises its last five.
#[derive(Default)]
struct Log {
    values: Vec<String>,
    epoch: i16,
    next: i32,
    recent: VecDeque<(i32, i64)>,
}

impl Log {
    fn append(&mut self, bytes: Bytes) -> Answer {
        let batch = BatchList::new(bytes).next().unwrap().unwrap();
        let (epoch, base) = (batch.producer_epoch().0, batch.base_sequence().0);
        if epoch < self.epoch {
            return refused(code::INVALID_PRODUCER_EPOCH);
        }
        if epoch > self.epoch {
            if base != 0 {
                return refused(code::OUT_OF_ORDER_SEQUENCE);
            }
            (self.epoch, self.next) = (epoch, 0);
            self.recent.clear();
        }
        if let Some((_, offset)) = self.recent.iter().find(|(b, _)| *b == base) {
            return written(*offset);
        }
        if base != self.next {
            return refused(code::OUT_OF_ORDER_SEQUENCE);
        }
        let offset = self.values.len() as i64;
        for record in &batch.records(1 << 20).unwrap() {
            let value = record.unwrap().value().unwrap().to_vec();
            self.values.push(String::from_utf8(value).unwrap());
        }
        self.next += batch.record_count() as i32;
        self.recent.push_back((base, offset));
        if self.recent.len() > 5 {
            self.recent.pop_front();
        }
        written(offset)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(i32, usize),
    Send,
    /// The oldest one in flight: reaches the broker or not, its answer comes back or not.
    Answer {
        reaches: bool,
        returns: bool,
    },
    /// The oldest one in flight is refused with this code, before it was appended.
    Refuse(i16),
    /// The oldest one in flight is appended, or is a duplicate, and answered with this code all the same: its leader
    /// lost the partition while it waited for the replicas.
    RefuseAfter(i16),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2, 1usize..500).prop_map(|(p, n)| Step::Append(p, n)),
        4 => Just(Step::Send),
        4 => Just(Step::Answer { reaches: true, returns: true }),
        1 => Just(Step::Answer { reaches: true, returns: false }),
        1 => Just(Step::Answer { reaches: false, returns: false }),
        1 => prop_oneof![Just(code::NOT_LEADER), Just(code::MESSAGE_TOO_LARGE)].prop_map(Step::Refuse),
        1 => prop::sample::select(AFTER_APPEND).prop_map(Step::RefuseAfter),
        2 => (1u64..3000).prop_map(Step::Wait),
        1 => (10_000u64..40_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever the network does: what is reported written is written once and in order, what is reported surely
    /// failed is not there, and everything resolves.
    #[test]
    fn outcomes_agree_with_the_log(steps in prop::collection::vec(step(), 1..120)) {
        let (mut a, mut now) = (machine(), Instant::now());
        let mut logs = [Log::default(), Log::default()];
        let mut flying: VecDeque<Sending> = VecDeque::new();
        let mut appended: Vec<(usize, String, Arc<Completion>)> = Vec::new();
        // The network heals at the end: enough rounds to bring everything home.
        let healing = std::iter::repeat_n([Step::Wait(1100), Step::Send, Step::Answer { reaches: true, returns: true },
            Step::Answer { reaches: true, returns: true }], 300).flatten();
        let mut outcomes: HashMap<*const Completion, Result<Written>> = HashMap::new();
        let mut n = 0;
        for step in steps.into_iter().chain(healing) {
            let mut resolved = Vec::new();
            match step {
                Step::Append(p, size) => {
                    n += 1;
                    let value = format!("{n}-{}", "x".repeat(size));
                    let completion = append(&mut a, p, &value, now);
                    appended.push((p as usize, value, completion));
                }
                Step::Send => {
                    for mut s in sendings(&mut a, now) {
                        s.seal().unwrap();
                        prop_assert!(flying.iter().all(|f| f.partition != s.partition), "two of a partition");
                        flying.push_back(s);
                    }
                }
                Step::Answer { reaches, returns } => if let Some(mut s) = flying.pop_front() {
                    let answer = if reaches {
                        logs[s.partition.0 as usize].append(s.seal().unwrap())
                    } else {
                        written(0)
                    };
                    let answer = if returns { answer } else {
                        Answer::Failed(Error::new(ErrorKind::Disconnected, "cut").ambiguous())
                    };
                    resolved.extend(a.handle_answer(s, answer, now).0);
                },
                Step::Refuse(code) => if let Some(s) = flying.pop_front() {
                    resolved.extend(a.handle_answer(s, refused(code), now).0);
                },
                Step::RefuseAfter(code) => if let Some(mut s) = flying.pop_front() {
                    let answer = match logs[s.partition.0 as usize].append(s.seal().unwrap()) {
                        Answer::Broker { code: 0, .. } => refused(code),
                        refusal => refusal,
                    };
                    resolved.extend(a.handle_answer(s, answer, now).0);
                },
                Step::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    resolved.extend(a.poll_expired(now));
                }
            }
            for r in resolved {
                let key = Arc::as_ptr(r.promise.completion());
                let outcome = match &r.outcome { Ok(w) => Ok(*w), Err(e) => Err(e.duplicate()) };
                prop_assert!(outcomes.insert(key, outcome).is_none(), "resolved twice");
            }
        }
        prop_assert!(a.is_idle() && flying.is_empty(), "everything came home");
        for (p, log) in logs.iter().enumerate() {
            let mine: Vec<_> = appended.iter().filter(|(q, ..)| *q == p).collect();
            for (_, value, completion) in &mine {
                let count = log.values.iter().filter(|v| *v == value).count();
                match outcomes.get(&Arc::as_ptr(completion)) {
                    Some(Ok(_)) => prop_assert_eq!(count, 1, "written once"),
                    Some(Err(e)) if e.is_ambiguous() => prop_assert!(count <= 1, "never twice"),
                    Some(Err(_)) => prop_assert_eq!(count, 0, "surely not written"),
                    None => prop_assert!(false, "no outcome"),
                }
            }
            let order: Vec<usize> = log.values.iter()
                .map(|v| mine.iter().position(|(_, value, _)| value == v).unwrap()).collect();
            prop_assert!(order.is_sorted(), "out of order");
        }
    }
}
