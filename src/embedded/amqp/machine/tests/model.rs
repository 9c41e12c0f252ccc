//! Any order of publishes, settlements, cancels and ends on three connections, against a naive model: sets of messages.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::bed::Bed;
use crate::amqp::Table;
use crate::embedded::ConnectionId;
use crate::embedded::amqp::wire::Flags;
use crate::embedded::amqp::wire::method::{Request, basic};

const PREFETCH: usize = 4;
const CLIENTS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Ack,
    Requeue,
    Drop,
}

#[derive(Debug, Clone)]
enum Step {
    Publish,
    /// One of its deliveries, or all up to it.
    Settle(prop::sample::Index, How, bool),
    Recover,
    Consume,
    Cancel,
    Get,
    /// It is gone, and another one comes.
    Vanish,
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![3 => Just(How::Ack), 2 => Just(How::Requeue), 1 => Just(How::Drop)];
    let settle = (any::<prop::sample::Index>(), how, prop::bool::weighted(0.3));
    prop_oneof![
        6 => Just(Step::Publish),
        8 => settle.prop_map(|(pick, how, multiple)| Step::Settle(pick, how, multiple)),
        1 => Just(Step::Recover),
        2 => Just(Step::Consume),
        1 => Just(Step::Cancel),
        2 => Just(Step::Get),
        1 => Just(Step::Vanish),
    ]
}

/// A delivery that is not settled.
#[derive(Debug, Clone, Copy)]
struct Open {
    tag: u64,
    message: u32,
    /// Which of the client's consumers got it; `None` for `basic.get`.
    consumer: Option<u32>,
}

/// A client as the model sees it.
#[derive(Debug)]
struct Client {
    id: ConnectionId,
    open: Vec<Open>,
    last_tag: u64,
    consumes: bool,
    /// The number of its last consumer.
    consumer: u32,
}

impl Client {
    fn new(bed: &mut Bed) -> Self {
        let id = bed.open();
        bed.prefetch(id, PREFETCH as u16, false);
        Self { id, open: Vec::new(), last_tag: 0, consumes: false, consumer: 0 }
    }

    /// What its consumer has in hand.
    fn in_hand(&self) -> usize {
        self.open.iter().filter(|open| open.consumer == Some(self.consumer)).count()
    }
}

struct World {
    bed: Bed,
    clients: Vec<Client>,
    waiting: BTreeSet<u32>,
    settled: BTreeSet<u32>,
    published: u32,
}

impl World {
    fn new() -> Self {
        let mut bed = Bed::new();
        let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(&mut bed)).collect();
        bed.declare(clients[0].id, "q", &Table::new());
        Self { bed, clients, waiting: BTreeSet::new(), settled: BTreeSet::new(), published: 0 }
    }

    fn give_back(&mut self, taken: &[Open]) {
        self.waiting.extend(taken.iter().map(|open| open.message));
    }

    /// A message came to a client.
    fn take(&mut self, at: usize, consumed: bool) {
        let client = &mut self.clients[at];
        let got = self.bed.got(client.id);
        let message = u32::from_be_bytes(got.body[..].try_into().unwrap());
        assert!(self.waiting.remove(&message), "{message} is delivered, and nobody may have it");
        assert!(got.delivery > client.last_tag, "tags grow");
        client.last_tag = got.delivery;
        let consumer = consumed.then_some(client.consumer);
        client.open.push(Open { tag: got.delivery, message, consumer });
    }

    /// Looks at all that came, and at what must hold.
    fn look(&mut self) {
        for at in 0..CLIENTS {
            while !self.bed.unread(self.clients[at].id).is_empty() {
                assert!(self.clients[at].consumes, "a delivery without a consumer");
                self.take(at, true);
            }
            assert!(self.clients[at].in_hand() <= PREFETCH, "more in flight than the prefetch");
        }
        assert_eq!(self.bed.depth("q").0, self.waiting.len() as u64);
        let room = self.clients.iter().any(|client| client.consumes && client.in_hand() < PREFETCH);
        assert!(self.waiting.is_empty() || !room, "a message waits while a consumer has room");
    }

    fn work(&mut self, at: usize, step: &Step) {
        let id = self.clients[at].id;
        match step {
            Step::Publish => {
                self.waiting.insert(self.published);
                self.bed.publish(id, "q", &self.published.to_be_bytes());
                self.published += 1;
            }
            Step::Settle(pick, how, multiple) => self.settle(at, pick, *how, *multiple),
            Step::Recover => {
                let taken = std::mem::take(&mut self.clients[at].open);
                self.give_back(&taken);
                self.bed.send(id, 1, Request::BasicRecover(basic::Recover { requeue: Flags(1) }));
                self.bed.expect(id, 1, &basic::RecoverOk {});
            }
            Step::Consume if !self.clients[at].consumes => {
                self.clients[at].consumes = true;
                self.clients[at].consumer += 1;
                self.bed.consume(id, "q", "t", 0);
            }
            Step::Cancel if self.clients[at].consumes => {
                self.clients[at].consumes = false;
                self.bed.send(
                    id,
                    1,
                    Request::BasicCancel(basic::Cancel { tag: "t".into(), flags: Flags(0) }),
                );
                self.bed.expect(id, 1, &basic::CancelOk { tag: "t".into() });
            }
            Step::Get => {
                let get = basic::Get { queue: "q".into(), ..basic::Get::default() };
                self.bed.send(id, 1, Request::BasicGet(get));
                if self.waiting.is_empty() {
                    self.bed.expect(id, 1, &basic::GetEmpty::default());
                } else {
                    self.take(at, false);
                }
            }
            Step::Vanish => {
                let taken = std::mem::take(&mut self.clients[at].open);
                self.give_back(&taken);
                self.bed.vanish(id);
                self.clients[at] = Client::new(&mut self.bed);
            }
            Step::Consume | Step::Cancel => {}
        }
    }

    fn settle(&mut self, at: usize, pick: &prop::sample::Index, how: How, multiple: bool) {
        let client = &mut self.clients[at];
        if client.open.is_empty() {
            return;
        }
        let place = pick.index(client.open.len());
        let delivery = client.open[place].tag;
        let taken: Vec<Open> = client.open.drain(if multiple { 0 } else { place }..=place).collect();
        let multiple = u8::from(multiple);
        let request = match how {
            How::Ack => Request::BasicAck(basic::Ack { delivery, multiple: Flags(multiple) }),
            How::Requeue => Request::BasicNack(basic::Nack { delivery, flags: Flags(multiple | 2) }),
            How::Drop => Request::BasicNack(basic::Nack { delivery, flags: Flags(multiple) }),
        };
        let id = client.id;
        if how == How::Requeue {
            self.give_back(&taken);
        } else {
            self.settled.extend(taken.iter().map(|open| open.message));
        }
        self.bed.send(id, 1, request);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn each_message_is_with_one_client_or_waits_or_is_settled(
        steps in proptest::collection::vec((0..CLIENTS, step()), 1..120)
    ) {
        let mut world = World::new();
        for (at, step) in &steps {
            world.work(*at, step);
            world.look();
        }
        let open: usize = world.clients.iter().map(|client| client.open.len()).sum();
        prop_assert_eq!(open + world.waiting.len() + world.settled.len(), world.published as usize);
    }
}
