//! Members of a group in processes of their own, on a real broker: killed, frozen past their session, stopped in good order,
//! while records come in. Nothing is lost, and what comes twice is counted.
#![cfg(feature = "cli")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks and start programs")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muslin::kafka::{Client, Record};
use muslin::{Partition, Topic};

const PARTITIONS: i32 = 12;
/// Records a partition in each of the three waves.
const WAVE: i64 = 4000;

struct Bed {
    client: Client,
    topic: Topic,
    group: String,
    protocol: &'static str,
    folder: tempfile::TempDir,
    outputs: Vec<PathBuf>,
}

/// One `muslin consume`. Dropped, it is killed.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Member {
    fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Bed {
    async fn new(protocol: &'static str) -> Self {
        let client = Client::builder(common::kafka()).connect().await.unwrap();
        let topic = Topic::new(common::unique("drill")).unwrap();
        client.create_topic(&topic, PARTITIONS, 1).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { client, topic, group: common::unique("g"), protocol, folder, outputs: Vec::new() }
    }

    async fn wave(&self) {
        let producer = self.client.producer().build().await.unwrap();
        for _ in 0..WAVE {
            for partition in 0..PARTITIONS {
                let record = Record::to_topic(self.topic.clone()).partition(Partition(partition)).value("v");
                drop(producer.enqueue(record).await.unwrap());
            }
        }
        producer.flush().await.unwrap();
        producer.close(Duration::from_secs(10)).await.unwrap();
    }

    fn join(&mut self) -> Member {
        let path = self.folder.path().join(format!("member-{}", self.outputs.len()));
        let out = File::create(&path).unwrap();
        self.outputs.push(path);
        let mut command = common::muslin();
        command.args(["consume", "-t", self.topic.as_str(), "-g", &self.group, "-f", "%p %o\n"]);
        command.args(["-X", &format!("group.protocol={}", self.protocol)]);
        command.args(["-X", "auto.commit.interval.ms=50"]);
        if self.protocol == "classic" {
            command.args(["-X", "session.timeout.ms=6000"]);
        }
        Member(command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().unwrap())
    }

    /// How often each record was printed.
    fn printed(&self) -> BTreeMap<(i32, i64), u32> {
        let mut printed = BTreeMap::new();
        for path in &self.outputs {
            let text = std::fs::read_to_string(path).unwrap();
            // The last line of one that was killed may be cut.
            for line in text.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')) {
                let (partition, offset) = line.split_once(' ').unwrap();
                let at = (partition.parse().unwrap(), offset.parse().unwrap());
                *printed.entry(at).or_insert(0) += 1;
            }
        }
        printed
    }

    async fn until_printed(&self, count: usize, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let printed = self.printed().len();
            if printed >= count {
                return;
            }
            assert!(Instant::now() < deadline, "{printed} of {count} records were printed");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn drill(protocol: &'static str) {
    let wave = usize::try_from(WAVE).unwrap() * PARTITIONS as usize;
    let limit = Duration::from_secs(120);
    let mut bed = Bed::new(protocol).await;
    let first = bed.join();
    let second = bed.join();
    bed.wave().await;
    bed.until_printed(wave / 2, limit).await;
    // Killed in the middle: its session has to run out before another gets its partitions.
    drop(first);
    let third = bed.join();
    bed.wave().await;
    bed.until_printed(2 * wave, limit).await;
    // Frozen past its session: it wakes up in a group that has moved on.
    second.signal("STOP");
    let frozen = if protocol == "classic" { 10 } else { 55 };
    bed.wave().await;
    tokio::time::sleep(Duration::from_secs(frozen)).await;
    second.signal("CONT");
    bed.until_printed(3 * wave, limit).await;
    // In good order: what it printed is committed, and nothing of it comes again.
    third.signal("TERM");
    let before = bed.printed();
    let fourth = bed.join();
    bed.wave().await;
    bed.until_printed(4 * wave, limit).await;
    drop((second, third, fourth));
    let printed = bed.printed();
    assert_eq!(printed.len(), 4 * wave, "nothing is lost, and nothing is made up");
    let repeated: u32 = printed.values().map(|n| n - 1).sum();
    let late: u32 = before.iter().map(|(at, n)| printed[at] - n).sum();
    // The killed one and the frozen one had printed, and not committed, what 50 ms and a full hand bring.
    assert!(repeated < u32::try_from(wave / 4).unwrap(), "{repeated} of {} came twice", printed.len());
    assert_eq!(late, 0, "what was stopped in good order came twice");
}

#[tokio::test]
async fn classic_members_are_killed_frozen_and_stopped_and_nothing_is_lost() {
    drill("classic").await;
}

#[tokio::test]
async fn members_of_the_newer_protocol_are_killed_frozen_and_stopped_and_nothing_is_lost() {
    drill("consumer").await;
}
