//! A message. (skeleton)
use super::name::ShortStr;
use super::refusal::Refusal;
use bytes::Bytes;

/// A message as it stands in queues; shared, never copied.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
    /// Property flags and values, as they are to be sent (what the wire reads).
    pub(crate) properties: Bytes,
    pub(crate) body: Bytes,
}

impl Message {
    /// A message as it was published.
    ///
    /// # Errors
    /// As RabbitMQ refuses it: a broken property list (502), an expiration that is no number or a `CC` that is no list (406).
    pub(crate) fn new(
        exchange: ShortStr,
        routing_key: ShortStr,
        properties: Bytes,
        body: Bytes,
    ) -> Result<Self, Refusal> {
        Ok(Self { exchange, routing_key, properties, body })
    }
}
