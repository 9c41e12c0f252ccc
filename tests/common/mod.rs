//! What the tests against real brokers share: where the brokers are, unique names, child programs with a deadline.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks and draw names")]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The Kafka bootstrap address to test against.
pub fn kafka() -> String {
    broker("MUSLIN_KAFKA")
}

/// The same Kafka's listener that asks for a login over SASL_PLAINTEXT; `alice` with `alice-secret` is known there.
pub fn kafka_sasl() -> String {
    broker("MUSLIN_KAFKA_SASL")
}

/// The AMQP URL to test against.
pub fn amqp() -> String {
    broker("MUSLIN_AMQP")
}

fn broker(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!(
            "{name} is not set: this test needs a real broker; run ./scripts/test.sh test, or scripts/with-brokers.sh cargo test"
        ),
    }
}

/// `prefix` with something unique behind it: tests run at once, on brokers that live on.
pub fn unique(prefix: &str) -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}-{}", &id[..12])
}

/// The binary under test.
pub fn muslin() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muslin"));
    command.env("MUSLIN_KAFKA", kafka()).env("MUSLIN_AMQP", amqp());
    command
}

/// The binary without any setting from outside: no broker is named.
pub fn muslin_alone() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muslin"));
    command.env_remove("MUSLIN_KAFKA").env_remove("MUSLIN_AMQP");
    command
}

/// A Python program of `tests/python`, in the environment that holds aiokafka and aio-pika.
pub fn python(script: &str) -> Command {
    let interpreter = std::env::var("MUSLIN_PYTHON").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/muslin/python/bin/python")
    });
    assert!(
        PathBuf::from(&interpreter).exists(),
        "{interpreter} is not there: it holds the Python clients; run scripts/setup.sh test or set MUSLIN_PYTHON"
    );
    let mut command = Command::new(interpreter);
    command
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script))
        .env("MUSLIN_KAFKA", kafka())
        .env("MUSLIN_AMQP", amqp());
    command
}

/// What `scripts/brokers.sh` prints.
pub fn brokers_sh(args: &[&str]) -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/brokers.sh");
    let out = Command::new(script).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "brokers.sh {args:?} ended with {}: {said}", out.status);
    String::from_utf8(out.stdout).unwrap()
}

/// What Java's console consumer prints of a topic's first `count` records.
pub fn console_consumer(
    bootstrap: &str,
    topic: &str,
    count: usize,
    args: &[&str],
    limit: Duration,
) -> String {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/brokers.sh"));
    command.args(["kafka", "org.apache.kafka.tools.consumer.ConsoleConsumer", "--from-beginning"]);
    command.args(["--bootstrap-server", bootstrap, "--topic", topic, "--timeout-ms", "30000"]);
    command.args(["--max-messages", &count.to_string()]).args(args);
    let out = run_within(&mut command, "", limit);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Runs `command` with `input` on its standard input and waits for it, at most `limit`; then it is killed and the test fails.
pub fn run_within(command: &mut Command, input: &str, limit: Duration) -> Output {
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {what}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let mut out = child.stdout.take().unwrap();
    let mut err = child.stderr.take().unwrap();
    let out = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).map(|_| bytes)
    });
    let err = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).map(|_| bytes)
    });
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            let stderr = String::from_utf8_lossy(&err.join().unwrap().unwrap()).into_owned();
            panic!("{what} did not end within {limit:?}; it said: {stderr}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    // A program that ends early closes its input: not this test's business.
    let _ = writer.join().unwrap();
    Output { status, stdout: out.join().unwrap().unwrap(), stderr: err.join().unwrap().unwrap() }
}

/// Runs `command` to a good end and returns what it printed.
pub fn succeed(command: &mut Command, input: &str) -> String {
    let output = run_within(command, input, Duration::from_secs(60));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The JSON objects of an output, one a line.
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}
