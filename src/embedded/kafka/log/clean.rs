//! Retention and compaction of one log, when they are asked for.
//!
//! Compaction keeps, of the records below the last stable offset that are old enough, the last one of each key, as
//! Kafka's `LogCleaner` does:
//! - offsets stay, so there are gaps; a batch that lost records keeps its first and last offset;
//! - records of aborted transactions go;
//! - tombstones and markers stay for `delete.retention.ms` after the first pass that saw them (KIP-534), markers longer
//!   while their transaction has records left;
//! - the last batch of a producer stays, without records if need be, so that its sequence is not forgotten.
//!
//! It differs in that there is no active segment which it would leave alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest, Sha256};

use super::{PartitionLog, StoredBatch, batch};
use crate::Timestamp;
use crate::codec::record_batch::{BatchBuilder, BatchOptions, BatchView, ControlKind};

/// What retention and compaction go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) retention_ms: i64,
    pub(crate) retention_bytes: i64,
    pub(crate) delete_retention_ms: i64,
    pub(crate) min_compaction_lag_ms: i64,
}

/// A key by which records are told apart: half of a SHA-256.
type Digested = [u8; 16];

fn digest(key: &[u8]) -> Digested {
    let mut half = Digested::default();
    half.iter_mut().zip(Sha256::digest(key)).for_each(|(to, from)| *to = from);
    half
}

impl PartitionLog {
    /// Deletes the oldest batches that are too old, or too much. True where any went.
    pub(crate) fn retain(&mut self, policy: &Policy, now: Timestamp) -> bool {
        let stable = self.last_stable_offset();
        let mut size = self.bytes();
        let mut start = self.start;
        for batch in self.batches.iter().take_while(|batch| batch.last_offset < stable) {
            let old = policy.retention_ms >= 0
                && batch.max_timestamp >= 0
                && now.0.saturating_sub(batch.max_timestamp) > policy.retention_ms;
            let most = u64::try_from(policy.retention_bytes).ok();
            let much = most.is_some_and(|most| size.saturating_sub(batch.size()) >= most && size > most);
            if !(old || much) {
                break;
            }
            size -= batch.size();
            start = batch.next_offset();
        }
        self.delete_before(start) > 0
    }

    /// How much of the log was appended since it was compacted, from 0 to 1.
    pub(crate) fn dirty_ratio(&self) -> f64 {
        let all = self.bytes();
        let dirty = self.read(self.cleaned_to.max(self.start), i64::MAX, u64::MAX, true).bytes;
        if all == 0 { 0.0 } else { dirty as f64 / all as f64 }
    }

    /// Compacts. True where any record went.
    pub(crate) fn compact(&mut self, policy: &Policy, now: Timestamp) -> bool {
        let stable = self.last_stable_offset();
        let young = now.0.saturating_sub(policy.min_compaction_lag_ms);
        let until = self
            .batches
            .iter()
            .find(|batch| policy.min_compaction_lag_ms > 0 && batch.max_timestamp > young)
            .map_or(stable, |batch| batch.base_offset.min(stable));
        let last = self.last_offsets(until);
        let mut pass = Pass {
            last,
            aborted: self.aborted_ranges(),
            horizon: now.0.saturating_add(policy.delete_retention_ms),
            now: now.0,
            with_records: BTreeSet::new(),
            // A batch that is a producer's latest must stay for its sequence.
            latest: self.producers.iter().map(|(id, producer)| (id, producer.last_offset())).collect(),
        };
        let (mut changed, mut gone) = (false, BTreeSet::new());
        let mut kept = std::collections::VecDeque::with_capacity(self.batches.len());
        for batch in std::mem::take(&mut self.batches) {
            if batch.last_offset >= until {
                kept.push_back(batch);
                continue;
            }
            match pass.clean(&batch) {
                Cleaned::Kept => kept.push_back(batch),
                Cleaned::Changed(smaller) => {
                    changed |= smaller.record_count() != batch.record_count();
                    kept.push_back(*smaller);
                }
                Cleaned::Gone => {
                    changed = true;
                    if batch.is_control() {
                        gone.insert(batch.base_offset);
                    }
                }
            }
        }
        // A reader that was told of an aborted transaction waits for its marker.
        self.aborted.retain(|aborted| !gone.contains(&aborted.last_offset));
        self.cleaned_to = until;
        self.reindex(kept);
        changed
    }

    /// The batches as they are now: positions, times and sizes are counted again.
    fn reindex(&mut self, batches: std::collections::VecDeque<StoredBatch>) {
        self.batches = batches;
        (self.position, self.held) = (0, 0);
        let mut max = i64::MIN;
        for batch in &mut self.batches {
            batch.position = self.position;
            max = max.max(batch.max_timestamp);
            batch.running_max = max;
            self.position += batch.size();
            self.held += batch.size() + batch::OVERHEAD;
        }
    }

    /// Of each key, the offset of its last record below `until` that is not aborted.
    fn last_offsets(&self, until: i64) -> HashMap<Digested, i64> {
        let aborted = self.aborted_ranges();
        let mut last = HashMap::new();
        for batch in self.batches.iter().filter(|batch| batch.last_offset < until && !batch.is_control()) {
            if is_aborted(&aborted, batch) {
                continue;
            }
            let Ok((_, records)) = batch.read() else { continue };
            for record in records.iter().map_while(Result::ok) {
                if let Some(key) = record.key() {
                    last.insert(digest(key), record.offset().0);
                }
            }
        }
        last
    }

    /// By producer, where its aborted transactions start and end.
    fn aborted_ranges(&self) -> BTreeMap<i64, Vec<(i64, i64)>> {
        let mut ranges = BTreeMap::<_, Vec<_>>::new();
        for aborted in &self.aborted {
            ranges.entry(aborted.producer_id).or_default().push((aborted.first_offset, aborted.last_offset));
        }
        ranges
    }
}

fn is_aborted(ranges: &BTreeMap<i64, Vec<(i64, i64)>>, batch: &StoredBatch) -> bool {
    batch.is_transactional()
        && ranges.get(&batch.producer_id()).is_some_and(|ranges| {
            let at = ranges.partition_point(|(_, last)| *last < batch.base_offset);
            ranges.get(at).is_some_and(|(first, _)| *first <= batch.base_offset)
        })
}

enum Cleaned {
    Kept,
    Changed(Box<StoredBatch>),
    Gone,
}

/// One run over a log.
struct Pass {
    last: HashMap<Digested, i64>,
    aborted: BTreeMap<i64, Vec<(i64, i64)>>,
    /// When tombstones that are seen for the first time may go.
    horizon: i64,
    now: i64,
    /// Producers whose transaction at hand has records left.
    with_records: BTreeSet<i64>,
    /// By producer, the last offset of its latest batch.
    latest: BTreeMap<i64, i64>,
}

impl Pass {
    fn clean(&mut self, batch: &StoredBatch) -> Cleaned {
        // What cannot be read is left alone.
        let Ok((view, records)) = batch.read() else { return Cleaned::Kept };
        let over = view.delete_horizon().is_some_and(|at| at.0 <= self.now);
        if batch.is_control() {
            let has_records = self.with_records.remove(&batch.producer_id());
            return match view.delete_horizon() {
                _ if has_records => Cleaned::Kept,
                None => self.rebuild(batch, &view, |_| true),
                Some(_) if over => Cleaned::Gone,
                Some(_) => Cleaned::Kept,
            };
        }
        if records.is_empty() {
            return if self.is_latest(batch) { Cleaned::Kept } else { Cleaned::Gone };
        }
        let aborted = is_aborted(&self.aborted, batch);
        let mut keep = Vec::with_capacity(records.len());
        let mut tombstones = false;
        for record in &records {
            let Ok(record) = record else { return Cleaned::Kept };
            let is_last = record
                .key()
                .is_some_and(|key| self.last.get(&digest(key)).is_none_or(|last| *last <= record.offset().0));
            let tombstone = record.value().is_none();
            let stays = !aborted && is_last && !(tombstone && over);
            tombstones |= stays && tombstone;
            keep.push(stays);
        }
        if keep.iter().any(|stays| *stays) {
            if batch.is_transactional() {
                self.with_records.insert(batch.producer_id());
            }
            if keep.iter().all(|stays| *stays) && (!tombstones || view.delete_horizon().is_some()) {
                return Cleaned::Kept;
            }
            return self.rebuild(batch, &view, |index| keep.get(index).copied().unwrap_or(true));
        }
        if self.is_latest(batch) {
            return batch.emptied().map_or(Cleaned::Kept, |empty| Cleaned::Changed(Box::new(empty)));
        }
        Cleaned::Gone
    }

    fn is_latest(&self, batch: &StoredBatch) -> bool {
        self.latest.get(&batch.producer_id()) == Some(&batch.last_offset)
    }

    /// The batch with some of its records, and the horizon where it holds tombstones or a marker.
    fn rebuild(&self, batch: &StoredBatch, view: &BatchView, keep: impl Fn(usize) -> bool) -> Cleaned {
        let rebuilt = || -> crate::Result<StoredBatch> {
            let (_, records) = batch.read()?;
            let mut tombstones = batch.is_control();
            for (index, record) in records.iter().enumerate() {
                tombstones |= keep(index) && record?.value().is_none();
            }
            let horizon = view.delete_horizon().or(tombstones.then_some(Timestamp(self.horizon)));
            let mut builder = BatchBuilder::new(BatchOptions {
                compression: view.compression(),
                max_bytes: usize::MAX,
                base_offset: view.base_offset(),
                leader_epoch: view.leader_epoch(),
                producer_id: view.producer_id(),
                producer_epoch: view.producer_epoch(),
                base_sequence: view.base_sequence(),
                transactional: view.is_transactional(),
                control: view.is_control(),
                append_time: view.append_time(),
                delete_horizon: horizon,
                ..BatchOptions::default()
            });
            let mut next = view.base_offset().0;
            let skip = |builder: &mut BatchBuilder, n: i64| {
                builder.skip_offsets(u32::try_from(n).unwrap_or(u32::MAX));
            };
            for (index, record) in records.iter().enumerate() {
                let record = record?;
                if !keep(index) {
                    continue;
                }
                skip(&mut builder, record.offset().0 - next);
                // A name that is no UTF-8 becomes one with U+FFFD for its bad parts.
                let headers =
                    record.headers().map(|(name, value)| (name.into_owned(), value)).collect::<Vec<_>>();
                let headers = headers.iter().map(|(name, value)| (name.as_str(), *value));
                builder.push(record.timestamp(), record.key(), record.value(), headers)?;
                next = record.offset().0 + 1;
            }
            skip(&mut builder, view.next_offset().0 - next);
            let view = BatchView::parse(builder.finish()?)?;
            StoredBatch::new(&view, view.base_offset().0, view.leader_epoch().0)
        };
        rebuilt().map_or(Cleaned::Kept, |smaller| Cleaned::Changed(Box::new(smaller)))
    }
}

/// The marker's kind, where the batch is one.
pub(super) fn marker(batch: &StoredBatch) -> Option<(ControlKind, i32)> {
    let (_, records) = batch.read().ok()?;
    let marker = records.iter().next()?.ok()?.control_marker().ok()?;
    Some((marker.kind, marker.coordinator_epoch.unwrap_or(-1)))
}
