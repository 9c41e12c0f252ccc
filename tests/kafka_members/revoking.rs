//! Partitions that are taken away while deliveries of theirs are in hand.

use std::collections::BTreeMap;
use std::time::Duration;

use muslin::embedded::faults::Faults;
use muslin::kafka::{Consumer, Delivery, GroupProtocol, Rebalance, Rebalances};

use crate::bed::{BOTH, Bed, PARTITIONS, SECOND};

/// Takes one delivery of each partition, and keeps them.
async fn one_of_each(consumer: &mut Consumer) -> BTreeMap<i32, Delivery> {
    let mut held = BTreeMap::new();
    while held.len() < PARTITIONS as usize {
        let delivery = consumer.next().await.unwrap().unwrap();
        held.insert(delivery.partition().0, delivery);
    }
    held
}

async fn revoking(rebalances: &mut Rebalances) -> Vec<i32> {
    loop {
        if let Rebalance::Revoking { partitions, .. } = rebalances.next().await.unwrap() {
            return partitions.iter().map(|(_, p)| p.0).collect();
        }
    }
}

async fn revoked(rebalances: &mut Rebalances) -> (Vec<i32>, usize) {
    loop {
        if let Rebalance::Revoked { partitions, unsettled } = rebalances.next().await.unwrap() {
            return (partitions.iter().map(|(_, p)| p.0).collect(), unsettled);
        }
    }
}

/// Counts what a member reads within a time.
async fn read_for(consumer: &mut Consumer, time: Duration) -> Vec<(i32, i64)> {
    let mut seen = Vec::new();
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return seen,
            next = consumer.next() => {
                let delivery = next.unwrap().unwrap();
                seen.push((delivery.partition().0, delivery.offset().0));
                delivery.ack();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_in_time_is_committed_and_does_not_come_again() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        bed.fill(1).await;
        let mut first = bed.builder(protocol).build().await.unwrap();
        let mut rebalances = first.rebalances();
        let held = one_of_each(&mut first).await;
        let mut second = bed.builder(protocol).build().await.unwrap();
        let going = revoking(&mut rebalances).await;
        assert!(!going.is_empty());
        // Ten seconds of work, then all is settled: the partitions go at once.
        tokio::time::sleep(10 * SECOND).await;
        held.into_values().for_each(Delivery::ack);
        let (gone, unsettled) = revoked(&mut rebalances).await;
        assert_eq!((gone.len(), unsettled), (going.len(), 0), "{protocol:?}");
        let again = read_for(&mut second, 30 * SECOND).await;
        assert_eq!(again, [], "{protocol:?}");
        first.close(30 * SECOND).await.unwrap();
        second.close(30 * SECOND).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_settled_in_time_comes_to_the_next_owner_and_a_late_ack_changes_nothing() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        bed.fill(2).await;
        let mut first = bed.builder(protocol).settle_timeout(5 * SECOND).build().await.unwrap();
        let mut rebalances = first.rebalances();
        let held = one_of_each(&mut first).await;
        let mut second = bed.builder(protocol).build().await.unwrap();
        let going = revoking(&mut rebalances).await;
        let began = tokio::time::Instant::now();
        let (gone, unsettled) = revoked(&mut rebalances).await;
        let waited = began.elapsed();
        assert!((5 * SECOND..7 * SECOND).contains(&waited), "{protocol:?}: {waited:?}");
        assert!(unsettled >= going.len(), "{protocol:?}: {unsettled} of {gone:?}");
        held.into_values().for_each(Delivery::ack);
        let mut again = read_for(&mut second, 20 * SECOND).await;
        again.sort_unstable();
        let expected: Vec<(i32, i64)> = gone.iter().flat_map(|p| [(*p, 0), (*p, 1)]).collect();
        let mine: Vec<(i32, i64)> = again.iter().filter(|(p, _)| gone.contains(p)).copied().collect();
        let mut expected = expected;
        expected.sort_unstable();
        assert_eq!(mine, expected, "{protocol:?}: each once more, from the beginning");
        first.close(30 * SECOND).await.unwrap();
        second.close(30 * SECOND).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_partition_that_is_to_go_is_handed_out_any_more() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        bed.fill(50).await;
        let mut first = bed.builder(protocol).build().await.unwrap();
        let mut rebalances = first.rebalances();
        let held = one_of_each(&mut first).await;
        let second = bed.builder(protocol).build().await.unwrap();
        let going = revoking(&mut rebalances).await;
        let read = read_for(&mut first, 3 * SECOND).await;
        assert!(read.iter().all(|(p, _)| !going.contains(p)), "{protocol:?}: {read:?} of {going:?}");
        drop(held);
        first.close(30 * SECOND).await.unwrap();
        second.close(30 * SECOND).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_take_hours_and_its_member_is_not_put_out() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        bed.fill(1).await;
        let mut consumer = bed.builder(protocol).build().await.unwrap();
        let mut rebalances = consumer.rebalances();
        let held = one_of_each(&mut consumer).await;
        tokio::time::sleep(5 * 3600 * SECOND).await;
        held.into_values().for_each(Delivery::ack);
        consumer.close(30 * SECOND).await.unwrap();
        let mut notices = Vec::new();
        while let Some(notice) = rebalances.next().await {
            notices.push(notice);
        }
        assert!(notices.iter().all(|n| matches!(n, Rebalance::Assigned(_))), "{protocol:?}: {notices:?}");
        assert!(bed.committed().await.values().all(|o| o.0 == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_of_one_group_and_a_reader_by_hand_do_not_meet() {
    let bed = Bed::new(Faults::new(1)).await;
    bed.fill(1).await;
    let member = bed.join(GroupProtocol::Auto).await;
    bed.until_acked(PARTITIONS as usize).await;
    let mut simple = bed.client.simple_consumer().group("g").topics(["t"]).build().await.unwrap();
    // The group has a member: whoever commits without being one is refused, and told so.
    bed.fill(1).await;
    simple.next().await.unwrap().unwrap().ack();
    let e = simple.commit().await.unwrap_err();
    assert_eq!(e.kind(), muslin::ErrorKind::Conflict, "{e}");
    member.close().await;
}
