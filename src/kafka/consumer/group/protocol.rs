//! Subscriptions and assignments as the members of a classic group write them: the embedded protocol "consumer"
//! (KIP-429, KIP-792, KIP-881).
//!
//! Both begin with a version. What a version has, the next ones have too, so a version above the highest known is read
//! as that one, as Java does; what follows it is passed over. Both are written as version 3.

use bytes::{BufMut, Bytes, BytesMut};

use crate::kafka::offsets::Place;
use crate::{Error, ErrorKind, Partition, Result, Topic};

const VERSION: i16 = 3;

/// What a member wants, and what it had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subscription {
    pub(crate) topics: Vec<Topic>,
    /// The assignor's own.
    pub(crate) user_data: Option<Bytes>,
    /// Version 1: what the member still owns.
    pub(crate) owned: Vec<Place>,
    /// Version 2: the generation in which it came to own them. `None` where it tells none.
    pub(crate) generation: Option<i32>,
    /// Version 3.
    pub(crate) rack: Option<String>,
}

impl Subscription {
    /// Topics and partitions are sorted, as Java does. A rack that has no text, or more than the field holds, is left
    /// out.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(VERSION);
        let mut topics: Vec<&Topic> = self.topics.iter().collect();
        topics.sort();
        out.put_i32(length(topics.len()));
        for topic in topics {
            put_string(&mut out, topic.as_str());
        }
        put_bytes(&mut out, self.user_data.as_ref());
        let mut owned = self.owned.clone();
        owned.sort();
        put_places(&mut out, &owned);
        out.put_i32(self.generation.unwrap_or(-1));
        match self.rack.as_deref().filter(|rack| !rack.is_empty() && i16::try_from(rack.len()).is_ok()) {
            Some(rack) => put_string(&mut out, rack),
            None => out.put_i16(-1),
        }
        out.freeze()
    }

    /// # Errors
    /// [`ErrorKind::Malformed`], which names the field.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self> {
        let mut reader = Reader { bytes, what: "subscription" };
        let version = reader.version()?;
        let count = reader.count("topics", 2)?;
        let topics = (0..count).map(|_| reader.topic("topics")).collect::<Result<_>>()?;
        let user_data = reader.user_data()?;
        let owned = if version >= 1 { reader.places("owned partitions")? } else { Vec::new() };
        let generation = if version >= 2 { reader.i32("generation")? } else { -1 };
        let rack = if version >= 3 { reader.string("rack")? } else { None };
        Ok(Self {
            topics,
            user_data,
            owned,
            generation: (generation >= 0).then_some(generation),
            rack: rack.filter(|rack| !rack.is_empty()),
        })
    }
}

/// What the leader gives to a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Assignment {
    pub(crate) partitions: Vec<Place>,
    /// The assignor's own.
    pub(crate) user_data: Option<Bytes>,
}

impl Assignment {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(VERSION);
        put_places(&mut out, &self.partitions);
        put_bytes(&mut out, self.user_data.as_ref());
        out.freeze()
    }

    /// # Errors
    /// [`ErrorKind::Malformed`], which names the field.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self> {
        let mut reader = Reader { bytes, what: "assignment" };
        reader.version()?;
        Ok(Self { partitions: reader.places("partitions")?, user_data: reader.user_data()? })
    }
}

/// Lengths are of what this process holds in memory: nothing near 2 GiB.
fn length(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

fn put_bytes(out: &mut BytesMut, bytes: Option<&Bytes>) {
    match bytes {
        Some(bytes) => {
            out.put_i32(length(bytes.len()));
            out.put_slice(bytes);
        }
        None => out.put_i32(-1),
    }
}

/// An array of topics, each with its partitions. Topics come in the order in which they occur first.
pub(super) fn put_places(out: &mut BytesMut, places: &[Place]) {
    let mut topics: Vec<(&Topic, Vec<Partition>)> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for (topic, partition) in places {
        let at = *known.entry(topic).or_insert(topics.len());
        match topics.get_mut(at) {
            Some((_, partitions)) => partitions.push(*partition),
            None => topics.push((topic, vec![*partition])),
        }
    }
    out.put_i32(length(topics.len()));
    for (topic, partitions) in topics {
        put_string(out, topic.as_str());
        out.put_i32(length(partitions.len()));
        for partition in partitions {
            out.put_i32(partition.get());
        }
    }
}

/// Takes values from the front of bytes that others wrote. Nothing is allocated by a length that they do not hold.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) bytes: Bytes,
    /// What is read, for the errors.
    pub(super) what: &'static str,
}

impl Reader {
    fn error(&self, why: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Malformed, format!("the {} {why}", self.what))
    }

    fn take(&mut self, n: usize, field: &str) -> Result<Bytes> {
        if n > self.bytes.len() {
            return Err(self.error(format_args!(
                "ends within its {field}: {n} bytes are wanted, {} are left",
                self.bytes.len()
            )));
        }
        Ok(self.bytes.split_to(n))
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let taken = self.take(N, field)?;
        taken.first_chunk().copied().ok_or_else(|| self.error(format_args!("ends within its {field}")))
    }

    fn i16(&mut self, field: &str) -> Result<i16> {
        self.array(field).map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &str) -> Result<i32> {
        self.array(field).map(i32::from_be_bytes)
    }

    fn version(&mut self) -> Result<i16> {
        match self.i16("version")? {
            version @ 0.. => Ok(version.min(VERSION)),
            version => Err(self.error(format_args!("has the version {version}; expected 0 or more"))),
        }
    }

    /// The count of an array whose items have at least `least` bytes each.
    fn count(&mut self, field: &str, least: usize) -> Result<usize> {
        let count = self.i32(field)?;
        match usize::try_from(count) {
            Ok(n) if n <= self.bytes.len() / least => Ok(n),
            _ => Err(self.error(format_args!(
                "names {count} {field}, and {} bytes are left for them",
                self.bytes.len()
            ))),
        }
    }

    fn string(&mut self, field: &str) -> Result<Option<String>> {
        let Ok(length) = usize::try_from(self.i16(field)?) else { return Ok(None) };
        let bytes = self.take(length, field)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(e) => {
                Err(self.error(format_args!("has text that is not UTF-8 in its {field}")).with_source(e))
            }
        }
    }

    fn topic(&mut self, field: &str) -> Result<Topic> {
        let name =
            self.string(field)?.ok_or_else(|| self.error(format_args!("has a null among its {field}")))?;
        Topic::new(name)
            .map_err(|e| self.error(format_args!("has a bad name among its {field}")).with_source(e))
    }

    fn user_data(&mut self) -> Result<Option<Bytes>> {
        match usize::try_from(self.i32("user data")?) {
            Ok(length) => self.take(length, "user data").map(Some),
            Err(_) => Ok(None),
        }
    }

    pub(super) fn places(&mut self, field: &str) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for _ in 0..self.count(field, 6)? {
            let topic = self.topic(field)?;
            for _ in 0..self.count(field, 4)? {
                match self.i32(field)? {
                    partition @ 0.. => places.push((topic.clone(), Partition(partition))),
                    partition => {
                        return Err(self
                            .error(format_args!("has partition {partition} of {topic} among its {field}")));
                    }
                }
            }
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests;
