//! Which queues a message comes to.

use super::*;

fn bind_exchange(b: &mut Bench, source: &str, destination: &str, key: &str) {
    let spec = BindingSpec {
        source: source.as_bytes(),
        destination: destination.as_bytes(),
        routing_key: key.as_bytes(),
        arguments: Table::new(),
    };
    b.broker.bind_exchange(b.vhost, &spec).unwrap();
}

/// Publishes and says which of the queues got it, emptying them.
fn reached(b: &mut Bench, exchange: &str, key: &str, headers: Table, queues: &[&str]) -> String {
    let props = Props { headers, ..Props::default() };
    let published = b.publish_with(exchange, key, "m", &props);
    let mut out = Vec::new();
    for queue in queues {
        let got = b.drain(queue);
        assert!(got.len() <= 1, "{queue} got it {} times", got.len());
        if !got.is_empty() {
            out.push(*queue);
        }
    }
    assert_eq!(published.routed, !out.is_empty());
    out.join(" ")
}

#[test]
fn each_type_of_exchange_routes_by_its_own_rule() {
    let mut b = Bench::new();
    for q in ["a", "b", "c"] {
        b.queue(q, Table::new());
    }
    let all = ["a", "b", "c"];
    b.bind("amq.direct", "a", "k");
    b.bind("amq.direct", "b", "k");
    b.bind("amq.direct", "c", "l");
    assert_eq!(reached(&mut b, "amq.direct", "k", Table::new(), &all), "a b");
    assert_eq!(reached(&mut b, "amq.direct", "m", Table::new(), &all), "");
    b.bind("amq.fanout", "b", "x");
    b.bind("amq.fanout", "c", "");
    assert_eq!(reached(&mut b, "amq.fanout", "any", Table::new(), &all), "b c");
    b.bind("amq.topic", "a", "*.orange.*");
    b.bind("amq.topic", "b", "lazy.#");
    b.bind("amq.topic", "b", "*.*.rabbit");
    assert_eq!(reached(&mut b, "amq.topic", "lazy.orange.rabbit", Table::new(), &all), "a b");
    assert_eq!(reached(&mut b, "amq.topic", "quick.orange.fox", Table::new(), &all), "a");
    assert_eq!(reached(&mut b, "amq.topic", "orange", Table::new(), &all), "");
    assert_eq!(reached(&mut b, "", "c", Table::new(), &all), "c");

    let arguments = table([("x-match", "any".into()), ("n", 1i32.into()), ("t", "x".into())]);
    let spec = BindingSpec { source: b"amq.match", destination: b"a", arguments, ..Default::default() };
    b.broker.bind_queue(b.vhost, &spec, ME).unwrap();
    assert_eq!(reached(&mut b, "amq.match", "", table([("n", 1i64.into())]), &all), "a");
    assert_eq!(reached(&mut b, "amq.match", "", table([("n", 2i64.into())]), &all), "");
    assert_eq!(reached(&mut b, "amq.match", "", Table::new(), &all), "");
    let bad = BindingSpec {
        source: b"amq.headers",
        destination: b"a",
        arguments: table([("x-match", "foo".into())]),
        ..Default::default()
    };
    assert_eq!(b.broker.bind_queue(b.vhost, &bad, ME).unwrap_err().code, 406);
    let direct = BindingSpec { source: b"amq.direct", ..bad };
    b.broker.bind_queue(b.vhost, &direct, ME).unwrap();
}

#[test]
fn cc_and_bcc_are_further_routing_keys() {
    let mut b = Bench::new();
    for q in ["a", "b", "c"] {
        b.queue(q, Table::new());
    }
    let list = |key: &str| Value::Array(vec![key.into()]);
    let headers = table([("CC", list("b")), ("BCC", list("c"))]);
    assert_eq!(reached(&mut b, "", "a", headers.clone(), &["a", "b", "c"]), "a b c");
    b.bind("amq.topic", "a", "*");
    assert_eq!(
        reached(&mut b, "amq.topic", "x", headers, &["a", "b", "c"]),
        "a",
        "once, though all keys fit"
    );
}

#[test]
fn exchanges_bound_in_a_circle_pass_a_message_once() {
    let mut b = Bench::new();
    for x in ["x", "y", "z"] {
        b.exchange(x, "fanout");
    }
    b.queue("q", Table::new());
    bind_exchange(&mut b, "x", "y", "");
    bind_exchange(&mut b, "y", "z", "");
    bind_exchange(&mut b, "z", "x", "");
    bind_exchange(&mut b, "x", "x", "");
    b.bind("z", "q", "");
    b.bind("y", "q", "");
    assert_eq!(reached(&mut b, "x", "", Table::new(), &["q"]), "q");
    b.broker.delete_exchange(b.vhost, b"y", false).unwrap();
    assert_eq!(reached(&mut b, "x", "", Table::new(), &["q"]), "");
    assert_eq!(reached(&mut b, "z", "", Table::new(), &["q"]), "q");
}

#[test]
fn what_nobody_wants_goes_to_the_alternate_exchange() {
    let mut b = Bench::new();
    b.exchange("left", "fanout");
    let declare = ExchangeDeclare {
        name: b"x",
        kind: b"direct",
        arguments: table([("alternate-exchange", "left".into())]),
        ..Default::default()
    };
    b.broker.declare_exchange(b.vhost, &declare).unwrap();
    b.queue("a", Table::new());
    b.queue("rest", Table::new());
    b.bind("x", "a", "k");
    b.bind("left", "rest", "");
    assert_eq!(reached(&mut b, "x", "k", Table::new(), &["a", "rest"]), "a");
    assert_eq!(reached(&mut b, "x", "other", Table::new(), &["a", "rest"]), "rest");
    b.broker.delete_exchange(b.vhost, b"left", false).unwrap();
    assert_eq!(reached(&mut b, "x", "other", Table::new(), &["a", "rest"]), "");
}

#[test]
fn nobody_publishes_to_an_internal_exchange_but_another_exchange_does() {
    let mut b = Bench::new();
    let declare = ExchangeDeclare { name: b"in", kind: b"fanout", internal: true, ..Default::default() };
    b.broker.declare_exchange(b.vhost, &declare).unwrap();
    b.queue("q", Table::new());
    b.bind("in", "q", "");
    bind_exchange(&mut b, "amq.direct", "in", "k");
    let e = b.broker.publish(b.vhost, Bench::message("in", "k", "", &Props::default()), b.now).unwrap_err();
    assert_eq!(e.text, "ACCESS_REFUSED - cannot publish to internal exchange 'in' in vhost '/'");
    assert_eq!(reached(&mut b, "amq.direct", "k", Table::new(), &["q"]), "q");
}

#[test]
fn auto_delete_exchanges_go_with_their_last_binding_and_take_others_along() {
    let mut b = Bench::new();
    for x in ["x", "y"] {
        let declare =
            ExchangeDeclare { name: x.as_bytes(), kind: b"fanout", auto_delete: true, ..Default::default() };
        b.broker.declare_exchange(b.vhost, &declare).unwrap();
    }
    let names = |b: &Bench| -> Vec<_> {
        let all = b.broker.exchanges(b.vhost).into_iter().map(|x| x.name);
        all.filter(|name| !name.starts_with("amq.")).collect()
    };
    b.queue("q", Table::new());
    bind_exchange(&mut b, "x", "y", "");
    b.bind("y", "q", "1");
    b.bind("y", "q", "2");
    let spec = BindingSpec { source: b"y", destination: b"q", routing_key: b"1", ..Default::default() };
    b.broker.unbind_queue(b.vhost, &spec, ME).unwrap();
    assert_eq!(names(&b), ["x", "y"]);
    // The queue takes the last binding of y, so y goes, and with it the last binding of x.
    b.broker.delete_queue(b.vhost, b"q", false, false, ME).unwrap();
    assert!(names(&b).is_empty(), "{:?}", names(&b));
    assert!(b.broker.bindings(b.vhost).is_empty());
}

#[test]
fn a_binding_is_told_apart_by_its_arguments_and_counts_once_for_a_message() {
    let mut b = Bench::new();
    b.queue("q", Table::new());
    let spec = |n: i32| BindingSpec {
        source: b"amq.direct",
        destination: b"q",
        routing_key: b"k",
        arguments: table([("n", n.into())]),
    };
    for n in [1, 2, 2] {
        b.broker.bind_queue(b.vhost, &spec(n), ME).unwrap();
    }
    assert_eq!(b.broker.bindings(b.vhost).len(), 2);
    assert_eq!(reached(&mut b, "amq.direct", "k", Table::new(), &["q"]), "q");
    b.broker.unbind_queue(b.vhost, &spec(1), ME).unwrap();
    assert_eq!(reached(&mut b, "amq.direct", "k", Table::new(), &["q"]), "q");
    b.broker.unbind_queue(b.vhost, &spec(2), ME).unwrap();
    assert_eq!(reached(&mut b, "amq.direct", "k", Table::new(), &["q"]), "");
}
