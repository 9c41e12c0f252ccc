//! Groups as clients see them, through the cluster's wire.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use crate::embedded::kafka::api::Code;
use crate::embedded::kafka::bed::Bed;
use crate::embedded::kafka::cluster::Settings;
use crate::embedded::machine::ConnectionId;
use crate::{NodeId, Topic};

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

fn group() -> GroupId {
    GroupId(text("g"))
}

fn bed() -> Bed {
    let mut bed = Bed::new(1, Settings::default());
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 4).unwrap();
    bed
}

fn name(code: i16) -> Option<Code> {
    Code::try_from_code(code)
}

const SESSION: i32 = 10_000;
const REBALANCE: i32 = 30_000;

fn join(member: &str, instance: Option<&str>) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(SESSION)
        .with_rebalance_timeout_ms(REBALANCE)
        .with_member_id(text(member))
        .with_group_instance_id(instance.map(text))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t")),
        ])
}

fn sync(member: &str, generation: i32, to: &[(&str, &'static str)]) -> SyncGroupRequest {
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(text(member))
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(
            to.iter()
                .map(|(id, a)| {
                    SyncGroupRequestAssignment::default()
                        .with_member_id(text(id))
                        .with_assignment(Bytes::from_static(a.as_bytes()))
                })
                .collect(),
        )
}

fn beat(member: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(text(member))
}

/// A member without a rebalance behind it: its id is given first.
fn new_id(bed: &mut Bed, c: ConnectionId) -> String {
    let answer = bed.call(c, 9, &join("", None));
    assert_eq!(name(answer.error_code), Some(Code::MemberIdRequired));
    answer.member_id.to_string()
}

/// A group of two, in generation 2, with the ids and connections of both; the first leads.
fn two(bed: &mut Bed) -> [(String, ConnectionId); 2] {
    let (a, b) = (bed.connect(1), bed.connect(1));
    let first = new_id(bed, a);
    let joined = bed.call(a, 9, &join(&first, None));
    assert_eq!((joined.generation_id, joined.leader.as_str()), (1, first.as_str()));
    assert_eq!(bed.call(a, 5, &sync(&first, 1, &[(&first, "all")])).assignment, "all");
    let second = new_id(bed, b);
    let waits = bed.send(b, 9, &join(&second, None));
    assert!(bed.answer::<JoinGroupRequest>(b, 9, waits).is_none());
    assert_eq!(name(bed.call(a, 4, &beat(&first, 1)).error_code), Some(Code::RebalanceInProgress));
    let again = bed.call(a, 9, &join(&first, None));
    assert_eq!((again.generation_id, again.members.len()), (2, 2));
    let other = bed.answer::<JoinGroupRequest>(b, 9, waits).unwrap();
    assert_eq!((other.generation_id, other.members.len()), (2, 0));
    assert_eq!(other.leader.as_str(), first);
    let waits = bed.send(b, 5, &sync(&second, 2, &[]));
    assert!(bed.answer::<SyncGroupRequest>(b, 5, waits).is_none());
    assert_eq!(bed.call(a, 5, &sync(&first, 2, &[(&first, "one"), (&second, "two")])).assignment, "one");
    assert_eq!(bed.answer::<SyncGroupRequest>(b, 5, waits).unwrap().assignment, "two");
    [(first, a), (second, b)]
}

#[test]
fn two_members_share_what_the_leader_assigns() {
    let mut bed = bed();
    let [(first, a), (second, b)] = two(&mut bed);
    assert_eq!(bed.call(a, 4, &beat(&first, 2)).error_code, 0);
    assert_eq!(bed.call(b, 4, &beat(&second, 2)).error_code, 0);
    let described = bed.call(a, 6, &DescribeGroupsRequest::default().with_groups(vec![group()]));
    let described = &described.groups[0];
    assert_eq!((described.group_state.as_str(), described.protocol_data.as_str()), ("Stable", "range"));
    assert_eq!(described.members.len(), 2);
    assert_eq!(described.members[0].client_host.as_str(), "/127.0.0.1");
    let listed = bed.call(a, 5, &ListGroupsRequest::default());
    assert_eq!(listed.groups[0].group_type.as_str(), "Classic");
    let filtered = ListGroupsRequest::default().with_states_filter(vec![text("empty")]);
    assert!(bed.call(a, 5, &filtered).groups.is_empty());
}

#[test]
fn a_silent_member_is_removed_and_the_other_rejoins_alone() {
    let mut bed = bed();
    let [(first, a), (second, b)] = two(&mut bed);
    bed.advance(Duration::from_secs(9));
    assert_eq!(bed.call(a, 4, &beat(&first, 2)).error_code, 0);
    bed.advance(Duration::from_secs(2));
    assert_eq!(name(bed.call(a, 4, &beat(&first, 2)).error_code), Some(Code::RebalanceInProgress));
    assert_eq!(name(bed.call(b, 4, &beat(&second, 2)).error_code), Some(Code::UnknownMemberId));
    let joined = bed.call(a, 9, &join(&first, None));
    assert_eq!((joined.generation_id, joined.members.len()), (3, 1));
    assert_eq!(name(bed.call(b, 9, &join(&second, None)).error_code), Some(Code::UnknownMemberId));
}

#[test]
fn who_does_not_rejoin_within_the_rebalance_timeout_is_out() {
    let mut bed = bed();
    let [(first, a), (second, b)] = two(&mut bed);
    let c = bed.connect(1);
    let third = new_id(&mut bed, c);
    let waits_c = bed.send(c, 9, &join(&third, None));
    let waits_a = bed.send(a, 9, &join(&first, None));
    for _ in 0..4 {
        // It lives, but it does not come.
        bed.advance(Duration::from_secs(7));
        let told = bed.call(b, 4, &beat(&second, 2)).error_code;
        assert_eq!(name(told), Some(Code::RebalanceInProgress));
    }
    assert!(bed.answer::<JoinGroupRequest>(a, 9, waits_a).is_none());
    bed.advance(Duration::from_secs(3));
    assert_eq!(bed.answer::<JoinGroupRequest>(a, 9, waits_a).unwrap().members.len(), 2);
    assert_eq!(bed.answer::<JoinGroupRequest>(c, 9, waits_c).unwrap().generation_id, 3);
    assert_eq!(name(bed.call(b, 4, &beat(&second, 2)).error_code), Some(Code::UnknownMemberId));
}

#[test]
fn a_leader_that_never_syncs_is_removed_and_the_others_rejoin() {
    let mut bed = bed();
    let [(first, a), (second, b)] = two(&mut bed);
    let waits = bed.send(b, 9, &join(&second, None));
    assert!(bed.answer::<JoinGroupRequest>(b, 9, waits).is_some(), "the same member, no rebalance");
    let waits = bed.send(a, 9, &join(&first, None));
    assert!(
        bed.answer::<JoinGroupRequest>(a, 9, waits).is_none(),
        "a leader that joins asks for a rebalance"
    );
    assert_eq!(bed.call(b, 9, &join(&second, None)).generation_id, 3);
    bed.answer::<JoinGroupRequest>(a, 9, waits).unwrap();
    let waits = bed.send(b, 5, &sync(&second, 3, &[]));
    for _ in 0..4 {
        bed.advance(Duration::from_secs(7));
        bed.call(a, 4, &beat(&first, 3));
    }
    bed.advance(Duration::from_secs(3));
    let synced = bed.answer::<SyncGroupRequest>(b, 5, waits).unwrap();
    assert_eq!(name(synced.error_code), Some(Code::RebalanceInProgress));
    assert_eq!(name(bed.call(a, 4, &beat(&first, 3)).error_code), Some(Code::UnknownMemberId));
    assert_eq!(bed.call(b, 9, &join(&second, None)).generation_id, 4);
}

#[test]
fn leaving_moves_the_rest_at_once_and_an_empty_group_can_be_deleted() {
    let mut bed = bed();
    let [(first, a), (second, b)] = two(&mut bed);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    assert_eq!(name(bed.call(a, 2, &delete).results[0].error_code), Some(Code::NonEmptyGroup));
    let leave = |ids: &[&str]| {
        let members = ids.iter().map(|id| MemberIdentity::default().with_member_id(text(id)));
        LeaveGroupRequest::default().with_group_id(group()).with_members(members.collect())
    };
    let left = bed.call(b, 5, &leave(&[&second, "nobody"]));
    assert_eq!(left.error_code, 0);
    assert_eq!(left.members[0].error_code, 0);
    assert_eq!(name(left.members[1].error_code), Some(Code::UnknownMemberId));
    assert_eq!(bed.call(a, 9, &join(&first, None)).members.len(), 1);
    bed.call(a, 5, &leave(&[&first]));
    let described = bed.call(a, 6, &DescribeGroupsRequest::default().with_groups(vec![group()]));
    assert_eq!(described.groups[0].group_state.as_str(), "Empty");
    assert_eq!(bed.call(a, 2, &delete).results[0].error_code, 0);
    assert_eq!(name(bed.call(a, 2, &delete).results[0].error_code), Some(Code::GroupIdNotFound));
    let described = bed.call(a, 5, &DescribeGroupsRequest::default().with_groups(vec![group()]));
    assert_eq!((described.groups[0].error_code, described.groups[0].group_state.as_str()), (0, "Dead"));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_former_self() {
    let mut bed = bed();
    let (a, b) = (bed.connect(1), bed.connect(1));
    let first = bed.call(a, 9, &join("", Some("i")));
    assert_eq!((first.error_code, first.generation_id), (0, 1));
    let old = first.member_id.to_string();
    assert!(old.starts_with("i-"));
    assert_eq!(bed.call(a, 5, &sync(&old, 1, &[(&old, "mine")])).assignment, "mine");
    let back = bed.call(b, 9, &join("", Some("i")));
    assert_eq!((back.error_code, back.generation_id, back.skip_assignment), (0, 1, true));
    let new = back.member_id.to_string();
    assert_ne!(old, new);
    assert_eq!((back.leader.as_str(), back.members.len()), (new.as_str(), 1));
    assert_eq!(bed.call(b, 5, &sync(&new, 1, &[])).assignment, "mine");
    let fenced = bed.call(a, 4, &beat(&old, 1).with_group_instance_id(Some(text("i"))));
    assert_eq!(name(fenced.error_code), Some(Code::FencedInstanceId));
    // By its instance alone it can be told to leave.
    let member = MemberIdentity::default().with_group_instance_id(Some(text("i")));
    let left =
        bed.call(a, 5, &LeaveGroupRequest::default().with_group_id(group()).with_members(vec![member]));
    assert_eq!(left.members[0].error_code, 0);
    assert_eq!(name(bed.call(b, 4, &beat(&new, 1)).error_code), Some(Code::UnknownMemberId));
}

#[test]
fn members_that_start_together_are_one_generation_where_there_is_an_initial_delay() {
    let mut settings = Settings::default();
    settings.groups.initial_rebalance_delay = Duration::from_secs(3);
    let mut bed = Bed::new(1, settings);
    let connections: Vec<_> = (0..3).map(|_| bed.connect(1)).collect();
    let mut waits = Vec::new();
    for c in &connections {
        waits.push(bed.send(*c, 3, &join("", None)));
        bed.advance(Duration::from_secs(2));
    }
    // 3 s from the first, drawn out by 3 s for who came meanwhile, then nobody came.
    bed.advance(Duration::from_secs(6));
    for (c, waits) in connections.iter().zip(waits) {
        let joined = bed.answer::<JoinGroupRequest>(*c, 3, waits).unwrap();
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
    }
}

#[test]
fn a_group_refuses_what_does_not_fit() {
    let mut settings = Settings::default();
    settings.groups.max_members = 1;
    settings.groups.min_session_timeout = Duration::from_secs(6);
    let mut bed = Bed::new(1, settings);
    let (a, b) = (bed.connect(1), bed.connect(1));
    let short = bed.call(a, 9, &join("", None).with_session_timeout_ms(5999));
    assert_eq!(name(short.error_code), Some(Code::InvalidSessionTimeout));
    let nameless = bed.call(a, 9, &join("", None).with_group_id(GroupId::default()));
    assert_eq!(name(nameless.error_code), Some(Code::InvalidGroupId));
    assert_eq!(name(bed.call(a, 9, &join("x", None)).error_code), Some(Code::UnknownMemberId));
    let nothing = bed.call(a, 9, &join("", None).with_protocols(Vec::new()));
    assert_eq!(name(nothing.error_code), Some(Code::InconsistentGroupProtocol));
    let first = new_id(&mut bed, a);
    assert_eq!(bed.call(a, 9, &join(&first, None)).error_code, 0);
    assert_eq!(name(bed.call(b, 9, &join("", None)).error_code), Some(Code::GroupMaxSizeReached));
    assert_eq!(name(bed.call(b, 5, &sync(&first, 7, &[])).error_code), Some(Code::IllegalGeneration));
    let other = sync(&first, 1, &[]).with_protocol_name(Some(text("sticky")));
    assert_eq!(name(bed.call(b, 5, &other).error_code), Some(Code::InconsistentGroupProtocol));
}

fn commit(generation: i32, member: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(1)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("m")));
    let topic =
        OffsetCommitRequestTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![topic])
}

fn committed(bed: &mut Bed, c: ConnectionId, stable: bool) -> (i64, Option<Code>) {
    let topic =
        OffsetFetchRequestTopics::default().with_name(TopicName(text("t"))).with_partition_indexes(vec![1]);
    let wanted = OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_member_epoch(-1)
        .with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![wanted]).with_require_stable(stable);
    let answer = bed.call(c, 9, &request);
    let partition = &answer.groups[0].topics[0].partitions[0];
    (partition.committed_offset, name(partition.error_code))
}

fn error(response: &OffsetCommitResponse) -> Option<Code> {
    name(response.topics[0].partitions[0].error_code)
}

#[test]
fn offsets_are_committed_by_members_of_the_generation_or_by_nobody_in_particular() {
    let mut bed = bed();
    let c = bed.connect(1);
    assert_eq!(committed(&mut bed, c, true), (-1, None));
    assert_eq!(error(&bed.call(c, 9, &commit(-1, "", 5))), None);
    assert_eq!(committed(&mut bed, c, true), (5, None));
    let [(first, a), _] = two(&mut bed);
    assert_eq!(error(&bed.call(a, 9, &commit(-1, "", 6))), Some(Code::UnknownMemberId));
    assert_eq!(error(&bed.call(a, 9, &commit(1, &first, 6))), Some(Code::IllegalGeneration));
    assert_eq!(error(&bed.call(a, 9, &commit(2, "x", 6))), Some(Code::UnknownMemberId));
    assert_eq!(error(&bed.call(a, 2, &commit(2, &first, 7))), None);
    assert_eq!(committed(&mut bed, c, true), (7, None));
    let mut long = commit(2, &first, 8);
    long.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(4097)));
    assert_eq!(error(&bed.call(a, 9, &long)), Some(Code::OffsetMetadataTooLarge));
    let mut unknown = commit(2, &first, 8);
    unknown.topics[0].partitions[0].partition_index = 4;
    assert_eq!(error(&bed.call(a, 9, &unknown)), Some(Code::UnknownTopicOrPartition));
    assert_eq!(committed(&mut bed, c, true), (7, None));
}

#[test]
fn offsets_go_with_their_topic_and_after_the_retention() {
    let mut bed = bed();
    let c = bed.connect(1);
    bed.call(c, 9, &commit(-1, "", 5));
    bed.advance(Duration::from_secs(7 * 24 * 3600 - 1200));
    assert_eq!(committed(&mut bed, c, false), (5, None));
    bed.advance(Duration::from_secs(3600));
    assert_eq!(committed(&mut bed, c, false), (-1, None));
    assert!(bed.call(c, 5, &ListGroupsRequest::default()).groups.is_empty());
    bed.call(c, 9, &commit(-1, "", 5));
    let now = bed.now;
    bed.cluster.delete_topic("t", now);
    assert_eq!(committed(&mut bed, c, false), (-1, None));
}

#[test]
fn another_broker_than_the_coordinator_says_so_and_a_moved_group_keeps_its_members() {
    let mut bed = Bed::new(3, Settings::default());
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 4).unwrap();
    let any = bed.connect(1);
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g"), text("h")]);
    let found = bed.call(any, 6, &find);
    assert_eq!(found.coordinators.len(), 2);
    let home = found.coordinators[0].node_id.0;
    let old = bed.call(any, 3, &FindCoordinatorRequest::default().with_key(text("g")));
    assert_eq!(old.node_id.0, home);
    let away = home % 3 + 1;
    let wrong = bed.connect(away);
    assert_eq!(name(bed.call(wrong, 9, &join("", None)).error_code), Some(Code::NotCoordinator));
    assert_eq!(error(&bed.call(wrong, 9, &commit(-1, "", 1))), Some(Code::NotCoordinator));
    let right = bed.connect(home);
    let joined = bed.call(right, 3, &join("", None));
    let id = joined.member_id.to_string();
    assert_eq!(bed.call(right, 5, &sync(&id, 1, &[(&id, "all")])).error_code, 0);
    let now = bed.now;
    bed.cluster.move_coordinator(super::Coordinated::Group, "g", NodeId(away), now).unwrap();
    let wrong = bed.connect(away);
    assert_eq!(name(bed.call(right, 4, &beat(&id, 1)).error_code), Some(Code::NotCoordinator));
    assert_eq!(bed.call(wrong, 4, &beat(&id, 1)).error_code, 0);
}

fn place(offset: i64) -> Vec<super::Offered> {
    #[allow(clippy::disallowed_methods, reason = "a time that nothing depends on")]
    let at = std::time::Instant::now();
    let committed = super::Committed { offset, leader_epoch: -1, metadata: text("m"), at };
    vec![super::Offered { topic: text("t"), partition: 1, committed }]
}

#[test]
fn offsets_of_a_transaction_count_when_it_commits_and_in_the_order_in_which_they_came() {
    let mut bed = bed();
    let c = bed.connect(1);
    let at = super::Moment { node: NodeId(1), now: bed.now };
    let asker = super::Asker { generation: -1, transactional: true, ..super::Asker::default() };
    let stage = |bed: &mut Bed, producer: i64, offset: i64| {
        bed.cluster.groups.stage_offsets(&text("g"), &asker, producer, place(offset), at).unwrap();
    };
    stage(&mut bed, 7, 5);
    assert_eq!(committed(&mut bed, c, true), (-1, Some(Code::UnstableOffsetCommit)));
    assert_eq!(committed(&mut bed, c, false), (-1, None));
    bed.cluster.groups.complete_transaction(&text("g"), 8, true);
    assert_eq!(committed(&mut bed, c, true), (-1, Some(Code::UnstableOffsetCommit)), "of another producer");
    bed.cluster.groups.complete_transaction(&text("g"), 7, true);
    assert_eq!(committed(&mut bed, c, true), (5, None));
    stage(&mut bed, 7, 9);
    bed.cluster.groups.complete_transaction(&text("g"), 7, false);
    assert_eq!(committed(&mut bed, c, true), (5, None));
    // A plain commit after the staging stands, though the transaction ends later.
    stage(&mut bed, 7, 20);
    bed.call(c, 9, &commit(-1, "", 10));
    bed.cluster.groups.complete_transaction(&text("g"), 7, true);
    assert_eq!(committed(&mut bed, c, true), (10, None));
}

#[test]
fn memory_of_all_groups_is_bounded_and_comes_back_when_they_go() {
    let mut settings = Settings::default();
    settings.groups.memory_limit = 100_000;
    settings.groups.max_groups = 20;
    let mut bed = Bed::new(1, settings);
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 50).unwrap();
    let c = bed.connect(1);
    let metadata = text(&"x".repeat(4000));
    let mut first_refusal = None;
    for p in 0..50 {
        let mut request = commit(-1, "", 1);
        request.topics[0].partitions[0].partition_index = p;
        request.topics[0].partitions[0].committed_metadata = Some(metadata.clone());
        if let Some(code) = error(&bed.call(c, 9, &request)) {
            assert_eq!(code, Code::InvalidCommitOffsetSize);
            first_refusal.get_or_insert(p);
        }
    }
    assert!((20..26).contains(&first_refusal.unwrap()), "{first_refusal:?}");
    let now = bed.now;
    bed.cluster.delete_topic("t", now);
    bed.advance(Duration::from_secs(3600));
    assert_eq!(bed.cluster.groups.bytes, 0, "everything is gone");
    let mut refused = 0;
    for n in 0..30 {
        let answer = bed.call(c, 3, &join("", None).with_group_id(GroupId(text(&format!("g{n}")))));
        refused += usize::from(name(answer.error_code) == Some(Code::GroupMaxSizeReached));
    }
    assert_eq!(refused, 10);
}

#[test]
fn when_the_coordinator_dies_who_waits_is_told_and_the_group_goes_on_elsewhere() {
    let mut bed = Bed::new(2, Settings::default());
    bed.cluster.create_topic(&Topic::new("t").unwrap(), 4).unwrap();
    let any = bed.connect(1);
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    let home = bed.call(any, 6, &find).coordinators[0].node_id.0;
    let other = 3 - home;
    let a = bed.connect(home);
    let first = new_id(&mut bed, a);
    bed.call(a, 9, &join(&first, None));
    bed.call(a, 5, &sync(&first, 1, &[(&first, "all")]));
    assert_eq!(error(&bed.call(a, 9, &commit(1, &first, 5))), None);
    let now = bed.now;
    bed.cluster.kill(NodeId(home), now);
    // Nobody's session runs out because of it.
    bed.advance(Duration::from_secs(9));
    let a = bed.connect(other);
    assert_eq!(bed.call(a, 6, &find).coordinators[0].node_id.0, other);
    assert_eq!(bed.call(a, 4, &beat(&first, 1)).error_code, 0);
    assert_eq!(committed(&mut bed, a, true), (5, None));
    // With all brokers dead, time stands still for groups.
    bed.cluster.kill(NodeId(other), now);
    bed.advance(Duration::from_secs(3600));
    let now = bed.now;
    bed.cluster.revive(NodeId(other), now);
    let a = bed.connect(other);
    assert_eq!(bed.call(a, 4, &beat(&first, 1)).error_code, 0);
}
