//! A consumer as [`crate::amqp::Deliveries`] is one: acknowledgements are joined and sent now and then; those before a
//! refusal go out first.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::BytesMut;

use super::wire::{self, Frames, Greeting};
use super::{Chance, Client, Trace};
use crate::amqp::settle::Settler;
use crate::embedded::ConnectionId;
use crate::embedded::amqp::wire::Flags;
use crate::embedded::amqp::wire::method::{self, Method, basic};

#[derive(Debug)]
pub(super) struct Consumer {
    connection: Option<ConnectionId>,
    frames: Frames,
    settler: Settler,
    prefetch: u16,
    last: u64,
    /// Deliveries in hand: until when, which message, and whether it is a dead letter.
    work: BTreeMap<u64, (Instant, u64, bool)>,
    /// When acknowledgements are sent.
    flush: Option<Instant>,
    chance: Chance,
}

impl Consumer {
    pub(super) fn new(prefetch: u16, seed: u64) -> Self {
        Self {
            connection: None,
            frames: Frames::default(),
            settler: Settler::new(),
            prefetch,
            last: 0,
            work: BTreeMap::new(),
            flush: None,
            chance: Chance::new(seed),
        }
    }

    fn send_acks(&mut self, out: &mut BytesMut) {
        self.flush = None;
        while let Some(ack) = self.settler.poll_ack() {
            let multiple = Flags(ack.multiple.into());
            method::frame(out, 1, &basic::Ack { delivery: ack.tag, multiple });
        }
    }
}

impl Client for Consumer {
    fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    fn handle_open(&mut self, connection: ConnectionId) {
        self.connection = Some(connection);
        self.frames = Frames::default();
    }

    fn handle_bytes(&mut self, bytes: &[u8], now: Instant, out: &mut BytesMut, trace: &mut Trace) {
        self.frames.push(bytes);
        while let Some(incoming) = self.frames.next() {
            let method = &incoming.method;
            match wire::greet(method, out) {
                Greeting::Goes => continue,
                Greeting::Done => {
                    wire::declare(out);
                    wire::consume(self.prefetch, out);
                    continue;
                }
                Greeting::Other => {}
            }
            match wire::id(method) {
                basic::Deliver::ID => {
                    let deliver: basic::Deliver<'_> = wire::read(method);
                    let n = incoming.message_id.unwrap();
                    assert_eq!(deliver.delivery, self.last + 1, "deliveries are numbered without a gap");
                    self.last += 1;
                    // Four queues, each with a prefetch of its own.
                    let most = 4 * usize::from(self.prefetch);
                    assert!(self.work.len() < most, "more in hand than the prefetch allows");
                    let fate = trace.note("delivered", n);
                    fate.delivered += 1;
                    let dead = deliver.tag == "dead".into();
                    let slow = self.chance.one_in(20);
                    let time = if slow { self.chance.millis(3_000) } else { self.chance.millis(30) };
                    self.work.insert(deliver.delivery, (now + time, n, dead));
                }
                basic::QosOk::ID => {}
                other => panic!("not for a consumer: {other:?}"),
            }
        }
    }

    fn handle_cut(&mut self, _now: Instant) {
        self.connection = None;
        self.settler = Settler::new();
        self.last = 0;
        self.work.clear();
        self.flush = None;
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut BytesMut, trace: &mut Trace) {
        let due: Vec<_> =
            self.work.iter().filter(|(_, (at, ..))| *at <= now).map(|(tag, w)| (*tag, w.1, w.2)).collect();
        for (delivery, n, dead) in due {
            self.work.remove(&delivery);
            if !self.chance.one_in(6) {
                self.settler.handle_ack(delivery);
                self.flush = Some(self.flush.unwrap_or(now + self.chance.millis(10)));
                continue;
            }
            self.send_acks(out);
            self.settler.handle_other(delivery);
            // A dead letter has no further exchange to go to.
            let requeue = dead || self.chance.one_in(2);
            if requeue {
                trace.note("requeued", n).requeued += 1;
            } else {
                trace.note("rejected", n).rejected += 1;
            }
            method::frame(out, 1, &basic::Nack { delivery, flags: Flags(if requeue { 2 } else { 0 }) });
        }
        if self.flush.is_some_and(|at| at <= now) {
            self.send_acks(out);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let work = self.work.values().map(|(at, ..)| *at).min();
        [work, self.flush].into_iter().flatten().min()
    }

    fn is_done(&self) -> bool {
        self.work.is_empty() && self.flush.is_none()
    }
}
