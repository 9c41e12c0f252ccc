//! Writing: records go straight into the wire form of their batch.
//!
//! ```text
//!            push                  push (it fits)
//!   empty ──────────▶ collecting ◀───────────────┐
//!     ▲                   │   └──────────────────┘
//!     └───────────────────┘
//!       finish -> Bytes, or clear
//! ```
//!
//! The header is left open until [`BatchBuilder::finish`], so whoever sends the batch may say as late as that which
//! producer and which sequence it is. [`restamp`] says it anew for a batch that is finished.

use bytes::{Bytes, BytesMut};

use super::control::ControlMarker;
use super::layout::{self, Header};
use super::pieces::Pieces;
use super::view::BatchView;
use super::writer::{Delta, Out, Plan, SLACK, bytes_of, length};
use crate::codec::compression::{Compression, compress};
use crate::codec::varint;
use crate::{Error, ErrorKind, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Result, Sequence, Timestamp};

/// The most bytes that a batch can have: its length is an `i32` that does not count the first 12.
const MAX_WIRE_LEN: usize = i32::MAX as usize;
/// How many bytes are made ready at once: few enough to be still in the nearest cache when they are written.
const GROWTH: usize = 4096;

/// What a batch is to be. The defaults are an application's: no compression, no producer id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchOptions {
    /// How the records are compressed. Default: not.
    pub compression: Compression,
    /// The codec's level. Default: the codec's own.
    pub level: Option<i32>,
    /// The most bytes of a batch, header included, before compression. Default 1,048,576; 2,147,483,647 at most.
    ///
    /// A builder holds at most twice as much of its own (a buffer that grows by doubling), and with compression as
    /// much again while it finishes.
    pub max_bytes: usize,
    /// The bytes that the first record of a batch makes room for, so that the buffer need not grow by doubling.
    /// Default 0: as much as the batch before took. `max_bytes` at most.
    pub initial_capacity: usize,
    /// The offset of the first record. Default 0: a broker sets its own.
    pub base_offset: Offset,
    /// The leader's epoch. Default -1: a broker sets its own.
    pub leader_epoch: LeaderEpoch,
    /// Who writes (KIP-98). Default: nobody.
    pub producer_id: ProducerId,
    /// The writer's epoch. Default: none.
    pub producer_epoch: ProducerEpoch,
    /// The sequence number of the first record. Default: none.
    pub base_sequence: Sequence,
    /// Whether the batch belongs to a transaction. Default: no.
    pub transactional: bool,
    /// Whether the batch holds control markers. Default: no. Brokers write these.
    pub control: bool,
    /// One time for all records, as a broker sets it on append (KIP-32). Default: each record has its own.
    pub append_time: Option<Timestamp>,
    /// From when on tombstones may be removed, as a broker's compaction sets it (KIP-534). Default: not set.
    pub delete_horizon: Option<Timestamp>,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            level: None,
            max_bytes: 1 << 20,
            initial_capacity: 0,
            base_offset: Offset(0),
            leader_epoch: LeaderEpoch::UNKNOWN,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: Sequence::NONE,
            transactional: false,
            control: false,
            append_time: None,
            delete_horizon: None,
        }
    }
}

/// Collects records into one batch at a time.
///
/// The buffer is used again as soon as the batches that were handed out are dropped, or given back by
/// [`recycle`](Self::recycle), which is cheaper; until then a new one is taken.
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// A header's room and the records, and behind [`Self::end`] bytes that are not used yet: records are written
    /// into bytes that are there, by slices that stay in registers, not appended one part at a time.
    buf: BytesMut,
    /// Where the records in `buf` end; 0 when there are none.
    end: usize,
    /// Values that stand elsewhere, each with where in `buf` it belongs, and the sum of their bytes.
    shared: Vec<(usize, Bytes)>,
    shared_len: usize,
    /// Where a compressed batch is put together.
    packed: BytesMut,
    records: u32,
    /// The offset delta of the next record.
    next_delta: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    /// What the batch before took.
    last_size: usize,
}

impl BatchBuilder {
    /// An empty builder. Takes no memory before the first record.
    #[must_use]
    pub fn new(mut options: BatchOptions) -> Self {
        options.max_bytes = options.max_bytes.min(MAX_WIRE_LEN);
        Self {
            options,
            buf: BytesMut::new(),
            end: 0,
            shared: Vec::new(),
            shared_len: 0,
            packed: BytesMut::new(),
            records: 0,
            next_delta: 0,
            base_timestamp: 0,
            max_timestamp: Timestamp::NONE.0,
            last_size: 0,
        }
    }

    /// What the batches are to be.
    #[must_use]
    pub const fn options(&self) -> &BatchOptions {
        &self.options
    }

    /// How many records the batch has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records as usize
    }

    /// Whether the batch has no record yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The exact bytes of the batch on the wire if it were finished now without compression.
    #[must_use]
    pub fn size(&self) -> usize {
        self.end.max(layout::HEADER_LEN) + self.shared_len
    }

    /// The most bytes that a batch of this one record can take, whatever its place and time: what to reserve for a
    /// record before it is known which batch it goes to.
    pub fn upper_bound<'h>(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> usize {
        let fixed = layout::HEADER_LEN + 1 + varint::MAX_LEN_64 + 5 * varint::MAX_LEN_32;
        let content = key.map_or(0, <[u8]>::len).saturating_add(value.map_or(0, <[u8]>::len));
        headers.into_iter().fold(fixed.saturating_add(content), |sum, (name, value)| {
            sum.saturating_add(2 * varint::MAX_LEN_32)
                .saturating_add(name.len())
                .saturating_add(value.map_or(0, <[u8]>::len))
        })
    }

    /// Whether [`Self::push`] would take this record into the batch as it stands.
    pub fn fits<'h, H>(
        &self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> bool
    where
        H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    {
        self.plan(timestamp, key, value, headers.into_iter()).is_some()
    }

    /// Appends a record. `None` is null, which a reader tells from empty. Nothing is kept of what is passed: the
    /// bytes are copied to where they leave from.
    ///
    /// # Errors
    /// The batch is unchanged after each of these.
    /// - [`ErrorKind::TooLarge`]: the record does not fit in a batch of `max_bytes` of its own.
    /// - [`ErrorKind::Full`]: it does not fit behind the ones that are here. Finish the batch and push it again.
    /// - [`ErrorKind::Config`]: the timestamp is below -1, or iterating over the headers twice gave two answers.
    #[inline]
    pub fn push<'h, H>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<()>
    where
        H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
        H::IntoIter: Clone,
    {
        let headers = headers.into_iter();
        if headers.clone().next().is_none() && self.push_short(timestamp, key, value).is_some() {
            return Ok(());
        }
        self.push_any(timestamp, key, value, headers)
    }

    #[inline(never)]
    fn push_any<'h>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
    ) -> Result<()> {
        match self.plan(timestamp, key, value, headers.clone()) {
            Some(plan) => self.append(&plan, 0, timestamp, key, value, headers),
            None => Err(self.refuse(timestamp, key, value)),
        }
    }

    /// [`push`](Self::push), but the value is not copied: the batch holds a handle on it, and
    /// [`finish_pieces`](Self::finish_pieces) hands it out as it is. For values that are a large part of a batch; with
    /// compression, which reads them all the same, it is `push`.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_shared<'h, H>(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: &Bytes,
        headers: H,
    ) -> Result<()>
    where
        H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
        H::IntoIter: Clone,
    {
        let headers = headers.into_iter();
        if self.options.compression != Compression::None {
            return self.push_any(timestamp, key, Some(value), headers);
        }
        let Some(plan) = self.plan(timestamp, key, Some(value), headers.clone()) else {
            return Err(self.refuse(timestamp, key, Some(value)));
        };
        let end = self.end.max(layout::HEADER_LEN);
        self.append(&plan, value.len(), timestamp, key, None, headers)?;
        self.shared.push((end + plan.before_value(key), value.clone()));
        self.shared_len += value.len();
        Ok(())
    }

    /// The usual record in few steps: no headers, not the batch's first, every number in one or two bytes, and room
    /// that is ready. Changes nothing where it is another.
    #[inline(always)]
    fn push_short(&mut self, timestamp: Timestamp, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<()> {
        if self.records == 0 || timestamp < Timestamp::NONE {
            return None;
        }
        let timestamp_delta = varint::Short::new(timestamp.0.checked_sub(self.base_timestamp)?)?;
        let offset_delta = varint::Short::unsigned(self.next_delta.into())?;
        let key_len = varint::Short::length(key)?;
        let value_len = varint::Short::length(value)?;
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        // The two single bytes are the record's attributes and its count of headers, both 0.
        let numbers = 1 + timestamp_delta.len() + offset_delta.len() + key_len.len() + value_len.len() + 1;
        let body = numbers + key.len() + value.len();
        let length = varint::Short::unsigned(body as u64)?;
        let end = self.end + length.len() + body;
        if end + self.shared_len > self.options.max_bytes {
            return None;
        }
        let mut out = Out(self.buf.get_mut(self.end..end + SLACK)?);
        out.put(length.with_zero().then(timestamp_delta))?;
        out.put(offset_delta.encoded().then(key_len))?;
        out.copy_short(key)?;
        out.put(value_len.encoded())?;
        out.copy_short(value)?;
        *out.0.first_mut()? = 0;
        self.end = end;
        self.records += 1;
        self.next_delta += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp.0);
        Some(())
    }

    /// Appends a control marker; the options must say that the batch holds them.
    ///
    /// # Errors
    /// As [`Self::push`], and [`ErrorKind::Config`] in a batch of applications' records.
    pub fn push_control(&mut self, timestamp: Timestamp, marker: ControlMarker) -> Result<()> {
        if !self.options.control {
            return Err(Error::new(
                ErrorKind::Config,
                "a control marker goes into a control batch: set `control` in its options",
            ));
        }
        self.push(timestamp, Some(&marker.key()), Some(&marker.value()), [])
    }

    /// Leaves `n` offsets out before the next record, as compaction does.
    pub fn skip_offsets(&mut self, n: u32) {
        // No further than that the batch's last offset can still be said.
        self.next_delta = self.next_delta.saturating_add(n).min(1 << 31);
    }

    /// Says who writes the batch and with which sequence number it begins; as late as before [`Self::finish`]. Stays
    /// for the batches after it.
    pub fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: Sequence) {
        self.options.producer_id = id;
        self.options.producer_epoch = epoch;
        self.options.base_sequence = base_sequence;
    }

    /// Drops the records. The buffer stays.
    pub fn clear(&mut self) {
        self.end = 0;
        self.shared.clear();
        self.shared_len = 0;
        self.packed.clear();
        self.records = 0;
        self.next_delta = 0;
        self.max_timestamp = Timestamp::NONE.0;
    }

    /// Takes the memory of a finished batch for the next one, where `batch` is the only handle on it. Its bytes need not be
    /// made ready again.
    pub fn recycle(&mut self, batch: impl Into<Pieces>) {
        let plain = self.options.compression == Compression::None;
        if plain && !self.is_empty() {
            return;
        }
        let mine = if plain { &mut self.buf } else { &mut self.packed };
        // What is left here may be the other end of the same memory.
        *mine = BytesMut::new();
        // So may be the pieces between shared values.
        let (first, rest) = batch.into().into_parts();
        drop(rest);
        if let Ok(memory) = first.try_into_mut() {
            *mine = memory;
        }
    }

    /// Closes the batch: compresses, fills in the header and the checksum, and hands the bytes out. The builder is
    /// empty after it. Values of [`push_shared`](Self::push_shared) are copied.
    ///
    /// # Errors
    /// As [`finish_pieces`](Self::finish_pieces).
    pub fn finish(&mut self) -> Result<Bytes> {
        Ok(self.finish_pieces()?.join())
    }

    /// [`finish`](Self::finish) without a copy of shared values.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when there is no record. What [`compress`] says; the records then stay as they are.
    /// [`ErrorKind::TooLarge`] when compression makes the batch larger than the format can say.
    pub fn finish_pieces(&mut self) -> Result<Pieces> {
        if self.records == 0 {
            return Err(Error::new(ErrorKind::Config, "a record batch needs a record"));
        }
        let mut batch = if self.options.compression == Compression::None {
            self.buf.truncate(self.end);
            self.buf.split()
        } else {
            let records = self.buf.get(layout::HEADER_LEN..self.end).unwrap_or_default();
            self.packed.clear();
            self.packed.extend_from_slice(&[0; layout::HEADER_LEN]);
            compress(self.options.compression, self.options.level, records, &mut self.packed)?;
            if self.packed.len() > MAX_WIRE_LEN {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!(
                        "record batch takes {} bytes in {}: {MAX_WIRE_LEN} is the most",
                        self.packed.len(),
                        self.options.compression
                    ),
                ));
            }
            self.packed.split()
        };
        let length = batch.len() + self.shared_len - layout::LENGTH_END;
        match batch.first_chunk_mut::<{ layout::HEADER_LEN }>() {
            Some(header) => self.write_header(header, length as i32),
            None => return Err(Error::new(ErrorKind::Internal, "record batch is shorter than its header")),
        }
        let shared = std::mem::take(&mut self.shared);
        seal_around(&mut batch, &shared);
        self.last_size = self.end;
        self.clear();
        Ok(pieces(batch.freeze(), shared))
    }

    /// Everything but the checksum.
    fn write_header(&self, header: &mut Header, length: i32) {
        let options = &self.options;
        let mut attributes = u16::from(options.compression.id());
        for (set, bit) in [
            (options.append_time.is_some(), layout::APPEND_TIME),
            (options.transactional, layout::TRANSACTIONAL),
            (options.control, layout::CONTROL),
            (options.delete_horizon.is_some(), layout::DELETE_HORIZON),
        ] {
            if set {
                attributes |= bit;
            }
        }
        let max_timestamp = options.append_time.map_or(self.max_timestamp, Timestamp::get);
        // At least one record has been numbered, and no number is above `i32::MAX`.
        let last_delta = (self.next_delta - 1) as i32;
        layout::set::<{ layout::BASE_OFFSET }, 8>(header, options.base_offset.0.to_be_bytes());
        layout::set::<{ layout::LENGTH }, 4>(header, length.to_be_bytes());
        layout::set::<{ layout::LEADER_EPOCH }, 4>(header, options.leader_epoch.0.to_be_bytes());
        layout::set::<{ layout::MAGIC_AT }, 1>(header, [layout::MAGIC]);
        layout::set::<{ layout::ATTRIBUTES }, 2>(header, attributes.to_be_bytes());
        layout::set::<{ layout::LAST_OFFSET_DELTA }, 4>(header, last_delta.to_be_bytes());
        layout::set::<{ layout::BASE_TIMESTAMP }, 8>(header, self.base_timestamp.to_be_bytes());
        layout::set::<{ layout::MAX_TIMESTAMP }, 8>(header, max_timestamp.to_be_bytes());
        layout::set::<{ layout::RECORD_COUNT }, 4>(header, self.records.to_be_bytes());
        write_producer(header, options.producer_id, options.producer_epoch, options.base_sequence);
    }

    /// What the record would take here, if it may be here.
    #[inline(always)]
    fn plan<'h>(
        &self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> Option<Plan> {
        // In 64 bits, and each slice is checked on its own: no sum can overflow.
        let room = self.options.max_bytes.checked_sub(self.size())? as u64;
        let timestamp_delta = timestamp.0.checked_sub(self.base_for(timestamp))?;
        let offset_delta = i32::try_from(self.next_delta).ok()?;
        let key_len = length(key, room)?;
        let value_len = length(value, room)?;
        let offset_delta = varint::encode_i32(offset_delta);
        let (timestamp_delta, timestamp_len) = match i32::try_from(timestamp_delta) {
            Ok(short) => {
                let encoded = varint::encode_i32(short);
                (Delta::Short(encoded), encoded.len)
            }
            Err(_) => (Delta::Long(timestamp_delta), varint::encode_i64(timestamp_delta).1),
        };
        let mut body = (1 + timestamp_len + offset_delta.len + key_len.len + value_len.len) as u64
            + bytes_of(key)
            + bytes_of(value);
        let mut header_count = 0_i32;
        for (name, value) in headers {
            let (name, value) = (Some(name.as_bytes()), value);
            body += (length(name, room)?.len + length(value, room)?.len) as u64
                + bytes_of(name)
                + bytes_of(value);
            header_count = header_count.checked_add(1)?;
            if body > room {
                return None;
            }
        }
        let header_count = varint::encode_i32(header_count);
        body += header_count.len as u64;
        let total = body;
        let body = varint::encode_i32(i32::try_from(body).ok()?);
        let total = total + body.len as u64;
        if total > room || timestamp < Timestamp::NONE {
            return None;
        }
        Some(Plan {
            // Below `room`, which was a `usize`.
            total: total as usize,
            body,
            timestamp_delta,
            offset_delta,
            key_len,
            value_len,
            header_count,
        })
    }

    /// What a record's timestamp is written relative to.
    #[inline(always)]
    fn base_for(&self, timestamp: Timestamp) -> i64 {
        if self.records > 0 {
            self.base_timestamp
        } else {
            self.options.delete_horizon.map_or(timestamp.0, Timestamp::get)
        }
    }

    /// Writes the record; `apart` bytes of it, the value, stand elsewhere.
    #[inline(always)]
    fn append<'h>(
        &mut self,
        plan: &Plan,
        apart: usize,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> Result<()> {
        if self.records == 0 {
            self.begin(timestamp);
        }
        let total = plan.total - apart;
        let taken = total + SLACK;
        if self.buf.len() - self.end < taken {
            self.grow(taken);
        }
        let room = self.buf.get_mut(self.end..self.end + taken).unwrap_or_default();
        match plan.write(room, key, value, headers) {
            Some(rest) if rest == SLACK => {}
            _ => return Err(changed_headers()),
        }
        self.end += total;
        self.records += 1;
        self.next_delta += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp.0);
        Ok(())
    }

    /// Makes room for a batch like the one before.
    #[cold]
    #[inline(never)]
    fn begin(&mut self, timestamp: Timestamp) {
        let expected = self.options.initial_capacity.max(self.last_size).min(self.options.max_bytes);
        let expected = expected.max(layout::HEADER_LEN) + SLACK;
        if self.buf.capacity() < expected {
            self.buf.clear();
            if !self.buf.try_reclaim(expected) {
                self.buf = self.memory(expected);
            }
        }
        // Bytes of a batch before serve as well: all are written over.
        if self.buf.len() < layout::HEADER_LEN {
            self.buf.resize(layout::HEADER_LEN, 0);
        }
        self.end = layout::HEADER_LEN;
        self.base_timestamp = self.base_for(timestamp);
    }

    /// Has `taken` bytes behind the end, and some more while they are here already.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, taken: usize) {
        let needed = self.end + taken;
        if needed > self.buf.capacity() {
            let mut more = self.memory(needed);
            more.extend_from_slice(self.buf.get(..self.end).unwrap_or_default());
            self.buf = more;
        }
        self.buf.resize(needed.max((self.end + GROWTH).min(self.buf.capacity())), 0);
    }

    /// Memory of one of few sizes, so that what one batch gives back serves the next: powers of two, and the batch's most.
    fn memory(&self, needed: usize) -> BytesMut {
        let most = self.options.max_bytes.saturating_add(SLACK);
        BytesMut::with_capacity(needed.next_power_of_two().min(most).max(needed))
    }

    /// Why there was no plan.
    #[cold]
    fn refuse(&self, timestamp: Timestamp, key: Option<&[u8]>, value: Option<&[u8]>) -> Error {
        let max = self.options.max_bytes;
        if timestamp < Timestamp::NONE {
            return Error::new(
                ErrorKind::Config,
                format!("record timestamp is {timestamp}: expected milliseconds since 1970, or -1 for none"),
            );
        }
        if self.records > 0 {
            let message = format!(
                "record does not fit in its batch any more: {} of {max} bytes, {} records",
                self.size(),
                self.records
            );
            return Error::new(ErrorKind::Full, message);
        }
        let len = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        Error::new(
            ErrorKind::TooLarge,
            format!(
                "record with a key of {} bytes and a value of {} does not fit in a batch of {max} bytes",
                len(key),
                len(value)
            ),
        )
    }
}

#[cold]
#[inline(never)]
fn changed_headers() -> Error {
    Error::new(ErrorKind::Config, "the record's headers were not the same when they were iterated over again")
}

fn write_producer(header: &mut Header, id: ProducerId, epoch: ProducerEpoch, base_sequence: Sequence) {
    layout::set::<{ layout::PRODUCER_ID }, 8>(header, id.0.to_be_bytes());
    layout::set::<{ layout::PRODUCER_EPOCH }, 2>(header, epoch.0.to_be_bytes());
    layout::set::<{ layout::BASE_SEQUENCE }, 4>(header, base_sequence.0.to_be_bytes());
}

/// The batch in pieces, `shared` in their places.
fn pieces(mut batch: Bytes, shared: Vec<(usize, Bytes)>) -> Pieces {
    let mut parts = Vec::with_capacity(2 * shared.len() + 1);
    let mut at = 0;
    for (place, value) in shared {
        parts.extend([batch.split_to((place - at).min(batch.len())), value]);
        at = place;
    }
    parts.push(batch);
    let first = parts.remove(0);
    Pieces::new(first, parts)
}

/// Writes the checksum of a batch that is otherwise whole.
pub(super) fn seal(batch: &mut [u8]) {
    seal_around(batch, &[]);
}

/// The same, with values that stand elsewhere.
fn seal_around(batch: &mut [u8], shared: &[(usize, Bytes)]) {
    let body = batch.get(layout::ATTRIBUTES..).unwrap_or_default();
    let crc = if shared.is_empty() {
        layout::crc32c(body)
    } else {
        let (mut crc, mut at) = (layout::Crc32c::new(), layout::ATTRIBUTES);
        for (place, value) in shared {
            crc.update(batch.get(at..*place).unwrap_or_default());
            crc.update(value);
            at = *place;
        }
        crc.update(batch.get(at..).unwrap_or_default());
        crc.get()
    };
    if let Some(header) = batch.first_chunk_mut::<{ layout::HEADER_LEN }>() {
        layout::set::<{ layout::CRC }, 4>(header, crc.to_be_bytes());
    }
}

/// A finished batch with another producer, epoch and sequence number, and the checksum to it: what a producer sends
/// again after its epoch was raised (KIP-360). The records are neither read nor compressed anew.
///
/// Written in place where `batch` is the only handle on its memory; copied else.
///
/// # Errors
/// As [`BatchView::parse`]: a damaged batch is not given a right checksum.
pub fn restamp(batch: Bytes, id: ProducerId, epoch: ProducerEpoch, base_sequence: Sequence) -> Result<Bytes> {
    drop(BatchView::parse(batch.clone())?);
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    if let Some(header) = batch.first_chunk_mut::<{ layout::HEADER_LEN }>() {
        write_producer(header, id, epoch, base_sequence);
    }
    seal(&mut batch);
    Ok(batch.freeze())
}
