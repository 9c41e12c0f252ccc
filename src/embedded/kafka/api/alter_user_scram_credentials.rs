//! AlterUserScramCredentials (51), version 0 (KIP-554).
//!
//! Each user's change stands alone; a user may be named once in a request. Any broker takes it. Results by user.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;
use crate::embedded::kafka::security::{LEAST_ITERATIONS, MOST_ITERATIONS, Mechanism, Users};

/// The longest salt and salted password that are kept.
const LONGEST: usize = 1024;

impl Api for AlterUserScramCredentialsRequest {
    const SERVED: RangeInclusive<i16> = 0..=0;
    const SHAPE: &'static [Field] = &[
        always(Shape::Structs(&[always(Shape::Text), always(Shape::Fixed(1))])),
        always(Shape::Structs(&[
            always(Shape::Text),
            always(Shape::Fixed(1 + 4)),
            always(Shape::Bytes),
            always(Shape::Bytes),
        ])),
    ];

    fn handle(self, cluster: &mut Cluster, _context: &Context) -> Reply<AlterUserScramCredentialsResponse> {
        let mut changes: BTreeMap<StrBytes, Result<Change<'_>, Refused>> = BTreeMap::new();
        let deletions = self.deletions.iter().map(|d| (&d.name, Change::Deletion(d)));
        let upsertions = self.upsertions.iter().map(|u| (&u.name, Change::Upsertion(u)));
        for (name, change) in deletions.chain(upsertions) {
            let checked = change.check(&cluster.users).map(|()| change);
            changes.entry(name.clone()).and_modify(|earlier| *earlier = Err(TWICE)).or_insert(checked);
        }
        let results = changes.into_iter().map(|(name, change)| {
            let done = change.and_then(|change| change.carry_out(&mut cluster.users));
            let result = AlterUserScramCredentialsResult::default().with_user(name).with_error_message(None);
            match done {
                Ok(()) => result,
                Err((code, text)) => result
                    .with_error_code(code.code())
                    .with_error_message(Some(StrBytes::from_static_str(text))),
            }
        });
        Reply::Now(AlterUserScramCredentialsResponse::default().with_results(results.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> AlterUserScramCredentialsResponse {
        let names = self.deletions.iter().map(|d| &d.name).chain(self.upsertions.iter().map(|u| &u.name));
        let results = names.map(|name| {
            AlterUserScramCredentialsResult::default()
                .with_user(name.clone())
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(code.to_string())))
        });
        AlterUserScramCredentialsResponse::default().with_results(results.collect())
    }
}

type Refused = (Code, &'static str);
const TWICE: Refused =
    (Code::DuplicateResource, "A user credential cannot be altered twice in the same request");

enum Change<'a> {
    Deletion(&'a ScramCredentialDeletion),
    Upsertion(&'a ScramCredentialUpsertion),
}

impl Change<'_> {
    fn mechanism(&self) -> Result<Mechanism, Refused> {
        let (name, number) = match self {
            Self::Deletion(d) => (&d.name, d.mechanism),
            Self::Upsertion(u) => (&u.name, u.mechanism),
        };
        if name.is_empty() {
            return Err((Code::UnacceptableCredential, "Username must not be empty"));
        }
        Mechanism::from_number(number).ok_or((Code::UnsupportedSaslMechanism, "Unknown SCRAM mechanism"))
    }

    fn check(&self, users: &Users) -> Result<(), Refused> {
        let mechanism = self.mechanism()?;
        match self {
            Self::Deletion(d) if !users.has_scram(&d.name, mechanism) => {
                Err((Code::ResourceNotFound, "Attempt to delete a user credential that does not exist"))
            }
            Self::Deletion(_) => Ok(()),
            Self::Upsertion(u) => iterations(u.iterations).and_then(|_| {
                if u.salt.len() > LONGEST || u.salted_password.len() > LONGEST {
                    Err((Code::UnacceptableCredential, "The salt or the salted password is too long"))
                } else {
                    Ok(())
                }
            }),
        }
    }

    fn carry_out(&self, users: &mut Users) -> Result<(), Refused> {
        let mechanism = self.mechanism()?;
        match self {
            Self::Deletion(d) => users.remove_scram(&d.name, mechanism),
            Self::Upsertion(u) => {
                let iterations = iterations(u.iterations)?;
                // Of its own, so that it does not keep the request alive.
                let salt = bytes::Bytes::copy_from_slice(&u.salt);
                users
                    .set_scram(&u.name, mechanism, salt, iterations, &u.salted_password)
                    .map_err(|_| (Code::UnacceptableCredential, "There are too many credentials"))?;
            }
        }
        Ok(())
    }
}

fn iterations(n: i32) -> Result<u32, Refused> {
    match u32::try_from(n) {
        Ok(n) if n > MOST_ITERATIONS => Err((Code::UnacceptableCredential, "Too many iterations")),
        Ok(n) if n >= LEAST_ITERATIONS => Ok(n),
        _ => Err((Code::UnacceptableCredential, "Too few iterations")),
    }
}
