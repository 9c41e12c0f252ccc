//! A publisher as [`crate::amqp::Publisher`] is one: a window of unconfirmed messages; after a cut all that is unconfirmed
//! is sent again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::wire::{self, Frames, Greeting};
use super::{Chance, Client, Trace};
use crate::amqp::confirms::{Confirms, Verdict};
use crate::embedded::ConnectionId;
use crate::embedded::amqp::wire::method::{Method, basic};

#[derive(Debug)]
pub(super) struct Publisher {
    connection: Option<ConnectionId>,
    frames: Frames,
    /// Who waits is the message; so is what a return is matched by.
    confirms: Confirms<u64, u64, ()>,
    /// To be sent, in this order.
    ahead: VecDeque<u64>,
    window: usize,
    unsettled: usize,
    open: bool,
    next: Option<Instant>,
    chance: Chance,
}

impl Publisher {
    pub(super) fn new(messages: u64, window: usize, seed: u64) -> Self {
        Self {
            connection: None,
            frames: Frames::default(),
            confirms: Confirms::new(),
            ahead: (1..=messages).collect(),
            window,
            unsettled: messages as usize,
            open: false,
            next: None,
            chance: Chance::new(seed),
        }
    }

    fn conclude(&mut self, done: Vec<(u64, Verdict<()>)>, trace: &mut Trace) {
        for (n, verdict) in done {
            match verdict {
                Verdict::Confirmed => {
                    trace.note("confirmed", n).confirmed = true;
                    self.unsettled -= 1;
                }
                Verdict::Returned(()) => {
                    trace.note("returned", n).returned += 1;
                    self.unsettled -= 1;
                }
                Verdict::Refused => {
                    trace.note("refused", n).refused += 1;
                    self.ahead.push_back(n);
                }
            }
        }
    }
}

impl Client for Publisher {
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
                    wire::select_confirms(out);
                    self.open = true;
                    self.next = Some(now);
                    continue;
                }
                Greeting::Other => {}
            }
            let mut done = Vec::new();
            let mut settle = |n, verdict| done.push((n, verdict));
            match wire::id(method) {
                basic::Ack::ID => {
                    let ack: basic::Ack = wire::read(method);
                    self.confirms.handle_ack(ack.delivery, ack.multiple.has(1), &mut settle).unwrap();
                }
                basic::Nack::ID => {
                    let nack: basic::Nack = wire::read(method);
                    self.confirms.handle_nack(nack.delivery, nack.flags.has(1), &mut settle).unwrap();
                }
                basic::Return::ID => {
                    let n = incoming.message_id.unwrap();
                    assert!(self.confirms.handle_return(&n, ()), "a return of what is not in flight: {n}");
                }
                other => panic!("not for a publisher: {other:?}"),
            }
            self.conclude(done, trace);
            if self.open {
                self.next = Some(now);
            }
        }
    }

    fn handle_cut(&mut self, _now: Instant) {
        self.connection = None;
        self.open = false;
        self.next = None;
        let unconfirmed: Vec<_> = self.confirms.handle_end().map(|(n, _)| n).collect();
        for n in unconfirmed.into_iter().rev() {
            self.ahead.push_front(n);
        }
        self.confirms = Confirms::new();
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut BytesMut, trace: &mut Trace) {
        self.next = None;
        for _ in 0..1 + self.chance.below(8) {
            if self.confirms.len() >= self.window {
                return;
            }
            let Some(n) = self.ahead.pop_front() else { return };
            self.confirms.handle_publish(now, Some(n), n);
            trace.note("published", n).published += 1;
            wire::publish(n, (n % 5 * 50) as usize, out);
        }
        self.next = Some(now + Duration::from_micros(100) + self.chance.millis(20));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    fn is_done(&self) -> bool {
        self.unsettled == 0
    }
}
