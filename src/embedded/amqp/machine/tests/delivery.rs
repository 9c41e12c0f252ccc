//! Consuming: prefetch, settlement, cancels, and clients that do not read.

use bytes::Bytes;

use super::bed::{Bed, CAPABILITIES, message};
use crate::amqp::Table;
use crate::embedded::amqp::connection::{CHOKED, CONGESTED};
use crate::embedded::amqp::wire::Flags;
use crate::embedded::amqp::wire::method::{Method, Request, basic, channel, queue};

fn texts(bodies: &[Bytes]) -> Vec<String> {
    bodies.iter().map(|body| String::from_utf8(body.to_vec()).unwrap()).collect()
}

/// A queue with messages `0`, `1`, and so on.
fn filled(bed: &mut Bed, n: usize) {
    let id = bed.open();
    bed.declare(id, "q", &Table::new());
    for i in 0..n {
        bed.publish(id, "q", i.to_string().as_bytes());
    }
}

#[test]
fn no_more_is_in_flight_than_each_consumers_prefetch() {
    let mut bed = Bed::new();
    filled(&mut bed, 10);
    let id = bed.open();
    bed.prefetch(id, 2, false);
    bed.consume(id, "q", "a", 0);
    assert_eq!(texts(&bed.bodies(id)), ["0", "1"]);
    bed.prefetch(id, 3, false);
    bed.silent(id);
    bed.consume(id, "q", "b", 0);
    assert_eq!(texts(&bed.bodies(id)), ["2", "3", "4"]);
    // Tags are the channel's, the room is the consumer's.
    bed.ack(id, 2, false);
    let got = bed.got(id);
    assert_eq!((&got.tag[..], &got.body[..], got.delivery), (&b"a"[..], &b"5"[..], 6));
    bed.ack(id, 5, true);
    assert_eq!(texts(&bed.bodies(id)), ["6", "7", "8", "9"]);
}

#[test]
fn a_global_prefetch_is_the_channels() {
    let mut bed = Bed::new();
    filled(&mut bed, 10);
    let id = bed.open();
    bed.prefetch(id, 3, true);
    bed.consume(id, "q", "a", 0);
    assert_eq!(bed.bodies(id).len(), 3);
    bed.consume(id, "q", "b", 0);
    bed.silent(id);
    bed.ack(id, 1, false);
    assert_eq!(bed.bodies(id).len(), 1);
    // It is lifted by one that is not global.
    bed.prefetch(id, 0, false);
    assert_eq!(bed.bodies(id).len(), 6);
}

#[test]
fn without_acknowledgement_there_is_no_limit_and_nothing_to_settle() {
    let mut bed = Bed::new();
    filled(&mut bed, 10);
    let id = bed.open();
    bed.prefetch(id, 2, false);
    bed.consume(id, "q", "a", basic::Consume::NO_ACK);
    assert_eq!(bed.bodies(id).len(), 10);
    bed.ack(id, 1, false);
    assert_eq!(bed.closed(id).2, "PRECONDITION_FAILED - unknown delivery tag 1");
}

#[test]
fn what_is_not_settled_comes_again_in_order() {
    let mut bed = Bed::new();
    filled(&mut bed, 4);
    let id = bed.open();
    bed.consume(id, "q", "a", 0);
    assert_eq!(bed.bodies(id).len(), 4);
    bed.ack(id, 2, false);
    bed.vanish(id);
    let id = bed.open();
    bed.consume(id, "q", "a", 0);
    for expected in ["0", "2", "3"] {
        let got = bed.got(id);
        assert_eq!((&got.body[..], got.redelivered), (expected.as_bytes(), true));
    }
    // The end of the channel gives back as well, and so does recover.
    bed.send(id, 1, Request::ChannelClose(channel::Close { code: 200, ..channel::Close::default() }));
    bed.expect(id, 1, &channel::CloseOk {});
    assert_eq!(bed.depth("q"), (3, 0));
    bed.channel(id, 1);
    bed.consume(id, "q", "a", 0);
    assert_eq!(bed.bodies(id).len(), 3);
    bed.send(id, 1, Request::BasicRecover(basic::Recover { requeue: Flags(1) }));
    bed.expect(id, 1, &basic::RecoverOk {});
    let got = bed.got(id);
    assert_eq!((&got.body[..], got.delivery, got.redelivered), (&b"0"[..], 4, true));
}

#[test]
fn nack_and_reject_give_back_or_drop() {
    let mut bed = Bed::new();
    filled(&mut bed, 4);
    let id = bed.open();
    bed.prefetch(id, 2, false);
    bed.consume(id, "q", "a", 0);
    assert_eq!(texts(&bed.bodies(id)), ["0", "1"]);
    bed.send(id, 1, Request::BasicReject(basic::Reject { delivery: 1, requeue: Flags(1) }));
    assert_eq!(texts(&bed.bodies(id)), ["0"]);
    bed.send(id, 1, Request::BasicNack(basic::Nack { delivery: 3, flags: Flags(1) }));
    assert_eq!(texts(&bed.bodies(id)), ["2", "3"], "all up to it are dropped");
    bed.send(id, 1, Request::BasicNack(basic::Nack { delivery: 0, flags: Flags(3) }));
    assert_eq!(texts(&bed.bodies(id)), ["2", "3"], "0 with multiple means all");
}

#[test]
fn get_takes_one_and_says_how_many_are_left() {
    let mut bed = Bed::new();
    filled(&mut bed, 2);
    let id = bed.open();
    let get = |flags| Request::BasicGet(basic::Get { ticket: 0, queue: "q".into(), flags: Flags(flags) });
    bed.send(id, 1, get(0));
    let got = bed.got(id);
    assert_eq!((&got.body[..], got.delivery, got.redelivered), (&b"0"[..], 1, false));
    bed.send(id, 1, get(basic::Get::NO_ACK));
    assert_eq!(&bed.got(id).body[..], b"1");
    bed.send(id, 1, get(0));
    bed.expect(id, 1, &basic::GetEmpty::default());
    bed.ack(id, 1, false);
    bed.vanish(id);
    assert_eq!(bed.depth("q").0, 0);
}

#[test]
fn a_cancelled_consumer_gets_no_more_and_keeps_what_it_has() {
    let mut bed = Bed::new();
    filled(&mut bed, 3);
    let id = bed.open();
    bed.prefetch(id, 1, false);
    bed.consume(id, "q", "a", 0);
    assert_eq!(texts(&bed.bodies(id)), ["0"]);
    for _ in 0..2 {
        bed.send(id, 1, Request::BasicCancel(basic::Cancel { tag: "a".into(), flags: Flags(0) }));
        bed.expect(id, 1, &basic::CancelOk { tag: "a".into() });
    }
    bed.ack(id, 1, false);
    bed.silent(id);
    assert_eq!(bed.depth("q"), (2, 0));
}

#[test]
fn a_deleted_queue_is_told_to_clients_that_want_to_know() {
    for capabilities in [CAPABILITIES, &[]] {
        let mut bed = Bed::new();
        filled(&mut bed, 0);
        let (id, other) = (bed.open_with(0, capabilities), bed.open());
        bed.consume(id, "q", "a", 0);
        let delete = queue::Delete { queue: "q".into(), ..queue::Delete::default() };
        bed.send(other, 1, Request::QueueDelete(delete));
        bed.expect(other, 1, &queue::DeleteOk { messages: 0 });
        if !capabilities.is_empty() {
            bed.expect(id, 1, &basic::Cancel { tag: "a".into(), flags: Flags(1) });
        }
        bed.silent(id);
        // The tag is free again.
        bed.declare(id, "q", &Table::new());
        bed.consume(id, "q", "a", 0);
    }
}

#[test]
fn a_client_that_asks_for_no_answer_gets_none() {
    let mut bed = Bed::new();
    filled(&mut bed, 1);
    let id = bed.open();
    let consume = basic::Consume {
        queue: "q".into(),
        tag: "a".into(),
        flags: Flags(basic::Consume::NO_WAIT),
        ..basic::Consume::default()
    };
    bed.send(id, 1, Request::BasicConsume(consume));
    assert_eq!(&bed.got(id).body[..], b"0");
    let cancel = basic::Cancel { tag: "a".into(), flags: Flags(basic::Cancel::NO_WAIT) };
    bed.send(id, 1, Request::BasicCancel(cancel));
    bed.silent(id);
}

#[test]
fn an_empty_tag_gets_one_made_up() {
    let mut bed = Bed::new();
    filled(&mut bed, 0);
    let id = bed.open();
    let mut tags = Vec::new();
    for _ in 0..2 {
        let consume = basic::Consume { queue: "q".into(), ..basic::Consume::default() };
        bed.send(id, 1, Request::BasicConsume(consume));
        let frame = bed.frame(id).unwrap();
        let mut from = crate::embedded::amqp::wire::Reader(&frame.payload);
        assert_eq!((from.u16(), from.u16()), (Ok(60), Ok(21)));
        let ok = basic::ConsumeOk::read(&mut from).unwrap();
        tags.push(ok.tag.lossy().into_owned());
    }
    assert!(tags.iter().all(|tag| tag.starts_with("amq.ctag-") && tag.len() == 31), "{tags:?}");
    assert_ne!(tags[0], tags[1]);
}

#[test]
fn a_consumer_that_does_not_read_gets_a_bounded_part_and_the_others_the_rest() {
    let mut bed = Bed::new();
    let (slow, publisher) = (bed.open(), bed.open());
    bed.declare(publisher, "q", &Table::new());
    bed.consume(slow, "q", "a", 0);
    bed.listen(slow, false);
    let body = vec![7; 50_000];
    for _ in 0..100 {
        bed.publish(publisher, "q", &body);
    }
    let given = 100 - bed.depth("q").0 as usize;
    assert!((CONGESTED / 50_000..=CONGESTED / 50_000 + 2).contains(&given), "{given}");
    // Another one takes what the first does not get.
    let quick = bed.open();
    bed.consume(quick, "q", "b", 0);
    let taken = bed.bodies(quick).len();
    assert!(taken + given <= 100 && taken > 0);
    bed.listen(quick, true);
    // It reads again, and what comes now is shared.
    bed.listen(slow, true);
    let late = bed.bodies(slow).len();
    assert_eq!(late + taken + bed.bodies(quick).len(), 100);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_read_either() {
    let mut bed = Bed::new();
    let id = bed.open();
    bed.declare(id, "q", &Table::new());
    bed.publish(id, "q", &[7; 100_000]);
    bed.listen(id, false);
    let get = {
        let mut out = bytes::BytesMut::new();
        let get = basic::Get { ticket: 0, queue: "q".into(), flags: Flags(0) };
        let back = basic::Nack { delivery: 0, flags: Flags(3) };
        Request::BasicGet(get).encode(&mut out, 1);
        Request::BasicNack(back).encode(&mut out, 1);
        out
    };
    for _ in 0..200 {
        bed.raw(id, &get);
    }
    assert!(bed.paused(id));
    let unsent: usize = bed.server.connections().map(|connection| connection.link.out.unsent()).sum();
    assert!((CHOKED..CHOKED + 200_000).contains(&unsent), "{unsent}");
    bed.listen(id, true);
    assert!(!bed.paused(id));
    assert_eq!(bed.bodies(id).len(), 200);
}

#[test]
fn what_was_published_is_delivered_once_settled_or_comes_again() {
    // Publishers and consumers in turns: nothing is lost, nothing is there twice.
    let mut bed = Bed::new();
    let publisher = bed.open();
    bed.declare(publisher, "q", &Table::new());
    let mut done = Vec::new();
    let mut next = 0;
    for round in 0..20 {
        let frames: Vec<u8> =
            (0..7).flat_map(|n| message(1, "", "q", 0, &[0, 0], (next + n).to_string().as_bytes())).collect();
        next += 7;
        bed.raw(publisher, &frames);
        let id = bed.open();
        bed.prefetch(id, 5, false);
        bed.consume(id, "q", "a", 0);
        for turn in 0..6 {
            if bed.unread(id).is_empty() {
                break;
            }
            let got = bed.got(id);
            if (round + turn) % 3 == 0 {
                bed.send(
                    id,
                    1,
                    Request::BasicReject(basic::Reject { delivery: got.delivery, requeue: Flags(1) }),
                );
            } else {
                bed.ack(id, got.delivery, false);
                done.push(got.body);
            }
        }
        bed.vanish(id);
    }
    let id = bed.open();
    bed.consume(id, "q", "a", basic::Consume::NO_ACK);
    done.extend(bed.bodies(id));
    let mut numbers: Vec<usize> = texts(&done).iter().map(|text| text.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..next).collect::<Vec<_>>());
}
