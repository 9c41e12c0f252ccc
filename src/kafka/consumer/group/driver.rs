//! Drives a member: asks its coordinator, and passes on to the book what is assigned and what is to be let go.
#![allow(clippy::disallowed_methods, reason = "this file drives the machine: it reads the clock and sleeps")]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    MetadataResponse, SyncGroupRequest,
};
use regex::Regex;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::assignor::TopicShape;
use super::modern::Beat;
use super::{Answer, Ask, Event, GroupProtocol, Identity, Membership, Settings, Standing, classic, modern};
use crate::kafka::client::{Inner, LONGEST, OwnLane, Question, lock, text, topic_name};
use crate::kafka::consumer::driver::Shared;
use crate::kafka::consumer::notice::Rebalance;
use crate::kafka::errors;
use crate::kafka::offsets::Place;
use crate::{Error, ErrorKind, Result, Topic};

/// How long after the end of a rebalance a coordinator may still take to answer those who joined.
const JOIN_GRACE: Duration = Duration::from_secs(5);
/// How long a farewell may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A member's part of what a consumer shares.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) settings: Settings,
    pub(crate) protocol: GroupProtocol,
    pub(crate) topics: Vec<Topic>,
    /// Compiled from the settings' pattern, for a coordinator that knows no patterns.
    pub(crate) pattern: Option<Regex>,
    /// How long what is in hand may take to be settled when its partition is to go.
    pub(crate) settle_timeout: Duration,
    /// `None` until it is known which protocol the coordinator speaks.
    pub(crate) machine: Mutex<Option<Membership>>,
    /// Wakes the driver.
    pub(crate) work: Notify,
    pub(crate) leaving: AtomicBool,
    /// How it stands with the group, and since when.
    pub(crate) standing: Mutex<(Standing, Instant)>,
}

impl Member {
    pub(crate) fn identity(&self) -> Option<Identity> {
        lock(&self.machine).as_ref().and_then(Membership::identity)
    }

    fn note_standing(&self, standing: Standing, now: Instant) {
        let mut known = lock(&self.standing);
        if known.0 != standing {
            *known = (standing, now);
        }
    }

    /// A commit was refused for what this member is.
    pub(crate) fn handle_refused_commit(&self, identity: &Identity, code: i16) {
        if let Some(machine) = lock(&self.machine).as_mut() {
            machine.handle_refused_commit(identity, code, Instant::now().into_std());
        }
        self.work.notify_one();
    }
}

type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Release = Pin<Box<dyn Future<Output = Vec<Place>> + Send>>;
type Look = Pin<Box<dyn Future<Output = Result<MetadataResponse>> + Send>>;

/// The driver of one member. Ends when it has left, or its membership has failed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(member) = shared.member.as_ref() else { return };
    let lane = Arc::new(shared.client.inner.own_lane());
    let chosen = tokio::select! {
        biased;
        chosen = choose(&shared, member, &lane) => chosen,
        () = stopped(member) => return,
    };
    match chosen {
        Ok(machine) => *lock(&member.machine) = Some(machine),
        Err(e) => {
            member.note_standing(Standing::Ended, Instant::now());
            return fail(&shared, e);
        }
    }
    let mut call: Option<Call> = None;
    let mut release: Option<Release> = None;
    let mut look: Option<Look> = None;
    let mut look_at = Instant::now() + shared.client.inner.metadata_max_age;
    loop {
        let now = Instant::now();
        let leaving = member.leaving.load(Ordering::Acquire);
        let (ask, timeout, standing) = {
            let mut machine = lock(&member.machine);
            let Some(machine) = machine.as_mut() else { return };
            if leaving {
                machine.handle_leave();
            }
            // The ask first: to ask for a rebalance may be to let go of partitions.
            let ask = machine.poll_ask(now.into_std());
            let mut events = Vec::new();
            while let Some(event) = machine.poll_event() {
                events.push(event);
            }
            // In the order of the locks: machine, then book.
            pass_on(&shared, member, events, machine.lease(), now);
            (ask, machine.poll_timeout(now.into_std()), machine.standing())
        };
        member.note_standing(standing, now);
        if let Some(ask) = ask {
            let limits = Limits { last: leaving, ..Limits::of(&shared, member) };
            call = Some(Box::pin(answer(Arc::clone(&shared), Arc::clone(&lane), ask, limits)));
        }
        if call.is_none() && standing == Standing::Ended {
            return;
        }
        let (released, release_at) = {
            let book = lock(&shared.book);
            let ready = if release.is_none() { book.poll_released(now.into_std()) } else { Vec::new() };
            (ready, book.poll_release_timeout().filter(|_| release.is_none()))
        };
        if !released.is_empty() {
            // The group waits for this member after it has settled: a commit that does not get through must not cost it
            // its place, and with it all that it has.
            let limit = member.settings.rebalance_timeout.saturating_sub(member.settle_timeout) / 2;
            release = Some(Box::pin(let_go(Arc::clone(&shared), limit, released)));
        }
        if look.is_none() && now >= look_at {
            look = look_again(&shared, member);
            look_at = now + shared.client.inner.metadata_max_age;
        }
        let timeout = timeout.map(Instant::from_std);
        let release_at = release_at.map(Instant::from_std).filter(|_| release.is_none());
        let look_next = Some(look_at).filter(|_| look.is_none());
        let wake_at = [timeout, release_at, look_next].into_iter().flatten().min();
        let wake_at = wake_at.unwrap_or(now + Duration::from_secs(60));
        tokio::select! {
            biased;
            answer = until(&mut call) => {
                call = None;
                if let Some(machine) = lock(&member.machine).as_mut() {
                    machine.handle_answer(answer, Instant::now().into_std());
                }
            }
            places = until(&mut release) => {
                release = None;
                let now = Instant::now().into_std();
                let mut machine = lock(&member.machine);
                let Some(machine) = machine.as_mut() else { return };
                machine.handle_released(&places, now);
            }
            seen = until(&mut look) => {
                look = None;
                take_look(member, seen);
            }
            () = member.work.notified() => {}
            () = tokio::time::sleep_until(wake_at) => {}
        }
    }
}

async fn stopped(member: &Member) {
    while !member.leaving.load(Ordering::Acquire) {
        member.work.notified().await;
    }
}

/// Waits for a future that may not be there; for ever without one.
async fn until<T>(slot: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn fail(shared: &Shared, e: Error) {
    tracing::warn!(error = %e.report(), "the membership has ended");
    let mut book = lock(&shared.book);
    book.handle_trouble(e);
    book.handle_end();
    drop(book);
    shared.reader.wake();
}

/// Tells the book and the application what has changed.
fn pass_on(
    shared: &Shared,
    member: &Member,
    events: Vec<Event>,
    lease: Option<std::time::Instant>,
    now: Instant,
) {
    let mut book = lock(&shared.book);
    let renewed = book.handle_lease(lease);
    if events.is_empty() {
        drop(book);
        if renewed {
            shared.reader.wake();
        }
        return;
    }
    let mut notices = Vec::with_capacity(events.len());
    let mut failed = None;
    for event in events {
        match event {
            Event::Assigned(places) => {
                book.expect(&places);
                notices.push(Rebalance::Assigned(places));
            }
            Event::Revoke(places) => {
                book.release(&places, (now + member.settle_timeout).into_std());
                notices
                    .push(Rebalance::Revoking { partitions: places, settle_within: member.settle_timeout });
            }
            Event::Lost(places) => {
                book.lose(&places);
                notices.push(Rebalance::Lost(places));
            }
            Event::Failed(e) => failed = Some(e),
        }
    }
    drop(book);
    shared.notices.tell(notices);
    if let Some(e) = failed {
        fail(shared, e);
    }
    shared.work.notify_one();
    shared.reader.wake();
}

/// Commits what these partitions have, then makes their receipts stale.
async fn let_go(shared: Arc<Shared>, limit: Duration, places: Vec<Place>) -> Vec<Place> {
    let why = match tokio::time::timeout(limit, shared.commit()).await {
        Ok(Ok(())) => None,
        Ok(Err(e)) => Some(e.report()),
        Err(_) => Some(format!("not within {limit:?}")),
    };
    if let Some(why) = why {
        tracing::warn!(
            why,
            "the commit before partitions go failed: what it held comes again to their next owner"
        );
    }
    let unsettled = lock(&shared.book).finish(&places);
    if unsettled > 0 {
        tracing::warn!(
            unsettled,
            ?places,
            "partitions go with unsettled deliveries, which come again to their next owner"
        );
    }
    shared.notices.tell(vec![Rebalance::Revoked { partitions: places.clone(), unsettled }]);
    shared.reader.wake();
    places
}

/// Looks at the topics of a pattern, and at those that a leader has assigned.
fn look_again(shared: &Arc<Shared>, member: &Member) -> Option<Look> {
    let shared = Arc::clone(shared);
    let is_classic = matches!(&*lock(&member.machine), Some(Membership::Classic(_)));
    if is_classic && member.pattern.is_some() {
        return Some(Box::pin(async move { shared.client.inner.describe(Question::All, false).await }));
    }
    let watched = lock(&member.machine).as_ref().map(Membership::watched).unwrap_or_default();
    if watched.is_empty() {
        return None;
    }
    Some(Box::pin(async move { shared.client.inner.describe(Question::Topics(&watched), false).await }))
}

fn take_look(member: &Member, seen: Result<MetadataResponse>) {
    let answer = match seen {
        Ok(answer) => answer,
        Err(e) => return tracing::debug!(error = %e.report(), "topics could not be looked at"),
    };
    let mut machine = lock(&member.machine);
    let Some(machine) = machine.as_mut() else { return };
    if let (Membership::Classic(_), Some(pattern)) = (&*machine, &member.pattern) {
        machine.handle_topics(matching(&answer, pattern));
    }
    machine.handle_shapes(&read_shapes(&answer));
}

fn matching(answer: &MetadataResponse, pattern: &Regex) -> Vec<Topic> {
    let topics = answer.topics.iter().filter(|t| !t.is_internal && t.error_code == 0);
    let names = topics.filter_map(|t| Topic::new(t.name.as_ref()?.0.as_str()).ok());
    names.filter(|t| pattern.is_match(t.as_str())).collect()
}

fn read_shapes(answer: &MetadataResponse) -> BTreeMap<Topic, TopicShape> {
    let racks: BTreeMap<i32, String> = answer
        .brokers
        .iter()
        .filter_map(|b| Some((b.node_id.0, b.rack.as_ref()?.as_str().to_owned())))
        .collect();
    let mut shapes = BTreeMap::new();
    for t in answer.topics.iter().filter(|t| t.error_code == 0) {
        let Some(Ok(topic)) = t.name.as_ref().map(|n| Topic::new(n.0.as_str())) else { continue };
        let mut by_partition: Vec<_> = t.partitions.iter().collect();
        by_partition.sort_by_key(|p| p.partition_index);
        let racks = if racks.is_empty() {
            Vec::new()
        } else {
            let of = |p: &&kafka_protocol::messages::metadata_response::MetadataResponsePartition| {
                p.replica_nodes.iter().filter_map(|n| racks.get(&n.0).cloned()).collect()
            };
            by_partition.iter().map(of).collect()
        };
        shapes.insert(topic, TopicShape { partitions: by_partition.len(), racks });
    }
    shapes
}

/// Finds out which protocol the group's coordinator speaks, and makes a member of it.
async fn choose(shared: &Shared, member: &Member, lane: &OwnLane) -> Result<Membership> {
    let inner = &shared.client.inner;
    let group = &member.settings.group;
    let modern = loop {
        let offered = async {
            let node = inner.coordinator(group).await?;
            let link = lane.link(node).await?;
            let version = link.version::<ConsumerGroupHeartbeatRequest>();
            Ok(version.filter(|_| link.feature("group.version").is_some_and(|level| level >= 1)))
        };
        match offered.await {
            Ok(offered) => break offered,
            Err(e) if classic::is_final(&e) || !retry(inner, group, &e) => return Err(e),
            Err(e) => {
                shared.trouble.set(&e);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    };
    shared.trouble.clear();
    // Patterns came with version 1 of the heartbeat.
    let able = modern.filter(|version| *version >= 1 || member.pattern.is_none());
    let now = Instant::now().into_std();
    match (member.protocol, able) {
        (GroupProtocol::Consumer, None) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "group {group}: the cluster does not offer the group protocol \"consumer\"{} (KIP-848: Kafka 4.0 or later \
                 with group.version 1); use GroupProtocol::Auto or Classic",
                if modern.is_some() { " with patterns" } else { "" }
            ),
        )),
        (GroupProtocol::Consumer | GroupProtocol::Auto, Some(_)) => {
            let id = inner.nature.uuid();
            Ok(Membership::modern(member.settings.clone(), member.topics.clone(), id, now))
        }
        (GroupProtocol::Classic, _) | (GroupProtocol::Auto, None) => {
            let mut topics = member.topics.clone();
            if let Some(pattern) = &member.pattern {
                let answer = loop {
                    match inner.describe(Question::All, false).await {
                        Ok(answer) => break answer,
                        Err(e) if classic::is_final(&e) || !e.is_retryable() => return Err(e),
                        Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
                    }
                };
                topics.extend(matching(&answer, pattern));
            }
            Ok(Membership::classic(member.settings.clone(), topics, now))
        }
    }
}

/// Forgets the coordinator where it may be another; whether trying again makes sense.
fn retry(inner: &Inner, group: &str, e: &Error) -> bool {
    inner.forget_coordinator(group);
    e.is_retryable() || matches!(e.kind(), ErrorKind::Connect | ErrorKind::Disconnected | ErrorKind::Timeout)
}

/// How long answers may take.
struct Limits {
    beat: Duration,
    join: Duration,
    /// Whether the member takes its leave, and waits for no coordinator.
    last: bool,
}

impl Limits {
    fn of(shared: &Shared, member: &Member) -> Self {
        let request = shared.client.inner.settings.request_timeout;
        let settings = &member.settings;
        // A silent coordinator must be noticed while there is time to find another.
        let beat = request.min(settings.session_timeout / 3).max(Duration::from_millis(100));
        let join = settings.rebalance_timeout.saturating_add(JOIN_GRACE).max(request).min(LONGEST);
        Self { beat, join, last: false }
    }
}

async fn answer(shared: Arc<Shared>, lane: Arc<OwnLane>, ask: Ask, limits: Limits) -> Answer {
    let Some(member) = shared.member.as_ref() else {
        return Answer::Classic(classic::Answer::Left);
    };
    let inner = &shared.client.inner;
    let group = member.settings.group.as_str();
    // A failed question may mean that the coordinator is another one.
    let note = |e: Error| {
        if !classic::is_final(&e) {
            inner.forget_coordinator(group);
        }
        tracing::debug!(group, error = %e.report(), "the group's coordinator did not answer");
        shared.trouble.set(&e);
        e
    };
    let judge = |code: i16| {
        if errors::wants_coordinator(code) {
            inner.forget_coordinator(group);
            shared.trouble.set(&errors::broker(code, format!("group {group}: its coordinator")));
        } else {
            shared.trouble.clear();
        }
    };
    match ask {
        Ask::Classic(ask) => {
            let asked = ask_classic(inner, &lane, member, ask, &limits, &judge);
            let result = if limits.last { bounded(asked).await } else { asked.await };
            Answer::Classic(result.unwrap_or_else(|e| classic::Answer::Failed(note(e))))
        }
        Ask::Modern(ask) => {
            let asked = ask_modern(inner, &lane, member, ask, &limits, &judge);
            let result = if limits.last { bounded(asked).await } else { asked.await };
            Answer::Modern(result.unwrap_or_else(|e| modern::Answer::Failed(note(e))))
        }
    }
}

async fn bounded<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(LEAVE_LIMIT, asked).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, format!("the coordinator did not answer within {LEAVE_LIMIT:?}")))
    })
}

fn millis(d: Duration) -> i32 {
    i32::try_from(d.as_millis()).unwrap_or(i32::MAX)
}

async fn ask_classic(
    inner: &Inner,
    lane: &OwnLane,
    member: &Member,
    ask: classic::Ask,
    limits: &Limits,
    judge: &(impl Fn(i16) + Sync),
) -> Result<classic::Answer> {
    use classic::{Answer, Ask, Joined};
    let settings = &member.settings;
    let group = || GroupId(text(&settings.group));
    let instance = || settings.instance.as_deref().map(text);
    if let Ask::Shapes(topics) = ask {
        let answer = inner.describe(Question::Topics(&topics), false).await?;
        return Ok(Answer::Shapes(read_shapes(&answer)));
    }
    let node = inner.coordinator(&settings.group).await?;
    // A connection answers one request after the other, and a JoinGroup may wait for the whole group: a farewell goes past it.
    let link =
        if matches!(ask, Ask::Leave { .. }) { inner.link(node).await? } else { lane.link(node).await? };
    match ask {
        Ask::Shapes(_) => Err(Error::new(ErrorKind::Internal, "not for the coordinator")),
        Ask::Join { member, protocols } => {
            let protocols = protocols.into_iter().map(|(name, metadata)| {
                JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(metadata)
            });
            let request = JoinGroupRequest::default()
                .with_group_id(group())
                .with_session_timeout_ms(millis(settings.session_timeout))
                .with_rebalance_timeout_ms(millis(settings.rebalance_timeout))
                .with_member_id(text(&member))
                .with_protocol_type(text("consumer"))
                .with_protocols(protocols.collect());
            // Versions without a place for it refuse a name.
            let request = match link.version::<JoinGroupRequest>() {
                Some(version) if version >= 5 => request.with_group_instance_id(instance()),
                _ => request,
            };
            let answer = link.call_within(request, limits.join).await?;
            judge(answer.error_code);
            let string = |s: Option<kafka_protocol::protocol::StrBytes>| s.map(|s| s.as_str().to_owned());
            let members = answer.members.into_iter();
            Ok(Answer::Joined(Joined {
                code: answer.error_code,
                generation: answer.generation_id,
                protocol: string(answer.protocol_name).unwrap_or_default(),
                leader: answer.leader.as_str().to_owned(),
                member: answer.member_id.as_str().to_owned(),
                members: members
                    .map(|m| (m.member_id.as_str().to_owned(), string(m.group_instance_id), m.metadata))
                    .collect(),
                skip_assignment: answer.skip_assignment,
            }))
        }
        Ask::Sync { member, generation, protocol, assignments } => {
            let assignments = assignments.into_iter().map(|(id, assignment)| {
                SyncGroupRequestAssignment::default().with_member_id(text(&id)).with_assignment(assignment)
            });
            let request = SyncGroupRequest::default()
                .with_group_id(group())
                .with_generation_id(generation)
                .with_member_id(text(&member))
                .with_assignments(assignments.collect());
            let request = match link.version::<SyncGroupRequest>() {
                Some(version) if version >= 5 => request
                    .with_group_instance_id(instance())
                    .with_protocol_type(Some(text("consumer")))
                    .with_protocol_name(Some(text(&protocol))),
                Some(version) if version >= 3 => request.with_group_instance_id(instance()),
                _ => request,
            };
            let answer = link.call_within(request, limits.join).await?;
            judge(answer.error_code);
            Ok(Answer::Synced(answer.error_code, answer.assignment))
        }
        Ask::Beat { member, generation } => {
            let request = HeartbeatRequest::default()
                .with_group_id(group())
                .with_generation_id(generation)
                .with_member_id(text(&member));
            let request = match link.version::<HeartbeatRequest>() {
                Some(version) if version >= 3 => request.with_group_instance_id(instance()),
                _ => request,
            };
            let answer = link.call_within(request, limits.beat).await?;
            judge(answer.error_code);
            Ok(Answer::Beaten(answer.error_code))
        }
        Ask::Leave { member } => {
            let request = LeaveGroupRequest::default().with_group_id(group());
            let request = match link.version::<LeaveGroupRequest>() {
                Some(version) if version >= 3 => {
                    let identity = MemberIdentity::default().with_member_id(text(&member));
                    let identity = if version >= 5 {
                        identity.with_reason(Some(text("the consumer is being closed")))
                    } else {
                        identity
                    };
                    request.with_members(vec![identity])
                }
                _ => request.with_member_id(text(&member)),
            };
            link.call_within(request, limits.beat).await?;
            Ok(Answer::Left)
        }
    }
}

async fn ask_modern(
    inner: &Inner,
    lane: &OwnLane,
    member: &Member,
    ask: modern::Ask,
    limits: &Limits,
    judge: &(impl Fn(i16) + Sync),
) -> Result<modern::Answer> {
    use modern::{Answer, Ask, Beaten};
    let beat = match ask {
        Ask::Names(ids) => {
            let answer = inner.describe(Question::Ids(&ids), false).await?;
            let named = |t: &kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
                Some((t.topic_id, Topic::new(t.name.as_ref()?.0.as_str()).ok()?))
            };
            let names: BTreeMap<Uuid, Topic> = answer.topics.iter().filter_map(named).collect();
            return Ok(Answer::Names(names));
        }
        Ask::Beat(beat) => beat,
    };
    let link = lane.link(inner.coordinator(&member.settings.group).await?).await?;
    let answer = link.call_within(heartbeat(&member.settings, beat), limits.beat).await?;
    judge(answer.error_code);
    let assignment = answer.assignment.map(|a| {
        let topics = a.topic_partitions.into_iter();
        topics.flat_map(|t| t.partitions.into_iter().map(move |p| (t.topic_id, p))).collect()
    });
    Ok(Answer::Beaten(Beaten {
        code: answer.error_code,
        message: answer.error_message.map(|m| m.as_str().to_owned()).unwrap_or_default(),
        epoch: answer.member_epoch,
        interval: Duration::from_millis(u64::try_from(answer.heartbeat_interval_ms).unwrap_or(0)),
        assignment,
    }))
}

fn heartbeat(settings: &Settings, beat: Beat) -> ConsumerGroupHeartbeatRequest {
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(&settings.group)))
        .with_member_id(text(&beat.member))
        .with_member_epoch(beat.epoch)
        .with_instance_id(settings.instance.as_deref().map(text))
        .with_rebalance_timeout_ms(-1)
        .with_topic_partitions(beat.owned.map(|owned| {
            let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
            for (topic, partition) in owned {
                topics.entry(topic).or_default().push(partition);
            }
            let topics = topics.into_iter();
            topics
                .map(|(id, partitions)| {
                    TopicPartitions::default().with_topic_id(id).with_partitions(partitions)
                })
                .collect()
        }));
    if !beat.full {
        return request.with_subscribed_topic_names(None);
    }
    request
        .with_rack_id(settings.rack.as_deref().map(text))
        .with_rebalance_timeout_ms(millis(settings.rebalance_timeout))
        .with_server_assignor(settings.server_assignor.as_deref().map(text))
        .with_subscribed_topic_names(Some(beat.topics.iter().map(topic_name).collect()))
        .with_subscribed_topic_regex(settings.pattern.as_deref().map(text))
}
