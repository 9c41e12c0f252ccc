//! Groups administered: listed, described, deleted, their offsets reset and deleted; on the embedded broker and on a real one,
//! with Java's consumers as members, against Kafka's own tool. What needs a fault is asked of the embedded one alone.
#![allow(clippy::disallowed_methods, reason = "tests read clocks")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
#[macro_use]
#[path = "common/both.rs"]
mod both;
mod common;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use both::says;
use muslin::embedded::Kafka;
use muslin::embedded::faults::{Action, Rule};
use muslin::kafka::{Admin, Client, GroupKind, GroupState, LagState, NewTopic, OffsetPlan, Record, ResetTo};
use muslin::{ErrorKind, Offset, Partition, Timestamp, Topic};

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
        let client = Client::builder(kafka.bootstrap()).request_timeout(Duration::from_secs(3));
        Self { client: client.connect().await.unwrap(), embedded: Some(kafka) }
    }

    async fn real() -> Self {
        Self { client: Client::builder(common::kafka()).connect().await.unwrap(), embedded: None }
    }

    fn admin(&self) -> Admin {
        self.client.admin()
    }

    fn kafka(&self) -> &Kafka {
        self.embedded.as_ref().unwrap()
    }

    fn bootstrap(&self) -> String {
        self.embedded.as_ref().map_or_else(common::kafka, Kafka::bootstrap)
    }

    fn fault(&self, request: &str, action: Action, shape: impl FnOnce(Rule) -> Rule) {
        let rule = shape(Rule::new(request, action).unwrap());
        self.kafka().faults(|f| f.add(rule)).unwrap();
    }

    /// A topic with a record of each of these times in each partition.
    async fn topic(&self, prefix: &str, partitions: i32, times: &[i64]) -> Topic {
        let topic = Topic::new(common::unique(prefix)).unwrap();
        let new = NewTopic::new(topic.clone()).partitions(partitions).replication(1);
        self.admin().create_topic(&new).await.unwrap();
        let producer = self.client.producer().build().await.unwrap();
        for partition in 0..partitions {
            for time in times {
                let record = Record::to_topic(&topic).partition(partition).timestamp(Timestamp(*time));
                producer.send(record.value("v")).await.unwrap();
            }
        }
        producer.close(Duration::from_secs(10)).await.unwrap();
        topic
    }

    async fn plan(&self, group: &str, topic: &Topic, to: ResetTo) -> OffsetPlan {
        self.admin().reset_offsets(group, to).topic(topic).plan().await.unwrap()
    }

    async fn commit(&self, group: &str, topic: &Topic, offset: i64) {
        self.plan(group, topic, ResetTo::Exact(Offset(offset))).await.execute().await.unwrap();
    }

    async fn committed(&self, group: &str, topic: &Topic) -> Vec<i64> {
        self.client.committed(group, topic).await.unwrap().into_values().map(Offset::get).collect()
    }

    /// A Java consumer that stays in the group until it is dropped.
    fn member(&self, group: &str, topic: &Topic, protocol: &str) -> Member {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/brokers.sh"));
        command.args(["kafka", "org.apache.kafka.tools.consumer.ConsoleConsumer"]);
        command.args(["--bootstrap-server", &self.bootstrap(), "--topic", topic.as_str(), "--group", group]);
        for property in [format!("group.protocol={protocol}"), "client.id=java-member".to_owned()] {
            command.args(["--command-property", &property]);
        }
        Member(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Waits until the group has a member that was given so many partitions.
    async fn assigned(&self, group: &str, count: usize) -> muslin::kafka::GroupDescription {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let told = self.admin().describe_group(group).await;
            if let Ok(told) = told
                && told.members.iter().flat_map(|m| m.assigned.values().flatten()).count() == count
            {
                return told;
            }
            assert!(Instant::now() < end, "the member did not join");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the group is empty.
    async fn emptied(&self, group: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.admin().describe_group(group).await.unwrap().is_active() {
            assert!(Instant::now() < end, "the member did not leave");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A child that ends with its test.
struct Member(Child);

impl Member {
    /// It leaves its group on SIGTERM, while somebody answers: not to be waited for by a thread that serves it.
    fn leave(&self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis() as i64
}

fn targets(plan: &OffsetPlan) -> Vec<i64> {
    plan.moves().iter().map(|m| m.to.get()).collect()
}

on_both! {
    async fn a_plan_shows_what_a_reset_does_and_does_nothing_itself(bed) {
        let (group, topic) = (common::unique("reset"), bed.topic("reset", 2, &[1000, 2000, 3000, 4000]).await);
        bed.commit(&group, &topic, 2).await;
        let plan = bed.plan(&group, &topic, ResetTo::Earliest).await;
        let told: Vec<_> =
            plan.moves().iter().map(|m| (m.partition, m.from.map(Offset::get), m.to.get())).collect();
        assert_eq!(told, [(Partition(0), Some(2), 0), (Partition(1), Some(2), 0)]);
        assert_eq!((plan.group(), &plan.moves()[0].topic), (group.as_str(), &topic));
        assert_eq!(bed.committed(&group, &topic).await, [2, 2]);
        plan.execute().await.unwrap();
        assert_eq!(bed.committed(&group, &topic).await, [0, 0]);
    }

    async fn offsets_go_where_each_policy_says(bed) {
        let old = now() - 7_200_000;
        let times = [old, old + 1000, old + 2000, now() - 1000];
        let (group, topic) = (common::unique("reset"), bed.topic("reset", 1, &times).await);
        bed.commit(&group, &topic, 2).await;
        for (to, offset) in [
            (ResetTo::Earliest, 0),
            (ResetTo::Latest, 4),
            (ResetTo::Timestamp(Timestamp(old + 1)), 1),
            (ResetTo::Timestamp(Timestamp(now() + 60_000)), 4),
            (ResetTo::Ago(Duration::from_secs(3600)), 3),
            (ResetTo::Shift(1), 3),
            (ResetTo::Shift(-1), 1),
            (ResetTo::Shift(99), 4),
            (ResetTo::Shift(-99), 0),
            (ResetTo::Exact(Offset(1)), 1),
            (ResetTo::Exact(Offset(77)), 4),
        ] {
            let plan = bed.plan(&group, &topic, to).await;
            assert_eq!(targets(&plan), [offset], "{to:?}");
            plan.execute().await.unwrap();
            assert_eq!(bed.committed(&group, &topic).await, [offset], "{to:?}");
            bed.commit(&group, &topic, 2).await;
        }
    }

    async fn without_topics_what_is_committed_is_reset(bed) {
        let group = common::unique("reset");
        let (a, b) = (bed.topic("reset-a", 2, &[1000, 2000]).await, bed.topic("reset-b", 1, &[1000]).await);
        let to = |to| bed.admin().reset_offsets(&group, to);
        let error = to(ResetTo::Latest).plan().await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[&group, "committed nothing"]);
        to(ResetTo::Earliest).partition(&a, 1).topic(&b).plan().await.unwrap().execute().await.unwrap();
        let plan = to(ResetTo::Latest).plan().await.unwrap();
        let told: Vec<_> = plan.moves().iter().map(|m| (&m.topic, m.partition, m.to.get())).collect();
        assert_eq!(told, [(&a, Partition(1), 2), (&b, Partition(0), 1)]);
        // Nothing is committed there that could be shifted.
        let error = to(ResetTo::Shift(1)).topic(&a).plan().await.unwrap_err();
        says(&error, ErrorKind::Config, &[&group, a.as_str(), "partition 0"]);
        let none = Topic::new(common::unique("reset-none")).unwrap();
        let error = to(ResetTo::Latest).topic(&none).plan().await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[&group, none.as_str()]);
        let error = to(ResetTo::Latest).partition(&a, 9).plan().await.unwrap_err();
        assert!(error.report().contains(&group) && error.report().contains("partition 9"), "{}", error.report());
    }

    async fn groups_are_listed_described_and_deleted(bed) {
        let topic = bed.topic("groups", 1, &[1000]).await;
        let groups = [common::unique("groups-a"), common::unique("groups-b")];
        for group in &groups {
            bed.commit(group, &topic, 0).await;
        }
        let listed = bed.admin().groups().await.unwrap();
        for group in &groups {
            let g = listed.iter().find(|g| g.group == *group).unwrap();
            assert_eq!((g.state, g.kind, g.protocol_type.as_str()), (GroupState::Empty, GroupKind::Classic, ""));
        }
        assert!(listed.is_sorted_by_key(|g| g.group.clone()));
        let none = common::unique("groups-none");
        let told = bed.admin().describe_groups([&groups[0], &none, &groups[1]]).await.unwrap();
        assert_eq!(told.len(), 3);
        assert!(!told[0].as_ref().unwrap().is_active() && told[2].as_ref().unwrap().group == groups[1]);
        says(told[1].as_ref().unwrap_err(), ErrorKind::NotFound, &[&none]);
        says(&bed.admin().describe_group(&none).await.unwrap_err(), ErrorKind::NotFound, &[&none]);

        let done = bed.admin().delete_groups([&groups[0], &none, &groups[1]]).await.unwrap();
        assert!(done[0].is_ok() && done[2].is_ok(), "{done:?}");
        says(done[1].as_ref().unwrap_err(), ErrorKind::NotFound, &[&none]);
        assert!(bed.committed(&groups[0], &topic).await.is_empty());
        says(&bed.admin().delete_group(&groups[0]).await.unwrap_err(), ErrorKind::NotFound, &[&groups[0]]);
        assert_eq!(bed.admin().describe_group("").await.unwrap_err().kind(), ErrorKind::Config);
    }

    async fn offsets_of_a_group_are_deleted(bed) {
        let (group, topic) = (common::unique("offsets"), bed.topic("offsets", 3, &[1000]).await);
        bed.commit(&group, &topic, 1).await;
        let partitions = [(topic.clone(), Partition(0)), (topic.clone(), Partition(2))];
        bed.admin().delete_offsets(&group, &partitions).await.unwrap();
        let left: Vec<_> = bed.client.committed(&group, &topic).await.unwrap().into_keys().collect();
        assert_eq!(left, [Partition(1)]);
        let none = common::unique("offsets-none");
        let error = bed.admin().delete_offsets(&none, &partitions).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[&none]);
    }

    async fn members_of_the_classic_protocol_are_described_and_protect_their_offsets(bed) {
        members(&bed, "classic", GroupKind::Classic).await;
    }

    async fn members_of_the_newer_protocol_are_described_and_protect_their_offsets(bed) {
        members(&bed, "consumer", GroupKind::Consumer).await;
    }

    async fn records_are_deleted_before_an_offset(bed) {
        let topic = bed.topic("records", 2, &[1000, 2000, 3000]).await;
        let before = [(Partition(0), Offset(2)), (Partition(1), Offset(-1))];
        let starts = bed.admin().delete_records(&topic, &before).await.unwrap();
        assert_eq!(starts, BTreeMap::from([(Partition(0), Offset(2)), (Partition(1), Offset(3))]));
        assert_eq!(bed.client.offsets(&topic, muslin::kafka::At::Earliest).await.unwrap(), starts);
        let error = bed.admin().delete_records(&topic, &[(Partition(0), Offset(9))]).await.unwrap_err();
        says(&error, ErrorKind::Config, &[topic.as_str(), "partition 0", "offset 9"]);
        let none = Topic::new(common::unique("records-none")).unwrap();
        let error = bed.admin().delete_records(&none, &before).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[none.as_str()]);
    }
}

async fn members(bed: &Bed, protocol: &str, kind: GroupKind) {
    let (group, topic) = (common::unique("members"), bed.topic("members", 3, &[1000, 2000]).await);
    bed.commit(&group, &topic, 1).await;
    let planned = bed.plan(&group, &topic, ResetTo::Earliest).await;
    let member = bed.member(&group, &topic, protocol);
    let told = bed.assigned(&group, 3).await;
    assert_eq!(
        (told.kind, told.protocol_type.as_str(), told.epoch.is_some()),
        (kind, "consumer", kind == GroupKind::Consumer)
    );
    assert_eq!(told.members.len(), 1);
    let m = &told.members[0];
    assert_eq!(m.client, "java-member");
    assert!(m.host.contains("127.0.0.1") && !m.member.is_empty() && m.instance.is_none(), "{m:?}");
    let all = BTreeMap::from([(topic.clone(), vec![Partition(0), Partition(1), Partition(2)])]);
    assert_eq!(m.assigned, all);
    let listed = bed.admin().groups().await.unwrap();
    let g = listed.iter().find(|g| g.group == group).unwrap();
    assert_eq!((g.kind, g.protocol_type.as_str()), (kind, "consumer"));
    let lag = bed.client.lag().group(&group).once().await.unwrap().partitions;
    assert!(lag.iter().all(|p| p.member.as_deref() == Some(&m.member)), "{lag:?}");

    let to = bed.admin().reset_offsets(&group, ResetTo::Earliest).topic(&topic);
    says(&to.plan().await.unwrap_err(), ErrorKind::Conflict, &[&group, "a member", "stop them first"]);
    says(&planned.execute().await.unwrap_err(), ErrorKind::Conflict, &[&group, "a member"]);
    says(&bed.admin().delete_group(&group).await.unwrap_err(), ErrorKind::Conflict, &[&group]);
    let error = bed.admin().delete_offsets(&group, &[(topic.clone(), Partition(0))]).await.unwrap_err();
    says(&error, ErrorKind::Conflict, &[&group, topic.as_str()]);

    member.leave();
    bed.emptied(&group).await;
    planned.execute().await.unwrap();
    assert_eq!(bed.committed(&group, &topic).await, [0, 0, 0]);
    let lag = bed.client.lag().group(&group).once().await.unwrap().partitions;
    assert!(lag.iter().all(|p| p.state == LagState::Stopped && p.lag == Some(2)), "{lag:?}");
    bed.admin().delete_group(&group).await.unwrap();
}

/// What Kafka's own tool would reset a group's offsets to, by partition.
fn tool(bed: &Bed, group: &str, topic: &Topic, policy: &[&str]) -> Vec<i64> {
    let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let bootstrap = bed.bootstrap();
    let args = ["kafka", class, "--bootstrap-server", &bootstrap, "--reset-offsets", "--dry-run"];
    let of = ["--group", group, "--topic", topic.as_str()];
    let table = common::brokers_sh(&[&args[..], &of[..], policy].concat());
    let rows = table.lines().filter(|line| line.starts_with(group));
    let rows = rows.map(|line| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        (cells[2].parse::<i32>().unwrap(), cells[3].parse::<i64>().unwrap())
    });
    let targets: BTreeMap<i32, i64> = rows.collect();
    assert!(!targets.is_empty(), "{table}");
    targets.into_values().collect()
}

#[tokio::test]
async fn each_policy_agrees_with_kafkas_own_tool() {
    let bed = Bed::real().await;
    // 2026-01-31T12:00:00Z and around it.
    let noon = 1_769_860_800_000;
    let times = [noon - 2000, noon - 1000, noon + 500, now() - 1_800_000, now() - 1000];
    let (group, topic) = (common::unique("agree"), bed.topic("agree", 2, &times).await);
    bed.commit(&group, &topic, 2).await;
    for (to, policy) in [
        (ResetTo::Earliest, &["--to-earliest"][..]),
        (ResetTo::Latest, &["--to-latest"]),
        (ResetTo::Timestamp(Timestamp(noon)), &["--to-datetime", "2026-01-31T12:00:00.000Z"]),
        (ResetTo::Ago(Duration::from_secs(3600)), &["--by-duration", "PT1H"]),
        (ResetTo::Shift(2), &["--shift-by", "2"]),
        (ResetTo::Shift(-5), &["--shift-by", "-5"]),
        (ResetTo::Exact(Offset(1)), &["--to-offset", "1"]),
        (ResetTo::Exact(Offset(99)), &["--to-offset", "99"]),
    ] {
        assert_eq!(
            targets(&bed.plan(&group, &topic, to).await),
            tool(&bed, &group, &topic, policy),
            "{to:?}"
        );
    }
}

#[tokio::test]
async fn what_passes_by_itself_is_asked_again() {
    for (request, action) in [
        ("ListGroups", Action::Error(14)),
        ("DescribeGroups", Action::Error(16)),
        ("DescribeGroups", Action::MoveCoordinator(None)),
        ("DescribeGroups", Action::DropAnswer),
        ("OffsetCommit", Action::MoveCoordinator(None)),
        ("OffsetDelete", Action::Error(15)),
        ("OffsetDelete", Action::MoveCoordinator(None)),
        ("OffsetDelete", Action::DropAnswer),
        ("DeleteRecords", Action::MoveLeader(None)),
        ("DeleteRecords", Action::DropAnswer),
        ("DeleteGroups", Action::MoveCoordinator(None)),
        ("DeleteGroups", Action::DropRequest),
        // The group is gone when it is asked again: that is what was wanted.
        ("DeleteGroups", Action::DropAnswer),
    ] {
        let bed = Bed::over(Kafka::builder().brokers(3).start().await.unwrap()).await;
        let what = format!("{request}: {action}");
        let (group, topic) = (common::unique("again"), Topic::new(common::unique("again")).unwrap());
        bed.admin().create_topic(&NewTopic::new(topic.clone()).partitions(2)).await.unwrap();
        bed.fault(request, action, |rule| rule.nth(1));
        bed.commit(&group, &topic, 0).await;
        assert_eq!(bed.admin().groups().await.unwrap().len(), 1, "{what}");
        let told = bed.admin().describe_group(&group).await;
        assert_eq!(told.unwrap_or_else(|e| panic!("{what}: {}", e.report())).state, GroupState::Empty);
        let done = bed.admin().delete_offsets(&group, &[(topic.clone(), Partition(0))]).await;
        done.unwrap_or_else(|e| panic!("{what}: {}", e.report()));
        let done = bed.admin().delete_records(&topic, &[(Partition(0), Offset(0))]).await;
        done.unwrap_or_else(|e| panic!("{what}: {}", e.report()));
        let done = bed.admin().delete_group(&group).await;
        done.unwrap_or_else(|e| panic!("{what}: {}", e.report()));
        assert!(bed.kafka().faults(|f| f.met().len()) > 0, "{what}: it was not met");
    }
}

#[tokio::test]
async fn what_is_refused_is_named_and_what_may_be_done_is_told() {
    let bed = Bed::embedded().await;
    let (group, topic) = (common::unique("refused"), bed.topic("refused", 1, &[1000]).await);
    bed.commit(&group, &topic, 0).await;
    let place = [(topic.clone(), Partition(0))];
    for request in ["DescribeGroups", "DeleteGroups", "OffsetDelete"] {
        bed.fault(request, Action::Error(30), |rule| rule.name("denied"));
        let error = match request {
            "DescribeGroups" => bed.admin().describe_group(&group).await.map(drop).unwrap_err(),
            "DeleteGroups" => bed.admin().delete_group(&group).await.unwrap_err(),
            _ => bed.admin().delete_offsets(&group, &place).await.unwrap_err(),
        };
        says(&error, ErrorKind::Denied, &[&group]);
        bed.kafka().faults(|f| f.remove("denied"));
    }
    // Never answered: what asks is certain that nothing was done, what deletes is not.
    bed.fault("DescribeGroups,DeleteGroups,ListGroups", Action::DropRequest, |rule| rule);
    let error = bed.admin().describe_group(&group).await.unwrap_err();
    assert!(!error.is_ambiguous() && error.report().contains(&group), "{}", error.report());
    let error = bed.admin().delete_group(&group).await.unwrap_err();
    assert!(error.is_ambiguous() && error.report().contains(&group), "{}", error.report());
    let error = bed.admin().groups().await.unwrap_err();
    assert!(
        !error.is_ambiguous() && error.report().contains("list the groups of broker 1"),
        "{}",
        error.report()
    );
}
