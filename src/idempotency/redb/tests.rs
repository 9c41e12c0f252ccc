//! What only a store on disk must show: it outlives its process, its errors, and disks that fail.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ::redb::{DatabaseError, StorageBackend};
use proptest::prelude::*;

use super::*;
use crate::idempotency::suite::{self, DAY, Opened};

const LEASE: Duration = Duration::from_secs(1);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn options(retention: Duration, max_outcome: usize) -> RedbOptions {
    RedbOptions::default().retention(retention).max_outcome(max_outcome)
}

fn open(retention: Duration, max_outcome: usize) -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open_with(dir.path().join("keys"), options(retention, max_outcome)).unwrap();
    Opened { store: Arc::new(store), _keep: Some(dir) }
}

fn open_shared(retention: Duration, max_outcome: usize) -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let options = options(retention, max_outcome).shared(true);
    let store = RedbStore::open_with(dir.path().join("keys"), options).unwrap();
    Opened { store: Arc::new(store), _keep: Some(dir) }
}

mod conforms {
    crate::idempotency::suite::conformance!(super::open);
}

mod conforms_shared {
    crate::idempotency::suite::conformance!(super::open_shared);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_sequence_is_answered_as_by_the_model(operations in suite::operations()) {
        let disk = Disk::default();
        let store = disk.open(options(suite::RETENTION, 16)).unwrap();
        block_on(suite::replay(&store, &operations));
    }
}

async fn claim(store: &RedbStore, key: &str, now: i64) -> Result<Claim> {
    store.claim(key, Fingerprint::of(key.as_bytes()), LEASE, Timestamp(now)).await
}

async fn hold(store: &RedbStore, key: &str, now: i64) -> Lease {
    claim(store, key, now).await.unwrap().lease().unwrap()
}

#[test]
fn keys_leases_and_tokens_outlive_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    block_on(async {
        let store = RedbStore::open(&path).unwrap();
        let held = hold(&store, "held", 0).await;
        let done = hold(&store, "done", 0).await;
        store.complete(&done, Bytes::from_static(b"x"), Timestamp(1)).await.unwrap();
        drop(store);

        let store = RedbStore::open(&path).unwrap();
        let expected = Claim::Done { outcome: Bytes::from_static(b"x"), at: Timestamp(1) };
        assert_eq!(claim(&store, "done", 2).await.unwrap(), expected);
        // The claims of the process that is gone hold until their end, and their tokens stay the smaller ones.
        assert_eq!(claim(&store, "held", 999).await.unwrap(), Claim::Held { until: Timestamp(1000) });
        let next = hold(&store, "held", 1000).await;
        assert!(next.token() > held.token() && next.takeovers() == 1);
        let e = store.complete(&held, Bytes::new(), Timestamp(1001)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Fenced);
    });
}

#[test]
fn a_lease_granted_under_a_clock_that_ran_ahead_ends_one_length_after_the_store_is_opened_again() {
    let disk = Disk::default();
    block_on(async {
        let store = disk.open(RedbOptions::default()).unwrap();
        let century = 100 * 365 * 24 * 3_600_000;
        let _lost = hold(&store, "k", century).await;
        drop(store);
        let store = disk.open(RedbOptions::default()).unwrap();
        assert_eq!(claim(&store, "k", 5000).await.unwrap(), Claim::Held { until: Timestamp(6000) });
        assert_eq!(claim(&store, "k", 5500).await.unwrap(), Claim::Held { until: Timestamp(6000) });
        assert_eq!(hold(&store, "k", 6000).await.takeovers(), 1);
    });
}

#[test]
fn two_stores_in_shared_mode_hold_one_key_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    block_on(async {
        let open = || RedbStore::open_with(&path, RedbOptions::default().shared(true)).unwrap();
        let (one, two) = (open(), open());
        let mut last = None;
        for n in 0..20 {
            let (key, (first, second)) =
                (format!("k{n}"), if n % 2 == 0 { (&one, &two) } else { (&two, &one) });
            let now = n * 10;
            let lease = hold(first, &key, now).await;
            assert!(last < Some(lease.token()), "tokens grow across the processes");
            last = Some(lease.token());
            let held = Claim::Held { until: Timestamp(now + 1000) };
            assert_eq!(claim(second, &key, now + 1).await.unwrap(), held);
            first.complete(&lease, Bytes::from_static(b"x"), Timestamp(now + 2)).await.unwrap();
            assert!(matches!(claim(second, &key, now + 3).await.unwrap(), Claim::Done { .. }));
        }
    });
}

fn refused(result: Result<RedbStore>, says: &[&str]) {
    let e = result.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Storage);
    for text in says {
        assert!(e.report().contains(text), "{} misses {text:?}", e.report());
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);

    let missing = at("no/such/keys");
    refused(RedbStore::open(&missing), &[missing.to_str().unwrap(), "directory does not exist: create it"]);
    refused(RedbStore::open(dir.path()), &[dir.path().to_str().unwrap(), "it is a directory"]);

    std::fs::write(at("text"), "these are no keys at all. ".repeat(1000)).unwrap();
    refused(RedbStore::open(at("text")), &["text", "it is not a key store"]);
    refused(RedbStore::open(at("text/keys")), &["text/keys", "a part of its path is a file"]);

    let kept = RedbStore::open(at("taken")).unwrap();
    refused(RedbStore::open(at("taken")), &["taken", "open already", "RedbOptions::shared"]);
    drop(kept);
    drop(RedbStore::open(at("taken")).unwrap());

    let other = ::redb::Database::create(at("other")).unwrap();
    let txn = other.begin_write().unwrap();
    drop(txn.open_table(::redb::TableDefinition::<u64, u64>::new("accounts")).unwrap());
    txn.commit().unwrap();
    drop(other);
    refused(RedbStore::open(at("other")), &["other", "another program", "accounts"]);

    drop(RedbStore::open(at("newer")).unwrap());
    let newer = ::redb::Database::open(at("newer")).unwrap();
    let txn = newer.begin_write().unwrap();
    txn.open_table(table::META).unwrap().insert("schema", 7).unwrap();
    txn.commit().unwrap();
    drop(newer);
    refused(RedbStore::open(at("newer")), &["newer", "schema version 7", "version 1"]);
}

#[test]
fn damage_anywhere_in_the_file_is_an_error_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    block_on(async {
        let store = RedbStore::open(&path).unwrap();
        for n in 0..50 {
            let lease = hold(&store, &format!("key-{n}"), n).await;
            store.complete(&lease, Bytes::from(vec![n as u8; 500]), Timestamp(n)).await.unwrap();
        }
    });
    let good = std::fs::read(&path).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap();
    let mut errors = 0;
    for step in 0..48 {
        let mut bad = good.clone();
        let place = used * step / 48;
        for byte in bad.iter_mut().skip(place).take(16) {
            *byte ^= 0x5a;
        }
        std::fs::write(&path, &bad).unwrap();
        match RedbStore::open(&path) {
            Err(e) => {
                assert!(e.kind() == ErrorKind::Storage && e.message().contains("keys"), "{e}");
                errors += 1;
            }
            // What is served must be what was written.
            Ok(store) => block_on(async {
                for n in 0..50 {
                    match claim(&store, &format!("key-{n}"), 60).await {
                        Ok(Claim::Done { outcome, .. }) => assert_eq!(outcome, vec![n as u8; 500]),
                        Ok(other) => panic!("damage at {place} lost key-{n}: {other:?}"),
                        Err(e) => assert_eq!(e.kind(), ErrorKind::Storage),
                    }
                }
            }),
        }
    }
    assert!(errors > 0, "some of the damage hits what is in use");
    std::fs::write(&path, &good[..good.len() / 3]).unwrap();
    refused(RedbStore::open(&path), &["keys"]);
}

/// A disk in memory that several databases after one another use, and that fails when told to.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Platter>);

#[derive(Debug, Default)]
struct Platter {
    bytes: Mutex<Vec<u8>>,
    /// Writes, changes of length and flushes so far.
    calls: AtomicU64,
    /// From which of them on to fail, and how many; none while the second is 0.
    fail_at: AtomicU64,
    fail_for: AtomicU64,
    /// Whether to fail as a broken disk does, rather than as a full one.
    broken: AtomicBool,
}

impl Disk {
    fn open(&self, options: RedbOptions) -> Result<RedbStore> {
        let disk = self.clone();
        let setup = options.clone();
        let opener: Opener = Box::new(move || -> Result<_, DatabaseError> {
            open::builder(&setup).create_with_backend(disk.clone())
        });
        RedbStore::start("the key store DISK".to_owned(), opener, options, Duration::ZERO)
    }

    fn fail(&self, from: u64, calls: u64) {
        self.0.fail_at.store(self.0.calls.load(Ordering::SeqCst) + from, Ordering::SeqCst);
        self.0.fail_for.store(calls, Ordering::SeqCst);
    }

    fn call(&self) -> io::Result<()> {
        let n = self.0.calls.fetch_add(1, Ordering::SeqCst);
        let from = self.0.fail_at.load(Ordering::SeqCst);
        let length = self.0.fail_for.load(Ordering::SeqCst);
        if n < from || n - from >= length {
            return Ok(());
        }
        Err(if self.0.broken.load(Ordering::SeqCst) {
            io::Error::other("the disk is broken")
        } else {
            io::Error::from(io::ErrorKind::StorageFull)
        })
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes();
        let start = offset as usize;
        let from = bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call()?;
        self.bytes().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.call()?;
        let start = offset as usize;
        self.bytes()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// What callers were told about one key.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    claimed: bool,
    completed: bool,
}

/// Claims and completes twelve keys one after another, whatever fails.
async fn work(store: &RedbStore) -> (Vec<Told>, Vec<Error>) {
    let (mut told, mut errors) = (Vec::new(), Vec::new());
    for n in 0..12 {
        let mut one = Told::default();
        match claim(store, &format!("k{n}"), 0).await {
            Ok(claim) => {
                one.claimed = true;
                let lease = claim.lease().unwrap();
                match store.complete(&lease, Bytes::from(vec![n; 4000]), Timestamp(1)).await {
                    Ok(()) => one.completed = true,
                    Err(e) => errors.push(e),
                }
            }
            Err(e) => errors.push(e),
        }
        told.push(one);
    }
    (told, errors)
}

async fn check(store: &RedbStore, told: &[Told], when: &str) {
    for (n, told) in told.iter().enumerate() {
        let state = store.get(&format!("k{n}")).await.unwrap();
        match state {
            Some(State::Done { outcome, .. }) => assert_eq!(outcome, vec![n as u8; 4000], "k{n} {when}"),
            Some(State::InProgress { .. }) => assert!(!told.completed, "k{n} {when}: a completion is lost"),
            None => assert!(!told.claimed, "k{n} {when}: a claim is lost"),
        }
    }
}

/// Runs the workload with the disk failing at each of its calls in turn.
fn at_every_call(broken: bool, calls: u64, check_one: impl Fn(u64, &Disk, &RedbStore, &[Told], &[Error])) {
    for from in 0.. {
        let disk = Disk::default();
        disk.0.broken.store(broken, Ordering::SeqCst);
        let store = disk.open(RedbOptions::default()).unwrap();
        disk.fail(from, calls);
        let (told, errors) = block_on(work(&store));
        for e in &errors {
            assert!(e.kind() == ErrorKind::Storage && e.message().contains("DISK"), "{e}");
        }
        if errors.is_empty() {
            assert!(from > 20, "the workload was too small to fail");
            return;
        }
        check_one(from, &disk, &store, &told, &errors);
        drop(store);
        disk.fail(0, 0);
        let store = disk.open(RedbOptions::default()).unwrap();
        block_on(check(&store, &told, &format!("after failing at call {from}")));
    }
}

#[test]
fn a_disk_that_is_full_for_a_moment_loses_nothing_and_the_store_goes_on() {
    at_every_call(false, 1, |from, _, store, told, errors| {
        assert!(errors[0].message().contains("disk is full") && errors[0].is_retryable(), "{:?}", errors[0]);
        block_on(async {
            check(store, told, &format!("in the same store, failing at call {from}")).await;
            // The same calls again: all is done in the end.
            let (again, errors) = work_again(store).await;
            assert!(errors.is_empty() && again == 12, "{errors:?}");
        });
    });
}

/// Brings every key to its end after failures: leases that nobody knows of have run out.
async fn work_again(store: &RedbStore) -> (usize, Vec<Error>) {
    let (mut done, mut errors) = (0, Vec::new());
    for n in 0..12_u8 {
        let result = async {
            match claim(store, &format!("k{n}"), 2000).await? {
                Claim::Claimed(lease) => {
                    store.complete(&lease, Bytes::from(vec![n; 4000]), Timestamp(2000)).await
                }
                Claim::Done { .. } => Ok(()),
                Claim::Held { until } => panic!("k{n} is held until {until}"),
            }
        };
        match result.await {
            Ok(()) => done += 1,
            Err(e) => errors.push(e),
        }
    }
    (done, errors)
}

#[test]
fn a_disk_that_stays_full_refuses_until_there_is_room() {
    at_every_call(false, u64::MAX / 4, |from, disk, store, told, errors| {
        assert!(errors.iter().all(|e| e.message().contains("disk is full")), "{errors:?}");
        // Once it is full nothing is answered Ok any more.
        let first = told.iter().position(|t| !t.completed).unwrap();
        assert!(told.iter().skip(first + 1).all(|t| !t.claimed), "{told:?}");
        disk.fail(0, 0);
        block_on(async {
            check(store, told, &format!("when there is room again, full since call {from}")).await;
            let (again, errors) = work_again(store).await;
            assert!(errors.is_empty() && again == 12, "{errors:?}");
        });
    });
}

#[test]
fn after_a_broken_write_the_store_refuses_until_it_is_opened_again() {
    at_every_call(true, 1, |_, _, store, told, errors| {
        assert!(errors[0].report().contains("the disk is broken"), "{:?}", errors[0]);
        let first = told.iter().position(|t| !t.completed).unwrap();
        assert!(told.iter().skip(first + 1).all(|t| !t.claimed), "{told:?}");
        let e = block_on(claim(store, "more", 0)).unwrap_err();
        assert!(
            e.message().contains("until it is opened again") && !e.is_ambiguous() && !e.is_retryable(),
            "{e}"
        );
    });
}

#[test]
fn a_disk_without_room_for_a_new_store_is_told() {
    for from in 0.. {
        let disk = Disk::default();
        disk.fail(from, u64::MAX / 4);
        match disk.open(RedbOptions::default()) {
            Err(e) => {
                assert!(e.kind() == ErrorKind::Storage && e.message().contains("disk is full"), "{e:?}")
            }
            Ok(_) => return assert!(from > 3),
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_without_room_is_a_clear_error() {
    // Neither a file nor a disk: whatever the system says, the path is named and nothing hangs.
    refused(RedbStore::open("/dev/full"), &["/dev/full"]);
}

#[test]
fn a_few_waiting_places_serve_many_callers() {
    let disk = Disk::default();
    let store = Arc::new(disk.open(RedbOptions::default().max_waiting(2)).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..300)
            .map(|n| {
                let store = Arc::clone(&store);
                runtime.spawn(async move {
                    let lease = hold(&store, &format!("k{n}"), 0).await;
                    store.complete(&lease, Bytes::new(), Timestamp(1)).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(store.counts().await.unwrap(), Counts { in_progress: 0, completed: 300 });
    });
}

#[test]
fn requests_in_hand_are_written_when_the_store_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let store = RedbStore::open(&path).unwrap();
    let mut call = Box::pin(claim(&store, "k", 0));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    drop(call);
    drop(store);
    let store = RedbStore::open_with(&path, options(DAY, 16)).unwrap();
    assert_eq!(block_on(store.counts()).unwrap(), Counts { in_progress: 1, completed: 0 });
}
