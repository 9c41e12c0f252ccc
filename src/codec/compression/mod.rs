//! Compression of record batches: none, gzip, snappy (raw and xerial), lz4 frame, zstd.
//!
//! Each codec stands behind the cargo feature of its name (`gzip`, `snappy`, `lz4`, `zstd`). Without the feature the
//! codec still has its name and number, and both directions answer [`ErrorKind::Unsupported`] that names the feature.
//!
//! What is written is what the Java client writes; what is read is what the Java client, librdkafka and franz-go
//! write: concatenated members and frames, snappy with and without xerial framing, lz4 with linked blocks and any
//! block size, zstd windows up to 128 MiB.
//!
//! # Memory
//! [`decompress`] stops at its `limit`. Under the limit it allocates for what arrives, not for what a header claims:
//!
//! | codec | allocated before the output exists |
//! |---|---|
//! | none | nothing: the input is shared |
//! | gzip | twice what was produced so far, 64 KiB at least |
//! | snappy | 22 times the input: more than the format can produce is refused |
//! | lz4 | 255 times the block in hand, one block (4 MiB at most) |
//! | zstd | 128 KiB (a block) for every block that the frame really holds |
//!
//! A checksum inside the compressed form (gzip, zstd, lz4 where present) is checked as well, but the batch's CRC-32C
//! over the compressed bytes is what stands before all of this.

use std::fmt;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};

use crate::{Error, ErrorKind, Result};

#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(test)]
mod tests;

/// How the records of a batch are compressed: bits 0 to 2 of the batch's attributes (KIP-98, KIP-110 for zstd).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not compressed. The default.
    #[default]
    None,
    /// gzip (RFC 1952). Level 0 to 9, 6 by default.
    Gzip,
    /// snappy in xerial framing with blocks of 32 KiB, as the Java client writes it. No levels.
    Snappy,
    /// lz4 frame with independent blocks of 64 KiB, as the Java client writes it (KIP-57). One level: the fast one.
    Lz4,
    /// zstd (RFC 8878). Level -131072 to 22, 1 by default: faster than 3 in this encoder, and no larger on JSON.
    Zstd,
}

impl Compression {
    /// Every codec, in the order of its number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number that a batch's attributes carry.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec of that number.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`]: 5 to 255 name no codec.
    pub fn from_id(id: u8) -> Result<Self> {
        match id {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            _ => Err(Error::new(
                ErrorKind::Malformed,
                format!(
                    "compression codec {id} is unknown; known are 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd"
                ),
            )),
        }
    }

    /// The name that Kafka's `compression.type` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Whether this build has the codec.
    #[must_use]
    pub const fn is_available(self) -> bool {
        match self {
            Self::None => true,
            Self::Gzip => cfg!(feature = "gzip"),
            Self::Snappy => cfg!(feature = "snappy"),
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// Checks that this build has the codec and that the codec has the level; for use where settings are read, so
    /// that the first record is not the one to find out.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] that names the missing feature; [`ErrorKind::Config`] that names the range of levels.
    pub fn check(self, level: Option<i32>) -> Result<()> {
        if !self.is_available() {
            return Err(self.unsupported());
        }
        let range = match self {
            // These have one way of doing it: a level, as other clients take one, changes nothing.
            Self::None | Self::Snappy | Self::Lz4 => return Ok(()),
            Self::Gzip => 0..=9,
            Self::Zstd => -131_072..=22,
        };
        match level {
            Some(level) if !range.contains(&level) => Err(Error::new(
                ErrorKind::Config,
                format!("compression level {level} of {self}: expected {} to {}", range.start(), range.end()),
            )),
            _ => Ok(()),
        }
    }

    fn unsupported(self) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            format!("compression {self} is not in this build: enable the cargo feature `{self}`"),
        )
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Reads the name as `compression.type` has it, in lower case.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that lists the names.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                format!("compression {name:?} is unknown; expected none, gzip, snappy, lz4 or zstd"),
            )
        })
    }
}

/// Appends `input`, compressed, to `out`.
///
/// `level` is the codec's own; `None` takes its default. snappy and lz4 have none and ignore it. At worst `out` grows
/// by the input and a thousandth of it. Beside it the codec's own tables are allocated and freed again: for an input of
/// 1 MiB 0.4 MiB by gzip; by zstd 0.6 MiB at level 1, 2 MiB at level 3, 6 MiB at level 9 and 19 MiB at level 19.
///
/// # Errors
/// As [`Compression::check`]; `out` is then as it was.
pub fn compress(codec: Compression, level: Option<i32>, input: &[u8], out: &mut BytesMut) -> Result<()> {
    codec.check(level)?;
    match codec {
        Compression::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        #[cfg(feature = "gzip")]
        Compression::Gzip => gzip::compress(level, input, out),
        #[cfg(feature = "snappy")]
        Compression::Snappy => snappy::compress(input, out),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => lz4::compress(input, out),
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::compress(level, input, out),
        #[allow(unreachable_patterns, reason = "reachable where a codec's feature is off")]
        _ => Err(codec.unsupported()),
    }
}

/// The whole of what `input` holds, at most `limit` bytes of it.
///
/// Without compression the answer shares `input`'s memory. See the module's page for what is allocated on the way.
///
/// # Errors
/// [`ErrorKind::TooLarge`] that names the limit; [`ErrorKind::Malformed`] for bytes that are not of the codec, are cut
/// short or have something behind them; [`ErrorKind::Unsupported`] for a codec whose feature is off, and for what this
/// crate does not read: a preset dictionary, or a zstd window above 128 MiB.
pub fn decompress(codec: Compression, input: &Bytes, limit: usize) -> Result<Bytes> {
    match codec {
        Compression::None if input.len() <= limit => Ok(input.clone()),
        Compression::None => Err(too_large(codec, limit)),
        #[cfg(feature = "gzip")]
        Compression::Gzip => gzip::decompress(input, limit).map(finish),
        #[cfg(feature = "snappy")]
        Compression::Snappy => snappy::decompress(input, limit).map(finish),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => lz4::decompress(input, limit).map(finish),
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::decompress(input, limit).map(finish),
        #[allow(unreachable_patterns, reason = "reachable where a codec's feature is off")]
        _ => Err(codec.unsupported()),
    }
}

/// Gives back what was allocated ahead, where it is much: records keep the buffer alive for long.
#[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
fn finish(mut out: Vec<u8>) -> Bytes {
    if out.capacity() - out.len() > out.len() / 4 {
        out.shrink_to_fit();
    }
    Bytes::from(out)
}

fn too_large(codec: Compression, limit: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("{codec} data holds more than the limit of {limit} bytes once decompressed"),
    )
}

#[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
fn malformed(codec: Compression, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Malformed, format!("{codec} data {what}"))
}
