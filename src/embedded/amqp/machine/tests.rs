//! The machine without sockets: a bed that plays clients, and what they see.

mod bed;
mod delivery;
mod errors;
mod faults;
mod life;
mod model;
mod publish;
