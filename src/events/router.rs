//! By type and policy: what becomes of a record.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::codec::envelope::EventEnvelope;
use crate::processor::{Handler, HandlerError, Message, Outcome, Plan, Policies, Registry};

/// An event with its data as the handler's type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event<T> {
    /// The event's id: the same when it comes again.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// When it happened, as its publisher wrote it (ISO 8601).
    pub occurred_at: String,
    /// What happened.
    pub data: T,
    /// The record that carried it: its place, key, headers, and which attempt this is.
    pub message: Message,
}

/// An event whose data is still JSON text.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RawEvent {
    /// The event's id: the same when it comes again.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// When it happened, as its publisher wrote it (ISO 8601).
    pub occurred_at: String,
    /// Its data: JSON text, a slice of the record's value.
    pub data: Bytes,
    /// The record that carried it; its value is the whole envelope.
    pub message: Message,
}

/// The handlers by type, and the policies for what has none.
pub(super) struct Router {
    pub(super) handlers: Registry<RawEvent>,
    pub(super) policies: Policies,
    /// What the idempotency keys begin with: other groups have their own effects.
    group: String,
}

impl Router {
    pub(super) fn new(group: &str) -> Self {
        Self { handlers: Registry::default(), policies: Policies::default(), group: group.to_owned() }
    }

    /// Registers a handler that takes the data as a type of its own.
    pub(super) fn on<T, F, Fut, O>(&mut self, event_type: &str, handler: F)
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Event<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        let handler = Arc::new(handler);
        // The policies may be set after the handler, so the error is classed where it is given out.
        self.handlers.on(event_type, move |raw: RawEvent| {
            let handler = Arc::clone(&handler);
            async move {
                let data = match serde_json::from_slice::<T>(&raw.data) {
                    Ok(data) => data,
                    Err(e) => return Err(HandlerError::bad_data(&raw.event_type, &e)),
                };
                let RawEvent { id, event_type, occurred_at, message, .. } = raw;
                handler(Event { id, event_type, occurred_at, data, message }).await.map(Into::into)
            }
        });
    }
}

impl Handler for Router {
    fn plan(&self, message: &Message) -> Plan {
        let Some(value) = message.value() else { return Plan::Settle(self.policies.empty("the record")) };
        let event = match EventEnvelope::parse(value) {
            Ok(event) => event,
            Err(e) => return Plan::Settle(self.policies.unreadable(&e)),
        };
        if event.event_id.is_empty() {
            return Plan::Settle(self.policies.no_id("event_id"));
        }
        let Some(run) = self.handlers.get(&event.event_type) else {
            return Plan::Settle(self.policies.unknown(&event.event_type));
        };
        let policies = self.policies;
        let raw = RawEvent {
            id: event.event_id.clone().into_owned(),
            event_type: event.event_type.clone().into_owned(),
            occurred_at: event.occurred_at.clone().into_owned(),
            data: value.slice_ref(event.data.get().as_bytes()),
            message: message.clone(),
        };
        Plan::Work {
            key: Some(format!("events:{}:{}", self.group, event.event_id)),
            work: Arc::new(move |attempt| {
                let mut raw = raw.clone();
                raw.message = raw.message.at_attempt(attempt);
                let run = run(raw);
                Box::pin(async move { run.await.map_err(|e| policies.class_data(e)) })
            }),
        }
    }
}
