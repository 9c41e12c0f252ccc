//! Groups of both protocols, committed offsets, offsets within transactions.

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;

use crate::peer::{Peer, compare, text};

fn group(peer: &mut Peer) -> String {
    let group = peer.name("group");
    peer.coordinator(0, &group);
    group
}

fn join(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(member))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

#[test]
fn a_classic_group_refuses_alike() {
    compare(|peer| {
        let group = group(peer);
        let timeout = |ms: i32| join(&group, "").with_session_timeout_ms(ms);
        for v in [2, 4, 5, 7, 9] {
            peer.see("no group", v, &join("", ""));
            peer.see("unknown member", v, &join(&group, "no-such-member"));
            for ms in [0, -1, i32::MAX] {
                peer.see(&format!("session of {ms} ms"), v, &timeout(ms));
            }
        }
        for v in 0..=4 {
            let beat = HeartbeatRequest::default()
                .with_group_id(GroupId(text(&group)))
                .with_generation_id(1)
                .with_member_id(text("no-such-member"));
            peer.see("heartbeat", v, &beat);
            peer.see("heartbeat of no group", v, &beat.with_group_id(GroupId(text(""))));
        }
        for v in 0..=5 {
            let mut sync = SyncGroupRequest::default()
                .with_group_id(GroupId(text(&group)))
                .with_generation_id(1)
                .with_member_id(text("no-such-member"));
            if v >= 5 {
                sync =
                    sync.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")));
            }
            peer.see("sync", v, &sync);
        }
        for v in 0..=5 {
            let mut leave = LeaveGroupRequest::default().with_group_id(GroupId(text(&group)));
            if v >= 3 {
                let member = MemberIdentity::default().with_member_id(text("no-such-member"));
                leave = leave.with_members(vec![member]);
            } else {
                leave = leave.with_member_id(text("no-such-member"));
            }
            peer.see("leave", v, &leave);
        }
    });
}

#[test]
fn a_member_alone_goes_the_same_way() {
    compare(|peer| {
        let group = group(peer);
        let first = peer.call(9, &join(&group, ""));
        peer.note("told its name first", &first.error_code.to_string());
        let member = first.member_id.to_string();
        peer.stands_for(&member, "member");
        let joined = peer.see("joined", 9, &join(&group, &member)).unwrap();
        let generation = joined.generation_id;
        let beat = |generation: i32| {
            HeartbeatRequest::default()
                .with_group_id(GroupId(text(&group)))
                .with_generation_id(generation)
                .with_member_id(text(&member))
        };
        peer.see("heartbeat before sync", 4, &beat(generation));
        let sync = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&group)))
            .with_generation_id(generation)
            .with_member_id(text(&member))
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")));
        peer.see("sync of another kind", 5, &sync.clone().with_protocol_type(Some(text("connect"))));
        peer.see("sync of another protocol", 5, &sync.clone().with_protocol_name(Some(text("sticky"))));
        peer.see("sync too early", 5, &sync.clone().with_generation_id(generation + 1));
        peer.see("synced", 5, &sync);
        peer.see("heartbeat", 4, &beat(generation));
        peer.see("heartbeat, older", 4, &beat(generation - 1));
        let topic = peer.topic(1, &[]);
        for (what, generation, member) in [
            ("commit", generation, &*member),
            ("commit, older", generation - 1, &member),
            ("commit of another", generation, "no-such-member"),
            ("commit of none", -1, ""),
        ] {
            for v in [2, 7, 9] {
                peer.see(what, v, &commit(&group, member, generation, &topic, 3));
            }
        }
        let leave = LeaveGroupRequest::default().with_group_id(GroupId(text(&group)));
        let members = vec![MemberIdentity::default().with_member_id(text(&member))];
        peer.see("left", 5, &leave.with_members(members));
        peer.see("heartbeat, left", 4, &beat(generation));
        peer.see("commit of none, left", 9, &commit(&group, "", -1, &topic, 4));
        offsets(peer, "in the end", &group, &topic);
    });
}

fn commit(group: &str, member: &str, generation: i32, topic: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("m")));
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(TopicName(text(topic)))
                .with_partitions(vec![partition]),
        ])
}

fn offsets(peer: &mut Peer, what: &str, group: &str, topic: &str) {
    use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
    for stable in [false, true] {
        let topics = OffsetFetchRequestTopics::default()
            .with_name(TopicName(text(topic)))
            .with_partition_indexes(vec![0, 5]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_member_epoch(-1)
            .with_topics(Some(vec![topics]));
        let request = OffsetFetchRequest::default().with_groups(vec![asked]).with_require_stable(stable);
        peer.see(&format!("{what}: committed, stable {stable}"), 9, &request);
    }
}

#[test]
fn offsets_are_committed_or_refused_alike() {
    compare(|peer| {
        let group = group(peer);
        let topic = peer.topic(1, &[]);
        offsets(peer, "nothing", &group, &topic);
        for v in 2..=9 {
            peer.see("commit", v, &commit(&group, "", -1, &topic, i64::from(v)));
            peer.see("commit of no group", v, &commit("", "", -1, &topic, 1));
            peer.see("commit of a member", v, &commit(&group, "m", 1, &topic, 1));
            peer.see("commit to no topic", v, &commit(&group, "", -1, "no-such", 1));
            let mut long = commit(&group, "", -1, &topic, 1);
            long.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(5000)));
            peer.see("long metadata", v, &long);
            peer.see("negative", v, &commit(&group, "", -1, &topic, -1));
        }
        offsets(peer, "committed", &group, &topic);
        offsets(peer, "committed to no group", "", &topic);
        for v in 0..=2 {
            let delete =
                |group: &str| DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
            peer.see("delete", v, &delete(&group));
            peer.see("delete again", v, &delete(&group));
            peer.call(7, &commit(&group, "", -1, &topic, 1));
        }
    });
}

#[test]
fn offsets_of_a_transaction_are_kept_alike() {
    compare(|peer| {
        let group = group(peer);
        let topic = peer.topic(1, &[]);
        let id = peer.name("x");
        peer.coordinator(1, &id);
        let staged = |producer: (i64, i16), offset: i64, v: i16| {
            let partition = TxnOffsetCommitRequestPartition::default()
                .with_partition_index(0)
                .with_committed_offset(offset)
                .with_committed_metadata(Some(text("m")));
            let mut request = TxnOffsetCommitRequest::default()
                .with_transactional_id(TransactionalId(text(&id)))
                .with_group_id(GroupId(text(&group)))
                .with_producer_id(ProducerId(producer.0))
                .with_producer_epoch(producer.1)
                .with_topics(vec![
                    TxnOffsetCommitRequestTopic::default()
                        .with_name(TopicName(text(&topic)))
                        .with_partitions(vec![partition]),
                ]);
            if v >= 3 {
                request = request.with_generation_id(-1);
            }
            request
        };
        let init = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(&id))))
            .with_transaction_timeout_ms(60_000);
        // A broker that never gave a producer id has none at hand at first.
        let mut producer = (-1, -1);
        peer.wait("producer id", |peer| {
            let answer = peer.call(4, &init);
            producer = (answer.producer_id.0, answer.producer_epoch);
            answer.error_code == 0
        });
        for v in 0..=4 {
            peer.see("not announced", v, &staged(producer, 1, v));
        }
        peer.see("newer epoch", 5, &staged((producer.0, producer.1 + 1), 1, 5));
        peer.see("another's producer id", 5, &staged((producer.0 + 1, producer.1), 1, 5));
        peer.see("announces itself", 5, &staged(producer, 2, 5));
        offsets(peer, "open", &group, &topic);
        for (step, commit) in [(0, false), (1, true)] {
            let end = EndTxnRequest::default()
                .with_transactional_id(TransactionalId(text(&id)))
                .with_producer_id(ProducerId(producer.0))
                .with_producer_epoch(producer.1 + step)
                .with_committed(commit);
            peer.see("ended", 5, &end);
            peer.wait("end of the transaction", |peer| {
                let request = DescribeTransactionsRequest::default()
                    .with_transactional_ids(vec![TransactionalId(text(&id))]);
                peer.call(0, &request).transaction_states[0].transaction_state.starts_with("Complete")
            });
            offsets(peer, "ended", &group, &topic);
            peer.see("next", 5, &staged((producer.0, producer.1 + step + 1), 5, 5));
        }
    });
}

#[test]
fn a_consumer_group_refuses_alike() {
    compare(|peer| {
        let group = group(peer);
        let topic = peer.topic(1, &[]);
        let member = "AAAAAAAAAAAAAAAAAAAAAQ";
        let beat = |epoch: i32| {
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(GroupId(text(&group)))
                .with_member_id(text(member))
                .with_member_epoch(epoch)
        };
        let joining = || {
            beat(0)
                .with_rebalance_timeout_ms(10_000)
                .with_subscribed_topic_names(Some(vec![TopicName(text(&topic))]))
                .with_topic_partitions(Some(Vec::new()))
        };
        let see = |peer: &mut Peer, what: &str, v: i16, request: ConsumerGroupHeartbeatRequest| {
            let answer = peer.try_call(v, &request);
            let shown = answer.map_or("closed".to_owned(), |mut answer| {
                // Texts and the generated id are the broker's own.
                answer.error_message = None;
                answer.heartbeat_interval_ms = answer.heartbeat_interval_ms.signum();
                format!("{answer:?}")
            });
            peer.note(&format!("{what} v{v}"), &shown);
        };
        peer.topic_id(&topic);
        for v in [0, 1] {
            see(peer, "no group", v, joining().with_group_id(GroupId(text(""))));
            see(peer, "unknown member", v, beat(1));
            see(peer, "epoch -3", v, beat(-3));
            see(peer, "leaves unknown", v, beat(-1));
            see(peer, "no subscription", v, joining().with_subscribed_topic_names(None));
            see(peer, "no partitions", v, joining().with_topic_partitions(None));
            see(peer, "no timeout", v, joining().with_rebalance_timeout_ms(-1));
            see(peer, "unknown assignor", v, joining().with_server_assignor(Some(text("no-such"))));
            see(peer, "empty rack", v, joining().with_rack_id(Some(text(""))));
            see(peer, "empty instance", v, joining().with_instance_id(Some(text(""))));
        }
        see(peer, "no member", 1, joining().with_member_id(text("")));
        // How far the group's epoch has come by then is the broker's own.
        let joined = peer.call(1, &joining());
        let (epoch, partitions) = (joined.member_epoch, joined.assignment.map(|a| a.topic_partitions));
        peer.note("joins", &format!("{} {} {partitions:?}", joined.error_code, epoch > 0));
        let alive = peer.call(1, &beat(epoch));
        peer.note("beats", &format!("{} {}", alive.error_code, alive.member_epoch == epoch));
        see(peer, "newer epoch", 1, beat(epoch + 9));
        see(peer, "leaves", 1, beat(-1));
        see(peer, "after it left", 1, beat(1));
    });
}
