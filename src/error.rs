//! The one error of the crate: a kind to act on, a message to read, a cause to trace.
//!
//! Three questions decide what a caller does with an [`Error`], and each has a method: may the same call succeed
//! later ([`Error::is_retryable`]), may it have taken effect all the same ([`Error::is_ambiguous`]), and whose
//! fault is it ([`Error::fault`]).

use std::error::Error as StdError;
use std::fmt;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as something a program can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, URL, name or argument is wrong. The message names it and what was expected.
    Config,
    /// Bytes from a broker, a file or a program are not what the format says. The message names the place.
    Malformed,
    /// A checksum does not match: the bytes were damaged on the way or on disk.
    Corrupt,
    /// A record, message or frame is over a limit. The message names the limit.
    TooLarge,
    /// The other side speaks something this build does not: an old record format, a codec whose feature is off, a
    /// protocol version out of range.
    Unsupported,
    /// No connection could be made: name not found, port closed, no answer, or something else listens there.
    Connect,
    /// An established connection broke.
    Disconnected,
    /// No answer within the stated time.
    Timeout,
    /// Credentials were refused, or the user lacks the right.
    Denied,
    /// The topic, partition, queue, exchange, virtual host or group is not there.
    NotFound,
    /// The thing exists otherwise than asked: a queue with other arguments, a group with active members.
    Conflict,
    /// The broker is not ready to do it now: leader moving, coordinator loading, too few replicas.
    Unavailable,
    /// The broker refused this message: a nack, or a mandatory message without a route.
    Rejected,
    /// Somebody newer holds what this caller held: a producer epoch, a lease, an assignment.
    Fenced,
    /// One idempotency key was used with two different payloads.
    PayloadMismatch,
    /// The local store failed: disk full, no right, damaged file.
    Storage,
    /// A buffer stayed full for the maximum wait.
    Full,
    /// The client, producer or queue was closed.
    Closed,
    /// The application's handler failed.
    Handler,
    /// A broker's error code that has no kind of its own; the message holds its name and number.
    Broker,
    /// A broken promise inside the crate: please report it.
    Internal,
}

/// On whose side the cause of an error lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller's: change the call, the setting or the handler.
    Caller,
    /// The broker's, or whoever wrote the bytes that were read.
    Peer,
    /// The network between: nobody's, and usually passing.
    Network,
    /// This machine's: disk, memory, file rights.
    Local,
    /// This crate's.
    Library,
}

impl ErrorKind {
    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Connect
            | Self::Disconnected
            | Self::Timeout
            | Self::Unavailable
            | Self::Full
            | Self::Storage
            | Self::Handler => true,
            Self::Config
            | Self::Malformed
            | Self::Corrupt
            | Self::TooLarge
            | Self::Unsupported
            | Self::Denied
            | Self::NotFound
            | Self::Conflict
            | Self::Rejected
            | Self::Fenced
            | Self::PayloadMismatch
            | Self::Closed
            | Self::Broker
            | Self::Internal => false,
        }
    }

    /// On whose side the cause lies.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::Config
            | Self::TooLarge
            | Self::Denied
            | Self::NotFound
            | Self::Conflict
            | Self::Fenced
            | Self::PayloadMismatch
            | Self::Full
            | Self::Closed
            | Self::Handler => Fault::Caller,
            Self::Malformed
            | Self::Corrupt
            | Self::Unsupported
            | Self::Unavailable
            | Self::Rejected
            | Self::Broker => Fault::Peer,
            Self::Connect | Self::Disconnected | Self::Timeout => Fault::Network,
            Self::Storage => Fault::Local,
            Self::Internal => Fault::Library,
        }
    }

    /// The kind as a lower-case word, for logs, headers and JSON. Stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Malformed => "malformed",
            Self::Corrupt => "corrupt",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::Connect => "connect",
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::Fenced => "fenced",
            Self::PayloadMismatch => "payload_mismatch",
            Self::Storage => "storage",
            Self::Full => "full",
            Self::Closed => "closed",
            Self::Handler => "handler",
            Self::Broker => "broker",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What every fallible call of this crate returns.
///
/// One pointer in size. `Display` prints the message alone; the cause is behind [`StdError::source`], and
/// [`Error::report`] prints the whole chain on one line.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    ambiguous: bool,
    retryable: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message that names the thing and says what to do.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            ambiguous: false,
            retryable: kind.is_retryable(),
            source: None,
        }))
    }

    /// The same with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Marks that the operation may have taken effect at the other side.
    #[must_use]
    pub fn ambiguous(mut self) -> Self {
        self.0.ambiguous = true;
        self
    }

    /// Overrides whether a retry may help, where the kind alone does not tell (a broker's code that says so).
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Puts `context: ` before the message: what was being done when it failed.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message, without its cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same call may succeed later without a change by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Whether the operation may have taken effect although it failed: the request left, its answer never came.
    /// `false` means that it is certain that nothing was written.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.0.ambiguous
    }

    /// On whose side the cause lies.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.0.kind.fault()
    }

    /// The message and all its causes on one line, as `message: cause: cause of the cause`.
    #[must_use]
    pub fn report(&self) -> String {
        let mut line = self.0.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many libraries print their cause as part of their own message.
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }

    /// A copy for another waiter on the same failed operation. The cause becomes text.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let copy = Self::new(self.0.kind, self.0.message.clone()).retryable(self.0.retryable);
        let copy = if self.0.ambiguous { copy.ambiguous() } else { copy };
        match &self.0.source {
            Some(source) => copy.with_source(source.to_string()),
            None => copy,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Error");
        s.field("kind", &self.0.kind).field("message", &self.0.message);
        if self.0.ambiguous {
            s.field("ambiguous", &true);
        }
        if let Some(source) = &self.0.source {
            s.field("source", source);
        }
        s.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_pointer_and_can_cross_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn the_report_names_every_cause_once() {
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
        let e =
            Error::new(ErrorKind::Connect, "cannot reach 127.0.0.1:9").with_source(io).context("producer");
        assert_eq!(e.to_string(), "producer: cannot reach 127.0.0.1:9");
        assert_eq!(e.report(), "producer: cannot reach 127.0.0.1:9: refused");
        assert!(e.is_retryable() && !e.is_ambiguous());
        assert_eq!(e.fault(), Fault::Network);
    }

    #[test]
    fn a_duplicate_keeps_what_a_caller_acts_on() {
        let e = Error::new(ErrorKind::Timeout, "no answer").ambiguous().with_source("slow");
        let d = e.duplicate();
        assert_eq!((d.kind(), d.is_ambiguous(), d.report()), (e.kind(), true, e.report()));
    }
}
