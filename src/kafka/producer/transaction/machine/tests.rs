//! The machine against a naive coordinator behind a bad network, and its rules one by one.
#![allow(clippy::disallowed_methods, reason = "a start for the test's own clock")]

mod world;

use proptest::prelude::*;

use self::world::{Fate, World};
use super::*;
use crate::kafka::errors;
use crate::{Offset, Partition, ProducerEpoch, ProducerId, Topic};

const NOT_COORDINATOR: i16 = 16;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const CONCURRENT_TRANSACTIONS: i16 = 51;
const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
const PRODUCER_FENCED: i16 = 90;
const ILLEGAL_GENERATION: i16 = 22;
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;

fn settings() -> Settings {
    Settings { id: "x".to_owned(), timeout: Duration::from_secs(60), patience: Duration::from_secs(30) }
}

fn place(n: i32) -> Place {
    (Topic::new("t").unwrap(), Partition(n))
}

fn identity(epoch: i16) -> Identity {
    (ProducerId(7), ProducerEpoch(epoch))
}

fn committing(offset: i64) -> Vec<(Place, Committing)> {
    let committing =
        Committing { offset: Offset(offset), leader_epoch: crate::LeaderEpoch(-1), metadata: String::new() };
    vec![(place(0), committing)]
}

/// A machine with the epoch 3, in a transaction to which something was sent.
fn open(protocol: Protocol) -> (Machine, Instant) {
    let now = Instant::now();
    let mut m = Machine::new(settings(), protocol);
    m.handle_init();
    assert_eq!(next(&mut m, now), Request::Init(None));
    m.handle_answer(Answer::Identity(identity(3)), now);
    m.handle_begin().unwrap();
    if protocol == Protocol::V1 {
        m.handle_partitions([place(0)]);
        assert_eq!(next(&mut m, now), Request::Partitions(identity(3), vec![place(0)]));
        m.handle_answer(Answer::Codes(vec![(place(0), 0)]), now);
    }
    (m, now)
}

fn next(m: &mut Machine, now: Instant) -> Request {
    m.poll_request(now, true).expect("a request").request
}

fn end(m: &Machine, commit: bool) -> Request {
    Request::End { identity: m.identity.unwrap(), protocol: m.protocol, commit }
}

fn ended(m: &mut Machine) -> Option<Ended> {
    while let Some(event) = m.poll_event() {
        if let Event::Ended(ended) = event {
            return Some(ended);
        }
    }
    None
}

fn lost() -> Answer {
    Answer::Failed(Error::new(ErrorKind::Timeout, "no answer").ambiguous())
}

#[test]
fn version_1_adds_ends_and_keeps_its_epoch() {
    let (mut m, now) = open(Protocol::V1);
    m.handle_offsets(GroupMetadata::new("g"), committing(5), now).unwrap();
    assert_eq!(next(&mut m, now), Request::Group(identity(3), "g".to_owned()));
    m.handle_answer(Answer::Code(0), now);
    assert!(matches!(next(&mut m, now), Request::Offsets(..)));
    m.handle_answer(Answer::Codes(vec![(place(0), 0)]), now);
    m.handle_end(true, true);
    assert_eq!(m.poll_request(now, false), None, "records are still on their way");
    assert_eq!(next(&mut m, now), end(&m, true));
    m.handle_answer(Answer::Code(0), now);
    let ended = ended(&mut m).unwrap();
    assert!(ended.result.is_ok() && ended.committed == Some(true));
    assert!(m.is_ready(), "nothing was in doubt");
}

#[test]
fn version_2_sends_no_adds_and_goes_on_with_the_next_epoch() {
    let (mut m, now) = open(Protocol::V2);
    m.handle_offsets(GroupMetadata::new("g"), committing(5), now).unwrap();
    assert!(matches!(next(&mut m, now), Request::Offsets(..)));
    m.handle_answer(Answer::Codes(vec![(place(0), 0)]), now);
    m.handle_end(true, true);
    assert_eq!(next(&mut m, now), end(&m, true));
    m.handle_answer(Answer::Identity(identity(4)), now);
    assert!(m.is_ready());
    assert_eq!(m.identity, Some(identity(4)));
}

#[test]
fn a_cluster_that_is_raised_to_version_2_is_used_so_under_a_new_epoch() {
    let (mut m, now) = open(Protocol::V1);
    m.handle_end(true, true);
    assert_eq!(next(&mut m, now), end(&m, true));
    m.handle_protocol(Protocol::V2);
    m.handle_answer(Answer::Code(0), now);
    assert_eq!(ended(&mut m).unwrap().committed, Some(true));
    assert!(!m.is_ready(), "the markers of the commit may be on their way");
    assert_eq!(next(&mut m, now), Request::Init(Some(identity(3))));
    m.handle_answer(Answer::Identity(identity(4)), now);
    assert_eq!(m.handle_begin().unwrap().1, Protocol::V2);
}

#[test]
fn a_transaction_without_anything_ends_without_a_request() {
    for protocol in [Protocol::V1, Protocol::V2] {
        for commit in [true, false] {
            let now = Instant::now();
            let mut m = Machine::new(settings(), protocol);
            m.handle_init();
            next(&mut m, now);
            m.handle_answer(Answer::Identity(identity(0)), now);
            m.handle_begin().unwrap();
            m.handle_end(commit, false);
            assert_eq!(m.poll_request(now, true), None);
            assert!(ended(&mut m).unwrap().result.is_ok() && m.is_ready());
        }
    }
}

#[test]
fn a_lost_answer_to_a_commit_is_asked_for_again_and_version_1_takes_a_new_epoch_after_it() {
    let (mut m, mut now) = open(Protocol::V1);
    m.handle_end(true, true);
    for _ in 0..20 {
        assert_eq!(next(&mut m, now), end(&m, true));
        m.handle_answer(lost(), now);
        assert!(m.is_unsure() && ended(&mut m).is_none());
        now = m.poll_timeout().unwrap();
    }
    next(&mut m, now);
    m.handle_answer(Answer::Code(0), now);
    assert_eq!(ended(&mut m).unwrap().committed, Some(true));
    assert!(!m.is_ready());
    assert_eq!(next(&mut m, now), Request::Init(Some(identity(3))));
    m.handle_answer(Answer::Identity(identity(4)), now);
    assert!(m.is_ready());
}

#[test]
fn a_fenced_commit_is_ambiguous_only_after_a_lost_answer() {
    for lose in [false, true] {
        let (mut m, mut now) = open(Protocol::V1);
        m.handle_end(true, true);
        next(&mut m, now);
        if lose {
            m.handle_answer(lost(), now);
            now = m.poll_timeout().unwrap();
            next(&mut m, now);
        }
        m.handle_answer(Answer::Code(PRODUCER_FENCED), now);
        assert_eq!(next(&mut m, now), Request::Init(Some(identity(3))));
        m.handle_answer(Answer::Code(PRODUCER_FENCED), now);
        let ended = ended(&mut m).unwrap();
        let error = ended.result.unwrap_err();
        assert_eq!((error.kind(), error.is_ambiguous()), (ErrorKind::Fenced, lose));
        assert_eq!(ended.committed, (!lose).then_some(false));
        assert_eq!(m.fatal().unwrap().kind(), ErrorKind::Fenced);
    }
}

#[test]
fn a_transaction_that_the_coordinator_ended_is_told_as_timed_out_and_the_next_may_begin() {
    for (protocol, code) in [
        (Protocol::V1, INVALID_PRODUCER_EPOCH),
        (Protocol::V1, PRODUCER_FENCED),
        (Protocol::V2, INVALID_TXN_STATE),
    ] {
        let (mut m, now) = open(protocol);
        m.handle_end(true, true);
        next(&mut m, now);
        m.handle_answer(Answer::Code(code), now);
        assert_eq!(next(&mut m, now), Request::Init(Some(identity(3))));
        m.handle_answer(Answer::Identity(identity(4)), now);
        let error = ended(&mut m).unwrap().result.unwrap_err();
        assert_eq!((error.kind(), error.is_ambiguous()), (ErrorKind::Timeout, false));
        m.handle_begin().unwrap();
    }
}

#[test]
fn a_producer_that_is_refused_after_its_new_epoch_was_lost_says_that_it_may_be_so() {
    for lose in [true, false] {
        let (mut m, mut now) = open(Protocol::V1);
        m.handle_end(false, true);
        assert_eq!(next(&mut m, now), end(&m, false));
        m.handle_answer(Answer::Code(0), now);
        assert_eq!(next(&mut m, now), Request::Init(Some(identity(3))));
        if lose {
            m.handle_answer(lost(), now);
            now += RETRY_MAX;
            assert_eq!(next(&mut m, now), Request::Init(Some(identity(3))));
        }
        m.handle_answer(Answer::Code(PRODUCER_FENCED), now);
        let e = m.handle_begin().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Fenced);
        assert_eq!(e.message().contains("the answer was lost"), lose, "{e}");
    }
}

#[test]
fn a_failed_batch_turns_the_commit_into_an_abort() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let (mut m, now) = open(protocol);
        m.handle_failed_batch(&Error::new(ErrorKind::TooLarge, "too large"));
        assert_eq!(m.failure().unwrap().kind(), ErrorKind::TooLarge);
        assert!(m.giving_up().is_some(), "its other records need not go on");
        m.handle_end(true, true);
        assert_eq!(m.poll_request(now, false), None);
        assert!(m.giving_up().is_some());
        assert_eq!(next(&mut m, now), end(&m, false));
        m.handle_answer(
            if protocol == Protocol::V1 { Answer::Code(0) } else { Answer::Identity(identity(4)) },
            now,
        );
        let ended = ended(&mut m).unwrap();
        assert_eq!(ended.result.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(ended.committed, Some(false));
        // A late part of it would fall into the next transaction.
        assert_eq!(m.is_ready(), protocol == Protocol::V2);
    }
}

#[test]
fn offsets_of_a_member_that_the_group_moved_on_from_fail_the_transaction() {
    let (mut m, now) = open(Protocol::V2);
    let ticket = m.handle_offsets(GroupMetadata::new("g").member("m", 3), committing(5), now).unwrap();
    next(&mut m, now);
    m.handle_answer(Answer::Codes(vec![(place(0), ILLEGAL_GENERATION)]), now);
    let told = std::iter::from_fn(|| m.poll_event()).find_map(|event| match event {
        Event::Offsets(t, result) => Some((t, result.unwrap_err().kind())),
        _ => None,
    });
    assert_eq!(told, Some((ticket, ErrorKind::Conflict)));
    assert!(m.handle_offsets(GroupMetadata::new("g"), committing(6), now).is_err());
}

#[test]
fn offsets_that_may_arrive_late_are_not_followed_by_others() {
    let (mut m, mut now) = open(Protocol::V2);
    m.handle_offsets(GroupMetadata::new("g"), committing(5), now).unwrap();
    next(&mut m, now);
    m.handle_answer(lost(), now);
    now = m.poll_timeout().unwrap();
    assert!(m.poll_request(now, true).unwrap().anew);
    m.handle_answer(Answer::Codes(vec![(place(0), 0)]), now);
    assert!(m.handle_offsets(GroupMetadata::new("g"), committing(6), now).is_err());
}

#[test]
fn offsets_have_their_time_though_they_are_on_their_way() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let (mut m, mut now) = open(protocol);
        m.handle_offsets(GroupMetadata::new("g"), committing(5), now).unwrap();
        next(&mut m, now);
        let begin = now;
        now = m.poll_timeout().unwrap();
        assert_eq!(now - begin, settings().patience);
        assert!(m.poll_request(now, true).is_none());
        let told = std::iter::from_fn(|| m.poll_event()).find_map(|event| match event {
            Event::Offsets(_, result) => Some(result.unwrap_err().kind()),
            _ => None,
        });
        assert_eq!(told, Some(ErrorKind::Timeout));
        // The answer changes nothing any more.
        let answer =
            if protocol == Protocol::V1 { Answer::Code(0) } else { Answer::Codes(vec![(place(0), 0)]) };
        m.handle_answer(answer, now);
        m.handle_end(true, true);
        assert_eq!(next(&mut m, now), end(&m, false));
    }
}

/// The driver would run without a pause otherwise.
#[test]
fn a_pause_that_has_passed_is_not_waited_for_again() {
    let (mut m, mut now) = open(Protocol::V1);
    m.handle_partitions([place(1)]);
    next(&mut m, now);
    m.handle_answer(lost(), now);
    m.handle_failed_batch(&Error::new(ErrorKind::Rejected, "no"));
    now = m.poll_timeout().unwrap();
    assert!(m.poll_request(now, false).is_none());
    assert_eq!(m.poll_timeout(), None);
}

#[test]
fn without_the_right_nothing_goes_on() {
    let (mut m, now) = open(Protocol::V1);
    m.handle_partitions([place(1)]);
    next(&mut m, now);
    m.handle_answer(Answer::Codes(vec![(place(1), TRANSACTIONAL_ID_AUTHORIZATION_FAILED)]), now);
    assert_eq!(m.fatal().unwrap().kind(), ErrorKind::Denied);
    m.handle_end(true, true);
    assert_eq!(ended(&mut m).unwrap().result.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(m.handle_begin().unwrap_err().kind(), ErrorKind::Denied);
}

#[test]
fn a_coordinator_that_moved_is_looked_up_anew_in_every_state() {
    for code in [NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE] {
        let now = Instant::now();
        let mut m = Machine::new(settings(), Protocol::V1);
        m.handle_init();
        let moved = |m: &mut Machine, now: &mut Instant, by_partition: bool| {
            let first = m.poll_request(*now, true).unwrap();
            assert!(!first.anew);
            let code = if by_partition { Answer::Codes(vec![(place(0), code)]) } else { Answer::Code(code) };
            m.handle_answer(code, *now);
            assert_eq!(m.poll_request(*now, true), None, "not at once");
            *now = m.poll_timeout().unwrap();
            let again = m.poll_request(*now, true).unwrap();
            assert!(again.anew && again.request == first.request);
        };
        let mut now = now;
        moved(&mut m, &mut now, false);
        m.handle_answer(Answer::Identity(identity(0)), now);
        m.handle_begin().unwrap();
        m.handle_partitions([place(0)]);
        moved(&mut m, &mut now, true);
        m.handle_answer(Answer::Codes(vec![(place(0), 0)]), now);
        m.handle_offsets(GroupMetadata::new("g"), committing(1), now).unwrap();
        moved(&mut m, &mut now, false);
        m.handle_answer(Answer::Code(0), now);
        moved(&mut m, &mut now, true);
        m.handle_answer(Answer::Codes(vec![(place(0), 0)]), now);
        m.handle_end(true, true);
        moved(&mut m, &mut now, false);
        m.handle_answer(Answer::Code(0), now);
        assert_eq!(ended(&mut m).unwrap().committed, Some(true));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Begin,
    Record(i32),
    Offsets,
    Commit,
    Abort,
    Request(Fate),
    Produce(Fate),
    /// The oldest batch fails for good.
    FailBatch,
    /// A request from the past arrives.
    Late(usize),
    Expire,
    Markers,
    /// The coordinator forgets an idle id.
    Forget,
    /// Another producer takes the id.
    Other,
    /// The cluster is raised to version 2, or lowered to version 1.
    Level(Protocol),
    Wait,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Answered),
        2 => Just(Fate::Lost),
        2 => Just(Fate::Delayed),
        2 => Just(Fate::AnswerLost),
        1 => Just(Fate::NotSent),
        2 => prop::sample::select(vec![
            NOT_COORDINATOR,
            COORDINATOR_LOAD_IN_PROGRESS,
            COORDINATOR_NOT_AVAILABLE,
            CONCURRENT_TRANSACTIONS,
        ])
        .prop_map(Fate::Refused),
        2 => prop::sample::select(vec![-1, NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE]).prop_map(Fate::DoneAndRefused),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Begin),
        6 => (0..3).prop_map(Step::Record),
        2 => Just(Step::Offsets),
        4 => Just(Step::Commit),
        2 => Just(Step::Abort),
        14 => fate().prop_map(Step::Request),
        8 => fate().prop_map(Step::Produce),
        1 => Just(Step::FailBatch),
        5 => any::<usize>().prop_map(Step::Late),
        1 => Just(Step::Expire),
        4 => Just(Step::Markers),
        1 => Just(Step::Forget),
        1 => prop::sample::select(vec![Step::Other, Step::Wait, Step::Wait, Step::Wait]),
        3 => prop::sample::select(vec![Protocol::V1, Protocol::V2]).prop_map(Step::Level),
        4 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn what_is_told_is_what_the_cluster_did(
        v2 in any::<bool>(),
        held_markers in any::<bool>(),
        first_epoch in prop::sample::select(vec![0, i16::MAX - 4, i16::MAX - 2]),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(if v2 { Protocol::V2 } else { Protocol::V1 }, held_markers, first_epoch);
        for step in steps {
            match step {
                Step::Begin => world.begin(),
                Step::Record(n) => world.record(n),
                Step::Offsets => world.offsets(),
                Step::Commit => world.end(true),
                Step::Abort => world.end(false),
                Step::Request(fate) => world.request(fate),
                Step::Produce(fate) => world.produce(fate),
                Step::FailBatch => world.fail_batch(),
                Step::Late(n) => world.late(n),
                Step::Expire => world.expire(),
                Step::Markers => world.markers(),
                Step::Forget => world.forget(),
                Step::Other => world.other(),
                Step::Level(protocol) => world.level(protocol),
                Step::Wait => world.wait(),
            }
        }
        world.heal();
        world.check();
    }
}
