//! Classic groups: the coordinator makes all members join, the leader assigns, the assignments are handed out.
//!
//! ```text
//!          first join                     initial delay over, or all joined, or rebalance timeout
//!  Empty -------------> PreparingRebalance ------------------------------> CompletingRebalance
//!    ^                    ^      |   ^  join, leave, session over,                 |
//!    |   nobody joined    |      |   |  sync that never came                       | leader's sync
//!    +--------------------|------+   +---------------------------------------------+
//!                         |  join, leave, session over                             v
//!                         +---------------------------------------------------- Stable
//!  any --delete, or empty without offsets--> Dead (the group is gone)
//! ```
//!
//! A join is answered when the phase ends, a sync when the leader's has come. While a member waits for either, its
//! session does not run out. Sources: KIP-62, KIP-134 (initial delay), KIP-345 (static members), KIP-394 (known member
//! ids), KIP-559, KIP-800 (reasons), KIP-814 (skipped assignment).
//!
//! Call order: any of the inputs, then [`Classic::poll_timeout`]; answers are pushed to the `out` of each input.

mod member;
mod roll;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError as Code;
use kafka_protocol::protocol::StrBytes;

use super::{Answer, GroupSettings, Joined, JoinedMember, Synced};
use member::subscribed_topics;
pub(in crate::embedded::kafka) use member::{Join, Member, State, Sync};

/// How long a member has for its first rebalance: it cannot heartbeat before it knows its id.
const NEW_MEMBER_TIMEOUT: Duration = Duration::from_secs(300);

/// The first join phase of a group waits, so that those who start together are one generation.
#[derive(Debug)]
struct Initial {
    ends: Instant,
    /// How much longer it may be drawn out.
    remaining: Duration,
    /// Somebody came since it was last drawn out.
    came: bool,
}

/// A classic group's members.
#[derive(Debug)]
pub(in crate::embedded::kafka) struct Classic {
    state: State,
    since: Instant,
    generation: i32,
    protocol_type: Option<StrBytes>,
    protocol: Option<StrBytes>,
    leader: Option<StrBytes>,
    members: BTreeMap<StrBytes, Member>,
    statics: BTreeMap<StrBytes, StrBytes>,
    /// Ids that were given and have not come back yet.
    pending: BTreeMap<StrBytes, Instant>,
    /// When sessions of members and of pending ids run out.
    sessions: BTreeSet<(Instant, StrBytes)>,
    /// Members whose sync is awaited.
    unsynced: BTreeSet<StrBytes>,
    initial: Option<Initial>,
    join_ends: Option<Instant>,
    sync_ends: Option<Instant>,
    /// Topics the members subscribed to, where they speak the consumer's protocol.
    subscribed: Option<BTreeSet<StrBytes>>,
}

type Out = Vec<Answer>;

impl Classic {
    /// A group without members.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Empty,
            since: now,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            sessions: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            initial: None,
            join_ends: None,
            sync_ends: None,
            subscribed: None,
        }
    }

    pub(in crate::embedded::kafka) fn state(&self) -> State {
        self.state
    }

    /// When it came to its state.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(in crate::embedded::kafka) fn protocol_type(&self) -> Option<&StrBytes> {
        self.protocol_type.as_ref()
    }

    pub(in crate::embedded::kafka) fn protocol(&self) -> Option<&StrBytes> {
        self.protocol.as_ref()
    }

    /// Members by id.
    pub(in crate::embedded::kafka) fn members(&self) -> impl ExactSizeIterator<Item = (&StrBytes, &Member)> {
        self.members.iter()
    }

    /// Was it used by members, or for offsets only?
    pub(super) fn is_simple(&self) -> bool {
        self.protocol_type.is_none()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    /// Does a member consume this topic? Where members speak another protocol, nobody knows: no.
    pub(super) fn subscribes(&self, topic: &StrBytes) -> bool {
        self.subscribed.as_ref().is_some_and(|topics| topics.contains(topic))
    }

    /// Do all members speak the consumer's protocol?
    pub(super) fn is_consumer(&self) -> bool {
        self.protocol_type.as_ref().is_some_and(|t| t.as_str() == "consumer")
    }

    /// Memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.members.values().map(Member::bytes).sum::<usize>() + self.pending.len() * 256
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next wanted.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let session = self.sessions.first().map(|(at, _)| *at);
        let initial = self.initial.as_ref().map(|i| i.ends);
        [session, initial, self.join_ends, self.sync_ends].into_iter().flatten().min()
    }

    // Joining.

    /// A member joins. Answered now or when the phase ends.
    pub(super) fn handle_join(&mut self, join: Join, settings: &GroupSettings, now: Instant, out: &mut Out) {
        let connection = join.connection;
        let id = join.member.clone();
        if let Err(code) = self.join(join, settings, now, out) {
            out.push(Answer::Join(connection, Joined::refused(id, code)));
        }
    }

    fn join(
        &mut self,
        join: Join,
        settings: &GroupSettings,
        now: Instant,
        out: &mut Out,
    ) -> Result<(), Code> {
        if !self.accepts(&join, settings) {
            return Err(Code::GroupMaxSizeReached);
        }
        if !self.supports_protocols(&join) {
            return Err(Code::InconsistentGroupProtocol);
        }
        if join.member.is_empty() {
            return self.join_new(join, settings, now, out);
        }
        if self.pending.contains_key(&join.member) {
            if join.instance.is_some() {
                return Err(Code::UnknownServerError);
            }
            self.forget_pending(&join.member.clone());
            let id = join.member.clone();
            self.add(id, join, settings, now, out);
            return Ok(());
        }
        self.check_member(&join.member, join.instance.as_ref())?;
        self.join_again(join, settings, now, out)
    }

    fn accepts(&self, join: &Join, settings: &GroupSettings) -> bool {
        let waiting = || self.members.values().filter(|m| m.joining.is_some()).count();
        let known = self.members.get(&join.member);
        let fits = match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                known.is_some_and(|m| m.joining.is_some()) || waiting() < settings.max_members
            }
            State::CompletingRebalance | State::Stable => {
                known.is_some() || self.members.len() < settings.max_members
            }
        };
        // The real broker does not count the ids that it gave; here they are bounded too.
        fits && (!join.member.is_empty() || self.pending.len() < settings.max_members)
    }

    fn supports_protocols(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        if self.state == State::Empty {
            return true;
        }
        self.protocol_type.as_ref() == Some(&join.protocol_type)
            && join.protocols.iter().any(|(name, _)| self.members.values().all(|m| m.supports(name)))
    }

    fn join_new(
        &mut self,
        join: Join,
        settings: &GroupSettings,
        now: Instant,
        out: &mut Out,
    ) -> Result<(), Code> {
        let fresh = join.fresh.clone();
        if let Some(instance) = &join.instance {
            match self.statics.get(instance).cloned() {
                Some(old) => self.replace(&old, join, now, out),
                None => self.add(fresh, join, settings, now, out),
            }
        } else if join.needs_id {
            let ends = now + join.session_timeout;
            self.pending.insert(fresh.clone(), ends);
            self.sessions.insert((ends, fresh.clone()));
            out.push(Answer::Join(join.connection, Joined::refused(fresh, Code::MemberIdRequired)));
        } else {
            self.add(fresh, join, settings, now, out);
        }
        Ok(())
    }

    fn join_again(
        &mut self,
        join: Join,
        settings: &GroupSettings,
        now: Instant,
        out: &mut Out,
    ) -> Result<(), Code> {
        let Some(member) = self.members.get(&join.member) else { return Err(Code::UnknownMemberId) };
        let same = member.protocols == join.protocols;
        let leads = self.leader.as_ref() == Some(&join.member);
        match self.state {
            State::Empty => return Err(Code::UnknownMemberId),
            State::CompletingRebalance if same => {
                // Its answer was lost.
                let joined = self.joined(&join.member, leads);
                self.renew_session(&join.member, now);
                out.push(Answer::Join(join.connection, joined));
            }
            State::Stable if same && !leads => {
                let joined = self.joined(&join.member, false);
                self.renew_session(&join.member, now);
                out.push(Answer::Join(join.connection, joined));
            }
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                let id = join.member.clone();
                self.update(&id, join, now, out);
                self.rebalance(settings, now, out);
            }
        }
        Ok(())
    }

    fn add(&mut self, id: StrBytes, join: Join, settings: &GroupSettings, now: Instant, out: &mut Out) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        if let Some(initial) = &mut self.initial {
            initial.came = true;
        }
        if let Some(instance) = &join.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        let member = Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            assignment: Bytes::new(),
            protocols: join.protocols,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            joining: Some(join.connection),
            syncing: None,
            new: true,
            session_ends: None,
        };
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id.clone(), member);
        self.set_session(&id, now + NEW_MEMBER_TIMEOUT);
        self.rebalance(settings, now, out);
    }

    /// A member that is known joins again, perhaps with other protocols.
    fn update(&mut self, id: &StrBytes, join: Join, now: Instant, out: &mut Out) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.protocols = join.protocols;
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        if let Some(old) = member.joining.replace(join.connection) {
            // It gave up on that one.
            out.push(Answer::Join(old, Joined::refused(id.clone(), Code::RebalanceInProgress)));
        }
        if !member.new {
            self.renew_session(id, now);
        }
    }

    /// A static member comes back without its id: a new id takes the place of the old one, which is fenced.
    fn replace(&mut self, old: &StrBytes, join: Join, now: Instant, out: &mut Out) {
        let Some(mut member) = self.members.remove(old) else { return };
        let id = join.fresh.clone();
        let connection = join.connection;
        let can_skip = join.can_skip;
        let old_leads = self.leader.as_ref() == Some(old);
        if let Some(waiting) = member.joining.take() {
            out.push(Answer::Join(waiting, Joined::refused(old.clone(), Code::FencedInstanceId)));
        }
        if let Some(waiting) = member.syncing.take() {
            out.push(Answer::Sync(waiting, Synced::refused(Code::FencedInstanceId)));
        }
        if let Some(ends) = member.session_ends.take() {
            self.sessions.remove(&(ends, old.clone()));
        }
        if self.unsynced.remove(old) {
            self.unsynced.insert(id.clone());
        }
        if let Some(instance) = &join.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        if old_leads {
            self.leader = Some(id.clone());
        }
        self.members.insert(id.clone(), member);
        self.update(&id, join, now, out);
        self.renew_session(&id, now);
        match self.state {
            State::Stable if self.select() == self.protocol => {
                // Its assignment stands: no rebalance.
                if let Some(member) = self.members.get_mut(&id) {
                    member.joining = None;
                }
                let mut joined = self.joined(&id, old_leads && can_skip);
                joined.skip = old_leads && can_skip;
                if old_leads && !can_skip {
                    // A client that cannot skip must not think that it is to assign.
                    joined.leader = old.clone();
                }
                out.push(Answer::Join(connection, joined));
            }
            State::Stable | State::CompletingRebalance => self.prepare(now, out),
            State::PreparingRebalance | State::Empty => self.complete_if_all(now, out),
        }
    }

    // Phases.

    /// Somebody new, somebody gone, somebody with other wishes.
    fn rebalance(&mut self, settings: &GroupSettings, now: Instant, out: &mut Out) {
        match self.state {
            State::Empty => {
                let timeout = self.rebalance_timeout();
                let delay = settings.initial_rebalance_delay.min(timeout);
                self.set_state(State::PreparingRebalance, now);
                self.initial = Some(Initial {
                    ends: now + delay,
                    remaining: timeout.saturating_sub(delay),
                    came: false,
                });
                if delay.is_zero() {
                    self.handle_initial(settings, now, out);
                }
            }
            State::CompletingRebalance | State::Stable => self.prepare(now, out),
            State::PreparingRebalance => self.complete_if_all(now, out),
        }
    }

    /// From CompletingRebalance or Stable: all are to join again.
    fn prepare(&mut self, now: Instant, out: &mut Out) {
        for member in self.members.values_mut() {
            if self.state == State::CompletingRebalance {
                member.assignment = Bytes::new();
            }
            if let Some(waiting) = member.syncing.take() {
                out.push(Answer::Sync(waiting, Synced::refused(Code::RebalanceInProgress)));
            }
        }
        // Those whose session ran out while they waited for a sync are watched again.
        let unwatched = self.members.iter().filter(|(_, m)| m.session_ends.is_none());
        let unwatched: Vec<StrBytes> = unwatched.map(|(id, _)| id.clone()).collect();
        for id in &unwatched {
            self.renew_session(id, now);
        }
        self.unsynced.clear();
        self.sync_ends = None;
        self.set_state(State::PreparingRebalance, now);
        self.join_ends = Some(now + self.rebalance_timeout());
        self.complete_if_all(now, out);
    }

    fn complete_if_all(&mut self, now: Instant, out: &mut Out) {
        let all = self.pending.is_empty() && self.members.values().all(|m| m.joining.is_some());
        if self.state == State::PreparingRebalance
            && all
            && (self.initial.is_none() || self.members.is_empty())
        {
            self.complete(now, out);
        }
    }

    fn handle_initial(&mut self, settings: &GroupSettings, now: Instant, out: &mut Out) {
        let Some(initial) = &mut self.initial else { return };
        if initial.came && !initial.remaining.is_zero() {
            let delay = settings.initial_rebalance_delay.min(initial.remaining);
            initial.remaining = initial.remaining.saturating_sub(delay);
            initial.came = false;
            initial.ends = now + delay;
        } else {
            self.complete(now, out);
        }
    }

    /// The join phase ends: who did not come is out, except static members, who keep their place.
    fn complete(&mut self, now: Instant, out: &mut Out) {
        self.initial = None;
        self.join_ends = None;
        let gone = self.members.iter().filter(|(_, m)| m.joining.is_none() && m.instance.is_none());
        let gone: Vec<StrBytes> = gone.map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.remove(id, Code::UnknownMemberId, out);
        }
        if !self.elect() && !self.members.is_empty() {
            // Only static members, and none has come: they are waited for, until their sessions end.
            self.join_ends = Some(now + self.rebalance_timeout().max(Duration::from_secs(1)));
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.select();
        self.subscribed = self.subscriptions();
        if self.members.is_empty() {
            self.set_state(State::Empty, now);
            return;
        }
        self.set_state(State::CompletingRebalance, now);
        self.sync_ends = Some(now + self.rebalance_timeout());
        self.unsynced = self.members.keys().cloned().collect();
        let ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for id in ids {
            let leads = self.leader.as_ref() == Some(&id);
            let joined = self.joined(&id, leads);
            if let Some(member) = self.members.get_mut(&id) {
                member.new = false;
                if let Some(waiting) = member.joining.take() {
                    out.push(Answer::Join(waiting, joined));
                }
            }
            self.renew_session(&id, now);
        }
    }

    /// Makes sure that the leader is one who joined. `false` where nobody has.
    fn elect(&mut self) -> bool {
        let joined = |id: &StrBytes| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let first = self.members.iter().find(|(_, m)| m.joining.is_some()).map(|(id, _)| id.clone());
        match first {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    /// Each member votes for the first of its protocols that all speak; the most votes win, the first name at a tie.
    fn select(&self) -> Option<StrBytes> {
        let mut votes: BTreeMap<&StrBytes, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().map(|(name, _)| name);
            if let Some(name) = vote.into_iter().find(|name| self.members.values().all(|m| m.supports(name)))
            {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, n)| *n == most).map(|(name, _)| name.clone())
    }

    fn subscriptions(&self) -> Option<BTreeSet<StrBytes>> {
        if !self.is_consumer() {
            return None;
        }
        let protocol = self.protocol.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    fn joined(&self, id: &StrBytes, with_members: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.members.iter().filter(|_| with_members).map(|(id, m)| JoinedMember {
            id: id.clone(),
            instance: m.instance.clone(),
            metadata: m.metadata(&protocol),
        });
        Joined {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip: false,
            member: id.clone(),
            members: members.collect(),
        }
    }

    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default()
    }

    fn set_state(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
    }

    // After the join.

    /// A member asks for its assignment. Answered now or when the leader's has come.
    pub(super) fn handle_sync(&mut self, sync: Sync, now: Instant, out: &mut Out) {
        let connection = sync.connection;
        if let Err(code) = self.sync(sync, now, out) {
            out.push(Answer::Sync(connection, Synced::refused(code)));
        }
    }

    fn sync(&mut self, sync: Sync, now: Instant, out: &mut Out) -> Result<(), Code> {
        self.check_member(&sync.member, sync.instance.as_ref())?;
        self.check_generation(sync.generation)?;
        let other = |said: &Option<StrBytes>, is: &Option<StrBytes>| said.is_some() && said != is;
        if other(&sync.protocol_type, &self.protocol_type) || other(&sync.protocol, &self.protocol) {
            return Err(Code::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty => return Err(Code::UnknownMemberId),
            State::PreparingRebalance => return Err(Code::RebalanceInProgress),
            State::Stable => {
                self.unsynced.remove(&sync.member);
                self.renew_session(&sync.member, now);
                let synced = self.synced(&sync.member);
                out.push(Answer::Sync(sync.connection, synced));
            }
            State::CompletingRebalance => {
                self.unsynced.remove(&sync.member);
                if let Some(member) = self.members.get_mut(&sync.member)
                    && let Some(old) = member.syncing.replace(sync.connection)
                {
                    out.push(Answer::Sync(old, Synced::refused(Code::RebalanceInProgress)));
                }
                if self.leader.as_ref() == Some(&sync.member) {
                    self.assign(sync.assignments, now, out);
                }
            }
        }
        self.end_sync_if_all();
        Ok(())
    }

    /// The leader has assigned.
    fn assign(&mut self, assignments: Vec<(StrBytes, Bytes)>, now: Instant, out: &mut Out) {
        let mut assignments: BTreeMap<StrBytes, Bytes> = assignments.into_iter().collect();
        self.set_state(State::Stable, now);
        let ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for id in ids {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignments.remove(&id).unwrap_or_default();
            }
            let synced = self.synced(&id);
            if let Some(waiting) = self.members.get_mut(&id).and_then(|m| m.syncing.take()) {
                out.push(Answer::Sync(waiting, synced));
            }
            self.renew_session(&id, now);
        }
    }

    fn end_sync_if_all(&mut self) {
        if self.unsynced.is_empty() {
            self.sync_ends = None;
        }
    }

    fn synced(&self, id: &StrBytes) -> Synced {
        Synced {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default(),
        }
    }

    /// A member is alive.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION, and REBALANCE_IN_PROGRESS: it is to join again.
    pub(super) fn handle_heartbeat(
        &mut self,
        member: &StrBytes,
        instance: Option<&StrBytes>,
        generation: i32,
        now: Instant,
    ) -> Result<(), Code> {
        self.check_member(member, instance)?;
        self.check_generation(generation)?;
        match self.state {
            State::Empty => Err(Code::UnknownMemberId),
            State::PreparingRebalance => {
                self.renew_session(member, now);
                Err(Code::RebalanceInProgress)
            }
            State::CompletingRebalance | State::Stable => {
                self.renew_session(member, now);
                Ok(())
            }
        }
    }

    /// Members leave, each by its id or by its instance id alone. One result for each.
    pub(super) fn handle_leave(
        &mut self,
        members: &[(StrBytes, Option<StrBytes>)],
        settings: &GroupSettings,
        now: Instant,
        out: &mut Out,
    ) -> Vec<Result<(), Code>> {
        let before = self.members.len();
        let results = members.iter().map(|(id, instance)| self.leave(id, instance.as_ref(), out)).collect();
        self.shrink(before, settings, now, out);
        results
    }

    fn leave(&mut self, id: &StrBytes, instance: Option<&StrBytes>, out: &mut Out) -> Result<(), Code> {
        let id = match (id.is_empty(), instance) {
            (true, Some(instance)) => self.statics.get(instance).cloned().ok_or(Code::UnknownMemberId)?,
            _ => id.clone(),
        };
        if self.pending.contains_key(&id) {
            self.forget_pending(&id);
            return Ok(());
        }
        self.check_member(&id, instance)?;
        self.remove(&id, Code::UnknownMemberId, out);
        Ok(())
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, settings: &GroupSettings, now: Instant, out: &mut Out) {
        let before = self.members.len();
        while let Some((at, id)) = self.sessions.first().cloned().filter(|(at, _)| *at <= now) {
            self.sessions.remove(&(at, id.clone()));
            if self.pending.remove(&id).is_some() {
                continue;
            }
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.session_ends = None;
            let waits = member.joining.is_some() || member.syncing.is_some();
            if member.new || !waits {
                self.remove(&id, Code::UnknownMemberId, out);
            }
        }
        self.shrink(before, settings, now, out);
        if self.initial.as_ref().is_some_and(|i| i.ends <= now) {
            self.handle_initial(settings, now, out);
        }
        if self.join_ends.is_some_and(|at| at <= now) {
            self.complete(now, out);
        }
        if self.sync_ends.is_some_and(|at| at <= now) {
            self.sync_ends = None;
            for id in std::mem::take(&mut self.unsynced) {
                self.remove(&id, Code::UnknownMemberId, out);
            }
            self.rebalance(settings, now, out);
        }
    }

    /// The coordinator moved: who waits is told so, and a rebalance in progress begins anew.
    pub(super) fn handle_moved(&mut self, now: Instant, out: &mut Out) {
        for (id, member) in &mut self.members {
            if let Some(waiting) = member.joining.take() {
                out.push(Answer::Join(waiting, Joined::refused(id.clone(), Code::NotCoordinator)));
            }
            if let Some(waiting) = member.syncing.take() {
                out.push(Answer::Sync(waiting, Synced::refused(Code::NotCoordinator)));
            }
            member.new = false;
        }
        let pending: Vec<StrBytes> = self.pending.keys().cloned().collect();
        for id in &pending {
            self.forget_pending(id);
        }
        let ids: Vec<StrBytes> = self.members.keys().cloned().collect();
        for id in &ids {
            self.renew_session(id, now);
        }
        self.initial = None;
        match self.state {
            State::PreparingRebalance | State::CompletingRebalance => self.prepare(now, out),
            State::Empty | State::Stable => {}
        }
    }

    /// Removes a member at once, as if its session had run out. `false` where it is not there.
    pub(super) fn expire(
        &mut self,
        id: &StrBytes,
        settings: &GroupSettings,
        now: Instant,
        out: &mut Out,
    ) -> bool {
        let before = self.members.len();
        self.remove(id, Code::UnknownMemberId, out);
        self.shrink(before, settings, now, out);
        self.members.len() < before
    }

    /// Somebody may be gone since there were `before` members, or an id that was given will not come back.
    fn shrink(&mut self, before: usize, settings: &GroupSettings, now: Instant, out: &mut Out) {
        match self.state {
            State::Empty => {}
            State::PreparingRebalance => self.complete_if_all(now, out),
            State::CompletingRebalance | State::Stable if self.members.len() < before => {
                self.rebalance(settings, now, out);
            }
            State::CompletingRebalance | State::Stable => {}
        }
    }
}

#[cfg(test)]
mod tests;
