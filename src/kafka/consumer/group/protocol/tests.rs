use proptest::prelude::*;

use super::*;

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn places(list: &[(&str, i32)]) -> Vec<Place> {
    list.iter().map(|(name, n)| (topic(name), Partition(*n))).collect()
}

/// A version, then one topic "t" and no user data: a subscription of version 0.
fn version_0(version: i16) -> Vec<u8> {
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend([0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff]);
    bytes
}

fn message(bytes: Vec<u8>) -> String {
    Subscription::decode(bytes.into()).unwrap_err().report()
}

#[test]
fn each_version_of_a_subscription_is_read() {
    let mut bytes = version_0(0);
    let mut wanted = Subscription { topics: vec![topic("t")], ..Default::default() };
    assert_eq!(Subscription::decode(bytes.clone().into()).unwrap(), wanted);
    let mut grow = |version: u8, more: &[u8], wanted: &Subscription| {
        bytes[1] = version;
        bytes.extend(more);
        assert_eq!(Subscription::decode(bytes.clone().into()).unwrap(), *wanted, "version {version}");
        bytes.clone()
    };
    wanted.owned = places(&[("t", 7)]);
    grow(1, &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 7], &wanted);
    wanted.generation = Some(9);
    grow(2, &[0, 0, 0, 9], &wanted);
    wanted.rack = Some("r".to_owned());
    let last = grow(3, &[0, 1, b'r'], &wanted);
    assert_eq!(wanted.encode(), last);
    // A version to come is read as the last one known, whatever follows.
    grow(4, b"and more", &wanted);
}

#[test]
fn what_a_subscription_may_leave_out_is_none() {
    let none = Subscription {
        topics: vec![topic("t")],
        generation: Some(-1),
        rack: Some(String::new()),
        ..Default::default()
    };
    let read = Subscription::decode(none.encode()).unwrap();
    assert_eq!(read, Subscription { topics: vec![topic("t")], ..Default::default() });
    let long = Subscription { rack: Some("r".repeat(40_000)), ..Default::default() };
    assert_eq!(Subscription::decode(long.encode()).unwrap(), Subscription::default());
}

#[test]
fn an_error_names_what_is_wrong_and_where() {
    let cut = |n: usize| {
        let full = Subscription {
            topics: vec![topic("t")],
            owned: places(&[("t", 7)]),
            rack: Some("rack".to_owned()),
            ..Default::default()
        };
        let bytes = full.encode();
        message(bytes[..bytes.len() - n].to_vec())
    };
    assert_eq!(cut(1), "the subscription ends within its rack: 4 bytes are wanted, 3 are left");
    assert!(cut(8).contains("within its generation"), "{}", cut(8));
    assert!(cut(12).contains("owned partitions"), "{}", cut(12));
    assert!(message(vec![0]).contains("within its version"));
    assert!(message(version_0(-1)).contains("has the version -1"));
    for (bytes, wanted) in [
        (vec![0, 0, 0x7f, 0xff, 0xff, 0xff], "names 2147483647 topics, and 0 bytes are left"),
        (vec![0, 0, 0xff, 0xff, 0xff, 0xff], "names -1 topics"),
        (vec![0, 0, 0, 0, 0, 1, 0xff, 0xff], "a null among its topics"),
        (vec![0, 0, 0, 0, 0, 1, 0, 1, 0xff], "not UTF-8 in its topics"),
        (vec![0, 0, 0, 0, 0, 1, 0, 1, b'/'], "a bad name among its topics"),
        (
            vec![0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
            "within its user data: 2147483647 bytes are wanted, 0 are left",
        ),
    ] {
        assert!(message(bytes.clone()).contains(wanted), "{}", message(bytes));
    }
    let e =
        Assignment::decode(Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0xff, 0, 0, 0]))
            .unwrap_err();
    assert_eq!(e.report(), "the assignment has partition -16777216 of t among its partitions");
}

fn some_places() -> impl Strategy<Value = Vec<Place>> {
    proptest::collection::vec(("[a-c]{1,2}", 0i32..1000), 0..20)
        .prop_map(|list| list.into_iter().map(|(name, n)| (topic(&name), Partition(n))).collect())
}

fn user_data() -> impl Strategy<Value = Option<Bytes>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from))
}

prop_compose! {
    fn subscription()(
        topics in proptest::collection::btree_set("[a-z._-]{3,9}", 0..6),
        user_data in user_data(),
        owned in some_places(),
        generation in proptest::option::of(0..=i32::MAX),
        rack in proptest::option::of("\\PC{1,9}"),
    ) -> Subscription {
        let mut owned = owned;
        owned.sort();
        Subscription { topics: topics.iter().map(|t| topic(t)).collect(), user_data, owned, generation, rack }
    }
}

proptest! {
    #[test]
    fn a_subscription_is_read_as_it_was_written(written in subscription()) {
        prop_assert_eq!(Subscription::decode(written.encode()).unwrap(), written);
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written(partitions in some_places(), user_data in user_data()) {
        let written = Assignment { partitions, user_data };
        let read = Assignment::decode(written.encode()).unwrap();
        prop_assert_eq!(&read.user_data, &written.user_data);
        // Grouped by topic, each topic's partitions in their order.
        for topic in written.partitions.iter().map(|(topic, _)| topic) {
            let of = |a: &Assignment| a.partitions.iter().filter(|p| p.0 == *topic).cloned().collect::<Vec<_>>();
            prop_assert_eq!(of(&read), of(&written));
        }
        prop_assert_eq!(read.partitions.len(), written.partitions.len());
        prop_assert_eq!(Assignment::decode(read.encode()).unwrap(), read);
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Subscription::decode(bytes.clone().into());
        let _ = Assignment::decode(bytes.into());
    }

    #[test]
    fn a_subscription_cut_short_or_bent_is_read_or_refused(
        written in subscription(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = written.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = Subscription::decode(bytes.into());
    }
}
