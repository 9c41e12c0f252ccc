//! The embedded Kafka against the real one: the same raw requests go to both, and the answers are compared field by
//! field. No client stands between, so that errors are met that a client would hide.
//!
//! A scenario notes what it sees. Names and producer ids are replaced by their order of appearance; what differs by
//! nature (hosts, throttling, times) is not noted.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks and sleep")]

#[path = "../common/mod.rs"]
mod common;

mod consume;
mod groups;
mod login;
mod peer;
mod produce;
mod transactions;
