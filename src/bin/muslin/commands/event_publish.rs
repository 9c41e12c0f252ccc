//! `event publish`: domain events.

use std::time::Duration;

use bytes::Bytes;
use muslin::events::{Publish, Publisher};
use muslin::kafka::{Placed, Queued};
use muslin::{Result, Topic};
use serde::Serialize;

use super::sending::{GivenId, Sending, Source, send_all};
use crate::args::EventPublish;
use crate::connect::{Context, json};
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Data;

/// How long the producer may take to close once everything is confirmed.
const CLOSE: Duration = Duration::from_secs(5);

struct Events {
    publisher: Publisher,
    event_type: String,
    topic: Topic,
    key: Option<String>,
    id: GivenId,
    json: bool,
}

/// What is printed of an event.
#[derive(Serialize)]
struct Published<'a> {
    event_id: &'a str,
    topic: &'a str,
    partition: i32,
    offset: i64,
}

impl Sending for Events {
    type Tag = String;
    type Done = Placed;
    type Queued = Queued;

    async fn put(&self, line: Bytes) -> Result<(String, Queued)> {
        let mut event = Publish::new(&self.event_type, &json(&line)?)?;
        if let Some(key) = &self.key {
            event = event.key(key);
        }
        if let Some(id) = self.id.take()? {
            event = event.id(id)?;
        }
        self.publisher.enqueue(event).await
    }

    fn print(&self, id: String, placed: Placed, data: &mut Data) -> std::result::Result<(), Failure> {
        if !self.json {
            data.line(&id);
            return Ok(());
        }
        data.json(&Published {
            event_id: &id,
            topic: self.topic.as_str(),
            partition: placed.partition.get(),
            offset: placed.offset.get(),
        })
    }
}

/// Runs the command.
pub(crate) async fn run(context: Context, args: EventPublish) -> Outcome {
    let topic = muslin::events::topic_of(&args.event_type).map_err(Failure::usage)?;
    if let Some(data) = &args.data {
        json(data.as_bytes()).map_err(|e| Failure::usage(e.context("--data")))?;
    }
    let Some(client) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let builder = context.settings.producer(client.producer()).map_err(Failure::usage)?;
    let Some(producer) = context.stop.unless(builder.build()).await.transpose().map_err(Failure::setup)?
    else {
        return Ok(Ended::Interrupted);
    };
    let events = Events {
        publisher: Publisher::new(producer),
        event_type: args.event_type,
        topic,
        key: args.key,
        id: GivenId::new(args.id),
        json: context.console.json,
    };
    let ended = send_all(&context, Source::argument_or_stdin(args.data.as_deref()), &events).await?;
    let _ = events.publisher.producer().close(CLOSE).await;
    let _ = client.close().await;
    Ok(ended)
}
