//! A naive coordinator of KIP-848.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::super::modern::{Answer as Modern, Ask as Question, Beat, Beaten, Id};
use super::world::{Coordinator, PARTITIONS};
use super::*;

const TOPIC: Uuid = Uuid::from_u128(7);

#[derive(Debug, Default)]
struct Known {
    epoch: i32,
    /// What it may own: what it was given and has not yet told to be without.
    held: BTreeSet<Id>,
    /// What it was told last.
    told: BTreeSet<Id>,
    seen: Option<Instant>,
    /// Since when it has more than it should.
    owes: Option<Instant>,
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct Model {
    epoch: i32,
    members: BTreeMap<String, Known>,
    out: Vec<(u64, Answer)>,
    made: u128,
}

impl Model {
    /// The partitions in turn to the members in order.
    fn target(&self, member: &str) -> BTreeSet<Id> {
        let place = self.members.keys().position(|m| m == member).unwrap_or(0);
        let count = self.members.len().max(1);
        (0..PARTITIONS).filter(|p| *p as usize % count == place).map(|p| (TOPIC, p)).collect()
    }

    fn handle_beat(&mut self, beat: Beat, now: Instant) -> Beaten {
        let refused = |code| Beaten { code, ..Beaten::default() };
        if beat.epoch < 0 {
            if self.members.remove(&beat.member).is_some() {
                self.epoch += 1;
            }
            return Beaten { epoch: beat.epoch, interval: SECOND, ..Beaten::default() };
        }
        if beat.epoch == 0 && !self.members.contains_key(&beat.member) {
            self.members.insert(beat.member.clone(), Known::default());
            self.epoch += 1;
        }
        let Some(known) = self.members.get_mut(&beat.member) else { return refused(25) };
        if beat.epoch == 0 {
            // It begins anew, and owns nothing.
            known.held.clear();
            known.told.clear();
        } else if beat.epoch > known.epoch {
            return refused(110);
        }
        known.seen = Some(now);
        if let Some(owned) = &beat.owned {
            let owned: BTreeSet<Id> = owned.iter().copied().collect();
            let told = known.told.clone();
            known.held.retain(|id| owned.contains(id) || told.contains(id));
        }
        let target = self.target(&beat.member);
        let free = |id: &Id| !self.members.iter().any(|(m, k)| *m != beat.member && k.held.contains(id));
        let given: BTreeSet<Id> = target.into_iter().filter(|id| free(id)).collect();
        let epoch = self.epoch;
        let Some(known) = self.members.get_mut(&beat.member) else { return refused(25) };
        known.epoch = epoch;
        known.held.extend(given.iter().copied());
        let news = beat.full || known.told != given;
        known.told.clone_from(&given);
        let owes = !known.held.is_subset(&given);
        known.owes = owes.then(|| known.owes.unwrap_or(now));
        let assignment = news.then(|| given.into_iter().collect());
        Beaten { code: 0, epoch, interval: SECOND, assignment, ..Beaten::default() }
    }
}

impl Coordinator for Model {
    fn handle_ask(&mut self, token: u64, ask: Ask, now: Instant) {
        let Ask::Modern(ask) = ask else { panic!("another protocol") };
        let answer = match ask {
            Question::Names(ids) => {
                assert_eq!(ids, [TOPIC]);
                Modern::Names([(TOPIC, topic("t"))].into())
            }
            Question::Beat(beat) => Modern::Beaten(self.handle_beat(beat, now)),
        };
        self.out.push((token, Answer::Modern(answer)));
    }

    fn poll_answers(&mut self) -> Vec<(u64, Answer)> {
        std::mem::take(&mut self.out)
    }

    fn handle_time(&mut self, now: Instant) {
        let before = self.members.len();
        self.members.retain(|_, k| k.seen.is_none_or(|seen| now < seen + 10 * SECOND));
        self.members.retain(|_, k| k.owes.is_none_or(|since| now < since + 20 * SECOND));
        self.epoch += i32::from(self.members.len() < before);
    }

    fn handle_restart(&mut self, now: Instant) {
        for known in self.members.values_mut() {
            known.seen = Some(now);
        }
    }

    fn member(&mut self, now: Instant) -> Membership {
        self.made += 1;
        Membership::modern(settings(None, &[]), vec![topic("t")], Uuid::from_u128(1000 + self.made), now)
    }
}
