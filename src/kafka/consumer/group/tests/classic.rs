//! A naive coordinator of the classic protocol.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::assignor::TopicShape;
use super::super::classic::{Answer as Classic, Ask as Question, Joined};
use super::world::{Coordinator, PARTITIONS};
use super::*;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Preparing(Instant),
    Completing,
    Stable,
}

#[derive(Debug)]
struct Known {
    subscription: (String, Bytes),
    /// The JoinGroup or SyncGroup that waits.
    waits: Option<u64>,
    joined: bool,
    assignment: Bytes,
    seen: Instant,
}

/// One group.
#[derive(Debug)]
pub(super) struct Model {
    assignors: Vec<Assignor>,
    state: State,
    generation: i32,
    leader: String,
    members: BTreeMap<String, Known>,
    /// Ids that were given out and have not joined yet.
    given: BTreeSet<String>,
    ids: u64,
    out: Vec<(u64, Answer)>,
}

impl Model {
    pub(super) fn new(assignors: &[Assignor]) -> Self {
        Self {
            assignors: assignors.to_vec(),
            state: State::Stable,
            generation: 0,
            leader: String::new(),
            members: BTreeMap::new(),
            given: BTreeSet::new(),
            ids: 0,
            out: Vec::new(),
        }
    }

    fn say(&mut self, token: u64, answer: Classic) {
        self.out.push((token, Answer::Classic(answer)));
    }

    fn joined_code(code: i16, member: String) -> Classic {
        Classic::Joined(Joined { code, member, ..Joined::default() })
    }

    fn prepare(&mut self, now: Instant) {
        if matches!(self.state, State::Preparing(_)) {
            return;
        }
        for known in self.members.values_mut() {
            known.joined = false;
            if let Some(token) = known.waits.take() {
                self.out.push((token, Answer::Classic(Classic::Synced(27, Bytes::new()))));
            }
        }
        self.state = State::Preparing(now + 20 * SECOND);
    }

    /// The rebalance goes on once all have joined, or the time is up for the others.
    fn complete(&mut self, now: Instant) {
        let State::Preparing(until) = self.state else { return };
        if now < until && !self.members.values().all(|k| k.joined) {
            return;
        }
        self.members.retain(|_, k| k.joined);
        let Some(first) = self.members.keys().next() else {
            self.state = State::Stable;
            return;
        };
        self.generation += 1;
        if !self.members.contains_key(&self.leader) {
            self.leader = first.clone();
        }
        self.state = State::Completing;
        let all: Vec<_> =
            self.members.iter().map(|(id, k)| (id.clone(), None, k.subscription.1.clone())).collect();
        for (id, known) in &mut self.members {
            known.seen = now;
            known.assignment = Bytes::new();
            if let Some(token) = known.waits.take() {
                let joined = Joined {
                    code: 0,
                    generation: self.generation,
                    protocol: known.subscription.0.clone(),
                    leader: self.leader.clone(),
                    member: id.clone(),
                    members: if *id == self.leader { all.clone() } else { Vec::new() },
                    skip_assignment: false,
                };
                self.out.push((token, Answer::Classic(Classic::Joined(joined))));
            }
        }
    }

    fn handle_join(&mut self, token: u64, member: &str, subscription: (String, Bytes), now: Instant) {
        if member.is_empty() {
            self.ids += 1;
            let id = format!("m{}", self.ids);
            self.given.insert(id.clone());
            return self.say(token, Self::joined_code(79, id));
        }
        if !self.given.remove(member) && !self.members.contains_key(member) {
            return self.say(token, Self::joined_code(25, String::new()));
        }
        let known = self.members.entry(member.to_owned()).or_insert_with(|| Known {
            subscription: subscription.clone(),
            waits: None,
            joined: false,
            assignment: Bytes::new(),
            seen: now,
        });
        known.subscription = subscription;
        known.seen = now;
        self.prepare(now);
        if let Some(known) = self.members.get_mut(member) {
            known.joined = true;
            known.waits = Some(token);
        }
        self.complete(now);
    }

    fn handle_sync(
        &mut self,
        token: u64,
        member: &str,
        generation: i32,
        assignments: Vec<(String, Bytes)>,
        now: Instant,
    ) {
        if !self.members.contains_key(member) {
            return self.say(token, Classic::Synced(25, Bytes::new()));
        }
        if generation != self.generation {
            return self.say(token, Classic::Synced(22, Bytes::new()));
        }
        if matches!(self.state, State::Preparing(_)) {
            return self.say(token, Classic::Synced(27, Bytes::new()));
        }
        if let Some(known) = self.members.get_mut(member) {
            known.seen = now;
            known.waits = Some(token);
        }
        if member == self.leader && self.state == State::Completing {
            for (id, bytes) in assignments {
                if let Some(known) = self.members.get_mut(&id) {
                    known.assignment = bytes;
                }
            }
            self.state = State::Stable;
        }
        if self.state == State::Stable {
            for known in self.members.values_mut() {
                if let Some(token) = known.waits.take() {
                    self.out.push((token, Answer::Classic(Classic::Synced(0, known.assignment.clone()))));
                }
            }
        }
    }
}

impl Coordinator for Model {
    fn handle_ask(&mut self, token: u64, ask: Ask, now: Instant) {
        let Ask::Classic(ask) = ask else { panic!("another protocol") };
        match ask {
            Question::Join { member, protocols } => {
                let (name, bytes) = protocols[0].clone();
                self.handle_join(token, &member, (name.to_owned(), bytes), now);
            }
            Question::Shapes(topics) => {
                let shape = |t: Topic| (t, TopicShape { partitions: PARTITIONS as usize, racks: Vec::new() });
                self.say(token, Classic::Shapes(topics.into_iter().map(shape).collect()));
            }
            Question::Sync { member, generation, assignments, .. } => {
                self.handle_sync(token, &member, generation, assignments, now);
            }
            Question::Beat { member, generation } => {
                let code = match self.members.get_mut(&member) {
                    None => 25,
                    Some(_) if generation != self.generation => 22,
                    Some(known) => {
                        known.seen = now;
                        if matches!(self.state, State::Preparing(_)) { 27 } else { 0 }
                    }
                };
                self.say(token, Classic::Beaten(code));
            }
            Question::Leave { member } => {
                if self.members.remove(&member).is_some() {
                    self.prepare(now);
                    self.complete(now);
                }
                self.say(token, Classic::Left);
            }
        }
    }

    fn poll_answers(&mut self) -> Vec<(u64, Answer)> {
        std::mem::take(&mut self.out)
    }

    fn handle_time(&mut self, now: Instant) {
        let before = self.members.len();
        // Who waits for an answer needs no heartbeat.
        self.members.retain(|_, k| k.waits.is_some() || now < k.seen + 10 * SECOND);
        if self.members.len() < before {
            self.prepare(now);
        }
        self.complete(now);
    }

    fn handle_restart(&mut self, now: Instant) {
        for known in self.members.values_mut() {
            known.waits = None;
            known.seen = now;
        }
        self.prepare(now);
    }

    fn member(&mut self, now: Instant) -> Membership {
        Membership::classic(settings(None, &self.assignors), vec![topic("t")], now)
    }
}
