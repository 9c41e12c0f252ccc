//! A record batch as it is stored: a header of its own, and the records as they came.
//!
//! Offset and leader epoch are the broker's to set and stand in the header, before what the checksum covers. So the
//! header is kept apart (61 bytes) and the records stay slices of the request in which they arrived.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::record_batch::{BatchView, Records, layout};
use crate::{ErrorKind, Offset, Result};

/// The most that a batch's records are decompressed to, where the broker itself has to read them.
pub(crate) const READ_LIMIT: usize = 64 * 1024 * 1024;

/// What each batch costs beside its bytes, for the memory limit.
pub(crate) const OVERHEAD: u64 = 128;

/// A stored batch.
#[derive(Debug, Clone)]
pub(crate) struct StoredBatch {
    header: layout::Header,
    records: Bytes,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
    /// The bytes of all batches that were stored before this one.
    pub(crate) position: u64,
    /// The largest timestamp of this batch and of those before it in the log.
    pub(crate) running_max: i64,
}

macro_rules! field {
    ($int:ty, $at:ident, $self:expr) => {
        <$int>::from_be_bytes(layout::get::<{ layout::$at }, { size_of::<$int>() }>(&$self.header))
    };
}

impl StoredBatch {
    /// The batch that `view` shows, which must start at `base_offset` and be of this epoch.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] where it is shorter than a header.
    pub(crate) fn new(view: &BatchView, base_offset: i64, leader_epoch: i32) -> Result<Self> {
        let bytes = view.as_bytes();
        let header = *bytes.first_chunk::<{ layout::HEADER_LEN }>().ok_or_else(|| {
            crate::Error::new(ErrorKind::Malformed, "record batch is shorter than its header")
        })?;
        let mut batch = Self {
            header,
            records: bytes.slice(layout::HEADER_LEN..),
            base_offset,
            last_offset: 0,
            max_timestamp: view.max_timestamp().0,
            position: 0,
            running_max: 0,
        };
        layout::set::<{ layout::LEADER_EPOCH }, 4>(&mut batch.header, leader_epoch.to_be_bytes());
        batch.place(base_offset);
        Ok(batch)
    }

    /// Sets where it starts.
    fn place(&mut self, base_offset: i64) {
        layout::set::<{ layout::BASE_OFFSET }, 8>(&mut self.header, base_offset.to_be_bytes());
        self.base_offset = base_offset;
        self.last_offset = base_offset.saturating_add(i64::from(field!(i32, LAST_OFFSET_DELTA, self)));
    }

    /// Writes the broker's time over the producer's (KIP-32).
    pub(crate) fn set_append_time(&mut self, at: i64) {
        let attributes = self.attributes() | layout::APPEND_TIME;
        layout::set::<{ layout::ATTRIBUTES }, 2>(&mut self.header, attributes.to_be_bytes());
        layout::set::<{ layout::MAX_TIMESTAMP }, 8>(&mut self.header, at.to_be_bytes());
        self.max_timestamp = at;
        self.seal();
    }

    /// The batch without its records, as compaction leaves it: its offsets and its sequence stay. `None` where it has
    /// more records than a sequence can say.
    pub(crate) fn emptied(&self) -> Option<Self> {
        let mut empty = self.clone();
        empty.records = Bytes::new();
        let attributes = self.attributes() & !layout::CODEC_MASK & !layout::DELETE_HORIZON;
        layout::set::<{ layout::ATTRIBUTES }, 2>(&mut empty.header, attributes.to_be_bytes());
        layout::set::<{ layout::RECORD_COUNT }, 4>(&mut empty.header, 0_u32.to_be_bytes());
        let length = u32::try_from(layout::MIN_LENGTH).ok()?;
        layout::set::<{ layout::LENGTH }, 4>(&mut empty.header, length.to_be_bytes());
        empty.seal();
        Some(empty)
    }

    fn seal(&mut self) {
        let bytes = self.to_bytes();
        let crc = layout::crc32c(bytes.get(layout::ATTRIBUTES..).unwrap_or_default());
        layout::set::<{ layout::CRC }, 4>(&mut self.header, crc.to_be_bytes());
    }

    fn attributes(&self) -> u16 {
        field!(u16, ATTRIBUTES, self)
    }

    /// Bytes on the wire.
    pub(crate) fn size(&self) -> u64 {
        (layout::HEADER_LEN + self.records.len()) as u64
    }

    pub(crate) fn leader_epoch(&self) -> i32 {
        field!(i32, LEADER_EPOCH, self)
    }

    pub(crate) fn producer_id(&self) -> i64 {
        field!(i64, PRODUCER_ID, self)
    }

    pub(crate) fn producer_epoch(&self) -> i16 {
        field!(i16, PRODUCER_EPOCH, self)
    }

    pub(crate) fn base_sequence(&self) -> i32 {
        field!(i32, BASE_SEQUENCE, self)
    }

    pub(crate) fn record_count(&self) -> i32 {
        field!(i32, RECORD_COUNT, self)
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes() & layout::CONTROL != 0
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes() & layout::TRANSACTIONAL != 0
    }

    /// What each fetch sends: the header is copied, the records are shared. Records too small to be worth a slice of
    /// their own are copied as well.
    pub(crate) fn write(&self, head: &mut BytesMut, out: &mut Vec<Bytes>) {
        const SMALL: usize = 512;
        head.put_slice(&self.header);
        if self.records.len() <= SMALL {
            head.put_slice(&self.records);
        } else {
            out.push(head.split().freeze());
            out.push(self.records.clone());
        }
    }

    /// A copy of the whole batch.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(layout::HEADER_LEN + self.records.len());
        bytes.put_slice(&self.header);
        bytes.put_slice(&self.records);
        bytes.freeze()
    }

    /// The batch as the codec reads it, and its records.
    ///
    /// # Errors
    /// What the codec says; the broker does not read what a producer compressed before it has to.
    pub(crate) fn read(&self) -> Result<(BatchView, Records)> {
        let view = BatchView::parse(self.to_bytes())?;
        let records = view.records(READ_LIMIT)?;
        Ok((view, records))
    }

    /// The first record that is not older than `timestamp`, at `from` or after it: its offset and its time.
    pub(crate) fn find_time(&self, timestamp: i64, from: i64) -> Option<(i64, i64)> {
        match self.read() {
            Ok((_, records)) => records
                .iter()
                .map_while(Result::ok)
                .find(|record| record.timestamp().0 >= timestamp && record.offset().0 >= from)
                .map(|record| (record.offset().0, record.timestamp().0)),
            // What cannot be read is found as a whole.
            Err(_) => Some((self.base_offset.max(from), self.max_timestamp)),
        }
    }

    /// Where the next batch may start.
    pub(crate) fn next_offset(&self) -> i64 {
        Offset(self.last_offset).next().0
    }
}
