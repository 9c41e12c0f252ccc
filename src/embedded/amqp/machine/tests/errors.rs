//! What is wrong with a client, and the answers: those of RabbitMQ 3.10.8 to the same bytes.

use bytes::{BufMut, BytesMut};

use super::bed::{Bed, CAPABILITIES, message};
use crate::embedded::amqp::wire::Short;
use crate::embedded::amqp::wire::frame::{self, BODY, HEADER, HEARTBEAT, METHOD, PROTOCOL};
use crate::embedded::amqp::wire::method::{Request, basic, channel, connection};
use crate::embedded::machine::Output;

/// A frame.
fn raw(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::write(&mut out, kind, channel, |to| to.put_slice(payload));
    out.to_vec()
}

fn call(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend(method.to_be_bytes());
    payload.extend(arguments);
    raw(METHOD, channel, &payload)
}

fn header(class: u16, size: u64) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend([0, 0]);
    payload.extend(size.to_be_bytes());
    payload.extend([0, 0]);
    raw(HEADER, 1, &payload)
}

fn table(fields: &[u8]) -> Vec<u8> {
    let mut out = (fields.len() as u32).to_be_bytes().to_vec();
    out.extend(fields);
    out
}

/// What is wrong, the bytes, and the close that answers them: channel, code, text, method.
type Case = (&'static str, Vec<u8>, u16, u16, &'static str, (u16, u16));

#[test]
fn each_mistake_gets_the_answer_of_the_real_broker() {
    let publish = call(1, 60, 40, b"\0\0\0\x01x\0");
    let bad_end = {
        let mut frame = call(1, 60, 10, &[0; 7]);
        *frame.last_mut().unwrap() = 0;
        frame
    };
    let cases: Vec<Case> = vec![
        (
            "a frame that does not end",
            bad_end,
            0,
            501,
            "FRAME_ERROR - type 1, all octets = <<0,60,0,10,0,0,0,0,0,0,0>>: {invalid_frame_end_marker,0}",
            (0, 0),
        ),
        (
            "a frame that is too large",
            vec![3, 0, 1, 0, 3, 0x0d, 0x40],
            0,
            501,
            "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,200000,131064}",
            (0, 0),
        ),
        (
            "a type that there is not",
            raw(5, 1, b"xyz"),
            0,
            501,
            "FRAME_ERROR - type 5, all octets = <<\"xyz\">>: unknown_frame",
            (0, 0),
        ),
        (
            "a heartbeat on a channel",
            raw(HEARTBEAT, 1, b""),
            0,
            505,
            "UNEXPECTED_FRAME - type 8, all octets = <<>>",
            (0, 0),
        ),
        (
            "a heartbeat with something in it",
            raw(HEARTBEAT, 0, b"abc"),
            0,
            501,
            "FRAME_ERROR - type 8, all octets = <<\"abc\">>: unknown_frame",
            (0, 0),
        ),
        (
            "a body out of nothing",
            raw(BODY, 1, b"xyz"),
            0,
            505,
            "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
            (0, 0),
        ),
        (
            "a header out of nothing",
            header(60, 0),
            0,
            505,
            "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
            (0, 0),
        ),
        (
            "a header on channel 0",
            raw(HEADER, 0, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            0,
            505,
            "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>",
            (0, 0),
        ),
        (
            "a method instead of a header",
            [publish.clone(), call(1, 60, 10, &[0; 7])].concat(),
            0,
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
            (60, 40),
        ),
        (
            "a header of another class",
            [publish.clone(), header(50, 2)].concat(),
            0,
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
            (60, 40),
        ),
        (
            "a body instead of a header",
            [publish.clone(), raw(BODY, 1, b"abc")].concat(),
            0,
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
            (60, 40),
        ),
        (
            "a header instead of a body",
            [publish.clone(), header(60, 5), header(60, 5)].concat(),
            0,
            505,
            "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
            (60, 40),
        ),
        (
            "a body longer than it said",
            [publish.clone(), header(60, 3), raw(BODY, 1, b"12345")].concat(),
            0,
            505,
            "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
            (60, 40),
        ),
        (
            "a method cut short",
            raw(METHOD, 1, &[0]),
            0,
            501,
            "FRAME_ERROR - type 1, all octets = <<0>>: unknown_frame",
            (0, 0),
        ),
        (
            "arguments cut short",
            call(1, 60, 10, &[0, 0]),
            0,
            501,
            "FRAME_ERROR - cannot decode <<0,0>>",
            (60, 10),
        ),
        (
            "arguments too long",
            call(1, 60, 10, &[0; 9]),
            0,
            501,
            "FRAME_ERROR - cannot decode <<0,0,0,0,0,0,0,0,0>>",
            (60, 10),
        ),
        (
            "a channel's method on channel 0",
            call(0, 60, 10, &[0; 7]),
            0,
            504,
            "CHANNEL_ERROR - unexpected method in connection state running",
            (60, 10),
        ),
        (
            "the connection's method on a channel",
            call(1, 10, 40, b"\x01/\0\0"),
            0,
            503,
            "COMMAND_INVALID - unimplemented method",
            (10, 40),
        ),
        (
            "a channel that is not open",
            call(2, 60, 10, &[0; 7]),
            0,
            504,
            "CHANNEL_ERROR - expected 'channel.open'",
            (60, 10),
        ),
        (
            "a channel opened twice",
            call(1, 20, 10, &[0]),
            0,
            504,
            "CHANNEL_ERROR - second 'channel.open' seen",
            (20, 10),
        ),
        (
            "close-ok unasked",
            call(1, 20, 41, b""),
            0,
            503,
            "COMMAND_INVALID - unimplemented method",
            (20, 41),
        ),
        (
            "a tag that is not known",
            call(1, 60, 80, &[0, 0, 0, 0, 0, 0, 0, 5, 0]),
            1,
            406,
            "PRECONDITION_FAILED - unknown delivery tag 5",
            (60, 80),
        ),
        (
            "tag 0 alone",
            call(1, 60, 80, &[0; 9]),
            1,
            406,
            "PRECONDITION_FAILED - unknown delivery tag 0",
            (60, 80),
        ),
        (
            "a nack of a tag that is not known",
            call(1, 60, 120, &[0, 0, 0, 0, 0, 0, 0, 9, 1]),
            1,
            406,
            "PRECONDITION_FAILED - unknown delivery tag 9",
            (60, 120),
        ),
        (
            "a reject of a tag that is not known",
            call(1, 60, 90, &[0, 0, 0, 0, 0, 0, 0, 9, 1]),
            1,
            406,
            "PRECONDITION_FAILED - unknown delivery tag 9",
            (60, 90),
        ),
        (
            "a prefetch in bytes",
            call(1, 60, 10, &[0, 0, 0, 5, 0, 1, 0]),
            0,
            540,
            "NOT_IMPLEMENTED - prefetch_size!=0 (5)",
            (60, 10),
        ),
        ("flow off", call(1, 20, 20, &[0]), 0, 540, "NOT_IMPLEMENTED - active=false", (20, 20)),
        (
            "immediate",
            message(1, "", "x", 2, &[0, 0], b"hi").to_vec(),
            0,
            540,
            "NOT_IMPLEMENTED - immediate=true",
            (60, 40),
        ),
        (
            "an exchange that there is not",
            message(1, "nonono", "x", 0, &[0, 0], b"hi").to_vec(),
            1,
            404,
            "NOT_FOUND - no exchange 'nonono' in vhost '/'",
            (60, 40),
        ),
        (
            "a commit without a transaction",
            call(1, 90, 20, b""),
            1,
            406,
            "PRECONDITION_FAILED - channel is not transactional",
            (90, 20),
        ),
        (
            "recover without requeue",
            call(1, 60, 110, &[0]),
            0,
            540,
            "NOT_IMPLEMENTED - requeue=false",
            (60, 110),
        ),
        (
            "a queue that there is not",
            call(1, 60, 70, b"\0\0\x06nonono\0"),
            1,
            404,
            "NOT_FOUND - no queue 'nonono' in vhost '/'",
            (60, 70),
        ),
        (
            "to consume from a queue that there is not",
            call(1, 60, 20, &[b"\0\0\x06nonono\x01t\0".to_vec(), table(b"")].concat()),
            1,
            404,
            "NOT_FOUND - no queue 'nonono' in vhost '/'",
            (60, 20),
        ),
        (
            "a queue without a name",
            call(1, 60, 70, b"\0\0\0\0"),
            1,
            404,
            "NOT_FOUND - no previously declared queue",
            (60, 70),
        ),
        (
            "an expiration that is no number",
            message(1, "", "x", 0, b"\x01\0\x03abc", b"hi").to_vec(),
            1,
            406,
            "PRECONDITION_FAILED - invalid expiration 'abc': no_integer",
            (60, 40),
        ),
        (
            "somebody else's name",
            message(1, "", "x", 0, b"\0\x10\x03bob", b"hi").to_vec(),
            1,
            406,
            "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'",
            (60, 40),
        ),
    ];
    for (what, bytes, channel, code, text, method) in cases {
        let mut bed = Bed::new();
        let id = bed.open();
        bed.raw(id, &bytes);
        assert_eq!(bed.closed(id), (channel, code, text.to_owned(), method), "{what}");
        bed.silent(id);
    }
}

#[test]
fn a_method_that_nobody_knows_ends_the_connection_without_a_word() {
    for unknown in [call(1, 60, 99, b""), call(1, 99, 1, b"")] {
        let mut bed = Bed::new();
        let id = bed.open();
        bed.raw(id, &unknown);
        assert_eq!((bed.unread(id), bed.ended(id)), (&b""[..], Some(&Output::Reset)));
    }
}

#[test]
fn anything_but_the_protocol_header_is_answered_by_it_and_the_end() {
    for hello in
        [&b"GET / HTTP/1.1\r\n"[..], b"AMQP\0\0\x08\0", b"AMQP\x03\x01\0\0", &[0x16, 3, 1, 2, 0, 1, 0, 1]]
    {
        let mut bed = Bed::new();
        let id = bed.connect();
        bed.raw(id, hello);
        assert_eq!((bed.unread(id), bed.ended(id)), (&PROTOCOL[..], Some(&Output::Close)));
    }
}

#[test]
fn a_wrong_password_is_told_to_a_client_that_can_understand_it() {
    let mut bed = Bed::new();
    let id = bed.login("guest", "wrong", CAPABILITIES);
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the \
                broker logfile.";
    assert_eq!(bed.closed(id), (0, 403, text.to_owned(), (0, 0)));
    bed.send(id, 0, Request::ConnectionCloseOk(connection::CloseOk {}));
    assert_eq!(bed.ended(id), Some(&Output::Close));

    let id = bed.login("guest", "wrong", &[]);
    assert_eq!((bed.unread(id), bed.ended(id)), (&b""[..], Some(&Output::Close)));
}

#[test]
fn a_virtual_host_that_is_not_there_is_refused() {
    let mut bed = Bed::new();
    let id = bed.hello(0, CAPABILITIES, "nope");
    assert_eq!(bed.closed(id), (0, 530, "NOT_ALLOWED - vhost nope not found".to_owned(), (10, 40)));
}

#[test]
fn limits_beyond_the_brokers_are_refused() {
    for (channel_max, frame_max, text) in [
        (0, 131_072, "channel_max = 0 is higher than the maximum allowed value (2047)"),
        (4000, 131_072, "channel_max = 4000 is higher than the maximum allowed value (2047)"),
        (2047, 0, "frame_max = 0 is higher than the maximum allowed value (131072)"),
        (2047, 1000, "frame_max = 1000 is lower than the minimum allowed value (4096)"),
    ] {
        let mut bed = Bed::new();
        let id = bed.login("guest", "guest", CAPABILITIES);
        bed.expect(id, 0, &connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 });
        let tune = connection::TuneOk { channel_max, frame_max, heartbeat: 0 };
        bed.send(id, 0, Request::ConnectionTuneOk(tune));
        assert_eq!(bed.closed(id).2, format!("NOT_ALLOWED - negotiated {text}"));
    }
}

#[test]
fn before_the_login_nobody_gets_an_answer_to_a_mistake() {
    for mistake in [
        call(0, 10, 31, &[0; 8]),
        call(1, 20, 10, &[0]),
        vec![1, 0, 0, 0, 1, 0x86, 0xa0],
        call(0, 10, 11, b"\0\0\0\0\x03FOO\0\0\0\0\0"),
        call(0, 10, 11, b"\0\0\0\0\x05PLAIN\0\0\0\x03abc\0"),
    ] {
        let mut bed = Bed::new();
        let id = bed.connect();
        bed.raw(id, &PROTOCOL);
        bed.frame(id).unwrap();
        bed.raw(id, &mistake);
        assert_eq!((bed.unread(id), bed.ended(id)), (&b""[..], Some(&Output::Close)));
    }
}

#[test]
fn a_channel_that_was_closed_is_deaf_until_the_client_says_so() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.publish_with(id, "nonono", "x", 0, &[0, 0], b"one");
    assert_eq!(bed.closed(id).0, 1);
    bed.publish_with(id, "nonono", "x", 0, &[0, 0], b"two");
    bed.raw(id, &call(1, 60, 10, &[0; 7]));
    bed.raw(id, &call(1, 60, 10, &[0; 2]));
    bed.silent(id);
    // A close that crossed ours is answered.
    bed.send(id, 1, Request::ChannelClose(channel::Close { code: 200, ..channel::Close::default() }));
    bed.expect(id, 1, &channel::CloseOk {});
    bed.send(id, 1, Request::ChannelCloseOk(channel::CloseOk {}));
    bed.channel(id, 1);
    bed.prefetch(id, 5, false);
}

#[test]
fn a_connection_that_was_closed_is_deaf_until_the_client_says_so_or_a_while_has_passed() {
    for polite in [true, false] {
        let mut bed = Bed::new();
        let id = bed.open();
        bed.raw(id, &call(1, 60, 10, &[0; 2]));
        assert_eq!(bed.closed(id).1, 501);
        bed.raw(id, &call(1, 60, 10, &[0; 7]));
        bed.publish(id, "x", b"hi");
        bed.silent(id);
        assert_eq!(bed.ended(id), None);
        if polite {
            bed.send(id, 0, Request::ConnectionCloseOk(connection::CloseOk {}));
        } else {
            bed.advance(std::time::Duration::from_secs(30));
        }
        assert_eq!(bed.ended(id), Some(&Output::Close));
    }
}

#[test]
fn a_consumer_tag_is_used_once_at_a_time() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.declare(id, "q", &crate::amqp::Table::new());
    bed.consume(id, "q", "t", 0);
    bed.send(
        id,
        1,
        Request::BasicConsume(basic::Consume {
            queue: "q".into(),
            tag: "t".into(),
            ..basic::Consume::default()
        }),
    );
    let text = "NOT_ALLOWED - attempt to reuse consumer tag 't'".to_owned();
    assert_eq!(bed.closed(id), (0, 530, text, (60, 20)));
}

#[test]
fn there_are_no_more_channels_than_agreed() {
    let mut bed = Bed::new();
    let id = bed.login("guest", "guest", CAPABILITIES);
    bed.frame(id).unwrap();
    let tune = connection::TuneOk { channel_max: 1, frame_max: 4096, heartbeat: 0 };
    bed.send(id, 0, Request::ConnectionTuneOk(tune));
    let open = connection::Open { virtual_host: Short(b"/"), ..connection::Open::default() };
    bed.send(id, 0, Request::ConnectionOpen(open));
    bed.frame(id).unwrap();
    // Only how many there are counts, not their numbers.
    bed.channel(id, 2048);
    bed.send(id, 2, Request::ChannelOpen(channel::Open::default()));
    let text =
        "NOT_ALLOWED - number of channels opened (1) has reached the negotiated channel_max (1)".to_owned();
    assert_eq!(bed.closed(id), (0, 530, text, (0, 0)));
}

#[test]
fn a_message_larger_than_the_largest_is_refused_before_it_is_read() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.raw(
        id,
        &[call(1, 60, 40, b"\0\0\0\x01x\0"), header(60, 200 << 20), raw(BODY, 1, &[1; 1000])].concat(),
    );
    let text = "PRECONDITION_FAILED - message size 209715200 is larger than configured max size 134217728"
        .to_owned();
    assert_eq!(bed.closed(id), (1, 406, text, (60, 40)));
    bed.silent(id);
}
