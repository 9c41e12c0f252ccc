//! What a key costs: claim and complete, in memory and in a file.
//!
//! `cargo bench --bench idempotency`. The file lies in the temporary directory (`TMPDIR`), whose disk is what is measured.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use muslin::Timestamp;
use muslin::idempotency::{Fingerprint, MemoryOptions, MemoryStore, Store};

const LEASE: Duration = Duration::from_secs(30);

async fn once(store: &dyn Store, key: &str, print: Fingerprint, now: i64) {
    let lease = store.claim(key, print, LEASE, Timestamp(now)).await.unwrap().lease().unwrap();
    store.complete(&lease, Bytes::new(), Timestamp(now)).await.unwrap();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory");
    group.throughput(Throughput::Elements(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Retention is short, so that the store stays at about 100,000 keys while new ones come.
    let store = MemoryStore::with_options(MemoryOptions::default().retention(Duration::from_millis(100_000)));
    let mut n = 0_i64;
    group.bench_function("claim_and_complete", |b| {
        b.iter_batched_ref(
            || {
                n += 1;
                let key = format!("events:order-service:{n:032}");
                (Fingerprint::of(key.as_bytes()), key, n)
            },
            |(print, key, now)| runtime.block_on(once(&store, key, *print, *now)),
            BatchSize::SmallInput,
        );
    });
    let print = Fingerprint::of(b"duplicate");
    let duplicate = MemoryStore::new();
    block_on(once(&duplicate, "duplicate", print, 0));
    group.bench_function("duplicate", |b| {
        b.iter(|| runtime.block_on(duplicate.claim("duplicate", print, LEASE, Timestamp(1))).unwrap());
    });
    group.bench_function("runtime_alone", |b| b.iter(|| runtime.block_on(std::future::ready(()))));
    let kilobyte = vec![7; 1024];
    group.bench_function("fingerprint_of_1_kib", |b| b.iter(|| Fingerprint::of(&kilobyte)));
    group.finish();
}

#[cfg(feature = "redb")]
fn redb(c: &mut Criterion) {
    use muslin::idempotency::{RedbOptions, RedbStore};

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (mode, shared) in [("redb", false), ("redb_shared", true)] {
        let mut group = c.benchmark_group(mode);
        group.sample_size(10);
        for callers in [1_u64, 64, 512] {
            let dir = tempfile::tempdir().unwrap();
            let options = RedbOptions::default().shared(shared);
            let store = Arc::new(RedbStore::open_with(dir.path().join("keys"), options).unwrap());
            let mut round = 0;
            group.throughput(Throughput::Elements(callers));
            group.bench_function(format!("claim_and_complete_by_{callers}"), |b| {
                b.iter(|| {
                    round += 1;
                    runtime.block_on(async {
                        let tasks: Vec<_> = (0..callers)
                            .map(|n| {
                                let (store, key) = (Arc::clone(&store), format!("events:{round}:{n}"));
                                tokio::spawn(async move { once(&*store, &key, Fingerprint::NONE, 0).await })
                            })
                            .collect();
                        for task in tasks {
                            task.await.unwrap();
                        }
                    });
                });
            });
        }
        group.finish();
    }
}

#[cfg(feature = "redb")]
criterion_group!(benches, memory, redb);
#[cfg(not(feature = "redb"))]
criterion_group!(benches, memory);
criterion_main!(benches);
