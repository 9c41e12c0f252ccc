//! What moved from whom to whom while an assignment is made even.

use std::collections::HashMap;

use crate::kafka::consumer::group::assignor::hash_order::{Set, hash_place};
use crate::kafka::consumer::group::assignor::layout::Layout;

/// From a member to another.
type Pair = (usize, usize);

#[derive(Debug, Default)]
pub(super) struct Movements {
    /// By topic and pair.
    between: HashMap<(usize, Pair), Set<usize>>,
    /// From its first owner to its present one.
    moved: HashMap<usize, Pair>,
}

impl Movements {
    /// The partition that moves where `p` shall go `from` one member `to` another: if one of its topic went the other way
    /// before, that one goes back instead.
    pub(super) fn choose(&self, layout: &Layout<'_>, p: usize, from: usize, to: usize) -> usize {
        let from = self.moved.get(&p).map_or(from, |(first, _)| *first);
        self.between.get(&(layout.topic(p), (to, from))).and_then(Set::first).unwrap_or(p)
    }

    pub(super) fn record(&mut self, layout: &Layout<'_>, p: usize, from: usize, to: usize) {
        let topic = layout.topic(p);
        let first = match self.moved.remove(&p) {
            None => from,
            Some(pair) => {
                if let Some(set) = self.between.get_mut(&(topic, pair)) {
                    set.remove(p);
                    if set.is_empty() {
                        self.between.remove(&(topic, pair));
                    }
                }
                if pair.0 == to {
                    return;
                }
                pair.0
            }
        };
        self.moved.insert(p, (first, to));
        let within = u32::try_from(layout.within(p)).unwrap_or(u32::MAX);
        let hash = hash_place(layout.topics[topic], within);
        self.between.entry((topic, (first, to))).or_default().insert(hash, p);
    }
}
