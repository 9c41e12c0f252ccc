//! Lag: told per partition in records and in time, judged over a window; on the embedded broker and on a real one. What
//! needs a fault or counts requests is asked of the embedded one alone.
#![allow(clippy::disallowed_methods, reason = "tests read clocks")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
#[macro_use]
#[path = "common/both.rs"]
mod both;
mod common;

use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use muslin::embedded::Kafka;
use muslin::embedded::faults::{Action, Rule};
use muslin::kafka::{
    Client, Connect, Connecting, GroupState, Io, Isolation, LagPass, LagState, LagWatch, NewTopic,
    PartitionLag, Record, ResetTo,
};
use muslin::{ErrorKind, NodeId, Offset, Partition, Timestamp, Topic};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Looks in two windows of 2 s, 200 ms apart.
const LOOKS: u32 = 20;

/// A broker, and a client of it.
struct Bed {
    client: Client,
    /// `None` for the real one.
    embedded: Option<Kafka>,
}

impl Bed {
    async fn embedded() -> Self {
        Self::over(Kafka::builder().start().await.unwrap()).await
    }

    async fn over(kafka: Kafka) -> Self {
        let client = Client::builder(kafka.bootstrap()).request_timeout(Duration::from_secs(5));
        Self { client: client.connect().await.unwrap(), embedded: Some(kafka) }
    }

    async fn real() -> Self {
        Self { client: Client::builder(common::kafka()).connect().await.unwrap(), embedded: None }
    }

    fn kafka(&self) -> &Kafka {
        self.embedded.as_ref().unwrap()
    }

    fn fault(&self, request: &str, action: Action, shape: impl FnOnce(Rule) -> Rule) {
        let rule = shape(Rule::new(request, action).unwrap());
        self.kafka().faults(|f| f.add(rule)).unwrap();
    }

    async fn topic(&self, prefix: &str, partitions: i32) -> Topic {
        let topic = Topic::new(common::unique(prefix)).unwrap();
        let new = NewTopic::new(topic.clone()).partitions(partitions).replication(1);
        self.client.admin().create_topic(&new).await.unwrap();
        topic
    }

    /// Records with these timestamps.
    async fn write(&self, topic: &Topic, partition: i32, times: impl IntoIterator<Item = i64>) {
        let producer = self.client.producer().build().await.unwrap();
        for time in times {
            let record = Record::to_topic(topic).partition(partition).timestamp(Timestamp(time));
            producer.send(record.key("k").value("v")).await.unwrap();
        }
        producer.close(Duration::from_secs(10)).await.unwrap();
    }

    async fn commit(&self, group: &str, topic: &Topic, partition: i32, offset: i64) {
        let to = ResetTo::Exact(Offset(offset));
        let plan = self.client.admin().reset_offsets(group, to).partition(topic, partition).plan().await;
        plan.unwrap().execute().await.unwrap();
    }

    async fn lag(&self, group: &str) -> LagPass {
        let pass = self.client.lag().group(group).once().await.unwrap();
        assert!(pass.failures.is_empty(), "{:?}", pass.failures);
        pass
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

/// Committed, end, lag, state.
fn short(lag: &PartitionLag) -> (Option<i64>, Option<i64>, Option<u64>, LagState) {
    (lag.committed.map(Offset::get), lag.end.map(Offset::get), lag.lag, lag.state)
}

on_both! {
    async fn the_lag_of_each_partition_is_told_in_records_and_in_time(bed) {
        let (group, topic) = (common::unique("lag"), bed.topic("lag", 3).await);
        let old = now() - 3_600_000;
        bed.write(&topic, 0, [old, old + 1000, old + 2000]).await;
        bed.write(&topic, 1, [old]).await;
        bed.commit(&group, &topic, 0, 1).await;
        bed.commit(&group, &topic, 1, 1).await;
        bed.commit(&group, &topic, 2, 0).await;

        let told = bed.lag(&group).await.partitions;
        assert_eq!(told.iter().map(|p| p.partition.get()).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(told.iter().all(|p| *p.group == *group && p.topic == topic));
        assert_eq!(short(&told[0]), (Some(1), Some(3), Some(2), LagState::Behind));
        assert_eq!(told[0].oldest, Some(Timestamp(old + 1000)));
        let ms = told[0].lag_ms.unwrap();
        assert!((3_599_000..=3_720_000).contains(&ms), "{ms}");
        assert_eq!(short(&told[1]), (Some(1), Some(1), Some(0), LagState::KeepsUp));
        assert_eq!((told[1].lag_ms, told[1].oldest), (Some(0), None));
        assert_eq!(short(&told[2]), (Some(0), Some(0), Some(0), LagState::KeepsUp));
    }

    async fn all_groups_are_looked_at_where_none_is_named(bed) {
        let topic = bed.topic("lag-all", 1).await;
        bed.write(&topic, 0, [now(); 4]).await;
        let groups = [common::unique("lag-a"), common::unique("lag-b")];
        for (group, offset) in groups.iter().zip([1, 3]) {
            bed.commit(group, &topic, 0, offset).await;
        }
        let pass = bed.client.lag().once().await.unwrap();
        let mine: Vec<_> = pass.partitions.iter().filter(|p| p.topic == topic).collect();
        assert_eq!(mine.iter().map(|p| (&*p.group, p.lag)).collect::<Vec<_>>(),
            [(&*groups[0], Some(3)), (&*groups[1], Some(1))]);
        assert!(pass.partitions.is_sorted_by_key(|p| (p.group.clone(), p.topic.clone(), p.partition)));
    }

    async fn a_group_that_is_not_there_is_named_and_the_others_are_told(bed) {
        let (group, topic) = (common::unique("lag"), bed.topic("lag-none", 1).await);
        bed.commit(&group, &topic, 0, 0).await;
        let none = common::unique("lag-none");
        let pass = bed.client.lag().groups([&none, &group]).once().await.unwrap();
        assert_eq!(pass.partitions.len(), 1);
        assert_eq!(pass.failures.len(), 1);
        let e = &pass.failures[0];
        assert!(e.kind() == ErrorKind::NotFound && e.report().contains(&none), "{}", e.report());
        assert_eq!(bed.client.lag().group("").once().await.unwrap_err().kind(), ErrorKind::Config);
    }

    async fn a_deleted_topics_offsets_are_told_without_an_end(bed) {
        let (group, topic) = (common::unique("lag"), bed.topic("lag-kept", 1).await);
        let gone = bed.topic("lag-gone", 1).await;
        bed.write(&gone, 0, [now(); 2]).await;
        bed.commit(&group, &topic, 0, 0).await;
        bed.commit(&group, &gone, 0, 1).await;
        bed.client.admin().delete_topic(&gone).await.unwrap();
        // Kafka forgets its offsets a moment later: both are right.
        for _ in 0..20 {
            let pass = bed.client.lag().group(&group).once().await.unwrap();
            let of = |topic: &Topic| pass.partitions.iter().find(|p| p.topic == *topic);
            assert_eq!(short(of(&topic).unwrap()), (Some(0), Some(0), Some(0), LagState::KeepsUp));
            if let Some(p) = of(&gone).filter(|p| p.end.is_none()) {
                assert_eq!(short(p), (Some(1), None, None, LagState::Unknown));
                let e = &pass.failures[0];
                assert!(e.kind() == ErrorKind::NotFound && e.report().contains(gone.as_str()), "{}", e.report());
                return;
            }
            if of(&gone).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the topic is still there");
    }

    async fn where_records_were_deleted_the_first_that_is_left_counts(bed) {
        let (group, topic) = (common::unique("lag"), bed.topic("lag-deleted", 1).await);
        let old = now() - 600_000;
        bed.write(&topic, 0, [old, old + 1, old + 2, old + 3]).await;
        bed.commit(&group, &topic, 0, 1).await;
        delete_before(&bed, &topic, 3).await;
        let told = bed.lag(&group).await.partitions;
        assert_eq!(told[0].lag, Some(3), "as Kafka's own tool counts");
        assert_eq!(told[0].oldest, Some(Timestamp(old + 3)));
        delete_before(&bed, &topic, 4).await;
        let told = bed.lag(&group).await.partitions;
        assert_eq!((told[0].oldest, told[0].lag_ms, told[0].state), (None, Some(0), LagState::KeepsUp));
    }

    async fn markers_of_transactions_are_no_records_that_wait(bed) {
        let (group, topic) = (common::unique("lag"), bed.topic("lag-tx", 1).await);
        let mut producer = bed.client.transactional_producer(common::unique("lag-tx")).build().await.unwrap();
        let record = || Record::to_topic(&topic).partition(0).value("v");
        let one = producer.begin().await.unwrap();
        one.send(record()).await.unwrap();
        one.commit().await.unwrap();
        bed.commit(&group, &topic, 0, 1).await;
        // Between the commit and the end stands the marker alone.
        let told = bed.lag(&group).await.partitions;
        assert_eq!((told[0].lag, told[0].lag_ms, told[0].state), (Some(1), Some(0), LagState::KeepsUp));

        let two = producer.begin().await.unwrap();
        two.send(record()).await.unwrap();
        two.abort().await.unwrap();
        let committed = |isolation| bed.client.lag().group(&group).isolation(isolation).once();
        let told = committed(Isolation::ReadUncommitted).await.unwrap().partitions;
        assert_eq!((told[0].lag, told[0].state), (Some(3), LagState::Behind), "an aborted record waits for some");
        let told = committed(Isolation::ReadCommitted).await.unwrap().partitions;
        assert_eq!((told[0].lag, told[0].lag_ms), (Some(3), Some(0)), "and not for readers of committed ones");

        // While a transaction is open, readers of committed records come up to its begin.
        let three = producer.begin().await.unwrap();
        three.send(record()).await.unwrap();
        let told = committed(Isolation::ReadCommitted).await.unwrap().partitions;
        assert_eq!(told[0].end, Some(Offset(4)));
        let told = committed(Isolation::ReadUncommitted).await.unwrap().partitions;
        assert_eq!(told[0].end, Some(Offset(5)));
        three.commit().await.unwrap();
        producer.close(Duration::from_secs(10)).await.unwrap();
    }

    async fn a_stalled_consumer_shows_within_two_windows_and_a_moving_one_does_not(bed) {
        let topic = bed.topic("lag-watch", 2).await;
        let group = common::unique("lag-watch");
        bed.write(&topic, 0, [now(); 5]).await;
        bed.write(&topic, 1, [now(); 5]).await;
        bed.commit(&group, &topic, 0, 1).await;
        bed.commit(&group, &topic, 1, 1).await;
        let window = Duration::from_secs(2);
        let lag = bed.client.lag().group(&group).window(window);
        let mut watch = lag.watch(Duration::from_millis(200)).unwrap();
        let began = std::time::Instant::now();
        let (mut moved, mut looks) = (1, 0);
        loop {
            let told = watch.next().await.unwrap().partitions;
            looks += 1;
            assert_ne!(told[1].state, LagState::Stalled);
            if told[0].state == LagState::Stalled {
                assert!(began.elapsed() >= window, "no sooner than a window of it was seen");
                assert_eq!(told[1].state, LagState::KeepsUp, "its lag shrank");
                break;
            }
            assert_eq!(told[0].state, LagState::Behind);
            assert!(looks < LOOKS, "not shown within two windows");
            moved = (moved + 1).min(4);
            bed.commit(&group, &topic, 1, moved).await;
        }
        // The commit moves: it is stalled no more.
        bed.commit(&group, &topic, 0, 5).await;
        assert_eq!(watch.next().await.unwrap().partitions[0].state, LagState::KeepsUp);
    }

    async fn the_oldest_record_is_found_in_large_batches_too(bed) {
        // Larger than what is asked for at first, and together larger than an answer.
        let (group, topic) = (common::unique("lag"), bed.topic("lag-large", 4).await);
        let old = now() - 60_000;
        let producer = bed.client.producer().build().await.unwrap();
        for (size, partition) in [900_000, 100, 100_000, 900_000].into_iter().zip(0..) {
            for n in 0..2 {
                let record = Record::to_topic(&topic).partition(partition).timestamp(Timestamp(old + n));
                producer.send(record.value(vec![7; size])).await.unwrap();
            }
            bed.commit(&group, &topic, partition, 1).await;
        }
        producer.close(Duration::from_secs(10)).await.unwrap();
        let told = bed.lag(&group).await.partitions;
        assert_eq!(told.iter().map(|p| p.oldest).collect::<Vec<_>>(), [Some(Timestamp(old + 1)); 4]);
    }

    async fn a_frozen_consumer_shows_as_stalled_and_a_killed_one_as_stopped(bed) {
        let (group, topic) = (common::unique("lag-frozen"), bed.topic("lag-frozen", 1).await);
        let member = java_member(&bed, &group, &topic);
        let producer = bed.client.producer().build().await.unwrap();
        let writing = {
            let (producer, topic) = (producer.clone(), topic.clone());
            tokio::spawn(async move {
                loop {
                    producer.send(Record::to_topic(&topic).partition(0).value("v")).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        };
        let window = Duration::from_secs(2);
        let mut watch = bed.client.lag().group(&group).window(window).watch(Duration::from_millis(200)).unwrap();
        // It may not be there yet.
        until(&mut watch, |p| p.state == LagState::KeepsUp && p.member.is_some() && p.committed > Some(Offset(0))).await;
        member.signal("STOP");
        let (told, looks) = until(&mut watch, |p| p.state == LagState::Stalled).await;
        assert!(looks <= LOOKS, "not shown within two windows: {looks} looks");
        assert!(told.member.is_some(), "it is a member all the same");
        member.signal("CONT");
        until(&mut watch, |p| p.state != LagState::Stalled).await;
        member.signal("TERM");
        until(&mut watch, |p| p.state == LagState::Stopped && p.member.is_none()).await;
        writing.abort();
    }

    async fn who_has_a_partition_is_told_and_that_nobody_has_it(bed) {
        let (group, topic) = (common::unique("lag-member"), bed.topic("lag-member", 1).await);
        bed.write(&topic, 0, [now(); 3]).await;
        bed.commit(&group, &topic, 0, 1).await;
        let told = bed.lag(&group).await.partitions;
        assert_eq!((told[0].member.clone(), told[0].state), (None, LagState::Behind), "it never had members");
    }
}

/// Three brokers, and a group with two records waiting in each of six partitions.
async fn spread() -> (Bed, String, Topic) {
    let bed = Bed::over(Kafka::builder().brokers(3).start().await.unwrap()).await;
    let (group, topic) = (common::unique("lag"), bed.topic("lag-spread", 6).await);
    for partition in 0..6 {
        bed.write(&topic, partition, [now(); 3]).await;
        bed.commit(&group, &topic, partition, 1).await;
    }
    (bed, group, topic)
}

#[tokio::test]
async fn what_passes_by_itself_is_asked_again() {
    for (request, action) in [
        ("ListGroups", Action::Error(14)),
        ("FindCoordinator", Action::Error(15)),
        ("OffsetFetch", Action::Error(14)),
        ("OffsetFetch", Action::Error(16)),
        ("OffsetFetch", Action::MoveCoordinator(None)),
        ("OffsetFetch", Action::DropAnswer),
        ("OffsetFetch", Action::DropRequest),
        ("ListOffsets", Action::Error(6)),
        ("ListOffsets", Action::MoveLeader(None)),
        ("ListOffsets", Action::DropAnswer),
        ("Fetch", Action::Error(6)),
        ("Fetch", Action::MoveLeader(None)),
        ("Fetch", Action::DropAnswer),
        ("Fetch", Action::CutAnswer(20)),
    ] {
        let (bed, group, _) = spread().await;
        let what = format!("{request}: {action}");
        bed.fault(request, action, |rule| rule.nth(1));
        let pass = bed.client.lag().group(&group).once().await.unwrap();
        assert!(pass.failures.is_empty(), "{what}: {:?}", pass.failures);
        assert_eq!(pass.partitions.len(), 6, "{what}");
        for p in &pass.partitions {
            assert_eq!((p.lag, p.state), (Some(2), LagState::Behind), "{what}");
            assert!(p.oldest.is_some(), "{what}");
        }
        assert!(bed.kafka().faults(|f| f.met().len()) > 0, "{what}: it was not met");
    }
}

#[tokio::test]
async fn what_is_refused_is_named_and_the_rest_is_told() {
    for (request, code, words) in [
        ("OffsetFetch", 30, vec!["lag of group"]),
        ("ListOffsets", 29, vec!["the end of topic", "partition"]),
        ("Fetch", 29, vec!["the oldest record of topic", "from offset 1 on"]),
    ] {
        let (bed, group, topic) = spread().await;
        bed.fault(request, Action::Error(code), |rule| rule);
        let pass = bed.client.lag().group(&group).once().await.unwrap();
        let e = &pass.failures[0];
        assert_eq!(e.kind(), ErrorKind::Denied, "{}", e.report());
        let name = if request == "OffsetFetch" { group.as_str() } else { topic.as_str() };
        for word in words.into_iter().chain([name]) {
            assert!(e.report().contains(word), "{word:?} is not in: {}", e.report());
        }
        match request {
            "OffsetFetch" => assert!(pass.partitions.is_empty()),
            "ListOffsets" => assert!(pass.partitions.iter().all(|p| p.state == LagState::Unknown)),
            _ => assert!(pass.partitions.iter().all(|p| p.lag == Some(2) && p.lag_ms.is_none())),
        }
    }
}

#[tokio::test]
async fn a_partition_without_a_leader_is_named_and_the_others_are_told() {
    let (bed, group, topic) = spread().await;
    // Its partitions have no replica elsewhere; its groups get another coordinator.
    bed.kafka().kill(NodeId(2)).unwrap();
    let pass = bed.client.lag().group(&group).once().await.unwrap();
    let (dead, live): (Vec<_>, Vec<_>) = pass.partitions.iter().partition(|p| p.end.is_none());
    assert_eq!((dead.len(), live.len(), pass.failures.len()), (2, 4, 2));
    assert!(live.iter().all(|p| p.lag == Some(2) && p.lag_ms.is_some()));
    assert!(dead.iter().all(|p| p.committed == Some(Offset(1)) && p.state == LagState::Unknown));
    for (e, p) in pass.failures.iter().zip(dead) {
        let place = format!("{topic} partition {}", p.partition);
        assert!(e.kind() == ErrorKind::Unavailable && e.report().contains(&place), "{}", e.report());
    }
}

#[tokio::test]
async fn a_watch_outlives_a_pass_that_failed_and_keeps_what_it_saw() {
    let bed = Bed::embedded().await;
    let (group, topic) = (common::unique("lag"), bed.topic("lag", 1).await);
    bed.write(&topic, 0, [now(); 3]).await;
    bed.commit(&group, &topic, 0, 1).await;
    let lag = bed.client.lag().group(&group).window(Duration::from_secs(1));
    let mut watch = lag.watch(Duration::from_millis(100)).unwrap();
    assert_eq!(watch.next().await.unwrap().partitions[0].state, LagState::Behind);
    bed.fault("OffsetFetch", Action::Error(30), |rule| rule.name("denied"));
    assert_eq!(watch.next().await.unwrap().failures.len(), 1);
    bed.kafka().faults(|f| f.remove("denied"));
    // The looks before count: the verdict comes a window after the first.
    let verdicts = async { while watch.next().await.unwrap().partitions[0].state != LagState::Stalled {} };
    tokio::time::timeout(Duration::from_secs(30), verdicts).await.unwrap();
}

#[tokio::test]
async fn ten_thousand_partitions_of_many_groups_take_a_connection_a_broker_and_few_requests() {
    let bed = Bed::over(Kafka::builder().brokers(3).start().await.unwrap()).await;
    let topic = bed.topic("lag-many", 10_000).await;
    let admin = bed.client.admin();
    let names: Vec<String> = (0..200).map(|n| format!("lag-many-{n}")).collect();
    // One group of all partitions, and two hundred of fifty.
    let reset = admin.reset_offsets("lag-all", ResetTo::Earliest).topic(&topic);
    reset.plan().await.unwrap().execute().await.unwrap();
    for (name, n) in names.iter().zip(0..) {
        let mut reset = admin.reset_offsets(name, ResetTo::Earliest);
        for partition in 0..50 {
            reset = reset.partition(&topic, n * 50 + partition);
        }
        reset.plan().await.unwrap().execute().await.unwrap();
    }
    let producer = bed.client.producer().build().await.unwrap();
    let mut queued = Vec::new();
    for partition in 0..10_000 {
        for _ in 0..2 {
            let record = Record::to_topic(&topic).partition(partition).timestamp(Timestamp(now()));
            queued.push(producer.enqueue(record.value(vec![7; 100])).await.unwrap());
        }
    }
    for queued in queued {
        queued.await.unwrap();
    }
    let client = Client::builder(bed.kafka().bootstrap()).client_id("lag-pass").connect().await.unwrap();
    let before = bed.kafka().traffic().connections;
    bed.fault("*", Action::Delay(Duration::ZERO), |rule| rule.client("lag-pass").name("count"));
    let began = std::time::Instant::now();
    let pass = client.lag().once().await.unwrap();
    println!("20,000 entries in {:?}", began.elapsed());
    assert!(pass.failures.is_empty(), "{:?}", pass.failures);
    assert_eq!(pass.partitions.len(), 20_000);
    assert!(pass.partitions.iter().all(|p| p.lag == Some(2) && p.oldest.is_some()));
    let opened = bed.kafka().traffic().connections - before;
    assert!(opened <= 3, "{opened} connections for three brokers");
    let mut requests = std::collections::BTreeMap::new();
    bed.kafka().faults(|f| {
        for met in f.met() {
            *requests.entry(met.request.clone()).or_insert(0) += 1;
        }
    });
    // 201 groups, 32 in a request; 10,000 partitions, 5,000 in one.
    assert_eq!(requests.get("ListGroups"), Some(&3), "{requests:?}");
    assert!((7..=10).contains(&requests["OffsetFetch"]), "{requests:?}");
    assert_eq!(requests.get("ListOffsets"), Some(&3), "{requests:?}");
    // 1,000 searches in one, and no commit is searched for twice: two groups have each.
    assert!((12..=24).contains(&requests["Fetch"]), "{requests:?}");
    assert!(
        !requests.contains_key("FindCoordinator") && !requests.contains_key("DescribeGroups"),
        "{requests:?}"
    );
    println!("{requests:?}");

    // By name: their coordinators are found together.
    let before = bed.kafka().faults(|f| f.met().len());
    let pass = client.lag().groups(&names).times(false).once().await.unwrap();
    assert_eq!((pass.partitions.len(), pass.failures.len()), (10_000, 0));
    let named: Vec<String> =
        bed.kafka().faults(|f| f.met().skip(before).map(|m| m.request.clone()).collect());
    let count = |request: &str| named.iter().filter(|name| *name == request).count();
    assert_eq!((count("FindCoordinator"), count("ListGroups"), count("ListOffsets")), (1, 3, 3), "{named:?}");
    assert!((7..=9).contains(&count("OffsetFetch")) && named.len() < 20, "{named:?}");
}

/// Looks until the group's only partition is so.
async fn until(watch: &mut LagWatch, wanted: impl Fn(&PartitionLag) -> bool) -> (PartitionLag, u32) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    for looks in 1.. {
        let pass = watch.next().await.unwrap();
        if let Some(p) = pass.partitions.into_iter().find(&wanted) {
            return (p, looks);
        }
        assert!(std::time::Instant::now() < end, "it does not show; failures: {:?}", pass.failures);
    }
    unreachable!("the looks do not end")
}

/// Java's console consumer, which commits often.
struct Member(Child);

impl Member {
    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn java_member(bed: &Bed, group: &str, topic: &Topic) -> Member {
    let bootstrap = bed.embedded.as_ref().map_or_else(common::kafka, Kafka::bootstrap);
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/brokers.sh"));
    command.args(["kafka", "org.apache.kafka.tools.consumer.ConsoleConsumer", "--from-beginning"]);
    command.args(["--bootstrap-server", &bootstrap, "--topic", topic.as_str(), "--group", group]);
    command.args(["--command-property", "auto.commit.interval.ms=100"]);
    Member(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[tokio::test]
async fn a_commit_in_a_gap_that_compaction_left_waits_for_the_next_record() {
    let bed = Bed::embedded().await;
    let topic = Topic::new(common::unique("lag-compact")).unwrap();
    let new = NewTopic::new(topic.clone()).partitions(1).config("cleanup.policy", "compact");
    bed.client.admin().create_topic(&new).await.unwrap();
    let group = common::unique("lag");
    // Of one key the last record stays.
    bed.write(&topic, 0, [1000, 2000, 3000, 4000]).await;
    assert_eq!(bed.kafka().compact(topic.as_str()).unwrap(), 1);
    bed.commit(&group, &topic, 0, 1).await;
    let told = bed.lag(&group).await.partitions;
    assert_eq!((told[0].lag, told[0].oldest), (Some(3), Some(Timestamp(4000))));
}

/// A broker of before Kafka 3.0, as far as it tells: it cannot be asked for several groups at once.
#[derive(Debug)]
struct Old;

impl Connect for Old {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            Ok(Box::new(OldStream { stream, told: false }) as Box<dyn Io>)
        })
    }
}

#[derive(Debug)]
struct OldStream {
    stream: TcpStream,
    /// Its versions are the first thing that it tells.
    told: bool,
}

impl AsyncRead for OldStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = out.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, out);
        let bytes = &mut out.filled_mut()[before..];
        if bytes.len() > 100 && !std::mem::replace(&mut self.told, true) {
            for (theirs, old) in [
                // OffsetFetch from 1 to 9, FindCoordinator from 0 to 6.
                ([0, 9, 0, 1, 0, 9], [0, 9, 0, 1, 0, 7]),
                ([0, 10, 0, 0, 0, 6], [0, 10, 0, 0, 0, 3]),
                // ListGroups from 0 to 5, ConsumerGroupDescribe from 0 to 1.
                ([0, 16, 0, 0, 0, 5], [0, 16, 0, 0, 0, 3]),
                ([0, 69, 0, 0, 0, 1], [127, 69, 0, 0, 0, 1]),
            ] {
                let at = bytes.windows(6).position(|w| w == theirs).expect("the versions are told");
                bytes[at..at + 6].copy_from_slice(&old);
            }
        }
        read
    }
}

impl AsyncWrite for OldStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn brokers_that_cannot_be_asked_for_several_groups_are_asked_for_one_after_the_other() {
    let (bed, group, topic) = spread().await;
    let other = common::unique("lag");
    bed.commit(&other, &topic, 0, 2).await;
    let old = Client::builder(bed.kafka().bootstrap()).connector(Old).connect().await.unwrap();
    for lag in [old.lag(), old.lag().groups([&group, &other])] {
        let pass = lag.once().await.unwrap();
        assert!(pass.failures.is_empty(), "{:?}", pass.failures);
        let lags: Vec<_> = pass.partitions.iter().map(|p| (&*p.group, p.lag)).collect();
        let mut wanted = vec![(group.as_str(), Some(2)); 6];
        wanted.push((&other, Some(1)));
        wanted.sort_unstable();
        assert_eq!(lags, wanted);
    }
    let told = old.admin().groups().await.unwrap();
    assert!(told.len() == 2 && told.iter().all(|g| g.state == GroupState::Unknown), "{told:?}");
    assert_eq!(old.admin().describe_group(&group).await.unwrap().state, GroupState::Empty);
    let error = old.admin().describe_group("none").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
    old.admin().delete_groups([&group, &other]).await.unwrap().into_iter().for_each(|done| done.unwrap());
}

async fn delete_before(bed: &Bed, topic: &Topic, offset: i64) {
    bed.client.admin().delete_records(topic, &[(Partition(0), Offset(offset))]).await.unwrap();
}
