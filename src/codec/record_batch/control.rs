//! Control records: what the brokers write into a partition between the applications' records (KIP-98).

use crate::{Error, ErrorKind, Result};

/// What a control record says.
///
/// Its key is `version i16, type i16`; the value of an end of a transaction is `version i16, coordinator epoch i32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlMarker {
    /// What happened.
    pub kind: ControlKind,
    /// The epoch of the transaction coordinator that wrote it, where `kind` is the end of a transaction.
    pub coordinator_epoch: Option<i32>,
}

/// The types of control records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlKind {
    /// The producer's open transaction was given up: its records in this partition are not to be seen.
    Abort,
    /// The producer's open transaction was committed.
    Commit,
    /// Something of the brokers' own (2 is a leader change of the metadata log): to be skipped.
    Other(i16),
}

impl ControlKind {
    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::Other(n) => n,
        }
    }
}

impl From<i16> for ControlKind {
    fn from(n: i16) -> Self {
        match n {
            0 => Self::Abort,
            1 => Self::Commit,
            n => Self::Other(n),
        }
    }
}

impl ControlMarker {
    /// Reads a control record's key and value. Later versions may have more fields behind the ones known.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] names what is missing.
    pub fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Self> {
        let bad = |what: &str| Err(Error::new(ErrorKind::Malformed, what.to_owned()));
        let Some(&[v0, v1, k0, k1]) = key.unwrap_or_default().first_chunk::<4>() else {
            return bad("the key is shorter than a version and a type");
        };
        if i16::from_be_bytes([v0, v1]) < 0 {
            return bad("the key's version is negative");
        }
        let kind = ControlKind::from(i16::from_be_bytes([k0, k1]));
        let coordinator_epoch = match kind {
            ControlKind::Other(_) => None,
            ControlKind::Abort | ControlKind::Commit => {
                let Some(&[v0, v1, e0, e1, e2, e3]) = value.unwrap_or_default().first_chunk::<6>() else {
                    return bad("the value is shorter than a version and a coordinator epoch");
                };
                if i16::from_be_bytes([v0, v1]) < 0 {
                    return bad("the value's version is negative");
                }
                Some(i32::from_be_bytes([e0, e1, e2, e3]))
            }
        };
        Ok(Self { kind, coordinator_epoch })
    }

    /// The key that says it.
    pub(super) fn key(self) -> [u8; 4] {
        let [k0, k1] = self.kind.get().to_be_bytes();
        [0, 0, k0, k1]
    }

    /// The value that says it.
    pub(super) fn value(self) -> [u8; 6] {
        let [e0, e1, e2, e3] = self.coordinator_epoch.unwrap_or(-1).to_be_bytes();
        [0, 0, e0, e1, e2, e3]
    }
}
