//! One client's connection: the handshake, frames to methods, errors and the end. Pure.
//!
//! ```text
//!  header ──► starting ──► tuning ──► opening ──► running ──┬─ connection.close ──► ended: what is unsent leaves, then
//!    │ AMQP 0 0 9 1 │ start-ok  │ tune-ok    │ open           │                           the socket is closed
//!    ▼ else         ▼ refused                                └─ an error: connection.close is sent
//!  ended          closing ◄──────────────────────────────────────────┘
//!                   │ all but close and close-ok is ignored; after a time limit the same as
//!                   ▼ close-ok
//!                 ended
//! ```
//!
//! Where the real broker lets a client wait three seconds before it closes the socket (a wrong password, broken
//! frames in the handshake), this one closes it at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};

use super::broker::{Refusal, ShortStr, VhostKey};
use super::channel::Channel;
use super::class::{self, After, Cx, Failure, Outcome};
use super::content::Header;
use super::machine::Core;
use super::output::{Gate, Outbox};
use super::wire::frame::{self, BODY, END, HEADER, HEARTBEAT, HEARTBEAT_FRAME, Head, METHOD, PROTOCOL};
use super::wire::method::{self, Method, Request, Unreadable, basic, connection};
use super::wire::properties::ContentHeader;
use super::wire::{Flags, Reader, Short};
use crate::embedded::machine::{ConnectionId, Need, take_frame};

/// The largest frame before `tune-ok`.
const FRAME_MAX_AT_FIRST: usize = 8 * 1024;
/// How long a client may take for the handshake (`handshake_timeout`).
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long `connection.close-ok` may take.
const CLOSING: Duration = Duration::from_secs(30);
/// After an error in the framing nothing can be understood any more: the socket is closed after so long.
const DEAF: Duration = Duration::from_secs(3);
/// Bodies from this size on are not copied out of the input.
const TAKEN: usize = 16 * 1024;
/// Unsent bytes at which consumers get no more.
pub(super) const CONGESTED: usize = 1024 * 1024;
/// Unsent bytes at which no more is read.
pub(super) const CHOKED: usize = 4 * 1024 * 1024;

/// Where a connection stands; see the module's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Header,
    Starting,
    Tuning,
    Opening,
    Running,
    Closing,
    Ended,
}

/// What the client said that it understands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Capabilities {
    pub(super) authentication_failure_close: bool,
    pub(super) connection_blocked: bool,
    pub(super) consumer_cancel_notify: bool,
}

/// A connection without its channels.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    pub(super) phase: Phase,
    pub(super) out: Outbox,
    pub(super) vhost: Option<VhostKey>,
    pub(super) vhost_name: String,
    pub(super) user: String,
    /// The client's name for the connection (`connection_name`), or for itself (`product`).
    pub(super) name: Option<String>,
    pub(super) capabilities: Capabilities,
    pub(super) frame_max: usize,
    pub(super) channel_max: u16,
    /// Seconds; 0: none.
    pub(super) heartbeat: u16,
    /// Consumers get nothing: much is unsent.
    pub(super) congested: bool,
    /// Nothing is read: too much is unsent.
    choked: bool,
    /// Nothing is read: it published while there is an alarm.
    pub(super) blocked: bool,
    /// An alarm for this connection alone, and its end.
    pub(super) alarm: Option<(ShortStr, Instant)>,
    /// Nothing is read until then.
    pub(super) stalled: Option<Instant>,
    /// The fault of the request that waits at the head of the input, which was decided on already.
    pub(super) decided: Option<Decided>,
    /// Reading is over: whatever comes is dropped.
    deaf: bool,
    /// Publishes were accepted that are not confirmed yet.
    pub(super) confirms_due: bool,
    /// What is to be done once the request in hand is answered.
    pub(super) after: Option<After>,
    /// To be cut at once.
    pub(super) reset: bool,
    /// When the handshake or the closing must be over.
    deadline: Option<Instant>,
    /// When the heartbeat is next looked at.
    beat: Option<Instant>,
    /// Whether anything came or left since that was looked at last, and for how many times nothing came.
    heard: bool,
    said: bool,
    silent: u8,
    /// What leaves next is a heartbeat, which does not count.
    beating: bool,
    /// The driver was told to look at it.
    pub(super) woken: bool,
    /// The driver was told that there is nothing to send: it does not ask again by itself.
    pub(super) idle: bool,
    /// The entry in the machine's timers.
    pub(super) armed: Option<Instant>,
}

/// A request was stalled, and is worked without another question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decided;

impl Link {
    pub(super) fn send<'a, M: Method<'a>>(&mut self, channel: u16, method: &M) {
        method::frame(self.out.tail(), channel, method);
    }

    /// The next time at which something is due.
    fn due(&self) -> Option<Instant> {
        [self.deadline, self.beat, self.stalled, self.alarm.as_ref().map(|(_, at)| *at), self.out.next_gate()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The connection ends once what is unsent has left.
    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.deadline = None;
        self.beat = None;
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) channels: BTreeMap<u16, Channel>,
}

/// What came of looking at the input.
pub(super) enum Step {
    /// A frame was worked: look again.
    Again,
    /// This much is wanted.
    Need(Need),
}

const MORE: Step = Step::Need(Need { reserve: 0, paused: false });
const PAUSED: Step = Step::Need(Need { reserve: 0, paused: true });

impl Connection {
    pub(super) fn new(id: ConnectionId, peer: SocketAddr, now: Instant) -> Self {
        let link = Link {
            id,
            peer,
            phase: Phase::Header,
            out: Outbox::default(),
            vhost: None,
            vhost_name: String::new(),
            user: String::new(),
            name: None,
            capabilities: Capabilities::default(),
            frame_max: FRAME_MAX_AT_FIRST,
            channel_max: 0,
            heartbeat: 0,
            congested: false,
            choked: false,
            blocked: false,
            alarm: None,
            stalled: None,
            decided: None,
            deaf: false,
            confirms_due: false,
            after: None,
            reset: false,
            deadline: now.checked_add(HANDSHAKE),
            beat: None,
            heard: false,
            said: false,
            silent: 0,
            beating: false,
            woken: false,
            idle: true,
            armed: None,
        };
        Self { link, channels: BTreeMap::new() }
    }

    /// Works the frame at the head of the input, if it is all there.
    pub(super) fn step(&mut self, core: &mut Core, input: &mut BytesMut, now: Instant) -> Step {
        let link = &mut self.link;
        if link.deaf || link.phase == Phase::Ended || link.reset {
            input.clear();
            return MORE;
        }
        link.heard = true;
        if link.stalled.is_some() {
            return PAUSED;
        }
        if link.out.unsent() > CHOKED {
            link.choked = true;
            return PAUSED;
        }
        if link.blocked && link.phase == Phase::Running {
            return PAUSED;
        }
        if link.phase == Phase::Header {
            return self.protocol(input);
        }
        let Some(head) = Head::peek(input) else { return MORE };
        // A few bytes more than agreed are let pass, as the real broker does.
        if head.size > link.frame_max {
            let most = link.frame_max - frame::OVERHEAD;
            let text = format!(
                "FRAME_ERROR - type {}, {}: {{frame_too_large,{},{most}}}",
                head.kind,
                frame::snippet(b""),
                head.size
            );
            return self.lost(core, text, now);
        }
        if input.len() < head.len() {
            return Step::Need(Need { reserve: head.len() - input.len(), paused: false });
        }
        let Some((payload, end)) = frame::payload(input, head) else { return MORE };
        if end != END {
            let shown = frame::snippet(payload.0);
            let text =
                format!("FRAME_ERROR - type {}, {shown}: {{invalid_frame_end_marker,{end}}}", head.kind);
            return self.lost(core, text, now);
        }
        let worked = match head.kind {
            METHOD => self.method(core, head.channel, payload, now),
            BODY => {
                let done = self.body(core, head, input, now);
                return self.worked(core, done, now);
            }
            HEADER => self.header(core, head.channel, payload, now),
            HEARTBEAT if payload.is_empty() => self.heartbeat(head, payload),
            _ => self.unknown(head, payload),
        };
        if self.link.stalled.is_some() && self.link.decided.is_some() {
            return PAUSED;
        }
        input.advance(head.len().min(input.len()));
        self.worked(core, worked, now)
    }

    fn worked(&mut self, core: &mut Core, worked: Result<(), Failure>, now: Instant) -> Step {
        if let Err(failure) = worked {
            self.fail(core, failure, now);
        }
        if let Some(after) = self.link.after.take() {
            self.flush_confirms();
            after.carry_out(&mut self.link.out, now);
        }
        Step::Again
    }

    /// The protocol header (section 4.2.2).
    fn protocol(&mut self, input: &mut BytesMut) -> Step {
        let Some(header) = input.get(..PROTOCOL.len()) else { return MORE };
        // 0-9 in its older spelling is near enough, says the real broker.
        if header != PROTOCOL && header != b"AMQP\x01\x01\x00\x09" {
            self.link.out.tail().extend_from_slice(&PROTOCOL);
            self.link.end();
            return Step::Again;
        }
        input.advance(PROTOCOL.len());
        let properties = class::connection::server_properties();
        let start = connection::Start {
            major: 0,
            minor: 9,
            server_properties: super::wire::RawTable(&properties),
            mechanisms: super::wire::Long(b"AMQPLAIN PLAIN"),
            locales: super::wire::Long(b"en_US"),
        };
        self.link.send(0, &start);
        self.link.phase = Phase::Starting;
        Step::Again
    }

    fn method(
        &mut self,
        core: &mut Core,
        channel: u16,
        payload: Reader<'_>,
        now: Instant,
    ) -> Result<(), Failure> {
        let request = match Request::decode(payload) {
            Ok(request) => request,
            Err(_) if self.ignores(channel) => return Ok(()),
            Err(Unreadable::Cut) => {
                return Err(frame_error(format!("type 1, {}: unknown_frame", frame::snippet(payload.0))));
            }
            // The real broker's reader dies of it, without a word.
            Err(Unreadable::Unknown) => {
                self.link.reset = true;
                return Ok(());
            }
            Err(Unreadable::Arguments(id)) => {
                let arguments = payload.0.get(4..).unwrap_or_default();
                return Err(frame_error(format!("cannot decode {}", frame::erlang(arguments))).of_method(id));
            }
        };
        if channel == 0 {
            let mut cx = Cx { core, link: &mut self.link, now };
            return class::connection::handle(&mut cx, &mut self.channels, request)
                .map_err(|e| e.of_method(request.id()));
        }
        if self.link.phase != Phase::Running {
            return self.not_running(METHOD, payload);
        }
        if !self.channels.contains_key(&channel) {
            let open = self.channels.len();
            if open >= usize::from(self.link.channel_max) {
                return Err(Failure::new(
                    530,
                    format!(
                        "NOT_ALLOWED - number of channels opened ({open}) has reached the negotiated \
                         channel_max ({})",
                        self.link.channel_max
                    ),
                ));
            }
            let Request::ChannelOpen(_) = request else {
                return Err(Failure::new(504, "CHANNEL_ERROR - expected 'channel.open'".to_owned())
                    .of_method(request.id()));
            };
            let Some(vhost) = self.link.vhost else { return Ok(()) };
            self.channels.insert(channel, Channel::new(channel, vhost));
            let mut cx = Cx { core, link: &mut self.link, now };
            let Some(state) = self.channels.get_mut(&channel) else { return Ok(()) };
            let result = class::work(&mut cx, state, request, true).map(drop);
            if self.link.decided.is_some() {
                // It stalls, and is opened when it is worked.
                self.channels.remove(&channel);
            }
            return result;
        }
        let Some(state) = self.channels.get_mut(&channel) else { return Ok(()) };
        let mut cx = Cx { core, link: &mut self.link, now };
        if class::work(&mut cx, state, request, false)? == Outcome::Forget {
            self.channels.remove(&channel);
        }
        Ok(())
    }

    /// Whether frames of this channel are ignored, because a close was sent.
    fn ignores(&self, channel: u16) -> bool {
        self.link.phase == Phase::Closing || self.channels.get(&channel).is_some_and(|c| c.closing)
    }

    /// A frame of a channel outside of the running phase.
    fn not_running(&mut self, kind: u8, payload: Reader<'_>) -> Result<(), Failure> {
        if self.link.phase == Phase::Closing {
            return Ok(());
        }
        Err(unexpected(format!("type {kind}, {}", frame::snippet(payload.0))))
    }

    fn header(
        &mut self,
        core: &mut Core,
        number: u16,
        payload: Reader<'_>,
        now: Instant,
    ) -> Result<(), Failure> {
        let Some(channel) = self.content(number, HEADER, payload)? else { return Ok(()) };
        let Some(incoming) = &mut channel.incoming else {
            return Err(unexpected("expected method frame, got non method frame instead".to_owned()));
        };
        let wrong = |text: String| Err(unexpected(text).of_method(basic::Publish::ID));
        if incoming.header.is_some() {
            return wrong("expected content body, got non content body frame instead".to_owned());
        }
        let Ok(header) = ContentHeader::parse(payload) else {
            return Err(frame_error(format!("type 2, {}: unknown_frame", frame::snippet(payload.0))));
        };
        if header.class != basic::Publish::ID.0 {
            return wrong(format!(
                "expected content header for class 60, got one for class {} instead",
                header.class
            ));
        }
        let most = core.settings.max_message_size;
        if header.body_size > most {
            channel.incoming = None;
            let text = format!("message size {} is larger than configured max size {most}", header.body_size);
            return Err(Failure::from(Refusal::precondition_failed(text))
                .of_method(basic::Publish::ID)
                .on_channel(number));
        }
        let properties = channel.last.properties(header.properties);
        if let Some(incoming) = &mut channel.incoming {
            incoming.header = Some(Header { size: header.body_size, properties, body: BytesMut::new() });
        }
        self.published(core);
        if header.body_size == 0 { self.complete(core, number, bytes::Bytes::new(), now) } else { Ok(()) }
    }

    fn body(
        &mut self,
        core: &mut Core,
        head: Head,
        input: &mut BytesMut,
        now: Instant,
    ) -> Result<(), Failure> {
        let payload = Reader(input.get(frame::HEAD..frame::HEAD + head.size).unwrap_or_default());
        let looked = self.content(head.channel, BODY, payload).and_then(|channel| {
            let Some(channel) = channel else { return Ok(None) };
            let Some(incoming) = &mut channel.incoming else {
                return Err(unexpected("expected method frame, got non method frame instead".to_owned()));
            };
            let Some(header) = &mut incoming.header else {
                return Err(unexpected(
                    "expected content header for class 60, got non content header frame instead".to_owned(),
                )
                .of_method(basic::Publish::ID));
            };
            if head.size as u64 > header.missing() {
                return Err(unexpected(
                    "expected content body, got non content body frame instead".to_owned(),
                )
                .of_method(basic::Publish::ID));
            }
            Ok(Some(header))
        });
        let header = match looked {
            Ok(Some(header)) => header,
            Ok(None) | Err(_) => {
                let result = looked.map(drop);
                input.advance(head.len().min(input.len()));
                return result;
            }
        };
        let body = if head.size as u64 == header.size && head.size < TAKEN {
            let body = bytes::Bytes::copy_from_slice(payload.0);
            input.advance(head.len().min(input.len()));
            body
        } else if head.size as u64 == header.size {
            // A large body that comes in one frame is taken as it lies there.
            let frame = take_frame(input, head.len());
            frame.slice(frame::HEAD..frame::HEAD + head.size)
        } else {
            let before = header.body.capacity();
            header.append(payload.0);
            let grown = header.body.capacity().saturating_sub(before);
            let missing = header.missing();
            let whole = if missing == 0 { Some(std::mem::take(&mut header.body).freeze()) } else { None };
            input.advance(head.len().min(input.len()));
            core.unfinished += grown;
            match whole {
                Some(body) => {
                    core.unfinished = core.unfinished.saturating_sub(before + grown);
                    body
                }
                None => {
                    self.published(core);
                    return core.check_unfinished();
                }
            }
        };
        self.published(core);
        self.complete(core, head.channel, body, now)
    }

    /// All frames of a publish are here.
    fn complete(
        &mut self,
        core: &mut Core,
        number: u16,
        body: bytes::Bytes,
        now: Instant,
    ) -> Result<(), Failure> {
        let Some(channel) = self.channels.get_mut(&number) else { return Ok(()) };
        let Some(incoming) = channel.incoming.take() else { return Ok(()) };
        let mut cx = Cx { core, link: &mut self.link, now };
        class::basic::published(&mut cx, channel, incoming, body)
            .map_err(|e| e.of_method(basic::Publish::ID).on_channel(number))
    }

    /// The channel that a content frame belongs to; `None` if the frame is to be ignored.
    fn content(
        &mut self,
        number: u16,
        kind: u8,
        payload: Reader<'_>,
    ) -> Result<Option<&mut Channel>, Failure> {
        if self.ignores(number) {
            return Ok(None);
        }
        if self.link.phase != Phase::Running || number == 0 {
            return self.not_running(kind, payload).map(|()| None);
        }
        match self.channels.get_mut(&number) {
            Some(channel) => Ok(Some(channel)),
            None => Err(unexpected("expected method frame, got non method frame instead".to_owned())),
        }
    }

    fn heartbeat(&mut self, head: Head, payload: Reader<'_>) -> Result<(), Failure> {
        if head.channel == 0 { Ok(()) } else { self.not_running(HEARTBEAT, payload) }
    }

    fn unknown(&mut self, head: Head, payload: Reader<'_>) -> Result<(), Failure> {
        if self.link.phase == Phase::Closing {
            return Ok(());
        }
        Err(frame_error(format!("type {}, {}: unknown_frame", head.kind, frame::snippet(payload.0))))
    }

    /// A part of a publish came: while there is an alarm, that is the last for now.
    #[inline]
    fn published(&mut self, core: &Core) {
        let link = &mut self.link;
        if link.blocked {
            return;
        }
        let reason = match (&link.alarm, core.alarm()) {
            (Some((reason, _)), _) => reason.clone(),
            (None, Some(reason)) => reason,
            (None, None) => return,
        };
        link.blocked = true;
        if link.capabilities.connection_blocked && link.phase == Phase::Running {
            link.send(0, &connection::Blocked { reason: Short(&reason) });
        }
    }

    /// There is no alarm any more.
    pub(super) fn unblock(&mut self) {
        let link = &mut self.link;
        if link.blocked {
            link.blocked = false;
            if link.capabilities.connection_blocked && link.phase == Phase::Running {
                link.send(0, &connection::Unblocked {});
            }
        }
    }

    /// The framing is lost: nothing that comes can be understood.
    fn lost(&mut self, core: &mut Core, text: String, now: Instant) -> Step {
        self.fail(core, Failure::new(501, text), now);
        self.link.deaf = true;
        if self.link.phase == Phase::Closing {
            self.link.deadline = now.checked_add(DEAF);
        }
        Step::Again
    }

    /// Answers a refusal: the channel or the connection is closed.
    pub(super) fn fail(&mut self, core: &mut Core, failure: Failure, now: Instant) {
        let link = &mut self.link;
        if link.phase >= Phase::Closing {
            return;
        }
        let number = failure.closes();
        let text = shortened(&failure.refusal.text);
        let (class, method) = failure.method.unwrap_or_default();
        if let Some(channel) = number.and_then(|number| self.channels.get_mut(&number)) {
            channel.flush_confirms(link);
            core.unfinished = core.unfinished.saturating_sub(channel.unfinished());
            channel.release(&mut core.broker, now);
            channel.closing = true;
            let close = method::channel::Close {
                code: failure.refusal.code,
                text: Short(text.as_bytes()),
                class,
                method,
            };
            link.send(channel.number, &close);
            return;
        }
        if link.phase < Phase::Tuning
            && !(failure.refusal.code == 403 && link.capabilities.authentication_failure_close)
        {
            // The client is not trusted yet: it gets no answer.
            self.release(core, now);
            self.link.end();
            return;
        }
        let close =
            connection::Close { code: failure.refusal.code, text: Short(text.as_bytes()), class, method };
        link.send(0, &close);
        self.close(core, now);
    }

    /// `connection.close` was sent.
    pub(super) fn close(&mut self, core: &mut Core, now: Instant) {
        self.release(core, now);
        let link = &mut self.link;
        link.phase = Phase::Closing;
        let limit = match link.heartbeat {
            0 => CLOSING,
            seconds => CLOSING.min(Duration::from_secs(seconds.into())),
        };
        link.deadline = now.checked_add(limit);
    }

    /// Gives back all that the connection has of the broker.
    pub(super) fn release(&mut self, core: &mut Core, now: Instant) {
        for channel in self.channels.values_mut() {
            core.unfinished = core.unfinished.saturating_sub(channel.unfinished());
            channel.release(&mut core.broker, now);
        }
        self.channels.clear();
        core.broker.release_connection(self.link.id);
    }

    /// The confirms of what was published since the last time.
    #[inline]
    pub(super) fn flush_confirms(&mut self) {
        if !std::mem::take(&mut self.link.confirms_due) {
            return;
        }
        for channel in self.channels.values_mut() {
            channel.flush_confirms(&mut self.link);
        }
    }

    /// Much is unsent: no consumer is ready until it has left.
    #[inline]
    pub(super) fn check_congestion(&mut self, core: &mut Core) {
        let unsent = self.link.out.unsent();
        let congested = if self.link.congested { unsent > CONGESTED / 2 } else { unsent > CONGESTED };
        if congested != self.link.congested {
            self.link.congested = congested;
            for channel in self.channels.values_mut() {
                channel.refresh(&mut core.broker, congested);
            }
        }
    }

    /// Output has left: whether input is taken again.
    pub(super) fn left(&mut self, core: &mut Core) -> bool {
        if !std::mem::take(&mut self.link.beating) {
            self.link.said = true;
        }
        if self.link.congested {
            self.check_congestion(core);
        }
        if self.link.choked && self.link.out.unsent() <= CHOKED / 2 {
            self.link.choked = false;
            return true;
        }
        false
    }

    /// Starts the heartbeat (section 4.2.7): every half interval is looked whether anything was sent.
    pub(super) fn start_heartbeat(link: &mut Link, now: Instant) {
        link.beat = (link.heartbeat > 0)
            .then(|| now.checked_add(Duration::from_millis(u64::from(link.heartbeat) * 500)))
            .flatten();
    }

    /// The handshake is over.
    pub(super) fn opened(link: &mut Link) {
        link.phase = Phase::Running;
        link.deadline = None;
    }

    pub(super) fn ended(link: &mut Link) {
        link.end();
    }

    /// Does what is due. Whether input is taken again.
    pub(super) fn handle_timeout(&mut self, core: &mut Core, now: Instant) -> bool {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut resumed = false;
        if due(self.link.stalled) {
            self.link.stalled = None;
            resumed = true;
        }
        self.link.out.open(|gate| matches!(gate, Gate::Until(at) if at <= now));
        if due(self.link.alarm.as_ref().map(|(_, at)| *at)) {
            self.link.alarm = None;
            if core.alarm().is_none() {
                self.unblock();
                resumed = true;
            }
        }
        if due(self.link.deadline) {
            self.release(core, now);
            self.link.end();
        }
        if due(self.link.beat) {
            self.beat(core, now);
        }
        resumed
    }

    fn beat(&mut self, core: &mut Core, now: Instant) {
        let link = &mut self.link;
        // While nothing is read, the client cannot be heard.
        let unread = link.blocked || link.choked || link.stalled.is_some();
        link.silent = if std::mem::take(&mut link.heard) || unread { 0 } else { link.silent + 1 };
        if link.silent >= 4 {
            // Two intervals without a byte: the real broker closes the socket without a word.
            link.out.clear();
            self.release(core, now);
            self.link.end();
            return;
        }
        if !std::mem::take(&mut link.said) && link.out.unsent() == 0 {
            link.out.tail().extend_from_slice(&HEARTBEAT_FRAME);
            link.beating = true;
        }
        Self::start_heartbeat(link, now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next wanted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.link.due()
    }

    /// What is to be seen of it from outside, once the handshake is over.
    pub(super) fn state(&self) -> Option<super::ConnectionState> {
        let link = &self.link;
        (link.phase == Phase::Running).then(|| super::ConnectionState {
            id: link.id,
            peer: link.peer,
            user: link.user.clone(),
            vhost: link.vhost_name.clone(),
            name: link.name.clone(),
            channels: self.channels.len(),
            consumers: self.channels.values().map(|channel| channel.consumers.len()).sum(),
            unsettled: self.channels.values().map(|channel| channel.unsettled.len()).sum(),
            blocked: link.blocked,
        })
    }

    /// The broker drops a consumer.
    pub(super) fn cancelled(link: &mut Link, channel: u16, tag: &ShortStr) {
        if link.capabilities.consumer_cancel_notify && link.phase == Phase::Running {
            link.send(channel, &basic::Cancel { tag: Short(tag), flags: Flags(basic::Cancel::NO_WAIT) });
        }
    }
}

fn frame_error(text: String) -> Failure {
    Failure::new(501, format!("FRAME_ERROR - {text}"))
}

fn unexpected(text: String) -> Failure {
    Failure::new(505, format!("UNEXPECTED_FRAME - {text}"))
}

/// A reply text has room for 255 bytes; RabbitMQ cuts a longer one and ends it with dots.
fn shortened(text: &str) -> String {
    if text.len() <= 255 {
        return text.to_owned();
    }
    let end = (0..=252).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...", text.get(..end).unwrap_or_default())
}
