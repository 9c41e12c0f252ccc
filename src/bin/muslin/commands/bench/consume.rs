//! Reading from Kafka as a member of a group.

use std::time::Duration;

use muslin::Topic;
use muslin::kafka::{Consumer, Rebalance, Reset};

use super::Run;
use super::cost::Meter;
use crate::args::CODECS;
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::{Progress, Tally};

/// How long the consumer may take to commit and leave.
const CLOSE: Duration = Duration::from_secs(10);
/// How long the group may take to assign partitions; after that, reading tells what is wrong.
const ASSIGNED: Duration = Duration::from_secs(60);

/// Read a topic from its beginning, as the one member of a group
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  muslin bench consume --kafka localhost:9092 --topic load --count 1000000 --size 100 --codec lz4 --output json

A new group unless -g names one, its offsets committed every 5 s (-X auto.commit.interval.ms sets another). By batches, each
acknowledged as a whole; --per-record takes single deliveries and acknowledges each. Key and value of every record are looked
at. The clock starts when the group has assigned the partitions. The last line is as `bench produce` prints it; --size and --codec are told there
and change nothing; \"check\" is the bytes of all keys and values.")]
pub(crate) struct ConsumeArgs {
    /// The topic
    #[arg(short, long, value_name = "TOPIC")]
    topic: String,
    /// The group; a new one without
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// How many records
    #[arg(short, long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Take single deliveries, and acknowledge each
    #[arg(long)]
    per_record: bool,
    /// The records' size, for the report
    #[arg(short, long, value_name = "BYTES", default_value_t = 100, value_parser = super::kafka::size)]
    size: usize,
    /// How the topic's batches are compressed, for the report
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none", value_parser = CODECS)]
    codec: String,
}

/// `bench consume`.
pub(crate) async fn consume(context: Context, args: ConsumeArgs) -> Outcome {
    let topic = Topic::new(&args.topic).map_err(Failure::usage)?;
    let Some(client) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let group = args.group.unwrap_or_else(|| format!("muslin-bench-{}", uuid::Uuid::new_v4().simple()));
    let builder = client.consumer(group).topics([topic.as_str()]).reset(Reset::Earliest);
    let builder = context.settings.consumer(builder).map_err(Failure::usage)?;
    let mut consumer = builder.build().await.map_err(Failure::setup)?;
    let mut tally = Tally::new(context.console);
    let mut rebalances = consumer.rebalances();
    let assigned = async {
        while let Some(notice) = rebalances.next().await {
            if matches!(notice, Rebalance::Assigned(_)) {
                break;
            }
        }
        Ok::<(), muslin::Error>(())
    };
    // A membership that is refused assigns nothing; the reading below tells why.
    let assigned = tokio::time::timeout(ASSIGNED, context.stop.unless(assigned)).await;
    let meter = Meter::start();
    let mut reading = Reading { context: &context, count: args.count, read: 0, bytes: 0 };
    let read = if !matches!(assigned, Ok(Some(_))) {
        Ok(())
    } else if args.per_record {
        reading.by_record(&mut consumer).await
    } else {
        reading.by_batch(&mut consumer).await
    };
    let cost = meter.stop();
    tally.sent = reading.read;
    if let Err(e) = read {
        tally.failure("reading", &e);
    }
    let _ = consumer.close(CLOSE).await;
    let _ = client.close().await;
    let run = Run { op: "consume", codec: &args.codec, size: args.size, check: Some(reading.bytes) };
    run.tell(&context, &tally, cost, None);
    Ok(if context.stop.is_asked() { Ended::Interrupted } else { tally.ended() })
}

fn size(field: Option<&[u8]>) -> u64 {
    field.map_or(0, <[u8]>::len) as u64
}

struct Reading<'a> {
    context: &'a Context,
    count: u64,
    read: u64,
    /// Of keys and values.
    bytes: u64,
}

impl Reading<'_> {
    async fn by_batch(&mut self, consumer: &mut Consumer) -> muslin::Result<()> {
        let mut progress = Progress::start(self.context.console);
        let mut batches = consumer.batches();
        while self.read < self.count {
            let Some(next) = self.context.stop.unless(batches.next()).await else { break };
            let Some(batch) = next else { break };
            let batch = batch?;
            for record in &batch {
                let record = record?;
                self.bytes += size(record.key()) + size(record.value());
                self.read += 1;
            }
            batch.ack();
            progress.tick(|| format!("read {} of {}", self.read, self.count));
        }
        Ok(())
    }

    async fn by_record(&mut self, consumer: &mut Consumer) -> muslin::Result<()> {
        let mut progress = Progress::start(self.context.console);
        while self.read < self.count {
            let Some(next) = self.context.stop.unless(consumer.next()).await else { break };
            let Some(delivery) = next else { break };
            let delivery = delivery?;
            self.bytes += size(delivery.key()) + size(delivery.value());
            self.read += 1;
            delivery.ack();
            if self.read.is_multiple_of(1024) {
                progress.tick(|| format!("read {} of {}", self.read, self.count));
            }
        }
        Ok(())
    }
}
