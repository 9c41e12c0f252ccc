//! A batch from its first record to its outcome.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::codec::record_batch::{BatchBuilder, BatchOptions, BatchView, Pieces, restamp};
use crate::kafka::producer::completion::{Completion, Promise, Written};
use crate::kafka::producer::record::Record;
use crate::kafka::producer::sequence::Stamp;
use crate::kafka::wire::COPIED;
use crate::{Error, ErrorKind, Partition, Result, Timestamp, Topic};

/// A batch.
#[derive(Debug)]
pub(super) struct Batch {
    /// How many records its partition was given before its first one: batches stand in this order.
    pub(super) ordinal: u64,
    /// Empty again once the batch is sealed; kept to be used for another.
    builder: BatchBuilder,
    /// The bytes on the wire and what they are stamped with.
    sealed: Option<(Pieces, Stamp)>,
    pub(super) records: u32,
    /// Uncompressed size on the wire.
    pub(super) size: usize,
    /// Bytes of the buffer that are free again once it is resolved.
    pub(super) held: usize,
    pub(super) created: Instant,
    pub(super) deadline: Instant,
    pub(super) stamp: Option<Stamp>,
    pub(super) attempts: u32,
    /// Whether an attempt that is over may have been written.
    pub(super) unsure: bool,
    pub(super) promise: Promise,
    pub(super) last_error: Option<Error>,
}

impl Batch {
    pub(super) fn new(
        builder: BatchBuilder,
        promise: Promise,
        ordinal: u64,
        created: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            ordinal,
            builder,
            sealed: None,
            records: 0,
            size: 0,
            held: 0,
            created,
            deadline,
            stamp: None,
            attempts: 0,
            unsure: false,
            promise,
            last_error: None,
        }
    }

    pub(super) fn completion(&self) -> &Arc<Completion> {
        self.promise.completion()
    }

    /// The record's index in the batch and the bytes that the batch grew by, or `None` where it is full.
    #[inline]
    pub(super) fn push(&mut self, timestamp: Timestamp, record: &Record<'_>) -> Result<Option<(u32, usize)>> {
        let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        let pushed = match record.shared_value().filter(|value| self.is_large(value)) {
            Some(value) => self.builder.push_shared(timestamp, record.key_bytes(), value, headers),
            None => self.builder.push(timestamp, record.key_bytes(), record.value_bytes(), headers),
        };
        match pushed {
            Ok(()) => {
                let index = self.records;
                let grown = self.builder.size() - self.size;
                self.records += 1;
                self.size += grown;
                self.held += grown;
                Ok(Some((index, grown)))
            }
            Err(e) if matches!(e.kind(), ErrorKind::Full | ErrorKind::TooLarge) => Ok(None),
            Err(e) => Err(e.context(format!("record for topic {}", record.topic()))),
        }
    }

    /// Half of a batch, and not so little that it would be copied on its way: to hold a handle costs less than a copy.
    fn is_large(&self, value: &Bytes) -> bool {
        value.len() >= (self.builder.options().max_bytes / 2).max(COPIED)
    }

    pub(super) fn resolve(self, outcome: Result<Written>) -> Resolved {
        Resolved { held: self.held, records: self.records, promise: self.promise, outcome }
    }

    /// Its outcome is that it was written; its builder may serve again.
    pub(super) fn written(self, written: Written) -> (Resolved, BatchBuilder) {
        let Self { mut builder, sealed, held, records, promise, .. } = self;
        if let Some((pieces, _)) = sealed {
            builder.recycle(pieces);
        }
        (Resolved { held, records, promise, outcome: Ok(written) }, builder)
    }

    /// Two batches in place of this one, each with about half of its bytes and in all with its sequence numbers: the
    /// broker found it too large. It must have been sealed, with two records or more.
    ///
    /// # Errors
    /// What the codec says of its own bytes; the batch comes back with it.
    pub(super) fn split(self) -> Result<[Self; 2], Box<(Self, Error)>> {
        let parts = match self.halves() {
            Ok(parts) => parts,
            Err(e) => return Err(Box::new((self, e))),
        };
        let [first, rest] = parts;
        let at = first.len() as u32;
        let (records, held) = (self.records, self.held);
        let [first_promise, rest_promise] = self.promise.split(at);
        let first_held = first.size().min(held);
        let part = |builder: BatchBuilder, promise: Promise, skipped: u32, records: u32, held: usize| Self {
            ordinal: self.ordinal + u64::from(skipped),
            size: builder.size(),
            builder,
            sealed: None,
            records,
            held,
            created: self.created,
            deadline: self.deadline,
            stamp: self.stamp.map(|s| s.skip(skipped)),
            attempts: 0,
            unsure: false,
            promise,
            last_error: self.last_error.as_ref().map(Error::duplicate),
        };
        Ok([
            part(first, first_promise, 0, at, first_held),
            part(rest, rest_promise, at, records - at, held - first_held),
        ])
    }

    fn halves(&self) -> Result<[BatchBuilder; 2]> {
        let bytes = match &self.sealed {
            Some((pieces, _)) => pieces.clone().join(),
            None => return Err(Error::new(ErrorKind::Internal, "a batch is split that was never sealed")),
        };
        // Its own bytes: no longer than what was put in.
        let records = BatchView::parse(bytes)?.records(self.size)?;
        // A batch of its own may have been larger than the others.
        let max_bytes = self.size.max(self.builder.options().max_bytes);
        let options = BatchOptions { max_bytes, ..self.builder.options().clone() };
        let mut halves = [BatchBuilder::new(options.clone()), BatchBuilder::new(options)];
        let [first, rest] = &mut halves;
        for record in &records {
            let record = record?;
            let mut headers = Vec::new();
            let mut raw = record.headers();
            while let Some((name, value)) = raw.next_raw() {
                let name = std::str::from_utf8(name)
                    .map_err(|_| Error::new(ErrorKind::Internal, "a header's name is not UTF-8 any more"))?;
                headers.push((name, value));
            }
            // The first half takes the record in its middle, and leaves at least one.
            let last = first.len() + 1 == self.records as usize;
            let half = if rest.is_empty() && first.size() < self.size / 2 && !last {
                &mut *first
            } else {
                &mut *rest
            };
            half.push(record.timestamp(), record.key(), record.value(), headers)?;
        }
        if first.is_empty() || rest.is_empty() {
            return Err(Error::new(ErrorKind::Internal, "a batch of one record is split"));
        }
        Ok(halves)
    }
}

/// A batch on its way, in the hands of the driver.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(super) queue: usize,
    pub(crate) topic: Topic,
    pub(crate) partition: Partition,
    pub(super) batch: Batch,
}

impl Sending {
    /// The bytes to send: closes the batch the first time (compression, checksum), and gives the same ones again
    /// after that, unless it was stamped anew.
    pub(crate) fn seal(&mut self) -> Result<Pieces> {
        let batch = &mut self.batch;
        let stamp = batch.stamp.ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("a batch of topic {} has no sequence", self.topic))
        })?;
        let pieces = match batch.sealed.take() {
            Some((pieces, with)) if with == stamp => pieces,
            Some((pieces, _)) => restamp(pieces.join(), stamp.id, stamp.epoch, stamp.base)?.into(),
            None => {
                batch.builder.set_producer(stamp.id, stamp.epoch, stamp.base);
                batch.builder.finish_pieces()?
            }
        };
        batch.sealed = Some((pieces.clone(), stamp));
        Ok(pieces)
    }

    /// How many bytes [`seal`](Self::seal) has to compress.
    pub(crate) fn to_compress(&self) -> usize {
        let options = self.batch.builder.options();
        let plain = options.compression == crate::codec::compression::Compression::None;
        if plain || self.batch.sealed.is_some() { 0 } else { self.batch.size }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.batch.deadline
    }

    /// When its first record came.
    pub(crate) fn created(&self) -> Instant {
        self.batch.created
    }

    /// Which attempt this is, from 1.
    pub(crate) fn attempt(&self) -> u32 {
        self.batch.attempts
    }

    pub(crate) fn records(&self) -> u32 {
        self.batch.records
    }

    /// Its bytes before compression.
    pub(crate) fn bytes(&self) -> usize {
        self.batch.size
    }

    /// Takes note that the request is about to leave: from here on, not knowing is possible.
    pub(crate) fn leaving(&mut self) {
        self.batch.promise.unsure = true;
    }
}

/// What came of a sending.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The broker's code, 0 for none, and where the batch was written.
    Broker { code: i16, written: Written, message: Option<String> },
    /// No answer. Ambiguous in the error means that the batch may have been written.
    Failed(Error),
}

/// A batch that has its outcome.
#[derive(Debug)]
#[must_use]
pub(crate) struct Resolved {
    pub(super) held: usize,
    records: u32,
    promise: Promise,
    outcome: Result<Written>,
}

impl Resolved {
    pub(crate) fn tell(self) {
        self.promise.resolve(self.outcome);
    }

    /// Why it failed, if it did.
    pub(crate) fn error(&self) -> Option<&Error> {
        self.outcome.as_ref().err()
    }

    pub(crate) fn topic(&self) -> &Topic {
        self.promise.completion().topic()
    }

    pub(crate) fn records(&self) -> u32 {
        self.records
    }
}
