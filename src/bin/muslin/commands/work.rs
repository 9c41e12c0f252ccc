//! `work`: a shell command for each task of a queue.

use std::sync::Arc;
use std::time::Duration;

use muslin::amqp::Client;
use muslin::processor::Origin;
use muslin::tasks::{Queue, RawTask, Reconnect, Worker, run_reconnecting};
use tokio::sync::Mutex;

use super::working::{self, Counts};
use crate::args::Work;
use crate::connect::Context;
use crate::exec::{Facts, Shell};
use crate::exit::{Ended, Outcome};

/// How long running commands may take after a signal, besides their own time limit.
const DRAIN_SPARE: Duration = Duration::from_secs(5);

/// What a command is told of a task.
fn facts(task: &RawTask) -> Facts {
    let mut facts = Facts::default();
    facts.add_some("MUSLIN_ID", task.id.as_ref());
    facts.add("MUSLIN_TYPE", &task.task_type);
    facts.add("MUSLIN_ATTEMPT", task.message.attempt().to_string());
    if let Origin::Amqp { queue, exchange, routing_key, redelivered, .. } = task.message.origin() {
        facts.add("MUSLIN_QUEUE", queue.as_bytes());
        facts.add("MUSLIN_EXCHANGE", exchange);
        facts.add("MUSLIN_ROUTING_KEY", routing_key);
        facts.add("MUSLIN_REDELIVERED", if *redelivered { "true" } else { "false" });
    }
    facts
}

/// Runs the command.
pub(crate) async fn run(context: Context, args: Work) -> Outcome {
    let retry = working::retry(args.exec.attempts)?;
    let store = context.store(args.exec.store.as_ref())?;
    let builder = context.amqp_builder()?;
    let shell = Arc::new(Shell::new(&args.exec.command, context.console.json));
    let counts = Counts::default();
    let build = async |client: Client| {
        let shell = Arc::clone(&shell);
        let mut worker = Worker::new(Queue::declare(&client, &args.queue).await?)
            .on_any(move |task: RawTask| {
                let shell = Arc::clone(&shell);
                async move { shell.run(facts(&task), task.message.value().cloned().unwrap_or_default()).await }
            })
            .concurrency(args.exec.concurrency.into())
            .retry(retry)
            .timeout(args.timeout)
            .drain(args.timeout + DRAIN_SPARE);
        if let Some(queue) = &args.dead_letter {
            worker = worker.dead_letter(queue);
        }
        if let Some(store) = &store {
            worker = worker.once(Arc::clone(store));
        }
        counts.watch(worker.watch());
        Ok(worker)
    };
    // The first connection apart: a wrong address or a refusal is told at once, by its own status.
    let Some(first) = context.amqp().await? else { return Ok(Ended::Interrupted) };
    let first = Mutex::new(Some(first));
    let connect = async || match first.lock().await.take() {
        Some(client) => Ok(client),
        None => builder.clone().connect().await,
    };
    let stop = async { context.stop.wait().await };
    working::run(&context, counts.clone(), run_reconnecting(Reconnect::default(), connect, build, stop)).await
}
