//! What is told of a request while it is on its way: a span for each of its batches, and the figures of
//! [`observe`](crate::observe).

use tokio::time::Instant;
use tracing::Span;
use tracing::field::Empty;

use super::accumulator::{Answer, Resolved, Sending};
use crate::NodeId;
use crate::kafka::errors;
use crate::observe::{Metrics, Sink};

/// Where it is told.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) sink: Sink,
    /// What a batch is to fill.
    pub(crate) batch_size: usize,
}

/// A request on its way.
pub(super) struct Watched<'a> {
    metrics: Option<&'a dyn Metrics>,
    node: NodeId,
    began: Instant,
    spans: Vec<Span>,
}

impl Watch {
    /// A request with these batches leaves.
    pub(super) fn begin(&self, node: NodeId, sendings: &[Sending], now: Instant) -> Watched<'_> {
        let metrics = self.sink.get();
        if let Some(m) = metrics {
            for s in sendings {
                let topic = [("topic", s.topic.as_str())];
                if s.attempt() > 1 {
                    m.count("muslin.producer.retries", &topic, 1);
                    continue;
                }
                let queued = now.into_std().saturating_duration_since(s.created());
                m.record("muslin.producer.queue_seconds", &topic, queued.as_secs_f64());
                m.record("muslin.producer.batch_fill", &topic, s.bytes() as f64 / self.batch_size as f64);
                m.record("muslin.producer.batch_records", &topic, f64::from(s.records()));
            }
        }
        let spans = if tracing::enabled!(tracing::Level::DEBUG) {
            sendings.iter().map(|s| span(node, s)).collect()
        } else {
            Vec::new()
        };
        Watched { metrics, node, began: now, spans }
    }

    /// Batches have their outcome.
    pub(super) fn resolved(&self, resolved: &[Resolved]) {
        let Some(m) = self.sink.get() else { return };
        for r in resolved {
            if let Some(e) = r.error() {
                let labels = [("topic", r.topic().as_str()), ("kind", &format!("{:?}", e.kind()))];
                m.count("muslin.producer.failed_records", &labels, r.records().into());
            }
        }
    }
}

fn span(node: NodeId, s: &Sending) -> Span {
    tracing::debug_span!(
        "kafka.produce",
        broker = %node,
        topic = %s.topic,
        partition = %s.partition,
        records = s.records(),
        bytes = s.bytes(),
        attempt = s.attempt(),
        offset = Empty,
        error = Empty,
    )
}

impl Watched<'_> {
    /// What came of its batches, in their order.
    pub(super) fn end(self, answers: &[(Sending, Answer)], now: Instant) {
        for ((_, answer), span) in answers.iter().zip(&self.spans) {
            match answer {
                Answer::Broker { code: 0, written, .. } => span.record("offset", written.base_offset.0),
                Answer::Broker { code, .. } => span.record("error", errors::name(*code)),
                Answer::Failed(e) => span.record("error", e.report()),
            };
        }
        let Some(m) = self.metrics else { return };
        let took = now.saturating_duration_since(self.began).as_secs_f64();
        m.record("muslin.producer.request_seconds", &[("broker", &self.node.to_string())], took);
        for (s, answer) in answers {
            let topic = ("topic", s.topic.as_str());
            let code = match answer {
                Answer::Broker { code: 0, .. } => {
                    m.count("muslin.producer.records", &[topic], s.records().into());
                    m.count("muslin.producer.bytes", &[topic], s.bytes() as u64);
                    continue;
                }
                Answer::Broker { code, .. } => errors::name(*code),
                Answer::Failed(_) => "none".to_owned(),
            };
            m.count("muslin.producer.answers", &[topic, ("code", &code)], 1);
        }
    }
}
