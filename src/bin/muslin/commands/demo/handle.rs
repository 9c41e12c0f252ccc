//! Events to tasks: in order per aggregate, each once, the poisoned one to the dead letters.

use std::sync::Arc;
use std::time::Duration;

use muslin::delivery::RetryPolicy;
use muslin::events::{Consumer, Event};
use muslin::idempotency::BoxFuture;
use muslin::kafka::{Producer, Record};
use muslin::processor::HandlerError;
use muslin::tasks::{Enqueue, Queue};
use muslin::{Error, ErrorKind, Result};

use super::Scene;
use super::names::{Handled, Names, Ordered, TASK, is_put_twice};
use crate::output::Progress;

/// How many events are handled at once, each of another aggregate.
const CONCURRENCY: usize = 128;
const TICK: Duration = Duration::from_millis(100);

/// What the handler writes to.
#[derive(Debug)]
struct Sinks {
    names: Names,
    producer: Producer,
    tasks: Queue,
}

/// Handles all events; says how far it is.
pub(super) async fn run(scene: &Scene) -> Result<()> {
    let console = scene.context.console;
    let builder = Consumer::builder(&scene.kafka, &scene.names.group);
    let watch = builder.watch();
    let retry = RetryPolicy::builder().attempts(3).max_delay(Duration::from_millis(200)).build()?;
    let producer = scene.kafka.producer().linger(Duration::from_millis(2)).build().await?;
    let tasks = Queue::declare(&scene.amqp, &scene.names.tasks).await?;
    let sinks = Arc::new(Sinks { names: scene.names.clone(), producer, tasks });
    let used = Arc::clone(&sinks);
    let (events, mut looking) = (scene.events, watch.clone());
    let all_settled = async move { while looking.summary().settled() < events && looking.changed().await {} };
    let mut ended: BoxFuture<'_, _> = Box::pin(
        builder
            .on(&scene.names.event_type, move |event: Event<Ordered>| handle(Arc::clone(&used), event))
            .concurrency(CONCURRENCY)
            .retry(retry)
            .once(Arc::clone(&scene.events_store))
            .dead_letter(scene.names.dead.as_str())
            .run(all_settled),
    );
    let mut progress = Progress::start(console);
    let mut tick = tokio::time::interval(TICK);
    let mut milestone = 1;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut ended => break ended,
            _ = tick.tick() => {}
        }
        let settled = watch.summary().settled();
        progress.tick(|| format!("   events settled {settled}/{events}"));
        while milestone <= 3 && settled * 4 >= events * milestone {
            let (seconds, percent) = (progress.elapsed().as_secs_f64(), milestone * 25);
            console.note(&format!("   {percent}% of the events are settled after {seconds:.1} s"));
            milestone += 1;
        }
    };
    sinks.producer.close(Duration::from_secs(10)).await?;
    ended?;
    let seconds = progress.elapsed().as_secs_f64();
    console.note(&format!("   all {events} events are settled and committed after {seconds:.1} s"));
    Ok(())
}

async fn handle(sinks: Arc<Sinks>, event: Event<Ordered>) -> Result<(), HandlerError> {
    let Ordered { aggregate, sequence, amount } = &event.data;
    if *amount < 0 {
        return Err(HandlerError::retry(format!(
            "the amount of event {sequence} of {aggregate} is {amount}"
        )));
    }
    let note = Handled { event_id: event.id.clone(), sequence: *sequence };
    let note = serde_json::to_vec(&note)
        .map_err(|e| Error::new(ErrorKind::Internal, "cannot be written as JSON").with_source(e))?;
    let record = Record::to_topic(sinks.names.handled.clone()).key(aggregate.clone()).value(note);
    // The event's id is the task's: put again, it is the same task.
    let task = Enqueue::new(TASK, &event.data)?.id(event.id.clone())?;
    if is_put_twice(&event.data) {
        sinks.tasks.send(task.clone()).await?;
    }
    tokio::try_join!(sinks.producer.send(record), sinks.tasks.send(task))?;
    Ok(())
}
