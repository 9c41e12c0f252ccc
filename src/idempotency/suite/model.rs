//! A naive store, and sequences of operations that every store must answer as it does.
//!
//! The model keeps everything that ever happened in a list and searches it for each answer. It knows nothing of the
//! stores' code.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::idempotency::{Claim, Fingerprint, Lease, Store};
use crate::{ErrorKind, Timestamp};

/// One step. Numbers index what exists at that time, modulo how much there is, so that every sequence makes sense.
#[derive(Debug, Clone)]
pub(in crate::idempotency) enum Operation {
    Claim {
        key: u8,
        payload: u8,
        lease_ms: u16,
    },
    Complete {
        lease: u8,
        outcome: u8,
    },
    Release {
        lease: u8,
    },
    Extend {
        lease: u8,
        by_ms: u16,
    },
    Get {
        key: u8,
    },
    Purge {
        back_ms: u16,
    },
    Counts,
    /// The clock moves, also back.
    Clock {
        by_ms: i16,
    },
}

pub(in crate::idempotency) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let one = prop_oneof![
        6 => (0..4u8, 0..8u8, 1..400u16).prop_map(|(key, payload, lease_ms)| {
            // Mostly the same payload, so that other answers than a mismatch are common.
            Operation::Claim { key, payload: u8::from(payload == 0), lease_ms }
        }),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(lease, outcome)| Operation::Complete { lease, outcome }),
        2 => any::<u8>().prop_map(|lease| Operation::Release { lease }),
        2 => (any::<u8>(), 1..400u16).prop_map(|(lease, by_ms)| Operation::Extend { lease, by_ms }),
        1 => (0..4u8).prop_map(|key| Operation::Get { key }),
        1 => (0..900u16).prop_map(|back_ms| Operation::Purge { back_ms }),
        1 => Just(Operation::Counts),
        4 => (-150..300i16).prop_map(|by_ms| Operation::Clock { by_ms }),
    ];
    proptest::collection::vec(one, 1..60)
}

/// How long the stores under test keep a completed key.
pub(in crate::idempotency) const RETENTION: Duration = Duration::from_millis(500);

/// What happened to one claim.
#[derive(Debug)]
struct Tenure {
    key: u8,
    payload: u8,
    token: u64,
    until: i64,
    takeovers: u32,
    end: End,
}

#[derive(Debug, PartialEq)]
enum End {
    Open,
    Completed { at: i64, outcome: u8 },
    Released,
    TakenOver,
    Dropped,
}

/// Runs the operations on a store and on the model, and compares every answer.
pub(in crate::idempotency) async fn replay(store: &dyn Store, operations: &[Operation]) {
    let mut history: Vec<Tenure> = Vec::new();
    let mut leases: Vec<Lease> = Vec::new();
    let mut clock = 1_000_000_i64;
    // What the store has been told.
    let mut latest = 0;
    let retention = RETENTION.as_millis() as i64;
    let name = |key: u8| format!("key-{key}");
    let print = |payload: u8| Fingerprint::of(&[payload]);

    for operation in operations {
        let now = Timestamp(clock);
        match *operation {
            Operation::Claim { key, payload, lease_ms } => {
                latest = latest.max(clock);
                let lease_of = Duration::from_millis(lease_ms.into());
                let got = store.claim(&name(key), print(payload), lease_of, now).await;
                let current = history.iter_mut().find(|t| {
                    t.key == key
                        && match t.end {
                            End::Open => true,
                            End::Completed { at, .. } => latest < at + retention,
                            End::Released | End::TakenOver | End::Dropped => false,
                        }
                });
                let takeovers = match current {
                    Some(t) if t.payload != payload => {
                        assert_eq!(got.unwrap_err().kind(), ErrorKind::PayloadMismatch);
                        continue;
                    }
                    Some(Tenure { end: End::Completed { at, outcome }, .. }) => {
                        let outcome = Bytes::copy_from_slice(&[*outcome]);
                        assert_eq!(got.unwrap(), Claim::Done { outcome, at: Timestamp(*at) });
                        continue;
                    }
                    Some(t) if latest < t.until => {
                        assert_eq!(got.unwrap(), Claim::Held { until: Timestamp(t.until) });
                        continue;
                    }
                    Some(t) => {
                        t.end = End::TakenOver;
                        t.takeovers + 1
                    }
                    None => 0,
                };
                let lease = got.unwrap().lease().expect("the key is free in the model");
                let token = lease.token().get();
                assert!(history.iter().all(|t| t.token < token), "a token is larger than all before");
                let until = latest + i64::from(lease_ms);
                assert_eq!((lease.until().get(), lease.takeovers()), (until, takeovers));
                history.push(Tenure { key, payload, token, until, takeovers, end: End::Open });
                leases.push(lease);
            }
            Operation::Complete { lease, outcome } => {
                let Some(lease) = pick(&leases, lease) else { continue };
                latest = latest.max(clock);
                let got = store.complete(lease, Bytes::copy_from_slice(&[outcome]), now).await;
                let gone = is_replaced(&history, lease.token().get());
                let t = tenure(&mut history, lease);
                match t.end {
                    End::Open => {
                        got.unwrap();
                        t.end = End::Completed { at: latest, outcome };
                    }
                    // Past its retention the store may have dropped it or not, unless somebody claimed it since.
                    End::Completed { at, .. } if at + retention <= latest || gone => {
                        if let Err(e) = got {
                            assert_eq!(e.kind(), ErrorKind::Fenced);
                        }
                    }
                    End::Completed { .. } => got.unwrap(),
                    End::Released | End::TakenOver | End::Dropped => {
                        assert_eq!(got.unwrap_err().kind(), ErrorKind::Fenced);
                    }
                }
            }
            Operation::Release { lease } => {
                let Some(lease) = pick(&leases, lease) else { continue };
                let got = store.release(lease).await;
                let last = last_of(&history, lease);
                let t = tenure(&mut history, lease);
                match t.end {
                    End::Open => {
                        got.unwrap();
                        t.end = End::Released;
                    }
                    // Nothing there, nothing to do: unless another tenure is.
                    _ => {
                        if let Some(present) = last {
                            assert_eq!(got.is_err(), present, "{:?}", t);
                        }
                        if let Err(e) = got {
                            assert_eq!(e.kind(), ErrorKind::Fenced);
                        }
                    }
                }
            }
            Operation::Extend { lease, by_ms } => {
                let Some(lease) = pick(&leases, lease) else { continue };
                latest = latest.max(clock);
                let got = store.extend(lease, Duration::from_millis(by_ms.into()), now).await;
                let t = tenure(&mut history, lease);
                if t.end == End::Open {
                    t.until = t.until.max(latest + i64::from(by_ms));
                    assert_eq!(got.unwrap().until().get(), t.until);
                } else {
                    assert_eq!(got.unwrap_err().kind(), ErrorKind::Fenced);
                }
            }
            Operation::Get { key } => {
                let got = store.get(&name(key)).await.unwrap();
                let live = history.iter().any(|t| {
                    t.key == key
                        && match t.end {
                            End::Open => true,
                            End::Completed { at, .. } => latest < at + retention,
                            End::Released | End::TakenOver | End::Dropped => false,
                        }
                });
                assert!(got.is_some() || !live, "{key} is recorded");
            }
            Operation::Purge { back_ms } => {
                let before = latest - i64::from(back_ms);
                store.purge(Timestamp(before)).await.unwrap();
                for t in &mut history {
                    if matches!(t.end, End::Completed { at, .. } if at < before) {
                        t.end = End::Dropped;
                    }
                }
            }
            Operation::Counts => {
                let counts = store.counts().await.unwrap();
                let open = history.iter().filter(|t| t.end == End::Open).count() as u64;
                let live = history
                    .iter()
                    .filter(|t| matches!(t.end, End::Completed { at, .. } if latest < at + retention))
                    .count() as u64;
                assert_eq!(counts.in_progress, open);
                assert!(counts.completed >= live, "{counts:?} but {live} are within their retention");
            }
            Operation::Clock { by_ms } => clock += i64::from(by_ms),
        }
        // The promise of all: nobody shares a key.
        for key in 0..4 {
            assert!(history.iter().filter(|t| t.key == key && t.end == End::Open).count() <= 1);
        }
    }
}

fn pick(leases: &[Lease], n: u8) -> Option<&Lease> {
    leases.get(usize::from(n) % leases.len().max(1))
}

fn tenure<'a>(history: &'a mut [Tenure], lease: &Lease) -> &'a mut Tenure {
    history.iter_mut().find(|t| t.token == lease.token().get()).expect("every lease has a tenure")
}

/// Whether somebody claimed the key after this tenure.
fn is_replaced(history: &[Tenure], token: u64) -> bool {
    let key = history.iter().find(|t| t.token == token).map(|t| t.key);
    history.iter().any(|t| Some(t.key) == key && t.token > token)
}

/// Whether the key is surely recorded (`Some(true)`), surely not (`Some(false)`), or perhaps, past its retention.
fn last_of(history: &[Tenure], lease: &Lease) -> Option<bool> {
    let key = history.iter().find(|t| t.token == lease.token().get()).map(|t| t.key);
    match history.iter().filter(|t| Some(t.key) == key).max_by_key(|t| t.token).map(|t| &t.end) {
        Some(End::Open) => Some(true),
        Some(End::Released | End::Dropped) => Some(false),
        Some(End::Completed { .. } | End::TakenOver) | None => None,
    }
}
