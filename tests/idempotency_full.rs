//! A durable key store whose file may not grow further: a real file under the shell's limit of file sizes, which the
//! system reports as it reports a full disk, in the middle of a write. The test runs itself as a child process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "tests wait and kill")]
#![cfg(all(feature = "redb", unix))]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use muslin::idempotency::{Claim, Fingerprint, RedbStore, State, Store};
use muslin::{ErrorKind, Result, Timestamp};

const KEYS: usize = 400;

fn outcome(n: usize) -> Bytes {
    Bytes::from(vec![n as u8; 4000])
}

async fn once(store: &RedbStore, n: usize) -> Result<()> {
    let key = format!("k{n}");
    let print = Fingerprint::of(key.as_bytes());
    match store.claim(&key, print, Duration::from_secs(1), Timestamp(0)).await? {
        Claim::Claimed(lease) => store.complete(&lease, outcome(n), Timestamp(0)).await,
        Claim::Done { .. } | Claim::Held { .. } => panic!("{key} was claimed before"),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn child() {
    // Does its work only as the child of the test below.
    let Ok(path) = std::env::var("MUSLIN_TEST_FULL") else { return };
    let store = match RedbStore::open(&path) {
        Ok(store) => store,
        Err(e) => {
            assert!(e.kind() == ErrorKind::Storage && e.message().contains(&path), "{e}");
            println!("refused {}", e.report());
            return;
        }
    };
    block_on(async {
        let mut refused = 0;
        for n in 0..KEYS {
            if refused == 10 {
                return;
            }
            match once(&store, n).await {
                Ok(()) => println!("done {n}"),
                Err(e) => {
                    assert!(e.kind() == ErrorKind::Storage && e.message().contains(&path), "{e}");
                    println!("refused {}", e.report());
                    refused += 1;
                }
            }
        }
    });
}

fn run(path: &Path, blocks: usize) -> (Vec<usize>, Vec<String>) {
    let output = Command::new("sh")
        // Ignored, the signal lets the write fail with EFBIG instead of ending the process. Blocks of 512 bytes.
        .arg("-c")
        .arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" --exact child --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env("MUSLIN_TEST_FULL", path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let done =
        text.lines().filter_map(|line| line.strip_prefix("done ")).map(|n| n.parse().unwrap()).collect();
    let refused = text.lines().filter_map(|line| line.strip_prefix("refused ")).map(str::to_owned).collect();
    (done, refused)
}

#[test]
fn a_file_that_may_not_grow_further_is_told_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut made, mut unmade) = (0, 0);
    for blocks in [0, 8, 64, 512, 1024, 2048, 2600] {
        let path = dir.path().join(format!("keys-{blocks}"));
        let (done, refused) = run(&path, blocks);
        assert!(!refused.is_empty(), "{blocks} blocks were room enough");
        assert!(refused[0].contains("the file may not grow further"), "{}", refused[0]);
        // With room again the file opens and holds all that was acknowledged.
        let store = RedbStore::open(&path).unwrap();
        block_on(async {
            for &n in &done {
                match store.get(&format!("k{n}")).await.unwrap() {
                    Some(State::Done { outcome: found, .. }) => assert_eq!(found, outcome(n)),
                    other => panic!("k{n} was acknowledged with {blocks} blocks: {other:?}"),
                }
            }
            once(&store, KEYS).await.unwrap();
        });
        if done.is_empty() { unmade += 1 } else { made += 1 }
    }
    assert!(made > 0 && unmade > 0, "both a store that could not be made and one that filled up were seen");
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".new"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
