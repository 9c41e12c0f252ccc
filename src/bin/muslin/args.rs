//! The arguments, as `--help` shows them. Names and flags are fixed: scripts of others depend on them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::format::{self, Format};
use crate::units;

const EXAMPLES: &str = "\
Examples:
  muslin demo
  muslin serve --kafka 9092 --amqp 5672 &
  export MUSLIN_KAFKA=localhost:9092 MUSLIN_AMQP=amqp://guest:guest@localhost:5672/
  echo '{\"total\":99}' | muslin event publish order.created --key order-42 -
  muslin event handle order.created -g billing --exec ./book --dead-letter billing.dlq
  muslin consume -t events.order.created -o beginning -e -J | jq .value
  muslin enqueue -q emails email.send --data '{\"to\":\"a@example.org\"}'
  muslin work -q emails --exec ./send --concurrency 8

Exit status: 0 done, 1 some of the work failed, 2 wrong use, 3 cannot reach or not allowed, 130 interrupted.";

/// What `-z` takes.
pub(crate) const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Kafka and RabbitMQ from the command line: nothing lost, nothing done twice.
#[derive(Debug, Parser)]
#[command(name = "muslin", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Common {
    /// Kafka brokers to begin with [or MUSLIN_KAFKA]
    #[arg(long, global = true, value_name = "HOST:PORT,...")]
    pub(crate) kafka: Option<String>,
    /// RabbitMQ, as amqp://user:password@host:port/vhost [or MUSLIN_AMQP; better with a password, which `ps` shows]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) amqp: Option<String>,
    /// Read settings from a properties file with the names of librdkafka or Java, and amqp.url
    #[arg(short = 'F', global = true, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Set one of these settings
    #[arg(short = 'X', global = true, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Text for a person, or JSON lines for a program
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: OutputFormat,
    /// The same as --output json
    #[arg(short = 'J', global = true)]
    pub(crate) json: bool,
    /// Log to stderr what is done; -vv more, -vvv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(crate::commands::demo::Args),
    Produce(Produce),
    Consume(Consume),
    /// Publish and handle domain events on Kafka
    #[command(subcommand)]
    Event(Event),
    Publish(Publish),
    Get(Get),
    Enqueue(Enqueue),
    Work(Work),
    Serve(crate::commands::serve::Args),
    #[command(subcommand)]
    Topics(crate::commands::topics::Topics),
    #[command(subcommand)]
    Groups(crate::commands::groups::Groups),
    Lag(crate::commands::lag::Args),
    #[command(subcommand)]
    Bench(crate::commands::bench::Bench),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Event {
    Publish(EventPublish),
    Handle(EventHandle),
}

/// Send a Kafka record per line of stdin
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  printf 'k1:v1\\nk2:v2\\n' | muslin produce -t orders -K : -z zstd
  muslin consume -t orders -e -J | muslin produce -t copy -J

With -J each line is an object {\"key\", \"value\", \"headers\", \"partition\", \"timestamp\"}; bytes stand as
key_base64 and value_base64, headers as [[name, value], ...]. Without a key and -p the partition is chosen freely.")]
pub(crate) struct Produce {
    /// The topic
    #[arg(short, long, value_name = "TOPIC")]
    pub(crate) topic: String,
    /// The key stands before this separator; a line without it has no key (escapes: \t \xHH)
    #[arg(short = 'K', value_name = "SEP", value_parser = format::separator)]
    pub(crate) key_separator: Option<std::vec::Vec<u8>>,
    /// Add a header to each record
    #[arg(short = 'H', value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// Send all records to this partition
    #[arg(short, long, value_name = "PARTITION", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) partition: Option<i32>,
    /// Compress batches
    #[arg(short = 'z', value_name = "CODEC", value_parser = CODECS)]
    pub(crate) compression: Option<String>,
    /// Send all lines in one transaction of this transactional id: committed at the end, aborted if one fails
    #[arg(long, value_name = "ID")]
    pub(crate) transactional_id: Option<String>,
}

/// Print Kafka records
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  muslin consume -t orders -o beginning -e -f '%p %o %k %s\\n'
  muslin consume -t orders -g audit -J >> audit.jsonl

Without -f and -J the value is printed, and a line feed. A format may hold %t topic, %p partition, %o offset, %k key,
%s value, %T timestamp, %h headers, %S and %K the sizes of value and key (-1: null), %%, \\n \\r \\t \\xHH; nothing is
added to it. With -g, what was printed is committed and what was not is not; it is a member of
the group and shares the partitions with the others, unless -p or another -o than stored names what to read: then the group must
have no members, or nothing is committed.")]
pub(crate) struct Consume {
    /// A topic; several may be given
    #[arg(short, long, value_name = "TOPIC", required = true, num_args = 1..)]
    pub(crate) topic: Vec<String>,
    /// Join this group: share the partitions with its members, go on where it has committed, commit what is printed
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Where to begin: beginning, end, stored (what -g committed), an offset, or @TIME (ms since 1970, or ISO 8601)
    /// [default: stored with -g, else beginning]
    #[arg(short, long, value_name = "WHERE", value_parser = crate::commands::consume::start)]
    pub(crate) offset: Option<muslin::kafka::StartAt>,
    /// Read this partition only
    #[arg(short, long, value_name = "PARTITION", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) partition: Option<i32>,
    /// Stop after so many records
    #[arg(short, long, value_name = "COUNT")]
    pub(crate) count: Option<u64>,
    /// Stop at the end as it is at the start
    #[arg(short, long)]
    pub(crate) exit: bool,
    /// Print records by this format
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::parse, conflicts_with = "json")]
    pub(crate) format: Option<Format>,
    /// Whether records of open and aborted transactions are read [default: read_committed]
    #[arg(long, value_name = "LEVEL", value_parser = ["read_committed", "read_uncommitted"])]
    pub(crate) isolation: Option<String>,
}

/// Publish domain events and print their ids
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true).args(["data", "stdin"]))]
#[command(after_help = "\
Examples:
  muslin event publish order.created --key order-42 --data '{\"total\":99}'
  jq -c .orders[] orders.json | muslin event publish order.created -

The topic is events.TYPE, the value {\"event_id\", \"event_type\", \"occurred_at\", \"data\"}.")]
pub(crate) struct EventPublish {
    /// The event's type, such as order.created
    #[arg(value_name = "TYPE")]
    pub(crate) event_type: String,
    /// The aggregate it belongs to; events of one aggregate keep their order
    #[arg(long, value_name = "AGGREGATE")]
    pub(crate) key: Option<String>,
    /// The event's id; with - there must be one line only [default: a new UUID]
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<String>,
    /// What happened
    #[arg(long, value_name = "JSON")]
    pub(crate) data: Option<String>,
    /// Read one JSON value per line of stdin
    #[arg(value_name = "-", value_parser = dash)]
    pub(crate) stdin: Option<()>,
}

const EXEC_HELP: &str = "\
COMMAND is run by `sh -c` for each one, with the JSON on stdin. Exit status 0 is done, 65 is a dead letter now, any
other is tried again with a backoff. Without --dead-letter one that cannot be worked ends the run and comes again.";

/// Run a command for each domain event
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  muslin event handle order.created -g billing --exec './book \"$MUSLIN_KEY\"' --dead-letter billing.dlq
  muslin event handle order.created order.paid -g mail --concurrency 32 --store redb:keys.redb \\
      --exec 'muslin enqueue -q emails \"$MUSLIN_TYPE\" --id \"$MUSLIN_ID\" -'

{EXEC_HELP}
Events of one key are handled in their order. Facts in the environment: MUSLIN_ID, MUSLIN_TYPE, MUSLIN_OCCURRED_AT,
MUSLIN_ATTEMPT, MUSLIN_KEY, MUSLIN_TOPIC, MUSLIN_PARTITION, MUSLIN_OFFSET, MUSLIN_TIMESTAMP, MUSLIN_GROUP. They are
whatever the sender wrote: quote them."))]
pub(crate) struct EventHandle {
    /// Types of events
    #[arg(value_name = "TYPE", required = true)]
    pub(crate) types: Vec<String>,
    /// The consumer group; its offsets are committed when everything below them is settled
    #[arg(short, long, value_name = "GROUP")]
    pub(crate) group: String,
    #[command(flatten)]
    pub(crate) exec: Exec,
    /// Put what cannot be handled into this topic
    #[arg(long, value_name = "TOPIC")]
    pub(crate) dead_letter: Option<String>,
}

/// Publish a confirmed, persistent message per line of stdin
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("to").required(true).args(["queue", "exchange"]))]
#[command(after_help = "\
Examples:
  printf 'one\\ntwo\\n' | muslin publish -q greetings
  echo hello | muslin publish -x news -r eu.weather -H lang=en --mandatory

A queue that is not there is made, plain and durable. Messages for a queue are always mandatory.")]
pub(crate) struct Publish {
    /// To this queue
    #[arg(short, long, value_name = "QUEUE")]
    pub(crate) queue: Option<String>,
    /// To this exchange, which must exist
    #[arg(short = 'x', long, value_name = "EXCHANGE", requires = "routing_key")]
    pub(crate) exchange: Option<String>,
    /// With this routing key
    #[arg(short, long, value_name = "ROUTING_KEY", requires = "exchange")]
    pub(crate) routing_key: Option<String>,
    /// Add a header to each message
    #[arg(short = 'H', value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// A message that no queue takes has failed
    #[arg(long)]
    pub(crate) mandatory: bool,
}

/// Print messages of a queue and acknowledge them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  muslin get -q greetings -e
  muslin get -q emails -c 10 --no-ack -J

A message is acknowledged after it is printed.")]
pub(crate) struct Get {
    /// The queue, which must exist
    #[arg(short, long, value_name = "QUEUE")]
    pub(crate) queue: String,
    /// Stop after so many messages
    #[arg(short, long, value_name = "COUNT")]
    pub(crate) count: Option<u64>,
    /// Stop when the queue is empty
    #[arg(short, long)]
    pub(crate) exit: bool,
    /// Look at what is there and leave it: at most 1000 messages, or as -c says
    #[arg(long)]
    pub(crate) no_ack: bool,
}

/// Put tasks into a queue and print their ids
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true).args(["data", "stdin"]))]
#[command(after_help = "\
Examples:
  muslin enqueue -q emails email.send --data '{\"to\":\"a@example.org\"}'
  muslin enqueue -q emails email.remind --data '{\"to\":\"a@example.org\"}' --delay 5m

The body is {\"type\", \"data\"}. A queue that is not there is made, plain and durable. A delayed task waits in the
queue QUEUE.delay.MILLISECONDS, which goes away some time after its last use.")]
pub(crate) struct Enqueue {
    /// The queue
    #[arg(short, long, value_name = "QUEUE")]
    pub(crate) queue: String,
    /// The task's type, such as email.send
    #[arg(value_name = "TYPE")]
    pub(crate) task_type: String,
    /// What is to be done
    #[arg(long, value_name = "JSON")]
    pub(crate) data: Option<String>,
    /// Read one JSON value per line of stdin
    #[arg(value_name = "-", value_parser = dash)]
    pub(crate) stdin: Option<()>,
    /// Let it wait so long before it can be worked: 30s, 5m, 2h
    #[arg(long, value_name = "TIME", value_parser = units::some_duration)]
    pub(crate) delay: Option<Duration>,
    /// The task's id; with - there must be one line only [default: a new UUID]
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<String>,
    /// Its priority; only a queue made with x-max-priority heeds it
    #[arg(long, value_name = "0-255")]
    pub(crate) priority: Option<u8>,
}

/// Run a command for each task of a queue
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  muslin work -q emails --exec ./send --concurrency 8 --timeout 30s --dead-letter emails.dead
  muslin work -q emails --store redb:keys.redb --exec 'jq -r .data.to | xargs ./send'

{EXEC_HELP}
With --store a task is worked once by its id. Facts in the environment: MUSLIN_ID, MUSLIN_TYPE, MUSLIN_ATTEMPT,
MUSLIN_QUEUE, MUSLIN_EXCHANGE, MUSLIN_ROUTING_KEY, MUSLIN_REDELIVERED. They are whatever the sender wrote: quote them."))]
pub(crate) struct Work {
    /// The queue
    #[arg(short, long, value_name = "QUEUE")]
    pub(crate) queue: String,
    #[command(flatten)]
    pub(crate) exec: Exec,
    /// Kill the command, and all it started, after this time; then it is tried again
    #[arg(long, value_name = "TIME", value_parser = units::some_duration, default_value = "5m")]
    pub(crate) timeout: Duration,
    /// Put what cannot be worked into this queue
    #[arg(long, value_name = "QUEUE")]
    pub(crate) dead_letter: Option<String>,
}

/// What `event handle` and `work` share.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The command, run by `sh -c`
    #[arg(long = "exec", value_name = "COMMAND")]
    pub(crate) command: String,
    /// How many commands may run at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// How often one is tried in all
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempts: u32,
    /// Remember what is done, so that what comes again is not done again: memory, or redb:PATH to outlive the process
    /// [default: nothing is remembered]
    #[arg(long, value_name = "STORE", value_parser = store)]
    pub(crate) store: Option<Store>,
}

/// Where idempotency keys are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    Redb(PathBuf),
}

fn store(text: &str) -> Result<Store, String> {
    let expected = "expected memory or redb:PATH";
    match text.split_once(':') {
        None if text == "memory" => Ok(Store::Memory),
        Some(("redb", "")) => Err(format!("redb: has no path; {expected}")),
        Some(("redb", path)) => Ok(Store::Redb(path.into())),
        Some((kind @ ("redis" | "rediss" | "postgres" | "postgresql"), _)) => {
            Err(format!("a {kind} store is not in this build; {expected}"))
        }
        _ => Err(expected.to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn dash(text: &str) -> Result<(), String> {
    if text == "-" {
        Ok(())
    } else {
        Err("expected `-`, which stands for stdin; JSON goes to --data".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(std::iter::once("muslin").chain(line.split(' '))).map_err(|e| e.to_string())
    }

    #[test]
    fn the_lines_of_the_contract_are_taken() {
        for line in [
            "produce -t t -K : -H a=1 -H b= -p 3 -z zstd --kafka a:1,b:2 -J",
            "consume -t a -t b -g g -o stored -p 0 -c 5 -e -f %t --isolation read_committed",
            "consume -t a b -o @1700000000000",
            "consume -t a -o 42 --output json",
            "event publish order.created --key k --id x --data {}",
            "event publish order.created -",
            "event handle a b -g g --exec true --concurrency 9 --attempts 2 --dead-letter d --store redb:/x/y",
            "publish -q q -H a=b --mandatory",
            "publish -x ex -r key",
            "get -q q -c 1 -e --no-ack",
            "enqueue -q q email.send --data {} --delay 5m --id i --priority 3",
            "enqueue -q q email.send -",
            "work -q q --exec true --timeout 30s --store memory -F f -X linger.ms=5 -vv",
            "serve",
            "serve --kafka 9092 --amqp 0 --brokers 3 --topic a:3 --topic b:1 --queue q --queue r --ready-file f -J",
            "topics list -J",
            "topics describe a b --all",
            "topics create a b --partitions 3 --replication 1 --config retention.ms=5 --check --if-not-exists",
            "topics alter a --partitions 6 --config x=y --reset z",
            "topics delete a b --if-exists",
            "serve --faults f --user alice:hush --user bob:a:b --sasl",
        ] {
            parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn wrong_use_is_told_with_what_was_expected() {
        for (line, why) in [
            ("produce", "--topic"),
            ("produce -t t -z brotli", "possible values: none, gzip, snappy, lz4, zstd"),
            ("produce -t t -p -1", "-1"),
            ("produce -t t -H novalue", "NAME=VALUE"),
            ("consume -t t -o tomorrow", "beginning, end, stored"),
            ("consume -t t -f %z", "no token"),
            ("event publish a", "--data <JSON>|-"),
            ("event publish a --data {} -", "cannot be used"),
            ("event publish a {}", "JSON goes to --data"),
            ("event handle a -g g --exec true --store redis://h", "redis store is not in this build"),
            ("event handle a -g g --exec true --concurrency 0", "1..=1024"),
            ("publish -q q -x e -r k", "cannot be used"),
            ("publish -x e", "--routing-key"),
            ("enqueue -q q t --data {} --delay 5", "no duration"),
            ("work -q q --exec true --timeout 0s", "no time at all"),
            ("topics create", "<TOPIC>"),
            ("topics create a --partitions 0", "1.."),
            ("topics create a --config novalue", "NAME=VALUE"),
            ("topics alter a", "--partitions <N>"),
            ("nonsense", "unrecognized subcommand"),
            ("serve --kafka localhost:9092", "'localhost:9092' for '--kafka <PORT>'"),
            ("serve --amqp 70000", "a port, 0 to 65535"),
            ("serve --brokers 0", "1..=100"),
            ("serve --topic orders", "'orders' for '--topic <NAME:PARTITIONS>'"),
            ("serve --topic orders:many", "`many` is no number of partitions"),
            ("serve --topic a/b:3", "a/b"),
            ("serve --user alice", "NAME:PASSWORD"),
            ("serve --sasl", "--user <NAME:PASSWORD>"),
            ("serve --queue ", "'' for '--queue <NAME>'"),
        ] {
            let e = parse(line).expect_err(line);
            assert!(e.contains(why), "{line}: {e}");
        }
    }
}
