//! Transactions as their users see them: what is committed is read, what is aborted is not, on the embedded brokers in both
//! protocols and on real brokers.
//!
//! ```text
//! scenes     what a program does with transactions, and what must hold then
//! embedded   the scenes on embedded brokers, and faults in each request of a transaction
//! older      the scenes on a real broker that speaks the older protocol alone, started by the test
//! real       the scenes on a real broker (MUSLIN_KAFKA)
//! ```
#![cfg(feature = "kafka")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test reads the clock, and fails by a panic; its modules are its own"
)]
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "embedded")]
mod embedded;
mod older;
mod real;
mod scenes;
