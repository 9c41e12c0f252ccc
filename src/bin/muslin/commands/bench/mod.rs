//! `bench`: loads a broker and measures what this client costs.
//!
//! | file | what |
//! |---|---|
//! | `kafka` | what sends to Kafka: produce, latency |
//! | `consume` | what reads from it |
//! | `events` | pure: the records, the same in every run |
//! | `cost` | time, processor time and memory of this process |

mod consume;
mod cost;
mod events;
mod kafka;

use serde::Serialize;

use crate::connect::Context;
use crate::exit::Outcome;
use crate::output::Tally;
use cost::Cost;

/// Load a broker and measure what this client costs
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    Produce(kafka::ProduceArgs),
    Consume(consume::ConsumeArgs),
    Latency(kafka::LatencyArgs),
}

/// The last line of a run for a program.
#[derive(Debug, Serialize)]
struct Report<'a> {
    peer: &'static str,
    op: &'static str,
    codec: &'a str,
    count: u64,
    size: usize,
    wall_s: f64,
    /// User and system time of this process over the measured part.
    cpu_s: f64,
    /// The most memory that this process ever had; `null` where /proc does not tell.
    max_rss_kb: Option<u64>,
    msgs_per_s: f64,
    cpu_us_per_msg: Option<f64>,
    /// Bytes of all keys and values that were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<u64>,
    #[serde(flatten)]
    waits: Option<Waits>,
    failed: u64,
    ambiguous: u64,
}

/// How long single sends took, in microseconds.
#[derive(Debug, Serialize)]
struct Waits {
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
}

impl Waits {
    /// Of at least one wait in nanoseconds, in any order.
    fn of(mut nanos: Vec<u64>) -> Option<Self> {
        nanos.sort_unstable();
        let last = nanos.len().checked_sub(1)?;
        // The smallest wait that so many in a thousand do not exceed.
        let at = |thousandths: usize| {
            let rank = (nanos.len() * thousandths).div_ceil(1000).saturating_sub(1);
            nanos.get(rank.min(last)).map_or(0, |n| (n + 500) / 1000)
        };
        Some(Self { p50_us: at(500), p99_us: at(990), p999_us: at(999) })
    }
}

/// What a run was.
struct Run<'a> {
    op: &'static str,
    codec: &'a str,
    size: usize,
    check: Option<u64>,
}

impl Run<'_> {
    /// Prints the report.
    fn tell(&self, context: &Context, tally: &Tally, cost: Cost, waits: Option<Waits>) {
        let Cost { wall, cpu, max_rss_kb } = cost;
        let (wall_s, sent) = (wall.as_secs_f64(), tally.sent);
        let per_s = sent as f64 / wall_s.max(1e-9);
        let cpu_us = (sent > 0).then(|| cpu.as_secs_f64() * 1e6 / sent as f64);
        let rounded = |x: f64| (x * 1e3).round() / 1e3;
        let report = Report {
            peer: "muslin",
            op: self.op,
            codec: self.codec,
            count: sent,
            size: self.size,
            wall_s: rounded(wall_s),
            cpu_s: rounded(cpu.as_secs_f64()),
            max_rss_kb,
            msgs_per_s: per_s.round(),
            cpu_us_per_msg: cpu_us.map(rounded),
            failed: tally.failed,
            ambiguous: tally.ambiguous,
            check: self.check,
            waits,
        };
        let mut text = format!("{sent} records of {} bytes in {wall_s:.3} s: {per_s:.0} a second", self.size);
        if let Some(us) = cpu_us {
            text.push_str(&format!(", {us:.3} µs of processor time each"));
        }
        if let Some(kb) = max_rss_kb {
            text.push_str(&format!(", {:.1} MiB at most", kb as f64 / 1024.0));
        }
        if let Some(w) = &report.waits {
            text.push_str(&format!("; p50 {} µs, p99 {} µs, p99.9 {} µs", w.p50_us, w.p99_us, w.p999_us));
        }
        if tally.failed + tally.ambiguous > 0 {
            text.push_str(&format!("; failed {}, ambiguous {}", tally.failed, tally.ambiguous));
        }
        context.console.summary(&report, &text);
    }
}

/// Runs the command.
pub(crate) async fn run(context: Context, bench: Bench) -> Outcome {
    match bench {
        Bench::Produce(args) => kafka::produce(context, args).await,
        Bench::Consume(args) => consume::consume(context, args).await,
        Bench::Latency(args) => kafka::latency(context, args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_waits_that_happened() {
        assert!(Waits::of(Vec::new()).is_none());
        let one = Waits::of(vec![7_000]).unwrap();
        assert_eq!((one.p50_us, one.p99_us, one.p999_us), (7, 7, 7));
        let thousand = Waits::of((1..=1000).rev().map(|us| us * 1000).collect()).unwrap();
        assert_eq!((thousand.p50_us, thousand.p99_us, thousand.p999_us), (500, 990, 999));
    }
}
