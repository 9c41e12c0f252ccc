//! The engine without IO: which message may run when, what follows from how it ended, and when each deadline falls.
//!
//! The driver calls any `handle_*` for what happened, then [`Machine::poll_action`] until it gives `None`, then sleeps
//! until [`Machine::poll_timeout`] or the next event.
//!
//! ```text
//! arrival ──► Queued ──► Claiming ──► Running ──► Completing ──► settled: Ack (handled, skipped)
//!    │          ▲ ▲         │  │         │            │
//!    │          │ │ held,   │  │ done    │ failed     └─ fenced ─► Queued
//!    │          │ │ store   │  └─────────┼─────────────────────► settled: Ack (duplicate)
//!    │          │ └─away────┘            │
//!    │          └─────────◄──────────────┤ retry after a backoff, while attempts are left
//!    │                                   │
//!    └─ not to be worked ───► Burying ◄──┘ rejected, or no attempt left
//!                               └─ confirmed ─► (Releasing) ─► settled: Ack (dead-lettered)
//! stop, no attempt left and no dead letters, or drained: (Releasing) ─► settled: GiveBack
//! ```
//!
//! A message without an idempotency key skips Claiming and Completing; one without a lease skips Releasing.
//! [`KeyOrder`] decides which of the queued ones runs: a message keeps its place at the head of its lane from its first run
//! until it is settled, so a retry overtakes nothing and is not overtaken, and holds one of the `concurrency` slots
//! except while it is queued. What cannot be worked at all goes to Burying at once, past every lane.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Class;
use super::summary::Summary;
use crate::delivery::{Completed, KeyOrder, Ticket as Slot};
use crate::random::SplitMix64;

mod port;

pub(super) use port::{Action, Arrival, Buried, Claimed, Ended, Exhausted, Fate, Kept, Rules, Ticket, Why};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In the key order: behind another, without a free slot, or until a backoff is over.
    Queued,
    Claiming,
    Running,
    /// Its handler is being ended.
    Aborting(Why),
    /// `false` while it waits for its next try.
    Completing(Fate, bool),
    /// `false` while it waits for its next try.
    Burying(bool),
    Releasing(Fate),
}

#[derive(Debug)]
struct Entry {
    /// Its slot in the key order while it is not queued there; none for what is not to be worked.
    slot: Option<Slot>,
    bytes: usize,
    keyed: bool,
    leased: bool,
    stage: Stage,
    attempts: u32,
    /// When its first attempt began.
    began: Option<Instant>,
    /// Tries in a row at something other than the handler: a held key, a store or dead letters away.
    tries: u32,
    wake: Option<Instant>,
    renew: Option<Instant>,
}

/// Which timer of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The end of a handler's time, or the next try at a completion or a dead letter.
    Wake,
    /// The lease is to be extended.
    Renew,
}

/// While the store is away: nothing new comes in, and one message at a time probes it.
#[derive(Debug)]
struct Gate {
    at: Instant,
    tries: u32,
    probing: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    rules: Rules,
    entries: HashMap<Ticket, Entry>,
    order: KeyOrder<Ticket>,
    timers: BTreeSet<(Instant, Ticket, Timer)>,
    actions: VecDeque<Action>,
    next: Ticket,
    bytes: usize,
    gate: Option<Gate>,
    random: SplitMix64,
    /// Set once the run stops: when the drain must be over.
    drain_until: Option<Instant>,
    drained: bool,
    /// The message whose failure ended the run.
    culprit: Option<Ticket>,
    summary: Summary,
}

impl Machine {
    /// `seed` spreads the backoffs of several processes.
    pub(super) fn new(rules: Rules, seed: u64) -> Self {
        Self {
            order: KeyOrder::new(rules.order, rules.concurrency, rules.in_hand),
            rules,
            entries: HashMap::new(),
            timers: BTreeSet::new(),
            actions: VecDeque::new(),
            next: 0,
            bytes: 0,
            gate: None,
            random: SplitMix64::new(seed),
            drain_until: None,
            drained: false,
            culprit: None,
            summary: Summary::default(),
        }
    }

    /// Whether another message may be taken from the source.
    pub(super) fn wants_more(&self) -> bool {
        self.drain_until.is_none()
            && self.gate.is_none()
            && self.entries.len() < self.rules.in_hand
            && self.bytes < self.rules.in_hand_bytes
    }

    /// Messages in hand.
    pub(super) fn in_hand(&self) -> usize {
        self.entries.len()
    }

    /// Messages that hold a slot.
    pub(super) fn running(&self) -> usize {
        self.order.running()
    }

    /// Whether the run is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        self.drain_until.is_some()
    }

    /// Whether the store is taken to be away.
    pub(super) fn is_gated(&self) -> bool {
        self.gate.is_some()
    }

    /// Whether the drain's deadline has passed: what is still in hand has been told to end.
    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// The message whose failure ended the run.
    pub(super) fn culprit(&self) -> Option<Ticket> {
        self.culprit
    }

    /// The counts so far.
    pub(super) fn summary(&self) -> Summary {
        self.summary
    }

    /// How often its handler was started.
    pub(super) fn attempts(&self, ticket: Ticket) -> u32 {
        self.entries.get(&ticket).map_or(0, |e| e.attempts)
    }

    /// The ticket that the next [`Machine::handle_arrival`] gives out.
    pub(super) fn next_ticket(&self) -> Ticket {
        self.next
    }

    /// A message arrived. Its order is kept by `key` within `scope`; `keyed` says whether it has an idempotency key and
    /// there is a store, `verdict` what is to become of it if it is not to be worked.
    pub(super) fn handle_arrival(&mut self, arrival: Arrival<'_>, now: Instant) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.bytes = self.bytes.saturating_add(arrival.bytes);
        let entry = Entry {
            slot: None,
            bytes: arrival.bytes,
            keyed: arrival.keyed,
            leased: false,
            stage: Stage::Queued,
            attempts: 0,
            began: None,
            tries: 0,
            wake: None,
            renew: None,
        };
        self.entries.insert(ticket, entry);
        match arrival.verdict {
            Some(Class::Retry | Class::Reject) => self.give_up(ticket, now),
            Some(Class::Ignore) => self.settle(ticket, Fate::Skipped),
            Some(Class::Stop) => self.fail(ticket, now),
            None if self.drain_until.is_some() => self.settle(ticket, Fate::GivenBack),
            None => {
                if self.order.submit(arrival.scope, arrival.key, ticket).is_err() {
                    // Taken without asking `wants_more`.
                    self.settle(ticket, Fate::GivenBack);
                }
            }
        }
        ticket
    }

    /// The answer to [`Action::Claim`].
    pub(super) fn handle_claimed(&mut self, ticket: Ticket, answer: Claimed, now: Instant) {
        let Some(entry) = self.at(ticket, |s| s == Stage::Claiming) else { return };
        if answer == Claimed::Away {
            let at = self.store_away(now);
            return self.requeue(ticket, at);
        }
        let tries = std::mem::take(&mut entry.tries);
        self.gate = None;
        match answer {
            Claimed::Yes => {
                if let Some(entry) = self.entries.get_mut(&ticket) {
                    entry.leased = true;
                }
                self.set_timer(ticket, Timer::Renew, now + self.rules.lease / 3);
                if self.drain_until.is_some() {
                    self.end(ticket, Fate::GivenBack);
                } else {
                    self.run(ticket, now);
                }
            }
            Claimed::Done => self.settle(ticket, Fate::Duplicate),
            Claimed::Held(left) => {
                // The holder may be done long before its lease ends.
                let wait = self.backoff(tries, Duration::from_millis(20), Duration::from_secs(1));
                if let Some(entry) = self.entries.get_mut(&ticket) {
                    entry.tries = tries.saturating_add(1);
                }
                self.requeue(ticket, now + wait.min(left.max(Duration::from_millis(1))));
            }
            Claimed::Refused => self.give_up(ticket, now),
            Claimed::Away => {}
        }
    }

    /// An attempt ended; `Ended::Aborted` only after [`Action::Abort`].
    pub(super) fn handle_ended(&mut self, ticket: Ticket, ended: Ended, now: Instant) {
        let Some(entry) = self.at(ticket, |s| matches!(s, Stage::Running | Stage::Aborting(_))) else {
            return;
        };
        let stage = entry.stage;
        self.clear_timer(ticket, Timer::Wake);
        match (ended, stage) {
            // It ended well although it was to be aborted: it has had its effect all the same.
            (Ended::Ok, _) => self.finish(ticket, Fate::Handled, now),
            (Ended::Failed(Class::Ignore), _) => self.finish(ticket, Fate::Skipped, now),
            (_, Stage::Aborting(Why::Drained)) => self.end(ticket, Fate::GivenBack),
            (_, Stage::Aborting(Why::LeaseLost)) => self.requeue(ticket, now),
            (Ended::Failed(Class::Retry) | Ended::Aborted, _) => self.retry(ticket, now),
            (Ended::Failed(Class::Reject), _) => self.give_up(ticket, now),
            (Ended::Failed(Class::Stop), _) => self.fail(ticket, now),
        }
    }

    /// The answer to [`Action::Renew`].
    pub(super) fn handle_renewed(&mut self, ticket: Ticket, answer: Kept, now: Instant) {
        let Some(entry) = self.at(ticket, |s| !matches!(s, Stage::Releasing(_))).filter(|e| e.leased) else {
            return;
        };
        match answer {
            Kept::Yes => self.set_timer(ticket, Timer::Renew, now + self.rules.lease / 3),
            // The lease may outlast the outage; completing it tells.
            Kept::Away => self.set_timer(ticket, Timer::Renew, now + self.rules.lease / 6),
            Kept::Fenced => {
                // Unless its handler runs, it is claimed anew before its next attempt, or answered by what is under way.
                entry.leased = false;
                if entry.stage == Stage::Running {
                    self.abort(ticket, Why::LeaseLost);
                }
            }
        }
    }

    /// The answer to [`Action::Complete`].
    pub(super) fn handle_completed(&mut self, ticket: Ticket, answer: Kept, now: Instant) {
        let Some(entry) = self.at(ticket, |s| matches!(s, Stage::Completing(_, true))) else { return };
        let Stage::Completing(fate, _) = entry.stage else { return };
        match answer {
            Kept::Yes => {
                entry.leased = false;
                self.gate = None;
                self.settle(ticket, fate);
            }
            Kept::Fenced => {
                // Somebody took over: what they recorded decides, so ask again.
                entry.leased = false;
                self.gate = None;
                self.requeue(ticket, now);
            }
            Kept::Away => {
                let tries = entry.tries;
                entry.tries = tries.saturating_add(1);
                entry.stage = Stage::Completing(fate, false);
                self.store_away(now);
                let wait = self.backoff(tries, Duration::from_millis(100), Duration::from_secs(5));
                self.set_timer(ticket, Timer::Wake, now + wait);
            }
        }
    }

    /// The answer to [`Action::Bury`].
    pub(super) fn handle_buried(&mut self, ticket: Ticket, answer: Buried, now: Instant) {
        let stopping = self.drain_until.is_some();
        let Some(entry) = self.at(ticket, |s| s == Stage::Burying(true)) else { return };
        match answer {
            Buried::Yes => self.end(ticket, Fate::DeadLettered),
            Buried::Refused => self.fail(ticket, now),
            Buried::Away if stopping => self.end(ticket, Fate::GivenBack),
            Buried::Away => {
                let tries = entry.tries;
                entry.tries = tries.saturating_add(1);
                entry.stage = Stage::Burying(false);
                let wait = self.backoff(tries, Duration::from_millis(100), Duration::from_secs(10));
                self.set_timer(ticket, Timer::Wake, now + wait);
            }
        }
    }

    /// The answer to [`Action::Release`], whatever it was: an unreleased lease ends by itself.
    pub(super) fn handle_released(&mut self, ticket: Ticket) {
        let Some(entry) = self.at(ticket, |s| matches!(s, Stage::Releasing(_))) else { return };
        if let Stage::Releasing(fate) = entry.stage {
            self.settle(ticket, fate);
        }
    }

    /// Take nothing new, give back what does not run, finish what does within the drain time.
    pub(super) fn handle_stop(&mut self, now: Instant) {
        if self.drain_until.is_some() {
            return;
        }
        self.drain_until = Some(now + self.rules.drain);
        for ticket in self.order.remove_all() {
            self.end(ticket, Fate::GivenBack);
        }
        // An outage of the dead letters' destination is no reason to hold up a drain.
        for ticket in self.tickets() {
            if self.at(ticket, |s| s == Stage::Burying(false)).is_some() {
                self.end(ticket, Fate::GivenBack);
            }
        }
    }

    /// The drain is over and so is the patience with handlers that do not end: what is left is given back.
    pub(super) fn handle_forsaken(&mut self) {
        for ticket in self.tickets() {
            self.settle(ticket, Fate::GivenBack);
        }
    }

    /// The next thing to do, or `None` until something happens or [`Machine::poll_timeout`] is reached.
    pub(super) fn poll_action(&mut self, now: Instant) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if !self.fire(now) && !self.start(now) {
                return None;
            }
        }
    }

    /// When [`Machine::poll_action`] has something to do even if nothing happens.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _, _)| *at);
        let drain = self.drain_until.filter(|_| !self.drained && !self.entries.is_empty());
        let due = match &self.gate {
            None => self.order.poll_next_due(),
            Some(gate) if gate.probing => None,
            // Never before the gate opens, and not before something can run.
            Some(gate) if self.order.ready() > 0 => Some(gate.at),
            Some(gate) => self.order.poll_next_due().map(|due| due.max(gate.at)),
        };
        let due = due.filter(|_| self.order.running() < self.rules.concurrency);
        [timer, drain, due].into_iter().flatten().min()
    }

    /// Fires one due timer; says whether there was one.
    fn fire(&mut self, now: Instant) -> bool {
        if !self.drained && self.drain_until.is_some_and(|at| at <= now) {
            self.drained = true;
            self.abandon();
            return true;
        }
        let Some((at, ticket, timer)) = self.timers.first().copied() else { return false };
        if at > now {
            return false;
        }
        self.timers.pop_first();
        let Some(entry) = self.entries.get_mut(&ticket) else { return true };
        match timer {
            Timer::Renew => {
                entry.renew = None;
                self.actions.push_back(Action::Renew(ticket));
            }
            Timer::Wake => {
                entry.wake = None;
                match entry.stage {
                    Stage::Running => self.abort(ticket, Why::TimedOut),
                    Stage::Completing(fate, false) => {
                        entry.stage = Stage::Completing(fate, true);
                        self.actions.push_back(Action::Complete(ticket));
                    }
                    Stage::Burying(false) => {
                        entry.stage = Stage::Burying(true);
                        self.actions.push_back(Action::Bury(ticket));
                    }
                    Stage::Queued
                    | Stage::Claiming
                    | Stage::Aborting(_)
                    | Stage::Completing(_, true)
                    | Stage::Burying(true)
                    | Stage::Releasing(_) => {}
                }
            }
        }
        true
    }

    /// Starts the next message that may run; says whether it did.
    fn start(&mut self, now: Instant) -> bool {
        if self.gate.as_ref().is_some_and(|gate| gate.probing || gate.at > now) {
            return false;
        }
        let Some((slot, ticket)) = self.order.poll_ready(now) else { return false };
        let Some(entry) = self.entries.get_mut(&ticket) else {
            let _ = self.order.complete(slot);
            return true;
        };
        entry.slot = Some(slot);
        if entry.keyed && !entry.leased {
            entry.stage = Stage::Claiming;
            self.actions.push_back(Action::Claim(ticket));
            if let Some(gate) = &mut self.gate {
                gate.probing = true;
            }
        } else {
            self.run(ticket, now);
        }
        true
    }

    fn run(&mut self, ticket: Ticket, now: Instant) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        entry.stage = Stage::Running;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.began.get_or_insert(now);
        if entry.attempts > 1 {
            self.summary.retried += 1;
        }
        self.actions.push_back(Action::Run(ticket, entry.attempts));
        if let Some(at) = self.rules.timeout.and_then(|limit| now.checked_add(limit)) {
            self.set_timer(ticket, Timer::Wake, at);
        }
    }

    fn abort(&mut self, ticket: Ticket, why: Why) {
        self.clear_timer(ticket, Timer::Wake);
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.stage = Stage::Aborting(why);
            self.actions.push_back(Action::Abort(ticket, why));
        }
    }

    /// The handler is done with it.
    fn finish(&mut self, ticket: Ticket, fate: Fate, now: Instant) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        if entry.leased {
            entry.stage = Stage::Completing(fate, true);
            entry.tries = 0;
            self.actions.push_back(Action::Complete(ticket));
        } else if entry.keyed {
            // Its lease was lost meanwhile: what the other holder recorded decides.
            self.requeue(ticket, now);
        } else {
            self.settle(ticket, fate);
        }
    }

    /// Back to the head of its lane, until `at`.
    fn requeue(&mut self, ticket: Ticket, at: Instant) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        entry.stage = Stage::Queued;
        let Some(slot) = entry.slot.take() else { return self.end(ticket, Fate::GivenBack) };
        match self.order.retry_at(slot, ticket, at) {
            Completed::Done => {}
            // The run is stopping.
            Completed::Removed(_) | Completed::Unknown(_) => self.end(ticket, Fate::GivenBack),
        }
    }

    /// After a failure that may pass.
    fn retry(&mut self, ticket: Ticket, now: Instant) {
        let random = self.random.draw();
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        let elapsed = now.saturating_duration_since(entry.began.unwrap_or(now));
        match self.rules.retry.next_delay(entry.attempts, elapsed, random) {
            None => self.give_up(ticket, now),
            Some(delay) => self.requeue(ticket, now + delay),
        }
    }

    /// It will not be worked.
    fn give_up(&mut self, ticket: Ticket, now: Instant) {
        match self.rules.exhausted {
            Exhausted::DeadLetter => {
                if let Some(entry) = self.entries.get_mut(&ticket) {
                    entry.stage = Stage::Burying(true);
                    entry.tries = 0;
                    self.actions.push_back(Action::Bury(ticket));
                }
            }
            Exhausted::Skip => self.end(ticket, Fate::Skipped),
            Exhausted::Stop => self.fail(ticket, now),
        }
    }

    /// Its failure ends the run.
    fn fail(&mut self, ticket: Ticket, now: Instant) {
        self.culprit.get_or_insert(ticket);
        // First the stop, so that what is behind it in its lane is not started.
        self.handle_stop(now);
        self.end(ticket, Fate::Failed);
    }

    /// Settles it after its key is released, if it holds one.
    fn end(&mut self, ticket: Ticket, fate: Fate) {
        self.clear_timer(ticket, Timer::Wake);
        self.clear_timer(ticket, Timer::Renew);
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        if entry.leased {
            entry.stage = Stage::Releasing(fate);
            self.actions.push_back(Action::Release(ticket));
        } else {
            self.settle(ticket, fate);
        }
    }

    fn settle(&mut self, ticket: Ticket, fate: Fate) {
        self.clear_timer(ticket, Timer::Wake);
        self.clear_timer(ticket, Timer::Renew);
        let Some(entry) = self.entries.remove(&ticket) else { return };
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        match fate {
            Fate::Handled => self.summary.handled += 1,
            Fate::Duplicate => self.summary.duplicates += 1,
            Fate::Skipped => self.summary.skipped += 1,
            Fate::DeadLettered => self.summary.dead_lettered += 1,
            Fate::GivenBack => self.summary.given_back += 1,
            Fate::Failed => self.summary.failed += 1,
        }
        self.actions.push_back(Action::Settle(ticket, fate));
        if let Some(slot) = entry.slot {
            let _ = self.order.complete(slot);
        }
    }

    /// The drain's time is over: end what runs, give back the rest.
    fn abandon(&mut self) {
        for ticket in self.tickets() {
            let Some(entry) = self.entries.get_mut(&ticket) else { continue };
            match entry.stage {
                Stage::Running => self.abort(ticket, Why::Drained),
                // Being ended already; answered when it has.
                Stage::Aborting(_) => entry.stage = Stage::Aborting(Why::Drained),
                Stage::Releasing(fate) => self.settle(ticket, fate),
                Stage::Queued | Stage::Claiming | Stage::Completing(..) | Stage::Burying(_) => {
                    self.settle(ticket, Fate::GivenBack);
                }
            }
        }
    }

    /// The tickets in hand, oldest first.
    fn tickets(&self) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = self.entries.keys().copied().collect();
        tickets.sort_unstable();
        tickets
    }

    /// Closes the gate; says when it opens for a probe.
    fn store_away(&mut self, now: Instant) -> Instant {
        let tries = match &self.gate {
            // Claims that were under way when the first one failed say nothing new.
            Some(gate) if !gate.probing => return gate.at,
            Some(gate) => gate.tries,
            None => 0,
        };
        let at = now + self.backoff(tries, Duration::from_millis(100), Duration::from_secs(5));
        self.gate = Some(Gate { at, tries: tries.saturating_add(1), probing: false });
        at
    }

    /// `base * 2^tries` up to `cap`, and of that at least half, the rest at random.
    fn backoff(&mut self, tries: u32, base: Duration, cap: Duration) -> Duration {
        let full = base.saturating_mul(1 << tries.min(16)).min(cap);
        let part = u32::try_from(self.random.draw() % 512).unwrap_or(0) + 512;
        full.saturating_mul(part) / 1024
    }

    fn at(&mut self, ticket: Ticket, stage: impl Fn(Stage) -> bool) -> Option<&mut Entry> {
        self.entries.get_mut(&ticket).filter(|e| stage(e.stage))
    }

    fn set_timer(&mut self, ticket: Ticket, timer: Timer, at: Instant) {
        self.clear_timer(ticket, timer);
        if let Some(entry) = self.entries.get_mut(&ticket) {
            *entry.timer(timer) = Some(at);
            self.timers.insert((at, ticket, timer));
        }
    }

    fn clear_timer(&mut self, ticket: Ticket, timer: Timer) {
        if let Some(at) = self.entries.get_mut(&ticket).and_then(|e| e.timer(timer).take()) {
            self.timers.remove(&(at, ticket, timer));
        }
    }
}

impl Entry {
    fn timer(&mut self, timer: Timer) -> &mut Option<Instant> {
        match timer {
            Timer::Wake => &mut self.wake,
            Timer::Renew => &mut self.renew,
        }
    }
}

#[cfg(test)]
mod tests;
