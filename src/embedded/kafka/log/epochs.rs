//! When which leader epoch began (KIP-101, KIP-320).

/// Epochs of a partition and where each starts; both rise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Epochs(Vec<(i32, i64)>);

impl Epochs {
    /// An epoch begins with the record at `start`. Epochs that would begin there or later have no record.
    pub(crate) fn begin(&mut self, epoch: i32, start: i64) {
        if self.0.last().is_some_and(|(last, _)| *last >= epoch) {
            return;
        }
        self.0.retain(|(_, other)| *other < start);
        self.0.push((epoch, start));
    }

    /// The latest epoch that is not above `epoch`, and where it ended; `end` is the log's. `None`: nothing is known.
    pub(crate) fn end_of(&self, epoch: i32, end: i64) -> Option<(i32, i64)> {
        if epoch < 0 {
            return None;
        }
        let after = self.0.partition_point(|(other, _)| *other <= epoch);
        match (after.checked_sub(1).and_then(|i| self.0.get(i)), self.0.get(after)) {
            (Some((at, _)), None) if *at == epoch => Some((epoch, end)),
            (_, None) => None,
            (Some((at, _)), Some((_, next))) => Some((*at, *next)),
            (None, Some((_, next))) => Some((epoch, *next)),
        }
    }

    /// The epoch of the record at `offset`.
    pub(crate) fn at(&self, offset: i64) -> Option<i32> {
        let after = self.0.partition_point(|(_, start)| *start <= offset);
        self.0.get(after.checked_sub(1)?).map(|(epoch, _)| *epoch)
    }

    /// The log ends at `end` now.
    pub(crate) fn truncate_to(&mut self, end: i64) {
        self.0.retain(|(_, start)| *start < end);
    }

    /// The log starts at `start` now: what ended before it goes.
    pub(crate) fn start_at(&mut self, start: i64) {
        let first = self.0.partition_point(|(_, other)| *other <= start).saturating_sub(1);
        self.0.drain(..first.min(self.0.len()));
        if let Some((_, begin)) = self.0.first_mut() {
            *begin = start.max(*begin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let mut epochs = Epochs::default();
        epochs.begin(0, 0);
        epochs.begin(2, 10);
        epochs.begin(5, 20);
        assert_eq!(epochs.end_of(0, 30), Some((0, 10)));
        assert_eq!(epochs.end_of(1, 30), Some((0, 10)), "the one before it is meant");
        assert_eq!(epochs.end_of(2, 30), Some((2, 20)));
        assert_eq!(epochs.end_of(5, 30), Some((5, 30)), "the current one ends with the log");
        assert_eq!(epochs.end_of(6, 30), None, "one from the future");
        assert_eq!(epochs.at(9), Some(0));
        assert_eq!(epochs.at(10), Some(2));
    }

    #[test]
    fn an_epoch_without_records_is_not_remembered() {
        let mut epochs = Epochs::default();
        epochs.begin(0, 0);
        epochs.begin(1, 7);
        epochs.begin(2, 7);
        assert_eq!(epochs.end_of(1, 9), Some((0, 7)));
        epochs.truncate_to(7);
        assert_eq!(epochs.end_of(0, 7), Some((0, 7)));
    }

    #[test]
    fn what_ended_before_the_log_starts_is_forgotten() {
        let mut epochs = Epochs::default();
        epochs.begin(0, 0);
        epochs.begin(1, 5);
        epochs.start_at(6);
        assert_eq!(epochs.at(4), None);
        assert_eq!(epochs.end_of(1, 8), Some((1, 8)));
        assert_eq!(epochs.end_of(0, 8), Some((0, 6)), "it ended at the latest where the log starts");
    }
}
