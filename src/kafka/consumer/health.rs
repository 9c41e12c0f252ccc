//! What is wrong with a consumer, and since when: for a readiness probe.
#![allow(clippy::disallowed_methods, reason = "a complaint carries the time since when it holds")]

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::kafka::client::lock;
use crate::{Error, Offset, Partition, Topic};

/// What is wrong with a consumer: [`Consumer::health`](super::Consumer::health).
#[derive(Debug)]
pub struct Health {
    /// Each thing that is wrong, the longest first. Empty: all is well.
    pub complaints: Vec<Complaint>,
}

impl Health {
    /// Whether nothing has been wrong for longer than this: what a readiness probe asks. A rebalance or a leader that
    /// moves takes a few seconds; half a minute is a usual patience.
    #[must_use]
    pub fn is_well_for(&self, patience: Duration) -> bool {
        self.complaints.iter().all(|c| c.lasting <= patience)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.complaints.is_empty() {
            return f.write_str("all is well");
        }
        for (i, complaint) in self.complaints.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{complaint}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Complaint {
    /// What.
    pub ailment: Ailment,
    /// For how long.
    pub lasting: Duration,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {:.1?}: {}", self.lasting, self.ailment)
    }
}

/// What can be wrong with a consumer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ailment {
    /// The membership has ended for good; [`Consumer::next`](super::Consumer::next) has told why.
    Ended,
    /// The group has not taken this member in yet, or not again.
    NotInGroup,
    /// The group's coordinator cannot be reached, or does not answer: the last error.
    Coordinator(Error),
    /// A partition has no leader, or its leader cannot be reached.
    Unreachable(Topic, Partition),
    /// A partition has stopped with an error, which [`Consumer::next`](super::Consumer::next) has told.
    Stopped(Topic, Partition),
    /// A partition has records, and the offset that may be committed does not move: the delivery at this offset is not
    /// settled, or the application reads no more.
    NoProgress(Topic, Partition, Offset),
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the membership has ended"),
            Self::NotInGroup => f.write_str("not a member of the group"),
            Self::Coordinator(e) => write!(f, "the group's coordinator does not answer ({})", e.report()),
            Self::Unreachable(topic, partition) => {
                write!(f, "topic {topic} partition {partition} has no leader that answers")
            }
            Self::Stopped(topic, partition) => {
                write!(f, "topic {topic} partition {partition} has stopped with an error")
            }
            Self::NoProgress(topic, partition, offset) => {
                write!(f, "topic {topic} partition {partition} does not get past offset {offset}")
            }
        }
    }
}

/// What does not work at the moment, and since when.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    state: Mutex<Option<(Instant, Error)>>,
}

impl Trouble {
    /// It does not work. The first time counts as the beginning, the last error is kept.
    pub(crate) fn set(&self, e: &Error) {
        let mut state = lock(&self.state);
        let since = state.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *state = Some((since, e.duplicate()));
    }

    /// It works.
    pub(crate) fn clear(&self) {
        *lock(&self.state) = None;
    }

    /// Since when it does not work, and why.
    pub(crate) fn get(&self) -> Option<(Instant, Error)> {
        lock(&self.state).as_ref().map(|(since, e)| (*since, e.duplicate()))
    }
}
