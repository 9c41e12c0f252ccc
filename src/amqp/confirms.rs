//! Which publish a broker's confirm, refusal or return belongs to. Pure: tags and `now` in, settled publishes out.
//!
//! ```text
//!                 handle_publish
//!                       │
//!                       ▼       handle_return
//!                   Unconfirmed ─────────────► Unconfirmed, returned
//!                    │   │  │                          │
//!         handle_ack │   │  │ handle_end               │ handle_ack
//!                    ▼   │  ▼                          ▼
//!            Confirmed   │  given back             Returned
//!                        │ handle_nack
//!                        ▼
//!                     Refused
//! ```
//!
//! The broker numbers the publishes of a channel from 1 in the order in which they arrive, confirms them in any order,
//! one or "all up to", and sends a return before the confirm of the same message (RabbitMQ's publisher confirms). A
//! return carries no number: it is matched by a key that the caller derives from the message. Returns come in
//! the order of the publishes, so the search goes on where the last one ended.
//!
//! Order of calls: [`Confirms::handle_publish`] right before a message leaves, the other `handle_*` as frames come in,
//! [`Confirms::handle_end`] once when the channel is gone. Confirming costs O(log n) for each publish that it settles.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Instant;

/// How a publish ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict<R> {
    /// The broker has it.
    Confirmed,
    /// No queue took it; the broker's reason.
    Returned(R),
    /// The broker refused it.
    Refused,
}

/// A confirm for something that was never published: the two sides no longer agree on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownTag {
    /// What the broker confirmed.
    pub(crate) tag: u64,
    /// The newest publish.
    pub(crate) last: u64,
}

#[derive(Debug)]
struct Pending<W, K, R> {
    waiter: W,
    key: Option<K>,
    sent: Instant,
    returned: Option<R>,
}

/// The unconfirmed publishes of one channel. `W` waits, `K` is what a return is matched by, `R` is its reason.
///
/// Holds one entry for each unconfirmed publish and nothing for the others; the caller's window is the bound.
#[derive(Debug)]
pub(crate) struct Confirms<W, K, R> {
    pending: BTreeMap<u64, Pending<W, K, R>>,
    last: u64,
    /// The first publish that the next return may be for.
    return_from: u64,
    /// The first publish whose time limit has not been looked at.
    expire_from: u64,
}

impl<W, K: PartialEq, R> Confirms<W, K, R> {
    pub(crate) fn new() -> Self {
        Self { pending: BTreeMap::new(), last: 0, return_from: 1, expire_from: 1 }
    }

    /// How many publishes are unconfirmed.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// The unconfirmed ones' keys, oldest first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Option<&K>> {
        self.pending.values().map(|p| p.key.as_ref())
    }

    /// A message is about to leave. Without a key it cannot be returned. Gives the number that the broker will use.
    pub(crate) fn handle_publish(&mut self, now: Instant, key: Option<K>, waiter: W) -> u64 {
        self.last += 1;
        self.pending.insert(self.last, Pending { waiter, key, sent: now, returned: None });
        self.last
    }

    /// The broker returned a message. `false` if no unconfirmed publish has the key.
    pub(crate) fn handle_return(&mut self, key: &K, reason: R) -> bool {
        let from = self.return_from;
        let fits =
            |(_, p): &(&u64, &mut Pending<W, K, R>)| p.returned.is_none() && p.key.as_ref() == Some(key);
        let found = self.pending.range_mut(from..).find(fits);
        let found = match found {
            Some(found) => Some(found),
            None => self.pending.range_mut(..from).find(fits),
        };
        let Some((tag, pending)) = found else { return false };
        pending.returned = Some(reason);
        self.return_from = tag + 1;
        true
    }

    /// The broker has a message, or with `multiple` all up to it (tag 0: all). Tags that are settled already are
    /// ignored.
    pub(crate) fn handle_ack(
        &mut self,
        tag: u64,
        multiple: bool,
        settle: impl FnMut(W, Verdict<R>),
    ) -> Result<(), UnknownTag> {
        self.settle(tag, multiple, || Verdict::Confirmed, settle)
    }

    /// The broker refused a message, or with `multiple` all up to it (tag 0: all).
    pub(crate) fn handle_nack(
        &mut self,
        tag: u64,
        multiple: bool,
        settle: impl FnMut(W, Verdict<R>),
    ) -> Result<(), UnknownTag> {
        self.settle(tag, multiple, || Verdict::Refused, settle)
    }

    fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        verdict: impl Fn() -> Verdict<R>,
        mut settle: impl FnMut(W, Verdict<R>),
    ) -> Result<(), UnknownTag> {
        let mut one = |p: Pending<W, K, R>| match p.returned {
            Some(reason) => settle(p.waiter, Verdict::Returned(reason)),
            None => settle(p.waiter, verdict()),
        };
        if tag > self.last || (tag == 0 && !multiple) {
            return Err(UnknownTag { tag, last: self.last });
        }
        if !multiple {
            if let Some(p) = self.pending.remove(&tag) {
                one(p);
            }
            return Ok(());
        }
        let up_to = if tag == 0 { self.last } else { tag };
        while let Some(entry) = self.pending.first_entry() {
            if *entry.key() > up_to {
                break;
            }
            one(entry.remove());
        }
        Ok(())
    }

    /// Shows each publish that left at `cutoff` or before and was not shown yet. They stay unconfirmed: the broker
    /// may still hold them.
    pub(crate) fn handle_timeout(&mut self, cutoff: Instant, mut expired: impl FnMut(&mut W)) {
        let from = (Bound::Included(self.expire_from), Bound::Unbounded);
        for (tag, p) in self.pending.range_mut(from) {
            if p.sent > cutoff {
                break;
            }
            self.expire_from = tag + 1;
            expired(&mut p.waiter);
        }
    }

    /// The channel is gone: gives back all that is unconfirmed, oldest first.
    pub(crate) fn handle_end(&mut self) -> impl Iterator<Item = (W, Option<K>)> + use<W, K, R> {
        std::mem::take(&mut self.pending).into_values().map(|p| (p.waiter, p.key))
    }
}

#[cfg(test)]
mod tests;
