//! Agreement with kafka-protocol, both ways, and so with the C libraries of lz4 and zstd that it compresses with.
#![no_main]

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{self as peer, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions};
use libfuzzer_sys::fuzz_target;
use muslin::codec::compression::Compression;
use muslin::codec::record_batch::BatchList;
use muslin_fuzz::{Batch, Content, build, read};

fuzz_target!(|batch: Batch| {
    // Its headers are a map.
    let contents = batch.contents(false);
    let Ok(ours) = build(batch.options(), &contents) else { return };
    let theirs = RecordBatchDecoder::decode(&mut ours.clone()).unwrap();
    assert_eq!(theirs.compression, codec(batch.compression()));
    let options = batch.options();
    for (i, record) in theirs.records.iter().enumerate() {
        assert_eq!(record.offset, options.base_offset.get() + i as i64);
        assert_eq!(record.producer_id, options.producer_id.get());
        assert_eq!(record.producer_epoch, options.producer_epoch.get());
        assert_eq!(record.transactional, options.transactional);
    }
    assert_eq!(theirs.records.iter().map(content).collect::<Vec<_>>(), contents);

    // The other way; it makes its own batches of what it is given.
    let mut encoded = BytesMut::new();
    let records: Vec<_> = contents.iter().enumerate().map(|(i, c)| record(&batch, i, c)).collect();
    let options = RecordEncodeOptions { version: 2, compression: codec(batch.compression()) };
    RecordBatchEncoder::encode(&mut encoded, &records, &options).unwrap();
    let mut back = Vec::new();
    for batch in BatchList::new(encoded.freeze()) {
        back.extend(read(&batch.unwrap()).unwrap());
    }
    for (i, (offset, content)) in back.iter().enumerate() {
        assert_eq!((offset.get(), content), (i as i64, &contents[i]));
    }
    assert_eq!(back.len(), contents.len());
});

fn codec(codec: Compression) -> peer::Compression {
    match codec {
        Compression::None => peer::Compression::None,
        Compression::Gzip => peer::Compression::Gzip,
        Compression::Snappy => peer::Compression::Snappy,
        Compression::Lz4 => peer::Compression::Lz4,
        Compression::Zstd => peer::Compression::Zstd,
    }
}

fn content(record: &peer::Record) -> Content {
    Content {
        timestamp: record.timestamp,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: record.value.as_ref().map(|value| value.to_vec()),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_ref().map(|value| value.to_vec())))
            .collect(),
    }
}

fn record(batch: &Batch, i: usize, content: &Content) -> peer::Record {
    let options = batch.options();
    peer::Record {
        transactional: options.transactional,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: options.leader_epoch.get(),
        producer_id: options.producer_id.get(),
        producer_epoch: options.producer_epoch.get(),
        timestamp_type: peer::TimestampType::Creation,
        offset: i as i64,
        sequence: i as i32,
        timestamp: content.timestamp,
        key: content.key.clone().map(Bytes::from),
        value: content.value.clone().map(Bytes::from),
        headers: content
            .headers
            .iter()
            .map(|(name, value)| (StrBytes::from_string(name.clone()), value.clone().map(Bytes::from)))
            .collect::<IndexMap<_, _>>(),
    }
}
