//! What both kinds of members have in common.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::Assignor;
use crate::kafka::offsets::Place;
use crate::{Error, Topic};

/// The first pause after a failure; it doubles with each one that follows, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a member tells its coordinator, and keeps to.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) group: String,
    /// The name of a static member (KIP-345).
    pub(crate) instance: Option<String>,
    pub(crate) rack: Option<String>,
    /// How long the coordinator waits for a heartbeat before it gives the member up.
    pub(crate) session_timeout: Duration,
    /// Classic: how often a heartbeat is sent. The newer protocol's coordinator says it itself.
    pub(crate) heartbeat_interval: Duration,
    /// How long the coordinator waits for a member to let go of partitions and join again.
    pub(crate) rebalance_timeout: Duration,
    /// Classic: the assignors that this member can lead with, the preferred one first.
    pub(crate) assignors: Vec<Assignor>,
    /// KIP-848: the assignor that the coordinator is asked to use; its default without.
    pub(crate) server_assignor: Option<String>,
    /// KIP-848: a pattern of topics that the coordinator resolves, as RE2 writes it.
    pub(crate) pattern: Option<String>,
}

impl Settings {
    /// This member under an id of the coordinator's or its own, and the generation or member epoch.
    pub(super) fn identity(&self, member: &str, epoch: i32) -> Identity {
        Identity { member: member.to_owned(), instance: self.instance.clone(), epoch }
    }
}

/// Who a member is to its coordinator: what its commits carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    /// The generation, or the member epoch.
    pub(crate) epoch: i32,
}

/// What the consumer has to do.
#[derive(Debug)]
pub(crate) enum Event {
    /// These are this member's now: find their offsets and read.
    Assigned(Vec<Place>),
    /// Hand out nothing more of these, settle, commit, and say that they are released.
    Revoke(Vec<Place>),
    /// These belong to somebody else already: drop them, commit nothing.
    Lost(Vec<Place>),
    /// The membership has ended for good.
    Failed(Error),
}

/// Whether the member still has a place in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not a member yet, or not any more.
    Out,
    /// Joining, or letting go of partitions.
    Changing,
    /// A member with an assignment, which may be empty.
    In,
    /// Left, or failed for good.
    Ended,
}

/// For how long the coordinator keeps a member for certain: after that, others may own its partitions.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// When the last question was asked that the coordinator took.
    alive: Option<Instant>,
    /// When the last one was asked after whose answer it waited for nothing of this member.
    quiet: Option<Instant>,
}

impl Lease {
    /// A question of then was answered well.
    pub(super) fn handle_good(&mut self, asked: Instant) {
        self.alive = Some(asked);
    }

    /// And the coordinator waits for nothing.
    pub(super) fn handle_quiet(&mut self, asked: Instant) {
        self.quiet = Some(asked);
    }

    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// The end of the session, or of the time that a rebalance waits that may have begun after the last quiet answer.
    /// `None` where nothing is held.
    pub(super) fn until(&self, settings: &Settings) -> Option<Instant> {
        let session = self.alive? + settings.session_timeout;
        Some(self.quiet.map_or(session, |quiet| session.min(quiet + settings.rebalance_timeout)))
    }
}

/// Pauses after failures.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    pub(super) fn handle_failure(&mut self, now: Instant) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause);
    }

    pub(super) fn handle_success(&mut self) {
        *self = Self::default();
    }

    /// When the next try may be made, if that is after `now`.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|at| *at > now)
    }
}

/// The partitions of a member, and what the consumer has to be told of them.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    owned: BTreeSet<Place>,
    /// Those of the owned that the consumer was asked to let go of.
    releasing: BTreeSet<Place>,
    events: VecDeque<Event>,
}

impl Holdings {
    pub(super) fn owned(&self) -> &BTreeSet<Place> {
        &self.owned
    }

    pub(super) fn is_releasing(&self) -> bool {
        !self.releasing.is_empty()
    }

    pub(super) fn add(&mut self, places: Vec<Place>) {
        if !places.is_empty() {
            self.owned.extend(places.iter().cloned());
            self.events.push_back(Event::Assigned(places));
        }
    }

    /// Asks for these; [`handle_released`](Self::handle_released) is the answer.
    pub(super) fn revoke(&mut self, places: Vec<Place>) {
        if !places.is_empty() {
            self.releasing.extend(places.iter().cloned());
            self.events.push_back(Event::Revoke(places));
        }
    }

    pub(super) fn handle_released(&mut self, places: &[Place]) {
        for place in places {
            // What was lost meanwhile, and perhaps assigned anew, is not what was released.
            if self.releasing.remove(place) {
                self.owned.remove(place);
            }
        }
    }

    /// All of it belongs to others.
    pub(super) fn lose(&mut self) {
        self.releasing.clear();
        let lost: Vec<Place> = std::mem::take(&mut self.owned).into_iter().collect();
        if !lost.is_empty() {
            self.events.push_back(Event::Lost(lost));
        }
    }

    /// The consumer has dropped all of it already.
    pub(super) fn clear(&mut self) {
        self.owned.clear();
        self.releasing.clear();
        self.events.clear();
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.lose();
        self.events.push_back(Event::Failed(error));
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// Topics in the order in which they are sent.
pub(super) fn sorted(topics: impl IntoIterator<Item = Topic>) -> Vec<Topic> {
    let mut topics: Vec<Topic> = topics.into_iter().collect();
    topics.sort();
    topics.dedup();
    topics
}
