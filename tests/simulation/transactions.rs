//! Applications that write in transactions, and make it hard: transactions that are committed, aborted, dropped, given up half-way
//! or open for too long, offsets of groups, producers that fence one another, and producers that are dropped in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muslin::kafka::{
    Client, GroupMetadata, Isolation, Queued, Record, StartAt, TransactionEnd, TransactionalProducer,
};
use muslin::{Error, ErrorKind, Offset, Partition, Result, Topic};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::history::{End, Transaction};
use super::plan::STORM;
use super::random::Random;
use super::workload::{PATIENCE, Run, TOPIC};

/// How much later than its limit a call may end: the time of some schedulings.
const GRACE: Duration = Duration::from_millis(100);
/// How much later a request may arrive whose sender has given it up.
const LATE: Duration = Duration::from_secs(30);
/// How long it may take to learn of the topic's partitions: the longest time of a request and its connection, and more.
const LOOK_UP: Duration = Duration::from_secs(20);
/// What the end of a run waits for: the longest transaction timeout, and more.
const CALM: Duration = Duration::from_secs(180);

/// A client, and the transactional ids on it.
pub async fn host(run: Arc<Run>, index: usize) {
    let host = format!("writer-{index}");
    let mut random = Random::new(run.layout.seed, &format!("transactions on {host}"));
    tokio::time::sleep(random.millis(0, 3000)).await;
    let Some(client) = run.client(&host, &mut random).await else { return };
    let mut lines = JoinSet::new();
    for number in 0..random.range(1, 2) {
        let mut random = Random::new(run.layout.seed, &format!("line {number} on {host}"));
        let line = Line {
            host: host.clone(),
            id: format!("{index}/{number}"),
            run: Arc::clone(&run),
            client: client.clone(),
            linger: random.millis(0, 30),
            max_block: random.pick(&[1000, 3000, 10_000, 60_000].map(Duration::from_millis)),
            delivery_timeout: random.millis(2000, 30_000),
            timeout: random.pick(&[1000, 3000, 10_000, 60_000, 60_000].map(Duration::from_millis)),
            random,
            producers: 0,
            transactions: 0,
            outcomes: JoinSet::new(),
            doubtful: Duration::ZERO,
        };
        lines.spawn(line.run());
    }
    drop(client);
    while let Some(line) = lines.join_next().await {
        line.unwrap();
    }
}

/// One transactional id.
struct Line {
    random: Random,
    run: Arc<Run>,
    client: Client,
    host: String,
    id: String,
    linger: Duration,
    max_block: Duration,
    delivery_timeout: Duration,
    timeout: Duration,
    producers: u64,
    transactions: u64,
    outcomes: JoinSet<()>,
    /// Until when a producer that could not be built may still fence another: its request may arrive late.
    doubtful: Duration,
}

/// A producer of a line, and what is known of it.
struct Worker {
    producer: TransactionalProducer,
    life: Life,
}

struct Life {
    name: String,
    /// Another was built after it.
    fenced: bool,
    /// Where its last transaction stands in the history.
    last: Option<usize>,
    /// Since when its last transaction is open.
    open_since: Option<Duration>,
    /// One was open for too long.
    overdue: bool,
}

/// What became of an attempt at a transaction.
#[derive(PartialEq, Eq)]
enum Done {
    Committed,
    Otherwise,
    /// The producer is of no use any more.
    Dead,
}

impl Line {
    async fn run(mut self) {
        let mut worker = None;
        for _ in 0..self.random.range(4, 25) {
            let Some(mut w) = self.worker(worker.take()).await else { return };
            if self.transaction(&mut w).await != Done::Dead {
                worker = self.after(w).await;
            }
            tokio::time::sleep(self.random.millis(0, 3000)).await;
        }
        let now = self.run.network.elapsed();
        tokio::time::sleep((STORM + Duration::from_secs(1)).saturating_sub(now)).await;
        self.finale(worker).await;
    }

    async fn worker(&mut self, worker: Option<Worker>) -> Option<Worker> {
        match worker {
            Some(worker) => Some(worker),
            None => self.build().await,
        }
    }

    /// A producer, however long it takes.
    async fn build(&mut self) -> Option<Worker> {
        self.producers += 1;
        let name = format!("{}/{}", self.id, self.producers);
        let (run, client, max_block) = (Arc::clone(&self.run), self.client.clone(), self.max_block);
        let attempts = AtomicUsize::new(0);
        let producer = run.patiently("a transactional producer", || {
            let builder = client.producer().linger(self.linger).max_block(max_block).batch_size(1024);
            let builder = builder.delivery_timeout(self.delivery_timeout).transactional(self.id.clone());
            let build = builder.transaction_timeout(self.timeout).build();
            let run = Arc::clone(&run);
            attempts.fetch_add(1, Ordering::Relaxed);
            async move {
                let begin = run.network.elapsed();
                let built = build.await;
                in_time(&run, "build", begin, max_block);
                built
            }
        });
        let producer = producer.await?;
        if attempts.into_inner() > 1 {
            self.doubtful = self.run.network.elapsed() + LATE;
        }
        let life = Life { name, fenced: false, last: None, open_since: None, overdue: false };
        Some(Worker { producer, life })
    }

    /// Now and then a producer goes.
    async fn after(&mut self, worker: Worker) -> Option<Worker> {
        let way = self.random.range(0, 19);
        if matches!(way, 1..=3) {
            self.run.closes(&self.host, PATIENCE);
        }
        match way {
            0 => drop(worker.producer),
            // It ends as if its process were killed.
            1 => drop(worker.producer.close(Duration::ZERO).await),
            2 => drop(worker.producer.close(self.random.millis(0, 5000)).await),
            3 => drop(timeout(self.random.millis(0, 500), worker.producer.close(PATIENCE)).await),
            _ => return Some(worker),
        }
        None
    }

    /// Begins a transaction and notes what became of the one before.
    async fn begin<'a>(
        &mut self,
        producer: &'a mut TransactionalProducer,
        life: &mut Life,
    ) -> Result<(muslin::kafka::Transaction<'a>, usize)> {
        let begin = self.run.network.elapsed();
        let begun = producer.begin().await;
        in_time(&self.run, "begin", begin, self.max_block);
        let transaction = begun?;
        self.over(life, transaction.previous_end());
        self.transactions += 1;
        let id = format!("{}/{}", life.name, self.transactions);
        let mut history = self.run.history();
        history.transactions.push(Transaction { id, producer: life.name.clone(), ..Transaction::default() });
        let place = history.transactions.len() - 1;
        (life.last, life.open_since) = (Some(place), Some(self.run.network.elapsed()));
        Ok((transaction, place))
    }

    /// The last transaction has its end.
    fn over(&self, life: &mut Life, end: Option<TransactionEnd>) {
        if let Some(since) = life.open_since.take() {
            life.overdue |= self.run.network.elapsed() - since + GRACE >= self.timeout;
        }
        let Some(last) = life.last else { return };
        let mut history = self.run.history();
        let known = &mut history.transactions[last].last_end;
        let before = *known;
        *known = end;
        let id = history.transactions[last].id.clone();
        drop(history);
        if end.is_none() || before.is_some_and(|before| Some(before) != end) {
            self.run.note(format!("last_end of transaction {id} was {before:?} and then {end:?}"));
        }
    }

    /// Begin has failed.
    fn failed(&self, worker: &mut Worker, e: &Error) -> Done {
        if e.kind() == ErrorKind::Timeout {
            return Done::Otherwise;
        }
        self.over(&mut worker.life, worker.producer.last_end());
        let life = &worker.life;
        // Before version 2 a producer whose transaction was open too long cannot be told from a fenced one.
        let overdue = life.overdue && self.run.layout.transaction_version < 2;
        let doubtful = self.run.network.elapsed() < self.doubtful;
        if e.kind() != ErrorKind::Fenced || !(life.fenced || overdue || doubtful) {
            self.run.note(format!("begin of {} failed: {:?}: {}", life.name, e.kind(), e.report()));
        }
        Done::Dead
    }

    /// A transaction of any kind.
    async fn transaction(&mut self, worker: &mut Worker) -> Done {
        self.odd(worker).await.unwrap_or_else(|e| self.failed(worker, &e))
    }

    /// A transaction that has no reason to fail.
    async fn plain_transaction(&mut self, worker: &mut Worker) -> Done {
        self.plain(worker).await.unwrap_or_else(|e| self.failed(worker, &e))
    }

    async fn odd(&mut self, worker: &mut Worker) -> Result<Done> {
        let (transaction, place) = self.begin(&mut worker.producer, &mut worker.life).await?;
        let count = if self.random.percent(10) { 0 } else { self.random.range(1, 30) };
        let rival = if self.random.percent(8) { self.random.range(0, count) } else { u64::MAX };
        let offsets = if self.random.percent(40) { self.random.range(0, count) } else { u64::MAX };
        let pause = if self.random.percent(30) { self.random.range(1, 300) } else { 0 };
        let mut queued = Vec::new();
        let mut refused = false;
        for n in 0..=count {
            if n == rival {
                worker.life.fenced |= self.rival().await;
            }
            if n == offsets {
                for step in 0..=u64::from(self.random.percent(20)) {
                    refused |= self.offsets(&transaction, &worker.life.name, place, step).await;
                }
            }
            if n < count {
                queued.extend(self.record(&transaction, place, n).await);
            }
            if pause > 0 && self.random.percent(30) {
                tokio::time::sleep(self.random.millis(0, pause)).await;
            }
        }
        if self.random.percent(8) {
            tokio::time::sleep(self.random.millis(0, 8000)).await;
        }
        self.watch(place, queued);
        let ended = match self.random.range(0, 99) {
            0..=64 => self.commit(transaction, &worker.life, place, refused).await,
            65..=76 => self.abort(transaction, place).await,
            77..=86 => {
                drop(transaction);
                self.ended(place, End::Aborted);
                false
            }
            87..=89 => {
                // Nobody can reach it any more.
                std::mem::forget(transaction);
                self.ended(place, End::Aborted);
                false
            }
            _ => {
                let patience = self.random.millis(0, 300);
                let end = match timeout(patience, transaction.commit()).await {
                    Ok(result) => told(result),
                    Err(_) => End::Unknown("given up by the caller".to_owned()),
                };
                self.ended(place, end);
                false
            }
        };
        if ended {
            self.over(&mut worker.life, worker.producer.last_end());
        }
        if self.random.percent(25) {
            self.look(&worker.life.name).await;
        }
        Ok(self.done(place))
    }

    async fn plain(&mut self, worker: &mut Worker) -> Result<Done> {
        let (transaction, place) = self.begin(&mut worker.producer, &mut worker.life).await?;
        let mut queued = Vec::new();
        for n in 0..self.random.range(1, 5) {
            queued.extend(self.record(&transaction, place, n).await);
        }
        self.watch(place, queued);
        if self.commit(transaction, &worker.life, place, false).await {
            self.over(&mut worker.life, worker.producer.last_end());
        }
        Ok(self.done(place))
    }

    fn done(&self, place: usize) -> Done {
        match self.run.history().transactions[place].end {
            Some(End::Committed) => Done::Committed,
            _ => Done::Otherwise,
        }
    }

    /// Another producer with the same transactional id, for a while.
    async fn rival(&mut self) -> bool {
        let Some(mut rival) = self.build().await else { return false };
        for _ in 0..self.random.range(0, 2) {
            if self.plain_transaction(&mut rival).await == Done::Dead {
                break;
            }
        }
        true
    }

    /// Queues a record, now and then without the patience to wait for it.
    async fn record(
        &mut self,
        transaction: &muslin::kafka::Transaction<'_>,
        place: usize,
        n: u64,
    ) -> Option<(usize, Queued)> {
        let partition = self.random.range(0, self.run.layout.partitions as u64 - 1) as i32;
        let id = format!("{}/{n}", self.run.history().transactions[place].id);
        let value = format!("{id}|{}", "x".repeat(self.random.range(0, 300) as usize));
        let record = Record::to(TOPIC).expect("a topic's name").partition(Partition(partition)).value(value);
        let begin = self.run.network.elapsed();
        let queued = if self.random.percent(4) {
            // Given up before it is done, it is not queued.
            timeout(self.random.millis(0, 200), transaction.enqueue(record)).await.ok()
        } else {
            Some(transaction.enqueue(record).await)
        };
        // The first record waits for the topic's partitions too.
        in_time(&self.run, "enqueue", begin, self.max_block + LOOK_UP);
        let told = &mut self.run.history().transactions[place];
        match queued {
            Some(Ok(queued)) => {
                told.records.push((partition, id, None));
                Some((told.records.len() - 1, queued))
            }
            _ => {
                told.refused.push(id);
                None
            }
        }
    }

    /// Waits in the background for what becomes of records.
    fn watch(&mut self, place: usize, queued: Vec<(usize, Queued)>) {
        let (run, limit) = (Arc::clone(&self.run), self.delivery_timeout + GRACE);
        self.outcomes.spawn(async move {
            for (n, queued) in queued {
                let outcome = timeout(limit, queued).await;
                let mut history = run.history();
                let told = &mut history.transactions[place];
                match outcome {
                    Ok(Ok(placed)) => told.records[n].2 = Some(placed.offset.0).filter(|offset| *offset >= 0),
                    Ok(Err(e)) => told.lost.push(format!("{}: {}", told.records[n].1, e.report())),
                    Err(_) => {
                        let what = format!("record {} has no outcome after {limit:?}", told.records[n].1);
                        drop(history);
                        run.note(what);
                        return;
                    }
                }
            }
        });
    }

    /// Sends offsets for the group of the producer's name. Whether they were refused.
    async fn offsets(
        &mut self,
        transaction: &muslin::kafka::Transaction<'_>,
        group: &str,
        place: usize,
        step: u64,
    ) -> bool {
        let topic = Topic::new(TOPIC).expect("a topic's name");
        let offset = (self.transactions * 10 + step) as i64;
        let partitions: Vec<i32> =
            (0..self.run.layout.partitions).filter(|_| self.random.percent(60)).collect();
        let entries = partitions.iter().map(|p| ((topic.clone(), Partition(*p)), Offset(offset)));
        let group = GroupMetadata::new(group);
        let begin = self.run.network.elapsed();
        let sent = if self.random.percent(5) {
            timeout(self.random.millis(0, 200), transaction.send_offsets(&group, entries)).await.ok()
        } else {
            Some(transaction.send_offsets(&group, entries).await)
        };
        in_time(&self.run, "send_offsets", begin, self.max_block);
        let told = &mut self.run.history().transactions[place];
        let offsets = partitions.into_iter().map(|p| (p, offset));
        match sent {
            Some(Ok(())) => told.offsets.extend(offsets),
            Some(Err(_)) => return true,
            None => told.unsure_offsets.extend(offsets),
        }
        false
    }

    /// Whether the end is known.
    async fn commit(
        &mut self,
        transaction: muslin::kafka::Transaction<'_>,
        life: &Life,
        place: usize,
        refused: bool,
    ) -> bool {
        let begin = self.run.network.elapsed();
        let result = transaction.commit().await;
        in_time(&self.run, "commit", begin, self.delivery_timeout + self.max_block);
        let end = told(result);
        let known = !matches!(end, End::Unknown(_));
        let (id, empty) = {
            let told = &self.run.history().transactions[place];
            (told.id.clone(), told.records.is_empty())
        };
        if end == End::Committed && refused {
            self.run.note(format!("transaction {id} was committed though its offsets were refused"));
        }
        if end == End::Committed && life.fenced && !empty {
            self.run.note(format!("transaction {id} was committed though another producer has its id"));
        }
        self.ended(place, end);
        known
    }

    async fn abort(&mut self, transaction: muslin::kafka::Transaction<'_>, place: usize) -> bool {
        let begin = self.run.network.elapsed();
        let result = transaction.abort().await;
        in_time(&self.run, "abort", begin, self.delivery_timeout + self.max_block);
        if let Err(e) = &result
            && e.is_ambiguous()
        {
            self.run.note(format!("an abort says that it may be a commit: {}", e.report()));
        }
        self.ended(place, End::Aborted);
        result.is_ok()
    }

    fn ended(&self, place: usize, end: End) {
        self.run.history().transactions[place].end = Some(end);
    }

    /// What a group has committed just now.
    async fn look(&self, group: &str) {
        let topic = Topic::new(TOPIC).expect("a topic's name");
        let Ok(committed) = self.client.committed(group, &topic).await else { return };
        for (partition, offset) in committed {
            self.run.history().seen_offsets.insert((group.to_owned(), partition.0, offset.0));
        }
    }

    /// The network is well again: within some time a transaction is committed, and the producer closes in peace.
    async fn finale(mut self, mut worker: Option<Worker>) {
        let begin = self.run.network.elapsed();
        loop {
            if self.run.network.elapsed() - begin > CALM {
                self.run.note(format!("no transaction of {} was committed within {CALM:?} of calm", self.id));
                break;
            }
            let Some(mut w) = self.worker(worker.take()).await else { break };
            match self.plain_transaction(&mut w).await {
                Done::Committed => {
                    if let Err(e) = w.producer.close(Duration::from_secs(60)).await {
                        self.run.note(format!("{} does not close in peace: {}", w.life.name, e.report()));
                    }
                    break;
                }
                Done::Otherwise => worker = Some(w),
                Done::Dead => {}
            }
        }
        while let Some(outcome) = self.outcomes.join_next().await {
            outcome.unwrap();
        }
    }
}

fn told(result: Result<()>) -> End {
    match result {
        Ok(()) => End::Committed,
        Err(e) if e.is_ambiguous() => End::Unknown(e.report()),
        Err(e) => End::Failed(e.report()),
    }
}

fn in_time(run: &Run, what: &str, begin: Duration, limit: Duration) {
    let took = run.network.elapsed() - begin;
    if took > limit + GRACE {
        run.note(format!("{what} took {took:?} of {limit:?}"));
    }
}

/// Reads what was committed, and what the groups have, once everything is over.
pub async fn read_log(run: &Run) {
    tokio::time::sleep(CALM).await;
    let mut random = Random::new(run.layout.seed, "checker");
    let Some(client) = run.client("checker", &mut random).await else { return };
    let topic = Topic::new(TOPIC).expect("a topic's name");
    let Some(last) = run.patiently("the last producer", || client.producer().build()).await else { return };
    for p in 0..run.layout.partitions {
        let record = Record::to_topic(topic.clone()).partition(Partition(p)).value("end");
        if let Err(e) = last.send(record).await {
            run.note(format!("the last record of partition {p}: {}", e.report()));
            return;
        }
    }
    let built = run.patiently("the checker", || {
        let builder = client.simple_consumer().topics([TOPIC]).start(StartAt::Earliest);
        builder.isolation(Isolation::ReadCommitted).build()
    });
    let Some(mut consumer) = built.await else { return };
    let mut log: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    let mut left = run.layout.partitions;
    while left > 0 {
        match timeout(Duration::from_secs(10), consumer.next()).await {
            Ok(Some(Ok(delivery))) => {
                let value =
                    delivery.value().map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
                let id = value.split('|').next().unwrap_or_default().to_owned();
                if id == "end" {
                    left -= 1;
                } else {
                    log.entry(delivery.partition().0).or_default().push((delivery.offset().0, id));
                }
                delivery.ack();
            }
            other => {
                run.note(format!(
                    "a transaction is still open: {left} partitions cannot be read to their ends: {other:?}"
                ));
                break;
            }
        }
    }
    run.history().log = log;
    let groups: BTreeSet<String> = run.history().transactions.iter().map(|t| t.producer.clone()).collect();
    for group in groups {
        let committed = run.patiently("the offsets of a group", || client.committed(&group, &topic)).await;
        for (partition, offset) in committed.unwrap_or_default() {
            run.history().last_offsets.insert((group.clone(), partition.0), offset.0);
        }
    }
}
