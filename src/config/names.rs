//! The names of settings that people already have: those of librdkafka 2 and of the Java clients 4, and a few for
//! RabbitMQ. Pure.

use Layer::{Amqp, Client, Consumer, Producer};
use Meaning::{Alias, Fixed, Foreign, NotYet, Security, Used};

/// Which part a setting goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Client,
    Producer,
    Consumer,
    Amqp,
}

/// What a name means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It has its effect.
    Used(Layer),
    /// Another spelling of this name.
    Alias(&'static str),
    /// Always one of these values here; any other gets a warning.
    Fixed(&'static str),
    /// Has an effect only with TLS or SASL, that is with a `security.protocol` other than `plaintext`.
    Security,
    /// Would make sense, but this build has no such setting.
    NotYet,
    /// Belongs to how the other client is built (callbacks, classes, its logging): no meaning here.
    Foreign,
}

/// The meaning of a name; `None` for one that nobody knows.
pub(super) fn meaning(name: &str) -> Option<Meaning> {
    TABLE.binary_search_by(|(known, _)| known.cmp(&name)).ok().and_then(|at| TABLE.get(at)).map(|(_, m)| *m)
}

/// The name under which a setting is kept, whatever its spelling.
pub(super) fn canonical(name: &str) -> &str {
    match meaning(name) {
        Some(Alias(to)) => to,
        _ => name,
    }
}

/// Whether the value must not be shown.
pub(super) fn is_secret(name: &str) -> bool {
    name == "amqp.url"
        || name == "sasl.jaas.config"
        || name == "sasl.oauthbearer.config"
        || ["password", "secret", "passphrase", ".pem", ".key", "keystore.certificate.chain"]
            .iter()
            .any(|part| name.ends_with(part))
}

/// The known name that takes the fewest edits to reach.
pub(super) fn nearest(name: &str) -> &'static str {
    let name = name.to_lowercase().replace(['_', '-'], ".");
    TABLE.iter().map(|(known, _)| *known).min_by_key(|known| distance(&name, known)).unwrap_or_default()
}

/// Edits between two texts: insert, delete, replace, or swap two neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(100).collect(), b.chars().collect());
    // Three rows of the table suffice: the one before the last is for swaps.
    let (mut before, mut last) = (Vec::new(), (0..=b.len()).collect::<Vec<usize>>());
    for (i, &ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut least =
                (at(&last, j) + usize::from(ca != cb)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&cb) && b.get(j - 1) == Some(&ca);
            if swapped {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

/// All names, sorted.
#[rustfmt::skip]
pub(super) static TABLE: &[(&str, Meaning)] = &[
    ("acks", Used(Producer)),
    ("allow.auto.create.topics", Used(Producer)),
    ("amqp.connect.timeout.ms", Used(Amqp)),
    ("amqp.connection.name", Used(Amqp)),
    ("amqp.heartbeat.ms", Used(Amqp)),
    ("amqp.operation.timeout.ms", Used(Amqp)),
    ("amqp.url", Used(Amqp)),
    ("api.version.fallback.ms", Foreign),
    ("api.version.request", Fixed("true")),
    ("api.version.request.timeout.ms", Foreign),
    ("auto.commit.enable", Alias("enable.auto.commit")),
    ("auto.commit.interval.ms", Used(Consumer)),
    ("auto.offset.reset", Used(Consumer)),
    ("background_event_cb", Foreign),
    ("batch.num.messages", NotYet),
    ("batch.size", Used(Producer)),
    ("bootstrap.controllers", Foreign),
    ("bootstrap.servers", Used(Client)),
    ("broker.address.family", NotYet),
    ("broker.address.ttl", Foreign),
    ("broker.version.fallback", Foreign),
    ("buffer.memory", Used(Producer)),
    ("builtin.features", Foreign),
    ("check.crcs", Fixed("true")),
    ("client.dns.lookup", NotYet),
    ("client.id", Used(Client)),
    ("client.rack", Used(Consumer)),
    ("closesocket_cb", Foreign),
    ("compression.codec", Alias("compression.type")),
    ("compression.gzip.level", NotYet),
    ("compression.level", Used(Producer)),
    ("compression.lz4.level", NotYet),
    ("compression.type", Used(Producer)),
    ("compression.zstd.level", NotYet),
    ("config.providers", Foreign),
    ("connect_cb", Foreign),
    ("connections.max.idle.ms", NotYet),
    ("consume.callback.max.messages", Foreign),
    ("consume_cb", Foreign),
    ("coordinator.query.interval.ms", NotYet),
    ("debug", Foreign),
    ("default.api.timeout.ms", NotYet),
    ("default_topic_conf", Foreign),
    ("delivery.report.only.error", Foreign),
    ("delivery.timeout.ms", Used(Producer)),
    ("dr_cb", Foreign),
    ("dr_msg_cb", Foreign),
    ("enable.auto.commit", Fixed("true")),
    ("enable.auto.offset.store", Fixed("false")),
    ("enable.gapless.guarantee", Foreign),
    ("enable.idempotence", Used(Producer)),
    ("enable.metrics.push", NotYet),
    ("enable.partition.eof", NotYet),
    ("enable.random.seed", Foreign),
    ("enable.sasl.oauthbearer.unsecure.jwt", Security),
    ("enable.ssl.certificate.verification", Security),
    ("enabled_events", Foreign),
    ("error_cb", Foreign),
    ("exclude.internal.topics", Foreign),
    ("fetch.error.backoff.ms", NotYet),
    ("fetch.max.bytes", NotYet),
    ("fetch.max.wait.ms", NotYet),
    ("fetch.message.max.bytes", Alias("max.partition.fetch.bytes")),
    ("fetch.min.bytes", NotYet),
    ("fetch.queue.backoff.ms", NotYet),
    ("fetch.wait.max.ms", Alias("fetch.max.wait.ms")),
    ("group.id", Used(Consumer)),
    ("group.instance.id", Used(Consumer)),
    ("group.protocol", Used(Consumer)),
    ("group.protocol.type", Foreign),
    ("group.remote.assignor", Used(Consumer)),
    ("heartbeat.interval.ms", Used(Consumer)),
    ("https.ca.location", Security),
    ("https.ca.pem", Security),
    ("interceptor.classes", Foreign),
    ("interceptors", Foreign),
    ("internal.termination.signal", Foreign),
    ("isolation.level", Used(Consumer)),
    ("key.deserializer", Foreign),
    ("key.serializer", Foreign),
    ("linger.ms", Used(Producer)),
    ("log.connection.close", Foreign),
    ("log.queue", Foreign),
    ("log.thread.name", Foreign),
    ("log_cb", Foreign),
    ("log_level", Foreign),
    ("max.block.ms", Used(Producer)),
    ("max.in.flight", Alias("max.in.flight.requests.per.connection")),
    ("max.in.flight.requests.per.connection", Used(Producer)),
    ("max.partition.fetch.bytes", NotYet),
    ("max.poll.interval.ms", Used(Consumer)),
    ("max.poll.records", NotYet),
    ("max.request.size", Used(Producer)),
    ("message.copy.max.bytes", Foreign),
    ("message.max.bytes", Alias("max.request.size")),
    ("message.send.max.retries", Alias("retries")),
    ("message.timeout.ms", Alias("delivery.timeout.ms")),
    ("metadata.broker.list", Alias("bootstrap.servers")),
    ("metadata.max.age.ms", Used(Client)),
    ("metadata.max.idle.ms", NotYet),
    ("metadata.recovery.rebootstrap.trigger.ms", NotYet),
    ("metadata.recovery.strategy", NotYet),
    ("metric.reporters", Foreign),
    ("metrics.num.samples", Foreign),
    ("metrics.recording.level", Foreign),
    ("metrics.sample.window.ms", Foreign),
    ("msg_order_cmp", Foreign),
    ("oauthbearer_token_refresh_cb", Security),
    ("offset.store.method", Foreign),
    ("offset.store.path", Foreign),
    ("offset.store.sync.interval.ms", Foreign),
    ("offset_commit_cb", Foreign),
    ("opaque", Foreign),
    ("open_cb", Foreign),
    ("partition.assignment.strategy", Used(Consumer)),
    ("partitioner", Alias("partitioner.class")),
    ("partitioner.adaptive.partitioning.enable", NotYet),
    ("partitioner.availability.timeout.ms", NotYet),
    ("partitioner.class", Used(Producer)),
    ("partitioner.ignore.keys", NotYet),
    ("partitioner_cb", Foreign),
    ("plugin.library.paths", Foreign),
    ("produce.offset.report", Foreign),
    ("queue.buffering.backpressure.threshold", Foreign),
    ("queue.buffering.max.kbytes", Used(Producer)),
    ("queue.buffering.max.messages", NotYet),
    ("queue.buffering.max.ms", Alias("linger.ms")),
    ("queued.max.messages.kbytes", NotYet),
    ("queued.min.messages", NotYet),
    ("queuing.strategy", Foreign),
    ("rebalance_cb", Foreign),
    ("receive.buffer.bytes", NotYet),
    ("receive.message.max.bytes", NotYet),
    ("reconnect.backoff.jitter.ms", Foreign),
    ("reconnect.backoff.max.ms", NotYet),
    ("reconnect.backoff.ms", NotYet),
    ("request.required.acks", Alias("acks")),
    ("request.timeout.ms", Used(Client)),
    ("resolve_cb", Foreign),
    ("retries", NotYet),
    ("retry.backoff.max.ms", Used(Producer)),
    ("retry.backoff.ms", Used(Producer)),
    ("sasl.client.callback.handler.class", Security),
    ("sasl.jaas.config", Security),
    ("sasl.kerberos.keytab", Security),
    ("sasl.kerberos.kinit.cmd", Security),
    ("sasl.kerberos.min.time.before.relogin", Security),
    ("sasl.kerberos.principal", Security),
    ("sasl.kerberos.service.name", Security),
    ("sasl.kerberos.ticket.renew.jitter", Security),
    ("sasl.kerberos.ticket.renew.window.factor", Security),
    ("sasl.login.callback.handler.class", Security),
    ("sasl.login.class", Security),
    ("sasl.login.connect.timeout.ms", Security),
    ("sasl.login.read.timeout.ms", Security),
    ("sasl.login.refresh.buffer.seconds", Security),
    ("sasl.login.refresh.min.period.seconds", Security),
    ("sasl.login.refresh.window.factor", Security),
    ("sasl.login.refresh.window.jitter", Security),
    ("sasl.login.retry.backoff.max.ms", Security),
    ("sasl.login.retry.backoff.ms", Security),
    ("sasl.mechanism", Security),
    ("sasl.mechanisms", Alias("sasl.mechanism")),
    ("sasl.oauthbearer.assertion.algorithm", Security),
    ("sasl.oauthbearer.assertion.claim.aud", Security),
    ("sasl.oauthbearer.assertion.claim.exp.seconds", Security),
    ("sasl.oauthbearer.assertion.claim.iss", Security),
    ("sasl.oauthbearer.assertion.claim.jti.include", Security),
    ("sasl.oauthbearer.assertion.claim.nbf.seconds", Security),
    ("sasl.oauthbearer.assertion.claim.sub", Security),
    ("sasl.oauthbearer.assertion.file", Security),
    ("sasl.oauthbearer.assertion.jwt.template.file", Security),
    ("sasl.oauthbearer.assertion.private.key.file", Security),
    ("sasl.oauthbearer.assertion.private.key.passphrase", Security),
    ("sasl.oauthbearer.assertion.private.key.pem", Security),
    ("sasl.oauthbearer.assertion.template.file", Security),
    ("sasl.oauthbearer.client.credentials.client.id", Security),
    ("sasl.oauthbearer.client.credentials.client.secret", Security),
    ("sasl.oauthbearer.client.id", Security),
    ("sasl.oauthbearer.client.secret", Security),
    ("sasl.oauthbearer.clock.skew.seconds", Security),
    ("sasl.oauthbearer.config", Security),
    ("sasl.oauthbearer.expected.audience", Security),
    ("sasl.oauthbearer.expected.issuer", Security),
    ("sasl.oauthbearer.extensions", Security),
    ("sasl.oauthbearer.grant.type", Security),
    ("sasl.oauthbearer.header.urlencode", Security),
    ("sasl.oauthbearer.jwks.endpoint.refresh.ms", Security),
    ("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms", Security),
    ("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", Security),
    ("sasl.oauthbearer.jwks.endpoint.url", Security),
    ("sasl.oauthbearer.jwt.retriever.class", Security),
    ("sasl.oauthbearer.jwt.validator.class", Security),
    ("sasl.oauthbearer.metadata.authentication.type", Security),
    ("sasl.oauthbearer.method", Security),
    ("sasl.oauthbearer.scope", Security),
    ("sasl.oauthbearer.scope.claim.name", Security),
    ("sasl.oauthbearer.sub.claim.name", Security),
    ("sasl.oauthbearer.token.endpoint.url", Security),
    ("sasl.password", Security),
    ("sasl.username", Security),
    ("security.protocol", Used(Client)),
    ("security.providers", Security),
    ("send.buffer.bytes", NotYet),
    ("session.timeout.ms", Used(Consumer)),
    ("share.acknowledgement.mode", NotYet),
    ("share.acquire.mode", NotYet),
    ("socket.blocking.max.ms", Foreign),
    ("socket.connection.setup.timeout.max.ms", NotYet),
    ("socket.connection.setup.timeout.ms", Used(Client)),
    ("socket.keepalive.enable", NotYet),
    ("socket.max.fails", Foreign),
    ("socket.nagle.disable", Fixed("true")),
    ("socket.receive.buffer.bytes", Alias("receive.buffer.bytes")),
    ("socket.send.buffer.bytes", Alias("send.buffer.bytes")),
    ("socket.timeout.ms", Alias("request.timeout.ms")),
    ("socket_cb", Foreign),
    ("ssl.ca.certificate.stores", Security),
    ("ssl.ca.location", Security),
    ("ssl.ca.pem", Security),
    ("ssl.certificate.location", Security),
    ("ssl.certificate.pem", Security),
    ("ssl.certificate.verify_cb", Security),
    ("ssl.cipher.suites", Security),
    ("ssl.crl.location", Security),
    ("ssl.curves.list", Security),
    ("ssl.enabled.protocols", Security),
    ("ssl.endpoint.identification.algorithm", Security),
    ("ssl.engine.factory.class", Security),
    ("ssl.engine.id", Security),
    ("ssl.engine.location", Security),
    ("ssl.key.location", Security),
    ("ssl.key.password", Security),
    ("ssl.key.pem", Security),
    ("ssl.keymanager.algorithm", Security),
    ("ssl.keystore.certificate.chain", Security),
    ("ssl.keystore.key", Security),
    ("ssl.keystore.location", Security),
    ("ssl.keystore.password", Security),
    ("ssl.keystore.type", Security),
    ("ssl.protocol", Security),
    ("ssl.provider", Security),
    ("ssl.providers", Security),
    ("ssl.secure.random.implementation", Security),
    ("ssl.sigalgs.list", Security),
    ("ssl.trustmanager.algorithm", Security),
    ("ssl.truststore.certificates", Security),
    ("ssl.truststore.location", Security),
    ("ssl.truststore.password", Security),
    ("ssl.truststore.type", Security),
    ("ssl_ca", Security),
    ("ssl_certificate", Security),
    ("ssl_engine_callback_data", Security),
    ("ssl_key", Security),
    ("statistics.interval.ms", NotYet),
    ("stats_cb", Foreign),
    ("sticky.partitioning.linger.ms", NotYet),
    ("throttle_cb", Foreign),
    ("topic.blacklist", Foreign),
    ("topic.metadata.propagation.max.ms", NotYet),
    ("topic.metadata.refresh.fast.cnt", Foreign),
    ("topic.metadata.refresh.fast.interval.ms", NotYet),
    ("topic.metadata.refresh.interval.ms", NotYet),
    ("topic.metadata.refresh.sparse", Foreign),
    ("transaction.timeout.ms", NotYet),
    ("transaction.two.phase.commit.enable", NotYet),
    ("transactional.id", NotYet),
    ("value.deserializer", Foreign),
    ("value.serializer", Foreign),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_aliases_lead_to_names() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for (name, what) in TABLE {
            if let Alias(to) = what {
                assert!(!matches!(meaning(to), None | Some(Alias(_))), "{name} -> {to}");
            }
        }
    }

    #[test]
    fn a_slip_leads_to_the_name_that_was_meant() {
        for (slip, meant) in [
            ("bootstrap.server", "bootstrap.servers"),
            ("boostrap.servers", "bootstrap.servers"),
            ("bootstrap_servers", "bootstrap.servers"),
            ("Linger.MS", "linger.ms"),
            ("sasl.user", "sasl.username"),
            ("sasl.pasword", "sasl.password"),
            ("compresion.type", "compression.type"),
            ("acsk", "acks"),
            ("session.timeout", "session.timeout.ms"),
            ("ampq.url", "amqp.url"),
        ] {
            assert_eq!(nearest(slip), meant, "{slip}");
        }
    }

    #[test]
    fn the_distance_counts_edits() {
        for (a, b, edits) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn secrets_are_known_as_such() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "amqp.url",
            "sasl.jaas.config",
            "ssl.keystore.key",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["sasl.username", "ssl.key.location", "bootstrap.servers"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
