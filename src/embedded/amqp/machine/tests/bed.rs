//! Clients for tests of the machine: they speak in methods and look at frames.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::super::{Server, Settings};
use crate::NodeId;
use crate::amqp::Table;
use crate::embedded::amqp::wire::frame::{self, BODY, HEADER, Head, PROTOCOL};
use crate::embedded::amqp::wire::method::{self, Method, Request, basic, channel, connection, queue};
use crate::embedded::amqp::wire::properties::ContentHeader;
use crate::embedded::amqp::wire::{Flags, Long, RawTable, Reader, Short, table};
use crate::embedded::faults::Faults;
use crate::embedded::machine::{Clock, ConnectionId, Machine, Output};

/// What a client has of its connection.
#[derive(Debug, Default)]
struct Side {
    /// Sent and not taken.
    input: BytesMut,
    /// Received and not looked at.
    output: BytesMut,
    paused: bool,
    /// It takes nothing from the broker.
    deaf: bool,
    end: Option<Output>,
}

#[derive(Debug)]
pub(super) struct Bed {
    pub(super) server: Server,
    pub(super) now: Instant,
    sides: BTreeMap<ConnectionId, Side>,
    gone: BTreeSet<ConnectionId>,
}

/// A frame that the broker sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) channel: u16,
    pub(super) payload: Bytes,
}

/// A delivered, returned or fetched message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) tag: Bytes,
    pub(super) delivery: u64,
    pub(super) redelivered: bool,
    pub(super) exchange: Bytes,
    pub(super) routing_key: Bytes,
    pub(super) properties: Bytes,
    pub(super) body: Bytes,
    /// Body frames.
    pub(super) frames: usize,
}

pub(super) const CAPABILITIES: &[&str] =
    &["authentication_failure_close", "basic.nack", "connection.blocked", "consumer_cancel_notify"];

impl Bed {
    pub(super) fn new() -> Self {
        Self::with(Settings::default(), Faults::default())
    }

    pub(super) fn with(settings: Settings, faults: Faults) -> Self {
        let now = Instant::now();
        let clock = Clock { at: now, wall: crate::Timestamp(1_700_000_000_000) };
        let server = Server::new(settings, faults, clock);
        Self { server, now, sides: BTreeMap::new(), gone: BTreeSet::new() }
    }

    /// A bare connection.
    pub(super) fn connect(&mut self) -> ConnectionId {
        let id = ConnectionId(self.sides.len() as u64 + 1);
        assert!(self.server.accepts(NodeId(0)));
        self.server.handle_open(id, NodeId(0), ([127, 0, 0, 1], 5).into(), self.now);
        self.sides.insert(id, Side::default());
        self.pump();
        id
    }

    /// One that has sent `start-ok`.
    pub(super) fn login(&mut self, user: &str, password: &str, capabilities: &[&str]) -> ConnectionId {
        let id = self.connect();
        self.raw(id, &PROTOCOL);
        let start = self.frame(id).expect("start");
        assert_eq!(start.payload[..4], [0, 10, 0, 10]);
        let capabilities: Table =
            capabilities.iter().map(|name| (*name, crate::amqp::Value::Bool(true))).collect();
        let mut properties = BytesMut::new();
        table::encode_field(b"capabilities", &crate::amqp::Value::Table(capabilities), &mut properties);
        let name = crate::amqp::Value::Text(format!("client {}", id.0));
        table::encode_field(b"connection_name", &name, &mut properties);
        let response = format!("\0{user}\0{password}");
        self.send(
            id,
            0,
            Request::ConnectionStartOk(connection::StartOk {
                client_properties: RawTable(&properties),
                mechanism: Short(b"PLAIN"),
                response: Long(response.as_bytes()),
                locale: Short(b"en_US"),
            }),
        );
        id
    }

    /// One that has sent everything up to `open`.
    pub(super) fn hello(&mut self, heartbeat: u16, capabilities: &[&str], vhost: &str) -> ConnectionId {
        let id = self.login("guest", "guest", capabilities);
        let tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
        self.expect(id, 0, &tune);
        self.send(
            id,
            0,
            Request::ConnectionTuneOk(connection::TuneOk {
                channel_max: 2047,
                frame_max: 131_072,
                heartbeat,
            }),
        );
        self.send(
            id,
            0,
            Request::ConnectionOpen(connection::Open {
                virtual_host: vhost.into(),
                ..connection::Open::default()
            }),
        );
        id
    }

    /// An open connection without heartbeat, with channel 1 open.
    pub(super) fn open(&mut self) -> ConnectionId {
        self.open_with(0, CAPABILITIES)
    }

    pub(super) fn open_with(&mut self, heartbeat: u16, capabilities: &[&str]) -> ConnectionId {
        let id = self.hello(heartbeat, capabilities, "/");
        self.expect(id, 0, &connection::OpenOk::default());
        self.channel(id, 1);
        id
    }

    pub(super) fn channel(&mut self, id: ConnectionId, number: u16) {
        self.send(id, number, Request::ChannelOpen(channel::Open::default()));
        self.expect(id, number, &channel::OpenOk::default());
    }

    pub(super) fn raw(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.sides.get_mut(&id).unwrap().input.extend_from_slice(bytes);
        self.feed(id);
        self.pump();
    }

    fn feed(&mut self, id: ConnectionId) {
        let side = self.sides.get_mut(&id).unwrap();
        if side.end.is_none() {
            side.paused = self.server.handle_input(id, &mut side.input, self.now).paused;
        }
    }

    pub(super) fn send(&mut self, id: ConnectionId, channel: u16, request: Request<'_>) {
        let mut out = BytesMut::new();
        request.encode(&mut out, channel);
        self.raw(id, &out);
    }

    /// What a driver does after an input.
    pub(super) fn pump(&mut self) {
        while let Some(id) = self.server.poll_wake() {
            if self.sides[&id].paused {
                self.feed(id);
            }
            let side = self.sides.get_mut(&id).unwrap();
            while side.end.is_none() && !side.deaf {
                match self.server.poll_output(id) {
                    Output::Bytes(bytes) => side.output.extend_from_slice(&bytes),
                    Output::Pending => break,
                    end => side.end = Some(end),
                }
            }
            if side.end.is_some() && self.gone.insert(id) {
                self.server.handle_close(id, self.now);
            }
        }
    }

    /// Whether it takes what the broker sends.
    pub(super) fn listen(&mut self, id: ConnectionId, listens: bool) {
        let side = self.sides.get_mut(&id).unwrap();
        side.deaf = !listens;
        while !side.deaf && side.end.is_none() {
            match self.server.poll_output(id) {
                Output::Bytes(bytes) => side.output.extend_from_slice(&bytes),
                Output::Pending => break,
                end => side.end = Some(end),
            }
        }
        self.pump();
    }

    /// The client vanishes.
    pub(super) fn vanish(&mut self, id: ConnectionId) {
        if self.gone.insert(id) {
            self.sides.get_mut(&id).unwrap().end = Some(Output::Reset);
            self.server.handle_close(id, self.now);
            self.pump();
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self.server.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.server.handle_timeout(self.now);
            self.pump();
        }
        self.now = end;
        self.server.handle_timeout(end);
        self.pump();
    }

    pub(super) fn paused(&self, id: ConnectionId) -> bool {
        self.sides[&id].paused
    }

    pub(super) fn ended(&self, id: ConnectionId) -> Option<&Output> {
        self.sides[&id].end.as_ref()
    }

    /// The bytes that were not looked at.
    pub(super) fn unread(&self, id: ConnectionId) -> &[u8] {
        &self.sides[&id].output
    }

    pub(super) fn frame(&mut self, id: ConnectionId) -> Option<Frame> {
        let output = &mut self.sides.get_mut(&id).unwrap().output;
        let head = Head::peek(output)?;
        if output.len() < head.len() {
            return None;
        }
        let whole = output.split_to(head.len()).freeze();
        assert_eq!(whole.last(), Some(&frame::END));
        let payload = whole.slice(frame::HEAD..whole.len() - 1);
        Some(Frame { kind: head.kind, channel: head.channel, payload })
    }

    /// The next frame is this method.
    #[track_caller]
    pub(super) fn expect<'a, M: Method<'a>>(&mut self, id: ConnectionId, channel: u16, method: &M) {
        let mut expected = BytesMut::new();
        method::frame(&mut expected, channel, method);
        let head = Head::peek(&expected).unwrap();
        let payload = Bytes::copy_from_slice(frame::payload(&expected, head).unwrap().0.0);
        let got = self.frame(id);
        assert_eq!(got, Some(Frame { kind: frame::METHOD, channel, payload }), "end: {:?}", self.ended(id));
    }

    /// Nothing came.
    #[track_caller]
    pub(super) fn silent(&mut self, id: ConnectionId) {
        assert_eq!(self.frame(id), None);
    }

    /// The next frame closes the channel, or with channel 0 the connection: code, text and method.
    #[track_caller]
    pub(super) fn closed(&mut self, id: ConnectionId) -> (u16, u16, String, (u16, u16)) {
        let frame = self.frame(id).expect("a close");
        let mut from = Reader(&frame.payload);
        let name = (from.u16().unwrap(), from.u16().unwrap());
        assert!(matches!(name, (10, 50) | (20, 40)), "no close: {name:?}");
        let code = from.u16().unwrap();
        let text = String::from_utf8(from.short().unwrap().to_vec()).unwrap();
        (frame.channel, code, text, (from.u16().unwrap(), from.u16().unwrap()))
    }

    pub(super) fn publish(&mut self, id: ConnectionId, queue: &str, body: &[u8]) {
        self.publish_with(id, "", queue, 0, &[0, 0], body);
    }

    pub(super) fn publish_with(
        &mut self,
        id: ConnectionId,
        exchange: &str,
        key: &str,
        flags: u8,
        properties: &[u8],
        body: &[u8],
    ) {
        let out = message(1, exchange, key, flags, properties, body);
        self.raw(id, &out);
    }

    pub(super) fn declare(&mut self, id: ConnectionId, name: &str, arguments: &Table) {
        let mut raw = BytesMut::new();
        table::encode(arguments, &mut raw);
        self.send(
            id,
            1,
            Request::QueueDeclare(queue::Declare {
                queue: name.into(),
                arguments: RawTable(&raw[4..]),
                ..queue::Declare::default()
            }),
        );
        self.expect(id, 1, &queue::DeclareOk { queue: name.into(), messages: 0, consumers: 0 });
    }

    pub(super) fn consume(&mut self, id: ConnectionId, queue: &str, tag: &str, flags: u8) {
        self.send(
            id,
            1,
            Request::BasicConsume(basic::Consume {
                queue: queue.into(),
                tag: tag.into(),
                flags: Flags(flags),
                ..basic::Consume::default()
            }),
        );
        self.expect(id, 1, &basic::ConsumeOk { tag: tag.into() });
    }

    pub(super) fn prefetch(&mut self, id: ConnectionId, count: u16, global: bool) {
        self.send(
            id,
            1,
            Request::BasicQos(basic::Qos {
                prefetch_size: 0,
                prefetch_count: count,
                global: Flags(u8::from(global)),
            }),
        );
        self.expect(id, 1, &basic::QosOk {});
    }

    pub(super) fn ack(&mut self, id: ConnectionId, delivery: u64, multiple: bool) {
        self.send(id, 1, Request::BasicAck(basic::Ack { delivery, multiple: Flags(u8::from(multiple)) }));
    }

    pub(super) fn confirm(&mut self, id: ConnectionId) {
        self.send(id, 1, Request::ConfirmSelect(method::confirm::Select::default()));
        self.expect(id, 1, &method::confirm::SelectOk {});
    }

    /// Ready messages and consumers of a queue.
    pub(super) fn depth(&mut self, queue: &str) -> (u64, u64) {
        let broker = self.server.broker();
        let vhost = broker.find_vhost(b"/").unwrap();
        let depth = broker.queue_depth(vhost, queue.as_bytes()).expect("the queue is there");
        (depth.ready, depth.consumers)
    }

    /// The next frames are a message: `basic.deliver`, `basic.return` or `basic.get-ok`.
    #[track_caller]
    pub(super) fn got(&mut self, id: ConnectionId) -> Got {
        let frame = self.frame(id).expect("a message");
        let mut from = Reader(&frame.payload);
        let name = (from.u16().unwrap(), from.u16().unwrap());
        let copy = Bytes::copy_from_slice;
        let mut got = match name {
            (60, 60) => {
                let m = basic::Deliver::read(&mut from).unwrap();
                Got {
                    tag: copy(m.tag.0),
                    delivery: m.delivery,
                    redelivered: m.redelivered.has(1),
                    exchange: copy(m.exchange.0),
                    routing_key: copy(m.routing_key.0),
                    properties: Bytes::new(),
                    body: Bytes::new(),
                    frames: 0,
                }
            }
            (60, 71) => {
                let m = basic::GetOk::read(&mut from).unwrap();
                Got {
                    tag: Bytes::new(),
                    delivery: m.delivery,
                    redelivered: m.redelivered.has(1),
                    exchange: copy(m.exchange.0),
                    routing_key: copy(m.routing_key.0),
                    properties: Bytes::new(),
                    body: Bytes::new(),
                    frames: 0,
                }
            }
            (60, 50) => {
                let m = basic::Return::read(&mut from).unwrap();
                assert_eq!((m.code, m.text), (312, "NO_ROUTE".into()));
                Got {
                    tag: Bytes::from_static(b"returned"),
                    delivery: 0,
                    redelivered: false,
                    exchange: copy(m.exchange.0),
                    routing_key: copy(m.routing_key.0),
                    properties: Bytes::new(),
                    body: Bytes::new(),
                    frames: 0,
                }
            }
            other => panic!("no message: {other:?}"),
        };
        let header = self.frame(id).expect("a content header");
        assert_eq!((header.kind, header.channel), (HEADER, frame.channel));
        let content = ContentHeader::parse(Reader(&header.payload)).unwrap();
        got.properties = copy(content.properties);
        let mut body = BytesMut::new();
        while (body.len() as u64) < content.body_size {
            let part = self.frame(id).expect("a body");
            assert_eq!((part.kind, part.channel), (BODY, frame.channel));
            body.put_slice(&part.payload);
            got.frames += 1;
        }
        got.body = body.freeze();
        got
    }

    /// The bodies of all messages that came.
    pub(super) fn bodies(&mut self, id: ConnectionId) -> Vec<Bytes> {
        let mut bodies = Vec::new();
        while !self.unread(id).is_empty() {
            bodies.push(self.got(id).body);
        }
        bodies
    }
}

/// The frames of a publish.
pub(super) fn message(
    channel: u16,
    exchange: &str,
    key: &str,
    flags: u8,
    properties: &[u8],
    body: &[u8],
) -> BytesMut {
    let mut out = BytesMut::new();
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: key.into(),
        flags: Flags(flags),
        ..basic::Publish::default()
    };
    method::frame(&mut out, channel, &publish);
    let header = ContentHeader { class: 60, body_size: body.len() as u64, properties };
    frame::write(&mut out, HEADER, channel, |to| header.write(to));
    for part in body.chunks(131_064) {
        frame::write(&mut out, BODY, channel, |to| to.put_slice(part));
    }
    out
}
