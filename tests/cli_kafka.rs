//! `produce`, `consume`, `event publish` and `event handle` against a real broker.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test reads clocks, sleeps, and fails by a panic; `common` is not a library"
)]

mod common;

use std::io::{BufRead, BufReader, Read};
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

fn start(args: &[&str]) -> Child {
    let mut command = muslin();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until `done`, at most [`LIMIT`].
#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The end of a child: its status and the rest of its stdout and stderr.
fn end(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_consume_prints_as_json_produce_reads_with_every_codec() {
    let records = [
        json!({"key": "k", "value": "v", "headers": [["a", "1"], ["a", null], ["b", {"base64": "/w=="}]]}),
        json!({"key": null, "value": null, "headers": []}),
        json!({"key_base64": "/wA=", "value_base64": "gIE=", "headers": [], "timestamp": 1_700_000_000_000_i64}),
        json!({"key": "", "value": "ü\n\"", "headers": [["", ""]], "partition": 0}),
    ];
    let input: String = records.iter().map(|r| format!("{r}\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let (first, second) = (unique("cli-a"), unique("cli-b"));
        let summary = json_lines(&succeed(&mut with(&format!("produce -t {first} -J -z {codec}")), &input));
        assert_eq!(summary[0]["sent"], 4, "{codec}: {summary:?}");
        let printed = succeed(&mut with(&format!("consume -t {first} -e -J")), "");
        succeed(&mut with(&format!("produce -t {second} -J -z {codec}")), &printed);
        let again = succeed(&mut with(&format!("consume -t {second} -e -J")), "");
        assert_eq!(again, printed.replace(&first, &second), "{codec}");
        let got = json_lines(&printed);
        assert_eq!(got.len(), records.len(), "{codec}: {printed}");
        for (got, sent) in got.iter().zip(&records) {
            for (name, value) in sent.as_object().unwrap() {
                assert_eq!(&got[name], value, "{codec}: {name} of {got}");
            }
        }
    }
}

#[test]
fn lines_become_records_and_formats_print_them() {
    let topic = unique("cli-text");
    succeed(&mut with(&format!("produce -t {topic} -K :: -H h=1 -p 0")), "k1::v1\nno key\n\nk::a::b");
    let printed = succeed(&mut with(&format!("consume -t {topic} -e -f %o|%k|%s|%K|%S|%h\\n")), "");
    assert_eq!(printed, "0|k1|v1|2|2|h=1\n1||no key|-1|6|h=1\n2|||-1|0|h=1\n3|k|a::b|1|4|h=1\n");
    assert_eq!(succeed(&mut with(&format!("consume -t {topic} -e -o 3")), ""), "a::b\n");
    assert_eq!(succeed(&mut with(&format!("consume -t {topic} -c 1 -o 1")), ""), "no key\n");
    assert_eq!(succeed(&mut with(&format!("consume -t {topic} -e -o end")), ""), "");
}

#[test]
fn a_transaction_of_lines_counts_whole_or_not_at_all() {
    let (topic, id) = (unique("cli-transaction"), unique("id"));
    let produce = format!("produce -t {topic} -p 0 -J --transactional-id {id}");
    succeed(&mut with(&produce), "{\"value\":\"one\"}\n{\"value\":\"two\"}\n");
    let output = run_within(&mut with(&produce), "{\"value\":\"three\"}\nno json\n", LIMIT);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("line 2: ") && errors.contains("none of its records counts"), "{errors}");
    succeed(&mut with(&produce), "{\"value\":\"four\"}\n");
    assert_eq!(succeed(&mut with(&format!("consume -t {topic} -e")), ""), "one\ntwo\nfour\n");
}

#[test]
fn a_line_that_cannot_be_sent_is_counted_and_the_rest_goes_on() {
    let topic = unique("cli-bad");
    let large = format!("{{\"value\":\"{}\"}}", "x".repeat(2 << 20));
    let input =
        format!("{{\"value\":\"one\"}}\nno json\n{large}\n{{\"vlaue\":\"slip\"}}\n{{\"value\":\"two\"}}\n");
    let output = run_within(&mut with(&format!("produce -t {topic} -J")), &input, LIMIT);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for part in ["line 2: is no JSON record", "line 3: ", "line 4: ", "`vlaue`"] {
        assert!(errors.contains(part), "{part:?} is not in {errors}");
    }
    let summary = json_lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(
        (&summary[0]["sent"], &summary[0]["failed"], &summary[0]["ambiguous"]),
        (&json!(2), &json!(3), &json!(0))
    );
    assert_eq!(succeed(&mut with(&format!("consume -t {topic} -e")), ""), "one\ntwo\n");
}

#[test]
fn a_group_gets_each_record_printed_once() {
    let (topic, group) = (unique("cli-group"), unique("g"));
    succeed(&mut with(&format!("produce -t {topic}")), "1\n2\n3\n4\n5\n");
    assert_eq!(succeed(&mut with(&format!("consume -t {topic} -g {group} -c 2")), ""), "1\n2\n");
    assert_eq!(succeed(&mut with(&format!("consume -t {topic} -g {group} -e")), ""), "3\n4\n5\n");
    assert_eq!(succeed(&mut with(&format!("consume -t {topic} -g {group} -e")), ""), "");
}

#[test]
fn a_signal_lets_consume_commit_what_it_printed() {
    let (topic, group) = (unique("cli-signal"), unique("g"));
    succeed(&mut with(&format!("produce -t {topic}")), "1\n2\n");
    for name in ["-INT", "-TERM"] {
        let mut child = start(&["consume", "-t", &topic, "-g", &group]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        if name == "-INT" {
            assert_eq!(lines.next().unwrap().unwrap(), "1");
            assert_eq!(lines.next().unwrap().unwrap(), "2");
        } else {
            std::thread::sleep(Duration::from_millis(500));
        }
        signal(&child, name);
        // Nothing is printed twice.
        assert!(lines.next().is_none());
        let (status, _, errors) = end(child);
        assert_eq!(status, Some(130), "{errors}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_consume_quietly() {
    let topic = unique("cli-pipe");
    let line = "x".repeat(99);
    let input: String = (0..20_000).map(|_| format!("{line}\n")).collect();
    succeed(&mut with(&format!("produce -t {topic}")), &input);
    let mut child = start(&["consume", "-t", &topic]);
    let mut first = [0; 100];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let (status, _, errors) = end(child);
    assert_eq!((status, errors.as_str()), (Some(0), ""));
}

#[test]
fn a_missing_topic_is_named() {
    let topic = unique("cli-none");
    let output = run_within(&mut with(&format!("consume -t {topic} -e")), "", LIMIT);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains(&topic));
}

#[test]
fn events_are_handled_in_order_retried_and_dead_lettered() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let (kind, group, dead) = (unique("cli.ev"), unique("g"), unique("cli-dead"));
    let data: String = (0..5).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let ids = succeed(&mut with(&format!("event publish {kind} --key order-1 -")), &data);
    assert_eq!(ids.lines().count(), 5);
    let given = succeed(
        &mut with(&format!("event publish {kind} --key order-2 --id my-id --data {{\"n\":9}} -J")),
        "",
    );
    assert_eq!(json_lines(&given)[0]["event_id"], "my-id");

    // 3 never works, 1 works the second time.
    let exec = format!(
        r#"body=$(cat); n=${{body##*\"n\":}}; n=${{n%%\}}*}}; echo "$MUSLIN_KEY $n $MUSLIN_ATTEMPT $MUSLIN_TYPE" >> {}
        if [ "$n" = 3 ]; then echo "no such order" >&2; exit 65; fi
        if [ "$n" = 1 ] && [ "$MUSLIN_ATTEMPT" = 1 ]; then exit 1; fi"#,
        log.display()
    );
    let child = start(&[
        "event",
        "handle",
        &kind,
        "-g",
        &group,
        "--exec",
        &exec,
        "--dead-letter",
        &dead,
        "--concurrency",
        "8",
        "-J",
    ]);
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    until("the last event", || lines().contains("order-1 4 ") && lines().contains("order-2 9 "));
    signal(&child, "-TERM");
    let (status, summary, errors) = end(child);
    assert_eq!(status, Some(130), "{errors}");
    let summary = json_lines(&summary);
    assert_eq!((&summary[0]["handled"], &summary[0]["dead_lettered"]), (&json!(5), &json!(1)), "{errors}");
    let text = lines();
    let first: Vec<&str> = text.lines().filter(|l| l.starts_with("order-1")).collect();
    let wanted = ["order-1 0 1", "order-1 1 1", "order-1 1 2", "order-1 2 1", "order-1 3 1", "order-1 4 1"];
    assert_eq!(first, wanted.map(|l| format!("{l} {kind}")), "{errors}");

    let letters = json_lines(&succeed(&mut with(&format!("consume -t {dead} -e -J")), ""));
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["key"], "order-1");
    assert!(letters[0]["headers"].to_string().contains("no such order"), "{}", letters[0]);
    assert!(letters[0]["headers"].to_string().contains(&format!("events.{kind}")), "{}", letters[0]);
}

#[test]
fn a_second_signal_stops_at_once_and_kills_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (begun, alive) = (dir.path().join("begun"), dir.path().join("alive"));
    let (kind, group) = (unique("cli.ev"), unique("g"));
    succeed(&mut with(&format!("event publish {kind} --data {{}}")), "");
    let exec = format!("touch {}; (sleep 3; touch {}) & wait", begun.display(), alive.display());
    let child = start(&["event", "handle", &kind, "-g", &group, "--exec", &exec]);
    until("the command", || begun.exists());
    signal(&child, "-INT");
    std::thread::sleep(Duration::from_millis(300));
    let asked = Instant::now();
    signal(&child, "-INT");
    let (status, _, errors) = end(child);
    assert_eq!(status, Some(130), "{errors}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    std::thread::sleep(Duration::from_millis(3500));
    assert!(!alive.exists(), "the command lived on");
}
