//! Domain events on Kafka: published to the topic of their type, handled by type, each once where a store is given.
//!
//! ```text
//! topic   events.{event_type}
//! key     the aggregate's id, or null: events of one aggregate keep their order
//! value   {"event_id": "...", "event_type": "...", "occurred_at": "...", "data": {...}}
//! headers content-type: application/json, and whatever the publisher adds
//! ```
//!
//! ```no_run
//! # async fn run(shutdown: impl std::future::Future<Output = ()> + Send) -> muslin::Result<()> {
//! use muslin::events::{Consumer, Event, Publisher};
//! use muslin::kafka::Client;
//! use muslin::processor::HandlerError;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct OrderCreated { total: u64 }
//!
//! let kafka = Client::builder("127.0.0.1:9092").connect().await?;
//! let events = Publisher::new(kafka.producer().build().await?);
//! events.publish("order.created", Some("order-42"), &OrderCreated { total: 99 }).await?;
//!
//! let summary = Consumer::builder(&kafka, "billing")
//!     .on("order.created", |event: Event<OrderCreated>| async move {
//!         println!("{}: {}", event.id, event.data.total);
//!         Ok::<(), HandlerError>(())
//!     })
//!     .concurrency(64)
//!     .dead_letter("billing.dlq")
//!     .run(shutdown)
//!     .await?;
//! println!("{summary}");
//! # Ok(()) }
//! ```
//!
//! `publisher` writes, `consumer` reads, `router` decides by type and by policy what becomes of a record.

mod consumer;
mod publisher;
mod router;

pub use crate::processor::Policy;
pub use consumer::{Consumer, ConsumerBuilder};
pub use publisher::{Publish, Published, Publisher, topic_of};
pub use router::{Event, RawEvent};
