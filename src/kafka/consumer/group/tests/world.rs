//! Members, their consumers and a coordinator, moved by single steps.
//!
//! A partition is *handed out* by a member that was told to read it, was not told to let it go, and whose lease holds. No
//! two members may hand out the same one at the same time, whatever was lost or delayed. Once nothing more is lost, all
//! partitions are handed out, each by one.

use std::collections::BTreeMap;

use super::*;

/// Partitions of the one topic.
pub(super) const PARTITIONS: i32 = 5;
const MEMBERS: usize = 4;

/// Takes questions, and answers them when it likes.
pub(super) trait Coordinator {
    /// Takes a question; the answer may come later.
    fn handle_ask(&mut self, token: u64, ask: Ask, now: Instant);
    /// What is answered by now.
    fn poll_answers(&mut self) -> Vec<(u64, Answer)>;
    /// Time has passed.
    fn handle_time(&mut self, now: Instant);
    /// Another broker took over: who waited for an answer gets none, and every session begins anew.
    fn handle_restart(&mut self, now: Instant);
    /// A member for its group.
    fn member(&mut self, now: Instant) -> Membership;
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The member's driver runs until it has nothing to do; its request arrives, and answers come back.
    Go(usize),
    /// Its consumer has settled what was to be released.
    Release(usize),
    /// Its next request is lost.
    LoseRequest(usize),
    /// The next answer to it is lost.
    LoseAnswer(usize),
    /// Starts, where there is none.
    Join(usize),
    Leave(usize),
    /// Gone without a word.
    Crash(usize),
    /// Does nothing for so long.
    Freeze(usize, Duration),
    Wait(Duration),
    Restart,
}

struct Actor {
    machine: Membership,
    /// What it reads, and whether it is to let go of it.
    parts: BTreeMap<Place, bool>,
    /// The question that is asked.
    token: Option<u64>,
    answer: Option<Answer>,
    frozen: Instant,
    lose_request: bool,
    lose_answer: bool,
    leaving: bool,
}

pub(super) struct World<C> {
    coordinator: C,
    actors: Vec<Option<Actor>>,
    now: Instant,
    tokens: u64,
}

impl<C: Coordinator> World<C> {
    pub(super) fn new(coordinator: C) -> Self {
        let actors = (0..MEMBERS).map(|_| None).collect();
        Self { coordinator, actors, now: Instant::now(), tokens: 0 }
    }

    pub(super) fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Go(m) => self.go(m),
            Step::Release(m) => self.release(m),
            Step::LoseRequest(m) => self.with(m, |a| a.lose_request = true),
            Step::LoseAnswer(m) => self.with(m, |a| a.lose_answer = true),
            Step::Join(m) if self.actors[m].is_none() => {
                let machine = self.coordinator.member(self.now);
                self.actors[m] = Some(Actor {
                    machine,
                    parts: BTreeMap::new(),
                    token: None,
                    answer: None,
                    frozen: self.now,
                    lose_request: false,
                    lose_answer: false,
                    leaving: false,
                });
            }
            Step::Join(_) => {}
            Step::Leave(m) => self.with(m, |a| a.leaving = true),
            Step::Crash(m) => self.actors[m] = None,
            Step::Freeze(m, time) => {
                let until = self.now + time;
                self.with(m, |a| a.frozen = a.frozen.max(until));
            }
            Step::Wait(time) => {
                self.now += time;
                self.coordinator.handle_time(self.now);
                self.collect();
            }
            Step::Restart => {
                self.coordinator.handle_restart(self.now);
                for actor in self.actors.iter_mut().flatten().filter(|a| a.token.is_some()) {
                    actor.token = None;
                    actor.answer = Some(failed(&actor.machine));
                }
                self.collect();
            }
        }
        self.check()
    }

    fn with(&mut self, m: usize, change: impl FnOnce(&mut Actor)) {
        if let Some(actor) = &mut self.actors[m] {
            change(actor);
        }
    }

    fn release(&mut self, m: usize) {
        let now = self.now;
        self.with(m, |a| {
            if a.frozen > now {
                return;
            }
            let gone: Vec<Place> = a.parts.iter().filter(|(_, r)| **r).map(|(p, _)| p.clone()).collect();
            a.parts.retain(|_, releasing| !*releasing);
            if !gone.is_empty() {
                a.machine.handle_released(&gone, now);
            }
        });
        self.go(m);
    }

    fn go(&mut self, m: usize) {
        // Each turn asks or takes an answer: no machine asks for ever.
        for _ in 0..100 {
            let now = self.now;
            let Some(actor) = self.actors[m].as_mut().filter(|a| a.frozen <= now) else { return };
            if let Some(answer) = actor.answer.take() {
                actor.machine.handle_answer(answer, now);
            }
            if std::mem::take(&mut actor.leaving) {
                actor.parts.clear();
                actor.machine.handle_leave();
            }
            let ask = actor.machine.poll_ask(now);
            while let Some(event) = actor.machine.poll_event() {
                match event {
                    Event::Assigned(places) => {
                        for place in places {
                            assert_eq!(actor.parts.insert(place, false), None, "assigned twice");
                        }
                    }
                    Event::Revoke(places) => {
                        for place in places {
                            *actor.parts.get_mut(&place).expect("revoked what it has") = true;
                        }
                    }
                    Event::Lost(places) => {
                        for place in places {
                            actor.parts.remove(&place).expect("lost what it had");
                        }
                        assert!(actor.parts.is_empty(), "all is lost at once");
                    }
                    Event::Failed(e) => panic!("nothing here is final: {e}"),
                }
            }
            let Some(ask) = ask else {
                if actor.machine.standing() == Standing::Ended {
                    self.actors[m] = None;
                }
                return;
            };
            self.tokens += 1;
            if std::mem::take(&mut actor.lose_request) {
                actor.answer = Some(failed(&actor.machine));
                continue;
            }
            actor.token = Some(self.tokens);
            self.coordinator.handle_ask(self.tokens, ask, now);
            self.collect();
        }
        panic!("a member asks without end");
    }

    /// Answers reach their members' sockets.
    fn collect(&mut self) {
        for (token, answer) in self.coordinator.poll_answers() {
            let Some(actor) = self.actors.iter_mut().flatten().find(|a| a.token == Some(token)) else {
                continue;
            };
            actor.token = None;
            let lost = std::mem::take(&mut actor.lose_answer);
            actor.answer = Some(if lost { failed(&actor.machine) } else { answer });
        }
    }

    fn handed_out(&self) -> Vec<(usize, &Place)> {
        let holds = |a: &Actor| a.machine.lease().is_some_and(|until| self.now < until);
        let actors = self.actors.iter().enumerate().filter_map(|(m, a)| Some((m, a.as_ref()?)));
        let parts = actors.filter(|(_, a)| holds(a)).flat_map(|(m, a)| a.parts.iter().map(move |p| (m, p)));
        parts.filter(|(_, (_, releasing))| !**releasing).map(|(m, (place, _))| (m, place)).collect()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let mut owners: BTreeMap<&Place, usize> = BTreeMap::new();
        for (m, place) in self.handed_out() {
            if let Some(other) = owners.insert(place, m) {
                return Err(TestCaseError::fail(format!(
                    "{place:?} is handed out by members {other} and {m}"
                )));
            }
        }
        Ok(())
    }

    /// From here on nothing is lost: soon everybody has their share.
    pub(super) fn settle(&mut self) -> Result<(), TestCaseError> {
        for m in 0..MEMBERS {
            self.with(m, |a| (a.lose_request, a.lose_answer) = (false, false));
        }
        // Two minutes of steps of half a second: sessions end, rebalances run out.
        for round in 0..240 {
            self.step(Step::Wait(SECOND / 2))?;
            if self.actors.iter().all(Option::is_none) {
                self.step(Step::Join(0))?;
            }
            for m in 0..MEMBERS {
                self.step(Step::Go(m))?;
                self.step(Step::Release(m))?;
            }
            let alive = self.actors.iter().flatten().count();
            let handed = self.handed_out().len();
            let quiet = self.actors.iter().flatten().all(|a| a.machine.standing() == Standing::In);
            if round > 60 && alive > 0 && quiet && handed == PARTITIONS as usize {
                return Ok(());
            }
        }
        let parts: Vec<_> = self.actors.iter().flatten().map(|a| (&a.parts, a.machine.standing())).collect();
        Err(TestCaseError::fail(format!("not settled: {parts:?}")))
    }
}

fn failed(machine: &Membership) -> Answer {
    let e = crate::Error::new(crate::ErrorKind::Disconnected, "lost").ambiguous();
    match machine {
        Membership::Classic(_) => Answer::Classic(super::super::classic::Answer::Failed(e)),
        Membership::Modern(_) => Answer::Modern(super::super::modern::Answer::Failed(e)),
    }
}
