//! What a coordinator's answer to a commit means. Pure.
//!
//! | code | then |
//! |---|---|
//! | 0 | it is in |
//! | NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE, COORDINATOR_LOAD_IN_PROGRESS, what is retriable | again after a pause, at the coordinator as it is then |
//! | REBALANCE_IN_PROGRESS, STALE_MEMBER_EPOCH | the member is told; again after a pause, under its identity as it is then |
//! | UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, FENCED_MEMBER_EPOCH, FENCED_INSTANCE_ID | the member is told; not again: the partitions are others' |
//! | OFFSET_METADATA_TOO_LARGE | again without metadata |
//! | all others | refused: the application is told |
//!
//! A commit carries the newest watermark each time it is tried, and the next begins when this one has ended: so commits
//! arrive in order and never go back.

use kafka_protocol::ResponseError as Code;

use crate::Error;
use crate::kafka::errors;
use crate::kafka::offsets::Place;

/// What one partition's code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Done,
    /// Again after a pause.
    Again,
    /// Again without metadata.
    Shorter,
    /// Tell the member; again after a pause.
    Behind,
    /// Tell the member; not again.
    Fenced,
    /// Not again.
    Refused,
}

pub(crate) fn judge(code: i16, is_member: bool) -> Verdict {
    match Code::try_from_code(code) {
        None if code == 0 => Verdict::Done,
        Some(Code::OffsetMetadataTooLarge) => Verdict::Shorter,
        Some(Code::RebalanceInProgress | Code::StaleMemberEpoch) if is_member => Verdict::Behind,
        Some(
            Code::UnknownMemberId
            | Code::IllegalGeneration
            | Code::FencedMemberEpoch
            | Code::FencedInstanceId,
        ) if is_member => Verdict::Fenced,
        _ if errors::wants_coordinator(code) || errors::broker(code, "").is_retryable() => Verdict::Again,
        _ => Verdict::Refused,
    }
}

/// The error of a code, for a person.
pub(crate) fn error(group: &str, place: &Place, code: i16, is_member: bool) -> Error {
    let (topic, partition) = place;
    let what = format!("group {group}: commit of topic {topic} partition {partition}");
    if is_member && judge(code, true) == Verdict::Fenced {
        let why = "the group has moved on without this member; its partitions are others' now, and what was not \
                   committed comes again to them";
        return Error::new(crate::ErrorKind::Fenced, format!("{what}: {} ({why})", errors::name(code)));
    }
    errors::broker(code, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_a_commit_has_its_meaning() {
        use Verdict::*;
        let cases = [
            (0, Done, Done),
            // Coordinator, and what passes by itself.
            (14, Again, Again),
            (15, Again, Again),
            (16, Again, Again),
            (3, Again, Again),
            (7, Again, Again),
            // Membership: a simple consumer is told.
            (27, Behind, Refused),
            (113, Behind, Refused),
            (22, Fenced, Refused),
            (25, Fenced, Refused),
            (82, Fenced, Refused),
            (110, Fenced, Refused),
            (12, Shorter, Shorter),
            // What no retry mends: sizes, rights, names, and a code of the future.
            (28, Refused, Refused),
            (29, Refused, Refused),
            (30, Refused, Refused),
            (24, Refused, Refused),
            (9999, Refused, Refused),
        ];
        for (code, member, simple) in cases {
            assert_eq!((judge(code, true), judge(code, false)), (member, simple), "{code}");
        }
    }
}
