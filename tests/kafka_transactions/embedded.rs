//! The scenes on embedded brokers in both protocols, and faults in each request of a transaction.

use std::time::Duration;

use muslin::embedded::Kafka;
use muslin::embedded::faults::{Action, Rule};
use muslin::kafka::{Client, GroupMetadata, Isolation, Record, TransactionEnd};
use muslin::{ErrorKind, Offset, Partition, Topic};

use crate::scenes;

/// Levels of `transaction.version`, one for each protocol.
const LEVELS: [i16; 2] = [1, 2];
const REQUESTS: [&str; 6] =
    ["InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn", "Produce"];

struct Ground {
    kafka: Kafka,
    client: Client,
    topic: Topic,
}

async fn ground(level: i16) -> Ground {
    let kafka = Kafka::builder().brokers(3).topic("t", scenes::PARTITIONS).transaction_version(level);
    let kafka = kafka.start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).request_timeout(Duration::from_secs(3));
    Ground { client: client.connect().await.unwrap(), kafka, topic: Topic::new("t").unwrap() }
}

#[tokio::test]
async fn committed_is_read_and_aborted_is_not() {
    for level in LEVELS {
        let Ground { client, topic, kafka: _kafka } = ground(level).await;
        scenes::committed_is_read_and_aborted_is_not(&client, &topic, "x").await;
    }
}

#[tokio::test]
async fn offsets_count_with_their_transaction() {
    for level in LEVELS {
        let Ground { client, topic, kafka: _kafka } = ground(level).await;
        scenes::offsets_count_with_their_transaction(&client, &topic, "x", "g").await;
    }
}

#[tokio::test]
async fn the_newer_producer_fences_the_older() {
    for level in LEVELS {
        let Ground { client, topic, kafka: _kafka } = ground(level).await;
        scenes::the_newer_producer_fences_the_older(&client, &topic, "x").await;
    }
}

#[tokio::test]
async fn a_transaction_that_is_open_too_long_is_aborted() {
    for level in LEVELS {
        let Ground { client, topic, kafka } = ground(level).await;
        let pass = || async { kafka.advance(Duration::from_secs(20)) };
        scenes::a_transaction_that_is_open_too_long_is_aborted(&client, &topic, "x", pass).await;
    }
}

#[tokio::test]
async fn dropping_aborts() {
    for level in LEVELS {
        let Ground { client, topic, kafka: _kafka } = ground(level).await;
        scenes::dropping_aborts(&client, &topic, "x").await;
    }
}

/// The coordinator moves, connections break, answers are lost or say less than was done: in each request of a
/// transaction, and every transaction is committed all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_of_a_coordinator_changes_what_is_committed() {
    let faults = [
        Action::MoveCoordinator(None),
        Action::DropRequest,
        Action::DropAnswer,
        Action::Error(14),
        Action::Error(16),
        Action::ErrorAfter(15),
        Action::ErrorAfter(16),
    ];
    for level in LEVELS {
        for request in REQUESTS {
            for action in &faults {
                if request == "Produce" && !matches!(action, Action::DropRequest | Action::DropAnswer) {
                    continue;
                }
                let what = format!("level {level}, {request}, {action:?}");
                let Ground { kafka, client, topic } = ground(level).await;
                let rule = Rule::new(request, action.clone()).unwrap().every(2);
                kafka.faults(|faults| faults.add(rule)).unwrap();
                let mut producer = scenes::producer(&client, "x").await;
                for n in 0..4 {
                    let transaction =
                        producer.begin().await.unwrap_or_else(|e| panic!("{what}: {}", e.report()));
                    let record = Record::to_topic(topic.clone()).partition(n % 2).value(n.to_string());
                    drop(transaction.enqueue(record).await.unwrap());
                    let offsets = [((topic.clone(), Partition(0)), Offset(i64::from(n)))];
                    let group = GroupMetadata::new(format!("g{n}"));
                    let sent = transaction.send_offsets(&group, offsets).await;
                    sent.unwrap_or_else(|e| panic!("{what}: {}", e.report()));
                    if n == 2 {
                        transaction.abort().await.unwrap_or_else(|e| panic!("{what}: {}", e.report()));
                    } else {
                        transaction.commit().await.unwrap_or_else(|e| panic!("{what}: {}", e.report()));
                    }
                }
                kafka.faults(|faults| faults.clear());
                assert_eq!(
                    scenes::read(&client, &topic, Isolation::ReadCommitted).await,
                    ["0", "1", "3"],
                    "{what}"
                );
                for n in 0..4 {
                    let committed = client.committed(&format!("g{n}"), &topic).await.unwrap();
                    let expected = (n != 2).then_some(Offset(n));
                    assert_eq!(committed.get(&Partition(0)).copied(), expected, "{what}");
                }
            }
        }
    }
}

/// A commit that nobody waited for: the next transaction tells what became of it.
#[tokio::test]
async fn the_next_transaction_tells_the_end_of_the_one_before() {
    for level in LEVELS {
        let Ground { kafka: _kafka, client, topic } = ground(level).await;
        let mut producer = scenes::producer(&client, "x").await;
        for commit in [true, false, true] {
            let transaction = producer.begin().await.unwrap();
            transaction.send(Record::to_topic(topic.clone()).value("1")).await.unwrap();
            if commit {
                // Begun, and given up at once.
                tokio::select! {
                    biased;
                    _ = transaction.commit() => {}
                    () = std::future::ready(()) => {}
                }
            } else {
                drop(transaction);
            }
            let next = producer.begin().await.unwrap();
            let expected = if commit { TransactionEnd::Committed } else { TransactionEnd::Aborted };
            assert_eq!(next.previous_end(), Some(expected));
        }
    }
}

/// A transaction that nobody can reach any more does not keep its producer from its end.
#[tokio::test]
async fn a_forgotten_transaction_is_aborted_at_the_close() {
    for level in LEVELS {
        let Ground { kafka: _kafka, client, topic } = ground(level).await;
        let mut producer = scenes::producer(&client, "x").await;
        let transaction = producer.begin().await.unwrap();
        transaction.send(Record::to_topic(topic.clone()).value("1")).await.unwrap();
        std::mem::forget(transaction);
        producer.close(Duration::from_secs(10)).await.unwrap();
        assert!(scenes::read(&client, &topic, Isolation::ReadCommitted).await.is_empty());
    }
}

/// A record that fails for good fails its transaction.
#[tokio::test]
async fn a_record_that_fails_fails_its_transaction() {
    for level in LEVELS {
        let Ground { kafka, client, topic } = ground(level).await;
        let mut producer = scenes::producer(&client, "x").await;
        let record = |value: &str| Record::to_topic(topic.clone()).partition(0).value(value.to_owned());
        let transaction = producer.begin().await.unwrap();
        transaction.send(record("1")).await.unwrap();
        // INVALID_RECORD.
        let rule = Rule::new("Produce", Action::Error(87)).unwrap().first(1);
        kafka.faults(|faults| faults.add(rule)).unwrap();
        assert_eq!(transaction.send(record("2")).await.unwrap_err().kind(), ErrorKind::Rejected);
        let e = transaction.enqueue(record("3")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Rejected, "{e}");
        let e = transaction.commit().await.unwrap_err();
        assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Rejected, false), "{e}");
        assert_eq!(producer.last_end(), Some(TransactionEnd::Aborted));
        let transaction = producer.begin().await.unwrap();
        transaction.send(record("4")).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(scenes::read(&client, &topic, Isolation::ReadCommitted).await, ["4"]);
    }
}

#[tokio::test]
async fn settings_that_cannot_be_name_themselves() {
    let Ground { client, kafka: _kafka, .. } = ground(2).await;
    let id = client.transactional_producer("").build().await.unwrap_err();
    let timeout =
        client.transactional_producer("x").transaction_timeout(Duration::ZERO).build().await.unwrap_err();
    let long = Duration::from_secs(16 * 60);
    let over = client.transactional_producer("x").transaction_timeout(long).build().await.unwrap_err();
    let once = client.producer().idempotence(false).transactional("x").build().await.unwrap_err();
    for (e, word) in [(&id, "transactional id"), (&timeout, "transaction_timeout"), (&once, "idempotence")] {
        assert!(e.kind() == ErrorKind::Config && e.to_string().contains(word), "{e}");
    }
    assert!(over.report().contains("InvalidTransactionTimeout"), "{}", over.report());
    let e = Kafka::builder().transaction_version(3).start().await.unwrap_err();
    assert!(e.kind() == ErrorKind::Config && e.to_string().contains("transaction_version"), "{e}");
}
