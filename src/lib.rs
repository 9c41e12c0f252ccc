//! Kafka and RabbitMQ for Rust that link into one static binary: no C anywhere, nothing lost, nothing done twice.
//!
//! The layers, each importing only what stands below it:
//!
//! ```text
//! events  tasks     domain events on Kafka, task workers on RabbitMQ: what applications write against
//! processor         one engine for both: order by key, idempotency, retry, dead letters, drain
//! kafka   amqp      the two clients (IO)
//! idempotency       the key store: claim -> complete | release
//! delivery          pure: ack tracker, key order, retry schedule
//! codec             pure: record batches and envelopes over `bytes`
//! observe           what is seen from outside: the metrics trait, trace contexts
//! embedded          Kafka and RabbitMQ's wire in this process, for tests and demonstrations
//! error   types     one `Error` with a kind; `Offset`, `Partition`, `DeliveryTag`, ...
//! ```
//!
//! Every layer from `idempotency` down takes the time as an argument and can be used alone, without a runtime.
//!
//! # Features
//!
//! `kafka`, `amqp` (the clients), `gzip`, `snappy`, `lz4`, `zstd` (codecs of record batches), `redb` (the durable
//! key store), `embedded` (brokers in the process), `cli` (the binary; on by default, with all of the above). Features only add. A library user takes
//! `default-features = false` and the parts wanted.

pub mod codec;
#[cfg(feature = "io")]
pub mod config;
pub mod delivery;
mod error;
pub mod idempotency;
pub mod observe;
#[cfg(feature = "io")]
mod random;
mod types;

#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(feature = "kafka")]
pub mod kafka;

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "kafka")]
pub mod events;
#[cfg(feature = "io")]
pub mod processor;
#[cfg(feature = "amqp")]
pub mod tasks;

pub use error::{Error, ErrorKind, Fault, Result};
pub use types::{
    DeliveryTag, LeaderEpoch, NodeId, Offset, Partition, ProducerEpoch, ProducerId, Sequence, Timestamp,
    Topic,
};
