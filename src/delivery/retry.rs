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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_JITTER: u64 = 0;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn delays_double_up_to_the_longest_and_end_with_the_attempts() {
        let policy = RetryPolicy::builder().initial(ms(100)).max_delay(ms(500)).attempts(6).build().unwrap();
        let delays: Vec<_> = (1..=7).map(|n| policy.next_delay(n, Duration::ZERO, NO_JITTER)).collect();
        let full = [100, 200, 400, 500, 500].map(|n| Some(ms(n)));
        assert_eq!(delays, [&full[..], &[None, None]].concat());
    }

    #[test]
    fn the_default_is_what_its_documentation_says() {
        let p = RetryPolicy::default();
        let delays: Vec<_> = (1..=5).map(|n| p.next_delay(n, Duration::ZERO, NO_JITTER)).collect();
        assert_eq!(delays, [Some(ms(200)), Some(ms(400)), Some(ms(800)), Some(ms(1600)), None]);
        let shortest = p.next_delay(1, Duration::ZERO, u64::MAX).unwrap();
        assert!(shortest >= ms(100) && shortest < ms(101), "{shortest:?}");
    }

    #[test]
    fn never_means_one_attempt() {
        assert_eq!(RetryPolicy::never().next_delay(1, Duration::ZERO, 0), None);
    }

    #[test]
    fn no_attempt_starts_after_the_total_time() {
        let p = RetryPolicy::builder().initial(ms(100)).total(ms(1000)).unlimited_attempts().build().unwrap();
        assert_eq!(p.next_delay(1, ms(900), NO_JITTER), Some(ms(100)));
        assert_eq!(p.next_delay(1, ms(901), NO_JITTER), None);
        assert_eq!(p.next_delay(1, Duration::MAX, NO_JITTER), None);
    }

    #[test]
    fn a_wrong_setting_is_refused_by_its_name() {
        let b = RetryPolicy::builder;
        let cases = [
            (b().multiplier(0.5), "multiplier"),
            (b().multiplier(f64::NAN), "multiplier"),
            (b().multiplier(f64::INFINITY), "multiplier"),
            (b().jitter(-0.1), "jitter"),
            (b().jitter(f64::NAN), "jitter"),
            (b().attempts(0), "attempts"),
            (b().initial(ms(2)).max_delay(ms(1)), "initial"),
            (b().max_delay(Duration::MAX), "max_delay"),
        ];
        for (builder, name) in cases {
            let e = builder.build().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            assert!(e.to_string().contains(&format!("{name} is ")), "{e}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn a_delay_is_within_its_bounds_for_any_input(
            initial in 0u64..100_000,
            multiplier in 1.0f64..1000.0,
            jitter in 0.0f64..=1.0,
            attempts in prop::option::of(1u32..1000),
            total in prop::option::of(0u64..10_000_000),
            attempt in any::<u32>(),
            elapsed in any::<u64>(),
            random in any::<u64>(),
        ) {
            let mut b = RetryPolicy::builder().initial(ms(initial)).multiplier(multiplier).jitter(jitter);
            b = b.max_delay(ms(100_000));
            b = match attempts { Some(n) => b.attempts(n), None => b.unlimited_attempts() };
            if let Some(total) = total {
                b = b.total(ms(total));
            }
            let p = b.build().unwrap();
            let elapsed = Duration::from_nanos(elapsed);
            match p.next_delay(attempt, elapsed, random) {
                Some(delay) => {
                    let full = p.full_delay(attempt.max(1));
                    prop_assert!(delay <= full && full <= ms(100_000));
                    let least = full.mul_f64(1.0 - jitter);
                    prop_assert!(delay + Duration::from_micros(1) >= least, "{delay:?} {least:?}");
                    prop_assert!(attempts.is_none_or(|most| attempt.max(1) < most));
                    prop_assert!(total.is_none_or(|total| elapsed + delay <= ms(total)));
                    prop_assert!(p.full_delay(attempt.max(1).saturating_add(1)) >= full, "delays never shrink");
                }
                None => prop_assert!(attempts.is_some() || total.is_some()),
            }
        }
    }
}
