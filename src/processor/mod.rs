//! One engine for events and tasks: order by key, bounded concurrency, effects once, retry, dead letters, drain.
//!
//! ```text
//! source ─► order ─► slot ─► claim key ─► handler ─► complete key ─► acknowledge
//!   │     (key,     (con-    (once)        │ fails
//!   │   partition,  currency)              ├─► backoff, then again, keeping its key's order
//!   │     none)                            └─► dead letter, confirmed ─► acknowledge
//!   └─ taken only while there is room in hand and the key store answers
//! ```
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> muslin::Result<()> {
//! use muslin::processor::{HandlerError, MemorySource, Message, Processor};
//!
//! let (source, ledger) = MemorySource::new();
//! ledger.push(Some("order-42"), "paid", None);
//! ledger.end();
//!
//! let summary = Processor::new(source)
//!     .concurrency(64)
//!     .run(|message: Message| async move {
//!         println!("{}: {:?}", message.origin(), message.value());
//!         Ok::<(), HandlerError>(())
//!     }, std::future::pending())
//!     .await?;
//! assert_eq!(summary.handled, 1);
//! # Ok(()) }
//! ```
//!
//! [`crate::events`] and [`crate::tasks`] put typed handlers on top of it.
//!
//! | file | what lives there |
//! |---|---|
//! | `machine` | pure: which message runs when, what follows from how it ended (the state diagram) |
//! | `driver` | the thin loop that does what the machine says |
//! | `settings` | [`Processor`]: the settings and their checks |
//! | `source` | the [`Source`] trait and a source in memory |
//! | `kafka`, `amqp` | the two brokers as sources and as places for dead letters |
//! | `handler`, `message` | what handlers are and what they see |
//! | `registry`, `policy` | handlers by type, and what becomes of what has none: for events and tasks |
//!
//! # What holds
//!
//! * Every message taken is settled exactly once: acknowledged after its handler succeeded, its key was done before, its
//!   dead letter was confirmed or a named policy skipped it; or given back.
//! * Within a key (or partition) no message runs before the one before it is settled, retries included.
//! * With a store, no handler starts without a claim on its key. A store that is away stops the intake and is
//!   probed by one claim at a time; no message is let through.
//! * A handler runs in a task of its own. A panic or a time limit is the failure of that message alone. A handler that
//!   blocks its thread cannot be ended: it holds its slot and its key until it returns.

#[cfg(feature = "amqp")]
mod amqp;
mod dead_letter;
mod driver;
mod handler;
#[cfg(feature = "kafka")]
mod kafka;
mod machine;
mod message;
#[cfg(any(feature = "kafka", feature = "amqp"))]
mod policy;
#[cfg(any(feature = "kafka", feature = "amqp"))]
mod registry;
mod settings;
mod source;
mod summary;

pub use crate::delivery::{Order, Reason, RetryPolicy};
pub use dead_letter::{DeadLetters, Obituary};
pub use handler::{BoxFuture, Class, Handler, HandlerError, HandlerResult, Outcome, Plan, Work};
pub use message::{Header, Message, Origin};
#[cfg(any(feature = "kafka", feature = "amqp"))]
pub(crate) use policy::Policies;
#[cfg(any(feature = "kafka", feature = "amqp"))]
pub use policy::Policy;
#[cfg(any(feature = "kafka", feature = "amqp"))]
pub(crate) use registry::Registry;
pub use settings::{Processor, Progress, Watch, WithoutDeadLetter};
pub use source::{Delivery, Ledger, MemoryDelivery, MemorySource, Source};
pub use summary::Summary;

#[cfg(feature = "amqp")]
pub use amqp::{AmqpDeadLetters, QueueDelivery, QueueSource};
#[cfg(feature = "kafka")]
pub use kafka::{KafkaDeadLetters, KafkaDelivery, KafkaSource};

#[cfg(test)]
mod tests;
