//! One cluster: bootstrap, metadata, a connection per broker.
//!
//! The bootstrap addresses serve for the first question; after that the brokers are reached under the addresses that
//! they advertise. Each broker has one connection, opened when first needed and again when it broke, with a growing
//! pause between attempts.
#![allow(clippy::disallowed_methods, reason = "this file drives connections: it reads the clock and sleeps")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::cluster::{Cluster, PartitionView, TopicUpdate};
use super::consumer::{ByHand, ConsumerBuilder, Group};
use super::errors;
use super::nature::Nature;
use super::producer::{ProducerBuilder, TransactionalProducerBuilder};
use super::wire::link::LinkSettings;
use super::wire::{Address, Connect, Link, Tcp, parse_bootstrap};
use crate::{Error, ErrorKind, LeaderEpoch, NodeId, Partition, Result, Timestamp, Topic};

/// How long a topic that is asked for without creating it may take to appear.
pub(crate) const TOPIC_WAIT: Duration = Duration::from_secs(2);
/// How long a topic that the broker creates on demand may take to get its leaders.
pub(crate) const TOPIC_CREATE_WAIT: Duration = Duration::from_secs(5);
/// Times that a caller gives are cut to this, so that no sum with the clock overflows.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(2);

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
pub struct ClientBuilder {
    bootstrap: String,
    client_id: String,
    connect_timeout: Duration,
    request_timeout: Duration,
    max_response_size: usize,
    metadata_max_age: Duration,
    connector: Arc<dyn Connect>,
    nature: Nature,
}

impl ClientBuilder {
    /// The name that the broker's logs and quotas show. Default `muslin`. At most 32,767 bytes.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// From nothing to a usable connection, for each address. Default 10 s. It also bounds each metadata request.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// From a request to its answer. Default 30 s. A connection on which a request ran out of time is given up.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The largest answer taken from a broker, in bytes. Default 100 MiB, at least 1 MiB. Memory: one answer of this
    /// size per broker at worst. It must hold the largest batch that a topic keeps.
    pub fn max_response_size(mut self, bytes: usize) -> Self {
        self.max_response_size = bytes;
        self
    }

    /// How old what a producer knows of its topics may become. Default 5 min (`metadata.max.age.ms` of the Java client).
    ///
    /// A producer asks for the topics that it sends to when this time has passed since it last asked for all of them, whether
    /// it sends or not: so it finds partitions that were added and leaders that moved. A leader that moved is found at once
    /// where a broker refuses a request; partitions that were added are not, as nothing fails. A record that is enqueued later
    /// than this time, and the time of the question, after the partitions were added may go to them, with a key or without;
    /// until then keys go to the same partition as before. The question takes one request where a broker answers, and the
    /// connect timeout for each broker before it that does not. A broker that lags behind may tell of the old partitions: then
    /// it takes one such time more. Partitions that are added by this client's [`Admin`](super::Admin) are known at once.
    ///
    /// Costs one metadata request each time, of some 100 bytes a partition.
    pub fn metadata_max_age(mut self, age: Duration) -> Self {
        self.metadata_max_age = age;
        self
    }

    /// Opens connections by other means than plain TCP: a proxy, a tunnel, a simulated network.
    pub fn connector(mut self, connector: impl Connect) -> Self {
        self.connector = Arc::new(connector);
        self
    }

    /// Where the time of day comes from: the timestamps of records without one. Default: the system's clock. All other
    /// times are measured on the runtime's own clock, which tests may pause.
    pub fn wall_clock(mut self, read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.nature = self.nature.with_clock(read);
        self
    }

    /// Draws all random choices from this seed, so that a run can be repeated: the partitions of records without a key.
    /// Default: a seed of the system's.
    pub fn seed(mut self, seed: u64) -> Self {
        self.nature = self.nature.with_seed(seed);
        self
    }

    /// Connects to the first bootstrap address that answers and asks it for the cluster's brokers.
    ///
    /// Cancel safe: dropped, it leaves nothing behind.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`]: an address or a setting is wrong; the message names it.
    /// - [`ErrorKind::Connect`]: no address answers as a Kafka broker; the message lists each with its reason. It takes
    ///   at most the connect timeout for each address, and once more for the question.
    pub async fn connect(self) -> Result<Client> {
        let bootstrap = parse_bootstrap(&self.bootstrap)?;
        let positive = |what: &str, d: Duration| {
            if d.is_zero() {
                return Err(Error::new(ErrorKind::Config, format!("{what} is zero; give a time above it")));
            }
            Ok(())
        };
        positive("connect_timeout", self.connect_timeout)?;
        positive("request_timeout", self.request_timeout)?;
        positive("metadata_max_age", self.metadata_max_age)?;
        if self.client_id.len() > 32_767 {
            return Err(Error::new(ErrorKind::Config, "client_id is longer than 32,767 bytes"));
        }
        if !((1 << 20)..=i32::MAX as usize).contains(&self.max_response_size) {
            let n = self.max_response_size;
            return Err(Error::new(
                ErrorKind::Config,
                format!("max_response_size is {n} bytes; it must be from 1 MiB to 2 GiB"),
            ));
        }
        let inner = Inner {
            settings: LinkSettings {
                client_id: self.client_id.into(),
                connect_timeout: self.connect_timeout.min(LONGEST),
                request_timeout: self.request_timeout.min(LONGEST),
                max_response_size: self.max_response_size,
                connector: self.connector,
            },
            metadata_max_age: self.metadata_max_age.min(LONGEST),
            nature: self.nature,
            bootstrap,
            cluster: Mutex::default(),
            slots: Mutex::default(),
            lanes: AtomicU64::new(1),
            coordinators: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
        };
        inner.describe(Question::Topics(&[]), false).await?;
        Ok(Client { inner: Arc::new(inner) })
    }
}

/// A connected client. Cheap to clone; producers and consumers hold one, and the last to go closes the connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

impl Client {
    /// Settings for the cluster behind `bootstrap`: `host:port,host:port`, the port 9092 where it is left out, IPv6
    /// addresses in brackets. The addresses are tried in turn.
    pub fn builder(bootstrap: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            bootstrap: bootstrap.into(),
            client_id: "muslin".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            max_response_size: 100 << 20,
            metadata_max_age: Duration::from_secs(300),
            connector: Arc::new(Tcp),
            nature: Nature::default(),
        }
    }

    /// A producer on this cluster.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.clone())
    }

    /// A producer of transactions with this transactional id, on this cluster.
    ///
    /// The id names one producer across its restarts: the newer one fences the older. Give each instance of a program
    /// its own. A refused batch is sent again after 20 ms the first time. Other settings than the defaults:
    /// `client.producer()...transactional(id)`.
    pub fn transactional_producer(&self, id: impl Into<String>) -> TransactionalProducerBuilder {
        // A transaction's first records are often refused while the markers of the last one are being written.
        let (first, longest) = (Duration::from_millis(20), Duration::from_secs(1));
        self.producer().retry_backoff(first, longest).transactional(id)
    }

    /// A consumer that is a member of this group: it shares the partitions of its topics with the other members.
    pub fn consumer(&self, group: impl Into<String>) -> ConsumerBuilder<Group> {
        ConsumerBuilder::member(self.clone(), group.into())
    }

    /// A consumer whose partitions are assigned by hand.
    pub fn simple_consumer(&self) -> ConsumerBuilder<ByHand> {
        ConsumerBuilder::by_hand(self.clone())
    }

    /// The topic's partitions and leaders, asked now. Never creates the topic. Cancel safe.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the topic is not there within 2 s (a topic made a moment ago may need some of
    /// that); [`ErrorKind::Denied`] without the right to see it; errors of the connection.
    pub async fn topic(&self, topic: &Topic) -> Result<TopicInfo> {
        let view = self.inner.topic(topic, false, TOPIC_WAIT).await?;
        let partitions = view
            .iter()
            .zip(0..)
            .map(|(p, n)| PartitionInfo { partition: Partition(n), leader: p.leader, leader_epoch: p.epoch })
            .collect();
        Ok(TopicInfo { topic: topic.clone(), partitions })
    }

    /// Closes all connections. Producers and consumers of this client fail from then on: close them first.
    ///
    /// # Errors
    /// None so far; the result is there for goodbyes that a broker may want later.
    pub async fn close(&self) -> Result<()> {
        self.inner.closed.store(true, Ordering::Release);
        let slots = std::mem::take(&mut *lock(&self.inner.slots));
        for slot in slots.into_values() {
            if let Some(link) = slot.link.lock().await.open.take() {
                link.close();
            }
        }
        Ok(())
    }
}

/// Which topics a metadata question is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Question<'a> {
    /// These; none of them: the brokers alone.
    Topics(&'a [Topic]),
    /// Those of these ids (KIP-516).
    Ids(&'a [Uuid]),
    /// All that this user may see.
    All,
}

/// What the clones of a client share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: LinkSettings,
    /// How old a producer's view of its topics may become.
    pub(crate) metadata_max_age: Duration,
    pub(crate) nature: Nature,
    bootstrap: Vec<Address>,
    cluster: Mutex<Cluster>,
    slots: Mutex<BTreeMap<(NodeId, Lane), Arc<Slot>>>,
    /// The number of the next lane.
    lanes: AtomicU64,
    pub(crate) coordinators: Mutex<HashMap<String, NodeId>>,
    /// Held while metadata is asked for: one question at a time.
    asking: tokio::sync::Mutex<()>,
    closed: AtomicBool,
}

/// Which of the connections to a broker. A broker answers one request of a connection at a time, so a fetch that waits for
/// records holds up whatever stands behind it: each consumer fetches on a lane of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane(u64);

impl Lane {
    /// The one for all requests that are answered at once.
    const SHARED: Self = Self(0);
}

/// A lane of its holder's own. Dropped, its connections close.
#[derive(Debug)]
pub(crate) struct OwnLane {
    inner: Arc<Inner>,
    lane: Lane,
}

impl OwnLane {
    /// The holder's connection to a broker, opened if need be.
    pub(crate) async fn link(&self, node: NodeId) -> Result<Arc<Link>> {
        self.inner.link_on(node, self.lane).await
    }
}

impl Drop for OwnLane {
    fn drop(&mut self) {
        lock(&self.inner.slots).retain(|(_, lane), _| *lane != self.lane);
    }
}

/// The place of one broker's connection.
#[derive(Debug, Default)]
struct Slot {
    link: tokio::sync::Mutex<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    open: Option<Arc<Link>>,
    address: Option<Address>,
    failures: u32,
    failed: Option<(Instant, Error)>,
}

/// A lock that does not care whether another holder panicked: nothing here is left half-way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A topic's name for a request.
pub(crate) fn topic_name(topic: &Topic) -> TopicName {
    TopicName(text(topic.as_str()))
}

/// A string for a request.
pub(crate) fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

impl Inner {
    pub(crate) fn cluster(&self) -> MutexGuard<'_, Cluster> {
        lock(&self.cluster)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the Kafka client was closed"));
        }
        Ok(())
    }

    /// The connection to a broker that all share, opened if need be.
    pub(crate) async fn link(&self, node: NodeId) -> Result<Arc<Link>> {
        self.link_on(node, Lane::SHARED).await
    }

    /// A lane for requests that the broker may keep waiting.
    pub(crate) fn own_lane(self: &Arc<Self>) -> OwnLane {
        OwnLane { inner: Arc::clone(self), lane: Lane(self.lanes.fetch_add(1, Ordering::Relaxed)) }
    }

    /// The brokers, those first that this client is connected to: one that stayed silent lost its connection.
    pub(crate) fn brokers_to_ask(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.cluster().nodes().map(|(node, _)| node).collect();
        let slots = lock(&self.slots);
        nodes.sort_by_cached_key(|node| {
            let state = slots.get(&(*node, Lane::SHARED)).and_then(|slot| slot.link.try_lock().ok());
            !state.is_some_and(|state| state.open.as_ref().is_some_and(|link| link.is_open()))
        });
        nodes
    }

    async fn link_on(&self, node: NodeId, lane: Lane) -> Result<Arc<Link>> {
        let began = Instant::now();
        self.check_open()?;
        let Some(address) = self.cluster().address(node).cloned() else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("Kafka broker {node} is not in the cluster's metadata at the moment"),
            ));
        };
        let slot = Arc::clone(lock(&self.slots).entry((node, lane)).or_default());
        let mut state = slot.link.lock().await;
        if let Some(link) = state.open.as_ref().filter(|l| l.is_open())
            && state.address.as_ref() == Some(&address)
        {
            return Ok(Arc::clone(link));
        }
        state.open = None;
        if let Some((at, e)) = &state.failed {
            if *at >= began {
                return Err(e.duplicate());
            }
            let pause = RECONNECT_MIN
                .saturating_mul(1 << state.failures.saturating_sub(1).min(10))
                .min(RECONNECT_MAX);
            tokio::time::sleep_until(*at + pause).await;
        }
        match Link::open(&address, &self.settings).await {
            Ok(link) => {
                self.check_open()?;
                let link = Arc::new(link);
                tracing::debug!(%node, %address, "connected");
                *state = SlotState {
                    open: Some(Arc::clone(&link)),
                    address: Some(address),
                    failures: 0,
                    failed: None,
                };
                Ok(link)
            }
            Err(e) => {
                let e = e.context(format!(
                    "broker {node}, reached by the address that it advertises (advertised.listeners)"
                ));
                state.failures = state.failures.saturating_add(1);
                state.failed = Some((Instant::now(), e.duplicate()));
                Err(e)
            }
        }
    }

    /// Asks any broker for metadata, takes in the answer and gives it.
    pub(crate) async fn describe(&self, question: Question<'_>, create: bool) -> Result<MetadataResponse> {
        let mut failures: Vec<Error> = Vec::new();
        // The brokers known, then the bootstrap addresses. Each question begins at another broker: one that lags behind
        // must not be the only one that is ever asked.
        let (mut nodes, turn) = {
            let cluster = self.cluster();
            (cluster.nodes().map(|(node, _)| node).collect::<Vec<_>>(), cluster.questions())
        };
        let begin = usize::try_from(turn).unwrap_or(0).checked_rem(nodes.len()).unwrap_or(0);
        nodes.rotate_left(begin);
        for node in nodes {
            let asked = async {
                let link = self.link(node).await?;
                self.ask_link(&link, question, create).await
            };
            // A broker's pause between connects must not hold up the others.
            match tokio::time::timeout(self.settings.connect_timeout, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(e)) => failures.push(e),
                Err(_) => failures.push(Error::new(
                    ErrorKind::Timeout,
                    format!("broker {node}: no metadata within {:?}", self.settings.connect_timeout),
                )),
            }
            self.check_open()?;
        }
        for address in &self.bootstrap {
            self.check_open()?;
            match Link::open(address, &self.settings).await {
                Ok(link) => match self.ask_link(&link, question, create).await {
                    Ok(answer) => return Ok(answer),
                    // It has told its versions, then hung up on the first real request.
                    Err(e) if e.kind() == ErrorKind::Disconnected => failures.push(Error::new(
                        ErrorKind::Connect,
                        format!(
                            "{e}; a listener that wants SASL does so: give the address of a listener of type \
                             PLAINTEXT"
                        ),
                    )),
                    Err(e) => failures.push(e),
                },
                Err(e) => failures.push(e),
            }
        }
        self.cluster().handle_failure(Instant::now().into_std());
        let only = failures.len() == 1;
        match failures.pop() {
            Some(e) if only => Err(e),
            last => {
                failures.extend(last);
                let list: Vec<_> = failures.iter().map(Error::report).collect();
                Err(Error::new(ErrorKind::Connect, format!("no Kafka broker answers: {}", list.join("; "))))
            }
        }
    }

    async fn ask_link(&self, link: &Link, question: Question<'_>, create: bool) -> Result<MetadataResponse> {
        let wanted = match question {
            Question::Topics(topics) => {
                let named = |t| MetadataRequestTopic::default().with_name(Some(topic_name(t)));
                Some(topics.iter().map(named).collect())
            }
            Question::Ids(ids) => {
                let by_id = |id: &Uuid| MetadataRequestTopic::default().with_name(None).with_topic_id(*id);
                Some(ids.iter().map(by_id).collect())
            }
            Question::All => None,
        };
        let request = MetadataRequest::default().with_topics(wanted).with_allow_auto_topic_creation(create);
        let answer = link.call_within(request, self.settings.connect_timeout).await?;
        let (brokers, topics) = read_metadata(&answer);
        if brokers.is_empty() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the broker knows no brokers yet; it is starting",
            ));
        }
        self.cluster().handle_metadata(brokers, topics, Instant::now().into_std());
        Ok(answer)
    }

    /// Takes in the leaders that a produce answer names (KIP-951). Returns the partitions whose leader the view now has by
    /// it: they can be sent to it at once, and need no question. Costs nothing where the answer names none.
    pub(crate) fn learn_leaders(&self, answer: &ProduceResponse) -> Vec<(Topic, Partition)> {
        let (brokers, leaders) = read_leaders(answer);
        if leaders.is_empty() {
            return Vec::new();
        }
        let mut cluster = self.cluster();
        for (node, address) in brokers {
            cluster.handle_broker(node, address);
        }
        let learned = leaders.into_iter().filter(|(topic, partition, node, epoch)| {
            cluster.handle_leader(topic, *partition, *node, *epoch)
        });
        learned.map(|(topic, partition, ..)| (topic, partition)).collect()
    }

    /// Asks for metadata of these topics as soon as the ration allows. Somebody else's answer in the meantime serves.
    pub(crate) async fn refresh(&self, topics: &[Topic], create: bool) -> Result<()> {
        let seen = self.cluster().generation();
        let _asking = self.asking.lock().await;
        let (now, next) = {
            let cluster = self.cluster();
            let covered = topics.iter().all(|t| cluster.topic(t).is_some());
            if cluster.generation() != seen && covered {
                return Ok(());
            }
            (Instant::now(), cluster.poll_ask())
        };
        if let Some(at) = next.map(Instant::from_std).filter(|at| *at > now) {
            tokio::time::sleep_until(at).await;
        }
        self.describe(Question::Topics(topics), create).await.map(drop)
    }

    /// The partitions of a topic, asked now; waits until it exists and its partitions have leaders, at most `wait`.
    pub(crate) async fn topic(
        &self,
        topic: &Topic,
        create: bool,
        wait: Duration,
    ) -> Result<Vec<PartitionView>> {
        let deadline = Instant::now() + wait;
        loop {
            self.refresh(std::slice::from_ref(topic), create).await?;
            let error = {
                let cluster = self.cluster();
                match cluster.topic(topic) {
                    Some(view) if view.error == 0 && view.partitions.iter().all(|p| p.leader.is_some()) => {
                        return Ok(view.partitions.clone());
                    }
                    Some(view) => view.error,
                    None => 0,
                }
            };
            let e = match error {
                0 => Error::new(
                    ErrorKind::Unavailable,
                    format!("topic {topic} has partitions without a leader"),
                ),
                code => errors::broker(code, format!("topic {topic}")),
            };
            // What the broker will not change its mind about needs no waiting.
            if Instant::now() >= deadline || !(e.is_retryable() || e.kind() == ErrorKind::NotFound) {
                return Err(e.retryable(false));
            }
        }
    }
}

/// A partition's leader as a refusal names it.
type Named = (Topic, Partition, NodeId, LeaderEpoch);

/// The leaders that a produce answer names, and the addresses of those among them that it gives.
fn read_leaders(answer: &ProduceResponse) -> (BTreeMap<NodeId, Address>, Vec<Named>) {
    let mut leaders = Vec::new();
    let mut named = BTreeSet::new();
    for t in &answer.responses {
        for p in t.partition_responses.iter().filter(|p| p.current_leader.leader_id.0 >= 0) {
            let Ok(topic) = Topic::new(t.name.0.as_str()) else { continue };
            let node = NodeId(p.current_leader.leader_id.0);
            named.insert(node);
            leaders.push((topic, Partition(p.index), node, LeaderEpoch(p.current_leader.leader_epoch)));
        }
    }
    let brokers = answer.node_endpoints.iter().filter_map(|n| {
        let node = NodeId(n.node_id.0);
        let port = u16::try_from(n.port).ok()?;
        named.contains(&node).then(|| (node, Address { host: n.host.as_str().to_owned(), port }))
    });
    (brokers.collect(), leaders)
}

fn read_metadata(answer: &MetadataResponse) -> (BTreeMap<NodeId, Address>, Vec<TopicUpdate>) {
    let brokers = answer
        .brokers
        .iter()
        .filter_map(|b| {
            let port = u16::try_from(b.port).ok()?;
            Some((NodeId(b.node_id.0), Address { host: b.host.as_str().to_owned(), port }))
        })
        .collect();
    let topics = answer
        .topics
        .iter()
        .filter_map(|t| {
            let topic = Topic::new(t.name.as_ref()?.0.as_str()).ok()?;
            let partitions = t
                .partitions
                .iter()
                .map(|p| {
                    let leader = (p.leader_id.0 >= 0).then_some(NodeId(p.leader_id.0));
                    let view = PartitionView { leader, epoch: LeaderEpoch(p.leader_epoch) };
                    (Partition(p.partition_index), view)
                })
                .collect();
            Some(TopicUpdate { topic, id: t.topic_id, error: t.error_code, partitions })
        })
        .collect();
    (brokers, topics)
}

#[cfg(test)]
mod tests;
