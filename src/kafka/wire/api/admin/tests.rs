use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_groups_response::DescribedGroupMember;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{
    BrokerId, GroupId, TopicName, TransactionalId, consumer_group_describe_response as consumer,
    describe_groups_response as classic, describe_producers_response as producers,
    describe_transactions_response as transactions, list_transactions_response as listed,
};
use kafka_protocol::protocol::StrBytes;

use super::super::tests::every_version;
use super::*;

fn text(s: &'static str) -> StrBytes {
    StrBytes::from_static_str(s)
}

fn topic() -> TopicName {
    TopicName(text("orders"))
}

fn group() -> GroupId {
    GroupId(text("billing"))
}

#[test]
fn coordinators_and_offsets_of_many_groups() {
    let found = Coordinator::default()
        .with_key(text("billing"))
        .with_node_id(BrokerId(3))
        .with_host(text("h"))
        .with_port(9092)
        .with_error_message(Some(text("no")));
    every_version::<FindCoordinators>(
        &FindCoordinatorResponse::default().with_coordinators(vec![found.clone(), found]),
    );
    let partition = OffsetFetchResponsePartitions::default()
        .with_partition_index(3)
        .with_committed_offset(5)
        .with_metadata(Some(text("m")));
    let committed = OffsetFetchResponseTopics::default()
        .with_name(topic())
        .with_partitions(vec![partition.clone(), partition]);
    let found = OffsetFetchResponseGroup::default().with_group_id(group()).with_topics(vec![committed]);
    let refused = OffsetFetchResponseGroup::default().with_group_id(group()).with_error_code(16);
    every_version::<FetchOffsets>(&OffsetFetchResponse::default().with_groups(vec![found, refused]));
}

#[test]
fn groups_listed_and_described() {
    // What a version has no place for is left out by the encoder where it is the default alone.
    for (version, group) in [
        (5, ListedGroup::default().with_group_state(text("Stable")).with_group_type(text("classic"))),
        (4, ListedGroup::default().with_group_state(text("Stable"))),
        (0, ListedGroup::default()),
    ] {
        let group = group.with_group_id(group_id("a")).with_protocol_type(text("consumer"));
        let answer = ListGroupsResponse::default().with_groups(vec![group]);
        let mut out = bytes::BytesMut::new();
        answer.encode(&mut out, version).unwrap();
        assert_eq!(decode::<ListGroupsRequest>(out.freeze(), version).unwrap(), answer);
    }
    let listed = ListedGroup::default().with_group_id(group()).with_protocol_type(text("consumer"));
    every_version::<ListGroupsRequest>(&ListGroupsResponse::default().with_groups(vec![listed]));

    let member = DescribedGroupMember::default()
        .with_member_id(text("m-1"))
        .with_client_id(text("c"))
        .with_client_host(text("/10.0.0.1"))
        .with_member_metadata(Bytes::from_static(b"\0\x01what it said"))
        .with_member_assignment(Bytes::from_static(b"\0\x01what it got"));
    let described = classic::DescribedGroup::default()
        .with_group_id(group())
        .with_group_state(text("Stable"))
        .with_protocol_type(text("consumer"))
        .with_protocol_data(text("range"))
        .with_members(vec![member.clone(), member]);
    every_version::<DescribeGroupsRequest>(&DescribeGroupsResponse::default().with_groups(vec![described]));

    let assigned = consumer::TopicPartitions::default().with_topic_name(topic()).with_partitions(vec![0, 4]);
    let assigned = consumer::Assignment::default().with_topic_partitions(vec![assigned]);
    let member = consumer::Member::default()
        .with_member_id(text("m-1"))
        .with_instance_id(Some(text("i")))
        .with_rack_id(Some(text("r")))
        .with_client_id(text("c"))
        .with_client_host(text("/10.0.0.1"))
        .with_subscribed_topic_names(vec![topic(), topic()])
        .with_subscribed_topic_regex(Some(text("o.*")))
        .with_assignment(assigned.clone())
        .with_target_assignment(assigned);
    let described = consumer::DescribedGroup::default()
        .with_group_id(group())
        .with_error_message(Some(text("why")))
        .with_group_state(text("Stable"))
        .with_assignor_name(text("uniform"))
        .with_members(vec![member]);
    every_version::<ConsumerGroupDescribeRequest>(
        &ConsumerGroupDescribeResponse::default().with_groups(vec![described]),
    );
}

fn group_id(name: &'static str) -> GroupId {
    GroupId(text(name))
}

#[test]
fn offsets_and_records_deleted() {
    let partition = OffsetDeleteResponsePartition::default().with_partition_index(2).with_error_code(86);
    let deleted = OffsetDeleteResponseTopic::default().with_name(topic()).with_partitions(vec![partition]);
    every_version::<OffsetDeleteRequest>(&OffsetDeleteResponse::default().with_topics(vec![deleted]));
    let partition = DeleteRecordsPartitionResult::default().with_low_watermark(77);
    let deleted = DeleteRecordsTopicResult::default().with_name(topic()).with_partitions(vec![partition]);
    every_version::<DeleteRecordsRequest>(&DeleteRecordsResponse::default().with_topics(vec![deleted]));
}

#[test]
fn the_cluster() {
    let broker = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(1))
        .with_host(text("h"))
        .with_port(9092)
        .with_rack(Some(text("r")));
    every_version::<DescribeClusterRequest>(
        &DescribeClusterResponse::default()
            .with_error_message(Some(text("no")))
            .with_cluster_id(text("id"))
            .with_brokers(vec![broker.clone(), broker]),
    );
}

#[test]
fn transactions_listed_described_and_ended() {
    let state = listed::TransactionState::default()
        .with_transactional_id(TransactionalId(text("tx")))
        .with_transaction_state(text("Ongoing"));
    every_version::<ListTransactionsRequest>(
        &ListTransactionsResponse::default()
            .with_unknown_state_filters(vec![text("Odd")])
            .with_transaction_states(vec![state]),
    );
    let data = transactions::TopicData::default().with_topic(topic()).with_partitions(vec![0, 1]);
    let state = transactions::TransactionState::default()
        .with_transactional_id(TransactionalId(text("tx")))
        .with_transaction_state(text("Ongoing"))
        .with_topics(vec![data]);
    every_version::<DescribeTransactionsRequest>(
        &DescribeTransactionsResponse::default().with_transaction_states(vec![state]),
    );
    let partition = producers::PartitionResponse::default()
        .with_error_message(Some(text("no")))
        .with_active_producers(vec![producers::ProducerState::default()]);
    let told = producers::TopicResponse::default().with_name(topic()).with_partitions(vec![partition]);
    every_version::<DescribeProducersRequest>(&DescribeProducersResponse::default().with_topics(vec![told]));
    let partition = WritableTxnMarkerPartitionResult::default().with_error_code(47);
    let told = WritableTxnMarkerTopicResult::default().with_name(topic()).with_partitions(vec![partition]);
    let marker = WritableTxnMarkerResult::default().with_topics(vec![told]);
    every_version::<WriteTxnMarkersRequest>(&WriteTxnMarkersResponse::default().with_markers(vec![marker]));
}

#[test]
fn users_and_rights() {
    let user = DescribeUserScramCredentialsResult::default()
        .with_user(text("alice"))
        .with_error_message(Some(text("no")))
        .with_credential_infos(vec![CredentialInfo::default().with_mechanism(1).with_iterations(4096)]);
    every_version::<DescribeUserScramCredentialsRequest>(
        &DescribeUserScramCredentialsResponse::default()
            .with_error_message(Some(text("no")))
            .with_results(vec![user]),
    );
    let user = AlterUserScramCredentialsResult::default()
        .with_user(text("alice"))
        .with_error_message(Some(text("no")));
    every_version::<AlterUserScramCredentialsRequest>(
        &AlterUserScramCredentialsResponse::default().with_results(vec![user]),
    );
    let entry = AclDescription::default().with_principal(text("User:alice")).with_host(text("*"));
    let resource = DescribeAclsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_pattern_type(3)
        .with_acls(vec![entry]);
    every_version::<DescribeAclsRequest>(
        &DescribeAclsResponse::default().with_error_message(Some(text("no"))).with_resources(vec![resource]),
    );
    let made = AclCreationResult::default().with_error_message(Some(text("no")));
    every_version::<CreateAclsRequest>(&CreateAclsResponse::default().with_results(vec![made]));
    let entry = DeleteAclsMatchingAcl::default()
        .with_error_message(Some(text("no")))
        .with_resource_type(2)
        .with_resource_name(text("orders"))
        .with_pattern_type(3)
        .with_principal(text("User:alice"))
        .with_host(text("*"));
    let gone = DeleteAclsFilterResult::default()
        .with_error_message(Some(text("no")))
        .with_matching_acls(vec![entry]);
    every_version::<DeleteAclsRequest>(&DeleteAclsResponse::default().with_filter_results(vec![gone]));
}
