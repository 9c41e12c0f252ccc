//! A fetch's answer as chunks: what is small is written, records are shared with the log.
//!
//! `FetchResponse` of Kafka's `clients/src/main/resources/common/message`, versions 4 to 18. A test holds it to
//! kafka-protocol's encoder, byte by byte.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::embedded::kafka::log::{PartitionLog, Slice};

/// A fetch's answer.
#[derive(Debug, Default)]
pub(super) struct Answer<'a> {
    pub(super) error: i16,
    pub(super) session_id: i32,
    pub(super) topics: Vec<TopicAnswer<'a>>,
    /// The leaders that partitions name (from version 16).
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
pub(super) struct TopicAnswer<'a> {
    pub(super) name: &'a str,
    pub(super) id: Uuid,
    pub(super) partitions: Vec<PartitionAnswer<'a>>,
}

#[derive(Debug)]
pub(super) struct PartitionAnswer<'a> {
    pub(super) index: i32,
    pub(super) error: i16,
    pub(super) high_watermark: i64,
    pub(super) last_stable: i64,
    pub(super) log_start: i64,
    /// Epoch and end (from version 12).
    pub(super) diverging: Option<(i32, i64)>,
    /// Leader and epoch (from version 12).
    pub(super) current_leader: Option<(i32, i32)>,
    /// Producer and first offset; `None` where it was not asked for.
    pub(super) aborted: Option<Vec<(i64, i64)>>,
    /// From version 11; -1 for none.
    pub(super) preferred: i32,
    pub(super) records: Option<(&'a PartitionLog, Slice)>,
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) node: i32,
    pub(super) host: String,
    pub(super) port: i32,
    pub(super) rack: Option<StrBytes>,
}

/// Writes the body.
pub(super) fn encode(answer: &Answer<'_>, version: i16) -> Vec<Bytes> {
    let flexible = version >= 12;
    let mut out = Vec::new();
    let mut head = BytesMut::with_capacity(256);
    head.put_i32(0);
    if version >= 7 {
        head.put_i16(answer.error);
        head.put_i32(answer.session_id);
    }
    put_count(&mut head, answer.topics.len(), flexible);
    for topic in &answer.topics {
        if version >= 13 {
            head.put_slice(topic.id.as_bytes());
        } else {
            put_text(&mut head, topic.name, flexible);
        }
        put_count(&mut head, topic.partitions.len(), flexible);
        for partition in &topic.partitions {
            put_partition(&mut head, &mut out, partition, version);
        }
        if flexible {
            head.put_u8(0);
        }
    }
    if flexible {
        put_endpoints(&mut head, &answer.endpoints, version);
    }
    if !head.is_empty() {
        out.push(head.freeze());
    }
    out
}

fn put_partition(head: &mut BytesMut, out: &mut Vec<Bytes>, partition: &PartitionAnswer<'_>, version: i16) {
    let flexible = version >= 12;
    head.put_i32(partition.index);
    head.put_i16(partition.error);
    head.put_i64(partition.high_watermark);
    head.put_i64(partition.last_stable);
    if version >= 5 {
        head.put_i64(partition.log_start);
    }
    match &partition.aborted {
        None if flexible => head.put_u8(0),
        None => head.put_i32(-1),
        Some(aborted) => {
            put_count(head, aborted.len(), flexible);
            for (producer, first) in aborted {
                head.put_i64(*producer);
                head.put_i64(*first);
                if flexible {
                    head.put_u8(0);
                }
            }
        }
    }
    if version >= 11 {
        head.put_i32(partition.preferred);
    }
    let size = partition.records.as_ref().map_or(0, |(_, slice)| slice.bytes);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    put_count(head, size, flexible);
    if let Some((log, slice)) = &partition.records {
        for batch in log.slice(slice) {
            batch.write(head, out);
        }
    }
    if flexible {
        let tags =
            usize::from(partition.diverging.is_some()) + usize::from(partition.current_leader.is_some());
        put_varint(head, tags);
        if let Some((epoch, end)) = partition.diverging {
            head.put_slice(&[0, 13]);
            head.put_i32(epoch);
            head.put_i64(end);
            head.put_u8(0);
        }
        if let Some((leader, epoch)) = partition.current_leader {
            head.put_slice(&[1, 9]);
            head.put_i32(leader);
            head.put_i32(epoch);
            head.put_u8(0);
        }
    }
}

fn put_endpoints(head: &mut BytesMut, endpoints: &[Endpoint], version: i16) {
    if version < 16 || endpoints.is_empty() {
        head.put_u8(0);
        return;
    }
    let mut list = BytesMut::new();
    put_count(&mut list, endpoints.len(), true);
    for endpoint in endpoints {
        list.put_i32(endpoint.node);
        put_text(&mut list, &endpoint.host, true);
        list.put_i32(endpoint.port);
        match &endpoint.rack {
            Some(rack) => put_text(&mut list, rack, true),
            None => list.put_u8(0),
        }
        list.put_u8(0);
    }
    head.put_slice(&[1, 0]);
    put_varint(head, list.len());
    head.put_slice(&list);
}

fn put_varint(out: &mut BytesMut, n: usize) {
    let mut n = u32::try_from(n).unwrap_or(u32::MAX);
    while n >= 0x80 {
        out.put_u8((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

/// The length of an array or of bytes.
fn put_count(out: &mut BytesMut, n: usize, flexible: bool) {
    if flexible {
        put_varint(out, n.saturating_add(1));
    } else {
        out.put_i32(i32::try_from(n).unwrap_or(i32::MAX));
    }
}

fn put_text(out: &mut BytesMut, text: &str, flexible: bool) {
    if flexible {
        put_varint(out, text.len().saturating_add(1));
    } else {
        // A name or host is far below 32 KiB: topics are checked, hosts are our own.
        out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    }
    out.put_slice(text.as_bytes());
}
