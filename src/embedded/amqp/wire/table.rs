//! Field tables (section 4.2.5.5) to and from [`Table`]: arguments of declares, message headers, client properties.
//!
//! Nesting is bounded by [`MAX_DEPTH`], so that no table can overflow the stack: a deeper one is refused by
//! [`decode`]. What is only passed on is never decoded, however deep; [`Fields`] walks the top level of a table of any
//! depth, since each nested one carries its length.

use bytes::{BufMut, Bytes, BytesMut};

use super::field::{Broken, Field, Reader, Short};
use crate::amqp::{MAX_DEPTH, Table, Value};

/// One field at the top level of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawField<'a> {
    pub(crate) name: &'a [u8],
    /// The type's letter and the value.
    pub(crate) value: &'a [u8],
}

/// Walks the top level of a table without its length; stops with an error where the bytes are broken.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    pub(crate) const fn new(table: &'a [u8]) -> Self {
        Self(Reader(table))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<RawField<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut field = || {
            let name = self.0.short()?;
            let start = self.0.0;
            skip(&mut self.0)?;
            let value = start.get(..start.len() - self.0.0.len()).ok_or(Broken)?;
            Ok(RawField { name, value })
        };
        let field = field();
        if field.is_err() {
            self.0 = Reader(&[]);
        }
        Some(field)
    }
}

/// Steps over one value with its letter; nested ones by their length.
fn skip(from: &mut Reader<'_>) -> Result<(), Broken> {
    let n = match from.u8()? {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'd' | b'T' | b'L' => 8,
        b'S' | b'x' | b'A' | b'F' => return from.long().map(drop),
        _ => return Err(Broken),
    };
    from.take(n).map(drop)
}

/// A table without its length. A text that is not UTF-8 becomes bytes, a name gets `U+FFFD`; of two fields of one name
/// the last one counts.
///
/// # Errors
/// [`Broken`] also for nesting deeper than [`MAX_DEPTH`].
pub(crate) fn decode(table: &[u8]) -> Result<Table, Broken> {
    decode_at(table, 0)
}

fn decode_at(table: &[u8], depth: usize) -> Result<Table, Broken> {
    let mut from = Reader(table);
    let mut out = Vec::new();
    while !from.is_empty() {
        let name = String::from_utf8_lossy(from.short()?).into_owned();
        out.push((name, value(&mut from, depth)?));
    }
    Ok(out.into_iter().collect())
}

/// The value that stands alone in `bytes`, with its letter.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_value(bytes: &[u8]) -> Result<Value, Broken> {
    let mut from = Reader(bytes);
    let value = value(&mut from, 0)?;
    if from.is_empty() { Ok(value) } else { Err(Broken) }
}

fn value(from: &mut Reader<'_>, depth: usize) -> Result<Value, Broken> {
    Ok(match from.u8()? {
        b'V' => Value::Null,
        b't' => Value::Bool(from.u8()? != 0),
        b'b' => Value::I8(from.u8()?.cast_signed()),
        b'B' => Value::U8(from.u8()?),
        b's' => Value::I16(from.u16()?.cast_signed()),
        b'u' => Value::U16(from.u16()?),
        b'I' => Value::I32(from.u32()?.cast_signed()),
        b'i' => Value::U32(from.u32()?),
        // `L` is how some clients spell a 64-bit integer.
        b'l' | b'L' => Value::I64(from.u64()?.cast_signed()),
        b'f' => Value::F32(f32::from_bits(from.u32()?)),
        b'd' => Value::F64(f64::from_bits(from.u64()?)),
        b'D' => Value::Decimal { scale: from.u8()?, value: from.u32()?.cast_signed() },
        b'T' => Value::Timestamp(from.u64()?),
        b'S' => {
            let bytes = from.long()?;
            match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Bytes(Bytes::copy_from_slice(bytes)),
            }
        }
        b'x' => Value::Bytes(Bytes::copy_from_slice(from.long()?)),
        b'A' => {
            let mut inner = Reader(from.long()?);
            let depth = deeper(depth)?;
            let mut values = Vec::new();
            while !inner.is_empty() {
                values.push(value(&mut inner, depth)?);
            }
            Value::Array(values)
        }
        b'F' => Value::Table(decode_at(from.long()?, deeper(depth)?)?),
        _ => return Err(Broken),
    })
}

fn deeper(depth: usize) -> Result<usize, Broken> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(Broken) }
}

/// Appends the table with its length. A name of more than 255 bytes is cut.
pub(crate) fn encode(table: &Table, to: &mut BytesMut) {
    with_length(to, |to| {
        for (name, value) in table {
            encode_field(name.as_bytes(), value, to);
        }
    });
}

/// Appends one field, as it stands inside a table.
pub(crate) fn encode_field(name: &[u8], value: &Value, to: &mut BytesMut) {
    Short(name).write(to);
    encode_value(value, to);
}

/// Appends what `write` writes with its length in four bytes before it.
pub(crate) fn with_length(to: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    to.put_u32(0);
    let start = to.len();
    write(to);
    let length = u32::try_from(to.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = to.get_mut(start - 4..start) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn encode_value(value: &Value, to: &mut BytesMut) {
    let long = |to: &mut BytesMut, letter: u8, bytes: &[u8]| {
        to.put_u8(letter);
        with_length(to, |to| to.put_slice(bytes));
    };
    match value {
        Value::Null => to.put_u8(b'V'),
        Value::Bool(v) => to.put_slice(&[b't', u8::from(*v)]),
        Value::I8(v) => to.put_slice(&[b'b', v.cast_unsigned()]),
        Value::U8(v) => to.put_slice(&[b'B', *v]),
        Value::I16(v) => {
            to.put_u8(b's');
            to.put_i16(*v);
        }
        Value::U16(v) => {
            to.put_u8(b'u');
            to.put_u16(*v);
        }
        Value::I32(v) => {
            to.put_u8(b'I');
            to.put_i32(*v);
        }
        Value::U32(v) => {
            to.put_u8(b'i');
            to.put_u32(*v);
        }
        Value::I64(v) => {
            to.put_u8(b'l');
            to.put_i64(*v);
        }
        Value::F32(v) => {
            to.put_u8(b'f');
            to.put_f32(*v);
        }
        Value::F64(v) => {
            to.put_u8(b'd');
            to.put_f64(*v);
        }
        Value::Decimal { scale, value } => {
            to.put_slice(&[b'D', *scale]);
            to.put_i32(*value);
        }
        Value::Timestamp(v) => {
            to.put_u8(b'T');
            to.put_u64(*v);
        }
        Value::Text(text) => long(to, b'S', text.as_bytes()),
        Value::Bytes(bytes) => long(to, b'x', bytes),
        Value::Array(values) => {
            to.put_u8(b'A');
            with_length(to, |to| values.iter().for_each(|v| encode_value(v, to)));
        }
        Value::Table(table) => {
            to.put_u8(b'F');
            encode(table, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::amqp::samples::{any_value, nested};

    fn encoded(table: &Table) -> BytesMut {
        let mut out = BytesMut::new();
        encode(table, &mut out);
        out
    }

    proptest! {
        #[test]
        fn every_table_survives_the_way_there_and_back(
            table in proptest::collection::btree_map("[a-zä]{0,8}", any_value(), 0..6)
        ) {
            let table: Table = table.into_iter().collect();
            let bytes = encoded(&table);
            let mut from = Reader(&bytes);
            let raw = from.long().unwrap();
            prop_assert!(from.is_empty());
            prop_assert_eq!(decode(raw).unwrap(), table.clone());
            for (field, (name, value)) in Fields::new(raw).zip(&table) {
                let field = field.unwrap();
                prop_assert_eq!(field.name, name.as_bytes());
                prop_assert_eq!(&decode_value(field.value).unwrap(), value);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let decoded = decode(&bytes);
            let walked: Result<Vec<_>, _> = Fields::new(&bytes).collect();
            prop_assert!(decoded.is_err() || walked.is_ok(), "what decodes can be walked");
        }
    }

    #[test]
    fn a_table_nested_deeper_than_the_limit_is_refused_and_can_still_be_walked() {
        decode(&nested(MAX_DEPTH)).unwrap();
        for depth in [MAX_DEPTH + 1, 3_000, 20_000] {
            let deep = nested(depth);
            assert_eq!(decode(&deep), Err(Broken));
            let fields: Vec<_> = Fields::new(&deep).collect::<Result<_, _>>().unwrap();
            assert_eq!(fields.len(), 1);
        }
    }
}
