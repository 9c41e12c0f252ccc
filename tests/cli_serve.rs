//! `muslin serve` and `muslin demo` as their user sees them: nothing else is installed, no broker is named.
#![cfg(feature = "cli")]
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test reads clocks, sleeps, and fails by a panic; `common` is not a library"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn muslin(args: &[&str]) -> Command {
    let mut command = common::muslin_alone();
    command.args(args);
    command
}

/// A `muslin serve` that runs.
struct Serve {
    child: Option<Child>,
    ready_file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Serve {
    fn start(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ready_file = directory.path().join("ready");
        let child = muslin(&["serve", "--ready-file"])
            .arg(&ready_file)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let serve = Self { child: Some(child), ready_file, _directory: directory };
        let end = Instant::now() + LIMIT;
        while !serve.ready_file.exists() {
            assert!(Instant::now() < end, "there is no ready file");
            std::thread::sleep(Duration::from_millis(2));
        }
        serve
    }

    /// The exported variables of the ready file, as a shell reads them.
    fn variables(&self) -> [(String, String); 2] {
        let script =
            format!(". {} && printf '%s\\n' \"$MUSLIN_KAFKA\" \"$MUSLIN_AMQP\"", self.ready_file.display());
        let shell = Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
        let text = String::from_utf8(shell.stdout).unwrap();
        let mut lines = text.lines();
        ["MUSLIN_KAFKA", "MUSLIN_AMQP"].map(|name| (name.to_owned(), lines.next().unwrap().to_owned()))
    }

    fn signal(&mut self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn end(mut self, name: &str) -> (Output, PathBuf) {
        self.signal(name);
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        (output, self.ready_file.clone())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_command_line_works_on_what_serve_serves() {
    let serve = Serve::start(&["--brokers", "3", "--topic", "orders:4", "--queue", "mail"]);
    let variables = serve.variables();
    let run = |args: &[&str], input: &str| {
        common::succeed(muslin(args).envs(variables.iter().map(|(name, value)| (name, value))), input)
    };
    assert_eq!(variables[0].1.split(',').count(), 3, "three brokers: {variables:?}");

    let lines: String = (0..1000).map(|n| format!("k{}:{n}\n", n % 10)).collect();
    run(&["produce", "-t", "orders", "-K", ":", "-z", "zstd"], &lines);
    let read = run(&["consume", "-t", "orders", "-o", "beginning", "-e", "-J"], "");
    let records = common::json_lines(&read);
    assert_eq!(records.len(), 1000);
    let partitions: std::collections::BTreeSet<_> =
        records.iter().map(|r| r["partition"].as_i64().unwrap()).collect();
    assert!(partitions.len() > 1 && partitions.iter().all(|p| (0..4).contains(p)), "{partitions:?}");
    for key in 0..10 {
        let key = format!("k{key}");
        let values: Vec<u32> = records
            .iter()
            .filter(|r| r["key"] == key.as_str())
            .map(|r| r["value"].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(values.len() == 100 && values.is_sorted(), "{key} lost its order: {values:?}");
    }

    // A topic that was not named is made, and a group finds its place again.
    run(&["event", "publish", "order.created", "--key", "order-1", "--data", "{\"n\":1}"], "");
    let group = ["consume", "-t", "events.order.created", "-g", "audit", "-o", "stored", "-e"];
    assert_eq!(run(&group, "").lines().count(), 1);
    assert_eq!(run(&group, ""), "");

    run(&["enqueue", "-q", "mail", "email.send", "-"], "{\"to\":\"a\"}\n{\"to\":\"b\"}\n");
    let got = run(&["get", "-q", "mail", "-c", "1", "-J"], "");
    let body: Value = serde_json::from_str(common::json_lines(&got)[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["data"]["to"], "a");
    run(&["publish", "-q", "greetings"], "one\ntwo\n");
    assert_eq!(run(&["get", "-q", "greetings", "-e"], ""), "one\ntwo\n");
    assert_eq!(run(&["get", "-q", "mail", "-e"], "").lines().count(), 1);

    let (output, ready_file) = serve.end("-INT");
    let (said, printed) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(printed.contains(&format!("export MUSLIN_KAFKA={}", variables[0].1)), "{printed}");
    assert!(printed.contains(&format!("export MUSLIN_AMQP={}", variables[1].1)), "{printed}");
    assert!(said.contains("served in") && said.contains("Kafka:") && said.contains("RabbitMQ:"), "{said}");
    assert!(!ready_file.exists(), "the ready file outlives the brokers");
    let first = variables[0].1.split(',').next().unwrap();
    assert!(TcpStream::connect(first).is_err(), "{first} is still served");
}

#[test]
fn a_bench_sends_what_it_says_and_reports_it_as_json() {
    let serve = Serve::start(&["--topic", "load:3"]);
    let variables = serve.variables();
    let run = |args: &[&str]| {
        common::succeed(muslin(args).envs(variables.iter().map(|(name, value)| (name, value))), "")
    };
    let bench = |args: &[&str]| common::json_lines(&run(args)).pop().unwrap();
    let number =
        |report: &Value, name: &str| report[name].as_f64().unwrap_or_else(|| panic!("{name}: {report}"));

    let report = bench(&[
        "bench", "produce", "-J", "--topic", "load", "--count", "20500", "--size", "128", "--codec", "lz4",
    ]);
    for (name, value) in [("peer", "muslin"), ("op", "produce"), ("codec", "lz4")] {
        assert_eq!(report[name], value, "{report}");
    }
    for (name, value) in [("count", 20_500), ("size", 128), ("failed", 0), ("ambiguous", 0)] {
        assert_eq!(report[name], value, "{report}");
    }
    for name in ["wall_s", "max_rss_kb", "msgs_per_s"] {
        assert!(number(&report, name) > 0.0, "{name}: {report}");
    }
    for name in ["cpu_s", "cpu_us_per_msg"] {
        assert!(number(&report, name) >= 0.0, "{name}: {report}");
    }
    assert_eq!(report.get("p50_us"), None);

    let records = common::json_lines(&run(&["consume", "-t", "load", "-o", "beginning", "-e", "-J"]));
    assert_eq!(records.len(), 20_500);
    let keys: std::collections::BTreeSet<_> = records.iter().map(|r| r["key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), 10_000);
    for record in &records {
        let (key, value) = (record["key"].as_str().unwrap(), record["value"].as_str().unwrap());
        assert_eq!(key.len() + value.len(), 128);
    }

    // A topic that is not there is made.
    let report = bench(&["bench", "latency", "-J", "--topic", "singles", "--count", "50"]);
    assert_eq!((&report["op"], &report["count"]), (&"latency".into(), &50.into()), "{report}");
    let waits = ["p50_us", "p99_us", "p999_us"].map(|name| number(&report, name));
    assert!(waits[0] > 0.0 && waits.is_sorted(), "{report}");
    let said = String::from_utf8(
        muslin(&["bench", "latency", "-t", "singles", "-c", "3"])
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap()
            .stderr,
    )
    .unwrap();
    assert!(said.contains("3 records of 100 bytes") && said.contains("p99"), "{said}");
    fails(&["bench", "produce", "-t", "load", "--size", "63"], 2, &["63", "64 to 1000000"]);
    fails(&["bench", "produce", "-t", "load", "--codec", "brotli"], 2, &["brotli", "zstd"]);
    fails(&["bench", "produce", "-t", "load"], 2, &["--kafka"]);
    fails(&["bench", "latency", "-t", "load", "-c", "1", "--kafka", "127.0.0.1:1"], 3, &["127.0.0.1:1"]);
}

#[test]
fn a_program_reads_addresses_and_summary_as_json() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (kafka, amqp) = (free(), free());
    let mut serve = Serve::start(&["-J", "--kafka", &kafka, "--amqp", &amqp]);
    let ready: Value = serde_json::from_slice(&std::fs::read(&serve.ready_file).unwrap()).unwrap();
    assert_eq!(ready["kafka"], format!("127.0.0.1:{kafka}"));
    assert_eq!(ready["amqp"], format!("amqp://guest:guest@127.0.0.1:{amqp}"));
    let mut out = BufReader::new(serve.child.as_mut().unwrap().stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), ready, "stdout says what the file says");
    drop(TcpStream::connect(format!("127.0.0.1:{kafka}")).unwrap());
    common::succeed(
        muslin(&["publish", "-q", "q"]).env("MUSLIN_AMQP", ready["amqp"].as_str().unwrap()),
        "hello\n",
    );
    serve.signal("-TERM");
    let mut summary = String::new();
    out.read_line(&mut summary).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert!(summary["amqp"]["bytes_in"].as_u64().unwrap() > 100, "{summary}");
    assert!(summary["kafka"]["connections"].as_u64().unwrap() <= 1, "{summary}");
    assert_eq!(serve.child.take().unwrap().wait().unwrap().code(), Some(130));
}

#[test]
fn a_user_of_its_own_logs_in_and_its_password_stands_in_the_ready_file_alone() {
    use std::os::unix::fs::PermissionsExt;

    let serve = Serve::start(&["--user", "alice:hush/hush"]);
    let mode = std::fs::metadata(&serve.ready_file).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others can read the password");
    let [_, (name, url)] = serve.variables();
    assert!(url.starts_with("amqp://alice:hush%2Fhush@127.0.0.1:"), "{url}");
    common::succeed(muslin(&["publish", "-q", "q"]).env(&name, &url), "hello\n");
    let wrong = url.replace("hush", "hash");
    let output = common::run_within(muslin(&["get", "-q", "q", "-e"]).env(&name, wrong), "", LIMIT);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let (output, _) = serve.end("-INT");
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(!printed.contains("hush") && printed.contains("alice:***@"), "{printed}");
}

#[test]
fn faults_of_a_file_happen_and_a_bad_file_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("faults.json");
    let file = path.to_str().unwrap();
    // The first produce is done and its answer is lost: the client asks again, and the record is there once.
    std::fs::write(&path, "{\"rules\": [{\"request\": \"Produce\", \"first\": 1, \"do\": \"drop_answer\"}]}")
        .unwrap();
    let serve = Serve::start(&["--topic", "t:1", "--faults", file]);
    let [(name, bootstrap), _] = serve.variables();
    let muslin_on = |args: &[&str]| {
        let mut command = muslin(args);
        command.env(&name, &bootstrap);
        command
    };
    common::succeed(&mut muslin_on(&["produce", "-t", "t"]), "once\n");
    assert_eq!(common::succeed(&mut muslin_on(&["consume", "-t", "t", "-e"]), ""), "once\n");
    let (output, _) = serve.end("-TERM");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 fault"), "it does not say that a fault happened: {said}");

    std::fs::write(&path, "{\"rules\": [{\"request\": \"Produse\", \"do\": \"hold\"}]}").unwrap();
    fails(&["serve", "--faults", file], 2, &["faults.json", "Produse"]);
    fails(&["serve", "--faults", "/nowhere/at.all"], 2, &["/nowhere/at.all", "cannot be read"]);
}

#[track_caller]
fn fails(args: &[&str], status: i32, says: &[&str]) {
    let output = common::run_within(&mut muslin(args), "", LIMIT);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?} printed addresses");
    for part in says {
        assert!(text.contains(part), "{args:?}: {part:?} is not in: {text}");
    }
}

#[test]
fn what_cannot_be_served_is_told_and_leaves_no_ready_file() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    std::fs::write(&ready, "of an earlier run").unwrap();
    let file = ready.to_str().unwrap();
    let address = format!("127.0.0.1:{port}");
    fails(&["serve", "--ready-file", file, "--kafka", &port], 3, &["--kafka", &address, "in use"]);
    assert!(!ready.exists(), "a ready file of an earlier run still says that it serves");
    fails(&["serve", "--ready-file", file, "--amqp", &port], 3, &["--amqp", &address, "in use"]);
    fails(&["serve", "--kafka", "65535", "--brokers", "2"], 2, &["--kafka", "65535"]);
    fails(&["serve", "--topic", "orders"], 2, &["'orders'", "--topic", "NAME:PARTITIONS"]);
    fails(&["serve", "--topic", "orders:0"], 2, &["'orders:0'", "1 or more"]);
    fails(&["serve", "--topic", "a:1", "--topic", "a:2"], 2, &["--topic", "a"]);
    fails(&["serve", "--kafka", "localhost:9092"], 2, &["'localhost:9092'", "a port"]);
    fails(&["serve", "-X", "linger.ms=5"], 2, &["-X", "connects nowhere"]);
    let nowhere = directory.path().join("no/ready");
    fails(&["serve", "--ready-file", nowhere.to_str().unwrap()], 3, &["--ready-file", "no/ready"]);
    assert!(no_files(directory.path()), "something was left behind");
}

fn no_files(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn a_demo_without_any_broker_proves_its_counts_on_embedded_ones() {
    let mut command = muslin(&["demo", "-J", "--events", "600", "--aggregates", "20", "--workers", "3"]);
    let output = common::run_within(&mut command, "", Duration::from_secs(180));
    let said = String::from_utf8_lossy(&output.stderr);
    let line = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{said}{line}");
    let proof: Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(proof["ok"], true);
    for (broker, name) in
        [("kafka", "embedded Kafka at 127.0.0.1:"), ("rabbitmq", "embedded RabbitMQ at 127.0.0.1:")]
    {
        let ran_on = proof["ran_on"][broker].as_str().unwrap();
        assert!(ran_on.starts_with(name), "it does not say what it ran on: {ran_on}");
    }
    assert!(said.contains("SIGKILL"), "no worker was killed: {said}");
}
