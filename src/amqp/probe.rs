#![allow(clippy::disallowed_methods, reason = "opens sockets and waits for a peer's first bytes")]
//! Reaching a broker, and what listens there instead.
//!
//! RabbitMQ just closes the connection of a client that fails to log in, unless it announces
//! `authentication_failure_close` (RabbitMQ's extension of AMQP 0-9-1), which the library does not. So when the
//! handshake ends that way the login is tried once more by hand, to learn the reason.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Url;
use super::error::Reply;
use crate::{Error, ErrorKind, Result};

/// The largest frame that is read before the frame size is negotiated: the broker's first frame has under 1 KiB.
const MAX_FRAME: usize = 64 * 1024;
const METHOD_FRAME: u8 = 1;
const FRAME_END: u8 = 0xCE;
const CONNECTION_CLASS: u16 = 10;
const START: u16 = 10;
const TUNE: u16 = 30;
const CLOSE: u16 = 50;

/// Logs in by hand; `Ok` if the broker takes the credentials.
///
/// # Errors
/// [`ErrorKind::Connect`], [`ErrorKind::Malformed`], [`ErrorKind::Denied`], or what the broker's reply stands for.
pub(super) async fn probe(url: &Url) -> Result<()> {
    let address = url.address();
    let mut stream = dial(url).await?;
    let silent = |e: io::Error| {
        Error::new(ErrorKind::Connect, format!("{address} broke the connection during AMQP's greeting"))
            .with_source(e)
    };
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.map_err(silent)?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.map_err(silent)?;
    recognise(&address, &head)?;
    let (class, method, _) = read_method(&mut stream, head).await.map_err(silent)?;
    if (class, method) != (CONNECTION_CLASS, START) {
        return Err(Error::new(
            ErrorKind::Malformed,
            format!("{address} begins with the method {class}.{method}; expected 10.10, connection.start"),
        ));
    }
    stream.write_all(&start_ok(url.user(), url.password())).await.map_err(silent)?;
    let refused = |_| {
        Error::new(
            ErrorKind::Denied,
            format!("{address} closed the connection at the login of user {:?}: wrong password?", url.user()),
        )
    };
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.map_err(refused)?;
    match read_method(&mut stream, head).await.map_err(refused)? {
        (CONNECTION_CLASS, TUNE, _) => Ok(()),
        (CONNECTION_CLASS, CLOSE, arguments) => Err(close_reply(&arguments)
            .unwrap_or(Reply { code: 403, text: "ACCESS_REFUSED".to_owned() })
            .to_error(&format!("logging in at {address} as {:?}", url.user()))),
        (class, method, _) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{address} answers a PLAIN login with the method {class}.{method}"),
        )),
    }
}

/// Connects to the first address that answers.
///
/// # Errors
/// [`ErrorKind::Connect`] that says whether the name or the port is wrong.
pub(super) async fn dial(url: &Url) -> Result<TcpStream> {
    let address = url.address();
    let found = tokio::net::lookup_host(&address).await.map_err(|e| {
        Error::new(
            ErrorKind::Connect,
            format!("the host name {:?} cannot be resolved; check its spelling", url.host()),
        )
        .with_source(e)
    })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket in found {
        match TcpStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    let hint = match last.kind() {
        io::ErrorKind::ConnectionRefused => {
            ": nothing listens there (connection refused); check the port, and that RabbitMQ runs"
        }
        _ => "",
    };
    Err(Error::new(ErrorKind::Connect, format!("cannot reach RabbitMQ at {address}{hint}")).with_source(last))
}

/// Tells a broker by the first bytes it says.
pub(super) fn recognise(address: &str, first: &[u8]) -> Result<()> {
    let connect = |why: String| Err(Error::new(ErrorKind::Connect, format!("{address} {why}")));
    match first {
        [METHOD_FRAME, 0, 0, _, _, _, _] => Ok(()),
        [] => {
            connect("closed the connection without an answer to AMQP's greeting; give the address of RabbitMQ's AMQP port, usually 5672".to_owned())
        }
        [b'A', b'M', b'Q', b'P', version @ ..] => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{address} wants another AMQP version (it answers {version:?}); expected 0-9-1"),
        )),
        [0x15 | 0x16, 3, ..] => {
            connect("speaks TLS, and plain AMQP was asked; RabbitMQ's plain port is usually 5672".to_owned())
        }
        [b'H', b'T', b'T', b'P', ..] => {
            connect("speaks HTTP, not AMQP; RabbitMQ's AMQP port is usually 5672".to_owned())
        }
        other => connect(format!("does not speak AMQP: it begins with {:?}", String::from_utf8_lossy(other))),
    }
}

/// Reads the rest of a method frame whose first seven bytes are `head`.
async fn read_method(stream: &mut TcpStream, head: [u8; 7]) -> io::Result<(u16, u16, Vec<u8>)> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let [kind, _, _, a, b, c, d] = head;
    let size = u32::from_be_bytes([a, b, c, d]) as usize;
    if kind != METHOD_FRAME || !(4..=MAX_FRAME).contains(&size) {
        return Err(bad("not a method frame of a sane size"));
    }
    let mut payload = vec![0; size + 1];
    stream.read_exact(&mut payload).await?;
    if payload.pop() != Some(FRAME_END) {
        return Err(bad("a frame without its end byte"));
    }
    let [c1, c2, m1, m2, arguments @ ..] = payload.as_slice() else {
        return Err(bad("a method frame without a method"));
    };
    Ok((u16::from_be_bytes([*c1, *c2]), u16::from_be_bytes([*m1, *m2]), arguments.to_vec()))
}

/// `connection.start-ok` with PLAIN (AMQP 0-9-1 section 1.4.2.2; RFC 4616).
fn start_ok(user: &str, password: &str) -> Vec<u8> {
    fn short(out: &mut Vec<u8>, text: &str) {
        out.push(text.len() as u8);
        out.extend_from_slice(text.as_bytes());
    }
    fn long(out: &mut Vec<u8>, bytes: &[u8]) {
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(bytes);
    }
    let mut capabilities = Vec::new();
    short(&mut capabilities, "authentication_failure_close");
    capabilities.extend_from_slice(&[b't', 1]);
    let mut properties = Vec::new();
    short(&mut properties, "capabilities");
    properties.push(b'F');
    long(&mut properties, &capabilities);

    let mut payload = vec![0, 10, 0, 11];
    long(&mut payload, &properties);
    short(&mut payload, "PLAIN");
    long(&mut payload, format!("\0{user}\0{password}").as_bytes());
    short(&mut payload, "en_US");

    let mut frame = vec![METHOD_FRAME, 0, 0];
    long(&mut frame, &payload);
    frame.push(FRAME_END);
    frame
}

/// The code and words of `connection.close`.
fn close_reply(arguments: &[u8]) -> Option<Reply> {
    let [a, b, length, rest @ ..] = arguments else { return None };
    let text = rest.get(..usize::from(*length))?;
    Some(Reply { code: u16::from_be_bytes([*a, *b]), text: String::from_utf8_lossy(text).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_known_by_its_first_bytes() {
        recognise("h:1", &[1, 0, 0, 0, 0, 1, 0]).unwrap();
        let says = |bytes: &[u8]| recognise("h:1", bytes).unwrap_err();
        assert!(says(b"HTTP/1.").to_string().contains("HTTP"));
        assert!(says(&[0x15, 3, 1, 0, 2, 2, 22]).to_string().contains("TLS"));
        assert!(says(b"220 mai").to_string().contains("220 mai"));
        assert!(says(b"").to_string().contains("without an answer"));
        assert_eq!(says(b"AMQP\0\x01\0").kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_cut_close_is_no_reply() {
        assert_eq!(close_reply(&[1, 147, 3, b'n', b'o']), None);
        assert_eq!(
            close_reply(&[1, 147, 2, b'n', b'o', 0]).unwrap(),
            Reply { code: 403, text: "no".to_owned() }
        );
    }
}
