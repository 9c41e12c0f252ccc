//! Reading: a batch as a view over the bytes that were fetched, and its records as slices of them.
//!
//! [`BatchView::parse`] checks length and CRC-32C in one pass and reads the header. [`BatchView::records`] gives the
//! records' bytes: the same buffer, or one new one where they are compressed. Iterating over them checks each record
//! as a whole before it is handed out, allocates nothing and copies nothing. Nothing here is sized by a number out of
//! the bytes: a record count, a length or a delta is believed only as far as the bytes go.

use bytes::Bytes;

use super::layout::{self, Header};
use super::list::frame;
use super::record::Record;
use crate::codec::compression::{Compression, decompress};
use crate::{Error, ErrorKind, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Result, Sequence, Timestamp};

/// One record batch whose length and checksum are right: header fields, and the records behind them.
///
/// Shares the memory it was parsed from: a view keeps the whole fetched buffer alive.
#[derive(Debug, Clone)]
pub struct BatchView {
    bytes: Bytes,
    base_offset: i64,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    leader_epoch: i32,
    last_offset_delta: i32,
    base_sequence: i32,
    record_count: u32,
    producer_epoch: i16,
    attributes: u16,
    compression: Compression,
}

impl BatchView {
    /// Checks the one batch that `bytes` holds, no more and no less, and reads its header. The records themselves are
    /// checked when they are read.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] names the format of a batch from before Kafka 0.11 (magic 0 and 1) or of one that
    /// is newer than this crate; [`ErrorKind::Corrupt`] when the checksum does not match; [`ErrorKind::Malformed`]
    /// names the field that cannot be.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let whole = match frame(&bytes)? {
            Some(len) => len,
            None => {
                return Err(Error::new(
                    ErrorKind::Malformed,
                    format!("record batch is cut short after {} bytes", bytes.len()),
                ));
            }
        };
        if whole < bytes.len() {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!("record batch of {whole} bytes has {} more behind it", bytes.len() - whole),
            ));
        }
        Self::parse_framed(bytes)
    }

    /// What [`frame`] has measured.
    pub(super) fn parse_framed(bytes: Bytes) -> Result<Self> {
        let Some(header) = bytes.first_chunk::<{ layout::HEADER_LEN }>() else {
            return Err(Error::new(ErrorKind::Internal, "record batch is shorter than its header"));
        };
        let base_offset = i64::from_be_bytes(layout::get::<{ layout::BASE_OFFSET }, 8>(header));
        let stored = u32::from_be_bytes(layout::get::<{ layout::CRC }, 4>(header));
        let computed = layout::crc32c(bytes.get(layout::ATTRIBUTES..).unwrap_or_default());
        if stored != computed {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "record batch at offset {base_offset}: its CRC-32C is {computed:#010x}, its header says {stored:#010x}"
                ),
            ));
        }
        Self::read_header(header).map(|fields| Self { bytes: bytes.clone(), ..fields }).map_err(|field| {
            let context = format!("record batch at offset {base_offset}");
            match field {
                HeaderError::Field(name, value) => {
                    Error::new(ErrorKind::Malformed, format!("{context}: {name} is {value}"))
                }
                HeaderError::Codec(error) => error.context(context),
            }
        })
    }

    fn read_header(header: &Header) -> Result<Self, HeaderError> {
        macro_rules! field {
            ($int:ty, $at:ident) => {
                <$int>::from_be_bytes(layout::get::<{ layout::$at }, { size_of::<$int>() }>(header))
            };
        }
        let attributes = field!(u16, ATTRIBUTES);
        let fields = Self {
            bytes: Bytes::new(),
            base_offset: field!(i64, BASE_OFFSET),
            base_timestamp: field!(i64, BASE_TIMESTAMP),
            max_timestamp: field!(i64, MAX_TIMESTAMP),
            producer_id: field!(i64, PRODUCER_ID),
            leader_epoch: field!(i32, LEADER_EPOCH),
            last_offset_delta: field!(i32, LAST_OFFSET_DELTA),
            base_sequence: field!(i32, BASE_SEQUENCE),
            record_count: field!(u32, RECORD_COUNT),
            producer_epoch: field!(i16, PRODUCER_EPOCH),
            attributes,
            compression: Compression::from_id((attributes & layout::CODEC_MASK) as u8)
                .map_err(HeaderError::Codec)?,
        };
        if fields.base_offset < 0 {
            return Err(HeaderError::Field("base offset", fields.base_offset));
        }
        if fields.last_offset_delta < 0
            // The offset after the last one must exist too: it is where a consumer goes on.
            || fields.base_offset.checked_add(i64::from(fields.last_offset_delta) + 1).is_none()
        {
            return Err(HeaderError::Field("last offset delta", fields.last_offset_delta.into()));
        }
        if fields.record_count > i32::MAX as u32 {
            return Err(HeaderError::Field("record count", i64::from(fields.record_count as i32)));
        }
        Ok(fields)
    }

    /// The offset of the batch's first record when it was written. Compaction may have removed that record.
    #[must_use]
    pub const fn base_offset(&self) -> Offset {
        Offset(self.base_offset)
    }

    /// The offset of the batch's last record when it was written. Compaction may have removed that record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        Offset(self.base_offset + self.last_offset_delta as i64)
    }

    /// Where the next batch begins at the earliest: what to fetch after this one, whatever records it still has.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// The leader's epoch when the batch was appended; `-1` where it is not known.
    #[must_use]
    pub const fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch)
    }

    /// Who wrote the batch, where an idempotent or transactional producer did; `-1` else.
    #[must_use]
    pub const fn producer_id(&self) -> ProducerId {
        ProducerId(self.producer_id)
    }

    /// The epoch of [`Self::producer_id`]; `-1` for none.
    #[must_use]
    pub const fn producer_epoch(&self) -> ProducerEpoch {
        ProducerEpoch(self.producer_epoch)
    }

    /// The producer's sequence number of the first record; `-1` for none.
    #[must_use]
    pub const fn base_sequence(&self) -> Sequence {
        Sequence(self.base_sequence)
    }

    /// How the records are compressed.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        self.compression
    }

    /// How many records the header claims. [`Self::records`] checks it against the bytes.
    #[must_use]
    pub const fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Whether the batch belongs to a transaction (KIP-98).
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & layout::TRANSACTIONAL != 0
    }

    /// Whether the batch holds a marker of the brokers, as the end of a transaction, and no application's record. See
    /// [`Record::control_marker`].
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & layout::CONTROL != 0
    }

    /// The broker's time for every record, where the topic has `message.timestamp.type=LogAppendTime` (KIP-32);
    /// `None` where each record has the time its producer gave it.
    #[must_use]
    pub const fn append_time(&self) -> Option<Timestamp> {
        if self.attributes & layout::APPEND_TIME != 0 { Some(Timestamp(self.max_timestamp)) } else { None }
    }

    /// From when on compaction may remove the batch's tombstones, where it has been set (KIP-534).
    #[must_use]
    pub const fn delete_horizon(&self) -> Option<Timestamp> {
        if self.attributes & layout::DELETE_HORIZON != 0 {
            Some(Timestamp(self.base_timestamp))
        } else {
            None
        }
    }

    /// The largest timestamp among the records when the batch was written.
    #[must_use]
    pub const fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.max_timestamp)
    }

    /// The batch as it was fetched.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records, decompressed if they are compressed, to at most `limit` bytes.
    ///
    /// Without compression the memory is shared with the batch and `limit` is not looked at: the bytes are here
    /// already. With compression at most `limit` bytes and the codec's own tables are allocated.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] names the limit; [`ErrorKind::Unsupported`] names the feature of a codec that is not
    /// compiled in; [`ErrorKind::Malformed`] when the codec cannot read its data, or when it cannot hold as many
    /// records as the header claims.
    pub fn records(&self, limit: usize) -> Result<Records> {
        let stored = self.bytes.slice(layout::HEADER_LEN.min(self.bytes.len())..);
        // Compaction leaves a batch without records for its producer's sequence: no codec reads nothing.
        let empty = self.record_count == 0 && stored.is_empty();
        let payload = if self.compression == Compression::None || empty {
            stored
        } else {
            decompress(self.compression, &stored, limit)
                .map_err(|e| e.context(format!("record batch at offset {}", self.base_offset)))?
        };
        if self.record_count as u64 * layout::MIN_RECORD_LEN as u64 > payload.len() as u64 {
            return Err(Error::new(
                ErrorKind::Malformed,
                format!(
                    "record batch at offset {}: {} records cannot stand in {} bytes",
                    self.base_offset,
                    self.record_count,
                    payload.len()
                ),
            ));
        }
        Ok(Records {
            base: Base {
                offset: self.base_offset,
                last_offset_delta: self.last_offset_delta,
                timestamp: self.append_time().map_or(self.base_timestamp, Timestamp::get),
                timestamp_mask: if self.append_time().is_some() { 0 } else { -1 },
            },
            count: self.record_count,
            payload,
        })
    }
}

enum HeaderError {
    Field(&'static str, i64),
    Codec(Error),
}

/// What a record's deltas are added to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    pub(super) offset: i64,
    pub(super) last_offset_delta: i32,
    pub(super) timestamp: i64,
    /// What of a record's timestamp delta counts: all of it, or nothing where the broker's append time stands for all.
    pub(super) timestamp_mask: i64,
}

/// The records of one batch: what [`BatchView::records`] gives. Holds their bytes; iterate over `&records`.
#[derive(Debug, Clone)]
pub struct Records {
    payload: Bytes,
    base: Base,
    count: u32,
}

impl Records {
    /// How many records the batch says it holds; they can stand in the bytes, but are checked only as they are read.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether the batch has no record, as compaction leaves it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The offset from which those of the records count: that of the first, unless compaction has removed it.
    #[must_use]
    pub const fn base_offset(&self) -> Offset {
        Offset(self.base.offset)
    }

    /// The bytes of all records, not compressed.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.payload
    }

    /// The records in order. See [`Iter`].
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { payload: &self.payload, rest: &self.payload, state: State::start(self) }
    }

    /// The same, in a form that owns the bytes and can be kept between two records.
    #[must_use]
    pub fn into_cursor(self) -> Cursor {
        Cursor { state: State::start(&self), at: 0, records: self }
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<Record<'a>>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// How far a reader has come.
#[derive(Debug, Clone)]
struct State {
    base: Base,
    count: u32,
    /// Records still to come; after an error none.
    remaining: u32,
    /// Offsets rise, so the next delta must be more than this; `-1` before the first.
    last_delta: i32,
    ended: bool,
}

impl State {
    fn start(records: &Records) -> Self {
        Self {
            base: records.base,
            count: records.count,
            remaining: records.count,
            last_delta: -1,
            ended: false,
        }
    }

    #[inline(always)]
    fn next<'a>(&mut self, payload: &'a Bytes, rest: &mut &'a [u8]) -> Option<Result<Record<'a>>> {
        if self.remaining == 0 {
            if self.ended || rest.is_empty() {
                return None;
            }
            self.ended = true;
            return Some(Err(left_over(self.base.offset, self.count, rest.len())));
        }
        self.remaining -= 1;
        match Record::take(payload, rest, &self.base, &mut self.last_delta) {
            Ok(record) => Some(Ok(record)),
            Err(error) => {
                let index = self.count - self.remaining - 1;
                self.remaining = 0;
                self.ended = true;
                Some(Err(error.at(self.base.offset, index)))
            }
        }
    }
}

// The cold paths take values: a reference to the state would keep all of it in memory, out of registers.
#[cold]
#[inline(never)]
fn left_over(base_offset: i64, count: u32, bytes: usize) -> Error {
    Error::new(
        ErrorKind::Malformed,
        format!(
            "record batch at offset {base_offset}: {bytes} bytes are left after the last of its {count} records"
        ),
    )
}

/// The records of a batch, in order.
///
/// Each item is one whole record, checked: its lengths fit, its headers are all there, its offset is above the one
/// before and within the batch. The first error ends the iteration. Bytes behind the last record are an error as well,
/// given after it. Allocates nothing, except for an error.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    payload: &'a Bytes,
    rest: &'a [u8],
    state: State,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<Record<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.state.next(self.payload, &mut self.rest)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let remaining = self.state.remaining as usize;
        // An error may come first, or in place of the end.
        (remaining.min(1), remaining.checked_add(1))
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

/// [`Iter`] over records of its own: for a consumer that hands out one record at a time.
#[derive(Debug, Clone)]
pub struct Cursor {
    records: Records,
    at: usize,
    state: State,
}

impl Cursor {
    /// The next record, as [`Iter`] gives it.
    #[expect(
        clippy::should_implement_trait,
        reason = "the record borrows the cursor: no Iterator can say so"
    )]
    #[inline]
    pub fn next(&mut self) -> Option<Result<Record<'_>>> {
        let payload = &self.records.payload;
        let mut rest = payload.get(self.at..).unwrap_or_default();
        let item = self.state.next(payload, &mut rest);
        self.at = payload.len() - rest.len();
        item
    }

    /// The records that are read, from the first on.
    #[must_use]
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// How many records are still to come, if none is damaged.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.state.remaining as usize
    }
}
