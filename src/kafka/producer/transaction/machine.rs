//! The state of a transactional producer (KIP-98, KIP-360, KIP-447, KIP-890). Pure.
//!
//! ```text
//!  Uninitialized
//!       | handle_init
//!       v              InitProducerId
//!  Initializing ------------------------> Ready <------------------------------+
//!    ^   |                                  | handle_begin                     |
//!    |   | fenced, no right                 v                                  |
//!    |   v                                 Open  (a failure waits for the end) |
//!    | Fatal <-- no right, from anywhere    | handle_end                       |
//!    |                                      v                                  |
//!    |     fenced, or another epoch       Ending{commit} ---- EndTxn is done --+
//!    +----------- is needed -------------   |     ^
//!                                           |     | asked again: answer lost, coordinator moved or busy
//!                                           +-----+
//! ```
//!
//! One request is on its way at a time. A lost answer is asked for again, for as long as it takes: EndTxn says the same
//! when it is repeated, so a commit is never guessed. Four things can still be in doubt:
//!
//! - *Who ended it.* A refusal as fenced comes when another producer took the transactional id, and when the coordinator
//!   ended a transaction that was open too long. InitProducerId with the old epoch tells them apart (KIP-360): it
//!   gives a new epoch to a producer that nobody replaced. With version 1, Kafka 4.3 refuses both: then the error names
//!   both.
//! - *A commit that is refused as fenced after its answer was lost.* It was committed, or it was not: this alone is
//!   told as ambiguous.
//! - *A new epoch whose answer was lost.* Asked again with the old epoch, the same coordinator gives the same answer; another
//!   one refuses the producer as fenced, since Kafka's log (4.3) does not keep the epoch before. It could not be told from
//!   another producer's, so this one ends; the error names both.
//! - *What arrives late.* Version 2 (KIP-890) raises the epoch at every end, so nothing late falls into the next
//!   transaction. In version 1 the epoch stays, and a late EndTxn would end the next transaction half-way: after any
//!   lost answer, after every abort, and where the cluster is raised to version 2, a new epoch is asked for before the
//!   producer is used again (Jepsen's finding on the Java client, which does so for failed batches and the raise alone).
//!
//! Where it differs from the Java client: an EndTxn abort is sent when a partition may have been added, not only when
//! it was surely; a fenced answer within a transaction makes it fail, and only its end decides whether the producer
//! lives.
//!
//! Order of calls: the `handle_*` of a caller at any time; the driver takes [`poll_event`](Machine::poll_event) until
//! there is none, then [`poll_request`](Machine::poll_request), sends it, gives what came of it to
//! [`handle_answer`](Machine::handle_answer), and else sleeps until [`poll_timeout`](Machine::poll_timeout).

mod told;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError as Code;

use self::told::{ended, fenced, overtaken, sure};
use super::meaning::{Meaning, meaning};
use super::{Committing, GroupMetadata, Identity, Place, Protocol};
use crate::{Error, ErrorKind};

const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What the machine needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The transactional id, for messages.
    pub(crate) id: String,
    /// When the coordinator ends a transaction, for messages.
    pub(crate) timeout: Duration,
    /// How long offsets are tried to be sent before their transaction fails.
    pub(crate) patience: Duration,
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) request: Request,
    /// What is known of this coordinator is old: look it up first.
    pub(crate) anew: bool,
}

/// A request; all but [`Request::Offsets`] go to the coordinator of the transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// InitProducerId, with who this producer was.
    Init(Option<Identity>),
    /// AddPartitionsToTxn.
    Partitions(Identity, Vec<Place>),
    /// AddOffsetsToTxn.
    Group(Identity, String),
    /// TxnOffsetCommit, to the coordinator of the group.
    Offsets(Identity, Protocol, GroupMetadata, Vec<(Place, Committing)>),
    /// EndTxn.
    End { identity: Identity, protocol: Protocol, commit: bool },
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// InitProducerId without an error; EndTxn of version 2 without one.
    Identity(Identity),
    /// An error code, or 0.
    Code(i16),
    /// Codes by partition.
    Codes(Vec<(Place, i16)>),
    /// No answer, or none that makes sense; ambiguous where the request may have arrived.
    Failed(Error),
}

/// What the driver tells others.
#[derive(Debug)]
pub(crate) enum Event {
    /// All partitions number from 0 under it, where it is another than before.
    Identity(Identity),
    /// May be sent to.
    Added(Vec<Place>),
    /// Offsets were taken into the transaction, or not.
    Offsets(u64, Result<(), Error>),
    /// The transaction has its end.
    Ended(Ended),
}

/// The end of a transaction.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Which one, counted from 1.
    pub(crate) number: u64,
    /// Whether it was committed; `None` where nobody can know.
    pub(crate) committed: Option<bool>,
    /// What its caller is told: an abort that was asked for is a success.
    pub(crate) result: Result<(), Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Uninitialized,
    Initializing,
    Ready,
    Open,
    Ending { commit: bool },
    Fatal,
}

/// Offsets on their way into the transaction.
#[derive(Debug)]
struct Offsets {
    ticket: u64,
    group: GroupMetadata,
    entries: Vec<(Place, Committing)>,
    deadline: Instant,
    sent: bool,
    last_error: Option<Error>,
}

/// Why a transaction can only be aborted.
#[derive(Debug)]
struct Failure {
    error: Error,
    /// The broker called the producer's epoch old: another took the id, or the transaction was open too long.
    fenced: bool,
}

/// A transaction that is over, in whatever way; InitProducerId tells whether the producer lives.
#[derive(Debug)]
struct Verdict {
    /// The commit may have been done.
    unsure: bool,
    failure: Failure,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: Settings,
    state: State,
    identity: Option<Identity>,
    /// Of the transactions to come.
    next_protocol: Protocol,
    /// Of the open transaction.
    protocol: Protocol,
    number: u64,
    tickets: u64,
    /// The coordinator may know of this transaction.
    begun: bool,
    /// Records were queued in this transaction.
    touched: bool,
    failure: Option<Failure>,
    /// What its caller asked for.
    asked_to_commit: bool,
    /// The commit may have been done: EndTxn left, and nobody knows what came of it.
    unsure: bool,
    /// A new epoch is needed before the next transaction.
    stale: bool,
    /// The coordinator may have given a new epoch, and its answer was lost.
    epoch_lost: bool,
    verdict: Option<Verdict>,
    adding: BTreeSet<Place>,
    groups: BTreeSet<String>,
    /// Groups whose offsets may arrive once more.
    late: BTreeSet<String>,
    offsets: VecDeque<Offsets>,
    in_flight: Option<Request>,
    attempts: u32,
    not_before: Option<Instant>,
    /// The coordinators to be looked up: of the transactional id, of the group.
    moved: (bool, bool),
    fatal: Option<Error>,
    events: VecDeque<Event>,
}

impl Machine {
    pub(crate) fn new(settings: Settings, protocol: Protocol) -> Self {
        Self {
            settings,
            state: State::Uninitialized,
            identity: None,
            next_protocol: protocol,
            protocol,
            number: 0,
            tickets: 0,
            begun: false,
            touched: false,
            failure: None,
            asked_to_commit: false,
            unsure: false,
            stale: false,
            epoch_lost: false,
            verdict: None,
            adding: BTreeSet::new(),
            groups: BTreeSet::new(),
            late: BTreeSet::new(),
            offsets: VecDeque::new(),
            in_flight: None,
            attempts: 0,
            not_before: None,
            moved: (false, false),
            fatal: None,
            events: VecDeque::new(),
        }
    }

    /// Asks for a producer id; an older producer of the same transactional id is fenced by it.
    pub(crate) fn handle_init(&mut self) {
        if self.state == State::Uninitialized {
            self.state = State::Initializing;
        }
    }

    /// What the cluster speaks; it holds from the next transaction on.
    pub(crate) fn handle_protocol(&mut self, protocol: Protocol) {
        // A commit of version 1 keeps its epoch, and its markers may still be on their way. In version 2 nothing waits for
        // them: under the same epoch, records of the next transaction would count in that one.
        self.stale |= self.number > 0 && (self.next_protocol, protocol) == (Protocol::V1, Protocol::V2);
        self.next_protocol = protocol;
        if self.stale && self.state == State::Ready {
            self.state = State::Initializing;
        }
    }

    /// Opens a transaction. Gives its number and its protocol.
    ///
    /// # Errors
    /// The producer's end; [`ErrorKind::Internal`] while it is not [ready](Self::is_ready).
    pub(crate) fn handle_begin(&mut self) -> Result<(u64, Protocol), Error> {
        if let Some(e) = &self.fatal {
            return Err(e.duplicate());
        }
        if self.state != State::Ready {
            return Err(Error::new(ErrorKind::Internal, "a transaction was begun before its time"));
        }
        self.state = State::Open;
        self.number += 1;
        self.protocol = self.next_protocol;
        (self.begun, self.touched, self.unsure) = (false, false, false);
        self.failure = None;
        self.groups.clear();
        self.late.clear();
        Ok((self.number, self.protocol))
    }

    /// Partitions that records are about to be sent to (version 1).
    pub(crate) fn handle_partitions(&mut self, places: impl IntoIterator<Item = Place>) {
        if matches!(self.state, State::Open | State::Ending { commit: true }) {
            self.adding.extend(places);
        }
    }

    /// Offsets that are to be committed with the transaction. Their [`Event::Offsets`] has the number given back.
    ///
    /// # Errors
    /// Why the transaction can only be aborted.
    pub(crate) fn handle_offsets(
        &mut self,
        group: GroupMetadata,
        entries: Vec<(Place, Committing)>,
        now: Instant,
    ) -> Result<u64, Error> {
        if let Some(e) = self.failure() {
            return Err(e);
        }
        if self.late.contains(group.group()) {
            let error = overtaken(group.group());
            self.fail(Failure { error: error.duplicate(), fenced: false });
            return Err(error);
        }
        self.tickets += 1;
        let deadline = now + self.settings.patience;
        self.offsets.push_back(Offsets {
            ticket: self.tickets,
            group,
            entries,
            deadline,
            sent: false,
            last_error: None,
        });
        Ok(self.tickets)
    }

    /// A batch of the transaction failed for good.
    pub(crate) fn handle_failed_batch(&mut self, error: &Error) {
        self.stale |= self.protocol == Protocol::V1;
        if matches!(self.state, State::Open | State::Ending { commit: true }) {
            let fenced = error.kind() == ErrorKind::Fenced;
            self.fail(Failure { error: error.duplicate(), fenced });
        }
    }

    /// Ends the open transaction. `touched`: records were queued in it.
    pub(crate) fn handle_end(&mut self, commit: bool, touched: bool) {
        match self.state {
            State::Open => {
                self.touched = touched;
                self.asked_to_commit = commit;
                self.state = State::Ending { commit };
                if !commit {
                    self.drop_work();
                }
            }
            State::Fatal => {
                let error = self.fatal.as_ref().map_or_else(ended, Error::duplicate);
                self.tell(Some(false), Err(error));
            }
            _ => {}
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the open transaction is coming to its end.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending { .. })
    }

    /// Whether no transaction waits for anything.
    pub(crate) fn is_resting(&self) -> bool {
        match self.state {
            State::Uninitialized | State::Ready | State::Fatal => true,
            State::Initializing => self.verdict.is_none(),
            State::Open | State::Ending { .. } => false,
        }
    }

    /// Why nothing goes on for good.
    pub(crate) fn fatal(&self) -> Option<&Error> {
        self.fatal.as_ref()
    }

    /// Why the open transaction can only be aborted, or why there is no other any more.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.fatal.as_ref().or(self.failure.as_ref().map(|f| &f.error)).map(Error::duplicate)
    }

    /// Why queued records are to be given up: the transaction is being aborted, or can only be.
    pub(crate) fn giving_up(&self) -> Option<Error> {
        match (self.state, self.failure()) {
            (State::Fatal | State::Open | State::Ending { .. }, Some(e)) => Some(e),
            (State::Ending { commit: false }, None) => {
                Some(Error::new(ErrorKind::Closed, "the transaction was aborted before this record was sent"))
            }
            _ => None,
        }
    }

    /// Whether a commit's EndTxn may have been done, which nobody knows at the moment.
    pub(crate) fn is_unsure(&self) -> bool {
        self.unsure || matches!(self.in_flight, Some(Request::End { commit: true, .. }))
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next request. `drained`: no record is queued or on its way.
    pub(crate) fn poll_request(&mut self, now: Instant, drained: bool) -> Option<Call> {
        self.expire(now);
        if self.state == (State::Ending { commit: true }) && self.failure.is_some() && !self.is_unsure() {
            self.state = State::Ending { commit: false };
            self.drop_work();
        }
        let known = self.begun || (self.touched && self.protocol == Protocol::V2);
        if let State::Ending { commit } = self.state
            && drained
            && self.in_flight.is_none()
            && !known
            && self.offsets.is_empty()
        {
            self.finish(commit);
        }
        if self.in_flight.is_some() || self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        // Passed, whatever comes now: the driver must not be told of it again and again where nothing is to be sent.
        self.not_before = None;
        let request = match self.state {
            State::Initializing => Request::Init(self.identity),
            State::Open => self.work()?,
            State::Ending { commit } => {
                let work = if commit { self.work() } else { None };
                match work {
                    Some(request) => request,
                    // Work that ran out of time has made it fail: it is looked at anew.
                    None if commit && self.failure.is_some() && !self.unsure => {
                        return self.poll_request(now, drained);
                    }
                    None if !drained => return None,
                    None => Request::End { identity: self.identity?, protocol: self.protocol, commit },
                }
            }
            State::Uninitialized | State::Ready | State::Fatal => return None,
        };
        self.begun |= !matches!(request, Request::Init(_) | Request::End { .. });
        let anew = match request {
            Request::Offsets(..) => std::mem::take(&mut self.moved.1),
            _ => std::mem::take(&mut self.moved.0),
        };
        self.in_flight = Some(request.clone());
        Some(Call { request, anew })
    }

    /// When to poll again without anything happening.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let pause = self.not_before.filter(|_| self.in_flight.is_none());
        [pause, self.offsets.front().map(|next| next.deadline)].into_iter().flatten().min()
    }

    /// What came of the request on its way.
    pub(crate) fn handle_answer(&mut self, answer: Answer, now: Instant) {
        let Some(request) = self.in_flight.take() else { return };
        match (request, answer) {
            (Request::Init(_), Answer::Identity(identity)) => self.initialized(identity),
            (Request::End { commit, .. }, Answer::Identity(identity)) => {
                self.assume(identity);
                self.calm();
                self.finish(commit);
            }
            (Request::End { commit, .. }, Answer::Code(0)) => {
                self.calm();
                // Version 2 alone tells the next epoch; without one there is none to go on with.
                self.stale |= self.protocol == Protocol::V2;
                self.finish(commit);
            }
            (request, Answer::Code(code)) => {
                let meaning = meaning(code, || self.what(&request));
                self.handle_meaning(request, meaning, now);
            }
            (request, Answer::Codes(codes)) => self.handle_codes(request, &codes, now),
            (request, Answer::Failed(error)) => {
                let unsure = error.is_ambiguous();
                // A request of version 1 that arrives late counts in the next transaction too.
                self.stale |= unsure && self.protocol == Protocol::V1;
                if unsure && let Request::Offsets(_, _, group, _) = &request {
                    self.late.insert(group.group().to_owned());
                }
                let error = error.context(self.what(&request));
                let meaning = if error.is_retryable() || error.kind() == ErrorKind::Malformed {
                    Meaning::Again { moved: true, unsure, error }
                } else if matches!(request, Request::Offsets(..)) {
                    Meaning::Other(error)
                } else {
                    self.unsure |= unsure && matches!(request, Request::End { commit: true, .. });
                    Meaning::Fatal(error)
                };
                self.handle_meaning(request, meaning, now);
            }
            (request, Answer::Identity(_)) => {
                let error = Error::new(ErrorKind::Internal, "an answer that does not fit its request");
                self.handle_meaning(request, Meaning::Fatal(error), now);
            }
        }
    }

    fn handle_codes(&mut self, request: Request, codes: &[(Place, i16)], now: Instant) {
        let mut added = Vec::new();
        let mut worst = Meaning::Done;
        for (place, code) in codes {
            let (topic, partition) = place;
            let what = || format!("{}: topic {topic} partition {partition}", self.what(&request));
            let found = match Code::try_from_code(*code) {
                // The others' fault.
                Some(Code::OperationNotAttempted) => continue,
                _ => meaning(*code, what),
            };
            if matches!(found, Meaning::Done) {
                added.push(place.clone());
            }
            if found.rank() > worst.rank() {
                worst = found;
            }
        }
        if matches!(request, Request::Partitions(..)) {
            for place in &added {
                self.adding.remove(place);
            }
            // One that the broker left out is asked for again, as are those it did not try.
            if added.is_empty() && matches!(worst, Meaning::Done) {
                let error =
                    Error::new(ErrorKind::Malformed, "the answer names no partition that was asked for");
                worst = Meaning::Again { moved: false, unsure: false, error };
            }
            if !added.is_empty() {
                self.events.push_back(Event::Added(added));
            }
        }
        self.handle_meaning(request, worst, now);
    }

    fn handle_meaning(&mut self, request: Request, meaning: Meaning, now: Instant) {
        let ends = match request {
            Request::End { commit, .. } => Some(commit),
            _ => None,
        };
        match (meaning, ends) {
            (Meaning::Done, _) => {
                self.calm();
                match request {
                    Request::Group(_, group) => drop(self.groups.insert(group)),
                    Request::Offsets(..) => {
                        if let Some(done) = self.offsets.pop_front() {
                            self.events.push_back(Event::Offsets(done.ticket, Ok(())));
                        }
                    }
                    Request::Init(_) | Request::Partitions(..) | Request::End { .. } => {}
                }
            }
            (Meaning::Again { moved, unsure, error }, _) => {
                tracing::debug!(transactional_id = self.settings.id, error = %error.report(), "asking again");
                if ends == Some(true) {
                    self.unsure |= unsure;
                }
                self.epoch_lost |= unsure && matches!(request, Request::Init(Some(_)));
                match &request {
                    Request::Offsets(..) => self.moved.1 |= moved,
                    _ => self.moved.0 |= moved,
                }
                if matches!(request, Request::Group(..) | Request::Offsets(..))
                    && let Some(offsets) = self.offsets.front_mut()
                {
                    offsets.last_error = Some(error);
                }
                let pause = RETRY_MIN.saturating_mul(1 << self.attempts.min(10)).min(RETRY_MAX);
                self.attempts = self.attempts.saturating_add(1);
                self.not_before = Some(now + pause);
            }
            // The coordinator aborted it, or another producer did: whether this one lives, InitProducerId tells.
            (Meaning::Fenced(error), Some(_)) => self.ask_who(Failure { error, fenced: true }),
            // Nothing is there to be committed: it was open too long. Nothing to be aborted: all the better.
            (Meaning::State(error), Some(commit)) => {
                // A commit that was done would have been answered so again.
                self.unsure = false;
                self.ask_who(Failure { error, fenced: commit && self.protocol == Protocol::V2 });
            }
            (Meaning::Abort(error), Some(true)) if !self.unsure => {
                self.calm();
                self.fail(Failure { error, fenced: false });
            }
            (Meaning::Abort(error), Some(_)) => self.ask_who(Failure { error, fenced: false }),
            (Meaning::Other(error), Some(_)) => {
                self.unsure |= ends == Some(true);
                self.give_up(error);
            }
            (Meaning::Fatal(error), _) => self.give_up(error),
            (
                Meaning::Fenced(error)
                | Meaning::State(error)
                | Meaning::Abort(error)
                | Meaning::Other(error),
                None,
            ) if matches!(request, Request::Init(_)) => {
                self.give_up(error);
            }
            (Meaning::Fenced(error), None) => {
                self.calm();
                self.fail(Failure { error, fenced: true });
            }
            (Meaning::State(error) | Meaning::Abort(error) | Meaning::Other(error), None) => {
                self.calm();
                self.fail(Failure { error, fenced: false });
            }
        }
    }

    /// Offsets that nobody has taken in their time make the transaction fail, though they may be on their way.
    fn expire(&mut self, now: Instant) {
        let Some(next) = self.offsets.front().filter(|next| next.deadline <= now) else { return };
        let mut error = Error::new(
            ErrorKind::Timeout,
            format!(
                "offsets of group {} could not be sent within {:?} (max_block)",
                next.group.group(),
                self.settings.patience
            ),
        );
        if let Some(e) = &next.last_error {
            error = error.with_source(e.report());
        }
        self.fail(Failure { error, fenced: false });
    }

    /// The next request within the transaction.
    fn work(&mut self) -> Option<Request> {
        if self.failure.is_some() {
            return None;
        }
        let identity = self.identity?;
        if !self.adding.is_empty() {
            return Some(Request::Partitions(identity, self.adding.iter().cloned().collect()));
        }
        let next = self.offsets.front_mut()?;
        if !next.sent && self.late.contains(next.group.group()) {
            let error = overtaken(next.group.group());
            self.fail(Failure { error, fenced: false });
            return None;
        }
        if self.protocol == Protocol::V1 && !self.groups.contains(next.group.group()) {
            return Some(Request::Group(identity, next.group.group().to_owned()));
        }
        next.sent = true;
        Some(Request::Offsets(identity, self.protocol, next.group.clone(), next.entries.clone()))
    }

    /// The last request got its answer.
    fn calm(&mut self) {
        self.attempts = 0;
        self.not_before = None;
    }

    fn assume(&mut self, identity: Identity) {
        // The last epoch is the coordinator's, to fence with, though it tells it after a fence. Told so, it gives another
        // id; going on with it, nothing could be fenced any more.
        self.stale |= identity.1.0 == i16::MAX;
        self.identity = Some(identity);
        self.events.push_back(Event::Identity(identity));
    }

    fn fail(&mut self, failure: Failure) {
        let error = failure.error.duplicate();
        self.failure.get_or_insert(failure);
        self.adding.clear();
        for offsets in self.offsets.drain(..) {
            self.events.push_back(Event::Offsets(offsets.ticket, Err(error.duplicate())));
        }
    }

    /// Nothing more is asked for within this transaction.
    fn drop_work(&mut self) {
        self.adding.clear();
        for offsets in self.offsets.drain(..) {
            let error =
                Error::new(ErrorKind::Closed, "the transaction was aborted before its offsets were sent");
            self.events.push_back(Event::Offsets(offsets.ticket, Err(error)));
        }
    }

    /// The transaction is over, but by whom? InitProducerId is asked.
    fn ask_who(&mut self, failure: Failure) {
        // What the transaction failed for first is what its caller should hear, unless it is the same refusal.
        let failure = self.failure.take().filter(|f| !f.fenced).unwrap_or(failure);
        self.verdict = Some(Verdict { unsure: self.unsure, failure });
        self.stale = true;
        self.calm();
        self.state = State::Initializing;
    }

    fn initialized(&mut self, identity: Identity) {
        (self.stale, self.epoch_lost) = (false, false);
        self.assume(identity);
        self.calm();
        self.state = if self.stale { State::Initializing } else { State::Ready };
        if let Some(verdict) = self.verdict.take() {
            self.judge(verdict, None);
        }
    }

    /// Tells what became of a transaction, now that it is known whether the producer lives.
    fn judge(&mut self, verdict: Verdict, death: Option<&Error>) {
        let error = match death {
            Some(e) => e.duplicate(),
            None => self.explain(verdict.failure),
        };
        if verdict.unsure {
            self.tell(None, Err(error));
        } else if death.is_none() && !self.asked_to_commit {
            self.tell(Some(false), Ok(()));
        } else {
            self.tell(Some(false), Err(error));
        }
    }

    /// Why a transaction of a producer that lives was aborted.
    fn explain(&self, failure: Failure) -> Error {
        if !failure.fenced {
            return failure.error;
        }
        Error::new(
            ErrorKind::Timeout,
            format!(
                "the coordinator aborted transaction {} of {}: it was open longer than {:?} (transaction_timeout)",
                self.number, self.settings.id, self.settings.timeout
            ),
        )
        .with_source(failure.error.report())
    }

    /// The coordinator ended the transaction as it was told to, or there was nothing to end.
    fn finish(&mut self, commit: bool) {
        self.stale |= self.protocol == Protocol::V1 && self.begun && !commit;
        let failure = self.failure.take().map(|failure| self.explain(failure));
        let result = match failure {
            Some(e) if !commit && self.asked_to_commit => Err(e),
            _ => Ok(()),
        };
        self.tell(Some(commit), result);
        self.state = if self.stale { State::Initializing } else { State::Ready };
    }

    fn tell(&mut self, committed: Option<bool>, result: Result<(), Error>) {
        (self.unsure, self.failure) = (false, None);
        let result = match (committed, result) {
            (None, Err(e)) => Err(e.ambiguous()),
            (_, Err(e)) => Err(sure(e)),
            (_, Ok(())) => Ok(()),
        };
        self.events.push_back(Event::Ended(Ended { number: self.number, committed, result }));
    }

    /// This producer does nothing any more.
    fn give_up(&mut self, error: Error) {
        let error = if error.kind() == ErrorKind::Fenced {
            fenced(&self.settings, self.protocol, self.epoch_lost, &error)
        } else {
            error.retryable(false)
        };
        self.fatal = Some(error.duplicate());
        self.drop_work();
        let state = std::mem::replace(&mut self.state, State::Fatal);
        if let Some(verdict) = self.verdict.take() {
            self.judge(verdict, Some(&error));
        } else if matches!(state, State::Ending { .. }) {
            let committed = if self.unsure { None } else { Some(false) };
            self.tell(committed, Err(error));
        }
    }

    fn what(&self, request: &Request) -> String {
        let id = &self.settings.id;
        match request {
            Request::Init(_) => format!("a producer id for the transactional id {id}"),
            Request::Partitions(..) => format!("partitions of a transaction of {id}"),
            Request::Group(_, group) => format!("group {group} in a transaction of {id}"),
            Request::Offsets(_, _, group, _) => {
                format!("offsets of group {} in a transaction of {id}", group.group())
            }
            Request::End { commit: true, .. } => format!("the commit of a transaction of {id}"),
            Request::End { commit: false, .. } => format!("the abort of a transaction of {id}"),
        }
    }
}

#[cfg(test)]
mod tests;
