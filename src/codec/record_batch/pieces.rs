//! A finished batch whose large values stand where the application has them.

use bytes::{Bytes, BytesMut};

/// A finished batch: its bytes on the wire, in pieces that follow one another. Cheap to clone.
///
/// There is one piece, unless [`push_shared`](super::BatchBuilder::push_shared) was used; the header is in the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Pieces {
    pub(super) fn new(first: Bytes, rest: Vec<Bytes>) -> Self {
        Self { first, rest }
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.iter().fold(self.first.len(), |sum, piece| sum + piece.len())
    }

    /// Never: a batch has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first piece, and those behind it.
    #[must_use]
    pub fn into_parts(self) -> (Bytes, Vec<Bytes>) {
        (self.first, self.rest)
    }

    /// All in one: copies where there are several.
    #[must_use]
    pub fn join(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut all = BytesMut::with_capacity(self.len());
        all.extend_from_slice(&self.first);
        self.rest.iter().for_each(|piece| all.extend_from_slice(piece));
        all.freeze()
    }
}

impl From<Bytes> for Pieces {
    fn from(batch: Bytes) -> Self {
        Self::new(batch, Vec::new())
    }
}
