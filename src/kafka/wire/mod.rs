//! One connection to one broker.

mod connect;

pub use connect::{Connect, Io};
