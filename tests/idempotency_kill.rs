//! What a durable key store acknowledged survives `kill -9`. The test runs itself as a child process that claims and
//! completes keys and prints what it was told; it kills the child at some random moment, and looks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "tests wait and kill")]
#![cfg(feature = "redb")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muslin::idempotency::{Claim, Fingerprint, RedbOptions, RedbStore, State, Store, Token};
use muslin::{ErrorKind, Timestamp};

const LEASE: Duration = Duration::from_secs(30);
/// How many tasks of the child claim at the same time, so that a commit holds the work of several.
const TASKS: u64 = 16;

fn options(shared: bool) -> RedbOptions {
    RedbOptions::default().shared(shared)
}

fn outcome(key: &str) -> Bytes {
    Bytes::from(format!("outcome of {key}"))
}

/// The child: never ends by itself.
fn work(path: &Path, shared: bool, round: u64) {
    let store = Arc::new(RedbStore::open_with(path, options(shared)).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let store = Arc::clone(&store);
                runtime.spawn(async move {
                    for n in 0.. {
                        let key = format!("r{round}-t{task}-n{n}");
                        let print = Fingerprint::of(key.as_bytes());
                        let claim = store.claim(&key, print, LEASE, Timestamp(1000)).await.unwrap();
                        let lease = claim.lease().expect("a new key is free");
                        say(&format!("claimed {key} {}", lease.token()));
                        store.complete(&lease, outcome(&key), Timestamp(1001)).await.unwrap();
                        say(&format!("done {key} {}", lease.token()));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// One write, so that a line is whole or absent.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[test]
fn child() {
    // Does its work only as the child of the tests below.
    if let Ok(path) = std::env::var("MUSLIN_TEST_KEYS") {
        let shared = std::env::var("MUSLIN_TEST_SHARED").is_ok();
        let round = std::env::var("MUSLIN_TEST_ROUND").unwrap().parse().unwrap();
        work(Path::new(&path), shared, round);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    Claimed,
    Done,
}

/// Runs a child and kills it after `lines` lines and `delay`; what it said.
fn run_and_kill(
    path: &Path,
    shared: bool,
    round: u64,
    lines: usize,
    delay: Duration,
) -> BTreeMap<String, (Told, u64)> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env("MUSLIN_TEST_KEYS", path).env("MUSLIN_TEST_ROUND", round.to_string());
    if shared {
        command.env("MUSLIN_TEST_SHARED", "1");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BTreeMap::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let note = |line: &str, said: &mut BTreeMap<_, _>| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (told, key, token) = match words[..] {
            ["claimed", key, token] => (Told::Claimed, key, token),
            ["done", key, token] => (Told::Done, key, token),
            _ => return false,
        };
        said.insert(key.to_owned(), (told, token.parse::<u64>().unwrap()));
        true
    };
    let mut seen = 0;
    while seen < lines {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the child ended by itself");
        seen += usize::from(note(&line, &mut said));
    }
    std::thread::sleep(delay);
    // SIGKILL on Unix: no destructor runs.
    child.kill().unwrap();
    // What it said before it died counts as well; a line cut short does not.
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
            break;
        }
        note(&line, &mut said);
    }
    child.wait().unwrap();
    said
}

async fn check(store: &RedbStore, key: &str, told: Told, token: u64) {
    match store.get(key).await.unwrap() {
        Some(State::Done { outcome: found, token: by, .. }) => {
            assert_eq!((found, by.get()), (outcome(key), token), "{key}");
        }
        Some(State::InProgress { token: by, .. }) => {
            assert_eq!((told, by.get()), (Told::Claimed, token), "{key} was acknowledged as done");
        }
        None => panic!("{key} was acknowledged as {told:?} and is gone"),
    }
}

fn kill_rounds(shared: bool, rounds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.redb");
    let mut all = BTreeMap::new();
    let mut largest: Option<Token> = None;
    for round in 0..rounds {
        // From the first claim to some way into the work, at no particular point of a commit.
        let lines = (round * 97 % 400) as usize + 1;
        let delay = Duration::from_micros(round * 1_713 % 9_000);
        all.extend(run_and_kill(&path, shared, round, lines, delay));

        let store = RedbStore::open_with(&path, options(shared)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for (key, (told, token)) in &all {
                check(&store, key, *told, *token).await;
            }
            // A claim of the killed process holds until its end, then goes to whoever asks, fenced from the dead one.
            if let Some((key, _)) = all.iter().rev().find(|(_, (told, _))| *told == Told::Claimed) {
                let print = Fingerprint::of(key.as_bytes());
                if let Some(State::InProgress { until, .. }) = store.get(key).await.unwrap() {
                    let before = Timestamp(until.get() - 1);
                    let held = store.claim(key, print, LEASE, before).await.unwrap();
                    assert_eq!(held, Claim::Held { until });
                }
                let e =
                    store.claim(key, Fingerprint::of(b"other"), LEASE, Timestamp(1000)).await.unwrap_err();
                assert_eq!(e.kind(), ErrorKind::PayloadMismatch);
            }
            let probe = format!("probe-{round}");
            let lease = store.claim(&probe, Fingerprint::NONE, LEASE, Timestamp(1000)).await.unwrap();
            let token = lease.lease().expect("free").token();
            assert!(largest < Some(token), "tokens grow across crashes");
            assert!(all.values().all(|(_, known)| *known < token.get()), "no acknowledged token comes again");
            largest = Some(token);
        });
    }
    assert!(
        all.values().any(|(told, _)| *told == Told::Done) && all.len() > 100,
        "the children did some work"
    );
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    kill_rounds(false, 12);
}

#[test]
fn nothing_acknowledged_is_lost_when_a_process_that_shares_the_file_is_killed() {
    kill_rounds(true, 6);
}

#[test]
fn a_store_that_shares_the_file_goes_on_when_another_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.redb");
    let store = RedbStore::open_with(&path, options(true)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for round in 0..4 {
        let said = run_and_kill(&path, true, round, 30 + 40 * round as usize, Duration::from_millis(round));
        runtime.block_on(async {
            for (key, (told, token)) in &said {
                check(&store, key, *told, *token).await;
            }
            let key = format!("own-{round}");
            let lease = store.claim(&key, Fingerprint::NONE, LEASE, Timestamp(1000)).await.unwrap();
            store.complete(&lease.lease().expect("free"), Bytes::new(), Timestamp(1001)).await.unwrap();
        });
    }
}
