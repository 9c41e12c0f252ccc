//! All members read the same topics: everybody keeps what it owned up to its quota, the rest is dealt out.

use std::collections::HashSet;

use super::{Claims, Far};
use crate::kafka::consumer::group::assignor::layout::{Assigned, Layout, Racks};

/// The members that may get more.
#[derive(Debug)]
struct Filling<'a> {
    /// Where owners may lose what is not in their racks.
    racks: Option<&'a Racks>,
    disputed: &'a HashSet<usize>,
    /// Every member gets this many,
    least: usize,
    /// or this many: the same, or one more
    most: usize,
    /// as long as fewer than so many have.
    full_wanted: usize,
    full: usize,
    /// Members with less than the least, and with exactly it.
    under: Vec<usize>,
    exact: Vec<usize>,
    /// Where among `under` the next partition is tried first.
    turn: usize,
    assigned: Assigned,
    /// Whose a partition was that it may lose.
    former: Vec<Option<usize>>,
    moving: HashSet<usize>,
}

/// Who gets what; and which of it another still owns.
pub(super) fn assign(
    layout: &Layout<'_>,
    racks: Option<&Racks>,
    far: Far,
    claims: &Claims,
) -> (Assigned, HashSet<usize>) {
    let (total, members) = (layout.total(), layout.members.len());
    if members == 0 {
        return (Vec::new(), HashSet::new());
    }
    let mut filling = Filling {
        racks: racks.filter(|_| far == Far::Moves),
        disputed: &claims.disputed,
        least: total / members,
        most: total.div_ceil(members),
        full_wanted: total % members,
        full: 0,
        under: Vec::new(),
        exact: Vec::new(),
        turn: 0,
        assigned: vec![Vec::new(); members],
        former: vec![None; total],
        moving: HashSet::new(),
    };
    for member in &layout.walk {
        filling.keep(layout, *member, &claims.owned[*member]);
    }
    filling.under.sort_unstable();
    filling.exact.sort_unstable();
    let mut is_assigned = vec![false; total];
    for p in filling.assigned.iter().flatten() {
        is_assigned[*p] = true;
    }
    let mut left: Vec<usize> = (0..total).filter(|p| !is_assigned[*p]).collect();
    if let Some(racks) = racks {
        let near = racks.near_count();
        left.sort_by_key(|p| near[*p]);
        left.retain(|p| !filling.deal_near(racks, *p));
    }
    filling.deal(&left);
    (filling.assigned, filling.moving)
}

impl Filling<'_> {
    /// What a member owned and keeps.
    fn keep(&mut self, layout: &Layout<'_>, member: usize, owned: &[usize]) {
        let mut keep = Vec::new();
        for p in owned {
            if self.racks.is_some_and(|racks| racks.is_far(member, *p)) {
                self.former[*p] = Some(member);
            } else if !self.disputed.contains(p) {
                keep.push(*p);
            }
        }
        keep.sort_unstable_by_key(|p| (layout.within(*p), layout.topic(*p)));
        let quota = if keep.len() < self.least {
            self.under.push(member);
            keep.len()
        } else if keep.len() >= self.most && self.full < self.full_wanted {
            self.fill();
            self.most
        } else {
            if self.full < self.full_wanted {
                self.exact.push(member);
            }
            self.least
        };
        for p in keep.drain(quota..) {
            self.former[p] = Some(member);
        }
        self.assigned[member] = keep;
    }

    /// One more member has the most. Once enough have, the others have all that they get.
    fn fill(&mut self) {
        self.full += 1;
        if self.full == self.full_wanted {
            self.exact.clear();
        }
    }

    /// Gives a partition to a member in one of its racks, if one may get more.
    fn deal_near(&mut self, racks: &Racks, p: usize) -> bool {
        let under = self.under.len();
        let at =
            (0..under).map(|step| (self.turn + step) % under).find(|at| racks.is_near(self.under[*at], p));
        let member = if let Some(at) = at {
            let member = self.under[at];
            let count = self.assigned[member].len() + 1;
            if count < self.least {
                self.turn = (at + 1) % under;
            } else {
                self.under.remove(at);
                self.turn = if self.under.is_empty() { 0 } else { at % self.under.len() };
                if count < self.most && self.full < self.full_wanted {
                    self.exact.push(member);
                }
            }
            member
        } else if let Some(at) = self.exact.iter().position(|m| racks.is_near(*m, p)) {
            let member = self.exact[at];
            if self.assigned[member].len() + 1 == self.most {
                self.exact.remove(at);
                self.fill();
            }
            member
        } else {
            return false;
        };
        self.give(member, p);
        true
    }

    /// Deals partitions out in turn: to all that have less than the least, then to those that have exactly it.
    fn deal(&mut self, left: &[usize]) {
        let mut turn = 0;
        let mut exact: std::collections::VecDeque<usize> = std::mem::take(&mut self.exact).into();
        for p in left {
            if turn >= self.under.len() {
                turn = 0;
            }
            let member = match self.under.get(turn) {
                Some(member) => *member,
                // The quotas add up to all partitions: somebody is left as long as one is.
                None => exact.pop_front().unwrap_or_default(),
            };
            self.give(member, *p);
            if turn < self.under.len() {
                if self.assigned[member].len() == self.least {
                    self.under.remove(turn);
                    exact.push_back(member);
                } else {
                    turn += 1;
                }
            }
        }
    }

    fn give(&mut self, member: usize, p: usize) {
        if self.former[p].is_some_and(|former| former != member) || self.disputed.contains(&p) {
            self.moving.insert(p);
        }
        self.assigned[member].push(p);
    }
}
