//! Bytes in, bytes out: record batches as Kafka stores and ships them, and the JSON envelopes of events and tasks.
//!
//! Pure: no socket, no clock, no task. Everything read here is hostile until checked.

pub mod compression;
pub mod envelope;
pub mod record_batch;
mod varint;
