//! Figures kept in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Labels, Metrics};

/// Different figures that are kept; more are dropped and counted.
const SERIES: usize = 10_000;
/// Steps of a histogram for each doubling: a quantile is at most a fifth too high.
const STEPS: f64 = 4.0;

/// A figure's name and its labels, as `name{label=value,..}`.
fn key(name: &str, labels: Labels<'_>) -> String {
    let mut key = name.to_owned();
    for (n, (label, value)) in labels.iter().enumerate() {
        key.push(if n == 0 { '{' } else { ',' });
        key.push_str(label);
        key.push('=');
        key.push_str(value);
    }
    if !labels.is_empty() {
        key.push('}');
    }
    key
}

/// Values by their size.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    count: u64,
    sum: f64,
    max: f64,
    /// By the step that a value falls into; what is not above 0 has a step of its own.
    steps: BTreeMap<i32, u64>,
}

impl Histogram {
    fn add(&mut self, value: f64) {
        // No step for what is no number.
        let value = if value.is_finite() { value.max(0.0) } else { 0.0 };
        // Between -1,074 and 1,024 doublings.
        let step = if value > 0.0 { (value.log2() * STEPS).floor() as i32 } else { i32::MIN };
        *self.steps.entry(step).or_default() += 1;
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 without any.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The value that the share `q` (0 to 1) of the values is not above, at most a fifth too high; 0 without any.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        let wanted = (q.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0);
        let mut seen = 0;
        for (step, n) in &self.steps {
            seen += n;
            if seen as f64 >= wanted {
                let end = if *step == i32::MIN { 0.0 } else { ((f64::from(*step) + 1.0) / STEPS).exp2() };
                return end.min(self.max);
            }
        }
        0.0
    }
}

#[derive(Debug, Default)]
struct Figures {
    counters: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Histogram>,
    dropped: u64,
}

/// Keeps all figures in memory: for tests, for a page that shows them, for a program without a metrics library.
///
/// Memory: some 100 bytes a counter and at most some 2 KiB a histogram in use; 10,000 of both together, figures beyond
/// that are dropped.
#[derive(Debug, Default)]
pub struct InMemory {
    figures: Mutex<Figures>,
}

impl InMemory {
    /// Without figures yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A counter; 0 where nothing was counted.
    #[must_use]
    pub fn counter(&self, name: &str, labels: Labels<'_>) -> u64 {
        self.figures().counters.get(&key(name, labels)).copied().unwrap_or(0)
    }

    /// A histogram; an empty one where nothing was recorded.
    #[must_use]
    pub fn histogram(&self, name: &str, labels: Labels<'_>) -> Histogram {
        self.figures().histograms.get(&key(name, labels)).cloned().unwrap_or_default()
    }

    /// All counters, by `name{label=value,..}`.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.figures().counters.clone()
    }

    /// Values that were dropped as there were too many different figures.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.figures().dropped
    }
}

impl Figures {
    fn has_room(&mut self, known: bool) -> bool {
        let room = known || self.counters.len() + self.histograms.len() < SERIES;
        self.dropped += u64::from(!room);
        room
    }
}

impl Metrics for InMemory {
    fn count(&self, name: &'static str, labels: Labels<'_>, n: u64) {
        let key = key(name, labels);
        let mut figures = self.figures();
        let known = figures.counters.contains_key(&key);
        if figures.has_room(known) {
            let counter = figures.counters.entry(key).or_default();
            *counter = counter.saturating_add(n);
        }
    }

    fn record(&self, name: &'static str, labels: Labels<'_>, value: f64) {
        let key = key(name, labels);
        let mut figures = self.figures();
        let known = figures.histograms.contains_key(&key);
        if figures.has_room(known) {
            figures.histograms.entry(key).or_default().add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_are_kept_by_name_and_labels() {
        let m = InMemory::new();
        m.count("c", &[("topic", "a")], 2);
        m.count("c", &[("topic", "a")], 3);
        m.count("c", &[("topic", "b")], 1);
        m.record("h", &[], 0.5);
        assert_eq!(m.counter("c", &[("topic", "a")]), 5);
        assert_eq!(m.counter("c", &[]), 0);
        assert_eq!(m.counters().keys().collect::<Vec<_>>(), ["c{topic=a}", "c{topic=b}"]);
        assert_eq!(m.histogram("h", &[]).count(), 1);
    }

    #[test]
    fn figures_beyond_the_limit_are_dropped_and_counted() {
        let m = InMemory::new();
        for n in 0..SERIES + 5 {
            m.count("c", &[("topic", &n.to_string())], 1);
        }
        m.count("c", &[("topic", "3")], 1);
        assert_eq!((m.counters().len(), m.dropped(), m.counter("c", &[("topic", "3")])), (SERIES, 5, 2));
    }

    #[test]
    fn values_that_are_no_sizes_do_no_harm() {
        let mut h = Histogram::default();
        for value in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            h.add(value);
        }
        assert_eq!((h.count(), h.max(), h.quantile(1.0)), (4, 0.0, 0.0));
        assert_eq!(Histogram::default().quantile(0.5), 0.0);
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_fifth_above_the_true_one(
            mut values in prop::collection::vec(1e-6f64..1e6, 1..200),
            q in 0.0f64..=1.0,
        ) {
            let mut h = Histogram::default();
            values.iter().for_each(|v| h.add(*v));
            values.sort_by(f64::total_cmp);
            let rank = (q * values.len() as f64).ceil().max(1.0) as usize;
            let exact = values[rank - 1];
            let told = h.quantile(q);
            prop_assert!(told >= exact && told <= exact * 1.2, "{told} for {exact}");
        }
    }
}
