#![allow(clippy::disallowed_methods, reason = "a start for the test's own clock")]

mod model;

use bytes::Bytes;
use futures_util::FutureExt;

use super::*;
use crate::Offset;
use crate::codec::record_batch::{BatchList, BatchView};
use crate::kafka::producer::Placed;
use crate::kafka::producer::completion::{Queued, Written};

/// What a broker may answer of a batch that it has appended.
const AFTER_APPEND: &[i16] = &[
    code::UNKNOWN_SERVER_ERROR,
    code::UNKNOWN_TOPIC_OR_PARTITION,
    code::NOT_LEADER,
    code::REQUEST_TIMED_OUT,
    code::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    code::STORAGE_ERROR,
];
const OFFSET_OUT_OF_RANGE: i16 = 1;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const NODE: NodeId = NodeId(1);

fn settings() -> Settings {
    Settings {
        linger: Duration::from_millis(5),
        batch_size: 1 << 10,
        max_request_size: 4 << 10,
        buffer_memory: 64 << 10,
        compression: Compression::None,
        level: None,
        delivery_timeout: Duration::from_secs(30),
        retry_backoff: (Duration::from_millis(100), Duration::from_secs(1)),
        partitioning: Partitioning::default(),
        max_in_flight: 5,
        idempotent: true,
        transactional: false,
    }
}

fn topic() -> Topic {
    Topic::new("t").unwrap()
}

/// A machine with its clock, and a topic of four partitions led by one broker.
struct Bed {
    machine: Accumulator,
    now: Instant,
}

impl Bed {
    fn new(settings: Settings) -> Self {
        let mut machine = Accumulator::new(settings, ProducerId(7), ProducerEpoch(0));
        let now = Instant::now();
        machine.handle_topic(&topic(), [Some(NODE); 4].into_iter(), now);
        Self { machine, now }
    }

    fn try_append(&mut self, partition: i32, value: &str) -> Result<Append> {
        let record = Record::to_topic(topic()).partition(partition).value(value.to_owned());
        let now = self.now;
        self.machine.append(&record, false, Timestamp(0), || now, || 0)
    }

    fn append(&mut self, partition: i32, value: &str) -> Queued {
        match self.try_append(partition, value).unwrap() {
            Append::Done { completion, index, .. } => Queued::new(completion, index, Timestamp(0)),
            other => panic!("{other:?}"),
        }
    }

    /// A record whose outcome is of no interest.
    fn put(&mut self, partition: i32, value: &str) {
        drop(self.append(partition, value));
    }

    /// The requests that leave now.
    fn requests(&mut self) -> Vec<Vec<Sending>> {
        let expired = self.machine.poll_expired(self.now);
        expired.into_iter().for_each(Resolved::tell);
        self.machine.poll_sendings(self.now).requests.into_iter().map(|(_, s)| s).collect()
    }

    /// The one batch that leaves now.
    fn one(&mut self) -> Sending {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        let mut request = requests.remove(0);
        assert_eq!(request.len(), 1, "{request:?}");
        request.remove(0)
    }

    fn answer(&mut self, sending: Sending, answer: Answer) {
        let outcomes = self.machine.handle_answers(NODE, [(sending, answer)], self.now, 0);
        outcomes.resolved.into_iter().for_each(Resolved::tell);
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }
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

fn lost() -> Answer {
    Answer::Failed(Error::new(ErrorKind::Disconnected, "cut").ambiguous())
}

fn outcome(queued: &mut Queued) -> Option<Result<Placed>> {
    queued.now_or_never()
}

fn failure(queued: &mut Queued) -> (ErrorKind, bool) {
    let e = outcome(queued).unwrap().unwrap_err();
    (e.kind(), e.is_ambiguous())
}

fn view(sending: &mut Sending) -> BatchView {
    BatchList::new(sending.seal().unwrap().join()).next().unwrap().unwrap()
}

/// Epoch and first number of a batch.
fn stamp(sending: &mut Sending) -> (i16, i32) {
    let view = view(sending);
    (view.producer_epoch().0, view.base_sequence().0)
}

fn big() -> String {
    "x".repeat(700)
}

#[test]
fn nothing_waits_while_nothing_is_in_flight() {
    let mut bed = Bed::new(settings());
    bed.put(0, "x");
    let first = bed.one();
    bed.put(0, "y");
    bed.put(1, "z");
    assert!(bed.requests().is_empty(), "the broker is busy: they linger");
    bed.answer(first, written(0));
    assert_eq!(bed.requests().into_iter().map(|r| r.len()).collect::<Vec<_>>(), [2], "it is idle again");
}

#[test]
fn a_batch_lingers_while_its_broker_is_busy_and_no_longer() {
    let mut bed = Bed::new(settings());
    bed.put(0, "x");
    let _busy = bed.one();
    bed.put(1, "y");
    let due = bed.machine.poll_timeout(bed.now).unwrap();
    assert_eq!(due, bed.now + Duration::from_millis(5));
    bed.wait(5);
    assert_eq!(bed.one().partition, Partition(1));
}

#[test]
fn a_full_batch_and_a_hurry_do_not_linger() {
    let mut bed = Bed::new(settings());
    bed.put(3, "x");
    let _busy = bed.one();
    bed.put(0, &big());
    bed.put(0, &big());
    assert_eq!(bed.one().partition, Partition(0), "the first is full; the second lingers");
    bed.put(1, "z");
    bed.machine.hurry(bed.now);
    let partitions: Vec<_> = bed.requests().iter().flatten().map(|s| s.partition.0).collect();
    assert_eq!(partitions, [1], "0 has one on its way that nobody has acknowledged");
    bed.machine.calm();
}

#[test]
fn up_to_five_batches_of_a_partition_are_in_flight_once_the_first_is_acknowledged() {
    let mut bed = Bed::new(settings());
    for _ in 0..12 {
        bed.put(0, &big());
    }
    let mut first = bed.one();
    assert_eq!(stamp(&mut first), (0, 0));
    assert!(bed.requests().is_empty());
    bed.answer(first, written(0));
    let mut flying: Vec<Sending> = bed.requests().into_iter().flatten().collect();
    assert_eq!(flying.iter_mut().map(stamp).collect::<Vec<_>>(), [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
    bed.answer(flying.remove(0), written(1));
    assert_eq!(stamp(&mut bed.one()), (0, 6));
}

#[test]
fn a_record_over_the_limit_is_refused_and_changes_nothing() {
    let mut bed = Bed::new(settings());
    let e = bed.try_append(0, &"x".repeat(5000)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TooLarge);
    assert!(e.to_string().contains("topic t") && e.to_string().contains("4096"), "{e}");
    assert!(bed.machine.is_idle());
}

#[test]
fn a_full_buffer_takes_no_record_and_those_that_wait_go_first() {
    let mut bed = Bed::new(Settings { buffer_memory: 4 << 10, ..settings() });
    let mut taken = 0;
    while let Append::Done { .. } = bed.try_append(0, &big()).unwrap() {
        taken += 1;
    }
    assert_eq!(taken, 5);
    let first = bed.one();
    bed.machine.waiting = 1;
    bed.answer(first, written(0));
    assert!(matches!(bed.try_append(0, "small").unwrap(), Append::Full), "another waits");
    bed.machine.waiting = 0;
    assert!(matches!(bed.try_append(0, &big()).unwrap(), Append::Done { .. }));
}

#[test]
fn without_a_leader_nothing_leaves_and_the_topic_is_named_until_it_has_one() {
    let mut bed = Bed::new(settings());
    bed.machine.handle_topic(&topic(), [None, Some(NODE)].into_iter(), bed.now);
    bed.put(0, "x");
    assert!(bed.requests().is_empty());
    assert_eq!(bed.machine.leaderless(), [topic()]);
    bed.machine.handle_topic(&topic(), [None, None].into_iter(), bed.now);
    assert_eq!(bed.machine.leaderless(), [topic()], "asked again");
    bed.machine.handle_topic(&topic(), [Some(NodeId(2)), None].into_iter(), bed.now);
    assert!(bed.machine.leaderless().is_empty());
    assert_eq!(bed.one().partition, Partition(0));
}

#[test]
fn partitions_that_were_added_are_used() {
    let mut bed = Bed::new(settings());
    assert_eq!(bed.try_append(5, "x").unwrap_err().kind(), ErrorKind::NotFound);
    bed.machine.handle_topic(&topic(), [Some(NODE); 6].into_iter(), bed.now);
    bed.put(5, "x");
    assert_eq!(bed.one().partition, Partition(5));
}

#[test]
fn a_slow_broker_holds_up_no_other() {
    let mut bed = Bed::new(settings());
    let leaders = [Some(NodeId(1)), Some(NodeId(2)), Some(NodeId(1)), Some(NodeId(1))];
    bed.machine.handle_topic(&topic(), leaders.into_iter(), bed.now);
    for _ in 0..20 {
        bed.put(0, &big());
    }
    let _slow = bed.requests();
    for n in 0..3 {
        bed.put(1, "x");
        let (node, mut request) = bed.machine.poll_sendings(bed.now).requests.remove(0);
        assert_eq!(node, NodeId(2));
        let sending = request.remove(0);
        bed.machine
            .handle_answers(node, [(sending, written(n))], bed.now, 0)
            .resolved
            .into_iter()
            .for_each(Resolved::tell);
    }
}

#[test]
fn a_broker_that_wants_to_be_spared_gets_nothing_until_then() {
    let mut bed = Bed::new(settings());
    bed.machine.handle_throttle(NODE, bed.now + Duration::from_millis(300));
    bed.put(0, "x");
    assert!(bed.requests().is_empty());
    let due = bed.machine.poll_timeout(bed.now).unwrap();
    assert_eq!(due, bed.now + Duration::from_millis(300));
    bed.now = due;
    bed.one();
}

#[test]
fn an_expired_batch_that_never_left_is_surely_not_written() {
    let mut bed = Bed::new(settings());
    bed.machine.handle_topic(&topic(), [None; 4].into_iter(), bed.now);
    let mut record = bed.append(0, "x");
    bed.wait(30_000);
    assert!(bed.requests().is_empty());
    assert_eq!(failure(&mut record), (ErrorKind::Timeout, false));
    assert!(bed.machine.is_idle());
}

#[test]
fn a_lost_answer_keeps_bytes_and_sequence_for_the_next_attempt() {
    let mut bed = Bed::new(settings());
    bed.put(0, "x");
    let mut first = bed.one();
    let bytes = first.seal().unwrap();
    bed.answer(first, lost());
    assert!(bed.requests().is_empty(), "it rests before the next attempt");
    bed.now = bed.machine.poll_timeout(bed.now).unwrap();
    assert_eq!(bed.one().seal().unwrap(), bytes);
}

#[test]
fn after_a_cut_the_first_batch_comes_again_alone_and_then_the_others_in_order() {
    let mut bed = Bed::new(settings());
    bed.put(0, "x");
    let first = bed.one();
    bed.answer(first, written(0));
    for _ in 0..6 {
        bed.put(0, &big());
    }
    let flying: Vec<Sending> = bed.requests().into_iter().flatten().collect();
    assert_eq!(flying.len(), 5);
    // Their failures come in any order.
    for sending in flying.into_iter().rev() {
        bed.answer(sending, lost());
    }
    bed.wait(1500);
    let mut again = bed.one();
    assert_eq!(stamp(&mut again), (0, 1));
    bed.answer(again, written(1));
    let mut others: Vec<Sending> = bed.requests().into_iter().flatten().collect();
    assert_eq!(others.iter_mut().map(stamp).collect::<Vec<_>>(), [(0, 2), (0, 3), (0, 4), (0, 5), (0, 6)]);
    for (sending, base) in others.into_iter().zip(2..) {
        bed.answer(sending, written(base));
    }
    assert!(bed.machine.is_idle());
}

#[test]
fn a_batch_refused_for_the_gap_before_it_waits_for_the_one_in_the_gap() {
    let mut bed = Bed::new(settings());
    bed.put(0, "x");
    let first = bed.one();
    bed.answer(first, written(0));
    for _ in 0..3 {
        bed.put(0, &big());
    }
    bed.machine.hurry(bed.now);
    let [a, b, c]: [Sending; 3] =
        bed.requests().into_iter().flatten().collect::<Vec<_>>().try_into().unwrap();
    bed.answer(a, refused(NOT_ENOUGH_REPLICAS));
    bed.answer(b, refused(code::OUT_OF_ORDER_SEQUENCE));
    bed.answer(c, refused(code::OUT_OF_ORDER_SEQUENCE));
    assert!(bed.requests().is_empty(), "the first rests, and the others wait for it");
    bed.wait(1500);
    let mut again: Vec<Sending> = bed.requests().into_iter().flatten().collect();
    let stamps: Vec<_> = again.iter_mut().map(stamp).collect();
    assert_eq!(stamps, [(0, 1), (0, 2), (0, 3)], "no new epoch was needed");
}

#[test]
fn what_follows_a_refused_batch_is_numbered_anew() {
    let mut bed = Bed::new(settings());
    bed.put(0, "x");
    let first = bed.one();
    bed.answer(first, written(0));
    let mut records: Vec<_> = (0..3).map(|_| bed.append(0, &big())).collect();
    bed.machine.hurry(bed.now);
    let [a, b, c]: [Sending; 3] =
        bed.requests().into_iter().flatten().collect::<Vec<_>>().try_into().unwrap();
    bed.answer(a, refused(OFFSET_OUT_OF_RANGE));
    assert_eq!(failure(&mut records[0]), (ErrorKind::Broker, false));
    // One was refused, of the other the answer is lost; neither can be written without the first.
    bed.answer(b, refused(code::OUT_OF_ORDER_SEQUENCE));
    bed.wait(1500);
    assert!(bed.requests().is_empty(), "nothing of the new epoch leaves while one of the old is away");
    bed.answer(c, lost());
    bed.wait(1500);
    let mut b = bed.one();
    assert_eq!(stamp(&mut b), (1, 0));
    bed.answer(b, written(1));
    bed.wait(1500);
    let mut c = bed.one();
    assert_eq!(stamp(&mut c), (1, 1));
    bed.answer(c, written(2));
    let offsets = records[1..].iter_mut().map(|r| outcome(r).unwrap().unwrap().offset.0);
    assert_eq!(offsets.collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_lost_sequence_on_a_first_attempt_begins_a_new_epoch_and_is_sent_again() {
    let mut bed = Bed::new(settings());
    let mut record = bed.append(0, "x");
    let mut s = bed.one();
    s.seal().unwrap();
    bed.answer(s, refused(code::OUT_OF_ORDER_SEQUENCE));
    bed.wait(1500);
    let mut again = bed.one();
    assert_eq!(stamp(&mut again), (1, 0));
    // After an attempt that may have been written, a new number could write it twice: it fails instead.
    bed.answer(again, lost());
    bed.wait(1500);
    let third = bed.one();
    bed.answer(third, refused(code::UNKNOWN_PRODUCER_ID));
    assert!(failure(&mut record).1);
    assert!(bed.machine.is_idle());
}

#[test]
fn a_refused_batch_leaves_no_gap_in_the_sequence() {
    let mut bed = Bed::new(settings());
    let mut record = bed.append(0, "x");
    let s = bed.one();
    bed.answer(s, refused(code::MESSAGE_TOO_LARGE));
    assert_eq!(failure(&mut record), (ErrorKind::TooLarge, false));
    bed.put(0, "y");
    assert_eq!(stamp(&mut bed.one()), (0, 0));
}

#[test]
fn a_batch_that_the_broker_finds_too_large_comes_again_in_halves_and_the_next_ones_are_smaller() {
    let mut bed = Bed::new(settings());
    bed.put(3, "x");
    let _busy = bed.one();
    let mut records: Vec<_> = (0..8).map(|n| bed.append(0, &format!("{n}{}", "x".repeat(100)))).collect();
    bed.machine.hurry(bed.now);
    let mut whole = bed.one();
    let (bytes, size) = (whole.seal().unwrap().join(), bed.machine.used);
    bed.answer(whole, refused(code::MESSAGE_TOO_LARGE));
    assert_eq!(bed.machine.used, size, "the buffer holds the same records");
    let mut values = Vec::new();
    for base in [0, 4] {
        let mut half = bed.one();
        assert_eq!(stamp(&mut half), (0, base));
        let part = view(&mut half);
        assert!(part.as_bytes().len() < bytes.len() * 2 / 3);
        for record in &part.records(1 << 20).unwrap() {
            values.push(record.unwrap().value().unwrap()[0] - b'0');
        }
        bed.answer(half, written(40 + i64::from(base)));
    }
    assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 7]);
    let offsets = records.iter_mut().map(|r| outcome(r).unwrap().unwrap().offset.0);
    assert_eq!(offsets.collect::<Vec<_>>(), [40, 41, 42, 43, 44, 45, 46, 47]);
    for _ in 0..8 {
        bed.put(0, &"x".repeat(100));
    }
    let mut next = bed.requests().remove(0).remove(0);
    assert!(view(&mut next).as_bytes().len() < bytes.len() * 2 / 3);
}

#[test]
fn a_value_that_is_most_of_a_batch_leaves_from_where_it_is_and_comes_again_the_same() {
    let mut bed = Bed::new(settings());
    let value = Bytes::from(vec![7; settings().batch_size]);
    let mut records: Vec<Queued> = Vec::new();
    for value in [value.clone(), Bytes::from_static(b"small")] {
        let record = Record::to_topic(topic()).partition(0).key("k").value(value);
        match bed.machine.append(&record, false, Timestamp(0), || bed.now, || 0).unwrap() {
            Append::Done { completion, index, .. } => {
                records.push(Queued::new(completion, index, Timestamp(0)))
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bed.machine.used > value.len());
    let mut s = bed.one();
    let (_, rest) = s.seal().unwrap().into_parts();
    assert_eq!(rest[0].as_ptr(), value.as_ptr());
    let read = |s: &mut Sending| {
        let records = view(s).records(1 << 20).unwrap();
        records.iter().map(|r| r.unwrap().value().unwrap().to_vec()).collect::<Vec<_>>()
    };
    let both = |read: Vec<Vec<u8>>| read == [&value[..], b"small"];
    assert!(both(read(&mut s)));
    // A new epoch: the bytes are stamped anew.
    bed.answer(s, refused(code::UNKNOWN_PRODUCER_ID));
    bed.wait(5_000);
    let mut s = bed.one();
    assert_eq!(stamp(&mut s), (1, 0));
    assert!(both(read(&mut s)));
    bed.answer(s, written(4));
    let offsets = records.iter_mut().map(|r| outcome(r).unwrap().unwrap().offset.0);
    assert_eq!(offsets.collect::<Vec<_>>(), [4, 5]);
    assert_eq!(bed.machine.used, 0);
}

#[test]
fn a_batch_whose_leader_went_after_the_append_is_ambiguous_and_its_numbers_are_not_used_again() {
    for &code in AFTER_APPEND {
        let mut bed = Bed::new(settings());
        let mut log = model::Log::default();
        let mut record = bed.append(0, "x");
        let mut s = bed.one();
        log.append(s.seal().unwrap().join());
        // No leader comes until the delivery timeout.
        bed.wait(30_000);
        bed.answer(s, refused(code));
        assert!(failure(&mut record).1, "{code}");
        // Under the old numbers the broker would take the next record for this one, and it would be nowhere.
        bed.put(0, "y");
        let mut s = bed.one();
        log.append(s.seal().unwrap().join());
        assert_eq!(log.values, ["x", "y"], "{code}");
    }
}

#[test]
fn a_batch_follows_its_leader_at_once_but_not_for_ever() {
    let mut bed = Bed::new(settings());
    bed.put(0, "x");
    for attempt in 1..8 {
        let mut requests = bed.requests();
        assert_eq!(!requests.is_empty(), attempt <= 4, "attempt {attempt}");
        if requests.is_empty() {
            bed.wait(1500);
            requests = bed.requests();
        }
        let sending = requests.remove(0).remove(0);
        bed.answer(sending, refused(code::NOT_LEADER));
        assert!(bed.requests().is_empty(), "the old leader gets a pause");
        bed.machine.handle_topic(&topic(), [Some(NodeId(attempt + 1)); 4].into_iter(), bed.now);
    }
}

#[test]
fn pauses_grow_and_spread() {
    let settings = settings();
    let pauses: Vec<_> = (1..9).map(|n| settings.pause(n, 0)).collect();
    assert!(pauses.is_sorted() && pauses[0] == Duration::from_millis(80), "{pauses:?}");
    assert_eq!(pauses[7], Duration::from_millis(800));
    assert!(settings.pause(1, 4095) > Duration::from_millis(119));
    assert!(settings.pause(30, u64::MAX) <= Duration::from_millis(1200));
}

#[test]
fn a_transactions_partition_sends_nothing_before_its_coordinator_knows_it() {
    let mut bed = Bed::new(Settings { transactional: true, ..settings() });
    bed.machine.set_registration(true);
    bed.put(2, "x");
    assert!(bed.requests().is_empty());
    let added = bed.machine.poll_additions();
    assert_eq!(added, [(topic(), Partition(2))]);
    assert!(bed.machine.poll_additions().is_empty(), "told once");
    bed.machine.handle_added(&added, bed.now);
    let mut s = bed.one();
    assert!(view(&mut s).is_transactional());
    bed.answer(s, written(0));
    // The next transaction, with the epoch that its coordinator gave.
    bed.machine.set_registration(false);
    bed.machine.handle_identity(ProducerId(7), ProducerEpoch(1), bed.now);
    bed.put(2, "y");
    assert_eq!(stamp(&mut bed.one()), (1, 0));
}

#[test]
fn a_transaction_is_not_helped_on_by_epochs_of_ones_own() {
    let mut bed = Bed::new(Settings { transactional: true, ..settings() });
    let mut record = bed.append(0, "x");
    let s = bed.one();
    bed.answer(s, refused(code::OUT_OF_ORDER_SEQUENCE));
    assert_eq!(failure(&mut record), (ErrorKind::Broker, false));
    bed.put(0, "y");
    assert_eq!(stamp(&mut bed.one()).0, 0);
}
