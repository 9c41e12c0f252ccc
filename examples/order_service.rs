//! An order service: publishes an event for each order, handles the events in order per customer, and puts a task to
//! send an e-mail for each.
//!
//! ```text
//! MUSLIN_KAFKA=127.0.0.1:9092 MUSLIN_AMQP=amqp://guest:guest@127.0.0.1:5672/ cargo run --example order_service
//! ```
//!
//! `examples/email_worker.rs` works the tasks.
#![allow(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::sync::Arc;
use std::time::Duration;

use muslin::events::{Consumer, Event, Publisher, topic_of};
use muslin::idempotency::MemoryStore;
use muslin::processor::HandlerError;
use muslin::tasks::{Enqueue, Queue};
use muslin::{ErrorKind, amqp, kafka};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    number: u32,
    email: String,
}

#[tokio::main]
async fn main() -> muslin::Result<()> {
    let bootstrap = std::env::var("MUSLIN_KAFKA").unwrap_or_else(|_| "127.0.0.1:9092".into());
    let url = std::env::var("MUSLIN_AMQP").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/".into());
    let kafka = kafka::Client::builder(bootstrap).connect().await?;
    let rabbit = amqp::Client::connect(&url).await?;

    match kafka.create_topic(&topic_of("order.created")?, 4, 1).await {
        Err(e) if e.kind() != ErrorKind::Conflict => return Err(e),
        _ => {}
    }
    let events = Publisher::new(kafka.producer().build().await?);
    for number in 0..10 {
        let customer = format!("customer-{}", number % 3);
        let order = OrderCreated { number, email: format!("{customer}@example.org") };
        let published = events.publish("order.created", Some(&customer), &order).await?;
        println!("published {} at {}", published.event_id, published.placed.offset);
    }

    let emails = Queue::declare(&rabbit, "emails").await?;
    let summary = Consumer::builder(&kafka, "order-service")
        .on("order.created", move |event: Event<OrderCreated>| {
            let emails = emails.clone();
            async move {
                // The task has the event's id: should the event come again, its task is known again too.
                emails.send(Enqueue::new("email.send", &event.data)?.id(event.id)?).await?;
                println!("order {} of {:?}", event.data.number, event.message.key());
                Ok::<(), HandlerError>(())
            }
        })
        .concurrency(64)
        .once(Arc::new(MemoryStore::new()))
        .run(quiet_for(Duration::from_secs(5)))
        .await?;
    println!("{summary}");
    kafka.close().await?;
    rabbit.close().await
}

/// An example ends by itself; a service passes what waits for its signal.
#[allow(clippy::disallowed_methods, reason = "this program may sleep")]
async fn quiet_for(time: Duration) {
    tokio::time::sleep(time).await;
}
