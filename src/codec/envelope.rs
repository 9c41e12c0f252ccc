//! The JSON envelopes of events and tasks, read over borrowed data.
//!
//! ```text
//! event   {"event_id": "...", "event_type": "...", "occurred_at": "2026-11-24T21:51:00.123+00:00", "data": {...}}
//! task    {"type": "...", "data": {...}}
//! ```
//!
//! Reading copies nothing, except a text field that holds an escape. `data` stays JSON text until a handler asks for
//! it, and may be any JSON value. Fields that are not named above are skipped; of a field that stands there twice
//! the last one counts, as with Python's `json.loads`. Nesting may be as deep as the input is long.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use chrono::{DateTime, Datelike, NaiveDateTime};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{Error, ErrorKind, Result, Timestamp};

#[cfg(test)]
mod tests;

/// A domain event as it stands in a Kafka record's value.
#[derive(Debug, Clone)]
pub struct EventEnvelope<'a> {
    /// What tells this event from every other: a UUID in text form, as this crate writes it; any text is read.
    pub event_id: Cow<'a, str>,
    /// What happened: `order.created`.
    pub event_type: Cow<'a, str>,
    /// When it happened, in ISO 8601; [`EventEnvelope::timestamp`] reads it.
    pub occurred_at: Cow<'a, str>,
    /// The event's own content, as JSON text.
    pub data: &'a RawValue,
}

impl<'a> EventEnvelope<'a> {
    /// Reads an envelope. `occurred_at` is not read as a time here: a handler that does not need it is not to fail by it.
    ///
    /// # Errors
    /// [`EnvelopeError`] says what is wrong; the first missing field in the order above is the one named.
    pub fn parse(value: &'a [u8]) -> Result<Self, EnvelopeError> {
        let [event_id, event_type, occurred_at, data] =
            fields(value, ["event_id", "event_type", "occurred_at", "data"])?;
        Ok(Self {
            event_id: text(event_id)?,
            event_type: text(event_type)?,
            occurred_at: text(occurred_at)?,
            data: data.1,
        })
    }

    /// The envelope as JSON without spaces; `data` stands in it as it is.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut json = Vec::with_capacity(
            64 + self.event_id.len() + self.event_type.len() + self.occurred_at.len() + self.data.get().len(),
        );
        json.extend_from_slice(b"{\"event_id\":");
        push_text(&mut json, &self.event_id);
        json.extend_from_slice(b",\"event_type\":");
        push_text(&mut json, &self.event_type);
        json.extend_from_slice(b",\"occurred_at\":");
        push_text(&mut json, &self.occurred_at);
        push_data(&mut json, self.data);
        Bytes::from(json)
    }

    /// `occurred_at` as a time.
    ///
    /// # Errors
    /// As [`parse_iso8601`].
    pub fn timestamp(&self) -> Result<Timestamp> {
        parse_iso8601(&self.occurred_at).map_err(|e| e.context("field `occurred_at`"))
    }

    /// `data` as a `T`, which may borrow from the record.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] that says what `T` wanted and where, counted from the beginning of `data`.
    pub fn data_as<T: Deserialize<'a>>(&self) -> Result<T> {
        read_data(self.data)
    }
}

/// A task as it stands in an AMQP message's body.
#[derive(Debug, Clone)]
pub struct TaskEnvelope<'a> {
    /// What is to be done: `email.send`. In JSON the field is `type`.
    pub task_type: Cow<'a, str>,
    /// The task's own content, as JSON text.
    pub data: &'a RawValue,
}

impl<'a> TaskEnvelope<'a> {
    /// Reads an envelope.
    ///
    /// # Errors
    /// As [`EventEnvelope::parse`].
    pub fn parse(body: &'a [u8]) -> Result<Self, EnvelopeError> {
        let [task_type, data] = fields(body, ["type", "data"])?;
        Ok(Self { task_type: text(task_type)?, data: data.1 })
    }

    /// The envelope as JSON without spaces; `data` stands in it as it is.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut json = Vec::with_capacity(32 + self.task_type.len() + self.data.get().len());
        json.extend_from_slice(b"{\"type\":");
        push_text(&mut json, &self.task_type);
        push_data(&mut json, self.data);
        Bytes::from(json)
    }

    /// `data` as a `T`, which may borrow from the message.
    ///
    /// # Errors
    /// As [`EventEnvelope::data_as`].
    pub fn data_as<T: Deserialize<'a>>(&self) -> Result<T> {
        read_data(self.data)
    }
}

/// Why bytes are no envelope: each of these may have its own policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Not UTF-8 text; `at` is the place of the first byte that is not, from 0.
    NotUtf8 {
        /// Bytes before it.
        at: usize,
    },
    /// Not one JSON value.
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 1; 0 at the very beginning of a line.
        column: usize,
        /// What the parser said, without the place.
        reason: String,
    },
    /// JSON, but without this field.
    MissingField(&'static str),
    /// JSON, but this field is no text; `envelope` where the whole is no object.
    WrongType(&'static str),
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 { at } => write!(f, "not UTF-8 text at byte {at}"),
            Self::NotJson { line, column, reason } => {
                write!(f, "not JSON at line {line} column {column}: {reason}")
            }
            Self::MissingField(name) => write!(f, "field `{name}` is missing"),
            Self::WrongType(WHOLE) => write!(f, "{WHOLE}: expected a JSON object"),
            Self::WrongType(name) => write!(f, "field `{name}`: expected a string"),
        }
    }
}

impl std::error::Error for EnvelopeError {}

impl From<EnvelopeError> for Error {
    fn from(e: EnvelopeError) -> Self {
        Self::new(ErrorKind::Malformed, e.to_string())
    }
}

/// What [`EnvelopeError::WrongType`] calls the value as a whole.
const WHOLE: &str = "envelope";

/// Reads a time in ISO 8601, to the millisecond; finer digits are cut off.
///
/// Taken is what RFC 3339 has and what Python's `datetime.isoformat` and `strftime("%z")` write: a fraction of any
/// length or none, `T` or a space between, the offset as `Z`, `+hh:mm`, `+hhmm` or `+hh`. Without an offset it is UTC.
///
/// # Errors
/// [`ErrorKind::Malformed`] that quotes the text.
pub fn parse_iso8601(text: &str) -> Result<Timestamp> {
    // The date has a fixed width, so what stands between it and the time can be looked at by place.
    let naive = |text: &str| {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
            .map(|time| time.and_utc().timestamp_millis())
    };
    let with_offset = |text: &str| {
        DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%#z")
            .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
            .map(|time| time.timestamp_millis())
    };
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_millis())
        .or_else(|_| naive(text))
        .or_else(|_| with_offset(text))
        .map(Timestamp)
        .map_err(|e| {
            // What comes from outside may be of any length.
            let shown: String = text.chars().take(64).collect();
            Error::new(
                ErrorKind::Malformed,
                format!(
                    "{shown:?} is no time in ISO 8601; expected for example 2026-11-24T21:51:00.123+00:00"
                ),
            )
            .with_source(e.to_string())
        })
}

/// Writes a time as `2026-11-24T21:51:00.123+00:00`: three digits and no `Z`, so that Python's `fromisoformat` of any
/// version reads it.
///
/// # Errors
/// [`ErrorKind::Config`] outside of the years 0 to 9999.
pub fn format_iso8601(time: Timestamp) -> Result<String> {
    DateTime::from_timestamp_millis(time.get())
        .filter(|date| (0..=9999).contains(&date.year()))
        .map(|date| date.format("%Y-%m-%dT%H:%M:%S%.3f+00:00").to_string())
        .ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("timestamp {time} lies outside of the years 0 to 9999"))
        })
}

type Field<'a> = (&'static str, &'a RawValue);

/// The raw values of the fields named, all of which must be there.
fn fields<'a, const N: usize>(
    input: &'a [u8],
    names: [&'static str; N],
) -> Result<[Field<'a>; N], EnvelopeError> {
    let text = std::str::from_utf8(input).map_err(|e| EnvelopeError::NotUtf8 { at: e.valid_up_to() })?;
    let mut found = [None; N];
    let mut json = serde_json::Deserializer::from_str(text);
    let object =
        (&mut json).deserialize_map(Fields { names: &names, found: &mut found }).and_then(|()| json.end());
    match object {
        Ok(()) => {}
        Err(e) if e.is_data() => {
            // Not an object. Whether it is JSON at all decides which of the two policies it falls under.
            return Err(match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => EnvelopeError::WrongType(WHOLE),
                Err(e) => not_json(&e),
            });
        }
        Err(e) => return Err(not_json(&e)),
    }
    let mut missing = None;
    let values = std::array::from_fn(|i| {
        let name = names.get(i).copied().unwrap_or_default();
        let value = found.get(i).copied().flatten();
        if value.is_none() && missing.is_none() {
            missing = Some(name);
        }
        (name, value.unwrap_or(RawValue::NULL))
    });
    match missing {
        Some(name) => Err(EnvelopeError::MissingField(name)),
        None => Ok(values),
    }
}

fn not_json(e: &serde_json::Error) -> EnvelopeError {
    let (line, column) = (e.line(), e.column());
    let mut reason = e.to_string();
    if let Some(end) = reason.rfind(" at line ") {
        reason.truncate(end);
    }
    EnvelopeError::NotJson { line, column, reason }
}

/// Reads an object's named fields as raw text, so that a wrong type is told from wrong JSON.
struct Fields<'f, 'a> {
    names: &'f [&'static str],
    found: &'f mut [Option<&'a RawValue>],
}

impl<'a> Visitor<'a> for Fields<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            let place = self.names.iter().position(|name| *name == key);
            match place.and_then(|i| self.found.get_mut(i)) {
                Some(slot) => *slot = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Text that is borrowed where it holds no escape.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Either)
    }
}

fn text<'a>((name, value): Field<'a>) -> Result<Cow<'a, str>, EnvelopeError> {
    serde_json::from_str::<Text<'a>>(value.get())
        .map(|text| text.0)
        .map_err(|_| EnvelopeError::WrongType(name))
}

fn read_data<'a, T: Deserialize<'a>>(data: &'a RawValue) -> Result<T> {
    serde_json::from_str(data.get())
        .map_err(|e| Error::new(ErrorKind::Malformed, "field `data` is not what is expected").with_source(e))
}

fn push_data(json: &mut Vec<u8>, data: &RawValue) {
    json.extend_from_slice(b",\"data\":");
    json.extend_from_slice(data.get().as_bytes());
    json.push(b'}');
}

/// Appends a JSON string (RFC 8259, section 7): only what must be escaped is.
fn push_text(json: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    json.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => json.extend_from_slice(&[b'\\', byte]),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            0..0x20 => {
                json.extend_from_slice(b"\\u00");
                json.extend([byte >> 4, byte & 0xF].map(|digit| HEX[usize::from(digit)]));
            }
            _ => json.push(byte),
        }
    }
    json.push(b'"');
}
