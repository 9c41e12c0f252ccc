//! Transactions and producer ids, through requests.

use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse,
    ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use crate::Topic;
use crate::embedded::kafka::bed::Bed;
use crate::embedded::kafka::cluster::Settings;
use crate::embedded::machine::ConnectionId;

const NONE: i16 = 0;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
const CONCURRENT_TRANSACTIONS: i16 = 51;
const PRODUCER_FENCED: i16 = 90;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One broker with topic `t` of three partitions.
fn bed(settings: Settings) -> (Bed, ConnectionId) {
    let mut bed = Bed::new(1, settings);
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 3).unwrap();
    let c = bed.connect(1);
    (bed, c)
}

fn init_request(id: Option<&str>, expected: (i64, i16)) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(id.map(|id| TransactionalId(text(id))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(expected.0))
        .with_producer_epoch(expected.1)
}

fn init(bed: &mut Bed, c: ConnectionId, id: &str) -> InitProducerIdResponse {
    bed.call(c, 5, &init_request(Some(id), (-1, -1)))
}

fn who(response: &InitProducerIdResponse) -> (i64, i16) {
    assert_eq!(response.error_code, NONE);
    (response.producer_id.0, response.producer_epoch)
}

fn add(bed: &mut Bed, c: ConnectionId, id: &str, producer: (i64, i16), n: i32) -> i16 {
    let topic = AddPartitionsToTxnTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![n]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(TransactionalId(text(id)))
        .with_v3_and_below_producer_id(ProducerId(producer.0))
        .with_v3_and_below_producer_epoch(producer.1)
        .with_v3_and_below_topics(vec![topic]);
    let response = bed.call(c, 3, &request);
    response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
}

fn end(
    bed: &mut Bed,
    c: ConnectionId,
    v: i16,
    id: &str,
    producer: (i64, i16),
    commit: bool,
) -> EndTxnResponse {
    let request = EndTxnRequest::default()
        .with_transactional_id(TransactionalId(text(id)))
        .with_producer_id(ProducerId(producer.0))
        .with_producer_epoch(producer.1)
        .with_committed(commit);
    bed.call(c, v, &request)
}

#[test]
fn an_idempotent_producer_gets_an_id_of_its_own_at_epoch_0() {
    let (mut bed, c) = bed(Settings::default());
    for version in 0..=5 {
        let expected = if version >= 3 { (-1, -1) } else { (0, 0) };
        let mut request = init_request(None, expected);
        if version < 3 {
            request = InitProducerIdRequest::default().with_transactional_id(None);
        }
        let answer = bed.call(c, version, &request);
        assert_eq!(who(&answer), (i64::from(version), 0));
    }
}

#[test]
fn a_transactional_id_keeps_its_producer_and_raises_the_epoch() {
    let (mut bed, c) = bed(Settings::default());
    let first = who(&init(&mut bed, c, "x"));
    assert_eq!(who(&init(&mut bed, c, "x")), (first.0, first.1 + 1));
    assert_ne!(who(&init(&mut bed, c, "y")).0, first.0);
}
