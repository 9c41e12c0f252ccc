//! What Kafka, RabbitMQ and the key store hold in the end, and whether it adds up. Nothing here is counted on the way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muslin::idempotency::State;
use muslin::kafka::{At, StartAt};
use muslin::{Error, ErrorKind, Offset, Partition, Result, Topic};
use serde::Serialize;
use tokio::task::JoinSet;

use super::Scene;
use super::ground::RanOn;
use super::names::{Entry, Handled};
use super::workers::Told;
use crate::exit::Failure;
use crate::output::{Console, Data};

/// How long reading back may wait for one record.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many questions to the store are open at once.
const QUESTIONS: usize = 512;

/// A count, and where it was read.
#[derive(Debug, Serialize)]
struct Count {
    name: &'static str,
    count: u64,
    from: String,
}

/// Something that must be so.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    shown: String,
}

/// The summary.
#[derive(Debug, Serialize)]
pub(super) struct Proof {
    demo: String,
    /// The brokers that it ran on.
    ran_on: RanOn,
    counts: Vec<Count>,
    checks: Vec<Check>,
    ok: bool,
    elapsed_s: f64,
}

/// What the ledger and the store say of the tasks.
#[derive(Debug, Default)]
struct Effects {
    /// Tasks that are done by the store.
    done: u64,
    /// Of these, with exactly one entry whose name is the recorded outcome.
    once: u64,
    /// Tasks that went from a holder whose lease ran out to another.
    taken_over: u64,
    /// Entries of attempts that never completed their key.
    void: u64,
}

pub(super) async fn read(scene: &Scene, told: &Told, started: Instant) -> Result<Proof> {
    let names = &scene.names;
    let published = spread(scene, &names.events).await?;
    let committed: u64 = scene
        .kafka
        .committed(&names.group, &names.events)
        .await?
        .iter()
        .map(|(partition, offset)| {
            let first = published.get(partition).map_or(*offset, |(first, _)| *first);
            between(first, *offset)
        })
        .sum();
    let published: u64 = published.values().map(|(first, end)| between(*first, *end)).sum();
    let dead: u64 =
        spread(scene, &names.dead).await?.values().map(|(first, end)| between(*first, *end)).sum();

    let handled = read_topic(scene, &names.handled).await?;
    let (ids, in_order, aggregates) = judge_order(&handled)?;
    let left = scene.amqp.queue(&names.tasks).passive().declare().await?.depth().await?.messages;
    let ledger = read_ledger(scene).await?;
    let events = scene.events_store.counts().await?;
    let effects = judge_effects(scene, &ids, &ledger).await?;

    let handled = ids.len() as u64;
    let entries: u64 = ledger.values().map(|names| names.len() as u64).sum();
    let duplicates: u64 = told.said.iter().map(|s| s.duplicates).sum();
    let redelivered: u64 = told.said.iter().map(|s| s.redelivered).sum();
    let counts = vec![
        count("published", published, format!("Kafka: offsets of topic {}", names.events)),
        count("handled", handled, format!("Kafka: distinct event ids in topic {}", names.handled)),
        count("dead_lettered", dead, format!("Kafka: offsets of topic {}", names.dead)),
        count("committed", committed, format!("Kafka: offsets committed by group {}", names.group)),
        count("aggregates_in_order", in_order, format!("Kafka: records of topic {}", names.handled)),
        count("events_done", events.completed, "key store of the events: completed keys".to_owned()),
        count(
            "tasks_done",
            effects.done,
            "key store of the tasks: handled events whose task's key is completed".to_owned(),
        ),
        count("tasks_left", left.into(), format!("RabbitMQ: messages in queue {}", names.tasks)),
        count(
            "effects_once",
            effects.once,
            format!("RabbitMQ: entries of queue {} that the key store names as outcome", names.ledger),
        ),
        count("ledger_entries", entries, format!("RabbitMQ: all entries of queue {}", names.ledger)),
        count(
            "void_entries",
            effects.void,
            "the same: attempts cut off before their key was completed".to_owned(),
        ),
        count(
            "taken_over",
            effects.taken_over,
            "key store of the tasks: keys whose first holder's lease ran out".to_owned(),
        ),
        count(
            "redelivered",
            redelivered,
            "told by the workers: deliveries with RabbitMQ's redelivered flag".to_owned(),
        ),
        count(
            "duplicates",
            duplicates,
            "told by the workers: deliveries whose key was done before".to_owned(),
        ),
    ];
    let killed = match &told.killed {
        Some((number, status)) => {
            format!("worker {number} ended by {status}; {redelivered} deliveries came again")
        }
        None => "no worker was killed".to_owned(),
    };
    let checks = vec![
        check(
            "every event is published",
            published == scene.events,
            format!("{published} = {}", scene.events),
        ),
        check(
            "published = handled + dead-lettered",
            published == handled + dead && dead == 1,
            format!("{published} = {handled} + {dead}"),
        ),
        check("every offset is committed", committed == published, format!("{committed} = {published}")),
        check(
            "order is kept within every aggregate",
            in_order == aggregates && aggregates == scene.aggregates.min(handled),
            format!("{in_order} of {aggregates}"),
        ),
        check(
            "every handled event's task is done",
            effects.done == handled && left == 0,
            format!("{} = {handled}, {left} left", effects.done),
        ),
        check(
            "every task's effect exactly once",
            effects.once == handled && entries == effects.once + effects.void,
            format!("{} = {handled}; {} void", effects.once, effects.void),
        ),
        check(
            "a worker was killed in mid-work",
            told.killed.is_some_and(|(_, s)| killed_by_signal(s)),
            killed,
        ),
        check(
            "the other workers ended in order",
            told.broken.is_empty(),
            if told.broken.is_empty() {
                format!("{} of them", told.said.len())
            } else {
                told.broken.join("; ")
            },
        ),
    ];
    let ok = checks.iter().all(|check| check.ok);
    let elapsed_s = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let ran_on = scene.ground.ran_on.clone();
    Ok(Proof { demo: names.id.clone(), ran_on, counts, checks, ok, elapsed_s })
}

fn count(name: &'static str, count: u64, from: String) -> Count {
    Count { name, count, from }
}

fn check(name: &'static str, ok: bool, shown: String) -> Check {
    Check { name, ok, shown }
}

fn killed_by_signal(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;

    status.signal() == Some(9)
}

fn between(first: Offset, end: Offset) -> u64 {
    u64::try_from(end.get() - first.get()).unwrap_or(0)
}

/// The first offset and the end of each partition.
async fn spread(scene: &Scene, topic: &Topic) -> Result<BTreeMap<Partition, (Offset, Offset)>> {
    let first = scene.kafka.offsets(topic, At::Earliest).await?;
    let end = scene.kafka.offsets(topic, At::Latest).await?;
    Ok(end.into_iter().map(|(p, end)| (p, (first.get(&p).copied().unwrap_or(end), end))).collect())
}

/// All records of a topic, in the order of each partition: key and value.
async fn read_topic(scene: &Scene, topic: &Topic) -> Result<Vec<(Bytes, Bytes)>> {
    let total: u64 = spread(scene, topic).await?.values().map(|(first, end)| between(*first, *end)).sum();
    let consumer = scene.kafka.simple_consumer().topics([topic.as_str()]).start(StartAt::Earliest);
    let mut consumer = consumer.build().await?;
    let mut records = Vec::new();
    while (records.len() as u64) < total {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
        let Ok(Some(delivery)) = next else {
            let text = format!("topic {topic} has {total} records, of which {} could be read", records.len());
            return Err(Error::new(ErrorKind::Timeout, text));
        };
        let delivery = delivery?;
        records.push((delivery.key_bytes().unwrap_or_default(), delivery.value_bytes().unwrap_or_default()));
        delivery.ack();
    }
    consumer.close(Duration::from_secs(5)).await?;
    Ok(records)
}

/// The distinct event ids, how many aggregates kept their order, and how many there are.
///
/// An event whose handling was tried again may stand there twice, after itself.
fn judge_order(handled: &[(Bytes, Bytes)]) -> Result<(HashSet<String>, u64, u64)> {
    let mut ids = HashSet::new();
    let mut last: HashMap<&Bytes, (u64, bool)> = HashMap::new();
    for (key, value) in handled {
        let record: Handled = serde_json::from_slice(value)
            .map_err(|e| Error::new(ErrorKind::Malformed, "a record of the handled topic").with_source(e))?;
        let (before, in_order) = last.entry(key).or_insert((record.sequence, true));
        *in_order &= *before <= record.sequence;
        *before = record.sequence;
        ids.insert(record.event_id);
    }
    let in_order = last.values().filter(|(_, in_order)| *in_order).count() as u64;
    let aggregates = last.len() as u64;
    Ok((ids, in_order, aggregates))
}

/// Takes all entries out of the ledger: the names of the effects by task.
async fn read_ledger(scene: &Scene) -> Result<HashMap<String, Vec<String>>> {
    let queue = scene.amqp.queue(&scene.names.ledger).passive().declare().await?;
    let total = u64::from(queue.depth().await?.messages);
    let mut deliveries = queue.consume().prefetch(1000).start().await?;
    let mut ledger: HashMap<String, Vec<String>> = HashMap::new();
    for n in 0..total {
        let next = tokio::time::timeout(PATIENCE, deliveries.next()).await;
        let Ok(Some(delivery)) = next else {
            let text = format!("queue {} has {total} entries, of which {n} could be read", queue.name());
            return Err(Error::new(ErrorKind::Timeout, text));
        };
        let delivery = delivery?;
        let entry: Entry = serde_json::from_slice(delivery.body())
            .map_err(|e| Error::new(ErrorKind::Malformed, "an entry of the ledger").with_source(e))?;
        ledger.entry(entry.task).or_default().push(entry.effect);
        delivery.ack();
    }
    deliveries.cancel().await?;
    Ok(ledger)
}

/// Asks the store for each task which effect counts, and the ledger how often it is there.
async fn judge_effects(
    scene: &Scene,
    ids: &HashSet<String>,
    ledger: &HashMap<String, Vec<String>>,
) -> Result<Effects> {
    let mut effects = Effects::default();
    let mut asked = JoinSet::new();
    let mut all = ids.iter();
    loop {
        while asked.len() < QUESTIONS
            && let Some(id) = all.next()
        {
            let (store, key, id) = (scene.tasks_store.clone(), scene.names.task_key(id), id.clone());
            asked.spawn(async move { (id, store.get(&key).await) });
        }
        let Some(answer) = asked.join_next().await else { break };
        let (id, state) = answer
            .map_err(|e| Error::new(ErrorKind::Internal, "a question to the key store").with_source(e))?;
        let entries = ledger.get(&id).map_or(&[][..], Vec::as_slice);
        match state? {
            Some(State::Done { outcome, takeovers, .. }) => {
                let named = entries.iter().filter(|name| name.as_bytes() == outcome).count();
                effects.done += 1;
                effects.once += u64::from(named == 1);
                effects.void += (entries.len() - named) as u64;
                effects.taken_over += u64::from(takeovers > 0);
            }
            Some(State::InProgress { .. }) | None => effects.void += entries.len() as u64,
        }
    }
    Ok(effects)
}

impl Proof {
    /// Prints it; whether it holds.
    pub(super) fn show(&self, console: Console) -> Result<bool, Failure> {
        if console.json {
            console.summary(self, "");
            return Ok(self.ok);
        }
        let mut out = Data::default();
        out.line("Ran on");
        out.line(&format!("  {}", self.ran_on.kafka));
        out.line(&format!("  {}", self.ran_on.rabbitmq));
        out.line("What the brokers and the key store hold");
        for Count { name, count, from } in &self.counts {
            out.line(&format!("  {:<20} {count:>8}   {from}", name.replace('_', " ")));
        }
        out.line("Proof");
        for Check { name, ok, shown } in &self.checks {
            let mut line = format!("  {} {name:<38}", if *ok { "ok    " } else { "FAILED" });
            let _ = write!(line, " {shown}");
            out.line(&line);
        }
        let verdict = if self.ok { "The proof holds" } else { "The proof does NOT hold" };
        out.line(&format!("{verdict}, after {} s", self.elapsed_s));
        out.flush()?;
        Ok(self.ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(aggregate: &'static str, id: &str, sequence: u64) -> (Bytes, Bytes) {
        let value = serde_json::to_vec(&Handled { event_id: id.to_owned(), sequence }).unwrap();
        (Bytes::from_static(aggregate.as_bytes()), value.into())
    }

    #[test]
    fn order_is_judged_within_each_aggregate() {
        let good = [
            record("a", "1", 0),
            record("b", "2", 0),
            record("a", "3", 1),
            record("a", "3", 1),
            record("b", "4", 2),
        ];
        let (ids, in_order, aggregates) = judge_order(&good).unwrap();
        assert_eq!((ids.len(), in_order, aggregates), (4, 2, 2));
        let bad = [record("a", "1", 1), record("b", "2", 0), record("a", "3", 0)];
        let (_, in_order, aggregates) = judge_order(&bad).unwrap();
        assert_eq!((in_order, aggregates), (1, 2));
    }
}
