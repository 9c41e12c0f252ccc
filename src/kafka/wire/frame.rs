//! Watches the lengths of incoming frames.
//!
//! rskafka's reader would swallow an oversized frame to its end before it complains. A web server's `HTTP` read as
//! a length is 1.2 GB, so the caller would wait until a timeout. The watch sees each length before the reader does,
//! and says at once what answers there.
//!
//! ```text
//! Length(0..3 bytes) --4th byte--> judged --ok--> Body(n left) --n = 0--> Length(0)
//!                                         --not ok--> an error, for good
//! ```

use std::fmt;

/// Why the peer is not a Kafka broker, or one that cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It answered in HTTP.
    Http,
    /// It answered with a TLS record.
    Tls,
    /// It answered with an AMQP header.
    Amqp,
    /// It answered with an SSH banner.
    Ssh,
    /// It closed the connection before its first byte.
    ClosedAtOnce,
    /// The first frame's length makes no sense.
    NotKafka([u8; 4]),
    /// A later frame is over the limit, or negative.
    Length {
        /// What was announced.
        length: i32,
        /// What is allowed.
        limit: usize,
    },
    /// This side broke the connection: a request ran out of time, or the client was closed.
    Broken,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => f.write_str(
                "an HTTP server answers there, not a Kafka broker; give the address of a Kafka listener",
            ),
            Self::Tls => f.write_str(
                "it speaks TLS there and plain text was sent; give the address of a listener of type PLAINTEXT",
            ),
            Self::Amqp => f.write_str(
                "an AMQP broker answers there, not a Kafka broker; give the address of a Kafka listener",
            ),
            Self::Ssh => f.write_str(
                "an SSH server answers there, not a Kafka broker; give the address of a Kafka listener",
            ),
            Self::ClosedAtOnce => f.write_str(
                "it closed the connection without an answer; a listener that wants TLS or SASL does so, and so does \
                 a server that is no Kafka broker; give the address of a listener of type PLAINTEXT",
            ),
            Self::NotKafka(first) => write!(
                f,
                "its answer begins with {:?}, which is no Kafka frame; give the address of a Kafka listener",
                String::from_utf8_lossy(first)
            ),
            Self::Length { length, limit } => write!(
                f,
                "it announced an answer of {length} bytes; the limit is {limit} (max_response_size); raise it if \
                 the broker holds batches that large"
            ),
            Self::Broken => f.write_str("the connection was closed"),
        }
    }
}

impl std::error::Error for Fault {}

/// The state over one connection's incoming bytes.
#[derive(Debug)]
pub(crate) struct Watch {
    limit: usize,
    header: [u8; 4],
    have: usize,
    body_left: usize,
    frames: u64,
}

impl Watch {
    /// A watch that refuses frames over `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, header: [0; 4], have: 0, body_left: 0, frames: 0 }
    }

    /// Whether no whole frame length has been seen so far.
    pub(crate) fn is_fresh(&self) -> bool {
        self.frames == 0 && self.have == 0
    }

    /// How many frames began.
    #[cfg(test)]
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Takes the next bytes of the stream, in order.
    pub(crate) fn handle_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        loop {
            let body = self.body_left.min(bytes.len());
            self.body_left -= body;
            bytes = bytes.get(body..).unwrap_or_default();
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            if let Some(slot) = self.header.get_mut(self.have) {
                *slot = byte;
            }
            self.have += 1;
            bytes = rest;
            // A TLS alert is shorter than some reads want: its first bytes tell enough.
            if self.have == 4 {
                self.judge()?;
            }
        }
    }

    fn judge(&mut self) -> Result<(), Fault> {
        let length = i32::from_be_bytes(self.header);
        if self.frames == 0 {
            match &self.header {
                b"HTTP" => return Err(Fault::Http),
                b"AMQP" => return Err(Fault::Amqp),
                b"SSH-" => return Err(Fault::Ssh),
                // ContentType alert (21) or handshake (22), then the version's high byte (RFC 8446, 5.1).
                [0x15 | 0x16, 0x03, ..] => return Err(Fault::Tls),
                _ => {}
            }
        }
        match usize::try_from(length) {
            Ok(n) if n <= self.limit => {
                self.body_left = n;
                self.have = 0;
                self.frames += 1;
                Ok(())
            }
            _ if self.frames == 0 => Err(Fault::NotKafka(self.header)),
            _ => Err(Fault::Length { length, limit: self.limit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_instead_of_a_broker_is_named_from_its_first_bytes() {
        for (answer, fault) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], Fault::Http),
            (&b"\x15\x03\x03\x00\x02\x02\x46"[..], Fault::Tls),
            (&b"AMQP\x00\x00\x09\x01"[..], Fault::Amqp),
            (&b"SSH-2.0-OpenSSH_9.2"[..], Fault::Ssh),
            (&b"\xff\xff\xff\xff"[..], Fault::NotKafka([255; 4])),
            (&b"+OK hello"[..], Fault::NotKafka(*b"+OK ")),
        ] {
            assert_eq!(Watch::new(1 << 20).handle_bytes(answer), Err(fault));
        }
    }

    #[test]
    fn frames_are_followed_however_the_bytes_are_cut() {
        let mut stream = Vec::new();
        for n in [0usize, 1, 5, 300] {
            stream.extend_from_slice(&(n as i32).to_be_bytes());
            stream.extend(std::iter::repeat_n(0x15, n));
        }
        for cut in 1..9 {
            let mut watch = Watch::new(300);
            for piece in stream.chunks(cut) {
                watch.handle_bytes(piece).unwrap();
            }
            assert_eq!(watch.frames(), 4);
        }
    }

    #[test]
    fn a_later_frame_over_the_limit_is_refused_with_both_numbers() {
        let mut watch = Watch::new(10);
        watch.handle_bytes(&[0, 0, 0, 1, 9]).unwrap();
        let fault = watch.handle_bytes(&[0, 0, 0, 11]).unwrap_err();
        assert_eq!(fault, Fault::Length { length: 11, limit: 10 });
        assert!(fault.to_string().contains("11") && fault.to_string().contains("10"));
    }
}
