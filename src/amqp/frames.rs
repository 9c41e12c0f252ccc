//! Makes the broker's frames fit for the library: checks each, mends what can be mended. Pure.
//!
//! A broker passes on what publishers wrote, and the library trusts it too far: a table nested a few thousand deep
//! overflows its stack and takes the process down, a text that is not UTF-8 ends the connection, and since the message
//! goes back to its queue it does so again and again. So every frame is looked at first (AMQP 0-9-1 section 4.2):
//!
//! | found | done |
//! |---|---|
//! | a header's text that is not UTF-8 | becomes bytes (`S` to `x`, of the same layout) |
//! | a name or a property's text that is not UTF-8 | each wrong byte becomes `?` |
//! | headers nested deeper than [`MAX_DEPTH`], or broken inside | the message comes without headers |
//! | a frame or method that no broker sends | an error; the connection ends |
//!
//! Order of calls: [`inspect`] on the start of the buffer until it says that the frame is not complete.

use super::table::MAX_DEPTH;
use crate::{Error, ErrorKind, Result};

/// The largest frame that is taken: RabbitMQ's default is 128 KiB.
pub(super) const MAX_FRAME: usize = 1 << 20;
/// Type, channel and size.
pub(super) const HEAD: usize = 7;
const FRAME_END: u8 = 0xCE;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Where the two flag bytes and the first property of a content header's payload stand (section 4.2.6.1).
const FLAGS: usize = 12;
const PROPERTIES: usize = 14;
const HEADERS_FLAG: u16 = 1 << 13;

/// What to do with the frame at the start of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes are needed.
    Incomplete,
    /// It has this many bytes and is fit, mended in place if need be.
    Pass(usize),
    /// It has `len` bytes and `with` goes on in its stead.
    Replace { len: usize, with: Vec<u8> },
}

/// Looks at the frame at the start of `buffer`.
///
/// # Errors
/// [`ErrorKind::Malformed`] if no broker sends such a frame.
pub(super) fn inspect(buffer: &mut [u8]) -> Result<Step> {
    let [kind, _, _, a, b, c, d, ..] = *buffer else { return Ok(Step::Incomplete) };
    let size = u32::from_be_bytes([a, b, c, d]) as usize;
    if !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT) {
        return Err(malformed(format!("a frame of type {kind}")));
    }
    if size > MAX_FRAME {
        return Err(malformed(format!("a frame of {size} bytes; {MAX_FRAME} is the most")));
    }
    let len = HEAD + size + 1;
    let Some([head @ .., end]) = buffer.get_mut(..len) else { return Ok(Step::Incomplete) };
    if *end != FRAME_END {
        return Err(malformed(format!("a frame that ends with {end:#04x}; expected 0xce")));
    }
    let payload = head.get_mut(HEAD..).unwrap_or_default();
    match kind {
        METHOD => method(payload).map(|()| Step::Pass(len)),
        HEADER => match content_header(payload)? {
            None => Ok(Step::Pass(len)),
            Some(table) => {
                let mut with = head.to_vec();
                strip(&mut with, table);
                with.push(FRAME_END);
                Ok(Step::Replace { len, with })
            }
        },
        _ => Ok(Step::Pass(len)),
    }
}

fn malformed(what: String) -> Error {
    Error::new(ErrorKind::Malformed, format!("the peer sent {what}"))
}

/// The methods that a server may send (section 1.4 and on; RabbitMQ's additions).
const METHODS: [(u16, &[u16]); 7] = [
    (10, &[10, 20, 30, 41, 50, 51, 60, 61, 71]),
    (20, &[11, 20, 21, 40, 41]),
    (40, &[11, 21, 31, 51]),
    (50, &[11, 21, 31, 41, 51]),
    (60, &[11, 21, 30, 31, 50, 60, 71, 72, 80, 111, 120]),
    (85, &[11]),
    (90, &[11, 21, 31]),
];

fn method(payload: &mut [u8]) -> Result<()> {
    let mut at = Cursor { bytes: payload, at: 0 };
    let broken = || malformed("a method frame whose arguments are cut".to_owned());
    let (class, method) = at.u16().zip(at.u16()).ok_or_else(broken)?;
    if !METHODS.iter().any(|(c, methods)| *c == class && methods.contains(&method)) {
        return Err(malformed(format!("the method {class}.{method}, which no broker sends")));
    }
    let end = at.bytes.len();
    let mended = match (class, method) {
        // start: version, server properties.
        (10, 10) => at.skip(2).and_then(|()| at.table(0, end)),
        // return: code, text, exchange, routing key.
        (60, 50) => at.skip(2).and_then(|()| at.short()).and_then(|()| at.short()).and_then(|()| at.short()),
        // deliver: consumer tag, delivery tag, redelivered, exchange, routing key.
        (60, 60) => at.short().and_then(|()| at.skip(9)).and_then(|()| at.short()).and_then(|()| at.short()),
        // get-ok: delivery tag, redelivered, exchange, routing key.
        (60, 71) => at.skip(9).and_then(|()| at.short()).and_then(|()| at.short()),
        // close: code, text.
        (10 | 20, 50 | 40) => at.skip(2).and_then(|()| at.short()),
        // declare-ok, consume-ok, cancel, cancel-ok: a name.
        (50, 11) | (60, 21 | 30 | 31) => at.short(),
        _ => Some(()),
    };
    mended.ok_or_else(broken)
}

/// Mends a content header. `Some` is where its headers stand, if they are to be taken out.
fn content_header(payload: &mut [u8]) -> Result<Option<std::ops::Range<usize>>> {
    let mut at = Cursor { bytes: payload, at: FLAGS };
    let broken = || malformed("a content header whose properties are cut".to_owned());
    let flags = at.u16().ok_or_else(broken)?;
    if flags & 1 != 0 {
        return Err(malformed("a content header with more flags than AMQP's properties need".to_owned()));
    }
    let mut out = None;
    for bit in (2..16u16).rev().filter(|bit| flags & (1 << bit) != 0) {
        let known = match bit {
            13 => {
                let start = at.at;
                let length = at.u32().ok_or_else(broken)?;
                let end =
                    at.at.checked_add(length).filter(|end| *end <= at.bytes.len()).ok_or_else(broken)?;
                at.at = start;
                if at.table(0, end).is_none() || at.at != end {
                    out = Some(start..end);
                    at.at = end;
                }
                Some(())
            }
            11 | 12 => at.skip(1),
            6 => at.skip(8),
            _ => at.short(),
        };
        known.ok_or_else(broken)?;
    }
    Ok(out)
}

/// Takes the headers out of a content header frame; `table` is their place in its payload.
fn strip(frame: &mut Vec<u8>, table: std::ops::Range<usize>) {
    frame.drain(HEAD + table.start..HEAD + table.end);
    let size = (frame.len() - HEAD) as u32;
    if let Some(place) = frame.get_mut(3..HEAD) {
        place.copy_from_slice(&size.to_be_bytes());
    }
    if let Some(place) = frame.get_mut(HEAD + FLAGS..HEAD + PROPERTIES)
        && let [a, b] = *place
    {
        place.copy_from_slice(&(u16::from_be_bytes([a, b]) & !HEADERS_FLAG).to_be_bytes());
    }
}

/// Reads and mends. `None` wherever the bytes are not what they should be.
struct Cursor<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, n: usize) -> Option<&mut [u8]> {
        let end = self.at.checked_add(n)?;
        let taken = self.bytes.get_mut(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn skip(&mut self, n: usize) -> Option<()> {
        self.take(n).map(drop)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<usize> {
        self.take(4)?.try_into().ok().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }

    /// A short string, with `?` for what is not UTF-8.
    fn short(&mut self) -> Option<()> {
        let length = self.u8()?;
        let text = self.take(length.into())?;
        let mut at = 0;
        while let Err(e) = std::str::from_utf8(text.get(at..)?) {
            let wrong = at + e.valid_up_to();
            let end = e.error_len().map_or(text.len(), |n| wrong + n);
            text.get_mut(wrong..end)?.fill(b'?');
            at = end;
        }
        Some(())
    }

    /// A table that ends at `limit` or before.
    fn table(&mut self, depth: usize, limit: usize) -> Option<()> {
        let end = self.nested(depth, limit)?;
        while self.at < end {
            self.short()?;
            self.value(depth, end)?;
        }
        (self.at == end).then_some(())
    }

    /// The end of a table or list whose length comes next.
    fn nested(&mut self, depth: usize, limit: usize) -> Option<usize> {
        if depth > MAX_DEPTH {
            return None;
        }
        let length = self.u32()?;
        self.at.checked_add(length).filter(|end| *end <= limit)
    }

    fn value(&mut self, depth: usize, limit: usize) -> Option<()> {
        let tag_at = self.at;
        match self.u8()? {
            b'V' => Some(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'l' | b'd' | b'T' => self.skip(8),
            b'x' => {
                let length = self.u32()?;
                self.skip(length)
            }
            b'S' => {
                let length = self.u32()?;
                if std::str::from_utf8(self.take(length)?).is_err() {
                    *self.bytes.get_mut(tag_at)? = b'x';
                }
                Some(())
            }
            b'A' => {
                let end = self.nested(depth + 1, limit)?;
                while self.at < end {
                    self.value(depth + 1, end)?;
                }
                (self.at == end).then_some(())
            }
            b'F' => self.table(depth + 1, limit),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::amqp::table::samples::nested;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0, 1];
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
        out.push(FRAME_END);
        out
    }

    /// A content header with a content type and these headers.
    fn header(table: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        payload.extend_from_slice(&((1u16 << 15) | HEADERS_FLAG | (1 << 12)).to_be_bytes());
        payload.extend_from_slice(b"\x04text");
        payload.extend_from_slice(&(table.len() as u32).to_be_bytes());
        payload.extend_from_slice(table);
        payload.push(2);
        frame(HEADER, &payload)
    }

    #[track_caller]
    fn passes(mut bytes: Vec<u8>) -> Vec<u8> {
        assert_eq!(inspect(&mut bytes).unwrap(), Step::Pass(bytes.len()));
        bytes
    }

    #[test]
    fn a_sound_frame_passes_as_it_is_once_it_is_complete() {
        let sound = header(b"\x01kS\x00\x00\x00\x02\xc3\xa9\x01nV");
        assert_eq!(passes(sound.clone()), sound);
        for cut in 0..sound.len() {
            let mut part = sound.get(..cut).unwrap().to_vec();
            assert_eq!(inspect(&mut part).unwrap(), Step::Incomplete, "{cut} bytes");
        }
        passes(frame(HEARTBEAT, b""));
        passes(frame(BODY, &[0xff; 100]));
        passes(nested_ok());
    }

    fn nested_ok() -> Vec<u8> {
        header(&nested(MAX_DEPTH))
    }

    #[test]
    fn a_text_that_is_not_utf8_becomes_bytes() {
        let mended = passes(header(b"\x01kS\x00\x00\x00\x02\xff\xfe"));
        assert_eq!(mended, header(b"\x01kx\x00\x00\x00\x02\xff\xfe"));
        let mended = passes(header(b"\x02\xffkt\x01"));
        assert_eq!(mended, header(b"\x02?kt\x01"));
    }

    #[test]
    fn headers_too_deep_or_broken_are_taken_out() {
        let bare = {
            let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
            payload.extend_from_slice(&((1u16 << 15) | (1 << 12)).to_be_bytes());
            payload.extend_from_slice(b"\x04text\x02");
            frame(HEADER, &payload)
        };
        for table in
            [nested(MAX_DEPTH + 1), nested(20_000), b"\x01k?".to_vec(), b"\x01kS\x00\x00\x00\x63x".to_vec()]
        {
            let mut bytes = header(&table);
            let len = bytes.len();
            assert_eq!(inspect(&mut bytes).unwrap(), Step::Replace { len, with: bare.clone() });
        }
    }

    #[test]
    fn the_names_of_a_delivery_are_mended() {
        let deliver = |key: &[u8]| {
            let mut payload = b"\x00\x3c\x00\x3c\x01c\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00".to_vec();
            payload.push(key.len() as u8);
            payload.extend_from_slice(key);
            frame(METHOD, &payload)
        };
        assert_eq!(passes(deliver(b"a\xffb\xc3")), deliver(b"a?b?"));
        assert_eq!(passes(deliver("é".as_bytes())), deliver("é".as_bytes()));
    }

    #[test]
    fn what_no_broker_sends_is_an_error() {
        let says = |mut bytes: Vec<u8>| inspect(&mut bytes).unwrap_err().to_string();
        assert!(says(frame(METHOD, &[0, 60, 0, 40])).contains("60.40"));
        assert!(says(frame(METHOD, &[0, 99, 0, 1])).contains("99.1"));
        assert!(says(frame(METHOD, &[0])).contains("cut"));
        assert!(says(frame(9, b"")).contains("type 9"));
        assert!(says(vec![1, 0, 0, 0xff, 0, 0, 0]).contains("bytes"));
        let mut bad_end = frame(HEARTBEAT, b"");
        *bad_end.last_mut().unwrap() = 0;
        assert!(says(bad_end).contains("0xce"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_passes_once_passes_again(
            seed in prop_oneof![Just(header(b"\x01kS\x00\x00\x00\x01x\x01aA\x00\x00\x00\x02t\x01")), Just(nested_ok())],
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut bytes = seed;
            for (place, byte) in edits {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            match inspect(&mut bytes) {
                Ok(Step::Pass(len)) => {
                    let once = bytes.clone();
                    prop_assert_eq!(inspect(&mut bytes).unwrap(), Step::Pass(len));
                    prop_assert_eq!(bytes, once);
                }
                Ok(Step::Replace { with, .. }) => {
                    let mut with = with;
                    prop_assert_eq!(inspect(&mut with).unwrap(), Step::Pass(with.len()));
                }
                Ok(Step::Incomplete) | Err(_) => {}
            }
        }
    }
}
