//! How a Produce request is written: as kafka-protocol writes it, but with its record bytes pointed to, not copied.

use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;

use super::outbox::Parts;

/// A Produce request whose records may come in several pieces.
#[derive(Debug)]
pub(crate) struct Produce {
    /// The first piece of each partition's records is in here.
    pub(crate) request: ProduceRequest,
    /// The other pieces of each partition, in the order in which the partitions stand in the request.
    pub(crate) behind: Vec<Vec<Bytes>>,
}

impl Produce {
    /// Writes the body, versions 3 to 12.
    ///
    /// # Errors
    /// What cannot be written: a text or an array over its length, tagged fields (this client sets none).
    pub(super) fn write(&self, out: &mut Parts, version: i16) -> Result<(), String> {
        let Self { request, behind } = self;
        let mut behind = behind.iter();
        let flexible = version >= 9;
        let buf = &mut out.head;
        text(buf, request.transactional_id.as_ref().map(|id| id.0.as_str()), flexible)?;
        buf.extend_from_slice(&request.acks.to_be_bytes());
        buf.extend_from_slice(&request.timeout_ms.to_be_bytes());
        count(buf, Some(request.topic_data.len()), flexible)?;
        for topic in &request.topic_data {
            text(&mut out.head, Some(topic.name.0.as_str()), flexible)?;
            count(&mut out.head, Some(topic.partition_data.len()), flexible)?;
            for data in &topic.partition_data {
                out.head.extend_from_slice(&data.index.to_be_bytes());
                let rest = behind.next().map_or(&[][..], Vec::as_slice);
                let len = |first: &Bytes| rest.iter().fold(first.len(), |sum, piece| sum + piece.len());
                count(&mut out.head, data.records.as_ref().map(len), flexible)?;
                data.records.iter().chain(rest).for_each(|piece| out.push(piece));
                tags(&mut out.head, data.unknown_tagged_fields.is_empty(), flexible)?;
            }
            tags(&mut out.head, topic.unknown_tagged_fields.is_empty(), flexible)?;
        }
        tags(&mut out.head, request.unknown_tagged_fields.is_empty(), flexible)
    }
}

#[cfg(test)]
impl From<ProduceRequest> for Produce {
    fn from(request: ProduceRequest) -> Self {
        Self { request, behind: Vec::new() }
    }
}

fn text(buf: &mut Vec<u8>, text: Option<&str>, flexible: bool) -> Result<(), String> {
    let bytes = text.unwrap_or_default().as_bytes();
    let n = i16::try_from(bytes.len())
        .map_err(|_| format!("a text of {} bytes; 32,767 are possible", bytes.len()))?;
    match text {
        _ if flexible => count(buf, text.map(str::len), true)?,
        None => buf.extend_from_slice(&(-1i16).to_be_bytes()),
        Some(_) => buf.extend_from_slice(&n.to_be_bytes()),
    }
    buf.extend_from_slice(bytes);
    Ok(())
}

/// How many elements or bytes follow; `None` for null.
fn count(buf: &mut Vec<u8>, n: Option<usize>, flexible: bool) -> Result<(), String> {
    let n = n.map(i32::try_from).transpose().map_err(|_| "an array of more than 2,147,483,647".to_owned())?;
    if !flexible {
        buf.extend_from_slice(&n.unwrap_or(-1).to_be_bytes());
        return Ok(());
    }
    // One more than the count, seven bits to a byte, the lowest first.
    let mut rest = n.map_or(0, |n| n.unsigned_abs() + 1);
    loop {
        let [low, ..] = rest.to_le_bytes();
        if rest < 0x80 {
            buf.push(low);
            return Ok(());
        }
        buf.push(low | 0x80);
        rest >>= 7;
    }
}

fn tags(buf: &mut Vec<u8>, none: bool, flexible: bool) -> Result<(), String> {
    if !none {
        return Err("tagged fields of a Produce request are not written".to_owned());
    }
    if flexible {
        buf.push(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{TopicName, TransactionalId};
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use proptest::prelude::*;

    use super::*;
    use crate::kafka::wire::api::Api;
    use crate::kafka::wire::outbox::Frame;

    fn requests() -> impl Strategy<Value = ProduceRequest> {
        let records = prop::option::of(prop_oneof![0..40usize, 1000..1050usize, 1..200_000usize]);
        let data = (any::<i32>(), records, any::<u8>()).prop_map(|(index, len, fill)| {
            let records = len.map(|len| Bytes::from(vec![fill; len]));
            PartitionProduceData::default().with_index(index).with_records(records)
        });
        let topic = ("[a-z]{0,200}", prop::collection::vec(data, 0..4)).prop_map(|(name, data)| {
            TopicProduceData::default()
                .with_name(TopicName(StrBytes::from_string(name)))
                .with_partition_data(data)
        });
        let topics = prop::collection::vec(topic, 0..4);
        (prop::option::of("[a-z]{0,9}"), -1..=1i16, any::<i32>(), topics).prop_map(
            |(id, acks, timeout, topics)| {
                ProduceRequest::default()
                    .with_transactional_id(id.map(|id| TransactionalId(StrBytes::from_string(id))))
                    .with_acks(acks)
                    .with_timeout_ms(timeout)
                    .with_topic_data(topics)
            },
        )
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_kafka_protocol_in_every_version(request in requests()) {
            for version in Produce::MIN..=Produce::MAX {
                let mut expected = BytesMut::from(&b"head"[..]);
                request.encode(&mut expected, version).unwrap();
                let mut parts = Parts::new(b"head".to_vec());
                Produce::from(request.clone()).write(&mut parts, version).unwrap();
                let frame = Frame::new(parts).unwrap();
                let got: Vec<u8> = frame.chunks.iter().flat_map(|c| c.iter().copied()).collect();
                prop_assert!(got == expected, "version {}", version);
            }
        }
    }

    #[test]
    fn records_in_pieces_are_written_as_in_one_and_large_pieces_are_not_copied() {
        let (first, value, last) = (vec![1; 80], Bytes::from(vec![2; 5000]), vec![3; 9]);
        let request = |records: &[u8]| {
            let data = |records| PartitionProduceData::default().with_records(records);
            let data = vec![
                data(None),
                data(Some(Bytes::copy_from_slice(records))),
                data(Some(Bytes::from_static(b"b"))),
            ];
            ProduceRequest::default()
                .with_topic_data(vec![TopicProduceData::default().with_partition_data(data)])
        };
        let behind = vec![Vec::new(), vec![value.clone(), Bytes::from(last.clone())], Vec::new()];
        let pieces = Produce { request: request(&first), behind };
        let whole = Produce::from(request(&[&first[..], &value, &last].concat()));
        for version in Produce::MIN..=Produce::MAX {
            let (mut got, mut expected) = (Parts::default(), Parts::default());
            pieces.write(&mut got, version).unwrap();
            whole.write(&mut expected, version).unwrap();
            let [got, expected] = [got, expected].map(|parts| Frame::new(parts).unwrap());
            let bytes =
                |frame: &Frame| frame.chunks.iter().flat_map(|c| c.iter().copied()).collect::<Vec<u8>>();
            assert_eq!(bytes(&got), bytes(&expected), "version {version}");
            assert!(got.chunks.iter().any(|chunk| chunk.as_ptr() == value.as_ptr()));
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let tagged = ProduceRequest::default().with_unknown_tagged_field(3, Bytes::from_static(b"x"));
        assert!(Produce::from(tagged).write(&mut Parts::default(), 9).is_err());
        let long = TopicName(StrBytes::from_string("x".repeat(40_000)));
        let topic = TopicProduceData::default().with_name(long);
        let long = ProduceRequest::default().with_topic_data(vec![topic]);
        assert!(Produce::from(long).write(&mut Parts::default(), 8).is_err());
    }
}
