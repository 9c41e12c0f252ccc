//! What a transactional producer, its sender and its driver share: the machine behind one lock.
//!
//! Locks are taken in one order: this one, then the accumulator's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::machine::{Ended, Event, Machine};
use super::{Place, Protocol};
use crate::kafka::client::lock;
use crate::kafka::producer::accumulator::{Accumulator, Resolved};
use crate::{Error, ErrorKind, Result};

/// Behind the lock.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) machine: Machine,
    /// The end of the last transaction that has one.
    pub(super) last: Option<Ended>,
    /// Those that wait for offsets to be taken.
    pub(super) waiting: HashMap<u64, oneshot::Sender<Result<()>>>,
    /// The driver has ended.
    pub(super) gone: bool,
}

/// The shared state.
#[derive(Debug)]
pub(crate) struct Transactions {
    id: String,
    inner: Mutex<Inner>,
    /// The driver has something to do.
    pub(super) wake: Notify,
    /// The machine's state is another.
    pub(super) changed: Notify,
    /// No transaction is begun any more.
    pub(super) closing: AtomicBool,
    /// What is not done is given up.
    pub(super) abort: AtomicBool,
    /// The open transaction can only be aborted.
    doomed: AtomicBool,
    v2: AtomicBool,
}

impl Transactions {
    pub(super) fn new(id: String, machine: Machine) -> Self {
        let inner = Inner { machine, last: None, waiting: HashMap::new(), gone: false };
        Self {
            id,
            inner: Mutex::new(inner),
            wake: Notify::new(),
            changed: Notify::new(),
            closing: false.into(),
            abort: false.into(),
            doomed: false.into(),
            v2: false.into(),
        }
    }

    /// The transactional id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Of the open transaction.
    pub(crate) fn protocol(&self) -> Protocol {
        if self.v2.load(Ordering::Acquire) { Protocol::V2 } else { Protocol::V1 }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Batches have their outcome; the accumulator's lock is free.
    pub(crate) fn handle_resolved(&self, resolved: &[Resolved]) {
        let mut failed = resolved.iter().filter_map(Resolved::error).peekable();
        if failed.peek().is_some() {
            let mut inner = self.lock();
            failed.for_each(|e| inner.machine.handle_failed_batch(e));
            self.doomed.store(inner.machine.failure().is_some(), Ordering::Release);
        }
        self.wake.notify_one();
    }

    /// Partitions whose first batch of the transaction waits; the accumulator's lock is free.
    pub(crate) fn handle_additions(&self, additions: Vec<Place>) {
        if !additions.is_empty() {
            self.lock().machine.handle_partitions(additions);
            self.wake.notify_one();
        }
    }

    /// Begins a transaction, where the machine is ready for it.
    pub(super) fn begin(&self, inner: &mut Inner, accumulator: &Mutex<Accumulator>) -> Result<u64> {
        let (number, protocol) = inner.machine.handle_begin()?;
        self.v2.store(protocol == Protocol::V2, Ordering::Release);
        self.doomed.store(false, Ordering::Release);
        lock(accumulator).set_registration(protocol == Protocol::V1);
        Ok(number)
    }

    /// Why the open transaction can only be aborted.
    pub(super) fn check(&self) -> Result<()> {
        if !self.doomed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.lock().machine.failure().map_or(Ok(()), |e| {
            Err(Error::new(e.kind(), format!("the transaction can only be aborted: {}", e.message()))
                .retryable(false)
                .with_source(e.report()))
        })
    }

    /// Tells the accumulator and those that wait what the machine has decided.
    pub(super) fn pump(&self, inner: &mut Inner, accumulator: &Mutex<Accumulator>, now: Instant) {
        // Before anybody hears of it.
        let doomed = inner.machine.failure().is_some();
        let mut changed = self.doomed.swap(doomed, Ordering::AcqRel) != doomed;
        while let Some(event) = inner.machine.poll_event() {
            changed = true;
            match event {
                Event::Identity((id, epoch)) => {
                    lock(accumulator).handle_identity(id, epoch, now.into_std());
                }
                Event::Added(places) => lock(accumulator).handle_added(&places, now.into_std()),
                Event::Offsets(ticket, result) => {
                    if let Some(waiting) = inner.waiting.remove(&ticket) {
                        // Whoever waited may be gone.
                        let _ = waiting.send(result);
                    }
                }
                Event::Ended(ended) => inner.last = Some(ended),
            }
        }
        if changed {
            self.changed.notify_waiters();
        }
    }

    /// Waits until `look` finds something.
    pub(super) async fn until<T>(&self, mut look: impl FnMut(&mut Inner) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

/// The driver ended before this was done.
pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Closed, "the transactional Kafka producer was closed")
}
