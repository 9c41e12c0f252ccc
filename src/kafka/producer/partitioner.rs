//! Which partition a record goes to. Pure.

/// The partition of a key: murmur2, as the Java client and every client that agrees with it places keys.
/// `partitions` must not be 0; then the answer is 0.
pub(crate) fn by_key(key: &[u8], partitions: usize) -> usize {
    let positive = (murmur2(key) & 0x7fff_ffff) as usize;
    positive.checked_rem(partitions).unwrap_or(0)
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

/// Where records without a key go: all to one partition until its batch closes, then to another (KIP-480). So
/// batches fill, and over time the partitions do too.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    current: Option<usize>,
    moving: bool,
}

impl Sticky {
    /// The partition for the next record; `draw` gives a random number where one is needed.
    pub(crate) fn partition(&mut self, partitions: usize, draw: impl FnOnce() -> u64) -> usize {
        let next = match self.current {
            Some(current) if !self.moving && current < partitions => return current,
            Some(current) if partitions > 1 && current < partitions => {
                // One of the others, each as likely.
                let step = 1 + (draw() % (partitions as u64 - 1)) as usize;
                (current + step) % partitions
            }
            _ => (draw() % partitions.max(1) as u64) as usize,
        };
        self.moving = false;
        self.current = Some(next);
        next
    }

    /// A batch of this partition closed.
    pub(crate) fn handle_closed(&mut self, partition: usize) {
        if self.current == Some(partition) {
            self.moving = true;
        }
    }
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

    #[test]
    fn a_partition_is_always_in_range() {
        for n in 1..7 {
            assert!((0..200u32).all(|i| by_key(&i.to_be_bytes(), n) < n));
        }
        assert_eq!(by_key(b"x", 0), 0);
    }

    #[test]
    fn records_without_a_key_stay_until_the_batch_closes_and_then_leave() {
        let mut sticky = Sticky::default();
        let first = sticky.partition(3, || 1);
        assert_eq!(sticky.partition(3, || panic!("no draw is needed")), first);
        sticky.handle_closed(first + 1);
        assert_eq!(sticky.partition(3, || panic!("another partition's batch")), first);
        for draw in 0..20 {
            let before = sticky.partition(3, || draw);
            sticky.handle_closed(before);
            assert_ne!(sticky.partition(3, || draw), before);
        }
        assert!(sticky.partition(1, || 5) == 0, "a topic made anew with fewer partitions");
    }
}
