//! Membership of a group: who reads which partitions.
//!
//! ```text
//! classic, modern   PURE: a member by the classic protocol, and by that of KIP-848
//! member            PURE: what both have in common: settings, identity, what is owned and what is to be released
//! assignor          PURE: how a classic group's leader spreads partitions
//! protocol          PURE: subscriptions and assignments as bytes (the "consumer" protocol)
//! driver            one task that asks the coordinator what the machine wants asked
//! ```

mod assignor;
mod classic;
pub(crate) mod driver;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod member;
mod modern;
pub(crate) mod protocol;

use std::collections::BTreeMap;
use std::time::Instant;

use uuid::Uuid;

pub use assignor::Assignor;
pub(crate) use classic::Classic;
pub(crate) use member::{Event, Identity, Settings, Standing};
pub(crate) use modern::Modern;

use crate::Topic;
use crate::kafka::offsets::Place;

/// Which protocol a member of a group speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// The newer one where the cluster offers it (Kafka 4.0 and later, `group.version` 1), otherwise the classic one.
    #[default]
    Auto,
    /// Members join together and one of them assigns.
    Classic,
    /// The coordinator assigns, and each member is told what changes for it (KIP-848).
    Consumer,
}

/// A question that a member wants asked.
#[derive(Debug)]
pub(crate) enum Ask {
    Classic(classic::Ask),
    Modern(modern::Ask),
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    Classic(classic::Answer),
    Modern(modern::Answer),
}

/// A member by either protocol.
#[derive(Debug)]
pub(crate) enum Membership {
    Classic(Classic),
    Modern(Modern),
}

macro_rules! both {
    ($self:expr, $machine:ident => $do:expr) => {
        match $self {
            Membership::Classic($machine) => $do,
            Membership::Modern($machine) => $do,
        }
    };
}

impl Membership {
    pub(crate) fn classic(settings: Settings, topics: Vec<Topic>, now: Instant) -> Self {
        Self::Classic(Classic::new(settings, topics, now))
    }

    pub(crate) fn modern(settings: Settings, topics: Vec<Topic>, member: Uuid, now: Instant) -> Self {
        Self::Modern(Modern::new(settings, topics, member, now))
    }

    pub(crate) fn poll_ask(&mut self, now: Instant) -> Option<Ask> {
        match self {
            Self::Classic(m) => m.poll_ask(now).map(Ask::Classic),
            Self::Modern(m) => m.poll_ask(now).map(Ask::Modern),
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        both!(self, m => m.poll_timeout(now))
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        both!(self, m => m.poll_event())
    }

    pub(crate) fn lease(&self) -> Option<Instant> {
        both!(self, m => m.lease())
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        both!(self, m => m.identity())
    }

    pub(crate) fn standing(&self) -> Standing {
        both!(self, m => m.standing())
    }

    pub(crate) fn handle_answer(&mut self, answer: Answer, now: Instant) {
        match (self, answer) {
            (Self::Classic(m), Answer::Classic(answer)) => m.handle_answer(answer, now),
            (Self::Modern(m), Answer::Modern(answer)) => m.handle_answer(answer, now),
            // The driver answers what was asked.
            _ => {}
        }
    }

    pub(crate) fn handle_released(&mut self, places: &[Place], now: Instant) {
        match self {
            Self::Classic(m) => m.handle_released(places),
            Self::Modern(m) => m.handle_released(places, now),
        }
    }

    pub(crate) fn handle_refused_commit(&mut self, identity: &Identity, code: i16, now: Instant) {
        match self {
            Self::Classic(m) => m.handle_refused_commit(identity, code),
            Self::Modern(m) => m.handle_refused_commit(identity, code, now),
        }
    }

    pub(crate) fn handle_topics(&mut self, topics: Vec<Topic>) {
        both!(self, m => m.handle_topics(topics));
    }

    /// The topics whose partition counts this member watches: a classic group's leader does.
    pub(crate) fn watched(&self) -> Vec<Topic> {
        match self {
            Self::Classic(m) => m.watched(),
            Self::Modern(_) => Vec::new(),
        }
    }

    pub(crate) fn handle_shapes(&mut self, shapes: &BTreeMap<Topic, assignor::TopicShape>) {
        if let Self::Classic(m) = self {
            m.handle_shapes(shapes);
        }
    }

    pub(crate) fn handle_leave(&mut self) {
        both!(self, m => m.handle_leave());
    }
}

#[cfg(test)]
mod tests;
