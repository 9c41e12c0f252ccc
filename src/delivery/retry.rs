//! When to try again, and when to give up.
//!
//! ```text
//! delay(attempt) = min(initial * multiplier ^ (attempt - 1), max_delay), less a random part of up to `jitter` of it
//! ```
//!
//! The policy is a value: it holds no state, reads no clock, and takes its random number as an argument.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// Exponential backoff with jitter, bounded in attempts and time.
///
/// The default tries 5 times: after 200 ms, 400 ms, 800 ms and 1.6 s, each up to half shorter by jitter, without
/// a bound on the total time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    initial: Duration,
    multiplier: f64,
    max_delay: Duration,
    jitter: f64,
    attempts: Option<u32>,
    total: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(200),
            multiplier: 2.0,
            max_delay: Duration::from_secs(30),
            jitter: 0.5,
            attempts: Some(5),
            total: None,
        }
    }
}

impl RetryPolicy {
    /// A builder that starts from the default.
    pub fn builder() -> RetryPolicyBuilder {
        RetryPolicyBuilder { policy: Self::default() }
    }

    /// No retry: one attempt.
    #[must_use]
    pub fn never() -> Self {
        Self { attempts: Some(1), ..Self::default() }
    }

    /// The most attempts, the first one included; `None` without a bound.
    #[must_use]
    pub fn attempts(&self) -> Option<u32> {
        self.attempts
    }

    /// The longest time from the first attempt to the start of the last; `None` without a bound.
    #[must_use]
    pub fn total(&self) -> Option<Duration> {
        self.total
    }

    /// How long to wait before the next attempt, or `None` to give up.
    ///
    /// `attempt` counts the attempts made so far: 1 after the first one failed (0 counts as 1). `elapsed` is the time since
    /// the first one began. `random` is any number, evenly distributed over all of `u64`.
    #[must_use]
    pub fn next_delay(&self, attempt: u32, elapsed: Duration, random: u64) -> Option<Duration> {
        let attempt = attempt.max(1);
        if self.attempts.is_some_and(|most| attempt >= most) {
            return None;
        }
        let delay = self.full_delay(attempt);
        // 53 bits are what an f64 holds: a fraction from 0 up to, not including, 1.
        let fraction = (random >> 11) as f64 / (1u64 << 53) as f64;
        let delay = delay.mul_f64(1.0 - self.jitter * fraction).min(delay);
        match self.total {
            Some(total) if elapsed.saturating_add(delay) > total => None,
            _ => Some(delay),
        }
    }

    /// The delay after an attempt, before jitter.
    fn full_delay(&self, attempt: u32) -> Duration {
        if self.initial.is_zero() {
            return Duration::ZERO;
        }
        let power = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        // May be infinite; the minimum is not.
        let seconds = self.initial.as_secs_f64() * self.multiplier.powi(power);
        if seconds >= self.max_delay.as_secs_f64() {
            return self.max_delay;
        }
        Duration::try_from_secs_f64(seconds).unwrap_or(self.max_delay).min(self.max_delay)
    }
}

/// Builds a [`RetryPolicy`]; see its fields' setters for the units and ranges.
#[derive(Debug, Clone)]
#[must_use]
pub struct RetryPolicyBuilder {
    policy: RetryPolicy,
}

/// A year: longer delays are a mistake in a unit.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl RetryPolicyBuilder {
    /// The delay after the first attempt. 0 to `max_delay`; default 200 ms.
    pub fn initial(mut self, delay: Duration) -> Self {
        self.policy.initial = delay;
        self
    }

    /// What each delay is multiplied with for the next. 1 to 1,000; default 2.
    pub fn multiplier(mut self, factor: f64) -> Self {
        self.policy.multiplier = factor;
        self
    }

    /// The longest delay. Up to 365 days; default 30 s.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.policy.max_delay = delay;
        self
    }

    /// How much of a delay is random: 0 for none, 1 for all of it. Default 0.5: from half the delay to all of it.
    /// Without jitter those that failed together try again together.
    pub fn jitter(mut self, part: f64) -> Self {
        self.policy.jitter = part;
        self
    }

    /// The most attempts, the first one included. At least 1; default 5.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.policy.attempts = Some(attempts);
        self
    }

    /// No bound on the attempts. With no bound on the total time either, a delivery that always fails holds its place
    /// for ever.
    pub fn unlimited_attempts(mut self) -> Self {
        self.policy.attempts = None;
        self
    }

    /// The longest time from the start of the first attempt to the start of the last. Default: no bound.
    pub fn total(mut self, time: Duration) -> Self {
        self.policy.total = Some(time);
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the setting, its value and its range.
    pub fn build(self) -> Result<RetryPolicy> {
        let p = self.policy;
        let bad = |text: String| Err(Error::new(ErrorKind::Config, format!("retry policy: {text}")));
        if p.max_delay > LONGEST {
            return bad(format!("max_delay is {:?}; expected at most 365 days", p.max_delay));
        }
        if p.initial > p.max_delay {
            return bad(format!("initial is {:?}; expected at most max_delay, {:?}", p.initial, p.max_delay));
        }
        if !(1.0..=1000.0).contains(&p.multiplier) {
            return bad(format!("multiplier is {}; expected 1 to 1000", p.multiplier));
        }
        if !(0.0..=1.0).contains(&p.jitter) {
            return bad(format!("jitter is {}; expected 0 to 1", p.jitter));
        }
        if p.attempts == Some(0) {
            return bad("attempts is 0; expected at least 1, the first attempt".into());
        }
        Ok(p)
    }
}

#[cfg(test)]
mod tests {}
