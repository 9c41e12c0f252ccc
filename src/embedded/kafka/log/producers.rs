//! What a partition knows of its producers: sequences, epochs, open transactions (KIP-98, KIP-360, KIP-890).
//!
//! ```text
//!              first batch, any sequence            next sequence            the same five last again
//! (unknown) ---------------------------> epoch e ----------------> epoch e ---------------------------> duplicate
//!                                           | sequence 0 of a higher epoch -> that epoch
//!                                           | a lower epoch                -> INVALID_PRODUCER_EPOCH
//!                                           | another sequence             -> OUT_OF_ORDER_SEQUENCE_NUMBER
//!                                           | a day without a batch        -> (unknown)
//! ```
//!
//! UNKNOWN_PRODUCER_ID is said by no broker since 2.5 (KIP-360): a producer that is not known starts anew. With
//! transactions of version 2 it must start at sequence 0.

use std::collections::{BTreeMap, VecDeque};

use super::{Refusal, StoredBatch};
use crate::embedded::kafka::api::Code;

/// Batches of a producer that are remembered, to tell a duplicate (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
const REMEMBERED: usize = 5;
/// Producers that one partition remembers. One more makes it forget the one that was silent for the longest time.
const MOST: usize = 20_000;

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recent {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) timestamp: i64,
}

/// A producer as a partition knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// The time of its last batch or marker.
    pub(crate) last_timestamp: i64,
    /// The epoch of the coordinator that wrote its last marker; -1 for none.
    pub(crate) coordinator_epoch: i32,
    /// Where its open transaction starts.
    pub(crate) open_since: Option<i64>,
    recent: VecDeque<Recent>,
}

impl Producer {
    /// Its last sequence, or -1.
    pub(crate) fn last_sequence(&self) -> i32 {
        self.recent.back().map_or(-1, |recent| recent.last_sequence)
    }

    /// The offset of its last record, or -1.
    pub(crate) fn last_offset(&self) -> i64 {
        self.recent.back().map_or(-1, |recent| recent.last_offset)
    }

    fn new(epoch: i16) -> Self {
        Self { epoch, last_timestamp: -1, coordinator_epoch: -1, open_since: None, recent: VecDeque::new() }
    }

    /// # Errors
    /// INVALID_PRODUCER_EPOCH for one older than the last.
    fn check_epoch(&self, id: i64, epoch: i16) -> Result<(), Refusal> {
        if epoch >= self.epoch {
            return Ok(());
        }
        let last = self.epoch;
        Err(Refusal::new(
            Code::InvalidProducerEpoch,
            format!("Epoch of producer {id} is {epoch}, which is smaller than the last seen epoch {last}"),
        ))
    }

    fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.recent.clear();
        }
    }
}

/// The end of a transaction in this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
}

/// All producers of a partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Producers {
    by_id: BTreeMap<i64, Producer>,
    /// Open transactions: where they start, and whose they are.
    open: BTreeMap<i64, i64>,
}

impl Producers {
    /// All of them, by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.by_id.iter().map(|(id, producer)| (*id, producer))
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Producer> {
        self.by_id.get(&id)
    }

    /// Where the first open transaction starts.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.keys().next().copied()
    }

    /// The batch that `batch` repeats, among the producer's last five.
    pub(crate) fn duplicate(&self, batch: &StoredBatch) -> Option<Recent> {
        let producer = self.by_id.get(&batch.producer_id())?;
        if producer.epoch != batch.producer_epoch() {
            return None;
        }
        let (first, last) = sequences(batch);
        producer.recent.iter().find(|r| r.first_sequence == first && r.last_sequence == last).copied()
    }

    /// May this batch of a client follow? `starts_at_zero`: a transactional producer
    /// that is not known must begin at 0.
    ///
    /// # Errors
    /// INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER.
    pub(crate) fn check(&self, batch: &StoredBatch, starts_at_zero: bool) -> Result<(), Refusal> {
        let (id, epoch, first) = (batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
        let out_of_order = |why: String| Err(Refusal::new(Code::OutOfOrderSequenceNumber, why));
        let Some(producer) = self.by_id.get(&id) else {
            return if starts_at_zero && batch.is_transactional() && first != 0 {
                out_of_order(format!(
                    "Invalid sequence number for new producer {id}: {first} (incoming seq. number)"
                ))
            } else {
                Ok(())
            };
        };
        producer.check_epoch(id, epoch)?;
        if epoch > producer.epoch {
            return if first == 0 {
                Ok(())
            } else {
                out_of_order(format!(
                    "Invalid sequence number for new epoch of producer {id}: {epoch} (request epoch), {first} (seq. number)"
                ))
            };
        }
        let last = producer.last_sequence();
        // Without a batch in this epoch there is only a marker: the sequence starts anew.
        let follows = if last == -1 { first == 0 } else { first == crate::Sequence(last).plus(1).0 };
        if follows {
            Ok(())
        } else {
            out_of_order(format!(
                "Out of order sequence number for producer {id}: {first} (incoming seq. number), {last} (current end sequence number)"
            ))
        }
    }

    /// Takes note of a batch that is in the log.
    pub(crate) fn appended(&mut self, batch: &StoredBatch) {
        let id = batch.producer_id();
        if id < 0 {
            return;
        }
        self.make_room(id);
        let epoch = batch.producer_epoch();
        let producer = self.by_id.entry(id).or_insert_with(|| Producer::new(epoch));
        producer.set_epoch(epoch);
        producer.last_timestamp = batch.max_timestamp;
        let (first_sequence, last_sequence) = sequences(batch);
        if producer.recent.len() == REMEMBERED {
            producer.recent.pop_front();
        }
        producer.recent.push_back(Recent {
            first_sequence,
            last_sequence,
            first_offset: batch.base_offset,
            last_offset: batch.last_offset,
            timestamp: batch.max_timestamp,
        });
        if batch.is_transactional() && producer.open_since.is_none() {
            producer.open_since = Some(batch.base_offset);
            self.open.insert(batch.base_offset, id);
        }
    }

    /// May a coordinator of this epoch end the transaction of this producer?
    ///
    /// # Errors
    /// INVALID_PRODUCER_EPOCH, TRANSACTION_COORDINATOR_FENCED.
    pub(crate) fn check_marker(&self, id: i64, epoch: i16, coordinator_epoch: i32) -> Result<(), Refusal> {
        let Some(producer) = self.by_id.get(&id) else { return Ok(()) };
        producer.check_epoch(id, epoch)?;
        if coordinator_epoch < producer.coordinator_epoch {
            return Err(Refusal::new(
                Code::TransactionCoordinatorFenced,
                format!(
                    "Invalid coordinator epoch for producer {id}: {coordinator_epoch} (zombie), {} (current)",
                    producer.coordinator_epoch
                ),
            ));
        }
        Ok(())
    }

    /// Takes note of the end of a transaction, whose marker stands at `offset`.
    pub(crate) fn ended(
        &mut self,
        id: i64,
        epoch: i16,
        coordinator_epoch: i32,
        offset: i64,
        timestamp: i64,
    ) -> Option<Ended> {
        self.make_room(id);
        let producer = self.by_id.entry(id).or_insert_with(|| Producer::new(epoch));
        producer.set_epoch(epoch);
        producer.coordinator_epoch = coordinator_epoch;
        producer.last_timestamp = timestamp;
        let first_offset = producer.open_since.take()?;
        self.open.remove(&first_offset);
        Some(Ended { first_offset, last_offset: offset })
    }

    /// Forgets those that wrote nothing since `before` and have no open transaction.
    pub(crate) fn expire(&mut self, before: i64) {
        self.by_id.retain(|_, producer| producer.open_since.is_some() || producer.last_timestamp > before);
    }

    fn make_room(&mut self, id: i64) {
        if self.by_id.len() < MOST || self.by_id.contains_key(&id) {
            return;
        }
        let oldest = self
            .by_id
            .iter()
            .filter(|(_, producer)| producer.open_since.is_none())
            .min_by_key(|(_, producer)| producer.last_timestamp)
            .or_else(|| self.by_id.iter().min_by_key(|(_, producer)| producer.last_timestamp))
            .map(|(id, producer)| (*id, producer.open_since));
        if let Some((id, open)) = oldest {
            self.by_id.remove(&id);
            if let Some(open) = open {
                self.open.remove(&open);
            }
        }
    }
}

/// A batch's first and last sequence.
fn sequences(batch: &StoredBatch) -> (i32, i32) {
    let first = batch.base_sequence();
    let count = u32::try_from(batch.last_offset - batch.base_offset).unwrap_or(0);
    (first, crate::Sequence(first).plus(count).0)
}
