//! `muslin demo` on real brokers, smaller than by default.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn the_demo_proves_its_counts_and_leaves_nothing_behind() {
    let mut command = common::muslin();
    command.args(["demo", "-J", "--events", "600", "--aggregates", "20", "--workers", "3"]);
    let output = common::run_within(&mut command, "", LIMIT);
    let said = String::from_utf8_lossy(&output.stderr);
    let line = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{said}{line}");
    let proof: Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(proof["ok"], true);
    let count = |name: &str| {
        let all = proof["counts"].as_array().unwrap();
        let one = all.iter().find(|c| c["name"] == name).unwrap();
        assert!(!one["from"].as_str().unwrap().is_empty(), "{name} says where it was read");
        one["count"].as_u64().unwrap()
    };
    assert_eq!((count("published"), count("handled"), count("dead_lettered")), (600, 599, 1));
    assert_eq!((count("tasks_done"), count("effects_once"), count("tasks_left")), (599, 599, 0));
    assert!(said.contains("SIGKILL") && said.contains("poisoned"), "it says what it does: {said}");

    // Its topics and queues are gone.
    let topic = format!("events.muslin-demo-{}.ordered", proof["demo"].as_str().unwrap());
    let mut consume = common::muslin();
    consume.args(["consume", "-e", "-t", &topic]);
    let output = common::run_within(&mut consume, "", LIMIT);
    assert_eq!(output.status.code(), Some(3), "{topic} is still there");
}

#[test]
fn a_demo_without_brokers_says_so() {
    let mut command = common::muslin();
    command.args(["demo", "--kafka", "127.0.0.1:1"]);
    let output = common::run_within(&mut command, "", LIMIT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("127.0.0.1:1"), "{said}");
}
