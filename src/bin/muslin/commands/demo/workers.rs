//! The worker processes: the same binary, started, watched, one of them killed, the others ended; and what they do.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use muslin::amqp::{self, Message};
use muslin::idempotency::{RedbStore, Store};
use muslin::processor::{HandlerError, Origin};
use muslin::tasks::{Queue, Task, Worker};
use muslin::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::names::{Entry, Names, Ordered, TASK};
use super::{Scene, shared};
use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Data;

/// How many tasks one process works at once.
const CONCURRENCY: usize = 32;
/// How long the keys of a killed worker stay held.
const LEASE: Duration = Duration::from_secs(3);
/// How long the processes may take to end.
const END: Duration = Duration::from_secs(30);

/// What a worker says when it ends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) worker: u16,
    /// Tasks it worked.
    pub(super) handled: u64,
    /// Tasks that came and were done before.
    pub(super) duplicates: u64,
    /// Attempts at messages that the broker had delivered before.
    pub(super) redelivered: u64,
}

/// What became of the workers.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) said: Vec<Said>,
    /// The killed one's number, and how the system says it ended.
    pub(super) killed: Option<(u16, ExitStatus)>,
    /// Workers that ended otherwise than asked.
    pub(super) broken: Vec<String>,
}

impl Told {
    /// With what other workers said.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.said.extend(other.said);
        self.broken.extend(other.broken);
        self
    }
}

pub(super) struct Workers {
    running: Vec<(u16, Child)>,
    killed: Option<(u16, ExitStatus)>,
}

impl Workers {
    /// Starts the processes with the arguments of this one, so that they connect as it does, and with the addresses of its
    /// embedded brokers. They end when their stdin
    /// does, so also when this process is killed.
    pub(super) fn start(scene: &Scene, numbers: RangeInclusive<u16>) -> Result<Self> {
        let failed = |e| Error::new(ErrorKind::Internal, "cannot start a worker process").with_source(e);
        let binary = std::env::current_exe().map_err(failed)?;
        // Each task that is taken over from the killed worker is a warning; the summary counts them.
        let log = std::env::var("MUSLIN_LOG").unwrap_or_else(|_| "error".to_owned());
        let mut running = Vec::new();
        for number in numbers {
            let child = Command::new(&binary)
                .env("MUSLIN_LOG", &log)
                .envs(scene.ground.environment())
                .args(std::env::args_os().skip(1))
                .args(["--as-worker", &number.to_string(), "--run-id", &scene.names.id, "--store-path"])
                .arg(&scene.tasks_path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(failed)?;
            running.push((number, child));
        }
        Ok(Self { running, killed: None })
    }

    pub(super) fn has_killed(&self) -> bool {
        self.killed.is_some()
    }

    /// Kills one with SIGKILL and waits until it is gone; its number and process id.
    pub(super) async fn kill_one(&mut self) -> Result<(u16, u32)> {
        let failed = |e| Error::new(ErrorKind::Internal, "cannot kill a worker process").with_source(e);
        let (number, mut child) = self.running.remove(self.running.len() / 2);
        let pid = child.id().unwrap_or_default();
        child.start_kill().map_err(failed)?;
        let status = child.wait().await.map_err(failed)?;
        self.killed = Some((number, status));
        Ok((number, pid))
    }

    /// Asks all to drain and end, and gathers what they say.
    pub(super) async fn end(self) -> Result<Told> {
        let mut told = Told { killed: self.killed, ..Told::default() };
        // Stdin is closed for all before the first is waited for.
        let ends: Vec<_> = self
            .running
            .into_iter()
            .map(|(number, mut child)| {
                drop(child.stdin.take());
                (number, tokio::spawn(tokio::time::timeout(END, child.wait_with_output())))
            })
            .collect();
        for (number, end) in ends {
            match end.await {
                Ok(Ok(Ok(output))) => match serde_json::from_slice(last_line(&output.stdout)) {
                    Ok(said) => told.said.push(said),
                    Err(_) => told.broken.push(format!("worker {number} ended with {}", output.status)),
                },
                Ok(Ok(Err(e))) => told.broken.push(format!("worker {number}: {e}")),
                Ok(Err(_)) => told.broken.push(format!("worker {number} did not end within {END:?}")),
                Err(e) => told.broken.push(format!("worker {number}: {e}")),
            }
        }
        Ok(told)
    }
}

fn last_line(output: &[u8]) -> &[u8] {
    let trimmed = output.trim_ascii_end();
    trimmed.rsplit(|byte| *byte == b'\n').next().unwrap_or(trimmed)
}

/// The life of one worker process.
pub(super) async fn work(context: Context, number: u16, names: Names, store: PathBuf) -> Outcome {
    let open = || RedbStore::open_with(&store, shared());
    let store: Arc<dyn Store> = Arc::new(tokio::task::block_in_place(open).map_err(Failure::setup)?);
    let Some(client) = context.amqp().await? else { return Ok(Ended::Interrupted) };
    let queue = Queue::declare(&client, &names.tasks).await?;
    let ledger = client.queue(&names.ledger).passive().declare().await?;
    let redelivered = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&redelivered);
    let worker = Worker::new(queue)
        .on(TASK, move |task: Task<Ordered>| {
            if matches!(task.message.origin(), Origin::Amqp { redelivered: true, .. }) {
                seen.fetch_add(1, Ordering::Relaxed);
            }
            settle(ledger.clone(), number, task)
        })
        .concurrency(CONCURRENCY)
        .lease(LEASE)
        .once(store);
    let watch = worker.watch();
    let stop = context.stop.clone();
    let ended = worker
        .run(async move {
            tokio::select! {
                () = stop.wait() => {}
                () = parent_lets_go() => {}
            }
        })
        .await;
    let summary = *ended.as_ref().unwrap_or(&watch.summary());
    let said = Said {
        worker: number,
        handled: summary.handled,
        duplicates: summary.duplicates,
        redelivered: redelivered.load(Ordering::Relaxed),
    };
    let mut out = Data::default();
    out.json(&said)?;
    out.flush()?;
    ended?;
    drop(client.close().await);
    Ok(Ended::Done)
}

/// The effect: an entry in the ledger, under a name that no other attempt has. The name is the outcome.
async fn settle(
    ledger: amqp::Queue,
    worker: u16,
    task: Task<Ordered>,
) -> std::result::Result<String, HandlerError> {
    let Some(id) = task.id else { return Err(HandlerError::reject("the task has no id")) };
    let effect = uuid::Uuid::now_v7().to_string();
    ledger.publish(Message::json(&Entry { task: id, effect: effect.clone(), worker })?).await?;
    Ok(effect)
}

/// Resolves when stdin ends.
async fn parent_lets_go() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    while stdin.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}
