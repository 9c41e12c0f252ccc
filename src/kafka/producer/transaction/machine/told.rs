//! What the machine tells those that ask why.

use super::Settings;
use crate::kafka::producer::transaction::Protocol;
use crate::{Error, ErrorKind};

/// Why a producer can do nothing more: what else than another producer it may be is named.
pub(super) fn fenced(settings: &Settings, protocol: Protocol, epoch_lost: bool, error: &Error) -> Error {
    let mut text = format!(
        "another producer has the transactional id {}; this one was fenced, and can do nothing more",
        settings.id
    );
    if protocol == Protocol::V1 {
        text.push_str(&format!(
            " (or its transaction was open longer than {:?}, transaction_timeout: below transaction.version 2 a \
             broker may not tell the two apart)",
            settings.timeout
        ));
    }
    if epoch_lost {
        text.push_str(
            " (or a coordinator gave it a new epoch before it lost its place, and the answer was lost: the next \
             coordinator cannot tell)",
        );
    }
    Error::new(ErrorKind::Fenced, text).with_source(error.report())
}

/// Why a transaction was aborted: what may have been written of it, no reader of committed records sees.
pub(super) fn sure(e: Error) -> Error {
    let told = Error::new(e.kind(), format!("the transaction was aborted: {}", e.message()))
        .retryable(e.is_retryable());
    match std::error::Error::source(&e) {
        Some(source) => told.with_source(source.to_string()),
        None => told,
    }
}

/// An answer to offsets was lost: the request may arrive late, and would put older offsets in the place of newer ones.
pub(super) fn overtaken(group: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "offsets of group {group} were sent in this transaction before, and they may arrive once more: abort it, \
             and send them in another"
        ),
    )
}

pub(super) fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the transactional producer has ended")
}
