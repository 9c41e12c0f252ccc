//! How old the oldest record is that a group has not committed: a search through fetched batches. Pure.
//!
//! The record is the first one from the committed offset on that an application would be given. Not each offset is one:
//! compaction leaves gaps, a transaction's end takes an offset, and with read committed its aborted records are not
//! given either. No question to the broker has this answer (ListOffsets maps a time to an offset and not back), so
//! records are fetched from the committed offset on, as few as possible:
//!
//! ```text
//! ask(limit) --records, one found--> its timestamp
//!            --records, none for an application--> ask behind them
//!            --nothing, and it stood first in the request--> none waits: a broker gives the first partition at least one batch
//!            --nothing, and others stood before it--> the batch is larger than the limit, or others took the room: ask
//!                                                     again, further ahead, with eight times the limit
//! ```

use bytes::Bytes;

use crate::codec::record_batch::BatchList;
use crate::kafka::consumer::{Isolation, isolation::Aborted};
use crate::{Offset, ProducerId, Result, Timestamp};

/// What a partition's first question may bring, in bytes: most batches are smaller.
const FIRST_LIMIT: usize = 16 << 10;
/// The largest batch after decompression that is looked into.
const BATCH_LIMIT: usize = 64 << 20;
/// After so many answers without a record the search gives up: an aborted transaction of many megabytes.
const ROUNDS: u32 = 32;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oldest {
    /// The record's time; `None` where it has none.
    Record(Option<Timestamp>),
    /// No record waits.
    Nothing,
    /// The offset is no longer in the log.
    Gone,
    /// It could not be told.
    Unknown,
}

/// A search in one partition.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// Records before it do not count.
    from: Offset,
    /// Where the next question begins.
    next: Offset,
    /// Where the log ends: nothing is searched from there on.
    end: Offset,
    limit: usize,
    rounds: u32,
}

impl Search {
    pub(super) fn new(from: Offset, end: Offset) -> Self {
        Self { from, next: from, end, limit: FIRST_LIMIT, rounds: 0 }
    }

    /// Where to fetch, and how many bytes at most.
    pub(super) fn poll_ask(&self, most: usize) -> (Offset, usize) {
        (self.next, self.limit.min(most))
    }

    /// Takes what was fetched; `first` where the partition stood first in its request. `None`: ask again.
    pub(super) fn handle_fetched(
        &mut self,
        records: Bytes,
        aborted: Vec<(Offset, ProducerId)>,
        isolation: Isolation,
        first: bool,
    ) -> Option<Oldest> {
        let mut aborted = Aborted::new(aborted);
        let before = self.next;
        for batch in BatchList::new(records) {
            // What is damaged or in a codec that is not compiled in cannot be told, and does not end the pass.
            let Ok(batch) = batch else { return Some(Oldest::Unknown) };
            let Ok(admitted) = aborted.admits(&batch) else { return Some(Oldest::Unknown) };
            let given = !batch.is_control() && (admitted || isolation == Isolation::ReadUncommitted);
            if given && batch.last_offset() >= self.from {
                match self.first_in(&batch) {
                    Ok(Some(time)) => return Some(Oldest::Record((time.0 >= 0).then_some(time))),
                    Ok(None) => {}
                    Err(_) => return Some(Oldest::Unknown),
                }
            }
            self.next = self.next.max(batch.next_offset());
            if self.next >= self.end {
                return Some(Oldest::Nothing);
            }
        }
        if self.next > before {
            self.rounds += 1;
            return (self.rounds >= ROUNDS).then_some(Oldest::Unknown);
        }
        if first {
            return Some(Oldest::Nothing);
        }
        // It comes nearer to the first place with each answer.
        self.limit = self.limit.saturating_mul(8);
        None
    }

    fn first_in(&self, batch: &crate::codec::record_batch::BatchView) -> Result<Option<Timestamp>> {
        for record in batch.records(BATCH_LIMIT)?.iter() {
            let record = record?;
            if record.offset() >= self.from {
                return Ok(Some(record.timestamp()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ProducerEpoch;
    use crate::codec::record_batch::{BatchBuilder, BatchOptions, ControlKind, ControlMarker};

    /// A batch with records at these offsets, of time 1,000 and the offset.
    fn batch(base: i64, offsets: &[i64], change: impl FnOnce(BatchOptions) -> BatchOptions) -> Bytes {
        let options = BatchOptions { base_offset: Offset(base), ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(change(options));
        let mut next = base;
        for offset in offsets {
            builder.skip_offsets(u32::try_from(offset - next).unwrap());
            builder.push(Timestamp(1000 + offset), None, Some(b"x"), []).unwrap();
            next = offset + 1;
        }
        builder.finish().unwrap()
    }

    fn plain(base: i64, offsets: &[i64]) -> Bytes {
        batch(base, offsets, |options| options)
    }

    fn of_transaction(base: i64, offsets: &[i64]) -> Bytes {
        batch(base, offsets, |options| BatchOptions {
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(0),
            transactional: true,
            ..options
        })
    }

    fn marker(base: i64, kind: ControlKind) -> Bytes {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(base),
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(0),
            transactional: true,
            control: true,
            ..BatchOptions::default()
        });
        builder.push_control(Timestamp(0), ControlMarker { kind, coordinator_epoch: Some(0) }).unwrap();
        builder.finish().unwrap()
    }

    fn joined(batches: &[Bytes]) -> Bytes {
        batches.concat().into()
    }

    fn at(offset: i64) -> Option<Oldest> {
        Some(Oldest::Record(Some(Timestamp(1000 + offset))))
    }

    fn search(from: i64, end: i64, records: &[Bytes], isolation: Isolation) -> Option<Oldest> {
        let aborted = vec![(Offset(0), ProducerId(7))];
        Search::new(Offset(from), Offset(end)).handle_fetched(joined(records), aborted, isolation, true)
    }

    #[test]
    fn the_commit_may_stand_in_the_middle_of_a_batch_or_in_a_gap() {
        let records = [plain(0, &[0, 1, 2, 3]), plain(10, &[12, 15])];
        for (from, offset) in [(0, 0), (2, 2), (4, 12), (10, 12), (13, 15)] {
            assert_eq!(search(from, 16, &records, Isolation::ReadCommitted), at(offset), "{from}");
        }
    }

    #[test]
    fn markers_and_aborted_records_do_not_wait_for_readers_of_committed_ones() {
        let records = [
            of_transaction(0, &[0, 1]),
            marker(2, ControlKind::Abort),
            of_transaction(3, &[3]),
            marker(4, ControlKind::Commit),
        ];
        assert_eq!(search(0, 5, &records, Isolation::ReadCommitted), at(3));
        assert_eq!(search(0, 5, &records, Isolation::ReadUncommitted), at(0));
        assert_eq!(search(4, 5, &records, Isolation::ReadUncommitted), Some(Oldest::Nothing));
        assert_eq!(search(2, 3, &records[1..2], Isolation::ReadCommitted), Some(Oldest::Nothing));
    }

    #[test]
    fn a_search_goes_on_behind_what_it_was_given_and_asks_for_more_where_it_was_given_nothing() {
        let mut search = Search::new(Offset(0), Offset(10));
        let (committed, none) = (Isolation::ReadCommitted, Vec::new);
        assert_eq!(search.poll_ask(1 << 20), (Offset(0), FIRST_LIMIT));
        let aborted = vec![(Offset(0), ProducerId(7))];
        assert_eq!(search.handle_fetched(of_transaction(0, &[0, 4]), aborted, committed, false), None);
        assert_eq!(search.poll_ask(1 << 20), (Offset(5), FIRST_LIMIT));
        assert_eq!(search.handle_fetched(Bytes::new(), none(), committed, false), None);
        assert_eq!(search.poll_ask(1 << 20), (Offset(5), 8 * FIRST_LIMIT));
        // A batch that the limit cut off is nothing.
        let cut = plain(5, &[5]).slice(..60);
        assert_eq!(search.handle_fetched(cut, none(), committed, false), None);
        assert_eq!(search.handle_fetched(plain(5, &[6]), none(), committed, true), at(6));
        assert_eq!(search.handle_fetched(Bytes::new(), none(), committed, true), Some(Oldest::Nothing));
    }

    #[test]
    fn an_endless_aborted_transaction_and_damage_are_not_told() {
        let mut search = Search::new(Offset(0), Offset(1_000_000));
        let round = |search: &mut Search, n: i64| {
            let aborted = vec![(Offset(0), ProducerId(7))];
            search.handle_fetched(of_transaction(n, &[n]), aborted, Isolation::ReadCommitted, true)
        };
        let ended = (0..100).find_map(|n| round(&mut search, n).map(|oldest| (n, oldest)));
        assert_eq!(ended, Some((i64::from(ROUNDS) - 1, Oldest::Unknown)));
        let mut damaged = plain(0, &[0]).to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let damaged = [damaged.into()];
        assert_eq!(self::search(0, 5, &damaged, Isolation::ReadCommitted), Some(Oldest::Unknown));
    }

    #[test]
    fn the_brokers_time_counts_where_the_topic_has_it_and_a_record_may_have_none() {
        let stamped = batch(0, &[0], |options| BatchOptions { append_time: Some(Timestamp(77)), ..options });
        let found = Some(Oldest::Record(Some(Timestamp(77))));
        assert_eq!(search(0, 1, &[stamped], Isolation::ReadCommitted), found);
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(Timestamp::NONE, None, Some(b"x"), []).unwrap();
        let timeless = [builder.finish().unwrap()];
        assert_eq!(search(0, 1, &timeless, Isolation::ReadCommitted), Some(Oldest::Record(None)));
    }

    /// A stretch of a log: how many records, which of them compaction took, and what became of them.
    #[derive(Debug, Clone)]
    struct Stretch {
        kept: Vec<bool>,
        /// `None` outside of transactions, else whether it was committed.
        committed: Option<bool>,
    }

    /// A log in its batches: first offset, last offset, bytes. Aborted transactions by first offset and marker. Records by
    /// offset, and whether readers of committed ones are given them.
    #[derive(Debug, Default)]
    struct Log {
        batches: Vec<(i64, i64, Bytes)>,
        aborted: Vec<(i64, i64)>,
        records: Vec<(i64, bool)>,
        end: i64,
    }

    fn log(stretches: &[Stretch]) -> Log {
        let mut log = Log::default();
        for stretch in stretches {
            let first = log.end;
            let offsets: Vec<i64> =
                (first..).zip(&stretch.kept).filter(|(_, kept)| **kept).map(|(o, _)| o).collect();
            log.end += stretch.kept.len() as i64;
            if let (Some(low), Some(high)) = (offsets.first(), offsets.last()) {
                let bytes = match stretch.committed {
                    None => plain(*low, &offsets),
                    Some(_) => of_transaction(*low, &offsets),
                };
                log.batches.push((*low, *high, bytes));
            }
            let visible = stretch.committed != Some(false);
            log.records.extend(offsets.iter().map(|offset| (*offset, visible)));
            if let Some(committed) = stretch.committed {
                let kind = if committed { ControlKind::Commit } else { ControlKind::Abort };
                log.batches.push((log.end, log.end, marker(log.end, kind)));
                if !committed {
                    log.aborted.push((first, log.end));
                }
                log.end += 1;
            }
        }
        log
    }

    impl Log {
        /// What a broker gives: whole batches that fit, one at least to who stands first.
        fn fetch(&self, from: i64, limit: usize, first: bool) -> (Bytes, Vec<(Offset, ProducerId)>) {
            let mut room = limit;
            let ahead = self.batches.iter().filter(|(_, last, _)| *last >= from).enumerate();
            let given = ahead.take_while(|(n, (.., bytes))| {
                let fits = bytes.len() <= room || (*n == 0 && first);
                room = room.saturating_sub(bytes.len());
                fits
            });
            let given: Vec<Bytes> = given.map(|(_, (.., bytes))| bytes.clone()).collect();
            let aborted = self.aborted.iter().filter(|(_, marker)| *marker >= from);
            (joined(&given), aborted.map(|(first, _)| (Offset(*first), ProducerId(7))).collect())
        }
    }

    fn stretch() -> impl Strategy<Value = Stretch> {
        let kept = prop::collection::vec(prop::bool::weighted(0.7), 1..6);
        let committed = prop_oneof![Just(None), any::<bool>().prop_map(Some)];
        (kept, committed).prop_map(|(kept, committed)| Stretch { kept, committed })
    }

    proptest! {
        #[test]
        fn a_search_finds_what_a_look_at_the_whole_log_would(
            stretches in prop::collection::vec(stretch(), 1..12), from in 0i64..40, room in 1usize..400,
            places in prop::collection::vec(any::<bool>(), 1..8), committed in any::<bool>()
        ) {
            let log = log(&stretches);
            prop_assume!(from < log.end);
            let isolation = if committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
            let naive = log.records.iter().find(|(offset, visible)| *offset >= from && (*visible || !committed));
            let wanted = naive.map_or(Some(Oldest::Nothing), |(offset, _)| at(*offset));
            let mut search = Search::new(Offset(from), Offset(log.end));
            let mut places = places.into_iter().chain(std::iter::repeat(true));
            let found = loop {
                let first = places.next().unwrap_or(true);
                let (next, limit) = search.poll_ask(1 << 20);
                let (records, aborted) = log.fetch(next.0, limit.min(room), first);
                if let Some(found) = search.handle_fetched(records, aborted, isolation, first) {
                    break found;
                }
            };
            prop_assert_eq!(Some(found), wanted);
        }

        #[test]
        fn whatever_a_broker_sends_a_search_ends(
            records in prop::collection::vec(any::<u8>(), 0..300), damage in 0usize..200
        ) {
            let mut search = Search::new(Offset(3), Offset(9));
            search.handle_fetched(records.into(), Vec::new(), Isolation::ReadCommitted, true);
            let mut bytes = joined(&[of_transaction(0, &[0, 1]), plain(2, &[2, 5])]).to_vec();
            let at = damage % bytes.len();
            bytes[at] ^= 0x55;
            Search::new(Offset(3), Offset(9)).handle_fetched(bytes.into(), Vec::new(), Isolation::ReadCommitted, true);
        }
    }
}
