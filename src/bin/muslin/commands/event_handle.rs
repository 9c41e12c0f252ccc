//! `event handle`: a shell command for each domain event.

use std::sync::Arc;
use std::time::Duration;

use muslin::events::{Consumer, RawEvent};
use muslin::processor::Origin;

use super::working::{self, Counts};
use crate::args::EventHandle;
use crate::connect::Context;
use crate::exec::{Facts, Shell};
use crate::exit::{Ended, Failure, Outcome};

/// How long running commands may take after a signal.
const DRAIN: Duration = Duration::from_secs(300);

/// What a command is told of an event.
fn facts(event: &RawEvent) -> Facts {
    let mut facts = Facts::default();
    facts.add("MUSLIN_ID", &event.id);
    facts.add("MUSLIN_TYPE", &event.event_type);
    facts.add("MUSLIN_OCCURRED_AT", &event.occurred_at);
    facts.add("MUSLIN_ATTEMPT", event.message.attempt().to_string());
    facts.add_some("MUSLIN_KEY", event.message.key());
    if let Origin::Kafka { topic, partition, offset, timestamp, group, .. } = event.message.origin() {
        facts.add("MUSLIN_TOPIC", topic.as_str());
        facts.add("MUSLIN_PARTITION", partition.to_string());
        facts.add("MUSLIN_OFFSET", offset.to_string());
        facts.add("MUSLIN_TIMESTAMP", timestamp.to_string());
        facts.add_some("MUSLIN_GROUP", group.as_deref());
    }
    facts
}

/// Runs the command.
pub(crate) async fn run(context: Context, args: EventHandle) -> Outcome {
    for event_type in &args.types {
        muslin::events::topic_of(event_type).map_err(Failure::usage)?;
    }
    if let Some(topic) = &args.dead_letter {
        muslin::Topic::new(topic).map_err(|e| Failure::usage(e.context("--dead-letter")))?;
    }
    let retry = working::retry(args.exec.attempts)?;
    let store = context.store(args.exec.store.as_ref())?;
    let Some(client) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let shell = Arc::new(Shell::new(&args.exec.command, context.console.json));
    let mut consumer = Consumer::builder(&client, &args.group)
        .concurrency(args.exec.concurrency.into())
        .retry(retry)
        .timeout(None)
        .drain(DRAIN);
    if let Some(interval) = context.settings.millis("auto.commit.interval.ms").map_err(Failure::usage)? {
        consumer = consumer.commit_interval(interval);
    }
    if let Some(reset) = context.settings.reset() {
        consumer = consumer.reset(reset);
    }
    for event_type in &args.types {
        let shell = Arc::clone(&shell);
        consumer = consumer.on_raw(event_type, move |event: RawEvent| {
            let shell = Arc::clone(&shell);
            async move { shell.run(facts(&event), event.message.value().cloned().unwrap_or_default()).await }
        });
    }
    if let Some(topic) = args.dead_letter {
        consumer = consumer.dead_letter(topic);
    }
    if let Some(store) = store {
        consumer = consumer.once(store);
    }
    let (counts, stop) = (Counts::default(), context.stop.clone());
    counts.watch(consumer.watch());
    let ended = working::run(&context, counts, consumer.run(async move { stop.wait().await })).await;
    let _ = client.close().await;
    ended
}
