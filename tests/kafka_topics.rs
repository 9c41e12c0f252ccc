//! Topics: created, described, given more partitions and other settings, deleted, on the embedded broker and on a real one;
//! and what a user reads when it goes wrong. What needs a fault is asked of the embedded one alone.
#![allow(clippy::disallowed_methods, reason = "tests read clocks")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
#[macro_use]
#[path = "common/both.rs"]
mod both;
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use both::says;
use bytes::{Buf, Bytes};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::{
    ApiKey, CreateAclsRequest, RequestHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use muslin::embedded::Kafka;
use muslin::embedded::faults::{Action, Rule};
use muslin::embedded::sim::Network;
use muslin::kafka::{
    Admin, Client, ConfigChange, ConfigSource, Connect, Connecting, Io, NewTopic, Producer, Record,
};
use muslin::{ErrorKind, Partition, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
        let client = Client::builder(kafka.bootstrap())
            .request_timeout(Duration::from_secs(2))
            .connect_timeout(Duration::from_secs(2));
        Self { client: client.connect().await.unwrap(), embedded: Some(kafka) }
    }

    async fn real() -> Self {
        Self { client: Client::builder(common::kafka()).connect().await.unwrap(), embedded: None }
    }

    fn admin(&self) -> Admin {
        self.client.admin()
    }

    fn bootstrap(&self) -> String {
        self.embedded.as_ref().map_or_else(common::kafka, Kafka::bootstrap)
    }

    fn fault(&self, request: &str, action: Action, shape: impl FnOnce(Rule) -> Rule) {
        let rule = shape(Rule::new(request, action).unwrap());
        self.embedded.as_ref().unwrap().faults(|f| f.add(rule)).unwrap();
    }

    async fn is_there(&self, topic: &Topic) -> bool {
        match self.admin().describe_topic(topic).await {
            Ok(_) => true,
            Err(e) if e.kind() == ErrorKind::NotFound => false,
            Err(e) => panic!("{}", e.report()),
        }
    }
}

fn name(prefix: &str) -> Topic {
    Topic::new(common::unique(prefix)).unwrap()
}

on_both! {
    async fn a_topic_is_created_as_asked_and_described(bed) {
        let (admin, topic) = (bed.admin(), name("made"));
        let new = NewTopic::new(topic.clone()).partitions(3).replication(1).config("retention.ms", "86400001");
        let made = admin.create_topic(&new).await.unwrap();
        assert_eq!((made.partitions, made.replication, made.answer_lost), (Some(3), Some(1), false));

        let told = admin.describe_topic(&topic).await.unwrap();
        assert_eq!((told.partitions.len(), told.replication(), told.internal), (3, 1, false));
        for (p, n) in told.partitions.iter().zip(0..) {
            assert_eq!(p.partition, Partition(n));
            let leader = p.leader.expect("a leader");
            assert_eq!((&p.replicas[..], &p.in_sync[..], &p.offline[..]), (&[leader][..], &[leader][..], &[][..]));
        }
        let configs = admin.topic_configs(&topic).await.unwrap();
        let of = |name: &str| configs.iter().find(|c| c.name == name).expect("the setting");
        assert_eq!(of("retention.ms").value.as_deref(), Some("86400001"));
        assert_eq!(of("retention.ms").source, ConfigSource::Topic);
        assert_eq!(of("compression.type").value.as_deref(), Some("producer"));
        assert_eq!(of("compression.type").source, ConfigSource::Default);
        let all = admin.topics().await.unwrap();
        assert!(all.iter().any(|t| t.topic == topic && t.partitions.len() == 3));
        assert!(all.is_sorted_by_key(|t| t.topic.clone()));
    }

    async fn what_is_not_said_is_the_brokers_default(bed) {
        let topic = name("default");
        let made = bed.admin().create_topic(&NewTopic::new(topic.clone())).await.unwrap();
        let told = bed.admin().describe_topic(&topic).await.unwrap();
        assert_eq!(made.partitions, Some(told.partitions.len() as i32));
        assert_eq!(made.replication, Some(told.replication() as i16));
    }

    async fn a_check_creates_nothing_and_finds_what_is_wrong(bed) {
        let (admin, topic) = (bed.admin(), name("check"));
        let new = NewTopic::new(topic.clone()).partitions(2).replication(1);
        assert_eq!(admin.validate_topic(&new).await.unwrap().partitions, Some(2));
        assert!(!bed.is_there(&topic).await);
        let error = admin.validate_topic(&new.clone().replication(99)).await.unwrap_err();
        says(&error, ErrorKind::Config, &[topic.as_str(), "99"]);
        admin.create_topic(&new).await.unwrap();
        says(&admin.validate_topic(&new).await.unwrap_err(), ErrorKind::Conflict, &[topic.as_str()]);
    }

    async fn what_cannot_be_created_is_told_with_its_name_and_that_nothing_was(bed) {
        let (admin, topic) = (bed.admin(), name("wrong"));
        let new = || NewTopic::new(topic.clone());
        for (new, words) in [
            (new().partitions(0), ["number of partitions is 0", "expected 1 or more"]),
            (new().replication(-2), ["number of replicas is -2", "expected 1 or more"]),
            (new().replication(99), ["99 replicas", "nothing was created"]),
            (new().config("retention.hours", "1"), ["retention.hours", "nothing was created"]),
            (new().config("retention.ms", "soon"), ["retention.ms", "nothing was created"]),
            (new().config("cleanup.policy", "shred"), ["cleanup.policy", "nothing was created"]),
        ] {
            let error = admin.create_topic(&new).await.unwrap_err();
            says(&error, ErrorKind::Config, &[topic.as_str(), words[0], words[1]]);
        }
        assert!(!bed.is_there(&topic).await);
        admin.create_topic(&new()).await.unwrap();
        let error = admin.create_topic(&new()).await.unwrap_err();
        says(&error, ErrorKind::Conflict, &[topic.as_str(), "nothing was created"]);
    }

    async fn a_topic_gets_more_partitions_and_never_fewer(bed) {
        let (admin, topic) = (bed.admin(), name("grow"));
        bed.client.create_topic(&topic, 1, 1).await.unwrap();
        admin.add_partitions(&topic, 4).await.unwrap();
        assert_eq!(admin.describe_topic(&topic).await.unwrap().partitions.len(), 4);
        for total in [4, 3, 0, -1] {
            let error = admin.add_partitions(&topic, total).await.unwrap_err();
            says(&error, ErrorKind::Config, &[topic.as_str(), &total.to_string()]);
        }
        let nowhere = name("nowhere");
        let error = admin.add_partitions(&nowhere, 4).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[nowhere.as_str(), "no partition was added"]);
        assert!(!bed.is_there(&nowhere).await);
    }

    async fn settings_of_a_topic_are_changed_together_or_not_at_all(bed) {
        let (admin, topic) = (bed.admin(), name("alter"));
        admin.create_topic(&NewTopic::new(topic.clone()).config("retention.ms", "1000000")).await.unwrap();
        let set = ConfigChange::set;
        admin
            .alter_topic(&topic, &[set("max.message.bytes", "54321"), ConfigChange::reset("retention.ms")])
            .await
            .unwrap();
        let value = async |name: &str| {
            let configs = admin.topic_configs(&topic).await.unwrap();
            let config = configs.into_iter().find(|c| c.name == name).unwrap();
            (config.value.unwrap_or_default(), config.source == ConfigSource::Topic)
        };
        assert_eq!(value("max.message.bytes").await, ("54321".to_owned(), true));
        assert_eq!(value("retention.ms").await, ("604800000".to_owned(), false));
        let changes = [set("max.message.bytes", "1"), set("retention.ms", "soon")];
        let error = admin.alter_topic(&topic, &changes).await.unwrap_err();
        says(&error, ErrorKind::Config, &[topic.as_str(), "retention.ms", "no setting was changed"]);
        let error = admin.alter_topic(&topic, &[set("retention.hours", "1")]).await.unwrap_err();
        says(&error, ErrorKind::Config, &[topic.as_str(), "retention.hours"]);
        assert_eq!(value("max.message.bytes").await, ("54321".to_owned(), true));
        let nowhere = name("nowhere");
        let error = admin.alter_topic(&nowhere, &[set("retention.ms", "1")]).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[nowhere.as_str(), "no setting was changed"]);
    }

    async fn a_topic_that_is_not_there_is_not_found_and_not_created(bed) {
        let (admin, topic) = (bed.admin(), name("none"));
        for error in [
            admin.describe_topic(&topic).await.map(drop).unwrap_err(),
            admin.topic_configs(&topic).await.map(drop).unwrap_err(),
            admin.delete_topic(&topic).await.unwrap_err(),
        ] {
            says(&error, ErrorKind::NotFound, &[topic.as_str()]);
        }
        assert!(admin.topics().await.unwrap().iter().all(|t| t.topic != topic));
    }

    async fn a_deleted_topic_is_gone_and_can_be_made_anew(bed) {
        let (admin, topic) = (bed.admin(), name("gone"));
        bed.client.create_topic(&topic, 3, 1).await.unwrap();
        admin.delete_topic(&topic).await.unwrap();
        let error = admin.delete_topic(&topic).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[topic.as_str(), "nothing was deleted"]);
        bed.client.create_topic(&topic, 1, 1).await.unwrap();
        assert_eq!(admin.describe_topic(&topic).await.unwrap().partitions.len(), 1);
    }

    async fn a_producer_creates_an_unknown_topic_or_says_that_it_is_not_there(bed) {
        let (kept, made) = (name("unknown"), name("made"));
        let producer = bed.client.producer().allow_auto_create(false).build().await.unwrap();
        let error = producer.send(Record::to_topic(kept.clone()).value("x")).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[kept.as_str(), "create the topic"]);
        assert!(!bed.is_there(&kept).await);
        let producer = bed.client.producer().build().await.unwrap();
        producer.send(Record::to_topic(made.clone()).value("x")).await.unwrap();
        assert!(bed.is_there(&made).await);
    }

    async fn a_running_producer_finds_added_partitions_after_the_age_that_is_set(bed) {
        let topic = name("aged");
        bed.client.create_topic(&topic, 1, 1).await.unwrap();
        let other = Client::builder(bed.bootstrap()).metadata_max_age(Duration::from_millis(300));
        let producer = other.connect().await.unwrap().producer().build().await.unwrap();
        assert!(places(&producer, &topic).await.values().all(|p| *p == Partition(0)));
        bed.admin().add_partitions(&topic, 4).await.unwrap();
        let wanted = places(&bed.client.producer().build().await.unwrap(), &topic).await;
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while places(&producer, &topic).await != wanted {
            assert!(std::time::Instant::now() < end, "the partitions are not found");
        }
        assert!(wanted.values().collect::<BTreeSet<_>>().len() > 1);
    }

    async fn a_partition_that_is_not_there_is_named_with_those_that_are(bed) {
        let topic = name("few");
        bed.client.create_topic(&topic, 2, 1).await.unwrap();
        let producer = bed.client.producer().build().await.unwrap();
        let record = || Record::to_topic(topic.clone()).partition(Partition(2)).value("x");
        let error = producer.send(record()).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[topic.as_str(), "partition 2", "2 partitions"]);
        bed.admin().add_partitions(&topic, 3).await.unwrap();
        assert_eq!(producer.send(record()).await.unwrap().partition, Partition(2));
    }
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_found_to_be_made() {
    for action in [Action::DropAnswer, Action::CutAnswer(6), Action::Hold("never".to_owned())] {
        let bed = Bed::embedded().await;
        let (admin, topic) = (bed.admin(), name("lost"));
        for request in ["CreateTopics", "CreatePartitions", "DeleteTopics", "IncrementalAlterConfigs"] {
            bed.fault(request, action.clone(), |rule| rule.nth(1));
        }
        let new = NewTopic::new(topic.clone()).partitions(2).config("retention.ms", "5000000");
        let made = admin.create_topic(&new).await.unwrap();
        assert_eq!((made.partitions, made.answer_lost), (Some(2), true), "{action:?}");
        admin.add_partitions(&topic, 3).await.unwrap();
        assert_eq!(admin.describe_topic(&topic).await.unwrap().partitions.len(), 3);
        if !matches!(action, Action::Hold(_)) {
            admin.alter_topic(&topic, &[ConfigChange::set("retention.ms", "6000000")]).await.unwrap();
        }
        admin.delete_topic(&topic).await.unwrap();
        assert!(!bed.is_there(&topic).await);
    }
}

#[tokio::test]
async fn a_request_that_is_lost_is_sent_again() {
    let bed = Bed::embedded().await;
    let (admin, topic) = (bed.admin(), name("again"));
    for request in ["CreateTopics", "CreatePartitions", "DeleteTopics", "IncrementalAlterConfigs"] {
        bed.fault(request, Action::DropRequest, |rule| rule.first(2));
        // The controller moves, is slow, is spared: nothing was done.
        bed.fault(request, Action::Error(41), |rule| rule.nth(3));
        bed.fault(request, Action::Error(7), |rule| rule.nth(4));
        bed.fault(request, Action::Error(89), |rule| rule.nth(5));
    }
    assert!(!admin.create_topic(&NewTopic::new(topic.clone())).await.unwrap().answer_lost);
    admin.add_partitions(&topic, 3).await.unwrap();
    admin.alter_topic(&topic, &[ConfigChange::set("retention.ms", "6000000")]).await.unwrap();
    admin.delete_topic(&topic).await.unwrap();
    assert!(!bed.is_there(&topic).await);
}

#[tokio::test]
async fn what_was_there_before_is_not_taken_for_made_when_the_answer_is_lost() {
    let bed = Bed::embedded().await;
    let (admin, topic) = (bed.admin(), name("before"));
    bed.client.create_topic(&topic, 2, 1).await.unwrap();
    bed.fault("CreateTopics", Action::DropAnswer, |rule| rule);
    bed.fault("CreatePartitions", Action::DropAnswer, |rule| rule);
    let error = bed.client.create_topic(&topic, 2, 1).await.unwrap_err();
    says(&error, ErrorKind::Conflict, &[topic.as_str(), "was there before", "nothing was created"]);
    let error = admin.add_partitions(&topic, 2).await.unwrap_err();
    says(&error, ErrorKind::Config, &[topic.as_str(), "had 2 partitions before", "no partition was added"]);
}

#[tokio::test]
async fn a_change_that_stays_unknown_is_ambiguous() {
    let bed = Bed::embedded().await;
    let (admin, topic) = (bed.admin(), name("unknown"));
    bed.fault("CreateTopics", Action::DropRequest, |rule| rule);
    let error = admin.create_topic(&NewTopic::new(topic.clone())).await.unwrap_err();
    let report = error.report();
    assert!(error.is_ambiguous(), "{report}");
    assert!(report.contains(topic.as_str()) && report.contains("not known whether"), "{report}");
}

#[tokio::test]
async fn without_the_right_it_is_named_and_nothing_was_done() {
    let bed = Bed::embedded().await;
    let (admin, topic) = (bed.admin(), name("denied"));
    for request in
        ["CreateTopics", "CreatePartitions", "DeleteTopics", "IncrementalAlterConfigs", "DescribeConfigs"]
    {
        bed.fault(request, Action::Error(29), |rule| rule);
    }
    let new = NewTopic::new(topic.clone());
    let changes = [ConfigChange::set("retention.ms", "1")];
    for (error, words) in [
        (
            admin.create_topic(&new).await.map(drop).unwrap_err(),
            ["Create on the topic", "nothing was created"],
        ),
        (admin.validate_topic(&new).await.map(drop).unwrap_err(), ["Create on the topic", "check whether"]),
        (
            admin.add_partitions(&topic, 2).await.unwrap_err(),
            ["Alter on the topic", "no partition was added"],
        ),
        (admin.alter_topic(&topic, &changes).await.unwrap_err(), ["AlterConfigs", "no setting was changed"]),
        (admin.topic_configs(&topic).await.map(drop).unwrap_err(), ["DescribeConfigs", "the right"]),
        (admin.delete_topic(&topic).await.unwrap_err(), ["Delete on the topic", "nothing was deleted"]),
    ] {
        says(&error, ErrorKind::Denied, &[topic.as_str(), words[0], words[1]]);
    }
}

#[tokio::test]
async fn replicas_are_told_as_they_are_when_a_broker_is_gone() {
    let bed = Bed::over(Kafka::builder().brokers(3).start().await.unwrap()).await;
    let (admin, topic) = (bed.admin(), name("replicas"));
    admin.create_topic(&NewTopic::new(topic.clone()).partitions(1).replication(3)).await.unwrap();
    let leader = admin.describe_topic(&topic).await.unwrap().partitions[0].leader.unwrap();
    bed.embedded.as_ref().unwrap().kill(leader).unwrap();
    let p = admin.describe_topic(&topic).await.unwrap().partitions.remove(0);
    assert_eq!((p.replicas.len(), p.in_sync.len(), &p.offline[..]), (3, 2, &[leader][..]));
    assert!(p.leader.is_some_and(|now| now != leader && p.in_sync.contains(&now)));
}

const KEYS: i32 = 40;

/// Where records with these keys go.
async fn places(producer: &Producer, topic: &Topic) -> BTreeMap<i32, Partition> {
    let mut places = BTreeMap::new();
    for n in 0..KEYS {
        let record = Record::to_topic(topic.clone()).key(format!("key-{n}")).value("x");
        places.insert(n, producer.send(record).await.unwrap().partition);
    }
    places
}

#[tokio::test(start_paused = true)]
async fn a_running_producer_sends_to_partitions_that_another_client_added_once_its_view_is_old() {
    let network = Network::new(5);
    let kafka = Kafka::builder().topic("grows", 1).start_on(&network).unwrap();
    let client = async |host: &str| {
        let wall = network.clone();
        let client = Client::builder(kafka.bootstrap()).connector(network.connector(host));
        client.wall_clock(move || wall.wall()).connect().await.unwrap()
    };
    let (here, there) = (client("here").await, client("there").await);
    let topic = Topic::new("grows").unwrap();
    let producer = here.producer().build().await.unwrap();
    assert!(places(&producer, &topic).await.values().all(|p| *p == Partition(0)));
    there.admin().add_partitions(&topic, 4).await.unwrap();

    // The default age, and the time of a question. The producer is idle meanwhile.
    tokio::time::sleep(Duration::from_secs(300 + 2)).await;
    let keyed = places(&producer, &topic).await;
    let fresh = there.producer().build().await.unwrap();
    assert_eq!(keyed, places(&fresh, &topic).await, "as a producer that begins now");
    assert!(keyed.values().collect::<BTreeSet<_>>().len() > 1);
    let mut keyless = BTreeSet::new();
    for _ in 0..400 {
        let record = Record::to_topic(topic.clone()).value(vec![0; 8 << 10]);
        keyless.insert(producer.send(record).await.unwrap().partition);
    }
    assert_eq!(keyless.len(), 4, "{keyless:?}");
    let last = Record::to_topic(topic.clone()).partition(Partition(3)).value("x");
    assert_eq!(producer.send(last).await.unwrap().partition, Partition(3));
}

/// Runs on time that stands still while anything is busy. What is busy for ever would hang: then the test fails instead.
fn in_a_moment(work: impl Future<Output = ()> + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(work);
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("it ends, and is not busy for ever");
}

#[test]
fn a_producer_with_nothing_to_do_sleeps_whatever_its_age() {
    in_a_moment(async {
        let network = Network::new(6);
        let kafka = Kafka::builder().topic("rests", 1).start_on(&network).unwrap();
        let wall = network.clone();
        let client = Client::builder(kafka.bootstrap())
            .connector(network.connector("here"))
            .wall_clock(move || wall.wall())
            .metadata_max_age(Duration::from_secs(10));
        let producer = client.connect().await.unwrap().producer().build().await.unwrap();
        // It knows no topic yet; then the cluster cannot be reached when its view is old.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let record = || Record::to("rests").unwrap().value("x");
        producer.send(record()).await.unwrap();
        network.block("here", "kafka-1");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        network.unblock("here", "kafka-1");
        tokio::time::sleep(Duration::from_secs(60)).await;
        producer.send(record()).await.unwrap();
    });
}

/// Sends a request and gives the body of its answer, of a version without tagged fields.
async fn call<R: Encodable>(
    stream: &mut TcpStream,
    key: ApiKey,
    version: i16,
    request: &R,
) -> std::io::Result<Bytes> {
    let mut body = Vec::new();
    let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
    header.encode(&mut body, 1).unwrap();
    request.encode(&mut body, version).unwrap();
    stream.write_u32(body.len() as u32).await?;
    stream.write_all(&body).await?;
    let mut answer = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut answer).await?;
    Ok(Bytes::from(answer).slice(4..))
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_owned())
}

/// Logs in as a user over SASL PLAIN before the client has the stream.
#[derive(Debug)]
struct LoggedIn(&'static [u8]);

impl Connect for LoggedIn {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let mut stream = TcpStream::connect((host, port)).await?;
            let hello = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
            assert_eq!(call(&mut stream, ApiKey::SaslHandshake, 1, &hello).await?.get_i16(), 0);
            let login = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(self.0));
            assert_eq!(call(&mut stream, ApiKey::SaslAuthenticate, 0, &login).await?.get_i16(), 0);
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

/// Lets `alice` see a topic and do nothing else with it.
async fn only_see(topic: &Topic) {
    const TOPIC: i8 = 2;
    const LITERAL: i8 = 3;
    const DESCRIBE: i8 = 8;
    const ALLOW: i8 = 3;
    let acl = AclCreation::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic.as_str()))
        .with_resource_pattern_type(LITERAL)
        .with_principal(text("User:alice"))
        .with_host(text("*"))
        .with_operation(DESCRIBE)
        .with_permission_type(ALLOW);
    let mut stream = TcpStream::connect(common::kafka()).await.unwrap();
    let request = CreateAclsRequest::default().with_creations(vec![acl]);
    let mut answer = call(&mut stream, ApiKey::CreateAcls, 1, &request).await.unwrap();
    let (_throttle, count, code) = (answer.get_i32(), answer.get_i32(), answer.get_i16());
    assert_eq!((count, code), (1, 0));
}

#[tokio::test]
async fn a_user_without_rights_on_a_real_broker_reads_which_right_is_missing() {
    let topic = name("shut");
    let owner = Client::builder(common::kafka()).connect().await.unwrap();
    owner.create_topic(&topic, 1, 1).await.unwrap();
    only_see(&topic).await;
    let alice = Client::builder(common::kafka_sasl()).connector(LoggedIn(b"\0alice\0alice-secret"));
    let alice = alice.connect().await.unwrap();
    let admin = alice.admin();
    // The broker's authorizer takes in an ACL a moment after it was created.
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while admin.topic_configs(&topic).await.is_ok() {
        assert!(std::time::Instant::now() < end, "the ACL has no effect");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(admin.describe_topic(&topic).await.unwrap().partitions.len(), 1);
    // Create and Delete are held by everybody here, on the cluster, for which there is no ACL.
    let changes = [ConfigChange::set("retention.ms", "1000000")];
    for (error, words) in [
        (admin.topic_configs(&topic).await.map(drop).unwrap_err(), ["DescribeConfigs", "the right"]),
        (admin.alter_topic(&topic, &changes).await.unwrap_err(), ["AlterConfigs", "no setting was changed"]),
        (
            admin.add_partitions(&topic, 2).await.unwrap_err(),
            ["Alter on the topic", "no partition was added"],
        ),
    ] {
        says(&error, ErrorKind::Denied, &[topic.as_str(), words[0], words[1]]);
    }
    let producer = alice.producer().build().await.unwrap();
    let error = producer.send(Record::to_topic(topic.clone()).value("x")).await.unwrap_err();
    says(&error, ErrorKind::Denied, &[topic.as_str(), "the right"]);
    let told = owner.admin().describe_topic(&topic).await.unwrap();
    assert_eq!(told.partitions.len(), 1);
    owner.delete_topic(&topic).await.unwrap();
}
