//! What a store keeps for one key, and the transitions every store shares. Pure: the stores differ only in where the
//! records lie. The table stands in the [module's](super) documentation.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::claim::{Claim, Lease, State, Token, millis, plus};
use super::fingerprint::Fingerprint;
use crate::{Error, ErrorKind, Result, Timestamp};

/// One key's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) fingerprint: Fingerprint,
    pub(super) token: Token,
    /// How many holders let their lease run out before this one.
    pub(super) takeovers: u32,
    pub(super) phase: Phase,
}

/// Where a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Held until `until`. `lease_ms` is what was asked for, to judge an `until` that a wrong clock set.
    InProgress { until: Timestamp, lease_ms: i64 },
    /// Completed at `at`.
    Done { at: Timestamp, outcome: Bytes },
}

/// What a claim does to the record.
#[derive(Debug)]
pub(super) enum Decision {
    /// The key is the caller's: store this record. What was there before is dropped.
    Take(Record, Lease),
    /// Nothing is stored.
    Answer(Claim),
}

/// Decides a claim. `token` is used only if the key is taken; `now` is the store's clock.
pub(super) fn claim(
    found: Option<&Record>,
    key: &str,
    fingerprint: Fingerprint,
    lease: Duration,
    now: Timestamp,
    retention: Duration,
    token: Token,
) -> Result<Decision> {
    let takeovers = match found {
        None => 0,
        Some(record) if record.is_past(now, retention) => 0,
        Some(record) => {
            if record.fingerprint != fingerprint {
                return Err(mismatch(key, record, fingerprint));
            }
            match &record.phase {
                Phase::Done { at, outcome } => {
                    return Ok(Decision::Answer(Claim::Done { outcome: outcome.clone(), at: *at }));
                }
                Phase::InProgress { until, .. } if now < *until => {
                    return Ok(Decision::Answer(Claim::Held { until: *until }));
                }
                Phase::InProgress { .. } => record.takeovers.saturating_add(1),
            }
        }
    };
    let until = plus(now, lease);
    let phase = Phase::InProgress { until, lease_ms: millis(lease) };
    Ok(Decision::Take(
        Record { fingerprint, token, takeovers, phase },
        Lease { key: Arc::from(key), token, until, takeovers },
    ))
}

/// Decides a completion: the record to store, or `None` when this lease has completed it before.
pub(super) fn complete(
    found: Option<&Record>,
    lease: &Lease,
    outcome: Bytes,
    now: Timestamp,
) -> Result<Option<Record>> {
    let record = own(found, lease, "complete")?;
    match record.phase {
        Phase::Done { .. } => Ok(None),
        Phase::InProgress { .. } => {
            Ok(Some(Record { phase: Phase::Done { at: now, outcome }, ..record.clone() }))
        }
    }
}

/// Decides a release: whether there is a record to drop.
pub(super) fn release(found: Option<&Record>, lease: &Lease) -> Result<bool> {
    if found.is_none() {
        return Ok(false);
    }
    match own(found, lease, "release")?.phase {
        Phase::InProgress { .. } => Ok(true),
        Phase::Done { .. } => Err(completed(lease, "release")),
    }
}

/// Decides an extension: the record to store and the lease with its new end.
pub(super) fn extend(
    found: Option<&Record>,
    lease: &Lease,
    by: Duration,
    now: Timestamp,
) -> Result<(Record, Lease)> {
    let record = own(found, lease, "extend")?;
    match record.phase {
        Phase::InProgress { until, lease_ms } => {
            let until = until.max(plus(now, by));
            let phase = Phase::InProgress { until, lease_ms: lease_ms.max(millis(by)) };
            Ok((Record { phase, ..record.clone() }, Lease { until, ..lease.clone() }))
        }
        Phase::Done { .. } => Err(completed(lease, "extend")),
    }
}

impl Record {
    /// Whether the key was completed so long ago that it counts as absent.
    pub(super) fn is_past(&self, now: Timestamp, retention: Duration) -> bool {
        match self.phase {
            Phase::Done { at, .. } => plus(at, retention) <= now,
            Phase::InProgress { .. } => false,
        }
    }

    /// As a caller sees it.
    pub(super) fn state(&self) -> State {
        let (token, takeovers) = (self.token, self.takeovers);
        match &self.phase {
            Phase::InProgress { until, .. } => State::InProgress { token, until: *until, takeovers },
            Phase::Done { at, outcome } => {
                State::Done { token, outcome: outcome.clone(), at: *at, takeovers }
            }
        }
    }
}

/// The record, if this lease is the one it knows.
fn own<'a>(found: Option<&'a Record>, lease: &Lease, what: &str) -> Result<&'a Record> {
    match found {
        Some(record) if record.token == lease.token => Ok(record),
        Some(record) => {
            let now = match record.phase {
                Phase::InProgress { .. } => "holds",
                Phase::Done { .. } => "completed",
            };
            Err(Error::new(
                ErrorKind::Fenced,
                format!(
                    "cannot {what} idempotency key {:?} with token {}: the lease ran out and a later claim, token {}, \
                     {now} the key",
                    lease.key, lease.token, record.token
                ),
            ))
        }
        None => Err(Error::new(
            ErrorKind::Fenced,
            format!(
                "cannot {what} idempotency key {:?} with token {}: the key was released, or its lease ran out and \
                 a later holder is done with it",
                lease.key, lease.token
            ),
        )),
    }
}

fn completed(lease: &Lease, what: &str) -> Error {
    Error::new(
        ErrorKind::Fenced,
        format!("cannot {what} idempotency key {:?}: it was completed with this lease", lease.key),
    )
}

fn mismatch(key: &str, record: &Record, fingerprint: Fingerprint) -> Error {
    let state = match record.phase {
        Phase::InProgress { .. } => "in progress",
        Phase::Done { .. } => "done",
    };
    Error::new(
        ErrorKind::PayloadMismatch,
        format!(
            "idempotency key {key:?} is {state} with another payload: fingerprint {} is recorded, {fingerprint} came; \
             give each payload its own key",
            record.fingerprint
        ),
    )
}
