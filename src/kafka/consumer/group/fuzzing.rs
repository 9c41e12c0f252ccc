//! A door for the fuzz targets; no part of the API.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::assignor::{Assignor, Member, TopicShape};
use super::protocol::{Assignment, Subscription};
use crate::{Partition, Result, Topic};

/// A subscription as it is written once it was read.
///
/// # Errors
/// As the leader's, on what a member sent.
pub fn subscription(bytes: Bytes) -> Result<Bytes> {
    Ok(Subscription::decode(bytes)?.encode())
}

/// An assignment as it is written once it was read.
///
/// # Errors
/// As a member's, on what the leader sent.
pub fn assignment(bytes: Bytes) -> Result<Bytes> {
    Ok(Assignment::decode(bytes)?.encode())
}

/// What each member wants, and what it is given of topics with 4 partitions in 3 racks. Members that send nonsense are left out.
#[must_use]
pub fn assign(assignor: Assignor, subscriptions: &[Bytes]) -> Vec<(Vec<Topic>, Vec<(Topic, Partition)>)> {
    let read = subscriptions.iter().filter_map(|bytes| Subscription::decode(bytes.clone()).ok());
    let members: Vec<Member> = read
        .enumerate()
        .map(|(n, subscription)| Member { id: format!("member-{n}"), instance: None, subscription })
        .collect();
    let shape =
        || TopicShape { partitions: 4, racks: (0..4).map(|n| vec![format!("rack-{}", n % 3)]).collect() };
    let wanted = members.iter().flat_map(|member| &member.subscription.topics);
    let topics: BTreeMap<Topic, TopicShape> = wanted.map(|topic| (topic.clone(), shape())).collect();
    let mut assigned = assignor.assign(&members, &topics);
    let given =
        |member: Member| (member.subscription.topics, assigned.remove(&member.id).unwrap_or_default());
    members.into_iter().map(given).collect()
}
