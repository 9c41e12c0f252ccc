//! Handlers by type, as events and tasks register them.

use std::collections::HashMap;
use std::sync::Arc;

use super::{BoxFuture, HandlerError, HandlerResult, Outcome};

/// A handler without its types: from what it is given to what becomes of the message.
pub(crate) type Run<R> = Arc<dyn Fn(R) -> BoxFuture<HandlerResult> + Send + Sync>;

/// The handlers by type, and perhaps one for all other types. Cheap to clone.
pub(crate) struct Registry<R> {
    handlers: HashMap<String, Run<R>>,
    any: Option<Run<R>>,
}

impl<R> Registry<R> {
    /// Registers the handler of a type; a later one takes its place.
    pub(crate) fn on<F, Fut, O>(&mut self, kind: &str, handler: F)
    where
        F: Fn(R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        self.handlers.insert(kind.to_owned(), run(handler));
    }

    /// Registers the handler of all types that have none.
    pub(crate) fn on_any<F, Fut, O>(&mut self, handler: F)
    where
        F: Fn(R) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        self.any = Some(run(handler));
    }

    /// The handler for a type.
    pub(crate) fn get(&self, kind: &str) -> Option<Run<R>> {
        self.handlers.get(kind).or(self.any.as_ref()).cloned()
    }

    /// Types with a handler of their own, sorted.
    pub(crate) fn types(&self) -> Vec<&str> {
        let mut types: Vec<&str> = self.handlers.keys().map(String::as_str).collect();
        types.sort_unstable();
        types
    }

    /// Whether no handler is registered at all.
    #[cfg(feature = "amqp")]
    pub(crate) fn is_empty(&self) -> bool {
        self.handlers.is_empty() && self.any.is_none()
    }
}

impl<R> Default for Registry<R> {
    fn default() -> Self {
        Self { handlers: HashMap::new(), any: None }
    }
}

impl<R> Clone for Registry<R> {
    fn clone(&self) -> Self {
        Self { handlers: self.handlers.clone(), any: self.any.clone() }
    }
}

fn run<R, F, Fut, O>(handler: F) -> Run<R>
where
    F: Fn(R) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
    O: Into<Outcome>,
{
    Arc::new(move |given| {
        let run = handler(given);
        Box::pin(async move { run.await.map(Into::into) })
    })
}
