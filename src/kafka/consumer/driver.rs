//! Drives the book: fetches from the leaders, finds lost offsets, commits.
#![allow(clippy::disallowed_methods, reason = "this file drives the machine: it reads the clock and sleeps")]

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::task::AtomicWaker;
use kafka_protocol::messages::FetchResponse;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::book::{Book, Fetch};
use super::commit::{self, Verdict};
use super::group::Identity;
use super::group::driver::Member;
use super::health::Trouble;
use super::notice::Notices;
use super::session::Session;
use super::{Isolation, Reset, fetch};
use crate::delivery::Commit;
use crate::kafka::client::{Client, lock};
use crate::kafka::group::{Committed, Wanted};
use crate::kafka::offsets::Place;
use crate::{Error, ErrorKind, NodeId, Offset, Result, Topic};

/// Between two tries of a commit, and of looking for committed offsets.
const COMMIT_PAUSE: Duration = Duration::from_millis(100);

/// What the consumer, its deliveries and its drivers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) book: Mutex<Book>,
    /// Wakes the reader.
    pub(crate) reader: AtomicWaker,
    /// Wakes the driver.
    pub(crate) work: Notify,
    pub(crate) stop: AtomicBool,
    pub(crate) group: Option<String>,
    /// A member of the group, whose partitions come and go.
    pub(crate) member: Option<Member>,
    pub(crate) notices: Notices,
    /// What is wrong with the group's coordinator.
    pub(crate) trouble: Trouble,
    pub(crate) reset: Reset,
    pub(crate) isolation: Isolation,
    pub(crate) max_batch_bytes: usize,
    /// Where this consumer runs, for brokers that name a nearer replica (KIP-392).
    pub(crate) rack: Option<String>,
    pub(crate) commit_interval: Duration,
    /// One commit at a time: a slow older one must not overwrite a newer.
    pub(crate) committing: tokio::sync::Mutex<()>,
}

impl Shared {
    /// The last delivery in hand of a partition that is to go has been settled, perhaps.
    pub(crate) fn tell_released(&self, released: bool) {
        if let Some(member) = self.member.as_ref().filter(|_| released) {
            member.work.notify_one();
        }
    }

    /// Commits what is settled and not committed. Tries again for as long as a request may take.
    pub(crate) async fn commit(&self) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let _one = self.committing.lock().await;
        let deadline = Instant::now() + self.client.inner.settings.request_timeout;
        let mut bare = HashSet::new();
        loop {
            let identity = self.member.as_ref().map(Member::identity);
            let due = lock(&self.book).poll_commit();
            if due.is_empty() {
                return Ok(());
            }
            // A member that has no place in the group has no partitions either, soon.
            let again = if let Some(None) = identity {
                let e = format!("group {group}: this consumer is not its member at the moment");
                Error::new(ErrorKind::Conflict, e).retryable(true)
            } else {
                let identity = identity.flatten();
                match self.try_commit(group, identity.as_ref(), &due, &mut bare).await? {
                    Some(e) => e,
                    None => return Ok(()),
                }
            };
            if Instant::now() >= deadline {
                return Err(again);
            }
            tracing::debug!(group, error = %again.report(), "committing again");
            tokio::time::sleep(COMMIT_PAUSE).await;
        }
    }

    /// Once. `None` where all is in; an error where it is to be tried again.
    async fn try_commit(
        &self,
        group: &str,
        identity: Option<&Identity>,
        due: &[(usize, Place, Commit)],
        bare: &mut HashSet<usize>,
    ) -> Result<Option<Error>> {
        let entry = |(part, place, commit): &(usize, Place, Commit)| {
            let metadata = if bare.contains(part) { String::new() } else { commit.metadata.clone() };
            (place.clone(), Committed { offset: commit.offset, metadata })
        };
        let entries: Vec<_> = due.iter().map(entry).collect();
        let codes = match self.client.inner.commit(group, identity, &entries).await {
            Ok(codes) => codes,
            Err(e) if e.is_retryable() => return Ok(Some(e)),
            Err(e) => return Err(e),
        };
        let is_member = identity.is_some();
        let mut again = None;
        let mut refused = None;
        let mut told = None;
        {
            let mut book = lock(&self.book);
            for ((part, place, commit), code) in due.iter().zip(codes) {
                let error = || commit::error(group, place, code, is_member);
                match commit::judge(code, is_member) {
                    Verdict::Done => book.handle_committed(*part, commit),
                    Verdict::Again => again = again.or_else(|| Some(error())),
                    Verdict::Shorter if bare.insert(*part) => again = again.or_else(|| Some(error())),
                    Verdict::Behind => {
                        told = Some(code);
                        again = again.or_else(|| Some(error()));
                    }
                    Verdict::Fenced => {
                        told = Some(code);
                        refused = refused.or_else(|| Some(error()));
                    }
                    Verdict::Shorter | Verdict::Refused => refused = refused.or_else(|| Some(error())),
                }
            }
        }
        if let (Some(code), Some(identity), Some(member)) = (told, identity, &self.member) {
            member.handle_refused_commit(identity, code);
        }
        match refused {
            Some(e) => Err(e),
            None => Ok(again),
        }
    }

    /// The offset that the reset policy gives for a partition whose offset is not in the log.
    async fn reset_offset(&self, place: &Place, lost: Offset) -> Result<Offset> {
        let Some(at) = self.reset.at(self.client.inner.nature.wall()) else {
            let (topic, partition) = place;
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "topic {topic} partition {partition}: offset {lost} is not in the log any more, and the reset \
                     policy is to stop; start from another offset or choose another policy"
                ),
            ));
        };
        let found = self.client.inner.list_offsets(vec![place.clone()], at, self.isolation).await?;
        found.get(place).copied().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("topic {} partition {}: no offset", place.0, place.1))
        })
    }

    /// Where partitions begin that this member was given: where the group has committed, or as the policy says.
    async fn first_offsets(&self, places: &[Place]) -> Result<Firsts> {
        let inner = &self.client.inner;
        let Some(group) = &self.group else { return Ok(HashMap::new()) };
        let stored = inner.fetch_committed(group, Wanted::Places(places)).await?;
        let missing: Vec<Place> = places.iter().filter(|p| !stored.contains_key(*p)).cloned().collect();
        let mut found: Firsts =
            stored.into_iter().map(|(place, c)| (place, Ok((c.offset, c.metadata)))).collect();
        let Some(at) = self.reset.at(inner.nature.wall()) else {
            found.extend(missing.into_iter().map(|place| {
                let e = super::no_stored_offset(group, &place);
                (place, Err(e))
            }));
            return Ok(found);
        };
        if !missing.is_empty() {
            let offsets = inner.list_offsets(missing, at, self.isolation).await?;
            found.extend(offsets.into_iter().map(|(place, offset)| (place, Ok((offset, String::new())))));
        }
        Ok(found)
    }
}

enum Event {
    Fetched(Fetch, Result<FetchResponse>),
    Reset(Vec<(usize, Result<Offset>)>),
    Found(Vec<(usize, u64, Place)>, Result<Firsts>),
    Refreshed,
    Committed(Result<()>),
    Woken,
}

/// The driver of one consumer. Ends when it is told to stop, after a last commit.
pub(crate) async fn run(shared: Arc<Shared>) {
    let lane = shared.client.inner.own_lane();
    let mut calls = FuturesUnordered::new();
    let mut busy: HashSet<NodeId> = HashSet::new();
    let mut sessions: HashMap<NodeId, Session> = HashMap::new();
    let mut refresh = None;
    let mut resets = None;
    let mut firsts = None;
    let mut commit = None;
    let mut commit_at = Instant::now() + shared.commit_interval;
    let mut commit_failed = false;
    while !shared.stop.load(Ordering::Acquire) {
        let now = Instant::now();
        let (fetches, leaderless, lost, finding, timeout) = {
            let mut book = lock(&shared.book);
            let cluster = shared.client.inner.cluster();
            let (fetches, leaderless) = book.poll_fetch(
                now.into_std(),
                |topic, partition| {
                    let view = cluster.partition(topic, partition)?;
                    Some((view.leader?, view.epoch))
                },
                |node| !busy.contains(&node),
            );
            (fetches, leaderless, book.lost(), book.finding(), book.poll_timeout(now.into_std()))
        };
        for fetch in fetches {
            busy.insert(fetch.node);
            let plan = sessions.entry(fetch.node).or_default().plan(&fetch.asks);
            calls.push(fetch::call(&shared, &lane, fetch, plan));
        }
        if refresh.is_none() && !leaderless.is_empty() {
            refresh = Some(Box::pin(ask(&shared, leaderless)));
        }
        if resets.is_none() && !lost.is_empty() {
            resets = Some(Box::pin(find(&shared, lost)));
        }
        if firsts.is_none() && !finding.is_empty() {
            firsts = Some(Box::pin(find_first(&shared, finding)));
        }
        if commit.is_none() && shared.group.is_some() && now >= commit_at {
            commit = Some(Box::pin(shared.commit()));
        }
        let mut wake_at = timeout.map_or(now + Duration::from_secs(60), Instant::from_std);
        if commit.is_none() && shared.group.is_some() {
            wake_at = wake_at.min(commit_at);
        }
        // In one order always, so that a run can be repeated; what is seldom stands first, so that it never starves.
        let event = tokio::select! {
            biased;
            result = until(&mut commit) => Event::Committed(result),
            found = until(&mut resets) => Event::Reset(found),
            (asked, found) = until(&mut firsts) => Event::Found(asked, found),
            () = until(&mut refresh) => Event::Refreshed,
            Some((fetch, answer)) = calls.next(), if !calls.is_empty() => Event::Fetched(fetch, answer),
            () = shared.work.notified() => Event::Woken,
            () = tokio::time::sleep_until(wake_at) => Event::Woken,
        };
        match event {
            Event::Fetched(fetch, answer) => {
                busy.remove(&fetch.node);
                let session = sessions.entry(fetch.node).or_default();
                let stale = fetch::handle(&shared, &fetch, answer, session);
                shared.reader.wake();
                if !stale.is_empty() && refresh.is_none() {
                    refresh = Some(Box::pin(ask(&shared, stale)));
                }
            }
            Event::Reset(found) => {
                resets = None;
                let mut book = lock(&shared.book);
                for (part, offset) in found {
                    match offset {
                        Ok(offset) => book.handle_reset(part, offset),
                        Err(e) if e.is_retryable() => {
                            tracing::warn!(error = %e.report(), "looking for an offset again");
                        }
                        Err(e) => book.handle_fault(part, e),
                    }
                }
                drop(book);
                shared.reader.wake();
            }
            Event::Found(asked, found) => {
                firsts = None;
                take_first(&shared, asked, found);
                shared.reader.wake();
            }
            Event::Refreshed => refresh = None,
            Event::Committed(result) => {
                commit = None;
                commit_at = Instant::now() + shared.commit_interval;
                match result {
                    Ok(()) => commit_failed = false,
                    Err(e) => {
                        tracing::warn!(error = %e.report(), "commit failed; it is tried again at the next interval");
                        // What will not pass by itself is the application's to know, once.
                        if !e.is_retryable() && !std::mem::replace(&mut commit_failed, true) {
                            lock(&shared.book).handle_trouble(e);
                            shared.reader.wake();
                        }
                    }
                }
            }
            Event::Woken => {}
        }
    }
    drop(commit);
    drop(calls);
    drop(firsts);
    if let Err(e) = shared.commit().await {
        tracing::warn!(error = %e.report(), "the last commit failed: what it held comes again");
    }
    lock(&shared.book).revoke();
    shared.reader.wake();
    if let Some(member) = &shared.member {
        member.leaving.store(true, Ordering::Release);
        member.work.notify_one();
    }
}

type Firsts = HashMap<Place, Result<(Offset, String)>>;

async fn find_first(
    shared: &Shared,
    asked: Vec<(usize, u64, Place)>,
) -> (Vec<(usize, u64, Place)>, Result<Firsts>) {
    let places: Vec<Place> = asked.iter().map(|(_, _, place)| place.clone()).collect();
    let found = shared.first_offsets(&places).await;
    if found.is_err() {
        // The next try comes at once otherwise.
        tokio::time::sleep(COMMIT_PAUSE).await;
    }
    (asked, found)
}

fn take_first(shared: &Shared, asked: Vec<(usize, u64, Place)>, found: Result<Firsts>) {
    let mut book = lock(&shared.book);
    let mut found = match found {
        Ok(found) => found,
        Err(e) if e.is_retryable() => {
            return tracing::warn!(error = %e.report(), "looking for committed offsets again");
        }
        Err(e) => {
            for (part, term, _) in asked {
                book.handle_no_position(part, term, e.duplicate());
            }
            return;
        }
    };
    for (part, term, place) in asked {
        match found.remove(&place) {
            Some(Ok((offset, metadata))) => book.handle_position(part, term, offset, Some(&metadata)),
            Some(Err(e)) => book.handle_no_position(part, term, e),
            None => {}
        }
    }
}

/// Waits for a future that may not be there; for ever without one.
async fn until<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn ask(shared: &Shared, topics: Vec<Topic>) {
    if let Err(e) = shared.client.inner.refresh(&topics, false).await {
        tracing::debug!(error = %e.report(), "metadata could not be refreshed");
    }
}

async fn find(shared: &Shared, lost: Vec<(usize, Place, Offset)>) -> Vec<(usize, Result<Offset>)> {
    let mut out = Vec::with_capacity(lost.len());
    for (part, place, offset) in lost {
        let found = shared.reset_offset(&place, offset).await;
        if let Ok(to) = &found {
            tracing::warn!(topic = %place.0, partition = %place.1, %offset, %to, "offset out of range: reset");
        }
        out.push((part, found));
    }
    out
}
