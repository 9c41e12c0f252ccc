//! The deliveries of one channel that were not settled yet, by their delivery tags.
//!
//! Tags are given in order, so that the entries stand sorted in a queue. One that is settled out of order leaves a gap;
//! gaps are closed once they are more than half. So an acknowledgement costs a search among the unsettled ones, one of
//! `multiple` costs what it settles, and memory follows what is really unsettled.

use std::collections::VecDeque;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Unsettled<T> {
    entries: VecDeque<(u64, Option<T>)>,
    live: usize,
}

impl<T> Default for Unsettled<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), live: 0 }
    }
}

impl<T> Unsettled<T> {
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Adds a delivery whose tag is larger than all before it.
    #[inline]
    pub(super) fn push(&mut self, tag: u64, value: T) {
        self.entries.push_back((tag, Some(value)));
        self.live += 1;
    }

    fn place(&self, tag: u64) -> Option<usize> {
        let first = self.entries.front()?.0;
        // Without gaps that were closed, the tag says the place.
        if let Ok(guess) = usize::try_from(tag.checked_sub(first)?)
            && self.entries.get(guess).is_some_and(|(found, _)| *found == tag)
        {
            return Some(guess);
        }
        self.entries.binary_search_by_key(&tag, |(tag, _)| *tag).ok()
    }

    fn holds(&self, tag: u64) -> Option<usize> {
        self.place(tag).filter(|place| self.entries.get(*place).is_some_and(|(_, value)| value.is_some()))
    }

    /// Takes one delivery out.
    #[inline]
    pub(super) fn take(&mut self, tag: u64) -> Option<T> {
        let place = self.place(tag)?;
        let value = self.entries.get_mut(place)?.1.take()?;
        self.live -= 1;
        self.tidy();
        Some(value)
    }

    /// Takes out all up to and with `tag`, oldest first; 0 means all. `None` where `tag` is not unsettled.
    pub(super) fn take_through(&mut self, tag: u64) -> Option<Vec<(u64, T)>> {
        let end = match tag {
            0 => self.entries.len(),
            tag => self.holds(tag)? + 1,
        };
        let taken: Vec<(u64, T)> =
            self.entries.drain(..end).filter_map(|(tag, value)| Some((tag, value?))).collect();
        self.live -= taken.len();
        self.tidy();
        Some(taken)
    }

    /// Takes out all, oldest first.
    pub(super) fn take_all(&mut self) -> Vec<(u64, T)> {
        self.take_through(0).unwrap_or_default()
    }

    /// Puts back what was taken out.
    pub(super) fn put_back(&mut self, mut taken: Vec<(u64, T)>) {
        taken.extend(self.take_all());
        taken.sort_by_key(|(tag, _)| *tag);
        self.live = taken.len();
        self.entries = taken.into_iter().map(|(tag, value)| (tag, Some(value))).collect();
    }

    #[inline]
    fn tidy(&mut self) {
        while self.entries.front().is_some_and(|(_, value)| value.is_none()) {
            self.entries.pop_front();
        }
        if self.entries.len() > 64 && self.entries.len() > 2 * self.live {
            self.entries.retain(|(_, value)| value.is_some());
        }
        if self.entries.is_empty() && self.entries.capacity() > 1024 {
            self.entries = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Take(u64),
        Through(u64),
        PutBack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..40u8).prop_map(Step::Push),
            6 => (0..200u64).prop_map(Step::Take),
            1 => (0..200u64).prop_map(Step::Through),
            1 => Just(Step::PutBack),
        ]
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_sorted_map_and_keeps_no_more_than_twice_what_is_unsettled(
            steps in proptest::collection::vec(step(), 1..120)
        ) {
            let mut real = Unsettled::default();
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            let mut next = 1;
            let mut taken = Vec::new();
            for step in steps {
                match step {
                    Step::Push(n) => for _ in 0..n {
                        real.push(next, next * 10);
                        model.insert(next, next * 10);
                        next += 1;
                    },
                    Step::Take(tag) => {
                        let got = real.take(tag);
                        prop_assert_eq!(got, model.remove(&tag));
                        taken.extend(got.map(|value| (tag, value)));
                    }
                    Step::Through(tag) => {
                        let expected = (tag == 0 || model.contains_key(&tag)).then(|| {
                            let end = if tag == 0 { u64::MAX } else { tag };
                            let gone: Vec<_> = model.range(..=end).map(|(k, v)| (*k, *v)).collect();
                            model.retain(|k, _| *k > end);
                            gone
                        });
                        let got = real.take_through(tag);
                        prop_assert_eq!(&got, &expected);
                        taken.extend(got.into_iter().flatten());
                    }
                    Step::PutBack => {
                        model.extend(taken.iter().copied());
                        real.put_back(std::mem::take(&mut taken));
                    }
                }
                prop_assert_eq!(real.len(), model.len());
                prop_assert!(real.entries.len() <= 64.max(2 * real.live));
            }
            let left: Vec<_> = model.into_iter().collect();
            prop_assert_eq!(real.take_all(), left);
        }
    }
}
