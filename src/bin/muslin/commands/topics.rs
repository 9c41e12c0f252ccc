//! `topics`: lists, describes, creates, changes and deletes Kafka topics.

use std::time::Instant;

use clap::Args;
use muslin::kafka::{Admin, ConfigChange, ConfigSource, NewTopic, TopicConfig, TopicDescription};
use muslin::{Error, ErrorKind, Topic};
use serde::Serialize;

use super::results::Results;
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Data;

/// List, describe, create, change and delete Kafka topics
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Topics {
    List(List),
    Describe(Describe),
    Create(Create),
    Alter(Alter),
    Delete(Delete),
}

/// List the topics that you may see
#[derive(Debug, Args)]
#[command(after_help = "\
With -J an object a topic: topic, partitions, replication, internal.")]
pub(crate) struct List {
    /// Kafka's own topics as well
    #[arg(long)]
    internal: bool,
}

/// Tell who leads and holds each partition, and the settings
#[derive(Debug, Args)]
#[command(after_help = "\
With -J an object a topic: topic, internal, partitions (a list of partition, leader, leader_epoch, replicas, in_sync,
offline) and configs (a list of name, value, source; null without the right to see them).")]
pub(crate) struct Describe {
    /// The topics
    #[arg(value_name = "TOPIC", required = true)]
    topics: Vec<String>,
    /// All settings, also those at Kafka's default
    #[arg(long)]
    all: bool,
}

const RESULTS: &str = "\
With -J an object a topic: topic, outcome (created, valid, exists, altered, deleted, absent, failed or ambiguous), error;
then a summary: done, failed, ambiguous, elapsed_s.";

/// Create topics
#[derive(Debug, Args)]
#[command(after_help = format!("\
Examples:
  muslin topics create orders --partitions 6 --replication 3 --config retention.ms=86400000
  muslin topics create orders --partitions 6 --check

{RESULTS}"))]
pub(crate) struct Create {
    /// The topics
    #[arg(value_name = "TOPIC", required = true)]
    topics: Vec<String>,
    /// How many partitions [default: as the brokers have it]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many brokers hold each partition [default: as the brokers have it]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication: Option<i16>,
    /// A setting of the topic
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// Only check whether it could be created
    #[arg(long)]
    check: bool,
    /// A topic that is there already is no failure, whatever it is like
    #[arg(long)]
    if_not_exists: bool,
}

/// Give topics more partitions or other settings
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true).args(["partitions", "config", "reset"]))]
#[command(after_help = format!("\
Examples:
  muslin topics alter orders --partitions 12
  muslin topics alter orders --config retention.ms=3600000 --reset cleanup.policy

More partitions send keys to other partitions than before. There is no way back to fewer. Settings are changed first, all
of them or none.
{RESULTS}"))]
pub(crate) struct Alter {
    /// The topics
    #[arg(value_name = "TOPIC", required = true)]
    topics: Vec<String>,
    /// How many partitions in all
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Give a setting a value
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// Take the topic's own value of a setting away
    #[arg(long, value_name = "NAME")]
    reset: Vec<String>,
}

/// Delete topics and all their records
#[derive(Debug, Args)]
#[command(after_help = RESULTS)]
pub(crate) struct Delete {
    /// The topics
    #[arg(value_name = "TOPIC", required = true)]
    topics: Vec<String>,
    /// A topic that is not there is no failure
    #[arg(long)]
    if_exists: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Runs the command.
pub(crate) async fn run(context: Context, command: Topics) -> Outcome {
    // Names are checked before anything is done.
    let names = |names: &[String]| {
        names.iter().map(Topic::new).collect::<Result<Vec<_>, _>>().map_err(Failure::usage)
    };
    let topics = match &command {
        Topics::List(_) => Vec::new(),
        Topics::Describe(Describe { topics, .. })
        | Topics::Create(Create { topics, .. })
        | Topics::Alter(Alter { topics, .. })
        | Topics::Delete(Delete { topics, .. }) => names(topics)?,
    };
    let Some(client) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let admin = client.admin();
    let ended = match &command {
        Topics::List(args) => list(&context, &admin, args).await,
        Topics::Describe(args) => describe(&context, &admin, &topics, args.all).await,
        changing => change(&context, &admin, &topics, changing).await,
    };
    let closed = client.close().await;
    match ended {
        Ok(ended) => closed.map(|()| ended).map_err(Into::into),
        Err(failure) => Err(failure),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    topic: &'a str,
    partitions: usize,
    replication: usize,
    internal: bool,
}

async fn list(context: &Context, admin: &Admin, args: &List) -> Outcome {
    let Some(topics) = context.stop.unless(admin.topics()).await else { return Ok(Ended::Interrupted) };
    let mut topics = topics.map_err(Failure::setup)?;
    topics.retain(|t| args.internal || !t.internal);
    let mut data = Data::default();
    if context.console.json {
        for t in &topics {
            let (partitions, replication) = (t.partitions.len(), t.replication());
            data.json(&Listed { topic: t.topic.as_str(), partitions, replication, internal: t.internal })?;
        }
    } else {
        let rows = topics
            .iter()
            .map(|t| [t.topic.to_string(), t.partitions.len().to_string(), t.replication().to_string()]);
        data.table("", ["topic", "partitions", "replicas"], rows.collect());
    }
    data.flush().map(|_| Ended::Done)
}

#[derive(Serialize)]
struct Described<'a> {
    topic: &'a str,
    internal: bool,
    partitions: Vec<DescribedPartition>,
    configs: Option<Vec<DescribedConfig<'a>>>,
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    in_sync: Vec<i32>,
    offline: Vec<i32>,
}

#[derive(Serialize)]
struct DescribedConfig<'a> {
    name: &'a str,
    value: Option<&'a str>,
    source: &'static str,
}

async fn describe(context: &Context, admin: &Admin, topics: &[Topic], all: bool) -> Outcome {
    let mut results = Results::new(context.console);
    let mut data = Data::default();
    for topic in topics {
        let told = async {
            let told = admin.describe_topic(topic).await?;
            // The partitions are worth telling without the settings.
            let configs = match admin.topic_configs(topic).await {
                Ok(mut configs) => {
                    configs.retain(|c| all || c.source != ConfigSource::Default);
                    Some(configs)
                }
                Err(e) if e.kind() == ErrorKind::Denied => {
                    context.console.warn(&e.report());
                    None
                }
                Err(e) => return Err(e),
            };
            Ok((told, configs))
        };
        match context.stop.unless(told).await {
            None => {
                data.flush()?;
                return Ok(Ended::Interrupted);
            }
            Some(Ok((told, configs))) => {
                results.done += 1;
                if context.console.json {
                    data.json(&described(&told, configs.as_deref()))?;
                } else {
                    show(&mut data, &told, configs.as_deref());
                }
            }
            Some(Err(e)) => results.failure(e),
        }
    }
    data.flush()?;
    results.ended()
}

fn described<'a>(told: &'a TopicDescription, configs: Option<&'a [TopicConfig]>) -> Described<'a> {
    let ids = |nodes: &[muslin::NodeId]| nodes.iter().map(|n| n.get()).collect();
    let partition = |p: &muslin::kafka::PartitionDescription| DescribedPartition {
        partition: p.partition.get(),
        leader: p.leader.map(muslin::NodeId::get),
        leader_epoch: p.leader_epoch.get(),
        replicas: ids(&p.replicas),
        in_sync: ids(&p.in_sync),
        offline: ids(&p.offline),
    };
    let config = |c: &'a TopicConfig| DescribedConfig {
        name: &c.name,
        value: c.value.as_deref(),
        source: c.source.as_str(),
    };
    Described {
        topic: told.topic.as_str(),
        internal: told.internal,
        partitions: told.partitions.iter().map(partition).collect(),
        configs: configs.map(|configs| configs.iter().map(config).collect()),
    }
}

fn show(data: &mut Data, told: &TopicDescription, configs: Option<&[TopicConfig]>) {
    let ids = |nodes: &[muslin::NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    data.line(&format!("{}{}", told.topic, if told.internal { " (Kafka's own)" } else { "" }));
    let rows = told.partitions.iter().map(|p| {
        let leader = p.leader.map_or_else(|| "none".to_owned(), |n| n.to_string());
        [p.partition.to_string(), leader, ids(&p.replicas), ids(&p.in_sync)]
    });
    data.table("  ", ["partition", "leader", "replicas", "in sync"], rows.collect());
    for config in configs.unwrap_or_default() {
        let value = config.value.as_deref().unwrap_or(if config.sensitive { "***" } else { "" });
        let from = match config.source {
            ConfigSource::Topic => String::new(),
            other => format!(" ({})", other.as_str()),
        };
        data.line(&format!("  {}={value}{from}", config.name));
    }
}

/// What became of one topic.
#[derive(Serialize)]
struct Changed<'a> {
    topic: &'a str,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replication: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Topic by topic; a signal is obeyed between two of them.
async fn change(context: &Context, admin: &Admin, topics: &[Topic], command: &Topics) -> Outcome {
    let mut results = Results::new(context.console);
    let started = Instant::now();
    let mut data = Data::default();
    let mut interrupted = false;
    for topic in topics {
        if context.stop.is_asked() {
            interrupted = true;
            break;
        }
        let mut changed =
            Changed { topic: topic.as_str(), outcome: "", partitions: None, replication: None, error: None };
        match change_one(admin, topic, command, &mut changed).await {
            Ok(outcome) => {
                results.done += 1;
                changed.outcome = outcome;
                if !context.console.json {
                    data.line(&format!("{outcome} {topic}"));
                }
            }
            Err(e) => {
                changed.outcome = if e.is_ambiguous() { "ambiguous" } else { "failed" };
                changed.error = Some(e.report());
                results.failure(e);
            }
        }
        if context.console.json {
            data.json(&changed)?;
        }
        data.flush()?;
    }
    results.finish(started);
    if interrupted { Ok(Ended::Interrupted) } else { results.ended() }
}

/// What was done, in a word.
async fn change_one(
    admin: &Admin,
    topic: &Topic,
    command: &Topics,
    changed: &mut Changed<'_>,
) -> muslin::Result<&'static str> {
    match command {
        Topics::Create(args) => {
            let mut new = NewTopic::new(topic.clone())
                .partitions(args.partitions.unwrap_or(-1))
                .replication(args.replication.unwrap_or(-1));
            for (name, value) in &args.config {
                new = new.config(name, value);
            }
            let (made, word) = if args.check {
                (admin.validate_topic(&new).await, "valid")
            } else {
                (admin.create_topic(&new).await, "created")
            };
            match made {
                Ok(made) => {
                    (changed.partitions, changed.replication) = (made.partitions, made.replication);
                    Ok(word)
                }
                Err(e) if e.kind() == ErrorKind::Conflict && args.if_not_exists && !e.is_ambiguous() => {
                    Ok("exists")
                }
                Err(e) => Err(e),
            }
        }
        Topics::Alter(args) => {
            let set = args.config.iter().map(|(name, value)| ConfigChange::set(name, value));
            let changes: Vec<_> = set.chain(args.reset.iter().map(ConfigChange::reset)).collect();
            admin.alter_topic(topic, &changes).await?;
            if let Some(total) = args.partitions {
                let grown = admin.add_partitions(topic, total).await;
                let settings = !changes.is_empty();
                grown.map_err(|e| if settings { e.context("its settings were changed") } else { e })?;
                changed.partitions = Some(total);
            }
            Ok("altered")
        }
        Topics::Delete(args) => match admin.delete_topic(topic).await {
            Ok(()) => Ok("deleted"),
            Err(e) if e.kind() == ErrorKind::NotFound && args.if_exists && !e.is_ambiguous() => Ok("absent"),
            Err(e) => Err(e),
        },
        Topics::List(_) | Topics::Describe(_) => Err(Error::new(ErrorKind::Internal, "this changes nothing")),
    }
}
