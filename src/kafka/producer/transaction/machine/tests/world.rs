//! A naive coordinator, the logs of three partitions, a group, and a network that loses, delays and repeats.

use std::collections::BTreeMap;

use super::*;

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Answered,
    /// It never arrives.
    Lost,
    /// It arrives later; the client has given it up by then.
    Delayed,
    AnswerLost,
    NotSent,
    Refused(i16),
    /// It is done all the same.
    DoneAndRefused(i16),
}

#[derive(Debug, Clone)]
enum Packet {
    Transaction(Request, u64),
    Produce { identity: Identity, protocol: Protocol, batch: Batch },
}

#[derive(Debug, Clone, PartialEq)]
struct Batch {
    transaction: u64,
    place: Place,
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Empty,
    Ongoing,
    Prepared(bool),
    Complete(bool),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fact {
    Open,
    Committed,
    Aborted,
}

/// The cluster, as simply as its rules can be told.
#[derive(Debug)]
struct Cluster {
    held_markers: bool,
    id: i64,
    epoch: i16,
    /// Before the last end that used it up.
    previous_id: i64,
    next_id: Option<i64>,
    last_epoch: i16,
    phase: Phase,
    places: BTreeSet<Place>,
    group: bool,
    ids: i64,
    /// Who wrote it, in which transaction, what became of it.
    log: Vec<(Identity, Batch, Fact)>,
    log_epochs: BTreeMap<Place, Identity>,
    staged: Option<(u64, i64)>,
    applied: Vec<(u64, i64)>,
}

const USED_UP: i16 = i16::MAX - 1;

impl Cluster {
    fn init(&mut self, expected: Option<Identity>) -> Result<Identity, i16> {
        if matches!(self.phase, Phase::Prepared(_)) {
            return Err(CONCURRENT_TRANSACTIONS);
        }
        let expected = expected.map(|(id, epoch)| (id.0, epoch.0));
        if let Some((id, epoch)) = expected
            && self.epoch != -1
            && id != self.id
            && !(id == self.previous_id && epoch >= USED_UP)
        {
            return Err(PRODUCER_FENCED);
        }
        if self.phase == Phase::Ongoing {
            self.fence();
            return Err(CONCURRENT_TRANSACTIONS);
        }
        let theirs = expected.map(|(_, epoch)| epoch);
        if self.epoch >= USED_UP && theirs.is_none_or(|e| e == self.epoch) {
            self.last_epoch = theirs.map_or(-1, |_| self.epoch);
            self.previous_id = self.id;
            self.id = self.fresh();
            self.epoch = 0;
        } else if theirs.is_none() {
            (self.epoch, self.last_epoch) = (self.epoch + 1, -1);
        } else if self.epoch == -1 || theirs == Some(self.epoch) {
            (self.last_epoch, self.epoch) = (self.epoch, self.epoch + 1);
        } else if theirs != Some(self.last_epoch) {
            return Err(PRODUCER_FENCED);
        }
        self.phase = Phase::Empty;
        Ok((ProducerId(self.id), ProducerEpoch(self.epoch)))
    }

    fn fresh(&mut self) -> i64 {
        self.ids += 1;
        self.ids
    }

    fn check(&self, (id, epoch): Identity) -> i16 {
        if id.0 != self.id {
            INVALID_PRODUCER_ID_MAPPING
        } else if epoch.0 != self.epoch {
            PRODUCER_FENCED
        } else if matches!(self.phase, Phase::Prepared(_)) {
            CONCURRENT_TRANSACTIONS
        } else {
            0
        }
    }

    fn add(&mut self, identity: Identity, places: &[Place], group: bool) -> i16 {
        let code = self.check(identity);
        if code == 0 {
            if self.phase != Phase::Ongoing {
                (self.places, self.group) = (BTreeSet::new(), false);
            }
            self.places.extend(places.iter().cloned());
            self.group |= group;
            self.phase = Phase::Ongoing;
        }
        code
    }

    fn end(&mut self, (id, epoch): Identity, protocol: Protocol, commit: bool) -> Result<Identity, i16> {
        let bumps = protocol == Protocol::V2;
        let (id, epoch) = (id.0, epoch.0);
        let bumped = bumps && id == self.id && self.epoch == epoch.saturating_add(1);
        let replaced = bumps && id == self.previous_id && epoch == USED_UP && self.epoch == 0;
        if id != self.id && !replaced {
            return Err(INVALID_PRODUCER_ID_MAPPING);
        }
        let fits = match self.phase {
            _ if !bumps => epoch == self.epoch,
            Phase::Empty | Phase::Ongoing => epoch == self.epoch,
            Phase::Prepared(_) => bumped,
            Phase::Complete(_) => bumped || replaced || epoch == self.epoch,
        };
        if !fits {
            return Err(PRODUCER_FENCED);
        }
        let repeated = bumped || replaced;
        match (self.phase, commit) {
            (Phase::Ongoing, _) => {}
            (Phase::Prepared(done), _) if done == commit => return Err(CONCURRENT_TRANSACTIONS),
            (Phase::Complete(done), _) if done == commit && (repeated || !bumps) => {
                return Ok((ProducerId(self.id), ProducerEpoch(self.epoch)));
            }
            (Phase::Empty | Phase::Complete(_), false) if bumps && !repeated => {}
            _ => return Err(INVALID_TXN_STATE),
        }
        if self.phase != Phase::Ongoing {
            (self.places, self.group) = (BTreeSet::new(), false);
        }
        if bumps {
            if self.epoch >= USED_UP {
                self.next_id = Some(self.fresh());
            }
            self.epoch = self.epoch.saturating_add(1);
            self.last_epoch = epoch;
        }
        self.phase = Phase::Prepared(commit);
        let next = self.next_id.map_or((self.id, self.epoch), |id| (id, 0));
        if !self.held_markers {
            self.markers();
        }
        Ok((ProducerId(next.0), ProducerEpoch(next.1)))
    }

    fn fence(&mut self) {
        self.last_epoch = self.epoch;
        self.epoch = self.epoch.saturating_add(1);
        self.phase = Phase::Prepared(false);
        if !self.held_markers {
            self.markers();
        }
    }

    fn markers(&mut self) {
        let Phase::Prepared(commit) = self.phase else { return };
        let fact = if commit { Fact::Committed } else { Fact::Aborted };
        for place in std::mem::take(&mut self.places) {
            for (identity, _, was) in self.log.iter_mut().filter(|(_, batch, _)| batch.place == place) {
                if identity.0.0 == self.id && *was == Fact::Open {
                    *was = fact;
                }
            }
            self.log_epochs.insert(place, (ProducerId(self.id), ProducerEpoch(self.epoch)));
        }
        if std::mem::take(&mut self.group) {
            self.applied.extend(self.staged.take().filter(|_| commit));
        }
        self.phase = Phase::Complete(commit);
        self.previous_id = self.id;
        if let Some(id) = self.next_id.take() {
            (self.id, self.epoch) = (id, 0);
        }
    }

    fn produce(&mut self, identity: Identity, protocol: Protocol, batch: Batch) -> i16 {
        let newest = self.log_epochs.get(&batch.place);
        if newest.is_some_and(|(id, epoch)| *id == identity.0 && *epoch > identity.1) {
            return INVALID_PRODUCER_EPOCH;
        }
        // Its sequence number tells that it is there already.
        if self.log.iter().any(|(_, other, _)| *other == batch) {
            return 0;
        }
        // A leader that has not seen the end of this producer's transaction does not ask the coordinator.
        let goes_on = self
            .log
            .iter()
            .any(|(by, other, fact)| *by == identity && other.place == batch.place && *fact == Fact::Open);
        let code = match protocol {
            _ if goes_on => 0,
            Protocol::V2 => self.add(identity, std::slice::from_ref(&batch.place), false),
            Protocol::V1 => match self.check(identity) {
                0 if self.phase == Phase::Ongoing && self.places.contains(&batch.place) => 0,
                0 => INVALID_TXN_STATE,
                code => code,
            },
        };
        if code != 0 {
            return if code == PRODUCER_FENCED { INVALID_PRODUCER_EPOCH } else { code };
        }
        self.log.push((identity, batch, Fact::Open));
        0
    }

    fn stage(&mut self, identity: Identity, protocol: Protocol, transaction: u64, offset: i64) -> i16 {
        let code = match protocol {
            Protocol::V2 => self.add(identity, &[], true),
            Protocol::V1 => match self.check(identity) {
                0 if self.phase == Phase::Ongoing && self.group => 0,
                0 => INVALID_TXN_STATE,
                code => code,
            },
        };
        if code == 0 {
            self.staged = Some((transaction, offset));
        }
        code
    }
}

/// What a transaction was asked for and told.
#[derive(Debug, Default)]
struct Told {
    records: Vec<Batch>,
    offset: Option<i64>,
    asked: Option<bool>,
    /// A commit was asked for, and its answer never came or told nothing.
    indefinite: bool,
    ended: Option<(Option<bool>, Result<(), Error>)>,
}

/// The machine, the records around it, the network and the cluster.
#[derive(Debug)]
pub(super) struct World {
    machine: Machine,
    cluster: Cluster,
    now: Instant,
    identity: Option<Identity>,
    protocol: Protocol,
    /// Of the open transaction.
    number: u64,
    open: bool,
    added: BTreeSet<Place>,
    queued: Vec<Batch>,
    tickets: BTreeMap<u64, i64>,
    late: Vec<Packet>,
    told: BTreeMap<u64, Told>,
    counter: u64,
    /// Somebody else has the id, or an InitProducerId of this client came late.
    replaced: bool,
    forgotten: bool,
}

impl World {
    pub(super) fn new(protocol: Protocol, held_markers: bool, first_epoch: i16) -> Self {
        let mut machine = Machine::new(settings(), protocol);
        machine.handle_init();
        let cluster = Cluster {
            held_markers,
            id: 0,
            epoch: first_epoch - 1,
            previous_id: -1,
            next_id: None,
            last_epoch: -1,
            phase: Phase::Empty,
            places: BTreeSet::new(),
            group: false,
            ids: 0,
            log: Vec::new(),
            log_epochs: BTreeMap::new(),
            staged: None,
            applied: Vec::new(),
        };
        Self {
            machine,
            cluster,
            now: Instant::now(),
            identity: None,
            protocol,
            number: 0,
            open: false,
            added: BTreeSet::new(),
            queued: Vec::new(),
            tickets: BTreeMap::new(),
            late: Vec::new(),
            told: BTreeMap::new(),
            counter: 0,
            replaced: false,
            forgotten: false,
        }
    }

    pub(super) fn begin(&mut self) {
        if !self.machine.is_ready() {
            return;
        }
        (self.number, self.protocol) = self.machine.handle_begin().unwrap();
        self.open = true;
        self.added.clear();
        self.told.entry(self.number).or_default();
    }

    pub(super) fn record(&mut self, n: i32) {
        if self.open && self.machine.failure().is_none() {
            self.counter += 1;
            let batch = Batch { transaction: self.number, place: place(n), number: self.counter };
            self.told.entry(self.number).or_default().records.push(batch.clone());
            if self.protocol == Protocol::V1 && !self.added.contains(&batch.place) {
                self.machine.handle_partitions([batch.place.clone()]);
            }
            self.queued.push(batch);
        }
    }

    pub(super) fn offsets(&mut self) {
        if self.open {
            self.counter += 1;
            let offset = self.counter as i64;
            if let Ok(ticket) =
                self.machine.handle_offsets(GroupMetadata::new("g"), committing(offset), self.now)
            {
                self.tickets.insert(ticket, offset);
            }
        }
    }

    pub(super) fn end(&mut self, commit: bool) {
        if std::mem::take(&mut self.open) {
            let told = self.told.entry(self.number).or_default();
            told.asked = Some(commit);
            self.machine.handle_end(commit, !told.records.is_empty());
            self.events();
        }
    }

    fn events(&mut self) {
        if self.machine.giving_up().is_some() {
            self.queued.clear();
        }
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Identity(identity) => self.identity = Some(identity),
                Event::Added(places) => self.added.extend(places),
                Event::Offsets(ticket, result) => {
                    let offset = self.tickets.remove(&ticket).expect("told once");
                    if result.is_ok() {
                        self.told.entry(self.number).or_default().offset = Some(offset);
                    }
                }
                Event::Ended(Ended { number, committed, result }) => {
                    assert_eq!(number, self.number);
                    let told = self.told.entry(number).or_default();
                    assert!(
                        told.asked.is_some() && told.ended.is_none(),
                        "told once, and only when asked for"
                    );
                    told.ended = Some((committed, result));
                }
            }
        }
    }

    pub(super) fn request(&mut self, fate: Fate) {
        let drained = self.queued.is_empty();
        let call = self.machine.poll_request(self.now, drained);
        self.events();
        let Some(Call { request, .. }) = call else { return };
        if matches!(request, Request::End { commit: true, .. }) {
            let unknown = !matches!(fate, Fate::Answered | Fate::NotSent)
                && !matches!(fate, Fate::Refused(c) if c == CONCURRENT_TRANSACTIONS || c == COORDINATOR_LOAD_IN_PROGRESS);
            self.told.entry(self.number).or_default().indefinite |= unknown;
        }
        // An id that was forgotten is made anew for whoever asks, and nobody can ask for the same again.
        let once = self.forgotten && matches!(request, Request::Init(_));
        self.replaced |= once && matches!(fate, Fate::Delayed | Fate::AnswerLost | Fate::DoneAndRefused(_));
        let packet = Packet::Transaction(request.clone(), self.number);
        let by_partition = match &request {
            Request::Partitions(_, places) => Some(places.clone()),
            Request::Offsets(_, _, _, entries) => Some(entries.iter().map(|(p, _)| p.clone()).collect()),
            _ => None,
        };
        let refused = |code| match by_partition {
            Some(places) => Answer::Codes(places.into_iter().map(|p| (p, code)).collect()),
            None => Answer::Code(code),
        };
        let answer = match fate {
            Fate::Answered => self.arrive(packet).unwrap_or_else(refused),
            Fate::Lost => lost(),
            Fate::Delayed => {
                self.late.push(packet);
                lost()
            }
            Fate::AnswerLost => {
                let _ = self.arrive(packet);
                lost()
            }
            Fate::NotSent => Answer::Failed(Error::new(ErrorKind::Connect, "refused")),
            Fate::Refused(code) => refused(code),
            Fate::DoneAndRefused(code) => {
                let _ = self.arrive(packet);
                refused(code)
            }
        };
        self.machine.handle_answer(answer, self.now);
        self.events();
    }

    /// The cluster's answer, or its code.
    fn arrive(&mut self, packet: Packet) -> Result<Answer, i16> {
        let cluster = &mut self.cluster;
        let code = match packet {
            Packet::Transaction(Request::Init(expected), _) => {
                return cluster.init(expected).map(Answer::Identity);
            }
            Packet::Transaction(Request::Partitions(identity, places), _) => {
                cluster.add(identity, &places, false)
            }
            Packet::Transaction(Request::Group(identity, _), _) => cluster.add(identity, &[], true),
            Packet::Transaction(Request::Offsets(identity, protocol, _, entries), number) => {
                cluster.stage(identity, protocol, number, entries[0].1.offset.0)
            }
            Packet::Transaction(Request::End { identity, protocol, commit }, _) => {
                let next = cluster.end(identity, protocol, commit)?;
                if protocol == Protocol::V2 {
                    return Ok(Answer::Identity(next));
                }
                0
            }
            Packet::Produce { identity, protocol, batch } => cluster.produce(identity, protocol, batch),
        };
        Err(code)
    }

    pub(super) fn produce(&mut self, fate: Fate) {
        self.events();
        let free = |batch: &Batch| self.protocol == Protocol::V2 || self.added.contains(&batch.place);
        let Some(at) = self.queued.iter().position(free) else { return };
        let Some(identity) = self.identity else { return };
        let batch = self.queued[at].clone();
        let packet = Packet::Produce { identity, protocol: self.protocol, batch };
        let code = match fate {
            Fate::Answered => self.arrive(packet).unwrap_err(),
            Fate::Delayed => {
                self.late.push(packet);
                return;
            }
            Fate::AnswerLost | Fate::DoneAndRefused(_) => {
                let _ = self.arrive(packet);
                return;
            }
            Fate::Lost | Fate::NotSent | Fate::Refused(_) => return,
        };
        match code {
            0 => drop(self.queued.remove(at)),
            CONCURRENT_TRANSACTIONS => {}
            code => {
                self.queued.remove(at);
                self.machine.handle_failed_batch(&errors::broker(code, "produce"));
                self.events();
            }
        }
    }

    pub(super) fn fail_batch(&mut self) {
        if !self.queued.is_empty() {
            self.queued.remove(0);
            self.machine.handle_failed_batch(&Error::new(ErrorKind::Timeout, "too late").ambiguous());
            self.events();
        }
    }

    pub(super) fn late(&mut self, n: usize) {
        if !self.late.is_empty() {
            let packet = self.late.remove(n % self.late.len());
            self.replaced |= match &packet {
                Packet::Transaction(Request::Init(expected), _) => expected.is_none() || self.forgotten,
                _ => false,
            };
            let _ = self.arrive(packet);
        }
    }

    pub(super) fn expire(&mut self) {
        if self.cluster.phase == Phase::Ongoing {
            self.cluster.fence();
        }
    }

    pub(super) fn markers(&mut self) {
        self.cluster.markers();
    }

    pub(super) fn forget(&mut self) {
        if matches!(self.cluster.phase, Phase::Empty | Phase::Complete(_)) {
            self.forgotten = true;
            self.cluster.id = self.cluster.fresh();
            (self.cluster.epoch, self.cluster.last_epoch, self.cluster.previous_id) = (-1, -1, -1);
            self.cluster.phase = Phase::Empty;
        }
    }

    pub(super) fn other(&mut self) {
        self.replaced = true;
        let _ = self.cluster.init(None);
    }

    pub(super) fn level(&mut self, protocol: Protocol) {
        self.machine.handle_protocol(protocol);
    }

    pub(super) fn wait(&mut self) {
        if let Some(at) = self.machine.poll_timeout() {
            self.now = self.now.max(at);
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            self.cluster.markers();
            self.wait();
            self.request(Fate::Answered);
            self.produce(Fate::Answered);
            if self.machine.is_ready() || self.machine.fatal().is_some() {
                return;
            }
        }
        panic!("it sticks: {self:#?}");
    }

    /// The network is good again; what was late arrives, and one more transaction is committed.
    pub(super) fn heal(&mut self) {
        self.end(true);
        self.settle();
        for _ in 0..2 {
            while !self.late.is_empty() {
                self.late(0);
            }
            self.begin();
            self.record(0);
            self.record(1);
            self.record(2);
            self.offsets();
            self.end(true);
            self.settle();
        }
        self.cluster.markers();
        self.events();
        assert!(self.machine.fatal().is_none() || self.replaced, "{:?}", self.machine.fatal());
    }

    pub(super) fn check(&self) {
        for (number, told) in &self.told {
            let Some((committed, result)) = &told.ended else { panic!("transaction {number} never ended") };
            let facts: Vec<Option<Fact>> = told
                .records
                .iter()
                .map(|record| {
                    let mut found = self.cluster.log.iter().filter(|(_, batch, _)| batch == record);
                    let fact = found.next().map(|(.., fact)| *fact);
                    assert!(found.next().is_none(), "written twice");
                    fact
                })
                .collect();
            let all = facts.iter().all(|fact| *fact == Some(Fact::Committed));
            let none = facts.iter().all(|fact| *fact != Some(Fact::Committed));
            let applied =
                self.cluster.applied.iter().rev().find(|(n, _)| n == number).map(|(_, offset)| *offset);
            match committed {
                Some(true) => {
                    assert!(all, "transaction {number} was told committed: {facts:?}");
                    assert_eq!(applied, told.offset, "offsets of transaction {number}");
                    assert!(result.is_ok());
                }
                Some(false) => {
                    assert!(none && applied.is_none(), "transaction {number} was told aborted: {facts:?}");
                    assert!(result.is_err() || told.asked == Some(false));
                    assert!(result.as_ref().err().is_none_or(|e| !e.is_ambiguous()));
                }
                None => {
                    assert!(told.indefinite, "transaction {number} is in doubt without a lost answer");
                    assert!(all || none, "transaction {number} is half committed: {facts:?}");
                    assert!(result.as_ref().is_err_and(Error::is_ambiguous));
                }
            }
        }
    }
}
