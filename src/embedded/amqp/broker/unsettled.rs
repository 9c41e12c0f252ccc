//! The messages of one queue that are delivered and not settled: found by slot in O(1), and listed by the time of
//! their delivery, so that the one that waits longest is known.
//!
//! A chain runs through the slots, oldest first; free slots form a chain of their own.

use std::time::Instant;

use super::api::ChannelId;
use super::ready::Entry;

/// One of them.
#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) entry: Entry,
    /// Who has it.
    pub(super) channel: ChannelId,
    /// Since when.
    pub(super) since: Instant,
}

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    serial: u32,
    before: u32,
    after: u32,
    item: Option<Unsettled>,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Outstanding {
    slots: Vec<Slot>,
    free: u32,
    oldest: u32,
    newest: u32,
    len: usize,
    /// Tells the uses of a slot apart, also after the slots were given up.
    serial: u32,
}

/// More slots than this are given up once they are all free.
const SPARE: usize = 1024;

impl Outstanding {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, oldest: NONE, newest: NONE, len: 0, serial: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn slot(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)
    }

    /// Adds one, delivered after all others. Gives its slot and serial.
    pub(super) fn insert(&mut self, item: Unsettled) -> (u32, u32) {
        self.serial = self.serial.wrapping_add(1);
        self.len += 1;
        let (serial, before) = (self.serial, self.newest);
        let slot = Slot { serial, before, after: NONE, item: Some(item) };
        let at = self.free;
        let at = if let Some(place) = self.slot(at) {
            let next_free = place.after;
            *place = slot;
            self.free = next_free;
            at
        } else {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        };
        match self.slot(before) {
            Some(place) => place.after = at,
            None => self.oldest = at,
        }
        self.newest = at;
        (at, serial)
    }

    /// Takes one out; `None` if it is settled already.
    pub(super) fn remove(&mut self, at: u32, serial: u32) -> Option<Unsettled> {
        let free = self.free;
        let place = self.slot(at).filter(|slot| slot.serial == serial)?;
        let item = place.item.take()?;
        let (before, after) = (place.before, place.after);
        place.after = free;
        self.free = at;
        match self.slot(before) {
            Some(place) => place.after = after,
            None => self.oldest = after,
        }
        match self.slot(after) {
            Some(place) => place.before = before,
            None => self.newest = before,
        }
        self.len -= 1;
        if self.len == 0 && self.slots.len() > SPARE {
            let serial = self.serial;
            *self = Self { serial, ..Self::new() };
        }
        Some(item)
    }

    /// The one that waits longest, with slot and serial.
    pub(super) fn oldest(&self) -> Option<(u32, u32, &Unsettled)> {
        let slot = self.slots.get(self.oldest as usize)?;
        Some((self.oldest, slot.serial, slot.item.as_ref()?))
    }

    /// Takes the one that waits longest and adds it anew, as if it were delivered at `now`; its slot and serial stay.
    pub(super) fn restart_oldest(&mut self, now: Instant) {
        let (at, newest) = (self.oldest, self.newest);
        let Some(place) = self.slot(at) else { return };
        if let Some(item) = &mut place.item {
            item.since = now;
        }
        if at == newest {
            return;
        }
        let after = place.after;
        (place.before, place.after) = (newest, NONE);
        if let Some(place) = self.slot(after) {
            place.before = NONE;
        }
        if let Some(place) = self.slot(newest) {
            place.after = at;
        }
        (self.oldest, self.newest) = (after, at);
    }

    /// Takes all out, oldest first.
    pub(super) fn pop_oldest(&mut self) -> Option<Unsettled> {
        let (at, serial, _) = self.oldest()?;
        self.remove(at, serial)
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Unsettled> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slots.get(at as usize)?;
            at = slot.after;
            slot.item.as_ref()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::embedded::ConnectionId;
    use crate::embedded::amqp::broker::message::Message;

    #[allow(clippy::disallowed_methods, reason = "a test needs some moment to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    proptest! {
        /// The model is a list in the order of delivery.
        #[test]
        fn each_is_found_once_and_the_oldest_is_known(
            steps in proptest::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..300)
        ) {
            let start = start();
            let mut out = Outstanding::new();
            let (mut model, mut gone) = (Vec::new(), Vec::new());
            for ((step, which), n) in steps.into_iter().zip(0u64..) {
                let now = start + Duration::from_secs(n);
                match step {
                    0 | 1 => {
                        let entry = Entry {
                            message: Arc::new(Message::default()), seq: n, expires: None, returns: 0,
                            redelivered: false, priority: 0,
                        };
                        let channel = ChannelId { connection: ConnectionId(1), channel: 1 };
                        let held = out.insert(Unsettled { entry, channel, since: now });
                        model.push((held, n, now));
                    }
                    2 if !model.is_empty() => {
                        let ((at, serial), n, since) = model.remove(which.index(model.len()));
                        let item = out.remove(at, serial).unwrap();
                        prop_assert_eq!((item.entry.seq, item.since), (n, since));
                        gone.push((at, serial));
                    }
                    3 if !model.is_empty() => {
                        out.restart_oldest(now);
                        let (held, n, _) = model.remove(0);
                        model.push((held, n, now));
                    }
                    _ => {}
                }
                for (at, serial) in &gone {
                    prop_assert!(out.remove(*at, *serial).is_none(), "settled twice");
                }
                prop_assert_eq!(out.len(), model.len());
                prop_assert_eq!(out.oldest().map(|(at, serial, _)| (at, serial)), model.first().map(|m| m.0));
                prop_assert_eq!(
                    out.iter().map(|i| i.entry.seq).collect::<Vec<_>>(),
                    model.iter().map(|m| m.1).collect::<Vec<_>>()
                );
            }
        }
    }
}
