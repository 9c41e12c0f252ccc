//! Topics come and go: names, where replicas are placed, assignments by hand.

use std::collections::BTreeMap;
use std::time::Instant;

use uuid::Uuid;

use super::api::Code;
use super::cluster::Cluster;
use super::configs::TopicConfig;
use super::log::Refusal;
use super::topics::{Partition, TopicState};
use crate::{Error, ErrorKind, NodeId, Result, Topic};

/// How many partitions a topic may have.
const MOST_OF_TOPIC: i32 = 10_000;

impl Cluster {
    /// Creates a topic, replicated on up to three brokers.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where it exists, [`ErrorKind::Config`] for a wrong number of partitions.
    pub(crate) fn create_topic(&mut self, topic: &Topic, partitions: i32) -> Result<()> {
        let created = self.create(topic.as_str(), partitions, -1, TopicConfig::default(), true);
        created.map(drop).map_err(|refusal| {
            let kind = match refusal.code {
                Code::TopicAlreadyExists => ErrorKind::Conflict,
                _ => ErrorKind::Config,
            };
            Error::new(kind, refusal.message)
        })
    }

    /// Creates a topic with so many partitions and replicas (-1: the default). Without `really` it is only checked.
    /// Gives where the replicas are.
    ///
    /// # Errors
    /// As CreateTopics is answered.
    pub(crate) fn create(
        &mut self,
        topic: &str,
        partitions: i32,
        replicas: i16,
        config: TopicConfig,
        really: bool,
    ) -> std::result::Result<Vec<Vec<NodeId>>, Refusal> {
        let partitions = if partitions == -1 { self.settings.default_partitions } else { partitions };
        if partitions <= 0 {
            return Err(Refusal::new(
                Code::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.",
            ));
        }
        let up = self.up();
        let assignment = self.place(0, partitions, replicas, &up)?;
        self.create_assigned(topic, assignment.clone(), config, really)?;
        Ok(assignment)
    }

    /// Creates a topic whose replicas are named.
    ///
    /// # Errors
    /// As CreateTopics is answered.
    pub(crate) fn create_assigned(
        &mut self,
        topic: &str,
        assignment: Vec<Vec<NodeId>>,
        config: TopicConfig,
        really: bool,
    ) -> std::result::Result<(), Refusal> {
        let name = check_name(topic)?;
        if self.topics.get(topic).is_some() {
            return Err(Refusal::new(Code::TopicAlreadyExists, format!("Topic '{topic}' already exists.")));
        }
        if !self.topics.has_room(assignment.len()) {
            return Err(Refusal::new(Code::PolicyViolation, "the embedded cluster has too many partitions"));
        }
        if !really {
            return Ok(());
        }
        let up = self.up();
        let id = self.new_id();
        let partitions = assignment.into_iter().map(|replicas| Partition::new(replicas, &up)).collect();
        self.topics.insert(name, TopicState { id, config, partitions });
        Ok(())
    }

    /// Deletes a topic: its records, and the fetches that wait for them. False where there is none.
    pub(crate) fn delete_topic(&mut self, topic: &str, now: Instant) -> bool {
        let Some(state) = self.topics.remove(topic) else { return false };
        self.transactions.forget_topic(topic);
        self.groups.handle_topic_deleted(topic);
        for (number, _) in (0..).zip(&state.partitions) {
            self.wake_fetches(topic, number, None, now);
        }
        true
    }

    /// An id that no topic has.
    fn new_id(&mut self) -> Uuid {
        loop {
            let id = uuid::Builder::from_random_bytes(
                ((u128::from(self.draw()) << 64) | u128::from(self.draw())).to_be_bytes(),
            )
            .into_uuid();
            if self.topics.name_of(id).is_none() {
                return id;
            }
        }
    }

    /// Where the replicas of the partitions from `first` on stand: partition `p` begins at the `p`-th broker that is
    /// up, so that each leads as many as the others. The real broker begins at a random one.
    ///
    /// # Errors
    /// INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR.
    pub(crate) fn place(
        &self,
        first: i32,
        partitions: i32,
        replicas: i16,
        up: &[NodeId],
    ) -> std::result::Result<Vec<Vec<NodeId>>, Refusal> {
        if !(1..=MOST_OF_TOPIC).contains(&partitions) {
            return Err(Refusal::new(
                Code::InvalidPartitions,
                format!("Number of partitions is {partitions}; this cluster takes 1 to {MOST_OF_TOPIC}."),
            ));
        }
        let wanted = match replicas {
            -1 => up.len().clamp(1, 3),
            n => usize::try_from(n).ok().filter(|n| *n > 0).ok_or_else(|| {
                Refusal::new(
                    Code::InvalidReplicationFactor,
                    "Replication factor must be larger than 0, or -1 to use the default value.",
                )
            })?,
        };
        if wanted > up.len() {
            return Err(Refusal::new(
                Code::InvalidReplicationFactor,
                format!(
                    "Unable to replicate the partition {wanted} time(s): The target replication factor of {wanted} cannot be reached because only {} broker(s) are registered.",
                    up.len()
                ),
            ));
        }
        let from = usize::try_from(first).unwrap_or(0);
        let count = usize::try_from(partitions).unwrap_or(0);
        Ok((from..from + count)
            .map(|p| up.iter().copied().cycle().skip(p % up.len()).take(wanted).collect())
            .collect())
    }
}

/// A topic's name, as CreateTopics checks it.
///
/// # Errors
/// INVALID_TOPIC_EXCEPTION in the real broker's words.
pub(crate) fn check_name(topic: &str) -> std::result::Result<Topic, Refusal> {
    Topic::new(topic).map_err(|_| {
        let why = if topic.is_empty() {
            "the empty string is not allowed".to_owned()
        } else if topic == "." || topic == ".." {
            format!("'{topic}' is not allowed")
        } else if topic.len() > 249 {
            format!("the length of '{topic}' is longer than the max allowed length 249")
        } else {
            format!(
                "'{topic}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
            )
        };
        Refusal::new(Code::InvalidTopicException, format!("Topic name is invalid: {why}"))
    })
}

/// Replicas by partition, as a request names them.
///
/// # Errors
/// INVALID_REPLICA_ASSIGNMENT.
pub(crate) fn check_assignment(
    named: impl IntoIterator<Item = (i32, Vec<NodeId>)>,
    nodes: &[NodeId],
) -> std::result::Result<Vec<Vec<NodeId>>, Refusal> {
    let bad = |why: String| Err(Refusal::new(Code::InvalidReplicaAssignment, why));
    let mut by_number = BTreeMap::new();
    let mut size = None;
    for (number, replicas) in named {
        if replicas.is_empty() {
            return bad("The manual partition assignment includes an empty replica list.".to_owned());
        }
        let mut sorted = replicas.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != replicas.len() {
            return bad("The manual partition assignment includes a broker more than once.".to_owned());
        }
        if let Some(unknown) = sorted.iter().find(|node| !nodes.contains(node)) {
            return bad(format!(
                "The manual partition assignment includes broker {unknown}, but no such broker is registered."
            ));
        }
        if *size.get_or_insert(replicas.len()) != replicas.len() {
            return bad(
                "The manual partition assignment includes partitions with different numbers of replicas."
                    .to_owned(),
            );
        }
        if by_number.insert(number, replicas).is_some() {
            return bad(format!("Found multiple manual partition assignments for partition {number}"));
        }
    }
    if !by_number.keys().copied().eq(0..i32::try_from(by_number.len()).unwrap_or(i32::MAX)) {
        return bad("partitions should be a consecutive 0-based integer sequence".to_owned());
    }
    Ok(by_number.into_values().collect())
}
