//! One connection to one broker, in use.
//!
//! ```text
//! open: connect -> agree on versions -> Open
//! Open  --a request's time runs out-->  Broken: every other request on the link fails too
//!       --the stream fails-->           Broken
//!       --close()-->                    Broken
//! ```
//! A broken link is never mended: its owner opens another. A request that failed after its bytes may have left is
//! ambiguous; one that failed before is not.
#![allow(clippy::disallowed_methods, reason = "this file drives connections")]

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;
use rskafka::messenger::{Messenger, RequestError};
use rskafka::protocol::api_key::ApiKey;
use rskafka::protocol::api_version::ApiVersionRange;
use rskafka::protocol::primitives::Int16;
use tokio::time::timeout;

use super::api::{Api, Call, range};
use super::connect::{Address, Connect};
use super::frame::Fault;
use super::outbox::Outbox;
use super::stream::{Switch, WireStream};
use crate::kafka::errors;
use crate::{Error, ErrorKind, Result};

/// What every link of a client has in common.
#[derive(Debug, Clone)]
pub(crate) struct LinkSettings {
    pub(crate) client_id: Arc<str>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_response_size: usize,
    pub(crate) connector: Arc<dyn Connect>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Link {
    messenger: Messenger<WireStream>,
    switch: Switch,
    outbox: Outbox,
    address: Address,
    request_timeout: Duration,
    spoken: Spoken,
}

/// What the broker said of itself when the link was opened.
#[derive(Debug)]
struct Spoken {
    versions: HashMap<ApiKey, ApiVersionRange>,
    /// The cluster's finalized features and their levels (KIP-584), the first [`FEATURES`] of them.
    features: Vec<(Box<str>, i16)>,
}

/// How many features are kept: Kafka 4.3 has eight.
const FEATURES: usize = 64;

impl Link {
    /// Connects and agrees on versions, within the connect timeout.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] that names the address, what went wrong and, where it can be told, what to do.
    pub(crate) async fn open(address: &Address, settings: &LinkSettings) -> Result<Self> {
        let name = |e: Error| e.context(format!("Kafka broker {address}"));
        match timeout(settings.connect_timeout, Self::open_unbounded(address, settings)).await {
            Ok(result) => result.map_err(name),
            Err(_) => Err(name(Error::new(
                ErrorKind::Connect,
                format!(
                    "no answer within {:?} (connect_timeout); check that the address is right and that a firewall \
                     lets it through",
                    settings.connect_timeout
                ),
            ))),
        }
    }

    async fn open_unbounded(address: &Address, settings: &LinkSettings) -> Result<Self> {
        let io = settings.connector.connect(&address.host, address.port).await.map_err(|e| {
            let what = match e.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    "nothing listens there (connection refused); check the port, and that the broker runs"
                }
                _ => "cannot connect; check the host's name, and that this machine can reach it",
            };
            Error::new(ErrorKind::Connect, what).with_source(e)
        })?;
        let switch = Switch::default();
        let outbox = Outbox::default();
        let stream = WireStream::new(io, settings.max_response_size, switch.clone(), outbox.clone());
        let mut messenger =
            Messenger::new(stream, settings.max_response_size, Arc::clone(&settings.client_id));
        let spoken = agree(&mut messenger, &outbox).await?;
        messenger.override_version_ranges(spoken.versions.clone());
        let request_timeout = settings.request_timeout;
        Ok(Self { messenger, switch, outbox, address: address.clone(), request_timeout, spoken })
    }

    /// The version in which [`call`](Self::call) speaks this request; `None` where none is shared.
    pub(crate) fn version<R: Api>(&self) -> Option<i16> {
        let theirs = self.spoken.versions.get(&R::API)?;
        let version = R::MAX.min(theirs.max().0.0);
        (version >= R::MIN && version >= theirs.min().0.0).then_some(version)
    }

    /// The level of a feature that the cluster has finalized, such as `transaction.version`, as of the time when this
    /// link was opened; `None` where the broker tells none (Kafka before 2.7, a cluster without the feature).
    pub(crate) fn feature(&self, name: &str) -> Option<i16> {
        self.spoken.features.iter().find(|(known, _)| **known == *name).map(|(_, level)| *level)
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.switch.is_broken()
    }

    /// Breaks the link; every request on it fails.
    pub(crate) fn close(&self) {
        self.switch.break_stream();
    }

    /// Sends a request and waits for its answer, at most the client's request timeout.
    ///
    /// Requests leave in the order in which these futures are first polled. Dropped before it is done, the request
    /// may or may not have been sent; its answer is thrown away.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] and [`ErrorKind::Disconnected`], ambiguous where the request may have left;
    /// [`ErrorKind::Unsupported`] where no version is shared; [`ErrorKind::Malformed`] for an answer that makes no
    /// sense.
    pub(crate) async fn call<R: Api>(&self, request: R) -> Result<R::Answer> {
        self.call_within(request, self.request_timeout).await
    }

    /// [`call`](Self::call) with a time limit of its own.
    pub(crate) async fn call_within<R: Api>(&self, request: R, limit: Duration) -> Result<R::Answer> {
        self.call_capped::<R, { i16::MAX }>(request, limit).await
    }

    /// [`call_within`](Self::call_within) in a version of at most `CAP`: for requests whose newer versions promise what
    /// the caller does not do. `link.call_capped::<_, 11>(request, limit)`. `CAP` is not below the lowest version spoken;
    /// one that is does not compile.
    pub(crate) async fn call_capped<R: Api, const CAP: i16>(
        &self,
        request: R,
        limit: Duration,
    ) -> Result<R::Answer> {
        let name = |e: Error| e.context(format!("{} request to Kafka broker {}", R::NAME, self.address));
        if !self.is_open() {
            return Err(name(Error::new(ErrorKind::Disconnected, Fault::Broken.to_string())));
        }
        // The answer first: what came before the stream broke counts.
        let answer = async {
            tokio::select! {
                biased;
                answer = self.messenger.request(Call::<R, CAP>::new(request, &self.outbox)) => answer.map_err(translate::<R, CAP>),
                () = self.switch.broken() => Err(
                    Error::new(ErrorKind::Disconnected, Fault::Broken.to_string()).ambiguous(),
                ),
            }
        };
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer.0),
            Ok(Err(e)) => {
                if e.kind() == ErrorKind::Disconnected {
                    self.switch.break_stream();
                }
                Err(name(e))
            }
            Err(_) => {
                // Its answer may still come, in the middle of others: nothing on this link can be trusted in time.
                self.switch.break_stream();
                Err(name(Error::new(ErrorKind::Timeout, format!("no answer within {limit:?}")).ambiguous()))
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.switch.break_stream();
    }
}

/// Asks which versions the broker speaks (KIP-35); a broker that does not know version 3 says so in version 0
/// (KIP-511).
async fn agree(messenger: &mut Messenger<WireStream>, outbox: &Outbox) -> Result<Spoken> {
    let answer = match ask_versions(messenger, outbox, 3).await {
        Ok(answer) if answer.error_code == 0 => answer,
        Ok(answer) if answer.error_code != errors::UNSUPPORTED_VERSION => {
            return Err(errors::broker(answer.error_code, "ApiVersions"));
        }
        Err(e) if e.kind() != ErrorKind::Malformed => return Err(e),
        Ok(_) | Err(_) => {
            let answer = ask_versions(messenger, outbox, 0).await?;
            if answer.error_code != 0 {
                return Err(errors::broker(answer.error_code, "ApiVersions"));
            }
            answer
        }
    };
    Ok(read_spoken(&answer))
}

fn read_spoken(answer: &ApiVersionsResponse) -> Spoken {
    let versions = answer
        .api_keys
        .iter()
        .filter(|k| 0 <= k.min_version && k.min_version <= k.max_version)
        .map(|k| (ApiKey::from(Int16(k.api_key)), range(k.min_version, k.max_version)))
        .collect();
    // A broker that does not know the features yet says so by the epoch -1.
    let features = answer.finalized_features.iter().filter(|_| answer.finalized_features_epoch >= 0);
    let features = features.take(FEATURES).map(|f| (f.name.as_str().into(), f.max_version_level)).collect();
    Spoken { versions, features }
}

async fn ask_versions(
    messenger: &mut Messenger<WireStream>,
    outbox: &Outbox,
    version: i16,
) -> Result<ApiVersionsResponse> {
    messenger.override_version_ranges(HashMap::from([(ApiKey::ApiVersions, range(version, version))]));
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("muslin"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
    match messenger.request(Call::<_>::new(request, outbox)).await {
        Ok(answer) => Ok(answer.0),
        Err(e) => {
            let e = translate::<ApiVersionsRequest, { i16::MAX }>(e);
            let kind = match e.kind() {
                ErrorKind::Disconnected => ErrorKind::Connect,
                kind => kind,
            };
            let mut told = Error::new(kind, e.message().to_owned());
            if let Some(source) = e.source() {
                told = told.with_source(source.to_string());
            }
            Err(told)
        }
    }
}

fn translate<R: Api, const CAP: i16>(e: RequestError) -> Error {
    match e {
        RequestError::NoVersionMatch { .. } => Error::new(
            ErrorKind::Unsupported,
            format!(
                "the broker does not speak {} in any version from {} to {}; brokers from Kafka 2.0 on do",
                R::NAME,
                R::MIN,
                R::MAX.min(CAP)
            ),
        ),
        RequestError::WriteError(e) => {
            Error::new(ErrorKind::Internal, "the request cannot be encoded").with_source(e)
        }
        RequestError::ReadVersionedError(e) => {
            Error::new(ErrorKind::Malformed, format!("the answer makes no sense: {e}")).ambiguous()
        }
        RequestError::ReadError(e) => {
            Error::new(ErrorKind::Malformed, format!("the answer makes no sense: {e}")).ambiguous()
        }
        e => {
            let message = match fault(&e) {
                Some(fault) => fault.to_string(),
                None => "the connection broke".to_owned(),
            };
            let told = Error::new(ErrorKind::Disconnected, message).ambiguous();
            match fault(&e) {
                Some(_) => told,
                None => told.with_source(root(&e).to_string()),
            }
        }
    }
}

/// The innermost error of a poisoned messenger: the layers above only repeat it.
fn root<'a>(e: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    if let Some(RequestError::Poisoned(inner)) = e.downcast_ref::<RequestError>() {
        return root(inner.as_ref());
    }
    match e.source() {
        Some(inner) => root(inner),
        None => e,
    }
}

/// What the stream's watch found.
fn fault(e: &RequestError) -> Option<Fault> {
    match e {
        RequestError::Poisoned(inner) => fault(inner),
        e => {
            let mut at: Option<&(dyn StdError + 'static)> = Some(e);
            while let Some(error) = at {
                if let Some(io) = error.downcast_ref::<std::io::Error>() {
                    return io.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()).copied();
                }
                at = error.source();
            }
            None
        }
    }
}

#[cfg(test)]
mod tests;
