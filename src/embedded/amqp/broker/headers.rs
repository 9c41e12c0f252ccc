//! What a headers exchange compares.
//!
//! A binding's arguments are the pattern; `x-match` says `all` (the default), `any`, `all-with-x` or `any-with-x`. In
//! the first two, arguments whose names begin with `x-` are not compared. An argument without value (void) fits any
//! value that is there. Numbers are equal by value, whatever their width; texts and bytes by their bytes.

use super::refusal::Refusal;
use crate::amqp::{Table, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    All,
    Any,
}

/// A binding's arguments, ready to be compared.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    how: Match,
    fields: Table,
}

impl Pattern {
    /// # Errors
    /// 406 for an `x-match` that is not known.
    pub(super) fn new(arguments: &Table) -> Result<Self, Refusal> {
        let (how, with_x) = match arguments.get("x-match") {
            None => (Match::All, false),
            Some(Value::Text(text)) => match text.as_str() {
                "all" => (Match::All, false),
                "any" => (Match::Any, false),
                "all-with-x" => (Match::All, true),
                "any-with-x" => (Match::Any, true),
                other => {
                    return Err(Refusal::precondition_failed(format_args!(
                        "Invalid x-match field value <<\"{other}\">>; expected all, any, all-with-x, or any-with-x"
                    )));
                }
            },
            Some(other) => {
                let kind = super::arguments::type_name(other);
                let shown = super::arguments::printed(other);
                return Err(Refusal::precondition_failed(format_args!(
                    "Invalid x-match field type {kind} (value {shown}); expected longstr"
                )));
            }
        };
        let counts = |name: &str| name != "x-match" && (with_x || !name.starts_with("x-"));
        let fields = arguments.iter().filter(|(name, _)| counts(name)).map(|(n, v)| (n, v.clone())).collect();
        Ok(Self { how, fields })
    }

    /// Whether a message with these headers fits.
    pub(super) fn fits(&self, headers: &Table) -> bool {
        let field = |(name, pattern): (&str, &Value)| {
            headers.get(name).is_some_and(|value| *pattern == Value::Null || equal(pattern, value))
        };
        match self.how {
            Match::All => self.fields.iter().all(field),
            Match::Any => self.fields.iter().any(field),
        }
    }
}

enum Plain<'a> {
    Int(i128),
    Float(f64),
    Bytes(&'a [u8]),
    Other(&'a Value),
}

fn plain(value: &Value) -> Plain<'_> {
    match value {
        Value::Text(text) => Plain::Bytes(text.as_bytes()),
        Value::Bytes(bytes) => Plain::Bytes(bytes),
        Value::F32(v) => Plain::Float((*v).into()),
        Value::F64(v) => Plain::Float(*v),
        Value::Timestamp(v) => Plain::Int((*v).into()),
        other => match other.as_i64() {
            Some(n) => Plain::Int(n.into()),
            None => Plain::Other(other),
        },
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "an integer beyond 2^53 is compared with a float as Erlang nearly does"
)]
fn equal(a: &Value, b: &Value) -> bool {
    match (plain(a), plain(b)) {
        (Plain::Int(a), Plain::Int(b)) => a == b,
        (Plain::Float(a), Plain::Float(b)) => a == b,
        (Plain::Int(a), Plain::Float(b)) | (Plain::Float(b), Plain::Int(a)) => a as f64 == b,
        (Plain::Bytes(a), Plain::Bytes(b)) => a == b,
        (Plain::Other(a), Plain::Other(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table<const N: usize>(fields: [(&str, Value); N]) -> Table {
        fields.into_iter().collect()
    }

    /// As RabbitMQ 3.10 answers.
    #[test]
    fn bindings_fit_the_headers_that_rabbitmq_fits() {
        let one = || Value::I8(1);
        let headers = [
            table([]),
            table([("a", one())]),
            table([("a", Value::I32(70_000))]),
            table([("a", "1".into())]),
            table([("b", Value::I8(2))]),
            table([("a", one()), ("b", Value::I64(2))]),
            table([("x-foo", one())]),
            table([("a", Value::F64(1.0))]),
            table([("a", Value::Bool(true))]),
        ];
        let all: Vec<usize> = (0..headers.len()).collect();
        let truth: [(Table, &[usize]); 10] = [
            (table([]), &all),
            (table([("x-match", "any".into())]), &[]),
            (table([("a", Value::I64(1))]), &[1, 5, 7]),
            (table([("a", one()), ("x-match", "any".into()), ("b", Value::I8(2))]), &[1, 4, 5, 7]),
            (table([("a", Value::Null)]), &[1, 2, 3, 5, 7, 8]),
            (table([("x-foo", one())]), &all),
            (table([("x-match", "any".into()), ("x-foo", one())]), &[]),
            (table([("x-match", "any-with-x".into()), ("x-foo", one()), ("b", one())]), &[6]),
            (table([("x-match", "all-with-x".into()), ("x-foo", one())]), &[6]),
            (table([("a", Value::Bytes(b"1".as_slice().into()))]), &[3]),
        ];
        for (arguments, want) in truth {
            let pattern = Pattern::new(&arguments).unwrap();
            let got: Vec<_> = all.iter().copied().filter(|n| pattern.fits(&headers[*n])).collect();
            assert_eq!(got, want, "{arguments:?}");
        }
    }

    #[test]
    fn an_unknown_x_match_is_refused_in_rabbitmqs_words() {
        for (value, want) in [
            (
                "foo".into(),
                "Invalid x-match field value <<\"foo\">>; expected all, any, all-with-x, or any-with-x",
            ),
            (Value::I8(1), "Invalid x-match field type byte (value 1); expected longstr"),
        ] {
            let e = Pattern::new(&table([("x-match", value)])).unwrap_err();
            assert_eq!((e.code, e.text), (406, format!("PRECONDITION_FAILED - {want}")));
        }
    }
}
