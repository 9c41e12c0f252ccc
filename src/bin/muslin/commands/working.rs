//! What `event handle` and `work` share: retries, the watch on progress, the summary.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muslin::delivery::RetryPolicy;
use muslin::processor::{Progress as Now, Summary, Watch};
use serde::Serialize;

use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Progress;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the progress line may change.
const TICK: Duration = Duration::from_millis(250);

/// Pauses that double from 200 ms, for so many attempts in all.
pub(crate) fn retry(attempts: u32) -> Result<RetryPolicy, Failure> {
    RetryPolicy::builder().attempts(attempts).max_delay(LONGEST_PAUSE).build().map_err(Failure::usage)
}

/// The counts of a run, through all its connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<(Summary, Option<Watch>)>>);

impl Counts {
    /// A new connection is worked on.
    pub(crate) fn watch(&self, watch: Watch) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, last) = &mut *inner;
        if let Some(last) = last.replace(watch) {
            *before += last.summary();
        }
    }

    fn now(&self) -> Now {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = inner.1.as_ref().map(Watch::progress).unwrap_or_default();
        now.summary += inner.0;
        now
    }
}

#[derive(Serialize)]
struct Printed {
    #[serde(flatten)]
    counts: Summary,
    elapsed_s: f64,
}

/// Runs to the end, shows how far it is, and prints the summary, also when the run ends with an error.
pub(crate) async fn run(
    context: &Context,
    counts: Counts,
    run: impl Future<Output = muslin::Result<Summary>>,
) -> Outcome {
    let mut progress = Progress::start(context.console);
    let mut run = std::pin::pin!(run);
    let mut tick = tokio::time::interval(TICK);
    let result = loop {
        tokio::select! {
            biased;
            result = &mut run => break result,
            _ = tick.tick() => progress.tick(|| {
                let now = counts.now();
                format!("{}, in hand {}", now.summary, now.in_hand)
            }),
        }
    };
    let counts = counts.now().summary;
    let elapsed_s = (progress.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    context.console.summary(&Printed { counts, elapsed_s }, &format!("{counts}, in {elapsed_s} s"));
    result?;
    // A run without an end of its own ends by a signal alone.
    Ok(if context.stop.is_asked() { Ended::Interrupted } else { Ended::Done })
}
