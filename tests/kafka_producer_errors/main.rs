//! What a producer's user is told, and what the log holds then, after every error that a broker may answer, connections
//! that break anywhere, leaders that move, and answers that come late or never. On the embedded brokers, in virtual time.
//!
//! ```text
//! bed     three brokers, a client, a run of numbered records, and what must hold of every run
//! codes   each error code of a produce answer: before the work and after it, once and standing
//! ways    connections, leaders, brokers and clocks that fail
//! input   what cannot be sent, and settings that cannot be
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test reads the clock, and fails by a panic; its modules are its own"
)]

mod bed;
mod codes;
mod input;
mod ways;
