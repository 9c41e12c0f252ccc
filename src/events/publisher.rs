//! Publishing domain events.
#![allow(clippy::disallowed_methods, reason = "a new event takes its id and its time from the machine")]

use std::borrow::Cow;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use crate::codec::envelope::{EventEnvelope, format_iso8601, parse_iso8601};
use crate::kafka::{Placed, Producer, Queued, Record};
use crate::{Error, ErrorKind, Result, Timestamp, Topic};

/// The topic of an event type: `events.{event_type}`.
///
/// # Errors
/// [`ErrorKind::Config`] for a type that is empty or that no topic name can hold: allowed are `a-z A-Z 0-9 . _ -`, and at most
/// 242 of them.
pub fn topic_of(event_type: &str) -> Result<Topic> {
    if event_type.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            "the event type is empty; expected for example order.created",
        ));
    }
    Topic::new(format!("events.{event_type}")).map_err(|e| e.context(format!("event type {event_type:?}")))
}

/// An event that the broker has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The event's id.
    pub event_id: String,
    /// Where it stands.
    pub placed: Placed,
}

/// Publishes events through a producer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    producer: Producer,
}

/// An event to publish, for what [`Publisher::publish`] does not take: an id of one's own, a time, headers.
#[derive(Debug, Clone)]
#[must_use = "nothing is published until it is given to a publisher"]
pub struct Publish {
    topic: Topic,
    event_type: String,
    key: Option<Bytes>,
    id: Option<String>,
    occurred_at: Option<String>,
    headers: Vec<(String, Option<Bytes>)>,
    data: Box<serde_json::value::RawValue>,
}

impl Publish {
    /// An event of that type with that data.
    ///
    /// # Errors
    /// As [`topic_of`]; [`ErrorKind::Config`] for data that cannot be written as JSON.
    pub fn new<T: Serialize + ?Sized>(event_type: &str, data: &T) -> Result<Self> {
        let topic = topic_of(event_type)?;
        let data = serde_json::value::to_raw_value(data).map_err(|e| {
            Error::new(
                ErrorKind::Config,
                format!("the data of event {event_type:?} cannot be written as JSON"),
            )
            .with_source(e)
        })?;
        Ok(Self {
            topic,
            event_type: event_type.to_owned(),
            key: None,
            id: None,
            occurred_at: None,
            headers: Vec::new(),
            data,
        })
    }

    /// Sets the aggregate it belongs to: the record's key. Events of one aggregate keep their order.
    pub fn key(mut self, aggregate_id: impl Into<String>) -> Self {
        self.key = Some(Bytes::from(aggregate_id.into()));
        self
    }

    /// Sets its id, by which consumers know it again. Default a new UUID of version 7.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty id.
    pub fn id(mut self, id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        if id.is_empty() {
            return Err(Error::new(ErrorKind::Config, "the event id is empty; expected for example a UUID"));
        }
        self.id = Some(id);
        Ok(self)
    }

    /// Sets when it happened, in ISO 8601. Default now.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for a text that is no time.
    pub fn occurred_at(mut self, time: impl Into<String>) -> Result<Self> {
        let time = time.into();
        parse_iso8601(&time)?;
        self.occurred_at = Some(time);
        Ok(self)
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// The record, and the event's id.
    fn into_record(self) -> Result<(String, Record<'static>)> {
        let id = self.id.unwrap_or_else(|| Uuid::now_v7().to_string());
        let occurred_at = match self.occurred_at {
            Some(time) => time,
            None => format_iso8601(now())?,
        };
        let value = EventEnvelope {
            event_id: Cow::Borrowed(&id),
            event_type: Cow::Borrowed(&self.event_type),
            occurred_at: Cow::Owned(occurred_at),
            data: &self.data,
        }
        .encode();
        let mut record = Record::to_topic(self.topic)
            .value(value)
            .header("content-type", Some(Bytes::from_static(b"application/json")));
        if let Some(key) = self.key {
            record = record.key(key);
        }
        for (name, value) in self.headers {
            record = record.header(name, value);
        }
        Ok((id, record))
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Publisher {
    /// A publisher over that producer.
    #[must_use]
    pub fn new(producer: Producer) -> Self {
        Self { producer }
    }

    /// Publishes an event and waits until the broker has it. `key` is the id of the aggregate that it belongs to.
    ///
    /// # Errors
    /// As [`Publish::new`] before anything is sent, then as [`Producer::send`].
    ///
    /// # Cancel safety
    /// An event that was handed to the producer is sent even if the future is dropped.
    pub async fn publish<T: Serialize + ?Sized>(
        &self,
        event_type: &str,
        key: Option<&str>,
        data: &T,
    ) -> Result<Published> {
        let event = Publish::new(event_type, data)?;
        self.send(match key {
            Some(key) => event.key(key),
            None => event,
        })
        .await
    }

    /// Publishes an event that was built by hand and waits until the broker has it.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send(&self, event: Publish) -> Result<Published> {
        let (event_id, queued) = self.enqueue(event).await?;
        Ok(Published { event_id, placed: queued.await? })
    }

    /// Puts an event in order and returns its id and what resolves once the broker has it. Waits only for room in the
    /// producer's buffer; events that are enqueued one after the other keep their order.
    ///
    /// # Errors
    /// As [`Producer::enqueue`].
    pub async fn enqueue(&self, event: Publish) -> Result<(String, Queued)> {
        let (event_id, record) = event.into_record()?;
        Ok((event_id, self.producer.enqueue(record).await?))
    }

    /// The producer beneath, to flush or close it.
    #[must_use]
    pub fn producer(&self) -> &Producer {
        &self.producer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_type_that_no_topic_can_hold_is_refused_by_name() {
        assert_eq!(topic_of("order.created").unwrap().as_str(), "events.order.created");
        for bad in ["", "order created", "über", &"x".repeat(243)] {
            let e = topic_of(bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config);
            assert!(e.to_string().contains("event type"), "{e}");
        }
    }

    #[test]
    fn an_event_without_an_id_gets_a_new_one_and_a_given_one_is_kept() {
        let (first, _) = Publish::new("a", &1).unwrap().into_record().unwrap();
        let (second, _) = Publish::new("a", &1).unwrap().into_record().unwrap();
        assert_ne!(first, second);
        assert_eq!(Uuid::parse_str(&first).unwrap().get_version_num(), 7);
        let (given, _) = Publish::new("a", &1).unwrap().id("my-id").unwrap().into_record().unwrap();
        assert_eq!(given, "my-id");
        assert!(Publish::new("a", &1).unwrap().id("").is_err());
        assert!(Publish::new("a", &1).unwrap().occurred_at("yesterday").is_err());
    }
}
