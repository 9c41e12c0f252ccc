//! Small admin requests: topics, offsets, groups.

use std::collections::BTreeMap;

use super::Client;
use crate::{Error, ErrorKind, Offset, Partition, Result, Timestamp, Topic};

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The first that is still in the log.
    Earliest,
    /// The end: the offset that the next record will get.
    Latest,
    /// The first record at or after this time; the end where there is none.
    Timestamp(Timestamp),
}

impl Client {
    /// Creates a topic. `replication` of `-1` takes the broker's default.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where it exists already.
    pub async fn create_topic(&self, _topic: &Topic, _partitions: i32, _replication: i16) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it is not there.
    pub async fn delete_topic(&self, _topic: &Topic) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// The offsets of all partitions of a topic.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the topic is not there.
    pub async fn offsets(&self, _topic: &Topic, _at: At) -> Result<BTreeMap<Partition, Offset>> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// The committed offsets of a group in a topic; partitions without one are absent.
    ///
    /// # Errors
    /// The coordinator cannot be reached, or refuses.
    pub async fn committed(&self, _group: &str, _topic: &Topic) -> Result<BTreeMap<Partition, Offset>> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// Deletes a group and its committed offsets.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while it has members.
    pub async fn delete_group(&self, _group: &str) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
}
