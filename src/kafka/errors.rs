//! Broker error codes as errors of this crate.
