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
    /// Held until `until`. `lease_ms` is the longest that was asked for, and `owner` the opening of the store that
    /// granted it: both serve to judge an `until` that a wrong clock set.
    InProgress { until: Timestamp, lease_ms: i64, owner: u64 },
    /// Completed at `at`.
    Done { at: Timestamp, outcome: Bytes },
}

/// A claim, and what the store knows at that time.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) key: &'a str,
    pub(super) fingerprint: Fingerprint,
    pub(super) lease: Duration,
    /// The store's clock.
    pub(super) now: Timestamp,
    pub(super) retention: Duration,
    /// The token to grant; used up if the answer is `Claimed`.
    pub(super) token: Token,
    /// Which opening of the store asks.
    pub(super) owner: u64,
}

/// What to store in place of what was found, if anything, and what to answer.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) store: Option<Record>,
    pub(super) answer: Claim,
}

/// Decides a claim.
pub(super) fn claim(found: Option<&Record>, ask: &Ask<'_>) -> Result<Decision> {
    let takeovers = match found.filter(|record| !record.is_past(ask.now, ask.retention)) {
        None => 0,
        Some(record) => {
            if record.fingerprint != ask.fingerprint {
                return Err(mismatch(ask.key, record, ask.fingerprint));
            }
            match &record.phase {
                Phase::Done { at, outcome } => {
                    let answer = Claim::Done { outcome: outcome.clone(), at: *at };
                    return Ok(Decision { store: None, answer });
                }
                Phase::InProgress { until, lease_ms, owner } if ask.now < *until => {
                    return Ok(held(record, *until, *lease_ms, *owner, ask));
                }
                Phase::InProgress { .. } => record.takeovers.saturating_add(1),
            }
        }
    };
    let &Ask { fingerprint, token, owner, .. } = ask;
    let until = plus(ask.now, ask.lease);
    let phase = Phase::InProgress { until, lease_ms: millis(ask.lease), owner };
    Ok(Decision {
        store: Some(Record { fingerprint, token, takeovers, phase }),
        answer: Claim::Claimed(Lease { key: Arc::from(ask.key), token, until, takeovers }),
    })
}

/// The key is held. A lease of an earlier opening whose end is further off than it was ever long was granted under a
/// clock that ran ahead: it gets its whole length from now on, and no more.
fn held(record: &Record, until: Timestamp, lease_ms: i64, owner: u64, ask: &Ask<'_>) -> Decision {
    let latest = Timestamp(ask.now.get().saturating_add(lease_ms));
    if owner == ask.owner || until <= latest {
        return Decision { store: None, answer: Claim::Held { until } };
    }
    let phase = Phase::InProgress { until: latest, lease_ms, owner: ask.owner };
    Decision { store: Some(Record { phase, ..record.clone() }), answer: Claim::Held { until: latest } }
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
        Phase::InProgress { until, lease_ms, owner } => {
            let until = until.max(plus(now, by));
            let phase = Phase::InProgress { until, lease_ms: lease_ms.max(millis(by)), owner };
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
