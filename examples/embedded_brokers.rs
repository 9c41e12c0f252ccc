//! A service, and its test on embedded brokers: no container, nothing to install, and a lost answer on demand.
//!
//! ```text
//! cargo test --example embedded_brokers
//! cargo run --example embedded_brokers
//! ```
//!
//! The service handles `order.created` and puts a task to send an e-mail for each order. The test runs it against both
//! brokers in its own process. A program in another language does the same with `muslin serve --ready-file FILE`.
#![allow(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use muslin::embedded::faults::{Action, Faults, Rule};
use muslin::events::{Consumer, Event, Publisher, topic_of};
use muslin::processor::{HandlerError, Summary};
use muslin::tasks::{Enqueue, Queue};
use muslin::{Result, amqp, embedded, kafka};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OrderCreated {
    number: u32,
    email: String,
}

/// The service: runs until `orders` events are settled. A real one passes what waits for its signal.
async fn service(kafka: &kafka::Client, rabbit: &amqp::Client, orders: u64) -> Result<Summary> {
    let emails = Queue::declare(rabbit, "emails").await?;
    let service =
        Consumer::builder(kafka, "order-service").on("order.created", move |event: Event<OrderCreated>| {
            let emails = emails.clone();
            async move {
                emails.send(Enqueue::new("email.send", &event.data)?.id(event.id)?).await?;
                Ok::<(), HandlerError>(())
            }
        });
    let mut watch = service.watch();
    service.run(async move { while watch.summary().settled() < orders && watch.changed().await {} }).await
}

/// What a test of the service does: brokers, orders, the service, and a look at what it put into the queue.
async fn orders_become_emails(orders: u32) -> Result<Vec<u32>> {
    // The first event is written, and its answer is lost.
    let lost_answer = Rule::new("Produce", Action::DropAnswer)?.first(1);
    let faults = Faults::new(1).with(lost_answer)?;
    let topic = topic_of("order.created")?;
    let brokers = embedded::Kafka::builder().topic(topic.as_str(), 4).faults(faults).start().await?;
    let rabbitmq = embedded::Rabbit::builder().start().await?;
    let kafka = kafka::Client::builder(brokers.bootstrap()).connect().await?;
    let rabbit = amqp::Client::connect(&rabbitmq.url()).await?;

    let events = Publisher::new(kafka.producer().build().await?);
    for number in 0..orders {
        let order = OrderCreated { number, email: format!("customer-{number}@example.org") };
        events.publish("order.created", Some(&format!("order-{number}")), &order).await?;
    }
    service(&kafka, &rabbit, orders.into()).await?;

    #[derive(Deserialize)]
    struct Task {
        data: OrderCreated,
    }
    let emails = rabbit.queue("emails").passive().declare().await?;
    let mut found = Vec::new();
    while let Some(message) = emails.get().await? {
        let task: Task = serde_json::from_slice(message.body()).map_err(|e| {
            muslin::Error::new(muslin::ErrorKind::Malformed, "a task of the queue").with_source(e)
        })?;
        found.push(task.data.number);
        message.ack();
    }
    found.sort_unstable();
    println!("faults that happened: {}", brokers.faults(|faults| faults.count()));
    kafka.close().await?;
    rabbit.close().await?;
    Ok(found)
}

#[tokio::main]
async fn main() -> Result<()> {
    let found = orders_become_emails(5).await?;
    println!("orders that became e-mails: {found:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_order_becomes_one_email() {
        assert_eq!(orders_become_emails(20).await.unwrap(), (0..20).collect::<Vec<_>>());
    }
}
