//! Tasks on RabbitMQ: put into a queue, worked by type, each once where a store is given.
//!
//! ```text
//! queue      plain and durable, without arguments; published to by the default exchange
//! message    persistent, with a message_id, content type application/json
//! body       {"type": "...", "data": {...}}
//! ```
//!
//! ```no_run
//! # async fn run(shutdown: impl std::future::Future<Output = ()> + Send) -> muslin::Result<()> {
//! use muslin::amqp::Client;
//! use muslin::processor::HandlerError;
//! use muslin::tasks::{Queue, Task, Worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct SendEmail { to: String }
//!
//! let rabbit = Client::connect("amqp://user:pass@localhost:5672/").await?;
//! let queue = Queue::declare(&rabbit, "emails").await?;
//! queue.enqueue("email.send", &SendEmail { to: "a@example.org".into() }).await?;
//!
//! let summary = Worker::new(queue)
//!     .on("email.send", |task: Task<SendEmail>| async move {
//!         println!("to {}", task.data.to);
//!         Ok::<(), HandlerError>(())
//!     })
//!     .dead_letter("emails.dead")
//!     .run(shutdown)
//!     .await?;
//! println!("{summary}");
//! # Ok(()) }
//! ```
//!
//! `queue` writes, `worker` reads and reconnects, `router` decides by type and by policy what becomes of a message.

mod queue;
mod router;
mod worker;

pub use crate::processor::Policy;
pub use queue::{Enqueue, Queue};
pub use router::{RawTask, Task};
pub use worker::{Reconnect, Worker, run_reconnecting};
