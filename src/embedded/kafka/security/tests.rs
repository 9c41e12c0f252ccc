//! Logins: the example of RFC 7677, and what a client may do with a connection.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;

use super::SecuritySettings;
use super::exchange::{Exchange, Failure, Step};
use super::users::{Keys, Mechanism, Users};
use crate::embedded::kafka::bed::Bed;
use crate::embedded::kafka::cluster::Settings;
use crate::embedded::machine::{ConnectionId, Output};

const PASSWORD: &[u8] = b"\0alice\0alice-secret";
const ILLEGAL_SASL_STATE: i16 = 34;
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const SASL_AUTHENTICATION_FAILED: i16 = 58;

fn bed(lifetime: Option<Duration>) -> Bed {
    let security = SecuritySettings {
        required: true,
        users: vec![
            ("alice".to_owned(), "alice-secret".to_owned()),
            ("bob".to_owned(), "bob-secret".to_owned()),
        ],
        session_lifetime: lifetime,
    };
    Bed::new(1, Settings { security, ..Settings::default() })
}

fn handshake(bed: &mut Bed, c: ConnectionId, mechanism: &str) -> SaslHandshakeResponse {
    let mechanism = StrBytes::from_string(mechanism.to_owned());
    bed.call(c, 1, &SaslHandshakeRequest::default().with_mechanism(mechanism))
}

fn authenticate(bed: &mut Bed, c: ConnectionId, bytes: &[u8]) -> SaslAuthenticateResponse {
    bed.call(c, 2, &SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(bytes)))
}

fn log_in(bed: &mut Bed, c: ConnectionId) -> SaslAuthenticateResponse {
    assert_eq!(handshake(bed, c, "PLAIN").error_code, 0);
    authenticate(bed, c, PASSWORD)
}

fn metadata(bed: &mut Bed, c: ConnectionId) -> bool {
    let sent = bed.send(c, 12, &MetadataRequest::default());
    bed.answer::<MetadataRequest>(c, 12, sent).is_some()
}

#[test]
fn the_example_of_rfc_7677_is_understood() {
    let mut users = Users::default();
    let salt =
        [0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81];
    let salted = Mechanism::ScramSha256.salted(b"pencil", &salt, 4096);
    let salt = Bytes::copy_from_slice(&salt);
    users.set_scram("user", Mechanism::ScramSha256, salt, 4096, &salted).unwrap();
    let mut exchange = Exchange::new(Mechanism::ScramSha256);
    let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let first = exchange.handle_message(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", &mut users, nonce);
    let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    assert_eq!(first, Ok(Step::Challenge(challenge.into())));
    let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let done = exchange.handle_message(last.as_bytes(), &mut users, nonce);
    let signature = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    assert_eq!(done, Ok(Step::Done { user: "user".into(), last: signature.into() }));
    let again = exchange.handle_message(last.as_bytes(), &mut users, nonce);
    assert_eq!(again, Err(Failure::Credentials), "a login is over when it is over");
}

#[test]
fn a_password_and_the_credential_made_of_it_are_one() {
    let mut users = Users::default();
    users.add("alice", "alice-secret", [1, 2, 3, 4]);
    for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha512] {
        let (salt, iterations, keys) = users.credential("alice", mechanism).unwrap();
        let salted = mechanism.salted(b"alice-secret", &salt, iterations);
        assert_eq!(keys, Keys::new(mechanism, &salted));
        assert_eq!(users.credential("alice", mechanism).unwrap().2, keys, "it is worked out once");
    }
    assert!(users.credential("bob", Mechanism::ScramSha256).is_none());
}

#[test]
fn nothing_is_served_before_the_login_and_everything_after_it() {
    let mut bed = bed(None);
    let c = bed.connect(1);
    assert!(!metadata(&mut bed, c));
    assert_eq!(bed.ended(c), Some(Output::Close));

    let c = bed.connect(1);
    bed.call(c, 2, &ApiVersionsRequest::default());
    let answer = log_in(&mut bed, c);
    assert_eq!((answer.error_code, answer.session_lifetime_ms), (0, 0));
    assert!(metadata(&mut bed, c));
    assert_eq!(handshake(&mut bed, c, "PLAIN").error_code, ILLEGAL_SASL_STATE);
    assert_eq!(authenticate(&mut bed, c, PASSWORD).error_code, ILLEGAL_SASL_STATE);
    assert!(metadata(&mut bed, c), "the connection lives on");
}

#[test]
fn a_refused_login_is_told_why_and_then_closed() {
    let mut bed = bed(None);
    let c = bed.connect(1);
    let answer = handshake(&mut bed, c, "GSSAPI");
    assert_eq!(answer.error_code, UNSUPPORTED_SASL_MECHANISM);
    assert_eq!(answer.mechanisms, ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].map(StrBytes::from_static_str));
    assert_eq!(bed.ended(c), Some(Output::Close));

    let c = bed.connect(1);
    handshake(&mut bed, c, "PLAIN");
    let answer = authenticate(&mut bed, c, b"\0alice\0wrong");
    assert_eq!(answer.error_code, SASL_AUTHENTICATION_FAILED);
    assert_eq!(answer.error_message.as_deref(), Some("Authentication failed: Invalid username or password"));
    assert_eq!(bed.ended(c), Some(Output::Close));
}

#[test]
fn a_request_in_the_middle_of_a_login_is_refused_with_its_own_answer() {
    let mut bed = bed(None);
    let c = bed.connect(1);
    handshake(&mut bed, c, "SCRAM-SHA-256");
    let sent = bed.send(c, 2, &ApiVersionsRequest::default());
    let answer = bed.answer::<ApiVersionsRequest>(c, 2, sent).unwrap();
    assert_eq!(answer.error_code, ILLEGAL_SASL_STATE);
    assert_eq!(bed.ended(c), Some(Output::Close));
}

#[test]
fn a_session_ends_unless_the_same_user_logs_in_again() {
    let lifetime = Duration::from_secs(60);
    let mut bed = bed(Some(lifetime));
    let c = bed.connect(1);
    assert_eq!(log_in(&mut bed, c).session_lifetime_ms, 60_000);
    bed.advance(Duration::from_secs(50));
    assert_eq!(log_in(&mut bed, c).session_lifetime_ms, 60_000);
    bed.advance(Duration::from_secs(50));
    assert!(metadata(&mut bed, c), "the second login counts");
    bed.advance(Duration::from_secs(11));
    assert!(!metadata(&mut bed, c));
    assert_eq!(bed.ended(c), Some(Output::Close));

    let c = bed.connect(1);
    log_in(&mut bed, c);
    bed.advance(Duration::from_secs(10));
    handshake(&mut bed, c, "PLAIN");
    let answer = authenticate(&mut bed, c, b"\0bob\0bob-secret");
    assert_eq!(answer.error_code, SASL_AUTHENTICATION_FAILED);
    assert_eq!(bed.ended(c), Some(Output::Close), "the user may not change");

    let c = bed.connect(1);
    log_in(&mut bed, c);
    handshake(&mut bed, c, "PLAIN");
    assert_eq!(authenticate(&mut bed, c, PASSWORD).error_code, 0);
    assert_eq!(handshake(&mut bed, c, "PLAIN").error_code, ILLEGAL_SASL_STATE, "not twice within a second");
}

#[test]
fn the_same_seed_gives_the_same_nonces_and_another_gives_others() {
    let challenge = |seed: u64| {
        let security = SecuritySettings {
            required: true,
            users: vec![("alice".to_owned(), "alice-secret".to_owned())],
            session_lifetime: None,
        };
        let mut bed = Bed::new(1, Settings { seed, security, ..Settings::default() });
        let c = bed.connect(1);
        handshake(&mut bed, c, "SCRAM-SHA-512");
        authenticate(&mut bed, c, b"n,,n=alice,r=theirs").auth_bytes
    };
    assert!(!challenge(1).is_empty());
    assert_eq!(challenge(1), challenge(1));
    assert_ne!(challenge(1), challenge(2));
}

proptest! {
    /// Whatever bytes come, nobody is logged in without the password.
    #[test]
    fn no_bytes_open_the_door(
        mechanism in prop::sample::select(&Mechanism::ALL[..]),
        messages in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "(n|y|p|),(a=alice|),n=(alice|bob|=2C|=),r=[!-~]{0,9}(,x=1)?".prop_map(String::into_bytes),
                "c=(biws|eSws|),r=[!-~]{0,9},p=([A-Za-z0-9+/]{43}=|!)".prop_map(String::into_bytes),
                "(alice)?\0alice\0[a-z-]{0,11}\0?".prop_map(String::into_bytes),
            ],
            1..4,
        ),
    ) {
        let mut users = Users::default();
        users.add("alice", "alice-secret", [1, 2, 3, 4]);
        let mut exchange = Exchange::new(mechanism);
        for message in messages {
            let step = exchange.handle_message(&message, &mut users, "ours");
            prop_assert!(!matches!(step, Ok(Step::Done { .. })), "{step:?}");
        }
    }
}
