//! RabbitMQ's other clients on the embedded broker and on RabbitMQ: the same scenarios, the same facts expected, so that both are held
//! to one truth. The programs are in `tests/foreign`; `scripts/setup.sh test` installs what they need.

#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test waits for another process, and fails by a panic"
)]

mod common;
mod foreign;

use std::any::Any;

use common::unique;
use foreign::{Client, On, Program, until};
use muslin::embedded::Rabbit;
use serde_json::{Value, json};

const PIKA: Program = Program::Python("rabbit_pika");
const AIO_PIKA: Program = Program::Python("rabbit_aio_pika");
const AMQP091_GO: Program = Program::Go("rabbit");
const JAVA: Program = Program::Java("Rabbit");

/// How long a message is waited for that must not come.
const QUIET: f64 = 0.3;

foreign::tests! {
    pika PIKA: confirms dead_letter delay prefetch requeue priority routing exchanges queues refusals consumers heartbeats;
    aio_pika AIO_PIKA: confirms dead_letter delay prefetch requeue priority routing exchanges queues refusals consumers heartbeats;
    amqp091_go AMQP091_GO: confirms dead_letter delay prefetch requeue priority routing exchanges queues refusals consumers heartbeats;
    java JAVA: confirms dead_letter delay prefetch requeue priority routing exchanges queues refusals consumers heartbeats;
}

/// A client with a connection, and the broker's address.
struct Session {
    client: Client,
    url: String,
}

fn start(program: Program, on: On) -> Session {
    let (url, broker) = match on {
        On::Real => (common::amqp(), Box::new(()) as Box<dyn Any>),
        On::Embedded => {
            let (rabbit, runtime) = foreign::hosted(Rabbit::builder().user("alice", "alice-secret").start());
            (rabbit.url(), Box::new((rabbit, runtime)) as Box<dyn Any>)
        }
    };
    let mut session =
        Session { client: Client::start(program, on, broker), url: url.trim_end_matches('/').to_owned() };
    session.connect("a");
    session
}

impl Session {
    fn connect(&mut self, on: &str) {
        let url = self.url.clone();
        self.client.ok("connect", json!({"on": on, "url": url}));
    }

    /// On connection `a`.
    fn ask(&mut self, op: &str, mut ask: Value) -> Result<Value, Value> {
        if ask["on"].is_null() {
            ask["on"] = json!("a");
        }
        self.client.ask(op, ask)
    }

    fn ok(&mut self, op: &str, ask: Value) -> Value {
        let what = format!("{op} {ask}");
        self.ask(op, ask).unwrap_or_else(|error| panic!("{what} was refused: {error}"))
    }

    /// What the broker refuses `op` with: that code, and a text that contains `text`.
    fn refused(&mut self, op: &str, ask: Value, code: u16, text: &str) {
        let what = format!("{op} {ask}");
        let Err(error) = self.ask(op, ask) else { panic!("{what} was not refused") };
        assert_eq!(error[0], json!(code), "{what}: {error}");
        assert!(error[1].as_str().unwrap().contains(text), "{what}: {error} does not say {text:?}");
    }

    /// A queue that goes when nobody has used it for a minute.
    fn queue(&mut self, prefix: &str, mut arguments: Value) -> String {
        let name = unique(prefix);
        arguments["x-expires"] = json!(60_000);
        let ok = self.ok("queue", json!({"name": name, "arguments": arguments}));
        assert_eq!(ok, json!({"name": name, "messages": 0, "consumers": 0}));
        name
    }

    fn publish(&mut self, queue: &str, body: &str, properties: Value) {
        let ask = json!({"key": queue, "body": body, "properties": properties});
        assert_eq!(self.ok("publish", ask), json!("ack"));
    }

    fn get(&mut self, queue: &str) -> Value {
        self.ok("get", json!({"queue": queue}))
    }

    /// The next message of `queue`, once it is there.
    fn taken(&mut self, queue: &str) -> Value {
        until("message", || {
            Some(self.ok("get", json!({"queue": queue, "no_ack": true}))).filter(|m| !m.is_null())
        })
    }

    /// The bodies that are in `queue`, in order; they are taken.
    fn drain(&mut self, queue: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Value::Object(message) = self.ok("get", json!({"queue": queue, "no_ack": true})) {
            bodies.push(message["body"].as_str().unwrap().to_owned());
        }
        bodies
    }

    fn next(&mut self) -> Value {
        let message = self.ok("next", json!({"wait": 20.0}));
        assert!(!message.is_null(), "no message came");
        message
    }

    fn nothing_comes(&mut self) {
        assert_eq!(self.ok("next", json!({"wait": QUIET})), Value::Null);
    }

    /// How many messages are ready in `queue`, once they are `wanted`.
    fn ready(&mut self, queue: &str, wanted: u64) {
        until(&format!("{wanted} messages"), || {
            let ok = self.ok("queue", json!({"name": queue, "passive": true}));
            (ok["messages"] == json!(wanted)).then_some(())
        });
    }
}

fn confirms(s: &mut Session) {
    let queue = s.queue("confirms", json!({}));
    for n in 0..5 {
        s.publish(
            &queue,
            &format!("m{n}"),
            json!({"message_id": format!("id{n}"), "delivery_mode": 2, "headers": {"n": n}}),
        );
    }
    let first = s.get(&queue);
    assert_eq!((&first["body"], &first["message_id"]), (&json!("m0"), &json!("id0")));
    assert_eq!((&first["exchange"], &first["key"]), (&json!(""), &json!(queue)));
    assert_eq!(
        (&first["headers"], &first["left"], &first["redelivered"]),
        (&json!({"n": 0}), &json!(4), &json!(false))
    );
    assert_eq!(s.drain(&queue), ["m1", "m2", "m3", "m4"]);

    let nowhere = unique("nowhere");
    assert_eq!(
        s.ok("publish", json!({"key": nowhere, "body": "lost"})),
        json!("ack"),
        "unroutable, not mandatory"
    );
    let returned = s.ok("publish", json!({"key": nowhere, "body": "back", "mandatory": true}));
    assert_eq!(
        returned,
        json!({"returned": [312, "NO_ROUTE"], "body": "back", "exchange": "", "key": nowhere})
    );
    assert_eq!(s.ok("publish", json!({"key": queue, "body": "there", "mandatory": true})), json!("ack"));
    assert_eq!(s.drain(&queue), ["there"]);

    let full = s.queue("full", json!({"x-max-length": 1, "x-overflow": "reject-publish"}));
    s.publish(&full, "fits", json!({}));
    assert_eq!(s.ok("publish", json!({"key": full, "body": "too much"})), json!("nack"));
    assert_eq!(s.drain(&full), ["fits"]);
    assert_eq!(s.ok("delete", json!({"queue": queue})), json!(0));
}

/// What `x-death` says, without the time.
fn deaths(message: &Value) -> Vec<Value> {
    let mut deaths =
        message["headers"]["x-death"].as_array().unwrap_or_else(|| panic!("no x-death in {message}")).clone();
    for death in &mut deaths {
        assert!(death.as_object_mut().unwrap().remove("time").is_some(), "{death}");
    }
    deaths
}

fn dead_letter(s: &mut Session) {
    let exchange = unique("dead");
    let dead = s.queue("dead", json!({}));
    s.ok("exchange", json!({"name": exchange, "type": "fanout"}));
    s.ok("bind", json!({"queue": dead, "exchange": exchange}));
    let letters =
        json!({"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "gone", "x-max-length": 2});
    let work = s.queue("work", letters);
    s.publish(&work, "rejected", json!({"headers": {"kept": "yes"}}));
    let tag = s.get(&work)["tag"].clone();
    s.ok("reject", json!({"tag": tag, "requeue": false}));
    let letter = s.taken(&dead);
    assert_eq!(
        (&letter["body"], &letter["exchange"], &letter["key"]),
        (&json!("rejected"), &json!(exchange), &json!("gone"))
    );
    let death = |reason: &str, count: u64| json!({"queue": work, "reason": reason, "count": count, "exchange": "", "routing-keys": [work]});
    assert_eq!(deaths(&letter), [death("rejected", 1)]);
    let headers = &letter["headers"];
    assert_eq!(headers["kept"], json!("yes"));
    assert_eq!(headers["x-first-death-reason"], json!("rejected"));
    assert_eq!(headers["x-first-death-queue"], json!(work));
    assert_eq!(headers["x-first-death-exchange"], json!(""));

    for body in ["oldest", "older", "newest"] {
        s.publish(&work, body, json!({}));
    }
    let letter = s.taken(&dead);
    assert_eq!((&letter["body"], deaths(&letter)), (&json!("oldest"), vec![death("maxlen", 1)]));
    assert_eq!(s.drain(&work), ["older", "newest"]);

    // Round and round: reject, wait in a queue with a TTL, come back. Each death counts, the latest stands first.
    let retry = unique("retry");
    let round = s.queue("round", json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry}));
    let back = json!({
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": round, "x-message-ttl": 50, "x-expires": 60_000
    });
    s.ok("queue", json!({"name": retry, "arguments": back}));
    s.publish(&round, "again", json!({}));
    s.ok("consume", json!({"queue": round}));
    for times in 0..3 {
        let message = s.next();
        assert_eq!((&message["body"], &message["redelivered"]), (&json!("again"), &json!(false)));
        if times > 0 {
            let told: Vec<Value> =
                deaths(&message).iter().map(|d| json!([d["queue"], d["reason"], d["count"]])).collect();
            assert_eq!(told, [json!([retry, "expired", times]), json!([round, "rejected", times])]);
        }
        s.ok("nack", json!({"tag": message["tag"], "requeue": false}));
    }
}

fn delay(s: &mut Session) {
    let work = s.queue("work", json!({}));
    let delayed =
        json!({"x-message-ttl": 400, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": work});
    let wait = s.queue("wait", delayed);
    let begun = std::time::Instant::now();
    s.publish(&wait, "later", json!({}));
    s.publish(&wait, "sooner", json!({"expiration": "300"}));
    s.ok("consume", json!({"queue": work, "no_ack": true}));
    let first = s.next();
    assert!(begun.elapsed().as_millis() >= 400, "came before its time");
    let death = deaths(&first);
    assert_eq!(first["body"], json!("later"), "only the head of a queue expires");
    assert_eq!(
        death,
        [json!({"queue": wait, "reason": "expired", "count": 1, "exchange": "", "routing-keys": [wait]})]
    );
    assert_eq!(first["expiration"], Value::Null);
    let second = s.next();
    assert_eq!(second["body"], json!("sooner"));
    assert_eq!(deaths(&second)[0]["original-expiration"], json!("300"));
    assert_eq!(second["expiration"], Value::Null, "it would expire again");
    s.ready(&wait, 0);
}

fn prefetch(s: &mut Session) {
    let queue = s.queue("prefetch", json!({}));
    for n in 0..6 {
        s.publish(&queue, &format!("m{n}"), json!({}));
    }
    s.ok("qos", json!({"count": 2}));
    s.ok("consume", json!({"queue": queue}));
    let (first, second) = (s.next(), s.next());
    assert_eq!((&first["body"], &second["body"]), (&json!("m0"), &json!("m1")));
    s.nothing_comes();
    s.ready(&queue, 4);
    s.ok("ack", json!({"tag": first["tag"]}));
    let third = s.next();
    assert_eq!(third["body"], json!("m2"));
    s.nothing_comes();
    s.ok("ack", json!({"tag": third["tag"], "multiple": true}));
    assert_eq!((&s.next()["body"], &s.next()["body"]), (&json!("m3"), &json!("m4")));
    s.nothing_comes();
    // The connection goes: what it had not settled comes back, in order.
    s.ok("close", json!({}));
    s.connect("a");
    s.ready(&queue, 3);
    let back = s.get(&queue);
    assert_eq!((&back["body"], &back["redelivered"]), (&json!("m3"), &json!(true)));
    assert_eq!(s.drain(&queue), ["m4", "m5"]);
}

fn requeue(s: &mut Session) {
    let queue = s.queue("requeue", json!({}));
    for body in ["a", "b", "c"] {
        s.publish(&queue, body, json!({}));
    }
    s.ok("consume", json!({"queue": queue}));
    let messages: Vec<Value> = (0..3).map(|_| s.next()).collect();
    assert!(messages.iter().all(|m| m["redelivered"] == json!(false)), "{messages:?}");
    s.ok("nack", json!({"tag": messages[0]["tag"]}));
    let again = s.next();
    assert_eq!((&again["body"], &again["redelivered"]), (&json!("a"), &json!(true)));
    s.ok("reject", json!({"tag": messages[1]["tag"]}));
    let again = s.next();
    assert_eq!((&again["body"], &again["redelivered"]), (&json!("b"), &json!(true)));
    // All that is left, by one frame.
    s.ok("nack", json!({"tag": again["tag"], "multiple": true}));
    let mut bodies: Vec<Value> = (0..3).map(|_| s.next()["body"].clone()).collect();
    bodies.sort_by_key(ToString::to_string);
    assert_eq!(bodies, ["a", "b", "c"]);
    s.ok("recover", json!({}));
    let mut tag = Value::Null;
    for _ in 0..3 {
        let message = s.next();
        assert_eq!(message["redelivered"], json!(true));
        tag = message["tag"].clone();
    }
    s.ok("ack", json!({"tag": tag, "multiple": true}));
    s.nothing_comes();
    s.ready(&queue, 0);
}

fn priority(s: &mut Session) {
    let queue = s.queue("priority", json!({"x-max-priority": 5}));
    for (body, priority) in
        [("low", 1), ("none", 0), ("high", 4), ("too high", 9), ("high again", 4), ("highest", 5)]
    {
        s.publish(&queue, body, if priority == 0 { json!({}) } else { json!({"priority": priority}) });
    }
    assert_eq!(s.drain(&queue), ["too high", "highest", "high", "high again", "low", "none"]);
}

fn routing(s: &mut Session) {
    let exchange = unique("topic");
    s.ok("exchange", json!({"name": exchange, "type": "topic"}));
    let queues: Vec<(String, Vec<&str>)> = [
        ("a.*.c", vec!["a.b.c", "a..c"]),
        ("a.#", vec!["a", "a.b", "a.b.c", "a..c"]),
        ("#", vec!["", "a", "b", "a.b", "a.b.c", "a..c", "x.a.b.c"]),
        ("*", vec!["a", "b"]), // an empty key has no word
        ("#.c", vec!["a.b.c", "a..c", "x.a.b.c"]),
        ("*.#.c", vec!["a.b.c", "a..c", "x.a.b.c"]),
        ("a.b", vec!["a.b"]),
    ]
    .into_iter()
    .map(|(pattern, wanted)| {
        let queue = s.queue("routed", json!({}));
        s.ok("bind", json!({"queue": queue, "exchange": exchange, "key": pattern}));
        (queue, wanted)
    })
    .collect();
    for key in ["", "a", "b", "a.b", "a.b.c", "a..c", "x.a.b.c"] {
        assert_eq!(s.ok("publish", json!({"exchange": exchange, "key": key, "body": key})), json!("ack"));
    }
    for (queue, wanted) in queues {
        assert_eq!(s.drain(&queue), wanted);
    }
}

fn exchanges(s: &mut Session) {
    let queues: Vec<String> = (0..3).map(|_| s.queue("bound", json!({}))).collect();
    let [fanout, headers, direct] = ["fanout", "headers", "direct"].map(|kind| {
        let name = unique(kind);
        s.ok("exchange", json!({"name": name, "type": kind}));
        name
    });
    for queue in &queues {
        s.ok("bind", json!({"queue": queue, "exchange": fanout, "key": "ignored"}));
    }
    s.ok("publish", json!({"exchange": fanout, "key": "any", "body": "to all"}));
    for queue in &queues {
        assert_eq!(s.drain(queue), ["to all"]);
    }

    for (queue, matching) in queues.iter().zip(["all", "any"]) {
        let arguments = json!({"x-match": matching, "kind": "report", "pages": 3});
        s.ok("bind", json!({"queue": queue, "exchange": headers, "arguments": arguments}));
    }
    for (body, table) in [
        ("both", json!({"kind": "report", "pages": 3, "more": true})),
        ("one", json!({"kind": "report", "pages": 4})),
        ("none", json!({"kind": "letter"})),
    ] {
        s.ok(
            "publish",
            json!({"exchange": headers, "key": "", "body": body, "properties": {"headers": table}}),
        );
    }
    assert_eq!(
        (s.drain(&queues[0]), s.drain(&queues[1])),
        (vec!["both".into()], vec!["both".into(), "one".into()])
    );

    // Two bindings that match are one copy; two queues are two.
    for (queue, key) in [(0, "x"), (1, "x"), (0, "y")] {
        s.ok("bind", json!({"queue": queues[queue], "exchange": direct, "key": key}));
    }
    for key in ["x", "y", "z"] {
        s.ok("publish", json!({"exchange": direct, "key": key, "body": key}));
    }
    assert_eq!((s.drain(&queues[0]), s.drain(&queues[1])), (vec!["x".into(), "y".into()], vec!["x".into()]));
    s.ok("exchange", json!({"name": direct, "passive": true}));
    s.refused(
        "exchange",
        json!({"name": direct, "type": "topic"}),
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type'",
    );
}

fn queues(s: &mut Session) {
    let own = s.ok("queue", json!({"name": "", "exclusive": true}))["name"].as_str().unwrap().to_owned();
    // aio-pika draws the name itself.
    assert!(s.client.program == AIO_PIKA || own.starts_with("amq.gen-"), "{own}");
    s.publish(&own, "mine", json!({}));
    s.connect("b");
    for op in ["queue", "get"] {
        let ask = json!({"on": "b", "name": own, "queue": own, "passive": true, "exclusive": true});
        let ask = if op == "queue" {
            json!({"on": "b", "name": own, "passive": true})
        } else {
            json!({"on": ask["on"], "queue": own})
        };
        s.refused(op, ask, 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue");
        s.ok("channel", json!({"on": "b"}));
    }
    assert_eq!(s.drain(&own), ["mine"]);
    s.ok("close", json!({}));
    until("end of the exclusive queue", || {
        let gone = s.ask("queue", json!({"on": "b", "name": own, "passive": true}));
        s.ok("channel", json!({"on": "b"}));
        gone.err().filter(|error| error[0] == json!(404))
    });
    s.connect("a");

    let queue = s.queue("plain", json!({}));
    for body in ["a", "b"] {
        s.publish(&queue, body, json!({}));
    }
    assert_eq!(s.ok("purge", json!({"queue": queue})), json!(2));
    s.publish(&queue, "c", json!({}));
    assert_eq!(s.ok("delete", json!({"queue": queue})), json!(1));
    let missing = format!("NOT_FOUND - no queue '{queue}' in vhost '/'");
    s.refused("queue", json!({"name": queue, "passive": true}), 404, &missing);
}

fn refusals(s: &mut Session) {
    let queue = s.queue("refusals", json!({}));
    let name = unique("nothing");
    let missing = format!("NOT_FOUND - no queue '{name}' in vhost '/'");
    let other = json!({"name": queue, "arguments": {"x-expires": 60_000, "x-message-ttl": 5}});
    for (op, ask, code, text) in [
        ("queue", json!({"name": name, "passive": true}), 404, missing.as_str()),
        ("get", json!({"queue": name}), 404, "NOT_FOUND - no queue"),
        ("consume", json!({"queue": name}), 404, "NOT_FOUND - no queue"),
        ("exchange", json!({"name": name, "passive": true}), 404, "NOT_FOUND - no exchange"),
        ("publish", json!({"exchange": name, "key": "", "body": ""}), 404, "NOT_FOUND - no exchange"),
        ("bind", json!({"queue": queue, "exchange": name}), 404, "NOT_FOUND - no exchange"),
        (
            "queue",
            json!({"name": queue, "durable": true, "arguments": {"x-expires": 60_000}}),
            406,
            "PRECONDITION_FAILED - inequivalent arg 'durable'",
        ),
        ("queue", other, 406, "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl'"),
        (
            "queue",
            json!({"name": name, "arguments": {"x-message-ttl": -1000}}),
            406,
            "PRECONDITION_FAILED - invalid arg 'x-message-ttl'",
        ),
        (
            "queue",
            json!({"name": "amq.mine"}),
            403,
            "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
        ),
    ] {
        s.refused(op, ask, code, text);
        s.ok("channel", json!({})); // the connection lives on
    }
    s.publish(&queue, "still there", json!({}));
    assert_eq!(s.drain(&queue), ["still there"]);

    let wrong = s.url.replace("alice-secret", "wrong");
    s.refused("connect", json!({"on": "b", "url": wrong}), 403, ""); // amqp091-go has a text of its own
}

fn consumers(s: &mut Session) {
    let queue = s.queue("consumers", json!({}));
    assert_eq!(s.get(&queue), Value::Null, "an empty queue");
    let tag = s.ok("consume", json!({"queue": queue}));
    s.publish(&queue, "consumed", json!({}));
    let message = s.next();
    s.ok("cancel", json!({"tag": tag}));
    s.publish(&queue, "left", json!({}));
    s.nothing_comes();
    s.ready(&queue, 1);
    s.ok("ack", json!({"tag": message["tag"]})); // a delivery outlives its consumer
    assert_eq!(s.drain(&queue), ["left"]);

    s.ok("consume", json!({"queue": queue, "exclusive": true}));
    s.connect("b");
    s.refused("consume", json!({"on": "b", "queue": queue}), 403, "ACCESS_REFUSED - queue");
    s.ok("close", json!({}));
    s.ok("channel", json!({"on": "b"}));
    s.connect("a");
    // Two consumers take turns.
    for on in ["a", "b"] {
        until("end of the exclusive consumer", || {
            s.ask("consume", json!({"on": on, "queue": queue, "no_ack": true})).ok()
        });
    }
    for n in 0..4 {
        s.publish(&queue, &format!("m{n}"), json!({}));
    }
    for on in ["a", "b"] {
        for _ in 0..2 {
            assert!(!s.ok("next", json!({"on": on, "wait": 20.0})).is_null(), "nothing came to {on}");
        }
    }
}

fn heartbeats(s: &mut Session) {
    let url = s.url.clone();
    let tuned = s.ok("connect", json!({"on": "b", "url": url, "heartbeat": 1}));
    assert_eq!(tuned, json!({"heartbeat": 1}));
    let queue = s.queue("heartbeats", json!({}));
    s.ok("consume", json!({"on": "b", "queue": queue, "no_ack": true}));
    // Longer than two heartbeats: were one side silent, the other would have hung up.
    assert_eq!(s.ok("next", json!({"on": "b", "wait": 3.5})), Value::Null);
    s.publish(&queue, "alive", json!({}));
    assert_eq!(s.ok("next", json!({"on": "b", "wait": 20.0}))["body"], json!("alive"));
}
