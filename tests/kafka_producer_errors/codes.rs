//! Each error code of a produce answer. What a code means is Kafka's own (`org.apache.kafka.common.protocol.Errors`,
//! `RetriableException`, and the Java client's `TransactionManager.canRetry`).

use std::time::Duration;

use muslin::ErrorKind;
use muslin::embedded::faults::Action;

use super::bed::{BATCH, Bed, RECORDS, REQUEST_TIMEOUT, SECOND, rule};

/// What a code that a broker answered without having written means for the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// It passes: the batch is sent again.
    Passes,
    /// The broker does not know the producer's state: the batch is sent again in a new epoch (KIP-360).
    Renews,
    /// The batch is refused for good, with this kind of error.
    Refuses(ErrorKind),
}
use Means::{Passes, Refuses, Renews};

/// What a broker may answer to Produce, by Kafka's documentation or its sources.
const CODES: &[(i16, &str, Means)] = &[
    (-1, "UNKNOWN_SERVER_ERROR", Refuses(ErrorKind::Broker)),
    (1, "OFFSET_OUT_OF_RANGE", Refuses(ErrorKind::Broker)),
    (2, "CORRUPT_MESSAGE", Passes),
    (3, "UNKNOWN_TOPIC_OR_PARTITION", Passes),
    (5, "LEADER_NOT_AVAILABLE", Passes),
    (6, "NOT_LEADER_OR_FOLLOWER", Passes),
    (7, "REQUEST_TIMED_OUT", Passes),
    (9, "REPLICA_NOT_AVAILABLE", Passes),
    (13, "NETWORK_EXCEPTION", Passes),
    (14, "COORDINATOR_LOAD_IN_PROGRESS", Passes),
    (15, "COORDINATOR_NOT_AVAILABLE", Passes),
    (16, "NOT_COORDINATOR", Passes),
    (17, "INVALID_TOPIC_EXCEPTION", Refuses(ErrorKind::Config)),
    (19, "NOT_ENOUGH_REPLICAS", Passes),
    (20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", Passes),
    (21, "INVALID_REQUIRED_ACKS", Refuses(ErrorKind::Config)),
    (29, "TOPIC_AUTHORIZATION_FAILED", Refuses(ErrorKind::Denied)),
    (31, "CLUSTER_AUTHORIZATION_FAILED", Refuses(ErrorKind::Denied)),
    (32, "INVALID_TIMESTAMP", Refuses(ErrorKind::Rejected)),
    (35, "UNSUPPORTED_VERSION", Refuses(ErrorKind::Unsupported)),
    (42, "INVALID_REQUEST", Refuses(ErrorKind::Config)),
    (43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", Refuses(ErrorKind::Unsupported)),
    (44, "POLICY_VIOLATION", Refuses(ErrorKind::Rejected)),
    (45, "OUT_OF_ORDER_SEQUENCE_NUMBER", Renews),
    (47, "INVALID_PRODUCER_EPOCH", Renews),
    (48, "INVALID_TXN_STATE", Refuses(ErrorKind::Broker)),
    (49, "INVALID_PRODUCER_ID_MAPPING", Renews),
    (53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", Refuses(ErrorKind::Denied)),
    (56, "KAFKA_STORAGE_ERROR", Passes),
    (58, "SASL_AUTHENTICATION_FAILED", Refuses(ErrorKind::Denied)),
    (59, "UNKNOWN_PRODUCER_ID", Renews),
    (72, "LISTENER_NOT_FOUND", Passes),
    (74, "FENCED_LEADER_EPOCH", Passes),
    (75, "UNKNOWN_LEADER_EPOCH", Passes),
    (76, "UNSUPPORTED_COMPRESSION_TYPE", Refuses(ErrorKind::Unsupported)),
    (87, "INVALID_RECORD", Refuses(ErrorKind::Rejected)),
    (89, "THROTTLING_QUOTA_EXCEEDED", Passes),
    (90, "PRODUCER_FENCED", Refuses(ErrorKind::Fenced)),
    (100, "UNKNOWN_TOPIC_ID", Passes),
];

/// Those that a broker may answer though it has appended: while the batch waits for its replicas it loses the partition
/// (`DelayedProduce`), its disk or its patience.
const AFTER_APPEND: &[i16] = &[-1, 3, 6, 7, 20, 56];

fn means(code: i16) -> Means {
    CODES.iter().find(|(c, ..)| *c == code).unwrap().2
}

/// A code stands for its time, and is told with its number.
fn told(code: i16) -> String {
    format!("({code})")
}

#[tokio::test(start_paused = true)]
async fn a_code_that_passes_and_comes_once_costs_no_record() {
    for (code, name, _) in CODES.iter().filter(|(_, _, means)| matches!(means, Passes | Renews)) {
        for nth in [1, 2, 4] {
            let bed = Bed::new([rule(Action::Error(*code)).nth(nth)]).await;
            bed.run().await.check_whole(&format!("{name}, at request {nth}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_that_passes_and_comes_a_few_times_costs_no_record() {
    for (code, name, _) in CODES.iter().filter(|(_, _, means)| matches!(means, Passes | Renews)) {
        let bed = Bed::new([rule(Action::Error(*code)).first(4)]).await;
        bed.run().await.check_whole(name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_that_passes_and_comes_after_the_work_writes_nothing_twice() {
    for code in AFTER_APPEND.iter().filter(|code| means(**code) == Passes) {
        for (when, rule) in [
            ("at the first request", rule(Action::ErrorAfter(*code)).nth(1)),
            ("at the third request", rule(Action::ErrorAfter(*code)).nth(3)),
            ("at the first four", rule(Action::ErrorAfter(*code)).first(4)),
        ] {
            let bed = Bed::new([rule]).await;
            bed.run().await.check_whole(&format!("{code} after the work, {when}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_that_does_not_pass_any_more_is_told_at_the_delivery_timeout() {
    for (code, name, _) in CODES.iter().filter(|(_, _, means)| matches!(means, Passes | Renews)) {
        let bed = Bed::new([rule(Action::Error(*code))]).await;
        let run = bed.run().await;
        let kind = if matches!(code, 3 | 100) { ErrorKind::NotFound } else { ErrorKind::Timeout };
        run.check_failed(name, kind, AFTER_APPEND.contains(code));
        assert!(run.log.is_empty(), "{name}");
        let (_, e) = run.failures()[0];
        for word in ["delivery_timeout", &told(*code)] {
            assert!(e.report().contains(word), "{name}: {} lacks {word}", e.report());
        }
        assert!(e.is_retryable() || kind == ErrorKind::NotFound, "{name}: {}", e.report());
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_after_the_work_that_does_not_pass_any_more_is_ambiguous() {
    for code in AFTER_APPEND {
        let bed = Bed::new([rule(Action::ErrorAfter(*code))]).await;
        let run = bed.run().await;
        run.check(&format!("{code} after the work"));
        assert_eq!(run.failures().len(), RECORDS, "{code}");
        let (_, first) = run.failures()[0];
        assert!(first.is_ambiguous(), "{code}: {}", first.report());
        assert_eq!(run.stored(0), 1, "{code}: the work was done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_that_refuses_is_told_at_once_and_costs_the_records_of_its_batch_alone() {
    for (code, name, means) in CODES {
        let Refuses(kind) = *means else { continue };
        for nth in [1, 3] {
            let what = format!("{name}, at request {nth}");
            let bed = Bed::new([rule(Action::Error(*code)).nth(nth)]).await;
            let run = bed.run().await;
            run.check(&what);
            let failures = run.failures();
            assert!((1..=BATCH).contains(&failures.len()), "{what}: {failures:?}");
            for (n, e) in failures {
                assert_eq!(e.kind(), kind, "{what}: {}", e.report());
                assert_eq!(e.is_ambiguous(), AFTER_APPEND.contains(code), "{what}: {}", e.report());
                assert!(!e.is_retryable(), "{what}: {}", e.report());
                assert!(e.report().contains(&told(*code)), "{what}: {}", e.report());
                assert!(run.outcomes[n].0 < REQUEST_TIMEOUT, "{what}: after {:?}", run.outcomes[n].0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_that_always_refuses_is_told_to_every_record_at_once() {
    for (code, name, means) in CODES {
        let Refuses(kind) = *means else { continue };
        let bed = Bed::new([rule(Action::Error(*code))]).await;
        let run = bed.run().await;
        run.check_failed(name, kind, AFTER_APPEND.contains(code));
        assert!(run.log.is_empty(), "{name}");
        for (n, (took, outcome)) in run.outcomes.iter().enumerate() {
            assert!(*took < REQUEST_TIMEOUT, "{name}, record {n}: {took:?} until {outcome:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_error_after_the_work_is_ambiguous_and_what_follows_is_written_once() {
    for nth in [1, 3] {
        let bed = Bed::new([rule(Action::ErrorAfter(-1)).nth(nth)]).await;
        let run = bed.run().await;
        run.check("a server error after the work");
        assert!((1..=BATCH).contains(&run.failures().len()), "{:?}", run.failures());
        for (n, e) in run.failures() {
            assert_eq!((e.kind(), e.is_ambiguous(), run.stored(n)), (ErrorKind::Broker, true, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_a_success() {
    // The broker has the batch, and says so (DUPLICATE_SEQUENCE_NUMBER).
    let bed = Bed::new([rule(Action::ErrorAfter(46)).nth(2)]).await;
    bed.run().await.check_whole("a duplicate");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_unsure_is_not_sent_under_another_number() {
    // The first answer is lost, the second says that the producer's state is: written or not, nobody knows.
    for code in [45, 47, 49, 59] {
        for first in [Action::DropAnswer, Action::ErrorAfter(7), Action::DropRequest, Action::Error(7)] {
            let what = format!("{first}, then {code}");
            let bed = Bed::new([rule(first).nth(1), rule(Action::Error(code)).nth(2)]).await;
            let producer = bed.producer().await;
            let mut outcomes = Vec::new();
            for n in 0..4 {
                outcomes.push(super::bed::send(&producer, n).await.await.unwrap());
            }
            let run = bed.end(outcomes).await;
            run.check(&what);
            assert_eq!(run.met.len(), 2, "{what}");
            for (n, e) in run.failures() {
                assert!(n == 0 && e.is_ambiguous(), "{what}, record {n}: {}", e.report());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_its_own_that_is_too_large_for_the_broker_is_refused_for_good() {
    for (code, advice) in [(10, "max.message.bytes"), (18, "segment size")] {
        let bed = Bed::new([rule(Action::Error(code)).nth(1)]).await;
        let producer = bed.producer().await;
        let lone = super::bed::send(&producer, 0).await.await.unwrap();
        let next = super::bed::send(&producer, 1).await.await.unwrap();
        let run = bed.end(vec![lone, next]).await;
        run.check("a record that is too large");
        let [(0, e)] = run.failures()[..] else { panic!("{:?}", run.failures()) };
        assert_eq!((e.kind(), e.is_ambiguous(), e.is_retryable()), (ErrorKind::TooLarge, false, false));
        assert!(e.report().contains(advice), "{}", e.report());
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_for_the_broker_comes_again_in_halves() {
    for code in [10, 18] {
        // The second: what came while the first was under way.
        let bed = Bed::new([rule(Action::Error(code)).nth(2)]).await;
        bed.run().await.check_whole(&code.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_refused_in_a_request_costs_the_others_nothing() {
    use muslin::kafka::Record;
    use muslin::{Partition, Timestamp, Topic};
    let bed = Bed::new([]).await;
    let many = Topic::new("many").unwrap();
    bed.client.create_topic(&many, 6, 1).await.unwrap();
    let producer = bed.builder().linger(Duration::from_millis(20)).build().await.unwrap();
    let mut queued = Vec::new();
    for p in 0..6 {
        let mut record = Record::to_topic(many.clone()).partition(Partition(p)).value("v");
        if p == 4 {
            // Brokers take no timestamps that lie more than an hour ahead.
            record = record.timestamp(Timestamp(bed.network.wall().0 + 7_200_000));
        }
        queued.push(producer.enqueue(record).await.unwrap());
    }
    for q in queued {
        let p = q.partition();
        let outcome = q.await;
        if p == Partition(4) {
            let e = outcome.unwrap_err();
            assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Rejected, false), "{}", e.report());
            assert!(e.report().contains("topic many partition 4"), "{}", e.report());
        } else {
            outcome.unwrap();
        }
    }
    // The refused one leaves no gap in its partition.
    producer.send(Record::to_topic(many).partition(Partition(4)).value("v")).await.unwrap();
}

/// Codes that no broker answers to Produce, known or not: told or overcome, and never a record twice or out of order.
#[tokio::test(start_paused = true)]
async fn any_other_code_ends_clearly() {
    let others =
        (-1..=140).filter(|code| !matches!(code, 0 | 10 | 46) && !CODES.iter().any(|(c, ..)| c == code));
    for code in others {
        let bed = Bed::new([rule(Action::Error(code)).nth(2)]).await;
        let run = bed.run().await;
        run.check(&format!("code {code}"));
        for (n, e) in run.failures() {
            assert!(run.outcomes[n].0 < 3 * SECOND && !e.is_retryable(), "code {code}: {}", e.report());
        }
    }
}
