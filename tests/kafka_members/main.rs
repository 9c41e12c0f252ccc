//! Members of a group on the embedded Kafka: they join, share, leave, fall silent, and nothing is lost. In memory, in
//! virtual time, by both protocols.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test reads the clock, and fails by a panic"
)]

mod bed;
mod faults;
mod health;
#[path = "../common/member.rs"]
mod member;
mod reading;
mod revoking;
mod sharing;
