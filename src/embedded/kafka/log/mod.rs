//! A partition's log.
//!
//! ```text
//! log start          LSO                        end = high watermark
//!    |  batch | batch | batch of an open transaction | batch |
//!       time index: running maximum;  offset index: the batches are in order: both are found by bisection
//! ```
//!
//! Replication is not played: followers in the ISR have at once what the leader has, so the high watermark is the
//! log's end. A lost tail is made on demand ([`PartitionLog::truncate_to`]). There are no segments: retention and
//! deletion work on batches, so a log keeps exactly what it must, where the real broker keeps up to a segment more.

pub(crate) mod batch;
mod clean;
pub(crate) mod epochs;
pub(crate) mod producers;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::VecDeque;

use bytes::Bytes;

pub(crate) use batch::StoredBatch;
pub(crate) use clean::Policy;
use epochs::Epochs;
use producers::Producers;
pub(crate) use validate::Rules;

use super::api::Code;
use crate::codec::record_batch::{BatchBuilder, BatchOptions, BatchView, ControlKind, ControlMarker};
use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// Why something was not appended, as a producer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// Records that are at fault, by their place in the batch (KIP-467).
    pub(crate) records: Vec<(i32, String)>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), records: Vec::new() }
    }
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    /// The broker's time, where the topic wants it; -1 else.
    pub(crate) append_time: i64,
    /// It stood there already; nothing was written.
    pub(crate) duplicate: bool,
}

/// A transaction that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// Its marker.
    pub(crate) last_offset: i64,
    /// The last stable offset after the marker was written.
    pub(crate) last_stable: i64,
}

/// What a fetch is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The first batch, by its place among the batches.
    pub(crate) first: usize,
    pub(crate) batches: usize,
    pub(crate) bytes: u64,
}

/// A partition's records.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionLog {
    batches: VecDeque<StoredBatch>,
    start: i64,
    end: i64,
    /// Bytes that were ever appended: the position of the next batch.
    position: u64,
    /// Bytes held, with what each batch costs beside them.
    held: u64,
    epochs: Epochs,
    producers: Producers,
    /// In the order of their markers.
    aborted: VecDeque<Aborted>,
    /// Up to where it was compacted.
    cleaned_to: i64,
}

impl PartitionLog {
    /// The first offset that may be read.
    pub(crate) fn log_start(&self) -> i64 {
        self.start
    }

    /// The offset of the next record.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// What consumers may read up to: the log's end, see the module.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.end
    }

    /// What consumers that read only what is committed may read up to.
    pub(crate) fn last_stable_offset(&self) -> i64 {
        self.producers.first_open().map_or(self.end, |open| open.clamp(self.start, self.end))
    }

    /// Bytes on the wire of all batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.batches.front().map_or(0, |first| self.position - first.position)
    }

    /// Bytes that count against the memory limit.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    pub(crate) fn producers_mut(&mut self) -> &mut Producers {
        &mut self.producers
    }

    pub(crate) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    #[cfg(test)]
    pub(crate) fn batches(&self) -> impl Iterator<Item = &StoredBatch> {
        self.batches.iter()
    }

    /// A leader of this epoch takes over.
    pub(crate) fn begin_epoch(&mut self, epoch: i32) {
        self.epochs.begin(epoch, self.end);
    }

    /// Appends what a producer sent: checks it, or finds that it is there already.
    ///
    /// # Errors
    /// What the producer is told. The log is as it was.
    pub(crate) fn append(
        &mut self,
        records: &Bytes,
        rules: &Rules,
        leader_epoch: i32,
        now: Timestamp,
    ) -> Result<Appended, Refusal> {
        let view = validate::check(records, rules, now)?;
        let failed = |e: crate::Error| Refusal::new(Code::CorruptMessage, e.to_string());
        let mut batch = StoredBatch::new(&view, self.end, leader_epoch).map_err(failed)?;
        if batch.producer_id() >= 0 {
            if let Some(there) = self.producers.duplicate(&batch) {
                return Ok(Appended {
                    base_offset: there.first_offset,
                    last_offset: there.last_offset,
                    // The real broker tells the batch's own time here, whatever kind of time the topic has.
                    append_time: there.timestamp,
                    duplicate: true,
                });
            }
            self.producers.check(&batch, rules.starts_at_zero)?;
        }
        if batch.last_offset == i64::MAX {
            return Err(Refusal::new(Code::InvalidRecord, "the partition has no more offsets"));
        }
        let mut append_time = -1;
        if rules.append_time {
            append_time = now.0;
            batch.set_append_time(now.0);
        }
        let appended = Appended {
            base_offset: batch.base_offset,
            last_offset: batch.last_offset,
            append_time,
            duplicate: false,
        };
        self.producers.appended(&batch);
        self.push(batch);
        Ok(appended)
    }

    /// Ends a producer's transaction: writes the marker and, where it is an abort, remembers what is not to be read.
    /// Gives the marker's offset.
    ///
    /// # Errors
    /// INVALID_PRODUCER_EPOCH and TRANSACTION_COORDINATOR_FENCED; the log is as it was.
    pub(crate) fn append_marker(
        &mut self,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        commit: bool,
        coordinator_epoch: i32,
        leader_epoch: i32,
        now: Timestamp,
    ) -> Result<i64, Refusal> {
        self.producers.check_marker(producer_id.0, epoch.0, coordinator_epoch)?;
        let failed = |e: crate::Error| Refusal::new(Code::UnknownServerError, e.to_string());
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(self.end),
            leader_epoch: LeaderEpoch(leader_epoch),
            producer_id,
            producer_epoch: epoch,
            transactional: true,
            control: true,
            ..BatchOptions::default()
        });
        let kind = if commit { ControlKind::Commit } else { ControlKind::Abort };
        builder
            .push_control(now, ControlMarker { kind, coordinator_epoch: Some(coordinator_epoch) })
            .map_err(failed)?;
        let view = BatchView::parse(builder.finish().map_err(failed)?).map_err(failed)?;
        let batch = StoredBatch::new(&view, self.end, leader_epoch).map_err(failed)?;
        let offset = batch.base_offset;
        self.push(batch);
        self.note_end(producer_id.0, epoch.0, commit, coordinator_epoch, offset, now.0);
        Ok(offset)
    }

    fn note_end(&mut self, id: i64, epoch: i16, commit: bool, coordinator: i32, offset: i64, time: i64) {
        let ended = self.producers.ended(id, epoch, coordinator, offset, time);
        if let Some(ended) = ended.filter(|_| !commit) {
            let last_stable = self.producers.first_open().unwrap_or(offset + 1);
            self.aborted.push_back(Aborted {
                producer_id: id,
                first_offset: ended.first_offset,
                last_offset: ended.last_offset,
                last_stable,
            });
        }
    }

    fn push(&mut self, mut batch: StoredBatch) {
        batch.position = self.position;
        let before = self.batches.back().map_or(i64::MIN, |last| last.running_max);
        batch.running_max = before.max(batch.max_timestamp);
        self.position += batch.size();
        self.held += batch.size() + batch::OVERHEAD;
        self.end = batch.next_offset();
        self.batches.push_back(batch);
    }

    /// The place of the first batch that reaches `offset`.
    fn place(&self, offset: i64) -> usize {
        self.batches.partition_point(|batch| batch.last_offset < offset)
    }

    /// Whole batches from `offset` on and below `until`, at most `max_bytes` of them; with `at_least_one` the first
    /// may be larger (KIP-74).
    pub(crate) fn read(&self, offset: i64, until: i64, max_bytes: u64, at_least_one: bool) -> Slice {
        let first = self.place(offset);
        let Some(begin) = self.batches.get(first).filter(|batch| batch.last_offset < until) else {
            return Slice::default();
        };
        let from = begin.position;
        // Behind the last batch that fits and is below `until`: both by bisection.
        let below = self.place(until).max(first);
        let fitting = self
            .batches
            .partition_point(|batch| batch.position + batch.size() <= from.saturating_add(max_bytes));
        let mut end = below.min(fitting.max(first));
        if end == first && at_least_one {
            end += 1;
        }
        let bytes = match end.checked_sub(1).filter(|_| end > first).and_then(|last| self.batches.get(last)) {
            Some(last) => last.position + last.size() - from,
            None => 0,
        };
        Slice { first, batches: end - first, bytes }
    }

    /// Bytes between `offset` and `until`.
    #[cfg(test)]
    pub(crate) fn available(&self, offset: i64, until: i64) -> u64 {
        self.read(offset, until, u64::MAX, false).bytes
    }

    /// The batches of a slice.
    pub(crate) fn slice(&self, slice: &Slice) -> impl Iterator<Item = &StoredBatch> {
        self.batches.iter().skip(slice.first).take(slice.batches)
    }

    /// Transactions given up that touch the offsets from `offset` on and below `until`, in the order of their markers.
    pub(crate) fn aborted(&self, offset: i64, until: i64) -> impl Iterator<Item = &Aborted> {
        let first = self.aborted.partition_point(|aborted| aborted.last_offset < offset);
        let mut done = false;
        self.aborted
            .iter()
            .skip(first)
            .take_while(move |aborted| {
                let last = done;
                done = aborted.last_stable >= until;
                !last
            })
            .filter(move |aborted| aborted.first_offset < until)
    }

    /// The first record that is not older than `timestamp`, below `until`: its offset, time and epoch.
    pub(crate) fn find_time(&self, timestamp: i64, until: i64) -> Option<(i64, i64, i32)> {
        let first = self.batches.partition_point(|batch| batch.running_max < timestamp);
        self.batches
            .iter()
            .skip(first)
            .take_while(|batch| batch.base_offset < until)
            .filter(|batch| batch.max_timestamp >= timestamp)
            .find_map(|batch| {
                let (offset, time) = batch.find_time(timestamp, self.start)?;
                (offset < until).then_some((offset, time, batch.leader_epoch()))
            })
    }

    /// The first record with the largest timestamp: its offset, time and epoch.
    pub(crate) fn max_timestamp(&self) -> Option<(i64, i64, i32)> {
        let max = self.batches.back()?.running_max;
        self.find_time(max, self.end)
    }

    /// The records below `offset` go. Gives what the log holds less now.
    pub(crate) fn delete_before(&mut self, offset: i64) -> u64 {
        let offset = offset.min(self.end);
        if offset <= self.start {
            return 0;
        }
        self.start = offset;
        let before = self.held;
        while let Some(first) = self.batches.front().filter(|first| first.last_offset < offset) {
            self.held -= first.size() + batch::OVERHEAD;
            self.batches.pop_front();
        }
        self.reindex_time();
        self.epochs.start_at(offset);
        while self.aborted.front().is_some_and(|aborted| aborted.last_offset < offset) {
            self.aborted.pop_front();
        }
        before - self.held
    }

    /// The first batches went: their timestamps count no more. It stops where the rest is right.
    fn reindex_time(&mut self) {
        let mut max = i64::MIN;
        for batch in &mut self.batches {
            max = max.max(batch.max_timestamp);
            if batch.running_max == max {
                break;
            }
            batch.running_max = max;
        }
    }

    /// The records from `offset` on were lost, with the whole batches that hold them. Producers, epochs and open
    /// transactions become what the remaining batches say. Gives what the log holds less now.
    pub(crate) fn truncate_to(&mut self, offset: i64) -> u64 {
        let offset = offset.max(self.start);
        if offset >= self.end {
            return 0;
        }
        let before = self.held;
        self.end = offset;
        self.cleaned_to = self.cleaned_to.min(offset);
        while let Some(last) = self.batches.back().filter(|last| last.last_offset >= offset) {
            self.held -= last.size() + batch::OVERHEAD;
            self.position = last.position;
            self.end = self.end.min(last.base_offset.max(self.start));
            self.batches.pop_back();
        }
        self.epochs.truncate_to(self.end);
        self.producers = Producers::default();
        self.aborted.clear();
        for batch in std::mem::take(&mut self.batches) {
            self.replay(&batch);
            self.batches.push_back(batch);
        }
        before - self.held
    }

    fn replay(&mut self, batch: &StoredBatch) {
        if batch.producer_id() < 0 {
            return;
        }
        if !batch.is_control() {
            self.producers.appended(batch);
            return;
        }
        let Some((kind, coordinator)) = clean::marker(batch) else { return };
        let commit = kind != ControlKind::Abort;
        self.note_end(
            batch.producer_id(),
            batch.producer_epoch(),
            commit,
            coordinator,
            batch.base_offset,
            batch.max_timestamp,
        );
    }
}
