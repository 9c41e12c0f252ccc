//! A fetch response's batches, one behind the other.

use bytes::Bytes;

use super::layout;
use super::view::BatchView;
use crate::{Error, ErrorKind, Result};

/// How many bytes the batch at the front of `bytes` takes; `None` where they end before it does.
pub(super) fn frame(bytes: &[u8]) -> Result<Option<usize>> {
    let (Some(offset), Some(length)) = (
        bytes.first_chunk::<8>(),
        bytes.get(layout::LENGTH..).and_then(<[u8]>::first_chunk::<4>).map(|b| i32::from_be_bytes(*b)),
    ) else {
        return Ok(None);
    };
    let offset = i64::from_be_bytes(*offset);
    // Before the length: the smallest message of an old format is smaller than a header of this one.
    match bytes.get(layout::MAGIC_AT) {
        Some(&layout::MAGIC) => {}
        Some(&magic @ (0 | 1)) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "message at offset {offset} is of format v{magic}, from before Kafka 0.11: only record batches v2 are read"
                ),
            ));
        }
        Some(&magic) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "record batch at offset {offset} has the magic {magic}: only record batches v2 are read"
                ),
            ));
        }
        None => {}
    }
    match usize::try_from(length) {
        Ok(length) if length >= layout::MIN_LENGTH => {
            let whole = length.saturating_add(layout::LENGTH_END);
            Ok((whole <= bytes.len()).then_some(whole))
        }
        _ => Err(Error::new(
            ErrorKind::Malformed,
            format!(
                "record batch at offset {offset}: its length is {length}, {} at least is expected",
                layout::MIN_LENGTH
            ),
        )),
    }
}

/// The batches of a fetch response: one behind the other, the last perhaps cut off where the broker's limit fell.
///
/// Iterate over it. A batch that is cut off ends the list without an error; [`Self::truncated`] tells of it. An error
/// ends the list where the next batch cannot be found any more; after a batch whose inside is wrong (its checksum, its
/// header) the next one follows.
#[derive(Debug, Clone)]
pub struct BatchList {
    rest: Bytes,
    truncated: Option<Truncated>,
}

/// What is there of a batch that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Truncated {
    /// The bytes that are here.
    pub available: usize,
    /// The bytes that the batch takes, where so much is here that it can be told. Not to be trusted as a size to
    /// allocate: nothing has been checked.
    pub needed: Option<usize>,
}

impl BatchList {
    /// The batches in `bytes`, which stay shared.
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, truncated: None }
    }

    /// The batch that was cut off at the end, once the iteration has come to it. Where it is the first one, the
    /// fetch's limit is smaller than the batch.
    #[must_use]
    pub const fn truncated(&self) -> Option<Truncated> {
        self.truncated
    }
}

impl Iterator for BatchList {
    type Item = Result<BatchView>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match frame(&self.rest) {
            Ok(Some(len)) => Some(BatchView::parse_framed(self.rest.split_to(len.min(self.rest.len())))),
            Ok(None) => {
                let rest = std::mem::take(&mut self.rest);
                let needed = rest.get(layout::LENGTH..).and_then(<[u8]>::first_chunk::<4>).and_then(|b| {
                    usize::try_from(i32::from_be_bytes(*b)).ok()?.checked_add(layout::LENGTH_END)
                });
                self.truncated = Some(Truncated { available: rest.len(), needed });
                None
            }
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for BatchList {}
