//! An embedded RabbitMQ: AMQP 0-9-1 as RabbitMQ 3.10 speaks it.
//!
//! ```text
//! broker        pure: vhosts, exchanges, routing, queues, messages; knows no wire
//! wire          pure: frames, methods, properties, tables
//! ```

#[allow(dead_code, unused_imports, reason = "the connections that use it come next")]
pub(crate) mod broker;
pub(crate) mod wire;
