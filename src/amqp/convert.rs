//! To and from the types of `amqprs`. The only place where its panicking constructors are called, after
//! [`Properties::check`] made sure that they cannot.

use amqprs::{BasicProperties, ByteArray, DecimalValue, FieldArray, FieldTable, FieldValue, ShortStr};
use bytes::Bytes;

use super::table::{MAX_DEPTH, Table, Value};
use super::{Message, Properties};
use crate::{Error, ErrorKind, Result};

fn too_large<E: std::error::Error + Send + Sync + 'static>(e: E) -> Error {
    Error::new(ErrorKind::TooLarge, "a header or argument does not fit AMQP's lengths").with_source(e)
}

/// The table as `amqprs` has it. The names were checked.
pub(super) fn table_to_wire(table: &Table) -> Result<FieldTable> {
    let mut out = FieldTable::new();
    for (name, value) in table {
        let name: ShortStr = name.try_into().map_err(too_large)?;
        out.insert(name, value_to_wire(value)?);
    }
    Ok(out)
}

fn value_to_wire(value: &Value) -> Result<FieldValue> {
    Ok(match value {
        Value::Null => FieldValue::V,
        Value::Bool(v) => FieldValue::t(*v),
        Value::I8(v) => FieldValue::b(*v),
        Value::U8(v) => FieldValue::B(*v),
        Value::I16(v) => FieldValue::s(*v),
        Value::U16(v) => FieldValue::u(*v),
        Value::I32(v) => FieldValue::I(*v),
        Value::U32(v) => FieldValue::i(*v),
        Value::I64(v) => FieldValue::l(*v),
        Value::F32(v) => FieldValue::f(*v),
        Value::F64(v) => FieldValue::d(*v),
        Value::Decimal { scale, value } => FieldValue::D(DecimalValue::new(*scale, *value)),
        Value::Text(v) => FieldValue::S(v.as_str().try_into().map_err(too_large)?),
        Value::Bytes(v) => FieldValue::x(ByteArray::try_from(v.to_vec()).map_err(too_large)?),
        Value::Timestamp(v) => FieldValue::T(*v),
        Value::Array(values) => {
            let values = values.iter().map(value_to_wire).collect::<Result<Vec<_>>>()?;
            FieldValue::A(FieldArray::try_from(values).map_err(too_large)?)
        }
        Value::Table(table) => FieldValue::F(table_to_wire(table)?),
    })
}

/// A received table. What lies deeper than [`MAX_DEPTH`] becomes [`Value::Null`].
pub(super) fn table_from_wire(table: &FieldTable) -> Table {
    table_from(table, 0)
}

fn table_from(table: &FieldTable, depth: usize) -> Table {
    table.as_ref().iter().map(|(name, value)| (name.to_string(), value_from(value, depth))).collect()
}

fn value_from(value: &FieldValue, depth: usize) -> Value {
    match value {
        FieldValue::V => Value::Null,
        FieldValue::t(v) => Value::Bool(*v),
        FieldValue::b(v) => Value::I8(*v),
        FieldValue::B(v) => Value::U8(*v),
        FieldValue::s(v) => Value::I16(*v),
        FieldValue::u(v) => Value::U16(*v),
        FieldValue::I(v) => Value::I32(*v),
        FieldValue::i(v) => Value::U32(*v),
        FieldValue::l(v) => Value::I64(*v),
        FieldValue::f(v) => Value::F32(*v),
        FieldValue::d(v) => Value::F64(*v),
        FieldValue::D(v) => decimal_from(v),
        FieldValue::S(v) => Value::Text(v.to_string()),
        FieldValue::x(v) => Value::Bytes(Vec::<u8>::from(v.clone()).into()),
        FieldValue::T(v) => Value::Timestamp(*v),
        FieldValue::A(_) | FieldValue::F(_) if depth >= MAX_DEPTH => Value::Null,
        FieldValue::A(v) => {
            let values: Vec<FieldValue> = v.clone().into();
            Value::Array(values.iter().map(|v| value_from(v, depth + 1)).collect())
        }
        FieldValue::F(v) => Value::Table(table_from(v, depth + 1)),
    }
}

/// `DecimalValue` has no getters; it serializes as the pair of its fields.
fn decimal_from(decimal: &DecimalValue) -> Value {
    let pair = serde_json::to_value(decimal).and_then(serde_json::from_value::<(u8, i32)>);
    match pair {
        Ok((scale, value)) => Value::Decimal { scale, value },
        Err(_) => Value::Null,
    }
}

/// The properties as `amqprs` has them.
///
/// # Errors
/// As [`Properties::check`], which is called first.
pub(super) fn properties_to_wire(p: &Properties) -> Result<BasicProperties> {
    p.check()?;
    let headers = if p.headers.is_empty() { None } else { Some(table_to_wire(&p.headers)?) };
    Ok(BasicProperties::new(
        p.content_type.clone(),
        p.content_encoding.clone(),
        headers,
        p.persistent.map(|persistent| if persistent { 2 } else { 1 }),
        p.priority,
        p.correlation_id.clone(),
        p.reply_to.clone(),
        p.expiration.clone(),
        p.message_id.clone(),
        p.timestamp,
        p.kind.clone(),
        p.user_id.clone(),
        p.app_id.clone(),
        None,
    ))
}

/// A received message.
pub(super) fn message_from_wire(body: Vec<u8>, p: &BasicProperties) -> Message {
    let properties = Properties {
        content_type: p.content_type().cloned(),
        content_encoding: p.content_encoding().cloned(),
        headers: p.headers().map(table_from_wire).unwrap_or_default(),
        persistent: p.delivery_mode().map(|mode| mode == 2),
        priority: p.priority(),
        correlation_id: p.correlation_id().cloned(),
        reply_to: p.reply_to().cloned(),
        expiration: p.expiration().cloned(),
        message_id: p.message_id().cloned(),
        timestamp: p.timestamp(),
        kind: p.message_type().cloned(),
        user_id: p.user_id().cloned(),
        app_id: p.app_id().cloned(),
    };
    Message::from_parts(Bytes::from(body), properties)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::amqp::table::samples::any_value;

    proptest! {
        #[test]
        fn every_header_value_survives_the_way_there_and_back(v in any_value()) {
            prop_assert_eq!(value_from(&value_to_wire(&v).unwrap(), 0), v);
        }
    }

    #[test]
    fn what_nests_too_deep_is_cut_off_when_received() {
        let mut value = FieldValue::t(true);
        for _ in 0..(MAX_DEPTH + 20) {
            value = FieldValue::A(FieldArray::try_from(vec![value]).unwrap());
        }
        let mut seen = value_from(&value, 0);
        let mut depth = 0;
        while let Value::Array(mut inner) = seen {
            seen = inner.remove(0);
            depth += 1;
        }
        assert_eq!((seen, depth), (Value::Null, MAX_DEPTH));
    }
}
