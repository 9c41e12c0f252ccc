//! The public side: a producer of transactions, and an open transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::machine::{Machine, Settings};
use super::state::{Inner, Transactions, stopped};
use super::{Committing, GroupMetadata, Protocol, driver};
use crate::kafka::client::{LONGEST, lock};
use crate::kafka::producer::{Placed, Producer, ProducerBuilder, Queued, Record};
use crate::{Error, ErrorKind, LeaderEpoch, Offset, Partition, ProducerEpoch, ProducerId, Result, Topic};

/// The settings of a [`TransactionalProducer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct TransactionalProducerBuilder {
    producer: ProducerBuilder,
    id: String,
    timeout: Duration,
}

impl TransactionalProducerBuilder {
    pub(crate) fn new(producer: ProducerBuilder, id: String) -> Self {
        Self { producer, id, timeout: Duration::from_secs(60) }
    }

    /// How long a transaction may stay open before its coordinator aborts it. Default 60 s, as in the Java client; from
    /// 1 ms to the broker's `transaction.max.timeout.ms` (15 minutes). Readers of committed records wait as long for a
    /// producer that died.
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Checks the settings, starts the producer's two tasks on the current runtime and asks for its epoch: an older
    /// producer with this transactional id is fenced, and what it left open is aborted.
    ///
    /// Cancel safe, though the older producer may be fenced all the same.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] as for [`ProducerBuilder::build`], for an empty transactional id, a timeout out of range, and
    /// idempotence that is off; [`ErrorKind::Denied`]; [`ErrorKind::Unsupported`] before Kafka 2.5;
    /// [`ErrorKind::Timeout`] where no coordinator answers within `max_block`.
    pub async fn build(self) -> Result<TransactionalProducer> {
        let config = |text: String| Err(Error::new(ErrorKind::Config, text));
        self.producer.check()?;
        if self.id.is_empty() || self.id.len() > 32_767 {
            return config(format!(
                "the transactional id has {} bytes; it must have from 1 to 32,767",
                self.id.len()
            ));
        }
        if !self.producer.is_idempotent() {
            return config("idempotence is off; transactions need it".to_owned());
        }
        if self.timeout < Duration::from_millis(1) || self.timeout.as_millis() > i32::MAX as u128 {
            return config(format!(
                "transaction_timeout is {:?}; it must be from 1 ms to {:?}",
                self.timeout,
                Duration::from_millis(i32::MAX as u64)
            ));
        }
        let patience = self.producer.longest_block();
        let settings = Settings { id: self.id.clone(), timeout: self.timeout, patience };
        let mut machine = Machine::new(settings, Protocol::V1);
        machine.handle_init();
        let state = Arc::new(Transactions::new(self.id, machine));
        let producer = self.producer.start(ProducerId::NONE, ProducerEpoch::NONE, Some(Arc::clone(&state)));
        spawn(&producer, &state, self.timeout);
        let built = TransactionalProducer { producer, state, patience };
        built.when_ready("a producer id", |_| Ok(())).await?;
        Ok(built)
    }
}

#[allow(clippy::disallowed_methods, reason = "the driver's task")]
fn spawn(producer: &Producer, state: &Arc<Transactions>, timeout: Duration) {
    tokio::spawn(driver::run(Arc::clone(&producer.handle.shared), Arc::clone(state), timeout));
}

#[allow(clippy::disallowed_methods, reason = "the moment of a call")]
fn now() -> Instant {
    Instant::now()
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionEnd {
    /// All of it counts.
    Committed,
    /// Nothing of it counts.
    Aborted,
    /// Nobody can tell: the answer to its commit was lost, and then another producer took the transactional id.
    Unknown,
}

/// A producer whose records are written in transactions: all records and offsets of one count, or none (KIP-98).
///
/// It writes only within a [`Transaction`], one at a time. Readers see records of a transaction once it is committed, if
/// they ask for committed ones ([`Isolation::ReadCommitted`](crate::kafka::Isolation::ReadCommitted)). The broker's
/// protocol is the newer (KIP-890: late requests of one transaction cannot fall into the next) where the cluster's
/// `transaction.version` is 2, else the older, in which the producer takes a new epoch after everything that may
/// arrive late. Dropped, it ends what is on its way and then its tasks.
///
/// ```no_run
/// # async fn f(client: muslin::kafka::Client) -> muslin::Result<()> {
/// use muslin::Topic;
/// use muslin::kafka::Record;
///
/// let mut producer = client.transactional_producer("orders-1").build().await?;
/// let transaction = producer.begin().await?;
/// let _ = transaction.enqueue(Record::to_topic(Topic::new("orders")?).value("new")).await?;
/// let _ = transaction.enqueue(Record::to_topic(Topic::new("bills")?).value("new")).await?;
/// transaction.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TransactionalProducer {
    producer: Producer,
    state: Arc<Transactions>,
    patience: Duration,
}

impl Drop for TransactionalProducer {
    fn drop(&mut self) {
        self.end_forgotten();
        self.state.closing.store(true, Ordering::Release);
        self.state.wake.notify_one();
    }
}

impl TransactionalProducer {
    /// A transaction that was forgotten (`mem::forget`) is over: nobody can reach it any more.
    fn end_forgotten(&self) {
        let mut inner = self.state.lock();
        if inner.machine.is_open() {
            inner.machine.handle_end(false, true);
            self.state.wake.notify_one();
        }
    }

    /// Opens a transaction, once the one before has its end; it waits at most `max_block` (60 s) for that. Nothing is
    /// sent for it.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`]: another producer has the transactional id, or the coordinator was lost just as it gave this one
    /// a new epoch, which the next one cannot tell apart. [`ErrorKind::Denied`], and other errors that stay: build another
    /// producer. [`ErrorKind::Timeout`]: the end of the last transaction is still not known; call
    /// again, [`last_end`](Self::last_end) tells it then. [`ErrorKind::Closed`].
    pub async fn begin(&mut self) -> Result<Transaction<'_>> {
        self.end_forgotten();
        let accumulator = &self.producer.handle.shared.accumulator;
        let begin = |inner: &mut Inner| self.state.begin(inner, accumulator);
        let number = self.when_ready("the end of the last transaction", begin).await?;
        Ok(Transaction { producer: self, number, touched: false.into(), ended: false })
    }

    /// Waits until a transaction may begin; `what` says what keeps it.
    async fn when_ready<T>(&self, what: &str, then: impl Fn(&mut Inner) -> Result<T>) -> Result<T> {
        let state = &*self.state;
        let look = state.until(|inner| {
            if let Some(e) = inner.machine.fatal() {
                return Some(Err(e.duplicate()));
            }
            if inner.gone || state.closing.load(Ordering::Acquire) {
                return Some(Err(stopped()));
            }
            inner.machine.is_ready().then(|| then(inner))
        });
        match tokio::time::timeout(self.patience, look).await {
            Ok(found) => found,
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "{what} of the transactional id {} took longer than {:?} (max_block)",
                    state.id(),
                    self.patience
                ),
            )),
        }
    }

    /// What became of the last transaction that has its end; `None` before the first. After a commit that failed with
    /// an [ambiguous](Error::is_ambiguous) error, the next [`begin`](Self::begin) waits until this is known, and
    /// [`Transaction::previous_end`] tells it.
    #[must_use]
    pub fn last_end(&self) -> Option<TransactionEnd> {
        self.state.lock().last.as_ref().map(|ended| match ended.committed {
            Some(true) => TransactionEnd::Committed,
            Some(false) => TransactionEnd::Aborted,
            None => TransactionEnd::Unknown,
        })
    }

    /// Ends what is on its way and then the producer's tasks.
    ///
    /// Cancel safe: dropped, the producer goes on closing without a deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] where the last transaction had no end at the deadline; ambiguous where it may be committed.
    pub async fn close(self, deadline: Duration) -> Result<()> {
        self.end_forgotten();
        let state = &*self.state;
        state.closing.store(true, Ordering::Release);
        state.wake.notify_one();
        let end = now() + deadline.min(LONGEST);
        let gone = state.until(|inner| inner.gone.then_some(()));
        if tokio::time::timeout_at(end, gone).await.is_ok() {
            return self.producer.close(end.saturating_duration_since(now())).await;
        }
        let unsure = state.lock().machine.is_unsure();
        state.abort.store(true, Ordering::Release);
        state.wake.notify_one();
        let _ = self.producer.close(Duration::ZERO).await;
        let e = Error::new(
            ErrorKind::Timeout,
            format!("the last transaction of {} had no end after {deadline:?}", state.id()),
        );
        Err(if unsure { e.ambiguous() } else { e })
    }
}

/// An open transaction. Dropped without [`commit`](Self::commit), it is aborted in the background, and the producer's
/// next [`begin`](TransactionalProducer::begin) waits for that.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is aborted"]
pub struct Transaction<'a> {
    producer: &'a mut TransactionalProducer,
    number: u64,
    /// A record was queued.
    touched: AtomicBool,
    ended: bool,
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.end(false);
        }
    }
}

impl Transaction<'_> {
    /// Puts a record into the batch of its partition, as [`Producer::enqueue`] does. Its outcome tells that it is
    /// written; it counts once the transaction is committed, and commit waits for it.
    ///
    /// Cancel safe: dropped before it is done, the record is not queued.
    ///
    /// # Errors
    /// As `Producer::enqueue`. Once a record of the transaction has failed, all others do: it can only be aborted.
    pub async fn enqueue(&self, record: Record<'_>) -> Result<Queued> {
        self.producer.state.check()?;
        let queued = self.producer.producer.enqueue(record).await?;
        self.touched.store(true, Ordering::Release);
        Ok(queued)
    }

    /// [`enqueue`](Self::enqueue), then wait until the record is written.
    ///
    /// Dropped before it is done, the record may or may not belong to the transaction.
    ///
    /// # Errors
    /// As `enqueue`; then what the record failed for.
    pub async fn send(&self, record: Record<'_>) -> Result<Placed> {
        self.enqueue(record).await?.await
    }

    /// What became of the transaction before this one, now that it is known; `None` for the first. So it is told what an
    /// [ambiguous](Error::is_ambiguous) commit came to.
    #[must_use]
    pub fn previous_end(&self) -> Option<TransactionEnd> {
        self.producer.last_end()
    }

    /// Commits these offsets of a group with the transaction, so that what was read and what was written of it count
    /// together (KIP-447). Each is the next record to be read. Waits until the group's coordinator has taken them, at most
    /// `max_block`.
    ///
    /// Dropped before it is done, they may or may not belong to the transaction.
    ///
    /// # Errors
    /// The transaction can only be aborted after any. [`ErrorKind::Conflict`]: the group has other members, or moved on
    /// from this one. [`ErrorKind::Denied`], [`ErrorKind::Timeout`]. [`ErrorKind::Unavailable`]: the answer to offsets
    /// of this group in this transaction was lost before; older offsets could come after these.
    pub async fn send_offsets(
        &self,
        group: &GroupMetadata,
        offsets: impl IntoIterator<Item = ((Topic, Partition), Offset)>,
    ) -> Result<()> {
        let committing =
            |offset| Committing { offset, leader_epoch: LeaderEpoch::UNKNOWN, metadata: String::new() };
        let entries: Vec<_> =
            offsets.into_iter().map(|(place, offset)| (place, committing(offset))).collect();
        if group.group().is_empty() {
            return Err(Error::new(ErrorKind::Config, "the group's name is empty; give it one"));
        }
        let state = &*self.producer.state;
        state.check()?;
        if entries.is_empty() {
            return Ok(());
        }
        let told = {
            let mut inner = state.lock();
            if inner.gone {
                return Err(stopped());
            }
            let result = inner.machine.handle_offsets(group.clone(), entries, now().into_std());
            state.pump(&mut inner, &self.producer.producer.handle.shared.accumulator, now());
            let (sender, told) = oneshot::channel();
            inner.waiting.insert(result?, sender);
            told
        };
        state.wake.notify_one();
        told.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Sends what is queued, waits until it is written, and commits. After any error that is not
    /// [ambiguous](Error::is_ambiguous) the transaction is aborted: nothing of it counts.
    ///
    /// Begun, it goes on when it is dropped: the producer's task owns it, and the next `begin` waits for its end, which
    /// [`previous_end`](Self::previous_end) tells then. A lost answer is asked for again until it is known.
    ///
    /// # Errors
    /// What the first record failed for. [`ErrorKind::Timeout`]: the coordinator aborted a transaction that was open
    /// longer than its timeout; ambiguous where the coordinator did not answer within `max_block` (and the producer goes on
    /// asking). [`ErrorKind::Fenced`]: another producer has the transactional id; ambiguous where the answer to the
    /// commit was lost before. [`ErrorKind::Denied`] and others: the producer can do nothing more.
    pub async fn commit(mut self) -> Result<()> {
        self.finish(true).await
    }

    /// Gives up what is queued, and aborts. Nothing of the transaction counts.
    ///
    /// Cancel safe as [`commit`](Self::commit).
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`], [`ErrorKind::Denied`] and others: the producer can do nothing more.
    /// [`ErrorKind::Timeout`]: the coordinator did not answer within `max_block`; the producer goes on asking. In each
    /// case the transaction is never committed.
    pub async fn abort(mut self) -> Result<()> {
        self.finish(false).await
    }

    fn end(&mut self, commit: bool) {
        self.ended = true;
        let state = &*self.producer.state;
        let mut inner = state.lock();
        inner.machine.handle_end(commit, self.touched.load(Ordering::Acquire));
        state.pump(&mut inner, &self.producer.producer.handle.shared.accumulator, now());
        drop(inner);
        state.wake.notify_one();
    }

    async fn finish(&mut self, commit: bool) -> Result<()> {
        self.end(commit);
        let (state, number, patience) = (&*self.producer.state, self.number, self.producer.patience);
        let doubtful = |e: Error| if commit { e.ambiguous() } else { e };
        let told = state.until(|inner| {
            if let Some(ended) = inner.last.as_ref().filter(|ended| ended.number == number) {
                return Some(match &ended.result {
                    Ok(()) => Ok(()),
                    Err(e) => Err(e.duplicate()),
                });
            }
            inner.gone.then(|| Err(doubtful(stopped())))
        });
        // Its records have their own time first.
        let accumulator = &self.producer.producer.handle.shared.accumulator;
        let drained = async {
            let pending = lock(accumulator).pending();
            for completion in pending {
                // Each record's outcome tells its own.
                let _ = completion.settled().await;
            }
            // Nothing ends this wait but its limit.
            let _ = tokio::time::timeout(patience, std::future::pending::<()>()).await;
        };
        tokio::select! {
            biased;
            told = told => told,
            () = drained => Err(doubtful(Error::new(
                ErrorKind::Timeout,
                format!(
                    "the end of a transaction of {} was not confirmed within {patience:?} (max_block); its producer goes \
                     on asking",
                    state.id()
                ),
            ))),
        }
    }
}
