//! What a readiness probe is told.

use std::time::Duration;

use muslin::embedded::faults::{Action, Faults, Rule};
use muslin::kafka::{Ailment, Delivery, Health};

use crate::bed::{BOTH, Bed, PARTITIONS, SECOND};

fn names(health: &Health) -> Vec<&'static str> {
    let name = |ailment: &Ailment| match ailment {
        Ailment::Ended => "ended",
        Ailment::NotInGroup => "not in group",
        Ailment::Coordinator(_) => "coordinator",
        Ailment::Unreachable(..) => "unreachable",
        Ailment::Stopped(..) => "stopped",
        Ailment::NoProgress(..) => "no progress",
        _ => "another",
    };
    let mut names: Vec<_> = health.complaints.iter().map(|c| name(&c.ailment)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_reads_on_is_well_and_one_that_holds_a_delivery_says_where_and_since_when() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        let mut consumer = bed.builder(protocol).build().await.unwrap();
        assert_eq!(names(&consumer.health()), ["not in group"]);
        tokio::time::sleep(20 * SECOND).await;
        assert_eq!(names(&consumer.health()), Vec::<&str>::new(), "{}", consumer.health());
        bed.fill(2).await;
        let mut held: Vec<Delivery> = Vec::new();
        while held.len() < 2 * PARTITIONS as usize {
            held.push(consumer.next().await.unwrap().unwrap());
        }
        tokio::time::sleep(60 * SECOND).await;
        let health = consumer.health();
        assert_eq!(names(&health), ["no progress"]);
        let lasting = health.complaints[0].lasting;
        assert!((58 * SECOND..62 * SECOND).contains(&lasting), "{lasting:?}");
        assert!(!health.is_well_for(30 * SECOND) && health.is_well_for(70 * SECOND));
        held.into_iter().for_each(Delivery::ack);
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(names(&consumer.health()), Vec::<&str>::new(), "{}", consumer.health());
        consumer.close(30 * SECOND).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn brokers_that_do_not_answer_are_named_with_the_reason() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        let far = bed.client("far").await;
        let consumer = crate::bed::member(&far, protocol).build().await.unwrap();
        tokio::time::sleep(20 * SECOND).await;
        assert!(consumer.health().is_well_for(Duration::ZERO), "{}", consumer.health());
        for broker in ["kafka-1", "kafka-2", "kafka-3"] {
            bed.network.block("far", broker);
        }
        tokio::time::sleep(60 * SECOND).await;
        let health = consumer.health();
        assert_eq!(names(&health), ["coordinator", "unreachable"], "{protocol:?}: {health}");
        assert!(health.to_string().contains("the group's coordinator does not answer"), "{health}");
        bed.network.unblock_all();
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(names(&consumer.health()), Vec::<&str>::new(), "{protocol:?}: {}", consumer.health());
        consumer.close(30 * SECOND).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_membership_that_is_refused_has_ended() {
    for protocol in BOTH {
        let bed = Bed::new(Faults::new(1)).await;
        for request in ["JoinGroup", "ConsumerGroupHeartbeat"] {
            let rule = Rule::new(request, Action::Error(30)).unwrap();
            bed.kafka.faults(|f| f.add(rule)).unwrap();
        }
        let mut consumer = bed.builder(protocol).build().await.unwrap();
        let e = consumer.next().await.unwrap().unwrap_err();
        assert_eq!(e.kind(), muslin::ErrorKind::Denied, "{e}");
        assert!(consumer.next().await.is_none(), "nothing comes any more");
        assert_eq!(names(&consumer.health()), ["ended"]);
        consumer.close(30 * SECOND).await.unwrap();
    }
}
