//! Putting tasks into a queue.
#![allow(clippy::disallowed_methods, reason = "a new task takes its id from the machine")]

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::amqp::{self, Client, Message, Queued, Value};
use crate::codec::envelope::TaskEnvelope;
use crate::{Error, ErrorKind, Result};

/// A queue of tasks: plain and durable. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    inner: amqp::Queue,
}

/// A task to put, for what [`Queue::enqueue`] does not take: an id of one's own, a priority, headers.
#[derive(Debug, Clone)]
#[must_use = "nothing is put until it is given to a queue"]
pub struct Enqueue {
    id: String,
    message: Message,
}

impl Enqueue {
    /// A task of that type with that data.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty type or data that cannot be written as JSON.
    pub fn new<T: Serialize + ?Sized>(task_type: &str, data: &T) -> Result<Self> {
        if task_type.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "the task type is empty; expected for example email.send",
            ));
        }
        let data = serde_json::value::to_raw_value(data).map_err(|e| {
            Error::new(ErrorKind::Config, format!("the data of task {task_type:?} cannot be written as JSON"))
                .with_source(e)
        })?;
        let body = TaskEnvelope { task_type: Cow::Borrowed(task_type), data: &data }.encode();
        let id = Uuid::now_v7().to_string();
        let message = Message::new(body).content_type("application/json").message_id(id.clone());
        Ok(Self { id, message })
    }

    /// Sets its id, the message's `message_id`, by which workers know it again. Default a new UUID of version 7.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an id that is empty or longer than the 255 bytes that AMQP carries.
    pub fn id(mut self, id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        if id.is_empty() || id.len() > 255 {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the task id has {} bytes; expected 1 to 255", id.len()),
            ));
        }
        self.message = self.message.message_id(id.clone());
        self.id = id;
        Ok(self)
    }

    /// Sets its priority. Only a queue declared with `x-max-priority` heeds it.
    pub fn priority(mut self, priority: u8) -> Self {
        self.message = self.message.priority(priority);
        self
    }

    /// Sets how long it may wait in its queue before the broker drops it.
    pub fn expiration(mut self, after: Duration) -> Self {
        self.message = self.message.expiration(after);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.message = self.message.header(name, value);
        self
    }
}

impl Queue {
    /// Declares the queue plain and durable, as other programs do. One that is there with other arguments is joined as
    /// it is.
    ///
    /// # Errors
    /// As [`amqp::QueueBuilder::declare`].
    pub async fn declare(client: &Client, name: impl Into<String>) -> Result<Self> {
        let inner = client.queue(name).join().declare().await?;
        Ok(Self { client: client.clone(), inner })
    }

    /// Tasks in a queue that was declared by hand.
    #[must_use]
    pub fn from_declared(client: &Client, queue: amqp::Queue) -> Self {
        Self { client: client.clone(), inner: queue }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// The queue beneath.
    #[must_use]
    pub fn inner(&self) -> &amqp::Queue {
        &self.inner
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Puts a task and waits until the broker confirmed it. Returns its id.
    ///
    /// # Errors
    /// As [`Enqueue::new`] before anything is sent, then as [`amqp::Queue::publish`].
    ///
    /// # Cancel safety
    /// As [`amqp::Publisher::publish`].
    pub async fn enqueue<T: Serialize + ?Sized>(&self, task_type: &str, data: &T) -> Result<String> {
        self.send(Enqueue::new(task_type, data)?).await
    }

    /// Puts a task that was built by hand and waits until the broker confirmed it. Returns its id.
    ///
    /// # Errors
    /// As [`amqp::Queue::publish`].
    pub async fn send(&self, task: Enqueue) -> Result<String> {
        let (id, queued) = self.queue(task).await?;
        queued.await?;
        Ok(id)
    }

    /// Puts a task in order and returns its id and what resolves once the broker confirmed it. Waits only for room in
    /// the publisher's window.
    ///
    /// # Errors
    /// As [`amqp::Queue::enqueue`].
    pub async fn queue(&self, task: Enqueue) -> Result<(String, Queued)> {
        Ok((task.id, self.inner.enqueue(task.message).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_the_body_and_the_properties_that_other_programs_read() {
        let task = Enqueue::new("email.send", &serde_json::json!({"to": "a"})).unwrap();
        assert_eq!(&task.message.body()[..], br#"{"type":"email.send","data":{"to":"a"}}"#);
        let p = task.message.properties();
        assert_eq!(p.persistent, Some(true));
        assert_eq!(p.content_type.as_deref(), Some("application/json"));
        assert_eq!(p.message_id.as_deref(), Some(task.id.as_str()));
        assert!(p.headers.is_empty());
    }

    #[test]
    fn a_type_or_an_id_that_says_nothing_is_refused() {
        assert_eq!(Enqueue::new("", &1).unwrap_err().kind(), ErrorKind::Config);
        assert!(Enqueue::new("t", &1).unwrap().id("").is_err());
        assert!(Enqueue::new("t", &1).unwrap().id("x".repeat(256)).is_err());
    }
}
