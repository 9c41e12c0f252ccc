//! Changes that any broker passes on and that may be made twice: what was done already is done.
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it reads the clock and sleeps")]

use std::time::Duration;

use tokio::time::Instant;

use super::Admin;
use crate::kafka::wire::api::Api;
use crate::{Error, ErrorKind, NodeId, Result};

const PAUSE: Duration = Duration::from_millis(100);

impl Admin {
    /// Asks one broker after another until one has done it or refused it, at most the request timeout. `judge` is told
    /// whether an earlier answer was lost.
    ///
    /// An error is ambiguous where an answer was lost.
    pub(super) async fn repeat<R, T>(
        &self,
        what: &str,
        request: R,
        judge: impl Fn(&R::Answer, bool) -> Result<T>,
    ) -> Result<T>
    where
        R: Api + Clone,
    {
        let inner = &self.client.inner;
        let limit = inner.settings.request_timeout;
        let deadline = Instant::now() + limit;
        let mut lost = false;
        let named = |e: Error, lost: bool| {
            let e = if e.message().starts_with(what) { e } else { e.context(what) };
            if lost { e.ambiguous() } else { e }
        };
        loop {
            let mut last = Error::new(ErrorKind::Unavailable, "no Kafka broker is known");
            let nodes: Vec<NodeId> = inner.cluster().nodes().map(|(node, _)| node).collect();
            for node in nodes {
                let asked = async { inner.link(node).await?.call_within(request.clone(), limit).await };
                match asked.await.and_then(|answer| judge(&answer, lost)) {
                    Ok(done) => return Ok(done),
                    Err(e) if e.is_retryable() => {
                        lost |= e.is_ambiguous();
                        last = e;
                    }
                    Err(e) => return Err(named(e, lost)),
                }
            }
            if Instant::now() >= deadline {
                return Err(named(last, lost));
            }
            tokio::time::sleep(PAUSE).await;
            // Its failure is told by the next round.
            let _ = inner.refresh(&[], false).await;
        }
    }
}
