//! What is done beyond a committed offset, as text in the commit's metadata.
//!
//! Kafka stores a string beside each committed offset (`OffsetCommit`, field `committed_metadata`) and limits its
//! length by the broker's `offset.metadata.max.bytes`, 4,096 by default. The map has this form:
//!
//! ```text
//! "mu1:" base64url without padding of
//!     kind        1 byte: 0 = bits, 1 = runs
//!     base        unsigned varint: the committed offset
//!     body        bits: bit i of the body, lowest first, is offset base + i; 1 is done
//!                 runs: varint pairs (not done, done) from base on; only the first `not done` may be 0
//!     check       4 bytes: CRC-32C of all before, little-endian
//! ```
//!
//! Of the two kinds the shorter is written. If neither fits, the one that keeps more is cut at its far end: what is cut
//! comes again after a crash, nothing is lost. The base and the check guard against metadata that was copied beside another
//! offset (mirroring tools do) or damaged: a wrong map would skip records.

use std::ops::RangeInclusive;

use super::ack_tracker::Position;
use crate::Offset;

/// The default longest metadata, in characters: the broker's default `offset.metadata.max.bytes`.
pub const MAX_LEN: usize = 4096;

const PREFIX: &str = "mu1:";
const BITS: u8 = 0;
const RUNS: u8 = 1;
const CHECK_LEN: usize = 4;
/// The longest string of Kafka's wire; longer ones are nothing we wrote.
const LONGEST: usize = i16::MAX as usize;

/// What [`AckTracker::restore`](super::AckTracker::restore) made of a commit's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Restored {
    /// A map: this many offsets beyond the committed one are done (gaps in the log included).
    Map {
        /// How many.
        offsets: u64,
    },
    /// The metadata is empty: nothing beyond is done.
    Empty,
    /// Another program's metadata, or a later version of this: ignored.
    Foreign,
    /// A map that belongs to another committed offset: ignored.
    OtherOffset {
        /// The offset it belongs to.
        base: Offset,
    },
    /// A map that is damaged: ignored.
    Damaged,
    /// The assignment has begun or is revoked: ignored.
    Late,
}

/// The offsets beyond a committed one that are done, as ascending ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetMap {
    /// First and last rank; ascending, not adjacent.
    ranges: Vec<(u64, u64)>,
}

impl OffsetMap {
    /// The done ranges, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<Offset>> {
        self.ranges.iter().map(|&(start, last)| Offset::from_rank(start)..=Offset::from_rank(last))
    }

    /// How many offsets are done.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().fold(0, |sum: u64, &(start, last)| sum.saturating_add(last - start + 1))
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Writes ascending, disjoint ranges at or above `base` as metadata of at most `limit` characters. Empty if there
    /// is nothing to say. Ranges out of order end the map before them.
    #[must_use]
    pub fn encode(
        base: Offset,
        ranges: impl IntoIterator<Item = RangeInclusive<Offset>>,
        limit: usize,
    ) -> String {
        let mut encoder = Encoder::new(base, limit);
        for range in ranges {
            if !range.is_empty() && !encoder.push(range.start().rank(), range.end().rank()) {
                break;
            }
        }
        encoder.finish()
    }

    /// Reads metadata that was committed with `base`. Needs memory of at most 150 times its length (every second offset
    /// done): 5 MB for the longest that is looked at, 32,767 characters.
    ///
    /// # Errors
    /// Why it holds no map for this offset, which is never a reason to stop.
    pub fn decode(base: Offset, metadata: &str) -> Result<Self, Restored> {
        if metadata.is_empty() {
            return Err(Restored::Empty);
        }
        let Some(text) = metadata.strip_prefix(PREFIX) else { return Err(Restored::Foreign) };
        if metadata.len() > LONGEST {
            return Err(Restored::Damaged);
        }
        let payload = base64_decode(text).ok_or(Restored::Damaged)?;
        let (content, check) = payload.split_last_chunk::<CHECK_LEN>().ok_or(Restored::Damaged)?;
        if crc(content) != u32::from_le_bytes(*check) {
            return Err(Restored::Damaged);
        }
        let (&kind, mut body) = content.split_first().ok_or(Restored::Damaged)?;
        let written = Offset(varint(&mut body).ok_or(Restored::Damaged)?.cast_signed());
        if written != base {
            return Err(Restored::OtherOffset { base: written });
        }
        let map = match kind {
            BITS => Self::from_bits(base.rank(), body),
            RUNS => Self::from_runs(base.rank(), body),
            _ => None,
        };
        map.ok_or(Restored::Damaged)
    }

    fn from_bits(base: u64, body: &[u8]) -> Option<Self> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (at, &byte) in (0u64..).zip(body) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                let rank = base.checked_add(at * 8 + bit)?;
                // The last number of all has none after it: no map is written with it.
                if rank == u64::MAX {
                    return None;
                }
                match ranges.last_mut() {
                    Some((_, last)) if *last + 1 == rank => *last = rank,
                    _ => ranges.push((rank, rank)),
                }
            }
        }
        Some(Self { ranges })
    }

    fn from_runs(base: u64, mut body: &[u8]) -> Option<Self> {
        let mut ranges = Vec::new();
        let mut at = base;
        while !body.is_empty() {
            let open = varint(&mut body)?;
            let done = varint(&mut body)?;
            if done == 0 || (open == 0 && !ranges.is_empty()) {
                return None;
            }
            let start = at.checked_add(open)?;
            at = start.checked_add(done)?;
            ranges.push((start, at - 1));
        }
        Some(Self { ranges })
    }
}

/// Writes both kinds side by side, each to its limit.
pub(super) struct Encoder {
    base: u64,
    /// The head of the payload: `kind` is set at the end.
    head: Vec<u8>,
    /// How many bytes the body may take.
    room: usize,
    bits: Kind,
    runs: Kind,
    /// Where the last pair of `runs` ended.
    at: u64,
    /// The range that the next one may still extend.
    open: Option<(u64, u64)>,
}

#[derive(Default)]
struct Kind {
    body: Vec<u8>,
    covered: u64,
    full: bool,
}

impl Encoder {
    pub(super) fn new(base: Offset, limit: usize) -> Self {
        let mut head = vec![BITS];
        put_varint(&mut head, base.0.cast_unsigned());
        // Four characters carry three bytes; a rest of two or three carries one or two.
        let payload = limit.min(LONGEST).saturating_sub(PREFIX.len()) * 3 / 4;
        let room = payload.saturating_sub(head.len() + CHECK_LEN);
        Self {
            base: base.rank(),
            head,
            room,
            bits: Kind::default(),
            runs: Kind::default(),
            at: base.rank(),
            open: None,
        }
    }

    /// Adds a range of ranks above the last one. `false` if no more will fit, or it is not above.
    pub(super) fn push(&mut self, start: u64, last: u64) -> bool {
        let low = self.open.map_or(self.base, |(_, last)| last.saturating_add(1));
        if start < low || last < start || last == u64::MAX {
            return false;
        }
        match &mut self.open {
            Some((_, end)) if *end + 1 == start => *end = last,
            open => {
                if let Some((start, last)) = open.replace((start, last)) {
                    self.write(start, last);
                }
            }
        }
        !(self.bits.full && self.runs.full)
    }

    fn write(&mut self, start: u64, last: u64) {
        if !self.runs.full {
            let before = self.runs.body.len();
            put_varint(&mut self.runs.body, start - self.at);
            put_varint(&mut self.runs.body, last - start + 1);
            if self.runs.body.len() > self.room {
                self.runs.body.truncate(before);
                self.runs.full = true;
            } else {
                self.runs.covered += last - start + 1;
                self.at = last + 1;
            }
        }
        if !self.bits.full {
            let room = self.room as u64 * 8;
            let (from, to) = (start - self.base, last - self.base);
            self.bits.full = to >= room;
            if from < room {
                let to = to.min(room - 1);
                // At most `room` bytes, a few thousand: `to / 8` is below it.
                self.bits.body.resize(to as usize / 8 + 1, 0);
                for bit in from..=to {
                    if let Some(byte) = self.bits.body.get_mut(bit as usize / 8) {
                        *byte |= 1 << (bit % 8);
                    }
                }
                self.bits.covered += to - from + 1;
            }
        }
    }

    pub(super) fn finish(mut self) -> String {
        if let Some((start, last)) = self.open.take() {
            self.write(start, last);
        }
        let rank = |kind: &Kind| (kind.covered, std::cmp::Reverse(kind.body.len()));
        let (kind, chosen) =
            if rank(&self.bits) > rank(&self.runs) { (BITS, self.bits) } else { (RUNS, self.runs) };
        if chosen.covered == 0 {
            return String::new();
        }
        let mut payload = self.head;
        if let Some(first) = payload.first_mut() {
            *first = kind;
        }
        payload.extend_from_slice(&chosen.body);
        let check = crc(&payload);
        payload.extend_from_slice(&check.to_le_bytes());
        base64_encode(PREFIX, &payload)
    }
}

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A varint of at most 64 bits, in its shortest form or not.
fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        n |= part << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

/// RFC 4648, section 5.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64_encode(prefix: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(prefix.len() + bytes.len().div_ceil(3) * 4);
    text.push_str(prefix);
    for chunk in bytes.chunks(3) {
        let group =
            (0..3).fold(0u32, |group, at| group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..=chunk.len() {
            let six = (group >> (18 - 6 * at)) as usize & 63;
            text.push(char::from(ALPHABET.get(six).copied().unwrap_or(b'A')));
        }
    }
    text
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0u32;
        for &c in chunk {
            let six = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(six);
        }
        let [_, a, b, c] = (group << (6 * (4 - chunk.len()))).to_be_bytes();
        match chunk.len() {
            4 => bytes.extend_from_slice(&[a, b, c]),
            3 if c == 0 => bytes.extend_from_slice(&[a, b]),
            2 if b == 0 && c == 0 => bytes.push(a),
            _ => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn map(base: i64, ranges: &[(i64, i64)], limit: usize) -> String {
        OffsetMap::encode(Offset(base), ranges.iter().map(|&(a, b)| Offset(a)..=Offset(b)), limit)
    }

    fn read(base: i64, text: &str) -> Vec<(i64, i64)> {
        let map = OffsetMap::decode(Offset(base), text).unwrap();
        map.ranges().map(|range| (range.start().0, range.end().0)).collect()
    }

    /// A payload with a right check.
    fn sealed(content: &[u8]) -> String {
        base64_encode(PREFIX, &[content, &crc(content).to_le_bytes()].concat())
    }

    #[test]
    fn the_text_form_is_stable() {
        // What a group has committed with one version the next must read.
        assert_eq!(read(300, &map(300, &[(302, 304)], 4096)), [(302, 304)]);
        assert_eq!(map(300, &[(302, 304)], 4096), "mu1:AKwCHB5l0_4");
        assert_eq!(map(300, &[], 4096), "");
    }

    #[test]
    fn the_shorter_of_the_two_forms_is_written() {
        let kind = |text: &str| base64_decode(text.strip_prefix(PREFIX).unwrap()).unwrap()[0];
        let every_second: Vec<_> = (0..400).map(|n| (2 * n + 1, 2 * n + 1)).collect();
        assert_eq!(kind(&map(0, &every_second, 4096)), BITS);
        assert_eq!(kind(&map(0, &[(1, 1_000_000)], 4096)), RUNS);
        assert!(map(0, &[(1, 1_000_000)], 4096).len() < 24);
    }

    #[test]
    fn adjacent_ranges_join() {
        assert_eq!(read(0, &map(0, &[(0, 3), (4, 5), (7, 7)], 4096)), [(0, 5), (7, 7)]);
    }

    #[test]
    fn a_range_out_of_order_ends_the_map_before_it() {
        assert_eq!(read(10, &map(10, &[(12, 13), (11, 11), (20, 20)], 4096)), [(12, 13)]);
        assert_eq!(map(10, &[(2, 3)], 4096), "");
        assert_eq!(map(10, &[(i64::MAX, i64::MAX)], 4096), "");
    }

    #[test]
    fn a_limit_too_small_for_anything_gives_no_map() {
        for limit in 0..14 {
            assert_eq!(map(0, &[(1, 1)], limit), "", "{limit}");
        }
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let text = map(1000, &[(1002, 1090), (1100, 1100), (1200, 9000)], 4096);
        for at in PREFIX.len()..text.len() {
            for c in ["A", "_", "7", "=", "\u{e9}"] {
                let mut other = text.clone();
                other.replace_range(at..=at, c);
                if other != text {
                    assert_eq!(OffsetMap::decode(Offset(1000), &other), Err(Restored::Damaged), "{other}");
                }
            }
            assert_eq!(OffsetMap::decode(Offset(1000), &text[..at]), Err(Restored::Damaged));
        }
    }

    #[test]
    fn a_map_that_no_writer_makes_is_damaged_even_with_a_right_check() {
        let cases: [&[u8]; 9] = [
            &[],
            &[RUNS],
            &[9, 0],
            &[RUNS, 0, 5],
            &[RUNS, 0, 1, 0],
            &[RUNS, 0, 1, 1, 0, 1],
            &[RUNS, 0, 0xff],
            &[RUNS, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1],
            &[RUNS, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 1],
        ];
        for content in cases {
            assert_eq!(OffsetMap::decode(Offset(0), &sealed(content)), Err(Restored::Damaged), "{content:?}");
        }
        assert_eq!(read(0, &sealed(&[RUNS, 0, 1, 1])), [(1, 1)]);
        // Bits past the largest offset of all.
        let mut content = vec![BITS];
        put_varint(&mut content, i64::MAX.cast_unsigned());
        content.push(0b10);
        assert_eq!(OffsetMap::decode(Offset(i64::MAX), &sealed(&content)), Err(Restored::Damaged));
        // The largest offset itself, which has no next one to commit.
        let near = i64::MAX - 7;
        let bits = |bits| {
            let mut content = vec![BITS];
            put_varint(&mut content, near.cast_unsigned());
            content.push(bits);
            sealed(&content)
        };
        assert_eq!(OffsetMap::decode(Offset(near), &bits(0xc4)), Err(Restored::Damaged));
        assert_eq!(read(near, &bits(0x44)), [(near + 2, near + 2), (near + 6, near + 6)]);
        let long = format!("{PREFIX}{}", "A".repeat(LONGEST));
        assert_eq!(OffsetMap::decode(Offset(0), &long), Err(Restored::Damaged));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn what_is_written_is_read_back_up_to_where_it_is_cut(
            base in prop_oneof![Just(0i64), -5i64..1_000_000_000_000],
            steps in prop::collection::vec((1u32..40, 1u32..20), 0..40),
            limit in prop_oneof![Just(4096usize), 0usize..80],
        ) {
            let mut done = BTreeSet::new();
            let mut ranges = Vec::new();
            let mut at = base;
            for (open, len) in steps {
                let start = at + i64::from(open);
                at = start + i64::from(len);
                ranges.push((start, at - 1));
                done.extend(start..at);
            }
            let text = map(base, &ranges, limit);
            prop_assert!(text.len() <= limit && text.is_ascii());
            if text.is_empty() {
                prop_assert!(done.is_empty() || limit < 40);
            } else {
                let kept: BTreeSet<i64> = read(base, &text).into_iter().flat_map(|(a, b)| a..=b).collect();
                let end = *kept.last().unwrap();
                let expected: BTreeSet<i64> = done.range(..=end).copied().collect();
                prop_assert_eq!(&kept, &expected, "nothing but the far end is cut");
                prop_assert!(limit < 4096 || kept == done);
            }
        }

        #[test]
        fn arbitrary_text_and_payloads_never_panic(
            text in ".{0,60}",
            content in prop::collection::vec(any::<u8>(), 0..60),
            base in any::<i64>(),
        ) {
            let _ = OffsetMap::decode(Offset(base), &text);
            let _ = OffsetMap::decode(Offset(base), &format!("{PREFIX}{text}"));
            let mut payload = vec![content.first().copied().unwrap_or(0) & 1];
            put_varint(&mut payload, base.cast_unsigned());
            payload.extend_from_slice(&content);
            if let Ok(map) = OffsetMap::decode(Offset(base), &sealed(&payload)) {
                let all: Vec<_> = map.ranges().collect();
                prop_assert!(all.windows(2).all(|w| w[0].end() < w[1].start()));
                prop_assert!(all.len() <= 4 * content.len());
            }
        }

        #[test]
        fn base64_carries_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            prop_assert_eq!(base64_decode(&base64_encode("", &bytes)), Some(bytes));
        }
    }
}
