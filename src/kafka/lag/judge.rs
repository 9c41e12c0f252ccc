//! What a row of looks at one partition says of its reader. Pure.
//!
//! A look is what was committed and where the log ended at one moment. The rules are those of Burrow (LinkedIn's lag
//! checker): not a threshold, but what happened within the last *window*. The first that fits holds.
//!
//! | state | the latest look, and those within the window before it |
//! |---|---|
//! | unknown | the end is not known; or the commit is beyond the end (the topic was made anew, or lost records); or nothing was committed, so that nobody can say what will be read |
//! | empty | nothing was committed, and nothing was ever written |
//! | keeps up | no record waits |
//! | stopped | records wait, no member of the group has the partition, and the commit did not move since the look before |
//! | keeps up | at some look within the window no record waited |
//! | stalled | records have waited for a whole window, and the commit did not move in all of it |
//! | keeps up | the lag became smaller from one look to the next at least once within the window |
//! | behind | it became larger and never smaller |
//! | keeps up | it stayed the same while the commit moved |
//! | behind | records wait, and there was no second look yet, or it shows no movement |
//!
//! A commit that goes back (offsets were reset) and an end that goes back (the topic was made anew) begin a new row. A look
//! that failed is no look.
//!
//! From the look that first finds the commit standing still, a stall is told after one window and at most one interval. The
//! commit may have come to stand just after the look before. So it shows within two windows where the window is at least
//! twice the interval.
//!
//! It keeps a handful of moments for each partition and not the looks themselves, so the window costs no memory.

use std::time::{Duration, Instant};

use super::LagState;
use crate::Offset;

/// Who reads a partition, as the group's coordinator tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// A member has it.
    Member,
    /// The group is one of members, and none has it.
    Nobody,
    /// It is not told: the group is being balanced, or its readers are no members.
    Unknown,
}

/// One look at a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// What is committed; `None` for nothing.
    pub(super) committed: Option<Offset>,
    /// Where the log ends; `None` where that could not be asked.
    pub(super) end: Option<Offset>,
    /// Between the two stands no record for the application: transaction markers, or what compaction has left.
    pub(super) drained: bool,
    pub(super) reader: Reader,
}

/// What is remembered of a partition's looks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Course {
    row: Option<Row>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    /// The latest look.
    at: Instant,
    committed: Offset,
    end: Offset,
    lag: i64,
    /// When no record waited the last time.
    free: Option<Instant>,
    /// Since which look records wait and the commit stands; `None` where no record waits.
    stuck: Option<Instant>,
    /// When the commit moved, the lag shrank and grew the last time.
    moved: Option<Instant>,
    shrank: Option<Instant>,
    grew: Option<Instant>,
}

impl Course {
    /// Takes a look and judges. A `now` before the last one counts as the last one.
    pub(super) fn handle_look(&mut self, look: Look, now: Instant, window: Duration) -> LagState {
        let Some(end) = look.end else { return LagState::Unknown };
        let Some(committed) = look.committed else {
            self.row = None;
            return if end.0 == 0 { LagState::Empty } else { LagState::Unknown };
        };
        if committed > end {
            self.row = None;
            return LagState::Unknown;
        }
        let lag = if look.drained { 0 } else { end.0.saturating_sub(committed.0) };
        let before = self.row.filter(|row| row.committed <= committed && row.end <= end);
        let now = before.map_or(now, |row| row.at.max(now));
        let step = |happened: bool, last: Option<Instant>| if happened { Some(now) } else { last };
        let moved = before.is_some_and(|row| row.committed < committed);
        let stuck = before.filter(|_| !moved).and_then(|row| row.stuck).unwrap_or(now);
        let row = Row {
            at: now,
            committed,
            end,
            lag,
            free: step(lag == 0, before.and_then(|row| row.free)),
            stuck: (lag > 0).then_some(stuck),
            moved: step(moved, before.and_then(|row| row.moved)),
            shrank: step(before.is_some_and(|row| lag < row.lag), before.and_then(|row| row.shrank)),
            grew: step(before.is_some_and(|row| lag > row.lag), before.and_then(|row| row.grew)),
        };
        self.row = Some(row);
        let age = |at: Instant| now.saturating_duration_since(at);
        let lately = |at: Option<Instant>| at.is_some_and(|at| age(at) < window);
        match row {
            _ if lag == 0 => LagState::KeepsUp,
            _ if look.reader == Reader::Nobody && !moved => LagState::Stopped,
            _ if lately(row.free) => LagState::KeepsUp,
            Row { stuck: Some(since), .. } if before.is_some() && age(since) >= window => LagState::Stalled,
            _ if lately(row.shrank) => LagState::KeepsUp,
            _ if lately(row.grew) => LagState::Behind,
            _ if lately(row.moved) => LagState::KeepsUp,
            _ => LagState::Behind,
        }
    }
}

#[cfg(test)]
mod tests;
