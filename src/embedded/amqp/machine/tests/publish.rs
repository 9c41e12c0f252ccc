//! Publishing: bodies in frames, confirms, returns, transactions, alarms.

use std::time::Duration;

use bytes::Bytes;

use super::super::Settings;
use super::bed::{Bed, message};
use crate::amqp::{Table, Value};
use crate::embedded::amqp::wire::Flags;
use crate::embedded::amqp::wire::method::{Request, basic, connection, tx};
use crate::embedded::faults::Faults;

const MANDATORY: u8 = basic::Publish::MANDATORY;

#[test]
fn a_message_arrives_as_it_was_sent_whatever_its_frames() {
    let mut bed = Bed::new();
    let (a, b) = (bed.open(), bed.open());
    bed.declare(a, "q", &Table::new());
    bed.consume(b, "q", "t", 0);
    // Content type, headers that nobody looks at, persistent.
    let properties = b"\xb0\x00\x04text\x00\x00\x00\x04\x01kt\x01\x02";
    for size in [0usize, 1, 100, 20_000, 131_064, 131_065, 400_000] {
        let body: Vec<u8> = (0..size).map(|n| n as u8).collect();
        bed.publish_with(a, "", "q", 0, properties, &body);
        let got = bed.got(b);
        assert_eq!((&got.body[..], &got.properties[..]), (&body[..], &properties[..]));
        assert_eq!((&got.exchange[..], &got.routing_key[..], &got.tag[..]), (&b""[..], &b"q"[..], &b"t"[..]));
        assert_eq!(got.frames, size.div_ceil(131_064));
    }
}

#[test]
fn frames_may_come_byte_by_byte() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.declare(id, "q", &Table::new());
    let frames = message(1, "", "q", 0, &[0, 0], b"hello");
    for byte in &frames {
        assert_eq!(bed.depth("q").0, 0);
        bed.raw(id, &[*byte]);
    }
    assert_eq!(bed.depth("q").0, 1);
}

#[test]
fn publishes_that_come_together_are_confirmed_together() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.declare(id, "q", &Table::new());
    bed.confirm(id);
    bed.publish(id, "q", b"one");
    bed.expect(id, 1, &basic::Ack { delivery: 1, multiple: Flags(0) });
    let many: Vec<u8> = (0..10).flat_map(|_| message(1, "", "q", 0, &[0, 0], b"more")).collect();
    bed.raw(id, &many);
    bed.expect(id, 1, &basic::Ack { delivery: 11, multiple: Flags(1) });
    bed.silent(id);
    assert_eq!(bed.depth("q").0, 11);
}

#[test]
fn what_cannot_be_routed_comes_back_before_it_is_confirmed() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.confirm(id);
    bed.publish_with(id, "", "nowhere", MANDATORY, &[0, 0], b"hi");
    let got = bed.got(id);
    assert_eq!(
        (&got.tag[..], &got.routing_key[..], &got.body[..]),
        (&b"returned"[..], &b"nowhere"[..], &b"hi"[..])
    );
    bed.expect(id, 1, &basic::Ack { delivery: 1, multiple: Flags(0) });
    // Without `mandatory` it is dropped, and confirmed.
    bed.publish(id, "nowhere", b"hi");
    bed.expect(id, 1, &basic::Ack { delivery: 2, multiple: Flags(0) });
    bed.silent(id);
}

#[test]
fn what_a_full_queue_refuses_is_nacked_in_its_turn() {
    let mut bed = Bed::new();
    let id = bed.open();
    let full: Table = [("x-max-length", Value::I32(2)), ("x-overflow", Value::Text("reject-publish".into()))]
        .into_iter()
        .collect();
    bed.declare(id, "full", &full);
    bed.declare(id, "q", &Table::new());
    bed.confirm(id);
    let to = |queue| message(1, "", queue, 0, &[0, 0], b"hi");
    bed.raw(id, &[to("full"), to("full"), to("full"), to("q"), to("q")].concat());
    bed.expect(id, 1, &basic::Ack { delivery: 2, multiple: Flags(1) });
    bed.expect(id, 1, &basic::Nack { delivery: 3, flags: Flags(0) });
    bed.expect(id, 1, &basic::Ack { delivery: 5, multiple: Flags(1) });
    bed.silent(id);
}

#[test]
fn a_transaction_counts_from_its_commit_on() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.declare(id, "q", &Table::new());
    bed.publish(id, "q", b"first");
    bed.send(id, 1, Request::TxSelect(tx::Select {}));
    bed.expect(id, 1, &tx::SelectOk {});
    bed.publish(id, "q", b"second");
    assert_eq!(bed.depth("q").0, 1);
    bed.send(id, 1, Request::TxCommit(tx::Commit {}));
    bed.expect(id, 1, &tx::CommitOk {});
    assert_eq!(bed.depth("q").0, 2);

    bed.consume(id, "q", "t", 0);
    assert_eq!(bed.bodies(id), ["first", "second"].map(Bytes::from));
    bed.publish(id, "q", b"third");
    bed.ack(id, 2, true);
    bed.send(id, 1, Request::TxRollback(tx::Rollback {}));
    bed.expect(id, 1, &tx::RollbackOk {});
    // The acknowledgement is forgotten too: they can be acknowledged again.
    bed.ack(id, 1, false);
    bed.ack(id, 2, false);
    bed.send(id, 1, Request::TxCommit(tx::Commit {}));
    bed.expect(id, 1, &tx::CommitOk {});
    bed.vanish(id);
    assert_eq!(bed.depth("q").0, 0);
}

#[test]
fn unroutable_messages_of_a_transaction_come_back_at_the_commit() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.send(id, 1, Request::TxSelect(tx::Select {}));
    bed.expect(id, 1, &tx::SelectOk {});
    bed.publish_with(id, "", "nowhere", MANDATORY, &[0, 0], b"hi");
    bed.silent(id);
    bed.send(id, 1, Request::TxCommit(tx::Commit {}));
    assert_eq!(&bed.got(id).body[..], b"hi");
    bed.expect(id, 1, &tx::CommitOk {});
}

#[test]
fn confirms_and_transactions_do_not_mix() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.confirm(id);
    bed.send(id, 1, Request::TxSelect(tx::Select {}));
    assert_eq!(bed.closed(id).2, "PRECONDITION_FAILED - cannot switch from confirm to tx mode");
}

#[test]
fn a_blocked_publisher_is_told_and_waits_while_others_go_on() {
    let mut bed = Bed::new();
    let (publisher, silent, consumer) = (bed.open(), bed.open_with(0, &[]), bed.open());
    bed.declare(consumer, "q", &Table::new());
    bed.consume(consumer, "q", "t", 0);
    bed.confirm(publisher);
    bed.server.set_blocked(Some("low on disk"));
    bed.pump();
    bed.silent(publisher);

    bed.publish(publisher, "q", b"waits");
    bed.expect(publisher, 0, &connection::Blocked { reason: "low on disk".into() });
    bed.silent(publisher);
    assert!(bed.paused(publisher));
    // One that does not want to know is blocked all the same.
    bed.publish(silent, "q", b"waits too");
    bed.silent(silent);
    assert!(bed.paused(silent));
    // One that does not publish is not.
    bed.prefetch(consumer, 10, false);
    assert_eq!(bed.depth("q").0, 0);

    bed.server.set_blocked(None);
    bed.pump();
    bed.expect(publisher, 0, &connection::Unblocked {});
    bed.expect(publisher, 1, &basic::Ack { delivery: 1, multiple: Flags(0) });
    bed.silent(silent);
    let mut got = bed.bodies(consumer);
    got.sort();
    assert_eq!(got, ["waits", "waits too"].map(Bytes::from));
}

#[test]
fn the_memory_limit_blocks_publishers_until_messages_are_gone() {
    let mut settings = Settings::default();
    settings.broker.memory_limit = 100_000;
    let mut bed = Bed::with(settings, Faults::default());
    let (publisher, consumer) = (bed.open_with(10, super::bed::CAPABILITIES), bed.open());
    bed.declare(consumer, "q", &Table::new());
    for _ in 0..30 {
        bed.publish(publisher, "q", &[7; 10_000]);
    }
    bed.expect(publisher, 0, &connection::Blocked { reason: "low on memory".into() });
    assert!(bed.paused(publisher));
    let stored = bed.depth("q").0;
    assert!((9..12).contains(&stored), "{stored}");
    // Its heartbeats cannot be read, and are not missed.
    bed.advance(Duration::from_secs(100));
    assert_eq!(bed.ended(publisher), None);

    bed.consume(consumer, "q", "t", basic::Consume::NO_ACK);
    assert_eq!(bed.bodies(consumer).len(), 30, "all that was published comes in the end");
}

#[test]
fn messages_that_are_never_complete_do_not_take_memory_without_limit() {
    let mut settings = Settings::default();
    settings.broker.memory_limit = 1_000_000;
    let mut bed = Bed::with(settings, Faults::default());
    let id = bed.open();
    let half = |channel| {
        let mut frames = message(channel, "", "q", 0, &[0, 0], &vec![7; 200_000]);
        // Without the second of its body's frames.
        frames.truncate(frames.len() - (200_000 - 131_064 + 8));
        frames
    };
    let mut closed = false;
    for channel in 1..20 {
        if channel > 1 && !closed {
            bed.channel(id, channel);
        }
        bed.raw(id, &half(channel));
        if !closed && !bed.unread(id).is_empty() {
            let (at, code, ..) = bed.closed(id);
            assert_eq!((at, code), (0, 506));
            closed = true;
        }
    }
    assert!(closed);
    // Their memory is free again.
    let other = bed.open();
    bed.declare(other, "q", &Table::new());
    bed.publish(other, "q", &vec![7; 200_000]);
    assert_eq!(bed.depth("q").0, 1);
}
