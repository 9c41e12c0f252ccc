//! One connection to one broker. Everything that touches rskafka or kafka-protocol's encoding stands here.
//!
//! ```text
//! connect   addresses, and how a byte stream is opened (replaceable)
//! stream    the byte stream: reads buffered, a switch that breaks it
//! output    what leaves on it: writes joined until flush, frames from the outbox
//! outbox    frames that pass the messenger by, so that record bytes are not copied
//! produce   a Produce request, written with its record bytes pointed to
//! frame     pure: watches frame lengths, so that a peer that is no Kafka broker is told at once
//! shape     pure: checks an answer's array lengths before anything is allocated by them
//! api       which versions of which requests are spoken
//! link      one connection in use: versions, timeouts, errors
//! ```

pub(super) mod api;
mod connect;
mod frame;
pub(super) mod link;
mod outbox;
mod output;
mod produce;
pub(crate) mod shape;
mod stream;

pub(super) use connect::{Address, Tcp, parse_bootstrap};
pub use connect::{Connect, Connecting, Io};
pub(super) use link::Link;
pub(super) use outbox::COPIED;
pub(super) use produce::Produce;
