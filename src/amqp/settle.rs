//! Joins acknowledgements: `ack 5, ack 4, ack 3` becomes one `ack 5 and all before`. Pure.
//!
//! A channel's deliveries are numbered 1, 2, 3, ... (AMQP 0-9-1 section 1.8.3.13). The settler knows the lowest one that
//! is not settled. Acknowledgements that close up to it go out as one frame; those beyond a gap go out one by one, so
//! that a slow delivery holds nobody up.
//!
//! Order of calls: any number of [`Settler::handle_ack`] and [`Settler::handle_other`], then [`Settler::poll_ack`]
//! until it has no more.

use std::collections::{BTreeMap, BTreeSet};

/// An acknowledgement to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    /// The delivery.
    pub(crate) tag: u64,
    /// Whether all unsettled ones before it are meant too.
    pub(crate) multiple: bool,
}

/// What of a channel's deliveries is settled.
///
/// Worst memory: one range for each gap, so at most one more than there are unsettled deliveries.
#[derive(Debug)]
pub(crate) struct Settler {
    /// The lowest delivery that is not settled.
    next: u64,
    /// Settled and told to the broker, beyond `next`: first to last, never adjacent.
    told: BTreeMap<u64, u64>,
    /// Acknowledged and not told yet.
    acks: BTreeSet<u64>,
}

impl Settler {
    pub(crate) fn new() -> Self {
        Self { next: 1, told: BTreeMap::new(), acks: BTreeSet::new() }
    }

    /// A delivery was acknowledged.
    pub(crate) fn handle_ack(&mut self, tag: u64) {
        if tag >= self.next && !self.is_told(tag) {
            self.acks.insert(tag);
        }
    }

    /// A delivery was settled otherwise, and the caller tells the broker so. Acknowledgements before it must have been
    /// polled: one that says "all before" would take it in.
    pub(crate) fn handle_other(&mut self, tag: u64) {
        self.acks.remove(&tag);
        self.mark(tag);
        self.close_up();
    }

    /// The next acknowledgement to send.
    pub(crate) fn poll_ack(&mut self) -> Option<Ack> {
        let mut joined = None;
        let mut count = 0u32;
        while self.acks.first() == Some(&self.next) {
            self.acks.pop_first();
            joined = Some(self.next);
            count += 1;
            self.next += 1;
            self.close_up();
        }
        if let Some(tag) = joined {
            return Some(Ack { tag, multiple: count > 1 });
        }
        let tag = self.acks.pop_first()?;
        self.mark(tag);
        Some(Ack { tag, multiple: false })
    }

    fn is_told(&self, tag: u64) -> bool {
        self.told.range(..=tag).next_back().is_some_and(|(_, last)| *last >= tag)
    }

    fn mark(&mut self, tag: u64) {
        if tag < self.next || self.is_told(tag) {
            return;
        }
        let mut first = tag;
        let mut last = tag;
        if let Some((f, l)) = self.told.range(..tag).next_back().map(|(f, l)| (*f, *l))
            && l + 1 == tag
        {
            first = f;
        }
        if let Some(l) = self.told.remove(&(tag + 1)) {
            last = l;
        }
        self.told.insert(first, last);
    }

    /// Moves `next` over what is settled right there.
    fn close_up(&mut self) {
        while let Some(last) = self.told.remove(&self.next) {
            self.next = last + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn polled(s: &mut Settler) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| s.poll_ack()).map(|a| (a.tag, a.multiple)).collect()
    }

    #[test]
    fn acks_that_close_up_go_out_as_one() {
        let mut s = Settler::new();
        for tag in [3, 1, 2, 5] {
            s.handle_ack(tag);
        }
        assert_eq!(polled(&mut s), [(3, true), (5, false)]);
        s.handle_ack(4);
        assert_eq!(polled(&mut s), [(4, false)]);
        s.handle_ack(6);
        assert_eq!(polled(&mut s), [(6, false)]);
    }

    #[test]
    fn one_slow_delivery_holds_nothing_up_and_costs_one_range() {
        let mut s = Settler::new();
        for tag in 2..10_000 {
            s.handle_ack(tag);
            assert_eq!(polled(&mut s), [(tag, false)]);
        }
        assert_eq!(s.told.len(), 1);
        s.handle_ack(1);
        assert_eq!(polled(&mut s), [(1, false)]);
        assert!(s.told.is_empty());
    }

    proptest! {
        /// The broker's side, told only by frames: every acknowledged delivery is acknowledged, no other ever is.
        #[test]
        fn the_broker_learns_of_each_delivery_exactly_what_happened(
            order in Just((1u64..=40).collect::<Vec<_>>()).prop_shuffle(),
            acked in proptest::collection::vec(any::<bool>(), 40),
            pauses in proptest::collection::vec(any::<bool>(), 40),
            stop in 0usize..=40,
        ) {
            let mut s = Settler::new();
            let mut broker = [' '; 41];
            let tell = |s: &mut Settler, broker: &mut [char; 41]| {
                while let Some(Ack { tag, multiple }) = s.poll_ack() {
                    let tag = tag as usize;
                    assert_eq!(broker[tag], ' ', "the broker closes the channel for a tag it no longer has");
                    let from = if multiple { 1 } else { tag };
                    broker[from..=tag].iter_mut().filter(|c| **c == ' ').for_each(|c| *c = 'a');
                }
            };
            for (i, tag) in order.iter().take(stop).enumerate() {
                if acked[*tag as usize - 1] {
                    s.handle_ack(*tag);
                } else {
                    tell(&mut s, &mut broker);
                    s.handle_other(*tag);
                    broker[*tag as usize] = 'n';
                }
                if pauses[i] {
                    tell(&mut s, &mut broker);
                }
            }
            tell(&mut s, &mut broker);
            for (i, tag) in order.iter().enumerate() {
                let want = match (i < stop, acked[*tag as usize - 1]) {
                    (false, _) => ' ',
                    (true, true) => 'a',
                    (true, false) => 'n',
                };
                prop_assert_eq!(broker[*tag as usize], want, "delivery {}", tag);
            }
        }
    }
}
