//! Queues, consumers, time and memory.

use super::*;

#[test]
fn what_is_given_back_takes_its_old_place_and_says_so() {
    let mut b = Bench::new();
    b.queue("q", Table::new());
    for m in ["1", "2", "3", "4"] {
        b.publish("q", m);
    }
    let (one, two, three) = (b.get("q").unwrap(), b.get("q").unwrap(), b.get("q").unwrap());
    b.settle(&two, Settle::Requeue);
    b.settle(&one, Settle::Requeue);
    b.settle(&three, Settle::Ack);
    b.settle(&three, Settle::Requeue);
    let again: Vec<_> = std::iter::from_fn(|| b.get("q")).map(|s| (s.body, s.redelivered)).collect();
    assert_eq!(again, [("1".into(), true), ("2".into(), true), ("4".into(), false)]);
    assert_eq!(b.view("q").messages_unacknowledged, 3);
}

#[test]
fn consumers_take_turns_and_those_that_are_not_ready_are_passed_over() {
    let mut b = Bench::new();
    b.queue("q", Table::new());
    let keys: Vec<_> = ["a", "b", "c"].iter().map(|tag| b.consume("q", tag)).collect();
    for m in ["1", "2", "3", "4"] {
        b.publish_only("", "q", m, &Props::default());
    }
    assert_eq!(b.events(), ["a:1", "b:2", "c:3", "a:4"]);
    b.broker.set_ready(keys[1], false);
    b.broker.set_ready(keys[1], false);
    for m in ["5", "6", "7"] {
        b.publish_only("", "q", m, &Props::default());
    }
    assert_eq!(b.events(), ["c:5", "a:6", "c:7"]);
    for key in &keys {
        b.broker.set_ready(*key, false);
    }
    b.publish_only("", "q", "8", &Props::default());
    assert!(b.events().is_empty());
    b.broker.set_ready(keys[1], true);
    assert_eq!(b.events(), ["b:8"]);
}

#[test]
fn a_consumer_that_fills_up_between_two_deliveries_gets_no_more() {
    let mut b = Bench::new();
    b.queue("q", Table::new());
    for m in ["1", "2", "3"] {
        b.publish("q", m);
    }
    let key = b.consume("q", "a");
    let now = b.now;
    let first = b.broker.poll_event(now).unwrap();
    assert_eq!(b.shown(&first), "a:1");
    b.broker.set_ready(key, false);
    assert!(b.broker.poll_event(now).is_none());
    assert_eq!(b.view("q").messages_ready, 2);
}

#[test]
fn a_higher_priority_consumer_is_served_while_it_can_take_more() {
    let mut b = Bench::new();
    b.queue("q", Table::new());
    b.consume("q", "low");
    let high = b.consume_with("q", "high", table([("x-priority", 10i32.into())])).unwrap();
    for m in ["1", "2"] {
        b.publish_only("", "q", m, &Props::default());
    }
    assert_eq!(b.events(), ["high:1", "high:2"]);
    b.broker.set_ready(high, false);
    b.publish_only("", "q", "3", &Props::default());
    assert_eq!(b.events(), ["low:3"]);
}

#[test]
fn a_single_active_consumer_gets_all_until_it_is_gone() {
    let mut b = Bench::new();
    b.queue("q", table([("x-single-active-consumer", true.into())]));
    let first = b.consume("q", "first");
    b.consume("q", "second");
    b.consume_with("q", "better", table([("x-priority", 1i32.into())])).unwrap();
    for m in ["1", "2"] {
        b.publish_only("", "q", m, &Props::default());
    }
    assert_eq!(b.events(), ["first:1", "first:2"]);
    b.broker.set_ready(first, false);
    b.publish_only("", "q", "3", &Props::default());
    assert!(b.events().is_empty(), "nobody stands in for it while it is there");
    let now = b.now;
    b.broker.remove_consumer(first, now);
    assert_eq!(b.events(), ["better:3"]);
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let mut b = Bench::new();
    let declare = QueueDeclare { name: b"q", auto_delete: true, ..Default::default() };
    b.declare_as(&declare).unwrap();
    let (one, two) = (b.consume("q", "1"), b.consume("q", "2"));
    b.publish_only("", "q", "m", &Props::default());
    assert_eq!(b.events(), ["1:m"]);
    let now = b.now;
    b.broker.remove_consumer(one, now);
    assert_eq!(b.view("q").consumers, 1);
    b.broker.remove_consumer(two, now);
    assert_eq!(b.broker.queue(b.vhost, b"q"), None);
    assert!(b.events().is_empty(), "those that left need not be told");
    assert_eq!((b.broker.memory_used(), b.broker.poll_timeout()), (0, None));
}

#[test]
fn messages_expire_at_the_head_by_the_shorter_of_both_times() {
    let mut b = Bench::new();
    b.queue("q", table([("x-message-ttl", 100i32.into())]));
    b.publish("q", "queue's");
    b.publish_with("", "q", "own", &Props { expiration: Some("20"), ..Props::default() });
    b.wait_ms(50);
    assert_eq!(b.view("q").messages_ready, 2, "the second stands behind the first");
    b.wait_ms(49);
    assert_eq!(b.view("q").messages_ready, 2);
    b.wait_ms(1);
    assert_eq!(b.view("q").messages_ready, 0);
    assert_eq!(b.broker.poll_timeout(), None);

    b.queue("plain", Table::new());
    b.publish_with("", "plain", "long", &Props { expiration: Some("500"), ..Props::default() });
    b.publish_with("", "plain", "short", &Props { expiration: Some("10"), ..Props::default() });
    let long = b.get("plain").unwrap();
    b.wait_ms(10);
    assert_eq!(b.view("plain").messages_ready, 0, "it stands first now");
    b.settle(&long, Settle::Requeue);
    b.wait_ms(489);
    assert_eq!(b.view("plain").messages_ready, 1);
    b.wait_ms(1);
    assert_eq!(b.view("plain").messages_ready, 0);
}

#[test]
fn a_message_without_any_time_reaches_only_a_consumer_that_waits_for_it() {
    let mut b = Bench::new();
    b.queue("q", table([("x-message-ttl", 0i32.into())]));
    let key = b.consume("q", "c");
    b.publish_only("", "q", "1", &Props::default());
    assert_eq!(b.events(), ["c:1"]);
    b.broker.set_ready(key, false);
    b.publish_only("", "q", "2", &Props::default());
    assert_eq!(b.broker.poll_timeout(), Some(b.now));
    b.wait_ms(0);
    b.broker.set_ready(key, true);
    assert!(b.events().is_empty());
}

#[test]
fn a_queue_that_nobody_uses_expires() {
    let mut b = Bench::new();
    b.queue("q", table([("x-expires", 100i32.into())]));
    b.wait_ms(90);
    b.get("q");
    b.wait_ms(90);
    b.declare("q", table([("x-expires", 100i32.into())])).unwrap();
    b.publish("q", "m");
    b.wait_ms(50);
    let key = b.consume("q", "c");
    b.events();
    b.wait_ms(10_000);
    let now = b.now;
    b.broker.remove_consumer(key, now);
    b.wait_ms(99);
    assert!(b.broker.queue(b.vhost, b"q").is_some());
    b.wait_ms(1);
    assert_eq!(b.broker.queue(b.vhost, b"q"), None);
    assert_eq!(b.broker.memory_used(), 0);
}

#[test]
fn a_full_queue_drops_its_head_or_refuses_the_newest() {
    let mut b = Bench::new();
    b.queue("head", table([("x-max-length", 2i32.into())]));
    b.queue("refuse", table([("x-max-length", 2i32.into()), ("x-overflow", "reject-publish".into())]));
    let accepted: Vec<_> = ["1", "2", "3"].iter().map(|m| b.publish("refuse", m).accepted).collect();
    assert_eq!(accepted, [true, true, false]);
    for m in ["1", "2", "3"] {
        assert!(b.publish("head", m).accepted);
    }
    assert_eq!(
        (b.drain("head"), b.drain("refuse")),
        (vec!["2".into(), "3".into()], vec!["1".into(), "2".into()])
    );

    b.queue("bytes", table([("x-max-length-bytes", 10i32.into())]));
    let mut left = Vec::new();
    for m in ["aaaa", "bbbb", "cccc", "ddddddddddd"] {
        b.publish("bytes", m);
        left.push(b.view("bytes").messages_ready);
    }
    assert_eq!(left, [1, 2, 2, 0], "as RabbitMQ counts");
    b.queue("none", table([("x-max-length", 0i32.into())]));
    b.publish("none", "m");
    assert_eq!(b.view("none").messages_ready, 0);
    b.consume("none", "c");
    b.publish_only("", "none", "m", &Props::default());
    assert_eq!(b.events(), ["c:m"], "a waiting consumer takes it before it counts");
}

#[test]
fn what_is_refused_by_one_queue_still_comes_to_the_others() {
    let mut b = Bench::new();
    b.queue("full", table([("x-max-length", 0i32.into()), ("x-overflow", "reject-publish".into())]));
    b.queue("free", Table::new());
    b.bind("amq.fanout", "full", "");
    b.bind("amq.fanout", "free", "");
    let published = b.publish_with("amq.fanout", "", "m", &Props::default());
    assert_eq!(published, Published { routed: true, accepted: false });
    assert_eq!(b.drain("free"), ["m"]);
}

#[test]
fn priorities_order_a_queue_that_has_them_and_its_head_is_dropped_first() {
    let mut b = Bench::new();
    b.queue("p", table([("x-max-priority", 5i32.into()), ("x-max-length", 3i32.into())]));
    for (m, priority) in [("1", Some(1)), ("3", Some(3)), ("9", Some(9)), ("-", None)] {
        b.publish_with("", "p", m, &Props { priority, ..Props::default() });
    }
    assert_eq!(b.drain("p"), ["3", "1", "-"], "as RabbitMQ answers");
    b.queue("plain", Table::new());
    for (m, priority) in [("1", Some(1)), ("9", Some(9))] {
        b.publish_with("", "plain", m, &Props { priority, ..Props::default() });
    }
    assert_eq!(b.drain("plain"), ["1", "9"]);
}

#[test]
fn a_delivery_that_is_not_settled_in_time_closes_its_channel() {
    let mut b = Bench::new();
    b.queue("q", Table::new());
    b.queue("quick", table([("x-consumer-timeout", 1000i32.into())]));
    for q in ["q", "quick", "quick"] {
        b.publish(q, "m");
    }
    let (slow, _, _) = (b.get("q").unwrap(), b.get("quick"), b.get("quick"));
    b.wait_ms(999);
    assert!(b.events().is_empty());
    b.wait_ms(1);
    let text = |ms: u64| {
        format!(
            "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: {ms} ms. This \
             timeout value can be configured, see consumers doc guide to learn more"
        )
    };
    assert_eq!(b.events(), [text(1000)], "once, though two are late");
    b.broker.delete_queue(b.vhost, b"quick", false, false, ME).unwrap();
    b.wait(Duration::from_secs(30 * 60 - 2));
    assert!(b.events().is_empty());
    b.settle(&slow, Settle::Requeue);
    let slow = b.get("q").unwrap();
    b.wait(Duration::from_secs(30 * 60 - 1));
    assert!(b.events().is_empty(), "the time starts with the delivery");
    b.wait_ms(1000);
    assert_eq!(b.events(), [text(1_800_000)]);
    b.settle(&slow, Settle::Ack);
    b.wait(Duration::from_secs(10_000));
    assert!(b.events().is_empty());
}

#[test]
fn the_memory_alarm_is_set_at_the_limit_and_cleared_well_below_it() {
    let mut b = Bench::with(Settings { memory_limit: 8_000, ..Settings::default() });
    b.queue("q", Table::new());
    b.bind("amq.fanout", "q", "");
    b.queue("r", Table::new());
    b.bind("amq.fanout", "r", "");
    let body = "x".repeat(798);
    for _ in 0..7 {
        b.publish_only("amq.fanout", "", &body, &Props::default());
    }
    assert!(b.events().is_empty(), "one that stands in two queues counts once: {}", b.broker.memory_used());
    b.publish_only("amq.fanout", "", &body, &Props::default());
    assert_eq!(b.events(), ["memory alarm true"]);
    b.drain("q");
    assert!(b.broker.memory_alarm());
    let seen = b.get("r").unwrap();
    b.settle(&seen, Settle::Ack);
    assert!(b.events().is_empty(), "seven eighths are still too much");
    let seen = b.get("r").unwrap();
    assert!(b.events().is_empty(), "what is not settled counts");
    b.settle(&seen, Settle::Reject);
    assert_eq!(b.events(), ["memory alarm false"]);
    b.broker.purge_queue(b.vhost, b"r", ME).unwrap();
    assert_eq!(b.broker.memory_used(), 0);
    b.broker.set_memory_limit(0);
    assert_eq!(b.events(), ["memory alarm true"]);
}

#[test]
fn a_restart_keeps_what_is_durable_and_persistent() {
    let mut b = Bench::new();
    let durable = |name: &'static [u8]| QueueDeclare { name, durable: true, ..Default::default() };
    b.declare_as(&durable(b"kept")).unwrap();
    b.declare_as(&QueueDeclare { exclusive: true, ..durable(b"mine") }).unwrap();
    b.queue("lost", Table::new());
    b.queue("quorum", table([("x-queue-type", "quorum".into())]));
    let x = ExchangeDeclare { name: b"x", kind: b"direct", durable: true, ..Default::default() };
    b.broker.declare_exchange(b.vhost, &x).unwrap();
    b.exchange("y", "direct");
    for (source, queue) in [("x", "kept"), ("x", "lost"), ("y", "kept")] {
        b.bind(source, queue, "k");
    }
    for (m, persistent) in [("1", true), ("2", false), ("3", true)] {
        b.publish_with("", "kept", m, &Props { persistent, ..Props::default() });
        b.publish_with("", "quorum", m, &Props { persistent, ..Props::default() });
        b.publish_with("", "lost", m, &Props { persistent, ..Props::default() });
    }
    let held = b.get("kept").unwrap();
    let consumer = b.consume("kept", "c");
    assert_eq!(b.events(), ["c:2", "c:3"]);
    b.broker.set_memory_limit(0);
    let now = b.now;
    b.broker.restart(now);
    b.broker.set_memory_limit(1 << 20);
    assert!(b.events().iter().all(|e| e.starts_with("memory")));
    b.settle(&held, Settle::Ack);
    b.broker.set_ready(consumer, true);
    b.broker.remove_consumer(consumer, now);
    let names: Vec<_> = b.broker.queues(b.vhost).into_iter().map(|q| q.name).collect();
    assert_eq!(names, ["kept", "quorum"]);
    let bindings: Vec<_> =
        b.broker.bindings(b.vhost).into_iter().map(|x| (x.source, x.destination)).collect();
    assert_eq!(bindings, [("x".to_owned(), "kept".to_owned())]);
    let kept: Vec<_> = std::iter::from_fn(|| b.get("kept")).map(|s| (s.body, s.redelivered)).collect();
    assert_eq!(kept, [("1".into(), true), ("3".into(), true)]);
    assert_eq!(b.drain("quorum"), ["1", "2", "3"]);
    assert!(b.publish_with("x", "k", "new", &Props::default()).routed);
}

#[test]
fn purge_takes_what_is_ready_and_leaves_what_is_delivered() {
    let mut b = Bench::new();
    b.queue("q", Table::new());
    for m in ["1", "2", "3"] {
        b.publish("q", m);
    }
    let one = b.get("q").unwrap();
    assert_eq!(b.broker.purge_queue(b.vhost, b"q", ME), Ok(2));
    b.settle(&one, Settle::Requeue);
    assert_eq!(b.drain("q"), ["1"]);
}

#[test]
fn a_quorum_queue_drops_what_comes_back_too_often() {
    let mut b = Bench::new();
    b.queue("q", table([("x-queue-type", "quorum".into())]));
    b.publish("q", "m");
    let mut deliveries = 0;
    while let Some(seen) = b.get("q") {
        deliveries += 1;
        b.settle(&seen, Settle::Requeue);
    }
    assert_eq!(deliveries, 21, "the default limit of RabbitMQ 4.0 is 20 returns");
    assert_eq!(b.broker.memory_used(), 0);
}
