//! Connections, leaders, brokers and clocks that fail.

use std::time::Duration;

use muslin::embedded::faults::{Action, Rule};
use muslin::{ErrorKind, NodeId, Partition};

use super::bed::{Bed, DELIVERY_TIMEOUT, RECORDS, REQUEST_TIMEOUT, SECOND, rule, send};

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_before_or_after_the_work_costs_no_record() {
    for action in [Action::DropRequest, Action::DropAnswer, Action::AnswerTwice, Action::Stall(SECOND / 4)] {
        for (when, rule) in [
            ("once", rule(action.clone()).nth(1)),
            ("later", rule(action.clone()).nth(4)),
            ("a few times", rule(action.clone()).first(5)),
            ("every other time", rule(action.clone()).every(2)),
        ] {
            let bed = Bed::new([rule]).await;
            bed.run().await.check_whole(&format!("{action}, {when}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_cut_at_any_byte_costs_no_record() {
    for at in 0..48 {
        let bed = Bed::new([rule(Action::CutAnswer(at)).nth(2)]).await;
        bed.run().await.check_whole(&format!("cut at byte {at}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_cut_in_mid_frame_costs_no_record() {
    for at in (0..40).chain((40..4_000).step_by(61)) {
        // A rule that strikes at nothing that matters: the check wants to see one.
        let bed = Bed::new([rule(Action::AnswerTwice).nth(1)]).await;
        let producer = bed.producer().await;
        let mut outcomes = vec![send(&producer, 0).await.await.unwrap()];
        let host = format!("kafka-{}", bed.leader().await);
        assert!(bed.network.cut_after("client", &host, at) > 0);
        let mut tasks = Vec::new();
        for n in 1..RECORDS {
            tasks.push(send(&producer, n).await);
        }
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }
        bed.end(outcomes).await.check_whole(&format!("the request cut at byte {at}"));
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_break_at_every_moment_cost_no_record() {
    for pause in [0, 1, 2, 3, 5, 8] {
        let bed = Bed::new([rule(Action::AnswerTwice).nth(1)]).await;
        let producer = bed.producer().await;
        let mut tasks = Vec::new();
        for n in 0..RECORDS {
            tasks.push(send(&producer, n).await);
            tokio::time::sleep(Duration::from_micros(300 * pause)).await;
            bed.network.cut("client");
        }
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }
        bed.end(outcomes).await.check_whole(&format!("cut every {pause} steps"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_with_batches_on_their_way_is_followed() {
    for (what, rule) in [
        ("once", rule(Action::MoveLeader(None)).nth(2)),
        ("at every third request", rule(Action::MoveLeader(None)).every(3)),
        ("there and back", rule(Action::MoveLeader(Some(NodeId(2)))).first(3)),
    ] {
        let bed = Bed::new([rule]).await;
        bed.run().await.check_whole(&format!("the leader moves {what}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_while_the_brokers_tell_of_the_old_one_is_followed() {
    let bed = Bed::new([
        rule(Action::MoveLeader(None)).nth(2),
        Rule::new("Metadata", Action::OldLeaders).unwrap().first(4),
    ])
    .await;
    bed.run().await.check_whole("brokers that lag behind");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_while_answers_are_held_is_followed() {
    let bed = Bed::new([rule(Action::Hold("gate".to_owned())).first(3)]).await;
    let producer = bed.producer().await;
    let mut tasks = Vec::new();
    for n in 0..RECORDS {
        tasks.push(send(&producer, n).await);
    }
    tokio::time::sleep(SECOND / 10).await;
    let next = if bed.leader().await == NodeId(1) { NodeId(2) } else { NodeId(1) };
    bed.kafka.move_leader("t", Partition(0), next).unwrap();
    tokio::time::sleep(SECOND / 10).await;
    bed.kafka.faults(|f| f.release("gate"));
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    bed.end(outcomes).await.check_whole("the leader moves behind held answers");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_dies_restarts_or_is_cut_off_costs_no_record() {
    for action in [Action::Kill, Action::Restart(SECOND), Action::Isolate(3 * SECOND)] {
        for nth in [1, 3] {
            let bed = Bed::new([rule(action.clone()).nth(nth)]).await;
            bed.run().await.check_whole(&format!("{action}, at request {nth}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_come_after_the_request_timeout_cost_no_record() {
    for late in [REQUEST_TIMEOUT + SECOND / 10, 2 * REQUEST_TIMEOUT] {
        for (when, rule) in [
            ("once", rule(Action::Delay(late)).nth(1)),
            ("later", rule(Action::Delay(late)).nth(3)),
            ("twice", rule(Action::Delay(late)).first(2)),
        ] {
            let bed = Bed::new([rule]).await;
            bed.run().await.check_whole(&format!("answers after {late:?}, {when}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_come_after_the_delivery_timeout_are_not_waited_for() {
    for action in [Action::Delay(2 * DELIVERY_TIMEOUT), Action::Hold("for ever".to_owned())] {
        let bed = Bed::new([rule(action.clone())]).await;
        let run = bed.run().await;
        run.check_failed(&action.to_string(), ErrorKind::Timeout, true);
        let (_, e) = run.failures()[0];
        assert!(e.report().contains("delivery_timeout"), "{}", e.report());
        assert!(e.is_retryable(), "{}", e.report());
        assert_eq!(run.stored(0), 1, "{action}: the work was done");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_never_reach_a_broker_are_told_at_the_delivery_timeout() {
    for action in [Action::DropRequest, Action::Stall(2 * DELIVERY_TIMEOUT)] {
        let bed = Bed::new([rule(action.clone())]).await;
        let run = bed.run().await;
        run.check(&action.to_string());
        assert_eq!(run.failures().len(), RECORDS, "{action}");
        let (_, e) = run.failures()[0];
        assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Timeout, true), "{}", e.report());
    }
}

#[tokio::test(start_paused = true)]
async fn what_never_left_is_surely_not_written() {
    let bed = Bed::new([rule(Action::AnswerTwice).nth(1)]).await;
    let producer = bed.producer().await;
    let mut outcomes = vec![send(&producer, 0).await.await.unwrap()];
    // Every way to the brokers is cut, and none can be opened.
    for n in 1..=3 {
        bed.network.block("client", &format!("kafka-{n}"));
    }
    bed.network.cut("client");
    tokio::time::sleep(SECOND / 10).await;
    let mut tasks = Vec::new();
    for n in 1..RECORDS {
        tasks.push(send(&producer, n).await);
    }
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    let run = bed.end(outcomes).await;
    run.check("no way to the brokers");
    assert_eq!(run.failures().len(), RECORDS - 1);
    for (n, e) in run.failures() {
        assert_eq!(e.kind(), ErrorKind::Timeout, "record {n}: {}", e.report());
        assert!(!e.is_ambiguous(), "record {n}: {}", e.report());
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_failed_goes_on_when_the_brokers_do() {
    for action in [
        Action::Error(6),
        Action::Error(7),
        Action::ErrorAfter(20),
        Action::Error(45),
        Action::Error(29),
        Action::DropRequest,
        Action::DropAnswer,
        Action::Delay(2 * DELIVERY_TIMEOUT),
        Action::Stall(2 * DELIVERY_TIMEOUT),
    ] {
        let bed = Bed::new([rule(action.clone())]).await;
        let producer = bed.producer().await;
        let mut tasks = Vec::new();
        for n in 0..RECORDS / 2 {
            tasks.push(send(&producer, n).await);
        }
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }
        bed.kafka.faults(|f| f.remove("struck"));
        for n in RECORDS / 2..RECORDS {
            outcomes.push(send(&producer, n).await.await.unwrap());
        }
        let run = bed.end(outcomes).await;
        run.check(&action.to_string());
        let failed: Vec<usize> = run.failures().iter().map(|(n, _)| *n).collect();
        assert_eq!(failed, (0..RECORDS / 2).collect::<Vec<_>>(), "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_resolves_what_is_left_and_says_what_may_be_written() {
    let bed = Bed::new([rule(Action::Hold("gate".to_owned()))]).await;
    let producer = bed.producer().await;
    let mut tasks = Vec::new();
    for n in 0..RECORDS {
        tasks.push(send(&producer, n).await);
    }
    tokio::time::sleep(SECOND / 10).await;
    let e = producer.close(SECOND).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout, "{}", e.report());
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    for (n, (took, outcome)) in outcomes.iter().enumerate() {
        let e = outcome.as_ref().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Closed, "record {n}: {}", e.report());
        assert!(*took < 2 * SECOND, "record {n}: {took:?}");
    }
    assert!(outcomes[0].1.as_ref().unwrap_err().is_ambiguous());
    let last = outcomes[RECORDS - 1].1.as_ref().unwrap_err();
    assert!(!last.is_ambiguous(), "it never left: {}", last.report());
    let e = producer.enqueue(super::bed::record(0)).await.unwrap_err();
    assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Closed, false));
    // Sure and unsure against the log; the errors of a closed producer name no topic.
    let run = bed.end(outcomes).await;
    for (n, (_, outcome)) in run.outcomes.iter().enumerate() {
        let most = usize::from(outcome.as_ref().unwrap_err().is_ambiguous());
        assert!(run.stored(n) <= most, "record {n}: {outcome:?}");
    }
}
