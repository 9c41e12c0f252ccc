//! Clients of other languages as test subjects. Each program below `tests/foreign/` holds one client library and does what it is asked,
//! an operation a line on its standard input: `{"op": "produce", ...}`. Its answer is a line: `{"ok": value}`, `{"error": what the
//! broker said}`, or `{"failed": trace}`. So a scenario is written once, and each client does it on each broker.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test program uses a part of it")]
#![allow(unreachable_pub, reason = "a module of several test programs")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// How long one operation may take, and how long a test waits for something to happen.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The broker under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum On {
    Embedded,
    Real,
}

/// A program of `tests/foreign`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Python(&'static str),
    Go(&'static str),
    Java(&'static str),
}

/// One running program. Dropped, it is ended, then what it talked to.
pub struct Client {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
    stderr: Arc<Mutex<String>>,
    /// Which client it is.
    pub program: Program,
    /// Which broker it is.
    pub on: On,
    /// Where the broker is, for those who want to reach it beside the program.
    pub address: String,
    _broker: Box<dyn std::any::Any>,
}

impl Client {
    /// Starts `program`; `broker` lives as long as it.
    pub fn start(program: Program, on: On, broker: Box<dyn std::any::Any>) -> Self {
        let mut command = program.command();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let (sender, answers) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let stderr = Arc::new(Mutex::new(String::new()));
        let (err, kept) = (child.stderr.take().unwrap(), stderr.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                if kept.len() < 100_000 {
                    kept.push_str(&line);
                    kept.push('\n');
                }
            }
        });
        let stdin = child.stdin.take().unwrap();
        Self { child, stdin, answers, stderr, program, on, address: String::new(), _broker: broker }
    }

    /// Does `op`: what it gave, or what the broker refused it with. Anything else fails the test.
    pub fn ask(&mut self, op: &str, mut ask: Value) -> Result<Value, Value> {
        ask["op"] = json!(op);
        let sent = writeln!(self.stdin, "{ask}");
        let line = match sent.map(|()| self.answers.recv_timeout(LIMIT)) {
            Ok(Ok(line)) => line,
            other => panic!("no answer to {ask}: {other:?}\n{}", self.stderr.lock().unwrap()),
        };
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line:?}"));
        if let Some(trace) = answer["failed"].as_str() {
            panic!("{ask} failed: {trace}\n{}", self.stderr.lock().unwrap());
        }
        if answer["error"].is_null() { Ok(answer["ok"].take()) } else { Err(answer["error"].take()) }
    }

    /// Does `op`, which must succeed.
    pub fn ok(&mut self, op: &str, ask: Value) -> Value {
        let what = format!("{op} {ask}");
        self.ask(op, ask).unwrap_or_else(|error| panic!("{what} was refused: {error}"))
    }

    /// Does `op`, which the broker must refuse, and says with what.
    pub fn refused(&mut self, op: &str, ask: Value) -> Value {
        let what = format!("{op} {ask}");
        match self.ask(op, ask) {
            Err(error) => error,
            Ok(value) => panic!("{what} was not refused: {value}"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a broker in this process, on a thread of its own: it serves while both that come back live.
pub fn hosted<B>(start: impl Future<Output = muslin::Result<B>>) -> (B, Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    (runtime.block_on(start).unwrap(), runtime)
}

/// `CLIENT::SCENARIO::on_embedded` and `CLIENT::SCENARIO::on_real`.
macro_rules! tests {
    ($($client:ident $program:ident: $($scenario:ident)*;)*) => {$(
        mod $client {$(
            mod $scenario {
                #[test]
                fn on_embedded() {
                    crate::$scenario(&mut crate::start(crate::$program, crate::On::Embedded));
                }
                #[test]
                fn on_real() {
                    crate::$scenario(&mut crate::start(crate::$program, crate::On::Real));
                }
            }
        )*}
    )*};
}
pub(crate) use tests;

/// Calls `step` until it gives something, at most for [`LIMIT`]; `what` says what is waited for.
pub fn until<T>(what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = step() {
            return found;
        }
        assert!(Instant::now() < end, "within {LIMIT:?} there was no {what}");
    }
}

fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("MUSLIN_CACHE").map_or_else(
        || std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("muslin"),
        PathBuf::from,
    )
}

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(language)
}

/// Runs a compiler; `hint` says how to get it.
fn compile(command: &mut Command, hint: &str) {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}; {hint}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {said}\n{hint}", output.status);
}

impl Program {
    fn command(self) -> Command {
        match self {
            Self::Python(name) => {
                let python = std::env::var_os("MUSLIN_PYTHON")
                    .map_or_else(|| cache().join("python/bin/python"), PathBuf::from);
                assert!(
                    python.exists(),
                    "{} is not there: it holds the Python clients; run scripts/setup.sh test or set MUSLIN_PYTHON",
                    python.display()
                );
                let mut command = Command::new(python);
                command.arg(sources("python").join(format!("{name}.py"))).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Self::Go(name) => Command::new(go_program(name)),
            Self::Java(name) => {
                let mut command = Command::new("java");
                // Started often, each for a second or two: no optimizing compiler, little memory.
                command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx128m"]);
                command.args(["-Dlog4j2.level=warn", "-cp", java_classes(), name]);
                command
            }
        }
    }
}

/// Both Go programs are compiled once, into the folder that Cargo keeps for tests.
fn go_program(name: &'static str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign-go").join(name);
            let own = cache().join("go/bin/go");
            let go = if own.exists() { own } else { PathBuf::from("go") };
            let mut command = Command::new(go);
            command
                .current_dir(sources("go"))
                .args(["build", "-buildvcs=false", "-o"])
                .arg(&out)
                .arg(format!("./{name}"));
            compile(
                command.env("GOTOOLCHAIN", "local"),
                "run scripts/setup.sh test, or install the Go that tests/foreign/go/go.mod names",
            );
            out
        })
        .clone()
}

/// The Java programs are compiled once as well; gives their class path.
fn java_classes() -> &'static str {
    static BUILT: OnceLock<String> = OnceLock::new();
    BUILT.get_or_init(|| {
        let libs = std::env::var("KAFKA_LIBS").unwrap_or_else(|_| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/brokers.sh");
            let mut said = String::new();
            let mut child = Command::new(script).arg("libs").stdout(Stdio::piped()).spawn().unwrap();
            child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(child.wait().unwrap().success(), "scripts/brokers.sh libs found no jars of Kafka");
            said.trim().to_owned()
        });
        let amqp = cache().join("java");
        assert!(
            amqp.exists(),
            "{} is not there: it holds RabbitMQ's Java client; run scripts/setup.sh test",
            amqp.display()
        );
        // Two test programs may compile at once: each into a folder of its own.
        let out =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("foreign-java-{}", env!("CARGO_CRATE_NAME")));
        let classes = format!("{}:{libs}/*:{}/*", out.display(), amqp.display());
        let mut command = Command::new("javac");
        command.args(["-nowarn", "-d"]).arg(&out).args(["-cp", &classes]);
        command.args(std::fs::read_dir(sources("java")).unwrap().map(|file| file.unwrap().path()));
        compile(&mut command, "run scripts/setup.sh test, or install a JDK 17 or later");
        classes
    })
}
