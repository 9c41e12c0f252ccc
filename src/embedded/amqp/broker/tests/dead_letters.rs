//! Dead letters, compared with what RabbitMQ 3.10 wrote into the same messages.

use super::*;

fn dlx(key: Option<&str>, more: Table) -> Table {
    let mut out = table([("x-dead-letter-exchange", "".into())]);
    if let Some(key) = key {
        out.insert("x-dead-letter-routing-key", key);
    }
    for (name, value) in &more {
        out.insert(name, value.clone());
    }
    out
}

/// `count reason queue exchange [keys] original-expiration`, the latest first.
fn deaths(seen: &Seen) -> Vec<String> {
    let deaths = seen.headers.get("x-death").and_then(Value::as_array).unwrap_or_default();
    let text = |t: &Table, name: &str| t.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let one = |value: &Value| {
        let t = value.as_table().unwrap();
        let count = t.get("count").unwrap();
        assert!(matches!(count, Value::I64(_)));
        assert!(matches!(t.get("time"), Some(Value::Timestamp(_))));
        let keys: Vec<_> =
            t.get("routing-keys").unwrap().as_array().unwrap().iter().filter_map(Value::as_str).collect();
        format!(
            "{} {} {} '{}' {keys:?} {}",
            count.as_i64().unwrap(),
            text(t, "reason"),
            text(t, "queue"),
            text(t, "exchange"),
            text(t, "original-expiration")
        )
    };
    deaths.iter().map(one).collect()
}

fn first_death(seen: &Seen) -> String {
    let text = |name: &str| seen.headers.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    format!(
        "{} {} '{}'",
        text("x-first-death-reason"),
        text("x-first-death-queue"),
        text("x-first-death-exchange")
    )
}

#[test]
fn each_reason_is_written_down() {
    let mut b = Bench::new();
    b.queue("dlq", Table::new());
    b.queue("ttl", dlx(Some("dlq"), table([("x-message-ttl", 50i32.into())])));
    let headers = table([("a", 1i32.into()), ("CC", Value::Array(vec!["cc1".into()]))]);
    b.publish_with("", "ttl", "x", &Props { headers, ..Props::default() });
    assert!(b.get("dlq").is_none());
    b.wait_ms(50);
    let seen = b.get("dlq").unwrap();
    assert_eq!(deaths(&seen), ["1 expired ttl '' [\"ttl\", \"cc1\"] -"]);
    assert_eq!((seen.exchange.as_str(), seen.key.as_str(), seen.redelivered), ("", "dlq", false));
    assert_eq!(seen.headers.get("a"), Some(&Value::I32(1)));
    assert_eq!(seen.headers.get("CC"), None);
    assert_eq!(first_death(&seen), "expired ttl ''");
    assert_eq!(seen.headers.get("x-last-death-reason"), Some(&"expired".into()));
    let time = seen.headers.get("x-death").unwrap().as_array().unwrap()[0].as_table().unwrap().get("time");
    assert_eq!(time, Some(&Value::Timestamp(1_700_000_000)), "in seconds");

    b.queue("s", dlx(Some("dlq"), Table::new()));
    b.publish_with("", "s", "x", &Props { expiration: Some("40"), ..Props::default() });
    b.wait_ms(40);
    let seen = b.get("dlq").unwrap();
    assert_eq!(deaths(&seen), ["1 expired s '' [\"s\"] 40"]);
    assert_eq!(seen.expiration, None, "it would expire again");

    b.publish("s", "x");
    let seen = b.get("s").unwrap();
    b.settle(&seen, Settle::Reject);
    assert_eq!(deaths(&b.get("dlq").unwrap()), ["1 rejected s '' [\"s\"] -"]);

    b.queue("short", dlx(Some("dlq"), table([("x-max-length", 1i32.into())])));
    b.publish("short", "1");
    b.publish("short", "2");
    let seen = b.get("dlq").unwrap();
    assert_eq!(
        (seen.body.as_str(), deaths(&seen)),
        ("1", vec!["1 maxlen short '' [\"short\"] -".to_owned()])
    );

    let limit = table([("x-queue-type", "quorum".into()), ("x-delivery-limit", 2i32.into())]);
    b.queue("q", dlx(Some("dlq"), limit));
    b.publish("q", "x");
    for n in 0i64..3 {
        let seen = b.get("q").unwrap();
        assert_eq!(seen.headers.get("x-delivery-count").and_then(Value::as_i64), (n > 0).then_some(n));
        assert_eq!(seen.redelivered, n > 0);
        b.settle(&seen, Settle::Requeue);
    }
    assert!(b.get("q").is_none());
    let seen = b.get("dlq").unwrap();
    assert_eq!(deaths(&seen), ["1 delivery_limit q '' [\"q\"] -"]);
    assert_eq!(b.view("dlq").messages_ready, 0);
}

#[test]
fn a_retry_loop_counts_each_queue_and_reason() {
    let mut b = Bench::new();
    b.queue("work", dlx(Some("delay"), Table::new()));
    b.queue("delay", dlx(Some("work"), table([("x-message-ttl", 30i32.into())])));
    b.publish("work", "x");
    for n in 0..4 {
        let seen = b.get("work").unwrap();
        let want = if n == 0 {
            Vec::new()
        } else {
            vec![format!("{n} expired delay '' [\"delay\"] -"), format!("{n} rejected work '' [\"work\"] -")]
        };
        assert_eq!(deaths(&seen), want);
        if n > 0 {
            assert_eq!(first_death(&seen), "rejected work ''");
        }
        b.settle(&seen, Settle::Reject);
        assert!(b.get("work").is_none());
        b.wait_ms(30);
    }
}

#[test]
fn a_cycle_that_nobody_rejects_in_drops_the_message() {
    let mut b = Bench::new();
    let ttl = || table([("x-message-ttl", 30i32.into())]);
    b.queue("a", dlx(Some("b"), ttl()));
    b.queue("b", dlx(Some("a"), ttl()));
    b.publish("a", "x");
    b.wait_ms(30);
    assert_eq!((b.view("a").messages_ready, b.view("b").messages_ready), (0, 1));
    b.wait_ms(30);
    assert_eq!((b.view("a").messages_ready, b.view("b").messages_ready), (0, 0));
    // To itself, at once.
    b.queue("self", dlx(None, table([("x-message-ttl", 0i32.into())])));
    b.publish("self", "x");
    b.wait_ms(0);
    assert_eq!(b.view("self").messages_ready, 0);
    assert_eq!(b.broker.memory_used(), 0);
}

#[test]
fn without_a_key_of_its_own_the_dead_letter_keeps_its_keys() {
    let mut b = Bench::new();
    b.queue("dlq", Table::new());
    b.exchange("dead", "fanout");
    b.bind("dead", "dlq", "");
    let arguments = table([("x-dead-letter-exchange", "dead".into()), ("x-message-ttl", 30i32.into())]);
    b.queue("s", arguments);
    let list = |key: &str| Value::Array(vec![key.into()]);
    let headers = table([("CC", list("cc1")), ("BCC", list("b1"))]);
    b.publish_with("", "s", "x", &Props { headers, ..Props::default() });
    b.wait_ms(30);
    let seen = b.get("dlq").unwrap();
    assert_eq!((seen.exchange.as_str(), seen.key.as_str()), ("dead", "s"));
    assert_eq!(deaths(&seen), ["1 expired s '' [\"s\", \"cc1\"] -"]);
    assert_eq!(seen.headers.get("CC"), Some(&list("cc1")));
    assert_eq!(seen.headers.get("BCC"), None);
}

#[test]
fn a_dead_letter_exchange_that_does_not_exist_drops_the_message() {
    let mut b = Bench::new();
    b.queue("s", table([("x-dead-letter-exchange", "none".into())]));
    b.publish("s", "x");
    let seen = b.get("s").unwrap();
    b.settle(&seen, Settle::Reject);
    assert_eq!(b.broker.memory_used(), 0);
}

#[test]
fn a_full_queue_that_dead_letters_what_it_refuses() {
    let mut b = Bench::new();
    b.queue("dlq", Table::new());
    let arguments = table([("x-max-length", 1i32.into()), ("x-overflow", "reject-publish-dlx".into())]);
    b.queue("s", dlx(Some("dlq"), arguments));
    assert!(b.publish("s", "1").accepted);
    assert_eq!(b.publish("s", "2"), Published { routed: true, accepted: false });
    let seen = b.get("dlq").unwrap();
    assert_eq!((seen.body.as_str(), deaths(&seen)), ("2", vec!["1 maxlen s '' [\"s\"] -".to_owned()]));
    assert_eq!(b.drain("s"), ["1"]);
}

#[test]
fn a_history_that_a_client_publishes_counts_only_if_set_so() {
    for trust in [false, true] {
        let mut b = Bench::with(Settings { trust_published_deaths: trust, ..Settings::default() });
        b.queue("dlq", Table::new());
        b.queue("s", dlx(Some("dlq"), Table::new()));
        b.publish("s", "x");
        let seen = b.get("s").unwrap();
        b.settle(&seen, Settle::Reject);
        let headers = b.get("dlq").unwrap().headers;
        b.publish_with("", "s", "x", &Props { headers, ..Props::default() });
        let seen = b.get("s").unwrap();
        b.settle(&seen, Settle::Reject);
        let count = if trust { 2 } else { 1 };
        assert_eq!(deaths(&b.get("dlq").unwrap()), [format!("{count} rejected s '' [\"s\"] -")]);
    }
}

#[test]
fn a_dead_letter_pushes_the_next_one_out_along_a_chain() {
    let mut b = Bench::new();
    for n in 0..50 {
        let arguments = table([("x-max-length", 0i32.into())]);
        b.queue(&format!("q{n}"), dlx(Some(&format!("q{}", n + 1)), arguments));
    }
    b.queue("q50", Table::new());
    b.publish("q0", "x");
    let seen = b.get("q50").unwrap();
    assert_eq!(deaths(&seen).len(), 50);
    assert_eq!(first_death(&seen), "maxlen q0 ''");
}
