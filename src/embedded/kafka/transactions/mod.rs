//! The transaction coordinator (KIP-98, KIP-360, KIP-890) and the producer ids of the cluster.
//!
//! Pure: it knows transactional ids and what they touched. Whoever drives it writes the markers that
//! [`Transactions::poll_markers`] asks for into the partitions' logs, and ends the staged offsets of groups.
//!
//! Left out: two-phase commit (KIP-939, InitProducerId v6). In the real broker the coordinator writes markers after
//! its answer to EndTxn; here they are written before the answer leaves, unless
//! [`TransactionSettings::marker_delay`] holds them back or a partition's leader is away.

mod drive;
#[cfg(test)]
mod tests;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError as Code;

pub(super) use transaction::{Part, Producer, State, Touched, Transaction};

use crate::{ProducerEpoch, ProducerId};

/// How the coordinator behaves.
#[derive(Debug, Clone)]
pub(crate) struct TransactionSettings {
    /// The longest timeout a client may ask for. Default 15 minutes, as the real broker's `transaction.max.timeout.ms`.
    pub(crate) max_timeout: Duration,
    /// An idle transactional id is forgotten after it. Default 7 days, as `transactional.id.expiration.ms`.
    pub(crate) expiry: Duration,
    /// How long the markers of an ended transaction are held back: requests meanwhile meet CONCURRENT_TRANSACTIONS.
    /// Default zero.
    pub(crate) marker_delay: Duration,
    /// Transactional ids known at once; one more is refused with POLICY_VIOLATION. Default 10,000.
    pub(crate) max_ids: usize,
    /// Partitions and groups of one transaction; one more is refused with POLICY_VIOLATION. Default 10,000.
    pub(crate) max_parts: usize,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self {
            max_timeout: Duration::from_secs(15 * 60),
            expiry: Duration::from_secs(7 * 24 * 3600),
            marker_delay: Duration::ZERO,
            max_ids: 10_000,
            max_parts: 10_000,
        }
    }
}

/// The markers that an ended transaction needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Markers {
    pub(super) transactional_id: String,
    pub(super) producer: Producer,
    pub(super) commit: bool,
    pub(super) touched: Touched,
}

/// What an InitProducerId asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Init<'a> {
    pub(super) transactional_id: &'a str,
    /// Milliseconds, as the wire has them.
    pub(super) timeout_ms: i32,
    /// Who the client believes to be (KIP-360).
    pub(super) expected: Option<Producer>,
}

/// All transactional ids of the cluster, and its producer ids.
#[derive(Debug, Clone)]
pub(super) struct Transactions {
    settings: TransactionSettings,
    known: BTreeMap<String, Transaction>,
    /// When each id next changes by time alone, or its markers fall due.
    due: BTreeSet<(Instant, String)>,
    due_of: BTreeMap<String, Instant>,
    next_id: i64,
}

impl Transactions {
    pub(super) fn new(settings: TransactionSettings) -> Self {
        Self { settings, known: BTreeMap::new(), due: BTreeSet::new(), due_of: BTreeMap::new(), next_id: 0 }
    }

    /// A producer id that nobody had.
    pub(super) fn new_producer_id(&mut self) -> ProducerId {
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        ProducerId(id)
    }

    /// Sets when the markers of an ended transaction are written: zero is at once. It holds from the next end on.
    pub(super) fn set_marker_delay(&mut self, delay: Duration) {
        self.settings.marker_delay = delay;
    }

    /// InitProducerId with a transactional id.
    ///
    /// # Errors
    /// INVALID_REQUEST, INVALID_TRANSACTION_TIMEOUT, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, POLICY_VIOLATION.
    pub(super) fn init(&mut self, init: Init<'_>, now: Instant) -> Result<Producer, Code> {
        let id = init.transactional_id;
        if id.is_empty() {
            return Err(Code::InvalidRequest);
        }
        let timeout = u64::try_from(init.timeout_ms).map(Duration::from_millis);
        let timeout = timeout
            .ok()
            .filter(|t| !t.is_zero() && *t <= self.settings.max_timeout)
            .ok_or(Code::InvalidTransactionTimeout)?;
        if !self.known.contains_key(id) {
            if self.known.len() >= self.settings.max_ids {
                return Err(Code::PolicyViolation);
            }
            let producer = self.new_producer_id();
            self.known.insert(id.to_owned(), Transaction::new(producer, timeout, now));
        }
        self.change(id, now, |transaction, new_id| transaction.init(init.expected, timeout, new_id, now))
    }

    /// Is this partition within the producer's transaction? From Produce v12 on it is added (KIP-890); before, it must
    /// have been. The code is the one that a Produce of this version answers.
    ///
    /// # Errors
    /// INVALID_TXN_STATE (before v11) or TRANSACTION_ABORTABLE, INVALID_PRODUCER_ID_MAPPING, INVALID_PRODUCER_EPOCH,
    /// CONCURRENT_TRANSACTIONS (v12) or NOT_ENOUGH_REPLICAS for it, which older clients retry; POLICY_VIOLATION.
    pub(super) fn verify(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        (topic, partition): (&str, i32),
        produce_version: i16,
        now: Instant,
    ) -> Result<(), Code> {
        let part = Part::Partition(topic, partition);
        self.verify_part(transactional_id, producer, part, produce_version >= 12, now).map_err(|code| {
            match code {
                Code::ProducerFenced => Code::InvalidProducerEpoch,
                Code::ConcurrentTransactions if produce_version < 12 => Code::NotEnoughReplicas,
                Code::TransactionAbortable if produce_version < 11 => Code::InvalidTxnState,
                code => code,
            }
        })
    }

    /// The same for the offsets of a group: TxnOffsetCommit v5 adds it.
    ///
    /// # Errors
    /// INVALID_TXN_STATE (before v4) or TRANSACTION_ABORTABLE, INVALID_PRODUCER_ID_MAPPING, INVALID_PRODUCER_EPOCH,
    /// CONCURRENT_TRANSACTIONS (v5) or COORDINATOR_LOAD_IN_PROGRESS for it, which older clients retry.
    pub(super) fn verify_group(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        group: &str,
        commit_version: i16,
        now: Instant,
    ) -> Result<(), Code> {
        let part = Part::Group(group);
        self.verify_part(transactional_id, producer, part, commit_version >= 5, now).map_err(
            |code| match code {
                Code::ProducerFenced => Code::InvalidProducerEpoch,
                Code::ConcurrentTransactions if commit_version < 5 => Code::CoordinatorLoadInProgress,
                Code::TransactionAbortable if commit_version < 4 => Code::InvalidTxnState,
                code => code,
            },
        )
    }

    fn verify_part(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        part: Part<'_>,
        adds: bool,
        now: Instant,
    ) -> Result<(), Code> {
        if adds {
            self.add(transactional_id, producer, &[part], now)
        } else {
            self.check(transactional_id, producer, part)
        }
    }

    /// Looks whether a part is within the transaction (AddPartitionsToTxn with `verify_only`).
    ///
    /// # Errors
    /// INVALID_REQUEST, INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, TRANSACTION_ABORTABLE.
    pub(super) fn check(&self, id: &str, producer: Producer, part: Part<'_>) -> Result<(), Code> {
        if id.is_empty() {
            return Err(Code::InvalidRequest);
        }
        self.known.get(id).ok_or(Code::InvalidProducerIdMapping)?.verify(producer, part)
    }

    /// Adds parts to the transaction, all or none, and begins it where none is open.
    ///
    /// # Errors
    /// INVALID_REQUEST, INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, POLICY_VIOLATION.
    pub(super) fn add(
        &mut self,
        id: &str,
        producer: Producer,
        parts: &[Part<'_>],
        now: Instant,
    ) -> Result<(), Code> {
        let limit = self.settings.max_parts;
        self.change(id, now, |transaction, _| transaction.add(producer, parts, limit, now))
    }

    /// EndTxn; `bumps` from v5 on. What markers it needs, [`poll_markers`](Self::poll_markers) tells.
    ///
    /// # Errors
    /// INVALID_REQUEST, INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, INVALID_TXN_STATE.
    pub(super) fn end(
        &mut self,
        id: &str,
        producer: Producer,
        commit: bool,
        bumps: bool,
        now: Instant,
    ) -> Result<Producer, Code> {
        self.change(id, now, |transaction, new_id| transaction.end(producer, commit, bumps, new_id, now))
    }

    /// Changes a transaction and sets its timer anew.
    fn change<R>(
        &mut self,
        id: &str,
        now: Instant,
        change: impl FnOnce(&mut Transaction, &mut dyn FnMut() -> ProducerId) -> Result<R, Code>,
    ) -> Result<R, Code> {
        if id.is_empty() {
            return Err(Code::InvalidRequest);
        }
        let transaction = self.known.get_mut(id).ok_or(Code::InvalidProducerIdMapping)?;
        let before = transaction.decided().is_some();
        let next_id = &mut self.next_id;
        let mut new_id = || {
            let id = *next_id;
            *next_id = next_id.saturating_add(1);
            ProducerId(id)
        };
        let result = change(transaction, &mut new_id);
        let decided = transaction.decided().is_some();
        if !decided {
            self.arm(id, None);
        } else if !before {
            self.arm(id, now.checked_add(self.settings.marker_delay));
        }
        result
    }

    fn arm(&mut self, id: &str, at: Option<Instant>) {
        let at = match self.known.get(id) {
            // What is decided keeps the time of its markers.
            Some(t) if t.decided().is_some() && at.is_none() => return,
            Some(t) => at.or_else(|| t.deadline(self.settings.expiry)),
            None => None,
        };
        if let Some(old) = self.due_of.remove(id) {
            self.due.remove(&(old, id.to_owned()));
        }
        if let Some(at) = at {
            self.due.insert((at, id.to_owned()));
            self.due_of.insert(id.to_owned(), at);
        }
    }

    /// Does what is due: aborts what timed out, forgets what was idle. Markers are asked for by
    /// [`poll_markers`](Self::poll_markers).
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let passed: Vec<String> =
            self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect();
        for id in passed {
            match self.known.get_mut(&id) {
                Some(t) if t.decided().is_some() => {}
                Some(t) if t.state() == State::Ongoing => {
                    tracing::debug!(transactional_id = id, "a transaction timed out: it is aborted");
                    t.fence(now);
                    self.arm(&id, now.checked_add(self.settings.marker_delay));
                }
                _ => {
                    self.known.remove(&id);
                    self.arm(&id, None);
                }
            }
        }
    }

    /// When something is next due, markers included.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next markers to write. The caller writes them all and says [`complete`](Self::complete), or
    /// [`postpone`](Self::postpone)s them.
    pub(super) fn poll_markers(&mut self, now: Instant) -> Option<Markers> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, id)| id).find_map(|id| {
            let transaction = self.known.get(id)?;
            let (producer, commit) = transaction.decided()?;
            Some(Markers {
                transactional_id: id.clone(),
                producer,
                commit,
                touched: transaction.touched().clone(),
            })
        })
    }

    /// The markers are written.
    pub(super) fn complete(&mut self, id: &str, now: Instant) {
        if let Some(transaction) = self.known.get_mut(id) {
            transaction.complete(now);
            self.arm(id, None);
        }
    }

    /// Some markers could not be written, a leader is away: they are asked for again at `at`. `written` are done.
    pub(super) fn postpone(&mut self, id: &str, written: &Touched, at: Instant) {
        if let Some(transaction) = self.known.get_mut(id) {
            transaction.forget(written);
            self.arm(id, Some(at));
        }
    }

    /// A transactional id's state.
    pub(super) fn get(&self, id: &str) -> Option<&Transaction> {
        self.known.get(id)
    }

    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Transaction)> {
        self.known.iter().map(|(id, transaction)| (id.as_str(), transaction))
    }

    /// Forgets a topic that was deleted: no marker is owed to it.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        for transaction in self.known.values_mut() {
            transaction.forget_topic(topic);
        }
    }
}

/// The error as a request of this version knows it: PRODUCER_FENCED came with `since`.
pub(super) fn fenced_by_version(code: Code, version: i16, since: i16) -> Code {
    if code == Code::ProducerFenced && version < since { Code::InvalidProducerEpoch } else { code }
}

/// The partition of `__consumer_offsets` that holds a group: Java's hash of its name, modulo 50, as in the real broker.
pub(super) fn offsets_partition(group: &str) -> i32 {
    let hash =
        group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % 50
}

/// The wire's pair of numbers as a producer.
pub(super) fn producer(id: kafka_protocol::messages::ProducerId, epoch: i16) -> Producer {
    (ProducerId(id.0), ProducerEpoch(epoch))
}
