//! zstd (RFC 8878) by structured-zstd.
//!
//! Frames are walked by their block headers first: that finds where each ends and how much it can hold at most, so
//! that the claim in a header is believed only as far as the blocks bear it out.

use bytes::BytesMut;
use structured_zstd::decoding::errors::FrameDecoderError;
use structured_zstd::decoding::{ContentChecksum, FrameContentSize, FrameDecoder, read_frame_header_info};
use structured_zstd::encoding::{CompressionLevel, compress_slice_to_vec};

use super::{Compression, malformed, too_large};
use crate::{Error, ErrorKind, Result};

const MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE: u32 = 0x184D_2A50;
/// The most that one block holds (RFC 8878, 3.1.1.2.4).
const BLOCK: usize = 128 * 1024;
/// What the reference decoder takes by default; the highest levels write it. It bounds what is accepted, not what is
/// allocated: frames decode straight into the output.
const LARGEST_WINDOW: u64 = 128 * 1024 * 1024;
/// The first guess at the size of a frame that does not tell it, as a multiple of the frame.
const USUAL_RATIO: usize = 16;

/// The codec's level unless another is asked for. Other clients take 3; this encoder is twice as fast at 1 and packs JSON
/// tighter there.
const DEFAULT_LEVEL: i32 = 1;

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut BytesMut) -> Result<()> {
    let level = CompressionLevel::from_level(level.unwrap_or(DEFAULT_LEVEL));
    // Not `FrameCompressor`, whose generic code would be compiled here, without optimisation in a debug build.
    out.extend_from_slice(&compress_slice_to_vec(input, level));
    Ok(())
}

/// All frames, one after the other; skippable ones are skipped.
pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>> {
    if input.is_empty() {
        return Err(malformed(Compression::Zstd, "is empty"));
    }
    let mut out = Vec::new();
    let mut decoder = FrameDecoder::new();
    decoder.set_content_checksum(ContentChecksum::Verify);
    decoder.set_max_window_size(LARGEST_WINDOW).map_err(damaged)?;
    let mut rest = input;
    while let Some((magic, tail)) = rest.split_first_chunk() {
        match u32::from_le_bytes(*magic) {
            MAGIC => {
                let frame = Frame::measure(rest)?;
                let (bytes, tail) = rest.split_at_checked(frame.length).ok_or_else(|| cut("a frame"))?;
                decode(&mut decoder, bytes, &frame, limit, &mut out)?;
                rest = tail;
            }
            magic if magic & !0xF == SKIPPABLE => {
                let (length, tail) = tail.split_first_chunk().ok_or_else(|| cut("a skippable frame"))?;
                let length = u32::from_le_bytes(*length) as usize;
                (_, rest) = tail.split_at_checked(length).ok_or_else(|| cut("a skippable frame"))?;
            }
            magic => {
                let what = format!("begins a frame with 0x{magic:08x}; expected 0x{MAGIC:08x}");
                return Err(malformed(Compression::Zstd, what));
            }
        }
    }
    if rest.is_empty() { Ok(out) } else { Err(cut("a frame's magic number")) }
}

/// Appends one frame to `out`, which may hold `limit` bytes in all.
fn decode(
    decoder: &mut FrameDecoder,
    bytes: &[u8],
    frame: &Frame,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let start = out.len();
    let room = limit.saturating_sub(start);
    let mut guess = match frame.content {
        Some(size) if size > room => return Err(too_large(Compression::Zstd, limit)),
        Some(size) => size,
        // Not told, as in all that the Java client writes: begin with the usual and begin again with more.
        None => frame.at_most.min(room).min(bytes.len().saturating_mul(USUAL_RATIO).max(BLOCK)),
    };
    loop {
        if start == 0 {
            // Zeroed memory from the system is not touched until it is written.
            *out = vec![0; guess];
        } else {
            out.resize(start + guess, 0);
        }
        let target = out.get_mut(start..).unwrap_or_default();
        match decoder.decode_all(bytes, target) {
            Ok(n) => {
                out.truncate(start + n);
                return Ok(());
            }
            Err(FrameDecoderError::TargetTooSmall)
                if frame.content.is_none() && guess < frame.at_most.min(room) =>
            {
                guess = guess.saturating_mul(4).min(frame.at_most).min(room);
            }
            Err(FrameDecoderError::TargetTooSmall) if guess == room => {
                return Err(too_large(Compression::Zstd, limit));
            }
            Err(e) => return Err(damaged(e)),
        }
    }
}

/// What a walk over a frame's block headers tells.
struct Frame {
    /// Bytes from its magic number to its last.
    length: usize,
    /// What its header claims to hold; not more than `at_most`.
    content: Option<usize>,
    /// What its blocks can hold.
    at_most: usize,
}

impl Frame {
    fn measure(input: &[u8]) -> Result<Self> {
        let header = read_frame_header_info(input, false)
            .map_err(|e| malformed(Compression::Zstd, "has a damaged frame header").with_source(e))?;
        if header.window_size > LARGEST_WINDOW {
            let what = format!(
                "zstd data needs a window of {} bytes; read are up to {LARGEST_WINDOW}",
                header.window_size
            );
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        if header.dictionary_id.is_some_and(|id| id != 0) {
            return Err(Error::new(ErrorKind::Unsupported, "zstd data needs a preset dictionary"));
        }
        let mut at = header.header_size;
        let mut at_most = 0_usize;
        loop {
            let Some(&[a, b, c]) = input.get(at..).and_then(|rest| rest.first_chunk()) else {
                return Err(cut("a block's header"));
            };
            let word = u32::from_le_bytes([a, b, c, 0]);
            let size = (word >> 3) as usize;
            let (stored, holds) = match (word >> 1) & 3 {
                0 => (size, size),
                1 => (1, size),
                2 => (size, BLOCK),
                _ => return Err(malformed(Compression::Zstd, "has a block of a type that is not defined")),
            };
            if size > BLOCK {
                let what = format!("has a block of {size} bytes; a block has up to {BLOCK}");
                return Err(malformed(Compression::Zstd, what));
            }
            at = at.saturating_add(3).saturating_add(stored);
            at_most = at_most.saturating_add(holds);
            if word & 1 == 1 {
                break;
            }
        }
        let length = at.saturating_add(if header.content_checksum { 4 } else { 0 });
        if length > input.len() {
            return Err(cut("a frame"));
        }
        let content = match header.content_size {
            FrameContentSize::Unknown => None,
            FrameContentSize::Known(claim) => match usize::try_from(claim) {
                Ok(claim) if claim <= at_most => Some(claim),
                _ => {
                    let what =
                        format!("is damaged: a frame whose blocks hold up to {at_most} claims {claim}");
                    return Err(malformed(Compression::Zstd, what));
                }
            },
        };
        Ok(Self { length, content, at_most })
    }
}

fn damaged(e: FrameDecoderError) -> Error {
    malformed(Compression::Zstd, "is damaged").with_source(e)
}

fn cut(within: &str) -> Error {
    malformed(Compression::Zstd, format!("is cut short in {within}"))
}
