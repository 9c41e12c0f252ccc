//! `demo`: the whole story on both brokers, and a proof that is read back from them.
//!
//! ```text
//! publish ─► events topic ─► handle, in order per aggregate ─► handled topic, tasks queue
//!                                └► dead letters (one poisoned)      │
//!            ledger queue ◄── effect ◄── worker processes ◄──────────┘
//!                                          │    └ one is killed half-way
//!            key store ◄── outcome: which effect counts
//! ```
//!
//! An effect in the world outside (here: an entry in the ledger) cannot be atomic with the key's record. So each attempt
//! makes an entry under a name of its own, and the attempt that completes the key records that name as the outcome. What
//! a killed worker wrote without completing its key is void, whenever it was killed; the proof counts it apart.
//!
//! | file | what lives there |
//! |---|---|
//! | `ground` | the brokers that it runs on: those that are named, embedded ones otherwise |
//! | `names` | what the demo makes, and what its messages hold |
//! | `stage` | making, publishing, removing |
//! | `handle` | events to tasks |
//! | `workers` | the worker processes: started, watched, killed, ended; and what they do |
//! | `proof` | what the brokers and the store hold, and whether it adds up |

mod ground;
mod handle;
mod names;
mod proof;
mod stage;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muslin::idempotency::{BoxFuture, RedbOptions, RedbStore, Store};
use muslin::kafka;
use muslin::{Error, ErrorKind, amqp};

use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Progress;

use ground::Ground;
use names::Names;
use workers::{Told, Workers};

/// How often the brokers are asked how far it is.
const LOOK: Duration = Duration::from_millis(100);
/// How long nothing may move before the demo gives up and shows what there is.
const STALLED: Duration = Duration::from_secs(60);

/// Show the whole story on both brokers; needs nothing installed
///
/// Runs on brokers in this process, or on those that --kafka and --amqp or the environment name.
///
/// Publishes events, handles them in order per aggregate, puts a task for each, works the tasks in processes of which one
/// is killed half-way; one event is poisoned, some tasks are put twice. Then reads back what Kafka, RabbitMQ and the
/// key store hold and checks that it adds up: exit status 0 only if it does.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  muslin demo
  muslin demo --kafka localhost:9092 --amqp amqp://guest:guest@localhost:5672/
  muslin demo --events 1000 --workers 4 -J | jq .checks

It makes topics, queues and a group under names of its own and removes them at the end.")]
pub(crate) struct Args {
    /// How many events are published
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    events: u64,
    /// Over how many aggregates they are spread
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    aggregates: u64,
    /// How many worker processes work the tasks; one of them is killed
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    workers: u16,
    /// Leave topics, queues, group and key store behind, to look at
    #[arg(long)]
    keep: bool,
    // A worker process of a demo that runs: which number, of which demo, with which store.
    #[arg(long, hide = true, requires_all = ["run_id", "store_path"])]
    as_worker: Option<u16>,
    #[arg(long, hide = true)]
    run_id: Option<String>,
    #[arg(long, hide = true)]
    store_path: Option<PathBuf>,
}

/// What every part of the demo needs.
struct Scene {
    context: Context,
    names: Names,
    ground: Ground,
    kafka: kafka::Client,
    amqp: amqp::Client,
    /// The keys of the events, this process's own.
    events_store: Arc<dyn Store>,
    /// The keys of the tasks, shared with the workers.
    tasks_store: Arc<dyn Store>,
    tasks_path: PathBuf,
    events: u64,
    aggregates: u64,
    workers: u16,
}

/// Runs the demo, or one of its workers.
pub(crate) async fn run(mut context: Context, args: Args) -> Outcome {
    if let (Some(number), Some(id), Some(path)) = (args.as_worker, &args.run_id, args.store_path) {
        return workers::work(context, number, Names::new(id)?, path).await;
    }
    let ground = Ground::choose(&mut context).await?;
    context.console.note(&format!("0. the brokers: {}; {}", ground.ran_on.kafka, ground.ran_on.rabbitmq));
    let Some(kafka) = context.kafka().await? else { return Ok(Ended::Interrupted) };
    let Some(amqp) = context.amqp().await? else { return Ok(Ended::Interrupted) };
    let id = uuid::Uuid::new_v4().simple().to_string();
    let names = Names::new(id.get(..8).unwrap_or(&id))?;
    let directory = std::env::temp_dir().join(&names.group);
    std::fs::create_dir(&directory).map_err(|e| {
        let text = format!("cannot make the directory {} for the key store", directory.display());
        Failure::setup(Error::new(ErrorKind::Storage, text).with_source(e))
    })?;
    let tasks_path = directory.join("tasks.redb");
    let open = || {
        let events = RedbStore::open(directory.join("events.redb"))?;
        Ok((Arc::new(events), Arc::new(RedbStore::open_with(&tasks_path, shared())?)))
    };
    let (events_store, tasks_store) = match tokio::task::block_in_place(open) {
        Ok((events, tasks)) => (events as Arc<dyn Store>, tasks as Arc<dyn Store>),
        Err(e) => {
            drop(std::fs::remove_dir_all(&directory));
            return Err(Failure::setup(e));
        }
    };
    let Args { events, aggregates, workers, keep, .. } = args;
    let scene = Scene {
        context,
        names,
        ground,
        kafka,
        amqp,
        events_store,
        tasks_store,
        tasks_path,
        events,
        aggregates,
        workers,
    };
    let told: BoxFuture<'_, _> = Box::pin(story(&scene));
    let told = scene.context.stop.unless(told).await;
    if keep {
        scene.context.console.note(&format!("kept: {}; {}", scene.names, directory.display()));
    } else {
        stage::remove(&scene).await;
        drop(std::fs::remove_dir_all(&directory));
    }
    if let Err(e) = scene.kafka.close().await {
        tracing::debug!(error = %e.report(), "the Kafka client was not closed in order");
    }
    if let Err(e) = scene.amqp.close().await {
        tracing::debug!(error = %e.report(), "the RabbitMQ client was not closed in order");
    }
    match told {
        Some(Ok(true)) => Ok(Ended::Done),
        Some(Ok(false)) => Ok(Ended::SomeFailed),
        Some(Err(failure)) => Err(failure),
        None => Ok(Ended::Interrupted),
    }
}

/// How all processes of a demo open the store of the tasks' keys.
fn shared() -> RedbOptions {
    RedbOptions::default().shared(true)
}

/// The story; whether the proof holds.
async fn story(scene: &Scene) -> Result<bool, Failure> {
    let console = scene.context.console;
    let started = Instant::now();
    stage::make(scene).await.map_err(Failure::setup)?;
    console.note(&format!(
        "1. publishing {} events of {} aggregates to Kafka, one of them poisoned",
        scene.events, scene.aggregates
    ));
    stage::publish(scene).await?;
    console
        .note("2. handling them in order per aggregate, and putting a task for each to RabbitMQ, some twice");
    handle::run(scene).await?;
    console.note(&format!(
        "3. working the tasks with {} processes, one of which is killed half-way",
        scene.workers
    ));
    let mut workers = Workers::start(scene, 1..=scene.workers)?;
    watch_over(scene, &mut workers).await?;
    let told = workers.end().await?;
    let told = told.and(take_leftovers(scene).await?);
    console.note("4. reading back what the brokers and the key stores hold");
    let proof = proof::read(scene, &told, started).await?;
    proof.show(console)
}

/// A task that was put twice may have been waiting for the lease of its first delivery when the workers were ended, and
/// was given back. One more worker takes such ones.
async fn take_leftovers(scene: &Scene) -> Result<Told, Failure> {
    let tasks = scene.amqp.queue(&scene.names.tasks).passive().declare().await?;
    let left = tasks.depth().await?.messages;
    if left == 0 {
        return Ok(Told::default());
    }
    scene.context.console.note(&format!("   {left} messages were given back; one more worker takes them"));
    let number = scene.workers + 1;
    let worker = Workers::start(scene, number..=number)?;
    let started = Instant::now();
    while tasks.depth().await?.messages > 0 && started.elapsed() < STALLED {
        tokio::time::sleep(LOOK).await;
    }
    Ok(worker.end().await?)
}

/// Says how far it is, kills a worker half-way, and returns when all tasks are worked or nothing moves any more.
async fn watch_over(scene: &Scene, workers: &mut Workers) -> Result<(), Failure> {
    let console = scene.context.console;
    let mut progress = Progress::start(console);
    let (tasks, ledger) = (scene.amqp.queue(&scene.names.tasks), scene.amqp.queue(&scene.names.ledger));
    let tasks = tasks.passive().declare().await?;
    let ledger = ledger.passive().declare().await?;
    // All but the poisoned event became tasks.
    let expected = scene.events - 1;
    let (mut last, mut moved) = (None, Instant::now());
    let mut milestone = 1;
    loop {
        tokio::time::sleep(LOOK).await;
        let waiting = u64::from(tasks.depth().await?.messages);
        let effects = u64::from(ledger.depth().await?.messages);
        if effects * 2 >= expected && !workers.has_killed() {
            let (number, pid) = workers.kill_one().await?;
            console.note(&format!(
                "   worker {number} (process {pid}) is killed with SIGKILL: {effects} effects so far, {waiting} tasks waiting"
            ));
        }
        let keys = scene.tasks_store.counts().await?;
        progress.tick(|| format!("   tasks waiting {waiting}, effects {effects}/{expected}"));
        while milestone <= 4 && effects * 4 >= expected * milestone {
            let (seconds, percent) = (progress.elapsed().as_secs_f64(), milestone * 25);
            console.note(&format!("   {percent}% of the effects are in the ledger after {seconds:.1} s"));
            milestone += 1;
        }
        let worked = keys.completed >= expected && keys.in_progress == 0;
        if waiting == 0 && worked && workers.has_killed() {
            return Ok(());
        }
        let now = Some((waiting, effects, keys));
        if now != last {
            (last, moved) = (now, Instant::now());
        } else if moved.elapsed() > STALLED {
            console.warn(&format!("nothing has moved for {} s; this is what there is", STALLED.as_secs()));
            return Ok(());
        }
    }
}
