//! DescribeUserScramCredentials (50), version 0 (KIP-554).
//!
//! Users by name. None asked for, or null: all of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Api, Code, Context, Field, Reply, Shape, always};
use crate::embedded::kafka::cluster::Cluster;

impl Api for DescribeUserScramCredentialsRequest {
    const SERVED: RangeInclusive<i16> = 0..=0;
    const SHAPE: &'static [Field] = &[always(Shape::Structs(&[always(Shape::Text)]))];

    fn handle(
        self,
        cluster: &mut Cluster,
        _context: &Context,
    ) -> Reply<DescribeUserScramCredentialsResponse> {
        let mut known: BTreeMap<&str, Vec<CredentialInfo>> = BTreeMap::new();
        for (name, mechanism, iterations) in cluster.users.scram() {
            let info = CredentialInfo::default()
                .with_mechanism(mechanism.number())
                .with_iterations(i32::try_from(iterations).unwrap_or(i32::MAX));
            known.entry(name).or_default().push(info);
        }
        // How often each is asked for.
        let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
        match self.users.as_deref() {
            None | Some([]) => asked.extend(known.keys().map(|name| (*name, 1))),
            Some(users) => users.iter().for_each(|user| *asked.entry(&user.name).or_default() += 1),
        }
        let results = asked.into_iter().map(|(name, times)| {
            let result = DescribeUserScramCredentialsResult::default()
                .with_user(StrBytes::from_string(name.to_owned()));
            let refused = |code: Code, text: &str| {
                let text = StrBytes::from_string(format!("{text}: {name}"));
                result.clone().with_error_code(code.code()).with_error_message(Some(text))
            };
            match known.get(name) {
                _ if times > 1 => refused(
                    Code::DuplicateResource,
                    "Cannot describe SCRAM credentials for the same user twice in a single request",
                ),
                Some(infos) => result.clone().with_credential_infos(infos.clone()),
                None => refused(
                    Code::ResourceNotFound,
                    "Attempt to describe a user credential that does not exist",
                ),
            }
        });
        Reply::Now(DescribeUserScramCredentialsResponse::default().with_results(results.collect()))
    }

    fn refuse(&self, code: Code, _version: i16) -> DescribeUserScramCredentialsResponse {
        DescribeUserScramCredentialsResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_string(code.to_string())))
    }
}
