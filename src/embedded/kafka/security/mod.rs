//! Who may speak: users, and the SASL exchange that each connection begins with.
//!
//! ```text
//! users     pure: names, passwords, SCRAM credentials
//! exchange  pure: PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677), a message in, a message out
//! session   pure: what a connection may send, from its first byte to the end of its session
//! ```
//!
//! A cluster is open, or demands SASL on all its listeners. There are no access rules: whoever has logged in may do
//! everything. Left out: TLS, OAUTHBEARER, GSSAPI, delegation tokens, SASLprep (the real broker does without it too),
//! and the delay before a refused login is answered (`connection.failed.authentication.delay.ms`).

mod exchange;
mod session;
#[cfg(test)]
mod tests;
mod users;

use std::time::Duration;

pub(super) use exchange::{Failure, Step};
pub(super) use session::{Admission, Session};
pub(super) use users::{LEAST_ITERATIONS, MOST_ITERATIONS, Mechanism, Users};

/// Who may speak to the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecuritySettings {
    /// Is a login demanded? Default false.
    pub(crate) required: bool,
    /// Names and passwords: PLAIN and both kinds of SCRAM.
    pub(crate) users: Vec<(String, String)>,
    /// How long a login holds; a client has to log in again before (KIP-368). Default: as long as the connection.
    pub(crate) session_lifetime: Option<Duration>,
}
