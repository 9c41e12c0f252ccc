//! Members that come and go in good order.

use muslin::embedded::faults::Faults;

use crate::bed::{BOTH, Bed, PARTITIONS};
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
