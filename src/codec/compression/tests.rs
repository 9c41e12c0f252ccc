use proptest::prelude::*;

use super::*;

const AVAILABLE: &[Compression] = &[
    Compression::None,
    #[cfg(feature = "gzip")]
    Compression::Gzip,
    #[cfg(feature = "snappy")]
    Compression::Snappy,
    #[cfg(feature = "lz4")]
    Compression::Lz4,
    #[cfg(feature = "zstd")]
    Compression::Zstd,
];

fn packed(codec: Compression, input: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    compress(codec, None, input, &mut out).unwrap();
    out.freeze()
}

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>().into()
}

/// Text with repeats, near and far: every codec finds something in it.
fn text(len: usize) -> Vec<u8> {
    (0..)
        .flat_map(|i: u32| format!("{{\"order\":{i},\"total\":{}}}\n", i * 7919 % 1000).into_bytes())
        .take(len)
        .collect()
}

/// Bytes without any structure (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9E37_79B9_u32;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as u8
        })
        .collect()
}

#[test]
fn a_codec_has_one_number_and_one_name() {
    for codec in Compression::ALL {
        assert_eq!(Compression::from_id(codec.id()).unwrap(), codec);
        assert_eq!(codec.name().parse::<Compression>().unwrap(), codec);
        assert_eq!(format!("{codec:>6}").trim_start(), codec.name());
    }
    for id in 5..=255 {
        assert_eq!(Compression::from_id(id).unwrap_err().kind(), ErrorKind::Malformed);
    }
    let e = "GZIP".parse::<Compression>().unwrap_err();
    assert_eq!(e.message(), "compression \"GZIP\" is unknown; expected none, gzip, snappy, lz4 or zstd");
}

#[test]
fn a_codec_whose_feature_is_off_names_the_feature() {
    for codec in Compression::ALL.into_iter().filter(|codec| !AVAILABLE.contains(codec)) {
        assert!(!codec.is_available());
        for e in [
            compress(codec, None, b"x", &mut BytesMut::new()).unwrap_err(),
            decompress(codec, &Bytes::from_static(b"x"), 10).unwrap_err(),
        ] {
            assert_eq!(e.kind(), ErrorKind::Unsupported);
            assert!(e.message().contains(&format!("cargo feature `{codec}`")), "{e}");
        }
    }
}

#[test]
fn what_was_compressed_comes_back_behind_what_stood_there() {
    for &codec in AVAILABLE {
        for len in [0, 1, 10, 1000, 32 * 1024, 32 * 1024 + 1, 64 * 1024, 64 * 1024 + 1, 300_000, 1_500_000] {
            for input in [text(len), noise(len), vec![0; len]] {
                let mut out = BytesMut::from(&b"before"[..]);
                compress(codec, None, &input, &mut out).unwrap();
                assert_eq!(out.split_to(6), b"before"[..]);
                assert!(out.len() <= len + len / 1000 + 64, "{codec}: {len} became {}", out.len());
                assert_eq!(decompress(codec, &out.freeze(), len).unwrap(), input, "{codec} {len}");
            }
        }
    }
}

#[test]
fn every_level_is_read_back_and_a_level_out_of_range_is_refused() {
    let input = text(50_000);
    for (codec, good, bad) in [
        (Compression::None, &[-1, 5][..], &[][..]),
        (Compression::Gzip, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[-1, 10, i32::MIN, i32::MAX]),
        (Compression::Snappy, &[-1, 5], &[]),
        (Compression::Lz4, &[1, 9, 17], &[]),
        (
            Compression::Zstd,
            &[
                -131_072, -5, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
                21, 22,
            ],
            &[-131_073, 23, i32::MIN, i32::MAX],
        ),
    ] {
        if !AVAILABLE.contains(&codec) {
            continue;
        }
        for &level in good {
            let mut out = BytesMut::new();
            compress(codec, Some(level), &input, &mut out).unwrap();
            assert_eq!(decompress(codec, &out.freeze(), input.len()).unwrap(), input, "{codec} {level}");
        }
        for &level in bad {
            let mut out = BytesMut::from(&b"before"[..]);
            let e = compress(codec, Some(level), &input, &mut out).unwrap_err();
            assert_eq!((e.kind(), &out[..]), (ErrorKind::Config, &b"before"[..]));
            assert!(e.message().contains(codec.name()) && e.message().contains("expected"), "{e}");
        }
    }
}

#[test]
fn the_limit_holds_to_the_byte() {
    for &codec in AVAILABLE {
        for input in [text(100_000), noise(100_000), vec![7; 3_000_000]] {
            let compressed = packed(codec, &input);
            assert_eq!(decompress(codec, &compressed, input.len()).unwrap(), input);
            for limit in [input.len() - 1, input.len() / 2, 1, 0] {
                let e = decompress(codec, &compressed, limit).unwrap_err();
                assert_eq!(e.kind(), ErrorKind::TooLarge, "{codec} {limit}: {e}");
                assert!(e.message().contains(&format!("limit of {limit} bytes")), "{e}");
            }
        }
    }
}

#[test]
fn a_cut_anywhere_is_an_error_and_never_fewer_bytes() {
    let input = text(3000);
    for &codec in &AVAILABLE[1..] {
        let compressed = packed(codec, &input);
        for cut in 0..compressed.len() {
            match decompress(codec, &compressed.slice(..cut), 1 << 20) {
                Err(e) => assert_eq!(e.kind(), ErrorKind::Malformed, "{codec} cut at {cut}: {e}"),
                // xerial has no end: between two chunks a cut cannot be seen. The batch's length and CRC see it.
                Ok(out) => {
                    assert!(codec == Compression::Snappy && cut == 16 && out.is_empty(), "{codec} {cut}")
                }
            }
        }
    }
}

#[test]
fn something_behind_the_end_is_an_error() {
    for &codec in &AVAILABLE[1..] {
        let mut compressed = packed(codec, &text(3000)).to_vec();
        compressed.extend_from_slice(b"trailing bytes");
        let e = decompress(codec, &compressed.into(), 1 << 20).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{codec}: {e}");
    }
}

#[test]
fn nothing_at_all_is_an_error() {
    for &codec in &AVAILABLE[1..] {
        assert_eq!(decompress(codec, &Bytes::new(), 10).unwrap_err().kind(), ErrorKind::Malformed, "{codec}");
    }
    assert!(decompress(Compression::None, &Bytes::new(), 0).unwrap().is_empty());
}

#[test]
fn concatenated_streams_are_read_as_one() {
    let parts = [text(100_000), Vec::new(), noise(5000), vec![1; 200_000]];
    for &codec in &AVAILABLE[1..] {
        let joined: Vec<u8> = parts.iter().flat_map(|part| packed(codec, part)).collect();
        let whole = parts.concat();
        assert_eq!(decompress(codec, &joined.clone().into(), whole.len()).unwrap(), whole, "{codec}");
        let e = decompress(codec, &joined.into(), whole.len() - 1).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TooLarge, "{codec}");
    }
}

#[test]
fn without_compression_the_memory_is_shared() {
    let input = Bytes::from(text(1000));
    assert_eq!(decompress(Compression::None, &input, 1000).unwrap().as_ptr(), input.as_ptr());
}

#[cfg(feature = "snappy")]
mod snappy {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_java_client() {
        // Stored by a broker for a batch of one record, as kafka-protocol's tests have it.
        let java = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x0f\x0d\x30\x18\0\0\0\x01\x0csdfdsf\0";
        let plain = b"\x18\0\0\0\x01\x0csdfdsf\0";
        assert_eq!(packed(Compression::Snappy, plain), java[..]);
    }

    #[test]
    fn a_raw_block_is_read() {
        for input in [text(200_000), noise(10), Vec::new()] {
            let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
            assert_eq!(decompress(Compression::Snappy, &raw.into(), input.len()).unwrap(), input);
        }
    }

    #[test]
    fn a_claim_that_the_format_cannot_keep_is_refused_before_any_memory() {
        // A varint of 4 GiB less 1, then a byte.
        let e = decompress(Compression::Snappy, &hex("ff ff ff ff 0f 00"), usize::MAX).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
        assert!(e.message().contains("claims to hold 4294967295"), "{e}");
        // The densest block that snap writes passes.
        let dense = snap::raw::Encoder::new().compress_vec(&vec![0; 1 << 20]).unwrap();
        assert!(decompress(Compression::Snappy, &dense.into(), 1 << 20).is_ok());
    }

    #[test]
    fn a_newer_framing_is_unsupported_and_not_damaged() {
        let input = hex("82 53 4e 41 50 50 59 00 00000002 00000002 00000001 00");
        let e = decompress(Compression::Snappy, &input, 10).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
    }

    #[test]
    fn a_chunk_longer_than_the_input_is_refused() {
        let input = hex("82 53 4e 41 50 50 59 00 00000001 00000001 7fffffff 00");
        let e = decompress(Compression::Snappy, &input, 10).unwrap_err();
        assert_eq!(e.message(), "snappy data is cut short: a chunk of 2147483647 bytes, 1 left");
    }
}

#[cfg(feature = "lz4")]
mod lz4 {
    use super::*;

    #[test]
    fn the_header_is_that_of_the_java_client() {
        assert_eq!(packed(Compression::Lz4, b""), hex("04224d18 60 40 82 00000000"));
    }

    #[test]
    fn frames_of_the_lz4_tool_are_read_and_their_checksums_checked() {
        // lz4 1.9.4, `lz4 -c OPTIONS` of "abc" 27 times.
        const BLOCK: &str = "0d000000 3f616263 030036 506263616263";
        let plain = "abc".repeat(27);
        for (options, frame) in [
            ("-B4 --no-frame-crc", format!("04224d18 60 40 82 {BLOCK} 00000000")),
            ("-BD -B4", format!("04224d18 64 40 a7 {BLOCK} 00000000 6f375639")),
            (
                "-BX --content-size",
                format!("04224d18 7c 40 5100000000000000 8d {BLOCK} 3d0307ad 00000000 6f375639"),
            ),
            ("-B4 -BD -BX", format!("04224d18 74 40 bd {BLOCK} 3d0307ad 00000000 6f375639")),
        ] {
            let frame = hex(&frame);
            let read = decompress(Compression::Lz4, &frame, 81).unwrap();
            assert_eq!(read, plain.as_bytes(), "{options}");
            // The header's checksum covers the header; where there are block checksums nothing else is uncovered.
            let covered = if options.contains("-BX") { frame.len() } else { 7 };
            for at in 0..covered {
                let mut damaged = frame.to_vec();
                damaged[at] ^= 1;
                let e = decompress(Compression::Lz4, &damaged.into(), 1 << 23).unwrap_err();
                // The flag for a dictionary is looked at before the checksum behind it.
                let expected = if at == 4 { ErrorKind::Unsupported } else { ErrorKind::Malformed };
                assert_eq!(e.kind(), expected, "{options} byte {at}: {e}");
            }
        }
    }

    #[test]
    fn linked_blocks_reach_back_into_the_blocks_before() {
        // Two blocks: "0123456789abcdef" stored, then a match of 16 bytes, 16 back, and 5 literals.
        let frame = hex(
            "04224d18 40 40 c0 10000080 30313233343536373839616263646566 09000000 0c1000 50 7879 7a7879 00000000",
        );
        let read = decompress(Compression::Lz4, &frame, 1000).unwrap();
        assert_eq!(read, b"0123456789abcdef0123456789abcdefxyzxy"[..]);
        // The same said to be of independent blocks reaches to nowhere.
        let frame = hex(
            "04224d18 60 40 82 10000080 30313233343536373839616263646566 09000000 0c1000 50 7879 7a7879 00000000",
        );
        assert_eq!(decompress(Compression::Lz4, &frame, 1000).unwrap_err().kind(), ErrorKind::Malformed);
    }

    #[test]
    fn a_linked_frame_does_not_reach_into_the_frame_before_it() {
        let mut frames = packed(Compression::Lz4, &text(1000)).to_vec();
        frames.extend_from_slice(&hex("04224d18 40 40 c0 09000000 0c1000 50 7879 7a7879 00000000"));
        assert_eq!(
            decompress(Compression::Lz4, &frames.into(), 5000).unwrap_err().kind(),
            ErrorKind::Malformed
        );
    }

    #[test]
    fn a_skippable_frame_is_skipped() {
        let mut frames = hex("502a4d18 03000000 ffffff").to_vec();
        frames.extend_from_slice(&packed(Compression::Lz4, b"after"));
        assert_eq!(decompress(Compression::Lz4, &frames.into(), 5).unwrap(), b"after"[..]);
    }

    #[test]
    fn what_is_not_read_says_so() {
        for (frame, kind, says) in [
            ("02214c18 00", ErrorKind::Malformed, "0x184c2102; expected 0x184d2204"), // the legacy format
            ("04224d18 61 40 00000000 00", ErrorKind::Unsupported, "preset dictionary"),
            ("04224d18 a0 40 00", ErrorKind::Malformed, "flags 0xa0 0x40"),
            ("04224d18 60 30 00", ErrorKind::Malformed, "block size code 3"),
            ("04224d18 60 40 83", ErrorKind::Malformed, "header whose checksum"),
            ("04224d18 60 40 82 01000100", ErrorKind::Malformed, "a block of 65537 bytes"),
        ] {
            let e = decompress(Compression::Lz4, &hex(frame), 100).unwrap_err();
            assert_eq!(e.kind(), kind, "{e}");
            assert!(e.message().contains(says), "{e}");
        }
    }
}

#[cfg(feature = "zstd")]
mod zstd {
    use super::*;

    #[test]
    fn a_header_cannot_claim_what_its_blocks_do_not_hold() {
        // Single segment, 8 bytes of content size: 64 MiB claimed by a block of 5 stored bytes.
        let e =
            decompress(Compression::Zstd, &hex("28b52ffd e0 0000000400000000 290000 6869206869"), usize::MAX)
                .unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
        assert!(e.message().contains("hold up to 5 claims 67108864"), "{e}");
    }

    #[test]
    fn a_window_above_128_mib_is_unsupported() {
        // Window descriptor 0x88: 128 MiB; 0x89: an eighth more.
        let frame = |descriptor: &str| hex(&format!("28b52ffd 00 {descriptor} 290000 6869206869"));
        assert_eq!(decompress(Compression::Zstd, &frame("88"), 5).unwrap(), b"hi hi"[..]);
        for descriptor in ["89", "90", "ff"] {
            let e = decompress(Compression::Zstd, &frame(descriptor), 5).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
            assert!(e.message().contains("134217728"), "{e}");
        }
    }

    #[test]
    fn a_preset_dictionary_is_unsupported() {
        let e = decompress(Compression::Zstd, &hex("28b52ffd 01 00 07 290000 6869206869"), 5).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
    }

    #[test]
    fn the_content_checksum_is_checked() {
        // `printf 'hi hi' | zstd -c`: stored, with a checksum.
        let frame = "28b52ffd 24 05 290000 6869206869";
        let right =
            decompress(Compression::Zstd, &hex(&format!("{frame} CHECK").replace("CHECK", CHECKSUM)), 5);
        assert_eq!(right.unwrap(), b"hi hi"[..]);
        let wrong = decompress(Compression::Zstd, &hex(&format!("{frame} 00000000")), 5).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Malformed);
    }

    const CHECKSUM: &str = "4061a553";

    #[test]
    fn a_frame_that_does_not_tell_its_size_may_hold_far_more_than_usual() {
        // Blocks of one byte repeated 128 Ki times: 4 bytes each.
        let blocks = 64;
        let mut frame = hex("28b52ffd 00 58").to_vec();
        for i in 0..blocks {
            let word = (128 * 1024) << 3 | 1 << 1 | u32::from(i == blocks - 1);
            frame.extend_from_slice(&word.to_le_bytes()[..3]);
            frame.push(i as u8);
        }
        let frame = Bytes::from(frame);
        let held = blocks * 128 * 1024;
        let out = decompress(Compression::Zstd, &frame, held).unwrap();
        assert!(
            out.len() == held
                && out.chunks(128 * 1024).enumerate().all(|(i, c)| c.iter().all(|&b| b == i as u8))
        );
        assert_eq!(decompress(Compression::Zstd, &frame, held - 1).unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn a_skippable_frame_is_skipped() {
        let mut frames = hex("502a4d18 03000000 ffffff").to_vec();
        frames.extend_from_slice(&packed(Compression::Zstd, b"after"));
        assert_eq!(decompress(Compression::Zstd, &frames.into(), 5).unwrap(), b"after"[..]);
        let e = decompress(Compression::Zstd, &hex("502a4d18 04000000 ffffff"), 5).unwrap_err();
        assert_eq!(e.message(), "zstd data is cut short in a skippable frame");
    }
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000),
        prop::collection::vec(0..4_u8, 0..5000),
        (prop::collection::vec(any::<u8>(), 1..50), 1..5000_usize).prop_map(|(unit, n)| unit.repeat(n)),
    ]
}

proptest! {
    #[test]
    fn any_input_comes_back(input in input(), slack in 0..100_usize) {
        for &codec in AVAILABLE {
            prop_assert_eq!(&decompress(codec, &packed(codec, &input), input.len() + slack).unwrap()[..], &input[..]);
        }
    }

    #[test]
    fn damage_is_an_error_or_other_bytes_within_the_limit(
        input in input(), at in any::<prop::sample::Index>(), xor in 1..=255_u8, limit in 0..100_000_usize
    ) {
        for &codec in &AVAILABLE[1..] {
            let mut damaged = packed(codec, &input).to_vec();
            let at = at.index(damaged.len());
            damaged[at] ^= xor;
            match decompress(codec, &damaged.into(), limit) {
                Ok(out) => prop_assert!(out.len() <= limit),
                Err(e) => prop_assert!(
                    matches!(e.kind(), ErrorKind::Malformed | ErrorKind::TooLarge | ErrorKind::Unsupported), "{}", e
                ),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_data_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (codec, magic) in [
            (Compression::Gzip, &b"\x1f\x8b\x08\0"[..]),
            (Compression::Snappy, b""),
            (Compression::Snappy, b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"),
            (Compression::Lz4, b"\x04\x22\x4d\x18\x60\x40\x82"),
            (Compression::Zstd, b"\x28\xb5\x2f\xfd"),
        ] {
            if codec.is_available() {
                for input in [bytes.clone(), [magic, &bytes].concat()] {
                    if let Ok(out) = decompress(codec, &input.into(), 100_000) {
                        prop_assert!(out.len() <= 100_000);
                    }
                }
            }
        }
    }
}
