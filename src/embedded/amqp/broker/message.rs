//! A message, and what of its properties a broker looks at.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::dead_letter::Deaths;
use super::name::ShortStr;
use super::refusal::Refusal;
use crate::amqp::{Table, Value};
use crate::embedded::amqp::wire::field::Field;
use crate::embedded::amqp::wire::table::{Fields, decode, decode_value, encode_field};
use crate::embedded::amqp::wire::{Properties, RawTable, Short};

/// Bytes that a message costs besides its body and properties: what holds it in a queue.
const OVERHEAD: u64 = 200;

/// A message as it stands in queues: shared between them, never copied.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
    /// Property flags and values, as they are to be sent: what [`Properties`] reads.
    pub(crate) properties: Bytes,
    pub(crate) body: Bytes,
    /// Survives a restart in a durable queue (delivery mode 2).
    pub(super) persistent: bool,
    pub(super) priority: u8,
    /// How long it may stand in a queue (`expiration`).
    pub(super) ttl: Option<Duration>,
    /// Further routing keys (RabbitMQ's sender-selected distribution).
    pub(super) more_keys: Option<Box<MoreKeys>>,
    /// Where it was dead-lettered before.
    pub(super) deaths: Option<Box<Deaths>>,
    /// In how many queues it stands. Changed by the broker alone, which owns all queues.
    pub(super) holders: AtomicU32,
}

/// The headers `CC` and `BCC`; the latter is not sent on.
#[derive(Debug, Default, Clone)]
pub(super) struct MoreKeys {
    pub(super) cc: Vec<ShortStr>,
    pub(super) bcc: Vec<ShortStr>,
}

impl Message {
    /// A message as it was published; `properties` in their raw form.
    ///
    /// # Errors
    /// As RabbitMQ refuses it: 502 for broken properties, 406 for an expiration that is no number or a `CC` or `BCC`
    /// header that is no list.
    pub(crate) fn new(
        exchange: ShortStr,
        routing_key: ShortStr,
        properties: Bytes,
        body: Bytes,
    ) -> Result<Self, Refusal> {
        let broken = |_| Refusal::syntax_error("the properties of a message are broken");
        let parsed = Properties::parse(&properties).map_err(broken)?;
        let mut message = Self {
            exchange,
            routing_key,
            properties: Bytes::new(),
            body,
            persistent: parsed.delivery_mode == Some(2),
            priority: parsed.priority.unwrap_or(0),
            ttl: parsed.expiration.map(|text| expiration(text.0)).transpose()?,
            more_keys: None,
            deaths: None,
            holders: AtomicU32::new(0),
        };
        if let Some(RawTable(headers)) = parsed.headers {
            let mut keys = MoreKeys::default();
            for field in Fields::new(headers) {
                let field = field.map_err(broken)?;
                match field.name {
                    b"CC" => keys.cc = list_of_keys("CC", field.value)?,
                    b"BCC" => keys.bcc = list_of_keys("BCC", field.value)?,
                    _ => {}
                }
            }
            if !(keys.cc.is_empty() && keys.bcc.is_empty()) {
                message.more_keys = Some(Box::new(keys));
            }
        }
        let hidden = message.more_keys.as_ref().is_some_and(|keys| !keys.bcc.is_empty());
        message.properties =
            if hidden { rewritten(&properties, true, |name| name != b"BCC", &[]) } else { properties };
        Ok(message)
    }

    /// The headers, if there are any that are whole and not nested too deep.
    pub(super) fn headers(&self) -> Option<Table> {
        let RawTable(headers) = Properties::parse(&self.properties).ok()?.headers?;
        decode(headers).ok()
    }

    /// The same message with these headers set.
    pub(super) fn with_headers(&self, set: &[(&str, Value)]) -> Self {
        let keep = |name: &[u8]| !set.iter().any(|(set, _)| set.as_bytes() == name);
        Self {
            exchange: self.exchange.clone(),
            routing_key: self.routing_key.clone(),
            properties: rewritten(&self.properties, true, keep, set),
            body: self.body.clone(),
            ..Self::default()
        }
    }

    /// All its routing keys.
    pub(super) fn routing_keys(&self) -> impl Iterator<Item = &ShortStr> {
        let more = self.more_keys.iter().flat_map(|keys| keys.cc.iter().chain(&keys.bcc));
        std::iter::once(&self.routing_key).chain(more)
    }

    /// What it costs against the memory limit.
    fn cost(&self) -> u64 {
        OVERHEAD + self.body.len() as u64 + self.properties.len() as u64
    }

    /// It stands in one more queue; what that adds to the memory in use.
    pub(super) fn hold(&self) -> u64 {
        let holders = self.holders.load(Ordering::Relaxed);
        self.holders.store(holders + 1, Ordering::Relaxed);
        if holders == 0 { self.cost() } else { 0 }
    }

    /// It stands in one queue less; what that takes from the memory in use.
    pub(super) fn release(&self) -> u64 {
        let holders = self.holders.load(Ordering::Relaxed).saturating_sub(1);
        self.holders.store(holders, Ordering::Relaxed);
        if holders == 0 { self.cost() } else { 0 }
    }
}

/// The raw properties with other headers: those that `keep` names, unchanged and in their order, then `add`.
pub(super) fn rewritten(
    properties: &[u8],
    keep_expiration: bool,
    keep: impl Fn(&[u8]) -> bool,
    add: &[(&str, Value)],
) -> Bytes {
    let mut parsed = Properties::parse(properties).unwrap_or_default();
    if !keep_expiration {
        parsed.expiration = None;
    }
    let mut headers = BytesMut::new();
    let old = parsed.headers.map_or(&b""[..], |RawTable(table)| table);
    for field in Fields::new(old).map_while(Result::ok).filter(|field| keep(field.name)) {
        Short(field.name).write(&mut headers);
        headers.extend_from_slice(field.value);
    }
    for (name, value) in add {
        encode_field(name.as_bytes(), value, &mut headers);
    }
    parsed.headers = (!headers.is_empty()).then_some(RawTable(&headers));
    let mut out = BytesMut::with_capacity(properties.len() + headers.len() + 8);
    parsed.write(&mut out);
    out.freeze()
}

/// Reads an expiration as RabbitMQ does: an optional sign, digits, nothing else.
fn expiration(text: &[u8]) -> Result<Duration, Refusal> {
    let refuse = |why: String| {
        let text = String::from_utf8_lossy(text);
        Err(Refusal::precondition_failed(format_args!("invalid expiration '{text}': {why}")))
    };
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let end = digits.iter().position(|c| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (number, rest) = digits.split_at(end);
    if number.is_empty() {
        return refuse("no_integer".into());
    }
    if !rest.is_empty() {
        return refuse(format!("{{leftover_string,\"{}\"}}", String::from_utf8_lossy(rest)));
    }
    // Too many digits for 64 bits are more than anyone waits for.
    let number = std::str::from_utf8(number).ok().and_then(|n| n.parse::<u64>().ok()).unwrap_or(u64::MAX);
    if negative && number > 0 {
        return refuse(format!("{{value_negative,-{number}}}"));
    }
    Ok(Duration::from_millis(number))
}

/// The texts of an array; what is no text in it is passed over.
fn list_of_keys(name: &str, value: &[u8]) -> Result<Vec<ShortStr>, Refusal> {
    let refuse = |what: &str| {
        let why = format_args!("invalid message: {{unacceptable_type_in_header,\"{name}\",{what}}}");
        Err(Refusal::precondition_failed(why))
    };
    let keys = |values: Vec<Value>| {
        values.into_iter().filter_map(|value| match value {
            Value::Text(text) => Some(ShortStr::new(text.as_bytes())),
            Value::Bytes(bytes) => Some(ShortStr::new(&bytes)),
            _ => None,
        })
    };
    match decode_value(value) {
        Ok(Value::Array(values)) => Ok(keys(values).collect()),
        Ok(other) => refuse(super::arguments::type_name(&other)),
        Err(_) => refuse("array"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(properties: &Properties<'_>) -> Result<Message, Refusal> {
        let mut raw = BytesMut::new();
        properties.write(&mut raw);
        Message::new("".into(), "k".into(), raw.freeze(), Bytes::from_static(b"body"))
    }

    #[test]
    fn an_expiration_is_read_as_rabbitmq_reads_it() {
        for (text, want) in [
            ("60000", Ok(60_000)),
            ("+10", Ok(10)),
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("99999999999999999999999", Ok(u64::MAX)),
            ("abc", Err("invalid expiration 'abc': no_integer")),
            ("", Err("invalid expiration '': no_integer")),
            (" 10", Err("invalid expiration ' 10': no_integer")),
            ("-1", Err("invalid expiration '-1': {value_negative,-1}")),
            ("1.5", Err("invalid expiration '1.5': {leftover_string,\".5\"}")),
        ] {
            let read =
                message(&Properties { expiration: Some(Short(text.as_bytes())), ..Default::default() });
            match (read, want) {
                (Ok(m), Ok(ms)) => assert_eq!(m.ttl, Some(Duration::from_millis(ms)), "{text:?}"),
                (Err(e), Err(why)) => {
                    assert_eq!((e.code, e.text), (406, format!("PRECONDITION_FAILED - {why}")))
                }
                (read, want) => panic!("{text:?}: {read:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn bcc_is_a_routing_key_that_receivers_do_not_see_and_other_headers_stay_as_they_are() {
        let mut raw = BytesMut::new();
        encode_field(b"z", &Value::U16(7), &mut raw);
        encode_field(b"BCC", &Value::Array(vec!["b".into()]), &mut raw);
        encode_field(b"CC", &Value::Array(vec!["c".into(), 1i32.into()]), &mut raw);
        encode_field(b"a", &Value::Null, &mut raw);
        let m =
            message(&Properties { headers: Some(RawTable(&raw)), priority: Some(3), ..Default::default() })
                .unwrap();
        assert_eq!(m.routing_keys().map(ShortStr::text).collect::<Vec<_>>(), ["k", "c", "b"]);
        let sent = Properties::parse(&m.properties).unwrap();
        assert_eq!(sent.priority, Some(3));
        let names: Vec<_> = Fields::new(sent.headers.unwrap().0).map(|f| f.unwrap().name.to_vec()).collect();
        assert_eq!(names, [b"z".to_vec(), b"CC".to_vec(), b"a".to_vec()]);
    }

    #[test]
    fn cc_that_is_no_list_is_refused_in_rabbitmqs_words() {
        let mut raw = BytesMut::new();
        encode_field(b"CC", &Value::from("a"), &mut raw);
        let e = message(&Properties { headers: Some(RawTable(&raw)), ..Default::default() }).unwrap_err();
        assert_eq!(
            e.text,
            "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}"
        );
    }

    #[test]
    fn a_message_in_several_queues_costs_its_memory_once() {
        let m = message(&Properties::default()).unwrap();
        let cost = OVERHEAD + 4 + 2;
        assert_eq!([m.hold(), m.hold(), m.release(), m.release()], [cost, 0, 0, cost]);
    }
}
