//! The ack tracker with 1,000,000 outstanding, against a naive one over a `BTreeMap`, in the same run.
//!
//! `cargo bench --no-default-features --bench ack_tracker`. Each measurement is one acknowledgement together with the
//! watermark read after it; `receive` and `export` are measured apart.
#![allow(missing_docs, reason = "criterion's macros make items without")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use muslin::delivery::{AckTracker, Assignment, Limits, Outcome, Receipt, Received};
use muslin::{DeliveryTag, Offset};

const COUNT: usize = 1_000_000;
const FIRST: Assignment = Assignment(1);

/// What one writes first: settled or not by offset, and the settled ones at the front taken off.
#[derive(Default, Clone)]
struct Naive {
    settled: BTreeMap<i64, bool>,
    next: i64,
}

impl Naive {
    fn receive(&mut self, offset: i64) {
        self.settled.insert(offset, false);
        self.next = offset + 1;
    }

    fn ack(&mut self, offset: i64) {
        if let Some(settled) = self.settled.get_mut(&offset) {
            *settled = true;
        }
        while let Some(entry) = self.settled.first_entry().filter(|entry| *entry.get()) {
            entry.remove();
        }
    }

    fn watermark(&self) -> i64 {
        self.settled.first_key_value().map_or(self.next, |(offset, _)| *offset)
    }
}

fn limits() -> Limits {
    Limits::default().max_outstanding(COUNT).max_bytes(u64::MAX)
}

/// Every third offset is missing, as with transaction markers.
fn offset(n: usize) -> i64 {
    (n + n / 2) as i64
}

fn tracker() -> (AckTracker<Offset>, Vec<Receipt<Offset>>) {
    let mut tracker = AckTracker::for_offsets(FIRST, Offset(0), limits());
    let receipts = (0..COUNT)
        .filter_map(|n| match tracker.receive(Offset(offset(n)), 100) {
            Received::Fresh(receipt) => Some(receipt),
            _ => None,
        })
        .collect();
    (tracker, receipts)
}

fn naive() -> Naive {
    let mut naive = Naive::default();
    (0..COUNT).for_each(|n| naive.receive(offset(n)));
    naive
}

/// The numbers up to `COUNT` in the named order; the random one is the same in every run.
fn order(name: &str) -> Vec<usize> {
    let mut order: Vec<usize> = (0..COUNT).collect();
    match name {
        "in_reverse" => order.reverse(),
        "at_random" => {
            let mut state = 0x2545_F491_4F6C_DD1Du64;
            for at in (1..COUNT).rev() {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                order.swap(at, (state % (at as u64 + 1)) as usize);
            }
        }
        _ => {}
    }
    order
}

fn acks(c: &mut Criterion) {
    for name in ["in_order", "in_reverse", "at_random"] {
        let mut group = c.benchmark_group(format!("ack/{name}"));
        group.sample_size(10).throughput(Throughput::Elements(COUNT as u64));
        let order = order(name);
        group.bench_function("tracker", |b| {
            b.iter_batched(
                || {
                    let (tracker, receipts) = tracker();
                    let receipts: Vec<_> = order.iter().filter_map(|&n| receipts.get(n).copied()).collect();
                    (tracker, receipts)
                },
                |(mut tracker, receipts)| {
                    for receipt in &receipts {
                        assert_eq!(tracker.ack(*receipt), Outcome::Done);
                        black_box(tracker.watermark());
                    }
                    assert!(tracker.is_idle());
                    (tracker, receipts)
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function("naive", |b| {
            b.iter_batched(
                || (naive(), order.iter().map(|&n| offset(n)).collect::<Vec<_>>()),
                |(mut naive, offsets)| {
                    for &offset in &offsets {
                        naive.ack(offset);
                        black_box(naive.watermark());
                    }
                    assert!(naive.settled.is_empty());
                    (naive, offsets)
                },
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

fn receives(c: &mut Criterion) {
    let mut group = c.benchmark_group("receive");
    group.sample_size(10).throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("tracker", |b| {
        b.iter_batched(
            || AckTracker::for_offsets(FIRST, Offset(0), limits()),
            |mut tracker| {
                for n in 0..COUNT {
                    let _ = black_box(tracker.receive(Offset(offset(n)), 100));
                }
                tracker
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("naive", |b| b.iter_with_large_drop(naive));
    group.finish();
}

/// One acknowledgement and the frame for it: every second one held up, as with a slow worker.
fn tags(c: &mut Criterion) {
    let mut group = c.benchmark_group("tags");
    group.sample_size(10).throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("ack_and_poll", |b| {
        b.iter_batched(
            || {
                let mut tracker = AckTracker::for_tags(FIRST, limits());
                let receipts: Vec<_> = (1..=COUNT as u64)
                    .filter_map(|tag| match tracker.receive(DeliveryTag(tag), 100) {
                        Received::Fresh(receipt) => Some(receipt),
                        _ => None,
                    })
                    .collect();
                (tracker, receipts)
            },
            |(mut tracker, receipts)| {
                for pair in receipts.chunks(2) {
                    for receipt in pair.iter().rev() {
                        assert_eq!(tracker.ack(*receipt), Outcome::Done);
                        while let Some(ack) = tracker.poll_ack() {
                            black_box(ack);
                        }
                    }
                }
                (tracker, receipts)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// A commit with metadata while the oldest is unsettled and a random half of the first few is done.
fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    for first in [1_000, 10_000, COUNT] {
        let (mut tracker, receipts) = tracker();
        for &n in order("at_random").iter().filter(|&&n| n > 0 && n < first).take(first / 2) {
            if let Some(receipt) = receipts.get(n) {
                let _ = tracker.ack(*receipt);
            }
        }
        group.bench_function(format!("half_of_{first}_done"), |b| b.iter(|| tracker.poll_commit()));
    }
    group.finish();
}

criterion_group!(benches, acks, receives, tags, commits);
criterion_main!(benches);
