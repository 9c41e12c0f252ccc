//! One transactional id: its producer, its state, what it has touched.
//!
//! ```text
//!             InitProducerId           partitions or group added
//!  (absent) ----------------> Empty ------------------------------> Ongoing <--+
//!                               ^ |                                  |    |    | added
//!                InitProducerId | | EndTxn v5 abort           commit |    | abort, timeout,
//!                               | +-------------------+              |    | InitProducerId of another (fences)
//!             CompleteCommit ---+                     v              v    v
//!             CompleteAbort            PrepareAbort <------------  PrepareCommit | PrepareAbort
//!                  ^                       |                              |
//!                  +----- markers written -+------------------------------+
//!
//!  Empty, CompleteCommit, CompleteAbort --idle for transactional.id.expiration.ms--> Dead: forgotten
//! ```
//!
//! While it is `Prepare*`, everything is answered CONCURRENT_TRANSACTIONS. Transactions version 1 keeps the epoch at an
//! end; version 2 (KIP-890, a client that ends with EndTxn v5) raises it at every end, so that no late request of the
//! last transaction falls into the next. The largest epoch a client ever sees is `i16::MAX - 1`; the one above is left
//! for the fence, and the next producer id begins at epoch 0.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError as Code;

use crate::{ProducerEpoch, ProducerId};

/// From this epoch on a producer needs a new producer id.
const EXHAUSTED: ProducerEpoch = ProducerEpoch(i16::MAX - 1);

/// A producer: who it is, and which incarnation.
pub(in crate::embedded::kafka) type Producer = (ProducerId, ProducerEpoch);

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::embedded::kafka) enum State {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

impl State {
    /// The states' names, as the real broker writes them; two of them no client can see here.
    pub(in crate::embedded::kafka) const NAMES: [&'static str; 8] = [
        "Empty",
        "Ongoing",
        "PrepareCommit",
        "PrepareAbort",
        "CompleteCommit",
        "CompleteAbort",
        "Dead",
        "PrepareEpochFence",
    ];

    pub(in crate::embedded::kafka) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// The decision is made, its markers are on their way.
    fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// What was touched within a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::embedded::kafka) struct Touched {
    pub(in crate::embedded::kafka) partitions: BTreeSet<(String, i32)>,
    pub(in crate::embedded::kafka) groups: BTreeSet<String>,
}

impl Touched {
    pub(in crate::embedded::kafka) fn len(&self) -> usize {
        self.partitions.len() + self.groups.len()
    }
}

/// What a client asks to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded::kafka) enum Part<'a> {
    Partition(&'a str, i32),
    Group(&'a str),
}

/// One transactional id.
#[derive(Debug, Clone)]
pub(in crate::embedded::kafka) struct Transaction {
    state: State,
    producer: Producer,
    /// Before the producer id was replaced.
    previous: ProducerId,
    /// What an EndTxn that used the producer id up will continue with.
    next: Option<ProducerId>,
    /// The epoch before the last raise that the client asked for itself.
    last_epoch: ProducerEpoch,
    timeout: Duration,
    touched: Touched,
    /// When its transaction began.
    started: Option<Instant>,
    updated: Instant,
}

impl Transaction {
    /// A new transactional id. Its first [`init`](Self::init) gives it epoch 0.
    pub(super) fn new(producer: ProducerId, timeout: Duration, now: Instant) -> Self {
        Self {
            state: State::Empty,
            producer: (producer, ProducerEpoch::NONE),
            previous: ProducerId::NONE,
            next: None,
            last_epoch: ProducerEpoch::NONE,
            timeout,
            touched: Touched::default(),
            started: None,
            updated: now,
        }
    }

    pub(in crate::embedded::kafka) fn state(&self) -> State {
        self.state
    }

    pub(in crate::embedded::kafka) fn producer(&self) -> Producer {
        self.producer
    }

    pub(in crate::embedded::kafka) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// When its transaction began; the last one, where none is open.
    pub(in crate::embedded::kafka) fn started(&self) -> Option<Instant> {
        self.started
    }

    pub(in crate::embedded::kafka) fn touched(&self) -> &Touched {
        &self.touched
    }

    fn is_exhausted(&self) -> bool {
        self.producer.1 >= EXHAUSTED
    }

    /// InitProducerId (KIP-98; with `expected` KIP-360). Where a transaction is open, it is aborted and its producer
    /// fenced, and the caller is to ask again.
    ///
    /// # Errors
    /// CONCURRENT_TRANSACTIONS or PRODUCER_FENCED.
    pub(super) fn init(
        &mut self,
        expected: Option<Producer>,
        timeout: Duration,
        new_id: &mut dyn FnMut() -> ProducerId,
        now: Instant,
    ) -> Result<Producer, Code> {
        let (id, epoch) = self.producer;
        if self.state.is_prepared() {
            return Err(Code::ConcurrentTransactions);
        }
        if let Some((theirs, their_epoch)) = expected {
            // An epoch of none: the id was forgotten and made anew just now.
            let retry_of_exhausted = theirs == self.previous && their_epoch >= EXHAUSTED;
            if epoch != ProducerEpoch::NONE && theirs != id && !retry_of_exhausted {
                return Err(Code::ProducerFenced);
            }
        }
        if self.state == State::Ongoing {
            self.fence(now);
            return Err(Code::ConcurrentTransactions);
        }
        let (producer, last) = if self.is_exhausted() && expected.is_none_or(|(_, theirs)| theirs == epoch) {
            let last = if expected.is_some() { epoch } else { ProducerEpoch::NONE };
            self.previous = id;
            ((new_id(), ProducerEpoch(0)), last)
        } else {
            let raised = (id, ProducerEpoch(epoch.0.saturating_add(1)));
            match expected {
                None => (raised, ProducerEpoch::NONE),
                Some((_, theirs)) if epoch == ProducerEpoch::NONE || theirs == epoch => (raised, epoch),
                // A repeated request whose answer was lost.
                Some((_, theirs)) if theirs == self.last_epoch => (self.producer, self.last_epoch),
                Some(_) => return Err(Code::ProducerFenced),
            }
        };
        self.producer = producer;
        self.last_epoch = last;
        self.timeout = timeout;
        self.state = State::Empty;
        self.started = None;
        self.updated = now;
        Ok(self.producer)
    }

    fn check(&self, producer: Producer) -> Result<(), Code> {
        if producer.0 != self.producer.0 {
            Err(Code::InvalidProducerIdMapping)
        } else if producer.1 != self.producer.1 {
            Err(Code::ProducerFenced)
        } else if self.state.is_prepared() {
            Err(Code::ConcurrentTransactions)
        } else {
            Ok(())
        }
    }

    /// Is the part within the transaction?
    ///
    /// # Errors
    /// INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS; TRANSACTION_ABORTABLE where it is not.
    pub(super) fn verify(&self, producer: Producer, part: Part<'_>) -> Result<(), Code> {
        self.check(producer)?;
        if self.state == State::Ongoing && self.holds(part) {
            Ok(())
        } else {
            Err(Code::TransactionAbortable)
        }
    }

    fn holds(&self, part: Part<'_>) -> bool {
        match part {
            Part::Group(group) => self.touched.groups.contains(group),
            Part::Partition(topic, n) => {
                // A set of pairs is asked with a pair; names are short.
                self.touched.partitions.contains(&(topic.to_owned(), n))
            }
        }
    }

    /// Adds what a client is about to write to, and begins the transaction where none is open.
    ///
    /// # Errors
    /// INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS; POLICY_VIOLATION for more than `limit`
    /// parts.
    pub(super) fn add(
        &mut self,
        producer: Producer,
        parts: &[Part<'_>],
        limit: usize,
        now: Instant,
    ) -> Result<(), Code> {
        self.check(producer)?;
        if self.state == State::Ongoing && parts.iter().all(|part| self.holds(*part)) {
            return Ok(());
        }
        if self.touched.len().saturating_add(parts.len()) > limit {
            return Err(Code::PolicyViolation);
        }
        for part in parts {
            match *part {
                Part::Partition(topic, n) => drop(self.touched.partitions.insert((topic.to_owned(), n))),
                Part::Group(group) => drop(self.touched.groups.insert(group.to_owned())),
            }
        }
        if self.state != State::Ongoing {
            self.state = State::Ongoing;
            self.started = Some(now);
        }
        self.updated = now;
        Ok(())
    }

    /// EndTxn: `bumps` with transactions version 2 (EndTxn v5). Gives back with which producer the client goes on. The
    /// state is `Prepare*` afterwards, unless the request was a repeated one.
    ///
    /// # Errors
    /// INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, INVALID_TXN_STATE.
    pub(super) fn end(
        &mut self,
        producer: Producer,
        commit: bool,
        bumps: bool,
        new_id: &mut dyn FnMut() -> ProducerId,
        now: Instant,
    ) -> Result<Producer, Code> {
        let (id, epoch) = self.producer;
        // As the real broker, which so takes the late end of the producer before this one for a repeated one.
        let bumped = bumps && epoch.0 == producer.1.0.saturating_add(1) && id == producer.0;
        let replaced =
            bumps && self.previous == producer.0 && producer.1 == EXHAUSTED && epoch == ProducerEpoch(0);
        let repeated = bumped || replaced;
        if id != producer.0 && !replaced {
            return Err(Code::InvalidProducerIdMapping);
        }
        let fits = match self.state {
            _ if !bumps => producer.1 == epoch,
            State::Empty | State::Ongoing => producer.1 == epoch,
            State::PrepareCommit | State::PrepareAbort => bumped,
            State::CompleteCommit | State::CompleteAbort => repeated || producer.1 == epoch,
        };
        if !fits {
            return Err(Code::ProducerFenced);
        }
        match (self.state, commit) {
            (State::Ongoing, _) => {}
            (State::PrepareCommit, true) | (State::PrepareAbort, false) => {
                return Err(Code::ConcurrentTransactions);
            }
            (State::CompleteCommit, true) | (State::CompleteAbort, false) if repeated || !bumps => {
                return Ok(self.producer);
            }
            // With version 2 an abort of nothing is fine: the client cannot know whether its adds arrived.
            (State::Empty | State::CompleteCommit | State::CompleteAbort, false) if bumps && !repeated => {
                self.started = Some(now);
            }
            _ => return Err(Code::InvalidTxnState),
        }
        if bumps {
            self.next = self.is_exhausted().then(new_id);
            self.raise();
            self.last_epoch = producer.1;
        }
        self.state = if commit { State::PrepareCommit } else { State::PrepareAbort };
        self.updated = now;
        Ok(self.next.map_or(self.producer, |next| (next, ProducerEpoch(0))))
    }

    /// Aborts an open transaction and fences its producer: it timed out, or another came.
    pub(super) fn fence(&mut self, now: Instant) {
        // It may begin anew by saying who it was (KIP-360), unless another came.
        self.last_epoch = self.producer.1;
        self.raise();
        self.state = State::PrepareAbort;
        self.updated = now;
    }

    fn raise(&mut self) {
        self.producer.1 = ProducerEpoch(self.producer.1.0.saturating_add(1));
    }

    /// What markers are to be written, where the decision is made: `(producer, commit)`.
    pub(super) fn decided(&self) -> Option<(Producer, bool)> {
        self.state.is_prepared().then_some((self.producer, self.state == State::PrepareCommit))
    }

    /// These have their markers.
    pub(super) fn forget(&mut self, written: &Touched) {
        self.touched.partitions.retain(|part| !written.partitions.contains(part));
        self.touched.groups.retain(|group| !written.groups.contains(group));
    }

    /// A topic is gone.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.touched.partitions.retain(|(name, _)| name != topic);
    }

    /// All markers are written.
    pub(super) fn complete(&mut self, now: Instant) {
        self.state = match self.state {
            State::PrepareCommit => State::CompleteCommit,
            State::PrepareAbort => State::CompleteAbort,
            _ => return,
        };
        if let Some(next) = self.next.take() {
            self.previous = self.producer.0;
            self.producer = (next, ProducerEpoch(0));
        } else {
            self.previous = self.producer.0;
        }
        self.touched = Touched::default();
        self.updated = now;
    }

    /// When time alone changes it: the transaction times out, or the idle id is forgotten.
    pub(super) fn deadline(&self, expiry: Duration) -> Option<Instant> {
        match self.state {
            State::Ongoing => self.started?.checked_add(self.timeout),
            State::PrepareCommit | State::PrepareAbort => None,
            State::Empty | State::CompleteCommit | State::CompleteAbort => self.updated.checked_add(expiry),
        }
    }
}
