//! snappy, raw and in the framing of xerial's snappy-java, which the Java client writes.
//!
//! ```text
//! xerial := header chunk*          header := 82 53 4E 41 50 50 59 00  version:u32  compatible:u32   (big endian)
//! chunk  := length:u32 raw         raw    := uncompressed length as a varint, then elements
//! ```
//! Concatenated streams repeat the header between chunks. Input without the header is one raw block, which librdkafka
//! and old clients write.

use bytes::{BufMut, BytesMut};

use super::{Compression, malformed, too_large};
use crate::{Error, ErrorKind, Result};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Both the version and the oldest one that can read it.
const VERSION: u32 = 1;
const HEADER: usize = 16;
/// snappy-java's default, which the Java client leaves as it is.
const BLOCK: usize = 32 * 1024;
/// The densest element is a copy of 64 bytes in 3 bytes: no raw block can hold more than this multiple of itself.
const DENSEST: usize = 22;

pub(super) fn compress(input: &[u8], out: &mut BytesMut) -> Result<()> {
    let start = out.len();
    out.reserve(HEADER + 4 + input.len() / 2);
    out.put_slice(&MAGIC);
    out.put_u32(VERSION);
    out.put_u32(VERSION);
    let mut encoder = snap::raw::Encoder::new();
    let mut raw = vec![0; snap::raw::max_compress_len(input.len().min(BLOCK))];
    for block in input.chunks(BLOCK) {
        let compressed = encoder.compress(block, &mut raw).ok().and_then(|n| raw.get(..n));
        let Some(compressed) = compressed else {
            out.truncate(start);
            return Err(Error::new(ErrorKind::Internal, "snappy compression failed"));
        };
        // A block of 32 KiB compresses to less than 64 KiB.
        out.put_u32(compressed.len() as u32);
        out.put_slice(compressed);
    }
    Ok(())
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut decoder = snap::raw::Decoder::new();
    if !input.starts_with(&MAGIC) {
        raw(&mut decoder, input, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest = skip_header(input)?;
    while !rest.is_empty() {
        // snappy-java tells a repeated header from a length by its first bytes: no chunk is 2 GiB long.
        if rest.starts_with(&MAGIC) {
            rest = skip_header(rest)?;
            continue;
        }
        let Some((length, tail)) = rest.split_first_chunk() else {
            return Err(malformed(Compression::Snappy, "is cut short in a chunk's length"));
        };
        let length = u32::from_be_bytes(*length) as usize;
        let Some((chunk, tail)) = tail.split_at_checked(length) else {
            let what = format!("is cut short: a chunk of {length} bytes, {} left", tail.len());
            return Err(malformed(Compression::Snappy, what));
        };
        raw(&mut decoder, chunk, limit, &mut out)?;
        rest = tail;
    }
    Ok(out)
}

/// Skips the header of a stream and checks that its version can be read.
fn skip_header(input: &[u8]) -> Result<&[u8]> {
    let Some((header, rest)) = input.split_first_chunk::<HEADER>() else {
        return Err(malformed(Compression::Snappy, "is cut short in its xerial header"));
    };
    let [.., a, b, c, d] = *header;
    match u32::from_be_bytes([a, b, c, d]) {
        0..=VERSION => Ok(rest),
        newer => Err(Error::new(
            ErrorKind::Unsupported,
            format!("snappy data needs a reader of xerial version {newer}; this one has version {VERSION}"),
        )),
    }
}

/// Appends one raw block to `out`, which may hold `limit` bytes in all.
fn raw(decoder: &mut snap::raw::Decoder, input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<()> {
    let damaged = |e: snap::Error| malformed(Compression::Snappy, "is damaged").with_source(e);
    let length = snap::raw::decompress_len(input).map_err(damaged)?;
    if length > input.len().saturating_mul(DENSEST) {
        let what = format!("is damaged: a block of {} bytes claims to hold {length}", input.len());
        return Err(malformed(Compression::Snappy, what));
    }
    let start = out.len();
    if length > limit.saturating_sub(start) {
        return Err(too_large(Compression::Snappy, limit));
    }
    out.resize(start + length, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    decoder.decompress(input, room).map(|_| ()).map_err(damaged)
}
