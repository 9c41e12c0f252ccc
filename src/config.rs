//! Settings by the names people already have: properties files in the spellings of librdkafka and of the Java clients.
//!
//! ```
//! use muslin::config::Properties;
//!
//! let mut settings = Properties::parse("bootstrap.servers=a:9092,b:9092\nlinger.ms=5\n", "kafka.properties")?;
//! settings.set("client.id=billing")?; // later ones win
//! assert_eq!(settings.get("metadata.broker.list"), Some("a:9092,b:9092")); // librdkafka's spelling of the same
//! assert!(Properties::parse("linger.m=5", "f").unwrap_err().to_string().contains("linger.ms"));
//! # Ok::<(), muslin::Error>(())
//! ```
//!
//! A name that nobody knows is an error that offers the nearest known one. A name that is known and has no effect here is
//! kept and named by [`Properties::warnings`]. For RabbitMQ there are `amqp.url`, `amqp.heartbeat.ms`,
//! `amqp.connect.timeout.ms`, `amqp.operation.timeout.ms` and `amqp.connection.name`.
//!
//! Secrets stand in no message and in no `Debug` text.

mod names;
mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use names::Meaning;

use crate::{Error, ErrorKind, Result};

/// The largest properties file that is read, in bytes.
pub const FILE_MAX: usize = 1 << 20;

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File { file: String, line: usize },
    Argument,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    /// The name as it was written; the map's key is the canonical one.
    name: String,
    value: String,
    place: Place,
}

impl Entry {
    /// `linger.ms` in file, line 3.
    fn place(&self) -> String {
        match &self.place {
            Place::File { file, line } => format!("{file}, line {line}: `{}`", self.name),
            Place::Argument => format!("`{}`", self.name),
        }
    }

    fn bad(&self, expected: impl fmt::Display) -> Error {
        let value =
            if names::is_secret(&self.name) { "its value".to_owned() } else { format!("`{}`", self.value) };
        Error::new(ErrorKind::Config, format!("{}: {value} will not do; expected {expected}", self.place()))
    }
}

/// Settings: of a file, of arguments, or of both. At most one value a name; the last one wins, in whatever spelling.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties {
    entries: BTreeMap<String, Entry>,
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, e): (&String, &Entry)| {
            (name.clone(), if names::is_secret(name) { "***".to_owned() } else { e.value.clone() })
        };
        f.debug_map().entries(self.entries.iter().map(shown)).finish()
    }
}

impl Properties {
    /// No settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a properties file of at most [`FILE_MAX`] bytes. Blocks while it reads.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the file and what is wrong with it; as [`Properties::parse`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        use std::io::Read;

        let path = path.as_ref();
        let bad =
            |why: &str| Error::new(ErrorKind::Config, format!("settings file {}: {why}", path.display()));
        let file = std::fs::File::open(path).map_err(|e| bad("cannot be read").with_source(e))?;
        let mut bytes = Vec::new();
        file.take(FILE_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| bad("cannot be read").with_source(e))?;
        if bytes.len() > FILE_MAX {
            return Err(bad(&format!("is larger than {FILE_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let line =
                1 + e.as_bytes().iter().take(e.utf8_error().valid_up_to()).filter(|b| **b == b'\n').count();
            bad(&format!("line {line} is not UTF-8"))
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a properties file in the syntax of `java.util.Properties`, as UTF-8. `file` names it in messages.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names file and line, for a line without a separator, a broken escape, a name that
    /// nobody knows, or a value that its setting does not take.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let mut all = Self::new();
        for line in parse::lines(text, file)? {
            let place = Place::File { file: file.to_owned(), line: line.number };
            all.insert(Entry { name: line.name, value: line.value, place })?;
        }
        Ok(all)
    }

    /// Takes one setting as `name=value`, as of an argument.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] without a `=`, for a name that nobody knows, or a value that its setting does not take.
    pub fn set(&mut self, setting: &str) -> Result<()> {
        match setting.split_once('=') {
            Some((name, value)) => self.put(name.trim(), value),
            None => Err(Error::new(
                ErrorKind::Config,
                format!("setting `{}`: expected name=value", setting.chars().take(60).collect::<String>()),
            )),
        }
    }

    /// Sets a value by its name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a name that nobody knows or a value that its setting does not take.
    pub fn put(&mut self, name: &str, value: &str) -> Result<()> {
        self.insert(Entry { name: name.to_owned(), value: value.to_owned(), place: Place::Argument })
    }

    /// Takes the settings of `later` over its own.
    pub fn merge(&mut self, later: Self) {
        self.entries.extend(later.entries);
    }

    fn insert(&mut self, entry: Entry) -> Result<()> {
        if names::meaning(&entry.name).is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{} is no setting that librdkafka, the Java clients or muslin know; the nearest known one is `{}`",
                    entry.place(),
                    names::nearest(&entry.name)
                ),
            ));
        }
        let name = names::canonical(&entry.name).to_owned();
        check(&name, &entry)?;
        self.entries.insert(name, entry);
        Ok(())
    }

    /// The value of a setting, in whatever spelling it was made.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entry(name).map(|e| e.value.as_str())
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(names::canonical(name))
    }

    /// A value in milliseconds, a fraction allowed.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the setting, its place, its value and what was expected.
    pub fn millis(&self, name: &str) -> Result<Option<Duration>> {
        self.entry(name).map(millis).transpose()
    }

    /// A value in bytes.
    ///
    /// # Errors
    /// As [`Properties::millis`].
    pub fn bytes(&self, name: &str) -> Result<Option<usize>> {
        self.entry(name).map(bytes).transpose()
    }

    /// A value that is `true` or `false`.
    ///
    /// # Errors
    /// As [`Properties::millis`].
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.entry(name).map(flag).transpose()
    }

    /// A text, without white space around it; `None` where it is empty.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(str::trim).filter(|t| !t.is_empty())
    }

    /// A line for every setting that is known and has no effect here.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.entries
            .values()
            .filter_map(|e| {
                let why = match names::meaning(names::canonical(&e.name))? {
                    Meaning::Used(_) | Meaning::Alias(_) => return None,
                    Meaning::Fixed(values) => {
                        let given = e.value.trim().to_ascii_lowercase();
                        if values.split(", ").any(|v| v == given) {
                            return None;
                        }
                        format!("is always {} here; `{}` is ignored", values.replace(", ", " or "), e.value)
                    }
                    Meaning::Security => {
                        "is ignored: security.protocol is plaintext, so nothing is encrypted or authenticated"
                            .to_owned()
                    }
                    Meaning::NotYet => "has no effect in this build".to_owned(),
                    Meaning::Foreign => "has no meaning here".to_owned(),
                };
                Some(format!("{} {why}", e.place()))
            })
            .collect()
    }
}

fn millis(e: &Entry) -> Result<Duration> {
    // As long as the Java clients' largest int: 24 days.
    let number = e.value.trim().parse::<f64>().ok().filter(|n| (0.0..=f64::from(i32::MAX)).contains(n));
    number
        .map(|n| Duration::from_secs_f64(n / 1e3))
        .ok_or_else(|| e.bad(format_args!("milliseconds, 0 to {}", i32::MAX)))
}

fn bytes(e: &Entry) -> Result<usize> {
    let number = e.value.trim().parse::<usize>().ok().filter(|n| *n <= i32::MAX as usize);
    number.ok_or_else(|| e.bad(format_args!("bytes, 0 to {}", i32::MAX)))
}

fn flag(e: &Entry) -> Result<bool> {
    match e.value.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(e.bad("true or false")),
    }
}

fn level(e: &Entry) -> Result<i32> {
    e.value.trim().parse().map_err(|_| e.bad("a whole number: a level of the codec"))
}

fn one_of(e: &Entry, values: &[&str]) -> Result<()> {
    let given = e.value.trim().to_ascii_lowercase();
    if values.contains(&given.as_str()) {
        Ok(())
    } else {
        Err(e.bad(format_args!("one of {}", values.join(", "))))
    }
}

/// Checks the value of a setting that has an effect.
fn check(name: &str, e: &Entry) -> Result<()> {
    match name {
        "bootstrap.servers" | "group.id" | "client.id" => {
            if e.value.trim().is_empty() {
                Err(e.bad("a text that is not empty"))
            } else {
                Ok(())
            }
        }
        "security.protocol" => {
            one_of(e, &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"])?;
            if e.value.trim().eq_ignore_ascii_case("plaintext") {
                return Ok(());
            }
            // Going on in plain text would be worse than not going on.
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("{}: `{}` is not in this build; only plaintext is", e.place(), e.value.trim()),
            ))
        }
        "linger.ms"
        | "delivery.timeout.ms"
        | "max.block.ms"
        | "request.timeout.ms"
        | "socket.connection.setup.timeout.ms"
        | "metadata.max.age.ms"
        | "auto.commit.interval.ms"
        | "retry.backoff.ms"
        | "retry.backoff.max.ms"
        | "amqp.heartbeat.ms"
        | "amqp.connect.timeout.ms"
        | "amqp.operation.timeout.ms" => millis(e).map(drop),
        "batch.size" | "buffer.memory" | "queue.buffering.max.kbytes" | "max.request.size" => {
            bytes(e).map(drop)
        }
        "compression.type" => one_of(e, &["none", "gzip", "snappy", "lz4", "zstd"]),
        "acks" => one_of(e, &["all", "-1", "1"]),
        "max.in.flight.requests.per.connection" => one_of(e, &["1", "2", "3", "4", "5"]),
        "compression.level" => level(e).map(drop),
        "allow.auto.create.topics" | "enable.idempotence" => flag(e).map(drop),
        "isolation.level" => one_of(e, &["read_committed", "read_uncommitted"]),
        "auto.offset.reset" => {
            one_of(e, &["earliest", "smallest", "beginning", "latest", "largest", "end", "none", "error"])
        }
        _ => Ok(()),
    }
}

#[cfg(feature = "kafka")]
mod kafka {
    use std::time::Duration;

    use super::Properties;
    use crate::kafka::{
        Acks, Assignor, Client, ClientBuilder, ConsumerBuilder, Group, GroupProtocol, Isolation,
        Partitioning, ProducerBuilder, Reset,
    };
    use crate::{Error, ErrorKind, Result};

    impl Properties {
        /// A Kafka client with these settings: `bootstrap.servers`, `client.id`, `request.timeout.ms`,
        /// `socket.connection.setup.timeout.ms`, `metadata.max.age.ms`.
        ///
        /// # Errors
        /// [`ErrorKind::Config`] without `bootstrap.servers`.
        pub fn kafka(&self) -> Result<ClientBuilder> {
            let Some(servers) = self.text("bootstrap.servers") else {
                return Err(Error::new(ErrorKind::Config, "`bootstrap.servers` is not set"));
            };
            let mut builder = Client::builder(servers);
            if let Some(id) = self.text("client.id") {
                builder = builder.client_id(id);
            }
            if let Some(limit) = self.millis("request.timeout.ms")? {
                builder = builder.request_timeout(limit);
            }
            if let Some(limit) = self.millis("socket.connection.setup.timeout.ms")? {
                builder = builder.connect_timeout(limit);
            }
            if let Some(age) = self.millis("metadata.max.age.ms")? {
                builder = builder.metadata_max_age(age);
            }
            Ok(builder)
        }

        /// The builder with these settings: `linger.ms`, `batch.size`, `buffer.memory` (or
        /// `queue.buffering.max.kbytes`), `delivery.timeout.ms`, `max.block.ms`, `max.request.size`,
        /// `compression.type`, `compression.level`, `acks`, `enable.idempotence`, `max.in.flight.requests.per.connection`,
        /// `retry.backoff.ms`, `retry.backoff.max.ms`, `partitioner.class`, `allow.auto.create.topics`.
        ///
        /// # Errors
        /// [`ErrorKind::Config`] that names the setting.
        pub fn producer(&self, mut builder: ProducerBuilder) -> Result<ProducerBuilder> {
            if let Some(linger) = self.millis("linger.ms")? {
                builder = builder.linger(linger);
            }
            if let Some(size) = self.bytes("batch.size")? {
                builder = builder.batch_size(size);
            }
            let kbytes = self.bytes("queue.buffering.max.kbytes")?.map(|k| k.saturating_mul(1024));
            if let Some(memory) = self.bytes("buffer.memory")?.or(kbytes) {
                builder = builder.buffer_memory(memory);
            }
            if let Some(limit) = self.millis("delivery.timeout.ms")? {
                builder = builder.delivery_timeout(limit);
            }
            if let Some(limit) = self.millis("max.block.ms")? {
                builder = builder.max_block(limit);
            }
            if let Some(size) = self.bytes("max.request.size")? {
                builder = builder.max_request_size(size);
            }
            if let Some(codec) = self.text("compression.type") {
                builder = builder.compression(codec.to_ascii_lowercase().parse()?);
            }
            if let Some(level) = self.entry("compression.level") {
                builder = builder.compression_level(super::level(level)?);
            }
            let acks: Option<Acks> = self.text("acks").map(|a| a.to_ascii_lowercase().parse()).transpose()?;
            // As in the Java client: who asks for less than all gives idempotence up, unless both are asked for.
            let idempotence = self.flag("enable.idempotence")?;
            builder = builder.idempotence(idempotence.unwrap_or(acks.is_none_or(|a| a == Acks::All)));
            builder = builder.acks(acks.unwrap_or_default());
            if let Some(most) = self.bytes("max.in.flight.requests.per.connection")? {
                builder = builder.max_in_flight(most);
            }
            let (first, longest) = (self.millis("retry.backoff.ms")?, self.millis("retry.backoff.max.ms")?);
            if first.is_some() || longest.is_some() {
                let first = first.unwrap_or(Duration::from_millis(100));
                builder = builder.retry_backoff(first, longest.unwrap_or(Duration::from_secs(1).max(first)));
            }
            if let Some(class) = self.text("partitioner.class") {
                builder = builder.partitioner(class.parse::<Partitioning>()?);
            }
            if let Some(allow) = self.flag("allow.auto.create.topics")? {
                builder = builder.allow_auto_create(allow);
            }
            Ok(builder)
        }

        /// What `auto.offset.reset` says.
        #[must_use]
        pub fn reset(&self) -> Option<Reset> {
            Some(match self.text("auto.offset.reset")?.to_ascii_lowercase().as_str() {
                "latest" | "largest" | "end" => Reset::Latest,
                "none" | "error" => Reset::Error,
                _ => Reset::Earliest,
            })
        }

        /// A member of a group with these settings: `group.protocol`, `group.instance.id`, `group.remote.assignor`,
        /// `partition.assignment.strategy`, `session.timeout.ms`, `heartbeat.interval.ms`, `max.poll.interval.ms` (how long
        /// a rebalance waits for it).
        ///
        /// # Errors
        /// [`ErrorKind::Config`] that names the setting.
        pub fn membership(&self, mut builder: ConsumerBuilder<Group>) -> Result<ConsumerBuilder<Group>> {
            if let Some(protocol) = self.text("group.protocol") {
                builder = builder.protocol(match protocol.to_ascii_lowercase().as_str() {
                    "classic" => GroupProtocol::Classic,
                    "consumer" => GroupProtocol::Consumer,
                    _ => {
                        let e =
                            format!("`group.protocol` is {protocol:?}; expected \"classic\" or \"consumer\"");
                        return Err(Error::new(ErrorKind::Config, e));
                    }
                });
            }
            if let Some(id) = self.text("group.instance.id") {
                builder = builder.instance_id(id);
            }
            if let Some(name) = self.text("group.remote.assignor") {
                builder = builder.server_assignor(name);
            }
            if let Some(list) = self.text("partition.assignment.strategy") {
                let assignors = list.split(',').map(|name| {
                    // Java names classes; the last part is enough.
                    let short = name.trim().rsplit('.').next().unwrap_or_default();
                    let known = match short {
                        "RangeAssignor" => Some(Assignor::Range),
                        "RoundRobinAssignor" => Some(Assignor::RoundRobin),
                        "StickyAssignor" => Some(Assignor::Sticky),
                        "CooperativeStickyAssignor" => Some(Assignor::CooperativeSticky),
                        short => Assignor::from_name(short),
                    };
                    known.ok_or_else(|| {
                        let e = format!(
                            "`partition.assignment.strategy` names {name:?}; known are range, roundrobin, sticky and \
                             cooperative-sticky"
                        );
                        Error::new(ErrorKind::Config, e)
                    })
                });
                builder = builder.assignors(assignors.collect::<Result<Vec<_>>>()?);
            }
            if let Some(timeout) = self.millis("session.timeout.ms")? {
                builder = builder.session_timeout(timeout);
                if self.text("heartbeat.interval.ms").is_none() {
                    builder = builder.heartbeat_interval((timeout / 3).min(Duration::from_secs(3)));
                }
            }
            if let Some(interval) = self.millis("heartbeat.interval.ms")? {
                builder = builder.heartbeat_interval(interval);
            }
            if let Some(limit) = self.millis("max.poll.interval.ms")? {
                let settle = (limit / 2).min(Duration::from_secs(30));
                builder = builder.rebalance_timeout(limit).settle_timeout(settle);
            }
            Ok(builder)
        }

        /// The builder with these settings: `client.rack`, `auto.offset.reset`, `auto.commit.interval.ms`, `isolation.level`.
        ///
        /// # Errors
        /// [`ErrorKind::Config`] that names the setting.
        pub fn consumer<A>(&self, mut builder: ConsumerBuilder<A>) -> Result<ConsumerBuilder<A>> {
            if let Some(rack) = self.text("client.rack") {
                builder = builder.rack(rack);
            }
            if let Some(interval) = self.millis("auto.commit.interval.ms")? {
                builder = builder.commit_interval(interval);
            }
            if let Some(reset) = self.reset() {
                builder = builder.reset(reset);
            }
            if let Some(level) = self.text("isolation.level") {
                let uncommitted = level.eq_ignore_ascii_case("read_uncommitted");
                builder = builder.isolation(if uncommitted {
                    Isolation::ReadUncommitted
                } else {
                    Isolation::ReadCommitted
                });
            }
            Ok(builder)
        }
    }
}

#[cfg(feature = "amqp")]
mod amqp {
    use super::Properties;
    use crate::amqp::{Client, ClientBuilder, Url};
    use crate::{Error, ErrorKind, Result};

    impl Properties {
        /// A RabbitMQ client with these settings: `amqp.url`, `amqp.heartbeat.ms`, `amqp.connect.timeout.ms`,
        /// `amqp.operation.timeout.ms`, `amqp.connection.name`.
        ///
        /// # Errors
        /// [`ErrorKind::Config`] without `amqp.url`, or with one that is none.
        pub fn amqp(&self) -> Result<ClientBuilder> {
            let Some(entry) = self.entry("amqp.url").filter(|e| !e.value.trim().is_empty()) else {
                return Err(Error::new(ErrorKind::Config, "`amqp.url` is not set"));
            };
            let url = entry.value.trim();
            // Here, where the place is known; a client's builder checks it only when it connects.
            Url::parse(url).map_err(|e| e.context(entry.place()))?;
            let mut builder = Client::builder(url);
            if let Some(every) = self.millis("amqp.heartbeat.ms")? {
                builder = builder.heartbeat(every);
            }
            if let Some(limit) = self.millis("amqp.connect.timeout.ms")? {
                builder = builder.connect_timeout(limit);
            }
            if let Some(limit) = self.millis("amqp.operation.timeout.ms")? {
                builder = builder.operation_timeout(limit);
            }
            if let Some(name) = self.text("amqp.connection.name") {
                builder = builder.name(name);
            }
            Ok(builder)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_wins_in_whatever_spelling() {
        let mut p = Properties::parse("linger.ms=1\nqueue.buffering.max.ms = 2.5\n", "f").unwrap();
        assert_eq!(p.millis("linger.ms").unwrap(), Some(Duration::from_micros(2500)));
        p.set("linger.ms=7").unwrap();
        assert_eq!(p.get("queue.buffering.max.ms"), Some("7"));
        let mut later = Properties::new();
        later.put("linger.ms", "8").unwrap();
        p.merge(later);
        assert_eq!(p.get("linger.ms"), Some("8"));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_offers_the_nearest_one() {
        let e = Properties::parse("acks=all\nlinger=5\n", "k.properties").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.to_string().starts_with("k.properties, line 2: `linger` is no setting"), "{e}");
        assert!(e.to_string().ends_with("`linger.ms`"), "{e}");
        let e = Properties::new().set("bootstrap.server=a").unwrap_err();
        assert!(e.to_string().ends_with("`bootstrap.servers`"), "{e}");
        assert!(Properties::new().set("novalue").unwrap_err().to_string().contains("name=value"));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_place_and_what_was_expected() {
        for (setting, expected) in [
            ("linger.ms=soon", "`soon` will not do; expected milliseconds, 0 to 2147483647"),
            ("linger.ms=-1", "milliseconds"),
            ("linger.ms=NaN", "milliseconds"),
            ("allow.auto.create.topics=yes", "`yes` will not do; expected true or false"),
            ("batch.size=1k", "`batch.size`: `1k` will not do; expected bytes"),
            (
                "compression.codec=brotli",
                "`compression.codec`: `brotli` will not do; expected one of none, gzip",
            ),
            ("isolation.level=serializable", "read_committed, read_uncommitted"),
            ("security.protocol=tls", "plaintext, ssl"),
            ("bootstrap.servers= ", "not empty"),
        ] {
            let e = Properties::new().set(setting).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config, "{setting}");
            assert!(e.to_string().contains(expected), "{setting}: {e}");
        }
    }

    #[test]
    fn security_that_this_build_cannot_give_is_refused() {
        let e = Properties::parse("security.protocol=SASL_SSL", "f").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().contains("f, line 1"), "{e}");
        assert!(Properties::parse("security.protocol=PLAINTEXT", "f").unwrap().warnings().is_empty());
    }

    #[test]
    fn what_has_no_effect_is_named_in_a_warning() {
        let text = "key.serializer=x\nmax.poll.records=1\nretries=1\nsasl.username=u\nssl.ca.location=/x\nlinger.ms=5\n";
        let warnings = Properties::parse(text, "f").unwrap().warnings();
        let all = warnings.join("\n");
        assert_eq!(warnings.len(), 5, "{all}");
        for part in [
            "f, line 1: `key.serializer` has no meaning here",
            "f, line 2: `max.poll.records` has no effect in this build",
            "f, line 3: `retries` has no effect in this build",
            "f, line 4: `sasl.username` is ignored: security.protocol is plaintext",
        ] {
            assert!(all.contains(part), "{part} not in {all}");
        }
        assert!(Properties::parse("acks=-1\nenable.idempotence=TRUE", "f").unwrap().warnings().is_empty());
    }

    #[test]
    fn the_producers_settings_are_checked_where_they_stand() {
        for (text, words) in [
            ("acks=0", "all, -1, 1"),
            ("acks=two", "all, -1, 1"),
            ("enable.idempotence=maybe", "true or false"),
            ("max.in.flight=6", "1, 2, 3, 4, 5"),
            ("compression.level=high", "whole number"),
        ] {
            let e = Properties::parse(text, "f").unwrap_err();
            assert!(e.to_string().contains("f, line 1") && e.to_string().contains(words), "{e}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let p = Properties::parse("sasl.password=hush\namqp.url=amqp://u:hush@h/\nssl.key.pem=hush", "f")
            .unwrap();
        assert!(!format!("{p:?}{:?}", p.warnings()).contains("hush"));
        for text in ["amqp://u:hush@h/", "hush"] {
            let e = Properties::parse(text, "f").unwrap_err();
            assert!(!e.to_string().contains("hush"), "{e}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let e = Properties::load("/nowhere/at.all").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.report().contains("/nowhere/at.all: cannot be read: No such file"), "{}", e.report());
        let dir = tempfile::tempdir().unwrap();
        assert!(Properties::load(dir.path()).unwrap_err().to_string().contains("cannot be read"));
        let path = dir.path().join("latin1");
        std::fs::write(&path, b"acks=all\nclient.id=\xe9\n").unwrap();
        assert!(Properties::load(&path).unwrap_err().to_string().contains("line 2 is not UTF-8"));
        std::fs::write(&path, vec![b'#'; FILE_MAX + 1]).unwrap();
        assert!(Properties::load(&path).unwrap_err().to_string().contains("larger than"));
    }

    #[cfg(all(feature = "kafka", feature = "amqp"))]
    #[test]
    fn a_client_without_an_address_is_refused() {
        let none = Properties::new();
        assert!(none.kafka().unwrap_err().to_string().contains("bootstrap.servers"));
        assert!(none.amqp().unwrap_err().to_string().contains("amqp.url"));
    }
}
