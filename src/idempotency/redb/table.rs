//! The file's layout (schema 1) and one transaction's view of it.
//!
//! | table | key | value |
//! |---|---|---|
//! | `muslin.meta` | name | `schema` the layout's version, `owner` how often the file was opened, `token` the next token |
//! | `muslin.keys` | idempotency key | the record, as [`encode`] writes it |
//! | `muslin.done` | time of completion, idempotency key | nothing: completed keys in the order of their retention |

use ::redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use bytes::Bytes;

use crate::Timestamp;
use crate::idempotency::claim::{Counts, Token, plus};
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::record::{Phase, Record};
use crate::idempotency::redb::RedbOptions;

pub(super) const SCHEMA: u64 = 1;
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("muslin.meta");
const KEYS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("muslin.keys");
const DONE: TableDefinition<'static, (i64, &str), ()> = TableDefinition::new("muslin.done");

/// A failure of the database: the transaction is void.
pub(super) type Failure = ::redb::Error;

/// What stays the same from one transaction to the next.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) options: RedbOptions,
    /// Which opening of the file this is.
    pub(super) owner: u64,
    /// The latest `now` seen, in milliseconds.
    pub(super) clock: i64,
}

impl Context {
    /// The store's clock, which never runs back.
    pub(super) fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.clock = self.clock.max(now.get());
        Timestamp(self.clock)
    }
}

/// One transaction's tables.
pub(super) struct Tables<'txn> {
    pub(super) context: &'txn mut Context,
    keys: Table<'txn, &'static str, &'static [u8]>,
    done: Table<'txn, (i64, &'static str), ()>,
    meta: Table<'txn, &'static str, u64>,
    next_token: u64,
    /// Whether the transaction has anything to commit.
    dirty: bool,
}

/// A record that cannot be read.
#[derive(Debug)]
pub(super) struct Damaged;

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction, context: &'txn mut Context) -> Result<Self, Failure> {
        let meta = txn.open_table(META)?;
        let next_token = meta.get("token")?.map_or(0, |token| token.value());
        Ok(Self {
            context,
            keys: txn.open_table(KEYS)?,
            done: txn.open_table(DONE)?,
            meta,
            next_token,
            dirty: false,
        })
    }

    /// Writes what is kept once per transaction; whether there is anything to commit.
    pub(super) fn finish(mut self) -> Result<bool, Failure> {
        if self.dirty {
            self.meta.insert("token", self.next_token)?;
        }
        Ok(self.dirty)
    }

    pub(super) fn get(&self, key: &str) -> Result<Result<Option<Record>, Damaged>, Failure> {
        Ok(self.keys.get(key)?.map(|bytes| decode(bytes.value()).ok_or(Damaged)).transpose())
    }

    /// Stores `record` in the place of `old`.
    pub(super) fn put(&mut self, key: &str, old: Option<&Record>, record: &Record) -> Result<(), Failure> {
        self.unlist(key, old)?;
        if let Phase::Done { at, .. } = record.phase {
            self.done.insert((at.get(), key), ())?;
        }
        self.keys.insert(key, encode(record).as_slice())?;
        self.dirty = true;
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &str, old: &Record) -> Result<(), Failure> {
        self.unlist(key, Some(old))?;
        self.keys.remove(key)?;
        self.dirty = true;
        Ok(())
    }

    fn unlist(&mut self, key: &str, old: Option<&Record>) -> Result<(), Failure> {
        if let Some(Phase::Done { at, .. }) = old.map(|record| &record.phase) {
            self.done.remove((at.get(), key))?;
        }
        Ok(())
    }

    /// The token that the next claim would get.
    pub(super) const fn token(&self) -> Token {
        Token(self.next_token)
    }

    pub(super) const fn use_token(&mut self) {
        self.next_token = self.next_token.saturating_add(1);
    }

    /// Drops up to `most` keys that were completed before `before`; how many.
    pub(super) fn purge(&mut self, before: Timestamp, most: u64) -> Result<u64, Failure> {
        let mut dropped = 0;
        while dropped < most {
            let oldest = match self.done.first()? {
                Some((entry, _)) if entry.value().0 < before.get() => {
                    let (at, key) = entry.value();
                    (at, key.to_owned())
                }
                Some(_) | None => break,
            };
            self.done.remove((oldest.0, oldest.1.as_str()))?;
            self.keys.remove(oldest.1.as_str())?;
            self.dirty = true;
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Drops up to `most` keys that are past their retention.
    pub(super) fn sweep(&mut self, now: Timestamp, most: u64) -> Result<(), Failure> {
        // Past: `at + retention <= now`, so `at < now - retention + 1`.
        let length = plus(Timestamp(0), self.context.options.retention).get();
        let before = Timestamp(now.get().saturating_sub(length).saturating_add(1));
        self.purge(before, most).map(|_| ())
    }

    pub(super) fn counts(&self) -> Result<Counts, Failure> {
        let completed = self.done.len()?;
        Ok(Counts { in_progress: self.keys.len()?.saturating_sub(completed), completed })
    }
}

const IN_PROGRESS: u8 = 0;
const COMPLETED: u8 = 1;

/// Little-endian: phase (1 byte), fingerprint (16), token (8), takeovers (4); in progress: end of the lease (8), its
/// length (8), owner (8); done: time of completion (8), outcome (the rest).
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(match record.phase {
        Phase::InProgress { .. } => IN_PROGRESS,
        Phase::Done { .. } => COMPLETED,
    });
    out.extend_from_slice(&record.fingerprint.to_bytes());
    out.extend_from_slice(&record.token.get().to_le_bytes());
    out.extend_from_slice(&record.takeovers.to_le_bytes());
    match &record.phase {
        Phase::InProgress { until, lease_ms, owner } => {
            out.extend_from_slice(&until.get().to_le_bytes());
            out.extend_from_slice(&lease_ms.to_le_bytes());
            out.extend_from_slice(&owner.to_le_bytes());
        }
        Phase::Done { at, outcome } => {
            out.extend_from_slice(&at.get().to_le_bytes());
            out.extend_from_slice(outcome);
        }
    }
    out
}

/// `None` when the bytes are no record.
pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
    let (&[phase], rest) = bytes.split_first_chunk()?;
    let (fingerprint, rest) = rest.split_first_chunk()?;
    let (token, rest) = rest.split_first_chunk()?;
    let (takeovers, rest) = rest.split_first_chunk()?;
    let (time, rest) = rest.split_first_chunk()?;
    let time = Timestamp(i64::from_le_bytes(*time));
    let phase = match phase {
        IN_PROGRESS => {
            let (lease_ms, rest) = rest.split_first_chunk()?;
            let owner = rest.try_into().ok()?;
            let (lease_ms, owner) = (i64::from_le_bytes(*lease_ms), u64::from_le_bytes(owner));
            Phase::InProgress { until: time, lease_ms, owner }
        }
        COMPLETED => Phase::Done { at: time, outcome: Bytes::copy_from_slice(rest) },
        _ => return None,
    };
    Some(Record {
        fingerprint: Fingerprint::from_bytes(*fingerprint),
        token: Token(u64::from_le_bytes(*token)),
        takeovers: u32::from_le_bytes(*takeovers),
        phase,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_cut_one_is_refused() {
        let head =
            |phase| Record { fingerprint: Fingerprint::of(b"p"), token: Token(7), takeovers: 3, phase };
        let held = head(Phase::InProgress { until: Timestamp(-9), lease_ms: 30_000, owner: u64::MAX });
        let done = head(Phase::Done { at: Timestamp(1), outcome: Bytes::from_static(b"out") });
        for record in [held, done] {
            let bytes = encode(&record);
            assert_eq!(decode(&bytes).as_ref(), Some(&record));
            for cut in 0..37 {
                assert_eq!(decode(&bytes[..cut]), None);
            }
        }
        assert_eq!(decode(&[9; 64]), None, "an unknown phase");
        let mut long = encode(&head(Phase::InProgress { until: Timestamp(1), lease_ms: 1, owner: 1 }));
        long.push(0);
        assert_eq!(decode(&long), None, "trailing bytes");
    }
}
