//! A cluster for tests: requests in, answers out, and a clock that is set by hand.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};

use super::cluster::{Cluster, Settings};
use crate::embedded::machine::{Clock, ConnectionId, Machine, Output};
use crate::{NodeId, Timestamp};

/// The wall time at the beginning.
pub(super) const BEGIN: Timestamp = Timestamp(1_700_000_000_000);

/// A cluster, its clients' connections, and the time.
pub(super) struct Bed {
    pub(super) cluster: Cluster,
    pub(super) now: Instant,
    next: u64,
    correlation: i32,
    received: BTreeMap<ConnectionId, BytesMut>,
    ended: BTreeMap<ConnectionId, Output>,
}

impl Bed {
    /// Brokers 1 to `nodes`, at `broker-1:9092` and so on.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one reading from which all times of a test are counted"
    )]
    pub(super) fn new(nodes: i32, settings: Settings) -> Self {
        let now = Instant::now();
        let nodes = (1..=nodes).map(|n| (NodeId(n), format!("broker-{n}"), 9092)).collect();
        Self {
            cluster: Cluster::new(settings, nodes, Clock { at: now, wall: BEGIN }),
            now,
            next: 1,
            correlation: 0,
            received: BTreeMap::new(),
            ended: BTreeMap::new(),
        }
    }

    /// A new client's connection to a broker.
    pub(super) fn connect(&mut self, node: i32) -> ConnectionId {
        let connection = ConnectionId(self.next);
        self.next += 1;
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000));
        self.cluster.handle_open(connection, NodeId(node), peer, self.now);
        self.received.insert(connection, BytesMut::new());
        connection
    }

    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        self.cluster.handle_close(connection, self.now);
        self.received.remove(&connection);
    }

    /// Lets time pass, timer by timer.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        for _ in 0..100_000 {
            let Some(due) = self.cluster.poll_timeout().filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            self.cluster.handle_timeout(self.now);
        }
        panic!("the machine's timers do not come to rest");
    }

    /// Sends a request; its answer, if any, is read by [`answer`](Self::answer).
    pub(super) fn send<R: Request>(&mut self, connection: ConnectionId, version: i16, request: &R) -> i32 {
        self.correlation += 1;
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&R::KEY.to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&self.correlation.to_be_bytes());
        let client = StrBytes::from_static_str("bed");
        frame.extend_from_slice(&i16::try_from(client.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(client.as_bytes());
        if R::header_version(version) >= 2 {
            frame.extend_from_slice(&[0]);
        }
        request.encode(&mut frame, version).unwrap();
        let mut input = BytesMut::new();
        input.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_be_bytes());
        input.extend_from_slice(&frame);
        self.input(connection, &mut input);
        self.correlation
    }

    /// Gives raw bytes to a connection.
    pub(super) fn input(&mut self, connection: ConnectionId, bytes: &mut BytesMut) {
        self.cluster.handle_input(connection, bytes, self.now);
    }

    /// The answer that has come on a connection; `None` while there is none.
    pub(super) fn answer<R: Request>(
        &mut self,
        connection: ConnectionId,
        version: i16,
        correlation: i32,
    ) -> Option<R::Response> {
        let mut frame = self.frame(connection)?;
        assert_eq!(frame.get_i32(), correlation);
        if R::Response::header_version(version) >= 1 {
            assert_eq!(frame.get_u8(), 0);
        }
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} bytes too many in an answer", frame.len());
        Some(response)
    }

    /// One request and its answer at once.
    pub(super) fn call<R: Request>(
        &mut self,
        connection: ConnectionId,
        version: i16,
        request: &R,
    ) -> R::Response {
        let correlation = self.send(connection, version, request);
        let answer = self.answer::<R>(connection, version, correlation);
        answer.unwrap_or_else(|| panic!("no answer to {} version {version}", R::KEY))
    }

    /// How a connection was ended by the cluster.
    pub(super) fn ended(&mut self, connection: ConnectionId) -> Option<Output> {
        self.pull(connection);
        self.ended.get(&connection).cloned()
    }

    fn pull(&mut self, connection: ConnectionId) {
        while self.cluster.poll_wake().is_some() {}
        loop {
            match self.cluster.poll_output(connection) {
                Output::Bytes(bytes) => {
                    self.received.entry(connection).or_default().extend_from_slice(&bytes);
                }
                Output::Pending => return,
                end => {
                    self.ended.insert(connection, end);
                    return;
                }
            }
        }
    }

    fn frame(&mut self, connection: ConnectionId) -> Option<Bytes> {
        self.pull(connection);
        let received = self.received.get_mut(&connection)?;
        let size = u32::from_be_bytes(*received.first_chunk()?) as usize;
        assert!(received.len() >= 4 + size, "an answer shorter than it says");
        received.advance(4);
        Some(received.split_to(size).freeze())
    }
}
