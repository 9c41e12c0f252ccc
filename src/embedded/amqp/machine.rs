//! The embedded RabbitMQ as a pure machine: its connections around its state.
//!
//! Each frame is worked to its end, then what the broker wants done (deliveries, cancels) is written to whichever
//! connection it is for, before the next frame is looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;

use super::broker::{self, Broker, ChannelId, Event, Refusal, Settle, ShortStr, VhostKey};
use super::class::Failure;
use super::connection::{Connection, Phase, Step};
use super::output::Gate;
use crate::NodeId;
use crate::embedded::faults::Faults;
use crate::embedded::machine::{Clock, ConnectionId, Machine, Need, Output};
use crate::random::{id_text, mix};

/// What can be set about the connections; the rest is the broker's.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) broker: broker::Settings,
    /// As `connection.tune` says them.
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    /// Seconds.
    pub(super) heartbeat: u16,
    /// The largest body, in bytes.
    pub(super) max_message_size: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker: broker::Settings::default(),
            frame_max: 131_072,
            channel_max: 2_047,
            heartbeat: 60,
            max_message_size: 128 << 20,
        }
    }
}

/// What every connection shares.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) broker: Broker,
    pub(super) settings: Settings,
    pub(super) faults: Faults,
    /// Connections whose output is kept back by a fault, by the number of its decision.
    pub(super) held: BTreeMap<u64, ConnectionId>,
    /// Bytes of messages that are not complete or not committed.
    pub(super) unfinished: usize,
    /// Consumers that a fault wants cancelled.
    pub(super) cancels: Vec<Cancel>,
    /// A fault wants the broker dead.
    pub(super) death: Option<Death>,
    /// Publishers are blocked by hand, with this reason.
    blocked: Option<ShortStr>,
    /// Publishers are blocked for want of memory.
    memory: bool,
    tags: u64,
}

/// Whose consumers are to be cancelled.
#[derive(Debug)]
pub(super) enum Cancel {
    Channel(ChannelId),
    Queue(VhostKey, ShortStr),
}

/// For how long the broker is dead.
#[derive(Debug, Clone, Copy)]
pub(super) enum Death {
    ForGood,
    /// `None`: beyond what the clock can tell.
    Until(Option<Instant>),
}

impl Core {
    /// Why publishers are blocked.
    #[inline]
    pub(super) fn alarm(&self) -> Option<ShortStr> {
        if !self.memory && self.blocked.is_none() {
            return None;
        }
        Some(self.blocked.clone().unwrap_or_else(|| ShortStr::from("low on memory")))
    }

    /// A made-up consumer tag.
    pub(super) fn consumer_tag(&mut self) -> ShortStr {
        self.tags += 1;
        let high = mix(self.settings.broker.seed ^ mix(self.tags));
        ShortStr::new(format!("amq.ctag-{}", id_text(high, mix(high))).as_bytes())
    }

    /// # Errors
    /// 506 where unfinished messages take more memory than all messages may. The real broker has no such limit.
    pub(super) fn check_unfinished(&self) -> Result<(), Failure> {
        let most = self.settings.broker.memory_limit;
        if self.unfinished as u64 <= most {
            return Ok(());
        }
        let text = format!(
            "RESOURCE_ERROR - messages that are not complete or committed take more than {most} bytes"
        );
        Err(Failure::new(506, text))
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Server {
    core: Core,
    connections: BTreeMap<ConnectionId, Connection>,
    timers: BTreeSet<(Instant, ConnectionId)>,
    wakes: VecDeque<ConnectionId>,
    /// The last time that was told.
    now: Instant,
    /// Takes no connection.
    dead: bool,
    /// Comes up again then.
    back: Option<Instant>,
}

impl Server {
    pub(super) fn new(settings: Settings, mut faults: Faults, clock: Clock) -> Self {
        faults.handle_start(clock.at);
        let core = Core {
            broker: Broker::new(settings.broker.clone(), clock),
            settings,
            faults,
            held: BTreeMap::new(),
            unfinished: 0,
            cancels: Vec::new(),
            death: None,
            blocked: None,
            memory: false,
            tags: 0,
        };
        Self {
            core,
            connections: BTreeMap::new(),
            timers: BTreeSet::new(),
            wakes: VecDeque::new(),
            now: clock.at,
            dead: false,
            back: None,
        }
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.core.broker
    }

    /// Changes the broker's state from outside of any connection.
    pub(super) fn change<R>(&mut self, now: Instant, change: impl FnOnce(&mut Broker) -> R) -> R {
        self.now = now;
        let result = change(&mut self.core.broker);
        self.settle();
        result
    }

    /// Looks at the faults or changes them; answers that were released leave.
    pub(super) fn faults<R>(&mut self, look: impl FnOnce(&mut Faults) -> R) -> R {
        let result = look(&mut self.core.faults);
        while let Some(id) = self.core.faults.poll_released() {
            let Some(holder) = self.core.held.remove(&id) else { continue };
            if let Some(connection) = self.connections.get_mut(&holder) {
                connection.link.out.open(|gate| gate == Gate::Held(id));
            }
            self.touch(holder);
        }
        result
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values()
    }

    /// Blocks publishers, or lets them go on.
    pub(super) fn set_blocked(&mut self, reason: Option<&str>) {
        self.core.blocked = reason.map(ShortStr::from);
        self.alarm_changed();
    }

    fn alarm_changed(&mut self) {
        if self.core.alarm().is_some() {
            return;
        }
        let mut freed = Vec::new();
        for (id, connection) in &mut self.connections {
            if connection.link.blocked && connection.link.alarm.is_none() {
                connection.unblock();
                freed.push(*id);
            }
        }
        for id in freed {
            self.wake(id);
            self.touch(id);
        }
    }

    /// Closes connections for which `which` is true as an operator does it (320). How many there were.
    pub(super) fn close(&mut self, which: impl Fn(&Connection) -> bool, reason: &str, now: Instant) -> usize {
        self.now = now;
        let mut closed = 0;
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            if connection.link.phase != Phase::Running || !which(connection) {
                continue;
            }
            connection.flush_confirms();
            let text = format!("CONNECTION_FORCED - {reason}");
            connection.fail(&mut self.core, Failure::new(320, text), now);
            closed += 1;
            self.touch(id);
        }
        self.settle();
        closed
    }

    /// Cuts connections without a word. How many there were.
    pub(super) fn cut(&mut self, which: impl Fn(&Connection) -> bool) -> usize {
        let ids: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, c)| !c.link.reset && which(c)).map(|(id, _)| *id).collect();
        for id in &ids {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.link.reset = true;
            }
            self.wake(*id);
        }
        ids.len()
    }

    /// The broker dies: every connection is cut, and all that is not durable is lost. It comes back at `back`, or when
    /// [`revive`](Self::revive) is called.
    pub(super) fn die(&mut self, back: Option<Instant>, now: Instant) {
        self.now = now;
        self.dead = true;
        self.back = back;
        self.cut(|_| true);
        for connection in self.connections.values_mut() {
            connection.channels.clear();
        }
        self.core.unfinished = 0;
        self.core.broker.restart(now);
        self.settle();
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.dead
    }

    /// It takes connections again.
    pub(super) fn revive(&mut self) {
        self.dead = false;
        self.back = None;
    }

    fn wake(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.link.woken
        {
            connection.link.woken = true;
            self.wakes.push_back(id);
        }
    }

    /// After anything was done with a connection: its timer, and that it has output.
    fn touch(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let due = connection.due();
        let link = &mut connection.link;
        if due != link.armed {
            if let Some(at) = link.armed {
                self.timers.remove(&(at, id));
            }
            link.armed = due;
            self.timers.extend(due.map(|at| (at, id)));
        }
        let output = link.idle && (link.out.unsent() > 0 || link.phase == Phase::Ended);
        if output {
            // From now on the driver asks by itself, whenever its socket can take something.
            link.idle = false;
        }
        if !link.woken && (output || link.reset) {
            link.woken = true;
            self.wakes.push_back(id);
        }
    }

    /// Does all that the broker wants done.
    #[inline]
    fn settle(&mut self) {
        while let Some(event) = self.core.broker.poll_event(self.now) {
            self.event(event);
        }
        if !self.core.cancels.is_empty() {
            self.cancel_consumers();
        }
        if let Some(death) = self.core.death.take() {
            let back = match death {
                Death::ForGood | Death::Until(None) => None,
                Death::Until(at) => at,
            };
            self.die(back, self.now);
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Deliver { consumer, channel: id, delivery, .. } => {
                let rest = match self.connections.get_mut(&id.connection) {
                    Some(connection) => {
                        let Connection { link, channels } = connection;
                        match channels.get_mut(&id.channel) {
                            Some(channel) if !channel.closing => {
                                channel.deliver(&mut self.core.broker, link, consumer, delivery)
                            }
                            _ => Err(delivery),
                        }
                    }
                    None => Err(delivery),
                };
                match rest {
                    Ok(()) => {
                        if let Some(connection) = self.connections.get_mut(&id.connection) {
                            connection.check_congestion(&mut self.core);
                            let link = &mut connection.link;
                            if std::mem::take(&mut link.idle) && !link.woken {
                                link.woken = true;
                                self.wakes.push_back(id.connection);
                            }
                        }
                    }
                    // Nobody is there any more.
                    Err(delivery) => {
                        self.core.broker.remove_consumer(consumer, now);
                        if let Some(held) = delivery.held {
                            self.core.broker.settle(held, Settle::Requeue, now);
                        }
                    }
                }
            }
            Event::Cancelled { consumer, channel: id, .. } => {
                if let Some(connection) = self.connections.get_mut(&id.connection) {
                    let Connection { link, channels } = connection;
                    let tag = channels.get_mut(&id.channel).and_then(|channel| channel.forget(consumer));
                    if let Some(tag) = tag {
                        Connection::cancelled(link, id.channel, &tag);
                    }
                }
                self.touch(id.connection);
            }
            Event::ConsumerTimeout { channel: id, refusal } => {
                self.close_channel(id, refusal);
            }
            Event::Memory { alarm } => {
                self.core.memory = alarm;
                self.alarm_changed();
            }
        }
    }

    fn close_channel(&mut self, id: ChannelId, refusal: Refusal) {
        let now = self.now;
        if let Some(connection) = self.connections.get_mut(&id.connection)
            && connection.channels.get(&id.channel).is_some_and(|channel| !channel.closing)
        {
            connection.fail(&mut self.core, Failure::from(refusal).on_channel(id.channel), now);
        }
        self.touch(id.connection);
    }

    fn cancel_consumers(&mut self) {
        for cancel in std::mem::take(&mut self.core.cancels) {
            let now = self.now;
            let mut touched = Vec::new();
            for (id, connection) in &mut self.connections {
                let Connection { link, channels } = connection;
                for channel in channels.values_mut() {
                    let here = ChannelId { connection: *id, channel: channel.number };
                    let tags: Vec<ShortStr> = channel
                        .consumers
                        .values()
                        .filter(|consumer| match &cancel {
                            Cancel::Channel(which) => *which == here,
                            Cancel::Queue(vhost, queue) => {
                                channel.vhost == *vhost && consumer.queue == *queue
                            }
                        })
                        .map(|consumer| consumer.tag.clone())
                        .collect();
                    for tag in tags {
                        channel.cancel(&mut self.core.broker, &tag, now);
                        Connection::cancelled(link, channel.number, &tag);
                        touched.push(*id);
                    }
                }
            }
            for id in touched {
                self.touch(id);
            }
        }
        while let Some(event) = self.core.broker.poll_event(self.now) {
            self.event(event);
        }
    }
}

impl Machine for Server {
    fn accepts(&self, _node: NodeId) -> bool {
        !self.dead
    }

    fn handle_open(&mut self, connection: ConnectionId, _node: NodeId, peer: SocketAddr, now: Instant) {
        self.now = now;
        self.connections.insert(connection, Connection::new(connection, peer, now));
        self.touch(connection);
    }

    fn handle_input(&mut self, id: ConnectionId, input: &mut BytesMut, now: Instant) -> Need {
        self.now = now;
        let need = loop {
            let Some(connection) = self.connections.get_mut(&id) else {
                input.clear();
                break Need::default();
            };
            match connection.step(&mut self.core, input, now) {
                Step::Again => self.settle(),
                Step::Need(need) => break need,
            }
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.flush_confirms();
            connection.check_congestion(&mut self.core);
        }
        self.touch(id);
        need
    }

    fn handle_close(&mut self, id: ConnectionId, now: Instant) {
        self.now = now;
        let Some(mut connection) = self.connections.remove(&id) else { return };
        if let Some(at) = connection.link.armed {
            self.timers.remove(&(at, id));
        }
        for held in connection.link.out.held() {
            self.core.held.remove(&held);
            self.core.faults.handle_abandoned(held);
        }
        connection.release(&mut self.core, now);
        self.settle();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.back.is_some_and(|back| back <= now) {
            self.revive();
        }
        self.core.broker.handle_timeout(now);
        self.settle();
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.link.armed = None;
            if connection.handle_timeout(&mut self.core, now) {
                self.wake(id);
            }
            self.settle();
            self.touch(id);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.core.broker.poll_timeout(), self.back].into_iter().flatten().min()
    }

    fn poll_wake(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.wakes.pop_front() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.link.woken = false;
                return Some(id);
            }
        }
        None
    }

    fn is_cut(&self, id: ConnectionId) -> bool {
        self.connections
            .get(&id)
            .is_none_or(|connection| connection.link.reset || connection.link.out.is_cut())
    }

    fn poll_output(&mut self, id: ConnectionId) -> Output {
        let Some(connection) = self.connections.get_mut(&id) else { return Output::Reset };
        let link = &mut connection.link;
        if link.reset || link.out.is_cut() {
            return Output::Reset;
        }
        link.idle = false;
        let Some(chunk) = link.out.take() else {
            link.idle = true;
            let done = link.phase == Phase::Ended && link.out.unsent() == 0;
            return if done { Output::Close } else { Output::Pending };
        };
        let congested = link.congested;
        let resumed = connection.left(&mut self.core);
        if congested && !connection.link.congested {
            self.settle();
        }
        if resumed {
            self.wake(id);
        }
        Output::Bytes(chunk)
    }
}

#[cfg(test)]
mod tests;
