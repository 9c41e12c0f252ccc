//! Broker error codes as errors of this crate.
//!
//! What a code means for a retry is Kafka's own classification (`org.apache.kafka.common.protocol.Errors`), as
//! kafka-protocol carries it; the kind is this crate's.

use kafka_protocol::ResponseError as Code;

use crate::{Error, ErrorKind};

pub(crate) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
pub(crate) const UNSUPPORTED_VERSION: i16 = 35;

/// The code's name and number, for messages.
pub(crate) fn name(code: i16) -> String {
    match Code::try_from_code(code) {
        Some(known) => format!("{known:?} ({code})"),
        None => format!("error code {code}"),
    }
}

/// What a broker's code means to a caller; `what` is the request or the thing it was about.
pub(crate) fn broker(code: i16, what: impl std::fmt::Display) -> Error {
    let known = Code::try_from_code(code);
    // Retriable since the client of KIP-890; kafka-protocol's table is older.
    let retryable =
        known.as_ref().is_some_and(|c| c.is_retriable() || matches!(c, Code::ConcurrentTransactions));
    let (kind, advice) = match known {
        Some(known) => kind(&known),
        None => (ErrorKind::Broker, ""),
    };
    let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
    Error::new(kind, format!("{what}: the broker answered {}{advice}", name(code))).retryable(retryable)
}

fn kind(code: &Code) -> (ErrorKind, &'static str) {
    use ErrorKind as K;
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopicId => {
            (K::NotFound, "create the topic, or check its name")
        }
        Code::GroupIdNotFound => (K::NotFound, "check the group's name"),
        Code::TransactionalIdNotFound | Code::ResourceNotFound => (K::NotFound, ""),
        Code::MessageTooLarge => {
            (K::TooLarge, "raise max.message.bytes of the topic, or send less at a time")
        }
        Code::RecordListTooLarge => (K::TooLarge, "lower the batch size below the topic's segment size"),
        Code::CorruptMessage => (K::Corrupt, ""),
        Code::InvalidRecord => {
            (K::Rejected, "the topic refuses such a record (a compacted topic wants keys)")
        }
        Code::InvalidTimestamp => (K::Rejected, "the timestamp is outside of what the topic takes"),
        Code::PolicyViolation => (K::Rejected, ""),
        Code::UnsupportedVersion | Code::UnsupportedForMessageFormat | Code::UnsupportedCompressionType => {
            (K::Unsupported, "")
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::SecurityDisabled => (K::Denied, "the user lacks the right"),
        Code::TopicDeletionDisabled => (K::Denied, "delete.topic.enable is false at the brokers"),
        Code::TopicAlreadyExists => (K::Conflict, ""),
        Code::NonEmptyGroup => (K::Conflict, "the group has members: stop them first"),
        Code::GroupSubscribedToTopic => {
            (K::Conflict, "members of the group read the topic: stop them, or let them read others")
        }
        Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId => (K::Fenced, ""),
        Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress => (
            K::Conflict,
            "the group has active members; offsets of a group are committed by its members, or by this consumer \
             while there are none: stop the members or use another group",
        ),
        Code::InvalidTopicException
        | Code::InvalidGroupId
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::InvalidRequest
        | Code::InvalidRequiredAcks
        | Code::InvalidPrincipalType
        | Code::DuplicateResource
        | Code::UnacceptableCredential
        | Code::InvalidSessionTimeout => (K::Config, ""),
        Code::OffsetMetadataTooLarge => (K::TooLarge, ""),
        Code::ConcurrentTransactions => (K::Unavailable, ""),
        other if other.is_retriable() => (K::Unavailable, ""),
        _ => (K::Broker, ""),
    }
}

/// Whether the code says that this client's view of leaders is old: ask for metadata, then try again.
pub(crate) fn wants_refresh(code: i16) -> bool {
    matches!(
        Code::try_from_code(code),
        Some(
            Code::UnknownTopicOrPartition
                | Code::LeaderNotAvailable
                | Code::NotLeaderOrFollower
                | Code::ReplicaNotAvailable
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::KafkaStorageError
                | Code::ListenerNotFound
                | Code::PreferredLeaderNotAvailable
                | Code::UnknownTopicId
        )
    )
}

/// Whether the code says that the group's coordinator is another one, or not ready.
pub(crate) fn wants_coordinator(code: i16) -> bool {
    matches!(
        Code::try_from_code(code),
        Some(Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress)
    )
}
