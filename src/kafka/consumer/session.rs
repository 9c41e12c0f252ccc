//! A fetch session with one broker (KIP-227): the broker remembers which partitions are asked for, and each request names
//! only what has changed. Pure.
//!
//! ```text
//!   none --full request, epoch 0--> opened --id in the answer--> held --changes, epoch + 1--> held
//!    ^                                 |                           |
//!    +-- no id in the answer ----------+---- refused, no answer ---+
//! ```
//!
//! Order of calls: [`plan`](Session::plan) for each request; then [`handle_answer`](Session::handle_answer) or
//! [`reset`](Session::reset).

use std::collections::BTreeMap;

use super::book::Ask;
use crate::kafka::offsets::Place;
use crate::{LeaderEpoch, Offset};

/// Codes that end a session: not found, another epoch, another topic id.
pub(crate) const ENDED: [i16; 3] = [70, 71, 106];

/// What the broker knows of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    place: Place,
    offset: Offset,
    max_bytes: usize,
    leader_epoch: LeaderEpoch,
    last_epoch: LeaderEpoch,
}

impl Known {
    fn of(ask: &Ask) -> Self {
        Self {
            place: ask.place.clone(),
            offset: ask.offset,
            max_bytes: ask.max_bytes,
            leader_epoch: ask.leader_epoch,
            last_epoch: ask.last_epoch,
        }
    }

    fn is(&self, ask: &Ask) -> bool {
        self.offset == ask.offset
            && self.max_bytes == ask.max_bytes
            && self.leader_epoch == ask.leader_epoch
            && self.last_epoch == ask.last_epoch
    }
}

/// What a request says of the session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    /// Which of the asks to name, by their place in the list.
    pub(crate) named: Vec<usize>,
    /// What is not asked for any more.
    pub(crate) forgotten: Vec<Place>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// 0 for none.
    id: i32,
    /// The epoch of the next request.
    epoch: i32,
    known: BTreeMap<usize, Known>,
}

impl Session {
    /// How to ask for these, and for nothing else.
    pub(crate) fn plan(&mut self, asks: &[Ask]) -> Plan {
        let (id, epoch) = (self.id, self.epoch);
        let full = id == 0;
        let mut named = Vec::new();
        let mut forgotten = Vec::new();
        if full {
            self.known.clear();
        } else if self.known.len() > asks.len() || asks.iter().any(|a| !self.known.contains_key(&a.part)) {
            let asked: std::collections::BTreeSet<usize> = asks.iter().map(|a| a.part).collect();
            self.known.retain(|part, known| {
                let stays = asked.contains(part);
                if !stays {
                    forgotten.push(known.place.clone());
                }
                stays
            });
        }
        for (at, ask) in asks.iter().enumerate() {
            if full || !self.known.get(&ask.part).is_some_and(|known| known.is(ask)) {
                self.known.insert(ask.part, Known::of(ask));
                named.push(at);
            }
        }
        // After the largest comes 1: 0 begins a session.
        self.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        Plan { id, epoch: if full { 0 } else { epoch }, named, forgotten }
    }

    /// The broker has answered, under this session.
    pub(crate) fn handle_answer(&mut self, id: i32) {
        if id == 0 {
            return self.reset();
        }
        if self.id == 0 {
            self.id = id;
            self.epoch = 1;
        }
    }

    /// There is no session any more, or nobody knows.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether the broker leaves out what has nothing new.
    pub(crate) fn is_held(&self) -> bool {
        self.id != 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::{Partition, Topic};

    fn ask(part: usize, offset: i64) -> Ask {
        let place = (Topic::new("t").unwrap(), Partition(part as i32));
        Ask {
            part,
            place,
            offset: Offset(offset),
            max_bytes: 1,
            leader_epoch: LeaderEpoch(0),
            last_epoch: LeaderEpoch::UNKNOWN,
        }
    }

    #[test]
    fn a_session_names_what_has_changed_and_forgets_what_is_not_asked_for() {
        let mut s = Session::default();
        let plan = s.plan(&[ask(0, 5), ask(1, 5)]);
        assert_eq!(plan, Plan { id: 0, epoch: 0, named: vec![0, 1], forgotten: vec![] });
        s.handle_answer(77);
        let plan = s.plan(&[ask(0, 5), ask(1, 5)]);
        assert_eq!(plan, Plan { id: 77, epoch: 1, named: vec![], forgotten: vec![] });
        s.handle_answer(77);
        let plan = s.plan(&[ask(1, 9), ask(2, 0)]);
        let forgotten = vec![ask(0, 0).place];
        assert_eq!(plan, Plan { id: 77, epoch: 2, named: vec![0, 1], forgotten });
        s.reset();
        let plan = s.plan(&[ask(1, 9)]);
        assert_eq!(plan, Plan { id: 0, epoch: 0, named: vec![0], forgotten: vec![] });
        // A broker without room for a session.
        s.handle_answer(0);
        assert_eq!(s.plan(&[ask(1, 9)]).named, [0]);
    }

    /// What a broker keeps, as KIP-227 says it.
    #[derive(Default)]
    struct Broker {
        sessions: HashMap<i32, (i32, BTreeSet<(Place, i64)>)>,
        made: i32,
    }

    impl Broker {
        /// The session's id and what the request asks for, or a refusal.
        fn ask(&mut self, plan: &Plan, asks: &[Ask]) -> Result<(i32, BTreeSet<(Place, i64)>), i16> {
            let named: BTreeSet<(Place, i64)> =
                plan.named.iter().map(|at| (asks[*at].place.clone(), asks[*at].offset.0)).collect();
            if plan.epoch == 0 {
                self.made += 1;
                self.sessions.insert(self.made, (1, named.clone()));
                return Ok((self.made, named));
            }
            let Some((epoch, parts)) = self.sessions.get_mut(&plan.id) else { return Err(70) };
            if *epoch != plan.epoch {
                return Err(71);
            }
            *epoch += 1;
            parts.retain(|(place, _)| !plan.forgotten.contains(place));
            for (place, offset) in named {
                parts.retain(|(known, _)| *known != place);
                parts.insert((place, offset));
            }
            Ok((plan.id, parts.clone()))
        }
    }

    proptest! {
        #[test]
        fn the_broker_always_knows_what_is_asked_for(
            rounds in prop::collection::vec((prop::collection::btree_map(0usize..8, 0i64..3, 0..8), 0u8..10), 1..40)
        ) {
            let mut broker = Broker::default();
            let mut session = Session::default();
            for (wanted, fate) in rounds {
                let asks: Vec<Ask> = wanted.iter().map(|(part, offset)| ask(*part, *offset)).collect();
                let expected: BTreeSet<(Place, i64)> =
                    asks.iter().map(|a| (a.place.clone(), a.offset.0)).collect();
                if fate == 0 {
                    broker.sessions.clear();
                }
                let plan = session.plan(&asks);
                if fate == 1 {
                    // Lost on the way there, or back.
                    session.reset();
                    continue;
                }
                let answer = broker.ask(&plan, &asks);
                if fate == 2 {
                    session.reset();
                    continue;
                }
                match answer {
                    Ok((id, known)) => {
                        prop_assert_eq!(known, expected);
                        session.handle_answer(if fate == 3 { 0 } else { id });
                    }
                    Err(code) => {
                        prop_assert!(fate == 0, "refused with {}", code);
                        session.reset();
                    }
                }
            }
        }
    }
}
