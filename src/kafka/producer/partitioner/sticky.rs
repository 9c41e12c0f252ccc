//! Where records without a key go: all to one partition for a while, then to another, so that batches fill and over
//! time the partitions do too. Pure.
//!
//! ```text
//!              bytes >= a turn and its batch closes
//!   staying ----------------------------------------> choosing -- next record --> staying with another
//!      ^                                                  |
//!      +--------------------------------------------------+
//! ```
//!
//! KIP-480 moves with each batch that closes. Where batches close by time that favours slow brokers: their batches are
//! larger, and each is one turn. So, as KIP-794 does, a partition keeps its turn until it got a batch's bytes, [`TURN`] at
//! most.
//! With adaptive weights the next partition is drawn by how short its queue of batches is, and one without a leader is
//! not drawn while there are others.

/// The bytes that a partition gets in one turn at least, where batches are not smaller: the batch size of the Java client.
/// Larger batches fill all the same, as a turn ends only when a batch closes.
pub(crate) const TURN: usize = 16 << 10;
/// Queues are looked at anew after this share of the partitions had a turn, so that a turn costs the same however many
/// there are.
const LOOKS_PER_ROUND: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Sticky {
    current: Option<usize>,
    /// Bytes of this turn.
    bytes: usize,
    moving: bool,
    /// Weights added up, by partition; empty where they are all the same.
    weights: Vec<u64>,
    /// How many partitions the weights were made for.
    seen: usize,
    /// Turns until the queues are looked at again.
    turns: usize,
}

impl Sticky {
    /// The partition for a record of `bytes`, each partition as likely in its turn, but no two turns one after the other.
    pub(crate) fn uniform(&mut self, bytes: usize, partitions: usize, draw: impl FnOnce() -> u64) -> usize {
        self.stay(bytes, partitions).unwrap_or_else(|| {
            let next = match self.current {
                Some(current) if partitions > 1 && current < partitions => {
                    // One of the others, each as likely.
                    let step = 1 + (draw() % (partitions as u64 - 1)) as usize;
                    (current + step) % partitions
                }
                _ => (draw() % partitions.max(1) as u64) as usize,
            };
            self.settle(next, bytes)
        })
    }

    /// The partition for a record of `bytes`, drawn by the lengths of the queues: `queued(partition)` are the batches
    /// that wait or are on their way, `None` for a partition without a leader.
    pub(crate) fn adaptive(
        &mut self,
        bytes: usize,
        partitions: usize,
        queued: impl FnMut(usize) -> Option<u32>,
        draw: impl FnOnce() -> u64,
    ) -> usize {
        if let Some(current) = self.stay(bytes, partitions) {
            return current;
        }
        if self.turns == 0 || self.seen != partitions {
            self.look(partitions, queued);
        }
        self.turns = self.turns.saturating_sub(1);
        let next = match self.weights.last() {
            Some(&sum) if sum > 0 => {
                let point = draw() % sum;
                self.weights.partition_point(|&w| w <= point)
            }
            _ => (draw() % partitions.max(1) as u64) as usize,
        };
        self.settle(next, bytes)
    }

    /// A batch of this partition, of `batch_size` bytes at most, closed.
    pub(crate) fn handle_closed(&mut self, partition: usize, batch_size: usize) {
        if self.current == Some(partition) && self.bytes >= batch_size.min(TURN) {
            self.moving = true;
        }
    }

    fn stay(&mut self, bytes: usize, partitions: usize) -> Option<usize> {
        let current = self.current.filter(|c| !self.moving && *c < partitions)?;
        self.bytes = self.bytes.saturating_add(bytes);
        Some(current)
    }

    fn settle(&mut self, next: usize, bytes: usize) -> usize {
        self.moving = false;
        self.bytes = bytes;
        self.current = Some(next);
        next
    }

    /// KIP-794: the weight of a partition is the longest queue's length + 1 less its own.
    fn look(&mut self, partitions: usize, queued: impl FnMut(usize) -> Option<u32>) {
        self.seen = partitions;
        self.turns = partitions / LOOKS_PER_ROUND + 1;
        // Reused: lengths first, sums then. A partition without a leader is marked by the largest number.
        self.weights.clear();
        self.weights.extend((0..partitions).map(queued).map(|q| q.map_or(u64::MAX, u64::from)));
        let longest = self.weights.iter().filter(|w| **w != u64::MAX).max().copied();
        let same = longest.is_none_or(|longest| self.weights.iter().all(|w| *w == longest));
        let Some(longest) = longest.filter(|_| !same) else {
            self.weights.clear();
            return;
        };
        let mut sum = 0u64;
        for weight in &mut self.weights {
            sum += if *weight == u64::MAX { 0 } else { longest + 1 - *weight };
            *weight = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn no_draw() -> u64 {
        panic!("no draw is needed")
    }

    #[test]
    fn records_stay_until_the_batch_closes_and_then_leave() {
        let mut sticky = Sticky::default();
        let first = sticky.uniform(TURN, 3, || 1);
        assert_eq!(sticky.uniform(1, 3, no_draw), first);
        sticky.handle_closed(first + 1, usize::MAX);
        assert_eq!(sticky.uniform(1, 3, no_draw), first, "another partition's batch");
        for draw in 0..20 {
            let before = sticky.uniform(TURN, 3, || draw);
            sticky.handle_closed(before, usize::MAX);
            assert_ne!(sticky.uniform(TURN, 3, || draw), before);
        }
        assert_eq!(sticky.uniform(1, 1, || 5), 0, "a topic made anew with fewer partitions");
    }

    #[test]
    fn batches_that_close_early_do_not_end_a_turn() {
        let mut sticky = Sticky::default();
        let first = sticky.uniform(100, 4, || 0);
        for _ in 1..TURN.div_ceil(100) {
            sticky.handle_closed(first, usize::MAX);
            assert_eq!(sticky.uniform(100, 4, no_draw), first);
        }
        sticky.handle_closed(first, usize::MAX);
        assert_ne!(sticky.uniform(100, 4, || 0), first);
    }

    #[test]
    fn a_turn_is_no_longer_than_a_small_batch() {
        let mut sticky = Sticky::default();
        let first = sticky.uniform(1000, 4, || 0);
        sticky.handle_closed(first, 1024);
        assert_eq!(sticky.uniform(24, 4, no_draw), first);
        sticky.handle_closed(first, 1024);
        assert_ne!(sticky.uniform(24, 4, || 0), first);
    }

    /// How often each partition is drawn when every number below `draws` is drawn once, from a fresh start.
    fn shares(queues: &[Option<u32>], draws: u64) -> Vec<u64> {
        let mut shares = vec![0; queues.len()];
        for draw in 0..draws {
            shares[Sticky::default().adaptive(1, queues.len(), |p| queues[p], || draw)] += 1;
        }
        shares
    }

    #[test]
    fn short_queues_get_more_turns_in_proportion() {
        // The example of KIP-794: queues of 0, 3 and 1 batches weigh 4, 1 and 3.
        assert_eq!(shares(&[Some(0), Some(3), Some(1)], 8), [4, 1, 3]);
        assert_eq!(shares(&[Some(7), Some(7), Some(7)], 9), [3, 3, 3]);
    }

    #[test]
    fn a_partition_without_a_leader_gets_no_turn_while_others_have_one() {
        assert_eq!(shares(&[None, Some(1), Some(1)], 8), [0, 4, 4]);
        assert_eq!(shares(&[None, None], 8), [4, 4], "a leader may come");
    }

    #[test]
    fn new_partitions_get_their_turns() {
        let mut sticky = Sticky::default();
        let mut seen = std::collections::BTreeSet::new();
        for (round, partitions) in (0..200u64).map(|i| (i, if i < 100 { 2 } else { 5 })) {
            let p = sticky.adaptive(TURN, partitions, |_| Some(0), || round);
            sticky.handle_closed(p, usize::MAX);
            assert!(p < partitions);
            seen.insert(p);
        }
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn the_queues_of_many_partitions_are_looked_at_seldom() {
        let mut sticky = Sticky::default();
        let (mut looks, turns, partitions) = (0, 10_000, 10_000);
        for draw in 0..turns {
            let p = sticky.adaptive(
                TURN,
                partitions,
                |_| {
                    looks += 1;
                    Some(1)
                },
                || draw,
            );
            sticky.handle_closed(p, usize::MAX);
        }
        assert!(looks <= (LOOKS_PER_ROUND + 1) * turns as usize, "{looks}");
    }

    proptest! {
        /// A partition keeps its turn until it got its bytes and one of its batches closed after that, or until the topic
        /// lost it; another one that gets the turn is one that the topic has.
        #[test]
        fn turns_end_where_a_log_of_the_turn_says(
            adaptive in any::<bool>(),
            batch_size in 1usize..40_000,
            steps in prop::collection::vec((1usize..6, 0usize..20_000, prop::option::of(0usize..6), any::<u64>()), 1..200),
        ) {
            let mut sticky = Sticky::default();
            // Whose turn it is, all that it got, and what it had got when a batch of it closed last.
            let mut turn: Option<(usize, Vec<usize>, usize)> = None;
            for (partitions, bytes, closed, draw) in steps {
                let mut drawn = false;
                let number = || { drawn = true; draw };
                let p = if adaptive {
                    sticky.adaptive(bytes, partitions, |p| Some(p as u32), number)
                } else {
                    sticky.uniform(bytes, partitions, number)
                };
                prop_assert!(p < partitions);
                match &mut turn {
                    Some((current, got, at_close)) if *current < partitions && *at_close < batch_size.min(TURN) => {
                        prop_assert!(p == *current && !drawn, "{p} in the turn of {current}");
                        got.push(bytes);
                    }
                    _ => {
                        prop_assert!(drawn, "a turn without a draw");
                        turn = Some((p, vec![bytes], 0));
                    }
                }
                if let Some(closed) = closed {
                    sticky.handle_closed(closed, batch_size);
                    if let Some((current, got, at_close)) = &mut turn && *current == closed {
                        *at_close = got.iter().sum();
                    }
                }
            }
        }
    }
}
