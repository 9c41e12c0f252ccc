//! The grammar of properties files, as `java.util.Properties` reads them. Pure.
//!
//! Comments (`#`, `!`), blank lines, continuation by a trailing backslash, a name ended by `=`, `:` or white space, and
//! the escapes `\t \n \r \f \uXXXX`; any other escaped character stands for itself.
//!
//! Two deviations, both on purpose: the text is UTF-8 (Java's old default was Latin-1), and a name without a separator is
//! an error (Java takes it for an empty value; in a settings file it is a slip).

use super::names;
use crate::{Error, ErrorKind, Result};

/// A setting as a file has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of the line it begins at, from 1.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) value: String,
}

/// White space in Java's sense.
const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// All settings of a file's text in order, duplicates kept. `file` is for messages.
pub(super) fn lines(text: &str, file: &str) -> Result<Vec<Line>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut settings = Vec::new();
    let mut natural = natural_lines(text).zip(1..);
    while let Some((first, number)) = natural.next() {
        let first = first.trim_start_matches(is_space);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = String::new();
        let mut part = first;
        loop {
            match continued(part) {
                None => {
                    logical.push_str(part);
                    break;
                }
                Some(without_backslash) => {
                    logical.push_str(without_backslash);
                    match natural.next() {
                        Some((next, _)) => part = next.trim_start_matches(is_space),
                        None => break,
                    }
                }
            }
        }
        settings.push(setting(&logical, number, file)?);
    }
    Ok(settings)
}

/// Lines by `\n`, `\r\n` or `\r`.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|l| l.strip_suffix('\r').unwrap_or(l).split('\r'))
}

/// The line without its last character if that is a backslash that no other one escapes.
fn continued(line: &str) -> Option<&str> {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    if backslashes % 2 == 1 { line.strip_suffix('\\') } else { None }
}

fn setting(logical: &str, number: usize, file: &str) -> Result<Line> {
    let bad = |why: String| Err(Error::new(ErrorKind::Config, format!("{file}, line {number}: {why}")));
    let mut escaped = false;
    let end = logical.char_indices().find(|&(_, c)| {
        let ends = !escaped && (is_space(c) || matches!(c, '=' | ':'));
        escaped = !escaped && c == '\\';
        ends
    });
    let Some((end, _)) = end else {
        // Anything but a known name is not echoed: it may be a secret that lost its name.
        return bad(match names::meaning(logical) {
            Some(_) => format!("`{logical}` has no value; expected name=value"),
            None => "no separator; expected name=value".to_owned(),
        });
    };
    let (name, rest) = logical.split_at(end);
    if name.is_empty() {
        return bad("no name before the separator; expected name=value".to_owned());
    }
    let rest = rest.trim_start_matches(is_space);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_space);
    match (unescape(name), unescape(rest)) {
        (Ok(name), Ok(value)) => Ok(Line { number, name, value }),
        (Err(why), _) | (_, Err(why)) => bad(why.to_owned()),
    }
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(text.len());
    // Java writes what lies beyond the basic plane as two escapes.
    let mut high: Option<u32> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let escape = if c == '\\' { chars.next() } else { None };
        if escape == Some('u') {
            let digits: String = chars.by_ref().take(4).collect();
            let unit = u32::from_str_radix(&digits, 16)
                .ok()
                .filter(|_| digits.len() == 4 && !digits.starts_with('+'))
                .ok_or("`\\u` needs four hexadecimal digits after it")?;
            match (high.take(), unit) {
                (None, 0xd800..=0xdbff) => high = Some(unit),
                (Some(high), 0xdc00..=0xdfff) => {
                    let code = 0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00);
                    out.push(char::from_u32(code).ok_or("a `\\u` escape is no character")?);
                }
                (None, _) => out.push(char::from_u32(unit).ok_or("a `\\u` escape is half a character")?),
                (Some(_), _) => return Err("a `\\u` escape is half a character"),
            }
            continue;
        }
        if high.is_some() {
            return Err("a `\\u` escape is half a character");
        }
        out.push(match (c, escape) {
            ('\\', Some('t')) => '\t',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('f')) => '\u{c}',
            ('\\', Some(other)) => other,
            (c, _) => c,
        });
    }
    if high.is_some() { Err("a `\\u` escape is half a character") } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        lines(text, "f").unwrap().into_iter().map(|l| (l.number, l.name, l.value)).collect()
    }

    #[track_caller]
    fn one(text: &str, name: &str, value: &str) {
        let got = pairs(text);
        assert_eq!(got.len(), 1, "{text:?} gives {got:?}");
        assert_eq!((got[0].1.as_str(), got[0].2.as_str()), (name, value), "{text:?}");
    }

    #[test]
    fn separators_are_those_of_java() {
        for text in ["a=b", "a = b", "a:b", "a : b", "a b", "  a\tb", "a\u{c}b", "a  =  b", "\u{feff}a=b"] {
            one(text, "a", "b");
        }
        // Only the first separator separates.
        one("a==b", "a", "=b");
        one("a = : b", "a", ": b");
        one(r"a\=b\:c\ d=e", "a=b:c d", "e");
        one("a=", "a", "");
        // Trailing white space belongs to the value, as it may to a password.
        one("a=b ", "a", "b ");
    }

    #[test]
    fn comments_blank_lines_and_line_ends_of_all_kinds_are_passed_over() {
        let text = "# one\r\n\r\n! two\ra=1\r\n   # three\nb=2\n\n";
        assert_eq!(pairs(text), [(4, "a".into(), "1".into()), (6, "b".into(), "2".into())]);
        one("a=b # not a comment", "a", "b # not a comment");
    }

    #[test]
    fn a_backslash_at_the_end_continues_the_line() {
        one("a=b,\\\n   c,\\\r\n\td", "a", "b,c,d");
        one("a=b\\", "a", "b");
        // An escaped backslash does not.
        assert_eq!(pairs("a=b\\\\\nc=d").len(), 2);
        // A continued line may look like a comment.
        one("a=b\\\n#c", "a", "b#c");
        assert_eq!(pairs("a=1\\\n2\nb=3")[1], (3, "b".into(), "3".into()));
    }

    #[test]
    fn escapes_are_those_of_java() {
        one(r"a=\t\n\r\f\\\q", "a", "\t\n\r\u{c}\\q");
        one(r"a=\u00e9\u20AC", "a", "é€");
        one(r"a=\uD83D\uDE00", "a", "😀");
        one("schlüssel=wört", "schlüssel", "wört");
    }

    #[test]
    fn a_bad_line_is_named_with_its_number() {
        for (text, why) in [
            ("a=1\nlinger.ms\n", "f, line 2: `linger.ms` has no value; expected name=value"),
            ("=1", "f, line 1: no name before the separator"),
            (r"a=\u12", "f, line 1: `\\u` needs four hexadecimal digits"),
            (r"a=\u+123", "f, line 1: `\\u` needs four hexadecimal digits"),
            (r"a=\ud83d!", "half a character"),
            (r"a=\ude00", "half a character"),
        ] {
            let e = lines(text, "f").unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            assert!(e.to_string().contains(why), "{text:?}: {e}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_settings_or_an_error(text in r"(?s)[a-c=:#!\\u0-9\n\r\t é]{0,60}") {
            let _ = lines(&text, "f");
        }

        #[test]
        fn what_is_escaped_as_java_stores_it_reads_back(name in ".{1,20}", value in ".{0,20}") {
            let store = |s: &str| s.chars().fold(String::new(), |mut out, c| {
                if matches!(c, ' ' | '\t' | '\u{c}' | '=' | ':' | '#' | '!' | '\\' | '\r' | '\n') {
                    out.push('\\');
                }
                match c {
                    '\r' => out.push('r'),
                    '\n' => out.push('n'),
                    '\t' => out.push('t'),
                    '\u{c}' => out.push('f'),
                    c => out.push(c),
                }
                out
            });
            let text = format!("# head\n{}={}\n", store(&name), store(&value));
            let got = lines(&text, "f").unwrap();
            proptest::prop_assert_eq!(&got, &[Line { number: 2, name, value }]);
        }
    }
}
