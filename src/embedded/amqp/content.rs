//! Messages in frames: how a publish is put together from its frames, and how a message is written as such
//! (AMQP 0-9-1 section 4.2.6).

use bytes::{BufMut, Bytes, BytesMut};

use super::broker::ShortStr;
use super::output::{CHUNKED, Outbox};
use super::wire::frame::{self, BODY, END, HEADER, Head, OVERHEAD};
use super::wire::method::{Method, basic};
use super::wire::properties::ContentHeader;
use crate::embedded::faults::Decision;

/// Room that is made at once for a body, however large it claims to be.
const STEP: usize = 256 * 1024;

/// A publish whose frames are not all here.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) exchange: ShortStr,
    pub(super) routing_key: ShortStr,
    pub(super) mandatory: bool,
    pub(super) immediate: bool,
    /// What is to go wrong with it.
    pub(super) fault: Option<Decision>,
    pub(super) header: Option<Header>,
}

/// Its content header, and as much of its body as came.
#[derive(Debug)]
pub(super) struct Header {
    /// Bytes of the whole body.
    pub(super) size: u64,
    pub(super) properties: Bytes,
    pub(super) body: BytesMut,
}

impl Header {
    /// Appends a part of the body, which must not be longer than what is missing.
    pub(super) fn append(&mut self, part: &[u8]) {
        let missing = usize::try_from(self.size).unwrap_or(usize::MAX).saturating_sub(self.body.len());
        if self.body.capacity() - self.body.len() < part.len() {
            let room = part.len().max(self.body.len()).max(STEP);
            self.body.reserve(room.min(missing).max(part.len()));
        }
        self.body.put_slice(part);
    }

    /// Bytes of the body that did not come yet.
    pub(super) fn missing(&self) -> u64 {
        self.size.saturating_sub(self.body.len() as u64)
    }
}

/// Writes a method that carries a message, and the message.
#[inline]
pub(super) fn write<'a, M: Method<'a>>(
    out: &mut Outbox,
    channel: u16,
    frame_max: usize,
    method: &M,
    properties: &[u8],
    body: &Bytes,
) {
    let tail = out.tail();
    tail.reserve(128 + properties.len() + if body.len() < CHUNKED { body.len() } else { 0 });
    super::wire::method::frame(tail, channel, method);
    let header = ContentHeader { class: basic::Publish::ID.0, body_size: body.len() as u64, properties };
    frame::write(tail, HEADER, channel, |to| header.write(to));
    let most = frame_max.saturating_sub(OVERHEAD).max(1);
    let mut at = 0;
    while at < body.len() {
        let end = body.len().min(at + most);
        let tail = out.tail();
        Head { kind: BODY, channel, size: end - at }.write(tail);
        match body.get(at..end) {
            Some(part) if part.len() < CHUNKED => tail.extend_from_slice(part),
            _ => out.push(body.slice(at..end)),
        }
        out.tail().put_u8(END);
        at = end;
    }
}
