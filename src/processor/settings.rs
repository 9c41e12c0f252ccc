//! The settings of a run.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;

use super::dead_letter::DeadLetters;
use super::driver;
use super::handler::Handler;
use super::machine::{Exhausted, Rules};
use super::message::Message;
use super::source::Source;
use super::summary::Summary;
use crate::delivery::{Order, RetryPolicy};
use crate::idempotency::Store;
use crate::{Error, ErrorKind, Result, Timestamp};

/// What becomes of a message that cannot be worked when there are no dead letters to put it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WithoutDeadLetter {
    /// The run ends with an error that names the message; the message is not acknowledged and comes again. The default:
    /// nothing is lost.
    #[default]
    Stop,
    /// It is acknowledged and a line in the log names it. Its effect is lost.
    Skip,
}

/// What a run is doing right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// The counts so far.
    pub summary: Summary,
    /// Messages taken and not yet settled.
    pub in_hand: usize,
    /// Messages that hold a slot: their handler runs, or their key or dead letter is being written.
    pub running: usize,
    /// Whether the idempotency store does not answer, so that nothing is taken in.
    pub store_away: bool,
    /// Whether the run is draining.
    pub stopping: bool,
}

/// Looks on while a [`Processor`] runs, and keeps its last counts after it ended. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch {
    receiver: watch::Receiver<Progress>,
}

impl Watch {
    pub(crate) fn new() -> (watch::Sender<Progress>, Self) {
        let (sender, receiver) = watch::channel(Progress::default());
        (sender, Self { receiver })
    }

    /// What the run is doing now, or its last state.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.receiver.borrow()
    }

    /// The counts so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.progress().summary
    }

    /// Waits for the next change; `false` once the run has ended. Cancel safe.
    pub async fn changed(&mut self) -> bool {
        self.receiver.changed().await.is_ok()
    }
}

pub(super) type OnDuplicate = Arc<dyn Fn(&Message, &Bytes) + Send + Sync>;

/// Everything a run needs to know besides its source and its handler.
pub(super) struct Settings<D> {
    pub(super) rules: Rules,
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) dead_letters: Option<Arc<dyn DeadLetters<D>>>,
    pub(super) on_duplicate: Option<OnDuplicate>,
    pub(super) progress: Arc<watch::Sender<Progress>>,
    /// The wall clock that the store goes by.
    pub(super) clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// Runs a handler on every message of a source. See the [module](super) for what holds.
///
/// Memory: at most `in_hand` messages and about `in_hand_bytes` bytes of them, plus one message.
pub struct Processor<S: Source> {
    source: S,
    settings: Settings<S::Delivery>,
    without: WithoutDeadLetter,
    in_hand: Option<usize>,
    watch: Watch,
}

impl<S: Source> fmt::Debug for Processor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processor").field("rules", &self.settings.rules).finish_non_exhaustive()
    }
}

fn wall_clock() -> Timestamp {
    #[allow(
        clippy::disallowed_methods,
        reason = "the engine stands around the pure layers and reads their clock"
    )]
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl<S: Source> Processor<S> {
    /// A processor with the defaults: by key, 16 at once, 5 attempts, 5 minutes for a handler, no store, no dead letters.
    #[must_use]
    pub fn new(source: S) -> Self {
        let (sender, watch) = Watch::new();
        let rules = Rules {
            order: Order::ByKey,
            concurrency: 16,
            in_hand: 0,
            in_hand_bytes: 64 << 20,
            retry: RetryPolicy::default(),
            timeout: Some(Duration::from_secs(300)),
            lease: Duration::from_secs(30),
            exhausted: Exhausted::Stop,
            drain: Duration::from_secs(30),
        };
        let settings = Settings {
            rules,
            store: None,
            dead_letters: None,
            on_duplicate: None,
            progress: Arc::new(sender),
            clock: Arc::new(wall_clock),
        };
        Self { source, settings, without: WithoutDeadLetter::default(), in_hand: None, watch }
    }

    /// Sets within what messages keep their order: by key (the default; messages without a key have none), by
    /// partition, or not at all.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.settings.rules.order = order;
        self
    }

    /// Sets how many handlers may run at once. 1 to 65,536; default 16.
    #[must_use]
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.settings.rules.concurrency = handlers;
        self
    }

    /// Sets how many messages may be in hand: running, waiting for a slot, behind another of their key, or for their
    /// next attempt. At least the concurrency, at most 1,048,576; default 16 times the concurrency, and 256 at
    /// least.
    #[must_use]
    pub fn in_hand(mut self, messages: usize) -> Self {
        self.in_hand = Some(messages);
        self
    }

    /// Sets how many bytes of messages (key, value, headers) may be in hand; one more message is taken below it.
    /// Default 64 MiB.
    #[must_use]
    pub fn in_hand_bytes(mut self, bytes: usize) -> Self {
        self.settings.rules.in_hand_bytes = bytes;
        self
    }

    /// Sets how failures of [`super::Class::Retry`] are tried again. A message that waits for its next attempt keeps its
    /// key but not its slot. Attempts are counted in this process. Default 5 attempts, 200 ms to 1.6 s apart.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.rules.retry = policy;
        self
    }

    /// Sets how long one attempt may take; its failure is then of [`super::Class::Retry`]. `None` is no limit. Default 5
    /// minutes.
    #[must_use]
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.rules.timeout = limit.into();
        self
    }

    /// Has each idempotency key's effect once: its handler is started only under a claim in this store. A message without
    /// a key is worked without.
    #[must_use]
    pub fn once(mut self, store: Arc<dyn Store>) -> Self {
        self.settings.store = Some(store);
        self
    }

    /// Sets how long a claim lasts without being extended, which happens each third of it: after a crash, the time
    /// until another process may work the message. At least 1 s; default 30 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.rules.lease = lease;
        self
    }

    /// Looks at each duplicate and the outcome that was recorded for it. Runs on the engine's task: it must be quick.
    #[must_use]
    pub fn on_duplicate(mut self, look: impl Fn(&Message, &Bytes) + Send + Sync + 'static) -> Self {
        self.settings.on_duplicate = Some(Arc::new(look));
        self
    }

    /// Puts what cannot be worked there. Without this, [`Processor::without_dead_letter`] decides.
    #[must_use]
    pub fn dead_letter(mut self, letters: impl DeadLetters<S::Delivery>) -> Self {
        self.settings.dead_letters = Some(Arc::new(letters));
        self
    }

    /// Sets what becomes of what cannot be worked when there are no dead letters. Default
    /// [`WithoutDeadLetter::Stop`].
    #[must_use]
    pub fn without_dead_letter(mut self, policy: WithoutDeadLetter) -> Self {
        self.without = policy;
        self
    }

    /// Sets how long a drain may take before running handlers are ended and given back. Default 30 s.
    #[must_use]
    pub fn drain(mut self, limit: Duration) -> Self {
        self.settings.rules.drain = limit;
        self
    }

    /// The wall clock that the store goes by, for tests that move time.
    #[cfg(test)]
    pub(super) fn clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.settings.clock = Arc::new(clock);
        self
    }

    /// Reports progress to a watch that outlives this processor.
    #[cfg(any(feature = "kafka", feature = "amqp"))]
    pub(crate) fn report_to(mut self, sender: Arc<watch::Sender<Progress>>, watch: Watch) -> Self {
        (self.settings.progress, self.watch) = (sender, watch);
        self
    }

    /// Looks on while it runs; take it before [`Processor::run`].
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Runs until the source ends, `shutdown` resolves, or something fails for good; then drains and closes the source.
    ///
    /// When the source ends, everything in hand is worked to its end, retries included. After `shutdown` nothing new
    /// is started: running handlers have the drain time to finish, all else is given back. Must run inside of a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a setting out of its range, before anything is taken. [`ErrorKind::Handler`] that names the
    /// message which could not be worked and has nowhere to go. What the source, the dead letters' destination or the
    /// last commit failed with. In each case [`Processor::watch`] still has the counts, and what is not settled comes
    /// again.
    ///
    /// # Cancel safety
    /// Dropping the future ends the handlers where they stand and gives back everything in hand.
    pub async fn run<H: Handler>(
        mut self,
        handler: H,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<Summary> {
        self.check()?;
        driver::run(self.source, self.settings, handler, shutdown).await
    }

    /// Checks the settings and fills in those that follow from others.
    fn check(&mut self) -> Result<()> {
        let bad = |text: String| Err(Error::new(ErrorKind::Config, format!("processor: {text}")));
        let rules = &mut self.settings.rules;
        if !(1..=65_536).contains(&rules.concurrency) {
            return bad(format!("concurrency is {}; expected 1 to 65536", rules.concurrency));
        }
        rules.in_hand = self.in_hand.unwrap_or_else(|| (rules.concurrency * 16).max(256));
        if !(rules.concurrency..=1 << 20).contains(&rules.in_hand) {
            return bad(format!(
                "in_hand is {}; expected the concurrency, {}, to 1048576",
                rules.in_hand, rules.concurrency
            ));
        }
        if rules.in_hand_bytes == 0 {
            return bad("in_hand_bytes is 0; expected at least 1".into());
        }
        if rules.timeout.is_some_and(|t| t.is_zero()) {
            return bad("timeout is 0; expected a time, or None for no limit".into());
        }
        if rules.lease < Duration::from_secs(1) {
            return bad(format!("lease is {:?}; expected at least 1 s", rules.lease));
        }
        let year = Duration::from_secs(365 * 24 * 3600);
        if rules.lease > year || rules.drain > year {
            return bad("lease and drain are at most 365 days".into());
        }
        rules.exhausted = match (&self.settings.dead_letters, self.without) {
            (Some(_), _) => Exhausted::DeadLetter,
            (None, WithoutDeadLetter::Skip) => Exhausted::Skip,
            (None, WithoutDeadLetter::Stop) => Exhausted::Stop,
        };
        Ok(())
    }
}
