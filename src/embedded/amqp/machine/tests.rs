//! The machine without sockets: a bed that plays clients, and what they see.
#![allow(clippy::disallowed_methods, reason = "a test's time begins with the clock's")]

mod bed;
mod delivery;
mod errors;
mod faults;
mod life;
mod model;
mod publish;
