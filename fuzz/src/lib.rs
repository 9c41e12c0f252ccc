//! What the fuzz targets share: an allocator that knows its peak, checksums put right, and arbitrary batches.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use muslin::codec::compression::Compression;
use muslin::codec::record_batch::{BatchBuilder, BatchOptions, BatchView};
use muslin::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Result, Sequence, Timestamp};

/// Where a batch's length field ends, its magic byte, its checksum and what the checksum covers stand.
const LENGTH_END: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const COVERED: usize = 21;
/// The most bytes that a decompressor may make of an input here.
pub const LIMIT: usize = 1 << 20;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is System's own; only sizes are counted beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there at once.
        grow(size);
        let moved = unsafe { System.realloc(ptr, layout, size) };
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        moved
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn grow(size: usize) {
    let now = NOW.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and says how many bytes it had allocated at most.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let out = work();
    (out, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

/// Makes what the bytes are into batches that are worth reading on: lengths that fit, the magic of the format and
/// checksums that match, so that a mutation reaches the inside.
pub fn mend(bytes: &mut [u8]) {
    let mut rest = bytes;
    while rest.len() >= COVERED {
        let claimed = rest[LENGTH_END - 4..LENGTH_END].iter().fold(0, |n, &b| n << 8 | usize::from(b));
        let end = match claimed.checked_add(LENGTH_END) {
            Some(end) if (COVERED..=rest.len()).contains(&end) => end,
            _ => {
                let length = (rest.len() - LENGTH_END) as u32;
                rest[LENGTH_END - 4..LENGTH_END].copy_from_slice(&length.to_be_bytes());
                rest.len()
            }
        };
        let (batch, tail) = rest.split_at_mut(end);
        batch[MAGIC] = 2;
        let crc = crc32c(&batch[COVERED..]);
        batch[CRC..COVERED].copy_from_slice(&crc.to_be_bytes());
        rest = tail;
    }
}

/// CRC-32C (RFC 3720), bit by bit: not the implementation that is tested.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
        }
    }
    !crc
}

/// A record as an application has it.
#[derive(Debug, Clone, PartialEq, Eq, Arbitrary)]
pub struct Content {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A batch with what stands around its records.
#[derive(Debug, Clone, Arbitrary)]
pub struct Batch {
    codec: u8,
    base_offset: i64,
    leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    pub transactional: bool,
    pub records: Vec<Content>,
}

impl Batch {
    /// The numbers within their ranges, as the options of a builder.
    pub fn options(&self) -> BatchOptions {
        let mut options = BatchOptions::default();
        options.compression = self.compression();
        options.base_offset = Offset(self.base_offset & (i64::MAX >> 1));
        options.leader_epoch = LeaderEpoch(self.leader_epoch.max(-1));
        options.producer_id = ProducerId(self.producer_id.max(-1));
        options.producer_epoch = ProducerEpoch(self.producer_epoch.max(-1));
        options.base_sequence = Sequence(self.base_sequence.max(-1));
        options.transactional = self.transactional;
        options
    }

    pub fn compression(&self) -> Compression {
        Compression::ALL[usize::from(self.codec) % Compression::ALL.len()]
    }

    /// The records with timestamps that the format takes; more than one header of a name only where `duplicates`.
    pub fn contents(&self, duplicates: bool) -> Vec<Content> {
        let mut records = self.records.clone();
        for record in &mut records {
            // Beyond the year 10,000 nothing is gained; differences of any two must fit.
            record.timestamp = record.timestamp.rem_euclid(1 << 48) - 1;
            if !duplicates {
                let mut seen = std::collections::HashSet::new();
                record.headers.retain(|(name, _)| seen.insert(name.clone()));
            }
        }
        records
    }
}

/// One batch of these records.
pub fn build(options: BatchOptions, records: &[Content]) -> Result<Bytes> {
    let mut builder = BatchBuilder::new(options);
    for r in records {
        let headers = r.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        builder.push(Timestamp(r.timestamp), r.key.as_deref(), r.value.as_deref(), headers)?;
    }
    builder.finish()
}

/// All records of a batch with their offsets, or the first error.
pub fn read(batch: &BatchView) -> Result<Vec<(Offset, Content)>> {
    let mut contents = Vec::new();
    for record in &batch.records(LIMIT)? {
        let record = record?;
        contents.push((
            record.offset(),
            Content {
                timestamp: record.timestamp().get(),
                key: record.key().map(<[u8]>::to_vec),
                value: record.value().map(<[u8]>::to_vec),
                headers: record
                    .headers()
                    .map(|(name, value)| (name.into_owned(), value.map(<[u8]>::to_vec)))
                    .collect(),
            },
        ));
    }
    Ok(contents)
}
