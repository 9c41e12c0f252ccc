//! What is refused, and in which words: all of them are RabbitMQ 3.10's.

use super::*;

fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> (u16, String) {
    let refusal = result.unwrap_err();
    let (_, text) = refusal.text.split_once(" - ").unwrap();
    (refusal.code, text.to_owned())
}

#[test]
fn a_queue_declared_with_other_properties_is_refused_with_what_differs() {
    let none = Table::new();
    let ttl = |n: i16| table([("x-message-ttl", Value::I16(n))]);
    let cases = [
        (none.clone(), true, false, none.clone(), "'durable' S: received 'true' but current is 'false'"),
        (none.clone(), false, true, none.clone(), "'auto_delete' S: received 'true' but current is 'false'"),
        (ttl(1000), false, false, ttl(2000), "'x-message-ttl' S: received '2000' but current is '1000'"),
        (
            ttl(1000),
            false,
            false,
            none.clone(),
            "'x-message-ttl' S: received none but current is the value '1000' of type 'short'",
        ),
        (
            none.clone(),
            false,
            false,
            ttl(1000),
            "'x-message-ttl' S: received the value '1000' of type 'short' but current is none",
        ),
        (
            none.clone(),
            false,
            false,
            table([("x-queue-type", "quorum".into())]),
            "'x-queue-type' S: received the value 'quorum' of type 'longstr' but current is none",
        ),
        (
            none.clone(),
            false,
            false,
            table([("x-single-active-consumer", true.into())]),
            "'x-single-active-consumer' S: received the value 'true' of type 'bool' but current is none",
        ),
        (
            table([("x-dead-letter-exchange", "a".into())]),
            false,
            false,
            table([("x-dead-letter-exchange", "b".into())]),
            "'x-dead-letter-exchange' S: received 'b' but current is 'a'",
        ),
    ];
    for (current, durable, auto_delete, arguments, want) in cases {
        let mut b = Bench::new();
        b.queue("q", current);
        let again = QueueDeclare { name: b"q", durable, auto_delete, arguments, ..Default::default() };
        let want = format!("inequivalent arg {}", want.replace(" S:", " for queue 'q' in vhost '/':"));
        assert_eq!(refused(b.declare_as(&again)), (406, want));
    }
}

#[test]
fn a_queue_declared_the_same_way_again_is_described() {
    let mut b = Bench::new();
    b.queue("q", table([("x-message-ttl", Value::I16(1000)), ("x-unknown", 1i32.into())]));
    b.publish("q", "m");
    b.consume("q", "c");
    b.events();
    b.publish_only("", "q", "n", &Props::default());
    // Another width of the same number, an unknown argument and the default type change nothing.
    let same = table([("x-message-ttl", Value::I64(1000)), ("x-queue-type", "classic".into())]);
    assert_eq!(b.declare("q", same).unwrap(), QueueOk { name: "q".into(), messages: 1, consumers: 1 });
}

#[test]
fn arguments_that_are_not_as_they_should_be_are_refused() {
    let classic: [(&str, Value, &str); 27] = [
        ("x-message-ttl", "abc".into(), "\"expected integer, got longstr\""),
        ("x-message-ttl", (-1i32).into(), "{value_negative,-1}"),
        ("x-message-ttl", (1i64 << 40).into(), "{value_too_large,1099511627776}"),
        ("x-expires", 0i32.into(), "{value_zero,0}"),
        ("x-expires", (-5i32).into(), "{value_negative,-5}"),
        ("x-max-length", (-1i32).into(), "{value_negative,-1}"),
        ("x-max-length", 1.5f32.into(), "\"expected integer, got float\""),
        ("x-max-length-bytes", true.into(), "\"expected integer, got bool\""),
        ("x-max-priority", 256i32.into(), "{max_value_exceeded,256}"),
        ("x-max-priority", "a".into(), "\"expected integer, got longstr\""),
        ("x-overflow", "foo".into(), "invalid_overflow"),
        ("x-overflow", Value::I8(1), "{unacceptable_type,byte}"),
        ("x-dead-letter-routing-key", "a".into(), "routing_key_but_no_dlx_defined"),
        ("x-dead-letter-routing-key", Value::I8(1), "{unacceptable_type,byte}"),
        ("x-queue-type", "foo".into(), "\"unsupported queue type 'foo'\""),
        ("x-queue-type", "stream".into(), "\"unsupported queue type 'stream'\""),
        ("x-queue-type", Value::I8(1), "{unacceptable_type,byte}"),
        ("x-queue-mode", "foo".into(), "\"unsupported queue mode 'foo'\""),
        ("x-queue-version", 3i32.into(), "\"unsupported queue version '3'\""),
        ("x-single-active-consumer", "a".into(), "{unacceptable_type,longstr}"),
        ("x-consumer-timeout", (-1i32).into(), "{value_negative,-1}"),
        ("x-delivery-limit", 3i32.into(), "T"),
        ("x-max-age", "1D".into(), "T"),
        ("x-dead-letter-strategy", "at-least-once".into(), "T"),
        ("x-quorum-initial-group-size", 0i32.into(), "T"),
        ("x-max-in-memory-length", 0i32.into(), "T"),
        ("x-dead-letter-exchange", Value::I8(1), "D"),
    ];
    let mut b = Bench::new();
    for (name, value, want) in classic {
        let want = match want {
            "T" => {
                format!("invalid arg '{name}' for queue 'q' in vhost '/' of queue type rabbit_classic_queue")
            }
            "D" => format!("invalid type 'byte' for arg '{name}' in queue 'q' in vhost '/'"),
            want => format!("invalid arg '{name}' for queue 'q' in vhost '/': {want}"),
        };
        assert_eq!(refused(b.declare("q", table([(name, value)]))), (406, want));
    }
    let quorum: [(&str, Value, &str); 5] = [
        ("x-max-priority", 5i32.into(), "T"),
        ("x-queue-mode", "lazy".into(), "T"),
        ("x-max-age", "1D".into(), "T"),
        ("x-quorum-initial-group-size", 0i32.into(), "{value_zero,0}"),
        ("x-expires", 0i32.into(), "{value_zero,0}"),
    ];
    for (name, value, want) in quorum {
        let want = match want {
            "T" => {
                format!("invalid arg '{name}' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue")
            }
            want => format!("invalid arg '{name}' for queue 'q' in vhost '/': {want}"),
        };
        let arguments = table([("x-queue-type", "quorum".into()), (name, value)]);
        assert_eq!(refused(b.declare("q", arguments)), (406, want));
    }
    assert!(b.broker.queues(b.vhost).is_empty(), "nothing was made");
}

#[test]
fn arguments_that_change_nothing_here_are_taken() {
    let mut b = Bench::new();
    b.queue("lazy", table([("x-queue-mode", "lazy".into()), ("x-queue-version", 2i32.into())]));
    b.queue(
        "quorum",
        table([
            ("x-queue-type", "quorum".into()),
            ("x-dead-letter-strategy", "at-least-once".into()),
            ("x-quorum-initial-group-size", 3i32.into()),
            ("x-queue-leader-locator", "balanced".into()),
            ("x-delivery-limit", "a".into()),
        ]),
    );
}

#[test]
fn a_quorum_queue_is_durable_shared_and_has_a_name() {
    let arguments = table([("x-queue-type", "quorum".into())]);
    let durable = QueueDeclare { name: b"q", durable: true, arguments, ..Default::default() };
    let cases = [
        (QueueDeclare { durable: false, ..durable.clone() }, "non-durable"),
        (QueueDeclare { exclusive: true, ..durable.clone() }, "exclusive-owner"),
        (QueueDeclare { auto_delete: true, ..durable.clone() }, "auto-delete"),
    ];
    let mut b = Bench::new();
    for (declare, property) in cases {
        let want = format!("invalid property '{property}' for queue 'q' in vhost '/'");
        assert_eq!(refused(b.declare_as(&declare)), (406, want));
    }
    let want = "Cannot declare a server-named queue for type rabbit_quorum_queue".to_owned();
    assert_eq!(refused(b.declare_as(&QueueDeclare { name: b"", ..durable })), (406, want));
}

#[test]
fn an_exclusive_queue_is_locked_for_other_connections() {
    let mut b = Bench::new();
    let declare = QueueDeclare { name: b"q", exclusive: true, ..Default::default() };
    b.declare_as(&declare).unwrap();
    b.declare_as(&declare).unwrap();
    let want = (
        405,
        "cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally declared on another \
         connection or the exclusive property value does not match that of the original declaration."
            .to_owned(),
    );
    let (vhost, now) = (b.vhost, b.now);
    assert_eq!(refused(b.broker.declare_queue(vhost, &declare, OTHER, now)), want);
    assert_eq!(refused(b.broker.check_queue(vhost, b"q", OTHER, now)), want);
    assert_eq!(refused(b.broker.get(vhost, b"q", true, channel(OTHER), now)), want);
    assert_eq!(refused(b.broker.purge_queue(vhost, b"q", OTHER)), want);
    assert_eq!(refused(b.broker.delete_queue(vhost, b"q", false, false, OTHER)), want);
    let spec = BindingSpec { source: b"amq.direct", destination: b"q", ..Default::default() };
    assert_eq!(refused(b.broker.bind_queue(vhost, &spec, OTHER)), want);
    assert_eq!(refused(b.declare("q", Table::new())), want, "not exclusive, by the owner");
    // Publishing to it is open to all.
    assert!(b.publish("q", "m").routed);

    b.broker.release_connection(OTHER);
    assert_eq!(b.view("q").messages_ready, 1);
    b.broker.release_connection(ME);
    assert_eq!(b.broker.queue(vhost, b"q"), None);
    assert_eq!(b.broker.memory_used(), 0);
}

#[test]
fn reserved_and_missing_names_are_refused() {
    let mut b = Bench::new();
    let (vhost, now) = (b.vhost, b.now);
    assert_eq!(
        refused(b.declare("amq.foo", Table::new())),
        (403, "queue name 'amq.foo' contains reserved prefix 'amq.*'".into())
    );
    let no_queue = (404, "no queue 'none' in vhost '/'".to_owned());
    assert_eq!(refused(b.broker.check_queue(vhost, b"none", ME, now)), no_queue);
    assert_eq!(refused(b.broker.purge_queue(vhost, b"none", ME)), no_queue);
    assert_eq!(refused(b.broker.get(vhost, b"none", true, channel(ME), now)), no_queue);
    assert_eq!(refused(b.consume_with("none", "c", Table::new())), no_queue);
    assert_eq!(b.broker.delete_queue(vhost, b"none", false, false, ME), Ok(0));

    let exchange = |name: &'static str, kind: &'static str| ExchangeDeclare {
        name: name.as_bytes(),
        kind: kind.as_bytes(),
        durable: true,
        ..Default::default()
    };
    let mut declare = |name, kind| refused(b.broker.declare_exchange(vhost, &exchange(name, kind)));
    assert_eq!(
        declare("amq.foo", "direct"),
        (403, "exchange name 'amq.foo' contains reserved prefix 'amq.*'".into())
    );
    assert_eq!(declare("", "direct"), (403, "operation not permitted on the default exchange".into()));
    assert_eq!(declare("x", "foo"), (503, "unknown exchange type 'foo'".into()));
    assert_eq!(
        declare("amq.direct", "fanout"),
        (
            406,
            "inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received 'fanout' but current is 'direct'"
                .into()
        )
    );
    b.broker.declare_exchange(vhost, &exchange("amq.direct", "direct")).unwrap();
    let no_exchange = (404, "no exchange 'none' in vhost '/'".to_owned());
    assert_eq!(refused(b.broker.check_exchange(vhost, b"none")), no_exchange);
    let message = Bench::message("none", "k", "", &Props::default());
    assert_eq!(refused(b.broker.publish(vhost, message, now)), no_exchange);
    assert_eq!(
        refused(b.broker.delete_exchange(vhost, b"amq.direct", false)),
        (403, "deletion of system exchange 'amq.direct' in vhost '/' not allowed".into())
    );
    b.broker.delete_exchange(vhost, b"none", false).unwrap();

    b.queue("q", Table::new());
    let spec = |source, destination| BindingSpec { source, destination, ..Default::default() };
    assert_eq!(refused(b.broker.bind_queue(vhost, &spec(b"none", b"q"), ME)), no_exchange);
    assert_eq!(refused(b.broker.bind_queue(vhost, &spec(b"amq.direct", b"none"), ME)), no_queue);
    assert_eq!(refused(b.broker.bind_queue(vhost, &spec(b"none", b"none"), ME)), no_exchange);
    assert_eq!(refused(b.broker.bind_exchange(vhost, &spec(b"amq.direct", b"none"))), no_exchange);
    b.broker.unbind_queue(vhost, &spec(b"none", b"q"), ME).unwrap();
    b.broker.unbind_queue(vhost, &spec(b"amq.direct", b"none"), ME).unwrap();
    b.broker.unbind_queue(vhost, &spec(b"amq.direct", b"q"), ME).unwrap();
    b.broker.unbind_exchange(vhost, &spec(b"amq.direct", b"none")).unwrap();
}

#[test]
fn an_exchange_declared_with_other_properties_is_refused_with_what_differs() {
    let mut b = Bench::new();
    let base = ExchangeDeclare { name: b"x", kind: b"direct", ..Default::default() };
    b.broker.declare_exchange(b.vhost, &base).unwrap();
    let alternate = table([("alternate-exchange", "q".into())]);
    let cases = [
        (
            ExchangeDeclare { durable: true, ..base.clone() },
            "'durable' S: received 'true' but current is 'false'",
        ),
        (
            ExchangeDeclare { auto_delete: true, ..base.clone() },
            "'auto_delete' S: received 'true' but current is 'false'",
        ),
        (
            ExchangeDeclare { internal: true, ..base.clone() },
            "'internal' S: received 'true' but current is 'false'",
        ),
        (
            ExchangeDeclare { arguments: alternate, ..base.clone() },
            "'alternate-exchange' S: received the value 'q' of type 'longstr' but current is none",
        ),
    ];
    for (declare, want) in cases {
        let want = format!("inequivalent arg {}", want.replace(" S:", " for exchange 'x' in vhost '/':"));
        assert_eq!(refused(b.broker.declare_exchange(b.vhost, &declare)), (406, want));
    }
    let other = ExchangeDeclare { arguments: table([("foo", "q".into())]), ..base };
    b.broker.declare_exchange(b.vhost, &other).unwrap();
    let bad = ExchangeDeclare {
        name: b"y",
        kind: b"direct",
        arguments: table([("alternate-exchange", Value::I8(1))]),
        ..Default::default()
    };
    assert_eq!(
        refused(b.broker.declare_exchange(b.vhost, &bad)),
        (406, "invalid type 'byte' for arg 'alternate-exchange' in exchange 'y' in vhost '/'".into())
    );
}

#[test]
fn what_is_in_use_is_not_deleted_if_asked_so() {
    let mut b = Bench::new();
    b.exchange("x", "fanout");
    b.queue("q", Table::new());
    b.bind("x", "q", "");
    let vhost = b.vhost;
    assert_eq!(
        refused(b.broker.delete_exchange(vhost, b"x", true)),
        (406, "exchange 'x' in vhost '/' in use".into())
    );
    b.publish("q", "m");
    assert_eq!(
        refused(b.broker.delete_queue(vhost, b"q", false, true, ME)),
        (406, "queue 'q' in vhost '/' not empty".into())
    );
    b.consume("q", "c");
    assert_eq!(b.events(), ["c:m"]);
    assert_eq!(
        refused(b.broker.delete_queue(vhost, b"q", true, false, ME)),
        (406, "queue 'q' in vhost '/' in use".into())
    );
    assert_eq!(
        b.broker.delete_queue(vhost, b"q", false, true, ME),
        Ok(0),
        "what is delivered does not count"
    );
    assert_eq!(b.events(), ["c cancelled"]);
    b.broker.delete_exchange(vhost, b"x", true).unwrap();

    b.queue("quorum", table([("x-queue-type", "quorum".into())]));
    assert_eq!(
        refused(b.broker.delete_queue(vhost, b"quorum", true, false, ME)),
        (
            540,
            "cannot delete queue 'quorum' in vhost '/'. queue.delete operations with if-unused flag set are not \
             supported by quorum queues"
                .into()
        )
    );
}

#[test]
fn consumers_are_refused_where_one_is_exclusive_and_for_bad_arguments() {
    let mut b = Bench::new();
    b.queue("q", Table::new());
    let exclusive = Consume {
        queue: b"q",
        channel: channel(ME),
        no_ack: false,
        exclusive: true,
        arguments: Table::new(),
        ready: true,
    };
    let in_use = (403, "queue 'q' in vhost '/' in exclusive use".to_owned());
    let key = b.broker.add_consumer(b.vhost, &exclusive, b.now).unwrap();
    assert_eq!(refused(b.consume_with("q", "c", Table::new())), in_use);
    b.broker.remove_consumer(key, b.now);
    b.consume("q", "c");
    assert_eq!(refused(b.broker.add_consumer(b.vhost, &exclusive, b.now)), in_use);
    assert_eq!(
        refused(b.consume_with("q", "d", table([("x-priority", "a".into())]))),
        (
            406,
            "invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"".into()
        )
    );
    assert_eq!(
        refused(b.consume_with("q", "d", table([("x-stream-offset", "first".into())]))),
        (
            406,
            "invalid arg 'x-stream-offset' for queue 'q' in vhost '/' of queue type rabbit_classic_queue"
                .into()
        )
    );
    b.queue("s", table([("x-queue-type", "quorum".into()), ("x-single-active-consumer", true.into())]));
    assert_eq!(
        refused(b.broker.get(b.vhost, b"s", true, channel(ME), b.now)),
        (
            405,
            "cannot obtain access to locked queue 's' in vhost '/'. basic.get operations are not supported by quorum \
             queues with single active consumer"
                .into()
        )
    );
}

#[test]
fn only_known_users_open_only_their_vhosts() {
    let mut settings = Settings { vhosts: vec!["/".into(), "two".into()], ..Settings::default() };
    let alice = User { password: "secret".into(), vhosts: Some(vec!["two".into()]) };
    settings.users.insert("alice".into(), alice);
    let b = Bench::with(settings);
    assert!(b.broker.login(b"alice", b"secret"));
    assert!(!b.broker.login(b"alice", b"other"));
    assert!(!b.broker.login(b"bob", b"secret"));
    b.broker.open_vhost(b"alice", b"two").unwrap();
    assert_eq!(
        refused(b.broker.open_vhost(b"alice", b"/")),
        (530, "access to vhost '/' refused for user 'alice'".into())
    );
    assert_eq!(refused(b.broker.open_vhost(b"guest", b"none")), (530, "vhost none not found".into()));
}

#[test]
fn made_up_names_differ_and_follow_from_the_seed() {
    let names = |seed| {
        let mut b = Bench::with(Settings { seed, ..Settings::default() });
        (0..3).map(|_| b.declare("", Table::new()).unwrap().name.text()).collect::<Vec<_>>()
    };
    let a = names(1);
    assert_eq!(a, names(1));
    assert_ne!(a, names(2));
    assert_ne!(a[0], a[1]);
    for name in a {
        assert!(name.starts_with("amq.gen-") && name.len() == 30, "{name}");
    }
}

#[test]
fn limits_on_objects_refuse_the_next_one() {
    let settings = Settings { max_queues: 1, max_exchanges: 7, max_bindings: 1, ..Settings::default() };
    let mut b = Bench::with(settings);
    b.queue("a", Table::new());
    assert_eq!(
        refused(b.declare("b", Table::new())),
        (406, "cannot declare queue 'b' in vhost '/': queue limit in vhost '/' (1) is reached".into())
    );
    b.exchange("x", "fanout");
    let y = ExchangeDeclare { name: b"y", kind: b"direct", ..Default::default() };
    assert_eq!(refused(b.broker.declare_exchange(b.vhost, &y)).0, 406);
    b.bind("x", "a", "");
    b.bind("x", "a", "");
    let spec = BindingSpec { source: b"x", destination: b"a", routing_key: b"2", ..Default::default() };
    assert_eq!(refused(b.broker.bind_queue(b.vhost, &spec, ME)).0, 406);
    // What is given back can be used again.
    b.broker.delete_queue(b.vhost, b"a", false, false, ME).unwrap();
    b.queue("b", Table::new());
    b.bind("x", "b", "2");
}
