//! Every fault on the embedded Kafka, as this crate's client lives through it. In memory, in virtual time.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads the clock, and fails by a panic"
)]

use std::time::Duration;

use muslin::embedded::Kafka;
use muslin::embedded::faults::{Action, Faults, Met, Rule};
use muslin::embedded::sim::Network;
use muslin::kafka::{At, Client, Placed, Record};
use muslin::{ErrorKind, NodeId, Offset, Partition, Result, Topic};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// Three brokers, one topic with one partition, and a client.
struct Bed {
    network: Network,
    kafka: Kafka,
    client: Client,
}

impl Bed {
    async fn new(faults: Faults) -> Self {
        let network = Network::new(7);
        let kafka = Kafka::builder().brokers(3).topic("t", 1).faults(faults).start_on(&network).unwrap();
        let wall = network.clone();
        let client = Client::builder(kafka.bootstrap())
            .connector(network.connector("client"))
            .wall_clock(move || wall.wall())
            .request_timeout(10 * SECOND)
            .connect()
            .await
            .unwrap();
        Self { network, kafka, client }
    }

    /// The first produce request meets this.
    async fn with(action: Action) -> Self {
        Self::new(Faults::new(1).with(Rule::new("Produce", action).unwrap().nth(1)).unwrap()).await
    }

    async fn send(&self) -> Result<Placed> {
        let producer = self.client.producer().linger(Duration::ZERO).build().await?;
        producer.send(Record::to("t")?.value("v")).await
    }

    /// How many records the log has.
    async fn stored(&self) -> Offset {
        let ends = self.client.offsets(&Topic::new("t").unwrap(), At::Latest).await.unwrap();
        ends[&Partition(0)]
    }

    async fn leader(&self) -> Option<NodeId> {
        self.client.topic(&Topic::new("t").unwrap()).await.unwrap().partitions[0].leader
    }

    fn met(&self) -> Vec<Met> {
        self.kafka.faults(|f| f.met().cloned().collect())
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_passes_is_tried_again_and_one_that_does_not_is_told() {
    let bed = Bed::with(Action::Error(6)).await;
    bed.send().await.unwrap();
    assert_eq!((bed.met().len(), bed.stored().await), (1, Offset(1)));
    let bed = Bed::with(Action::Error(29)).await;
    let e = bed.send().await.unwrap_err();
    assert_eq!((e.kind(), e.is_ambiguous(), bed.stored().await), (ErrorKind::Denied, false, Offset(0)));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_answered_after_the_work_leaves_what_was_written() {
    // One that passes: the next attempt is recognised, and its record stands once.
    let bed = Bed::with(Action::ErrorAfter(20)).await;
    assert_eq!(bed.send().await.unwrap().offset, Offset(0));
    assert_eq!((bed.met().len(), bed.stored().await), (1, Offset(1)));
    // Of another request, one that does not pass: the topic is there, whatever was said.
    let rule = Rule::new("CreateTopics", Action::ErrorAfter(41)).unwrap().nth(1);
    let bed = Bed::new(Faults::new(1).with(rule).unwrap()).await;
    let topic = Topic::new("other").unwrap();
    bed.client.create_topic(&topic, 2, 1).await.unwrap_err();
    assert_eq!(bed.client.topic(&topic).await.unwrap().partitions.len(), 2);
    assert_eq!(bed.met()[0].action, Action::ErrorAfter(41));
}

#[tokio::test(start_paused = true)]
async fn a_cut_before_or_after_the_work_leaves_one_record() {
    for action in [Action::DropRequest, Action::DropAnswer, Action::CutAnswer(0), Action::CutAnswer(9)] {
        let bed = Bed::with(action.clone()).await;
        let placed = bed.send().await.unwrap();
        assert_eq!((placed.offset, bed.stored().await), (Offset(0), Offset(1)), "{action}");
        let [met] = &bed.met()[..] else { panic!("{action}: {:?}", bed.met()) };
        assert_eq!((&met.action, met.request.as_str()), (&action, "Produce"));
        assert_eq!((met.client.as_deref(), &met.places[..]), (Some("muslin"), &["t".to_owned()][..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_and_a_stall_take_their_time() {
    for action in [Action::Delay(3 * SECOND), Action::Stall(3 * SECOND)] {
        let bed = Bed::with(action.clone()).await;
        let begin = Instant::now();
        bed.send().await.unwrap();
        let took = begin.elapsed();
        assert!((3 * SECOND..4 * SECOND).contains(&took), "{action}: {took:?}");
        assert_eq!(bed.stored().await, Offset(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_over_the_request_timeout_is_written_once() {
    let bed = Bed::with(Action::Delay(25 * SECOND)).await;
    let begin = Instant::now();
    bed.send().await.unwrap();
    assert!((10 * SECOND..12 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    assert_eq!(bed.stored().await, Offset(1));
}

#[tokio::test(start_paused = true)]
async fn a_held_answer_waits_for_its_release() {
    let bed = Bed::with(Action::Hold("gate".to_owned())).await;
    let begin = Instant::now();
    let release = async {
        tokio::time::sleep(5 * SECOND).await;
        bed.kafka.faults(|f| (f.held("gate"), f.release("gate")))
    };
    let (sent, released) = tokio::join!(bed.send(), release);
    assert_eq!((sent.unwrap().offset, released), (Offset(0), (1, 1)));
    assert!((5 * SECOND..6 * SECOND).contains(&begin.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_twice_confuses_nobody() {
    let bed = Bed::with(Action::AnswerTwice).await;
    for n in 0..3 {
        assert_eq!(bed.send().await.unwrap().offset, Offset(n));
    }
    assert_eq!(bed.stored().await, Offset(3));
}

#[tokio::test(start_paused = true)]
async fn a_killed_broker_is_replaced_and_a_restarted_one_takes_connections_again() {
    for (action, back) in [(Action::Kill, false), (Action::Restart(3 * SECOND), true)] {
        let bed = Bed::with(action).await;
        let before = bed.leader().await.unwrap();
        bed.send().await.unwrap();
        assert_eq!(bed.stored().await, Offset(1));
        assert_ne!(bed.leader().await, Some(before));
        tokio::time::sleep(5 * SECOND).await;
        let only = Client::builder(format!("kafka-{before}:9092"))
            .connector(bed.network.connector("other"))
            .connect()
            .await;
        assert_eq!(only.is_ok(), back, "{only:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_broker_that_restarts_is_waited_for() {
    let network = Network::new(7);
    let rule = Rule::new("Produce", Action::Restart(7 * SECOND)).unwrap().nth(1);
    let faults = Faults::new(1).with(rule).unwrap();
    let kafka = Kafka::builder().topic("t", 1).faults(faults).start_on(&network).unwrap();
    let wall = network.clone();
    let client = Client::builder(kafka.bootstrap())
        .connector(network.connector("client"))
        .wall_clock(move || wall.wall())
        .connect()
        .await
        .unwrap();
    let producer = client.producer().build().await.unwrap();
    let begin = Instant::now();
    producer.send(Record::to("t").unwrap().value("v")).await.unwrap();
    assert!((7 * SECOND..11 * SECOND).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_isolated_broker_is_passed_by_and_comes_back() {
    let bed = Bed::with(Action::Isolate(60 * SECOND)).await;
    let before = bed.leader().await.unwrap();
    let begin = Instant::now();
    bed.send().await.unwrap();
    assert!(begin.elapsed() < 40 * SECOND, "{:?}", begin.elapsed());
    assert_eq!(bed.stored().await, Offset(1));
    assert_ne!(bed.leader().await, Some(before));
    tokio::time::sleep(60 * SECOND).await;
    bed.kafka.move_leader("t", Partition(0), before).unwrap();
    bed.send().await.unwrap();
    assert_eq!(bed.leader().await, Some(before));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_is_followed() {
    let bed = Bed::with(Action::MoveLeader(Some(NodeId(3)))).await;
    bed.send().await.unwrap();
    assert_eq!((bed.leader().await, bed.stored().await), (Some(NodeId(3)), Offset(1)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_broker_that_lags_behind_is_seen_through() {
    let bed = Bed::new(Faults::new(1)).await;
    bed.send().await.unwrap();
    bed.kafka.move_leader("t", Partition(0), NodeId(3)).unwrap();
    assert_eq!(bed.leader().await, Some(NodeId(3)));
    let rule = Rule::new("Metadata", Action::OldLeaders).unwrap();
    bed.kafka.faults(|f| f.add(rule)).unwrap();
    // What this client knows is newer than what it is told.
    assert_eq!(bed.leader().await, Some(NodeId(3)));
    assert!(!bed.met().is_empty());
    bed.send().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_broker_that_lags_behind_does_not_keep_a_producer_from_the_new_leader() {
    for laggard in 1..=3 {
        let bed = Bed::new(Faults::new(1)).await;
        bed.send().await.unwrap();
        let next = if bed.leader().await == Some(NodeId(2)) { NodeId(3) } else { NodeId(2) };
        let rule = Rule::new("Metadata", Action::OldLeaders).unwrap().broker(NodeId(laggard));
        bed.kafka.faults(|f| f.add(rule)).unwrap();
        bed.kafka.move_leader("t", Partition(0), next).unwrap();
        let begin = Instant::now();
        bed.send().await.unwrap();
        assert!(begin.elapsed() < 3 * SECOND, "broker {laggard}: {:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_finds_nothing_is_not_taken_for_a_broker_that_does_not_answer() {
    let network = Network::new(7);
    let kafka = Kafka::builder().topic("t", 1).start_on(&network).unwrap();
    // Shorter than a broker holds a fetch back.
    let client = Client::builder(kafka.bootstrap())
        .connector(network.connector("client"))
        .request_timeout(SECOND / 5)
        .connect()
        .await
        .unwrap();
    let mut consumer = client.simple_consumer().topics(["t"]).build().await.unwrap();
    assert!(tokio::time::timeout(60 * SECOND, consumer.next()).await.is_err());
    let (connections, _) = network.traffic();
    assert!(connections <= 4, "{connections} connections were opened");
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_moves_is_found_again() {
    let rule = Rule::new("OffsetCommit", Action::MoveCoordinator(None)).unwrap().nth(1);
    let bed = Bed::new(Faults::new(1).with(rule).unwrap()).await;
    bed.send().await.unwrap();
    let mut consumer = bed.client.simple_consumer().group("g").topics(["t"]).build().await.unwrap();
    consumer.next().await.unwrap().unwrap().ack();
    consumer.commit().await.unwrap();
    assert_eq!(bed.met().len(), 1);
    let committed = bed.client.committed("g", &Topic::new("t").unwrap()).await.unwrap();
    assert_eq!(committed[&Partition(0)], Offset(1));
}

#[tokio::test(start_paused = true)]
async fn a_reader_outlives_what_happens_to_its_fetches() {
    for action in [
        Action::Error(6),
        Action::DropRequest,
        Action::DropAnswer,
        Action::CutAnswer(20),
        Action::AnswerTwice,
        Action::Delay(SECOND),
        Action::Stall(SECOND),
        Action::Restart(SECOND),
        Action::MoveLeader(None),
        Action::ExpireSession,
    ] {
        let rule = Rule::new("Fetch", action.clone()).unwrap().first(2);
        let bed = Bed::new(Faults::new(1).with(rule).unwrap()).await;
        for _ in 0..5 {
            bed.send().await.unwrap();
        }
        let mut consumer = bed.client.simple_consumer().topics(["t"]).build().await.unwrap();
        for n in 0..5 {
            let delivery = tokio::time::timeout(60 * SECOND, consumer.next()).await;
            let delivery = delivery.unwrap_or_else(|_| panic!("{action}: nothing at {n}")).unwrap().unwrap();
            assert_eq!(delivery.offset(), Offset(n), "{action}");
            delivery.ack();
        }
        assert!(!bed.met().is_empty(), "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_from_a_file_strikes_over_tcp_too() {
    let faults = Faults::from_json(
        r#"{"seed": 3, "rules": [{"request": "Produce", "topic": "t", "nth": 2, "name": "lost", "do": "drop_answer"}]}"#,
    )
    .unwrap();
    // Sockets do not know of virtual time.
    tokio::time::resume();
    let kafka = Kafka::builder().topic("t", 1).faults(faults).start().await.unwrap();
    let client = Client::builder(kafka.bootstrap()).connect().await.unwrap();
    let producer = client.producer().build().await.unwrap();
    for n in 0..3 {
        let placed = producer.send(Record::to("t").unwrap().value("v")).await.unwrap();
        assert_eq!(placed.offset, Offset(n));
    }
    let met: Vec<_> = kafka.faults(|f| f.met().map(|m| (m.rule.clone(), m.broker)).collect());
    assert_eq!(met, [(Some("lost".to_owned()), NodeId(1))]);
}
