//! What holds for every API: its table of fields says what kafka-protocol reads and writes.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Api, Code, Field, SERVED, Shape, Visit, check, visit_all};

/// Random bytes of a request, drawn from its table of fields.
struct Writer {
    out: BytesMut,
    version: i16,
    flexible: bool,
    random: u64,
}

impl Writer {
    fn draw(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn varint(&mut self, mut n: u32) {
        while n >= 0x80 {
            self.out.put_u8((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        self.out.put_u8(n as u8);
    }

    fn length(&mut self, n: u64, wide: bool) {
        match (self.flexible, wide) {
            (true, _) => self.varint(n as u32 + 1),
            (false, true) => self.out.put_i32(n as i32),
            (false, false) => self.out.put_i16(n as i16),
        }
    }

    fn filler(&mut self, n: u64) {
        for _ in 0..n {
            let letter = b'a' + self.draw(26) as u8;
            self.out.put_u8(letter);
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        let mut known: &[(u32, Field)] = &[];
        let version = self.version;
        for field in fields.iter().filter(|f| f.from <= version && version <= f.to) {
            match field.shape {
                Shape::Tags(tags) => known = tags,
                shape => self.shape(shape),
            }
        }
        if self.flexible {
            self.tags(known);
        }
    }

    fn tags(&mut self, known: &[(u32, Field)]) {
        let mut tags = Vec::new();
        let version = self.version;
        for (tag, field) in known.iter().filter(|(_, f)| f.from <= version) {
            if self.draw(2) == 0 {
                let random = self.draw(u64::MAX);
                let mut inner = Writer { out: BytesMut::new(), random, ..*self };
                inner.shape(field.shape);
                tags.push((*tag, inner.out));
            }
        }
        if self.draw(3) == 0 {
            tags.push((99, BytesMut::from(&b"unknown"[..])));
        }
        self.varint(tags.len() as u32);
        for (tag, body) in tags {
            self.varint(tag);
            self.varint(body.len() as u32);
            self.out.put_slice(&body);
        }
    }

    fn shape(&mut self, shape: Shape) {
        match shape {
            Shape::Fixed(n) => {
                for _ in 0..n {
                    let byte = self.draw(2) as u8;
                    self.out.put_u8(byte);
                }
            }
            Shape::Text | Shape::Bytes => {
                let n = self.draw(5);
                self.length(n, matches!(shape, Shape::Bytes));
                self.filler(n);
            }
            Shape::Structs(fields) => {
                let n = self.draw(4);
                self.length(n, true);
                for _ in 0..n {
                    self.fields(fields);
                }
            }
            Shape::Values(size) => {
                let n = self.draw(4);
                self.length(n, true);
                self.filler(n * size as u64);
            }
            Shape::Texts => {
                let n = self.draw(4);
                self.length(n, true);
                for _ in 0..n {
                    self.shape(Shape::Text);
                }
            }
            Shape::Struct(fields) => self.fields(fields),
            Shape::Maybe(fields) => {
                if self.draw(2) == 0 {
                    self.out.put_u8(1);
                    self.fields(fields);
                } else {
                    self.out.put_i8(-1);
                }
            }
            Shape::Tags(_) => {}
        }
    }
}

struct Agree;

impl Visit for Agree {
    fn visit<R: Api>(&mut self) {
        for version in R::SERVED {
            for seed in 0..60 {
                let flexible = R::header_version(version) >= 2;
                let mut writer = Writer { out: BytesMut::new(), version, flexible, random: seed };
                writer.fields(R::SHAPE);
                let mut body = writer.out.freeze();
                let what = format!("API {} version {version}, seed {seed}", R::KEY);
                assert_eq!(check(&body, version, flexible, R::SHAPE), Ok(&[][..]), "{what}");
                let request = R::decode(&mut body, version).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(body.is_empty(), "{what}: {} bytes were not read", body.len());
                let mut again = BytesMut::new();
                request.encode(&mut again, version).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(check(&again, version, flexible, R::SHAPE), Ok(&[][..]), "{what}, encoded");
            }
        }
    }
}

#[test]
fn each_table_of_fields_is_what_is_read_and_written_in_every_version() {
    visit_all(&mut Agree);
}

struct Refusals;

impl Visit for Refusals {
    fn visit<R: Api>(&mut self) {
        for version in R::SERVED {
            for seed in 0..20 {
                let flexible = R::header_version(version) >= 2;
                let mut writer = Writer { out: BytesMut::new(), version, flexible, random: seed };
                writer.fields(R::SHAPE);
                let request = R::decode(&mut writer.out.freeze(), version).unwrap();
                let what = format!("API {} version {version}, seed {seed}", R::KEY);
                let refusal = request.refuse(Code::UnknownServerError, version);
                let mut out = Vec::<Bytes>::new();
                R::write_body(&refusal, version, &mut out).unwrap_or_else(|e| panic!("{what}: {e}"));
            }
        }
    }
}

#[test]
fn each_request_can_be_refused_in_every_version() {
    visit_all(&mut Refusals);
}

struct Ranges;

impl Visit for Ranges {
    fn visit<R: Api>(&mut self) {
        let known = <R as kafka_protocol::protocol::Message>::VERSIONS;
        assert!(*R::SERVED.start() >= known.min && *R::SERVED.end() <= known.max, "API {}", R::KEY);
    }
}

#[test]
fn no_version_is_offered_that_cannot_be_read_and_no_api_twice() {
    visit_all(&mut Ranges);
    let mut keys: Vec<_> = SERVED.iter().map(|(key, ..)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), SERVED.len());
}

#[test]
fn the_table_in_the_docs_says_what_is_served() {
    let docs = include_str!("../../../../docs/embedded.md");
    let mut said: Vec<(i16, String, i16, i16)> = Vec::new();
    for line in docs.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, key, name, versions, ..] = cells[..] else { continue };
        let Ok(key) = key.parse() else { continue };
        let (min, max) = versions.split_once(" to ").unwrap_or((versions, versions));
        said.push((key, name.to_owned(), min.parse().unwrap(), max.parse().unwrap()));
    }
    let mut served: Vec<(i16, String, i16, i16)> = SERVED
        .iter()
        .map(|&(key, min, max)| {
            (key, format!("{:?}", kafka_protocol::messages::ApiKey::try_from(key).unwrap()), min, max)
        })
        .collect();
    served.sort();
    assert_eq!(said, served);
}
