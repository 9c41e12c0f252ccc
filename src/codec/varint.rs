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
///
/// Behind the eight there are zeros: whoever has taken all numbers asks whether [`Self::used`] is more than 8.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word {
    bits: u64,
    used: usize,
}

impl Word {
    #[inline(always)]
    pub(crate) const fn new(bytes: [u8; 8]) -> Self {
        Self { bits: u64::from_le_bytes(bytes), used: 0 }
    }

    /// The next number as it stands, in zigzag form; `None` when it takes more than two bytes.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<Zigzag> {
        let bits = self.bits;
        if bits & 0x80 == 0 {
            self.bits = bits >> 8;
            self.used += 1;
            Some(Zigzag((bits & 0x7f) as u32))
        } else if bits & 0x8000 == 0 {
            self.bits = bits >> 16;
            self.used += 2;
            Some(Zigzag((bits & 0x7f | (bits >> 1) & 0x3f80) as u32))
        } else {
            None
        }
    }

    /// Leaves a byte out.
    #[inline(always)]
    pub(crate) fn skip_byte(&mut self) {
        self.bits >>= 8;
        self.used += 1;
    }

    /// How many bytes were skipped and taken.
    #[inline(always)]
    pub(crate) const fn used(self) -> usize {
        self.used
    }
}

/// A small number whose sign is its lowest bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Zigzag(u32);

impl Zigzag {
    /// Takes a number of one or two bytes off `rest`, of which two bytes at least are expected.
    #[inline(always)]
    pub(crate) fn take(rest: &mut &[u8]) -> Option<Self> {
        let [a, b, ref tail @ ..] = **rest else { return None };
        if a < 0x80 {
            *rest = rest.get(1..)?;
            Some(Self(a.into()))
        } else if b < 0x80 {
            *rest = tail;
            Some(Self(u32::from(a & 0x7f) | u32::from(b) << 7))
        } else {
            None
        }
    }

    /// The number.
    #[inline(always)]
    pub(crate) const fn get(self) -> i32 {
        unzigzag_32(self.0)
    }

    /// The number, if it is not negative.
    #[inline(always)]
    pub(crate) const fn unsigned(self) -> Option<u32> {
        if self.0 & 1 == 0 { Some(self.0 >> 1) } else { None }
    }

    /// Whether the number is -1, which stands for null where a length is expected.
    #[inline(always)]
    pub(crate) const fn is_null(self) -> bool {
        self.0 == 1
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

/// A number whose wire form takes one or two bytes: -8192 to 8191.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Short(u64);

impl Short {
    #[inline(always)]
    pub(crate) fn new(n: i64) -> Option<Self> {
        let n = zigzag_64(n);
        (n < 1 << 14).then_some(Self(n))
    }

    /// The same for a number that is not negative: its sign need not be folded in.
    #[inline(always)]
    pub(crate) fn unsigned(n: u64) -> Option<Self> {
        (n < 1 << 13).then_some(Self(n << 1))
    }

    /// The length of `part`; -1 for null.
    #[inline(always)]
    pub(crate) fn length(part: Option<&[u8]>) -> Option<Self> {
        match part {
            Some(part) => Self::unsigned(part.len() as u64),
            None => Some(Self(1)),
        }
    }

    #[inline(always)]
    pub(crate) const fn len(self) -> usize {
        1 + (self.0 >= 1 << 7) as usize
    }

    #[inline(always)]
    pub(crate) const fn encoded(self) -> Encoded {
        let Self(n) = self;
        let bits = if n < 1 << 7 { n } else { n & 0x7f | 0x80 | n >> 7 << 8 };
        Encoded { bits, len: self.len() }
    }

    /// The number and a byte of zero behind it.
    #[inline(always)]
    pub(crate) const fn with_zero(self) -> Encoded {
        let Encoded { bits, len } = self.encoded();
        Encoded { bits, len: len + 1 }
    }
}

impl Encoded {
    /// `next` behind this, which takes six bytes at most.
    #[inline(always)]
    pub(crate) const fn then(self, next: Short) -> Self {
        let next = next.encoded();
        Self { bits: self.bits | next.bits << (8 * self.len), len: self.len + next.len }
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
    fn a_short_number_is_written_as_any_other() {
        for n in [0, 1, -1, 63, -64, 64, -65, 300, 8191, -8192] {
            let short = Short::new(n.into()).unwrap();
            assert_eq!(short.encoded().bits.to_le_bytes()[..short.len()], write_i32(n));
            let both = short.with_zero().then(short);
            assert_eq!(both.bits.to_le_bytes()[..both.len], [write_i32(n), vec![0], write_i32(n)].concat());
        }
        assert_eq!(Short::unsigned(8191).unwrap().0, Short::new(8191).unwrap().0);
        assert_eq!(Short::length(None).unwrap().0, Short::new(-1).unwrap().0);
        assert!(Short::unsigned(8192).is_none());
        assert!(Short::new(8192).is_none() && Short::new(-8193).is_none() && Short::new(i64::MIN).is_none());
    }

    #[test]
    fn a_word_gives_its_small_numbers_one_after_the_other() {
        let mut word = Word::new([0x80, 1, 9, 3, 0xff, 0x7f, 0x80, 0x80]);
        assert_eq!(word.take().unwrap().unsigned(), Some(64));
        word.skip_byte();
        assert_eq!(word.take().unwrap().get(), -2);
        assert_eq!(word.take().unwrap().get(), -8192);
        assert_eq!(word.used(), 6);
        assert_eq!(word.take(), None);

        // A number that goes on behind the word is told by what was used.
        let mut word = Word::new([1, 0, 0, 0, 0, 0, 0, 0x80]);
        assert!(word.take().unwrap().is_null());
        (0..6).for_each(|_| word.skip_byte());
        assert!(word.take().is_some() && word.used() == 9);
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
