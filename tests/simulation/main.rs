//! The Kafka client, an embedded cluster, the network between them, faults and the clock on one thread, with virtual
//! time: everything that happens follows from one seed.
//!
//! `MUSLIN_SIM_SEEDS` seeds are run from `MUSLIN_SIM_FROM` on (`scripts/simulate.sh SEEDS FROM` sets them). What fails is
//! told with its seed; `MUSLIN_SIM_LOG=1` prints what the client says of itself.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test spawns, sleeps, reads the clock, talks, and fails by a panic"
)]
#![allow(unreachable_pub, reason = "a test's own modules")]

mod checks;
mod history;
mod log;
mod plan;
mod producers;
mod random;
mod tap;
mod transaction_checks;
mod transactions;
mod workload;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use muslin::embedded::Kafka;
use muslin::embedded::faults::Action;
use muslin::embedded::sim::Network;

use self::history::Outcome;
use self::plan::{Plan, REFUSING, STORM};
use self::workload::{Layout, Run, TOPIC};

/// A run that has not ended after so much virtual time hangs.
const END: Duration = Duration::from_secs(1200);
/// A run that has not ended after so much real time spins.
const SPIN: Duration = Duration::from_secs(120);

/// What came of a seed.
#[derive(Debug)]
struct Report {
    seed: u64,
    trace: u64,
    wrong: Vec<String>,
    stored: usize,
    failed: usize,
    unknown: usize,
    got: usize,
    virtual_time: Duration,
    /// How often each kind of fault struck.
    met: BTreeMap<String, usize>,
    /// How the transactions ended.
    ends: BTreeMap<&'static str, usize>,
}

/// What the applications of a run do.
#[derive(Debug, Clone, Copy)]
enum Workload {
    /// Some write, others read and settle what was written.
    Mixed,
    /// All write, in every way that there is.
    Producers,
    /// All write in transactions.
    Transactions,
}

fn simulate(seed: u64, workload: Workload) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run(seed, workload))
}

async fn run(seed: u64, workload: Workload) -> Report {
    let network = Network::new(seed);
    let _log = (setting("MUSLIN_SIM_LOG", 0) > 0)
        .then(|| tracing::subscriber::set_default(log::Log(network.clone())));
    let layout = match workload {
        Workload::Mixed => Layout::new(seed),
        Workload::Producers => Layout::of_producers(seed),
        Workload::Transactions => Layout::of_transactions(seed),
    };
    let plan = match workload {
        Workload::Mixed => Plan::new(seed, layout.brokers, &layout.hosts()),
        Workload::Producers => Plan::of_producers(seed, layout.brokers, &layout.hosts()),
        Workload::Transactions => Plan::of_transactions(seed, layout.brokers, &layout.hosts()),
    };
    if setting("MUSLIN_SIM_LOG", 0) > 0 {
        eprintln!("{layout:#?}\n{plan:#?}");
    }
    let kafka = Kafka::builder()
        .brokers(layout.brokers)
        .topic(TOPIC, layout.partitions)
        .transaction_version(layout.transaction_version)
        .seed(seed)
        .faults(plan.faults)
        .start_on(&network)
        .unwrap();
    let run = Run::new(layout, network.clone(), kafka);
    let whole = whole(Arc::clone(&run), workload, plan.weather);
    if tokio::time::timeout(END, whole).await.is_err() {
        run.history().notes.push(format!("the run hangs: it has not ended after {END:?}"));
    }
    run.collect();
    let mut met = BTreeMap::new();
    run.kafka.faults(|faults| {
        for fault in faults.met() {
            if let Action::Error(code) | Action::ErrorAfter(code) = fault.action {
                let kinds = REFUSING.iter().filter(|(refusing, _)| *refusing == code);
                run.history().refused.extend(kinds.map(|(_, kind)| kind.as_str().to_owned()));
            }
            let name = format!("{:?}", fault.action);
            let name = name.split(['(', ' ']).next().unwrap_or_default().to_owned();
            *met.entry(name).or_default() += 1;
        }
    });
    let history = run.history();
    let mut hasher = DefaultHasher::new();
    (network.trace(), format!("{history:?}")).hash(&mut hasher);
    let count = |f: fn(&Outcome) -> bool| {
        history.sent.iter().filter(|s| s.outcome.as_ref().is_some_and(|(_, o)| f(o))).count()
    };
    let mut ends = BTreeMap::new();
    for transaction in &history.transactions {
        *ends.entry(transaction.told()).or_default() += 1;
    }
    Report {
        seed,
        trace: hasher.finish(),
        wrong: checks::check(&history),
        stored: count(|o| matches!(o, Outcome::Stored { .. })),
        failed: count(|o| matches!(o, Outcome::Failed(..))),
        unknown: count(|o| matches!(o, Outcome::Unknown(..))),
        got: history.got.len(),
        virtual_time: network.elapsed(),
        met,
        ends,
    }
}

/// The storm, the calm after it, and the look at what is left.
async fn whole(run: Arc<Run>, workload: Workload, weather: Vec<plan::Weather>) {
    let mut writers = tokio::task::JoinSet::new();
    let mut readers = tokio::task::JoinSet::new();
    let mut auditors = tokio::task::JoinSet::new();
    for index in 0..run.layout.writers {
        match workload {
            Workload::Mixed => writers.spawn(workload::writer(Arc::clone(&run), index)),
            Workload::Producers => writers.spawn(producers::host(Arc::clone(&run), index)),
            Workload::Transactions => writers.spawn(transactions::host(Arc::clone(&run), index)),
        };
    }
    for (group, members) in run.layout.groups.iter().enumerate() {
        for index in 0..members.len() {
            readers.spawn(workload::reader(Arc::clone(&run), group, index));
        }
        auditors.spawn(workload::auditor(Arc::clone(&run), group));
    }
    let weather = tokio::spawn(plan::blow(run.network.clone(), weather));
    tokio::time::sleep(STORM).await;
    weather.await.unwrap();
    run.network.unblock_all();
    run.kafka.faults(|faults| {
        faults.clear();
        faults.release("storm");
    });
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    match workload {
        Workload::Transactions => transactions::read_log(&run).await,
        Workload::Mixed | Workload::Producers => workload::read_log(&run).await,
    }
    while let Some(reader) = readers.join_next().await {
        reader.unwrap();
    }
    run.done.store(true, Ordering::Relaxed);
    while let Some(auditor) = auditors.join_next().await {
        auditor.unwrap();
    }
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; expected a whole number")),
        Err(_) => default,
    }
}

/// Runs seeds on all processors; the reports, by seed.
fn simulate_all(workload: Workload, from: u64, count: u64) -> Vec<Report> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(count.max(1));
    let next = AtomicU64::new(from);
    // `MUSLIN_SIM_STOP=1`: the first seed that fails is enough.
    let (stop, found) = (setting("MUSLIN_SIM_STOP", 0) > 0, AtomicBool::new(false));
    let reports = std::sync::Mutex::new(Vec::new());
    // Which seed each thread is at, and since when: for one that spins.
    let at = std::sync::Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (next, reports, at, found) = (&next, &reports, &at, &found);
                scope.spawn(move || {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= from + count {
                            return;
                        }
                        if stop && found.load(Ordering::Relaxed) {
                            return;
                        }
                        at.lock().unwrap().insert(worker, (seed, Instant::now()));
                        let report = std::panic::catch_unwind(AssertUnwindSafe(|| simulate(seed, workload)));
                        let report = report.unwrap_or_else(|panic| {
                            let text = panic.downcast_ref::<String>().cloned();
                            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
                            failed(seed, format!("panicked: {}", text.unwrap_or_default()))
                        });
                        at.lock().unwrap().remove(&worker);
                        found.fetch_or(!report.wrong.is_empty(), Ordering::Relaxed);
                        reports.lock().unwrap().push(report);
                    }
                })
            })
            .collect();
        while !workers.iter().all(|w| w.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            for (seed, since) in at.lock().unwrap().values() {
                if since.elapsed() > SPIN {
                    // Its thread cannot be ended.
                    eprintln!(
                        "seed {seed} spins: no end after {SPIN:?}; repeat: scripts/simulate.sh 1 {seed}"
                    );
                    std::process::abort();
                }
            }
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.sort_by_key(|r| r.seed);
    reports
}

fn failed(seed: u64, what: String) -> Report {
    Report {
        seed,
        trace: 0,
        wrong: vec![what],
        stored: 0,
        failed: 0,
        unknown: 0,
        got: 0,
        virtual_time: Duration::ZERO,
        met: BTreeMap::new(),
        ends: BTreeMap::new(),
    }
}

#[test]
fn no_seed_breaks_a_promise() {
    no_seed_breaks_one_of(Workload::Mixed);
}

#[test]
fn no_seed_of_transactions_breaks_a_promise() {
    no_seed_breaks_one_of(Workload::Transactions);
}

#[test]
fn no_seed_of_the_producers_breaks_a_promise() {
    no_seed_breaks_one_of(Workload::Producers);
}

fn no_seed_breaks_one_of(workload: Workload) {
    let usual = match workload {
        Workload::Mixed | Workload::Producers => 200,
        Workload::Transactions => 100,
    };
    let (from, count) = (setting("MUSLIN_SIM_FROM", 1), setting("MUSLIN_SIM_SEEDS", usual));
    let begin = Instant::now();
    let reports = simulate_all(workload, from, count);
    let sum = |f: fn(&Report) -> usize| reports.iter().map(f).sum::<usize>();
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, n) in reports.iter().flat_map(|r| &r.met) {
        *met.entry(name).or_default() += n;
    }
    let hours = reports.iter().map(|r| r.virtual_time).sum::<Duration>().as_secs_f64() / 3600.0;
    println!(
        "{workload:?}: {count} seeds from {from}: {hours:.1} virtual hours in {:.1?}; faults: {met:?}",
        begin.elapsed()
    );
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, n) in reports.iter().flat_map(|r| &r.ends) {
        *ends.entry(name).or_default() += n;
    }
    match workload {
        Workload::Transactions => println!("transactions: {ends:?}"),
        Workload::Mixed | Workload::Producers => println!(
            "{} records stored, {} failed, {} unknown; {} deliveries",
            sum(|r| r.stored),
            sum(|r| r.failed),
            sum(|r| r.unknown),
            sum(|r| r.got),
        ),
    }
    if let Some(slow) = reports.iter().max_by_key(|r| r.virtual_time) {
        println!("the longest is seed {}: {:.1?} of virtual time", slow.seed, slow.virtual_time);
    }
    let bad: Vec<&Report> = reports.iter().filter(|r| !r.wrong.is_empty()).collect();
    for report in &bad {
        println!("seed {} (repeat: scripts/simulate.sh 1 {}):", report.seed, report.seed);
        for line in &report.wrong {
            println!("    {line}");
        }
    }
    let seeds: Vec<u64> = bad.iter().map(|r| r.seed).collect();
    assert!(bad.is_empty(), "{} of {count} seeds failed: {seeds:?}", bad.len());
}

#[test]
fn the_same_seed_twice_does_the_same() {
    for workload in [Workload::Mixed, Workload::Producers, Workload::Transactions] {
        let seeds = setting("MUSLIN_SIM_FROM", 1)..;
        let first: Vec<u64> = seeds.clone().take(12).map(|seed| simulate(seed, workload).trace).collect();
        let again: Vec<u64> = seeds.take(12).map(|seed| simulate(seed, workload).trace).collect();
        assert_eq!(first, again, "{workload:?}");
        let mut different = first.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), first.len(), "{workload:?}: other seeds do other things");
    }
}
