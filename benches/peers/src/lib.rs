//! What the peers share: the flags, the records and the report of `muslin bench`, so that only the client differs.

// The very files of `muslin bench`: the same records, the same clock.
#[path = "../../../src/bin/muslin/commands/bench/cost.rs"]
mod cost;
#[allow(dead_code)]
#[path = "../../../src/bin/muslin/commands/bench/events.rs"]
mod events;

use std::process::exit;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};

/// A key and a value.
pub type Event = (bytes::Bytes, bytes::Bytes);

/// What a run is to do.
#[derive(Debug)]
pub struct Args {
    /// `produce`, `latency` or `consume`.
    pub op: String,
    pub kafka: String,
    pub topic: String,
    pub count: u64,
    pub size: usize,
    pub codec: String,
    /// The codec's level; the client's own where it is not given.
    pub level: Option<i32>,
    /// How many partitions the topic has; only the floor needs to be told.
    pub partitions: i32,
}

/// Records whose outcome is not looked at yet, as in `muslin bench`.
pub const WINDOW: usize = 100_000;
/// The size of a batch in bytes.
pub const BATCH: usize = 64 << 10;

/// Ends the program with a word on what is wrong.
pub fn die(what: impl std::fmt::Display) -> ! {
    eprintln!("{what}");
    exit(2)
}

impl Args {
    /// A producer's, from the command line. `pool` prints the records and ends.
    pub fn parse() -> Self {
        Self::of(&["produce", "latency", "pool"])
    }

    /// A consumer's, from the command line.
    pub fn consumer() -> Self {
        Self::of(&["consume"])
    }

    fn of(ops: &[&str]) -> Self {
        let mut words = std::env::args().skip(1);
        let mut args = Self {
            op: words.next().unwrap_or_default(),
            kafka: String::new(),
            topic: String::new(),
            count: 10_000,
            size: 100,
            codec: "none".into(),
            level: None,
            partitions: 6,
        };
        fn number<T: std::str::FromStr>(flag: &str, text: &str) -> T {
            text.parse().unwrap_or_else(|_| die(format!("{flag} takes a number, not `{text}`")))
        }
        while let Some(flag) = words.next() {
            let value = words.next().unwrap_or_else(|| die(format!("{flag} takes a value")));
            match flag.as_str() {
                "--kafka" => args.kafka = value,
                "--topic" => args.topic = value,
                "--count" => args.count = number(&flag, &value),
                "--size" => args.size = number(&flag, &value),
                "--codec" => args.codec = value,
                "--level" => args.level = Some(number(&flag, &value)),
                "--partitions" => args.partitions = number(&flag, &value),
                _ => die(format!("there is no {flag}")),
            }
        }
        match args.op.as_str() {
            op if !ops.contains(&op) => die(format!("`{op}` is none of {}", ops.join(", "))),
            "pool" => {
                for (key, value) in events::pool(args.size) {
                    println!("{} {}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
                }
                exit(0)
            }
            _ if args.kafka.is_empty() || args.topic.is_empty() => die("--kafka and --topic are needed"),
            _ => args,
        }
    }

    /// 5 ms, or none where each send is awaited.
    pub fn linger(&self) -> Duration {
        Duration::from_millis(if self.op == "latency" { 0 } else { 5 })
    }

    /// The records.
    pub fn pool(&self) -> Vec<Event> {
        events::pool(self.size)
    }
}

/// The measured part of a run.
#[derive(Debug)]
pub struct Run {
    args: Args,
    meter: cost::Meter,
    waits: Vec<u64>,
}

impl Run {
    /// Starts the clock.
    pub fn start(args: Args) -> Self {
        let waits = Vec::with_capacity(if args.op == "latency" { args.count as usize } else { 0 });
        Self { args, meter: cost::Meter::start(), waits }
    }

    /// A single send took so long.
    pub fn waited(&mut self, wait: Duration) {
        self.waits.push(wait.as_nanos() as u64);
    }

    /// Stops the clock, prints the report and ends the program: with 1 if a record failed or has no outcome.
    pub fn end(mut self, peer: &str, sent: u64, failed: u64) -> ! {
        let cost = self.meter.stop();
        let Args { op, codec, level, count, size, .. } = &self.args;
        let (wall, cpu) = (cost.wall.as_secs_f64(), cost.cpu.as_secs_f64());
        self.waits.sort_unstable();
        let at = |thousandths: usize| {
            let rank = (self.waits.len() * thousandths).div_ceil(1000);
            self.waits.get(rank.saturating_sub(1)).map_or(0, |nanos| (nanos + 500) / 1000)
        };
        let waits = match op.as_str() {
            "latency" => {
                format!(r#","p50_us":{},"p99_us":{},"p999_us":{}"#, at(500), at(990), at(999))
            }
            _ => String::new(),
        };
        println!(
            r#"{{"peer":"{peer}","op":"{op}","codec":"{codec}","level":{},"count":{sent},"size":{size},"wall_s":{wall:.3},"cpu_s":{cpu:.3},"max_rss_kb":{},"msgs_per_s":{:.0},"cpu_us_per_msg":{:.3}{waits},"failed":{failed}}}"#,
            level.map_or("null".into(), |level| level.to_string()),
            cost.max_rss_kb.unwrap_or(0),
            sent as f64 / wall,
            cpu * 1e6 / sent as f64,
        );
        exit((failed > 0 || sent < *count).into())
    }
}

/// The clock of a consumer, for its callbacks.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<OnceLock<cost::Meter>>);

impl Clock {
    /// Partitions were assigned, none of them read yet: the clock runs from the first time on.
    pub fn start(&self) {
        self.0.get_or_init(cost::Meter::start);
    }
}

/// What a consumer reads, measured from its assignment to the last record.
#[derive(Debug)]
pub struct Reading {
    args: Args,
    whole: cost::Meter,
    clock: Clock,
    read: u64,
    bytes: u64,
}

impl Reading {
    /// Nothing is read yet. To be made when the program begins: what it costs in all is told too.
    pub fn new(args: Args) -> Self {
        Self { args, whole: cost::Meter::start(), clock: Clock::default(), read: 0, bytes: 0 }
    }

    /// The address of a broker, and the topic.
    pub fn source(&self) -> (&str, &str) {
        (&self.args.kafka, &self.args.topic)
    }

    /// A group that nobody was in before.
    pub fn group(&self) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        format!("bench-{}-{}", std::process::id(), now.as_nanos())
    }

    /// To be started when partitions are assigned.
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// A record with its key and value. Whether it was the last.
    #[inline]
    pub fn record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        self.records(1, key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len))
    }

    /// So many records with so many bytes of keys and values. Whether the last was among them.
    #[inline]
    pub fn records(&mut self, records: u64, bytes: usize) -> bool {
        self.read += records;
        self.bytes += bytes as u64;
        self.read >= self.args.count
    }

    /// Stops the clock and prints the report; the program then leaves its group and ends. Each consumer has to have come to the
    /// same `check`, the bytes of keys and values, but for the floor, which does not look into a batch.
    pub fn end(&self, peer: &str) {
        let meter = self.clock.0.get().unwrap_or_else(|| die("records without an assignment"));
        let (cost, whole) = (meter.stop(), self.whole.stop());
        let (wall, cpu) = (cost.wall.as_secs_f64(), cost.cpu.as_secs_f64());
        let Self { args: Args { op, codec, size, .. }, read, bytes, .. } = self;
        println!(
            r#"{{"peer":"{peer}","op":"{op}","codec":"{codec}","count":{read},"size":{size},"wall_s":{wall:.3},"cpu_s":{cpu:.3},"cpu_all_s":{:.3},"max_rss_kb":{},"msgs_per_s":{:.0},"cpu_us_per_msg":{:.3},"check":{}}}"#,
            whole.cpu.as_secs_f64(),
            cost.max_rss_kb.unwrap_or(0),
            *read as f64 / wall,
            cpu * 1e6 / *read as f64,
            if *bytes == 0 { "null".into() } else { bytes.to_string() },
        );
    }
}

/// How long a consumer waits for its next records before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl rdkafka::ClientContext for Clock {}

impl ConsumerContext for Clock {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(_) = rebalance {
            self.start();
        }
    }
}

/// The settings of librdkafka's consumers; what is not named is at its default.
pub fn librdkafka_consumer(reading: &Reading) -> rdkafka::ClientConfig {
    let mut config = rdkafka::ClientConfig::new();
    config
        .set("bootstrap.servers", reading.source().0)
        .set("group.id", reading.group())
        .set("auto.offset.reset", "earliest")
        .set("socket.nagle.disable", "true");
    config
}

/// The settings of librdkafka's producers; what is not named is at its default.
pub fn librdkafka(args: &Args) -> rdkafka::ClientConfig {
    let mut config = rdkafka::ClientConfig::new();
    config
        .set("bootstrap.servers", &args.kafka)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", args.linger().as_millis().to_string())
        .set("batch.size", BATCH.to_string())
        .set("compression.codec", &args.codec)
        // The places that the others give to the keys.
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true");
    if let Some(level) = args.level {
        config.set("compression.level", level.to_string());
    }
    config
}
