//! The embedded RabbitMQ and the real one, asked the same at random by the same client: every answer is the same, to the last word.
//! `AGREE_SEED` runs one seed, `AGREE_SEEDS` so many.

#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test waits for another process, and fails by a panic"
)]

mod common;
mod foreign;

use std::any::Any;
use std::time::Duration;

use common::unique;
use foreign::{Client, On, Program};
use muslin::embedded::Rabbit;
use serde_json::{Value, json};

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Both brokers, each with a client.
struct Pair {
    clients: [Client; 2],
    urls: [String; 2],
    asked: Vec<String>,
    made: Vec<String>,
}

impl Pair {
    fn start() -> Self {
        let (rabbit, runtime) = foreign::hosted(Rabbit::builder().user("alice", "alice-secret").start());
        let urls = [rabbit.url(), common::amqp()].map(|url| url.trim_end_matches('/').to_owned());
        let client = |on, broker: Box<dyn Any>| Client::start(Program::Go("rabbit"), on, broker);
        let clients = [client(On::Embedded, Box::new((rabbit, runtime))), client(On::Real, Box::new(()))];
        Self { clients, urls, asked: Vec::new(), made: Vec::new() }
    }

    fn connect(&mut self, on: &str) {
        for (client, url) in self.clients.iter_mut().zip(&self.urls) {
            client.ok("connect", json!({"on": on, "url": url}));
        }
    }

    /// Both must answer alike.
    fn ask(&mut self, op: &str, ask: Value) -> Result<Value, Value> {
        self.asked.push(format!("{op} {ask}"));
        let [embedded, real] = self.clients.each_mut().map(|client| plain(client.ask(op, ask.clone())));
        if embedded != real {
            let last = self.asked.len().saturating_sub(100);
            panic!("{}\nembedded: {embedded:?}\nreal:     {real:?}", self.asked[last..].join("\n"));
        }
        real
    }
}

/// Without the times of deaths, and without what RabbitMQ tells since 3.13.
fn plain(mut answer: Result<Value, Value>) -> Result<Value, Value> {
    if let Ok(Value::Object(message)) = &mut answer
        && let Some(Value::Object(headers)) = message.get_mut("headers")
    {
        headers.retain(|name, _| !name.starts_with("x-last-death-"));
        for death in headers.get_mut("x-death").and_then(Value::as_array_mut).into_iter().flatten() {
            death.as_object_mut().unwrap().remove("time");
        }
    }
    answer
}

/// The real broker lives on: what was made there goes with the test.
impl Drop for Pair {
    fn drop(&mut self) {
        let [_, real] = &mut self.clients;
        let _ = real.ask("connect", json!({"on": "z", "url": self.urls[1]}));
        for name in &self.made {
            for op in ["delete", "exchange_delete"] {
                if real.ask(op, json!({"on": "z", "queue": name, "name": name})).is_err() {
                    let _ = real.ask("channel", json!({"on": "z"}));
                }
            }
        }
    }
}

fn arguments(random: &mut Random, prefix: &str) -> Value {
    let mut table = json!({});
    for _ in 0..random.of(&[0, 0, 1, 1, 2, 3]) {
        let (name, values): (&str, Vec<Value>) = match random.below(12) {
            0 => ("x-message-ttl", vec![json!(0), json!(60_000), json!(-1), json!("x"), json!(80)]),
            1 => ("x-max-length", vec![json!(0), json!(1), json!(2), json!(-1), json!("x")]),
            2 => ("x-max-length-bytes", vec![json!(0), json!(3), json!(8), json!(-5)]),
            3 => (
                "x-overflow",
                vec![
                    json!("drop-head"),
                    json!("reject-publish"),
                    json!("reject-publish-dlx"),
                    json!("odd"),
                    json!(1),
                ],
            ),
            4 | 5 => (
                "x-dead-letter-exchange",
                vec![json!(""), json!(format!("{prefix}e0")), json!(format!("{prefix}e1")), json!(5)],
            ),
            6 => (
                "x-dead-letter-routing-key",
                vec![json!(format!("{prefix}q0")), json!(format!("{prefix}q1")), json!(5)],
            ),
            7 => (
                "x-max-priority",
                vec![json!(2), json!(5), json!(255), json!(256), json!(0), json!(-1), json!("x")],
            ),
            8 => ("x-queue-type", vec![json!("classic"), json!("classic"), json!("odd"), json!(1)]),
            9 => ("x-single-active-consumer", vec![json!(true), json!(false), json!("x")]),
            10 => ("x-expires", vec![json!(0), json!(-1), json!("x"), json!(600_000)]),
            _ => ("x-custom", vec![json!(1), json!("x")]),
        };
        table[name] = random.of(&values);
    }
    table
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let prefix = unique("agree");
    let mut pair = Pair::start();
    pair.connect("a");
    pair.connect("b");
    let barrier = format!("{prefix}barrier");
    pair.ask("queue", json!({"on": "b", "name": barrier, "arguments": {"x-expires": 600_000}})).unwrap();
    let queues: Vec<String> = (0..4).map(|n| format!("{prefix}q{n}")).collect();
    let exchanges: Vec<String> = (0..4).map(|n| format!("{prefix}e{n}")).collect();
    pair.made = queues.iter().chain(&exchanges).cloned().collect();
    let keys = ["", "a", "a.b", "a.b.c", "b"];
    let patterns = ["", "a", "a.*", "#", "*.b", "a.#.c", "#.b.#"];
    let tables = [
        json!({}),
        json!({"x-match": "any", "h": 1, "i": "s"}),
        json!({"x-match": "all", "h": 1, "i": "s"}),
        json!({"x-match": "odd", "h": 1}),
        json!({"h": 1}),
        json!({"h": null}),
    ];
    let mut tags: Vec<u64> = Vec::new();
    for n in 0..250 {
        let queue = random.of(&queues);
        let exchange = random.of(&exchanges);
        let other = random.of(&exchanges);
        let (key, pattern, table) = (random.of(&keys), random.of(&patterns), random.of(&tables));
        let (op, mut ask) = match random.below(40) {
            0..=5 => {
                let flags = (random.chance(20), random.chance(15), random.chance(20));
                let arguments = arguments(&mut random, &prefix);
                let name = if random.chance(4) { "amq.odd".to_owned() } else { queue.clone() };
                (
                    "queue",
                    json!({"name": name, "durable": flags.0, "exclusive": flags.1, "passive": flags.2, "arguments": arguments}),
                )
            }
            6 if random.chance(30) => {
                let name = random.of(&[
                    "amq.topic",
                    "amq.direct",
                    "amq.fanout",
                    "amq.headers",
                    "amq.match",
                    "amq.odd",
                    "",
                ]);
                let kind = random.of(&["direct", "topic"]);
                let op = random.of(&["exchange", "exchange", "exchange_delete"]);
                (
                    op,
                    json!({"name": name, "type": kind, "passive": random.chance(30), "durable": random.chance(50)}),
                )
            }
            6..=9 => {
                let kind = random.of(&["direct", "fanout", "topic", "headers", "odd"]);
                let kind = if random.chance(80) {
                    ["direct", "fanout", "topic", "headers"][exchange.len() % 4]
                } else {
                    kind
                };
                let arguments =
                    if random.chance(20) { json!({"alternate-exchange": other}) } else { json!({}) };
                (
                    "exchange",
                    json!({"name": exchange, "type": kind, "passive": random.chance(20), "durable": random.chance(10), "arguments": arguments}),
                )
            }
            10..=13 => {
                ("bind", json!({"queue": queue, "exchange": exchange, "key": pattern, "arguments": table}))
            }
            14 => {
                ("unbind", json!({"queue": queue, "exchange": exchange, "key": pattern, "arguments": table}))
            }
            15 => (
                "exchange_bind",
                json!({"name": other, "exchange": exchange, "key": pattern, "arguments": table}),
            ),
            16 => (
                "exchange_unbind",
                json!({"name": other, "exchange": exchange, "key": pattern, "arguments": table}),
            ),
            17 if random.chance(40) => {
                ("exchange_delete", json!({"name": exchange, "if_unused": random.chance(50)}))
            }
            18 if random.chance(40) => (
                "delete",
                json!({"queue": queue, "if_unused": random.chance(50), "if_empty": random.chance(50)}),
            ),
            19 => ("purge", json!({"queue": queue})),
            20..=28 => {
                let mut properties = json!({"headers": random.of(&[json!({}), json!({"h": 1}), json!({"h": 1, "i": "s"}), json!({"h": "1"}), json!({"CC": ["a"]}), json!({"BCC": ["a.b"]})])});
                if random.chance(30) {
                    properties["priority"] = json!(random.of(&[0, 1, 3, 9]));
                }
                // RabbitMQ forgets to look at the time of one that overtakes others in a priority queue.
                if properties["priority"].is_null() && random.chance(15) {
                    properties["expiration"] = json!(random.of(&["0", "60000", "x", "-1", "80"]));
                }
                if random.chance(20) {
                    properties["delivery_mode"] = json!(2);
                }
                let mandatory = random.chance(40);
                if random.chance(40) {
                    (
                        "publish",
                        json!({"exchange": "", "key": queue, "body": format!("m{n}"), "mandatory": mandatory, "properties": properties}),
                    )
                } else {
                    (
                        "publish",
                        json!({"exchange": exchange, "key": key, "body": format!("m{n}"), "mandatory": mandatory, "properties": properties}),
                    )
                }
            }
            29..=34 => ("get", json!({"queue": queue, "no_ack": random.chance(40)})),
            35 => ("ack", json!({"multiple": random.chance(30)})),
            36 => ("nack", json!({"multiple": random.chance(30), "requeue": random.chance(50)})),
            37 => ("reject", json!({"requeue": random.chance(50)})),
            38 if random.chance(30) => ("recover", json!({})),
            _ => ("queue", json!({"name": queue, "passive": true})),
        };
        ask["on"] = json!("a");
        if ["ack", "nack", "reject"].contains(&op) {
            let Some(tag) = (!tags.is_empty()).then(|| random.below(tags.len())) else { continue };
            ask["tag"] = json!(if random.chance(3) { 999 } else { tags[tag] });
            if ask["multiple"] == json!(true) {
                let tag = tags[tag];
                tags.retain(|t| *t > tag);
            } else {
                tags.remove(tag);
            }
        }
        let mut told = pair.ask(op, ask.clone());
        if ["ack", "nack", "reject", "recover"].contains(&op) {
            if op == "recover" {
                tags.clear();
            }
            told = pair.ask("queue", json!({"on": "a", "name": barrier, "passive": true}));
        }
        // Dead letters and expired messages are on their way.
        if ["publish", "nack", "reject", "get", "queue"].contains(&op) {
            std::thread::sleep(Duration::from_millis(if random.chance(10) { 200 } else { 12 }));
        }
        match &told {
            Ok(message) if op == "get" && ask["no_ack"] == json!(false) && !message.is_null() => {
                tags.push(message["tag"].as_u64().unwrap());
            }
            Err(error) if error[0].as_u64().is_some_and(|code| code >= 500) => {
                tags.clear();
                pair.connect("a");
            }
            Err(_) => {
                tags.clear();
                pair.ask("channel", json!({"on": "a"})).unwrap();
            }
            Ok(_) => {}
        }
    }
}

#[test]
fn the_embedded_and_the_real_rabbitmq_answer_alike() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("AGREE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AGREE_SEEDS").unwrap_or(3),
    };
    for seed in seeds {
        println!("seed {seed}");
        run(seed);
    }
}
