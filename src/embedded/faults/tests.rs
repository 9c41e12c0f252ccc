#![allow(clippy::disallowed_methods, reason = "tests begin at any moment")]

use proptest::prelude::*;

use super::*;

fn facts<'a>(kind: &str, places: &'a [&'a str]) -> Facts<'a> {
    Facts {
        node: NodeId(1),
        connection: ConnectionId(4),
        client_id: Some("reader-1"),
        kind: Kind::by_name(kind).unwrap(),
        places,
    }
}

fn fires(faults: &mut Faults, kind: &str, places: &[&str], now: Instant) -> bool {
    faults.decide(&facts(kind, places), now).is_some()
}

#[test]
fn each_way_of_counting_fires_where_it_says() {
    let now = Instant::now();
    let rule = || Rule::new("Produce", Action::DropAnswer).unwrap();
    for (rule, expected) in [
        (rule(), "111111"),
        (rule().nth(3), "001000"),
        (rule().nth(0), "100000"),
        (rule().every(2), "010101"),
        (rule().first(2), "110000"),
        (rule().first(0), "000000"),
        (rule().chance(0.0).unwrap(), "000000"),
        (rule().chance(1.0).unwrap(), "111111"),
    ] {
        let mut faults = Faults::new(1).with(rule).unwrap();
        let mut got = String::new();
        for _ in 0..6 {
            // What does not match is not counted.
            assert!(!fires(&mut faults, "Fetch", &[], now));
            got.push(if fires(&mut faults, "Produce", &[], now) { '1' } else { '0' });
        }
        assert_eq!(got, expected);
    }
}

#[test]
fn a_rule_looks_at_client_broker_topic_and_time() {
    let now = Instant::now();
    let rule = || Rule::new("Produce, Fetch", Action::DropRequest).unwrap();
    for (rule, expected) in [
        (rule().client("reader-1"), true),
        (rule().client("reader-*"), true),
        (rule().client("reader"), false),
        (rule().broker(NodeId(1)), true),
        (rule().broker(NodeId(2)), false),
        (rule().topic("b"), true),
        (rule().topic("c"), false),
        (rule().queue("*"), true),
        (rule().after(Duration::from_secs(5)), true),
        (rule().after(Duration::from_secs(6)), false),
        (rule().until(Duration::from_secs(5)), false),
        (rule().until(Duration::from_secs(6)), true),
    ] {
        let mut faults = Faults::new(1).with(rule.clone()).unwrap();
        faults.handle_start(now);
        assert_eq!(
            fires(&mut faults, "Fetch", &["a", "b"], now + Duration::from_secs(5)),
            expected,
            "{rule:?}"
        );
    }
}

#[test]
fn the_first_rule_wins_and_every_rule_counts() {
    let now = Instant::now();
    let mut faults = Faults::new(1)
        .with(Rule::new("Produce", Action::Kill).unwrap().nth(1))
        .unwrap()
        .with(Rule::new("*", Action::DropRequest).unwrap().nth(1))
        .unwrap()
        .with(Rule::new("*", Action::AnswerTwice).unwrap().nth(2))
        .unwrap();
    assert_eq!(faults.decide(&facts("Produce", &[]), now).unwrap().action, Action::Kill);
    assert_eq!(faults.decide(&facts("Produce", &[]), now).unwrap().action, Action::AnswerTwice);
    assert_eq!(faults.decide(&facts("Produce", &[]), now), None);
}

#[test]
fn what_happened_can_be_asked_for() {
    let now = Instant::now();
    let mut faults =
        Faults::new(1).with(Rule::new("Fetch", Action::Error(6)).unwrap().name("old").nth(2)).unwrap();
    faults.handle_start(now);
    assert!(!fires(&mut faults, "Fetch", &["t"], now));
    assert!(fires(&mut faults, "Fetch", &["t"], now + Duration::from_millis(7)));
    let met: Vec<_> = faults.met().collect();
    let [met] = met.as_slice() else { panic!("{met:?}") };
    assert_eq!(
        (met.at, met.rule.as_deref(), &met.action),
        (Duration::from_millis(7), Some("old"), &Action::Error(6))
    );
    assert_eq!(
        (met.request.as_str(), met.broker, met.places.as_slice()),
        ("Fetch", NodeId(1), &["t".to_owned()][..])
    );
    assert_eq!(faults.remove("old"), 1);
    assert!(faults.is_empty() && faults.count() == 1);
}

#[test]
fn the_record_of_what_happened_is_bounded() {
    let now = Instant::now();
    let mut faults = Faults::new(1).with(Rule::new("*", Action::DropAnswer).unwrap()).unwrap();
    for _ in 0..MET + 10 {
        fires(&mut faults, "Fetch", &[], now);
    }
    assert_eq!((faults.met().len(), faults.count()), (MET, MET as u64 + 10));
}

#[test]
fn what_is_held_leaves_when_it_is_released() {
    let now = Instant::now();
    let mut faults = Faults::new(1).with(Rule::new("Fetch", Action::Hold("gate".into())).unwrap()).unwrap();
    let ids: Vec<u64> = (0..3).map(|_| faults.decide(&facts("Fetch", &[]), now).unwrap().id).collect();
    faults.handle_abandoned(ids[1]);
    assert_eq!((faults.held("gate"), faults.poll_released()), (2, None));
    assert_eq!((faults.release("other"), faults.release("gate")), (0, 2));
    assert_eq!(
        (faults.poll_released(), faults.poll_released(), faults.poll_released()),
        (Some(ids[0]), Some(ids[2]), None)
    );
}

#[test]
fn an_action_without_a_meaning_for_the_request_is_refused() {
    for (request, action) in [
        ("Produce", Action::Nack),
        ("basic.get", Action::Nack),
        ("basic.publish", Action::Error(6)),
        ("basic.publish", Action::ErrorAfter(6)),
        ("Fetch", Action::CloseChannel(406, String::new())),
    ] {
        let e = Rule::new(request, action).unwrap_err();
        assert!(e.to_string().contains("no meaning for"), "{e}");
    }
    // With `*` it fires only where it has one.
    let mut faults = Faults::new(1).with(Rule::new("*", Action::Nack).unwrap()).unwrap();
    let now = Instant::now();
    assert!(!fires(&mut faults, "Produce", &[], now) && fires(&mut faults, "basic.publish", &[], now));
}

#[test]
fn a_document_and_lines_say_the_same() {
    let document = r#"{"seed": 7, "rules": [
        {"request": "Produce", "nth": 3, "do": "drop_answer", "topic": "orders"},
        {"request": ["Produce", "Fetch"], "chance": 0.25, "do": {"delay_ms": 200}, "client": "c*", "name": "slow"},
        {"request": "basic.publish", "do": {"close_channel": {"code": 406, "text": "no"}}, "queue": "q"},
        {"request": "Heartbeat", "do": {"error": "REBALANCE_IN_PROGRESS"}, "broker": 2, "after_ms": 5, "until_ms": 9}
    ]}"#;
    let lines = r#"{"seed": 7}
        # comments are allowed
        {"request": "Produce", "nth": 3, "do": "drop_answer", "topic": "orders"}

        {"request": ["Produce", "Fetch"], "chance": 0.25, "do": {"delay_ms": 200}, "client": "c*", "name": "slow"}
        {"request": "basic.publish", "do": {"close_channel": {"code": 406, "text": "no"}}, "queue": "q"}
        {"request": "Heartbeat", "do": {"error": 27}, "broker": 2, "after_ms": 5, "until_ms": 9}"#;
    let (a, b) = (Faults::from_json(document).unwrap(), Faults::from_json(lines).unwrap());
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
    assert_eq!((a.seed, a.rules.len()), (7, 4));
}

#[test]
fn every_action_can_be_written_in_a_file() {
    for (text, action) in [
        (r#"{"error": "UNKNOWN_TOPIC_OR_PARTITION"}"#, Action::Error(3)),
        (r#"{"error_after": "NOT_LEADER_OR_FOLLOWER"}"#, Action::ErrorAfter(6)),
        (r#"{"delay_ms": 5}"#, Action::Delay(Duration::from_millis(5))),
        (r#""drop_answer""#, Action::DropAnswer),
        (r#""drop_request""#, Action::DropRequest),
        (r#"{"cut_answer": 7}"#, Action::CutAnswer(7)),
        (r#"{"hold": "gate"}"#, Action::Hold("gate".into())),
        (r#""answer_twice""#, Action::AnswerTwice),
        (r#"{"stall_ms": 5}"#, Action::Stall(Duration::from_millis(5))),
        (r#""kill""#, Action::Kill),
        (r#"{"restart_ms": 5}"#, Action::Restart(Duration::from_millis(5))),
        (r#"{"isolate_ms": 5}"#, Action::Isolate(Duration::from_millis(5))),
        (r#"{"move_leader": 2}"#, Action::MoveLeader(Some(NodeId(2)))),
        (r#""move_leader""#, Action::MoveLeader(None)),
        (r#""move_coordinator""#, Action::MoveCoordinator(None)),
        (r#""old_leaders""#, Action::OldLeaders),
        (r#""expire_session""#, Action::ExpireSession),
        (r#"{"close_channel": 404}"#, Action::CloseChannel(404, "NOT_FOUND".into())),
        (r#"{"close_connection": {"code": 320, "text": "bye"}}"#, Action::CloseConnection(320, "bye".into())),
        (
            r#"{"block": {"reason": "disk", "for_ms": 9}}"#,
            Action::Block("disk".into(), Duration::from_millis(9)),
        ),
        (r#""cancel_consumers""#, Action::CancelConsumers),
        (r#""nack""#, Action::Nack),
    ] {
        let faults = Faults::from_json(&format!(r#"{{"request": "*", "do": {text}}}"#)).unwrap();
        assert_eq!(faults.rules[0].rule.action, action);
    }
}

#[test]
fn a_bad_file_is_told_which_value_and_what_was_expected() {
    for (text, words) in [
        ("", &["no JSON"][..]),
        ("[1]", &["rule 1", "1", "`request` and `do`"]),
        (r#"{"request": "Prodce", "do": "nack"}"#, &["\"Prodce\"", "Produce"]),
        (r#"{"request": "Produce"}"#, &["`do` is missing", "drop_answer"]),
        (r#"{"do": "nack"}"#, &["`request` is missing"]),
        (r#"{"request": "Produce", "do": "explode"}"#, &["\"explode\"", "drop_answer"]),
        (r#"{"request": "Produce", "do": {"delay_ms": "5s"}}"#, &["`delay_ms`", "\"5s\"", "milliseconds"]),
        (
            r#"{"request": "Produce", "do": {"error": "NO_SUCH"}}"#,
            &["`error`", "NO_SUCH", "NOT_LEADER_OR_FOLLOWER"],
        ),
        (r#"{"request": "Produce", "do": {"error": 0}}"#, &["`error`", "0"]),
        (r#"{"request": "Produce", "do": {"error_after": 0}}"#, &["`error_after`", "0"]),
        (r#"{"request": "Produce", "do": "kill", "nht": 1}"#, &["`nht`", "nth"]),
        (r#"{"request": "Produce", "do": "kill", "nth": 0}"#, &["`nth`", "0", "from 1"]),
        (r#"{"request": "Produce", "do": "kill", "nth": 1, "every": 2}"#, &["`nth` and `every`"]),
        (r#"{"request": "Produce", "do": "kill", "chance": 2}"#, &["2", "from 0 to 1"]),
        (r#"{"request": "basic.publish", "do": {"close_channel": 7}}"#, &["`close_channel`", "406"]),
        ("{\"seed\": 1}\n{\"request\": \"Fetch\", \"do\": \"no\"}", &["line 2", "\"no\""]),
        (r#"{"seed": -1, "rules": []}"#, &["`seed`", "-1"]),
    ] {
        let e = Faults::from_json(text).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        for word in words {
            assert!(e.to_string().contains(word), "{text}: {e} lacks {word}");
        }
    }
}

#[derive(Debug, Clone)]
struct Draft {
    kinds: Vec<usize>,
    client: Option<usize>,
    node: Option<i32>,
    place: Option<usize>,
    when: u8,
    n: u64,
    after: u64,
    length: Option<u64>,
}

const KINDS: [&str; 3] = ["Produce", "Fetch", "Metadata"];
const NAMES: [&str; 3] = ["a", "ab", "b"];

fn draft() -> impl Strategy<Value = Draft> {
    let which =
        (prop::collection::vec(0..3usize, 0..3), prop::option::of(0..6usize), prop::option::of(0..2i32));
    let when = (prop::option::of(0..6usize), 0..4u8, 0..5u64, 0..20u64, prop::option::of(0..20u64));
    (which, when).prop_map(|((kinds, client, node), (place, when, n, after, length))| Draft {
        kinds,
        client,
        node,
        place,
        when,
        n,
        after,
        length,
    })
}

fn pattern(i: usize) -> String {
    NAMES.get(i).map_or_else(|| format!("{}*", NAMES[i - 3]), |n| (*n).to_owned())
}

fn naive_fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((head, _)) => name.len() >= head.len() && &name[..head.len()] == head,
        None => pattern == name,
    }
}

proptest! {
    /// Against a model that keeps every request it has seen and counts anew each time.
    #[test]
    fn decisions_follow_from_the_whole_story(
        drafts in prop::collection::vec(draft(), 1..4),
        requests in prop::collection::vec((0..3usize, 0..3usize, 0..2i32, prop::collection::vec(0..3usize, 0..3), 0..3u64), 1..60),
    ) {
        let start = Instant::now();
        let mut faults = Faults::new(9);
        faults.handle_start(start);
        for (i, d) in drafts.iter().enumerate() {
            let names = if d.kinds.is_empty() { "*".to_owned() } else {
                d.kinds.iter().map(|k| KINDS[*k]).collect::<Vec<_>>().join(",")
            };
            let mut rule = Rule::new(&names, Action::CutAnswer(i)).unwrap();
            if let Some(c) = d.client { rule = rule.client(pattern(c)); }
            if let Some(n) = d.node { rule = rule.broker(NodeId(n)); }
            if let Some(p) = d.place { rule = rule.topic(pattern(p)); }
            rule = rule.after(Duration::from_secs(d.after));
            if let Some(l) = d.length { rule = rule.until(Duration::from_secs(d.after + l)); }
            rule = match d.when { 0 => rule, 1 => rule.nth(d.n), 2 => rule.every(d.n), _ => rule.first(d.n) };
            faults.add(rule).unwrap();
        }
        let mut story: Vec<(usize, usize, i32, Vec<usize>, u64)> = Vec::new();
        let mut at = 0;
        let mut count = 0;
        for (kind, client, node, places, step) in requests {
            at += step;
            story.push((kind, client, node, places.clone(), at));
            let matches = |d: &Draft, (kind, client, node, places, at): &(usize, usize, i32, Vec<usize>, u64)| {
                (d.kinds.is_empty() || d.kinds.contains(kind))
                    && d.client.is_none_or(|c| naive_fits(&pattern(c), NAMES[*client]))
                    && d.node.is_none_or(|n| n == *node)
                    && d.place.is_none_or(|p| places.iter().any(|q| naive_fits(&pattern(p), NAMES[*q])))
                    && *at >= d.after
                    && d.length.is_none_or(|l| *at < d.after + l)
            };
            let expected = drafts.iter().position(|d| {
                let seen = story.iter().filter(|r| matches(d, r)).count() as u64;
                let n = d.n.max(1);
                matches(d, story.last().unwrap()) && match d.when {
                    0 => true,
                    1 => seen == n,
                    2 => seen.is_multiple_of(n),
                    _ => seen <= d.n,
                }
            });
            let names: Vec<&str> = places.iter().map(|p| NAMES[*p]).collect();
            let facts = Facts {
                node: NodeId(node),
                connection: ConnectionId(1),
                client_id: Some(NAMES[client]),
                kind: Kind::by_name(KINDS[kind]).unwrap(),
                places: &names,
            };
            let got = faults.decide(&facts, start + Duration::from_secs(at));
            count += u64::from(expected.is_some());
            prop_assert_eq!(got.map(|d| d.action), expected.map(Action::CutAnswer));
            prop_assert_eq!(faults.count(), count);
        }
    }

    #[test]
    fn chances_come_from_the_seed_alone_and_are_near_what_was_said(seed: u64) {
        let now = Instant::now();
        let run = |noise: bool| -> Vec<bool> {
            let rule = Rule::new("Produce", Action::DropAnswer).unwrap().chance(0.3).unwrap();
            let mut faults = Faults::new(seed).with(rule).unwrap();
            (0..500).map(|i| {
                if noise && i % 3 == 0 { fires(&mut faults, "Fetch", &[], now); }
                fires(&mut faults, "Produce", &[], now)
            }).collect()
        };
        let hits = run(false);
        prop_assert_eq!(&hits, &run(true));
        let n = hits.iter().filter(|h| **h).count();
        prop_assert!((90..=210).contains(&n), "{} of 500", n);
    }
}
