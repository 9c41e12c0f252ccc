//! What a user of the command reads when something is wrong: the words, the exit status, the time it takes. 2 is wrong
//! use, 3 is cannot reach or not allowed, 1 is some of the work failed. No password and no panic is ever shown.
#![cfg(feature = "cli")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks and open sockets")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use muslin::ErrorKind;
use muslin::amqp::Value;

const PASSWORD: &str = "s3cret-pw";
/// More than the connect timeouts here, less than the default of 10 s.
const SOON: Duration = Duration::from_secs(8);

/// The binary without what the environment says of brokers.
fn bare(args: &[&str]) -> Command {
    let mut command = common::muslin();
    command.env_remove("MUSLIN_KAFKA").env_remove("MUSLIN_AMQP").args(args);
    command
}

fn end(command: &mut Command, input: &str, limit: Duration) -> (Output, String) {
    let output = common::run_within(command, input, limit);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let shown = format!("{}{stderr}", String::from_utf8_lossy(&output.stdout));
    assert!(!shown.contains(PASSWORD), "the password is shown: {shown}");
    assert!(!shown.contains("panicked"), "{shown}");
    (output, stderr)
}

/// Runs the command to its end with this status and these words on stderr.
#[track_caller]
fn ends(command: &mut Command, input: &str, status: i32, words: &[&str]) -> Output {
    ends_within(command, input, status, words, SOON)
}

#[track_caller]
fn ends_within(command: &mut Command, input: &str, status: i32, words: &[&str], limit: Duration) -> Output {
    let (output, stderr) = end(command, input, limit);
    assert_eq!(output.status.code(), Some(status), "{command:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in what {command:?} said: {stderr}");
    }
    output
}

/// A server that reads what comes first, answers, and closes the connection or stays silent.
fn server(answer: &'static [u8], close: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut silent: Vec<TcpStream> = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            if !answer.is_empty() || close {
                let mut first = [0; 512];
                let _ = stream.read(&mut first);
                let _ = stream.write_all(answer);
            }
            if !close {
                silent.push(stream);
            }
        }
    });
    address
}

fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Produces to what answers at `address`.
fn produce(address: &str) -> Command {
    bare(&["--kafka", address, "produce", "-t", "any"])
}

/// Publishes to what answers at `address`.
fn publish(address: &str) -> Command {
    bare(&["--amqp", &format!("amqp://bob:{PASSWORD}@{address}/"), "publish", "-q", "any"])
}

/// The URL of the broker under test with another user part and virtual host.
fn amqp_url(login: &str, vhost: &str) -> String {
    let url = common::amqp();
    let (_, rest) = url.split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    let address = authority.rsplit('@').next().unwrap();
    let login =
        if login.is_empty() { authority.rsplit_once('@').map_or("guest:guest", |(l, _)| l) } else { login };
    format!("amqp://{login}@{address}/{vhost}")
}

#[test]
fn what_is_no_broker_is_named_with_what_it_is_and_what_to_do() {
    let http = server(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", true);
    ends(&mut produce(&http), "x\n", 3, &[&http, "HTTP server", "Kafka listener"]);
    ends(&mut publish(&http), "x\n", 3, &[&http, "HTTP", "5672"]);
    let tls = server(b"\x15\x03\x03\x00\x02\x02\x50", true);
    ends(&mut produce(&tls), "x\n", 3, &[&tls, "TLS", "PLAINTEXT"]);
    ends(&mut publish(&tls), "x\n", 3, &[&tls, "TLS", "plain"]);
    let rabbit = server(b"AMQP\x00\x00\x09\x01", true);
    ends(&mut produce(&rabbit), "x\n", 3, &[&rabbit, "AMQP broker"]);
    let mail = server(b"220 mail.example.org ESMTP\r\n", true);
    ends(&mut produce(&mail), "x\n", 3, &[&mail, "220 "]);
    ends(&mut publish(&mail), "x\n", 3, &[&mail, "220 "]);
    let rude = server(b"", true);
    ends(&mut produce(&rude), "x\n", 3, &[&rude, "closed the connection", "SASL"]);
    ends(&mut publish(&rude), "x\n", 3, &[&rude, "closed the connection", "5672"]);
    // The two real brokers, taken for each other.
    let url = common::amqp();
    let rabbit = url.rsplit('@').next().unwrap().trim_end_matches('/').to_owned();
    ends(&mut produce(&rabbit), "x\n", 3, &[&rabbit, "AMQP broker"]);
    let kafka = common::kafka().split(',').next().unwrap().to_owned();
    ends(&mut publish(&kafka), "x\n", 3, &[&kafka, "5672"]);
}

#[test]
fn an_address_where_nothing_is_is_named() {
    let free = closed_port();
    for command in [
        &mut produce(&free),
        &mut publish(&free),
        &mut bare(&["--kafka", &free, "consume", "-t", "any", "-e"]),
        &mut bare(&["--kafka", &free, "event", "publish", "a.b", "--data", "{}"]),
        &mut bare(&["--kafka", &free, "event", "handle", "a.b", "-g", "g", "--exec", "true"]),
        &mut bare(&["--amqp", &format!("amqp://{free}"), "work", "-q", "q", "--exec", "true"]),
        &mut bare(&["--amqp", &format!("amqp://{free}"), "enqueue", "-q", "q", "a.b", "--data", "{}"]),
        &mut bare(&["--amqp", &format!("amqp://{free}"), "get", "-q", "q", "-e"]),
    ] {
        let output = ends(command, "x\n", 3, &[&free, "nothing listens there", "check the port"]);
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    ends(
        &mut produce("no-such-broker.invalid:9092"),
        "x\n",
        3,
        &["no-such-broker.invalid:9092", "check the host"],
    );
    ends(
        &mut publish("no-such-broker.invalid:5672"),
        "x\n",
        3,
        &["no-such-broker.invalid", "cannot be resolved"],
    );
}

/// The connect timeouts by default, and as they were set; all at once, as each waits.
#[test]
fn a_port_that_never_answers_is_left_after_the_connect_timeout() {
    let silent = server(b"", false);
    let check = |mut command: Command, least: u64, most: u64, words: &[&str]| {
        let began = Instant::now();
        ends_within(&mut command, "x\n", 3, words, Duration::from_secs(most));
        assert!(began.elapsed() >= Duration::from_secs(least), "{:?}", began.elapsed());
    };
    let set = |mut command: Command, setting: &str| {
        command.args(["-X", setting]);
        command
    };
    let firewall = [silent.as_str(), "within 10s", "firewall"];
    let short = [silent.as_str(), "within 1.5s", "connect_timeout"];
    std::thread::scope(|scope| {
        scope.spawn(|| check(produce(&silent), 9, 14, &firewall));
        scope.spawn(|| check(publish(&silent), 9, 14, &firewall));
        scope.spawn(|| {
            check(set(produce(&silent), "socket.connection.setup.timeout.ms=1500"), 1, 5, &short);
            check(set(publish(&silent), "amqp.connect.timeout.ms=1500"), 1, 5, &short);
        });
    });
}

#[test]
fn a_topic_queue_or_partition_that_is_not_there_is_named() {
    let (topic, queue) = (common::unique("missing"), common::unique("missing"));
    let muslin = |args: &[&str]| {
        let mut command = common::muslin();
        command.args(args);
        command
    };
    ends(&mut muslin(&["consume", "-t", &topic, "-e"]), "", 3, &[&topic, "create the topic"]);
    ends(&mut muslin(&["consume", "-t", &topic, "-g", "g", "-e"]), "", 3, &[&topic, "create the topic"]);
    ends(&mut muslin(&["get", "-q", &queue, "-e"]), "", 3, &[&queue, "NOT_FOUND", "create it"]);
    let output = ends(
        &mut muslin(&["-J", "publish", "-x", &queue, "-r", "k"]),
        "one\ntwo\n",
        3,
        &[&queue, "NOT_FOUND", "line 1"],
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"sent\":0"), "{output:?}");
    ends(
        &mut muslin(&["publish", "--mandatory", "-x", "amq.direct", "-r", &queue]),
        "one\n",
        1,
        &[&queue, "NO_ROUTE"],
    );
    // A broker may make a topic at its first record, or may refuse: both are told as they are.
    let mut command = muslin(&["-X", "allow.auto.create.topics=false", "produce", "-t", &topic]);
    let (output, stderr) = end(&mut command, "x\n", SOON);
    if output.status.success() {
        let lines = common::succeed(&mut muslin(&["consume", "-t", &topic, "-o", "beginning", "-e"]), "");
        assert_eq!(lines, "x\n");
    } else {
        assert!(output.status.code() == Some(3) && stderr.contains(&topic), "{stderr}");
    }
    let topic = common::unique("few");
    common::succeed(&mut muslin(&["produce", "-t", &topic]), "x\n");
    ends(&mut muslin(&["produce", "-t", &topic, "-p", "99"]), "x\n", 3, &[&topic, "no partition 99"]);
    ends(&mut muslin(&["consume", "-t", &topic, "-p", "99", "-e"]), "", 3, &[&topic, "no partition 99"]);
}

#[tokio::test]
async fn a_queue_with_other_arguments_is_joined_by_the_commands_and_a_conflict_to_the_library() {
    let queue = common::unique("other");
    let client = muslin::amqp::Client::connect(&common::amqp()).await.unwrap();
    client.queue(&queue).argument("x-max-length", Value::I64(100)).declare().await.unwrap();
    let error = client.queue(&queue).declare().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.report().contains(&queue) && error.report().contains("join it"), "{}", error.report());
    let joined = client.queue(&queue).join().declare().await.unwrap();
    let name = queue.clone();
    tokio::task::spawn_blocking(move || {
        common::succeed(common::muslin().args(["publish", "-q", &name]), "not a task\n");
        common::succeed(common::muslin().args(["enqueue", "-q", &name, "a.b", "--data", "{}"]), "");
    })
    .await
    .unwrap();
    assert_eq!(joined.depth().await.unwrap().messages, 2);
    joined.delete().await.unwrap();
    client.close().await.unwrap();
}

#[test]
fn a_login_or_virtual_host_that_is_refused_is_named_without_the_password() {
    let url = amqp_url(&format!("nobody-here:{PASSWORD}"), "");
    let work = ["--amqp", &url, "-vv", "work", "-q", "q", "--exec", "true"];
    ends(&mut bare(&work), "", 3, &["nobody-here", "ACCESS_REFUSED", "check user, password"]);
    let mut command = bare(&["publish", "-q", "q"]);
    ends(command.env("MUSLIN_AMQP", &url), "", 3, &["nobody-here", "ACCESS_REFUSED"]);
    let vhost = common::unique("vhost");
    ends(&mut bare(&["--amqp", &amqp_url("", &vhost), "publish", "-q", "q"]), "", 3, &[&vhost, "not found"]);
}

#[test]
fn an_address_that_cannot_be_one_is_wrong_use() {
    let publish = |url: &str| bare(&["--amqp", url, "publish", "-q", "q"]);
    for (url, words) in [
        (format!("amqp://bob:{PASSWORD}%zz@h/"), &["percent escape in its password", "%25"][..]),
        (format!("amqp://bob:{PASSWORD}@h/%2"), &["\"%2\" in its virtual host"]),
        (format!("amqp://bob:{PASSWORD}/x@h/"), &["%2F"]),
        (format!("amqp://bob:1#{PASSWORD}@h/"), &["%23"]),
        (format!("bob:{PASSWORD}@h"), &["no scheme", "amqp://"]),
        (format!("http://bob:{PASSWORD}@h"), &["\"http\"", "expected amqp"]),
        (format!("amqp://bob:{PASSWORD}@h:99999/"), &["99999", "65535"]),
        (format!("amqp://bob:{PASSWORD}@/"), &["names no host"]),
    ] {
        ends(&mut publish(&url), "", 2, words);
        ends(bare(&["publish", "-q", "q"]).env("MUSLIN_AMQP", &url), "", 2, words);
    }
    for (address, words) in [
        ("kafka://a:1", &["kafka://a:1", "no scheme"][..]),
        ("a:99999", &["99999", "65535"]),
        ("a:1,,b:2", &["empty part"]),
        ("a b:1", &["' '"]),
        (&format!("bob:{PASSWORD}@h:9092"), &["login", "host:port"]),
        (&format!("amqp://bob:{PASSWORD},1@h"), &["login"]),
        ("", &["bootstrap.servers"]),
    ] {
        ends(&mut produce(address), "", 2, words);
    }
    ends(&mut bare(&["produce", "-t", "t"]), "", 2, &["--kafka", "MUSLIN_KAFKA", "bootstrap.servers"]);
    ends(&mut bare(&["publish", "-q", "q"]), "", 2, &["--amqp", "MUSLIN_AMQP", "amqp.url"]);
}

#[test]
fn a_settings_file_that_will_not_do_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("muslin.properties");
    let file = path.to_str().unwrap();
    let command = |file: &str| bare(&["-F", file, "publish", "-q", "q"]);
    for (content, words) in [
        (&b"linger.ms=5\nfoo\n"[..], &["line 2", "name=value"][..]),
        (b"linger.ms=5\n\xff=1\n", &["line 2", "UTF-8"]),
        (b"sasl.pasword=s3cret-pw\n", &["line 1", "`sasl.pasword`", "`sasl.password`"]),
        (b"s3cret-pw\n", &["line 1", "no separator"]),
        (b"client.id=\\uZZ\n", &["line 1", "four hexadecimal digits"]),
        (b"\nlinger.ms=soon\n", &["line 2", "`soon`", "milliseconds"]),
        (b"amqp.url=amqp://bob:s3cret-pw%zz@h/\n", &["line 1", "amqp.url", "percent escape"]),
        (b"security.protocol=SASL_SSL\nsasl.password=s3cret-pw\n", &["SASL_SSL", "plaintext"]),
    ] {
        std::fs::write(&path, content).unwrap();
        ends(&mut command(file), "", 2, &[&[file], words].concat());
    }
    ends(&mut command("/no/such/file"), "", 2, &["/no/such/file", "No such file"]);
    let folder = folder.path().to_str().unwrap();
    ends(&mut command(folder), "", 2, &[folder, "directory"]);
    ends(&mut command("/dev/zero"), "", 2, &["/dev/zero", "larger than"]);
    ends(&mut bare(&["-X", "linger.m=5", "produce", "-t", "t"]), "", 2, &["`linger.m`", "`linger.ms`"]);
}

#[test]
fn wrong_flags_are_wrong_use() {
    let url = format!("amqp://bob:{PASSWORD}@h/");
    for (args, words) in [
        (&["publish"][..], &["--queue"][..]),
        (&["--amqp", &url, "publish", "-q", "q", "--bogus"], &["--bogus"]),
        (&["publish", "-q", "q", &url], &["bob:***@h"]),
        (&["work", "-q", "q"], &["--exec"]),
        (&["work", "-q", "q", "--exec", "true", "--concurrency", "0"], &["--concurrency", "1..=1024"]),
        (&["work", "-q", "q", "--exec", "true", "--timeout", "5 parsecs"], &["5 parsecs", "30s"]),
        (&["work", "-q", "q", "--exec", "true", "--store", "bogus"], &["memory or redb:PATH"]),
        (&["work", "-q", "q", "--exec", "true", "--store", "redb:"], &["has no path"]),
        (&["work", "-q", "q", "--exec", "true", "--store", "redis://u:s3cret-pw@h"], &["not in this build"]),
        (&["--kafka", "a:1", "consume", "-t", "t", "-o", "bogus"], &["'bogus'", "beginning, end"]),
        (&["--kafka", "a:1", "consume", "-t", "t", "-f", "%q"], &["%q", "%t %p"]),
        (&["--kafka", "a:1", "produce", "-t", "t", "-z", "rar"], &["rar", "zstd"]),
        (&["--kafka", "a:1", "produce", "-t", "a b"], &["\"a b\"", "allowed"]),
        (&["--kafka", "a:1", "event", "publish", "a b", "--data", "{}"], &["\"a b\""]),
        (&["--kafka", "a:1", "event", "publish", "a.b", "--data", "{bad"], &["--data", "is no JSON"]),
        (&["--amqp", &url, "enqueue", "-q", "q", "a.b", "--data", "{bad"], &["--data", "is no JSON"]),
    ] {
        ends(&mut bare(args), "", 2, words);
    }
    ends(common::muslin().args(["publish", "-q", ""]), "", 2, &["no name"]);
    ends(common::muslin().args(["publish", "-q", &"q".repeat(300)]), "", 2, &["300 bytes", "255"]);
}

/// One bad line is told by its number; the lines around it are sent.
#[test]
fn lines_that_will_not_do_are_told_and_the_others_are_sent() {
    let topic = common::unique("lines");
    let queue = common::unique("lines");
    let bytes = |command: &mut Command, input: &[u8], words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input");
        std::fs::write(&path, input).unwrap();
        let output = command.stdin(std::fs::File::open(&path).unwrap()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word:?} is not in {stderr}");
        }
    };
    let consume = |topic: &str| {
        common::succeed(common::muslin().args(["consume", "-t", topic, "-o", "beginning", "-e"]), "")
    };
    bytes(
        common::muslin().args(["-J", "produce", "-t", &topic]),
        b"{\"value\":\"a\"}\n{\"value\":\"\xff\"}\nnot json\n{\"valu\":1}\n{\"value\":\"b\"}\n",
        &["line 2: is not UTF-8 after byte 10", "line 3: is no JSON", "line 4", "`valu`"],
    );
    assert_eq!(consume(&topic), "a\nb\n");
    let large = [&b"{\"value\":\"c\"}\n{\"value\":\""[..], &vec![b'x'; 2 << 20], b"\"}\n{\"value\":\"d\"}\n"]
        .concat();
    bytes(
        common::muslin().args(["-J", "produce", "-t", &topic]),
        &large,
        &["line 2", &topic, "1048576", "max_request_size"],
    );
    assert_eq!(consume(&topic), "a\nb\nc\nd\n");
    let huge = [&b"e\n"[..], &vec![b'x'; 20 << 20], b"\nf\n"].concat();
    bytes(common::muslin().args(["publish", "-q", &queue]), &huge, &["line 2", "20971520", "16777216"]);
    let got = common::succeed(common::muslin().args(["get", "-q", &queue, "-e"]), "");
    assert_eq!(got, "e\nf\n");

    let data = b"{\"a\":1}\n\"\xff\"\n{bad\n{\"b\":1}\n";
    let words = ["line 2: is not UTF-8 after byte 1", "line 3: is no JSON", "failed 2"];
    bytes(common::muslin().args(["enqueue", "-q", &queue, "a.b", "-"]), data, &words);
    let got = common::succeed(common::muslin().args(["get", "-q", &queue, "-e"]), "");
    assert_eq!(got.lines().count(), 2, "{got}");
    assert!(got.contains("{\"a\":1}") && got.contains("{\"b\":1}"), "{got}");
    let event = common::unique("lines");
    bytes(common::muslin().args(["event", "publish", &event, "-"]), data, &words);
    let got = consume(&format!("events.{event}"));
    assert_eq!(got.lines().count(), 2, "{got}");
}

/// Working with `--store redb:path`, which is refused before a task is taken.
#[track_caller]
fn store_is_refused(path: &str, words: &[&str]) {
    let queue = common::unique("store");
    common::succeed(common::muslin().args(["enqueue", "-q", &queue, "a.b", "--data", "{}"]), "");
    let store = format!("redb:{path}");
    let work = ["work", "-q", &queue, "--exec", "true", "--store", &store];
    ends(common::muslin().args(work), "", 3, &[&["--store", path], words].concat());
    let got = common::succeed(common::muslin().args(["get", "-q", &queue, "-e"]), "");
    assert!(got.contains("a.b"), "the task is still there: {got}");
}

#[test]
fn a_store_that_cannot_be_opened_is_named_and_no_task_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    store_is_refused(folder.path().to_str().unwrap(), &["it is a directory"]);
    store_is_refused(&at("none/store"), &["directory does not exist"]);
    std::fs::write(at("text"), "hello".repeat(1000)).unwrap();
    store_is_refused(&at("text"), &["not a key store"]);
    let _open = muslin::idempotency::RedbStore::open(at("open")).unwrap();
    store_is_refused(&at("open"), &["another process"]);
}

/// A file that may not grow is what a full disk looks like, and needs no root: see `ulimit -f`.
#[test]
#[cfg(unix)]
fn a_store_without_room_for_its_file_loses_no_task() {
    const TASKS: usize = 20;
    let queue = common::unique("full");
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store").to_str().unwrap().to_owned();
    let tasks = "{}\n".repeat(TASKS);
    common::succeed(common::muslin().args(["enqueue", "-q", &queue, "a.b", "-"]), &tasks);
    let worker = |limit: &str| {
        let mut command = Command::new("bash");
        let script = "ulimit -f \"$0\"; trap '' XFSZ; exec \"$@\"";
        command.args(["-c", script, limit, env!("CARGO_BIN_EXE_muslin")]);
        command.args(["work", "-q", &queue, "--exec", "true", "--store", &format!("redb:{store}")]);
        command.env("MUSLIN_AMQP", common::amqp());
        command
    };
    // Not even room for an empty store.
    ends(&mut worker("4"), "", 3, &["--store", &store, "may not grow further", "limit of file sizes"]);
    let got = common::succeed(common::muslin().args(["get", "-q", &queue, "-e"]), "");
    assert_eq!(got.lines().count(), TASKS);
}
