//! An e-mail worker with a registry of task types: retries with backoff, dead letters, each task once, and it goes on
//! after a lost connection.
//!
//! ```text
//! MUSLIN_AMQP=amqp://guest:guest@127.0.0.1:5672/ cargo run --example email_worker -- 30
//! ```
//!
//! It stops after so many seconds (30 unless given), finishing what it has in hand.
#![allow(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::sync::Arc;
use std::time::Duration;

use muslin::amqp::Client;
use muslin::idempotency::{MemoryStore, Store};
use muslin::processor::{HandlerError, RetryPolicy};
use muslin::tasks::{Policy, Queue, Reconnect, Task, Worker, run_reconnecting};
use serde::Deserialize;

#[derive(Deserialize)]
struct Email {
    number: u32,
    email: String,
}

#[derive(Deserialize)]
struct Newsletter {
    subject: String,
}

async fn send_email(task: Task<Email>) -> Result<(), HandlerError> {
    if !task.data.email.contains('@') {
        return Err(HandlerError::reject(format!("{} is no address", task.data.email)));
    }
    println!("to {}: your order {}", task.data.email, task.data.number);
    Ok(())
}

async fn newsletter(task: Task<Newsletter>) -> Result<(), HandlerError> {
    println!("newsletter {:?}, attempt {}", task.data.subject, task.message.attempt());
    Ok(())
}

#[tokio::main]
async fn main() -> muslin::Result<()> {
    let url = std::env::var("MUSLIN_AMQP").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/".into());
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(30);
    // A service that must know its tasks again after a restart takes `idempotency::redb`.
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let retry = RetryPolicy::builder().attempts(5).build()?;

    let build = |client: Client| {
        let store = Arc::clone(&store);
        async move {
            let queue = Queue::declare(&client, "emails").await?;
            Ok(Worker::new(queue)
                .on("email.send", send_email)
                .on("email.newsletter", newsletter)
                .unknown_type(Policy::DeadLetter)
                .concurrency(8)
                .timeout(Duration::from_secs(30))
                .retry(retry)
                .once(store)
                .dead_letter("emails.dead"))
        }
    };
    let summary =
        run_reconnecting(Reconnect::default(), || Client::connect(&url), build, after(seconds)).await?;
    println!("{summary}");
    Ok(())
}

/// A service passes what waits for its signal.
#[allow(clippy::disallowed_methods, reason = "this program may sleep")]
async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
