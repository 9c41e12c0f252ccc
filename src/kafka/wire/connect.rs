//! How a stream to a broker is opened, and which addresses are tried.
#![allow(clippy::disallowed_methods, reason = "this file opens sockets")]

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::{Error, ErrorKind, Result};

/// A byte stream to a broker.
pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// A stream that is being opened: what [`Connect::connect`] returns.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Opens byte streams to brokers. Replace it to route through a proxy, a tunnel or a simulated network.
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream to `host`, a name or an address without brackets. The client bounds it by its connect timeout
    /// and drops the future when that runs out.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a>;
}

/// Plain TCP, with `TCP_NODELAY`.
#[derive(Debug)]
pub(crate) struct Tcp;

impl Connect for Tcp {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            // The stream below joins its own writes.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// A broker's host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address {
    /// A name or an address, IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads `host:port,host:port`. IPv6 addresses stand in brackets, the port is 9092 where none is given.
pub(crate) fn parse_bootstrap(text: &str) -> Result<Vec<Address>> {
    if text.contains('@') {
        // Nothing of it is shown: before an `@` stands a login, perhaps with its password.
        return Err(Error::new(
            ErrorKind::Config,
            "the bootstrap addresses have a login before an `@`; expected host:port,host:port",
        ));
    }
    let mut out = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        if part.is_empty() {
            if text.trim().is_empty() {
                return Err(bad(text, "is empty"));
            }
            return Err(bad(text, "has an empty part between or after its commas"));
        }
        let address = parse_address(part).map_err(|why| bad(part, &why))?;
        if !out.contains(&address) {
            out.push(address);
        }
    }
    Ok(out)
}

fn bad(part: &str, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("bootstrap address {part:?} {why}; expected host:port,host:port"))
}

fn parse_address(part: &str) -> Result<Address, String> {
    if let Some((scheme, _)) = part.split_once("://") {
        return Err(format!("begins with {scheme}://; Kafka addresses have no scheme"));
    }
    let (host, port) = if let Some(rest) = part.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err("has [ without ]".to_owned());
        };
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("has no IPv6 address between its brackets".to_owned());
        }
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(format!("has {after:?} after its ]")),
        }
    } else {
        match part.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("has more than one colon; an IPv6 address stands in brackets".to_owned());
            }
            Some((host, port)) => (host, Some(port)),
            None => (part, None),
        }
    };
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    if let Some(c) = host.chars().find(|c| c.is_whitespace() || matches!(c, '/' | '?' | '#')) {
        return Err(format!("has {c:?} in its host"));
    }
    let port = match port {
        None => 9092,
        Some(text) => match text.parse::<u16>() {
            Ok(n) if n > 0 => n,
            _ => return Err(format!("has the port {text:?}; a port is a number from 1 to 65535")),
        },
    };
    Ok(Address { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_defaults() {
        let all = parse_bootstrap("a:1, b ,[::1]:9, [fe80::2],a:1").unwrap();
        let text: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["a:1", "b:9092", "[::1]:9", "[fe80::2]:9092"]);
    }

    #[test]
    fn a_bad_part_is_named_with_its_fault() {
        for (text, word) in [
            ("", "empty"),
            ("a:1,,b", "commas"),
            ("a:1,b:x", "\"x\""),
            ("a:0", "65535"),
            ("a:70000", "70000"),
            ("::1:9092", "brackets"),
            ("[::1:9", "without ]"),
            ("[nonsense]:9", "IPv6"),
            ("[::1]9", "after"),
            (":9", "no host"),
            ("kafka://a:9", "scheme"),
            ("a b:9", "' '"),
        ] {
            let e = parse_bootstrap(text).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            assert!(e.to_string().contains(word), "{text}: {e}");
        }
        for text in ["amqp://u:s3cret@h:1/", "u:s3cret@h:9092", "a:1,s3cret@b:2", "amqp://u:s3cret,x@b"] {
            let e = parse_bootstrap(text).unwrap_err().to_string();
            assert!(e.contains("login") && !e.contains("s3cret"), "{e}");
        }
    }
}
