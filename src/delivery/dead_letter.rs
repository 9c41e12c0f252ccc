//! The headers of a dead letter: where it came from, why it is there, and how often it was tried.
//!
//! Key, value and own headers of a record or message stay as they were; these headers are added. All values are UTF-8 text;
//! times are milliseconds since 1970-01-01T00:00:00Z, numbers are decimal.
//!
//! | header | Kafka | RabbitMQ |
//! |---|---|---|
//! | `muslin-dlq-original-topic`, `-original-partition`, `-original-offset`, `-original-timestamp`, `-original-group` | x | |
//! | `muslin-dlq-original-exchange`, `-original-routing-key`, `-original-queue` | | x |
//! | `muslin-dlq-reason` ([`Reason::as_str`]) | x | x |
//! | `muslin-dlq-error-class`, `muslin-dlq-error-message` | x | x |
//! | `muslin-dlq-attempts`, `muslin-dlq-first-failure`, `muslin-dlq-last-failure` | x | x |

use std::borrow::Cow;
use std::fmt;

use crate::{Offset, Partition, Timestamp};

/// What every name of these headers begins with.
pub const PREFIX: &str = "muslin-dlq-";
/// The Kafka topic it was read from.
pub const ORIGINAL_TOPIC: &str = "muslin-dlq-original-topic";
/// The Kafka partition it was read from.
pub const ORIGINAL_PARTITION: &str = "muslin-dlq-original-partition";
/// The offset it was read from.
pub const ORIGINAL_OFFSET: &str = "muslin-dlq-original-offset";
/// The timestamp of the record.
pub const ORIGINAL_TIMESTAMP: &str = "muslin-dlq-original-timestamp";
/// The consumer group that gave it up.
pub const ORIGINAL_GROUP: &str = "muslin-dlq-original-group";
/// The exchange it was published to; empty for the default exchange.
pub const ORIGINAL_EXCHANGE: &str = "muslin-dlq-original-exchange";
/// The routing key it was published with.
pub const ORIGINAL_ROUTING_KEY: &str = "muslin-dlq-original-routing-key";
/// The queue it was read from.
pub const ORIGINAL_QUEUE: &str = "muslin-dlq-original-queue";
/// Why: a [`Reason`].
pub const REASON: &str = "muslin-dlq-reason";
/// The class of the error.
pub const ERROR_CLASS: &str = "muslin-dlq-error-class";
/// The error's message.
pub const ERROR_MESSAGE: &str = "muslin-dlq-error-message";
/// How often it was tried.
pub const ATTEMPTS: &str = "muslin-dlq-attempts";
/// When it failed first.
pub const FIRST_FAILURE: &str = "muslin-dlq-first-failure";
/// When it failed last.
pub const LAST_FAILURE: &str = "muslin-dlq-last-failure";

/// The longest error message, in bytes; a longer one is cut at a character and ends in `...`.
pub const MAX_MESSAGE: usize = 1024;
/// The longest of the other values, in bytes.
pub const MAX_NAME: usize = 256;

/// Whether a header is one of these: to be left out when a dead letter is sent back, or dies again.
#[must_use]
pub fn is_dead_letter_header(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Why a delivery became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The handler failed as often as the policy allows.
    RetriesExhausted,
    /// The handler failed with an error that a retry cannot help.
    NotRetryable,
    /// The handler did not end within its time.
    TimedOut,
    /// No handler is registered for its type.
    UnknownType,
    /// The body is not JSON.
    NotJson,
    /// A field is missing, or of the wrong type.
    BadField,
    /// Its idempotency key was used with another payload.
    PayloadMismatch,
}

impl Reason {
    /// The reason as a word. Stable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "retries_exhausted",
            Self::NotRetryable => "not_retryable",
            Self::TimedOut => "timed_out",
            Self::UnknownType => "unknown_type",
            Self::NotJson => "not_json",
            Self::BadField => "bad_field",
            Self::PayloadMismatch => "payload_mismatch",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a dead letter came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A record of a Kafka partition.
    Kafka {
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: Partition,
        /// The offset.
        offset: Offset,
        /// The record's timestamp.
        timestamp: Timestamp,
        /// The consumer group, if there is one.
        group: Option<&'a str>,
    },
    /// A message of a RabbitMQ queue.
    Amqp {
        /// The exchange; empty for the default one.
        exchange: &'a str,
        /// The routing key.
        routing_key: &'a str,
        /// The queue.
        queue: &'a str,
    },
}

/// All that a dead letter says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Where it came from.
    pub origin: Origin<'a>,
    /// Why it is here.
    pub reason: Reason,
    /// The class of the error: [`ErrorKind::as_str`](crate::ErrorKind::as_str), or the handler's own word.
    pub error_class: &'a str,
    /// The error's message with its causes.
    pub error_message: &'a str,
    /// How often it was tried; 0 if it never reached a handler.
    pub attempts: u32,
    /// When it failed first.
    pub first_failure: Timestamp,
    /// When it failed last.
    pub last_failure: Timestamp,
}

impl<'a> DeadLetter<'a> {
    /// The headers to add, in a fixed order: the origin, the reason, the error, the attempts.
    /// At most 12, of at most [`MAX_MESSAGE`] or [`MAX_NAME`] bytes each.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, Cow<'a, str>)> {
        let mut headers = Vec::with_capacity(12);
        match self.origin {
            Origin::Kafka { topic, partition, offset, timestamp, group } => {
                headers.push((ORIGINAL_TOPIC, cut(topic, MAX_NAME)));
                headers.push((ORIGINAL_PARTITION, partition.to_string().into()));
                headers.push((ORIGINAL_OFFSET, offset.to_string().into()));
                headers.push((ORIGINAL_TIMESTAMP, timestamp.to_string().into()));
                headers.extend(group.map(|group| (ORIGINAL_GROUP, cut(group, MAX_NAME))));
            }
            Origin::Amqp { exchange, routing_key, queue } => {
                headers.push((ORIGINAL_EXCHANGE, cut(exchange, MAX_NAME)));
                headers.push((ORIGINAL_ROUTING_KEY, cut(routing_key, MAX_NAME)));
                headers.push((ORIGINAL_QUEUE, cut(queue, MAX_NAME)));
            }
        }
        headers.push((REASON, self.reason.as_str().into()));
        headers.push((ERROR_CLASS, cut(self.error_class, MAX_NAME)));
        headers.push((ERROR_MESSAGE, cut(self.error_message, MAX_MESSAGE)));
        headers.push((ATTEMPTS, self.attempts.to_string().into()));
        headers.push((FIRST_FAILURE, self.first_failure.to_string().into()));
        headers.push((LAST_FAILURE, self.last_failure.to_string().into()));
        headers
    }
}

/// The text, or its beginning and `...` in at most `most` bytes, whole characters only.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    const MARK: &str = "...";
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(most.saturating_sub(MARK.len()));
    let start = text.get(..end).unwrap_or_default();
    Cow::Owned(format!("{start}{MARK}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter<'a>(origin: Origin<'a>, message: &'a str) -> DeadLetter<'a> {
        DeadLetter {
            origin,
            reason: Reason::RetriesExhausted,
            error_class: "timeout",
            error_message: message,
            attempts: 5,
            first_failure: Timestamp(1_000),
            last_failure: Timestamp(2_000),
        }
    }

    fn text(letter: &DeadLetter<'_>) -> Vec<String> {
        letter.headers().iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    const TASKS: Origin<'_> = Origin::Amqp { exchange: "", routing_key: "tasks", queue: "tasks" };

    #[test]
    fn a_record_says_where_it_came_from_and_why() {
        let origin = Origin::Kafka {
            topic: "events.order.created",
            partition: Partition(3),
            offset: Offset(42),
            timestamp: Timestamp(999),
            group: Some("billing"),
        };
        assert_eq!(
            text(&letter(origin, "no answer within 5 s")),
            [
                "muslin-dlq-original-topic=events.order.created",
                "muslin-dlq-original-partition=3",
                "muslin-dlq-original-offset=42",
                "muslin-dlq-original-timestamp=999",
                "muslin-dlq-original-group=billing",
                "muslin-dlq-reason=retries_exhausted",
                "muslin-dlq-error-class=timeout",
                "muslin-dlq-error-message=no answer within 5 s",
                "muslin-dlq-attempts=5",
                "muslin-dlq-first-failure=1000",
                "muslin-dlq-last-failure=2000",
            ]
        );
    }

    #[test]
    fn a_task_says_its_queue_and_its_way_there() {
        let all = text(&letter(TASKS, "x"));
        assert_eq!(
            all[..3],
            [
                "muslin-dlq-original-exchange=",
                "muslin-dlq-original-routing-key=tasks",
                "muslin-dlq-original-queue=tasks",
            ]
        );
        assert!(letter(TASKS, "x").headers().iter().all(|(name, _)| is_dead_letter_header(name)));
        assert!(!is_dead_letter_header("traceparent"));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        for width in 1..=4 {
            let filler = ["a", "é", "€", "🦀"][width - 1];
            for shift in 0..4 {
                let message = format!("{}{}", "x".repeat(shift), filler.repeat(2000));
                let headers = letter(TASKS, &message).headers();
                let (_, value) = headers.iter().find(|(name, _)| *name == ERROR_MESSAGE).unwrap();
                assert!(value.len() <= MAX_MESSAGE && value.len() > MAX_MESSAGE - 4, "{}", value.len());
                assert!(value.ends_with("..."));
                assert!(message.starts_with(value.strip_suffix("...").unwrap()));
            }
        }
        let just = "m".repeat(MAX_MESSAGE);
        assert!(text(&letter(TASKS, &just)).contains(&format!("{ERROR_MESSAGE}={just}")));
    }

    #[test]
    fn an_absurd_error_class_cannot_blow_up_the_headers() {
        let class = "c".repeat(1 << 20);
        let mut letter = letter(TASKS, "");
        letter.error_class = &class;
        assert!(letter.headers().iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() < 4096);
    }
}
