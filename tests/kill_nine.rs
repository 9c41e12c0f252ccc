//! `kill -9` of a consumer and of a worker in mid-work: nothing is lost.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]
#![allow(clippy::disallowed_methods, reason = "tests sleep")]

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::unique;
use muslin::events::{Publish, Publisher, topic_of};
use muslin::tasks::{Enqueue, Queue};
use muslin::{amqp, kafka};

/// Messages of a test. The effect of each is a line in a file, written in one `write` to its end.
const COUNT: usize = 300;

/// How often each id stands in the log of effects.
fn effects(log: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

fn expected() -> Vec<String> {
    let mut ids: Vec<String> = (0..COUNT).map(|n| format!("id-{n}")).collect();
    ids.sort();
    ids
}

/// A program that runs until it is killed.
struct Victim {
    child: Child,
    said: PathBuf,
}

impl Victim {
    fn start(mut command: Command, said: PathBuf) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(&said).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(file)).spawn().unwrap();
        Self { child, said }
    }

    /// Waits until the log of effects has so many lines.
    fn until(&mut self, log: &Path, lines: usize) {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let done = effects(log).values().sum::<usize>();
            if done >= lines {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > end {
                let mut said = String::new();
                std::fs::File::open(&self.said).unwrap().read_to_string(&mut said).unwrap();
                panic!("{done} of {lines} effects; the program ended with {ended:?} and said: {said}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Victim {
    /// SIGKILL, on Unix.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills the program at a third and at two thirds, then lets it finish and returns its log of effects.
fn kill_twice(name: &str, start: impl Fn(&Path) -> Command) -> (BTreeMap<String, usize>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("effects");
    let said = folder.path().join("stderr");
    for part in [COUNT / 3, COUNT * 2 / 3] {
        Victim::start(start(&log), said.clone()).until(&log, part);
    }
    let mut last = Victim::start(start(&log), said);
    let end = Instant::now() + Duration::from_secs(120);
    while effects(&log).len() < COUNT {
        assert!(Instant::now() < end, "{name}: {} of {COUNT} ids after 120 s", effects(&log).len());
        let total = effects(&log).values().sum::<usize>();
        last.until(&log, (total + 1).min(COUNT));
        std::thread::sleep(Duration::from_millis(20));
    }
    (effects(&log), folder)
}

/// Works for a moment, then writes its id in one piece.
fn effect(log: &Path) -> String {
    format!("sleep 0.02; echo \"$MUSLIN_ID\" >> '{}'", log.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_killed_in_mid_work_loses_no_event() {
    let (event_type, group) = (unique("kill"), unique("killed"));
    let kafka = kafka::Client::builder(common::kafka()).connect().await.unwrap();
    kafka.create_topic(&topic_of(&event_type).unwrap(), 3, 1).await.unwrap();
    let events = Publisher::new(kafka.producer().build().await.unwrap());
    let mut placed = Vec::new();
    for n in 0..COUNT {
        let event = Publish::new(&event_type, &n).unwrap().key(format!("k{}", n % 20));
        placed.push(events.enqueue(event.id(format!("id-{n}")).unwrap()).await.unwrap().1);
    }
    for placed in placed {
        placed.await.unwrap();
    }
    let (seen, _folder) = kill_twice("consumer", |log| {
        let mut handle = common::muslin();
        handle.args(["event", "handle", &event_type, "-g", &group, "--concurrency", "8"]);
        handle.args(["-X", "auto.commit.interval.ms=100", "--exec", &effect(log)]);
        handle
    });
    assert_eq!(seen.keys().cloned().collect::<Vec<_>>(), expected(), "every event had its effect");
    let again: usize = seen.values().map(|n| n - 1).sum();
    assert!(again < COUNT / 2, "{again} effects came again after two kills: commits do not keep up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_in_mid_work_loses_no_task() {
    let rabbit = amqp::Client::connect(&common::amqp()).await.unwrap();
    let queue = Queue::declare(&rabbit, unique("kill")).await.unwrap();
    for n in 0..COUNT {
        queue.send(Enqueue::new("t", &n).unwrap().id(format!("id-{n}")).unwrap()).await.unwrap();
    }
    let (seen, _folder) = kill_twice("worker", |log| {
        let mut work = common::muslin();
        work.args(["work", "-q", queue.name(), "--concurrency", "8", "--exec", &effect(log)]);
        work
    });
    assert_eq!(seen.keys().cloned().collect::<Vec<_>>(), expected(), "every task had its effect");
    let again: usize = seen.values().map(|n| n - 1).sum();
    assert!(again < COUNT / 2, "{again} effects came again, more than were in hand");
    queue.inner().delete().await.unwrap();
}
