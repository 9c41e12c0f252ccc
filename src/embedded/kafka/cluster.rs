//! The cluster as one pure machine: nodes, connections, the request loop, timers.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use kafka_protocol::protocol::{HeaderVersion, StrBytes};

use super::api::{self, Api, Code, Context};
use super::api::{AllSessions, Waiting};
use super::carry::Carrier;
use super::configs::broker::Changed;
use super::connection::{Connection, Pending};
use super::groups::{Coordinators, GroupSettings, Groups};
use super::security::{Admission, SecuritySettings, Session, Users};
use super::topics::Topics;
use super::transactions::{TransactionSettings, Transactions};
use crate::embedded::faults::Faults;
use crate::embedded::machine::{Clock, ConnectionId, Machine, Need, Output};
use crate::random::{SplitMix64, id_text};
use crate::{NodeId, Timestamp};

/// How the cluster behaves, beside what topics and groups are told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The seed of every random choice: ids of members, producers, topics, the cluster.
    pub(crate) seed: u64,
    /// The longest request. Default 100 MiB, as the real broker's `socket.request.max.bytes`.
    pub(crate) max_request_bytes: usize,
    /// Bytes of records kept in all partitions together; beyond it a produce is refused. Default 1 GiB.
    pub(crate) memory_limit: u64,
    /// Are topics created by being asked for? Default true, as the real broker.
    pub(crate) auto_create_topics: bool,
    /// Partitions of a topic that does not say how many. Default 1.
    pub(crate) default_partitions: i32,
    /// `broker.rack` of each broker, repeated; where there are any, clients are sent to the replica of their rack.
    pub(crate) racks: Vec<String>,
    /// Of the transaction coordinator.
    pub(crate) transactions: TransactionSettings,
    /// The level of `transaction.version` in force: 2 (KIP-890), or the older 0 and 1. Default 2.
    pub(crate) transaction_version: i16,
    /// Who may speak.
    pub(crate) security: SecuritySettings,
    /// What groups are told.
    pub(crate) groups: GroupSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            max_request_bytes: 100 * 1024 * 1024,
            memory_limit: 1024 * 1024 * 1024,
            auto_create_topics: true,
            default_partitions: 1,
            racks: Vec::new(),
            transactions: TransactionSettings::default(),
            transaction_version: 2,
            security: SecuritySettings::default(),
            groups: GroupSettings::default(),
        }
    }
}

/// A broker of the cluster.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// What it advertises.
    pub(super) host: String,
    pub(super) port: u16,
    /// A killed one takes no connections and leads nothing.
    pub(super) alive: bool,
    /// It is cut off: its connections hang, the others take over what it led.
    pub(super) isolated: bool,
    /// `broker.rack`.
    pub(super) rack: Option<String>,
}

impl Node {
    /// Is it up, and reached?
    pub(super) fn is_up(&self) -> bool {
        self.alive && !self.isolated
    }
}

/// All brokers of one cluster, without their sockets.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    /// `cluster.id`.
    pub(super) id: StrBytes,
    /// By number.
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) topics: Topics,
    /// When the logs were last looked through.
    pub(super) cleaned: Instant,
    /// Configuration of brokers that was changed.
    pub(super) broker_configs: Changed,
    /// Fetches that wait.
    pub(super) fetches: Waiting,
    pub(super) sessions: AllSessions,
    pub(super) transactions: Transactions,
    pub(super) groups: Groups,
    pub(super) coordinators: Coordinators,
    pub(super) users: Users,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) woken: VecDeque<ConnectionId>,
    random: SplitMix64,
    pub(super) carrier: Carrier,
}

impl Cluster {
    /// A cluster of these nodes, each with what it advertises.
    pub(crate) fn new(settings: Settings, nodes: Vec<(NodeId, String, u16)>, clock: Clock) -> Self {
        let nodes = nodes
            .into_iter()
            .enumerate()
            .map(|(i, (id, host, port))| {
                let rack = settings.racks.iter().cycle().nth(i).cloned();
                (id, Node { id, host, port, alive: true, isolated: false, rack })
            })
            .collect::<BTreeMap<_, _>>();
        let mut cluster = Self {
            random: SplitMix64::new(settings.seed),
            id: StrBytes::default(),
            transactions: Transactions::new(settings.transactions.clone()),
            groups: Groups::new(settings.groups.clone()),
            coordinators: Coordinators::default(),
            carrier: Carrier::default(),
            settings,
            clock,
            nodes,
            topics: Topics::default(),
            cleaned: clock.at,
            broker_configs: Changed::default(),
            fetches: Waiting::default(),
            sessions: AllSessions::default(),
            connections: BTreeMap::new(),
            woken: VecDeque::new(),
            users: Users::default(),
        };
        cluster.id = cluster.draw_id();
        let users = std::mem::take(&mut cluster.settings.security.users);
        for (name, password) in &users {
            let salts = [cluster.draw(), cluster.draw(), cluster.draw(), cluster.draw()];
            cluster.users.add(name, password, salts);
        }
        cluster
    }

    /// The wall time at `now`.
    pub(super) fn wall(&self, now: Instant) -> Timestamp {
        self.clock.wall(now)
    }

    /// A random number.
    pub(super) fn draw(&mut self) -> u64 {
        self.random.draw()
    }

    /// A random id.
    fn draw_id(&mut self) -> StrBytes {
        id_text(self.draw(), self.draw()).into()
    }

    /// Answers the request for which a handler said [`Reply::Later`](super::api::Reply::Later). Where the connection
    /// is gone, or waits for another request's answer, nothing happens.
    pub(super) fn answer<R: Api>(&mut self, connection: ConnectionId, response: &R::Response) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        match state.pending {
            Some(pending) if pending.key == R::KEY => {
                state.pending = None;
                self.write::<R>(connection, pending, response);
            }
            _ => {}
        }
    }

    /// Writes an answer.
    pub(super) fn write<R: Api>(
        &mut self,
        connection: ConnectionId,
        pending: Pending,
        response: &R::Response,
    ) {
        let mut chunks = Vec::new();
        let written = match self.lagging(connection, response) {
            Some(old) => MetadataRequest::write_body(&old, pending.version, &mut chunks),
            None => R::write_body(response, pending.version, &mut chunks),
        };
        if let Err(error) = written {
            tracing::error!(error, api = R::KEY, "an answer could not be written");
            return self.end(connection, Output::Reset);
        }
        self.write_encoded::<R>(connection, pending, chunks);
    }

    /// As [`answer`](Self::answer), of a body that is encoded already.
    pub(super) fn answer_encoded<R: Api>(&mut self, connection: ConnectionId, body: Vec<Bytes>) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        match state.pending {
            Some(pending) if pending.key == R::KEY => {
                state.pending = None;
                self.write_encoded::<R>(connection, pending, body);
            }
            _ => {}
        }
    }

    /// Writes an answer whose body is encoded.
    fn write_encoded<R: Api>(&mut self, connection: ConnectionId, pending: Pending, mut chunks: Vec<Bytes>) {
        chunks = self.supplanted(connection, chunks);
        let flexible = R::Response::header_version(pending.version) >= 1;
        let size = chunks.iter().map(Bytes::len).sum::<usize>() + 4 + usize::from(flexible);
        let Ok(size) = i32::try_from(size) else {
            tracing::error!(size, api = R::KEY, "an answer is too large");
            return self.end(connection, Output::Reset);
        };
        let mut head = BytesMut::with_capacity(9);
        head.extend_from_slice(&size.to_be_bytes());
        head.extend_from_slice(&pending.correlation.to_be_bytes());
        if flexible {
            head.extend_from_slice(&[0]);
        }
        chunks.insert(0, head.freeze());
        self.carry(connection, chunks);
    }

    /// The driver is to look at a connection.
    pub(super) fn wake(&mut self, connection: ConnectionId) {
        self.woken.push_back(connection);
    }

    /// Cuts all connections to a broker.
    pub(super) fn end_all(&mut self, node: NodeId) {
        for (connection, state) in &mut self.connections {
            if state.node == node {
                state.end(Output::Reset);
                self.woken.push_back(*connection);
            }
        }
    }

    /// No byte passes a broker's connections, or they go on.
    pub(super) fn cut_off(&mut self, node: NodeId, is: bool) {
        for (connection, state) in &mut self.connections {
            if state.node == node {
                state.cut_off = is;
                self.woken.push_back(*connection);
            }
        }
    }

    /// Puts these faults in force.
    pub(crate) fn set_faults(&mut self, faults: Faults, now: Instant) {
        self.carrier = Carrier::new(faults);
        self.carrier.faults.handle_start(now);
    }

    /// The faults in force, to be asked or changed.
    pub(crate) fn faults<T>(&mut self, with: impl FnOnce(&mut Faults) -> T) -> T {
        let result = with(&mut self.carrier.faults);
        self.release();
        result
    }

    /// Ends a connection.
    pub(super) fn end(&mut self, connection: ConnectionId, how: Output) {
        if let Some(state) = self.connections.get_mut(&connection) {
            state.end(how);
            self.woken.push_back(connection);
        }
    }

    pub(super) fn connection(&mut self, connection: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(&connection)
    }

    /// May this request be handled? If not, its refusal ends the connection.
    pub(super) fn admission(&self, context: &Context) -> Admission {
        let state = self.connections.get(&context.connection);
        state.map_or(Admission::Close, |state| state.session.admits(context.pending.key, context.now))
    }

    fn handle_frame(&mut self, connection: ConnectionId, frame: Bytes, now: Instant) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        if state.session.is_raw() {
            return self.log_in_raw(connection, &frame, now);
        }
        let size = frame.len();
        let head = match api::read_head(frame) {
            Ok(head) => head,
            Err(why) => {
                tracing::debug!(?connection, why, "a request cannot be read; the connection ends");
                state.end(Output::Close);
                return;
            }
        };
        state.pending = Some(head.pending);
        let context = Context {
            connection,
            node: state.node,
            client_id: head.client_id,
            version: head.pending.version,
            pending: head.pending,
            now,
            size,
            struck: false,
        };
        if head.unknown_version {
            let refusal = ApiVersionsRequest::default().refuse(Code::UnsupportedVersion, 0);
            return self.answer::<ApiVersionsRequest>(connection, &refusal);
        }
        api::dispatch(self, &context, head.body);
    }
}

impl Machine for Cluster {
    fn accepts(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.alive)
    }

    fn handle_open(&mut self, connection: ConnectionId, node: NodeId, peer: SocketAddr, _now: Instant) {
        let session = Session::new(self.settings.security.required);
        let mut state = Connection::new(node, peer, session);
        state.cut_off = self.nodes.get(&node).is_some_and(|node| node.isolated);
        self.connections.insert(connection, state);
    }

    fn handle_input(&mut self, connection: ConnectionId, input: &mut BytesMut, now: Instant) -> Need {
        let limit = self.settings.max_request_bytes;
        loop {
            let Some(state) = self.connections.get_mut(&connection) else { return Need::default() };
            if !state.is_ready() {
                return state.pause();
            }
            let limit = state.session.frame_limit().min(limit);
            match Connection::next_frame(input, limit) {
                Ok(Ok(frame)) => self.handle_frame(connection, frame, now),
                Ok(Err(need)) => return need,
                Err(length) => {
                    tracing::debug!(
                        ?connection,
                        length,
                        limit,
                        "a frame's length is wrong; the connection ends"
                    );
                    self.end(connection, Output::Close);
                }
            }
        }
    }

    fn handle_close(&mut self, connection: ConnectionId, _now: Instant) {
        self.fetches.remove(connection);
        self.connections.remove(&connection);
        self.carry_close(connection);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.carry_timeout(now);
        self.end_fetches(now);
        self.clean_due(now);
        self.transactions.handle_timeout(now);
        self.write_markers(now);
        self.groups.handle_timeout(now);
        self.answer_groups();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.fetches.next_deadline(),
            self.next_cleaning(),
            self.transactions.poll_timeout(),
            self.groups.poll_timeout(),
            self.carrier.poll_timeout(),
        ];
        due.into_iter().flatten().min()
    }

    fn poll_wake(&mut self) -> Option<ConnectionId> {
        self.woken.pop_front()
    }

    fn is_cut(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_none_or(Connection::is_cut)
    }

    fn poll_output(&mut self, connection: ConnectionId) -> Output {
        let Some(state) = self.connections.get_mut(&connection) else { return Output::Reset };
        let output = state.poll_output();
        if state.resumes() {
            self.woken.push_back(connection);
        }
        output
    }
}

/// How long a caller that waits is kept at most, whatever it asks for.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
