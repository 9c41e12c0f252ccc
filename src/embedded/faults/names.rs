//! How requests are named: Kafka's APIs and AMQP's methods, as their own documents do.

/// Kafka's APIs that clients send, by key (`org.apache.kafka.common.protocol.ApiKeys`).
const KAFKA: &[(i16, &str)] = &[
    (0, "Produce"),
    (1, "Fetch"),
    (2, "ListOffsets"),
    (3, "Metadata"),
    (8, "OffsetCommit"),
    (9, "OffsetFetch"),
    (10, "FindCoordinator"),
    (11, "JoinGroup"),
    (12, "Heartbeat"),
    (13, "LeaveGroup"),
    (14, "SyncGroup"),
    (15, "DescribeGroups"),
    (16, "ListGroups"),
    (17, "SaslHandshake"),
    (18, "ApiVersions"),
    (19, "CreateTopics"),
    (20, "DeleteTopics"),
    (21, "DeleteRecords"),
    (22, "InitProducerId"),
    (23, "OffsetForLeaderEpoch"),
    (24, "AddPartitionsToTxn"),
    (25, "AddOffsetsToTxn"),
    (26, "EndTxn"),
    (27, "WriteTxnMarkers"),
    (28, "TxnOffsetCommit"),
    (32, "DescribeConfigs"),
    (33, "AlterConfigs"),
    (35, "DescribeLogDirs"),
    (36, "SaslAuthenticate"),
    (37, "CreatePartitions"),
    (42, "DeleteGroups"),
    (43, "ElectLeaders"),
    (44, "IncrementalAlterConfigs"),
    (45, "AlterPartitionReassignments"),
    (46, "ListPartitionReassignments"),
    (47, "OffsetDelete"),
    (50, "DescribeUserScramCredentials"),
    (51, "AlterUserScramCredentials"),
    (60, "DescribeCluster"),
    (61, "DescribeProducers"),
    (65, "DescribeTransactions"),
    (66, "ListTransactions"),
    (68, "ConsumerGroupHeartbeat"),
    (69, "ConsumerGroupDescribe"),
    (71, "GetTelemetrySubscriptions"),
    (72, "PushTelemetry"),
    (74, "ListConfigResources"),
    (75, "DescribeTopicPartitions"),
];

/// The methods that a client sends (AMQP 0-9-1 with RabbitMQ's confirms).
const AMQP: &[((u16, u16), &str)] = &[
    ((10, 11), "connection.start-ok"),
    ((10, 31), "connection.tune-ok"),
    ((10, 40), "connection.open"),
    ((10, 50), "connection.close"),
    ((10, 51), "connection.close-ok"),
    ((10, 70), "connection.update-secret"),
    ((20, 10), "channel.open"),
    ((20, 20), "channel.flow"),
    ((20, 21), "channel.flow-ok"),
    ((20, 40), "channel.close"),
    ((20, 41), "channel.close-ok"),
    ((40, 10), "exchange.declare"),
    ((40, 20), "exchange.delete"),
    ((40, 30), "exchange.bind"),
    ((40, 40), "exchange.unbind"),
    ((50, 10), "queue.declare"),
    ((50, 20), "queue.bind"),
    ((50, 30), "queue.purge"),
    ((50, 40), "queue.delete"),
    ((50, 50), "queue.unbind"),
    ((60, 10), "basic.qos"),
    ((60, 20), "basic.consume"),
    ((60, 30), "basic.cancel"),
    ((60, 40), "basic.publish"),
    ((60, 70), "basic.get"),
    ((60, 80), "basic.ack"),
    ((60, 90), "basic.reject"),
    ((60, 100), "basic.recover-async"),
    ((60, 110), "basic.recover"),
    ((60, 120), "basic.nack"),
    ((85, 10), "confirm.select"),
    ((90, 10), "tx.select"),
    ((90, 20), "tx.commit"),
    ((90, 30), "tx.rollback"),
];

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Kafka's API key.
    Kafka(i16),
    /// AMQP's class and method.
    Amqp(u16, u16),
}

impl Kind {
    /// The kind of this name, in any case: `Produce`, `basic.publish`.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        let kafka =
            KAFKA.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(key, _)| Self::Kafka(*key));
        kafka.or_else(|| {
            AMQP.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|((c, m), _)| Self::Amqp(*c, *m))
        })
    }

    /// Its name, or its numbers where it has none here.
    pub(crate) fn name(self) -> String {
        let known = match self {
            Self::Kafka(key) => KAFKA.iter().find(|(k, _)| *k == key).map(|(_, n)| *n),
            Self::Amqp(class, method) => AMQP.iter().find(|(k, _)| *k == (class, method)).map(|(_, n)| *n),
        };
        match (known, self) {
            (Some(name), _) => name.to_owned(),
            (None, Self::Kafka(key)) => format!("api {key}"),
            (None, Self::Amqp(class, method)) => format!("method {class}.{method}"),
        }
    }
}

/// Names that are close to what was meant, for messages.
pub(crate) fn suggestions(name: &str) -> String {
    let folded = |s: &str| s.to_ascii_lowercase().replace(['.', '-', '_'], "");
    let wanted = folded(name);
    let mut near: Vec<(usize, &str)> = KAFKA
        .iter()
        .map(|(_, n)| *n)
        .chain(AMQP.iter().map(|(_, n)| *n))
        .map(|n| (distance(&folded(n), &wanted), n))
        .filter(|(d, n)| *d <= 3.min(n.len() / 2))
        .collect();
    near.sort();
    let near: Vec<_> = near.into_iter().take(3).map(|(_, n)| n).collect();
    if near.is_empty() { String::new() } else { format!(" (perhaps {})", near.join(", ")) }
}

/// The edits between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let change = corner + usize::from(x != y);
            corner = *cell;
            left = change.min(corner + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Kafka's error code of this name (`NOT_LEADER_OR_FOLLOWER`, in any case, with or without the underscores).
pub(crate) fn error_code(name: &str) -> Option<i16> {
    let folded = |s: &str| s.to_ascii_lowercase().replace('_', "");
    let wanted = folded(name);
    (-1..=160).find(|code| {
        let known = kafka_protocol::ResponseError::try_from_code(*code);
        known.is_some_and(|known| folded(&format!("{known:?}")) == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_told_back() {
        for name in ["Produce", "ConsumerGroupHeartbeat", "basic.publish", "connection.start-ok"] {
            assert_eq!(Kind::by_name(&name.to_uppercase()).unwrap().name(), name);
        }
        assert_eq!(Kind::by_name("Prodce"), None);
        assert_eq!(Kind::Kafka(999).name(), "api 999");
    }

    #[test]
    fn a_misspelt_name_is_told_what_was_meant() {
        assert!(suggestions("Prodce").contains("Produce"));
        assert!(suggestions("basic.publsh").contains("basic.publish"));
        assert_eq!(suggestions("nothing at all like it"), "");
    }

    #[test]
    fn every_api_key_carries_the_name_of_the_protocol_crate() {
        for (key, name) in KAFKA {
            if let Ok(known) = kafka_protocol::messages::ApiKey::try_from(*key) {
                assert_eq!(format!("{known:?}"), *name);
            }
        }
    }

    #[test]
    fn error_codes_are_known_by_name() {
        assert_eq!(error_code("NOT_LEADER_OR_FOLLOWER"), Some(6));
        assert_eq!(error_code("CoordinatorNotAvailable"), Some(15));
        assert_eq!(error_code("UNKNOWN_SERVER_ERROR"), Some(-1));
        assert_eq!(error_code("NO_SUCH_THING"), None);
    }
}
