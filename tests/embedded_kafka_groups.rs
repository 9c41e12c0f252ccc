//! Groups of the embedded cluster and of a real broker, asked the same: their answers must be the same to the letter,
//! but for random ids. Needs a real Kafka 4.x at `MUSLIN_KAFKA`.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test waits for brokers, and fails by a panic"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

/// One broker, and the transcript of what it was asked and answered.
struct Peer {
    address: String,
    streams: BTreeMap<u32, TcpStream>,
    group: String,
    topic: String,
    correlation: i32,
    transcript: Vec<String>,
    /// Random ids in the order in which they showed.
    seen: Vec<String>,
}

impl Peer {
    fn new(address: &str, run: &str) -> Self {
        Self {
            address: address.to_owned(),
            streams: BTreeMap::new(),
            group: format!("truth-group-{run}"),
            topic: format!("truth-topic-{run}"),
            correlation: 0,
            transcript: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn send<R: Request>(&mut self, connection: u32, version: i16, request: &R) {
        self.correlation += 1;
        let mut frame = BytesMut::new();
        frame.extend_from_slice(&R::KEY.to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&self.correlation.to_be_bytes());
        frame.extend_from_slice(&[0, 5]);
        frame.extend_from_slice(b"truth");
        if R::header_version(version) >= 2 {
            frame.extend_from_slice(&[0]);
        }
        request.encode(&mut frame, version).unwrap();
        let address = self.address.clone();
        let stream = self.streams.entry(connection).or_insert_with(|| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        });
        stream.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&frame).unwrap();
    }

    fn receive<R: Request>(&mut self, connection: u32, version: i16) -> R::Response {
        let stream = self.streams.get_mut(&connection).unwrap();
        let mut size = [0; 4];
        stream.read_exact(&mut size).unwrap_or_else(|e| panic!("{}: {e}", self.transcript.join("\n")));
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut frame).unwrap();
        let mut frame = Bytes::from(frame);
        frame.advance(if R::Response::header_version(version) >= 1 { 5 } else { 4 });
        R::Response::decode(&mut frame, version).unwrap()
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(0, version, request);
        self.receive::<R>(0, version)
    }

    /// Asks, and writes down what is answered.
    fn ask<R: Request>(&mut self, what: &str, version: i16, request: &R) -> R::Response
    where
        R::Response: std::fmt::Debug,
    {
        let response = self.call(version, request);
        self.note(what, version, &response);
        response
    }

    fn note(&mut self, what: &str, version: i16, response: &dyn std::fmt::Debug) {
        let said = self.plain(&format!("{response:?}"));
        self.transcript.push(format!("{what} v{version}: {said}"));
    }

    /// Without names of the run and random ids.
    fn plain(&mut self, said: &str) -> String {
        let mut said = said.replace(&self.group, "GROUP").replace(&self.topic, "TOPIC");
        let is_id = |s: &[u8]| {
            s.iter().enumerate().all(|(i, b)| match i {
                8 | 13 | 18 | 23 => *b == b'-',
                _ => b.is_ascii_hexdigit(),
            })
        };
        let zero = "00000000-0000-0000-0000-000000000000";
        while let Some(at) = said.as_bytes().windows(36).position(|w| is_id(w) && w != zero.as_bytes()) {
            let id = said[at..at + 36].to_owned();
            let n = self.seen.iter().position(|s| *s == id).unwrap_or_else(|| {
                self.seen.push(id.clone());
                self.seen.len() - 1
            });
            said = said.replace(&id, &format!("ID{n}"));
        }
        said
    }

    fn group(&self) -> GroupId {
        GroupId(text(&self.group))
    }

    fn of(&self, suffix: &str) -> GroupId {
        GroupId(text(&format!("{}-{suffix}", self.group)))
    }

    fn prepare(&mut self) {
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(&self.topic)))
            .with_num_partitions(3)
            .with_replication_factor(1);
        let created =
            self.call(7, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000));
        assert_eq!(created.topics[0].error_code, 0);
        let until = Instant::now() + Duration::from_secs(20);
        let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![self.group().0]);
        while self.call(4, &find).coordinators[0].error_code != 0 {
            assert!(Instant::now() < until, "no coordinator");
            std::thread::sleep(Duration::from_millis(100));
        }
        // Until the topic is known to the coordinator.
        let probe = self.of("probe");
        while self.call(9, &commit(self, &probe, -1, "", 1, 0)).topics[0].partitions[0].error_code != 0 {
            assert!(Instant::now() < until, "offsets are not taken");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn join(&self, group: &GroupId, member: &str, instance: Option<&str>) -> JoinGroupRequest {
        let metadata = {
            let mut m = vec![0, 3, 0, 0, 0, 1];
            m.extend_from_slice(&u16::try_from(self.topic.len()).unwrap().to_be_bytes());
            m.extend_from_slice(self.topic.as_bytes());
            m.extend_from_slice(&[255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255]);
            Bytes::from(m)
        };
        JoinGroupRequest::default()
            .with_group_id(group.clone())
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(10_000)
            .with_member_id(text(member))
            .with_group_instance_id(instance.map(text))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![
                JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(metadata),
            ])
    }
}

fn commit(
    peer: &Peer,
    group: &GroupId,
    generation: i32,
    member: &str,
    offset: i64,
    partition: i32,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("m")));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(&peer.topic)))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group.clone())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_retention_time_ms(-1)
        .with_topics(vec![topic])
}

fn fetch(
    peer: &Peer,
    group: &GroupId,
    member: Option<&str>,
    epoch: i32,
    partitions: Option<Vec<i32>>,
) -> OffsetFetchRequest {
    let topics = partitions.map(|partitions| {
        vec![
            OffsetFetchRequestTopics::default()
                .with_name(TopicName(text(&peer.topic)))
                .with_partition_indexes(partitions),
        ]
    });
    OffsetFetchRequest::default().with_require_stable(true).with_groups(vec![
        OffsetFetchRequestGroup::default()
            .with_group_id(group.clone())
            .with_member_id(member.map(text))
            .with_member_epoch(epoch)
            .with_topics(topics),
    ])
}

fn sync(group: &GroupId, member: &str, generation: i32, to: &[(&str, &'static str)]) -> SyncGroupRequest {
    let assignments = to.iter().map(|(id, a)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(id))
            .with_assignment(Bytes::from_static(a.as_bytes()))
    });
    SyncGroupRequest::default()
        .with_group_id(group.clone())
        .with_generation_id(generation)
        .with_member_id(text(member))
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(assignments.collect())
}

fn heartbeat(group: &GroupId, member: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group.clone())
        .with_generation_id(generation)
        .with_member_id(text(member))
}

fn leave(group: &GroupId, members: &[(&str, Option<&str>)]) -> LeaveGroupRequest {
    let members = members.iter().map(|(id, instance)| {
        MemberIdentity::default().with_member_id(text(id)).with_group_instance_id(instance.map(text))
    });
    LeaveGroupRequest::default().with_group_id(group.clone()).with_members(members.collect())
}

fn describe(group: &GroupId) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(vec![group.clone()])
}

fn describe_consumer(group: &GroupId) -> ConsumerGroupDescribeRequest {
    ConsumerGroupDescribeRequest::default().with_group_ids(vec![group.clone()])
}

fn delete(group: &GroupId) -> DeleteGroupsRequest {
    DeleteGroupsRequest::default().with_groups_names(vec![group.clone()])
}

fn delete_offset(group: &GroupId, topic: &str) -> OffsetDeleteRequest {
    OffsetDeleteRequest::default().with_group_id(group.clone()).with_topics(vec![
        OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![OffsetDeleteRequestPartition::default().with_partition_index(0)]),
    ])
}

fn offsets(p: &mut Peer) {
    let g = p.of("offsets");
    p.ask("fetch of nothing", 9, &fetch(p, &g, None, -1, Some(vec![0, 7])));
    p.ask("fetch all of nothing", 9, &fetch(p, &g, None, -1, None));
    p.ask("commit as a member of nothing", 9, &commit(p, &g, 3, "x", 5, 0));
    p.ask("commit", 9, &commit(p, &g, -1, "", 5, 0));
    p.ask("commit", 2, &commit(p, &g, -1, "", 6, 1));
    p.ask("fetch", 9, &fetch(p, &g, None, -1, Some(vec![0, 1, 2, 7])));
    p.ask("fetch all", 8, &fetch(p, &g, None, -1, None));
    for version in [1, 2, 5, 7] {
        let topics = vec![
            OffsetFetchRequestTopic::default()
                .with_name(TopicName(text(&p.topic)))
                .with_partition_indexes(vec![0, 2]),
        ];
        let request = OffsetFetchRequest::default().with_group_id(g.clone()).with_topics(Some(topics));
        p.ask("fetch", version, &request);
        if version >= 2 {
            p.ask("fetch all", version, &request.clone().with_topics(None));
        }
        p.ask("fetch of no group", version, &request.with_group_id(GroupId::default()));
    }
    p.ask("fetch of no group", 9, &fetch(p, &GroupId::default(), None, -1, Some(vec![0])));
    let mut long = commit(p, &g, -1, "", 5, 0);
    long.topics[0].partitions[0].committed_metadata = Some(text(&"x".repeat(5000)));
    p.ask("commit of long metadata", 9, &long);
    let mut unknown = commit(p, &g, -1, "", 5, 0);
    unknown.topics[0].name = TopicName(text("truth-there-is-no-such-topic"));
    p.ask("commit for no topic", 9, &unknown);
    p.ask("commit for no group", 9, &commit(p, &GroupId::default(), -1, "", 5, 0));
    p.ask("commit with a member", 9, &commit(p, &g, -1, "x", 7, 0));
    p.ask("commit with a generation", 9, &commit(p, &g, 0, "", 7, 0));
    p.ask("describe", 5, &describe(&g));
    p.ask("describe", 6, &describe(&g));
    p.ask("describe as consumer", 1, &describe_consumer(&g));
    let topic = p.topic.clone();
    p.ask("delete offsets", 0, &delete_offset(&g, &topic));
    p.ask("delete offsets of no topic", 0, &delete_offset(&g, "truth-there-is-no-such-topic"));
    p.ask("delete offsets of no group", 0, &delete_offset(&p.of("none"), &topic));
    p.ask("fetch", 9, &fetch(p, &g, None, -1, Some(vec![0, 1])));
    p.ask("delete", 2, &delete(&g));
    p.ask("delete again", 2, &delete(&g));
    p.ask("delete no group", 2, &delete(&GroupId::default()));
    p.ask("describe what is gone", 5, &describe(&g));
    p.ask("describe what is gone", 6, &describe(&g));
    p.ask("describe no group", 5, &describe(&GroupId::default()));
    p.ask("describe no consumer group", 1, &describe_consumer(&g));
}

fn classic(p: &mut Peer) {
    let g = p.of("classic");
    p.ask("join of no group", 9, &p.join(&GroupId::default(), "", None));
    p.ask("join of no group", 5, &p.join(&GroupId::default(), "", None));
    p.ask("join with an id", 9, &p.join(&g, "x", None));
    p.ask("join with an id", 3, &p.join(&g, "x", None));
    p.ask("join without a session", 9, &p.join(&g, "", None).with_session_timeout_ms(-1));
    p.ask("join without protocols", 9, &p.join(&g, "", None).with_protocols(vec![]));
    p.ask("join without a type", 9, &p.join(&g, "", None).with_protocol_type(text("")));
    let first = p.ask("join", 9, &p.join(&g, "", None)).member_id.to_string();
    p.ask("sync before", 5, &sync(&g, &first, 1, &[]));
    p.ask("join", 9, &p.join(&g, &first, None));
    p.ask("describe", 5, &describe(&g));
    p.ask("join again", 9, &p.join(&g, &first, None));
    p.ask("heartbeat", 4, &heartbeat(&g, &first, 1));
    p.ask("commit", 9, &commit(p, &g, 1, &first, 5, 0));
    p.ask("sync with another protocol", 5, &sync(&g, &first, 1, &[]).with_protocol_name(Some(text("x"))));
    p.ask("sync without a protocol", 5, &sync(&g, &first, 1, &[]).with_protocol_name(None));
    p.ask("sync of another generation", 5, &sync(&g, &first, 2, &[]));
    p.ask("sync of another member", 5, &sync(&g, "x", 1, &[]));
    p.ask("sync", 5, &sync(&g, &first, 1, &[(&first, "all"), ("x", "nothing")]));
    p.ask("sync again", 3, &sync(&g, &first, 1, &[]));
    for version in 0..=6 {
        p.ask("describe", version, &describe(&g));
    }
    p.ask("describe as consumer", 0, &describe_consumer(&g));
    p.ask("heartbeat", 4, &heartbeat(&g, &first, 1));
    p.ask("heartbeat of another generation", 4, &heartbeat(&g, &first, 0));
    p.ask("heartbeat of another member", 4, &heartbeat(&g, "x", 1));
    p.ask(
        "heartbeat of another instance",
        4,
        &heartbeat(&g, &first, 1).with_group_instance_id(Some(text("i"))),
    );
    p.ask("heartbeat of no group", 4, &heartbeat(&p.of("none"), &first, 1));
    p.ask("heartbeat of a group without a name", 4, &heartbeat(&GroupId::default(), &first, 1));
    for (generation, member) in
        [(1, first.as_str()), (0, first.as_str()), (1, "x"), (-1, ""), (-1, "x"), (1, "")]
    {
        p.ask("commit", 9, &commit(p, &g, generation, member, 5, 0));
    }
    p.ask("fetch as a member", 9, &fetch(p, &g, Some("x"), 4, Some(vec![0])));
    let topic = p.topic.clone();
    p.ask("delete offsets of what is subscribed to", 0, &delete_offset(&g, &topic));
    p.ask("delete offsets of no topic", 0, &delete_offset(&g, "truth-there-is-no-such-topic"));
    p.ask("delete", 2, &delete(&g));
    p.ask("another protocol", 9, &{
        let mut join = p.join(&g, "", None);
        join.protocols[0].name = text("other");
        join
    });
    // A second member, before ids were given first.
    p.send(1, 3, &p.join(&g, "", None));
    let until = Instant::now() + Duration::from_secs(10);
    while p.call(4, &heartbeat(&g, &first, 1)).error_code == 0 {
        assert!(Instant::now() < until, "no rebalance");
    }
    p.ask("heartbeat while it rebalances", 4, &heartbeat(&g, &first, 1));
    p.ask("sync while it rebalances", 5, &sync(&g, &first, 1, &[]));
    p.ask("commit while it rebalances", 9, &commit(p, &g, 1, &first, 8, 0));
    let mut described = p.call(5, &describe(&g));
    described.groups[0].members.sort_by_key(|m| m.member_assignment.clone());
    p.note("describe while it rebalances", 5, &described);
    let again = p.call(9, &p.join(&g, &first, None));
    assert_eq!(again.members.len(), 2);
    let second = p.receive::<JoinGroupRequest>(1, 3);
    let other = second.member_id.to_string();
    p.note("the second joined", 3, &second);
    p.send(1, 3, &sync(&g, &other, 2, &[]));
    p.ask("sync", 5, &sync(&g, &first, 2, &[(&first, "one"), (&other, "two")]));
    let synced = p.receive::<SyncGroupRequest>(1, 3);
    p.note("the second synced", 3, &synced);
    p.ask("leave", 5, &leave(&g, &[("x", None), (&other, None), ("", Some("i")), (&first, Some("i"))]));
    p.ask("heartbeat after", 4, &heartbeat(&g, &first, 2));
    p.ask("join", 9, &p.join(&g, &first, None));
    p.ask(
        "leave of another",
        2,
        &LeaveGroupRequest::default().with_group_id(g.clone()).with_member_id(text("x")),
    );
    p.ask("leave", 2, &LeaveGroupRequest::default().with_group_id(g.clone()).with_member_id(text(&first)));
    p.ask(
        "leave again",
        1,
        &LeaveGroupRequest::default().with_group_id(g.clone()).with_member_id(text(&first)),
    );
    p.ask("leave of no group", 5, &leave(&p.of("none"), &[("x", None)]));
    p.ask("leave of a group without a name", 5, &leave(&GroupId::default(), &[("x", None)]));
    p.ask("describe the empty one", 6, &describe(&g));
    p.ask("heartbeat of the empty one", 4, &heartbeat(&g, &first, 3));
    p.ask("sync of the empty one", 5, &sync(&g, &first, 3, &[]));
    p.ask("join of the empty one", 9, &p.join(&g, &first, None));
    p.ask("commit to the empty one", 9, &commit(p, &g, -1, "", 9, 0));
    p.ask("fetch", 9, &fetch(p, &g, None, -1, None));
    p.ask("delete", 2, &delete(&g));
}

fn fixed(p: &mut Peer) {
    let g = p.of("static");
    let first = p.ask("join", 9, &p.join(&g, "", Some("i"))).member_id.to_string();
    p.ask("sync", 5, &sync(&g, &first, 1, &[(&first, "all")]));
    let second = p.ask("join anew", 9, &p.join(&g, "", Some("i"))).member_id.to_string();
    p.ask("sync of the former", 5, &sync(&g, &first, 1, &[]).with_group_instance_id(Some(text("i"))));
    p.ask("heartbeat of the former", 4, &heartbeat(&g, &first, 1).with_group_instance_id(Some(text("i"))));
    p.ask("heartbeat of the former", 4, &heartbeat(&g, &first, 1));
    p.ask("join of the former", 9, &p.join(&g, &first, Some("i")));
    p.ask("commit of the former", 9, &commit(p, &g, 1, &first, 1, 0).with_group_instance_id(Some(text("i"))));
    p.ask("sync", 5, &sync(&g, &second, 1, &[]).with_group_instance_id(Some(text("i"))));
    let third = p.ask("join anew by an old client", 5, &p.join(&g, "", Some("i"))).member_id.to_string();
    p.ask("sync", 5, &sync(&g, &third, 1, &[]));
    p.ask("describe", 4, &describe(&g));
    p.ask("leave of the former", 5, &leave(&g, &[(&second, Some("i")), ("", Some("k"))]));
    p.ask("leave by instance", 5, &leave(&g, &[("", Some("i"))]));
    p.ask("describe", 4, &describe(&g));
}

fn beat(g: &GroupId, member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(g.clone())
        .with_member_id(text(member))
        .with_member_epoch(epoch)
}

fn joining(p: &Peer, g: &GroupId, member: &str) -> ConsumerGroupHeartbeatRequest {
    beat(g, member, 0)
        .with_rebalance_timeout_ms(10_000)
        .with_subscribed_topic_names(Some(vec![TopicName(text(&p.topic))]))
        .with_topic_partitions(Some(vec![]))
}

fn consumer(p: &mut Peer) {
    let g = p.of("consumer");
    p.ask("no member id", 1, &joining(p, &g, ""));
    p.ask("no group", 1, &joining(p, &GroupId::default(), "a"));
    p.ask("no timeout", 1, &joining(p, &g, "a").with_rebalance_timeout_ms(-1));
    p.ask("owns", 1, &joining(p, &g, "a").with_topic_partitions(None));
    p.ask("nothing wanted", 1, &joining(p, &g, "a").with_subscribed_topic_names(None));
    p.ask("empty instance", 1, &joining(p, &g, "a").with_instance_id(Some(text(""))));
    p.ask("empty rack", 1, &joining(p, &g, "a").with_rack_id(Some(text(""))));
    p.ask("assignor", 1, &joining(p, &g, "a").with_server_assignor(Some(text("x"))));
    // The words are of either's own library.
    let regex = p.call(1, &joining(p, &g, "a").with_subscribed_topic_regex(Some(text("("))));
    p.note("regex", 1, &regex.error_code);
    p.ask("leaves without an instance", 1, &beat(&g, "a", -2));
    p.ask("wrong epoch", 1, &beat(&g, "a", -3));
    p.ask("group that is not there", 1, &beat(&g, "a", 4));
    p.ask("leaves a group that is not there", 1, &beat(&g, "a", -1));
    p.ask("join", 1, &joining(p, &g, "a"));
    p.ask("join again", 1, &joining(p, &g, "a"));
    p.ask("heartbeat", 1, &beat(&g, "a", 2));
    p.ask("heartbeat behind", 1, &beat(&g, "a", 1));
    p.ask("heartbeat ahead", 1, &beat(&g, "a", 3));
    p.ask("heartbeat of another", 1, &beat(&g, "x", 2));
    p.ask("heartbeat of another instance", 1, &beat(&g, "a", 2).with_instance_id(Some(text("i"))));
    p.ask("describe", 1, &describe_consumer(&g));
    p.ask("describe", 0, &describe_consumer(&g));
    p.ask("describe as classic", 5, &describe(&g));
    p.ask("describe as classic", 6, &describe(&g));
    for (epoch, member) in [(2, "a"), (1, "a"), (0, "a"), (3, "a"), (2, "x"), (-1, "")] {
        p.ask("commit", 9, &commit(p, &g, epoch, member, 5, 0));
        p.ask("fetch", 9, &fetch(p, &g, Some(member).filter(|m| !m.is_empty()), epoch, Some(vec![0])));
    }
    p.ask("commit by an old client", 8, &commit(p, &g, 2, "a", 5, 0));
    p.ask("classic heartbeat", 4, &heartbeat(&g, "a", 1));
    p.ask("classic sync", 5, &sync(&g, "a", 1, &[]));
    p.ask("classic leave", 5, &leave(&g, &[("x", None)]));
    p.ask("delete", 2, &delete(&g));
    let topic = p.topic.clone();
    p.ask("delete offsets", 0, &delete_offset(&g, &topic));
    // A second one, with the steps of both.
    // The real broker assigns at most once a second.
    std::thread::sleep(Duration::from_millis(1200));
    p.ask("second joins", 1, &joining(p, &g, "b"));
    let told = p.ask("first is told", 1, &beat(&g, "a", 2));
    let mut described = p.call(1, &describe_consumer(&g));
    described.groups[0].members.sort_by_key(|m| m.member_id.clone());
    p.note("describe", 1, &described);
    let kept: Vec<TopicPartitions> = told
        .assignment
        .iter()
        .flat_map(|a| &a.topic_partitions)
        .map(|t| TopicPartitions::default().with_topic_id(t.topic_id).with_partitions(t.partitions.clone()))
        .collect();
    p.ask("second waits", 1, &beat(&g, "b", 3));
    p.ask("first let go", 1, &beat(&g, "a", 2).with_topic_partitions(Some(kept)));
    p.ask("second gets", 1, &beat(&g, "b", 3));
    p.ask("commit with the old epoch", 9, &commit(p, &g, 2, "a", 6, 0));
    p.ask("commit with the old epoch", 9, &commit(p, &g, 2, "a", 6, 2));
    p.ask("commit with the old epoch", 9, &commit(p, &g, 2, "b", 6, 2));
    p.ask("second leaves", 1, &beat(&g, "b", -1));
    // The real broker assigns at most once a second.
    std::thread::sleep(Duration::from_millis(1200));
    p.ask("first gets", 1, &beat(&g, "a", 3));
    p.ask("describe", 1, &describe_consumer(&g));
    p.ask("first leaves", 1, &beat(&g, "a", -1));
    p.ask("describe", 1, &describe_consumer(&g));
    p.ask("commit to the empty one", 9, &commit(p, &g, -1, "", 7, 1));
    p.ask("fetch", 9, &fetch(p, &g, None, -1, None));
    p.ask("delete", 2, &delete(&g));
}

fn fixed_consumer(p: &mut Peer) {
    let g = p.of("static-consumer");
    let fixed = |p: &Peer, id: &str| joining(p, &g, id).with_instance_id(Some(text("i")));
    p.ask("join", 1, &fixed(p, "a"));
    p.ask("join of another", 1, &fixed(p, "b"));
    p.ask("heartbeat of another", 1, &beat(&g, "b", 2).with_instance_id(Some(text("i"))));
    p.ask("leaves for now", 1, &beat(&g, "a", -2).with_instance_id(Some(text("i"))));
    p.ask("describe", 1, &describe_consumer(&g));
    p.ask("back", 1, &fixed(p, "b"));
    p.ask("heartbeat of the former", 1, &beat(&g, "a", 2).with_instance_id(Some(text("i"))));
    p.ask("describe", 1, &describe_consumer(&g));
    p.ask("leave of the former", 1, &beat(&g, "a", -1).with_instance_id(Some(text("i"))));
    p.ask("leave", 1, &beat(&g, "b", -1).with_instance_id(Some(text("i"))));
    // An empty consumer group becomes a classic one, and back.
    let member = p.ask("classic join", 9, &p.join(&g, "", None)).member_id.to_string();
    p.ask("classic join", 9, &p.join(&g, &member, None));
    p.ask("sync", 5, &sync(&g, &member, 1, &[(&member, "all")]));
    p.ask("leave", 5, &leave(&g, &[(&member, None)]));
    p.ask("consumer join", 1, &joining(p, &g, "a"));
    p.ask("leave", 1, &beat(&g, "a", -1));
}

async fn compare(script: fn(&mut Peer)) {
    let real = std::env::var("MUSLIN_KAFKA").expect("MUSLIN_KAFKA names a real Kafka, as 127.0.0.1:9092");
    let embedded = muslin::embedded::Kafka::builder()
        .consumer_heartbeat_interval(Duration::from_millis(500))
        .start()
        .await
        .unwrap();
    let run = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos().to_string();
    let run_on = |address: String, run: String| {
        tokio::task::spawn_blocking(move || {
            let mut peer = Peer::new(&address, &run);
            peer.prepare();
            script(&mut peer);
            peer.transcript
        })
    };
    let theirs = run_on(real.split(',').next().unwrap().to_owned(), run.clone()).await.unwrap();
    let ours = run_on(embedded.bootstrap(), run).await.unwrap();
    let differ: Vec<String> = theirs
        .iter()
        .zip(&ours)
        .filter(|(t, o)| t != o)
        .map(|(t, o)| format!("real     {t}\nembedded {o}\n"))
        .collect();
    assert!(differ.is_empty(), "{} of {} answers differ:\n{}", differ.len(), theirs.len(), differ.join("\n"));
}

macro_rules! scripts {
    ($($name:ident: $script:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            compare($script).await;
        })*
    };
}

scripts! {
    offsets_of_groups_without_members: offsets,
    classic_groups: classic,
    static_members_of_classic_groups: fixed,
    consumer_groups: consumer,
    static_members_of_consumer_groups_and_groups_that_change_kind: fixed_consumer,
}
