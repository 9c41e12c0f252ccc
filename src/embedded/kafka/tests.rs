//! The request loop: what a client meets before any API is reached.

use bytes::BytesMut;
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};

use super::bed::Bed;
use super::cluster::Settings;
use crate::embedded::machine::Output;

#[test]
fn a_newer_client_is_told_the_versions_in_version_0() {
    let mut bed = Bed::new(1, Settings::default());
    let c = bed.connect(1);
    let mut bytes = BytesMut::from(&[0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 7, 1, 2, 3][..]);
    bed.input(c, &mut bytes);
    let answer = bed.answer::<ApiVersionsRequest>(c, 0, 7).unwrap();
    assert_eq!(answer.error_code, 35);
    assert!(answer.api_keys.iter().any(|k| k.api_key == 18 && k.max_version == 4));
    assert_eq!(bed.ended(c), None);
}

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    let mut bed = Bed::new(1, Settings::default());
    let c = bed.connect(1);
    let first = bed.send(c, 3, &ApiVersionsRequest::default());
    let second = bed.send(c, 12, &MetadataRequest::default());
    assert!(bed.answer::<ApiVersionsRequest>(c, 3, first).is_some());
    assert!(bed.answer::<MetadataRequest>(c, 12, second).is_some());
    assert!(bed.answer::<MetadataRequest>(c, 12, second).is_none());
}

#[test]
fn bytes_that_are_no_request_end_the_connection() {
    for bytes in [
        &[0xff, 0xff, 0xff, 0xff][..],                       // a negative length
        &[0x7f, 0xff, 0xff, 0xff],                           // 2 GiB
        b"GET / HTTP/1.1\r\n\r\n",                           // 1.2 GB, read as a length
        &[0, 0, 0, 0],                                       // no header
        &[0, 0, 0, 8, 0x7f, 0, 0, 0, 0, 0, 0, 1],            // an unknown key
        &[0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff], // an unknown version
        &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff], // an array of 2^31 topics
        &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0, 9],       // a client id beyond the frame
        &[0, 0, 0, 12, 0, 18, 0, 0, 0, 0, 0, 1, 0, 1, 0xff, 0], // a client id that is no UTF-8
    ] {
        let mut bed = Bed::new(1, Settings::default());
        let c = bed.connect(1);
        bed.input(c, &mut BytesMut::from(bytes));
        assert_eq!(bed.ended(c), Some(Output::Close), "{bytes:?}");
    }
}

#[test]
fn a_half_frame_is_waited_for() {
    let mut bed = Bed::new(1, Settings::default());
    let c = bed.connect(1);
    let whole = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    for at in 0..whole.len() {
        let mut input = BytesMut::from(&whole[..at]);
        bed.input(c, &mut input);
        assert_eq!(input.len(), at, "nothing is taken of a part");
        assert_eq!(bed.ended(c), None);
    }
    bed.input(c, &mut BytesMut::from(&whole[..]));
    assert!(bed.answer::<ApiVersionsRequest>(c, 0, 1).is_some());
}
