//! Working tasks by type.
#![allow(clippy::disallowed_methods, reason = "IO: the pause between two connections is slept here")]

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::queue::Queue;
use super::router::{RawTask, Router, Task};
use crate::amqp::Client;
use crate::idempotency::Store;
use crate::processor::{
    AmqpDeadLetters, HandlerError, Message, Order, Outcome, Policy, Processor, Progress, QueueSource,
    RetryPolicy, Summary, Watch, WithoutDeadLetter,
};
use crate::{Error, ErrorKind, Result};

/// The handlers and settings of a worker.
///
/// Messages have no order among each other. A task is known again by its `message_id`; one without is worked without
/// idempotency, which is logged once.
///
/// Attempts are counted in this process: a message that the broker delivers again, after a crash for one, begins with
/// the first. Its [`Origin`](crate::processor::Origin) then says that it is redelivered.
#[must_use = "nothing is worked until `run` is awaited"]
pub struct Worker {
    queue: Queue,
    router: Router,
    settings: Settings,
    progress: (Arc<tokio::sync::watch::Sender<Progress>>, Watch),
}

type OnDuplicate = Arc<dyn Fn(&Message, &Bytes) + Send + Sync>;

struct Settings {
    concurrency: usize,
    prefetch: Option<u16>,
    retry: RetryPolicy,
    timeout: Option<Duration>,
    store: Option<Arc<dyn Store>>,
    lease: Duration,
    on_duplicate: Option<OnDuplicate>,
    drain: Duration,
    dead_letter: Option<String>,
    without: WithoutDeadLetter,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("queue", &self.queue.name())
            .field("types", &self.router.handlers.types())
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker on that queue, with the defaults of [`Processor`].
    pub fn new(queue: Queue) -> Self {
        let (sender, watch) = Watch::new();
        let router = Router::new(queue.name());
        Self {
            queue,
            router,
            settings: Settings {
                concurrency: 16,
                prefetch: None,
                retry: RetryPolicy::default(),
                timeout: Some(Duration::from_secs(300)),
                store: None,
                lease: Duration::from_secs(30),
                on_duplicate: None,
                drain: Duration::from_secs(30),
                dead_letter: None,
                without: WithoutDeadLetter::default(),
            },
            progress: (Arc::new(sender), watch),
        }
    }

    /// Works tasks of that type, with their data as a type of one's own.
    pub fn on<T, F, Fut, O>(mut self, task_type: &str, handler: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Task<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        self.router.on(task_type, handler);
        self
    }

    /// Works tasks of that type, with their data as JSON text.
    pub fn on_raw<F, Fut, O>(mut self, task_type: &str, handler: F) -> Self
    where
        F: Fn(RawTask) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        self.router.handlers.on(task_type, handler);
        self
    }

    /// Works tasks of every type that has no handler of its own.
    pub fn on_any<F, Fut, O>(mut self, handler: F) -> Self
    where
        F: Fn(RawTask) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        self.router.handlers.on_any(handler);
        self
    }

    /// Sets how many handlers may run at once. Default 16.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.settings.concurrency = handlers;
        self
    }

    /// Sets how many messages the broker sends ahead: what may be in hand, waiting for a retry included. At least the
    /// concurrency; default twice that, and 8 more.
    pub fn prefetch(mut self, messages: u16) -> Self {
        self.settings.prefetch = Some(messages);
        self
    }

    /// Sets how failures are tried again. See [`Processor::retry`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// Sets how long one attempt may take. See [`Processor::timeout`].
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.timeout = limit.into();
        self
    }

    /// Works each task once by its `message_id`, for this queue. See [`Processor::once`].
    pub fn once(mut self, store: Arc<dyn Store>) -> Self {
        self.settings.store = Some(store);
        self
    }

    /// Sets how long a claim lasts unless it is extended. See [`Processor::lease`].
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Looks at each duplicate and its recorded outcome. See [`Processor::on_duplicate`].
    pub fn on_duplicate(mut self, look: impl Fn(&Message, &Bytes) + Send + Sync + 'static) -> Self {
        self.settings.on_duplicate = Some(Arc::new(look));
        self
    }

    /// Sets how long a drain may take. See [`Processor::drain`].
    pub fn drain(mut self, limit: Duration) -> Self {
        self.settings.drain = limit;
        self
    }

    /// Puts what cannot be worked into that queue, declared plain and durable: body and properties untouched, the
    /// reasons in headers.
    pub fn dead_letter(mut self, queue: impl Into<String>) -> Self {
        self.settings.dead_letter = Some(queue.into());
        self
    }

    /// Sets what becomes of what cannot be worked when there is no dead-letter queue. Default
    /// [`WithoutDeadLetter::Stop`].
    pub fn without_dead_letter(mut self, policy: WithoutDeadLetter) -> Self {
        self.settings.without = policy;
        self
    }

    /// Sets what becomes of a task whose type has no handler.
    pub fn unknown_type(mut self, policy: Policy) -> Self {
        self.router.policies.unknown_type = policy;
        self
    }

    /// Sets what becomes of a body that is no JSON.
    pub fn not_json(mut self, policy: Policy) -> Self {
        self.router.policies.not_json = policy;
        self
    }

    /// Sets what becomes of JSON that lacks a field of the envelope, or has one of another type.
    pub fn missing_field(mut self, policy: Policy) -> Self {
        self.router.policies.missing_field = policy;
        self
    }

    /// Sets what becomes of a task whose `data` the handler's type does not take.
    pub fn bad_data(mut self, policy: Policy) -> Self {
        self.router.policies.bad_data = policy;
        self
    }

    /// Looks on while it runs; take it before [`Worker::run`].
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.progress.1.clone()
    }

    /// Works tasks until `shutdown` resolves, the connection is lost, or something fails for good; then drains.
    ///
    /// A lost connection ends the run with an error for which [`Error::is_retryable`] holds; what was in hand is delivered again by
    /// the broker, and with a store what was done by then is a duplicate. [`run_reconnecting`] goes on after it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a setting out of its range or when no type has a handler; what the queues are declared
    /// or consumed with; then as [`Processor::run`].
    ///
    /// # Cancel safety
    /// As [`Processor::run`].
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<Summary> {
        if self.router.handlers.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("worker of queue {}: no task type has a handler", self.queue.name()),
            ));
        }
        let settings = self.settings;
        let prefetch = match settings.prefetch {
            Some(prefetch) if usize::from(prefetch) < settings.concurrency => {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "prefetch is {prefetch}; expected at least the concurrency, {}",
                        settings.concurrency
                    ),
                ));
            }
            Some(prefetch) => prefetch,
            None => {
                u16::try_from(settings.concurrency.saturating_mul(2).saturating_add(8)).unwrap_or(u16::MAX)
            }
        };
        let letters = match settings.dead_letter {
            Some(name) => Some(self.queue.client().queue(name).join().declare().await?),
            None => None,
        };
        let source = QueueSource::start(self.queue.inner(), prefetch).await?;
        let mut processor = Processor::new(source)
            .report_to(self.progress.0, self.progress.1)
            .order(Order::Unordered)
            .concurrency(settings.concurrency)
            .in_hand(usize::from(prefetch).max(settings.concurrency))
            .retry(settings.retry)
            .timeout(settings.timeout)
            .lease(settings.lease)
            .drain(settings.drain)
            .without_dead_letter(settings.without);
        if let Some(queue) = letters {
            processor = processor.dead_letter(AmqpDeadLetters::to(queue));
        }
        if let Some(store) = settings.store {
            processor = processor.once(store);
        }
        if let Some(look) = settings.on_duplicate {
            processor = processor.on_duplicate(move |message, outcome| look(message, outcome));
        }
        processor.run(self.router, shutdown).await
    }
}

/// How long [`run_reconnecting`] pauses between two connections.
#[derive(Debug, Clone, Copy)]
pub struct Reconnect {
    /// The first pause; it doubles with each try in vain. Default 200 ms.
    pub first: Duration,
    /// The longest pause. Default 5 s.
    pub longest: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(5) }
    }
}

/// Works a queue through lost connections: connects, builds a worker and runs it; when the connection is lost, pauses and
/// does it again, until `shutdown` resolves or something else fails. The counts are summed over all runs.
///
/// `connect` makes a connection; `build` declares the queue on it and sets up the worker, and is called for each
/// connection. The first connection is not retried: a wrong address is told at once.
///
/// # Errors
/// Any error that is not retryable ([`Error::is_retryable`]) or that a message caused; and those of the first `connect`.
pub async fn run_reconnecting<C, CFut, B, BFut>(
    pause: Reconnect,
    connect: C,
    build: B,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Summary>
where
    C: Fn() -> CFut,
    CFut: Future<Output = Result<Client>>,
    B: Fn(Client) -> BFut,
    BFut: Future<Output = Result<Worker>>,
{
    let mut total = Summary::default();
    let mut wait = pause.first;
    let mut first = true;
    // Each run ends with the same shutdown.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let attempt = async {
            let client = connect().await?;
            let worker = build(client.clone()).await?;
            let watch = worker.watch();
            let mut stopped = stopped.clone();
            let ended = worker
                .run(async move {
                    // An error means that this function is gone, and the run with it.
                    let _ = stopped.wait_for(|stop| *stop).await;
                })
                .await;
            if let Err(error) = client.close().await {
                tracing::debug!(error = %error.report(), "the connection was not closed in order");
            }
            Ok::<_, Error>((ended, watch.summary()))
        };
        let mut attempt = pin!(attempt);
        let ended = tokio::select! {
            biased;
            ended = &mut attempt => ended,
            () = &mut shutdown, if !*stopped.borrow() => {
                stop.send_replace(true);
                attempt.await
            }
        };
        let error = match ended {
            Ok((ended, summary)) => {
                total += summary;
                if summary.settled() > 0 {
                    wait = pause.first;
                }
                match ended {
                    Ok(_) => return Ok(total),
                    Err(error) => error,
                }
            }
            Err(error) if first => return Err(error),
            Err(error) => error,
        };
        first = false;
        if *stopped.borrow() {
            // What was in hand is given back by the lost connection; nothing is left to be done.
            return Ok(total);
        }
        if !error.is_retryable() || error.kind() == ErrorKind::Handler {
            return Err(error);
        }
        tracing::warn!(error = %error.report(), pause = ?wait, "the connection is lost; connecting again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = &mut shutdown => return Ok(total),
        }
        wait = wait.saturating_mul(2).min(pause.longest);
    }
}
