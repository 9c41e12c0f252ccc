//! One file a command.

pub(crate) mod bench;
pub(crate) mod consume;
pub(crate) mod demo;
pub(crate) mod enqueue;
pub(crate) mod event_handle;
pub(crate) mod event_publish;
pub(crate) mod get;
pub(crate) mod groups;
pub(crate) mod lag;
pub(crate) mod produce;
pub(crate) mod publish;
mod results;
mod sending;
pub(crate) mod serve;
pub(crate) mod topics;
pub(crate) mod work;
mod working;
