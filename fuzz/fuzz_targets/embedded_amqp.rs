//! Any bytes as what the clients of the embedded RabbitMQ send, in chunks on four connections: it never panics, and what it
//! keeps in memory is bounded by its limits, not by what lengths claim.
//!
//! The input is a list of chunks: one byte says on which connection and what is done, one byte how long the chunk is. So that
//! a mutation reaches the inside, a connection may begin with a sound handshake.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use muslin::embedded::amqp::fuzzing::Fuzzed;
use muslin_fuzz::peak_of;

/// Bytes of messages at which publishers are blocked.
const LIMIT: usize = 64 * 1024;

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0, channel];
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend(payload);
    out.push(0xCE);
    out
}

/// Up to an open channel.
fn handshake() -> Vec<u8> {
    let login = b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US";
    let mut out = b"AMQP\0\0\x09\x01".to_vec();
    out.extend(frame(1, 0, login));
    out.extend(frame(1, 0, &[0, 10, 0, 31, 7, 255, 0, 2, 0, 0, 0, 60]));
    out.extend(frame(1, 0, b"\0\x0a\0\x28\x01/\0\0"));
    out.extend(frame(1, 1, &[0, 20, 0, 10, 0]));
    out
}

fuzz_target!(|data: &[u8]| {
    let now = Instant::now();
    let ((), peak) = peak_of(|| {
        let mut broker = Fuzzed::new(now, LIMIT as u64);
        let mut rest = data;
        while let [how, length, tail @ ..] = rest {
            let (chunk, after) = tail.split_at(tail.len().min(usize::from(*length)));
            rest = after;
            let client = u64::from(how & 3) + 1;
            match how >> 2 & 7 {
                0 => drop(broker.vanish(client)),
                1 => drop(broker.advance(Duration::from_secs(u64::from(*length)))),
                2 => drop(broker.feed(client, &handshake())),
                // A method on channel 1, whose frame is sound.
                3 | 4 => drop(broker.feed(client, &frame(1, 1, chunk))),
                5 => drop(broker.feed(client, &frame(2 + (how >> 5 & 1), 1, chunk))),
                _ => drop(broker.feed(client, chunk)),
            }
        }
    });
    // Messages, unfinished ones, what four clients have unsent, and the objects that may be declared.
    let bound = 4 * LIMIT + 200 * data.len() + (1 << 20);
    assert!(peak <= bound, "{peak} bytes for {}", data.len());
});
