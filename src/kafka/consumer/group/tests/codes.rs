//! What each code does to a member, in each state.

use bytes::Bytes;
use uuid::Uuid;

use super::super::classic::{Answer as Classic, Ask as Question, Joined};
use super::super::modern::{Answer as Modern, Ask as Beat, Beaten};
use super::super::protocol::Assignment;
use super::*;
use crate::{ErrorKind, Partition};

fn place(partition: i32) -> Place {
    (topic("t"), Partition(partition))
}

/// A member by the classic protocol, its clock, and what its consumer was told.
struct Bed {
    member: super::Classic,
    now: Instant,
}

impl Bed {
    fn new(instance: Option<&str>, assignor: Assignor) -> Self {
        let now = Instant::now();
        let member = super::Classic::new(settings(instance, &[assignor]), vec![topic("t")], now);
        Self { member, now }
    }

    /// A follower with the partitions 0 and 1 in generation 1.
    fn stable(assignor: Assignor) -> Self {
        let mut bed = Self::new(None, assignor);
        bed.join(1);
        bed.sync(&[0, 1]);
        assert_eq!(bed.events(), ["assigned 0 1"]);
        bed
    }

    fn ask(&mut self) -> Option<Question> {
        self.member.poll_ask(self.now)
    }

    /// Waits for the next question.
    fn next_ask(&mut self) -> Question {
        for _ in 0..10 {
            if let Some(ask) = self.ask() {
                return ask;
            }
            let at = self.member.poll_timeout(self.now).expect("it asks some time");
            assert!(at > self.now, "it says now and asks nothing");
            self.now = at;
        }
        panic!("no question");
    }

    fn answer(&mut self, answer: Classic) {
        self.member.handle_answer(answer, self.now);
    }

    fn joined(&mut self, code: i16, member: &str, generation: i32) {
        let joined = Joined {
            code,
            generation,
            protocol: self.member.settings().assignors[0].name().to_owned(),
            leader: "another".to_owned(),
            member: member.to_owned(),
            ..Joined::default()
        };
        self.answer(Classic::Joined(joined));
    }

    fn join(&mut self, generation: i32) {
        assert!(matches!(self.next_ask(), Question::Join { .. }));
        self.joined(0, "m", generation);
    }

    fn sync(&mut self, partitions: &[i32]) {
        assert!(matches!(self.next_ask(), Question::Sync { .. }));
        let partitions = partitions.iter().map(|p| place(*p)).collect();
        let bytes = Assignment { partitions, user_data: None }.encode();
        self.answer(Classic::Synced(0, bytes));
    }

    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.member.poll_event()).map(|e| shown(&e)).collect()
    }
}

fn shown(event: &Event) -> String {
    let list = |places: &[Place]| places.iter().map(|p| format!(" {}", p.1)).collect::<String>();
    match event {
        Event::Assigned(places) => format!("assigned{}", list(places)),
        Event::Revoke(places) => format!("revoke{}", list(places)),
        Event::Lost(places) => format!("lost{}", list(places)),
        Event::Failed(e) => format!("failed {:?}", e.kind()),
    }
}

#[test]
fn a_new_member_is_given_an_id_and_joins_again_under_it_at_once() {
    let mut bed = Bed::new(None, Assignor::Range);
    let Some(Question::Join { member, .. }) = bed.ask() else { panic!("it joins") };
    assert_eq!(member, "");
    bed.joined(79, "given", -1);
    let Some(Question::Join { member, .. }) = bed.ask() else { panic!("it joins at once") };
    assert_eq!(member, "given");
}

#[test]
fn what_passes_by_itself_is_tried_again_after_a_pause_and_partitions_stay() {
    // Coordinator loading, not available, moved; and a lost connection.
    for code in [14, 15, 16, 0] {
        let lost = || Classic::Failed(crate::Error::new(ErrorKind::Disconnected, "cut").ambiguous());
        // While it joins.
        let mut bed = Bed::new(None, Assignor::CooperativeSticky);
        assert!(matches!(bed.next_ask(), Question::Join { .. }));
        if code == 0 {
            bed.answer(lost())
        } else {
            bed.joined(code, "", -1)
        }
        assert_eq!(bed.ask(), None, "not at once");
        bed.join(1);
        // While it waits for its assignment: it joins again.
        assert!(matches!(bed.next_ask(), Question::Sync { .. }));
        bed.answer(if code == 0 { lost() } else { Classic::Synced(code, Bytes::new()) });
        assert_eq!(bed.ask(), None, "not at once");
        bed.join(2);
        bed.sync(&[0, 1]);
        assert_eq!(bed.events(), ["assigned 0 1"]);
        // A heartbeat is repeated soon, long before the next is due.
        let before = bed.now;
        assert!(matches!(bed.next_ask(), Question::Beat { .. }));
        bed.answer(if code == 0 { lost() } else { Classic::Beaten(code) });
        assert!(matches!(bed.next_ask(), Question::Beat { .. }));
        assert!(bed.now < before + 2 * SECOND, "{:?}", bed.now - before);
        bed.answer(Classic::Beaten(0));
        assert_eq!((bed.events(), bed.member.standing()), (vec![], Standing::In), "{code}");
    }
}

#[test]
fn a_member_that_the_coordinator_does_not_know_loses_all_and_joins_anew() {
    // Unknown member: under no id; another generation: under its own.
    for (code, id) in [(25, ""), (22, "m")] {
        let mut bed = Bed::stable(Assignor::CooperativeSticky);
        assert!(matches!(bed.next_ask(), Question::Beat { .. }));
        bed.answer(Classic::Beaten(code));
        assert_eq!(bed.events(), ["lost 0 1"], "{code}");
        assert_eq!((bed.member.identity(), bed.member.lease()), (None, None), "nothing is committed");
        let Question::Join { member, .. } = bed.next_ask() else { panic!("it joins") };
        assert_eq!(member, id);
        // The same while it waits for its assignment.
        bed.joined(0, "m2", 5);
        assert!(matches!(bed.next_ask(), Question::Sync { .. }));
        bed.answer(Classic::Synced(code, Bytes::new()));
        assert!(matches!(bed.next_ask(), Question::Join { .. }));
        // And when a commit is told so; under an older identity it says nothing of this one.
        let mut bed = Bed::stable(Assignor::CooperativeSticky);
        let identity = bed.member.identity().unwrap();
        let older = Identity { epoch: identity.epoch - 1, ..identity.clone() };
        bed.member.handle_refused_commit(&older, code);
        assert_eq!(bed.events(), Vec::<String>::new());
        bed.member.handle_refused_commit(&identity, code);
        assert_eq!(bed.events(), ["lost 0 1"], "{code}");
    }
}

#[test]
fn a_member_that_is_not_known_twice_in_a_row_does_not_ask_in_a_loop() {
    let mut bed = Bed::new(None, Assignor::Range);
    for _ in 0..3 {
        assert!(matches!(bed.next_ask(), Question::Join { .. }));
        bed.joined(25, "", -1);
        assert_eq!(bed.ask(), None, "not at once");
    }
}

#[test]
fn what_no_retry_mends_ends_the_membership_with_a_reason() {
    let reasons = [
        (82, ErrorKind::Fenced, "instance id"),
        (23, ErrorKind::Broker, "share none of the assignors"),
        (26, ErrorKind::Config, "session timeout"),
        (30, ErrorKind::Denied, "group g"),
        (81, ErrorKind::Broker, "group.max.size"),
        (24, ErrorKind::Config, "group g"),
    ];
    for (code, kind, said) in reasons {
        let mut bed = Bed::new(Some("me"), Assignor::Range);
        assert!(matches!(bed.next_ask(), Question::Join { .. }));
        bed.joined(code, "", -1);
        let Some(Event::Failed(e)) = bed.member.poll_event() else { panic!("{code}: it fails") };
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(said) && !e.is_retryable(), "{code}: {e}");
        assert_eq!((bed.ask(), bed.member.poll_timeout(bed.now)), (None, None));
        assert_eq!(bed.member.standing(), Standing::Ended);
        // From a heartbeat of a member with partitions: they are lost first.
        let mut bed = Bed::stable(Assignor::Range);
        assert!(matches!(bed.next_ask(), Question::Beat { .. }));
        bed.answer(Classic::Beaten(code));
        assert_eq!(bed.events(), ["lost 0 1".to_owned(), format!("failed {kind:?}")], "{code}");
    }
}

#[test]
fn an_eager_member_lets_go_of_all_before_it_joins_and_its_heartbeats_go_on() {
    let mut bed = Bed::stable(Assignor::Range);
    assert!(matches!(bed.next_ask(), Question::Beat { .. }));
    bed.answer(Classic::Beaten(27));
    assert!(matches!(bed.next_ask(), Question::Beat { .. }), "it is alive while it settles");
    assert_eq!(bed.events(), ["revoke 0 1"]);
    bed.answer(Classic::Beaten(27));
    bed.member.handle_released(&[place(0)]);
    assert!(matches!(bed.next_ask(), Question::Beat { .. }), "one is still to go");
    bed.answer(Classic::Beaten(27));
    bed.member.handle_released(&[place(1)]);
    bed.join(2);
    bed.sync(&[1]);
    assert_eq!(bed.events(), ["assigned 1"]);
}

#[test]
fn a_cooperative_member_keeps_what_stays_and_joins_again_once_the_rest_is_released() {
    let mut bed = Bed::stable(Assignor::CooperativeSticky);
    assert!(matches!(bed.next_ask(), Question::Beat { .. }));
    bed.answer(Classic::Beaten(27));
    bed.join(2);
    bed.sync(&[1, 2]);
    assert_eq!(bed.events(), ["revoke 0", "assigned 2"]);
    assert!(matches!(bed.next_ask(), Question::Beat { .. }), "it is alive while it settles");
    bed.answer(Classic::Beaten(0));
    bed.member.handle_released(&[place(0)]);
    assert!(matches!(bed.ask(), Some(Question::Join { .. })), "at once");
    bed.joined(0, "m", 3);
    bed.sync(&[1, 2]);
    assert_eq!((bed.events(), bed.member.standing()), (vec![], Standing::In));
}

#[test]
fn a_leader_calls_for_a_rebalance_when_a_topic_has_grown() {
    let mut bed = Bed::new(None, Assignor::Range);
    assert!(matches!(bed.next_ask(), Question::Join { .. }));
    let subscription = protocol::Subscription { topics: vec![topic("t")], ..Default::default() };
    bed.answer(Classic::Joined(Joined {
        generation: 1,
        protocol: "range".to_owned(),
        leader: "m".to_owned(),
        member: "m".to_owned(),
        members: vec![("m".to_owned(), None, subscription.encode())],
        ..Joined::default()
    }));
    let shapes =
        |n| BTreeMap::from([(topic("t"), assignor::TopicShape { partitions: n, racks: Vec::new() })]);
    assert_eq!(bed.next_ask(), Question::Shapes(vec![topic("t")]));
    bed.answer(Classic::Shapes(shapes(2)));
    let Some(Question::Sync { assignments, .. }) = bed.ask() else { panic!("it syncs") };
    let [(id, bytes)] = &assignments[..] else { panic!("{assignments:?}") };
    assert_eq!(id, "m");
    assert_eq!(Assignment::decode(bytes.clone()).unwrap().partitions, [place(0), place(1)]);
    bed.answer(Classic::Synced(0, bytes.clone()));
    assert_eq!(bed.member.watched(), [topic("t")]);
    bed.member.handle_shapes(&shapes(2));
    assert!(matches!(bed.next_ask(), Question::Beat { .. }), "nothing has changed");
    bed.answer(Classic::Beaten(0));
    bed.member.handle_shapes(&shapes(3));
    let _ = bed.ask();
    assert_eq!(bed.events(), ["assigned 0 1", "revoke 0 1"]);
}

#[test]
fn a_lease_holds_for_the_session_from_when_the_last_good_question_was_asked() {
    let mut bed = Bed::stable(Assignor::CooperativeSticky);
    let until = bed.member.lease().unwrap();
    assert_eq!(until, bed.now + 10 * SECOND);
    assert!(matches!(bed.next_ask(), Question::Beat { .. }));
    let asked = bed.now;
    bed.now += 3 * SECOND;
    bed.answer(Classic::Beaten(0));
    assert_eq!(bed.member.lease(), Some(asked + 10 * SECOND), "not from when the answer came");
    assert!(matches!(bed.next_ask(), Question::Beat { .. }));
    bed.answer(Classic::Failed(crate::Error::new(ErrorKind::Timeout, "late").ambiguous()));
    assert_eq!(bed.member.lease(), Some(asked + 10 * SECOND), "nobody has said that it is alive");
}

#[test]
fn a_static_member_goes_without_a_word_and_another_says_goodbye() {
    let mut bed = Bed::stable(Assignor::Range);
    bed.member.handle_leave();
    assert_eq!(bed.ask(), Some(Question::Leave { member: "m".to_owned() }));
    bed.answer(Classic::Left);
    assert_eq!((bed.ask(), bed.events()), (None, vec![]));
    let mut bed = Bed::new(Some("me"), Assignor::Range);
    bed.join(1);
    bed.member.handle_leave();
    assert_eq!((bed.ask(), bed.member.standing()), (None, Standing::Ended));
}

/// A member by the newer protocol.
struct Newer {
    member: super::Modern,
    now: Instant,
}

const ID: Uuid = Uuid::from_u128(7);

impl Newer {
    fn new(instance: Option<&str>) -> Self {
        let now = Instant::now();
        let settings = settings(instance, &[]);
        Self { member: super::Modern::new(settings, vec![topic("t")], Uuid::from_u128(1), now), now }
    }

    /// In epoch 3 with the partitions 0 and 1, and the coordinator knows it.
    fn stable() -> Self {
        let mut bed = Self::new(None);
        let beat = bed.next_beat();
        assert_eq!((beat.epoch, beat.full, beat.owned), (0, true, Some(vec![])));
        bed.beaten(0, 3, Some(&[0, 1]));
        let Beat::Names(ids) = bed.next() else { panic!("it asks for the name") };
        assert_eq!(ids, [ID]);
        bed.member.handle_answer(Modern::Names([(ID, topic("t"))].into()), bed.now);
        assert_eq!(bed.events(), ["assigned 0 1"]);
        let beat = bed.next_beat();
        assert_eq!((beat.epoch, beat.full, beat.owned), (3, false, Some(vec![(ID, 0), (ID, 1)])));
        bed.beaten(0, 3, None);
        assert_eq!(bed.member.standing(), Standing::In);
        bed
    }

    fn next(&mut self) -> Beat {
        for _ in 0..10 {
            if let Some(ask) = self.member.poll_ask(self.now) {
                return ask;
            }
            let at = self.member.poll_timeout(self.now).expect("it asks some time");
            assert!(at > self.now, "it says now and asks nothing");
            self.now = at;
        }
        panic!("no question");
    }

    fn next_beat(&mut self) -> super::super::modern::Beat {
        match self.next() {
            Beat::Beat(beat) => beat,
            Beat::Names(ids) => panic!("it asks for names: {ids:?}"),
        }
    }

    fn beaten(&mut self, code: i16, epoch: i32, assignment: Option<&[i32]>) {
        let assignment = assignment.map(|ps| ps.iter().map(|p| (ID, *p)).collect());
        let beaten = Beaten { code, epoch, interval: SECOND, assignment, message: String::new() };
        self.member.handle_answer(Modern::Beaten(beaten), self.now);
    }

    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.member.poll_event()).map(|e| shown(&e)).collect()
    }
}

#[test]
fn a_newer_member_releases_before_it_tells_and_takes_what_comes_after() {
    let mut bed = Newer::stable();
    let _ = bed.next_beat();
    bed.beaten(0, 4, Some(&[1, 2]));
    assert_eq!(bed.events(), ["revoke 0"], "first what goes");
    let beat = bed.next_beat();
    assert_eq!((beat.epoch, beat.owned), (4, None), "it says nothing until it is released");
    // The target changes meanwhile.
    bed.beaten(0, 5, Some(&[1, 2, 3]));
    bed.member.handle_released(&[place(0)], bed.now);
    assert_eq!(bed.events(), ["assigned 2 3"]);
    let beat = bed.next_beat();
    assert_eq!((beat.epoch, beat.owned), (5, Some(vec![(ID, 1), (ID, 2), (ID, 3)])));
}

#[test]
fn a_fenced_newer_member_loses_all_and_joins_at_once() {
    for code in [25, 110] {
        let mut bed = Newer::stable();
        let _ = bed.next_beat();
        bed.beaten(code, 0, None);
        assert_eq!(bed.events(), ["lost 0 1"]);
        assert_eq!((bed.member.identity(), bed.member.lease()), (None, None));
        let now = bed.now;
        let beat = bed.next_beat();
        assert_eq!((beat.epoch, beat.full, beat.owned, bed.now), (0, true, Some(vec![]), now));
        // Again at the door: not in a loop.
        bed.beaten(code, 0, None);
        let _ = bed.next_beat();
        assert!(bed.now > now);
        // When a commit is told so.
        let mut bed = Newer::stable();
        let identity = bed.member.identity().unwrap();
        bed.member.handle_refused_commit(&identity, code, bed.now);
        assert_eq!(bed.events(), ["lost 0 1"]);
    }
}

#[test]
fn a_lost_heartbeat_is_followed_by_one_with_all_facts() {
    let mut bed = Newer::stable();
    let _ = bed.next_beat();
    let before = bed.now;
    let lost = crate::Error::new(ErrorKind::Disconnected, "cut").ambiguous();
    bed.member.handle_answer(Modern::Failed(lost), bed.now);
    let beat = bed.next_beat();
    assert!(bed.now > before && bed.now < before + SECOND);
    assert_eq!((beat.epoch, beat.full, beat.owned), (3, true, Some(vec![(ID, 0), (ID, 1)])));
    for code in [14, 15, 16] {
        bed.beaten(code, 0, None);
        let beat = bed.next_beat();
        assert_eq!((beat.epoch, beat.full), (3, true), "{code}");
    }
    bed.beaten(0, 3, None);
    assert_eq!(bed.events(), Vec::<String>::new(), "partitions stay");
}

#[test]
fn a_stale_epoch_of_a_commit_asks_for_the_new_one_at_once() {
    let mut bed = Newer::stable();
    let identity = bed.member.identity().unwrap();
    assert!(bed.member.poll_ask(bed.now).is_none());
    bed.member.handle_refused_commit(&identity, 113, bed.now);
    let now = bed.now;
    let _ = bed.next_beat();
    assert_eq!(bed.now, now);
    bed.beaten(0, 4, None);
    assert_eq!(bed.member.identity().unwrap().epoch, 4);
}

#[test]
fn a_static_newer_member_waits_for_the_session_of_the_one_before() {
    let mut bed = Newer::new(Some("me"));
    let began = bed.now;
    let failed = loop {
        let _ = bed.next_beat();
        bed.beaten(111, 0, None);
        if let Some(event) = bed.member.poll_event() {
            break event;
        }
    };
    let Event::Failed(e) = failed else { panic!("{failed:?}") };
    assert!(e.to_string().contains("instance id \"me\""), "{e}");
    assert!((15 * SECOND..17 * SECOND).contains(&(bed.now - began)), "{:?}", bed.now - began);
}

#[test]
fn what_no_retry_mends_ends_the_newer_membership_too() {
    for (code, kind, said) in [
        (82, ErrorKind::Fenced, "instance id"),
        (112, ErrorKind::Broker, "group.consumer.assignors"),
        (30, ErrorKind::Denied, "group g"),
        (81, ErrorKind::Broker, "group.consumer.max.size"),
        (35, ErrorKind::Unsupported, "group g"),
    ] {
        let mut bed = Newer::stable();
        let _ = bed.next_beat();
        bed.beaten(code, 0, None);
        assert!(matches!(bed.member.poll_event(), Some(Event::Lost(_))));
        let Some(Event::Failed(e)) = bed.member.poll_event() else { panic!("{code}: it fails") };
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(said) && !e.is_retryable(), "{code}: {e}");
        assert!(bed.member.poll_ask(bed.now).is_none() && bed.member.poll_timeout(bed.now).is_none());
    }
}

#[test]
fn a_newer_member_says_goodbye_and_a_static_one_that_it_comes_again() {
    for (instance, epoch) in [(None, -1), (Some("me"), -2)] {
        let mut bed = Newer::new(instance);
        let _ = bed.next_beat();
        bed.beaten(0, 3, Some(&[]));
        bed.member.handle_leave();
        assert_eq!(bed.next_beat().epoch, epoch);
        bed.beaten(0, epoch, None);
        assert!(bed.member.poll_ask(bed.now).is_none() && bed.member.standing() == Standing::Ended);
    }
}

#[test]
fn names_that_are_not_known_yet_are_asked_for_again_not_in_a_hurry() {
    let mut bed = Newer::new(None);
    let _ = bed.next_beat();
    bed.beaten(0, 1, Some(&[0]));
    let mut asked = Vec::new();
    while asked.len() < 3 {
        match bed.next() {
            Beat::Names(_) => {
                asked.push(bed.now);
                bed.member.handle_answer(Modern::Names(BTreeMap::new()), bed.now);
            }
            Beat::Beat(_) => bed.beaten(0, 1, None),
        }
    }
    assert!(asked.windows(2).all(|w| w[1] - w[0] >= SECOND / 2), "{asked:?}");
    loop {
        match bed.next() {
            Beat::Names(_) => break,
            Beat::Beat(_) => bed.beaten(0, 1, None),
        }
    }
    bed.member.handle_answer(Modern::Names([(ID, topic("t"))].into()), bed.now);
    assert_eq!(bed.events(), ["assigned 0"]);
}
