//! Any input through each compressor and back, at any level. The first two bytes say how often it is repeated and the
//! level.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use muslin::codec::compression::{Compression, compress, decompress};

fuzz_target!(|data: &[u8]| {
    let [times, level, unit @ ..] = data else { return };
    let input = unit.repeat(usize::from(*times).min(200_000 / (unit.len() + 1)).max(1));
    for codec in Compression::ALL {
        let level = match codec {
            Compression::Gzip => Some(i32::from(level % 10)),
            Compression::Zstd => Some(i32::from(level % 26) - 4),
            _ => None,
        };
        let mut out = BytesMut::new();
        compress(codec, level, &input, &mut out).unwrap();
        assert!(out.len() <= input.len() + input.len() / 1000 + 64, "{codec}");
        let back = decompress(codec, &out.freeze(), input.len())
            .unwrap_or_else(|e| panic!("{codec}: {}", e.report()));
        assert!(back == input, "{codec} {level:?}: other bytes came back");
    }
});
