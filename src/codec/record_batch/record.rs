//! One record of a batch, and what it is made of.

use std::borrow::Cow;

use bytes::Bytes;

use super::control::ControlMarker;
use super::shared::SharedRecord;
use super::view::Base;
use crate::codec::varint::{VarintError, Word, Zigzag, take_i32, take_i64};
use crate::{Error, ErrorKind, Offset, Result, Timestamp};

/// One record: slices of the batch's bytes.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    payload: &'a Bytes,
    offset: Offset,
    timestamp: Timestamp,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// Its place in the partition.
    #[inline]
    #[must_use]
    pub const fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was created by its producer's clock, or appended by the broker's, as the topic says
    /// ([`BatchView::append_time`](super::BatchView::append_time)). Milliseconds; `-1` for none.
    #[inline]
    #[must_use]
    pub const fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// The key; `None` is null, which is not the same as empty.
    #[inline]
    #[must_use]
    pub const fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The value; `None` is null (a tombstone in a compacted topic), which is not the same as empty.
    #[inline]
    #[must_use]
    pub const fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// [`Self::key`] as a handle on the batch's memory, without a copy.
    #[must_use]
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key.map(|key| self.payload.slice_ref(key))
    }

    /// [`Self::value`] as a handle on the batch's memory, without a copy.
    #[must_use]
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value.map(|value| self.payload.slice_ref(value))
    }

    /// A handle on the batch's memory for a slice of this record, as a header's value. For any other slice a copy.
    #[must_use]
    pub fn share(&self, slice: &'a [u8]) -> Bytes {
        if self.payload.as_ptr_range().contains(&slice.as_ptr())
            && slice.as_ptr_range().end <= self.payload.as_ptr_range().end
        {
            self.payload.slice_ref(slice)
        } else {
            Bytes::copy_from_slice(slice)
        }
    }

    /// The headers in the order they were written; a name may come more than once.
    #[inline]
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }

    /// The record as one that can be kept, with a handle on the batch's memory.
    #[inline]
    #[must_use]
    pub fn share_all(&self) -> SharedRecord {
        SharedRecord::new(self, self.payload)
    }

    pub(super) fn raw_headers(&self) -> (&'a [u8], u32) {
        (self.headers.rest, self.headers.remaining)
    }

    /// What the brokers say with this record, which must be one of a control batch
    /// ([`BatchView::is_control`](super::BatchView::is_control)).
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] when the key or the value is not a marker's.
    pub fn control_marker(&self) -> Result<ControlMarker> {
        ControlMarker::parse(self.key, self.value)
            .map_err(|e| e.context(format!("control record at offset {}", self.offset)))
    }

    /// Takes one record off the front of `rest` and checks all of it.
    #[inline(always)]
    pub(super) fn take(
        payload: &'a Bytes,
        rest: &mut &'a [u8],
        base: &Base,
        last_delta: &mut i32,
    ) -> Result<Self, RecordError> {
        let start = *rest;
        let Parts { timestamp_delta, offset_delta, key, value, headers } = match Parts::take_short(rest) {
            Some(parts) => parts,
            None => {
                let (parts, tail) = Parts::take_any(start)?;
                *rest = tail;
                parts
            }
        };
        if offset_delta <= *last_delta || offset_delta > base.last_offset_delta {
            return Err(RecordError("offset delta", Why::Value(offset_delta.into())));
        }
        *last_delta = offset_delta;
        let Some(timestamp) = base.timestamp.checked_add(timestamp_delta & base.timestamp_mask) else {
            return Err(RecordError("timestamp delta", Why::Value(timestamp_delta)));
        };
        Ok(Self {
            payload,
            // Within the last offset, which the batch's header was checked for.
            offset: Offset(base.offset + i64::from(offset_delta)),
            timestamp: Timestamp(timestamp),
            key,
            value,
            headers,
        })
    }
}

/// The headers of a record, in order: the name and the value, null told from empty.
///
/// A name that is not UTF-8 has its bad parts replaced by U+FFFD, as the Java client does it; only then is it copied.
/// [`Self::next_raw`] gives it as it is.
#[derive(Debug, Clone, Default)]
pub struct Headers<'a> {
    rest: &'a [u8],
    remaining: u32,
}

impl<'a> Headers<'a> {
    /// Of bytes that were walked once before.
    pub(super) fn raw(rest: &'a [u8], remaining: u32) -> Self {
        Self { rest, remaining }
    }

    /// The next header with its name's bytes as they were written.
    pub fn next_raw(&mut self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        self.remaining = self.remaining.checked_sub(1)?;
        // All of this was walked once when the record was taken.
        let name = take_slice(&mut self.rest).ok()?;
        let value = take_nullable(&mut self.rest).ok()?;
        Some((name, value))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (Cow<'a, str>, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_raw().map(|(name, value)| (String::from_utf8_lossy(name), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining as usize, Some(self.remaining as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl std::iter::FusedIterator for Headers<'_> {}

/// A record as it stands in the bytes. Every length in it is checked, its deltas are not.
struct Parts<'a> {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Parts<'a> {
    /// The usual record in few steps: all that stands before the key is in the first eight bytes, in numbers of one
    /// or two. `None` where it is another, or a damaged one: [`Self::take_any`] tells, from where this began.
    #[inline(always)]
    fn take_short(rest: &mut &'a [u8]) -> Option<Self> {
        let mut word = Word::new(*rest.first_chunk::<8>()?);
        let len = word.take()?.unsigned()? as usize;
        // First of all, so that the next record need not wait for the rest of this one.
        let (record, tail) = rest.split_at_checked(word.used() + len)?;
        *rest = tail;
        word.skip_byte();
        let timestamp_delta = word.take()?.get().into();
        let offset_delta = word.take()?.unsigned()? as i32;
        let key_len = word.take()?;
        if word.used() > 8 {
            return None;
        }
        let mut body = record.get(word.used()..)?;
        let key = cut_short(&mut body, key_len)?;
        let value_len = Zigzag::take(&mut body)?;
        let value = cut_short(&mut body, value_len)?;
        let headers = if let [0] = body { Headers::default() } else { take_headers(body).ok()? };
        Some(Self { timestamp_delta, offset_delta, key, value, headers })
    }

    /// Any record, with what is wrong with it. Takes and gives `rest` by value: a reference would keep the caller's
    /// position in memory, out of registers.
    #[inline(never)]
    fn take_any(mut rest: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let mut body = take_slice(&mut rest).map_err(|why| RecordError("length", why))?;
        let body = &mut body;
        // The record's own attributes: no bit of it means anything yet.
        let Some((_, tail)) = body.split_first() else {
            return Err(RecordError("attributes", Why::Truncated));
        };
        *body = tail;
        let timestamp_delta = take_i64(body).map_err(|e| RecordError("timestamp delta", e.into()))?;
        let offset_delta = take_i32(body).map_err(|e| RecordError("offset delta", e.into()))?;
        let key = take_nullable(body).map_err(|why| RecordError("key length", why))?;
        let value = take_nullable(body).map_err(|why| RecordError("value length", why))?;
        let headers = take_headers(body)?;
        Ok((Self { timestamp_delta, offset_delta, key, value, headers }, rest))
    }
}

/// As many bytes as `len` says; the inner `None` is null.
#[inline(always)]
fn cut_short<'a>(rest: &mut &'a [u8], len: Zigzag) -> Option<Option<&'a [u8]>> {
    if len.is_null() {
        return Some(None);
    }
    let (slice, tail) = rest.split_at_checked(len.unsigned()? as usize)?;
    *rest = tail;
    Some(Some(slice))
}

/// Walks the headers, which must end where the record ends.
#[inline(never)]
fn take_headers(mut body: &[u8]) -> Result<Headers<'_>, RecordError> {
    let body = &mut body;
    let count = take_i32(body).map_err(|e| RecordError("header count", e.into()))?;
    let Ok(remaining) = u32::try_from(count) else {
        return Err(RecordError("header count", Why::Value(count.into())));
    };
    let headers = Headers { rest: body, remaining };
    // However many are claimed: each takes two bytes, so this ends with the bytes.
    for _ in 0..remaining {
        take_slice(body).map_err(|why| RecordError("header name length", why))?;
        take_nullable(body).map_err(|why| RecordError("header value length", why))?;
    }
    if body.is_empty() { Ok(headers) } else { Err(RecordError("length", Why::Trailing(body.len()))) }
}

/// Takes a length and as many bytes.
#[inline(always)]
fn take_slice<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Why> {
    let len = take_i32(rest)?;
    cut(rest, len)
}

/// Takes a length and as many bytes, or null for the length -1.
#[inline(always)]
fn take_nullable<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Why> {
    let len = take_i32(rest)?;
    if len == -1 { Ok(None) } else { cut(rest, len).map(Some) }
}

#[inline(always)]
fn cut<'a>(rest: &mut &'a [u8], len: i32) -> Result<&'a [u8], Why> {
    // A negative length becomes more than any slice has: one check for both.
    match rest.split_at_checked(len as u32 as usize) {
        Some((slice, tail)) if len >= 0 => {
            *rest = tail;
            Ok(slice)
        }
        _ => Err(Why::Length(len)),
    }
}

/// The field of a record that is wrong, and why. Small: it becomes an [`Error`] on the cold path.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordError(&'static str, Why);

#[derive(Debug, Clone, Copy)]
enum Why {
    /// The bytes end within the field.
    Truncated,
    /// A number with more bits than its type.
    TooLong,
    /// A length below zero, or over what is there.
    Length(i32),
    /// A number that cannot be.
    Value(i64),
    /// Bytes are left over.
    Trailing(usize),
}

impl From<VarintError> for Why {
    fn from(e: VarintError) -> Self {
        match e {
            VarintError::Truncated => Self::Truncated,
            VarintError::TooLong => Self::TooLong,
        }
    }
}

impl RecordError {
    /// The error with its place.
    #[cold]
    #[inline(never)]
    pub(super) fn at(self, base_offset: i64, index: u32) -> Error {
        let Self(field, why) = self;
        let place = format!("record batch at offset {base_offset}: record {index}");
        let what = match why {
            Why::Truncated => format!("{field} is cut short"),
            Why::TooLong => format!("{field} is a number of too many bits"),
            Why::Length(n) if n < 0 => format!("{field} is negative: {n}"),
            Why::Length(n) => format!("{field} is {n}, more than the bytes that are there"),
            Why::Value(n) => format!("{field} is {n}, out of range"),
            Why::Trailing(n) => format!("{field} leaves {n} bytes behind the last header"),
        };
        Error::new(ErrorKind::Malformed, format!("{place}: {what}"))
    }
}
