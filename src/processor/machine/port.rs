//! What goes into the machine and what comes out of it.

use std::time::Duration;

use crate::delivery::{Order, RetryPolicy, Scope};
use crate::processor::Class;

/// The number of a message within its run.
pub(in crate::processor) type Ticket = u64;

/// The rules of a run, fixed before it starts.
#[derive(Debug, Clone)]
pub(in crate::processor) struct Rules {
    pub(in crate::processor) order: Order,
    pub(in crate::processor) concurrency: usize,
    pub(in crate::processor) in_hand: usize,
    pub(in crate::processor) in_hand_bytes: usize,
    pub(in crate::processor) retry: RetryPolicy,
    /// How long a handler may run.
    pub(in crate::processor) timeout: Option<Duration>,
    /// How long a claim lasts; it is extended each third of it.
    pub(in crate::processor) lease: Duration,
    pub(in crate::processor) exhausted: Exhausted,
    /// How long a drain may take.
    pub(in crate::processor) drain: Duration,
}

/// What becomes of a message that cannot be worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) enum Exhausted {
    DeadLetter,
    Skip,
    Stop,
}

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) enum Action {
    /// Claim its idempotency key; answer with `handle_claimed`.
    Claim(Ticket),
    /// Run its handler for the given attempt; answer with `handle_ended`.
    Run(Ticket, u32),
    /// End its handler; answered by `handle_ended` once it has ended.
    Abort(Ticket, Why),
    /// Extend its lease; answer with `handle_renewed`.
    Renew(Ticket),
    /// Complete its key with the outcome; answer with `handle_completed`.
    Complete(Ticket),
    /// Publish its dead letter; answer with `handle_buried`.
    Bury(Ticket),
    /// Release its key; answer with `handle_released`.
    Release(Ticket),
    /// It is settled: acknowledge it or give it back, and forget it.
    Settle(Ticket, Fate),
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) enum Fate {
    Handled,
    Duplicate,
    Skipped,
    DeadLettered,
    /// Given back because the run ends.
    GivenBack,
    /// Given back because of its own failure, which ends the run.
    Failed,
}

impl Fate {
    /// Whether it is acknowledged.
    pub(in crate::processor) fn acks(self) -> bool {
        match self {
            Self::Handled | Self::Duplicate | Self::Skipped | Self::DeadLettered => true,
            Self::GivenBack | Self::Failed => false,
        }
    }
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) enum Claimed {
    /// The key is ours.
    Yes,
    /// The effect is done already.
    Done,
    /// Another holder has it for so long.
    Held(Duration),
    /// The store refuses this key or payload.
    Refused,
    /// The store did not answer.
    Away,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) enum Ended {
    Ok,
    Failed(Class),
    /// Its task was ended on [`Action::Abort`].
    Aborted,
}

/// The answer to a completion or an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) enum Kept {
    Yes,
    /// Somebody else holds the key now.
    Fenced,
    /// The store did not answer.
    Away,
}

/// The answer to a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) enum Buried {
    Yes,
    /// The destination cannot be reached now.
    Away,
    /// The destination will not take it.
    Refused,
}

/// A message that was taken, as far as the machine must know it.
#[derive(Debug, Clone, Copy)]
pub(in crate::processor) struct Arrival<'a> {
    pub(in crate::processor) scope: Scope,
    pub(in crate::processor) key: Option<&'a [u8]>,
    pub(in crate::processor) bytes: usize,
    pub(in crate::processor) keyed: bool,
    pub(in crate::processor) verdict: Option<Class>,
}

/// Why a handler is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) enum Why {
    TimedOut,
    LeaseLost,
    Drained,
}
