//! What a claimant gets: a lease, an outcome, or the time to wait until.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Error, ErrorKind, Result, Timestamp};

/// The longest key in bytes.
pub const KEY_MAX: usize = 512;

/// The number of a claim. Each claim of a store gets a larger one than all before it, also after a restart of a
/// durable store, so the larger of two tokens for one key is the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub(crate) u64);

impl Token {
    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The right to complete a key, as long as nobody took it over.
///
/// Dropping it does nothing: the key stays in progress until the lease ends. Release it to free the key at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a lease that is neither completed nor released blocks its key until it ends"]
pub struct Lease {
    pub(crate) key: Arc<str>,
    pub(crate) token: Token,
    pub(crate) until: Timestamp,
    pub(crate) takeovers: u32,
}

impl Lease {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The fencing token. Hand it on to whatever the effect touches, where that can refuse an older one.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// When the lease ends unless it is extended, by the store's clock (see the module's "Time").
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.until
    }

    /// How many holders before this one let their lease run out: each may have had a part of the effect.
    #[must_use]
    pub const fn takeovers(&self) -> u32 {
        self.takeovers
    }
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// The caller holds the key: have the effect, then complete or release.
    Claimed(Lease),
    /// The effect is done; this is what its holder recorded, and when.
    Done {
        /// The recorded outcome.
        outcome: Bytes,
        /// When it was completed, by the store's clock.
        at: Timestamp,
    },
    /// Somebody else holds the key.
    Held {
        /// When their lease ends, by the store's clock. After a step of the clock this may be far from the caller's
        /// `now`: wait no longer than a lease's length before claiming again.
        until: Timestamp,
    },
}

impl Claim {
    /// The lease, if the caller holds the key.
    #[must_use]
    pub fn lease(self) -> Option<Lease> {
        match self {
            Self::Claimed(lease) => Some(lease),
            Self::Done { .. } | Self::Held { .. } => None,
        }
    }
}

/// What is recorded for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Claimed and not completed. The lease may have ended.
    InProgress {
        /// The token of the latest claim.
        token: Token,
        /// When the lease ends or ended.
        until: Timestamp,
        /// How many holders let their lease run out before this one.
        takeovers: u32,
    },
    /// Completed.
    Done {
        /// The token of the claim that completed it.
        token: Token,
        /// The recorded outcome.
        outcome: Bytes,
        /// When it was completed.
        at: Timestamp,
        /// How many holders let their lease run out before the one that completed it.
        takeovers: u32,
    },
}

/// How many keys a store has recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Claimed and not completed, whether or not their lease has ended.
    pub in_progress: u64,
    /// Completed and not yet dropped.
    pub completed: u64,
}

/// Checks what every store asks of a key.
pub(crate) fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            "the idempotency key is empty; expected 1 to 512 bytes that name the effect",
        ));
    }
    if key.len() > KEY_MAX {
        let shown: String = key.chars().take(48).collect();
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "the idempotency key {shown:?}... has {} bytes, over the limit of {KEY_MAX}; use a hash of it",
                key.len()
            ),
        ));
    }
    Ok(())
}

/// Checks an outcome against a store's limit.
pub(crate) fn check_outcome(key: &str, outcome: &[u8], limit: usize) -> Result<()> {
    if outcome.len() > limit {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "the outcome of idempotency key {key:?} has {} bytes, over the store's limit of {limit}; \
                 record a reference instead",
                outcome.len()
            ),
        ));
    }
    Ok(())
}

/// `at + by`, in whole milliseconds, at least one, without overflow.
pub(crate) fn plus(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.get().saturating_add(millis(by)))
}

/// A duration in whole milliseconds, rounded up, at least one.
pub(crate) fn millis(d: Duration) -> i64 {
    let ms = d.as_nanos().div_ceil(1_000_000).max(1);
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_must_have_between_one_and_512_bytes() {
        assert_eq!(check_key("").unwrap_err().kind(), ErrorKind::Config);
        check_key(&"k".repeat(KEY_MAX)).unwrap();
        // 300 characters of two bytes: bytes count, and the message cuts at a character.
        let e = check_key(&"é".repeat(300)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TooLarge);
        assert!(e.message().contains("600 bytes"), "{e}");
    }

    #[test]
    fn times_never_overflow() {
        assert_eq!(plus(Timestamp(i64::MAX - 1), Duration::MAX), Timestamp(i64::MAX));
        assert_eq!(plus(Timestamp(5), Duration::ZERO), Timestamp(6));
        assert_eq!(plus(Timestamp(5), Duration::from_micros(1500)), Timestamp(7));
    }
}
