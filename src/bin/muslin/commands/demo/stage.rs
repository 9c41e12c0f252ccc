//! Making what the demo needs, publishing the events, and removing it all again.

use std::collections::VecDeque;
use std::time::Duration;

use muslin::events::{Publish, Publisher};
use muslin::{Error, ErrorKind, Result};

use super::Scene;
use super::names::Ordered;
use crate::output::Progress;

const PARTITIONS: i32 = 4;
/// How many events may be on their way unconfirmed.
const WINDOW: usize = 2000;

pub(super) async fn make(scene: &Scene) -> Result<()> {
    for topic in scene.names.topics() {
        // As many replicas as the broker makes by default.
        scene.kafka.create_topic(topic, PARTITIONS, -1).await?;
    }
    for queue in [&scene.names.tasks, &scene.names.ledger] {
        scene.amqp.queue(queue).declare().await?;
    }
    Ok(())
}

/// The `n`th event of the demo: aggregates take turns, and one in the middle is poisoned.
pub(super) fn event(scene: &Scene, n: u64) -> Ordered {
    let poisoned = n == scene.events / 3;
    let amount = if poisoned { -1 } else { i64::try_from(n % 1000).unwrap_or_default() };
    Ordered { aggregate: format!("order-{}", n % scene.aggregates), sequence: n / scene.aggregates, amount }
}

pub(super) async fn publish(scene: &Scene) -> Result<()> {
    let producer = scene.kafka.producer().build().await?;
    let publisher = Publisher::new(producer.clone());
    let mut progress = Progress::start(scene.context.console);
    let mut on_their_way = VecDeque::new();
    for n in 0..scene.events {
        let data = event(scene, n);
        let event = Publish::new(&scene.names.event_type, &data)?.key(data.aggregate);
        let (_, queued) = publisher.enqueue(event).await?;
        on_their_way.push_back(queued);
        if on_their_way.len() >= WINDOW
            && let Some(first) = on_their_way.pop_front()
        {
            first.await?;
        }
        progress.tick(|| format!("   published {n}/{}", scene.events));
    }
    for queued in on_their_way {
        queued.await?;
    }
    producer.close(Duration::from_secs(10)).await?;
    let seconds = progress.elapsed().as_secs_f64();
    scene.context.console.note(&format!("   {} events confirmed by Kafka in {seconds:.1} s", scene.events));
    Ok(())
}

/// Removes what [`make`] made and the run left; says what could not be removed.
pub(super) async fn remove(scene: &Scene) {
    let console = scene.context.console;
    let told = |what: &str, result: Result<(), Error>| match result {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            console.warn(&format!("{what} could not be removed: {}", e.report()));
        }
        Ok(()) | Err(_) => {}
    };
    told(&format!("group {}", scene.names.group), scene.kafka.delete_group(&scene.names.group).await);
    for topic in scene.names.topics() {
        told(&format!("topic {topic}"), scene.kafka.delete_topic(topic).await);
    }
    for name in [&scene.names.tasks, &scene.names.ledger] {
        let removed = async { scene.amqp.queue(name).passive().declare().await?.delete().await.map(drop) };
        told(&format!("queue {name}"), removed.await);
    }
}
