//! Batches, pauses, seeks, and logs that change under a reader.

use std::collections::BTreeSet;
use std::time::Duration;

use muslin::embedded::faults::Faults;
use muslin::kafka::{Batch, Consumer, Record, Reset, StartAt};
use muslin::{ErrorKind, NodeId, Offset, Partition, Topic};

use crate::bed::{BOTH, Bed, PARTITIONS, SECOND, TOPIC};

const ALL: usize = PARTITIONS as usize;

fn topic() -> Topic {
    Topic::new(TOPIC).unwrap()
}

fn offsets(batch: &Batch) -> Vec<i64> {
    batch.records().map(|r| r.unwrap().offset().0).collect()
}

async fn next_batch(consumer: &mut Consumer) -> Batch {
    tokio::time::timeout(60 * SECOND, consumer.batches().next()).await.unwrap().unwrap().unwrap()
}

/// Sends to partition 0, so many records in one batch.
async fn send(bed: &Bed, count: usize) {
    let producer = bed.client.producer().linger(SECOND).build().await.unwrap();
    let mut queued = Vec::new();
    for n in 0..count {
        let record = Record::to(TOPIC).unwrap().partition(Partition(0)).value(n.to_string());
        queued.push(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    for placed in queued {
        placed.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn batches_bring_each_record_once_and_commit_what_is_acknowledged() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        bed.fill(50).await;
        let mut consumer = bed.builder(protocol).build().await.unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < 50 * ALL {
            let batch = next_batch(&mut consumer).await;
            for offset in offsets(&batch) {
                assert!(seen.insert((batch.partition().0, offset)), "{protocol:?}: {offset} came twice");
            }
            assert_eq!(batch.len(), offsets(&batch).len());
            batch.ack();
        }
        consumer.close(30 * SECOND).await.unwrap();
        assert!(bed.committed().await.values().all(|o| o.0 == 50));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_acknowledged_by_range_and_its_rest_comes_again_after_its_delay() {
    let bed = Bed::new(Faults::new(1)).await;
    send(&bed, 10).await;
    let mut consumer = bed.builder(BOTH[1]).build().await.unwrap();
    let mut batch = next_batch(&mut consumer).await;
    assert_eq!((offsets(&batch), batch.attempt()), ((0..10).collect(), 1));
    batch.ack_through(Offset(3));
    assert_eq!((offsets(&batch), batch.len()), ((4..10).collect(), 6));
    batch.ack_through(Offset(1));
    assert_eq!(batch.len(), 6, "what is behind changes nothing");
    consumer.commit().await.unwrap();
    assert_eq!(bed.committed().await[&Partition(0)], Offset(4));
    let began = tokio::time::Instant::now();
    batch.nack(7 * SECOND);
    let mut again = next_batch(&mut consumer).await;
    assert!((7 * SECOND..8 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(
        (offsets(&again), again.attempt(), again.first_offset()),
        ((4..10).collect(), 2, Some(Offset(4)))
    );
    again.ack_through(Offset(99));
    assert!(again.is_empty() && again.first_offset().is_none());
    drop(again);
    // Dropped without a word, it comes again too.
    send(&bed, 2).await;
    drop(next_batch(&mut consumer).await);
    let last = next_batch(&mut consumer).await;
    assert_eq!((offsets(&last), last.attempt()), (vec![10, 11], 2));
    last.ack();
    consumer.close(30 * SECOND).await.unwrap();
    assert_eq!(bed.committed().await[&Partition(0)], Offset(12));
}

#[tokio::test(start_paused = true)]
async fn what_was_done_beyond_the_commit_does_not_come_again_in_batches_either() {
    let bed = Bed::new(Faults::new(1)).await;
    send(&bed, 6).await;
    let mut consumer = bed.builder(BOTH[1]).build().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(consumer.next().await.unwrap().unwrap());
    }
    // 1, 2 and 4 are done; 0 holds up the commit.
    for at in [4, 2, 1] {
        held.remove(at).ack();
    }
    consumer.commit().await.unwrap();
    drop(held);
    consumer.close(30 * SECOND).await.unwrap();
    let mut next = bed.builder(BOTH[1]).build().await.unwrap();
    let batch = next_batch(&mut next).await;
    assert_eq!((offsets(&batch), batch.len()), (vec![0, 3, 5], 3));
    batch.ack();
    next.close(30 * SECOND).await.unwrap();
    assert_eq!(bed.committed().await[&Partition(0)], Offset(6));
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_one_slow_record_comes_again_and_not_the_hundred_thousand_behind_it() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        let count = 100_001;
        send(&bed, count).await;
        let far = bed.client("far").await;
        let mut consumer = crate::bed::member(&far, protocol).build().await.unwrap();
        let slow = consumer.next().await.unwrap().unwrap();
        assert_eq!(slow.offset(), Offset(0));
        for _ in 1..count {
            consumer.next().await.unwrap().unwrap().ack();
        }
        tokio::time::sleep(10 * SECOND).await;
        // Nobody hears of it any more: no last commit, no farewell.
        for broker in ["kafka-1", "kafka-2", "kafka-3"] {
            bed.network.block("far", broker);
        }
        drop((slow, consumer));
        let mut next = bed.builder(protocol).build().await.unwrap();
        let mut again = Vec::new();
        while let Ok(delivery) = tokio::time::timeout(120 * SECOND, next.next()).await {
            let delivery = delivery.unwrap().unwrap();
            again.push(delivery.offset().0);
            delivery.ack();
        }
        assert_eq!(again, [0], "{protocol:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_without_offsets_begins_where_its_policy_says() {
    let bed = Bed::new(Faults::new(1)).await;
    send(&bed, 3).await;
    tokio::time::sleep(3600 * SECOND).await;
    let middle = bed.network.wall();
    tokio::time::sleep(600 * SECOND).await;
    send(&bed, 2).await;
    let cases = [
        (Reset::Earliest, Some(0)),
        (Reset::Timestamp(middle), Some(3)),
        (Reset::Duration(1800 * SECOND), Some(3)),
        (Reset::Duration(5000 * SECOND), Some(0)),
        (Reset::Duration(SECOND / 1000), None),
        (Reset::Latest, None),
    ];
    for (n, (reset, expected)) in cases.into_iter().enumerate() {
        let group = format!("fresh-{n}");
        let mut consumer = bed.client.consumer(group).topics([TOPIC]).reset(reset).build().await.unwrap();
        let next = tokio::time::timeout(30 * SECOND, consumer.next()).await.ok();
        let first = next.map(|next| next.unwrap().unwrap().offset().0);
        assert_eq!(first, expected, "{reset:?}");
        consumer.close(30 * SECOND).await.unwrap();
    }
    let mut consumer =
        bed.client.consumer("fresh").topics([TOPIC]).reset(Reset::Error).build().await.unwrap();
    let e = consumer.next().await.unwrap().unwrap_err();
    assert!(e.kind() == ErrorKind::NotFound && e.to_string().contains("no committed offset"), "{e}");
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_rests_and_the_others_go_on() {
    let bed = Bed::new(Faults::new(1)).await;
    let mut consumer = bed.builder(BOTH[1]).build().await.unwrap();
    let topic = topic();
    tokio::time::sleep(10 * SECOND).await;
    consumer.pause([(&topic, Partition(0))]).unwrap();
    assert_eq!(consumer.paused(), [(topic.clone(), Partition(0))]);
    bed.fill(1).await;
    let mut seen = BTreeSet::new();
    while let Ok(next) = tokio::time::timeout(10 * SECOND, consumer.next()).await {
        let delivery = next.unwrap().unwrap();
        seen.insert(delivery.partition().0);
        delivery.ack();
    }
    assert_eq!(seen, (1..PARTITIONS).collect());
    consumer.resume([(&topic, Partition(0))]).unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();
    assert_eq!(delivery.partition(), Partition(0));
    delivery.ack();
    let e = consumer.pause([(&topic, Partition(99))]).unwrap_err();
    assert!(e.kind() == ErrorKind::NotFound && e.to_string().contains("partition 99"), "{e}");
}

#[tokio::test(start_paused = true)]
async fn after_a_seek_reading_goes_on_there_and_what_was_in_hand_is_stale() {
    let bed = Bed::new(Faults::new(1)).await;
    send(&bed, 10).await;
    let mut consumer = bed.builder(BOTH[1]).build().await.unwrap();
    let held = consumer.next().await.unwrap().unwrap();
    consumer.seek(&topic(), Partition(0), Offset(7)).unwrap();
    held.ack();
    for offset in 7..10 {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.offset(), Offset(offset));
        delivery.ack();
    }
    consumer.commit().await.unwrap();
    assert_eq!(bed.committed().await[&Partition(0)], Offset(10));
    consumer.seek(&topic(), Partition(0), Offset(0)).unwrap();
    assert_eq!(consumer.next().await.unwrap().unwrap().offset(), Offset(0));
    for (partition, offset, kind) in [(0, -1, ErrorKind::Config), (99, 0, ErrorKind::NotFound)] {
        let e = consumer.seek(&topic(), Partition(partition), Offset(offset)).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
}

/// Ten records are read; then the new leader never had the last four, and five others come.
async fn cut_back(reset: Reset) -> (Bed, Consumer) {
    let bed = Bed::new(Faults::new(1)).await;
    send(&bed, 6).await;
    send(&bed, 4).await;
    let simple = bed.client.simple_consumer().partition(TOPIC, Partition(0)).start(StartAt::Earliest);
    let mut consumer = simple.reset(reset).build().await.unwrap();
    for offset in 0..10 {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.offset(), Offset(offset));
        delivery.ack();
    }
    let leader = bed.kafka.leader(TOPIC, Partition(0)).unwrap().unwrap();
    let to = NodeId(leader.0 % 3 + 1);
    bed.kafka.move_leader_losing(TOPIC, Partition(0), to, 4).unwrap();
    send(&bed, 5).await;
    (bed, consumer)
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_cut_back_is_read_again_from_where_it_parted() {
    let (_bed, mut consumer) = cut_back(Reset::Earliest).await;
    let mut again = Vec::new();
    while let Ok(next) = tokio::time::timeout(20 * SECOND, consumer.next()).await {
        let delivery = next.unwrap().unwrap();
        again.push(delivery.offset().0);
        delivery.ack();
    }
    assert_eq!(again, [6, 7, 8, 9, 10], "all that is new is read");
    consumer.close(30 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_cut_back_stops_who_wants_to_be_told() {
    let (_bed, mut consumer) = cut_back(Reset::Error).await;
    let e = consumer.next().await.unwrap().unwrap_err();
    let said = e.to_string();
    assert!(e.kind() == ErrorKind::Conflict && said.contains("cut back to offset 6"), "{e}");
    // It goes on where it is told to.
    consumer.seek(&topic(), Partition(0), Offset(6)).unwrap();
    assert_eq!(consumer.next().await.unwrap().unwrap().offset(), Offset(6));
}

#[tokio::test(start_paused = true)]
async fn the_settings_that_contradict_each_other_are_named() {
    let bed = Bed::new(Faults::new(1)).await;
    let refused = [
        (bed.client.consumer("g"), "nothing to read"),
        (bed.client.consumer("").topics(["t"]), "name is empty"),
        (bed.client.consumer("g").pattern("a("), "\"a(\" does not compile"),
        (bed.client.consumer("g").topics(["t"]).assignors([]), "no assignor"),
        (bed.client.consumer("g").topics(["t"]).session_timeout(SECOND), "heartbeat_interval 3s"),
        (bed.client.consumer("g").topics(["t"]).settle_timeout(90 * SECOND), "settle_timeout 90s"),
        (bed.client.consumer("g").topics(["t"]).instance_id(""), "instance_id is empty"),
        (bed.client.consumer("g").topics(["a b"]), "a b"),
        (
            bed.client.consumer("g").topics(["t"]).rebalance_timeout(Duration::from_secs(1 << 40)),
            "rebalance_timeout",
        ),
    ];
    for (builder, said) in refused {
        let e = builder.build().await.unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.to_string().contains(said), "{said}: {e}");
    }
}
