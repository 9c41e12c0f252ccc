//! Fetch sessions (KIP-227): a client names its partitions once, then only what changed.
//!
//! ```text
//!  id 0, epoch -1  no session                               id s, epoch -1  session s ends, a full answer without one
//!  id 0, epoch 0   a new session: full answer, its id       id s, epoch 0   session s ends, a new one begins
//!  id s, epoch n   the n-th request of session s: what changed is told both ways
//! ```
//!
//! A broker keeps up to 1,000 sessions (`max.incremental.fetch.session.cache.slots`) and 100,000 partitions in them.
//! One more evicts the one that was not used for two minutes or longer, or one that is as old and smaller; else the
//! client gets a full answer without a session. Sessions belong to a broker and end with it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::FetchTopic;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Code, Target};
use crate::NodeId;
use crate::embedded::kafka::topics::Topics;

/// Sessions of one broker.
const MOST_SESSIONS: usize = 1_000;
/// Partitions in the sessions of one broker.
const MOST_PARTITIONS: usize = 100_000;
/// How long a session must be idle before another takes its place.
const IDLE: Duration = Duration::from_secs(120);

/// A partition within a session, by what the client calls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    topic: StrBytes,
    id: Uuid,
    partition: i32,
}

/// What the client was told of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    pub(super) high_watermark: i64,
    pub(super) log_start: i64,
}

#[derive(Debug, Clone)]
struct Held {
    target: Target,
    /// `None`: it must be told in the next answer.
    told: Option<Told>,
    /// Order of the partitions; one that got records goes behind the others.
    turn: u64,
}

#[derive(Debug)]
struct Session {
    /// The epoch of the next request.
    epoch: i32,
    partitions: HashMap<Key, Held>,
    order: BTreeMap<u64, Key>,
    next_turn: u64,
    used: Instant,
    /// It names topics by their ids (from version 13).
    by_id: bool,
}

/// How a fetch stands to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// All is told; the answer carries this session's id, or 0.
    Full(i32),
    /// What changed is told.
    Incremental(i32),
}

impl Mode {
    pub(super) fn id(self) -> i32 {
        match self {
            Self::Full(id) | Self::Incremental(id) => id,
        }
    }
}

/// The sessions of one broker.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_id: BTreeMap<i32, Session>,
    partitions: usize,
}

impl Sessions {
    /// What a request fetches, and how it is to be answered. A new session's id is drawn
    /// from `random`.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR.
    pub(super) fn open(
        &mut self,
        request: &FetchRequest,
        version: i16,
        topics: &Topics,
        random: u64,
        now: Instant,
    ) -> Result<(Mode, Vec<Target>), Code> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if version < 7 || epoch == -1 || epoch == 0 {
            if version >= 7 && id != 0 {
                self.close(id);
            }
            let targets = targets(&request.topics, version, topics);
            if version < 7 || epoch == -1 || targets.is_empty() || !self.make_room(targets.len(), now) {
                return Ok((Mode::Full(0), targets));
            }
            let mut id = i32::try_from(random >> 33).unwrap_or(1).max(1);
            while self.by_id.contains_key(&id) {
                id = id.checked_add(1).unwrap_or(1);
            }
            let mut session = Session {
                epoch: 1,
                partitions: HashMap::new(),
                order: BTreeMap::new(),
                next_turn: 0,
                used: now,
                by_id: version >= 13,
            };
            for target in &targets {
                session.put(target.clone());
            }
            self.partitions += session.partitions.len();
            self.by_id.insert(id, session);
            return Ok((Mode::Full(id), targets));
        }
        let added = targets(&request.topics, version, topics);
        if self.partitions.saturating_add(added.len()) > MOST_PARTITIONS && self.by_id.contains_key(&id) {
            // It may be that they are there already; the client begins anew, without a session if it must.
            self.close(id);
        }
        let session = self.by_id.get_mut(&id).ok_or(Code::FetchSessionIdNotFound)?;
        if session.epoch != epoch {
            return Err(Code::InvalidFetchSessionEpoch);
        }
        if session.by_id != (version >= 13) {
            return Err(Code::FetchSessionTopicIdError);
        }
        session.epoch = epoch.checked_add(1).unwrap_or(1);
        session.used = now;
        let before = session.partitions.len();
        for forgotten in &request.forgotten_topics_data {
            for partition in &forgotten.partitions {
                let key =
                    Key { topic: forgotten.topic.0.clone(), id: forgotten.topic_id, partition: *partition };
                session.remove(&key);
            }
        }
        for target in added {
            session.put(target);
        }
        // A topic may have come since, or another of its name.
        let found = session.order.values().filter_map(|key| session.partitions.get(key)).map(|held| {
            let mut target = held.target.clone();
            target.topic = if version >= 13 {
                topics.name_of(target.id).cloned()
            } else {
                topics.entry(&target.asked).map(|(name, _)| name.clone())
            };
            target
        });
        let found = found.collect::<Vec<_>>();
        self.partitions = (self.partitions + session.partitions.len()).saturating_sub(before);
        if found.is_empty() {
            // Nothing is left to fetch: the session ends, and the client is told so by the id 0.
            self.close(id);
            return Ok((Mode::Full(0), found));
        }
        Ok((Mode::Incremental(id), found))
    }

    /// Is this partition to be told of in an incremental answer? `told` is what it would say, `must`: there are
    /// records or an error.
    pub(super) fn is_news(&self, mode: Mode, target: &Target, told: Told, must: bool) -> bool {
        match mode {
            Mode::Full(_) => true,
            Mode::Incremental(id) => {
                let held = self.by_id.get(&id).and_then(|session| session.partitions.get(&key(target)));
                must || held.is_none_or(|held| held.told != Some(told))
            }
        }
    }

    /// What the answer told. A partition that got records goes behind the others; one with an error is told again.
    pub(super) fn told(&mut self, mode: Mode, target: &Target, told: Option<Told>, records: bool) {
        let Some(session) = self.by_id.get_mut(&mode.id()) else { return };
        let key = key(target);
        let Some(held) = session.partitions.get_mut(&key) else { return };
        held.told = told;
        if records {
            session.order.remove(&held.turn);
            held.turn = session.next_turn;
            session.order.insert(held.turn, key);
            session.next_turn += 1;
        }
    }

    /// Ends a session, if it is there.
    pub(in crate::embedded::kafka) fn close(&mut self, id: i32) {
        if let Some(session) = self.by_id.remove(&id) {
            self.partitions = self.partitions.saturating_sub(session.partitions.len());
        }
    }

    fn make_room(&mut self, partitions: usize, now: Instant) -> bool {
        if partitions > MOST_PARTITIONS {
            return false;
        }
        while self.by_id.len() >= MOST_SESSIONS
            || self.partitions.saturating_add(partitions) > MOST_PARTITIONS
        {
            let oldest = self.by_id.iter().min_by_key(|(id, session)| (session.used, **id));
            match oldest {
                Some((id, session)) if now.saturating_duration_since(session.used) >= IDLE => {
                    let id = *id;
                    self.close(id);
                }
                _ => return false,
            }
        }
        true
    }

    /// Sessions and the partitions in them.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.by_id.len(), self.partitions)
    }
}

impl Session {
    fn put(&mut self, target: Target) {
        let key = key(&target);
        if let Some(held) = self.partitions.get_mut(&key) {
            held.target = target;
            return;
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        self.order.insert(turn, key.clone());
        self.partitions.insert(key, Held { target, told: None, turn });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(held) = self.partitions.remove(key) {
            self.order.remove(&held.turn);
        }
    }
}

fn key(target: &Target) -> Key {
    Key { topic: target.asked.clone(), id: target.id, partition: target.partition }
}

/// All sessions, by broker.
pub(crate) type AllSessions = BTreeMap<NodeId, Sessions>;

/// The partitions of a request, in its order.
fn targets(asked: &[FetchTopic], version: i16, topics: &Topics) -> Vec<Target> {
    let mut targets = Vec::new();
    for topic in asked {
        let name = if version >= 13 {
            topics.name_of(topic.topic_id).cloned()
        } else {
            topics.entry(&topic.topic).map(|(name, _)| name.clone())
        };
        // The name outlives the request: it is not to keep all of it alive.
        let asked = StrBytes::from_string(topic.topic.0.to_string());
        for partition in &topic.partitions {
            targets.push(Target {
                topic: name.clone(),
                asked: asked.clone(),
                id: topic.topic_id,
                partition: partition.partition,
                offset: partition.fetch_offset,
                max_bytes: u64::try_from(partition.partition_max_bytes).unwrap_or(0),
                epoch: partition.current_leader_epoch,
                last_epoch: partition.last_fetched_epoch,
            });
        }
    }
    targets
}
