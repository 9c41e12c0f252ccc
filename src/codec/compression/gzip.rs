//! gzip (RFC 1952) by flate2 over zlib-rs.

use std::io::{Read, Write};

use bytes::{BufMut, BytesMut};
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{Compression, malformed, too_large};
use crate::{Error, ErrorKind, Result};

const SMALLEST_STEP: usize = 64 * 1024;

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut BytesMut) -> Result<()> {
    let level = match level {
        Some(level) => flate2::Compression::new(level.unsigned_abs()),
        None => flate2::Compression::default(),
    };
    let start = out.len();
    let mut encoder = GzEncoder::new((&mut *out).writer(), level);
    let written = encoder.write_all(input).and_then(|()| encoder.try_finish());
    drop(encoder);
    written.map_err(|e| {
        out.truncate(start);
        Error::new(ErrorKind::Internal, "gzip compression failed").with_source(e)
    })
}

/// All members, one after the other, as `gzip -d` and Java's `GZIPInputStream` read them.
pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>> {
    let codec = Compression::Gzip;
    if input.is_empty() {
        return Err(malformed(codec, "is empty"));
    }
    let mut decoder = MultiGzDecoder::new(input);
    let mut out = Vec::new();
    let mut filled = 0;
    loop {
        if filled == out.len() {
            if filled == limit {
                // Full: one byte more tells whether it ends here.
                return match decoder.read(&mut [0]).map_err(damaged)? {
                    0 => Ok(out),
                    _ => Err(too_large(codec, limit)),
                };
            }
            out.resize(filled.saturating_add(filled.max(SMALLEST_STEP)).min(limit), 0);
        }
        let Some(room) = out.get_mut(filled..) else { break };
        match decoder.read(room).map_err(damaged)? {
            0 => break,
            n => filled += n,
        }
    }
    out.truncate(filled);
    Ok(out)
}

fn damaged(e: std::io::Error) -> Error {
    let what = match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "is cut short",
        _ => "is damaged",
    };
    malformed(Compression::Gzip, what).with_source(e)
}
