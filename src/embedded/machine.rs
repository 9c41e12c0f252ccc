//! What a broker's pure machine is to the sockets around it.
//!
//! The driver (`net`) owns streams and the clock; the machine owns everything else. Inputs are `handle_*`, outputs
//! `poll_*`. After any input the driver asks [`Machine::poll_wake`] until it is empty, and [`Machine::poll_timeout`].
//! Output is pulled: a connection's bytes are asked for only when its socket can take them, so that a machine sees how
//! much is unsent and bounds it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::{NodeId, Timestamp};

/// A connection of a client, numbered by the driver in the order of arrival; a number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Both clocks at one moment: from it and a monotonic `now` follows the wall time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// The moment on the monotonic clock.
    pub(crate) at: Instant,
    /// The same moment on the wall.
    pub(crate) wall: Timestamp,
}

impl Clock {
    /// The wall time at `now`.
    pub(crate) fn wall(&self, now: Instant) -> Timestamp {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let wall = match now.checked_duration_since(self.at) {
            Some(later) => self.wall.0.saturating_add(millis(later)),
            None => self.wall.0.saturating_sub(millis(self.at.saturating_duration_since(now))),
        };
        Timestamp(wall)
    }
}

/// What a machine wants of a connection's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Need {
    /// Bytes still missing of the frame in progress, or 0 where its length is not known yet.
    pub(crate) reserve: usize,
    /// No more input is taken until [`Machine::poll_wake`] names the connection.
    pub(crate) paused: bool,
}

/// The next thing to do with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send these bytes, then ask again.
    Bytes(Bytes),
    /// Send what was given so far, then close.
    Close,
    /// Cut it now; what is unsent is lost.
    Reset,
    /// Nothing now.
    Pending,
}

/// A broker without its sockets.
pub(crate) trait Machine: Send + 'static {
    /// Does this broker take connections now? A killed one does not.
    fn accepts(&self, node: NodeId) -> bool;
    /// A client connected to the listener of `node`.
    fn handle_open(&mut self, connection: ConnectionId, node: NodeId, peer: SocketAddr, now: Instant);
    /// Takes from the head of `input` the whole frames that it is ready for, and leaves the rest.
    fn handle_input(&mut self, connection: ConnectionId, input: &mut BytesMut, now: Instant) -> Need;
    /// The peer is gone.
    fn handle_close(&mut self, connection: ConnectionId, now: Instant);
    /// Does all that is due.
    fn handle_timeout(&mut self, now: Instant);
    /// When [`handle_timeout`](Self::handle_timeout) is next wanted.
    fn poll_timeout(&self) -> Option<Instant>;
    /// A connection that has output again, or takes input again.
    fn poll_wake(&mut self) -> Option<ConnectionId>;
    /// Is this connection to be cut, whatever is unsent? Asked while its socket takes nothing.
    fn is_cut(&self, connection: ConnectionId) -> bool;
    /// What to do with a connection. For one that is not known: [`Output::Reset`].
    fn poll_output(&mut self, connection: ConnectionId) -> Output;
}

/// Frames below this are copied out of the read buffer, those from it on are split off.
const COPIED: usize = 16 * 1024;

/// Takes `len` bytes from the head of `input`. What is returned never keeps much more memory alive than its length:
/// a small frame gets an allocation of its own, a large one is most of the buffer that it was read into.
pub(crate) fn take_frame(input: &mut BytesMut, len: usize) -> Bytes {
    let frame = input.split_to(len.min(input.len()));
    if frame.len() < COPIED { Bytes::copy_from_slice(&frame) } else { frame.freeze() }
}
