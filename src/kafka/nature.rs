//! What a client takes from nature: the time of day and chance. Both can be given, so that a run can be repeated.
#![allow(clippy::disallowed_methods, reason = "this file reads the system's clock where no other is given")]

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Timestamp;
use crate::random::{STEP, mix};

/// The time of day, and the seed of random choices.
#[derive(Clone)]
pub(crate) struct Nature {
    clock: Option<Arc<dyn Fn() -> Timestamp + Send + Sync>>,
    drawn: Arc<AtomicU64>,
    seeded: bool,
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            clock: None,
            drawn: Arc::new(RandomState::new().build_hasher().finish().into()),
            seeded: false,
        }
    }
}

impl fmt::Debug for Nature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = if self.clock.is_some() { "given" } else { "system" };
        f.debug_struct("Nature").field("clock", &clock).finish_non_exhaustive()
    }
}

impl Nature {
    pub(crate) fn with_clock(mut self, read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Some(Arc::new(read));
        self
    }

    pub(crate) fn with_seed(mut self, seed: u64) -> Self {
        self.drawn = Arc::new(seed.into());
        self.seeded = true;
        self
    }

    /// Whether a run is to be repeatable: then nothing may depend on how threads are scheduled.
    pub(crate) fn is_seeded(&self) -> bool {
        self.seeded
    }

    /// The time of day for a record: on Linux as the kernel's last tick left it, which is up to 10 ms behind and costs a
    /// fifth of a reading to the nanosecond.
    #[inline]
    pub(crate) fn wall(&self) -> Timestamp {
        self.clock.as_ref().map_or_else(tick, |read| read())
    }

    /// A random UUID.
    pub(crate) fn uuid(&self) -> uuid::Uuid {
        if !self.seeded {
            return uuid::Uuid::new_v4();
        }
        let bytes = (u128::from(self.draw()) << 64 | u128::from(self.draw())).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// A random number.
    pub(crate) fn draw(&self) -> u64 {
        mix(self.drawn.fetch_add(STEP, Ordering::Relaxed))
    }
}

/// Milliseconds since 1970.
#[inline]
fn tick() -> Timestamp {
    let since = since_1970();
    let whole = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp(whole.saturating_mul(1000).saturating_add(since.subsec_millis().into()))
}

#[cfg(target_os = "linux")]
#[inline]
fn since_1970() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse)).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn since_1970() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_row_of_numbers() {
        let row = |seed| {
            let nature = Nature::default().with_seed(seed);
            std::array::from_fn::<u64, 8, _>(|_| nature.draw())
        };
        assert_eq!(row(5), row(5));
        assert_ne!(row(5), row(6));
        assert!(Nature::default().wall() > Timestamp(1_600_000_000_000));
        assert_eq!(Nature::default().with_clock(|| Timestamp(4)).wall(), Timestamp(4));
    }
}
