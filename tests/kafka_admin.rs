//! The cluster, transactions, users and rights, administered on the embedded broker and on a real one. Rights are asked of the
//! real one alone: the embedded one has none.
#![allow(clippy::disallowed_methods, reason = "tests read clocks")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail the test")]
#[macro_use]
#[path = "common/both.rs"]
mod both;
mod common;

use std::time::{Duration, Instant};

use both::says;
use muslin::embedded::Kafka;
use muslin::embedded::faults::{Action, Rule};
use muslin::kafka::{
    Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource, Admin, At, Client, Isolation,
    NewTopic, Record, ScramMechanism, TransactionState, TransactionalProducer,
};
use muslin::{Error, ErrorKind, NodeId, Offset, Partition, Topic};

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

    fn fault(&self, request: &str, action: Action, shape: impl FnOnce(Rule) -> Rule) {
        let rule = shape(Rule::new(request, action).unwrap());
        self.embedded.as_ref().unwrap().faults(|f| f.add(rule)).unwrap();
    }

    async fn topic(&self, prefix: &str) -> Topic {
        let topic = Topic::new(common::unique(prefix)).unwrap();
        self.admin().create_topic(&NewTopic::new(topic.clone()).partitions(1)).await.unwrap();
        topic
    }

    async fn transactional(&self, id: &str) -> TransactionalProducer {
        self.client.transactional_producer(id).build().await.unwrap()
    }

    /// What readers of committed records may read of a topic's partition 0.
    async fn stable_end(&self, group: &str, topic: &Topic) -> Offset {
        let reset = self.admin().reset_offsets(group, muslin::kafka::ResetTo::Earliest).topic(topic);
        reset.plan().await.unwrap().execute().await.unwrap();
        let lag = self.client.lag().group(group).isolation(Isolation::ReadCommitted).once().await.unwrap();
        lag.partitions[0].end.unwrap()
    }
}

on_both! {
    async fn the_cluster_tells_its_brokers_and_its_name(bed) {
        let told = bed.admin().cluster().await.unwrap();
        assert!(!told.id.is_empty());
        assert_eq!(told.brokers.len(), 1);
        let broker = &told.brokers[0];
        assert_eq!(told.controller, Some(broker.node));
        let bootstrap = bed.embedded.as_ref().map_or_else(common::kafka, Kafka::bootstrap);
        assert!(bootstrap.ends_with(&format!("{}:{}", broker.host, broker.port)), "{broker:?}");
        assert!(!broker.fenced);
    }

    async fn an_open_transaction_is_listed_described_and_aborted(bed) {
        let (id, topic) = (common::unique("tx"), bed.topic("tx").await);
        let mut producer = bed.transactional(&id).await;
        let open = producer.begin().await.unwrap();
        open.send(Record::to_topic(&topic).partition(0).value("v")).await.unwrap();

        let listed = bed.admin().transactions().await.unwrap();
        let mine = listed.iter().find(|t| t.transactional_id == id).expect("the id is listed");
        assert_eq!(mine.state, TransactionState::Ongoing);
        let told = bed.admin().describe_transaction(&id).await.unwrap();
        assert_eq!((told.producer, told.state), (mine.producer, TransactionState::Ongoing));
        assert_eq!(told.partitions.get(&topic), Some(&vec![Partition(0)]));
        assert!(told.started.is_some() && told.timeout > Duration::ZERO, "{told:?}");
        let producers = bed.admin().producers(&topic, Partition(0)).await.unwrap();
        let here = producers.iter().find(|p| p.producer == told.producer).expect("the leader knows it");
        assert_eq!(here.transaction_start, Some(Offset(0)));

        let group = common::unique("tx");
        assert_eq!(bed.stable_end(&group, &topic).await, Offset(0));
        bed.admin().abort_transaction(&id).await.unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while bed.stable_end(&group, &topic).await != Offset(2) {
            assert!(Instant::now() < end, "the abort is not written");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let state = bed.admin().describe_transaction(&id).await.unwrap().state;
        assert!(matches!(state, TransactionState::CompleteAbort | TransactionState::Empty), "{state:?}");
        // Whoever held it learns that it is no longer his.
        let error = open.commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
    }

    async fn a_transaction_that_hangs_is_ended_where_it_begins(bed) {
        let (id, topic) = (common::unique("hang"), bed.topic("hang").await);
        let mut producer = bed.transactional(&id).await;
        let open = producer.begin().await.unwrap();
        open.send(Record::to_topic(&topic).partition(0).value("v")).await.unwrap();
        let group = common::unique("hang");
        assert_eq!(bed.stable_end(&group, &topic).await, Offset(0));
        let wrong = bed.admin().abort_hanging(&topic, Partition(0), Offset(7)).await.unwrap_err();
        says(&wrong, ErrorKind::NotFound, &[topic.as_str(), "offset 7", "no open transaction"]);
        bed.admin().abort_hanging(&topic, Partition(0), Offset(0)).await.unwrap();
        assert_eq!(bed.stable_end(&group, &topic).await, Offset(2));
        let producers = bed.admin().producers(&topic, Partition(0)).await.unwrap();
        assert!(producers.iter().all(|p| p.transaction_start.is_none()), "{producers:?}");
        drop(open);
        bed.admin().abort_transaction(&id).await.unwrap();
    }

    async fn what_is_not_there_is_not_found(bed) {
        let none = common::unique("none");
        let error = bed.admin().describe_transaction(&none).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[&none]);
        assert_eq!(bed.admin().describe_transaction("").await.unwrap_err().kind(), ErrorKind::Config);
        let topic = Topic::new(&none).unwrap();
        let error = bed.admin().producers(&topic, Partition(0)).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[&none]);
        let error = bed.admin().delete_user(&none, ScramMechanism::Sha256).await.unwrap_err();
        says(&error, ErrorKind::NotFound, &[&none, "SCRAM-SHA-256"]);
    }

    async fn users_are_given_passwords_and_lose_them(bed) {
        let (admin, user) = (bed.admin(), common::unique("user"));
        admin.upsert_user(&user, ScramMechanism::Sha256, "secret-1").await.unwrap();
        admin.upsert_user_with(&user, ScramMechanism::Sha512, "secret-2", 4096).await.unwrap();
        let mine = async || {
            // A broker may take a moment to see what the controller did.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let users = admin.users().await.unwrap();
            let mut mine: Vec<_> =
                users.into_iter().filter(|u| u.user == user).flat_map(|u| u.credentials).collect();
            mine.sort_unstable();
            mine
        };
        assert_eq!(mine().await, [(ScramMechanism::Sha256, 8192), (ScramMechanism::Sha512, 4096)]);
        for (password, iterations, word) in [("", 4096, "password"), ("x", 4095, "4095"), ("x", 20_000, "20000")] {
            let error =
                admin.upsert_user_with(&user, ScramMechanism::Sha256, password, iterations).await.unwrap_err();
            says(&error, ErrorKind::Config, &[&user, word]);
        }
        admin.delete_user(&user, ScramMechanism::Sha512).await.unwrap();
        assert_eq!(mine().await, [(ScramMechanism::Sha256, 8192)]);
        admin.delete_user(&user, ScramMechanism::Sha256).await.unwrap();
        assert!(mine().await.is_empty());
    }
}

#[tokio::test]
async fn brokers_tell_their_racks() {
    let kafka = Kafka::builder().brokers(3).racks(["a", "b"]).start().await.unwrap();
    let told = Bed::over(kafka).await.admin().cluster().await.unwrap();
    let brokers: Vec<_> = told.brokers.iter().map(|b| (b.node, b.rack.as_deref())).collect();
    assert_eq!(brokers, [(NodeId(1), Some("a")), (NodeId(2), Some("b")), (NodeId(3), Some("a"))]);
}

#[tokio::test]
async fn a_password_that_was_given_opens_a_real_broker_to_a_java_client() {
    let (bed, user) = (Bed::real().await, common::unique("scram"));
    for (mechanism, password) in
        [(ScramMechanism::Sha256, "pass word 1"), (ScramMechanism::Sha512, "pass-w\u{f6}rd-2")]
    {
        bed.admin().upsert_user(&user, mechanism, password).await.unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let login = "org.apache.kafka.common.security.scram.ScramLoginModule";
        let settings = format!(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism={}\nsasl.jaas.config={login} required username=\"{user}\" password=\"{password}\";\n",
            mechanism.as_str()
        );
        // A properties file in Java's own encoding.
        std::fs::write(file.path(), settings.replace('\u{f6}', "\\u00f6")).unwrap();
        let path = file.path().to_str().unwrap();
        let class = "org.apache.kafka.tools.TopicCommand";
        let bootstrap = common::kafka_sasl();
        common::brokers_sh(&[
            "kafka",
            class,
            "--bootstrap-server",
            &bootstrap,
            "--command-config",
            path,
            "--list",
        ]);
        bed.admin().delete_user(&user, mechanism).await.unwrap();
    }
}

#[tokio::test]
async fn rights_are_created_told_and_deleted_on_a_real_broker() {
    let (bed, topic) = (Bed::real().await, common::unique("acl"));
    let read = Acl::allow("User:carol", AclOperation::Read, AclResource::Topic, &topic);
    let deny = Acl {
        pattern: AclPattern::Prefixed,
        permission: AclPermission::Deny,
        operation: AclOperation::Delete,
        host: "10.0.0.7".to_owned(),
        ..read.clone()
    };
    bed.admin().create_acls(&[read.clone(), deny.clone()]).await.unwrap();
    let filter = AclFilter { name: Some(topic.clone()), ..AclFilter::default() };
    let mut wanted = vec![read.clone(), deny.clone()];
    wanted.sort();
    let end = Instant::now() + Duration::from_secs(20);
    // The broker takes them in a moment later.
    while bed.admin().acls(&filter).await.unwrap() != wanted {
        assert!(Instant::now() < end, "{:?}", bed.admin().acls(&filter).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let class = "org.apache.kafka.tools.AclCommand";
    let bootstrap = common::kafka();
    let theirs = common::brokers_sh(&[
        "kafka",
        class,
        "--bootstrap-server",
        &bootstrap,
        "--list",
        "--topic",
        &topic,
        "--resource-pattern-type",
        "any",
    ]);
    for words in [
        "(principal=User:carol, host=*, operation=READ, permissionType=ALLOW)",
        "(principal=User:carol, host=10.0.0.7, operation=DELETE, permissionType=DENY)",
        "patternType=PREFIXED",
    ] {
        assert!(theirs.contains(words), "{words} is not in: {theirs}");
    }

    assert_eq!(bed.admin().delete_acls(&AclFilter::from(&deny)).await.unwrap(), [deny]);
    assert_eq!(bed.admin().delete_acls(&filter).await.unwrap(), [read]);
    assert_eq!(bed.admin().delete_acls(&filter).await.unwrap(), []);
    let error = bed.admin().delete_acls(&AclFilter::default()).await.unwrap_err();
    says(&error, ErrorKind::Config, &["the filter is empty"]);
    let nonsense = Acl {
        resource: AclResource::Unknown(99),
        ..Acl::allow("User:x", AclOperation::Read, AclResource::Topic, "t")
    };
    let error = bed.admin().create_acls(&[nonsense]).await.unwrap_err();
    assert!(error.report().contains("User:x may read unknown t"), "{}", error.report());
    bed.admin().create_acls(&[]).await.unwrap();
}

#[tokio::test]
async fn a_broker_without_rights_says_that_it_has_none() {
    let bed = Bed::embedded().await;
    let error = bed.admin().acls(&AclFilter::default()).await.unwrap_err();
    says(&error, ErrorKind::Unsupported, &["list the ACLs", "DescribeAcls"]);
    let acl = Acl::allow("User:x", AclOperation::Read, AclResource::Topic, "t");
    let error = bed.admin().create_acls(&[acl]).await.unwrap_err();
    says(&error, ErrorKind::Unsupported, &["User:x may read topic t"]);
}

#[tokio::test]
async fn what_passes_by_itself_is_asked_again_and_what_may_have_been_done_is_told() {
    for (request, action) in [
        ("ListTransactions", Action::Error(14)),
        ("ListTransactions", Action::DropAnswer),
        ("DescribeTransactions", Action::MoveCoordinator(None)),
        ("DescribeProducers", Action::MoveLeader(None)),
        ("InitProducerId", Action::Error(51)),
        ("InitProducerId", Action::DropAnswer),
        ("WriteTxnMarkers", Action::DropAnswer),
        ("WriteTxnMarkers", Action::DropRequest),
        ("DescribeUserScramCredentials", Action::DropAnswer),
        ("AlterUserScramCredentials", Action::DropAnswer),
        ("DescribeCluster", Action::DropAnswer),
    ] {
        let bed = Bed::over(Kafka::builder().brokers(3).start().await.unwrap()).await;
        let what = format!("{request}: {action}");
        let (id, topic) = (common::unique("again"), bed.topic("again").await);
        let mut producer = bed.transactional(&id).await;
        let open = producer.begin().await.unwrap();
        open.send(Record::to_topic(&topic).partition(0).value("v")).await.unwrap();
        bed.fault(request, action, |rule| rule.nth(1));
        let admin = bed.admin();
        let done = async {
            admin.cluster().await?;
            assert_eq!(admin.transactions().await?.len(), 1, "{what}");
            admin.describe_transaction(&id).await?;
            admin.producers(&topic, Partition(0)).await?;
            admin.abort_hanging(&topic, Partition(0), Offset(0)).await?;
            admin.abort_transaction(&id).await?;
            admin.upsert_user("u", ScramMechanism::Sha256, "p").await?;
            admin.users().await?;
            admin.delete_user("u", ScramMechanism::Sha256).await
        };
        done.await.unwrap_or_else(|e: Error| panic!("{what}: {}", e.report()));
        // The record, one marker where it was ended as hanging, and the coordinator's own.
        let end = bed.client.offsets(&topic, At::Latest).await.unwrap()[&Partition(0)];
        assert_eq!(end, Offset(3), "{what}");
        let kafka = bed.embedded.as_ref().unwrap();
        assert!(kafka.faults(|f| f.met().len()) > 0, "{what}: it was not met");
    }
    // A deletion whose answer is lost, and the user gone when it is asked again.
    let bed = Bed::embedded().await;
    bed.admin().upsert_user("u", ScramMechanism::Sha256, "p").await.unwrap();
    bed.fault("AlterUserScramCredentials", Action::DropAnswer, |rule| rule.first(1));
    bed.admin().delete_user("u", ScramMechanism::Sha256).await.unwrap();
    bed.fault("AlterUserScramCredentials,InitProducerId", Action::DropRequest, |rule| rule);
    let error = bed.admin().upsert_user("u", ScramMechanism::Sha256, "p").await.unwrap_err();
    assert!(error.is_ambiguous() && error.report().contains("user u"), "{}", error.report());
    let error = bed.admin().abort_transaction("t").await.unwrap_err();
    assert!(error.is_ambiguous() && error.report().contains("transactional id t"), "{}", error.report());
}
