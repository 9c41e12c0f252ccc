//! What the commands that send share: read a line, put it, wait for the confirm, count.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use muslin::{Error, ErrorKind, Result};

use crate::connect::Context;
use crate::exit::{Ended, Failure, Outcome};
use crate::input::{Line, Lines};
use crate::output::{Data, Progress, Tally, Written};

/// How many lines may wait for their confirm.
const WINDOW: usize = 10_000;
/// At how many bytes of printed ids they are written.
const PRINTED: usize = 16 << 10;

/// An id given by hand: for one line, not for more.
#[derive(Debug, Default)]
pub(crate) struct GivenId {
    id: Option<String>,
    used: AtomicBool,
}

impl GivenId {
    pub(crate) fn new(id: Option<String>) -> Self {
        Self { id, used: AtomicBool::new(false) }
    }

    /// The id, if one was given, for the first that asks.
    pub(crate) fn take(&self) -> Result<Option<&str>> {
        match &self.id {
            Some(_) if self.used.swap(true, Ordering::Relaxed) => {
                Err(Error::new(ErrorKind::Config, "--id names one, and there was one before this"))
            }
            id => Ok(id.as_deref()),
        }
    }
}

/// How a line is sent.
pub(crate) trait Sending: Send + Sync {
    /// What is known of it before its confirm.
    type Tag: Send;
    /// What its confirm brings.
    type Done: Send;
    /// Resolves on the confirm.
    type Queued: Future<Output = Result<Self::Done>> + Unpin + Send;

    /// Puts a line in order; waits only for room.
    fn put(&self, line: Bytes) -> impl Future<Output = Result<(Self::Tag, Self::Queued)>> + Send;

    /// Prints what is to be printed of a line that is confirmed.
    fn print(&self, tag: Self::Tag, done: Self::Done, data: &mut Data) -> std::result::Result<(), Failure>;
}

/// Where the lines come from.
pub(crate) enum Source {
    Stdin(Lines),
    /// The one of an argument.
    Argument(Option<Bytes>),
}

impl Source {
    pub(crate) fn stdin() -> Self {
        Self::Stdin(Lines::of_stdin())
    }

    /// The argument where it is given, else stdin.
    pub(crate) fn argument_or_stdin(argument: Option<&str>) -> Self {
        argument.map_or_else(Self::stdin, |a| Self::Argument(Some(Bytes::copy_from_slice(a.as_bytes()))))
    }

    async fn next(&mut self) -> Option<io::Result<(u64, Line)>> {
        match self {
            Self::Stdin(lines) => lines.next().await,
            Self::Argument(line) => line.take().map(|line| Ok((0, Line::Whole(line)))),
        }
    }
}

/// The name of a line in messages.
fn name(number: u64) -> String {
    if number == 0 { "--data".to_owned() } else { format!("line {number}") }
}

/// Whether the next line may fare better.
fn concerns_one_line(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::TooLarge
            | ErrorKind::Malformed
            | ErrorKind::Config
            | ErrorKind::Rejected
            | ErrorKind::Unsupported
    )
}

/// Sends all lines, waits for all confirms and prints the summary.
pub(crate) async fn send_all<S: Sending>(context: &Context, mut source: Source, sending: &S) -> Outcome {
    let console = context.console;
    let mut progress = Progress::start(console);
    let mut tally = Tally::new(console);
    let mut data = Data::default();
    let mut reader_gone = false;
    let mut window: VecDeque<(u64, S::Tag, S::Queued)> = VecDeque::new();
    let mut stopped = pin!(context.stop.wait());
    let (mut reading, mut interrupted) = (true, false);
    let mut broken = None;
    while reading || !window.is_empty() {
        if data.len() > PRINTED || window.is_empty() {
            reader_gone |= data.flush()? == Written::ReaderGone;
        }
        progress.tick(|| format!("sent {}, in flight {}", tally.sent, window.len()));
        tokio::select! {
            biased;
            () = &mut stopped, if reading => (reading, interrupted) = (false, true),
            // The oldest first: the brokers confirm in about the order of sending.
            result = oldest(&mut window), if !window.is_empty() => {
                let Some((number, tag, _)) = window.pop_front() else { continue };
                match result {
                    Ok(done) => {
                        tally.sent += 1;
                        if !reader_gone {
                            sending.print(tag, done, &mut data)?;
                        }
                    }
                    Err(e) => tally.failure(&name(number), &e),
                }
            }
            line = source.next(), if reading && window.len() < WINDOW => match line {
                None => reading = false,
                Some(Err(e)) => {
                    broken = Some(Error::new(ErrorKind::Storage, "stdin cannot be read").with_source(e));
                    reading = false;
                }
                Some(Ok((number, Line::TooLong(bytes)))) => {
                    let why = format!("has {bytes} bytes; {} is the most", crate::input::LINE_MAX);
                    tally.failure(&name(number), &Error::new(ErrorKind::TooLarge, why));
                }
                Some(Ok((number, Line::Whole(line)))) => match sending.put(line).await {
                    Ok((tag, queued)) => window.push_back((number, tag, queued)),
                    Err(e) => {
                        tally.failure(&name(number), &e);
                        if !concerns_one_line(&e) {
                            reading = false;
                            if number > 0 {
                                console.error(&format!("lines after line {number} were not sent"));
                            }
                        }
                    }
                },
            },
        }
    }
    data.flush()?;
    tally.finish(progress.elapsed());
    if let Some(error) = broken {
        return Err(error.into());
    }
    Ok(if interrupted { Ended::Interrupted } else { tally.ended() })
}

/// What the oldest of those that wait came to; it is not taken out. Cancel safe.
async fn oldest<T, F: Future + Unpin>(window: &mut VecDeque<(u64, T, F)>) -> F::Output {
    match window.front_mut() {
        Some((_, _, queued)) => queued.await,
        None => std::future::pending().await,
    }
}
