//! `range`: each topic by itself, in runs of neighbours. Racks are looked at first; what is left goes where there is room.

use std::collections::BTreeMap;

use super::layout::{Assigned, Layout, Racks};

/// A topic that is being given out.
#[derive(Debug)]
struct State {
    topic: usize,
    /// In the order in which they are served.
    readers: Vec<usize>,
    /// How many partitions each reader got.
    got: Vec<usize>,
    left: Vec<usize>,
    /// How many partitions every reader gets.
    quota: usize,
    /// How many readers get one more.
    extra: usize,
}

impl State {
    fn new(layout: &Layout<'_>, topic: usize) -> Self {
        let readers = layout.by_instance(&layout.readers[topic]);
        let left: Vec<usize> = layout.partitions(topic).collect();
        let (quota, extra) = (left.len() / readers.len(), left.len() % readers.len());
        Self { topic, got: vec![0; readers.len()], readers, left, quota, extra }
    }

    /// How many more partitions the reader may get.
    fn room(&self, reader: usize) -> usize {
        (self.quota + usize::from(self.extra > 0)).saturating_sub(self.got[reader])
    }

    /// Gives `reader` the first partitions that may be its own and that it has room for.
    fn give(&mut self, reader: usize, may: impl Fn(usize) -> bool, assigned: &mut Assigned) {
        let mut room = self.room(reader);
        let before = assigned[self.readers[reader]].len();
        self.left.retain(|p| {
            let give = room > 0 && may(*p);
            if give {
                room -= 1;
                assigned[self.readers[reader]].push(*p);
            }
            !give
        });
        let given = assigned[self.readers[reader]].len() - before;
        self.got[reader] += given;
        if given > 0 && self.got[reader] > self.quota {
            self.extra = self.extra.saturating_sub(1);
        }
    }
}

pub(super) fn assign(layout: &Layout<'_>) -> Assigned {
    let mut assigned = vec![Vec::new(); layout.members.len()];
    let mut states: Vec<State> = (0..layout.topics.len()).map(|topic| State::new(layout, topic)).collect();
    if let Some(racks) = Racks::new(layout) {
        let matters: Vec<bool> =
            states.iter().map(|s| racks.matter(&s.readers, layout.partitions(s.topic))).collect();
        if matters.contains(&true) {
            assign_near(&mut states, &matters, &racks, &mut assigned);
        }
    }
    for state in &mut states {
        for reader in 0..state.readers.len() {
            state.give(reader, |_| true, &mut assigned);
        }
    }
    assigned
}

/// Gives partitions to readers in their racks. Topics with the same readers and equally many partitions go together, so
/// that a member gets the same numbers of all of them.
fn assign_near(states: &mut [State], matters: &[bool], racks: &Racks, assigned: &mut Assigned) {
    let mut alike: BTreeMap<(Vec<usize>, usize), Vec<usize>> = BTreeMap::new();
    for (n, state) in states.iter().enumerate() {
        if state.readers.iter().any(|reader| racks.has_rack(*reader)) {
            alike.entry((state.readers.clone(), state.left.len())).or_default().push(n);
        }
    }
    for ((readers, partitions), together) in alike {
        match together[..] {
            [one] if matters[one] => {
                for (reader, member) in readers.iter().enumerate() {
                    states[one].give(reader, |p| !racks.is_far(*member, p), assigned);
                }
            }
            [_] => {}
            _ => assign_alike(states, &together, &readers, partitions, racks, assigned),
        }
    }
}

fn assign_alike(
    states: &mut [State],
    together: &[usize],
    readers: &[usize],
    partitions: usize,
    racks: &Racks,
    assigned: &mut Assigned,
) {
    // Nothing is given of these topics yet.
    let firsts: Vec<usize> = together.iter().filter_map(|n| states[*n].left.first().copied()).collect();
    let mut remaining: Vec<usize> = (0..readers.len()).collect();
    for p in 0..partitions {
        let fits = |reader: &usize| {
            let near = firsts.iter().all(|first| !racks.is_far(readers[*reader], first + p));
            near && together.iter().all(|n| states[*n].room(*reader) > 0)
        };
        let Some(at) = remaining.iter().position(fits) else { continue };
        let reader = remaining[at];
        for (n, first) in together.iter().zip(&firsts) {
            states[*n].give_one(reader, first + p, assigned);
        }
        if together.iter().all(|n| states[*n].room(reader) == 0) {
            remaining.remove(at);
        }
    }
}

impl State {
    fn give_one(&mut self, reader: usize, partition: usize, assigned: &mut Assigned) {
        if let Ok(at) = self.left.binary_search(&partition) {
            self.left.remove(at);
            assigned[self.readers[reader]].push(partition);
            self.got[reader] += 1;
            if self.got[reader] > self.quota {
                self.extra = self.extra.saturating_sub(1);
            }
        }
    }
}
