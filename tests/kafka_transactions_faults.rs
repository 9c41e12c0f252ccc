//! Transactions on three real brokers whose leaders and transaction coordinators are killed, frozen and restarted under load:
//! a reader of committed records sees exactly the committed ones, once, in their keys' order, whether it is the Java client or muslin's own.
//!
//! The numbered records go out in transactions of 1,000 (a hundredth of all, where that is less). Every tenth is aborted, by the call or by a
//! drop; one that an error aborted is sent again as a new transaction. The test starts and ends its own cluster
//! (`scripts/brokers.sh`). `MUSLIN_RECORDS` is the number of records of all drills together, 100,000 where it is not set, and `MUSLIN_ROUNDS`
//! how often the drills are gone through, once; every second time it is in the older protocol of transactions.
//! `scripts/soak-producer.sh` runs the million.
#![cfg(feature = "kafka")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test waits, fails by a panic, and tells counts to the reader of the log"
)]
#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use cluster::{Cluster, Load, PATIENCE, Process};
use muslin::kafka::{
    At, Client, Isolation, Placed, ProducerBuilder, Queued, Record, StartAt, Transaction, TransactionEnd,
    TransactionalProducer, TransactionalProducerBuilder,
};
use muslin::{ErrorKind, NodeId, Partition, Topic};

const PARTITIONS: i32 = 6;
const KEYS: u32 = 1009;
/// Writers of the load; each has its own transactional id and its own keys.
const WRITERS: u32 = 3;
/// The value of the record that stands last in each partition.
const LAST: &str = "last";

fn is_aborted(transaction: u32) -> bool {
    transaction % 10 == 9
}

/// How a transaction is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Abort,
    Drop,
}

/// The moments of a transaction at which a drill may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before each record.
    Record,
    /// Half of the records are written.
    Open,
    /// All are; the commit is next. Only where the writer waits for it.
    Written,
    /// While the commit is on its way.
    Ending,
}

/// What a committed record must be found as.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    attempt: u32,
    partition: Partition,
    /// Below 0 where the broker acknowledged a duplicate without saying where the first is.
    offset: i64,
}

#[derive(Debug, Default)]
struct Counts {
    committed: u32,
    aborted: u32,
    /// Aborted by an error, and sent again.
    again: u32,
    /// Producers that were built again for the same id.
    built_anew: u32,
    /// Commits that failed as ambiguous, and were resolved as committed, or not.
    resolved: (u32, u32),
    /// Records of aborted transactions that are in the log.
    written_in_vain: usize,
}

/// An application that writes numbered records in transactions.
struct Writer {
    name: String,
    topic: Topic,
    builder: TransactionalProducerBuilder,
    producer: TransactionalProducer,
    /// Waits until all is written before it commits.
    waits: bool,
    found: BTreeMap<u32, Found>,
    counts: Counts,
}

/// What was sent in one attempt of a transaction.
#[derive(Default)]
struct Sent {
    queued: Vec<(u32, Queued)>,
    outcomes: Vec<(u32, muslin::Result<Placed>)>,
}

impl Sent {
    /// Every record has one outcome, whatever became of its transaction.
    async fn settle(&mut self) {
        for (n, queued) in self.queued.drain(..) {
            let outcome = tokio::time::timeout(2 * PATIENCE, queued).await;
            self.outcomes.push((n, outcome.unwrap_or_else(|_| panic!("record {n} has no outcome"))));
        }
    }
}

impl Writer {
    async fn new(name: &str, topic: &Topic, builder: ProducerBuilder, waits: bool) -> Self {
        let id = common::unique(name);
        let builder = builder.transactional(id.as_str());
        let producer = build(&builder).await;
        let (found, counts) = (BTreeMap::new(), Counts::default());
        Self { name: id, topic: topic.clone(), builder, producer, waits, found, counts }
    }

    fn key(&self, n: u32) -> String {
        format!("{}/{}", self.name, n % KEYS)
    }

    fn record(&self, n: u32, attempt: u32) -> Record<'static> {
        let value = format!("{n} {attempt} {n:080}");
        Record::to_topic(self.topic.clone()).key(self.key(n)).value(value)
    }

    /// Writes these records in a transaction; where an error aborts it, again in another, until it has the end that it should.
    async fn transact(&mut self, numbers: Range<u32>, end: End, mut at: impl AsyncFnMut(Moment)) {
        let begun = Instant::now();
        let (mut attempt, mut fenced) = (0, false);
        loop {
            assert!(begun.elapsed() < 3 * PATIENCE, "{}: {numbers:?} has no end", self.name);
            if std::mem::take(&mut fenced) {
                self.counts.built_anew += 1;
                self.producer = build(&self.builder).await;
            }
            let records: Vec<_> = numbers.clone().map(|n| (n, self.record(n, attempt))).collect();
            let transaction = match self.producer.begin().await {
                Ok(transaction) => transaction,
                Err(e) if is_waiting(&e, begun) => continue,
                // No other has its id: the coordinator was lost as it gave a new epoch. What was before has its end.
                Err(e) if e.kind() == ErrorKind::Fenced => {
                    println!("{}: {numbers:?}, attempt {attempt}: {}", self.name, e.report());
                    fenced = true;
                    continue;
                }
                Err(e) => panic!("{}: {}", self.name, e.report()),
            };
            let mut sent = Sent::default();
            let filled = fill(&transaction, records, self.waits, &mut sent, &mut at).await;
            let (told, is_known) = match (filled, end) {
                (Ok(()), End::Commit) => {
                    let (committed, ()) = tokio::join!(transaction.commit(), at(Moment::Ending));
                    match committed {
                        Ok(()) => (Some(TransactionEnd::Committed), true),
                        Err(e) => {
                            println!("{}: {numbers:?}, attempt {attempt}: {}", self.name, e.report());
                            let known = !e.is_ambiguous();
                            (known.then_some(TransactionEnd::Aborted), known)
                        }
                    }
                }
                (Ok(()), End::Drop) => {
                    drop(transaction);
                    (Some(TransactionEnd::Aborted), false)
                }
                (filled, _) => {
                    if let Err(e) = filled {
                        println!("{}: {numbers:?}, attempt {attempt}: {}", self.name, e.report());
                    }
                    match transaction.abort().await {
                        Ok(()) => (Some(TransactionEnd::Aborted), true),
                        Err(e) if e.kind() == ErrorKind::Timeout => (Some(TransactionEnd::Aborted), false),
                        Err(e) => panic!("{}: {numbers:?}: {}", self.name, e.report()),
                    }
                }
            };
            // Where the call did not tell it, the next transaction does: it begins once it is known.
            let known = match is_known {
                true => self.producer.last_end(),
                false => loop {
                    match self.producer.begin().await {
                        Ok(next) => {
                            let known = next.previous_end();
                            next.abort().await.unwrap();
                            break known;
                        }
                        Err(e) if is_waiting(&e, begun) => {}
                        Err(e) => panic!("{}: {}", self.name, e.report()),
                    }
                },
            };
            let known = known.expect("the end is known");
            assert!(told.is_none_or(|told| told == known), "{}: {numbers:?}: {told:?}, {known:?}", self.name);
            sent.settle().await;
            match known {
                TransactionEnd::Committed => {
                    assert_eq!(end, End::Commit, "{}: {numbers:?} is committed", self.name);
                    self.counts.committed += 1;
                    self.counts.resolved.0 += u32::from(told.is_none());
                    for (n, outcome) in sent.outcomes {
                        let p = outcome.unwrap_or_else(|e| panic!("committed record {n}: {}", e.report()));
                        let found = Found { attempt, partition: p.partition, offset: p.offset.get() };
                        assert_eq!(self.found.insert(n, found), None, "record {n} is committed twice");
                    }
                    return;
                }
                TransactionEnd::Aborted => {
                    self.counts.written_in_vain += sent.outcomes.iter().filter(|(_, o)| o.is_ok()).count();
                    self.counts.resolved.1 += u32::from(told.is_none());
                    if end != End::Commit {
                        self.counts.aborted += 1;
                        return;
                    }
                    self.counts.again += 1;
                    attempt += 1;
                }
                TransactionEnd::Unknown => panic!("{}: {numbers:?}: nobody knows its end", self.name),
            }
        }
    }

    /// This writer's transactions of the load, at the drill's pace; the last one when the drill is done.
    async fn write(&mut self, mine: u32, load: &Load, size: u32) {
        let before_last = load.total / size;
        for t in (mine..before_last + WRITERS).step_by(WRITERS as usize) {
            if t >= before_last {
                load.until_over().await;
            }
            let end = match (is_aborted(t), t / 10 % 2) {
                (false, _) => End::Commit,
                (true, 0) => End::Abort,
                (true, _) => End::Drop,
            };
            let mut left = size;
            let pace = async |moment| {
                if moment == Moment::Record && left > 0 {
                    left -= 1;
                    load.pace().await;
                    load.count();
                }
            };
            self.transact(t * size..(t + 1) * size, end, pace).await;
        }
    }
}

async fn build(builder: &TransactionalProducerBuilder) -> TransactionalProducer {
    let begun = Instant::now();
    loop {
        match builder.clone().build().await {
            Ok(producer) => return producer,
            // The first one waits until the brokers have made the topic of the transactions.
            Err(e) if is_waiting(&e, begun) => {}
            Err(e) => panic!("{}", e.report()),
        }
    }
}

/// Whether the end of the transaction before is still not known, so that it is to be waited for again.
fn is_waiting(e: &muslin::Error, since: Instant) -> bool {
    e.kind() == ErrorKind::Timeout && since.elapsed() < 2 * PATIENCE
}

async fn fill(
    transaction: &Transaction<'_>,
    records: Vec<(u32, Record<'static>)>,
    waits: bool,
    sent: &mut Sent,
    at: &mut impl AsyncFnMut(Moment),
) -> muslin::Result<()> {
    let half = records.len() / 2;
    for (i, (n, record)) in records.into_iter().enumerate() {
        at(Moment::Record).await;
        if i == half {
            sent.settle().await;
            at(Moment::Open).await;
        }
        sent.queued.push((n, transaction.enqueue(record).await?));
    }
    if waits {
        sent.settle().await;
        at(Moment::Written).await;
    }
    Ok(())
}

/// What is to be read, and what was read of it.
struct Check<'a> {
    wanted: &'a BTreeMap<u32, Found>,
    key: &'a dyn Fn(u32) -> String,
    seen: Vec<u32>,
    last_of_key: BTreeMap<String, u32>,
    ends: Vec<Partition>,
    unknown: usize,
}

impl<'a> Check<'a> {
    fn new(wanted: &'a BTreeMap<u32, Found>, key: &'a dyn Fn(u32) -> String) -> Self {
        Self { wanted, key, seen: Vec::new(), last_of_key: BTreeMap::new(), ends: Vec::new(), unknown: 0 }
    }

    /// How many records a reader gets to see.
    fn total(&self) -> usize {
        self.wanted.len() + PARTITIONS as usize
    }

    fn see(&mut self, partition: Partition, offset: i64, key: Option<&str>, value: &str) {
        assert!(!self.ends.contains(&partition), "{value:?} stands behind the last record");
        if value == LAST {
            self.ends.push(partition);
            return;
        }
        let mut words = value.split(' ');
        let mut number = || words.next().unwrap().parse::<u32>().unwrap();
        let (n, attempt) = (number(), number());
        assert_eq!(value, format!("{n} {attempt} {n:080}"));
        let wanted = self.wanted.get(&n).unwrap_or_else(|| panic!("record {n} was aborted, and is read"));
        let offset = if wanted.offset < 0 { wanted.offset } else { offset };
        self.unknown += usize::from(wanted.offset < 0);
        assert_eq!(*wanted, Found { attempt, partition, offset }, "record {n}");
        let wanted = (self.key)(n);
        assert_eq!(key, Some(wanted.as_str()), "record {n}");
        let before = self.last_of_key.insert(wanted, n);
        assert!(before.is_none_or(|before| before < n), "record {n} stands behind {before:?} of its key");
        self.seen.push(n);
    }

    /// Everything was read, and once. Gives how many were acknowledged without an offset.
    fn finish(mut self, reader: &str) -> usize {
        assert_eq!(self.ends.len(), PARTITIONS as usize, "{reader}: ends of partitions");
        self.seen.sort_unstable();
        assert!(self.seen.iter().eq(self.wanted.keys()), "{reader} read other records than were committed");
        self.unknown
    }
}

/// What the Java client reads of committed records.
async fn read_by_java(cluster: &Cluster, topic: &Topic, mut check: Check<'_>) -> usize {
    let (bootstrap, topic, count) = (cluster.bootstrap.clone(), topic.to_string(), check.total());
    let read = move || {
        let print = ["partition", "offset", "key", "value"].map(|what| format!("print.{what}=true"));
        let mut args = vec!["--isolation-level", "read_committed"];
        args.extend(print.iter().flat_map(|property| ["--formatter-property", property]));
        common::console_consumer(&bootstrap, &topic, count, &args, 4 * PATIENCE)
    };
    for line in tokio::task::spawn_blocking(read).await.unwrap().lines() {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap_or_else(|| panic!("{line}"));
        let partition = field().strip_prefix("Partition:").unwrap().parse().unwrap();
        let offset = field().strip_prefix("Offset:").unwrap().parse().unwrap();
        let (key, value) = (field(), field());
        check.see(Partition(partition), offset, Some(key), value);
    }
    check.finish("the Java client")
}

/// What muslin reads of committed records.
async fn read_by_muslin(client: &Client, topic: &Topic, mut check: Check<'_>) -> usize {
    let consumer = client.simple_consumer().topics([topic.as_str()]).start(StartAt::Earliest);
    let mut consumer = consumer.isolation(Isolation::ReadCommitted).build().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    while check.ends.len() < PARTITIONS as usize {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
        let d =
            next.unwrap_or_else(|_| panic!("only {} records are read", check.seen.len())).unwrap().unwrap();
        let (key, value) = (d.key().map(text), text(d.value().unwrap()));
        check.see(d.partition(), d.offset().get(), key.as_deref(), &value);
        d.ack();
    }
    check.finish("muslin")
}

/// What is done to the coordinator, at which moment of the victim's transaction, and how long after it.
struct Plan {
    name: &'static str,
    acts: &'static [(Moment, Duration, &'static str)],
    /// Part of the first round, which CI waits for.
    short: bool,
}

const NOW: Duration = Duration::ZERO;
/// Until the commit is with the coordinator.
const SENT: Duration = Duration::from_millis(500);
/// Less than the brokers wait before they call one of them dead.
const BRIEF: Duration = Duration::from_millis(1500);
/// About as long as a commit takes; see where it is used.
const MIDST: Duration = Duration::from_millis(1);

const PLANS: [Plan; 7] = [
    Plan { name: "killed, a transaction open", acts: &[(Moment::Open, NOW, "KILL")], short: false },
    Plan { name: "killed in the midst of a commit", acts: &[(Moment::Ending, MIDST, "KILL")], short: true },
    Plan {
        name: "killed, a commit before it",
        acts: &[(Moment::Written, NOW, "STOP"), (Moment::Ending, SENT, "KILL")],
        short: false,
    },
    Plan { name: "frozen, a transaction open", acts: &[(Moment::Open, NOW, "STOP")], short: false },
    Plan { name: "frozen in the midst of a commit", acts: &[(Moment::Ending, MIDST, "STOP")], short: false },
    Plan { name: "frozen, a commit before it", acts: &[(Moment::Written, NOW, "STOP")], short: true },
    Plan {
        name: "frozen for a moment, a commit before it",
        acts: &[(Moment::Written, NOW, "STOP"), (Moment::Ending, BRIEF, "CONT")],
        short: true,
    },
];

/// The drills' own writer: what is done to its coordinator is done at a moment of its transaction.
struct Victim {
    writer: Writer,
    next: u32,
    size: u32,
}

impl Victim {
    async fn transact(&mut self, end: End, at: impl AsyncFnMut(Moment)) {
        let first = self.next;
        self.next += self.size;
        self.writer.transact(first..self.next, end, at).await;
    }

    async fn drill(&mut self, cluster: &Cluster, topic: &Topic, plan: &Plan, round: u32) {
        let begun = Instant::now();
        let node = cluster.coordinator(&self.writer.name).await;
        let process = cluster.process(node).await;
        let mut left = plan.acts;
        let act = async |moment| {
            if let [(when, after, signal), rest @ ..] = left
                && *when == moment
            {
                left = rest;
                // Each round at another moment of the commit.
                tokio::time::sleep(if *after == MIDST { MIDST * (3 * round) } else { *after }).await;
                process.signal(signal).await;
            }
        };
        self.transact(End::Commit, act).await;
        assert!(left.is_empty(), "{}: the moment did not come", plan.name);
        println!("coordinator {node} {}: committed after {:.1} s", plan.name, begun.elapsed().as_secs_f64());
        back(cluster, topic, node, &process, plan.acts).await;
        // What a coordinator finds in its connections when it wakes is of a transaction that has its end.
        self.transact(End::Abort, async |_| {}).await;
        self.transact(End::Commit, async |_| {}).await;
    }
}

/// The node is there again, and has caught up.
async fn back(
    cluster: &Cluster,
    topic: &Topic,
    node: NodeId,
    process: &Process,
    acts: &[(Moment, Duration, &str)],
) {
    match acts.last() {
        Some((_, _, "KILL")) => cluster.node(node, "start").await,
        Some((_, _, "STOP")) => process.signal("CONT").await,
        _ => {}
    }
    in_sync(cluster, topic).await;
}

/// The records and the log of the transactions have all their replicas.
async fn in_sync(cluster: &Cluster, topic: &Topic) {
    cluster.in_sync(topic).await;
    cluster.in_sync(&Topic::new("__transaction_state").unwrap()).await;
}

/// Leaders of the load's partitions are killed and frozen, every node is restarted, then the victim's coordinator has its share.
async fn drill(cluster: &Cluster, topic: &Topic, load: &Load, victim: &mut Victim, rounds: u32) {
    for round in 0..rounds {
        let begun = Instant::now();
        // The change itself meets open transactions; connections that are opened from now on speak as it says. Level 0 cannot be
        // had so: its log has no room for a transaction of the newer protocol, and Kafka 4.3 refuses its end (UNSUPPORTED_VERSION).
        match (round, round % 2) {
            (0, _) => {}
            (_, 1) => cluster.feature("downgrade", "transaction.version=1").await,
            _ => cluster.feature("upgrade", "transaction.version=2").await,
        }
        for (kill, revive) in [("kill", "start"), ("freeze", "thaw")] {
            load.next_step().await;
            let (leader, _) = cluster.look(topic).await.expect("no leader");
            cluster.node(leader, kill).await;
            cluster.led_by_another(topic, leader).await;
            load.next_step().await;
            cluster.node(leader, revive).await;
            in_sync(cluster, topic).await;
            let at = begun.elapsed().as_secs_f64();
            println!("round {round}: {kill} and {revive} of leader {leader}, after {at:.0} s");
        }
        for node in [1, 2, 3].map(NodeId) {
            load.next_step().await;
            cluster.node(node, "stop").await;
            load.next_step().await;
            cluster.node(node, "start").await;
            in_sync(cluster, topic).await;
        }
        println!("round {round}: all restarted, after {:.0} s", begun.elapsed().as_secs_f64());
        for plan in PLANS.iter().filter(|plan| plan.short || round > 0) {
            load.next_step().await;
            victim.drill(cluster, topic, plan, round).await;
        }
    }
    load.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_frozen_coordinators_and_leaders_neither_lose_nor_double_a_transaction() {
    let total = cluster::setting("MUSLIN_RECORDS", 100_000);
    let rounds = cluster::setting("MUSLIN_ROUNDS", 1);
    let size = (total / 100).clamp(1, 1000);
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let cluster = &cluster;
    let begin = Instant::now();
    let client = cluster.client().await;
    let topic = &Topic::new(common::unique("transactions")).unwrap();
    client.create_topic(topic, PARTITIONS, 3).await.unwrap();

    // One that waits for everything, one whose records run out of time, one that does not wait for the coordinator.
    let patient = client.producer().delivery_timeout(PATIENCE).max_block(PATIENCE);
    let hasty = patient.clone().delivery_timeout(Duration::from_secs(4));
    let restless = patient.clone().max_block(Duration::from_secs(2));
    let mut a = Writer::new("patient", topic, patient.clone(), false).await;
    let mut b = Writer::new("hasty", topic, hasty, false).await;
    let mut c = Writer::new("restless", topic, restless.clone(), false).await;
    let writer = Writer::new("victim", topic, restless, true).await;
    let mut victim = Victim { writer, next: total, size };
    in_sync(cluster, topic).await;

    let short = PLANS.iter().filter(|plan| plan.short).count() as u32;
    let transactions = total / size;
    assert!(transactions >= 10 * WRITERS, "MUSLIN_RECORDS is {total}; it must be at least {}", 10 * WRITERS);
    let steps = rounds * 10 + short + (rounds - 1) * PLANS.len() as u32;
    let load = Load::new((transactions - WRITERS) * size, steps);
    tokio::join!(
        a.write(0, &load, size),
        b.write(1, &load, size),
        c.write(2, &load, size),
        drill(cluster, topic, &load, &mut victim, rounds),
    );
    println!("written in {:.0} s", begin.elapsed().as_secs_f64());
    in_sync(cluster, topic).await;

    let plain = client.producer().delivery_timeout(PATIENCE).build().await.unwrap();
    for partition in 0..PARTITIONS {
        plain.send(Record::to_topic(topic.clone()).partition(partition).key("-").value(LAST)).await.unwrap();
    }
    let mut wanted = BTreeMap::new();
    let mut names = Vec::new();
    let mut in_vain = 0;
    for writer in [a, b, c, victim.writer] {
        println!("{}: {:?}", writer.name, writer.counts);
        names.push(writer.name);
        in_vain += writer.counts.written_in_vain;
        wanted.extend(writer.found);
        writer.producer.close(PATIENCE).await.unwrap();
    }
    let of_load = (0..transactions * size).filter(|n| !is_aborted(n / size));
    // The victim's: one that a fault met, one aborted, one after it.
    let of_victim = (total..victim.next).filter(|n| (n - total) / size % 3 != 1);
    assert!(
        of_load.chain(of_victim).eq(wanted.keys().copied()),
        "other numbers are committed than should be"
    );
    let key = |n: u32| {
        let writer = if n >= total { WRITERS } else { n / size % WRITERS };
        format!("{}/{}", names[writer as usize], n % KEYS)
    };
    let stored: i64 = client.offsets(topic, At::Latest).await.unwrap().values().map(|o| o.get()).sum();
    assert!(in_vain > 0 && stored as usize > wanted.len() + in_vain, "what is aborted was never written");

    let begin = Instant::now();
    let unknown = read_by_java(cluster, topic, Check::new(&wanted, &key)).await;
    let java = begin.elapsed();
    read_by_muslin(&cluster.client().await, topic, Check::new(&wanted, &key)).await;
    println!(
        "{} records committed, in transactions of {size}, and {in_vain} written and aborted: the Java client and muslin read the \
         committed ones alone, each once and in its key's order ({:.0} s and {:.0} s); {unknown} acknowledged as \
         duplicates without an offset",
        wanted.len(),
        java.as_secs_f64(),
        (begin.elapsed() - java).as_secs_f64(),
    );
}
