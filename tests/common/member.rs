//! A member of a group in a task of its own, that counts what it reads.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by a panic")]
#![allow(clippy::disallowed_methods, reason = "tests read clocks and start tasks")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muslin::kafka::{Consumer, Rebalance};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often each record, by partition and offset, was acknowledged.
pub type Acked = Arc<Mutex<BTreeMap<(i32, i64), u32>>>;

/// A member in a task of its own.
pub struct Worker {
    task: JoinHandle<Consumer>,
    stop: tokio::sync::watch::Sender<bool>,
    owned: Arc<Mutex<BTreeSet<i32>>>,
}

impl Worker {
    /// Each record takes so long.
    pub fn start(mut consumer: Consumer, acked: Acked, work: Duration) -> Self {
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let owned = Arc::new(Mutex::new(BTreeSet::new()));
        let mine = Arc::clone(&owned);
        let task = tokio::spawn(async move {
            let mut rebalances = consumer.rebalances();
            loop {
                tokio::select! {
                    biased;
                    _ = stopped.changed() => break,
                    Some(notice) = rebalances.next() => take(&mine, notice),
                    next = consumer.next() => {
                        let delivery = next.expect("a member reads on").expect("no error");
                        if !work.is_zero() {
                            tokio::time::sleep(work).await;
                        }
                        let at = (delivery.partition().0, delivery.offset().0);
                        delivery.ack();
                        *acked.lock().unwrap().entry(at).or_insert(0) += 1;
                    }
                }
            }
            consumer
        });
        Self { task, stop, owned }
    }

    /// What it owns at the moment.
    pub fn owned(&self) -> BTreeSet<i32> {
        self.owned.lock().unwrap().clone()
    }

    /// Stops reading and closes.
    pub async fn close(self) {
        self.stop().await.close(Duration::from_secs(30)).await.unwrap();
    }

    /// Stops reading.
    pub async fn stop(self) -> Consumer {
        self.stop.send(true).unwrap();
        self.task.await.unwrap()
    }
}

fn take(mine: &Mutex<BTreeSet<i32>>, notice: Rebalance) {
    let mut mine = mine.lock().unwrap();
    match notice {
        Rebalance::Assigned(places) => mine.extend(places.iter().map(|(_, p)| p.0)),
        Rebalance::Revoked { partitions, .. } | Rebalance::Lost(partitions) => {
            mine.retain(|p| !partitions.iter().any(|(_, gone)| gone.0 == *p));
        }
        _ => {}
    }
}

/// Waits until the members own all partitions between them, each at most one more than another, each partition once.
pub async fn until_shared(workers: &[&Worker], partitions: usize) {
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let owned: Vec<BTreeSet<i32>> = workers.iter().map(|w| w.owned()).collect();
        let all: BTreeSet<i32> = owned.iter().flatten().copied().collect();
        let sum: usize = owned.iter().map(BTreeSet::len).sum();
        let (least, most) = (owned.iter().map(BTreeSet::len).min(), owned.iter().map(BTreeSet::len).max());
        let even = most.unwrap_or(0) - least.unwrap_or(0) <= 1;
        if all.len() == partitions && sum == all.len() && even {
            return;
        }
        assert!(Instant::now() < deadline, "not shared: {owned:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
