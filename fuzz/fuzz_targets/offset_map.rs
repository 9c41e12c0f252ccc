//! Any text as a commit's metadata, and any ranges written and read back. The first 8 bytes are the committed offset;
//! of the rest the text is taken, and the ranges.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muslin::Offset;
use muslin::delivery::offset_map::{MAX_LEN, OffsetMap};
use muslin_fuzz::{crc32c, peak_of};

fuzz_target!(|data: &[u8]| {
    let Some((base, rest)) = data.split_first_chunk::<8>() else { return };
    let base = Offset(i64::from_le_bytes(*base) & i64::MAX);

    let text = String::from_utf8_lossy(rest);
    // And of both kinds, with the checksum put right, so that the inside is reached.
    let signed: Vec<_> = (0..2).map(|kind| sign(kind, base, rest)).collect();
    for metadata in [text.as_ref(), &format!("mu1:{text}"), &signed[0], &signed[1]] {
        for base in [base, Offset(0)] {
            let (map, peak) = peak_of(|| OffsetMap::decode(base, metadata));
            assert!(peak <= 150 * metadata.len() + 1024, "{peak} bytes for {} of metadata", metadata.len());
            if let Ok(map) = map {
                check(base, &map);
                // What was read can be written; in full where there is room.
                let written = OffsetMap::encode(base, map.ranges(), i16::MAX as usize);
                if !map.is_empty() {
                    assert_eq!(OffsetMap::decode(base, &written).as_ref(), Ok(&map));
                }
            }
        }
    }

    // Gap and length by turns.
    let mut next = base.get();
    let mut ranges = Vec::new();
    for pair in rest.chunks_exact(2) {
        let wide = if pair[0] & 0x80 == 0 { 1 } else { 1000 };
        let Some(start) = next.checked_add(1 + i64::from(pair[0] & 0x7f) * wide) else { break };
        let Some(last) = start.checked_add(i64::from(pair[1]) * wide) else { break };
        let Some(after) = last.checked_add(1) else { break };
        ranges.push(Offset(start)..=Offset(last));
        next = after;
    }
    for limit in [MAX_LEN, 100, 20, 0] {
        let written = OffsetMap::encode(base, ranges.iter().cloned(), limit);
        assert!(written.len() <= limit && written.is_ascii());
        if written.is_empty() {
            continue;
        }
        let map = OffsetMap::decode(base, &written).unwrap();
        check(base, &map);
        // Cut from the far end, never made up.
        let read: Vec<_> = map.ranges().collect();
        for (i, range) in read.iter().enumerate() {
            let of = &ranges[i];
            let is_last = i + 1 == read.len();
            assert!(
                range.start() == of.start() && (range.end() == of.end() || is_last && range.end() < of.end())
            );
        }
    }
});

fn check(base: Offset, map: &OffsetMap) {
    let mut before: Option<Offset> = None;
    let mut count = 0_u64;
    for range in map.ranges() {
        assert!(range.start() <= range.end() && *range.start() >= base);
        if let Some(before) = before {
            assert!(range.start().get() - before.get() > 1, "ranges touch");
        }
        count = count.saturating_add(range.end().get().abs_diff(range.start().get()).saturating_add(1));
        before = Some(*range.end());
    }
    assert_eq!(map.len(), count);
}

/// Metadata with `body`, as the module's page describes it: kind, base as a varint, body, CRC-32C, in base64url.
fn sign(kind: u8, base: Offset, body: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut content = vec![kind];
    let mut n = base.get() as u64;
    while n >= 0x80 {
        content.push(n as u8 | 0x80);
        n >>= 7;
    }
    content.push(n as u8);
    content.extend_from_slice(body);
    let check = crc32c(&content);
    content.extend_from_slice(&check.to_le_bytes());
    let mut text = String::from("mu1:");
    for chunk in content.chunks(3) {
        let group = (0..3).fold(0, |group, i| group << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        for i in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * i) & 63) as usize]));
        }
    }
    text
}
