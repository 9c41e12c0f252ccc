//! Which batches of a fetch belong to aborted transactions (KIP-98). Pure.
//!
//! The broker sends, beside the batches, the aborted transactions that touch them: a producer and the first offset of
//! its transaction. The producer's batches from there to its abort marker are not for the application.

use std::collections::{HashSet, VecDeque};

use crate::codec::record_batch::{BatchView, ControlKind};
use crate::{Offset, ProducerId, Result};

/// The most bytes that the control record of a marker may decompress to; markers are not compressed.
const MARKER_LIMIT: usize = 1 << 16;

/// The aborted transactions of one partition in one fetch answer.
#[derive(Debug, Default)]
pub(crate) struct Aborted {
    /// By first offset.
    ahead: VecDeque<(Offset, ProducerId)>,
    open: HashSet<ProducerId>,
}

impl Aborted {
    /// The list need not be sorted.
    pub(crate) fn new(mut list: Vec<(Offset, ProducerId)>) -> Self {
        list.sort_unstable();
        Self { ahead: list.into(), open: HashSet::new() }
    }

    /// Whether the batch is for the application. Batches must come in order.
    ///
    /// # Errors
    /// A control batch whose marker makes no sense.
    pub(crate) fn admits(&mut self, batch: &BatchView) -> Result<bool> {
        if batch.is_control() {
            let records = batch.records(MARKER_LIMIT)?;
            // Compaction may leave a marker's batch without its record.
            if let Some(record) = records.iter().next()
                && record?.control_marker()?.kind == ControlKind::Abort
            {
                self.reach(batch.last_offset());
                self.open.remove(&batch.producer_id());
            }
            return Ok(false);
        }
        self.reach(batch.last_offset());
        Ok(!(batch.is_transactional() && self.open.contains(&batch.producer_id())))
    }

    fn reach(&mut self, last: Offset) {
        while self.ahead.front().is_some_and(|(first, _)| *first <= last) {
            if let Some((_, id)) = self.ahead.pop_front() {
                self.open.insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::record_batch::{BatchBuilder, BatchOptions, ControlMarker};
    use crate::{ProducerEpoch, Timestamp};

    fn options(base: i64, id: i64) -> BatchOptions {
        BatchOptions {
            base_offset: Offset(base),
            producer_id: ProducerId(id),
            producer_epoch: ProducerEpoch(0),
            transactional: id >= 0,
            ..BatchOptions::default()
        }
    }

    fn data(base: i64, id: i64) -> BatchView {
        let mut b = BatchBuilder::new(options(base, id));
        b.push(Timestamp(0), None, Some(b"x"), []).unwrap();
        BatchView::parse(b.finish().unwrap()).unwrap()
    }

    fn marker(base: i64, id: i64, kind: ControlKind) -> BatchView {
        let mut b = BatchBuilder::new(BatchOptions { control: true, ..options(base, id) });
        b.push_control(Timestamp(0), ControlMarker { kind, coordinator_epoch: Some(0) }).unwrap();
        BatchView::parse(b.finish().unwrap()).unwrap()
    }

    #[test]
    fn only_the_aborted_producer_between_its_first_offset_and_its_marker_is_left_out() {
        // Two transactions of producer 7, the first aborted, between others; the list comes unsorted.
        let mut aborted = Aborted::new(vec![(Offset(20), ProducerId(8)), (Offset(2), ProducerId(7))]);
        let seen: Vec<bool> = [
            data(0, 8),
            data(2, 7),
            data(3, -1),
            data(4, 8),
            marker(5, 7, ControlKind::Abort),
            data(6, 7),
            marker(7, 8, ControlKind::Commit),
            data(8, 7),
            marker(9, 7, ControlKind::Commit),
            data(20, 8),
            marker(21, 8, ControlKind::Abort),
            data(22, 8),
        ]
        .iter()
        .map(|batch| aborted.admits(batch).unwrap())
        .collect();
        let expected = [true, false, true, true, false, true, false, true, false, false, false, true];
        assert_eq!(seen, expected);
    }
}
