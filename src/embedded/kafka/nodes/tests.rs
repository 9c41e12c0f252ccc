//! Who leads what, and what a client meets at the wrong broker.

use bytes::BytesMut;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest, MetadataRequest,
    ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::codec::record_batch::{BatchBuilder, BatchOptions};
use crate::embedded::kafka::bed::Bed;
use crate::embedded::kafka::cluster::Settings;
use crate::embedded::machine::{Machine, Output};
use crate::{NodeId, Timestamp, Topic};

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

fn bed(nodes: i32) -> Bed {
    let mut bed = Bed::new(nodes, Settings::default());
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 1).unwrap();
    bed
}

fn produce(bed: &mut Bed, node: i32, acks: i16) -> ProduceResponse {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(Timestamp(1), None, Some(b"v"), []).unwrap();
    let data = PartitionProduceData::default().with_records(Some(builder.finish().unwrap()));
    let topic = TopicProduceData::default().with_name(name("t")).with_partition_data(vec![data]);
    let c = bed.connect(node);
    bed.call(c, 10, &ProduceRequest::default().with_acks(acks).with_topic_data(vec![topic]))
}

fn code(response: &ProduceResponse) -> i16 {
    response.responses[0].partition_responses[0].error_code
}

#[test]
fn the_wrong_broker_names_the_right_one() {
    let mut bed = bed(2);
    let refused = produce(&mut bed, 2, -1);
    assert_eq!(code(&refused), 6, "NOT_LEADER_OR_FOLLOWER");
    let leader = &refused.responses[0].partition_responses[0].current_leader;
    assert_eq!((leader.leader_id.0, leader.leader_epoch), (1, 0));
    assert_eq!((refused.node_endpoints[0].node_id.0, &*refused.node_endpoints[0].host), (1, "broker-1"));
    assert_eq!(code(&produce(&mut bed, 1, -1)), 0);
}

#[test]
fn too_small_an_isr_refuses_acks_of_all_alone() {
    let mut bed = bed(3);
    let now = bed.now;
    bed.cluster.topics.get_mut("t").unwrap().config =
        super::super::configs::TopicConfig::new([("min.insync.replicas", "3")]).unwrap();
    assert_eq!(code(&produce(&mut bed, 1, -1)), 0);
    bed.cluster.kill(NodeId(3), now);
    assert_eq!(code(&produce(&mut bed, 1, -1)), 19, "NOT_ENOUGH_REPLICAS");
    assert_eq!(code(&produce(&mut bed, 1, 1)), 0);
    bed.cluster.revive(NodeId(3), now);
    assert_eq!(code(&produce(&mut bed, 1, -1)), 0);
}

#[test]
fn the_last_in_sync_is_waited_for_unless_an_unclean_election_is_allowed() {
    let mut bed = bed(2);
    let now = bed.now;
    let look = |bed: &Bed| {
        let partition = bed.cluster.topics.partition("t", 0).unwrap();
        (partition.leader.map(|node| node.0), partition.isr.iter().map(|node| node.0).collect::<Vec<_>>())
    };
    bed.cluster.kill(NodeId(2), now);
    bed.cluster.kill(NodeId(1), now);
    assert_eq!(look(&bed), (None, vec![1]));
    bed.cluster.revive(NodeId(2), now);
    assert_eq!(look(&bed), (None, vec![1]), "2 lacks what 1 may have");
    let c = bed.connect(2);
    let unclean = ElectLeadersRequest::default().with_election_type(1).with_topic_partitions(Some(vec![
        TopicPartitions::default().with_topic(name("t")).with_partitions(vec![0]),
    ]));
    let elected = bed.call(c, 2, &unclean);
    assert_eq!(elected.replica_election_results[0].partition_result[0].error_code, 0);
    assert_eq!(look(&bed), (Some(2), vec![2]));
    bed.cluster.revive(NodeId(1), now);
    assert_eq!(look(&bed), (Some(2), vec![1, 2]));
    let preferred = unclean.with_election_type(0);
    assert_eq!(bed.call(c, 2, &preferred).replica_election_results[0].partition_result[0].error_code, 0);
    assert_eq!(look(&bed).0, Some(1));
    let again = bed.call(c, 2, &preferred);
    assert_eq!(again.replica_election_results[0].partition_result[0].error_code, 84, "ELECTION_NOT_NEEDED");
}

#[test]
fn a_broker_that_is_cut_off_answers_when_it_is_reached_again() {
    let mut bed = bed(2);
    let now = bed.now;
    let c = bed.connect(2);
    bed.cluster.isolate(NodeId(2), now);
    let asked = bed.send(c, 12, &MetadataRequest::default());
    assert_eq!(bed.answer::<MetadataRequest>(c, 12, asked), None);
    assert_eq!(bed.ended(c), None);
    bed.cluster.rejoin(NodeId(2), now);
    let asked = bed.send(c, 12, &MetadataRequest::default());
    assert!(bed.answer::<MetadataRequest>(c, 12, asked).is_some());
}

#[test]
fn an_end_that_waits_for_a_broker_to_be_reached_again_wakes_nobody_until_then() {
    let mut bed = bed(2);
    let now = bed.now;
    let c = bed.connect(2);
    // No frame has such a length: the connection ends, but nothing passes to tell it.
    let mut input = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
    let _ = bed.cluster.handle_input(c, &mut input, now);
    bed.cluster.isolate(NodeId(2), now);
    for _ in 0..3 {
        while bed.cluster.poll_wake().is_some() {}
        assert!(bed.cluster.handle_input(c, &mut input, now).paused);
        assert_eq!(bed.cluster.poll_output(c), Output::Pending);
        assert_eq!(bed.cluster.poll_wake(), None);
    }
    bed.cluster.rejoin(NodeId(2), now);
    assert!(std::iter::from_fn(|| bed.cluster.poll_wake()).any(|woken| woken == c));
    assert_eq!(bed.cluster.poll_output(c), Output::Close);
}

#[test]
fn a_topic_that_is_asked_for_is_there_at_the_next_question() {
    let mut bed = Bed::new(1, Settings::default());
    let c = bed.connect(1);
    let ask = |create| {
        let topic = MetadataRequestTopic::default().with_name(Some(name("new")));
        MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(create)
    };
    for (create, code) in [(false, 3), (false, 3), (true, 3), (false, 0)] {
        assert_eq!(bed.call(c, 9, &ask(create)).topics[0].error_code, code);
    }
}

#[test]
fn a_topic_is_refused_for_what_is_wrong_with_it() {
    let mut bed = bed(1);
    let c = bed.connect(1);
    let topic = |name_: &str, partitions, replicas| {
        CreatableTopic::default()
            .with_name(name(name_))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
    };
    for (topic, code) in [
        (topic("t", 1, 1), 36),
        (topic("a b", 1, 1), 17),
        (topic("n", 0, 1), 37),
        (topic("n", 1, 0), 38),
        (topic("n", 1, 2), 38),
        (topic("n", 1, 1), 0),
    ] {
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_validate_only(true);
        assert_eq!(bed.call(c, 7, &request).topics[0].error_code, code);
    }
    assert!(bed.cluster.topics.get("n").is_none(), "it was only asked whether it could be");
}

#[test]
fn a_configuration_is_set_appended_to_and_taken_back() {
    let mut bed = bed(1);
    let c = bed.connect(1);
    let mut alter = |key: &'static str, operation, value: Option<&'static str>| {
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_static_str(key))
            .with_config_operation(operation)
            .with_value(value.map(StrBytes::from_static_str));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_static_str("t"))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let code = bed.call(c, 1, &request).responses[0].error_code;
        let config = &bed.cluster.topics.get("t").unwrap().config;
        (code, config.get_set(key).map(str::to_owned))
    };
    let is = |code, value: &str| (code, Some(value.to_owned()));
    assert_eq!(alter("cleanup.policy", 2, Some("compact")), is(0, "delete,compact"));
    assert_eq!(alter("cleanup.policy", 3, Some("delete")), is(0, "compact"));
    assert_eq!(alter("cleanup.policy", 1, None), (0, None));
    assert_eq!(alter("retention.ms", 0, Some("5")), is(0, "5"));
    assert_eq!(alter("retention.ms", 0, Some("-7")), is(40, "5"), "INVALID_CONFIG");
    assert_eq!(alter("retention.ms", 2, Some("7")), is(40, "5"), "not a list");
    assert_eq!(alter("retention.ms", 9, Some("7")), is(42, "5"), "INVALID_REQUEST");
}
