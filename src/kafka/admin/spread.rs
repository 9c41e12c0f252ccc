//! Questions about many groups or many partitions at once: one request for each coordinator or leader, not one for each of
//! them.
//!
//! ```text
//! names -> who coordinates them (1,000 a question) -> chunks by broker -> at most 16 requests on their way
//!            ^-- those whose coordinator moved or did not answer, while there is patience ---'
//! ```
//! Each name or partition ends with an outcome of its own: that one is refused does not hold up the others. All requests go
//! over the connection to each broker that the client has anyway.
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it reads the clock and sleeps")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::messages::FindCoordinatorRequest;
use tokio::time::Instant;

use crate::kafka::client::{Inner, text};
use crate::kafka::cluster::Cluster;
use crate::kafka::errors;
use crate::kafka::group::Coordinated;
use crate::kafka::offsets::Place;
use crate::kafka::wire::Link;
use crate::kafka::wire::api::admin::FindCoordinators;
use crate::{Error, ErrorKind, NodeId, Result, Topic};

/// How many requests are on their way at once.
pub(in crate::kafka) const AT_ONCE: usize = 16;
/// How many names one question for coordinators holds.
const NAMES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(100);

/// Runs all, so many at once, and gives their outcomes in no order.
pub(in crate::kafka) async fn bounded<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut waiting = futures.into_iter();
    let mut running: FuturesUnordered<F> = waiting.by_ref().take(AT_ONCE).collect();
    let mut done = Vec::new();
    while let Some(output) = running.next().await {
        done.push(output);
        running.extend(waiting.next());
    }
    done
}

/// A coordinator's code as an outcome. What a new look at coordinators may mend is retryable.
pub(in crate::kafka) fn judge(code: i16, what: impl FnOnce() -> String) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let e = errors::broker(code, what());
    let again = e.is_retryable() && e.kind() != ErrorKind::NotFound;
    Err(e.retryable(again || errors::wants_coordinator(code)))
}

/// A leader's code as an outcome. What a new look at leaders may mend is retryable.
pub(in crate::kafka) fn judge_leader(code: i16, what: impl FnOnce() -> String) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let e = errors::broker(code, what());
    let again = e.is_retryable() || errors::wants_refresh(code);
    Err(e.retryable(again))
}

/// An answer that leaves out something that it was asked for.
pub(in crate::kafka) fn left_out(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Malformed, format!("{what}: the broker's answer leaves it out"))
}

/// The error of a question: nothing was asked to be done, so nothing is in doubt.
pub(in crate::kafka) fn certain(e: Error) -> Error {
    if e.is_ambiguous() { Error::new(e.kind(), e.report()).retryable(e.is_retryable()) } else { e }
}

/// A request's failure for one of those that it was about.
fn share(e: &Error, what: impl std::fmt::Display) -> Error {
    e.duplicate().context(what)
}

impl Inner {
    /// The brokers that coordinate these groups or transactional ids, by name. Each is asked for once.
    pub(in crate::kafka) async fn find_coordinators(
        &self,
        of: Coordinated,
        names: &[String],
    ) -> HashMap<String, Result<NodeId>> {
        let mut found = HashMap::with_capacity(names.len());
        for names in names.chunks(NAMES) {
            match self.find_together(of, names).await {
                Ok(Some(answers)) => found.extend(answers),
                // Kafka before 3.0.
                Ok(None) => {
                    let one = names.iter().map(|name| self.find_one(of, name));
                    found.extend(bounded(one.collect()).await);
                }
                Err(e) => {
                    found.extend(names.iter().map(|name| (name.clone(), Err(share(&e, of.what(name))))))
                }
            }
        }
        found
    }

    async fn find_one(&self, of: Coordinated, name: &str) -> (String, Result<NodeId>) {
        (name.to_owned(), self.find_coordinator(of, name).await)
    }

    /// As [`find_coordinators`](Self::find_coordinators), again and again for those that have none yet, while there is
    /// patience.
    pub(in crate::kafka) async fn locate(
        &self,
        of: Coordinated,
        names: Vec<String>,
        patience: Duration,
    ) -> HashMap<String, Result<NodeId>> {
        let deadline = Instant::now() + patience;
        let mut done = HashMap::with_capacity(names.len());
        let mut left = names;
        loop {
            let found = self.find_coordinators(of, &left).await;
            let late = Instant::now() >= deadline;
            left.retain(|name| {
                let wait = found.get(name).is_some_and(|node| node.as_ref().is_err_and(Error::is_retryable));
                wait && !late
            });
            for (name, node) in found {
                // An outcome of before is replaced: the last one counts.
                done.insert(name, node);
            }
            if left.is_empty() {
                return done;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// `None` where the broker that answers cannot be asked for several.
    async fn find_together(
        &self,
        of: Coordinated,
        names: &[String],
    ) -> Result<Option<Vec<(String, Result<NodeId>)>>> {
        let keys = names.iter().map(|name| text(name)).collect();
        let request = FindCoordinatorRequest::default().with_key_type(of as i8).with_coordinator_keys(keys);
        // As for one: a broker that stays silent must not hold up the question for as long as a request may take.
        let limit = self.settings.connect_timeout;
        let mut last = Error::new(ErrorKind::Unavailable, "no Kafka broker is known");
        for node in self.brokers_to_ask() {
            let asked = async {
                let link = self.link(node).await?;
                if link.version::<FindCoordinators>().is_none() {
                    return Ok(None);
                }
                link.call_within(FindCoordinators(request.clone()), limit).await.map(Some)
            };
            let answer = match tokio::time::timeout(limit, asked).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(e)) => {
                    last = certain(e);
                    continue;
                }
                Err(_) => {
                    let e = format!("broker {node} did not name the coordinators within {limit:?}");
                    last = Error::new(ErrorKind::Timeout, e);
                    continue;
                }
            };
            let found = answer.coordinators.into_iter().map(|c| {
                let name = c.key.as_str().to_owned();
                let node = NodeId(c.node_id.0);
                let what = || format!("{}: its coordinator", of.what(&name));
                let known = judge(c.error_code, what).and_then(|()| self.learn(node, &c.host, c.port, what));
                (name, known)
            });
            return Ok(Some(found.collect()));
        }
        Err(last)
    }

    fn learn(&self, node: NodeId, host: &str, port: i32, what: impl FnOnce() -> String) -> Result<NodeId> {
        let Ok(port) = u16::try_from(port) else {
            return Err(Error::new(ErrorKind::Malformed, format!("{} has the port {port}", what())));
        };
        let mut cluster = self.cluster();
        if cluster.address(node).is_none() {
            cluster.handle_broker(node, crate::kafka::wire::Address { host: host.to_owned(), port });
        }
        Ok(node)
    }

    /// Asks each coordinator for its groups or transactional ids, `chunk` in a request; `known` are coordinators that need
    /// not be looked for. A retryable outcome is asked for again, at its coordinator of then, while there is patience.
    ///
    /// A request that failed and whose work may have been done is repeated too: only for those that may run twice.
    pub(in crate::kafka) async fn at_coordinators<T, F>(
        &self,
        of: Coordinated,
        names: Vec<String>,
        mut known: HashMap<String, NodeId>,
        chunk: usize,
        patience: Duration,
        ask: impl Fn(Arc<Link>, Vec<String>) -> F,
    ) -> HashMap<String, Result<T>>
    where
        F: Future<Output = Result<HashMap<String, Result<T>>>>,
    {
        let deadline = Instant::now() + patience;
        let mut done = HashMap::with_capacity(names.len());
        let mut left = names;
        loop {
            let mut again: Vec<(String, Error)> = Vec::new();
            let unknown: Vec<String> = left.iter().filter(|n| !known.contains_key(*n)).cloned().collect();
            for (name, found) in self.find_coordinators(of, &unknown).await {
                match found {
                    Ok(node) => drop(known.insert(name, node)),
                    Err(e) if e.is_retryable() => again.push((name, e)),
                    Err(e) => drop(done.insert(name, Err(e))),
                }
            }
            let failed: HashSet<&String> = again.iter().map(|(name, _)| name).collect();
            let mut missing = Vec::new();
            let mut by_node: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
            for name in std::mem::take(&mut left) {
                match known.get(&name) {
                    Some(node) => by_node.entry(*node).or_default().push(name),
                    None if done.contains_key(&name) || failed.contains(&name) => {}
                    None => {
                        let e = left_out(of.what(&name)).retryable(true);
                        missing.push((name, e));
                    }
                }
            }
            again.extend(missing);
            let mut calls = Vec::new();
            for (node, names) in by_node {
                for names in names.chunks(chunk.max(1)) {
                    let (names, ask) = (names.to_vec(), &ask);
                    calls.push(async move {
                        let asked = async { ask(self.link(node).await?, names.clone()).await }.await;
                        (names, asked)
                    });
                }
            }
            for (names, asked) in bounded(calls).await {
                let mut outcomes = match asked {
                    Ok(outcomes) => outcomes,
                    Err(e) => names.iter().map(|n| (n.clone(), Err(share(&e, of.what(n))))).collect(),
                };
                for name in names {
                    let outcome = outcomes.remove(&name).unwrap_or_else(|| Err(left_out(of.what(&name))));
                    match outcome {
                        Err(e) if e.is_retryable() => again.push((name, e)),
                        outcome => drop(done.insert(name, outcome)),
                    }
                }
            }
            if again.is_empty() {
                return done;
            }
            if Instant::now() >= deadline {
                done.extend(again.into_iter().map(|(name, e)| (name, Err(e))));
                return done;
            }
            tracing::debug!(count = again.len(), "asking for coordinators again");
            tokio::time::sleep(PAUSE).await;
            let _ = self.refresh(&[], false).await;
            left = again.into_iter().map(|(name, _)| name).collect();
            for name in &left {
                known.remove(name);
            }
        }
    }

    /// Asks each leader about its partitions, `chunk` in a request. A retryable outcome is asked for again, at the leader of
    /// then, while there is patience; a partition that is not there, once.
    ///
    /// A request that failed and whose work may have been done is repeated too: only for those that may run twice.
    pub(in crate::kafka) async fn at_leaders<K, T, F>(
        &self,
        asked: Vec<(Place, K)>,
        chunk: usize,
        patience: Duration,
        ask: impl Fn(Arc<Link>, Vec<(Place, K)>) -> F,
    ) -> Vec<(Place, K, Result<T>)>
    where
        K: Clone,
        F: Future<Output = Result<Vec<(Place, K, Result<T>)>>>,
    {
        let deadline = Instant::now() + patience;
        let mut done = Vec::with_capacity(asked.len());
        let mut left = asked;
        let mut tries = 0u32;
        while !left.is_empty() {
            let known = |(place, _): &(Place, K)| self.cluster().leader(&place.0, place.1).is_some();
            // A leader that is none any more says so.
            let refreshed = if tries == 0 && left.iter().all(known) {
                Ok(())
            } else {
                let topics: BTreeSet<&Topic> = left.iter().map(|(place, _)| &place.0).collect();
                self.refresh(&topics.into_iter().cloned().collect::<Vec<_>>(), false).await
            };
            let mut again: Vec<(Place, K, Error)> = Vec::new();
            let mut by_leader: BTreeMap<NodeId, Vec<(Place, K)>> = BTreeMap::new();
            {
                let cluster = self.cluster();
                for (place, key) in left {
                    match cluster.leader(&place.0, place.1) {
                        Some(node) => by_leader.entry(node).or_default().push((place, key)),
                        None => {
                            let code = cluster.topic(&place.0).map_or(0, |view| view.error);
                            let e = match (&refreshed, code) {
                                (Err(e), _) => share(e, named(&place)),
                                (Ok(()), 0) => without_leader(&cluster, &place),
                                (Ok(()), code) => match judge_leader(code, || named(&place)) {
                                    Ok(()) => left_out(named(&place)),
                                    Err(e) => e,
                                },
                            };
                            again.push((place, key, e));
                        }
                    }
                }
            }
            let mut calls = Vec::new();
            for (node, places) in by_leader {
                for places in places.chunks(chunk.max(1)) {
                    let (places, ask) = (places.to_vec(), &ask);
                    calls.push(async move {
                        let asked = async { ask(self.link(node).await?, places.clone()).await }.await;
                        (places, asked)
                    });
                }
            }
            for (places, asked) in bounded(calls).await {
                let outcomes = match asked {
                    Ok(outcomes) => outcomes,
                    Err(e) => {
                        let failed = places.into_iter().map(|(place, key)| {
                            let e = share(&e, named(&place));
                            (place, key, Err(e))
                        });
                        failed.collect()
                    }
                };
                for (place, key, outcome) in outcomes {
                    match outcome {
                        Err(e) if e.is_retryable() => again.push((place, key, e)),
                        outcome => done.push((place, key, outcome)),
                    }
                }
            }
            tries += 1;
            let late = Instant::now() >= deadline;
            left = Vec::new();
            for (place, key, e) in again {
                if late || (tries > 1 && e.kind() == ErrorKind::NotFound) {
                    done.push((place, key, Err(e)));
                } else {
                    left.push((place, key));
                }
            }
            if !left.is_empty() {
                tracing::debug!(count = left.len(), "asking for leaders again");
                tokio::time::sleep(PAUSE).await;
            }
        }
        done
    }
}

/// Why a partition of a topic that is there has no leader.
fn without_leader(cluster: &Cluster, place: &Place) -> Error {
    let count = cluster.topic(&place.0).map_or(0, |view| view.partitions.len());
    if count > 0 && usize::try_from(place.1.0).map_or(true, |n| n >= count) {
        let why = format!("{} is not there: the topic has {count} partitions", named(place));
        // The broker that was asked may lag behind.
        return Error::new(ErrorKind::NotFound, why).retryable(true);
    }
    Error::new(ErrorKind::Unavailable, format!("{} has no leader", named(place)))
}

/// A partition for messages.
pub(in crate::kafka) fn named(place: &Place) -> String {
    format!("topic {} partition {}", place.0, place.1)
}

impl Coordinated {
    fn what(self, name: &str) -> String {
        match self {
            Self::Group => format!("group {name}"),
            Self::Transaction => format!("transactional id {name}"),
        }
    }
}
