//! One cluster: bootstrap, metadata, a connection per broker.

use std::time::Duration;

use super::consumer::ConsumerBuilder;
use super::producer::ProducerBuilder;
use crate::{Error, ErrorKind, LeaderEpoch, NodeId, Partition, Result, Topic};

/// What is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// The topic.
    pub topic: Topic,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionInfo>,
}

/// What is known of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The partition.
    pub partition: Partition,
    /// The broker that leads it; `None` while there is none.
    pub leader: Option<NodeId>,
    /// How often the leader has changed.
    pub leader_epoch: LeaderEpoch,
}

/// The settings of a [`Client`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {}

impl ClientBuilder {
    /// The name that the broker's logs and quotas show. Default `muslin`.
    pub fn client_id(self, _id: impl Into<String>) -> Self {
        self
    }
    /// From nothing to a usable connection. Default 10 s.
    pub fn connect_timeout(self, _timeout: Duration) -> Self {
        self
    }
    /// From a request to its answer. Default 30 s.
    pub fn request_timeout(self, _timeout: Duration) -> Self {
        self
    }
    /// Connects.
    ///
    /// # Errors
    /// No address answers.
    pub async fn connect(self) -> Result<Client> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
}

/// A connected client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {}

impl Client {
    /// Settings for the cluster behind `bootstrap`: `host:port,host:port`.
    pub fn builder(_bootstrap: impl Into<String>) -> ClientBuilder {
        ClientBuilder {}
    }
    /// A producer on this cluster.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder {}
    }
    /// A consumer on this cluster.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder {}
    }
    /// The topic's partitions and leaders, asked now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the topic is not there.
    pub async fn topic(&self, _topic: &Topic) -> Result<TopicInfo> {
        Err(Error::new(ErrorKind::Internal, "not built yet"))
    }
    /// Closes all connections.
    ///
    /// # Errors
    /// None so far.
    pub async fn close(&self) -> Result<()> {
        Ok(())
    }
}
