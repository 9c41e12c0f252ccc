//! The operations on Kafka. Every outcome is looked at; a record that failed makes the status 1.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use muslin::codec::compression::Compression;
use muslin::kafka::{Client, Producer, Queued, Record};
use muslin::{ErrorKind, Topic};

use super::cost::{Cost, Meter};
use super::events::{self, Event};
use super::{Run, Waits};
use crate::args::CODECS;
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::{Progress, Tally};

/// Records whose outcome is not looked at yet. 24 bytes each, besides the producer's buffer.
const WINDOW: usize = 100_000;
const LINGER: Duration = Duration::from_millis(5);
const BATCH: usize = 64 << 10;
/// How long the producer may take to close once everything is confirmed.
const CLOSE: Duration = Duration::from_secs(5);

// What both send. No doc comment: it would stand in for theirs.
#[derive(Debug, clap::Args)]
struct Load {
    /// The topic; it is made where the broker allows that
    #[arg(short, long, value_name = "TOPIC")]
    topic: String,
    /// Bytes of key and value together, from 64 to 1,000,000
    #[arg(short, long, value_name = "BYTES", default_value_t = 100, value_parser = size)]
    size: usize,
    /// Compress batches
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none", value_parser = CODECS)]
    codec: String,
}

/// Send records as fast as the broker takes them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  muslin bench produce --kafka localhost:9092 --topic load --count 1000000 --size 100 --codec lz4 --output json

acks=all, idempotent, linger 5 ms, batches of 64 KiB (-X sets others), 10,000 keys, and every outcome checked. The 10,000
JSON events are made before the clock starts. With --output json the last line is an object {\"peer\", \"op\", \"codec\",
\"count\", \"size\", \"wall_s\", \"cpu_s\", \"max_rss_kb\", \"msgs_per_s\", \"cpu_us_per_msg\", \"failed\", \"ambiguous\"}: cpu_s is user
and system time of this process over the measured part, max_rss_kb its peak since it began.")]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    load: Load,
    /// How many records
    #[arg(short, long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
}

/// Send records one at a time, each when the one before is confirmed, and tell how long they took
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  muslin bench latency --kafka localhost:9092 --topic load --count 10000

acks=all, idempotent, no linger. With --output json the last line has what `bench produce` prints, and \"p50_us\", \"p99_us\",
\"p999_us\": microseconds from a send to its confirm.")]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    load: Load,
    /// How many records
    #[arg(short, long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    count: u64,
}

pub(super) fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if events::SIZES.contains(&n) => Ok(n),
        _ => Err(format!(
            "`{text}` is no size; expected a number of bytes from {} to {}",
            events::SIZES.start(),
            events::SIZES.end()
        )),
    }
}

/// What a run needs, made before the clock starts.
struct Bench {
    context: Context,
    client: Client,
    producer: Producer,
    topic: Topic,
    codec: String,
    pool: Vec<Event>,
    size: usize,
}

impl Bench {
    /// `None` if a signal came first.
    async fn start(context: Context, load: Load, linger: Duration) -> Result<Option<Self>, Failure> {
        let Load { topic, size, codec } = load;
        let topic = Topic::new(&topic).map_err(Failure::usage)?;
        let compression = codec.parse::<Compression>().map_err(Failure::usage)?;
        let Some(client) = context.kafka().await? else { return Ok(None) };
        let builder = client.producer().linger(linger).batch_size(BATCH);
        let builder = context.settings.producer(builder).map_err(Failure::usage)?.compression(compression);
        let setup = async {
            // The leaders are known before the clock starts; a topic that is not there is made by the first record.
            match client.topic(&topic).await {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            builder.build().await
        };
        let Some(producer) = context.stop.unless(setup).await.transpose().map_err(Failure::setup)? else {
            return Ok(None);
        };
        let pool = events::pool(size);
        Ok(Some(Self { context, client, producer, topic, codec, pool, size }))
    }

    fn record(&self, n: u64) -> Record<'_> {
        let at = usize::try_from(n % events::POOL as u64).unwrap_or(0);
        let record = Record::to_topic(&self.topic);
        match self.pool.get(at) {
            Some((key, value)) => record.key(key).value(value),
            None => record,
        }
    }

    /// Prints the report, closes, and gives the status.
    async fn end(self, op: &'static str, tally: &Tally, cost: Cost, waits: Option<Waits>) -> Outcome {
        let _ = self.producer.close(CLOSE).await;
        let _ = self.client.close().await;
        let run = Run { op, codec: &self.codec, size: self.size, check: None };
        run.tell(&self.context, tally, cost, waits);
        Ok(if self.context.stop.is_asked() { Ended::Interrupted } else { tally.ended() })
    }
}

/// `bench produce`.
pub(crate) async fn produce(context: Context, args: ProduceArgs) -> Outcome {
    let ProduceArgs { load, count } = args;
    let Some(bench) = Bench::start(context, load, LINGER).await? else { return Ok(Ended::Interrupted) };
    let console = bench.context.console;
    let mut tally = Tally::new(console);
    let mut progress = Progress::start(console);
    let mut window: VecDeque<Queued> = VecDeque::with_capacity(WINDOW);
    let meter = Meter::start();
    for n in 0..count {
        if n % 1024 == 0 {
            if bench.context.stop.is_asked() {
                break;
            }
            progress.tick(|| format!("sent {n} of {count}"));
        }
        if window.len() == WINDOW
            && let Some(queued) = window.pop_front()
        {
            settle(&mut tally, queued).await;
        }
        match bench.producer.enqueue(bench.record(n)).await {
            Ok(queued) => window.push_back(queued),
            Err(e) => {
                tally.failure(&format!("record {n}"), &e);
                // The next one would wait as long for the same.
                break;
            }
        }
    }
    // What is queued leaves without lingering; each record tells its own outcome below.
    let _ = bench.producer.flush().await;
    for queued in window {
        settle(&mut tally, queued).await;
    }
    let cost = meter.stop();
    bench.end("produce", &tally, cost, None).await
}

async fn settle(tally: &mut Tally, queued: Queued) {
    let partition = queued.partition();
    match queued.await {
        Ok(_) => tally.sent += 1,
        Err(e) => tally.failure(&format!("partition {partition}"), &e),
    }
}

/// `bench latency`.
pub(crate) async fn latency(context: Context, args: LatencyArgs) -> Outcome {
    let LatencyArgs { load, count } = args;
    let Some(bench) = Bench::start(context, load, Duration::ZERO).await? else {
        return Ok(Ended::Interrupted);
    };
    let console = bench.context.console;
    let mut tally = Tally::new(console);
    let mut progress = Progress::start(console);
    let mut waits = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let meter = Meter::start();
    for n in 0..count {
        if bench.context.stop.is_asked() {
            break;
        }
        progress.tick(|| format!("sent {n} of {count}"));
        let record = bench.record(n);
        let began = Instant::now();
        match bench.producer.send(record).await {
            Ok(_) => {
                tally.sent += 1;
                waits.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            Err(e) => {
                tally.failure(&format!("record {n}"), &e);
                break;
            }
        }
    }
    let cost = meter.stop();
    bench.end("latency", &tally, cost, Waits::of(waits)).await
}
