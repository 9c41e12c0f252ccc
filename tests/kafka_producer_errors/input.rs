//! What cannot be sent, and settings that cannot be: told by name, and nothing is written.

use std::time::Duration;

use muslin::kafka::{ProducerBuilder, Record};
use muslin::{Error, ErrorKind, Partition, Topic};

use super::bed::{Bed, DELIVERY_TIMEOUT, SECOND};

fn says(e: &Error, kind: ErrorKind, words: &[&str]) {
    assert_eq!((e.kind(), e.is_ambiguous()), (kind, false), "{}", e.report());
    for word in words {
        assert!(e.report().contains(word), "{} lacks {word}", e.report());
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_over_the_limit_is_refused_before_it_is_queued() {
    let bed = Bed::new([]).await;
    let producer = bed.builder().max_request_size(64 << 10).build().await.unwrap();
    let large = "x".repeat(70_000);
    let record = || Record::to("t").unwrap().partition(Partition(0));
    for (what, record) in [
        ("value", record().value(large.clone())),
        ("key", record().key(large.clone()).value("v")),
        ("header", record().value("v").header("h", Some(large.clone().into()))),
        ("header's name", record().value("v").header(large.clone(), None)),
        (
            "all together",
            record()
                .value("x".repeat(30_000))
                .key("x".repeat(30_000))
                .header("h", Some("x".repeat(30_000).into())),
        ),
    ] {
        let e = producer.enqueue(record).await.unwrap_err();
        says(&e, ErrorKind::TooLarge, &["topic t", "65536", "max_request_size"]);
        assert!(!e.is_retryable(), "{what}");
    }
    // The largest that passes, and nothing else was written.
    producer.send(record().value("x".repeat(65_000))).await.unwrap();
    let ends = bed.client.offsets(&Topic::new("t").unwrap(), muslin::kafka::At::Latest).await.unwrap();
    assert_eq!(ends[&Partition(0)].get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_over_the_brokers_limit_fails_alone() {
    let bed = Bed::new([]).await;
    let producer = bed.builder().max_request_size(8 << 20).build().await.unwrap();
    let record = |n: usize| Record::to("t").unwrap().partition(Partition(0)).value("x".repeat(n));
    producer.send(record(10)).await.unwrap();
    let e = producer.send(record(2 << 20)).await.unwrap_err();
    says(&e, ErrorKind::TooLarge, &["topic t", "partition 0", "max.message.bytes"]);
    producer.send(record(10)).await.unwrap();
    let ends = bed.client.offsets(&Topic::new("t").unwrap(), muslin::kafka::At::Latest).await.unwrap();
    assert_eq!(ends[&Partition(0)].get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_partition_or_topic_that_is_not_there_is_named() {
    let bed = Bed::new([]).await;
    let producer = bed.builder().allow_auto_create(false).build().await.unwrap();
    for p in [1, 7, -1, i32::MAX] {
        let e =
            producer.enqueue(Record::to("t").unwrap().partition(Partition(p)).value("v")).await.unwrap_err();
        says(&e, ErrorKind::NotFound, &["topic t", &format!("partition {p}")]);
    }
    let e = producer.enqueue(Record::to("nowhere").unwrap().value("v")).await.unwrap_err();
    says(&e, ErrorKind::NotFound, &["nowhere"]);
    for name in ["", "a b", "..", &"x".repeat(250)] {
        assert_eq!(Record::to(name).unwrap_err().kind(), ErrorKind::Config, "{name:?}");
    }
    // Where it may be created, it is.
    let producer = bed.producer().await;
    producer.send(Record::to("made").unwrap().value("v")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_while_records_are_sent_is_named() {
    let bed = Bed::new([]).await;
    let gone = Topic::new("gone").unwrap();
    bed.client.create_topic(&gone, 1, 1).await.unwrap();
    let producer = bed.builder().allow_auto_create(false).build().await.unwrap();
    let mut queued = Vec::new();
    for n in 0..40 {
        if n == 20 {
            bed.client.delete_topic(&gone).await.unwrap();
        }
        let record = Record::to_topic(gone.clone()).partition(Partition(0)).value("x".repeat(300));
        match producer.enqueue(record).await {
            Ok(q) => queued.push(q),
            Err(e) => says(&e, ErrorKind::NotFound, &["gone"]),
        }
    }
    let outcomes = tokio::time::timeout(2 * DELIVERY_TIMEOUT, async {
        let mut failed = 0;
        for q in queued {
            if let Err(e) = q.await {
                failed += 1;
                // What waited behind the first was never tried itself.
                assert!(failed > 1 || e.kind() == ErrorKind::NotFound, "{}", e.report());
                assert!(matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Timeout), "{}", e.report());
                assert!(e.report().contains("topic gone partition 0"), "{}", e.report());
            }
        }
        failed
    });
    assert!(outcomes.await.expect("an outcome is missing") > 0);
    // The other topics of the producer go on.
    producer.send(Record::to("t").unwrap().value("v")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_and_made_anew_takes_records_again() {
    let bed = Bed::new([]).await;
    let again = Topic::new("again").unwrap();
    bed.client.create_topic(&again, 1, 1).await.unwrap();
    let producer = bed.producer().await;
    let record = || Record::to_topic(again.clone()).value("v");
    for _ in 0..3 {
        producer.send(record()).await.unwrap();
        bed.client.delete_topic(&again).await.unwrap();
        bed.client.create_topic(&again, 1, 1).await.unwrap();
        let placed = producer.send(record()).await.unwrap();
        assert_eq!(placed.offset.get(), 0, "the new topic is empty");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_that_contradict_each_other_are_named() {
    let bed = Bed::new([]).await;
    type Change = fn(ProducerBuilder) -> ProducerBuilder;
    let cases: &[(Change, &[&str])] = &[
        (|b| b.batch_size(2 << 20), &["batch_size", "1048576"]),
        (|b| b.batch_size(10), &["batch_size", "1024"]),
        (|b| b.max_request_size(100), &["max_request_size", "1024"]),
        (|b| b.buffer_memory(1 << 19), &["buffer_memory", "1048576"]),
        (|b| b.linger(DELIVERY_TIMEOUT), &["delivery_timeout", "linger"]),
        (|b| b.delivery_timeout(Duration::ZERO), &["delivery_timeout", "linger"]),
        (
            |b| b.compression(muslin::codec::compression::Compression::Gzip).compression_level(77),
            &["level", "77", "gzip"],
        ),
    ];
    for (change, words) in cases {
        let e = change(bed.client.producer().delivery_timeout(DELIVERY_TIMEOUT)).build().await.unwrap_err();
        says(&e, ErrorKind::Config, words);
        assert!(!e.is_retryable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_buffer_that_stays_full_is_told_after_its_time() {
    use muslin::embedded::faults::Action;
    let bed = Bed::new([super::bed::rule(Action::Hold("gate".to_owned()))]).await;
    let builder = bed.client.producer().max_request_size(4 << 10).batch_size(4 << 10).buffer_memory(16 << 10);
    let producer = builder.max_block(3 * SECOND).build().await.unwrap();
    let record = || Record::to("t").unwrap().value("x".repeat(1000));
    let mut queued = Vec::new();
    let e = loop {
        match producer.enqueue(record()).await {
            Ok(q) => queued.push(q),
            Err(e) => break e,
        }
        assert!(queued.len() < 100, "the buffer takes everything");
    };
    says(&e, ErrorKind::Full, &["16384", "buffer_memory", "max_block"]);
    assert!(e.is_retryable());
    bed.kafka.faults(|f| {
        f.clear();
        f.release("gate")
    });
    let taken = queued.len() as i64;
    for q in queued {
        q.await.unwrap();
    }
    let ends = bed.client.offsets(&Topic::new("t").unwrap(), muslin::kafka::At::Latest).await.unwrap();
    assert_eq!(ends[&Partition(0)].get(), taken, "the one without room was not written");
}
