//! Any bytes as what the clients of the embedded Kafka send, in chunks on four connections to two brokers, which die, hang
//! and come back meanwhile: it never panics, and what it keeps in memory is bounded by its limits, not by what lengths claim.
//!
//! The input is a list of chunks: one byte says on which connection and what is done, two how long the chunk is. So that a
//! mutation reaches the inside, a chunk may be a request's body behind a sound header, or records with a sound checksum.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use muslin::embedded::kafka::fuzzing::Fuzzed;
use muslin_fuzz::{mend, peak_of};

/// Bytes of records that the cluster keeps.
const LIMIT: usize = 256 * 1024;

/// A request of an API and a version, with a client id of one letter; `flexible`: with tagged fields.
fn request(key: u8, version: u8, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut out = ((8 + 3 + usize::from(flexible) + body.len()) as u32).to_be_bytes().to_vec();
    out.extend([0, key, 0, version, 0, 0, 0, 1, 0, 1, b'f']);
    if flexible {
        out.push(0);
    }
    out.extend(body);
    out
}

/// Produce version 9 to partition 0 or 1 of `t`, with these records.
fn produce(partition: u8, records: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0xff, 0xff, 0, 0, 0, 9, 2, 2, b't', 2, 0, 0, 0, partition & 1];
    let mut n = records.len() + 1;
    while n >= 0x80 {
        body.push(n as u8 | 0x80);
        n >>= 7;
    }
    body.push(n as u8);
    body.extend(records);
    body.extend([0, 0, 0]);
    request(0, 9, true, &body)
}

fuzz_target!(|data: &[u8]| {
    let now = Instant::now();
    let ((), peak) = peak_of(|| {
        let mut cluster = Fuzzed::new(now, LIMIT as u64);
        let mut rest = data;
        while let [how, high, low, tail @ ..] = rest {
            let length = usize::from(*high) << 8 | usize::from(*low);
            let (chunk, after) = tail.split_at(tail.len().min(length));
            rest = after;
            let client = usize::from(how & 3);
            match how >> 2 & 7 {
                0 => drop(cluster.vanish(client)),
                1 => drop(cluster.advance(Duration::from_millis(length as u64 * 50))),
                2 => drop(cluster.disturb(*low)),
                3 => {
                    let mut records = chunk.to_vec();
                    mend(&mut records);
                    _ = cluster.feed(client, &produce(*how >> 5, &records));
                }
                4..=6 => {
                    if let [key, version, body @ ..] = chunk {
                        _ = cluster.feed(client, &request(*key, *version, how & 0x20 != 0, body));
                    }
                }
                _ => drop(cluster.feed(client, chunk)),
            }
        }
    });
    // Records, what four clients have unsent, what requests are decoded to, and what groups and transactions keep.
    let bound = 4 * LIMIT + 400 * data.len() + (4 << 20);
    assert!(peak <= bound, "{peak} bytes for {}", data.len());
});
