//! A client's side of the wire, as little of it as the simulation needs.

use bytes::{Buf, BytesMut};

use crate::embedded::amqp::wire::frame::{self, BODY, HEADER, Head, METHOD};
use crate::embedded::amqp::wire::method::{self, Method, basic, channel, confirm, connection, queue};
use crate::embedded::amqp::wire::properties::ContentHeader;
use crate::embedded::amqp::wire::table::encode_field;
use crate::embedded::amqp::wire::{Flags, Long, Properties, RawTable, Reader, Short};

/// All queues, the last one for dead letters.
pub(super) const QUEUES: [&str; 4] = ["plain", "small", "quorum", "dead"];

/// Where message `n` goes.
pub(super) fn key_of(n: u64) -> &'static str {
    match n % 8 {
        7 => "nowhere",
        n => QUEUES[(n % 3) as usize],
    }
}

/// Whether no queue can take message `n`.
pub(super) fn is_unroutable(n: u64) -> bool {
    key_of(n) == "nowhere"
}

/// What the broker said: a method, and the content behind it if it has one.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) method: BytesMut,
    pub(super) message_id: Option<u64>,
}

/// Puts frames together.
#[derive(Debug, Default)]
pub(super) struct Frames {
    input: BytesMut,
    /// A method whose content is on its way, the bytes of body that are missing, and the message.
    open: Option<(BytesMut, u64, Option<u64>)>,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    pub(super) fn next(&mut self) -> Option<Incoming> {
        loop {
            let head = Head::peek(&self.input)?;
            if self.input.len() < head.len() {
                return None;
            }
            let mut frame = self.input.split_to(head.len());
            frame.advance(frame::HEAD);
            frame.truncate(head.size);
            match (head.kind, self.open.take()) {
                (METHOD, None) => {
                    let with_content = matches!(id(&frame), (60, 50 | 60 | 71));
                    if !with_content {
                        return Some(Incoming { method: frame, message_id: None });
                    }
                    self.open = Some((frame, u64::MAX, None));
                }
                (HEADER, Some((method, _, _))) => {
                    let header = ContentHeader::parse(Reader(&frame)).unwrap();
                    let properties = Properties::parse(header.properties).unwrap();
                    let n = properties.message_id.and_then(|id| id.lossy().parse().ok());
                    if header.body_size == 0 {
                        return Some(Incoming { method, message_id: n });
                    }
                    self.open = Some((method, header.body_size, n));
                }
                (BODY, Some((method, missing, n))) => {
                    let missing = missing - frame.len() as u64;
                    if missing == 0 {
                        return Some(Incoming { method, message_id: n });
                    }
                    self.open = Some((method, missing, n));
                }
                (frame::HEARTBEAT, open) => self.open = open,
                other => panic!("a frame out of order: {other:?}"),
            }
        }
    }
}

/// Class and method.
pub(super) fn id(method: &[u8]) -> (u16, u16) {
    let mut from = Reader(method);
    (from.u16().unwrap(), from.u16().unwrap())
}

/// The arguments of a method that has this type.
pub(super) fn read<'a, M: Method<'a>>(method: &'a [u8]) -> M {
    assert_eq!(id(method), M::ID);
    M::read(&mut Reader(&method[4..])).unwrap()
}

/// What is left to say until the channel is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// The method was part of it.
    Goes,
    /// The channel is open now.
    Done,
    /// The method is for the one who uses the channel.
    Other,
}

/// Answers what the broker says at the start.
pub(super) fn greet(method: &[u8], out: &mut BytesMut) -> Greeting {
    match id(method) {
        connection::Start::ID => {
            let response = Long(b"\0guest\0guest");
            let start = connection::StartOk {
                client_properties: RawTable(b""),
                mechanism: "PLAIN".into(),
                response,
                locale: "en_US".into(),
            };
            method::frame(out, 0, &start);
            Greeting::Goes
        }
        connection::Tune::ID => {
            let tune: connection::Tune = read(method);
            let ok =
                connection::TuneOk { channel_max: tune.channel_max, frame_max: tune.frame_max, heartbeat: 0 };
            method::frame(out, 0, &ok);
            let open = connection::Open { virtual_host: "/".into(), ..Default::default() };
            method::frame(out, 0, &open);
            Greeting::Goes
        }
        connection::OpenOk::ID => {
            method::frame(out, 1, &channel::Open { reserved: "".into() });
            Greeting::Goes
        }
        channel::OpenOk::ID => Greeting::Done,
        channel::Close::ID => {
            let close: channel::Close<'_> = read(method);
            panic!("the broker closed the channel: {} {}", close.code, close.text.lossy());
        }
        connection::Close::ID => {
            let close: connection::Close<'_> = read(method);
            panic!("the broker closed the connection: {} {}", close.code, close.text.lossy());
        }
        _ => Greeting::Other,
    }
}

/// Declares all queues without waiting for the answers.
pub(super) fn declare(out: &mut BytesMut) {
    for name in QUEUES {
        let mut arguments = BytesMut::new();
        let mut argument =
            |name: &str, value: crate::amqp::Value| encode_field(name.as_bytes(), &value, &mut arguments);
        if name != "dead" {
            argument("x-dead-letter-exchange", "".into());
            argument("x-dead-letter-routing-key", "dead".into());
        }
        match name {
            "small" => {
                argument("x-max-length", 3i32.into());
                argument("x-overflow", "reject-publish".into());
            }
            "quorum" => {
                argument("x-queue-type", "quorum".into());
                argument("x-delivery-limit", 1_000_000i32.into());
            }
            _ => {}
        }
        let flags = Flags(queue::Declare::DURABLE | queue::Declare::NO_WAIT);
        let declare =
            queue::Declare { ticket: 0, queue: name.into(), flags, arguments: RawTable(&arguments) };
        method::frame(out, 1, &declare);
    }
}

pub(super) fn select_confirms(out: &mut BytesMut) {
    method::frame(out, 1, &confirm::Select { no_wait: Flags(1) });
}

/// Publishes message `n`, persistent and mandatory.
pub(super) fn publish(n: u64, size: usize, out: &mut BytesMut) {
    let publish = basic::Publish {
        ticket: 0,
        exchange: "".into(),
        routing_key: key_of(n).into(),
        flags: Flags(basic::Publish::MANDATORY),
    };
    method::frame(out, 1, &publish);
    let id = n.to_string();
    let mut properties = BytesMut::new();
    let message_id = Some(Short(id.as_bytes()));
    Properties { message_id, delivery_mode: Some(2), ..Default::default() }.write(&mut properties);
    let header = ContentHeader { class: 60, body_size: size as u64, properties: &properties };
    frame::write(out, HEADER, 1, |out| header.write(out));
    if size > 0 {
        frame::write(out, BODY, 1, |out| out.resize(out.len() + size, b'x'));
    }
}

/// Consumes all queues.
pub(super) fn consume(prefetch: u16, out: &mut BytesMut) {
    let qos = basic::Qos { prefetch_size: 0, prefetch_count: prefetch, global: Flags(0) };
    method::frame(out, 1, &qos);
    for name in QUEUES {
        let flags = Flags(basic::Consume::NO_WAIT);
        let consume = basic::Consume {
            ticket: 0,
            queue: name.into(),
            tag: name.into(),
            flags,
            arguments: RawTable(b""),
        };
        method::frame(out, 1, &consume);
    }
}
