//! The orders in which Java's hash maps and sets are walked through: the outcome of its sticky assignors depends on them.
//!
//! Entries are walked by bucket, those of one bucket by when they came. (Java makes a tree of a bucket with eight or
//! more; that is left out.)

use std::cmp::Ordering;

use crate::Topic;

/// `String.hashCode`.
pub(super) fn hash(text: &str) -> u32 {
    text.encode_utf16().fold(0u32, |h, unit| h.wrapping_mul(31).wrapping_add(unit.into()))
}

/// `TopicPartition.hashCode`.
pub(super) fn hash_place(topic: &Topic, partition: u32) -> u32 {
    31u32.wrapping_add(partition).wrapping_mul(31).wrapping_add(hash(topic.as_str()))
}

/// `String.compareTo`.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

fn bucket(hash: u32, buckets: u32) -> u32 {
    (hash ^ (hash >> 16)) & (buckets - 1)
}

/// How many buckets there are once `n` entries have come.
fn buckets(n: usize) -> u32 {
    let mut buckets = 16u32;
    while n > buckets as usize / 4 * 3 && buckets < 1 << 30 {
        buckets *= 2;
    }
    buckets
}

/// The numbers of texts, as a map walks through them that they came into one by one.
pub(super) fn walk<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> Vec<usize> {
    let buckets = buckets(texts.len());
    let mut walk: Vec<_> = texts.enumerate().map(|(n, text)| (bucket(hash(text), buckets), n)).collect();
    walk.sort_unstable();
    walk.into_iter().map(|(_, n)| n).collect()
}

/// A set of which only the first is asked for. It never shrinks.
#[derive(Debug, Default)]
pub(super) struct Set<T> {
    /// Hash and number of arrival.
    entries: Vec<(u32, u64, T)>,
    largest: usize,
    arrivals: u64,
}

impl<T: Copy + PartialEq> Set<T> {
    /// Puts in what is not in yet.
    pub(super) fn insert(&mut self, hash: u32, value: T) {
        self.entries.push((hash, self.arrivals, value));
        self.arrivals += 1;
        self.largest = self.largest.max(self.entries.len());
    }

    pub(super) fn remove(&mut self, value: T) {
        if let Some(at) = self.entries.iter().position(|(.., v)| *v == value) {
            self.entries.swap_remove(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn first(&self) -> Option<T> {
        let buckets = buckets(self.largest);
        let first = self.entries.iter().min_by_key(|(hash, arrival, _)| (bucket(*hash, buckets), *arrival));
        first.map(|(.., value)| *value)
    }
}
