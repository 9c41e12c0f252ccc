//! `consume -f`: kcat's format strings.

use std::io::Write;

/// A part of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Token(Token),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Timestamp,
    Headers,
    ValueSize,
    KeySize,
}

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format(Vec<Part>);

/// What a format shows of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a, H> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: H,
}

impl Format {
    /// Parses `%t %p %o %k %s %T %h %S %K %%` and the escapes `\n \r \t \\ \xHH`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['%', '\\']) {
            let (before, from) = rest.split_at(at);
            literal.extend_from_slice(before.as_bytes());
            if from.starts_with('\\') {
                let (byte, after) = escape(from)?;
                literal.extend_from_slice(byte.encode());
                rest = after;
                continue;
            }
            let mut chars = from.chars();
            let token = match (chars.next(), chars.next()) {
                (_, Some('%')) => None,
                (_, Some('t')) => Some(Token::Topic),
                (_, Some('p')) => Some(Token::Partition),
                (_, Some('o')) => Some(Token::Offset),
                (_, Some('k')) => Some(Token::Key),
                (_, Some('s')) => Some(Token::Value),
                (_, Some('T')) => Some(Token::Timestamp),
                (_, Some('h')) => Some(Token::Headers),
                (_, Some('S')) => Some(Token::ValueSize),
                (_, Some('K')) => Some(Token::KeySize),
                (_, other) => {
                    let other = other.map_or_else(|| "at the end".to_owned(), |c| format!("before `{c}`"));
                    return Err(format!(
                        "`%` {other} is no token; known are %t %p %o %k %s %T %h %S %K and %%"
                    ));
                }
            };
            match token {
                None => literal.push(b'%'),
                Some(token) => {
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Token(token));
                }
            }
            rest = chars.as_str();
        }
        literal.extend_from_slice(rest.as_bytes());
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }

    /// Appends a record. A null key or value prints as nothing and has the size -1.
    pub(crate) fn print<'a, H, N>(&self, record: &Shown<'a, H>, out: &mut Vec<u8>)
    where
        H: Iterator<Item = (N, Option<&'a [u8]>)> + Clone,
        N: AsRef<str>,
    {
        let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |b| i64::try_from(b.len()).unwrap_or(i64::MAX));
        // Writing to memory does not fail.
        let number = |out: &mut Vec<u8>, n: i64| drop(write!(out, "{n}"));
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Token(Token::Topic) => out.extend_from_slice(record.topic.as_bytes()),
                Part::Token(Token::Partition) => number(out, record.partition.into()),
                Part::Token(Token::Offset) => number(out, record.offset),
                Part::Token(Token::Timestamp) => number(out, record.timestamp),
                Part::Token(Token::Key) => out.extend_from_slice(record.key.unwrap_or_default()),
                Part::Token(Token::Value) => out.extend_from_slice(record.value.unwrap_or_default()),
                Part::Token(Token::KeySize) => number(out, size(record.key)),
                Part::Token(Token::ValueSize) => number(out, size(record.value)),
                Part::Token(Token::Headers) => {
                    for (i, (name, value)) in record.headers.clone().enumerate() {
                        if i > 0 {
                            out.push(b',');
                        }
                        out.extend_from_slice(name.as_ref().as_bytes());
                        out.push(b'=');
                        out.extend_from_slice(value.unwrap_or(b"NULL"));
                    }
                }
            }
        }
    }
}

/// A character or a byte that an escape stands for.
enum Escaped {
    Char([u8; 4], usize),
    Byte([u8; 1]),
}

impl Escaped {
    fn encode(&self) -> &[u8] {
        match self {
            Self::Char(bytes, length) => bytes.get(..*length).unwrap_or_default(),
            Self::Byte(byte) => byte,
        }
    }
}

/// The escape that the text begins with, and what follows it.
fn escape(text: &str) -> Result<(Escaped, &str), String> {
    let mut chars = text.chars();
    let byte = match (chars.next(), chars.next()) {
        (_, Some('n')) => b'\n',
        (_, Some('r')) => b'\r',
        (_, Some('t')) => b'\t',
        (_, Some('0')) => 0,
        (_, Some('x')) => {
            let hex: String = chars.by_ref().take(2).collect();
            match u8::from_str_radix(&hex, 16) {
                Ok(byte) if hex.len() == 2 && !hex.starts_with('+') => byte,
                _ => return Err(format!("`\\x{hex}` needs two hexadecimal digits")),
            }
        }
        (_, Some(other)) => {
            let mut bytes = [0; 4];
            let length = other.encode_utf8(&mut bytes).len();
            return Ok((Escaped::Char(bytes, length), chars.as_str()));
        }
        (_, None) => return Err("a `\\` at the end escapes nothing".to_owned()),
    };
    Ok((Escaped::Byte([byte]), chars.as_str()))
}

/// A separator with its escapes resolved; not empty.
pub(crate) fn separator(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before.as_bytes());
        let (byte, after) = escape(from)?;
        out.extend_from_slice(byte.encode());
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
    if out.is_empty() { Err("the separator is empty".to_owned()) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(format: &str) -> Vec<u8> {
        let headers = [("a", Some(&b"1"[..])), ("a", None)];
        let record = Shown {
            topic: "t",
            partition: 3,
            offset: 42,
            timestamp: -1,
            key: None,
            value: Some(&b"v\xff"[..]),
            headers: headers.into_iter(),
        };
        let mut out = Vec::new();
        Format::parse(format).unwrap().print(&record, &mut out);
        out
    }

    #[test]
    fn tokens_and_escapes_are_those_of_kcat() {
        assert_eq!(print(r"%t[%p]@%o %T %h\n"), b"t[3]@42 -1 a=1,a=NULL\n");
        assert_eq!(print(r"%k|%K|%s|%S"), b"|-1|v\xff|2");
        assert_eq!(print(r"100%%\t\x41\xff\\é"), b"100%\tA\xff\\\xc3\xa9");
        assert_eq!(print(""), b"");
    }

    #[test]
    fn what_is_no_token_is_refused_by_name() {
        for (format, why) in [
            ("%z", "before `z`"),
            ("a%", "at the end"),
            (r"\x4", "two hexadecimal"),
            (r"\xé1", "two hexadecimal"),
            ("a\\", "escapes nothing"),
        ] {
            let e = Format::parse(format).unwrap_err();
            assert!(e.contains(why), "{format}: {e}");
        }
    }

    #[test]
    fn separators_may_be_escaped() {
        assert_eq!(separator(r"\t").unwrap(), b"\t");
        assert_eq!(separator(r"::\x00").unwrap(), b"::\0");
        assert!(separator("").is_err());
    }
}
