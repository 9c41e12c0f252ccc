use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::embedded::faults::Rule;
use crate::embedded::kafka::bed::Bed;
use crate::embedded::kafka::cluster::Settings;
use crate::embedded::machine::Machine;

const SECOND: Duration = Duration::from_secs(1);

fn bed(action: Action) -> (Bed, ConnectionId) {
    let mut bed = Bed::new(3, Settings::default());
    let rule = Rule::new("Metadata", action).unwrap().nth(1);
    bed.cluster.set_faults(Faults::new(1).with(rule).unwrap(), bed.now);
    let connection = bed.connect(1);
    (bed, connection)
}

fn ask(bed: &mut Bed, connection: ConnectionId) -> i32 {
    bed.send(connection, 9, &MetadataRequest::default().with_topics(Some(Vec::new())))
}

/// Whether the answer to this request has come.
fn answered(bed: &mut Bed, connection: ConnectionId, correlation: i32) -> bool {
    bed.answer::<MetadataRequest>(connection, 9, correlation).is_some()
}

#[test]
fn a_delayed_answer_comes_at_its_time_and_others_wait_behind_it() {
    let (mut bed, connection) = bed(Action::Delay(SECOND));
    let first = ask(&mut bed, connection);
    assert!(!answered(&mut bed, connection, first));
    bed.advance(SECOND / 2);
    assert!(!answered(&mut bed, connection, first));
    bed.advance(SECOND / 2);
    assert!(answered(&mut bed, connection, first));
    let second = ask(&mut bed, connection);
    assert!(answered(&mut bed, connection, second), "the next one is not delayed");
}

#[test]
fn a_held_answer_comes_when_it_is_released() {
    let (mut bed, connection) = bed(Action::Hold("gate".into()));
    let first = ask(&mut bed, connection);
    bed.advance(1000 * SECOND);
    assert!(!answered(&mut bed, connection, first));
    assert_eq!(bed.cluster.faults(|f| (f.held("gate"), f.release("gate"))), (1, 1));
    assert!(answered(&mut bed, connection, first));
}

#[test]
fn what_a_gone_connection_held_is_forgotten() {
    let (mut bed, connection) = bed(Action::Hold("gate".into()));
    ask(&mut bed, connection);
    bed.disconnect(connection);
    assert_eq!(bed.cluster.faults(|f| f.held("gate")), 0);
}

#[test]
fn an_error_after_the_work_stands_in_the_answer_of_what_was_done() {
    let mut bed = Bed::new(1, Settings::default());
    let rule = Rule::new("CreateTopics", Action::ErrorAfter(7)).unwrap().nth(1);
    bed.cluster.set_faults(Faults::new(1).with(rule).unwrap(), bed.now);
    let connection = bed.connect(1);
    for (version, code) in [(5, 7), (7, 36)] {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let answer = bed.call(
            connection,
            version,
            &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000),
        );
        assert_eq!(answer.topics[0].error_code, code, "the second finds what the first made");
    }
}

#[test]
fn an_answer_can_come_twice() {
    let (mut bed, connection) = bed(Action::AnswerTwice);
    let first = ask(&mut bed, connection);
    assert!(answered(&mut bed, connection, first) && answered(&mut bed, connection, first));
    assert!(!answered(&mut bed, connection, first));
}

#[test]
fn a_dropped_request_and_a_dropped_answer_cut_the_connection() {
    for action in [Action::DropRequest, Action::DropAnswer] {
        let (mut bed, connection) = bed(action);
        let first = ask(&mut bed, connection);
        assert!(!answered(&mut bed, connection, first));
        assert_eq!(bed.ended(connection), Some(Output::Reset));
    }
}

#[test]
fn a_cut_answer_ends_after_exactly_so_many_bytes() {
    for at in [0, 3, 7] {
        let (mut bed, connection) = bed(Action::CutAnswer(at));
        ask(&mut bed, connection);
        let mut got = 0;
        let end = loop {
            match bed.cluster.poll_output(connection) {
                Output::Bytes(bytes) => got += bytes.len(),
                end => break end,
            }
        };
        assert_eq!((got, end), (at, Output::Close));
    }
}

#[test]
fn a_stalled_connection_takes_and_gives_nothing_and_then_goes_on() {
    let (mut bed, connection) = bed(Action::Stall(SECOND));
    let first = ask(&mut bed, connection);
    bed.advance(SECOND - Duration::from_millis(1));
    assert!(!answered(&mut bed, connection, first));
    bed.advance(Duration::from_millis(1));
    assert!(answered(&mut bed, connection, first));
    assert_eq!(bed.cluster.faults(|f| f.count()), 1);
}

#[test]
fn a_killed_broker_cuts_its_connections_and_takes_none_until_it_is_back() {
    for (action, back) in [(Action::Kill, false), (Action::Restart(SECOND), true)] {
        let (mut bed, connection) = bed(action);
        let elsewhere = bed.connect(2);
        let bystander = bed.connect(1);
        ask(&mut bed, connection);
        assert_eq!(bed.ended(connection), Some(Output::Reset));
        assert_eq!(bed.ended(bystander), Some(Output::Reset));
        assert_eq!(bed.ended(elsewhere), None);
        assert!(!bed.cluster.accepts(NodeId(1)) && bed.cluster.accepts(NodeId(2)));
        bed.advance(SECOND);
        assert_eq!(bed.cluster.accepts(NodeId(1)), back);
    }
}

#[test]
fn a_rule_sees_the_topics_of_a_request() {
    let mut bed = Bed::new(1, Settings::default());
    let rule = Rule::new("Metadata", Action::DropRequest).unwrap().topic("b");
    bed.cluster.set_faults(Faults::new(1).with(rule).unwrap(), bed.now);
    let connection = bed.connect(1);
    let ask = |bed: &mut Bed, name: &'static str| {
        let topic =
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(name))));
        bed.send(connection, 9, &MetadataRequest::default().with_topics(Some(vec![topic])));
        bed.ended(connection)
    };
    assert_eq!(ask(&mut bed, "a"), None);
    assert_eq!(ask(&mut bed, "b"), Some(Output::Reset));
    let met: Vec<_> = bed.cluster.faults(|f| f.met().cloned().collect());
    assert_eq!((met[0].client.as_deref(), &met[0].places), (Some("bed"), &vec!["b".to_owned()]));
}

#[test]
fn names_are_read_from_every_kind_of_request() {
    let name = |s: &'static str| StrBytes::from_static_str(s);
    let heartbeat = HeartbeatRequest::default().with_group_id(name("g").into());
    assert_eq!(named(&heartbeat).groups, ["g"]);
    let init = InitProducerIdRequest::default().with_transactional_id(Some(name("t").into()));
    assert_eq!(named(&init).transactions, ["t"]);
    let find = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![name("x")]);
    assert_eq!((named(&find).transactions, named(&find).groups), (vec!["x".to_owned()], Vec::new()));
    assert_eq!(named(&Bytes::new()), Named::default());
}
