//! Kafka's other clients on the embedded cluster and on Apache Kafka: the same scenarios, the same facts expected, so that both are
//! held to one truth; and what muslin writes, read by each of them. The programs are in `tests/foreign`; `scripts/setup.sh test` installs what they need.

#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test waits for another process, and fails by a panic"
)]

mod common;
mod foreign;
#[path = "common/member.rs"]
mod member;

use std::any::Any;
use std::collections::BTreeSet;
use std::time::Duration;

use common::unique;
use foreign::{Client, On, Program, until};
use member::{Acked, Worker};
use muslin::codec::compression::Compression;
use muslin::embedded::{Kafka, KafkaBuilder};
use muslin::kafka::{Assignor, GroupProtocol, Record};
use muslin::{Partition, Timestamp};
use serde_json::{Value, json};

const CONFLUENT: Program = Program::Python("kafka_confluent");
const AIOKAFKA: Program = Program::Python("kafka_aiokafka");
const FRANZ_GO: Program = Program::Go("kafka");
const JAVA: Program = Program::Java("Kafka");

foreign::tests! {
    librdkafka CONFLUENT: codecs muslin_wrote idempotent transactions classic_group consumer_group mixed_classic mixed_consumer topics groups cluster login;
    aiokafka AIOKAFKA: codecs muslin_wrote idempotent transactions classic_group mixed_classic topics cluster login;
    franz_go FRANZ_GO: codecs muslin_wrote idempotent transactions classic_group consumer_group mixed_classic mixed_consumer topics groups cluster login;
    java JAVA: codecs muslin_wrote idempotent transactions classic_group consumer_group mixed_classic mixed_consumer topics groups cluster login;
}

fn start(program: Program, on: On) -> Client {
    let (address, broker) = match on {
        On::Real => (common::kafka(), Box::new(()) as Box<dyn Any>),
        On::Embedded => embedded(Kafka::builder()),
    };
    let mut client = Client::start(program, on, broker);
    client.ok("connect", json!({"bootstrap": address}));
    client.address = address;
    client
}

/// The address of an embedded cluster, and what keeps it alive.
fn embedded(builder: KafkaBuilder) -> (String, Box<dyn Any>) {
    let (kafka, runtime) = foreign::hosted(builder.start());
    (kafka.bootstrap(), Box::new((kafka, runtime)))
}

/// A cluster that asks for a login and knows `alice` with `alice-secret`.
fn sasl(on: On) -> (String, Box<dyn Any>) {
    match on {
        On::Real => (common::kafka_sasl(), Box::new(())),
        On::Embedded => embedded(Kafka::builder().user("alice", "alice-secret").require_sasl()),
    }
}

impl Client {
    fn topic(&mut self, prefix: &str, partitions: i32) -> String {
        let topic = unique(prefix);
        self.ok("create_topic", json!({"topic": topic, "partitions": partitions}));
        topic
    }

    /// Writes `values` to partition 0, each in turn.
    fn produce(&mut self, name: &str, topic: &str, values: &[&str]) {
        let records: Vec<Value> = values.iter().map(|v| json!({"key": null, "value": v})).collect();
        self.ok("produce", json!({"name": name, "topic": topic, "records": records}));
    }

    /// Polls consumer `name` until it gave `count` records, and a while longer: there must be no more.
    fn read(&mut self, name: &str, count: usize) -> Vec<Value> {
        let mut read = Vec::new();
        until(&format!("{count} records"), || {
            let polled = self.ok("poll", json!({"name": name}));
            read.extend(polled["records"].as_array().unwrap().iter().cloned());
            (read.len() >= count).then_some(())
        });
        for _ in 0..2 {
            read.extend(
                self.ok("poll", json!({"name": name}))["records"].as_array().unwrap().iter().cloned(),
            );
        }
        assert_eq!(read.len(), count, "{read:?}");
        read
    }

    /// All values of partition 0, as a consumer without a group reads them.
    fn values(&mut self, topic: &str, committed: bool, count: usize) -> Vec<String> {
        let name = unique("reader");
        self.ok("consumer", json!({"name": name, "topics": [topic], "committed": committed}));
        let read = self.read(&name, count);
        self.ok("close", json!({"name": name}));
        read.iter().map(|r| r["value"].as_str().unwrap().to_owned()).collect()
    }

    fn committed(&mut self, group: &str) -> Value {
        self.ok("group_offsets", json!({"group": group}))
    }
}

fn now() -> i64 {
    i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

fn codecs(client: &mut Client) {
    let at = now() - 60_000;
    let records = json!([
        {"key": "k", "value": "v", "headers": [], "timestamp": at},
        {"key": null, "value": "no key", "headers": [["a", "1"], ["a", "2"], ["b", null], ["c", ""]], "timestamp": at + 1},
        {"key": "tombstone", "value": null, "headers": [], "timestamp": at + 2},
        {"key": "", "value": "", "headers": [["ü", "ß"]], "timestamp": at - 3},
        {"key": "long", "value": "abcdefghij".repeat(5000), "headers": [], "timestamp": at + 4},
    ]);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = client.topic(codec, 1);
        client.ok("producer", json!({"name": codec, "codec": codec}));
        let offsets = client.ok("produce", json!({"name": codec, "topic": topic, "records": records}));
        assert_eq!(offsets, json!([[0, 0], [0, 1], [0, 2], [0, 3], [0, 4]]), "{codec}");
        client.ok("close", json!({"name": codec}));
        client.ok("consumer", json!({"name": codec, "topics": [topic]}));
        for (n, (read, wanted)) in client.read(codec, 5).iter().zip(records.as_array().unwrap()).enumerate() {
            assert_eq!(read["offset"], json!(n), "{codec}");
            for field in ["key", "value", "headers", "timestamp"] {
                assert_eq!(read[field], wanted[field], "{codec}, record {n}, {field}");
            }
        }
        client.ok("close", json!({"name": codec}));
    }
}

/// Records that a wrong length, order or sign would spoil: nulls and empty texts, headers that repeat, times before others, one that
/// fills a batch of its own; and many plain ones, so that there are batches of all sizes.
fn manifold(at: i64) -> Vec<Value> {
    let mut records = vec![
        json!({"key": "k", "value": "v", "headers": [], "timestamp": at}),
        json!({"key": null, "value": "no key", "headers": [["a", "1"], ["a", "2"], ["b", null], ["c", ""]], "timestamp": at + 1}),
        json!({"key": "tombstone", "value": null, "headers": [], "timestamp": at + 2}),
        json!({"key": "", "value": "", "headers": [["ü", "ß"]], "timestamp": at - 3000}),
        json!({"key": null, "value": null, "headers": [["", "empty name"]], "timestamp": at + 4000}),
        json!({"key": "long", "value": "abcdefghij".repeat(20_000), "headers": [], "timestamp": at + 5}),
        json!({"key": "x".repeat(9_000), "value": "a long key", "headers": [["h".repeat(300), "y".repeat(20_000)]], "timestamp": at}),
    ];
    records.extend((0..3_000_i64).map(|n| {
        let value = format!("{n} {}", "no two of these are alike ".repeat(n as usize % 17));
        json!({"key": format!("key-{}", n % 97), "value": value, "headers": [["n", n.to_string()]], "timestamp": at + n})
    }));
    records
}

/// Sends the records to partition 0 with this codec, and says where each was placed.
fn write(address: &str, topic: &str, codec: Compression, records: &[Value]) -> Vec<i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = |v: &Value| v.as_str().map(str::to_owned);
    runtime.block_on(async {
        let client = muslin::kafka::Client::builder(address).connect().await.unwrap();
        let producer = client.producer().compression(codec).batch_size(32 << 10).build().await.unwrap();
        let mut queued = Vec::new();
        for r in records {
            let mut record = Record::to(topic).unwrap().partition(Partition(0));
            record = record.timestamp(Timestamp(r["timestamp"].as_i64().unwrap()));
            if let Some(key) = text(&r["key"]) {
                record = record.key(key);
            }
            if let Some(value) = text(&r["value"]) {
                record = record.value(value);
            }
            for header in r["headers"].as_array().unwrap() {
                record = record.header(text(&header[0]).unwrap(), text(&header[1]).map(Into::into));
            }
            queued.push(producer.enqueue(record).await.unwrap());
        }
        let mut offsets = Vec::new();
        for q in queued {
            offsets.push(q.await.unwrap().offset.get());
        }
        producer.close(foreign::LIMIT).await.unwrap();
        offsets
    })
}

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn muslin_wrote(client: &mut Client) {
    let records = manifold(now() - 60_000);
    for codec in CODECS {
        let topic = client.topic("muslin", 1);
        let offsets = write(&client.address.clone(), &topic, codec, &records);
        assert_eq!(offsets, (0..records.len() as i64).collect::<Vec<_>>(), "{codec:?}");
        let name = unique("reader");
        client.ok("consumer", json!({"name": name, "topics": [topic]}));
        for (n, (read, wanted)) in client.read(&name, records.len()).iter().zip(&records).enumerate() {
            assert_eq!(read["offset"], json!(n), "{codec:?}");
            for field in ["key", "value", "headers", "timestamp"] {
                assert_eq!(read[field], wanted[field], "{codec:?}, record {n}, {field}");
            }
        }
        client.ok("close", json!({"name": name}));
    }
}

#[test]
fn the_java_console_consumer_reads_what_muslin_wrote_with_every_codec() {
    let records = manifold(now() - 60_000);
    for codec in CODECS {
        let topic = unique("console");
        write(&common::kafka(), &topic, codec, &records);
        let print = ["timestamp", "partition", "offset", "headers", "key", "value"];
        let print = print.map(|what| format!("print.{what}=true"));
        let mut args = vec!["--formatter-property", "null.literal=NULL"];
        args.extend(print.iter().flat_map(|property| ["--formatter-property", property]));
        let printed =
            common::console_consumer(&common::kafka(), &topic, records.len(), &args, 2 * foreign::LIMIT);
        let shown = |v: &Value| v.as_str().unwrap_or("NULL").to_owned();
        let mut lines = printed.lines();
        for (n, r) in records.iter().enumerate() {
            let headers = r["headers"].as_array().unwrap();
            let headers: Vec<_> =
                headers.iter().map(|h| format!("{}:{}", shown(&h[0]), shown(&h[1]))).collect();
            let headers = if headers.is_empty() { "NO_HEADERS".to_owned() } else { headers.join(",") };
            let wanted = format!(
                "CreateTime:{}\tPartition:0\tOffset:{n}\t{headers}\t{}\t{}",
                r["timestamp"],
                shown(&r["key"]),
                shown(&r["value"])
            );
            assert_eq!(lines.next(), Some(wanted.as_str()), "{codec:?}, record {n}");
        }
        assert_eq!(lines.next(), None, "{codec:?}");
    }
}

fn idempotent(client: &mut Client) {
    let topic = client.topic("idempotent", 2);
    let of = |partition: usize| (0..300).map(move |n| format!("{partition}:{n}"));
    let records: Vec<Value> = of(0)
        .zip(of(1))
        .flat_map(|(a, b)| {
            [json!({"key": a, "value": a, "partition": 0}), json!({"key": b, "value": b, "partition": 1})]
        })
        .collect();
    client.ok("producer", json!({"name": "p", "idempotent": true}));
    for round in 0..2 {
        let offsets = client.ok("produce", json!({"name": "p", "topic": topic, "records": records}));
        let wanted: Vec<Value> = (0..600).map(|n| json!([n % 2, round * 300 + n / 2])).collect();
        assert_eq!(offsets, json!(wanted));
    }
    let wanted: Vec<String> = of(0).chain(of(0)).collect();
    assert_eq!(client.values(&topic, false, 600), wanted);
}

fn transactions(client: &mut Client) {
    let (input, output) = (client.topic("input", 1), client.topic("output", 1));
    let (group, id) = (unique("group"), unique("transaction"));
    let offsets = |n: i64| json!([[input, 0, n]]);
    client.ok("producer", json!({"name": "p"}));
    client.produce("p", &input, &["a", "b"]);

    let processor = |name: &str| json!({"name": name, "group": group, "topic": input, "transaction": id});
    client.ok("processor", processor("first"));
    assert_eq!(client.read("first", 2)[1]["value"], json!("b"));
    client.ok("begin", json!({"name": "first"}));
    client.produce("first", &output, &["A", "B"]);
    assert_eq!(client.values(&output, false, 2), ["A", "B"]);
    assert_eq!(client.values(&output, true, 0), [""; 0], "an open transaction is seen");
    let end = |client: &mut Client, committed| {
        client.ok(
            "list_offsets",
            json!({"topic": output, "partition": 0, "at": "latest", "committed": committed}),
        )
    };
    assert_eq!(end(client, false), json!(2));
    // aiokafka asks for the end without an isolation level.
    assert_eq!(end(client, true), if client.program == AIOKAFKA { json!(2) } else { json!(0) });
    client.ok("commit", json!({"name": "first"}));
    assert_eq!(client.values(&output, true, 2), ["A", "B"]);
    assert_eq!(client.committed(&group), offsets(2));

    client.produce("p", &input, &["c", "d"]);
    assert_eq!(client.read("first", 2)[1]["value"], json!("d"));
    client.ok("begin", json!({"name": "first"}));
    client.produce("first", &output, &["lost"]);
    client.ok("abort", json!({"name": "first"}));
    assert_eq!(client.values(&output, true, 2), ["A", "B"]);
    assert_eq!(client.values(&output, false, 3), ["A", "B", "lost"]);
    assert_eq!(client.committed(&group), offsets(2), "an aborted transaction moved the offset");

    // A second instance: the first one's transaction is aborted, and what it does from now on is refused.
    client.ok("begin", json!({"name": "first"}));
    client.produce("first", &output, &["orphan"]);
    client.ok("producer", json!({"name": "second", "transaction": id, "idempotent": true}));
    let late = json!({"name": "first", "topic": output, "records": [{"key": null, "value": "late"}]});
    let refused = client.ask("produce", late).and_then(|_| client.ask("commit", json!({"name": "first"})));
    assert!(
        refused == Err(json!(47)) || refused == Err(json!(90)),
        "the first instance was not fenced: {refused:?}"
    );
    client.ok("begin", json!({"name": "second"}));
    client.produce("second", &output, &["C"]);
    client.ok("commit", json!({"name": "second"}));
    assert_eq!(client.values(&output, true, 3), ["A", "B", "C"]);
    assert_eq!(client.committed(&group), offsets(2));

    client.ok("close", json!({"name": "first"}));
    client.ok("processor", processor("third"));
    let read = client.read("third", 2);
    assert_eq!(
        (&read[0]["value"], &read[1]["value"]),
        (&json!("c"), &json!("d")),
        "what was aborted comes again"
    );
    client.ok("begin", json!({"name": "third"}));
    client.produce("third", &output, &["D"]);
    client.ok("commit", json!({"name": "third"}));
    assert_eq!(client.values(&output, true, 4), ["A", "B", "C", "D"]);
    assert_eq!(client.committed(&group), offsets(4));
    assert_eq!(end(client, true), end(client, false), "a transaction is still open");
}

fn classic_group(client: &mut Client) {
    rebalance(client, "classic");
}

fn consumer_group(client: &mut Client) {
    rebalance(client, "consumer");
}

/// Two members share four partitions: the second joins and leaves, and each goes on where the one before it committed.
fn rebalance(client: &mut Client, protocol: &str) {
    let topic = client.topic("shared", 4);
    let group = unique("group");
    client.ok("producer", json!({"name": "p"}));
    let fill = |client: &mut Client, value: &str| {
        let records: Vec<Value> =
            (0..4).map(|n| json!({"key": null, "value": value, "partition": n})).collect();
        client.ok("produce", json!({"name": "p", "topic": topic, "records": records}));
    };
    let join = |name| json!({"name": name, "group": group, "topics": [topic], "protocol": protocol});
    // Polls both members until each owns the partitions it should and `records` came in all; each only from what it owns.
    let settle = |client: &mut Client, names: &[&str], value: &str, records: usize| {
        let mut seen = Vec::new();
        let owned = until("assignment of all partitions with their records", || {
            let mut owned = Vec::new();
            for name in names {
                let polled = client.ok("poll", json!({"name": name}));
                let own: Vec<i64> = serde_json::from_value(polled["assigned"].clone()).unwrap();
                for record in polled["records"].as_array().unwrap() {
                    assert_eq!(
                        record["value"],
                        json!(value),
                        "committed, yet read again by {name}: {record}"
                    );
                    seen.push(record["partition"].as_i64().unwrap());
                }
                owned.push(own);
            }
            let all: BTreeSet<i64> = owned.iter().flatten().copied().collect();
            let fair = owned.iter().all(|own| own.len() == 4 / names.len()) && all.len() == 4;
            (fair && seen.len() >= records).then_some(owned)
        });
        seen.sort_unstable();
        assert_eq!(seen, (0..4).take(records).collect::<Vec<i64>>(), "each record once");
        owned
    };

    fill(client, "first");
    client.ok("consumer", join("a"));
    settle(client, &["a"], "first", 4);
    client.ok("commit_offsets", json!({"name": "a"}));

    client.ok("consumer", join("b"));
    settle(client, &["a", "b"], "none", 0);
    fill(client, "second");
    settle(client, &["a", "b"], "second", 4);
    for name in ["a", "b"] {
        client.ok("commit_offsets", json!({"name": name}));
    }
    let committed: Vec<Value> = (0..4).map(|n| json!([topic, n, 2])).collect();
    assert_eq!(client.committed(&group), json!(committed));

    client.ok("close", json!({"name": "a"}));
    settle(client, &["b"], "none", 0);
    fill(client, "third");
    settle(client, &["b"], "third", 4);
    client.ok("commit_offsets", json!({"name": "b"}));
    client.ok("close", json!({"name": "b"}));

    fill(client, "fourth");
    client.ok("consumer", join("c"));
    settle(client, &["c"], "fourth", 4);
}

fn mixed_classic(client: &mut Client) {
    mixed(client, "classic", GroupProtocol::Classic);
}

fn mixed_consumer(client: &mut Client) {
    mixed(client, "consumer", GroupProtocol::Consumer);
}

/// A member of theirs and one of ours in one group: they share, each record goes to one of them, and each takes over from the
/// other.
fn mixed(client: &mut Client, protocol: &str, ours: GroupProtocol) {
    let topic = client.topic("mixed", 4);
    let group = unique("group");
    client.ok("producer", json!({"name": "p"}));
    let fill = |client: &mut Client| {
        let records: Vec<Value> =
            (0..4).map(|n| json!({"key": null, "value": "v", "partition": n})).collect();
        client.ok("produce", json!({"name": "p", "topic": topic, "records": records}));
    };
    // Until theirs owns so many, ours the others, and so many records were read in all.
    let acked = Acked::default();
    let mut theirs: Vec<(i64, i64)> = Vec::new();
    let mut settle = |client: &mut Client, worker: Option<&Worker>, own: usize, records: usize| {
        until("a share for each, and all records", || {
            let polled = client.ok("poll", json!({"name": "a"}));
            let assigned: BTreeSet<i32> = serde_json::from_value(polled["assigned"].clone()).unwrap();
            for record in polled["records"].as_array().unwrap() {
                theirs.push((record["partition"].as_i64().unwrap(), record["offset"].as_i64().unwrap()));
            }
            let mine = worker.map(Worker::owned).unwrap_or_default();
            let read = theirs.len() + acked.lock().unwrap().len();
            let shared = assigned.len() == own && mine.len() == 4 - own && assigned.is_disjoint(&mine);
            (shared && read >= records).then_some(())
        });
        let mut all: Vec<(i64, i64)> = theirs.clone();
        for ((partition, offset), times) in acked.lock().unwrap().iter() {
            assert_eq!(*times, 1, "partition {partition} offset {offset}");
            all.push(((*partition).into(), *offset));
        }
        all.sort_unstable();
        let rounds = i64::try_from(records / 4).unwrap();
        let expected: Vec<(i64, i64)> = (0..4).flat_map(|p| (0..rounds).map(move |n| (p, n))).collect();
        assert_eq!(all, expected, "each record once");
    };
    fill(client);
    client.ok("consumer", json!({"name": "a", "group": group, "topics": [topic], "protocol": protocol}));
    settle(client, None, 4, 4);
    client.ok("commit_offsets", json!({"name": "a"}));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // All that the others know by default, so that there is one in common.
    let assignors = [Assignor::CooperativeSticky, Assignor::Range, Assignor::RoundRobin, Assignor::Sticky];
    let worker = runtime.block_on(async {
        let muslin = muslin::kafka::Client::builder(client.address.as_str()).connect().await.unwrap();
        let builder = muslin.consumer(group.as_str()).topics([topic.as_str()]).protocol(ours);
        let builder =
            builder.session_timeout(Duration::from_secs(6)).heartbeat_interval(Duration::from_millis(500));
        let consumer = builder.assignors(assignors).build().await.unwrap();
        Worker::start(consumer, std::sync::Arc::clone(&acked), Duration::ZERO)
    });
    settle(client, Some(&worker), 2, 4);
    fill(client);
    settle(client, Some(&worker), 2, 8);
    client.ok("commit_offsets", json!({"name": "a"}));
    runtime.block_on(worker.close());
    settle(client, None, 4, 8);
    fill(client);
    settle(client, None, 4, 12);
    client.ok("commit_offsets", json!({"name": "a"}));
    client.ok("close", json!({"name": "a"}));
}

fn topics(client: &mut Client) {
    let topic = unique("topics");
    let named = json!({"topic": topic});
    let at = now() - 60_000;
    assert_eq!(client.refused("delete_topic", named.clone()), json!(3));
    client
        .ok("create_topic", json!({"topic": topic, "partitions": 2, "config": {"retention.ms": "3600000"}}));
    assert_eq!(client.refused("create_topic", json!({"topic": topic, "partitions": 2})), json!(36));
    assert_eq!(client.refused("create_topic", json!({"topic": "not/valid", "partitions": 1})), json!(17));
    assert_eq!(client.refused("create_topic", json!({"topic": unique("none"), "partitions": 0})), json!(37));
    let wrong = json!({"topic": unique("wrong"), "partitions": 1, "config": {"retention.ms": "soon"}});
    assert_eq!(client.refused("create_topic", wrong), json!(40));
    until("topic of two partitions", || {
        (client.ask("describe_topic", named.clone()) == Ok(json!(2))).then_some(())
    });

    assert_eq!(client.refused("create_partitions", json!({"topic": topic, "count": 1})), json!(37));
    client.ok("create_partitions", json!({"topic": topic, "count": 4}));
    until("topic of four partitions", || {
        (client.ask("describe_topic", named.clone()) == Ok(json!(4))).then_some(())
    });

    let retention = json!({"topic": topic, "name": "retention.ms"});
    let alter = |value: &str| json!({"topic": topic, "name": "retention.ms", "value": value});
    assert_eq!(client.ok("describe_config", retention.clone()), json!(["3600000", false]));
    client.ok("alter_config", alter("7200000"));
    until("altered config", || {
        (client.ok("describe_config", retention.clone()) == json!(["7200000", false])).then_some(())
    });
    assert_eq!(client.refused("alter_config", alter("soon")), json!(40));
    let cleanup = client.ok("describe_config", json!({"topic": topic, "name": "cleanup.policy"}));
    assert_eq!(cleanup, json!(["delete", true]));

    let records: Vec<Value> =
        (0..5).map(|n| json!({"key": null, "value": "v", "timestamp": at + n * 1000})).collect();
    client.ok("producer", json!({"name": "p"}));
    client.ok("produce", json!({"name": "p", "topic": topic, "records": records}));
    let offset = |client: &mut Client, at: Value| {
        client.ok("list_offsets", json!({"topic": topic, "partition": 0, "at": at}))
    };
    for (when, wanted) in [
        (json!("earliest"), 0),
        (json!("latest"), 5),
        (json!(at), 0),
        (json!(at + 1001), 2),
        (json!(at + 4000), 4),
        (json!(at + 4001), -1),
    ] {
        assert_eq!(offset(client, when.clone()), json!(wanted), "{when}");
    }
    let delete = |before: i64| json!({"topic": topic, "partition": 0, "before": before});
    assert_eq!(client.ok("delete_records", delete(3)), json!(3));
    assert_eq!(offset(client, json!("earliest")), json!(3));
    assert_eq!(client.refused("delete_records", delete(6)), json!(1));
    client.ok("consumer", json!({"name": "late", "topics": [topic]}));
    assert_eq!(client.read("late", 2)[0]["offset"], json!(3), "reset to the earliest that is left");

    // A consumer that still asks for the topic would have it created again.
    client.ok("close", json!({"name": "late"}));
    client.ok("delete_topic", named.clone());
    until("end of the topic", || {
        (client.ask("describe_topic", named.clone()) == Err(json!(3))).then_some(())
    });
}

fn groups(client: &mut Client) {
    let topic = client.topic("grouped", 1);
    let group = unique("group");
    let named = json!({"group": group});
    assert_eq!(client.refused("delete_group", named.clone()), json!(69));
    client.ok("producer", json!({"name": "p"}));
    client.produce("p", &topic, &["a", "b", "c"]);
    client.ok("consumer", json!({"name": "member", "topics": [topic], "group": group}));
    client.read("member", 3);
    client.ok("commit_offsets", json!({"name": "member"}));
    let listed = client.ok("list_groups", json!({}));
    assert!(listed.as_array().unwrap().contains(&json!(group)), "{listed}");
    assert_eq!(client.ok("describe_group", named.clone()), json!({"state": "Stable", "members": 1}));
    assert_eq!(client.committed(&group), json!([[topic, 0, 3]]));
    assert_eq!(client.refused("delete_group", named.clone()), json!(68));
    client.ok("close", json!({"name": "member"}));
    until("empty group", || {
        (client.ok("describe_group", named.clone()) == json!({"state": "Empty", "members": 0})).then_some(())
    });
    client.ok("delete_group", named);
    let listed = client.ok("list_groups", json!({}));
    assert!(!listed.as_array().unwrap().contains(&json!(group)), "{listed}");
}

fn cluster(client: &mut Client) {
    let told = client.ok("describe_cluster", json!({}));
    assert_eq!(told["brokers"], json!([1]));
    assert_eq!(told["controller"], json!(1));
    assert!(told["id"].as_str().is_some_and(|id| !id.is_empty()), "{told}");
}

fn login(client: &mut Client) {
    let (address, _broker) = sasl(client.on);
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let mut connect = json!({
            "bootstrap": address, "sasl": {"mechanism": mechanism, "user": "alice", "password": "alice-secret"}
        });
        client.ok("connect", connect.clone());
        client.ok("describe_cluster", json!({}));
        let topic = client.topic("login", 1);
        client.ok("producer", json!({"name": mechanism}));
        client.produce(mechanism, &topic, &[mechanism]);
        assert_eq!(client.values(&topic, false, 1), [mechanism]);
        client.ok("close", json!({"name": mechanism}));

        for (user, password) in [("alice", "wrong"), ("nobody", "alice-secret")] {
            connect["sasl"]["user"] = json!(user);
            connect["sasl"]["password"] = json!(password);
            let told = client
                .ask("connect", connect.clone())
                .and_then(|_| client.ask("describe_cluster", json!({})));
            // aiokafka logs in the oldest way (SaslHandshake v0): the broker can only hang up.
            let wanted = if client.program == AIOKAFKA { json!("connection") } else { json!(58) };
            assert_eq!(told, Err(wanted), "{mechanism} as {user}");
        }
    }
}
