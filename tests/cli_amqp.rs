//! `publish`, `get`, `enqueue` and `work` against a real broker.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test reads clocks, sleeps, and fails by a panic; `common` is not a library"
)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{json_lines, muslin, run_within, succeed, unique};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

fn with(args: &str) -> Command {
    let mut command = muslin();
    command.args(args.split(' '));
    command
}

/// A worker on `queue` that runs `exec`.
fn work(queue: &str, exec: &str, more: &[&str]) -> Child {
    let mut command = muslin();
    command.args(["work", "-q", queue, "--exec", exec, "-J"]).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Lets it drain, and returns its summary and what else it said.
fn drain(child: Child) -> (serde_json::Value, String) {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{errors}");
    (json_lines(&String::from_utf8(output.stdout).unwrap()).pop().unwrap(), errors)
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn lines_become_messages_and_get_takes_them() {
    let queue = unique("cli-q");
    let summary = succeed(&mut with(&format!("publish -q {queue} -H lang=en -J")), "one\n\nthree");
    assert_eq!(json_lines(&summary)[0]["sent"], 3);
    // Looking leaves them.
    let seen = json_lines(&succeed(&mut with(&format!("get -q {queue} --no-ack -J")), ""));
    assert_eq!(seen.len(), 3);
    let first = &seen[0];
    assert_eq!(
        (&first["body"], &first["queue"], &first["delivery_mode"]),
        (&json!("one"), &json!(queue), &json!(2))
    );
    assert_eq!((&first["headers"], &first["exchange"]), (&json!({"lang": "en"}), &json!("")));
    assert_eq!(succeed(&mut with(&format!("get -q {queue} -c 1")), ""), "one\n");
    assert_eq!(succeed(&mut with(&format!("get -q {queue} -e")), ""), "\nthree\n");
    assert_eq!(succeed(&mut with(&format!("get -q {queue} -e")), ""), "");
}

#[test]
fn what_no_queue_takes_fails_only_if_it_must_not() {
    let key = unique("nowhere");
    let output =
        run_within(&mut with(&format!("publish -x amq.direct -r {key} --mandatory -J")), "a\nb\n", LIMIT);
    assert_eq!(output.status.code(), Some(1));
    let summary = json_lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!((&summary[0]["sent"], &summary[0]["failed"]), (&json!(0), &json!(2)));
    assert!(String::from_utf8(output.stderr).unwrap().contains(&key));
    succeed(&mut with(&format!("publish -x amq.direct -r {key}")), "a\n");
    let output = run_within(&mut with(&format!("get -q {key} -e")), "", LIMIT);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains(&key));
}

#[test]
fn tasks_are_worked_retried_dead_lettered_and_known_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let (queue, dead) = (unique("cli-work"), unique("cli-dead"));
    succeed(&mut with(&format!("enqueue -q {queue} email.send --id twice --data {{\"n\":1}}")), "");
    succeed(&mut with(&format!("enqueue -q {queue} email.send --id twice --data {{\"n\":1}}")), "");
    let ids = succeed(&mut with(&format!("enqueue -q {queue} email.bad -")), "{\"n\":2}\n{\"n\":3}\n");
    assert_eq!(ids.lines().count(), 2);
    succeed(&mut with(&format!("publish -q {queue}")), "not a task\n");
    succeed(&mut with(&format!("enqueue -q {queue} email.late --delay 1s --data {{\"n\":4}}")), "");

    let exec = format!(
        r#"body=$(cat); echo "$MUSLIN_TYPE $MUSLIN_QUEUE $MUSLIN_ATTEMPT $body" >> {}
        case "$MUSLIN_TYPE" in email.bad) exit 65;; email.late) test "$MUSLIN_ATTEMPT" = 2;; esac"#,
        log.display()
    );
    let store = format!("redb:{}", dir.path().join("keys").display());
    let child = work(&queue, &exec, &["--dead-letter", &dead, "--store", &store]);
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    until("the late task", || lines().contains(&format!("email.late {queue} 2 ")));
    let (summary, errors) = drain(child);
    let counts =
        ["handled", "duplicates", "dead_lettered", "retried"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(counts, [2, 1, 3, 1], "{summary} {errors} {}", lines());
    assert_eq!(lines().matches("email.send").count(), 2, "once in the body, once as the type: {}", lines());
    let letters = json_lines(&succeed(&mut with(&format!("get -q {dead} -e -J")), ""));
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().any(|l| l["body"] == "not a task"), "{letters:?}");
}

#[test]
fn an_id_given_by_hand_names_one_task() {
    let queue = unique("cli-id");
    let output = run_within(&mut with(&format!("enqueue -q {queue} t --id mine - -J")), "1\n2\n", LIMIT);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("line 2: --id names one"), "{errors}");
    let printed = json_lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(printed[0], json!({"id": "mine", "queue": queue}));
    assert_eq!((&printed[1]["sent"], &printed[1]["failed"]), (&json!(1), &json!(1)));
    let left = json_lines(&succeed(&mut with(&format!("get -q {queue} -e -J")), ""));
    assert_eq!((left.len(), &left[0]["message_id"]), (1, &json!("mine")));
}

#[test]
fn a_command_whose_time_is_up_is_killed_and_its_task_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let queue = unique("cli-slow");
    succeed(&mut with(&format!("enqueue -q {queue} slow --data {{}}")), "");
    let exec = format!(
        r#"echo "begun $MUSLIN_ATTEMPT" >> {0}; test "$MUSLIN_ATTEMPT" = 2 || (sleep 2; echo lived >> {0})"#,
        log.display()
    );
    let child = work(&queue, &exec, &["--timeout", "500ms"]);
    until("the second try", || std::fs::read_to_string(&log).unwrap_or_default().contains("begun 2"));
    std::thread::sleep(Duration::from_millis(2500));
    let (summary, errors) = drain(child);
    assert_eq!(summary["handled"], 1, "{errors}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "begun 1\nbegun 2\n");
}
