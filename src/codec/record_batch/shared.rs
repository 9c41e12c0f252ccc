//! A record that can be kept: a handle on its batch's memory, and where in it the record stands.

use bytes::Bytes;

use super::record::{Headers, Record};
use crate::{Offset, Timestamp};

/// A [`Record`] that owns a handle on its batch's memory: what [`Record::share_all`] gives. 80 bytes on 64-bit machines, no allocation.
///
/// It keeps the bytes of its batch's records alive (those of a whole fetch answer, where they were not compressed). To keep
/// one for long, copy what is wanted of it.
#[derive(Debug, Clone)]
pub struct SharedRecord {
    payload: Bytes,
    offset: Offset,
    timestamp: Timestamp,
    key: Span,
    value: Span,
    headers: Span,
    header_count: u32,
}

/// A stretch of the payload; null where `len` is `u32::MAX`, which is longer than any field.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

const NULL: Span = Span { start: 0, len: u32::MAX };

impl Span {
    #[inline]
    fn of(payload: &Bytes, slice: Option<&[u8]>) -> Self {
        let Some(slice) = slice else { return NULL };
        // The slices of a record lie in its payload; an empty one may lie anywhere. A payload is shorter than 2 GiB.
        let start = slice.as_ptr().addr().wrapping_sub(payload.as_ptr().addr());
        match (u32::try_from(start), u32::try_from(slice.len())) {
            (Ok(start), Ok(len)) => Self { start, len },
            _ => Self { start: 0, len: 0 },
        }
    }

    #[inline]
    fn get(self, payload: &Bytes) -> Option<&[u8]> {
        if self.len == u32::MAX {
            return None;
        }
        let start = self.start as usize;
        Some(payload.get(start..start.wrapping_add(self.len as usize)).unwrap_or_default())
    }
}

impl SharedRecord {
    /// A record without anything.
    #[cfg(any(test, feature = "kafka"))]
    pub(crate) const NOTHING: Self = Self {
        payload: Bytes::new(),
        offset: Offset(-1),
        timestamp: Timestamp::NONE,
        key: NULL,
        value: NULL,
        headers: Span { start: 0, len: 0 },
        header_count: 0,
    };

    #[inline]
    pub(super) fn new(record: &Record<'_>, payload: &Bytes) -> Self {
        let (headers, header_count) = record.raw_headers();
        Self {
            payload: payload.clone(),
            offset: record.offset(),
            timestamp: record.timestamp(),
            key: Span::of(payload, record.key()),
            value: Span::of(payload, record.value()),
            headers: Span::of(payload, Some(headers)),
            header_count,
        }
    }

    /// Its place in the partition.
    #[must_use]
    pub const fn offset(&self) -> Offset {
        self.offset
    }

    /// As [`Record::timestamp`].
    #[must_use]
    pub const fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// The key; `None` is null.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.get(&self.payload)
    }

    /// The value; `None` is null.
    #[inline]
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.get(&self.payload)
    }

    /// [`Self::key`] as a handle on the batch's memory, without a copy.
    #[must_use]
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key().map(|key| self.share(key))
    }

    /// [`Self::value`] as a handle on the batch's memory, without a copy.
    #[must_use]
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value().map(|value| self.share(value))
    }

    /// A handle on the batch's memory for a slice of this record, as a header's value.
    fn share(&self, slice: &[u8]) -> Bytes {
        if slice.is_empty() { Bytes::new() } else { self.payload.slice_ref(slice) }
    }

    /// The headers in the order they were written; a name may come more than once.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers::raw(self.headers.get(&self.payload).unwrap_or_default(), self.header_count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, BatchOptions, BatchView};
    use super::*;

    #[test]
    fn a_shared_record_says_what_the_record_said_after_its_batch_is_gone() {
        let mut b = BatchBuilder::new(BatchOptions::default());
        let headers: [(&str, Option<&[u8]>); 3] = [("a", Some(b"1")), ("a", None), ("", Some(b""))];
        b.push(Timestamp(5), Some(b"key"), Some(b"value"), headers).unwrap();
        b.push(Timestamp(6), None, Some(b""), []).unwrap();
        b.push(Timestamp(7), Some(b""), None, []).unwrap();
        let batch = BatchView::parse(b.finish().unwrap()).unwrap();
        let records = batch.records(1 << 20).unwrap();
        let shared: Vec<SharedRecord> = records.iter().map(|r| r.unwrap().share_all()).collect();
        let span = records.as_bytes().as_ptr_range();
        drop((records, batch));
        let said: Vec<_> = shared.iter().map(|r| (r.timestamp().0, r.key(), r.value())).collect();
        let some = |bytes: &'static str| Some(bytes.as_bytes());
        assert_eq!(said, [(5, some("key"), some("value")), (6, None, some("")), (7, some(""), None)]);
        let names: Vec<_> = shared[0].headers().map(|(n, v)| (n.into_owned(), v)).collect();
        let expected: [(&str, Option<&[u8]>); 3] = headers;
        assert_eq!(names, expected.map(|(n, v)| (n.to_owned(), v)));
        assert_eq!(shared[1].headers().count(), 0);
        let value = shared[0].value_bytes().unwrap();
        assert!(span.contains(&value.as_ptr()) && value == "value", "no copy");
        assert_eq!(shared[1].value_bytes().unwrap(), "");
        assert_eq!(shared[1].key_bytes(), None);
        assert!(size_of::<SharedRecord>() <= 80, "{}", size_of::<SharedRecord>());
        assert_eq!((SharedRecord::NOTHING.key(), SharedRecord::NOTHING.headers().count()), (None, 0));
    }
}
