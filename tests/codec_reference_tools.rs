//! The codecs against the reference tools, both ways: `gzip`, `lz4`, `zstd`, and the snappy-java of the Java client.
//!
//! Needs those three in PATH, `java`, and `KAFKA_LIBS`, the folder of Kafka's jars (`scripts/brokers.sh libs`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails the test")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::{Bytes, BytesMut};
use muslin::codec::compression::{Compression, compress, decompress};

const INPUTS: u64 = 10_000;

/// splitmix64: the same inputs on every run, and input `n` without those before it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Input `n`: noise, runs, few letters, a repeated unit, text, or pieces of all. One in fifty is larger than a block.
fn input(n: u64) -> Vec<u8> {
    let mut random = Random(n);
    let len = if n.is_multiple_of(50) { random.below(200_000) } else { random.below(3000) };
    let mut out = Vec::new();
    let pieces = 1 + random.below(4);
    for piece in 1..=pieces {
        piece_of(&mut random, len * piece / pieces, &mut out);
    }
    out
}

fn piece_of(random: &mut Random, end: u64, out: &mut Vec<u8>) {
    let end = end as usize;
    let len = (end - out.len()) as u64;
    match random.below(6) {
        0 => out.extend(random.bytes(len)),
        1 => out.resize(end, random.next() as u8),
        2 => out.extend((0..len).map(|_| b'a' + random.below(4) as u8)),
        3 => {
            let unit = 1 + random.below(300);
            let unit = random.bytes(unit);
            out.extend(unit.iter().cycle().take(len as usize));
        }
        4 => {
            while out.len() < end {
                let (id, total) = (random.below(10_000), random.below(500));
                writeln!(out, "{{\"event_id\":{id},\"type\":\"order.created\",\"total\":{total}}}").unwrap();
            }
            out.truncate(end);
        }
        _ => {
            // Copies from somewhere before, of any length: matches that overlap themselves.
            while out.len() < end {
                if out.is_empty() || random.below(4) == 0 {
                    out.push(random.next() as u8);
                }
                let from = random.below(out.len() as u64) as usize;
                for i in 0..random.below(100) as usize {
                    out.push(out[from + i]);
                }
            }
            out.truncate(end);
        }
    }
}

fn packed(codec: Compression, level: Option<i32>, input: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    compress(codec, level, input, &mut out).unwrap();
    out.freeze()
}

/// Runs `tool` from one file into another.
fn run(tool: &str, args: &[&str], from: &Path, to: &Path) {
    let status = Command::new(tool)
        .args(args)
        .stdin(File::open(from).unwrap())
        .stdout(File::create(to).unwrap())
        .stderr(Stdio::inherit())
        .status();
    match status {
        Ok(status) => assert!(status.success(), "{tool} {args:?} refused what it read: {status}"),
        Err(e) => panic!("this test needs the tool `{tool}` in PATH (scripts/setup.sh installs it): {e}"),
    }
}

/// All inputs, compressed by us one behind the other, come out of the tool as all inputs one behind the other.
fn is_read_by(tool: &str, codec: Compression, level: impl Fn(u64) -> Option<i32>) {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let mut file = File::create(&ours).unwrap();
    for n in 0..INPUTS {
        file.write_all(&packed(codec, level(n), &input(n))).unwrap();
    }
    drop(file);
    run(tool, &["-dc"], &ours, &theirs);
    let read = std::fs::read(&theirs).unwrap();
    let mut rest = &read[..];
    for n in 0..INPUTS {
        let input = input(n);
        let is_next = rest.starts_with(&input);
        assert!(is_next, "{tool} reads input {n} ({} bytes, level {:?}) otherwise", input.len(), level(n));
        rest = &rest[input.len()..];
    }
    assert!(rest.is_empty(), "{tool} reads {} bytes too many", rest.len());
}

/// What the tool writes with each list of options is read by us.
fn reads_what_it_writes(tool: &str, codec: Compression, options: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (plain, theirs) = (dir.path().join("plain"), dir.path().join("theirs"));
    for n in [0, 1, 2, 3, 50, 100, 150] {
        // Zero is empty; the larger ones together are 1 MiB and more.
        let input = if n == 0 { Vec::new() } else { input(n).repeat(if n % 50 == 0 { 10 } else { 1 }) };
        std::fs::write(&plain, &input).unwrap();
        for options in options {
            let args: Vec<_> = options.split_whitespace().chain(["-c"]).collect();
            run(tool, &args, &plain, &theirs);
            let compressed = Bytes::from(std::fs::read(&theirs).unwrap());
            let read = decompress(codec, &compressed, input.len());
            let read = read.unwrap_or_else(|e| panic!("{tool} {options}, input {n}: {}", e.report()));
            assert!(read == input, "{tool} {options}, input {n}: read otherwise");
        }
    }
}

#[test]
fn gzip_reads_what_we_write() {
    is_read_by("gzip", Compression::Gzip, |n| (n % 3 == 0).then_some((n % 10) as i32));
}

#[test]
fn we_read_what_gzip_writes() {
    reads_what_it_writes("gzip", Compression::Gzip, &["", "-1", "-9"]);
}

#[test]
fn lz4_reads_what_we_write() {
    is_read_by("lz4", Compression::Lz4, |_| None);
}

#[test]
fn we_read_what_lz4_writes() {
    let options = [
        "-q",
        "-q -9",
        "-q -12",
        "-q -BD",
        "-q -B4",
        "-q -B5 -BD",
        "-q -B6 -BX",
        "-q -B4 -BD -BX",
        "-q --no-frame-crc",
    ];
    reads_what_it_writes("lz4", Compression::Lz4, &options);
}

#[test]
fn zstd_reads_what_we_write() {
    is_read_by("zstd", Compression::Zstd, |n| match n % 50 {
        0..10 => Some(n as i32 % 10),
        10 => Some(-5),
        11 => Some(-131_072),
        12 => Some(12 + n as i32 % 11),
        _ => None,
    });
}

#[test]
fn we_read_what_zstd_writes() {
    let options =
        ["", "-1", "-9", "-19", "--ultra -22", "--fast=5", "--long=27", "--no-check", "--rsyncable"];
    reads_what_it_writes("zstd", Compression::Zstd, &options);
}

#[test]
fn the_java_clients_snappy_reads_what_we_write() {
    let libs = std::env::var_os("KAFKA_LIBS").expect(
        "this test needs KAFKA_LIBS, the folder of Kafka's jars: `scripts/brokers.sh libs` prints it",
    );
    let jar = std::fs::read_dir(&libs)
        .unwrap_or_else(|e| panic!("KAFKA_LIBS={}: {e}", libs.display()))
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snappy-java")))
        .unwrap_or_else(|| panic!("KAFKA_LIBS={} has no snappy-java", libs.display()));
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/generate/Unsnappy.java");

    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let mut file = File::create(&ours).unwrap();
    for n in 0..INPUTS {
        let compressed = packed(Compression::Snappy, None, &input(n));
        file.write_all(&(compressed.len() as i32).to_be_bytes()).unwrap();
        file.write_all(&compressed).unwrap();
    }
    drop(file);
    let status = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"])
        .args([jar.as_os_str(), program.as_os_str(), ours.as_os_str(), theirs.as_os_str()])
        .status()
        .unwrap_or_else(|e| panic!("this test needs the tool `java` (17 or later) in PATH: {e}"));
    assert!(status.success(), "snappy-java refused what it read: {status}");

    let read = std::fs::read(&theirs).unwrap();
    let mut rest = &read[..];
    for n in 0..INPUTS {
        let input = input(n);
        let (length, tail) = rest.split_first_chunk().unwrap();
        assert_eq!(i32::from_be_bytes(*length) as usize, input.len(), "length of input {n}");
        assert!(tail.starts_with(&input), "snappy-java reads input {n} ({} bytes) otherwise", input.len());
        rest = &tail[input.len()..];
    }
    assert!(rest.is_empty());
}
