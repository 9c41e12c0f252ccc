//! How connections live and end: heartbeats, time limits, operators, restarts.

use std::time::Duration;

use super::bed::{Bed, CAPABILITIES};
use crate::amqp::Table;
use crate::embedded::amqp::wire::frame::{HEARTBEAT, HEARTBEAT_FRAME, PROTOCOL};
use crate::embedded::amqp::wire::method::{Method, Request, basic, connection, queue};
use crate::embedded::amqp::wire::{Flags, Long, RawTable, Reader, Short, table};
use crate::embedded::machine::{Machine, Output};

#[test]
fn the_broker_says_what_it_can() {
    let mut bed = Bed::new();
    let id = bed.connect();
    bed.raw(id, &PROTOCOL);
    let frame = bed.frame(id).unwrap();
    let mut from = Reader(&frame.payload[4..]);
    let start = connection::Start::read(&mut from).unwrap();
    assert_eq!((start.major, start.minor), (0, 9));
    assert_eq!((start.mechanisms, start.locales), (Long(b"AMQPLAIN PLAIN"), Long(b"en_US")));
    let properties = table::decode(start.server_properties.0).unwrap();
    let capabilities = properties.get("capabilities").unwrap().as_table().unwrap();
    for name in ["publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked"] {
        assert_eq!(capabilities.get(name).unwrap().as_bool(), Some(true), "{name}");
    }
    assert_eq!(properties.get("product").unwrap().as_str(), Some("RabbitMQ"));
}

#[test]
fn amqplain_is_a_login_too() {
    let mut bed = Bed::new();
    let id = bed.connect();
    bed.raw(id, &PROTOCOL);
    bed.frame(id).unwrap();
    let response = b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest";
    bed.send(
        id,
        0,
        Request::ConnectionStartOk(connection::StartOk {
            client_properties: RawTable(b""),
            mechanism: Short(b"AMQPLAIN"),
            response: Long(response),
            locale: Short(b"en_US"),
        }),
    );
    bed.expect(id, 0, &connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 });
}

#[test]
fn heartbeats_come_when_nothing_else_does() {
    let mut bed = Bed::new();
    let id = bed.open_with(10, CAPABILITIES);
    bed.advance(Duration::from_secs(5));
    bed.silent(id);
    bed.advance(Duration::from_secs(5));
    let frame = bed.frame(id).unwrap();
    assert_eq!((frame.kind, frame.channel), (HEARTBEAT, 0));
    bed.raw(id, &HEARTBEAT_FRAME);
    bed.advance(Duration::from_secs(5));
    assert_eq!(bed.frame(id).unwrap().kind, HEARTBEAT);
    // What is sent in the meantime is sign enough.
    bed.prefetch(id, 1, false);
    bed.advance(Duration::from_secs(5));
    bed.silent(id);
}

#[test]
fn a_client_that_is_silent_for_two_heartbeats_is_cut_off() {
    let mut bed = Bed::new();
    let (id, alive) = (bed.open_with(10, CAPABILITIES), bed.open_with(10, CAPABILITIES));
    for _ in 0..4 {
        bed.advance(Duration::from_secs(4));
        bed.raw(alive, &HEARTBEAT_FRAME);
    }
    assert_eq!(bed.ended(id), None);
    for _ in 0..4 {
        bed.advance(Duration::from_secs(4));
        bed.raw(alive, &HEARTBEAT_FRAME);
    }
    assert_eq!(bed.ended(id), Some(&Output::Close));
    assert_eq!(bed.ended(alive), None);
}

#[test]
fn a_client_that_never_finishes_the_handshake_is_closed() {
    let mut bed = Bed::new();
    let (mute, halfway) = (bed.connect(), bed.login("guest", "guest", &[]));
    bed.advance(Duration::from_secs(9));
    assert_eq!((bed.ended(mute), bed.ended(halfway)), (None, None));
    bed.advance(Duration::from_secs(1));
    assert_eq!((bed.ended(mute), bed.ended(halfway)), (Some(&Output::Close), Some(&Output::Close)));
}

#[test]
fn a_close_is_answered_and_ends_the_connection() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.declare(id, "q", &Table::new());
    bed.consume(id, "q", "t", 0);
    bed.send(
        id,
        0,
        Request::ConnectionClose(connection::Close { code: 200, ..connection::Close::default() }),
    );
    bed.expect(id, 0, &connection::CloseOk {});
    assert_eq!(bed.ended(id), Some(&Output::Close));
    assert_eq!(bed.depth("q"), (0, 0));
}

#[test]
fn exclusive_queues_go_with_their_connection() {
    let mut bed = Bed::new();
    let id = bed.open();
    let declare = queue::Declare {
        queue: "mine".into(),
        flags: Flags(queue::Declare::EXCLUSIVE),
        ..queue::Declare::default()
    };
    bed.send(id, 1, Request::QueueDeclare(declare));
    bed.expect(id, 1, &queue::DeclareOk { queue: "mine".into(), messages: 0, consumers: 0 });
    let other = bed.open();
    bed.send(other, 1, Request::QueueDeclare(declare));
    assert_eq!(bed.closed(other).1, 405);
    bed.vanish(id);
    let other = bed.open();
    bed.send(other, 1, Request::QueueDeclare(declare));
    bed.expect(other, 1, &queue::DeclareOk { queue: "mine".into(), messages: 0, consumers: 0 });
}

#[test]
fn an_operator_closes_connections_with_320() {
    let mut bed = Bed::new();
    let (a, b) = (bed.open(), bed.open());
    assert_eq!(bed.server.close(|c| c.link.id == b, "for a test", bed.now), 1);
    bed.pump();
    bed.silent(a);
    assert_eq!(bed.closed(b), (0, 320, "CONNECTION_FORCED - for a test".to_owned(), (0, 0)));
    bed.send(b, 0, Request::ConnectionCloseOk(connection::CloseOk {}));
    assert_eq!(bed.ended(b), Some(&Output::Close));
}

#[test]
fn a_restart_keeps_what_is_durable_and_cuts_everybody() {
    let mut bed = Bed::new();
    let id = bed.open();
    for (name, flags) in [("durable", queue::Declare::DURABLE), ("passing", 0)] {
        let declare = queue::Declare { queue: name.into(), flags: Flags(flags), ..queue::Declare::default() };
        bed.send(id, 1, Request::QueueDeclare(declare));
        bed.frame(id).unwrap();
    }
    bed.publish_with(id, "", "durable", 0, b"\x10\0\x02", b"kept");
    bed.publish_with(id, "", "durable", 0, &[0, 0], b"lost");
    bed.publish_with(id, "", "passing", 0, b"\x10\0\x02", b"lost too");
    bed.server.die(None, bed.now);
    bed.pump();
    assert_eq!(bed.ended(id), Some(&Output::Reset));
    assert!(!bed.server.accepts(crate::NodeId(0)));
    bed.server.revive();
    let id = bed.open();
    bed.consume(id, "durable", "t", 0);
    assert_eq!(bed.bodies(id), [bytes::Bytes::from("kept")]);
    bed.send(id, 1, Request::BasicGet(basic::Get { queue: "passing".into(), ..basic::Get::default() }));
    assert_eq!(bed.closed(id).1, 404);
}

#[test]
fn a_delivery_that_is_not_settled_in_time_closes_its_channel() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.declare(id, "q", &Table::new());
    bed.consume(id, "q", "t", 0);
    bed.publish(id, "q", b"slow");
    assert_eq!(&bed.got(id).body[..], b"slow");
    bed.advance(Duration::from_secs(29 * 60));
    bed.silent(id);
    bed.advance(Duration::from_secs(3 * 60));
    let (channel, code, text, _) = bed.closed(id);
    assert_eq!((channel, code), (1, 406));
    assert!(text.contains("delivery acknowledgement on channel 1 timed out"), "{text}");
    assert_eq!(bed.depth("q"), (1, 0));
}

#[test]
fn a_new_secret_is_taken() {
    let mut bed = Bed::new();
    let id = bed.open();
    let update = connection::UpdateSecret { secret: Long(b"new"), reason: "rotated".into() };
    bed.send(id, 0, Request::ConnectionUpdateSecret(update));
    bed.expect(id, 0, &connection::UpdateSecretOk {});
}
