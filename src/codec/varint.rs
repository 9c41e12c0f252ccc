//! The variable-length integers of record batches: 7 bits a byte, low bits first, zigzag over the sign (KIP-98, as
//! Protocol Buffers' `sint32` and `sint64`).
//!
//! Reading takes the one- and two-byte forms on a short path: nearly every length and delta is one of them. A longer
//! form than needed is read, as the Java client reads it; bits beyond the type's are refused.

/// The most bytes that a 32-bit number takes.
pub(crate) const MAX_LEN_32: usize = 5;
/// The most bytes that a 64-bit number takes.
pub(crate) const MAX_LEN_64: usize = 10;

/// Why a number could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VarintError {
    /// The bytes end within the number.
    Truncated,
    /// The number has more bits than its type.
    TooLong,
}

/// Takes a signed 32-bit number off the front of `rest`.
#[inline(always)]
pub(crate) fn take_i32(rest: &mut &[u8]) -> Result<i32, VarintError> {
    match **rest {
        [a, ref tail @ ..] if a < 0x80 => {
            *rest = tail;
            Ok(unzigzag_32(u32::from(a)))
        }
        [a, b, ref tail @ ..] if b < 0x80 => {
            *rest = tail;
            Ok(unzigzag_32(u32::from(a & 0x7f) | u32::from(b) << 7))
        }
        _ => {
            let (n, tail) = take_i32_long(rest)?;
            *rest = tail;
            Ok(n)
        }
    }
}

/// Takes a signed 64-bit number off the front of `rest`.
#[inline(always)]
pub(crate) fn take_i64(rest: &mut &[u8]) -> Result<i64, VarintError> {
    match **rest {
        [a, ref tail @ ..] if a < 0x80 => {
            *rest = tail;
            Ok(unzigzag_64(u64::from(a)))
        }
        [a, b, ref tail @ ..] if b < 0x80 => {
            *rest = tail;
            Ok(unzigzag_64(u64::from(a & 0x7f) | u64::from(b) << 7))
        }
        _ => {
            let (n, tail) = take_i64_long(rest)?;
            *rest = tail;
            Ok(n)
        }
    }
}

// These take and give slices by value: a reference would keep the caller's position in memory, out of registers.

#[inline(never)]
fn take_i32_long(rest: &[u8]) -> Result<(i32, &[u8]), VarintError> {
    let (n, rest) = take_u64(rest, MAX_LEN_32)?;
    u32::try_from(n).map(|n| (unzigzag_32(n), rest)).map_err(|_| VarintError::TooLong)
}

#[inline(never)]
fn take_i64_long(rest: &[u8]) -> Result<(i64, &[u8]), VarintError> {
    take_u64(rest, MAX_LEN_64).map(|(n, rest)| (unzigzag_64(n), rest))
}

fn take_u64(rest: &[u8], max_len: usize) -> Result<(u64, &[u8]), VarintError> {
    let mut n = 0_u64;
    for (i, &byte) in rest.iter().enumerate().take(max_len) {
        // The tenth byte has room for one bit.
        if i == MAX_LEN_64 - 1 && byte > 1 {
            return Err(VarintError::TooLong);
        }
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok((n, rest.get(i + 1..).unwrap_or_default()));
        }
    }
    Err(if rest.len() < max_len { VarintError::Truncated } else { VarintError::TooLong })
}

/// Eight bytes in a register, from which numbers of one or two bytes are taken without looking at memory again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word {
    bits: u64,
    used: usize,
}

impl Word {
    /// `bytes` without the first `skip`.
    #[inline(always)]
    pub(crate) fn new(bytes: [u8; 8], skip: usize) -> Self {
        Self { bits: u64::from_le_bytes(bytes) >> (8 * skip), used: skip }
    }

    /// The next number; `None` when it takes more than two bytes. At most eight bytes may be asked for in all.
    #[inline(always)]
    pub(crate) fn take_small(&mut self) -> Option<i32> {
        let bits = self.bits;
        let (n, len) = if bits & 0x80 == 0 {
            (bits & 0x7f, 1)
        } else if bits & 0x8000 == 0 {
            (bits & 0x7f | (bits >> 1) & 0x3f80, 2)
        } else {
            return None;
        };
        self.bits >>= 8 * len;
        self.used += len;
        Some(unzigzag_32(n as u32))
    }

    /// How many bytes were skipped and taken.
    #[inline(always)]
    pub(crate) const fn used(self) -> usize {
        self.used
    }
}

/// A number in its wire form, in a register: the first byte in the low bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoded {
    pub(crate) bits: u64,
    pub(crate) len: usize,
}

/// The wire form of `n`: one to [`MAX_LEN_32`] bytes.
#[inline(always)]
pub(crate) fn encode_i32(n: i32) -> Encoded {
    let n = u64::from(zigzag_32(n));
    if n < 1 << 7 {
        Encoded { bits: n, len: 1 }
    } else if n < 1 << 14 {
        Encoded { bits: n & 0x7f | 0x80 | n >> 7 << 8, len: 2 }
    } else {
        encode_long(n)
    }
}

/// For the numbers of 15 to 32 bits.
#[inline(never)]
fn encode_long(mut n: u64) -> Encoded {
    let (mut bits, mut len) = (0, 0);
    while n >= 0x80 {
        bits |= (n & 0x7f | 0x80) << (8 * len);
        n >>= 7;
        len += 1;
    }
    Encoded { bits: bits | n << (8 * len), len: len + 1 }
}

/// The wire form of `n` and its length: one to [`MAX_LEN_64`] bytes.
#[inline(never)]
pub(crate) fn encode_i64(n: i64) -> ([u8; MAX_LEN_64], usize) {
    let mut n = zigzag_64(n);
    let mut bytes = [0; MAX_LEN_64];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = n as u8 & 0x7f;
        n >>= 7;
        if n == 0 {
            return (bytes, i + 1);
        }
        *byte |= 0x80;
    }
    // Not reached: ten times seven bits are more than 64.
    (bytes, MAX_LEN_64)
}

#[inline(always)]
const fn zigzag_32(n: i32) -> u32 {
    ((n << 1) ^ (n >> 31)) as u32
}
#[inline(always)]
const fn zigzag_64(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}
#[inline(always)]
const fn unzigzag_32(n: u32) -> i32 {
    (n >> 1) as i32 ^ -((n & 1) as i32)
}
#[inline(always)]
const fn unzigzag_64(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write_i32(n: i32) -> Vec<u8> {
        let encoded = encode_i32(n);
        encoded.bits.to_le_bytes()[..encoded.len].to_vec()
    }
    fn write_i64(n: i64) -> Vec<u8> {
        let (bytes, len) = encode_i64(n);
        bytes[..len].to_vec()
    }

    #[test]
    fn numbers_take_the_bytes_that_the_protocol_says() {
        assert_eq!(write_i32(0), [0]);
        assert_eq!(write_i32(-1), [1]);
        assert_eq!(write_i32(63), [126]);
        assert_eq!(write_i32(-64), [127]);
        assert_eq!(write_i32(64), [0x80, 1]);
        assert_eq!(write_i32(i32::MAX), [0xfe, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(write_i32(i32::MIN), [0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(write_i64(i64::MIN), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    }

    #[test]
    fn a_number_is_written_alike_in_both_widths() {
        for bits in 0..31 {
            for n in [1_i32 << bits, (1 << bits) - 1, -(1 << bits), -(1 << bits) - 1] {
                assert_eq!(write_i32(n), write_i64(n.into()), "{n}");
            }
        }
    }

    #[test]
    fn a_word_gives_its_small_numbers_one_after_the_other() {
        let mut word = Word::new([9, 0x80, 1, 3, 0xff, 0x7f, 0x80, 0x80], 1);
        assert_eq!(word.take_small(), Some(64));
        assert_eq!(word.take_small(), Some(-2));
        assert_eq!(word.take_small(), Some(-8192));
        assert_eq!(word.used(), 6);
        assert_eq!(word.take_small(), None);
    }

    #[test]
    fn a_number_cut_short_or_too_long_is_refused() {
        let whole = write_i64(i64::MIN);
        for cut in 0..whole.len() {
            assert_eq!(take_i64(&mut &whole[..cut]), Err(VarintError::Truncated));
        }
        for cut in 0..5 {
            assert_eq!(take_i32(&mut &whole[..cut]), Err(VarintError::Truncated));
        }
        assert_eq!(take_i32(&mut &whole[..]), Err(VarintError::TooLong));
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x10][..]), Err(VarintError::TooLong));
        assert_eq!(take_i64(&mut &[0xff; 11][..]), Err(VarintError::TooLong));
        let mut two = [0xff; 10];
        two[9] = 2;
        assert_eq!(take_i64(&mut &two[..]), Err(VarintError::TooLong));
    }

    #[test]
    fn a_longer_form_than_needed_is_read() {
        assert_eq!(take_i32(&mut &[0x80, 0x80, 0x00][..]), Ok(0));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(n: i64, shift in 0_u32..64, tail: [u8; 3]) {
            let n = n >> shift;
            let mut bytes = write_i64(n);
            bytes.extend(tail);
            let mut rest = &bytes[..];
            prop_assert_eq!(take_i64(&mut rest), Ok(n));
            prop_assert_eq!(rest, &tail);
            if let Ok(n) = i32::try_from(n) {
                let mut rest = &bytes[..];
                prop_assert_eq!(take_i32(&mut rest), Ok(n));
                prop_assert_eq!(rest, &tail);
            }
        }

        #[test]
        fn arbitrary_bytes_give_a_number_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut rest = &bytes[..];
            if take_i32(&mut rest).is_ok() {
                prop_assert!(rest.len() < bytes.len());
            }
            let mut rest = &bytes[..];
            if take_i64(&mut rest).is_ok() {
                prop_assert!(rest.len() < bytes.len());
            }
        }
    }
}
