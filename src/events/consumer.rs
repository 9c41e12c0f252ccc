//! Consuming domain events by type.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::router::{Event, RawEvent, Router};
use super::topic_of;
use crate::idempotency::Store;
use crate::kafka::{self, Client, Producer, Reset};
use crate::processor::{
    HandlerError, KafkaDeadLetters, KafkaSource, Message, Order, Outcome, Policy, Processor, Progress,
    RetryPolicy, Summary, Watch, WithoutDeadLetter,
};
use crate::{Error, ErrorKind, Result, Topic};

/// Records that the Kafka consumer may have handed out unsettled: more than a processor takes by default, so that its
/// own bound is the one that counts.
const MAX_IN_HAND: usize = 8192;

/// Handles domain events: see [`Consumer::builder`].
#[derive(Debug)]
pub struct Consumer;

impl Consumer {
    /// A consumer of that group over a client.
    pub fn builder(client: &Client, group: &str) -> ConsumerBuilder {
        let (sender, watch) = Watch::new();
        ConsumerBuilder {
            client: client.clone(),
            group: group.to_owned(),
            router: Router::new(group),
            topics: Vec::new(),
            reset: Reset::Earliest,
            commit_interval: None,
            dead_letter: None,
            producer: None,
            tune: Vec::new(),
            progress: (Arc::new(sender), watch),
            error: None,
        }
    }
}

type Tune = Box<dyn FnOnce(Processor<KafkaSource>) -> Processor<KafkaSource> + Send>;

/// The handlers and settings of a consumer of events.
///
/// It reads the topics of the types that have a handler, and those named by [`ConsumerBuilder::topic`]. Offsets are
/// committed for the group once everything below them is settled.
#[must_use = "nothing is consumed until `run` is awaited"]
pub struct ConsumerBuilder {
    client: Client,
    group: String,
    router: Router,
    topics: Vec<Topic>,
    reset: Reset,
    commit_interval: Option<Duration>,
    dead_letter: Option<String>,
    producer: Option<Producer>,
    tune: Vec<Tune>,
    progress: (Arc<tokio::sync::watch::Sender<Progress>>, Watch),
    /// What was wrong with a setting, told by `run`.
    error: Option<Error>,
}

impl fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("group", &self.group)
            .field("types", &self.router.handlers.types())
            .finish_non_exhaustive()
    }
}

impl ConsumerBuilder {
    /// Handles events of that type, with their data as a type of one's own.
    pub fn on<T, F, Fut, O>(mut self, event_type: &str, handler: F) -> Self
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(Event<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        self.router.on(event_type, handler);
        self.type_topic(event_type)
    }

    /// Handles events of that type, with their data as JSON text.
    pub fn on_raw<F, Fut, O>(mut self, event_type: &str, handler: F) -> Self
    where
        F: Fn(RawEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        self.router.handlers.on(event_type, handler);
        self.type_topic(event_type)
    }

    /// Handles events of every type that has no handler of its own and stands in a topic that is read.
    pub fn on_any<F, Fut, O>(mut self, handler: F) -> Self
    where
        F: Fn(RawEvent) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, HandlerError>> + Send + 'static,
        O: Into<Outcome>,
    {
        self.router.handlers.on_any(handler);
        self
    }

    fn type_topic(mut self, event_type: &str) -> Self {
        match topic_of(event_type) {
            Ok(topic) => self.add(topic),
            Err(e) => self.error = self.error.or(Some(e)),
        }
        self
    }

    fn add(&mut self, topic: Topic) {
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
    }

    /// Reads another topic too: one that holds events under another name.
    pub fn topic(mut self, topic: Topic) -> Self {
        self.add(topic);
        self
    }

    /// Sets where a partition without a committed offset is read from. Default the earliest record.
    pub fn reset(mut self, reset: Reset) -> Self {
        self.reset = reset;
        self
    }

    /// Sets how often settled offsets are committed; they are at the end as well. Default as
    /// [`kafka::ConsumerBuilder::commit_interval`].
    pub fn commit_interval(mut self, interval: Duration) -> Self {
        self.commit_interval = Some(interval);
        self
    }

    fn tune(
        mut self,
        change: impl FnOnce(Processor<KafkaSource>) -> Processor<KafkaSource> + Send + 'static,
    ) -> Self {
        self.tune.push(Box::new(change));
        self
    }

    /// Sets within what events keep their order. Default by key.
    pub fn order(self, order: Order) -> Self {
        self.tune(move |p| p.order(order))
    }

    /// Sets how many handlers may run at once. Default 16.
    pub fn concurrency(self, handlers: usize) -> Self {
        self.tune(move |p| p.concurrency(handlers))
    }

    /// Sets how failures are tried again. See [`Processor::retry`].
    pub fn retry(self, policy: RetryPolicy) -> Self {
        self.tune(move |p| p.retry(policy))
    }

    /// Sets how long one attempt may take. See [`Processor::timeout`].
    pub fn timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        let limit = limit.into();
        self.tune(move |p| p.timeout(limit))
    }

    /// Handles each event once by its `event_id`, for this group. See [`Processor::once`].
    pub fn once(self, store: Arc<dyn Store>) -> Self {
        self.tune(move |p| p.once(store))
    }

    /// Sets how long a claim lasts unless it is extended. See [`Processor::lease`].
    pub fn lease(self, lease: Duration) -> Self {
        self.tune(move |p| p.lease(lease))
    }

    /// Looks at each duplicate and its recorded outcome. See [`Processor::on_duplicate`].
    pub fn on_duplicate(self, look: impl Fn(&Message, &Bytes) + Send + Sync + 'static) -> Self {
        self.tune(move |p| p.on_duplicate(look))
    }

    /// Sets how long a drain may take. See [`Processor::drain`].
    pub fn drain(self, limit: Duration) -> Self {
        self.tune(move |p| p.drain(limit))
    }

    /// Puts what cannot be handled into that topic: key, value and headers untouched, the reasons in headers. The topic
    /// must exist, or the broker must be set to create it.
    pub fn dead_letter(mut self, topic: impl Into<String>) -> Self {
        self.dead_letter = Some(topic.into());
        self
    }

    /// Publishes dead letters by that producer. Default one of its own.
    pub fn producer(mut self, producer: Producer) -> Self {
        self.producer = Some(producer);
        self
    }

    /// Sets what becomes of what cannot be handled when there is no dead-letter topic. Default
    /// [`WithoutDeadLetter::Stop`].
    pub fn without_dead_letter(self, policy: WithoutDeadLetter) -> Self {
        self.tune(move |p| p.without_dead_letter(policy))
    }

    /// Sets what becomes of an event whose type has no handler.
    pub fn unknown_type(mut self, policy: Policy) -> Self {
        self.router.policies.unknown_type = policy;
        self
    }

    /// Sets what becomes of a record whose value is null or no JSON.
    pub fn not_json(mut self, policy: Policy) -> Self {
        self.router.policies.not_json = policy;
        self
    }

    /// Sets what becomes of JSON that lacks a field of the envelope, or has one of another type.
    pub fn missing_field(mut self, policy: Policy) -> Self {
        self.router.policies.missing_field = policy;
        self
    }

    /// Sets what becomes of an event whose `data` the handler's type does not take.
    pub fn bad_data(mut self, policy: Policy) -> Self {
        self.router.policies.bad_data = policy;
        self
    }

    /// Looks on while it runs; take it before [`ConsumerBuilder::run`].
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.progress.1.clone()
    }

    /// Handles events until `shutdown` resolves or something fails for good, then drains, commits and closes.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a setting or an event type that is wrong or when there is nothing to read; what
    /// [`kafka::ConsumerBuilder::build`] fails with, for one [`ErrorKind::NotFound`] for a missing topic; then as
    /// [`Processor::run`].
    ///
    /// # Cancel safety
    /// As [`Processor::run`].
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<Summary> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.topics.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("group {}: no event type has a handler and no topic is named", self.group),
            ));
        }
        let dead_letter =
            self.dead_letter.as_ref().map(Topic::new).transpose().map_err(|e| e.context("dead letters"))?;
        let consumer = self.consumer_settings();
        let own = self.producer.is_none();
        let producer = match (&dead_letter, self.producer) {
            (Some(_), Some(producer)) => Some(producer),
            (Some(_), None) => Some(self.client.producer().build().await?),
            (None, _) => None,
        };
        let source = KafkaSource::new(consumer.build().await?, Some(&self.group));
        let mut processor = Processor::new(source).report_to(self.progress.0, self.progress.1);
        for change in self.tune {
            processor = change(processor);
        }
        if let (Some(producer), Some(topic)) = (&producer, dead_letter) {
            processor = processor.dead_letter(KafkaDeadLetters::to(producer.clone(), topic));
        }
        let ended = processor.run(self.router, shutdown).await;
        if let Some(producer) = producer.filter(|_| own)
            && let Err(error) = producer.close(Duration::from_secs(5)).await
        {
            tracing::debug!(error = %error.report(), "the dead letters' producer did not close in time");
        }
        ended
    }

    fn consumer_settings(&self) -> kafka::ConsumerBuilder<kafka::ByHand> {
        let mut consumer = self
            .client
            .simple_consumer()
            .group(self.group.clone())
            .topics(self.topics.iter().map(Topic::as_str))
            .reset(self.reset)
            .max_in_hand(MAX_IN_HAND);
        if let Some(interval) = self.commit_interval {
            consumer = consumer.commit_interval(interval);
        }
        consumer
    }
}
