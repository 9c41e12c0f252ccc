//! The lz4 frame format; the blocks inside are lz4_flex's.
//!
//! ```text
//! frame := magic FLG BD [content size:u64] [dictionary:u32] HC block* 0:u32 [content xxh32]   (little endian)
//! block := length:u32 (top bit: stored) bytes [xxh32 of the bytes]
//! ```
//! The framing is ours and not lz4_flex's: that one takes a frame without its end mark for a whole one, and allocates
//! three blocks of 4 MiB for a header of 7 bytes.

use bytes::{Buf, BufMut, BytesMut};
use lz4_flex::block::{self, DecompressError};
use twox_hash::XxHash32;

use super::{Compression, malformed, too_large};
use crate::{Error, ErrorKind, Result};

const MAGIC: u32 = 0x184D_2204;
const SKIPPABLE: u32 = 0x184D_2A50;
/// Version 01 and independent blocks; no checksum, no content size: what the Java client writes.
const FLG: u8 = 0b0110_0000;
/// Blocks of up to 64 KiB.
const BD: u8 = 4 << 4;
const BLOCK: usize = 64 * 1024;
const STORED: u32 = 1 << 31;
/// How far back a match reaches.
const WINDOW: usize = 64 * 1024;
/// A match's length grows by 255 with each byte: no block can hold more than this multiple of itself.
const DENSEST: usize = 255;

pub(super) fn compress(input: &[u8], out: &mut BytesMut) -> Result<()> {
    let start = out.len();
    out.reserve(15 + input.len() / 2);
    out.put_u32_le(MAGIC);
    out.put_u8(FLG);
    out.put_u8(BD);
    out.put_u8(header_checksum(&[FLG, BD]));
    let mut scratch = vec![0; block::get_maximum_output_size(input.len().min(BLOCK))];
    for chunk in input.chunks(BLOCK) {
        let compressed = block::compress_into(chunk, &mut scratch).ok().and_then(|n| scratch.get(..n));
        let Some(compressed) = compressed else {
            out.truncate(start);
            return Err(Error::new(ErrorKind::Internal, "lz4 compression failed"));
        };
        // Both lengths are at most 64 KiB.
        if compressed.len() < chunk.len() {
            out.put_u32_le(compressed.len() as u32);
            out.put_slice(compressed);
        } else {
            out.put_u32_le(chunk.len() as u32 | STORED);
            out.put_slice(chunk);
        }
    }
    out.put_u32_le(0);
    Ok(())
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>> {
    if input.is_empty() {
        return Err(malformed(Compression::Lz4, "is empty"));
    }
    let mut rest = input;
    let mut out = Vec::new();
    while !rest.is_empty() {
        match rest.try_get_u32_le().map_err(|_| cut("a frame's magic number"))? {
            MAGIC => frame(&mut rest, limit, &mut out)?,
            magic if magic & !0xF == SKIPPABLE => {
                let length = rest.try_get_u32_le().map_err(|_| cut("a skippable frame"))?;
                take(&mut rest, length as usize, "a skippable frame")?;
            }
            magic => {
                let what = format!("begins a frame with 0x{magic:08x}; expected 0x{MAGIC:08x}");
                return Err(malformed(Compression::Lz4, what));
            }
        }
    }
    Ok(out)
}

/// Appends one frame, whose magic number is read, to `out`, which may hold `limit` bytes in all.
fn frame(rest: &mut &[u8], limit: usize, out: &mut Vec<u8>) -> Result<()> {
    let header = Header::read(rest)?;
    let start = out.len();
    loop {
        let length = rest.try_get_u32_le().map_err(|_| cut("a block's length or the end mark"))?;
        if length == 0 {
            break;
        }
        let stored = length & STORED != 0;
        let length = (length & !STORED) as usize;
        if length > header.block {
            let what = format!("has a block of {length} bytes in a frame of blocks up to {}", header.block);
            return Err(malformed(Compression::Lz4, what));
        }
        let bytes = take(rest, length, "a block")?;
        if header.block_checksums {
            check(rest, bytes, "a block")?;
        }
        let room = limit.saturating_sub(out.len());
        if stored {
            if length > room {
                return Err(too_large(Compression::Lz4, limit));
            }
            out.extend_from_slice(bytes);
        } else {
            inflate(bytes, header, start, room, limit, out)?;
        }
    }
    let content = out.get(start..).unwrap_or_default();
    if header.content_checksum {
        check(rest, content, "the content")?;
    }
    match header.content_size {
        Some(size) if size != content.len() as u64 => {
            let what = format!("holds {} bytes in a frame that claims {size}", content.len());
            Err(malformed(Compression::Lz4, what))
        }
        _ => Ok(()),
    }
}

/// Appends one compressed block. `start` is where the frame's output begins: linked blocks reach back to there.
fn inflate(
    bytes: &[u8],
    header: Header,
    start: usize,
    room: usize,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let before = out.len();
    let possible = bytes.len().saturating_mul(DENSEST).min(header.block);
    let allowed = possible.min(room);
    out.resize(before + allowed, 0);
    let (past, target) = out.split_at_mut(before);
    let done = if header.linked {
        let dictionary = past.get(start.max(before.saturating_sub(WINDOW))..).unwrap_or_default();
        block::decompress_into_with_dict(bytes, target, dictionary)
    } else {
        block::decompress_into(bytes, target)
    };
    match done {
        Ok(n) => {
            out.truncate(before + n);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if allowed == room => {
            Err(too_large(Compression::Lz4, limit))
        }
        Err(e) => Err(malformed(Compression::Lz4, "is damaged").with_source(e)),
    }
}

/// What a frame's header says.
#[derive(Clone, Copy)]
struct Header {
    /// The largest block, in bytes.
    block: usize,
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
}

impl Header {
    fn read(rest: &mut &[u8]) -> Result<Self> {
        let whole = *rest;
        let (Ok(flg), Ok(bd)) = (rest.try_get_u8(), rest.try_get_u8()) else {
            return Err(cut("a frame's header"));
        };
        if flg >> 6 != 1 || flg & 0b10 != 0 || bd & 0b1000_1111 != 0 {
            let what =
                format!("has a frame header of flags 0x{flg:02x} 0x{bd:02x}, which no version defines");
            return Err(malformed(Compression::Lz4, what));
        }
        let block = match bd >> 4 {
            4 => 64 * 1024,
            5 => 256 * 1024,
            6 => 1024 * 1024,
            7 => 4 * 1024 * 1024,
            other => {
                return Err(malformed(
                    Compression::Lz4,
                    format!("has block size code {other}; 4 to 7 are defined"),
                ));
            }
        };
        let has = |bit: u8| flg & (1 << bit) != 0;
        let content_size =
            if has(3) { Some(rest.try_get_u64_le().map_err(|_| cut("a frame's header"))?) } else { None };
        if has(0) {
            return Err(Error::new(ErrorKind::Unsupported, "lz4 data needs a preset dictionary"));
        }
        let described = whole.get(..whole.len() - rest.len()).unwrap_or_default();
        if rest.try_get_u8().map_err(|_| cut("a frame's header"))? != header_checksum(described) {
            return Err(malformed(Compression::Lz4, "has a frame header whose checksum does not match"));
        }
        Ok(Self { block, linked: !has(5), block_checksums: has(4), content_checksum: has(2), content_size })
    }
}

/// The second byte of the hash of everything between the magic number and itself.
fn header_checksum(described: &[u8]) -> u8 {
    (XxHash32::oneshot(0, described) >> 8) as u8
}

/// Reads a checksum and compares it with that of `bytes`.
fn check(rest: &mut &[u8], bytes: &[u8], of: &str) -> Result<()> {
    let expected = rest.try_get_u32_le().map_err(|_| cut("a checksum"))?;
    if XxHash32::oneshot(0, bytes) == expected {
        Ok(())
    } else {
        Err(malformed(Compression::Lz4, format!("is damaged: the checksum of {of} does not match")))
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize, of: &str) -> Result<&'a [u8]> {
    let (bytes, tail) = rest.split_at_checked(length).ok_or_else(|| cut(of))?;
    *rest = tail;
    Ok(bytes)
}

fn cut(within: &str) -> Error {
    malformed(Compression::Lz4, format!("is cut short in {within}"))
}
