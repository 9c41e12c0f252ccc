//! Groups: their members and their offsets. Pure: requests and time in, answers out.
//!
//! ```text
//! coordinator   which broker coordinates a group or a transactional id
//! offsets       committed offsets, and those that wait for a transaction's end
//! classic       groups whose clients assign (JoinGroup, SyncGroup)
//! consumer      groups whose coordinator assigns (KIP-848)
//! assignor      the coordinator's assignors
//! drive         between them and the cluster: waiting answers, topics, what a user does
//! ```
//!
//! A group that only commits offsets is a classic one without members and without a protocol type. A group without
//! members becomes one of the other kind when a member of that kind joins; its offsets stay. A join of the other kind
//! while there are members is refused, where the real broker can mix both.
//!
//! After any input, [`Groups::poll_answer`] until it is empty and [`Groups::poll_timeout`].

mod assignor;
mod classic;
mod consumer;
mod coordinator;
mod drive;
mod offsets;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError as Code;
use kafka_protocol::protocol::StrBytes;

pub(super) use assignor::Assignor;
pub(super) use classic::{Classic, Join, State, Sync};
pub(super) use consumer::{Beat, Beaten, Catalog, Consumer, LEAVE, LEAVE_STATIC, Refused};
pub(super) use coordinator::{Coordinated, Coordinators};
pub(super) use offsets::{Committed, Offsets};

use crate::NodeId;
use crate::embedded::machine::ConnectionId;

/// What groups are told, with the real broker's names.
#[derive(Debug, Clone)]
pub(crate) struct GroupSettings {
    /// `group.initial.rebalance.delay.ms`: how long a group that was empty waits for more members, each time somebody
    /// came in. Default 0 (the real broker: 3 s), so that tests do not wait.
    pub(crate) initial_rebalance_delay: Duration,
    /// `group.min.session.timeout.ms`. Default 10 ms (the real broker: 6 s).
    pub(crate) min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`. Default 30 min.
    pub(crate) max_session_timeout: Duration,
    /// `group.max.size` and `group.consumer.max.size`. Default 1000.
    pub(crate) max_members: usize,
    /// `group.consumer.session.timeout.ms`. Default 45 s.
    pub(crate) consumer_session_timeout: Duration,
    /// `group.consumer.heartbeat.interval.ms`. Default 1 s (the real broker: 5 s), so that tests do not wait.
    pub(crate) consumer_heartbeat_interval: Duration,
    /// `offset.metadata.max.bytes`. Default 4096.
    pub(crate) max_metadata: usize,
    /// `offsets.retention.minutes`. Default 7 days.
    pub(crate) offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`. Default 10 min.
    pub(crate) offsets_check_interval: Duration,
    /// Groups at once. Default 10,000.
    pub(crate) max_groups: usize,
    /// Bytes that all groups may take, roughly. Default 256 MiB.
    pub(crate) memory_limit: usize,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            initial_rebalance_delay: Duration::ZERO,
            min_session_timeout: Duration::from_millis(10),
            max_session_timeout: Duration::from_secs(30 * 60),
            max_members: 1000,
            consumer_session_timeout: Duration::from_secs(45),
            consumer_heartbeat_interval: Duration::from_secs(1),
            max_metadata: 4096,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_check_interval: Duration::from_secs(600),
            max_groups: 10_000,
            memory_limit: 256 * 1024 * 1024,
        }
    }
}

/// Text of its own, so that it does not keep the request alive that it came in.
pub(super) fn own(text: &StrBytes) -> StrBytes {
    StrBytes::from_string(text.as_str().to_owned())
}

/// Where and when a request is handled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// The coordinator.
    pub(super) node: NodeId,
    pub(super) now: Instant,
}

/// Who commits or fetches offsets.
#[derive(Debug, Clone, Default)]
pub(super) struct Asker {
    /// Generation of a classic member, epoch of a consumer member, -1 for none.
    pub(super) generation: i32,
    /// Empty for none.
    pub(super) member: StrBytes,
    pub(super) instance: Option<StrBytes>,
    /// The request's version.
    pub(super) version: i16,
    /// Asks within a transaction.
    pub(super) transactional: bool,
}

/// An offset to commit.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    pub(super) topic: StrBytes,
    pub(super) partition: i32,
    pub(super) committed: Committed,
}

/// An answer that may have waited.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Join(ConnectionId, Joined),
    Sync(ConnectionId, Synced),
}

/// The answer to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) error: Option<Code>,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<StrBytes>,
    pub(super) protocol: Option<StrBytes>,
    pub(super) leader: StrBytes,
    /// The leader is not to assign.
    pub(super) skip: bool,
    pub(super) member: StrBytes,
    /// For the leader.
    pub(super) members: Vec<JoinedMember>,
}

/// A member as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JoinedMember {
    pub(super) id: StrBytes,
    pub(super) instance: Option<StrBytes>,
    pub(super) metadata: Bytes,
}

impl Joined {
    pub(super) fn refused(member: StrBytes, code: Code) -> Self {
        Self {
            error: Some(code),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: StrBytes::default(),
            skip: false,
            member,
            members: Vec::new(),
        }
    }
}

/// The answer to a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Synced {
    pub(super) error: Option<Code>,
    pub(super) protocol_type: Option<StrBytes>,
    pub(super) protocol: Option<StrBytes>,
    pub(super) assignment: Bytes,
}

impl Synced {
    pub(super) fn refused(code: Code) -> Self {
        Self { error: Some(code), protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) members: Members,
    pub(super) offsets: Offsets,
    /// The broker that coordinates it; none while no broker is alive. Its time stands still then.
    node: Option<NodeId>,
    /// What it took of the memory when that was last counted.
    bytes: usize,
    /// Under which time it stands in [`Groups::due`].
    armed: Option<Instant>,
}

/// A group's members, of one kind or the other.
#[derive(Debug)]
pub(super) enum Members {
    Classic(Classic),
    Consumer(Consumer),
}

impl Group {
    fn new(at: Moment) -> Self {
        Self {
            members: Members::Classic(Classic::new(at.now)),
            offsets: Offsets::default(),
            node: Some(at.node),
            bytes: 0,
            armed: None,
        }
    }

    fn count(&self, id: &StrBytes) -> usize {
        let members = match &self.members {
            Members::Classic(classic) => classic.bytes(),
            Members::Consumer(consumer) => consumer.bytes(),
        };
        512 + id.len() + self.offsets.bytes() + members
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.node?;
        match &self.members {
            Members::Classic(classic) => classic.poll_timeout(),
            Members::Consumer(consumer) => consumer.poll_timeout(),
        }
    }

    fn is_idle(&self) -> bool {
        match &self.members {
            Members::Classic(classic) => classic.is_idle(),
            Members::Consumer(consumer) => consumer.is_empty(),
        }
    }

    fn subscribes(&self, topic: &StrBytes) -> bool {
        match &self.members {
            Members::Classic(classic) => classic.subscribes(topic),
            Members::Consumer(consumer) => consumer.subscribes(topic),
        }
    }

    /// The name of its state.
    pub(super) fn state(&self) -> &'static str {
        match &self.members {
            Members::Classic(classic) => classic.state().name(),
            Members::Consumer(consumer) => consumer.state(),
        }
    }

    /// The kind's name.
    pub(super) fn kind(&self) -> &'static str {
        match &self.members {
            Members::Classic(_) => "Classic",
            Members::Consumer(_) => "Consumer",
        }
    }
}

/// All groups of the cluster.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) settings: GroupSettings,
    groups: BTreeMap<StrBytes, Group>,
    bytes: usize,
    /// When groups want [`handle_timeout`](Self::handle_timeout).
    due: BTreeSet<(Instant, StrBytes)>,
    answers: VecDeque<Answer>,
    next_check: Option<Instant>,
}

impl Groups {
    pub(super) fn new(settings: GroupSettings) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            bytes: 0,
            due: BTreeSet::new(),
            answers: VecDeque::new(),
            next_check: None,
        }
    }

    /// A group.
    pub(super) fn get(&self, id: &StrBytes) -> Option<&Group> {
        self.groups.get(id)
    }

    /// All groups by id, with the broker that coordinates each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&StrBytes, &Group)> {
        self.groups.iter()
    }

    /// The next answer to send.
    pub(super) fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next wanted.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at).into_iter().chain(self.next_check).min()
    }

    /// Does all that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, id)) = self.due.first().cloned().filter(|(at, _)| *at <= now) {
            self.with(&id, |group, settings, answers| match &mut group.members {
                Members::Classic(classic) => classic.handle_timeout(settings, now, answers),
                Members::Consumer(consumer) => consumer.handle_timeout(now),
            });
        }
        if self.next_check.is_some_and(|at| at <= now) {
            self.expire_offsets(now);
        }
    }

    /// Changes a group; then counts its memory and sets its timer anew.
    fn with<R>(
        &mut self,
        id: &StrBytes,
        change: impl FnOnce(&mut Group, &GroupSettings, &mut Vec<Answer>) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(id)?;
        let mut answers = Vec::new();
        let result = change(group, &self.settings, &mut answers);
        self.answers.extend(answers);
        let bytes = group.count(id);
        self.bytes = (self.bytes + bytes).saturating_sub(group.bytes);
        group.bytes = bytes;
        let wanted = group.poll_timeout();
        if wanted != group.armed {
            if let Some(at) = group.armed {
                self.due.remove(&(at, id.clone()));
            }
            if let Some(at) = wanted {
                self.due.insert((at, id.clone()));
            }
            group.armed = wanted;
        }
        Some(result)
    }

    fn classic<R>(
        &mut self,
        id: &StrBytes,
        change: impl FnOnce(&mut Classic, &GroupSettings, &mut Vec<Answer>) -> R,
    ) -> Option<R> {
        self.with(id, |group, settings, answers| match &mut group.members {
            Members::Classic(classic) => Some(change(classic, settings, answers)),
            Members::Consumer(_) => None,
        })
        .flatten()
    }

    /// Is there room for so many bytes more?
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.settings.memory_limit
    }

    fn create(&mut self, id: &StrBytes, at: Moment) -> Result<(), Code> {
        if self.groups.contains_key(id) {
            return Ok(());
        }
        if self.groups.len() >= self.settings.max_groups || !self.has_room(1024) {
            return Err(Code::GroupMaxSizeReached);
        }
        let id = own(id);
        self.groups.insert(id.clone(), Group::new(at));
        self.with(&id, |_, _, _| ());
        self.next_check.get_or_insert(at.now + self.settings.offsets_check_interval);
        Ok(())
    }

    fn forget(&mut self, id: &StrBytes) {
        if let Some(group) = self.groups.remove(id) {
            self.bytes = self.bytes.saturating_sub(group.bytes);
            if let Some(at) = group.armed {
                self.due.remove(&(at, id.clone()));
            }
        }
        if self.groups.is_empty() {
            self.next_check = None;
        }
    }

    // Classic members.

    /// A member joins. The answer comes from [`poll_answer`](Self::poll_answer).
    pub(super) fn join(&mut self, id: &StrBytes, join: Join, at: Moment) {
        let (connection, member) = (join.connection, join.member.clone());
        if let Err(code) = self.try_join(id, join, at) {
            self.answers.push_back(Answer::Join(connection, Joined::refused(member, code)));
        }
    }

    fn try_join(&mut self, id: &StrBytes, join: Join, at: Moment) -> Result<(), Code> {
        let GroupSettings { min_session_timeout, max_session_timeout, .. } = self.settings;
        if !(min_session_timeout..=max_session_timeout).contains(&join.session_timeout) {
            return Err(Code::InvalidSessionTimeout);
        }
        if !self.groups.contains_key(id) && !join.member.is_empty() {
            return Err(Code::UnknownMemberId);
        }
        let added: usize =
            join.protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + 64).sum();
        if !self.has_room(added + 1024) {
            return Err(Code::GroupMaxSizeReached);
        }
        self.create(id, at)?;
        let joined = self.with(id, |group, settings, answers| {
            if let Members::Consumer(consumer) = &group.members {
                if !consumer.is_empty() {
                    return Err(Code::InconsistentGroupProtocol);
                }
                group.members = Members::Classic(Classic::new(at.now));
            }
            if let Members::Classic(classic) = &mut group.members {
                classic.handle_join(join, settings, at.now, answers);
            }
            Ok(())
        });
        joined.unwrap_or(Err(Code::UnknownMemberId))
    }

    /// A member asks for its assignment. The answer comes from [`poll_answer`](Self::poll_answer).
    pub(super) fn sync(&mut self, id: &StrBytes, sync: Sync, at: Moment) {
        let connection = sync.connection;
        let added: usize = sync.assignments.iter().map(|(_, a)| a.len() + 64).sum();
        let code = if self.has_room(added) {
            let done = self.classic(id, |classic, _, answers| classic.handle_sync(sync, at.now, answers));
            if done.is_some() {
                return;
            }
            Code::UnknownMemberId
        } else {
            Code::GroupMaxSizeReached
        };
        self.answers.push_back(Answer::Sync(connection, Synced::refused(code)));
    }

    /// A classic member is alive.
    ///
    /// # Errors
    /// What it is told.
    pub(super) fn heartbeat(&mut self, id: &StrBytes, asker: &Asker, at: Moment) -> Result<(), Code> {
        let done = self.classic(id, |classic, _, _| {
            classic.handle_heartbeat(&asker.member, asker.instance.as_ref(), asker.generation, at.now)
        });
        done.unwrap_or(Err(Code::UnknownMemberId))
    }

    /// Classic members leave. One result for each.
    pub(super) fn leave(
        &mut self,
        id: &StrBytes,
        members: &[(StrBytes, Option<StrBytes>)],
        at: Moment,
    ) -> Vec<Result<(), Code>> {
        let done = self.classic(id, |classic, settings, answers| {
            classic.handle_leave(members, settings, at.now, answers)
        });
        done.unwrap_or_else(|| members.iter().map(|_| Err(Code::UnknownMemberId)).collect())
    }

    // Consumer members.

    /// A consumer member's heartbeat.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn beat(
        &mut self,
        id: &StrBytes,
        beat: Beat,
        catalog: &dyn Catalog,
        at: Moment,
    ) -> Result<Beaten, Refused> {
        let added = beat.names.iter().flatten().map(|n| n.len() + 64).sum::<usize>() + 1024;
        if beat.epoch >= 0 && !self.has_room(added) {
            return Err(Refused::new(Code::GroupMaxSizeReached, "The groups have no memory left."));
        }
        let joins = beat.epoch == 0;
        let missing = if beat.epoch < 0 { "Group" } else { "Consumer group" };
        let fresh = !self.groups.contains_key(id);
        if joins {
            self.create(id, at).map_err(|code| Refused::new(code, "There is no room for another group."))?;
        }
        let result = self.with(id, |group, settings, _| {
            if let Members::Classic(classic) = &group.members {
                if !joins || !classic.is_idle() {
                    let why = format!("Group {id} is not a consumer group.");
                    return Err(Refused::new(Code::GroupIdNotFound, why));
                }
                group.members = Members::Consumer(Consumer::default());
            }
            match &mut group.members {
                Members::Consumer(consumer) => consumer.handle_beat(beat, catalog, settings, at.now),
                Members::Classic(_) => Err(Refused::new(Code::GroupIdNotFound, "no consumer group")),
            }
        });
        let result = result.unwrap_or_else(|| {
            Err(Refused::new(Code::GroupIdNotFound, format!("{missing} {id} not found.")))
        });
        if fresh && result.is_err() {
            self.forget(id);
        }
        result
    }

    // Offsets.

    /// May `asker` commit offsets? A group that is not there is made where nobody's membership is claimed. Returns
    /// those that a member may no longer commit.
    fn admit_commit(
        &mut self,
        id: &StrBytes,
        asker: &Asker,
        offsets: &[Offered],
        at: Moment,
    ) -> Result<Vec<(StrBytes, i32)>, Code> {
        let added = offsets.iter().map(|o| o.committed.metadata.len() + 128).sum();
        if !self.has_room(added) {
            return Err(Code::InvalidCommitOffsetSize);
        }
        match self.groups.get(id).map(|group| &group.members) {
            Some(Members::Classic(classic)) => classic.check_commit(asker).map(|()| Vec::new()),
            Some(Members::Consumer(consumer)) => {
                consumer.check_commit(asker, offsets.iter().map(|o| (o.topic.clone(), o.partition)))
            }
            None if asker.generation < 0 => self.create(id, at).map(|()| Vec::new()),
            // Version 9 is of clients that know of epochs.
            None if asker.version >= 9 && !asker.transactional => Err(Code::GroupIdNotFound),
            None => Err(Code::IllegalGeneration),
        }
    }

    /// Commits offsets. Returns those that a member may no longer commit (STALE_MEMBER_EPOCH).
    ///
    /// # Errors
    /// What refuses them all.
    pub(super) fn commit(
        &mut self,
        id: &StrBytes,
        asker: &Asker,
        offsets: Vec<Offered>,
        at: Moment,
    ) -> Result<Vec<(StrBytes, i32)>, Code> {
        let refused = self.admit_commit(id, asker, &offsets, at)?;
        self.with(id, |group, _, _| {
            for o in offsets {
                if !refused.iter().any(|(topic, partition)| *topic == o.topic && *partition == o.partition) {
                    group.offsets.commit(o.topic, o.partition, o.committed);
                }
            }
            if let Members::Classic(classic) = &mut group.members {
                classic.handle_commit(asker, at.now);
            }
        });
        Ok(refused)
    }

    /// Keeps offsets until [`complete_transaction`](Self::complete_transaction).
    ///
    /// # Errors
    /// What refuses them all.
    pub(super) fn stage_offsets(
        &mut self,
        id: &StrBytes,
        asker: &Asker,
        producer: i64,
        offsets: Vec<Offered>,
        at: Moment,
    ) -> Result<(), Code> {
        // The request knows no epochs: its clients understand generations only.
        self.admit_commit(id, asker, &offsets, at).map_err(|code| match code {
            Code::StaleMemberEpoch => Code::IllegalGeneration,
            other => other,
        })?;
        self.with(id, |group, _, _| {
            for o in offsets {
                group.offsets.stage(producer, o.topic, o.partition, o.committed);
            }
        });
        Ok(())
    }

    /// A producer's transaction ended: its offsets in this group take effect, or are dropped.
    pub(super) fn complete_transaction(&mut self, id: &StrBytes, producer: i64, commit: bool) {
        self.with(id, |group, _, _| group.offsets.complete(producer, commit));
    }

    /// A group's offsets, for one who may see them.
    ///
    /// # Errors
    /// What refuses the asker; `Ok(None)` for a group that is not there.
    pub(super) fn offsets(&self, id: &StrBytes, asker: &Asker) -> Result<Option<&Offsets>, Code> {
        let Some(group) = self.groups.get(id) else { return Ok(None) };
        if let Members::Consumer(consumer) = &group.members {
            consumer.check_fetch(asker)?;
        }
        Ok(Some(&group.offsets))
    }

    /// Deletes a group without members, with its offsets.
    ///
    /// # Errors
    /// NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND.
    pub(super) fn delete(&mut self, id: &StrBytes) -> Result<(), Code> {
        let group = self.groups.get(id).ok_or(Code::GroupIdNotFound)?;
        if !group.is_idle() {
            return Err(Code::NonEmptyGroup);
        }
        self.forget(id);
        Ok(())
    }

    /// Deletes offsets of topics that no member subscribes to. One result for each.
    ///
    /// # Errors
    /// What refuses them all: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP (members of another protocol than the consumer's).
    pub(super) fn delete_offsets(
        &mut self,
        id: &StrBytes,
        places: &[(StrBytes, i32)],
    ) -> Result<Vec<Result<(), Code>>, Code> {
        let group = self.groups.get(id).ok_or(Code::GroupIdNotFound)?;
        if let Members::Classic(classic) = &group.members
            && !classic.is_idle()
            && !classic.is_consumer()
        {
            return Err(Code::NonEmptyGroup);
        }
        let results = self.with(id, |group, _, _| {
            let results = places.iter().map(|(topic, partition)| {
                if group.subscribes(topic) {
                    return Err(Code::GroupSubscribedToTopic);
                }
                group.offsets.remove(topic, *partition);
                Ok(())
            });
            results.collect()
        });
        results.ok_or(Code::GroupIdNotFound)
    }

    /// A topic was deleted: what was committed for it goes too.
    pub(super) fn handle_topic_deleted(&mut self, topic: &str) {
        let topic = StrBytes::from_string(topic.to_owned());
        for id in self.ids() {
            self.with(&id, |group, _, _| group.offsets.remove_topic(&topic));
        }
    }

    /// Removes offsets that have been kept for the whole retention, and then groups without members and offsets. Runs
    /// by itself at intervals.
    pub(super) fn expire_offsets(&mut self, now: Instant) {
        self.next_check = Some(now + self.settings.offsets_check_interval);
        let retention = self.settings.offsets_retention;
        for id in self.ids() {
            let gone = self.with(&id, |group, _, _| {
                let since = match &group.members {
                    Members::Classic(classic) if classic.is_simple() => Some(None),
                    Members::Classic(classic) if classic.state() == State::Empty => {
                        Some(Some(classic.since()))
                    }
                    Members::Classic(classic) => {
                        (classic.state() == State::Stable && classic.is_consumer()).then_some(None)
                    }
                    Members::Consumer(_) => Some(None),
                };
                if let Some(since) = since {
                    let members = &group.members;
                    group.offsets.expire(retention, since, now, |topic| match members {
                        Members::Classic(classic) => {
                            classic.state() != State::Empty && classic.subscribes(topic)
                        }
                        Members::Consumer(consumer) => consumer.subscribes(topic),
                    });
                }
                group.offsets.is_empty() && group.is_idle()
            });
            if gone == Some(true) {
                self.forget(&id);
            }
        }
    }

    // Faults.

    /// Ends a member's session at once. `false` where there is no such member.
    pub(super) fn expire_member(&mut self, id: &StrBytes, member: &StrBytes, now: Instant) -> bool {
        let done = self.with(id, |group, settings, answers| match &mut group.members {
            Members::Classic(classic) => classic.expire(member, settings, now, answers),
            Members::Consumer(consumer) => consumer.remove(member),
        });
        done.unwrap_or(false)
    }

    /// Coordinators may be others now, as `find` says: where a group's is, who waits is told so, and sessions begin
    /// anew.
    pub(super) fn handle_moved(&mut self, find: impl Fn(&StrBytes) -> Option<NodeId>, now: Instant) {
        for id in self.ids() {
            let node = find(&id);
            self.with(&id, |group, settings, answers| {
                if group.node == node {
                    return;
                }
                group.node = node;
                match &mut group.members {
                    Members::Classic(classic) => classic.handle_moved(now, answers),
                    Members::Consumer(consumer) => consumer.handle_moved(settings, now),
                }
            });
        }
    }

    fn ids(&self) -> Vec<StrBytes> {
        self.groups.keys().cloned().collect()
    }
}
