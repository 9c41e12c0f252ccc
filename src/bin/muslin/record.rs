//! A Kafka record as a JSON object: what `consume -J` prints and `produce -J` reads.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes as JSON has them: text where they are UTF-8, otherwise base64 under another name.
pub(crate) fn text_or_base64(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| STANDARD.encode(bytes))
}

/// A header's value.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(untagged, expecting = "expected a header's value: text, null or {\"base64\": \"...\"}")]
enum HeaderValue<'a> {
    Text(Cow<'a, str>),
    Null,
    Base64 { base64: Cow<'a, str> },
}

/// A record as it is printed. `Some(None)` stands for `null`, `None` for no member.
#[derive(Debug, Serialize)]
pub(crate) struct Printed<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<(Cow<'a, str>, HeaderValue<'a>)>,
}

/// The two members that bytes may stand in.
pub(crate) type Members<'a> = (Option<Option<&'a str>>, Option<String>);

/// Which member holds these bytes: the plain one, or the one for base64.
pub(crate) fn members(bytes: Option<&[u8]>) -> Members<'_> {
    match bytes.map(text_or_base64) {
        None => (Some(None), None),
        Some(Ok(text)) => (Some(Some(text)), None),
        Some(Err(base64)) => (None, Some(base64)),
    }
}

impl<'a> Printed<'a> {
    pub(crate) fn new(
        topic: &'a str,
        partition: i32,
        offset: i64,
        timestamp: i64,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: impl Iterator<Item = (impl Into<Cow<'a, str>>, Option<&'a [u8]>)>,
    ) -> Self {
        let ((key, key_base64), (value, value_base64)) = (members(key), members(value));
        let header = |value: Option<&'a [u8]>| match value.map(text_or_base64) {
            None => HeaderValue::Null,
            Some(Ok(text)) => HeaderValue::Text(text.into()),
            Some(Err(base64)) => HeaderValue::Base64 { base64: base64.into() },
        };
        let headers = headers.map(|(name, value)| (name.into(), header(value))).collect();
        Self { topic, partition, offset, timestamp, key, key_base64, value, value_base64, headers }
    }
}

/// A record as it is read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    // What `consume` printed comes back with its place in the other topic; it is not used.
    #[serde(rename = "topic")]
    _topic: Option<serde::de::IgnoredAny>,
    #[serde(rename = "offset")]
    _offset: Option<serde::de::IgnoredAny>,
    partition: Option<i32>,
    timestamp: Option<i64>,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default, borrow)]
    headers: Vec<(String, HeaderValue<'a>)>,
}

/// A record to be sent.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
}

impl Record {
    /// Reads one JSON object.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let line = std::str::from_utf8(line)
            .map_err(|e| format!("is not UTF-8 after byte {}; JSON is UTF-8 text", e.valid_up_to()))?;
        let read: Read<'_> = serde_json::from_str(line).map_err(|e| format!("is no JSON record: {e}"))?;
        let bytes = |what: &str, text: Option<String>, base64: Option<String>| match (text, base64) {
            (Some(_), Some(_)) => Err(format!("has both {what} and {what}_base64; one of them is wanted")),
            (Some(text), None) => Ok(Some(Bytes::from(text))),
            (None, Some(base64)) => decode(&base64).map(Some).map_err(|e| format!("{what}_base64 {e}")),
            (None, None) => Ok(None),
        };
        let mut headers = Vec::with_capacity(read.headers.len());
        for (name, value) in read.headers {
            let value = match value {
                HeaderValue::Null => None,
                HeaderValue::Text(text) => Some(Bytes::from(text.into_owned())),
                HeaderValue::Base64 { base64 } => {
                    Some(decode(&base64).map_err(|e| format!("header {name:?} {e}"))?)
                }
            };
            headers.push((name, value));
        }
        if let Some(partition) = read.partition.filter(|p| *p < 0) {
            return Err(format!("has the partition {partition}; expected 0 or more"));
        }
        Ok(Self {
            partition: read.partition,
            // -1 is what a record without a timestamp is printed with.
            timestamp: read.timestamp.filter(|t| *t >= 0),
            key: bytes("key", read.key, read.key_base64)?,
            value: bytes("value", read.value, read.value_base64)?,
            headers,
        })
    }
}

fn decode(base64: &str) -> Result<Bytes, String> {
    STANDARD.decode(base64).map(Bytes::from).map_err(|e| format!("is no base64: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(record: &Record) -> String {
        let headers = record.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        serde_json::to_string(&Printed::new(
            "t",
            record.partition.unwrap(),
            7,
            record.timestamp.unwrap(),
            key,
            value,
            headers,
        ))
        .unwrap()
    }

    #[test]
    fn what_is_printed_has_the_members_of_the_contract_in_their_order() {
        let record = Record {
            partition: Some(2),
            timestamp: Some(1_700_000_000_000),
            key: None,
            value: Some(Bytes::from_static(b"\xff")),
            headers: vec![
                ("a".into(), Some("é".into())),
                ("a".into(), None),
                ("b".into(), Some(b"\xfe".as_slice().into())),
            ],
        };
        assert_eq!(
            printed(&record),
            r#"{"topic":"t","partition":2,"offset":7,"timestamp":1700000000000,"key":null,"value_base64":"/w==","#.to_owned()
                + r#""headers":[["a","é"],["a",null],["b",{"base64":"/g=="}]]}"#
        );
    }

    #[test]
    fn a_record_needs_no_member_and_a_slip_in_a_name_is_refused() {
        assert_eq!(Record::parse(b"{}").unwrap(), Record::default());
        for (line, why) in [
            (&br#"{"vlaue":"x"}"#[..], "unknown field `vlaue`"),
            (br#"{"key":"a","key_base64":"YQ=="}"#, "both key and key_base64"),
            (br#"{"value_base64":"%"}"#, "value_base64 is no base64"),
            (br#"{"headers":[["a",5]]}"#, "expected a header's value"),
            (br#"{"partition":-1}"#, "partition -1"),
            (b"{\"value\":\"\xff\"}", "not UTF-8 after byte 10"),
            (b"[1]", "no JSON record"),
            (b"text", "no JSON record"),
        ] {
            let e = Record::parse(line).unwrap_err();
            assert!(e.contains(why), "{e}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_reads_back_as_it_was(
            key in proptest::option::of(proptest::collection::vec(0u8.., 0..9)),
            value in proptest::option::of(proptest::collection::vec(0u8.., 0..9)),
            text in ".{0,8}",
            headers in proptest::collection::vec((".{0,4}", proptest::option::of(proptest::collection::vec(0u8.., 0..5))), 0..4),
            partition in 0i32..,
            timestamp in 0i64..,
        ) {
            for value in [value.clone(), Some(text.into_bytes())] {
                let record = Record {
                    partition: Some(partition),
                    timestamp: Some(timestamp),
                    key: key.clone().map(Bytes::from),
                    value: value.map(Bytes::from),
                    headers: headers.iter().map(|(n, v)| (n.clone(), v.clone().map(Bytes::from))).collect(),
                };
                proptest::prop_assert_eq!(Record::parse(printed(&record).as_bytes()).unwrap(), record);
            }
        }
    }
}
