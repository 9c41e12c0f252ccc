//! The head of a frame (section 4.2.3): type, channel, size; then the payload and one byte that marks its end.

use bytes::{BufMut, BytesMut};

use super::field::Reader;

/// A frame's type.
pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const HEARTBEAT: u8 = 8;

/// Type, channel and size.
pub(crate) const HEAD: usize = 7;
/// The head and the end.
pub(crate) const OVERHEAD: usize = 8;
/// The byte behind each payload.
pub(crate) const END: u8 = 0xCE;

/// The heartbeat frame.
pub(crate) const HEARTBEAT_FRAME: [u8; OVERHEAD] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, END];

/// What a client sends first (section 4.2.2), and what the server answers with to anything else.
pub(crate) const PROTOCOL: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// A frame's first seven bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    /// Bytes of the payload, as the sender claims.
    pub(crate) size: usize,
}

impl Head {
    /// The head of the frame at the front of `input`, once it is there.
    #[inline]
    pub(crate) fn peek(input: &[u8]) -> Option<Self> {
        let [kind, c0, c1, s0, s1, s2, s3, ..] = *input else { return None };
        Some(Self {
            kind,
            channel: u16::from_be_bytes([c0, c1]),
            size: u32::from_be_bytes([s0, s1, s2, s3]) as usize,
        })
    }

    /// Bytes of the whole frame.
    #[inline]
    pub(crate) const fn len(self) -> usize {
        self.size.saturating_add(OVERHEAD)
    }

    #[inline]
    pub(crate) fn write(self, to: &mut BytesMut) {
        to.put_u8(self.kind);
        to.put_u16(self.channel);
        to.put_u32(u32::try_from(self.size).unwrap_or(u32::MAX));
    }
}

/// Writes a frame of `kind` whose payload `write` appends; the size is filled in afterwards.
#[inline]
pub(crate) fn write(to: &mut BytesMut, kind: u8, channel: u16, payload: impl FnOnce(&mut BytesMut)) {
    Head { kind, channel, size: 0 }.write(to);
    let start = to.len();
    payload(to);
    let size = u32::try_from(to.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = to.get_mut(start - 4..start) {
        place.copy_from_slice(&size.to_be_bytes());
    }
    to.put_u8(END);
}

/// The first bytes of a payload as the real broker prints them in a frame error: as Erlang prints a binary.
pub(crate) fn snippet(payload: &[u8]) -> String {
    let (which, bytes) = match payload.get(..16) {
        Some(first) if payload.len() > 16 => ("first 16", first),
        _ => ("all", payload),
    };
    format!("{which} octets = {}", erlang(bytes))
}

/// Printable Latin-1 stands as a string, everything else as numbers.
pub(crate) fn erlang(bytes: &[u8]) -> String {
    let printable = |b: &u8| matches!(b, 8..=13 | 27 | 32..=126 | 160..);
    if bytes.is_empty() {
        return "<<>>".to_owned();
    }
    if !bytes.iter().all(printable) {
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        return format!("<<{}>>", numbers.join(","));
    }
    let mut text = String::from("<<\"");
    for &byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            8 => text.push_str("\\b"),
            9 => text.push_str("\\t"),
            10 => text.push_str("\\n"),
            11 => text.push_str("\\v"),
            12 => text.push_str("\\f"),
            13 => text.push_str("\\r"),
            27 => text.push_str("\\e"),
            _ => text.push(char::from(byte)),
        }
    }
    text.push_str("\">>");
    text
}

/// The payload of the whole frame at the front of `frame`, and whether its end is the right byte.
#[inline]
pub(crate) fn payload(frame: &[u8], head: Head) -> Option<(Reader<'_>, u8)> {
    let payload = frame.get(HEAD..HEAD.checked_add(head.size)?)?;
    let end = *frame.get(HEAD + head.size)?;
    Some((Reader(payload), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_written_is_found_again() {
        let mut out = BytesMut::new();
        write(&mut out, METHOD, 7, |to| to.put_slice(b"payload"));
        let head = Head::peek(&out).unwrap();
        assert_eq!((head.kind, head.channel, head.len()), (METHOD, 7, out.len()));
        let (payload, end) = payload(&out, head).unwrap();
        assert_eq!((payload.0, end), (&b"payload"[..], END));
        assert_eq!(Head::peek(&out[..6]), None);
    }

    #[test]
    fn payloads_are_shown_as_the_real_broker_shows_them() {
        assert_eq!(snippet(b""), "all octets = <<>>");
        assert_eq!(snippet(b"hello"), "all octets = <<\"hello\">>");
        assert_eq!(snippet(&[0; 20]), format!("first 16 octets = <<{}0>>", "0,".repeat(15)));
    }
}
