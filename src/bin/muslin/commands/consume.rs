//! `consume`: prints Kafka records; commits what it printed.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use muslin::codec::envelope::parse_iso8601;
use muslin::kafka::{At, Client, Consumer, ConsumerBuilder, Delivery, Isolation, StartAt};
use muslin::{Error, ErrorKind, Offset, Partition, Timestamp, Topic};

use crate::args::Consume;
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::format::{Format, Shown};
use crate::output::{Data, Written};
use crate::record::Printed;

/// At how many bytes or records the output is written, if the next record does not take its time anyway.
const LOT_BYTES: usize = 64 << 10;
const LOT: usize = 500;
/// How long the last commit may take.
const CLOSE: Duration = Duration::from_secs(30);
/// How often the positions are compared with the ends, for partitions whose last records are not handed out.
const LOOK: Duration = Duration::from_millis(100);
/// With `-e`, how many records that came after the ends are held while other partitions are still read.
const BEYOND: usize = 50_000;
/// How long they are held: longer than this runs.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Parses `-o`.
pub(crate) fn start(text: &str) -> Result<StartAt, String> {
    match text {
        "beginning" | "earliest" => return Ok(StartAt::Earliest),
        "end" | "latest" => return Ok(StartAt::Latest),
        "stored" => return Ok(StartAt::Stored),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        if let Ok(millis) = time.parse::<i64>()
            && millis >= 0
        {
            return Ok(StartAt::Timestamp(Timestamp(millis)));
        }
        return parse_iso8601(time).map(StartAt::Timestamp).map_err(|_| {
            format!("`{text}` is no time; expected @ and milliseconds since 1970, or @2026-01-31T12:00:00Z")
        });
    }
    match text.parse::<i64>() {
        Ok(offset) if offset >= 0 => Ok(StartAt::Offset(Offset(offset))),
        _ => Err("expected beginning, end, stored, an offset, or @TIME".to_owned()),
    }
}

/// Where to stop: the end of each partition as it was.
type Ends = BTreeMap<(Topic, Partition), Offset>;

/// Runs the command.
pub(crate) async fn run(context: Context, args: Consume) -> Outcome {
    let topics =
        args.topic.iter().map(Topic::new).collect::<muslin::Result<Vec<_>>>().map_err(Failure::usage)?;
    let group = args.group.as_deref().or(context.settings.text("group.id"));
    let start = match (args.offset, group) {
        (Some(StartAt::Stored), None) => return Err(Failure::wrong_use("-o stored: whose? give -g GROUP")),
        (Some(start), _) => start,
        (None, Some(_)) => StartAt::Stored,
        (None, None) => StartAt::Earliest,
    };
    if args.count == Some(0) {
        return Ok(Ended::Done);
    }
    let Some(client) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let isolation = args.isolation.as_ref().map(|level| match level.as_str() {
        "read_uncommitted" => Isolation::ReadUncommitted,
        _ => Isolation::ReadCommitted,
    });
    // A member of its group, unless partitions or a place to start are named: then it reads what it was told to.
    let member = group.filter(|_| args.partition.is_none() && start == StartAt::Stored);
    let build = async {
        match member {
            Some(group) => {
                let builder = client.consumer(group).topics(topics.iter().map(Topic::as_str));
                let builder = context.settings.consumer(context.settings.membership(builder)?)?;
                set(builder, isolation, args.exit).build().await
            }
            None => {
                let builder = context.settings.consumer(client.simple_consumer().start(start))?;
                let builder = match group {
                    Some(group) => builder.group(group),
                    None => builder,
                };
                let builder = match args.partition {
                    None => builder.topics(topics.iter().map(Topic::as_str)),
                    Some(p) => topics.iter().fold(builder, |b, topic| b.partition(topic.as_str(), p)),
                };
                set(builder, isolation, args.exit).build().await
            }
        }
    };
    let setup = async {
        // Before the consumer: what comes in between is past the end.
        let ends = if args.exit { Some(ends(&client, &topics, args.partition).await?) } else { None };
        Ok((ends, build.await?))
    };
    let Some((ends, consumer)) = context.stop.unless(setup).await.transpose().map_err(Failure::setup)? else {
        return Ok(Ended::Interrupted);
    };
    let goal = ends.map(|ends| Goal { ends, client: &client, group: member });
    let printer = Printer { json: context.console.json, format: args.format };
    let ended = print(&context, consumer, &printer, goal, args.count, group.is_some()).await;
    let _ = client.close().await;
    ended
}

async fn ends(client: &Client, topics: &[Topic], partition: Option<i32>) -> muslin::Result<Ends> {
    let mut all = Ends::new();
    for topic in topics {
        let of_topic = client.offsets(topic, At::Latest).await?;
        let wanted = of_topic.into_iter().filter(|(p, _)| partition.is_none_or(|only| p.get() == only));
        all.extend(wanted.map(|(p, end)| ((topic.clone(), p), end)));
    }
    Ok(all)
}

fn set<A>(mut builder: ConsumerBuilder<A>, isolation: Option<Isolation>, to_end: bool) -> ConsumerBuilder<A> {
    if let Some(isolation) = isolation {
        builder = builder.isolation(isolation);
    }
    if to_end {
        builder = builder.max_in_hand(LOT + BEYOND + 1000);
    }
    builder
}

/// Where to stop, and who else reads.
struct Goal<'a> {
    ends: Ends,
    client: &'a Client,
    /// The group of which this is a member: the others read their partitions to the end.
    group: Option<&'a str>,
}

impl Goal<'_> {
    /// Whether every partition was read to its end: by this consumer, or by another member that has committed it.
    async fn is_reached(&self, consumer: &Consumer) -> muslin::Result<bool> {
        let positions: BTreeMap<_, _> =
            consumer.positions().into_iter().map(|p| ((p.topic, p.partition), p.position)).collect();
        let open = self.ends.iter().filter(|(_, end)| end.get() > 0);
        let (mine, others): (Vec<_>, Vec<_>) = open.partition(|(place, _)| positions.contains_key(*place));
        if !mine.iter().all(|(place, end)| positions.get(*place).is_some_and(|at| at >= *end)) {
            return Ok(false);
        }
        let Some(group) = self.group else { return Ok(others.is_empty()) };
        let topics: BTreeSet<&Topic> = others.iter().map(|((topic, _), _)| topic).collect();
        for topic in topics {
            let committed = self.client.committed(group, topic).await?;
            let of_topic = others.iter().filter(|((t, _), _)| t == topic);
            if !of_topic.into_iter().all(|((_, p), end)| committed.get(p).is_some_and(|at| at >= *end)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Printer {
    json: bool,
    format: Option<Format>,
}

impl Printer {
    fn print(&self, delivery: &Delivery, data: &mut Data) -> Result<(), Failure> {
        let (key, value) = (delivery.key(), delivery.value());
        let (topic, partition) = (delivery.topic().as_str(), delivery.partition().get());
        let (offset, timestamp) = (delivery.offset().get(), delivery.timestamp().get());
        let headers = delivery.headers();
        match &self.format {
            Some(format) => {
                format.print(
                    &Shown { topic, partition, offset, timestamp, key, value, headers },
                    data.buffer(),
                );
            }
            None if self.json => {
                data.json(&Printed::new(topic, partition, offset, timestamp, key, value, headers))?;
            }
            None => {
                data.buffer().extend_from_slice(value.unwrap_or_default());
                data.buffer().push(b'\n');
            }
        }
        Ok(())
    }
}

/// Prints until something says stop, then commits and closes.
async fn print(
    context: &Context,
    mut consumer: Consumer,
    printer: &Printer,
    goal: Option<Goal<'_>>,
    count: Option<u64>,
    commits: bool,
) -> Outcome {
    let ends = goal.as_ref().map(|goal| &goal.ends);
    let mut left = count;
    let mut data = Data::default();
    // In the buffer, not written yet: neither acknowledged nor committed.
    let mut unwritten: Vec<Delivery> = Vec::new();
    let mut stopped = pin!(context.stop.wait());
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Whether a partition may have been read to its end since this was last looked at.
    let mut perhaps = true;
    let mut beyond = 0;
    let mut ended: Result<Ended, Failure> = loop {
        if left == Some(0) {
            break Ok(Ended::Done);
        }
        if let Some(goal) = goal.as_ref().filter(|_| std::mem::take(&mut perhaps)) {
            match goal.is_reached(&consumer).await {
                Ok(true) => break Ok(Ended::Done),
                Ok(false) => {}
                Err(e) => break Err(e.into()),
            }
            if beyond > BEYOND {
                let why = format!(
                    "{beyond} new records came to some partitions before the others were read to their ends"
                );
                break Err(Error::new(ErrorKind::Full, why).into());
            }
        }
        let full = data.len() >= LOT_BYTES || unwritten.len() >= LOT;
        tokio::select! {
            biased;
            () = &mut stopped => break Ok(Ended::Interrupted),
            next = consumer.next(), if !full => match next {
                Some(Ok(delivery)) if to_end(&delivery, ends).is_some_and(|n| n <= 0) => {
                    // Held unsettled: acknowledged it would be committed without having been printed.
                    delivery.nack(NEVER);
                    (beyond, perhaps) = (beyond + 1, true);
                }
                Some(Ok(delivery)) => match printer.print(&delivery, &mut data) {
                    Ok(()) => {
                        perhaps |= to_end(&delivery, ends) == Some(1);
                        unwritten.push(delivery);
                        left = left.map(|n| n - 1);
                    }
                    Err(failure) => break Err(failure),
                },
                Some(Err(e)) => break Err(e.into()),
                None => break Ok(Ended::Done),
            },
            // Nothing more is ready: whoever reads gets what there is.
            () = std::future::ready(()), if !unwritten.is_empty() => match data.flush() {
                Ok(Written::All) => unwritten.drain(..).for_each(Delivery::ack),
                Ok(Written::ReaderGone) => break Ok(Ended::Done),
                Err(failure) => break Err(failure),
            },
            _ = look.tick(), if ends.is_some() => perhaps = true,
        }
    };
    if !unwritten.is_empty() {
        match data.flush() {
            Ok(Written::All) => unwritten.drain(..).for_each(Delivery::ack),
            Ok(Written::ReaderGone) => {}
            Err(failure) => ended = ended.and(Err(failure)),
        }
    }
    // What is still unwritten is given back, not committed.
    drop(unwritten);
    match consumer.close(CLOSE).await {
        Err(e) if commits && ended.is_ok() => Err(e.context("what was printed may be printed again").into()),
        _ => ended,
    }
}

/// How far it is from a record to the end as it was: 1 is the last one, 0 and less came after it.
fn to_end(delivery: &Delivery, ends: Option<&Ends>) -> Option<i64> {
    let end = ends?.get(&(delivery.topic().clone(), delivery.partition()))?;
    Some(end.get() - delivery.offset().get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_an_offset_or_a_time() {
        for (text, at) in [
            ("beginning", StartAt::Earliest),
            ("end", StartAt::Latest),
            ("stored", StartAt::Stored),
            ("42", StartAt::Offset(Offset(42))),
            ("@1700000000000", StartAt::Timestamp(Timestamp(1_700_000_000_000))),
            ("@0", StartAt::Timestamp(Timestamp(0))),
            ("@2023-11-14T22:13:20Z", StartAt::Timestamp(Timestamp(1_700_000_000_000))),
        ] {
            assert_eq!(start(text), Ok(at), "{text}");
        }
        for text in ["", "-1", "tomorrow", "@", "@yesterday", "@-5", "1.5"] {
            assert!(start(text).is_err(), "{text}");
        }
    }
}
