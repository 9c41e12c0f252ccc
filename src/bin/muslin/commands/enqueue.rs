//! `enqueue`: tasks for workers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use muslin::Result;
use muslin::amqp::{self, Client};
use muslin::tasks::{self, Queue};
use serde::Serialize;
use tokio::sync::Mutex;

use super::sending::{GivenId, Sending, Source, send_all};
use crate::args::Enqueue;
use crate::connect::{Context, json};
use crate::exit::{Ended, Failure, Outcome};
use crate::output::Data;

struct Tasks {
    queue: Queue,
    waiting_room: Option<WaitingRoom>,
    task_type: String,
    id: GivenId,
    target: String,
    priority: Option<u8>,
    json: bool,
}

/// What is printed of a task.
#[derive(Serialize)]
struct Enqueued<'a> {
    id: &'a str,
    queue: &'a str,
}

/// A queue without consumers, in which delayed tasks wait until their time is up; then the broker moves them to their own
/// queue by its dead lettering.
///
/// All tasks of one such queue have the same delay, so that none is stuck behind a later one. The broker deletes the queue
/// when nobody has declared it for its `x-expires`, and what is in it as well: so that is longer than the delay by
/// [`SPARE`](Self::SPARE), and the queue is declared again well within this time while tasks are put.
struct WaitingRoom {
    client: Client,
    name: String,
    target: String,
    delay: Duration,
    declared: Mutex<Instant>,
}

impl WaitingRoom {
    const SPARE: Duration = Duration::from_secs(600);
    const AGAIN: Duration = Duration::from_secs(60);
    /// RabbitMQ counts these times in 32 bits of milliseconds.
    const LONGEST: Duration = Duration::from_millis(u32::MAX as u64 - 600_000);

    async fn open(client: &Client, target: &str, delay: Duration) -> Result<Self> {
        let room = Self {
            client: client.clone(),
            name: format!("{target}.delay.{}", delay.as_millis()),
            target: target.to_owned(),
            delay,
            declared: Mutex::new(Instant::now()),
        };
        room.declare().await?;
        Ok(room)
    }

    async fn declare(&self) -> Result<amqp::Queue> {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        self.client
            .queue(&self.name)
            .argument("x-message-ttl", millis(self.delay))
            .argument("x-expires", millis(self.delay + Self::SPARE))
            .argument("x-dead-letter-exchange", "")
            .argument("x-dead-letter-routing-key", self.target.as_str())
            .declare()
            .await
            .map_err(|e| e.context("--delay"))
    }

    /// Makes sure that what is put now is moved on before the queue may go.
    async fn stay(&self) -> Result<()> {
        let mut declared = self.declared.lock().await;
        if declared.elapsed() >= Self::AGAIN {
            self.declare().await?;
            *declared = Instant::now();
        }
        Ok(())
    }
}

impl Sending for Tasks {
    type Tag = String;
    type Done = ();
    type Queued = amqp::Queued;

    async fn put(&self, line: Bytes) -> Result<(String, amqp::Queued)> {
        let mut task = tasks::Enqueue::new(&self.task_type, &json(&line)?)?;
        if let Some(id) = self.id.take()? {
            task = task.id(id)?;
        }
        if let Some(priority) = self.priority {
            task = task.priority(priority);
        }
        if let Some(room) = &self.waiting_room {
            room.stay().await?;
        }
        self.queue.queue(task).await
    }

    fn print(&self, id: String, (): (), data: &mut Data) -> std::result::Result<(), Failure> {
        if self.json {
            data.json(&Enqueued { id: &id, queue: &self.target })
        } else {
            data.line(&id);
            Ok(())
        }
    }
}

/// Runs the command.
pub(crate) async fn run(context: Context, args: Enqueue) -> Outcome {
    if args.task_type.is_empty() {
        return Err(Failure::wrong_use("the task type is empty; expected for example email.send"));
    }
    if let Some(data) = &args.data {
        json(data.as_bytes()).map_err(|e| Failure::usage(e.context("--data")))?;
    }
    let delay = args.delay.filter(|d| d.as_millis() > 0);
    if delay.is_some_and(|d| d > WaitingRoom::LONGEST) {
        return Err(Failure::wrong_use("--delay: RabbitMQ can wait 49 days at most"));
    }
    let Some(client) = context.amqp().await? else { return Ok(Ended::Interrupted) };
    let target = Queue::declare(&client, &args.queue).await.map_err(Failure::setup)?;
    let (queue, waiting_room) = match delay {
        None => (target, None),
        Some(delay) => {
            let room = WaitingRoom::open(&client, &args.queue, delay).await.map_err(Failure::setup)?;
            let queue = room.declare().await.map_err(Failure::setup)?;
            (Queue::from_declared(&client, queue), Some(room))
        }
    };
    let tasks = Tasks {
        queue,
        waiting_room,
        task_type: args.task_type,
        id: GivenId::new(args.id),
        target: args.queue,
        priority: args.priority,
        json: context.console.json,
    };
    let ended = send_all(&context, Source::argument_or_stdin(args.data.as_deref()), &tasks).await?;
    let _ = client.close().await;
    Ok(ended)
}
