//! The delivery core, pure: which deliveries are settled, in what order keys run, when a retry is due.
//!
//! | module | what it decides |
//! |---|---|
//! | [`ack_tracker`] | how far a commit may go, and what beyond it is done already |
//! | [`offset_map`] | how the done ones beyond the commit fit into the commit's metadata |
//! | [`key_order`] | which item may run now, so that items of one key never overtake each other |
//! | [`retry`] | how long to wait before the next attempt, and when to give up |
//! | [`dead_letter`] | the headers that say where a dead letter came from and why |
//!
//! Nothing here reads a clock, draws a random number, or does IO. `now` and random numbers are arguments.

pub mod ack_tracker;
pub mod dead_letter;
pub mod key_order;
pub mod offset_map;
pub mod retry;

pub use ack_tracker::{Ack, AckTracker, Assignment, Commit, Limits, Outcome, Position, Receipt, Received};
pub use dead_letter::{DeadLetter, Origin, Reason};
pub use key_order::{Completed, KeyOrder, Order, Scope, Ticket};
pub use offset_map::{OffsetMap, Restored};
pub use retry::{RetryPolicy, RetryPolicyBuilder};
