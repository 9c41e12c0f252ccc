//! The brokers that the demo runs on: those that are named, embedded ones otherwise.

use muslin::embedded;
use serde::Serialize;

use crate::connect::Context;
use crate::exit::Failure;
use crate::output::redact;

const KAFKA: &str = "bootstrap.servers";
const AMQP: &str = "amqp.url";

/// What the demo runs on, as the summary says it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RanOn {
    pub(super) kafka: String,
    pub(super) rabbitmq: String,
}

/// What the demo runs on.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) ran_on: RanOn,
    embedded: Embedded,
}

/// Brokers of this process. Dropped, they stop.
#[derive(Debug, Default)]
struct Embedded {
    kafka: Option<embedded::Kafka>,
    rabbit: Option<embedded::Rabbit>,
}

impl Ground {
    /// Starts what is not named, and names it in the settings.
    pub(super) async fn choose(context: &mut Context) -> std::result::Result<Self, Failure> {
        let mut embedded = Embedded::default();
        let kafka = match context.settings.text(KAFKA) {
            Some(named) => format!("Kafka at {named}"),
            None => {
                let kafka = embedded::Kafka::builder().start().await.map_err(Failure::setup)?;
                context.settings.put(KAFKA, &kafka.bootstrap()).map_err(Failure::usage)?;
                let text = format!("embedded Kafka at {}", kafka.bootstrap());
                embedded.kafka = Some(kafka);
                text
            }
        };
        let rabbitmq = match context.settings.text(AMQP) {
            Some(named) => format!("RabbitMQ at {}", redact(named)),
            None => {
                let rabbit = embedded::Rabbit::builder().start().await.map_err(Failure::setup)?;
                context.settings.put(AMQP, &rabbit.url()).map_err(Failure::usage)?;
                let text = format!("embedded RabbitMQ at {}", rabbit.address());
                embedded.rabbit = Some(rabbit);
                text
            }
        };
        Ok(Self { ran_on: RanOn { kafka, rabbitmq }, embedded })
    }

    /// How another process finds the embedded brokers.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        let kafka = self.embedded.kafka.as_ref().map(|kafka| ("MUSLIN_KAFKA", kafka.bootstrap()));
        let rabbit = self.embedded.rabbit.as_ref().map(|rabbit| ("MUSLIN_AMQP", rabbit.url()));
        kafka.into_iter().chain(rabbit)
    }
}
