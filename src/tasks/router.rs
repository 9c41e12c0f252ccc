//! By type and policy: what becomes of a message.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::codec::envelope::TaskEnvelope;
use crate::processor::{Handler, HandlerError, Message, Outcome, Plan, Policies, Registry};

/// A task with its data as the handler's type.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Task<T> {
    /// The task's id (`message_id`), if it has one: the same when it comes again.
    pub id: Option<String>,
    /// Its type.
    pub task_type: String,
    /// What is to be done.
    pub data: T,
    /// The message that carried it: its place, headers, and which attempt this is.
    pub message: Message,
}

/// A task whose data is still JSON text.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RawTask {
    /// The task's id (`message_id`), if it has one: the same when it comes again.
    pub id: Option<String>,
    /// Its type.
    pub task_type: String,
    /// Its data: JSON text, a slice of the message's body.
    pub data: Bytes,
    /// The message that carried it; its value is the whole body.
    pub message: Message,
}

/// The handlers by type, and the policies for what has none. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Router {
    pub(super) handlers: Registry<RawTask>,
    pub(super) policies: Policies,
    /// What the idempotency keys begin with: another queue has its own effects.
    queue: String,
}

impl Router {
    pub(super) fn new(queue: &str) -> Self {
        Self { queue: queue.to_owned(), ..Self::default() }
    }

    /// Registers a handler that takes the data as a type of its own.
    pub(super) fn on<T, F, Fut, O>(&mut self, task_type: &str, handler: F)
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Task<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        let handler = Arc::new(handler);
        self.handlers.on(task_type, move |raw: RawTask| {
            let handler = Arc::clone(&handler);
            async move {
                let data = match serde_json::from_slice::<T>(&raw.data) {
                    Ok(data) => data,
                    Err(e) => return Err(HandlerError::bad_data(&raw.task_type, &e)),
                };
                let RawTask { id, task_type, message, .. } = raw;
                handler(Task { id, task_type, data, message }).await.map(Into::into)
            }
        });
    }
}

impl Handler for Router {
    fn plan(&self, message: &Message) -> Plan {
        let Some(body) = message.value() else { return Plan::Settle(self.policies.empty("the message")) };
        let task = match TaskEnvelope::parse(body) {
            Ok(task) => task,
            Err(e) => return Plan::Settle(self.policies.unreadable(&e)),
        };
        let Some(run) = self.handlers.get(&task.task_type) else {
            return Plan::Settle(self.policies.unknown(&task.task_type));
        };
        let policies = self.policies;
        let raw = RawTask {
            id: message.id().map(str::to_owned),
            task_type: task.task_type.clone().into_owned(),
            data: body.slice_ref(task.data.get().as_bytes()),
            message: message.clone(),
        };
        Plan::Work {
            key: message.id().map(|id| format!("tasks:{}:{id}", self.queue)),
            work: Arc::new(move |attempt| {
                let mut raw = raw.clone();
                raw.message = raw.message.at_attempt(attempt);
                let run = run(raw);
                Box::pin(async move { run.await.map_err(|e| policies.class_data(e)) })
            }),
        }
    }
}
