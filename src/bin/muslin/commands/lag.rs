//! `lag`: how far Kafka's groups are behind.

use std::time::{Duration, Instant};

use muslin::Error;
use muslin::kafka::{Isolation, LagAlert, LagBuilder, LagPass, PartitionLag};
use serde::Serialize;

use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::{Data, Written};
use crate::units;

/// Tell how far Kafka groups are behind, in records and in time
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  muslin lag
  muslin lag -g billing -g mail -J
  muslin lag -g billing --alert 10000 --alert 5m || page-somebody
  muslin lag --watch --interval 30s
  muslin lag -g billing --for 1m                         # one answer, judged by what was seen in a minute

The lag in time is the age of the oldest record that is not committed. States: keeps_up; behind (records wait, and they
are not seen to become fewer); stalled (records waited for a whole window, and nothing was committed); stopped (records
wait and no member of the group reads them); empty; unknown. Whether a group moves takes more than one look: --watch, --for.

With -J an object a partition: group, topic, partition, committed, end, lag, lag_ms, state; with --watch also at, the
time of the look in ms since 1970. With --alert the status is 1 when over; with --watch as soon as it is.")]
pub(crate) struct Args {
    /// A group; several may be given [default: all]
    #[arg(short, long = "group", value_name = "GROUP")]
    group: Vec<String>,
    /// Look again and again until stopped
    #[arg(short, long)]
    watch: bool,
    /// Look for so long and tell the last look, judged by all of them
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "watch", value_parser = units::some_duration)]
    long: Option<Duration>,
    /// The time between two looks [default: 10s]
    #[arg(long, value_name = "DURATION", requires = "watch", value_parser = units::some_duration)]
    interval: Option<Duration>,
    /// The time over which a group is judged [default: ten intervals]
    #[arg(long, value_name = "DURATION", requires = "watch", value_parser = units::some_duration)]
    window: Option<Duration>,
    /// Status 1 where a lag is above so many records, or such an age (5m); may be given twice
    #[arg(long, value_name = "RECORDS|DURATION", value_parser = alert)]
    alert: Vec<LagAlert>,
    /// Which end counts: of all records, or of those that readers of committed ones may read
    #[arg(long, value_name = "LEVEL", value_parser = ["read_committed", "read_uncommitted"], default_value = "read_uncommitted")]
    isolation: String,
}

fn alert(text: &str) -> Result<LagAlert, String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        return text.parse().map(LagAlert::Records).map_err(|_| format!("`{text}` is too large a number"));
    }
    units::duration(text)
        .map(LagAlert::Age)
        .map_err(|e| format!("{e}; or expected a number of records, as in 10000"))
}

/// Runs the command. `amqp`: a RabbitMQ was named by hand.
pub(crate) async fn run(context: Context, args: Args, amqp: bool) -> Outcome {
    if amqp {
        let told = "`lag` tells of Kafka's groups alone: the queues of a RabbitMQ are not looked at";
        if context.settings.text("bootstrap.servers").is_none() {
            return Err(Failure::wrong_use(format!("{told}; give --kafka HOST:PORT")));
        }
        context.console.warn(told);
    }
    let Some(client) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let isolation = match args.isolation.as_str() {
        "read_committed" => Isolation::ReadCommitted,
        _ => Isolation::ReadUncommitted,
    };
    let mut lag = client.lag().groups(&args.group).isolation(isolation);
    if let Some(window) = args.window {
        lag = lag.window(window);
    }
    let ended = if args.watch {
        let interval = args.interval.unwrap_or(Duration::from_secs(10));
        watch(&context, lag.watch(interval).map_err(Failure::usage)?, &args).await
    } else if let Some(long) = args.long {
        judged(&context, lag, long, &args).await
    } else {
        match context.stop.unless(lag.once()).await {
            None => Ok(Ended::Interrupted),
            Some(pass) => match pass {
                Ok(pass) => show(&context, pass, &args).map(|shown| shown.ended),
                Err(e) => Err(Failure::setup(e)),
            },
        }
    };
    let closed = client.close().await;
    match ended {
        Ok(ended) => closed.map(|()| ended).map_err(Into::into),
        Err(failure) => Err(failure),
    }
}

/// Looks a dozen times within so long and tells what the last look came to.
async fn judged(context: &Context, lag: LagBuilder, long: Duration, args: &Args) -> Outcome {
    // A stall is told once a whole window of it was seen.
    let interval = (long / 12).max(Duration::from_millis(10));
    let mut watch = lag.window(interval * 10).watch(interval).map_err(Failure::usage)?;
    let end = Instant::now() + long;
    loop {
        let Some(pass) = context.stop.unless(watch.next()).await else { return Ok(Ended::Interrupted) };
        if Instant::now() + interval > end {
            return show(context, pass.map_err(Failure::setup)?, args).map(|shown| shown.ended);
        }
        match pass {
            Err(e) if !e.is_retryable() => return Err(Failure::setup(e)),
            // What passes is seen by the next look.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Looks until a signal, an alert, or until nobody reads the output any more.
async fn watch(context: &Context, mut watch: muslin::kafka::LagWatch, args: &Args) -> Outcome {
    let mut first = true;
    loop {
        let Some(pass) = context.stop.unless(watch.next()).await else { return Ok(Ended::Interrupted) };
        match pass {
            Ok(pass) => {
                if !context.console.json && !std::mem::take(&mut first) {
                    let mut data = Data::default();
                    data.line("");
                    data.flush()?;
                }
                let shown = show(context, pass, args)?;
                if shown.over {
                    return Ok(Ended::SomeFailed);
                }
                if shown.written == Written::ReaderGone {
                    return Ok(Ended::Done);
                }
            }
            Err(e) if e.is_retryable() => context.console.error(&e.report()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<i64>,
    group: &'a str,
    topic: &'a str,
    partition: i32,
    committed: Option<i64>,
    end: Option<i64>,
    lag: Option<u64>,
    lag_ms: Option<u64>,
    state: &'static str,
}

/// What became of a pass.
struct Shown {
    over: bool,
    written: Written,
    ended: Ended,
}

fn show(context: &Context, pass: LagPass, args: &Args) -> Result<Shown, Failure> {
    let mut data = Data::default();
    if context.console.json {
        for p in &pass.partitions {
            data.json(&Line {
                at: args.watch.then_some(pass.at.get()),
                group: &p.group,
                topic: p.topic.as_str(),
                partition: p.partition.get(),
                committed: p.committed.map(muslin::Offset::get),
                end: p.end.map(muslin::Offset::get),
                lag: p.lag,
                lag_ms: p.lag_ms,
                state: p.state.as_str(),
            })?;
        }
    } else if pass.partitions.is_empty() && pass.failures.is_empty() {
        context.console.note("no group has committed anything");
    } else if !pass.partitions.is_empty() {
        let head = ["group", "topic", "partition", "committed", "end", "lag", "time", "state"];
        data.table("", head, pass.partitions.iter().map(row).collect());
    }
    let written = data.flush()?;
    let mut over = false;
    for p in pass.partitions.iter().filter(|p| args.alert.iter().any(|alert| alert.is_over(p))) {
        over = true;
        let (lag, age) = (p.lag.unwrap_or(0), p.lag_ms.map_or_else(|| "of unknown age".to_owned(), age));
        context.console.error(&format!(
            "group {}: topic {} partition {}: {lag} records behind, {age}",
            p.group, p.topic, p.partition
        ));
    }
    let mut failures = pass.failures;
    if pass.partitions.is_empty() && !args.watch && !failures.is_empty() {
        // Nothing could be told: the cause says the status.
        let first: Error = failures.remove(0);
        failures.iter().for_each(|e| context.console.error(&e.report()));
        return Err(first.into());
    }
    failures.iter().for_each(|e| context.console.error(&e.report()));
    let ended = if over || !failures.is_empty() { Ended::SomeFailed } else { Ended::Done };
    Ok(Shown { over, written, ended })
}

fn row(p: &PartitionLag) -> [String; 8] {
    let or_none = |n: Option<String>| n.unwrap_or_else(|| "-".to_owned());
    [
        p.group.to_string(),
        p.topic.to_string(),
        p.partition.to_string(),
        or_none(p.committed.map(|n| n.to_string())),
        or_none(p.end.map(|n| n.to_string())),
        or_none(p.lag.map(|n| n.to_string())),
        or_none(p.lag_ms.map(age)),
        p.state.as_str().replace('_', " "),
    ]
}

/// An age as a person reads it: two units at most.
fn age(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let seconds = ms / 1000;
    let Some(at) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else { return format!("{ms}ms") };
    let mut left = seconds;
    let mut text = String::new();
    for (unit, name) in UNITS.iter().skip(at).take(2) {
        if left >= *unit {
            text.push_str(&format!("{}{name}", left / unit));
        }
        left %= unit;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_records_or_a_time() {
        assert_eq!(alert("10000"), Ok(LagAlert::Records(10_000)));
        assert_eq!(alert("0"), Ok(LagAlert::Records(0)));
        assert_eq!(alert("5m"), Ok(LagAlert::Age(Duration::from_secs(300))));
        for text in ["", "-1", "5x", "many", "99999999999999999999"] {
            assert!(alert(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_have_two_units() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1500, "1s"),
            (61_000, "1m1s"),
            (3_600_000, "1h"),
            (3_659_000, "1h"),
            (90_061_000, "1d1h"),
        ] {
            assert_eq!(age(ms), text);
        }
    }
}
