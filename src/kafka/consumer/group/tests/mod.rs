//! Members against naive coordinators: arbitrary interleavings, lost answers, clock jumps, and every code.
#![allow(clippy::disallowed_methods, reason = "a start for the test's own clock")]

mod classic;
mod codes;
mod modern;
mod world;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use world::{Coordinator, Step, World};

const SECOND: Duration = Duration::from_secs(1);

fn settings(instance: Option<&str>, assignors: &[Assignor]) -> Settings {
    Settings {
        group: "g".to_owned(),
        instance: instance.map(str::to_owned),
        rack: None,
        session_timeout: 10 * SECOND,
        heartbeat_interval: SECOND,
        rebalance_timeout: 20 * SECOND,
        assignors: assignors.to_vec(),
        server_assignor: None,
        pattern: None,
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let member = 0usize..4;
    let step = prop_oneof![
        8 => member.clone().prop_map(Step::Go),
        4 => member.clone().prop_map(Step::Release),
        1 => member.clone().prop_map(Step::LoseRequest),
        1 => member.clone().prop_map(Step::LoseAnswer),
        1 => member.clone().prop_map(Step::Join),
        1 => member.clone().prop_map(Step::Leave),
        1 => member.clone().prop_map(Step::Crash),
        1 => (member, 0u64..30).prop_map(|(m, s)| Step::Freeze(m, Duration::from_secs(s))),
        4 => (0u64..5000).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..200)
}

fn run<C: Coordinator>(coordinator: C, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new(coordinator);
    for step in steps {
        world.step(step)?;
    }
    world.settle()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn eager_members_never_share_a_partition_and_always_settle(steps in steps()) {
        run(classic::Model::new(&[Assignor::Range]), steps)?;
    }

    #[test]
    fn cooperative_members_never_share_a_partition_and_always_settle(steps in steps()) {
        run(classic::Model::new(&[Assignor::CooperativeSticky]), steps)?;
    }

    #[test]
    fn members_of_the_newer_protocol_never_share_a_partition_and_always_settle(steps in steps()) {
        run(modern::Model::default(), steps)?;
    }
}
