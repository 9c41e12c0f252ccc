//! One connection to one broker. Everything that touches rskafka or kafka-protocol's encoding stands here.
//!
//! ```text
//! connect   addresses, and how a byte stream is opened (replaceable)
//! stream    the byte stream: writes joined until flush, reads buffered, a switch that breaks it
//! frame     pure: watches frame lengths, so that a peer that is no Kafka broker is told at once
//! shape     pure: checks an answer's array lengths before anything is allocated by them
//! api       which versions of which requests are spoken
//! link      one connection in use: versions, timeouts, errors
//! ```

pub(super) mod api;
mod connect;
mod frame;
pub(super) mod link;
pub(crate) mod shape;
mod stream;

pub(super) use connect::{Address, Tcp, parse_bootstrap};
pub use connect::{Connect, Connecting, Io};
pub(super) use link::Link;
