//! `amqp://user:password@host:port/vhost` as RabbitMQ's URI specification has it. Pure.
//!
//! One deviation: the specification reads `amqp://host/` as the virtual host with the empty name, which nobody has.
//! Here, as in pika and aio-pika, it is the default virtual host `/`; so are no path and `/%2F`.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind, Result};

/// A broker's address with credentials and virtual host.
///
/// Neither `Debug` nor `Display` nor any error of the parser shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    user: String,
    password: String,
    vhost: String,
}

impl Url {
    /// Parses an `amqp://` or `amqps://` URL.
    ///
    /// The port is 5672 (5671 for `amqps`) unless stated, the user and password are `guest`, the virtual host is `/`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part that is wrong, with the position where it helps; never the password.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad("has no scheme; expected amqp://user:password@host:port/vhost"));
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "amqp" => false,
            "amqps" => true,
            // What is no scheme may be a login, and holds a password then.
            _ if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
                return Err(bad(&format!("has the scheme {scheme:?}; expected amqp or amqps")));
            }
            _ => return Err(bad("has no scheme; expected amqp://user:password@host:port/vhost")),
        };
        let start = scheme.len() + 3;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if path.contains('@') && !authority.contains('@') {
            // Its parts must not be shown: some of them are the password's.
            return Err(bad(
                "has a `/`, `?` or `#` before its `@`; in a user name or password they are written %2F, %3F and %23; an `@` in a virtual host, %40",
            ));
        }
        // The last `@`: one in a password ought to be written %40, but many are not.
        let (login, address, address_at) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address, start + login.len() + 1),
            None => (None, authority, start),
        };
        let (user, password) = match login {
            None => ("guest".to_owned(), "guest".to_owned()),
            Some(login) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                (
                    decode("user name", user, start, Show::Yes)?,
                    decode("password", password, start + user.len() + 1, Show::No)?,
                )
            }
        };
        let (host, port) = parse_address(address, address_at)?;
        let port = port.unwrap_or(if tls { 5671 } else { 5672 });
        let vhost = parse_path(path, start + end)?;
        for (name, value) in [("user name", &user), ("virtual host", &vhost)] {
            if value.len() > usize::from(u8::MAX) {
                return Err(bad(&format!("has a {name} of {} bytes; 255 is the most", value.len())));
            }
        }
        Ok(Self { tls, host, port, user, password, vhost })
    }

    /// Whether the scheme is `amqps`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host: a name, an IPv4 address, or an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The virtual host; `/` is the default one.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// `host:port` as one dials it, with brackets around an IPv6 address.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// The URL with `***` for the password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        write!(f, "{scheme}://{}:***@{}/", self.user, self.address())?;
        if self.vhost == "/" { Ok(()) } else { f.write_str(&self.vhost) }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

fn bad(why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the AMQP URL {why}"))
}

/// Whether an error may show the text around a bad escape.
#[derive(Clone, Copy, PartialEq)]
enum Show {
    Yes,
    No,
}

/// Undoes percent escapes (RFC 3986 section 2.1). `at` is where `text` begins in the URL.
fn decode(what: &str, text: &str, at: usize, show: Show) -> Result<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let mut place = at;
    while let [byte, tail @ ..] = rest {
        if *byte != b'%' {
            out.push(*byte);
            rest = tail;
            place += 1;
            continue;
        }
        let digit = |i: usize| tail.get(i).and_then(|b| char::from(*b).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            let shown = match show {
                Show::Yes => format!(
                    " {:?}",
                    String::from_utf8_lossy(rest.get(..3.min(rest.len())).unwrap_or_default())
                ),
                Show::No => String::new(),
            };
            return Err(bad(&format!(
                "has a bad percent escape{shown} in its {what} at position {place}; a percent sign is written %25"
            )));
        };
        // Two hexadecimal digits fit a byte.
        out.push((high * 16 + low) as u8);
        rest = tail.get(2..).unwrap_or_default();
        place += 3;
    }
    String::from_utf8(out)
        .map_err(|_| bad(&format!("has a {what} that is not UTF-8 once its escapes are undone")))
}

fn parse_address(address: &str, at: usize) -> Result<(String, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let Some((host, tail)) = rest.split_once(']') else {
                return Err(bad("has an IPv6 address without its closing bracket"));
            };
            match tail.strip_prefix(':') {
                Some(port) => (host.to_owned(), Some(port)),
                None if tail.is_empty() => (host.to_owned(), None),
                None => return Err(bad(&format!("has {tail:?} after its IPv6 address; expected :port"))),
            }
        }
        None => match address.split_once(':') {
            Some((host, port)) => (decode("host", host, at, Show::Yes)?, Some(port)),
            None => (decode("host", address, at, Show::Yes)?, None),
        },
    };
    if host.is_empty() {
        return Err(bad("names no host; expected amqp://user:password@host:port/vhost"));
    }
    if address.starts_with('[') {
        // An interface may stand behind a percent sign (RFC 6874).
        let plain = host.split('%').next().unwrap_or_default();
        if plain.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(bad("has no IPv6 address between its brackets"));
        }
    }
    let reserved: &str = if address.starts_with('[') { "/?#@" } else { "/?#@:[]%" };
    if let Some(c) = host.chars().find(|c| c.is_whitespace() || c.is_control() || reserved.contains(*c)) {
        return Err(bad(&format!("has the character {c:?} in its host")));
    }
    let port = match port {
        None | Some("") => None,
        Some(port) => match port.parse::<u16>() {
            Ok(0) | Err(_) => {
                return Err(bad(&format!("has the port {port:?}; expected a number from 1 to 65535")));
            }
            Ok(port) => Some(port),
        },
    };
    Ok((host, port))
}

fn parse_path(path: &str, at: usize) -> Result<String> {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (path, query) = path.split_at(end);
    if !query.is_empty() && query != "?" && query != "#" {
        return Err(bad("has a query or fragment; settings are given to the builder instead"));
    }
    let vhost = path.strip_prefix('/').unwrap_or(path);
    if vhost.is_empty() {
        return Ok("/".to_owned());
    }
    if let Some(i) = vhost.find('/') {
        return Err(bad(&format!(
            "has a second slash in its path at position {}; one in a virtual host's name is written %2F",
            at + 1 + i
        )));
    }
    decode("virtual host", vhost, at + 1, Show::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn parts(url: &str) -> (String, u16, String, String, String) {
        let u = Url::parse(url).unwrap();
        (u.host, u.port, u.user, u.password, u.vhost)
    }

    #[track_caller]
    fn fails(url: &str, with: &str) {
        let e = Url::parse(url).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.to_string().contains(with), "{url}: {e}");
    }

    #[test]
    fn what_is_left_out_has_the_usual_default() {
        let all = ("h".to_owned(), 5672, "guest".to_owned(), "guest".to_owned(), "/".to_owned());
        assert_eq!(parts("amqp://h"), all);
        assert_eq!(parts("amqp://h/"), all);
        assert_eq!(parts("amqp://h:/"), all);
        assert_eq!(parts("AMQP://h/%2f"), all);
        assert_eq!(parts("amqps://h").1, 5671);
        assert!(Url::parse("amqps://h").unwrap().is_tls());
    }

    #[test]
    fn escapes_are_undone_in_every_part() {
        let (host, port, user, password, vhost) = parts("amqp://us%65r%3A:p%40%2Fs%25@h%6Fst:1/a%2Fb%20c");
        assert_eq!((host.as_str(), port), ("host", 1));
        assert_eq!((user.as_str(), password.as_str(), vhost.as_str()), ("user:", "p@/s%", "a/b c"));
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let u = Url::parse("amqp://a:b@[::1]:99/v").unwrap();
        assert_eq!((u.host(), u.port(), u.address().as_str()), ("::1", 99, "[::1]:99"));
        assert_eq!(Url::parse("amqp://[::1]").unwrap().port(), 5672);
        fails("amqp://[::1", "bracket");
        fails("amqp://[nonsense]", "no IPv6 address");
        fails("amqp://h%2f", "'/' in its host");
        fails("amqp://[::1]9", "after its IPv6");
    }

    #[test]
    fn a_bad_escape_is_named_with_its_position() {
        fails("amqp://h/a%2", "\"%2\" in its virtual host at position 10");
        fails("amqp://h/%zz", "\"%zz\" in its virtual host at position 9");
        fails("amqp://u%:p@h", "\"%\" in its user name at position 8");
        fails("amqp://h/%ff", "not UTF-8");
    }

    #[test]
    fn the_password_is_shown_nowhere() {
        let e = Url::parse("amqp://u:secret%zz@h").unwrap_err().to_string();
        assert!(e.contains("password at position 15") && !e.contains("zz") && !e.contains("secret"), "{e}");
        let u = Url::parse("amqp://u:secret@h/v").unwrap();
        assert_eq!(u.to_string(), "amqp://u:***@h:5672/v");
        assert!(!format!("{u:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_broker_address_is_refused_with_the_reason() {
        fails("localhost:5672", "no scheme");
        fails("http://h", "\"http\"");
        fails("amqp://", "names no host");
        fails("amqp://u:p@/v", "names no host");
        fails("amqp://h:70000", "\"70000\"");
        fails("amqp://h:0", "\"0\"");
        for url in [
            "amqp://u:s3cret/x@h/",
            "amqp://u:7#s3cret@h",
            "amqp://u:?s3cret@h",
            "u:s3cret@h/a://b",
            "u:s3cret@h",
        ] {
            let shown = Url::parse(url).unwrap_err().to_string();
            assert!(
                !shown.contains("s3cret") && shown.contains("expected") | shown.contains("%23"),
                "{shown}"
            );
        }
        fails("amqp://h/a/b", "second slash in its path at position 10");
        fails("amqp://h/v?heartbeat=5", "query");
        fails("amqp://a b/", "' '");
        fails(&format!("amqp://h/{}", "v".repeat(256)), "256 bytes");
    }

    fn escape(text: &str) -> String {
        text.bytes().map(|b| format!("%{b:02X}")).collect()
    }

    proptest! {
        #[test]
        fn every_credential_and_vhost_survives_escaping(user in ".{1,20}", pass in ".{0,20}", vhost in ".{1,20}") {
            let url = format!("amqp://{}:{}@h/{}", escape(&user), escape(&pass), escape(&vhost));
            prop_assert_eq!(parts(&url), ("h".to_owned(), 5672, user, pass, vhost));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(amqps?://)?[a-z:@/%\\[\\]?#0-9é]{0,30}") {
            let _ = Url::parse(&text);
        }
    }
}
