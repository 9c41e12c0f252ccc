//! What is wrong with a consumer, and since when.
#![allow(clippy::disallowed_methods, reason = "a complaint carries the time since when it holds")]

use std::sync::Mutex;

use tokio::time::Instant;

use crate::Error;
use crate::kafka::client::lock;

/// What does not work at the moment, and since when.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    state: Mutex<Option<(Instant, Error)>>,
}

impl Trouble {
    /// It does not work. The first time counts as the beginning, the last error is kept.
    pub(crate) fn set(&self, e: &Error) {
        let mut state = lock(&self.state);
        let since = state.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *state = Some((since, e.duplicate()));
    }

    /// It works.
    pub(crate) fn clear(&self) {
        *lock(&self.state) = None;
    }

    /// Since when it does not work, and why.
    pub(crate) fn get(&self) -> Option<(Instant, Error)> {
        lock(&self.state).as_ref().map(|(since, e)| (*since, e.duplicate()))
    }
}
