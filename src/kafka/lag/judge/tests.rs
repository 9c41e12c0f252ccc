#![allow(clippy::disallowed_methods, reason = "a start for the test's own clock")]

use proptest::prelude::*;

use super::*;

const WINDOW: Duration = Duration::from_secs(10);

fn look(committed: i64, end: i64) -> Look {
    Look {
        committed: Some(Offset(committed)),
        end: Some(Offset(end)),
        drained: false,
        reader: Reader::Member,
    }
}

/// Judges looks a second apart; gives the last verdict.
fn last(looks: impl IntoIterator<Item = Look>) -> LagState {
    row(looks).pop().unwrap()
}

fn row(looks: impl IntoIterator<Item = Look>) -> Vec<LagState> {
    let start = Instant::now();
    let mut course = Course::default();
    let mut at = start;
    looks
        .into_iter()
        .map(|look| {
            at += Duration::from_secs(1);
            course.handle_look(look, at, WINDOW)
        })
        .collect()
}

#[test]
fn who_has_read_all_keeps_up_and_so_does_who_was_there_within_the_window() {
    assert_eq!(last([look(5, 5)]), LagState::KeepsUp);
    assert_eq!(last([look(5, 5), look(5, 9)]), LagState::KeepsUp);
    // Only markers of transactions stand between.
    assert_eq!(last([Look { drained: true, ..look(5, 6) }]), LagState::KeepsUp);
}

#[test]
fn a_quiet_topics_first_record_is_no_stall() {
    let quiet = (0..50).map(|_| look(5, 5));
    assert_eq!(last(quiet.chain([look(5, 6)])), LagState::KeepsUp);
}

#[test]
fn a_stalled_reader_shows_within_two_windows() {
    // It reads, each second 10 records, then its commit stands while records go on coming.
    let reads = (0..20).map(|n| look(n * 10, n * 10 + 5));
    let stands = (20..60).map(|n| look(190, n * 10 + 5));
    let verdicts = row(reads.chain(stands));
    let stood = verdicts.iter().position(|v| *v == LagState::Stalled).unwrap();
    assert!((20 + 9..=20 + 20).contains(&stood), "told at look {stood}");
    assert!(verdicts[stood..].iter().all(|v| *v == LagState::Stalled));
    assert!(verdicts[..20].iter().skip(1).all(|v| *v == LagState::KeepsUp), "{verdicts:?}");
}

#[test]
fn a_reader_that_moves_again_is_stalled_no_more() {
    let stands = (0..20).map(|n| look(0, 100 + n));
    assert_eq!(last(stands.clone()), LagState::Stalled);
    assert_eq!(last(stands.chain([look(50, 121)])), LagState::KeepsUp);
}

#[test]
fn a_lag_that_only_grows_is_behind_and_one_that_shrinks_at_times_is_not() {
    assert_eq!(last((0..20).map(|n| look(n, 10 + n * 2))), LagState::Behind);
    assert_eq!(last((0..20).map(|n| look(n * 2, 100 + n))), LagState::KeepsUp);
    // As many come as are read, and there are always some on their way.
    assert_eq!(last((0..20).map(|n| look(n * 10, n * 10 + 40 + n % 3))), LagState::KeepsUp);
    assert_eq!(last((0..20).map(|n| look(n * 10, n * 10 + 40))), LagState::KeepsUp);
    // One look cannot tell.
    assert_eq!(last([look(0, 10)]), LagState::Behind);
}

#[test]
fn without_a_member_it_is_stopped_at_once_unless_somebody_commits_all_the_same() {
    let nobody = |committed, end| Look { reader: Reader::Nobody, ..look(committed, end) };
    assert_eq!(last([nobody(0, 10)]), LagState::Stopped);
    assert_eq!(last([look(10, 10), nobody(10, 11)]), LagState::Stopped);
    assert_eq!(last([nobody(0, 10), nobody(5, 11)]), LagState::KeepsUp);
    assert_eq!(last([nobody(10, 10)]), LagState::KeepsUp, "nothing waits");
}

#[test]
fn what_cannot_be_judged_is_not() {
    let none = |end| Look { committed: None, ..look(0, end) };
    assert_eq!(last([none(0)]), LagState::Empty);
    assert_eq!(last([none(5)]), LagState::Unknown);
    assert_eq!(last([look(9, 5)]), LagState::Unknown, "beyond the end");
    let failed = Look { end: None, ..look(0, 0) };
    assert_eq!(last([failed]), LagState::Unknown);
    // A failed look is none: the row goes on.
    let stands = (0..20).map(|n| if n == 12 { failed } else { look(0, 100) });
    assert_eq!(last(stands), LagState::Stalled);
}

#[test]
fn offsets_that_were_reset_begin_a_new_row() {
    let stands = (0..20).map(|_| look(50, 100));
    assert_eq!(last(stands.clone().chain([look(10, 100)])), LagState::Behind);
    let made_anew = stands.chain([look(50, 60)]);
    assert_eq!(last(made_anew), LagState::Behind);
}

/// The rules by their words, over all looks.
#[derive(Default)]
struct Naive {
    looks: Vec<(Instant, i64, i64, i64)>,
}

impl Naive {
    fn judge(&mut self, look: Look, now: Instant, window: Duration) -> LagState {
        let Some(Offset(end)) = look.end else { return LagState::Unknown };
        let Some(Offset(committed)) = look.committed else {
            self.looks.clear();
            return if end == 0 { LagState::Empty } else { LagState::Unknown };
        };
        if committed > end {
            self.looks.clear();
            return LagState::Unknown;
        }
        if self.looks.last().is_some_and(|(_, c, e, _)| *c > committed || *e > end) {
            self.looks.clear();
        }
        let lag = if look.drained { 0 } else { end - committed };
        self.looks.push((now, committed, end, lag));
        let within = |at: Instant| now - at < window;
        let steps = || self.looks.windows(2).filter(|pair| within(pair[1].0));
        let moved_now = self.looks.len() > 1 && self.looks[self.looks.len() - 2].1 < committed;
        if lag == 0 {
            return LagState::KeepsUp;
        }
        if look.reader == Reader::Nobody && !moved_now {
            return LagState::Stopped;
        }
        if self.looks.iter().any(|(at, .., lag)| *lag == 0 && within(*at)) {
            return LagState::KeepsUp;
        }
        let standing = self.looks.iter().rev().take_while(|(_, c, _, lag)| *c == committed && *lag > 0);
        let first = standing.last().unwrap().0;
        if self.looks.len() > 1 && now - first >= window {
            return LagState::Stalled;
        }
        if steps().any(|pair| pair[1].3 < pair[0].3) {
            return LagState::KeepsUp;
        }
        if steps().any(|pair| pair[1].3 > pair[0].3) {
            return LagState::Behind;
        }
        if steps().any(|pair| pair[1].1 > pair[0].1) { LagState::KeepsUp } else { LagState::Behind }
    }
}

#[derive(Debug, Clone)]
enum Event {
    /// Records are written, some are read, and a look follows after so many seconds.
    Look {
        wait: u64,
        written: i64,
        read: i64,
        reader: Reader,
        drained: bool,
    },
    /// The offsets are set back.
    Reset(i64),
    /// The topic is made anew, or the group's offsets expire.
    Anew,
    Forgotten,
    Failed,
}

fn event() -> impl Strategy<Value = Event> {
    let reader =
        prop_oneof![6 => Just(Reader::Member), 1 => Just(Reader::Nobody), 1 => Just(Reader::Unknown)];
    let look = (0u64..8, 0i64..4, 0i64..5, reader, prop::bool::weighted(0.05)).prop_map(
        |(wait, written, read, reader, drained)| Event::Look { wait, written, read, reader, drained },
    );
    prop_oneof![
        20 => look,
        1 => (0i64..20).prop_map(Event::Reset),
        1 => Just(Event::Anew),
        1 => Just(Event::Forgotten),
        1 => Just(Event::Failed),
    ]
}

proptest! {
    #[test]
    fn the_moments_kept_say_what_all_looks_would(
        events in prop::collection::vec(event(), 1..80), window in 0u64..15
    ) {
        let window = Duration::from_secs(window);
        let (mut course, mut naive) = (Course::default(), Naive::default());
        let (mut now, mut committed, mut end) = (Instant::now(), Some(0i64), 0i64);
        for event in events {
            let look = match event {
                Event::Look { wait, written, read, reader, drained } => {
                    now += Duration::from_secs(wait);
                    end += written;
                    committed = committed.map(|c| c.max((c + read).min(end)));
                    Look { committed: committed.map(Offset), end: Some(Offset(end)), drained, reader }
                }
                Event::Reset(to) => { committed = Some(to); continue }
                Event::Anew => { end = 0; continue }
                Event::Forgotten => { committed = None; continue }
                Event::Failed => Look { committed: None, end: None, drained: false, reader: Reader::Unknown },
            };
            prop_assert_eq!(
                course.handle_look(look, now, window), naive.judge(look, now, window), "{:?}", look
            );
        }
    }
}
