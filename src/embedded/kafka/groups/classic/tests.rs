//! A classic group against clients that obey the protocol, with jumping time.

use proptest::prelude::*;

use super::*;
use crate::embedded::kafka::groups::Asker;
use crate::embedded::machine::ConnectionId;

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

#[allow(clippy::disallowed_methods, reason = "the one reading from which all times of a test are counted")]
fn begin() -> Instant {
    Instant::now()
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Out,
    Joining,
    Joined,
    Syncing,
    In,
}

#[derive(Debug, Clone, Default)]
struct Client {
    phase: Phase,
    id: StrBytes,
    generation: i32,
    /// For the leader: who is to be assigned.
    members: Option<Vec<StrBytes>>,
    assigned: Option<Bytes>,
    connection: u64,
}

#[derive(Debug, Clone)]
enum Step {
    /// The next thing that an obedient client does.
    Act(usize),
    Leave(usize),
    /// The process dies.
    Die(usize),
    Wait(u64),
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4usize).prop_map(Step::Act),
        1 => (0..4usize).prop_map(Step::Leave),
        1 => (0..4usize).prop_map(Step::Die),
        2 => (1..20u64).prop_map(Step::Wait),
        1 => Just(Step::Move),
    ]
}

const CLIENTS: usize = 4;
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(15);

struct Model {
    group: Classic,
    settings: GroupSettings,
    now: Instant,
    clients: Vec<Client>,
    next: u64,
    /// What each assignment was made for.
    handed: BTreeMap<(i32, Bytes), usize>,
}

impl Model {
    fn new(delay: u64) -> Self {
        let now = begin();
        let settings =
            GroupSettings { initial_rebalance_delay: Duration::from_secs(delay), ..GroupSettings::default() };
        Self {
            group: Classic::new(now),
            settings,
            now,
            clients: vec![Client::default(); CLIENTS],
            next: 1,
            handed: BTreeMap::new(),
        }
    }

    fn connection(&mut self, c: usize) -> ConnectionId {
        self.next += 1;
        self.clients[c].connection = self.next;
        ConnectionId(self.next)
    }

    fn act(&mut self, c: usize) {
        let client = self.clients[c].clone();
        let mut out = Vec::new();
        match client.phase {
            Phase::Out => {
                let connection = self.connection(c);
                self.clients[c].phase = Phase::Joining;
                self.next += 1;
                let join = Join {
                    connection,
                    member: client.id,
                    instance: None,
                    protocol_type: text("consumer"),
                    protocols: vec![(text("range"), Bytes::from_static(b"\0\0\0\0\0\0"))],
                    session_timeout: SESSION,
                    rebalance_timeout: REBALANCE,
                    client_id: text("c"),
                    client_host: text("/"),
                    fresh: text(&format!("c{c}-{}", self.next)),
                    needs_id: true,
                    can_skip: true,
                };
                self.group.handle_join(join, &self.settings, self.now, &mut out);
            }
            Phase::Joined => {
                let connection = self.connection(c);
                self.clients[c].phase = Phase::Syncing;
                let assignments = client.members.unwrap_or_default();
                let sync = Sync {
                    connection,
                    generation: client.generation,
                    member: client.id,
                    instance: None,
                    protocol_type: Some(text("consumer")),
                    protocol: Some(text("range")),
                    // Everyone is assigned its own id: whoever gets another's would show.
                    assignments: assignments.into_iter().map(|id| (id.clone(), id.into_bytes())).collect(),
                };
                self.group.handle_sync(sync, self.now, &mut out);
            }
            Phase::In => match self.group.handle_heartbeat(&client.id, None, client.generation, self.now) {
                Ok(()) => {}
                Err(Code::RebalanceInProgress) => self.clients[c].phase = Phase::Out,
                Err(_) => self.clients[c] = Client::default(),
            },
            Phase::Joining | Phase::Syncing => {}
        }
        self.take(out);
    }

    fn take(&mut self, out: Vec<Answer>) {
        for answer in out {
            let connection = match &answer {
                Answer::Join(c, _) | Answer::Sync(c, _) => c.0,
            };
            let Some(c) = self.clients.iter().position(|c| c.connection == connection) else { continue };
            let client = &mut self.clients[c];
            client.connection = 0;
            match answer {
                Answer::Join(_, joined) => match joined.error {
                    None => {
                        client.phase = Phase::Joined;
                        client.id = joined.member.clone();
                        client.generation = joined.generation;
                        client.assigned = None;
                        client.members = (joined.leader == joined.member)
                            .then(|| joined.members.into_iter().map(|m| m.id).collect());
                    }
                    Some(Code::MemberIdRequired) => {
                        client.phase = Phase::Out;
                        client.id = joined.member;
                    }
                    Some(Code::RebalanceInProgress | Code::NotCoordinator) => client.phase = Phase::Out,
                    Some(_) => *client = Client::default(),
                },
                Answer::Sync(_, synced) => match synced.error {
                    None => {
                        assert!(!synced.assignment.is_empty(), "somebody got nothing");
                        assert_eq!(client.id.as_bytes(), &synced.assignment[..], "somebody got another's");
                        let taken = self.handed.insert((client.generation, synced.assignment.clone()), c);
                        assert!(taken.is_none_or(|other| other == c), "one assignment went to two");
                        client.assigned = Some(synced.assignment);
                        client.phase = Phase::In;
                    }
                    Some(Code::RebalanceInProgress | Code::NotCoordinator) => client.phase = Phase::Out,
                    Some(_) => *client = Client::default(),
                },
            }
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Act(c) => self.act(c),
            Step::Leave(c) => {
                if !self.clients[c].id.is_empty() {
                    let mut out = Vec::new();
                    let id = std::mem::take(&mut self.clients[c]).id;
                    self.group.handle_leave(&[(id, None)], &self.settings, self.now, &mut out);
                    self.take(out);
                }
            }
            Step::Die(c) => self.clients[c] = Client::default(),
            Step::Wait(seconds) => self.advance(Duration::from_secs(seconds)),
            Step::Move => {
                let mut out = Vec::new();
                self.group.handle_moved(self.now, &mut out);
                self.take(out);
            }
        }
        self.check();
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        for _ in 0..1000 {
            let Some(due) = self.group.poll_timeout().filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            let mut out = Vec::new();
            self.group.handle_timeout(&self.settings, self.now, &mut out);
            self.take(out);
        }
        panic!("its timers do not come to rest");
    }

    /// What always holds.
    fn check(&self) {
        let g = &self.group;
        if g.state == State::Empty {
            assert!(g.members.is_empty());
        }
        if g.state == State::Stable {
            assert!(g.members.values().all(|m| m.joining.is_none() && m.syncing.is_none()));
        }
        if g.state == State::CompletingRebalance {
            assert!(g.members.values().all(|m| m.joining.is_none()));
        }
        for (at, id) in &g.sessions {
            let known = g.members.get(id).and_then(|m| m.session_ends).or(g.pending.get(id).copied());
            assert_eq!(known, Some(*at), "a timer of {id} is left behind");
        }
        for client in &self.clients {
            let asker =
                Asker { generation: client.generation, member: client.id.clone(), ..Asker::default() };
            let current = g.members.contains_key(&client.id)
                && client.generation == g.generation
                && g.state != State::CompletingRebalance;
            assert_eq!(g.check_commit(&asker).is_ok(), current, "who may commit: {client:?}");
        }
    }

    /// Everyone who lives goes on, until all are in.
    fn settle(&mut self) {
        for _ in 0..60 {
            for c in 0..CLIENTS {
                self.run(&Step::Act(c));
            }
            self.run(&Step::Wait(2));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn everyone_that_stays_is_assigned_in_one_generation_whatever_came_before(
        delay in 0..4u64,
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut model = Model::new(delay);
        for step in &steps {
            model.run(step);
        }
        model.settle();
        prop_assert_eq!(model.group.state, State::Stable);
        prop_assert_eq!(model.group.members.len(), CLIENTS);
        for client in &model.clients {
            prop_assert_eq!(client.phase, Phase::In);
            prop_assert_eq!(client.generation, model.group.generation);
        }
        // All fall silent.
        model.clients.iter_mut().for_each(|c| *c = Client::default());
        model.advance(Duration::from_secs(1000));
        prop_assert_eq!(model.group.state, State::Empty);
        prop_assert_eq!(model.group.poll_timeout(), None);
    }
}

#[test]
fn subscriptions_are_read_from_the_consumers_metadata_and_garbage_is_none() {
    let metadata = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
    assert_eq!(subscribed_topics(metadata), Some(vec![text("a"), text("bc")]));
    assert_eq!(subscribed_topics(b"\0\0\x7f\xff\xff\xff\0\x01"), None);
    assert_eq!(subscribed_topics(b"\0"), None);
}
