//! A message: a body and what travels with it.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::table::{Table, Value};
use crate::{Error, ErrorKind, Result};

/// What AMQP carries beside the body (the `basic` class's properties, AMQP 0-9-1 section 1.8).
///
/// Texts are at most 255 bytes. Nothing is checked until the message is published.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Properties {
    /// MIME type of the body.
    pub content_type: Option<String>,
    /// MIME encoding of the body, such as `gzip`.
    pub content_encoding: Option<String>,
    /// The application's headers.
    pub headers: Table,
    /// Whether a durable queue keeps the message on disk: `delivery_mode` 2. `None` is what a sender left out, which
    /// brokers take for transient.
    pub persistent: Option<bool>,
    /// 0 (lowest) to 255; RabbitMQ advises at most 10 levels, and only queues with `x-max-priority` heed it.
    pub priority: Option<u8>,
    /// What this message answers.
    pub correlation_id: Option<String>,
    /// The queue for an answer.
    pub reply_to: Option<String>,
    /// Milliseconds in decimal after which the broker drops or dead-letters the message.
    pub expiration: Option<String>,
    /// Names the message; a message published again keeps it.
    pub message_id: Option<String>,
    /// Seconds since 1970-01-01T00:00:00Z.
    pub timestamp: Option<u64>,
    /// The application's type of the message.
    pub kind: Option<String>,
    /// The user who published it; the broker refuses any other name.
    pub user_id: Option<String>,
    /// The program that published it.
    pub app_id: Option<String>,
}

impl Properties {
    /// The texts with their names, for checks and sizes.
    fn texts(&self) -> [(&'static str, Option<&str>); 9] {
        [
            ("content type", self.content_type.as_deref()),
            ("content encoding", self.content_encoding.as_deref()),
            ("correlation id", self.correlation_id.as_deref()),
            ("reply to", self.reply_to.as_deref()),
            ("expiration", self.expiration.as_deref()),
            ("message id", self.message_id.as_deref()),
            ("type", self.kind.as_deref()),
            ("user id", self.user_id.as_deref()),
            ("app id", self.app_id.as_deref()),
        ]
    }

    /// Bytes of the content header frame's payload: class, weight, body size, flags, then what is present
    /// (AMQP 0-9-1 section 4.2.6.1).
    pub(super) fn wire_size(&self) -> usize {
        let texts: usize = self.texts().iter().filter_map(|(_, t)| t.map(|t| 1 + t.len())).sum();
        let headers = if self.headers.is_empty() { 0 } else { self.headers.wire_size() };
        let mode = usize::from(self.persistent.is_some());
        let priority = usize::from(self.priority.is_some());
        let timestamp = if self.timestamp.is_some() { 8 } else { 0 };
        14 + texts + headers + mode + priority + timestamp
    }

    /// Refuses what the wire cannot carry.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] for a text or a header name over 255 bytes or headers nested too deep;
    /// [`ErrorKind::Config`] for an expiration that is not a number.
    pub(super) fn check(&self) -> Result<()> {
        for (name, text) in self.texts() {
            if let Some(text) = text
                && text.len() > usize::from(u8::MAX)
            {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("the message's {name} has {} bytes; 255 is the most", text.len()),
                ));
            }
        }
        if let Some(expiration) = &self.expiration
            && expiration.parse::<u64>().is_err()
        {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the message's expiration {expiration:?} is not a number of milliseconds"),
            ));
        }
        self.headers.check(0, &"the message's headers")
    }
}

/// A body with its [`Properties`]. A new one is persistent.
///
/// Cloning shares the body and copies the properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    body: Bytes,
    properties: Properties,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: impl Into<String>) -> Self {
            self.properties.$name = Some($name.into());
            self
        })+
    };
}

impl Message {
    /// A persistent message. A body made from a `Vec<u8>` that nobody else holds is sent without a copy.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), properties: Properties { persistent: Some(true), ..Properties::default() } }
    }

    /// A message from its two parts, as they are.
    #[must_use]
    pub fn from_parts(body: impl Into<Bytes>, properties: Properties) -> Self {
        Self { body: body.into(), properties }
    }

    /// A persistent message whose body is `value` as JSON, with the content type `application/json`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `value` cannot be written as JSON (a map whose keys are not texts, for one).
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        let body = serde_json::to_vec(value).map_err(|e| {
            Error::new(ErrorKind::Config, "the value cannot be written as JSON").with_source(e)
        })?;
        Ok(Self::new(body).content_type("application/json"))
    }

    setters! {
        /// Sets the MIME type of the body.
        content_type,
        /// Sets the MIME encoding of the body.
        content_encoding,
        /// Sets what this message answers.
        correlation_id,
        /// Sets the queue for an answer.
        reply_to,
        /// Sets the message's name. Without one a publisher gives it one.
        message_id,
        /// Sets the application's type of the message.
        kind,
        /// Sets the publishing user; the broker refuses any other name than the connection's.
        user_id,
        /// Sets the publishing program.
        app_id,
    }

    /// Sets a header, replacing one of the same name.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.properties.headers.insert(name, value);
        self
    }

    /// Sets the priority: 0 (lowest, the default) to 255. Only a queue declared with `x-max-priority` heeds it, and
    /// takes what is above its own highest for its highest.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.properties.priority = Some(priority);
        self
    }

    /// Sets how long the message may wait in its queue; counted in whole milliseconds.
    #[must_use]
    pub fn expiration(mut self, after: Duration) -> Self {
        self.properties.expiration = Some(after.as_millis().to_string());
        self
    }

    /// Sets when the message was made: seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn timestamp(mut self, seconds: u64) -> Self {
        self.properties.timestamp = Some(seconds);
        self
    }

    /// Makes the message transient: a broker's restart loses it.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.properties.persistent = Some(false);
        self
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What travels with the body.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// What travels with the body, to be changed.
    pub fn properties_mut(&mut self) -> &mut Properties {
        &mut self.properties
    }

    /// The two parts.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, Properties) {
        (self.body, self.properties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_message_is_persistent_and_keeps_the_last_header_of_a_name() {
        let m = Message::new("x").header("a", 1i32).header("a", "two");
        assert_eq!(m.properties().persistent, Some(true));
        assert_eq!(m.properties().headers.get("a"), Some(&Value::from("two")));
    }

    #[test]
    fn what_the_wire_cannot_carry_is_refused_by_name() {
        let e = Message::new("").message_id("i".repeat(256)).properties().check().unwrap_err();
        assert!(e.to_string().contains("message id has 256 bytes"), "{e}");
        let mut m = Message::new("");
        m.properties_mut().expiration = Some("soon".into());
        let e = m.properties().check().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.to_string().contains("\"soon\""), "{e}");
    }
}
