//! The `muslin` command.
//!
//! | file | what lives there |
//! |---|---|
//! | `args` | the arguments, as `--help` shows them |
//! | `commands/` | one file a command |
//! | `connect` | settings, clients and stores from arguments, environment and file |
//! | `exec` | shell commands for events and tasks |
//! | `exit`, `output`, `stop`, `input` | exit statuses; stdout and stderr; signals; stdin |
//! | `record`, `message`, `format`, `units` | pure: JSON shapes, kcat's formats, durations |
#![allow(
    clippy::disallowed_methods,
    reason = "IO: the command line reads the clock, spawns and sleeps; the pure layers are in the library"
)]

mod args;
mod commands;
mod connect;
mod exec;
mod exit;
mod format;
mod input;
mod message;
mod output;
mod record;
mod stop;
mod units;

use std::io::{IsTerminal, Write};

use clap::Parser;
use muslin::{Error, ErrorKind};
use tracing::Level;

use args::{Cli, Command, Event, OutputFormat};
use connect::Context;
use exit::{Failure, Outcome};
use output::{Console, redact};
use stop::Stop;

fn main() {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => usage(&e),
    };
    let console = Console::new(cli.common.json || cli.common.output == OutputFormat::Json);
    log(cli.common.verbose, console);
    let status = match run(cli, console) {
        Ok(ended) => ended.status(),
        Err(failure) => {
            console.error(&failure.error.report());
            failure.status
        }
    };
    // A handler that outlived its deadline ends with us.
    exec::kill_all();
    // Not by a return: a thread may wait for stdin for ever.
    std::process::exit(status.into());
}

/// Prints help, the version, or what is wrong with the arguments; passwords among them are hidden.
fn usage(error: &clap::Error) -> ! {
    let status = error.exit_code();
    let text = error.render();
    let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    // A closed pipe is no failure of `--help | head`.
    let _ = if error.use_stderr() {
        let text = if colour && err.is_terminal() { text.ansi().to_string() } else { text.to_string() };
        err.write_all(redact(&text).as_bytes())
    } else {
        let text = if colour && out.is_terminal() { text.ansi().to_string() } else { text.to_string() };
        out.write_all(text.as_bytes())
    };
    std::process::exit(status)
}

/// Logs to stderr: warnings; with `-v` what is done; or as `MUSLIN_LOG` says (`muslin::kafka=debug`).
fn log(verbose: u8, console: Console) {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::{fmt, prelude::*};

    let muslin = |level| Targets::new().with_target("muslin", level);
    let asked = std::env::var("MUSLIN_LOG").ok().and_then(|text| text.parse().ok());
    let filter = asked.unwrap_or_else(|| match verbose {
        0 => muslin(Level::WARN),
        1 => muslin(Level::INFO),
        2 => muslin(Level::DEBUG),
        _ => Targets::new().with_default(Level::TRACE),
    });
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(console.colour());
    tracing_subscriber::registry().with(lines).with(filter).init();
}

/// `serve` connects nowhere: what the environment says of brokers is not meant for it.
fn serve_settings(common: &args::Common) -> Result<muslin::config::Properties, Failure> {
    if common.file.is_some() || !common.set.is_empty() {
        return Err(Failure::wrong_use("-F and -X say how to connect, and `serve` connects nowhere"));
    }
    Ok(muslin::config::Properties::new())
}

fn run(cli: Cli, console: Console) -> Outcome {
    let mut builder = match &cli.command {
        // All brokers are one machine behind a lock: more threads would only wait for each other.
        Command::Serve(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let (settings, stopping) = match &cli.command {
        Command::Serve(_) => (serve_settings(&cli.common)?, "stopping"),
        _ => (connect::settings(&cli.common, console)?, stop::DRAINING),
    };
    let runtime = builder.enable_all().build().map_err(|e| {
        Failure::setup(Error::new(ErrorKind::Internal, "cannot start the runtime").with_source(e))
    })?;
    // Never dropped, as the process ends next: a drop cancels the tasks one after the other while others still run,
    // and amqprs's reader panics when the task that it answers is gone.
    let runtime = std::mem::ManuallyDrop::new(runtime);
    runtime.block_on(async {
        let context = Context { console, stop: Stop::listen(console, stopping)?, settings };
        // In a task: only there a blocking write leaves the other threads of the runtime alone.
        let command = tokio::spawn(async move {
            match cli.command {
                Command::Demo(args) => commands::demo::run(context, args).await,
                Command::Produce(args) => commands::produce::run(context, args).await,
                Command::Consume(args) => commands::consume::run(context, args).await,
                Command::Event(Event::Publish(args)) => commands::event_publish::run(context, args).await,
                Command::Event(Event::Handle(args)) => commands::event_handle::run(context, args).await,
                Command::Publish(args) => commands::publish::run(context, args).await,
                Command::Get(args) => commands::get::run(context, args).await,
                Command::Enqueue(args) => commands::enqueue::run(context, args).await,
                Command::Work(args) => commands::work::run(context, args).await,
                Command::Serve(args) => commands::serve::run(context, args).await,
                Command::Groups(groups) => commands::groups::run(context, groups).await,
                Command::Lag(args) => commands::lag::run(context, args, cli.common.amqp.is_some()).await,
                Command::Topics(topics) => commands::topics::run(context, topics).await,
                Command::Bench(bench) => commands::bench::run(context, bench).await,
            }
        });
        command.await.unwrap_or_else(|e| {
            Err(Error::new(ErrorKind::Internal, "the command broke down; please report it")
                .with_source(e)
                .into())
        })
    })
}
