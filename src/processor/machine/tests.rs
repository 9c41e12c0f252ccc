#![allow(clippy::disallowed_methods, reason = "the tests need one instant to count from")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::delivery::{Order, RetryPolicy, Scope};

fn rules() -> Rules {
    let retry = RetryPolicy::builder()
        .initial(Duration::from_millis(100))
        .max_delay(Duration::from_secs(1))
        .attempts(3)
        .build()
        .unwrap();
    Rules {
        order: Order::ByKey,
        concurrency: 3,
        in_hand: 8,
        in_hand_bytes: 1000,
        retry,
        timeout: Some(Duration::from_secs(10)),
        lease: Duration::from_secs(6),
        exhausted: Exhausted::DeadLetter,
        drain: Duration::from_secs(5),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Arrive {
        key: Option<u8>,
        keyed: bool,
        verdict: Option<Class>,
    },
    /// Answers one of the operations under way in one of its ways.
    Answer {
        which: usize,
        how: u8,
    },
    Advance(u64),
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict =
        prop_oneof![12 => Just(None), 1 => Just(Some(Class::Reject)), 1 => Just(Some(Class::Ignore))];
    let step = prop_oneof![
        8 => (proptest::option::weighted(0.8, 0u8..3), any::<bool>(), verdict)
            .prop_map(|(key, keyed, verdict)| Step::Arrive { key, keyed, verdict }),
        14 => (any::<usize>(), any::<u8>()).prop_map(|(which, how)| Step::Answer { which, how }),
        6 => prop_oneof![0u64..300, 0u64..20_000].prop_map(Step::Advance),
    ];
    (proptest::collection::vec(step, 0..120), proptest::option::weighted(0.3, 0usize..120)).prop_map(
        |(mut steps, stop)| {
            if let Some(at) = stop {
                steps.insert(at.min(steps.len()), Step::Stop);
            }
            steps
        },
    )
}

/// The world around the machine, and what it must never see.
struct World {
    machine: Machine,
    now: Instant,
    under_way: Vec<Action>,
    /// Unsettled messages by key, in order of arrival; those not to be worked have no place in it.
    lanes: BTreeMap<u8, Vec<Ticket>>,
    keys: BTreeMap<Ticket, Option<u8>>,
    keyed: BTreeSet<Ticket>,
    leased: BTreeSet<Ticket>,
    aborting: BTreeSet<Ticket>,
    /// What would justify acknowledging it.
    earned: BTreeMap<Ticket, Fate>,
    settled: BTreeMap<Ticket, Fate>,
    arrived: u64,
}

impl World {
    fn new(rules: Rules) -> Self {
        Self {
            machine: Machine::new(rules, 7),
            now: Instant::now(),
            under_way: Vec::new(),
            lanes: BTreeMap::new(),
            keys: BTreeMap::new(),
            keyed: BTreeSet::new(),
            leased: BTreeSet::new(),
            aborting: BTreeSet::new(),
            earned: BTreeMap::new(),
            settled: BTreeMap::new(),
            arrived: 0,
        }
    }

    fn arrive(&mut self, key: Option<u8>, keyed: bool, verdict: Option<Class>) {
        if !self.machine.wants_more() {
            return;
        }
        let bytes = key.map(|k| [k]);
        let ticket = self.machine.next_ticket();
        if verdict.is_none() {
            if let Some(key) = key {
                self.lanes.entry(key).or_default().push(ticket);
            }
            self.keys.insert(ticket, key);
        }
        if keyed && verdict.is_none() {
            self.keyed.insert(ticket);
        }
        if verdict == Some(Class::Ignore) {
            self.earned.insert(ticket, Fate::Skipped);
        }
        let arrival = Arrival {
            scope: Scope(0),
            key: bytes.as_ref().map(|k| &k[..]),
            bytes: 10,
            keyed: keyed && verdict.is_none(),
            verdict,
        };
        assert_eq!(self.machine.handle_arrival(arrival, self.now), ticket);
        self.arrived += 1;
    }

    fn turn(&mut self) {
        while let Some(action) = self.machine.poll_action(self.now) {
            self.check(action);
        }
        assert!(self.machine.in_hand() <= 8);
        let runs = self.under_way.iter().filter(|a| matches!(a, Action::Run(..) | Action::Claim(_))).count();
        assert!(runs <= 3, "{runs} at once");
        let timeout = self.machine.poll_timeout();
        assert!(
            timeout.is_none_or(|at| at > self.now),
            "a deadline that passed with nothing done: the driver would spin"
        );
    }

    fn check(&mut self, action: Action) {
        match action {
            Action::Run(ticket, attempt) => {
                assert!((1..=20).contains(&attempt));
                if let Some(Some(key)) = self.keys.get(&ticket) {
                    assert_eq!(self.lanes[key].first(), Some(&ticket), "it overtook an older one of its key");
                }
                assert!(
                    !self.keyed.contains(&ticket) || self.leased.contains(&ticket),
                    "it runs without a claim"
                );
                self.one_operation(ticket);
                self.under_way.push(action);
            }
            Action::Claim(ticket)
            | Action::Complete(ticket)
            | Action::Bury(ticket)
            | Action::Release(ticket) => {
                self.one_operation(ticket);
                self.under_way.push(action);
            }
            Action::Renew(_) => self.under_way.push(action),
            Action::Abort(ticket, _) => {
                assert!(self.under_way.iter().any(|a| matches!(a, Action::Run(t, _) if *t == ticket)));
                self.aborting.insert(ticket);
            }
            Action::Settle(ticket, fate) => {
                assert_eq!(self.settled.insert(ticket, fate), None, "settled twice");
                let skipped = fate == Fate::Skipped && self.machine.rules.exhausted == Exhausted::Skip;
                if fate.acks() && !skipped {
                    assert_eq!(self.earned.get(&ticket), Some(&fate), "acknowledged without cause");
                }
                for lane in self.lanes.values_mut() {
                    lane.retain(|t| *t != ticket);
                }
            }
        }
    }

    fn one_operation(&self, ticket: Ticket) {
        let busy = self.under_way.iter().any(|a| {
            matches!(a, Action::Claim(t) | Action::Run(t, _) | Action::Complete(t) | Action::Bury(t) | Action::Release(t)
                if *t == ticket)
        });
        assert!(!busy, "two operations at once on message {ticket}");
        assert!(!self.settled.contains_key(&ticket), "an operation on a settled message");
    }

    fn answer(&mut self, which: usize, how: u8) {
        if self.under_way.is_empty() {
            return;
        }
        let action = self.under_way.swap_remove(which % self.under_way.len());
        let now = self.now;
        match action {
            Action::Claim(t) => {
                let answer = match how % 10 {
                    0 => Claimed::Done,
                    1 => Claimed::Held(Duration::from_secs(3)),
                    2 => Claimed::Refused,
                    3 => Claimed::Away,
                    _ => Claimed::Yes,
                };
                if answer == Claimed::Yes {
                    self.leased.insert(t);
                }
                if answer == Claimed::Done {
                    self.earned.insert(t, Fate::Duplicate);
                }
                self.machine.handle_claimed(t, answer, now);
            }
            Action::Run(t, _) => {
                let mut ended = match how % 10 {
                    0..=2 => Ended::Failed(Class::Retry),
                    3 => Ended::Failed(Class::Reject),
                    4 => Ended::Failed(Class::Ignore),
                    _ if how > 253 => Ended::Failed(Class::Stop),
                    _ => Ended::Ok,
                };
                if self.aborting.remove(&t) && how.is_multiple_of(2) {
                    ended = Ended::Aborted;
                }
                match ended {
                    Ended::Ok => drop(self.earned.insert(t, Fate::Handled)),
                    Ended::Failed(Class::Ignore) => drop(self.earned.insert(t, Fate::Skipped)),
                    _ => drop(self.earned.remove(&t)),
                }
                self.machine.handle_ended(t, ended, now);
            }
            Action::Complete(t) => {
                let answer = [Kept::Yes, Kept::Yes, Kept::Fenced, Kept::Away][usize::from(how % 4)];
                if answer != Kept::Away {
                    self.leased.remove(&t);
                }
                self.machine.handle_completed(t, answer, now);
            }
            Action::Renew(t) => {
                let answer = [Kept::Yes, Kept::Yes, Kept::Fenced, Kept::Away][usize::from(how % 4)];
                if answer == Kept::Fenced {
                    self.leased.remove(&t);
                }
                self.machine.handle_renewed(t, answer, now);
            }
            Action::Bury(t) => {
                let answer = match how {
                    240.. => Buried::Refused,
                    _ if how.is_multiple_of(3) => Buried::Away,
                    _ => Buried::Yes,
                };
                if answer == Buried::Yes {
                    self.earned.insert(t, Fate::DeadLettered);
                }
                self.machine.handle_buried(t, answer, now);
            }
            Action::Release(t) => {
                self.leased.remove(&t);
                self.machine.handle_released(t);
            }
            Action::Abort(..) | Action::Settle(..) => unreachable!("never under way"),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Arrive { key, keyed, verdict } => self.arrive(key, keyed, verdict),
            Step::Answer { which, how } => self.answer(which, how),
            Step::Advance(ms) => self.now += Duration::from_millis(ms),
            Step::Stop => self.machine.handle_stop(self.now),
        }
        self.turn();
    }

    /// Everything goes well from now on: does the machine come to rest, and how long does it take?
    fn finish(&mut self) {
        for _ in 0..2000 {
            self.turn();
            while !self.under_way.is_empty() {
                self.answer(0, 5);
                self.turn();
            }
            if self.machine.in_hand() == 0 {
                return;
            }
            let at = self.machine.poll_timeout().expect("messages in hand, nothing under way, and no timer");
            assert!(at <= self.now + Duration::from_secs(30), "a timer that is too far away");
            self.now = self.now.max(at);
        }
        panic!("the machine does not come to rest: {:?}", self.machine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn order_holds_bounds_hold_and_every_message_is_settled_once(
        steps in steps(),
        exhausted in prop_oneof![4 => Just(Exhausted::DeadLetter), 1 => Just(Exhausted::Skip), 1 => Just(Exhausted::Stop)],
    ) {
        let mut world = World::new(Rules { exhausted, ..rules() });
        for step in steps {
            world.step(step);
        }
        world.finish();
        prop_assert_eq!(world.settled.len() as u64, world.arrived);
        prop_assert_eq!(world.machine.summary().taken(), world.arrived);
        prop_assert!(world.machine.timers.is_empty(), "timers of settled messages are left");
    }
}

fn arrival(key: Option<&[u8]>, keyed: bool) -> Arrival<'_> {
    Arrival { scope: Scope(0), key, bytes: 1, keyed, verdict: None }
}

fn actions(machine: &mut Machine, now: Instant) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action(now)).collect()
}

#[test]
fn a_store_that_is_away_stops_the_intake_and_is_probed_by_one() {
    let now = Instant::now();
    let mut m = Machine::new(rules(), 1);
    for _ in 0..3 {
        m.handle_arrival(arrival(None, true), now);
    }
    assert_eq!(actions(&mut m, now), [Action::Claim(0), Action::Claim(1), Action::Claim(2)]);
    for t in 0..3 {
        m.handle_claimed(t, Claimed::Away, now);
    }
    assert!(!m.wants_more() && m.is_gated());
    assert_eq!(actions(&mut m, now), []);
    let probe = m.poll_timeout().unwrap();
    assert_eq!(actions(&mut m, probe).len(), 1, "one claim probes");
    m.handle_claimed(0, Claimed::Away, probe);
    let later = m.poll_timeout().unwrap();
    assert!(later > probe);
    let probing = actions(&mut m, later);
    let [Action::Claim(t)] = probing[..] else { panic!("{probing:?}") };
    m.handle_claimed(t, Claimed::Yes, later);
    assert!(m.wants_more());
    let open = actions(&mut m, later + Duration::from_secs(1));
    assert_eq!(open.iter().filter(|a| matches!(a, Action::Claim(_))).count(), 2, "{open:?}");
}

#[test]
fn a_lease_is_extended_each_third_of_it_while_the_handler_runs() {
    let now = Instant::now();
    let mut m = Machine::new(rules(), 1);
    m.handle_arrival(arrival(None, true), now);
    actions(&mut m, now);
    m.handle_claimed(0, Claimed::Yes, now);
    assert_eq!(actions(&mut m, now), [Action::Run(0, 1)]);
    let mut at = now;
    for _ in 0..3 {
        at = m.poll_timeout().unwrap();
        assert_eq!(actions(&mut m, at), [Action::Renew(0)]);
        m.handle_renewed(0, Kept::Yes, at);
    }
    assert_eq!(at, now + Duration::from_secs(6));
    // Somebody took over: the handler is ended, then the key is claimed anew.
    let at = m.poll_timeout().unwrap();
    actions(&mut m, at);
    m.handle_renewed(0, Kept::Fenced, at);
    assert_eq!(actions(&mut m, at), [Action::Abort(0, Why::LeaseLost)]);
    m.handle_ended(0, Ended::Aborted, at);
    assert_eq!(actions(&mut m, at), [Action::Claim(0)]);
}

#[test]
fn after_the_drain_running_handlers_are_ended_and_all_is_given_back() {
    let now = Instant::now();
    let mut m = Machine::new(rules(), 1);
    for _ in 0..2 {
        m.handle_arrival(arrival(Some(b"k"), false), now);
    }
    assert_eq!(actions(&mut m, now), [Action::Run(0, 1)]);
    m.handle_stop(now);
    assert_eq!(actions(&mut m, now), [Action::Settle(1, Fate::GivenBack)]);
    let end = m.poll_timeout().unwrap();
    assert_eq!(end, now + Duration::from_secs(5));
    assert_eq!(actions(&mut m, end), [Action::Abort(0, Why::Drained)]);
    m.handle_ended(0, Ended::Aborted, end);
    assert_eq!(actions(&mut m, end), [Action::Settle(0, Fate::GivenBack)]);
}

#[test]
fn without_a_place_for_it_a_hopeless_message_ends_the_run_and_nothing_behind_it_runs() {
    let now = Instant::now();
    let mut m = Machine::new(Rules { exhausted: Exhausted::Stop, ..rules() }, 1);
    for _ in 0..2 {
        m.handle_arrival(arrival(Some(b"k"), false), now);
    }
    actions(&mut m, now);
    m.handle_ended(0, Ended::Failed(Class::Reject), now);
    assert_eq!(actions(&mut m, now), [Action::Settle(1, Fate::GivenBack), Action::Settle(0, Fate::Failed)]);
    assert_eq!(m.culprit(), Some(0));
}
