//! Topics: listed, described, created, given more partitions and other settings, deleted. Groups: listed, described, deleted,
//! their offsets reset or deleted. Records deleted; the cluster; transactions; users that log in by SCRAM; rights.
//!
//! ```no_run
//! # async fn example(client: muslin::kafka::Client) -> muslin::Result<()> {
//! use muslin::{Topic, kafka::NewTopic};
//!
//! let topic = Topic::new("orders")?;
//! let admin = client.admin();
//! admin.create_topic(&NewTopic::new(topic.clone()).partitions(6).config("retention.ms", "86400000")).await?;
//! for p in admin.describe_topic(&topic).await?.partitions {
//!     println!("{} led by {:?}, in sync {:?}", p.partition, p.leader, p.in_sync);
//! }
//! # Ok(()) }
//! ```
//!
//! A change of topics goes to any broker, which passes it on to the controller. A change whose answer was lost is looked for
//! (`aim`): it was made, or it is sent again, or the error says that it is not known ([`Error::is_ambiguous`]). Any other
//! error says that nothing was done. Changes that may be made twice (offsets, records, users, rights) are sent again where an
//! answer was lost.

mod acls;
mod aim;
mod cluster;
mod commits;
mod drive;
mod group;
mod groups;
mod records;
mod repeat;
mod reset;
pub(super) mod spread;
mod topic;
mod transactions;
mod users;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};

use super::client::{Client, TOPIC_CREATE_WAIT, TOPIC_WAIT, text, topic_name};
use crate::{Error, ErrorKind, Result, Topic};
pub use acls::{Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource};
use aim::Aim;
pub use cluster::{BrokerDescription, ClusterDescription};
use drive::{Answered, Refusal, Subject};
pub use group::{GroupDescription, GroupKind, GroupState, ListedGroup, MemberDescription};
pub(super) use groups::names;
pub use reset::{OffsetMove, OffsetPlan, OffsetReset, ResetTo};
pub use topic::{
    ConfigChange, ConfigSource, CreatedTopic, NewTopic, PartitionDescription, TopicConfig, TopicDescription,
};
pub use transactions::{ActiveProducer, ListedTransaction, TransactionDescription, TransactionState};
pub use users::{ScramMechanism, ScramUser};

/// `ConfigResource.Type.TOPIC`.
const TOPIC_RESOURCE: i8 = 2;

impl Client {
    /// Creates a topic, as [`Admin::create_topic`]. `-1` for either number takes the brokers' default.
    ///
    /// # Errors
    /// As [`Admin::create_topic`].
    pub async fn create_topic(&self, topic: &Topic, partitions: i32, replication: i16) -> Result<()> {
        let new = NewTopic::new(topic.clone()).partitions(partitions).replication(replication);
        self.admin().create_topic(&new).await.map(drop)
    }

    /// Deletes a topic with all its records, as [`Admin::delete_topic`].
    ///
    /// # Errors
    /// As [`Admin::delete_topic`].
    pub async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        self.admin().delete_topic(topic).await
    }

    /// What administers the cluster.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { client: self.clone() }
    }
}

/// Administers a cluster. Cheap to clone; it holds the client and nothing else.
///
/// Every call takes at most the client's request timeout for its attempts and once more for the last of them; a look at
/// the topic before and after costs one connect timeout for each broker that does not answer. Each call is cancel safe:
/// dropped, it leaves nothing behind, but the change that it asked for may be made.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    /// All topics that the user may see, by name; Kafka's own among them.
    ///
    /// Memory: all partitions of the cluster at once, about 150 bytes each.
    ///
    /// # Errors
    /// Errors of the connection.
    pub async fn topics(&self) -> Result<Vec<TopicDescription>> {
        let mut topics = self.every_topic().await?;
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(topics)
    }

    /// A topic's partitions: who leads, who holds, who is in sync. Never creates the topic.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the topic is not there within 2 s (a topic made a moment ago may need some of that);
    /// [`ErrorKind::Denied`] without the right to describe it; errors of the connection.
    pub async fn describe_topic(&self, topic: &Topic) -> Result<TopicDescription> {
        self.described(topic, TOPIC_WAIT).await
    }

    /// A topic's settings, by name: its own, and the brokers' that hold for it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the topic is not there; [`ErrorKind::Denied`] without the right DescribeConfigs on it;
    /// errors of the connection.
    pub async fn topic_configs(&self, topic: &Topic) -> Result<Vec<TopicConfig>> {
        let what = format!("describe the settings of topic {topic}");
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(topic.as_str()))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let mut configs = self
            .read(&what, request, |answer| {
                let Some(result) = answer.results.first() else { return Err(drive::empty()) };
                let message = result.error_message.as_deref();
                Refusal::check(result.error_code, message, &what, "DescribeConfigs on the topic")?;
                let config = |c: &kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult| {
                    TopicConfig {
                        name: c.name.as_str().to_owned(),
                        value: c.value.as_ref().map(|v| v.as_str().to_owned()),
                        source: ConfigSource::from_code(c.config_source),
                        read_only: c.read_only,
                        sensitive: c.is_sensitive,
                    }
                };
                Ok(result.configs.iter().map(config).collect::<Vec<_>>())
            })
            .await?;
        configs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(configs)
    }

    /// Creates a topic and waits until its partitions have leaders.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`] where it exists already, or is there otherwise after a lost answer.
    /// - [`ErrorKind::Config`] where the brokers cannot do these numbers or do not take a setting; the cause names it.
    /// - [`ErrorKind::Rejected`] by a policy of the brokers (`create.topic.policy.class.name`).
    /// - [`ErrorKind::Denied`] without the right to create it.
    /// - [`ErrorKind::Unavailable`] where it was created and its leaders take longer than 5 s; the message says so.
    /// - Errors of the connection: [`Error::is_ambiguous`] tells whether the topic may have been created.
    pub async fn create_topic(&self, new: &NewTopic) -> Result<CreatedTopic> {
        new.check()?;
        let made = match self.create(new, false).await? {
            Answered::Told(made) => made,
            Answered::Lost => CreatedTopic {
                topic: new.topic.clone(),
                partitions: (new.partitions > 0).then_some(new.partitions),
                replication: (new.replication > 0).then_some(new.replication),
                answer_lost: true,
            },
        };
        let there = self.client.inner.topic(&new.topic, false, TOPIC_CREATE_WAIT).await;
        let there = there.map_err(|e| e.context(format!("{}: done; waiting for its leaders", new.what())))?;
        let partitions = made.partitions.or_else(|| i32::try_from(there.len()).ok());
        Ok(CreatedTopic { partitions, ..made })
    }

    /// Checks whether a topic could be created, and creates nothing.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic) would meet.
    pub async fn validate_topic(&self, new: &NewTopic) -> Result<CreatedTopic> {
        new.check()?;
        match self.create(new, true).await? {
            Answered::Told(made) => Ok(made),
            Answered::Lost => Err(drive::empty()),
        }
    }

    async fn create(&self, new: &NewTopic, validate: bool) -> Result<Answered<CreatedTopic>> {
        let what = if validate { format!("check whether to {}", new.what()) } else { new.what() };
        let request = CreateTopicsRequest::default()
            .with_timeout_ms(self.timeout_ms())
            .with_validate_only(validate)
            .with_topics(vec![new.request()]);
        let aim = Aim::Create(new);
        let judge = |answer: &kafka_protocol::messages::CreateTopicsResponse| {
            let Some(t) = answer.topics.first() else { return Err(drive::empty().ambiguous()) };
            Refusal::check(t.error_code, t.error_message.as_deref(), &what, aim.right())?;
            Ok(CreatedTopic {
                topic: new.topic.clone(),
                partitions: (t.num_partitions > 0).then_some(t.num_partitions),
                replication: (t.replication_factor > 0).then_some(t.replication_factor),
                answer_lost: false,
            })
        };
        if validate {
            return self.read(&what, request, judge).await.map(Answered::Told);
        }
        let subject = Subject { what: &what, topic: &new.topic, aim };
        self.change(&subject, request, |a| a.throttle_time_ms, judge).await
    }

    /// Gives a topic more partitions, `total` in all, and waits until all have leaders. Records of one key go to another
    /// partition from then on: their order across the change is lost.
    ///
    /// Producers of this client see them at once, others after their
    /// [`metadata_max_age`](super::ClientBuilder::metadata_max_age).
    ///
    /// # Errors
    /// - [`ErrorKind::Config`] where the topic has as many already or more.
    /// - [`ErrorKind::NotFound`] where it is not there; [`ErrorKind::Denied`]; [`ErrorKind::Rejected`] by a policy.
    /// - [`ErrorKind::Unavailable`] where they were added and their leaders take longer than 5 s; the message says so.
    /// - Errors of the connection: [`Error::is_ambiguous`] tells whether they may have been added.
    pub async fn add_partitions(&self, topic: &Topic, total: i32) -> Result<()> {
        let what = format!("give topic {topic} {total} partitions");
        if total < 1 {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{what}: expected a number above those it has"),
            ));
        }
        let aim = Aim::Grow(total);
        let request =
            CreatePartitionsRequest::default().with_timeout_ms(self.timeout_ms()).with_topics(vec![
                CreatePartitionsTopic::default()
                    .with_name(topic_name(topic))
                    .with_count(total)
                    .with_assignments(None),
            ]);
        let subject = Subject { what: &what, topic, aim };
        self.change(
            &subject,
            request,
            |a| a.throttle_time_ms,
            |answer| {
                let Some(t) = answer.results.first() else { return Err(drive::empty().ambiguous()) };
                Refusal::check(t.error_code, t.error_message.as_deref(), &what, aim.right())
            },
        )
        .await?;
        self.grown(topic, total)
            .await
            .map_err(|e| e.context(format!("{what}: done; waiting for their leaders")))
    }

    /// Changes settings of a topic, all of them or none (KIP-339, Kafka 2.3 and later).
    ///
    /// # Errors
    /// - [`ErrorKind::Config`] where a setting is not known or does not take its value; the cause names it.
    /// - [`ErrorKind::NotFound`] where the topic is not there; [`ErrorKind::Denied`]; [`ErrorKind::Rejected`] by a policy;
    ///   [`ErrorKind::Unsupported`] by an older broker.
    /// - Errors of the connection: [`Error::is_ambiguous`] tells whether they may have been changed.
    pub async fn alter_topic(&self, topic: &Topic, changes: &[ConfigChange]) -> Result<()> {
        const SET: i8 = 0;
        const DELETE: i8 = 1;
        let names: Vec<&str> = changes.iter().map(ConfigChange::name).collect();
        let what = format!("change {} of topic {topic}", names.join(", "));
        if changes.is_empty() {
            return Ok(());
        }
        let configs = changes.iter().map(|change| {
            let config = AlterableConfig::default().with_name(text(change.name()));
            match change {
                ConfigChange::Set { value, .. } => {
                    config.with_config_operation(SET).with_value(Some(text(value)))
                }
                ConfigChange::Reset { .. } => config.with_config_operation(DELETE).with_value(None),
            }
        });
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(TOPIC_RESOURCE)
                .with_resource_name(text(topic.as_str()))
                .with_configs(configs.collect()),
        ]);
        let aim = Aim::Alter;
        let subject = Subject { what: &what, topic, aim };
        self.change(
            &subject,
            request,
            |a| a.throttle_time_ms,
            |answer| {
                let Some(t) = answer.responses.first() else { return Err(drive::empty().ambiguous()) };
                Refusal::check(t.error_code, t.error_message.as_deref(), &what, aim.right())
            },
        )
        .await
        .map(drop)
    }

    /// Deletes a topic with all its records. The brokers finish it a moment later.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it is not there; [`ErrorKind::Denied`] without the right, or where the brokers have
    /// `delete.topic.enable=false`; errors of the connection: [`Error::is_ambiguous`] tells whether it may have been
    /// deleted.
    pub async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        let what = format!("delete topic {topic}");
        let request = DeleteTopicsRequest::default()
            .with_timeout_ms(self.timeout_ms())
            .with_topic_names(vec![topic_name(topic)]);
        let aim = Aim::Delete;
        let subject = Subject { what: &what, topic, aim };
        self.change(
            &subject,
            request,
            |a| a.throttle_time_ms,
            |answer| {
                let Some(t) = answer.responses.first() else { return Err(drive::empty().ambiguous()) };
                Refusal::check(t.error_code, t.error_message.as_deref(), &what, aim.right())
            },
        )
        .await
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_borrow_a_topic_can_be_spawned() {
        fn spawnable<F: Future<Output = Result<()>> + Send + 'static>(_: impl Fn(Client, Topic) -> F) {}
        // That this compiles is the test.
        spawnable(|client, topic| async move { client.create_topic(&topic, 1, 1).await });
        spawnable(|client, topic| async move { client.delete_topic(&topic).await });
        spawnable(|client, topic| async move { client.committed("g", &topic).await.map(drop) });
        spawnable(|client, topic| async move { client.delete_group(topic.as_str()).await });
        spawnable(|client, topic| async move { client.admin().add_partitions(&topic, 2).await });
        spawnable(|client, topic| async move { client.admin().describe_topic(&topic).await.map(drop) });
        spawnable(|client, topic| async move { client.admin().topic_configs(&topic).await.map(drop) });
        spawnable(|client, topic| async move {
            client.admin().alter_topic(&topic, &[ConfigChange::reset("retention.ms")]).await
        });
        spawnable(|client, topic| async move {
            client.admin().validate_topic(&NewTopic::new(topic)).await.map(drop)
        });
    }
}
