//! What the broker says no with: AMQP's reply codes and RabbitMQ's words.

use std::fmt;

use super::name::ShortStr;

/// A request that is refused: the reply code and text of the `channel.close` or `connection.close` that answers it
/// (AMQP 0-9-1 section 1.1, reply codes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The reply code.
    pub(crate) code: u16,
    /// The whole reply text: `NOT_FOUND - no queue 'q' in vhost '/'`. May be longer than the 255 bytes of the wire.
    pub(crate) text: String,
}

impl Refusal {
    fn new(code: u16, name: &str, why: &dyn fmt::Display) -> Self {
        Self { code, text: format!("{name} - {why}") }
    }

    pub(crate) fn access_refused(why: impl fmt::Display) -> Self {
        Self::new(403, "ACCESS_REFUSED", &why)
    }

    pub(crate) fn not_found(why: impl fmt::Display) -> Self {
        Self::new(404, "NOT_FOUND", &why)
    }

    pub(crate) fn resource_locked(why: impl fmt::Display) -> Self {
        Self::new(405, "RESOURCE_LOCKED", &why)
    }

    pub(crate) fn precondition_failed(why: impl fmt::Display) -> Self {
        Self::new(406, "PRECONDITION_FAILED", &why)
    }

    pub(crate) fn syntax_error(why: impl fmt::Display) -> Self {
        Self::new(502, "SYNTAX_ERROR", &why)
    }

    pub(crate) fn command_invalid(why: impl fmt::Display) -> Self {
        Self::new(503, "COMMAND_INVALID", &why)
    }

    pub(crate) fn not_allowed(why: impl fmt::Display) -> Self {
        Self::new(530, "NOT_ALLOWED", &why)
    }

    pub(crate) fn not_implemented(why: impl fmt::Display) -> Self {
        Self::new(540, "NOT_IMPLEMENTED", &why)
    }

    /// Whether it ends the whole connection, not only the channel.
    pub(crate) const fn ends_connection(&self) -> bool {
        !matches!(self.code, 311 | 313 | 403..=406)
    }
}

/// `queue 'q' in vhost '/'`, as RabbitMQ names things in its texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thing<'a> {
    pub(super) kind: &'static str,
    pub(super) name: &'a [u8],
    pub(super) vhost: &'a ShortStr,
}

impl fmt::Display for Thing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}' in vhost '{}'", self.kind, String::from_utf8_lossy(self.name), self.vhost)
    }
}
