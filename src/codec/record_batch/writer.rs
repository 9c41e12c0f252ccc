//! One record in wire form: what it takes, and how it is put into bytes that are there.

use crate::codec::varint::{self, Encoded};

/// Room behind a record: numbers are put as words of eight bytes, and the next part goes over what is too much.
pub(super) const SLACK: usize = 8;
/// What a record takes at the builder's end, and its numbers in wire form.
pub(super) struct Plan {
    /// Bytes in all.
    pub(super) total: usize,
    /// The bytes behind the record's length.
    pub(super) body: Encoded,
    pub(super) timestamp_delta: Delta,
    pub(super) offset_delta: Encoded,
    pub(super) key_len: Encoded,
    pub(super) value_len: Encoded,
    pub(super) header_count: Encoded,
}

/// A timestamp relative to the batch's.
#[derive(Clone, Copy)]
pub(super) enum Delta {
    /// Within 24 days.
    Short(Encoded),
    /// The rest.
    Long(i64),
}

impl Plan {
    /// Bytes of the record before its value.
    pub(super) fn before_value(&self, key: Option<&[u8]>) -> usize {
        let delta = match self.timestamp_delta {
            Delta::Short(delta) => delta.len,
            Delta::Long(delta) => varint::encode_i64(delta).1,
        };
        let numbers =
            self.body.len + 1 + delta + self.offset_delta.len + self.key_len.len + self.value_len.len;
        numbers + key.map_or(0, <[u8]>::len)
    }

    /// Writes the record to the front of `room`; how many bytes are left behind it, or `None` where it does not fit,
    /// which only headers can bring about that are not those of the plan.
    #[inline(always)]
    pub(super) fn write<'h>(
        &self,
        room: &mut [u8],
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> Option<usize> {
        let mut out = Out(room);
        let Self { body, offset_delta, key_len, .. } = *self;
        // The record's own attributes, a byte of 0, stand behind its length.
        match self.timestamp_delta {
            Delta::Short(delta) if body.len + 1 + delta.len <= 8 => out.put(Encoded {
                bits: body.bits | delta.bits << (8 * (body.len + 1)),
                len: body.len + 1 + delta.len,
            })?,
            Delta::Short(delta) => {
                out.put(Encoded { bits: body.bits, len: body.len + 1 })?;
                out.put(delta)?;
            }
            Delta::Long(delta) => {
                let (bytes, len) = varint::encode_i64(delta);
                out.put(Encoded { bits: body.bits, len: body.len + 1 })?;
                out.copy(bytes.get(..len)?)?;
            }
        }
        if offset_delta.len + key_len.len <= 8 {
            out.put(Encoded {
                bits: offset_delta.bits | key_len.bits << (8 * offset_delta.len),
                len: offset_delta.len + key_len.len,
            })?;
        } else {
            out.put(offset_delta)?;
            out.put(key_len)?;
        }
        out.copy(key.unwrap_or_default())?;
        out.put(self.value_len)?;
        out.copy(value.unwrap_or_default())?;
        out.put(self.header_count)?;
        for (name, value) in headers {
            // What is too long for an `i32` is too long for the room as well.
            out.put(varint::encode_i32(name.len() as i32))?;
            out.copy(name.as_bytes())?;
            out.put(varint::encode_i32(value.map_or(-1, |value| value.len() as i32)))?;
            out.copy(value.unwrap_or_default())?;
        }
        Some(out.0.len())
    }
}

/// The bytes that are still to be written.
pub(super) struct Out<'a>(pub(super) &'a mut [u8]);

impl Out<'_> {
    /// Puts a number as a whole word, which is one move, and goes on behind what the number takes.
    #[inline(always)]
    pub(super) fn put(&mut self, number: Encoded) -> Option<()> {
        *self.0.first_chunk_mut::<8>()? = number.bits.to_le_bytes();
        self.skip(number.len)
    }

    fn copy(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.get_mut(..bytes.len())?.copy_from_slice(bytes);
        self.skip(bytes.len())
    }

    /// The same for a part that is likely short: by moves from both its ends, which overlap in the middle, and without
    /// a call to a `memcpy` that may be tuned for long ones.
    #[inline(always)]
    pub(super) fn copy_short(&mut self, bytes: &[u8]) -> Option<()> {
        let to = self.0.get_mut(..bytes.len())?;
        match bytes.len() {
            0 => {}
            4..=8 => copy_ends::<4>(bytes, to)?,
            9..=16 => copy_ends::<8>(bytes, to)?,
            17..=32 => copy_ends::<16>(bytes, to)?,
            33..=64 => copy_ends::<32>(bytes, to)?,
            65..=128 => copy_ends::<64>(bytes, to)?,
            _ => to.copy_from_slice(bytes),
        }
        self.skip(bytes.len())
    }

    #[inline(always)]
    fn skip(&mut self, len: usize) -> Option<()> {
        self.0 = std::mem::take(&mut self.0).get_mut(len..)?;
        Some(())
    }
}

/// Copies the first and the last `N` bytes: all of `N` to `2 * N`.
#[inline(always)]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [u8]) -> Option<()> {
    *to.first_chunk_mut::<N>()? = *from.first_chunk::<N>()?;
    *to.last_chunk_mut::<N>()? = *from.last_chunk::<N>()?;
    Some(())
}

/// The length in wire form, if as many bytes can be within `room`; null is -1.
#[inline(always)]
pub(super) fn length(part: Option<&[u8]>, room: u64) -> Option<Encoded> {
    match part {
        // The room is that of a batch, which an `i32` measures.
        Some(part) if part.len() as u64 <= room => Some(varint::encode_i32(part.len() as i32)),
        Some(_) => None,
        None => Some(varint::encode_i32(-1)),
    }
}

#[inline(always)]
pub(super) fn bytes_of(part: Option<&[u8]>) -> u64 {
    part.map_or(0, |part| part.len() as u64)
}
