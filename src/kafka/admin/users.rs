//! Users that log in by SCRAM (KIP-554, Kafka 2.7).
#![allow(clippy::disallowed_methods, reason = "IO: a salt is a random number")]

use bytes::Bytes;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::{AlterUserScramCredentialsRequest, DescribeUserScramCredentialsRequest};
use sha2::{Sha256, Sha512};

use super::Admin;
use super::drive::Refusal;
use super::spread::left_out;
use crate::kafka::client::text;
use crate::{Error, ErrorKind, Result};

const RESOURCE_NOT_FOUND: i16 = 91;
/// What a broker accepts.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=16_384;

/// By which hash a user proves the password (RFC 5802, RFC 7677).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramMechanism {
    /// As brokers and clients spell it: `SCRAM-SHA-256`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    const fn code(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    const fn from_code(code: i8) -> Option<Self> {
        match code {
            1 => Some(Self::Sha256),
            2 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// `SaltedPassword` of RFC 5802: what a broker derives its keys from.
    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Bytes {
        match self {
            Self::Sha256 => {
                Bytes::copy_from_slice(&pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations))
            }
            Self::Sha512 => {
                Bytes::copy_from_slice(&pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, salt, iterations))
            }
        }
    }
}

/// A user with SCRAM credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScramUser {
    /// The name.
    pub user: String,
    /// The mechanisms by which it may log in, with the iterations of its credential.
    pub credentials: Vec<(ScramMechanism, i32)>,
}

impl Admin {
    /// All users with SCRAM credentials, by name. No secret is told.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] without the right Describe on the cluster; [`ErrorKind::Unsupported`] before Kafka 2.7; errors of
    /// the connection.
    pub async fn users(&self) -> Result<Vec<ScramUser>> {
        let what = "list the users";
        let request = DescribeUserScramCredentialsRequest::default().with_users(None);
        let mut users = self
            .read(what, request, |answer| {
                let message = answer.error_message.as_deref();
                Refusal::check(answer.error_code, message, what, "Describe on the cluster")?;
                let told = answer.results.iter().filter(|user| user.error_code == 0).map(|user| {
                    let credentials = user.credential_infos.iter();
                    let credentials = credentials
                        .filter_map(|c| Some((ScramMechanism::from_code(c.mechanism)?, c.iterations)));
                    ScramUser { user: user.user.as_str().to_owned(), credentials: credentials.collect() }
                });
                Ok(told.collect::<Vec<_>>())
            })
            .await?;
        users.sort_by(|a, b| a.user.cmp(&b.user));
        Ok(users)
    }

    /// Gives a user a password for a mechanism, in place of the one that it may have. The password does not leave this
    /// process: what is sent is derived from it with a salt of its own. It takes 8192 iterations of the hash, some
    /// milliseconds.
    ///
    /// It may be done twice, and is where an answer was lost.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`] for an empty name or password.
    /// - [`ErrorKind::Denied`] without the right Alter on the cluster; [`ErrorKind::Unsupported`] before Kafka 2.7.
    /// - Errors of the connection: [`Error::is_ambiguous`] tells whether it may have been done.
    pub async fn upsert_user(&self, user: &str, mechanism: ScramMechanism, password: &str) -> Result<()> {
        self.upsert_user_with(user, mechanism, password, 8192).await
    }

    /// [`upsert_user`](Self::upsert_user) with so many iterations, from 4096 to 16,384: more makes a stolen credential
    /// costlier to try passwords on, and each login too.
    ///
    /// # Errors
    /// As [`upsert_user`](Self::upsert_user); [`ErrorKind::Config`] for other numbers.
    pub async fn upsert_user_with(
        &self,
        user: &str,
        mechanism: ScramMechanism,
        password: &str,
        iterations: u32,
    ) -> Result<()> {
        let what = format!("set the {} credential of user {user}", mechanism.as_str());
        let wrong = |why: String| Err(Error::new(ErrorKind::Config, format!("{what}: {why}")));
        if user.is_empty() {
            return wrong("the name is empty".to_owned());
        }
        if password.is_empty() {
            return wrong("the password is empty".to_owned());
        }
        if !ITERATIONS.contains(&iterations) {
            let (least, most) = (ITERATIONS.start(), ITERATIONS.end());
            return wrong(format!("{iterations} iterations; expected {least} to {most}"));
        }
        let salt = Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        let salted = mechanism.salted(password.as_bytes(), &salt, iterations);
        let upsertion = ScramCredentialUpsertion::default()
            .with_name(text(user))
            .with_mechanism(mechanism.code())
            .with_iterations(i32::try_from(iterations).unwrap_or(i32::MAX))
            .with_salt(salt)
            .with_salted_password(salted);
        let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
        self.alter(&what, request, false).await
    }

    /// Takes a user's credential for a mechanism away. A connection that has logged in stays.
    ///
    /// A deletion whose answer was lost is asked for again; that there is none then is its success.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the user has none; [`ErrorKind::Denied`] without the right Alter on the cluster;
    /// [`ErrorKind::Unsupported`] before Kafka 2.7; errors of the connection: [`Error::is_ambiguous`] tells whether it may be
    /// gone.
    pub async fn delete_user(&self, user: &str, mechanism: ScramMechanism) -> Result<()> {
        let what = format!("delete the {} credential of user {user}", mechanism.as_str());
        let deletion =
            ScramCredentialDeletion::default().with_name(text(user)).with_mechanism(mechanism.code());
        let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
        self.alter(&what, request, true).await
    }

    async fn alter(
        &self,
        what: &str,
        request: AlterUserScramCredentialsRequest,
        deletes: bool,
    ) -> Result<()> {
        self.repeat(what, request, |answer, lost| {
            let Some(told) = answer.results.first() else { return Err(left_out(what).ambiguous()) };
            if deletes && lost && told.error_code == RESOURCE_NOT_FOUND {
                return Ok(());
            }
            Refusal::check(told.error_code, told.error_message.as_deref(), what, "Alter on the cluster")
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_salted_as_the_rfc_says() {
        // RFC 7677, section 3: the salt of its example, and a salted password that others derive from it.
        use base64::Engine as _;
        let salt = base64::engine::general_purpose::STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = ScramMechanism::Sha256.salted(b"pencil", &salt, 4096);
        let hex: String = salted.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "c4a49510323ab4f952cac1fa99441939e78ea74d6be81ddf7096e87513dc615d");
        assert_eq!(ScramMechanism::Sha512.salted(b"pencil", &salt, 4096).len(), 64);
    }
}
