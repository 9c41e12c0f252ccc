//! Logins, users, and what a broker says of itself.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::*;

use crate::common;
use crate::peer::{Peer, compare, compare_on, text};

fn compare_logins(scenario: impl Fn(&mut Peer)) {
    let embedded = muslin::embedded::Kafka::builder().user("alice", "alice-secret").require_sasl();
    compare_on(embedded, &common::kafka_sasl(), scenario);
}

/// The mechanisms served: that of the real broker has more.
fn handshake(peer: &mut Peer, v: i16, mechanism: &str) {
    let request = SaslHandshakeRequest::default().with_mechanism(text(mechanism));
    let answer = peer.try_call(v, &request);
    let shown = answer.map_or("closed".to_owned(), |answer| {
        let ours = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        let served: BTreeSet<_> = answer.mechanisms.iter().map(|m| m.to_string()).collect();
        format!("{} {}", answer.error_code, ours.iter().filter(|m| served.contains(**m)).count())
    });
    peer.note(&format!("handshake {mechanism} v{v}"), &shown);
}

fn authenticate(peer: &mut Peer, what: &str, v: i16, bytes: &[u8]) -> Option<Bytes> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(bytes));
    let answer = peer.try_call(v, &request);
    let shown = answer.as_ref().map_or("closed".to_owned(), |answer| {
        format!("{} {:?} {}", answer.error_code, answer.error_message, answer.session_lifetime_ms)
    });
    peer.note(&format!("{what} v{v}"), &shown);
    answer.map(|answer| answer.auth_bytes)
}

/// Is the connection still good?
fn alive(peer: &mut Peer, what: &str) {
    let answer = peer.try_call(12, &MetadataRequest::default().with_topics(Some(Vec::new())));
    peer.note(&format!("{what}: then"), if answer.is_some() { "alive" } else { "closed" });
    peer.reconnect();
}

#[test]
fn a_plain_login_is_taken_or_refused_alike() {
    compare_logins(|peer| {
        for (what, bytes) in [
            ("right", &b"\0alice\0alice-secret"[..]),
            ("right, for itself", b"alice\0alice\0alice-secret"),
            ("for another", b"admin\0alice\0alice-secret"),
            ("wrong password", b"\0alice\0wrong"),
            ("wrong user", b"\0nobody-here\0alice-secret"),
            ("no user", b"\0\0alice-secret"),
            ("no password", b"\0alice\0"),
            ("two parts", b"alice\0alice-secret"),
            ("four parts", b"\0alice\0alice-secret\0"),
            ("nothing", b""),
        ] {
            for v in [0, 1, 2] {
                handshake(peer, 1, "PLAIN");
                authenticate(peer, what, v, bytes);
                alive(peer, what);
            }
        }
    });
}

#[test]
fn requests_out_of_order_are_met_alike() {
    compare_logins(|peer| {
        for mechanism in ["GSSAPI", "plain", "", "SCRAM-SHA-1"] {
            for v in [0, 1] {
                handshake(peer, v, mechanism);
                alive(peer, "unknown mechanism");
            }
        }
        alive(peer, "nothing said");
        authenticate(peer, "no handshake", 2, b"\0alice\0alice-secret");
        peer.reconnect();

        let versions = ApiVersionsRequest::default();
        let first = peer.try_call(2, &versions).map(|answer| answer.error_code);
        peer.note("versions", &format!("{first:?}"));
        let second = peer.try_call(2, &versions).map(|answer| answer.error_code);
        peer.note("versions twice", &format!("{second:?}"));
        peer.reconnect();

        peer.try_call(2, &versions);
        alive(peer, "versions, then no login");
        handshake(peer, 1, "PLAIN");
        peer.see("metadata in between", 12, &MetadataRequest::default().with_topics(Some(Vec::new())));
        peer.reconnect();
        handshake(peer, 1, "PLAIN");
        handshake(peer, 1, "PLAIN");
        alive(peer, "two handshakes");

        handshake(peer, 1, "PLAIN");
        authenticate(peer, "login", 2, b"\0alice\0alice-secret");
        authenticate(peer, "login twice", 2, b"\0alice\0alice-secret");
        handshake(peer, 1, "PLAIN");
        alive(peer, "login twice");

        // Bytes that are no request, and a frame that is too long.
        let garbage = peer.exchange(b"\x60\x40garbage");
        peer.note("garbage", &format!("{:?}", garbage.is_some()));
        peer.reconnect();
        let long = peer.exchange(&vec![0; 600 * 1024]);
        peer.note("long", &format!("{:?}", long.is_some()));
        peer.reconnect();

        // Before KIP-152 the messages came bare.
        handshake(peer, 0, "PLAIN");
        let bare = peer.exchange(b"\0alice\0alice-secret");
        peer.note("bare", &format!("{bare:?}"));
        alive(peer, "bare");
        handshake(peer, 0, "PLAIN");
        let bare = peer.exchange(b"\0alice\0wrong");
        peer.note("bare, wrong", &format!("{bare:?}"));
        peer.reconnect();
    });
}

#[test]
fn an_open_listener_takes_no_login() {
    compare(|peer| {
        handshake(peer, 1, "PLAIN");
        authenticate(peer, "login", 2, b"\0alice\0alice-secret");
        alive(peer, "login");
    });
}

/// A whole SCRAM login, as RFC 5802 has it. `bend` may change a message on its way.
fn scram(peer: &mut Peer, mechanism: &str, password: &str, bend: impl Fn(usize, String) -> String) {
    use hmac::{Hmac, Mac};
    use sha2::{Digest, Sha256, Sha512};
    fn hmac(big: bool, key: &[u8], data: &[u8]) -> Vec<u8> {
        if big {
            Hmac::<Sha512>::new_from_slice(key).unwrap().chain_update(data).finalize().into_bytes().to_vec()
        } else {
            Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(data).finalize().into_bytes().to_vec()
        }
    }
    let big = mechanism.ends_with("512");
    handshake(peer, 1, mechanism);
    let bare = "n=alice,r=fyko+d2lbbFgONRv9qkxdawL";
    let first = bend(0, format!("n,,{bare}"));
    let Some(challenge) = authenticate(peer, &format!("{mechanism} first"), 2, first.as_bytes()) else {
        return;
    };
    let challenge = String::from_utf8(challenge.to_vec()).unwrap();
    let part =
        |head: &str| challenge.split(',').find_map(|part| part.strip_prefix(head)).map(ToOwned::to_owned);
    if let (Some(nonce), Some(salt), Some(iterations)) = (part("r="), part("s="), part("i=")) {
        let (salt, n) = (BASE64.decode(salt).unwrap(), iterations.parse().unwrap());
        let salted = if big {
            pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password.as_bytes(), &salt, n).to_vec()
        } else {
            pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), &salt, n).to_vec()
        };
        let client = hmac(big, &salted, b"Client Key");
        let stored = if big { Sha512::digest(&client).to_vec() } else { Sha256::digest(&client).to_vec() };
        let unproved = format!("c=biws,r={nonce}");
        let signed = format!("{bare},{challenge},{unproved}");
        let proof: Vec<u8> =
            client.iter().zip(hmac(big, &stored, signed.as_bytes())).map(|(a, b)| a ^ b).collect();
        let last = bend(1, format!("{unproved},p={}", BASE64.encode(proof)));
        let signature = authenticate(peer, &format!("{mechanism} last"), 2, last.as_bytes());
        let server = hmac(big, &salted, b"Server Key");
        let right = format!("v={}", BASE64.encode(hmac(big, &server, signed.as_bytes())));
        peer.note("server's signature", &format!("{}", signature.is_some_and(|s| s == right.as_bytes())));
    }
    alive(peer, mechanism);
}

#[test]
fn a_scram_login_is_taken_or_refused_alike() {
    compare_logins(|peer| {
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            scram(peer, mechanism, "alice-secret", |_, message| message);
            scram(peer, mechanism, "wrong", |_, message| message);
            for (at, from, to) in [
                (0, "n=alice", "n=nobody-here"),
                (0, "n,,", "n,a=admin,"),
                (0, "n,,", "p=tls-unique,,"),
                (0, "n,,", ""),
                (0, ",r=", ",x="),
                (0, "n=alice", "n=al=ice"),
                (1, "r=fyko", "r=evil"),
                (1, ",p=", ",q="),
                (1, "c=biws", "d=biws"),
                (1, ",p=", ",p=!!"),
            ] {
                scram(peer, mechanism, "alice-secret", |n, message| {
                    if n == at { message.replacen(from, to, 1) } else { message }
                });
            }
            // The same message twice, and none at all.
            handshake(peer, 1, mechanism);
            authenticate(peer, "nothing", 2, b"");
            alive(peer, "nothing");
        }
    });
}

#[test]
fn scram_users_are_kept_alike() {
    compare(|peer| {
        let (one, two, none) = (peer.name("one"), peer.name("two"), peer.name("none"));
        let upsert = |name: &str, mechanism: i8, iterations: i32| {
            ScramCredentialUpsertion::default()
                .with_name(text(name))
                .with_mechanism(mechanism)
                .with_iterations(iterations)
                .with_salt(Bytes::from_static(b"0123456789abcdef"))
                .with_salted_password(Bytes::from_static(&[7; 32]))
        };
        let delete = |name: &str, mechanism: i8| {
            ScramCredentialDeletion::default().with_name(text(name)).with_mechanism(mechanism)
        };
        let alter = |peer: &mut Peer, what: &str, deletions: Vec<_>, upsertions: Vec<_>| {
            let request = AlterUserScramCredentialsRequest::default()
                .with_deletions(deletions)
                .with_upsertions(upsertions);
            let mut answer = peer.call(0, &request);
            answer.results.sort_by(|a, b| a.user.cmp(&b.user));
            peer.note(what, &format!("{answer:?}"));
        };
        let describe = |peer: &mut Peer, what: &str, names: &[&str]| {
            let users = names.iter().map(|name| UserName::default().with_name(text(name)));
            let request = DescribeUserScramCredentialsRequest::default().with_users(Some(users.collect()));
            let mut answer = peer.call(0, &request);
            answer.results.sort_by(|a, b| a.user.cmp(&b.user));
            for result in &mut answer.results {
                result.credential_infos.sort_by_key(|info| info.mechanism);
            }
            peer.note(what, &format!("{answer:?}"));
        };
        describe(peer, "unknown", &[&one]);
        for (what, upsertion) in [
            ("few iterations", upsert(&one, 1, 4095)),
            ("many iterations", upsert(&one, 1, 16385)),
            ("negative iterations", upsert(&one, 1, -1)),
            ("unknown mechanism", upsert(&one, 3, 4096)),
            ("mechanism 0", upsert(&one, 0, 4096)),
            ("no name", upsert("", 1, 4096)),
        ] {
            alter(peer, what, Vec::new(), vec![upsertion]);
        }
        alter(peer, "delete none", vec![delete(&none, 1)], Vec::new());
        alter(peer, "two at once", Vec::new(), vec![upsert(&one, 1, 4096), upsert(&two, 2, 8192)]);
        alter(peer, "twice", Vec::new(), vec![upsert(&one, 1, 4096), upsert(&one, 2, 4096)]);
        alter(peer, "deleted and set", vec![delete(&one, 1)], vec![upsert(&one, 1, 5000)]);
        alter(peer, "another mechanism", Vec::new(), vec![upsert(&one, 2, 5000)]);
        alter(peer, "one good, one bad", vec![delete(&none, 1)], vec![upsert(&two, 1, 4096)]);
        peer.wait("users to be known", |peer| {
            let user = UserName::default().with_name(text(&two));
            let request = DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user]));
            peer.call(0, &request).results[0].credential_infos.len() == 2
        });
        describe(peer, "both", &[&one, &two]);
        describe(peer, "twice", &[&one, &one, &none]);
        alter(peer, "deleted", vec![delete(&one, 1)], Vec::new());
        alter(peer, "deleted again", vec![delete(&one, 1)], Vec::new());
    });
}

#[test]
fn a_broker_tells_its_versions_alike() {
    compare(|peer| {
        let request = ApiVersionsRequest::default();
        for (name, version) in
            [("muslin", "1.0"), ("", ""), ("a b", "1"), ("a", "1.0-"), ("-a", "1"), ("a", "1_0"), ("ä", "1")]
        {
            for v in [3, 4] {
                let request = request
                    .clone()
                    .with_client_software_name(text(name))
                    .with_client_software_version(text(version));
                let answer = peer.call(v, &request);
                let shown = format!("{} {}", answer.error_code, answer.api_keys.is_empty());
                peer.note(&format!("versions for {name:?} {version:?} v{v}"), &shown);
            }
        }
        for v in 0..=4 {
            let named = match v {
                0..3 => request.clone(),
                _ => request
                    .clone()
                    .with_client_software_name(text("raw"))
                    .with_client_software_version(text("1")),
            };
            let mut answer = peer.call(v, &named);
            // Features that are not spoken here.
            let spoken = |name: &str| !name.starts_with("s") && !name.starts_with("eligible");
            answer.supported_features.retain(|feature| spoken(&feature.name));
            answer.finalized_features.retain(|feature| spoken(&feature.name));
            answer.supported_features.sort_by(|a, b| a.name.cmp(&b.name));
            answer.finalized_features.sort_by(|a, b| a.name.cmp(&b.name));
            let epoch = answer.finalized_features_epoch.signum();
            let (supported, finalized) = (&answer.supported_features, &answer.finalized_features);
            peer.note(&format!("features v{v}"), &format!("{supported:?} {finalized:?} {epoch}"));
        }
    });
}

#[test]
fn no_version_is_announced_that_the_real_broker_does_not_know() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let kafka = runtime.block_on(muslin::embedded::Kafka::builder().start()).unwrap();
    let [ours, theirs] = [kafka.bootstrap(), common::kafka()].map(|address| {
        let mut peer = Peer::connect(&address);
        peer.call(2, &ApiVersionsRequest::default()).api_keys
    });
    assert!(ours.len() > 20);
    for key in ours {
        let known = theirs.iter().find(|known| known.api_key == key.api_key);
        let known = known.unwrap_or_else(|| panic!("API {} is not known there", key.api_key));
        assert_eq!(key.min_version, known.min_version, "API {}", key.api_key);
        assert!(key.max_version <= known.max_version, "API {}", key.api_key);
    }
}
