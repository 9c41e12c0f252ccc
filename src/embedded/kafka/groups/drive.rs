//! What stands between the groups and the cluster: waiting answers, the topics as groups see them, and what a user does
//! to a group from outside.

use std::any::Any;
use std::time::{Duration, Instant};

use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Answer, Catalog, Coordinated};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::topics::Topics;
use crate::embedded::kafka::{Kafka, KafkaBuilder, api};
use crate::embedded::machine::ConnectionId;
use crate::{Error, ErrorKind, NodeId, Result};

impl Catalog for Topics {
    fn version(&self) -> u64 {
        Topics::version(self)
    }

    fn topic(&self, name: &str) -> Option<(Uuid, i32)> {
        let topic = self.get(name)?;
        Some((topic.id, i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)))
    }

    fn each(&self, visit: &mut dyn FnMut(&str)) {
        for (name, _) in self.iter() {
            visit(name.as_str());
        }
    }
}

impl Cluster {
    /// Sends the answers of joins and syncs that need wait no longer.
    pub(in crate::embedded::kafka) fn answer_groups(&mut self) {
        while let Some(answer) = self.groups.poll_answer() {
            match answer {
                Answer::Join(connection, joined) => {
                    let response = api::joined(joined, self.version_asked(connection));
                    self.answer::<JoinGroupRequest>(connection, &response);
                }
                Answer::Sync(connection, synced) => {
                    let response = api::synced(synced, self.version_asked(connection));
                    self.answer::<SyncGroupRequest>(connection, &response);
                }
            }
        }
    }

    fn version_asked(&mut self, connection: ConnectionId) -> i16 {
        self.connection(connection).and_then(|c| c.pending).map_or(0, |pending| pending.version)
    }

    /// A broker came or went: groups may have other coordinators now.
    pub(in crate::embedded::kafka) fn handle_coordinators_changed(&mut self, now: Instant) {
        let up = self.up();
        let coordinators = &self.coordinators;
        let find = |id: &StrBytes| coordinators.find(Coordinated::Group, id, up.iter().copied());
        self.groups.handle_moved(find, now);
        self.answer_groups();
    }

    /// Moves a group's or a transactional id's coordinator to another broker.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a broker that is not there; [`ErrorKind::Full`] where too many were moved.
    pub(in crate::embedded::kafka) fn move_coordinator(
        &mut self,
        kind: Coordinated,
        key: &str,
        node: NodeId,
        now: Instant,
    ) -> Result<()> {
        if !self.nodes.contains_key(&node) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no broker {node}")));
        }
        if !self.coordinators.move_to(kind, StrBytes::from_string(key.to_owned()), node) {
            return Err(Error::new(ErrorKind::Full, "too many coordinators were moved by hand"));
        }
        self.handle_coordinators_changed(now);
        Ok(())
    }

    /// The same, without a broker named: to the next one that is up, by number. Nothing happens where there is none.
    pub(in crate::embedded::kafka) fn move_coordinator_or_next(
        &mut self,
        kind: Coordinated,
        key: &str,
        to: Option<NodeId>,
        now: Instant,
    ) {
        let up = self.up();
        let is = self.coordinator(kind, &StrBytes::from_string(key.to_owned()));
        let after = up.iter().position(|node| Some(*node) == is).map_or(0, |at| at + 1);
        let next = up.iter().cycle().nth(after).copied();
        if let Some(node) = to.or(next)
            && let Err(e) = self.move_coordinator(kind, key, node, now)
        {
            tracing::warn!(error = %e.report(), key, "the coordinator was not moved");
        }
    }

    /// Ends the session of the member that sends this request, where it names one.
    pub(in crate::embedded::kafka) fn expire_session<R: Any>(&mut self, request: &R, now: Instant) {
        let any: &dyn Any = request;
        macro_rules! member {
            ($($kind:ident)*) => {
                $(if let Some(r) = any.downcast_ref::<$kind>() {
                    self.groups.expire_member(&r.group_id, &r.member_id, now);
                })*
            };
        }
        member! {
            ConsumerGroupHeartbeatRequest HeartbeatRequest JoinGroupRequest OffsetCommitRequest SyncGroupRequest
        }
        self.answer_groups();
    }

    /// Ends the session of a group's member at once.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such member.
    pub(crate) fn expire_member(&mut self, group: &str, member: &str, now: Instant) -> Result<()> {
        let text = |s: &str| StrBytes::from_string(s.to_owned());
        let done = self.groups.expire_member(&text(group), &text(member), now);
        self.answer_groups();
        if done {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::NotFound, format!("group {group} has no member {member}")))
        }
    }
}

impl KafkaBuilder {
    /// How long a group that was empty waits for more members before its first rebalance
    /// (`group.initial.rebalance.delay.ms`). Default none, so that tests do not wait; the real broker waits 3 s.
    pub fn initial_rebalance_delay(mut self, delay: Duration) -> Self {
        self.settings.groups.initial_rebalance_delay = delay;
        self
    }

    /// How often members of consumer groups (KIP-848) are told to heartbeat
    /// (`group.consumer.heartbeat.interval.ms`). Default 1 s; the real broker says 5 s.
    pub fn consumer_heartbeat_interval(mut self, interval: Duration) -> Self {
        self.settings.groups.consumer_heartbeat_interval = interval;
        self
    }

    /// How long members of consumer groups may be silent (`group.consumer.session.timeout.ms`). Default 45 s.
    pub fn consumer_session_timeout(mut self, timeout: Duration) -> Self {
        self.settings.groups.consumer_session_timeout = timeout;
        self
    }

    /// Members that one group may have (`group.max.size`). Default 1000.
    pub fn max_group_size(mut self, members: usize) -> Self {
        self.settings.groups.max_members = members;
        self
    }
}

impl Kafka {
    /// The broker that coordinates a group; `None` while no broker is up.
    #[must_use]
    pub fn group_coordinator(&self, group: &str) -> Option<NodeId> {
        let group = StrBytes::from_string(group.to_owned());
        self.driver.with(|cluster, _| cluster.coordinator(Coordinated::Group, &group))
    }

    /// The broker that coordinates a transactional id; `None` while no broker is up.
    #[must_use]
    pub fn transaction_coordinator(&self, transactional_id: &str) -> Option<NodeId> {
        let id = StrBytes::from_string(transactional_id.to_owned());
        self.driver.with(|cluster, _| cluster.coordinator(Coordinated::Transaction, &id))
    }

    /// Makes another broker a group's coordinator. Members that wait are answered NOT_COORDINATOR, sessions begin
    /// anew; members and offsets stay. While that broker is down, another coordinates.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a broker that is not there; [`ErrorKind::Full`] where 10,000 were moved.
    pub fn move_group_coordinator(&self, group: &str, to: NodeId) -> Result<()> {
        self.driver.with(|cluster, now| cluster.move_coordinator(Coordinated::Group, group, to, now))
    }

    /// Makes another broker a transactional id's coordinator.
    ///
    /// # Errors
    /// As [`move_group_coordinator`](Self::move_group_coordinator).
    pub fn move_transaction_coordinator(&self, transactional_id: &str, to: NodeId) -> Result<()> {
        let kind = Coordinated::Transaction;
        self.driver.with(|cluster, now| cluster.move_coordinator(kind, transactional_id, to, now))
    }

    /// Ends the session of a group's member at once, as if it had been silent for too long.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such member.
    pub fn expire_group_member(&self, group: &str, member: &str) -> Result<()> {
        self.driver.with(|cluster, now| cluster.expire_member(group, member, now))
    }

    /// Removes the committed offsets whose retention (7 days) is over, and groups that have neither members nor
    /// offsets. It happens by itself every 10 min.
    pub fn expire_offsets(&self) {
        self.driver.with(|cluster, now| cluster.groups.expire_offsets(now));
    }
}
