//! Which faults strike a run, drawn from its seed.

use std::time::Duration;

use muslin::embedded::faults::{Action, Faults, Rule};
use muslin::embedded::sim::{Network, Quality};
use muslin::{ErrorKind, NodeId};

use super::random::Random;

/// Everything goes wrong before this time, nothing after it.
pub const STORM: Duration = Duration::from_secs(40);

/// Error codes with which a real broker answers in passing.
const PASSING: [(&str, &[i16]); 6] = [
    ("Produce", &[3, 5, 6, 7, 13, 19, 20, 56, 74, 75, 45, 47, 59]),
    ("Fetch", &[3, 5, 6, 13, 56, 74, 75, 9]),
    ("OffsetCommit, OffsetFetch", &[14, 15, 16]),
    ("FindCoordinator", &[15]),
    ("ListOffsets", &[3, 5, 6, 56, 74]),
    ("InitProducerId", &[14, 15, 16]),
];

const REQUESTS: [&str; 9] = [
    "Produce",
    "Produce",
    "Produce",
    "Fetch",
    "Metadata",
    "OffsetCommit",
    "FindCoordinator",
    "ApiVersions",
    "*",
];

/// A fault of the network, from one time to another.
#[derive(Debug, Clone)]
pub struct Weather {
    pub from: Duration,
    pub to: Duration,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    /// One way between two hosts is blocked.
    OneWay(String, String),
    /// Both ways are blocked.
    BothWays(String, String),
    /// All connections of a host are cut, at the beginning.
    Cut(String),
    /// The connections between two hosts break after so many bytes one way.
    CutAfter(String, String, u64),
    /// A way is slow.
    Slow(String, String, Quality),
}

/// All that will go wrong.
#[derive(Debug)]
pub struct Plan {
    pub faults: Faults,
    pub weather: Vec<Weather>,
}

impl Plan {
    pub fn new(seed: u64, brokers: u16, clients: &[String]) -> Self {
        let mut random = Random::new(seed, "plan");
        let mut faults = Faults::new(seed);
        let mut weather = Vec::new();
        // One in ten runs is calm: what breaks there breaks without any fault.
        let count = if random.percent(10) { 0 } else { random.range(1, 12) };
        for _ in 0..count {
            let from = random.millis(0, STORM.as_millis() as u64 * 3 / 4);
            let to = (from + random.millis(20, 12_000)).min(STORM);
            if random.percent(60) {
                let rule = rule(&mut random, brokers, &REQUESTS, &PASSING).after(from).until(to);
                faults.add(rule).expect("room for rules");
            } else {
                weather.push(Weather { from, to, kind: network(&mut random, brokers, clients) });
            }
        }
        if random.percent(25) {
            // Leaders move, some brokers tell the old ones, and clients have reason to ask again and again.
            let from = random.millis(0, STORM.as_millis() as u64 / 2);
            let to = from + random.millis(5000, 20_000);
            for rule in [
                Rule::new("Produce", Action::MoveLeader(None)).map(|r| r.every(random.range(3, 20))),
                Rule::new("Metadata", Action::OldLeaders).and_then(|r| r.chance(0.5)),
                Rule::new("Produce, Fetch", Action::Error(6)).and_then(|r| r.chance(0.2)),
            ] {
                faults.add(rule.expect("a rule").after(from).until(to)).expect("room for rules");
            }
        }
        Self { faults, weather }
    }
}

/// Codes that a broker may answer though it has appended.
const AFTER_APPEND: [i16; 6] = [-1, 3, 6, 7, 20, 56];
/// Codes that refuse a batch for good, and the kinds of error that they become.
pub const REFUSING: [(i16, ErrorKind); 4] =
    [(-1, ErrorKind::Broker), (10, ErrorKind::TooLarge), (29, ErrorKind::Denied), (87, ErrorKind::Rejected)];

impl Plan {
    /// For [`producers`](super::producers): all that can befall a produce request, and what it depends on.
    pub fn of_producers(seed: u64, brokers: u16, clients: &[String]) -> Self {
        let mut random = Random::new(seed, "plan of producers");
        let mut faults = Faults::new(seed);
        let mut weather = Vec::new();
        let count = if random.percent(5) { 0 } else { random.range(2, 14) };
        for _ in 0..count {
            let from = random.millis(0, STORM.as_millis() as u64 * 3 / 4);
            let to = (from + random.millis(20, 12_000)).min(STORM);
            if random.percent(20) {
                weather.push(Weather { from, to, kind: network(&mut random, brokers, clients) });
                continue;
            }
            let rule = if random.percent(40) {
                answer(&mut random)
            } else {
                rule(&mut random, brokers, &REQUESTS, &PASSING)
            };
            faults.add(rule.after(from).until(to)).expect("room for rules");
        }
        Self { faults, weather }
    }
}

/// A broker's word on a produce request, before the work or after it.
fn answer(random: &mut Random) -> Rule {
    let action = match random.range(0, 9) {
        0..=3 => Action::Error(random.pick(PASSING[0].1)),
        4 | 5 => Action::Error(random.pick(&REFUSING).0),
        6 => Action::DropAnswer,
        _ => Action::ErrorAfter(random.pick(&AFTER_APPEND)),
    };
    let rule = Rule::new("Produce", action).expect("an action with a meaning");
    match random.range(0, 3) {
        0 => rule.nth(random.range(1, 30)),
        1 => rule.first(random.range(1, 8)),
        2 => rule.every(random.range(2, 9)),
        _ => rule.chance(0.3).expect("a chance"),
    }
}

/// The requests of transactions, the codes that refuse them before the work, and those that a broker may answer after it.
const TRANSACTIONS: [(&str, &[i16], &[i16]); 6] = [
    ("InitProducerId", &[14, 15, 16, 51], &[15, 16]),
    ("AddPartitionsToTxn", &[3, 14, 15, 16, 29, 51, 120], &[15, 16]),
    ("AddOffsetsToTxn", &[14, 15, 16, 30, 51, 120], &[15, 16]),
    ("TxnOffsetCommit", &[3, 14, 15, 16, 22, 25, 30], &[-1, 7, 15, 16]),
    ("EndTxn", &[14, 15, 16, 51], &[-1, 15, 16]),
    ("Produce", &[3, 5, 6, 7, 10, 13, 19, 20, 29, 47, 56, 59, 74, 75, 87, 120], &AFTER_APPEND),
];
const PASSING_IN_TRANSACTIONS: [(&str, &[i16]); 5] = [
    ("Produce", &[3, 5, 6, 7, 13, 19, 20, 56, 74, 75]),
    ("FindCoordinator", &[15]),
    ("InitProducerId, EndTxn", &[14, 15, 16, 51]),
    ("AddPartitionsToTxn, AddOffsetsToTxn", &[14, 15, 16, 51]),
    ("TxnOffsetCommit, OffsetFetch", &[14, 15, 16]),
];
const REQUESTS_OF_TRANSACTIONS: [&str; 9] = [
    "Produce",
    "Produce",
    "InitProducerId",
    "EndTxn",
    "EndTxn",
    "AddPartitionsToTxn, AddOffsetsToTxn",
    "TxnOffsetCommit",
    "FindCoordinator, Metadata",
    "*",
];

impl Plan {
    /// For [`transactions`](super::transactions): all that can befall the requests of a transaction.
    pub fn of_transactions(seed: u64, brokers: u16, clients: &[String]) -> Self {
        let mut random = Random::new(seed, "plan of transactions");
        let mut faults = Faults::new(seed);
        let mut weather = Vec::new();
        let count = if random.percent(5) { 0 } else { random.range(2, 14) };
        for _ in 0..count {
            let from = random.millis(0, STORM.as_millis() as u64 * 3 / 4);
            let to = (from + random.millis(20, 12_000)).min(STORM);
            if random.percent(20) {
                weather.push(Weather { from, to, kind: network(&mut random, brokers, clients) });
                continue;
            }
            let rule = if random.percent(60) {
                answer_in_transaction(&mut random)
            } else {
                rule(&mut random, brokers, &REQUESTS_OF_TRANSACTIONS, &PASSING_IN_TRANSACTIONS)
            };
            faults.add(rule.after(from).until(to)).expect("room for rules");
        }
        Self { faults, weather }
    }
}

/// A coordinator's or a leader's word within a transaction, or none.
fn answer_in_transaction(random: &mut Random) -> Rule {
    let (request, before, after) = random.pick(&TRANSACTIONS);
    let action = match random.range(0, 11) {
        0..=2 => Action::Error(random.pick(before)),
        3..=5 => Action::ErrorAfter(random.pick(after)),
        6 | 7 => Action::DropAnswer,
        8 => Action::DropRequest,
        9 => Action::Delay(random.millis(1, 15_000)),
        _ if request == "Produce" => Action::MoveLeader(None),
        _ => Action::MoveCoordinator(None),
    };
    let rule = Rule::new(request, action).expect("an action with a meaning");
    match random.range(0, 3) {
        0 => rule.nth(random.range(1, 10)),
        1 => rule.first(random.range(1, 8)),
        2 => rule.every(random.range(2, 9)),
        _ => rule.chance(0.3).expect("a chance"),
    }
}

fn broker(random: &mut Random, brokers: u16) -> NodeId {
    NodeId(random.range(1, u64::from(brokers)) as i32)
}

fn rule(
    random: &mut Random,
    brokers: u16,
    requests: &[&'static str],
    passing: &[(&'static str, &'static [i16])],
) -> Rule {
    let requests = random.pick(requests);
    let (requests, action) = match random.range(0, 15) {
        0..=2 => {
            let (requests, codes) = random.pick(passing);
            (requests, Action::Error(random.pick(codes)))
        }
        3 | 4 => (requests, Action::DropAnswer),
        5 => (requests, Action::DropRequest),
        6 => (requests, Action::CutAnswer(random.range(0, 60) as usize)),
        7 => (requests, Action::Delay(random.millis(1, 8000))),
        8 => (requests, Action::Stall(random.millis(1, 8000))),
        9 => (requests, Action::AnswerTwice),
        10 => (requests, Action::Hold("storm".to_owned())),
        11 => (requests, Action::Restart(random.millis(10, 6000))),
        12 => (requests, Action::Isolate(random.millis(10, 6000))),
        13 => ("Produce", Action::MoveLeader(None)),
        14 => ("Metadata", Action::OldLeaders),
        _ => (
            random.pick(&["Fetch", "Produce", "OffsetCommit"]),
            if random.percent(50) { Action::MoveLeader(None) } else { Action::MoveCoordinator(None) },
        ),
    };
    let heavy = matches!(action, Action::Restart(_) | Action::Isolate(_) | Action::Hold(_));
    let mut rule = Rule::new(requests, action).expect("an action with a meaning");
    if random.percent(40) {
        rule = rule.broker(broker(random, brokers));
    }
    if random.percent(20) {
        rule = rule.client(if random.percent(50) { "writer-*" } else { "reader-*" });
    }
    match random.range(0, 4) {
        0 => rule.nth(random.range(1, 6)),
        1 => rule.first(random.range(1, 3)),
        _ if heavy => rule.nth(random.range(1, 20)),
        2 => rule.every(random.range(2, 6)),
        3 => rule.chance(0.2).expect("a chance"),
        _ => rule.chance(0.6).expect("a chance"),
    }
}

fn network(random: &mut Random, brokers: u16, clients: &[String]) -> Kind {
    let broker = format!("kafka-{}", broker(random, brokers));
    let client = random.pick(clients);
    let (from, to) = if random.percent(50) { (client, broker) } else { (broker, client) };
    match random.range(0, 5) {
        0 => Kind::OneWay(from, to),
        1 => Kind::BothWays(from, to),
        2 => Kind::Cut(from),
        3 | 4 => Kind::CutAfter(from, to, random.range(1, 5000)),
        _ => {
            let least = random.millis(1, 300);
            let most = least + random.millis(0, 2000);
            let bandwidth = random.pick(&[0, 2_000, 20_000, 200_000]);
            Kind::Slow(from, to, Quality { least, most, bandwidth })
        }
    }
}

/// Makes the network's faults happen, each in its time. Ends with the last.
pub async fn blow(network: Network, weather: Vec<Weather>) {
    let mut turns: Vec<(Duration, bool, Kind)> = Vec::new();
    for w in weather {
        turns.push((w.from, true, w.kind.clone()));
        turns.push((w.to, false, w.kind));
    }
    turns.sort_by_key(|t| t.0);
    for (at, begins, kind) in turns {
        tokio::time::sleep(at.saturating_sub(network.elapsed())).await;
        match (begins, kind) {
            (true, Kind::OneWay(a, b)) => network.block(&a, &b),
            (false, Kind::OneWay(a, b)) => network.unblock(&a, &b),
            (true, Kind::BothWays(a, b)) => {
                network.block(&a, &b);
                network.block(&b, &a);
            }
            (false, Kind::BothWays(a, b)) => {
                network.unblock(&a, &b);
                network.unblock(&b, &a);
            }
            (true, Kind::Cut(host)) => drop(network.cut(&host)),
            (true, Kind::CutAfter(a, b, n)) => drop(network.cut_after(&a, &b, n)),
            (true, Kind::Slow(a, b, quality)) => network.set_quality(&a, &b, quality),
            (false, Kind::Slow(a, b, _)) => network.reset_quality(&a, &b),
            (false, Kind::Cut(_) | Kind::CutAfter(..)) => {}
        }
    }
}
