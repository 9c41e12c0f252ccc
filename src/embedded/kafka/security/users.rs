//! Users: passwords for PLAIN, credentials for SCRAM.

use std::collections::BTreeMap;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha512};

/// Iterations of a credential that is made from a password; the least that is accepted.
pub(in crate::embedded::kafka) const LEAST_ITERATIONS: u32 = 4096;
/// The most iterations that are accepted, as by the real broker.
pub(in crate::embedded::kafka) const MOST_ITERATIONS: u32 = 16384;
/// Credentials altogether; one more is refused.
const MOST: usize = 10_000;

/// How a client logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::embedded::kafka) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    /// In the order in which they are announced.
    pub(in crate::embedded::kafka) const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    pub(in crate::embedded::kafka) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }

    pub(in crate::embedded::kafka) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// The number of a SCRAM mechanism in requests (KIP-554).
    pub(in crate::embedded::kafka) fn from_number(number: i8) -> Option<Self> {
        match number {
            1 => Some(Self::ScramSha256),
            2 => Some(Self::ScramSha512),
            _ => None,
        }
    }

    pub(in crate::embedded::kafka) fn number(self) -> i8 {
        match self {
            Self::Plain => 0,
            Self::ScramSha256 => 1,
            Self::ScramSha512 => 2,
        }
    }

    pub(super) fn hash(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::ScramSha512 => Sha512::digest(data).to_vec(),
            Self::Plain | Self::ScramSha256 => Sha256::digest(data).to_vec(),
        }
    }

    pub(super) fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        fn with<M: Mac>(mac: Result<M, impl Sized>, data: &[u8]) -> Vec<u8> {
            // A key of any length will do: there is no error.
            mac.map(|mac| mac.chain_update(data).finalize().into_bytes().to_vec()).unwrap_or_default()
        }
        match self {
            Self::ScramSha512 => with(<Hmac<Sha512> as Mac>::new_from_slice(key), data),
            Self::Plain | Self::ScramSha256 => with(<Hmac<Sha256> as Mac>::new_from_slice(key), data),
        }
    }

    /// `Hi(password, salt, iterations)` of RFC 5802.
    pub(super) fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Self::ScramSha512 => pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, salt, iterations).to_vec(),
            Self::Plain | Self::ScramSha256 => {
                pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec()
            }
        }
    }
}

/// What the server keeps of a SCRAM user (RFC 5802 section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) stored: Vec<u8>,
    pub(super) server: Vec<u8>,
}

impl Keys {
    pub(super) fn new(mechanism: Mechanism, salted: &[u8]) -> Self {
        let client = mechanism.hmac(salted, b"Client Key");
        Self { stored: mechanism.hash(&client), server: mechanism.hmac(salted, b"Server Key") }
    }
}

/// A SCRAM credential.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) salt: Bytes,
    pub(super) iterations: u32,
    secret: Secret,
}

#[derive(Debug, Clone)]
enum Secret {
    /// The keys are worked out at the first login: it takes thousands of hashes.
    Password(String),
    Keys(Keys),
}

/// All users.
#[derive(Debug, Default)]
pub(in crate::embedded::kafka) struct Users {
    passwords: BTreeMap<String, String>,
    scram: BTreeMap<(String, Mechanism), Credential>,
}

impl Users {
    /// Adds a user for all mechanisms, or gives it another password. `random` becomes the salts.
    pub(in crate::embedded::kafka) fn add(&mut self, name: &str, password: &str, random: [u64; 4]) {
        self.passwords.insert(name.to_owned(), password.to_owned());
        let [a, b, c, d] = random.map(u64::to_be_bytes);
        for (mechanism, salt) in [(Mechanism::ScramSha256, [a, b]), (Mechanism::ScramSha512, [c, d])] {
            let salt = salt.concat();
            let credential = Credential {
                salt: salt.into(),
                iterations: LEAST_ITERATIONS,
                secret: Secret::Password(password.to_owned()),
            };
            self.scram.insert((name.to_owned(), mechanism), credential);
        }
    }

    pub(super) fn has_password(&self, name: &str, password: &str) -> bool {
        match self.passwords.get(name) {
            Some(right) => same(right.as_bytes(), password.as_bytes()),
            None => false,
        }
    }

    /// A user's salt, iterations and keys.
    pub(super) fn credential(&mut self, name: &str, mechanism: Mechanism) -> Option<(Bytes, u32, Keys)> {
        let credential = self.scram.get_mut(&(name.to_owned(), mechanism))?;
        let keys = match &credential.secret {
            Secret::Keys(keys) => keys.clone(),
            Secret::Password(password) => {
                let salted = mechanism.salted(password.as_bytes(), &credential.salt, credential.iterations);
                let keys = Keys::new(mechanism, &salted);
                credential.secret = Secret::Keys(keys.clone());
                keys
            }
        };
        Some((credential.salt.clone(), credential.iterations, keys))
    }

    /// Sets a user's credential (KIP-554).
    ///
    /// # Errors
    /// There are too many already.
    pub(in crate::embedded::kafka) fn set_scram(
        &mut self,
        name: &str,
        mechanism: Mechanism,
        salt: Bytes,
        iterations: u32,
        salted_password: &[u8],
    ) -> Result<(), Full> {
        let key = (name.to_owned(), mechanism);
        if self.scram.len() >= MOST && !self.scram.contains_key(&key) {
            return Err(Full);
        }
        let secret = Secret::Keys(Keys::new(mechanism, salted_password));
        self.scram.insert(key, Credential { salt, iterations, secret });
        Ok(())
    }

    pub(in crate::embedded::kafka) fn has_scram(&self, name: &str, mechanism: Mechanism) -> bool {
        self.scram.contains_key(&(name.to_owned(), mechanism))
    }

    pub(in crate::embedded::kafka) fn remove_scram(&mut self, name: &str, mechanism: Mechanism) {
        self.scram.remove(&(name.to_owned(), mechanism));
    }

    /// All credentials, by user: `(user, mechanism, iterations)`.
    pub(in crate::embedded::kafka) fn scram(&self) -> impl Iterator<Item = (&str, Mechanism, u32)> {
        self.scram.iter().map(|((name, mechanism), c)| (name.as_str(), *mechanism, c.iterations))
    }
}

/// No more credentials are taken.
#[derive(Debug)]
pub(in crate::embedded::kafka) struct Full;

/// Compares secrets in a time that depends on their lengths alone.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
