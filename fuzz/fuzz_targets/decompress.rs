//! Any bytes through each decompressor: no panic, no more than the limit, and memory within the stated multiples.
//! The first byte says the codec and the limit.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use muslin::ErrorKind;
use muslin::codec::compression::{Compression, decompress};
use muslin_fuzz::peak_of;

fuzz_target!(|data: &[u8]| {
    let Some((how, bytes)) = data.split_first() else { return };
    let codec = Compression::ALL[1 + usize::from(how & 3)];
    let limit = 1_usize << (how >> 2 & 31).min(24);
    let input = Bytes::copy_from_slice(bytes);
    let (out, peak) = peak_of(|| decompress(codec, &input, limit));
    // What the module's page states, with the codec's own tables.
    let ahead = match codec {
        Compression::None => 0,
        Compression::Gzip => 3 * limit,
        Compression::Snappy => 22 * input.len(),
        Compression::Lz4 => 255 * input.len(),
        Compression::Zstd => 128 * 1024 * (1 + input.len() / 3),
    };
    let produced = out.as_ref().map_or(0, Bytes::len);
    let allowed = 3 * produced + ahead.min(3 * limit) + (1 << 20);
    assert!(
        peak <= allowed,
        "{codec}: {} bytes in, {produced} out, limit {limit}: {peak} allocated",
        input.len()
    );
    match out {
        Ok(out) => assert!(out.len() <= limit),
        Err(e) => assert!(
            matches!(e.kind(), ErrorKind::Malformed | ErrorKind::TooLarge | ErrorKind::Unsupported),
            "{}",
            e.report()
        ),
    }
});
