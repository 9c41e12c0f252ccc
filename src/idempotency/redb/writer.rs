//! The thread that owns the database: it takes whatever requests are waiting, runs them in one transaction, makes that
//! durable, and only then answers. While one commit is being written the next batch gathers.
//!
//! ```text
//!            take a batch             commit: answer all
//!   waiting -------------> working ---------------------> waiting
//!                             |
//!                             | the disk fails: all in the batch get the error, none was answered Ok
//!                             v
//!                           broken --- disk full: tries to open again, at most once per pause ---> waiting
//!                             |
//!                             +------- anything else: refuses until the caller opens a new store
//! ```
#![allow(clippy::disallowed_methods, reason = "the thread paces its attempts to open the file again")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redb::Database;

use super::mailbox::{Answer, Mailbox};
use super::open::{Opener, explain, passes};
use super::table::{Context, Failure, Tables};
use crate::{Error, ErrorKind, Result};

/// The most requests in one transaction: bounds how long the first of them waits for the others.
const BATCH: usize = 1024;

/// A request on its way through a transaction.
pub(super) trait Job: Send {
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Failure>;
    /// Answers, once it is known whether the transaction is durable.
    fn settle(self: Box<Self>, failure: Option<&Error>);
}

/// A [`Job`] made of a closure and where its result goes.
pub(super) struct Call<F, T> {
    pub(super) operation: Option<F>,
    pub(super) result: Option<Result<T>>,
    pub(super) answer: Answer<Result<T>>,
}

impl<F, T> Job for Call<F, T>
where
    F: FnOnce(&mut Tables<'_>) -> Result<Result<T>, Failure> + Send,
    T: Send,
{
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Failure> {
        if let Some(operation) = self.operation.take() {
            self.result = Some(operation(tables)?);
        }
        Ok(())
    }

    fn settle(self: Box<Self>, failure: Option<&Error>) {
        let Self { result, answer, .. } = *self;
        answer.send(match (failure, result) {
            (Some(failure), _) => Err(failure.duplicate()),
            (None, Some(result)) => result,
            (None, None) => Err(Error::new(ErrorKind::Internal, "a request to the key store was not run")),
        });
    }
}

pub(super) type Requests = Mailbox<Box<dyn Job>>;

/// Where the database is.
enum Disk {
    Open(Database),
    Broken {
        error: Error,
        /// Whether to try to open it again.
        again: bool,
    },
}

pub(super) struct Writer {
    disk: Disk,
    context: Context,
    opener: Opener,
    place: String,
    pause: Duration,
    /// When the next attempt to open the file again may be made.
    next_attempt: Instant,
}

impl Writer {
    pub(super) fn new(
        database: Database,
        context: Context,
        opener: Opener,
        place: String,
        pause: Duration,
    ) -> Self {
        Self { disk: Disk::Open(database), context, opener, place, pause, next_attempt: Instant::now() }
    }

    /// Works until the mailbox is closed and empty. The database is closed at the end.
    pub(super) fn run(mut self, requests: &Arc<Requests>) {
        let mut batch = Vec::new();
        while requests.take(BATCH, &mut batch) {
            let failure = self.work(&mut batch).err();
            for job in batch.drain(..) {
                job.settle(failure.as_ref());
            }
        }
    }

    fn work(&mut self, batch: &mut [Box<dyn Job>]) -> Result<()> {
        self.recover();
        let database = match &self.disk {
            Disk::Open(database) => database,
            Disk::Broken { error, .. } => return Err(error.duplicate()),
        };
        let Err((failure, committing)) = transact(database, &mut self.context, batch) else { return Ok(()) };
        let error = explain(&self.place, "could not be written", &failure);
        let passes = passes(&failure);
        self.disk = Disk::Broken {
            error: if passes {
                error.duplicate()
            } else {
                Error::new(
                    ErrorKind::Storage,
                    format!("{} refuses since an earlier failure, until it is opened again", self.place),
                )
                .retryable(false)
                .with_source(error.report())
            },
            again: passes,
        };
        // What failed in the commit itself may be found in the file when it is opened again.
        Err(if committing { error.ambiguous() } else { error })
    }

    /// Opens the file again if that may help and enough time has passed.
    fn recover(&mut self) {
        let Disk::Broken { error, again: true } = &mut self.disk else { return };
        let now = Instant::now();
        if now < self.next_attempt {
            return;
        }
        self.next_attempt = now + self.pause;
        match (self.opener)() {
            Ok(database) => self.disk = Disk::Open(database),
            Err(e) => *error = explain(&self.place, "cannot be opened again", &e.into()),
        }
    }
}

/// Runs a batch in one durable transaction; an error says whether it came from the commit.
fn transact(
    database: &Database,
    context: &mut Context,
    batch: &mut [Box<dyn Job>],
) -> Result<(), (Failure, bool)> {
    let before = |e: Failure| (e, false);
    let txn = database.begin_write().map_err(|e| before(e.into()))?;
    let mut tables = Tables::open(&txn, context).map_err(before)?;
    for job in batch {
        job.run(&mut tables).map_err(before)?;
    }
    if tables.finish().map_err(before)? {
        txn.commit().map_err(|e| (e.into(), true))
    } else {
        txn.abort().map_err(|e| before(e.into()))
    }
}
