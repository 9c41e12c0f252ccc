//! The RabbitMQ client: AMQP 0-9-1 over one connection, with confirmed publishing and manual acknowledgement.
//!
//! ```no_run
//! # async fn run() -> muslin::Result<()> {
//! use muslin::amqp::{Client, Message};
//!
//! let rabbit = Client::connect("amqp://user:pass@localhost:5672/").await?;
//! let queue = rabbit.queue("tasks").declare().await?;
//! queue.publish(Message::json(&serde_json::json!({"type": "email.send", "data": {}}))?).await?; // confirmed
//! let mut deliveries = queue.consume().prefetch(200).start().await?;
//! while let Some(delivery) = deliveries.next().await {
//!     let delivery = delivery?;
//!     println!("{} bytes", delivery.body().len());
//!     delivery.ack();
//! }
//! # Ok(()) }
//! ```
//!
//! # How the work is divided
//!
//! `amqprs` does framing and one RPC at a time; it panics inside when a caller is cancelled or two callers declare at
//! once. So each of its channels has one owning task here, which runs every RPC to its end, and callers talk to that
//! task. The owners are kept apart by what a broker's error takes down, because AMQP answers most errors by closing
//! the channel:
//!
//! ```text
//! Client ──► connection task (connection.rs)     opens channels, watches the link, closes it
//!              ├─ control channel (topology.rs)    declare, bind, purge, depth; reopened after a broker's error
//!              ├─ publisher channel (publisher.rs) one per Publisher; confirms.rs matches confirms; reopened
//!              ├─ get channel (receiver.rs)        one per Queue that uses `get`
//!              └─ consumer channel (receiver.rs)   one per Deliveries; its end is an error from `next`
//! ```
//!
//! # What holds
//!
//! * A publish that resolves `Ok` was confirmed by the broker. An error says by [`crate::Error::is_ambiguous`] whether
//!   the message may be there all the same.
//! * A delivery that is neither acknowledged nor rejected comes again: it is given back on drop, and by the broker when
//!   the channel or the connection ends. An acknowledgement after that changes nothing and is logged.
//! * Every operation has a time limit. When the connection is lost each waiter gets
//!   [`ErrorKind::Disconnected`](crate::ErrorKind::Disconnected); the application connects again with
//!   [`Client::connect`].
//!
//! # Between the library and the broker
//!
//! The library dials by itself and trusts what it reads. So it dials a loopback port of this process (`relay.rs`), where
//! each frame of the broker is checked and what a hostile publisher wrote is mended (`frames.rs`): such a message is
//! delivered, with bytes in place of a text that is not UTF-8, or without its headers if they are broken or nested
//! deeper than 32.
//!
//! # Limits that come from below
//!
//! * The broker's `connection.blocked` is not announced; a blocked publisher sees its confirms time out.
//! * Each error for which the broker closes a channel uses up one of the connection's channel numbers (2,047 by
//!   RabbitMQ's default); when they are gone, operations that need a new channel fail with
//!   [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) until the application connects again.
//! * TLS (`amqps://`) is not in this build.

mod channel;
mod client;
pub(crate) mod confirms;
mod connection;
mod consumer;
mod convert;
mod error;
mod frames;
mod message;
mod probe;
mod publisher;
mod queue;
mod receiver;
mod relay;
pub(crate) mod settle;
mod table;
mod topology;
mod url;

pub use client::{Client, ClientBuilder};
pub use consumer::{ConsumeBuilder, Deliveries, Delivery};
pub use message::{Message, Properties};
pub use publisher::{Publisher, Queued};
pub use queue::{Depth, Queue, QueueBuilder};
#[cfg(feature = "embedded")]
pub(crate) use table::MAX_DEPTH;
#[cfg(all(test, feature = "embedded"))]
pub(crate) use table::samples;
pub use table::{Table, Value};
pub use topology::{ExchangeBuilder, ExchangeKind};
pub use url::Url;

/// A door for the fuzz targets; no part of the API.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    use super::frames::{Step, inspect};

    /// The most headers may nest.
    pub const MAX_DEPTH: usize = super::table::MAX_DEPTH;

    /// What goes on instead of the first frame, and how long that frame was; `None` while it is not complete.
    ///
    /// # Errors
    /// As the relay's: no broker sends such a frame.
    pub fn first_frame(bytes: &[u8]) -> crate::Result<Option<(usize, Vec<u8>)>> {
        let mut buffer = bytes.to_vec();
        Ok(match inspect(&mut buffer)? {
            Step::Incomplete => None,
            Step::Pass(len) => {
                buffer.truncate(len);
                Some((len, buffer))
            }
            Step::Replace { len, with } => Some((len, with)),
        })
    }
}
