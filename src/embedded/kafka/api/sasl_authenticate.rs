//! SaslAuthenticate (36), versions 0 to 2 (KIP-152, KIP-368).
//!
//! Carries the messages of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. A refused login is answered
//! SASL_AUTHENTICATION_FAILED, then the connection is closed. Where a session has a lifetime, the answer tells it, and
//! the same user has to log in again before.

use std::ops::RangeInclusive;
use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::security::{Failure, Session, Step};
use crate::embedded::machine::{ConnectionId, Output};

impl Api for SaslAuthenticateRequest {
    const SERVED: RangeInclusive<i16> = 0..=2;
    const SHAPE: &'static [Field] = &[always(Shape::Bytes)];

    fn handle(self, cluster: &mut Cluster, context: &Context) -> Reply<SaslAuthenticateResponse> {
        let response = SaslAuthenticateResponse::default();
        match cluster.log_in(context.connection, &self.auth_bytes, context.now) {
            Some(Ok((bytes, lifetime_ms))) => {
                Reply::Now(response.with_auth_bytes(bytes).with_session_lifetime_ms(lifetime_ms))
            }
            Some(Err(why)) => {
                let refusal = response
                    .with_error_code(Code::SaslAuthenticationFailed.code())
                    .with_error_message(Some(StrBytes::from_string(why)));
                cluster.answer::<Self>(context.connection, &refusal);
                cluster.end(context.connection, Output::Close);
                Reply::Later
            }
            None => Reply::Now(self.refuse(Code::IllegalSaslState, context.version)),
        }
    }

    fn refuse(&self, code: Code, _version: i16) -> SaslAuthenticateResponse {
        let text = match code {
            Code::IllegalSaslState => {
                "SaslAuthenticate request received after successful authentication".to_owned()
            }
            code => code.to_string(),
        };
        SaslAuthenticateResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(text)))
    }
}

impl Cluster {
    /// Takes a message of a login: what to send, and how long the session lasts (0: not said). `None` where no login
    /// is in progress.
    ///
    /// # Errors
    /// What the client is told of the refusal; its connection is to be closed.
    pub(in crate::embedded::kafka) fn log_in(
        &mut self,
        connection: ConnectionId,
        message: &[u8],
        now: Instant,
    ) -> Option<Result<(Bytes, i64), String>> {
        let nonce = format!("{:016x}{:016x}", self.draw(), self.draw());
        let lifetime = self.settings.security.session_lifetime;
        let state = self.connections.get_mut(&connection)?;
        let Session::LoggingIn { exchange, before, .. } = &mut state.session else { return None };
        let mechanism = exchange.mechanism();
        // A login on top of another is by the same user with the same mechanism (KIP-368).
        let again = if before.is_some() { "re-authentication" } else { "authentication" };
        let step = match before {
            Some(login) if login.mechanism != mechanism => Err(Failure::Told(format!(
                "SASL mechanism '{}' requested by client is not supported for re-authentication of mechanism '{}'",
                mechanism.name(),
                login.mechanism.name(),
            ))),
            _ => exchange.handle_message(message, &mut self.users, &nonce),
        };
        Some(match step {
            Ok(Step::Challenge(bytes)) => Ok((bytes.into(), 0)),
            Ok(Step::Done { user, .. }) if before.as_ref().is_some_and(|login| login.user != user) => {
                let login = before.as_ref().map_or("", |login| &login.user);
                Err(format!(
                    "Cannot change principals during re-authentication from User:{login} to User:{user}"
                ))
            }
            Ok(Step::Done { user, last }) => {
                state.session.handle_login(user, lifetime, now);
                let lifetime_ms =
                    lifetime.map_or(0, |lifetime| i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
                Ok((last.into(), lifetime_ms))
            }
            Err(Failure::Told(text)) => Err(text),
            Err(Failure::Credentials) => Err(format!(
                "Authentication failed during {again} due to invalid credentials with SASL mechanism {}",
                mechanism.name()
            )),
        })
    }

    /// The same for a client that sends its messages bare (SaslHandshake version 0).
    pub(in crate::embedded::kafka) fn log_in_raw(
        &mut self,
        connection: ConnectionId,
        message: &[u8],
        now: Instant,
    ) {
        match self.log_in(connection, message, now) {
            Some(Ok((bytes, _))) => {
                let Ok(size) = u32::try_from(bytes.len()) else { return };
                let Some(state) = self.connections.get_mut(&connection) else { return };
                state.send(Bytes::copy_from_slice(&size.to_be_bytes()));
                state.send(bytes);
                self.woken.push_back(connection);
            }
            Some(Err(_)) | None => self.end(connection, Output::Close),
        }
    }
}
