//! The messages of one queue that wait to be delivered: by priority, then in the order of their arrival.
//!
//! ```text
//! push ──► fresh (a ring) ──┐
//!                           ├──► pop: the earliest of the highest priority
//! restore ► returned (tree) ┘
//! ```
//!
//! Messages are taken in order, so whatever comes back arrived before all that are fresh. It goes to its old place,
//! which costs O(log n) of what came back; all else is O(1).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::message::Message;

/// A message in a queue.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) message: Arc<Message>,
    /// Its place in the order of arrival.
    pub(super) seq: u64,
    pub(super) expires: Option<Instant>,
    /// How often it was given back.
    pub(super) returns: u32,
    /// It may have been delivered before.
    pub(super) redelivered: bool,
    /// Its priority in this queue.
    pub(super) priority: u8,
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.message.body.len() as u64
    }
}

#[derive(Debug, Default)]
struct Level {
    returned: BTreeMap<u64, Entry>,
    fresh: VecDeque<Entry>,
}

/// Rings above this many places are given up once they are empty.
const SPARE: usize = 1024;

impl Level {
    fn is_empty(&self) -> bool {
        self.returned.is_empty() && self.fresh.is_empty()
    }

    fn front(&self) -> Option<&Entry> {
        match self.returned.first_key_value() {
            Some((_, entry)) => Some(entry),
            None => self.fresh.front(),
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        if let Some((_, entry)) = self.returned.pop_first() {
            return Some(entry);
        }
        let entry = self.fresh.pop_front();
        if self.fresh.is_empty() && self.fresh.capacity() > SPARE {
            self.fresh = VecDeque::new();
        }
        entry
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Ready {
    /// One for each priority from 0; made when first used.
    levels: Vec<Level>,
    /// Which levels hold something, a bit each.
    filled: [u64; 4],
    len: usize,
    bytes: u64,
}

impl Ready {
    pub(super) fn new() -> Self {
        Self { levels: Vec::new(), filled: [0; 4], len: 0, bytes: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of all bodies.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn top(&self) -> Option<usize> {
        let word = self.filled.iter().rposition(|word| *word != 0)?;
        let bits = self.filled.get(word)?;
        Some(word * 64 + 63 - bits.leading_zeros() as usize)
    }

    fn mark(&mut self, level: usize, filled: bool) {
        if let Some(word) = self.filled.get_mut(level / 64) {
            let bit = 1u64 << (level % 64);
            if filled { *word |= bit } else { *word &= !bit }
        }
    }

    fn add(&mut self, entry: Entry, put: impl FnOnce(&mut Level, Entry)) {
        let level = usize::from(entry.priority);
        if level >= self.levels.len() {
            self.levels.resize_with(level + 1, Level::default);
        }
        self.len += 1;
        self.bytes += entry.bytes();
        self.mark(level, true);
        if let Some(level) = self.levels.get_mut(level) {
            put(level, entry);
        }
    }

    /// One that has just arrived: its `seq` is higher than that of all before.
    pub(super) fn push(&mut self, entry: Entry) {
        self.add(entry, |level, entry| level.fresh.push_back(entry));
    }

    /// One that was popped before goes back to its place.
    pub(super) fn restore(&mut self, entry: Entry) {
        self.add(entry, |level, entry| {
            level.returned.insert(entry.seq, entry);
        });
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.levels.get(self.top()?)?.front()
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let top = self.top()?;
        let level = self.levels.get_mut(top)?;
        let entry = level.pop()?;
        let empty = level.is_empty();
        self.len -= 1;
        self.bytes -= entry.bytes();
        if empty {
            self.mark(top, false);
        }
        Some(entry)
    }

    /// All of them, in the order in which they would be delivered.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.levels.iter().rev().flat_map(|level| level.returned.values().chain(&level.fresh))
    }

    /// Keeps those for which `keep` holds and returns the others.
    pub(super) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut dropped = Vec::new();
        let mut kept = Self::new();
        while let Some(entry) = self.pop() {
            if keep(&entry) {
                // In order, so all may count as returned.
                kept.restore(entry);
            } else {
                dropped.push(entry);
            }
        }
        *self = kept;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(seq: u64, priority: u8) -> Entry {
        let message = Arc::new(Message { body: vec![0; (seq % 5) as usize].into(), ..Message::default() });
        Entry { message, seq, expires: None, returns: 0, redelivered: false, priority }
    }

    proptest! {
        /// The model is a plain list, sorted by priority and arrival.
        #[test]
        fn order_is_by_priority_then_arrival_whatever_comes_back(
            steps in proptest::collection::vec((0u8..4, 0u8..=255, any::<prop::sample::Index>()), 0..200)
        ) {
            let (mut ready, mut model, mut taken, mut seq) = (Ready::new(), Vec::new(), Vec::new(), 0u64);
            for (step, priority, which) in steps {
                match step {
                    0 | 1 => {
                        // A few levels, far apart.
                        let priority = if step == 0 { priority } else { priority / 100 };
                        ready.push(entry(seq, priority));
                        model.push((priority, seq));
                        seq += 1;
                    }
                    2 => {
                        model.sort_by_key(|(priority, seq)| (u8::MAX - priority, *seq));
                        let want = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(ready.front().map(|e| (e.priority, e.seq)), want);
                        let got = ready.pop();
                        prop_assert_eq!(got.as_ref().map(|e| (e.priority, e.seq)), want);
                        taken.extend(got);
                    }
                    _ if !taken.is_empty() => {
                        let back: Entry = taken.remove(which.index(taken.len()));
                        model.push((back.priority, back.seq));
                        ready.restore(back);
                    }
                    _ => {}
                }
                prop_assert_eq!(ready.len(), model.len());
                prop_assert_eq!(ready.bytes(), model.iter().map(|(_, seq)| seq % 5).sum::<u64>());
            }
            model.sort_by_key(|(priority, seq)| (u8::MAX - priority, *seq));
            prop_assert_eq!(ready.iter().map(|e| (e.priority, e.seq)).collect::<Vec<_>>(), model);
        }
    }

    #[test]
    fn a_backlog_that_is_gone_leaves_no_memory_behind() {
        let mut ready = Ready::new();
        for seq in 0..10_000 {
            ready.push(entry(seq, 0));
        }
        while ready.pop().is_some() {}
        assert_eq!(ready.levels[0].fresh.capacity(), 0);
    }
}
