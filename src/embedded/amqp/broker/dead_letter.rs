//! Dead letters: messages that expired, were rejected, did not fit or came back too often go to another exchange, with
//! their history in `x-death`.
//!
//! `x-death` is a list of tables, the latest first, one for each queue and reason: `count`, `reason`, `queue`, `time`
//! (of the first such death, in seconds), `exchange` and `routing-keys` as they were then, and `original-expiration` if
//! the message had one, which is taken off it. Besides it stand `x-first-death-{queue,reason,exchange}` and, as since
//! RabbitMQ 3.13, `x-last-death-*`. With `x-dead-letter-routing-key` the header `CC` is taken off.
//!
//! A message is dropped where it would come to a queue in which it died before, unless it was rejected since: such a
//! cycle would never end. Dead letters are taken over at once, so they are never lost on the way, whatever
//! `x-dead-letter-strategy` says.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Broker;
use super::api::{QueueKey, VhostKey};
use super::message::{Message, MoreKeys, rewritten};
use super::name::ShortStr;
use crate::Timestamp;
use crate::amqp::{Table, Value};

/// Why a message died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Expired,
    Rejected,
    MaxLength,
    DeliveryLimit,
}

impl Reason {
    const ALL: [Self; 4] = [Self::Expired, Self::Rejected, Self::MaxLength, Self::DeliveryLimit];

    const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// All deaths of one message in one queue for one reason.
#[derive(Debug, Clone)]
struct Death {
    queue: ShortStr,
    reason: Reason,
    count: i64,
    /// Of the first one, in seconds.
    time: u64,
    exchange: ShortStr,
    keys: Vec<ShortStr>,
    expiration: Option<String>,
}

/// A message's deaths.
#[derive(Debug, Clone)]
pub(super) struct Deaths {
    /// The latest first.
    list: Vec<Death>,
    /// Reason, queue and exchange of the first.
    first: (Reason, ShortStr, ShortStr),
}

impl Deaths {
    fn add(earlier: Option<Self>, death: Death) -> Self {
        let Some(mut deaths) = earlier else {
            let first = (death.reason, death.queue.clone(), death.exchange.clone());
            return Self { list: vec![death], first };
        };
        let same = |d: &Death| d.queue == death.queue && d.reason == death.reason;
        let death = match deaths.list.iter().position(same) {
            Some(at) => {
                let mut death = deaths.list.remove(at);
                death.count = death.count.saturating_add(1);
                death
            }
            None => death,
        };
        deaths.list.insert(0, death);
        deaths
    }

    /// Whether a message with this history comes to `queue` by itself, again.
    fn cycle_at(&self, queue: &ShortStr) -> bool {
        let back_to =
            self.list.iter().take_while(|d| d.reason != Reason::Rejected).find(|d| d.queue == *queue);
        back_to.is_some()
    }

    /// The headers that tell of it.
    fn headers(&self, last_exchange: &ShortStr) -> Vec<(&'static str, Value)> {
        let text = |s: &ShortStr| Value::Text(s.text());
        let mut out = vec![("x-death", Value::Array(self.list.iter().map(Death::table).collect()))];
        let (reason, queue, exchange) = &self.first;
        out.push(("x-first-death-exchange", text(exchange)));
        out.push(("x-first-death-queue", text(queue)));
        out.push(("x-first-death-reason", reason.name().into()));
        if let Some(last) = self.list.first() {
            out.push(("x-last-death-exchange", text(last_exchange)));
            out.push(("x-last-death-queue", text(&last.queue)));
            out.push(("x-last-death-reason", last.reason.name().into()));
        }
        out
    }

    /// The history that a client wrote into a message that it published.
    fn published(headers: &Table) -> Option<Self> {
        let deaths = headers.get("x-death")?.as_array()?;
        let list: Vec<_> = deaths.iter().filter_map(|d| Death::from_table(d.as_table()?)).collect();
        let oldest = list.last()?;
        let text = |name: &str| headers.get(name).and_then(Value::as_str);
        let reason =
            text("x-first-death-reason").and_then(|name| Reason::ALL.into_iter().find(|r| r.name() == name));
        let first = (
            reason.unwrap_or(oldest.reason),
            text("x-first-death-queue").map_or_else(|| oldest.queue.clone(), ShortStr::from),
            text("x-first-death-exchange").map_or_else(|| oldest.exchange.clone(), ShortStr::from),
        );
        Some(Self { list, first })
    }
}

impl Death {
    fn table(&self) -> Value {
        let text = |s: &ShortStr| Value::Text(s.text());
        let mut out = Table::new();
        out.insert("count", self.count);
        out.insert("reason", self.reason.name());
        out.insert("queue", text(&self.queue));
        out.insert("time", Value::Timestamp(self.time));
        out.insert("exchange", text(&self.exchange));
        out.insert("routing-keys", Value::Array(self.keys.iter().map(text).collect()));
        if let Some(expiration) = &self.expiration {
            out.insert("original-expiration", expiration.clone());
        }
        Value::Table(out)
    }

    fn from_table(table: &Table) -> Option<Self> {
        let text = |name: &str| table.get(name).and_then(Value::as_str);
        let name = text("reason")?;
        let keys = table.get("routing-keys").and_then(Value::as_array).unwrap_or_default();
        Some(Self {
            queue: text("queue")?.into(),
            reason: Reason::ALL.into_iter().find(|r| r.name() == name)?,
            count: table.get("count").and_then(Value::as_i64).unwrap_or(1),
            time: table.get("time").and_then(Value::as_i64).and_then(|t| u64::try_from(t).ok()).unwrap_or(0),
            exchange: text("exchange").unwrap_or_default().into(),
            keys: keys.iter().filter_map(Value::as_str).map(ShortStr::from).collect(),
            expiration: text("original-expiration").map(str::to_owned),
        })
    }
}

/// A message on its way from the queue where it died.
#[derive(Debug)]
pub(super) struct DeadLetter {
    pub(super) vhost: VhostKey,
    pub(super) queue: ShortStr,
    pub(super) exchange: ShortStr,
    pub(super) key: Option<ShortStr>,
    pub(super) reason: Reason,
    pub(super) message: Arc<Message>,
}

impl DeadLetter {
    /// The message as it goes on.
    fn message(&self, wall: Timestamp, trust_published: bool) -> Message {
        let old = &*self.message;
        let mut earlier = old.deaths.as_deref().cloned();
        if earlier.is_none() && trust_published {
            earlier = old.headers().as_ref().and_then(Deaths::published);
        }
        let cc = old.more_keys.as_ref().map_or(&[][..], |more| &more.cc);
        let deaths = Deaths::add(
            earlier,
            Death {
                queue: self.queue.clone(),
                reason: self.reason,
                count: 1,
                time: u64::try_from(wall.0 / 1000).unwrap_or(0),
                exchange: old.exchange.clone(),
                keys: std::iter::once(&old.routing_key).chain(cc).cloned().collect(),
                expiration: old.ttl.map(|ttl| ttl.as_millis().to_string()),
            },
        );
        let headers = deaths.headers(&old.exchange);
        let keep = |name: &[u8]| {
            (name != b"CC" || self.key.is_none()) && !headers.iter().any(|(ours, _)| ours.as_bytes() == name)
        };
        let properties: Bytes = rewritten(&old.properties, false, keep, &headers);
        let more_keys: Option<Box<MoreKeys>> = if self.key.is_some() { None } else { old.more_keys.clone() };
        Message {
            exchange: self.exchange.clone(),
            routing_key: self.key.clone().unwrap_or_else(|| old.routing_key.clone()),
            properties,
            body: old.body.clone(),
            persistent: old.persistent,
            priority: old.priority,
            more_keys,
            deaths: Some(Box::new(deaths)),
            ..Message::default()
        }
    }
}

impl Broker {
    /// A message died in a queue: it goes to the queue's dead letter exchange, if it has one.
    pub(super) fn bury(&mut self, queue: QueueKey, message: Arc<Message>, reason: Reason) {
        let Some(queue) = self.queues.get(queue) else { return };
        let Some(exchange) = &queue.options.dead_letter_exchange else { return };
        self.dead.push_back(DeadLetter {
            vhost: queue.vhost,
            queue: queue.name.clone(),
            exchange: exchange.clone(),
            key: queue.options.dead_letter_key.clone(),
            reason,
            message,
        });
    }

    /// Routes what died. A dead letter may push others out of the queue that it comes to; those follow.
    pub(super) fn carry_dead_letters(&mut self, now: Instant) {
        while let Some(dead) = self.dead.pop_front() {
            let message = dead.message(self.clock.wall(now), self.settings.trust_published_deaths);
            self.find_queues(dead.vhost, &dead.exchange, &message);
            if dead.reason != Reason::Rejected
                && let Some(deaths) = &message.deaths
            {
                let queues = &self.queues;
                let ends = |key: &QueueKey| !queues.get(*key).is_some_and(|q| deaths.cycle_at(&q.name));
                self.route.queues.retain(ends);
            }
            self.place(message, now);
        }
    }
}
