//! A classic group's members, their requests, and the group's states.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use crate::embedded::machine::ConnectionId;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::embedded::kafka) enum State {
    /// No members.
    #[default]
    Empty,
    /// Members are to join.
    PreparingRebalance,
    /// All joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// Everyone has an assignment.
    Stable,
}

impl State {
    /// The name that DescribeGroups and ListGroups give it.
    pub(in crate::embedded::kafka) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A request to join.
#[derive(Debug, Clone)]
pub(in crate::embedded::kafka) struct Join {
    pub(in crate::embedded::kafka) connection: ConnectionId,
    /// Empty for a member that has no id yet.
    pub(in crate::embedded::kafka) member: StrBytes,
    pub(in crate::embedded::kafka) instance: Option<StrBytes>,
    pub(in crate::embedded::kafka) protocol_type: StrBytes,
    pub(in crate::embedded::kafka) protocols: Vec<(StrBytes, Bytes)>,
    pub(in crate::embedded::kafka) session_timeout: Duration,
    pub(in crate::embedded::kafka) rebalance_timeout: Duration,
    pub(in crate::embedded::kafka) client_id: StrBytes,
    pub(in crate::embedded::kafka) client_host: StrBytes,
    /// The id that a new member gets.
    pub(in crate::embedded::kafka) fresh: StrBytes,
    /// A new member must come again with its id (from version 4).
    pub(in crate::embedded::kafka) needs_id: bool,
    /// The client can be a leader that does not assign (from version 9).
    pub(in crate::embedded::kafka) can_skip: bool,
}

/// A request for an assignment, with everyone's where the leader asks.
#[derive(Debug, Clone)]
pub(in crate::embedded::kafka) struct Sync {
    pub(in crate::embedded::kafka) connection: ConnectionId,
    pub(in crate::embedded::kafka) generation: i32,
    pub(in crate::embedded::kafka) member: StrBytes,
    pub(in crate::embedded::kafka) instance: Option<StrBytes>,
    pub(in crate::embedded::kafka) protocol_type: Option<StrBytes>,
    pub(in crate::embedded::kafka) protocol: Option<StrBytes>,
    pub(in crate::embedded::kafka) assignments: Vec<(StrBytes, Bytes)>,
}

/// A member.
#[derive(Debug)]
pub(in crate::embedded::kafka) struct Member {
    pub(in crate::embedded::kafka) instance: Option<StrBytes>,
    pub(in crate::embedded::kafka) client_id: StrBytes,
    pub(in crate::embedded::kafka) client_host: StrBytes,
    pub(in crate::embedded::kafka) assignment: Bytes,
    pub(super) protocols: Vec<(StrBytes, Bytes)>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    /// Awaits the end of the join phase.
    pub(super) joining: Option<ConnectionId>,
    /// Awaits the leader's assignment.
    pub(super) syncing: Option<ConnectionId>,
    /// Has not been through a rebalance.
    pub(super) new: bool,
    pub(super) session_ends: Option<Instant>,
}

impl Member {
    pub(super) fn supports(&self, protocol: &StrBytes) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// What it said about itself for a protocol.
    pub(in crate::embedded::kafka) fn metadata(&self, protocol: &StrBytes) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, m)| m.clone()).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> usize {
        let protocols: usize = self.protocols.iter().map(|(name, m)| name.len() + m.len() + 64).sum();
        512 + protocols + self.assignment.len() + self.client_id.len()
    }
}

/// The topics in a subscription of the consumer's protocol (version 0 and what all later ones begin with).
pub(super) fn subscribed_topics(mut metadata: &[u8]) -> Option<Vec<StrBytes>> {
    let _version = take::<2>(&mut metadata)?;
    let count = i32::from_be_bytes(take(&mut metadata)?);
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(i16::from_be_bytes(take(&mut metadata)?)).ok()?;
        let (name, rest) = metadata.split_at_checked(length)?;
        metadata = rest;
        topics.push(StrBytes::from_string(std::str::from_utf8(name).ok()?.to_owned()));
    }
    Some(topics)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}
