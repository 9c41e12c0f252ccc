//! What clients see of the state, without a wire.

#![allow(clippy::disallowed_methods, reason = "a test needs some moment to start from")]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::Timestamp;
use crate::amqp::{Table, Value};
use crate::embedded::amqp::wire::table::decode;
use crate::embedded::amqp::wire::{Properties, RawTable, Short, table};

mod dead_letters;
mod declare;
mod model;
mod queues;
mod routing;
mod view;

use api::{Published, QueueOk};
use view::QueueView;

const ME: ConnectionId = ConnectionId(1);
const OTHER: ConnectionId = ConnectionId(2);

/// A broker, a clock and a virtual host.
struct Bench {
    broker: Broker,
    vhost: VhostKey,
    now: Instant,
    tags: BTreeMap<ConsumerKey, String>,
}

/// A message as a client sees it.
#[derive(Debug, Clone)]
struct Seen {
    body: String,
    exchange: String,
    key: String,
    redelivered: bool,
    headers: Table,
    expiration: Option<String>,
    held: Option<Held>,
}

impl From<Delivery> for Seen {
    fn from(delivery: Delivery) -> Self {
        let message = &delivery.message;
        let properties = Properties::parse(&message.properties).unwrap();
        Self {
            body: String::from_utf8(message.body.to_vec()).unwrap(),
            exchange: message.exchange.text(),
            key: message.routing_key.text(),
            redelivered: delivery.redelivered,
            headers: properties.headers.map(|RawTable(t)| decode(t).unwrap()).unwrap_or_default(),
            expiration: properties.expiration.map(|s| s.lossy().into_owned()),
            held: delivery.held,
        }
    }
}

/// Properties of a message to publish.
#[derive(Debug, Clone, Default)]
struct Props<'a> {
    headers: Table,
    priority: Option<u8>,
    expiration: Option<&'a str>,
    persistent: bool,
}

fn table<const N: usize>(fields: [(&str, Value); N]) -> Table {
    fields.into_iter().collect()
}

fn channel(connection: ConnectionId) -> ChannelId {
    ChannelId { connection, channel: 1 }
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let now = Instant::now();
        let clock = Clock { at: now, wall: Timestamp(1_700_000_000_000) };
        let broker = Broker::new(settings, clock);
        let vhost = broker.open_vhost(b"guest", b"/").unwrap();
        Self { broker, vhost, now, tags: BTreeMap::new() }
    }

    fn declare(&mut self, name: &str, arguments: Table) -> Result<QueueOk, Refusal> {
        let durable = arguments.get("x-queue-type") == Some(&"quorum".into());
        self.declare_as(&QueueDeclare { name: name.as_bytes(), durable, arguments, ..Default::default() })
    }

    fn declare_as(&mut self, declare: &QueueDeclare<'_>) -> Result<QueueOk, Refusal> {
        self.broker.declare_queue(self.vhost, declare, ME, self.now)
    }

    fn queue(&mut self, name: &str, arguments: Table) {
        self.declare(name, arguments).unwrap();
    }

    fn exchange(&mut self, name: &str, kind: &str) {
        let declare = ExchangeDeclare { name: name.as_bytes(), kind: kind.as_bytes(), ..Default::default() };
        self.broker.declare_exchange(self.vhost, &declare).unwrap();
    }

    fn bind(&mut self, source: &str, queue: &str, key: &str) {
        let spec = BindingSpec {
            source: source.as_bytes(),
            destination: queue.as_bytes(),
            routing_key: key.as_bytes(),
            arguments: Table::new(),
        };
        self.broker.bind_queue(self.vhost, &spec, ME).unwrap();
    }

    fn message(exchange: &str, key: &str, body: &str, props: &Props<'_>) -> Message {
        let mut headers = BytesMut::new();
        table::encode(&props.headers, &mut headers);
        let properties = Properties {
            headers: (!props.headers.is_empty()).then(|| RawTable(&headers[4..])),
            priority: props.priority,
            expiration: props.expiration.map(|s| Short(s.as_bytes())),
            delivery_mode: props.persistent.then_some(2),
            ..Properties::default()
        };
        let mut raw = BytesMut::new();
        properties.write(&mut raw);
        let body = Bytes::copy_from_slice(body.as_bytes());
        Message::new(exchange.into(), key.into(), raw.freeze(), body).unwrap()
    }

    /// Publishes, and lets nobody take anything yet.
    fn publish_only(&mut self, exchange: &str, key: &str, body: &str, props: &Props<'_>) -> Published {
        let message = Self::message(exchange, key, body, props);
        self.broker.publish(self.vhost, message, self.now).unwrap()
    }

    fn publish_with(&mut self, exchange: &str, key: &str, body: &str, props: &Props<'_>) -> Published {
        let published = self.publish_only(exchange, key, body, props);
        assert!(self.events().is_empty(), "no consumer in this test");
        published
    }

    fn publish(&mut self, key: &str, body: &str) -> Published {
        self.publish_with("", key, body, &Props::default())
    }

    fn get(&mut self, queue: &str) -> Option<Seen> {
        let got = self.broker.get(self.vhost, queue.as_bytes(), false, channel(ME), self.now).unwrap();
        got.map(|fetched| fetched.delivery.into())
    }

    /// Takes all that is ready, and done with it.
    fn drain(&mut self, queue: &str) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(fetched) =
            self.broker.get(self.vhost, queue.as_bytes(), true, channel(ME), self.now).unwrap()
        {
            out.push(Seen::from(fetched.delivery).body);
        }
        out
    }

    fn consume(&mut self, queue: &str, tag: &str) -> ConsumerKey {
        self.consume_with(queue, tag, Table::new()).unwrap()
    }

    fn consume_with(&mut self, queue: &str, tag: &str, arguments: Table) -> Result<ConsumerKey, Refusal> {
        let consume = Consume {
            queue: queue.as_bytes(),
            channel: channel(ME),
            no_ack: false,
            exclusive: false,
            arguments,
            ready: true,
        };
        let key = self.broker.add_consumer(self.vhost, &consume, self.now)?;
        self.tags.insert(key, tag.to_owned());
        Ok(key)
    }

    /// All events now: `tag:body` for deliveries.
    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.broker.poll_event(self.now))
            .collect::<Vec<_>>()
            .iter()
            .map(|event| self.shown(event))
            .collect()
    }

    /// Lets time pass; timers fire when they are due.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.broker.poll_timeout()
            && at <= until
        {
            self.now = self.now.max(at);
            self.broker.handle_timeout(self.now);
        }
        self.now = until;
    }

    fn wait_ms(&mut self, ms: u64) {
        self.wait(Duration::from_millis(ms));
    }

    fn settle(&mut self, seen: &Seen, how: Settle) {
        self.broker.settle(seen.held.unwrap(), how, self.now);
    }

    fn view(&self, queue: &str) -> QueueView {
        self.broker.queue(self.vhost, queue.as_bytes()).unwrap()
    }
}

impl Bench {
    fn shown(&self, event: &Event) -> String {
        match event {
            Event::Deliver { consumer, delivery, .. } => {
                let tag = &self.tags[consumer];
                let again = if delivery.redelivered { " again" } else { "" };
                format!("{tag}:{}{again}", String::from_utf8_lossy(&delivery.message.body))
            }
            Event::Cancelled { consumer, .. } => format!("{} cancelled", self.tags[consumer]),
            Event::ConsumerTimeout { refusal, .. } => refusal.text.clone(),
            Event::Memory { alarm } => format!("memory alarm {alarm}"),
        }
    }
}
