//! Properties over arbitrary batches, and agreement with kafka-protocol's codec.

use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as peer;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::codec::compression::{compress, decompress};

/// A record as a test holds it.
#[derive(Debug, Clone, PartialEq)]
struct Plain {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Plain {
    fn headers(&self) -> impl Iterator<Item = Header<'_>> + Clone {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..max),
        // The lengths around which a number takes a byte more, and around which short parts are copied otherwise.
        1 => prop::sample::select(vec![7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 8191, 8192])
            .prop_map(|len| (0..len).map(|i| i as u8).collect()),
    ]
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => (0_u32..5000).prop_map(|ms| 1_700_000_000_000 + i64::from(ms)),
        2 => 0_i64..1 << 45,
        1 => Just(-1_i64),
    ]
}

/// Records with rising offsets; each number is the gap before it.
fn records() -> impl Strategy<Value = Vec<Plain>> {
    let header = ("[a-zé]{0,9}", option::of(bytes(20)));
    let gap = prop_oneof![9 => Just(0_i64), 1 => 0_i64..20_000];
    let record = (gap, timestamp(), option::of(bytes(40)), option::of(bytes(200)), vec(header, 0..4));
    vec(record, 1..40).prop_map(|records| {
        let mut next = 0;
        let numbered = records.into_iter().map(|(gap, timestamp, key, value, headers)| {
            let offset = next + gap;
            next = offset + 1;
            Plain { offset, timestamp, key, value, headers }
        });
        numbered.collect()
    })
}

fn codec() -> impl Strategy<Value = Compression> {
    let available: Vec<_> = Compression::ALL.into_iter().filter(|c| c.is_available()).collect();
    prop::sample::select(available)
}

prop_compose! {
    fn options()(
        compression in codec(),
        base_offset in 0_i64..1 << 60,
        leader_epoch: i32,
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        transactional: bool,
        delete_horizon in option::weighted(0.2, 0_i64..1 << 45),
    ) -> BatchOptions {
        BatchOptions {
            compression,
            base_offset: Offset(base_offset),
            leader_epoch: LeaderEpoch(leader_epoch),
            producer_id: ProducerId(producer_id),
            producer_epoch: ProducerEpoch(producer_epoch),
            base_sequence: Sequence(base_sequence),
            transactional,
            delete_horizon: delete_horizon.map(Timestamp),
            ..BatchOptions::default()
        }
    }
}

fn build(options: &BatchOptions, records: &[Plain]) -> Bytes {
    build_in(&mut BatchBuilder::new(options.clone()), records)
}

fn build_in(b: &mut BatchBuilder, records: &[Plain]) -> Bytes {
    let mut next = 0;
    for r in records {
        b.skip_offsets((r.offset - next) as u32);
        next = r.offset + 1;
        assert!(b.fits(Timestamp(r.timestamp), r.key.as_deref(), r.value.as_deref(), r.headers()));
        b.push(Timestamp(r.timestamp), r.key.as_deref(), r.value.as_deref(), r.headers()).unwrap();
    }
    let size = b.size();
    let batch = b.finish().unwrap();
    if b.options().compression == Compression::None {
        assert_eq!(batch.len(), size);
    }
    batch
}

fn plain(record: &Record<'_>, base: i64) -> Plain {
    Plain {
        offset: record.offset().0 - base,
        timestamp: record.timestamp().0,
        key: record.key().map(<[u8]>::to_vec),
        value: record.value().map(<[u8]>::to_vec),
        headers: record
            .headers()
            .map(|(name, value)| (name.into_owned(), value.map(<[u8]>::to_vec)))
            .collect(),
    }
}

fn read_batch(view: &BatchView) -> Result<Vec<Plain>> {
    let records = view.records(1 << 20)?;
    records.iter().map(|r| r.map(|r| plain(&r, view.base_offset().0))).collect()
}

/// All records of a list of batches, without their batch's own offset.
fn read(batches: Bytes) -> Result<Vec<Plain>> {
    let mut all = Vec::new();
    for view in BatchList::new(batches) {
        all.extend(read_batch(&view?)?);
    }
    Ok(all)
}

/// A change to bytes. Places are taken modulo the length.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(usize, u8),
    Cut(usize, usize),
    Insert(usize, Vec<u8>),
    /// Copies some bytes from one place over another.
    Splice(usize, usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<usize>(), 1..=255_u8).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (0..layout::HEADER_LEN, 1..=255_u8).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (any::<usize>(), 1..50_usize).prop_map(|(at, len)| Mutation::Cut(at, len)),
        (any::<usize>(), vec(any::<u8>(), 1..20)).prop_map(|(at, new)| Mutation::Insert(at, new)),
        (any::<usize>(), any::<usize>(), 1..50_usize)
            .prop_map(|(from, to, len)| Mutation::Splice(from, to, len)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let len = bytes.len().max(1);
    match mutation {
        Mutation::Flip(at, bits) => {
            if let Some(byte) = bytes.get_mut(at % len) {
                *byte ^= bits;
            }
        }
        Mutation::Cut(at, n) => {
            let at = at % len;
            bytes.drain(at..(at + n).min(bytes.len()));
        }
        Mutation::Insert(at, new) => {
            let at = at % len;
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Splice(from, to, n) => {
            let (from, to) = (from % len, to % len);
            let n = (*n).min(len - from.max(to));
            bytes.copy_within(from..from + n, to);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_records_come_back_as_they_were(options in options(), records in records()) {
        let view = BatchView::parse(build(&options, &records)).unwrap();
        prop_assert_eq!(read_batch(&view).unwrap(), &records[..]);
        prop_assert_eq!(view.compression(), options.compression);
        prop_assert_eq!(view.base_offset(), options.base_offset);
        prop_assert_eq!(view.last_offset().0, options.base_offset.0 + records[records.len() - 1].offset);
        prop_assert_eq!(view.leader_epoch(), options.leader_epoch);
        prop_assert_eq!(view.producer_id(), options.producer_id);
        prop_assert_eq!(view.producer_epoch(), options.producer_epoch);
        prop_assert_eq!(view.base_sequence(), options.base_sequence);
        prop_assert_eq!(view.is_transactional(), options.transactional);
        prop_assert_eq!(view.delete_horizon(), options.delete_horizon);
        prop_assert_eq!(view.record_count() as usize, records.len());
        prop_assert_eq!(view.max_timestamp().0, records.iter().map(|r| r.timestamp).max().unwrap());

        let mut cursor = view.records(1 << 20).unwrap().into_cursor();
        for (i, expected) in records.iter().enumerate() {
            prop_assert_eq!(cursor.remaining(), records.len() - i);
            let record = cursor.next().unwrap().unwrap();
            prop_assert_eq!(&plain(&record, options.base_offset.0), expected);
        }
        prop_assert!(cursor.next().is_none());
    }

    #[test]
    fn no_record_takes_more_than_its_upper_bound(record in records()) {
        for r in &record {
            let mut b = builder();
            b.push(Timestamp(r.timestamp), r.key.as_deref(), r.value.as_deref(), r.headers()).unwrap();
            prop_assert!(b.size() <= BatchBuilder::upper_bound(r.key.as_deref(), r.value.as_deref(), r.headers()));
        }
    }

    #[test]
    fn a_batch_with_shared_values_is_the_one_with_copies(
        options in options(), records in records(), shared in vec(any::<bool>(), 12),
    ) {
        let mut b = BatchBuilder::new(options.clone());
        let (mut next, mut values) = (0, Vec::new());
        for (r, shared) in records.iter().zip(shared.into_iter().cycle()) {
            b.skip_offsets((r.offset - next) as u32);
            next = r.offset + 1;
            match r.value.clone().map(Bytes::from).filter(|_| shared) {
                Some(value) => {
                    b.push_shared(Timestamp(r.timestamp), r.key.as_deref(), &value, r.headers()).unwrap();
                    values.push(value);
                }
                None => b.push(Timestamp(r.timestamp), r.key.as_deref(), r.value.as_deref(), r.headers()).unwrap(),
            }
        }
        let size = b.size();
        let pieces = b.finish_pieces().unwrap();
        prop_assert!(b.is_empty() && b.size() == layout::HEADER_LEN);
        if options.compression == Compression::None {
            prop_assert_eq!(pieces.len(), size);
            let (_, rest) = pieces.clone().into_parts();
            let places: Vec<_> = rest.iter().step_by(2).map(|piece| piece.as_ptr()).collect();
            prop_assert_eq!(places, values.iter().map(|value| value.as_ptr()).collect::<Vec<_>>());
        }
        prop_assert_eq!(pieces.join(), build(&options, &records));
    }

    #[test]
    fn a_batch_in_the_memory_of_others_is_the_same(
        options in options(), batches in vec((records(), any::<bool>()), 1..6),
    ) {
        let mut b = BatchBuilder::new(options.clone());
        let mut held = Vec::new();
        for (records, hold) in &batches {
            let batch = build_in(&mut b, records);
            prop_assert_eq!(&batch, &build(&options, records));
            if *hold {
                held.push((batch.clone(), batch.to_vec()));
            }
            b.recycle(batch);
        }
        for (batch, copy) in held {
            prop_assert_eq!(batch, copy);
        }
    }

    #[test]
    fn a_restamped_batch_is_the_one_that_would_have_been_built(
        options in options(), records in records(), id: i64, epoch: i16, sequence: i32,
    ) {
        let (producer_id, producer_epoch, base_sequence) = (ProducerId(id), ProducerEpoch(epoch), Sequence(sequence));
        let again = restamp(build(&options, &records), producer_id, producer_epoch, base_sequence).unwrap();
        let options = BatchOptions { producer_id, producer_epoch, base_sequence, ..options };
        prop_assert_eq!(again, build(&options, &records));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The checksum sees it, or the change is in what it does not cover (base offset, leader epoch), or beyond the end.
    #[test]
    fn every_change_to_a_batch_gives_an_error_or_the_same_records(
        options in options(), records in records(), change in mutation(),
    ) {
        let batch = build(&options, &records);
        let mut bytes = batch.to_vec();
        mutate(&mut bytes, &change);
        let mut list = BatchList::new(bytes.clone().into());
        match list.next() {
            Some(Ok(view)) => prop_assert_eq!(read_batch(&view).unwrap(), records),
            Some(Err(_)) => {}
            None => prop_assert!(bytes.is_empty() || list.truncated().is_some()),
        }
    }

    /// As a hostile producer would send it: the checksum is right, the inside is not. Each part that is handed out
    /// lies within the records' bytes, so all of them together take no more than these.
    #[test]
    fn changes_under_a_right_checksum_never_panic_and_never_give_more_than_there_is(
        options in options(), records in records(), changes in vec(mutation(), 1..4),
    ) {
        let mut bytes = build(&options, &records).to_vec();
        for change in &changes {
            mutate(&mut bytes, change);
        }
        if bytes.len() >= layout::HEADER_LEN {
            bytes[layout::MAGIC_AT] = layout::MAGIC;
            reseal(&mut bytes);
        }
        let limit = 1 << 20;
        let Ok(view) = BatchView::parse(bytes.into()) else { return Ok(()) };
        let Ok(all) = view.records(limit) else { return Ok(()) };
        prop_assert!(all.as_bytes().len() <= limit.max(view.as_bytes().len()));
        let (mut count, mut given) = (0, 0);
        for record in all.iter().map_while(Result::ok) {
            count += 1;
            given += record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len);
            given += record.headers().map(|(_, value)| value.map_or(0, <[u8]>::len)).sum::<usize>();
            prop_assert!(record.offset() >= view.base_offset() && record.offset() <= view.last_offset());
        }
        prop_assert!(given + layout::MIN_RECORD_LEN * count <= all.as_bytes().len());
        prop_assert!(count <= all.len());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), magic: bool) {
        let mut bytes = bytes;
        if magic && bytes.len() > layout::MAGIC_AT {
            bytes[layout::MAGIC_AT] = layout::MAGIC;
        }
        let _ = read(bytes.into());
    }
}

fn peer_compression(codec: Compression) -> peer::Compression {
    match codec {
        Compression::None => peer::Compression::None,
        Compression::Gzip => peer::Compression::Gzip,
        Compression::Snappy => peer::Compression::Snappy,
        Compression::Lz4 => peer::Compression::Lz4,
        Compression::Zstd => peer::Compression::Zstd,
    }
}

fn our_compression(codec: peer::Compression) -> Compression {
    Compression::from_id(codec as u8).unwrap()
}

/// kafka-protocol keeps one header of a name; so do these records, in the order it keeps.
fn unique_headers(mut records: Vec<Plain>) -> Vec<Plain> {
    for r in &mut records {
        let mut seen = std::collections::HashSet::new();
        r.headers.retain(|(name, _)| seen.insert(name.clone()));
    }
    records
}

proptest! {
    #[test]
    fn kafka_protocol_reads_what_the_builder_writes(options in options(), records in records()) {
        let records = unique_headers(records);
        let mut batch = build(&options, &records);
        let unpack = |bytes: &mut Bytes, codec| {
            Ok(decompress(our_compression(codec), bytes, 1 << 20)?)
        };
        let read = peer::RecordBatchDecoder::decode_with_custom_compression(&mut batch, Some(unpack)).unwrap();
        prop_assert!(batch.is_empty());
        prop_assert_eq!(read.records.len(), records.len());
        for (theirs, ours) in read.records.iter().zip(&records) {
            let plain = Plain {
                offset: theirs.offset - options.base_offset.0,
                timestamp: theirs.timestamp,
                key: theirs.key.as_ref().map(|k| k.to_vec()),
                value: theirs.value.as_ref().map(|v| v.to_vec()),
                headers: theirs
                    .headers
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.as_ref().map(|v| v.to_vec())))
                    .collect(),
            };
            prop_assert_eq!(&plain, ours);
            prop_assert_eq!(theirs.partition_leader_epoch, options.leader_epoch.0);
            prop_assert_eq!(theirs.producer_id, options.producer_id.0);
            prop_assert_eq!(theirs.producer_epoch, options.producer_epoch.0);
            prop_assert_eq!(theirs.transactional, options.transactional);
            prop_assert_eq!(theirs.delete_horizon, options.delete_horizon.is_some());
            prop_assert_eq!(theirs.sequence, options.base_sequence.0.wrapping_add(ours.offset as i32));
        }
    }

    #[test]
    fn the_view_reads_what_kafka_protocol_writes(options in options(), records in records()) {
        let records = unique_headers(records);
        let base = options.base_offset.0;
        let theirs: Vec<_> = records
            .iter()
            .map(|r| peer::Record {
                transactional: options.transactional,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: options.leader_epoch.0,
                producer_id: options.producer_id.0,
                producer_epoch: options.producer_epoch.0,
                timestamp_type: peer::TimestampType::Creation,
                offset: base + r.offset,
                sequence: options.base_sequence.0.wrapping_add(r.offset as i32),
                timestamp: r.timestamp,
                key: r.key.clone().map(Bytes::from),
                value: r.value.clone().map(Bytes::from),
                headers: r
                    .headers
                    .iter()
                    .map(|(name, value)| (StrBytes::from_string(name.clone()), value.clone().map(Bytes::from)))
                    .collect::<IndexMap<_, _>>(),
            })
            .collect();
        let encoding = peer::RecordEncodeOptions { version: 2, compression: peer_compression(options.compression) };
        let pack = |records: &mut BytesMut, out: &mut BytesMut, codec| {
            Ok(compress(our_compression(codec), None, records, out)?)
        };
        let mut out = BytesMut::new();
        peer::RecordBatchEncoder::encode_with_custom_compression(&mut out, &theirs, &encoding, Some(pack)).unwrap();
        // Its batch begins at its first record: a gap before that is not written.
        let first = records[0].offset;
        let view = BatchView::parse(out.freeze()).unwrap();
        prop_assert_eq!(view.base_offset().0, base + first);
        let expected: Vec<_> = records.iter().map(|r| Plain { offset: r.offset - first, ..r.clone() }).collect();
        prop_assert_eq!(read_batch(&view).unwrap(), expected);
        prop_assert_eq!(view.producer_id(), options.producer_id);
        prop_assert_eq!(view.leader_epoch(), options.leader_epoch);
        prop_assert_eq!(view.is_transactional(), options.transactional);
    }
}
