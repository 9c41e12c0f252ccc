//! Members that come and go in good order.

use muslin::embedded::faults::Faults;
use muslin::kafka::{Assignor, GroupProtocol};
use tokio::time::Instant;

use crate::bed::{BOTH, Bed, PARTITIONS, SECOND};
use crate::member::until_shared;

const ALL: usize = PARTITIONS as usize;

#[tokio::test(start_paused = true)]
async fn members_share_the_partitions_and_read_each_record_once() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        bed.fill(20).await;
        let first = bed.join(protocol).await;
        bed.until_acked(20 * ALL).await;
        let second = bed.join(protocol).await;
        let third = bed.join(protocol).await;
        until_shared(&[&first, &second, &third], ALL).await;
        bed.fill(20).await;
        bed.until_acked(40 * ALL).await;
        second.close().await;
        until_shared(&[&first, &third], ALL).await;
        bed.fill(20).await;
        bed.until_acked(60 * ALL).await;
        first.close().await;
        third.close().await;
        assert_eq!(bed.repeated(), 0, "{protocol:?}: in good order nothing comes twice");
        let committed = bed.committed().await;
        assert!(
            committed.len() == 12 && committed.values().all(|o| o.0 == 60),
            "{protocol:?}: {committed:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_closes_while_the_group_waits_for_others_leaves_at_once() {
    let bed = Bed::new(Faults::new(1)).await;
    bed.fill(1).await;
    let builder = || bed.builder(GroupProtocol::Classic).assignors([Assignor::Range]);
    let mut first = builder().build().await.unwrap();
    // In hand and not settled: the rebalance waits for it.
    let held = first.next().await.unwrap().unwrap();
    let second = builder().build().await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    let began = Instant::now();
    second.close(30 * SECOND).await.unwrap();
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    held.ack();
    first.close(30 * SECOND).await.unwrap();
}
