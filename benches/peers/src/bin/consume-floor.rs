//! The floor: Fetch requests on one blocking socket for each leader, one in flight, each answer read into the same buffer and
//! each batch's CRC-32C checked. No group, no session; nothing is decompressed, and no record is looked at.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use peers::{Args, Reading, die};

/// What an answer may hold of one partition, and in all.
const OF_PARTITION: i32 = 1 << 20;
const OF_ALL: i32 = 50 << 20;
/// Where a batch has its length, its checksum, what that covers, its last offset and how many records it has.
const LENGTH: usize = 8;
const CRC: usize = 17;
const COVERED: usize = 21;
const LAST: usize = 23;
const RECORDS: usize = 57;
const HEADER: usize = 61;

fn text(text: &str) -> Vec<u8> {
    let mut out = (text.len() as i16).to_be_bytes().to_vec();
    out.extend(text.as_bytes());
    out
}

struct Broker {
    socket: TcpStream,
    /// As long as the longest answer so far.
    answer: Vec<u8>,
    /// Partition and the next offset.
    places: Vec<(i32, i64)>,
}

impl Broker {
    fn connect(address: impl std::net::ToSocketAddrs) -> Self {
        let socket = TcpStream::connect(address).unwrap_or_else(|e| die(e));
        socket.set_nodelay(true).unwrap_or_else(|e| die(e));
        Self { socket, answer: Vec::new(), places: Vec::new() }
    }

    fn ask(&mut self, api: i16, version: i16, body: &[u8]) {
        let mut head = api.to_be_bytes().to_vec();
        head.extend(version.to_be_bytes());
        head.extend(0i32.to_be_bytes()); // correlation id
        head.extend(text("floor"));
        let mut frame = ((head.len() + body.len()) as i32).to_be_bytes().to_vec();
        frame.extend(head);
        frame.extend(body);
        self.socket.write_all(&frame).unwrap_or_else(|e| die(e));
    }

    /// The answer, behind the correlation id.
    fn answer(&mut self) -> Reader<'_> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).unwrap_or_else(|e| die(e));
        let length = u32::from_be_bytes(length) as usize;
        if self.answer.len() < length {
            self.answer.resize(length, 0);
        }
        self.socket.read_exact(&mut self.answer[..length]).unwrap_or_else(|e| die(e));
        let mut rest = Reader(&self.answer[..length]);
        rest.skip(4);
        rest
    }

    /// Fetch v11: the last before the compact encoding.
    fn fetch(&mut self, topic: &str) {
        let mut body = Vec::new();
        body.extend((-1i32).to_be_bytes()); // a consumer
        body.extend(500i32.to_be_bytes()); // ms to wait
        body.extend(1i32.to_be_bytes()); // for so many bytes
        body.extend(OF_ALL.to_be_bytes());
        body.push(0); // read uncommitted
        body.extend(0i32.to_be_bytes()); // no session
        body.extend((-1i32).to_be_bytes());
        body.extend(1i32.to_be_bytes());
        body.extend(text(topic));
        body.extend((self.places.len() as i32).to_be_bytes());
        for (partition, offset) in &self.places {
            body.extend(partition.to_be_bytes());
            body.extend((-1i32).to_be_bytes()); // whatever leader epoch
            body.extend(offset.to_be_bytes());
            body.extend((-1i64).to_be_bytes()); // no log of its own
            body.extend(OF_PARTITION.to_be_bytes());
        }
        body.extend(0i32.to_be_bytes()); // nothing forgotten
        body.extend(text("")); // no rack
        self.ask(1, 11, &body);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(n).unwrap_or_else(|| die("an answer is too short"));
        self.0 = rest;
        taken
    }

    fn skip(&mut self, n: usize) {
        self.take(n);
    }

    fn i16(&mut self) -> i16 {
        let mut bytes = [0; 2];
        bytes.copy_from_slice(self.take(2));
        i16::from_be_bytes(bytes)
    }

    fn i32(&mut self) -> i32 {
        u32_at(self.take(4), 0) as i32
    }

    fn text(&mut self) -> &'a [u8] {
        let length = self.i16();
        self.take(length.max(0) as usize)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map_or_else(|| die("a batch is too short"), |found| u32::from_be_bytes(*found))
}

/// The leaders of the topic's partitions: Metadata v5.
fn leaders(reading: &Reading) -> Vec<Broker> {
    let (kafka, topic) = reading.source();
    let mut first = Broker::connect(kafka);
    let mut body = 1i32.to_be_bytes().to_vec();
    body.extend(text(topic));
    body.push(0); // it is not to be made
    first.ask(3, 5, &body);
    let mut rest = first.answer();
    rest.skip(4);
    let mut addresses = HashMap::new();
    for _ in 0..rest.i32() {
        let (id, host, port) = (rest.i32(), rest.text(), rest.i32());
        rest.text();
        addresses.insert(id, format!("{}:{port}", String::from_utf8_lossy(host)));
    }
    rest.text();
    rest.skip(4);
    let mut brokers: HashMap<i32, Broker> = HashMap::new();
    for _ in 0..rest.i32() {
        rest.skip(2);
        rest.text();
        rest.skip(1);
        for _ in 0..rest.i32() {
            let (code, partition, leader) = (rest.i16(), rest.i32(), rest.i32());
            for _ in 0..3 {
                let replicas = rest.i32();
                rest.skip(4 * replicas as usize);
            }
            let Some(address) = addresses.get(&leader) else {
                die(format!("partition {partition} has no leader: error {code}"))
            };
            let broker = brokers.entry(leader).or_insert_with(|| Broker::connect(address));
            broker.places.push((partition, 0));
        }
    }
    if brokers.is_empty() {
        die(format!("there is no topic {topic}"));
    }
    brokers.into_values().collect()
}

/// Checks the whole batches at the front of what a partition has. How many records, and the offset behind them.
fn check(mut batches: &[u8]) -> (u64, Option<i64>) {
    let (mut records, mut next) = (0, None);
    while batches.len() >= HEADER {
        let end = LENGTH + 4 + u32_at(batches, LENGTH) as usize;
        let Some((batch, rest)) = batches.split_at_checked(end) else { break };
        if crc_fast::crc32_iscsi(batch.get(COVERED..).unwrap_or_default()) != u32_at(batch, CRC) {
            die("a batch is damaged");
        }
        let base = i64::from(u32_at(batch, 0)) << 32 | i64::from(u32_at(batch, 4));
        records += u64::from(u32_at(batch, RECORDS));
        next = Some(base + i64::from(u32_at(batch, LAST)) + 1);
        batches = rest;
    }
    (records, next)
}

fn main() {
    let mut reading = Reading::new(Args::consumer());
    let topic = reading.source().1.to_owned();
    let mut brokers = leaders(&reading);
    reading.clock().start();
    let mut done = false;
    while !done {
        for broker in &mut brokers {
            broker.fetch(&topic);
        }
        for broker in &mut brokers {
            let mut moved = Vec::new();
            let mut rest = broker.answer();
            rest.skip(4);
            let (code, _session) = (rest.i16(), rest.i32());
            if code != 0 {
                die(format!("error {code}"));
            }
            for _ in 0..rest.i32() {
                rest.text();
                for _ in 0..rest.i32() {
                    let (partition, code) = (rest.i32(), rest.i16());
                    if code != 0 {
                        die(format!("partition {partition}: error {code}"));
                    }
                    rest.skip(24);
                    let aborted = rest.i32();
                    rest.skip(16 * aborted.max(0) as usize + 4);
                    let bytes = rest.i32();
                    let (records, next) = check(rest.take(bytes.max(0) as usize));
                    done |= reading.records(records, 0);
                    moved.extend(next.map(|next| (partition, next)));
                }
            }
            for (partition, next) in moved {
                for place in broker.places.iter_mut().filter(|place| place.0 == partition) {
                    place.1 = next;
                }
            }
        }
    }
    reading.end("floor");
}
