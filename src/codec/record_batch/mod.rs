//! Record batches of format v2 (KIP-98): a view over fetched bytes, and a builder that writes the wire form.
//!
//! ```text
//! fetched Bytes ─▶ BatchList ─▶ BatchView ─▶ Records ─▶ Record        slices of the same memory
//! records       ─▶ BatchBuilder ─▶ Bytes                              copied once, to where they leave from
//! ```
//!
//! Formats v0 and v1, from before Kafka 0.11, are refused by name.
//!
//! ```
//! use bytes::Bytes;
//! use muslin::Timestamp;
//! use muslin::codec::record_batch::{BatchBuilder, BatchList, BatchOptions};
//!
//! let mut builder = BatchBuilder::new(BatchOptions::default());
//! builder.push(Timestamp(1), Some(b"order-42"), Some(b"{}"), [("trace", None)])?;
//! builder.push(Timestamp(2), None, Some(b""), [])?;
//! let bytes: Bytes = builder.finish()?;
//!
//! for batch in BatchList::new(bytes) {
//!     for record in &batch?.records(1 << 20)? {
//!         let record = record?;
//!         println!("{}: {:?}", record.offset(), record.value());
//!     }
//! }
//! # Ok::<(), muslin::Error>(())
//! ```

mod builder;
mod control;
pub(crate) mod layout;
mod list;
mod pieces;
mod record;
mod shared;
mod view;
mod writer;

#[cfg(test)]
mod tests;

pub use builder::{BatchBuilder, BatchOptions, restamp};
pub use control::{ControlKind, ControlMarker};
pub use list::{BatchList, Truncated};
pub use pieces::Pieces;
pub use record::{Headers, Record};
pub use shared::SharedRecord;
pub use view::{BatchView, Cursor, Iter, Records};
