//! One login: PLAIN in one message, SCRAM in two.
//!
//! ```text
//! PLAIN   Begun --[authzid] NUL user NUL password--> done
//! SCRAM   Begun --n,,n=user,r=nonce--> Challenged --c=biws,r=nonce+ours,p=proof--> done
//!               <-r=nonce+ours,s=salt,i=4096--       <-v=signature--
//! ```
//! Any message that does not fit ends it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::users::{Keys, Mechanism, Users, same};

/// A login in progress.
#[derive(Debug, Clone)]
pub(in crate::embedded::kafka) struct Exchange {
    mechanism: Mechanism,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Begun,
    Challenged(Box<Challenged>),
    Over,
}

#[derive(Debug, Clone)]
struct Challenged {
    user: String,
    /// `n,,` or `n,a=user,`: the client repeats it in base 64.
    gs2: String,
    client_first: String,
    server_first: String,
    nonce: String,
    keys: Keys,
}

/// What follows from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded::kafka) enum Step {
    /// Send this; another message is to come.
    Challenge(Vec<u8>),
    /// Send this; the user is logged in.
    Done { user: String, last: Vec<u8> },
}

/// Why a login is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded::kafka) enum Failure {
    /// To be told in general words: user and password are not distinguished.
    Credentials,
    /// To be told in these words.
    Told(String),
}

fn told(text: &str) -> Failure {
    Failure::Told(format!("Authentication failed: {text}"))
}

impl Exchange {
    pub(in crate::embedded::kafka) fn new(mechanism: Mechanism) -> Self {
        Self { mechanism, state: State::Begun }
    }

    pub(in crate::embedded::kafka) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Takes the client's next message. `nonce` is our part of a SCRAM nonce: printable, without a comma.
    ///
    /// # Errors
    /// The login is refused, and over.
    pub(in crate::embedded::kafka) fn handle_message(
        &mut self,
        message: &[u8],
        users: &mut Users,
        nonce: &str,
    ) -> Result<Step, Failure> {
        let mechanism = self.mechanism;
        match (std::mem::replace(&mut self.state, State::Over), mechanism) {
            (State::Begun, Mechanism::Plain) => plain(message, users),
            (State::Begun, _) => {
                let challenged = first(mechanism, message, users, nonce)?;
                let challenge = challenged.server_first.clone().into_bytes();
                self.state = State::Challenged(Box::new(challenged));
                Ok(Step::Challenge(challenge))
            }
            (State::Challenged(challenged), _) => last(mechanism, *challenged, message),
            (State::Over, _) => Err(Failure::Credentials),
        }
    }
}

/// RFC 4616.
fn plain(message: &[u8], users: &Users) -> Result<Step, Failure> {
    let text = String::from_utf8_lossy(message);
    let tokens: Vec<&str> = text.splitn(4, '\0').collect();
    let [authorized, user, password] = tokens.as_slice() else {
        let n = tokens.len();
        return Err(Failure::Told(format!("Invalid SASL/PLAIN response: expected 3 tokens, got {n}")));
    };
    if user.is_empty() {
        return Err(told("username not specified"));
    }
    if password.is_empty() {
        return Err(told("password not specified"));
    }
    if !users.has_password(user, password) {
        return Err(told("Invalid username or password"));
    }
    check_authorized(authorized, user)?;
    Ok(Step::Done { user: (*user).to_owned(), last: Vec::new() })
}

fn check_authorized(authorized: &str, user: &str) -> Result<(), Failure> {
    if authorized.is_empty() || authorized == user {
        Ok(())
    } else {
        Err(told("Client requested an authorization id that is different from username"))
    }
}

/// RFC 5802 section 7: `gs2-header client-first-message-bare`.
fn first(
    mechanism: Mechanism,
    message: &[u8],
    users: &mut Users,
    nonce: &str,
) -> Result<Challenged, Failure> {
    const WRONG: Failure = Failure::Credentials;
    let text = str::from_utf8(message).map_err(|_| WRONG)?;
    let (binding, rest) = text.split_once(',').ok_or(WRONG)?;
    let (authorized, bare) = rest.split_once(',').ok_or(WRONG)?;
    // `y`: the client could bind to a channel and believes that we cannot. `p`: it wants to, and cannot.
    if binding != "n" && binding != "y" {
        return Err(WRONG);
    }
    let authorized = match authorized.strip_prefix("a=") {
        Some(name) => unescape(name).ok_or(WRONG)?,
        None if authorized.is_empty() => String::new(),
        None => return Err(WRONG),
    };
    let mut parts = bare.split(',');
    let user = parts.next().and_then(|part| part.strip_prefix("n=")).and_then(unescape).ok_or(WRONG)?;
    let theirs = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or(WRONG)?;
    let printable = theirs.bytes().all(|byte| byte.is_ascii_graphic());
    if theirs.is_empty() || !printable || parts.any(|extension| extension == "tokenauth=true") {
        return Err(WRONG);
    }
    let (salt, iterations, keys) = users.credential(&user, mechanism).ok_or(WRONG)?;
    check_authorized(&authorized, &user)?;
    let nonce = format!("{theirs}{nonce}");
    let server_first = format!("r={nonce},s={},i={iterations}", BASE64.encode(&salt));
    let gs2 = text.strip_suffix(bare).unwrap_or_default().to_owned();
    Ok(Challenged { user, gs2, client_first: bare.to_owned(), server_first, nonce, keys })
}

/// RFC 5802 section 3: the proof, and our signature.
fn last(mechanism: Mechanism, challenged: Challenged, message: &[u8]) -> Result<Step, Failure> {
    const WRONG: Failure = Failure::Credentials;
    let text = str::from_utf8(message).map_err(|_| WRONG)?;
    let (without_proof, proof) = text.rsplit_once(",p=").ok_or(WRONG)?;
    let mut parts = without_proof.split(',');
    let binding = parts.next().and_then(|part| part.strip_prefix("c=")).ok_or(WRONG)?;
    let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or(WRONG)?;
    if binding != BASE64.encode(&challenged.gs2) || nonce != challenged.nonce {
        return Err(WRONG);
    }
    let proof = BASE64.decode(proof).map_err(|_| WRONG)?;
    let signed = format!("{},{},{without_proof}", challenged.client_first, challenged.server_first);
    let signature = mechanism.hmac(&challenged.keys.stored, signed.as_bytes());
    if proof.len() != signature.len() {
        return Err(WRONG);
    }
    let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    if !same(&mechanism.hash(&client_key), &challenged.keys.stored) {
        return Err(WRONG);
    }
    let ours = mechanism.hmac(&challenged.keys.server, signed.as_bytes());
    Ok(Step::Done { user: challenged.user, last: format!("v={}", BASE64.encode(ours)).into_bytes() })
}

/// A `saslname`: `=2C` is a comma, `=3D` an equals sign, and no other `=` may stand there.
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = if let Some(rest) = part.strip_prefix("2C") {
            (',', rest)
        } else {
            ('=', part.strip_prefix("3D")?)
        };
        plain.push(sign);
        plain.push_str(rest);
    }
    (!plain.is_empty()).then_some(plain)
}
