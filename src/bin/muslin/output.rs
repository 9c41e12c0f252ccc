//! What a command prints: data to stdout, everything else to stderr; colours and progress only on a terminal.
#![allow(clippy::print_stderr, reason = "this is the place that prints")]

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use muslin::{Error, ErrorKind};
use serde::Serialize;

use crate::exit::{Ended, Failure, status_of};

/// How to talk to whoever started the command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    /// JSON lines for a program instead of text for a person.
    pub(crate) json: bool,
    colour: bool,
    progress: bool,
}

impl Console {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        // https://no-color.org: set and not empty.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { json, colour: terminal && !dumb && !no_colour, progress: terminal && !dumb }
    }

    pub(crate) fn colour(self) -> bool {
        self.colour
    }

    /// Is somebody there to look at a progress line?
    pub(crate) fn is_live(self) -> bool {
        self.progress && !self.json
    }

    /// Takes the progress line away, so that text does not stick to it.
    fn clear(self) -> &'static str {
        if self.progress { "\r\x1b[K" } else { "" }
    }

    fn say(self, colour: &str, word: &str, text: &str) {
        let text = redact(text);
        // stderr may be closed: then nobody wants to know.
        let _ = if self.colour && !word.is_empty() {
            writeln!(io::stderr(), "{}\x1b[{colour}m{word}\x1b[0m{text}", self.clear())
        } else {
            writeln!(io::stderr(), "{}{word}{text}", self.clear())
        };
    }

    /// Something worth knowing.
    pub(crate) fn note(self, text: &str) {
        self.say("", "", text);
    }

    pub(crate) fn warn(self, text: &str) {
        self.say("33", "warning: ", text);
    }

    pub(crate) fn error(self, text: &str) {
        self.say("31", "error: ", text);
    }

    /// The last line of a command that sends or works: JSON to stdout for a program, text to stderr for a person.
    pub(crate) fn summary<S: Serialize>(self, summary: &S, text: &str) {
        if self.json {
            if let Ok(line) = serde_json::to_string(summary) {
                let mut out = io::stdout();
                let _ = writeln!(out, "{line}").and_then(|()| out.flush());
            }
        } else {
            self.note(text);
        }
    }
}

/// Hides the password of every URL in a text.
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '\'' | '"' | '`'))
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((login, host)) => {
                let user = login.split_once(':').map_or(login, |(user, _)| user);
                out.push_str(user);
                out.push_str(if login.contains(':') { ":***@" } else { "@" });
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Data on its way to stdout. Nothing is written before [`Data::flush`], so that the caller knows what was.
#[derive(Debug, Default)]
pub(crate) struct Data {
    buffer: Vec<u8>,
}

/// What became of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// All of it is with the reader.
    All,
    /// The reader went away (`| head`): nobody wants more. It is not known how much of the last flush it read.
    ReaderGone,
}

impl Data {
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn line(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(b'\n');
    }

    /// Columns as wide as their widest cell; the last is not filled up.
    pub(crate) fn table<const N: usize>(&mut self, indent: &str, head: [&str; N], rows: Vec<[String; N]>) {
        let mut width = head.map(str::len);
        for row in &rows {
            for (width, cell) in width.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        let head = head.map(str::to_owned);
        for row in std::iter::once(&head).chain(&rows) {
            let line =
                row.iter().zip(width).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
            self.line(format!("{indent}{}", line.join("  ")).trim_end());
        }
    }

    pub(crate) fn json<S: Serialize>(&mut self, value: &S) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.buffer, value).map_err(|e| {
            Error::new(ErrorKind::Internal, "the output cannot be written as JSON").with_source(e)
        })?;
        self.buffer.push(b'\n');
        Ok(())
    }

    /// Writes what has gathered. Blocks this thread while the reader is slow, and no other.
    pub(crate) fn flush(&mut self) -> Result<Written, Failure> {
        if self.buffer.is_empty() {
            return Ok(Written::All);
        }
        let written = tokio::task::block_in_place(|| {
            let mut out = io::stdout().lock();
            out.write_all(&self.buffer).and_then(|()| out.flush())
        });
        self.buffer.clear();
        match written {
            Ok(()) => Ok(Written::All),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Written::ReaderGone),
            Err(e) => Err(Error::new(ErrorKind::Storage, "cannot write to stdout").with_source(e).into()),
        }
    }
}

/// A line on the terminal that says how far it is.
#[derive(Debug)]
pub(crate) struct Progress {
    console: Console,
    started: Instant,
    shown: Instant,
}

impl Progress {
    const EVERY: Duration = Duration::from_millis(250);

    pub(crate) fn start(console: Console) -> Self {
        let now = Instant::now();
        Self { console, started: now, shown: now }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows the text if it is time to.
    pub(crate) fn tick(&mut self, text: impl FnOnce() -> String) {
        if !self.console.is_live() || self.shown.elapsed() < Self::EVERY {
            return;
        }
        self.shown = Instant::now();
        let mut err = io::stderr();
        let _ = write!(err, "\r\x1b[K{}", text()).and_then(|()| err.flush());
    }
}

/// Says what failed, the first few times; counts all.
#[derive(Debug)]
pub(crate) struct Tally {
    console: Console,
    complaints: u64,
    /// Confirmed by the broker.
    pub(crate) sent: u64,
    /// Certainly not written.
    pub(crate) failed: u64,
    /// It is not known whether they were written.
    pub(crate) ambiguous: u64,
    first: Option<ErrorKind>,
}

/// The summary of a command that sends.
#[derive(Debug, Serialize)]
struct Sent {
    sent: u64,
    failed: u64,
    ambiguous: u64,
    elapsed_s: f64,
}

impl Tally {
    const SHOWN: u64 = 10;

    pub(crate) fn new(console: Console) -> Self {
        Self { console, complaints: 0, sent: 0, failed: 0, ambiguous: 0, first: None }
    }

    /// Something failed; `what` says which.
    pub(crate) fn failure(&mut self, what: &str, error: &Error) {
        if error.is_ambiguous() {
            self.ambiguous += 1;
        } else {
            self.failed += 1;
        }
        self.first.get_or_insert(error.kind());
        self.complaints += 1;
        if self.complaints <= Self::SHOWN {
            let unsure = if error.is_ambiguous() { " (it may be there all the same)" } else { "" };
            self.console.error(&format!("{what}: {}{unsure}", error.report()));
        } else if self.complaints == Self::SHOWN + 1 {
            self.console.error("there is more of this; the summary counts it");
        }
    }

    /// How the command ends by what was counted.
    pub(crate) fn ended(&self) -> Ended {
        match self.first {
            None => Ended::Done,
            // Nothing came through and the cause is the way there: that is not some of the work.
            Some(kind) if self.sent == 0 && status_of(kind) == 3 => Ended::Unreachable,
            Some(_) => Ended::SomeFailed,
        }
    }

    /// Prints the summary.
    pub(crate) fn finish(&self, elapsed: Duration) {
        let Self { sent, failed, ambiguous, .. } = *self;
        let elapsed_s = (elapsed.as_secs_f64() * 1e3).round() / 1e3;
        let text = format!("sent {sent}, failed {failed}, ambiguous {ambiguous}, in {elapsed_s} s");
        self.console.summary(&Sent { sent, failed, ambiguous, elapsed_s }, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut data = Data::default();
        let rows = vec![["a".to_owned(), "1".to_owned()], ["a-long-name".to_owned(), "12".to_owned()]];
        data.table("  ", ["topic", "n"], rows);
        let text = String::from_utf8(data.buffer().clone()).unwrap();
        assert_eq!(text, "  topic        n\n  a            1\n  a-long-name  12\n");
    }

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (text, shown) in [
            ("amqp://u:hush@h:1/v", "amqp://u:***@h:1/v"),
            ("a 'amqps://u:hu@sh@h' and amqp://x:y@z.", "a 'amqps://u:***@h' and amqp://x:***@z."),
            ("amqp://u@h http://h/x@y", "amqp://u@h http://h/x@y"),
            ("nothing here: a@b", "nothing here: a@b"),
            ("amqp://:hush@h", "amqp://:***@h"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn a_tally_tells_failed_from_ambiguous_and_unreachable_from_partly_done() {
        let console = Console { json: false, colour: false, progress: false };
        let mut tally = Tally::new(console);
        assert_eq!(tally.ended(), Ended::Done);
        tally.failure("line 1", &Error::new(ErrorKind::Timeout, "no answer").ambiguous());
        tally.failure("line 2", &Error::new(ErrorKind::TooLarge, "large"));
        assert_eq!((tally.failed, tally.ambiguous), (1, 1));
        assert_eq!(tally.ended(), Ended::Unreachable);
        tally.sent = 1;
        assert_eq!(tally.ended(), Ended::SomeFailed);
    }
}
