//! How a command ends that works on several topics or groups, one after the other.

use std::time::Instant;

use muslin::Error;
use serde::Serialize;

use crate::exit::{Ended, Outcome};
use crate::output::Console;

/// Counts; the first failure is kept, as the command ends by it where nothing was done.
pub(super) struct Results {
    console: Console,
    pub(super) done: u64,
    failed: u64,
    ambiguous: u64,
    first: Option<Error>,
}

#[derive(Serialize)]
struct Summary {
    done: u64,
    failed: u64,
    ambiguous: u64,
    elapsed_s: f64,
}

impl Results {
    pub(super) fn new(console: Console) -> Self {
        Self { console, done: 0, failed: 0, ambiguous: 0, first: None }
    }

    pub(super) fn failure(&mut self, error: Error) {
        if error.is_ambiguous() {
            self.ambiguous += 1;
        } else {
            self.failed += 1;
        }
        match self.first {
            None => self.first = Some(error),
            Some(_) => self.console.error(&error.report()),
        }
    }

    pub(super) fn finish(&self, started: Instant) {
        let Self { done, failed, ambiguous, .. } = *self;
        let elapsed_s = (started.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        // A person sees by the lines what one or two came to.
        if self.console.json || done + failed + ambiguous > 2 {
            let text = format!("done {done}, failed {failed}, ambiguous {ambiguous}, in {elapsed_s} s");
            self.console.summary(&Summary { done, failed, ambiguous, elapsed_s }, &text);
        }
    }

    pub(super) fn ended(self) -> Outcome {
        match self.first {
            None => Ok(Ended::Done),
            // Nothing was done: the cause says the status.
            Some(e) if self.done == 0 => Err(e.into()),
            Some(e) => {
                self.console.error(&e.report());
                Ok(Ended::SomeFailed)
            }
        }
    }
}
