//! Consumer groups as their members see them, one by one and against a naive model.

use proptest::prelude::*;

use super::*;

/// Topics by name: an id from the position, and the number of partitions.
#[derive(Debug, Clone, Default)]
struct Topics {
    version: u64,
    topics: BTreeMap<String, (Uuid, i32)>,
}

impl Topics {
    fn set(&mut self, name: &str, partitions: i32) {
        self.version += 1;
        let id = Uuid::from_u128(name.bytes().fold(1, |h, b| h * 257 + u128::from(b)));
        self.topics.insert(name.to_owned(), (id, partitions));
    }

    fn of(topics: &[(&str, i32)]) -> Self {
        let mut out = Self::default();
        for (name, n) in topics {
            out.set(name, *n);
        }
        out
    }
}

impl Catalog for Topics {
    fn version(&self) -> u64 {
        self.version
    }
    fn topic(&self, name: &str) -> Option<(Uuid, i32)> {
        self.topics.get(name).copied()
    }
    fn each(&self, visit: &mut dyn FnMut(&str)) {
        for name in self.topics.keys() {
            visit(name);
        }
    }
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

#[allow(clippy::disallowed_methods, reason = "the one reading from which all times of a test are counted")]
fn begin() -> Instant {
    Instant::now()
}

fn joining(member: &str, names: &[&str]) -> Beat {
    Beat {
        member: text(member),
        rebalance_timeout: Some(Duration::from_secs(60)),
        names: Some(names.iter().map(|n| text(n)).collect()),
        owned: Some(BTreeSet::new()),
        ..Beat::default()
    }
}

fn beat(member: &str, epoch: i32, owned: Option<&BTreeSet<Place>>) -> Beat {
    Beat { member: text(member), epoch, owned: owned.cloned(), ..Beat::default() }
}

struct Group {
    consumer: Consumer,
    topics: Topics,
    settings: GroupSettings,
    now: Instant,
}

impl Group {
    fn new(topics: &[(&str, i32)]) -> Self {
        Self {
            consumer: Consumer::default(),
            topics: Topics::of(topics),
            settings: GroupSettings::default(),
            now: begin(),
        }
    }

    fn beat(&mut self, beat: Beat) -> Result<Beaten, Code> {
        self.consumer
            .handle_beat(beat, &self.topics, &self.settings, self.now)
            .map_err(|refused| refused.code)
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        while self.consumer.poll_timeout().is_some_and(|at| at <= self.now) {
            self.consumer.handle_timeout(self.now);
        }
    }
}

fn numbers(assignment: &Option<BTreeSet<Place>>) -> Vec<i32> {
    assignment.as_ref().unwrap().iter().map(|(_, p)| *p).collect()
}

#[test]
fn a_partition_is_given_only_when_its_former_owner_has_let_go() {
    let mut g = Group::new(&[("t", 4)]);
    let a = g.beat(joining("a", &["t"])).unwrap();
    assert_eq!((a.epoch, numbers(&a.assignment)), (2, vec![0, 1, 2, 3]));
    assert_eq!(g.consumer.state(), "Stable");
    let all = a.assignment.unwrap();
    // The newcomer gets nothing yet, at the new epoch.
    let b = g.beat(joining("b", &["t"])).unwrap();
    assert_eq!((b.epoch, numbers(&b.assignment)), (3, vec![]));
    assert_eq!(g.consumer.state(), "Reconciling");
    // The first is told to let go of two, and stays at its epoch while it has not.
    let told = g.beat(beat("a", 2, Some(&all))).unwrap();
    assert_eq!((told.epoch, numbers(&told.assignment)), (2, vec![0, 1]));
    assert_eq!(g.beat(beat("a", 2, Some(&all))).unwrap().assignment, None);
    assert_eq!(g.beat(beat("b", 3, None)).unwrap().assignment, None);
    // It has: its epoch goes up, and the newcomer gets the rest.
    let kept = told.assignment.unwrap();
    assert_eq!(g.beat(beat("a", 2, Some(&kept))).unwrap().epoch, 3);
    let b = g.beat(beat("b", 3, None)).unwrap();
    assert_eq!((b.epoch, numbers(&b.assignment)), (3, vec![2, 3]));
    assert_eq!(g.consumer.state(), "Stable");
}

#[test]
fn a_member_that_does_not_let_go_in_time_is_removed_and_fenced() {
    let mut g = Group::new(&[("t", 2)]);
    g.beat(joining("a", &["t"])).unwrap();
    g.beat(joining("b", &["t"])).unwrap();
    let all: BTreeSet<Place> = g.consumer.members[&text("a")].assigned().collect();
    g.beat(beat("a", 2, Some(&all))).unwrap();
    for _ in 0..2 {
        g.advance(Duration::from_secs(29));
        g.beat(beat("a", 2, Some(&all))).unwrap();
        g.beat(beat("b", 3, None)).unwrap();
    }
    g.advance(Duration::from_secs(3));
    assert_eq!(g.beat(beat("a", 2, Some(&all))), Err(Code::UnknownMemberId));
    assert_eq!(numbers(&g.beat(beat("b", 3, None)).unwrap().assignment), [0, 1]);
}

#[test]
fn a_silent_member_is_removed_after_the_session_timeout() {
    let mut g = Group::new(&[("t", 2)]);
    g.beat(joining("a", &["t"])).unwrap();
    g.advance(Duration::from_secs(44));
    g.beat(beat("a", 2, None)).unwrap();
    g.advance(Duration::from_secs(44));
    assert_eq!(g.beat(beat("a", 2, None)).map(|b| b.epoch), Ok(2));
    g.advance(Duration::from_secs(45));
    assert_eq!(g.beat(beat("a", 2, None)), Err(Code::UnknownMemberId));
    assert_eq!(g.consumer.state(), "Empty");
}

#[test]
fn wrong_epochs_are_fenced_but_for_the_one_before_whose_answer_was_lost() {
    let mut g = Group::new(&[("t", 2)]);
    g.beat(joining("a", &["t"])).unwrap();
    assert_eq!(g.beat(beat("a", 8, None)), Err(Code::FencedMemberEpoch));
    g.topics.set("t", 3);
    assert_eq!(g.beat(beat("a", 2, None)).unwrap().epoch, 3);
    // The answer was lost: it says epoch 1 again, with what it had.
    let had: BTreeSet<Place> = [(g.topics.topics["t"].0, 0), (g.topics.topics["t"].0, 1)].into();
    assert_eq!(g.beat(beat("a", 2, Some(&had))).unwrap().epoch, 3);
    assert_eq!(g.beat(beat("a", 2, None)), Err(Code::FencedMemberEpoch));
    g.topics.set("t", 4);
    g.beat(beat("a", 3, None)).unwrap();
    assert_eq!(g.beat(beat("a", 2, Some(&had))), Err(Code::FencedMemberEpoch));
    assert_eq!(g.beat(beat("x", 2, None)), Err(Code::UnknownMemberId));
}

#[test]
fn topics_that_come_or_grow_and_match_are_assigned_at_the_next_heartbeat() {
    let mut g = Group::new(&[("other", 1)]);
    let by_regex = Beat { names: None, regex: Some(text("logs-.*")), ..joining("a", &[]) };
    assert_eq!(numbers(&g.beat(by_regex).unwrap().assignment), Vec::<i32>::new());
    g.topics.set("logs-1", 2);
    g.topics.set("all-logs-1", 2);
    let a = g.beat(beat("a", 2, None)).unwrap();
    assert_eq!((a.epoch, numbers(&a.assignment)), (3, vec![0, 1]));
    g.topics.set("logs-1", 3);
    assert_eq!(numbers(&g.beat(beat("a", 3, None)).unwrap().assignment), [0, 1, 2]);
    g.topics.set("other", 5);
    assert_eq!(g.beat(beat("a", 4, None)).unwrap().epoch, 4);
    let broken = Beat { names: None, regex: Some(text("logs-(")), ..joining("b", &[]) };
    assert_eq!(g.beat(broken), Err(Code::InvalidRegularExpression));
    assert_eq!(g.consumer.members.len(), 1);
}

#[test]
fn a_static_member_that_left_for_now_gets_its_partitions_back_under_a_new_id() {
    let mut g = Group::new(&[("t", 4)]);
    let fixed = |id: &str| Beat { instance: Some(text("i")), ..joining(id, &["t"]) };
    let first = g.beat(fixed("a")).unwrap();
    g.beat(joining("b", &["t"])).unwrap();
    assert_eq!(g.beat(fixed("c")), Err(Code::UnreleasedInstanceId));
    let all = first.assignment.unwrap();
    let told = g.beat(Beat { instance: Some(text("i")), ..beat("a", 2, Some(&all)) }).unwrap();
    let kept = told.assignment.unwrap();
    g.beat(Beat { instance: Some(text("i")), ..beat("a", 2, Some(&kept)) }).unwrap();
    let epoch = g.consumer.epoch();
    g.beat(Beat { instance: Some(text("i")), ..beat("a", LEAVE_STATIC, None) }).unwrap();
    let back = g.beat(fixed("c")).unwrap();
    assert_eq!((back.epoch, back.assignment.unwrap()), (epoch, kept));
    assert_eq!(g.consumer.epoch(), epoch, "nothing was assigned anew");
    let fenced = Beat { instance: Some(text("i")), ..beat("a", 3, None) };
    assert_eq!(g.beat(fenced), Err(Code::FencedInstanceId));
    g.beat(Beat { instance: Some(text("i")), ..beat("c", LEAVE, None) }).unwrap();
    assert_eq!(numbers(&g.beat(beat("b", 3, None)).unwrap().assignment), [0, 1, 2, 3]);
}

#[test]
fn an_older_epoch_may_commit_what_it_has_had_since_then() {
    let mut g = Group::new(&[("t", 2)]);
    g.beat(joining("a", &["t"])).unwrap();
    g.topics.set("t", 3);
    g.beat(beat("a", 2, None)).unwrap();
    let check = |g: &Group, epoch: i32, version: i16, transactional: bool| {
        let asker =
            Asker { generation: epoch, member: text("a"), version, transactional, ..Asker::default() };
        g.consumer.check_commit(&asker, [(text("t"), 0), (text("t"), 2)].into_iter())
    };
    assert_eq!(check(&g, 3, 9, false), Ok(Vec::new()));
    assert_eq!(check(&g, 2, 9, false), Ok(vec![(text("t"), 2)]));
    assert_eq!(check(&g, 4, 9, false), Err(Code::StaleMemberEpoch));
    assert_eq!(check(&g, -1, 9, false), Err(Code::StaleMemberEpoch));
    assert_eq!(check(&g, 3, 8, false), Err(Code::UnsupportedVersion));
    assert_eq!(check(&g, 2, 5, true), Err(Code::StaleMemberEpoch));
}

/// A client of the model: what it believes and owns.
#[derive(Debug, Clone, Default)]
struct Client {
    epoch: i32,
    owned: BTreeSet<Place>,
    target: BTreeSet<Place>,
    names: BTreeSet<StrBytes>,
    /// An answer was lost: it says everything, so that it is told everything.
    full: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Join(usize, u8, bool),
    Beat(usize),
    /// A heartbeat whose answer is lost.
    Lose(usize),
    /// Lets go of what it is to let go of, and takes what it is given.
    Follow(usize),
    Leave(usize),
    Wait(u64),
    Grow(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..5usize, 1..8u8, any::<bool>()).prop_map(|(m, t, r)| Step::Join(m, t, r)),
        6 => (0..5usize).prop_map(Step::Beat),
        1 => (0..5usize).prop_map(Step::Lose),
        5 => (0..5usize).prop_map(Step::Follow),
        1 => (0..5usize).prop_map(Step::Leave),
        1 => (1..50u64).prop_map(Step::Wait),
        1 => (0..3usize).prop_map(Step::Grow),
    ]
}

const NAMES: [&str; 3] = ["t0", "t1", "t2"];

/// Members and what each client believes.
struct Model {
    group: Group,
    clients: BTreeMap<usize, Client>,
}

impl Model {
    fn send(&mut self, m: usize, lost: bool) {
        let Some(client) = self.clients.get(&m).cloned() else { return };
        let mut request = beat(&format!("m{m}"), client.epoch, Some(&client.owned));
        if client.full {
            request.names = Some(client.names);
            request.rebalance_timeout = Some(Duration::from_secs(60));
        }
        let answer = self.group.beat(request);
        self.take(m, answer, lost);
    }

    fn take(&mut self, m: usize, answer: Result<Beaten, Code>, lost: bool) {
        match answer {
            Ok(_) if lost => self.clients.entry(m).or_default().full = true,
            Ok(answer) => {
                let client = self.clients.entry(m).or_default();
                client.epoch = answer.epoch;
                client.full = false;
                if let Some(target) = answer.assignment {
                    client.target = target;
                }
            }
            // Fenced: it abandons all.
            Err(_) => {
                self.clients.remove(&m);
            }
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Join(m, topics, range) => {
                if self.clients.contains_key(&m) {
                    return;
                }
                let names: Vec<&str> = NAMES
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| topics & (1 << i) != 0)
                    .map(|(_, n)| *n)
                    .collect();
                let assignor = Some(if range { Assignor::Range } else { Assignor::Uniform });
                // A former self that was not removed yet is gone with its process.
                let _ = self.group.beat(beat(&format!("m{m}"), LEAVE, None));
                let answer = self.group.beat(Beat { assignor, ..joining(&format!("m{m}"), &names) });
                self.take(m, answer, false);
                self.clients.entry(m).or_default().names = names.iter().map(|n| text(n)).collect();
            }
            Step::Beat(m) => self.send(m, false),
            Step::Lose(m) => self.send(m, true),
            Step::Follow(m) => {
                if let Some(client) = self.clients.get_mut(&m) {
                    // While an answer is missing it only lets go: the target that it knows may be an old one.
                    client.owned.retain(|place| client.target.contains(place));
                    if !client.full {
                        client.owned.clone_from(&client.target);
                    }
                }
            }
            Step::Leave(m) => {
                if self.clients.remove(&m).is_some() {
                    let _ = self.group.beat(beat(&format!("m{m}"), LEAVE, None));
                }
            }
            Step::Wait(seconds) => {
                self.group.advance(Duration::from_secs(seconds));
                // A client knows its session too: silent for too long, it lets go by itself.
                let members = &self.group.consumer.members;
                self.clients.retain(|m, _| members.contains_key(&text(&format!("m{m}"))));
            }
            Step::Grow(topic) => {
                let n = self.group.topics.topics.get(NAMES[topic]).map_or(1, |(_, n)| n + 1);
                self.group.topics.set(NAMES[topic], n.min(6));
            }
        }
    }

    fn check(&self) {
        let mut owners: BTreeMap<Place, usize> = BTreeMap::new();
        for (m, client) in &self.clients {
            for place in &client.owned {
                if let Some(other) = owners.insert(*place, *m) {
                    panic!("{place:?} is owned by m{m} and m{other}");
                }
            }
        }
    }

    /// Lets everyone heartbeat and follow, until nothing changes.
    fn settle(&mut self) {
        for _ in 0..20 {
            for m in self.clients.keys().copied().collect::<Vec<_>>() {
                self.run(&Step::Beat(m));
                self.run(&Step::Follow(m));
                self.check();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_partition_is_owned_twice_and_everything_is_assigned_in_the_end(steps in prop::collection::vec(step(), 1..80)) {
        let mut model = Model { group: Group::new(&[("t0", 3), ("t1", 2)]), clients: BTreeMap::new() };
        for step in &steps {
            model.run(step);
            model.check();
        }
        model.settle();
        let consumer = &model.group.consumer;
        if model.clients.len() == consumer.members.len() && !model.clients.is_empty() {
            prop_assert_eq!(consumer.state(), "Stable");
            let owned: BTreeSet<Place> = model.clients.values().flat_map(|c| c.owned.iter().copied()).collect();
            let wanted: BTreeSet<Place> = consumer
                .members
                .values()
                .flat_map(|m| &m.names)
                .filter_map(|name| model.group.topics.topic(name))
                .flat_map(|(id, n)| (0..n).map(move |p| (id, p)))
                .collect();
            prop_assert_eq!(owned, wanted);
            for client in model.clients.values() {
                prop_assert_eq!(client.epoch, consumer.epoch());
            }
        }
        model.group.advance(Duration::from_secs(1000));
        prop_assert_eq!(model.group.consumer.state(), "Empty");
        prop_assert!(model.group.consumer.owners.is_empty() && model.group.consumer.patterns.is_empty());
        prop_assert_eq!(model.group.consumer.poll_timeout(), None);
    }
}
