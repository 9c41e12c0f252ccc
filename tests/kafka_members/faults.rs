//! Faults at every request of a membership: the group settles, nothing is lost, and nothing comes twice that need not.

use std::time::Duration;

use muslin::ErrorKind;
use muslin::embedded::faults::{Action, Faults, Rule};
use muslin::kafka::{Client, GroupProtocol, Rebalance};

use crate::bed::{BOTH, Bed, PARTITIONS, SECOND};
use crate::member::{Worker, until_shared};

const ALL: usize = PARTITIONS as usize;

fn requests(protocol: GroupProtocol) -> &'static [&'static str] {
    match protocol {
        GroupProtocol::Classic => &[
            "FindCoordinator",
            "JoinGroup",
            "SyncGroup",
            "Heartbeat",
            "LeaveGroup",
            "OffsetCommit",
            "OffsetFetch",
            "Metadata",
        ],
        _ => &[
            "FindCoordinator",
            "ConsumerGroupHeartbeat",
            "OffsetCommit",
            "OffsetFetch",
            "Metadata",
            "ListOffsets",
        ],
    }
}

/// Two members come, one goes, with records before, between and after. Returns how many acks were for records that had
/// been acknowledged before.
async fn story(protocol: GroupProtocol, rule: Rule, what: &str) -> usize {
    let (repeated, fenced) = story_of(protocol, rule, what).await;
    assert_eq!(fenced, 0, "{what}");
    repeated
}

/// The same, and how many of the members were told at their end that the group had moved on without them.
async fn story_of(protocol: GroupProtocol, rule: Rule, what: &str) -> (usize, usize) {
    let bed = Bed::new(Faults::new(1)).await;
    bed.fill(5).await;
    bed.kafka.faults(|f| f.add(rule)).unwrap();
    let first = bed.join(protocol).await;
    bed.until_acked(5 * ALL).await;
    let second = bed.join(protocol).await;
    until_shared(&[&first, &second], ALL).await;
    bed.fill(5).await;
    bed.until_acked(10 * ALL).await;
    let mut fenced = 0;
    let mut close = async |member: Worker| {
        if let Err(e) = member.stop().await.close(30 * SECOND).await {
            assert_eq!(e.kind(), ErrorKind::Fenced, "{what}: {e}");
            fenced += 1;
        }
    };
    close(first).await;
    until_shared(&[&second], ALL).await;
    bed.fill(5).await;
    bed.until_acked(15 * ALL).await;
    close(second).await;
    let committed = bed.committed().await;
    let all = committed.len() == ALL && committed.values().all(|o| o.0 == 15);
    assert!(all || fenced > 0, "{what}: {committed:?}");
    (bed.repeated(), fenced)
}

async fn sweep(actions: &[(Action, bool)]) {
    for protocol in BOTH {
        for request in requests(protocol) {
            for (action, repeats) in actions {
                for nth in 1..=3 {
                    let Ok(rule) = Rule::new(request, action.clone()) else { continue };
                    let what = format!("{protocol:?} {request} {nth} {action}");
                    let repeated = story(protocol, rule.nth(nth), &what).await;
                    assert!(*repeats || repeated == 0, "{what}: {repeated} came twice");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_cut_lost_or_late_repeat_nothing() {
    sweep(&[
        (Action::DropRequest, false),
        (Action::DropAnswer, false),
        (Action::CutAnswer(7), false),
        (Action::Delay(4 * SECOND), false),
        (Action::Stall(4 * SECOND), false),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_moves_or_loads_repeats_nothing() {
    sweep(&[
        (Action::MoveCoordinator(None), false),
        (Action::Error(14), false),
        (Action::Error(15), false),
        (Action::Error(16), false),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_restarts_repeats_nothing() {
    sweep(&[(Action::Restart(3 * SECOND), false)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_loses_the_partitions_and_nothing_else() {
    // What was settled since the last commit comes again to their next owner.
    for protocol in BOTH {
        for request in ["Heartbeat", "ConsumerGroupHeartbeat", "OffsetCommit", "JoinGroup", "SyncGroup"] {
            if !requests(protocol).contains(&request) {
                continue;
            }
            for nth in 1..=6 {
                let Ok(rule) = Rule::new(request, Action::ExpireSession) else { continue };
                story_of(protocol, rule.nth(nth), &format!("{protocol:?} {request} {nth}")).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_meets_a_rebalance_is_made_under_the_new_generation() {
    for code in [27, 113] {
        for protocol in BOTH {
            for nth in 1..=3 {
                let rule = Rule::new("OffsetCommit", Action::Error(code)).unwrap().nth(nth);
                let repeated = story(protocol, rule, &format!("{protocol:?} {code}")).await;
                assert_eq!(repeated, 0, "{protocol:?} {code}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_that_is_too_large_for_the_broker_is_left_out() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        let rule = Rule::new("OffsetCommit", Action::Error(12)).unwrap().nth(1);
        bed.kafka.faults(|f| f.add(rule)).unwrap();
        bed.fill(1).await;
        let first = bed.join(protocol).await;
        bed.until_acked(ALL).await;
        first.close().await;
        assert!(bed.committed().await.values().all(|o| o.0 == 1));
        assert_eq!(bed.kafka.faults(|f| f.count()), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_nobody_hears_reads_nothing_until_it_knows_what_it_owns() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        let far = bed.client("far").await;
        let consumer = crate::bed::member(&far, protocol).build().await.unwrap();
        let near = bed.join(protocol).await;
        let away = crate::member::Worker::start(consumer, std::sync::Arc::clone(&bed.acked), Duration::ZERO);
        until_shared(&[&near, &away], ALL).await;
        // Cut off for longer than its session. Its partitions go to the other, which reads what comes.
        for broker in ["kafka-1", "kafka-2", "kafka-3"] {
            bed.network.block("far", broker);
            bed.network.block(broker, "far");
        }
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(near.owned().len(), ALL, "{protocol:?}");
        bed.fill(3).await;
        bed.until_acked(3 * ALL).await;
        bed.network.unblock_all();
        until_shared(&[&near, &away], ALL).await;
        bed.fill(3).await;
        bed.until_acked(6 * ALL).await;
        assert_eq!(bed.repeated(), 0, "{protocol:?}");
        near.close().await;
        away.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_does_not_get_through_does_not_cost_a_member_its_place() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        bed.fill(1).await;
        let client = Client::builder(bed.kafka.bootstrap())
            .connector(bed.network.connector("patient"))
            .request_timeout(120 * SECOND)
            .connect()
            .await
            .unwrap();
        let builder = crate::bed::member(&client, protocol).commit_interval(3600 * SECOND);
        let mut first =
            builder.settle_timeout(5 * SECOND).rebalance_timeout(20 * SECOND).build().await.unwrap();
        let mut rebalances = first.rebalances();
        for _ in 0..ALL {
            first.next().await.unwrap().unwrap().ack();
        }
        let rule = Rule::new("OffsetCommit", Action::Error(14)).unwrap();
        bed.kafka.faults(|f| f.add(rule.name("loading"))).unwrap();
        let second = bed.builder(protocol).rebalance_timeout(20 * SECOND).settle_timeout(5 * SECOND);
        let second = second.build().await.unwrap();
        tokio::time::sleep(100 * SECOND).await;
        bed.kafka.faults(|f| f.remove("loading"));
        first.close(30 * SECOND).await.unwrap();
        let mut notices = Vec::new();
        while let Some(notice) = rebalances.next().await {
            notices.push(notice);
        }
        let lost = notices.iter().any(|n| matches!(n, Rebalance::Lost(_)));
        let gone = notices.iter().any(|n| matches!(n, Rebalance::Revoked { .. }));
        assert!(gone && !lost, "{protocol:?}: {notices:?}");
        second.close(30 * SECOND).await.unwrap();
    }
}
