//! What can be seen of the clients from outside: counters, histograms, and the trace that a record belongs to.
//!
//! A client tells a [`Metrics`] what it does, if it was given one; [`InMemory`] is one to look at, and a few lines make one
//! of any metrics library. Spans and events are `tracing`'s.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `muslin.producer.records` | counter | `topic` | records that were acknowledged |
//! | `muslin.producer.bytes` | counter | `topic` | their bytes in batches before compression |
//! | `muslin.producer.failed_records` | counter | `topic`, `kind` | records that failed, by the error's kind |
//! | `muslin.producer.answers` | counter | `topic`, `code` | answers for a batch other than success, by the broker's code, or `none` where no answer came |
//! | `muslin.producer.retries` | counter | `topic` | batches that were sent again |
//! | `muslin.producer.queue_seconds` | histogram | `topic` | from a batch's first record to its first request |
//! | `muslin.producer.request_seconds` | histogram | `broker` | from a request to its answer |
//! | `muslin.producer.batch_fill` | histogram | `topic` | a batch's bytes as a share of the batch size, at its first request |
//! | `muslin.producer.batch_records` | histogram | `topic` | its records |

mod memory;
mod trace;

#[cfg(feature = "kafka")]
use std::fmt;
use std::sync::Arc;

pub use memory::{Histogram, InMemory};
pub use trace::TraceParent;

/// Labels of a figure: names and values.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// Takes the figures of a client. The names and labels stand at the head of this module.
///
/// Both methods are called from the client's own tasks, once for a batch or a request and never for a record: they should
/// take microseconds and must not wait.
pub trait Metrics: Send + Sync + 'static {
    /// A counter goes up by `n`.
    fn count(&self, name: &'static str, labels: Labels<'_>, n: u64);

    /// A histogram gets a value: seconds, a share, or a number.
    fn record(&self, name: &'static str, labels: Labels<'_>, value: f64);
}

impl<M: Metrics + ?Sized> Metrics for Arc<M> {
    fn count(&self, name: &'static str, labels: Labels<'_>, n: u64) {
        (**self).count(name, labels, n);
    }

    fn record(&self, name: &'static str, labels: Labels<'_>, value: f64) {
        (**self).record(name, labels, value);
    }
}

/// Where a client's figures go; nowhere by default.
#[cfg(feature = "kafka")]
#[derive(Clone, Default)]
pub(crate) struct Sink(Option<Arc<dyn Metrics>>);

#[cfg(feature = "kafka")]
impl Sink {
    pub(crate) fn new(metrics: impl Metrics) -> Self {
        Self(Some(Arc::new(metrics)))
    }

    pub(crate) fn get(&self) -> Option<&dyn Metrics> {
        self.0.as_deref()
    }
}

#[cfg(feature = "kafka")]
impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "given" } else { "none" })
    }
}
