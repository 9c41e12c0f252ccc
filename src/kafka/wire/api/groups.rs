//! Membership of groups: the classic protocol's four requests, and the heartbeat of the newer one (KIP-848).

use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};

use super::Shape::{Bytes as Raw, Fixed, Maybe, Structs, Text, Values};
use super::*;

const JOINED: &[Field] = &[always(Text), since(5, Text), always(Raw)];
api!(JoinGroupRequest -> JoinGroupResponse: "JoinGroup" JoinGroup, 2..=9, flexible 6, &[
    always(Fixed(4 + 2 + 4)),
    since(7, Text),
    always(Text),
    always(Text),
    since(9, Fixed(1)),
    always(Text),
    always(Structs(JOINED)),
]);

api!(SyncGroupRequest -> SyncGroupResponse: "SyncGroup" SyncGroup, 1..=5, flexible 4, &[
    always(Fixed(4 + 2)),
    since(5, Text),
    since(5, Text),
    always(Raw),
]);

api!(HeartbeatRequest -> HeartbeatResponse: "Heartbeat" Heartbeat, 1..=4, flexible 4, &[
    always(Fixed(4 + 2)),
]);

api!(LeaveGroupRequest -> LeaveGroupResponse: "LeaveGroup" LeaveGroup, 1..=5, flexible 4, &[
    always(Fixed(4 + 2)),
    since(3, Structs(&[always(Text), always(Text), always(Fixed(2))])),
]);

const TOPIC_PARTITIONS: Shape = Structs(&[always(Fixed(16)), always(Values(4))]);
impl Api for ConsumerGroupHeartbeatRequest {
    type Answer = ConsumerGroupHeartbeatResponse;
    const NAME: &'static str = "ConsumerGroupHeartbeat";
    // rskafka has no name for it.
    const API: ApiKey = ApiKey::Unknown(Int16(68));
    const MIN: i16 = 0;
    const MAX: i16 = 1;
    const FLEXIBLE: i16 = 0;
    const ANSWER: &'static [Field] = &[
        always(Fixed(4 + 2)),
        always(Text),
        always(Text),
        always(Fixed(4 + 4)),
        always(Maybe(&[always(TOPIC_PARTITIONS)])),
    ];

    fn write(&self, out: &mut Parts, version: i16) -> Result<(), String> {
        encode(self, out, version)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
    use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
    use kafka_protocol::messages::leave_group_response::MemberResponse;
    use kafka_protocol::protocol::StrBytes;
    use uuid::Uuid;

    use super::super::tests::every_version;
    use super::*;

    fn text(s: &'static str) -> StrBytes {
        StrBytes::from_static_str(s)
    }

    #[test]
    fn join() {
        let member = JoinGroupResponseMember::default()
            .with_member_id(text("m1"))
            .with_metadata(Bytes::from_static(b"\0\x01bytes"));
        let answer = JoinGroupResponse::default()
            .with_generation_id(7)
            .with_protocol_name(Some(text("range")))
            .with_leader(text("m1"))
            .with_member_id(text("m1"))
            .with_members(vec![member.clone(), member]);
        every_version::<JoinGroupRequest>(&answer);
    }

    #[test]
    fn sync_heartbeat_leave() {
        let answer = SyncGroupResponse::default().with_assignment(Bytes::from_static(b"some bytes"));
        every_version::<SyncGroupRequest>(&answer);
        every_version::<HeartbeatRequest>(&HeartbeatResponse::default().with_error_code(27));
        every_version::<LeaveGroupRequest>(&LeaveGroupResponse::default().with_error_code(25));
        let left = MemberResponse::default().with_member_id(text("m")).with_error_code(25);
        let mut out = bytes::BytesMut::new();
        let answer = LeaveGroupResponse::default().with_members(vec![left]);
        answer.encode(&mut out, 5).unwrap();
        assert_eq!(decode::<LeaveGroupRequest>(out.freeze(), 5).unwrap(), answer);
    }

    #[test]
    fn consumer_group_heartbeat() {
        let none =
            ConsumerGroupHeartbeatResponse::default().with_member_epoch(3).with_heartbeat_interval_ms(5000);
        every_version::<ConsumerGroupHeartbeatRequest>(&none);
        let topic =
            TopicPartitions::default().with_topic_id(Uuid::from_u128(9)).with_partitions(vec![0, 1, 5]);
        let assignment = Assignment::default().with_topic_partitions(vec![topic.clone(), topic]);
        every_version::<ConsumerGroupHeartbeatRequest>(&none.with_assignment(Some(assignment)));
    }
}
