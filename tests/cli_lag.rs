//! `lag` and `groups` on the embedded broker and on a real one: what is printed for a person and for a program, how it ends, and
//! that it agrees with Kafka's own tool.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test reads clocks, sleeps, and fails by a panic; `common` is not a library"
)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{json_lines, muslin_alone, run_within, succeed, unique};
use muslin::embedded::Kafka;
use muslin::kafka::{Client, NewTopic, Record, ResetTo};
use muslin::{Offset, Topic};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// An embedded broker on threads of its own, or a real one; and a client of it.
struct Bed {
    bootstrap: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
    _kafka: Option<Kafka>,
}

impl Bed {
    fn embedded() -> Self {
        Self::over(true)
    }

    fn real() -> Self {
        Self::over(false)
    }

    fn over(embedded: bool) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let kafka = embedded.then(|| runtime.block_on(Kafka::builder().start()).unwrap());
        let bootstrap = kafka.as_ref().map_or_else(common::kafka, Kafka::bootstrap);
        let client = runtime.block_on(Client::builder(&bootstrap).connect()).unwrap();
        Self { bootstrap, client, runtime, _kafka: kafka }
    }

    /// A topic with so many records in each partition.
    fn topic(&self, prefix: &str, records: &[usize]) -> Topic {
        let topic = Topic::new(unique(prefix)).unwrap();
        self.runtime.block_on(async {
            let new = NewTopic::new(topic.clone()).partitions(records.len() as i32);
            self.client.admin().create_topic(&new).await.unwrap();
            let producer = self.client.producer().build().await.unwrap();
            for (count, partition) in records.iter().zip(0..) {
                for _ in 0..*count {
                    producer.send(Record::to_topic(&topic).partition(partition).value("v")).await.unwrap();
                }
            }
            producer.close(Duration::from_secs(10)).await.unwrap();
        });
        topic
    }

    fn commit(&self, group: &str, topic: &Topic, offsets: &[i64]) {
        self.runtime.block_on(async {
            for (offset, partition) in offsets.iter().zip(0..) {
                let reset = self.client.admin().reset_offsets(group, ResetTo::Exact(Offset(*offset)));
                let plan = reset.partition(topic, partition).plan().await.unwrap();
                plan.execute().await.unwrap();
            }
        });
    }

    fn run(&self, args: &str) -> Command {
        let mut command = muslin_alone();
        command.args(["--kafka", &self.bootstrap]).args(args.split(' '));
        command
    }

    /// The objects that it prints; it ends well.
    fn json(&self, args: &str) -> Vec<Value> {
        json_lines(&succeed(&mut self.run(&format!("{args} -J")), ""))
    }

    /// It ends with this status and these words on stderr; gives what it printed.
    #[track_caller]
    fn ends(&self, args: &str, status: i32, words: &[&str]) -> String {
        let output = run_within(&mut self.run(args), "", LIMIT);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{args}: {errors}");
        for word in words {
            assert!(errors.contains(word), "{args}: {word:?} is not in: {errors}");
        }
        String::from_utf8(output.stdout).unwrap()
    }
}

fn lags(bed: &Bed) {
    let (group, topic) = (unique("cli-lag"), bed.topic("cli-lag", &[5, 3, 0]));
    bed.commit(&group, &topic, &[2, 3, 0]);
    let mut told = bed.json(&format!("lag -g {group}"));
    assert!(told[0]["lag_ms"].as_u64().is_some_and(|ms| ms < 600_000), "{}", told[0]);
    told[0]["lag_ms"] = json!(7);
    let line = |partition, committed, end, lag, lag_ms, state| {
        json!({"group": group, "topic": topic.as_str(), "partition": partition, "committed": committed, "end": end,
            "lag": lag, "lag_ms": lag_ms, "state": state})
    };
    assert_eq!(
        told,
        [line(0, 2, 5, 3, 7, "behind"), line(1, 3, 3, 0, 0, "keeps_up"), line(2, 0, 0, 0, 0, "keeps_up")]
    );
    // All groups, as a person reads them.
    let text = succeed(&mut bed.run("lag"), "");
    assert!(text.starts_with("group "), "{text}");
    let row = text.lines().find(|l| l.starts_with(&group)).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((cells[1..6].to_vec(), cells[7]), (vec![topic.as_str(), "0", "2", "5", "3"], "behind"));

    for (alert, over) in [("2", true), ("3", false), ("1ms", true), ("10m", false)] {
        let args = format!("lag -g {group} --alert {alert}");
        let words = [group.as_str(), topic.as_str(), "3 records behind"];
        let printed = bed.ends(&args, i32::from(over), if over { &words } else { &[] });
        assert_eq!(printed.lines().count(), 4, "{printed}");
    }
    bed.ends(&format!("lag -g {group} --alert 3 --alert 1ms"), 1, &["partition 0"]);
    let none = unique("cli-none");
    bed.ends(&format!("lag -g {none}"), 3, &[&none, "not there"]);
    let printed = bed.ends(&format!("lag -g {none} -g {group} -J"), 1, &[&none]);
    assert_eq!(json_lines(&printed).len(), 3);
    for args in ["lag --alert many", "lag --interval 1s", "lag --watch --interval 0s", "lag --watch --for 1s"]
    {
        bed.ends(args, 2, &[]);
    }
    bed.ends("lag --watch --interval 10s --window 11s", 2, &["two intervals"]);
}

#[test]
fn the_lag_on_the_embedded_broker() {
    lags(&Bed::embedded());
}

#[test]
fn the_lag_on_a_real_broker() {
    lags(&Bed::real());
}

#[test]
fn the_lag_agrees_with_kafkas_own_tool() {
    let bed = Bed::real();
    let (group, topic) = (unique("cli-agree"), bed.topic("cli-agree", &[7, 4, 0, 9, 1]));
    bed.commit(&group, &topic, &[0, 4, 0, 5]);
    let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let args = ["--describe", "--group", &group, "--bootstrap-server", &bed.bootstrap];
    let table = common::brokers_sh(&[&["kafka", class], &args[..]].concat());
    let theirs: BTreeMap<i64, [i64; 3]> = table
        .lines()
        .filter(|line| line.starts_with(&group))
        .map(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(cells[1], topic.as_str());
            let number = |at: usize| cells[at].parse::<i64>().unwrap();
            (number(2), [number(3), number(4), number(5)])
        })
        .collect();
    let ours: BTreeMap<i64, [i64; 3]> = bed
        .json(&format!("lag -g {group}"))
        .iter()
        .map(|p| {
            let number = |name: &str| p[name].as_i64().unwrap();
            (number("partition"), [number("committed"), number("end"), number("lag")])
        })
        .collect();
    assert_eq!(ours, theirs, "{table}");
    assert_eq!(ours.len(), 4);
}

#[test]
fn a_watch_tells_of_a_stalled_group_and_ends_by_an_alert_or_a_signal() {
    let bed = Bed::embedded();
    let (group, topic) = (unique("cli-watch"), bed.topic("cli-watch", &[5]));
    bed.commit(&group, &topic, &[1]);
    let mut command = bed.run(&format!("lag -g {group} --watch --interval 100ms --window 500ms -J"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = 0;
    let states: Vec<String> = std::iter::from_fn(|| {
        let told: Value = serde_json::from_str(&lines.next()?.unwrap()).unwrap();
        assert!(told["at"].as_i64().unwrap() >= last, "{told}");
        last = told["at"].as_i64().unwrap();
        Some(told["state"].as_str().unwrap().to_owned())
    })
    .take_while(|state| state != "stalled")
    .collect();
    assert!(!states.is_empty() && states.iter().all(|state| state == "behind"), "{states:?}");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    // It may be about to write.
    drop(lines.by_ref().last());
    assert_eq!(child.wait().unwrap().code(), Some(130));

    bed.ends(&format!("lag -g {group} --watch --interval 100ms --alert 3"), 1, &["4 records behind"]);
    // One answer, judged by many looks.
    let told = bed.json(&format!("lag -g {group} --for 1500ms"));
    assert_eq!((told.len(), &told[0]["state"], told[0].get("at")), (1, &json!("stalled"), None));
}

#[test]
fn queues_are_not_told_of_and_that_is_said() {
    let bed = Bed::embedded();
    let (group, topic) = (unique("cli-amqp"), bed.topic("cli-amqp", &[1]));
    bed.commit(&group, &topic, &[0]);
    bed.ends(
        &format!("lag -g {group} --amqp amqp://guest:guest@127.0.0.1:1/"),
        0,
        &["warning", "queues of a RabbitMQ"],
    );
    let mut alone = muslin_alone();
    let output = run_within(alone.args(["lag", "--amqp", "amqp://127.0.0.1:1/"]), "", LIMIT);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("queues of a RabbitMQ") && errors.contains("--kafka"), "{errors}");
}

/// A group's life.
fn groups(bed: &Bed) {
    let (group, topic) = (unique("cli-groups"), bed.topic("cli-groups", &[4, 4]));
    bed.commit(&group, &topic, &[1]);
    let wanted = |state: &str| {
        bed.json("groups list").into_iter().any(|g| {
            (&g["group"], &g["state"], &g["kind"]) == (&json!(group), &json!(state), &json!("classic"))
        })
    };
    assert!(wanted("empty"));
    let text = succeed(&mut bed.run("groups list"), "");
    assert!(text.starts_with("group ") && text.lines().any(|l| l.starts_with(&group)), "{text}");

    let told = bed.json(&format!("groups describe {group}"));
    assert_eq!(
        (&told[0]["group"], &told[0]["state"], &told[0]["members"]),
        (&json!(group), &json!("empty"), &json!([]))
    );
    assert_eq!(
        succeed(&mut bed.run(&format!("groups describe {group}")), ""),
        format!("{group}: empty, classic\n")
    );

    // Shown first, then done.
    let moved = |partition: i32, from: Value, to: i64, outcome: &str| json!({"group": group, "topic": topic.as_str(), "partition": partition, "from": from, "to": to, "outcome": outcome});
    let printed =
        bed.ends(&format!("groups reset {group} --to end -J"), 0, &["nothing was changed", "--execute"]);
    assert_eq!(json_lines(&printed), [moved(0, json!(1), 4, "planned")]);
    let args = format!("groups reset {group} -t {topic}:1 --to 2 --execute");
    assert_eq!(bed.json(&args), [moved(1, Value::Null, 2, "reset")]);
    assert_eq!(
        bed.json(&format!("groups reset {group} --shift -1 --execute")),
        [moved(0, json!(1), 0, "reset"), moved(1, json!(2), 1, "reset")]
    );
    assert_eq!(
        bed.json(&format!("groups reset {group} -t {topic} --ago 1h")),
        [moved(0, json!(0), 0, "planned"), moved(1, json!(1), 0, "planned")]
    );
    let text = succeed(&mut bed.run(&format!("groups reset {group} --to @0")), "");
    assert!(text.starts_with("topic ") && text.lines().count() == 3, "{text}");
    let committed: Vec<_> =
        bed.json(&format!("lag -g {group}")).iter().map(|p| p["committed"].clone()).collect();
    assert_eq!(committed, [json!(0), json!(1)]);

    let none = unique("cli-none");
    bed.ends(&format!("groups describe {none}"), 3, &[&none, "not there"]);
    bed.ends(&format!("groups reset {none} --to end"), 3, &[&none, "committed nothing"]);
    bed.ends(&format!("groups reset {group} -t {none} --to end"), 3, &[&none]);
    for args in [
        "groups reset g",
        "groups reset g --to soon",
        "groups reset g --to 1 --shift 1",
        "groups reset g -t a/b --to 1",
    ] {
        bed.ends(args, 2, &[]);
    }
    let printed = bed.ends(&format!("groups delete {none} {group} -J"), 1, &[&none]);
    let lines = json_lines(&printed);
    assert_eq!((&lines[0]["outcome"], &lines[1]["outcome"]), (&json!("failed"), &json!("deleted")));
    assert_eq!((&lines[2]["done"], &lines[2]["failed"]), (&json!(1), &json!(1)));
    assert_eq!(
        succeed(&mut bed.run(&format!("groups delete {group} --if-exists")), ""),
        format!("absent {group}\n")
    );
    assert!(!wanted("empty"));
}

#[test]
fn a_groups_life_on_the_embedded_broker() {
    groups(&Bed::embedded());
}

#[test]
fn a_groups_life_on_a_real_broker() {
    groups(&Bed::real());
}
