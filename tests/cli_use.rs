//! The command line, used wrongly or against nobody: no broker is needed.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test reads clocks, sleeps, and fails by a panic; `common` is not a library"
)]

mod common;

use std::process::{Command, Output};
use std::time::Duration;

fn muslin(args: &str) -> Command {
    let mut command = common::muslin_alone();
    command.args(args.split(' '));
    command
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = common::run_within(command, "", Duration::from_secs(20));
    assert!(stdout.is_empty(), "{command:?} printed data: {}", String::from_utf8_lossy(&stdout));
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[track_caller]
fn fails(args: &str, status: i32, says: &[&str]) {
    let (code, text) = run(&mut muslin(args));
    assert_eq!(code, Some(status), "{args}: {text}");
    for part in says {
        assert!(text.contains(part), "{args}: {part:?} is not in: {text}");
    }
}

#[test]
fn wrong_use_ends_with_status_2_and_says_what_was_expected() {
    fails("consume -t t", 2, &["no Kafka broker is named", "--kafka", "MUSLIN_KAFKA"]);
    fails("get -q q", 2, &["no RabbitMQ is named", "--amqp", "MUSLIN_AMQP"]);
    fails("produce -t a/b --kafka h:1", 2, &["a/b", "'/'"]);
    fails("consume -t t --kafka h:1 -o stored", 2, &["-o stored", "-g GROUP"]);
    fails("event publish t --kafka h:1 --data {", 2, &["--data", "is no JSON"]);
    fails("work -q q --exec true --store postgres://h/", 2, &["postgres store is not in this build"]);
    fails("consume", 2, &["--topic"]);
}

#[test]
fn a_settings_file_is_checked_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kafka.properties");
    let file = path.to_str().unwrap();
    for (text, says) in [
        (
            "acks=all\nbootstrap.server=h:1\n",
            &["line 2", "bootstrap.server`", "nearest known one is `bootstrap.servers`"],
        ),
        ("linger.ms\n", &["line 1", "`linger.ms` has no value", "name=value"]),
        ("# c\n\nlinger.ms=soon\n", &["line 3", "`soon`", "milliseconds"]),
        ("security.protocol=SASL_SSL\n", &["line 1", "not in this build", "plaintext"]),
    ] {
        std::fs::write(&path, text).unwrap();
        fails(&format!("consume -t t -F {file}"), 2, says);
    }
    std::fs::write(&path, b"client.id=\xe9\n").unwrap();
    fails(&format!("consume -t t -F {file}"), 2, &["line 1 is not UTF-8"]);
    fails("consume -t t -F /nowhere/at.all", 2, &["/nowhere/at.all", "cannot be read"]);
    fails("consume -t t -X lingr.ms=5", 2, &["-X", "`linger.ms`"]);
}

#[test]
fn settings_without_a_meaning_here_are_named_and_do_not_stop_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    std::fs::write(&path, "bootstrap.servers=127.0.0.1:1\nkey.serializer=x\nsasl.password=hush\n").unwrap();
    let says =
        ["warning: ", "`key.serializer` has no meaning here", "`sasl.password` is ignored", "127.0.0.1:1"];
    let args = format!("consume -t t -F {}", path.display());
    fails(&args, 3, &says);
    assert!(!run(&mut muslin(&args)).1.contains("hush"));
}

#[test]
fn what_cannot_be_reached_ends_with_status_3_soon() {
    fails("consume -t t --kafka 127.0.0.1:1", 3, &["127.0.0.1:1"]);
    fails("get -q q --amqp amqp://127.0.0.1:1/", 3, &["127.0.0.1:1"]);
    // A file named by hand goes before what the shell happens to have set.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    std::fs::write(&path, "bootstrap.servers=127.0.0.1:2\n").unwrap();
    let mut command = muslin(&format!("consume -t t -F {}", path.display()));
    let (code, text) = run(command.env("MUSLIN_KAFKA", "127.0.0.1:1"));
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("127.0.0.1:2"), "{text}");
}

#[test]
fn a_password_is_never_shown() {
    for args in [
        "get -q q --amqp amqp://u:hush@127.0.0.1:1/",
        "get -q q --amqp amqp://u:hu%zzsh@127.0.0.1:1/",
        "get -q q amqp://u:hush@127.0.0.1:1/",
        "get -q q -X amqp.url=http://u:hush@127.0.0.1:1/ -vvv",
    ] {
        let (code, text) = run(&mut muslin(args));
        assert!(matches!(code, Some(2 | 3)), "{args}: {text}");
        assert!(!text.contains("hush") && !text.contains("hu%zzsh"), "{args}: {text}");
    }
    let mut help = muslin("get --help");
    let out = common::run_within(help.env("MUSLIN_AMQP", "amqp://u:hush@h/"), "", Duration::from_secs(20));
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && text.contains("MUSLIN_AMQP") && !text.contains("hush"), "{text}");
}

#[test]
fn every_command_has_a_help_with_examples() {
    for command in [
        "",
        "produce ",
        "consume ",
        "event publish ",
        "event handle ",
        "publish ",
        "get ",
        "enqueue ",
        "work ",
    ] {
        let args = format!("{command}--help");
        let out = common::run_within(&mut muslin(&args), "", Duration::from_secs(20));
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{args}");
        assert!(text.contains("Examples:"), "{args}: {text}");
    }
}
