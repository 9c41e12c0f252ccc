//! One queue against a naive model of it: a plain list that is sorted, scanned and cut at each step.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Publish { size: usize, priority: u8, ttl: Option<u64> },
    Get { no_ack: bool },
    Settle { which: prop::sample::Index, how: u8 },
    Wait(u64),
    Purge,
    Consumer { take: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..6, 0u8..8, proptest::option::weighted(0.3, 0u64..60))
            .prop_map(|(size, priority, ttl)| Step::Publish { size, priority, ttl }),
        4 => any::<bool>().prop_map(|no_ack| Step::Get { no_ack }),
        4 => (any::<prop::sample::Index>(), 0u8..3).prop_map(|(which, how)| Step::Settle { which, how }),
        2 => (0u64..40).prop_map(Step::Wait),
        1 => Just(Step::Purge),
        2 => (1usize..4).prop_map(|take| Step::Consumer { take }),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Item {
    seq: usize,
    size: usize,
    priority: u8,
    expires: Option<u64>,
    redelivered: bool,
    returns: u32,
}

#[derive(Debug, Clone, Default)]
struct Shape {
    quorum: bool,
    priorities: u8,
    ttl: Option<u64>,
    max_length: Option<usize>,
    max_bytes: Option<usize>,
    reject: bool,
    limit: Option<u32>,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        any::<bool>(),
        prop_oneof![Just(0u8), Just(4)],
        proptest::option::weighted(0.4, 0u64..50),
        proptest::option::weighted(0.5, 0usize..6),
        proptest::option::weighted(0.3, 0usize..16),
        any::<bool>(),
        proptest::option::of(0u32..3),
    )
        .prop_map(|(quorum, priorities, ttl, max_length, max_bytes, reject, limit)| Shape {
            quorum,
            priorities: if quorum { 0 } else { priorities },
            ttl,
            max_length,
            max_bytes,
            reject,
            limit: if quorum { limit } else { None },
        })
}

#[derive(Debug, Default)]
struct Model {
    shape: Shape,
    now: u64,
    seq: usize,
    ready: Vec<Item>,
    out: Vec<Item>,
    /// What went to the dead letter exchange, in order: body and reason.
    dead: Vec<(usize, &'static str)>,
}

impl Model {
    fn sort(&mut self) {
        self.ready.sort_by_key(|item| (u8::MAX - item.priority, item.seq));
    }

    fn expire(&mut self) {
        self.expire_before(self.now + 1);
    }

    fn expire_before(&mut self, end: u64) {
        self.sort();
        while self.ready.first().is_some_and(|item| item.expires.is_some_and(|at| at < end)) {
            let item = self.ready.remove(0);
            self.dead.push((item.seq, "expired"));
        }
    }

    fn over(&self, more: usize, bytes: usize) -> bool {
        self.shape.max_length.is_some_and(|most| self.ready.len() + more > most)
            || self
                .shape
                .max_bytes
                .is_some_and(|most| self.ready.iter().map(|i| i.size).sum::<usize>() + bytes > most)
    }

    fn trim(&mut self) {
        self.sort();
        while self.over(0, 0) && !self.ready.is_empty() {
            let item = self.ready.remove(0);
            self.dead.push((item.seq, "maxlen"));
        }
    }

    fn publish(&mut self, size: usize, priority: u8, ttl: Option<u64>) -> bool {
        let seq = self.seq;
        self.seq += 1;
        if self.shape.reject && self.over(1, size) {
            return false;
        }
        let ttl = [self.shape.ttl, ttl].into_iter().flatten().min();
        let expires = ttl.map(|ttl| self.now + ttl);
        let priority = priority.min(self.shape.priorities);
        self.ready.push(Item { seq, size, priority, expires, redelivered: false, returns: 0 });
        self.trim();
        true
    }

    fn take(&mut self) -> Option<Item> {
        self.expire();
        let taken = if self.ready.is_empty() { None } else { Some(self.ready.remove(0)) };
        self.expire();
        taken
    }

    /// What a waiting consumer gets: at the very moment of its expiry a message still reaches it.
    fn deliver(&mut self) -> Option<Item> {
        self.expire_before(self.now);
        if self.ready.is_empty() { None } else { Some(self.ready.remove(0)) }
    }

    fn requeue(&mut self, mut item: Item) {
        item.redelivered = true;
        if self.shape.quorum {
            item.returns += 1;
            if self.shape.limit.is_some_and(|limit| item.returns > limit) {
                self.dead.push((item.seq, "delivery_limit"));
                return;
            }
        }
        self.ready.push(item);
        self.trim();
    }
}

fn arguments(shape: &Shape) -> Table {
    let mut out = table([("x-dead-letter-exchange", "".into()), ("x-dead-letter-routing-key", "dlq".into())]);
    let number = |n: usize| Value::I64(n as i64);
    if shape.quorum {
        out.insert("x-queue-type", "quorum");
        out.insert("x-delivery-limit", number(shape.limit.map_or(1_000_000, |n| n as usize)));
    } else if shape.priorities > 0 {
        out.insert("x-max-priority", i32::from(shape.priorities));
    }
    if let Some(ttl) = shape.ttl {
        out.insert("x-message-ttl", number(ttl as usize));
    }
    if let Some(n) = shape.max_length {
        out.insert("x-max-length", number(n));
    }
    if let Some(n) = shape.max_bytes {
        out.insert("x-max-length-bytes", number(n));
    }
    if shape.reject {
        out.insert("x-overflow", "reject-publish");
    }
    out
}

/// The number that a message carries as its body's head.
fn seq_of(seen: &Seen) -> usize {
    seen.headers.get("seq").and_then(Value::as_i64).unwrap() as usize
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_does_as_its_model(shape in shape(), steps in proptest::collection::vec(step(), 1..60)) {
        let mut b = Bench::new();
        let start = b.now;
        b.queue("dlq", Table::new());
        b.queue("q", arguments(&shape));
        let mut model = Model { shape, ..Model::default() };
        let mut held: Vec<Seen> = Vec::new();
        let mut dead = Vec::new();
        for step in steps {
            match step {
                Step::Publish { size, priority, ttl } => {
                    let expiration = ttl.map(|ttl| ttl.to_string());
                    let props = Props {
                        headers: table([("seq", Value::I64(model.seq as i64))]),
                        priority: Some(priority),
                        expiration: expiration.as_deref(),
                        persistent: false,
                    };
                    let published = b.publish_with("", "q", &"x".repeat(size), &props);
                    prop_assert_eq!(published.accepted, model.publish(size, priority, ttl));
                }
                Step::Get { no_ack } => {
                    let got = b.broker.get(b.vhost, b"q", no_ack, channel(ME), b.now).unwrap();
                    let got = got.map(|fetched| (Seen::from(fetched.delivery), fetched.remaining));
                    let want = model.take();
                    prop_assert_eq!(
                        got.as_ref().map(|(seen, left)| (seq_of(seen), seen.redelivered, *left as usize)),
                        want.as_ref().map(|item| (item.seq, item.redelivered, model.ready.len()))
                    );
                    if let (Some((seen, _)), Some(item)) = (got, want) {
                        let returns = seen.headers.get("x-delivery-count").and_then(Value::as_i64).unwrap_or(0);
                        prop_assert_eq!(returns, i64::from(item.returns));
                        if !no_ack {
                            held.push(seen);
                            model.out.push(item);
                        }
                    }
                }
                Step::Settle { which, how } if !held.is_empty() => {
                    let at = which.index(held.len());
                    let (seen, item) = (held.remove(at), model.out.remove(at));
                    let how = [Settle::Ack, Settle::Requeue, Settle::Reject][how as usize];
                    b.settle(&seen, how);
                    match how {
                        Settle::Ack => {}
                        Settle::Requeue => model.requeue(item),
                        Settle::Reject => model.dead.push((item.seq, "rejected")),
                    }
                    b.settle(&seen, Settle::Requeue);
                }
                Step::Settle { .. } => {}
                Step::Wait(ms) => {
                    b.wait_ms(ms);
                    // Timers fire in between, but what they do at the head depends on nothing else here.
                    let until = model.now + ms;
                    while model.now <= until {
                        model.expire();
                        model.now += 1;
                    }
                    model.now = until;
                }
                Step::Purge => {
                    model.expire();
                    b.wait_ms(0);
                    prop_assert_eq!(b.broker.purge_queue(b.vhost, b"q", ME), Ok(model.ready.len() as u32));
                    model.ready.clear();
                }
                Step::Consumer { take } => {
                    // One that takes a few and is cancelled.
                    b.wait_ms(0);
                    let key = b.consume("q", "c");
                    for n in 0..=take {
                        if n == take {
                            b.broker.set_ready(key, false);
                        }
                        let event = b.broker.poll_event(b.now);
                        if n == take {
                            prop_assert!(event.is_none());
                            break;
                        }
                        let want = model.deliver();
                        let got = match event {
                            Some(Event::Deliver { delivery, .. }) => Some(Seen::from(delivery)),
                            None => None,
                            Some(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
                        };
                        prop_assert_eq!(got.as_ref().map(seq_of), want.as_ref().map(|item| item.seq));
                        held.extend(got);
                        model.out.extend(want);
                    }
                    b.broker.remove_consumer(key, b.now);
                }
            }
            // What is due now is done before anybody looks.
            b.wait_ms(0);
            model.expire();
            let view = b.view("q");
            prop_assert_eq!((view.messages_ready, view.messages_unacknowledged), (model.ready.len(), model.out.len()));
            let bytes: usize = model.ready.iter().chain(&model.out).map(|item| item.size).sum();
            prop_assert_eq!(view.message_bytes, bytes as u64);
            while let Some(seen) = b.get("dlq") {
                b.settle(&seen, Settle::Ack);
                let reason = seen.headers.get("x-first-death-reason").and_then(Value::as_str).unwrap().to_owned();
                dead.push((seq_of(&seen), reason));
            }
            let want: Vec<_> = model.dead.iter().map(|(seq, why)| (*seq, (*why).to_owned())).collect();
            prop_assert_eq!(&dead, &want);
            prop_assert_eq!(b.now - start, Duration::from_millis(model.now));
        }
        for seen in held {
            b.settle(&seen, Settle::Ack);
        }
        b.broker.purge_queue(b.vhost, b"q", ME).unwrap();
        prop_assert_eq!(b.broker.memory_used(), 0, "no memory is left behind");
    }
}
