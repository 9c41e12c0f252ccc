//! Topics made and deleted.
#![allow(clippy::disallowed_methods, reason = "this file drives requests: it reads the clock and sleeps")]

use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use tokio::time::Instant;

use super::client::{Client, TOPIC_CREATE_WAIT, topic_name};
use super::errors;
use super::wire::api::Api;
use crate::{Error, ErrorKind, Result, Topic};

const NOT_CONTROLLER: i16 = 41;

impl Client {
    /// Creates a topic and waits until its partitions have leaders. `-1` for either number takes the broker's default
    /// (KIP-464).
    ///
    /// Cancel safe, though the topic may have been created.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where it exists already; [`ErrorKind::Config`] where the broker cannot do these numbers;
    /// [`ErrorKind::Denied`]; [`ErrorKind::Unavailable`] where its leaders take longer than 5 s.
    pub async fn create_topic(&self, topic: &Topic, partitions: i32, replication: i16) -> Result<()> {
        let what = format!("create topic {topic} ({partitions} partitions, {replication} replicas)");
        let timeout = i32::try_from(self.inner.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let request = CreateTopicsRequest::default().with_timeout_ms(timeout).with_topics(vec![
            CreatableTopic::default()
                .with_name(topic_name(topic))
                .with_num_partitions(partitions)
                .with_replication_factor(replication),
        ]);
        self.any_broker(request, |answer| {
            let Some(t) = answer.topics.first() else {
                return Err(Error::new(ErrorKind::Malformed, format!("{what}: the answer is empty")));
            };
            if t.error_code == 0 {
                return Ok(());
            }
            let e = errors::broker(t.error_code, &what).retryable(t.error_code == NOT_CONTROLLER);
            Err(match &t.error_message {
                Some(text) => e.with_source(text.as_str()),
                None => e,
            })
        })
        .await?;
        self.inner.topic(topic, false, TOPIC_CREATE_WAIT).await.map(drop)
    }

    /// Deletes a topic with all its records. The brokers finish it a moment later.
    ///
    /// Cancel safe, though the topic may have been deleted.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it is not there; [`ErrorKind::Denied`].
    pub async fn delete_topic(&self, topic: &Topic) -> Result<()> {
        let timeout = i32::try_from(self.inner.settings.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let request =
            DeleteTopicsRequest::default().with_timeout_ms(timeout).with_topic_names(vec![topic_name(topic)]);
        self.any_broker(request, |answer| match answer.responses.first().map_or(0, |r| r.error_code) {
            0 => Ok(()),
            code => {
                Err(errors::broker(code, format!("delete topic {topic}")).retryable(code == NOT_CONTROLLER))
            }
        })
        .await
    }

    /// Runs a request at one broker after another until one is the controller or passes it on.
    /// `judge` is no async closure: the futures of those are not `Send` for a caller that spawns.
    async fn any_broker<R>(&self, request: R, judge: impl Fn(&R::Answer) -> Result<()>) -> Result<()>
    where
        R: Api + Clone,
    {
        let deadline = Instant::now() + self.inner.settings.request_timeout;
        loop {
            let nodes: Vec<_> = self.inner.cluster().nodes().map(|(node, _)| node).collect();
            let mut last = Error::new(ErrorKind::Unavailable, "no Kafka broker is known");
            for node in nodes {
                let answer = async { self.inner.link(node).await?.call(request.clone()).await };
                match answer.await.and_then(|answer| judge(&answer)) {
                    Ok(()) => return Ok(()),
                    // A request that may have taken effect is not repeated: the second answer would say "exists".
                    Err(e) if e.is_retryable() && !e.is_ambiguous() => last = e,
                    Err(e) => return Err(e),
                }
            }
            if Instant::now() >= deadline {
                return Err(last);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.inner.refresh(&[], false).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_borrow_a_topic_can_be_spawned() {
        fn spawnable<F: Future<Output = Result<()>> + Send + 'static>(_: impl Fn(Client, Topic) -> F) {}
        // That this compiles is the test.
        spawnable(|client, topic| async move { client.create_topic(&topic, 1, 1).await });
        spawnable(|client, topic| async move { client.delete_topic(&topic).await });
        spawnable(|client, topic| async move { client.committed("g", &topic).await.map(drop) });
        spawnable(|client, topic| async move { client.delete_group(topic.as_str()).await });
    }
}
