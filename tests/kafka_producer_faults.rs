//! Three real brokers that are killed, frozen and restarted under load: every record that was acknowledged is there once, where it
//! was said to be, and each key keeps its order.
//!
//! The test starts and ends its own cluster (`scripts/brokers.sh`). `MUSLIN_RECORDS` is the number of records of all drills together,
//! 100,000 where it is not set; `scripts/soak-producer.sh` runs the million.
#![cfg(feature = "kafka")]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test waits, fails by a panic, and tells counts to the reader of the log"
)]
#[path = "common/cluster.rs"]
mod cluster;
mod common;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use cluster::{Cluster, Load, PATIENCE, REQUEST_TIMEOUT};
use muslin::kafka::{At, Client, Queued, Record};
use muslin::{NodeId, Partition, Topic};
use tokio::sync::mpsc;

const PARTITIONS: i32 = 6;
const KEYS: u32 = 1009;

fn key(n: u32) -> String {
    format!("key-{}", n % KEYS)
}

/// Sends the records at the drill's pace; what became of each is told in `outcomes`.
async fn send(client: Client, topic: Topic, load: Arc<Load>, outcomes: mpsc::UnboundedSender<(u32, Queued)>) {
    let producer = client.producer().delivery_timeout(PATIENCE).max_block(PATIENCE).build().await.unwrap();
    for n in 0..load.total {
        load.pace().await;
        if n + 1 == load.total {
            load.until_over().await;
        }
        let value = format!("{n} {n:080}");
        let record = Record::to_topic(topic.clone()).key(key(n)).value(value);
        let queued = producer.enqueue(record).await.unwrap_or_else(|e| panic!("record {n}: {}", e.report()));
        outcomes.send((n, queued)).unwrap();
        load.count();
    }
    producer.close(PATIENCE).await.unwrap();
}

/// Runs a drill under load, then compares what was acknowledged with what is there.
async fn run<F: Future<Output = ()>>(
    cluster: &Cluster,
    name: &str,
    total: u32,
    steps: u32,
    drill: impl FnOnce(Topic, Arc<Load>) -> F,
) {
    let begin = Instant::now();
    let client = cluster.client().await;
    let topic = Topic::new(common::unique(name)).unwrap();
    client.create_topic(&topic, PARTITIONS, 3).await.unwrap();
    cluster.in_sync(&topic).await;
    let load = Load::new(total, steps);
    let (tell, mut told) = mpsc::unbounded_channel::<(u32, Queued)>();
    let sending = tokio::spawn(send(client.clone(), topic.clone(), Arc::clone(&load), tell));
    let collecting = tokio::spawn(async move {
        let mut placed = Vec::new();
        while let Some((n, queued)) = told.recv().await {
            let at = queued.await.unwrap_or_else(|e| panic!("record {n}: {}", e.report()));
            assert_eq!(placed.len(), n as usize);
            placed.push((at.partition, at.offset.get()));
        }
        placed
    });
    drill(topic.clone(), Arc::clone(&load)).await;
    load.finish();
    sending.await.unwrap();
    let placed = collecting.await.unwrap();
    let sent = begin.elapsed();
    cluster.in_sync(&topic).await;
    let unknown = compare(&cluster.client().await, &topic, &placed).await;
    println!(
        "{name}: {total} records acknowledged in {:.0} s, each read back once and in its key's order in {:.0} s; \
         {unknown} acknowledged as duplicates without an offset",
        sent.as_secs_f64(),
        (begin.elapsed() - sent).as_secs_f64()
    );
}

/// Every record once, at its place, in its key's order, and nothing else. How many were acknowledged without an offset.
async fn compare(client: &Client, topic: &Topic, placed: &[(Partition, i64)]) -> usize {
    let ends = client.offsets(topic, At::Latest).await.unwrap();
    let stored: i64 = ends.values().map(|o| o.get()).sum();
    assert_eq!(stored, placed.len() as i64, "records in the log");
    let mut consumer = client.simple_consumer().topics([topic.as_str()]).build().await.unwrap();
    let mut found = vec![false; placed.len()];
    let mut last = vec![None::<u32>; KEYS as usize];
    let mut unknown = 0;
    for seen in 0..placed.len() {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
        let d = next.unwrap_or_else(|_| panic!("only {seen} records are read")).unwrap().unwrap();
        let value = std::str::from_utf8(d.value().unwrap()).unwrap();
        let n: u32 = value.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(value, format!("{n} {n:080}"));
        assert_eq!(d.key(), Some(key(n).as_bytes()), "record {n}");
        assert!(!std::mem::replace(&mut found[n as usize], true), "record {n} is there twice");
        let (partition, offset) = placed[n as usize];
        assert_eq!(d.partition(), partition, "record {n}");
        if offset < 0 {
            unknown += 1;
        } else {
            assert_eq!(d.offset().get(), offset, "record {n} in partition {partition}");
        }
        let before = last[(n % KEYS) as usize].replace(n);
        assert!(before.is_none_or(|before| before < n), "record {n} stands behind {before:?} of its key");
        d.ack();
    }
    unknown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_frozen_and_restarted_brokers_cost_no_record_and_double_none() {
    let total = cluster::setting("MUSLIN_RECORDS", 100_000);
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let cluster = &cluster;
    let share = total / 3;

    run(cluster, "leader-killed", share, 4, async |topic, load| {
        for _ in 0..2 {
            load.next_step().await;
            let (leader, _) = cluster.look(&topic).await.expect("no leader");
            cluster.node(leader, "kill").await;
            cluster.led_by_another(&topic, leader).await;
            load.next_step().await;
            cluster.node(leader, "start").await;
            cluster.in_sync(&topic).await;
        }
    })
    .await;

    run(cluster, "leader-frozen", share, 4, async |topic, load| {
        for _ in 0..2 {
            load.next_step().await;
            let (leader, _) = cluster.look(&topic).await.expect("no leader");
            cluster.node(leader, "freeze").await;
            cluster.led_by_another(&topic, leader).await;
            load.next_step().await;
            // It wakes with requests before it that were given up and sent elsewhere.
            tokio::time::sleep(2 * REQUEST_TIMEOUT).await;
            cluster.node(leader, "thaw").await;
            cluster.in_sync(&topic).await;
        }
    })
    .await;

    run(cluster, "rolling-restart", total - 2 * share, 6, async |topic, load| {
        for node in [1, 2, 3].map(NodeId) {
            load.next_step().await;
            cluster.node(node, "stop").await;
            load.next_step().await;
            cluster.node(node, "start").await;
            cluster.in_sync(&topic).await;
        }
    })
    .await;
}
