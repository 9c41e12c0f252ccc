//! A RabbitMQ message as a JSON object: what `get -J` prints.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use muslin::amqp::{Delivery, Table, Value};
use serde::Serialize;
use serde_json::json;

use crate::record::members;

/// A message as it is printed; absent properties are `null`.
#[derive(Debug, Serialize)]
pub(crate) struct Printed<'a> {
    queue: &'a str,
    exchange: &'a str,
    routing_key: &'a str,
    redelivered: bool,
    message_id: Option<&'a str>,
    correlation_id: Option<&'a str>,
    content_type: Option<&'a str>,
    delivery_mode: Option<u8>,
    priority: Option<u8>,
    /// Seconds, as AMQP has it.
    timestamp: Option<u64>,
    expiration: Option<&'a str>,
    reply_to: Option<&'a str>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    app_id: Option<&'a str>,
    headers: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

impl<'a> Printed<'a> {
    pub(crate) fn new(queue: &'a str, delivery: &'a Delivery) -> Self {
        let p = delivery.properties();
        let (body, body_base64) = members(Some(delivery.body()));
        Self {
            queue,
            exchange: delivery.exchange(),
            routing_key: delivery.routing_key(),
            redelivered: delivery.redelivered(),
            message_id: p.message_id.as_deref(),
            correlation_id: p.correlation_id.as_deref(),
            content_type: p.content_type.as_deref(),
            delivery_mode: p.persistent.map(|persistent| if persistent { 2 } else { 1 }),
            priority: p.priority,
            timestamp: p.timestamp,
            expiration: p.expiration.as_deref(),
            reply_to: p.reply_to.as_deref(),
            kind: p.kind.as_deref(),
            app_id: p.app_id.as_deref(),
            headers: table(&p.headers),
            body,
            body_base64,
        }
    }
}

fn table(table: &Table) -> serde_json::Value {
    table.iter().map(|(name, v)| (name.to_owned(), value(v))).collect::<serde_json::Map<_, _>>().into()
}

/// The nearest that JSON has. Bytes are `{"base64": "..."}`, times are seconds, a decimal is text so that no digit is
/// lost, and a float that is no number is text.
fn value(v: &Value) -> serde_json::Value {
    match v {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => json!(b),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => json!({"base64": STANDARD.encode(bytes)}),
        Value::U32(n) => json!(n),
        Value::Timestamp(seconds) => json!(seconds),
        Value::F32(n) if n.is_finite() => json!(n),
        Value::F64(n) if n.is_finite() => json!(n),
        Value::F32(n) => json!(n.to_string()),
        Value::F64(n) => json!(n.to_string()),
        Value::Decimal { scale, value } => json!(decimal(*scale, *value)),
        Value::Array(values) => values.iter().map(value).collect(),
        Value::Table(t) => table(t),
        other => other.as_i64().map_or(serde_json::Value::Null, |n| json!(n)),
    }
}

/// `value` with `scale` digits after the point.
fn decimal(scale: u8, value: i32) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let scale = usize::from(scale);
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    match digits.split_at_checked(digits.len() - scale) {
        Some((whole, part)) if !part.is_empty() => format!("{sign}{whole}.{part}"),
        _ => format!("{sign}{digits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_become_what_json_has_nearest() {
        let mut inner = Table::new();
        inner.insert("n", 5i64);
        let mut headers = Table::new();
        headers.insert("text", "é");
        headers.insert("yes", true);
        headers.insert("none", Value::Null);
        headers.insert("small", Value::I8(-3));
        headers.insert("large", Value::U32(u32::MAX));
        headers.insert("bytes", Value::Bytes(b"\xff".as_slice().into()));
        headers.insert("nan", Value::F64(f64::NAN));
        headers.insert("list", Value::Array(vec![Value::Table(inner), Value::F64(0.5)]));
        headers.insert("price", Value::Decimal { scale: 2, value: -1995 });
        assert_eq!(
            table(&headers),
            json!({"text": "é", "yes": true, "none": null, "small": -3, "large": 4_294_967_295u32, "bytes": {"base64": "/w=="},
                   "nan": "NaN", "list": [{"n": 5}, 0.5], "price": "-19.95"})
        );
    }

    #[test]
    fn a_decimal_keeps_every_digit() {
        for (scale, value, text) in [
            (0, 7, "7"),
            (2, 5, "0.05"),
            (2, -5, "-0.05"),
            (1, i32::MIN, "-214748364.8"),
            (12, 1, "0.000000000001"),
        ] {
            assert_eq!(decimal(scale, value), text);
        }
    }
}
