//! From arguments, environment and file to connected clients and an open store.

use std::sync::Arc;

use muslin::config::Properties;
use muslin::idempotency::{MemoryStore, RedbStore, Store};
use muslin::{Error, ErrorKind};

use crate::args::{self, Common};
use crate::exit::Failure;
use crate::output::Console;
use crate::stop::Stop;

/// What every command needs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) console: Console,
    pub(crate) stop: Stop,
    pub(crate) settings: Properties,
}

/// The settings by rising rank: the environment, `-F`, `-X`, then `--kafka` and `--amqp`.
///
/// The environment is lowest: a file that was named by hand must not be led to another cluster by what a shell
/// happens to have set.
pub(crate) fn settings(common: &Common, console: Console) -> Result<Properties, Failure> {
    let mut all = Properties::new();
    let put = |all: &mut Properties, name: &str, value: &str| all.put(name, value).map_err(Failure::usage);
    for (variable, name) in [("MUSLIN_KAFKA", "bootstrap.servers"), ("MUSLIN_AMQP", "amqp.url")] {
        match std::env::var(variable) {
            Ok(value) if !value.trim().is_empty() => put(&mut all, name, &value)?,
            Ok(_) | Err(std::env::VarError::NotPresent) => {}
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(Failure::wrong_use(format!("{variable} is not UTF-8")));
            }
        }
    }
    if let Some(file) = &common.file {
        all.merge(Properties::load(file).map_err(Failure::usage)?);
    }
    for setting in &common.set {
        all.set(setting).map_err(|e| Failure::usage(e.context("-X")))?;
    }
    if let Some(kafka) = &common.kafka {
        put(&mut all, "bootstrap.servers", kafka)?;
    }
    if let Some(amqp) = &common.amqp {
        put(&mut all, "amqp.url", amqp)?;
    }
    for warning in all.warnings() {
        console.warn(&warning);
    }
    Ok(all)
}

impl Context {
    /// A Kafka client; `None` if a signal came first.
    pub(crate) async fn kafka(&self) -> Result<Option<muslin::kafka::Client>, Failure> {
        if self.settings.text("bootstrap.servers").is_none() {
            return Err(Failure::wrong_use(
                "no Kafka broker is named: give --kafka HOST:PORT, set MUSLIN_KAFKA, or set bootstrap.servers in -F FILE",
            ));
        }
        let builder = self.settings.kafka().map_err(Failure::usage)?;
        self.stop.unless(builder.connect()).await.transpose().map_err(Failure::setup)
    }

    /// A RabbitMQ client; `None` if a signal came first.
    pub(crate) async fn amqp(&self) -> Result<Option<muslin::amqp::Client>, Failure> {
        self.stop.unless(self.amqp_builder()?.connect()).await.transpose().map_err(Failure::setup)
    }

    /// How to connect to RabbitMQ.
    pub(crate) fn amqp_builder(&self) -> Result<muslin::amqp::ClientBuilder, Failure> {
        if self.settings.text("amqp.url").is_none() {
            return Err(Failure::wrong_use(
                "no RabbitMQ is named: give --amqp URL, set MUSLIN_AMQP, or set amqp.url in -F FILE",
            ));
        }
        self.settings.amqp().map_err(Failure::usage)
    }

    /// Opens the store that `--store` names.
    pub(crate) fn store(&self, store: Option<&args::Store>) -> Result<Option<Arc<dyn Store>>, Failure> {
        Ok(match store {
            None => None,
            Some(args::Store::Memory) => Some(Arc::new(MemoryStore::new())),
            Some(args::Store::Redb(path)) => {
                let open =
                    || RedbStore::open(path).map_err(|e| Failure { error: e.context("--store"), status: 3 });
                Some(Arc::new(tokio::task::block_in_place(open)?))
            }
        })
    }
}

/// JSON of an argument or a line: checked, kept as it was written.
pub(crate) fn json(text: &[u8]) -> Result<Box<serde_json::value::RawValue>, Error> {
    let text = std::str::from_utf8(text).map_err(|e| {
        Error::new(
            ErrorKind::Malformed,
            format!("is not UTF-8 after byte {}; JSON is UTF-8 text", e.valid_up_to()),
        )
    })?;
    serde_json::from_str(text).map_err(|e| Error::new(ErrorKind::Malformed, format!("is no JSON: {e}")))
}
