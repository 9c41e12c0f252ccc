//! The key store: within its retention, the effect of a key completes once. `claim -> complete(outcome) | release`.
//!
//! Whoever is about to have an effect claims its key first. One claimant gets a [`Lease`], the others learn that the
//! key is held or done. The holder completes the key with an outcome, which every later claimant gets instead of the
//! effect, or releases it so that somebody else may try.
//!
//! ```text
//!              claim                      complete(outcome)
//!   (absent) ---------> in progress ------------------------> done ---+
//!      ^ ^               |   |  ^                                     |
//!      | |    release    |   |  | claim when the lease has run out:   | retention has passed
//!      | +---------------+   +--+ a new token, the old one is fenced  |
//!      +--------------------------------------------------------------+
//! ```
//!
//! | call | absent | in progress, this token | in progress, another token | done |
//! |---|---|---|---|---|
//! | `claim` | claimed | | held until the lease ends, then claimed | the outcome |
//! | `complete` | fenced | done | fenced | this token: ok again; another: fenced |
//! | `extend` | fenced | a later end | fenced | fenced |
//! | `release` | ok, nothing to do | absent | fenced | fenced |
//!
//! A claim whose [`Fingerprint`] differs from the recorded one fails with
//! [`ErrorKind::PayloadMismatch`](crate::ErrorKind::PayloadMismatch), whatever the state: one key stands for one
//! payload until it is released or its retention has passed.
//!
//! # Leases and fencing
//!
//! A lease ends by time, so a crashed holder does not block its key for ever. A holder that is merely late may find
//! that somebody else has taken over; each claim gets a larger [`Token`], and a call with an old one fails with
//! [`ErrorKind::Fenced`](crate::ErrorKind::Fenced) and changes nothing. A lease that has run out but that nobody took
//! over can still be completed or extended.
//!
//! # Time
//!
//! The stores read no clock: `now` is an argument. A store keeps the latest `now` it has seen and takes an earlier one
//! for that, so a clock that steps back lets nobody in early and shortens no lease. After a step forward leases end
//! early; fencing then keeps the second effect out of the record, not out of the world. If a clock ran far ahead
//! and was set back, leases that were granted in between end only when the clock has caught up or, in a durable store,
//! one lease's length after it was opened again.
//!
//! # Cancel safety
//!
//! A call whose future is dropped may or may not have taken effect. A claim that did so unseen ends with its lease. The
//! other calls may be repeated: `complete` and `release` by the same lease answer the same again.

mod claim;
mod fingerprint;
mod memory;
mod record;
#[cfg(feature = "redb")]
mod redb;
#[cfg(test)]
mod suite;

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::{Result, Timestamp};

pub use claim::{Claim, Counts, KEY_MAX, Lease, State, Token};
pub use fingerprint::Fingerprint;
pub use memory::{MemoryOptions, MemoryStore};
#[cfg(feature = "redb")]
pub use redb::{RedbOptions, RedbStore};

/// What the calls of a [`Store`] return: a boxed future, so that the trait can be used as `dyn Store`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of idempotency keys. Used as `Arc<dyn Store>`; the [module](self) says what each call does in each state.
///
/// # Errors
/// Besides those named at each call, a durable store fails with [`ErrorKind::Storage`](crate::ErrorKind::Storage)
/// when its disk does, or when what it reads is damaged. An error with `is_ambiguous()` may have taken effect; any
/// other has changed nothing.
pub trait Store: fmt::Debug + Send + Sync {
    /// Claims `key` for `lease` from `now` on.
    ///
    /// A lease shorter than a millisecond counts as one millisecond. Take one that is longer than the effect should
    /// ever take, or [`extend`](Store::extend) it on the way.
    ///
    /// # Errors
    /// `PayloadMismatch` when the key is recorded with another fingerprint; `Config` when the key is empty, `TooLarge`
    /// when it is over [`KEY_MAX`] bytes; `Full` when the store is at its limit and no key may be dropped.
    ///
    /// # Cancel safety
    /// A dropped future may have claimed the key: it is free again when the lease ends.
    fn claim<'a>(
        &'a self,
        key: &'a str,
        fingerprint: Fingerprint,
        lease: Duration,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Claim>>;

    /// Records that the effect is done, with what a duplicate shall be told. Its retention starts now.
    ///
    /// May be repeated with the same lease: the first outcome stands.
    ///
    /// # Errors
    /// `Fenced` when the lease is no longer the key's: somebody else's work stands. `TooLarge` when the outcome is
    /// over the store's limit; the key stays in progress.
    fn complete<'a>(&'a self, lease: &'a Lease, outcome: Bytes, now: Timestamp) -> BoxFuture<'a, Result<()>>;

    /// Gives the key up without an effect: the next claim gets it at once, with any payload.
    ///
    /// # Errors
    /// `Fenced` when somebody else holds the key or it is done; nothing is changed.
    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>>;

    /// Moves the end of the lease to `now + by` if that is later, and returns the lease with its new end.
    ///
    /// # Errors
    /// `Fenced` when the lease is no longer the key's. The holder should stop its work.
    fn extend<'a>(&'a self, lease: &'a Lease, by: Duration, now: Timestamp) -> BoxFuture<'a, Result<Lease>>;

    /// What is recorded for `key`, without claiming it. A key that is past its retention may still be shown.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<State>>>;

    /// Drops the keys that were completed before `before`, and returns how many. Keys in progress stay.
    ///
    /// Stores drop keys that are past their retention by and by, as new ones are claimed; call this to drop them
    /// earlier or all at once.
    fn purge<'a>(&'a self, before: Timestamp) -> BoxFuture<'a, Result<u64>>;

    /// How many keys are recorded. Those past their retention count until they are dropped.
    fn counts(&self) -> BoxFuture<'_, Result<Counts>>;
}
