//! Arguments of queues and consumers: which are known, what they may say, and when two declarations agree.
//!
//! As RabbitMQ 3.10 to 4.x check them; the wording is theirs. Streams are left out: `x-queue-type: stream` is refused as
//! unsupported. `x-queue-mode`, `x-queue-version`, `x-queue-leader-locator`, `x-queue-master-locator`,
//! `x-max-in-memory-*`, `x-quorum-initial-group-size` and `x-dead-letter-strategy` are checked and change nothing:
//! all is in memory, on one node, and dead letters cannot get lost on their way.

use std::fmt;
use std::time::Duration;

use super::name::ShortStr;
use super::refusal::{Refusal, Thing};
use crate::amqp::{Table, Value};

/// What a full queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

/// What a queue's arguments say.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) quorum: bool,
    pub(super) ttl: Option<Duration>,
    pub(super) expires: Option<Duration>,
    pub(super) max_length: Option<u64>,
    pub(super) max_bytes: Option<u64>,
    pub(super) overflow: Overflow,
    pub(super) dead_letter_exchange: Option<ShortStr>,
    pub(super) dead_letter_key: Option<ShortStr>,
    pub(super) max_priority: u8,
    pub(super) single_active: bool,
    pub(super) delivery_limit: Option<u32>,
    pub(super) consumer_timeout: Option<Duration>,
}

/// What a classic queue is compared by when it is declared again, in RabbitMQ's order: the first that differs is told.
const CLASSIC_COMPARED: [&str; 14] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-queue-leader-locator",
];
const QUORUM_COMPARED: [&str; 15] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
];
/// Known to classic queues alone.
const CLASSIC: [&str; 4] = ["x-max-priority", "x-queue-master-locator", "x-queue-mode", "x-queue-version"];
/// Known to quorum queues alone.
const QUORUM: [&str; 5] = [
    "x-dead-letter-strategy",
    "x-delivery-limit",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-quorum-initial-group-size",
];
const STREAM: [&str; 4] =
    ["x-initial-cluster-size", "x-max-age", "x-stream-filter-size-bytes", "x-stream-max-segment-size-bytes"];

/// 2^32 - 1 milliseconds: RabbitMQ's longest timer.
const MAX_TIMER: i64 = 4_294_967_295;

/// A value's type as RabbitMQ calls it.
pub(super) const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "void",
        Value::Bool(_) => "bool",
        Value::I8(_) => "byte",
        Value::U8(_) => "unsignedbyte",
        Value::I16(_) => "short",
        Value::U16(_) => "unsignedshort",
        Value::I32(_) => "signedint",
        Value::U32(_) => "unsignedint",
        Value::I64(_) => "long",
        Value::F32(_) => "float",
        Value::F64(_) => "double",
        Value::Decimal { .. } => "decimal",
        Value::Text(_) => "longstr",
        Value::Bytes(_) => "binary",
        Value::Timestamp(_) => "timestamp",
        Value::Array(_) => "array",
        Value::Table(_) => "table",
    }
}

/// An integer of any width. A timestamp is none.
const fn integer(value: &Value) -> Option<i64> {
    Some(match value {
        Value::I8(n) => *n as i64,
        Value::U8(n) => *n as i64,
        Value::I16(n) => *n as i64,
        Value::U16(n) => *n as i64,
        Value::I32(n) => *n as i64,
        Value::U32(n) => *n as i64,
        Value::I64(n) => *n,
        _ => return None,
    })
}

/// A value in an error text, as Erlang prints it, near enough for lists and tables.
struct Printed<'a>(&'a Value);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("undefined"),
            Value::Bool(v) => v.fmt(f),
            Value::F32(v) => write!(f, "{v:?}"),
            Value::F64(v) => write!(f, "{v:?}"),
            Value::Decimal { scale, value } => write!(f, "{{{scale},{value}}}"),
            Value::Text(text) => f.write_str(text),
            Value::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Value::Timestamp(v) => v.fmt(f),
            Value::Array(values) => {
                f.write_str("[")?;
                for (n, value) in values.iter().enumerate() {
                    write!(f, "{}{{{},{}}}", if n > 0 { "," } else { "" }, type_name(value), Printed(value))?;
                }
                f.write_str("]")
            }
            Value::Table(table) => {
                f.write_str("[")?;
                for (n, (name, value)) in table.iter().enumerate() {
                    let comma = if n > 0 { "," } else { "" };
                    write!(f, "{comma}{{<<\"{name}\">>,{},{}}}", type_name(value), Printed(value))?;
                }
                f.write_str("]")
            }
            other => integer(other).unwrap_or(0).fmt(f),
        }
    }
}

/// A value as it stands in error texts.
pub(super) fn printed(value: &Value) -> impl fmt::Display {
    Printed(value)
}

/// `received X but current is Y`.
pub(super) fn inequivalent(
    thing: &Thing<'_>,
    key: &str,
    received: impl fmt::Display,
    current: impl fmt::Display,
) -> Refusal {
    Refusal::precondition_failed(format_args!(
        "inequivalent arg '{key}' for {thing}: received {received} but current is {current}"
    ))
}

/// The error unless a property is declared as it is.
pub(super) fn same<T: PartialEq + fmt::Display>(
    thing: &Thing<'_>,
    key: &str,
    current: T,
    received: T,
) -> Result<(), Refusal> {
    if current == received {
        return Ok(());
    }
    Err(inequivalent(thing, key, format_args!("'{received}'"), format_args!("'{current}'")))
}

/// The error unless an argument is declared as it is.
pub(super) fn same_argument(
    thing: &Thing<'_>,
    key: &str,
    current: &Table,
    received: &Table,
) -> Result<(), Refusal> {
    let whole = |value: Option<&Value>| match value {
        None => "none".to_owned(),
        Some(value) => format!("the value '{}' of type '{}'", Printed(value), type_name(value)),
    };
    match (current.get(key), received.get(key)) {
        (Some(old), Some(new)) => {
            let both = (integer(old), integer(new));
            if old == new || matches!(both, (Some(a), Some(b)) if a == b) {
                return Ok(());
            }
            let quoted = |value: &Value| format!("'{}'", Printed(value));
            Err(inequivalent(thing, key, quoted(new), quoted(old)))
        }
        (None, None) => Ok(()),
        (None, Some(Value::Text(kind))) | (Some(Value::Text(kind)), None)
            if key == "x-queue-type" && kind == "classic" =>
        {
            Ok(())
        }
        (old, new) => Err(inequivalent(thing, key, whole(new), whole(old))),
    }
}

/// The error unless a queue's arguments are declared as they are. Only those that its type knows are looked at.
pub(super) fn same_arguments(
    thing: &Thing<'_>,
    quorum: bool,
    current: &Table,
    received: &Table,
) -> Result<(), Refusal> {
    let compared: &[&str] = if quorum { &QUORUM_COMPARED } else { &CLASSIC_COMPARED };
    compared.iter().try_for_each(|key| same_argument(thing, key, current, received))
}

struct Checker<'a> {
    thing: Thing<'a>,
    arguments: &'a Table,
}

impl<'a> Checker<'a> {
    fn invalid(&self, key: &str, why: impl fmt::Display) -> Refusal {
        Refusal::precondition_failed(format_args!("invalid arg '{key}' for {}: {why}", self.thing))
    }

    fn wrong_type(&self, key: &str, value: &Value) -> Refusal {
        self.invalid(key, format_args!("{{unacceptable_type,{}}}", type_name(value)))
    }

    fn integer(&self, key: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.arguments.get(key) else { return Ok(None) };
        let wrong = || self.invalid(key, format_args!("\"expected integer, got {}\"", type_name(value)));
        integer(value).map(Some).ok_or_else(wrong)
    }

    fn not_negative(&self, key: &str) -> Result<Option<u64>, Refusal> {
        let Some(n) = self.integer(key)? else { return Ok(None) };
        match u64::try_from(n) {
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(self.invalid(key, format_args!("{{value_negative,{n}}}"))),
        }
    }

    fn not_zero(&self, key: &str, n: Option<u64>) -> Result<(), Refusal> {
        if n == Some(0) { Err(self.invalid(key, "{value_zero,0}")) } else { Ok(()) }
    }

    fn millis(&self, key: &str) -> Result<Option<Duration>, Refusal> {
        let Some(n) = self.integer(key)? else { return Ok(None) };
        if n > MAX_TIMER {
            return Err(self.invalid(key, format_args!("{{value_too_large,{n}}}")));
        }
        Ok(self.not_negative(key)?.map(Duration::from_millis))
    }

    fn text(&self, key: &str) -> Result<Option<&'a [u8]>, Refusal> {
        match self.arguments.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.as_bytes())),
            Some(other) => Err(self.wrong_type(key, other)),
        }
    }

    fn one_of(&self, key: &str, known: &[&str], otherwise: &str) -> Result<Option<&'a str>, Refusal> {
        match self.text(key)? {
            None => Ok(None),
            Some(text) => {
                let text = std::str::from_utf8(text).ok().filter(|text| known.contains(text));
                text.map(Some).ok_or_else(|| self.invalid(key, otherwise))
            }
        }
    }

    fn unsupported(&self, key: &str, what: &str) -> String {
        let value = self.arguments.get(key).map_or(String::new(), |value| Printed(value).to_string());
        format!("\"unsupported queue {what} '{value}'\"")
    }

    fn boolean(&self, key: &str) -> Result<bool, Refusal> {
        match self.arguments.get(key) {
            None => Ok(false),
            Some(Value::Bool(v)) => Ok(*v),
            Some(other) => Err(self.wrong_type(key, other)),
        }
    }
}

/// Which type of queue the arguments ask for.
///
/// # Errors
/// 406 for one that is not known.
pub(super) fn is_quorum(thing: &Thing<'_>, arguments: &Table) -> Result<bool, Refusal> {
    let check = Checker { thing: *thing, arguments };
    let otherwise = check.unsupported("x-queue-type", "type");
    Ok(check.one_of("x-queue-type", &["classic", "quorum"], &otherwise)? == Some("quorum"))
}

/// Reads the arguments of a new queue.
///
/// # Errors
/// 406 for the first that is not as it should be.
pub(super) fn read(thing: &Thing<'_>, arguments: &Table) -> Result<Options, Refusal> {
    let check = Checker { thing: *thing, arguments };
    // This one is looked at before all others, in words of its own.
    let dlx = match arguments.get("x-dead-letter-exchange") {
        None => None,
        Some(Value::Text(name)) => Some(ShortStr::new(name.as_bytes())),
        Some(other) => {
            let name = type_name(other);
            return Err(Refusal::precondition_failed(format_args!(
                "invalid type '{name}' for arg 'x-dead-letter-exchange' in {thing}"
            )));
        }
    };
    let quorum = is_quorum(thing, arguments)?;
    let (others, kind): (&[&str], _) =
        if quorum { (&CLASSIC, "rabbit_quorum_queue") } else { (&QUORUM, "rabbit_classic_queue") };
    let strange = |name: &str| others.contains(&name) || STREAM.contains(&name);
    if let Some((name, _)) = arguments.iter().find(|(name, _)| strange(name)) {
        return Err(Refusal::precondition_failed(format_args!(
            "invalid arg '{name}' for {thing} of queue type {kind}"
        )));
    }

    let expires = check.not_negative("x-expires")?;
    check.not_zero("x-expires", expires)?;
    let expires = check.millis("x-expires")?;
    let ttl = check.millis("x-message-ttl")?;
    let dead_letter_key = check.text("x-dead-letter-routing-key")?.map(ShortStr::new);
    if dead_letter_key.is_some() && dlx.is_none() {
        return Err(check.invalid("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined"));
    }
    check.one_of("x-dead-letter-strategy", &["at-most-once", "at-least-once"], "invalid_dlx_strategy")?;
    let max_length = check.not_negative("x-max-length")?;
    let max_bytes = check.not_negative("x-max-length-bytes")?;
    check.not_negative("x-max-in-memory-length")?;
    check.not_negative("x-max-in-memory-bytes")?;
    let max_priority = match check.not_negative("x-max-priority")? {
        None => 0,
        Some(n) => u8::try_from(n)
            .map_err(|_| check.invalid("x-max-priority", format_args!("{{max_value_exceeded,{n}}}")))?,
    };
    let modes = ["drop-head", "reject-publish", "reject-publish-dlx"];
    let overflow = match check.one_of("x-overflow", &modes, "invalid_overflow")? {
        Some("reject-publish") => Overflow::RejectPublish,
        Some("reject-publish-dlx") => Overflow::RejectPublishDlx,
        _ => Overflow::DropHead,
    };
    let otherwise = check.unsupported("x-queue-mode", "mode");
    check.one_of("x-queue-mode", &["default", "lazy"], &otherwise)?;
    if let Some(version) = check.not_negative("x-queue-version")?
        && !matches!(version, 1 | 2)
    {
        return Err(check.invalid("x-queue-version", check.unsupported("x-queue-version", "version")));
    }
    let single_active = check.boolean("x-single-active-consumer")?;
    let consumer_timeout = check.not_negative("x-consumer-timeout")?.map(Duration::from_millis);
    let group = check.not_negative("x-quorum-initial-group-size")?;
    check.not_zero("x-quorum-initial-group-size", group)?;
    let locators = ["balanced", "client-local", "least-leaders", "random"];
    check.one_of("x-queue-leader-locator", &locators, "invalid_queue_locator_arg")?;
    // RabbitMQ takes whatever stands here and ignores what is no number.
    let delivery_limit = arguments.get("x-delivery-limit").and_then(integer);
    let delivery_limit = delivery_limit.map(|n| u32::try_from(n).unwrap_or(u32::MAX));

    Ok(Options {
        quorum,
        ttl,
        expires,
        max_length,
        max_bytes,
        overflow,
        dead_letter_exchange: dlx,
        dead_letter_key,
        max_priority,
        single_active,
        delivery_limit,
        consumer_timeout,
    })
}

/// The priority among a queue's consumers (`x-priority`); higher ones are served first.
///
/// # Errors
/// 406 for one that is no integer, or an argument of streams.
pub(super) fn consumer_priority(thing: &Thing<'_>, quorum: bool, arguments: &Table) -> Result<i64, Refusal> {
    let check = Checker { thing: *thing, arguments };
    if arguments.get("x-stream-offset").is_some() {
        let kind = if quorum { "rabbit_quorum_queue" } else { "rabbit_classic_queue" };
        return Err(Refusal::precondition_failed(format_args!(
            "invalid arg 'x-stream-offset' for {thing} of queue type {kind}"
        )));
    }
    Ok(check.integer("x-priority")?.unwrap_or(0))
}
