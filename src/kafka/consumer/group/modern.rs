//! A member of a group by the protocol of KIP-848: one heartbeat, and the coordinator assigns. Pure.
//!
//! ```text
//!   Joining --epoch 0, all facts--> Member --target--> Releasing --released--> Member, tells what it owns
//!      ^                              |                                          |
//!      +---- fenced, unknown: all is lost, epoch 0 <-----------------------------+
//!
//!   any --fenced instance, denied, a pattern or assignor that is refused--> Ended
//!   any --handle_leave--> Leaving (epoch -1, static -2) --> Ended
//! ```
//!
//! | state | what came | then |
//! |---|---|---|
//! | any | answer with an assignment | it is the target: what is owned and not in it is revoked; once that is released the rest is assigned |
//! | any | a target is reached | a heartbeat at once that says what is owned, also where nothing has changed |
//! | Joining | UNRELEASED_INSTANCE_ID | tried again until the session of the one before must have ended (1.5 times the session timeout) |
//! | any | FENCED_MEMBER_EPOCH, UNKNOWN_MEMBER_ID | all is lost; Joining, at once |
//! | any | connection lost, coordinator moved or loading | again after a pause, with all facts; partitions stay |
//!
//! The coordinator gives a partition to this member only after the one before told that it owns it no more, and this member
//! tells so only after it has released it.
//!
//! Order of calls: as in [`classic`](super::classic).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError as Code;
use uuid::Uuid;

use super::classic::is_final;
use super::member::{Event, Holdings, Identity, Lease, Pause, Settings, Standing, sorted};
use crate::kafka::errors;
use crate::kafka::offsets::Place;
use crate::{Error, Partition, Topic};

/// A partition as the coordinator names it.
pub(crate) type Id = (Uuid, i32);

/// A question to the coordinator; to the cluster, where it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// ConsumerGroupHeartbeat.
    Beat(Beat),
    /// The names of these topics: of the cluster.
    Names(Vec<Uuid>),
}

/// What a heartbeat says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) member: String,
    /// 0 joins, -1 leaves, -2 leaves for a while (static members).
    pub(crate) epoch: i32,
    /// Whether all facts of the member come along: topics, pattern, rack, assignor, time-out.
    pub(crate) full: bool,
    /// The topics that are read; with all facts alone.
    pub(crate) topics: Vec<Topic>,
    /// What is owned, where the coordinator does not know it yet.
    pub(crate) owned: Option<Vec<Id>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    Beaten(Beaten),
    Names(BTreeMap<Uuid, Topic>),
    /// No answer: the connection broke, the coordinator is not known, the answer makes no sense.
    Failed(Error),
}

/// The answer to a heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Beaten {
    pub(crate) code: i16,
    pub(crate) message: String,
    pub(crate) epoch: i32,
    pub(crate) interval: Duration,
    /// The target, where it is news.
    pub(crate) assignment: Option<Vec<Id>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Joining,
    Member,
    Leaving,
    Ended,
}

/// What is asked at the moment.
#[derive(Debug)]
struct Asked {
    at: Instant,
    /// What the heartbeat said is owned.
    owned: Option<Vec<Id>>,
}

/// The bounds of the interval that a coordinator may ask for.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(60);
/// Between two questions for the names of topics.
const NAMES_PAUSE: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Modern {
    settings: Settings,
    topics: Vec<Topic>,
    member: String,
    epoch: i32,
    state: State,
    holdings: Holdings,
    /// The ids of what is owned.
    ids: BTreeMap<Id, Place>,
    target: Option<BTreeSet<Id>>,
    names: BTreeMap<Uuid, Topic>,
    /// Topics of the target whose names are not known, and when to ask for them again.
    nameless: Option<Instant>,
    /// What the coordinator knows to be owned; `None` where it must be told.
    told: Option<Vec<Id>>,
    /// Whether the next heartbeat carries all facts.
    full: bool,
    asked: Option<Asked>,
    interval: Duration,
    beat_at: Instant,
    /// Quiet while no target is to be reached.
    lease: Lease,
    pause: Pause,
    /// Since when a static member waits for the session of the one before to end.
    unreleased: Option<Instant>,
}

impl Modern {
    /// `member` is a random UUID, this member's for as long as the process runs (KIP-1082).
    pub(crate) fn new(settings: Settings, topics: Vec<Topic>, member: Uuid, now: Instant) -> Self {
        Self {
            settings,
            topics: sorted(topics),
            member: member.to_string(),
            epoch: 0,
            state: State::Joining,
            holdings: Holdings::default(),
            ids: BTreeMap::new(),
            target: None,
            names: BTreeMap::new(),
            nameless: None,
            told: None,
            full: true,
            asked: None,
            interval: Duration::from_secs(5),
            beat_at: now,
            lease: Lease::default(),
            pause: Pause::default(),
            unreleased: None,
        }
    }

    fn owned_ids(&self) -> Vec<Id> {
        self.ids.keys().copied().collect()
    }

    /// What to ask now. Once given, it counts as asked.
    pub(crate) fn poll_ask(&mut self, now: Instant) -> Option<Ask> {
        if self.state == State::Leaving {
            self.state = State::Ended;
            self.asked = Some(Asked { at: now, owned: None });
            let epoch = if self.settings.instance.is_some() { -2 } else { -1 };
            let beat =
                Beat { member: self.member.clone(), epoch, full: false, topics: Vec::new(), owned: None };
            return Some(Ask::Beat(beat));
        }
        if self.state == State::Ended || self.asked.is_some() || self.pause.until(now).is_some() {
            return None;
        }
        if self.nameless.is_some_and(|at| at <= now) {
            let target = self.target.iter().flatten();
            let ids: BTreeSet<Uuid> =
                target.map(|id| id.0).filter(|id| !self.names.contains_key(id)).collect();
            self.nameless = None;
            if !ids.is_empty() {
                self.asked = Some(Asked { at: now, owned: None });
                return Some(Ask::Names(ids.into_iter().collect()));
            }
        }
        if now < self.beat_at && !self.is_news() {
            return None;
        }
        let owned = (self.full || self.is_news()).then(|| self.owned_ids());
        // Whoever joins owns nothing.
        let owned = owned.map(|ids| if self.epoch == 0 { Vec::new() } else { ids });
        let topics = if self.full { self.topics.clone() } else { Vec::new() };
        let beat = Beat {
            member: self.member.clone(),
            epoch: self.epoch,
            full: self.full,
            topics,
            owned: owned.clone(),
        };
        self.asked = Some(Asked { at: now, owned });
        self.beat_at = now + self.interval;
        Some(Ask::Beat(beat))
    }

    /// Whether what is owned is something that the coordinator waits to hear: not while partitions are being released.
    fn is_news(&self) -> bool {
        self.state == State::Member
            && !self.holdings.is_releasing()
            && self.told.as_ref().is_none_or(|told| !told.iter().eq(self.ids.keys()))
    }

    /// When to poll again without anything happening; not before `now`.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.asked.is_some() || self.state == State::Ended {
            return None;
        }
        if let Some(at) = self.pause.until(now) {
            return Some(at);
        }
        if self.is_news() || self.state == State::Leaving {
            return Some(now);
        }
        let at = self.nameless.map_or(self.beat_at, |at| at.min(self.beat_at));
        Some(at.max(now))
    }

    /// What the consumer has to do.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.holdings.poll_event()
    }

    /// Until when the coordinator keeps this member for certain, if its session timeout is the one that was set here (the
    /// protocol does not tell); `None` without an assignment.
    pub(crate) fn lease(&self) -> Option<Instant> {
        self.lease.until(&self.settings)
    }

    /// Who commits; `None` where nobody may.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let may = self.epoch > 0 && matches!(self.state, State::Member | State::Leaving);
        may.then(|| self.settings.identity(&self.member, self.epoch))
    }

    pub(crate) fn standing(&self) -> Standing {
        match self.state {
            State::Joining => Standing::Out,
            State::Member if self.holdings.is_releasing() || self.is_news() => Standing::Changing,
            State::Member => Standing::In,
            State::Leaving | State::Ended => Standing::Ended,
        }
    }

    /// The consumer has let go of these, and committed what it could.
    pub(crate) fn handle_released(&mut self, places: &[Place], now: Instant) {
        self.holdings.handle_released(places);
        let owned = self.holdings.owned();
        self.ids.retain(|_, place| owned.contains(place));
        self.reconcile(now);
    }

    /// Leaves at the next poll.
    pub(crate) fn handle_leave(&mut self) {
        if matches!(self.state, State::Leaving | State::Ended) {
            return;
        }
        // Asked once, the coordinator may know this member even if its answer did not come.
        let known = self.state == State::Member || self.asked.is_some();
        self.state = if known { State::Leaving } else { State::Ended };
        self.lease.end();
        self.holdings.clear();
        self.ids.clear();
    }

    /// The topics that this member reads are others now: the coordinator is told at once.
    pub(crate) fn handle_topics(&mut self, topics: Vec<Topic>) {
        let topics = sorted(topics);
        if topics != self.topics {
            self.topics = topics;
            self.full = true;
            self.told = None;
        }
    }

    /// A commit was answered with a code of membership under this identity.
    pub(crate) fn handle_refused_commit(&mut self, identity: &Identity, code: i16, now: Instant) {
        if self.identity().as_ref() != Some(identity) {
            return;
        }
        match Code::try_from_code(code) {
            Some(Code::UnknownMemberId | Code::FencedMemberEpoch) => self.lose(now),
            Some(Code::FencedInstanceId) => self.fail(code, ""),
            // The epoch is old: the next heartbeat brings the new one.
            _ => self.beat_at = now,
        }
    }

    /// Takes the answer to what was asked last.
    pub(crate) fn handle_answer(&mut self, answer: Answer, now: Instant) {
        let Some(asked) = self.asked.take() else { return };
        if matches!(self.state, State::Leaving | State::Ended) {
            return;
        }
        match answer {
            Answer::Failed(e) if is_final(&e) => {
                self.state = State::Ended;
                self.ids.clear();
                self.holdings.fail(e);
            }
            Answer::Failed(_) => {
                self.handle_failure(now);
                self.reconcile(now);
            }
            Answer::Names(names) => {
                self.names.extend(names);
                self.reconcile(now);
                // The brokers' metadata may be behind the coordinator: ask again, not in a hurry.
                self.nameless = self.nameless.map(|_| now + self.interval.min(NAMES_PAUSE));
            }
            Answer::Beaten(beaten) => self.handle_beaten(beaten, now, asked),
        }
    }

    fn handle_failure(&mut self, now: Instant) {
        self.pause.handle_failure(now);
        // Whether the coordinator took the last one is not known, and the next one may be another.
        self.full = true;
        self.told = None;
        self.beat_at = now;
    }

    fn handle_beaten(&mut self, beaten: Beaten, now: Instant, asked: Asked) {
        if beaten.code != 0 {
            return self.handle_code(&beaten, now);
        }
        self.pause.handle_success();
        self.unreleased = None;
        self.lease.handle_good(asked.at);
        self.interval = beaten.interval.clamp(SHORTEST, LONGEST);
        self.beat_at = asked.at + self.interval;
        self.full = false;
        if let Some(owned) = asked.owned {
            self.told = Some(owned);
        }
        self.epoch = beaten.epoch;
        self.state = State::Member;
        if let Some(target) = beaten.assignment {
            // Each target is answered by what is owned once it is reached, also where that is the same as before: an
            // answer before this one may have been lost, and the coordinator waits to hear that what it gave is not owned.
            self.told = None;
            self.target = Some(target.into_iter().collect());
            self.reconcile(now);
        } else if !self.holdings.is_releasing() && !self.is_news() {
            self.lease.handle_quiet(asked.at);
        }
    }

    fn handle_code(&mut self, beaten: &Beaten, now: Instant) {
        let code = beaten.code;
        match Code::try_from_code(code) {
            Some(Code::UnknownMemberId | Code::FencedMemberEpoch) => {
                let joining = self.epoch == 0;
                self.lose(now);
                // A second one at once would be a loop.
                if joining {
                    self.pause.handle_failure(now);
                }
            }
            Some(Code::UnreleasedInstanceId)
                if now.duration_since(*self.unreleased.get_or_insert(now))
                    < self.settings.session_timeout * 3 / 2 =>
            {
                self.pause.handle_failure(now);
                self.beat_at = now;
            }
            _ if errors::wants_coordinator(code) || errors::broker(code, "").is_retryable() => {
                self.handle_failure(now);
            }
            _ => self.fail(code, &beaten.message),
        }
    }

    /// One step towards the target, unless one is under way: first what goes, then what comes.
    fn reconcile(&mut self, now: Instant) {
        let Some(target) = &self.target else { return };
        if self.state != State::Member || self.holdings.is_releasing() {
            return;
        }
        let revoked: Vec<Place> =
            self.ids.iter().filter(|(id, _)| !target.contains(*id)).map(|(_, place)| place.clone()).collect();
        if !revoked.is_empty() {
            return self.holdings.revoke(revoked);
        }
        let mut added = Vec::new();
        let mut nameless = false;
        for id in target.iter().filter(|id| !self.ids.contains_key(*id)) {
            match self.names.get(&id.0) {
                Some(topic) => added.push((*id, (topic.clone(), Partition(id.1)))),
                None => nameless = true,
            }
        }
        if nameless {
            self.nameless.get_or_insert(now);
        }
        let places = added.iter().map(|(_, place)| place.clone()).collect();
        self.ids.extend(added);
        self.holdings.add(places);
    }

    /// The coordinator does not know this member or its epoch: its partitions are others' already.
    fn lose(&mut self, now: Instant) {
        self.holdings.lose();
        self.ids.clear();
        self.target = None;
        self.told = None;
        self.full = true;
        self.epoch = 0;
        self.lease.end();
        self.state = State::Joining;
        self.beat_at = now;
    }

    fn fail(&mut self, code: i16, message: &str) {
        let group = &self.settings.group;
        let what = match Code::try_from_code(code) {
            Some(Code::FencedInstanceId | Code::UnreleasedInstanceId) => format!(
                "group {group}: another consumer runs under the instance id {:?}; give each its own",
                self.settings.instance.as_deref().unwrap_or_default()
            ),
            Some(Code::GroupMaxSizeReached) => {
                format!("group {group} has as many members as it may (group.consumer.max.size)")
            }
            Some(Code::UnsupportedAssignor) => format!(
                "group {group}: the broker has no assignor {:?} (group.consumer.assignors)",
                self.settings.server_assignor.as_deref().unwrap_or_default()
            ),
            Some(Code::InvalidRegularExpression) => format!(
                "group {group}: the broker does not take the pattern {:?}",
                self.settings.pattern.as_deref().unwrap_or_default()
            ),
            _ => format!("group {group}"),
        };
        let what = if message.is_empty() { what } else { format!("{what} ({message})") };
        self.state = State::Ended;
        self.ids.clear();
        self.lease.end();
        self.holdings.fail(errors::broker(code, what).retryable(false));
    }
}
