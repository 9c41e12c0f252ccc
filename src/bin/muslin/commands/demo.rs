//! `demo`: the whole story on both brokers.

use crate::connect::Context;
use crate::exit::{Failure, Outcome};

/// Show the whole story on both brokers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs the demo.
pub(crate) async fn run(_context: Context, _args: Args) -> Outcome {
    Err(Failure::wrong_use("demo is not in this build"))
}
