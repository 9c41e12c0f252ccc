//! Kafka and RabbitMQ's wire in the same process, on loopback: for demonstrations, for tests of services, and with
//! faults on demand.
//!
//! ```no_run
//! # async fn example() -> muslin::Result<()> {
//! let kafka = muslin::embedded::Kafka::builder().topic("orders", 3).start().await?;
//! println!("{}", kafka.bootstrap()); // 127.0.0.1:41234
//! # Ok(()) }
//! ```
//!
//! They speak the real wire, so that clients in any language use them. All state is in memory; dropped = stopped. What
//! is spoken and what differs from the real ones stands in `docs/embedded.md`.
//!
//! ```text
//! kafka     pure: one cluster of 1..n brokers, a file per API key
//! amqp      pure: one RabbitMQ, a file per class of methods
//! faults    pure: rules that make requests of both go wrong, and the record of what happened
//! machine   what a pure broker is to its sockets: inputs, outputs, timers
//! net       thin: listeners, streams, the clock
//! sim       a network in memory, drawn from a seed
//! ```

pub mod amqp;
pub mod faults;
pub mod kafka;
mod machine;
mod net;
pub mod sim;

pub use amqp::{ConnectionState, QueueState, Rabbit, RabbitBuilder};
pub use kafka::{Kafka, KafkaBuilder};
pub use machine::ConnectionId;
pub use net::Traffic;
