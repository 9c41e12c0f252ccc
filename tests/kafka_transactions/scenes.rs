//! What a program does with transactions, and what must hold then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muslin::kafka::{
    Client, GroupMetadata, Isolation, Record, StartAt, TransactionEnd, TransactionalProducer,
};
use muslin::{ErrorKind, Offset, Partition, Topic};

pub const PARTITIONS: i32 = 2;
const PATIENCE: Duration = Duration::from_secs(60);

fn record(topic: &Topic, n: u32) -> Record<'static> {
    Record::to_topic(topic.clone()).partition((n % 2) as i32).value(n.to_string())
}

/// What a reader sees once all transactions have their end, up to a record that is written now.
pub async fn read(client: &Client, topic: &Topic, isolation: Isolation) -> Vec<String> {
    let producer = client.producer().build().await.unwrap();
    // A name of its own: the marker of an abort in the background may come behind it.
    let last = format!("last for {isolation:?}");
    for n in 0..PARTITIONS {
        let record = Record::to_topic(topic.clone()).partition(n).value(last.clone());
        producer.send(record).await.unwrap();
    }
    let consumer =
        client.simple_consumer().topics([topic.as_str()]).start(StartAt::Earliest).isolation(isolation);
    let mut consumer = consumer.build().await.unwrap();
    let (mut seen, mut ended) = (Vec::new(), BTreeSet::new());
    while ended.len() < PARTITIONS as usize {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("no record came");
        let delivery = next.unwrap().unwrap();
        let value = String::from_utf8(delivery.value().unwrap().to_vec()).unwrap();
        if value == last {
            ended.insert(delivery.partition());
        } else if !value.starts_with("last") {
            seen.push(value);
        }
        delivery.ack();
    }
    seen.sort_by_key(|value| value.parse::<u32>().unwrap());
    seen
}

pub async fn producer(client: &Client, id: &str) -> TransactionalProducer {
    client.transactional_producer(id).build().await.unwrap()
}

fn numbers(of: impl Iterator<Item = u32>) -> Vec<String> {
    of.map(|n| n.to_string()).collect()
}

/// Every tenth of twenty transactions is aborted; one is committed without anything in it.
pub async fn committed_is_read_and_aborted_is_not(client: &Client, topic: &Topic, id: &str) {
    let mut producer = producer(client, id).await;
    assert_eq!(producer.last_end(), None);
    for t in 0..20 {
        let transaction = producer.begin().await.unwrap();
        for n in 0..10 {
            drop(transaction.enqueue(record(topic, t * 10 + n)).await.unwrap());
        }
        if t % 10 == 9 {
            transaction.send(record(topic, 1000 + t)).await.unwrap();
            transaction.abort().await.unwrap();
            assert_eq!(producer.last_end(), Some(TransactionEnd::Aborted));
        } else {
            transaction.commit().await.unwrap();
            assert_eq!(producer.last_end(), Some(TransactionEnd::Committed));
        }
        if t == 5 {
            producer.begin().await.unwrap().commit().await.unwrap();
            producer.begin().await.unwrap().abort().await.unwrap();
        }
    }
    producer.close(PATIENCE).await.unwrap();
    let committed = numbers((0..200).filter(|n| n / 10 % 10 != 9));
    assert_eq!(read(client, topic, Isolation::ReadCommitted).await, committed);
    let all = read(client, topic, Isolation::ReadUncommitted).await;
    assert!(committed.iter().all(|n| all.contains(n)));
    assert!(all.contains(&"1009".to_owned()) && all.contains(&"1019".to_owned()), "written, though aborted");
}

/// Offsets of a group count with the records.
pub async fn offsets_count_with_their_transaction(client: &Client, topic: &Topic, id: &str, group: &str) {
    let mut producer = producer(client, id).await;
    let metadata = GroupMetadata::new(group);
    let at = |offset| BTreeMap::from([((topic.clone(), Partition(0)), Offset(offset))]);
    for (offset, commit) in [(3, true), (7, false), (5, true)] {
        let transaction = producer.begin().await.unwrap();
        drop(transaction.enqueue(record(topic, offset as u32)).await.unwrap());
        transaction.send_offsets(&metadata, at(offset)).await.unwrap();
        if commit { transaction.commit().await.unwrap() } else { transaction.abort().await.unwrap() }
    }
    // Offsets alone are a transaction too.
    let transaction = producer.begin().await.unwrap();
    transaction.send_offsets(&metadata, [((topic.clone(), Partition(1)), Offset(9))]).await.unwrap();
    transaction.commit().await.unwrap();
    let committed = client.committed(group, topic).await.unwrap();
    assert_eq!(committed, BTreeMap::from([(Partition(0), Offset(5)), (Partition(1), Offset(9))]));
    assert_eq!(read(client, topic, Isolation::ReadCommitted).await, ["3", "5"]);
    // A member that the group does not know cannot commit.
    let transaction = producer.begin().await.unwrap();
    let stranger = GroupMetadata::new(group).member("stranger", 3);
    let e = transaction.send_offsets(&stranger, at(8)).await.unwrap_err();
    assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Conflict, false), "{e}");
    assert!(transaction.enqueue(record(topic, 8)).await.is_err(), "it can only be aborted");
    assert_eq!(transaction.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(producer.last_end(), Some(TransactionEnd::Aborted));
    producer.begin().await.unwrap().commit().await.unwrap();
}

/// A newer producer with the same id ends the older one.
pub async fn the_newer_producer_fences_the_older(client: &Client, topic: &Topic, id: &str) {
    let mut old = producer(client, id).await;
    let transaction = old.begin().await.unwrap();
    transaction.send(record(topic, 1)).await.unwrap();
    let mut new = producer(client, id).await;
    let e = transaction.commit().await.unwrap_err();
    assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Fenced, false), "{}", e.report());
    assert!(e.report().contains(id), "{}", e.report());
    assert_eq!(old.begin().await.unwrap_err().kind(), ErrorKind::Fenced);
    let transaction = new.begin().await.unwrap();
    transaction.send(record(topic, 2)).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(read(client, topic, Isolation::ReadCommitted).await, ["2"]);
}

/// A transaction that is open too long is aborted by its coordinator; the producer lives. `pass` lets so much time pass.
pub async fn a_transaction_that_is_open_too_long_is_aborted<F: Future<Output = ()>>(
    client: &Client,
    topic: &Topic,
    id: &str,
    pass: impl Fn() -> F,
) {
    let builder = client.transactional_producer(id).transaction_timeout(Duration::from_secs(1));
    let mut producer = builder.build().await.unwrap();
    for n in [1, 2] {
        let transaction = producer.begin().await.unwrap();
        transaction.send(record(topic, n)).await.unwrap();
        pass().await;
        // The broker refuses a record of it, or its commit.
        if n == 2 {
            let _ = transaction.send(record(topic, 5)).await;
        }
        let e = transaction.commit().await.unwrap_err();
        assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Timeout, false), "{}", e.report());
        assert!(e.to_string().contains("transaction_timeout"), "{e}");
        assert_eq!(producer.last_end(), Some(TransactionEnd::Aborted));
    }
    let transaction = producer.begin().await.unwrap();
    transaction.send(record(topic, 3)).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(read(client, topic, Isolation::ReadCommitted).await, ["3"]);
}

/// A transaction that is dropped is aborted, and the next one waits for that; a commit that is dropped goes on.
pub async fn dropping_aborts(client: &Client, topic: &Topic, id: &str) {
    let mut producer = producer(client, id).await;
    let transaction = producer.begin().await.unwrap();
    transaction.send(record(topic, 1)).await.unwrap();
    drop(transaction.enqueue(record(topic, 2)).await.unwrap());
    drop(transaction);
    let transaction = producer.begin().await.unwrap();
    let queued = transaction.enqueue(record(topic, 3)).await.unwrap();
    {
        let commit = transaction.commit();
        tokio::pin!(commit);
        tokio::select! {
            biased;
            done = &mut commit => done.unwrap(),
            () = std::future::ready(()) => {}
        }
    }
    queued.await.unwrap();
    let committed = async {
        while producer.last_end() != Some(TransactionEnd::Committed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, committed).await.expect("the commit did not go on");
    // The producer is dropped with an open transaction behind it.
    let transaction = producer.begin().await.unwrap();
    transaction.send(record(topic, 4)).await.unwrap();
    drop(transaction);
    drop(producer);
    assert_eq!(read(client, topic, Isolation::ReadCommitted).await, ["3"]);
}
