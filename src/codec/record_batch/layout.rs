//! Where the fields of a record batch stand (KIP-98; `DefaultRecordBatch` of the Java client).
//!
//! ```text
//!  0 base offset       i64   not covered by the CRC: the broker sets it
//!  8 batch length      i32   of all that follows
//! 12 leader epoch      i32   not covered by the CRC: the broker sets it
//! 16 magic             i8    2
//! 17 crc               u32   CRC-32C of all that follows
//! 21 attributes        i16   bits 0-2 codec, 3 append time, 4 transactional, 5 control, 6 delete horizon
//! 23 last offset delta i32
//! 27 base timestamp    i64   of the first record; the delete horizon where bit 6 is set (KIP-534)
//! 35 max timestamp     i64   the append time where bit 3 is set (KIP-32)
//! 43 producer id       i64
//! 51 producer epoch    i16
//! 53 base sequence     i32
//! 57 record count      i32
//! 61 records, compressed together where the codec says so
//! ```

/// Bytes before the records.
pub(crate) const HEADER_LEN: usize = 61;
/// Bytes up to and including the batch length, which does not count them.
pub(crate) const LENGTH_END: usize = 12;
/// The smallest batch length: a header without records.
pub(crate) const MIN_LENGTH: usize = HEADER_LEN - LENGTH_END;
/// The smallest record: seven numbers of one byte.
pub(crate) const MIN_RECORD_LEN: usize = 7;
/// The format this module reads and writes.
pub(crate) const MAGIC: u8 = 2;

pub(crate) const BASE_OFFSET: usize = 0;
pub(crate) const LENGTH: usize = 8;
pub(crate) const LEADER_EPOCH: usize = 12;
pub(crate) const MAGIC_AT: usize = 16;
pub(crate) const CRC: usize = 17;
pub(crate) const ATTRIBUTES: usize = 21;
pub(crate) const LAST_OFFSET_DELTA: usize = 23;
pub(crate) const BASE_TIMESTAMP: usize = 27;
pub(crate) const MAX_TIMESTAMP: usize = 35;
pub(crate) const PRODUCER_ID: usize = 43;
pub(crate) const PRODUCER_EPOCH: usize = 51;
pub(crate) const BASE_SEQUENCE: usize = 53;
pub(crate) const RECORD_COUNT: usize = 57;

pub(crate) const CODEC_MASK: u16 = 0b111;
pub(crate) const APPEND_TIME: u16 = 1 << 3;
pub(crate) const TRANSACTIONAL: u16 = 1 << 4;
pub(crate) const CONTROL: u16 = 1 << 5;
pub(crate) const DELETE_HORIZON: u16 = 1 << 6;

/// A batch's header as bytes. Its length is in its type, so that a field's place is checked when it compiles.
pub(crate) type Header = [u8; HEADER_LEN];

/// The `N` bytes at `AT`.
#[inline(always)]
pub(crate) fn get<const AT: usize, const N: usize>(header: &Header) -> [u8; N] {
    const { assert!(AT + N <= HEADER_LEN) };
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[AT..AT + N]);
    bytes
}

/// Sets the `N` bytes at `AT`.
#[inline(always)]
pub(crate) fn set<const AT: usize, const N: usize>(header: &mut Header, bytes: [u8; N]) {
    const { assert!(AT + N <= HEADER_LEN) };
    header[AT..AT + N].copy_from_slice(&bytes);
}

/// CRC-32C (Castagnoli, RFC 3720), as the batch carries it.
#[inline]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The same of bytes that come in pieces.
pub(crate) struct Crc32c(crc_fast::Digest);

impl Crc32c {
    pub(crate) fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.finalize() as u32
    }
}
