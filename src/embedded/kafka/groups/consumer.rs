//! Consumer groups (KIP-848): the coordinator assigns, members heartbeat and bring their own state towards the target.
//!
//! ```text
//! group    Empty -> Assigning (its epoch is ahead of the target's) -> Reconciling -> Stable
//!
//! member               target has less            it still owns some of that
//!          Stable -----------------------> Revoking --------+
//!          ^    |                             |  ^----------+
//!          |    | target has more,            | it owns none of it
//!          |    | another still has it        v
//!          |    +---------------------> (next step towards the target)
//!          +------- all free ------------- Waiting: has what was free, waits for what others still own
//! ```
//!
//! A partition is given only when nobody owns it, so that it is never owned twice. A member that does not let go within
//! its rebalance timeout, or does not heartbeat within the session timeout, is removed. Each change of members,
//! subscriptions or subscribed topics raises the group's epoch; a member's epoch is that of the target it has reached.
//!
//! Differences from the real broker: the target is computed at once (there it may wait for an interval), and regular
//! expressions are resolved at the heartbeat that names them (there a moment later).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError as Code;
use kafka_protocol::protocol::StrBytes;
use regex::{Regex, RegexBuilder};
use uuid::Uuid;

use super::assignor::{self, Assignment, Assignor, Place, Subscriber};
use super::{Asker, GroupSettings};

/// A member that says goodbye.
pub(in crate::embedded::kafka) const LEAVE: i32 = -1;
/// A static member that will be back.
pub(in crate::embedded::kafka) const LEAVE_STATIC: i32 = -2;
/// The longest regular expression, and the most memory that it may take when compiled.
const REGEX_LENGTH: usize = 4096;
const REGEX_MEMORY: usize = 256 * 1024;

/// The topics of the cluster, as groups see them.
pub(in crate::embedded::kafka) trait Catalog {
    /// Changes whenever a topic comes, goes or grows.
    fn version(&self) -> u64;
    /// A topic's id and the number of its partitions.
    fn topic(&self, name: &str) -> Option<(Uuid, i32)>;
    /// All topics by name.
    fn each(&self, visit: &mut dyn FnMut(&str));
}

/// A member's heartbeat. What is `None` is as it was.
#[derive(Debug, Clone, Default)]
pub(in crate::embedded::kafka) struct Beat {
    pub(in crate::embedded::kafka) group: StrBytes,
    pub(in crate::embedded::kafka) member: StrBytes,
    /// 0 to join, [`LEAVE`], [`LEAVE_STATIC`], else the epoch that it has.
    pub(in crate::embedded::kafka) epoch: i32,
    pub(in crate::embedded::kafka) instance: Option<StrBytes>,
    pub(in crate::embedded::kafka) rack: Option<StrBytes>,
    pub(in crate::embedded::kafka) rebalance_timeout: Option<Duration>,
    pub(in crate::embedded::kafka) names: Option<BTreeSet<StrBytes>>,
    /// Empty: none any more.
    pub(in crate::embedded::kafka) regex: Option<StrBytes>,
    pub(in crate::embedded::kafka) assignor: Option<Assignor>,
    pub(in crate::embedded::kafka) owned: Option<BTreeSet<(Uuid, i32)>>,
    pub(in crate::embedded::kafka) client_id: StrBytes,
    pub(in crate::embedded::kafka) client_host: StrBytes,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded::kafka) struct Beaten {
    pub(in crate::embedded::kafka) member: StrBytes,
    pub(in crate::embedded::kafka) epoch: i32,
    /// Where it changed, or the member asks for it.
    pub(in crate::embedded::kafka) assignment: Option<BTreeSet<(Uuid, i32)>>,
}

/// A heartbeat that is refused: the code, and the real broker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded::kafka) struct Refused {
    pub(in crate::embedded::kafka) code: Code,
    pub(in crate::embedded::kafka) why: String,
}

impl Refused {
    pub(in crate::embedded::kafka) fn new(code: Code, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Stable,
    /// Has partitions to let go.
    Revoking,
    /// Others have partitions that it is to get.
    Waiting,
}

/// A member.
#[derive(Debug, Clone, Default)]
pub(in crate::embedded::kafka) struct Member {
    pub(in crate::embedded::kafka) instance: Option<StrBytes>,
    pub(in crate::embedded::kafka) rack: Option<StrBytes>,
    pub(in crate::embedded::kafka) client_id: StrBytes,
    pub(in crate::embedded::kafka) client_host: StrBytes,
    pub(in crate::embedded::kafka) epoch: i32,
    previous_epoch: i32,
    rebalance_timeout: Duration,
    pub(in crate::embedded::kafka) names: BTreeSet<StrBytes>,
    pub(in crate::embedded::kafka) regex: Option<StrBytes>,
    assignor: Option<Assignor>,
    phase: Phase,
    /// With the epoch at which each was given.
    assigned: BTreeMap<Place, i32>,
    revoking: Assignment,
    session_ends: Option<Instant>,
    revoke_ends: Option<Instant>,
}

impl Member {
    /// What it has, with what it has not let go of yet.
    pub(in crate::embedded::kafka) fn owned(&self) -> impl Iterator<Item = (Uuid, i32)> {
        self.assigned.keys().chain(&self.revoking).copied()
    }

    /// What it has and may keep.
    fn assigned(&self) -> impl Iterator<Item = (Uuid, i32)> {
        self.assigned.keys().copied()
    }

    fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|n| n.len() + 64).sum();
        let regex = self.regex.as_ref().map_or(0, |r| r.len());
        512 + names + regex + 64 * (self.assigned.len() + self.revoking.len())
    }
}

/// A regular expression that members subscribe by, and what it matches.
#[derive(Debug)]
struct Pattern {
    regex: Regex,
    topics: BTreeSet<StrBytes>,
}

/// The members of a consumer group.
#[derive(Debug)]
pub(in crate::embedded::kafka) struct Consumer {
    epoch: i32,
    /// Of the target.
    target_epoch: i32,
    target: BTreeMap<StrBytes, Assignment>,
    target_assignor: Assignor,
    members: BTreeMap<StrBytes, Member>,
    statics: BTreeMap<StrBytes, StrBytes>,
    /// Who has a partition, or has not let it go yet.
    owners: BTreeMap<Place, StrBytes>,
    patterns: BTreeMap<StrBytes, Pattern>,
    /// The topics subscribed to that are there.
    topics: BTreeMap<StrBytes, (Uuid, i32)>,
    /// The catalog's version when they were looked up.
    seen: Option<u64>,
    sessions: BTreeSet<(Instant, StrBytes)>,
    revocations: BTreeSet<(Instant, StrBytes)>,
}

impl Default for Consumer {
    fn default() -> Self {
        Self {
            // As the real broker: a group is made at epoch 1, its first member raises that.
            epoch: 1,
            target_epoch: 0,
            target: BTreeMap::new(),
            target_assignor: Assignor::default(),
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            owners: BTreeMap::new(),
            patterns: BTreeMap::new(),
            topics: BTreeMap::new(),
            seen: None,
            sessions: BTreeSet::new(),
            revocations: BTreeSet::new(),
        }
    }
}

impl Consumer {
    pub(in crate::embedded::kafka) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(in crate::embedded::kafka) fn target_epoch(&self) -> i32 {
        self.target_epoch
    }

    /// What assigned.
    pub(in crate::embedded::kafka) fn assignor(&self) -> Assignor {
        self.target_assignor
    }

    /// Members by id.
    pub(in crate::embedded::kafka) fn members(&self) -> impl Iterator<Item = (&StrBytes, &Member)> {
        self.members.iter()
    }

    /// What a member is to have.
    pub(in crate::embedded::kafka) fn target(&self, member: &StrBytes) -> impl Iterator<Item = (Uuid, i32)> {
        self.target.get(member).into_iter().flatten().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn subscribes(&self, topic: &StrBytes) -> bool {
        self.topics.contains_key(topic) || self.members.values().any(|m| m.names.contains(topic))
    }

    /// The name that ConsumerGroupDescribe and ListGroups give its state.
    pub(in crate::embedded::kafka) fn state(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(|m| m.phase == Phase::Stable && m.epoch == self.target_epoch) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let members: usize = self.members.values().map(Member::bytes).sum();
        members + self.owners.len() * 128 + self.topics.len() * 128 + self.patterns.len() * REGEX_MEMORY / 8
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next wanted.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let session = self.sessions.first().map(|(at, _)| *at);
        session.into_iter().chain(self.revocations.first().map(|(at, _)| *at)).min()
    }

    /// A member's heartbeat.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub(super) fn handle_beat(
        &mut self,
        beat: Beat,
        catalog: &dyn Catalog,
        settings: &GroupSettings,
        now: Instant,
    ) -> Result<Beaten, Refused> {
        if beat.epoch < 0 {
            return self.leave(&beat);
        }
        if let Some(pattern) = beat.regex.as_ref().filter(|p| !p.is_empty()) {
            self.compile(pattern)?;
        }
        let id = beat.member.clone();
        let joins = beat.epoch == 0;
        if joins && self.members.len() >= settings.max_members && !self.members.contains_key(&id) {
            self.prune();
            return Err(Refused::new(
                Code::GroupMaxSizeReached,
                format!(
                    "The consumer group has reached its maximum capacity of {} members.",
                    settings.max_members
                ),
            ));
        }
        if let Err(refused) = self.admit(&beat) {
            self.prune();
            return Err(refused);
        }
        // As the real broker: a request with everything in it is answered with everything.
        let full = beat.rebalance_timeout.is_some()
            && (beat.names.is_some() || beat.regex.is_some())
            && beat.owned.is_some();
        let owned = beat.owned.clone();
        let resubscribed = self.update(beat);
        if resubscribed || self.seen != Some(catalog.version()) {
            let changed = self.look_up(catalog);
            if changed || resubscribed {
                self.epoch += 1;
            }
        }
        if self.epoch > self.target_epoch {
            self.assign();
        }
        let before: BTreeSet<Place> =
            self.members.get(&id).map(|m| m.assigned().collect()).unwrap_or_default();
        self.reconcile(&id, owned.as_ref(), now);
        self.set_session(&id, now + settings.consumer_session_timeout);
        let Some(member) = self.members.get(&id) else {
            return Err(Refused::new(Code::UnknownMemberId, "the member is gone"));
        };
        let after: BTreeSet<Place> = member.assigned().collect();
        let assignment = (joins || full || before != after).then_some(after);
        Ok(Beaten { member: id, epoch: member.epoch, assignment })
    }

    /// Finds the member, or makes it.
    fn admit(&mut self, beat: &Beat) -> Result<(), Refused> {
        let id = &beat.member;
        let Some(instance) = &beat.instance else {
            if beat.epoch == 0 && !self.members.contains_key(id) {
                self.members.insert(id.clone(), Member::default());
                return Ok(());
            }
            return self.check_epoch(beat);
        };
        let holder = self.statics.get(instance).cloned();
        match (holder, beat.epoch) {
            (None, 0) => {
                if self.members.contains_key(id) {
                    self.check_epoch(beat)?;
                }
                let member = self.members.entry(id.clone()).or_default();
                member.instance = Some(instance.clone());
                self.statics.insert(instance.clone(), id.clone());
                Ok(())
            }
            (Some(holder), 0) => {
                let left = self.members.get(&holder).is_some_and(|m| m.epoch == LEAVE_STATIC);
                if !left {
                    return Err(Refused::new(
                        Code::UnreleasedInstanceId,
                        format!(
                            "Static member {id} with instance id {instance} cannot join the group because the instance id is owned by {holder} member."
                        ),
                    ));
                }
                self.take_over(&holder, id);
                Ok(())
            }
            (None, _) => {
                Err(Refused::new(Code::UnknownMemberId, format!("Instance id {instance} is unknown.")))
            }
            (Some(holder), _) if holder != *id => Err(Refused::new(
                Code::FencedInstanceId,
                format!("Static member {id} with instance id {instance} was fenced by member {holder}."),
            )),
            (Some(_), _) => self.check_epoch(beat),
        }
    }

    fn check_epoch(&self, beat: &Beat) -> Result<(), Refused> {
        let id = &beat.member;
        let Some(member) = self.members.get(id) else {
            return Err(Refused::new(
                Code::UnknownMemberId,
                format!("Member {id} is not a member of group {}.", beat.group),
            ));
        };
        if beat.epoch == member.epoch {
            return Ok(());
        }
        let greater = beat.epoch > member.epoch;
        // It may not have seen the answer that raised its epoch.
        let subset = beat.owned.as_ref().is_some_and(|o| o.iter().all(|p| member.assigned.contains_key(p)));
        if !greater && beat.epoch == member.previous_epoch && subset {
            return Ok(());
        }
        Err(Refused::new(
            Code::FencedMemberEpoch,
            format!(
                "The consumer group member has a {} member epoch ({}) than the one known by the group coordinator ({}). The member must abandon all its partitions and rejoin.",
                if greater { "greater" } else { "smaller" },
                beat.epoch,
                member.epoch
            ),
        ))
    }

    /// A static member is back under a new id: it gets the place of the old one, with what that had.
    fn take_over(&mut self, old: &StrBytes, id: &StrBytes) {
        let Some(mut member) = self.members.remove(old) else { return };
        for place in member.assigned.keys() {
            self.owners.insert(*place, id.clone());
        }
        if let Some(ends) = member.session_ends.take() {
            self.sessions.remove(&(ends, old.clone()));
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        if let Some(target) = self.target.remove(old) {
            self.target.insert(id.clone(), target);
        }
        member.epoch = 0;
        member.previous_epoch = 0;
        member.phase = Phase::Stable;
        self.members.insert(id.clone(), member);
    }

    /// Takes what the member says of itself. Is its subscription another?
    fn update(&mut self, beat: Beat) -> bool {
        let Some(member) = self.members.get_mut(&beat.member) else { return false };
        let fresh = member.epoch == 0 && !self.target.contains_key(&beat.member);
        member.client_id = beat.client_id;
        member.client_host = beat.client_host;
        if beat.rack.is_some() {
            member.rack = beat.rack;
        }
        if let Some(timeout) = beat.rebalance_timeout {
            member.rebalance_timeout = timeout;
        }
        if beat.assignor.is_some() {
            member.assignor = beat.assignor;
        }
        let mut changed = fresh;
        if let Some(names) = beat.names
            && member.names != names
        {
            member.names = names;
            changed = true;
        }
        if let Some(regex) = beat.regex {
            let regex = Some(regex).filter(|r| !r.is_empty());
            if member.regex != regex {
                member.regex = regex;
                changed = true;
            }
        }
        changed
    }

    fn compile(&mut self, pattern: &StrBytes) -> Result<(), Refused> {
        if self.patterns.contains_key(pattern) {
            return Ok(());
        }
        let refused = |why: String| {
            Refused::new(
                Code::InvalidRegularExpression,
                format!(
                    "SubscribedTopicRegex `{}` is not a valid regular expression: {why}.",
                    pattern.as_str()
                ),
            )
        };
        if pattern.len() > REGEX_LENGTH {
            return Err(refused(format!("it is longer than {REGEX_LENGTH} bytes")));
        }
        // A topic is matched as a whole.
        let regex =
            RegexBuilder::new(&format!("^(?:{})$", pattern.as_str())).size_limit(REGEX_MEMORY).build();
        let regex = regex.map_err(|e| {
            // The last line says why, those before it show where.
            let said = e.to_string();
            refused(said.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned())
        })?;
        self.patterns.insert(pattern.clone(), Pattern { regex, topics: BTreeSet::new() });
        self.seen = None;
        Ok(())
    }

    fn prune(&mut self) {
        let members = &self.members;
        self.patterns.retain(|pattern, _| members.values().any(|m| m.regex.as_ref() == Some(pattern)));
    }

    /// Looks up the topics subscribed to. Are they others than before, or have they grown?
    fn look_up(&mut self, catalog: &dyn Catalog) -> bool {
        self.prune();
        let version = catalog.version();
        if self.seen != Some(version) {
            for pattern in self.patterns.values_mut() {
                pattern.topics.clear();
            }
            if !self.patterns.is_empty() {
                catalog.each(&mut |name| {
                    for pattern in self.patterns.values_mut().filter(|p| p.regex.is_match(name)) {
                        pattern.topics.insert(StrBytes::from_string(name.to_owned()));
                    }
                });
            }
            self.seen = Some(version);
        }
        let named = self.members.values().flat_map(|m| &m.names);
        let matched = self.patterns.values().flat_map(|p| &p.topics);
        let topics: BTreeMap<StrBytes, (Uuid, i32)> = named
            .chain(matched)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter_map(|name| Some((name.clone(), catalog.topic(name)?)))
            .collect();
        let changed = topics != self.topics;
        self.topics = topics;
        changed
    }

    /// Computes the target.
    fn assign(&mut self) {
        // The assignor that most members ask for; the default where they ask for none.
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|m| m.assignor) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.values().copied().max();
        let assignor = votes.into_iter().find(|(_, n)| Some(*n) == most).map(|(a, _)| a).unwrap_or_default();
        let topics: BTreeMap<Uuid, i32> = self.topics.values().copied().collect();
        let id_of = |name: &StrBytes| self.topics.get(name).map(|(id, _)| *id);
        let members = self.members.iter().map(|(id, m)| {
            let matched = m.regex.as_ref().and_then(|r| self.patterns.get(r)).map(|p| &p.topics);
            let subscriber = Subscriber {
                instance: m.instance.clone(),
                topics: m.names.iter().chain(matched.into_iter().flatten()).filter_map(id_of).collect(),
                had: self.target.get(id).cloned().unwrap_or_default(),
            };
            (id.clone(), subscriber)
        });
        self.target = assignor::assign(assignor, &members.collect(), &topics);
        self.target_assignor = assignor;
        self.target_epoch = self.epoch;
    }

    /// Brings a member a step towards its target.
    fn reconcile(&mut self, id: &StrBytes, owned: Option<&Assignment>, now: Instant) {
        let Some(member) = self.members.get(id) else { return };
        let owns_of = |revoking: &Assignment| owned.is_none_or(|owned| !owned.is_disjoint(revoking));
        match member.phase {
            Phase::Stable if member.epoch == self.target_epoch => return,
            Phase::Revoking if owns_of(&member.revoking) => return,
            _ => {}
        }
        let empty = Assignment::new();
        let target = self.target.get(id).unwrap_or(&empty);
        let mut assigned = member.assigned.clone();
        assigned.retain(|place, _| target.contains(place));
        let revoking: Assignment =
            member.assigned.keys().filter(|place| !target.contains(place)).copied().collect();
        let (phase, epoch, revoking) = if !revoking.is_empty() && owns_of(&revoking) {
            (Phase::Revoking, member.epoch, revoking)
        } else {
            let mut waits = false;
            for place in target.iter().filter(|place| !member.assigned.contains_key(place)) {
                match self.owners.get(place) {
                    Some(owner) if owner != id => waits = true,
                    _ => {
                        assigned.insert(*place, self.target_epoch);
                    }
                }
            }
            (if waits { Phase::Waiting } else { Phase::Stable }, self.target_epoch, Assignment::new())
        };
        self.set_current(id, phase, epoch, assigned, revoking, now);
    }

    fn set_current(
        &mut self,
        id: &StrBytes,
        phase: Phase,
        epoch: i32,
        assigned: BTreeMap<Place, i32>,
        revoking: Assignment,
        now: Instant,
    ) {
        let Some(member) = self.members.get_mut(id) else { return };
        for place in member.assigned.keys().chain(&member.revoking) {
            self.owners.remove(place);
        }
        for place in assigned.keys().chain(&revoking) {
            self.owners.insert(*place, id.clone());
        }
        if epoch != member.epoch {
            member.previous_epoch = member.epoch;
            member.epoch = epoch;
        }
        member.phase = phase;
        member.assigned = assigned;
        member.revoking = revoking;
        if let Some(ends) = member.revoke_ends.take() {
            self.revocations.remove(&(ends, id.clone()));
        }
        if phase == Phase::Revoking {
            let ends = now + member.rebalance_timeout;
            member.revoke_ends = Some(ends);
            self.revocations.insert((ends, id.clone()));
        }
    }

    fn leave(&mut self, beat: &Beat) -> Result<Beaten, Refused> {
        let id = &beat.member;
        if let Some(instance) = &beat.instance {
            match self.statics.get(instance) {
                None => {
                    return Err(Refused::new(
                        Code::UnknownMemberId,
                        format!("Instance id {instance} is unknown."),
                    ));
                }
                Some(holder) if holder != id => {
                    return Err(Refused::new(
                        Code::FencedInstanceId,
                        format!(
                            "Static member {id} with instance id {instance} was fenced by member {holder}."
                        ),
                    ));
                }
                Some(_) => {}
            }
        }
        if !self.members.contains_key(id) {
            return Err(Refused::new(
                Code::UnknownMemberId,
                format!("Member {id} is not a member of group {}.", beat.group),
            ));
        }
        if beat.epoch == LEAVE_STATIC {
            self.leave_for_now(id);
        } else {
            self.remove(id);
        }
        Ok(Beaten { member: id.clone(), epoch: beat.epoch, assignment: None })
    }

    /// A static member will be back: it keeps what it has until its session ends.
    fn leave_for_now(&mut self, id: &StrBytes) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.epoch = LEAVE_STATIC;
        for place in std::mem::take(&mut member.revoking) {
            self.owners.remove(&place);
        }
        if let Some(ends) = member.revoke_ends.take() {
            self.revocations.remove(&(ends, id.clone()));
        }
    }

    /// Removes a member; the others share what it had. `false` where it is not there.
    pub(super) fn remove(&mut self, id: &StrBytes) -> bool {
        let Some(member) = self.members.remove(id) else { return false };
        for place in member.assigned.keys().chain(&member.revoking) {
            self.owners.remove(place);
        }
        if let Some(instance) = &member.instance
            && self.statics.get(instance) == Some(id)
        {
            self.statics.remove(instance);
        }
        if let Some(ends) = member.session_ends {
            self.sessions.remove(&(ends, id.clone()));
        }
        if let Some(ends) = member.revoke_ends {
            self.revocations.remove(&(ends, id.clone()));
        }
        self.target.remove(id);
        self.epoch += 1;
        self.prune();
        // Topics that nobody else subscribes to are forgotten at the next heartbeat.
        self.seen = None;
        if self.members.is_empty() {
            self.topics.clear();
        }
        true
    }

    fn set_session(&mut self, id: &StrBytes, ends: Instant) {
        if let Some(member) = self.members.get_mut(id) {
            if let Some(old) = member.session_ends.replace(ends) {
                self.sessions.remove(&(old, id.clone()));
            }
            self.sessions.insert((ends, id.clone()));
        }
    }

    /// Removes members whose session is over, and those that did not let go in time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for timers in [|c: &Self| c.sessions.first().cloned(), |c: &Self| c.revocations.first().cloned()] {
            while let Some((_, id)) = timers(self).filter(|(at, _)| *at <= now) {
                if !self.remove(&id) {
                    self.sessions.retain(|(_, other)| *other != id);
                    self.revocations.retain(|(_, other)| *other != id);
                }
            }
        }
    }

    /// The coordinator moved: all sessions begin anew.
    pub(super) fn handle_moved(&mut self, settings: &GroupSettings, now: Instant) {
        let ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for id in ids {
            self.set_session(&id, now + settings.consumer_session_timeout);
        }
    }

    /// May offsets of these partitions be committed? Those that may not are returned (KIP-1251: a member with an older
    /// epoch may commit what it has had since then).
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH, or UNSUPPORTED_VERSION below version 9.
    pub(super) fn check_commit(
        &self,
        asker: &Asker,
        places: impl Iterator<Item = (StrBytes, i32)>,
    ) -> Result<Vec<(StrBytes, i32)>, Code> {
        // A client that administers an empty group, or that takes part in a transaction only.
        if asker.generation < 0 && (self.members.is_empty() || asker.transactional) {
            return Ok(Vec::new());
        }
        let member = self.members.get(&asker.member).ok_or(Code::UnknownMemberId)?;
        if !asker.transactional && asker.version < 9 {
            return Err(Code::UnsupportedVersion);
        }
        if asker.generation == member.epoch {
            return Ok(Vec::new());
        }
        if asker.generation > member.epoch || asker.transactional || asker.generation < 0 {
            return Err(Code::StaleMemberEpoch);
        }
        let stale = places.filter(|(topic, partition)| {
            let place = self.topics.get(topic).map(|(id, _)| (*id, *partition));
            let since = place.and_then(|place| member.assigned.get(&place));
            since.is_none_or(|since| *since > asker.generation)
        });
        Ok(stale.collect())
    }

    /// May a member see the offsets?
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH.
    pub(super) fn check_fetch(&self, asker: &Asker) -> Result<(), Code> {
        if asker.member.is_empty() && asker.generation < 0 {
            return Ok(());
        }
        let member = self.members.get(&asker.member).ok_or(Code::UnknownMemberId)?;
        if asker.generation == member.epoch { Ok(()) } else { Err(Code::StaleMemberEpoch) }
    }
}

#[cfg(test)]
mod tests;
