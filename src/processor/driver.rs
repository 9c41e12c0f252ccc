//! The loop that does what [`Machine`] says: takes, claims, runs, publishes, settles. It decides nothing.
#![allow(
    clippy::disallowed_methods,
    reason = "IO: the driver reads the clock, sleeps and spawns for the machine"
)]

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::Class;
use super::dead_letter::Obituary;
use super::handler::{BoxFuture, Handler, HandlerError, HandlerResult, Plan, Work};
use super::machine::{Action, Arrival, Buried, Claimed, Ended, Fate, Kept, Machine, Ticket, Why};
use super::message::{Message, Origin};
use super::settings::{Progress, Settings};
use super::source::{Delivery, Source};
use super::summary::Summary;
use crate::delivery::{Reason, Scope};
use crate::idempotency::{Claim, Fingerprint, Lease};
use crate::{Error, ErrorKind, Partition, Result, Timestamp, Topic};

/// How long handlers that were told to end may take to do so.
const GRACE: Duration = Duration::from_secs(1);

/// What an operation came to.
enum Report {
    Claimed(Result<Claim>),
    Ended(HandlerResult),
    Completed(Result<()>),
    Renewed(Result<Lease>),
    Buried(Result<()>),
    Released(Result<()>),
}

/// Which operation a task carries, to tell what failed when it panics.
#[derive(Debug, Clone, Copy)]
enum Op {
    Claim,
    Run,
    Complete,
    Renew,
    Bury,
    Release,
}

/// How a message failed last.
struct Failure {
    class: Class,
    reason: Reason,
    word: &'static str,
    message: String,
    first: Timestamp,
    last: Timestamp,
}

/// A message in hand.
struct InHand<D> {
    delivery: D,
    message: Message,
    work: Option<Work>,
    key: Option<Arc<str>>,
    lease: Option<Lease>,
    outcome: Bytes,
    failure: Option<Failure>,
    abort: Option<AbortHandle>,
}

struct Driver<S: Source, H> {
    settings: Settings<S::Delivery>,
    handler: H,
    machine: Machine,
    held: HashMap<Ticket, InHand<S::Delivery>>,
    tasks: JoinSet<Report>,
    ids: HashMap<Id, (Ticket, Op)>,
    /// Operations that ended without waiting.
    reports: Vec<(Ticket, Report)>,
    scopes: HashMap<(Topic, Partition), u64>,
    /// What the run will end with.
    error: Option<Error>,
    store_away: bool,
    letters_away: bool,
    told_keyless: bool,
}

/// See [`super::Processor::run`].
pub(super) async fn run<S: Source, H: Handler>(
    mut source: S,
    settings: Settings<S::Delivery>,
    handler: H,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Summary> {
    let seed = RandomState::new().hash_one(std::process::id());
    let mut driver = Driver::<S, H> {
        machine: Machine::new(settings.rules.clone(), seed),
        settings,
        handler,
        held: HashMap::new(),
        tasks: JoinSet::new(),
        ids: HashMap::new(),
        reports: Vec::new(),
        scopes: HashMap::new(),
        error: None,
        store_away: false,
        letters_away: false,
        told_keyless: false,
    };
    let mut shutdown = pin!(shutdown);
    let mut asked = false;
    let mut ended = false;
    loop {
        driver.turn();
        if (ended || driver.machine.is_stopping()) && driver.machine.in_hand() == 0 {
            break;
        }
        if driver.machine.is_drained() {
            driver.wait_for_the_ended().await;
            break;
        }
        if driver.machine.is_stopping() {
            source.stop();
        }
        let wake = driver.machine.poll_timeout();
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut shutdown, if !asked => {
                asked = true;
                tracing::info!(in_hand = driver.machine.in_hand(), "draining");
                // Before anything is given back, so that it is not delivered here again.
                source.stop();
                driver.machine.handle_stop(now());
            }
            Some(joined) = driver.tasks.join_next_with_id() => driver.joined(joined),
            next = source.next(), if !ended && driver.machine.wants_more() => match next {
                Some(Ok(delivery)) => driver.arrived(delivery),
                Some(Err(error)) => {
                    tracing::warn!(error = %error.report(), "the source failed; draining");
                    driver.error.get_or_insert(error);
                    driver.machine.handle_stop(now());
                }
                None => ended = true,
            },
            () = sleep => {}
        }
        // What else has ended meanwhile is dealt with in the same turn.
        while let Some(joined) = driver.tasks.try_join_next_with_id() {
            driver.joined(joined);
        }
    }
    driver.turn();
    let Driver { machine, settings, error, tasks, held, .. } = driver;
    drop((tasks, held));
    // What was settled is to stick even when the drain took all of its time.
    let closed = source.close(settings.rules.drain.max(Duration::from_secs(5))).await;
    let summary = machine.summary();
    match (error, closed) {
        (Some(error), Ok(())) => Err(error),
        (Some(error), Err(closing)) => {
            tracing::warn!(error = %closing.report(), "closing the source failed too");
            Err(error)
        }
        (None, Err(closing)) => Err(closing),
        (None, Ok(())) => Ok(summary),
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl<S: Source, H: Handler> Driver<S, H> {
    /// Does all that the machine wants done, and hears all that needed no waiting.
    fn turn(&mut self) {
        loop {
            while let Some(action) = self.machine.poll_action(now()) {
                self.act(action);
            }
            if self.reports.is_empty() {
                break;
            }
            for (ticket, report) in std::mem::take(&mut self.reports) {
                self.heard(ticket, report);
            }
        }
        if self.store_away && !self.machine.is_gated() {
            self.store_away = false;
            tracing::info!("the idempotency store answers again");
        }
        let progress = Progress {
            summary: self.machine.summary(),
            in_hand: self.machine.in_hand(),
            running: self.machine.running(),
            store_away: self.machine.is_gated(),
            stopping: self.machine.is_stopping(),
        };
        self.settings.progress.send_if_modified(|old| std::mem::replace(old, progress) != progress);
    }

    fn arrived(&mut self, delivery: S::Delivery) {
        let message = delivery.message();
        let ticket = self.machine.next_ticket();
        let scope = self.scope(message.origin());
        let (work, key, verdict) = match self.handler.plan(&message) {
            Plan::Work { key, work } => (Some(work), key.filter(|k| !k.is_empty()), None),
            Plan::Settle(why) => (None, None, Some(why)),
        };
        if work.is_some() && key.is_none() && self.settings.store.is_some() && !self.told_keyless {
            self.told_keyless = true;
            tracing::warn!(place = %message.origin(), "a message without an id is worked without idempotency; said once");
        }
        let class = verdict.as_ref().map(HandlerError::class);
        let in_hand = InHand {
            delivery,
            message: message.clone(),
            work,
            key: key.map(Arc::from),
            lease: None,
            outcome: Bytes::new(),
            failure: None,
            abort: None,
        };
        let arrival = Arrival {
            scope,
            key: message.key().map(|k| &k[..]),
            bytes: message.size(),
            keyed: in_hand.key.is_some() && self.settings.store.is_some(),
            verdict: class,
        };
        self.held.insert(ticket, in_hand);
        if let Some(why) = verdict {
            self.note(ticket, &why, Reason::NotRetryable);
        }
        self.machine.handle_arrival(arrival, now());
    }

    /// Partitions and queues are numbered as they come.
    fn scope(&mut self, origin: &Origin) -> Scope {
        match origin {
            Origin::Kafka { topic, partition, .. } => {
                let next = self.scopes.len() as u64 + 1;
                Scope(*self.scopes.entry((topic.clone(), *partition)).or_insert(next))
            }
            Origin::Amqp { .. } | Origin::Memory { .. } => Scope(0),
        }
    }

    fn act(&mut self, action: Action) {
        let clock = (self.settings.clock)();
        match action {
            Action::Claim(ticket) => {
                let Some(in_hand) = self.held.get(&ticket) else { return };
                let (Some(store), Some(key)) = (self.settings.store.clone(), in_hand.key.clone()) else {
                    return;
                };
                let (message, lease) = (in_hand.message.clone(), self.settings.rules.lease);
                self.launch(ticket, Op::Claim, async move {
                    let print = Fingerprint::of(message.value().map_or(&[], |v| &v[..]));
                    Report::Claimed(store.claim(&key, print, lease, clock).await)
                });
            }
            Action::Run(ticket, attempt) => {
                let Some(in_hand) = self.held.get_mut(&ticket) else { return };
                let Some(work) = in_hand.work.clone() else { return };
                let task = self.tasks.spawn(async move { Report::Ended(work(attempt).await) });
                self.ids.insert(task.id(), (ticket, Op::Run));
                in_hand.abort = Some(task);
            }
            Action::Abort(ticket, why) => {
                let Some(in_hand) = self.held.get_mut(&ticket) else { return };
                if let Some(task) = in_hand.abort.take() {
                    task.abort();
                }
                match why {
                    Why::TimedOut => {
                        let limit = self.settings.rules.timeout.unwrap_or_default();
                        let why = HandlerError::retry(format!("the handler took longer than {limit:?}"));
                        self.note(ticket, &why.because(Reason::TimedOut, "timeout"), Reason::TimedOut);
                    }
                    Why::LeaseLost => tracing::warn!(
                        place = %in_hand.message.origin(),
                        "the lease of its key was lost while its handler ran; the handler is ended"
                    ),
                    Why::Drained => tracing::warn!(
                        place = %in_hand.message.origin(),
                        "the drain's time is over; the handler is ended and the message given back"
                    ),
                }
            }
            Action::Renew(ticket) => {
                let lease = self.held.get(&ticket).and_then(|h| h.lease.clone());
                let (Some(store), Some(lease)) = (self.settings.store.clone(), lease) else { return };
                let by = self.settings.rules.lease;
                self.launch(ticket, Op::Renew, async move {
                    Report::Renewed(store.extend(&lease, by, clock).await)
                });
            }
            Action::Complete(ticket) => {
                let Some(in_hand) = self.held.get(&ticket) else { return };
                let outcome = in_hand.outcome.clone();
                let (Some(store), Some(lease)) = (self.settings.store.clone(), in_hand.lease.clone()) else {
                    return;
                };
                self.launch(ticket, Op::Complete, async move {
                    let mut done = store.complete(&lease, outcome, clock).await;
                    if let Err(error) = &done
                        && error.kind() == ErrorKind::TooLarge
                    {
                        // The effect is done; that must be on record even if its outcome is too large for it.
                        tracing::warn!(key = lease.key(), error = %error.report(), "recorded without its outcome");
                        done = store.complete(&lease, Bytes::new(), clock).await;
                    }
                    Report::Completed(done)
                });
            }
            Action::Bury(ticket) => {
                let Some(in_hand) = self.held.get(&ticket) else { return };
                let Some(letters) = self.settings.dead_letters.clone() else { return };
                let obituary = obituary(in_hand, self.machine.attempts(ticket), clock);
                let publish = letters.publish(&in_hand.delivery, &obituary);
                self.spawn(ticket, Op::Bury, Box::pin(async move { Report::Buried(publish.await) }));
            }
            Action::Release(ticket) => {
                let lease = self.held.get_mut(&ticket).and_then(|h| h.lease.take());
                let (Some(store), Some(lease)) = (self.settings.store.clone(), lease) else {
                    self.reports.push((ticket, Report::Released(Ok(()))));
                    return;
                };
                self.launch(
                    ticket,
                    Op::Release,
                    async move { Report::Released(store.release(&lease).await) },
                );
            }
            Action::Settle(ticket, fate) => self.settle(ticket, fate),
        }
    }

    fn settle(&mut self, ticket: Ticket, fate: Fate) {
        let Some(in_hand) = self.held.remove(&ticket) else { return };
        let place = in_hand.message.origin();
        let why = in_hand.failure.as_ref().map_or("", |f| f.message.as_str());
        match fate {
            Fate::Handled => {}
            Fate::Duplicate => tracing::debug!(%place, "done before; acknowledged"),
            Fate::Skipped => tracing::warn!(%place, why, "skipped"),
            Fate::DeadLettered => {
                let to = self.settings.dead_letters.as_ref().map(|l| l.name()).unwrap_or_default();
                tracing::warn!(%place, to, why, "dead-lettered");
            }
            Fate::GivenBack => tracing::debug!(%place, "given back"),
            Fate::Failed => {
                tracing::error!(%place, why, "ends the run; it is not acknowledged and comes again");
                if self.machine.culprit() == Some(ticket) && self.error.is_none() {
                    let text = format!("{place}: {why}; it is not acknowledged and comes again");
                    self.error = Some(Error::new(ErrorKind::Handler, text));
                }
            }
        }
        if let Some(task) = in_hand.abort {
            task.abort();
        }
        if fate.acks() {
            in_hand.delivery.ack();
        }
    }

    /// Runs an operation of the store: at once where it need not wait, as a task where it must.
    fn launch(&mut self, ticket: Ticket, op: Op, work: impl Future<Output = Report> + Send + 'static) {
        let mut work: BoxFuture<Report> = Box::pin(work);
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(report) => self.reports.push((ticket, report)),
            Poll::Pending => self.spawn(ticket, op, work),
        }
    }

    fn spawn(&mut self, ticket: Ticket, op: Op, work: BoxFuture<Report>) {
        let task = self.tasks.spawn(work);
        self.ids.insert(task.id(), (ticket, op));
    }

    fn joined(&mut self, joined: Result<(Id, Report), JoinError>) {
        let id = joined.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((ticket, op)) = self.ids.remove(&id) else { return };
        match joined {
            Ok((_, report)) => self.heard(ticket, report),
            Err(error) => self.broke(ticket, op, error),
        }
    }

    /// A task ended without a report: aborted, or by a panic.
    fn broke(&mut self, ticket: Ticket, op: Op, error: JoinError) {
        let text = match error.try_into_panic() {
            Ok(panic) => format!("panicked: {}", panic_text(panic.as_ref())),
            Err(_) => String::new(),
        };
        let fault = |what: &str| Error::new(ErrorKind::Internal, format!("{what} {text}")).retryable(true);
        let report = match op {
            Op::Run if text.is_empty() => return self.machine.handle_ended(ticket, Ended::Aborted, now()),
            Op::Run => {
                Report::Ended(Err(HandlerError::retry(format!("the handler {text}"))
                    .because(Reason::RetriesExhausted, "panic")))
            }
            Op::Claim => Report::Claimed(Err(fault("the idempotency store"))),
            Op::Complete => Report::Completed(Err(fault("the idempotency store"))),
            Op::Renew => Report::Renewed(Err(fault("the idempotency store"))),
            Op::Release => Report::Released(Err(fault("the idempotency store"))),
            Op::Bury => Report::Buried(Err(fault("the dead letters' publisher"))),
        };
        self.heard(ticket, report);
    }

    fn heard(&mut self, ticket: Ticket, report: Report) {
        match report {
            Report::Claimed(claim) => {
                let answer = self.claimed(ticket, claim);
                self.machine.handle_claimed(ticket, answer, now());
            }
            Report::Ended(result) => {
                let ended = match result {
                    Ok(outcome) => {
                        if let Some(in_hand) = self.held.get_mut(&ticket) {
                            in_hand.outcome = outcome.0;
                        }
                        Ended::Ok
                    }
                    Err(why) => {
                        let reason = match why.class() {
                            Class::Retry => Reason::RetriesExhausted,
                            Class::Reject | Class::Ignore | Class::Stop => Reason::NotRetryable,
                        };
                        self.note(ticket, &why, reason);
                        Ended::Failed(why.class())
                    }
                };
                self.machine.handle_ended(ticket, ended, now());
            }
            Report::Completed(result) => {
                let answer = self.kept(ticket, result.map(|()| None), "complete");
                self.machine.handle_completed(ticket, answer, now());
            }
            Report::Renewed(result) => {
                let answer = self.kept(ticket, result.map(Some), "extend the lease of");
                self.machine.handle_renewed(ticket, answer, now());
            }
            Report::Buried(result) => {
                let answer = self.buried(ticket, result);
                self.machine.handle_buried(ticket, answer, now());
            }
            Report::Released(result) => {
                if let Err(error) = result {
                    tracing::debug!(error = %error.report(), "a key was not released; its lease ends by itself");
                }
                self.machine.handle_released(ticket);
            }
        }
    }

    fn claimed(&mut self, ticket: Ticket, claim: Result<Claim>) -> Claimed {
        let Some(in_hand) = self.held.get_mut(&ticket) else {
            // Given back while the claim was under way; the lease ends by itself.
            return Claimed::Away;
        };
        match claim {
            Ok(Claim::Claimed(lease)) => {
                if lease.takeovers() > 0 {
                    tracing::warn!(
                        place = %in_hand.message.origin(), key = lease.key(), takeovers = lease.takeovers(),
                        "an earlier holder of its key did not finish: a part of the effect may be there"
                    );
                }
                in_hand.lease = Some(lease);
                Claimed::Yes
            }
            Ok(Claim::Done { outcome, .. }) => {
                if let Some(look) = &self.settings.on_duplicate {
                    look(&in_hand.message, &outcome);
                }
                Claimed::Done
            }
            Ok(Claim::Held { until }) => {
                let left = until.get().saturating_sub((self.settings.clock)().get());
                Claimed::Held(
                    Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(self.settings.rules.lease),
                )
            }
            Err(error) => match error.kind() {
                // About this key or payload, not about the store.
                kind @ (ErrorKind::PayloadMismatch | ErrorKind::Config | ErrorKind::TooLarge) => {
                    let reason = match kind {
                        ErrorKind::PayloadMismatch => Reason::PayloadMismatch,
                        _ => Reason::NotRetryable,
                    };
                    let why = HandlerError::reject(error.report()).because(reason, kind.as_str());
                    self.note(ticket, &why, reason);
                    Claimed::Refused
                }
                _ => {
                    self.store_failed(&error, "claim");
                    Claimed::Away
                }
            },
        }
    }

    fn kept(&mut self, ticket: Ticket, result: Result<Option<Lease>>, what: &'static str) -> Kept {
        match result {
            Ok(lease) => {
                if let (Some(in_hand), Some(lease)) = (self.held.get_mut(&ticket), lease) {
                    in_hand.lease = Some(lease);
                }
                Kept::Yes
            }
            Err(error) if error.kind() == ErrorKind::Fenced => {
                if let Some(in_hand) = self.held.get(&ticket) {
                    let place = in_hand.message.origin();
                    tracing::warn!(%place, error = %error.report(), "somebody else took its key over; asking the store again");
                }
                Kept::Fenced
            }
            Err(error) => {
                self.store_failed(&error, what);
                Kept::Away
            }
        }
    }

    fn buried(&mut self, ticket: Ticket, result: Result<()>) -> Buried {
        let name = self.settings.dead_letters.as_ref().map(|l| l.name()).unwrap_or_default();
        match result {
            Ok(()) => {
                if self.letters_away {
                    self.letters_away = false;
                    tracing::info!(to = name, "dead letters go through again");
                }
                Buried::Yes
            }
            Err(error) if error.is_retryable() => {
                if !self.letters_away {
                    self.letters_away = true;
                    tracing::error!(to = name, error = %error.report(), "dead letters do not go through; trying again");
                }
                Buried::Away
            }
            Err(error) => {
                let place =
                    self.held.get(&ticket).map(|h| h.message.origin().to_string()).unwrap_or_default();
                let error = error.context(format!(
                    "{place}: its dead letter was not taken by {name}; it is not acknowledged and comes again"
                ));
                self.error.get_or_insert(error);
                Buried::Refused
            }
        }
    }

    fn store_failed(&mut self, error: &Error, what: &str) {
        if !self.store_away {
            self.store_away = true;
            tracing::error!(error = %error.report(), "cannot {what} a key: the idempotency store is away; taking nothing new");
        }
    }

    /// Keeps what a message failed with.
    fn note(&mut self, ticket: Ticket, why: &HandlerError, reason: Reason) {
        let at = (self.settings.clock)();
        let attempt = self.machine.attempts(ticket);
        let Some(in_hand) = self.held.get_mut(&ticket) else { return };
        if attempt > 0 {
            let place = in_hand.message.origin();
            tracing::debug!(%place, attempt, class = why.class().as_str(), why = why.message(), "failed");
        }
        in_hand.failure = Some(Failure {
            class: why.class(),
            reason: why.reason().unwrap_or(reason),
            word: why.word(),
            message: why.message().to_owned(),
            first: in_hand.failure.as_ref().map_or(at, |f| f.first),
            last: at,
        });
    }

    /// Waits a moment for the handlers that were told to end, then gives up on them.
    async fn wait_for_the_ended(&mut self) {
        let end = tokio::time::Instant::now() + GRACE;
        while self.machine.in_hand() > 0 {
            match tokio::time::timeout_at(end, self.tasks.join_next_with_id()).await {
                Ok(Some(joined)) => self.joined(joined),
                Ok(None) => break,
                Err(_) => {
                    tracing::error!(
                        handlers = self.machine.in_hand(),
                        "handlers do not end (they block their thread); giving their messages back all the same"
                    );
                    break;
                }
            }
            self.turn();
        }
        self.machine.handle_forsaken();
    }
}

fn obituary<D>(in_hand: &InHand<D>, attempts: u32, clock: Timestamp) -> Obituary {
    let failure = in_hand.failure.as_ref();
    Obituary {
        message: in_hand.message.clone(),
        reason: failure.map_or(Reason::NotRetryable, |f| match (f.class, f.reason) {
            (Class::Retry, Reason::NotRetryable) => Reason::RetriesExhausted,
            (_, reason) => reason,
        }),
        error_class: failure.map_or("handler", |f| f.word),
        error_message: failure.map(|f| f.message.clone()).unwrap_or_default(),
        attempts,
        first_failure: failure.map_or(clock, |f| f.first),
        last_failure: failure.map_or(clock, |f| f.last),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned())
}
