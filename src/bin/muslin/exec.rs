//! `--exec`: a shell command for each event or task.
//!
//! The command gets the event or task as JSON on stdin and its facts in the environment ([`FACTS`]). It runs in a process
//! group of its own, so that a Ctrl-C at the terminal drains instead of killing it, and so that all it has started can
//! be ended with it: when its time is up, and at a second signal.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muslin::processor::HandlerError;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStderr;

/// The exit status by which a command says that the message will never work (`EX_DATAERR` of sysexits.h).
const DEAD_LETTER: i32 = 65;

/// How long what the command wrote to stderr is waited for after it ended; a child of its own may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The names of all facts. Those that a message lacks are taken out of the environment, so that none of an outer command
/// shows through.
pub(crate) const FACTS: [&str; 14] = [
    "MUSLIN_ID",
    "MUSLIN_TYPE",
    "MUSLIN_OCCURRED_AT",
    "MUSLIN_ATTEMPT",
    "MUSLIN_KEY",
    "MUSLIN_TOPIC",
    "MUSLIN_PARTITION",
    "MUSLIN_OFFSET",
    "MUSLIN_TIMESTAMP",
    "MUSLIN_GROUP",
    "MUSLIN_QUEUE",
    "MUSLIN_EXCHANGE",
    "MUSLIN_ROUTING_KEY",
    "MUSLIN_REDELIVERED",
];

/// The facts of one message.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<(&'static str, OsString)>);

impl Facts {
    /// Adds a fact. A zero byte, which no environment can hold, is left out.
    pub(crate) fn add(&mut self, name: &'static str, value: impl AsRef<[u8]>) {
        debug_assert!(FACTS.contains(&name), "{name}");
        let value = value.as_ref().iter().copied().filter(|b| *b != 0).collect();
        self.0.push((name, OsString::from_vec(value)));
    }

    /// Adds a fact if there is one.
    pub(crate) fn add_some(&mut self, name: &'static str, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }
}

/// The process groups that run now.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills every command and what it started. For the moment before the process exits.
pub(crate) fn kill_all() {
    for group in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        kill(*group);
    }
}

fn kill(group: i32) {
    if let Some(pid) = Pid::from_raw(group) {
        // Fails only if the group is gone.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Kills the group when dropped, unless its leader has been waited for.
struct Group(Option<i32>);

impl Group {
    fn watch(pid: Option<u32>) -> Self {
        let group = pid.and_then(|p| i32::try_from(p).ok());
        if let Some(group) = group {
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
        }
        Self(group)
    }

    /// The leader has been waited for: its number may be another's from now on.
    fn release(&mut self) {
        if let Some(group) = self.0.take() {
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            kill(group);
        }
        self.release();
    }
}

/// A shell command.
#[derive(Debug)]
pub(crate) struct Shell {
    command: String,
    /// The command's stdout goes to stderr: stdout carries JSON.
    quiet: bool,
}

impl Shell {
    pub(crate) fn new(command: &str, json: bool) -> Self {
        Self { command: command.to_owned(), quiet: json }
    }

    /// Runs the command to its end.
    ///
    /// Exit status 0 is success, 65 rejects the message, anything else is tried again. Dropping the future kills the
    /// command with its process group.
    pub(crate) async fn run(&self, facts: Facts, stdin: Bytes) -> Result<(), HandlerError> {
        let mut command = tokio::process::Command::new("sh");
        command.arg("-c").arg(OsStr::from_bytes(self.command.as_bytes()));
        for name in FACTS {
            command.env_remove(name);
        }
        command.envs(facts.0);
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        if self.quiet {
            command.stdout(std::io::stderr());
        }
        let mut child = command
            .spawn()
            .map_err(|e| HandlerError::retry(format_args!("the command cannot be started: {e}")))?;
        let mut group = Group::watch(child.id());
        let (input, errors) = (child.stdin.take(), child.stderr.take());
        let feed = async {
            if let Some(mut input) = input {
                // A command need not read its input: a closed pipe is no failure.
                let _ = input.write_all(&stdin).await;
                let _ = input.shutdown().await;
            }
            // Open until here, closed by the drop: the command sees the end.
        };
        let mut words = Words::default();
        let status = {
            let mut feed = std::pin::pin!(feed);
            let mut listen = std::pin::pin!(words.listen(errors));
            let (mut fed, mut heard) = (false, false);
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    () = &mut feed, if !fed => fed = true,
                    () = &mut listen, if !heard => heard = true,
                }
            };
            group.release();
            if !heard {
                let _ = tokio::time::timeout(LAST_WORDS, listen).await;
            }
            status.map_err(|e| HandlerError::retry(format_args!("the command cannot be waited for: {e}")))?
        };
        if status.success() {
            return Ok(());
        }
        let why = format!("{}{}", describe(status), words.last());
        Err(if status.code() == Some(DEAD_LETTER) {
            HandlerError::reject(why)
        } else {
            HandlerError::retry(why)
        })
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the command ended with status {code}"),
        (None, Some(signal)) => format!("the command was ended by signal {signal}"),
        (None, None) => "the command failed".to_owned(),
    }
}

/// The end of what a command wrote to stderr, which is passed on as it comes.
#[derive(Debug, Default)]
struct Words(Vec<u8>);

impl Words {
    const KEPT: usize = 1024;

    async fn listen(&mut self, errors: Option<ChildStderr>) {
        let Some(mut errors) = errors else { return };
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = errors.read(&mut chunk).await {
            let new = chunk.get(..n).unwrap_or_default();
            let _ = std::io::stderr().write_all(new);
            self.0.extend_from_slice(new);
            let surplus = self.0.len().saturating_sub(Self::KEPT);
            self.0.drain(..surplus);
        }
    }

    /// Its last line that is not blank, as `: line`.
    fn last(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        match text.lines().map(str::trim).rfind(|l| !l.is_empty()) {
            Some(line) => format!(": {line}"),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muslin::processor::Class;

    async fn run(command: &str, facts: Facts, input: &'static str) -> Result<(), (Class, String)> {
        let done = Shell::new(command, true).run(facts, Bytes::from_static(input.as_bytes())).await;
        done.map_err(|e| (e.class(), e.message().to_owned()))
    }

    #[tokio::test]
    async fn the_exit_status_says_what_becomes_of_the_message() {
        assert_eq!(run("true", Facts::default(), "").await, Ok(()));
        let reject = run("echo first >&2; echo no such account >&2; exit 65", Facts::default(), "").await;
        assert_eq!(reject, Err((Class::Reject, "the command ended with status 65: no such account".into())));
        let retry = run("exit 1", Facts::default(), "").await;
        assert_eq!(retry, Err((Class::Retry, "the command ended with status 1".into())));
        let killed = run("kill -9 $$", Facts::default(), "").await;
        assert_eq!(killed, Err((Class::Retry, "the command was ended by signal 9".into())));
    }

    #[tokio::test]
    async fn the_command_gets_its_input_and_facts_and_none_of_another_message() {
        let mut facts = Facts::default();
        facts.add("MUSLIN_KEY", "a\0b\n$(exit 9)");
        facts.add_some("MUSLIN_TOPIC", None::<&str>);
        let check = r#"test "$(cat)" = '{"a":1}' && test "$MUSLIN_KEY" = "$(printf 'ab\n$(exit 9)')" && test -z "${MUSLIN_TOPIC+set}""#;
        assert_eq!(run(check, facts, r#"{"a":1}"#).await, Ok(()));
    }

    #[tokio::test]
    async fn a_command_that_reads_nothing_of_a_large_input_is_no_failure() {
        let input = Box::leak("x".repeat(1 << 20).into_boxed_str());
        assert_eq!(run("exit 0", Facts::default(), input).await, Ok(()));
    }

    #[tokio::test]
    async fn what_the_command_left_running_does_not_hold_up_the_message() {
        let begun = std::time::Instant::now();
        assert_eq!(run("sleep 5 & exit 0", Facts::default(), "").await, Ok(()));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_command_whose_time_is_up_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alive");
        let command = format!("(sleep 1; touch {}) & wait", file.display());
        let late =
            tokio::time::timeout(Duration::from_millis(200), run(&command, Facts::default(), "")).await;
        assert!(late.is_err());
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!file.exists(), "a grandchild lived on");
    }
}
