//! What a connection may send.
//!
//! ```text
//!          SaslHandshake          SaslAuthenticate, once or twice
//! Greeting -------------> LoggingIn -----------------------------> LoggedIn --lifetime over--> (only SaslHandshake)
//!    ^  ApiVersions, once     ^  anything else: ILLEGAL_SASL_STATE    |  SaslHandshake, with a lifetime (KIP-368)
//!    |  anything else: closed +-----------------------------------------+
//!
//! Open: no login is demanded
//! ```
//! A refused login is answered, then the connection is closed.

use std::time::{Duration, Instant};

use kafka_protocol::messages::ApiKey;

use super::exchange::Exchange;
use super::users::Mechanism;

/// The longest frame before the login, as the real broker's `sasl.server.max.receive.size`.
const FRAME_LIMIT: usize = 512 * 1024;
/// A client may log in again after it at the earliest, as at the real broker.
const BETWEEN_LOGINS: Duration = Duration::from_secs(1);

/// Where a connection stands.
#[derive(Debug, Clone)]
pub(in crate::embedded::kafka) enum Session {
    Open,
    Greeting { versions_asked: bool },
    LoggingIn { exchange: Exchange, raw: bool, before: Option<LoggedIn> },
    LoggedIn(LoggedIn),
}

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded::kafka) struct LoggedIn {
    pub(in crate::embedded::kafka) user: String,
    pub(in crate::embedded::kafka) mechanism: Mechanism,
    /// When it ends.
    pub(in crate::embedded::kafka) until: Option<Instant>,
    /// When the last login on top of it began.
    again: Option<Instant>,
}

/// Is a request taken?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded::kafka) enum Admission {
    Yes,
    /// The connection is closed without a word.
    Close,
    /// ILLEGAL_SASL_STATE, then the connection is closed.
    Illegal,
}

impl Session {
    /// A new connection's.
    pub(in crate::embedded::kafka) fn new(login_required: bool) -> Self {
        if login_required { Self::Greeting { versions_asked: false } } else { Self::Open }
    }

    /// May a request with this API key be handled now?
    pub(in crate::embedded::kafka) fn admits(&self, key: i16, now: Instant) -> Admission {
        let is = |api: ApiKey| key == api as i16;
        match self {
            Self::Open => Admission::Yes,
            Self::Greeting { .. } if is(ApiKey::SaslHandshake) => Admission::Yes,
            Self::Greeting { versions_asked: false } if is(ApiKey::ApiVersions) => Admission::Yes,
            Self::Greeting { .. } => Admission::Close,
            Self::LoggingIn { .. } if is(ApiKey::SaslAuthenticate) => Admission::Yes,
            Self::LoggingIn { .. } => Admission::Illegal,
            Self::LoggedIn(login) if login.until.is_some_and(|until| until < now) => {
                if is(ApiKey::SaslHandshake) { Admission::Yes } else { Admission::Close }
            }
            Self::LoggedIn(_) => Admission::Yes,
        }
    }

    /// Do frames carry bare tokens now?
    pub(in crate::embedded::kafka) fn is_raw(&self) -> bool {
        matches!(self, Self::LoggingIn { raw: true, .. })
    }

    /// The longest frame that is taken.
    pub(in crate::embedded::kafka) fn frame_limit(&self) -> usize {
        match self {
            Self::Open | Self::LoggedIn(_) => usize::MAX,
            Self::Greeting { .. } | Self::LoggingIn { .. } => FRAME_LIMIT,
        }
    }

    /// ApiVersions was answered.
    pub(in crate::embedded::kafka) fn handle_versions(&mut self) {
        if let Self::Greeting { versions_asked } = self {
            *versions_asked = true;
        }
    }

    /// A SaslHandshake that names a mechanism that is served; `raw`: tokens follow without requests around them.
    /// False where no login may begin now.
    pub(in crate::embedded::kafka) fn handle_handshake(
        &mut self,
        mechanism: Mechanism,
        raw: bool,
        now: Instant,
    ) -> bool {
        let before = match self {
            Self::Greeting { .. } => None,
            Self::LoggedIn(login) if login.until.is_some() => {
                let soon = |at: Instant| now.saturating_duration_since(at) < BETWEEN_LOGINS;
                if login.again.is_some_and(soon) {
                    return false;
                }
                Some(LoggedIn { again: Some(now), ..login.clone() })
            }
            Self::Open | Self::LoggingIn { .. } | Self::LoggedIn(_) => return false,
        };
        *self = Self::LoggingIn { exchange: Exchange::new(mechanism), raw, before };
        true
    }

    /// The login succeeded.
    pub(in crate::embedded::kafka) fn handle_login(
        &mut self,
        user: String,
        lifetime: Option<Duration>,
        now: Instant,
    ) {
        if let Self::LoggingIn { exchange, before, .. } = self {
            *self = Self::LoggedIn(LoggedIn {
                user,
                mechanism: exchange.mechanism(),
                until: lifetime.and_then(|lifetime| now.checked_add(lifetime)),
                again: before.as_ref().and_then(|login| login.again),
            });
        }
    }
}
