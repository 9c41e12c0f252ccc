//! What a run did, in counts.

use std::fmt;

/// The counts of a run. Every message that was taken counts in exactly one of `handled`, `dead_lettered`,
/// `duplicates`, `skipped`, `given_back` and `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Messages whose handler succeeded.
    pub handled: u64,
    /// Messages whose dead letter was confirmed.
    pub dead_lettered: u64,
    /// Messages that were done before, by the idempotency store.
    pub duplicates: u64,
    /// Messages acknowledged without an effect: by a policy, or because the handler said that they do not matter.
    pub skipped: u64,
    /// Messages that come again because the run ended before they were done.
    pub given_back: u64,
    /// Messages whose own failure ended the run; they come again.
    pub failed: u64,
    /// Attempts after a message's first; not a count of messages.
    pub retried: u64,
}

impl Summary {
    /// Messages that were taken from the source.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.settled() + self.given_back + self.failed
    }

    /// Messages that were acknowledged.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.handled + self.dead_lettered + self.duplicates + self.skipped
    }
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.handled += other.handled;
        self.dead_lettered += other.dead_lettered;
        self.duplicates += other.duplicates;
        self.skipped += other.skipped;
        self.given_back += other.given_back;
        self.failed += other.failed;
        self.retried += other.retried;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "handled {}, dead-lettered {}, duplicates {}, skipped {}, given back {}, failed {}, retries {}",
            self.handled,
            self.dead_lettered,
            self.duplicates,
            self.skipped,
            self.given_back,
            self.failed,
            self.retried
        )
    }
}
