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
        _ => take_i32_long(rest),
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
        _ => take_i64_long(rest),
    }
}

#[cold]
#[inline(never)]
fn take_i32_long(rest: &mut &[u8]) -> Result<i32, VarintError> {
    let n = take_u64(rest, MAX_LEN_32)?;
    u32::try_from(n).map(unzigzag_32).map_err(|_| VarintError::TooLong)
}

#[inline(never)]
fn take_i64_long(rest: &mut &[u8]) -> Result<i64, VarintError> {
    take_u64(rest, MAX_LEN_64).map(unzigzag_64)
}

fn take_u64(rest: &mut &[u8], max_len: usize) -> Result<u64, VarintError> {
    let mut n = 0_u64;
    for (i, &byte) in rest.iter().enumerate().take(max_len) {
        // The tenth byte has room for one bit.
        if i == MAX_LEN_64 - 1 && byte > 1 {
            return Err(VarintError::TooLong);
        }
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *rest = rest.get(i + 1..).unwrap_or_default();
            return Ok(n);
        }
    }
    Err(if rest.len() < max_len { VarintError::Truncated } else { VarintError::TooLong })
}

/// How many bytes `n` takes.
#[inline(always)]
pub(crate) const fn len_i32(n: i32) -> usize {
    len_u64(zigzag_32(n) as u64)
}

/// How many bytes `n` takes.
#[inline(always)]
pub(crate) const fn len_i64(n: i64) -> usize {
    len_u64(zigzag_64(n))
}

#[inline(always)]
const fn len_u64(n: u64) -> usize {
    // ceil(bits / 7) without a division, for 1 to 64 bits: 9/64 is a little over 1/7.
    let bits = 64 - (n | 1).leading_zeros();
    ((bits * 9 + 64) / 64) as usize
}

/// Writes `n` at `at` and returns where the next byte goes. The caller keeps [`MAX_LEN_32`] bytes of room.
#[inline(always)]
pub(crate) fn put_i32(buf: &mut [u8], at: usize, n: i32) -> usize {
    put_u64(buf, at, u64::from(zigzag_32(n)))
}

/// Writes `n` at `at` and returns where the next byte goes. The caller keeps [`MAX_LEN_64`] bytes of room.
#[inline(always)]
pub(crate) fn put_i64(buf: &mut [u8], at: usize, n: i64) -> usize {
    put_u64(buf, at, zigzag_64(n))
}

#[inline(always)]
fn put_u64(buf: &mut [u8], mut at: usize, mut n: u64) -> usize {
    while n >= 0x80 {
        buf[at] = n as u8 | 0x80;
        at += 1;
        n >>= 7;
    }
    buf[at] = n as u8;
    at + 1
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
        let mut buf = [0; MAX_LEN_32];
        let len = put_i32(&mut buf, 0, n);
        buf[..len].to_vec()
    }
    fn write_i64(n: i64) -> Vec<u8> {
        let mut buf = [0; MAX_LEN_64];
        let len = put_i64(&mut buf, 0, n);
        buf[..len].to_vec()
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
    fn every_length_is_told_before_it_is_written() {
        for bits in 0..64 {
            for n in [1_i64 << bits, (1_i64 << bits).wrapping_sub(1), (1_i64 << bits).wrapping_neg()] {
                assert_eq!(len_i64(n), write_i64(n).len(), "{n}");
                if let Ok(n) = i32::try_from(n) {
                    assert_eq!(len_i32(n), write_i32(n).len(), "{n}");
                }
            }
        }
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
