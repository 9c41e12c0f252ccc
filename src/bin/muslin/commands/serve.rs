//! `serve`: Kafka and RabbitMQ's wire in this process, until interrupted.

use std::fs;
use std::io::{ErrorKind as Io, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muslin::embedded::faults::Faults;
use muslin::embedded::{self, Traffic};
use muslin::{Error, ErrorKind, Topic};
use serde::Serialize;

use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::{Progress, redact};

/// How often the line on the terminal changes.
const TICK: Duration = Duration::from_secs(1);

/// Serve an embedded Kafka and an embedded RabbitMQ until interrupted
///
/// For development and for tests of services in any language: no container, no JVM. Both listen on 127.0.0.1, keep
/// everything in memory, and start empty. Beyond 1 GiB of records Kafka refuses more; beyond 256 MiB of messages
/// RabbitMQ blocks publishers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  muslin serve --kafka 9092 --amqp 5672
  muslin serve --brokers 3 --topic orders:6 --queue emails --ready-file serve.env &
  until [ -e serve.env ]; do sleep 0.1; done; . ./serve.env; pytest

Once both can be reached, stdout and the ready file get the same: lines `export MUSLIN_KAFKA=...` and
`export MUSLIN_AMQP=...` for a shell, or with -J one JSON object {\"kafka\", \"amqp\"}. The ready file appears whole or not
at all, and goes away at the end; one from before is removed first. Clients log in to RabbitMQ as guest with the
password guest. With --user the URL names the first user; its password stands in the ready file alone, which only its
owner can read. SIGINT or SIGTERM ends it, with status 130; a taken port is status 3.")]
pub(crate) struct Args {
    // The ids of the settings that stand everywhere, and so the type: here they are ports.
    /// Kafka's port; further brokers take the ports after it [default: the system picks]
    #[arg(long, value_name = "PORT", value_parser = port)]
    kafka: Option<String>,
    /// RabbitMQ's port [default: the system picks]
    #[arg(long, value_name = "PORT", value_parser = port)]
    amqp: Option<String>,
    /// How many Kafka brokers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    brokers: u16,
    /// Make this topic; may be given again. Others are made when they are asked for
    #[arg(long = "topic", value_name = "NAME:PARTITIONS", value_parser = topic)]
    topics: Vec<(Topic, i32)>,
    /// Make this queue, plain and durable; may be given again
    #[arg(long = "queue", value_name = "NAME", value_parser = queue)]
    queues: Vec<String>,
    /// Let this user log in, to Kafka by PLAIN or SCRAM and to RabbitMQ; may be given again
    #[arg(long = "user", value_name = "NAME:PASSWORD", value_parser = user)]
    users: Vec<User>,
    /// Kafka demands a login: SASL_PLAINTEXT on all its listeners
    #[arg(long, requires = "users")]
    sasl: bool,
    /// Write the addresses to this file once both can be reached
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Let happen what this JSON file lists (docs/faults.md)
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

fn port(text: &str) -> Result<String, String> {
    match text.parse::<u16>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected a port, 0 to 65535; 0 lets the system pick".to_owned()),
    }
}

fn topic(text: &str) -> Result<(Topic, i32), String> {
    let (name, partitions) = text.rsplit_once(':').ok_or("expected NAME:PARTITIONS, such as orders:3")?;
    let partitions = partitions
        .parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("`{partitions}` is no number of partitions; expected 1 or more"))?;
    Ok((Topic::new(name).map_err(|e| e.to_string())?, partitions))
}

fn queue(text: &str) -> Result<String, String> {
    // A short string of AMQP 0-9-1, section 4.2.5.3.
    if text.is_empty() || text.len() > 255 {
        return Err(format!("a queue's name has 1 to 255 bytes, and this has {}", text.len()));
    }
    Ok(text.to_owned())
}

/// Who may log in. Its debug form hides the password.
#[derive(Clone)]
struct User {
    name: String,
    password: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:***", self.name)
    }
}

fn user(text: &str) -> Result<User, String> {
    match text.split_once(':') {
        Some((name, password)) if !name.is_empty() && !password.is_empty() => {
            Ok(User { name: name.to_owned(), password: password.to_owned() })
        }
        _ => Err("expected NAME:PASSWORD".to_owned()),
    }
}

/// A port that was given behind the command or before it, where it is not yet checked.
fn number(option: &str, text: Option<&str>) -> Result<u16, Failure> {
    match text {
        None => Ok(0),
        Some(text) => text
            .parse()
            .map_err(|_| Failure::wrong_use(format!("{option} {text}: `serve` expects a port, 0 to 65535"))),
    }
}

/// The faults of a file.
fn faults(path: &Path) -> Result<Faults, Failure> {
    let named = |e: Error| Failure::usage(e.context(format!("--faults {}", path.display())));
    let text = fs::read_to_string(path)
        .map_err(|e| named(Error::new(ErrorKind::Config, "cannot be read").with_source(e)))?;
    Faults::from_json(&text).map_err(named)
}

/// Where the brokers are.
#[derive(Debug, Serialize)]
struct Addresses {
    kafka: String,
    amqp: String,
}

impl Addresses {
    fn render(&self, json: bool) -> Result<String, Failure> {
        if json {
            let line = serde_json::to_string(self).map_err(|e| {
                Error::new(ErrorKind::Internal, "the addresses cannot be written as JSON").with_source(e)
            })?;
            return Ok(line + "\n");
        }
        Ok(format!(
            "export MUSLIN_KAFKA={}\nexport MUSLIN_AMQP={}\n",
            quoted(&self.kafka),
            quoted(&self.amqp)
        ))
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Served {
    connections: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// Faults that happened.
    faults: u64,
}

#[derive(Debug, Serialize)]
struct Summary {
    kafka: Served,
    amqp: Served,
    elapsed_s: f64,
}

impl Served {
    fn new(traffic: Traffic, faults: u64) -> Self {
        let Traffic { connections, bytes_in, bytes_out, .. } = traffic;
        Self { connections, bytes_in, bytes_out, faults }
    }
}

impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { connections, bytes_in, bytes_out, faults } = *self;
        let plural = |n| if n == 1 { "" } else { "s" };
        write!(f, "{connections} connection{}, ", plural(connections))?;
        write!(f, "{} in, {} out", Size(bytes_in), Size(bytes_out))?;
        if faults > 0 {
            write!(f, ", {faults} fault{}", plural(faults))?;
        }
        Ok(())
    }
}

struct Size(u64);

impl std::fmt::Display for Size {
    #[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            n @ 0..1_000 => write!(f, "{n} B"),
            n @ 1_000..1_000_000 => write!(f, "{:.1} kB", n as f64 / 1e3),
            n @ 1_000_000..1_000_000_000 => write!(f, "{:.1} MB", n as f64 / 1e6),
            n => write!(f, "{:.1} GB", n as f64 / 1e9),
        }
    }
}

/// The file that says where the brokers are. Dropped, it is gone.
#[derive(Debug)]
struct ReadyFile<'a> {
    path: &'a Path,
    text: String,
}

impl<'a> ReadyFile<'a> {
    /// Takes away what an earlier run may have left there, so that nobody takes it for this one's.
    fn clear(path: &Path) -> Result<(), Failure> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != Io::NotFound => Err(cannot_write(path, e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes it beside its place, then moves it there.
    fn write(path: &'a Path, text: &str, secret: bool) -> Result<Self, Failure> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(name);
        let mode = if secret { 0o600 } else { 0o666 };
        let mut options = fs::OpenOptions::new();
        let written = options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&beside, path));
        written.map_err(|e| {
            drop(fs::remove_file(&beside));
            cannot_write(path, e)
        })?;
        Ok(Self { path, text: text.to_owned() })
    }
}

impl Drop for ReadyFile<'_> {
    fn drop(&mut self) {
        // Another `serve` may have put its own there since.
        if fs::read_to_string(self.path).is_ok_and(|text| text == self.text) {
            drop(fs::remove_file(self.path));
        }
    }
}

fn cannot_write(path: &Path, e: std::io::Error) -> Failure {
    let text = format!("--ready-file: cannot write {}", path.display());
    Failure::setup(Error::new(ErrorKind::Storage, text).with_source(e))
}

/// Runs the command.
pub(crate) async fn run(context: Context, args: Args) -> Outcome {
    let Context { console, stop, .. } = context;
    let started = Instant::now();
    let kafka_port = number("--kafka", args.kafka.as_deref())?;
    let amqp_port = number("--amqp", args.amqp.as_deref())?;
    for (n, (name, _)) in args.topics.iter().enumerate() {
        if args.topics.iter().take(n).any(|(earlier, _)| earlier == name) {
            return Err(Failure::wrong_use(format!("--topic {name} stands twice")));
        }
    }
    if let Some(path) = &args.ready_file {
        ReadyFile::clear(path)?;
    }
    let faults = args.faults.as_deref().map(faults).transpose()?.unwrap_or_default();
    let mut kafka = embedded::Kafka::builder().port(kafka_port).brokers(args.brokers).faults(faults.clone());
    for (name, partitions) in &args.topics {
        kafka = kafka.topic(name.as_str(), *partitions);
    }
    let mut rabbit = embedded::Rabbit::builder().port(amqp_port).faults(faults);
    for User { name, password } in &args.users {
        kafka = kafka.user(name, password);
        rabbit = rabbit.user(name, password);
    }
    if args.sasl {
        kafka = kafka.require_sasl();
    }
    let kafka = kafka.start().await.map_err(|e| Failure::setup(e.context("--kafka")))?;
    for name in &args.queues {
        rabbit = rabbit.queue(name);
    }
    let rabbit = rabbit.start().await.map_err(|e| Failure::setup(e.context("--amqp")))?;
    // `guest` is no secret; what was given is.
    let secret = !args.users.is_empty();
    let addresses = Addresses { kafka: kafka.bootstrap(), amqp: rabbit.url() };
    let text = addresses.render(console.json)?;
    let ready = args.ready_file.as_deref().map(|path| ReadyFile::write(path, &text, secret)).transpose()?;
    let text = if secret { redact(&text) } else { text };
    let mut out = std::io::stdout();
    // Nobody may be reading: what is served is on the ports.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let brokers = if args.brokers == 1 { "1 broker" } else { &format!("{} brokers", args.brokers) };
    console.note(&format!("serving Kafka ({brokers}) and RabbitMQ until interrupted"));

    let served = || {
        let (kafka_met, rabbit_met) = (kafka.faults(|f| f.count()), rabbit.faults(|f| f.count()));
        (Served::new(kafka.traffic(), kafka_met), Served::new(rabbit.traffic(), rabbit_met))
    };
    let live = async {
        let mut progress = Progress::start(console);
        loop {
            tokio::time::sleep(TICK).await;
            let (kafka, amqp) = served();
            progress.tick(|| format!("Kafka: {kafka}; RabbitMQ: {amqp}"));
        }
    };
    // Without a terminal nothing wakes this process but its clients.
    tokio::select! {
        biased;
        () = stop.wait() => {}
        () = live, if console.is_live() => {}
    }
    drop(ready);
    let (kafka, amqp) = served();
    let elapsed_s = (started.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    let text = format!("served in {elapsed_s} s: Kafka: {kafka}; RabbitMQ: {amqp}");
    console.summary(&Summary { kafka, amqp, elapsed_s }, &text);
    Ok(Ended::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_a_shell_and_a_program_take() {
        let addresses =
            Addresses { kafka: "127.0.0.1:1,127.0.0.1:2".into(), amqp: "amqp://a:b'c$@h:3/".into() };
        assert_eq!(
            addresses.render(false).unwrap(),
            "export MUSLIN_KAFKA=127.0.0.1:1,127.0.0.1:2\nexport MUSLIN_AMQP='amqp://a:b'\\''c$@h:3/'\n"
        );
        let json: serde_json::Value = serde_json::from_str(&addresses.render(true).unwrap()).unwrap();
        assert_eq!(json["kafka"], "127.0.0.1:1,127.0.0.1:2");
        assert_eq!(json["amqp"], "amqp://a:b'c$@h:3/");
    }

    #[test]
    fn a_ready_file_appears_whole_and_goes_away_but_never_another_s() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready");
        fs::write(&path, "old").unwrap();
        ReadyFile::clear(&path).unwrap();
        assert!(!path.exists());
        let ready = ReadyFile::write(&path, "mine\n", false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(ready);
        assert!(!path.exists());
        let ready = ReadyFile::write(&path, "mine\n", false).unwrap();
        fs::write(&path, "another's\n").unwrap();
        drop(ready);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's\n");
        let nowhere = dir.path().join("no/such/place");
        assert_eq!(ReadyFile::write(&nowhere, "x", false).unwrap_err().status, 3);
    }

    #[test]
    fn what_was_served_is_told_in_a_line() {
        let served = |connections, bytes_in, bytes_out| {
            Served { connections, bytes_in, bytes_out, faults: 0 }.to_string()
        };
        assert_eq!(served(1, 999, 1_500), "1 connection, 999 B in, 1.5 kB out");
        assert_eq!(served(0, 2_340_000, 7_000_000_000), "0 connections, 2.3 MB in, 7.0 GB out");
    }
}
