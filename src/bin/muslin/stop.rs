//! SIGINT and SIGTERM: the first asks the command to drain, the second stops it at once.

use std::future::Future;

use muslin::{Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exec;
use crate::output::Console;

/// What is said at the first signal.
pub(crate) const DRAINING: &str =
    "stopping: what is in hand is finished first; a second signal stops at once";

/// Whether a signal has come. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    asked: watch::Receiver<bool>,
}

impl Stop {
    /// Listens from now on; says `stopping` at the first signal.
    pub(crate) fn listen(console: Console, stopping: &'static str) -> Result<Self> {
        let failed = |e| Error::new(ErrorKind::Internal, "cannot listen for signals").with_source(e);
        let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut term = signal(SignalKind::terminate()).map_err(failed)?;
        let (sender, asked) = watch::channel(false);
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
            };
            next().await;
            console.note(stopping);
            // Kept alive to the end: without a sender the receivers would see an error.
            sender.send_replace(true);
            next().await;
            exec::kill_all();
            std::process::exit(130);
        });
        Ok(Self { asked })
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Resolves at the first signal. Cancel safe.
    pub(crate) async fn wait(&self) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Runs something that may be left half-way: `None` if a signal comes first.
    pub(crate) async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.wait() => None,
            done = work => Some(done),
        }
    }
}
