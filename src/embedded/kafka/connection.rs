//! One client's stream: frames in, one request at a time, answers out.
//!
//! ```text
//!            frame whole          answered at once
//! Reading ----------------> handled --------------> Reading
//!                              | answered later        ^
//!                              v         answer        |
//!                           Waiting -------------------+      (no further frame is taken meanwhile: the real
//!    any --violation, fault, SASL failure--> Ended             broker mutes the channel until its answer is out)
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use super::carry::Fate;
use super::security::Session;
use crate::NodeId;
use crate::embedded::machine::{Need, Output, take_frame};

/// No frame is taken while so much of a connection's output is unsent.
const UNSENT_LIMIT: usize = 1024 * 1024;

/// What is needed to write the answer of the request in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) key: i16,
    pub(super) version: i16,
    pub(super) correlation: i32,
}

/// A connection's state.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) node: NodeId,
    pub(super) peer: SocketAddr,
    /// Who it is, and what it may send.
    pub(super) session: Session,
    /// The request whose answer is awaited.
    pub(super) pending: Option<Pending>,
    /// What is to happen to its answer.
    pub(super) fate: Option<Fate>,
    /// An answer that leaves later.
    pub(super) kept: Option<Vec<Bytes>>,
    /// Its broker is cut off: no byte passes.
    pub(super) cut_off: bool,
    /// Nothing is sent for a while.
    pub(super) stalled: bool,
    output: VecDeque<Bytes>,
    unsent: usize,
    ended: Option<Output>,
    /// The driver was told to hold its input back.
    paused: bool,
}

impl Connection {
    pub(super) fn new(node: NodeId, peer: SocketAddr, session: Session) -> Self {
        Self {
            node,
            peer,
            session,
            pending: None,
            fate: None,
            kept: None,
            cut_off: false,
            stalled: false,
            output: VecDeque::new(),
            unsent: 0,
            ended: None,
            paused: false,
        }
    }

    /// May the next frame be taken?
    pub(super) fn is_ready(&self) -> bool {
        self.pending.is_none()
            && self.kept.is_none()
            && !self.stalled
            && !self.cut_off
            && self.ended.is_none()
            && self.unsent < UNSENT_LIMIT
    }

    /// Takes one frame from `input`, without its length.
    ///
    /// # Errors
    /// The announced length, where it is negative or above `limit`.
    pub(super) fn next_frame(input: &mut BytesMut, limit: usize) -> Result<Result<Bytes, Need>, i32> {
        let Some(head) = input.first_chunk::<4>() else {
            return Ok(Err(Need::default()));
        };
        let announced = i32::from_be_bytes(*head);
        let length = usize::try_from(announced).ok().filter(|n| *n <= limit).ok_or(announced)?;
        let missing = (length + 4).saturating_sub(input.len());
        if missing > 0 {
            return Ok(Err(Need { reserve: missing, paused: false }));
        }
        let _ = input.split_to(4);
        Ok(Ok(take_frame(input, length)))
    }

    /// Remembers that its input is held back.
    pub(super) fn pause(&mut self) -> Need {
        self.paused = true;
        Need { reserve: 0, paused: true }
    }

    /// Is its input held back, and may it go on now? It is asked once for each pause.
    pub(super) fn resumes(&mut self) -> bool {
        // An end that cannot be told yet changes nothing: whoever looks again would be sent back here.
        let ends = self.ended.is_some() && !self.cut_off;
        let resumes = self.paused && (self.is_ready() || ends);
        self.paused &= !resumes;
        resumes
    }

    /// Adds to what is to be sent.
    pub(super) fn send(&mut self, bytes: Bytes) {
        if self.ended.is_none() && !bytes.is_empty() {
            self.unsent += bytes.len();
            self.output.push_back(bytes);
        }
    }

    /// Ends it: `Close` after what is unsent, `Reset` at once. The first end stands.
    pub(super) fn end(&mut self, how: Output) {
        if how == Output::Reset {
            self.output.clear();
            self.unsent = 0;
        }
        self.pending = None;
        self.kept = None;
        self.stalled = false;
        self.cut_off &= how != Output::Reset;
        self.ended.get_or_insert(how);
    }

    /// Was it reset?
    pub(super) fn is_cut(&self) -> bool {
        self.ended == Some(Output::Reset)
    }

    pub(super) fn poll_output(&mut self) -> Output {
        if self.stalled || self.cut_off {
            return Output::Pending;
        }
        match self.output.pop_front() {
            Some(bytes) => {
                self.unsent -= bytes.len();
                Output::Bytes(bytes)
            }
            None => self.ended.clone().unwrap_or(Output::Pending),
        }
    }
}
