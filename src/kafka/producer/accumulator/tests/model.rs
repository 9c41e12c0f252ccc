//! The machine against a model of two brokers, their logs, and a network that cuts, delays and reorders.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const PARTITIONS: usize = 2;

/// A partition's log: takes batches in sequence, recognises its last five (Kafka's `ProducerAppendInfo`).
#[derive(Default)]
pub(super) struct Log {
    pub(super) values: Vec<String>,
    /// Epoch and next number; a log without them takes any.
    state: Option<(i16, i32)>,
    recent: VecDeque<(i32, u32, i64)>,
    max_bytes: usize,
}

impl Log {
    pub(super) fn append(&mut self, bytes: Bytes) -> Answer {
        let batch = BatchList::new(bytes).next().unwrap().unwrap();
        let (epoch, base, count) = (batch.producer_epoch().0, batch.base_sequence().0, batch.record_count());
        if self.max_bytes > 0 && batch.as_bytes().len() > self.max_bytes {
            return refused(code::MESSAGE_TOO_LARGE);
        }
        match self.state {
            Some((known, _)) if epoch < known => return refused(code::INVALID_PRODUCER_EPOCH),
            Some((known, _)) if epoch > known => {
                if base != 0 {
                    return refused(code::OUT_OF_ORDER_SEQUENCE);
                }
                self.recent.clear();
            }
            Some((_, next)) => {
                if let Some((.., offset)) = self.recent.iter().find(|(b, n, _)| (*b, *n) == (base, count)) {
                    return written(*offset);
                }
                if base != next {
                    return refused(code::OUT_OF_ORDER_SEQUENCE);
                }
            }
            None => {}
        }
        let offset = self.values.len() as i64;
        for record in &batch.records(1 << 20).unwrap() {
            let value = record.unwrap().value().unwrap().to_vec();
            self.values.push(String::from_utf8(value).unwrap());
        }
        self.state = Some((epoch, base + count as i32));
        self.recent.push_back((base, count, offset));
        if self.recent.len() > 5 {
            self.recent.pop_front();
        }
        written(offset)
    }
}

/// A request on its connection.
struct Request {
    sendings: Vec<Sending>,
    bytes: Vec<(Partition, Bytes)>,
    /// What the broker answered, once it got there.
    answers: Option<Vec<Answer>>,
}

/// The network and the brokers.
struct World {
    bed: Bed,
    logs: [Log; PARTITIONS],
    leaders: [usize; PARTITIONS],
    /// Requests by broker, in the order in which they left.
    wires: [VecDeque<Request>; 2],
    /// What left on a connection that broke, and may arrive all the same.
    late: Vec<(usize, Vec<(Partition, Bytes)>)>,
    appended: Vec<(usize, String, Queued)>,
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize),
    Poll,
    /// The oldest request of a broker's connection that has not arrived does; with a code for its first batch, before or
    /// after the append.
    Arrive(usize, Option<(i16, bool)>),
    /// The oldest answer comes back.
    Answer(usize),
    /// The connection breaks.
    Cut(usize),
    /// A request of a broken connection arrives.
    Late(usize),
    /// The leader moves, and the producer is told or not.
    Move(usize, bool),
    Tell,
    Hurry,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let before = prop::sample::select(&[
        NOT_ENOUGH_REPLICAS,
        code::NOT_LEADER,
        code::MESSAGE_TOO_LARGE,
        OFFSET_OUT_OF_RANGE,
        29,
        87,
    ]);
    let code = prop_oneof![
        8 => Just(None),
        1 => before.prop_map(|c| Some((c, false))),
        1 => prop::sample::select(AFTER_APPEND).prop_map(|c| Some((c, true))),
    ];
    prop_oneof![
        10 => (0..PARTITIONS, 1usize..500).prop_map(|(p, n)| Step::Append(p, n)),
        5 => Just(Step::Poll),
        6 => (0..2usize, code).prop_map(|(n, c)| Step::Arrive(n, c)),
        5 => (0..2usize).prop_map(Step::Answer),
        1 => (0..2usize).prop_map(Step::Cut),
        1 => any::<usize>().prop_map(Step::Late),
        1 => (0..PARTITIONS, any::<bool>()).prop_map(|(p, t)| Step::Move(p, t)),
        1 => Just(Step::Tell),
        1 => Just(Step::Hurry),
        2 => (1u64..3000).prop_map(Step::Wait),
        1 => (10_000u64..40_000).prop_map(Step::Wait),
    ]
}

impl World {
    fn new(settings: Settings, max_bytes: usize) -> Self {
        let log = || Log { max_bytes, ..Log::default() };
        let mut world = Self {
            bed: Bed::new(settings),
            logs: std::array::from_fn(|_| log()),
            leaders: [0, 1],
            wires: Default::default(),
            late: Vec::new(),
            appended: Vec::new(),
        };
        world.tell();
        world
    }

    fn tell(&mut self) {
        let leaders = self.leaders.map(|n| Some(NodeId(n as i32)));
        self.bed.machine.handle_topic(&topic(), leaders.into_iter(), self.bed.now);
    }

    /// What a broker does with the batches of a request.
    fn work(&mut self, node: usize, bytes: &[(Partition, Bytes)], fault: Option<(i16, bool)>) -> Vec<Answer> {
        let mut fault = fault;
        let mut answers = Vec::new();
        for (partition, bytes) in bytes {
            let p = partition.0 as usize;
            answers.push(match fault.take() {
                _ if self.leaders[p] != node => refused(code::NOT_LEADER),
                Some((code, false)) => refused(code),
                after => match (self.logs[p].append(bytes.clone()), after) {
                    (Answer::Broker { code: 0, .. }, Some((code, _))) => refused(code),
                    (answer, _) => answer,
                },
            });
        }
        answers
    }

    fn poll(&mut self) {
        let expired = self.bed.machine.poll_expired(self.bed.now);
        expired.into_iter().for_each(Resolved::tell);
        for (node, mut sendings) in self.bed.machine.poll_sendings(self.bed.now).requests {
            let mut partitions: Vec<_> = sendings.iter().map(|s| s.partition).collect();
            partitions.dedup();
            assert_eq!(partitions.len(), sendings.len(), "one batch of a partition in a request");
            let bytes = sendings.iter_mut().map(|s| (s.partition, s.seal().unwrap().join())).collect();
            let wire = &mut self.wires[node.0 as usize];
            wire.push_back(Request { sendings, bytes, answers: None });
            assert!(wire.len() <= 5, "five requests at most");
        }
        for partition in 0..PARTITIONS {
            let flying = self.wires.iter().flatten().flat_map(|r| &r.sendings);
            assert!(flying.filter(|s| s.partition.0 as usize == partition).count() <= 5);
        }
    }

    fn arrive(&mut self, node: usize, fault: Option<(i16, bool)>) {
        let Some(at) = self.wires[node].iter().position(|r| r.answers.is_none()) else { return };
        let bytes = self.wires[node][at].bytes.clone();
        let answers = self.work(node, &bytes, fault);
        self.wires[node][at].answers = Some(answers);
    }

    fn answer(&mut self, node: usize) {
        if self.wires[node].front().is_some_and(|r| r.answers.is_some()) {
            let request = self.wires[node].pop_front().unwrap();
            let answers = request.sendings.into_iter().zip(request.answers.unwrap());
            self.feed(node, answers.collect());
        }
    }

    fn feed(&mut self, node: usize, answers: Vec<(Sending, Answer)>) {
        let node = NodeId(node as i32);
        let outcomes = self.bed.machine.handle_answers(node, answers, self.bed.now, 17);
        outcomes.resolved.into_iter().for_each(Resolved::tell);
    }

    fn cut(&mut self, node: usize) {
        for request in std::mem::take(&mut self.wires[node]) {
            if request.answers.is_none() {
                self.late.push((node, request.bytes));
            }
            self.feed(node, request.sendings.into_iter().map(|s| (s, lost())).collect());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(p, size) => {
                let value = format!("{}-{}", self.appended.len(), "x".repeat(size));
                if let Append::Done { completion, index, .. } = self.bed.try_append(p as i32, &value).unwrap()
                {
                    self.appended.push((p, value, Queued::new(completion, index, Timestamp(0))));
                }
            }
            Step::Poll => self.poll(),
            Step::Arrive(node, fault) => self.arrive(node, fault),
            Step::Answer(node) => self.answer(node),
            Step::Cut(node) => self.cut(node),
            Step::Late(which) => {
                if !self.late.is_empty() {
                    let (node, bytes) = self.late.swap_remove(which % self.late.len());
                    self.work(node, &bytes, None);
                }
            }
            Step::Move(p, told) => {
                self.leaders[p] = 1 - self.leaders[p];
                if told {
                    self.tell();
                }
            }
            Step::Tell => self.tell(),
            Step::Hurry => {
                self.bed.machine.hurry(self.bed.now);
                self.bed.machine.calm();
            }
            Step::Wait(ms) => self.bed.wait(ms),
        }
        assert!(self.bed.machine.used <= self.bed.machine.settings.buffer_memory, "memory within its limit");
    }

    /// The network heals: in so many rounds everything comes home.
    fn heal(&mut self) {
        for _ in 0..400 {
            self.tell();
            self.poll();
            for node in 0..2 {
                while !self.wires[node].is_empty() {
                    self.arrive(node, None);
                    self.answer(node);
                }
            }
            if self.bed.machine.is_idle() {
                return;
            }
            self.bed.wait(500);
        }
        panic!("something never comes home: {:?}", self.bed.machine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// Whatever the network does: what is reported written is written once, where it says, and in order, what is reported
    /// surely failed is not there, and everything resolves.
    #[test]
    fn outcomes_agree_with_the_logs(
        steps in prop::collection::vec(step(), 1..150),
        max_in_flight in 1usize..=5,
        max_bytes in prop_oneof![4 => Just(0), 1 => 300usize..1000],
        buffer_memory in prop_oneof![Just(64usize << 10), 4096usize..9000],
    ) {
        let settings = Settings { max_in_flight, buffer_memory, ..settings() };
        let mut world = World::new(settings, max_bytes);
        for step in steps {
            world.step(step);
        }
        world.heal();
        prop_assert_eq!(world.bed.machine.used, 0, "all of the buffer is free again");
        for (p, log) in world.logs.iter().enumerate() {
            let mut order = Vec::new();
            for (_, value, queued) in world.appended.iter_mut().filter(|(q, ..)| *q == p) {
                let places: Vec<usize> =
                    log.values.iter().enumerate().filter(|(_, v)| *v == value).map(|(at, _)| at).collect();
                order.extend(places.first().copied());
                match outcome(queued) {
                    Some(Ok(placed)) => prop_assert_eq!(places, [placed.offset.0 as usize], "written once"),
                    Some(Err(e)) if e.is_ambiguous() => prop_assert!(places.len() <= 1, "never twice"),
                    Some(Err(e)) => prop_assert!(places.is_empty(), "surely not written: {e}"),
                    None => prop_assert!(false, "no outcome"),
                }
            }
            prop_assert!(order.is_sorted(), "out of order");
            prop_assert_eq!(order.len(), log.values.len(), "nothing else is there");
        }
    }
}

/// More by `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}
