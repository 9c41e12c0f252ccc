//! What tells one payload from another.

use std::fmt;

use sha2::{Digest, Sha256};

/// 128 bits of a payload's hash, by which a store notices that one key is used for two payloads.
///
/// [`Fingerprint::of`] is the first 16 bytes of SHA-256 (FIPS 180-4) of the payload: the same on every machine and in
/// every version, so that durable and shared stores can compare them. It stands beside the key, which is what
/// identifies the effect; an accidental match would need some 2^64 payloads under one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The same for every payload: for callers that do not want payloads compared.
    pub const NONE: Self = Self([0; 16]);

    /// The fingerprint of one payload.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self::cut(Sha256::digest(payload).into())
    }

    /// The fingerprint of a payload in parts. Where one part ends and the next begins counts: each part is hashed
    /// after its length (8 bytes, little-endian), so one part alone does not give what [`Fingerprint::of`] gives.
    #[must_use]
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self::cut(hash.finalize().into())
    }

    /// From its bytes, as another program or an earlier run stored them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    fn cut(hash: [u8; 32]) -> Self {
        let (half, _) = hash.split_at(16);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(half);
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_start_of_sha_256() {
        // FIPS 180-4 example: "abc".
        assert_eq!(Fingerprint::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(Fingerprint::of(b"").to_string(), "e3b0c44298fc1c149afbf4c8996fb924");
    }

    #[test]
    fn the_border_between_parts_counts() {
        let of = |parts: &[&'static str]| Fingerprint::of_parts(parts.iter().map(|p| p.as_bytes()));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["abc"]), of(&["abc", ""]));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
    }
}
