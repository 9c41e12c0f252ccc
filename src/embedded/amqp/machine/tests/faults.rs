//! What fault rules do to requests.

use std::time::Duration;

use bytes::Bytes;

use super::super::Settings;
use super::bed::Bed;
use crate::amqp::Table;
use crate::embedded::amqp::wire::Flags;
use crate::embedded::amqp::wire::method::{Request, basic, connection};
use crate::embedded::faults::{Action, Faults, Rule};
use crate::embedded::machine::{Machine, Output};

/// The first time `request` comes, `action` happens.
fn bed(request: &str, action: Action) -> Bed {
    let rule = Rule::new(request, action).unwrap().first(1);
    Bed::with(Settings::default(), Faults::new(1).with(rule).unwrap())
}

/// A bed whose publish meets the action: a connection in confirm mode, and the queue `q`.
fn publishing(action: Action) -> (Bed, crate::embedded::ConnectionId) {
    let mut bed = bed("basic.publish", action);
    let id = bed.open();
    bed.declare(id, "q", &Table::new());
    bed.confirm(id);
    bed.publish(id, "q", b"one");
    (bed, id)
}

const FIRST: basic::Ack = basic::Ack { delivery: 1, multiple: Flags(0) };

#[test]
fn an_answer_comes_late_and_later_ones_wait_behind_it() {
    let (mut bed, id) = publishing(Action::Delay(Duration::from_secs(2)));
    assert_eq!(bed.depth("q").0, 1, "the work is done at once");
    bed.publish(id, "q", b"two");
    bed.advance(Duration::from_millis(1999));
    bed.silent(id);
    bed.advance(Duration::from_millis(1));
    bed.expect(id, 1, &FIRST);
    bed.expect(id, 1, &basic::Ack { delivery: 2, multiple: Flags(0) });
}

#[test]
fn an_answer_is_held_until_it_is_released() {
    let (mut bed, id) = publishing(Action::Hold("gate".into()));
    bed.advance(Duration::from_secs(1000));
    bed.silent(id);
    assert_eq!(bed.server.faults(|faults| faults.release("gate")), 1);
    bed.pump();
    bed.expect(id, 1, &FIRST);
}

#[test]
fn a_held_answer_goes_with_its_connection() {
    let (mut bed, id) = publishing(Action::Hold("gate".into()));
    bed.vanish(id);
    assert_eq!(bed.server.faults(|faults| faults.held("gate")), 0);
}

#[test]
fn the_connection_is_cut_after_the_work_or_before_it() {
    for (action, stored) in [(Action::DropAnswer, 1), (Action::DropRequest, 0)] {
        let (mut bed, id) = publishing(action);
        assert_eq!((bed.ended(id), bed.unread(id)), (Some(&Output::Reset), &b""[..]));
        assert_eq!(bed.depth("q").0, stored);
    }
}

#[test]
fn an_answer_is_cut_in_the_middle() {
    let (bed, id) = publishing(Action::CutAnswer(5));
    assert_eq!(bed.ended(id), Some(&Output::Reset));
    assert_eq!(bed.unread(id), [1, 0, 1, 0, 0]);
}

#[test]
fn an_answer_comes_twice() {
    let (mut bed, id) = publishing(Action::AnswerTwice);
    bed.expect(id, 1, &FIRST);
    bed.expect(id, 1, &FIRST);
    bed.silent(id);
    assert_eq!(bed.depth("q").0, 1);
}

#[test]
fn a_publish_is_refused() {
    let (mut bed, id) = publishing(Action::Nack);
    bed.expect(id, 1, &basic::Nack { delivery: 1, flags: Flags(0) });
    assert_eq!(bed.depth("q").0, 0);
    bed.publish(id, "q", b"two");
    bed.expect(id, 1, &basic::Ack { delivery: 2, multiple: Flags(0) });
}

#[test]
fn a_connection_stalls_and_goes_on_where_it_stood() {
    for request in ["basic.publish", "channel.open"] {
        let mut bed = bed(request, Action::Stall(Duration::from_secs(5)));
        let id = bed.hello(0, &[], "/");
        bed.expect(id, 0, &connection::OpenOk::default());
        bed.send(id, 1, Request::ChannelOpen(crate::embedded::amqp::wire::method::channel::Open::default()));
        if request == "channel.open" {
            bed.silent(id);
            assert!(bed.paused(id));
            bed.advance(Duration::from_secs(5));
        }
        bed.expect(id, 1, &crate::embedded::amqp::wire::method::channel::OpenOk::default());
        bed.declare(id, "q", &Table::new());
        bed.confirm(id);
        bed.publish(id, "q", b"one");
        if request == "basic.publish" {
            bed.silent(id);
            assert_eq!(bed.depth("q").0, 0);
            bed.advance(Duration::from_secs(5));
        }
        bed.expect(id, 1, &FIRST);
    }
}

#[test]
fn a_channel_or_a_connection_is_closed_instead_of_the_work() {
    let (mut bed, id) = publishing(Action::CloseChannel(541, "INTERNAL_ERROR".into()));
    assert_eq!(bed.closed(id), (1, 541, "INTERNAL_ERROR".to_owned(), (60, 40)));
    assert_eq!(bed.depth("q").0, 0);
    let (mut bed, id) = publishing(Action::CloseConnection(320, "CONNECTION_FORCED - drill".into()));
    assert_eq!(bed.closed(id), (0, 320, "CONNECTION_FORCED - drill".to_owned(), (60, 40)));
    assert_eq!(bed.depth("q").0, 0);
}

#[test]
fn a_connection_is_blocked_for_a_while() {
    let (mut bed, id) = publishing(Action::Block("drill".into(), Duration::from_secs(3)));
    bed.expect(id, 0, &connection::Blocked { reason: "drill".into() });
    bed.silent(id);
    bed.advance(Duration::from_secs(3));
    bed.expect(id, 0, &connection::Unblocked {});
    bed.expect(id, 1, &FIRST);
}

#[test]
fn consumers_are_cancelled() {
    let mut bed = bed("basic.publish", Action::CancelConsumers);
    let (publisher, consumer) = (bed.open(), bed.open());
    bed.declare(publisher, "q", &Table::new());
    bed.consume(consumer, "q", "t", 0);
    bed.publish(publisher, "q", b"one");
    bed.expect(consumer, 1, &basic::Cancel { tag: "t".into(), flags: Flags(1) });
    bed.silent(consumer);
    assert_eq!(bed.depth("q"), (1, 0));
}

#[test]
fn the_broker_dies_and_comes_back() {
    let mut bed = bed("basic.publish", Action::Restart(Duration::from_secs(2)));
    let (id, other) = (bed.open(), bed.open());
    bed.publish(id, "q", b"one");
    assert_eq!((bed.ended(id), bed.ended(other)), (Some(&Output::Reset), Some(&Output::Reset)));
    assert!(!bed.server.accepts(crate::NodeId(0)));
    bed.advance(Duration::from_secs(2));
    let id = bed.open();
    bed.declare(id, "q", &Table::new());
    bed.publish(id, "q", b"two");
    bed.consume(id, "q", "t", 0);
    assert_eq!(bed.bodies(id), [Bytes::from("two")]);
}

#[test]
fn a_rule_is_about_its_queue_and_its_client_alone() {
    let rule = Rule::new("basic.publish", Action::Nack).unwrap().queue("q").client("client 1");
    let mut bed = Bed::with(Settings::default(), Faults::new(1).with(rule).unwrap());
    let (a, b) = (bed.open(), bed.open());
    bed.declare(a, "q", &Table::new());
    bed.declare(a, "other", &Table::new());
    bed.confirm(a);
    bed.confirm(b);
    bed.publish(a, "other", b"");
    bed.expect(a, 1, &FIRST);
    bed.publish(b, "q", b"");
    bed.expect(b, 1, &FIRST);
    bed.publish(a, "q", b"");
    bed.expect(a, 1, &basic::Nack { delivery: 2, flags: Flags(0) });
    let met = bed.server.faults(|faults| faults.met().cloned().collect::<Vec<_>>());
    assert_eq!(
        (met.len(), met[0].request.as_str(), met[0].places.clone()),
        (1, "basic.publish", vec!["q".to_owned()])
    );
}
