//! Carries out faults on requests. What a fault is, and when it strikes, stands in [`faults`](crate::embedded::faults).
//!
//! ```text
//! decoded request --> strike --+-- no fault ------------------------------> handled
//!                              +-- refused, cut, broker killed -----------> never handled
//!                              +-- stalled --- time ----------------------> handled
//!                              +-- fate of the answer noted on connection -> handled --> answer --> carry
//!                                                                                          |
//!                    sent | sent twice | cut | connection cut | kept until a time or a release
//! ```
//!
//! A connection has one request at a time, so the fate of its answer stands on the connection, and while an answer is
//! kept no further request is taken.

use std::any::Any;
use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, BrokerId, ConsumerGroupHeartbeatRequest,
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, EndTxnRequest,
    FetchRequest, FindCoordinatorRequest, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest,
    LeaveGroupRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest,
    TxnOffsetCommitRequest,
};

use super::api::{self, Api, Code, Context};
use super::cluster::Cluster;
use super::groups::Coordinated;
use crate::NodeId;
use crate::embedded::faults::{Action, Facts, Faults, Kind};
use crate::embedded::machine::{ConnectionId, Output};

/// What is to happen to the answer of the request in progress.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The connection is cut instead.
    Drop,
    /// So many bytes leave.
    Cut(usize),
    /// Another body takes the place of its own.
    Instead(Vec<Bytes>),
    /// It is sent twice.
    Twice,
    /// It leaves at that time.
    At(Instant),
    /// It leaves when this decision is released.
    Held(u64),
    /// It tells leaders as they were.
    Lag,
}

/// What waits for its time.
#[derive(Debug)]
enum Job {
    /// Sends what a connection keeps.
    Send(ConnectionId),
    /// Works the request on which a connection was stalled.
    Resume(ConnectionId, Context, Bytes),
    Revive(NodeId),
    Rejoin(NodeId),
}

/// Faults, and what they have under way.
#[derive(Debug, Default)]
pub(super) struct Carrier {
    pub(super) faults: Faults,
    jobs: BTreeMap<(Instant, u64), Job>,
    counter: u64,
    /// Connections whose answer is held, by decision.
    held: BTreeMap<u64, ConnectionId>,
}

impl Carrier {
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    fn later(&mut self, at: Instant, job: Job) {
        self.counter += 1;
        self.jobs.insert((at, self.counter), job);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.jobs.keys().next().map(|(at, _)| *at)
    }
}

/// What to do with a request after the faults had their say.
pub(super) enum Struck {
    /// Handle it.
    Work,
    /// It is dealt with.
    Done,
}

impl Cluster {
    /// Asks the faults about a request and does what strikes before the work.
    pub(super) fn strike<R: Api>(&mut self, context: &Context, request: &R, body: &Bytes) -> Struck {
        let kind = Kind::Kafka(R::KEY);
        if self.carrier.faults.is_empty() {
            return Struck::Work;
        }
        let named =
            if self.carrier.faults.wants_places(kind) { self.named(request) } else { Named::default() };
        let names: Vec<&str> = [&named.topics, &named.groups, &named.transactions]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let facts = Facts {
            node: context.node,
            connection: context.connection,
            client_id: context.client_id.as_ref().map(|id| id.as_str()),
            kind,
            places: &names,
        };
        let Some(decision) = self.carrier.faults.decide(&facts, context.now) else { return Struck::Work };
        let (connection, now) = (context.connection, context.now);
        let refusal = |code| {
            let code = Code::try_from_code(code).unwrap_or(Code::UnknownServerError);
            request.refuse(code, context.version)
        };
        let fate = match decision.action {
            Action::Error(code) => {
                let refusal = refusal(code);
                self.answer::<R>(connection, &refusal);
                return Struck::Done;
            }
            Action::DropRequest => {
                self.end(connection, Output::Reset);
                return Struck::Done;
            }
            Action::Stall(time) => {
                if let Some(state) = self.connection(connection) {
                    state.stalled = true;
                }
                self.carrier.later(now + time, Job::Resume(connection, context.clone(), body.clone()));
                return Struck::Done;
            }
            Action::Kill => {
                self.kill(context.node, now);
                return Struck::Done;
            }
            Action::Restart(after) => {
                self.kill(context.node, now);
                self.carrier.later(now + after, Job::Revive(context.node));
                return Struck::Done;
            }
            Action::Isolate(time) => {
                self.isolate(context.node, now);
                self.carrier.later(now + time, Job::Rejoin(context.node));
                return Struck::Work;
            }
            Action::MoveLeader(to) => {
                for topic in &named.topics {
                    self.move_leaders(topic, to, now);
                }
                return Struck::Work;
            }
            Action::MoveCoordinator(to) => {
                self.move_coordinators(&named, to, now);
                return Struck::Work;
            }
            Action::ExpireSession => {
                self.expire_fetch_session(context.node, request);
                self.expire_session(request, now);
                return Struck::Work;
            }
            Action::ErrorAfter(code) => {
                let mut body = Vec::new();
                if let Err(error) = R::write_body(&refusal(code), context.version, &mut body) {
                    tracing::error!(error, api = R::KEY, "an answer could not be written");
                    self.end(connection, Output::Reset);
                    return Struck::Done;
                }
                Fate::Instead(body)
            }
            Action::OldLeaders => Fate::Lag,
            Action::DropAnswer => Fate::Drop,
            Action::CutAnswer(at) => Fate::Cut(at),
            Action::AnswerTwice => Fate::Twice,
            Action::Delay(by) => Fate::At(now + by),
            Action::Hold(_) => {
                self.carrier.held.insert(decision.id, connection);
                Fate::Held(decision.id)
            }
            // Of the other broker: a rule with one of these never fires here.
            Action::CloseChannel(..)
            | Action::CloseConnection(..)
            | Action::Block(..)
            | Action::CancelConsumers
            | Action::Nack => return Struck::Work,
        };
        if let Some(state) = self.connection(connection) {
            state.fate = Some(fate);
        }
        Struck::Work
    }

    /// What a request names, topics by their names.
    fn named<R: Api>(&self, request: &R) -> Named {
        let mut named = named(request);
        let ids = std::mem::take(&mut named.topic_ids);
        let known = ids.into_iter().filter_map(|id| self.topics.name_of(id));
        named.topics.extend(known.map(|topic| topic.as_str().to_owned()));
        named
    }

    /// The answer that a broker gives that lags behind, where that is the fate of this one.
    pub(super) fn lagging<T: Any>(
        &mut self,
        connection: ConnectionId,
        response: &T,
    ) -> Option<MetadataResponse> {
        let state = self.connection(connection)?;
        if state.fate != Some(Fate::Lag) {
            return None;
        }
        let mut old = (response as &dyn Any).downcast_ref::<MetadataResponse>()?.clone();
        for topic in &mut old.topics {
            let Some(name) = &topic.name else { continue };
            for partition in &mut topic.partitions {
                let known = self.topics.partition(name, partition.partition_index);
                if let Some((leader, epoch)) = known.and_then(|p| p.before) {
                    partition.leader_id = BrokerId(leader.0);
                    partition.leader_epoch = epoch;
                    partition.error_code = 0;
                }
            }
        }
        Some(old)
    }

    /// The body of an answer, or of the one that takes its place.
    pub(super) fn supplanted(&mut self, connection: ConnectionId, body: Vec<Bytes>) -> Vec<Bytes> {
        let Some(state) = self.connection(connection) else { return body };
        match state.fate.take() {
            Some(Fate::Instead(other)) => other,
            fate => {
                state.fate = fate;
                body
            }
        }
    }

    /// Sends an answer, or does to it what its fate is.
    pub(super) fn carry(&mut self, connection: ConnectionId, frame: Vec<Bytes>) {
        let Some(state) = self.connection(connection) else { return };
        match state.fate.take() {
            None | Some(Fate::Lag | Fate::Instead(_)) => {
                frame.into_iter().for_each(|chunk| state.send(chunk))
            }
            Some(Fate::Twice) => {
                for _ in 0..2 {
                    frame.iter().for_each(|chunk| state.send(chunk.clone()));
                }
            }
            Some(Fate::Drop) => state.end(Output::Reset),
            Some(Fate::Cut(at)) => {
                let mut left = at;
                for mut chunk in frame {
                    chunk.truncate(left);
                    left -= chunk.len();
                    state.send(chunk);
                }
                state.end(Output::Close);
            }
            Some(Fate::At(at)) => {
                state.kept = Some(frame);
                self.carrier.later(at, Job::Send(connection));
            }
            Some(Fate::Held(_)) => state.kept = Some(frame),
        }
        self.wake(connection);
    }

    /// A request without an answer was worked: only a cut can be its fate.
    pub(super) fn carry_nothing(&mut self, connection: ConnectionId) {
        let Some(state) = self.connection(connection) else { return };
        if let Some(Fate::Drop | Fate::Cut(_)) = state.fate.take() {
            self.end(connection, Output::Reset);
        }
    }

    fn send_kept(&mut self, connection: ConnectionId) {
        if let Some(state) = self.connection(connection) {
            for chunk in state.kept.take().into_iter().flatten() {
                state.send(chunk);
            }
            self.wake(connection);
        }
    }

    /// Sends what was held and is released.
    pub(super) fn release(&mut self) {
        while let Some(id) = self.carrier.faults.poll_released() {
            let Some(connection) = self.carrier.held.remove(&id) else { continue };
            if let Some(state) = self.connection(connection)
                && state.fate == Some(Fate::Held(id))
            {
                // Released before the work was done.
                state.fate = None;
                continue;
            }
            self.send_kept(connection);
        }
    }

    /// A connection is gone: what it held is forgotten.
    pub(super) fn carry_close(&mut self, connection: ConnectionId) {
        if self.carrier.held.is_empty() {
            return;
        }
        let gone: Vec<u64> =
            self.carrier.held.iter().filter(|(_, c)| **c == connection).map(|(id, _)| *id).collect();
        for id in gone {
            self.carrier.held.remove(&id);
            self.carrier.faults.handle_abandoned(id);
        }
    }

    /// Does what is due.
    pub(super) fn carry_timeout(&mut self, now: Instant) {
        self.release();
        while let Some(entry) = self.carrier.jobs.first_entry() {
            if entry.key().0 > now {
                break;
            }
            match entry.remove() {
                Job::Send(connection) => self.send_kept(connection),
                Job::Resume(connection, context, body) => {
                    if let Some(state) = self.connection(connection) {
                        state.stalled = false;
                        self.wake(connection);
                        api::dispatch(self, &Context { now, struck: true, ..context }, body);
                    }
                }
                Job::Revive(node) => self.revive(node, now),
                Job::Rejoin(node) => self.rejoin(node, now),
            }
        }
    }
}

impl Cluster {
    fn move_coordinators(&mut self, named: &Named, to: Option<NodeId>, now: Instant) {
        for group in &named.groups {
            self.move_coordinator_or_next(Coordinated::Group, group, to, now);
        }
        for id in &named.transactions {
            self.move_coordinator_or_next(Coordinated::Transaction, id, to, now);
        }
    }

    /// The fetch session for which a request speaks is over.
    fn expire_fetch_session<R: Any>(&mut self, node: NodeId, request: &R) {
        let request: &dyn Any = request;
        if let Some(fetch) = request.downcast_ref::<FetchRequest>()
            && let Some(sessions) = self.sessions.get_mut(&node)
        {
            sessions.close(fetch.session_id);
        }
    }
}

/// What a request names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) topics: Vec<String>,
    /// Topics named by their id alone.
    pub(super) topic_ids: Vec<uuid::Uuid>,
    pub(super) groups: Vec<String>,
    pub(super) transactions: Vec<String>,
}

/// Reads the names out of the requests that have any.
pub(super) fn named<R: Any>(request: &R) -> Named {
    let mut named = Named::default();
    let any: &dyn Any = request;
    macro_rules! read {
        ($($kind:ident |$r:ident, $n:ident| $body:expr;)*) => {
            $(if let Some($r) = any.downcast_ref::<$kind>() {
                let $n = &mut named;
                $body;
                return named;
            })*
        };
    }
    let text = |s: &str| s.to_owned();
    read! {
        ProduceRequest |r, n| {
            n.transactions.extend(r.transactional_id.iter().map(|id| text(id)));
            for t in &r.topic_data {
                if t.name.is_empty() { n.topic_ids.push(t.topic_id) } else { n.topics.push(text(&t.name)) }
            }
        };
        FetchRequest |r, n| for t in &r.topics {
            if t.topic.is_empty() { n.topic_ids.push(t.topic_id) } else { n.topics.push(text(&t.topic)) }
        };
        MetadataRequest |r, n| for t in r.topics.iter().flatten() {
            match &t.name {
                Some(name) => n.topics.push(text(name)),
                None => n.topic_ids.push(t.topic_id),
            }
        };
        ListOffsetsRequest |r, n| n.topics.extend(r.topics.iter().map(|t| text(&t.name)));
        OffsetForLeaderEpochRequest |r, n| n.topics.extend(r.topics.iter().map(|t| text(&t.topic)));
        CreateTopicsRequest |r, n| n.topics.extend(r.topics.iter().map(|t| text(&t.name)));
        CreatePartitionsRequest |r, n| n.topics.extend(r.topics.iter().map(|t| text(&t.name)));
        DeleteRecordsRequest |r, n| n.topics.extend(r.topics.iter().map(|t| text(&t.name)));
        DeleteTopicsRequest |r, n| {
            n.topics.extend(r.topic_names.iter().map(|t| text(t)));
            for t in &r.topics {
                match &t.name {
                    Some(name) => n.topics.push(text(name)),
                    None => n.topic_ids.push(t.topic_id),
                }
            }
        };
        OffsetCommitRequest |r, n| {
            n.groups.push(text(&r.group_id));
            for t in &r.topics {
                if t.name.is_empty() { n.topic_ids.push(t.topic_id) } else { n.topics.push(text(&t.name)) }
            }
        };
        OffsetFetchRequest |r, n| {
            n.topics.extend(r.topics.iter().flatten().map(|t| text(&t.name)));
            if r.groups.is_empty() {
                n.groups.push(text(&r.group_id));
            }
            for g in &r.groups {
                n.groups.push(text(&g.group_id));
                for t in g.topics.iter().flatten() {
                    if t.name.is_empty() { n.topic_ids.push(t.topic_id) } else { n.topics.push(text(&t.name)) }
                }
            }
        };
        OffsetDeleteRequest |r, n| {
            n.groups.push(text(&r.group_id));
            n.topics.extend(r.topics.iter().map(|t| text(&t.name)));
        };
        JoinGroupRequest |r, n| n.groups.push(text(&r.group_id));
        SyncGroupRequest |r, n| n.groups.push(text(&r.group_id));
        HeartbeatRequest |r, n| n.groups.push(text(&r.group_id));
        LeaveGroupRequest |r, n| n.groups.push(text(&r.group_id));
        ConsumerGroupHeartbeatRequest |r, n| {
            n.groups.push(text(&r.group_id));
            n.topics.extend(r.subscribed_topic_names.iter().flatten().map(|t| text(t)));
        };
        FindCoordinatorRequest |r, n| {
            let keys = r.coordinator_keys.iter().chain(Some(&r.key).filter(|k| !k.is_empty()));
            let into = if r.key_type == 0 { &mut n.groups } else { &mut n.transactions };
            into.extend(keys.map(|k| text(k)));
        };
        InitProducerIdRequest |r, n| n.transactions.extend(r.transactional_id.iter().map(|id| text(id)));
        AddPartitionsToTxnRequest |r, n| {
            n.transactions.push(text(&r.v3_and_below_transactional_id));
            n.topics.extend(r.v3_and_below_topics.iter().map(|t| text(&t.name)));
            for t in &r.transactions {
                n.transactions.push(text(&t.transactional_id));
                n.topics.extend(t.topics.iter().map(|t| text(&t.name)));
            }
        };
        AddOffsetsToTxnRequest |r, n| {
            n.transactions.push(text(&r.transactional_id));
            n.groups.push(text(&r.group_id));
        };
        EndTxnRequest |r, n| n.transactions.push(text(&r.transactional_id));
        TxnOffsetCommitRequest |r, n| {
            n.transactions.push(text(&r.transactional_id));
            n.groups.push(text(&r.group_id));
            n.topics.extend(r.topics.iter().map(|t| text(&t.name)));
        };
    }
    named
}

#[cfg(test)]
mod tests;
