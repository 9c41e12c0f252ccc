//! A member of a group by the classic protocol (JoinGroup, SyncGroup, Heartbeat, LeaveGroup). Pure.
//!
//! ```text
//!             +--------------------------- rejoin: nothing is left to release -----------+
//!             v                                                                          |
//!         Unjoined --Join--> Joining --leader--> Leading --shapes--> Syncing --ok--> Stable | Releasing
//!             ^                 |  \___________follower______________^   |               |      ^
//!             |                 |                                        |               +------+
//!             +---- id needed, rebalance, coordinator gone, fenced ------+        revoked, or a rebalance (eager)
//!
//!   any --fenced instance, denied, another protocol--> Failed        any --handle_leave--> Leaving --> Left
//! ```
//!
//! | state | what came | then |
//! |---|---|---|
//! | Joining | answer | leader: Leading; follower: Syncing |
//! | Joining | MEMBER_ID_REQUIRED | Unjoined under that id (KIP-394), joins at once |
//! | Joining, Syncing | connection lost, coordinator moved or loading, REBALANCE_IN_PROGRESS | Unjoined, joins after a pause; partitions stay |
//! | Leading | the partition counts of all members' topics | assigns; Syncing |
//! | Syncing | answer | adds are assigned; Releasing if something is to go (cooperative), else Stable |
//! | Stable | REBALANCE_IN_PROGRESS, topics changed | eager: Releasing (all); cooperative: Unjoined, partitions stay |
//! | Releasing | the last one is released | Unjoined, joins at once; heartbeats go on until then |
//! | any | UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION | all is lost; Unjoined |
//! | any | FENCED_INSTANCE_ID and what no retry mends | all is lost; Failed |
//!
//! A partition is assigned only by a SyncGroup answer of the generation that was joined last, and leaves the member
//! before it joins without it: so no two members of one generation hand it out.
//!
//! Order of calls: after each input [`poll_ask`](Classic::poll_ask), which asks one thing at a time, and then
//! [`poll_event`](Classic::poll_event) until `None`; the answer goes to [`handle_answer`](Classic::handle_answer).

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::member::{Event, Holdings, Identity, Lease, Pause, Settings, Standing, sorted};
use super::protocol::{Assignment, Subscription};
use super::{Assignor, assignor};
use crate::kafka::errors;
use crate::kafka::offsets::Place;
use crate::{Error, ErrorKind, Topic};

use kafka_protocol::ResponseError as Code;

pub(crate) use assignor::{Member, TopicShape};

/// A question to the coordinator; to the cluster, where it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// JoinGroup. The coordinator answers when all members have joined, or their time is up.
    Join { member: String, protocols: Vec<(&'static str, Bytes)> },
    /// The partitions of these topics, and their racks: of the cluster.
    Shapes(Vec<Topic>),
    /// SyncGroup.
    Sync { member: String, generation: i32, protocol: String, assignments: Vec<(String, Bytes)> },
    /// Heartbeat.
    Beat { member: String, generation: i32 },
    /// LeaveGroup.
    Leave { member: String },
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    Joined(Joined),
    Shapes(BTreeMap<Topic, TopicShape>),
    /// SyncGroup: the code, and this member's assignment.
    Synced(i16, Bytes),
    Beaten(i16),
    Left,
    /// No answer: the connection broke, the coordinator is not known, the answer makes no sense.
    Failed(Error),
}

/// The answer to JoinGroup.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) code: i16,
    pub(crate) generation: i32,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member: String,
    /// The leader alone is told of the others: id, instance, subscription.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
    /// The leader shall keep the assignment as it is (KIP-814).
    pub(crate) skip_assignment: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unjoined,
    Joining,
    Leading { members: Vec<Member>, skip: bool },
    Syncing { assignments: Vec<(String, Bytes)> },
    Stable,
    Releasing,
    Leaving,
    Ended,
}

/// What is asked at the moment, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    at: Instant,
    beat: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Classic {
    settings: Settings,
    topics: Vec<Topic>,
    member: String,
    /// -1 where there is none.
    generation: i32,
    protocol: Option<Assignor>,
    state: State,
    holdings: Holdings,
    /// The last assignment and its generation: what sticky assignors are told, also after it was let go.
    before: (Vec<Place>, i32),
    asked: Option<Asked>,
    rejoin: bool,
    /// The leader's: what it assigned by.
    shapes: Option<BTreeMap<Topic, TopicShape>>,
    beat_at: Instant,
    /// Quiet while no rebalance has begun that this member has not joined.
    lease: Lease,
    pause: Pause,
}

impl Classic {
    pub(crate) fn new(settings: Settings, topics: Vec<Topic>, now: Instant) -> Self {
        Self {
            settings,
            topics: sorted(topics),
            member: String::new(),
            generation: -1,
            protocol: None,
            state: State::Unjoined,
            holdings: Holdings::default(),
            before: (Vec::new(), -1),
            asked: None,
            rejoin: false,
            shapes: None,
            beat_at: now,
            lease: Lease::default(),
            pause: Pause::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether partitions are kept over a rebalance: where all the assignors allow it, as the Java client has it.
    fn is_cooperative(&self) -> bool {
        self.settings.assignors.iter().all(|a| a.is_cooperative())
    }

    /// What to ask now. Once given, it counts as asked.
    pub(crate) fn poll_ask(&mut self, now: Instant) -> Option<Ask> {
        if self.state == State::Leaving {
            // Whatever else is asked at the moment is of no interest any more.
            self.state = State::Ended;
            let member = std::mem::take(&mut self.member);
            self.asked = Some(Asked { at: now, beat: false });
            return Some(Ask::Leave { member });
        }
        if self.asked.is_some() || self.pause.until(now).is_some() {
            return None;
        }
        let released = !self.holdings.is_releasing();
        match &self.state {
            State::Stable if self.rejoin => self.begin_rejoin(),
            State::Releasing if released => self.state = State::Unjoined,
            _ => {}
        }
        let ask = match &self.state {
            State::Unjoined => {
                self.rejoin = false;
                self.state = State::Joining;
                Ask::Join { member: self.member.clone(), protocols: self.protocols() }
            }
            State::Leading { members, .. } => {
                Ask::Shapes(sorted(members.iter().flat_map(|m| m.subscription.topics.iter().cloned())))
            }
            State::Syncing { assignments } => Ask::Sync {
                member: self.member.clone(),
                generation: self.generation,
                protocol: self.protocol.map_or("", Assignor::name).to_owned(),
                assignments: assignments.clone(),
            },
            State::Stable | State::Releasing if now >= self.beat_at => {
                self.beat_at = now + self.settings.heartbeat_interval;
                self.asked = Some(Asked { at: now, beat: true });
                return Some(Ask::Beat { member: self.member.clone(), generation: self.generation });
            }
            State::Joining | State::Stable | State::Releasing | State::Leaving | State::Ended => return None,
        };
        self.asked = Some(Asked { at: now, beat: false });
        Some(ask)
    }

    /// When to poll again without anything happening; not before `now`.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.asked.is_some() || self.state == State::Ended {
            return None;
        }
        if let Some(at) = self.pause.until(now) {
            return Some(at);
        }
        match self.state {
            State::Stable if !self.rejoin => Some(self.beat_at.max(now)),
            State::Releasing if self.holdings.is_releasing() => Some(self.beat_at.max(now)),
            _ => Some(now),
        }
    }

    /// What the consumer has to do.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.holdings.poll_event()
    }

    /// Until when the coordinator keeps this member for certain; `None` without an assignment.
    pub(crate) fn lease(&self) -> Option<Instant> {
        self.lease.until(&self.settings)
    }

    /// Who commits; `None` where nobody may.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let may = self.generation >= 0 && self.state != State::Ended;
        may.then(|| self.settings.identity(&self.member, self.generation))
    }

    pub(crate) fn standing(&self) -> Standing {
        match self.state {
            State::Stable => Standing::In,
            State::Leaving | State::Ended => Standing::Ended,
            _ if self.generation < 0 => Standing::Out,
            _ => Standing::Changing,
        }
    }

    /// The consumer has let go of these, and committed what it could.
    pub(crate) fn handle_released(&mut self, places: &[Place]) {
        self.holdings.handle_released(places);
    }

    /// Leaves at the next poll. A static member stays listed until its session ends, so that it finds its partitions
    /// again after a restart (KIP-345).
    pub(crate) fn handle_leave(&mut self) {
        if matches!(self.state, State::Leaving | State::Ended) {
            return;
        }
        self.holdings.clear();
        self.lease.end();
        let silent = self.settings.instance.is_some() || self.member.is_empty();
        self.state = if silent { State::Ended } else { State::Leaving };
    }

    /// The topics that this member reads are others now (a pattern): it joins again if they are.
    pub(crate) fn handle_topics(&mut self, topics: Vec<Topic>) {
        let topics = sorted(topics);
        if topics != self.topics {
            self.topics = topics;
            self.rejoin = true;
        }
    }

    /// The leader looks at the topics it has assigned: it calls for a rebalance where they have grown or gone.
    pub(crate) fn handle_shapes(&mut self, shapes: &BTreeMap<Topic, TopicShape>) {
        if let Some(known) = &self.shapes
            && known
                .iter()
                .any(|(topic, shape)| shapes.get(topic).map_or(0, |s| s.partitions) != shape.partitions)
        {
            self.rejoin = true;
        }
    }

    /// The topics whose partition counts the leader watches.
    pub(crate) fn watched(&self) -> Vec<Topic> {
        self.shapes.iter().flat_map(|shapes| shapes.keys().cloned()).collect()
    }

    /// A commit was answered with a code of membership under this identity.
    pub(crate) fn handle_refused_commit(&mut self, identity: &Identity, code: i16) {
        if self.identity().as_ref() != Some(identity) {
            return;
        }
        match Code::try_from_code(code) {
            Some(Code::UnknownMemberId) => self.lose(true),
            Some(Code::IllegalGeneration) => self.lose(false),
            Some(Code::FencedInstanceId) => self.fail(code),
            _ => self.rejoin = true,
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
                self.holdings.fail(e);
            }
            Answer::Failed(_) => self.handle_failure(now, asked),
            Answer::Joined(joined) => self.handle_joined(joined, now, asked),
            Answer::Shapes(shapes) => self.handle_led(shapes),
            Answer::Synced(code, assignment) => self.handle_synced(code, assignment, now, asked),
            Answer::Beaten(code) => self.handle_beaten(code, now, asked),
            Answer::Left => {}
        }
    }

    fn handle_failure(&mut self, now: Instant, asked: Asked) {
        self.pause.handle_failure(now);
        // A question that holds up the others starts over; a heartbeat is simply the next one, soon.
        if asked.beat {
            self.beat_at = now;
        } else if matches!(self.state, State::Joining | State::Syncing { .. }) {
            self.state = State::Unjoined;
        }
    }

    fn handle_joined(&mut self, joined: Joined, now: Instant, asked: Asked) {
        match Code::try_from_code(joined.code) {
            None if joined.code == 0 => {}
            Some(Code::MemberIdRequired) if !joined.member.is_empty() => {
                self.member = joined.member;
                self.state = State::Unjoined;
                return;
            }
            Some(Code::UnknownMemberId) => {
                self.lose(true);
                // A second one at once would be a loop.
                return self.pause.handle_failure(now);
            }
            _ => return self.handle_code(joined.code, now, asked),
        }
        self.pause.handle_success();
        let Some(protocol) = Assignor::from_name(&joined.protocol) else {
            let e = format!(
                "group {}: the coordinator chose the protocol {:?}, which was not offered",
                self.settings.group, joined.protocol
            );
            self.state = State::Ended;
            return self.holdings.fail(Error::new(ErrorKind::Malformed, e));
        };
        self.lease.handle_good(asked.at);
        self.beat_at = now + self.settings.heartbeat_interval;
        self.member = joined.member;
        self.generation = joined.generation;
        self.protocol = Some(protocol);
        self.shapes = None;
        self.state = if joined.leader == self.member && !self.member.is_empty() {
            let members = joined.members.into_iter().map(|(id, instance, bytes)| {
                let subscription = Subscription::decode(bytes).unwrap_or_else(|e| {
                    tracing::warn!(group = %self.settings.group, member = %id, error = %e.report(), "a member whose subscription makes no sense gets nothing");
                    Subscription::default()
                });
                Member { id, instance, subscription }
            });
            State::Leading { members: members.collect(), skip: joined.skip_assignment }
        } else {
            State::Syncing { assignments: Vec::new() }
        };
    }

    fn handle_led(&mut self, shapes: BTreeMap<Topic, TopicShape>) {
        let State::Leading { members, skip } = &self.state else { return };
        let assignments = match self.protocol {
            Some(protocol) if !skip => protocol
                .assign(members, &shapes)
                .into_iter()
                .map(|(id, partitions)| (id, Assignment { partitions, user_data: None }.encode()))
                .collect(),
            _ => Vec::new(),
        };
        self.shapes = Some(shapes);
        self.state = State::Syncing { assignments };
    }

    fn handle_synced(&mut self, code: i16, assignment: Bytes, now: Instant, asked: Asked) {
        if code != 0 {
            return self.handle_code(code, now, asked);
        }
        // A member that the leader gave nothing may get no bytes at all.
        let assignment = if assignment.is_empty() {
            Assignment::default()
        } else {
            match Assignment::decode(assignment) {
                Ok(assignment) => assignment,
                Err(e) => {
                    let e = e.context(format!("group {}: this member's assignment", self.settings.group));
                    self.state = State::Ended;
                    return self.holdings.fail(e);
                }
            }
        };
        self.pause.handle_success();
        self.lease.handle_good(asked.at);
        self.lease.handle_quiet(asked.at);
        self.beat_at = now + self.settings.heartbeat_interval;
        let mut assigned = assignment.partitions;
        assigned.sort();
        assigned.dedup();
        let owned = self.holdings.owned();
        let revoked: Vec<Place> =
            owned.iter().filter(|p| assigned.binary_search(p).is_err()).cloned().collect();
        let added: Vec<Place> = assigned.iter().filter(|p| !owned.contains(*p)).cloned().collect();
        self.state = if revoked.is_empty() { State::Stable } else { State::Releasing };
        self.holdings.revoke(revoked);
        self.holdings.add(added);
        self.before = (assigned, self.generation);
    }

    fn handle_beaten(&mut self, code: i16, now: Instant, asked: Asked) {
        match Code::try_from_code(code) {
            None if code == 0 => {
                self.pause.handle_success();
                self.lease.handle_good(asked.at);
                self.lease.handle_quiet(asked.at);
            }
            Some(Code::RebalanceInProgress) => {
                self.pause.handle_success();
                self.lease.handle_good(asked.at);
                self.rejoin = true;
            }
            _ => self.handle_code(code, now, asked),
        }
    }

    /// What a code means that is none of the question's own.
    fn handle_code(&mut self, code: i16, now: Instant, asked: Asked) {
        match Code::try_from_code(code) {
            Some(Code::UnknownMemberId) => self.lose(true),
            Some(Code::IllegalGeneration) => self.lose(false),
            Some(Code::RebalanceInProgress) => {
                self.pause.handle_failure(now);
                self.state = State::Unjoined;
            }
            _ if errors::wants_coordinator(code) || errors::broker(code, "").is_retryable() => {
                self.handle_failure(now, asked);
            }
            _ => self.fail(code),
        }
    }

    fn begin_rejoin(&mut self) {
        self.rejoin = false;
        if self.is_cooperative() {
            self.state = State::Unjoined;
            return;
        }
        let all = self.holdings.owned().iter().cloned().collect();
        self.holdings.revoke(all);
        self.state = State::Releasing;
    }

    /// The coordinator does not know this member or its generation: its partitions are others' already.
    fn lose(&mut self, forgotten: bool) {
        self.holdings.lose();
        self.generation = -1;
        self.lease.end();
        self.shapes = None;
        self.state = State::Unjoined;
        if forgotten {
            self.member.clear();
        }
    }

    fn fail(&mut self, code: i16) {
        let group = &self.settings.group;
        let what = match Code::try_from_code(code) {
            Some(Code::FencedInstanceId) => format!(
                "group {group}: another consumer runs under the instance id {:?}; give each its own",
                self.settings.instance.as_deref().unwrap_or_default()
            ),
            Some(Code::InconsistentGroupProtocol) => format!(
                "group {group}: its members share none of the assignors {:?}, or the group is of another kind; use an \
                 assignor of theirs or another group",
                self.settings.assignors.iter().map(|a| a.name()).collect::<Vec<_>>()
            ),
            Some(Code::InvalidSessionTimeout) => format!(
                "group {group}: the broker does not allow a session timeout of {:?} (group.min.session.timeout.ms, \
                 group.max.session.timeout.ms)",
                self.settings.session_timeout
            ),
            Some(Code::GroupMaxSizeReached) => {
                format!("group {group} has as many members as it may (group.max.size)")
            }
            _ => format!("group {group}"),
        };
        self.state = State::Ended;
        self.generation = -1;
        self.lease.end();
        self.holdings.fail(errors::broker(code, what).retryable(false));
    }

    fn protocols(&self) -> Vec<(&'static str, Bytes)> {
        let owned: Vec<Place> =
            if self.is_cooperative() { self.holdings.owned().iter().cloned().collect() } else { Vec::new() };
        let (before, generation) = &self.before;
        let protocols = self.settings.assignors.iter().map(|assignor| {
            let subscription = Subscription {
                topics: self.topics.clone(),
                user_data: assignor.user_data(before, *generation),
                owned: owned.clone(),
                generation: Some(if owned.is_empty() { -1 } else { *generation }),
                rack: self.settings.rack.clone(),
            };
            (assignor.name(), subscription.encode())
        });
        protocols.collect()
    }
}

/// Whether an error ends the membership: waiting mends none of these.
pub(super) fn is_final(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Closed | ErrorKind::Unsupported | ErrorKind::Denied | ErrorKind::Config)
}
