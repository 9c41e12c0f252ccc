//! `topics` on the embedded broker and on a real one: what is printed for a person and for a program, and how it ends.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test reads clocks, sleeps, and fails by a panic; `common` is not a library"
)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{json_lines, muslin_alone, run_within, succeed, unique};
use muslin::embedded::Kafka;
use muslin::embedded::faults::{Action, Faults, Rule};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// An embedded broker on threads of its own.
struct Hosted {
    kafka: Kafka,
    _runtime: tokio::runtime::Runtime,
}

impl Hosted {
    fn start(faults: Faults) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let kafka = runtime.block_on(Kafka::builder().faults(faults).start()).unwrap();
        Self { kafka, _runtime: runtime }
    }
}

fn at(bootstrap: &str, args: &str) -> Command {
    let mut command = muslin_alone();
    command.args(["--kafka", bootstrap]).args(args.split(' '));
    command
}

/// The objects that it prints; it ends well.
fn json(bootstrap: &str, args: &str) -> Vec<Value> {
    json_lines(&succeed(&mut at(bootstrap, &format!("{args} -J")), ""))
}

/// It ends with this status and these words on stderr; gives what it printed.
#[track_caller]
fn ends(bootstrap: &str, args: &str, status: i32, words: &[&str]) -> String {
    let output = run_within(&mut at(bootstrap, args), "", LIMIT);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{args}: {errors}");
    for word in words {
        assert!(errors.contains(word), "{args}: {word:?} is not in: {errors}");
    }
    String::from_utf8(output.stdout).unwrap()
}

/// A topic's life.
fn story(bootstrap: &str) {
    let (a, b) = (unique("topics-a"), unique("topics-b"));
    assert_eq!(
        succeed(&mut at(bootstrap, &format!("topics create {a} --partitions 3 --check")), ""),
        format!("valid {a}\n")
    );
    ends(bootstrap, &format!("topics describe {a}"), 3, &[&a, "not there"]);

    let made = json(
        bootstrap,
        &format!("topics create {a} {b} --partitions 2 --replication 1 --config retention.ms=7654321"),
    );
    assert_eq!(made.len(), 3, "{made:?}");
    assert_eq!(made[0], json!({"topic": a, "outcome": "created", "partitions": 2, "replication": 1}));
    assert_eq!(
        (&made[2]["done"], &made[2]["failed"], &made[2]["ambiguous"]),
        (&json!(2), &json!(0), &json!(0))
    );

    let listed = json(bootstrap, "topics list");
    let wanted = json!({"topic": b, "partitions": 2, "replication": 1, "internal": false});
    assert!(listed.contains(&wanted), "{listed:?}");
    assert!(listed.iter().all(|t| t["internal"] == false));
    let text = succeed(&mut at(bootstrap, "topics list"), "");
    assert!(text.starts_with("topic ") && text.lines().any(|l| l.starts_with(&a)), "{text}");

    let told = json(bootstrap, &format!("topics describe {a}"));
    let partition = &told[0]["partitions"][1];
    assert_eq!((&told[0]["topic"], &partition["partition"]), (&json!(a), &json!(1)));
    assert_eq!(partition["replicas"], json!([partition["leader"]]));
    assert_eq!(partition["in_sync"], partition["replicas"]);
    let own = json!({"name": "retention.ms", "value": "7654321", "source": "topic"});
    assert!(told[0]["configs"].as_array().unwrap().contains(&own), "{}", told[0]);
    assert!(!told[0]["configs"].to_string().contains("delete.retention.ms"), "{}", told[0]);
    assert!(
        json(bootstrap, &format!("topics describe {a} --all"))[0]["configs"]
            .to_string()
            .contains("delete.retention.ms")
    );
    let text = succeed(&mut at(bootstrap, &format!("topics describe {a}")), "");
    assert!(
        text.contains("partition  leader  replicas  in sync") && text.contains("  retention.ms=7654321\n"),
        "{text}"
    );

    let args =
        format!("topics alter {a} --partitions 5 --config max.message.bytes=54321 --reset retention.ms");
    assert_eq!(succeed(&mut at(bootstrap, &args), ""), format!("altered {a}\n"));
    let told = json(bootstrap, &format!("topics describe {a}"));
    assert_eq!(told[0]["partitions"].as_array().unwrap().len(), 5);
    let configs = told[0]["configs"].to_string();
    assert!(configs.contains("54321") && !configs.contains("7654321"), "{configs}");

    assert_eq!(
        succeed(&mut at(bootstrap, &format!("topics delete {a} {b}")), ""),
        format!("deleted {a}\ndeleted {b}\n")
    );
    assert_eq!(
        succeed(&mut at(bootstrap, &format!("topics delete {a} --if-exists")), ""),
        format!("absent {a}\n")
    );
}

/// What goes wrong, by status and words.
fn mishaps(bootstrap: &str) {
    let (there, none) = (unique("topics-there"), unique("topics-none"));
    succeed(&mut at(bootstrap, &format!("topics create {there} --partitions 2")), "");
    succeed(&mut at(bootstrap, &format!("topics create {there} --if-not-exists")), "");
    for (args, status, words) in [
        (format!("topics create {there}"), 3, [there.as_str(), "nothing was created"]),
        (format!("topics create {none} --replication 99"), 2, ["99 replicas", "nothing was created"]),
        (
            format!("topics create {none} --config retention.hours=1"),
            2,
            ["retention.hours", "nothing was created"],
        ),
        ("topics create a/b".to_owned(), 2, ["a/b", "'/'"]),
        (format!("topics alter {there} --partitions 1"), 2, [there.as_str(), "no partition was added"]),
        (
            format!("topics alter {there} --config retention.ms=soon"),
            2,
            ["retention.ms", "no setting was changed"],
        ),
        (format!("topics alter {none} --partitions 3"), 3, [none.as_str(), "no partition was added"]),
        (format!("topics delete {none}"), 3, [none.as_str(), "nothing was deleted"]),
    ] {
        assert_eq!(ends(bootstrap, &args, status, &words), "", "{args}");
    }
    let args = format!("topics alter {there} --partitions 1 --config retention.ms=1234567");
    ends(bootstrap, &args, 2, &["its settings were changed", "no partition was added"]);
    // Some of it done, some not.
    let printed = ends(bootstrap, &format!("topics delete {none} {there} -J"), 1, &[&none]);
    let lines = json_lines(&printed);
    assert_eq!((&lines[0]["outcome"], &lines[1]["outcome"]), (&json!("failed"), &json!("deleted")));
    assert!(lines[0]["error"].as_str().unwrap().contains("nothing was deleted"), "{printed}");
    assert_eq!((&lines[2]["done"], &lines[2]["failed"]), (&json!(1), &json!(1)));
}

#[test]
fn a_topics_life_on_the_embedded_broker() {
    story(&Hosted::start(Faults::new(1)).kafka.bootstrap());
}

#[test]
fn a_topics_life_on_a_real_broker() {
    story(&common::kafka());
}

#[test]
fn what_goes_wrong_on_the_embedded_broker_is_told() {
    mishaps(&Hosted::start(Faults::new(1)).kafka.bootstrap());
}

#[test]
fn what_goes_wrong_on_a_real_broker_is_told() {
    mishaps(&common::kafka());
}

#[test]
fn what_is_not_allowed_ends_with_status_3_and_what_may_be_seen_is_shown() {
    let denied = |request| Rule::new(request, Action::Error(29)).unwrap();
    let faults =
        Faults::new(1).with(denied("DeleteTopics")).unwrap().with(denied("DescribeConfigs")).unwrap();
    let hosted = Hosted::start(faults);
    let (bootstrap, topic) = (hosted.kafka.bootstrap(), unique("topics-denied"));
    succeed(&mut at(&bootstrap, &format!("topics create {topic} --partitions 1")), "");
    ends(
        &bootstrap,
        &format!("topics delete {topic}"),
        3,
        &[&topic, "Delete on the topic", "nothing was deleted"],
    );
    let printed =
        ends(&bootstrap, &format!("topics describe {topic} -J"), 0, &["warning", "DescribeConfigs"]);
    let told = &json_lines(&printed)[0];
    assert_eq!((&told["partitions"][0]["partition"], &told["configs"]), (&json!(0), &Value::Null));
}

#[test]
fn what_may_have_been_done_is_told_as_ambiguous() {
    let faults = Faults::new(1).with(Rule::new("CreateTopics", Action::DropRequest).unwrap()).unwrap();
    let hosted = Hosted::start(faults);
    let topic = unique("topics-unknown");
    let args = format!("topics create {topic} -X request.timeout.ms=1000 -J");
    let printed =
        ends(&hosted.kafka.bootstrap(), &args, 3, &[&topic, "not known whether the topic was created"]);
    let lines = json_lines(&printed);
    assert_eq!((&lines[0]["outcome"], &lines[1]["ambiguous"]), (&json!("ambiguous"), &json!(1)));
}
