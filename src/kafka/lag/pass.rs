//! One pass over groups: the questions, in their order.
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it reads the clock")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest};
use tokio::time::Instant;

use super::judge::Reader;
use super::oldest::{Oldest, Search};
use crate::kafka::admin::spread::{certain, judge_leader, left_out, named};
use crate::kafka::admin::{GroupDescription, GroupState, ListedGroup};
use crate::kafka::client::{Inner, topic_name};
use crate::kafka::consumer::Isolation;
use crate::kafka::group::Coordinated;
use crate::kafka::offsets::{At, Interned, Place};
use crate::kafka::wire::Link;
use crate::{Error, ErrorKind, NodeId, Offset, Partition, ProducerId, Result, Timestamp, Topic};

/// How many partitions one request for records names, and how many bytes it brings.
const SEARCHES: usize = 1000;
const BYTES: usize = 1 << 20;
/// After so many answers in a row without a result nothing more is asked of a leader: it throttles.
const BARREN: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(3);
const OFFSET_OUT_OF_RANGE: i16 = 1;

/// What a pass is to tell.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// `None` for all.
    pub(super) groups: Option<&'a [String]>,
    pub(super) isolation: Isolation,
    pub(super) times: bool,
}

/// What a pass saw of a partition.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) group: Arc<str>,
    pub(super) place: Place,
    pub(super) committed: Option<Offset>,
    pub(super) end: Option<Offset>,
    /// `None` where it was not looked for.
    pub(super) oldest: Option<Oldest>,
    pub(super) reader: Reader,
    pub(super) member: Option<Arc<str>>,
}

/// What a pass saw.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) partitions: Vec<Seen>,
    pub(super) failures: Vec<Error>,
    /// Groups that could not be asked.
    pub(super) unasked: HashSet<Arc<str>>,
    /// Not all groups are known.
    pub(super) all_unsure: bool,
}

pub(super) fn now() -> Instant {
    Instant::now()
}

/// How long what passes by itself is asked for again: a partition without a leader must not hold up all others for long.
fn patience(inner: &Inner) -> Duration {
    inner.settings.request_timeout.min(PATIENCE)
}

/// Asks. `ages` are times of records that are known from before.
pub(super) async fn run(
    inner: &Inner,
    asked: &Asked<'_>,
    ages: &HashMap<(Place, Offset), Timestamp>,
) -> Result<Found> {
    let mut found = Found::default();
    let groups = match asked.groups {
        None => {
            let (groups, failed) = inner.list_groups(patience(inner)).await?;
            if groups.is_empty() && !failed.is_empty() {
                return Err(failed.into_iter().next().unwrap_or_else(|| left_out("groups")));
            }
            found.all_unsure = !failed.is_empty();
            found.failures.extend(failed);
            groups.into_iter().filter(ListedGroup::has_offsets).collect()
        }
        Some(names) => named_groups(inner, names, &mut found).await,
    };
    let known: HashMap<String, NodeId> = groups.iter().map(|g| (g.group.clone(), g.coordinator)).collect();
    let names: Vec<String> = groups.iter().map(|g| g.group.clone()).collect();
    let mut commits = inner.commits(names, known.clone(), patience(inner)).await;

    // Only those that have members need be asked for them.
    let active = groups.iter().filter(|g| has_members(g)).map(|g| g.group.clone()).collect();
    let mut described = inner.describe_groups(active, known, patience(inner)).await;

    for group in &groups {
        let name: Arc<str> = group.group.as_str().into();
        match commits.remove(&group.group).unwrap_or_else(|| Err(left_out(format_args!("group {name}")))) {
            Ok((commits, refused)) => {
                found.failures.extend(refused);
                let described = described.remove(&group.group).and_then(Result::ok);
                enter(&mut found.partitions, &name, group, commits, described.as_ref());
            }
            Err(e) => {
                found.failures.push(e.context(format!("lag of group {name}")));
                found.unasked.insert(name);
            }
        }
    }
    ends(inner, asked.isolation, &mut found).await;
    if asked.times {
        times(inner, asked.isolation, ages, &mut found).await;
    }
    Ok(found)
}

/// Looks these groups up at their coordinators.
async fn named_groups(inner: &Inner, names: &[String], found: &mut Found) -> Vec<ListedGroup> {
    let mut groups = BTreeMap::new();
    let mut left: Vec<String> = names.to_vec();
    let mut failed: Vec<(String, Error)> = Vec::new();
    // Twice: a group that moved meanwhile is listed by neither of two brokers.
    for _ in 0..2 {
        failed.clear();
        let mut by_node: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
        for (name, node) in inner.locate(Coordinated::Group, left, patience(inner)).await {
            match node {
                Ok(node) => by_node.entry(node).or_default().push(name),
                Err(e) => failed.push((name, e)),
            }
        }
        let (listed, unlisted) =
            inner.list_groups_at(by_node.keys().copied().collect(), patience(inner)).await;
        let asked: HashSet<&String> = by_node.values().flatten().collect();
        let listed = listed.into_iter().filter(|g| asked.contains(&g.group));
        groups.extend(listed.map(|g| (g.group.clone(), g)));
        let why = unlisted.into_iter().next();
        for name in by_node.values().flatten().filter(|name| !groups.contains_key(*name)) {
            let e = match &why {
                Some(e) => e.duplicate(),
                None => {
                    let why = "it is not there, or you lack the right to see it; check the group's name";
                    Error::new(ErrorKind::NotFound, why)
                }
            };
            failed.push((name.clone(), e));
        }
        if failed.is_empty() {
            break;
        }
        left = failed.iter().map(|(name, _)| name.clone()).collect();
    }
    for (name, e) in failed {
        found.failures.push(e.context(format!("lag of group {name}")));
        found.unasked.insert(name.into());
    }
    groups.into_values().collect()
}

fn has_members(group: &ListedGroup) -> bool {
    group.protocol_type == "consumer" && !matches!(group.state, GroupState::Empty | GroupState::Dead)
}

/// Enters a group's partitions: those committed, and those that a member has without a commit.
fn enter(
    partitions: &mut Vec<Seen>,
    name: &Arc<str>,
    group: &ListedGroup,
    commits: Vec<(Place, Offset)>,
    described: Option<&GroupDescription>,
) {
    let mut owners: HashMap<Place, Arc<str>> = HashMap::new();
    for member in described.map(|d| &d.members[..]).unwrap_or_default() {
        let id: Arc<str> = member.member.as_str().into();
        for (topic, assigned) in &member.assigned {
            owners.extend(assigned.iter().map(|p| ((topic.clone(), *p), Arc::clone(&id))));
        }
    }
    // What nobody has is known where all is assigned, and where there are no members at all.
    let settled = match described {
        Some(d) => matches!(d.state, GroupState::Stable | GroupState::Empty),
        None => group.protocol_type == "consumer" && group.state == GroupState::Empty,
    };
    let mut seen = |place: Place, committed: Option<Offset>, member: Option<Arc<str>>| {
        let reader = match &member {
            Some(_) => Reader::Member,
            None if settled => Reader::Nobody,
            None => Reader::Unknown,
        };
        let group = Arc::clone(name);
        partitions.push(Seen { group, place, committed, end: None, oldest: None, reader, member });
    };
    for (place, offset) in commits {
        let member = owners.remove(&place);
        seen(place, Some(offset), member);
    }
    for (place, member) in owners {
        seen(place, None, Some(member));
    }
}

/// Asks the leaders for the ends, each partition once.
async fn ends(inner: &Inner, isolation: Isolation, found: &mut Found) {
    let places: BTreeSet<Place> = found.partitions.iter().map(|s| s.place.clone()).collect();
    let told = inner.list_each(places.into_iter().collect(), At::Latest, isolation, patience(inner)).await;
    let mut ends = HashMap::with_capacity(told.len());
    for (place, end) in told {
        match end {
            Ok(Some(end)) => drop(ends.insert(place, end)),
            Ok(None) => {}
            Err(e) => found.failures.push(e.context(format!("the end of {}", named(&place)))),
        }
    }
    for s in &mut found.partitions {
        s.end = ends.get(&s.place).copied();
    }
}

/// Looks for the oldest records that are not committed, each commit once however many groups have it.
async fn times(
    inner: &Inner,
    isolation: Isolation,
    ages: &HashMap<(Place, Offset), Timestamp>,
    found: &mut Found,
) {
    let mut known: HashMap<(Place, Offset), Oldest> = HashMap::new();
    let mut searches = BTreeMap::new();
    for s in &found.partitions {
        let (Some(committed), Some(end)) = (s.committed, s.end) else { continue };
        if committed >= end {
            continue;
        }
        let key = (s.place.clone(), committed);
        match ages.get(&key) {
            Some(time) => drop(known.insert(key, Oldest::Record(Some(*time)))),
            None => drop(searches.insert(key, end)),
        }
    }
    let asked =
        searches.iter().map(|((place, from), end)| (place.clone(), (*from, Search::new(*from, *end))));
    let mut gone = BTreeMap::new();
    for (place, (from, _), oldest) in search(inner, isolation, asked.collect()).await {
        match oldest {
            Ok(Oldest::Gone) => gone.entry(place).or_insert_with(Vec::new).push(from),
            Ok(oldest) => drop(known.insert((place, from), oldest)),
            Err(e) => {
                let what = format!("the oldest record of {} from offset {from} on", named(&place));
                found.failures.push(certain(e).context(what));
                known.insert((place, from), Oldest::Unknown);
            }
        }
    }
    if !gone.is_empty() {
        // What they had not committed is deleted in part: the oldest is the first that is left.
        let places = gone.keys().cloned().collect();
        let starts = inner.list_each(places, At::Earliest, isolation, patience(inner)).await;
        let mut again = Vec::new();
        for (place, start) in starts {
            let end = gone.get(&place).and_then(|froms| searches.get(&(place.clone(), *froms.first()?)));
            match (start, end) {
                (Ok(Some(start)), Some(end)) if start < *end => {
                    again.push((place, (start, Search::new(start, *end))));
                }
                (Ok(Some(_)), Some(_)) => {
                    for from in gone.remove(&place).unwrap_or_default() {
                        known.insert((place.clone(), from), Oldest::Nothing);
                    }
                }
                _ => {}
            }
        }
        for (place, _, oldest) in search(inner, isolation, again).await {
            for from in gone.remove(&place).unwrap_or_default() {
                known.insert((place.clone(), from), *oldest.as_ref().unwrap_or(&Oldest::Unknown));
            }
        }
    }
    for s in &mut found.partitions {
        let Some(committed) = s.committed else { continue };
        s.oldest = known.get(&(s.place.clone(), committed)).copied();
    }
}

/// A search and the offset from which it was asked for.
type Asking = (Offset, Search);

async fn search(
    inner: &Inner,
    isolation: Isolation,
    asked: Vec<(Place, Asking)>,
) -> Vec<(Place, Asking, Result<Oldest>)> {
    inner.at_leaders(asked, SEARCHES, patience(inner), |link, asked| search_at(link, asked, isolation)).await
}

/// Fetches from one leader until all searches there have ended.
async fn search_at(
    link: Arc<Link>,
    asked: Vec<(Place, Asking)>,
    isolation: Isolation,
) -> Result<Vec<(Place, Asking, Result<Oldest>)>> {
    let mut waiting: VecDeque<(Place, Asking)> = asked.into();
    let mut done = Vec::with_capacity(waiting.len());
    // Answers in a row that ended no search.
    let mut barren = 0;
    while !waiting.is_empty() {
        if barren == BARREN {
            done.extend(waiting.drain(..).map(|(place, asking)| (place, asking, Ok(Oldest::Unknown))));
            break;
        }
        let before = done.len();
        // A request names each partition once; another commit of the same partition waits for the next.
        let mut places = HashSet::new();
        let (current, later): (Vec<_>, Vec<_>) =
            waiting.drain(..).partition(|(place, _)| places.insert(place.clone()));
        let answer = link.call(request(&current, isolation)).await?;
        judge_leader(answer.error_code, || "fetch".to_owned())?;
        let mut told: HashMap<Place, PartitionData> = HashMap::with_capacity(current.len());
        let mut topics = Interned::default();
        for t in answer.responses {
            let Some(topic) = topics.get(t.topic.0.as_str()) else { continue };
            for p in t.partitions {
                told.insert((topic.clone(), Partition(p.partition_index)), p);
            }
        }
        // A broker that throttles (KIP-219) may answer without any records.
        let mut first = answer.throttle_time_ms <= 0;
        for (place, (from, mut search)) in current {
            let stood_first = std::mem::take(&mut first);
            let outcome = match told.remove(&place) {
                None => Some(Err(left_out(named(&place)))),
                Some(p) if p.error_code == OFFSET_OUT_OF_RANGE => Some(Ok(Oldest::Gone)),
                Some(p) => match judge_leader(p.error_code, || named(&place)) {
                    Err(e) => Some(Err(e)),
                    Ok(()) => {
                        let aborted = p.aborted_transactions.unwrap_or_default();
                        let aborted =
                            aborted.iter().map(|a| (Offset(a.first_offset), ProducerId(a.producer_id.0)));
                        let records = p.records.unwrap_or_default();
                        search.handle_fetched(records, aborted.collect(), isolation, stood_first).map(Ok)
                    }
                },
            };
            match outcome {
                Some(outcome) => done.push((place, (from, search), outcome)),
                None => waiting.push_back((place, (from, search))),
            }
        }
        waiting.extend(later);
        barren = if done.len() > before { 0 } else { barren + 1 };
    }
    Ok(done)
}

/// One Fetch request, answered at once. The first search stands first, so that it is sure to be given something.
fn request(asked: &[(Place, Asking)], isolation: Isolation) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut at: HashMap<&Topic, usize> = HashMap::new();
    for ((topic, partition), (_, search)) in asked {
        let (offset, limit) = search.poll_ask(BYTES);
        let partition = FetchPartition::default()
            .with_partition(partition.0)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset.0)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(i32::try_from(limit).unwrap_or(i32::MAX));
        let index = *at.entry(topic).or_insert_with(|| {
            topics.push(FetchTopic::default().with_topic(topic_name(topic)));
            topics.len() - 1
        });
        if let Some(topic) = topics.get_mut(index) {
            topic.partitions.push(partition);
        }
    }
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(i32::try_from(BYTES).unwrap_or(i32::MAX))
        .with_isolation_level(isolation.code())
        // No session: every request names its partitions (KIP-227).
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(topics)
}
