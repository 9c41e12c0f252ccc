//! Runs admin requests at one broker after another, and finds out what became of a change whose answer was lost.
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it reads the clock and sleeps")]

use std::error::Error as _;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use tokio::time::Instant;

use super::super::client::{TOPIC_CREATE_WAIT, topic_name};
use super::super::errors;
use super::super::wire::api::Api;
use super::Admin;
use super::aim::{Aim, Before, Seen};
use super::topic::TopicDescription;
use crate::{Error, ErrorKind, NodeId, Result, Topic};

const UNKNOWN_SERVER_ERROR: i16 = -1;
const REQUEST_TIMED_OUT: i16 = 7;
const TOPIC_DENIED: i16 = 29;
const CLUSTER_DENIED: i16 = 31;
const NOT_CONTROLLER: i16 = 41;

/// The pause between two rounds of all brokers.
const PAUSE: Duration = Duration::from_millis(100);

/// What a look shows that shows no change.
const NOT_YET: &str = "at the last look it was not";

/// A change on its way.
pub(super) struct Subject<'a> {
    /// What it is, for messages.
    pub(super) what: &'a str,
    pub(super) topic: &'a Topic,
    pub(super) aim: Aim<'a>,
}

/// How a change was made.
pub(super) enum Answered<T> {
    /// The broker said so.
    Told(T),
    /// The answer was lost, and a look showed it.
    Lost,
}

/// A broker's refusal.
pub(super) struct Refusal;

impl Refusal {
    /// Judges a code; `right` is what the request needs.
    pub(super) fn check(code: i16, message: Option<&str>, what: &str, right: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let e = match code {
            TOPIC_DENIED | CLUSTER_DENIED => {
                let e = errors::broker(code, what);
                Error::new(ErrorKind::Denied, format!("{}: {right}", e.message()))
            }
            _ => errors::broker(code, what),
        };
        let e = match code {
            // The work may be done, or still be waiting at the controller.
            REQUEST_TIMED_OUT | UNKNOWN_SERVER_ERROR => e.ambiguous(),
            _ => {
                let again = code == NOT_CONTROLLER || e.kind() == ErrorKind::Unavailable;
                e.retryable(again)
            }
        };
        Err(match message.filter(|text| !text.is_empty()) {
            Some(text) => e.with_source(text),
            None => e,
        })
    }
}

/// An answer without the topic that was asked about.
pub(super) fn empty() -> Error {
    Error::new(ErrorKind::Malformed, "the answer leaves out the topic")
}

/// The same error in other words, and certain.
fn sure(e: &Error, message: String) -> Error {
    let told = Error::new(e.kind(), message).retryable(e.is_retryable());
    match e.source() {
        Some(source) => told.with_source(source.to_string()),
        None => told,
    }
}

/// Names the change, where the message does not begin with it.
fn named(e: &Error, what: &str) -> String {
    if e.message().starts_with(what) { e.message().to_owned() } else { format!("{what}: {}", e.message()) }
}

impl Subject<'_> {
    /// It failed and nothing was done.
    fn undone(&self, e: &Error) -> Error {
        sure(e, format!("{}; {}", named(e, self.what), self.aim.undone()))
    }

    /// It is not known what was done; `why` a look did not tell.
    fn unknown(&self, e: &Error, why: &str) -> Error {
        sure(e, format!("{}; {} ({why})", named(e, self.what), self.aim.unknown())).ambiguous()
    }
}

impl Admin {
    /// How long a broker may take for a change.
    pub(super) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.inner.settings.request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.client.inner.cluster().nodes().map(|(node, _)| node).collect()
    }

    async fn ask<R: Api>(&self, node: NodeId, request: R, limit: Duration) -> Result<R::Answer> {
        self.client.inner.link(node).await?.call_within(request, limit).await
    }

    /// Asks until an answer is taken by `judge`, at most the request timeout. For requests that change nothing.
    /// `judge` is no async closure: the futures of those are not `Send` for a caller that spawns.
    pub(super) async fn read<R, T>(
        &self,
        what: &str,
        request: R,
        judge: impl Fn(&R::Answer) -> Result<T>,
    ) -> Result<T>
    where
        R: Api + Clone,
    {
        let limit = self.client.inner.settings.request_timeout;
        let deadline = Instant::now() + limit;
        loop {
            let mut last = Error::new(ErrorKind::Unavailable, "no Kafka broker is known");
            for node in self.nodes() {
                match self.ask(node, request.clone(), limit).await.and_then(|answer| judge(&answer)) {
                    Ok(told) => return Ok(told),
                    Err(e) if e.is_retryable() => last = e,
                    // Nothing was asked to be changed, so nothing is in doubt.
                    Err(e) => return Err(sure(&e, named(&e, what))),
                }
            }
            if Instant::now() >= deadline {
                return Err(sure(&last, named(&last, what)));
            }
            tokio::time::sleep(PAUSE).await;
            // Its failure is told by the next round.
            let _ = self.client.inner.refresh(&[], false).await;
        }
    }

    /// Makes a change: asks one broker after another until one has done it, refused it, or left it unknown. Then the topic
    /// is looked at, and where the change was not made it is asked for again, until the request timeout has passed.
    pub(super) async fn change<R, T>(
        &self,
        subject: &Subject<'_>,
        request: R,
        throttled: impl Fn(&R::Answer) -> i32,
        judge: impl Fn(&R::Answer) -> Result<T>,
    ) -> Result<Answered<T>>
    where
        R: Api + Clone,
    {
        let limit = self.client.inner.settings.request_timeout;
        let deadline = Instant::now() + limit;
        let before = match self.look(subject.topic).await {
            Ok(None) => Before::Absent,
            Ok(Some(topic)) => Before::There(topic),
            Err(_) => Before::Unknown,
        };
        // An attempt whose outcome is not known.
        let mut lost: Option<Error> = None;
        loop {
            let mut pause = PAUSE;
            let mut last = Error::new(ErrorKind::Unavailable, "no Kafka broker is known");
            for node in self.nodes() {
                let answer = self.ask(node, request.clone(), limit).await;
                if let Ok(answer) = &answer {
                    let ms = u64::try_from(throttled(answer)).unwrap_or(0);
                    pause = pause.max(Duration::from_millis(ms));
                }
                match answer.and_then(|answer| judge(&answer)) {
                    Ok(told) => return Ok(Answered::Told(told)),
                    Err(e) if e.is_ambiguous() => {
                        lost = Some(e.duplicate());
                        last = e;
                        break;
                    }
                    Err(e) if e.is_retryable() => last = e,
                    Err(e) if lost.is_none() => return Err(subject.undone(&e)),
                    // It may be the echo of the attempt that was lost.
                    Err(e) => {
                        return match self.seen(subject, &before).await {
                            Ok(Seen::Made) => Ok(Answered::Lost),
                            Ok(Seen::NotMade) => Err(subject.unknown(&e, NOT_YET)),
                            Ok(Seen::Refused(..)) => Err(subject.undone(&e)),
                            Ok(Seen::Unclear(why)) => Err(subject.unknown(&e, &why)),
                            Err(look) => Err(subject.unknown(&e, &look.report())),
                        };
                    }
                }
            }
            let late = Instant::now() >= deadline;
            match &lost {
                None if late => return Err(subject.undone(&last)),
                None => {}
                Some(e) => match self.seen(subject, &before).await {
                    Ok(Seen::Made) => return Ok(Answered::Lost),
                    Ok(Seen::Refused(kind, why)) => {
                        let e = Error::new(kind, format!("{why}, and the broker's answer was lost"));
                        return Err(subject.undone(&e));
                    }
                    Ok(Seen::Unclear(why)) => return Err(subject.unknown(e, &why)),
                    Ok(Seen::NotMade) if late || !e.is_retryable() => {
                        return Err(subject.unknown(e, NOT_YET));
                    }
                    Ok(Seen::NotMade) => {}
                    Err(look) if late => return Err(subject.unknown(e, &look.report())),
                    Err(_) => {}
                },
            }
            tokio::time::sleep(pause.min(deadline.saturating_duration_since(Instant::now())).max(PAUSE))
                .await;
            let _ = self.client.inner.refresh(&[], false).await;
        }
    }

    /// Looks whether a change was made.
    async fn seen(&self, subject: &Subject<'_>, before: &Before) -> Result<Seen> {
        let now = self.look(subject.topic).await?;
        let configs = if now.is_some() && subject.aim.needs_configs() {
            Some(Box::pin(self.topic_configs(subject.topic)).await?)
        } else {
            None
        };
        Ok(subject.aim.seen(before, now.as_ref(), configs.as_deref()))
    }

    /// One Metadata answer, of the first broker that gives one.
    async fn metadata(&self, topic: Option<&Topic>) -> Result<MetadataResponse> {
        let topics = topic.map(|t| vec![MetadataRequestTopic::default().with_name(Some(topic_name(t)))]);
        let request = MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        let limit = self.client.inner.settings.connect_timeout;
        let mut last = Error::new(ErrorKind::Unavailable, "no Kafka broker is known");
        for node in self.nodes() {
            match self.ask(node, request.clone(), limit).await {
                Ok(answer) => return Ok(answer),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// A topic as the first broker that answers tells it; `None` where it is not there.
    async fn look(&self, topic: &Topic) -> Result<Option<TopicDescription>> {
        let answer = self.metadata(Some(topic)).await?;
        let Some(told) = answer.topics.first() else { return Err(empty()) };
        match told.error_code {
            0 => TopicDescription::read(told).map(Some).ok_or_else(empty),
            code => {
                let e = errors::broker(code, format!("describe topic {topic}"));
                if e.kind() == ErrorKind::NotFound { Ok(None) } else { Err(e) }
            }
        }
    }

    /// A topic, waiting for it at most `wait`.
    pub(super) async fn described(&self, topic: &Topic, wait: Duration) -> Result<TopicDescription> {
        let deadline = Instant::now() + wait;
        loop {
            let e = match self.look(topic).await {
                Ok(Some(told)) => return Ok(told),
                Ok(None) => Error::new(
                    ErrorKind::NotFound,
                    format!("topic {topic} is not there; create the topic, or check its name"),
                ),
                Err(e) if e.is_retryable() => e,
                Err(e) => return Err(e),
            };
            if Instant::now() >= deadline {
                return Err(e);
            }
            tokio::time::sleep(PAUSE).await;
            let _ = self.client.inner.refresh(&[], false).await;
        }
    }

    /// All topics.
    pub(super) async fn every_topic(&self) -> Result<Vec<TopicDescription>> {
        self.client.inner.refresh(&[], false).await?;
        let answer = self.metadata(None).await?;
        Ok(answer.topics.iter().filter_map(TopicDescription::read).collect())
    }

    /// Waits until the client knows so many partitions, all with leaders.
    pub(super) async fn grown(&self, topic: &Topic, total: i32) -> Result<()> {
        let total = usize::try_from(total).unwrap_or(0);
        let deadline = Instant::now() + TOPIC_CREATE_WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let known = self.client.inner.topic(topic, false, left).await?.len();
            if known >= total {
                return Ok(());
            }
            if left.is_zero() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("topic {topic}: the brokers tell of {known} partitions"),
                ));
            }
        }
    }
}
