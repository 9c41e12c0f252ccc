//! A key's partition by its hash. Pure.

use crc_fast::{CrcAlgorithm, checksum};

/// The partition of a key by murmur2, as the Java client and every client that agrees with it places keys.
/// `partitions` must not be 0; then the answer is 0.
pub(crate) fn by_murmur2(key: &[u8], partitions: usize) -> usize {
    let positive = (murmur2(key) & 0x7fff_ffff) as usize;
    positive.checked_rem(partitions).unwrap_or(0)
}

/// The partition of a key by CRC32 (the one of zip and Ethernet), as librdkafka's `consistent` places keys.
/// `partitions` must not be 0; then the answer is 0.
pub(crate) fn by_crc32(key: &[u8], partitions: usize) -> usize {
    let hash = checksum(CrcAlgorithm::Crc32IsoHdlc, key) as u32 as usize;
    hash.checked_rem(partitions).unwrap_or(0)
}

/// `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut h = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (byte, shift) in tail.iter().zip([0, 8, 16]) {
            h ^= u32::from(*byte) << shift;
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hashed_as_the_java_client_does() {
        // From org.apache.kafka.common.utils.UtilsTest.
        for (key, hash) in [
            ("21", -973_932_308i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    /// `tests/data/partitions/keys.bin`, of which `tests/data/README.md` tells how it was made.
    #[test]
    fn ten_thousand_keys_go_where_the_java_client_and_librdkafka_send_them() {
        const MOST: usize = i32::MAX as usize;
        let mut rest = &include_bytes!("../../../../tests/data/partitions/keys.bin")[..];
        let mut keys = 0;
        while let Some((length, after)) = rest.split_first() {
            let (key, after) = after.split_at(usize::from(*length));
            let (java, after) = after.split_first_chunk::<4>().unwrap();
            let (crc, after) = after.split_first_chunk::<4>().unwrap();
            rest = after;
            keys += 1;
            assert_eq!(murmur2(key), u32::from_be_bytes(*java), "murmur2 of {key:02x?}");
            // librdkafka tells no hash, but the partition of 2^31 - 1.
            assert_eq!(by_crc32(key, MOST), u32::from_be_bytes(*crc) as usize, "CRC32 of {key:02x?}");
        }
        assert_eq!(keys, 10_000);
    }

    #[test]
    fn a_partition_is_always_in_range() {
        for by in [by_murmur2, by_crc32] {
            for n in 1..7 {
                assert!((0..200u32).all(|i| by(&i.to_be_bytes(), n) < n));
            }
            assert_eq!(by(b"x", 0), 0);
        }
    }
}
