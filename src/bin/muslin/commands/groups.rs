//! `groups`: lists, describes, deletes Kafka's consumer groups, and resets their offsets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use muslin::kafka::{Admin, GroupDescription, ResetTo, StartAt};
use muslin::{Error, ErrorKind, Partition, Topic};
use serde::Serialize;

use super::results::Results;
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Data;
use crate::units;

/// List, describe and delete Kafka consumer groups, and reset their offsets
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Groups {
    List(List),
    Describe(Describe),
    Delete(Delete),
    Reset(Reset),
}

/// List the groups that you may see
#[derive(Debug, Args)]
#[command(after_help = "\
With -J an object a group: group, state (empty, stable, preparing_rebalance, completing_rebalance, assigning, reconciling,
dead, unknown), kind (classic, consumer, share, streams, unknown), protocol_type, coordinator.")]
pub(crate) struct List {}

/// Tell the members of groups and what each of them reads
#[derive(Debug, Args)]
#[command(after_help = "\
With -J an object a group: group, state, kind, protocol_type, assignor, epoch, members (a list of member, instance, client,
host, rack, assigned, target; the last two are objects of topics with their partitions). How far it is: muslin lag -g GROUP.")]
pub(crate) struct Describe {
    /// The groups
    #[arg(value_name = "GROUP", required = true)]
    groups: Vec<String>,
}

/// Delete groups with their committed offsets
#[derive(Debug, Args)]
#[command(after_help = "\
A group with members is not deleted. With -J an object a group: group, outcome (deleted, absent, failed or ambiguous), error;
then a summary: done, failed, ambiguous, elapsed_s.")]
pub(crate) struct Delete {
    /// The groups
    #[arg(value_name = "GROUP", required = true)]
    groups: Vec<String>,
    /// A group that is not there is no failure
    #[arg(long)]
    if_exists: bool,
}

/// Set a group's committed offsets to others; without --execute only show what would be done
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("where").required(true).args(["to", "ago", "shift"]))]
#[command(after_help = "\
Examples:
  muslin groups reset billing --to beginning
  muslin groups reset billing -t orders -t payments:0,1 --to @2026-01-31T12:00:00Z --execute
  muslin groups reset billing --ago 2h --execute
  muslin groups reset billing -t orders:3 --shift +1 --execute

The group must have no members. An offset outside of the log becomes the nearest in it. With -J an object a partition: group,
topic, partition, from, to, outcome (planned or reset).")]
pub(crate) struct Reset {
    /// The group
    #[arg(value_name = "GROUP")]
    group: String,
    /// A topic, or some of its partitions; several may be given [default: what the group has committed]
    #[arg(short, long, value_name = "TOPIC[:PARTITION,...]", value_parser = scope)]
    topic: Vec<(Topic, Vec<Partition>)>,
    /// To the beginning, the end, an offset, or the first record at or after @TIME (ms since 1970, or ISO 8601)
    #[arg(long, value_name = "WHERE", value_parser = to)]
    to: Option<ResetTo>,
    /// To the first record that is not older than this
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    ago: Option<Duration>,
    /// So many offsets ahead, or back where negative
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shift: Option<i64>,
    /// Do it
    #[arg(long)]
    execute: bool,
}

fn scope(text: &str) -> Result<(Topic, Vec<Partition>), String> {
    let (name, list) = text.split_once(':').map_or((text, None), |(name, list)| (name, Some(list)));
    let topic = Topic::new(name).map_err(|e| e.to_string())?;
    let Some(list) = list else { return Ok((topic, Vec::new())) };
    let partition = |n: &str| match n.parse::<i32>() {
        Ok(n) if n >= 0 => Ok(Partition(n)),
        _ => Err(format!("`{n}` is no partition; expected TOPIC or TOPIC:0,1,2")),
    };
    list.split(',').map(partition).collect::<Result<_, _>>().map(|partitions| (topic, partitions))
}

fn to(text: &str) -> Result<ResetTo, String> {
    match super::consume::start(text) {
        Ok(StartAt::Earliest) => Ok(ResetTo::Earliest),
        Ok(StartAt::Latest) => Ok(ResetTo::Latest),
        Ok(StartAt::Offset(offset)) => Ok(ResetTo::Exact(offset)),
        Ok(StartAt::Timestamp(time)) => Ok(ResetTo::Timestamp(time)),
        Err(e) if text.starts_with('@') => Err(e),
        Ok(_) | Err(_) => Err("expected beginning, end, an offset, or @TIME".to_owned()),
    }
}

/// Runs the command.
pub(crate) async fn run(context: Context, command: Groups) -> Outcome {
    let Some(client) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let admin = client.admin();
    let ended = match &command {
        Groups::List(_) => list(&context, &admin).await,
        Groups::Describe(args) => describe(&context, &admin, args).await,
        Groups::Delete(args) => delete(&context, &admin, args).await,
        Groups::Reset(args) => reset(&context, &admin, args).await,
    };
    let closed = client.close().await;
    match ended {
        Ok(ended) => closed.map(|()| ended).map_err(Into::into),
        Err(failure) => Err(failure),
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    group: &'a str,
    state: &'static str,
    kind: &'static str,
    protocol_type: &'a str,
    coordinator: i32,
}

async fn list(context: &Context, admin: &Admin) -> Outcome {
    let Some(groups) = context.stop.unless(admin.groups()).await else { return Ok(Ended::Interrupted) };
    let groups = groups.map_err(Failure::setup)?;
    let mut data = Data::default();
    if context.console.json {
        for g in &groups {
            data.json(&Listed {
                group: &g.group,
                state: g.state.as_str(),
                kind: g.kind.as_str(),
                protocol_type: &g.protocol_type,
                coordinator: g.coordinator.get(),
            })?;
        }
    } else {
        let rows = groups.iter().map(|g| {
            let state = g.state.as_str().replace('_', " ");
            [g.group.clone(), state, g.kind.as_str().to_owned(), g.coordinator.to_string()]
        });
        data.table("", ["group", "state", "kind", "coordinator"], rows.collect());
    }
    data.flush().map(|_| Ended::Done)
}

/// Topics with their partitions.
type Places<'a> = BTreeMap<&'a str, Vec<i32>>;

#[derive(Serialize)]
struct Described<'a> {
    group: &'a str,
    state: &'static str,
    kind: &'static str,
    protocol_type: &'a str,
    assignor: &'a str,
    epoch: Option<i32>,
    members: Vec<Member<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    member: &'a str,
    instance: Option<&'a str>,
    client: &'a str,
    host: &'a str,
    rack: Option<&'a str>,
    assigned: Places<'a>,
    target: Option<Places<'a>>,
}

fn places(assigned: &BTreeMap<Topic, Vec<Partition>>) -> Places<'_> {
    assigned.iter().map(|(topic, ps)| (topic.as_str(), ps.iter().map(|p| p.get()).collect())).collect()
}

async fn describe(context: &Context, admin: &Admin, args: &Describe) -> Outcome {
    let Some(told) = context.stop.unless(admin.describe_groups(&args.groups)).await else {
        return Ok(Ended::Interrupted);
    };
    let mut results = Results::new(context.console);
    let mut data = Data::default();
    for told in told.map_err(Failure::usage)? {
        match told {
            Ok(told) => {
                results.done += 1;
                if context.console.json {
                    data.json(&described(&told))?;
                } else {
                    show(&mut data, &told);
                }
            }
            Err(e) => results.failure(e),
        }
    }
    data.flush()?;
    results.ended()
}

fn described(told: &GroupDescription) -> Described<'_> {
    let members = told.members.iter().map(|m| Member {
        member: &m.member,
        instance: m.instance.as_deref(),
        client: &m.client,
        host: &m.host,
        rack: m.rack.as_deref(),
        assigned: places(&m.assigned),
        target: m.target.as_ref().map(places),
    });
    Described {
        group: &told.group,
        state: told.state.as_str(),
        kind: told.kind.as_str(),
        protocol_type: &told.protocol_type,
        assignor: &told.assignor,
        epoch: told.epoch,
        members: members.collect(),
    }
}

fn show(data: &mut Data, told: &GroupDescription) {
    let mut line =
        format!("{}: {}, {}", told.group, told.state.as_str().replace('_', " "), told.kind.as_str());
    if !told.assignor.is_empty() {
        line.push_str(&format!(", assigned by {}", told.assignor));
    }
    if let Some(epoch) = told.epoch {
        line.push_str(&format!(", epoch {epoch}"));
    }
    data.line(&line);
    if told.members.is_empty() {
        return;
    }
    let rows = told.members.iter().map(|m| {
        let assigned = places(&m.assigned).into_iter().map(|(topic, partitions)| {
            let list: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            format!("{topic}:{}", list.join(","))
        });
        let instance = m.instance.clone().unwrap_or_else(|| "-".to_owned());
        let assigned = assigned.collect::<Vec<_>>().join(" ");
        [m.member.clone(), instance, m.client.clone(), m.host.clone(), assigned]
    });
    data.table("  ", ["member", "instance", "client", "host", "assigned"], rows.collect());
}

#[derive(Serialize)]
struct Deleted<'a> {
    group: &'a str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Group by group; a signal is obeyed between two of them.
async fn delete(context: &Context, admin: &Admin, args: &Delete) -> Outcome {
    let mut results = Results::new(context.console);
    let started = Instant::now();
    let mut data = Data::default();
    let mut interrupted = false;
    for group in &args.groups {
        if context.stop.is_asked() {
            interrupted = true;
            break;
        }
        let (outcome, error) = match admin.delete_group(group).await {
            Ok(()) => ("deleted", None),
            Err(e) if e.kind() == ErrorKind::NotFound && args.if_exists && !e.is_ambiguous() => {
                ("absent", None)
            }
            Err(e) => (if e.is_ambiguous() { "ambiguous" } else { "failed" }, Some(e)),
        };
        if context.console.json {
            data.json(&Deleted { group, outcome, error: error.as_ref().map(Error::report) })?;
        } else if error.is_none() {
            data.line(&format!("{outcome} {group}"));
        }
        match error {
            None => results.done += 1,
            Some(e) => results.failure(e),
        }
        data.flush()?;
    }
    results.finish(started);
    if interrupted { Ok(Ended::Interrupted) } else { results.ended() }
}

#[derive(Serialize)]
struct Moved<'a> {
    group: &'a str,
    topic: &'a str,
    partition: i32,
    from: Option<i64>,
    to: i64,
    outcome: &'static str,
}

async fn reset(context: &Context, admin: &Admin, args: &Reset) -> Outcome {
    let to = match (args.to, args.ago, args.shift) {
        (Some(to), ..) => to,
        (_, Some(age), _) => ResetTo::Ago(age),
        (_, _, Some(by)) => ResetTo::Shift(by),
        (None, None, None) => return Err(Failure::wrong_use("give --to, --ago or --shift")),
    };
    let mut reset = admin.reset_offsets(&args.group, to);
    for (topic, partitions) in &args.topic {
        reset = match partitions.is_empty() {
            true => reset.topic(topic),
            false => partitions.iter().fold(reset, |reset, p| reset.partition(topic, *p)),
        };
    }
    let Some(plan) = context.stop.unless(reset.plan()).await else { return Ok(Ended::Interrupted) };
    let plan = plan?;
    if args.execute {
        if context.stop.is_asked() {
            return Ok(Ended::Interrupted);
        }
        plan.execute().await?;
    }
    let mut data = Data::default();
    if context.console.json {
        for m in plan.moves() {
            data.json(&Moved {
                group: plan.group(),
                topic: m.topic.as_str(),
                partition: m.partition.get(),
                from: m.from.map(muslin::Offset::get),
                to: m.to.get(),
                outcome: if args.execute { "reset" } else { "planned" },
            })?;
        }
    } else {
        let rows = plan.moves().iter().map(|m| {
            let from = m.from.map_or_else(|| "-".to_owned(), |from| from.to_string());
            [m.topic.to_string(), m.partition.to_string(), from, m.to.to_string()]
        });
        data.table("", ["topic", "partition", "from", "to"], rows.collect());
    }
    data.flush()?;
    if !args.execute {
        context.console.note("nothing was changed; --execute does it");
    }
    Ok(Ended::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muslin::{Offset, Timestamp};

    #[test]
    fn topics_may_have_partitions_behind_them() {
        let topic = Topic::new("orders").unwrap();
        assert_eq!(scope("orders"), Ok((topic.clone(), vec![])));
        assert_eq!(scope("orders:0,12"), Ok((topic, vec![Partition(0), Partition(12)])));
        for text in ["", "a b", "orders:", "orders:x", "orders:-1", "orders:0,"] {
            assert!(scope(text).is_err(), "{text}");
        }
    }

    #[test]
    fn offsets_are_reset_to_places_that_consume_knows() {
        assert_eq!(to("beginning"), Ok(ResetTo::Earliest));
        assert_eq!(to("end"), Ok(ResetTo::Latest));
        assert_eq!(to("17"), Ok(ResetTo::Exact(Offset(17))));
        assert_eq!(to("@17"), Ok(ResetTo::Timestamp(Timestamp(17))));
        for text in ["stored", "-1", "soon", "@soon"] {
            assert!(to(text).is_err(), "{text}");
        }
    }
}
