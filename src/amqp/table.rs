//! Field tables: the values that message headers and declare arguments hold (AMQP 0-9-1 section 4.2.5, as RabbitMQ
//! speaks it).

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;

use bytes::Bytes;

use crate::{Error, ErrorKind, Result};

/// How deep tables and arrays may nest: 32. Deeper ones are refused when sent and cut off when received.
pub(crate) const MAX_DEPTH: usize = 32;

/// One value of a header or an argument. All types that RabbitMQ's 0-9-1 has.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// No value (`V`).
    Null,
    /// A boolean (`t`).
    Bool(bool),
    /// A signed 8-bit integer (`b`).
    I8(i8),
    /// An unsigned 8-bit integer (`B`).
    U8(u8),
    /// A signed 16-bit integer (`s`).
    I16(i16),
    /// An unsigned 16-bit integer (`u`).
    U16(u16),
    /// A signed 32-bit integer (`I`).
    I32(i32),
    /// An unsigned 32-bit integer (`i`).
    U32(u32),
    /// A signed 64-bit integer (`l`).
    I64(i64),
    /// A 32-bit float (`f`).
    F32(f32),
    /// A 64-bit float (`d`).
    F64(f64),
    /// `value` divided by ten to the power of `scale` (`D`).
    Decimal {
        /// How many digits stand after the point.
        scale: u8,
        /// The digits, signed as RabbitMQ reads them.
        value: i32,
    },
    /// Text (`S`).
    Text(String),
    /// Bytes (`x`).
    Bytes(Bytes),
    /// Seconds since 1970-01-01T00:00:00Z (`T`).
    Timestamp(u64),
    /// A list (`A`).
    Array(Vec<Value>),
    /// A table (`F`).
    Table(Table),
}

impl Value {
    /// The text, if this is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is an integer of any width that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::I8(n) => Some((*n).into()),
            Self::U8(n) => Some((*n).into()),
            Self::I16(n) => Some((*n).into()),
            Self::U16(n) => Some((*n).into()),
            Self::I32(n) => Some((*n).into()),
            Self::U32(n) => Some((*n).into()),
            Self::I64(n) => Some(*n),
            Self::Timestamp(n) => i64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The boolean, if this is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The table, if this is one.
    #[must_use]
    pub fn as_table(&self) -> Option<&Table> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The list, if this is one.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// Bytes on the wire with the one-byte tag.
    fn wire_size(&self) -> usize {
        1 + match self {
            Self::Null => 0,
            Self::Bool(_) | Self::I8(_) | Self::U8(_) => 1,
            Self::I16(_) | Self::U16(_) => 2,
            Self::I32(_) | Self::U32(_) | Self::F32(_) => 4,
            Self::Decimal { .. } => 5,
            Self::I64(_) | Self::F64(_) | Self::Timestamp(_) => 8,
            Self::Text(text) => 4 + text.len(),
            Self::Bytes(bytes) => 4 + bytes.len(),
            Self::Array(values) => 4 + values.iter().map(Self::wire_size).sum::<usize>(),
            Self::Table(table) => table.wire_size(),
        }
    }

    fn check(&self, depth: usize, what: &dyn fmt::Display) -> Result<()> {
        match self {
            Self::Array(values) => {
                check_depth(depth, what)?;
                values.iter().try_for_each(|v| v.check(depth + 1, what))
            }
            Self::Table(table) => table.check(depth + 1, what),
            _ => Ok(()),
        }
    }
}

fn check_depth(depth: usize, what: &dyn fmt::Display) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("{what} nest deeper than {MAX_DEPTH} tables and lists"),
        ));
    }
    Ok(())
}

macro_rules! from {
    ($($type:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })+
    };
}
from! {
    bool => Bool, i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, f32 => F32,
    f64 => F64, &str => Text, String => Text, Bytes => Bytes, Vec<Value> => Array, Table => Table,
}

/// Named values in the order of their names; a name occurs once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table(BTreeMap<String, Value>);

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name`, replacing what stood there.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.0.insert(name.into(), value.into())
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Takes `name` out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of their names.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.0.iter())
    }

    /// Bytes on the wire with the four of the length.
    pub(super) fn wire_size(&self) -> usize {
        4 + self.0.iter().map(|(name, value)| 1 + name.len() + value.wire_size()).sum::<usize>()
    }

    /// Refuses what the wire cannot carry. `what` names the table in the error, in the plural.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] for a name over 255 bytes or tables nested too deep.
    pub(super) fn check(&self, depth: usize, what: &dyn fmt::Display) -> Result<()> {
        check_depth(depth, what)?;
        self.0.iter().try_for_each(|(name, value)| {
            if name.len() > usize::from(u8::MAX) {
                let head: String = name.chars().take(40).collect();
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("{what} have the name {head:?}... of {} bytes; 255 is the most", name.len()),
                ));
            }
            value.check(depth, what)
        })
    }
}

impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Table {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
    }
}

impl<'a> IntoIterator for &'a Table {
    type Item = (&'a str, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterates over a [`Table`].
#[derive(Debug, Clone)]
pub struct Iter<'a>(btree_map::Iter<'a, String, Value>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_str(), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Table {
        (0..depth).fold(Table::new(), |inner, _| [("t", inner)].into_iter().collect())
    }

    #[test]
    fn a_name_over_255_bytes_is_refused_with_its_length() {
        let table: Table = [("x".repeat(256), 1i32)].into_iter().collect();
        let e = table.check(0, &"headers").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TooLarge);
        assert!(e.to_string().contains("256 bytes; 255"), "{e}");
        let table: Table = [("x".repeat(255), 1i32)].into_iter().collect();
        table.check(0, &"headers").unwrap();
    }

    #[test]
    fn nesting_is_refused_beyond_its_limit() {
        nested(MAX_DEPTH).check(0, &"headers").unwrap();
        let e = nested(MAX_DEPTH + 1).check(0, &"headers").unwrap_err();
        assert!(e.to_string().contains("deeper than 32"), "{e}");
    }
}

/// Values for the tests of all that reads or writes them.
#[cfg(test)]
pub(crate) mod samples {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i8>().prop_map(Value::I8),
            any::<u8>().prop_map(Value::U8),
            any::<i16>().prop_map(Value::I16),
            any::<u16>().prop_map(Value::U16),
            any::<i32>().prop_map(Value::I32),
            any::<u32>().prop_map(Value::U32),
            any::<i64>().prop_map(Value::I64),
            (-1e9f32..1e9).prop_map(Value::F32),
            (-1e9f64..1e9).prop_map(Value::F64),
            (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| Value::Decimal { scale, value }),
            ".{0,12}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(|b| Value::Bytes(b.into())),
            any::<u64>().prop_map(Value::Timestamp),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::btree_map(".{0,6}", inner, 0..4)
                    .prop_map(|m| Value::Table(m.into_iter().collect())),
            ]
        })
    }

    /// Arrays nested `depth` times, as the only field, without the table's length.
    pub(crate) fn nested(depth: usize) -> Vec<u8> {
        let mut value = b"t\x01".to_vec();
        for _ in 0..depth {
            let mut outer = b"A".to_vec();
            outer.extend_from_slice(&(value.len() as u32).to_be_bytes());
            outer.extend_from_slice(&value);
            value = outer;
        }
        [b"\x01n".to_vec(), value].concat()
    }
}
