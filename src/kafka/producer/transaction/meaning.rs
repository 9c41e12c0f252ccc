//! What the codes of coordinators mean within a transaction. Pure.

use kafka_protocol::ResponseError as Code;

use crate::Error;
use crate::kafka::errors;

/// What a code means.
pub(super) enum Meaning {
    Done,
    /// Ask again; `moved`: ask who the coordinator is; `unsure`: it may have been done.
    Again {
        moved: bool,
        unsure: bool,
        error: Error,
    },
    Fenced(Error),
    /// The transaction is not in a state for it.
    State(Error),
    /// The transaction is to be aborted.
    Abort(Error),
    Fatal(Error),
    Other(Error),
}

impl Meaning {
    /// The higher counts, where an answer has several.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Again { .. } => 1,
            Self::Abort(_) | Self::State(_) | Self::Other(_) => 2,
            Self::Fenced(_) => 3,
            Self::Fatal(_) => 4,
        }
    }
}

pub(super) fn meaning(code: i16, what: impl FnOnce() -> String) -> Meaning {
    if code == 0 {
        return Meaning::Done;
    }
    let error = errors::broker(code, what());
    let again = |moved, unsure, error| Meaning::Again { moved, unsure, error };
    match Code::try_from_code(code) {
        // A coordinator answers so too when it lost its place while the answer waited for its replicas.
        Some(Code::NotCoordinator | Code::CoordinatorNotAvailable) => again(true, true, error),
        Some(Code::CoordinatorLoadInProgress | Code::ConcurrentTransactions) => again(false, false, error),
        Some(Code::UnknownServerError) => again(true, true, error),
        Some(
            Code::InvalidProducerEpoch
            | Code::ProducerFenced
            | Code::InvalidProducerIdMapping
            | Code::UnknownProducerId,
        ) => Meaning::Fenced(error),
        Some(Code::InvalidTxnState) => Meaning::State(error),
        Some(Code::TransactionAbortable) => Meaning::Abort(error),
        Some(
            Code::TransactionalIdAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTransactionTimeout
            | Code::UnsupportedVersion
            | Code::UnsupportedForMessageFormat,
        ) => Meaning::Fatal(error),
        _ if error.is_retryable() => again(false, true, error),
        _ => Meaning::Other(error),
    }
}
