//! Keys in one local file: they outlive the process, also one that is killed.
//!
//! A call that returned `Ok` is on disk. One thread owns the file and writes whatever calls are waiting in one durable
//! transaction, so that many callers share one flush; the callers wait without blocking, under any runtime or none.
//!
//! The file belongs to one process at a time, or with [`RedbOptions::shared`] to any number on one machine.

mod mailbox;
mod open;
mod table;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use self::mailbox::answer;
use self::open::{Opener, explain, prepare};
use self::table::{Context, Damaged, Failure, Tables};
use self::writer::{Call, Requests, Writer};
use super::claim::{Claim, Counts, Lease, State, check_key, check_outcome};
use super::fingerprint::Fingerprint;
use super::record::{self, Ask, Record};
use super::{BoxFuture, Store};
use crate::{Error, ErrorKind, Result, Timestamp};

/// How many completed keys past their retention a claim drops on its way. More than one, so that a backlog shrinks.
const SWEEP: u64 = 4;

/// How many keys [`Store::purge`] drops in one transaction, so that others get their turn between.
const PURGE: u64 = 4096;

/// How a [`RedbStore`] is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedbOptions {
    /// How long a completed key is kept, from its completion. Default 7 days. A duplicate that comes later has its
    /// effect again. It bounds the file: some 200 bytes a key, plus key and outcome.
    pub retention: Duration,
    /// The largest outcome in bytes. Default 16 KiB.
    pub max_outcome: usize,
    /// The most memory for the file's pages in bytes. Default 32 MiB.
    pub cache_bytes: usize,
    /// The most requests that wait for the disk; further callers wait for room. Default 4096, so at worst
    /// 4096 times the largest outcome (64 MiB with the defaults) wait in memory.
    pub max_waiting: usize,
    /// Whether other processes on this machine may have the file open at the same time, all of them with this set.
    /// Default `false`: a second one is refused. Shared commits are slower, since each writes what the next process
    /// needs to go on from it; the file must lie on a local file system; and damage is not searched for when the file
    /// is opened. Needs Linux, macOS or Windows.
    pub shared: bool,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(7 * 24 * 60 * 60),
            max_outcome: 16 * 1024,
            cache_bytes: 32 * 1024 * 1024,
            max_waiting: 4096,
            shared: false,
        }
    }
}

impl RedbOptions {
    /// Sets [`retention`](Self::retention).
    #[must_use]
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Sets [`max_outcome`](Self::max_outcome).
    #[must_use]
    pub const fn max_outcome(mut self, bytes: usize) -> Self {
        self.max_outcome = bytes;
        self
    }

    /// Sets [`cache_bytes`](Self::cache_bytes).
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    #[must_use]
    pub const fn max_waiting(mut self, requests: usize) -> Self {
        self.max_waiting = requests;
        self
    }

    /// Sets [`shared`](Self::shared).
    #[must_use]
    pub const fn shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }
}

/// A [`Store`] in a local file.
///
/// # Failures
/// When a write fails, every call in that transaction gets an [`ErrorKind::Storage`] error that names the file, and
/// none of them was told `Ok`. A full disk is tried again at the next call, at most once a second, and the store goes
/// on when there is room; after any other failure it refuses all calls until a new store is opened, since what the
/// system holds in memory may no longer be what is on disk. Nothing that was answered `Ok` is lost either way.
///
/// # Dropping
/// Waits until the requests in hand are written, then closes the file. Blocks for about one flush of the disk.
pub struct RedbStore {
    requests: Arc<Requests>,
    thread: Option<JoinHandle<()>>,
    place: String,
    max_outcome: usize,
}

impl RedbStore {
    /// Opens the store in the file at `path`, or makes it there if the directory exists, with the default options.
    ///
    /// Blocks: a file that was not closed properly is repaired and all of it is read and checked, some 100 ms for
    /// 100 MB. Call it before the runtime is busy, or where blocking is allowed.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] with the path and what to do: the directory is missing, no right, the file is open
    /// elsewhere, is damaged, is of another program or another version, or the disk is full.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, RedbOptions::default())
    }

    /// The same with these options.
    ///
    /// # Errors
    /// As [`RedbStore::open`].
    pub fn open_with(path: impl AsRef<Path>, options: RedbOptions) -> Result<Self> {
        let path = path.as_ref();
        let place = format!("the key store {}", path.display());
        let opener = open::file(path.to_owned(), options.clone());
        Self::start(place, opener, options, Duration::from_secs(1))
    }

    /// Starts the thread, which opens the database: so a panic on a damaged file becomes an error.
    fn start(place: String, opener: Opener, options: RedbOptions, pause: Duration) -> Result<Self> {
        let max_outcome = options.max_outcome;
        let requests: Arc<Requests> = Arc::new(Requests::new(options.max_waiting));
        let (opened, result) = mpsc::sync_channel(1);
        let (inside, named) = (Arc::clone(&requests), place.clone());
        let thread = std::thread::Builder::new()
            .name("muslin-keys".to_owned())
            .spawn(move || {
                let _abandon = Abandon(Arc::clone(&inside));
                let writer = opener()
                    .map_err(|e| explain(&named, "cannot be opened", &e.into()))
                    .and_then(|database| prepare(&database, &named).map(|owner| (database, owner)))
                    .map(|(database, owner)| {
                        let context = Context { options, owner, clock: 0 };
                        Writer::new(database, context, opener, named, pause)
                    });
                match writer {
                    Ok(writer) => {
                        if opened.send(Ok(())).is_ok() {
                            writer.run(&inside);
                        }
                    }
                    // If nobody waits for it any more, nobody misses it.
                    Err(e) => drop(opened.send(Err(e))),
                }
            })
            .map_err(|e| {
                Error::new(
                    ErrorKind::Storage,
                    format!("{place} cannot be opened: no thread could be started"),
                )
                .with_source(e)
            })?;
        let opened = result.recv().unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Storage,
                format!(
                    "{place} cannot be opened: it is damaged in a way that cannot be read; restore it from a copy, or \
                     remove it and accept that duplicates of what it held have their effect again"
                ),
            )
            .retryable(false))
        });
        match opened {
            Ok(()) => Ok(Self { requests, thread: Some(thread), place, max_outcome }),
            Err(e) => {
                // The file is closed once the thread has ended.
                drop(thread.join());
                Err(e)
            }
        }
    }

    /// Runs `operation` in the thread's next transaction.
    async fn call<T, F>(&self, operation: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>) -> Result<Result<T>, Failure> + Send + 'static,
    {
        let (answer, answered) = answer();
        let call = Call { operation: Some(operation), result: None, answer };
        if self.requests.push(Box::new(call)).await.is_err() {
            return Err(self.ended());
        }
        answered.await.unwrap_or_else(|| Err(self.ended().ambiguous()))
    }

    fn ended(&self) -> Error {
        Error::new(
            ErrorKind::Storage,
            format!(
                "{} has stopped: its thread ended on damage it could not read; open it again",
                self.place
            ),
        )
        .retryable(false)
    }
}

/// Closes the mailbox when the thread ends, also by a panic.
struct Abandon(Arc<Requests>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.requests.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported to every caller.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Reads a key's record; the inner error says that it is damaged.
fn find(tables: &Tables<'_>, key: &str) -> Result<Result<Option<Record>>, Failure> {
    Ok(tables.get(key)?.map_err(|Damaged| {
        Error::new(
            ErrorKind::Storage,
            format!("the record of idempotency key {key:?} in the key store is damaged; restore the file from a copy"),
        )
        .retryable(false)
    }))
}

/// Returns early from an operation with an error that concerns its request alone.
macro_rules! check {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(e) => return Ok(Err(e)),
        }
    };
}

fn claim(
    tables: &mut Tables<'_>,
    key: &str,
    fingerprint: Fingerprint,
    lease: Duration,
    now: Timestamp,
) -> Result<Result<Claim>, Failure> {
    let now = tables.context.tick(now);
    tables.sweep(now, SWEEP)?;
    let found = check!(find(tables, key)?);
    let retention = tables.context.options.retention;
    let owner = tables.context.owner;
    let ask = Ask { key, fingerprint, lease, now, retention, token: tables.token(), owner };
    let decision = check!(record::claim(found.as_ref(), &ask));
    if let Some(record) = &decision.store {
        tables.put(key, found.as_ref(), record)?;
    }
    if matches!(decision.answer, Claim::Claimed(_)) {
        tables.use_token();
    }
    Ok(Ok(decision.answer))
}

fn complete(
    tables: &mut Tables<'_>,
    lease: &Lease,
    outcome: Bytes,
    now: Timestamp,
) -> Result<Result<()>, Failure> {
    let now = tables.context.tick(now);
    let found = check!(find(tables, &lease.key)?);
    if let Some(record) = check!(record::complete(found.as_ref(), lease, outcome, now)) {
        tables.put(&lease.key, found.as_ref(), &record)?;
    }
    Ok(Ok(()))
}

fn release(tables: &mut Tables<'_>, lease: &Lease) -> Result<Result<()>, Failure> {
    let found = check!(find(tables, &lease.key)?);
    if check!(record::release(found.as_ref(), lease))
        && let Some(record) = &found
    {
        tables.remove(&lease.key, record)?;
    }
    Ok(Ok(()))
}

fn extend(
    tables: &mut Tables<'_>,
    lease: &Lease,
    by: Duration,
    now: Timestamp,
) -> Result<Result<Lease>, Failure> {
    let now = tables.context.tick(now);
    let found = check!(find(tables, &lease.key)?);
    let (record, lease) = check!(record::extend(found.as_ref(), lease, by, now));
    tables.put(&lease.key, found.as_ref(), &record)?;
    Ok(Ok(lease))
}

impl Store for RedbStore {
    fn claim<'a>(
        &'a self,
        key: &'a str,
        fingerprint: Fingerprint,
        lease: Duration,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Claim>> {
        Box::pin(async move {
            check_key(key)?;
            let key = key.to_owned();
            self.call(move |tables| claim(tables, &key, fingerprint, lease, now)).await
        })
    }

    fn complete<'a>(&'a self, lease: &'a Lease, outcome: Bytes, now: Timestamp) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            check_outcome(&lease.key, &outcome, self.max_outcome)?;
            let lease = lease.clone();
            self.call(move |tables| complete(tables, &lease, outcome, now)).await
        })
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<()>> {
        let lease = lease.clone();
        Box::pin(self.call(move |tables| release(tables, &lease)))
    }

    fn extend<'a>(&'a self, lease: &'a Lease, by: Duration, now: Timestamp) -> BoxFuture<'a, Result<Lease>> {
        let lease = lease.clone();
        Box::pin(self.call(move |tables| extend(tables, &lease, by, now)))
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<State>>> {
        let key = key.to_owned();
        Box::pin(
            self.call(move |tables| Ok(find(tables, &key)?.map(|found| found.as_ref().map(Record::state)))),
        )
    }

    fn purge<'a>(&'a self, before: Timestamp) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let mut dropped = 0;
            loop {
                let some = self.call(move |tables| tables.purge(before, PURGE).map(Ok)).await?;
                dropped += some;
                if some < PURGE {
                    return Ok(dropped);
                }
            }
        })
    }

    fn counts(&self) -> BoxFuture<'_, Result<Counts>> {
        Box::pin(self.call(|tables| tables.counts().map(Ok)))
    }
}

#[cfg(test)]
mod tests;
