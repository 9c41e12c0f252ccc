use bytes::{Bytes, BytesMut};

use super::builder::seal;
use super::*;
use crate::codec::compression::Compression;
use crate::{Error, ErrorKind, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Result, Sequence, Timestamp};

mod properties;

type Header<'a> = (&'a str, Option<&'a [u8]>);

fn builder() -> BatchBuilder {
    BatchBuilder::new(BatchOptions::default())
}

/// Two records: key, value and two headers; nothing at all.
fn sample(options: BatchOptions) -> Bytes {
    let mut b = BatchBuilder::new(options);
    b.push(Timestamp(1000), Some(b"key"), Some(b"value"), [("a", Some(&b"1"[..])), ("b", None)]).unwrap();
    b.push(Timestamp(1003), None, None, []).unwrap();
    b.finish().unwrap()
}

/// A batch with these bytes for its records, right in its length and checksum.
fn with_payload(payload: &[u8], count: i32) -> Bytes {
    let mut batch = BytesMut::from(&sample(BatchOptions::default())[..layout::HEADER_LEN]);
    batch.extend_from_slice(payload);
    set(&mut batch, layout::RECORD_COUNT, &count.to_be_bytes());
    set(&mut batch, layout::LAST_OFFSET_DELTA, &i32::MAX.to_be_bytes());
    reseal(&mut batch);
    batch.freeze()
}

fn set(batch: &mut [u8], at: usize, bytes: &[u8]) {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
}

fn reseal(batch: &mut [u8]) {
    let length = (batch.len() - layout::LENGTH_END) as i32;
    set(batch, layout::LENGTH, &length.to_be_bytes());
    seal(batch);
}

/// The sample with other bytes at one place, right in its length and checksum.
fn altered(at: usize, bytes: &[u8]) -> Result<BatchView> {
    let mut batch = BytesMut::from(&sample(BatchOptions::default())[..]);
    set(&mut batch, at, bytes);
    reseal(&mut batch);
    BatchView::parse(batch.freeze())
}

fn first_error(batch: Bytes) -> Error {
    let view = match BatchView::parse(batch) {
        Ok(view) => view,
        Err(error) => return error,
    };
    let records = match view.records(1 << 20) {
        Ok(records) => records,
        Err(error) => return error,
    };
    let mut iter = records.iter();
    let error = iter.find_map(Result::err).expect("an error");
    assert!(iter.next().is_none(), "nothing follows an error");
    error
}

/// Asserts that the error is of `kind` and names the thing.
#[track_caller]
fn assert_says(error: &Error, kind: ErrorKind, what: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(what), "{error}");
}

#[test]
fn a_batch_is_the_bytes_that_the_format_says() {
    let batch = sample(BatchOptions { base_offset: Offset(7), ..BatchOptions::default() });
    let mut expected = vec![
        0, 0, 0, 0, 0, 0, 0, 7, // base offset
        0, 0, 0, 0, // length, below
        0xff, 0xff, 0xff, 0xff, // leader epoch
        2,    // magic
        0, 0, 0, 0, // crc, below
        0, 0, // attributes
        0, 0, 0, 1, // last offset delta
        0, 0, 0, 0, 0, 0, 3, 0xe8, // base timestamp
        0, 0, 0, 0, 0, 0, 3, 0xeb, // max timestamp
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // producer id
        0xff, 0xff, // producer epoch
        0xff, 0xff, 0xff, 0xff, // base sequence
        0, 0, 0, 2, // record count
    ];
    expected.extend(b"\x2a\0\0\0\x06key\x0avalue\x04\x02a\x021\x02b\x01");
    expected.extend(b"\x0c\0\x06\x02\x01\x01\0");
    expected[11] = (expected.len() - 12) as u8;
    let crc = crc32c_bitwise(&expected[21..]);
    expected[17..21].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(batch, expected);
}

/// CRC-32C as RFC 3720 has it, bit by bit.
fn crc32c_bitwise(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn null_is_told_from_empty_and_headers_keep_order_and_duplicates() {
    let headers: [Header<'_>; 4] = [("z", Some(b"1")), ("a", None), ("z", Some(b"")), ("", Some(b"x"))];
    let mut b = builder();
    b.push(Timestamp(1), None, Some(b""), headers).unwrap();
    b.push(Timestamp(1), Some(b""), None, []).unwrap();
    let records = BatchView::parse(b.finish().unwrap()).unwrap().records(0).unwrap();
    let all: Vec<_> = records.iter().map(Result::unwrap).collect();
    assert_eq!((all[0].key(), all[0].value()), (None, Some(&b""[..])));
    assert_eq!((all[1].key(), all[1].value()), (Some(&b""[..]), None));
    assert_eq!(all[0].headers().len(), 4);
    let read: Vec<_> = all[0].headers().map(|(name, value)| (name.into_owned(), value)).collect();
    assert_eq!(read, headers.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(all[1].headers().count(), 0);
}

#[test]
fn keys_values_and_header_values_share_the_fetched_memory() {
    let fetched = sample(BatchOptions::default());
    let within = |part: &[u8]| fetched.as_ptr_range().contains(&part.as_ptr());
    let records = BatchView::parse(fetched.clone()).unwrap().records(0).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    assert!(within(&record.key_bytes().unwrap()) && within(&record.value_bytes().unwrap()));
    let (_, header) = record.headers().next().unwrap();
    let shared = record.share(header.unwrap());
    assert!(within(&shared));
    assert_eq!(shared, "1");
    assert_eq!(record.share(b"elsewhere"), "elsewhere");
}

#[test]
fn a_header_name_that_is_not_utf_8_does_not_stop_the_reader() {
    let record = b"\x16\0\0\0\x01\x01\x02\x04\xffn\x02v";
    let records = BatchView::parse(with_payload(record, 1)).unwrap().records(0).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    assert_eq!(record.headers().next().unwrap(), ("\u{fffd}n".into(), Some(&b"v"[..])));
    assert_eq!(record.headers().next_raw().unwrap(), (&b"\xffn"[..], Some(&b"v"[..])));
}

#[test]
fn header_fields_come_back_as_they_were_set() {
    let view = BatchView::parse(sample(BatchOptions {
        base_offset: Offset(40),
        leader_epoch: LeaderEpoch(3),
        producer_id: ProducerId(9),
        producer_epoch: ProducerEpoch(2),
        base_sequence: Sequence(17),
        transactional: true,
        ..BatchOptions::default()
    }))
    .unwrap();
    assert_eq!(
        (view.base_offset(), view.last_offset(), view.next_offset()),
        (Offset(40), Offset(41), Offset(42))
    );
    assert_eq!(view.leader_epoch(), LeaderEpoch(3));
    assert_eq!((view.producer_id(), view.producer_epoch()), (ProducerId(9), ProducerEpoch(2)));
    assert_eq!(view.base_sequence(), Sequence(17));
    assert!(view.is_transactional() && !view.is_control());
    assert_eq!((view.append_time(), view.delete_horizon()), (None, None));
    assert_eq!((view.record_count(), view.max_timestamp()), (2, Timestamp(1003)));
}

#[test]
fn append_time_is_every_records_time() {
    let options = BatchOptions { append_time: Some(Timestamp(5000)), ..BatchOptions::default() };
    let view = BatchView::parse(sample(options)).unwrap();
    assert_eq!(view.append_time(), Some(Timestamp(5000)));
    for record in &view.records(0).unwrap() {
        assert_eq!(record.unwrap().timestamp(), Timestamp(5000));
    }
}

#[test]
fn a_delete_horizon_leaves_the_records_times_as_they_are() {
    let options = BatchOptions { delete_horizon: Some(Timestamp(900_000)), ..BatchOptions::default() };
    let view = BatchView::parse(sample(options)).unwrap();
    assert_eq!(view.delete_horizon(), Some(Timestamp(900_000)));
    let times: Vec<_> = view.records(0).unwrap().iter().map(|r| r.unwrap().timestamp().0).collect();
    assert_eq!(times, [1000, 1003]);
}

#[test]
fn the_end_of_a_transaction_is_read_from_its_control_batch() {
    for kind in [ControlKind::Abort, ControlKind::Commit] {
        let marker = ControlMarker { kind, coordinator_epoch: Some(12) };
        let mut b =
            BatchBuilder::new(BatchOptions { control: true, transactional: true, ..Default::default() });
        b.push_control(Timestamp(1), marker).unwrap();
        let view = BatchView::parse(b.finish().unwrap()).unwrap();
        assert!(view.is_control());
        let records = view.records(0).unwrap();
        assert_eq!(records.iter().next().unwrap().unwrap().control_marker().unwrap(), marker);
    }
}

#[test]
fn a_control_record_that_is_no_marker_is_refused_and_an_unknown_one_is_named() {
    let other = ControlMarker::parse(Some(&[0, 0, 0, 2]), None).unwrap();
    assert_eq!(other.kind, ControlKind::Other(2));
    for (key, value, what) in [
        (None, None, "key is shorter"),
        (Some(&[0, 0, 0][..]), None, "key is shorter"),
        (Some(&[0xff, 0, 0, 1]), None, "key's version"),
        (Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0][..]), "value is shorter"),
        (Some(&[0, 0, 0, 1]), Some(&[0x80, 0, 0, 0, 0, 0]), "value's version"),
    ] {
        assert_says(&ControlMarker::parse(key, value).unwrap_err(), ErrorKind::Malformed, what);
    }
    let records = BatchView::parse(sample(BatchOptions::default())).unwrap().records(0).unwrap();
    let second = records.iter().nth(1).unwrap().unwrap();
    assert_says(&second.control_marker().unwrap_err(), ErrorKind::Malformed, "control record at offset 1");
    let refused = builder().push_control(Timestamp(1), other).unwrap_err();
    assert_says(&refused, ErrorKind::Config, "control batch");
}

#[test]
fn formats_from_before_kafka_0_11_are_refused_by_name() {
    for magic in [0, 1] {
        // The smallest message of format v0: offset 5, length 14, crc, magic, attributes, null key, null value.
        let mut message = vec![0; 26];
        set(&mut message, 0, &5_i64.to_be_bytes());
        set(&mut message, 8, &14_i32.to_be_bytes());
        message[16] = magic;
        let error = BatchView::parse(message.clone().into()).unwrap_err();
        assert_says(&error, ErrorKind::Unsupported, &format!("offset 5 is of format v{magic}"));
        let mut list = BatchList::new(message.into());
        assert_eq!(list.next().unwrap().unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(list.next().is_none());
    }
    assert_says(&altered(16, &[3]).unwrap_err(), ErrorKind::Unsupported, "magic 3");
}

#[test]
fn a_list_ends_quietly_where_the_last_batch_is_cut_off() {
    let batch = sample(BatchOptions::default());
    for cut in 0..batch.len() {
        let mut list = BatchList::new([&batch[..], &batch[..], &batch[..cut]].concat().into());
        assert_eq!(list.by_ref().map(Result::unwrap).count(), 2);
        match list.truncated() {
            None => assert_eq!(cut, 0),
            Some(truncated) => {
                assert_eq!(truncated.available, cut);
                assert_eq!(truncated.needed, (cut >= 12).then_some(batch.len()));
            }
        }
    }
}

#[test]
fn a_list_goes_on_behind_a_damaged_batch() {
    let batch = sample(BatchOptions::default());
    let mut bytes = [&batch[..], &batch[..], &batch[..]].concat();
    bytes[2 * batch.len() - 1] ^= 1;
    let kinds: Vec<_> = BatchList::new(bytes.into()).map(|b| b.err().map(|e| e.kind())).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Corrupt), None]);
}

#[test]
fn a_batch_alone_may_not_be_cut_short_nor_have_bytes_behind_it() {
    let batch = sample(BatchOptions::default());
    for cut in 0..batch.len() {
        assert_says(&BatchView::parse(batch.slice(..cut)).unwrap_err(), ErrorKind::Malformed, "cut short");
    }
    let longer = [&batch[..], b"xyz"].concat();
    assert_says(&BatchView::parse(longer.into()).unwrap_err(), ErrorKind::Malformed, "3 more behind");
}

#[test]
fn a_length_that_cannot_be_is_an_error() {
    for length in [-1, 0, 48, i32::MIN] {
        let mut bytes = sample(BatchOptions::default()).to_vec();
        set(&mut bytes, layout::LENGTH, &length.to_be_bytes());
        let error = BatchList::new(bytes.into()).next().unwrap().unwrap_err();
        assert_says(&error, ErrorKind::Malformed, &format!("length is {length}, 49 at least"));
    }
    let mut bytes = sample(BatchOptions::default()).to_vec();
    set(&mut bytes, layout::LENGTH, &i32::MAX.to_be_bytes());
    let mut list = BatchList::new(bytes.into());
    assert!(list.next().is_none() && list.truncated().is_some());
}

#[test]
fn header_fields_that_cannot_be_are_named() {
    let bad =
        |at, bytes: &[u8], what| assert_says(&altered(at, bytes).unwrap_err(), ErrorKind::Malformed, what);
    bad(layout::BASE_OFFSET, &(-1_i64).to_be_bytes(), "base offset is -1");
    bad(layout::BASE_OFFSET, &(i64::MAX - 1).to_be_bytes(), "last offset delta is 1");
    bad(layout::LAST_OFFSET_DELTA, &(-2_i32).to_be_bytes(), "last offset delta is -2");
    bad(layout::RECORD_COUNT, &(-3_i32).to_be_bytes(), "record count is -3");
    bad(layout::ATTRIBUTES, &[0, 5], "codec 5");
}

#[test]
fn a_record_count_is_believed_only_as_far_as_the_bytes_go() {
    let record = b"\x0c\0\0\0\x01\x01\0";
    assert_says(
        &first_error(with_payload(record, i32::MAX)),
        ErrorKind::Malformed,
        "2147483647 records cannot stand in 7",
    );
    assert_says(
        &first_error(with_payload(record, 2)),
        ErrorKind::Malformed,
        "2 records cannot stand in 7 bytes",
    );
    assert_says(
        &first_error(with_payload(record, 0)),
        ErrorKind::Malformed,
        "7 bytes are left after the last of its 0",
    );
    assert_says(
        &first_error(with_payload(&[&record[..], b"\0"].concat(), 1)),
        ErrorKind::Malformed,
        "1 bytes are left",
    );
}

#[test]
fn every_field_of_a_record_is_checked_and_named() {
    let cases: &[(&[u8], &str)] = &[
        (b"\x01\0\0\0\0\0\0\0", "length is negative: -1"),
        (b"\xfe\x01\0\0\0\0\0\0", "length is 127, more than"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", "length is a number of too many bits"),
        (b"\0\0\0\0\0\0\0\0", "attributes is cut short"),
        (b"\x02\0\0\0\0\0\0\0", "timestamp delta is cut short"),
        (b"\x0e\0\x80\x80\x80\x80\x80\x80", "timestamp delta is cut short"),
        (b"\x18\0\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02\0", "timestamp delta is a number of too many bits"),
        (b"\x04\0\0\0\0\0\0\0", "offset delta is cut short"),
        (b"\x0c\0\0\x01\x01\x01\0", "offset delta is -1, out of range"),
        (b"\x0c\0\0\0\x03\x01\0\0", "key length is negative: -2"),
        (b"\x0c\0\0\0\x80\x01\x01\0", "key length is 64, more than"),
        (b"\x0c\0\0\0\x01\x03\0\0", "value length is negative: -2"),
        (b"\x0c\0\0\0\x01\x04\0\0", "value length is 2, more than"),
        (b"\x0c\0\0\0\x01\x01\x01\0", "header count is -1"),
        (b"\x0c\0\0\0\x01\x01\x02\0", "header name length is cut short"),
        (b"\x0e\0\0\0\x01\x01\x02\x01", "header name length is negative: -1"),
        (b"\x10\0\0\0\x01\x01\x02\0\x03", "header value length is negative: -2"),
        (b"\x0e\0\0\0\x01\x01\0\0", "length leaves 1 bytes behind the last header"),
        // A count of headers that would ask for gigabytes if it were believed.
        (b"\x16\0\0\0\x01\x01\xfe\xff\xff\xff\x0f\0", "header value length is cut short"),
    ];
    for (payload, what) in cases {
        let error = first_error(with_payload(payload, 1));
        assert_says(&error, ErrorKind::Malformed, what);
        assert!(error.message().starts_with("record batch at offset 0: record 0: "), "{error}");
    }
}

#[test]
fn deltas_that_leave_their_range_are_refused() {
    // A timestamp delta of 1 on the largest timestamp.
    let mut batch = BytesMut::from(&with_payload(b"\x0c\0\x02\0\x01\x01\0", 1)[..]);
    set(&mut batch, layout::BASE_TIMESTAMP, &i64::MAX.to_be_bytes());
    seal(&mut batch);
    assert_says(&first_error(batch.freeze()), ErrorKind::Malformed, "timestamp delta is 1, out of range");

    // The same offset twice; an offset behind the batch's last.
    let twice = b"\x0c\0\0\x06\x01\x01\0\x0c\0\0\x06\x01\x01\0";
    assert_says(&first_error(with_payload(twice, 2)), ErrorKind::Malformed, "record 1: offset delta is 3");
    let mut batch = BytesMut::from(&with_payload(b"\x0c\0\0\x06\x01\x01\0", 1)[..]);
    set(&mut batch, layout::LAST_OFFSET_DELTA, &2_i32.to_be_bytes());
    seal(&mut batch);
    assert_says(&first_error(batch.freeze()), ErrorKind::Malformed, "offset delta is 3, out of range");
}

#[test]
fn compaction_leaves_gaps_and_batches_without_records() {
    let mut b = builder();
    b.skip_offsets(2);
    b.push(Timestamp(1), None, Some(b"a"), []).unwrap();
    b.skip_offsets(3);
    b.push(Timestamp(1), None, Some(b"b"), []).unwrap();
    b.skip_offsets(1);
    let view = BatchView::parse(b.finish().unwrap()).unwrap();
    let offsets: Vec<_> = view.records(0).unwrap().iter().map(|r| r.unwrap().offset().0).collect();
    assert_eq!(offsets, [2, 6]);
    assert_eq!(view.last_offset(), Offset(7));

    // The largest offset delta there is can be said; one more cannot be asked for.
    b.push(Timestamp(1), None, None, []).unwrap();
    b.skip_offsets(u32::MAX);
    assert_eq!(b.push(Timestamp(1), None, None, []).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(BatchView::parse(b.finish().unwrap()).unwrap().last_offset(), Offset(i32::MAX.into()));

    for codec in Compression::ALL {
        let mut batch = BytesMut::from(&with_payload(b"", 0)[..]);
        batch[layout::ATTRIBUTES + 1] = codec.id();
        seal(&mut batch);
        let records = BatchView::parse(batch.freeze()).unwrap().records(0).unwrap();
        assert!(records.is_empty() && records.iter().next().is_none());
    }
}

#[test]
fn decompression_stops_at_its_limit() {
    for codec in Compression::ALL.into_iter().filter(|c| *c != Compression::None && c.is_available()) {
        let mut b = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
        b.push(Timestamp(1), None, Some(&[7; 100_000]), []).unwrap();
        let size = b.size() - layout::HEADER_LEN;
        let view = BatchView::parse(b.finish().unwrap()).unwrap();
        assert_eq!(view.compression(), codec);
        assert_eq!(view.records(size).unwrap().iter().map(Result::unwrap).count(), 1);
        let error = view.records(size - 1).unwrap_err();
        assert_says(&error, ErrorKind::TooLarge, "record batch at offset 0: ");
    }
}

#[test]
fn a_builder_knows_its_size_and_what_still_fits() {
    let options = BatchOptions { max_bytes: 200, ..BatchOptions::default() };
    let mut b = BatchBuilder::new(options);
    assert_eq!(b.size(), 61);
    b.push(Timestamp(1), None, Some(&[1; 60]), []).unwrap();
    let size = b.size();
    let free = 200 - size - 8;
    assert!(b.fits(Timestamp(1), None, Some(&vec![1; free]), []));
    assert!(!b.fits(Timestamp(1), None, Some(&vec![1; free + 1]), []));
    let error = b.push(Timestamp(1), None, Some(&vec![1; free + 1]), []).unwrap_err();
    assert_says(&error, ErrorKind::Full, "of 200 bytes");
    assert_eq!((b.len(), b.size()), (1, size), "a refused record changes nothing");
    b.push(Timestamp(1), None, Some(&vec![1; free]), []).unwrap();
    assert_eq!(b.size(), 200);
    assert_eq!(b.finish().unwrap().len(), 200);

    let error = b.push(Timestamp(1), Some(b"k"), Some(&[1; 200]), []).unwrap_err();
    assert_says(
        &error,
        ErrorKind::TooLarge,
        "a key of 1 bytes and a value of 200 does not fit in a batch of 200",
    );
    assert!(b.is_empty());
}

#[test]
fn a_record_that_cannot_be_written_leaves_the_batch_as_it_was() {
    let mut b = builder();
    assert_says(&b.push(Timestamp(-2), None, None, []).unwrap_err(), ErrorKind::Config, "timestamp is -2");
    assert_says(&b.finish().unwrap_err(), ErrorKind::Config, "needs a record");
    b.push(Timestamp(-1), None, Some(b"x"), []).unwrap();
    // From -1 to the largest is more than a delta can say: another batch can.
    assert_eq!(b.push(Timestamp(i64::MAX), None, None, []).unwrap_err().kind(), ErrorKind::Full);
    let view = BatchView::parse(b.finish().unwrap()).unwrap();
    assert_eq!(view.record_count(), 1);
    b.push(Timestamp(i64::MAX), None, None, []).unwrap();
}

/// Headers that are longer when they are iterated over again.
#[derive(Clone)]
struct Changing(std::rc::Rc<std::cell::Cell<usize>>, usize);

impl Iterator for Changing {
    type Item = Header<'static>;
    fn next(&mut self) -> Option<Self::Item> {
        self.1 = self.1.checked_sub(1)?;
        self.0.set(self.0.get() + 1);
        Some(("h", Some(&b"0123456789abcdef"[..self.0.get().min(16)])))
    }
}

#[test]
fn headers_that_change_while_they_are_written_do_no_harm() {
    let mut b = builder();
    for _ in 0..2 {
        let error = b.push(Timestamp(1), None, None, Changing(Default::default(), 2)).unwrap_err();
        assert_says(&error, ErrorKind::Config, "not the same");
        b.push(Timestamp(1), None, Some(b"good"), []).unwrap();
    }
    let records = BatchView::parse(b.finish().unwrap()).unwrap().records(0).unwrap();
    let values: Vec<_> = records.iter().map(|r| r.unwrap().value().unwrap()).collect();
    assert_eq!(values, [b"good", b"good"]);
}

#[test]
fn a_codec_that_refuses_leaves_the_records() {
    let mut b = BatchBuilder::new(BatchOptions {
        compression: Compression::Gzip,
        level: Some(99),
        ..Default::default()
    });
    b.push(Timestamp(1), None, Some(b"x"), []).unwrap();
    // The level is wrong, or the codec is not in this build.
    assert!(matches!(b.finish().unwrap_err().kind(), ErrorKind::Config | ErrorKind::Unsupported));
    assert_eq!(b.len(), 1);
    b.clear();
    assert!(b.is_empty() && b.size() == 61);
}

#[test]
fn the_buffer_is_used_again_once_its_batch_is_dropped() {
    let mut b = builder();
    let mut build = || {
        for _ in 0..100 {
            b.push(Timestamp(1), Some(b"key"), Some(&[7; 500]), []).unwrap();
        }
        b.finish().unwrap()
    };
    drop(build());
    let second = build();
    let place = second.as_ptr();
    drop(second);
    let third = build();
    assert_eq!(third.as_ptr(), place);
    // While it is held, the next one stands elsewhere and the held one stays as it is.
    let copy = third.to_vec();
    let fourth = build();
    assert_ne!(fourth.as_ptr(), place);
    assert_eq!(third, copy);
    assert_eq!(third, fourth);
}

#[test]
fn a_batch_that_is_given_back_is_written_over_unless_it_is_held() {
    let mut b = builder();
    let mut build = |back: Option<Bytes>, value: &[u8]| {
        if let Some(back) = back {
            b.recycle(back);
        }
        b.push(Timestamp(1), Some(b"key"), Some(value), []).unwrap();
        b.finish().unwrap()
    };
    let first = build(None, &[7; 500]);
    let place = first.as_ptr();
    let second = build(Some(first), &[8; 500]);
    assert_eq!(second.as_ptr(), place);
    let copy = second.to_vec();
    let third = build(Some(second.clone()), &[9; 500]);
    assert_ne!(third.as_ptr(), place);
    assert_eq!(second, copy);
    // Records that stand in the builder are not lost by what is given back.
    b.push(Timestamp(1), None, Some(b"here"), []).unwrap();
    b.recycle(third);
    let view = BatchView::parse(b.finish().unwrap()).unwrap();
    let records = view.records(1000).unwrap();
    assert_eq!(records.iter().next().unwrap().unwrap().value(), Some(&b"here"[..]));
}

#[test]
fn the_producer_may_be_said_after_the_records_and_again_after_the_batch() {
    let stamped = BatchOptions {
        producer_id: ProducerId(7),
        producer_epoch: ProducerEpoch(1),
        base_sequence: Sequence(30),
        ..BatchOptions::default()
    };
    let at_once = sample(stamped);
    let mut b = builder();
    b.push(Timestamp(1000), Some(b"key"), Some(b"value"), [("a", Some(&b"1"[..])), ("b", None)]).unwrap();
    b.push(Timestamp(1003), None, None, []).unwrap();
    b.set_producer(ProducerId(7), ProducerEpoch(1), Sequence(30));
    assert_eq!(b.finish().unwrap(), at_once);

    let earlier = sample(BatchOptions { producer_id: ProducerId(7), ..BatchOptions::default() });
    let held = earlier.clone();
    let again = restamp(earlier, ProducerId(7), ProducerEpoch(1), Sequence(30)).unwrap();
    assert_eq!(again, at_once);
    assert_eq!(BatchView::parse(held).unwrap().base_sequence(), Sequence::NONE, "a shared batch is copied");
}

#[test]
fn a_damaged_batch_gets_no_new_checksum() {
    let mut batch = BytesMut::from(&sample(BatchOptions::default())[..]);
    *batch.last_mut().unwrap() ^= 1;
    let error = restamp(batch.freeze(), ProducerId(1), ProducerEpoch(0), Sequence(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
