//! The settings of a consumer, and how it starts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use regex::Regex;
use tokio::sync::Notify;

use super::book::{Book, Settings};
use super::driver::Shared;
use super::group::driver::Member;
use super::group::{self, Assignor, GroupProtocol};
use super::health::Trouble;
use super::notice::Notices;
use super::{Consumer, Isolation, Reset, StartAt, no_stored_offset, spawn, spawn_member};
use crate::kafka::client::{Client, LONGEST, TOPIC_WAIT};
use crate::kafka::group::Wanted;
use crate::kafka::offsets::{At, Place};
use crate::{Error, ErrorKind, Offset, Partition, Result, Topic};

/// The settings of a [`Consumer`]: a member of a group ([`Client::consumer`]), or one whose partitions are assigned by
/// hand ([`Client::simple_consumer`]).
#[derive(Debug, Clone)]
#[must_use]
pub struct ConsumerBuilder<A = Group> {
    client: Client,
    reset: Reset,
    isolation: Isolation,
    commit_interval: Duration,
    max_in_hand: usize,
    prefetch_bytes: usize,
    max_batch_bytes: usize,
    rack: Option<String>,
    aim: A,
}

/// What a member of a group is to read: see [`ConsumerBuilder`].
#[derive(Debug, Clone)]
pub struct Group {
    name: String,
    topics: Vec<String>,
    pattern: Option<String>,
    protocol: GroupProtocol,
    assignors: Vec<Assignor>,
    server_assignor: Option<String>,
    instance: Option<String>,
    session_timeout: Duration,
    heartbeat_interval: Duration,
    rebalance_timeout: Duration,
    settle_timeout: Duration,
}

/// What is read where partitions are assigned by hand: see [`ConsumerBuilder`].
#[derive(Debug, Clone, Default)]
pub struct ByHand {
    group: Option<String>,
    topics: Vec<String>,
    partitions: Vec<(String, Partition)>,
    start: Option<StartAt>,
}

impl<A> ConsumerBuilder<A> {
    fn with(client: Client, aim: A) -> Self {
        Self {
            client,
            reset: Reset::default(),
            isolation: Isolation::default(),
            commit_interval: Duration::from_secs(5),
            max_in_hand: 1000,
            prefetch_bytes: 32 << 20,
            max_batch_bytes: 128 << 20,
            rack: None,
            aim,
        }
    }

    /// What to do without a valid offset. Default [`Reset::Earliest`].
    pub fn reset(mut self, reset: Reset) -> Self {
        self.reset = reset;
        self
    }

    /// Which records of transactions are seen. Default [`Isolation::ReadCommitted`].
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How often settled offsets are committed. Default 5 s, at least 1 ms. After a crash, at most what was settled
    /// in this time comes again.
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = interval;
        self
    }

    /// How many deliveries may be unsettled at once, those that wait to come again included. Default 1,000; not 0. Memory:
    /// each keeps the batch alive from which it was read. Of a partition, 262,144 may be settled beyond the oldest one that
    /// is not, at 32 bytes each at most.
    pub fn max_in_hand(mut self, n: usize) -> Self {
        self.max_in_hand = n;
        self
    }

    /// How much may be fetched ahead, in bytes as they are on the wire. Default 32 MiB. Memory: this, and one batch
    /// for each broker more where a batch is larger than its share.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// The largest batch after decompression, in bytes. Default 128 MiB. A larger one stops its partition with
    /// [`ErrorKind::TooLarge`]. Memory: one decompressed batch for each partition that is being read.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.max_batch_bytes = bytes;
        self
    }

    /// The rack (or zone) this consumer runs in, as the brokers' `broker.rack` names it. Default: none. A broker may then
    /// name a nearer replica to read from (KIP-392, `replica.selector.class`), and assignors may place partitions near it
    /// (KIP-881).
    pub fn rack(mut self, rack: impl Into<String>) -> Self {
        self.rack = Some(rack.into());
        self
    }

    fn check(&self) -> Result<()> {
        if self.max_in_hand == 0 {
            return config("max_in_hand is 0; it must be at least 1");
        }
        if self.prefetch_bytes == 0 {
            return config("prefetch_bytes is 0; give at least some kilobytes");
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            isolation: self.isolation,
            max_in_hand: self.max_in_hand,
            prefetch_bytes: self.prefetch_bytes,
            max_batch_bytes: self.max_batch_bytes,
        }
    }

    fn share(self, book: Book, group: Option<String>, member: Option<Member>) -> Arc<Shared> {
        Arc::new(Shared {
            client: self.client,
            book: Mutex::new(book),
            reader: AtomicWaker::new(),
            work: Notify::new(),
            stop: false.into(),
            group,
            member,
            notices: Notices::new(),
            trouble: Trouble::default(),
            reset: self.reset,
            isolation: self.isolation,
            max_batch_bytes: self.max_batch_bytes,
            rack: self.rack,
            commit_interval: self.commit_interval.clamp(Duration::from_millis(1), LONGEST),
            committing: tokio::sync::Mutex::new(()),
        })
    }
}

fn config<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::Config, text.into()))
}

impl ConsumerBuilder<Group> {
    pub(crate) fn member(client: Client, group: String) -> Self {
        let aim = Group {
            name: group,
            topics: Vec::new(),
            pattern: None,
            protocol: GroupProtocol::Auto,
            assignors: vec![Assignor::CooperativeSticky],
            server_assignor: None,
            instance: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(60),
            settle_timeout: Duration::from_secs(30),
        };
        Self::with(client, aim)
    }

    /// The topics to read. They need not exist yet: their partitions are read once they do. Added to what was named
    /// before.
    pub fn topics<T: AsRef<str>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.aim.topics.extend(topics.into_iter().map(|t| t.as_ref().to_owned()));
        self
    }

    /// Every topic whose whole name matches this pattern, also those that come later; internal topics never.
    ///
    /// With the newer protocol the coordinator resolves it (RE2, from Kafka 4.1 on); with the classic one this client does,
    /// and looks for new topics each [`metadata_max_age`](crate::kafka::ClientBuilder::metadata_max_age). Keep to what both
    /// know: no look-around, no back references.
    pub fn pattern(mut self, pattern: impl Into<String>) -> Self {
        self.aim.pattern = Some(pattern.into());
        self
    }

    /// Which protocol to speak. Default [`GroupProtocol::Auto`].
    pub fn protocol(mut self, protocol: GroupProtocol) -> Self {
        self.aim.protocol = protocol;
        self
    }

    /// Classic protocol: the assignors that this member can lead a group with, the preferred one first; the group uses
    /// one that all its members know. Default [`Assignor::CooperativeSticky`] alone.
    ///
    /// Where all of them are cooperative, partitions that stay with their owner are read on during a rebalance; otherwise
    /// all are let go first, as the Java client does.
    pub fn assignors(mut self, assignors: impl IntoIterator<Item = Assignor>) -> Self {
        self.aim.assignors = assignors.into_iter().collect();
        self
    }

    /// Newer protocol: the assignor that the coordinator is asked for (`uniform` or `range` in Kafka 4). Default: the
    /// coordinator's own choice.
    pub fn server_assignor(mut self, name: impl Into<String>) -> Self {
        self.aim.server_assignor = Some(name.into());
        self
    }

    /// Makes it a static member (KIP-345): one that is restarted within its session timeout gets its partitions back without
    /// a rebalance. The id must be this consumer's alone. Default: none.
    ///
    /// It does not leave the group when it is closed; its partitions go to others once its session timeout is over.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.aim.instance = Some(id.into());
        self
    }

    /// How long the coordinator waits for a heartbeat before it gives this member up and its partitions to others. Default
    /// 45 s. Heartbeats go on by themselves: how long a handler takes does not matter.
    ///
    /// A member that was stopped for longer (a frozen process, a machine asleep) hands out nothing until the coordinator has
    /// told whether its partitions are still its own. The newer protocol takes the broker's own setting
    /// (`consumer.session.timeout.ms` of the group, 45 s by default) in place of this one: if that was changed, say the same
    /// here.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.aim.session_timeout = timeout;
        self
    }

    /// Classic protocol: how often a heartbeat is sent; at most a third of the session timeout. Default 3 s. The newer
    /// protocol's coordinator says it itself.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.aim.heartbeat_interval = interval;
        self
    }

    /// How long the group waits, in a rebalance, for this member to let go of partitions and join again. Default 60 s. It must
    /// be above the settle timeout.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> Self {
        self.aim.rebalance_timeout = timeout;
        self
    }

    /// How long deliveries in hand may take to be settled when their partition is to go to another member. Default 30 s.
    /// What is settled by then is committed, the rest comes again to the next owner. The others wait for it.
    pub fn settle_timeout(mut self, timeout: Duration) -> Self {
        self.aim.settle_timeout = timeout;
        self
    }

    /// Starts to join the group, in tasks of the current runtime. It returns at once: partitions come when the group has
    /// assigned them, and [`Consumer::next`] waits for that. Never creates a topic.
    ///
    /// # Errors
    /// [`ErrorKind::Config`]: nothing to read was named, a topic's name breaks the rules, a pattern does not compile, settings
    /// that contradict each other; the message names them. What the brokers refuse comes from [`Consumer::next`].
    #[allow(clippy::unused_async, reason = "as with the other builders; it may ask a broker one day")]
    pub async fn build(self) -> Result<Consumer> {
        self.check()?;
        let (topics, pattern) = self.aim.check()?;
        let aim = self.aim.clone();
        let member = Member {
            settings: group::Settings {
                group: aim.name.clone(),
                instance: aim.instance,
                rack: self.rack.clone(),
                session_timeout: aim.session_timeout,
                heartbeat_interval: aim.heartbeat_interval,
                rebalance_timeout: aim.rebalance_timeout,
                assignors: aim.assignors,
                server_assignor: aim.server_assignor,
                pattern: aim.pattern,
            },
            protocol: aim.protocol,
            topics,
            pattern,
            settle_timeout: aim.settle_timeout,
            machine: Mutex::default(),
            work: Notify::new(),
            leaving: false.into(),
            standing: Mutex::new((group::Standing::Out, super::now())),
        };
        let book = Book::open(self.settings());
        let shared = self.share(book, Some(aim.name), Some(member));
        let rebalances = Some(shared.notices.listen());
        let driver = spawn(Arc::clone(&shared));
        let member = Some(spawn_member(Arc::clone(&shared)));
        Ok(Consumer::new(shared, driver, member, rebalances))
    }
}

impl Group {
    fn check(&self) -> Result<(Vec<Topic>, Option<Regex>)> {
        if self.name.is_empty() {
            return config("the group's name is empty; give it one");
        }
        if self.topics.is_empty() && self.pattern.is_none() {
            return config("the consumer has nothing to read; name topics or a pattern");
        }
        let topics = self.topics.iter().map(Topic::new).collect::<Result<Vec<_>>>()?;
        let pattern = match &self.pattern {
            Some(pattern) => match Regex::new(&format!("^(?:{pattern})$")) {
                Ok(compiled) => Some(compiled),
                Err(e) => return config(format!("the topic pattern {pattern:?} does not compile: {e}")),
            },
            None => None,
        };
        if self.assignors.is_empty() {
            return config("no assignor is named; name at least one");
        }
        let (session, beat) = (self.session_timeout, self.heartbeat_interval);
        if beat.is_zero() || beat.saturating_mul(2) > session {
            return config(format!(
                "heartbeat_interval {beat:?} and session_timeout {session:?}: the interval must be above zero and at most \
                 half of the timeout (a third is usual)"
            ));
        }
        let (settle, rebalance) = (self.settle_timeout, self.rebalance_timeout);
        if settle >= rebalance {
            return config(format!(
                "settle_timeout {settle:?} and rebalance_timeout {rebalance:?}: the second must be above the first, or the \
                 group goes on without this member while it settles"
            ));
        }
        let longest = Duration::from_millis(i32::MAX as u64);
        for (name, time) in [("session_timeout", session), ("rebalance_timeout", rebalance)] {
            if time > longest {
                return config(format!("{name} is {time:?}; at most {longest:?} are possible"));
            }
        }
        for (name, value) in [("instance_id", &self.instance), ("server_assignor", &self.server_assignor)] {
            if value.as_deref() == Some("") {
                return config(format!("{name} is empty; give it a name, or leave it out"));
            }
        }
        Ok((topics, pattern))
    }
}

impl ConsumerBuilder<ByHand> {
    pub(crate) fn by_hand(client: Client) -> Self {
        Self::with(client, ByHand::default())
    }

    /// The group whose committed offsets are used. The consumer is not its member: two consumers of one group read the
    /// same partitions unless you give them different ones. Without a group nothing is committed.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.aim.group = Some(group.into());
        self
    }

    /// All partitions that these topics have at the start. Added to what was named before.
    pub fn topics<T: AsRef<str>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.aim.topics.extend(topics.into_iter().map(|t| t.as_ref().to_owned()));
        self
    }

    /// One partition. Added to what was named before.
    pub fn partition(mut self, topic: impl AsRef<str>, partition: impl Into<Partition>) -> Self {
        self.aim.partitions.push((topic.as_ref().to_owned(), partition.into()));
        self
    }

    /// Where to start. Default [`StartAt::Stored`] with a group, otherwise as the [`Reset`] policy says.
    pub fn start(mut self, start: StartAt) -> Self {
        self.aim.start = Some(start);
        self
    }

    /// Resolves partitions and positions, then starts to fetch in a task of the current runtime. Never creates a topic.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`]: nothing to read was named, a topic's name breaks the rules, `Stored` without a group.
    /// - [`ErrorKind::NotFound`]: a topic (within 2 s) or partition is not there; no offset is stored and the policy is
    ///   [`Reset::Error`].
    /// - [`ErrorKind::Denied`], and errors of the connection.
    pub async fn build(self) -> Result<Consumer> {
        if self.aim.topics.is_empty() && self.aim.partitions.is_empty() {
            return config("the consumer has nothing to read; name topics or partitions");
        }
        self.check()?;
        if self.aim.group.as_deref() == Some("") {
            return config("the group's name is empty; give it one, or leave the group out");
        }
        let start = match (self.aim.start, &self.aim.group) {
            (Some(StartAt::Stored), None) => {
                return config("StartAt::Stored needs a group; name one, or start elsewhere");
            }
            (Some(start), _) => Some(start),
            (None, Some(_)) => Some(StartAt::Stored),
            (None, None) => None,
        };
        let places = self.places().await?;
        let starts = self.starts(start, &places).await?;
        let mut book = Book::new(self.settings());
        for (place, offset, metadata) in starts {
            book.assign(place, offset, metadata.as_deref());
        }
        let group = self.aim.group.clone();
        let shared = self.share(book, group, None);
        let driver = spawn(Arc::clone(&shared));
        Ok(Consumer::new(shared, driver, None, None))
    }

    async fn places(&self) -> Result<Vec<Place>> {
        let mut places: Vec<Place> = Vec::new();
        for name in &self.aim.topics {
            let topic = Topic::new(name)?;
            let count = self.client.inner.topic(&topic, false, TOPIC_WAIT).await?.len();
            places.extend((0i32..).take(count).map(|n| (topic.clone(), Partition(n))));
        }
        for (name, partition) in &self.aim.partitions {
            let topic = Topic::new(name)?;
            let count = self.client.inner.topic(&topic, false, TOPIC_WAIT).await?.len();
            if !usize::try_from(partition.0).is_ok_and(|n| n < count) {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("topic {topic} has no partition {partition}; it has {count} partitions, from 0"),
                ));
            }
            places.push((topic, *partition));
        }
        places.sort();
        places.dedup();
        Ok(places)
    }

    /// Each partition with its first offset and the metadata that was committed beside it.
    async fn starts(
        &self,
        start: Option<StartAt>,
        places: &[Place],
    ) -> Result<Vec<(Place, Offset, Option<String>)>> {
        let inner = &self.client.inner;
        let reset = self.reset.at(inner.nature.wall()).unwrap_or(At::Earliest);
        let at = match start {
            Some(StartAt::Offset(offset)) => {
                if offset.0 < 0 {
                    return Err(Error::new(
                        ErrorKind::Config,
                        format!("start offset {offset} is negative; the first is 0"),
                    ));
                }
                return Ok(places.iter().map(|place| (place.clone(), offset, None)).collect());
            }
            Some(StartAt::Earliest) => At::Earliest,
            Some(StartAt::Latest) => At::Latest,
            Some(StartAt::Timestamp(t)) => At::Timestamp(t),
            Some(StartAt::Stored) | None => reset,
        };
        let mut out = Vec::with_capacity(places.len());
        let mut missing = places.to_vec();
        if let (Some(StartAt::Stored), Some(group)) = (start, &self.aim.group) {
            let mut stored = inner.fetch_committed(group, Wanted::Places(places)).await?;
            missing.retain(|place| match stored.remove(place) {
                Some(committed) => {
                    out.push((place.clone(), committed.offset, Some(committed.metadata)));
                    false
                }
                None => true,
            });
            if let (Reset::Error, Some((topic, partition))) = (self.reset, missing.first()) {
                return Err(no_stored_offset(group, &(topic.clone(), *partition)));
            }
        }
        if !missing.is_empty() {
            let found = inner.list_offsets(missing, at, self.isolation).await?;
            out.extend(found.into_iter().map(|(place, offset)| (place, offset, None)));
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }
}
