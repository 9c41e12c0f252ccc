use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};

use super::*;

fn topic() -> Topic {
    Topic::new("t").unwrap()
}

fn moved(partition: i32, leader: i32, epoch: i32) -> PartitionProduceResponse {
    PartitionProduceResponse::default().with_index(partition).with_error_code(6).with_current_leader(
        LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch),
    )
}

fn node(id: i32, port: i32) -> NodeEndpoint {
    NodeEndpoint::default().with_node_id(BrokerId(id)).with_host(text("h")).with_port(port)
}

#[test]
fn of_the_addresses_in_an_answer_only_those_of_leaders_that_it_names_are_read() {
    let fine = PartitionProduceResponse::default().with_index(2);
    let of = |name: &str, partitions| {
        TopicProduceResponse::default().with_name(TopicName(text(name))).with_partition_responses(partitions)
    };
    let answer = ProduceResponse::default()
        .with_responses(vec![
            of("t", vec![moved(0, 3, 7), fine, moved(1, 4, 1)]),
            of("", vec![moved(0, 5, 1)]),
        ])
        .with_node_endpoints(vec![node(3, 9), node(4, 70_000), node(8, 9)]);
    let (brokers, leaders) = read_leaders(&answer);
    let brokers: Vec<_> = brokers.into_iter().map(|(node, address)| (node.0, address.to_string())).collect();
    assert_eq!(brokers, [(3, "h:9".to_owned())]);
    assert_eq!(
        leaders,
        [
            (topic(), Partition(0), NodeId(3), LeaderEpoch(7)),
            (topic(), Partition(1), NodeId(4), LeaderEpoch(1)),
        ]
    );
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn the_broker_that_leads_no_more_names_the_one_that_does_and_the_view_has_it_at_once() {
    use kafka_protocol::messages::ProduceRequest;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

    use crate::codec::record_batch::{BatchBuilder, BatchOptions};
    use crate::embedded::Kafka;
    use crate::kafka::wire::Produce;

    let kafka = Kafka::builder().brokers(3).topic("t", 2).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    client.topic(&topic()).await.unwrap();
    let inner = &client.inner;
    let leader = |partition| inner.cluster().leader(&topic(), Partition(partition)).unwrap();
    let old = leader(0);
    let new = inner.cluster().nodes().map(|(node, _)| node).find(|node| *node != old).unwrap();
    kafka.move_leader("t", Partition(0), new).unwrap();

    let request = |partition| {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.push(Timestamp(1), None, Some(b"v"), []).unwrap();
        let data =
            PartitionProduceData::default().with_index(partition).with_records(Some(batch.finish().unwrap()));
        let data =
            TopicProduceData::default().with_name(topic_name(&topic())).with_partition_data(vec![data]);
        Produce::from(
            ProduceRequest::default().with_acks(-1).with_timeout_ms(9_000).with_topic_data(vec![data]),
        )
    };
    let link = inner.link(old).await.unwrap();
    let refused = link.call(request(0)).await.unwrap();
    assert_eq!(refused.responses[0].partition_responses[0].error_code, 6, "NOT_LEADER_OR_FOLLOWER");
    assert_eq!(inner.learn_leaders(&refused), [(topic(), Partition(0))]);
    assert_eq!(leader(0), new);
    let written = inner.link(new).await.unwrap().call(request(0)).await.unwrap();
    assert_eq!(written.responses[0].partition_responses[0].error_code, 0);
    assert_eq!(inner.learn_leaders(&written), [], "an answer without refusals teaches nothing");
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn a_broker_that_gave_no_answer_is_the_last_to_be_asked_who_coordinates_and_leaves_nothing_in_doubt() {
    use crate::embedded::Kafka;
    use crate::embedded::faults::{Action, Rule};
    use crate::kafka::group::Coordinated;

    let kafka = Kafka::builder().brokers(3).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    let inner = &client.inner;
    let silent = NodeId(1);
    inner.link(silent).await.unwrap();
    let rule = || Rule::new("FindCoordinator", Action::DropRequest).unwrap();
    kafka.faults(|faults| faults.add(rule().broker(silent))).unwrap();
    for n in 0..10 {
        inner.find_coordinator(Coordinated::Transaction, &format!("id-{n}")).await.unwrap();
    }
    let met = kafka.faults(|faults| faults.count());
    assert!(met <= 1, "the broker was asked {met} times");

    kafka.faults(|faults| faults.add(rule())).unwrap();
    let e = inner.find_coordinator(Coordinated::Group, "g").await.unwrap_err();
    assert!(e.is_retryable() && !e.is_ambiguous(), "{}", e.report());
    assert!(e.report().contains("FindCoordinator"), "{}", e.report());
}
