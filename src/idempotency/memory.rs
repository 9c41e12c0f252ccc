//! Keys in this process's memory: as fast as a map, gone with the process.

use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::claim::{Claim, Counts, Lease, State, Token, check_key, check_outcome};
use super::fingerprint::Fingerprint;
use super::record::{self, Ask, Phase, Record};
use super::{BoxFuture, Store};
use crate::{Error, ErrorKind, Result, Timestamp};

/// What an entry costs beside its key and outcome: the map's and the retention queue's slots, both half empty at
/// worst, and the key's header.
const ENTRY_COST: usize = 384;

/// How many completed keys past their retention a claim drops on its way. More than one, so that a backlog shrinks.
const SWEEP: usize = 4;

/// The limits of a [`MemoryStore`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// How long a completed key is kept, from its completion. Default 24 hours. A duplicate that comes later has its
    /// effect again.
    pub retention: Duration,
    /// The most keys, in progress and completed together. Default 1,000,000.
    pub max_keys: usize,
    /// The most memory in bytes, counted as 384 bytes a key plus key and outcome, where a key in progress counts with
    /// the largest outcome, so that completing never fails for want of room. Default 512 MiB, which is the store's
    /// worst-case memory and at the default outcome limit lets some 32,000 keys be in progress at once.
    pub max_bytes: usize,
    /// The largest outcome in bytes. Default 16 KiB.
    pub max_outcome: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(24 * 60 * 60),
            max_keys: 1_000_000,
            max_bytes: 512 * 1024 * 1024,
            max_outcome: 16 * 1024,
        }
    }
}

impl MemoryOptions {
    /// Sets [`retention`](Self::retention).
    #[must_use]
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Sets [`max_keys`](Self::max_keys).
    #[must_use]
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Sets [`max_bytes`](Self::max_bytes).
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets [`max_outcome`](Self::max_outcome).
    #[must_use]
    pub const fn max_outcome(mut self, bytes: usize) -> Self {
        self.max_outcome = bytes;
        self
    }
}

/// A [`Store`] in memory, for one process. Its futures are ready at once and need no runtime.
///
/// A full store refuses new keys with [`ErrorKind::Full`]; it never drops a key before its retention has passed.
#[derive(Debug, Default)]
pub struct MemoryStore {
    options: MemoryOptions,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    keys: HashMap<Arc<str>, Record>,
    /// Completed keys in the order of completion, which the clock's monotony makes the order of `at`. An element
    /// whose token is no longer the key's is stale and skipped.
    completed: VecDeque<(Timestamp, Token, Arc<str>)>,
    /// How many of `keys` are done.
    done: usize,
    /// What is charged against `max_bytes`.
    bytes: usize,
    /// The latest `now` seen, in milliseconds; a time before 1970 counts as 1970.
    clock: i64,
    next_token: u64,
}

impl MemoryStore {
    /// An empty store with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store with these limits.
    #[must_use]
    pub fn with_options(options: MemoryOptions) -> Self {
        Self { options, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held, short of a failed allocation.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim_now(
        &self,
        key: &str,
        fingerprint: Fingerprint,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Claim> {
        check_key(key)?;
        let options = &self.options;
        let mut guard = self.lock();
        let inner = &mut *guard;
        let now = inner.tick(now);
        inner.sweep(now, options, SWEEP);
        let ask = Ask {
            key,
            fingerprint,
            lease,
            now,
            retention: options.retention,
            token: Token(inner.next_token),
            owner: 0,
        };
        let decision = record::claim(inner.keys.get(key), &ask)?;
        if let (Some(record), Claim::Claimed(lease)) = (decision.store, &decision.answer) {
            // What is replaced is past its lease or its retention.
            inner.drop_key(key, options);
            inner.make_room(key, now, options)?;
            inner.next_token += 1;
            inner.put(Arc::clone(&lease.key), record, options);
        }
        Ok(decision.answer)
    }

    fn complete_now(&self, lease: &Lease, outcome: Bytes, now: Timestamp) -> Result<()> {
        check_outcome(&lease.key, &outcome, self.options.max_outcome)?;
        let mut inner = self.lock();
        let now = inner.tick(now);
        if let Some(record) = record::complete(inner.keys.get(&lease.key), lease, outcome, now)? {
            inner.drop_key(&lease.key, &self.options);
            inner.completed.push_back((now, lease.token, Arc::clone(&lease.key)));
            inner.put(Arc::clone(&lease.key), record, &self.options);
        }
        Ok(())
    }

    fn release_now(&self, lease: &Lease) -> Result<()> {
        let mut inner = self.lock();
        if record::release(inner.keys.get(&lease.key), lease)? {
            inner.drop_key(&lease.key, &self.options);
        }
        Ok(())
    }

    fn extend_now(&self, lease: &Lease, by: Duration, now: Timestamp) -> Result<Lease> {
        let mut inner = self.lock();
        let now = inner.tick(now);
        let (record, lease) = record::extend(inner.keys.get(&lease.key), lease, by, now)?;
        if let Some(slot) = inner.keys.get_mut(&lease.key) {
            *slot = record;
        }
        Ok(lease)
    }

    fn purge_now(&self, before: Timestamp) -> u64 {
        let mut inner = self.lock();
        let mut dropped = 0;
        while inner.completed.front().is_some_and(|(at, ..)| *at < before) {
            dropped += u64::from(inner.drop_oldest(&self.options));
        }
        dropped
    }
}

impl Inner {
    /// The store's clock, which never runs back.
    fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.clock = self.clock.max(now.get());
        Timestamp(self.clock)
    }

    /// Stores a record for a key that is absent.
    fn put(&mut self, key: Arc<str>, record: Record, options: &MemoryOptions) {
        self.bytes = self.bytes.saturating_add(cost(&key, &record, options));
        self.done += usize::from(matches!(record.phase, Phase::Done { .. }));
        self.keys.insert(key, record);
    }

    fn drop_key(&mut self, key: &str, options: &MemoryOptions) {
        if let Some(record) = self.keys.remove(key) {
            self.bytes = self.bytes.saturating_sub(cost(key, &record, options));
            self.done -= usize::from(matches!(record.phase, Phase::Done { .. }));
        }
    }

    /// Takes the oldest element off the retention queue; whether a key was dropped with it.
    fn drop_oldest(&mut self, options: &MemoryOptions) -> bool {
        let Some((_, token, key)) = self.completed.pop_front() else { return false };
        let current = self.keys.get(&key).is_some_and(|record| record.token == token);
        if current {
            self.drop_key(&key, options);
        }
        current
    }

    /// Drops up to `most` elements that are past their retention; whether there was one.
    fn sweep(&mut self, now: Timestamp, options: &MemoryOptions, most: usize) -> bool {
        let mut any = false;
        for _ in 0..most {
            match self.completed.front() {
                Some((at, ..)) if super::claim::plus(*at, options.retention) <= now => {
                    self.drop_oldest(options);
                    any = true;
                }
                Some(_) | None => break,
            }
        }
        any
    }

    /// Refuses the key if there is no room for it and nothing may be dropped.
    fn make_room(&mut self, key: &str, now: Timestamp, options: &MemoryOptions) -> Result<()> {
        let need = ENTRY_COST.saturating_add(key.len()).saturating_add(options.max_outcome);
        loop {
            let keys = self.keys.len() >= options.max_keys;
            let bytes = self.bytes.saturating_add(need) > options.max_bytes;
            if !keys && !bytes {
                return Ok(());
            }
            if self.sweep(now, options, SWEEP) {
                continue;
            }
            let limit = if keys {
                format!("its limit of {} keys (max_keys)", options.max_keys)
            } else {
                format!("its limit of {} bytes (max_bytes)", options.max_bytes)
            };
            return Err(Error::new(
                ErrorKind::Full,
                format!(
                    "the memory key store has reached {limit} with {} keys in progress and {} completed within the \
                     retention of {:?}: raise the limit, shorten the retention, or use the redb store",
                    self.keys.len() - self.done,
                    self.done,
                    options.retention
                ),
            ));
        }
    }
}

/// What a record is charged with. One in progress is charged with the largest outcome it may get.
fn cost(key: &str, record: &Record, options: &MemoryOptions) -> usize {
    let outcome = match &record.phase {
        Phase::InProgress { .. } => options.max_outcome,
        Phase::Done { outcome, .. } => outcome.len(),
    };
    ENTRY_COST.saturating_add(key.len()).saturating_add(outcome)
}

impl Store for MemoryStore {
    fn claim<'a>(
        &'a self,
        key: &'a str,
        fingerprint: Fingerprint,
        lease: Duration,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Claim>> {
        Box::pin(ready(self.claim_now(key, fingerprint, lease, now)))
    }

    fn complete<'a>(&'a self, lease: &'a Lease, outcome: Bytes, now: Timestamp) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(self.complete_now(lease, outcome, now)))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(self.release_now(lease)))
    }

    fn extend<'a>(&'a self, lease: &'a Lease, by: Duration, now: Timestamp) -> BoxFuture<'a, Result<Lease>> {
        Box::pin(ready(self.extend_now(lease, by, now)))
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<State>>> {
        Box::pin(ready(Ok(self.lock().keys.get(key).map(Record::state))))
    }

    fn purge<'a>(&'a self, before: Timestamp) -> BoxFuture<'a, Result<u64>> {
        Box::pin(ready(Ok(self.purge_now(before))))
    }

    fn counts(&self) -> BoxFuture<'_, Result<Counts>> {
        let inner = self.lock();
        let completed = inner.done as u64;
        Box::pin(ready(Ok(Counts { in_progress: inner.keys.len() as u64 - completed, completed })))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::idempotency::suite::{self, Opened};

    fn open(retention: Duration, max_outcome: usize) -> Opened {
        let options = MemoryOptions::default().retention(retention).max_outcome(max_outcome);
        Opened { store: Arc::new(MemoryStore::with_options(options)), _keep: None }
    }

    mod conforms {
        crate::idempotency::suite::conformance!(super::open);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_sequence_is_answered_as_by_the_model(operations in suite::operations()) {
            let opened = open(suite::RETENTION, 16);
            // Ready at once: no runtime is needed.
            now_or_never(suite::replay(&*opened.store, &operations));
        }
    }

    fn now_or_never<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("the memory store waited for something"),
        }
    }

    fn claim(store: &MemoryStore, key: &str, now: i64) -> Result<Claim> {
        store.claim_now(key, Fingerprint::NONE, Duration::from_secs(1), Timestamp(now))
    }

    #[test]
    fn a_full_store_refuses_new_keys_and_drops_none_within_its_retention() {
        let minute = Duration::from_secs(60);
        let store = MemoryStore::with_options(MemoryOptions::default().max_keys(3).retention(minute));
        let done = claim(&store, "done", 0).unwrap().lease().unwrap();
        store.complete_now(&done, Bytes::new(), Timestamp(0)).unwrap();
        let _held = [claim(&store, "a", 0).unwrap(), claim(&store, "b", 0).unwrap()];
        let e = claim(&store, "c", 59_999).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Full);
        assert!(e.message().contains("limit of 3 keys") && e.message().contains("2 keys in progress"), "{e}");
        // What is there is served, a key whose lease ran out is taken over, and retention makes room.
        assert!(matches!(claim(&store, "done", 59_999).unwrap(), Claim::Done { .. }));
        assert!(claim(&store, "a", 59_999).unwrap().lease().is_some());
        assert!(claim(&store, "c", 60_000).unwrap().lease().is_some());
        assert_eq!(claim(&store, "done", 60_000).unwrap_err().kind(), ErrorKind::Full);
    }

    #[test]
    fn what_was_claimed_can_always_be_completed() {
        let limits = MemoryOptions::default().max_outcome(1000).max_bytes(10_000);
        let store = MemoryStore::with_options(limits);
        let mut leases = Vec::new();
        let full = loop {
            match claim(&store, &format!("k{}", leases.len()), 0) {
                Ok(claim) => leases.push(claim.lease().unwrap()),
                Err(e) => break e,
            }
        };
        assert!(full.kind() == ErrorKind::Full && full.message().contains("10000 bytes"), "{full}");
        for lease in &leases {
            store.complete_now(lease, Bytes::from(vec![0; 1000]), Timestamp(1)).unwrap();
        }
        assert_eq!(claim(&store, "next", 1).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(store.purge_now(Timestamp(2)), leases.len() as u64);
        let inner = store.lock();
        assert_eq!((inner.bytes, inner.done, inner.completed.len()), (0, 0, 0));
    }

    #[test]
    fn stale_elements_of_the_retention_queue_do_not_pile_up() {
        let options = MemoryOptions::default().retention(Duration::from_millis(10));
        let store = MemoryStore::with_options(options);
        for round in 0..1000 {
            let lease = claim(&store, "k", round * 10).unwrap().lease().unwrap();
            store.complete_now(&lease, Bytes::new(), Timestamp(round * 10)).unwrap();
        }
        assert!(store.lock().completed.len() <= 2);
    }
}
