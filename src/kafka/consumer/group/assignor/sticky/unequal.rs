//! Members read different topics: what was owned stays, the rest goes to whoever has least, and then partitions move as
//! long as that makes it more even.

use std::collections::{BTreeSet, HashMap};

use super::movements::Movements;
use super::{Claims, Far, NONE};
use crate::kafka::consumer::group::assignor::layout::{Assigned, Layout, Racks};

#[derive(Debug)]
struct Balance<'a> {
    layout: &'a Layout<'a>,
    /// Each partition's.
    owners: Vec<Option<usize>>,
    /// How many partitions each member has.
    sizes: Vec<usize>,
    /// How many of each topic its readers have.
    held: Vec<HashMap<usize, usize>>,
    /// The members that can still give or get, those with least first.
    sorted: BTreeSet<(usize, usize)>,
    /// Who had a partition in an older generation.
    before: HashMap<usize, (usize, i32)>,
    movements: Movements,
    /// How many partitions may still go back although that makes it less even.
    back: usize,
    /// Whether it is as even as can be, where that was looked at since the last change.
    even: Option<bool>,
}

pub(super) fn assign(layout: &Layout<'_>, racks: Option<&Racks>, far: Far, claims: &Claims) -> Assigned {
    let members = layout.members.len();
    let mut balance = Balance {
        layout,
        owners: vec![None; layout.total()],
        sizes: vec![0; members],
        held: vec![HashMap::new(); layout.topics.len()],
        sorted: (0..members).map(|member| (0, member)).collect(),
        before: find_before(layout, claims),
        movements: Movements::default(),
        back: layout.total(),
        even: None,
    };
    // Something must go, because of subscriptions or racks.
    let mut must_revoke = false;
    for (member, owned) in claims.owned.iter().enumerate() {
        for p in owned {
            let moves = far == Far::Moves && racks.is_some_and(|racks| racks.is_far(member, *p));
            if layout.does_read(member, layout.topic(*p)) && !moves {
                balance.give(*p, member);
            } else {
                must_revoke = true;
            }
        }
    }
    balance.run(racks, must_revoke);
    let mut assigned = vec![Vec::new(); members];
    for (p, owner) in balance.owners.iter().enumerate() {
        if let Some(owner) = owner {
            assigned[*owner].push(p);
        }
    }
    assigned
}

/// The last owners in generations before the newest.
fn find_before(layout: &Layout<'_>, claims: &Claims) -> HashMap<usize, (usize, i32)> {
    let mut before = HashMap::new();
    for member in &layout.walk {
        let (told, generation) = &claims.told[*member];
        let generation = generation.unwrap_or(NONE);
        if generation >= claims.newest {
            continue;
        }
        for p in told.iter().filter(|p| layout.does_read(*member, layout.topic(**p))) {
            match before.get(p) {
                Some((_, known)) if *known >= generation => {}
                _ => {
                    before.insert(*p, (*member, generation));
                }
            }
        }
    }
    before
}

impl Balance<'_> {
    fn run(&mut self, racks: Option<&Racks>, must_revoke: bool) {
        let layout = self.layout;
        let is_first = self.sorted.last().is_none_or(|(size, _)| *size == 0);
        // Partitions of topics with few readers go first: they have the least choice.
        let mut topics: Vec<usize> = (0..layout.topics.len()).collect();
        topics.sort_by_key(|topic| (layout.readers[*topic].len(), *topic));
        let all = || topics.iter().flat_map(|topic| layout.partitions(*topic));
        let mut left: Vec<usize> = all().filter(|p| self.owners[*p].is_none()).collect();
        let unassigned = left.clone();
        if let Some(racks) = racks {
            left.retain(|p| !self.place(*p, |member| !racks.is_far(member, *p)));
        }
        for p in left {
            self.place(p, |_| true);
        }

        // What can move, and who can take part in it.
        let can_move = |p: &usize| layout.readers[layout.topic(*p)].len() >= 2;
        let all: Vec<usize> = all().filter(can_move).collect();
        let unassigned: Vec<usize> = unassigned.into_iter().filter(can_move).collect();
        let fixed: Vec<usize> =
            (0..layout.members.len()).filter(|member| !self.can_take_part(*member)).collect();
        for member in fixed {
            self.sorted.remove(&(self.sizes[member], member));
        }
        let owners = self.owners.clone();
        let score = self.score();
        if !must_revoke {
            self.move_some(&unassigned);
        }
        // Java looks at the second run alone.
        let moved = self.move_some(&all);
        if !is_first && moved && self.score() >= score {
            self.owners = owners;
        }
    }

    fn give(&mut self, p: usize, member: usize) {
        self.sorted.remove(&(self.sizes[member], member));
        self.sizes[member] += 1;
        self.sorted.insert((self.sizes[member], member));
        *self.held[self.layout.topic(p)].entry(member).or_default() += 1;
        self.owners[p] = Some(member);
    }

    /// Gives a partition to the reader of its topic that has least.
    fn place(&mut self, p: usize, may: impl Fn(usize) -> bool) -> bool {
        let topic = self.layout.topic(p);
        let mut readers = self.sorted.iter().map(|(_, member)| *member);
        let found = readers.find(|member| self.layout.does_read(*member, topic) && may(*member));
        if let Some(member) = found {
            self.give(p, member);
        }
        found.is_some()
    }

    /// A member has all it can get, and nobody else could read it: it takes no part.
    fn can_take_part(&self, member: usize) -> bool {
        let reads = &self.layout.reads[member];
        self.sizes[member] < self.most(member)
            || reads.iter().any(|t| self.layout.readers[*t].len() >= 2 && self.held[*t].contains_key(&member))
    }

    /// How many partitions a member can get at most.
    fn most(&self, member: usize) -> usize {
        self.layout.reads[member].iter().map(|topic| self.layout.partitions(*topic).len()).sum()
    }

    /// The differences of all pairs of members, added up.
    fn score(&self) -> usize {
        let mut sum = 0;
        let mut score = 0;
        for (n, (size, _)) in self.sorted.iter().enumerate() {
            score += size * n - sum;
            sum += size;
        }
        score
    }

    /// Whether no member could have one more partition of another that has at least two more.
    fn is_even(&mut self) -> bool {
        if let Some(even) = self.even {
            return even;
        }
        let even = self.look_even();
        self.even = Some(even);
        even
    }

    fn look_even(&self) -> bool {
        let (Some((least, _)), Some((most, _))) = (self.sorted.first(), self.sorted.last()) else {
            return true;
        };
        if least + 1 >= *most {
            return true;
        }
        self.sorted.iter().all(|(size, member)| {
            *size == self.most(*member)
                || self.layout.reads[*member].iter().all(|topic| {
                    let mut others = self.held[*topic].keys().filter(|other| *other != member);
                    others.all(|other| size + 1 >= self.sizes[*other])
                })
        })
    }

    fn move_some(&mut self, partitions: &[usize]) -> bool {
        let mut moved = false;
        loop {
            let mut modified = false;
            for p in partitions {
                if self.is_even() {
                    break;
                }
                let Some(owner) = self.owners[*p] else { continue };
                if let Some(to) = self.wanted(*p, owner) {
                    self.shift(*p, owner, to);
                    modified = true;
                }
            }
            if !modified {
                return moved;
            }
            moved = true;
        }
    }

    /// Where a partition should go: back to its last owner, or to the reader that has least.
    fn wanted(&self, p: usize, owner: usize) -> Option<usize> {
        let is_better = |member: usize| self.sizes[owner] > self.sizes[member] + 1;
        if let Some((before, _)) = self.before.get(&p)
            && is_better(*before)
        {
            return Some(*before);
        }
        let topic = self.layout.topic(p);
        let mut readers = self.sorted.iter().filter(|(_, member)| self.layout.does_read(*member, topic));
        readers.next().map(|(_, member)| *member).filter(|member| is_better(*member))
    }

    /// Moves a partition, or another one of its topic that does as well.
    fn shift(&mut self, p: usize, owner: usize, to: usize) {
        let other = self.movements.choose(self.layout, p, owner, to);
        let (p, from) = match self.owners[other] {
            Some(from) if self.sizes[from] > self.sizes[to] + 1 => (other, from),
            // That the other goes back makes it less even. All other moves make it more even, so there is an end of them;
            // of these, nothing but a count makes sure.
            Some(from) if self.back > 0 => {
                self.back -= 1;
                (other, from)
            }
            _ => (p, owner),
        };
        self.movements.record(self.layout, p, from, to);
        self.sorted.remove(&(self.sizes[from], from));
        self.sizes[from] -= 1;
        self.sorted.insert((self.sizes[from], from));
        let held = &mut self.held[self.layout.topic(p)];
        if let Some(count) = held.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                held.remove(&from);
            }
        }
        self.give(p, to);
        self.even = None;
    }
}
