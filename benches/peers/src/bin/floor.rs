//! The floor: Produce requests that were made before the clock starts, up to five in flight, written to one blocking
//! socket, and each answer read and checked. Not idempotent (producer id -1); acks=all. A load of whole requests, so a few
//! records more than asked for. `latency` writes one request of one record and waits for its answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use muslin::Timestamp;
use muslin::codec::compression::Compression;
use muslin::codec::record_batch::{BatchBuilder, BatchOptions};
use peers::{Args, BATCH, Event, Run, die};

const IN_FLIGHT: usize = 5;
/// Batches of each partition that are made ready.
const READY: usize = 3;

/// A request, and how many records it carries.
struct Request {
    frame: Vec<u8>,
    records: u64,
}

/// Produce v8: the last before the compact encoding.
fn request(topic: &str, batches: &[(i32, Vec<u8>, u64)]) -> Request {
    let mut body = Vec::new();
    body.extend(0i16.to_be_bytes()); // Produce
    body.extend(8i16.to_be_bytes());
    body.extend(0i32.to_be_bytes()); // correlation id
    body.extend(text("floor"));
    body.extend((-1i16).to_be_bytes()); // no transaction
    body.extend((-1i16).to_be_bytes()); // acks=all
    body.extend(30_000i32.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend(text(topic));
    body.extend((batches.len() as i32).to_be_bytes());
    for (partition, batch, _) in batches {
        body.extend(partition.to_be_bytes());
        body.extend((batch.len() as i32).to_be_bytes());
        body.extend(batch);
    }
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend(body);
    Request { frame, records: batches.iter().map(|(_, _, records)| records).sum() }
}

fn text(text: &str) -> Vec<u8> {
    let mut out = (text.len() as i16).to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

struct Broker {
    socket: TcpStream,
    answer: Vec<u8>,
}

impl Broker {
    fn send(&mut self, request: &Request) {
        self.socket.write_all(&request.frame).unwrap_or_else(|e| die(e));
    }

    /// Reads an answer; how many of its partitions failed.
    fn failures(&mut self) -> u64 {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).unwrap_or_else(|e| die(e));
        self.answer.resize(u32::from_be_bytes(length) as usize, 0);
        self.socket.read_exact(&mut self.answer).unwrap_or_else(|e| die(e));
        let mut rest = Reader(&self.answer);
        rest.skip(4);
        let mut failed = 0;
        for _ in 0..rest.i32() {
            let name = rest.i16();
            rest.skip(name as usize);
            for _ in 0..rest.i32() {
                let (partition, code) = (rest.i32(), rest.i16());
                rest.skip(24);
                for _ in 0..rest.i32() {
                    rest.skip(4);
                    rest.nullable();
                }
                rest.nullable();
                if code != 0 {
                    eprintln!("partition {partition}: error {code}");
                    failed += 1;
                }
            }
        }
        failed
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn skip(&mut self, n: usize) {
        self.0 = self.0.get(n..).unwrap_or_else(|| die("an answer is too short"));
    }

    fn i16(&mut self) -> i16 {
        let n =
            self.0.first_chunk().map_or_else(|| die("an answer is too short"), |b| i16::from_be_bytes(*b));
        self.skip(2);
        n
    }

    fn i32(&mut self) -> i32 {
        let n =
            self.0.first_chunk().map_or_else(|| die("an answer is too short"), |b| i32::from_be_bytes(*b));
        self.skip(4);
        n
    }

    fn nullable(&mut self) {
        let length = self.i16();
        self.skip(length.max(0) as usize);
    }
}

/// Batches of `events` over and over, each as full as it gets, or of one record.
fn batches<'a>(args: &Args, events: Vec<&'a Event>) -> impl Iterator<Item = (Vec<u8>, u64)> + use<'a> {
    let compression: Compression = args.codec.parse().unwrap_or_else(|e| die(e));
    let (level, single) = (args.level, args.op == "latency");
    let mut builder =
        BatchBuilder::new(BatchOptions { compression, level, max_bytes: BATCH, ..BatchOptions::default() });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(now.as_millis() as i64);
    let mut turn = 0;
    std::iter::from_fn(move || {
        loop {
            let (key, value) = events.get(turn % events.len())?;
            let none: [(&str, Option<&[u8]>); 0] = [];
            if builder.push(now, Some(key), Some(value), none).is_err() {
                break;
            }
            turn += 1;
            if single {
                break;
            }
        }
        let records = builder.len() as u64;
        let batch = builder.finish().unwrap_or_else(|e| die(e));
        Some((batch.to_vec(), records))
    })
}

fn main() {
    let args = Args::parse();
    let pool = args.pool();
    // Any spread over the partitions will do that has nothing to do with what is in the records.
    let place = |n: usize| ((n as u32).wrapping_mul(2_654_435_761) >> 16) as i32 % args.partitions;
    let socket = TcpStream::connect(&args.kafka).unwrap_or_else(|e| die(e));
    socket.set_nodelay(true).unwrap_or_else(|e| die(e));
    let mut broker = Broker { socket, answer: Vec::new() };
    let (count, mut sent, mut failed) = (args.count, 0, 0);
    if args.op == "latency" {
        let requests: Vec<_> = batches(&args, pool.iter().collect())
            .take(pool.len())
            .enumerate()
            .map(|(n, (batch, records))| request(&args.topic, &[(place(n), batch, records)]))
            .collect();
        let mut run = Run::start(args);
        for (_, request) in (0..count).zip(requests.iter().cycle()) {
            let began = Instant::now();
            broker.send(request);
            failed += broker.failures();
            run.waited(began.elapsed());
            sent += 1;
        }
        run.end("floor", sent - failed, failed);
    }
    let mut parts: Vec<_> = (0..args.partitions)
        .map(|partition| {
            let events =
                pool.iter().enumerate().filter(|(n, _)| place(*n) == partition).map(|(_, event)| event);
            (partition, batches(&args, events.collect()))
        })
        .collect();
    let requests: Vec<_> = (0..READY)
        .map(|_| {
            let ready: Vec<_> = parts
                .iter_mut()
                .filter_map(|(partition, batches)| {
                    batches.next().map(|(batch, records)| (*partition, batch, records))
                })
                .collect();
            request(&args.topic, &ready)
        })
        .collect();
    drop(parts);
    let run = Run::start(args);
    let mut in_flight = 0;
    for request in requests.iter().cycle() {
        if sent >= count {
            break;
        }
        if in_flight == IN_FLIGHT {
            failed += broker.failures();
            in_flight -= 1;
        }
        broker.send(request);
        in_flight += 1;
        sent += request.records;
    }
    for _ in 0..in_flight {
        failed += broker.failures();
    }
    run.end("floor", sent, failed)
}
