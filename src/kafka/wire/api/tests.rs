use bytes::BytesMut;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::api_versions_response::ApiVersion as Spoken;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::*;

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

fn text(s: &'static str) -> StrBytes {
    StrBytes::from_static_str(s)
}

/// Encodes an answer in every version spoken, reads it back, then damages it everywhere.
pub(super) fn every_version<R: Api>(answer: &R::Answer)
where
    R::Answer: Encodable,
{
    for version in R::MIN..=R::MAX {
        let mut out = BytesMut::new();
        answer.encode(&mut out, version).unwrap_or_else(|e| panic!("{} {version}: {e}", R::NAME));
        let body = out.freeze();
        let read =
            decode::<R>(body.clone(), version).unwrap_or_else(|e| panic!("{} {version}: {e}", R::NAME));
        let mut again = BytesMut::new();
        read.encode(&mut again, version).unwrap();
        assert_eq!(again, body, "{} {version}", R::NAME);

        assert!(decode::<R>(body.slice(..body.len() - 1), version).is_err(), "{} {version} cut", R::NAME);
        let mut longer = BytesMut::from(&body[..]);
        longer.extend_from_slice(&[0]);
        assert!(decode::<R>(longer.freeze(), version).is_err(), "{} {version} longer", R::NAME);
        // Whatever is damaged, the answer is an error or an answer: no panic, no huge allocation.
        for at in 0..body.len() {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut damaged = BytesMut::from(&body[..]);
                damaged[at..].iter_mut().take(5).for_each(|b| *b = value);
                drop(decode::<R>(damaged.freeze(), version));
            }
        }
    }
}

#[test]
fn produce() {
    let partition =
        PartitionProduceResponse::default().with_index(3).with_base_offset(77).with_log_append_time_ms(-1);
    let refused = BatchIndexAndErrorMessage::default()
        .with_batch_index(2)
        .with_batch_index_error_message(Some(StrBytes::from_static_str("no")));
    let moved = PartitionProduceResponse::default()
        .with_index(4)
        .with_error_code(6)
        .with_error_message(Some(StrBytes::from_static_str("moved")))
        .with_current_leader(LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(7));
    let topic = TopicProduceResponse::default()
        .with_name(name())
        .with_partition_responses(vec![partition.with_record_errors(vec![refused]), moved]);
    let node = NodeEndpoint::default()
        .with_node_id(BrokerId(2))
        .with_host(StrBytes::from_static_str("h"))
        .with_port(9)
        .with_rack(Some(StrBytes::from_static_str("r")));
    let mut answer = ProduceResponse::default().with_responses(vec![topic]).with_node_endpoints(vec![node]);
    let mut out = BytesMut::new();
    answer.encode(&mut out, 12).unwrap();
    assert_eq!(decode::<Produce>(out.freeze(), 12).unwrap(), answer, "leaders and addresses are read");
    for version in [8, 9] {
        // These have no place for them.
        assert!(answer.encode(&mut BytesMut::new(), version).is_ok());
    }
    every_version::<Produce>(&answer);
    answer.node_endpoints.clear();
    every_version::<Produce>(&answer);
}

#[test]
fn an_answer_that_announces_billions_in_a_tagged_field_is_refused_before_it_is_allocated() {
    // A produce answer, version 10: no topics, no throttling, the tagged field 0 with 4,294,967,294 addresses.
    let body = Bytes::from_static(&[1, 0, 0, 0, 0, 1, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(decode::<Produce>(body, 10).is_err());
}

#[test]
fn fetch_and_its_records_are_slices_of_the_frame() {
    let records = Bytes::from_static(b"not looked at by this layer");
    let partition = PartitionData::default()
        .with_high_watermark(9)
        .with_aborted_transactions(Some(vec![AbortedTransaction::default()]))
        .with_records(Some(records));
    let topic = FetchableTopicResponse::default().with_topic(name()).with_partitions(vec![partition]);
    let answer = FetchResponse::default().with_responses(vec![topic]);
    every_version::<FetchRequest>(&answer);

    let mut frame = vec![0, 0, 0, 7];
    answer.encode(&mut frame, 11).unwrap();
    let span = frame.as_ptr_range();
    let mut cursor = Cursor::new(frame);
    cursor.set_position(4);
    let Answer(read) = Answer::<FetchRequest>::read_versioned(&mut cursor, version(11)).unwrap();
    let records = read.responses[0].partitions[0].records.clone().unwrap();
    assert!(span.contains(&records.as_ptr()), "record bytes were copied");
    assert_eq!((cursor.position(), cursor.get_ref().len()), (0, 0), "the cursor looks consumed");
}

#[test]
fn list_offsets() {
    let partition = ListOffsetsPartitionResponse::default().with_offset(5);
    let topic = ListOffsetsTopicResponse::default().with_name(name()).with_partitions(vec![partition]);
    every_version::<ListOffsetsRequest>(&ListOffsetsResponse::default().with_topics(vec![topic]));
}

#[test]
fn metadata() {
    let partition = MetadataResponsePartition::default()
        .with_leader_id(BrokerId(2))
        .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
        .with_isr_nodes(vec![BrokerId(2)]);
    let topic = MetadataResponseTopic::default().with_name(Some(name())).with_partitions(vec![partition]);
    let broker = MetadataResponseBroker::default().with_host(StrBytes::from_static_str("h")).with_port(1);
    every_version::<MetadataRequest>(
        &MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic]),
    );
}

#[test]
fn producer_id_and_coordinator() {
    every_version::<InitProducerIdRequest>(&InitProducerIdResponse::default());
    every_version::<FindCoordinatorRequest>(
        &FindCoordinatorResponse::default().with_host(StrBytes::from_static_str("h")).with_port(5),
    );
}

#[test]
fn transactions() {
    let partition = AddPartitionsToTxnPartitionResult::default().with_partition_index(3);
    let topic = AddPartitionsToTxnTopicResult::default()
        .with_name(name())
        .with_results_by_partition(vec![partition.clone(), partition]);
    every_version::<AddPartitionsToTxnRequest>(
        &AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(vec![topic]),
    );
    every_version::<AddOffsetsToTxnRequest>(&AddOffsetsToTxnResponse::default().with_error_code(47));
    let partition = TxnOffsetCommitResponsePartition::default().with_partition_index(3).with_error_code(16);
    let topic = TxnOffsetCommitResponseTopic::default().with_name(name()).with_partitions(vec![partition]);
    every_version::<TxnOffsetCommitRequest>(&TxnOffsetCommitResponse::default().with_topics(vec![topic]));
    every_version::<EndTxnRequest>(&EndTxnResponse::default().with_error_code(51));

    let answer = EndTxnResponse::default().with_producer_id(7.into()).with_producer_epoch(3);
    let mut out = BytesMut::new();
    answer.encode(&mut out, 5).unwrap();
    assert_eq!(decode::<EndTxnRequest>(out.freeze(), 5).unwrap(), answer, "the next epoch is read");
}

#[test]
fn offsets_of_groups() {
    let partition = OffsetFetchResponsePartition::default()
        .with_committed_offset(5)
        .with_metadata(Some(StrBytes::from_static_str("m")));
    let topic = OffsetFetchResponseTopic::default().with_name(name()).with_partitions(vec![partition]);
    every_version::<OffsetFetchRequest>(&OffsetFetchResponse::default().with_topics(vec![topic]));
    let partition = OffsetCommitResponsePartition::default();
    let topic = OffsetCommitResponseTopic::default().with_name(name()).with_partitions(vec![partition]);
    every_version::<OffsetCommitRequest>(&OffsetCommitResponse::default().with_topics(vec![topic]));
}

#[test]
fn topics_and_groups() {
    // A field of its own stands in the tags from version 5 on.
    let topic = CreatableTopicResult::default().with_name(name()).with_topic_config_error_code(29);
    let config = CreatableTopicConfigs::default().with_name(text("retention.ms")).with_value(Some(text("1")));
    let topic = topic.with_configs(Some(vec![config]));
    every_version::<CreateTopicsRequest>(&CreateTopicsResponse::default().with_topics(vec![topic]));
    let topic = DeletableTopicResult::default().with_name(Some(name()));
    every_version::<DeleteTopicsRequest>(&DeleteTopicsResponse::default().with_responses(vec![topic]));
    every_version::<DeleteGroupsRequest>(
        &DeleteGroupsResponse::default().with_results(vec![DeletableGroupResult::default()]),
    );
}

#[test]
fn partitions_and_configs() {
    let topic = CreatePartitionsTopicResult::default().with_name(name()).with_error_message(Some(text("no")));
    every_version::<CreatePartitionsRequest>(&CreatePartitionsResponse::default().with_results(vec![topic]));
    let synonym = DescribeConfigsSynonym::default().with_name(text("log.retention.ms"));
    let config = DescribeConfigsResourceResult::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("1")))
        .with_synonyms(vec![synonym]);
    let topic =
        DescribeConfigsResult::default().with_resource_name(text("orders")).with_configs(vec![config]);
    every_version::<DescribeConfigsRequest>(&DescribeConfigsResponse::default().with_results(vec![topic]));
    let topic = AlterConfigsResourceResponse::default().with_resource_name(text("orders"));
    every_version::<IncrementalAlterConfigsRequest>(
        &IncrementalAlterConfigsResponse::default().with_responses(vec![topic]),
    );
}

#[test]
fn api_versions_with_its_features() {
    use kafka_protocol::messages::api_versions_response::SupportedFeatureKey;
    let key = Spoken::default().with_api_key(3).with_max_version(12);
    let feature = SupportedFeatureKey::default().with_name(StrBytes::from_static_str("group.version"));
    every_version::<ApiVersionsRequest>(&ApiVersionsResponse::default().with_api_keys(vec![key.clone()]));
    let mut out = BytesMut::new();
    let answer =
        ApiVersionsResponse::default().with_api_keys(vec![key]).with_supported_features(vec![feature]);
    answer.encode(&mut out, 3).unwrap();
    assert_eq!(decode::<ApiVersionsRequest>(out.freeze(), 3).unwrap(), answer);
}

#[test]
fn an_array_that_announces_billions_is_refused_before_it_is_allocated() {
    // A metadata answer, version 9: throttle time, then a compact array of 4,294,967,294 brokers.
    let body = Bytes::from_static(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(decode::<MetadataRequest>(body, 9).is_err());
    let body = Bytes::from_static(&[0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    assert!(decode::<MetadataRequest>(body, 4).is_err());
}
